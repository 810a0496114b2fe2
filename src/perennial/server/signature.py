"""What a client has to send: the raw columns of the stream, and rows of them out of lists, records and tensors.

Strict: a column that is missing, one that nobody knows, a value of another kind, and one out of range are refused, by
column and row. A null is a missing value, as in the stream. What is not a number in JSON, NaN and the infinities, can
come in tensors and in CSV; the policy says what becomes of it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.features import Column, Kind
from perennial.server.failures import Refused
from perennial.server.rows import Rows
from perennial.stream.answered import COLUMNS
from perennial.stream.encoding import kind_of

if TYPE_CHECKING:
    from perennial.production import Deployment
    from perennial.stream.intake import Intake
    from perennial.stream.settings import Stream

EXACT = 2**53 - 1  #: whole numbers beyond it are not all doubles
ID_LENGTH = 256  #: characters of an id at most

_NONE = type(None)
_NUMBERS, _FLAGS = frozenset([float, int, _NONE]), frozenset([bool, int, float, _NONE])
_WORDS = frozenset([str, _NONE])
_LISTS, _DICTS = frozenset([list]), frozenset([dict])

#: why a column with a role is not sent
_APART = {
    "time": "the server's own clock says when a row happened",
    "target": "labels come later, to POST /labels, or with their row to POST /examples",
    "known_at": "labels come later, to POST /labels, or with their row to POST /examples",
    "weight": "it is for training alone",
    "group": "it is for training alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What becomes of numbers that are none: ``refuse`` the request, or take them for a ``null``."""

    nan: Literal["refuse", "null"] = "null"
    infinite: Literal["refuse", "null"] = "refuse"


LENIENT = Policy()


