"""What strategies lost and cost by batch adds up to what the report says of them, on the rows that all answered."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import strategies, triggers

START = np.datetime64("2026-01-01", "us")


class Shy(Ridge):
    """Does not answer where the first feature is large."""

    def predict(self, X):
        return np.where(np.asarray(X)[:, 0] > 1.0, np.nan, super().predict(X))


def stream(n=1440, *, regression=False):
    """Hourly rows whose concept turns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    z = x[:, 0] * np.cos(np.arange(n) / 200) + x[:, 1] * np.sin(np.arange(n) / 200) + 0.3 * rng.normal(size=n)
    at = START + np.arange(n) * np.timedelta64(1, "h")
    table = pa.table({"at": at, "a": x[:, 0], "b": x[:, 1], "y": z if regression else np.where(z > 0, "up", "down")})
    return pn.Stream(table, time="at", target="y", time_zone="UTC", batch="1d", label_delay="2h")


def weekly(model=None, **settings):
    """Retrained now and then on the last days."""
    given = {"initial": "8d", "trigger": triggers.every("5d"), "window": pn.windows.Sliding("8d")}
    return strategies.Stateless(model or GaussianNB(), **{**given, **settings})


@pytest.fixture(scope="module")
def result():
    """Three strategies and prices."""
    return pn.backtest(
        stream(),
        {
            "weekly": weekly(),
            "late": weekly(initial="12d"),
            "daily": strategies.Stateful(SGDClassifier(loss="log_loss"), initial=100, trigger=triggers.every("1d")),
        },
        metrics=["accuracy", "log_loss"],
        prices={"error": 1.0, "retrain": 3.0, "update": 0.1},
        jobs=1,
    )


def test_losses_add_up_to_the_errors_of_the_report(result):
    """Every strategy's mistakes are those it was billed for, and so are those of the lines."""
    blocks = result._blocks
    assert blocks.strategies == ("weekly", "late", "daily")
    assert blocks.lines == ("frozen", "no_change", "no_change_by_batch", "majority")
    assert blocks.rows.sum() == result.to_dict()["evaluated"]["rows"]
    assert blocks.columns[blocks.reference] == "frozen"
    for j, name in enumerate(blocks.strategies):
        assert blocks.loss[:, j].sum() == pytest.approx(result[name].costs["bill"]["errors"])
    wrong = (1 - result.baselines["no_change"].scores["accuracy"]) * blocks.rows.sum()
    assert blocks.loss[:, 4].sum() == pytest.approx(wrong)


def test_trainings_are_charged_where_they_happened(result):
    """Those of the compared time, without each strategy's first; lines without skill cost nothing."""
    blocks = result._blocks
    begun = START + np.timedelta64(12, "D")
    for j, name in enumerate(blocks.strategies):
        versions = [v for v in result[name].versions[1:] if np.datetime64(v.at, "us") >= begun]
        price = {"fit": 3.0, "update": 0.1}
        assert blocks.trained[:, j].sum() == pytest.approx(sum(price[v.kind] * max(v.steps, 1) for v in versions))
    assert set(blocks.trained[:, 0]) == {0.0, 3.0}
    assert not blocks.trained[:, 3:].any()


def test_the_report_and_the_result_say_the_same(result):
    """One voice: the report's advice, what is recommended, and what the result advises."""
    report, advice = result.to_dict(), result.advice()
    assert report["advice"] == advice.to_dict()
    assert report["recommended"] == dict(result.recommended)
    assert result.recommended == {"strategy": advice.strategy, "by": "money", "reason": advice.reason()}
    assert advice.verdict != "not_enough"
    assert result.advice(level=0.95).level == 0.95


def test_computing_and_kept_data_are_costs_too():
    """They are spread over the batches, and no more than the bill has of them."""
    found = pn.backtest(
        stream(720),
        {"weekly": weekly()},
        metrics=["accuracy"],
        prices={"error": 1.0, "retrain": 3.0, "cpu_hour": 1000.0, "kept_gb_month": 1e6},
        jobs=1,
    )
    blocks, bill = found._blocks, found["weekly"].costs["bill"]
    fits = blocks.trained[:, 0].sum() - 3.0 * (found["weekly"].costs["fits"] - 1)
    assert 0 < fits < bill["cpu"]
    assert blocks.running[:, 0].sum() == pytest.approx(bill["kept"], rel=0.6)
    assert blocks.running[:, 0].min() > 0


def test_without_prices_by_the_first_metric():
    """Lines without probabilities stand apart, with their errors."""
    found = pn.backtest(stream(720), {"weekly": weekly(), "all": weekly(window=None)}, metrics=["log_loss"], jobs=1)
    blocks = found._blocks
    assert blocks.lines == ("frozen", "majority")
    assert set(blocks.apart) == {"no_change", "no_change_by_batch"}
    for j, name in enumerate(blocks.strategies):
        assert blocks.loss[:, j].sum() / blocks.rows.sum() == pytest.approx(found[name].scores["log_loss"])
    assert found.recommended["by"] == "log_loss"
    assert not blocks.priced


def test_rows_that_one_did_not_answer_are_in_no_comparison():
    """All are compared on the rows that all answered, and the advice says so."""
    source = stream(720, regression=True)
    found = pn.backtest(source, {"ridge": weekly(Ridge()), "shy": weekly(Shy())}, metrics=["mae"], jobs=1)
    blocks = found._blocks
    assert found["shy"].abstained > 50
    answered = sum(found["shy"].curve.rows)
    assert blocks.rows.sum() == answered < sum(found["ridge"].curve.rows)
    lost = found["shy"].scores["mae"] * answered
    assert blocks.loss[:, 1].sum() == pytest.approx(lost)
    assert blocks.loss[:, 0].sum() == pytest.approx(lost)  # the same model, on the same rows
    assert blocks.loss[:, 0] == pytest.approx(blocks.loss[:, 1])
    assert f"Compared on the {answered:,} rows that all of them answered." in found.advice().sentences()
