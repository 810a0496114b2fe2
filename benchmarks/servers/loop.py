"""A deployment that lives: a run and a server beside it, and a client that asks, and brings labels back late.

Labels come 0.3 to 2 seconds after the answer, in any order, and one in five never comes. What they follow can be turned
round while it goes on. Nothing here is other than what a user does: ``perennial push``, ``run`` and ``serve``, and the
Python client.
"""

from __future__ import annotations

import heapq
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.servers.process import Server, free_port, serving, threads
from perennial.client import Client
from perennial.config import load
from perennial.core.errors import PerennialError
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, tables
from perennial.stream.feed import Position
from perennial.stream.inbox import Which
from perennial.stream.ingest import IngestFeed

RATE = 200.0  #: rows asked about per second, one to five at a time
LABEL_SECONDS = (0.3, 2.0)  #: how long a label takes
NEVER_LABELLED = 0.2  #: share of rows whose label does not come
HISTORY = 300  #: labelled rows that are pushed before
PATIENCE = 120.0  #: seconds that anything may take on a busy machine

CONFIG = """\
name: loop
stream:
  source: serve
  label: {{column: y, wait: 1h}}
  columns: {{a: number, b: number, y: integer}}
  positive: 1
  batch: 500ms
model: {{estimator: "perennial.learners.plain:Logistic", params: {{forgetting: 0.99}}}}
strategies: {{live: {{stateful: {{every: 100}}}}}}
initial: 200
deploy: live
gate: {{mode: after, margin: 0.05, block: 20, least_blocks: 5}}
ledger: {ledger}
blobs: {folder}/blobs
serve: {{flush: 50ms}}
"""

Number = tuple[int, int]  #: of a version, in order


class Stuck(AssertionError):
    """What was waited for did not come."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A row that was asked about: what was said by whom, what is true, and when the answer came."""

    id: str
    said: Any
    version: str
    truth: int
    at: float


@dataclass
class Seen:
    """What the client saw, in order; times are by the monotonic clock."""

    asked: list[Asked] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    first: dict[Number, float] = field(default_factory=dict)  #: by version, when it first answered

    def accuracy(self, rows: int) -> float:
        """Share of right answers of the last ``rows``."""
        last = self.asked[-rows:]
        return sum(one.said == one.truth for one in last) / len(last)


