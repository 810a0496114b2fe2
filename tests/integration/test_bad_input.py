"""Bad input fails before any training, and says what is wrong, where, and what to do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier

import perennial as pn
from perennial import strategies, triggers, windows
from perennial.core.errors import ConfigError, DataError, LearnerError
from perennial.gate import Gate, Golden, Slice

START = np.datetime64("2026-01-01", "us")


class Untouched(LogisticRegression):
    """An estimator that must not be trained."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("a training was done before the input was checked")


def columns(n=480):
    """Hourly rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    return {"at": START + np.arange(n) * np.timedelta64(1, "h"), "x": x, "y": np.where(x > 0, "up", "down")}


def backtest(source=None, strategy=None, *, stream=None, **settings):
    """A backtest of an estimator that must not be trained."""
    source = pa.table(columns()) if source is None else source
    made = pn.Stream(source, **{"time": "at", "target": "y", "time_zone": "UTC", "batch": "1d", **(stream or {})})
    strategy = strategy or strategies.Stateless(Untouched(), initial="10d", trigger=triggers.every("5d"))
    named = strategy if isinstance(strategy, dict) else {"s": strategy}
    return pn.backtest(made, named, **{"jobs": 1, **settings})


def test_the_guard_would_notice_a_training():
    """Good input does reach the estimator."""
    with pytest.raises(LearnerError, match="a training was done"):
        backtest()


def test_no_such_file(tmp_path):
    """The path is named."""
    with pytest.raises(ConfigError, match=r"nothing\.parquet"):
        backtest(tmp_path / "nothing.parquet")


@pytest.mark.parametrize("setting", ["time", "target", "weight", "group", "id", "key", "known_at"])
def test_no_such_column(setting):
    """The setting, its value and the nearest column are named."""
    with pytest.raises(ConfigError, match=f"{setting}='xx'.*no such column"):
        backtest(stream={setting: "xx"})


def test_no_such_column_to_drop():
    """A misspelt column is not quietly kept."""
    with pytest.raises(ConfigError, match=r"drop='xz'"):
        backtest(stream={"drop": ["xz"]})


def test_time_that_is_not_sorted():
    """The first row that is too early is named."""
    cols = columns()
    cols["at"][100] = cols["at"][50]
    with pytest.raises(DataError, match="row 100"):
        backtest(pa.table(cols))


def test_time_that_cannot_be_read(tmp_path):
    """Text that is no time is shown."""
    cols = columns()
    at = [str(t) for t in cols["at"]]
    at[7] = "yesterday"
    csv.write_csv(pa.table({**cols, "at": at}), tmp_path / "data.csv")
    with pytest.raises(DataError, match="yesterday"):
        backtest(tmp_path / "data.csv")


def test_a_label_that_is_constant_in_the_first_window():
    """Which strategy, how many examples and which label."""
    cols = columns()
    cols["y"][:300] = "up"
    with pytest.raises(DataError, match=r"strategy 's': the label is constant in the first window: all 240 .*'up'"):
        backtest(pa.table(cols))


def test_every_window_that_is_first_is_checked():
    """Also where two windows are described in the same words."""
    from datetime import UTC, datetime

    cols = columns()
    cols["y"][144:240] = "up"
    both = {
        name: strategies.Stateless(
            Untouched(), initial="10d", trigger=triggers.every("5d"),
            window=windows.Tumbling("3d", origin=datetime(2026, 1, day, tzinfo=UTC)),
        )
        for name, day in (("one", 3), ("two", 4))
    }  # fmt: skip
    with pytest.raises(DataError, match="strategy 'two': the label is constant in the first window"):
        backtest(pa.table(cols), both)


def test_a_first_window_that_is_empty():
    """When it was due, why it is empty, and what to do."""
    with pytest.raises(DataError, match=r"strategy 's': the first window is empty.*no label is known.*label delay"):
        backtest(stream={"label_delay": "11d"})
    cols = columns()
    cols["at"][200:] += np.timedelta64(30, "D")
    narrow = strategies.Stateless(
        Untouched(), initial="20d", trigger=triggers.every("5d"), window=windows.Sliding("2d")
    )
    with pytest.raises(DataError, match=r"the last 2d holds none of 200 known.*window wider"):
        backtest(pa.table(cols), narrow)


def test_an_initial_period_that_is_longer_than_the_stream():
    """Nothing would ever be predicted."""
    for initial, words in (("21d", "the stream spans 20.0 days"), (480, "initial=480 rows, and the stream has 480")):
        late = strategies.Stateless(Untouched(), initial=initial, trigger=triggers.every("5d"))
        with pytest.raises(DataError, match=words):
            backtest(strategy=late)


def test_a_train_latency_that_is_longer_than_the_stream():
    """Nothing would ever be predicted either."""
    with pytest.raises(DataError, match="before it may serve: nothing would ever be predicted"):
        backtest(train_latency="10d")


def test_a_column_that_changes_its_type_between_files(tmp_path):
    """The column, both types and the file are named."""
    first, second = columns(), columns()
    second["at"] = second["at"] + np.timedelta64(20, "D")
    second["x"] = [str(x) for x in second["x"]]
    parquet.write_table(pa.table(first), tmp_path / "1.parquet")
    parquet.write_table(pa.table(second), tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r"2\.parquet.*'x'|'x'.*2\.parquet"):
        backtest(tmp_path)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_that_the_learner_refuses(value):
    """The column, how many and the first row; wherever in the stream they are."""
    cols = columns()
    cols["x"][470] = value
    with pytest.raises(DataError, match="column 'x' holds 1 infinite values, the first in row 470"):
        backtest(pa.table(cols))


def test_nulls_that_the_learner_refuses():
    """Likewise."""
    cols = columns()
    x = pa.array(cols["x"], mask=np.arange(480) == 333)
    with pytest.raises(DataError, match="column 'x' holds 1 null values, the first in row 333"):
        backtest(pa.table({**cols, "x": x}))


def test_an_unknown_class_name():
    """As the positive class, and in a matrix of prices."""
    with pytest.raises(ConfigError, match=r"positive='upp'.*did you mean `up`"):
        backtest(stream={"positive": "upp"})
    with pytest.raises((ConfigError, DataError), match="sideways"):
        backtest(prices={"matrix": [{"true": "sideways", "predicted": "up", "price": 1.0}]})


@pytest.mark.parametrize("make", [strategies.Stateful, strategies.Hybrid])
def test_an_update_of_a_learner_that_cannot(make):
    """The strategy, the learner and what can be done instead."""
    more = {"reset": triggers.every("9d")} if make is strategies.Hybrid else {}
    strategy = make(RandomForestClassifier(), initial="10d", trigger=triggers.every("1d"), **more)
    with pytest.raises(LearnerError, match=r"updates its model, and .*RandomForest.* cannot be updated: wrap"):
        backtest(strategy=strategy)


def test_a_mix_whose_shares_do_not_sum_to_one():
    """When the window is made."""
    with pytest.raises(ConfigError, match=r"0\.3 \+ 0\.6.*must sum to 1"):
        windows.Mix(initial=0.3, recent=0.6, rows=100)


def test_an_unknown_metric():
    """With the nearest valid word."""
    with pytest.raises(ConfigError, match=r"acuracy.*did you mean `accuracy`"):
        backtest(metrics=["acuracy"])


def test_models_of_two_tasks():
    """Classifiers and regressors cannot be compared."""
    both = {
        "a": strategies.Stateless(Untouched(), initial="10d", trigger=triggers.every("5d")),
        "b": strategies.Stateless(LinearRegression(), initial="10d", trigger=triggers.every("5d")),
    }
    with pytest.raises(ConfigError, match="a: classification; b: regression"):
        backtest(strategy=both)


def test_regressors_for_words():
    """A label column of words needs classifiers."""
    with pytest.raises(DataError, match="column 'y' holds words, and the models are regressors"):
        backtest(strategy=strategies.Frozen(LinearRegression(), initial="10d"))


def test_no_label_at_all():
    """Nothing could be learned."""
    cols = columns()
    with pytest.raises(DataError, match="no row of the stream has a label"):
        backtest(pa.table({**cols, "y": pa.nulls(480, pa.string())}))


def test_no_feature_at_all():
    """Nothing could be learned from."""
    with pytest.raises(DataError, match="no column is left to be a feature"):
        backtest(stream={"drop": ["x"]})


@pytest.mark.parametrize("given", [{}, None, [], {"": strategies.Frozen(Untouched(), initial=5)}, {"a": Untouched()}])
def test_strategies_that_are_none(given):
    """The mapping is checked first."""
    with pytest.raises(ConfigError, match="strategies"):
        pn.backtest(pn.Stream(pa.table(columns()), time="at", target="y"), given)


@pytest.mark.parametrize(
    "settings", [{"jobs": 0}, {"jobs": 1.5}, {"train_latency": "soon"}, {"clairvoyant": "t"}], ids=str
)
def test_settings_of_the_backtest(settings):
    """Each is named with its value."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        backtest(**settings)


