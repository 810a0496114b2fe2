"""Nobody else's numbers change when run through us: River's learners, row by row."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import perennial as pn
from perennial import strategies, triggers
from perennial.core.times import duration

river = pytest.importorskip("river")

from river import (  # noqa: E402
    dummy,
    evaluate,
    linear_model,
    metrics,
    multiclass,
    naive_bayes,
    optim,
    preprocessing,
    tree,
)

COLUMNS = ["date_norm", "day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]


@pytest.fixture
def electricity(real_stream):
    """The stream with its eight features in source order."""
    return pq.read_table(real_stream("electricity"), columns=["timestamp", *COLUMNS, "target"])


def through_us(table, model, measures=("accuracy",), **settings):
    """A model tested and trained row by row."""
    settings = {"time": "timestamp", "target": "target", "time_zone": "UTC", "batch": 1, **settings}
    strategy = strategies.Stateful(model, initial=None, trigger=triggers.every(rows=1))
    return pn.backtest(pn.Stream(table, **settings), {"river": strategy}, metrics=list(measures), jobs=1)["river"]


PUBLISHED = {
    "no-change": (lambda: dummy.NoChangeClassifier(), 0.853303),
    "logistic": (lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005)), 0.822144),
    "alma": (lambda: preprocessing.StandardScaler() | linear_model.ALMAClassifier(), 0.906427),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_accuracies(electricity, name):
    """River's published accuracies on electricity come out within 1e-6."""
    make, published = PUBLISHED[name]
    result = through_us(electricity, make(), positive="UP")
    assert result.scores["accuracy"] == pytest.approx(published, abs=1e-6)
    assert result.abstained == (name == "no-change")  # its first row; River leaves it out too
    assert result.predictions.num_rows == 45_312


def dicts(table, rows, *, label):
    """Rows as River takes them."""
    names = [n for n in table.column_names if n not in ("timestamp", "target")]
    columns = [table[name].to_pylist()[:rows] for name in names]
    labels = [label(y) for y in table["target"].to_pylist()[:rows]]
    return [(dict(zip(names, row, strict=True)), y) for row, y in zip(zip(*columns, strict=True), labels, strict=True)]


DELAYS = ["0s", "30min", "2h", "7d"]


@pytest.mark.parametrize("delay", DELAYS)
def test_scores_with_a_label_delay(electricity, delay):
    """Accuracy and log loss equal River's own progressive validation with the same delay."""
    rows = 4000
    part = electricity.slice(0, rows)
    truth = pa.array([y == "UP" for y in part["target"].to_pylist()])
    part = part.set_column(part.column_names.index("target"), "target", truth)

    def make():
        return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005))

    ours = through_us(part, make(), ("accuracy", "log_loss"), label_delay=delay)
    moments = part["timestamp"].to_pylist()
    named = [({**x, "at": at}, y) for (x, y), at in zip(dicts(part, rows, label=bool), moments, strict=True)]
    span = duration(delay, "delay")
    model = river.compose.Discard("at") | make()
    for measure, name in ((metrics.Accuracy(), "accuracy"), (metrics.LogLoss(), "log_loss")):
        told = evaluate.progressive_val_score(named, model.clone(), measure, moment="at", delay=span)
        assert ours.scores[name] == pytest.approx(told.get(), abs=1e-12), name


MANY = {
    "naive bayes": lambda: naive_bayes.GaussianNB(),
    "tree": lambda: tree.HoeffdingTreeClassifier(grace_period=50),
    "one against the rest": lambda: preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(
        linear_model.LogisticRegression()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_many_classes(real_stream, name):
    """Of six classes that appear one after the other, every prediction is River's own."""
    rows = 3000
    table = pq.read_table(real_stream("insects_gradual_balanced")).slice(0, rows)
    ours = through_us(table, MANY[name](), ("accuracy",))
    model, told, seen = MANY[name](), [], set()
    for x, y in dicts(table, rows, label=int):
        said = model.predict_one(x)
        told.append(said if said in seen else None)
        model.learn_one(x, y)
        seen.add(y)
    assert ours.predictions["prediction"].to_pylist() == told
    probas = [c for c in ours.predictions.column_names if c.startswith("proba_")]
    assert len(probas) == len(seen) > 4
    total = np.sum([ours.predictions[c].to_numpy()[100:] for c in probas], axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-9)


def test_regression(real_stream):
    """Values too, to the last bit."""
    rows = 1000
    table = pq.read_table(real_stream("bike_sharing_hourly")).slice(0, rows).drop_columns(["casual", "registered"])

    def make():
        return preprocessing.StandardScaler() | linear_model.LinearRegression(intercept_lr=0.1)

    ours = through_us(table, make(), ("mae",))
    model, told = make(), []
    for x, y in dicts(table, rows, label=float):
        told.append(model.predict_one(x))
        model.learn_one(x, y)
    assert ours.predictions["prediction"].to_pylist() == told
    assert not math.isnan(ours.scores["mae"])
