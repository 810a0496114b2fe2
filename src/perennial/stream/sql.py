"""A table of a SQL database: read once from end to end, or followed as it grows.

Whoever follows a table needs an order in which no row can turn up before one that was read. On a server a serial number
is none: it is drawn before the commit, and a row that was committed late has a lower number than rows that were read.
What is used instead, and what each promises:

- SQLite has one writer at a time, so that the order of ``rowid`` is the order of commits. The promise is the table's:
  nobody inserts a row with a number of their own below one that is there.
- PostgreSQL: rows are ordered by the transaction that wrote them, and read once every transaction that began before is
  over (``pg_snapshot_xmin``). What comes later belongs to a later transaction, so it stands behind. The transaction is
  that of a column of type ``xid8``, or else the system column ``xmin``, which an update of the row changes.
- ``delay``: the order of the columns alone, and rows are read once they are that old. The promise is the user's: no
  transaction takes longer.

Where a promise can be broken, the rows up to the position are counted at each look: one too many was about to be passed
over, and the source says so.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, final
from urllib.parse import parse_qsl, unquote, urlencode

import pyarrow as pa

from perennial.core.errors import ConfigError, DataError, MissingExtra, nearest
from perennial.core.times import duration
from perennial.stream.feed import OffsetGone, Position, Run, SourceAway, row_digest
from perennial.stream.sources import BLOCK_BYTES, BLOCK_ROWS, Block

if TYPE_CHECKING:
    import sqlalchemy as sa

PATIENCE = 10.0  #: seconds to wait for a server, or for a lock that another process holds
FIRST_ROWS = 1 << 12  #: how many rows are read before it is known how large they are

_OURS = ("table", "schema", "order", "delay")
_LOGS = ("log", "schema", "keep")
_RULE = "write sqlite:///shop.db?table=calls or postgresql://user@host/database?table=calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a table or an ingest log is, and what is said of its order.

    Parameters
    ----------
    url : str
        The database, without the parameters that are ours.
    table, schema : str
        The table, view or log; ``schema`` is empty unless given.
    order : tuple of str
        Columns that give the order of arrival; empty where the database tells it.
    delay : timedelta, optional
        How long a transaction takes at most.
    field : str
        The setting that holds the URL, for errors.
    log : bool
        Whether it is an ingest log: see :mod:`perennial.stream.ingest`.
    keep : timedelta
        How long a log keeps rows that were read.
    """

    url: str
    table: str
    schema: str
    order: tuple[str, ...]
    delay: timedelta | None
    field: str
    log: bool = False
    keep: timedelta = timedelta(0)

    @classmethod
    def of(cls, source: str, field: str = "source", *, there: bool = True) -> Address:
        """The address that a URL spells; the database is not asked. A file must be ``there`` unless it may be made.

        Raises
        ------
        ConfigError
            If it is no URL of a database that can be read, lacks the table, holds a password, or a file is missing.
        """
        base, _, query = source.partition("?")
        scheme = base.partition("://")[0].lower().partition("+")
        given = dict(parse_qsl(query, keep_blank_values=True))
        log = "log" in given and "table" not in given
        ours = _LOGS if log else _OURS
        rest = {name: value for name, value in given.items() if name not in ours}
        shown = _without_password(source)
        if wrong := next((name for name in rest if name in (*_OURS, *_LOGS)), ""):
            what = "an ingest log" if log else "a table"
            raise ConfigError(field, shown, f"{what} has no {wrong!r}: its parameters are {', '.join(ours)}")
        if scheme[0] == "sqlite":
            _check_file(base, field, there)
            if rest:
                name = next(iter(rest))
                raise ConfigError(field, shown, f"{name!r} is no parameter: {nearest(name, ours)}")
        elif scheme[0] not in ("postgresql", "postgres"):
            raise ConfigError(field, shown, f"a table is read from SQLite or PostgreSQL: {_RULE}")
        elif shown != source or "password" in rest:
            need = (
                "a password in a URL ends up in reports and in recommended.yaml: put it into PGPASSWORD, or a line in "
                "~/.pgpass, and take it out here"
            )
            raise ConfigError(field, shown, need)
        if not given.get("log" if log else "table"):
            close = get_close_matches("table", rest, n=1)
            wrong = f" (`{close[0]}` is no parameter)" if close else ""
            raise ConfigError(field, shown, f"say which table{wrong}: {_RULE}")
        order = tuple(name.strip() for name in given.get("order", "").split(",") if name.strip())
        delay = duration(given["delay"], "delay", positive=True) if "delay" in given else None
        if scheme[0] == "sqlite":
            if given.get("schema"):
                raise ConfigError(field, shown, "SQLite has no `schema`: take it out")
            if delay is not None:
                need = "SQLite has one writer at a time, so that no row is committed late: take `delay` out"
                raise ConfigError(field, shown, need)
            url = base
        else:
            url = "postgresql+psycopg://" + base.partition("://")[2] + (f"?{urlencode(rest)}" if rest else "")
        if delay is not None and not order:
            need = "with `delay`, say by which column rows are that old: &order=arrived_at, a column of times"
            raise ConfigError(field, shown, need)
        keep = duration(given["keep"], "keep") if "keep" in given else timedelta(0)
        return cls(
            url=url,
            table=given["log" if log else "table"],
            schema=given.get("schema", ""),
            order=order,
            delay=delay,
            field=field,
            log=log,
            keep=keep,
        )

    @property
    def file(self) -> str | None:
        """The path of a SQLite file; None on a server."""
        return _file(self.url)

    @property
    def name(self) -> str:
        """The table as errors and positions name it."""
        return f"{self.schema}.{self.table}" if self.schema else self.table


