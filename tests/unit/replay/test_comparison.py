"""What a backtest gives: the same rows for all, predictions, versions, costs, baselines and a lower bound."""

import gc

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import strategies, triggers, windows
from perennial.core.errors import ConfigError
from perennial.gate import Gate

START = np.datetime64("2026-01-01", "us")
ROWS = 720


def stream(n=ROWS, *, regression=False, **settings):
    """Hourly rows whose concept turns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    z = x[:, 0] * np.cos(np.arange(n) / 150) + x[:, 1] * np.sin(np.arange(n) / 150) + 0.3 * rng.normal(size=n)
    at = START + np.arange(n) * np.timedelta64(1, "h")
    label = z if regression else np.where(z > 0, "up", "down")
    table = pa.table({"at": at, "a": x[:, 0], "b": x[:, 1], "y": label})
    return pn.Stream(table, **{"time": "at", "target": "y", "time_zone": "UTC", "batch": "1d", **settings})


def weekly(every="5d", model=None, **settings):
    """Retrained now and then on everything."""
    model = model or GaussianNB()
    return strategies.Stateless(model, **{"initial": "8d", "trigger": triggers.every(every), **settings})


def backtest(named, made=None, **settings):
    """In this process."""
    return pn.backtest(made or stream(), named, jobs=1, **{"metrics": ["accuracy", "log_loss"], **settings})


@pytest.fixture(scope="module")
def result():
    """Three strategies with different initial periods."""
    return backtest(
        {
            "weekly": weekly(),
            "late": weekly(initial="12d"),
            "daily": strategies.Stateful(SGDClassifier(loss="log_loss"), initial=100, trigger=triggers.every("1d")),
        },
        prices={"error": 1.0, "retrain": 3.0, "update": 0.1},
    )


def test_all_are_scored_on_the_same_rows(result):
    """From the latest first prediction on, although some predicted sooner."""
    report = result.to_dict()
    assert report["evaluated"]["first_row"] == 12 * 24
    assert report["evaluated"]["rows"] == ROWS - 12 * 24
    assert result["weekly"].predictions["row"][0].as_py() == 8 * 24
    for name in result:
        told = result[name].predictions
        here = told["row"].to_numpy() >= 12 * 24
        right = np.array(told["label"].to_pylist())[here] == np.array(told["prediction"].to_pylist())[here]
        assert result[name].scores["accuracy"] == pytest.approx(right.mean())
        assert sum(result[name].curve.rows) == ROWS - 12 * 24
    for baseline in result.baselines.values():
        assert baseline.curve.time == result["late"].curve.time
        assert len(baseline.curve.by_batch["accuracy"]) == len(baseline.curve.time) == 18


def test_the_table_of_predictions(result):
    """A row per prediction, in order."""
    told = result["weekly"].predictions
    first = ["row", "event_time", "label", "prediction"]
    classes = list(dict.fromkeys(stream().source["y"].to_pylist()))  # in the order in which labels became known
    assert told.column_names == [*first, *(f"proba_{label}" for label in classes), "version"]
    assert told["row"].to_pylist() == list(range(192, ROWS))
    assert told["event_time"].cast(pa.timestamp("us")).to_numpy()[0] == START + np.timedelta64(192, "h")
    total = told["proba_up"].to_numpy() + told["proba_down"].to_numpy()
    np.testing.assert_allclose(total, 1)
    assert told["version"].to_pylist()[0] == "1.0"
    assert set(told["version"].to_pylist()) == {v.number for v in result["weekly"].versions}


def test_predictions_outlive_the_result():
    """A table that was asked for stays readable when all else is gone, and the folder goes."""
    made = backtest({"s": weekly()})
    folder = made["s"]._home.path
    strategy = made["s"]
    del made
    gc.collect()
    assert folder.exists()
    told = strategy.predictions
    before = told["prediction"].to_pylist()
    del strategy
    gc.collect()
    assert not folder.exists()
    assert told["prediction"].to_pylist() == before


def test_costs(result):
    """Every key is there, and adds up."""
    costs = result["weekly"].costs
    assert set(costs) == {
        "train_cpu_seconds", "predict_cpu_seconds", "rows_trained", "row_trees", "trainings", "fits", "updates",
        "kept_bytes", "staleness_seconds", "staleness_max_seconds", "money", "bill",
    }  # fmt: skip
    assert costs["fits"] == costs["trainings"] == len(result["weekly"].versions) == 5
    assert costs["rows_trained"] == sum(v.trained_rows for v in result["weekly"].versions)
    errors = round((1 - result["weekly"].scores["accuracy"]) * 432)
    assert costs["money"] == pytest.approx(errors + 3.0 * 5)
    assert result.recommended["by"] == "money"
    assert result.recommended["strategy"] == result.advice().strategy
    assert result.recommended["reason"].startswith("not enough evidence: 18 batches, and 20 are needed")
    assert costs["staleness_max_seconds"] == (5 * 24 - 24 + 1) * 3600
    daily = result["daily"].costs
    assert (daily["fits"], daily["updates"]) == (1, len(result["daily"].versions) - 1)
    assert daily["kept_bytes"] < costs["kept_bytes"]


def test_the_no_skill_lines(result):
    """No-change, majority and the frozen model, each with what it knows."""
    assert list(result.baselines) == ["no_change", "no_change_by_batch", "majority", "frozen"]
    assert "GaussianNB" in result.baselines["frozen"].description
    alone = backtest({"f": strategies.Frozen(GaussianNB(), initial="8d"), "late": weekly(initial="12d")})
    assert "frozen" not in alone.baselines
    assert alone["f"].scores == result.baselines["frozen"].scores


def test_the_mean_is_the_line_of_regression():
    """And frozen."""
    told = backtest(
        {"r": weekly(model=Ridge(), window=windows.Sliding("3d"))}, stream(regression=True), metrics=["mae"]
    )
    assert list(told.baselines) == ["no_change", "no_change_by_batch", "mean", "frozen"]
    assert told["r"].predictions.column_names == ["row", "event_time", "label", "prediction", "version"]
    assert told["r"].scores["mae"] < told.baselines["mean"].scores["mae"]


def test_abstentions_are_counted_and_not_scored():
    """An untrained classifier that says nothing is not wrong."""
    untrained = strategies.Stateful(SGDClassifier(loss="log_loss"), initial=None, trigger=triggers.every("1d"))
    told = backtest({"s": untrained})
    assert told["s"].abstained == 24
    assert told["s"].predictions["prediction"].null_count == 24
    assert told.to_dict()["evaluated"]["rows"] == ROWS - 24
    assert told["s"].scores["log_loss"] is not None
    assert "frozen" not in told.baselines


PRICES = {"error": 1.0, "retrain": 4.0}


def test_no_schedule_is_cheaper_than_the_clairvoyant_one():
    """Every choice among its checkpoints costs at least the bound, and dear retrains make it rarer."""
    named = {"daily": weekly("1d"), "two": weekly("2d"), "week": weekly("7d"),
             "frozen": strategies.Frozen(GaussianNB(), initial="8d")}  # fmt: skip
    told = backtest(named, prices=PRICES, clairvoyant="daily")
    bound = told.clairvoyant
    assert bound["strategy"] == "daily"
    for name in named:
        assert told[name].costs["money"] >= bound["cost"] - 1e-9, name
    assert 1 <= bound["trainings"] <= told["daily"].costs["fits"]
    assert len(bound["retrain_at"]) == bound["trainings"] - 1
    dear = backtest(named, prices={"error": 1.0, "retrain": 1000.0}, clairvoyant="daily").clairvoyant
    assert dear["trainings"] == 1
    assert dear["cost"] == pytest.approx(told["frozen"].costs["bill"]["errors"] + 1000.0)


def test_a_gate_takes_no_checkpoint_from_the_clairvoyant_one():
    """A trial that holds up fits is the gate's doing: the bound is over all checkpoints all the same."""
    named = {"daily": weekly("1d")}
    free = backtest(named, prices=PRICES, clairvoyant="daily").clairvoyant
    gate = Gate(mode="before", margin=0.01)
    assert backtest(named, prices=PRICES, clairvoyant="daily", gate=gate).clairvoyant == free


