"""An ingest log: rows that a service took in, durable before it answers, until a run has taken them.

Many processes append, one run follows. An append is one entry of a table, whole or not at all: a record batch without
its schema, which the log holds once. Entries and rows are counted in the log's own line, which an append locks until it
is committed. So the order of entries is the order of commits, no number is missing, and one that is missing was lost:
a reader needs no horizon behind which others may still commit, and tells a gap. The price is that appends to one log
are committed one after the other; whoever has many rows hands over several at once.

The log is ours, unlike a table of :mod:`perennial.stream.sql`: what a run took is durable in its ledger, and goes.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite

from perennial.core.errors import ConfigError, DataError, FormatError, MissingExtra, nearest
from perennial.core.times import micros
from perennial.stream.encoding import content_of
from perennial.stream.feed import OffsetGone, Position, Run, SourceAway, row_digest
from perennial.stream.sources import BLOCK_BYTES, BLOCK_ROWS, Block, canonical_type
from perennial.stream.sql import PATIENCE, Address

FORMAT = 1  #: of the tables
KEYS_KEPT = 100_000  #: how many entries back the key of an append is known, trimmed or not
PAGE_BYTES = 1 << 14  #: of a SQLite file: an entry of megabytes takes half the time that it takes in pages of 4 KiB
PAGE_ENTRIES = 1 << 12  #: how many entries are read at a time, if their rows and bytes allow

_RULE = "write sqlite:///.perennial/ingest.db?log=calls or postgresql://user@host/database?log=calls"
_SQLITE = ("PRAGMA synchronous = FULL", "PRAGMA secure_delete = ON")
_POSTGRES = (
    f"SET lock_timeout = '{PATIENCE:g}s'",
    f"SET idle_in_transaction_session_timeout = '{PATIENCE:g}s'",  # whoever hangs lets go of the log's line
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)
_NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)",
}


@final
class KeyTaken(DataError):
    """The key of an append was used before, for other rows; ``index`` is its place among those handed over."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[type[KeyTaken], tuple[str, int]]:
        return type(self), (str(self), self.index)


# ---------------------------------------------------------------------- the tables


class _Tables(NamedTuple):
    logs: sa.Table
    entries: sa.Table
    keys: sa.Table


