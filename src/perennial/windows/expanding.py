"""All examples so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from perennial.core.protocols import Cut, Keep, Selection
from perennial.core.times import Duration, duration
from perennial.windows.bounds import eligible, tail


@dataclass(frozen=True, slots=True)
class Expanding:
    """Every example whose label is known (the landmark window).

    Parameters
    ----------
    purge, embargo : str or timedelta
        As in :class:`~perennial.windows.Sliding`.
    """

    purge: timedelta = timedelta(0)
    embargo: timedelta = timedelta(0)

    def __init__(self, *, purge: Duration = timedelta(0), embargo: Duration = timedelta(0)) -> None:
        object.__setattr__(self, "purge", duration(purge, "purge"))
        object.__setattr__(self, "embargo", duration(embargo, "embargo"))

    def select(self, cut: Cut) -> Selection:
        """All eligible examples of ``cut``."""
        return Selection(index=eligible(cut, self.purge, self.embargo))

    def keep(self, now: int, label_delay: int) -> Keep:  # noqa: ARG002 - the protocol's arguments
        """Everything."""
        return Keep(everything=True)

    def __str__(self) -> str:
        return "all data so far" + tail(self.purge, self.embargo)
