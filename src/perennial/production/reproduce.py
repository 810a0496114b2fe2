"""Training a version again from what the ledger kept, to prove that it is what the ledger says.

The promise: the same rows, with the labels as they were known then, the same weights, class table and seed, through the
same library versions, give a learner of the same state digest. What is compared first is the identity of the training
data, so that a difference is told from one of the training itself.

Category codes need no care: vocabularies are append-only, so a word that came later has a code that no row of the
training holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import LedgerError
from perennial.core.features import Chunk, Features, Schema
from perennial.core.protocols import Interleaved, Learner, Summable, Updatable
from perennial.core.records import UNLABELLED, Examples, Label, TaskKind, typed
from perennial.core.state import Stored
from perennial.ledger.errors import MissingBlob
from perennial.ledger.records import Entry, Saved, Segment
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint, tables
from perennial.production.deployment import Deployment
from perennial.production.trainer import SavingTrainer
from perennial.stream.blocks import BlockSums
from perennial.stream.intake import Intake


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduced:
    """A training done again.

    ``data`` and ``state`` are the digests that the ledger recorded, ``data_again`` and ``state_again`` those found now;
    ``state_again`` is empty if the data differ already and nothing was trained. ``cpu_seconds`` is what it cost now.
    """

    number: str
    kind: str
    parent: str | None
    rows: int
    data: str
    data_again: str
    state: str
    state_again: str
    cpu_seconds: float

    @property
    def same(self) -> bool:
        """Whether the learned state is the recorded one."""
        return self.data == self.data_again and self.state == self.state_again


def reproduce(deployment: Deployment, ledger: SqlLedger, number: str) -> Reproduced:
    """Train a version again from the ledger and compare.

    Reads only. Run it with as many threads as the run had, one, where a library's sums depend on that.

    Parameters
    ----------
    deployment : Deployment
        With the settings that the ledger was begun with.
    ledger : SqlLedger
        Its ledger; a run may be going on.
    number : str
        The version.

    Raises
    ------
    UnknownVersion
        If there is none.
    LedgerError
        If rows that it learned were released or erased, its training was not recorded, or the settings are others.
    """
    saved = ledger.version(number)
    version = saved.version
    if version.kind == "adopt":
        raise LedgerError(
            f"{number} was not trained here, and cannot be trained again: it was {version.reason}; compare that file"
        )
    intake = checkpoint.restored(deployment, checkpoint.last(ledger))
    store = _Store(ledger, intake)
    if version.kind == "start":
        examples = store.examples(np.empty(0, np.int64), deployment.learner.task, _seeded(deployment, ledger, intake))
        make = _starting(deployment, examples)
    else:
        lesson = _lesson(saved)
        position = _positions(lesson["rows"])
        _demand(store, number, position)
        entries = _upto(ledger, number)
        labels, classes = _labels(ledger, entries, _seeded(deployment, ledger, intake), deployment.learner.task)
        if len(classes) < lesson["classes"]:
            raise LedgerError(
                f"{number} knew {lesson['classes']} classes, and the labels of turns up to its own name "
                f"{len(classes)}: see  perennial doctor"
            )
        examples = store.examples(position, deployment.learner.task, classes[: lesson["classes"]], labels)
        if lesson["weights"]:
            examples = _weighted(examples, np.frombuffer(ledger.get(lesson["weights"]), dtype=np.float64))
        make = _training(deployment, ledger, saved, position, examples, lesson["seed"])
    data = version.data if version.kind == "start" else examples.identity
    state_again, seconds = "", 0.0
    if data == version.data:
        state_again, seconds = _made(deployment, make)
    return Reproduced(
        number=number,
        kind=version.kind,
        parent=version.parent if version.kind == "update" else None,
        rows=len(examples),
        data=version.data,
        data_again=data,
        state=saved.state,
        state_again=state_again,
        cpu_seconds=seconds,
    )


# -- what it learned --------------------------------------------------------------------------------------------------


def _lesson(saved: Saved) -> dict[str, Any]:
    lesson: dict[str, Any] | None = saved.facts.get("lesson")
    if lesson is None:
        raise LedgerError(
            f"the ledger does not say which rows {saved.version.number} learned: it was not trained by `perennial run`"
        )
    return lesson


def _positions(ranges: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Positions of runs ``[first, last + 1)``, in order."""
    runs = [np.arange(low, high, dtype=np.int64) for low, high in ranges]
    return np.concatenate(runs) if runs else np.empty(0, np.int64)


