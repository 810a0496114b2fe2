"""Durations as users write them (``"7d"``) and instants as the engine counts them.

The engine counts event time in microseconds since 1970-01-01 UTC, as 64-bit integers: exact, ordered and
quick in arrays. What users see is always a ``timedelta`` or an aware UTC ``datetime``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from perennial.core.errors import ConfigError

NEVER = 2**63 - 1  #: an instant after all others: a label that never comes
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MICROSECOND = timedelta(microseconds=1)
_UNITS = {
    "us": _MICROSECOND,
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|w)\s*", re.ASCII)

Duration = str | timedelta


def duration(value: object, field: str, *, positive: bool = False) -> timedelta:
    """A duration from ``"7d"``, ``"30min"``, ``"1.5h"`` or a ``timedelta``.

    Parameters
    ----------
    value : str or timedelta
        Units: us, ms, s, min, h, d (24 hours), w.
    field : str
        The setting's name, for the error.
    positive : bool
        Refuse zero.

    Raises
    ------
    ConfigError
        If it is no duration, negative, or zero where a positive one is needed.

    Examples
    --------
    >>> duration("36h", "every")
    datetime.timedelta(days=1, seconds=43200)
    """
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        try:
            value = float(match[1]) * _UNITS[match[2]]
        except OverflowError as error:
            raise ConfigError(field, value, "give a duration below 999999999 days") from error
    if not isinstance(value, timedelta):
        raise ConfigError(field, value, "write a duration such as '30min', '12h', '7d' or '2w', or give a timedelta")
    if value < timedelta(0) or (positive and not value):
        raise ConfigError(field, str(value), f"give a {'positive' if positive else 'non-negative'} duration")
    return value


def micros(span: timedelta) -> int:
    """A duration in whole microseconds."""
    return span // _MICROSECOND


def instant(at: datetime, field: str = "time") -> int:
    """Microseconds since the epoch of an aware ``datetime``."""
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ConfigError(field, at, "give an aware datetime, e.g. datetime(2026, 1, 1, tzinfo=UTC)")
    return (at - EPOCH) // _MICROSECOND


def read_instant(text: str, zone: str | None = None, field: str = "time") -> int:
    """Microseconds of an ISO 8601 text; without an offset it is local to ``zone``, UTC unless given.

    Examples
    --------
    >>> read_instant("1970-01-01T01:00", "Europe/Berlin")
    0
    """
    from zoneinfo import ZoneInfo

    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(field, text, "write ISO 8601, e.g. 2026-01-31T12:00 or 2026-01-31T12:00+01:00") from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=ZoneInfo(zone) if zone is not None else UTC)
    return instant(at)


def moment(at: int) -> datetime:
    """The aware UTC ``datetime`` of an instant in microseconds."""
    return EPOCH + timedelta(microseconds=int(at))


def iso(at: int) -> str:
    """An instant in ISO 8601, UTC.

    Examples
    --------
    >>> iso(0), iso(1)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:00.000001Z')
    """
    return moment(at).isoformat().replace("+00:00", "Z")


def spell(span: timedelta) -> str:
    """A duration in the units that :func:`duration` reads, largest exact unit first.

    Examples
    --------
    >>> spell(timedelta(days=14)), spell(timedelta(minutes=90))
    ('14d', '90min')
    """
    if not span:
        return "0s"
    for unit in ("d", "h", "min", "s", "ms", "us"):
        count, rest = divmod(span, _UNITS[unit])
        if not rest:
            return f"{count}{unit}"
    raise AssertionError("a timedelta is a whole number of microseconds")
