"""One pass over a source: checks everything, and writes the stream in one canonical form.

The form is an Arrow IPC file, uncompressed, of batches of at most 65,536 rows: features first (categories as
codes), then event time, label, the instant at which the label becomes known, the row's digest and whatever other
roles the stream has. It holds the rows in order and says nothing of the files or blocks they came in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.identity import digest
from perennial.core.records import Label
from perennial.core.times import NEVER
from perennial.stream.calendar import Calendar
from perennial.stream.encoding import Encoder, content_of
from perennial.stream.instants import Instants, Order, where
from perennial.stream.joining import Entry, LabelRule, label_type, read_log
from perennial.stream.lookback import LookBack, load_function
from perennial.stream.prepared import (
    BATCH_FIRST,
    BATCH_START,
    EXTRA,
    MANY_LABELS,
    REVISIONS,
    ROWS,
    Prepared,
)
from perennial.stream.settings import Stream
from perennial.stream.sources import BLOCK_BYTES, BLOCK_ROWS, Block, Source, Widened, open_source

Progress = Callable[[int, int | None], None]


def prepare(stream: Stream, folder: Path, extra: tuple[str, ...], progress: Progress | None) -> Prepared:
    """What :meth:`Stream.prepare` does."""
    folder.mkdir(parents=True, exist_ok=True)
    source = open_source(stream.source)
    while True:
        try:
            with _Pass(stream, source, folder, extra) as work:
                return work.run(progress)
        except Widened:  # a CSV column turned out wider than its first rows showed
            continue


#: what belongs to the identity of the data, besides features
_HASHED = ("time", "known_at", "label", "weight", "group")


@final
class _Pass:
    """The state of one pass."""

    def __init__(self, stream: Stream, source: Source, folder: Path, extra: tuple[str, ...]) -> None:
        self._stream, self._source, self._folder, self._extra = stream, source, folder, extra
        self._types = _wanted_types(stream, source, extra)
        self._time = Instants(stream.time, self._types[stream.time], stream.time_zone)
        self._order = Order(stream.time, stream.span("lateness"))
        self._known = None
        if stream.known_at in self._types:
            self._known = Instants(str(stream.known_at), self._types[stream.known_at], stream.time_zone, ordered=False)
        self._log, self._label_type = _label_log(stream), pa.float64()
        if stream.target in self._types:
            self._label_type = label_type(str(stream.target), self._types[stream.target])
        elif self._log is not None:
            self._label_type = self._log.dtype
        self._rule = LabelRule(
            self._label_type,
            delay=stream.span("label_delay") or timedelta(0),
            within=stream.span("within"),
            absent=stream.absent,
            positives_wait=stream.positives_wait,
            log=None if self._log is None else self._log.entries,
        )
        self._features = [n for n in self._types if n not in stream.roles.values() and n not in stream.drop]
        self._lookback = self._make_lookback()
        self._encoder: Encoder | None = None
        self._encoded = 0  # rows of features encoded so far: look-back features lag behind
        self._writer = _Writer(folder / ROWS)
        self._bounds = _Bounds(stream.calendar, self._time.zone)
        hashed = ("digest", *(name + part for name in _HASHED for part in ("", " there")))
        self._content = {name: hashlib.sha256() for name in hashed}
        self._labels: dict[Label, None] = {}
        self._labelled = self._late = self._rows = 0
        self._first_time = NEVER

    def __enter__(self) -> _Pass:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def run(self, progress: Progress | None) -> Prepared:
        for block in self._source.blocks(self._types):
            self._take(block)
            if progress is not None:
                progress(self._rows, self._source.rows)
        if self._lookback is not None:
            self._write_features(self._lookback.finish())
        if not self._rows:
            raise DataError("the stream has no rows: is `source` right, or was a one-way reader read before?")
        self._writer.finish()
        return self._finish()

    def _take(self, block: Block) -> None:
        rows, origin, first = block.rows, block.origin, self._rows
        time = self._time.convert(rows.column(self._stream.time), first, origin)
        newest, late = self._order.advance(time, first, origin)
        self._bounds.see(newest, first)
        others = self._others(rows, time, late, first, origin)
        self._first_time = min(self._first_time, int(time.min()))
        self._late += int(late.sum())
        if self._lookback is not None:
            seen = [n for n in (self._stream.time, self._stream.key, *self._features) if n is not None]
            table = self._lookback.feed(rows.select(list(dict.fromkeys(seen))), time)
        else:
            table = rows.select(self._features)
        self._rows += len(time)
        self._write_others(others)
        self._write_features(table)

    def _others(
        self, rows: Any, time: NDArray[np.int64], late: NDArray[np.bool_], first: int, origin: str
    ) -> dict[str, Any]:
        """All columns that are no features, by the name they are stored under."""
        stream = self._stream
        labels, known_at = self._label(rows, time, first, origin)
        out = {"time": pa.array(time), "known_at": pa.array(known_at), "label": labels}
        if stream.lateness is not None:
            out["late"] = pa.array(late)
        if stream.weight is not None:
            out["weight"] = _weights(rows.column(stream.weight), stream.weight, first, origin)
        for role in ("group", "id"):
            if (column := getattr(stream, role)) is not None:
                out[role] = rows.column(column)
        for name in self._extra:
            out[EXTRA + name] = _amounts(rows.column(name), name)
        return out

    def _label(self, rows: Any, time: NDArray[np.int64], first: int, origin: str) -> tuple[Any, NDArray[np.int64]]:
        stream = self._stream
        if stream.target in self._types:
            labels = rows.column(stream.target).cast(self._label_type, safe=False)
            if pa.types.is_floating(labels.type):
                labels = pc.if_else(pc.is_nan(labels), pa.scalar(None, labels.type), labels)
        else:
            labels = pa.nulls(len(time), self._label_type)
        known = None
        if self._known is not None:
            known = self._known.convert(rows.column(stream.known_at), first, origin)
        labels, known_at = self._rule.apply(labels, time, known, first, origin)
        if self._log is not None:
            labels, known_at = self._rule.join(rows.column(stream.id).to_pylist(), labels, known_at, time, first)
        self._labelled += int((known_at != NEVER).sum())
        if len(self._labels) <= MANY_LABELS:
            self._labels.update(dict.fromkeys(pc.unique(labels.drop_null()).to_pylist()))
        return labels, known_at

    def _write_features(self, table: Any) -> None:
        if table is None:
            return
        if self._encoder is None:
            types = {field.name: field.type for field in table.schema}
            if not types:
                raise DataError("no column is left to be a feature: see `drop` and the columns that have a role")
            self._encoder = Encoder(types, self._stream.text)
            for name in self._stream.text:
                if name not in types:
                    raise ConfigError("text", name, f"no such feature: {nearest(name, types)}")
        arrays = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in table.columns]
        stored, digests = self._encoder.encode(arrays, self._encoded)
        self._encoded += table.num_rows
        columns = {f"f{j}": column for j, column in enumerate(stored)}
        bytes_of = pa.py_buffer(np.ascontiguousarray(digests))
        columns["digest"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digests), [None, bytes_of])
        self._content["digest"].update(digests.tobytes())
        self._writer.put("features", columns)

    def _write_others(self, columns: dict[str, Any]) -> None:
        for name in _HASHED:
            if name in columns:
                for part, data in zip(("", " there"), content_of(columns[name]), strict=True):
                    self._content[name + part].update(data)
        self._writer.put("others", columns)

    def _finish(self) -> Prepared:
        assert self._encoder is not None
        stream, zone = self._stream, self._time.zone
        starts, firsts = self._bounds.arrays()
        np.save(self._folder / BATCH_START, starts)
        np.save(self._folder / BATCH_FIRST, firsts)
        later = self._rule.later
        _write_revisions(self._folder / REVISIONS, later, self._label_type, starts, firsts)
        schema = self._encoder.schema
        return Prepared(
            folder=self._folder,
            name=str(stream.name),
            schema=schema,
            rows=self._rows,
            digest=digest(
                schema.digest(), str(self._label_type), *(h.hexdigest() for h in self._content.values()), repr(later)
            ),
            first_time=self._first_time,
            last_time=self._order.newest,
            zone=zone,
            batch=stream.calendar,
            target=stream.target,
            label_type=str(self._label_type),
            label_values=self._label_values(later),
            labelled=self._labelled,
            label_rule=stream.label_rule + (", those of the rows at once" if self._implicit_beside_log else ""),
            implicit_delay=stream.implicit_delay or self._implicit_beside_log,
            label_delay=_least_delay(stream),
            positive=stream.positive,
            stats={column.name: column for column in self._encoder.stats},
            late_rows=self._late,
            revisions=len(later),
            extra=self._extra,
            warnings=self._warnings(),
        )

    @property
    def _implicit_beside_log(self) -> bool:
        """Whether rows bring labels beside those of a log, and nothing says when these are known."""
        stated = (self._stream.label_delay, self._stream.known_at, self._stream.within)
        return self._log is not None and self._stream.target in self._types and stated == (None, None, None)

    def _label_values(self, later: list[tuple[int, int, Label]]) -> tuple[Label, ...] | None:
        values = tuple(dict.fromkeys([*self._labels, *(label for _, _, label in later)]))
        if len(values) > MANY_LABELS:
            return None
        positive = self._stream.positive
        if positive is not None and not any(type(v) is type(positive) and v == positive for v in values):
            raise ConfigError("positive", positive, f"no label says so: {nearest(str(positive), map(str, values))}")
        return values

    def _warnings(self) -> tuple[str, ...]:
        stream, out = self._stream, []
        if self._time.naive and stream.time_zone is None:
            out.append(
                f"times in {stream.time!r} carry no zone and were taken for UTC: state `time_zone` to have local days"
            )
        if self._known is not None and self._known.naive and stream.time_zone is None and not self._time.naive:
            out.append(f"times in {stream.known_at!r} carry no zone and were taken for UTC: state `time_zone`")
        if self._rule.contradicted:
            out.append(
                f"{self._rule.contradicted} rows have a label other than {stream.absent!r} and no {stream.known_at!r}: "
                f"nobody ever reported them, so silence makes them {stream.absent!r}"
            )
        if self._log is not None and self._rule.unknown_ids:
            out.append(f"{self._rule.unknown_ids} ids of the label log are those of no row")
        if self._late:
            out.append(f"{self._late} rows came late")
        return tuple(out)

    def _make_lookback(self) -> LookBack | None:
        stream = self._stream
        if stream.features is None:
            return None
        span = stream.span("lookback")
        assert span is not None
        return LookBack(
            load_function(stream.features),
            span,
            time=stream.time,
            key=stream.key,
            zone=self._time.zone,
            lateness=stream.span("lateness") or timedelta(0),
        )


def _wanted_types(stream: Stream, source: Source, extra: tuple[str, ...]) -> dict[str, Any]:
    """The columns to read and their types, each setting that names a column checked."""
    roles = dict(stream.roles)
    needed = {*roles.values(), *extra}
    as_written = [roles[role] for role in ("time", "known_at") if role in roles]
    types = source.types([name for name in stream.drop if name not in needed], as_written)
    if stream.labels is not None:  # the log may hold these instead
        roles = {r: c for r, c in roles.items() if r not in ("target", "known_at") or c in types}
    named = [*roles.items(), *(("extra", c) for c in extra), *(("drop", c) for c in stream.drop)]
    if stream.features is None:
        named += [("text", c) for c in stream.text]
    for setting, column in named:
        if column not in source.names:
            raise ConfigError(setting, column, f"no such column: {nearest(column, source.names)}")
    for name in stream.text:
        if stream.features is None and name in types and not pa.types.is_string(types[name]):
            raise ConfigError("text", name, f"the column holds {types[name]}, not text")
    return types


def _weights(column: Any, name: str, first: int, origin: str) -> Any:
    try:
        weights = column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise DataError(f"weight column {name!r} holds {column.type}: weights are numbers") from error
    values = weights.to_numpy(zero_copy_only=False)
    if (wrong := ~(np.isfinite(values) & (values >= 0))).any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"weight column {name!r}, {where(first + row, origin)}: {column[row].as_py()!r} is no weight; weights are "
            "finite and not negative: correct it, or drop the row"
        )
    return weights


def _amounts(column: Any, name: str) -> Any:
    try:
        return column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} holds {column.type}: amounts are numbers") from error


def _least_delay(stream: Stream) -> timedelta:
    """How long every label takes at least."""
    if stream.positives_wait and (within := stream.span("within")) is not None:
        return within
    return stream.span("label_delay") or timedelta(0)


class _Log(NamedTuple):
    entries: dict[Any, list[Entry]]
    dtype: Any


def _label_log(stream: Stream) -> _Log | None:
    if stream.labels is None:
        return None
    source = open_source(stream.labels, "labels")
    columns = {"id": str(stream.id), "target": str(stream.target), "known_at": stream.known_at or "known_at"}
    while True:
        types = source.types((), [columns["known_at"]])
        for setting, column in columns.items():
            if column not in types:
                raise ConfigError(setting, column, f"the label log has no such column: {nearest(column, types)}")
        try:
            blocks = list(source.blocks({column: types[column] for column in columns.values()}))
        except Widened:
            continue
        break
    dtype = label_type(columns["target"], types[columns["target"]])
    known = Instants(columns["known_at"], types[columns["known_at"]], stream.time_zone, ordered=False)
    ids: list[Any] = []
    labels: list[Any] = []
    instants = [np.empty(0, dtype=np.int64)]
    for rows, origin in blocks:
        instants.append(known.convert(rows.column(columns["known_at"]), len(ids), origin))
        ids += rows.column(columns["id"]).to_pylist()
        labels += rows.column(columns["target"]).cast(dtype, safe=False).to_pylist()
    return _Log(read_log(ids, labels, np.concatenate(instants)), dtype)


def _write_revisions(
    path: Path, later: list[tuple[int, int, Label]], dtype: Any, starts: NDArray[np.int64], firsts: NDArray[np.int64]
) -> None:
    """Labels that came apart from their rows, with the batch that brings each; one batch beyond the last if none.

    A batch brings what is known by its start about rows that came before it.
    """
    position = np.asarray([entry[0] for entry in later], dtype=np.int64)
    known_at = np.asarray([entry[1] for entry in later], dtype=np.int64)
    batch = np.maximum(np.searchsorted(starts, known_at), np.searchsorted(firsts, position, side="right"))
    order = np.lexsort((np.arange(len(later)), known_at, batch))
    labels = pa.array([later[i][2] for i in order], type=dtype)
    table = pa.table(
        {
            "position": position[order],
            "known_at": known_at[order],
            "batch": batch[order].astype(np.int64),
            "label": labels,
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@final
class _Bounds:
    """Where batches begin: by calendar, or by position; never by how the rows were read."""

    def __init__(self, batch: Calendar | int, zone: str) -> None:
        self._batch, self._zone = batch, zone
        self._last = -(2**62)  # before all instants; differences stay within 64 bits
        self._starts: list[NDArray[np.int64]] = []
        self._firsts: list[NDArray[np.int64]] = []

    def see(self, newest: NDArray[np.int64], first: int) -> None:
        """Take note of rows from position ``first`` on; ``newest`` is the newest event time up to each."""
        if isinstance(self._batch, int):
            rows = np.arange(-first % self._batch, len(newest), self._batch)
            starts = newest[rows]
        else:
            floors = np.maximum.accumulate(self._batch.floor(newest, self._zone))
            rows = np.flatnonzero(np.diff(floors, prepend=self._last) > 0)
            starts = floors[rows]
            self._last = max(self._last, int(floors[-1]))
        self._starts.append(starts)
        self._firsts.append(rows + first)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and first position of every batch."""
        return np.concatenate(self._starts), np.concatenate(self._firsts)


