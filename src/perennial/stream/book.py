"""The rows in play: those that wait for a label, wait to be learned, or that a window may still ask for.

Joining predictions with late labels happens here and nowhere else: a label leaves the schedule when it is known, and
no earlier. Memory is bounded by what the window keeps plus the longest wait for a label, never by the stream.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.features import Chunk, Features, Index, Schema
from perennial.core.protocols import Cut, Keep
from perennial.core.records import UNLABELLED, Batch, Examples, Joined, Label, Revisions, TaskKind
from perennial.core.state import Fetch, State
from perennial.core.times import NEVER

#: columns of rows that change after they came; the rest is the store's
_FLAGS = ("label", "known", "learnable", "overdue")


@final
class _Rows:
    """A run of consecutive positions ``[base, base + n)`` in growing arrays that give up rows at the front."""

    def __init__(self, base: int, columns: dict[str, NDArray[Any]]) -> None:
        self.base = base
        self.n = 0
        self._low = 0  # rows given up at the front of the arrays
        self._columns = {name: column[:0].copy() for name, column in columns.items()}
        self._parts: list[tuple[int, Chunk, Index]] = []  # (position of the first row, chunk, its rows)

    @property
    def stop(self) -> int:
        return self.base + self.n

    def append(self, features: Features, columns: dict[str, NDArray[Any]]) -> None:
        for chunk, index in features.parts:
            size = index.stop - index.start if isinstance(index, slice) else len(index)
            if self._parts and isinstance(index, slice):
                first, last, before = self._parts[-1]
                if last is chunk and isinstance(before, slice) and before.stop == index.start:
                    self._parts[-1] = (first, chunk, slice(before.start, index.stop))
                    self.n += size
                    continue
            self._parts.append((self.stop, chunk, index))
            self.n += size
        end = self._low + self.n
        for name, values in columns.items():
            column = self._columns[name]
            if end > len(column):
                grown = np.empty((max(2 * end, 1024), *column.shape[1:]), dtype=column.dtype)
                grown[: len(column)] = column
                self._columns[name] = column = grown
            column[end - len(values) : end] = values

    def column(self, name: str) -> NDArray[Any]:
        """A writable view of one column over all rows."""
        return self._columns[name][self._low : self._low + self.n]

    def drop_before(self, position: int) -> None:
        gone = min(position, self.stop) - self.base
        if gone <= 0:
            return
        self.base += gone
        self.n -= gone
        self._low += gone
        if self._low > self.n + 1024:  # move the rest to the front once most of the arrays is empty
            for name in self._columns:
                self._columns[name] = self.column(name).copy()
            self._low = 0
        keep = 0
        while keep < len(self._parts) and self._end(keep) <= self.base:
            keep += 1
        del self._parts[:keep]

    def _end(self, part: int) -> int:
        return self._parts[part + 1][0] if part + 1 < len(self._parts) else self.stop

    def head(self, position: int) -> Self:
        """A copy of the rows before ``position``."""
        out = type(self)(self.base, self._columns)
        size = position - self.base
        out.append(
            self.features(np.arange(self.base, position), self._parts[0][1].schema),
            {name: self.column(name)[:size] for name in self._columns},
        )
        return out

    def features(self, position: NDArray[np.int64], schema: Schema) -> Features:
        """Feature rows at ascending positions."""
        firsts = np.fromiter((first for first, _, _ in self._parts), dtype=np.int64, count=len(self._parts))
        which = np.searchsorted(firsts, position, side="right") - 1
        cuts = np.flatnonzero(np.diff(which)) + 1
        parts: list[tuple[Chunk, Index]] = []
        for low, high in zip([0, *cuts.tolist()], [*cuts.tolist(), len(position)], strict=True):
            if low == high:
                continue
            first, chunk, index = self._parts[which[low]]
            start, stop = int(position[low]) - first, int(position[high - 1]) - first + 1
            if isinstance(index, slice):
                if stop - start == high - low:
                    parts.append((chunk, slice(index.start + start, index.start + stop)))
                else:
                    parts.append((chunk, position[low:high] - first + index.start))
            else:
                parts.append((chunk, index[position[low:high] - first]))
        return Features(schema, parts, len(position))

    def state(self, flags: Sequence[str]) -> State:
        """Where the rows lie, and the columns named ``flags``; the others are the store's."""
        arrays = {name: self.column(name).copy() for name in flags}
        parts: list[list[Any]] = []
        for number, (first, chunk, index) in enumerate(self._parts):
            if not chunk.name:
                raise ValueError("rows that no store holds cannot be checkpointed")
            if isinstance(index, slice):
                parts.append([first, chunk.name, index.start, index.stop])
            else:
                parts.append([first, chunk.name])
                arrays[f"part{number}"] = index
        return State(plain={"base": self.base, "rows": self.n, "parts": parts}, arrays=arrays)

    @classmethod
    def restore(cls, state: State, fetch: Fetch) -> Self:
        """The rows that :meth:`state` told of, fetched from the store."""
        kept: dict[str, list[NDArray[Any]]] = {}
        parts: list[tuple[int, Chunk, Index]] = []
        base, count = state.plain["base"], state.plain["rows"]
        stops = [part[0] for part in state.plain["parts"][1:]] + [base + count]
        for number, ((first, name, *bounds), stop) in enumerate(zip(state.plain["parts"], stops, strict=True)):
            stored = fetch(name)
            index: Index = slice(*bounds) if bounds else state.arrays[f"part{number}"]
            parts.append((first, stored.chunk, index))
            given = max(base - first, 0)  # rows of the part that were given up
            at = slice(index.start + given, index.start + stop - first) if isinstance(index, slice) else index[given:]
            for what in ("time", "rows", "weight", "group"):
                if (values := getattr(stored, what)) is not None:
                    kept.setdefault(what, []).append(values[at])
        columns = {what: np.concatenate(arrays) for what, arrays in kept.items()}
        columns |= {name: array for name, array in state.arrays.items() if not name.startswith("part")}
        out = cls(base, columns)
        out._parts, out.n = parts, count
        out._columns = columns
        return out

    def rename(self, names: Mapping[str, str]) -> None:
        """Chunks by the names of what the store has in their place."""
        for _, chunk, _ in self._parts:
            chunk.name = names.get(chunk.name, chunk.name)

    @property
    def chunks(self) -> set[str]:
        """Names of the chunks that hold the rows."""
        return {chunk.name for _, chunk, _ in self._parts}

    @property
    def nbytes(self) -> int:
        """Raw bytes of the rows: their share of each chunk."""
        total = 0
        for first, chunk, index in self._parts:
            size = index.stop - index.start if isinstance(index, slice) else len(index)
            here = size - max(self.base - first, 0)
            total += chunk.nbytes * here // max(chunk.rows, 1)
        return total


