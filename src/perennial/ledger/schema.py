"""The tables of the ledger, and how a database comes to have them.

``deployment_id`` stands first in every primary key: one database serves many deployments. Instants are microseconds
since 1970-01-01 UTC in 64-bit integers, digests are text, and NULL in a column of doubles is a NaN, which SQLite cannot
hold. Rows are added and never changed, but for ``heads``, ``leases``, ``waiting``, the end of a segment, and bytes that
are erased.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from perennial.core.errors import FormatError, LedgerError

#: the newest revision that this release knows; older ones are upgraded on opening
REVISION = "0001"
#: the table in which the database says its revision: not ``alembic_version``, which may be someone else's
REVISIONS = "perennial_revision"
#: any number, the same for all: who migrates a PostgreSQL database holds this lock
_MIGRATING = 7_203_518_664

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _table(name: str, *columns: Any, key: tuple[str, ...], clustered: bool = True) -> sa.Table:
    """A table whose primary key is ``deployment_id`` and then ``key``; clustered on it in SQLite."""
    return sa.Table(
        name,
        metadata,
        sa.Column("deployment_id", sa.Text, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("deployment_id", *key),
        sqlite_with_rowid=not clustered,
    )


def _whole(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _text(name: str, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _double(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=True)  # NULL is NaN


def _share(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False)  # in [0, 1]


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _of(table: str, *columns: str) -> sa.ForeignKeyConstraint:
    """Rows of this table belong to a row of ``table``."""
    return sa.ForeignKeyConstraint(
        ["deployment_id", *columns], [f"{table}.{c}" for c in ("deployment_id", *_keys[table])]
    )


_keys = {"deployments": (), "turns": ("turn",), "versions": ("number",)}

deployments = _table("deployments", _text("place"), _flag("forgets"), _whole("created_at"), key=())
leases = _table(
    "leases",
    _text("holder"),
    _whole("token"),
    _whole("expires_at"),
    _whole("ttl"),  # what the last acquisition or renewal asked for
    _of("deployments"),
    key=(),
)
heads = _table(
    "heads", _whole("turn"), _text("position"), _text("checkpoint"), _text("intent"), _of("deployments"), key=()
)
turns = _table(
    "turns",
    _whole("turn"),
    _text("kind"),
    _whole("now"),
    _whole("first"),
    _whole("rows"),
    _text("position"),
    _text("checkpoint"),
    _text("serving", nullable=True),
    _whole("loss_n"),
    _double("loss_total"),
    _text("loss_name"),
    _text("predictions"),
    _text("labels"),
    _text("quarantined", nullable=True),
    _whole("late"),
    _whole("staleness", nullable=True),
    _text("notes"),  # JSON, a list
    _double("cpu_seconds"),
    _whole("committed_at"),  # the database's clock
    _of("deployments"),
    key=("turn",),
)
decisions = _table(
    "decisions",
    _whole("turn"),
    _whole("seq"),
    _flag("fire"),
    _text("reason"),
    _of("turns", "turn"),
    key=("turn", "seq"),
)
verdicts = _table(
    "verdicts",
    _whole("turn"),
    _whole("seq"),
    _text("outcome"),
    _text("version"),
    _text("reason"),
    _text("champion", nullable=True),
    _text("evidence"),  # JSON, an object
    _of("turns", "turn"),
    key=("turn", "seq"),
)
versions = _table(
    "versions",
    _text("number"),
    _whole("turn"),
    _whole("seq"),
    _whole("major"),
    _whole("minor"),
    _text("parent", nullable=True),
    _text("kind"),
    _whole("at"),
    _whole("ready_at"),
    _whole("trained_rows"),
    _whole("row_trees"),
    _whole("first"),
    _whole("last"),
    _whole("newest"),
    _text("data"),
    _text("key", nullable=True),
    _text("reason"),
    _whole("steps"),
    _text("blob"),
    _text("state"),
    _whole("size"),
    _text("golden"),
    _double("cpu_seconds"),
    _text("facts"),  # JSON, an object
    _of("turns", "turn"),
    key=("number",),
)
scores = _table(
    "scores", _whole("turn"), _text("name"), _whole("n"), _double("total"), _of("turns", "turn"), key=("turn", "name")
)
aliases = _table(
    "aliases",
    _text("alias"),
    _whole("generation"),
    _whole("moved"),  # counts all moves of the deployment from 1, in the order they were made
    _whole("turn", nullable=True),  # NULL for an operator's own move
    _text("version", nullable=True),
    _text("reason"),
    _text("actor"),
    _whole("at"),
    _share("canary"),
    _share("shadow"),
    _of("deployments"),
    _of("versions", "version"),
    key=("alias", "generation"),
)
segments = _table(
    "segments",
    _whole("born"),
    _whole("seq"),  # 0 is what the turn brought; the others take the place of fuller ones
    _text("digest"),
    _whole("first"),
    _whole("rows"),
    _whole("oldest"),
    _whole("newest"),
    _whole("dead", nullable=True),  # the turn that released it
    _whole("dead_seq", nullable=True),
    sa.ForeignKeyConstraint(["deployment_id", "born"], ["turns.deployment_id", "turns.turn"]),
    key=("born", "seq"),
)
waiting = _table(
    "waiting",
    sa.Column("id", sa.LargeBinary, nullable=False),  # a digest, 16 bytes: ids themselves are in the rows alone
    _whole("position"),
    _whole("time"),
    _flag("named"),  # the log gave it a label
    _of("deployments"),
    key=("id", "position"),
)
files = _table(
    "files",
    _whole("number"),
    _whole("part"),
    _text("version"),
    _whole("at"),  # the database's clock
    _text("file"),
    _whole("rows"),
    _text("predictions"),
    _of("deployments"),
    _of("versions", "version"),
    key=("number", "part"),
)
payloads = _table(
    "payloads",
    _text("digest"),
    _whole("size"),
    _flag("kept"),  # named by more than a checkpoint, whose bytes go when newer ones come
    sa.Column("data", sa.LargeBinary, nullable=True),  # NULL: the bytes are in the blob store
    _text("of_version", nullable=True),  # the version whose facts name them
    _whole("erased_at", nullable=True),
    _of("deployments"),
    key=("digest",),
    clustered=False,
)

for _index in (
    (verdicts.c.deployment_id, verdicts.c.version),
    (versions.c.deployment_id, versions.c.turn, versions.c.seq),
    (aliases.c.deployment_id, aliases.c.moved),
    (aliases.c.deployment_id, aliases.c.turn),
    (segments.c.deployment_id, segments.c.digest),
    (segments.c.deployment_id, segments.c.dead),
    (waiting.c.deployment_id, waiting.c.time),
):
    sa.Index(None, *_index)


class database_now(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, in microseconds since 1970-01-01 UTC."""

    inherit_cache = True
    type = sa.BigInteger()