def _upto(ledger: SqlLedger, number: str) -> list[Entry]:
    """Turns up to the one that trained a version: its labels were joined before it was."""
    out = []
    for entry in ledger.entries():
        out.append(entry)
        if any(saved.version.number == number for saved in entry.versions):
            return out
    raise LedgerError(f"no turn says that it trained {number}: see  perennial doctor")


def _seeded(deployment: Deployment, ledger: SqlLedger, intake: Intake) -> tuple[Label, ...]:
    """Classes that are known before any label is: an adopted model's, and those of a boolean label."""
    boolean = deployment.learner.task == "classification" and intake.label_type == "bool"
    own: list[Label] = checkpoint.adopted(ledger).get("classes", [])
    return tuple(dict.fromkeys([*own, *((False, True) if boolean else ())]))


def _labels(
    ledger: SqlLedger, entries: Iterable[Entry], seeded: tuple[Label, ...], task: TaskKind
) -> tuple[dict[int, Any], tuple[Label, ...]]:
    """The latest label of each row, and the class table in order of first known label."""
    labels: dict[int, Any] = {}
    classes: dict[tuple[str, Any], Label] = {typed(label): label for label in seeded}
    for entry in entries:
        if not entry.labels:
            continue
        table = tables.from_bytes(ledger.get(entry.labels))
        values = table.column("label").to_pylist()
        labels.update(zip(table.column("row").to_pylist(), values, strict=True))
        if task == "classification":
            for label in dict.fromkeys(values):
                classes.setdefault(typed(label), label)
    return labels, tuple(classes.values())


def _weighted(examples: Examples, weights: NDArray[np.float64]) -> Examples:
    """With the window's weights, times the stream's own."""
    own = examples.weights
    return replace(examples, weights=weights if own is None else own * weights)


def _demand(store: _Store, number: str, position: NDArray[np.int64]) -> None:
    """Raise ``LedgerError`` unless every row is kept as it was, saying which are not and why."""
    released, erased = store.gone(position)
    if store.forgets and (len(released) or len(erased)):
        raise LedgerError(
            f"{number} cannot be reproduced: with retention none no row outlives the turn that learned it"
        )
    for gone, why in (
        (released, "released as `retention` says: to reproduce later versions, keep rows longer"),
        (erased, "erased with their subject, and are forgotten: train without them"),
    ):
        if len(gone):
            raise LedgerError(
                f"{number} cannot be reproduced: {len(gone):,} of the {len(position):,} rows that it learned are gone, "
                f"{_spelled(gone)}; they were {why}"
            )


