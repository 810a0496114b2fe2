"""A stream as it arrives: rows of a growing source, cut into the batches that a replay of all of them would have.

Bounds are fixed by the data: a calendar batch is whole once a row of a later one is there, a batch of rows once they
are. What is not whole stays in the source and is read again. So an intake's state, between batches, is small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError
from perennial.core.records import Batch, Label, Revisions, Said, TaskKind, WaitingChanges
from perennial.core.state import State, Stored
from perennial.core.times import NEVER, moment
from perennial.stream.answered import COLUMNS, answers
from perennial.stream.calendar import Calendar
from perennial.stream.canonical import Canonical, wanted_types
from perennial.stream.encoding import Encoder
from perennial.stream.feed import Feed, Growing, OffsetGone, Owned, Position, Run, feed_of, known_files
from perennial.stream.label_log import Find, LabelLog, Rows
from perennial.stream.lookback import LookBack
from perennial.stream.prepared import Labels, Piece
from perennial.stream.settings import Stream
from perennial.stream.sources import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Which rows the next batch holds, fixed before anything is trained on them.

    ``start`` is the batch's instant, ``rows`` how many rows behind the position before it has, and ``ahead`` how many
    rows behind these are of the same instant as the last of them: features that look back are built from all at once.
    """

    start: int
    rows: int
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A batch, the bytes that the store keeps of it, and the position after it."""

    batch: Batch
    segment: bytes
    name: str
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a stream's look-back stands, for whoever goes on from there beside the run.

    Parameters
    ----------
    lookback : LookBack
        With the rows that may still be looked at.
    columns : tuple of str
        What it is given of a row.
    position : Position
        How far the source was read by whole batches.
    ahead : int
        As many rows behind the position it has too: they are of the last batch's instant.
    types : mapping of str to pyarrow.DataType
        Of the columns that are read.
    """

    lookback: LookBack
    columns: tuple[str, ...]
    position: Position
    ahead: int
    types: Mapping[str, Any]


@dataclass(slots=True)
class _Held:
    """A run with its rows' event times, the newest so far, and the calendar batch of each; ``at`` rows are taken."""

    run: Run
    time: NDArray[np.int64]
    newest: NDArray[np.int64]
    floors: NDArray[np.int64] | None
    at: int = 0

    @property
    def left(self) -> int:
        return len(self.time) - self.at


@final
class _Pending:
    """Raw rows behind the position that no batch has taken yet."""

    def __init__(self) -> None:
        self.held: list[_Held] = []

    def __len__(self) -> int:
        return sum(held.left for held in self.held)

    def add(
        self, run: Run, time: NDArray[np.int64], newest: int, calendar: Calendar | int, zone: str, floor: int
    ) -> None:
        """Put rows behind the others; ``newest`` and ``floor`` are what stands before the first of all."""
        if self.held:
            newest = int(self.held[-1].newest[-1])
        since = np.maximum(np.maximum.accumulate(time), newest)
        floors = None
        if isinstance(calendar, Calendar):
            before = self.held[-1].floors if self.held else None
            floors = np.maximum(calendar.floor(since, zone), floor if before is None else int(before[-1]))
        self.held.append(_Held(run, time, since, floors))

    @property
    def start(self) -> int:
        """The instant of the batch that the first row begins."""
        head = self.held[0]
        return int((head.newest if head.floors is None else head.floors)[head.at])

    def same_floor(self) -> int:
        """How many rows from the first on are of its calendar batch."""
        rows, start = 0, self.start
        for held in self.held:
            assert held.floors is not None
            here = int(np.searchsorted(held.floors[held.at :], start, side="right"))
            rows += here
            if here < held.left:
                break
        return rows

    def same_instant(self, rows: int) -> int:
        """How many rows behind the first ``rows`` are of the same instant as the last of these."""
        instant, more = None, 0
        for held in self.held:
            time = held.time[held.at :]
            if rows > 0:
                if len(time) < rows:
                    rows -= len(time)
                    continue
                instant, time, rows = int(time[rows - 1]), time[rows:], 0
            other = np.flatnonzero(time != instant)
            if len(other):
                return more + int(other[0])
            more += len(time)
        return more

    def slice(self, low: int, high: int) -> tuple[Any, NDArray[np.int64]]:
        """Raw rows ``[low, high)`` as one record batch, and their event times."""
        parts, times, at = [], [], 0
        for held in self.held:
            start, stop = max(low - at, 0) + held.at, min(high - at, held.left) + held.at
            if start < stop:
                parts.append(held.run.rows.slice(start, stop - start))
                times.append(held.time[start:stop])
            at += held.left
            if at >= high:
                break
        if len(parts) == 1:
            return parts[0], times[0]
        return pa.Table.from_batches(parts).combine_chunks().to_batches()[0], np.concatenate(times)

    def origin(self, first: int) -> tuple[Part, ...]:
        """Where rows came from, if the first of them has this position in the stream."""
        out = []
        for held in self.held:
            out.append(Part(first, held.run.start + held.at, held.run.path or held.run.file))
            first += held.left
        return tuple(out)

    def take(self, rows: int) -> Position:
        """Let go of the first rows; gives the position after them."""
        position = None
        while rows:
            held = self.held[0]
            here = min(rows, held.left)
            held.at += here
            rows -= here
            position = held.run.position(held.at)
            if not held.left:
                self.held.pop(0)
        assert position is not None
        return position


