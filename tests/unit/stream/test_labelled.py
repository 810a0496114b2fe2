"""Labelled rows of a file: read as the stream's own rows are, and refused where they do not suit it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import perennial as pn
from perennial.core.errors import ConfigError, DataError
from perennial.core.features import Schema, Vocabulary
from perennial.stream.labelled import read_labelled


@pytest.fixture
def stream(tmp_path):
    """Numbers, fractions, words and booleans."""
    n = 40
    table = pa.table({
        "at": np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h"), "whole": np.arange(n),
        "part": np.arange(n) / 2, "word": np.array(["red", "blue"])[np.arange(n) % 2], "flag": np.arange(n) % 3 == 0,
        "y": np.array(["no", "yes"])[np.arange(n) % 2],
    })  # fmt: skip
    return pn.Stream(table, time="at", target="y", time_zone="UTC"), table


def read(stream, table, tmp_path, *, file="golden.csv", label_type="string", task="classification"):
    """The rows as they come back from a file."""
    path = tmp_path / file
    (csv.write_csv if file.endswith("csv") else pq.write_table)(table, path)
    prepared = stream.prepare(tmp_path / "stream")
    return read_labelled(path, stream, prepared.schema, label_type, task), prepared


def with_column(table, name, values):
    """The table with other values in a column."""
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize("file", ["golden.csv", "golden.parquet"])
def test_rows_come_back_as_the_stream_has_them(stream, tmp_path, file):
    """In the same types and codes, whatever file they lie in, with the columns in another order and more of them."""
    stream, table = stream
    golden, prepared = read(stream, table.select(["y", "flag", "word", "part", "whole", "at"]), tmp_path, file=file)
    (batch,) = [b for b in prepared.batches("classification") if b.first == 0]
    features = golden.features(batch.features.schema)
    np.testing.assert_array_equal(features.matrix()[: len(batch)], batch.features.matrix())
    assert features.schema.digest() == prepared.schema.digest()
    assert [golden.classes[code] for code in golden.truth] == table["y"].to_pylist()
    assert pickle.loads(pickle.dumps(golden)).digest == golden.digest


def test_words_get_the_codes_of_then_and_teach_nothing(stream, tmp_path):
    """What a model cannot have seen has a code behind those it may have seen."""
    stream, table = stream
    golden, prepared = read(stream, table.slice(0, 3), tmp_path)
    words = Vocabulary(["green", "blue"])
    features = golden.features(Schema(prepared.schema.columns, {"word": words}))
    assert features.codes()["word"].tolist() == [2, 1, 2]
    assert words.words == ["green", "blue"]
    assert features.arrow()["word"].to_pylist() == ["red", "blue", "red"]


def test_the_digest_is_that_of_the_content(stream, tmp_path):
    """Not of the name."""
    stream, table = stream
    one, _ = read(stream, table, tmp_path)
    same, _ = read(stream, table, tmp_path, file="other.csv")
    other, _ = read(stream, table.slice(1), tmp_path)
    assert one.digest == same.digest != other.digest


def test_numbers_as_labels(stream, tmp_path):
    """Of a regression they are values; of a classification classes, one for each."""
    stream, table = stream
    table = with_column(table, "y", np.arange(40) % 3)
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC")
    golden, _ = read(stream, table, tmp_path, label_type="int64", task="regression")
    assert golden.truth.dtype == np.float64
    assert golden.truth[:4].tolist() == [0.0, 1.0, 2.0, 0.0]
    assert golden.classes == ()
    golden, _ = read(stream, table.slice(1), tmp_path, label_type="int64")
    assert golden.classes == (1, 2, 0)
    assert golden.truth[:4].tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["word", "y"]), "lacks the columns 'word', 'y'"),
        (lambda t: t.slice(0, 0), "holds no row|cannot be read"),
        (lambda t: with_column(t, "part", ["x"] * 40), "column 'part' is string"),
        (lambda t: with_column(t, "whole", [0.5] * 40), "column 'whole' is double"),
        (lambda t: with_column(t, "y", ["yes"] * 39 + [None]), "row 39: it has no label"),
    ],
)  # fmt: skip
def test_what_does_not_suit_the_stream_is_refused(stream, tmp_path, change, words):
    """By file, column and what to do."""
    stream, table = stream
    with pytest.raises(DataError, match=words):
        read(stream, change(table), tmp_path, file="golden.parquet")


def test_whole_numbers_of_a_csv_file_pass_for_fractions(stream, tmp_path):
    """Text has no types; a column of nulls has none either."""
    stream, table = stream
    table = with_column(with_column(table, "part", [2] * 40), "whole", pa.nulls(40, pa.int64()))
    golden, prepared = read(stream, table, tmp_path)
    matrix = golden.features(prepared.schema).matrix()
    assert np.isnan(matrix[:, 0]).all()
    assert (matrix[:, 1] == 2).all()


def looks_back(past, now):
    """Nothing but the rows themselves."""
    return now


def test_a_missing_file_and_features_of_the_past_are_refused(stream, tmp_path):
    """The first before any work; the second since a file apart has no past."""
    stream, table = stream
    with pytest.raises(ConfigError, match=r"gate\.golden\.file"):
        read_labelled(Path("nowhere.csv"), stream, stream.prepare(tmp_path / "s").schema, "string", "classification")
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC", features=looks_back, lookback="1d", key="word")
    with pytest.raises(ConfigError, match="built from past rows"):
        read(stream, table, tmp_path)
