"""What was received last of each id, beside the logs of an inbox, so that what comes again is told from what is new.

By digests alone, in a table of the logs' database: of a label or a thumb what it said and when; of a prediction what a
thumb would confirm, where thumbs are labels. A line is read and written under the lock of its log, in the transaction
that appends to it: what it says is what the log holds. A second table counts what came, by minute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from perennial.stream.ingest import IngestLog, Together, held, together
from perennial.stream.label_log import id_digest

if TYPE_CHECKING:
    from perennial.stream.inbox import Inbox

MINUTE = 60_000_000
#: how long is remembered how much came, in minutes
MINUTES_KEPT = 7 * 24 * 60
_MOST = 500  # ids of a statement: a database takes only so many values

Came = Literal["accepted", "repeated", "revised", "older"]


@dataclass(frozen=True, slots=True)
class Line:
    """What was received last of an id.

    Parameters
    ----------
    said : bytes
        A digest of it.
    observed_at : int or None
        When it was observed, if the sender said.
    known_at : int
        When it was received.
    """

    said: bytes
    observed_at: int | None
    known_at: int


def judge(line: Line | None, said: bytes, observed_at: int | None, now: int) -> tuple[Came, Line]:
    """What becomes of something that is received ``now``, and the line of its id from then on.

    The latest received stands, but what was observed before the one that stands is kept out. What is received of an id
    has an instant of its own, later than all before: whoever orders by it finds the same one last.

    Examples
    --------
    >>> came, line = judge(None, b"yes", 5, 10)
    >>> came, judge(line, b"yes", 7, 11)[0], judge(line, b"no", 4, 11)[0], judge(line, b"no", None, 10)
    ('accepted', 'repeated', 'older', ('revised', Line(said=b'no', observed_at=None, known_at=11)))
    """
    if line is None:
        return "accepted", Line(said, observed_at, now)
    newer = observed_at is not None and (line.observed_at is None or observed_at > line.observed_at)
    if said == line.said:
        return "repeated", replace(line, observed_at=observed_at) if newer else line
    if observed_at is not None and line.observed_at is not None and observed_at < line.observed_at:
        return "older", line
    return "revised", Line(said, observed_at, max(now, line.known_at + 1))


def digest_of(content: bytes) -> bytes:
    """Sixteen bytes that stand for others."""
    return hashlib.blake2b(content, digest_size=16).digest()


# ---------------------------------------------------------------------- the tables


class _Tables(NamedTuple):
    lines: sa.Table
    arrivals: sa.Table


@cache
def _tables(schema: str) -> _Tables:
    metadata = sa.MetaData(schema=schema or None)
    lines = sa.Table(
        "perennial_received", metadata,
        sa.Column("log", sa.Text, primary_key=True),  # its identity
        sa.Column("id", sa.LargeBinary, primary_key=True),  # a digest
        sa.Column("said", sa.LargeBinary, nullable=False),
        sa.Column("observed_at", sa.BigInteger, nullable=True),
        sa.Column("known_at", sa.BigInteger, nullable=False),
        sa.Index("ix_perennial_received_known_at", "log", "known_at"),
        sqlite_with_rowid=False,
    )  # fmt: skip
    arrivals = sa.Table(
        "perennial_arrivals", metadata,
        sa.Column("log", sa.Text, primary_key=True),  # its name
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
    )  # fmt: skip
    return _Tables(lines, arrivals)


def make(log: IngestLog) -> None:
    """Make the tables beside a log, if they are not there."""
    with together([log]) as writing:  # its lock keeps two from making them at once
        _tables(writing.schema).lines.metadata.create_all(writing.connection)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def lines(writing: Together, log: IngestLog, ids: Iterable[bytes]) -> dict[bytes, Line]:
    """The lines of these ids, of those that have one."""
    table, asked, found = _tables(writing.schema).lines, list(dict.fromkeys(ids)), {}
    query = sa.select(table.c.id, table.c.said, table.c.observed_at, table.c.known_at).where(
        table.c.log == log.identity
    )
    for start in range(0, len(asked), _MOST):
        for row in writing.connection.execute(query.where(table.c.id.in_(asked[start : start + _MOST]))):
            found[bytes(row[0])] = Line(bytes(row[1]), row[2], row[3])
    return found


def keep(writing: Together, log: IngestLog, changed: Mapping[bytes, Line]) -> None:
    """Write lines, each in the place of the one of its id."""
    if changed:
        table = _tables(writing.schema).lines
        insert = _insert(writing.connection, table)
        names = ("said", "observed_at", "known_at")
        upsert = insert.on_conflict_do_update(
            index_elements=["log", "id"], set_={name: insert.excluded[name] for name in names}
        )
        values = [
            {
                "log": log.identity,
                "id": key,
                "said": line.said,
                "observed_at": line.observed_at,
                "known_at": line.known_at,
            }
            for key, line in changed.items()
        ]
        writing.connection.execute(upsert, values)


def count(writing: Together, log: IngestLog, now: int, rows: int) -> None:
    """Count rows that came ``now``."""
    table = _tables(writing.schema).arrivals
    insert = _insert(writing.connection, table)
    more = {"rows": table.c.rows + insert.excluded.rows}
    upsert = insert.on_conflict_do_update(index_elements=["log", "minute"], set_=more)
    writing.connection.execute(upsert, {"log": log.name, "minute": now // MINUTE, "rows": rows})


def arrived(log: IngestLog, since: int) -> dict[int, int]:
    """Rows that came to a log since an instant, by the first instant of the minute; empty minutes are left out."""
    if not log.identity:
        return {}
    with together([log]) as writing:
        table = _tables(writing.schema).arrivals
        if not sa.inspect(writing.connection).has_table(table.name, schema=table.schema):
            return {}
        query = sa.select(table.c.minute, table.c.rows).where(
            table.c.log == log.name, table.c.minute >= since // MINUTE
        )
        found = writing.connection.execute(query.order_by(table.c.minute)).all()
    return {int(minute) * MINUTE: int(rows) for minute, rows in found}


def prune(writing: Together, log: IngestLog, *, before: int, now: int) -> None:
    """Forget lines that were received before an instant: no label for such an id is waited for any more."""
    tables, connection = _tables(writing.schema), writing.connection
    connection.execute(
        tables.lines.delete().where(tables.lines.c.log == log.identity, tables.lines.c.known_at < before)
    )
    old = now // MINUTE - MINUTES_KEPT
    connection.execute(
        tables.arrivals.delete().where(tables.arrivals.c.log == log.name, tables.arrivals.c.minute < old)
    )


def forget_ids(inbox: Inbox, ids: Sequence[str]) -> int:
    """Take the lines of these ids out of the index of every log of an inbox; says how many.

    Whoever erases a subject calls it before it erases rows from the logs, whose scrub takes the old bytes along.

    Raises
    ------
    SourceAway
        If the database cannot be reached.
    """
    gone = 0
    digests = [id_digest(one) for one in ids]
    for which in ("rows", "labels", "feedback"):
        if not digests or held(inbox.url(which)) is None:
            continue
        with IngestLog.open(inbox.url(which)) as log, together([log]) as writing:
            table = _tables(writing.schema).lines
            if not sa.inspect(writing.connection).has_table(table.name, schema=table.schema):
                continue
            for start in range(0, len(digests), _MOST):
                mine = table.c.log == log.identity, table.c.id.in_(digests[start : start + _MOST])
                gone += writing.connection.execute(table.delete().where(*mine)).rowcount
    return gone
