"""What every durable ledger does, in SQLite and in PostgreSQL, with blobs in a folder and in an object store."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from perennial.core import failpoints
from perennial.core.errors import ConfigError, FormatError, LedgerError
from perennial.core.records import Decision, Loss, Verdict, Version, WaitingChanges, WaitingRow
from perennial.core.times import NEVER
from perennial.ledger import sql
from perennial.ledger.blobs import LocalBlobs
from perennial.ledger.errors import (
    AliasMoved,
    Conflict,
    CorruptBlob,
    LeaseHeld,
    LeaseLost,
    MissingBlob,
    StorageError,
    UnknownVersion,
)
from perennial.ledger.records import Alias, AliasChange, Entry, Head, Lease, Saved, Segment
from perennial.ledger.schema import metadata
from perennial.ledger.sql import SqlLedger
from tests.postgres import schema

MINUTE = timedelta(minutes=1)
SMALL, LARGE = 10, 3_000  # bytes on either side of the limit that the tests set
LIMIT = 1_000

Open = Callable[..., SqlLedger]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a schema that only this run uses."""
    with schema() as url:
        yield url


@pytest.fixture(params=["sqlite", "sqlite and an object store", "postgresql"])
def open_ledger(request: pytest.FixtureRequest, tmp_path) -> Iterator[Open]:
    """Opens the ledger of a deployment, always in the same place; ``.url`` is where."""
    made: list[SqlLedger] = []
    prefix = secrets.token_hex(4)
    url = request.getfixturevalue("postgres") if request.param == "postgresql" else f"sqlite:///{tmp_path}/ledger.db"
    blobs = f"memory://{prefix}" if "object store" in request.param else tmp_path / "blobs"

    def opened(deployment: str = "churn", **options: object) -> SqlLedger:
        ledger = SqlLedger.open(url, f"{deployment}-{prefix}", **{"blobs": blobs, "inline_bytes": LIMIT} | options)
        made.append(ledger)
        return ledger

    opened.url = url  # type: ignore[attr-defined]
    opened.prefix = prefix  # type: ignore[attr-defined]
    yield opened
    for ledger in made:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Open) -> SqlLedger:
    """A new ledger."""
    return open_ledger()


@pytest.fixture
def lease(ledger: SqlLedger) -> Lease:
    """Its lease."""
    return ledger.acquire("host-1", MINUTE)


def version(major: int, minor: int = 0, **other: object) -> Version:
    """A version."""
    facts = {
        "parent": None, "kind": "fit", "at": 5, "ready_at": 6, "trained_rows": 7, "row_trees": 0, "first": 0,
        "last": 6, "newest": 4, "data": "d" * 64, "key": None, "reason": "every 7d",
    }  # fmt: skip
    return Version(major=major, minor=minor, **facts | other)


def saved(ledger: SqlLedger, number: str, blob: bytes = b"") -> Saved:
    """A version with a model in the ledger."""
    major, minor = map(int, number.split("."))
    data = blob or f"model {number}".encode()
    return Saved(version=version(major, minor), blob=ledger.put(data), state="s" * 64, size=len(data))


def tick(turn: int, **other: object) -> Entry:
    """A turn in which nothing happened but what is said."""
    rest = {"kind": "tick", "now": turn * 10, "first": 0, "rows": 0, "position": f"p{turn}", "checkpoint": ""}
    return Entry(turn=turn, **rest | other)


def promote(number: str | None, generation: int, alias: str = "champion", **other: object) -> AliasChange:
    """A move of a pointer."""
    return AliasChange(alias=alias, version=number, generation=generation, reason="better", **other)


def run_out(ledger: SqlLedger) -> None:
    """Let the lease run out, without waiting."""
    with ledger._database.writing() as connection:
        mine = {"mine": ledger.deployment}
        connection.execute(sa.text("UPDATE leases SET expires_at = 1 WHERE deployment_id = :mine"), mine)


