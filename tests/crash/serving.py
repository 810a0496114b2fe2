"""A deployment that is served and run by real processes, clients that remember what was acknowledged, and kills."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial.ledger.sql import SqlLedger
from perennial.production import tables
from perennial.stream.inbox import Inbox
from tests.inboxes import rows

PATIENCE = 300.0  #: seconds that anything may take on a busy machine
FLUSH = 0.05  #: seconds that a prediction waits in memory

YAML = """\
name: shop
stream:
  source: serve
  label: {{column: y, wait: 1d}}
  columns: {{a: number, b: number, y: integer}}
  batch: 1s
  lateness: 1h
model: {{estimator: sklearn.linear_model.SGDClassifier, params: {{loss: log_loss, random_state: 0}}}}
strategies: {{live: {{stateful: {{every: 5s}}}}}}
initial: 100
deploy: live
ledger: {ledger}
blobs: blobs
serve: {{flush: 50ms}}
"""


@dataclass
class Acknowledged:
    """What the clients of a server were told is durable, and what they were answered."""

    predicted: set[str] = field(default_factory=set)
    labels: dict[str, int] = field(default_factory=dict)
    thumbs: dict[str, str] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: int = 0  #: requests that had to be sent again


class Client(threading.Thread):
    """Predicts, labels, gives thumbs and pushes examples, and sends again what was not acknowledged."""

    def __init__(self, name: str, port: int, seed: int) -> None:
        super().__init__(name=f"client-{name}", daemon=True)
        self._port, self._chance, self._prefix = port, random.Random(seed), name
        self._told, self._connection = threading.Event(), None
        self._open: list[str] = []  # answered, and not labelled
        self._number = 0
        self.seen = Acknowledged()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send one request after the other."""
        try:
            while not self._told.is_set():
                chance = self._chance.random()
                if chance < 0.5 or not self._open:
                    self._predict()
                elif chance < 0.8:
                    self._label()
                elif chance < 0.95:
                    self._thumb()
                else:
                    self._push()
        except BaseException as error:
            self.error = error

    def end(self) -> Acknowledged:
        """Finish what is being sent, and give what was acknowledged."""
        self._told.set()
        self.join(PATIENCE)
        assert not self.is_alive()
        if self._connection is not None:
            self._connection.close()
        if self.error is not None:
            raise self.error
        return self.seen

    def _ids(self, n: int) -> list[str]:
        self._number += n
        return [f"{self._prefix}-{i}" for i in range(self._number - n, self._number)]

    def _row(self) -> dict[str, Any]:
        return {"a": self._chance.gauss(0, 1), "b": self._chance.gauss(0, 1)}

    def _predict(self) -> None:
        ids = self._ids(self._chance.randint(1, 5))
        if self._send("/invocations", {"dataframe_records": [{"id": name, **self._row()} for name in ids]}, once=True):
            self.seen.predicted.update(ids)
            self._open += ids

    def _label(self) -> None:
        some = self._chance.sample(self._open, min(len(self._open), self._chance.randint(1, 4)))
        labels = {name: self._chance.randint(0, 1) for name in some}
        told = self._send("/labels", {"labels": [{"id": name, "label": label} for name, label in labels.items()]})
        self.seen.labels |= labels
        self.seen.outcomes.update(one["outcome"] for one in told["labels"])
        self._open = [name for name in self._open if name not in labels]

    def _thumb(self) -> None:
        name = self._chance.choice(self._open)
        if name not in self.seen.thumbs:
            text = f"about {name}"
            self._send("/feedback", {"id": name, "up": self._chance.random() < 0.5, "text": text})
            self.seen.thumbs[name] = text

    def _push(self) -> None:
        some = {f"{name}-pushed": self._chance.randint(0, 1) for name in self._ids(2)}
        self._send("/examples", {"examples": [{"id": name, **self._row(), "y": y} for name, y in some.items()]})
        self.seen.examples |= some

    def _send(self, path: str, body: Any, *, once: bool = False) -> Any:
        """The answer, once there is one; ``once``: None if this try did not get any."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError, http.client.HTTPException):
                if self._connection is None:
                    self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
                headers = {"Content-Type": "application/json"}
                self._connection.request("POST", path, json.dumps(body), headers)
                answer = self._connection.getresponse()
                content = answer.read()
                if answer.status == 200:
                    return json.loads(content)
                assert answer.status == 503, (path, answer.status, content)
                time.sleep(0.2)
                if once:
                    return None
                self.seen.failed += 1
                continue
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            self.seen.failed += 1
            time.sleep(0.2)
            if once:
                return None
            assert time.monotonic() < deadline, f"nobody answers {path}"


class Place:
    """The processes of one deployment: a server with workers, and a run."""

    def __init__(self, folder: Path, ledger: str = "sqlite:///.perennial/ledger.db", workers: int = 2) -> None:
        self.folder, self.workers, self.port = folder, workers, _free_port()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "perennial.yaml").write_text(YAML.format(ledger=ledger))
        absolute = ledger.replace("sqlite:///", f"sqlite:///{folder}/")
        self.ledger = absolute
        self.inbox = Inbox(absolute.replace("ledger.db", "inbox.db"), "shop", timedelta(days=30))
        self._log = folder / "serve.log"
        self.server: subprocess.Popen[bytes] | None = None
        self.runner: subprocess.Popen[bytes] | None = None
        self.kills: Counter[str] = Counter()

    def begin(self) -> None:
        """History, a first version, and all processes."""
        chance, n = np.random.default_rng(0), 200
        at = int(datetime.now(UTC).timestamp() * 1e6) - 60_000_000 * 10
        x = chance.normal(size=(n, 2))
        ids = [f"history-{i}" for i in range(n)]
        time_ = pa.array(at + np.arange(n) * 20_000, pa.timestamp("us", "UTC"))
        history = pa.table({"id": ids, "time": time_, "a": x[:, 0], "b": x[:, 1], "y": (x[:, 0] > 0).astype(np.int64)})
        pq.write_table(history, self.folder / "history.parquet")
        self.command("push", "history.parquet")
        self.start_run()
        self.start_server()

    def command(self, *words: str) -> str:
        """A command that ends by itself; gives what it wrote."""
        done = subprocess.run(
            self._perennial(*words), cwd=self.folder, env=_env(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _perennial(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "perennial", *words]

    def _start(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(self._perennial(*words), cwd=self.folder, env=_env(), stdout=out, stderr=out)

    def start_server(self) -> None:
        """Start it, where it listened before, as often as it takes: a worker that lost its server holds the port on."""
        deadline = time.monotonic() + PATIENCE
        before = self._log.read_text().count('"listening"') if self._log.exists() else 0
        while True:
            self.server = self._start(self._log, "serve", "--port", str(self.port), "--workers", str(self.workers))
            while self.server.poll() is None:
                if self._log.read_text().count('"listening"') > before:
                    return
                time.sleep(0.05)
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.2)

    def start_run(self) -> None:
        """Start it."""
        self.runner = self._start(self.folder / "run.log", "run", "--poll", "0.2")

    def workers_of(self) -> list[int]:
        """Processes that the server started and that live."""
        assert self.server is not None
        told = [
            json.loads(line) for line in self._log.read_text().splitlines() if line.startswith('{"event": "started"')
        ]
        return [event["pid"] for event in told if _parent(event["pid"]) == self.server.pid]

    def kill(self, what: str, chance: random.Random) -> None:
        """Kill a worker, the server with its workers, or the run, and start again what does not do so by itself."""
        assert self.server is not None
        assert self.runner is not None
        if what == "worker":
            pids = self.workers_of()
            if not pids:
                return
            _kill(chance.choice(pids))
        elif what == "server":
            pids = self.workers_of()
            self.server.kill()
            for pid in pids:
                _kill(pid)
            self.server.wait()
            self.start_server()
        else:
            self.runner.kill()
            self.runner.wait()
            self.start_run()
        self.kills[what] += 1

    def counters(self) -> dict[str, int]:
        """What the server counted, over all workers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request("GET", "/metrics")
                lines = connection.getresponse().read().decode().splitlines()
                break
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            finally:
                connection.close()
        pairs = (line.split() for line in lines if line.startswith("perennial_") and "{" not in line)
        return {name.removeprefix("perennial_").removesuffix("_total"): int(float(value)) for name, value in pairs}

    def end(self) -> None:
        """End what runs, and take all that is there."""
        for process in (self.server, self.runner):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (self.server, self.runner):
            if process is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                if process.poll() is None:
                    process.kill()
                    process.wait()


