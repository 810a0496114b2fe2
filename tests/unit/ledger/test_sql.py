"""How a ledger is opened, what its database promises, and what its tables are."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from perennial.core.errors import ConfigError, LedgerError, MissingExtra
from perennial.core.records import Version
from perennial.ledger import database, errors, schema
from perennial.ledger.database import explain
from perennial.ledger.errors import StorageError
from perennial.ledger.records import Alias, Entry, Head, Saved, Segment
from perennial.ledger.sql import SqlLedger

MINUTE = timedelta(minutes=1)


@pytest.fixture
def url(tmp_path) -> str:
    """Where a ledger may be made; its folder is not there yet."""
    return f"sqlite:///{tmp_path}/state/ledger.db"


@pytest.fixture
def ledger(url):
    """A new ledger."""
    with SqlLedger.open(url, "churn") as made:
        yield made


def tick(turn: int, **other: object) -> Entry:
    """A turn in which nothing happened."""
    rest = {"kind": "tick", "now": turn, "first": 0, "rows": 0, "position": "", "checkpoint": ""}
    return Entry(turn=turn, **rest | other)


# -- the tables


def test_the_migrations_make_the_tables(ledger):
    """What the revisions create is what the code believes, to the last index."""
    with ledger._database.writing() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": schema.REVISIONS, "compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
        assert schema.revision(connection) == schema.REVISION


def test_every_key_begins_with_the_deployment():
    """One database serves many."""
    for table in schema.metadata.tables.values():
        assert next(iter(table.primary_key.columns)).name == "deployment_id", table


@pytest.mark.parametrize(
    ("record", "tables", "renamed"),
    [
        (Head, ["heads"], {}),
        (Alias, ["aliases"], {}),
        (Segment, ["segments"], {}),
        (Saved, ["versions"], {"version": "number"}),
        (Version, ["versions"], {}),
        (
            Entry,
            list(schema.metadata.tables),
            {
                "loss": "loss_n",
                "decisions": "fire",
                "verdicts": "evidence",
                "versions": "facts",
                "scores": "total",
                "segment": "born",
                "thinned": "seq",
                "released": "dead",
                "aliases": "alias",
                "waiting": "named",
            },
        ),
    ],
)
def test_every_field_of_a_record_has_a_column(record, tables, renamed):
    """A field that is added needs a revision."""
    columns = {column.name for name in tables for column in schema.metadata.tables[name].columns}
    assert {renamed.get(f.name, f.name) for f in fields(record)} <= columns


def test_every_commit_looks_rows_up_by_an_index(ledger, monkeypatch):
    """No statement of a commit reads a whole table, so that the millionth turn costs what the first did."""
    lease = ledger.acquire("host-1", MINUTE)
    seen: list[tuple[str, object]] = []
    sa.event.listen(
        ledger._database._engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, parameters, context, many: seen.append(
            (statement, parameters[0] if many else parameters)
        ),
    )
    for turn in range(4):
        ledger.commit(lease, tick(turn, checkpoint=ledger.put(bytes([turn]))))
    plans = []
    with ledger._database.reading() as connection:
        for statement, parameters in [s for s in seen if s[0].startswith(("SELECT", "UPDATE", "DELETE"))]:
            plans += connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert plans
    assert [plan for plan in plans if plan.detail.startswith("SCAN")] == []


# -- what SQLite promises


def test_sqlite_is_set_to_be_durable(ledger):
    """A commit is on the disk when it returns, deleted bytes are zeroed, and rows belong to rows."""
    with ledger._database.reading() as connection:
        said = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout")
        }
    assert said == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "busy_timeout": 10_000,
    }


def test_what_is_forgotten_is_in_no_file(ledger, tmp_path):
    """Neither in the database nor in its log nor beside it."""
    lease = ledger.acquire("host-1", MINUTE)
    secrets = [b"a subject's row " * 4, b"a long subject's row " * 5000]
    digests = [ledger.put(secret) for secret in secrets]
    ledger.commit(lease, tick(0, predictions=digests[0], labels=digests[1]))
    for digest in digests:
        ledger.forget(digest)
    ledger.scrub()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if b"subject's row" in path.read_bytes()] == []
    assert {path.name for path in files} >= {"ledger.db"}


def test_a_log_that_is_being_read_is_told(ledger, monkeypatch):
    """What was forgotten may still be in it."""
    monkeypatch.setattr(database, "_SQLITE", ("PRAGMA busy_timeout = 1",))
    ledger._database._engine.dispose()
    lease = ledger.acquire("host-1", MINUTE)
    with ledger._database.reading() as connection:
        connection.execute(sa.select(schema.heads)).all()
        ledger.commit(lease, tick(0))
        with pytest.raises(StorageError, match="is being read") as caught:
            ledger.scrub()
    assert caught.value.retryable
    ledger.scrub()


def test_another_writer_is_waited_for_and_then_told(ledger, url, monkeypatch):
    """Who holds the lock too long makes an error that may pass."""
    monkeypatch.setattr(database, "_SQLITE", ("PRAGMA busy_timeout = 1",))
    ledger._database._engine.dispose()
    lease = ledger.acquire("host-1", MINUTE)
    other = sqlite3.connect(sa.make_url(url).database, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another process is writing, try again") as caught:
            ledger.commit(lease, tick(0))
        assert caught.value.retryable
        assert ledger.head().turn == -1  # reading goes on
        other.execute("ROLLBACK")
    finally:
        other.close()
    ledger.commit(lease, tick(0))


def test_a_full_disk_is_told_and_leaves_the_old_state(ledger):
    """Nothing of the turn is there, and with room the same commit succeeds."""
    lease = ledger.acquire("host-1", MINUTE)
    ledger.commit(lease, tick(0))
    entry = tick(1, labels=ledger.put(b"x" * 60_000))
    with ledger._database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"full: nothing was written, make room and go on") as caught:
        ledger.commit(lease, entry)
    assert not caught.value.retryable
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    assert ledger.head().turn == 0
    with ledger._database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    ledger.commit(lease, entry)
    assert ledger.check() == []


def test_a_file_that_may_not_be_written_is_read_and_told(ledger, url, tmp_path):
    """Everything can be looked at, and a commit says who must do what."""
    lease = ledger.acquire("host-1", MINUTE)
    ledger.commit(lease, tick(0))
    read_only = f"sqlite:///file:{sa.make_url(url).database}?mode=ro&uri=true"
    with SqlLedger.open(read_only, "churn", blobs=tmp_path / "state" / "blobs", create=False) as reader:
        assert [e.turn for e in reader.entries()] == [0]
        with pytest.raises(StorageError, match="check who may write the file and its folder") as caught:
            reader.commit(lease, tick(1))
        assert not caught.value.retryable


def test_a_file_that_is_no_database_is_told(tmp_path):
    """By its path, with what to do."""
    path = tmp_path / "ledger.db"
    path.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(StorageError, match=r"ledger\.db.*restore the file from a backup"):
        SqlLedger.open(f"sqlite:///{path}", "churn")


def test_a_commit_that_cannot_tidy_up_is_a_commit_all_the_same(ledger, monkeypatch):
    """The old checkpoint's file cannot be removed: the turn is there, and collecting removes it later."""
    lease = ledger.acquire("host-1", MINUTE)
    old = ledger.put(b"0" * 100_000)
    ledger.commit(lease, tick(0, checkpoint=old))
    ledger.commit(lease, tick(1, checkpoint=ledger.put(b"1" * 100_000)))

    def refuses(digest: str) -> None:
        raise StorageError("no route to host", retryable=True)

    monkeypatch.setattr(ledger.blobs, "delete", refuses)
    ledger.commit(lease, tick(2, checkpoint=ledger.put(b"2" * 100_000)))
    monkeypatch.undo()
    assert ledger.head().turn == 2
    assert ledger.collect(lease) == [old]


