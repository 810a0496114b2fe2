"""What rows and labels must hold to be learned from. Those that do not are quarantined: predicted, never learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perennial.core.errors import ConfigError
from perennial.core.features import Kind
from perennial.core.records import Batch, Joined, Label, typed


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Rules for a batch, each off unless set. Rows fewer than ``least_rows`` are not judged.

    A batch is judged by its features when it arrives, and by labels only when they are due: what is not known yet
    decides nothing.

    Parameters
    ----------
    nulls : float, optional
        Greatest share of null or NaN values in any numeric or category column.
    ranges : mapping of str to (low, high), optional
        Bounds that every non-null value of a numeric column must respect.
    duplicates : float, optional
        Greatest share of rows whose features equal those of an earlier row of the batch.
    labelled : float, optional
        Least share of the rows whose label came due in a turn that did get one. Needs a fixed label delay: of other
        labels nobody knows when they are late.
    label_rates : mapping of label to (low, high)
        Bounds on the share of a class among the labels that became known in a turn, a feed that says "no" to
        everything being worse than one that says nothing.
    least_rows : int
        Batches, and labels that come together, of fewer rows than this are not judged.
    discreet : bool
        Say what is wrong without quoting a value of a row.

    Raises
    ------
    ConfigError
        If a share is outside [0, 1] or a range is empty.
    """

    nulls: float | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    duplicates: float | None = None
    labelled: float | None = None
    label_rates: Mapping[Label, tuple[float, float]] = field(default_factory=dict)
    least_rows: int = 20
    discreet: bool = False

    def __post_init__(self) -> None:
        for name in ("nulls", "duplicates", "labelled"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(name, share, "give a share between 0 and 1")
        for column, (low, high) in self.ranges.items():
            if not low <= high:
                raise ConfigError(f"ranges.{column}", (low, high), "give (low, high) with low <= high")
        for label, (low, high) in self.label_rates.items():
            if not 0 <= low <= high <= 1:
                raise ConfigError(f"label_rates.{label}", (low, high), "give shares (low, high), 0 <= low <= high <= 1")

    @property
    def judges_labels(self) -> bool:
        """Whether labels could be quarantined as they come."""
        return self.judges_missing or bool(self.label_rates)

    @property
    def judges_missing(self) -> bool:
        """Whether rows could be quarantined since too few of those that are due have a label."""
        return self.labelled is not None

    def judges(self, rows: int) -> bool:
        """Whether a batch of so many rows could be quarantined."""
        shares = (self.nulls, self.duplicates)
        return rows >= self.least_rows and (bool(self.ranges) or any(share is not None for share in shares))

    def fault(self, batch: Batch) -> str | None:
        """Why the batch must not be learned from, in words; None if it may."""
        if not self.judges(len(batch)):
            return None
        return self._null_fault(batch) or self._range_fault(batch) or self._row_fault(batch)

    def missing_fault(self, due: int, labelled: int) -> str | None:
        """Why rows must not be learned from whose labels came due together; None if they may.

        Parameters
        ----------
        due, labelled : int
            How many rows there are, and how many of them got a label.
        """
        if self.labelled is None or due < self.least_rows or labelled >= self.labelled * due:
            return None
        return f"{labelled / due:.0%} of the {due:,} rows whose label was due have one, least {self.labelled:.0%}"

    def rate_fault(self, joined: Joined, classes: tuple[Label, ...]) -> str | None:
        """Why rows must not be learned from whose labels became known together; None if they may."""
        if joined.codes is None or not self.label_rates:
            return None
        fresh = joined.codes[~joined.revised]
        if len(fresh) < self.least_rows:
            return None
        index = {typed(label): code for code, label in enumerate(classes)}
        for label, (low, high) in self.label_rates.items():
            share = float(np.mean(fresh == index.get(typed(label), len(classes))))
            if not low <= share <= high:
                return f"{share:.1%} of {len(fresh):,} labels are {label!r}, outside [{low:.1%}, {high:.1%}]"
        return None

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
                held = "values" if self.discreet else f"{values[outside][0]:g}"
                return f"column {name!r} holds {held}, outside [{low:g}, {high:g}] ({int(outside.sum())} rows)"
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
