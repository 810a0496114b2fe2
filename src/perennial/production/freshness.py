"""How fresh a deployment is: from the moment a label was received to the moment a version that learned it is live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.times import NEVER

#: of so many labels, the newest, a median is told
NEWEST = 512


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FreshLabels:
    """Labels that came since the last training: how many, and when the newest of them became known, in order."""

    rows: int = 0
    newest: tuple[int, ...] = ()

    def plus(self, known_at: NDArray[np.int64]) -> Self:
        """With more of them."""
        newest = sorted([*self.newest, *known_at[known_at < NEVER].tolist()])[-NEWEST:]
        return type(self)(rows=self.rows + len(known_at), newest=tuple(newest))

    def facts(self) -> dict[str, Any]:
        """What a ledger keeps of a version that learned them."""
        if not self.newest:
            return {"rows": self.rows}
        return {"rows": self.rows, "newest_known_at": self.newest[-1], "median_known_at": int(median(self.newest))}

    def to_plain(self) -> list[int]:
        """As JSON keeps it."""
        return [self.rows, *self.newest]

    @classmethod
    def from_plain(cls, plain: Sequence[int]) -> Self:
        """What :meth:`to_plain` gave."""
        return cls(rows=plain[0], newest=tuple(plain[1:])) if plain else cls()


def label_to_live(labels: Mapping[str, Mapping[str, Any]], live: Sequence[tuple[str, int]]) -> list[float]:
    """Seconds from a label to the first version that is live and learned it, for each version that brought new labels.

    It is told of the median label that a version newly learned. What a version learned that never served is counted
    to the next that did: a line goes on from it.

    Parameters
    ----------
    labels : mapping
        Of each version in order of creation, what the ledger has under ``"labels"``.
    live : sequence
        Each version that became champion and when, by a clock, in order.

    Examples
    --------
    >>> labels = {"1.1": {"rows": 2, "median_known_at": 1_000_000}, "1.2": {"rows": 1, "median_known_at": 3_000_000}}
    >>> label_to_live(labels, [("1.1", 1_500_000), ("1.2", 5_000_000)])
    [0.5, 2.0]
    """
    versions = list(labels.items())
    place = {number: i for i, (number, _) in enumerate(versions)}
    out: list[float] = []
    done = -1
    for number, at in live:
        upto = place.get(number, -1)
        for version, facts in versions[done + 1 : upto + 1]:
            if "median_known_at" in facts and version.partition(".")[0] == number.partition(".")[0]:
                out.append((at - facts["median_known_at"]) / 1e6)
        done = max(done, upto)
    return out


def median_to_live(labels: Mapping[str, Mapping[str, Any]], live: Sequence[tuple[str, int]]) -> float | None:
    """The median of :func:`label_to_live`, in seconds; None before there is any."""
    seconds = label_to_live(labels, live)
    return median(seconds) if seconds else None
