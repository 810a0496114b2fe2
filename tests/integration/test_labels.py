"""Labels by delay, by column, by silence and by log: what is learned is the true base rate, and scored what counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import strategies, triggers, windows

START = np.datetime64("2026-01-01", "us")
MINUTE, HOUR, DAY = (np.timedelta64(1, unit) for unit in ("m", "h", "D"))


def prior(window="20d", every="5d", initial="40d"):
    """A strategy that predicts the share of each class in its window."""
    model = DummyClassifier(strategy="prior")
    return strategies.Stateless(model, initial=initial, trigger=triggers.every(every), window=windows.Sliding(window))


def learned_rates(stream, strategy, name="proba_1"):
    """The base rate that each version learned, in order."""
    told = pn.backtest(stream, {"s": strategy}, metrics=["log_loss"], jobs=1)["s"].predictions
    rates = dict(zip(told["version"].to_pylist(), told[name].to_pylist(), strict=True))
    return np.array(list(rates.values()))


def clicks(n=20_000, rate=0.1):
    """Impressions a minute apart; a click comes within minutes, and no click is never reported."""
    rng = np.random.default_rng(0)
    at = START + np.arange(n) * 5 * MINUTE
    clicked = rng.random(n) < rate
    wait = rng.integers(1, 40, n) * MINUTE
    known = np.where(clicked, at + wait, np.datetime64("NaT"))
    label = pa.array([1 if c else None for c in clicked], pa.int64())
    return pa.table({"at": at, "x": rng.normal(size=n), "known": known, "y": label}), rate


def fraud(days=300, per_day=60, rate=0.05):
    """Payments; a fraud is reported after up to 90 days, and an honest payment never is."""
    rng = np.random.default_rng(1)
    n = days * per_day
    at = START + np.arange(n) * (1440 // per_day) * MINUTE
    bad = rng.random(n) < rate
    known = np.where(bad, at + rng.integers(1, 90 * 24, n) * HOUR, np.datetime64("NaT"))
    label = pa.array([1 if b else None for b in bad], pa.int64())
    return pa.table({"at": at, "x": rng.normal(size=n), "known": known, "y": label}), rate


def test_a_click_stream_learns_the_true_base_rate():
    """Silence of an hour makes a negative, and every version's rate is the true one."""
    table, rate = clicks()
    stream = pn.Stream(
        table, time="at", target="y", time_zone="UTC", known_at="known", within="1h", absent=0, batch="1d"
    )
    rates = learned_rates(stream, prior("10d", "5d", "15d"))
    assert len(rates) > 8
    np.testing.assert_allclose(rates, rate, atol=0.02)


def test_a_fraud_stream_learns_the_true_base_rate():
    """Positives wait as long as silence does: at every cut both classes are as frequent as they are."""
    table, rate = fraud()
    settings = {
        "time": "at", "target": "y", "time_zone": "UTC", "known_at": "known", "within": "90d", "absent": 0,
        "batch": "1d",
    }  # fmt: skip
    honest = learned_rates(pn.Stream(table, **settings), prior("60d", "15d", "160d"))
    assert len(honest) > 7
    np.testing.assert_allclose(honest, rate, atol=0.015)
    hasty = learned_rates(
        pn.Stream(table, **settings, positives_wait=False),
        strategies.Stateless(
            DummyClassifier(), initial="160d", trigger=triggers.every("15d"), window=windows.Sliding("100d")
        ),
    )
    assert (hasty > 4 * rate).all(), "without the wait the newest examples are nearly all fraud"


def test_silence_and_reports_are_scored_alike():
    """All rows whose silence is over by the end are scored, with the true labels."""
    table, _ = fraud()
    stream = pn.Stream(
        table, time="at", target="y", time_zone="UTC", known_at="known", within="90d", absent=0, batch="1d"
    )
    result = pn.backtest(stream, {"s": prior("60d", "15d", "160d")}, metrics=["log_loss"], jobs=1)
    told = result["s"].predictions
    at = told["event_time"].cast(pa.timestamp("us")).to_numpy()
    over = at <= at[-1] - 90 * DAY
    truth = np.array(table["y"].fill_null(0).to_numpy())[told["row"].to_numpy()]
    assert over.sum() > 2000
    assert (np.array(told["label"].to_pylist(), dtype=object)[over] == truth[over]).all()
    assert told["label"].null_count == (~over).sum()
    assert result.to_dict()["evaluated"]["rows"] == over.sum()


