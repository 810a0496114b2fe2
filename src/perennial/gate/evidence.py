"""Paired losses of a challenger line and the champion, summed by block: plain data that goes into checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import DataError, FormatError

FORMAT = 1  #: of plain evidence
MOST_BLOCKS = 1024  #: kept apart; above that, blocks become twice as wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The mean paired difference and how sure it is.

    ``error`` is the standard error of the mean from sums over blocks, infinite below two blocks. ``effective_blocks``
    counts blocks by their size: ``(sum n)^2 / sum n^2``; the standard error has one degree of freedom less.
    ``design_effect`` is its square over what it would be if rows were independent; NaN where that is not known.
    """

    rows: int
    blocks: int
    effective_blocks: float
    mean: float
    error: float
    design_effect: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Paired differences ``loss of the challenger - loss of the champion``, summed by block.

    Only examples count that neither model had learned from when it predicted them. Memory is bounded: above
    :data:`MOST_BLOCKS` blocks, neighbours are joined, so that blocks are ``2 ** coarse`` of the caller's. Labels may
    come late and out of order: a row is counted in its own block whenever it comes. How rows were split over calls
    changes no bit, but for the rounding of sums once blocks were joined.

    Parameters
    ----------
    coarse : int
        How often neighbours were joined.
    keys : tuple of int
        The blocks, ascending.
    rows, sums : tuple of int, tuple of float
        Rows of each block, and the sum of their differences.
    squares : float
        Sum of all squared differences.
    largest : float
        The largest absolute difference of a single row.

    Raises
    ------
    FormatError
        If the parts do not fit together.

    Examples
    --------
    >>> evidence = Evidence().add(np.array([7, 7, 8]), np.array([-1.0, 0.0, 0.0]))
    >>> evidence = evidence.add(np.array([7]), np.array([-1.0]))  # a late label
    >>> evidence.keys, evidence.rows, evidence.sums
    ((7, 8), (3, 1), (-2.0, 0.0))
    """

    coarse: int = 0
    keys: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    sums: tuple[float, ...] = ()
    squares: float = 0.0
    largest: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.keys) == len(self.rows) == len(self.sums) <= MOST_BLOCKS or self.coarse < 0:
            raise FormatError(
                f"evidence of {len(self.keys)} blocks has {len(self.rows)} counts and {len(self.sums)} sums, joined "
                f"{self.coarse} times: its parts must be of one length, at most {MOST_BLOCKS}"
            )
        if any(a >= b for a, b in zip(self.keys, self.keys[1:], strict=False)) or any(n < 1 for n in self.rows):
            raise FormatError("evidence must name its blocks once each, ascending, with at least one row")
        if not all(map(math.isfinite, (*self.sums, self.squares, self.largest))):
            raise FormatError("evidence holds a sum that is not finite")

    @property
    def n(self) -> int:
        """Rows in all."""
        return sum(self.rows)

    def add(self, block: NDArray[np.int64], difference: NDArray[np.float64]) -> Evidence:
        """This evidence and that of more rows; ``self`` stays as it is.

        Parameters
        ----------
        block : array of int64, shape (n,)
            The block of each row, in any order; see :meth:`perennial.gate.Gate.block_of`.
        difference : array of float64, shape (n,)
            Loss of the challenger minus loss of the champion. Leave out rows that either of them did not predict.

        Raises
        ------
        DataError
            If a difference is not finite, or there is not one block for each.
        """
        block, difference = np.asarray(block, dtype=np.int64), np.asarray(difference, dtype=np.float64)
        if block.shape != difference.shape or block.ndim != 1:
            raise DataError(f"{difference.shape} differences in {block.shape} blocks: give one block for each row")
        bad = np.flatnonzero(~np.isfinite(difference))
        if len(bad):
            raise DataError(
                f"the paired loss difference of row {int(bad[0])} is {difference[bad[0]]}"
                + (f", and {len(bad) - 1} more are not finite" if len(bad) > 1 else "")
                + ": leave out rows that the challenger or the champion did not predict (a loss of NaN)"
            )
        if not len(difference):
            return self
        coarse = self.coarse
        old, new = np.array(self.keys, dtype=np.int64), block >> coarse
        keys = np.union1d(old, new)
        rows: NDArray[np.int64] = np.zeros(len(keys), dtype=np.int64)
        sums: NDArray[np.float64] = np.zeros(len(keys))
        at = np.searchsorted(keys, old)
        rows[at], sums[at] = self.rows, self.sums
        at = np.searchsorted(keys, new)
        np.add.at(rows, at, 1)
        np.add.at(sums, at, difference)  # one after the other: the same bits however the rows were split over calls
        while len(keys) > MOST_BLOCKS:
            coarse += 1
            keys, at = np.unique(keys >> 1, return_inverse=True)
            joined, rows, sums = (rows, sums), np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys))
            np.add.at(rows, at, joined[0])
            np.add.at(sums, at, joined[1])
        return Evidence(
            coarse=coarse,
            keys=tuple(keys.tolist()),
            rows=tuple(rows.tolist()),
            sums=tuple(sums.tolist()),
            squares=float(np.add.accumulate(np.concatenate(([self.squares], difference**2)))[-1]),
            largest=max(self.largest, float(np.abs(difference).max())),
        )

    def estimate(self) -> Estimate:
        """The mean difference over rows, with a standard error that allows for rows of a block being alike.

        The error is the linearised one of a ratio of sums, ``sqrt(k / (k - 1) * sum_b (s_b - mean n_b)^2) / n``, with
        one imaginary block more, off by the largest difference of a single row: where nothing or hardly anything
        differed yet, the next row might.

        References
        ----------
        Cochran (1977), Sampling Techniques, section 9A: ratio to size in cluster sampling. Kish (1965), Survey
        Sampling, for effective counts and the design effect.
        """
        if not self.keys:
            return Estimate(
                rows=0, blocks=0, effective_blocks=0.0, mean=math.nan, error=math.inf, design_effect=math.nan
            )
        rows, sums = np.array(self.rows, dtype=np.float64), np.array(self.sums)
        n, total = float(rows.sum()), float(sums.sum())
        mean, k = total / n, n * n / float((rows * rows).sum())
        if len(rows) < 2:
            return Estimate(
                rows=int(n), blocks=1, effective_blocks=1.0, mean=mean, error=math.inf, design_effect=math.nan
            )
        spread = float(((sums - mean * rows) ** 2).sum())
        one = self.largest**2 if self.largest > 0 else 1.0  # nothing differed: a mistake costs 1
        apart = self.squares - n * mean * mean
        return Estimate(
            rows=int(n),
            blocks=len(rows),
            effective_blocks=k,
            mean=mean,
            error=math.sqrt(k / (k - 1) * (spread + one)) / n,
            design_effect=k / (k - 1) * spread / apart if apart > 0 else math.nan,
        )

    def to_plain(self) -> dict[str, Any]:
        """Plain data that JSON keeps exactly; :meth:`from_plain` reads it."""
        return {
            "format": FORMAT,
            "coarse": self.coarse,
            "keys": list(self.keys),
            "rows": list(self.rows),
            "sums": list(self.sums),
            "squares": self.squares,
            "largest": self.largest,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The evidence that :meth:`to_plain` wrote.

        Raises
        ------
        FormatError
            If it is of a format that this release does not read, or damaged.

        Examples
        --------
        >>> Evidence.from_plain(Evidence().to_plain()) == Evidence()
        True
        """
        found = plain.get("format")
        if found != FORMAT:
            raise FormatError(f"evidence has format {found!r}; this release reads {FORMAT}: upgrade perennial")
        try:
            return cls(
                coarse=int(plain["coarse"]),
                keys=tuple(map(int, plain["keys"])),
                rows=tuple(map(int, plain["rows"])),
                sums=tuple(map(float, plain["sums"])),
                squares=float(plain["squares"]),
                largest=float(plain["largest"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"evidence is damaged: {error!r}; shadow the challenger anew") from error