def set_back(ledger: SqlLedger, hours: int = 1) -> None:
    """Set the database's clock back, as the lease sees it: what it was to run out at is further away."""
    with ledger._database.writing() as connection:
        later = {"mine": ledger.deployment, "more": hours * 3_600_000_000}
        connection.execute(
            sa.text("UPDATE leases SET expires_at = expires_at + :more WHERE deployment_id = :mine"), later
        )


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass on the monotonic clock of the ledgers."""
    true, gone = sql.time.monotonic, [0.0]

    def more(seconds: float) -> None:
        gone[0] += seconds

    monkeypatch.setattr(sql.time, "monotonic", lambda: true() + gone[0])
    return more


def everything(ledger: SqlLedger) -> tuple[object, ...]:
    """All that can be read, for comparison."""
    return ledger.head(), list(ledger.entries()), ledger.alias_history(), ledger.segments(), ledger.versions()


# -- turns


def full(ledger: SqlLedger, turn: int = 0) -> Entry:
    """A turn that has everything."""
    rows = ledger.put(b"rows" * LARGE)
    return Entry(
        turn=turn,
        kind="batch",
        now=1_790_000_000_000_000,
        first=-1,
        rows=3,
        position='{"offset": 7}',
        checkpoint=ledger.put(b"state" * LARGE),
        serving="1.0",
        loss=Loss(n=3, total=0.1 + 0.2, name="log loss"),
        decisions=(Decision(True, "first — éß 🌲"), Decision(False, "a\nb 'c' \"d\" %s :e")),
        verdicts=(
            Verdict(
                outcome="promote",
                version="1.1",
                reason="better",
                champion="1.0",
                evidence={
                    "p": 0.03,
                    "bounds": [-math.inf, math.inf],
                    "n": 2**70,
                    "nested": {"$x": [None, True, {"$float": "nan"}], "$$": 1.0, "empty": {}},
                    "": "",
                },
            ),
            Verdict(outcome="keep", version="1.0", reason="", evidence={}),
        ),
        versions=(
            Saved(version=version(1, 0, kind="start"), blob=ledger.put(b"m0"), state="s0", size=2),
            Saved(
                version=version(1, 1, parent="1.0", key="k" * 64, kind="update", steps=4, newest=NEVER, last=2**62),
                blob=ledger.put(b"m1" * LARGE),
                state="s1",
                size=2 * LARGE,
                golden=ledger.put(b"golden"),
                cpu_seconds=1e-300,
                facts={"learner": "SGD", "window": "the last 90d", "rate": 0.1},
            ),
        ),
        scores={"log loss": (3, 1e300), "accuracy": (0, 0.0), "worst": (1, math.inf)},
        segment=Segment(digest=rows, first=7, rows=3, oldest=-5, newest=NEVER),
        thinned=tuple(
            Segment(digest=ledger.put(name * LARGE), first=first, rows=2, oldest=0, newest=1)
            for first, name in ((1, b"t"), (3, b"u"))
        ),
        predictions=ledger.put(b"predictions"),
        labels=ledger.put(b"labels"),
        aliases=(promote("1.0", 0, at=5), promote("1.1", 1, actor="run", at=6), promote("1.0", 0, "previous", at=6)),
        quarantined="too many nulls",
        late=2,
        staleness=-3,
        notes=("a note", "another — \ud800"),
        cpu_seconds=12.5,
    )


def test_what_was_committed_is_read_back_equal(open_ledger, ledger, lease):
    """Every field of a turn comes back as it was, in this process and in another."""
    given = [full(ledger), tick(1), tick(2, released=(full(ledger).segment.digest,), kind="close", serving=None)]
    for entry in given:
        ledger.commit(lease, entry)
    again = open_ledger()
    for reader in (ledger, again):
        assert list(reader.entries()) == given
        assert reader.versions() == list(given[0].versions)
        assert reader.verdicts() == list(given[0].verdicts)
        assert reader.head() == Head(turn=2, position="p2", checkpoint="", intent="")
    assert again.get(given[0].checkpoint) == b"state" * LARGE
    assert again.get(given[0].labels) == b"labels"
    assert again.check() == []


def test_numbers_that_are_not(ledger, lease):
    """A NaN stays a NaN: SQLite has none, so it is not left to it."""
    entry = tick(
        0,
        loss=Loss(n=1, total=math.nan, name="log loss"),
        cpu_seconds=math.nan,
        scores={"a": (1, math.nan)},
        verdicts=(Verdict(outcome="keep", version="1.0", reason="", evidence={"p": math.nan}),),
    )
    ledger.commit(lease, entry)
    (back,) = ledger.entries()
    assert math.isnan(back.loss.total)
    assert math.isnan(back.cpu_seconds)
    assert math.isnan(back.scores["a"][1])
    assert math.isnan(back.verdicts[0].evidence["p"])


def test_numbers_of_numpy_are_numbers(ledger, lease):
    """Counts and sums may come as numpy's own types."""
    given = tick(
        0,
        now=np.int64(7),
        rows=np.int32(3),
        loss=Loss(n=np.int64(3), total=np.float64(0.5), name="a"),
        scores={"a": (np.int64(3), np.float32(0.5))},
        verdicts=(
            Verdict(
                outcome="keep",
                version="1.0",
                reason="",
                evidence={"n": np.int64(3), "all": np.arange(3), "p": [np.float32(np.inf)], "yes": np.bool_(True)},
            ),
        ),
        versions=(replace(saved(ledger, "1.0"), version=version(1, trained_rows=np.int64(9))),),
        staleness=np.int64(4),
        late=np.uint8(1),
    )
    ledger.commit(lease, given)
    (back,) = ledger.entries()
    assert back == replace(
        given,
        verdicts=(replace(given.verdicts[0], evidence={"n": 3, "all": [0, 1, 2], "p": [math.inf], "yes": True}),),
    )
    assert type(back.now) is int


def test_words_that_a_database_cannot_hold_are_told_otherwise(ledger, lease):
    """A reason may quote an error with any bytes in it; it never keeps a turn from being committed."""
    ledger.commit(lease, tick(0, decisions=(Decision(True, "a\0b\ud800"),), quarantined="\0"))
    (back,) = ledger.entries()
    assert back.decisions == (Decision(True, "a\\x00b\\ud800"),)
    assert back.quarantined == "\\x00"


def test_evidence_that_is_no_plain_data_is_refused(ledger, lease):
    """And nothing is written."""
    with pytest.raises(LedgerError, match="is no plain data"):
        ledger.commit(
            lease, tick(0, verdicts=(Verdict(outcome="keep", version="1.0", reason="", evidence={"a": {1, 2}}),))
        )
    assert ledger.head().turn == -1


@pytest.mark.parametrize(("turn", "told"), [(0, "was committed before"), (1, "was committed before"), (3, "follow")])
def test_a_turn_that_does_not_follow_is_refused(ledger, lease, turn, told):
    """Committed twice or after a gap: an error that names both, and nothing changed."""
    for index in (0, 1):
        ledger.commit(lease, tick(index))
    before = everything(ledger)
    with pytest.raises(Conflict, match=rf"turn {turn} .*{told}.*: the last one is 1"):
        ledger.commit(lease, tick(turn, checkpoint=ledger.put(b"x")))
    assert everything(ledger) == before


def test_entries_come_by_range_and_in_pages(ledger, lease, monkeypatch):
    """Half-open, in order, whatever the page."""
    monkeypatch.setattr(sql, "_PAGE", 3)
    for index in range(8):
        ledger.commit(lease, tick(index))
    assert [e.turn for e in ledger.entries()] == list(range(8))
    assert [e.turn for e in ledger.entries(2, 7)] == [2, 3, 4, 5, 6]
    assert [e.turn for e in ledger.entries(6)] == [6, 7]
    assert [e.turn for e in ledger.entries(8)] == list(ledger.entries(3, 3)) == []
    reading = ledger.entries(5)
    assert next(reading).turn == 5
    ledger.commit(lease, tick(8))  # a reader that rests holds nothing open
    assert [e.turn for e in reading] == [6, 7, 8]


def test_a_failure_inside_leaves_nothing_and_can_be_tried_again(ledger, lease, monkeypatch):
    """The last statement of a commit fails: the old state is there, and the same commit then succeeds."""
    entry = full(ledger)
    monkeypatch.setattr(failpoints, "reach", lambda name: 1 / 0 if name == "commit.inside" else None)
    with pytest.raises(ZeroDivisionError):
        ledger.commit(lease, entry)
    assert everything(ledger) == (Head(turn=-1, position="", checkpoint="", intent=""), [], [], [], [])
    monkeypatch.undo()
    ledger.commit(lease, entry)
    assert list(ledger.entries()) == [entry]
    assert ledger.check() == []


