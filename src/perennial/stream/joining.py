"""When labels become known: the rule of a stream, row by row, and the labels that come later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError
from perennial.core.records import Label
from perennial.core.times import NEVER, micros, moment
from perennial.stream.instants import where
from perennial.stream.sources import Origin


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a label log: a label of a row, and when it became known."""

    known_at: int
    label: Label


def label_type(column: str, dtype: Any) -> Any:
    """The type in which labels are kept: text, int64, booleans or float64.

    Raises
    ------
    DataError
        If the column holds something else.
    """
    if pa.types.is_string(dtype) or pa.types.is_boolean(dtype):
        return dtype
    if pa.types.is_integer(dtype):
        return pa.int64()
    if pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return pa.float64()
    raise DataError(f"label column {column!r} holds {dtype}: labels are text, whole numbers, booleans or floats")


@final
class LabelRule:
    """Says of each row what its label is and when it becomes known, and collects what is said later.

    Parameters
    ----------
    dtype : pyarrow.DataType
        The type of labels.
    delay : timedelta
        Labels are known this long after the event where no ``known_at`` is given.
    within, absent, positives_wait
        Silence, as in :class:`~perennial.stream.settings.Stream`.
    log : mapping from id to entries, optional
        Labels from a separate log, each row's in the order in which they became known.
    wait : timedelta, optional
        Entries of the log that became known later than this after the event are passed over.
    """

    def __init__(
        self,
        dtype: Any,
        *,
        delay: timedelta,
        within: timedelta | None,
        absent: Label | None,
        positives_wait: bool,
        log: dict[Any, list[Entry]] | None = None,
        wait: timedelta | None = None,
    ) -> None:
        self._dtype = dtype
        self._delay = micros(delay)
        self._within = None if within is None else micros(within)
        self._absent = None if within is None else _like(absent, dtype)
        self._wait = positives_wait
        self._longest = None if wait is None else micros(wait)
        self._log = log or {}
        self._rows_of: dict[Any, int] = {}
        self._later: list[tuple[int, int, Label]] = []
        self.contradicted = 0  #: labels other than silence's that never became known
        self.passed_over = 0  #: labels of the log that became known too long after their event

    @property
    def later(self) -> list[tuple[int, int, Label]]:
        """(position, known at, label) of every label that did not come with its row, in order of arrival."""
        return sorted(self._later, key=lambda entry: entry[1])

    def drain(self) -> list[tuple[int, int, Label]]:
        """What :attr:`later` says, once."""
        later, self._later = self.later, []
        return later

    @property
    def unknown_ids(self) -> int:
        """Ids of the log that no row has."""
        return len(self._log) - len(self._rows_of)

    def apply(
        self, labels: Any, time: NDArray[np.int64], known: NDArray[np.int64] | None, first: int, origin: Origin
    ) -> tuple[Any, NDArray[np.int64]]:
        """Labels and the instants at which they become known, ``NEVER`` for none.

        ``known`` holds the instants of a ``known_at`` column, ``NEVER`` for null.

        Raises
        ------
        DataError
            If a label is known before its event.
        """
        missing = np.asarray(labels.is_null(nan_is_null=True))
        base = time + self._delay if known is None else known
        _check_order(time, np.where(missing, NEVER, base), first, origin)
        if self._within is None:
            return labels, np.where(missing, NEVER, base)
        silence = time + self._within
        silent = missing | (base == NEVER)
        absent = pc.fill_null(pc.equal(labels, pa.scalar(self._absent, self._dtype)), False)
        named = ~np.asarray(absent.to_numpy(zero_copy_only=False), dtype=np.bool_) & ~missing
        self.contradicted += int((named & (base == NEVER)).sum())
        for i in np.flatnonzero(named & ~silent & (base > silence)):
            self._later.append((first + int(i), int(base[i]), labels[int(i)].as_py()))
        silent |= base > silence
        labels = pc.if_else(pa.array(silent), pa.scalar(self._absent, self._dtype), labels)
        return labels, np.where(silent | self._wait, silence, base)

    def join(
        self, ids: Iterable[Any], labels: Any, known_at: NDArray[np.int64], time: NDArray[np.int64], first: int
    ) -> tuple[Any, NDArray[np.int64]]:
        """Labels and instants of :meth:`apply` with the log's: in time for silence they replace it, else they revise.

        Raises
        ------
        DataError
            If two rows have an id that the log names, or a label is known before its event.
        """
        said: dict[int, Entry] = {}
        for i, row_id in enumerate(ids):
            if (entries := self._log.get(row_id)) is None:
                continue
            if (other := self._rows_of.setdefault(row_id, first + i)) != first + i:
                raise DataError(had_by_both(row_id, other, first + i))
            if entries[0].known_at < time[i]:
                raise DataError(known_before_event(row_id, entries[0].known_at, int(time[i])) + ": correct the log")
            now, later = self._split(self._in_time(entries, int(time[i])), int(time[i]), int(known_at[i]))
            if now is not None:
                said[i] = now
            self._later += [(first + i, entry.known_at, entry.label) for entry in later]
        if not said:
            return labels, known_at
        rows = np.fromiter(said, dtype=np.int64)
        known_at = known_at.copy()
        known_at[rows] = [entry.known_at for entry in said.values()]
        mask = np.zeros(len(known_at), dtype=np.bool_)
        mask[rows] = True
        values = pa.array([entry.label for entry in said.values()], type=self._dtype)
        return pc.replace_with_mask(labels, pa.array(mask), values), known_at

    def _in_time(self, entries: list[Entry], time: int) -> list[Entry]:
        """The entries that a row waits for."""
        if self._longest is None:
            return entries
        kept = [entry for entry in entries if entry.known_at <= time + self._longest]
        self.passed_over += len(entries) - len(kept)
        return kept

    def _split(self, entries: list[Entry], time: int, own: int) -> tuple[Entry | None, list[Entry]]:
        """What a row's own label, which is known at ``own``, becomes (None: stays), and what comes later."""
        if self._within is None:
            return None, entries
        if not self._wait:  # a label that was known before the log said anything was learned by then
            return (entries[0], entries[1:]) if entries and entries[0].known_at <= own else (None, entries)
        silence = time + self._within
        timely = sum(entry.known_at <= silence for entry in entries)
        if not timely:
            return None, entries
        return Entry(silence, entries[timely - 1].label), entries[timely:]


