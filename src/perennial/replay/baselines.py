"""The no-skill lines: what repeating the last label, or the commonest one, would have scored.

All are functions of whole arrays in order of position, and use for a row or batch only labels of rows before it that
were known by its instant. A row without a label is one whose ``known_at`` is ``NEVER``, whose code is negative or whose
value is NaN; it gives nothing and is predicted like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import ABSTAINED
from perennial.core.times import NEVER

Ints = NDArray[np.int64]

_ROWS = 2**20  # rows whose temporary arrays are held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """Predicted class of each row, int32 (n,), -1 where no label was known; and the shares of classes, (n, k).

    Rows without a known label have shares of 0.
    """

    predicted: NDArray[np.int32]
    proba: NDArray[np.float64]


def no_change(labels: NDArray[Any], time: Ints, known_at: Ints) -> NDArray[Any]:
    """For each row the label of the latest row before it whose label was known at its event time.

    Parameters
    ----------
    labels : array of int32 (codes) or float64 (values), shape (n,)
        In order of position.
    time, known_at : array of int64, shape (n,)
        Event time of each row and the instant at which its label became known, in any order.

    Returns
    -------
    array, shape (n,)
        Of the same type: -1 or NaN where no label was known.
    """
    return _pick(labels, _latest(_usable(labels, known_at), np.arange(len(labels)), time))


def no_change_by_batch(labels: NDArray[Any], known_at: Ints, start: Ints, first: Ints) -> NDArray[Any]:
    """As :func:`no_change`, with only the labels of earlier batches that were known at the batch's start.

    Parameters
    ----------
    start, first : array of int64, shape (b,)
        Each batch's instant and the position of its first row; ``first`` does not decrease. What was known to a batch
        stays known to later ones, also if their instant is earlier.
    """
    index = _latest(_usable(labels, known_at), first, np.maximum.accumulate(start))
    return _by_row(_pick(labels, index), first, len(labels))


def majority(codes: NDArray[np.int32], known_at: Ints, starts: Ints, firsts: Ints, classes: int) -> Majority:
    """For each row the commonest class among labels of earlier batches known at its batch's start.

    Of equally common classes the one with the smallest code is taken. Shares are those observed, not smoothed: a class
    that no known label had is given 0, which the log loss then floors as it does for a model without that class.

    Parameters
    ----------
    starts, firsts : array of int64, shape (b,)
        As in :func:`no_change_by_batch`.
    classes : int
        Size of the class table.
    """
    proba = np.zeros((len(codes), classes))
    predicted = np.full(len(codes), ABSTAINED, dtype=np.int32)
    edges = np.append(firsts, len(codes))
    carry = np.zeros(classes)
    for low, high, rows, batch in _arrivals(_usable(codes, known_at), starts, firsts, max(_ROWS // max(classes, 1), 1)):
        cells = np.bincount(batch * classes + codes[rows], minlength=(high - low) * classes)
        counts = np.cumsum(cells.reshape(high - low, classes), axis=0) + carry
        carry = counts[-1]
        total = counts.sum(axis=1)
        sizes = np.diff(edges[low : high + 1])
        here = slice(int(edges[low]), int(edges[high]))
        shares = np.divide(counts, total[:, None], out=np.zeros(counts.shape), where=total[:, None] > 0)
        most = np.where(total > 0, np.argmax(counts, axis=1), ABSTAINED) if classes else np.full(high - low, ABSTAINED)
        predicted[here] = np.repeat(most, sizes)
        proba[here] = np.repeat(shares, sizes, axis=0)
    return Majority(predicted=predicted, proba=proba)


def mean(values: NDArray[np.float64], known_at: Ints, starts: Ints, firsts: Ints) -> NDArray[np.float64]:
    """For each row the mean of labels of earlier batches known at its batch's start; NaN where none was.

    Parameters
    ----------
    starts, firsts : array of int64, shape (b,)
        As in :func:`no_change_by_batch`.
    """
    out = np.full(len(firsts), np.nan)
    total, count = 0.0, 0.0
    for low, high, rows, batch in _arrivals(_usable(values, known_at), starts, firsts, _ROWS):
        totals = np.cumsum(np.bincount(batch, values[rows], minlength=high - low)) + total
        counts = np.cumsum(np.bincount(batch, minlength=high - low)) + count
        total, count = float(totals[-1]), float(counts[-1])
        np.divide(totals, counts, out=out[low:high], where=counts > 0)
    return _by_row(out, firsts, len(values))


def _usable(labels: NDArray[Any], known_at: Ints) -> Ints:
    """Instants at which labels become known, ``NEVER`` for rows without one."""
    missing = np.isnan(labels) if labels.dtype.kind == "f" else labels < 0
    return np.where(missing, NEVER, known_at)


def _pick(labels: NDArray[Any], index: Ints) -> NDArray[Any]:
    nothing = np.nan if labels.dtype.kind == "f" else ABSTAINED
    out = np.full(len(index), nothing, dtype=labels.dtype)
    found = index >= 0
    out[found] = labels[index[found]]
    return out


def _by_row(values: NDArray[Any], first: Ints, rows: int) -> NDArray[Any]:
    """A value of each batch for each of its rows; nothing for rows before the first batch."""
    nothing = np.nan if values.dtype.kind == "f" else ABSTAINED
    out = np.full(rows, nothing, dtype=values.dtype)
    if len(first):
        out[int(first[0]) :] = np.repeat(values, np.diff(np.append(first, rows)))
    return out


def _latest(known: Ints, before: Ints, at: Ints) -> Ints:
    """For each query the greatest ``j < before`` with ``known[j] <= at``; -1 if there is none.

    A tree of minima over ``known`` is climbed from ``before`` to the left until a node holds one, and descended to the
    last one in it: O(log n) steps, each over all queries that still need it.
    """
    levels = [known]
    while len(levels[-1]) > 1:
        below = levels[-1]
        even = len(below) // 2 * 2
        level = np.minimum(below[0:even:2], below[1:even:2])
        levels.append(np.append(level, below[even:]))
    out = np.empty(len(before), dtype=np.int64)
    for low in range(0, len(before), _ROWS):
        part = slice(low, low + _ROWS)
        out[part] = _search(levels, before[part], at[part])
    return out


def _search(levels: list[Ints], before: Ints, at: Ints) -> Ints:
    node = np.full(len(before), -1, dtype=np.int64)
    height = np.zeros(len(before), dtype=np.int8)
    open_ = np.flatnonzero(before > 0)
    bound = before[open_].astype(np.int64)  # candidates are the nodes left of it, on the current level
    for h, level in enumerate(levels):
        left = bound - 1
        hit = (bound & 1 == 1) & (level[left] <= at[open_])
        node[open_[hit]], height[open_[hit]] = left[hit], h
        bound >>= 1
        going = ~hit & (bound > 0)
        open_, bound = open_[going], bound[going]
        if not len(open_):
            break
    for h in range(len(levels) - 1, 0, -1):
        inside = np.flatnonzero((height >= h) & (node >= 0))
        if not len(inside):
            continue
        below = levels[h - 1]
        right = np.minimum(2 * node[inside] + 1, len(below) - 1)  # the last node of a level may have one child
        node[inside] = np.where(below[right] <= at[inside], right, 2 * node[inside])
    return node


def _arrivals(known: Ints, starts: Ints, firsts: Ints, most: int) -> Iterator[tuple[int, int, Ints, Ints]]:
    """Runs of up to ``most`` batches ``[low, high)``, the rows first usable in them, and in which one, from 0."""
    batch = np.maximum(
        np.searchsorted(np.maximum.accumulate(starts), known, side="left"),
        np.searchsorted(firsts, np.arange(len(known)), side="right"),  # batches after the row's own
    )
    if len(batch) > 1 and (batch[1:] < batch[:-1]).any():
        order = np.argsort(batch, kind="stable")
        batch = batch[order]
    else:
        order = np.arange(len(batch))
    for low in range(0, len(firsts), most):
        high = min(low + most, len(firsts))
        here = slice(*np.searchsorted(batch, [low, high]).tolist())
        yield low, high, order[here], batch[here] - low