# -- bounds


def test_bounds_are_fixed_once_and_end_with_their_turn(open_ledger, ledger, lease):
    """What was fixed is read after a restart, cannot be changed, and is over with the commit."""
    ledger.intend(lease, 0, "[0, 10)")
    ledger.intend(lease, 0, "[0, 10)")
    with pytest.raises(Conflict, match=r"fixed to be '\[0, 10\)'"):
        ledger.intend(lease, 0, "[0, 11)")
    with pytest.raises(Conflict, match="turn 1 cannot be next: the last one is -1"):
        ledger.intend(lease, 1, "[0, 10)")
    assert open_ledger().head() == Head(turn=-1, position="", checkpoint="", intent="[0, 10)")
    ledger.commit(lease, tick(0))
    assert ledger.head().intent == ""
    ledger.intend(lease, 1, "[10, 20)")
    assert ledger.head().intent == "[10, 20)"


# -- rows that wait for a label


def key(number: int) -> bytes:
    """A digest of an id."""
    return bytes([number]) * 16


def wait(ledger: SqlLedger, lease: Lease, turn: int, **changes: object) -> None:
    """A turn of ten rows that changes what waits."""
    waiting = WaitingChanges(**{"until": -NEVER} | changes)
    ledger.commit(lease, tick(turn, kind="batch", first=10 * turn, rows=10, waiting=waiting))


def test_rows_wait_for_a_label_until_they_need_not(open_ledger, ledger, lease):
    """They are found by the digest of their id, can share one, and go when their time is over or they are erased."""
    rows = [WaitingRow(id=key(i), position=i, time=100 + i) for i in range(4)]
    wait(ledger, lease, 0, added=rows)
    wait(ledger, lease, 1, added=[WaitingRow(id=key(1), position=12, time=90, named=True)], named=[(key(3), 3)])
    other = open_ledger("other")
    for reader in (ledger, open_ledger()):
        found = reader.waiting([key(9), key(1), key(3)])
        assert found == {
            key(1): [rows[1], WaitingRow(id=key(1), position=12, time=90, named=True)],
            key(3): [replace(rows[3], named=True)],
        }
    assert ledger.waiting([]) == other.waiting([key(1)]) == {}
    wait(ledger, lease, 2, until=101, gone=[(key(3), 3)])
    assert ledger.waiting([key(i) for i in range(4)]) == {key(2): [rows[2]]}
    wait(ledger, lease, 3, until=200, added=[WaitingRow(id=key(5), position=31, time=150)])
    assert ledger.waiting([key(2), key(5)]) == {key(5): [WaitingRow(id=key(5), position=31, time=150)]}, (
        "a turn's own rows wait a turn"
    )
    assert ledger.check() == []


def test_many_rows_wait(ledger, lease):
    """More ids than one statement takes are looked up all the same."""
    rows = [WaitingRow(id=i.to_bytes(16), position=i % 10, time=i) for i in range(sql._IDS + 3)]
    wait(ledger, lease, 0, added=rows)
    assert ledger.waiting([row.id for row in rows]) == {row.id: [row] for row in rows}


def test_what_waits_is_part_of_its_turn(ledger, lease, monkeypatch):
    """A commit that fails changes nothing among the rows that wait."""
    wait(ledger, lease, 0, added=[WaitingRow(id=key(1), position=1, time=5)])
    before = everything(ledger)
    with monkeypatch.context() as broken:
        broken.setattr(failpoints, "reach", lambda name: (_ for _ in ()).throw(OSError) if "inside" in name else None)
        with pytest.raises((OSError, StorageError)):
            wait(ledger, lease, 1, until=9, added=[WaitingRow(id=key(2), position=12, time=15)])
    assert ledger.waiting([key(1), key(2)]) == {key(1): [WaitingRow(id=key(1), position=1, time=5)]}
    assert everything(ledger) == before


def test_a_row_that_waits_and_was_never_taken_is_found(ledger, lease):
    """`check` knows how many rows the turns brought."""
    wait(ledger, lease, 0, added=[WaitingRow(id=key(1), position=10, time=5)])
    assert [finding.what for finding in ledger.check()] == ["row 10 waits for a label, and 10 rows were taken"]


# -- the lease


def test_only_one_holds_the_lease(open_ledger):
    """Another holder is told who has it, and for how long; the next token is greater."""
    first, second = open_ledger(), open_ledger()
    lease = first.acquire("host-1", MINUTE)
    with pytest.raises(LeaseHeld, match=r"host-1.*stop it, or wait") as caught:
        second.acquire("host-2", MINUTE)
    assert caught.value.holder == "host-1"
    assert 50 < caught.value.remaining <= 60
    assert caught.value.retryable
    first.release(lease)
    taken = second.acquire("host-2", MINUTE)
    assert (taken.holder, taken.token > lease.token) == ("host-2", True)
    first.release(lease)  # somebody else's by now: nothing happens
    second.renew(taken, MINUTE)


def test_a_holder_need_not_wait_for_itself(ledger):
    """After a crash the same holder goes on at once, and the former token is worth nothing."""
    old = ledger.acquire("host-1", MINUTE)
    new = ledger.acquire("host-1", MINUTE)
    assert new.token > old.token
    with pytest.raises(LeaseLost):
        ledger.commit(old, tick(0))
    ledger.commit(new, tick(0))


def test_after_a_takeover_the_old_token_can_do_nothing(open_ledger):
    """The fence: commit, bounds, renewal, collecting and mending are refused, and nothing is written."""
    old, new = open_ledger(), open_ledger()
    lease = old.acquire("host-1", MINUTE)
    orphan = old.put(b"orphan" * LARGE)
    run_out(old)
    new.acquire("host-2", MINUTE)
    for use in (
        lambda: old.commit(lease, tick(0)),
        lambda: old.intend(lease, 0, "[0, 1)"),
        lambda: old.renew(lease, MINUTE),
        lambda: old.collect(lease),
        lambda: old.mend(lease),
    ):
        with pytest.raises(LeaseLost, match="taken over by 'host-2'"):
            use()
    assert old.head() == Head(turn=-1, position="", checkpoint="", intent="")
    assert old.get(orphan)


