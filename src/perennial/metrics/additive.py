"""Metrics that are functions of sums over rows: exact per batch and cumulatively, in one pass.

Each metric turns the rows of a batch into a small *state* (sums, counts by class, moments); states of successive
batches are accumulated, and a score is read off any state. Rows are read in runs of bounded size, so memory does
not grow with the number of rows or classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import TaskKind
from perennial.metrics.records import Scored, optional

Floats = NDArray[np.float64]
Terms = NDArray[np.float64] | NDArray[np.bool_]

#: probabilities below this one count as this one in the log loss (scikit-learn's choice for float64)
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)

_CELLS = 2**20  # numbers that a temporary array may hold: 8 MiB of float64


class Additive(Protocol):
    """A metric whose batches can be accumulated."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def needs_proba(self) -> bool: ...  # noqa: D102
    @property
    def needs_reference(self) -> bool: ...  # noqa: D102

    def states(self, scored: Scored, edges: NDArray[np.int64]) -> Floats:
        """State of each run of rows ``[edges[i], edges[i + 1])``, shape (b, t); zeros for an empty one."""
        ...

    def accumulate(self, states: Floats) -> Floats:
        """State of all rows up to the end of each run, shape (b, t)."""
        ...

    def finish(self, states: Floats, scored: Scored) -> Floats:
        """The score that each state stands for, shape (b,); NaN where it is undefined."""
        ...


def available(metric: Additive, scored: Scored) -> bool:
    """Whether the scored rows have what the metric reads."""
    if metric.needs_proba and scored.proba is None:
        return False
    return not (metric.needs_reference and scored.reference is None)


