"""Rows are what the signature says, exactly, or they are refused by column and row."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.core.features import Kind
from perennial.server.failures import Refused
from perennial.server.signature import EXACT, Policy, Signature
from perennial.stream import Stream

NUMBERS = Signature({"a": pa.float64(), "b": pa.float64()})
TYPED = Signature(
    {
        "amount": pa.float64(),
        "small": pa.int8(),
        "big": pa.int64(),
        "flag": pa.bool_(),
        "half": pa.float32(),
        "price": pa.decimal128(12, 2),
        "word": pa.string(),
        "prose": pa.string(),
        "day": pa.date32(),
        "at": pa.timestamp("us", tz="UTC"),
    },
    text=["prose"],
    id=("call", pa.string()),
    key=("person", pa.int64()),
    apart={"y": "labels come later"},
    ignored=["note"],
)
ROW: dict[str, Any] = {
    "amount": 1.5, "small": -3, "big": 7, "flag": True, "half": 0.5, "price": "12.30", "word": "red",
    "prose": "a few words", "day": "2026-01-31", "at": "2026-01-31T12:00:00Z",
}  # fmt: skip

values = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**60), 2**60))


def refused(call: Any, *words: str) -> Refused:
    """The refusal of a call, which has these words in its message."""
    with pytest.raises(Refused) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    return caught.value


# -- numbers ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(values, values), min_size=1, max_size=20))
def test_every_form_of_the_same_rows_gives_the_same_matrix(rows: list[tuple[Any, Any]]) -> None:
    """Lists, a flat list, records, columns and a table in another order are the same rows."""
    lists = [list(row) for row in rows]
    wanted = np.array([[math.nan if v is None else float(v) for v in row] for row in rows])
    records = [{"b": b, "a": a} for a, b in rows]
    for read in (
        lambda: NUMBERS.lists(lists),
        lambda: NUMBERS.flat([v for row in rows for v in row], len(rows)),
        lambda: NUMBERS.records(records),
        lambda: NUMBERS.table(["a", "b"], lists),
        lambda: NUMBERS.table(["b", "a"], [row[::-1] for row in lists]),
        lambda: NUMBERS.by_column({"b": [b for _, b in rows], "a": [a for a, _ in rows]}),
        lambda: NUMBERS.matrix(wanted),
    ):
        found = read()
        assert found.n == len(rows)
        assert found.numbers.dtype == np.float64
        assert np.array_equal(found.numbers, wanted, equal_nan=True)
        assert not found.others


@given(st.sampled_from(["1", True, [], {}, [1.0]]), st.integers(0, 4), st.sampled_from("ab"))
def test_one_value_of_another_kind_is_found_wherever_it_is(wrong: Any, row: int, column: str) -> None:
    """The message names the column and the row, and not the value."""
    records = [{"a": 1.0, "b": 2} for _ in range(5)]
    records[row][column] = wrong
    told = refused(lambda: NUMBERS.records(records), f"column {column!r} (double), row {row}", "send a number")
    assert told.status == 422
    flat = [value for record in records for value in record.values()]
    refused(lambda: NUMBERS.flat(flat, 5), f"column {column!r} (double), row {row}")


def test_a_value_that_is_refused_is_not_repeated() -> None:
    """A client's data stay out of messages, and so out of logs."""
    told = refused(lambda: NUMBERS.records([{"a": "4111-1111-1111-1111", "b": 1}]))
    assert "4111" not in str(told)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("small", 128, "out of range; send one from -128 to 127"),
        ("small", -129, "out of range"),
        ("small", 1.5, "a fraction; send a whole number"),
        ("big", EXACT + 1, "out of range"),
        ("big", -EXACT - 1, "out of range"),
        ("big", 10**400, "too large"),
        ("amount", 10**400, "too large"),
        ("amount", True, "a boolean; send a number"),
        ("amount", "1", "text; send a number"),
        ("flag", 2, "other than 0 and 1"),
        ("flag", "true", "text; send true or false"),
        ("half", 1e39, "out of range"),
        ("price", "12.3O", "no decimal number"),
        ("price", "1234567890123.4567", "more than 15 digits"),
        ("word", 3, "a number; send text"),
        ("word", False, "a boolean; send text"),
        ("day", "31.1.2026", "send what date32[day] can hold"),
        ("day", 5, "a number; send it as text in ISO 8601"),
        ("at", "noon", "send what timestamp[us, tz=UTC] can hold"),
        ("at", "0000-01-01T00:00:00Z", "send what timestamp[us, tz=UTC] can hold"),
        ("at", "9999-12-31T23:59:59-23:59", "send what timestamp[us, tz=UTC] can hold"),
        ("day", "0000-01-01", "send what date32[day] can hold"),
    ],
)
def test_each_type_has_its_rule(column: str, value: Any, words: str) -> None:
    """What a column of the stream cannot hold is refused by its name."""
    rows = [ROW, ROW | {column: value}]
    refused(lambda: TYPED.records(rows), f"column {column!r}", "row 1", words)