def test_a_dead_holder_is_waited_for_no_longer_than_its_lease(open_ledger, passes):
    """Also where the database's clock was set back; and who was only asleep can write nothing then."""
    old, new = open_ledger(), open_ledger()
    lease = old.acquire("host-1", MINUTE)
    set_back(old)
    with pytest.raises(LeaseHeld) as caught:
        new.acquire("host-2", 2 * MINUTE)
    assert caught.value.remaining == 60
    passes(59)
    with pytest.raises(LeaseHeld):
        new.acquire("host-2", 2 * MINUTE)
    old.commit(lease, tick(0))  # it lives after all: nobody took over yet, and the database says that it may
    passes(2)
    taken = new.acquire("host-2", 2 * MINUTE)
    assert taken.token > lease.token
    with pytest.raises(LeaseLost, match="taken over by 'host-2'"):
        old.commit(lease, tick(1))
    new.commit(taken, tick(1))
    with pytest.raises(LeaseLost):
        old.renew(lease, MINUTE)
    assert [entry.turn for entry in new.entries()] == [0, 1]


def test_a_holder_that_renews_is_not_taken_over_though_the_clock_falls(open_ledger, passes):
    """However often it is set back, and however long somebody waits: each renewal is seen."""
    old, new = open_ledger(), open_ledger()
    lease = old.acquire("host-1", MINUTE)
    for turn in range(4):
        set_back(old)
        with pytest.raises(LeaseHeld, match="host-1"):
            new.acquire("host-2", MINUTE)
        passes(40)
        old.renew(lease, MINUTE)
        old.commit(lease, tick(turn))
    with pytest.raises(LeaseHeld):
        new.acquire("host-2", MINUTE)


def test_nothing_is_removed_once_others_may_take_over(open_ledger, passes):
    """After a lease's time by its holder's clock, whatever the database's says: somebody may name the bytes again."""
    ledger = open_ledger()
    lease = ledger.acquire("host-1", MINUTE)
    old = ledger.put(b"0" * LARGE)
    ledger.commit(lease, tick(0, checkpoint=old))
    ledger.commit(lease, tick(1, checkpoint=ledger.put(b"1" * LARGE)))
    set_back(ledger)
    passes(61)
    ledger.commit(lease, tick(2, checkpoint=ledger.put(b"2" * LARGE)))
    assert old in set(ledger.blobs.digests())
    ledger.renew(lease, MINUTE)
    assert ledger.collect(lease) == [old]


def test_a_lease_that_ran_out_writes_nothing(ledger, lease):
    """Also if nobody has taken it over yet; renewed, it does again."""
    run_out(ledger)
    with pytest.raises(LeaseLost, match="ran out"):
        ledger.commit(lease, tick(0))
    assert ledger.head().turn == -1
    ledger.renew(lease, MINUTE)
    ledger.commit(lease, tick(0))


def test_a_lease_that_was_given_back_is_gone(ledger, lease):
    """Its holder must acquire a new one."""
    ledger.release(lease)
    with pytest.raises(LeaseLost, match="was given back"):
        ledger.renew(lease, MINUTE)


def test_of_many_who_ask_at_once_one_gets_it(open_ledger):
    """Threads with connections of their own ask together: one lease, one token."""
    ledger = open_ledger()
    ledger.acquire("before", MINUTE)
    run_out(ledger)
    got, start = [], threading.Barrier(4)

    def ask(name: str) -> None:
        mine = open_ledger()
        start.wait()
        with suppress(LeaseHeld):
            got.append(mine.acquire(name, MINUTE))

    threads = [threading.Thread(target=ask, args=(f"host-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [lease.token for lease in got] == [2]


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1)])
def test_a_lease_lasts(ledger, ttl):
    """No lease lasts no time."""
    with pytest.raises(ConfigError, match="positive duration"):
        ledger.acquire("host-1", ttl)


# -- bytes


@pytest.mark.parametrize("size", [0, SMALL, LIMIT, LIMIT + 1, LARGE])
def test_bytes_are_there_before_and_after_the_commit(open_ledger, ledger, lease, size):
    """Small or large, at once here, and after the commit for all."""
    digest = ledger.put(b"x" * size)
    assert ledger.get(digest) == b"x" * size
    ledger.commit(lease, tick(0, checkpoint=digest))
    assert ledger.get(digest) == b"x" * size
    assert open_ledger().get(digest) == b"x" * size
    assert (digest in set(ledger.blobs.digests())) == (size > LIMIT)


def test_small_bytes_that_no_commit_names_are_dropped(open_ledger, ledger, lease):
    """They never reach the database."""
    digest = ledger.put(b"a failed challenger")
    with pytest.raises(MissingBlob):
        open_ledger().get(digest)
    ledger.commit(lease, tick(0))
    with pytest.raises(MissingBlob, match=digest) as caught:
        ledger.get(digest)
    assert caught.value.digest == digest


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_bytes_that_facts_of_a_version_name_are_kept(open_ledger, ledger, lease, size):
    """However deep, whatever the checkpoint does; a digest that was never put is but a word."""
    weights, state = ledger.put(b"w" * size), ledger.put(b"s" * size)
    facts = {"lesson": {"weights": weights, "rows": [[0, 9]]}, "states": [state], "data": "e" * 64}
    ledger.commit(lease, tick(0, checkpoint=state, versions=(replace(saved(ledger, "1.0"), facts=facts),)))
    for turn in range(1, 5):
        ledger.commit(lease, tick(turn, checkpoint=ledger.put(bytes([turn]) * size)))
    assert ledger.collect(lease) == []
    again = open_ledger()
    assert again.check() == []
    assert (again.get(weights), again.get(state)) == (b"w" * size, b"s" * size)
    assert again.version("1.0").facts == facts
    again.forget(weights)
    assert again.check() == []


@pytest.mark.parametrize("field", ["checkpoint", "predictions", "labels"])
def test_a_turn_cannot_name_bytes_that_were_never_put(ledger, lease, field):
    """Nothing is written."""
    with pytest.raises(MissingBlob, match="which was never put"):
        ledger.commit(lease, tick(0, **{field: "a" * 64}))
    assert ledger.head().turn == -1
    with pytest.raises(MissingBlob, match="is no digest"):
        ledger.commit(lease, tick(0, **{field: "../../etc/passwd"}))


