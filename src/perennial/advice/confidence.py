"""How sure a difference between strategies is: by whole batches drawn in runs, never row by row.

Rows of one batch share their model, their weather and their news: they are no independent evidence, and a test that
counts them as such is overconfident. What is resampled here are batches, in runs of neighbours, so that what lasts
over several batches is kept as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError

Floats = NDArray[np.float64]

REPLICATES = 1000  #: of the bootstrap
LEAST_TESTED = 8  #: batches, below which nothing is estimated: autocorrelations of so few mean nothing

_SHORTEST = 5  # batches, up to which no autoregression is fitted
_TIE = 1e-13  # beside losses of 1: breaks ties, and no more
_SAME = 1e-12  # differences that are this small beside the losses themselves are rounding


def block_length(differences: Floats) -> float:
    """Mean length of the runs in which batches are drawn, in batches.

    The median, over the columns, of the length that is best for the mean of that column by the rule of Politis and
    White, and at least the cube root of the number of batches. Never more than a third of them.

    Parameters
    ----------
    differences : array, shape (t, k)
        Differences of totals between strategies, one row per batch. Columns that are constant have no say.

    References
    ----------
    Politis and White (2004), Automatic block-length selection for the dependent bootstrap; with the correction by
    Patton, Politis and White (2009).

    Examples
    --------
    >>> block_length(np.random.default_rng(0).normal(size=(125, 1)))
    5.0
    """
    t = len(differences)
    least = t ** (1 / 3)
    moving = differences[:, _moves(differences)]
    found = least
    if t >= LEAST_TESTED and moving.shape[1]:
        from arch.bootstrap import optimal_block_length

        with np.errstate(divide="ignore", invalid="ignore"):  # the autocorrelation of a tail that does not move
            lengths = optimal_block_length(moving)["stationary"].to_numpy()
        lengths = lengths[np.isfinite(lengths)]
        found = float(np.median(lengths)) if len(lengths) else least
    return round(float(min(max(found, least, 1.0), max(t / 3, 1.0))), 6)


def drawn(t: int, length: float, replicates: int, seed: int) -> Floats:
    """How often each batch is drawn in each replicate of the stationary bootstrap, shape (replicates, t).

    Runs of neighbouring batches start anywhere, go round from the last to the first, and end after each batch with
    probability ``1 / length``.

    References
    ----------
    Politis and Romano (1994), The stationary bootstrap.

    Examples
    --------
    >>> drawn(4, 2.0, 3, seed=0).sum(axis=1)
    array([4., 4., 4.])
    """
    random = np.random.default_rng(seed)
    at = np.arange(t)
    out = np.empty((replicates, t))
    part = max(1, 2**20 // max(t, 1))
    for low in range(0, replicates, part):
        n = min(part, replicates - low)
        anew = random.random((n, t)) < 1 / length
        anew[:, 0] = True
        begun = np.maximum.accumulate(np.where(anew, at, 0), axis=1)  # where the run of each draw began
        starts = np.take_along_axis(random.integers(0, t, (n, t)), begun, axis=1)
        batch = (starts + at - begun) % t
        cells = np.bincount((np.arange(n)[:, None] * t + batch).ravel(), minlength=n * t)
        out[low : low + n] = cells.reshape(n, t)
    return out


def widening(differences: Floats, totals: Floats, replicates: Floats, length: float, level: float) -> Floats:
    """By how much an interval of each column is to be wider than the bootstrap's own percentiles, shape (k,).

    A bootstrap of few runs about their own mean finds too little variance, and much too little where differences last
    longer than a run. So its standard error is replaced by that of the prewhitened long-run variance where that is
    greater: an autoregression of one lag, its coefficient corrected for the bias of a short series and kept in [0,
    0.95], and the variance of Newey and West of what remains. And the normal quantile is replaced by Student's with
    as many degrees of freedom as there are batches that count: ``t`` times the variance of one batch over the
    long-run variance, less 1.

    Parameters
    ----------
    differences : array, shape (t, k)
        Per batch.
    totals, replicates : array, shape (k,) and (b, k)
        Their sums, and the sums of each replicate.
    length : float
        Mean length of a run, in batches.
    level : float
        Of the interval.

    References
    ----------
    Andrews and Monahan (1992), An improved heteroskedasticity and autocorrelation consistent covariance matrix
    estimator. Kendall (1954), Note on bias in the estimation of autocorrelation. The floor of the variance of what
    remains, a quarter of its plain one, and the degrees of freedom are ours; `make bench-evidence` measures their
    coverage.
    """
    from scipy.special import ndtri, stdtrit

    t = len(differences)
    found = np.ones(differences.shape[1])
    plain = ((differences - differences.mean(axis=0)) ** 2).mean(axis=0)
    drawn_variance = ((replicates - totals) ** 2).mean(axis=0) / t
    runs = t / length
    for j in np.flatnonzero(_moves(differences) & (drawn_variance > 0)).tolist():
        long_run = drawn_variance[j] * runs / max(runs - 1, 0.5)
        if t > _SHORTEST:
            long_run = max(long_run, _prewhitened(differences[:, j]))
        counting = min(max(t * plain[j] / long_run, 2.5), t)
        quantile = stdtrit(counting - 1, (1 + level) / 2) / ndtri((1 + level) / 2)
        found[j] = math.sqrt(long_run * t / (t - 1) / drawn_variance[j]) * quantile
    return found


def _prewhitened(values: Floats) -> float:
    """The long-run variance of one series."""
    about = values - values.mean()
    t, size = len(about), float(about @ about)
    rho = float(about[1:] @ about[:-1]) / size
    rho = min(max(rho + (1 + 3 * rho) / t, 0.0), 0.95)
    rest = about[1:] - rho * about[:-1]
    rest -= rest.mean()
    plain = float(rest @ rest) / len(rest)
    lags = int(len(rest) ** (1 / 3))
    left = plain + sum(
        2 * (1 - lag / (lags + 1)) * float(rest[lag:] @ rest[:-lag]) / len(rest) for lag in range(1, lags + 1)
    )
    return max(left, plain / 4) / (1 - rho) ** 2


def interval(totals: Floats, replicates: Floats, wider: Floats | float, level: float) -> tuple[Floats, Floats]:
    """Low and high ends for each total, by the percentiles of its replicates about itself.

    Parameters
    ----------
    totals : array, shape (k,)
        What was measured.
    replicates : array, shape (b, k)
        The same of each replicate.
    wider : float or array, shape (k,)
        See :func:`widening`.
    level : float
        Share of such intervals that hold the true value.

    Examples
    --------
    >>> interval(np.array([10.0]), np.arange(21.0)[:, None], 1.0, 0.9)
    (array([1.]), array([19.]))
    """
    tail = (1 - level) / 2
    low, high = np.quantile(replicates - totals, [tail, 1 - tail], axis=0)
    return totals + wider * low, totals + wider * high


def confidence_set(
    losses: Floats, length: float, level: float, seed: int, replicates: int = REPLICATES, wider: float = 1.0
) -> Floats:
    """The p-value of each column for being among the best: those above ``1 - level`` are the model confidence set.

    The set holds the best column with probability ``level``; the less the data say, the larger it is. Columns that are
    equal share one p-value. One that is worse than another by the same amount in every batch has 0.

    Parameters
    ----------
    losses : array, shape (t, k)
        Totals per batch; less is better.
    length : float
        See :func:`block_length`; rounded up.
    wider : float
        By how much statistics are made smaller, as intervals are wider; see :func:`widening`.

    References
    ----------
    Hansen, Lunde and Nason (2011), The model confidence set: the range statistic over pairs, with arch's bootstrap.
    Dividing by ``wider`` is ours: the bootstrap's variance is too small for few batches.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(100, 3))
    >>> confidence_set(noise + [0.0, 0.0, 2.0], 5, 0.9, seed=0) > 0.1
    array([ True,  True, False])
    """
    t, k = losses.shape
    groups = _equal(losses)
    firsts = [group[0] for group in groups]
    # beaten by a constant: the variance of the difference is nil, and a test statistic would divide by it
    beaten = {i for i in firsts for j in firsts if _by_a_constant(losses[:, i] - losses[:, j], losses)}
    kept = [i for i in firsts if i not in beaten]
    found = np.zeros(k)
    if len(kept) == 1 or t < 2:
        found[kept] = 1.0
    else:
        from arch.bootstrap import MCS

        # a common scale: what is tested does not depend on it, and sums of squares stay finite
        values = losses[:, kept] - losses[:, kept].mean(axis=1, keepdims=True)
        values -= values.mean(axis=0) * (1 - 1 / wider)
        values = values / max(float(np.abs(values).max()), np.finfo(float).tiny)
        values = values + _TIE * np.arange(1, len(kept) + 1) ** 1.5  # arch cannot eliminate one of two equal statistics
        tested = MCS(values, size=1 - level, reps=replicates, block_size=math.ceil(length), method="R", seed=seed)
        tested.compute()
        table = tested.pvalues
        found[np.array(kept)[table.index.to_numpy(dtype=np.int64)]] = table["Pvalue"].to_numpy(dtype=np.float64)
    for group in groups:
        found[group] = found[group[0]]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Two strategies against each other: mean difference, its statistic, degrees of freedom, two-sided p-value."""

    mean: float
    statistic: float
    freedom: int
    p: float


