"""A connection to SQLite or PostgreSQL that keeps what it is told, and says in words what went wrong."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from perennial.core.errors import ConfigError, LedgerError, MissingExtra
from perennial.ledger.blobs import Disk, make_durable_folder
from perennial.ledger.errors import Conflict, StorageError

#: how long a statement waits for a lock that another process holds
PATIENCE = 10.0

_SQLITE = (
    f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}",
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = FULL",  # in WAL mode, less would lose commits with the power
    "PRAGMA secure_delete = ON",  # what is deleted is overwritten with zeros
)
_POSTGRES = (
    f"SET lock_timeout = '{PATIENCE:g}s'",
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)
#: SQLSTATE, or its class: the same call may work later
_PASSING = ("08", "40", "53300", "55P03", "57P")


class Database:
    """Transactions on one database.

    A reading transaction sees one instant. A writing one holds, in SQLite, the only write lock from its first
    statement, so nothing that it read can have changed when it commits; in PostgreSQL, rows are locked by name.
    """

    def __init__(self, engine: sa.Engine, folder: Path | None) -> None:
        self.where = engine.url.render_as_string(hide_password=True)
        self.folder = folder  #: where the file of SQLite lies
        self.dialect = engine.dialect.name
        self._engine = engine
        self._writer = engine.execution_options(perennial_writes=True)
        self._closed = False

    @classmethod
    def open(cls, url: str, *, create: bool) -> Database:
        """The database at ``url``.

        Raises
        ------
        ConfigError
            If the URL is none that a ledger can live at.
        MissingExtra
            If it is PostgreSQL and psycopg is not installed.
        LedgerError
            If there is no file and ``create`` is false.
        """
        parsed = _parsed(url)
        if parsed.get_backend_name() == "sqlite":
            return cls._sqlite(parsed, create)
        try:
            engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": int(PATIENCE)})
        except ModuleNotFoundError as error:
            raise MissingExtra("postgres", "a ledger in PostgreSQL") from error
        event.listen(engine, "connect", _prepare_postgres)
        return cls(engine.execution_options(isolation_level="READ COMMITTED"), None)

    @classmethod
    def _sqlite(cls, url: sa.URL, create: bool) -> Database:
        if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
            raise ConfigError("url", str(url), "a ledger outlives its process: write sqlite:///folder/ledger.db")
        path = Path(url.database.removeprefix("file:"))
        if not path.exists():
            if not create:
                raise LedgerError(f"there is no ledger at {path}: check the path, or let `perennial run` create it")
            try:
                make_durable_folder(path.parent, Disk())
            except OSError as error:
                raise StorageError(f"{path.parent}: {error.strerror or error}") from error
        engine = sa.create_engine(url, connect_args={"timeout": PATIENCE, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        database = cls(engine, path.parent)
        if create:
            database._write_ahead()
        return database

    def _write_ahead(self) -> None:
        """Switch a SQLite file to its write-ahead log, so that readers and the writer do not wait for each other."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self.outside("PRAGMA journal_mode") != "wal":
                    self.outside("PRAGMA journal_mode = WAL")
                return
            except StorageError as error:  # SQLite does not wait by itself here when two processes begin at once
                if not error.retryable or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one instant and changes nothing."""
        with self._explained():
            connection = self._engine.connect()
            if self.dialect == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection, connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is committed whole when the block ends, or not at all when it raises."""
        with self._explained(), self._writer.connect() as connection, connection.begin():
            yield connection

    def outside(self, statement: str) -> Any:
        """The first value of a statement that may not run in a transaction, such as VACUUM."""
        raw = None
        with self._explained():
            try:
                raw = self._engine.raw_connection()
                if self.dialect == "postgresql":
                    raw.dbapi_connection.autocommit = True  # type: ignore[union-attr]
                cursor = raw.cursor()
                cursor.execute(statement)
                row = cursor.fetchone() if cursor.description else None
                cursor.close()
                return row and row[0]
            except self._engine.dialect.loaded_dbapi.Error as error:
                raise explain(error, self.where) from error
            finally:
                if raw is not None:
                    if self.dialect == "postgresql":
                        raw.invalidate()  # it is in another mode than those of the pool
                    raw.close()

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        if self._closed:
            raise LedgerError(f"the ledger in {self.where} was closed: open it again")
        try:
            yield
        except exc.IntegrityError as error:
            raise Conflict(f"{self.where} refused what does not fit what is there: {error.orig}") from error
        except exc.DBAPIError as error:
            if error.orig is None or not isinstance(error.orig, Exception):
                raise
            told = explain(error.orig, self.where)
            told.retryable |= error.connection_invalidated
            raise told from error
        except exc.TimeoutError as error:  # every connection of the pool is taken
            raise StorageError(f"{self.where}: {error}", retryable=True) from error


def _parsed(url: str) -> sa.URL:
    rule = "write sqlite:///folder/ledger.db or postgresql+psycopg://user@host/database"
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        raise ConfigError("url", url, rule) from error
    name = parsed.get_backend_name()
    if name in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if name != "sqlite":
        raise ConfigError("url", parsed.render_as_string(hide_password=True), rule)
    return parsed


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


def explain(error: Exception, where: str) -> StorageError:
    """A driver's error as one of the ledger, with what to do about it."""
    if isinstance(error, sqlite3.Error):
        message, retryable = _explain_sqlite(getattr(error, "sqlite_errorname", "") or "")
    else:
        message, retryable = _explain_postgres(getattr(error, "sqlstate", None))
    told = str(error).strip().partition("\n")[0]  # PostgreSQL goes on with the statement
    return StorageError(f"{where}: {told}{message}", retryable=retryable)


def _explain_sqlite(name: str) -> tuple[str, bool]:
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f" for {PATIENCE:g} s: another process is writing, try again", True
    if name.startswith("SQLITE_FULL"):
        return ": nothing was written, make room and go on", False
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return ": check who may write the file and its folder", False
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return ": restore the file from a backup", False
    return "", False


def _explain_postgres(state: str | None) -> tuple[str, bool]:
    if state is None or state.startswith("08"):  # no answer from the server at all
        return "", True
    if state == "53100":
        return ": nothing was written, make room on the server and go on", False
    if state == "25006":
        return ": this server is a read-only copy, use the primary", False
    return "", state.startswith(_PASSING)
