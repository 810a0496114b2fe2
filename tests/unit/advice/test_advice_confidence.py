"""Intervals hold what they say, the confidence set keeps the best, and nothing depends on luck but the seed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perennial.advice import confidence
from perennial.core.errors import ConfigError


def series(rho: float, n: int, t: int, seed: int) -> np.ndarray:
    """``n`` autoregressive series of variance 1 and mean 0, shape (n, t)."""
    noise = np.random.default_rng(seed).standard_normal((n, t + 100))
    out = np.zeros_like(noise)
    for i in range(1, t + 100):
        out[:, i] = rho * out[:, i - 1] + noise[:, i]
    return out[:, 100:] * math.sqrt(1 - rho**2)


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 90 % interval of the sum of a series."""
    column = values[:, None]
    length = confidence.block_length(column)
    counts = confidence.drawn(len(values), length, 300, seed)
    totals, replicates = column.sum(axis=0), counts @ column
    wider = confidence.widening(column, totals, replicates, length, 0.9)
    low, high = confidence.interval(totals, replicates, wider, 0.9)
    return float(low[0]), float(high[0])


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_intervals_cover_what_they_say(rho):
    """Of 90 % intervals about 90 % hold the truth, however long a difference lasts; of naive ones far fewer do."""
    made = series(rho, 150, 100, seed=4)
    held = np.mean([low <= 0 <= high for low, high in map(interval, made)])
    assert held >= 0.83  # three standard errors of 150 series below 0.9 are 0.827
    naive = 1.645 * made.std(axis=1) * math.sqrt(100)
    alone = np.mean(np.abs(made.sum(axis=1)) <= naive)
    assert rho < 0.5 or alone < held - 0.15


def test_runs_keep_neighbours_together():
    """Batches are drawn in runs of the length asked for, as many in all as there are."""
    counts = confidence.drawn(50, 5.0, 200, seed=0)
    assert counts.shape == (200, 50)
    assert (counts.sum(axis=1) == 50).all()
    together = np.corrcoef(counts[:, 20], counts[:, 21])[0, 1]
    apart = np.corrcoef(counts[:, 20], counts[:, 45])[0, 1]
    assert together > 0.6 > 0.3 > apart
    assert (confidence.drawn(50, 5.0, 200, seed=0) == counts).all()
    assert not (confidence.drawn(50, 5.0, 200, seed=1) == counts).all()


def test_the_length_of_a_run_comes_from_the_data():
    """At least the cube root; longer where differences last longer; a constant column has no say."""
    short = confidence.block_length(series(0.0, 1, 216, 0).T)
    long = confidence.block_length(series(0.8, 1, 216, 0).T)
    assert short == pytest.approx(6.0)
    assert long > 9
    with_constant = np.hstack([series(0.8, 1, 216, 0).T, np.ones((216, 1))])
    assert confidence.block_length(with_constant) == long
    assert confidence.block_length(np.ones((216, 2))) == pytest.approx(6.0)
    assert confidence.block_length(np.zeros((1, 1))) == 1.0


def test_the_confidence_set_keeps_the_best():
    """In nine of ten made-up histories of what lasts, and drops one that is plainly worse in all of them."""
    kept = unwidened = dropped = 0
    for seed in range(40):
        common = series(0.5, 1, 40, seed)[0][:, None]
        losses = common + series(0.6, 5, 40, 1000 + seed).T + [0.0, 0.0, 0.0, 0.0, 3.0]
        apart = losses[:, :4] - losses[:, :4].mean(axis=1, keepdims=True)
        length = confidence.block_length(apart)
        counts = confidence.drawn(40, length, 300, seed)
        wider = np.median(confidence.widening(apart, apart.sum(axis=0), counts @ apart, length, 0.9))
        found = confidence.confidence_set(losses, length, 0.9, seed, replicates=300, wider=wider) > 0.1
        kept += found[0]
        dropped += not found[4]
        unwidened += (confidence.confidence_set(losses, length, 0.9, seed, replicates=300) > 0.1)[0]
    assert kept >= 35
    assert unwidened < kept
    assert dropped >= 38


def test_the_confidence_set_of_odd_columns():
    """Equal columns share a p-value, one that is a constant worse has none, and scale does not matter."""
    noise = np.random.default_rng(0).normal(size=(40, 1))
    losses = np.hstack([noise, noise, noise + 1, noise + np.random.default_rng(1).normal(size=(40, 1)) / 10])
    found = confidence.confidence_set(losses, 4.0, 0.9, seed=0)
    assert found[0] == found[1] > 0.1
    assert found[2] == 0
    assert found[3] > 0.1
    for scale in (1e-9, 1e100):
        assert confidence.confidence_set(losses * scale, 4.0, 0.9, seed=0) == pytest.approx(found)
    assert confidence.confidence_set(np.zeros((30, 3)), 4.0, 0.9, seed=0).tolist() == [1, 1, 1]
    assert confidence.confidence_set(noise, 4.0, 0.9, seed=0).tolist() == [1]


def test_diebold_mariano_by_hand():
    """The statistic is what the papers' formulae give, written out."""
    d = np.array([0.5, -0.1, 0.4, 0.3, 0.1, 0.6, -0.2, 0.4])
    gamma = [0.0725, -0.0521875, 0.016875, 0.0090625]  # autocovariances, over t = 8; 8 ** (1 / 3) + 1 = 3 lags
    variance = gamma[0] + 2 * (3 / 4 * gamma[1] + 2 / 4 * gamma[2] + 1 / 4 * gamma[3])
    corrected = 0.25 / math.sqrt(variance / 8) * math.sqrt((8 + 1 - 2 * 4 + 4 * 3 / 8) / 8)
    found = confidence.diebold_mariano(d)
    assert found.mean == pytest.approx(0.25)
    assert found.statistic == pytest.approx(corrected)
    assert found.freedom == 7
    assert confidence.diebold_mariano(-d).statistic == pytest.approx(-corrected)
    assert confidence.diebold_mariano(-d).p == found.p


def test_rows_taken_for_independent_overstate():
    """What rows of a batch share is counted once by batches, and as often as there are rows by a z of rows."""
    random = np.random.default_rng(2)
    shared = series(0.5, 1, 60, 2)[0]
    rows = 0.1 + shared[:, None] + random.normal(size=(60, 50))
    z = rows.mean() / (rows.std() / math.sqrt(rows.size))
    found = confidence.diebold_mariano(rows.sum(axis=1))
    assert abs(z) > 3 * abs(found.statistic)


def test_diebold_mariano_of_constants():
    """No difference is no evidence; the same difference in every batch is certain; one batch is refused."""
    assert confidence.diebold_mariano(np.zeros(10)).p == 1
    certain = confidence.diebold_mariano(np.full(10, -0.3))
    assert (certain.statistic, certain.p) == (-math.inf, 0)
    assert 0 <= confidence.diebold_mariano([1.0, 2.0]).p <= 1
    with pytest.raises(ConfigError, match="two batches"):
        confidence.diebold_mariano([1.0])