def test_a_commit_near_the_end_of_its_lease_removes_nothing(ledger, monkeypatch):
    """Somebody else may name the same bytes again by then: what is left over is the next holder's to collect."""
    lease = ledger.acquire("host-1", MINUTE)
    old = ledger.put(b"0" * 100_000)
    ledger.commit(lease, tick(0, checkpoint=old))
    ledger.commit(lease, tick(1, checkpoint=ledger.put(b"1" * 100_000)))
    monkeypatch.setattr(ledger, "_hold", lambda connection, lease: 0.0)
    ledger.commit(lease, tick(2, checkpoint=ledger.put(b"2" * 100_000)))
    assert old in set(ledger.blobs.digests())
    monkeypatch.undo()
    assert ledger.collect(lease) == [old]


# -- opening


def test_the_folder_and_the_blobs_are_made_beside_the_file(ledger, tmp_path):
    """Blobs of a deployment lie in a folder of their own, and appear with the first."""
    assert (tmp_path / "state" / "ledger.db").exists()
    ledger.put(b"x" * 100_000)
    (place,) = (tmp_path / "state" / "blobs").iterdir()
    assert place.name.startswith("churn-")


def test_two_ledgers_in_one_folder_do_not_collect_each_others_blobs(tmp_path):
    """Not even under the same name."""
    with (
        SqlLedger.open(f"sqlite:///{tmp_path}/one.db", "churn") as one,
        SqlLedger.open(f"sqlite:///{tmp_path}/two.db", "churn") as two,
    ):
        digest = one.put(b"x" * 100_000)
        assert two.collect(two.acquire("host-1", MINUTE)) == []
        assert one.get(digest)


