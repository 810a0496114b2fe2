"""Writing configurations: round trips, recommended.yaml, and what cannot be written."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from perennial import Stream, strategies, triggers, windows
from perennial.config import from_objects, load, parse, to_yaml
from perennial.config.document import read
from perennial.config.writing import scalar_text
from perennial.core.errors import ConfigError
from perennial.gate import Between, Gate, Golden, Slice
from perennial.stream.quality import Quality

TEXT = """\
# the bank
stream:
  source: calls.parquet   # all of them
  time: at
  label: y
  positive: no
model: {estimator: a.B, params: {mode: "on", depth: 1e-3}}
strategies:
  weekly: {stateless: {every: 7d, window: {mix: {initial: 0.3, recent: 0.7, rows: 20_000}}}}
  "off": {stateful: {trigger: {any: [1d, {loss_above: 1}]}, initial: null}}
initial: 60d
"""


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)))
def test_any_value_reads_back_as_itself(value):
    """Text that looks like a number, a boolean or null is quoted; numbers are not."""
    found = read(f"a: {scalar_text(value)}\n", "f").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_configuration_reads_back_as_an_equal_record():
    """to_yaml keeps every setting that was given, explicit nulls included."""
    config = parse(TEXT).config
    again = parse(to_yaml(config)).config
    assert again == config
    assert again.strategies["off"].chosen.model_fields_set == {"trigger", "initial"}


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT + "deploy: 'off'   # for now\n",
        TEXT + "deploy:\nseed: 5\n",
        TEXT + "deploy: null\n...\n",
        TEXT.rstrip("\n"),
        TEXT.replace("\n", "\r\n"),
        "{stream: {source: a, time: t, label: y}, model: a.B, initial: 1d, strategies: {weekly: frozen, off: frozen}}",
        TEXT + "name: &n weekly\ndeploy: *n\n",
    ],
)
@pytest.mark.parametrize("strategy", ["weekly", "off"])
def test_recommended_is_the_same_file_with_deploy(text, strategy, tmp_path):
    """Whatever the layout, only deploy changes, and comments stay where the file is in block style."""
    loaded = parse(text, tmp_path / "perennial.yaml")
    written = loaded.deploying(strategy, tmp_path / "recommended.yaml")
    config = parse(written).config
    assert config.deploy == strategy
    assert config.model_copy(update={"deploy": None}) == loaded.config.model_copy(update={"deploy": None})
    if text.startswith("#") and "..." not in text and "&n" not in text:
        assert "# all of them" in written
        assert "# the bank" in written


def test_recommended_in_another_folder_still_finds_the_data(tmp_path):
    """Its `folder` leads back to where the original's paths start, and again from a third place."""
    original = tmp_path / "conf" / "perennial.yaml"
    loaded = parse(TEXT, original)
    first = tmp_path / "conf" / "report" / "recommended.yaml"
    second = tmp_path / "elsewhere" / "recommended.yaml"
    moved = parse(loaded.deploying("weekly", first), first)
    assert moved.folder == loaded.folder == tmp_path / "conf"
    assert parse(moved.deploying("off", second), second).folder == tmp_path / "conf"


def test_an_unknown_strategy_cannot_be_deployed(tmp_path):
    """The error names the nearest one."""
    with pytest.raises(ConfigError, match="did you mean `weekly`"):
        parse(TEXT).deploying("weakly", tmp_path / "r.yaml")


