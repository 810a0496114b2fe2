"""The last completed period of a fixed grid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from perennial.core.protocols import Cut, Keep, Selection
from perennial.core.times import EPOCH, Duration, duration, instant, micros, moment, spell
from perennial.windows.bounds import eligible, end_of, span_or_rows, tail


@dataclass(frozen=True, slots=True)
class Tumbling:
    """The last whole period of a grid: periods follow each other and never overlap.

    Parameters
    ----------
    span : str or timedelta, optional
        Length of a period; the grid counts from ``origin``.
    rows : int, optional
        Instead of ``span``: periods of this many positions, counted from the stream's first row.
    origin : datetime, optional
        Aware instant at which a period begins; 1970-01-05 UTC, a Monday, unless given.
    purge, embargo : str or timedelta
        As in :class:`~perennial.windows.Sliding`: a period is whole once its last label may be used.

    Raises
    ------
    ConfigError
        If not exactly one of ``span`` and ``rows`` is given, one is not positive, or ``origin`` has no zone.
    """

    span: timedelta | None = None
    rows: int | None = None
    origin: datetime = EPOCH + timedelta(days=4)
    purge: timedelta = timedelta(0)
    embargo: timedelta = timedelta(0)

    def __init__(
        self,
        span: Duration | None = None,
        *,
        rows: int | None = None,
        origin: datetime = EPOCH + timedelta(days=4),
        purge: Duration = timedelta(0),
        embargo: Duration = timedelta(0),
    ) -> None:
        object.__setattr__(self, "span", span_or_rows(span, rows, "span", "a tumbling window"))
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "origin", moment(instant(origin, "origin")))
        object.__setattr__(self, "purge", duration(purge, "purge"))
        object.__setattr__(self, "embargo", duration(embargo, "embargo"))

    def _last_end(self, end: int) -> int:
        assert self.span is not None
        zero = instant(self.origin)
        return zero + (end - zero) // micros(self.span) * micros(self.span)

    def select(self, cut: Cut) -> Selection:
        """The examples of the last whole period before ``cut``; none before the first is whole."""
        if self.span is not None:
            end = self._last_end(end_of(cut.now, cut.label_delay, self.purge, self.embargo))
            return Selection(index=np.flatnonzero((cut.time >= end - micros(self.span)) & (cut.time < end)))
        assert self.rows is not None
        usable = eligible(cut, self.purge, self.embargo)
        if not len(usable):
            return Selection(index=usable)
        stop = (int(cut.position[usable[-1]]) + 1) // self.rows * self.rows
        position = cut.position[usable]
        return Selection(index=usable[(position >= stop - self.rows) & (position < stop)])

    def keep(self, now: int, label_delay: int) -> Keep:
        """The last whole period and the one that is filling."""
        if self.span is not None:
            end = self._last_end(end_of(now, label_delay, self.purge, self.embargo))
            return Keep(since=end - micros(self.span))
        assert self.rows is not None
        return Keep(rows=2 * self.rows, until=now - micros(self.purge) - micros(self.embargo))

    def __str__(self) -> str:
        what = f"{self.rows:,} rows" if self.span is None else spell(self.span)
        return f"the last whole period of {what}" + tail(self.purge, self.embargo)