@dataclass(order=True, slots=True)
class _Due:
    """Labels on their way, of one batch or one delivery of revisions, in the order in which they become known."""

    next_at: int
    order: int
    first: int  # lowest position, to know what must be kept
    known_at: NDArray[np.int64]
    position: NDArray[np.int64]
    labels: NDArray[Any]
    own: bool  # they came with their rows, not from a log
    done: int = 0


@final
class Book:
    """Rows in play and the labels on their way to them.

    Parameters
    ----------
    schema : Schema
        The stream's features.
    kind : {"classification", "regression"}
        Whether labels are codes or values.
    classes : sequence
        Classes known before any label is: those of a boolean label.
    """

    def __init__(self, schema: Schema, kind: TaskKind, classes: Sequence[Label] = ()) -> None:
        self.schema = schema
        self.classes: list[Label] = list(classes)
        self._by_code = kind == "classification"
        self._class_of: NDArray[np.int32] = np.empty(0, dtype=np.int32)  # stream's label code -> class table code
        self._label_values: Sequence[Label] = ()
        self._rows: _Rows | None = None
        self._initial: _Rows | None = None
        self._heap: list[_Due] = []
        self._pushed = 0
        self._overdue_from = 0  # rows before this position came due in an earlier turn

    def know(self, classes: Sequence[Label]) -> None:
        """Classes that are known before any label is, ahead of those that were; a stream's labels are of one type."""
        self.classes = [*classes, *(label for label in self.classes if label not in classes)]

    # ------------------------------------------------------------------ rows and labels come

    def arrive(self, batch: Batch, *, learnable: bool = True) -> None:
        """Take in a batch's rows; their labels are scheduled for when they become known.

        A batch that is not ``learnable`` (quarantined) has its labels scored and never learned.
        """
        n = len(batch)
        labels = batch.label_codes if self._by_code else batch.labels
        assert labels is not None
        columns: dict[str, NDArray[Any]] = {
            "time": batch.time,
            "rows": batch.rows,
            "label": np.full(n, UNLABELLED, np.int32) if self._by_code else np.full(n, np.nan),
            "known": np.zeros(n, dtype=bool),
            "learnable": np.full(n, learnable),
            "overdue": np.zeros(n, dtype=bool),
        }
        if batch.weights is not None:
            columns["weight"] = batch.weights
        if batch.groups is not None:
            columns["group"] = batch.groups
        if self._rows is None:
            self._rows = _Rows(batch.first, columns)
        self._rows.append(batch.features, columns)
        self._label_values = batch.label_values
        coming = np.flatnonzero(batch.known_at < NEVER)
        self._schedule(batch.known_at[coming], batch.first + coming, labels[coming], own=True)

    def revise(self, revisions: Revisions, label_values: Sequence[Label]) -> None:
        """Take in labels that came apart from their rows; the latest one known wins."""
        labels = revisions.codes if self._by_code else revisions.values
        assert labels is not None
        self._label_values = label_values
        known_at, position = revisions.known_at, revisions.position
        if revisions.replaces is not None:
            left = ~self._settle(known_at, position, labels, revisions.replaces)
            known_at, position, labels = known_at[left], position[left], labels[left]
        self._schedule(known_at, position, labels, own=False)

    def _settle(
        self,
        known_at: NDArray[np.int64],
        position: NDArray[np.int64],
        labels: NDArray[Any],
        replaces: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Let labels take the place of those that came with their rows and are on their way; says which did, (r,).

        A label that is known earlier stays: what is said later revises it.
        """
        order = np.flatnonzero(replaces)[np.argsort(position[replaces], kind="stable")]
        wanted = position[order]
        done = np.zeros(len(position), dtype=np.bool_)
        for due in self._heap:
            if not due.own or not len(wanted) or wanted[-1] < due.first:
                continue
            left = slice(due.done, None)
            at = np.searchsorted(wanted, due.position[left]).clip(max=len(wanted) - 1)
            mine = (wanted[at] == due.position[left]) & (due.known_at[left] >= known_at[order[at]])
            if not mine.any():
                continue
            new = order[at[mine]]
            instants, values = due.known_at[left].copy(), due.labels[left].copy()
            instants[mine], values[mine] = known_at[new], labels[new]
            again = np.lexsort((due.position[left], instants))
            due.known_at, due.position, due.labels = instants[again], due.position[left][again], values[again]
            due.done, due.next_at = 0, int(due.known_at[0])
            done[new] = True
        heapq.heapify(self._heap)
        return done

    def _schedule(
        self, known_at: NDArray[np.int64], position: NDArray[np.int64], labels: NDArray[Any], *, own: bool
    ) -> None:
        if not len(position):
            return
        if len(position) > 1:
            later = np.diff(known_at)
            if (later < 0).any() or ((later == 0) & (np.diff(position) < 0)).any():
                order = np.lexsort((position, known_at))
                known_at, position, labels = known_at[order], position[order], labels[order]
        self._pushed += 1
        due = _Due(int(known_at[0]), self._pushed, int(position.min()), known_at, position, labels, own)
        heapq.heappush(self._heap, due)

    def last_due(self) -> int:
        """When the last label that is on its way becomes known; the lowest instant if none is."""
        return max((int(due.known_at[-1]) for due in self._heap), default=-NEVER)

    def due(self, now: int) -> Joined:
        """Labels that became known by ``now`` and were not before, in the order they did; they are joined now."""
        taken: list[tuple[_Due, slice]] = []
        while self._heap and self._heap[0].next_at <= now:
            due = heapq.heappop(self._heap)
            upto = int(np.searchsorted(due.known_at, now, side="right"))
            part = slice(due.done, upto)
            taken.append((due, part))
            if upto < len(due.known_at):
                due.done, due.next_at = upto, int(due.known_at[upto])
                due.first = int(due.position[upto:].min())
                heapq.heappush(self._heap, due)
        if not taken:
            none = np.empty(0, np.int64)
            return self._joined(none, none, np.empty(0, np.int32 if self._by_code else np.float64), none > 0)
        # in order of arrival, so that a stable sort keeps what came later about a row behind what came before
        taken.sort(key=lambda pair: pair[0].order)
        known_at = np.concatenate([due.known_at[part] for due, part in taken])
        position = np.concatenate([due.position[part] for due, part in taken])
        labels = np.concatenate([due.labels[part] for due, part in taken])
        own = np.repeat([due.own for due, _ in taken], [part.stop - part.start for _, part in taken])
        if len(taken) > 1:
            order = np.lexsort((position, known_at))
            known_at, position, labels, own = known_at[order], position[order], labels[order], own[order]
        return self._joined(known_at, position, labels, own)

    def _joined(
        self, known_at: NDArray[np.int64], position: NDArray[np.int64], labels: NDArray[Any], own: NDArray[np.bool_]
    ) -> Joined:
        if self._by_code:
            labels = self._classify(labels)
        revised = np.zeros(len(position), dtype=bool)
        outside = np.ones(len(position), dtype=bool)
        for rows in (self._initial, self._rows):
            if rows is None or not len(position):
                continue
            inside = (position >= rows.base) & (position < rows.stop)
            at = position[inside] - rows.base
            known = rows.column("known")
            again = known[at]
            if len(at) > 1 and not (np.diff(at) > 0).all() and len(np.unique(at)) < len(at):
                again = again | ~_first_of_each(at)
            revised[inside] |= again
            known[at] = True
            rows.column("label")[at] = labels[inside]
            outside &= ~inside
        revised |= outside & ~own  # given up long ago: what a log says of it now is a correction
        return Joined(
            position=position,
            known_at=known_at,
            revised=revised,
            codes=labels if self._by_code else None,
            values=None if self._by_code else labels,
        )

    def _classify(self, codes: NDArray[Any]) -> NDArray[np.int32]:
        """Class table codes of the stream's label codes; classes seen for the first time are appended in order."""
        if len(self._class_of) < len(self._label_values):
            grown = np.full(len(self._label_values), UNLABELLED, dtype=np.int32)
            grown[: len(self._class_of)] = self._class_of
            self._class_of = grown
        found = self._class_of[codes]
        if len(found) and found.min() < 0:
            unseen = codes[found < 0]
            for code in unseen[np.sort(np.unique(unseen, return_index=True)[1])].tolist():
                label = self._label_values[code]
                known = [(type(own), own) for own in self.classes]  # True is not 1
                if (type(label), label) not in known:
                    self.classes.append(label)
                    known.append((type(label), label))
                self._class_of[code] = known.index((type(label), label))
            found = self._class_of[codes]
        return np.asarray(found, dtype=np.int32)

    def came_due(self, until: int) -> NDArray[np.int64]:
        """Positions of rows with an event time up to ``until`` that no earlier call gave: their label is due by now."""
        rows = self._rows
        if rows is None:
            return np.empty(0, dtype=np.int64)
        low = max(self._overdue_from - rows.base, 0)
        due = low + np.flatnonzero((rows.column("time")[low:] <= until) & ~rows.column("overdue")[low:])
        rows.column("overdue")[due] = True
        waiting = np.flatnonzero(~rows.column("overdue")[low:])
        self._overdue_from = rows.base + (low + int(waiting[0]) if len(waiting) else rows.n)
        return rows.base + due

    def quarantined(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which positions are kept and may never be learned, shape (n,)."""
        return self._held(position) & ~self._flag("learnable", position)

    def _held(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        out = np.zeros(len(position), dtype=bool)
        for rows in self._segments():
            out |= (position >= rows.base) & (position < rows.stop)
        return out

    def quarantine(self, position: NDArray[np.int64]) -> None:
        """Rows that shall never be learned; those that are no longer kept never will be."""
        for rows in self._segments():
            inside = (position >= rows.base) & (position < rows.stop)
            rows.column("learnable")[position[inside] - rows.base] = False

    # ------------------------------------------------------------------ rows are asked for

    def cut(self, now: int, *, initial: int, label_delay: int, seed: int, unlabelled: bool = False) -> Cut:
        """What a window may look at: learnable rows whose label is known (or all that came, for ``unlabelled``)."""
        position, time, rows = [], [], []
        for segment in self._segments():
            usable = segment.column("learnable")
            index = np.flatnonzero(usable if unlabelled else usable & segment.column("known"))
            unbroken = len(index) and int(index[-1]) - int(index[0]) == len(index) - 1
            at = slice(int(index[0]), int(index[-1]) + 1) if unbroken else index
            position.append(index + segment.base)
            time.append(segment.column("time")[at])
            rows.append(segment.column("rows")[at])
        if not position:
            return Cut(
                now=now,
                position=np.empty(0, np.int64),
                time=np.empty(0, np.int64),
                rows=np.empty((0, 16), np.uint8),
                initial=initial,
                label_delay=label_delay,
                seed=seed,
            )
        return Cut(
            now=now,
            position=np.concatenate(position),
            time=np.concatenate(time),
            rows=np.concatenate(rows),
            initial=initial,
            label_delay=label_delay,
            seed=seed,
        )

    def _segments(self) -> list[_Rows]:
        return [segment for segment in (self._initial, self._rows) if segment is not None]

    def learnable(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each position may be learned, shape (n,): it is labelled, kept, and not quarantined."""
        return self.known(position) & self.kept(position)

    def kept(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each position may be learned, with its label or without one, shape (n,)."""
        return self._flag("learnable", position)

    def known(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the label of each position is known and the row kept, shape (n,)."""
        return self._flag("known", position)

    def _flag(self, name: str, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        out = np.zeros(len(position), dtype=bool)
        for rows in self._segments():
            inside = (position >= rows.base) & (position < rows.stop)
            out[inside] = rows.column(name)[position[inside] - rows.base]
        return out

    def examples(self, position: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> Examples:
        """The rows at ``position`` with the labels known now.

        Parameters
        ----------
        position : array of int64, shape (n,)
            Positions that are still kept, in the order the examples shall have.
        weights : array of float64, shape (n,), optional
            Multiplied with the stream's own.
        """
        if len(position) > 1 and (np.diff(position) < 0).any():
            order = np.argsort(position, kind="stable")
            back = np.empty(len(order), dtype=np.int64)
            back[order] = np.arange(len(order))
            sorted_weights = None if weights is None else weights[order]
            return self.examples(position[order], sorted_weights).take(back)
        chosen: dict[str, list[NDArray[Any]]] = {"time": [], "rows": [], "label": [], "weight": [], "group": []}
        features = []
        for rows in self._segments():
            low, high = np.searchsorted(position, [rows.base, rows.stop]).tolist()
            if low == high:
                continue
            here = position[low:high]
            at: Any = here - rows.base
            if int(at[-1]) - int(at[0]) == high - low - 1:
                at = slice(int(at[0]), int(at[-1]) + 1)
            features.append(rows.features(here, self.schema))
            for name, values in chosen.items():
                if name in rows._columns:
                    values.append(rows.column(name)[at])
        assert sum(map(len, features)) == len(position), "a row was asked for that is no longer kept"
        label = _one(chosen["label"], np.int32 if self._by_code else np.float64)
        weight = _one(chosen["weight"], np.float64) if chosen["weight"] else None
        if weights is not None:
            weight = weights if weight is None else weight * weights
        return Examples(
            features=features[0] if len(features) == 1 else Features.join(self.schema, features),
            rows=_one(chosen["rows"], np.uint8) if features else np.empty((0, 16), np.uint8),
            time=_one(chosen["time"], np.int64),
            codes=label if self._by_code else None,
            classes=tuple(self.classes),
            values=None if self._by_code else label,
            weights=weight,
            groups=_one(chosen["group"], object) if chosen["group"] else None,
        )

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> State:
        """Everything but the rows themselves, which the store holds, and the labels' own list."""
        waiting = sorted(self._heap)
        plain = {
            "classes": list(self.classes),
            "pushed": self._pushed,
            "overdue_from": self._overdue_from,
            "due": [[due.next_at, due.order, due.first, due.own, len(due.known_at) - due.done] for due in waiting],
        }
        arrays: dict[str, NDArray[Any]] = {"class_of": self._class_of}
        for name in ("known_at", "position", "labels"):
            parts = [getattr(due, name)[due.done :] for due in waiting]
            arrays[name] = np.concatenate(parts) if parts else np.empty(0, np.int64)
        out = State(plain=plain, arrays=arrays)
        segments = {"initial": self._initial, "rows": self._rows}
        held = {name: rows for name, rows in segments.items() if rows is not None and rows.n}
        plain["segments"] = list(held)
        return State.join(out, *(rows.state(_FLAGS).under(name) for name, rows in held.items()))

    def restore(self, state: State, label_values: Sequence[Label], fetch: Fetch) -> None:
        """Go on from a state; ``label_values`` is the list that label codes of later batches mean."""
        plain, arrays = state.plain, state.arrays
        self.classes = list(plain["classes"])
        self._pushed, self._overdue_from = plain["pushed"], plain["overdue_from"]
        self._class_of, self._label_values = arrays["class_of"], label_values
        at = 0
        for next_at, order, first, own, size in plain["due"]:
            known_at, position, labels = (arrays[name][at : at + size] for name in ("known_at", "position", "labels"))
            heapq.heappush(self._heap, _Due(next_at, order, first, known_at, position, labels, own))
            at += size
        held = {name: _Rows.restore(state.part(name), fetch) for name in plain["segments"]}
        self._initial, self._rows = held.get("initial"), held.get("rows")

    def erase(self, position: NDArray[np.int64], renamed: Mapping[str, str]) -> None:
        """Forget labels of rows, also those on their way, and learn the rows never; their chunks have other names."""
        for rows in self._segments():
            inside = (position >= rows.base) & (position < rows.stop)
            at = position[inside] - rows.base
            rows.column("learnable")[at] = False
            rows.column("known")[at] = False
            rows.column("label")[at] = UNLABELLED if self._by_code else np.nan
            rows.rename(renamed)
        heap, self._heap = self._heap, []
        for due in heap:
            stays = ~np.isin(due.position, position)
            stays[: due.done] = False
            if stays.any():
                known_at, where, labels = due.known_at[stays], due.position[stays], due.labels[stays]
                kept = _Due(int(known_at[0]), due.order, int(where.min()), known_at, where, labels, due.own)
                heapq.heappush(self._heap, kept)

    def coming(self, since: int | None = None) -> NDArray[np.int64]:
        """Ascending positions of learnable rows without a label that may still get one.

        ``since`` is the least event time of rows that may get one from a log; None if there is no log.
        """
        held = self._rows
        if held is None:
            return np.empty(0, dtype=np.int64)
        open_ = np.zeros(held.n, dtype=bool)
        for due in self._heap:
            at = due.position[due.done :] - held.base
            open_[at[at >= 0]] = True
        if since is not None:
            open_ |= held.column("time") >= since
        return held.base + np.flatnonzero(open_ & held.column("learnable") & ~held.column("known"))

    def usable(self, *, unlabelled: bool = False) -> NDArray[np.int64]:
        """Ascending positions of the learnable rows that are kept and have a label, or with all that have none."""
        found = []
        for held in self._segments():
            usable = held.column("learnable")
            found.append(held.base + np.flatnonzero(usable if unlabelled else usable & held.column("known")))
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def unlabel(self, wanted: NDArray[np.int64]) -> None:
        """Forget the label of every row but the ``wanted``; that it was known, and so what is a revision, stays."""
        for held in self._segments():
            spent = np.ones(held.n, dtype=bool)
            inside = (wanted >= held.base) & (wanted < held.stop)
            spent[wanted[inside] - held.base] = False
            held.column("label")[spent] = UNLABELLED if self._by_code else np.nan

    def expect_nothing(self) -> None:
        """Forget the labels that are on their way: nobody joins them any more."""
        self._heap = []

    def rename(self, names: Mapping[str, str]) -> None:
        """Chunks by the names of what the store has in their place."""
        for rows in self._segments():
            rows.rename(names)

    @property
    def chunks(self) -> set[str]:
        """Names of the chunks that hold rows in play: what the store must keep."""
        return set().union(*(segment.chunks for segment in self._segments()))

    # ------------------------------------------------------------------ rows go

    def give_up(
        self,
        keep: Keep,
        *,
        initial: int,
        unlearned: int,
        waits: int | None = None,
        learns: bool = True,
        count_due: bool = False,
    ) -> None:
        """Let go of rows that nobody can ask for again.

        Parameters
        ----------
        keep : Keep
            What the window may still ask for.
        initial : int
            Rows before this position are the initial data.
        unlearned : int
            Lowest position that waits to be learned.
        waits : int, optional
            Rows with an event time from this instant on may still get a label from a log.
        learns : bool
            Whether rows are learned as their labels come. Where they are not, a row that waits for its label is kept
            no longer than the window wants it: one label that takes a year does not hold a year of rows.
        count_due : bool
            Whether :meth:`came_due` is asked: rows that never get a label stay too, until it gave them.
        """
        rows = self._rows
        if rows is None or keep.everything:
            return
        low = min([unlearned, rows.stop, *(due.first for due in self._heap if learns)])
        low = min(low, self._overdue_from) if count_due else low
        if waits is not None:
            silent = ~rows.column("known") & (rows.column("time") >= waits)
            low = min(low, rows.base + int(np.argmax(silent))) if silent.any() else low
        if keep.since is not None:
            recent = rows.column("time") >= keep.since
            low = min(low, rows.base + (int(np.argmax(recent)) if recent.any() else rows.n))
        if keep.rows:
            usable = rows.column("known") & rows.column("learnable")
            counted = np.flatnonzero(usable & (rows.column("time") <= keep.until))
            low = min(low, rows.base + (int(counted[-keep.rows]) if len(counted) >= keep.rows else 0))
            newer = np.flatnonzero(rows.column("time") > keep.until)
            low = min(low, rows.base + int(newer[0])) if len(newer) else low
        if keep.initial and self._initial is None and low > rows.base and initial > rows.base:
            self._initial = rows.head(min(initial, rows.stop))
            rows.drop_before(self._initial.stop)
        rows.drop_before(low)

    @property
    def rows(self) -> int:
        """Rows held."""
        return sum(segment.n for segment in self._segments())

    @property
    def nbytes(self) -> int:
        """Raw bytes of the rows held."""
        return sum(segment.nbytes for segment in self._segments())


def _one(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0].copy()  # the arrays go on growing and changing under a view
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)


def _first_of_each(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first
