"""What server processes write and a run takes: the logs of a served deployment, and what their columns are.

Three ingest logs in one database. ``rows`` holds what was predicted, or pushed with its label: the stream's columns,
and what was said of each row. ``labels`` holds labels by id, ``feedback`` thumbs, corrections and words. A run follows
the first two as the source and the label log of its stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self, final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.records import Prediction
from perennial.core.times import NEVER, micros, moment, spell
from perennial.stream.answered import SAID, SHADOW, SHADOW_SAID, VERSION
from perennial.stream.inbox_index import forget_ids
from perennial.stream.ingest import Append, IngestFeed, IngestLog, append_together
from perennial.stream.instants import Instants
from perennial.stream.joining import label_type
from perennial.stream.settings import Stream
from perennial.stream.sources import canonical_type

Which = Literal["rows", "labels", "feedback"]

#: when a label or thumb was received: it is known from then on, whenever it was observed
KNOWN_AT = "known_at"

INSTANT = pa.timestamp("us", tz="UTC")


@final
@dataclass(frozen=True, slots=True)
class Inbox:
    """Where the logs of a deployment are.

    Parameters
    ----------
    database : str
        ``sqlite:///.perennial/inbox.db`` or ``postgresql://user@host/database``.
    deployment : str
        Its name in the ledger.
    keep : timedelta
        How long what a run took stays, to be replayed.
    """

    database: str
    deployment: str
    keep: timedelta = timedelta(0)

    def url(self, which: Which) -> str:
        """The URL of a log, as :class:`~perennial.stream.ingest.IngestLog` and streams take it."""
        join = "&" if "?" in self.database else "?"
        kept = f"&keep={spell(self.keep)}" if self.keep else ""
        return f"{self.database}{join}log={quote(f'{self.deployment}.{which}')}{kept}"


def rows_schema(stream: Stream, types: Mapping[str, Any]) -> Any:
    """Columns of ``rows``: the stream's, of canonical ``types`` by name, and what was said. It has no labels."""
    fields = [pa.field(str(stream.id), pa.string(), nullable=False), pa.field(stream.time, INSTANT, nullable=False)]
    apart = {stream.id, stream.time, stream.target, stream.known_at, *stream.drop}
    fields += [pa.field(name, dtype) for name, dtype in types.items() if name not in apart]
    said = {VERSION: pa.string(), SAID: pa.binary(), SHADOW: pa.string(), SHADOW_SAID: pa.binary()}
    return pa.schema([*fields, *(pa.field(name, dtype) for name, dtype in said.items())])


def labels_schema(stream: Stream, dtype: Any) -> Any:
    """Columns of ``labels``, whose labels are of ``dtype``. ``observed_at`` is what the sender said of its time."""
    fields = [(str(stream.id), pa.string(), False), (str(stream.target), dtype, False), (KNOWN_AT, INSTANT, False)]
    return pa.schema([*(pa.field(n, t, nullable=null) for n, t, null in fields), pa.field("observed_at", INSTANT)])


#: columns of ``feedback``; ``correction`` is JSON
FEEDBACK = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field(KNOWN_AT, INSTANT, nullable=False),
        pa.field("up", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("correction", pa.string()),
    ]
)


def pack(prediction: Prediction) -> Any:
    """What was said of n rows, as a binary array: little-endian doubles, a value, or a code and the probabilities."""
    if prediction.values is not None:
        table = prediction.values.astype("<f8").reshape(-1, 1)
    else:
        assert prediction.codes is not None
        table = prediction.codes.astype("<f8").reshape(-1, 1)
        if prediction.proba is not None:
            table = np.concatenate([table, prediction.proba.astype("<f8")], axis=1)
    rows, width = table.shape
    packed = pa.py_buffer(np.ascontiguousarray(table))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(8 * width), rows, [None, packed]).cast(pa.binary())


def unpack(said: Any) -> list[NDArray[np.float64] | None]:
    """The numbers of each row; None where nothing was said."""
    return [None if one is None else np.frombuffer(one, dtype="<f8") for one in said.to_pylist()]