def test_rows_of_all_types() -> None:
    """Numbers are in the matrix, the rest beside it, each as pyarrow takes it."""
    found = TYPED.records([ROW, dict.fromkeys(ROW)])
    assert found.numbers[0, :6].tolist() == [1.5, -3, 7, 1, 0.5, 12.3]
    assert np.isnan(found.numbers[1]).all()
    assert found.others == {
        "word": ["red", None],
        "prose": ["a few words", None],
        "day": [date(2026, 1, 31), None],
        "at": [datetime(2026, 1, 31, 12, tzinfo=UTC), None],
    }
    assert [column.kind for column in TYPED.columns[6:9]] == [Kind.CATEGORY, Kind.TEXT, Kind.OTHER]


def test_a_whole_number_may_come_as_a_double_and_a_flag_as_0_or_1() -> None:
    """pandas makes 3.0 of 3 where a column has a null."""
    found = TYPED.records([ROW | {"small": 3.0, "flag": 0}])
    assert found.numbers[0, [1, 3]].tolist() == [3.0, 0.0]


def test_a_float32_column_is_rounded_as_in_training() -> None:
    """0.1 is another number in 32 bits, and the model learned that one."""
    assert TYPED.records([ROW | {"half": 0.1}]).numbers[0, 4] == float(np.float32(0.1))


# -- NaN and the infinities -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
def test_the_policy_about_infinities(infinity: float) -> None:
    """They are refused, or nulls."""
    rows = np.array([[1.0, 2.0], [3.0, infinity]])
    refused(lambda: NUMBERS.matrix(rows), "column 'b' (double), row 1: an infinite number")
    assert math.isnan(NUMBERS.matrix(rows, Policy(infinite="null")).numbers[1, 1])
    assert rows[1, 1] == infinity  # what came is left as it was


def test_nan_is_refused_by_its_place() -> None:
    """Where the policy refuses NaN, whoever reads tensors asks for this."""
    refused(lambda: NUMBERS.refuse_nan(np.array([[1.0, 2.0], [math.nan, 1.0]])), "column 'a' (double), row 1: NaN")
    refused(lambda: NUMBERS.refuse_nan(np.array([1.0, math.nan]), "b"), "column 'b' (double), row 1")
    NUMBERS.refuse_nan(np.ones((2, 2)))


# -- columns ----------------------------------------------------------------------------------------------------------


def test_columns_that_are_missing_or_nobody_knows() -> None:
    """Each has its own words, and a role says why its column is not sent."""
    without = {name: value for name, value in ROW.items() if name != "big"}
    refused(lambda: TYPED.records([without]), "missing 'big'", "null where a value is missing")
    refused(lambda: TYPED.records([ROW | {"more": 1}]), "no column is called 'more'")
    refused(lambda: TYPED.records([ROW | {"y": 1}]), "column 'y' is not sent: labels come later")
    refused(lambda: TYPED.records([ROW, without]), "row 1 and row 0 have other columns", "'big'")
    refused(lambda: TYPED.records([ROW | {"x" * 500: 1}]), "'" + "x" * 40 + "...'")
    assert TYPED.records([ROW | {"note": object()}]).n == 1  # dropped in training, passed over here


def test_ids_and_keys() -> None:
    """Ids are text, and whole numbers become it; keys stay what they are."""
    rows = TYPED.records([ROW | {"call": "c1", "person": 5}, ROW | {"call": 7, "person": None}])
    assert rows.ids == ["c1", "7"]
    assert rows.keys == [5, None]
    for wrong, words in [(None, "an id is text"), ("", "1 to 256"), ("a\0b", "printable"), ("x" * 257, "1 to 256")]:
        refused(lambda wrong=wrong: TYPED.records([ROW | {"call": wrong}]), "column 'call', row 0", words)
    refused(lambda: TYPED.records([ROW | {"call": "a"}, ROW | {"call": "a"}]), "row 1: the id is that of an earlier")
    refused(lambda: TYPED.records([ROW | {"person": "5"}]), "column 'person', row 0: text: send a whole number")


