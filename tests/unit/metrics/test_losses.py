"""The losses that triggers watch."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.core.records import ABSTAINED, UNSEEN, Prediction
from perennial.metrics import Scored, pointwise, resolve
from perennial.metrics.losses import bounded


def test_log_loss_with_the_models_own_classes() -> None:
    """The truth is found in the model's own class order, and a class it lacks had probability 0."""
    prediction = Prediction(
        codes=np.array([0, 1, 0], np.int32),
        proba=np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]]),
        classes=("b", "a"),
    )
    losses, name = pointwise(prediction, np.array([1, 1, 2], np.int32), ("a", "b", "c"))
    assert name == "log_loss"
    assert losses == pytest.approx([-np.log(0.75), -np.log(0.25), -np.log(np.finfo(float).eps)])


def test_mean_is_the_metric() -> None:
    """The mean of the losses is what the metric of that name says."""
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 50)
    codes, predicted = rng.integers(0, 3, 50).astype(np.int32), proba.argmax(1).astype(np.int32)
    losses, name = pointwise(Prediction(codes=predicted, proba=proba, classes=(0, 1, 2)), codes, (0, 1, 2))
    (metric,) = resolve([name], "classification")
    scored = Scored(codes=codes, predicted=predicted, proba=proba, classes=(0, 1, 2))
    assert losses.mean() == pytest.approx(metric.compute(scored), rel=1e-12)


def test_zero_one() -> None:
    """Without probabilities a wrong class costs 1, also one that no label has named; abstaining costs nothing."""
    prediction = Prediction(codes=np.array([0, 1, UNSEEN, ABSTAINED, 0], np.int32), classes=("b", "a"))
    losses, name = pointwise(prediction, np.array([1, 1, 0, 0, -1], np.int32), ("a", "b", "c"))
    assert name == "zero_one"
    assert losses.tolist()[:3] == [0.0, 1.0, 1.0]
    assert np.isnan(losses[3:]).all()


def test_unknown_truth_is_never_an_unseen_prediction() -> None:
    """A class the model lacks is wrong even if its own prediction is of no named class."""
    prediction = Prediction(codes=np.array([UNSEEN], np.int32), classes=("b",))
    losses, _ = pointwise(prediction, np.array([0], np.int32), ("a", "b"))
    assert losses.tolist() == [1.0]


def test_types_keep_classes_apart() -> None:
    """The number 1, the word "1" and True are three classes."""
    prediction = Prediction(codes=np.array([0, 0], np.int32), classes=(True,))
    losses, _ = pointwise(prediction, np.array([0, 1], np.int32), (1, True))
    assert losses.tolist() == [1.0, 0.0]


def test_classes_left_out_are_the_tables() -> None:
    """A prediction without classes, or with the first of the table, has the table's codes."""
    for classes in ((), ("a",)):
        prediction = Prediction(codes=np.array([0], np.int32), proba=np.array([[1.0]]), classes=classes)
        assert pointwise(prediction, np.array([0], np.int32), ("a", "b"))[0].tolist() == [0.0]


def test_absolute_error() -> None:
    """For regression it is the absolute error, NaN where either side is missing."""
    losses, name = pointwise(Prediction(values=np.array([1.0, np.nan, 2.0])), np.array([3.0, 1.0, np.nan]))
    assert name == "absolute_error"
    assert losses[0] == 2.0
    assert np.isnan(losses[1:]).all()


def test_no_rows() -> None:
    """An empty turn has no losses."""
    prediction = Prediction(codes=np.zeros(0, np.int32), proba=np.zeros((0, 2)), classes=("x", "y"))
    assert pointwise(prediction, np.zeros(0, np.int32), ("y",))[0].shape == (0,)


def test_bounded_loss_is_half_the_brier_score() -> None:
    """For two classes it is the squared error of the probability, also in the model's own class order."""
    prediction = Prediction(
        codes=np.array([0, 1, 0, ABSTAINED], np.int32),
        proba=np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [np.nan, np.nan]]),
        classes=("b", "a"),
    )
    losses, name = bounded(prediction, np.array([1, 0, 2, 0], np.int32), ("a", "b", "c"))
    assert name == "brier"
    np.testing.assert_allclose(losses, [0.0625, 0.0625, 0.75, np.nan])
    sure = Prediction(codes=np.array([0], np.int32), proba=np.array([[1.0, 0.0]]), classes=("a", "b"))
    assert bounded(sure, np.array([1], np.int32), ("a", "b"))[0].tolist() == [1.0]
    values = Prediction(values=np.array([1.0, 3.0]))
    assert bounded(values, np.array([2.0, 3.0]))[0].tolist() == [1.0, 0.0]
