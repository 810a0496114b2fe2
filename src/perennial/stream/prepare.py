"""One pass over a source: checks everything, and writes the stream in one canonical form.

The form is an Arrow IPC file, uncompressed, of batches of at most 65,536 rows: features first (categories as
codes), then event time, label, the instant at which the label becomes known, the row's digest and whatever other
roles the stream has. It holds the rows in order and says nothing of the files or blocks they came in.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
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
from perennial.core.times import NEVER, micros
from perennial.stream.calendar import Calendar
from perennial.stream.canonical import Canonical, least_delay, wanted_types
from perennial.stream.encoding import content_of
from perennial.stream.instants import Instants
from perennial.stream.joining import Entry, label_type, read_log
from perennial.stream.label_log import LARGEST, log_columns, log_types, meant
from perennial.stream.prepared import (
    BATCH_FIRST,
    BATCH_START,
    MANY_LABELS,
    REVISIONS,
    ROWS,
    Prepared,
)
from perennial.stream.settings import Stream
from perennial.stream.sources import BLOCK_BYTES, BLOCK_ROWS, Block, Part, Source, Widened, open_source

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
        self._types = wanted_types(stream, source, extra)
        self._log = _label_log(stream)
        log_type = None if self._log is None else self._log.dtype
        entries: dict[Any, list[Entry]] | None = None if self._log is None else self._log.entries
        self._unmatched = 0
        if stream.served and entries is not None:
            entries, self._unmatched = _by_position(stream, entries)
        self._canon = Canonical(stream, self._types, extra, label_log=entries, log_type=log_type)
        self._writer = _Writer(folder / ROWS)
        self._bounds = _Bounds(stream.calendar, self._canon.zone)
        hashed = ("digest", *(name + part for name in _HASHED for part in ("", " there")))
        self._content = {name: hashlib.sha256() for name in hashed}
        self._labels: dict[Label, None] = {}
        self._labelled = self._late = 0
        self._first_time = NEVER

    def __enter__(self) -> _Pass:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def run(self, progress: Progress | None) -> Prepared:
        for block in self._source.blocks(self._types):
            self._take(block)
            if progress is not None:
                progress(self._canon.rows, self._source.rows)
        self._write_features(self._canon.finish())
        if not self._canon.rows:
            raise DataError("the stream has no rows: is `source` right, or was a one-way reader read before?")
        self._writer.finish()
        return self._finish()

    def _take(self, block: Block) -> None:
        first = self._canon.rows
        origin = (Part(first, block.start, block.origin),) if block.origin else ()
        taken = self._canon.take(block.rows, self._canon.instants(block.rows, origin), origin)
        self._bounds.see(taken.newest, first)
        self._first_time = min(self._first_time, int(taken.time.min()))
        self._late += int(taken.late.sum())
        labels, known_at = taken.others["label"], taken.known_at
        self._labelled += int((known_at != NEVER).sum())
        if len(self._labels) <= MANY_LABELS:
            self._labels.update(dict.fromkeys(pc.unique(labels.drop_null()).to_pylist()))
        self._write_others(taken.others)
        self._write_features(taken.features)

    def _write_features(self, table: Any) -> None:
        if table is None:
            return
        columns, digests = self._canon.encode(table)
        self._content["digest"].update(digests.tobytes())
        self._writer.put("features", columns)

    def _write_others(self, columns: dict[str, Any]) -> None:
        for name in _HASHED:
            if name in columns:
                for part, data in zip(("", " there"), content_of(columns[name]), strict=True):
                    self._content[name + part].update(data)
        self._writer.put("others", columns)

    def _finish(self) -> Prepared:
        stream, canon = self._stream, self._canon
        starts, firsts = self._bounds.arrays()
        np.save(self._folder / BATCH_START, starts)
        np.save(self._folder / BATCH_FIRST, firsts)
        later = canon.rule.later
        _write_revisions(self._folder / REVISIONS, later, canon.label_type, starts, firsts)
        schema = canon.encoder.schema
        return Prepared(
            folder=self._folder,
            name=str(stream.name),
            schema=schema,
            rows=canon.rows,
            digest=digest(
                schema.digest(), str(canon.label_type), *(h.hexdigest() for h in self._content.values()), repr(later)
            ),
            first_time=self._first_time,
            last_time=canon.newest,
            zone=canon.zone,
            batch=stream.calendar,
            target=stream.target,
            label_type=str(canon.label_type),
            label_values=self._label_values(later),
            labelled=self._labelled,
            label_rule=stream.label_rule + (", those of the rows at once" if self._implicit_beside_log else ""),
            implicit_delay=stream.implicit_delay or self._implicit_beside_log,
            label_delay=least_delay(stream),
            label_wait=stream.span("label_wait"),
            positive=stream.positive,
            stats={column.name: column for column in canon.encoder.stats},
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
        stream, out = self._stream, self._canon.warnings()
        if self._canon.rule.contradicted:
            out.append(
                f"{self._canon.rule.contradicted} rows have a label other than {stream.absent!r} and no "
                f"{stream.known_at!r}: nobody ever reported them, so silence makes them {stream.absent!r}"
            )
        if self._log is not None and self._canon.rule.unknown_ids:
            out.append(f"{self._canon.rule.unknown_ids} ids of the label log are those of no row")
        if self._unmatched:
            out.append(f"{self._unmatched} labels of the label log are of no row")
        if self._canon.rule.passed_over:
            out.append(
                f"{self._canon.rule.passed_over} of the label log's labels became known more than `label_wait` after "
                "their event and were passed over"
            )
        if self._canon.lookback is not None and (failures := self._canon.lookback.failures()) is not None:
            out.append(failures)
        if self._late:
            out.append(f"{self._late} rows came late")
        return tuple(out)


class _Log(NamedTuple):
    entries: dict[Any, list[Entry]]
    dtype: Any


def _label_log(stream: Stream) -> _Log | None:
    if stream.labels is None:
        return None
    source = open_source(stream.labels, "labels")
    columns = log_columns(stream)
    while True:
        types = log_types(stream, source)
        try:
            blocks = list(source.blocks(types))
        except Widened:
            continue
        break
    dtype = label_type(columns["target"], types[columns["target"]])
    known = Instants(columns["known_at"], types[columns["known_at"]], stream.time_zone, ordered=False)
    ids: list[Any] = []
    labels: list[Any] = []
    instants = [np.empty(0, dtype=np.int64)]
    for rows, file, start in blocks:
        origin = (Part(len(ids), start, file),) if file else ()
        instants.append(known.convert(rows.column(columns["known_at"]), len(ids), origin))
        ids += rows.column(columns["id"]).to_pylist()
        labels += rows.column(columns["target"]).cast(dtype, safe=False).to_pylist()
    if stream.served and pa.types.is_floating(dtype):  # a client's mistake
        labels = [label if label is not None and abs(label) <= LARGEST else None for label in labels]
    return _Log(read_log(ids, labels, np.concatenate(instants)), dtype)


def _by_position(stream: Stream, log: dict[Any, list[Entry]]) -> tuple[dict[Any, list[Entry]], int]:
    """A label log by position of the row that each label of a served stream is about, and how many are of no row."""
    lateness = micros(stream.span("lateness") or timedelta(0))
    source = open_source(stream.source)
    types = source.types((), [stream.time])
    time = Instants(stream.time, types[stream.time], stream.time_zone)
    rows: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    first = 0
    for block in source.blocks({name: types[name] for name in (str(stream.id), stream.time)}):
        ids = block.rows.column(str(stream.id)).to_pylist()
        instants = time.convert(block.rows.column(stream.time), first, ()).tolist()
        for at, row_id in enumerate(ids):
            if row_id in log:
                rows[row_id].append((instants[at], first + at))
        first += len(ids)
    out: dict[Any, list[Entry]] = defaultdict(list)
    unmatched = 0
    for row_id, entries in log.items():
        for entry in entries:
            found = meant(rows.get(row_id, ()), entry.known_at, lateness)
            if found is None:
                unmatched += 1
            else:
                out[found[1]].append(replace(entry, known_at=max(entry.known_at, found[0])))
    return {position: sorted(some, key=lambda entry: entry.known_at) for position, some in out.items()}, unmatched


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