def diebold_mariano(difference: Sequence[float] | Floats) -> Paired:
    """Test that two strategies lose equally much, allowing for what lasts over several batches.

    ``mean / sqrt(variance / t)``, with the variance of Newey and West over ``t ** (1/3) + 1`` lags, times the factor of
    Harvey, Leybourne and Newbold for forecasts of as many steps, against Student's t with ``t - 1`` degrees of freedom.

    Parameters
    ----------
    difference : array, shape (t,)
        Loss of one less loss of the other, per batch; 2 batches at least.

    References
    ----------
    Diebold and Mariano (1995), Comparing predictive accuracy. Newey and West (1987), A simple, positive semi-definite,
    heteroskedasticity and autocorrelation consistent covariance matrix. Harvey, Leybourne and Newbold (1997), Testing
    the equality of prediction mean squared errors, equation 9.

    Examples
    --------
    >>> found = diebold_mariano([0.5, -0.1, 0.4, 0.3, 0.1, 0.6, -0.2, 0.4])
    >>> round(found.mean, 3), round(found.statistic, 3), found.freedom, round(found.p, 3)
    (0.25, 3.162, 7, 0.016)
    """
    d = np.asarray(difference, dtype=np.float64)
    t = len(d)
    if t < 2:
        raise ConfigError("difference", t, "give the differences of two batches at least")
    mean = float(d.mean())
    about = d - mean
    lags = min(int(round(t ** (1 / 3), 9)) + 1, t - 1)
    variance = float(about @ about) / t
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(about[lag:] @ about[:-lag]) / t
    scale = float(np.abs(d).max(initial=0.0))
    if variance <= (_SAME * scale) ** 2:  # the same difference in every batch: certain, or none
        return Paired(
            mean=mean, statistic=0.0 if mean == 0 else math.copysign(math.inf, mean), freedom=t - 1, p=float(mean == 0)
        )
    from scipy.special import stdtr

    steps = lags + 1
    factor = max(t + 1 - 2 * steps + steps * (steps - 1) / t, 0.0) / t
    statistic = mean / math.sqrt(variance / t) * math.sqrt(factor)
    return Paired(mean=mean, statistic=statistic, freedom=t - 1, p=float(2 * stdtr(t - 1, -abs(statistic))))