@cache
def _tables(schema: str) -> _Tables:
    metadata = sa.MetaData(schema=schema or None)
    number = sa.BigInteger
    logs = sa.Table(
        "perennial_logs", metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("identity", sa.Text, nullable=False),  # another where the log was made anew
        sa.Column("format", sa.Integer, nullable=False),
        sa.Column("schema", sa.LargeBinary, nullable=False),
        sa.Column("entries", number, nullable=False),  # as many were ever appended
        sa.Column("rows", number, nullable=False),
        sa.Column("trimmed", number, nullable=False),  # as many of them are gone, from the first on
        sa.Column("trimmed_rows", number, nullable=False),
    )  # fmt: skip
    entries = sa.Table(
        "perennial_entries", metadata,
        sa.Column("log", sa.Text, primary_key=True),  # its identity
        sa.Column("entry", number, primary_key=True, autoincrement=False),
        sa.Column("first", number, nullable=False),  # rows before it
        sa.Column("rows", number, nullable=False),  # with those that were erased
        sa.Column("size", number, nullable=False),
        sa.Column("appended", number, nullable=False),
        sa.Column("left", sa.LargeBinary),  # which rows are left, as int64; null for all
        sa.Column("content", sa.LargeBinary, nullable=False),
    )  # fmt: skip
    keys = sa.Table(
        "perennial_keys", metadata,
        sa.Column("log", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("entry", number, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
    )  # fmt: skip
    return _Tables(logs, entries, keys)


class _Head(NamedTuple):
    """The line of a log."""

    identity: str
    format: int
    schema: bytes
    entries: int
    rows: int
    trimmed: int
    trimmed_rows: int


class _Entry(NamedTuple):
    """An entry: which of its rows are left, and these."""

    entry: int
    first: int
    rows: int
    left: NDArray[np.int64]
    batch: Any


@final
class _Database:
    """The database of a log, and what is read of it in one transaction."""

    def __init__(self, address: Address, *, pooled: bool) -> None:
        if not address.log:
            raise ConfigError(address.field, address.table, f"a table is no ingest log: {_RULE}")
        self.address, self.name = address, address.table
        self.tables = _tables(address.schema)
        self._known = False
        self._made: tuple[int, int] | None = None  # which SQLite file was opened
        logs, entries, _ = self.tables
        self._line = sa.select(*(logs.c[name] for name in _Head._fields)).where(logs.c.name == self.name)
        now = _now("sqlite" if address.file is not None else "postgresql")
        self.put = entries.insert().values(appended=now)  #: takes the other columns of entries
        self.move = sa.update(logs).where(logs.c.name == self.name)  #: takes columns of the log's line
        kept: dict[str, Any] = {} if pooled else {"poolclass": sa.NullPool}
        if address.file is not None:
            self.where = address.file
            arguments: dict[str, Any] = {"timeout": PATIENCE, "check_same_thread": False}
            url = sa.URL.create("sqlite", database=address.file)
            self._engine = sa.create_engine(url, connect_args=arguments, **kept)
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
            self._reader, self._writer = self._engine, self._engine.execution_options(perennial_writes=True)
            return
        arguments = {"connect_timeout": int(PATIENCE), "application_name": "perennial"}
        try:
            url = sa.make_url(address.url)
            self._engine = sa.create_engine(url, connect_args=arguments, pool_pre_ping=pooled, **kept)
        except ModuleNotFoundError as error:
            raise MissingExtra("postgres", "an ingest log in PostgreSQL") from error
        except (sa.exc.ArgumentError, ValueError) as error:
            raise ConfigError(address.field, address.url, f"this is no URL: {_RULE}") from error
        self.where = url.set(query={}).render_as_string(hide_password=True)
        event.listen(self._engine, "connect", _prepare_postgres)
        self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writer = self._engine.execution_options(isolation_level="READ COMMITTED")

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one instant and changes nothing."""
        if self.address.file is not None and not Path(self.address.file).is_file():  # a connection would make it
            raise ConfigError(self.address.field, self.address.file, f"no such file (looked in {Path.cwd()})")
        with _explained(self.where), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is durable when the block ends, or does not happen when it raises."""
        self._is_there()  # a connection would make the file anew
        with _explained(self.where, writes=True), self._writer.connect() as connection, connection.begin():
            yield connection
            self._is_there()

    def _is_there(self) -> None:
        """Raise ``OffsetGone`` if the SQLite file is gone or another one: a connection would go on in the old one."""
        if self._made is not None and _file_at(self.where) != self._made:
            self._engine.dispose()
            raise OffsetGone(
                f"{self.where} was deleted or replaced since log {self.name!r} was opened, nothing was written: put "
                "it back, or open the log again"
            )

    def make(self) -> None:
        """Make the file and the tables, if they are not there."""
        if self.address.file is not None:
            try:
                _make_folder(Path(self.address.file).absolute().parent)
            except OSError as error:
                raise DataError(f"{error.filename}: {error.strerror}: check who may write there") from error
            self._write_ahead()
            self._made = _file_at(self.where)
        with self.writing() as connection:
            if sa.inspect(connection).has_table(self.tables.keys.name, schema=self.tables.keys.schema):
                return
            if connection.dialect.name == "postgresql":  # of two that make a table at once, one fails
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7012263)"))
            self.tables.logs.metadata.create_all(connection)

    def _write_ahead(self) -> None:
        """Switch a SQLite file to its write-ahead log, so that readers and writers do not wait for each other."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with _explained(self.where, writes=True):
                    self._outside(f"PRAGMA page_size = {PAGE_BYTES}", gives=False)  # of a file that is new
                    self._outside("PRAGMA journal_mode = WAL")
                return
            except SourceAway:  # SQLite does not wait by itself here when two processes begin at once
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _outside(self, statement: str, *, gives: bool = True) -> tuple[Any, ...]:
        """What a statement gives, if it does, that may not run in a transaction."""
        with self._engine.connect() as connection:
            raw = connection.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            try:
                row: tuple[Any, ...] = (
                    raw.execute(statement).fetchone() if gives else raw.execute(statement).close() or ()
                )
            except sqlite3.Error as error:
                raise sa.exc.OperationalError(statement, None, error) from error
            return row

    def scrub(self) -> bool:
        """Let nothing be left of deleted bytes in SQLite's files; whether that went through, with others at work."""
        if self.address.file is None:
            return True
        with _explained(self.where, writes=True):
            return not self._outside("PRAGMA wal_checkpoint(TRUNCATE)")[0]

    def head(self, connection: sa.Connection, *, lock: bool = False) -> _Head | None:
        """The line of the log; None if there is none. ``lock``: nobody else appends until the transaction ends."""
        logs = self.tables.logs
        if not self._known:
            if not sa.inspect(connection).has_table(logs.name, schema=logs.schema):
                return None
            self._known = True
        row = connection.execute(self._line.with_for_update() if lock else self._line).first()
        if row is None:
            return None
        head = _Head(*row)
        if head.format > FORMAT:
            raise FormatError(
                f"log {self.name!r} in {self.where} has format {head.format}; this release reads 1..{FORMAT}: upgrade "
                "perennial"
            )
        return head

    def there(self, connection: sa.Connection) -> _Head:
        """The line of the log; raises ``ConfigError`` if there is none."""
        if (head := self.head(connection)) is not None:
            return head
        names: list[str] = []
        if self._known:
            names = [str(name) for (name,) in connection.execute(sa.select(self.tables.logs.c.name))]
        need = f"{self.where} has no such log: {nearest(self.name, names) if names else 'it has none at all'}"
        raise ConfigError(
            self.address.field, self.name, f"{need}; whoever appends makes it, IngestLog.open(url, schema)"
        )

    def page(self, connection: sa.Connection, head: _Head, start: int, stop: int) -> list[_Entry]:
        """Entries from ``start`` on and before ``stop``, as many as fit into memory, at least one if there is one."""
        entries = self.tables.entries
        within = (entries.c.log == head.identity, entries.c.entry >= start, entries.c.entry < stop)
        ordered = sa.select(entries.c.entry, entries.c.rows, entries.c.size).where(*within).order_by(entries.c.entry)
        rows = size = 0
        upto = start - 1
        for number, n, bytes_ in connection.execute(ordered.limit(PAGE_ENTRIES)).all():
            rows, size = rows + n, size + bytes_
            if upto >= start and (rows > BLOCK_ROWS or size > BLOCK_BYTES):
                break
            upto = number
        names = [entries.c[name] for name in ("entry", "first", "rows", "left", "content")]
        query = sa.select(*names).where(*within, entries.c.entry <= upto).order_by(entries.c.entry)
        schema = pa.ipc.read_schema(pa.py_buffer(head.schema))
        return [self._decoded(schema, *row) for row in connection.execute(query)]

    def _decoded(self, schema: Any, entry: int, first: int, rows: int, left: bytes | None, content: bytes) -> _Entry:
        there = np.arange(rows) if left is None else np.frombuffer(left, dtype=np.int64)
        try:
            batch = pa.ipc.read_record_batch(pa.py_buffer(content), schema)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"entry {entry} of log {self.name!r} in {self.where} is damaged: restore the database from a backup"
            ) from error
        return _Entry(entry, first, rows, there, batch)

    def close(self) -> None:
        self._engine.dispose()