def test_a_range_for_no_column():
    """Rules for quality are checked like all else."""
    from perennial.stream.quality import Quality

    with pytest.raises(ConfigError, match=r"ranges\.xx.*no such column of numbers"):
        backtest(quality=Quality(ranges={"xx": (0, 1)}))
    with pytest.raises(ConfigError, match=r"label_rates\.maybe.*no label has this value"):
        backtest(quality=Quality(label_rates={"maybe": (0, 1)}))
    with pytest.raises(ConfigError, match=r"label_rates.*0 <= low <= high <= 1"):
        Quality(label_rates={"maybe": (0.5, 1.5)})


def test_a_rule_for_labels_that_are_never_due():
    """Whether labels are missing can be told only where their delay is fixed."""
    from perennial.stream.quality import Quality

    with pytest.raises(ConfigError, match=r"labelled=0\.9: needs a fixed `label_delay`"):
        backtest(quality=Quality(labelled=0.9), stream={"within": "30d", "absent": "down"})


def test_a_clairvoyant_schedule_without_prices():
    """The bound is in money, and about a stateless strategy."""
    with pytest.raises(ConfigError, match="clairvoyant='s': give prices"):
        backtest(clairvoyant="s")
    stateful = strategies.Stateful(SGDClassifier(), initial="10d", trigger=triggers.every("1d"))
    with pytest.raises(ConfigError, match="clairvoyant='s': name a stateless strategy"):
        backtest(strategy=stateful, clairvoyant="s", prices={"error": 1.0, "retrain": 1.0})


def test_a_gate_of_what_the_stream_does_not_have(tmp_path):
    """Slices of unknown columns and words, and a golden set that is not there or has other columns or labels."""
    table = pa.table({**columns(), "word": np.array(["red", "blue"])[np.arange(480) % 2]})
    for where, words in (({"wrod": "red"}, "`word`"), ({"word": "rde"}, "`red`"), ({"x": "red"}, "holds numbers")):
        with pytest.raises(ConfigError, match=rf"gate\.slices\.s\.where.*{words}"):
            backtest(table, gate=Gate(slices={"s": Slice(where=where)}))
    file = tmp_path / "golden.csv"
    gate = Gate(golden=Golden(file=str(file)))
    with pytest.raises(ConfigError, match=r"gate\.golden\.file.*no such file"):
        backtest(table, gate=gate)
    csv.write_csv(table.drop_columns(["x"]), file)
    with pytest.raises(DataError, match="lacks the column 'x'"):
        backtest(table, gate=gate)
    csv.write_csv(table.slice(0, 1).set_column(2, "y", pa.array(["uo"])), file)
    with pytest.raises(DataError, match="no row of the stream has the label 'uo': use one of: down, up"):
        backtest(table, gate=gate)