def groups(scored: Scored, edges: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of batches ``[low, high)`` small enough to be computed at once; a large batch is alone in its run."""
    limit = _limit(scored)
    low, batches = 0, len(edges) - 1
    while low < batches:
        high = int(np.searchsorted(edges, edges[low] + limit, side="right")) - 1
        high = min(max(high, low + 1), low + limit, batches)
        yield low, high
        low = high


def _limit(scored: Scored) -> int:
    return max(_CELLS // (3 * max(len(scored.classes), 1)), 1)


def over_time(metric: Additive, scored: Scored, edges: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Scores of each batch and cumulative scores, shape (b,) each; NaN where undefined."""
    alone = np.full(len(edges) - 1, np.nan)
    cumulative = alone.copy()
    if not available(metric, scored):
        return alone, cumulative
    carry: Floats | None = None
    for low, high in groups(scored, edges):
        states = states_of(metric, scored, edges[low : high + 1])
        if carry is None:
            carry = np.zeros((1, states.shape[1]))
        total = metric.accumulate(np.concatenate([carry, states]))
        carry = total[-1:]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            alone[low:high] = metric.finish(states, scored)
            cumulative[low:high] = metric.finish(total[1:], scored)
    return alone, cumulative


def whole(metric: Additive, scored: Scored) -> float | None:
    """The score over all rows."""
    if not len(scored) or not available(metric, scored):
        return None
    states = states_of(metric, scored, np.array([0, len(scored)]))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return optional(metric.finish(states, scored)[0])


def states_of(metric: Additive, scored: Scored, edges: NDArray[np.int64]) -> Floats:
    """State of each run of rows of one group of :func:`groups`, shape (b, t)."""
    low, high = int(edges[0]), int(edges[-1])
    limit = _limit(scored)
    if len(edges) > 2 or high - low <= limit:
        return metric.states(scored.slice(low, high), edges - low)
    total: Floats | None = None  # one batch too large to be read at once
    for start in range(low, high, limit):
        stop = min(start + limit, high)
        part = metric.states(scored.slice(start, stop), np.array([0, stop - start]))
        total = part if total is None else metric.accumulate(np.concatenate([total, part]))[-1:]
    assert total is not None
    return total


def segment_sums(values: Terms, edges: NDArray[np.int64]) -> Floats:
    """Sum of each run ``[edges[i], edges[i + 1])``, where the last edge is the end of ``values``."""
    out = np.zeros(len(edges) - 1)
    filled = edges[1:] > edges[:-1]  # reduceat gives an empty run the value at its edge
    if filled.any():
        out[filled] = np.add.reduceat(values, edges[:-1][filled], dtype=np.float64)
    return out


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A metric of weighted sums of terms: ``read`` gives a term per row each, ``result`` takes their sums.

    ``result`` gets shape (1 + t, b): the sum of weights, then the weighted sum of each term.
    """

    name: str
    greater_is_better: bool
    task: TaskKind
    read: Callable[[Scored], Sequence[Terms]]
    result: Callable[[Floats], Floats]
    needs_proba: bool = False
    needs_reference: bool = False

    def states(self, scored: Scored, edges: NDArray[np.int64]) -> Floats:  # noqa: D102
        weights = scored.weights
        if weights is None:
            sums = [np.diff(edges).astype(np.float64)]
            sums += [segment_sums(term, edges) for term in self.read(scored)]
        else:
            sums = [segment_sums(weights, edges)]
            sums += [segment_sums(term * weights, edges) for term in self.read(scored)]
        return np.stack(sums, axis=1)

    def accumulate(self, states: Floats) -> Floats:  # noqa: D102
        return np.cumsum(states, axis=0)

    def finish(self, states: Floats, scored: Scored) -> Floats:  # noqa: ARG002, D102
        return self.result(states.T)

    def compute(self, scored: Scored) -> float | None:
        """The score over all rows; None where it is undefined."""
        return whole(self, scored)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ByClass:
    """A metric of the margins and the diagonal of the confusion matrix.

    ``result`` gets the weight of rows that are right, true and predicted per class, shape (b, k) each, and the
    positive class.
    """

    name: str
    result: Callable[[Floats, Floats, Floats, int | None], Floats]
    greater_is_better: bool = True
    needs_proba: bool = False
    needs_reference: bool = False
    task: TaskKind = "classification"

    def states(self, scored: Scored, edges: NDArray[np.int64]) -> Floats:  # noqa: D102
        codes, predicted, weights = scored.codes, scored.predicted, scored.weights
        assert codes is not None
        assert predicted is not None
        classes, batches = len(scored.classes), len(edges) - 1
        offset = np.repeat(np.arange(batches, dtype=np.int64) * classes, np.diff(edges))
        known = predicted >= 0
        right = codes == predicted

        def count(of: NDArray[np.int32], rows: NDArray[np.bool_] | slice) -> Floats:
            mass = None if weights is None else weights[rows]
            return np.bincount((offset + of)[rows], mass, minlength=batches * classes).astype(np.float64)

        counts = [count(codes, right), count(codes, slice(None)), count(predicted, known)]
        return np.concatenate([c.reshape(batches, classes) for c in counts], axis=1)

    def accumulate(self, states: Floats) -> Floats:  # noqa: D102
        return np.cumsum(states, axis=0)

    def finish(self, states: Floats, scored: Scored) -> Floats:  # noqa: D102
        right, true, predicted = np.split(states, 3, axis=1)
        return self.result(right, true, predicted, scored.target)

    def compute(self, scored: Scored) -> float | None:
        """The score over all rows; None where it is undefined."""
        return whole(self, scored)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class R2:
    """1 minus squared error over squared deviation from the rows' own mean; undefined for constant labels.

    States are moments (weight, mean, sum of squared deviations, squared error) and are merged pairwise, so nothing
    is lost to cancellation when labels lie far from zero.

    References
    ----------
    Chan, Golub, LeVeque (1983), Algorithms for computing the sample variance: the merging of moments.
    """

    name: str = "r2"
    greater_is_better: bool = True
    needs_proba: bool = False
    needs_reference: bool = False
    task: TaskKind = "regression"

    def states(self, scored: Scored, edges: NDArray[np.int64]) -> Floats:  # noqa: D102
        values, predicted = scored.values, scored.predicted_values
        assert values is not None
        assert predicted is not None
        weights = np.ones(len(values)) if scored.weights is None else scored.weights
        sizes = np.diff(edges)
        first = np.zeros(len(sizes))
        first[sizes > 0] = values[edges[:-1][sizes > 0]]
        shifted = values - np.repeat(first, sizes)  # exactly 0 for constant labels
        mass = segment_sums(weights, edges)
        mean = np.divide(segment_sums(weights * shifted, edges), mass, out=np.zeros(len(sizes)), where=mass > 0)
        deviation = segment_sums(weights * (shifted - np.repeat(mean, sizes)) ** 2, edges)
        error = segment_sums(weights * (values - predicted) ** 2, edges)
        return np.stack([mass, first + mean, deviation, error], axis=1)

    def accumulate(self, states: Floats) -> Floats:  # noqa: D102
        mass, mean, deviation, error = states.T
        filled = np.flatnonzero(mass > 0)
        origin = mean[filled[0]] if len(filled) else 0.0
        total = np.cumsum(mass)
        shifted = np.where(mass > 0, mean - origin, 0.0)
        running = np.divide(np.cumsum(mass * shifted), total, out=np.zeros(len(total)), where=total > 0)
        before = np.concatenate([[0.0], running[:-1]])
        behind = np.concatenate([[0.0], total[:-1]])
        share = np.divide(behind * mass, total, out=np.zeros(len(total)), where=total > 0)
        between = share * (shifted - before) ** 2
        return np.stack([total, origin + running, np.cumsum(deviation + between), np.cumsum(error)], axis=1)

    def finish(self, states: Floats, scored: Scored) -> Floats:  # noqa: ARG002, D102
        mass, mean, deviation, error = states.T
        # deviations within the rounding of the mean are no variation
        varied = deviation > mass * (8 * np.finfo(np.float64).eps * mean) ** 2
        return np.where(varied, (deviation - error) / deviation, np.nan)

    def compute(self, scored: Scored) -> float | None:
        """The score over all rows; None where it is undefined."""
        return whole(self, scored)


def true_probability(scored: Scored) -> Floats:
    """Probability given to each row's true class, shape (n,); 0 for a class without a column."""
    proba, codes = scored.proba, scored.codes
    assert proba is not None
    assert codes is not None
    columns = proba.shape[1]
    if not columns:
        return np.zeros(len(codes))
    out = np.asarray(proba[np.arange(len(codes)), np.minimum(codes, columns - 1)], dtype=np.float64)
    return out if len(scored.classes) <= columns else np.where(codes < columns, out, 0.0)


def _right(scored: Scored) -> list[NDArray[np.bool_]]:
    assert scored.codes is not None
    return [scored.codes == scored.predicted]


def _surprise(scored: Scored) -> list[Floats]:
    return [-np.log(np.maximum(true_probability(scored), SMALLEST_PROBABILITY))]


def _brier(scored: Scored) -> list[Floats]:
    proba, codes = scored.proba, scored.codes
    assert proba is not None
    assert codes is not None
    columns = proba.shape[1]
    miss = np.array(proba, dtype=np.float64)
    has = codes < columns
    rows = np.arange(len(codes)) if has.all() else np.flatnonzero(has)
    miss[rows, codes[rows]] -= 1.0
    squares = np.einsum("ij,ij->i", miss, miss) + ~has
    return [squares if max(len(scored.classes), columns) > 2 else squares / 2]


def _temporal(scored: Scored) -> list[NDArray[np.bool_]]:
    codes, predicted, reference = scored.codes, scored.predicted, scored.reference
    assert codes is not None
    assert reference is not None
    has = reference >= 0
    return [has, has & (codes == predicted), has & (codes == reference)]


def _error(scored: Scored) -> Floats:
    assert scored.values is not None
    assert scored.predicted_values is not None
    return np.asarray(scored.values - scored.predicted_values)


def _absolute(scored: Scored) -> list[Floats]:
    return [np.abs(_error(scored))]


def _squared(scored: Scored) -> list[Floats]:
    return [_error(scored) ** 2]


def _absolute_and_size(scored: Scored) -> list[Floats]:
    assert scored.values is not None
    return [np.abs(_error(scored)), np.abs(scored.values)]


@dataclass(frozen=True, slots=True)
class _Pinball:
    quantile: float

    def __call__(self, scored: Scored) -> list[Floats]:
        error = _error(scored)
        return [np.maximum(self.quantile * error, (self.quantile - 1) * error)]


def _mean(sums: Floats) -> Floats:
    return np.asarray(sums[1] / sums[0])


def _root_mean(sums: Floats) -> Floats:
    return np.asarray(np.sqrt(sums[1] / sums[0]))


def _ratio(sums: Floats) -> Floats:
    return np.where(sums[2] > 0, sums[1] / sums[2], np.nan)


def _over_reference(sums: Floats) -> Floats:
    _, mass, right, repeated = sums
    return np.where(mass > repeated, (right - repeated) / (mass - repeated), np.nan)


def _f1(right: Floats, true: Floats, predicted: Floats, positive: int | None) -> Floats:
    both = true + predicted
    if positive is not None:
        return np.where(both[:, positive] > 0, 2 * right[:, positive] / both[:, positive], np.nan)
    named = both > 0
    each = np.divide(2 * right, both, out=np.zeros(both.shape), where=named)
    return np.asarray(each.sum(axis=1) / named.sum(axis=1))


def _kappa(right: Floats, true: Floats, predicted: Floats, positive: int | None) -> Floats:  # noqa: ARG001
    mass = true.sum(axis=1)
    agreed = right.sum(axis=1) / mass
    chance = (true * predicted).sum(axis=1) / mass**2
    return np.where(chance < 1 - 1e-12, (agreed - chance) / (1 - chance), np.nan)


def accuracy() -> Sums:
    """Share of rows whose class was predicted."""
    return Sums(name="accuracy", greater_is_better=True, task="classification", read=_right, result=_mean)


def log_loss() -> Sums:
    """Mean of -ln of the probability given to the true class, in nats.

    Probabilities below :data:`SMALLEST_PROBABILITY` (2.2e-16) count as that, so one row costs at most 36.04. A class
    that the model has no column for had probability 0. Rows are not rescaled to sum to 1.
    """
    return Sums(
        name="log_loss",
        greater_is_better=False,
        needs_proba=True,
        task="classification",
        read=_surprise,
        result=_mean,
    )


def brier() -> Sums:
    """Mean squared distance between the probabilities and the truth.

    With two classes it is half the sum over both, i.e. the squared error of the positive class, in [0, 1]; with more
    it is the sum over all classes, in [0, 2] (Brier 1950): what ``sklearn.metrics.brier_score_loss`` gives.
    """
    return Sums(
        name="brier",
        greater_is_better=False,
        needs_proba=True,
        task="classification",
        read=_brier,
        result=_mean,
    )


def f1() -> ByClass:
    """Harmonic mean of precision and recall of the positive class; without one, the mean over classes.

    Undefined if the positive class was neither true nor predicted; the mean is over classes that were either.
    """
    return ByClass(name="f1", result=_f1)


def kappa() -> ByClass:
    """Agreement beyond chance: (p - e) / (1 - e), e by the margins (Cohen 1960); undefined if e is 1."""
    return ByClass(name="kappa", result=_kappa)


def kappa_temporal() -> Sums:
    """Accuracy beyond repeating the last known label: (p - q) / (1 - q); undefined if q is 1.

    Both accuracies are over the rows for which a label was known to be repeated.

    References
    ----------
    Zliobaite, Bifet, Read, Pfahringer, Holmes (2015), Evaluation methods and decision theory for classification of
    streaming data with temporal dependence, equation for Kappa-Temporal; there the last label is always known.
    """
    return Sums(
        name="kappa_temporal",
        greater_is_better=True,
        needs_reference=True,
        task="classification",
        read=_temporal,
        result=_over_reference,
    )


def mae() -> Sums:
    """Mean absolute error."""
    return Sums(name="mae", greater_is_better=False, task="regression", read=_absolute, result=_mean)


def rmse() -> Sums:
    """Root of the mean squared error."""
    return Sums(name="rmse", greater_is_better=False, task="regression", read=_squared, result=_root_mean)


def wape() -> Sums:
    """Sum of absolute errors over the sum of absolute labels; undefined if all labels are 0."""
    return Sums(name="wape", greater_is_better=False, task="regression", read=_absolute_and_size, result=_ratio)


def pinball(quantile: float, name: str) -> Sums:
    """Mean pinball loss of predicting a quantile; at 0.5 half the mean absolute error."""
    return Sums(name=name, greater_is_better=False, task="regression", read=_Pinball(quantile), result=_mean)
