"""Feature rows and their views."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.core.errors import DataError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary

COLUMNS = [
    Column("whole", Kind.NUMBER, "int64"),
    Column("short", Kind.NUMBER, "float"),
    Column("gaps", Kind.NUMBER, "int32"),
    Column("flag", Kind.NUMBER, "bool"),
    Column("maybe", Kind.NUMBER, "bool"),
    Column("price", Kind.NUMBER, "decimal128(8, 2)"),
    Column("colour", Kind.CATEGORY, "string"),
]
WORDS = [None, "red", "blue", "", "grün"]


def record(i: int) -> dict[str, Any]:
    """Row ``i`` as plain Python values: what every view must agree with."""
    return {
        "whole": i,
        "short": i / 2,
        "gaps": None if i % 3 == 0 else i,
        "flag": i % 2 == 0,
        "maybe": None if i % 4 == 0 else i % 2 == 0,
        "price": Decimal(i) / 4,
        "colour": WORDS[i % len(WORDS)],
    }


def number(value: Any, words: Vocabulary) -> float:
    """A plain value as a matrix shows it."""
    if value is None:
        return float("nan")
    return float(words.words.index(value)) if isinstance(value, str) else float(value)


def chunks(sizes: list[int], schema: Schema | None = None) -> tuple[list[Chunk], list[dict[str, Any]]]:
    """Chunks of the given sizes over rows 0, 1, 2, ... of one stream, and those rows."""
    schema = schema or Schema(COLUMNS, {"colour": Vocabulary()})
    made, rows, at = [], [], 0
    for size in sizes:
        part = [record(i) for i in range(at, at + size)]
        words = schema.vocabularies["colour"].encode(r["colour"] for r in part)
        made.append(
            Chunk(
                pa.table(
                    {
                        "whole": pa.array([r["whole"] for r in part], pa.int64()),
                        "short": pa.array([r["short"] for r in part], pa.float32()),
                        "gaps": pa.array([r["gaps"] for r in part], pa.int32()),
                        "flag": pa.array([r["flag"] for r in part], pa.bool_()),
                        "maybe": pa.array([r["maybe"] for r in part], pa.bool_()),
                        "price": pa.array([r["price"] for r in part], pa.decimal128(8, 2)),
                        "colour": pa.array(words, pa.int32()),
                    }
                ),
                schema,
            )
        )
        rows += part
        at += size
    return made, rows


def joined(sizes: list[int]) -> tuple[Features, list[dict[str, Any]]]:
    """All rows of several chunks, and those rows."""
    made, rows = chunks(sizes)
    return Features.join(made[0].schema, [Features.of(c) for c in made]), rows


def agree(features: Features, rows: list[dict[str, Any]]) -> None:
    """Every view of ``features`` shows exactly ``rows``."""
    assert len(features) == len(rows)
    words = features.schema.vocabularies["colour"]
    want = np.array([[number(v, words) for v in r.values()] for r in rows]).reshape(len(rows), len(COLUMNS))
    for dtype in ("float64", "float32"):
        matrix = features.matrix(dtype)
        assert matrix.dtype == dtype
        assert matrix.flags.c_contiguous or len(matrix) < 2
        np.testing.assert_array_equal(matrix, want.astype(dtype))
    assert features.dicts() == rows
    if rows:
        assert features.arrow().to_pylist() == rows
        frame = features.frame()
        assert list(frame.columns) == list(features.names)
        assert frame.index.tolist() == list(range(len(rows)))
        assert [None if pd.isna(w) else w for w in frame["colour"]] == [r["colour"] for r in rows]
        assert frame["whole"].tolist() == [r["whole"] for r in rows]


sizes_of = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(sizes_of, st.data())
def test_views_of_a_slice_agree_with_the_rows(sizes: list[int], data: st.DataObject) -> None:
    """Any run of rows over any chunks is shown alike by every view."""
    features, rows = joined(sizes)
    start, stop = data.draw(st.integers(0, len(rows) + 1)), data.draw(st.integers(0, len(rows) + 2))
    agree(features.slice(start, stop), rows[start:stop])


@settings(max_examples=60, deadline=None)
@given(sizes_of, st.data())
def test_views_of_taken_rows_agree_with_the_rows(sizes: list[int], data: st.DataObject) -> None:
    """Any rows in any order, repeated or not, taken twice over and joined, are shown alike by every view."""
    features, rows = joined(sizes)
    if not rows:
        return
    some = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    taken, expected = features.take(np.array(some, dtype=np.int64)), [rows[i] for i in some]
    agree(taken, expected)
    again = data.draw(st.lists(st.integers(0, len(some) - 1), max_size=6))
    agree(taken.take(np.array(again, dtype=np.int64)), [expected[i] for i in again])
    start, stop = data.draw(st.integers(0, len(some))), data.draw(st.integers(0, len(some)))
    agree(
        Features.join(features.schema, [features, taken.slice(start, stop), features]),
        rows + expected[start:stop] + rows,
    )


def test_a_chunk_is_converted_once_however_many_ask() -> None:
    """Two windows over a chunk share one conversion, and a run of rows is a view and no copy."""
    (chunk,), _ = chunks([6])
    first, second = Features.of(chunk).slice(0, 4), Features.of(chunk).slice(2, 6)
    assert np.shares_memory(first.matrix(), chunk.matrix("float64"))
    assert np.shares_memory(second.matrix(), chunk.matrix("float64"))
    assert first.matrix() is first.matrix()
    assert first.frame() is first.frame()


def test_consecutive_rows_stay_a_run() -> None:
    """Taking rows that follow each other copies nothing."""
    (chunk,), _ = chunks([6])
    assert Features.of(chunk).take(np.arange(2, 5)).parts == ((chunk, slice(2, 5)),)


@pytest.mark.parametrize("indices", [[0, 1, 2], [2, 0], [0, 1, 2, 3, 4]], ids=["run", "picked", "two chunks"])
def test_a_matrix_cannot_be_written_to(indices: list[int]) -> None:
    """Features are immutable: whichever rows were chosen, an estimator that works in place cannot change them."""
    features, _ = joined([3, 2])
    assert not features.take(np.array(indices)).matrix().flags.writeable


@pytest.mark.parametrize("view", ["matrix", "arrow", "frame", "dicts"])
def test_an_empty_selection_has_every_view(view: str) -> None:
    """A window that chose nothing still has its columns, in each view."""
    features, _ = joined([3])
    assert len(getattr(features.slice(1, 1), view)()) == 0


@pytest.mark.parametrize("bad", [[-1], [3], [0, 99]])
def test_rows_that_are_not_there_cannot_be_taken(bad: list[int]) -> None:
    """An index outside the selection raises; it is never another row."""
    features, _ = joined([2, 1])
    with pytest.raises((IndexError, DataError)):
        features.take(np.array(bad)).matrix()


@pytest.mark.parametrize(
    ("kind", "dtype", "values"),
    [
        (Kind.TEXT, pa.string(), ["a long story"]),
        (Kind.OTHER, pa.date32(), [0]),
        (Kind.OTHER, pa.list_(pa.int8()), [[1]]),
    ],
)
def test_a_matrix_refuses_what_is_no_number(kind: Kind, dtype: Any, values: list[Any]) -> None:
    """The error names the column, what it holds and what to do."""
    schema = Schema([Column("story", kind, str(dtype))])
    features = Features.of(Chunk(pa.table({"story": pa.array(values, dtype)}), schema))
    with pytest.raises(DataError, match=r"'story'.*pipeline"):
        features.matrix()
    assert len(features.frame()) == 1


def test_a_column_of_nothing_but_nulls_is_all_nan() -> None:
    """A column that was never filled is NaN, whatever its type."""
    for dtype in (pa.null(), pa.int8(), pa.bool_(), pa.decimal128(4, 1), pa.float16()):
        schema = Schema([Column("x", Kind.NUMBER, str(dtype))])
        features = Features.of(Chunk(pa.table({"x": pa.array([None, None], dtype)}), schema))
        assert np.isnan(features.matrix()).all(), dtype


def test_numbers_keep_their_width_in_a_frame() -> None:
    """A pipeline sees the user's own number types."""
    features, _ = joined([4])
    dtypes = features.frame().dtypes
    assert dtypes["whole"] == np.int64
    assert dtypes["short"] == np.float32
    assert dtypes["flag"] == np.bool_
    assert isinstance(features.frame(), pd.DataFrame)


