"""What an answer costs: CPU per request of the whole process tree, against a bare ASGI app and other model servers.

One LightGBM classifier of 100 trees with 31 leaves on 30 columns, asked about 1 row and about 100 rows by one client
over one connection. Ours checks every row, logs every prediction, durably, and counts; the peers do what they do when
they are started as their documentation has it, with one worker. Servers run in turn, each started anew in every round,
and all must give what the booster gives before any is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from benchmarks.common import Figure, NotMeasured, Size, ratios, require
from benchmarks.servers import client, peers
from benchmarks.servers.client import Connection, get, post
from benchmarks.servers.deployed import INFER, Deployed, asked, deployed
from benchmarks.servers.peers import NotInstalled, Peer
from benchmarks.servers.process import NotStarted, Server

NAME = "serving"
COLUMNS = 30
BODIES = 64  #: different questions, asked in turn
OURS, FLOOR = "perennial serve", "bare ASGI app"
SETTLE = 0.5  #: seconds after the last answer: what a server does behind its answers is its cost too

_SECONDS = {"full": 4.0, "quick": 1.0, "tiny": 0.1}
_ROWS = {"full": 20_000, "quick": 20_000, "tiny": 2_000}

#: the most CPU against the bare app; the least of others against ours, at 1 row and at 100
_FLOOR = 1.6
_LEAST: dict[str, dict[int, float]] = {
    "mlflow models serve": {1: 5.0, 100: 5.0},
    "MLServer": {1: 4.0},
    "LitServe": {1: 4.0},
}


def measure(size: Size, rounds: int, folder: Path) -> list[Figure | NotMeasured]:
    """CPU milliseconds per request of every server, and their ratios to ours."""
    made = deployed(
        folder / "ours", versions=1, rows=_ROWS[size], columns=COLUMNS, estimator="lightgbm.LGBMClassifier", params={}
    )
    model = made.booster()
    servers, missing = _servers(made, model, folder, peers_too=size != "tiny")
    spent: dict[str, dict[int, list[float]]] = {name: {1: [], 100: []} for name in servers}
    for number in range(rounds):
        for name in list(servers) if number % 2 == 0 else list(reversed(servers)):
            if name in missing:
                continue
            try:
                with servers[name].start() as server:
                    for rows in (1, 100):
                        spent[name][rows].append(_cpu(server, servers[name], model, rows, _SECONDS[size], folder))
                    if name == OURS:
                        _check_logged(server)
            except NotStarted as error:
                missing[name] = str(error)
    return _figures(spent, missing)


def _servers(made: Deployed, model: Path, folder: Path, *, peers_too: bool) -> tuple[dict[str, Peer], dict[str, str]]:
    """Servers by name, and why those are missing that cannot be had."""
    servers = {
        FLOOR: peers.bare(model, folder / "bare"),
        OURS: Peer(name=OURS, start=made.start, path=INFER, question=peers.tensor, positive=peers.probabilities),
    }
    missing: dict[str, str] = {}
    if peers_too:
        others: dict[str, Callable[..., Peer]] = {
            "mlflow models serve": partial(peers.mlflow, columns=COLUMNS),
            "MLServer": peers.mlserver,
            "MLServer in one process": partial(peers.mlserver, parallel=0),
            "LitServe": peers.litserve,
        }
        for number, (name, peer) in enumerate(others.items()):
            try:
                (place := folder / f"peer-{number}").mkdir()
                servers[name] = peer(model, place)
            except NotInstalled as error:
                missing[name] = str(error)
    return servers, missing


def _cpu(server: Server, peer: Peer, model: Path, rows: int, seconds: float, folder: Path) -> float:
    """CPU milliseconds per request of ``rows`` rows, after the answers were found right."""
    questions = asked(BODIES, rows, COLUMNS)
    bodies = [json.dumps(peer.question(one)) for one in questions]
    _check(server, peer, bodies, lightgbm.Booster(model_file=model).predict(questions.reshape(-1, COLUMNS)))
    path = folder / "bodies.json"
    path.write_text(json.dumps(bodies))
    few = _ask(server, peer, path, 2 * BODIES)
    count = max(2 * BODIES, round(2 * BODIES * seconds / few["seconds"]))
    time.sleep(SETTLE)
    before = server.cpu_seconds()
    _ask(server, peer, path, count)
    time.sleep(SETTLE)
    return 1e3 * (server.cpu_seconds() - before) / count


def _ask(server: Server, peer: Peer, bodies: Path, count: int) -> dict[str, Any]:
    """Have a client of its own process ask ``count`` times."""
    command = [sys.executable, client.__file__, str(server.port), peer.path, str(bodies), str(count)]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    require(told["failed"] == 0, f"{peer.name}: {told['failed']} of {count} requests failed")
    return told


def _check(server: Server, peer: Peer, bodies: list[str], expected: Any) -> None:
    """Every answer is what the booster says, to the last digit that was told."""
    connection = Connection(server.port)
    said: list[float] = []
    for body in bodies:
        status, content = connection.ask(post(peer.path, body.encode()))
        require(status == 200, f"{peer.name} answered {status}: {content[:300]!r}")
        said += peer.positive(json.loads(content))
    connection.close()
    require(np.array_equal(said, expected), f"probabilities of {peer.name} and of the booster")


def _check_logged(server: Server) -> None:
    """Every row that was predicted was logged, and none was let go of."""
    counted = counters(server)
    require(
        counted["perennial_logged_total"] == counted["perennial_predictions_total"] > 0,
        f"predictions and what was logged of them differ: {counted}",
    )


def counters(server: Server) -> dict[str, float]:
    """What ``/metrics`` counts, without labels."""
    connection = Connection(server.port)
    text = connection.ask(get("/metrics"))[1].decode()
    connection.close()
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


def _figures(spent: dict[str, dict[int, list[float]]], missing: dict[str, str]) -> list[Figure | NotMeasured]:
    figure = partial(
        Figure, benchmark=NAME, checked=f"{BODIES} answers of each size, every probability to the last digit"
    )
    measured = {name: cost for name, cost in spent.items() if name not in missing}
    each, against = [], []
    for name, costs in measured.items():
        for rows, cost in costs.items():
            of = f"a request of {rows} row{'s' if rows > 1 else ''}"
            each.append(figure(what=f"{of}, {name}", peer="CPU of the whole process tree", rounds=cost, unit="ms CPU"))
            ours = measured[OURS][rows]
            if name == FLOOR:
                against.append(figure(what=f"{of}, ours over it", peer=name, rounds=ratios(ours, cost), at_most=_FLOOR))
            elif name != OURS:
                least = _LEAST.get(name, {}).get(rows)
                against.append(figure(what=f"{of}, it over ours", peer=name, rounds=ratios(cost, ours), at_least=least))
    return [*each, *against, *(NotMeasured(benchmark=NAME, peer=name, reason=why) for name, why in missing.items())]
