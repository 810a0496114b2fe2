"""JSON values as labels and columns, and what a thumb confirms."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from perennial.core.errors import DataError
from perennial.server.received import as_instant, as_value, confirmed, spelled, type_of
from perennial.stream.inbox_index import Line, judge

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "dtype", "kept"),
    [
        ("a", pa.string(), "a"), ("", pa.string(), ""), (None, pa.int64(), None), (True, pa.bool_(), True),
        (1, pa.int64(), 1), (1.0, pa.int64(), 1), (-(2**63), pa.int64(), -(2**63)), (255, pa.uint8(), 255),
        (1, pa.float64(), 1.0), (0.5, pa.float64(), 0.5), ("2026-01-01T12:00:00Z", pa.timestamp("us", "UTC"), AT),
        ("2026-01-01T13:00:00+01:00", pa.timestamp("ms", "UTC"), AT), ("2026-01-01", pa.date32(), date(2026, 1, 1)),
        ("1.50", pa.decimal128(9, 2), Decimal("1.50")),
    ],
)  # fmt: skip
def test_values_are_kept(value, dtype, kept):
    """As the type has them: whole numbers stand for fractions, and fractions that are whole for whole numbers."""
    found = as_value(value, dtype, "x")
    assert (found, type(found)) == (kept, type(kept))
    assert pa.array([found], dtype)[0].as_py() == kept


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        (1, pa.string(), "x: 1; it holds text"),
        ("a", pa.bool_(), 'x: "a"; it holds true or false'),
        (1, pa.bool_(), "x: 1; it holds true or false"),
        (True, pa.int64(), "x: true; it holds a whole number, int64"),
        (0.5, pa.int64(), "x: 0.5; it holds a whole number, int64"),
        (2**63, pa.int64(), "it holds a whole number, int64"),
        (float(2**60), pa.int64(), "it holds a whole number, int64"),
        (256, pa.uint8(), "x: 256; it holds a whole number, uint8"),
        (-1, pa.uint8(), "x: -1; it holds a whole number, uint8"),
        (True, pa.float64(), "x: true; it holds a number"),
        ("1", pa.float64(), 'x: "1"; it holds a number'),
        ([1] * 99, pa.string(), r"x: \[1, 1, .{20,40}\.\.\.; it holds text"),
        ("2026-01-01", pa.timestamp("us", "UTC"), "x: write a time as"),
        ("soon", pa.date32(), 'x: "soon"; it holds date32'),
        ([], pa.decimal128(9, 2), r"x: \[\]; it holds decimal128"),
        ("0001-01-01T00:00:00+23:59", pa.timestamp("us", "UTC"), "it holds a time in the years 1 to 9999"),
        ("9999-12-31T23:59:59-23:59", pa.timestamp("us", "UTC"), "it holds a time in the years 1 to 9999"),
        ("9999-12-31T23:59:59Z", pa.timestamp("us", "Europe/Berlin"), "it holds a time in the years 1 to 9999"),
        ("0000-01-01", pa.date32(), "it holds date32"),
    ],
)
def test_values_of_another_kind_are_refused(value, dtype, told):
    """With the name, what was sent, cut short, and the rule."""
    with pytest.raises(DataError, match=told):
        as_value(value, dtype, "x")


def test_an_instant_has_an_offset():
    """Text without one is no instant."""
    assert as_instant("1970-01-01T00:00:01.000002Z", "time") == 1_000_002
    for wrong in ("1970-01-01T00:00:01", "yesterday", 5, "2" * 50):
        with pytest.raises(DataError, match="time: write a time as 2026-01-31T12:00:00Z, with its offset"):
            as_instant(wrong, "time")


def test_an_instant_is_of_this_time():
    """Calendars and positions count with the years that Python has; nothing that is served happened long ago."""
    assert as_instant("2200-12-31T23:59:59Z", "time") == 7_289_654_399_000_000
    for wrong in (
        "0001-01-01T00:00:00+23:59",
        "1969-12-31T23:59:59Z",
        "2201-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
    ):
        with pytest.raises(DataError, match="give a time from 1970 to 2200"):
            as_instant(wrong, "time")


def test_the_first_label_says_the_type():
    """Booleans are not numbers."""
    assert [type_of(value) for value in (True, 1, 0.5, "a")] == [pa.bool_(), pa.int64(), pa.float64(), pa.string()]


@pytest.mark.parametrize(
    ("label", "classes", "up", "down"),
    [
        ("a", ("a", "b"), "a", "b"),
        (1, (0, 1), 1, 0),
        (False, (False, True), False, True),
        ("a", ("a", "b", "c"), "a", None),
    ],
)
def test_a_thumb_confirms_what_was_said(label, classes, up, down):
    """Of two classes down is the other; of more nobody knows which."""
    said = spelled(label, classes)
    assert (confirmed(said, up=True), confirmed(said, up=False)) == (up, down)


def test_a_repeated_label_may_be_newer():
    """It stands from its newest time on: one observed in between is older."""
    _, line = judge(None, b"yes", 1, 10)
    came, line = judge(line, b"yes", 5, 11)
    assert (came, line) == ("repeated", Line(b"yes", 5, 10))
    assert judge(line, b"no", 3, 12) == ("older", line)
    assert judge(line, b"yes", 3, 12) == ("repeated", line)
    assert judge(line, b"no", 5, 12)[0] == "revised"
