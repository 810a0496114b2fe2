"""What safety costs: a stateful turn of 500 rows with a durable commit, against the same in memory and a bare fsync.

The same rows go through the same intake and engine twice, once with the SQLite ledger and once without. Saving, loading
and checking the model is told apart: it is the learner's, not the ledger's. The floor writes as many bytes as a turn
leaves, in two appends that are synced. At last the ledger alone commits many turns, and the last are held against the
first.
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.common import Figure, Size, require, times
from perennial import Stream, strategies, triggers
from perennial.core.protocols import Learner, Trained
from perennial.core.records import Decision, Version
from perennial.learners import as_learner, plain
from perennial.learners.golden import golden_set
from perennial.learners.saved import sha256
from perennial.ledger.records import Entry, Saved
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run
from perennial.stream.intake import Intake

NAME = "durable_turn"
ROWS, COLUMNS = 500, 10

_TURNS = {"full": 300, "quick": 60, "tiny": 8}
_COMMITS = {"full": 100_000, "quick": 2_000, "tiny": 40}


class _Trainer:
    """Does trainings, saves nothing, and measures what saving would cost."""

    def cpu_seconds(self) -> float:
        return time.process_time()

    def obtain(self, key: str | None, template: Learner, make: Any) -> Trained:  # noqa: ARG002
        return Trained(model=make(), cpu_seconds=0.0, shared=False)


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:
    """CPU milliseconds per turn and their parts, and how flat the ledger's commits stay."""
    path = folder / "rows.parquet"
    _write(path, _TURNS[size])
    commit, serial, ratio, floors = [], [], [], []
    for number in range(rounds):
        durable, wall, deployment, digests = _durable(path, folder / f"round-{number}")
        memory, memory_wall, kept, saving = _in_memory(deployment)
        require(digests == kept, "the models of the durable and of the volatile run differ")
        left = sum(file.stat().st_size for file in (folder / f"round-{number}").rglob("*") if file.is_file())
        floor, floor_wall = _floor(folder / "floor", left // len(durable), len(durable))
        beyond = [d - m - s - floor for d, m, s in zip(durable[2:], memory[2:], saving[2:], strict=True)]
        commit.append(1e3 * statistics.median(beyond))
        serial.append(1e3 * statistics.median(saving[2:]))
        ratio.append(statistics.median(wall[2:]) / statistics.median(memory_wall[2:]))
        floors.append(statistics.median(wall[2:]) / floor_wall)
    first, last = _commits(folder / "many", _COMMITS[size])
    model, checked = "the exact logistic model", f"{_TURNS[size]} turns of {ROWS} rows, equal model digests"
    peer = "the same turn in memory and a bare fsync of as many bytes"
    return [
        Figure(benchmark=NAME, what=f"commit beyond memory, {model} and the floor, median of turns", peer=peer,
               rounds=commit, unit="ms CPU", at_most=5.0, checked=checked),
        Figure(benchmark=NAME, what="saving, loading back and checking the model, beside it", peer=peer, rounds=serial,
               unit="ms CPU", checked=checked),
        Figure(benchmark=NAME, what="whole durable turn against the turn in memory, wall clock", peer=peer,
               rounds=ratio, checked=checked),
        Figure(benchmark=NAME, what="whole durable turn against two synced appends, wall clock", peer=peer,
               rounds=floors, checked=checked),
        Figure(benchmark=NAME, what=f"commit of the ledger alone: the last 1 % of {_COMMITS[size]:,} turns against the "
               "first, CPU", peer="its own first turns", rounds=[last / first], at_most=1.2, checked="all read back"),
    ]  # fmt: skip


def _write(path: Path, turns: int) -> None:
    rng = np.random.default_rng(0)
    n = turns * ROWS
    x = rng.normal(size=(n, COLUMNS))
    columns = {f"x{j}": x[:, j] for j in range(COLUMNS)}
    label = x[:, 0] + x[:, 1] + rng.normal(size=n) > 0
    pa.parquet.write_table(pa.table({"at": times(0, n), **columns, "y": label}), path)


def _durable(path: Path, folder: Path) -> tuple[list[float], list[float], Deployment, list[str]]:
    """CPU and wall seconds of every turn of a run, and the digests of its models."""
    deployment = Deployment(
        name="turns", ledger=f"sqlite:///{folder}/ledger.db", retention=timedelta(0),
        stream=Stream(path, time="at", target="y", label_delay="1h", batch=ROWS, time_zone="UTC"),
        strategy=strategies.Stateful(
            plain.Logistic(forgetting=0.9999), initial=2 * ROWS, trigger=triggers.every(rows=ROWS)
        ),
    )  # fmt: skip
    cpu, wall = [], []
    with SqlLedger.open(deployment.ledger, deployment.name) as ledger:
        run = Run(deployment, ledger, ledger.acquire("benchmark", timedelta(hours=1)))
        going = True
        while going:
            before, began = time.process_time(), time.perf_counter()
            going = run.step()
            if going:
                cpu.append(time.process_time() - before)
                wall.append(time.perf_counter() - began)
        return cpu, wall, deployment, [saved.state for saved in ledger.versions()]


def _in_memory(deployment: Deployment) -> tuple[list[float], list[float], list[str], list[float]]:
    """The same of the same turns with nothing kept, and what saving each model would have cost."""
    learner = as_learner(deployment.strategy.model)
    intake = Intake(deployment.stream, learner.task)
    intake.refresh()
    engine = None
    cpu, wall, digests, saving = [], [], [], []
    while True:
        before, began = time.process_time(), time.perf_counter()
        if (bounds := intake.look()) is None:
            return cpu, wall, digests, saving
        batch = intake.take(bounds).batch
        engine = engine or deployment.engine(intake.schema, _Trainer(), intake.label_type)
        turn = engine.advance(batch)
        cpu.append(time.process_time() - before)
        wall.append(time.perf_counter() - began)
        before = time.process_time()
        if turn.trained:
            model = engine.state().models[turn.trained[-1].number]
            blob = model.save(deployment.trust)
            loaded = learner.load(blob, deployment.trust.recorded(sha256(blob)))
            golden_set(loaded, batch.features.slice(0, 32))
            digests.append(loaded.digest())
        saving.append(time.process_time() - before)


def _floor(path: Path, size: int, turns: int) -> tuple[float, float]:
    """Median CPU and wall seconds of two appends of together ``size`` bytes, each synced."""
    data = os.urandom(max(size // 2, 1))
    cpu, wall = [], []
    with path.open("ab") as file:
        for _ in range(min(turns, 200)):
            before, began = time.process_time(), time.perf_counter()
            for _ in range(2):
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            cpu.append(time.process_time() - before)
            wall.append(time.perf_counter() - began)
    return statistics.median(cpu), statistics.median(wall)


def _commits(folder: Path, turns: int) -> tuple[float, float]:
    """Median CPU seconds of the first and of the last commits of many, each of a version and a checkpoint."""
    part = max(turns // 100, 10)
    cpu = []
    with SqlLedger.open(f"sqlite:///{folder}/ledger.db", "many") as ledger:
        lease = ledger.acquire("benchmark", timedelta(hours=10))
        for number in range(turns):
            before = time.process_time()
            state, model = ledger.put(b"state %d" % number * 200), ledger.put(b"model %d" % number * 100)
            version = Version(
                major=1, minor=number, parent=f"1.{number - 1}" if number else None, kind="update", at=number,
                ready_at=number, trained_rows=ROWS, row_trees=0, first=number, last=number, newest=number,
                data=f"{number:064x}", key=None, reason="every 500 rows",
            )  # fmt: skip
            saved = Saved(version=version, blob=model, state=f"{number:064x}", size=900)
            ledger.commit(lease, Entry(
                turn=number, kind="batch", now=number, first=number * ROWS, rows=ROWS, position=f"{number}",
                checkpoint=state, serving=f"1.{number}", decisions=(Decision(True, "every 500 rows"),),
                versions=(saved,),
            ))  # fmt: skip
            cpu.append(time.process_time() - before)
        require(ledger.head().turn == turns - 1, "turns are missing")
        require(sum(1 for _ in ledger.entries(turns - part)) == part, "the last turns cannot be read")
    return statistics.median(cpu[part : 2 * part]), statistics.median(cpu[-part:])
