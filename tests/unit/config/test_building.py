"""From a configuration to what a backtest is called with."""

from __future__ import annotations

import sys
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet
import pytest

from perennial import strategies, windows
from perennial.config import parse, to_yaml
from perennial.core.errors import ConfigError, MissingExtra
from perennial.core.protocols import Updatable
from perennial.gate import Between, Gate, Golden, Slice

TEXT = """\
name: calls
stream: {source: calls.parquet, time: at, label: {column: y, delay: 2d}, batch: 1w, drop: [z]}
model: {estimator: sklearn.linear_model.SGDClassifier, params: {loss: log_loss}}
initial: 60d
strategies:
  weekly: {stateless: {every: 7d, window: {sliding: 90d}}}
  daily: {stateful: {every: 1d}}
metrics: [log_loss, "own_scores_of_test:hits"]
cost: {retrain: 0.5, error: 1}
seed: 7
train_latency: 10min
quality: {nulls: 0.5}
clairvoyant: weekly
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data and a module of the user's, away from the working folder."""
    table = pa.table({"at": pa.array([0, 1], pa.timestamp("us")), "x": [1.0, 2.0], "y": ["no", "yes"], "z": [0, 0]})
    pa.parquet.write_table(table, tmp_path / "calls.parquet")
    (tmp_path / "own_scores_of_test.py").write_text(
        "from sklearn.linear_model import SGDClassifier\n"
        "def hits(y_true, y_pred):\n    return float((y_true == y_pred).sum())\n"
        "def make(alpha=0.1):\n    return SGDClassifier(alpha=alpha)\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own_scores_of_test", None)


def test_everything_is_built_from_the_files_own_folder(folder):
    """Data and modules are found beside the configuration, and settings arrive where the backtest takes them."""
    built = parse(TEXT, folder / "perennial.yaml").build()
    assert (built.stream.target, built.stream.label_delay, built.stream.name) == ("y", timedelta(days=2), "calls")
    assert built.stream.source == str(folder / "calls.parquet")
    assert isinstance(built.strategies["weekly"], strategies.Stateless)
    assert built.strategies["weekly"].window == windows.Sliding("90d")
    assert isinstance(built.strategies["daily"].model, Updatable)
    assert [metric.name for metric in built.metrics] == ["log_loss", "hits"]
    assert built.settings.keys() == {"metrics", "prices", "seed", "train_latency", "quality", "clairvoyant", "gate"}
    assert (built.seed, built.train_latency, built.clairvoyant) == (7, timedelta(minutes=10), "weekly")
    assert (built.prices.retrain, built.quality.nulls) == (0.5, 0.5)


GATED = (
    TEXT
    + """\
gate:
  slices:
    young: {where: {age: {least: 18, below: 30}, job: [student, null]}, margin: 0.01}
    members: {where: {member: true}}
  golden: {file: golden.csv, limit: 0.02}
  largest_bytes: 1000
  largest_latency: 5ms
  held_out: 7d
"""
)


def test_a_gate_is_built_with_its_slices_and_its_golden_set(folder):
    """As the same records in Python; the golden set lies beside the configuration, and is looked for at once."""
    with pytest.raises(ConfigError, match=r"line 18: gate\.golden\.file='golden.csv': no such file"):
        parse(GATED, folder / "perennial.yaml").build()
    (folder / "golden.csv").write_text("x,y\n1,no\n")
    loaded = parse(GATED, folder / "perennial.yaml")
    assert loaded.build().gate == Gate(
        slices={
            "young": Slice(where={"age": Between(least=18, below=30), "job": ["student", None]}, margin=0.01),
            "members": Slice(where={"member": True}),
        },
        golden=Golden(file=str(folder / "golden.csv"), limit=0.02),
        largest_bytes=1000,
        largest_latency=timedelta(milliseconds=5),
        held_out=timedelta(days=7),
    )
    again = parse(to_yaml(loaded.config), folder / "perennial.yaml")
    assert again.config == loaded.config