def _file_at(path: str) -> tuple[int, int] | None:
    """Which file is at a path; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: `_begin_sqlite` does
    for pragma in _SQLITE:
        connection.execute(pragma).close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("perennial_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgres(connection: Any, _record: Any) -> None:
    for statement in _POSTGRES:
        connection.execute(statement)
    connection.commit()


def _now(dialect: str) -> Any:
    """Microseconds since 1970 by the database's clock."""
    return sa.literal_column(_NOW[dialect])


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each synced into its parent: else it may be gone with the power."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        handle = os.open(made.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _explained(where: str, *, writes: bool = False) -> Iterator[None]:
    """A driver's errors in our words."""
    try:
        yield
    except sa.exc.TimeoutError as error:  # every connection of the pool is taken
        raise SourceAway(f"{where}: {error}") from error
    except sa.exc.DBAPIError as error:
        told = f"{where}: {str(error.orig).strip().partition(chr(10))[0]}"
        name = str(getattr(error.orig, "sqlite_errorname", "") or "")
        state = str(getattr(error.orig, "sqlstate", "") or "")
        if name.startswith("SQLITE_FULL") or state == "53100":
            raise SourceAway(f"{told}: nothing was written; make room, and append again") from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise SourceAway(f"{told} for {PATIENCE:g} s: another process is writing; try again") from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            raise DataError(f"{told}: check who may write the file and its folder") from error
        if error.connection_invalidated or name.startswith("SQLITE_IOERR"):
            unknown = ": it is not known whether this was written; do it again, with the same key" if writes else ""
            raise SourceAway(f"{told}{unknown or ': try again once the database answers'}") from error
        if (not name and state.startswith(("08", "40", "53", "55P03", "57P"))) or not (name or state):
            raise SourceAway(f"{told}: try again once the database answers") from error
        raise DataError(f"{told}: check the URL, and what its user may do") from error


# ---------------------------------------------------------------------- appending


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Append:
    """Rows for a log.

    Parameters
    ----------
    log : IngestLog
        Where to.
    rows : pyarrow.RecordBatch or pyarrow.Table
        What :meth:`IngestLog.append` takes.
    key : str
        Says that this is the same append, if it is done again; empty for none.
    """

    log: IngestLog
    rows: Any = field(repr=False)
    key: str = ""


