"""One strategy over one prepared stream, in whatever process it is called."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from perennial.core.identity import Unhashable, canonical, digest
from perennial.core.protocols import Gate, Learner, LearnsUnlabelled, Trainer
from perennial.core.records import Close, Label, Revisions, TaskKind, typed
from perennial.engine import Engine
from perennial.metrics.money import Prices
from perennial.replay.spill import Spill, Summary
from perennial.replay.trainings import Trainings
from perennial.strategies import Strategy
from perennial.stream.labelled import Labelled
from perennial.stream.prepared import Prepared
from perennial.stream.quality import Quality

#: bump when the engine's results for the same input change: whole runs are then not taken from a cache
RUN_FORMAT = 6

SUMMARY, FILES = "summary.pickle", "files.json"  #: of a finished run: what it did, and the digests of all its files

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
    label_wait: timedelta
    seed: int
    quality: Quality
    version: str
    classes: tuple[Label, ...] = ()
    gate: Gate | None = None
    prices: Prices | None = None
    golden: Labelled | None = None

    def engine(self, trainer: Trainer) -> Engine:
        """A fresh engine for this job."""
        return Engine(
            self.strategy,
            self.learner,
            schema=self.prepared.schema,
            trainer=trainer,
            label_delay=self.label_delay,
            train_latency=self.train_latency,
            label_wait=self.label_wait,
            seed=self.seed,
            gate=self.gate,
            quality=self.quality,
            classes=self.classes,
            prices=self.prices,
            golden=self.golden,
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
                self.prepared.zone,
                canonical([self.label_delay, self.closes_at, self.train_latency, self.seed, self.quality, self.gate]),
                *self._gate_key(),
                *([canonical(self.label_wait)] if self.label_wait else ()),
            )
        except Unhashable:
            return None

    def _gate_key(self) -> list[str]:
        """What besides its settings the gate decides by: prices set its margins, and a file holds its golden set."""
        if self.gate is None:
            return []
        return [canonical(self.prices), self.golden.digest if self.golden is not None else ""]


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
    owner: int | None = None,
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
    owner : int, optional
        The process that clears up if this one is killed; this one itself unless given.
    """
    if (found := finished(folder)) is not None:
        return found
    part = unfinished(folder, owner or os.getpid())
    shutil.rmtree(part, ignore_errors=True)
    try:
        summary = _replay(job, part, Trainings(trainings), _reporter(progress, report))
        (part / SUMMARY).write_bytes(pickle.dumps(summary))
        (part / FILES).write_text(json.dumps({file.name: _digest(file) for file in sorted(part.iterdir())}))
        if (found := finished(folder)) is not None:  # two runs of the same name finished at once: they are equal
            return found
        shutil.rmtree(folder, ignore_errors=True)  # what is damaged goes
        try:
            part.rename(folder)
        except OSError:  # another process finished the same run in between
            if (found := finished(folder)) is None:
                raise
            return found
        return summary
    finally:
        shutil.rmtree(part, ignore_errors=True)


def unfinished(folder: Path, owner: int) -> Path:
    """Where a run is written until it is whole; each process has a place of its own."""
    return folder.with_name(f"{folder.name}.{owner}.part")


def finished(folder: Path) -> Summary | None:
    """The summary of a finished run; None if there is none, or a file of it is missing or damaged."""
    try:
        digests: dict[str, str] = json.loads((folder / FILES).read_text())
        if any(_digest(folder / name) != digest for name, digest in digests.items()):
            return None
        found = pickle.loads((folder / SUMMARY).read_bytes())  # our own cache, as trusted as the code beside it
    except (OSError, ValueError, AttributeError):
        return None
    assert isinstance(found, Summary)
    return found


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
    labels: Sequence[Label] = ()
    apart = shares_turns(job)
    for i, batch in enumerate(job.prepared.batches(task, apart=apart)):
        ledger.commit(engine.advance(batch))
        rows, labels = rows + len(batch), batch.label_values
        if apart or i % _PROGRESS_EVERY == 0:
            report(rows)
    if tail := job.prepared.tail():
        engine.deliver(*_revisions(tail, labels, task))
    ledger.commit(engine.advance(Close(now=job.closes_at)))
    report(rows)
    return ledger.close(engine.account)


def shares_turns(job: Job) -> bool:
    """Whether nothing has to be decided between rows, so that many may share a turn."""
    if job.prepared.batch != 1 or not job.strategy.row_by_row or job.prepared.revisions or job.prepared.late_rows:
        return False
    if isinstance(job.learner, LearnsUnlabelled):
        return False
    judged = job.quality.judges(1) or job.quality.judges_labels
    return not job.train_latency and job.gate is None and not judged


def _revisions(
    tail: Sequence[tuple[int, int, Label]], labels: Sequence[Label], task: TaskKind
) -> tuple[Revisions, list[Label]]:
    """Labels that no batch brought, and the stream's list of labels with theirs."""
    known = list(labels)
    code = {typed(label): i for i, label in enumerate(known)}
    codes = []
    for _, _, label in tail:
        at = code.setdefault(typed(label), len(known))
        if at == len(known):
            known.append(label)
        codes.append(at)
    by_code = task == "classification"
    revisions = Revisions(
        position=np.array([position for position, _, _ in tail], dtype=np.int64),
        known_at=np.array([known_at for _, known_at, _ in tail], dtype=np.int64),
        codes=np.array(codes, dtype=np.int32) if by_code else None,
        values=None if by_code else np.array([label for _, _, label in tail], dtype=np.float64),
    )
    return revisions, known
