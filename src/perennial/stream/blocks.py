"""Fits from sums of block statistics: a sliding window then reads each example once.

Blocks lie on a fixed grid of positions, and sums run over them in order, so that a model is a function of the chosen
examples alone and not of how the window came there.
"""

from __future__ import annotations

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
        block = position // GRID
        edges = np.flatnonzero(np.diff(block)) + 1
        held: dict[int, tuple[NDArray[np.int64], Any]] = {}
        sums = []
        for low, high in zip([0, *edges.tolist()], [*edges.tolist(), len(position)], strict=True):
            number, members = int(block[low]), position[low:high]
            before = self._whole.get(number)
            if before is not None and np.array_equal(before[0], members):
                held[number] = before
            else:
                held[number] = (members.copy(), self._learner.summarise(examples.slice(low, high)))
            sums.append(held[number][1])
        self._whole = held
        return self._learner.fit_sum(sums, examples.slice(0, 0))
