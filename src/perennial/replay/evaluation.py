"""From predictions to scores: the same rows for every strategy, and the no-skill lines beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import ABSTAINED, Label, TaskKind, typed
from perennial.core.times import NEVER
from perennial.metrics import Metric, Scored, default_positive, score, series
from perennial.replay import baselines
from perennial.replay.spill import Columns
from perennial.replay.truth import truth
from perennial.stream.prepared import Prepared, StreamLabels

_CURVE = 1000  # batches in a curve, at most: neighbours are put together beyond that


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Scores over time: one entry per batch, or per run of neighbouring batches where there are very many.

    ``time`` holds the start of each (microseconds UTC), ``rows`` how many rows were scored in it.
    """

    time: list[int]
    rows: list[int]
    by_batch: dict[str, list[float | None]]
    cumulative: dict[str, list[float | None]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Scores of one strategy or baseline: over all evaluated rows, and over time."""

    scores: dict[str, float | None]
    curve: Curve
    scored: Scored
    rows: NDArray[np.int64]


class Evaluation:
    """Scores predictions from ``start`` on, which every strategy made.

    Every row counts the same: the stream's weights are for learning.

    Parameters
    ----------
    prepared : Prepared
        The stream.
    task : {"classification", "regression"}
        What was predicted.
    metrics : sequence of Metric
        What to score by.
    start : int
        Position of the first evaluated row.
    closes_at : int
        Labels known after this instant are not scored.
    """

    def __init__(
        self, prepared: Prepared, task: TaskKind, metrics: Sequence[Metric], start: int, closes_at: int
    ) -> None:
        self.metrics = tuple(metrics)
        self.start = start
        self._prepared, self._task, self._closes_at = prepared, task, closes_at
        known = truth(prepared, task, closes_at)
        self.truth, self._first_known = known.last, known.first
        self._starts, self._firsts = prepared.batch_bounds()
        first = self._first_known
        self._no_change = baselines.no_change(_labels(first), first.time, first.known_at)
        edges = self._firsts[self._firsts > start]
        edges = np.concatenate([[start], edges])
        stride = -(-len(edges) // _CURVE)
        self._edges: NDArray[np.int64] = edges[::stride]
        self.stride = stride
        at = np.searchsorted(self._firsts, self._edges, side="right") - 1
        self.edge_starts = self._starts[at]

    def of(self, columns: Columns, classes: tuple[Label, ...]) -> Line:
        """The scores of a strategy's predictions; rows where it abstained, or without a label, are not scored."""
        by_code = self._task == "classification"
        if by_code:
            fine = (columns.row >= self.start) & (columns.label >= 0) & (columns.prediction != ABSTAINED)
        else:
            fine = (columns.row >= self.start) & ~np.isnan(columns.label) & ~np.isnan(columns.prediction)
        whole = bool(fine.all())
        pick: Any = slice(None) if whole else fine
        row = columns.row[pick]
        proba = None if columns.proba is None else columns.proba[pick]
        if proba is not None and np.isnan(proba).any():
            proba = None  # a part of the run gave no probabilities
        return self._line(row, classes, columns.label[pick], columns.prediction[pick], proba)

    def _line(
        self,
        row: NDArray[np.int64],
        classes: tuple[Label, ...],
        label: NDArray[Any],
        prediction: NDArray[Any],
        proba: NDArray[np.float64] | None,
    ) -> Line:
        if self._task == "classification":
            reference = translated(self._no_change[row], self.truth.classes, classes)
            scored = Scored(
                codes=label,
                predicted=prediction,
                proba=proba,
                classes=classes,
                positive=self.positive(classes),
                reference=reference,
            )
        else:
            scored = Scored(values=label, predicted_values=prediction, reference=self._no_change[row])
        return Line(scores=score(self.metrics, scored), curve=self._curve(scored, row), scored=scored, rows=row)

    def positive(self, classes: Sequence[Label]) -> int | None:
        """Index of the positive class in a class table: the stated one, else the greater of two."""
        stated = self._prepared.positive
        return list(classes).index(stated) if stated is not None and stated in classes else default_positive(classes)

    def _curve(self, scored: Scored, row: NDArray[np.int64]) -> Curve:
        found = series(self.metrics, scored, self.bounds(row))
        return Curve(
            time=self.edge_starts.tolist(), rows=found.rows, by_batch=found.batches, cumulative=found.cumulative
        )

    def bounds(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each batch of the curve begins among rows in order of position, and where the last one ends."""
        return np.searchsorted(rows, np.append(self._edges, np.iinfo(np.int64).max)).astype(np.int64)

    def scored(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows count: those from the start on whose label was known by the end."""
        return (rows >= self.start) & (self.truth.known_at[rows] <= min(self._closes_at, NEVER - 1))

    # ------------------------------------------------------------------ no-skill lines

    def baselines(self, classes: tuple[Label, ...]) -> Iterator[tuple[str, str, Line]]:
        """The no-skill lines, one after the other: name, what it knows, and its scores."""
        first = self._first_known
        rows = np.flatnonzero(self.scored(np.arange(self._prepared.rows)))
        yield (
            "no_change",
            "repeats the last label known when the row itself came; strategies know labels only up to the start of the "
            "row's batch",
            self._plain(rows, self._no_change, None, classes),
        )
        by_batch = baselines.no_change_by_batch(_labels(first), first.known_at, self._starts, self._firsts)
        if not np.array_equal(by_batch, self._no_change, equal_nan=self._task == "regression"):
            yield (
                "no_change_by_batch",
                "repeats the last label known at the start of the row's batch, as strategies know it",
                self._plain(rows, by_batch, None, classes),
            )
        del by_batch
        if self._task == "classification":
            assert first.codes is not None
            common = baselines.majority(first.codes, first.known_at, self._starts, self._firsts, len(first.classes))
            yield (
                "majority",
                "the commonest class so far, with the shares of classes so far as probabilities",
                self._plain(rows, common.predicted, common.proba, classes),
            )
        else:
            assert first.values is not None
            average = baselines.mean(first.values, first.known_at, self._starts, self._firsts)
            yield "mean", "the mean label so far", self._plain(rows, average, None, classes)

    def _plain(
        self,
        rows: NDArray[np.int64],
        prediction: NDArray[Any],
        proba: NDArray[np.float64] | None,
        classes: tuple[Label, ...],
    ) -> Line:
        said, label = prediction[rows], _labels(self.truth)[rows]
        fine = said >= 0 if self._task == "classification" else ~np.isnan(said)
        rows, said, label = rows[fine], said[fine], label[fine]
        if self._task == "regression":
            return self._line(rows, (), label, said, None)
        to = self.truth.classes
        wide = None
        if proba is not None:
            wide = np.zeros((len(rows), len(classes)))
            for j, name in enumerate(to):
                if name in classes:
                    wide[:, classes.index(name)] = proba[rows, j]
        return self._line(rows, classes, translated(label, to, classes), translated(said, to, classes), wide)


def _labels(truth: StreamLabels) -> NDArray[Any]:
    found = truth.codes if truth.codes is not None else truth.values
    assert found is not None
    return found


def translated(codes: NDArray[Any], old: Sequence[Label], new: Sequence[Label]) -> NDArray[np.int32]:
    """Codes of one class table as codes of another; -1 for none, and for classes that the other lacks."""
    index = {typed(label): code for code, label in enumerate(new)}
    to = np.array([index.get(typed(label), -1) for label in old] + [-1], dtype=np.int32)
    return np.asarray(to[codes], dtype=np.int32)