class TestVocabulary:
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.lists(st.none() | st.sampled_from("abcde"), max_size=6), max_size=4))
    def test_a_code_never_changes_its_meaning(self, parts: list[list[str | None]]) -> None:
        """Words decode to themselves after any number of later words; a null is -1."""
        words = Vocabulary()
        codes = [words.encode(part) for part in parts]
        for part, code in zip(parts, codes, strict=True):
            assert code.dtype == np.int32
            assert [None if c < 0 else words.words[c] for c in code] == part
        assert len(words) == len({w for part in parts for w in part if w is not None})

    def test_a_vocabulary_goes_on_from_its_words(self) -> None:
        """A saved vocabulary gives the codes it gave before."""
        assert Vocabulary(["b", "a"]).encode(["a", "c", "b"]).tolist() == [1, 2, 0]


class TestSchema:
    def test_the_identity_is_names_kinds_and_types(self) -> None:
        """Any difference in name, kind, type or order is another schema; words are not."""
        base = Schema(COLUMNS, {"colour": Vocabulary(["red"])})
        assert base.digest() == Schema(COLUMNS, {"colour": Vocabulary(["blue"])}).digest()
        column = Column("x", Kind.NUMBER, "int64")
        others = [
            Schema([column]),
            Schema([Column("y", Kind.NUMBER, "int64")]),
            Schema([Column("x", Kind.TEXT, "int64")]),
            Schema([Column("x", Kind.NUMBER, "int32")]),
            Schema([column, column]),
            Schema(COLUMNS[::-1]),
            base,
        ]
        assert len({s.digest() for s in others}) == len(others)

    def test_what_a_schema_says_of_its_columns(self) -> None:
        """Names in order, whether all are numbers, and where the categories are."""
        schema = Schema(COLUMNS)
        assert schema.names == tuple(c.name for c in COLUMNS)
        assert len(schema) == len(COLUMNS)
        assert not schema.numeric
        assert Schema(COLUMNS[:-1]).numeric
        assert schema.categories == (6,)