def logged(n=960, wait=30):
    """Hourly rows with ids, and a log that says each label later; a tenth of them is corrected after another day."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=n)
    truth = np.where(x > 0, "up", "down")
    at = START + np.arange(n) * HOUR
    wrong = rng.random(n) < 0.1
    first = np.where(wrong, np.where(truth == "up", "down", "up"), truth)
    known = at + wait * HOUR
    log = pa.table(
        {
            "id": np.concatenate([np.arange(n), np.flatnonzero(wrong)]),
            "y": np.concatenate([first, truth[wrong]]),
            "known_at": np.concatenate([known, known[wrong] + DAY]),
        }
    )
    return pa.table({"at": at, "x": x, "id": np.arange(n)}), log, truth, known, wrong


@pytest.mark.parametrize("batch", ["1d", 7])
def test_a_label_log_alone_is_enough(batch):
    """Stateful and stateless strategies learn from it, and baselines are scored on the same rows."""
    from sklearn.linear_model import SGDClassifier

    table, log, truth, _, _ = logged()
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC", id="id", labels=log, batch=batch)
    result = pn.backtest(
        stream,
        {
            "stateful": strategies.Stateful(
                SGDClassifier(loss="log_loss", random_state=0), initial=200, trigger=triggers.every(rows=1)
            ),
            "stateless": prior("10d", "5d", "10d"),
        },
        metrics=["accuracy"],
        jobs=1,
    )
    assert result["stateful"].scores["accuracy"] > 0.75  # one label in ten is wrong when it is learned
    learned = sum(version.trained_rows for version in result["stateful"].versions)
    assert 960 - 30 - 24 <= learned <= 960 - 29
    told = result["stateful"].predictions
    assert told["label"].to_pylist() == truth[told["row"].to_numpy()].tolist()
    report = result.to_dict()
    rows = 960 - report["evaluated"]["first_row"]
    assert 715 <= rows == report["evaluated"]["rows"]
    assert report["data"]["unlabelled_rows"] == 0
    assert result.baselines["majority"].curve.rows == result["stateful"].curve.rows
    assert sum(result.baselines["no_change"].curve.rows) == rows


def test_corrections_after_the_last_batch_are_scored_and_shown():
    """The latest label known by the end is what predictions show and scores use."""
    table, log, truth, known, wrong = logged(480)
    late = (known + DAY > table["at"].to_numpy()[-1]) & wrong
    assert late.sum() > 3
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC", id="id", labels=log, batch="1d")
    result = pn.backtest(stream, {"s": prior("10d", "5d", "10d")}, metrics=["accuracy"], jobs=1)
    told = result["s"].predictions
    labels, said = told["label"].to_pylist(), told["prediction"].to_pylist()
    assert labels == truth[told["row"].to_numpy()].tolist()
    assert result["s"].scores["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(labels, said, strict=True)]))


def test_no_change_knows_a_correction_only_once_it_was_made():
    """The baseline repeats what was said first, and is scored against what is true."""
    table, log, _, _, _ = logged()
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC", id="id", labels=log, batch="1d")
    result = pn.backtest(stream, {"s": prior("10d", "5d", "10d")}, metrics=["accuracy"], jobs=1)
    first = dict(zip(log["id"].to_pylist()[:960], log["y"].to_pylist()[:960], strict=True))
    truth = dict(zip(log["id"].to_pylist(), log["y"].to_pylist(), strict=True))
    rows = range(240, 960)
    expected = np.mean([first[row - 30] == truth[row] for row in rows])
    assert result.baselines["no_change"].scores["accuracy"] == pytest.approx(expected)


def test_a_class_that_only_the_tail_of_a_log_names():
    """It joins the class table at the end, and no prediction gave it a chance."""
    table, log, _, _, _ = logged(480)
    odd = pa.table({"id": [470], "y": ["sideways"], "known_at": [START + 40 * DAY]})
    stream = pn.Stream(
        table, time="at", target="y", time_zone="UTC", id="id", labels=pa.concat_tables([log, odd]), batch="1d"
    )
    told = pn.backtest(stream, {"s": prior("10d", "5d", "10d")}, metrics=["accuracy"], jobs=1)["s"].predictions
    assert told["label"].to_pylist()[470 - 240] == "sideways"
    assert set(told["proba_sideways"].to_pylist()) == {0.0}


def test_unlabelled_rows_cost_nothing_but_a_prediction():
    """Half the rows have no label: they are predicted, counted, and neither learned nor scored."""
    rng = np.random.default_rng(0)
    labels = [None if i % 2 else str(rng.integers(2)) for i in range(600)]
    table = pa.table({"at": START + np.arange(600) * HOUR, "x": rng.normal(size=600), "y": labels})
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC", batch="1d", label_delay="0s")
    result = pn.backtest(stream, {"s": prior("10d", "5d", "10d")}, metrics=["accuracy"], jobs=1)
    assert result["s"].predictions.num_rows == 360
    assert result["s"].predictions["label"].null_count == 180
    assert {version.trained_rows for version in result["s"].versions} == {120}
    assert result.to_dict()["evaluated"]["rows"] == 180
    assert result.to_dict()["data"]["unlabelled_rows"] == 300


def test_one_label_that_comes_very_late_does_not_hold_the_rows_after_it():
    """A stateless window stays bounded when a label takes as long as the whole stream, and that label is scored."""
    rng = np.random.default_rng(0)
    n = 3000
    at = np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    known = at + np.timedelta64(2, "h")
    known[400] = at[-1]
    x = rng.normal(size=n)
    table = pa.table({"at": at, "known": known, "x": x, "y": np.where(x > 0, "up", "down")})
    stream = pn.Stream(table, time="at", target="y", known_at="known", batch=20)
    strategy = strategies.Stateless(
        GaussianNB(), initial=300, trigger=triggers.every(rows=200), window=windows.Sliding(rows=200)
    )
    result = pn.backtest(stream, {"s": strategy}, metrics=["accuracy"], jobs=1)["s"]
    assert result.costs["kept_bytes"] < 500 * 8 * 2
    assert result.predictions["label"].null_count == 0
