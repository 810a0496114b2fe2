"""A prepared stream: read back in batches, as often as wanted, with memory for a few batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.features import Chunk, Features, Kind, Schema, Vocabulary
from perennial.core.records import Batch, Label, Revisions, TaskKind
from perennial.stream.calendar import Calendar
from perennial.stream.encoding import DIGEST_BYTES, ColumnStats

ROWS = "rows.arrow"
REVISIONS = "revisions.arrow"
BATCH_START = "batch-start.npy"
BATCH_FIRST = "batch-first.npy"
EXTRA = "extra:"  #: before the names of amounts

MANY_LABELS = 10_000  #: more distinct labels than this are not listed


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLabels:
    """All labels of a stream, n rows: ``codes`` int32 into ``classes`` (-1 for none) or ``values`` float64 (NaN).

    ``known_at`` and ``time`` are int64 instants, ``NEVER`` for labels that never come. Labels that came later than
    silence, or in a log, are not among them.
    """

    known_at: NDArray[np.int64]
    time: NDArray[np.int64]
    codes: NDArray[np.int32] | None = None
    classes: tuple[Label, ...] = ()
    values: NDArray[np.float64] | None = None


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A stream that was checked from end to end and written in canonical form. Can be pickled; holds no open file.

    Parameters
    ----------
    folder : Path
        Where the rows are.
    name : str
        The stream's name.
    schema : Schema
        The feature columns, with every word of the whole stream: for reports. Batches carry their own, which knows
        only the words seen so far.
    rows : int
        Number of rows.
    digest : str
        Identity of the data: features, times, labels and when they are known, weights, groups, in order. Equal
        whatever files or tables the rows came in.
    first_time, last_time : int
        Least and greatest event time.
    zone : str
        Time zone of calendar batches.
    batch : Calendar or int
        How rows are cut into batches.
    target : str or None
        Name of the label column.
    label_type : str
        ``"string"``, ``"int64"``, ``"bool"`` or ``"double"``.
    label_values : tuple or None
        Distinct labels in order of first appearance; None if there are more than 10,000.
    labelled : int
        Rows whose label becomes known at some time, revisions aside.
    label_rule : str
        When labels become known, in words.
    implicit_delay : bool
        Whether labels count as known at once only because nothing else was said.
    label_delay : timedelta
        How long every label takes at least.
    positive : label or None
        The class that metrics of two classes are about, as the user stated it.
    stats : dict
        What each feature column holds.
    label_wait : timedelta or None
        How long after its event a row may get a label from the log, if that was stated.
    late_rows, revisions : int
        Rows that came late; labels that came apart from their rows.
    extra : tuple of str
        Columns that :meth:`column` gives besides features.
    warnings : tuple of str
        What a user should know before trusting a result.
    """

    folder: Path
    name: str
    schema: Schema = field(repr=False)
    rows: int
    digest: str
    first_time: int
    last_time: int
    zone: str
    batch: Calendar | int
    target: str | None
    label_type: str
    label_values: tuple[Label, ...] | None = field(repr=False)
    labelled: int
    label_rule: str
    implicit_delay: bool
    label_delay: timedelta
    positive: Label | None
    stats: dict[str, ColumnStats] = field(repr=False)
    late_rows: int
    revisions: int
    extra: tuple[str, ...]
    warnings: tuple[str, ...]
    label_wait: timedelta | None = None

    def batches(self, kind: TaskKind, *, apart: bool = False, bundle: int = 4096) -> Iterator[Batch]:
        """The batches in order; each call reads the stream again, from the start.

        Parameters
        ----------
        kind : {"classification", "regression"}
            Whether labels are classes or numbers.
        apart : bool
            With batches of one row: give many of them as one record with ``apart`` set. Its ``revisions`` are those
            known by its last row, about rows up to that one.
        bundle : int
            How many rows such a record holds; it begins at a multiple of this position.

        Raises
        ------
        ConfigError
            If ``apart`` is asked of larger batches.
        DataError
            If labels are words and ``kind`` is regression.
        """
        if apart and self.batch != 1:
            raise ConfigError("apart", apart, f"batches hold {self.batch}, not one row each: use batch=1")
        if bundle < 1:
            raise ConfigError("bundle", bundle, "give at least 1 row")
        return _Reading(self, kind, bundle if apart else None).batches()

    def batch_bounds(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The instant at which each batch starts and the position of its first row, two int64 arrays, shape (b,)."""
        return np.load(self.folder / BATCH_START), np.load(self.folder / BATCH_FIRST)

    def labels(self, kind: TaskKind) -> StreamLabels:
        """All labels with the instants at which they become known."""
        read = Labels(kind, self.label_type)
        parts = [(read.codes(label), time, known) for label, time, known in self._columns("label", "time", "known_at")]
        found = np.concatenate([part[0] for part in parts])
        time, known = (np.concatenate([_array(part[i]) for part in parts]) for i in (1, 2))
        if kind == "regression":
            return StreamLabels(known_at=known, time=time, values=found)
        return StreamLabels(known_at=known, time=time, codes=found, classes=tuple(read.words))

    def column(self, name: str) -> NDArray[np.float64]:
        """A column as numbers, shape (n,), NaN for nulls: one of ``extra``, or a number among the features.

        Raises
        ------
        ConfigError
            If there is no such column.
        """
        numbers = {c.name: f"f{j}" for j, c in enumerate(self.schema.columns) if c.kind is Kind.NUMBER}
        stored = {**numbers, **{extra: EXTRA + extra for extra in self.extra}}
        if name not in stored:
            raise ConfigError("column", name, f"no such column of numbers: {nearest(name, stored)}")
        parts = [column.cast(pa.float64(), safe=False) for (column,) in self._columns(stored[name])]
        return np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])

    def tail(self) -> list[tuple[int, int, Label]]:
        """(position, known at, label) of labels that came apart from their rows, after the last batch began."""
        table = _revision_table(self)
        rows = table.slice(int(np.searchsorted(table.column("batch").to_numpy(), len(self.batch_bounds()[0]))))
        columns = (rows.column(name).to_pylist() for name in ("position", "known_at", "label"))
        return list(zip(*columns, strict=True))

    def _columns(self, *names: str) -> Iterator[list[Any]]:
        with pa.OSFile(str(self.folder / ROWS)) as file:
            wanted = pa.ipc.open_file(file).schema
            fields = sorted(wanted.get_field_index(name) for name in names)
            options = pa.ipc.IpcReadOptions(included_fields=fields)
            reader = pa.ipc.open_file(file, options=options)
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i)
                yield [batch.column(batch.schema.get_field_index(name)) for name in names]


def _revision_table(prepared: Prepared) -> Any:
    with pa.OSFile(str(prepared.folder / REVISIONS)) as file:
        return pa.ipc.open_file(file).read_all()


def _array(column: Any) -> NDArray[Any]:
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _objects(column: Any) -> NDArray[Any]:
    """Plain values: a dtype would depend on which batch holds a null."""
    out = np.empty(len(column), dtype=object)
    out[:] = column.to_pylist()
    return out


@final
class Labels:
    """Turns stored labels into codes or numbers. ``words`` is append-only, in the order in which codes were asked."""

    def __init__(self, kind: TaskKind, label_type: str) -> None:
        if kind not in ("classification", "regression"):
            raise ConfigError("task", kind, nearest(str(kind), ("classification", "regression")))
        if kind == "regression" and label_type == "string":
            raise DataError("labels are words: a regression needs numbers; use a classifier, or another label column")
        self.kind = kind
        self.words: list[Label] = []
        self._codes: dict[Label, int] = {}

    def code(self, label: Label) -> int:
        """The code of a label, a new one if it was never seen."""
        found = self._codes.setdefault(label, len(self.words))
        if found == len(self.words):
            self.words.append(label)
        return found

    def fits(self, column: Any, most: int) -> NDArray[np.bool_]:
        """Which values of a column are among the classes, or among the new ones that ``most`` has room for."""
        if self.kind == "regression":
            return np.ones(len(column), dtype=np.bool_)
        encoded = column.dictionary_encode()
        room, among = most - len(self.words), []
        for word in encoded.dictionary.to_pylist():
            known = word in self._codes
            among.append(known or room > 0)
            room -= not known
        which = encoded.indices.fill_null(len(among)).to_numpy(zero_copy_only=False)
        fits: NDArray[np.bool_] = np.array([*among, True])[which]
        return fits

    def codes(self, column: Any) -> NDArray[Any]:
        """All codes of a column, or its values."""
        if self.kind == "regression":
            return _values(column)
        words = column.dictionary_encode()
        lookup = np.asarray([*map(self.code, words.dictionary.to_pylist()), -1], dtype=np.int32)
        return np.asarray(lookup[words.indices.fill_null(len(lookup) - 1).to_numpy(zero_copy_only=False)])


def _values(column: Any) -> NDArray[np.float64]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


@final
class _Growing:
    """Codes of a block, and how many of their words are known after each row: the rest is still future."""

    def __init__(self, codes: NDArray[np.int32], words: Sequence[Any]) -> None:
        self.codes = codes
        self.words = words
        self.known = np.maximum.accumulate(codes) + 1

    def upto(self, row: int) -> int:
        """Number of words that rows up to and with ``row`` have shown."""
        return int(self.known[row])


class Words(Protocol):
    """What codes mean to whoever reads stored rows: labels and categories, each as far as they are known."""

    labels: Labels
    schema: Schema
    words: Mapping[str, Sequence[str]]


@final
class Piece:
    """The rows of one stored batch, as arrays.

    Parameters
    ----------
    reading : Words
        What codes mean.
    features, others : pyarrow.RecordBatch
        The columns as they are stored.
    first : int
        Position of the first row.
    name : str
        What a store knows them by.
    """

    def __init__(self, reading: Words, features: Any, others: Any, first: int, name: str = "") -> None:
        schema, labels = reading.schema, reading.labels
        self._reading = reading
        self.first, self.stop = first, first + others.num_rows
        names = others.schema.names
        self.chunk = Chunk(pa.Table.from_arrays(features.columns, names=list(schema.names)), schema, name)
        self.time = _array(others.column("time"))
        self.known_at = _array(others.column("known_at"))
        self.rows = _bytes(others.column("digest"))
        self.late = None
        if "late" in names:
            self.late = np.asarray(others.column("late").to_numpy(zero_copy_only=False), dtype=np.bool_)
        self.weights = _array(others.column("weight")) if "weight" in names else None
        self.groups = _objects(others.column("group")) if "group" in names else None
        self.ids = _array(others.column("id")) if "id" in names else None
        self.values: NDArray[np.float64] | None = None
        self.local: _Growing | None = None
        if labels.kind == "regression":
            self.values = _values(others.column("label"))
        else:
            words = others.column("label").dictionary_encode()
            codes = words.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            self.local = _Growing(codes, words.dictionary.to_pylist())
        self._global = np.empty(0, dtype=np.int32)
        self._words = [
            (schema.vocabularies[schema.names[j]], _Growing(_array(features.column(j)), reading.words[schema.names[j]]))
            for j in schema.categories
        ]

    def codes(self, low: int, high: int, labels: Labels) -> NDArray[np.int32]:
        """Label codes of rows ``[low, high)`` of this piece; labels that only later rows have stay unnamed."""
        assert self.local is not None
        known = self.local.upto(high - 1)
        if known > len(self._global) - 1:
            named = [
                *self._global[:-1].tolist(),
                *map(labels.code, self.local.words[max(len(self._global) - 1, 0) : known]),
            ]
            self._global = np.asarray([*named, -1], dtype=np.int32)
        return np.asarray(self._global[self.local.codes[low:high]])

    def batch(self, start: int, low: int, high: int, *, apart: bool, revisions: Revisions | None) -> Batch:
        """Rows ``[low, high)`` of this piece as a batch that starts at ``start``."""
        part = slice(low, high)
        late = None if self.late is None else self.late[part]
        self.reveal(high)
        labels = self._reading.labels
        return Batch(
            start=start,
            first=self.first + low,
            features=Features(self._reading.schema, [(self.chunk, part)], high - low),
            rows=self.rows[part],
            time=self.time[part],
            known_at=self.known_at[part],
            label_codes=None if self.values is not None else self.codes(low, high, labels),
            label_values=labels.words,
            labels=None if self.values is None else self.values[part],
            weights=None if self.weights is None else self.weights[part],
            groups=None if self.groups is None else self.groups[part],
            ids=None if self.ids is None else self.ids[part],
            late=late if late is not None and late.any() else None,
            apart=apart,
            revisions=revisions,
        )

    def reveal(self, high: int) -> None:
        """Let the vocabularies know the words of rows before ``high`` of this piece."""
        for vocabulary, growing in self._words:
            if (known := growing.upto(high - 1)) > len(vocabulary):
                vocabulary.encode(growing.words[len(vocabulary) : known])


def _bytes(column: Any) -> NDArray[np.uint8]:
    data = np.frombuffer(column.buffers()[1], dtype=np.uint8)
    start = column.offset * DIGEST_BYTES
    return data[start : start + len(column) * DIGEST_BYTES].reshape(-1, DIGEST_BYTES)


@final
class _Reading:
    """One reading of a prepared stream from start to end."""

    def __init__(self, prepared: Prepared, kind: TaskKind, bundle: int | None) -> None:
        self._prepared, self._bundle = prepared, bundle
        self.labels = Labels(kind, prepared.label_type)
        self.words: Mapping[str, Sequence[str]] = {n: v.words for n, v in prepared.schema.vocabularies.items()}
        self.schema = Schema(prepared.schema.columns, {name: Vocabulary() for name in self.words})
        self._later = _revision_table(prepared) if prepared.revisions else None
        self._brought_by = np.empty(0, np.int64) if self._later is None else _whole(self._later, "batch")
        self._at = 0  # revisions given so far

    def batches(self) -> Iterator[Batch]:
        """The batches in order."""
        starts, firsts = self._prepared.batch_bounds()
        if self._bundle is not None:
            starts, firsts = starts[:: self._bundle], firsts[:: self._bundle]
        ends = np.append(firsts[1:], self._prepared.rows)
        held: list[Piece] = []
        done = 0
        for piece in self._pieces():
            held.append(piece)
            upto = int(np.searchsorted(ends, piece.stop, side="right"))
            bounds = (b[done:upto].tolist() for b in (starts, firsts, ends))
            for number, (start, first, end) in enumerate(zip(*bounds, strict=True), done):
                if first >= piece.first:
                    yield self._batch(number, start, piece, first - piece.first, end - piece.first)
                else:
                    yield self._joined(number, start, [p for p in held if p.stop > first], first, end)
            done = upto
            needed = int(firsts[done]) if done < len(firsts) else self._prepared.rows
            held = [p for p in held if p.stop > needed]

    def _pieces(self) -> Iterator[Piece]:
        # features and the rest are read apart, so that whoever keeps digests or times does not keep features too
        width, first = len(self.schema), 0
        with pa.OSFile(str(self._prepared.folder / ROWS)) as file:
            count = len(pa.ipc.open_file(file).schema)
            readers = [
                pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(use_threads=False, included_fields=fields))
                for fields in (list(range(width)), list(range(width, count)))
            ]
            for i in range(readers[0].num_record_batches):
                features, others = (reader.get_batch(i) for reader in readers)
                piece = Piece(self, features, others, first)
                first = piece.stop
                yield piece
                del piece, features, others

    def _batch(self, number: int, start: int, piece: Piece, low: int, high: int) -> Batch:
        revisions = self._revisions(number, high - low)
        return piece.batch(start, low, high, apart=self._bundle is not None, revisions=revisions)

    def _joined(self, number: int, start: int, pieces: list[Piece], first: int, end: int) -> Batch:
        """A batch whose rows lie in several pieces."""
        revisions = self._revisions(number, end - first)
        parts = []
        for p in pieces:
            low, high = max(first - p.first, 0), min(end, p.stop) - p.first
            parts.append(self._batch(-1, start, p, low, high))

        def joined(name: str) -> Any:
            arrays = [getattr(part, name) for part in parts]
            return None if arrays[0] is None else np.concatenate(arrays)

        late = [np.zeros(len(part), dtype=np.bool_) if part.late is None else part.late for part in parts]
        return Batch(
            start=start,
            first=first,
            features=Features.join(self.schema, [part.features for part in parts]),
            label_values=self.labels.words,
            late=np.concatenate(late) if any(flags.any() for flags in late) else None,
            apart=self._bundle is not None,
            revisions=revisions,
            **{name: joined(name) for name in _ARRAYS},
        )

    def _revisions(self, number: int, rows: int) -> Revisions | None:
        """Revisions that batch ``number`` brings; of a bundle, those that its rows would bring one by one."""
        if self._later is None or number < 0:
            return None
        last = number if self._bundle is None else number * self._bundle + rows - 1
        low, self._at = self._at, int(np.searchsorted(self._brought_by, last, side="right"))
        if low == self._at:
            return None
        some = self._later.slice(low, self._at - low)
        known_at, labels = _whole(some, "known_at"), some.column("label").combine_chunks()
        order = np.argsort(known_at, kind="stable")
        found = self.labels.codes(labels)[order]
        regression = self.labels.kind == "regression"
        return Revisions(
            position=_whole(some, "position")[order],
            known_at=known_at[order],
            codes=None if regression else found,
            values=found if regression else None,
        )


_ARRAYS = ("rows", "time", "known_at", "label_codes", "labels", "weights", "groups", "ids")


def _whole(table: Any, name: str) -> NDArray[np.int64]:
    return np.asarray(table.column(name).to_numpy())