def test_settings_are_those_of_the_backtest():
    """What is built can be passed on by name."""
    import inspect
    from dataclasses import fields

    from perennial.config import Built
    from perennial.replay import backtest

    assert {f.name for f in fields(Built)} <= set(inspect.signature(backtest).parameters)


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "words"),
    [
        ("calls.parquet", "cals.parquet", 2, "stream.source", "no such file"),
        ("delay: 2d}", "delay: 2d}, features: {build: nonsense, lookback: 1d}", 2, "stream.features.build", "package"),
        ("delay: 2d}", "delay: 2d}, time_zone: Europe/Lisbo", 2, "stream.time_zone", "Europe/Lisbon"),
        ("drop: [z]", "drop: [y]", 2, "stream.drop", "no feature"),
        ("SGDClassifier", "SGDClasifier", 3, "model", "SGDClassifier"),
        ("sklearn.linear_model", "sklern.linear_model", 3, "model", "no module"),
        ("loss: log_loss", "los: log_loss", 3, "model", "could not be called"),
        ("SGDClassifier, params: {loss: log_loss}", "LogisticRegression", 7, "strategies.daily.stateful", "updated"),
        ("60d", "null", 6, "strategies.weekly.stateless", "how much data"),
        ("[log_loss,", "[log_los,", 8, "metrics[0]", "did you mean `log_loss`"),
        (":hits", ":hist", 8, "metrics[1]", "cannot be imported"),
        ("[log_loss,", "[mae,", 8, "metrics[0]", "regression"),
    ],
)
def test_what_can_only_be_known_by_trying_is_told_with_its_line(folder, old, new, line, path, words):
    """Files, classes, zones, capabilities and functions that are not there point at their setting."""
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        parse(TEXT.replace(old, new, 1), folder / "perennial.yaml").build()
    problem = caught.value.got.all[0]
    assert (problem.line, problem.path) == (line, path)
    assert words in problem.need


def test_a_strategy_without_a_model_is_told(folder):
    """There is neither a global model nor one of its own."""
    with pytest.raises(ConfigError, match="say what weekly trains"):
        parse("\n".join(TEXT.splitlines()[:2] + TEXT.splitlines()[3:]), folder / "perennial.yaml").build()


def test_a_missing_framework_is_told_by_its_extra(folder, monkeypatch):
    """As if LightGBM were not installed."""
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    text = TEXT.replace("sklearn.linear_model.SGDClassifier, params: {loss: log_loss}", "lightgbm.LGBMClassifier")
    loaded = parse(text, folder / "perennial.yaml")
    with pytest.raises(MissingExtra) as caught:
        loaded.build()
    assert caught.value.extra == "lightgbm"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("own_scores_of_test:make", "SGDClassifier"),
        ("{estimator: 'own_scores_of_test:make', params: {alpha: 0.5}}", "SGDClassifier"),
        ("{estimator: lightgbm.LGBMClassifier, update: decayed, options: {gamma: 0.8}}", "Decayed(LGBMClassifier)"),
        ("{estimator: lightgbm.LGBMClassifier, update: leaf_refit}", "LeafRefit(LGBMClassifier)"),
        ("{estimator: lightgbm.LGBMClassifier, early_stopping: {rounds: 5}}", "EarlyStopped(LGBMClassifier)"),
        (
            "{estimator: sklearn.ensemble.RandomForestClassifier, update: sliding_forest, options: {size: 3}}",
            "SlidingForest(RandomForestClassifier)",
        ),
    ],
)
def test_models_become_the_learners_they_name(folder, model, name):
    """A factory, its parameters, and each way to update."""
    text = TEXT.replace("{estimator: sklearn.linear_model.SGDClassifier, params: {loss: log_loss}}", model)
    text = text.replace("  daily: {stateful: {every: 1d}}\n", "")
    assert parse(text, folder / "perennial.yaml").build().strategies["weekly"].model.name == name


def test_options_that_a_way_to_update_does_not_take_are_told(folder):
    """With the line of the model."""
    text = TEXT.replace(
        "SGDClassifier, params: {loss: log_loss}}",
        "RandomForestClassifier, update: sliding_forest, options: {tres: 3}}",
    ).replace("linear_model", "ensemble")
    with pytest.raises(ConfigError) as caught:
        parse(text, folder / "perennial.yaml").build()
    assert caught.value.got.all[0].path == "model.options"


def test_calibration_wraps_the_learner(folder):
    """With its settings, or with true alone."""
    base = "{loss: log_loss}}"
    for calibrated in ("true", "{inner: frozen, share: 0.3}"):
        text = TEXT.replace(base, base[:-1] + f", calibrated: {calibrated}}}")
        assert "SGDClassifier" in parse(text, folder / "perennial.yaml").build().strategies["weekly"].model.name
        assert parse(text, folder / "perennial.yaml").build().strategies["weekly"].model.name != "SGDClassifier"