@final
class IngestLog:
    """A log that processes append rows to. Make one with :meth:`open`, in each process its own; threads may share it.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> url = f"sqlite:///{folder.name}/ingest.db?log=calls"
    >>> with IngestLog.open(url, pa.schema({"id": pa.int64(), "x": pa.float64()})) as log:
    ...     log.append(pa.table({"id": [1, 2], "x": [0.5, 1.5]}), key="request-1")
    ...     log.append(pa.table({"id": [1, 2], "x": [0.5, 1.5]}), key="request-1")
    True
    False
    >>> [block.rows.num_rows for block in IngestSource(url).blocks({"x": pa.float64()})]
    [2]
    >>> folder.cleanup()
    """

    def __init__(self, database: _Database) -> None:
        self._database = database
        self.identity = ""  #: chosen by chance when the log was made; empty before the first append
        self._schema: Any = None

    @classmethod
    def open(cls, url: str, schema: Any = None) -> IngestLog:
        """The log at a URL; file and tables are made if they are not there.

        Parameters
        ----------
        url : str
            ``sqlite:///.perennial/ingest.db?log=calls`` or ``postgresql://user@host/database?log=calls``; a database
            may hold many logs.
        schema : pyarrow.Schema, optional
            Columns of the log: numbers, text, booleans, times and bytes. One that is not nullable refuses nulls. Left
            out, the first append says what they are.

        Raises
        ------
        ConfigError
            If the URL is wrong; if a column is of a type that no learner reads; if the log has another schema.
        MissingExtra
            If it is PostgreSQL and psycopg is not installed.
        SourceAway
            If the database cannot be reached.
        DataError
            If it cannot be written.
        """
        log = cls(_Database(Address.of(url, "url", there=False), pooled=True))
        try:
            log._database.make()
            log._begin(schema)
        except BaseException:
            log.close()
            raise
        return log

    @property
    def name(self) -> str:
        """The name of the log in its database."""
        return self._database.name

    @property
    def schema(self) -> Any:
        """Columns and their types, as they are kept; None before the first append."""
        return self._schema

    def conform(self, rows: Any) -> Any:
        """Rows as the log keeps them: to check what was sent before it is handed over with other rows.

        Columns are found by name. Whole numbers may stand for fractions, and any type for one that holds all of its
        values: 32 bits for 64, seconds for microseconds, categories for text.

        Parameters
        ----------
        rows : pyarrow.RecordBatch or pyarrow.Table
            Every column of the log, and no other.

        Raises
        ------
        DataError
            If a column is missing, unknown or of another type, or a value is null that may not be.
        """
        if not isinstance(rows, pa.RecordBatch | pa.Table):
            raise DataError(f"rows for log {self.name!r} are a {type(rows).__name__}: give a pyarrow batch or table")
        schema = self._schema if self._schema is not None else self._kept_as(rows.schema)
        if isinstance(rows, pa.RecordBatch) and rows.schema == schema and all(one.nullable for one in schema):
            return rows
        self._check_names(rows.schema.names, schema.names)
        columns = [self._column(rows.column(one.name), one) for one in schema]
        return pa.record_batch(columns, schema=schema)

    def append(self, rows: Any, *, key: str = "") -> bool:
        """Put rows behind all others; they are durable when this returns. Where it raises, nothing was written.

        Parameters
        ----------
        rows : pyarrow.RecordBatch or pyarrow.Table
            As :meth:`conform` takes them.
        key : str
            Of this append, e.g. the id of a request. Done again with the same key, it does nothing: for whoever does
            not know whether the first one got through. Keys are known for the last 100,000 entries.

        Returns
        -------
        bool
            Whether the rows were appended now; False if they had been before.

        Raises
        ------
        DataError
            If the rows do not conform.
        KeyTaken
            If the key was used for other rows.
        SourceAway
            If the database cannot be reached, is locked or full. Where the connection broke, it is not known whether
            the rows were written, which the message says: append again with the same key.
        OffsetGone
            If the log was made anew since it was opened.
        """
        return append_together([Append(log=self, rows=rows, key=key)])[0]

    def knows(self, key: str) -> bool:
        """Whether an append with this key was done, of the last 100,000 entries."""
        keys = self._database.tables.keys
        mine = (keys.c.log == self.identity, keys.c.key == key)
        with self._database.reading() as connection:
            return connection.execute(sa.select(keys.c.entry).where(*mine)).first() is not None

    def last(self) -> Any:
        """The rows of the newest entry, as a record batch; None if there is none, or it was trimmed."""
        with self._database.reading() as connection:
            head = self._database.there(connection)
            page = self._database.page(connection, head, max(head.entries - 1, 0), head.entries)
        return page[-1].batch if page else None

    def erase(self, column: str, values: Sequence[str]) -> int:
        """Take out rows that hold one of ``values`` in a column, read or not; says how many.

        The entries are written anew without them, and in SQLite nothing is left of the old bytes. Whoever reads passes
        over them; rows that a run took are in its ledger, see ``perennial erase``.

        Raises
        ------
        ConfigError
            If there is no such column.
        SourceAway
            If the old bytes could not be removed yet: do it again.
        """
        return _erase(self._database, column, values)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"IngestLog({self.name!r} in {self._database.where!r})"

    # -- what is kept

    def _begin(self, schema: Any, *, exact: bool = True) -> None:
        """Know the log, which is made if a schema is given; ``exact``: one that is there has this schema."""
        database = self._database
        wanted = None if schema is None else self._kept_as(schema)
        with database.reading() as connection:
            head = database.head(connection)
        if head is None and wanted is not None:
            logs = database.tables.logs
            begun = {"trimmed": 0, "trimmed_rows": 0, "entries": 0, "rows": 0, "format": FORMAT}
            line = {"name": self.name, "identity": secrets.token_hex(8), "schema": wanted.serialize().to_pybytes()}
            insert = sqlite.insert if database.address.file is not None else postgresql.insert
            with database.writing() as connection:  # of two that make it at once, one is first
                connection.execute(insert(logs).values(begun | line).on_conflict_do_nothing())
            with database.reading() as connection:
                head = database.head(connection)
        if head is None:
            return
        self.identity, self._schema = head.identity, pa.ipc.read_schema(pa.py_buffer(head.schema))
        if exact and schema is not None and wanted != self._schema:
            names = [f"{one.name}: {one.type}{'' if one.nullable else ' not null'}" for one in self._schema]
            need = f"log {self.name!r} holds {', '.join(names)}: a log keeps its columns; give another one a new name"
            raise ConfigError("schema", ", ".join(f"{one.name}: {one.type}" for one in schema), need)

    def _kept_as(self, schema: Any) -> Any:
        """The schema of a log whose rows have this one."""
        if len(set(schema.names)) < len(schema.names) or not schema.names:
            raise ConfigError("schema", schema.names, "give columns, each a name of its own")
        fields = []
        for one in schema:
            if pa.types.is_null(one.type):
                need = "the column holds nothing yet: say what it will hold, IngestLog.open(url, schema)"
                raise ConfigError("schema", one.name, need)
            dtype = canonical_type(one.type)
            if not any(test(dtype) for test in _KINDS):
                need = f"the column holds {one.type}, which no learner reads: leave it out, or write it as text"
                raise ConfigError("schema", one.name, need)
            fields.append(pa.field(one.name, dtype, one.nullable))
        return pa.schema(fields)

    def _check_names(self, given: Sequence[str], kept: Sequence[str]) -> None:
        if missing := [name for name in kept if name not in given]:
            raise DataError(
                f"column {missing[0]!r} is missing in rows for log {self.name!r}: it has {', '.join(kept)}; a value "
                "that is not known is null"
            )
        if other := [name for name in given if name not in kept]:
            raise DataError(f"log {self.name!r} has no column {other[0]!r}: {nearest(other[0], kept)}")
        if len(given) > len(kept):
            raise DataError(f"two columns of rows for log {self.name!r} have one name: rename one")

    def _column(self, column: Any, kept: Any) -> Any:
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if column.null_count and not kept.nullable:
            raise DataError(
                f"column {kept.name!r} of log {self.name!r} may not be null, and row {column.is_null().index(True)} of "
                "those to append is: give it a value, or leave the row out"
            )
        if column.type == kept.type:
            return column
        try:
            if _holds(kept.type, column.type):
                return column.cast(kept.type)
            why = ""
        except pa.ArrowException as error:
            why = f" ({error})"
        raise DataError(
            f"column {kept.name!r} of log {self.name!r} is {kept.type}, and the rows to append hold {column.type}{why}"
            ": a log keeps its types; convert the values, nothing was written"
        )


