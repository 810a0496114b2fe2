"""Nobody else's numbers change when run through us: stateless retraining equals a plain loop, bit for bit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import perennial as pn
from perennial import strategies, triggers, windows

ROWS, INITIAL, EVERY, SPAN = 1200, 300, 150, 400


def drifting(seed: int, task: str) -> pa.Table:
    """A stream of hourly rows whose concept turns slowly; three numbers and a word."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, 3))
    angle = np.linspace(0, 2, ROWS)
    z = np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 1] + 0.3 * rng.normal(size=ROWS)
    word = np.where(rng.random(ROWS) < 0.3, "red", "blue")
    y = np.digitize(z, [-0.7, 0.7]) if task == "three" else (z > 0).astype(int)
    labels = {"two": np.where(y, "up", "down"), "three": y, "value": z}[task]
    time = np.datetime64("2026-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
    return pa.table(
        {"at": time, "a": x[:, 0], "b": x[:, 1].astype(np.float32), "c": x[:, 2], "word": word, "y": labels}
    )


def boosters():
    """The estimators of the boosting libraries, as their users build them."""
    lightgbm, xgboost, catboost = (pytest.importorskip(name) for name in ("lightgbm", "xgboost", "catboost"))
    quiet = {"iterations": 12, "verbose": False, "allow_writing_files": False, "thread_count": 1}
    yield "two", lightgbm.LGBMClassifier(n_estimators=12, n_jobs=1, verbose=-1)
    yield "three", lightgbm.LGBMClassifier(n_estimators=6, n_jobs=1, verbose=-1, subsample=0.7, subsample_freq=1)
    yield "value", lightgbm.LGBMRegressor(n_estimators=12, n_jobs=1, verbose=-1)
    yield "two", xgboost.XGBClassifier(n_estimators=12, n_jobs=1)
    yield "three", xgboost.XGBClassifier(n_estimators=6, n_jobs=1, subsample=0.7, random_state=3)
    yield "value", xgboost.XGBRegressor(n_estimators=12, n_jobs=1)
    yield "two", catboost.CatBoostClassifier(**quiet)
    yield "three", catboost.CatBoostClassifier(**quiet)
    yield "value", catboost.CatBoostRegressor(**quiet)


def plain():
    """Estimators of scikit-learn."""
    yield "two", LogisticRegression()
    yield "two", make_pipeline(StandardScaler(), LogisticRegression())
    yield "three", RandomForestClassifier(n_estimators=8, random_state=0)
    yield "value", RandomForestRegressor(n_estimators=8, random_state=0)


CASES = [*plain(), *boosters()]


@pytest.mark.parametrize(("task", "estimator"), CASES, ids=[f"{type(e).__name__}-{t}" for t, e in CASES])
def test_stateless_equals_a_plain_loop(task, estimator):
    """Retraining on the last rows at an interval gives the loop's probabilities or values, bit for bit."""
    table = drifting(1, task).drop_columns(["word"])
    stream = pn.Stream(table, time="at", target="y", label_delay="0s", batch=50)
    strategy = strategies.Stateless(
        estimator, initial=INITIAL, trigger=triggers.every(rows=EVERY), window=windows.Sliding(rows=SPAN)
    )
    told = pn.backtest(stream, {"s": strategy}, jobs=1)["s"].predictions

    frame = table.to_pandas()
    X = np.ascontiguousarray(frame[["a", "b", "c"]].to_numpy(np.float64))  # a sum's last bit hangs on the layout
    y = frame["y"].to_numpy() if task != "two" else frame["y"].to_numpy(str)
    names = np.unique(y)
    if task == "two" and type(estimator).__name__.startswith("XGB"):
        y = (y == "up").astype(int)  # XGBoost wants numbers from its users; ours may have words
    model, expected, trained = None, [], None
    for start in range(INITIAL, ROWS, 50):
        if trained is None or start - trained >= EVERY:
            low = max(0, start - SPAN)
            model, trained = clone(estimator).fit(X[low:start], y[low:start]), start
        rows = X[start : start + 50]
        expected.append(model.predict(rows) if task == "value" else model.predict_proba(rows))
    expected = np.concatenate(expected)

    assert told.num_rows == ROWS - INITIAL
    if task == "value":
        np.testing.assert_array_equal(told["prediction"].to_numpy(), expected.ravel())
    else:
        ours = np.stack([told[f"proba_{c}"].to_numpy() for c in names], axis=1)
        np.testing.assert_array_equal(ours, expected)
        assert told["prediction"].to_pylist() == names[expected.argmax(axis=1)].tolist()


def test_a_pipeline_that_names_columns_gets_a_frame():
    """A column transformer over words and numbers gives what it gives on the user's own frame."""
    table = drifting(2, "two")
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["word"]), remainder="passthrough")
    estimator = make_pipeline(encode, StandardScaler(), LogisticRegression())
    stream = pn.Stream(table, time="at", target="y", label_delay="0s", batch=100)
    strategy = strategies.Stateless(estimator, initial=INITIAL, trigger=triggers.every(rows=300))
    told = pn.backtest(stream, {"s": strategy}, jobs=1)["s"].predictions

    frame = table.to_pandas()
    X, y = frame[["a", "b", "c", "word"]], frame["y"]
    expected = [
        clone(estimator).fit(X[:cut], y[:cut]).predict_proba(X[cut : cut + 300])[:, 1]
        for cut in range(INITIAL, ROWS, 300)
    ]
    np.testing.assert_array_equal(told["proba_up"].to_numpy(), np.concatenate(expected))
