"""Every standard metric against scikit-learn, and what it does where it is undefined."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import sklearn.metrics as skm

from perennial import metrics
from perennial.core.errors import ConfigError, DataError
from perennial.core.records import UNSEEN
from perennial.metrics import additive

RNG = np.random.default_rng(7)
CLASSIFICATION = [
    "accuracy",
    "log_loss",
    "brier",
    "roc_auc",
    "average_precision",
    "recall_at_fpr@0.1",
    "f1",
    "kappa",
    "kappa_temporal",
]
REGRESSION = ["mae", "rmse", "r2", "wape", "pinball@0.9"]


def _classified(n: int, k: int, *, weighted: bool, seed: int = 0, ties: bool = True) -> metrics.Scored:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(k), n)
    if ties and k == 2:
        proba[:, 1] = np.round(proba[:, 1], 1)
        proba[:, 0] = 1 - proba[:, 1]
    codes = rng.integers(0, k, n).astype(np.int32)
    codes[:k] = np.arange(k)
    codes = np.where(rng.random(n) < 0.3, proba.argmax(1), codes).astype(np.int32)
    codes[:k] = np.arange(k)
    return metrics.Scored(
        codes=codes,
        predicted=proba.argmax(1).astype(np.int32),
        proba=proba,
        classes=tuple(range(k)),
        weights=rng.uniform(0, 2, n) if weighted else None,
        reference=np.concatenate([[-1], codes[:-1]]).astype(np.int32),
    )


def _regressed(n: int, *, weighted: bool, seed: int = 0) -> metrics.Scored:
    rng = np.random.default_rng(seed)
    values = rng.normal(1000, 2, n)
    return metrics.Scored(
        values=values,
        predicted_values=values + rng.normal(0, 1, n),
        weights=rng.uniform(0, 2, n) if weighted else None,
    )


def _one(name: str, scored: metrics.Scored) -> float | None:
    (metric,) = metrics.resolve([name], scored.task)
    value = metric.compute(scored)
    assert metrics.score([metric], scored) == {name: value}
    return value


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_two_classes(weighted: bool, ties: bool) -> None:
    """With two classes every metric equals scikit-learn's, with and without weights and ties."""
    s = _classified(500, 2, weighted=weighted, ties=ties)
    w, y, p, said = s.weights, s.codes, s.proba[:, 1], s.predicted
    fpr, tpr, _ = skm.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    expected = {
        "accuracy": skm.accuracy_score(y, said, sample_weight=w),
        "log_loss": skm.log_loss(y, s.proba, sample_weight=w),
        "brier": skm.brier_score_loss(y, p, sample_weight=w),
        "roc_auc": skm.roc_auc_score(y, p, sample_weight=w),
        "average_precision": skm.average_precision_score(y, p, sample_weight=w),
        "recall_at_fpr@0.1": tpr[fpr <= 0.1].max(),
        "f1": skm.f1_score(y, said, sample_weight=w),
        "kappa": skm.cohen_kappa_score(y, said, sample_weight=w),
    }
    for name, value in expected.items():
        assert _one(name, s) == pytest.approx(value, rel=1e-11, abs=1e-12), name


@pytest.mark.parametrize("weighted", [False, True])
def test_more_classes(weighted: bool) -> None:
    """With more classes every metric equals scikit-learn's macro or one-versus-rest average."""
    s = _classified(600, 4, weighted=weighted)
    w, y, said = s.weights, s.codes, s.predicted
    recalls = []
    for c in range(4):
        fpr, tpr, _ = skm.roc_curve(y == c, s.proba[:, c], sample_weight=w, drop_intermediate=False)
        recalls.append(tpr[fpr <= 0.1].max())
    hot = np.eye(4)[y]
    expected = {
        "accuracy": skm.accuracy_score(y, said, sample_weight=w),
        "log_loss": skm.log_loss(y, s.proba, sample_weight=w),
        "brier": skm.brier_score_loss(y, s.proba, sample_weight=w, labels=range(4)),
        "roc_auc": skm.roc_auc_score(hot, s.proba, sample_weight=w, average="macro"),
        "average_precision": skm.average_precision_score(hot, s.proba, sample_weight=w),
        "recall_at_fpr@0.1": np.mean(recalls),
        "f1": skm.f1_score(y, said, sample_weight=w, average="macro"),
        "kappa": skm.cohen_kappa_score(y, said, sample_weight=w),
    }
    for name, value in expected.items():
        assert _one(name, s) == pytest.approx(value, rel=1e-11), name


