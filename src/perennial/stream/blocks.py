"""Fits from sums of block statistics: a sliding window then reads each example once.

Blocks lie on a fixed grid of positions, and sums run over them in order, so that a model is a function of the chosen
examples alone and not of how the window came there.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.protocols import Learner, Summable
from perennial.core.records import Examples

GRID = 4096  # positions per block: edges cost at most two blocks, and a summary is small against its rows


@final
class BlockSums:
    """The statistics of whole grid blocks, kept while the window holds them."""

    def __init__(self, learner: Summable) -> None:
        self._learner = learner
        self._whole: dict[int, tuple[NDArray[np.int64], Any]] = {}  # block -> (its positions, statistics)

    def forget(self, position: NDArray[np.int64]) -> None:
        """Labels at these positions were revised: their blocks are summed anew."""
        for block in set((position // GRID).tolist()):
            self._whole.pop(block, None)

    def fit(self, position: NDArray[np.int64], examples: Examples) -> Learner:
        """The model of ``examples``, which stand at ascending ``position``."""
        inner = np.arange(int(position[0]) // GRID + 1, int(position[-1]) // GRID + 1) * GRID
        bounds = [0, *np.searchsorted(position, inner).tolist(), len(position)]
        held: dict[int, tuple[NDArray[np.int64], Any]] = {}
        sums = []
        for low, high in pairwise(bounds):
            if low == high:
                continue
            members = position[low:high]
            number = int(members[0]) // GRID
            before = self._whole.get(number)
            if before is not None and _same(before[0], members):
                held[number] = before
            else:
                held[number] = (members.copy(), self._learner.summarise(examples.slice(low, high)))
            sums.append(held[number][1])
        self._whole = held
        return self._learner.fit_sum(sums, examples.slice(0, 0))


def _same(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether two ascending runs of positions are equal; unbroken runs are told by their ends."""
    if len(one) != len(other) or one[0] != other[0] or one[-1] != other[-1]:
        return False
    return int(one[-1]) - int(one[0]) == len(one) - 1 or bool(np.array_equal(one, other))