def shares_of_best(replicates: Floats) -> Floats:
    """In which share of replicates each column is the least, shape (k,); equal ones share. They sum to 1.

    Examples
    --------
    >>> shares_of_best(np.array([[1.0, 2.0, 1.0], [3.0, 1.0, 2.0]]))
    array([0.25, 0.5 , 0.25])
    """
    least = replicates == replicates.min(axis=1, keepdims=True)
    return np.asarray((least / least.sum(axis=1, keepdims=True)).mean(axis=0))


def _moves(values: Floats) -> NDArray[np.bool_]:
    """Which columns are not constant."""
    scale = np.abs(values).max(axis=0, initial=0.0)
    return np.asarray(np.ptp(values, axis=0) > _SAME * scale) if len(values) else np.zeros(values.shape[1], dtype=bool)


def _equal(losses: Floats) -> list[list[int]]:
    """Columns in groups of equal ones, in order."""
    groups: list[list[int]] = []
    scale = float(np.abs(losses).max(initial=0.0))
    for j in range(losses.shape[1]):
        for group in groups:
            if np.abs(losses[:, j] - losses[:, group[0]]).max(initial=0.0) <= _SAME * scale:
                group.append(j)
                break
        else:
            groups.append([j])
    return groups


def _by_a_constant(difference: Floats, losses: Floats) -> bool:
    scale = float(np.abs(losses).max(initial=0.0))
    moves = float(np.ptp(difference)) > _SAME * scale if len(difference) else False
    return not moves and float(difference.mean()) > _SAME * scale