@pytest.mark.parametrize("weighted", [False, True])
def test_regression(weighted: bool) -> None:
    """Regression metrics equal scikit-learn's, also far from zero."""
    s = _regressed(500, weighted=weighted)
    w, y, p = s.weights, s.values, s.predicted_values
    mass = np.ones(500) if w is None else w
    expected = {
        "mae": skm.mean_absolute_error(y, p, sample_weight=w),
        "rmse": skm.root_mean_squared_error(y, p, sample_weight=w),
        "r2": skm.r2_score(y, p, sample_weight=w),
        "wape": (mass * abs(y - p)).sum() / (mass * abs(y)).sum(),
        "pinball@0.9": skm.mean_pinball_loss(y, p, alpha=0.9, sample_weight=w),
        "pinball": skm.mean_pinball_loss(y, p, sample_weight=w),
    }
    for name, value in expected.items():
        assert _one(name, s) == pytest.approx(value, rel=1e-11), name


def test_r2_far_from_zero() -> None:
    """R2 keeps its digits when labels lie 1e8 away from zero and batches are joined."""
    rng = np.random.default_rng(1)
    y = 1e8 + rng.normal(0, 1, 1000)
    s = metrics.Scored(values=y, predicted_values=y + rng.normal(0, 0.5, 1000))
    expected = skm.r2_score(y - 1e8, s.predicted_values - 1e8)
    assert _one("r2", s) == pytest.approx(expected, rel=1e-6)
    (metric,) = metrics.resolve(["r2"], "regression")
    got = metrics.series([metric], s, np.arange(0, 1001, 10)).cumulative["r2"][-1]
    assert got == pytest.approx(expected, rel=1e-6)


def test_unseen_is_wrong() -> None:
    """A prediction of a class that no label had named is wrong, and no class's prediction."""
    s = metrics.Scored(
        codes=np.array([0, 1, 1], np.int32), predicted=np.array([0, UNSEEN, 1], np.int32), classes=("a", "b")
    )
    assert _one("accuracy", s) == pytest.approx(2 / 3)
    assert _one("f1", s) == pytest.approx(2 / 3)
    # chance agreement: a is true 1/3 and predicted 1/3, b 2/3 and 1/3
    assert _one("kappa", s) == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3))


def test_class_without_a_column() -> None:
    """A class beyond the probabilities' last column had probability 0: floored, wrong and ranked below."""
    s = metrics.Scored(
        codes=np.array([0, 1, 2], np.int32),
        predicted=np.array([0, 1, 0], np.int32),
        proba=np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]]),
        classes=("a", "b", "c"),
    )
    floor = -np.log(additive.SMALLEST_PROBABILITY)
    assert _one("log_loss", s) == pytest.approx((2 * -np.log(0.75) + floor) / 3)
    assert _one("brier", s) == pytest.approx((2 * 2 * 0.0625 + 1 + 0.5) / 3)
    assert _one("roc_auc", s) == pytest.approx((1 + 1 + 0.5) / 3)


def test_log_loss_floor_is_scikit_learns() -> None:
    """A certain and wrong prediction costs what scikit-learn says."""
    s = metrics.Scored(
        codes=np.array([0, 1], np.int32),
        predicted=np.array([1, 1], np.int32),
        proba=np.array([[0.0, 1.0], [0.0, 1.0]]),
        classes=(0, 1),
    )
    assert _one("log_loss", s) == pytest.approx(skm.log_loss([0, 1], s.proba), rel=1e-12)