@final
class Intake:
    """Batches of a stream whose source grows.

    Parameters
    ----------
    stream : Stream
        Where rows come from, and the role of each column.
    task : {"classification", "regression"}
        Whether labels are classes or numbers.
    feed, log : Growing, optional
        The source and the label log; the stream's own unless given.
    find : callable, optional
        Looks up rows of earlier batches that wait for a label of the log; there are none unless given.
    forgiving : bool
        Pass over labels of the log that were known before their event, instead of raising an error.
    """

    def __init__(
        self,
        stream: Stream,
        task: TaskKind,
        feed: Growing | None = None,
        log: Growing | None = None,
        *,
        find: Find = lambda _: {},
        forgiving: bool = False,
    ) -> None:
        self._stream, self._task, self._find = stream, task, find
        self._feed = feed or feed_of(stream.source)
        self._log = LabelLog(stream, log, forgiving=forgiving) if stream.labels is not None else None
        self._types: dict[str, Any] = {}
        self._canon: Canonical | None = None
        self._labels: Labels | None = None
        self._floor = -(2**62)  # start of the last batch
        self._built: Any = None  # features of rows of the last batch's instant that belong to the next batch
        self._seen: dict[str, Any] = {}
        self._later: list[tuple[int, int, Label]] = []  # labels that come later than silence: position, known at, label
        self._pending = _Pending()
        self._grows = True
        self._runs: Iterator[Run] = iter(())
        self.position = Position()  #: how far the source was read, by whole batches

    @property
    def labels(self) -> list[Any]:
        """What label codes mean; it grows."""
        return [] if self._labels is None else self._labels.words

    @property
    def newest(self) -> int:
        """Newest event time of the rows that batches took."""
        return self._canonical.newest

    @property
    def rows(self) -> int:
        """Rows that batches took."""
        return self._canonical.rows

    @property
    def newest_seen(self) -> int | None:
        """Newest event time among all rows that were read, also those that no batch took yet; None before the first."""
        held = self._pending.held
        if held:
            return int(held[-1].newest[-1])
        return self.newest if self._canonical.rows else None

    @property
    def pending_start(self) -> int | None:
        """When the batch began that is not whole yet; None if no row waits."""
        return self._pending.start if len(self._pending) else None

    @property
    def zone(self) -> str:
        """Time zone of calendar batches."""
        return self._canonical.zone

    @property
    def columns(self) -> dict[str, Any]:
        """Canonical type of each column that is read: raw ones, and those with a role."""
        _ = self._canonical
        return dict(self._types)

    @property
    def feature_types(self) -> dict[str, Any] | None:
        """Canonical type of each feature; None as long as only rows can tell: those that a function builds."""
        return self._canonical.feature_types

    def begin(self, types: Mapping[str, Any], words: Mapping[str, Sequence[str]]) -> None:
        """Know the features, and words of category columns with their codes, before any row was taken."""
        self._canonical.begin(types, words)

    def standing(self) -> Standing:
        """Where the look-back of a stream that has one stands, between batches."""
        canon = self._canonical
        assert canon.lookback is not None
        ahead = 0 if self._built is None else self._built.num_rows
        return Standing(
            lookback=canon.lookback, columns=canon.looked_at, position=self.position, ahead=ahead, types=self._types
        )

    @property
    def label_type(self) -> str:
        """``"string"``, ``"int64"``, ``"bool"`` or ``"double"``."""
        return str(self._canonical.label_type)

    @property
    def _canonical(self) -> Canonical:
        if self._canon is None:
            self._open(wanted_types(self._stream, self._feed.open(), ()))
        assert self._canon is not None
        return self._canon

    def _open(self, types: Mapping[str, Any]) -> None:
        self._types = dict(types)
        log_type = self._log.label_type if self._log is not None else None
        self._canon = Canonical(self._stream, types, (), log_type=log_type)
        self._labels = Labels(self._task, str(self._canon.label_type))

    # ------------------------------------------------------------------ what comes

    def changed(self) -> bool:
        """Whether the source may hold more than at the last look: cheap."""
        rows = self._feed.is_new(self._seen)
        return (self._log is not None and self._log.changed()) or rows

    def refresh(self) -> None:
        """Look at the source anew from the position on."""
        self._canonical.rewind()
        self._pending = _Pending()
        self._runs = self._feed.read(self.position, self._types, grows=self._grows)
        if self._log is not None:
            self._log.refresh()

    def ends(self) -> None:
        """The source grows no more: a last line without an end is whole."""
        if self._grows:
            self._grows = False
            self.refresh()
        if self._log is not None:
            self._log.ends()

    def look(self, *, to_the_end: bool = False) -> Bounds | None:
        """The bounds of the next batch; None while it is not whole.

        Parameters
        ----------
        to_the_end : bool
            What the source holds now is all: the last batch is whole, though more of its rows could come.

        Raises
        ------
        OffsetGone
            If the source no longer holds what was read.
        DataError
            If a file cannot be read, lacks a column, or one changed its type.
        """
        while (bounds := self._whole(last=False)) is None:
            if not self._more():
                return self._whole(last=to_the_end)
        return bounds

    def look_at_log(self, now: int) -> int | None:
        """How many lines of the label log the turn at ``now`` takes; None without a log.

        Raises
        ------
        OffsetGone, DataError
            As :meth:`look`, of the log.
        """
        return None if self._log is None else self._log.look(now)

    def log_tells(self, since: int, until: int) -> bool:
        """Whether the log holds a label that became known in ``[since, until]`` and is not joined."""
        if self._log is None:
            return False
        self._log.look(until)
        return self._log.tells(since, until)

    def log_tells_late(self, now: int, last: int) -> bool:
        """Whether a turn at ``now``, after one at ``last``, would take or join labels of the log."""
        if self._log is None:
            return False
        self._log.look(now)
        return self._log.tells_late(now, last)

    def fetch_log(self, lines: int | None) -> None:
        """Read as many lines of the log as a turn that was fixed before takes; raises ``OffsetGone`` if it cannot."""
        if self._log is not None and lines is not None:
            self._log.fetch(lines)

    def fetch(self, bounds: Bounds) -> None:
        """Read as many rows as bounds that were fixed before want.

        Raises
        ------
        OffsetGone
            If the source holds fewer.
        """
        wanted = bounds.rows + bounds.ahead
        while len(self._pending) < wanted:
            if not self._more():
                if self._grows:  # whoever fixed the bounds may have known that the source ends here
                    self.ends()
                    continue
                raise OffsetGone(
                    f"the next batch was fixed to have {wanted:,} rows, and the source holds {len(self._pending):,} "
                    "behind what was read: rows were taken away; put them back"
                )
        if self._pending.start != bounds.start:
            raise OffsetGone(
                f"the next batch was fixed to begin at {moment(bounds.start)}, and the rows behind what was read begin "
                f"at {moment(self._pending.start)}: rows were taken away or rewritten; put them back"
            )

    def _more(self) -> bool:
        run = next(self._runs, None)
        if run is None:
            return False
        canon = self._canonical
        first = canon.rows + len(self._pending)
        time = canon.instants(run.rows, (Part(first, run.start, run.path or run.file),), first=first)
        self._pending.add(run, time, canon.newest, self._stream.calendar, canon.zone, self._floor)
        return True

    def _whole(self, *, last: bool) -> Bounds | None:
        """The bounds of the first batch, if it is whole, or if no more rows come."""
        pending, calendar = self._pending, self._stream.calendar
        held = len(pending)
        if not held:
            return None
        if isinstance(calendar, int):
            rows = min(calendar, held)
            open_ended = rows < calendar
        else:
            rows = pending.same_floor()
            open_ended = rows == held
        ahead = 0
        if self._canonical.looks_back:  # rows of the last instant that belong to its features, if not to the batch
            ahead = pending.same_instant(rows)
            open_ended |= rows + ahead == held
        return None if open_ended and not last else Bounds(start=pending.start, rows=rows, ahead=ahead)

    def take(self, bounds: Bounds, lines: int | None = None) -> Arrived:
        """The batch of bounds that :meth:`look` gave or :meth:`fetch` made sure of; the position moves behind it.

        ``lines`` of the label log are taken with it.

        Raises
        ------
        DataError
            If rows break a rule.
        """
        canon, pending = self._canonical, self._pending
        assert self._labels is not None
        n, ahead = bounds.rows, bounds.ahead
        (rows, time), origin = pending.slice(0, n), pending.origin(canon.rows)
        before = self._built
        looked = 0 if before is None else min(before.num_rows, n)
        first = canon.rows
        try:
            taken = canon.take(rows, time, origin, looked=looked)
            table = self._features(taken.features, before, n, ahead)
            columns, _ = canon.encode(table)
            if self._log is not None:
                met = Rows(ids=taken.others["id"].to_pylist(), first=first, time=time)
                self._match(lines, met, bounds.start, canon.newest)
        except DataError:
            self._canon = None  # half taken: it must be restored before it goes on
            raise
        features = pa.record_batch([columns[name] for name in columns if name != "digest"],
                                   names=[name for name in columns if name != "digest"])  # fmt: skip
        others = pa.record_batch([*taken.others.values(), columns["digest"]], names=[*taken.others, "digest"])
        every = pa.array(np.arange(n))  # copies: a slice would be written with bytes of the rows behind it
        segment = _segment(features.take(every), others.take(every))
        name = hashlib.sha256(segment).hexdigest()
        revisions = self._revisions(bounds.start, first)
        self._later += canon.rule.drain()
        piece = Piece(self._reading(), features, others, first, name)
        batch = piece.batch(bounds.start, 0, n, apart=False, revisions=revisions)
        if self._stream.served:
            batch = replace(batch, said=self._said(rows))
        self._floor = max(self._floor, bounds.start)
        self.position = pending.take(n)
        return Arrived(batch=batch, segment=segment, name=name, position=self.position)

    def _said(self, rows: Any) -> Said | None:
        """What rows of a stream that is served say was said of them; None where nobody said anything."""
        if not set(COLUMNS) <= set(self._types):
            return None
        version, said, shadow, shadow_said = (rows.column(name).to_pylist() for name in COLUMNS)
        told, unseen = answers(version, said, self._task), answers(shadow, shadow_said, self._task)
        if (told.major < 0).all():
            return None
        return Said(told=told, shadow=unseen if (unseen.major >= 0).any() else None)

    def _features(self, fresh: Any, before: Any, n: int, ahead: int) -> Any:
        """The raw feature table of the batch; what belongs to the next one is put aside."""
        canon = self._canonical
        if not canon.looks_back:
            return fresh
        looked = 0 if before is None else before.num_rows
        parts = [part for part in (before, fresh) if part is not None]
        if n + ahead > max(looked, n):
            more = canon.look(*self._pending.slice(max(looked, n), n + ahead))
            parts += [] if more is None else [more]
        rest = canon.finish()
        parts += [] if rest is None else [rest]
        table = pa.concat_tables(parts)
        self._built = table.slice(n) if table.num_rows > n else None
        return table.slice(0, n).combine_chunks()

    def _match(self, lines: int | None, rows: Rows | None, now: int, newest: int) -> None:
        assert self._log is not None
        assert self._labels is not None
        self._log.take(lines or 0, rows, self._find, self._labels, self._canonical.label_type, now, newest)

    def tick(self, lines: int | None, now: int) -> Revisions | None:
        """Labels of the log that became known by ``now``, where no rows come; ``lines`` of it are taken.

        Raises
        ------
        DataError
            If they break a rule.
        """
        if self._log is None:
            return None
        self._match(lines, None, now, self.newest)
        return self._revisions(now, self.rows)

    def _revisions(self, now: int, first: int) -> Revisions | None:
        """Labels known by ``now`` that came later than silence or in the log, of rows before position ``first``."""
        due = [entry for entry in self._later if entry[1] <= now and entry[0] < first]
        if due:
            self._later = [entry for entry in self._later if entry[1] > now or entry[0] >= first]
        return self._told(due, now, first)

    def tail(self, lines: int | None = None) -> Revisions | None:
        """All labels that came later than silence or in the log and that no batch has brought; they are given once.

        ``lines`` of the log are taken.
        """
        if self._log is not None:
            self._match(lines, None, NEVER, NEVER)
        due, self._later = self._later, []
        return self._told(due, NEVER, self.rows)

    def _told(self, due: list[tuple[int, int, Label]], now: int, first: int) -> Revisions | None:
        """Labels that came later than silence, and those of the log that are due, in order of their instants."""
        assert self._labels is not None
        log = self._log.due(now, first) if self._log is not None else None
        if not due and (log is None or not len(log.position)):
            return None
        position, known_at, labels = zip(*due, strict=True) if due else ((), (), ())
        where, at = np.array(position, dtype=np.int64), np.array(known_at, dtype=np.int64)
        found = self._labels.codes(pa.array(labels, type=self._canonical.label_type))
        replaces = np.zeros(len(at), dtype=np.bool_)
        if log is not None:
            where, at = np.concatenate([where, log.position]), np.concatenate([at, log.known_at])
            found = np.concatenate([found, log.label.astype(found.dtype)])
            replaces = np.concatenate([replaces, log.replaces])
        order = np.argsort(at, kind="stable")  # of labels known at once, the row that came first is first
        by_code = self._task == "classification"
        return Revisions(
            position=where[order],
            known_at=at[order],
            codes=found[order] if by_code else None,
            values=None if by_code else found[order],
            replaces=replaces[order] if replaces.any() else None,
        )

    # ------------------------------------------------------------------ rows that wait for a label of the log

    def waiting(self, now: int) -> WaitingChanges | None:
        """What the turn that was taken last, at ``now``, changes among the rows that wait; None without a log."""
        return None if self._log is None else self._log.changes(now)

    @property
    def passed_over(self) -> int:
        """Labels of the log that the last turn passed over: too late, of no row, or known before their event."""
        return 0 if self._log is None else self._log.passed_over

    def notes(self) -> tuple[str, ...]:
        """What the last turn passed over of the log, and which features it lacks, in words: once."""
        lookback = self._canonical.lookback
        failures = lookback.failures() if lookback is not None else None
        return (*(() if self._log is None else self._log.notes()), *(() if failures is None else (failures,)))

    def _reading(self) -> _Reading:
        assert self._labels is not None
        return _Reading(self._canonical, self._labels)

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> State:
        """Everything that the next batch depends on, besides settings and the source."""
        canon = self._canonical
        sink: dict[str, NDArray[Any]] = {}
        if self._built is not None:
            out = pa.BufferOutputStream()
            with pa.ipc.new_stream(out, self._built.schema) as writer:
                writer.write_table(self._built)
            sink["built"] = np.frombuffer(out.getvalue(), dtype=np.uint8)
        types = pa.schema(list(self._types.items())).serialize().to_pybytes().hex()
        plain = {
            "position": self.position.to_plain(), "types": types, "labels": list(self.labels), "floor": self._floor,
            "later": [list(entry) for entry in self._later],
            "files": known_files(self._feed, self.position),
        }  # fmt: skip
        own = State.join(State(plain=plain, arrays=sink), canon.state().under("canon"))
        return own if self._log is None else State.join(own, self._log.state().under("log"))

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave; raises ``ConfigError`` if the settings want other columns."""
        plain = state.plain
        schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(plain["types"])))
        if self._log is not None and "log" in state.plain:  # else the log is new: it is read from its start
            self._log.restore(state.part("log"))
        for role, column in self._stream.roles.items():
            if column not in schema.names and (self._stream.labels is None or role not in ("target", "known_at")):
                raise ConfigError(
                    role, column, f"{column!r} was not read when the deployment was begun: go back to its settings, or "
                    "give the new ones a `name` of their own",
                )  # fmt: skip
        self._open({field.name: field.type for field in schema})
        assert self._canon is not None
        assert self._labels is not None
        self._canon.restore(state.part("canon"))
        for label in plain["labels"]:
            self._labels.code(label)
        self.position, self._floor = Position.from_plain(plain["position"]), plain["floor"]
        self._later = [(position, known_at, label) for position, known_at, label in plain["later"]]
        if isinstance(self._feed, Feed):
            self._feed.known = dict(plain["files"])
        self._built = None
        if "built" in state.arrays:
            with pa.ipc.open_stream(pa.py_buffer(state.arrays["built"].tobytes())) as reader:
                self._built = reader.read_all()

    def erase(self, key: str, words: Mapping[str, Collection[str]]) -> None:
        """Forget past rows of a subject, and words of category columns that nobody else used."""
        self._canonical.erase(key, words)

    def trim(self, *, within: bool = False) -> None:
        """What turns took is durable: sources that are ours let go of it, ``within`` what came together too."""
        if isinstance(self._feed, Owned):
            self._feed.trim(self.position, within=within)
        if self._log is not None:
            self._log.trim(within=within)

    @property
    def owned(self) -> bool:
        """Whether rows that wait in the source, or labels in their log, are ours to erase."""
        return isinstance(self._feed, Owned) or (self._log is not None and self._log.owned)

    def erase_labels(self, ids: Sequence[Any]) -> None:
        """Take labels of rows of these ids that no turn took yet out of a log that is ours."""
        if self._log is not None:
            self._log.erase(ids)

    def erase_waiting(self, key: str) -> int:
        """Take a subject's rows that no batch took yet out of a source that is ours; says how many.

        Raises
        ------
        DataError
            If features of such rows were built already, from all rows of their instant: a batch must take them first.
        """
        if not isinstance(self._feed, Owned):
            return 0
        self.refuse_built()
        gone = self._feed.erase(str(self._stream.key), [key])
        self.refresh()
        return gone

    def refuse_built(self) -> None:
        """Raise ``DataError`` if rows that no batch took yet have had their features built."""
        if self._built is not None:
            raise DataError(
                f"{self._built.num_rows:,} rows of the last batch's instant wait for the next batch, and "
                "have their features: erase once a batch has taken them"
            )

    def forget(self, position: NDArray[np.int64]) -> None:
        """Forget labels that are on their way to rows at these positions, apart from them."""
        gone = set(position.tolist())
        self._later = [entry for entry in self._later if entry[0] not in gone]
        if self._log is not None:
            self._log.forget(position)

    def stored(self, segment: bytes, name: str) -> Stored:
        """Rows of the store, in the terms of this intake."""
        features, others = _split(segment)
        piece = Piece(self._reading(), features, others, 0, name)
        return Stored(chunk=piece.chunk, time=piece.time, rows=piece.rows, weight=piece.weights, group=piece.groups)

    @property
    def encoder(self) -> Encoder:
        """What encodes features; there is one once a batch was taken."""
        return self._canonical.encoder

    @property
    def schema(self) -> Any:
        """The features, as far as they are known: None before the first batch."""
        return None if self._canonical._encoder is None else self._canonical.encoder.schema


class _Reading:
    """What codes mean, for whoever reads segments."""

    def __init__(self, canon: Canonical, labels: Labels) -> None:
        self.labels = labels
        self.schema = canon.encoder.schema
        self.words: Mapping[str, Sequence[str]] = {n: words.words for n, words in self.schema.vocabularies.items()}


def _segment(features: Any, others: Any) -> bytes:
    """The bytes that the store keeps of some rows: Arrow IPC, compressed; features first."""
    columns = [*features.columns, *others.columns]
    batch = pa.record_batch(columns, names=[*features.schema.names, *others.schema.names])
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _split(segment: bytes) -> tuple[Any, Any]:
    with pa.ipc.open_stream(pa.py_buffer(segment)) as reader:
        batch = reader.read_next_batch().replace_schema_metadata(None)
    names = batch.schema.names
    width = names.index("time")
    return batch.select(names[:width]), batch.select(names[width:])
