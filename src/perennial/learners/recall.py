"""What was said of the rows that were asked about last: the next update mostly learns these very rows.

Test-then-train asks a model about a batch, and soon after an update wants to know what the model said of it: to weigh
it, to correct it, or to fit trees to what it left. Asking again costs as much as the first time. A model's answers are
remembered with the rows, and given again only for the same rows, so that nothing but the time depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.features import Features, Kind

#: answers for more rows than these are not held: a backfill need not stay in memory for its second use
MOST_ROWS = 2**17
_SHOWN = (Kind.NUMBER, Kind.CATEGORY)


@final
class Recall:
    """Answers about the rows that were asked about last, by who answered.

    Whoever changes an answerer forgets (:meth:`forget`); what never changes may be asked for ever. Threads may share
    it: what one does not find it asks for anew.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[NDArray[Any], object, dict[int, tuple[object, Any]]] | None = None

    def of(self, rows: object, who: object, ask: Callable[[], Any], under: object = None) -> Any:
        """What ``ask()`` gave when ``who`` was last asked about the same rows, else what it gives now.

        Parameters
        ----------
        rows : array of shape (n, d), or anything else
            Answers are remembered for matrices alone.
        who : object
            Who answers: told by its place in memory, and held as long as the answer is.
        ask : callable
            Gives the answer, which must not be changed by anybody.
        under : object, optional
            What the numbers of the rows mean, the schema of codes, where who answers goes by more than numbers: the
            same numbers under another one are other rows.
        """
        if not isinstance(rows, np.ndarray) or len(rows) > MOST_ROWS or rows.dtype.hasobject:
            return ask()
        last = self._last
        if last is None or last[1] is not under or not _same(last[0], rows):
            last = self._last = (rows, under, {})
        found = last[2].get(id(who))
        if found is None or found[0] is not who:
            found = last[2][id(who)] = (who, ask())
        return found[1]

    def forget(self) -> None:
        """Let go of everything."""
        self._last = None


def shown(features: Features) -> Any:
    """The rows as one matrix, where numbers and codes of words are all that they hold; else the rows themselves."""
    return features.matrix() if all(column.kind in _SHOWN for column in features.schema.columns) else features


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one is other or (one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