def test_bytes_that_a_dead_process_put_count_as_put(open_ledger, ledger):
    """The blob is durable: who takes over may name it."""
    digest = ledger.put(b"x" * LARGE)
    ledger.close()
    other = open_ledger()
    other.commit(other.acquire("host-2", MINUTE), tick(0, checkpoint=digest))
    assert other.check() == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("keep", [1, 2])
def test_the_last_checkpoints_are_kept(open_ledger, size, keep):
    """Of older ones the bytes are gone with the commit, the digests stay."""
    ledger = open_ledger(keep_checkpoints=keep)
    lease = ledger.acquire("host-1", MINUTE)
    made = []
    for index in range(5):
        made.append(ledger.put(bytes([index]) * size))
        ledger.commit(lease, tick(index, checkpoint=made[-1]))
    for digest in made[:-keep]:
        with pytest.raises(MissingBlob):
            ledger.get(digest)
    assert [ledger.get(d)[0] for d in made[-keep:]] == list(range(5))[-keep:]
    assert [e.checkpoint for e in ledger.entries()] == made
    ledger.commit(lease, tick(5))  # brings none, so none goes
    assert [ledger.get(d)[0] for d in made[-keep:]] == list(range(5))[-keep:]
    assert ledger.check() == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_checkpoint_that_something_else_names_is_kept(open_ledger, ledger, lease, size):
    """Whether a model has the same bytes from the start, later, or the state came again."""
    same, model, again = b"s" * size, b"m" * size, b"a" * size
    first = ledger.put(same)
    ledger.commit(lease, tick(0, checkpoint=first, versions=(saved(ledger, "1.0", same),)))
    second = ledger.put(model)
    ledger.commit(lease, tick(1, checkpoint=second))
    later = saved(ledger, "1.1", model)
    ledger._pending.pop(second, None)  # named by digest alone, as after a restart
    ledger._loose.pop(second, None)
    third = ledger.put(again)
    ledger.commit(lease, tick(2, checkpoint=third, versions=(later,)))
    ledger.commit(lease, tick(3, checkpoint=ledger.put(b"other" * size)))
    ledger.commit(lease, tick(4, checkpoint=ledger.put(again)))
    ledger.commit(lease, tick(5, checkpoint=ledger.put(b"more" * size)))
    assert [ledger.get(d)[:1] for d in (first, second, third)] == [b"s", b"m", b"a"]
    assert open_ledger().check() == []


def test_bytes_that_changed_are_told(ledger, lease):
    """A flipped bit is an error that names the digest, in a row and in a blob."""
    small, large = ledger.put(b"x" * SMALL), ledger.put(b"x" * LARGE)
    ledger.commit(lease, tick(0, checkpoint=small, labels=large))
    with ledger._database.writing() as connection:
        values = {"data": b"y" * SMALL, "digest": small}
        connection.execute(sa.text("UPDATE payloads SET data = :data WHERE digest = :digest"), values)
    if isinstance(ledger.blobs, LocalBlobs):
        ledger.blobs._path(large).write_bytes(b"y" * LARGE)
    else:
        ledger.blobs._fs.pipe_file(ledger.blobs._key(large), b"y" * LARGE)
    for digest in (small, large):
        with pytest.raises(CorruptBlob, match="restore it from a backup") as caught:
            ledger.get(digest)
        assert caught.value.digest == digest
    told = [finding.what for finding in ledger.check()]
    assert len(told) == 2
    assert any(what.startswith("checkpoint of turn 0: ") for what in told)
    assert any(what.startswith("labels of turn 0: ") for what in told)


# -- aliases


def test_pointers_move_by_compare_and_set(ledger, lease):
    """Each move counts one, who has read an old generation moves nothing, and all that was is kept."""
    assert ledger.alias("champion") == Alias(alias="champion", version=None, generation=0)
    assert ledger.served_at(10**18) is None
    ledger.commit(
        lease,
        tick(
            0,
            versions=(saved(ledger, "1.0"), saved(ledger, "2.0")),
            aliases=(promote("1.0", 0, at=5), promote("2.0", 0, "challenger", at=5)),
        ),
    )
    ledger.commit(lease, tick(1, aliases=(promote("2.0", 1, at=9), promote(None, 1, "challenger", at=9))))
    moved = ledger.set_alias(promote("1.0", 2, actor="ada", at=20))
    assert moved == Alias(alias="champion", version="1.0", generation=3, reason="better", actor="ada", at=20)
    assert ledger.alias("champion") == moved
    assert ledger.alias("challenger").version is None
    assert [(a.version, a.generation, a.at) for a in ledger.alias_history("champion")] == [
        ("1.0", 1, 5),
        ("2.0", 2, 9),
        ("1.0", 3, 20),
    ]
    assert [a.alias for a in ledger.alias_history()] == ["champion", "challenger", "champion", "challenger", "champion"]
    served = [ledger.served_at(at) for at in (4, 5, 8, 9, 19, 20, 10**18)]
    assert [a and a.version for a in served] == [None, "1.0", "1.0", "2.0", "2.0", "1.0", "1.0"]
    with pytest.raises(AliasMoved, match=r"generation 3, not 2: it was moved, by 'ada' to 1\.0") as caught:
        ledger.set_alias(promote("2.0", 2))
    assert (caught.value.alias, caught.value.expected, caught.value.actual) == ("champion", 2, 3)
    assert len(ledger.alias_history()) == 5


def test_a_challenger_has_shares_of_the_requests(ledger, lease):
    """They are part of the pointer: kept with each move, read back with a turn, and nobody else's."""
    assert ledger.moves() == 0
    entry = tick(
        0,
        versions=(saved(ledger, "1.0"), saved(ledger, "2.0")),
        aliases=(promote("1.0", 0), replace(promote("2.0", 0, "challenger"), canary=0.05, shadow=1.0)),
    )
    ledger.commit(lease, entry)
    assert list(ledger.entries()) == [entry]
    assert ledger.moves() == 2
    pointers = ledger.pointers()
    assert list(pointers) == ["champion", "challenger", "previous"]
    assert (pointers["challenger"].canary, pointers["challenger"].shadow) == (0.05, 1.0)
    assert (pointers["champion"].canary, pointers["champion"].shadow) == (0.0, 0.0)
    moved = ledger.set_alias(replace(promote("2.0", 1, "challenger", actor="ada"), canary=0.1 + 0.2))
    assert moved.canary == ledger.alias("challenger").canary == 0.1 + 0.2
    assert [alias.canary for alias in ledger.alias_history("challenger")] == [0.05, 0.1 + 0.2]
    for wrong in (
        replace(promote("2.0", 2, "challenger"), canary=1.5),
        replace(promote("2.0", 2, "challenger"), shadow=math.nan),
        replace(promote(None, 2, "challenger"), canary=0.5),
        replace(promote("1.0", 1), shadow=0.5),
    ):
        with pytest.raises(ConfigError):
            ledger.set_alias(wrong)
    assert ledger.moves() == 3


