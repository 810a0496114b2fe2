"""Metrics of the order in which probabilities put rows: they need a sort, and cannot be added up.

One sort serves all of them. Rows are gathered into *levels* of equal probability, highest first, with the weight of
positive and of other rows on each; every metric here is a function of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import TaskKind
from perennial.metrics.additive import Floats, groups
from perennial.metrics.records import Scored, optional


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Weight of positive and other rows at each distinct probability, highest first, for one or more runs of rows.

    ``positive`` and ``other`` have shape (l,); run i has the levels from ``starts[i]`` on, at least one.
    """

    positive: Floats
    other: Floats
    starts: NDArray[np.int64]

    @cached_property
    def positives(self) -> Floats:
        """Weight of the positive rows of each run."""
        return np.add.reduceat(self.positive, self.starts)

    @cached_property
    def others(self) -> Floats:
        """Weight of the other rows of each run."""
        return np.add.reduceat(self.other, self.starts)

    @cached_property
    def found(self) -> Floats:
        """Weight of positive rows at each level and above it, within its run."""
        return self._running(self.positive)

    @cached_property
    def alarms(self) -> Floats:
        """Weight of other rows at each level and above it, within its run."""
        return self._running(self.other)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many levels each run has."""
        return np.diff(np.append(self.starts, len(self.positive)))

    def _running(self, weights: Floats) -> Floats:
        if len(self.sizes) == 1:
            return np.cumsum(weights)
        # each run is summed from 0, not as the difference of two long sums, so that no run touches another's digits
        longest = int(self.sizes.max())
        if len(self.sizes) * longest <= 4 * len(weights):
            inside = np.arange(longest) < self.sizes[:, None]
            padded = np.zeros(inside.shape)
            padded[inside] = weights
            return np.asarray(np.cumsum(padded, axis=1)[inside])
        out = np.empty(len(weights))
        for start, size in zip(self.starts.tolist(), self.sizes.tolist(), strict=True):
            np.cumsum(weights[start : start + size], out=out[start : start + size])
        return out


def _area(levels: Levels) -> Floats:
    positives, others = levels.positives, levels.others
    won = np.add.reduceat(levels.other * (levels.found - levels.positive / 2), levels.starts)
    return np.where((positives > 0) & (others > 0), won / (positives * others), np.nan)


def _average_precision(levels: Levels) -> Floats:
    flagged = levels.found + levels.alarms
    precision = np.divide(levels.found, flagged, out=np.zeros(len(flagged)), where=flagged != 0)
    total = np.add.reduceat(levels.positive * precision, levels.starts)
    return np.where(levels.positives > 0, total / levels.positives, np.nan)


@dataclass(frozen=True, slots=True)
class _RecallAt:
    rate: float

    def __call__(self, levels: Levels) -> Floats:
        rate = levels.alarms / np.repeat(levels.others, levels.sizes)
        recall = np.maximum.reduceat(np.where(rate <= self.rate, levels.found, 0.0), levels.starts) / levels.positives
        return np.where((levels.positives > 0) & (levels.others > 0), recall, np.nan)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A metric of levels: ``curve`` gives it for each run of rows, NaN where undefined."""

    name: str
    curve: Callable[[Levels], Floats]
    greater_is_better: bool = True
    needs_proba: bool = True
    task: TaskKind = "classification"

    def compute(self, scored: Scored) -> float | None:
        """The score over all rows; None where it is undefined."""
        return whole([self], scored)[self.name]


def roc_auc() -> Ranked:
    """Chance that a positive row has a higher probability than another, ties counting one half.

    Without a positive class: each class against the rest, averaged over the classes that labels name. Undefined
    unless both kinds of row are there.
    """
    return Ranked(name="roc_auc", curve=_area)


def average_precision() -> Ranked:
    """Precision averaged over the steps of recall, without interpolation; undefined without a positive row.

    Without a positive class: each class against the rest, averaged over the classes that labels name.
    """
    return Ranked(name="average_precision", curve=_average_precision)


def recall_at_fpr(rate: float, name: str) -> Ranked:
    """Greatest recall at any threshold whose false-positive rate is at most ``rate``, without interpolation.

    Without a positive class: each class against the rest, averaged over the classes that labels name.
    """
    return Ranked(name=name, curve=_RecallAt(rate))


def per_batch(metrics: Sequence[Ranked], scored: Scored, edges: NDArray[np.int64]) -> dict[str, Floats]:
    """Scores of each batch alone, shape (b,) per metric; NaN where undefined, as for batches of one row."""
    batches = len(edges) - 1
    means = {metric.name: _Means(batches) for metric in metrics}
    if scored.proba is not None and (np.diff(edges) > 1).any():
        for target in _targets(scored):
            for low, high in groups(scored, edges):
                part = scored.slice(int(edges[low]), int(edges[high]))
                sizes = np.diff(edges[low : high + 1])
                if sizes.max() < 2:
                    continue
                levels = _levels(part, target, sizes)
                filled = low + np.flatnonzero(sizes > 0)
                alone = sizes[sizes > 0] < 2
                for metric in metrics:
                    with np.errstate(divide="ignore", invalid="ignore"):
                        means[metric.name].add(filled, np.where(alone, np.nan, metric.curve(levels)))
    return {name: mean.result() for name, mean in means.items()}


