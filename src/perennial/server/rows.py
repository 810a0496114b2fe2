"""What the parts of the server hand to each other: rows as they were asked about, and what was said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import Prediction


@dataclass(slots=True, kw_only=True)
class Rows:
    """Rows of one request, checked against the signature.

    Parameters
    ----------
    n : int
        How many.
    numbers : array of float64, shape (n, d)
        A column for each of the d raw columns of the signature, in its order: numbers and booleans by value, NaN for a
        null. Columns of other kinds are NaN here.
    others : dict of str to list
        Raw columns that are no numbers, by name: words, prose, times; None for a null.
    ids : list of str, optional
        The stream's own ids, where the request gave them.
    keys : list, optional
        Values of the stream's key column, where it has one.
    """

    n: int
    numbers: NDArray[np.float64]
    others: dict[str, list[Any]]
    ids: list[str] | None = None
    keys: list[Any] | None = None


@dataclass(slots=True, kw_only=True)
class Answered:
    """One request that was answered, to be logged: ``time`` in microseconds, and an id per row.

    ``request`` is its id where the client gave it and it stands for these rows: it is known once they are durable.
    ``shadow`` is what a challenger said of the same rows, if it was asked; ``version`` and ``shadow[0]`` are numbers
    of versions.
    """

    time: int
    ids: list[str]
    rows: Rows
    version: str
    prediction: Prediction
    shadow: tuple[str, Prediction] | None = None
    request: str | None = None
