"""Calendar batches: bounds that follow from event times and a time zone alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Self, final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError
from perennial.core.times import EPOCH, Duration, duration, micros, spell

_DAY = 86_400_000_000
_MONTHS = re.compile(r"\s*(\d+)\s*mo\s*", re.ASCII)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """A span of calendar time that batches are cut by; exactly one field is not zero.

    Days, weeks and months are local: a day with a change of clocks has 23 or 25 hours. ``weeks`` begin on Monday;
    several days, weeks or months count from 1970. ``micros`` (less than a day) count from each local midnight, in
    elapsed time.
    """

    months: int = 0
    weeks: int = 0
    days: int = 0
    micros: int = 0

    @classmethod
    def of(cls, batch: Duration) -> Self:
        """A calendar from ``"1h"``, ``"1d"``, ``"2w"``, ``"1mo"`` or a ``timedelta``; 7 days are a week.

        Raises
        ------
        ConfigError
            If it is no duration, or longer than a day and not of whole days.
        """
        if isinstance(batch, str) and (match := _MONTHS.fullmatch(batch)):
            if not int(match[1]):
                raise ConfigError("batch", batch, "give a positive duration")
            return cls(months=int(match[1]))
        span = duration(batch, "batch", positive=True)
        if span < timedelta(days=1):
            return cls(micros=micros(span))
        days, rest = divmod(span, timedelta(days=1))
        if rest:
            raise ConfigError(
                "batch", spell(span), "a batch longer than a day is whole days, weeks ('1w') or months ('1mo')"
            )
        return cls(days=days) if days % 7 else cls(weeks=days // 7)

    def __str__(self) -> str:
        if self.months:
            return f"{self.months}mo"
        return f"{self.weeks}w" if self.weeks else spell(timedelta(days=self.days, microseconds=self.micros))

    def floor(self, instants: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
        """The instant at which the span of each instant begins, shape (n,); never after the instant."""
        days = local_days(instants, zone)
        if self.months:
            dates = days.astype("datetime64[D]").astype("datetime64[M]")
            first = dates - dates.astype(np.int64) % self.months
            days = first.astype("datetime64[D]").astype(np.int64)
        elif self.weeks:
            span = 7 * self.weeks
            days = (days + 3) // span * span - 3  # day 0 was a Thursday
        elif self.days:
            days = days // self.days * self.days
        midnight = _midnights(days, zone)
        if self.micros:
            midnight += np.maximum(instants - midnight, 0) // self.micros * self.micros
        return np.minimum(midnight, instants)


def local_days(instants: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """The local date of each instant, in days since 1970-01-01."""
    import pyarrow as pa
    import pyarrow.compute as pc

    local = pc.local_timestamp(pa.array(instants).cast(pa.timestamp("us", tz=zone)))
    return np.asarray(local.cast(pa.int64()).to_numpy() // _DAY)


def _midnights(days: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    unique, inverse = np.unique(days, return_inverse=True)
    return np.asarray([_midnight(int(day), zone) for day in unique], dtype=np.int64)[inverse]


@lru_cache(maxsize=4096)
def _midnight(day: int, zone: str) -> int:
    date = EPOCH.date() + timedelta(days=day)
    # where clocks skip midnight, the offset before the skip gives the instant of the skip: the day's true beginning
    return micros(datetime(date.year, date.month, date.day, tzinfo=ZoneInfo(zone)) - EPOCH)