# ---------------------------------------------------------------------- the logs, opened


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class InboxLogs:
    """The three logs of a deployment, open; in each process its own."""

    rows: IngestLog
    labels: IngestLog
    feedback: IngestLog

    @classmethod
    def open(cls, inbox: Inbox, stream: Stream, types: Mapping[str, Any] | None = None) -> Self:
        """The logs of an inbox; they are made if ``types`` says what their columns hold.

        Parameters
        ----------
        inbox : Inbox
            Where they are.
        stream : Stream
            The role of each column.
        types : mapping, optional
            Arrow type of every column that a client sends, and of the label.

        Raises
        ------
        ConfigError
            If they are not there and ``types`` does not say what to make, or they hold other columns.
        SourceAway, DataError
            As :meth:`~perennial.stream.ingest.IngestLog.open`.
        """
        schemas: tuple[Any, Any] = (None, None)
        if types is not None:
            if stream.target not in types:
                need = f"say what labels are, under `columns`: {{{stream.target}: text}}, or push labelled rows"
                raise ConfigError("columns", ", ".join(types), need)
            rows = {name: canonical_type(dtype) for name, dtype in types.items() if name != KNOWN_AT}
            label = label_type(str(stream.target), rows[str(stream.target)])
            schemas = rows_schema(stream, rows), labels_schema(stream, label)
        logs: list[IngestLog] = []
        try:
            for which, schema in zip(_LOGS, (*schemas, FEEDBACK), strict=True):
                logs.append(IngestLog.open(inbox.url(which), schema))
                if logs[-1].schema is None:
                    need = "nothing says yet what rows hold: give them, or push labelled rows,  perennial push FILE"
                    raise ConfigError("columns", None, need)
        except BaseException:
            for log in logs:
                log.close()
            raise
        return cls(**dict(zip(_LOGS, logs, strict=True)))

    def close(self) -> None:
        """Close all connections."""
        for log in (self.rows, self.labels, self.feedback):
            log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_LOGS: tuple[Which, Which, Which] = ("rows", "labels", "feedback")


def ready(inbox: Inbox) -> bool:
    """Whether the logs that a run reads were made: only then is it known what rows hold."""
    for which in ("rows", "labels"):
        try:
            IngestFeed(inbox.url(which)).open().types((), ())
        except ConfigError:
            return False
    return True


def erase(inbox: Inbox, stream: Stream, subject: str, ids: Sequence[str] = ()) -> int:
    """Take everything about a subject out of the logs, read or not: rows, and labels and feedback by the rows' ids.

    What refers to rows goes first: after a crash in between the rows are there to find the rest by. ``ids`` are of
    further rows of theirs. Gives the number of rows.
    """
    feeds = {which: IngestFeed(inbox.url(which)) for which in _LOGS}
    theirs = {*map(str, ids), *feeds["rows"].find(str(stream.key), subject, str(stream.id))}
    forget_ids(inbox, sorted(theirs))
    for which in ("labels", "feedback"):
        if theirs and feeds[which].there():
            feeds[which].erase(str(stream.id) if which == "labels" else "id", sorted(theirs))
    return feeds["rows"].erase(str(stream.key), [subject])


# ---------------------------------------------------------------------- labelled rows