def nothing_lost(folder: Path, *, kills: int, seed: int, ledger: str = "sqlite:///.perennial/ledger.db") -> str:
    """Kill a served deployment under load; everything acknowledged is there, once. Says what there was."""
    place, chance = Place(folder, ledger), random.Random(seed)
    clients = [Client(f"c{i}", place.port, seed * 10 + i) for i in range(2)]
    try:
        place.begin()
        for client in clients:
            client.start()
        for turn in range(kills):
            _progress(clients)
            time.sleep(chance.uniform(0, 0.4))  # somewhere in a request, a flush, a commit, a turn
            place.kill(("worker", "run", "server")[turn % 3] if turn < 3 else chance.choice(["worker", "run"]), chance)
        _progress(clients)
        seen = [client.end() for client in clients]
        time.sleep(4 * FLUSH)
        counted = place.counters()
    finally:
        place.end()
    place.command("run", "--until-end")
    told = Acknowledged()
    for one in seen:
        told.predicted |= one.predicted
        told.labels |= one.labels
        told.thumbs |= one.thumbs
        told.examples |= one.examples
        told.outcomes += one.outcomes
        told.failed += one.failed
    return _check(place, told, counted)


def _progress(clients: list[Client]) -> None:
    """Wait until every client got some more of everything through."""
    before = [_reached(client) for client in clients]
    deadline = time.monotonic() + PATIENCE
    while not all(_reached(c) >= [n + 5 for n in b] for c, b in zip(clients, before, strict=True)):
        for client in clients:
            if client.error is not None:
                raise client.error
        assert time.monotonic() < deadline, [_reached(client) for client in clients]
        time.sleep(0.02)