_KINDS = (
    pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_string,
    pa.types.is_timestamp, pa.types.is_date, pa.types.is_binary,  # bytes are for whoever follows the log, not learned
)  # fmt: skip


def _holds(kept: Any, given: Any) -> bool:
    """Whether values of one type may stand for another; that each fits is then checked."""
    types, null = pa.types, pa.types.is_null(given)
    given = canonical_type(given.value_type if pa.types.is_dictionary(given) else given)
    if given == kept or null:
        return True
    if types.is_integer(given):
        return bool(types.is_integer(kept) or types.is_floating(kept))
    if types.is_floating(given):  # the cast does not look for digits that are lost
        return bool(types.is_floating(kept)) and kept.bit_width >= given.bit_width
    if types.is_timestamp(given) and types.is_timestamp(kept):
        return (given.tz is None) == (kept.tz is None)
    return False


def append_together(appends: Sequence[Append]) -> list[bool]:
    """Append to several logs of one database, or several times to one, in one transaction: all of it or nothing.

    Returns
    -------
    list of bool
        Of each, whether it was appended now; False if its key says that it had been before.

    Raises
    ------
    ConfigError
        If the logs are of several databases.
    DataError, KeyTaken, SourceAway, OffsetGone
        As :meth:`IngestLog.append`.
    """
    if not appends:
        return []
    _check_one_database([append.log for append in appends])
    for append in appends:
        if append.log._schema is None:
            append.log._begin(append.log.conform(append.rows).schema, exact=False)
    batches = [append.log.conform(append.rows) for append in appends]
    with together([append.log for append in appends]) as writing:
        for log in {append.log.name: append.log for append in appends}.values():
            writing.known(log, [append.key for append in appends if append.key and append.log.name == log.name])
        pairs = zip(appends, batches, strict=True)
        return [writing.append(append.log, batch, key=append.key) for append, batch in pairs]


def _check_one_database(logs: Sequence[IngestLog]) -> None:
    database = logs[0]._database
    for log in logs:
        other = log._database
        if (other.address.url, other.address.schema) != (database.address.url, database.address.schema):
            raise ConfigError("appends", other.where, f"logs of one transaction are of one database, {database.where}")


@contextmanager
def together(logs: Sequence[IngestLog]) -> Iterator[Together]:
    """One transaction over logs of one database: durable when the block ends, or nothing of it happened.

    For whoever must look before it appends, or keeps something of its own beside the logs. Until the block ends, nobody
    else appends to these logs.

    Raises
    ------
    ConfigError
        If the logs are of several databases.
    SourceAway, OffsetGone
        As :meth:`IngestLog.append`.
    """
    _check_one_database(logs)
    with logs[0]._database.writing() as connection:
        writing = Together(connection, logs)
        yield writing
        writing._finish()


@final
class Together:
    """What :func:`together` gives: appends, and ``connection`` for other statements of the same transaction.

    ``schema`` is where the tables of the logs are; empty for the database's default.
    """

    def __init__(self, connection: sa.Connection, logs: Sequence[IngestLog]) -> None:
        self.connection, self.schema = connection, logs[0]._database.address.schema
        self._ends: dict[str, tuple[int, int]] = {}  # entries and rows of each log, with those that are appended here
        self._digests: dict[tuple[str, str], str | None] = {}  # by log and key, as far as they were asked for
        self._entries: list[dict[str, Any]] = []
        self._keys: list[dict[str, Any]] = []
        self._logs = {log.name: log for log in logs}
        self._moved: set[str] = set()
        self._appends = 0
        for name in sorted(self._logs):  # in one order, so that nobody waits in a circle
            log = self._logs[name]
            head = log._database.head(connection, lock=True)
            if head is None or any(one.identity != head.identity for one in logs if one.name == name):
                raise OffsetGone(f"{log!r} was made anew since it was opened: open it again")
            self._ends[name] = head.entries, head.rows

    def known(self, log: IngestLog, keys: Sequence[str]) -> dict[str, str]:
        """Those of ``keys`` that were used, each with the digest of what it was used for; asked of many at once."""
        table = log._database.tables.keys
        if asked := [key for key in dict.fromkeys(keys) if (log.name, key) not in self._digests]:
            query = sa.select(table.c.key, table.c.digest).where(table.c.log == log.identity, table.c.key.in_(asked))
            found = {str(key): str(digest) for key, digest in self.connection.execute(query)}
            self._digests.update({(log.name, key): found.get(key) for key in asked})
        every = ((key, self._digests[log.name, key]) for key in keys)
        return {key: digest for key, digest in every if digest is not None}

    def remember(self, log: IngestLog, key: str, digest: str) -> bool:
        """Use a key for what ``digest`` stands for; False if it was before, and nothing is left to do.

        Raises
        ------
        KeyTaken
            If it was used for something else; ``index`` counts the appends of this transaction.
        """
        before = self.known(log, [key]).get(key)
        if before is not None and before != digest:
            raise KeyTaken(
                f"key {key!r} was used before for other rows of log {log.name!r}: give an append a key of its own; "
                "nothing was written",
                self._appends,
            )
        if before is None:
            self._digests[log.name, key] = digest
            entry = self._ends[log.name][0]
            self._keys.append({"log": log.identity, "key": key, "entry": entry, "digest": digest})
        return before is None

    def append(self, log: IngestLog, rows: Any, *, key: str = "") -> bool:
        """Put rows behind all others of a log, as :meth:`IngestLog.append` does."""
        batch = log.conform(rows)
        fresh = not key or self.remember(log, key, _digest(batch))
        self._appends += 1
        if not fresh:
            return False
        entry, first = self._ends[log.name]
        for piece in _pieces(batch):
            content = piece.serialize().to_pybytes()
            self._entries.append({
                "log": log.identity, "entry": entry, "first": first, "rows": piece.num_rows, "size": len(content),
                "content": content,
            })  # fmt: skip
            entry, first = entry + 1, first + piece.num_rows
            self._moved.add(log.name)
        self._ends[log.name] = entry, first
        return True

    def _finish(self) -> None:
        """Write what was appended."""
        database = next(iter(self._logs.values()))._database
        if self._entries:
            self.connection.execute(database.put, self._entries)
        for name in sorted(self._moved):
            entries, rows = self._ends[name]
            self.connection.execute(self._logs[name]._database.move, {"entries": entries, "rows": rows})
        if self._keys:
            self.connection.execute(database.tables.keys.insert(), self._keys)