def test_positive_class() -> None:
    """Two-class metrics are about the named class, by default the greater one, wherever the table has it."""
    base = _classified(300, 2, weighted=False, ties=False)
    y, p = base.codes, base.proba[:, 0]

    def with_(**kw: object) -> metrics.Scored:
        return metrics.Scored(codes=y, predicted=base.predicted, proba=base.proba, **kw)

    flipped = with_(classes=("yes", "no"))
    assert _one("average_precision", flipped) == pytest.approx(skm.average_precision_score(y == 0, p))
    assert _one("f1", flipped) == pytest.approx(skm.f1_score(y == 0, base.predicted == 0))
    named = with_(classes=("a", "b"), positive=0)
    assert _one("average_precision", named) == _one("average_precision", flipped)
    multi = _classified(300, 3, weighted=False)
    against = metrics.Scored(
        codes=multi.codes, predicted=multi.predicted, proba=multi.proba, classes=multi.classes, positive=2
    )
    assert _one("roc_auc", against) == pytest.approx(skm.roc_auc_score(multi.codes == 2, multi.proba[:, 2]))
    assert _one("f1", against) == pytest.approx(skm.f1_score(multi.codes == 2, multi.predicted == 2))


@pytest.mark.parametrize(
    ("classes", "index"), [((False, True), 1), ((1, 0), 0), (("a",), None), ((1, "a"), None), ((), None)]
)
def test_default_positive(classes: tuple[object, ...], index: int | None) -> None:
    """The greater of two classes that can be ordered is the positive one."""
    assert metrics.default_positive(classes) == index


def test_kappa_temporal() -> None:
    """Temporal kappa compares with the last label on the rows that have one."""
    s = metrics.Scored(
        codes=np.array([0, 0, 1, 1, 0], np.int32),
        predicted=np.array([0, 0, 1, 1, 1], np.int32),  # right without a reference: not counted
        reference=np.array([-1, 0, 0, 1, 1], np.int32),
        classes=(0, 1),
    )
    assert _one("kappa_temporal", s) == pytest.approx((0.75 - 0.5) / (1 - 0.5))


def test_kappa_temporal_when_no_change_is_perfect() -> None:
    """Temporal kappa is undefined where repeating the last label is never wrong, and without that line."""
    zeros = np.zeros(4, np.int32)
    assert _one("kappa_temporal", metrics.Scored(codes=zeros, predicted=zeros, reference=zeros, classes=(0,))) is None
    assert _one("kappa_temporal", metrics.Scored(codes=zeros, predicted=zeros, classes=(0,))) is None


def test_one_class_only() -> None:
    """With one class present ranks and kappa are undefined; what counts errors is not."""
    for label in (0, 1):
        s = metrics.Scored(
            codes=np.full(3, label, np.int32),
            predicted=np.full(3, label, np.int32),
            proba=np.eye(2)[[label] * 3],
            classes=(0, 1),
        )
        assert _one("roc_auc", s) is None
        assert _one("recall_at_fpr", s) is None
        assert _one("kappa", s) is None
        assert _one("accuracy", s) == 1
        assert _one("log_loss", s) == 0
        assert _one("f1", s) == (1 if label else None)
        assert _one("average_precision", s) == (1 if label else None)


def test_constant_regression_labels() -> None:
    """R2 of constant labels and WAPE of zeros are undefined, whatever the rounding."""
    y = np.full(7, 0.1)
    s = metrics.Scored(values=y, predicted_values=y + 0.5, weights=np.linspace(0.1, 0.7, 7))
    assert _one("r2", s) is None
    curve = metrics.series(metrics.resolve(["r2"], "regression"), s, np.array([0, 3, 5, 7]))
    assert curve.batches["r2"] == curve.cumulative["r2"] == [None] * 3
    zero = metrics.Scored(values=np.zeros(3), predicted_values=np.ones(3))
    assert _one("wape", zero) is None
    assert _one("mae", zero) == 1


@pytest.mark.parametrize("empty", [True, False])
def test_no_rows_or_no_weight(empty: bool) -> None:
    """Without rows, or with all weights 0, every metric is None, without a warning."""
    n = 0 if empty else 3
    weights = None if empty else np.zeros(3)
    proba = np.full((n, 2), 0.5)
    codes = np.arange(n, dtype=np.int32) % 2
    c = metrics.Scored(codes=codes, predicted=codes, proba=proba, classes=(0, 1), weights=weights, reference=codes)
    r = metrics.Scored(values=np.zeros(n), predicted_values=np.zeros(n), weights=weights)
    for scored, names in ((c, CLASSIFICATION), (r, REGRESSION)):
        found = metrics.resolve(names, scored.task)
        assert metrics.score(found, scored) == dict.fromkeys(names)
        curves = metrics.series(found, scored, np.array([0, n]))
        assert all(curves.batches[name] == curves.cumulative[name] == [None] for name in names)


