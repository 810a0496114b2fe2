"""Long series made short enough to draw, without changing what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.replay.report import words

POINTS = 400  #: most points of a drawn line
MARKS = 400  #: most version marks of a strategy

Values = list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A strategy's series, at most ``POINTS`` long: point i stands for the batches from ``start[i]`` to ``stop[i]``.

    ``start``, ``stop`` and ``middle`` are seconds since 1970 UTC; ``rows`` counts rows; ``each`` is the row-weighted
    mean over a point's batches, ``smooth`` a moving mean of it, ``cumulative`` the score of all rows so far.
    """

    start: list[int]
    stop: list[int]
    middle: list[int]
    rows: list[int]
    batches: int
    each: dict[str, Values]
    smooth: dict[str, Values]
    cumulative: dict[str, Values]


def compress(series: Mapping[str, Any], points: int = POINTS) -> Lines:
    """Groups of successive batches, as even as can be, one point each; batches are never reordered or dropped."""
    seconds = np.array([int(words.instant(t).timestamp()) for t in series["time"]], dtype=np.int64)
    rows = np.array(series["rows"], dtype=np.float64)
    n = len(seconds)
    groups = min(n, points)
    edges = (np.arange(groups + 1) * n) // max(groups, 1)
    low, high = edges[:-1], edges[1:] - 1
    each: dict[str, Values] = {}
    smooth: dict[str, Values] = {}
    cumulative: dict[str, Values] = {}
    for name, values in series["by_batch"].items():
        total, weight = _sums(_numbers(values), rows, low)
        each[name] = _ratio(total, weight)
        smooth[name] = _ratio(_spread(total), _spread(weight))
    for name, values in series["cumulative"].items():
        cumulative[name] = _plain(_filled(_numbers(values))[high])
    return Lines(
        start=seconds[low].tolist(),
        stop=seconds[high].tolist(),
        middle=((seconds[low] + seconds[high]) // 2).tolist(),
        rows=np.add.reduceat(rows, low).astype(np.int64).tolist() if n else [],
        batches=n,
        each=each,
        smooth=smooth,
        cumulative=cumulative,
    )


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    out = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    out[~np.isfinite(out)] = np.nan
    return out


def _sums(
    values: NDArray[np.float64], rows: NDArray[np.float64], low: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per group: the row-weighted sum of values, and the rows that have one."""
    weight = np.where(np.isnan(values), 0.0, rows)
    total = np.where(np.isnan(values), 0.0, values) * weight
    if not len(low):
        return total, weight
    return np.add.reduceat(total, low), np.add.reduceat(weight, low)


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred triangular moving sum that reaches 4 % of the series to each side."""
    reach = len(values) // 25
    if not reach:
        return values
    kernel = np.concatenate([np.arange(1, reach + 1), np.arange(reach - 1, 0, -1)]) / reach
    return np.convolve(values, kernel, mode="same")


def _ratio(total: NDArray[np.float64], weight: NDArray[np.float64]) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _plain(np.where(weight > 0, total / weight, np.nan))


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each gap filled with the last value before it."""
    known = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.accumulate(known) if len(values) else known.astype(np.int64)
    return np.where(last >= 0, values[last], np.nan) if len(values) else values


def _plain(values: NDArray[np.float64]) -> Values:
    return [None if np.isnan(v) else float(f"{v:.5g}") for v in values]


def thin(versions: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Indices of at most ``most`` versions, ascending: new models before updates, else evenly spaced.

    The first and the last version are always among them.
    """
    if len(versions) <= most:
        return list(range(len(versions)))
    ends = [0, len(versions) - 1]
    big = [i for i, v in enumerate(versions) if v["kind"] != "update" and i not in ends]
    small = [i for i, v in enumerate(versions) if v["kind"] == "update" and i not in ends]
    kept = ends + _evenly(big, most - len(ends))
    return sorted(kept + _evenly(small, most - len(kept)))


def _evenly(items: list[int], most: int) -> list[int]:
    if len(items) <= most:
        return items
    return [items[(k * len(items)) // most] for k in range(most)]