def test_a_missing_or_garbled_file_is_a_clear_error(tmp_path):
    """No file, a folder, and bytes that are not UTF-8 each say what to do."""
    with pytest.raises(ConfigError, match="perennial init"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: Zürich".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "latin.yaml")


def test_a_byte_order_mark_is_no_trouble(tmp_path):
    """As editors on Windows write it."""
    (tmp_path / "p.yaml").write_text(TEXT, encoding="utf-8-sig")
    assert load(tmp_path / "p.yaml").config == parse(TEXT).config


@pytest.fixture
def stream(tmp_path):
    """A stream of a file."""
    path = tmp_path / "calls.parquet"
    pa.parquet.write_table(
        pa.table({"at": pa.array([0, 1], pa.timestamp("us")), "x": [1, 2], "y": ["no", "yes"]}), path
    )
    return Stream(path, time="at", target="y", label_delay="7d", drop=["x"], positive="no", batch="1w", name="calls")


def test_objects_become_the_records_that_describe_them(stream):
    """Stream, models, strategies and prices are written, and only parameters that are not the default."""
    config = from_objects(
        stream,
        {
            "a": strategies.Frozen(SGDClassifier(loss="log_loss", random_state=1), initial="60d"),
            "b": strategies.Stateless(
                {"estimator": "x.Y", "params": {"a": [1]}},
                initial=500,
                trigger=triggers.limited(triggers.any_of(triggers.every("7d"), triggers.regret(5)), least_gap="1d"),
                window=windows.Mix(initial=0.3, recent=0.7, rows=10, purge="5d"),
            ),
            "c": strategies.Stateful("x.Y", initial=None, trigger=triggers.every(rows=1)),
            "d": strategies.Hybrid(
                RandomForestClassifier(),
                initial="60d",
                trigger=triggers.loss_above(0.5),
                reset=triggers.every("90d"),
                window=windows.Tumbling("7d"),
            ),
        },
        metrics=["log_loss"],
        prices={"retrain": 0.5, "matrix": {"yes": {"no": "x"}}},
        deploy="c",
    )
    again = parse(to_yaml(config)).config
    assert again == config
    assert again.strategies["a"].chosen.model.params == {"loss": "log_loss", "random_state": 1}
    assert again.strategies["a"].chosen.model.estimator == "sklearn.linear_model.SGDClassifier"
    assert again.strategies["b"].chosen.when == triggers.limited(
        triggers.any_of(triggers.every("7d"), triggers.regret(5)), least_gap="1d"
    )
    assert again.strategies["b"].chosen.window.build() == windows.Mix(initial=0.3, recent=0.7, rows=10, purge="5d")
    assert again.initial_of("c") is None
    assert again.stream.positive == "no"
    assert again.cost == {"retrain": 0.5, "matrix": {"yes": {"no": "x"}}}


def test_gate_and_quality_are_written(stream):
    """What a backtest was given besides: slices, ranges and durations as the file has them."""
    gate = Gate(
        mode="after", greatest_wait=timedelta(days=60), on_no_verdict="better", block=500, golden=Golden(file="g.csv"),
        slices={"young": Slice(where={"age": Between(least=18, below=30), "job": ["student", None]}, margin=0.01),
                "old": Slice(where={"age": Between(least=60)})},
    )  # fmt: skip
    quality = Quality(nulls=0.2, ranges={"x": (0, 10)}, label_rates={"yes": (0.1, 0.9)})
    config = from_objects(stream, {"s": strategies.Frozen("x.Y", initial="60d")}, gate=gate, quality=quality)
    again = parse(to_yaml(config)).config
    assert again == config
    assert again.gate.build() == gate
    assert again.quality.build() == quality
    assert again.gate.model_fields_set == {"mode", "greatest_wait", "on_no_verdict", "block", "golden", "slices"}


def test_a_label_log_and_its_wait_are_written(stream):
    """What a file says of a log is what the stream says of it."""
    logged = replace(stream, id="x", drop=(), labels=stream.source, label_delay=None, label_wait="30d")
    config = from_objects(logged, {"s": strategies.Frozen("x.Y", initial="60d")})
    again = parse(to_yaml(config)).config.stream
    assert again.label.wait == logged.label_wait
    assert again.labels == str(stream.source)


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (LogisticRegression(class_weight=lambda y: 1), "strategies.s.model.params.class_weight"),
        (make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression()), "strategies.s.model.params.steps"),
        (object(), "strategies.s.model"),
        ({"estimator": "a.B", "params": {"f": open}}, "strategies.s.model.params.f"),
    ],
)
def test_a_model_that_cannot_be_written_is_refused(stream, model, field):
    """A lambda or an open object names the setting and the way out: a factory in a module."""
    with pytest.raises(ConfigError, match=r"package\.module:function") as caught:
        from_objects(stream, {"s": strategies.Frozen(model, initial="60d")})
    assert caught.value.field.startswith(field)


def test_a_stream_or_metric_that_cannot_be_written_is_refused(stream):
    """A table in memory, a local function of features and a lambda metric."""
    table = pa.table({"at": pa.array([0, 1], pa.timestamp("us")), "y": ["no", "yes"]})
    frozen = {"s": strategies.Frozen("a.B", initial="60d")}
    with pytest.raises(ConfigError, match="in memory"):
        from_objects(Stream(table, time="at", target="y"), frozen)
    looking = Stream(stream.source, time="at", target="y", features=lambda past, now: now, lookback="7d")
    with pytest.raises(ConfigError, match="lambda"):
        from_objects(looking, frozen)
    with pytest.raises(ConfigError, match="lambda"):
        from_objects(stream, frozen, metrics=[lambda t, p: 0.0])