def test_a_turn_whose_pointer_was_moved_does_not_happen(ledger, lease):
    """An operator was first: nothing of the turn is written, and it can be decided anew with what was put."""
    ledger.commit(lease, tick(0, versions=(saved(ledger, "1.0"),), aliases=(promote("1.0", 0),)))
    ledger.set_alias(promote("1.0", 1, actor="ada"))
    before = everything(ledger)
    entry = tick(1, versions=(saved(ledger, "2.0"),), aliases=(promote("2.0", 1),))
    with pytest.raises(AliasMoved):
        ledger.commit(lease, entry)
    assert everything(ledger) == before
    ledger.commit(lease, replace(entry, aliases=(promote("2.0", 2),)))
    assert ledger.alias("champion").version == "2.0"
    assert ledger.check() == []


def test_a_pointer_leads_to_a_version_that_is_there(ledger, lease):
    """Unknown versions are refused with the nearest; a champion is not taken away; other pointers do not exist."""
    with pytest.raises(UnknownVersion, match="none was made yet"):
        ledger.set_alias(promote("1.0", 0))
    ledger.commit(lease, tick(0, versions=(saved(ledger, "10.31"),), aliases=(promote("10.31", 0),)))
    with pytest.raises(UnknownVersion, match=r"did you mean `10\.31`"):
        ledger.set_alias(promote("10.13", 1))
    with pytest.raises(UnknownVersion):
        ledger.commit(lease, tick(1, aliases=(promote("3.0", 1),)))
    with pytest.raises(ConfigError, match="never taken away"):
        ledger.set_alias(promote(None, 1))
    with pytest.raises(ConfigError, match="did you mean `champion`"):
        ledger.alias("champoin")
    assert ledger.alias("champion").generation == 1


