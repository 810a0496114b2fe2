"""Rows as a source gives them, in the form that a stream keeps: the one place where raw columns get their meaning.

A backtest puts a whole history through it and a production run one batch after the other: what comes out is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.state import State
from perennial.stream.answered import COLUMNS
from perennial.stream.encoding import Encoder
from perennial.stream.instants import Instants, Order, where
from perennial.stream.joining import Entry, LabelRule, label_type
from perennial.stream.lookback import LookBack, load_function
from perennial.stream.prepared import EXTRA
from perennial.stream.settings import Stream
from perennial.stream.sources import Origin, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Some rows in canonical form, n of them.

    ``time``, ``newest`` and ``known_at`` are int64 (n,): event times, the newest event time up to each row, and when
    each label becomes known. ``others`` holds all columns that are no features. ``features`` is a table of feature
    columns not yet encoded; with look-back it lags behind, and is None while there is none.
    """

    time: NDArray[np.int64]
    newest: NDArray[np.int64]
    late: NDArray[np.bool_]
    known_at: NDArray[np.int64]
    others: dict[str, Any]
    features: Any


@final
class Canonical:
    """Turns raw rows, in order, into canonical ones.

    Parameters
    ----------
    stream : Stream
        The roles of columns.
    types : mapping
        Canonical Arrow type of each column that is read.
    extra : tuple of str
        Columns to keep besides.
    label_log : mapping, optional
        Labels of a log by id, where all of it is known from the start.
    log_type : pyarrow.DataType, optional
        The type of its labels.
    """

    def __init__(
        self,
        stream: Stream,
        types: Mapping[str, Any],
        extra: tuple[str, ...],
        *,
        label_log: dict[Any, list[Entry]] | None = None,
        log_type: Any = None,
    ) -> None:
        self._stream, self._types, self._extra = stream, dict(types), extra
        self._time = Instants(stream.time, types[stream.time], stream.time_zone)
        self._order = Order(stream.time, stream.span("lateness"), patient=stream.served)
        self._known = None
        if stream.known_at is not None and stream.known_at in types:
            self._known = Instants(stream.known_at, types[stream.known_at], stream.time_zone, ordered=False)
        self.label_type: Any = pa.float64()
        if stream.target is not None and stream.target in types:
            self.label_type = label_type(stream.target, types[stream.target])
        elif log_type is not None:
            self.label_type = log_type
        self.rule = LabelRule(
            self.label_type,
            delay=stream.span("label_delay") or timedelta(0),
            within=stream.span("within"),
            absent=stream.absent,
            positives_wait=stream.positives_wait,
            log=label_log,
            wait=stream.span("label_wait"),
        )
        self._has_log = label_log is not None
        apart = (*stream.roles.values(), *stream.drop, *(COLUMNS if stream.served else ()))
        self._features = [n for n in types if n not in apart]
        self.lookback = self._make_lookback()  #: None where features are the columns themselves
        self._encoder: Encoder | None = None
        self._encoded = 0  # rows of features encoded so far: look-back features lag behind
        self.rows = 0  #: rows taken so far
        self._last = self._time.state()  # as of the last row taken: instants may be asked for beyond it

    @property
    def zone(self) -> str:
        """Time zone of calendar batches."""
        return self._time.zone

    @property
    def newest(self) -> int:
        """Newest event time so far."""
        return self._order.newest

    @property
    def encoder(self) -> Encoder:
        """What encodes features; there is one once features were seen."""
        assert self._encoder is not None
        return self._encoder

    @property
    def looks_back(self) -> bool:
        """Whether features are built from past rows, and the last instant's wait for its end."""
        return self.lookback is not None

    def instants(self, rows: Any, origin: Origin, first: int | None = None) -> NDArray[np.int64]:
        """Event times of rows that follow those taken so far, shape (n,)."""
        at = self.rows if first is None else first
        return self._time.convert(rows.column(self._stream.time), at, origin)

    def rewind(self) -> None:
        """Rows whose instants were asked for, and that were not taken, are read again."""
        self._time.restore([self._last[0], *self._time.state()[1:]])

    def take(self, rows: Any, time: NDArray[np.int64], origin: Origin, *, looked: int = 0) -> Taken:
        """The next rows; ``time`` is what :meth:`instants` gave. The first ``looked`` have had their features built."""
        first = self.rows
        newest, late = self._order.advance(time, first, origin)
        labels, known_at = self._label(rows, time, first, origin)
        others = self._others(rows, time, late, labels, known_at, first, origin)
        self.rows += len(time)
        self._last = [int(time[-1]), *self._time.state()[1:]]
        features = None
        if self.lookback is None:
            features = rows.select(self._features)
        elif len(time) > looked:
            features = self.look(rows.slice(looked), time[looked:])
        return Taken(time=time, newest=newest, late=late, known_at=known_at, others=others, features=features)

    def look(self, rows: Any, time: NDArray[np.int64]) -> Any:
        """Features of rows whose instant is over; of rows that are not taken yet, too."""
        assert self.lookback is not None
        return self.lookback.feed(rows.select(list(self.looked_at)), time)

    @property
    def looked_at(self) -> tuple[str, ...]:
        """The columns that features which look back are built from: time, key, and all that may be features."""
        seen = [n for n in (self._stream.time, self._stream.key, *self._features) if n is not None]
        return tuple(dict.fromkeys(seen))

    def finish(self) -> Any:
        """Features of rows that wait for the end of their instant; None if there are none."""
        return None if self.lookback is None else self.lookback.finish()

    def begin(self, types: Mapping[str, Any], words: Mapping[str, Sequence[str]]) -> None:
        """Know the features, and words of category columns with their codes, before any row."""
        if not types:
            raise DataError("no column is left to be a feature: see `drop` and the columns that have a role")
        encoder = Encoder(types, self._stream.text, self._stream.word_rows)
        for name in self._stream.text:
            if name not in types:
                raise ConfigError("text", name, f"no such feature: {nearest(name, types)}")
        for name, some in words.items():
            encoder.schema.vocabularies[name].encode(some)
        self._encoder = encoder
        if self.lookback is not None and self._stream.served:
            self.lookback.know(types)

    @property
    def feature_types(self) -> dict[str, Any] | None:
        """Type of each feature; None as long as only rows can tell: those that a function builds."""
        if self._encoder is not None:
            return self._encoder.types
        return None if self.lookback is not None else {name: self._types[name] for name in self._features}

    def encode(self, table: Any) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Stored columns of a feature table, the digests of rows among them, and these digests, shape (n, 16)."""
        if self._encoder is None:
            self.begin({field.name: field.type for field in table.schema}, {})
        arrays = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in table.columns]
        stored, digests = self.encoder.encode(arrays, self._encoded)
        self._encoded += table.num_rows
        columns = {f"f{j}": column for j, column in enumerate(stored)}
        bytes_of = pa.py_buffer(np.ascontiguousarray(digests))
        columns["digest"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(digests), [None, bytes_of])
        return columns, digests

    def _others(
        self,
        rows: Any,
        time: NDArray[np.int64],
        late: NDArray[np.bool_],
        labels: Any,
        known_at: NDArray[np.int64],
        first: int,
        origin: Origin,
    ) -> dict[str, Any]:
        """All columns that are no features, by the name they are stored under."""
        stream = self._stream
        out = {"time": pa.array(time), "known_at": pa.array(known_at), "label": labels}
        if stream.lateness is not None:
            out["late"] = pa.array(late)
        if stream.weight is not None:
            weights = rows.column(stream.weight)
            if stream.served:  # a client's mistake: the row is learned with no weight
                weights = pa.array(np.where(_no_weights(values := _floats(weights)), 0.0, values))
            out["weight"] = _weights(weights, stream.weight, first, origin)
        for role in ("group", "id", "key"):
            if (column := getattr(stream, role)) is not None:
                out[role] = rows.column(column)
        for name in self._extra:
            out[EXTRA + name] = _amounts(rows.column(name), name)
        return out

    def _label(self, rows: Any, time: NDArray[np.int64], first: int, origin: Origin) -> tuple[Any, NDArray[np.int64]]:
        stream = self._stream
        if stream.target in self._types:
            labels = rows.column(stream.target).cast(self.label_type, safe=False)
            if pa.types.is_floating(labels.type):
                labels = pc.if_else(pc.is_nan(labels), pa.scalar(None, labels.type), labels)
        else:
            labels = pa.nulls(len(time), self.label_type)
        known = None
        if self._known is not None:
            known = self._known.convert(rows.column(stream.known_at), first, origin)
        labels, known_at = self.rule.apply(labels, time, known, first, origin)
        if self._has_log:
            # of a stream that is served, an id may be many rows': its log says of each label which row it is about
            ids = range(first, first + len(time)) if stream.served else rows.column(stream.id).to_pylist()
            labels, known_at = self.rule.join(ids, labels, known_at, time, first)
        return labels, known_at

    def warnings(self) -> list[str]:
        """What a user should know about times."""
        out, stream = [], self._stream
        if self._time.naive and stream.time_zone is None:
            out.append(
                f"times in {stream.time!r} carry no zone and were taken for UTC: state `time_zone` to have local days"
            )
        if self._known is not None and self._known.naive and stream.time_zone is None and not self._time.naive:
            out.append(f"times in {stream.known_at!r} carry no zone and were taken for UTC: state `time_zone`")
        return out

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
            forgiving=stream.served,
        )

    def erase(self, key: str, words: Mapping[str, Collection[str]]) -> None:
        """Forget past rows of a subject, and words of category columns that nobody else used."""
        if self.lookback is not None:
            self.lookback.erase(key)
        for name, gone in words.items():
            self.encoder.erase(name, gone)

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> State:
        """Everything that the next rows depend on besides the settings; nothing may wait for its features."""
        plain: dict[str, Any] = {
            "rows": self.rows,
            "encoded": self._encoded,
            "newest": self._order.newest,
            "time": self._last,
            "known": None if self._known is None else self._known.state(),
            "features": None if self._encoder is None else self._encoder.state(),
        }
        own = State(plain=plain)
        return own if self.lookback is None else State.join(own, self.lookback.state().under("lookback"))

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave; raises ``ConfigError`` if a feature of then is none by the settings."""
        plain = state.plain
        self.rows, self._encoded, self._order.newest = plain["rows"], plain["encoded"], plain["newest"]
        self._time.restore(plain["time"])
        self._last = plain["time"]
        if self._known is not None:
            self._known.restore(plain["known"])
        if plain["features"] is not None:
            self._encoder = Encoder.restore(plain["features"], self._stream.text, self._stream.word_rows)
            if self.lookback is None:
                self._check_features(self._encoder.schema.names)
        if self.lookback is not None:
            self.lookback.restore(state.part("lookback"))

    def _check_features(self, before: Sequence[str]) -> None:
        """Models and kept rows know the features that they were made with: no other settings can go on from them."""
        for name in before:
            if name not in self._features:
                role = next((role for role, column in self._stream.roles.items() if column == name), "drop")
                raise ConfigError(
                    role, name, f"{name!r} is a feature of the deployment as it was begun, and its models know it: go "
                    "back to that, or give the new settings a `name` of their own",
                )  # fmt: skip


def wanted_types(stream: Stream, source: Source, extra: tuple[str, ...]) -> dict[str, Any]:
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


def _weights(column: Any, name: str, first: int, origin: Origin) -> Any:
    try:
        weights = column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise DataError(f"weight column {name!r} holds {column.type}: weights are numbers") from error
    if (wrong := _no_weights(_floats(weights))).any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"weight column {name!r}, {where(first + row, origin)}: {column[row].as_py()!r} is no weight; weights are "
            "finite and not negative: correct it, or drop the row"
        )
    return weights


def _floats(column: Any) -> NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _no_weights(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(~(np.isfinite(values) & (values >= 0)))


def _amounts(column: Any, name: str) -> Any:
    try:
        return column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise DataError(f"column {name!r} holds {column.type}: amounts are numbers") from error


def least_delay(stream: Stream) -> timedelta:
    """How long every label takes at least."""
    if stream.positives_wait and (within := stream.span("within")) is not None:
        return within
    return stream.span("label_delay") or timedelta(0)
