"""The label log of a stream that goes on: read behind a position, matched with rows by id, held until it is known.

A backtest reads a log whole before it begins. Here its lines come when they come, and what is joined is the same as
long as each can be read by the time its label is known. Which row an id means is looked up among the rows that still
wait for a label; who keeps these is the caller's business. A line whose row is not there yet is parked: rows come in
order of time, so that one whose label was known before the rows by now is of no row that could still come.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.records import WaitingChanges, WaitingRow
from perennial.core.state import State
from perennial.core.times import NEVER, micros, spell
from perennial.stream.feed import Feed, Growing, OffsetGone, Owned, Position, Run, feed_of, known_files
from perennial.stream.instants import Instants
from perennial.stream.joining import had_by_both, known_before_event, label_type
from perennial.stream.prepared import Labels
from perennial.stream.settings import Stream
from perennial.stream.sources import Part, Source

#: labels that are read before they are known: as many wait in the state, the others in the log
AHEAD = 1 << 16
#: labels that are known and whose row is not there: as many wait for it
PARKED = 1 << 16
#: a number beyond it is no label of a stream that is served: sums of losses stay finite
LARGEST = 1e100

#: the rows that wait for a label, by digest of their id: those of the digests that are asked for
Find = Callable[[Sequence[bytes]], Mapping[bytes, Sequence[WaitingRow]]]

_WIDTH = 16  # bytes of a digest

_Parked = dict[bytes, list[tuple[int, Any]]]  # (known at, label) by digest of the id, in the order of the log


def log_columns(stream: Stream) -> dict[str, str]:
    """The columns of a stream's label log, by the setting that names each."""
    return {"id": str(stream.id), "target": str(stream.target), "known_at": stream.known_at or "known_at"}


def log_types(stream: Stream, source: Source) -> dict[str, Any]:
    """Types of the columns that are read of a label log; raises ``ConfigError`` if it lacks one."""
    columns = log_columns(stream)
    types = source.types((), [columns["known_at"]])
    for setting, column in columns.items():
        if column not in types:
            raise ConfigError(setting, column, f"the label log has no such column: {nearest(column, types)}")
    return {column: types[column] for column in columns.values()}


def id_digest(value: object) -> bytes:
    """Sixteen bytes that stand for an id; equal for values that are equal, as 7 and 7.0 are.

    Examples
    --------
    >>> id_digest(7) == id_digest(7.0) != id_digest("7")
    True
    """
    match value:
        case str():
            text = f"text:{value}"
        case bool() | int():
            text = f"number:{int(value)}"
        case float():
            text = f"number:{int(value)}" if value.is_integer() else f"number:{value.hex()}"
        case _:
            text = f"{type(value).__name__}:{value!r}"
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_WIDTH).digest()