def test_of_many_who_move_at_once_one_does(open_ledger):
    """Threads that read the same generation: one moves, the others are told."""
    ledger = open_ledger()
    lease = ledger.acquire("host-1", MINUTE)
    ledger.commit(lease, tick(0, versions=(saved(ledger, "1.0"), saved(ledger, "2.0"))))
    told, start = [], threading.Barrier(4)

    def move(name: str) -> None:
        mine = open_ledger()
        start.wait()
        try:
            mine.set_alias(promote("1.0", 0, actor=name))
            told.append("moved")
        except AliasMoved:
            told.append("refused")

    threads = [threading.Thread(target=move, args=(f"user-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["moved", "refused", "refused", "refused"]
    assert ledger.alias("champion").generation == 1


# -- versions


def test_versions_come_in_order_of_creation(ledger, lease):
    """Not in order of their numbers; a number is given once."""
    ledger.commit(lease, tick(0, versions=(saved(ledger, "2.0"), saved(ledger, "1.9"))))
    ledger.commit(lease, tick(1, versions=(saved(ledger, "1.10"),)))
    assert [s.version.number for s in ledger.versions()] == ["2.0", "1.9", "1.10"]
    assert ledger.version("1.9").version.minor == 9
    with pytest.raises(UnknownVersion, match="did you mean"):
        ledger.version("1.11")
    with pytest.raises(Conflict, match="refused what does not fit"):
        ledger.commit(lease, tick(2, versions=(saved(ledger, "1.9"),)))
    assert ledger.head().turn == 1


def test_what_became_of_each_version(ledger, lease):
    """Pointers first, then the gate's last word."""

    def said(outcome: str, number: str) -> Verdict:
        return Verdict(outcome=outcome, version=number, reason="")

    numbers = ["1.0", "2.0", "3.0", "4.0", "5.0"]
    ledger.commit(
        lease,
        tick(
            0,
            versions=tuple(saved(ledger, n) for n in numbers),
            verdicts=(said("reject", "2.0"), said("reject", "3.0"), said("promote", "3.0"), said("keep", "9.0")),
            aliases=(
                promote("1.0", 0),
                promote("4.0", 1),
                promote("1.0", 0, "previous"),
                promote("5.0", 0, "challenger"),
            ),
        ),
    )
    assert ledger.statuses() == {
        "1.0": "previous",
        "2.0": "rejected",
        "3.0": "retired",
        "4.0": "champion",
        "5.0": "challenger",
    }
    assert [v.outcome for v in ledger.verdicts("3.0")] == ["reject", "promote"]
    assert ledger.verdicts("1.0") == []


# -- segments


def test_segments_live_until_they_are_released(ledger, lease):
    """Of equal ones the oldest goes first; bytes go with the last; what is gone cannot go twice."""
    one, two = (ledger.put(name * LARGE) for name in (b"one", b"two"))

    def brings(digest: str, first: int) -> Segment:
        return Segment(digest=digest, first=first, rows=2, oldest=first, newest=first + 1)

    for turn, digest in enumerate((one, two, one)):
        ledger.commit(lease, tick(turn, segment=brings(digest, turn)))
    ledger.commit(lease, tick(3, released=(two, one)))
    assert ledger.segments() == [brings(one, 2)]
    assert [s.first for s in ledger.segments(alive=False)] == [0, 1, 2]
    with pytest.raises(Conflict, match="none of that digest is alive"):
        ledger.commit(lease, tick(4, released=(two,)))
    with pytest.raises(MissingBlob):
        ledger.get(two)
    assert ledger.check() == []
    assert ledger.collect(lease) == []
    assert ledger.get(one) == b"one" * LARGE
    assert [e.released for e in ledger.entries()] == [(), (), (), (two, one)]
    ledger.commit(lease, tick(4, released=(one,)))
    with pytest.raises(MissingBlob):
        ledger.get(one)
    assert ledger.segments() == ledger.check() == []


# -- files that are predicted apart


def test_what_was_said_of_files_is_logged(open_ledger, ledger, lease):
    """By anyone, without the lease: small parts and large ones, in order; nothing of it is collected."""
    ledger.commit(lease, tick(0, versions=(saved(ledger, "1.0"),)))
    other = open_ledger()
    parts = [(3, b"said"), (4, b"said" * LARGE)]
    assert other.log_file("1.0", "new.csv", parts) == 1
    assert other.log_file("1.0", "again.csv", [(5, b"other")]) == 2
    with pytest.raises(UnknownVersion):
        other.log_file("9.9", "new.csv", parts)
    assert ledger.collect(lease) == ledger.check() == []
    found = ledger.files()
    assert [(f.number, f.part, f.version, f.file, f.rows) for f in found] == [
        (1, 0, "1.0", "new.csv", 3), (1, 1, "1.0", "new.csv", 4), (2, 0, "1.0", "again.csv", 5),
    ]  # fmt: skip
    assert ledger.get(found[1].predictions) == b"said" * LARGE
    ledger.change_file(found[1], b"less")
    assert ledger.get(ledger.files()[1].predictions) == b"less"
    ledger.forget(found[1].predictions)
    with pytest.raises(MissingBlob, match="erased"):
        ledger.get(found[1].predictions)
    assert ledger.collect(lease) == ledger.check() == []


# -- a ledger that forgets


def held(ledger: SqlLedger) -> bytes:
    """Every text and every byte that the database's tables hold of a deployment, one after the other."""
    parts: list[bytes] = []
    with ledger._database.reading() as connection:
        for table in metadata.tables.values():
            for row in connection.execute(sa.select(table).where(table.c.deployment_id == ledger.deployment)):
                parts += [bytes(v) if isinstance(v, bytes | memoryview) else repr(v).encode() for v in row]
    return b"\0".join(parts)


def test_a_ledger_that_forgets_keeps_raw_bytes_out_of_its_tables(open_ledger):
    """They are files, however small, and gone with the turn that released them; past positions are digests."""
    ledger = open_ledger("private", forgets=True)
    lease = ledger.acquire("host-1", MINUTE)
    rows, state = ledger.put(b"PLANTED rows", raw=True), ledger.put(b"PLANTED state", raw=True)
    segment = Segment(digest=rows, first=0, rows=2, oldest=0, newest=1)
    ledger.commit(lease, tick(0, segment=segment, checkpoint=state, position="PLANTED 0"))
    assert ledger.get(rows) == b"PLANTED rows"
    assert ledger.head().position == "PLANTED 0"
    thin, later = ledger.put(b"thinner", raw=True), ledger.put(b"later state", raw=True)
    entry = tick(1, thinned=(replace(segment, digest=thin),), released=(rows,), checkpoint=later, position="p1")
    ledger.commit(lease, entry)
    assert b"PLANTED" not in held(ledger)
    assert sorted(ledger.blobs.digests()) == sorted([thin, later])
    assert ledger.segments() == [replace(segment, digest=thin)]
    assert ledger.check() == []
    assert open_ledger("private").forgets
    usual = open_ledger("usual")
    usual.commit(usual.acquire("host-1", MINUTE), tick(0, checkpoint=usual.put(b"PLANTED", raw=True)))
    assert b"PLANTED" in held(usual)


def test_what_could_not_be_deleted_is_deleted_with_the_next_turn(open_ledger, monkeypatch):
    """A store that was away for a moment keeps nothing for good; what was put again meanwhile stays."""
    ledger = open_ledger("private", forgets=True)
    lease = ledger.acquire("host-1", MINUTE)
    gone, back = ledger.put(b"gone", raw=True), ledger.put(b"back", raw=True)
    places = [Segment(digest=d, first=i, rows=1, oldest=0, newest=0) for i, d in enumerate((gone, back))]
    ledger.commit(lease, tick(0, segment=places[0], thinned=(places[1],)))

    def away(_digest: str) -> None:
        raise StorageError("the store is away", retryable=True)

    with monkeypatch.context() as patched:
        patched.setattr(type(ledger.blobs), "delete", lambda _, digest: away(digest))
        ledger.commit(lease, tick(1, released=(gone, back)))
    assert sorted(ledger.blobs.digests()) == sorted([gone, back])
    ledger.put(b"back", raw=True)
    ledger.commit(lease, tick(2, segment=places[1]))
    assert set(ledger.blobs.digests()) == {back}
    assert ledger.check() == []


def test_what_was_begun_cannot_be_made_to_forget(open_ledger):
    """Nor the other way round: what was kept is there, and what was not is not."""
    open_ledger("usual", forgets=False)
    open_ledger("private", forgets=True)
    assert not open_ledger("usual").forgets
    with pytest.raises(ConfigError, match="was begun keeping rows"):
        open_ledger("usual", forgets=True)
    with pytest.raises(ConfigError, match="was begun without keeping rows"):
        open_ledger("private", forgets=False)


# -- what nothing names


def test_what_no_turn_names_is_collected_and_nothing_else(open_ledger, ledger, lease):
    """What is named, what was just put, and what another deployment has stay."""
    neighbour = open_ledger("other")
    theirs = neighbour.put(b"neighbour" * LARGE)
    dead = open_ledger()
    orphans = {dead.put(name * LARGE) for name in (b"a", b"b")}
    entry = full(ledger)
    ledger.commit(lease, entry)
    fresh = ledger.put(b"not named yet" * LARGE)
    found = ledger.check()
    assert all(finding.safe for finding in found)
    assert {finding.what.split()[0] for finding in found} == orphans | {fresh}
    assert set(ledger.collect(lease)) == orphans
    assert ledger.collect(lease) == []
    assert ledger.get(fresh)
    assert neighbour.get(theirs)
    ledger.commit(lease, tick(1, checkpoint=fresh))
    assert ledger.check() == []
    assert next(ledger.entries()) == entry


def test_leftovers_are_mended_and_the_rest_is_told(open_ledger, ledger, lease):
    """Orphans and parts go; a model that is missing cannot be made up."""
    kept = saved(ledger, "1.0", b"m" * LARGE)
    ledger.commit(lease, tick(0, versions=(kept,)))
    orphan = open_ledger().put(b"orphan" * LARGE)
    if isinstance(ledger.blobs, LocalBlobs):
        part = ledger.blobs._path(orphan).with_name("x.part")
        part.write_bytes(b"half")
    ledger.blobs.delete(kept.blob)
    before = ledger.check()
    assert [f.safe for f in before] == [False, True, True][: len(before)]
    assert before[0].what.startswith("model of version 1.0: ")
    after = ledger.mend(lease)
    assert [(f.safe, f.mended) for f in after if f.safe] == [(True, True)] * (len(before) - 1)
    assert [f for f in after if not f.safe] == ledger.check() == before[:1]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DELETE FROM turns WHERE turn = 1", "2 turns from 0 to 2 are kept, and the head says 2"),
        ("UPDATE heads SET position = 'x'", "the head does not stand where turn 2 ended"),
        ("UPDATE aliases SET generation = 7", "champion was moved 1 times, from generation 7 to 7"),
    ],
)
def test_damage_is_found(ledger, lease, damage, told):
    """What nobody but a hand in the database can have done."""
    ledger.commit(lease, tick(0, versions=(saved(ledger, "1.0"),), aliases=(promote("1.0", 0),)))
    for index in (1, 2):
        ledger.commit(lease, tick(index))
    word = " AND " if "WHERE" in damage else " WHERE "
    with ledger._database.writing() as connection:
        connection.execute(sa.text(f"{damage}{word}deployment_id = :mine"), {"mine": ledger.deployment})
    assert [(f.what, f.safe) for f in ledger.check()] == [(told, False)]


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_what_is_forgotten_is_gone(open_ledger, ledger, lease, size):
    """The bytes are erased and their digest stays; put again, they are there again."""
    entry = tick(0, checkpoint=ledger.put(b"c"), labels=ledger.put(b"a subject" * size))
    ledger.commit(lease, entry)
    ledger.forget(entry.labels)
    ledger.scrub()
    for reader in (ledger, open_ledger()):
        with pytest.raises(MissingBlob, match="was erased"):
            reader.get(entry.labels)
        assert reader.check() == []
    assert list(ledger.entries()) == [entry]
    assert ledger.collect(lease) == []
    with pytest.raises(MissingBlob, match="never put"):
        ledger.commit(lease, tick(1, labels=entry.labels))
    ledger.commit(lease, tick(1, labels=ledger.put(b"a subject" * size)))
    assert open_ledger().get(entry.labels) == b"a subject" * size
    assert ledger.check() == []


def test_what_was_never_committed_can_be_forgotten(ledger, lease):
    """Also what only waits for a commit, or what nothing names."""
    waiting, orphan = ledger.put(b"small"), ledger.put(b"x" * LARGE)
    for digest in (waiting, orphan, "f" * 64):
        ledger.forget(digest)
        with pytest.raises(MissingBlob):
            ledger.get(digest)
    assert ledger.check() == []


# -- opening


def test_deployments_share_a_database_and_nothing_else(open_ledger):
    """Leases, turns, versions and names are their own."""
    one, two = open_ledger("one"), open_ledger("two")
    lease = one.acquire("host-1", MINUTE)
    two.acquire("host-2", MINUTE)
    one.commit(lease, tick(0, versions=(saved(one, "1.0"),)))
    assert two.head().turn == -1
    assert two.versions() == []
    names = {f"{name}-{open_ledger.prefix}" for name in ("one", "two")}
    assert names <= set(SqlLedger.deployments(open_ledger.url))
    with pytest.raises(LedgerError, match=f"no deployment 'twp-{open_ledger.prefix}': did you mean `two-"):
        open_ledger("twp", create=False)


def test_a_ledger_is_there_when_it_is_opened_again(open_ledger, ledger, lease):
    """With its turns, and the same place for its blobs."""
    ledger.commit(lease, tick(0, checkpoint=ledger.put(b"x" * LARGE)))
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="was closed"):
        ledger.head()
    with open_ledger(create=False) as again:
        assert again.get(again.head().checkpoint) == b"x" * LARGE
        assert "churn" in repr(again)