class Caller:
    """Asks about rows at a steady pace in one thread, and brings their labels back in another."""

    def __init__(self, client: Client, seed: int = 0) -> None:
        self._client, self._draw, self._ends = client, random.Random(seed), threading.Event()
        self._sign = 1
        self._waiting: list[tuple[float, str, int]] = []  # due, id, label
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._go_on, args=[one], daemon=True) for one in (self._ask, self._bring)
        ]
        self.seen = Seen()
        self.error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._begun = time.monotonic()
        for one in self._threads:
            one.start()

    def flip(self) -> None:
        """From here on labels follow ``a`` the other way round."""
        self._sign = -self._sign

    def end(self) -> Seen:
        """Ask no more, and give what was seen; a label that was on its way does not come."""
        self._ends.set()
        for one in self._threads:
            one.join(PATIENCE)
        if self.error is not None:
            raise self.error
        return self.seen

    def _go_on(self, once: Callable[[], float]) -> None:
        """Do one thing again and again; it says how many seconds to wait for the next time."""
        try:
            while not self._ends.wait(once()):
                pass
        except BaseException as error:  # a thread's end: whoever waits for it raises it
            self.error = error

    def _ask(self) -> float:
        n, start = self._draw.randint(1, 5), len(self.seen.asked)
        rows, truths = zip(*(made(self._draw, self._sign) for _ in range(n)), strict=True)
        said = self._client.predict([{"id": f"row-{start + i}", **row} for i, row in enumerate(rows)])
        now = time.monotonic()
        self.seen.first.setdefault(number(said.version), now)
        for one, label, truth in zip(said.ids, said.labels, truths, strict=True):
            self.seen.asked.append(Asked(one, label, said.version, truth, now))
            if self._draw.random() >= NEVER_LABELLED:
                with self._lock:
                    heapq.heappush(self._waiting, (now + self._draw.uniform(*LABEL_SECONDS), one, truth))
        return max(self._begun + len(self.seen.asked) / RATE - now, 0.0)

    def _bring(self) -> float:
        due: list[tuple[str, int]] = []
        with self._lock:
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                due.append(heapq.heappop(self._waiting)[1:])
        if due:
            random.shuffle(due)
            told = self._client.labels(due)
            now = time.monotonic()
            self.seen.labels.update(due)
            self.seen.acknowledged.update((one, now) for one, _ in due)
            self.seen.outcomes.update(one.outcome for one in told)
        return 0.01


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A deployment whose processes run, and who asks them."""

    folder: Path
    deployment: Deployment
    server: Server
    runner: Server
    caller: Caller

    def until(self, there: Callable[[], bool], what: str) -> None:
        """Wait until something is there.

        Raises
        ------
        Stuck
            If it does not come; with the last that the processes said.
        """
        deadline = time.monotonic() + PATIENCE
        while not there():
            if self.caller.error is not None:
                raise self.caller.error
            if time.monotonic() > deadline:
                said = "\n".join(
                    f"{name}: {one.log.read_text(errors='replace')[-2000:]}"
                    for name, one in (("run", self.runner), ("serve", self.server))
                )
                raise Stuck(f"after {PATIENCE:.0f} s still waiting until {what}; the last that was said:\n{said}")
            time.sleep(0.05)

    @contextmanager
    def ledger(self) -> Iterator[SqlLedger]:
        """Its ledger."""
        made = self.deployment
        with SqlLedger.open(made.ledger, made.name, blobs=made.blobs, create=False) as ledger:
            yield ledger

    def log(self, which: Which) -> list[dict[str, Any]]:
        """The rows of a log of its inbox, in order."""
        assert self.deployment.inbox is not None
        feed = IngestFeed(self.deployment.inbox.url(which))
        types = feed.open().types((), ())
        return [row for run in feed.read(Position(), types) for row in run.rows.to_pylist()]

    def joined(self) -> list[tuple[int, int]]:
        """Row and label of every label that a turn joined, in order; the row as the log of rows counts."""
        with self.ledger() as ledger:
            parts = [tables.from_bytes(ledger.get(entry.labels)) for entry in ledger.entries() if entry.labels]
        return [pair for one in parts for pair in zip(one["row"].to_pylist(), one["label"].to_pylist(), strict=True)]

    def learned(self) -> dict[int, Number]:
        """Which version learned each row that any has learned."""
        with self.ledger() as ledger:
            versions = ledger.versions()
        return {
            row: (saved.version.major, saved.version.minor)
            for saved in versions
            for low, high in saved.facts.get("lesson", {"rows": []})["rows"]
            for row in range(low, high)
        }

    def seconds_to_live(self) -> list[float]:
        """For each label, seconds from its acknowledgement to the first answer by a version that learned it, or newer.

        By the client's clock; labels that no version which answered has learned are left out.
        """
        seen = self.caller.seen
        answered, ids, out = sorted(seen.first.items()), [row["id"] for row in self.log("rows")], []
        for row, version in self.learned().items():
            at = [when for one, when in answered if one >= version]
            if at and ids[row] in seen.acknowledged:
                out.append(min(at) - seen.acknowledged[ids[row]])
        return out


@contextmanager
def looping(folder: Path, ledger: str = "", *, workers: int = 2) -> Iterator[Loop]:
    """Push history, start ``run`` and ``serve``, and ask once there is a champion; all ends with the block.

    Parameters
    ----------
    folder : Path
        For all files.
    ledger : str, optional
        URL of the database of ledger and inbox; SQLite in ``folder`` unless given.
    workers : int
        Of the server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "perennial.yaml").write_text(
        CONFIG.format(ledger=ledger or f"sqlite:///{folder}/ledger.db", folder=folder)
    )
    pq.write_table(_history(), folder / "history.parquet")
    port, program = free_port(), [sys.executable, "-m", "perennial"]
    push, run = [*program, "push", "history.parquet"], [*program, "run", "--poll", "0.1"]
    serve = [*program, "serve", "--port", str(port), "--workers", str(workers)]
    with (
        Client(f"http://127.0.0.1:{port}") as client,
        subprocess.Popen(push, cwd=folder, env=threads(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as pushing,
        serving(run, 0, folder, ready=lambda _: True) as runner,
        serving(serve, port, folder, ready=lambda _: bool(pushing.poll()) or client.ready()) as server,
    ):
        said, _ = pushing.communicate(timeout=PATIENCE)
        if pushing.returncode:
            raise RuntimeError(f"perennial push failed: {said.decode()[-2000:]}")
        caller = Caller(client)
        made = load(folder / "perennial.yaml").deployment()
        caller.start()
        try:
            yield Loop(folder=folder, deployment=made, server=server, runner=runner, caller=caller)
        finally:
            with suppress(PerennialError):  # whoever waits for it hears of it; here something else went wrong
                caller.end()


def made(draw: random.Random, sign: int) -> tuple[dict[str, float], int]:
    """A row, and its label: which side of a line it is on, with some noise."""
    a, b = draw.gauss(0, 1), draw.gauss(0, 1)
    return {"a": a, "b": b}, int(sign * a + 0.3 * b + 0.3 * draw.gauss(0, 1) > 0)


def number(version: str) -> Number:
    """Major and minor of a version."""
    major, minor = version.split(".")
    return int(major), int(minor)


def _history() -> Any:
    draw = random.Random(1)
    start = datetime.now(UTC) - timedelta(seconds=60)
    rows = [made(draw, 1) for _ in range(HISTORY)]
    return pa.Table.from_pylist([
        {"id": f"history-{i}", "time": start + timedelta(milliseconds=100 * i), **row, "y": label}
        for i, (row, label) in enumerate(rows)
    ])  # fmt: skip