@compiles(database_now, "sqlite")
def _sqlite_now(_element: database_now, _compiler: Any, **_: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)"


@compiles(database_now, "postgresql")
def _postgresql_now(_element: database_now, _compiler: Any, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"


def revision(connection: sa.Connection) -> str | None:
    """The revision that a database says it has; None if it holds no ledger."""
    if not sa.inspect(connection).has_table(REVISIONS):
        return None
    found = connection.execute(sa.text(f"SELECT version_num FROM {REVISIONS}")).scalar()
    return None if found is None else str(found)


def prepare(connection: sa.Connection, where: str, *, create: bool) -> None:
    """Bring a database to :data:`REVISION`, within the transaction of ``connection``.

    Raises
    ------
    FormatError
        If the database is newer than this release.
    LedgerError
        If there is no ledger in it and ``create`` is false.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
    found = revision(connection)
    if found == REVISION:
        return
    if found is None and not create:
        raise LedgerError(f"{where} holds no ledger: check the path, or let `perennial run` create it")
    if found is not None and found > REVISION:
        raise FormatError(
            f"the ledger in {where} has format {found}; this release reads up to {REVISION}: upgrade perennial"
        )
    _migrate(connection, found)


def _migrate(connection: sa.Connection, found: str | None) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).with_name("migrations")))
    context = MigrationContext.configure(connection, opts={"version_table": REVISIONS})
    steps = [*scripts.iterate_revisions(REVISION, found or "base")]
    with Operations.context(context):
        for step in reversed(steps):
            step.module.upgrade()
    context.stamp(scripts, REVISION)