def _spelled(rows: NDArray[np.int64], most: int = 5) -> str:
    """Ascending positions as runs, the first few of them."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    shown = [f"{run[0]:,}..{run[-1]:,}" if len(run) > 1 else f"{run[0]:,}" for run in runs[:most]]
    return ", ".join(shown) + (f" and {len(runs) - most:,} more runs" if len(runs) > most else "")


class _Store:
    """Rows by position, from the segments that are kept."""

    def __init__(self, ledger: SqlLedger, intake: Intake) -> None:
        self._ledger, self._intake = ledger, intake
        self.forgets = ledger.forgets
        self._segments = sorted(ledger.segments(), key=lambda segment: segment.first)
        self._firsts = np.array([segment.first for segment in self._segments], dtype=np.int64)
        self._ends = np.array([segment.first + segment.rows for segment in self._segments], dtype=np.int64)
        self._held: dict[int, Stored | None] = {}

    def _which(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """The segment of each position; -1 where none is kept."""
        if not len(self._firsts):
            return np.full(len(position), -1, dtype=np.int64)
        at = np.searchsorted(self._firsts, position, side="right") - 1
        return np.where((at >= 0) & (position < self._ends[np.maximum(at, 0)]), at, -1)

    def _stored(self, number: int) -> Stored | None:
        """A segment's rows; None if they were erased."""
        if number not in self._held:
            segment: Segment = self._segments[number]
            try:
                self._held[number] = self._intake.stored(self._ledger.get(segment.digest), segment.digest)
            except MissingBlob:
                self._held[number] = None
        return self._held[number]

    def gone(self, position: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions whose rows were released, and those whose rows were erased, both ascending."""
        ascending = np.sort(position)
        which = self._which(ascending)
        erased = []
        for number in np.unique(which[which >= 0]).tolist():
            here = ascending[which == number]
            stored = self._stored(number)
            # an erased row is blank where it lies: its digest is zero
            blank = stored is None or ~stored.rows[here - self._firsts[number]].any(axis=1)
            erased.append(here[blank] if stored is not None else here)
        return ascending[which < 0], np.concatenate(erased) if erased else np.empty(0, np.int64)

    def examples(
        self,
        position: NDArray[np.int64],
        task: TaskKind,
        classes: tuple[Label, ...],
        labels: dict[int, Any] | None = None,
    ) -> Examples:
        """Kept rows at positions, in that order, with these labels: none for a row that is not among them."""
        order = np.argsort(position, kind="stable")
        ascending = position[order]
        which = self._which(ascending)
        schema: Schema = self._intake.schema
        parts: list[tuple[Chunk, NDArray[np.int64]]] = []
        columns: dict[str, list[NDArray[Any]]] = {"time": [], "rows": [], "weight": [], "group": []}
        for number in np.unique(which).tolist():
            stored = self._stored(number)
            assert stored is not None, "rows were asked for that are gone"
            inside = ascending[which == number] - self._firsts[number]
            parts.append((stored.chunk, inside))
            for name, kept in columns.items():
                if (values := getattr(stored, name)) is not None:
                    kept.append(values[inside])
        found = labels or {}
        wanted = [found.get(row) for row in ascending.tolist()]
        codes = values = None
        if task == "classification":
            index = {typed(label): code for code, label in enumerate(classes)}
            codes = np.array([UNLABELLED if w is None else index[typed(w)] for w in wanted], dtype=np.int32)
        else:
            values = np.array([np.nan if w is None else w for w in wanted], dtype=np.float64)
        examples = Examples(
            features=Features(schema, parts or self._no_rows(), len(ascending)),
            rows=np.concatenate(columns["rows"]) if parts else np.empty((0, 16), np.uint8),
            time=np.concatenate(columns["time"]) if parts else np.empty(0, np.int64),
            codes=codes,
            classes=classes,
            values=values,
            weights=np.concatenate(columns["weight"]) if columns["weight"] else None,
            groups=np.concatenate(columns["group"]).astype(object) if columns["group"] else None,
        )
        if (np.diff(order) == 1).all():
            return examples
        return examples.take(np.argsort(order, kind="stable"))

    def _no_rows(self) -> list[tuple[Chunk, NDArray[np.int64]]]:
        """Columns without rows."""
        for number in range(len(self._segments) - 1, -1, -1):
            if (stored := self._stored(number)) is not None:
                return [(stored.chunk, np.empty(0, np.int64))]
        return []


# -- the training -----------------------------------------------------------------------------------------------------


def _starting(deployment: Deployment, examples: Examples) -> Callable[[], Learner]:
    """An untrained start, told the classes that are known before any label is."""
    learner = deployment.learner

    def make() -> Learner:
        assert isinstance(learner, Updatable)
        model = learner.begin()
        if examples.classes and isinstance(model, Interleaved):
            model.interleave(examples, examples.features, np.empty(0, np.int64), 0)
        return model

    return make


def _training(
    deployment: Deployment,
    ledger: SqlLedger,
    saved: Saved,
    position: NDArray[np.int64],
    examples: Examples,
    seed: int,
) -> Callable[[], Learner]:
    learner = deployment.learner
    if saved.version.kind == "update":
        parent = saved.version.parent
        assert parent is not None
        model = deployment.load(ledger.get(ledger.version(parent).blob))

        def update() -> Learner:
            assert isinstance(model, Updatable)
            model.update(examples, seed)
            return model

        return update

    def fit() -> Learner:
        if isinstance(learner, Summable) and examples.weights is None:
            return BlockSums(learner).fit(position, examples)
        return learner.fit(examples, seed)

    return fit


def _made(deployment: Deployment, make: Callable[[], Learner]) -> tuple[str, float]:
    """State digest of a training after it was saved and loaded, as a run has it, and its CPU seconds."""
    trainer = SavingTrainer(deployment.trust)
    before = time.process_time()
    trainer.obtain(None, deployment.learner, make)
    return trainer.made[-1].state, time.process_time() - before