@dataclass(slots=True)
class _Block:
    """Some lines of the log that no turn has taken yet; ``at`` are taken."""

    run: Run
    known_at: NDArray[np.int64]
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of a batch by id: ``ids`` as the stream has them, their positions from ``first`` on, and event times."""

    ids: Sequence[Any]
    first: int
    time: NDArray[np.int64]


@final
class LabelLog:
    """Labels that come apart from their rows, one turn's worth after the other.

    Parameters
    ----------
    stream : Stream
        With ``labels``.
    feed : Growing, optional
        The log; the stream's own unless given.
    forgiving : bool
        Pass over labels that were known before their event, and count them, instead of raising an error.
    """

    def __init__(self, stream: Stream, feed: Growing | None = None, *, forgiving: bool = False) -> None:
        self._stream, self._forgiving = stream, forgiving
        self._feed = feed or feed_of(stream.labels, "labels")
        self._columns = log_columns(stream)
        self._wait = micros(stream.waits)
        within = stream.span("within")
        self._within = None if within is None else micros(within)
        self._lateness = micros(stream.span("lateness") or timedelta(0))
        self._types: dict[str, Any] = {}
        self._instants: Instants | None = None
        self._seen: dict[str, Any] = {}
        self._grows = True
        self._runs: Iterator[Run] = iter(())
        self._pending: list[_Block] = []
        self.position = Position()  #: how far the log was read, by whole turns
        self._parked: _Parked = {}
        self._coming = _Coming.of(())
        self._matched: list[tuple[int, int, int, Any]] = []
        self._added: list[WaitingRow] = []
        self._named: list[tuple[bytes, int]] = []
        self._late = self._early = self._unknown = self._classless = 0
        self._looked = -NEVER  # of a served stream: labels known by then were looked up

    @property
    def label_type(self) -> Any:
        """The type of its labels."""
        self._open()
        target = self._columns["target"]
        return label_type(target, self._types[target])

    def _open(self) -> Instants:
        if self._instants is None:
            if not self._types:
                self._types = log_types(self._stream, self._feed.open())
            known_at = self._columns["known_at"]
            self._instants = Instants(known_at, self._types[known_at], self._stream.time_zone, ordered=False)
        return self._instants

    # ------------------------------------------------------------------ what comes

    def changed(self) -> bool:
        """Whether the log may hold more than at the last look: cheap."""
        return self._feed.is_new(self._seen)

    def refresh(self) -> None:
        """Look at the log anew from the position on."""
        self._open()
        self._pending = []
        self._runs = self._feed.read(self.position, self._types, grows=self._grows)

    def ends(self) -> None:
        """The log grows no more: a last line without an end is whole."""
        if self._grows:
            self._grows = False
            self.refresh()

    def look(self, now: int) -> int:
        """How many lines the turn at ``now`` takes: all there are, but few of those that are not known by then.

        Raises
        ------
        OffsetGone
            If the log no longer holds what was read.
        DataError
            If it cannot be read, lacks a column, or one changed its type.
        """
        if self.changed():
            self.refresh()
        room = max(AHEAD - self._ahead(now), 0)
        taken, number = 0, 0
        while number < len(self._pending) or self._more():
            block = self._pending[number]
            known_at = block.known_at[block.at :]
            future = np.flatnonzero((known_at > now) & (known_at != NEVER))
            if len(future) > room:
                return taken + int(future[room])
            room -= len(future)
            taken += len(known_at)
            number += 1
        return taken

    def _ahead(self, now: int) -> int:
        """Labels that are held and not known by ``now``."""
        parked = sum(known_at > now for entries in self._parked.values() for known_at, _ in entries)
        return parked + int((self._coming.known_at > now).sum())

    def fetch(self, lines: int) -> None:
        """Read as many lines as a turn that was fixed before takes; raises ``OffsetGone`` if there are fewer."""
        while sum(len(block.known_at) - block.at for block in self._pending) < lines:
            if not self._more():
                if self._grows:  # whoever fixed the turn may have known that the log ends here
                    self.ends()
                    continue
                raise OffsetGone(
                    f"the next turn was fixed to take {lines:,} lines of the label log, and it holds fewer behind what "
                    "was read: lines were taken away; put them back"
                )

    def _more(self) -> bool:
        run = next(self._runs, None)
        if run is None:
            return False
        column = run.rows.column(self._columns["known_at"])
        origin = (Part(run.start, run.start, run.path or run.file),)
        self._pending.append(_Block(run, self._open().convert(column, run.start, origin)))
        return True

    def tells(self, since: int, until: int) -> bool:
        """Whether there is a label to join that became known in ``[since, until]``: read and not taken, or held."""
        held = self._coming.instant(self._within, self._stream.positives_wait)
        instants = [held, *(block.known_at[block.at :] for block in self._pending)]
        return any(((part >= since) & (part <= until)).any() for part in instants)

    def tells_late(self, now: int, last: int) -> bool:
        """Whether a turn at ``now``, after one at ``last``, would take or join a label, however long it waits."""
        parked = [known_at for entries in self._parked.values() for known_at, _ in entries]
        return self.tells(-NEVER, now) or any(last < known_at <= now for known_at in parked)

    # ------------------------------------------------------------------ a turn

    def take(
        self, lines: int, rows: Rows | None, find: Find, labels: Labels, dtype: Any, now: int, newest: int
    ) -> None:
        """Take the lines of a turn, and match what is held with the turn's rows and those that wait.

        Parameters
        ----------
        lines : int
            What :meth:`look` gave or :meth:`fetch` made sure of.
        rows : Rows, optional
            The rows of the batch.
        find : callable
            Looks up rows of earlier batches.
        labels, dtype : Labels, pyarrow.DataType
            What labels are kept as, and the stream's type of them.
        now, newest : int
            The turn's instant, and the newest event time by its end.

        Raises
        ------
        DataError
            If two rows have an id that the log names, or a label is known before its event.
        """
        self._added, self._named, self._matched = [], [], []
        self._late = self._early = self._unknown = self._classless = 0
        fresh = self._lines(lines, labels, dtype)
        here: dict[bytes, list[int]] = defaultdict(list)
        if rows is not None:
            for i, row_id in enumerate(rows.ids):
                if row_id is not None:
                    here[id_digest(row_id)].append(i)
        if self._stream.served:
            self._meet_any(rows, here, fresh, find, now)
            self._coming = self._coming.plus(_Coming.of(self._matched))
            self._give_up(now, newest)
            return
        there = find([*here, *(key for key in fresh if key not in here)])
        if rows is not None:
            self._meet(rows, here, there, fresh)
        for key, (row_id, entries) in fresh.items():
            if key in here:
                continue
            if not (waiting := there.get(key)):
                self._parked.setdefault(key, []).extend(entries)
                continue
            if len(waiting) > 1:
                raise DataError(had_by_both(row_id, waiting[0].position, waiting[1].position))
            row = waiting[0]
            self._match(row_id, row.position, row.time, entries)
            if not row.named:
                self._named.append((key, row.position))
        self._coming = self._coming.plus(_Coming.of(self._matched))
        self._give_up(now, newest)

    def _meet(
        self,
        rows: Rows,
        here: Mapping[bytes, list[int]],
        there: Mapping[bytes, Sequence[WaitingRow]],
        fresh: Mapping[bytes, tuple[Any, list[tuple[int, Any]]]],
    ) -> None:
        """Match the rows of a batch with what waits for them and what came with them."""
        for key, which in here.items():
            row_id, before = rows.ids[which[0]], there.get(key, ())
            entries = [*self._parked.pop(key, ()), *(fresh[key][1] if key in fresh else ())]
            if entries or any(row.named for row in before):
                both = [*(row.position for row in before), *(rows.first + i for i in which)]
                if len(both) > 1:
                    raise DataError(had_by_both(row_id, both[0], both[1]))
            if entries:
                self._match(row_id, rows.first + which[0], int(rows.time[which[0]]), entries)
            self._added += [
                WaitingRow(id=key, position=rows.first + i, time=int(rows.time[i]), named=bool(entries)) for i in which
            ]

    def _meet_any(
        self,
        rows: Rows | None,
        here: Mapping[bytes, list[int]],
        fresh: Mapping[bytes, tuple[Any, list[tuple[int, Any]]]],
        find: Find,
        now: int,
    ) -> None:
        """As a stream that is served is matched: an id may be many rows', and a label waits until it is known.

        Until then rows with its id may come that are newer; afterwards they are about something later.
        """
        due = [key for key, held in self._parked.items() if any(self._looked < known_at <= now for known_at, _ in held)]
        for key, (_, entries) in fresh.items():
            self._parked.setdefault(key, []).extend(entries)
        self._looked = now
        named: set[tuple[bytes, int]] = set()
        wanted = dict.fromkeys([*fresh, *due, *(key for key in here if key in self._parked)])
        before = find(list(wanted)) if wanted else {}
        for key in wanted:
            old = {row.position: row for row in before.get(key, ())}
            which = [(row.time, row.position) for row in old.values()]
            if rows is not None:
                which += [(int(rows.time[i]), rows.first + i) for i in here.get(key, ())]
            rest = []
            for known_at, label in self._parked.pop(key):
                found = meant(which, known_at, self._lateness) if known_at <= now else None
                if found is None:
                    rest.append((known_at, label))
                    continue
                time, position = found
                self._match(None, position, time, [(max(known_at, time), label)])
                if position in old and not old[position].named:
                    self._named.append((key, position))
                named.add((key, position))
            if rest:
                self._parked[key] = rest
        self._named = list(dict.fromkeys(self._named))
        if rows is not None:
            self._added = [
                WaitingRow(
                    id=key, position=rows.first + i, time=int(rows.time[i]), named=(key, rows.first + i) in named
                )
                for key, which_here in here.items()
                for i in which_here
            ]

    def _match(self, row_id: Any, position: int, time: int, entries: Sequence[tuple[int, Any]]) -> None:
        for known_at, label in entries:
            if known_at < time:
                if not self._forgiving:
                    raise DataError(
                        f"{known_before_event(row_id, known_at, time)}: correct the log; a line that was read before "
                        "its row came is passed over by  perennial run --accept"
                    )
                self._early += 1
            elif known_at > time + self._wait:
                self._late += 1
            else:
                self._matched.append((position, time, known_at, label))

    def _lines(self, lines: int, labels: Labels, dtype: Any) -> dict[bytes, tuple[Any, list[tuple[int, Any]]]]:
        """The next lines by id, each id's (known at, label) in the order of the log; the position moves behind them."""
        out: dict[bytes, tuple[Any, list[tuple[int, Any]]]] = {}
        while lines:
            block = self._pending[0]
            here = min(lines, len(block.known_at) - block.at)
            rows = block.run.rows.slice(block.at, here)
            known_at = block.known_at[block.at : block.at + here].tolist()
            found = rows.column(self._columns["target"]).cast(self.label_type, safe=False)
            there = np.asarray(found.is_valid())
            if self._stream.served and pa.types.is_floating(found.type):  # a client's mistake
                there &= np.abs(found.to_numpy(zero_copy_only=False)) <= LARGEST
            if found.type != dtype:  # rows bring labels too, and theirs is the type
                try:
                    found = pa.array(found.to_pylist(), type=dtype)
                except pa.ArrowException as error:
                    raise DataError(
                        f"labels of the log are {found.type}, in {block.run.file}, and those of the rows {dtype}: "
                        "write both alike"
                    ) from error
            if self._stream.served:
                fits = labels.fits(found, self._stream.most_classes)
                self._classless += int((there & ~fits).sum())
                there &= fits
                found = pc.if_else(pa.array(fits), found, pa.scalar(None, found.type))
            codes = labels.codes(found).tolist()
            ids = rows.column(self._columns["id"]).to_pylist()
            for row_id, known, label, said in zip(ids, known_at, codes, there, strict=True):
                if row_id is not None and said and known != NEVER:
                    out.setdefault(id_digest(row_id), (row_id, []))[1].append((known, label))
            block.at += here
            lines -= here
            self.position = block.run.position(block.at)
            if block.at == len(block.known_at):
                self._pending.pop(0)
        return out

    def _give_up(self, now: int, newest: int) -> None:
        """Let go of labels whose row cannot come any more, or that are too many to wait for one."""
        every = [(known_at, key, label) for key, held in self._parked.items() for known_at, label in held]
        until = newest - self._lateness
        entries = [entry for entry in every if entry[0] >= until or (self._stream.served and entry[0] > now)]
        waiting = [number for number, entry in enumerate(entries) if entry[0] <= now]
        waiting.sort(key=lambda number: entries[number][0])
        gone = set(waiting[: max(len(waiting) - PARKED, 0)])
        self._unknown += len(every) - len(entries) + len(gone)
        self._parked = {}
        for number, (known_at, key, label) in enumerate(entries):
            if number not in gone:
                self._parked.setdefault(key, []).append((known_at, label))

    def due(self, now: int, before: int) -> Due:
        """Labels known by ``now`` of rows before position ``before``, once, in order of their instants."""
        coming, waits = self._coming, self._stream.positives_wait
        instant = coming.instant(self._within, waits)
        ready = np.flatnonzero((instant <= now) & (coming.position < before))
        ready = ready[np.lexsort((coming.known_at[ready], instant[ready]))]
        rest = np.ones(len(instant), dtype=np.bool_)
        rest[ready] = False
        self._coming = coming.only(rest)
        position, replaces = coming.position[ready], np.zeros(len(ready), dtype=np.bool_)
        if self._within is not None and waits:  # at the end of silence counts what was said last
            timely = np.flatnonzero(coming.timely(self._within)[ready])
            last = len(timely) - 1 - np.unique(position[timely][::-1], return_index=True)[1]
            replaces[timely[last]] = True
            said = replaces.copy()
            said[np.setdiff1d(np.arange(len(ready)), timely)] = True
            ready, position, replaces = ready[said], position[said], replaces[said]
        elif self._within is not None:
            replaces[np.unique(position, return_index=True)[1]] = True
        return Due(position=position, known_at=instant[ready], label=coming.label[ready], replaces=replaces)

    def changes(self, now: int) -> WaitingChanges:
        """What the turn that was taken last, at ``now``, changes among the rows that wait."""
        until = max(now - self._wait, -NEVER)
        return WaitingChanges(until=until, added=tuple(self._added), named=tuple(self._named))

    @property
    def passed_over(self) -> int:
        """Labels of the last turn that were not joined."""
        return self._late + self._early + self._unknown + self._classless

    def notes(self) -> tuple[str, ...]:
        """What the last turn passed over, in words."""
        wait = spell(timedelta(microseconds=self._wait))
        said = (
            (self._late, f"known more than label_wait={wait!r} after the event"),
            (self._unknown, f"of no row, or of one that waits no more (label_wait={wait!r})"),
            (self._early, "known before the event"),
            (self._classless, f"of a class beyond the first {self._stream.most_classes:,} (serve.classes)"),
        )
        return tuple(f"label log: {n:,} passed over, {what}" for n, what in said if n)

    def trim(self, *, within: bool = False) -> None:
        """What turns took is durable: a log that is ours lets go of it, ``within`` what came together too."""
        if isinstance(self._feed, Owned):
            self._feed.trim(self.position, within=within)

    @property
    def owned(self) -> bool:
        """Whether lines that wait in the log are ours to erase."""
        return isinstance(self._feed, Owned)

    def erase(self, ids: Sequence[Any]) -> None:
        """Take lines about these ids that no turn took yet out of a log that is ours."""
        if ids and isinstance(self._feed, Owned):
            self._feed.erase(self._columns["id"], [str(one) for one in ids])
            self.refresh()

    def forget(self, position: NDArray[np.int64]) -> None:
        """Let go of the labels of rows that were erased."""
        self._coming = self._coming.only(~np.isin(self._coming.position, position))

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> State:
        """Everything that the next turn depends on, besides settings, the log and the rows that wait."""
        self._open()
        parked = [(key, known_at, label) for key, entries in self._parked.items() for known_at, label in entries]
        instants = self._instants
        assert instants is not None
        plain = {
            "position": self.position.to_plain(),
            "types": pa.schema(list(self._types.items())).serialize().to_pybytes().hex(),
            "known_at": instants.state(),
            "files": known_files(self._feed, self.position),
        }
        arrays: dict[str, NDArray[Any]] = {
            "parked_id": np.frombuffer(b"".join(key for key, _, _ in parked), dtype=np.uint8).reshape(-1, _WIDTH),
            "parked_known_at": np.array([known_at for _, known_at, _ in parked], dtype=np.int64),
            "parked_label": np.array([label for _, _, label in parked], dtype=np.float64),
            "position": self._coming.position,
            "time": self._coming.time,
            "known_at": self._coming.known_at,
            "label": self._coming.label,
        }
        return State(plain=plain, arrays=arrays)

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        plain, arrays = state.plain, state.arrays
        schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(plain["types"])))
        self._types, self._instants = {field.name: field.type for field in schema}, None
        self._open().restore(plain["known_at"])
        self.position = Position.from_plain(plain["position"])
        if isinstance(self._feed, Feed):
            self._feed.known = dict(plain["files"])
        self._coming = _Coming(arrays["position"], arrays["time"], arrays["known_at"], arrays["label"])
        self._parked = {}
        kept = (arrays[name] for name in ("parked_id", "parked_known_at", "parked_label"))
        for key, known_at, label in zip(*kept, strict=True):
            self._parked.setdefault(key.tobytes(), []).append((int(known_at), label.item()))


