"""The loss that batches are compared by: what it is for each metric, and its sum in each batch."""

from __future__ import annotations

import numpy as np
import pytest

from perennial import metrics
from perennial.metrics import Prices, Scored, bill, loss_of, mistakes, resolve

EDGES = np.array([0, 3, 3, 10])


def answers(n: int = 10) -> Scored:
    """Two classes, with probabilities."""
    random = np.random.default_rng(0)
    proba = random.dirichlet([1, 1], n)
    return Scored(
        codes=random.integers(0, 2, n).astype(np.int32),
        predicted=proba.argmax(axis=1).astype(np.int32),
        proba=proba,
        classes=("no", "yes"),
    )


def values(n: int = 10) -> Scored:
    """Numbers."""
    random = np.random.default_rng(1)
    return Scored(values=random.normal(size=n), predicted_values=random.normal(size=n))


@pytest.mark.parametrize(
    ("name", "task", "loss", "exact"),
    [
        ("accuracy", "classification", "error rate", True),
        ("log_loss", "classification", "log loss", True),
        ("brier", "classification", "Brier score", True),
        ("roc_auc", "classification", "log loss", False),
        ("recall_at_fpr@0.05", "classification", "log loss", False),
        ("f1", "classification", "error rate", False),
        ("kappa_temporal", "classification", "error rate", False),
        ("mae", "regression", "absolute error", True),
        ("rmse", "regression", "squared error", True),
        ("r2", "regression", "squared error", False),
        ("wape", "regression", "absolute error", False),
        ("pinball@0.9", "regression", "pinball loss", True),
    ],
)
def test_the_loss_of_a_metric(name, task, loss, exact):
    """Each standard metric has one, which is exact where its mean over rows ranks as the metric does."""
    [metric] = resolve([name], task)
    found = loss_of(metric, task)
    assert (found.name, found.exact) == (loss, exact)
    scored = answers() if task == "classification" else values()
    totals = found.totals(scored, EDGES)
    assert totals[1] == 0
    whole = found.totals(scored, np.array([0, 10]))
    assert totals.sum() == pytest.approx(whole[0])
    if exact and name != "rmse":
        score = metric.compute(scored)
        assert whole[0] / 10 == pytest.approx(1 - score if metric.greater_is_better else score)
    if name == "rmse":
        assert np.sqrt(whole[0] / 10) == pytest.approx(metric.compute(scored))


def test_a_metric_of_the_users_own():
    """By whether it reads probabilities, and the task; its name does not make it a standard one."""
    plain = metrics.custom("mine", lambda true, said: 0.0)
    assert loss_of(plain, "classification").name == "error rate"
    assert loss_of(plain, "regression").name == "absolute error"
    assert not loss_of(metrics.custom("accuracy", lambda true, said: 0.0), "classification").exact
    reads = metrics.custom("mine", lambda true, proba: 0.0, proba=True)
    assert loss_of(reads, "classification").name == "log loss"


def test_rows_without_probabilities_have_no_log_loss():
    """None, and no error."""
    scored = Scored(codes=np.zeros(3, np.int32), predicted=np.zeros(3, np.int32), classes=("a", "b"))
    assert (
        loss_of(resolve(["log_loss"], "classification")[0], "classification").totals(scored, np.array([0, 3])) is None
    )


@pytest.mark.parametrize(
    "prices",
    [
        Prices(error=2.0, retrain=9),
        Prices(error="amount"),
        Prices(false_positive=1, false_negative="amount"),
        Prices(matrix={("no", "yes"): -1.0, ("yes", "no"): "amount"}),
    ],
)
def test_mistakes_by_batch_are_those_of_the_bill(prices):
    """Their sum is what the whole bill charges for mistakes."""
    amounts = {"amount": np.arange(10.0)}
    scored = answers()
    found = mistakes(prices, scored, EDGES, amounts=amounts)
    assert found.shape == (3,)
    assert found[1] == 0
    assert found.sum() == pytest.approx(bill(prices, scored, amounts=amounts).errors)
