"""Durations and instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.core.errors import ConfigError
from perennial.core.times import EPOCH, NEVER, duration, instant, micros, moment, spell


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("7d", timedelta(days=7)),
        ("30min", timedelta(minutes=30)),
        ("1.5h", timedelta(minutes=90)),
        ("2w", timedelta(days=14)),
        (" 12 h ", timedelta(hours=12)),
        ("250ms", timedelta(milliseconds=250)),
        ("5us", timedelta(microseconds=5)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_read_as_written(text: str, span: timedelta) -> None:
    """Every unit is understood, with spaces and decimals."""
    assert duration(text, "every") == span


@pytest.mark.parametrize(
    "value",
    ["", "7", "d", "7 days", "7D", "-7d", "+7d", "1e3s", "1m", "1d12h", ".5h", "٧d", "7d\n8d", 7, 7.0, None, True],
)
def test_what_is_no_duration_is_refused_by_name(value: object) -> None:
    """An error names the setting, the value and how durations are written."""
    with pytest.raises(ConfigError, match="30min") as caught:
        duration(value, "least_gap")
    assert caught.value.field == "least_gap"
    assert caught.value.got == value


def test_negative_and_zero_durations() -> None:
    """Negative is never a duration; zero is one unless a positive one is needed."""
    assert duration(timedelta(0), "gap") == timedelta(0)
    with pytest.raises(ConfigError, match="non-negative"):
        duration(timedelta(days=-1), "gap")
    for zero in ("0d", timedelta(0), "0.1us"):
        with pytest.raises(ConfigError, match="positive"):
            duration(zero, "gap", positive=True)


@pytest.mark.parametrize("text", ["9999999999d", "99999999999999999999999w", "9" * 400 + "s"])
def test_a_duration_that_no_calendar_holds_is_a_config_error(text: str) -> None:
    """A number that overflows is refused like any other wrong setting."""
    with pytest.raises(ConfigError):
        duration(text, "every")


@settings(max_examples=80, deadline=None)
@given(st.timedeltas(timedelta(0), timedelta(days=36_500)))
def test_spelling_a_duration_can_be_read_back(span: timedelta) -> None:
    """`duration` reads what `spell` writes."""
    assert duration(spell(span), "any") == span
    assert micros(span) == span / timedelta(microseconds=1)


@settings(max_examples=50, deadline=None)
@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_an_instant_can_be_read_back(at: datetime) -> None:
    """Microseconds and aware UTC datetimes say the same."""
    assert moment(instant(at)) == at
    assert moment(instant(at)).tzinfo is UTC


def test_an_instant_does_not_depend_on_the_zone_it_is_told_in() -> None:
    """The same instant in two zones is one number."""
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert instant(east) == instant(datetime(2026, 1, 1, tzinfo=UTC))
    assert instant(EPOCH) == 0
    assert instant(EPOCH - timedelta(microseconds=1)) == -1
    assert instant(datetime.max.replace(tzinfo=UTC)) < NEVER


def test_a_naive_datetime_is_refused() -> None:
    """A datetime without a zone is no instant."""
    with pytest.raises(ConfigError, match="aware"):
        instant(datetime(2026, 1, 1))