def test_without_probabilities() -> None:
    """A model without probabilities has None for what needs them, and the rest."""
    s = metrics.Scored(codes=np.array([0, 1], np.int32), predicted=np.array([0, 1], np.int32), classes=(0, 1))
    for metric in metrics.resolve(CLASSIFICATION[:-1], "classification"):
        assert (metric.compute(s) is None) == metric.needs_proba
        curves = metrics.series([metric], s, np.array([0, 2]))
        assert (curves.batches[metric.name] == [None]) == metric.needs_proba


def test_nan_probabilities_never_reach_json() -> None:
    """A row with NaN makes a score None, never NaN."""
    proba = np.array([[0.5, 0.5], [np.nan, np.nan], [0.2, 0.8], [0.7, 0.3]])
    codes = np.array([0, 1, 1, 0], np.int32)
    s = metrics.Scored(codes=codes, predicted=codes, proba=proba, classes=(0, 1))
    for name in ("log_loss", "brier", "roc_auc", "average_precision", "recall_at_fpr@0.5"):
        assert _one(name, s) is None, name
        curves = metrics.series(metrics.resolve([name], "classification"), s, np.array([0, 2, 4]))
        assert curves.batches[name][0] is None
        assert curves.batches[name][1] is not None, name
        assert curves.cumulative[name][1] is None
        json.dumps([curves.batches, curves.cumulative], allow_nan=False)


def test_scored_is_checked() -> None:
    """Arrays that do not belong together are refused."""
    with pytest.raises(DataError, match="weights has 3 rows and the labels have 2"):
        metrics.Scored(values=np.zeros(2), predicted_values=np.zeros(2), weights=np.ones(3))
    with pytest.raises(DataError, match="`codes` and `predicted`"):
        metrics.Scored(codes=np.zeros(2, np.int32))


@pytest.mark.parametrize(
    ("spec", "task", "message"),
    [
        (["acuracy"], "classification", "did you mean `accuracy`"),
        (["rmse"], "classification", "is for regression, this is classification: use one of: accuracy"),
        (["accuracy"], "regression", "is for classification"),
        (["accuracy", "accuracy"], "classification", "named twice"),
        ([], "classification", "give a list"),
        ("accuracy", "classification", "give a list"),
        (["accuracy@0.5"], "classification", "takes no value"),
        (["recall_at_fpr@1.5"], "classification", "between 0 and 1"),
        (["recall_at_fpr@x"], "classification", "between 0 and 1"),
        (["pinball@"], "regression", "between 0 and 1"),
        ([3], "regression", "give a name, a function"),
        ([lambda a, b: 0], "regression", "metrics.custom"),
    ],
)
def test_bad_specifications(spec: object, task: str, message: str) -> None:
    """A wrong metric fails at once, and the message says what would be right."""
    with pytest.raises(ConfigError, match=message):
        metrics.resolve(spec, task)


def test_defaults_and_order() -> None:
    """The first metric asked for comes first, and each task has defaults."""
    assert [m.name for m in metrics.resolve(None, "regression")] == ["mae", "rmse", "r2"]
    assert metrics.resolve(None, "classification")[0].name == "log_loss"
    assert [m.name for m in metrics.resolve(["f1", "accuracy"], "classification")] == ["f1", "accuracy"]
    for name in metrics.NAMES:
        assert any(metrics.resolve([name], task) for task in metrics.DEFAULTS if _fits(name, task))


def _fits(name: str, task: str) -> bool:
    try:
        metrics.resolve([name], task)
    except ConfigError:
        return False
    return True


def test_no_warnings_without_filters() -> None:
    """Undefined scores are silent: no warning from numpy even if users show all of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s = _classified(20, 3, weighted=True)
        metrics.series(metrics.resolve(CLASSIFICATION, "classification"), s, np.array([0, 0, 1, 2, 5, 5, 20]))
