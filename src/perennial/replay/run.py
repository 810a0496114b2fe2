"""One strategy over one prepared stream, in whatever process it is called."""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from perennial.core.identity import Unhashable, canonical, digest
from perennial.core.protocols import Gate, Learner, Trainer
from perennial.core.records import Close, Label
from perennial.engine import Engine
from perennial.replay.spill import Spill, Summary
from perennial.replay.trainings import Trainings
from perennial.strategies import Strategy
from perennial.stream.prepared import Prepared
from perennial.stream.quality import Quality

#: bump when the engine's results for the same input change: whole runs are then not taken from a cache
RUN_FORMAT = 1

_PROGRESS_EVERY = 64  # batches


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides what a run gives: nothing else may."""

    name: str
    strategy: Strategy
    learner: Learner
    prepared: Prepared
    label_delay: timedelta
    closes_at: int
    train_latency: timedelta
    seed: int
    quality: Quality
    version: str
    classes: tuple[Label, ...] = ()
    gate: Gate | None = None

    def engine(self, trainer: Trainer) -> Engine:
        """A fresh engine for this job."""
        return Engine(
            self.strategy,
            self.learner,
            schema=self.prepared.schema,
            trainer=trainer,
            label_delay=self.label_delay,
            train_latency=self.train_latency,
            seed=self.seed,
            gate=self.gate,
            quality=self.quality,
            classes=self.classes,
        )

    def key(self) -> str | None:
        """Identity of the whole run; None if the model or a setting cannot be hashed."""
        try:
            return digest(
                str(RUN_FORMAT),
                self.version,
                self.learner.identity(),
                canonical(_without_model(self.strategy)),
                self.prepared.digest,
                str(self.prepared.batch),
                canonical([self.label_delay, self.closes_at, self.train_latency, self.seed, self.quality]),
            )
        except Unhashable:
            return None


def _without_model(strategy: Strategy) -> dict[str, Any]:
    """The strategy's settings; the learner tells the model."""
    if not is_dataclass(strategy):
        raise Unhashable("a strategy that is no dataclass cannot be hashed")
    settings = {f.name: getattr(strategy, f.name) for f in fields(strategy) if f.name != "model"}
    return {"type": type(strategy), **settings}


def run(
    job: Job,
    folder: Path,
    trainings: Path | None,
    progress: Path | None = None,
    report: Callable[[int], None] | None = None,
) -> Summary:
    """Replay the stream under one strategy and leave its predictions in ``folder``.

    A folder that holds the finished run is used as it is. What is written is moved there whole at the end, so that
    a run that was cut short leaves nothing that could be taken for a finished one.

    Parameters
    ----------
    job : Job
        What to run.
    folder : Path
        Where the finished run is to be.
    trainings : Path, optional
        The cache of trainings.
    progress : Path, optional
        A file of 8 bytes, in which the rows done are written now and then, for a process that watches.
    report : callable, optional
        Called with the rows done instead, in the same process.
    """
    done = folder / "summary.pickle"
    if done.exists():
        return _read(done)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        summary = _replay(job, part, Trainings(trainings), _reporter(progress, report))
        (part / "summary.pickle").write_bytes(pickle.dumps(summary))
        if folder.exists():  # two runs of the same name finished at once: they are equal
            return _read(done)
        part.rename(folder)
        return summary
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read(path: Path) -> Summary:
    found = pickle.loads(path.read_bytes())  # our own cache, as trusted as the code beside it
    assert isinstance(found, Summary)
    return found


def _reporter(progress: Path | None, report: Callable[[int], None] | None) -> Callable[[int], None]:
    if report is not None:
        return report
    if progress is None:
        return lambda _: None
    with progress.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)

    def write(rows: int) -> None:
        shared[:8] = struct.pack("<q", rows)

    return write


def _replay(job: Job, folder: Path, trainer: Trainings, report: Callable[[int], None]) -> Summary:
    task = job.learner.task
    engine = job.engine(trainer)
    ledger = Spill(folder, task)
    rows = 0
    apart = shares_turns(job)
    for i, batch in enumerate(job.prepared.batches(task, apart=apart)):
        ledger.commit(engine.advance(batch))
        rows += len(batch)
        if apart or i % _PROGRESS_EVERY == 0:
            report(rows)
    ledger.commit(engine.advance(Close(now=job.closes_at)))
    report(rows)
    return ledger.close()


def shares_turns(job: Job) -> bool:
    """Whether nothing has to be decided between rows, so that many may share a turn."""
    return job.prepared.batch == 1 and job.strategy.row_by_row and not job.train_latency and job.gate is None
