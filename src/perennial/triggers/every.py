"""Checkpoints at fixed intervals of time or of labelled examples."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts
from perennial.core.records import Decision
from perennial.core.times import Duration, duration, micros, moment, spell


@dataclass(frozen=True, slots=True)
class Every:
    """Fires at a fixed checkpoint interval; build it with :func:`every`."""

    interval: timedelta | None = None
    rows: int | None = None

    def start(self) -> Any:
        """No state: the facts say all."""
        return None

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """Fire if a checkpoint of the calendar, or enough examples, came since the last training."""
        if self.rows is not None:
            return Decision(
                facts.labelled >= self.rows, f"{facts.labelled:,} newly labelled rows, interval {self.rows:,}"
            ), state
        assert self.interval is not None
        step = micros(self.interval)
        due = facts.anchor + ((facts.trained_at - facts.anchor) // step + 1) * step
        fire = facts.now >= due
        what = "checkpoint of" if fire else "next checkpoint"
        return Decision(fire, f"{what} {moment(due):%Y-%m-%d %H:%M}, every {spell(self.interval)}"), state

    def trained(self, state: Any, facts: Facts) -> Any:  # noqa: ARG002 - the protocol's arguments
        """No state."""
        return state

    def __str__(self) -> str:
        if self.interval is not None:
            return f"every {spell(self.interval)}"
        return "every row" if self.rows == 1 else f"every {self.rows:,} rows"


def every(interval: Duration | None = None, *, rows: int | None = None) -> Every:
    """A trigger that fires every ``interval``, or every ``rows`` newly labelled examples.

    Intervals form a calendar that counts from the first training: a checkpoint that fell on an idle day is made up
    at the next batch, and the one after keeps its place.

    Parameters
    ----------
    interval : str or timedelta, optional
        E.g. ``"7d"``.
    rows : int, optional
        Instead of ``interval``.

    Raises
    ------
    ConfigError
        If not exactly one is given, or it is not positive.

    Examples
    --------
    >>> str(every("7d")), str(every(rows=500))
    ('every 7d', 'every 500 rows')
    """
    if (interval is None) == (rows is None):
        raise ConfigError("every", interval, 'give either a duration, every("7d"), or rows, every(rows=500)')
    if rows is not None:
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise ConfigError("rows", rows, "give a positive whole number of rows")
        return Every(rows=rows)
    if isinstance(interval, int) and not isinstance(interval, bool):
        raise ConfigError("every", interval, f"give a duration such as '7d', or a number of rows as rows={interval}")
    return Every(interval=duration(interval, "every", positive=True))