@final
class Signature:
    """The raw columns that a client sends, in order.

    Parameters
    ----------
    types : mapping of str to pyarrow.DataType
        Canonical type of each raw column.
    text : collection of str
        Columns of prose.
    id, key : (str, pyarrow.DataType), optional
        The column that labels refer to, and the one that says whom a row is about; neither is a raw column.
    needs_key : bool
        Features look back on rows of the same key.
    apart : mapping of str to str
        Columns that are not sent, and why.
    ignored : collection of str
        Columns that may be sent and are passed over, as in training.

    Attributes
    ----------
    names : tuple of str
        Names of the raw columns.
    columns : tuple of Column
        The same with their kinds and types.
    numeric : bool
        Whether all of them are numbers, so that rows are one matrix.
    """

    def __init__(
        self,
        types: Mapping[str, Any],
        *,
        text: Iterable[str] = (),
        id: tuple[str, Any] | None = None,
        key: tuple[str, Any] | None = None,
        needs_key: bool = False,
        apart: Mapping[str, str] | None = None,
        ignored: Iterable[str] = (),
    ) -> None:
        prose = frozenset(text)
        self.types = dict(types)
        self.columns = tuple(Column(name, kind_of(dtype, name in prose), str(dtype)) for name, dtype in types.items())
        self.names = tuple(types)
        self._width = frozenset([len(self.names)])
        self.numeric = all(column.kind is Kind.NUMBER for column in self.columns)
        self.id, self.key = (None if id is None else id[0]), (None if key is None else key[0])
        self.key_type = None if key is None else key[1]
        self.needs_key = needs_key and key is not None
        self._apart, self._ignored = dict(apart or {}), frozenset(ignored)
        self._expected = dict.fromkeys(self.names).keys()
        self._at = {name: i for i, name in enumerate(self.names)}
        self._pick = itemgetter(*self.names) if len(self.names) > 1 else _only(self.names[0])
        self._flags = frozenset(i for i, name in enumerate(self.names) if pa.types.is_boolean(types[name]))
        limits = [_limits(dtype) for dtype in types.values()]
        self._low = np.array([low for low, _, _ in limits])
        self._high = np.array([high for _, high, _ in limits])
        self._whole = np.array([i for i, (_, _, whole) in enumerate(limits) if whole], dtype=np.intp)
        self._single = np.array([i for i, t in enumerate(types.values()) if t == pa.float32()], dtype=np.intp)
        self._bounded = bool(len(self._whole) or len(self._single))

    @classmethod
    def of(cls, deployment: Deployment, intake: Intake) -> Self:
        """The signature of a deployment, from an intake that knows the columns of its stream."""
        return cls.over(deployment.stream, intake.columns)

    @classmethod
    def over(cls, stream: Stream, types: Mapping[str, Any]) -> Self:
        """The signature of a stream whose columns, those with a role included, have these canonical types."""
        roles = stream.roles
        others = {*roles.values(), *stream.drop, *(COLUMNS if stream.served else ())}
        raw = {name: dtype for name, dtype in types.items() if name not in others}
        apart = {column: _APART[role] for role, column in roles.items() if role in _APART}
        return cls(
            raw,
            text=stream.text,
            id=None if stream.id is None else (stream.id, types.get(stream.id, pa.string())),
            key=None if stream.key is None else (stream.key, types.get(stream.key, pa.string())),
            needs_key=stream.features is not None,
            apart={column: why for column, why in apart.items() if column not in (stream.id, stream.key)},
            ignored=stream.drop,
        )

    def __len__(self) -> int:
        return len(self.columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._facts == other._facts

    def __hash__(self) -> int:
        return hash(self._facts)

    @cached_property
    def _facts(self) -> tuple[Any, ...]:
        return self.columns, self.id, self.key, str(self.key_type), self.needs_key, self._ignored

    # ------------------------------------------------------------------ rows

    def matrix(self, numbers: NDArray[Any], policy: Policy = LENIENT) -> Rows:
        """Rows of a matrix of numbers, shape (n, d), its columns in the order of the signature."""
        if not self.numeric:
            words = next(column for column in self.columns if column.kind is not Kind.NUMBER)
            raise Refused(
                f"column {words.name!r} holds {words.kind} ({words.dtype}), which a matrix of numbers cannot: send "
                "each column by its name"
            )
        if numbers.ndim != 2 or numbers.shape[1] != len(self):
            raise Refused(
                f"the rows have the shape {list(numbers.shape)}: give [n, {len(self)}], the columns in the order that "
                "the model's metadata has them"
            )
        if numbers.dtype.kind in "biu":
            for j in range(len(self)):
                self._numbers(j, numbers[:, j])
        return self._rows(np.array(numbers, dtype=np.float64), {}, policy, None, None)

    def flat(self, values: list[Any], rows: int, policy: Policy = LENIENT, *, booleans: bool = True) -> Rows:
        """Rows of a list of plain values, row after row, each in the order of the signature.

        ``booleans``: whether there may be any among the values; who knows that there is none saves a look at each.
        """
        if not self.numeric:
            return self.matrix(np.empty((rows, len(self))), policy)  # says which column is none
        return self._rows(self._numeric(values, rows, booleans), {}, policy, None, None)

    def lists(self, rows: list[Any], policy: Policy = LENIENT, *, booleans: bool = True) -> Rows:
        """Rows, each a list of values in the order of the signature; ``booleans`` as for :meth:`flat`."""
        width = len(self)
        if not set(map(type, rows)) <= _LISTS or not set(map(len, rows)) <= self._width:
            i, row = next((i, r) for i, r in enumerate(rows) if type(r) is not list or len(r) != width)
            got = f"{len(row)} values" if type(row) is list else _said(row)
            raise Refused(f"row {i} is {got}: give a list of {width} values, one for each column")
        if self.numeric:
            return self._rows(
                self._numeric(list(chain.from_iterable(rows)), len(rows), booleans), {}, policy, None, None
            )
        if not rows:
            return self._rows(np.empty((0, width)), {c.name: [] for c in self.columns if _other(c)}, policy, None, None)
        return self.by_column(dict(zip(self.names, zip(*rows, strict=True), strict=True)), policy)

    def table(self, names: list[Any], rows: list[Any], policy: Policy = LENIENT, *, booleans: bool = True) -> Rows:
        """Rows, each a list of values in the order of ``names``, which may have the id and the key among them."""
        if tuple(names) == self.names and not self.needs_key:
            return self.lists(rows, policy, booleans=booleans)
        for name in names:
            if type(name) is not str:
                raise Refused(f"a column is called {_said(name)}: names of columns are text")
        if len(set(names)) < len(names):
            raise Refused("two columns have the same name: give each column once")
        for i, row in enumerate(rows):
            if type(row) is not list or len(row) != len(names):
                got = f"{len(row)} values" if type(row) is list else _said(row)
                raise Refused(f"row {i} is {got}: give a list of {len(names)} values, one for each of `columns`")
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return self.by_column(dict(zip(names, columns, strict=True)), policy)

    def records(self, rows: list[Any], policy: Policy = LENIENT, *, booleans: bool = True) -> Rows:
        """Rows, each a dict of values by column, which may have the id and the key among them."""
        if not set(map(type, rows)) <= _DICTS:
            i, row = next((i, row) for i, row in enumerate(rows) if type(row) is not dict)
            raise Refused(f"row {i} is {_said(row)}: give an object with a value for each column")
        if not rows:
            return self.lists([], policy)
        first = rows[0].keys()
        for i, row in enumerate(rows):
            if row.keys() != first:
                odd = sorted(row.keys() ^ first, key=str)[0]
                raise Refused(
                    f"row {i} and row 0 have other columns, {_short(odd)} is in one of them: give each row the same, "
                    "with null for what is missing"
                )
        if first == self._expected and self.numeric and not self.needs_key:
            picked = list(chain.from_iterable(map(self._pick, rows)))
            return self._rows(self._numeric(picked, len(rows), booleans), {}, policy, None, None)
        return self.by_column({name: [row[name] for row in rows] for name in first}, policy)

    def by_column(self, given: Mapping[str, Any], policy: Policy = LENIENT) -> Rows:
        """Rows by column: sequences of plain values, or arrays of numbers, all as long as the first."""
        if given.keys() != self._expected or self.needs_key:
            self._reconcile(given.keys())
        rows = len(next(iter(given.values())))
        for name, values in given.items():
            if len(values) != rows:
                raise Refused(f"column {name!r} has {len(values)} values, the first column {rows}: give each as many")
        numbers = np.full((rows, len(self)), np.nan)
        others: dict[str, list[Any]] = {}
        for j, column in enumerate(self.columns):
            values = given[column.name]
            if column.kind is Kind.NUMBER:
                numbers[:, j] = self._numbers(j, values)
            else:
                others[column.name] = self._others(column, values)
        ids = None if self.id is None else given.get(self.id)
        keys = None if self.key is None else given.get(self.key)
        return self._rows(numbers, others, policy, ids, keys)

    def _rows(
        self, numbers: NDArray[np.float64], others: dict[str, list[Any]], policy: Policy, ids: Any, keys: Any
    ) -> Rows:
        if self._bounded:
            self._hold(numbers)
        if not np.isfinite(numbers).all():
            self._settle(numbers, policy)
        return Rows(
            n=len(numbers),
            numbers=numbers,
            others=others,
            ids=None if ids is None else _ids(str(self.id), ids),
            keys=None if keys is None else self._keys(keys),
        )

    def _settle(self, numbers: NDArray[np.float64], policy: Policy) -> None:
        """Heed the policy about infinities; NaN stands for a null from here on."""
        infinite = np.isinf(numbers)
        if infinite.any():
            if policy.infinite == "refuse":
                i, j = np.argwhere(infinite)[0].tolist()
                self._blame(j, i, "an infinite number", "infinite numbers are refused here: send null, or a finite one")
            numbers[infinite] = np.nan

    def refuse_nan(self, values: NDArray[Any], name: str | None = None) -> None:
        """Refuse the first NaN of an array of numbers, of one column or of all."""
        gone = np.isnan(values)
        if gone.any():
            where = np.argwhere(gone)[0].tolist()
            j = self._at[name] if name is not None else where[1]
            self._blame(j, where[0], "NaN", "NaN is refused here: send null in JSON, or a number")

    # ------------------------------------------------------------------ numbers

    def _numeric(self, flat: list[Any], rows: int, booleans: bool) -> NDArray[np.float64]:
        """A matrix of plain values, row after row."""
        if not booleans:
            try:
                # takes what is a number to Python, a boolean too, and nothing else: half the time of a look at each
                return np.frombuffer(array("d", flat)).reshape(rows, len(self))
            except (TypeError, OverflowError):  # a null, or what the slow way has words for
                pass
        return self._flat(flat, rows)

    def _flat(self, flat: list[Any], rows: int) -> NDArray[np.float64]:
        """The same of values that may be anything."""
        width = len(self)
        kinds = set(map(type, flat))
        if not kinds <= _NUMBERS:
            for j in range(width):
                self._check_numbers(j, flat[j::width])
        try:
            return np.array(flat, dtype=np.float64).reshape(rows, width)
        except OverflowError:
            for j in range(width):
                self._check_range(j, flat[j::width])
            raise

    def _numbers(self, j: int, values: Any) -> NDArray[np.float64]:
        """One column of numbers, shape (n,)."""
        if isinstance(values, np.ndarray):
            if values.dtype == np.bool_ and j not in self._flags:
                self._blame(j, 0, "a boolean", "send numbers")
            if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and j in self._whole:
                beyond = (values > EXACT) | (values < -EXACT)
                if beyond.any():
                    self._beyond(j, int(np.argmax(beyond)))
            return values.astype(np.float64)
        if pa.types.is_decimal(self.types[self.names[j]]):
            values = [self._decimal(j, i, value) for i, value in enumerate(values)]
        self._check_numbers(j, values)
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            self._check_range(j, values)
            raise

    def _check_numbers(self, j: int, values: Sequence[Any]) -> None:
        allowed = _FLAGS if j in self._flags else _NUMBERS
        if not set(map(type, values)) <= allowed:
            i, value = next((i, value) for i, value in enumerate(values) if type(value) not in allowed)
            wanted = "true or false" if j in self._flags else "a number"
            self._blame(j, i, _said(value), f"send {wanted}, or null")

    def _check_range(self, j: int, values: Sequence[Any]) -> None:
        for i, value in enumerate(values):
            try:
                float(value) if value is not None else 0.0
            except OverflowError:
                self._blame(j, i, "a number that is too large", "send one that a double can hold")

    def _decimal(self, j: int, i: int, value: Any) -> Any:
        """A decimal number, which may come as text: exactly what a double says, so that the log says it too."""
        if type(value) is not str:
            return value
        try:
            number = float(value)
            if not math.isfinite(number) or Decimal(repr(number)) != Decimal(value):
                self._blame(j, i, "a decimal number of more than 15 digits", "send fewer digits")
        except (ValueError, InvalidOperation):
            self._blame(j, i, "text that is no decimal number", "send a number, or its digits as text")
        return number

    def _hold(self, numbers: NDArray[np.float64]) -> None:
        """Hold numbers against the range of their columns; columns of float32 are rounded as in training."""
        if len(self._whole):
            whole = numbers[:, self._whole]
            wrong = whole != np.rint(whole)
            if wrong.any() and (wrong := wrong & np.isfinite(whole)).any():
                i, at = np.argwhere(wrong)[0].tolist()
                self._blame(int(self._whole[at]), i, "a fraction", "send a whole number, or null")
        beyond = (numbers < self._low) | (numbers > self._high)
        if beyond.any() and (beyond := beyond & np.isfinite(numbers)).any():
            i, j = np.argwhere(beyond)[0].tolist()
            self._beyond(j, i)
        if len(self._single):
            numbers[:, self._single] = numbers[:, self._single].astype(np.float32)

    def _beyond(self, j: int, i: int) -> NoReturn:
        low, high = self._low[j], self._high[j]
        if j in self._flags:
            self._blame(j, i, "a number other than 0 and 1", "send true or false, or null")
        bounds = f"{low:.0f} to {high:.0f}" if j in self._whole else f"{low:.3g} to {high:.3g}"
        self._blame(j, i, "a number out of range", f"send one from {bounds}")

    # ------------------------------------------------------------------ what is no number

    def _others(self, column: Column, given: Any) -> list[Any]:
        """Values of a column of words, prose, times or anything else, as pyarrow takes them."""
        values: list[Any] = list(given)
        j = self._at[column.name]
        kinds = set(map(type, values))
        if column.kind in (Kind.CATEGORY, Kind.TEXT):
            if not kinds <= _WORDS:
                i, value = next((i, value) for i, value in enumerate(values) if type(value) not in _WORDS)
                self._blame(j, i, _said(value), "send text, or null")
            return values
        dtype = self.types[column.name]
        if pa.types.is_temporal(dtype) and not pa.types.is_duration(dtype):
            if not kinds <= _WORDS:
                i, value = next((i, value) for i, value in enumerate(values) if type(value) not in _WORDS)
                self._blame(j, i, _said(value), "send it as text in ISO 8601, e.g. 2026-01-31T12:00:00Z")
            return self._converted(j, values, lambda some: pa.array(some, type=pa.string()).cast(dtype))
        return self._converted(j, values, lambda some: pa.array(some, type=dtype))

    def _converted(self, j: int, values: list[Any], convert: Callable[[list[Any]], Any]) -> list[Any]:
        try:
            return list(convert(values).to_pylist())
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            for i, value in enumerate(values):
                try:
                    convert([value]).to_pylist()
                except (pa.ArrowException, ValueError, TypeError, OverflowError):
                    self._blame(j, i, f"{_said(value)} that is none", f"send what {self.columns[j].dtype} can hold")
            raise

    def _keys(self, values: Any) -> list[Any]:
        keys = values.tolist() if isinstance(values, np.ndarray) else list(values)
        if pa.types.is_string(self.key_type):
            wanted, told = _WORDS, "text"
        elif pa.types.is_integer(self.key_type):
            wanted, told = frozenset([int, _NONE]), "a whole number"
        else:
            wanted, told = frozenset([str, int, float, bool, _NONE]), "a plain value"
        for i, key in enumerate(keys):
            if type(key) not in wanted:
                raise Refused(f"column {self.key!r}, row {i}: {_said(key)}: send {told}, or null")
        try:
            pa.array(keys, type=self.key_type)
        except (pa.ArrowException, OverflowError, UnicodeError):  # it could be answered, and never be logged
            raise Refused(
                f"column {self.key!r} holds a key that {self.key_type} cannot hold: send keys as history has them"
            ) from None
        return keys

    # ------------------------------------------------------------------ names

    def _reconcile(self, names: Iterable[str]) -> None:
        """Refuse columns that are missing and columns that nobody knows."""
        given = set(names)
        if missing := [name for name in self.names if name not in given]:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            told = ", ".join(map(repr, missing[:3])) + more
            raise Refused(f"missing {told}: every column is needed, null where a value is missing")
        if self.needs_key and self.key not in given:
            raise Refused(f"missing {self.key!r}: features look back on rows of the same key; null has no past")
        known = {*self.names, self.id, self.key} | self._ignored
        for name in sorted(given - known, key=str):
            if name in self._apart:
                raise Refused(f"column {name!r} is not sent: {self._apart[name]}; leave it out")
            raise Refused(f"no column is called {_short(name)}: leave it out; the model's metadata has the columns")

    def _blame(self, j: int, i: int, got: str, need: str) -> NoReturn:
        column = self.columns[j]
        raise Refused(f"column {column.name!r} ({column.dtype}), row {i}: {got}; {need}")


def _only(name: str) -> Callable[[Mapping[str, Any]], tuple[Any]]:
    return lambda row: (row[name],)


def _other(column: Column) -> bool:
    return column.kind is not Kind.NUMBER


def _limits(dtype: Any) -> tuple[float, float, bool]:
    """The least and the greatest number of a type, and whether they must be whole."""
    if pa.types.is_boolean(dtype):
        return 0.0, 1.0, True
    if pa.types.is_integer(dtype):
        info = np.iinfo(dtype.to_pandas_dtype())
        return float(max(info.min, -EXACT)), float(min(info.max, EXACT)), True
    if dtype == pa.float32():
        top = float(np.finfo(np.float32).max)
        return -top, top, False
    return -math.inf, math.inf, False


def _ids(column: str, values: Any) -> list[str]:
    ids = []
    for i, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        if type(value) is int:
            ids.append(str(value))
            continue
        if type(value) is not str:
            raise Refused(f"column {column!r}, row {i}: {_said(value)}: an id is text or a whole number")
        check_id(value, f"column {column!r}, row {i}")
        ids.append(value)
    if len(set(ids)) < len(ids):
        row = next(i for i, one in enumerate(ids) if one in ids[:i])
        raise Refused(f"column {column!r}, row {row}: the id is that of an earlier row: give each row its own")
    return ids


def check_id(value: str, what: str) -> None:
    """Refuse text that is no id: empty, longer than :data:`ID_LENGTH`, or with control characters."""
    if not value or len(value) > ID_LENGTH or not value.isprintable():
        raise Refused(f"{what}: an id has 1 to {ID_LENGTH} characters, all of them printable")


def _said(value: Any) -> str:
    """The kind of a value as JSON has it; never the value."""
    names = {str: "text", bool: "a boolean", int: "a number", float: "a number", _NONE: "null", list: "a list"}
    return names.get(type(value), "an object")


def _short(name: object) -> str:
    """A name that a client made up, fit for a message."""
    text = str(name)
    return repr(text if len(text) <= 40 else text[:40] + "...")