def moved(source: str, place: Callable[[str], str]) -> str:
    """A URL with the path of its file, if it has one, as ``place`` gives it."""
    base, mark, query = source.partition("?")
    path = _file(base)
    if path is None:
        return source
    return f"sqlite:///{place(path).replace('%', '%25').replace('?', '%3F')}{mark}{query}"


def _file(base: str) -> str | None:
    """The path in a URL of SQLite; None in another URL."""
    scheme, _, rest = base.partition("://")
    if scheme.lower().partition("+")[0] != "sqlite":
        return None
    return unquote(rest.removeprefix("/"))


def _check_file(base: str, field: str, there: bool) -> None:
    path = _file(base)
    assert path is not None
    if not path or path == ":memory:" or not base.partition("://")[2].startswith("/"):
        raise ConfigError(field, base, "name the file, with three slashes: sqlite:///shop.db?table=calls")
    if there and not Path(path).is_file():
        raise ConfigError(field, path, f"no such file (looked in {Path.cwd()})")


def _without_password(source: str) -> str:
    """A URL that may be shown."""
    source = re.sub(r"^([^:/]+://[^:/@?]*):[^/?]*@", r"\1:***@", source)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", source)


# ---------------------------------------------------------------------- what a table is


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column: its type as the database spells it, and as Arrow has it; None if there is no such type.

    ``sure``: the database says so, and not just what the rows hold so far. ``sortable``: it may give an order.
    """

    name: str
    said: str
    dtype: Any
    sure: bool = True
    sortable: bool = True
    nullable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Columns by name, the primary key, and how rows can be told to be new.

    ``own`` is what the database itself knows of the order of arrival: the name of the rowid, or ``xmin``; empty if
    it knows nothing, as of a view. ``alias`` is a column that is the rowid by another name.
    """

    columns: Mapping[str, _Column]
    primary: tuple[str, ...]
    own: str
    alias: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """A part of the order: the expression to sort by, what is selected of it, and how a value of it is written."""

    expression: str
    shown: str
    value: str = "{}"  #: around the placeholder
    nullable: bool = False