def test_many_may_open_a_new_ledger_at_once(open_ledger):
    """One of them makes it."""
    start, places, wrong = threading.Barrier(4), [], []

    def opened() -> None:
        start.wait()
        try:
            places.append(repr(open_ledger("new").blobs))
        except LedgerError as error:
            wrong.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (len(places), len(set(places))) == (4, 1)


def test_a_newer_format_is_refused(open_ledger, ledger):
    """By both numbers, and nothing is touched."""
    change = "UPDATE perennial_revision SET version_num = :new"
    try:
        with ledger._database.writing() as connection:
            connection.execute(sa.text(change), {"new": "0999"})
        with pytest.raises(FormatError, match=r"format 0999; this release reads up to \d+: upgrade perennial"):
            open_ledger()
    finally:
        with ledger._database.writing() as connection:
            connection.execute(sa.text(change), {"new": sql.REVISION})


def test_every_durable_step_has_its_failpoint(ledger, lease, open_ledger, monkeypatch):
    """A test that kills the process at each name that the ledger owns finds it reached, in order."""
    reached: list[str] = []
    monkeypatch.setattr(failpoints, "reach", reached.append)
    digest = ledger.put(b"x" * LARGE)
    local = ["blob.part", "blob.synced", "blob.renamed"] if isinstance(ledger.blobs, LocalBlobs) else []
    assert reached == [*local, "blob.after"]
    reached.clear()
    ledger.commit(lease, tick(0, checkpoint=digest))
    assert reached == ["commit.before", "commit.inside", "commit.after"]
    open_ledger().put(b"y" * LARGE)
    reached.clear()
    ledger.collect(lease)
    assert reached == ["orphan.removed"]


def test_a_database_that_fails_is_an_error_of_the_ledger(ledger, lease, monkeypatch):
    """With the cause, and whether it may work later."""
    with ledger._database.writing() as connection:
        connection.execute(sa.text("ALTER TABLE scores RENAME TO elsewhere"))
    try:
        with pytest.raises(StorageError) as caught:
            ledger.commit(lease, tick(0, scores={"a": (1, 1.0)}))
        assert isinstance(caught.value.__cause__, sa.exc.DBAPIError)
        assert not caught.value.retryable
        assert "\n" not in str(caught.value)
    finally:
        with ledger._database.writing() as connection:
            connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO scores"))
    assert ledger.head().turn == -1
