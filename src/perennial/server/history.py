"""Past rows for features that look back: the same function as in training, on what this worker knows of the past.

A worker begins with the rows that the run's last checkpoint holds, and goes on from there along the log that all
workers write and the run reads: what one of them was asked a moment ago is past for the others. Its own rows it knows
at once, before they are in the log. Where the stream's source is no log of ours, the past is what the last checkpoint
knows of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.errors import DataError
from perennial.core.times import micros
from perennial.server.failures import FeaturesFailed
from perennial.server.rows import Rows
from perennial.stream.feed import OffsetGone, Position
from perennial.stream.ingest import IngestFeed
from perennial.stream.intake import Standing
from perennial.stream.lookback import Past
from perennial.stream.settings import Stream
from perennial.stream.sources import is_url
from perennial.stream.sql import Address

#: ids of own rows that are waited for, before those that are too old to matter are forgotten
MOST_OWN = 100_000


@final
class History:
    """The past of one worker.

    Parameters
    ----------
    stream : Stream
        Of the deployment; it has ``features``.
    clock : callable
        The instant now, in microseconds.
    """

    def __init__(self, stream: Stream, clock: Callable[[], int]) -> None:
        self._stream, self._clock = stream, clock
        self._follows = is_url(stream.source) and bool(Address.of(stream.source).log)
        self._feed = IngestFeed(stream.source) if self._follows else None
        self._reading = threading.Lock()  # of the log: how far it was read, and where a reading begins
        self._owning = threading.Lock()  # of `_own`, for an instant: requests wait for it
        self._standing: Standing | None = None
        self._past: Past | None = None
        self._lost = True
        self._position = Position()
        self._ahead = 0
        self._own: dict[str, int] = {}  # ids of rows that are past already and are still to come along the log
        self._built: tuple[Rows, int, Rows] | None = (
            None  # features of the last rows: two versions may be asked of them
        )
        none = timedelta(0)
        self._reach = micros(stream.span("lookback") or none) + micros(stream.span("lateness") or none)

    @property
    def lost(self) -> bool:
        """Whether a checkpoint is wanted: at the start, and where the log let go of rows that were not read yet.

        Until it comes, requests are answered from the past as it was known.
        """
        return self._lost

    def begin(self, standing: Standing) -> None:
        """Go on from a checkpoint, unless this worker is beyond it: it follows the log by itself."""
        if self._follows and not self._lost:
            return
        with self._reading, self._owning:
            self._standing, self._position, self._ahead = standing, standing.position, standing.ahead
            self._own = {}  # of these rows too the log will tell
            self._past = standing.lookback.past()
            self._lost = False

    def follow(self) -> None:
        """Take in what came along the log since the last look."""
        if self._feed is None or self._lost:
            return
        with self._reading:
            assert self._standing is not None
            try:
                for run in self._feed.read(self._position, self._standing.types):
                    self._take(run.rows)
                    self._position = run.position(run.rows.num_rows)
            except OffsetGone:  # the run went on and let go of it: the checkpoint that it wrote has it
                self._lost = True

    def _take(self, rows: Any) -> None:
        assert self._past is not None
        assert self._standing is not None
        skipped = min(self._ahead, rows.num_rows)
        self._ahead -= skipped
        rows = rows.slice(skipped)
        if self._own and self._stream.id is not None:
            ids = rows.column(self._stream.id).to_pylist()
            with self._owning:
                news = [self._own.pop(one, None) is None for one in ids]
            if not all(news):
                rows = rows.filter(pa.array(news))
        time = np.asarray(rows.column(self._stream.time).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()))
        self._past.add(rows.select(list(self._standing.columns)), time)

    def saw(self, ids: Sequence[str], rows: Rows, at: int) -> None:
        """Rows that were answered, before they are handed to the log under these ids: they are past from now on."""
        past = self._past
        if past is None or not self._follows:
            return
        table = self._table(rows, at)
        with self._owning:
            if past is not self._past:  # begun anew meanwhile: they will come along the log
                return
            self._own |= dict.fromkeys(ids, at)
            if len(self._own) > MOST_OWN:  # those that never came: the log's own policy lets rows be lost
                self._own = {one: when for one, when in self._own.items() if when >= at - self._reach}
            past.add(table, np.full(rows.n, at, dtype=np.int64))

    def features(self, rows: Rows, at: int | None) -> Rows:
        """The features of rows that are asked about at an instant, as training has them.

        Raises
        ------
        FeaturesFailed
            If the function fails on them.
        """
        at = self._clock() if at is None else at
        last, past = self._built, self._past
        if last is not None and last[0] is rows and last[1] == at:
            return last[2]
        assert past is not None, "a version is loaded with a checkpoint, and that begins the past"
        try:
            built = _rows(past.build(self._table(rows, at), at))
        except DataError as error:  # what it says may hold anything: it is for the deployment's owner
            raise FeaturesFailed(str(error)) from error
        self._built = rows, at, built
        return built

    def _table(self, rows: Rows, at: int) -> Any:
        """Rows of a request as the stream's own."""
        assert self._standing is not None
        types, stream = self._standing.types, self._stream
        columns: dict[str, Any] = {}
        place = 0
        for name in self._standing.columns:
            if name == stream.time:
                columns[name] = pa.array(np.full(rows.n, at)).cast(pa.timestamp("us", tz="UTC"))
            elif name == stream.key:
                columns[name] = pa.array(rows.keys or [None] * rows.n, type=types[name])
            elif name in rows.others:
                columns[name] = pa.array(rows.others[name], type=types[name])
                place += 1
            else:
                numbers = rows.numbers[:, place]
                columns[name] = pa.array(numbers, mask=np.isnan(numbers))
                place += 1
        return pa.table(columns)


def _rows(table: Any) -> Rows:
    """A table of features as rows: numbers in a matrix, the others by name."""
    n = table.num_rows
    numbers: NDArray[np.float64] = np.full((n, table.num_columns), np.nan)
    others: dict[str, list[Any]] = {}
    for j, name in enumerate(table.column_names):
        column = table.column(name)
        if pa.types.is_floating(column.type):
            numbers[:, j] = column.to_numpy()
        else:
            others[name] = column.to_pylist()
    return Rows(n=n, numbers=numbers, others=others)
