"""Columns of times as instants, and the order that event times must keep."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perennial.core.errors import DataError
from perennial.core.times import micros, moment, spell
from perennial.stream.sources import Origin, place

_LOWEST = -(2**62)


def where(row: int, origin: Origin) -> str:
    """A row, given by its position in the stream, as errors name it: its place in the file that it came from."""
    part = next((part for part in reversed(origin) if part.first <= row), None)
    return f"row {row}, counting from 0" if part is None else place(part.file, part.row + row - part.first)


@final
class Instants:
    """Turns a column of times into instants, block after block.

    Naive times and dates are local to ``zone`` (UTC if None). Where clocks go back an hour repeats: the earlier
    reading is taken unless that would go back behind the row before.

    Parameters
    ----------
    column : str
        The column's name, for errors.
    dtype : pyarrow.DataType
        Its type: timestamp, date or string (ISO 8601).
    zone : str, optional
        The stated time zone.
    ordered : bool
        Whether the column is in order of time. Where it is not (``known_at``), the later reading of a repeated hour
        is taken: a label that is known too late costs an hour, one that is known too early is the future.
    """

    def __init__(self, column: str, dtype: Any, zone: str | None, *, ordered: bool = True) -> None:
        self._column = column
        self._ordered = ordered
        self._stated = zone
        self._zoned: bool | None = None  # strings: whether they carry an offset, from the first block on
        self._last = _LOWEST
        self.naive = False
        self.zone = zone or "UTC"
        if pa.types.is_timestamp(dtype):
            self.naive = dtype.tz is None
            self.zone = zone or dtype.tz or "UTC"
        elif pa.types.is_date(dtype):
            self.naive = True
        elif not pa.types.is_string(dtype):
            raise DataError(
                f"column {column!r} holds {dtype}, which does not say what instant it means: convert it to timestamps "
                f"first, e.g. pandas.to_datetime(frame[{column!r}], unit='s')"
            )

    def convert(self, array: Any, first: int, origin: Origin) -> NDArray[np.int64]:
        """Instants of a block, shape (n,); a null is ``NEVER``. ``first`` is the position of its first row."""
        from perennial.core.times import NEVER

        times = self._parse(array, first, origin) if pa.types.is_string(array.type) else array
        if pa.types.is_date(times.type):
            times = times.cast(pa.timestamp("ms"))
        if times.type.tz is None:
            self.naive = True
            out = self._local(times, first, origin)
        else:
            out = _micros(times)
        if array.null_count:
            out = np.where(np.asarray(array.is_null()), NEVER, out)
        if len(out):
            self._last = int(out[-1])
        return out

    def state(self) -> list[Any]:
        """What the next block depends on."""
        return [self._last, self._zoned, self.naive]

    def restore(self, state: list[Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._last, self._zoned, self.naive = state

    def _parse(self, array: Any, first: int, origin: Origin) -> Any:
        tries = [pa.timestamp(unit, tz=tz) for tz in (None, "UTC") for unit in ("us", "ns")]
        if self._zoned is not None:
            tries = [t for t in tries if (t.tz is not None) == self._zoned]
        for dtype in tries:
            try:
                parsed = array.cast(dtype)
            except pa.ArrowInvalid:
                continue
            if parsed.null_count < len(parsed):
                self._zoned = dtype.tz is not None
            return parsed
        raise self._unparsable(array, tries, first, origin)

    def _unparsable(self, array: Any, tries: list[Any], first: int, origin: Origin) -> DataError:
        for row, value in enumerate(array):
            if not any(_casts(value, dtype) for dtype in tries):
                zone = "" if self._zoned is None else f" {'with' if self._zoned else 'without'} an offset, as before"
                return DataError(
                    f"column {self._column!r}, {where(first + row, origin)}: {value.as_py()!r} is no time; write ISO "
                    f"8601, e.g. '2026-01-31 12:00:00'{zone}, or convert the column to timestamps first"
                )
        return DataError(
            f"column {self._column!r}, {where(first, origin)}: from here on some times carry an offset, some do not; "
            "write all with one, or all without"
        )

    def _local(self, times: Any, first: int, origin: Origin) -> NDArray[np.int64]:
        naive = _micros(times)
        if self._stated is None or self._stated == "UTC":
            return naive
        times = pa.array(naive, mask=np.asarray(times.is_null())).cast(pa.timestamp("us"))
        try:
            early = pc.assume_timezone(times, self._stated, ambiguous="earliest")
        except pa.ArrowInvalid as error:
            raise self._skipped(times, first, origin) from error
        out = _micros(early).copy()
        late = _micros(pc.assume_timezone(times, self._stated, ambiguous="latest"))
        if not self._ordered:
            return late
        for i in np.flatnonzero(out != late):
            if out[i] < (out[i - 1] if i else self._last):
                out[i] = late[i]
        return out

    def _skipped(self, times: Any, first: int, origin: Origin) -> DataError:
        for row, value in enumerate(times):
            try:
                pc.assume_timezone(value, self._stated, ambiguous="earliest")
            except pa.ArrowInvalid:
                return DataError(
                    f"column {self._column!r}, {where(first + row, origin)}: {value.as_py()} never was in "
                    f"{self._stated}, where clocks skipped it: is time_zone={self._stated!r} right?"
                )
        raise AssertionError("a block that fails holds a row that fails")


def _casts(value: Any, dtype: Any) -> bool:
    try:
        value.cast(dtype)
    except pa.ArrowInvalid:
        return False
    return True


def _micros(times: Any) -> NDArray[np.int64]:
    """Whole microseconds, rounded down; 0 under a null."""
    unit = times.type.unit
    raw = times.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if unit == "ns":
        return np.asarray(raw // 1000)
    return np.asarray(raw * {"s": 1_000_000, "ms": 1000, "us": 1}[unit])


@final
class Order:
    """Checks that event times never go back further than ``lateness``, and tells which rows came late.

    With ``patient`` they may go back any distance.
    """

    def __init__(self, column: str, lateness: timedelta | None, *, patient: bool = False) -> None:
        self._column = column
        self._lateness, self._patient = lateness, patient
        self.newest = _LOWEST

    def advance(
        self, time: NDArray[np.int64], first: int, origin: Origin
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The newest event time up to each row, and whether the row lies before an earlier one.

        Raises
        ------
        DataError
            For the first row that is null, or too late.
        """
        from perennial.core.times import NEVER

        if (null := time == NEVER).any():
            row = int(np.argmax(null))
            raise DataError(
                f"column {self._column!r}, {where(first + row, origin)}: the event time is missing; every row needs "
                "one: fill it, or drop the row"
            )
        newest = np.maximum(np.maximum.accumulate(time), self.newest)
        late = time < newest
        allowed = micros(self._lateness) if self._lateness is not None else 0
        if not self._patient and (wrong := newest - time > allowed).any():
            row = int(np.argmax(wrong))
            then, now = moment(int(newest[row])), moment(int(time[row]))
            limit = "" if self._lateness is None else f", more than lateness={spell(self._lateness)!r}"
            raise DataError(
                f"column {self._column!r}, {where(first + row, origin)}: {now} comes after {then}{limit}; sort the "
                f"rows by {self._column!r}, or let rows come late: lateness='{_generous(then - now)}'"
            )
        if len(newest):
            self.newest = int(newest[-1])
        return newest, late


def _generous(span: timedelta) -> str:
    hours = -(-span // timedelta(hours=1))
    return f"{hours}h" if hours < 48 else f"{-(-hours // 24)}d"