def test_without_create_nothing_is_made(url, tmp_path):
    """A typo in a path leaves no trace."""
    for use in (lambda: SqlLedger.open(url, "churn", create=False), lambda: SqlLedger.deployments(url)):
        with pytest.raises(LedgerError, match="there is no ledger at"):
            use()
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    with pytest.raises(LedgerError, match="holds no ledger"):
        SqlLedger.open(f"sqlite:///{empty}", "churn", create=False)


@pytest.mark.parametrize(
    "url",
    [
        "ledger.db",
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "mysql://u:secret@host/db",
    ],
)
def test_a_url_that_cannot_hold_a_ledger_is_a_wrong_setting(url):
    """The error says how one is written, and no password."""
    with pytest.raises(ConfigError, match=r"write sqlite:///folder/ledger\.db") as caught:
        SqlLedger.open(url, "churn")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("deployment", "a/b"), ("deployment", ""), ("deployment", ".."), ("inline_bytes", -1), ("keep_checkpoints", 0)],
)
def test_a_wrong_setting_is_named(url, tmp_path, setting, value):
    """And nothing is made."""
    settings = {"deployment": "churn"} | {setting: value}
    with pytest.raises(ConfigError) as caught:
        SqlLedger.open(url, **settings)
    assert caught.value.field == setting
    assert list(tmp_path.iterdir()) == []


def test_a_missing_driver_says_what_to_install(monkeypatch):
    """psycopg comes with an extra."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"perennial\[postgres\]"):
        SqlLedger.open("postgresql://host/db", "churn", blobs="blobs")


def test_a_server_that_is_not_there_is_told_without_the_password():
    """It may be there later."""
    with pytest.raises(StorageError, match=r"postgres:\*\*\*@127\.0\.0\.1:1/test: ") as caught:
        SqlLedger.open("postgresql://postgres:secret@127.0.0.1:1/test", "churn", blobs="blobs")
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


# -- errors


class Refusal(Exception):
    """An error of PostgreSQL's driver."""

    def __init__(self, state: str | None) -> None:
        super().__init__("refused\nLINE 1: SELECT")
        self.sqlstate = state


@pytest.mark.parametrize(
    ("state", "retryable"),
    [
        (None, True),
        ("08006", True),
        ("40001", True),
        ("40P01", True),
        ("53300", True),
        ("55P03", True),
        ("57P01", True),
        ("53100", False),
        ("25006", False),
        ("42P01", False),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(state, retryable):
    """A server that restarts, a deadlock or a lock passes; a full disk or a missing table does not."""
    told = explain(Refusal(state), "db")
    assert told.retryable is retryable
    assert str(told).startswith("db: refused")
    assert "LINE 1" not in str(told)


def test_errors_survive_another_process():
    """With what they carry, and each says whether it may pass."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__]
    assert len(kinds) == 8
    for kind in kinds:
        error = kind("told")
        error.note = 1
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is kind
        assert (str(back), vars(back)) == ("told", vars(error))
        assert isinstance(back, LedgerError)
        assert isinstance(back.retryable, bool)
        assert kind.__name__ in errors.__doc__


def test_the_way_in_is_light():
    """Loading the package loads no database."""
    code = "import sys, perennial.ledger, perennial.ledger.records, perennial.ledger.errors, perennial.ledger.blobs\n"
    code += "print(sorted({'sqlalchemy', 'alembic', 'fsspec', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_script_folder_is_in_the_package():
    """Where the code looks for it."""
    assert (Path(schema.__file__).parent / "migrations" / "versions" / f"r{schema.REVISION}.py").exists()