def push(logs: InboxLogs, stream: Stream, table: Any, *, now: int, key: str = "") -> int:
    """Append labelled rows as examples: rows and labels in one transaction, in order of time.

    A row has its label from its own column, known when the column ``known_at`` says, else ``label_delay`` after the
    event; a null is a row that waits for its label. Rows without the ``id`` column get ids from ``key``.

    Parameters
    ----------
    logs : InboxLogs
        Where to.
    stream : Stream
        The role of each column.
    table : pyarrow.Table
        The stream's columns, of any type that the logs hold without loss.
    now : int
        The clock: no event lies behind it.
    key : str
        Says that this is the same push, if it is done again: nothing is appended twice.

    Returns
    -------
    int
        Rows that were appended; 0 if they had been before.

    Raises
    ------
    DataError
        If a column is missing, unknown or of another type; if a time is missing, lies ahead of the clock or more than
        ``lateness`` before what is there; if a label is known before its event.
    KeyTaken
        If the key was used for other rows.
    """
    if not table.num_rows:
        return 0
    known = bool(key) and logs.rows.knows(key)
    time = _times(stream, table, stream.time)
    if (time == NEVER).any():
        row = int(np.argmax(time == NEVER))
        raise DataError(f"row {row}: {stream.time!r} is missing; every example needs the time of its event")
    order = pa.array(np.argsort(time, kind="stable"))
    table, time = table.take(order), time[order.to_numpy()]
    lateness = stream.span("lateness") or timedelta(0)
    if time[-1] > now + micros(lateness):
        raise DataError(
            f"{moment(int(time[-1]))} in {stream.time!r} lies ahead of the clock, {moment(now)}: an example is about "
            "something that happened; is the time zone right?"
        )
    if not known:
        _check_order(logs, stream, int(time[0]), lateness)
    ids = _ids(stream, table, key or f"push-{now}")
    appends = [Append(log=logs.rows, rows=_rows(logs.rows, stream, table, ids, time), key=key)]
    labels = _labels(logs.labels, stream, table, ids, time)
    if labels.num_rows:
        appends.append(Append(log=logs.labels, rows=labels, key=key))
    return table.num_rows if append_together(appends)[0] else 0


def _check_order(logs: InboxLogs, stream: Stream, first: int, lateness: timedelta) -> None:
    last = logs.rows.last()
    if last is None or not last.num_rows:
        return
    newest = int(pc.max(last.column(stream.time)).cast(pa.int64()).as_py())
    if first < newest - micros(lateness):
        raise DataError(
            f"{moment(first)} in {stream.time!r} lies before what is there, {moment(newest)}, by more than "
            f"lateness={spell(lateness)!r}: rows come in order of time; push history before the first prediction, or "
            "begin a deployment of another `name`"
        )


def _times(stream: Stream, table: Any, name: str) -> NDArray[np.int64]:
    column = _column(table, name)
    return Instants(name, canonical_type(column.type), stream.time_zone, ordered=False).convert(column, 0, ())


def _column(table: Any, name: str) -> Any:
    if name not in table.column_names:
        raise DataError(f"column {name!r} is missing: {nearest(name, table.column_names)}")
    column = table.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _ids(stream: Stream, table: Any, key: str) -> Any:
    if stream.id not in table.column_names:
        return pa.array([f"{key}/{row}" for row in range(table.num_rows)])
    ids = _column(table, str(stream.id)).cast(pa.string())
    if ids.null_count:
        raise DataError(f"row {ids.is_null().index(True)}: {stream.id!r} is missing; give every row an id, or none")
    return ids


def _rows(log: IngestLog, stream: Stream, table: Any, ids: Any, time: NDArray[np.int64]) -> Any:
    """The rows as the log keeps them; nobody has said anything of them."""
    given = {str(stream.id): ids, stream.time: pa.array(time).cast(INSTANT)}
    apart = {str(stream.target), KNOWN_AT, *given, *stream.drop}
    given |= {name: _column(table, name) for name in table.column_names if name not in apart}
    nobody = {f.name: pa.nulls(len(ids), f.type) for f in log.schema if f.name in (VERSION, SAID, SHADOW, SHADOW_SAID)}
    return log.conform(pa.table({**given, **nobody}))


def _labels(log: IngestLog, stream: Stream, table: Any, ids: Any, time: NDArray[np.int64]) -> Any:
    labels = _column(table, str(stream.target))
    if KNOWN_AT in table.column_names:
        known = _times(stream, table, KNOWN_AT)
    else:
        known = time + micros(stream.span("label_delay") or timedelta(0))
    there = np.asarray(labels.is_valid()) & (known != NEVER)
    if (early := there & (known < time)).any():
        row = int(np.argmax(early))
        raise DataError(
            f"the label of {ids[row].as_py()!r} is known at {moment(int(known[row]))}, before its event at "
            f"{moment(int(time[row]))}: correct {KNOWN_AT!r}"
        )
    at = pa.array(known).cast(INSTANT)
    whole = pa.table({
        str(stream.id): ids, str(stream.target): labels, KNOWN_AT: at, "observed_at": pa.nulls(len(ids), INSTANT)
    })  # fmt: skip
    return log.conform(whole.filter(pa.array(there)))