def known_before_event(row_id: Any, known_at: int, time: int) -> str:
    """What is wrong with an entry of a log, in words."""
    return f"the label log knows the label of id {row_id!r} at {moment(known_at)}, before its event at {moment(time)}"


def had_by_both(row_id: Any, one: int, other: int) -> str:
    """What is wrong with an id, in words."""
    return f"the label log names id {row_id!r}, which rows {one} and {other} both have"


def read_log(ids: list[Any], labels: list[Any], known_at: NDArray[np.int64]) -> dict[Any, list[Entry]]:
    """A label log by id, each id's entries in the order in which they became known."""
    log: dict[Any, list[Entry]] = defaultdict(list)
    for i in np.argsort(known_at, kind="stable").tolist():
        if ids[i] is not None and labels[i] is not None and known_at[i] != NEVER:
            log[ids[i]].append(Entry(int(known_at[i]), labels[i]))
    return dict(log)


def _like(absent: Any, dtype: Any) -> Any:
    try:
        value = pa.scalar(absent).cast(dtype).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        value = None
    if value != absent:
        raise ConfigError("absent", absent, f"labels are {dtype}: give a label of that type")
    return value


def _check_order(time: NDArray[np.int64], known: NDArray[np.int64], first: int, origin: Origin) -> None:
    if (wrong := known < time).any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{where(first + row, origin)}: its label is known at {moment(int(known[row]))}, before its event at "
            f"{moment(int(time[row]))}; a label cannot be known before what it is about: correct `known_at`, or use "
            "`label_delay`"
        )