def test_a_key_that_cannot_be_logged_is_refused() -> None:
    """Whoever is answered can be labelled: a key beyond its type, or half a character, is no key."""
    with pytest.raises(Refused, match="'person' holds a key that int64 cannot hold"):
        TYPED.records([ROW | {"person": 2**63}])
    words = Signature({"a": pa.float64()}, key=("person", pa.string()))
    with pytest.raises(Refused, match="cannot hold"):
        words.records([{"a": 1.0, "person": "\ud800"}])


def test_features_that_look_back_need_the_key() -> None:
    """Without it they would see no past, and say something else than in training."""
    looks = Signature({"a": pa.float64()}, key=("person", pa.string()), needs_key=True)
    refused(lambda: looks.records([{"a": 1.0}]), "missing 'person'", "look back")
    refused(lambda: looks.table(["a"], [[1.0]]), "missing 'person'")
    assert looks.records([{"a": 1.0, "person": None}]).keys == [None]


def test_shapes() -> None:
    """Rows of another width, or that are no rows, are refused."""
    refused(lambda: NUMBERS.lists([[1.0, 2.0], [1.0]]), "row 1 is 1 values: give a list of 2 values")
    refused(lambda: NUMBERS.lists([3.0]), "row 0 is a number")
    refused(lambda: NUMBERS.records([[1.0, 2.0]]), "row 0 is a list: give an object")
    refused(lambda: NUMBERS.table(["a", "a"], [[1.0, 2.0]]), "two columns have the same name")
    refused(lambda: NUMBERS.table(["a", 3], [[1.0, 2.0]]), "a column is called a number")
    refused(lambda: NUMBERS.table(["a", "b", "c"], [[1.0, 2.0]]), "row 0 is 2 values: give a list of 3")
    refused(lambda: NUMBERS.matrix(np.ones((2, 3))), "the shape [2, 3]: give [n, 2]")
    refused(lambda: NUMBERS.matrix(np.ones(2)), "the shape [2]")
    refused(lambda: NUMBERS.by_column({"a": [1.0], "b": [1.0, 2.0]}), "column 'b' has 2 values, the first column 1")
    refused(lambda: TYPED.matrix(np.ones((1, 10))), "column 'word' holds category", "by its name")
    refused(lambda: NUMBERS.matrix(np.ones((1, 2), bool)), "column 'a' (double), row 0: a boolean")
    for rows in (NUMBERS.lists([]), NUMBERS.records([]), NUMBERS.table(["b", "a"], []), TYPED.lists([])):
        assert rows.n == 0


def test_whole_numbers_of_64_bits_in_tensors_stay_exact() -> None:
    """A tensor of integers may hold numbers that no double holds."""
    wide = Signature({"a": pa.int64(), "b": pa.int64()})
    refused(lambda: wide.matrix(np.array([[1, 2**60]])), "column 'b' (int64), row 0: a number out of range")
    refused(lambda: wide.by_column({"a": np.array([1]), "b": np.array([-(2**60)])}), "column 'b' (int64), row 0")
    assert wide.matrix(np.array([[1, EXACT]])).numbers.tolist() == [[1.0, float(EXACT)]]


# -- where it comes from ----------------------------------------------------------------------------------------------


def test_the_signature_of_a_stream() -> None:
    """Roles are no columns of it; one that is not sent says where it goes instead."""
    table = pa.table({"at": pa.array([], pa.timestamp("us", tz="UTC"))})
    stream = Stream(table, time="at", target="y", id="i", key="k", weight="w", drop=["z"], text=["t"], label_delay="1d")
    double, text = pa.float64(), pa.string()
    types = {"at": pa.timestamp("us"), "i": text, "k": text, "w": double, "x": double, "t": text, "y": pa.int64()}
    signature = Signature.over(stream, types)
    assert signature.names == ("x", "t")
    assert (signature.id, signature.key, signature.numeric) == ("i", "k", False)
    refused(lambda: signature.records([{"x": 1.0, "t": "", "at": "2026-01-01"}]), "server's own clock")
    refused(lambda: signature.records([{"x": 1.0, "t": "", "w": 1.0}]), "for training alone")
    refused(lambda: signature.records([{"x": 1.0, "t": "", "y": 1}]), "POST /labels")
    assert signature == Signature.over(stream, dict(types))
    assert signature != Signature.over(stream, types | {"x": pa.int64()})
