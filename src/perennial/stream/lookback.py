"""Features that look back: one function of past rows, the same for any batch size and unable to see the future."""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.state import State
from perennial.core.times import micros, moment
from perennial.stream.sources import canonical_type

if TYPE_CHECKING:
    import pandas as pd

Build = Callable[["pd.DataFrame", "pd.DataFrame"], "pd.DataFrame"]


def load_function(features: str | Build) -> Build:
    """The function that ``package.module:function`` names, or the function itself.

    Raises
    ------
    ConfigError
        If there is no such module or function.
    """
    if not isinstance(features, str):
        return features
    module_name, _, path = features.partition(":")
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise ConfigError("features", features, f"the module cannot be imported: {error}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigError("features", features, f"{module_name} has no {path!r}: {nearest(name, vars(found))}")
        found = getattr(found, name)
    if not callable(found):
        raise ConfigError("features", features, "it names no function")
    return found  # type: ignore[no-any-return]


@final
class LookBack:
    """Calls ``build(past, now)`` once per instant, on rows that it is fed in order.

    ``now`` holds the rows of one instant; ``past`` the rows with an event time in ``[instant - span, instant)``, in
    order of event time, and where there is a key only those whose key is among those of ``now``. A row without a
    key has no past. Both are frames with the time, the key and all columns that may be features, and no label.
    Numbers are float64 whatever their width, so that a missing one changes no type; times are in the stream's zone.
    ``build`` gives one row per row of ``now``, in that order; its columns are the features. Numbers among them
    become float64.

    A late row is an instant of its own and sees the rows before it in the stream that are older than itself, and
    rows that come after a late row see it too. No call sees a row that comes later in the stream, so results cannot
    depend on where batches or files end. Only rows that may still be looked at are held.

    Parameters
    ----------
    build : callable
        The function.
    span : timedelta
        How far ``past`` reaches.
    time, key : str
        Columns of event time and, optionally, key.
    zone : str
        Time zone of the time column in the frames.
    lateness : timedelta
        How late rows may come.
    forgiving : bool
        Rows of an instant on which the function fails have nulls as features, and are counted, instead of an error.
        Which columns there are must be known by then: from an instant before, one that is fed with it, or
        :meth:`know`.
    """

    def __init__(
        self,
        build: Build,
        span: timedelta,
        *,
        time: str,
        key: str | None,
        zone: str,
        lateness: timedelta,
        forgiving: bool = False,
    ) -> None:
        self._build = build
        self._name = getattr(build, "__qualname__", type(build).__qualname__)
        self._span = micros(span)
        self._reach = self._span + micros(lateness)
        self._time, self._key, self._zone, self._forgiving = time, key, zone, forgiving
        self._failed, self._why = 0, ""
        self._held: pd.DataFrame | None = None
        self._times: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._done = 0  # rows of `_held` that have had their turn
        self._columns: list[str] | None = None
        self._types: dict[str, Any] = {}

    @property
    def held(self) -> int:
        """Number of rows held now."""
        return len(self._times)

    def know(self, types: Mapping[str, Any]) -> None:
        """Know the columns that the function gives, and their types."""
        self._columns, self._types = list(types), dict(types)

    def failures(self) -> str | None:
        """How many rows have no features since this was asked before, in words; None if all have."""
        failed, self._failed = self._failed, 0
        if not failed:
            return None
        rows = "1 row has" if failed == 1 else f"{failed:,} rows have"
        return f"features: {rows} none, as {self._name} failed ({self._why})"

    def feed(self, rows: Any, time: NDArray[np.int64]) -> Any:
        """Features of all rows whose instant is over, as an Arrow table; None if there are none.

        The last instant of ``rows`` waits for :meth:`feed` or :meth:`finish`, since more of its rows may follow.

        Raises
        ------
        DataError
            If the function fails, gives another number of rows, or changes its columns or their types.
        """
        import pandas as pd

        frame = self._frame(rows, time)
        self._held = frame if self._held is None else pd.concat([self._held, frame], ignore_index=True)
        self._times = np.concatenate([self._times, time])
        if not len(self._times):
            return None
        return self._advance(_last_run(self._times, self._done))

    def finish(self) -> Any:
        """Features of the rows that still wait, as an Arrow table; None if there are none."""
        return self._advance(len(self._times))

    def past(self) -> Past:
        """The rows that are held, for whoever asks about single rows: it goes on by itself, and this stays as it is.

        Rows whose features wait for the end of their instant are past for those behind them.
        """
        return Past(self)

    def erase(self, key: str) -> None:
        """Forget the rows of a key, which is compared as text whatever its type: no later call sees them."""
        if self._held is None or self._key is None:
            return
        column = self._held[self._key]
        there = zip(column.tolist(), column.isna().tolist(), strict=True)
        stays = np.array([missing or str(value) != key for value, missing in there], dtype=bool)
        self._done = int(stays[: self._done].sum())
        self._held = self._held[stays].reset_index(drop=True)
        self._times = self._times[stays]

    def state(self) -> State:
        """The rows that are held, and the columns that the function gave."""
        arrays: dict[str, NDArray[Any]] = {"times": self._times}
        if self._held is not None:
            sink = pa.BufferOutputStream()
            table = pa.Table.from_pandas(self._held, preserve_index=False)
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            arrays["held"] = np.frombuffer(sink.getvalue(), dtype=np.uint8)
        types = b64encode(pa.schema(list(self._types.items())).serialize()).decode()
        return State(plain={"done": self._done, "columns": self._columns, "types": types}, arrays=arrays)

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        self._done, self._columns = state.plain["done"], state.plain["columns"]
        types = pa.ipc.read_schema(pa.py_buffer(b64decode(state.plain["types"])))
        self._types = {field.name: field.type for field in types}
        self._times = state.arrays["times"]
        if "held" in state.arrays:
            with pa.ipc.open_stream(pa.py_buffer(state.arrays["held"].tobytes())) as reader:
                self._held = reader.read_all().to_pandas(types_mapper=_whole_number)

    def _frame(self, rows: Any, time: NDArray[np.int64]) -> pd.DataFrame:
        columns = []
        for name in rows.schema.names:
            column = rows.column(name)
            if name == self._time:
                column = pa.array(time).cast(pa.timestamp("us", tz=self._zone))
            elif name != self._key and (_is_number(column.type) or pa.types.is_decimal(column.type)):
                if pa.types.is_boolean(column.type):
                    column = column.cast(pa.uint8())
                column = column.cast(pa.float64(), safe=False)
            columns.append(column)
        # whole numbers are left only in the key: nullable, so that a missing one changes no type
        table = pa.table(columns, names=rows.schema.names)
        frame: pd.DataFrame = table.to_pandas(types_mapper=_whole_number)
        return frame

    def _advance(self, stop: int) -> Any:

        if stop <= self._done:
            return None
        assert self._held is not None
        frame, times = self._held, self._times
        past_of = self._past(frame, times)
        built: list[pd.DataFrame | DataError] = []
        edges = [self._done, *(np.flatnonzero(np.diff(times[self._done : stop])) + 1 + self._done).tolist(), stop]
        for low, high in pairwise(edges):
            past = past_of(low, high)
            seen = frame.iloc[past] if isinstance(past, slice) else frame.take(past)
            try:
                out = self._call(seen, frame.iloc[low:high], int(times[low]))
            except DataError as error:
                if not self._forgiving:
                    raise
                built.append(error)
                continue
            self._columns = self._columns or list(out.columns)
            built.append(out)
        if self._columns is None:  # nobody knows what rows without features would lack
            raise next(one for one in built if isinstance(one, DataError))
        table = self._joined(built, np.diff(edges).tolist(), self._columns)
        for field in table.schema:  # what went out is what it is from now on, also a column of nothing but nulls
            self._types.setdefault(field.name, field.type)
        self._done = stop
        self._forget()
        return table

    def _joined(self, built: Sequence[pd.DataFrame | DataError], sizes: Sequence[int], columns: Sequence[str]) -> Any:
        """The features of instants one below the other, nulls for those that have none."""
        import pandas as pd

        frames = [one for one in built if not isinstance(one, DataError)]
        try:
            if len(frames) == len(built):
                return self._table(pd.concat(frames, ignore_index=True), self._types)
        except DataError:
            if not self._forgiving:
                raise
        parts: list[Any] = []
        for one, size in zip(built, sizes, strict=True):
            types = dict(self._types)
            try:
                if isinstance(one, DataError):
                    raise one
                self._table(one, types)
            except DataError as error:
                self._failed += size
                self._why = type(error.__cause__ or error).__name__  # its words could hold what is in the rows
                parts.append(pd.DataFrame(index=range(size), columns=list(columns), dtype=object))
            else:
                self._types = types
                parts.append(one)
        return pa.concat_tables([self._table(part, self._types) for part in parts])

    def _past(self, frame: pd.DataFrame, times: NDArray[np.int64]) -> Callable[[int, int], slice | NDArray[np.int64]]:
        """Which rows the instant at rows ``[low, high)`` may look at, in order of event time."""
        newest = np.maximum.accumulate(times)
        in_order = bool((newest == times).all())

        def between(rows: NDArray[np.int64], since: NDArray[np.int64], low: int) -> NDArray[np.int64]:
            start, now = int(times[low]) - self._span, int(times[low])
            # no row before the newest event time reached `start` can lie in the window
            seen = rows[int(np.searchsorted(since, start)) : int(np.searchsorted(rows, low))]
            if in_order:
                return seen
            seen = seen[(times[seen] >= start) & (times[seen] < now)]
            return np.asarray(seen[np.argsort(times[seen], kind="stable")])

        if self._key is None:
            everything = np.arange(len(times))

            def by_time(low: int, high: int) -> slice | NDArray[np.int64]:  # noqa: ARG001
                rows = between(everything, newest, low)
                return slice(int(rows[0]), low) if in_order and len(rows) else rows

            return by_time

        import pandas as pd

        codes = pd.factorize(frame[self._key])[0]
        order = np.argsort(codes, kind="stable")
        since, edges = newest[order], np.searchsorted(codes[order], np.arange(codes.max(initial=-1) + 2))

        def by_key(low: int, high: int) -> NDArray[np.int64]:
            some = [
                between(order[edges[key] : edges[key + 1]], since[edges[key] : edges[key + 1]], low)
                for key in np.unique(codes[low:high]).tolist()
                if key >= 0  # a row without a key has no past
            ]
            rows = np.sort(np.concatenate([np.empty(0, dtype=np.int64), *some]))
            return rows if in_order else rows[np.argsort(times[rows], kind="stable")]

        return by_key

    def _call(self, seen: pd.DataFrame, now: pd.DataFrame, instant: int) -> pd.DataFrame:
        """What the function gives for the rows of an instant, checked."""
        import pandas as pd

        seen.index, now.index = pd.RangeIndex(len(seen)), pd.RangeIndex(len(now))
        at = moment(instant)
        try:
            out = self._build(seen, now)
        except Exception as error:
            raise DataError(f"{self._name} failed on the rows of {at}: {type(error).__name__}: {error}") from error
        if not isinstance(out, pd.DataFrame):
            raise DataError(f"{self._name} gave a {type(out).__name__}: give a pandas frame, one row per row of `now`")
        if len(out) != len(now):
            raise DataError(f"{self._name} gave {len(out)} rows for the {len(now)} of {at}: give one per row of `now`")
        names = list(out.columns)
        if self._columns is None:
            if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
                raise DataError(f"{self._name} gave columns {names}: give at least one, each with a name of its own")
        elif names != self._columns:
            raise DataError(
                f"{self._name} gave columns {names} on the rows of {at}, and {self._columns} before: give the same "
                "columns in the same order each time, also where there is no past"
            )
        return out

    def _forget(self) -> None:
        """Drop the rows that no later instant can look at."""
        assert self._held is not None
        times = self._times
        if not len(times):
            return
        keep = times >= int(times.max()) - self._reach
        keep[self._done :] = True
        start = int(np.argmax(keep))  # a run from the front: rows stay in order
        self._held = self._held.iloc[start:].reset_index(drop=True)
        self._times = times[start:].copy()
        self._done -= start

    def _table(self, frame: pd.DataFrame, types: dict[str, Any]) -> Any:
        """The features as Arrow has them; ``types`` of columns that had nothing but nulls so far are added."""
        columns = {}
        for name in frame.columns:
            try:
                array = pa.array(frame[name], from_pandas=True)
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise DataError(f"{self._name} gave column {name!r} of mixed types: {error}") from error
            if isinstance(array, pa.ChunkedArray):
                array = array.combine_chunks()
            dtype = pa.float64() if _is_number(array.type) else canonical_type(array.type)
            if not pa.types.is_null(array.type):
                wanted = types.setdefault(name, dtype)
                if dtype != wanted:
                    raise DataError(
                        f"{self._name} gave column {name!r} as {dtype}, and as {wanted} before: keep its type; a "
                        "column of nothing but nulls counts as numbers: give '' for words that are not known yet"
                    )
            if pa.types.is_boolean(array.type):
                array = array.cast(pa.uint8())
            columns[name] = array.cast(types.get(name, pa.float64()), safe=False)
        return pa.table(columns)


#: rows that a :class:`Past` takes in before it looks which of all may go, and frames that it takes in before it joins
#: them: one after the other, no request waits long for either
_TAIL, _FEW = 512, 16


@final
class Past:
    """The past of a :class:`LookBack`, for rows that are asked about as they come, by any thread.

    :meth:`build` calls the same function with the same frames that :meth:`LookBack.feed` would, were these rows the
    next ones of the stream, and changes nothing. What became of them is said by :meth:`add`: a row is past for those
    behind it whether or not its features were built. Rows are found by key, so that a call costs what its own past is
    large; older ones than any call may look at are dropped, a portion at a time.
    """

    def __init__(self, lookback: LookBack) -> None:
        self._of = lookback
        self._lock = threading.Lock()
        self._frames: list[pd.DataFrame] = []  # the rows, in the order in which they came
        self._starts: list[int] = []  # number of the first row of each
        self._times: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # of the first frame's rows, to sort them in again
        self._late: list[NDArray[np.int64]] = []  # of those that came since
        self._few = 0  # frames at the end that were not joined yet
        self._count = 0
        self._newest = -(2**62)
        self._places: dict[Any, tuple[list[int], list[int]]] = {}  # by key: numbers of its rows, and their times
        if lookback._held is not None:
            self._put(lookback._held, lookback._times)

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Any, time: NDArray[np.int64]) -> None:
        """Rows that came: an Arrow table or batch with the columns of :meth:`LookBack.feed`, and their event times."""
        if len(time):
            frame = self._of._frame(rows, time)
            with self._lock:
                self._put(frame, time)

    def build(self, rows: Any, instant: int) -> Any:
        """Features of rows of one instant, as an Arrow table; raises ``DataError`` as :meth:`LookBack.feed` does."""
        now = self._of._frame(rows, np.full(rows.num_rows, instant, dtype=np.int64))
        with self._lock:
            seen = self._seen(now, instant)
        out = self._of._call(seen, now, instant)
        return self._of._table(out, dict(self._of._types))

    def _put(self, frame: pd.DataFrame, time: NDArray[np.int64]) -> None:
        self._index(frame, time, self._count)
        self._frames.append(frame)
        self._starts.append(self._count)
        self._late.append(time)
        self._count += len(time)
        self._newest = max(self._newest, int(time.max(initial=self._newest)))
        self._few += 1
        if self._count - len(self._times) > max(_TAIL, len(self._times) // 2):
            self._settle()
        elif self._few == _FEW:
            self._join()

    def _index(self, frame: pd.DataFrame, time: NDArray[np.int64], first: int) -> None:
        if self._of._key is None:
            numbers, times = self._places.setdefault(None, ([], []))
            numbers += range(first, first + len(time))
            times += time.tolist()
            return
        column = frame[self._of._key]
        gone = column.isna().tolist()
        for number, (key, at, missing) in enumerate(zip(column.tolist(), time.tolist(), gone, strict=True), first):
            if not missing:  # a row without a key is nobody's past
                numbers, times = self._places.setdefault(key, ([], []))
                numbers.append(number)
                times.append(at)

    def _join(self) -> None:
        """One frame of the last few."""
        import pandas as pd

        self._frames[-_FEW:] = [pd.concat(self._frames[-_FEW:], ignore_index=True)]
        del self._starts[-_FEW + 1 :]
        self._few = 0

    def _settle(self) -> None:
        """One frame of all rows that may still be looked at."""
        import pandas as pd

        times = np.concatenate([self._times, *self._late]) if len(self._times) else np.concatenate(self._late)
        keep = np.flatnonzero(times >= self._newest - self._of._reach)
        frame = pd.concat(self._frames, ignore_index=True).take(keep)
        frame.index = pd.RangeIndex(len(keep))
        self._times, self._late = times[keep], []
        self._frames, self._starts, self._few, self._count = [frame], [0], 0, len(keep)
        self._places = {}
        self._index(frame, self._times, 0)

    def _seen(self, now: pd.DataFrame, instant: int) -> pd.DataFrame:
        """The rows that an instant may look at, in order of event time, as a frame of their own."""
        import pandas as pd

        keys: list[Any] = [None]
        if self._of._key is not None:
            column = now[self._of._key].drop_duplicates()
            keys = column[column.notna()].tolist()
        found = []
        for key in keys:
            numbers, times = self._places.get(key, ((), ()))
            found += [
                (number, at)
                for number, at in zip(numbers, times, strict=True)
                if instant - self._of._span <= at < instant
            ]
        found.sort()  # in the order in which they came: of equal times that is how they stand
        order = sorted(range(len(found)), key=lambda i: found[i][1])
        if not self._frames:
            return now.iloc[:0]
        parts, low = [], 0
        for start, frame in zip(self._starts, self._frames, strict=True):
            high = low
            while high < len(found) and found[high][0] < start + len(frame):
                high += 1
            if high > low:
                parts.append(frame.take([number - start for number, _ in found[low:high]]))
            low = high
        if not parts:
            return self._frames[0].iloc[:0]
        whole = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
        return whole if order == list(range(len(found))) else whole.take(order)


def _is_number(dtype: Any) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_boolean(dtype))


def _whole_number(dtype: Any) -> Any:
    import pandas as pd

    return pd.Int64Dtype() if pa.types.is_integer(dtype) else None


def _last_run(times: NDArray[np.int64], done: int) -> int:
    """Where the last run of equal times begins."""
    changes = np.flatnonzero(np.diff(times[done:]))
    return done + int(changes[-1]) + 1 if len(changes) else done
