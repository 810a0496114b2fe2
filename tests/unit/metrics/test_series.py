"""Scores per batch and cumulative scores."""

from __future__ import annotations

import time

import numpy as np
import pytest
import sklearn.metrics as skm

from perennial import metrics
from perennial.core.errors import ConfigError
from perennial.core.records import UNSEEN


def _scored(n: int, k: int = 2, seed: int = 0) -> metrics.Scored:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(k), n)
    codes = rng.integers(0, k, n).astype(np.int32)
    return metrics.Scored(
        codes=codes,
        predicted=proba.argmax(1).astype(np.int32),
        proba=proba,
        classes=tuple(range(k)),
        reference=np.concatenate([[-1], codes[:-1]]).astype(np.int32),
    )


NAMES = ["accuracy", "log_loss", "brier", "f1", "kappa", "kappa_temporal"]
RANKS = ["roc_auc", "average_precision", "recall_at_fpr@0.2"]


def test_rows_before_the_first_edge_count_nowhere() -> None:
    """Only the rows between the first and last edge are scored."""
    s = _scored(40)
    found = metrics.resolve(NAMES + RANKS, "classification")
    part = metrics.series(found, s, np.array([10, 20, 30]))
    assert part == metrics.series(found, s.slice(10, 30), np.array([0, 10, 20]))
    assert part.rows == [10, 10]


def test_no_batches() -> None:
    """No batches give empty lists."""
    out = metrics.series(metrics.resolve(NAMES, "classification"), _scored(3), np.array([0]))
    assert out.batches["f1"] == out.cumulative["f1"] == []


def test_cumulative_ranks_at_few_batches() -> None:
    """Metrics of ranks have at most 50 cumulative values, evenly spaced, the last over everything."""
    s = _scored(600)
    found = metrics.resolve(RANKS, "classification")
    out = metrics.series(found, s, np.arange(0, 601, 3))
    whole = metrics.score(found, s)
    for name in RANKS:
        curve = out.cumulative[name]
        at = [i for i, value in enumerate(curve) if value is not None]
        assert len(at) == metrics.CURVE_POINTS
        assert set(np.diff(at)) == {4}
        assert curve[-1] == pytest.approx(whole[name], rel=1e-12)
        rows = 3 * (at[10] + 1)
        assert curve[at[10]] == pytest.approx(metrics.score(found, s.slice(0, rows))[name], rel=1e-12)