@final
class _Writer:
    """Writes features and the other columns, which may come in different steps, as batches of one size."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._file: Any = None
        self._size = BLOCK_ROWS
        self._queues: dict[str, list[Any]] = {"others": [], "features": []}

    def put(self, part: str, columns: dict[str, Any]) -> None:
        """Add rows of one part; what both parts have is written once it fills a batch."""
        batch = pa.record_batch(list(columns.values()), names=list(columns))
        self._queues[part].append(batch)
        if self._file is None and part == "features" and batch.num_rows:
            self._size = max(1, min(BLOCK_ROWS, BLOCK_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        while min(self._waiting(p) for p in self._queues) >= self._size:
            self._write(self._size)

    def finish(self) -> None:
        """Write what is left."""
        if rows := self._waiting("features"):
            self._write(rows)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._sink.close()

    def _waiting(self, part: str) -> int:
        return sum(batch.num_rows for batch in self._queues[part])

    def _write(self, rows: int) -> None:
        columns: dict[str, Any] = {}
        for part in ("features", "others"):
            table = pa.Table.from_batches(self._queues[part])
            head = table.slice(0, rows).combine_chunks().to_batches()[0]
            columns |= dict(zip(head.schema.names, head.columns, strict=True))
            self._queues[part] = table.slice(rows).to_batches()
        batch = pa.record_batch(list(columns.values()), names=list(columns))
        if self._file is None:
            self._file = pa.ipc.new_file(self._sink, batch.schema)
        self._file.write_batch(batch)
