"""Sums over stretches of event time: of a history however long, as many as a picture has points."""

from __future__ import annotations

from dataclasses import dataclass

POINTS = 500  #: of a picture, at most twice as many
_FIRST_WIDTH = 1_000_000  # a second, in microseconds


@dataclass(slots=True)
class Bucket:
    """Sums over the turns whose instant lies in a stretch; ``staleness`` is the last one's, in microseconds."""

    rows: int = 0
    scored: int = 0
    loss: float = 0.0
    staleness: int | None = None
    updates: int = 0

    def join(self, later: Bucket) -> None:
        """Add the sums of the stretch behind this one."""
        self.rows += later.rows
        self.scored += later.scored
        self.loss += later.loss
        self.updates += later.updates
        if later.staleness is not None:
            self.staleness = later.staleness


class Series:
    """Buckets of one width; as many as fit are kept, and neighbours are joined where more come.

    Parameters
    ----------
    span : int, optional
        How far back from the newest instant it looks, in microseconds; to the beginning unless given.
    points : int
        How many buckets the span has, or half of how many there may be.

    Examples
    --------
    >>> series = Series(points=2)
    >>> for second in range(6):
    ...     series.at(second * 1_000_000).rows += 1
    >>> [(start // 1_000_000, bucket.rows) for start, bucket in series.read()]
    [(0, 2), (2, 2), (4, 2)]
    """

    def __init__(self, span: int | None = None, points: int = POINTS) -> None:
        self.span = span
        self.width = _FIRST_WIDTH if span is None else max(span // points, 1)
        self._points = points
        self._buckets: dict[int, Bucket] = {}
        self._newest: int | None = None

    def at(self, instant: int) -> Bucket:
        """The bucket of an instant; what is too old for the span gets one that is not kept."""
        key = instant // self.width
        found = self._buckets.get(key)
        if found is not None:
            return found
        self._newest = key if self._newest is None else max(self._newest, key)
        if self.span is not None and key <= self._newest - self._points:
            return Bucket()
        self._buckets[key] = Bucket()
        self._make_room()
        return self._buckets[instant // self.width]

    def _make_room(self) -> None:
        if self.span is not None:
            assert self._newest is not None
            if len(self._buckets) > self._points:
                oldest = self._newest - self._points
                self._buckets = {key: one for key, one in self._buckets.items() if key > oldest}
            return
        while len(self._buckets) > 2 * self._points:
            self.width *= 2
            joined: dict[int, Bucket] = {}
            for key in sorted(self._buckets):
                if (into := joined.get(key // 2)) is None:
                    joined[key // 2] = self._buckets[key]
                else:
                    into.join(self._buckets[key])
            self._buckets = joined

    def read(self) -> list[tuple[int, Bucket]]:
        """Every bucket with the instant it begins at, in order."""
        oldest = -(2**63) if self.span is None or self._newest is None else self._newest - self._points
        return [(key * self.width, self._buckets[key]) for key in sorted(self._buckets) if key > oldest]
