"""What a batch must hold to be learned from. One that does not is quarantined: predicted, and never learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perennial.core.errors import ConfigError
from perennial.core.features import Kind
from perennial.core.records import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Rules for a batch, each off unless set. Rows fewer than ``least_rows`` are not judged.

    Parameters
    ----------
    nulls : float, optional
        Greatest share of null or NaN values in any numeric or category column.
    ranges : mapping of str to (low, high), optional
        Bounds that every non-null value of a numeric column must respect.
    duplicates : float, optional
        Greatest share of rows whose features equal those of an earlier row of the batch.
    least_rows : int
        Batches with fewer rows than this are not judged.

    Raises
    ------
    ConfigError
        If a share is outside [0, 1] or a range is empty.
    """

    nulls: float | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    duplicates: float | None = None
    least_rows: int = 20

    def __post_init__(self) -> None:
        for name in ("nulls", "duplicates"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(name, share, "give a share between 0 and 1")
        for column, (low, high) in self.ranges.items():
            if not low <= high:
                raise ConfigError(f"ranges.{column}", (low, high), "give (low, high) with low <= high")

    def judges(self, rows: int) -> bool:
        """Whether a batch of so many rows could be quarantined."""
        shares = (self.nulls, self.duplicates)
        return rows >= self.least_rows and (bool(self.ranges) or any(share is not None for share in shares))

    def fault(self, batch: Batch) -> str | None:
        """Why the batch must not be learned from, in words; None if it may."""
        if not self.judges(len(batch)):
            return None
        return self._null_fault(batch) or self._range_fault(batch) or self._row_fault(batch)

    def _null_fault(self, batch: Batch) -> str | None:
        if self.nulls is None:
            return None
        for column in batch.features.schema.columns:
            values = _values(batch, column.name)
            missing = (values < 0) if column.kind is Kind.CATEGORY else _missing(values)
            share = float(np.mean(missing))
            if share > self.nulls:
                return f"column {column.name!r} is {share:.0%} null, limit {self.nulls:.0%}"
        return None

    def _range_fault(self, batch: Batch) -> str | None:
        for name, (low, high) in self.ranges.items():
            values = _values(batch, name).astype(float)
            outside = (values < low) | (values > high)
            if outside.any():
                worst = values[outside][0]
                return f"column {name!r} holds {worst:g}, outside [{low:g}, {high:g}] ({int(outside.sum())} rows)"
        return None

    def _row_fault(self, batch: Batch) -> str | None:
        if self.duplicates is not None:
            share = 1 - len(np.unique(np.ascontiguousarray(batch.rows).view("V16"))) / len(batch)
            if share > self.duplicates:
                return f"{share:.0%} of the rows repeat another, limit {self.duplicates:.0%}"
        return None


def _values(batch: Batch, name: str) -> Any:
    """A column of the whole batch, however many chunks its rows lie in."""
    return np.concatenate([chunk.table.column(name).to_numpy()[index] for chunk, index in batch.features.parts])


def _missing(values: Any) -> Any:
    return np.array([v is None or v != v for v in values]) if values.dtype == object else values != values
