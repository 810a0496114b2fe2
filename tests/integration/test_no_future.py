"""No future: corrupting every row and label after an instant leaves all predictions up to it bit-identical."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import learners, strategies, triggers, windows
from perennial.stream.quality import Quality

ROWS, POISONED = 900, 611  # the first poisoned row lies inside a batch of 40
START = np.datetime64("2026-01-01", "us")


def clean(task: str) -> pa.Table:
    """Hourly rows with two numbers, a word, an amount, and labels that become known after 0 to 30 hours."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, 2))
    z = x[:, 0] * np.cos(np.arange(ROWS) / 150) + x[:, 1] + 0.4 * rng.normal(size=ROWS)
    at = START + np.arange(ROWS) * np.timedelta64(1, "h")
    known = at + rng.integers(0, 30, ROWS) * np.timedelta64(1, "h")
    label = z if task == "regression" else np.where(z > 0, "up", "down")
    return pa.table(
        {
            "at": at,
            "a": x[:, 0],
            "b": x[:, 1],
            "word": rng.choice(["red", "blue", "green"], ROWS),
            "key": rng.choice(["k1", "k2"], ROWS),
            "known": known,
            "y": label,
        }
    )


def poison(table: pa.Table, *, third: bool = True) -> pa.Table:
    """The same table with everything at and after the poisoned row changed, and labels known later than that too.

    The last labels are of a ``third`` class, unless the learner tells two apart and refuses more.
    """
    rng = np.random.default_rng(6)
    frame = table.to_pandas()
    bad = frame.index >= POISONED
    n = int(bad.sum())
    frame.loc[bad, ["a", "b"]] = rng.normal(size=(n, 2)) * 1e6
    frame.loc[bad, "word"] = [f"poison-{i}" for i in range(n)]
    flipped = {"up": "down", "down": "up"}
    unknown = bad | (frame["known"] > frame["at"].iloc[POISONED])
    if frame["y"].dtype == object or isinstance(frame["y"].dtype, pd.StringDtype):
        frame.loc[unknown, "y"] = frame.loc[unknown, "y"].map(flipped)
        if third:
            frame.loc[frame.index[-40:], "y"] = "sideways"
    else:
        frame.loc[unknown, "y"] = -1e6
    return pa.Table.from_pandas(frame, preserve_index=False).cast(table.schema)


def both(strategy, task="classification", *, third=True, **settings):
    """Predictions on the clean and on the poisoned stream, of rows before the poison."""
    settings = {"known_at": "known", "drop": ["key"], "batch": 40, **settings}
    told = []
    for table in (clean(task), poison(clean(task), third=third)):
        stream = pn.Stream(table, time="at", target="y", **settings)
        result = pn.backtest(stream, {"s": strategy}, jobs=1, quality=Quality(duplicates=0.9), metrics=None)
        told.append(result["s"].predictions)
    return [t.filter(pa.compute.less(t["row"], POISONED)).drop_columns(["label"]) for t in told]


