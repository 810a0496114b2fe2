"""The most recent examples, by time or by count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from perennial.core.protocols import Cut, Keep, Selection
from perennial.core.times import Duration, duration, micros, spell
from perennial.windows.bounds import eligible, end_of, span_or_rows, tail


@dataclass(frozen=True, slots=True)
class Sliding:
    """The examples of the last ``span``, or the last ``rows`` labelled examples.

    A trigger that fires every 70 % of ``span`` gives the third reading of "30 percent of the initial data and 70
    percent of the most recent data": each window keeps 30 % of the one before.

    Parameters
    ----------
    span : str or timedelta, optional
        Examples with event time in ``[end - span, end)``, where ``end`` is the cut less the label delay.
    rows : int, optional
        Instead of ``span``: this many newest examples by position.
    purge : str or timedelta
        How far a label looks ahead: examples whose label interval ``[t, t + purge]`` reaches past the cut are dropped.
    embargo : str or timedelta
        A further gap between the newest example and the cut.

    Raises
    ------
    ConfigError
        If not exactly one of ``span`` and ``rows`` is given, or one is not positive.

    Examples
    --------
    >>> str(Sliding("180d"))
    'the last 180d'
    """

    span: timedelta | None = None
    rows: int | None = None
    purge: timedelta = timedelta(0)
    embargo: timedelta = timedelta(0)

    def __init__(
        self,
        span: Duration | None = None,
        *,
        rows: int | None = None,
        purge: Duration = timedelta(0),
        embargo: Duration = timedelta(0),
    ) -> None:
        object.__setattr__(self, "span", span_or_rows(span, rows, "span", "a sliding window"))
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "purge", duration(purge, "purge"))
        object.__setattr__(self, "embargo", duration(embargo, "embargo"))

    def select(self, cut: Cut) -> Selection:
        """The examples of the window at ``cut``."""
        if self.span is None:
            return Selection(index=eligible(cut, self.purge, self.embargo)[-(self.rows or 0) :])
        end = end_of(cut.now, cut.label_delay, self.purge, self.embargo)
        start = end - micros(self.span)
        return Selection(index=np.flatnonzero((cut.time >= start) & (cut.time < end)))

    def keep(self, now: int, label_delay: int) -> Keep:
        """The span, or the rows and whatever is too new to count among them."""
        if self.span is None:
            return Keep(rows=self.rows or 0, until=now - micros(self.purge) - micros(self.embargo))
        return Keep(since=end_of(now, label_delay, self.purge, self.embargo) - micros(self.span))

    def __str__(self) -> str:
        what = f"the last {self.rows:,} rows" if self.span is None else f"the last {spell(self.span)}"
        return what + tail(self.purge, self.embargo)