def _pieces(batch: Any) -> Iterator[Any]:
    """A batch in pieces that a reader can hold; none if it has no rows."""
    if batch.num_rows:
        rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _digest(batch: Any) -> str:
    """Digest of rows by value: equal rows that lie in memory in another way have the same."""
    out = hashlib.blake2b(digest_size=16)
    for column in batch.columns:
        for part in content_of(column):
            out.update(part)
    return out.hexdigest()


def _erase(database: _Database, column: str, values: Sequence[str]) -> int:
    tables, erased, start = database.tables, 0, 0
    with database.reading() as connection:
        stop = database.there(connection).entries
    while start < stop:
        with database.reading() as connection:
            head = database.there(connection)
            names = pa.ipc.read_schema(pa.py_buffer(head.schema)).names
            if column not in names:
                raise ConfigError(
                    "column", column, f"log {database.name!r} has no such column: {nearest(column, names)}"
                )
            page = database.page(connection, head, start, stop)
        if not page:
            break
        start = page[-1].entry + 1
        held = [entry.entry for entry in page if _theirs(entry.batch, column, values).any()]
        if not held:
            continue
        with database.writing() as connection:  # read again: another may have erased meanwhile, or a run trimmed
            now = database.head(connection, lock=True)
            if now is None:
                break
            for number in held:
                for entry in database.page(connection, now, number, number + 1):
                    theirs = _theirs(entry.batch, column, values)
                    erased += int(theirs.sum())
                    line = sa.update(tables.entries).where(tables.entries.c.log == now.identity)
                    content = entry.batch.filter(pa.array(~theirs)).serialize().to_pybytes()
                    left = entry.left[~theirs].tobytes()
                    connection.execute(line.where(tables.entries.c.entry == number).values(left=left, content=content))
    if not database.scrub():
        raise SourceAway(
            f"{database.where}: {erased:,} rows are erased, and others read or write just now, so that the old bytes "
            "are still in its write-ahead log: erase once more"
        )
    return erased


