"""From predictions to what advice is made from: what every strategy lost and cost in each batch, on the same rows.

Sums per batch are kept, and one bit per row and strategy. Only where strategies did not answer the same rows are
predictions read a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.advice.blocks import Blocks
from perennial.core.records import TaskKind
from perennial.metrics import Prices, Scored, loss_of, mistakes
from perennial.metrics.totals import errors
from perennial.replay.evaluation import Evaluation, Line
from perennial.replay.result import StrategyResult
from perennial.replay.spill import Summary
from perennial.stream.prepared import Prepared

Floats = NDArray[np.float64]

_LEAST_ANSWERED = 0.5  # of the rows that the most diligent answered; who answers less is left out
_DAY = 86_400e6  # microseconds
_MONTH = 30.0  # days
_GIGABYTE = 1e9


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Totals per batch of one column; ``loss`` is None where predictions lack what it reads."""

    loss: Floats | None
    wrong: Floats | None


@dataclass(frozen=True, kw_only=True)
class _Column:
    name: str
    answered: NDArray[np.uint8]  # a bit per row from the start on
    count: int
    sums: _Sums
    again: Callable[[], Line]
    result: StrategyResult | None  # what ran; None for a line that costs nothing
    summary: Summary | None
    line: bool


@final
class Weighing:
    """Takes in what was scored of each strategy and line, one after the other, and lines it up at the end.

    Parameters
    ----------
    evaluation : Evaluation
        What scored them.
    prepared : Prepared
        The stream.
    task : {"classification", "regression"}
        What was predicted.
    prices : Prices, optional
        With them losses are money.
    """

    def __init__(self, evaluation: Evaluation, prepared: Prepared, task: TaskKind, prices: Prices | None) -> None:
        self._evaluation, self._prepared, self._task, self._prices = evaluation, prepared, task, prices
        self._loss = loss_of(evaluation.metrics[0], task)
        self._columns: list[_Column] = []

    def strategy(self, result: StrategyResult, summary: Summary, line: Line, again: Callable[[], Line]) -> None:
        """Take in a strategy; ``again`` scores it once more."""
        self._add(result.name, line, again, result, summary, is_line=False)

    def line(
        self,
        name: str,
        line: Line,
        again: Callable[[], Line],
        result: StrategyResult | None = None,
        summary: Summary | None = None,
    ) -> None:
        """Take in a line without skill, with what it cost if it ran."""
        self._add(name, line, again, result, summary, is_line=True)

    def _add(
        self,
        name: str,
        line: Line,
        again: Callable[[], Line],
        result: StrategyResult | None,
        summary: Summary | None,
        *,
        is_line: bool,
    ) -> None:
        self._columns.append(
            _Column(
                name=name,
                answered=np.packbits(self._answered(line.rows)),
                count=len(line.rows),
                sums=self._summed(line.scored, line.rows),
                again=again,
                result=result,
                summary=summary,
                line=is_line,
            )
        )

    def _answered(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        start = self._evaluation.start
        found = np.zeros(max(self._prepared.rows - start, 0), dtype=bool)
        found[rows - start] = True
        return found

    def _summed(self, scored: Scored, rows: NDArray[np.int64]) -> _Sums:
        edges = self._evaluation.bounds(rows)
        wrong = errors().totals(scored, edges) if self._task == "classification" else None
        if self._prices is not None:
            amounts = {name: self._prepared.column(name)[rows] for name in self._prices.columns}
            return _Sums(loss=mistakes(self._prices, scored, edges, amounts=amounts), wrong=wrong)
        with np.errstate(over="ignore", invalid="ignore"):
            loss = self._loss.totals(scored, edges)
        return _Sums(loss=loss if loss is not None and np.isfinite(loss).all() else None, wrong=wrong)

    # ------------------------------------------------------------------ at the end

    def blocks(self) -> Blocks | None:
        """What each lost and cost by batch, on the rows that all answered; None if no strategy can be compared."""
        most = max((c.count for c in self._columns if not c.line), default=0)
        taken = [c for c in self._columns if c.count and c.count >= _LEAST_ANSWERED * most]
        able = [c for c in taken if not c.line and c.sums.loss is not None]
        if not able:
            return None
        taken = [*able, *(c for c in taken if c.line)]
        common, sums = self._on_common_rows(taken)
        count = int(common.sum())
        if not count:
            return None
        rows = np.flatnonzero(common) + self._evaluation.start
        sizes = np.diff(self._evaluation.bounds(rows))
        there = np.flatnonzero(sizes)
        lines = [c for c in taken if c.line and sums[c.name, True].loss is not None]
        columns = [*able, *lines]
        days = self._days(rows, int(there[0]))
        costs = [self._costs(column, sizes, there, days) for column in columns]
        classes = self._task == "classification" and self._prices is None
        return Blocks(
            strategies=tuple(c.name for c in able),
            lines=tuple(c.name for c in lines),
            rows=sizes[there],
            loss=_beside([sums[c.name, c.line].loss for c in columns], there),
            training=None if self._prices is None else np.stack([training for training, _ in costs], axis=1),
            running=None if self._prices is None else np.stack([running for _, running in costs], axis=1),
            priced=self._prices is not None,
            metric="money" if self._prices is not None else self._evaluation.metrics[0].name,
            loss_name="mistakes in money" if self._prices is not None else self._loss.name,
            exact=self._prices is not None or self._loss.exact,
            days=days,
            effort={
                name: np.array([float(_result(c).costs[name]) for c in able])
                for name in ("row_trees", "rows_trained", "trainings")
            },
            reference=_reference(columns),
            described=tuple(_result(c).description for c in able),
            errors=_beside([sums[c.name, False].wrong for c in able], there) if classes else None,
            apart={
                c.name: _beside([sums[c.name, True].wrong], there)[:, 0]
                for c in taken
                if classes and c.line and sums[c.name, True].loss is None
            },
            notes=self._notes(able, most, count),
        )

    def _on_common_rows(self, taken: Sequence[_Column]) -> tuple[NDArray[np.bool_], dict[tuple[str, bool], _Sums]]:
        bits = taken[0].answered.copy()
        for column in taken[1:]:
            bits &= column.answered
        common = np.unpackbits(bits, count=max(self._prepared.rows - self._evaluation.start, 0)).astype(bool)
        count, found = int(common.sum()), {}
        for column in taken:
            sums = column.sums
            if column.count != count:
                line = column.again()
                keep = common[line.rows - self._evaluation.start]
                sums = self._summed(_kept(line.scored, keep), line.rows[keep])
                del line
            found[column.name, column.line] = sums
        return common, found

    def _days(self, rows: NDArray[np.int64], first: int) -> float:
        begun = self._evaluation.edge_starts[first]
        return max(float(self._evaluation.truth.time[rows].max() - begun) / _DAY, 0.0)

    def _costs(
        self, column: _Column, sizes: NDArray[np.int64], there: NDArray[np.int64], days: float
    ) -> tuple[Floats, Floats]:
        """What trainings, and what all else cost in each batch; nothing for what never ran."""
        training, running = np.zeros(len(there)), np.zeros(len(there))
        prices, summary, result = self._prices, column.summary, column.result
        if prices is None or summary is None or result is None:
            return training, running
        starts = self._evaluation.edge_starts
        work = np.array([float(v.row_trees or v.trained_rows) for v in summary.versions])
        second = prices.cpu_hour / 3600
        per_work = second * summary.train_cpu_seconds / max(float(work.sum()), 1.0)
        for i, version in enumerate(summary.versions):
            at = int(np.searchsorted(starts, version.at, side="right")) - 1
            if at < 0 or (i == 0 and version.kind != "update"):
                continue  # before what is compared, or the first model, which every strategy must make
            price = prices.update * version.steps if version.kind == "update" else prices.retrain
            if version.kind == "start":
                price = 0.0
            # a batch without scored rows is none here: its costs fall to the next one
            training[min(int(np.searchsorted(there, at)), len(there) - 1)] += price + per_work * work[i]
        shares = sizes[there] / max(summary.predicted_rows, 1)
        running += second * summary.predict_cpu_seconds * shares
        running += prices.kept_gb_month * summary.kept_bytes / _GIGABYTE * days / _MONTH / len(there)
        return training, running

    def _notes(self, able: Sequence[_Column], most: int, count: int) -> tuple[str, ...]:
        notes = []
        if count < most:
            notes.append(f"compared on the {count:,} rows that all of them answered")
        out = [c.name for c in self._columns if not c.line and c not in able]
        if out:
            notes.append(f"left out, since they answered too few rows or have no {self._loss.name}: {'; '.join(out)}")
        prices = self._prices
        updated = any(c.result is not None and c.result.costs["updates"] for c in able if not c.line)
        if prices is not None and prices.retrain and not (prices.update or prices.cpu_hour) and updated:
            notes.append("updates have no price and count as free: set `cost: {update: ...}` or `cpu_hour`")
        if self._evaluation.stride > 1:
            notes.append(f"{self._evaluation.stride} neighbouring batches count as one")
        return tuple(notes)


def _result(column: _Column) -> StrategyResult:
    assert column.result is not None
    return column.result


def _reference(columns: Sequence[_Column]) -> int:
    """The frozen model, whether it is a strategy or a line; else the first strategy."""
    kinds = [None if c.result is None else c.result.kind for c in columns]
    return kinds.index("frozen") if "frozen" in kinds else 0


def _beside(columns: Sequence[Floats | None], there: NDArray[np.int64]) -> Floats:
    found = [column for column in columns if column is not None]
    assert len(found) == len(columns)
    return np.stack(found, axis=1)[there]


def _kept(scored: Scored, keep: NDArray[np.bool_]) -> Scored:
    """The rows of ``scored`` that ``keep`` marks."""
    names = ("codes", "predicted", "proba", "values", "predicted_values", "weights", "reference")
    changed: dict[str, Any] = {}
    for name in names:
        array = getattr(scored, name)
        changed[name] = None if array is None else array[keep]
    return replace(scored, **changed)
