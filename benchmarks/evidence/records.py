"""What a part of the evidence gives: goals with what was reached, tables, and what must be said beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Cell = str | float | int | None


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A number that was promised, and the one that was measured.

    ``value`` is None where it could not be measured; ``note`` then says why.
    """

    what: str
    value: float | None
    limit: float
    way: Literal["at most", "at least"]
    note: str = ""

    @property
    def holds(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.limit if self.way == "at most" else self.value >= self.limit

    @property
    def missed_by(self) -> float:
        """How far the value is on the wrong side of the limit; 0 if it holds."""
        if self.value is None:
            return float("nan")
        gap = self.value - self.limit if self.way == "at most" else self.limit - self.value
        return max(0.0, gap)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under columns."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the things to show."""

    name: str
    title: str
    goals: Sequence[Goal]
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