def _theirs(batch: Any, column: str, values: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows hold one of the values; they are compared as text."""
    of = set(values)
    return np.array([value is not None and str(value) in of for value in batch.column(column).to_pylist()], dtype=bool)


# ---------------------------------------------------------------------- looking


class Held(NamedTuple):
    """How many rows ever ``came`` to a log; ``rows`` that it holds, and when the ``oldest`` of them was appended."""

    came: int
    rows: int
    oldest: int | None


def held(url: str, taken: int = 0) -> Held | None:
    """What a log holds behind the first ``taken`` rows, for whoever only looks; None if it was not made.

    Raises
    ------
    SourceAway
        If the database cannot be reached.
    """
    database = _Database(Address.of(url, "url", there=False), pooled=False)
    if database.address.file is not None and not Path(database.address.file).is_file():
        return None
    with database.reading() as connection:
        if (head := database.head(connection)) is None:
            return None
        entries = database.tables.entries
        behind = entries.c.log == head.identity, entries.c.first + entries.c.rows > taken
        oldest = connection.execute(sa.select(sa.func.min(entries.c.appended)).where(*behind)).scalar_one()
    return Held(head.rows, head.rows - max(taken, head.trimmed_rows), oldest)


# ---------------------------------------------------------------------- reading


@final
class IngestSource:
    """What a log holds now, read once: what was trimmed is gone.

    Parameters
    ----------
    source : str
        The URL of the log, as for :meth:`IngestLog.open`.
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
        self._source, self._field = source, field
        self._database = _Database(Address.of(source, field), pooled=False)
        self.rows: int | None = None
        self.names: list[str] = []

    def types(self, ignore: Sequence[str], words: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Arrow type of each column but the ignored; raises ``ConfigError`` if there is no such log."""
        with self._database.reading() as connection:
            head = self._database.there(connection)
        self.rows = head.rows - head.trimmed_rows
        schema = pa.ipc.read_schema(pa.py_buffer(head.schema))
        self.names = schema.names
        return {one.name: one.type for one in schema if one.name not in ignore}

    def blocks(self, types: dict[str, Any]) -> Iterator[Block]:
        """The columns of ``types``, in the order in which they were appended."""
        for run in IngestFeed(self._source, self._field).read(Position(), types):
            yield Block(run.rows, run.file)


@final
class IngestFeed:
    """Rows of a log behind a position.

    Each page is read in a transaction of its own: nothing is held while models train.

    Parameters
    ----------
    source, field : str
        As for :class:`IngestSource`.

    Raises
    ------
    ConfigError
        If the URL is wrong.
    MissingExtra
        If it is PostgreSQL and psycopg is not installed.
    """

    def __init__(self, source: str, field: str = "source") -> None:
        address = Address.of(source, field)
        # who looks ten times a second keeps its connection to a server: making one takes longer than a look
        self._source, self._database = source, _Database(address, pooled=address.file is None)
        weakref.finalize(self, self._database.close)
        self._trimmed = -1  # rows of the position that was trimmed last
        self._scrubbed = False  # who deleted before may have died before its bytes were gone

    def open(self) -> IngestSource:
        """The log, to learn its columns."""
        return IngestSource(self._source, self._database.address.field)

    def is_new(self, seen: dict[str, Any]) -> bool:
        """Whether rows were appended since the call before, which ``seen`` remembers."""
        with self._database.reading() as connection:
            head = self._database.there(connection)
        now = {"log": head.identity, "entries": head.entries}
        changed = now != seen
        seen.clear()
        seen.update(now)
        return changed

    def read(self, position: Position, types: Mapping[str, Any], *, grows: bool = True) -> Iterator[Run]:  # noqa: ARG002
        """The rows behind ``position`` that are there at the first look, a block at a time.

        Raises
        ------
        OffsetGone
            If the log was made anew or restored from a backup, or somebody else took entries out of it.
        SourceAway
            If the database does not answer.
        DataError
            If an entry is damaged, or the log lacks a column.
        ConfigError
            If there is no such log.
        """
        database, stop = self._database, -1
        while True:
            with database.reading() as connection:
                head = database.there(connection)
                if stop < 0:
                    entry, first = self._checked(head, position, types)
                    identity, stop = head.identity, head.entries
                elif head.identity != identity:
                    raise self._gone("it was made anew")
                page = database.page(connection, head, entry, stop)
            for number, one in enumerate(page, entry):
                if (one.entry, one.first) != (number, first):
                    raise self._gone(f"entry {number} is missing")
                first += one.rows
            if not page:
                if entry < stop:
                    raise self._gone(f"entry {entry} is missing")
                return
            if position.key and page[0].entry == position.key[1]:
                page[0] = self._behind(page[0], position, types)
            entry = page[-1].entry + 1
            yield from self._runs(page, identity, types)

    def _checked(self, head: _Head, position: Position, types: Mapping[str, Any]) -> tuple[int, int]:
        """The first entry to read, and how many rows come before it."""
        kept = {one.name: one.type for one in pa.ipc.read_schema(pa.py_buffer(head.schema))}
        for name, dtype in types.items():
            if kept.get(name) != dtype:
                raise DataError(
                    f"column {name!r} of log {self._database.name!r} was {dtype} and is {kept.get(name, 'gone')}: a "
                    "log keeps its columns; go back to the one that was read"
                )
        if not position.file:
            return head.trimmed, head.trimmed_rows
        if position.file != self._database.name or len(position.key) != 3:
            raise OffsetGone(
                f"what was read is {position.file}, and the source is log {self._database.name} now: go back to it, or "
                "start a deployment of a new name"
            )
        identity, entry, taken = position.key
        if identity != head.identity:
            raise self._gone("it was made anew")
        if entry >= head.entries or position.rows > head.rows:
            raise self._gone(
                f"it holds {head.rows:,} rows and {position.rows:,} were read: an older state was restored"
            )
        if entry >= head.trimmed:
            return entry, position.rows - taken
        if position.rows != head.trimmed_rows:
            raise self._gone(
                f"rows up to {head.trimmed_rows:,} were trimmed, and only {position.rows:,} were read: another "
                "deployment reads the same log"
            )
        return head.trimmed, head.trimmed_rows

    def _gone(self, why: str) -> OffsetGone:
        return OffsetGone(
            f"log {self._database.name!r} in {self._database.where} no longer holds what comes behind the rows that "
            f"were read: {why}; put it back, or start a deployment of a new name from here"
        )

    def _behind(self, one: _Entry, position: Position, types: Mapping[str, Any]) -> _Entry:
        """The rows of an entry that were not read; the last that was is still what it was, unless it was erased."""
        taken = position.key[2]
        at = int(np.searchsorted(one.left, taken))
        if at and one.left[at - 1] == taken - 1:
            row = one.batch.select(list(types)).slice(at - 1, 1)
            if row_digest(row) != position.last:
                raise self._gone("the last row that was read is another one now")
        return one._replace(left=one.left[at:], batch=one.batch.slice(at))

    def _runs(self, page: list[_Entry], identity: str, types: Mapping[str, Any]) -> Iterator[Run]:
        """The rows of entries, in runs without a gap."""
        batches = [one.batch.select(list(types)) for one in page]
        rows = pa.Table.from_batches(batches).combine_chunks().to_batches()
        if not rows:
            return
        numbers = np.concatenate([one.first + one.left for one in page])
        entries = np.repeat([one.entry for one in page], [len(one.left) for one in page])
        taken = np.concatenate([one.left + 1 for one in page])
        keys = [(identity, entry, upto) for entry, upto in zip(entries.tolist(), taken.tolist(), strict=True)]
        cuts = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
        for low, high in pairwise(cuts):
            for start in range(low, high, BLOCK_ROWS):
                end = min(start + BLOCK_ROWS, high)
                yield Run(
                    rows=rows[0].slice(start, end - start),
                    file=self._database.name,
                    start=int(numbers[start]),
                    keys=keys[start:end],
                )

    def trim(self, position: Position, *, within: bool = False) -> None:
        """Let go of entries that lie wholly behind ``position``, and are older than the log is to ``keep`` them.

        ``within``: of an entry that was read in part, let go of these rows too.

        First the log says up to where it is trimmed, then the entries go, some at a time, so that nobody who appends
        waits for long; a later call goes on where one was cut off. In SQLite nothing is left of their bytes; where
        others are at work just then, the next call sees to it.

        Raises
        ------
        SourceAway
            If the database cannot be reached, or is locked.
        """
        database, keep = self._database, micros(self._database.address.keep)
        if not position.key or (position.rows == self._trimmed and not keep):
            return
        entries, identity = database.tables.entries, position.key[0]
        mine = entries.c.log == identity
        done = [mine, entries.c.entry <= position.key[1], entries.c.first + entries.c.rows <= position.rows]
        with database.writing() as connection:
            head = database.head(connection, lock=True)
            if head is None or head.identity != identity:
                return  # whoever reads next says so
            if keep:
                done.append(entries.c.appended <= _now(connection.dialect.name) - keep)
            upto = sa.select(entries.c.entry + 1, entries.c.first + entries.c.rows).where(*done)
            last = connection.execute(upto.order_by(entries.c.entry.desc()).limit(1)).first()
            trimmed = head.trimmed
            if last is not None and last[0] > trimmed:
                trimmed = last[0]
                connection.execute(database.move, {"trimmed": trimmed, "trimmed_rows": last[1]})
        gone = self._delete(identity, trimmed, head.entries - KEYS_KEPT)
        gone = (within and self._shorten(position)) or gone
        if gone or not self._scrubbed:
            self._scrubbed = database.scrub()
        if self._scrubbed:
            self._trimmed = position.rows

    def _delete(self, identity: str, trimmed: int, old: int) -> bool:
        """Delete entries before ``trimmed``, and keys of entries before ``old``; whether there were entries."""
        _, entries, keys = self._database.tables
        mine, gone = sa.and_(entries.c.log == identity, entries.c.entry < trimmed), False
        with self._database.reading() as connection:
            low = connection.execute(sa.select(sa.func.min(entries.c.entry)).where(mine)).scalar_one()
        while low is not None and low < trimmed:
            low, gone = low + PAGE_ENTRIES, True
            with self._database.writing() as connection:
                connection.execute(entries.delete().where(mine, entries.c.entry < low))
                connection.execute(keys.delete().where(keys.c.log == identity, keys.c.entry < old))
        return gone

    def _shorten(self, position: Position) -> bool:
        """Take out of the entry that ``position`` lies in the rows that were read; whether there were any."""
        identity, number, taken = position.key
        entries = self._database.tables.entries
        with self._database.writing() as connection:
            head = self._database.head(connection, lock=True)
            if head is None or head.identity != identity:
                return False
            page = self._database.page(connection, head, number, number + 1)
            if not page or not (page[0].left < taken).any():
                return False
            rest = page[0].left >= taken
            content = page[0].batch.filter(pa.array(rest)).serialize().to_pybytes()
            line = sa.update(entries).where(entries.c.log == identity, entries.c.entry == number)
            connection.execute(line.values(left=page[0].left[rest].tobytes(), content=content))
        return True

    def erase(self, column: str, values: Sequence[str]) -> int:
        """Take out rows of a subject, as :meth:`IngestLog.erase` does."""
        return _erase(self._database, column, values)

    def there(self) -> bool:
        """Whether the log was made."""
        try:
            with self._database.reading() as connection:
                return self._database.head(connection) is not None
        except ConfigError:  # there is no file
            return False

    def find(self, column: str, value: str, wanted: str) -> set[str]:
        """What rows that hold ``value`` in a column hold in another one, as text; read or not."""
        out: set[str] = set()
        types = self.open().types((), ())
        for run in self.read(Position(), {name: types[name] for name in dict.fromkeys((column, wanted))}):
            theirs = run.rows.filter(pa.array(_theirs(run.rows, column, [value])))
            out.update(str(one) for one in theirs.column(wanted).to_pylist() if one is not None)
        return out

    def expire(self) -> None:
        """Let go of entries that are older than the log is to ``keep`` them, whoever read them: of a log without a run.

        Raises
        ------
        SourceAway
            As :meth:`trim`.
        """
        if not self.there():
            return
        with self._database.reading() as connection:
            head = self._database.there(connection)
        if head.entries > head.trimmed:
            self.trim(Position(self._database.name, head.rows, key=(head.identity, head.entries - 1, 0)))


# ---------------------------------------------------------------------- looking in from beside


def newest(url: str, rows: int = 0) -> tuple[int, Any] | None:
    """How many rows a log ever had, and its newest as a table in order, for whoever only looks; None if there is none.

    Parameters
    ----------
    url : str
        As :meth:`IngestLog.open` takes it. Nothing is made.
    rows : int
        How many of the newest rows, of those that are not trimmed.

    Raises
    ------
    SourceAway
        If the database cannot be reached.
    """
    database = _Database(Address.of(url, "url", there=False), pooled=False)
    try:
        if database.address.file is not None and not Path(database.address.file).exists():
            return None  # a connection would make it
        with database.reading() as connection:
            head = database.head(connection)
            if head is None:
                return None
            found: list[Any] = []
            stop = head.entries
            while sum(batch.num_rows for batch in found) < rows and stop > head.trimmed:
                start = max(stop - 64, head.trimmed)
                found = [one.batch for one in database.page(connection, head, start, stop)] + found
                stop = start
        table = pa.Table.from_batches(found, schema=pa.ipc.read_schema(pa.py_buffer(head.schema)))
        return head.rows, table.slice(max(table.num_rows - rows, 0))
    finally:
        database.close()
