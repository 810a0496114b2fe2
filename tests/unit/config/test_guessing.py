"""What `perennial init` makes of a file."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from perennial.config import parse
from perennial.config.guessing import guess
from perennial.config.records import Serialisation
from perennial.config.template import commented, estimator
from perennial.core.errors import ConfigError, DataError

ROWS = 2_000
RANDOM = np.random.default_rng(0)
START = datetime(2025, 1, 1)
HOURS = [START + timedelta(hours=i) for i in range(ROWS)]
X = RANDOM.normal(size=ROWS)
FRAUD = (X + RANDOM.normal(size=ROWS) > 1).astype(int)
WORDS = RANDOM.integers(0, 10**9, ROWS)

BASE = {
    "payment_id": list(range(ROWS)),
    "customer_id": [f"c{i % 90}" for i in range(ROWS)],
    "paid": HOURS,
    "amount": X,
    "country": [["pt", "es", "fr"][i % 3] for i in range(ROWS)],
    "fraud": FRAUD,
}


@pytest.fixture
def look(tmp_path):
    """A function that guesses from columns, written to a file first."""

    def write_and_guess(columns, suffix=".parquet", **known):
        path = tmp_path / f"data{suffix}"
        write = pa.parquet.write_table if suffix == ".parquet" else pa.csv.write_csv
        write(pa.table(columns), path)
        return guess(str(path), **known)

    return write_and_guess


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_roles_are_found_by_name_and_content(look, suffix):
    """Times in order, a telling name for the label, a number for each row and a customer that comes again."""
    found = look(BASE, suffix)
    assert (found.time, found.target, found.id, found.key) == ("paid", "fraud", "payment_id", "customer_id")
    assert (found.task, found.classes, found.rows) == ("classification", 2, ROWS)
    assert found.drop == {}
    assert found.naive
    assert not found.unsure
    assert not found.warnings


def test_columns_that_cannot_help_are_dropped_with_their_reason(look):
    """A constant, an empty column, prose, and a column that is the label under another name."""
    prose = [f"a long sentence that is about number {w} and nothing else" for w in WORDS]
    found = look(
        {"same": [1] * ROWS, "empty": pa.nulls(ROWS), "note": prose, "refunded": [f > 0 for f in FRAUD]} | BASE
    )
    assert set(found.drop) == {"same", "empty", "note", "refunded"}
    assert "same value" in found.drop["same"]
    assert "vectoriser" in found.drop["note"]
    assert any("`refunded` tells the label by itself" in warning for warning in found.warnings)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_numeric_leak_is_seen_and_a_good_feature_is_not_taken_for_one(look, task):
    """A score that ranks all labels is dropped; one that nearly does is a warning; the honest feature stays."""
    label = FRAUD if task == "classification" else X * 3 + RANDOM.normal(size=ROWS)
    leak = label + RANDOM.uniform(0, 0.01, ROWS)
    near = label + RANDOM.normal(size=ROWS) * (0.33 if task == "classification" else 0.5)
    found = look({"at": HOURS, "x": X, "leak": leak, "near": near, "target": label})
    assert found.task == task
    assert set(found.drop) == {"leak"}
    assert {warning.split("`")[1] for warning in found.warnings} == {"near", "leak"}


def test_a_column_that_only_starts_constant_is_kept(look, monkeypatch):
    """Constants are told by the whole file, not by its first rows."""
    monkeypatch.setattr("perennial.config.guessing._SAMPLE", 1)
    changed = [0.0] * (ROWS - 1) + [1.0]
    monkeypatch.setattr("perennial.stream.sources.BLOCK_ROWS", 100)
    assert "late" not in look({"late": changed} | BASE).drop


def test_several_possible_columns_are_said_to_be_unsure(look):
    """Two ordered times without a telling name, and a label that is only the last column."""
    found = look({"a": HOURS, "b": HOURS, "x": X, "z": X * 2})
    assert list(found.unsure["time"]) == ["a", "b"]
    assert found.unsure["target"][0] == "z"
    sure = look({"a": HOURS, "b": HOURS, "x": X, "z": X * 2}, time="b", target="x")
    assert (sure.time, sure.target, sure.unsure) == ("b", "x", {})


def test_text_that_is_a_time_is_a_time(look):
    """ISO 8601 with an offset is no naive time."""
    found = look({"x": X, "when": [f"{h.isoformat()}Z" for h in HOURS], "y": FRAUD})
    assert found.time == "when"
    assert not found.naive


def test_rows_out_of_order_are_warned_of(look):
    """The column is still the time, and the warning says to sort."""
    found = look({"at": HOURS[::-1], "x": X, "y": FRAUD})
    assert found.time == "at"
    assert any("not in order" in warning for warning in found.warnings)


def test_what_is_no_stream_is_refused(look, tmp_path):
    """No times, no rows, no such file, no such column."""
    with pytest.raises(DataError, match="no column holds times"):
        look({"x": X, "y": FRAUD})
    with pytest.raises(DataError, match="no row"):
        look({"at": pa.array([], pa.timestamp("us")), "y": pa.array([], pa.int64())})
    with pytest.raises(ConfigError, match="no such file"):
        guess(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match="did you mean `fraud`"):
        look(BASE, target="frod")


@pytest.mark.parametrize(
    ("step", "batch"),
    [
        (timedelta(seconds=1), "1min"),
        (timedelta(minutes=10), "6h"),
        (timedelta(hours=1), "1d"),
        (timedelta(days=1), "1mo"),
    ],
)
def test_the_batch_follows_the_length_of_the_stream(look, step, batch):
    """Some hundred batches that are not nearly empty, and an initial period of a fifth of the time or so."""
    found = look({"at": [START + i * step for i in range(ROWS)], "x": X, "y": FRAUD})
    assert found.schedule.batch == batch
    assert 0.15 * ROWS < found.schedule.rows < 0.25 * ROWS


def test_the_initial_period_waits_for_a_second_class(look):
    """A label that is the same for half the file makes the first training wait, since it could learn nothing."""
    late = [0] * (ROWS // 2) + [1] * (ROWS // 2)
    assert look({"at": HOURS, "x": X, "y": late}).schedule.rows > ROWS // 2


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("same_time", [True, False])
def test_what_is_written_is_valid(look, monkeypatch, task, installed, same_time):
    """For either task, with and without LightGBM, with and without time to speak of, the text parses whole."""
    monkeypatch.setattr("perennial.config.template.find_spec", lambda name: object() if installed else None)
    found = look(
        {"same": [1] * ROWS}
        | {"at": [START] * ROWS if same_time else HOURS}
        | {"no": X, "y": FRAUD if task == "classification" else X}
    )
    config = parse(commented(found, name="yes", source="a: b/#c.parquet")).config
    assert (config.name, config.stream.source, config.stream.drop) == ("yes", "a: b/#c.parquet", ("same",))
    assert list(config.strategies) == ["frozen", "sliding", "mix", "stateful"]
    assert config.model.estimator == estimator(found)[0]
    assert ("lightgbm" in config.model.estimator) == installed
    assert config.stream.label.delay is None
    assert config.serialisation == Serialisation()


def test_a_river_model_is_allowed_its_pickle_and_the_text_says_so(look):
    """River has no other form: the opt-in is set with what it means beside it, and no other model gets it."""
    found = look(BASE)
    text = commented(found, name="fraud", source="data.parquet", model="river.linear_model.LogisticRegression")
    config = parse(text).config
    assert config.serialisation == Serialisation(pickle=True)
    assert "runs code as it is loaded" in text.partition("\nserialisation:")[0].splitlines()[-2]
    assert config.model_of("stateful").estimator == "river.linear_model.LogisticRegression"
    other = commented(found, name="fraud", source="data.parquet", model="sklearn.linear_model.SGDClassifier")
    assert parse(other).config.serialisation == Serialisation()
    assert "# serialisation: {pickle: true" in other
