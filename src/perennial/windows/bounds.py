"""Where every window ends: the cut less label delay, purge and embargo."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError
from perennial.core.protocols import Cut
from perennial.core.times import Duration, duration, micros, spell


def span_or_rows(span: Duration | None, rows: int | None, field: str, what: str) -> timedelta | None:
    """The span of a window that is given by time or by rows, checked: exactly one of the two, and positive.

    Raises
    ------
    ConfigError
        If both or neither are given, or what is given is not positive.
    """
    if (span is None) == (rows is None):
        raise ConfigError(field, span, f"give {what} either a duration or rows=, and not both")
    if rows is not None:
        check_rows(rows)
        return None
    if isinstance(span, int) and not isinstance(span, bool):
        raise ConfigError(field, span, f"give {what} a duration such as '30d', or a number of rows as rows={span}")
    return duration(span, field, positive=True)


def check_rows(rows: object) -> None:
    """Raise ``ConfigError`` unless ``rows`` is a positive whole number."""
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ConfigError("rows", rows, "give a positive whole number of rows")


def end_of(now: int, label_delay: int, purge: timedelta, embargo: timedelta) -> int:
    """The exclusive end of a window in time: labels of earlier examples are known, and look no further than the cut."""
    return now - max(label_delay, micros(purge)) - micros(embargo)


def eligible(cut: Cut, purge: timedelta, embargo: timedelta) -> NDArray[np.int64]:
    """Indices of the cut's examples whose label interval ``[t, t + purge]`` closed by the cut less the embargo.

    Windows counted in rows use this: with neither purge nor embargo, every known example is eligible.
    """
    guard = micros(purge) + micros(embargo)
    if not guard:
        return np.arange(len(cut.position))
    return np.flatnonzero(cut.time <= cut.now - guard)


def tail(purge: timedelta, embargo: timedelta) -> str:
    """How purge and embargo are told in a window's description."""
    parts = [f"{name} {spell(value)}" for name, value in (("purge", purge), ("embargo", embargo)) if value]
    return f" ({', '.join(parts)})" if parts else ""