def assert_equal(strategy, task="classification", **settings):
    """Every column that both have is equal to the last bit, and a class that only poison has is given no chance."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*naive continuation.*")
        first, second = both(strategy, task, **settings)
    assert first.num_rows > 200
    assert len(set(first["version"].to_pylist())) > 1 or strategy.kind == "frozen"
    for name in second.column_names:
        ours = second[name].to_pylist()
        theirs = first[name].to_pylist() if name in first.column_names else [0.0] * len(ours)
        assert ours == theirs, name


def _every(rows: int = 100):
    return triggers.every(rows=rows)


WINDOWS = [
    windows.Sliding("6d"),
    windows.Sliding(rows=150, embargo="5h"),
    windows.Tumbling("4d"),
    windows.Tumbling(rows=100),
    windows.Expanding(purge="12h"),
    windows.Decayed("3d"),
    windows.Decayed(rows=80),
    windows.Mix(initial=0.3, recent=0.7, rows=200),
    windows.Mix(initial=0.3, recent=0.7, share_of="source"),
    windows.Mix(past=0.5, recent=0.5, rows=150),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(window):
    """No window lets the future into a stateless training."""
    assert_equal(
        strategies.Stateless(RandomForestClassifier(5), initial=200, trigger=triggers.every("3d"), window=window)
    )


TRIGGERS = [
    triggers.every("2d"),
    triggers.every(rows=90),
    triggers.loss_above(0.4, rows=60),
    triggers.regret(0.2, fresh_rows=10),
    triggers.forecast(0.5, "3d", quantile=0.5, fresh_rows=10),
    triggers.any_of(triggers.every("9d"), triggers.loss_above(0.5, rows=40)),
    triggers.all_of(triggers.every("2d"), triggers.loss_above(0.2, rows=40)),
    triggers.limited(triggers.loss_above(0.1, rows=20), least_gap="2d", greatest_age="8d"),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
def test_triggers(trigger):
    """No trigger fires because of what comes later."""
    assert_equal(strategies.Stateless(GaussianNB(), initial=200, trigger=trigger), drop=["key", "word"])


def _boosted(name: str):
    lightgbm, xgboost, catboost = (pytest.importorskip(n) for n in ("lightgbm", "xgboost", "catboost"))
    return {
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1),
        "xgboost": xgboost.XGBClassifier(n_estimators=5, n_jobs=1, subsample=0.8),
        "catboost": catboost.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False, thread_count=1),
    }[name]


def _river(name: str):
    pytest.importorskip("river")
    from river import forest, linear_model, preprocessing, tree

    return {
        "logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        "tree": tree.HoeffdingTreeClassifier(grace_period=20),
        "forest": forest.ARFClassifier(n_models=3),
    }[name]


STATELESS = {
    "logistic": lambda: LogisticRegression(),
    "lightgbm": lambda: _boosted("lightgbm"),
    "xgboost": lambda: _boosted("xgboost"),
    "catboost": lambda: _boosted("catboost"),
    "ridge": lambda: learners.plain.GaussianNB(),
    "calibrated": lambda: learners.Calibrated(RandomForestClassifier(5)),
    "early": lambda: learners.EarlyStopped(_boosted("lightgbm")),
}
UPDATABLE = {
    "sgd": lambda: SGDClassifier(loss="log_loss"),
    "plain": lambda: learners.plain.Logistic(forgetting=0.999),
    "forest": lambda: learners.SlidingForest(RandomForestClassifier(), trees=3, size=4),
    "calibrated": lambda: learners.Calibrated(SGDClassifier(loss="log_loss")),
    "river-logistic": lambda: _river("logistic"),
    "river-tree": lambda: _river("tree"),
    "river-forest": lambda: _river("forest"),
    **{f"decayed-{b}": lambda b=b: learners.Decayed(_boosted(b), trees=3) for b in ("lightgbm", "xgboost", "catboost")},
    **{f"refit-{b}": lambda b=b: learners.LeafRefit(_boosted(b)) for b in ("lightgbm", "xgboost", "catboost")},
    "continued-lightgbm": lambda: learners.Continued(_boosted("lightgbm"), trees=3),
}
TWO_CLASSES = ("river-logistic",)  # refuse a third class
NUMBERS = {"drop": ["key", "word"]}


@pytest.mark.parametrize("name", STATELESS)
def test_stateless_learners(name):
    """No learner sees the future when it is retrained."""
    strategy = strategies.Stateless(STATELESS[name](), initial=200, trigger=_every(200), window=windows.Sliding("8d"))
    assert_equal(strategy, **NUMBERS)


@pytest.mark.filterwarnings("ignore:.*never updating.*")
@pytest.mark.parametrize("name", UPDATABLE)
def test_stateful_learners(name):
    """No learner sees the future when it is updated."""
    strategy = strategies.Stateful(UPDATABLE[name](), initial=200, trigger=_every(120))
    assert_equal(strategy, third=name not in TWO_CLASSES, **NUMBERS)


def test_hybrid():
    """Neither updates nor resets see the future."""
    assert_equal(
        strategies.Hybrid(
            SGDClassifier(loss="log_loss"), initial=200, trigger=_every(40), reset=triggers.every("6d"),
            window=windows.Mix(initial=0.3, recent=0.7, rows=200),
        ),
        **NUMBERS,
    )  # fmt: skip


def test_rows_that_share_a_turn():
    """Rows tested and trained one after the other see no future either."""
    assert_equal(
        strategies.Stateful(_river("logistic"), initial=None, trigger=_every(1)), third=False, batch=1, **NUMBERS
    )


def test_regression():
    """Values are as safe as classes."""
    assert_equal(strategies.Stateful(SGDRegressor(), initial=200, trigger=_every(50)), "regression", **NUMBERS)


def last_three(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """The mean of the key's three last values, and the present one."""
    means = [past.loc[past["key"] == key, "a"].tail(3).mean() for key in now["key"]]
    return pd.DataFrame({"mean": np.nan_to_num(np.array(means, dtype=float)), "a": now["a"].to_numpy()})


def test_features_that_look_back(tmp_path):
    """Features built by the user's function see past rows only, whatever the batch size."""
    strategy = strategies.Stateless(LogisticRegression(), initial="10d", trigger=triggers.every("5d"))
    settings = {"key": "key", "drop": ["word"], "features": last_three, "lookback": "3d"}
    assert_equal(strategy, **settings)
    by_size = []
    for batch in (7, 40):
        stream = pn.Stream(clean("classification"), time="at", target="y", known_at="known", batch=batch, **settings)
        prepared = stream.prepare(tmp_path)
        parts = [b.features.matrix() for b in prepared.batches("classification")]
        by_size.append(np.concatenate(parts))
    np.testing.assert_array_equal(by_size[0], by_size[1])


def test_the_test_can_fail(monkeypatch):
    """A book that hands out labels a day before they are known is caught."""
    from perennial.stream.book import Book

    honest = Book.due
    monkeypatch.setattr(Book, "due", lambda self, now: honest(self, now + 86_400_000_000))
    with pytest.raises(AssertionError):
        assert_equal(strategies.Stateless(GaussianNB(), initial=200, trigger=_every(50)), **NUMBERS)
