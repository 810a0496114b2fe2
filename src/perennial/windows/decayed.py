"""All examples, the older the lighter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from perennial.core.errors import ConfigError
from perennial.core.protocols import Cut, Keep, Selection
from perennial.core.times import Duration, duration, micros, spell
from perennial.windows.bounds import eligible, end_of, span_or_rows, tail


@dataclass(frozen=True, slots=True)
class Decayed:
    """Examples with weight ``2 ** (-age / half_life)``, until the weight falls below ``floor``.

    Age counts from the window's end for a half-life in time, and from the newest example for one in rows, which thus
    weighs 1. The sum of weights is about 1.44 half-lives of rows; the Kish sample size ``(sum w)^2 / sum w^2`` is
    about 2.9 (SCIENCE: window bias and variance).

    Parameters
    ----------
    half_life : str or timedelta, optional
        Age at which an example weighs half.
    rows : int, optional
        Instead of ``half_life``: the half-life in examples.
    floor : float
        Lightest weight kept, in (0, 1): what bounds memory.
    purge, embargo : str or timedelta
        As in :class:`~perennial.windows.Sliding`.

    Raises
    ------
    ConfigError
        If not exactly one half-life is given, or ``floor`` is not within (0, 1).
    """

    half_life: timedelta | None = None
    rows: int | None = None
    floor: float = 1e-3
    purge: timedelta = timedelta(0)
    embargo: timedelta = timedelta(0)

    def __init__(
        self,
        half_life: Duration | None = None,
        *,
        rows: int | None = None,
        floor: float = 1e-3,
        purge: Duration = timedelta(0),
        embargo: Duration = timedelta(0),
    ) -> None:
        object.__setattr__(self, "half_life", span_or_rows(half_life, rows, "half_life", "a half-life"))
        object.__setattr__(self, "rows", rows)
        if not isinstance(floor, int | float) or not 0 < floor < 1:
            raise ConfigError("floor", floor, "give a weight between 0 and 1, e.g. 0.001")
        object.__setattr__(self, "floor", float(floor))
        object.__setattr__(self, "purge", duration(purge, "purge"))
        object.__setattr__(self, "embargo", duration(embargo, "embargo"))

    @property
    def _lives(self) -> float:
        """Half-lives after which an example weighs less than the floor."""
        return math.log2(1 / self.floor)

    def select(self, cut: Cut) -> Selection:
        """The examples that weigh at least ``floor`` at ``cut``, with their weights."""
        if self.half_life is not None:
            end = end_of(cut.now, cut.label_delay, self.purge, self.embargo)
            index = np.flatnonzero((cut.time >= end - self._reach) & (cut.time < end))
            return Selection(index=index, weights=np.exp2((cut.time[index] - end) / micros(self.half_life)))
        assert self.rows is not None
        index = eligible(cut, self.purge, self.embargo)[-self._count :]
        return Selection(index=index, weights=np.exp2(np.arange(1 - len(index), 1) / self.rows))

    @property
    def _reach(self) -> int:
        assert self.half_life is not None
        return math.floor(self._lives * micros(self.half_life))

    @property
    def _count(self) -> int:
        assert self.rows is not None
        return math.floor(self._lives * self.rows) + 1  # the newest has age 0

    def keep(self, now: int, label_delay: int) -> Keep:
        """As far back as a weight reaches the floor."""
        if self.half_life is not None:
            return Keep(since=end_of(now, label_delay, self.purge, self.embargo) - self._reach)
        assert self.rows is not None
        return Keep(rows=self._count, until=now - micros(self.purge) - micros(self.embargo))

    def __str__(self) -> str:
        what = f"{self.rows:,} rows" if self.half_life is None else spell(self.half_life)
        return f"weights halved every {what}" + tail(self.purge, self.embargo)
