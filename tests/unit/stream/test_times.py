"""Columns of times as instants, and calendar batches in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from perennial.core.errors import DataError
from perennial.core.times import NEVER, instant, moment
from perennial.stream.calendar import Calendar
from perennial.stream.instants import Instants

LISBON = "Europe/Lisbon"  # clocks: 2026-03-29 01:00 -> 02:00, 2026-10-25 02:00 -> 01:00


def instants(values: list[Any], dtype: Any, zone: str | None = None) -> list[datetime]:
    """A column of times, as the instants it means."""
    found = Instants("at", dtype, zone).convert(pa.array(values, dtype), 0, "")
    return [moment(i) for i in found]


def test_every_way_to_write_a_time() -> None:
    """Timestamps of any unit, dates and ISO text mean the same instants."""
    want = [datetime(2026, 1, 31, tzinfo=UTC)]
    naive = datetime(2026, 1, 31)
    for unit in ("s", "ms", "us", "ns"):
        assert instants([naive], pa.timestamp(unit)) == want
        assert instants([want[0]], pa.timestamp(unit, "Asia/Tokyo")) == want
    assert instants([naive.date()], pa.date32()) == want
    assert instants([naive], pa.date64()) == want
    for text in ("2026-01-31", "2026-01-31 00:00", "2026-01-31T00:00:00.000000000", "2026-01-31T01:00:00+01:00"):
        assert instants([text], pa.string()) == want
    assert instants(["1969-12-31T23:59:59.999999999"], pa.string())[0] == datetime(
        1969, 12, 31, 23, 59, 59, 999999, UTC
    )


def test_a_null_is_never() -> None:
    """A missing time is an instant that never comes."""
    assert Instants("k", pa.timestamp("us"), None).convert(pa.array([None], pa.timestamp("us")), 0, "").tolist() == [
        NEVER
    ]


def test_naive_times_are_local() -> None:
    """Naive times are those of the stated zone."""
    got = instants([datetime(2026, 1, 31, 12), datetime(2026, 7, 31, 12)], pa.timestamp("us"), LISBON)
    assert got == [datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 7, 31, 11, tzinfo=UTC)]


@pytest.mark.parametrize("cut", range(1, 6))
def test_an_hour_that_clocks_repeat(cut: int) -> None:
    """Of two readings the earlier is taken unless it would go back, wherever blocks end."""
    local = [datetime(2026, 10, 25, h, m) for h, m in [(0, 59), (1, 10), (1, 50), (1, 0), (1, 30), (2, 0)]]
    column = pa.array(local, pa.timestamp("us"))
    read = Instants("at", column.type, LISBON)
    found = [*read.convert(column[:cut], 0, ""), *read.convert(column[cut:], cut, "")]
    clock = [(moment(i).hour, moment(i).minute) for i in found]
    assert clock == [(23, 59), (0, 10), (0, 50), (1, 0), (1, 30), (2, 0)]


def test_an_hour_that_clocks_skip() -> None:
    """A local time that never was is refused: the stated zone is probably wrong."""
    with pytest.raises(DataError, match=r"row 1, counting from 0: 2026-03-29 01:30:00 never was in Europe/Lisbon"):
        instants([datetime(2026, 3, 29, 0), datetime(2026, 3, 29, 1, 30)], pa.timestamp("us"), LISBON)


@pytest.mark.parametrize("bad", ["soon", "31.01.2026", "2026-02-30", "1767225600"])
def test_text_that_is_no_time(bad: str) -> None:
    """The first text that is no time is named with its row."""
    with pytest.raises(DataError, match=f"row 1, counting from 0: '{bad}' is no time"):
        instants(["2026-01-01", bad], pa.string())


def test_offsets_in_some_rows_only() -> None:
    """Times with and without offset are not mixed."""
    with pytest.raises(DataError, match="some times carry an offset, some do not"):
        instants(["2026-01-01T00:00:00", "2026-01-01T00:00:00Z"], pa.string())


def floors(batch: str, zone: str, *at: datetime) -> list[datetime]:
    """Starts of the calendar batches of some instants."""
    found = Calendar.of(batch).floor(np.array([instant(a) for a in at]), zone)
    return [moment(i).astimezone(ZoneInfo(zone)) for i in found]


def test_a_day_with_a_change_of_clocks() -> None:
    """Days begin at local midnight, whether they have 23 or 25 hours."""
    zone = ZoneInfo(LISBON)
    for day in (29, 30):
        late = datetime(2026, 3, day, 23, 59, tzinfo=zone)
        assert floors("1d", LISBON, late) == [datetime(2026, 3, day, tzinfo=zone)]
    for day in (24, 25, 26):
        early, late = datetime(2026, 10, day, tzinfo=zone), datetime(2026, 10, day, 23, 59, tzinfo=zone)
        assert floors("1d", LISBON, early, late) == [early, early]
    repeated = [datetime(2026, 10, 25, 1, 30, tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    starts = Calendar.of("1h").floor(np.array([instant(a) for a in repeated]), LISBON)
    assert [moment(i).hour for i in starts] == [0, 1]  # two batches in UTC, both at one o'clock


def test_a_day_whose_midnight_is_skipped() -> None:
    """Where clocks skip midnight, the day begins at the skip."""
    zone = "America/Sao_Paulo"  # 2018-11-04 00:00 -> 01:00
    first = datetime(2018, 11, 4, 3, 0, tzinfo=UTC)
    assert floors("1d", zone, first, first.replace(hour=9)) == [first, first]
    before = datetime(2018, 11, 4, 2, 59, tzinfo=UTC)
    assert floors("1d", zone, before) == [datetime(2018, 11, 3, 3, 0, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("batch", "want"),
    [
        ("1w", datetime(2026, 5, 11)),  # a Monday
        ("7d", datetime(2026, 5, 11)),
        ("1mo", datetime(2026, 5, 1)),
        ("3mo", datetime(2026, 4, 1)),
        ("12mo", datetime(2026, 1, 1)),
        ("1d", datetime(2026, 5, 13)),
        ("6h", datetime(2026, 5, 13, 12)),
        ("7h", datetime(2026, 5, 13, 14)),
        ("15min", datetime(2026, 5, 13, 17, 30)),
    ],
)
def test_spans(batch: str, want: datetime) -> None:
    """Weeks begin on Monday, months on their first day, and shorter spans count from local midnight."""
    zone = ZoneInfo("Asia/Kolkata")
    assert floors(batch, "Asia/Kolkata", datetime(2026, 5, 13, 17, 44, 59, tzinfo=zone)) == [want.replace(tzinfo=zone)]


def test_a_calendar_spells_itself() -> None:
    """A calendar is written as it is read."""
    assert [str(Calendar.of(b)) for b in ("90min", "1d", "14d", "2mo", "10d")] == ["90min", "1d", "2w", "2mo", "10d"]