Rule = Literal["rowid", "columns", "transaction", "xmin", "delay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """The order of arrival, and what it rests on; see the module's text."""

    keys: tuple[_Key, ...]
    rule: Rule
    bound: str = ""  #: condition of rows that may be read, around the value of :meth:`_Dialect.horizon`

    @property
    def by(self) -> str:
        return ", ".join(key.expression for key in self.keys)

    @property
    def backwards(self) -> str:
        return ", ".join(f"{key.expression} DESC" for key in self.keys)

    def beside(self, sign: str) -> str:
        """Condition of rows that stand so to a key, whose parts are the parameters k0, k1, ..."""
        values = ", ".join(key.value.format(f":k{i}") for i, key in enumerate(self.keys))
        return f"({self.by}) {sign} ({values})" if len(self.keys) > 1 else f"{self.by} {sign} {values}"


class _Dialect(Protocol):
    """What differs between databases."""

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that sees one instant and changes nothing."""
        ...

    def layout(self, connection: sa.Connection) -> _Layout:
        """The table's columns; ``ConfigError`` if there is no such table."""
        ...

    def order(self, connection: sa.Connection, layout: _Layout, *, follow: bool) -> _Order:
        """The order of arrival; ``follow``: one that is safe while others write."""
        ...

    def horizon(self, connection: sa.Connection, order: _Order) -> str:
        """Up to where rows may be read, so that nothing can turn up before; empty if all may."""
        ...

    def selected(self, column: _Column, dtype: Any) -> str:
        """The expression whose values :meth:`array` takes."""
        ...

    def array(self, values: Sequence[Any], dtype: Any) -> Any:
        """Values of a column as Arrow; raises as Arrow does."""
        ...


def _dialect(address: Address) -> _Dialect:
    return _Postgres(address) if address.url.startswith("postgresql") else _Sqlite(address)


def _quoted(name: str) -> str:
    """An identifier, in statements where a colon begins a parameter."""
    return '"' + name.replace('"', '""').replace(":", "\\:") + '"'


def _column(name: str) -> str:
    """A column of the table, which every statement calls r: what is selected has the same names."""
    return f"r.{_quoted(name)}"


def _where(*conditions: str) -> str:
    given = [f"({one})" for one in conditions if one]
    return f" WHERE {' AND '.join(given)}" if given else ""


def _needs_order(address: Address, why: str) -> ConfigError:
    need = f"the table {why}: name the columns that give the order in which rows arrived, as &order=arrived_id"
    return ConfigError(address.field, address.name, need)


def _order_columns(address: Address, layout: _Layout) -> list[_Column]:
    """The columns of ``order``, checked, and those of the primary key that make them unique."""
    for name in address.order:
        if name not in layout.columns:
            raise ConfigError(address.field, name, f"`order` names no such column: {nearest(name, layout.columns)}")
    named = [layout.columns[name] for name in address.order]
    for column in named:
        if not column.sortable:
            need = f"`order` is one of whole numbers, times or text, and the column holds {column.said}: name another"
            raise ConfigError(address.field, column.name, need)
    return named + [layout.columns[name] for name in layout.primary if name not in address.order]


@final
class _Reader:
    """Pages of a table in order, on any database."""

    def __init__(self, source: str, field: str) -> None:
        self.address = Address.of(source, field)
        self.dialect = _dialect(self.address)
        schema = f"{_quoted(self.address.schema)}." if self.address.schema else ""
        self._table = f"{schema}{_quoted(self.address.table)} AS r"

    def rows(self, connection: sa.Connection, statement: str, key: tuple[Any, ...] = ()) -> sa.CursorResult[Any]:
        """What a statement gives; ``key`` holds the parameters k0, k1, ..."""
        import sqlalchemy as sa

        return connection.execute(sa.text(statement), {f"k{i}": value for i, value in enumerate(key)})

    def statement(
        self, layout: _Layout, order: _Order, types: Mapping[str, Any], *conditions: str, limit: int | None
    ) -> str:
        """Select keys and columns of rows in order."""
        keys = [key.shown for key in order.keys]
        columns = [self.dialect.selected(layout.columns[name], dtype) for name, dtype in types.items()]
        end = "" if limit is None else f" LIMIT {limit}"
        return f"SELECT {', '.join(keys + columns)} FROM {self._table}{_where(*conditions)} ORDER BY {order.by}{end}"

    def count(self, connection: sa.Connection, order: _Order, key: tuple[Any, ...]) -> int:
        """How many rows the table holds up to a key."""
        found = self.rows(connection, f"SELECT count(*) FROM {self._table}{_where(order.beside('<='))}", key)
        return int(found.scalar_one())

    def newest(self, connection: sa.Connection, order: _Order, bound: str) -> list[Any] | None:
        """The key of the last row within a bound."""
        shown = ", ".join(key.shown for key in order.keys)
        order_by = f"ORDER BY {order.backwards} LIMIT 1"
        row = self.rows(connection, f"SELECT {shown} FROM {self._table}{_where(bound)} {order_by}").first()
        return None if row is None else list(row)

    def check_order(self, connection: sa.Connection, order: _Order) -> None:
        """Raise ``DataError`` if a row has no place in the order: it would be passed over."""
        empty = " OR ".join(f"{key.expression} IS NULL" for key in order.keys if key.nullable)
        if empty and self.rows(connection, f"SELECT 1 FROM {self._table}{_where(empty)} LIMIT 1").first() is not None:
            raise DataError(
                f"{self.address.name}: a row has no value in a column of its order {', '.join(self.address.order)}: "
                "every row needs its place; fill it, or order by another column"
            )

    def arrays(self, layout: _Layout, rows: Sequence[Any], skip: int, types: Mapping[str, Any]) -> Any:
        """Rows, without the first ``skip`` values of each, as a record batch."""
        values = list(zip(*rows, strict=True))[skip:] if rows else [()] * len(types)
        columns = [
            self._array(column, dtype, layout.columns[name])
            for column, (name, dtype) in zip(values, types.items(), strict=True)
        ]
        return pa.record_batch(columns, schema=pa.schema(list(types.items())))

    def _array(self, values: Sequence[Any], dtype: Any, column: _Column) -> Any:
        def made(some: Sequence[Any]) -> Any:
            try:
                return self.dialect.array(some, dtype)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                return error

        if not isinstance(out := made(values), Exception):
            return out
        wrong = next((value for value in values if isinstance(made([value]), Exception)), None)
        said = column.said or "no type"
        raise DataError(
            f"column {column.name!r} of {self.address.name} holds {wrong!r}, and the column ({said}) is read as "
            f"{dtype}: a column keeps its type; correct the value, or list the column under `drop`"
        ) from out


def _page_rows(batch: Any) -> int:
    """How many rows to read at a time, by the size of some that were read."""
    rows: int = BLOCK_BYTES * batch.num_rows // max(batch.nbytes, 1)
    return max(16, min(BLOCK_ROWS, rows))


def _keys(rows: Sequence[Any], width: int, address: Address) -> list[tuple[Any, ...]]:
    """The places of rows in the order, as JSON can keep them."""
    keys = [tuple(row[:width]) for row in rows]
    if any(isinstance(part, bytes) for key in keys for part in key):
        raise ConfigError(address.field, ", ".join(address.order), "`order` names a column of bytes: name another")
    return keys


def _check_unique(keys: Sequence[tuple[Any, ...]], address: Address) -> None:
    """Raise ``DataError`` where two rows have one place: which came first is then chance."""
    for before, key in pairwise(keys):
        if before == key:
            shown = key[-max(len(address.order), 1) :]
            raise DataError(
                f"{address.name}: two rows have the same place {shown!r} in the order {', '.join(address.order)}: give "
                "the table a primary key, or name more columns in `order`"
            )


# ---------------------------------------------------------------------- reading once


@final
class Table:
    """A table of a database as a source, read once.

    Parameters
    ----------
    source : str
        ``sqlite:///shop.db?table=calls`` or ``postgresql://user@host/database?table=calls``; see :class:`Address`.
    field : str
        The setting, for errors.

    Raises
    ------
    ConfigError
        If the URL is wrong.
    MissingExtra
        If it is PostgreSQL and psycopg is not installed.
    """

    def __init__(self, source: str, field: str = "source") -> None:
        self._source, self._reader = source, _Reader(source, field)
        self.rows: int | None = None
        self.names: list[str] = []

    def types(self, ignore: Sequence[str], words: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Canonical Arrow type of each column but the ignored.

        Raises
        ------
        ConfigError
            If there is no such table, or nothing says in which order its rows arrived.
        DataError
            If a column is of a type that has no meaning here.
        """
        with self._reader.dialect.reading() as connection:
            layout = self._reader.dialect.layout(connection)
            order = self._reader.dialect.order(connection, layout, follow=False)
        self.names = list(layout.columns)
        unread = {*ignore, *(self._reader.address.order[:1] if order.rule == "transaction" else ())}
        out = {name: column.dtype for name, column in layout.columns.items() if name not in unread}
        for name, dtype in out.items():
            if dtype is None:
                said = layout.columns[name].said or "values without a type"
                raise DataError(
                    f"column {name!r} of {self._reader.address.name} holds {said}, which no learner reads: list it "
                    "under `drop`, or make a view that turns it into numbers, text or times"
                )
        return out

    def blocks(self, types: dict[str, Any]) -> Iterator[Block]:
        """The columns of ``types``, in order."""
        if isinstance(self._reader.dialect, _Postgres):
            yield from self._streamed(types)
            return
        once = TableFeed(self._source, self._reader.address.field, follow=False)
        for run in once.read(Position(), types):  # in pages: one long read would stop those who write
            yield Block(run.rows, run.file, run.start)

    def _streamed(self, types: dict[str, Any]) -> Iterator[Block]:
        """All rows that one instant sees, through a cursor of the server."""
        reader = self._reader
        with reader.dialect.reading() as connection:
            layout = reader.dialect.layout(connection)
            order = reader.dialect.order(connection, layout, follow=False)
            reader.check_order(connection, order)
            streaming = connection.execution_options(stream_results=True, max_row_buffer=FIRST_ROWS)
            result = reader.rows(streaming, reader.statement(layout, order, types, limit=None))
            width, size, before, done = len(order.keys), FIRST_ROWS, list[tuple[Any, ...]](), 0
            while rows := result.fetchmany(size):
                keys = _keys(rows, width, reader.address)
                _check_unique(before + keys, reader.address)
                batch = reader.arrays(layout, rows, width, types)
                size, before = _page_rows(batch), keys[-1:]
                yield Block(batch, reader.address.name, done)
                done += len(rows)


# ---------------------------------------------------------------------- following


@final
class TableFeed:
    """Rows of a table that grows, behind a position.

    Each block is read in a transaction of its own: nothing is held on the database while models train.

    Parameters
    ----------
    source, field : str
        As for :class:`Table`.
    follow : bool
        Whether others may write meanwhile; if not, any order will do.

    Raises
    ------
    ConfigError
        If the URL is wrong.
    MissingExtra
        If it is PostgreSQL and psycopg is not installed.
    """

    def __init__(self, source: str, field: str = "source", *, follow: bool = True) -> None:
        self._source, self._reader, self._follow = source, _Reader(source, field), follow
        self._layout: _Layout | None = None  # as of the last reading: to look at it anew may cost a scan

    def open(self) -> Table:
        """The table, to learn its columns; raises as :meth:`read` does if it cannot be followed."""
        with self._reader.dialect.reading() as connection:
            self._reader.dialect.order(connection, self._reader.dialect.layout(connection), follow=True)
        return Table(self._source, self._reader.address.field)

    def is_new(self, seen: dict[str, Any]) -> bool:
        """Whether the last row that may be read is another than at the call before, which ``seen`` remembers."""
        dialect = self._reader.dialect
        with dialect.reading() as connection:
            self._layout = self._layout or dialect.layout(connection)
            order = dialect.order(connection, self._layout, follow=True)
            bound = order.bound.format(dialect.horizon(connection, order))
            now = {"newest": self._reader.newest(connection, order, bound)}
        changed = now != seen
        seen.clear()
        seen.update(now)
        return changed

    def read(self, position: Position, types: Mapping[str, Any], *, grows: bool = True) -> Iterator[Run]:  # noqa: ARG002
        """The rows behind ``position``, a block at a time, up to where nothing can turn up before.

        Raises
        ------
        OffsetGone
            If the last row that was read is gone or changed; if rows turned up before it; and, where updates cannot
            be told from new rows, if one that was read was updated or deleted.
        SourceAway
            If the database does not answer.
        DataError
            If a column is gone or changed its type, or two rows have the same place in the order.
        ConfigError
            If nothing says in which order rows arrive.
        """
        reader, dialect, name = self._reader, self._reader.dialect, self._reader.address.name
        if position.file and not (position.file == name and position.key):
            raise OffsetGone(
                f"what was read is {position.file}, and the source is {name} now: go back to it, or start a deployment "
                "of a new name"
            )
        key, last, done, horizon = position.key, position.last, position.rows, ""
        size, first = FIRST_ROWS, True
        while True:
            with dialect.reading() as connection:
                if first or self._layout is None:
                    self._layout = dialect.layout(connection)
                layout = self._layout
                order = dialect.order(connection, layout, follow=self._follow)
                if first:
                    self._check_types(layout, types)
                    reader.check_order(connection, order)
                    horizon = dialect.horizon(connection, order) if self._follow else ""
                conditions = [order.bound.format(horizon) if horizon else "", order.beside(">=") if key else ""]
                statement = reader.statement(layout, order, types, *conditions, limit=size + 1)
                rows = reader.rows(connection, statement, key).all()
                keys = _keys(rows, len(order.keys), reader.address)
                batch = reader.arrays(layout, rows, len(order.keys), types)
                if key:
                    self._check_last(key, last, keys, batch)
                    if first and order.rule != "transaction":  # there, nothing can turn up before
                        done = self._counted(reader.count(connection, order, key), done, order)
            _check_unique(keys, reader.address)
            new = 1 if key else 0
            if len(keys) > new:
                run = Run(rows=batch.slice(new), file=name, start=done, keys=keys[new:])
                yield run
                done += len(run.keys)
                key, last = keys[-1], row_digest(batch.slice(len(keys) - 1, 1))
            if len(keys) <= size:
                return
            size, first = _page_rows(batch), False

    def _check_types(self, layout: _Layout, types: Mapping[str, Any]) -> None:
        for name, dtype in types.items():
            column = layout.columns.get(name)
            if column is None:
                raise DataError(
                    f"column {name!r} is no longer in {self._reader.address.name}: a stream keeps its columns; put it "
                    "back"
                )
            if column.sure and column.dtype != dtype:
                raise DataError(
                    f"column {name!r} of {self._reader.address.name} was {dtype} and is {column.dtype} now "
                    f"({column.said}): a column keeps its type; convert it back"
                )

    def _check_last(self, key: tuple[Any, ...], last: str, keys: Sequence[tuple[Any, ...]], batch: Any) -> None:
        name = self._reader.address.name
        if not keys or keys[0] != key:
            raise OffsetGone(
                f"the last row that was read of {name}, {key!r} in its order, is no longer there: it was deleted, "
                "moved or updated, or the table was restored; put it back, or start a deployment of a new name from "
                "here"
            )
        if row_digest(batch.slice(0, 1)) != last:
            raise OffsetGone(
                f"the last row that was read of {name}, {key!r} in its order, is not what it was: it was updated; put "
                "it back, or start a deployment of a new name from here"
            )

    def _counted(self, now: int, done: int, order: _Order) -> int:
        """How many rows there are up to the position; raises ``OffsetGone`` where that shows a broken promise."""
        name = self._reader.address.name
        if now > done:
            why = {
                "rowid": "somebody inserted them with numbers of their own",
                "delay": "a transaction took longer than `delay`",
            }.get(order.rule, "their place in `order` is before rows that were read")
            raise OffsetGone(
                f"{now - done:,} rows of {name} turned up before the last row that was read, and would be passed over: "
                f"{why}; give rows a place in the order in which they arrive"
            )
        if now < done and order.rule == "xmin":
            raise OffsetGone(
                f"{done - now:,} rows of {name} that were read were updated or deleted, and PostgreSQL does not "
                "tell an updated row from a new one: add a column  arrived xid8 DEFAULT pg_current_xact_id()  and "
                "&order=arrived, and start a deployment of a new name from here"
            )
        return now


# ---------------------------------------------------------------------- SQLite

#: part of a declared type, in upper case, and what it means; the first that fits
_SQLITE_TYPES = (
    ("BOOL", pa.bool_()),
    ("INTERVAL", None),
    ("INT", pa.int64()),
    ("DATETIME", pa.timestamp("us")),
    ("TIMESTAMP", pa.timestamp("us")),
    ("DATE", pa.date32()),
    ("CHAR", pa.string()),
    ("CLOB", pa.string()),
    ("TEXT", pa.string()),
    ("REAL", pa.float64()),
    ("FLOA", pa.float64()),
    ("DOUB", pa.float64()),
    ("NUM", pa.float64()),
    ("DEC", pa.float64()),
)
_OFFSET = re.compile(r"(Z|[+-]\d\d(:?\d\d)?)$")


@final
class _Sqlite:
    """SQLite: one writer at a time, types that a value need not keep, and times as text."""

    def __init__(self, address: Address) -> None:
        import sqlalchemy as sa
        from sqlalchemy import event

        self._address = address
        path = _file(address.url)
        assert path is not None
        self._path = Path(path)
        url = sa.URL.create("sqlite", database=path)
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": PATIENCE})
        event.listen(self._engine, "connect", _read_only)
        event.listen(self._engine, "begin", _begin)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        if not self._path.is_file():  # a connection would make it
            raise ConfigError(self._address.field, str(self._path), f"no such file (looked in {Path.cwd()})")
        with _explained(str(self._path)), self._engine.connect() as connection, connection.begin():
            yield connection

    def layout(self, connection: sa.Connection) -> _Layout:
        import sqlalchemy as sa

        tables = "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' "
        kinds = {str(name): str(kind) for name, kind in connection.execute(sa.text(tables + "ESCAPE '\\'"))}
        name = next((name for name in kinds if name.lower() == self._address.table.lower()), None)
        if name is None:
            need = nearest(self._address.table, kinds) if kinds else "it has none at all"
            raise ConfigError(self._address.field, self._address.table, f"{self._path} has no such table: {need}")
        found = connection.execute(sa.text(f"PRAGMA table_xinfo({_quoted(name)})")).all()
        columns = {str(row[1]): self._column(connection, name, row) for row in found if row[6] != 1}
        primary = tuple(str(row[1]) for row in sorted((row for row in found if row[5]), key=lambda row: row[5]))
        own = "" if kinds[name] == "view" else self._rowid(connection, name, columns)
        integer = own and len(primary) == 1 and columns[primary[0]].said.upper() == "INTEGER"
        return _Layout(columns=columns, primary=primary, own=own, alias=primary[0] if integer else "")

    def _rowid(self, connection: sa.Connection, table: str, columns: Mapping[str, _Column]) -> str:
        """A name of the rowid that no column has; empty if the table has none."""
        import sqlalchemy as sa

        made = connection.execute(sa.text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table})
        if re.search(r"\)[^)]*\bWITHOUT\s+ROWID\b[^)]*$", str(made.scalar_one()), re.IGNORECASE):
            return ""
        taken = {name.lower() for name in columns}
        return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), "")

    def _column(self, connection: sa.Connection, table: str, row: Any) -> _Column:
        name, said = str(row[1]), str(row[2])
        dtype = next((dtype for part, dtype in _SQLITE_TYPES if part in said.upper()), None)
        sure = bool(said)
        if not said:
            dtype = self._held(connection, table, name)
        elif dtype is not None and pa.types.is_timestamp(dtype):
            dtype, sure = self._zoned(connection, table, name), False
        return _Column(name=name, said=said, dtype=dtype, sure=sure, nullable=not row[3])

    def _held(self, connection: sa.Connection, table: str, name: str) -> Any:
        """What the first rows hold, where the table does not say: expressions of a view."""
        import sqlalchemy as sa

        column, rows = _quoted(name), f"SELECT {_quoted(name)} FROM {_quoted(table)} LIMIT {FIRST_ROWS}"
        found = connection.execute(sa.text(f"SELECT DISTINCT typeof({column}) FROM ({rows})"))
        held = {kind for (kind,) in found} - {"null"}
        if held == {"integer"}:
            return pa.int64()
        if held <= {"integer", "real"}:
            return pa.float64()
        return pa.string() if held == {"text"} else None

    def _zoned(self, connection: sa.Connection, table: str, name: str) -> Any:
        """Times with an offset, or without: as the first one is."""
        import sqlalchemy as sa

        column = _quoted(name)
        statement = f"SELECT {column} FROM {_quoted(table)} WHERE {column} IS NOT NULL LIMIT 1"
        value = connection.execute(sa.text(statement)).scalar()
        zoned = isinstance(value, str) and _OFFSET.search(value[10:].strip())
        return pa.timestamp("us", tz="UTC") if zoned else pa.timestamp("us")

    def order(self, connection: sa.Connection, layout: _Layout, *, follow: bool) -> _Order:  # noqa: ARG002
        rowid = _Key(expression=f"r.{layout.own}", shown=f"r.{layout.own}")
        if not self._address.order or self._address.order == (layout.alias,):
            if not layout.own:
                raise _needs_order(self._address, "has no rowid")
            return _Order(keys=(rowid,), rule="rowid")
        named = _order_columns(self._address, layout)
        if layout.own:
            named = named[: len(self._address.order)]
        keys = [_Key(expression=_column(c.name), shown=_column(c.name), nullable=c.nullable) for c in named]
        if layout.own and layout.alias not in self._address.order:
            keys.append(rowid)
        return _Order(keys=tuple(keys), rule="columns")

    def horizon(self, connection: sa.Connection, order: _Order) -> str:  # noqa: ARG002
        return ""

    def selected(self, column: _Column, dtype: Any) -> str:  # noqa: ARG002
        return _column(column.name)

    def array(self, values: Sequence[Any], dtype: Any) -> Any:
        if pa.types.is_timestamp(dtype) or pa.types.is_date(dtype):
            return pa.array(values, pa.string()).cast(dtype)
        if pa.types.is_boolean(dtype):
            if not {*values} <= {0, 1, None}:
                raise ValueError("a boolean is 0 or 1")
            return pa.array([None if value is None else bool(value) for value in values], dtype)
        if pa.types.is_string(dtype) and any(isinstance(value, bytes) for value in values):
            raise ValueError("bytes are no text")
        if pa.types.is_integer(dtype) and any(isinstance(value, float) for value in values):  # Arrow cuts them off
            raise ValueError("a fraction is no whole number")
        return pa.array(values, dtype)


def _read_only(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: `_begin` does
    connection.execute("PRAGMA query_only = ON").close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


# ---------------------------------------------------------------------- PostgreSQL

_SESSION = (
    "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), "
    "set_config('extra_float_digits', '1', true)"
)
_RELATION = """
    SELECT c.oid, c.relkind, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = :table AND
"""
_RELATIONS = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND
"""
_COLUMNS = """
    SELECT a.attname, b.typname, b.typcategory, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        CASE WHEN a.atttypmod < 0 THEN t.typtypmod ELSE a.atttypmod END
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_PRIMARY = """
    SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = :oid AND i.indisprimary ORDER BY k.place
"""
_POSTGRES_TYPES = {
    "bool": pa.bool_(),
    "int2": pa.int64(),
    "int4": pa.int64(),
    "int8": pa.int64(),
    "float4": pa.float64(),
    "float8": pa.float64(),
    "uuid": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}
_UNSORTABLE = {"bool", "float4", "float8"}
#: the transaction that wrote a row, of 64 bits: xmin has the lower 32 of them, and lies before the next one, ``{0}``
_WRITER = (
    "CASE WHEN CAST(CAST(r.xmin AS text) AS bigint) < 3 THEN 0 "
    "ELSE {0} - (({0} - CAST(CAST(r.xmin AS text) AS bigint)) & 4294967295) END"
)


@final
class _Postgres:
    """PostgreSQL through psycopg 3."""

    def __init__(self, address: Address) -> None:
        import sqlalchemy as sa

        self._address = address
        arguments = {"connect_timeout": int(PATIENCE), "application_name": "perennial"}
        try:
            url = sa.make_url(address.url)
            engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
        except ModuleNotFoundError as error:
            raise MissingExtra("postgres", "a table in PostgreSQL") from error
        except (sa.exc.ArgumentError, ValueError) as error:
            raise ConfigError(address.field, address.url, f"this is no URL: {_RULE}") from error
        self._where = url.set(query={}).render_as_string(hide_password=True)
        self._engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        import sqlalchemy as sa

        with _explained(self._where), self._engine.connect() as connection, connection.begin():
            connection.execute(sa.text(_SESSION))
            yield connection

    def layout(self, connection: sa.Connection) -> _Layout:
        import sqlalchemy as sa

        address = self._address
        visible = "n.nspname = :schema" if address.schema else "pg_table_is_visible(c.oid)"
        names = {"table": address.table} | ({"schema": address.schema} if address.schema else {})
        found = connection.execute(sa.text(_RELATION + visible), names).first()
        if found is None:
            del names["table"]
            others = [name for (name,) in connection.execute(sa.text(_RELATIONS + visible), names)]
            place = f"schema {address.schema!r}" if address.schema else "the schemas that are searched"
            need = nearest(address.table, others) if others else "there are none: is `schema` right?"
            raise ConfigError(address.field, address.table, f"no such table in {place}: {need}")
        oid, kind, _ = found
        columns = {}
        for name, base, category, said, not_null, modifier in connection.execute(sa.text(_COLUMNS), {"oid": oid}):
            dtype = pa.string() if category in ("S", "E") else _POSTGRES_TYPES.get(base)
            if base == "numeric":  # precision and scale are in the modifier; without one there is no limit
                whole = modifier >= 4 and (modifier - 4) & 0x7FF == 0 and (modifier - 4) >> 16 <= 18
                dtype = pa.int64() if whole else pa.float64()
            sortable = (dtype is not None or base == "xid8") and base not in _UNSORTABLE
            columns[str(name)] = _Column(
                name=str(name), said=str(said), dtype=dtype, sortable=sortable, nullable=not not_null
            )
        primary = tuple(str(name) for (name,) in connection.execute(sa.text(_PRIMARY), {"oid": oid}))
        return _Layout(columns=columns, primary=primary, own="xmin" if kind in ("r", "p") else "")

    def order(self, connection: sa.Connection, layout: _Layout, *, follow: bool) -> _Order:
        address = self._address
        named = _order_columns(address, layout)
        if not named:
            raise _needs_order(address, "has no primary key")
        keys = tuple(self._key(column) for column in named)
        head = named[0]
        if address.order and head.said == "xid8":
            bound = f"{_braced(keys[0].expression)} < CAST('{{}}' AS xid8)"
            return _Order(keys=keys, rule="transaction", bound=bound)
        if address.delay is not None:
            if head.dtype is None or not pa.types.is_timestamp(head.dtype):
                need = f"with `delay`, `order` begins with timestamps, and the column holds {head.said}: name one first"
                raise ConfigError(address.field, head.name, need)
            kind = "timestamptz" if head.dtype.tz else "timestamp"
            bound = f"{_braced(keys[0].expression)} <= CAST('{{}}' AS {kind})"
            return _Order(keys=keys, rule="delay", bound=bound)
        if layout.own:
            _, following = self._transactions(connection)
            writer = _WRITER.format(following)
            key = _Key(expression=f"({writer})", shown=f"CAST({writer} AS text)", value="CAST({} AS bigint)")
            return _Order(keys=(key, *keys), rule="xmin", bound=f"({writer}) < {{}}")
        if follow:
            need = (
                "a view does not tell when rows were committed: follow a table; or give a column of type xid8 in "
                "`order`, or `delay`"
            )
            raise ConfigError(address.field, address.table, need)
        return _Order(keys=keys, rule="columns")

    def _key(self, column: _Column) -> _Key:
        """A part of the key is kept as PostgreSQL writes it, so that any type comes back as it was."""
        name = _column(column.name)
        return _Key(
            expression=name,
            shown=f"CAST({name} AS text)",
            value=f"CAST({{}} AS {_braced(column.said.replace(':', chr(92) + ':'))})",
            nullable=column.nullable,
        )

    def horizon(self, connection: sa.Connection, order: _Order) -> str:
        import sqlalchemy as sa

        if order.rule == "delay":
            assert self._address.delay is not None
            zoned = order.bound.endswith("timestamptz)")
            now = "now()" if zoned else "CAST(now() AT TIME ZONE 'UTC' AS timestamp)"
            statement = sa.text(f"SELECT CAST({now} - CAST(:delay AS interval) AS text)")
            return str(connection.execute(statement, {"delay": self._address.delay}).scalar_one())
        oldest, following = self._transactions(connection)
        if order.rule == "transaction":
            self._check_server(connection, order, following)
        return str(oldest)

    def _check_server(self, connection: sa.Connection, order: _Order, following: int) -> None:
        """Raise ``DataError`` if a row was written by a transaction that is still to come: it would wait for ever."""
        import sqlalchemy as sa

        address, column = self._address, order.keys[0].expression
        table = (f"{_quoted(address.schema)}." if address.schema else "") + _quoted(address.table)
        statement = f"SELECT 1 FROM {table} AS r WHERE {column} >= CAST('{following}' AS xid8) LIMIT 1"
        if connection.execute(sa.text(statement)).first() is not None:
            raise DataError(
                f"column {address.order[0]!r} of {address.name} holds transactions that this server has not begun "
                f"(the next is {following}): rows were restored or copied from another server; set the column anew"
            )

    def _transactions(self, connection: sa.Connection) -> tuple[int, int]:
        """The oldest transaction that is not over, and the next to begin."""
        import sqlalchemy as sa

        now = "pg_current_snapshot()"
        ends = ", ".join(f"CAST(CAST(pg_snapshot_{end}({now}) AS text) AS bigint)" for end in ("xmin", "xmax"))
        oldest, following = connection.execute(sa.text(f"SELECT {ends}")).one()
        return int(oldest), int(following)

    def selected(self, column: _Column, dtype: Any) -> str:
        name = _column(column.name)
        if pa.types.is_int64(dtype):
            return f"CAST({name} AS bigint)"
        if pa.types.is_float64(dtype):
            return f"CAST({name} AS double precision)"
        return f"CAST({name} AS text)" if pa.types.is_string(dtype) else name

    def array(self, values: Sequence[Any], dtype: Any) -> Any:
        return pa.array(values, dtype)


def _braced(text: str) -> str:
    """Text within a format."""
    return text.replace("{", "{{").replace("}", "}}")


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """A driver's errors in our words."""
    import sqlalchemy as sa

    try:
        yield
    except sa.exc.DBAPIError as error:
        told = f"{where}: {str(error.orig).strip().partition(chr(10))[0]}"
        if error.connection_invalidated or _passes(error.orig):
            raise SourceAway(f"{told}: try again once the database answers") from error
        if isinstance(error, sa.exc.DataError):
            raise DataError(f"{told}: correct the value, or list the column under `drop`") from error
        raise DataError(f"{told}: check the URL, and that its user may read the table") from error


def _passes(error: object) -> bool:
    """Whether the same call may work later."""
    if isinstance(error, sqlite3.Error):
        return str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    import psycopg

    state = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return str(state).startswith(("08", "40", "53", "55P03", "57P"))
