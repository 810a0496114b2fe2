"""What is scored, what a metric is, and how scores over time are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import DataError
from perennial.core.records import Label, TaskKind


def default_positive(classes: Sequence[Label]) -> int | None:
    """Index of the greater of two classes, as scikit-learn has it; None unless there are two that can be ordered.

    Examples
    --------
    >>> default_positive(("yes", "no")), default_positive((0, 1)), default_positive(("a", "b", "c"))
    (0, 1, None)
    """
    if len(classes) != 2:
        return None
    first, second = classes
    if isinstance(first, str) != isinstance(second, str):
        return None
    return int(second > first)  # type: ignore[operator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Rows that have a label and a prediction, in order of position: what every metric reads.

    Arrays are only read, in slices, and may be memory maps.

    Parameters
    ----------
    codes, predicted : array of int32, shape (n,)
        Classification: true and predicted class. A prediction of :data:`~perennial.core.records.UNSEEN` is wrong.
    proba : array of float64, shape (n, k), optional
        Probabilities, columns in the order of ``classes``. A class beyond the last column has probability 0. A row
        that holds NaN makes every score that reads it undefined.
    classes : tuple
        The class table.
    positive : int, optional
        The class that a two-class metric is about, against all others. None takes :func:`default_positive`; where
        that is None too, such a metric is the plain mean over the classes that the labels name.
    values, predicted_values : array of float64, shape (n,)
        Regression: labels and predictions.
    weights : array of float64, shape (n,), optional
        Non-negative; None means all ones.
    reference : array of int32 or float64, shape (n,), optional
        What repeating the last known label would have predicted; -1 or NaN where none was known.

    Raises
    ------
    DataError
        If labels and predictions are not there in pairs or arrays differ in length.
    """

    codes: NDArray[np.int32] | None = None
    predicted: NDArray[np.int32] | None = None
    proba: NDArray[np.float64] | None = None
    classes: tuple[Label, ...] = ()
    positive: int | None = None
    values: NDArray[np.float64] | None = None
    predicted_values: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    reference: NDArray[np.int32] | NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        pair = (self.codes, self.predicted) if self.values is None else (self.values, self.predicted_values)
        if pair[0] is None or pair[1] is None:
            raise DataError("scored rows need `codes` and `predicted`, or `values` and `predicted_values`")
        rows = len(pair[0])
        for name in ("predicted", "predicted_values", "proba", "weights", "reference"):
            array = getattr(self, name)
            if array is not None and len(array) != rows:
                raise DataError(f"{name} has {len(array)} rows and the labels have {rows}: align them by position")

    def __len__(self) -> int:
        first = self.codes if self.values is None else self.values
        assert first is not None
        return len(first)

    @property
    def task(self) -> TaskKind:
        """``"classification"`` or ``"regression"``."""
        return "classification" if self.values is None else "regression"

    @property
    def target(self) -> int | None:
        """Index of the positive class, by ``positive`` or by default; None if there is none."""
        return default_positive(self.classes) if self.positive is None else self.positive

    def slice(self, start: int, stop: int) -> Scored:
        """Rows ``[start, stop)``, sharing memory."""
        return Scored(
            codes=None if self.codes is None else self.codes[start:stop],
            predicted=None if self.predicted is None else self.predicted[start:stop],
            proba=None if self.proba is None else self.proba[start:stop],
            classes=self.classes,
            positive=self.positive,
            values=None if self.values is None else self.values[start:stop],
            predicted_values=None if self.predicted_values is None else self.predicted_values[start:stop],
            weights=None if self.weights is None else self.weights[start:stop],
            reference=None if self.reference is None else self.reference[start:stop],
        )


@runtime_checkable
class Metric(Protocol):
    """A score over rows. Anything with these members will do; what this package makes is computed faster."""

    @property
    def name(self) -> str:
        """How reports and settings call it."""
        ...

    @property
    def greater_is_better(self) -> bool:
        """Whether more is better."""
        ...

    @property
    def needs_proba(self) -> bool:
        """Whether it reads probabilities; it is None for a model that gives none."""
        ...

    @property
    def task(self) -> TaskKind | None:
        """The kind of task it is for; None for any."""
        ...

    def compute(self, scored: Scored) -> float | None:
        """The score over all rows; None where it is undefined, never NaN."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Scores over time, one entry per batch in every list.

    Parameters
    ----------
    rows : list of int
        Scored rows in each batch.
    batches : dict of metric name to list
        The score of each batch alone; None where undefined.
    cumulative : dict of metric name to list
        The score over all rows up to the end of each batch; None where undefined, and at the batches where a metric
        that cannot be added up was not computed.
    """

    rows: list[int]
    batches: dict[str, list[float | None]] = field(default_factory=dict)
    cumulative: dict[str, list[float | None]] = field(default_factory=dict)


def optional(value: float) -> float | None:
    """The value; None in place of NaN and infinities, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def optionals(values: NDArray[np.float64]) -> list[float | None]:
    """As :func:`optional`, for each of an array."""
    fine = np.isfinite(values)
    out: list[float | None] = values.tolist()
    for i in np.flatnonzero(~fine).tolist():
        out[i] = None
    return out