def test_the_result_is_a_mapping(result):
    """In the order given; a misspelt name is told."""
    assert list(result) == ["weekly", "late", "daily"]
    assert len(result) == 3
    assert "daily" in result
    with pytest.raises(ConfigError, match="did you mean `weekly`"):
        result["wekly"]


def test_progress_is_told():
    """From nothing to everything."""
    seen = []
    backtest({"s": weekly()}, progress=lambda what, done, rows: seen.append((what, done, rows)))
    assert seen[0][0] == "reading"
    assert seen[-1] == ("replaying", 2 * ROWS, 2 * ROWS)
    steps = [done for what, done, _ in seen if what == "replaying"]
    assert steps == sorted(steps)


def test_a_failing_training_later_is_a_note():
    """The champion answers on, and the result says what happened."""

    class Tired(GaussianNB):
        def fit(self, X, y):
            if len(X) > 200:
                raise FloatingPointError("too much")
            return super().fit(X, y)

    told = backtest({"s": weekly(model=Tired())})
    assert [v.number for v in told["s"].versions] == ["1.0"]
    assert any("too much" in note for note in told["s"].notes)


def test_every_window_gives_what_a_loop_by_hand_gives():
    """Accuracy of a weekly sliding window, counted by hand."""
    table = stream().source
    x = np.column_stack([table["a"].to_numpy(), table["b"].to_numpy()])
    y = np.array(table["y"].to_pylist())
    strategy = weekly(window=windows.Sliding("6d"), model=LogisticRegression())
    told = backtest({"s": strategy})["s"].predictions["prediction"].to_pylist()
    said = []
    for day in range(8, 30):
        if (day - 8) % 5 == 0:
            model = LogisticRegression().fit(x[(day - 6) * 24 : day * 24], y[(day - 6) * 24 : day * 24])
        said += model.predict(x[day * 24 : (day + 1) * 24]).tolist()
    assert told == said