def at_prefixes(metrics: Sequence[Ranked], scored: Scored, ends: Sequence[int]) -> dict[str, Floats]:
    """Scores over the first ``ends[i]`` rows, ``ends`` ascending, shape (p,) per metric; NaN where undefined.

    Probabilities are ranked once over all rows; weights are then filled in from prefix to prefix.
    """
    means = {metric.name: _Means(len(ends)) for metric in metrics}
    if scored.proba is not None and len(scored):
        for target in _targets(scored):
            _fill(metrics, scored, target, ends, means)
    return {name: mean.result() for name, mean in means.items()}


def whole(metrics: Sequence[Ranked], scored: Scored) -> dict[str, float | None]:
    """Scores over all rows."""
    return {name: optional(values[0]) for name, values in at_prefixes(metrics, scored, [len(scored)]).items()}


def classes_ranked(scored: Scored) -> int:
    """How many sorts a ranked metric of these rows takes: one, or one per class without a positive one."""
    return 1 if scored.target is not None else max(len(scored.classes), 1)


class _Means:
    """Running means over classes, leaving undefined ones out."""

    def __init__(self, size: int) -> None:
        self.total = np.zeros(size)
        self.count = np.zeros(size)

    def add(self, at: NDArray[np.int64] | int, values: Floats | float) -> None:
        defined = ~np.isnan(values)
        self.total[at] += np.where(defined, values, 0.0)
        self.count[at] += defined

    def result(self) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.count)  # 0 / 0: defined for no class


def _targets(scored: Scored) -> Iterable[int]:
    if scored.target is not None:
        return [scored.target]
    assert scored.codes is not None
    return np.flatnonzero(np.bincount(scored.codes, minlength=1)).tolist()


def _columns(scored: Scored, target: int) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Negated probability of the target, whether it is the true class, and the weight of each row."""
    assert scored.proba is not None
    assert scored.codes is not None
    rows = len(scored)
    if target < scored.proba.shape[1]:
        falling = -np.asarray(scored.proba[:, target], dtype=np.float64)
    else:
        falling = np.zeros(rows)
    weights = np.ones(rows) if scored.weights is None else np.asarray(scored.weights, dtype=np.float64)
    unknown = np.isnan(falling)
    if unknown.any():
        weights = np.where(unknown, np.nan, weights)  # reaches every score that reads the row
    return falling, scored.codes == target, weights


def _levels(scored: Scored, target: int, sizes: NDArray[np.int64]) -> Levels:
    falling, positive, weights = _columns(scored, target)
    if len(sizes) == 1:
        order = np.argsort(falling, kind="stable")
        fresh = np.zeros(len(falling), dtype=bool)
    else:
        batch = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((falling, batch))
        fresh = np.concatenate([[True], batch[1:] != batch[:-1]])  # the order keeps batches where they are
    falling = falling[order]
    fresh[0] = True
    fresh[1:] |= falling[1:] != falling[:-1]
    at = np.flatnonzero(fresh)
    mass = weights[order]
    hits = np.where(positive[order], mass, 0.0)
    rest = np.where(positive[order], 0.0, mass)
    first_rows = np.concatenate([[0], np.cumsum(sizes)[:-1]])[sizes > 0]
    return Levels(
        positive=np.add.reduceat(hits, at),
        other=np.add.reduceat(rest, at),
        starts=np.searchsorted(at, first_rows),
    )


def _fill(
    metrics: Sequence[Ranked], scored: Scored, target: int, ends: Sequence[int], means: dict[str, _Means]
) -> None:
    falling, positive, weights = _columns(scored, target)
    order = np.argsort(falling, kind="stable")
    fresh = np.concatenate([[False], np.diff(falling[order]) != 0])
    level = np.empty(len(order), dtype=np.int64)
    level[order] = np.cumsum(fresh)
    del falling, order
    size = int(level.max()) + 1
    hits, rest, start = np.zeros(size), np.zeros(size), 0
    for i, end in enumerate(ends):
        at, mass, is_hit = level[start:end], weights[start:end], positive[start:end]
        np.add.at(hits, at[is_hit], mass[is_hit])
        np.add.at(rest, at[~is_hit], mass[~is_hit])
        start = end
        if not end:
            continue
        levels = Levels(positive=hits, other=rest, starts=np.zeros(1, dtype=np.int64))
        for metric in metrics:
            with np.errstate(divide="ignore", invalid="ignore"):
                means[metric.name].add(i, float(metric.curve(levels)[0]))
