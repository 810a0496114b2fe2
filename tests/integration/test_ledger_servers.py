"""The ledger across processes: killed at every durable step, beside others, and on a server that goes away."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from perennial.core.errors import ConfigError
from perennial.ledger import database
from perennial.ledger.errors import LeaseHeld, LeaseLost, StorageError
from perennial.ledger.records import Entry
from perennial.ledger.sql import SqlLedger
from tests.postgres import schema

MINUTE = timedelta(minutes=1)

#: takes turns to the third, each with a model of its own in a blob, from wherever the ledger stands
WORKER = """
    import sys
    from datetime import timedelta

    from perennial.core.records import Version
    from perennial.ledger.records import AliasChange, Entry, Saved
    from perennial.ledger.sql import SqlLedger

    ledger = SqlLedger.open(sys.argv[1], "churn", blobs=sys.argv[2], inline_bytes=100)
    lease = ledger.acquire("worker", timedelta(minutes=1))
    ledger.collect(lease)
    head = ledger.head()
    total = int(ledger.get(head.checkpoint)) if head.checkpoint else 0
    for turn in range(head.turn + 1, 3):
        ledger.intend(lease, turn, f"[{turn}, {turn + 1})")
        total += turn + 1
        model = f"model of turn {turn}, sum {total}".encode() * 50
        version = Version(
            major=turn + 1, minor=0, parent=None, kind="fit", at=turn, ready_at=turn, trained_rows=1, row_trees=0,
            first=turn, last=turn, newest=turn, data="d", key=None, reason="every turn",
        )
        entry = Entry(
            turn=turn, kind="batch", now=turn, first=turn, rows=1, position=str(turn),
            checkpoint=ledger.put(str(total).encode()),
            versions=(Saved(version=version, blob=ledger.put(model), state="s", size=len(model)),),
            aliases=(AliasChange(alias="champion", version=version.number, generation=turn, reason="new"),),
        )
        ledger.commit(lease, entry)
    ledger.release(lease)
    ledger.close()
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a schema that only this module uses."""
    with schema() as url:
        yield url


def work(url: str, blobs: Path, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    """Run the worker, killed at a failpoint if one is named."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORKER), url, str(blobs)],
        env=os.environ | {"PERENNIAL_FAILPOINT": failpoint},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def result(ledger: SqlLedger) -> tuple[object, ...]:
    """What the worker leaves, whatever happened on the way."""
    models = [ledger.get(saved.blob) for saved in ledger.versions()]
    return (
        list(ledger.entries()),
        models,
        ledger.get(ledger.head().checkpoint),
        ledger.alias_history(),
        sorted(ledger.blobs.digests()),
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[object, ...]:
    """What the worker leaves when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = work(f"sqlite:///{folder}/ledger.db", folder / "blobs")
    assert done.returncode == 0, done.stderr
    with SqlLedger.open(f"sqlite:///{folder}/ledger.db", "churn") as ledger:
        return result(ledger)


@pytest.mark.parametrize(
    "failpoint",
    [
        "blob.part:2",
        "blob.synced",
        "blob.renamed:3",
        "blob.after:2",
        "commit.before:2",
        "commit.inside:3",
        "commit.after:2",
        "blob.after:2,orphan.removed",
    ],
)
def test_a_killed_process_leaves_the_old_state_or_the_new(tmp_path, failpoint, undisturbed):
    """After SIGKILL nothing is half done, and the next process ends exactly where an undisturbed one does."""
    url, blobs = f"sqlite:///{tmp_path}/ledger.db", tmp_path / "blobs"
    killed = work(url, blobs, failpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with SqlLedger.open(url, "churn", blobs=blobs) as ledger:
        assert all(finding.safe for finding in ledger.check())
        turns = [entry.turn for entry in ledger.entries()]
        assert turns == list(range(ledger.head().turn + 1))
        assert len(ledger.versions()) == len(ledger.alias_history("champion")) == len(turns)
    if "orphan" in failpoint:  # the next process is killed while it collects
        assert work(url, blobs, "orphan.removed").returncode == -signal.SIGKILL
    done = work(url, blobs)
    assert done.returncode == 0, done.stderr
    with SqlLedger.open(url, "churn", blobs=blobs) as ledger:
        assert ledger.check() == []
        assert result(ledger) == undisturbed


def test_a_killed_process_on_a_server(tmp_path, postgres):
    """PostgreSQL undoes what was not committed, and the next process goes on."""
    blobs = tmp_path / "blobs"
    assert work(postgres, blobs, "commit.inside:2").returncode == -signal.SIGKILL
    assert work(postgres, blobs, "commit.after").returncode == -signal.SIGKILL
    done = work(postgres, blobs)
    assert done.returncode == 0, done.stderr
    with SqlLedger.open(postgres, "churn", blobs=blobs) as ledger:
        assert [entry.turn for entry in ledger.entries()] == [0, 1, 2]
        assert ledger.get(ledger.head().checkpoint) == b"6"
        assert ledger.check() == []


def tick(turn: int, **other: object) -> Entry:
    """A turn in which nothing happened."""
    rest = {"kind": "tick", "now": turn, "first": 0, "rows": 0, "position": "", "checkpoint": ""}
    return Entry(turn=turn, **rest | other)


@pytest.fixture
def open_served(postgres, tmp_path):
    """Opens a ledger of its own on the server."""
    name, made = f"d-{secrets.token_hex(4)}", []

    def opened() -> SqlLedger:
        made.append(SqlLedger.open(postgres, name, blobs=tmp_path / "blobs"))
        return made[-1]

    yield opened
    for ledger in made:
        ledger.close()


def test_a_connection_that_was_cut_is_told_and_made_anew(open_served):
    """The server ends our connection inside a transaction: an error that may pass, nothing written, and on we go."""
    ledger, other = open_served(), open_served()
    lease = ledger.acquire("host-1", MINUTE)
    with pytest.raises(StorageError) as caught, ledger._database.writing() as connection:  # noqa: PT012
        process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        connection.execute(
            sa.text("UPDATE heads SET position = 'x' WHERE deployment_id = :d"), {"d": ledger.deployment}
        )
        with other._database.reading() as second:
            second.execute(sa.text("SELECT pg_terminate_backend(:process)"), {"process": process})
        connection.exec_driver_sql("SELECT 1")
    assert caught.value.retryable
    ledger.commit(lease, tick(0))
    assert ledger.head().turn == 0


def test_a_connection_that_died_at_rest_is_not_noticed(open_served):
    """The server was started again between two turns."""
    ledger, other = open_served(), open_served()
    lease = ledger.acquire("host-1", MINUTE)
    with ledger._database.reading() as connection:
        process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    with other._database.reading() as second:
        second.execute(sa.text("SELECT pg_terminate_backend(:process)"), {"process": process})
    ledger.commit(lease, tick(0))
    assert ledger.head().turn == 0


def test_a_lock_is_not_waited_for_for_ever(open_served, monkeypatch):
    """Somebody holds the lease's row in a transaction of their own."""
    monkeypatch.setattr(database, "_POSTGRES", ("SET lock_timeout = '50ms'",))
    ledger, other = open_served(), open_served()
    lease = ledger.acquire("host-1", MINUTE)
    with other._database.writing() as connection:
        connection.execute(
            sa.text("SELECT * FROM leases WHERE deployment_id = :d FOR UPDATE"), {"d": ledger.deployment}
        )
        with pytest.raises(StorageError, match="lock timeout") as caught:
            ledger.commit(lease, tick(0))
    assert caught.value.retryable
    ledger.commit(lease, tick(0))


def test_a_takeover_waits_for_a_commit_and_fences_the_next(open_served):
    """Once the lease is checked inside a transaction, nobody takes it over before that is done."""
    ledger, other = open_served(), open_served()
    lease = ledger.acquire("host-1", MINUTE)
    with other._database.writing() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
        with ledger._database.writing() as inside:
            ledger._hold(inside, lease)
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                connection.execute(other._say.lease).one()
        connection.rollback()
    with pytest.raises(LeaseHeld):
        other.acquire("host-2", MINUTE)
    with ledger._database.writing() as connection:
        connection.execute(
            sa.text("UPDATE leases SET expires_at = 1 WHERE deployment_id = :d"), {"d": ledger.deployment}
        )
    other.acquire("host-2", MINUTE)
    with pytest.raises(LeaseLost, match="host-2"):
        ledger.commit(lease, tick(0))


def test_a_server_needs_a_place_for_blobs(postgres):
    """There is no folder beside it."""
    with pytest.raises(ConfigError, match=r"a folder that all share, or s3://"):
        SqlLedger.open(postgres, "churn")


def test_a_commit_is_durable_where_the_server_would_not_wait(postgres, tmp_path):
    """`synchronous_commit = off` is overruled for the ledger's own connections."""
    url = sa.make_url(postgres)
    lax = url.update_query_dict({"options": f"{url.query['options']} -csynchronous_commit=off"}).render_as_string(False)
    with SqlLedger.open(lax, "churn", blobs=tmp_path) as ledger, ledger._database.reading() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