def _reached(client: Client) -> list[int]:
    return [len(client.seen.predicted), len(client.seen.labels), len(client.seen.thumbs)]


def _check(place: Place, told: Acknowledged, counted: dict[str, int]) -> str:
    labels = Counter(row["id"] for row in rows(place.inbox, "labels"))
    values = {row["id"]: row["y"] for row in rows(place.inbox, "labels")}
    assert {name for name in told.labels if labels[name] != 1} == set()
    assert {name: values[name] for name in told.labels} == told.labels
    assert max(labels.values()) == 1

    thumbs = Counter(row["id"] for row in rows(place.inbox, "feedback"))
    assert {name for name in told.thumbs if thumbs[name] != 1} == set()
    assert max(thumbs.values()) == 1

    there = Counter(row["id"] for row in rows(place.inbox, "rows"))
    assert {name for name in told.examples if there[name] != 1 or labels[name] != 1} == set()
    assert max(there.values()) == 1
    missing = {name for name in told.predicted if not there[name]}
    assert len(missing) <= counted["lost"] + counted["dropped"]

    with SqlLedger.open(place.ledger, "shop", blobs=place.folder / "blobs", create=False) as ledger:
        entries = list(ledger.entries())
        joined = Counter[int]()
        for entry in entries:
            if entry.labels:
                joined.update(tables.from_bytes(ledger.get(entry.labels)).column("row").to_pylist())
        assert max(joined.values()) == 1  # each example is scored and learned once
        assert len(joined) == sum(name in there for name in labels)
        learned = sum(saved.version.trained_rows for saved in ledger.versions())
        assert learned <= len(joined)
        assert sum(entry.rows for entry in entries) == len(rows(place.inbox, "rows"))
        assert [finding for finding in ledger.check() if not finding.safe] == []
    kills = ", ".join(f"{n} {what}" for what, n in sorted(place.kills.items()))
    return (
        f"killed {kills}: {len(told.labels)} labels, {len(told.thumbs)} thumbs, {len(told.examples)} examples, each "
        f"there once; {len(missing)} of {len(told.predicted)} predictions lost, {counted['lost']} counted; "
        f"{learned} of {len(joined)} joined rows learned, {told.failed} requests sent again"
    )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _env() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _parent(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
