"""Series of scores equal the scores of the rows they stand for, whatever the rows and batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial import metrics
from perennial.core.records import UNSEEN

CLASSIFICATION = metrics.resolve(
    [
        "accuracy",
        "log_loss",
        "brier",
        "f1",
        "kappa",
        "kappa_temporal",
        "roc_auc",
        "average_precision",
        "recall_at_fpr@0.3",
    ],
    "classification",
)
REGRESSION = metrics.resolve(["mae", "rmse", "r2", "wape", "pinball@0.2"], "regression")
RANKS = {"roc_auc", "average_precision", "recall_at_fpr@0.3"}


@st.composite
def _edges(draw: st.DrawFn, n: int) -> np.ndarray:
    inner = draw(st.lists(st.integers(0, n), max_size=6))
    return np.array([0, *sorted(inner), n])


@st.composite
def _classified(draw: st.DrawFn) -> tuple[metrics.Scored, np.ndarray]:
    n, k = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    proba = rng.integers(1, 4, (n, k)).astype(float)
    proba /= proba.sum(axis=1, keepdims=True)
    predicted = np.where(rng.random(n) < 0.1, UNSEEN, proba.argmax(1)).astype(np.int32)
    scored = metrics.Scored(
        codes=rng.integers(0, k, n).astype(np.int32),
        predicted=predicted,
        proba=proba[:, : draw(st.integers(1, k))],
        classes=tuple(range(k)),
        positive=draw(st.sampled_from([None, *range(k)])),
        weights=draw(st.sampled_from([None, rng.integers(0, 3, n).astype(float), rng.random(n)])),
        reference=rng.integers(-1, k, n).astype(np.int32),
    )
    return scored, draw(_edges(n))


@st.composite
def _regressed(draw: st.DrawFn) -> tuple[metrics.Scored, np.ndarray]:
    n = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    values = draw(st.sampled_from([0.0, 5.5, -1e4])) + rng.integers(-1, 2, n) * 0.1
    scored = metrics.Scored(
        values=values,
        predicted_values=values + rng.integers(-1, 2, n),
        weights=draw(st.sampled_from([None, rng.random(n)])),
    )
    return scored, draw(_edges(n))


def _check(scored: metrics.Scored, bounds: np.ndarray, found: tuple[metrics.Metric, ...]) -> None:
    out = metrics.series(found, scored, bounds)
    for i, (low, high) in enumerate(pairwise(bounds)):
        alone = metrics.score(found, scored.slice(low, high))
        so_far = metrics.score(found, scored.slice(0, high))
        for metric in found:
            if metric.name in RANKS and high - low < 2:
                assert out.batches[metric.name][i] is None
            else:
                _near(out.batches[metric.name][i], alone[metric.name], metric.name)
            _near(out.cumulative[metric.name][i], so_far[metric.name], metric.name)


def _near(got: float | None, expected: float | None, name: str) -> None:
    assert (got is None) == (expected is None), (name, got, expected)
    if got is not None and expected is not None:
        assert abs(got - expected) <= 1e-8 * max(1.0, abs(expected)), (name, got, expected)


@settings(max_examples=150, deadline=None)
@given(_classified())
def test_series_of_classes(case: tuple[metrics.Scored, np.ndarray]) -> None:
    """Each entry of a series is the score of exactly its rows."""
    _check(*case, CLASSIFICATION)


@settings(max_examples=150, deadline=None)
@given(_regressed())
def test_series_of_values(case: tuple[metrics.Scored, np.ndarray]) -> None:
    """Each entry of a series is the score of exactly its rows."""
    _check(*case, REGRESSION)


@settings(max_examples=60, deadline=None)
@given(_classified(), st.integers(0, 10**6))
def test_order_of_rows_does_not_matter(case: tuple[metrics.Scored, np.ndarray], seed: int) -> None:
    """The score of the whole does not depend on the order of rows."""
    scored, _ = case
    order = np.random.default_rng(seed).permutation(len(scored))
    mixed = metrics.Scored(
        codes=scored.codes[order],
        predicted=scored.predicted[order],
        proba=scored.proba[order],
        classes=scored.classes,
        positive=scored.positive,
        weights=None if scored.weights is None else scored.weights[order],
        reference=scored.reference[order],
    )
    before, after = metrics.score(CLASSIFICATION, scored), metrics.score(CLASSIFICATION, mixed)
    for name, value in before.items():
        _near(after[name], value, name)


@settings(max_examples=60, deadline=None)
@given(_classified())
def test_whole_weights_are_repetitions(case: tuple[metrics.Scored, np.ndarray]) -> None:
    """A weight of 2 is the same row twice, a weight of 0 no row."""
    scored, _ = case
    times = np.random.default_rng(len(scored)).integers(0, 3, len(scored))
    rows = np.repeat(np.arange(len(scored)), times)

    def of(index: np.ndarray, weights: np.ndarray | None) -> metrics.Scored:
        return metrics.Scored(
            codes=scored.codes[index],
            predicted=scored.predicted[index],
            proba=scored.proba[index],
            classes=scored.classes,
            positive=0,
            weights=weights,
            reference=scored.reference[index],
        )

    weighted = metrics.score(CLASSIFICATION, of(np.arange(len(scored)), times.astype(float)))
    repeated = metrics.score(CLASSIFICATION, of(rows, None))
    for name, value in repeated.items():
        _near(weighted[name], value, name)