def meant(rows: Sequence[tuple[int, int]], known_at: int, lateness: int) -> tuple[int, int] | None:
    """Which of several rows with one id, as (event time, position), a label of a served stream is about.

    It is the newest that had happened when the label was known. Where none had, by the clocks of two machines, it is
    the first that happened soon after.

    Examples
    --------
    >>> rows = [(10, 0), (20, 1), (30, 2)]
    >>> meant(rows, 25, 3), meant(rows, 8, 3), meant(rows, 5, 3)
    ((20, 1), (10, 0), None)
    """
    before = [row for row in rows if row[0] <= known_at]
    soon = [row for row in rows if known_at < row[0] <= known_at + lateness]
    return max(before) if before else min(soon) if soon else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Labels to join, r of them: ``position`` and ``known_at`` int64 (r,), ``label`` codes or numbers (r,).

    ``replaces`` bool (r,) says which take the place of the row's own label if that is not known earlier.
    """

    position: NDArray[np.int64]
    known_at: NDArray[np.int64]
    label: NDArray[Any]
    replaces: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Coming:
    """Labels whose row is known: its position and event time, when each becomes known, and what it says."""

    position: NDArray[np.int64]
    time: NDArray[np.int64]
    known_at: NDArray[np.int64]
    label: NDArray[np.float64]

    @classmethod
    def of(cls, entries: Sequence[tuple[int, int, int, Any]]) -> _Coming:
        position, time, known_at, label = zip(*entries, strict=True) if entries else ((), (), (), ())
        return cls(
            np.array(position, dtype=np.int64),
            np.array(time, dtype=np.int64),
            np.array(known_at, dtype=np.int64),
            np.array(label, dtype=np.float64),  # codes are exact in it
        )

    def plus(self, other: _Coming) -> _Coming:
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return _Coming(*(np.concatenate(pair) for pair in pairs))

    def only(self, mask: NDArray[np.bool_]) -> _Coming:
        return _Coming(*(getattr(self, name)[mask] for name in self.__slots__))

    def timely(self, within: int) -> NDArray[np.bool_]:
        """Which became known before silence would have been a label."""
        return np.asarray(self.known_at <= self.time + within)

    def instant(self, within: int | None, waits: bool) -> NDArray[np.int64]:
        """When each is joined: once it is known, or where those in time wait for the end of silence, then."""
        if within is None or not waits:
            return self.known_at
        return np.maximum(self.known_at, self.time + within)