def test_batch_of_one_row_has_no_rank() -> None:
    """A batch needs two rows for a metric of ranks, one for the others."""
    s = metrics.Scored(
        codes=np.array([1, 0, 1], np.int32),
        predicted=np.array([1, 0, 1], np.int32),
        proba=np.array([[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]),
        classes=(0, 1),
    )
    found = metrics.resolve(["average_precision", "accuracy"], "classification")
    out = metrics.series(found, s, np.array([0, 1, 3]))
    assert out.batches["average_precision"] == [None, 1.0]
    assert out.batches["accuracy"] == [1.0, 1.0]


@pytest.mark.parametrize("k", [2, 5])
def test_batches_larger_than_a_chunk(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How rows are cut into chunks changes nothing but the last digits."""
    s = _scored(500, k)
    found = metrics.resolve(NAMES + RANKS, "classification")
    edges = np.array([0, 1, 2, 400, 400, 420, 500])
    before, whole = metrics.series(found, s, edges), metrics.score(found, s)
    monkeypatch.setattr("perennial.metrics.additive._CELLS", 64)
    after = metrics.series(found, s, edges)
    for name in NAMES + RANKS:
        for old, new in ((before.batches, after.batches), (before.cumulative, after.cumulative)):
            assert new[name] == [v if v is None else pytest.approx(v, rel=1e-12, abs=1e-14) for v in old[name]], name
    assert metrics.score(found, s) == pytest.approx(whole, rel=1e-12)


def test_r2_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2 of a batch read in chunks is that of the whole batch."""
    rng = np.random.default_rng(0)
    y = rng.normal(50, 1, 300)
    s = metrics.Scored(values=y, predicted_values=y + rng.normal(0, 1, 300), weights=rng.uniform(0, 1, 300))
    monkeypatch.setattr("perennial.metrics.additive._CELLS", 48)
    out = metrics.series(metrics.resolve(["r2"], "regression"), s, np.array([0, 7, 300]))
    expected = skm.r2_score(y[7:], s.predicted_values[7:], sample_weight=s.weights[7:])
    assert out.batches["r2"][1] == pytest.approx(expected, rel=1e-11)
    assert out.cumulative["r2"][1] == pytest.approx(skm.r2_score(y, s.predicted_values, sample_weight=s.weights))


def test_custom_function_sees_labels() -> None:
    """A user's function gets labels as the user wrote them; an unnamed prediction is None."""
    seen = []

    def look(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        seen.append((y_true.tolist(), y_pred.tolist()))
        return 1.0

    s = metrics.Scored(
        codes=np.array([0, 1], np.int32), predicted=np.array([1, UNSEEN], np.int32), classes=("yes", "no")
    )
    assert metrics.score(metrics.resolve([look], "classification"), s) == {"look": 1.0}
    assert seen == [(["yes", "no"], ["no", None])]


def test_custom_probabilities_are_sorted_by_class() -> None:
    """A function of probabilities gets the positive column of two classes, or all columns in sorted order."""
    s = _scored(200, 3)
    shuffled = metrics.Scored(
        codes=s.codes, predicted=s.predicted, proba=s.proba, classes=("c", "a", "b"), weights=np.arange(200.0)
    )
    mine = metrics.custom("mine", skm.log_loss, greater_is_better=False, proba=True)
    (ours,) = metrics.resolve(["log_loss"], "classification")
    assert mine.compute(shuffled) == pytest.approx(ours.compute(shuffled), rel=1e-12)
    assert not mine.greater_is_better
    two = _scored(200)
    assert metrics.custom("auc", skm.roc_auc_score, proba=True).compute(two) == pytest.approx(
        metrics.score(metrics.resolve(["roc_auc"], "classification"), two)["roc_auc"]
    )


def test_custom_that_fails() -> None:
    """A function that refuses a batch has no score there; one that refuses the whole is named."""

    def picky(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        if len(y_true) < 4:
            raise ValueError("too few")
        return float(len(y_true))

    s = metrics.Scored(values=np.zeros(7), predicted_values=np.zeros(7))
    found = metrics.resolve([picky], "regression")
    out = metrics.series(found, s, np.array([0, 3, 7]))
    assert out.batches["picky"] == [None, 4.0]
    assert out.cumulative["picky"] == [None, 7.0]
    with pytest.raises(ConfigError, match=r"picky.*failed on 3 rows with ValueError: too few"):
        metrics.score(found, s.slice(0, 3))


def test_custom_that_is_wrong_everywhere() -> None:
    """A function that gives no number fails, per batch as well."""
    found = metrics.resolve([metrics.custom("words", lambda y_true, y_pred: [1, 2])], "regression")
    s = metrics.Scored(values=np.zeros(4), predicted_values=np.zeros(4))
    with pytest.raises(ConfigError, match="words"):
        metrics.series(found, s, np.array([0, 4]))


def test_custom_nan_is_none() -> None:
    """A user's NaN becomes None."""
    s = metrics.Scored(values=np.zeros(4), predicted_values=np.zeros(4))
    assert metrics.custom("nan", lambda y_true, y_pred: float("nan")).compute(s) is None


def test_own_metric_object() -> None:
    """Any object with the members of a metric is one."""

    class Rows:
        name, greater_is_better, needs_proba, task = "rows", True, False, None

        def compute(self, scored: metrics.Scored) -> float | None:
            return float(len(scored))

    found = metrics.resolve([Rows()], "regression")
    s = metrics.Scored(values=np.zeros(5), predicted_values=np.zeros(5))
    assert metrics.series(found, s, np.array([0, 2, 5])).cumulative["rows"] == [2.0, 5.0]
    assert metrics.score(found, s) == {"rows": 5.0}


def test_many_batches_of_one_row_are_quick() -> None:
    """45,000 batches of one row take a fraction of a second by all standard metrics."""
    s = _scored(45_000)
    found = metrics.resolve(NAMES + RANKS, "classification")
    began = time.process_time()
    out = metrics.series(found, s, np.arange(45_001))
    assert time.process_time() - began < 5  # about 0.2 s; the slack is for busy machines
    assert len(out.batches["accuracy"]) == 45_000
    assert out.cumulative["accuracy"][-1] == pytest.approx(float(np.mean(s.codes == s.predicted)), rel=1e-12)
