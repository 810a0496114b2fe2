"""What a label costs that is durable before it is acknowledged: one by one, by many clients at once, and in bulk.

Every label is about a prediction that the server made and logged. When all are acknowledged, the log must hold each of
them once. The floor appends as many bytes to a file and syncs it, once per request; a request that shares its commit
with others can do better than that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, Size, require
from benchmarks.servers import client
from benchmarks.servers.client import Connection, post
from benchmarks.servers.deployed import INFER, Deployed, asked, deployed
from benchmarks.servers.peers import tensor
from benchmarks.servers.process import Server
from perennial.stream.ingest import IngestSource

NAME = "taking_in"
COLUMNS = 5
MANY, BULK = 16, 1_000  #: clients at once; labels of one request

_REQUESTS = {"full": 1_500, "quick": 300, "tiny": 20}
_BULKS = {"full": 30, "quick": 5, "tiny": 1}


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:
    """Acknowledged labels a second, CPU per label of the server, and both against synced appends."""
    made = deployed(
        folder / "ours", versions=1, rows=400, columns=COLUMNS, estimator="lightgbm.LGBMClassifier",
        params={"n_estimators": 10},
    )  # fmt: skip
    requests, bulks = _REQUESTS[size], _BULKS[size]
    ways = {"one client": (requests, 1, 1), f"{MANY} clients": (requests, 1, MANY), "bulk": (bulks, BULK, 1)}
    speed: dict[str, list[float]] = {way: [] for way in ways}
    cost: dict[str, list[float]] = {way: [] for way in ways}
    synced: list[float] = []
    told: dict[str, int] = {}
    with made.start() as server:
        for _ in range(rounds):
            synced.append(_floor(folder / "floor", requests, 200))
            for way, (count, labels, clients) in ways.items():
                ids = _predicted(server, count * labels)
                given = {item: int(label) for item, label in zip(ids, np.arange(len(ids)) % 2, strict=True)}
                seconds, spent = _send(server, folder, given, labels, clients)
                speed[way].append(len(given) / seconds)
                cost[way].append(1e6 * spent / len(given))
                told |= given
        _check(made, told)
    figure = partial(
        Figure,
        benchmark=NAME,
        peer="a synced append per request",
        checked=f"{len(told):,} labels, each once in the log",
    )
    names = {
        "one client": "labels one by one, one client",
        f"{MANY} clients": f"labels one by one, {MANY} clients",
        "bulk": f"labels in requests of {BULK:,}",
    }
    out = [figure(what="appends of 200 bytes, each synced", rounds=synced, unit="1/s")]
    for way, name in names.items():
        out += [
            figure(what=f"{name}: acknowledged", rounds=speed[way], unit="labels/s"),
            figure(what=f"{name}: the server's CPU", rounds=cost[way], unit="us CPU"),
        ]
    over = [ours / floor for ours, floor in zip(speed[f"{MANY} clients"], synced, strict=True)]
    return [*out, figure(what=f"labels one by one, {MANY} clients: over synced appends", rounds=over)]


def _predicted(server: Server, count: int) -> list[str]:
    """Ids of as many new predictions."""
    connection, out = Connection(server.port), []
    while len(out) < count:
        rows = asked(1, min(BULK, count - len(out)), COLUMNS)[0]
        status, content = connection.ask(post(INFER, json.dumps(tensor(rows)).encode()))
        require(status == 200, f"a prediction failed: {content[:300]!r}")
        out += next(output["data"] for output in json.loads(content)["outputs"] if output["name"] == "id")
    connection.close()
    time.sleep(1.0)  # they are logged
    return out


def _send(server: Server, folder: Path, given: dict[str, int], labels: int, clients: int) -> tuple[float, float]:
    """Wall seconds until all labels were acknowledged, and CPU seconds of the server."""
    bodies = folder / "bodies.json"
    bodies.write_text(json.dumps(list(_bodies(given, labels))))
    count = len(given) // labels
    command = [sys.executable, client.__file__, str(server.port), "/labels", str(bodies), str(count), str(clients)]
    before = server.cpu_seconds()
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    require(told["failed"] == 0, f"{told['failed']} of {count} requests with labels failed")
    return told["seconds"], server.cpu_seconds() - before


def _bodies(given: dict[str, int], labels: int) -> Iterator[str]:
    items = ({"id": item, "label": label} for item, label in given.items())
    while some := list(islice(items, labels)):
        yield json.dumps(some[0] if labels == 1 else {"labels": some})


def _check(made: Deployed, told: dict[str, int]) -> None:
    """The log holds every label that was acknowledged, once."""
    with made.ledger() as (_, deployment):
        source = IngestSource(deployment.inbox.url("labels"))
        found: list[tuple[str, int]] = []
        for block in source.blocks(source.types((), ())):
            rows = block.rows
            found += zip(rows.column("id").to_pylist(), rows.column("y").to_pylist(), strict=True)
    ours = [pair for pair in found if pair[0] in told]
    require(sorted(ours) == sorted(told.items()), "labels that were acknowledged and those in the log differ")


def _floor(path: Path, times: int, size: int) -> float:
    """Appends a second of ``size`` bytes to a file, each synced."""
    data = os.urandom(size)
    with path.open("ab") as file:
        begun = time.perf_counter()
        for _ in range(times):
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        return times / (time.perf_counter() - begun)
