"""What every ingest log does, in SQLite and in PostgreSQL.

PostgreSQL is looked for at ``PERENNIAL_POSTGRES``; a schema of its own is made there, and dropped in the end.
"""

from __future__ import annotations

import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from perennial.core.errors import ConfigError, DataError, FormatError
from perennial.stream import ingest
from perennial.stream.feed import Feed, OffsetGone, Owned, Position, SourceAway, feed_of
from perennial.stream.ingest import Append, IngestFeed, IngestLog, KeyTaken, append_together, together
from perennial.stream.sources import open_source
from tests import postgres

SCHEMA = pa.schema({"id": pa.int64(), "who": pa.string(), "x": pa.float64()})
TYPES = {"id": pa.int64(), "who": pa.string()}

Url = Callable[..., str]


@pytest.fixture(scope="module")
def schema() -> Iterator[str]:
    """A schema of its own on a server."""
    with postgres.schema() as served:
        yield sa.make_url(served).query["options"].partition("=")[2]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Url:
    """The URL of a log by name, in each database in turn; names are those of this test alone."""
    if request.param == "sqlite":
        return lambda name="calls", **more: _url(f"sqlite:///{tmp_path}/own/ingest.db", log=name, **more)
    own, test = request.getfixturevalue("schema"), secrets.token_hex(4)
    return lambda name="calls", **more: _url(postgres.URL, log=f"{name}-{test}", schema=own, **more)


def _url(base, **parameters):
    return base + "?" + "&".join(f"{name}={value}" for name, value in parameters.items())


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Pages of a few entries, so that tests have many."""
    monkeypatch.setattr(ingest, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(ingest, "BLOCK_ROWS", 7)


def rows(low, high, who="ann"):
    """Rows with ids in order."""
    ids = np.arange(low, high)
    return pa.table({"id": ids, "who": [who] * len(ids), "x": ids / 2})


def read(url, position=None, types=TYPES):
    """Ids behind a position, and the position after them."""
    position, ids = position or Position(), []
    for run in feed_of(url).read(position, types):
        ids += run.rows.column("id").to_pylist()
        position = run.position(run.rows.num_rows)
    return ids, position


def change(url, statement, **values):
    """Change the tables behind the log's back."""
    address = ingest._Database(ingest.Address.of(url), pooled=False)
    with address.writing() as connection:
        prefix = f"{address.address.schema}." if address.address.schema else ""
        result = connection.execute(sa.text(statement.replace("perennial_", f"{prefix}perennial_")), values)
        return result.all() if result.returns_rows else None


# ---------------------------------------------------------------------- appending and reading


def test_rows_come_back_as_they_were_appended(url):
    """In the order of appends, whatever their sizes, as often as one reads; empty appends leave no trace."""
    with IngestLog.open(url(), SCHEMA) as log:
        low = 0
        for n in (1, 3, 0, 20, 7, 1):
            assert log.append(rows(low, low + n))
            low += n
    every, position = read(url())
    assert every == list(range(32)) == read(url())[0]
    assert position == Position.from_plain(position.to_plain())
    assert read(url(), position) == ([], position)
    source = open_source(url())
    assert source.types(["x"], ()) == TYPES
    assert (source.rows, source.names) == (32, ["id", "who", "x"])
    tables = [block.rows for block in source.blocks({**TYPES, "x": pa.float64()})]
    assert pa.Table.from_batches(tables) == rows(0, 32)
    assert max(table.num_rows for table in tables) <= ingest.BLOCK_ROWS


def test_a_feed_is_one_of_ours(url):
    """A run may trim an ingest log and erase from it, and no file."""
    IngestLog.open(url(), SCHEMA).close()
    assert isinstance(feed_of(url()), Owned)
    assert not isinstance(Feed("rows.parquet"), Owned)


def test_a_look_tells_what_is_new(url):
    """Only appended rows make a look worth while."""
    with IngestLog.open(url(), SCHEMA) as log:
        feed, seen = feed_of(url()), {}
        assert feed.is_new(seen)
        assert not feed.is_new(seen)
        log.append(rows(0, 2))
        assert feed.is_new(seen)
        assert not feed.is_new(seen)


def test_the_first_append_says_what_a_log_holds(url):
    """And processes that open it later find its schema there."""
    with IngestLog.open(url()) as log, IngestLog.open(url()) as other:
        assert log.schema is None
        log.append(pa.table({"id": pa.array([1], pa.int32()), "who": pa.array(["a"]).dictionary_encode()}))
        assert log.schema == pa.schema({"id": pa.int32(), "who": pa.string()})
        other.append(pa.table({"who": ["b"], "id": pa.array([2], pa.int8())}))
        with pytest.raises(DataError, match=r"'id' of log .* is int32, and the rows to append hold double"):
            other.append(pa.table({"id": [1.5], "who": ["c"]}))
    with IngestLog.open(url()) as log:
        assert log.schema == pa.schema({"id": pa.int32(), "who": pa.string()})
    assert read(url(), types={"id": pa.int32()})[0] == [1, 2]
    with pytest.raises(ConfigError, match=r"holds id: int32, who: string: a log keeps its columns"):
        IngestLog.open(url(), SCHEMA)


def test_logs_are_made_by_many_at_once(url):
    """Of those who open a log that is not there, one makes it."""
    opened, wrong = [], []

    def work():
        try:
            opened.append(IngestLog.open(url(), SCHEMA))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len({log.identity for log in opened}) == 1
    for log in opened:
        log.append(rows(0, 1))
        log.close()
    assert len(read(url())[0]) == 8


AT = datetime(2026, 1, 1, tzinfo=UTC)
WIDE = pa.schema([
    ("i", pa.int64()), ("f", pa.float64()), ("h", pa.float32()), ("s", pa.string()), ("b", pa.bool_()),
    pa.field("t", pa.timestamp("us", tz="UTC"), nullable=False),
])  # fmt: skip
GOOD = {"i": pa.array([1]), "f": pa.array([1.5]), "h": pa.array([1.5], pa.float32()), "s": pa.array(["a"]),
        "b": pa.array([True]), "t": pa.array([AT], pa.timestamp("us", tz="UTC"))}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "given", "kept"),
    [
        ("i", pa.array([3], pa.int8()), 3),
        ("i", pa.array([3], pa.uint64()), 3),
        ("i", pa.array([None]), None),
        ("f", pa.array([3]), 3.0),
        ("f", pa.array([0.5], pa.float32()), 0.5),
        ("h", pa.array([3], pa.int8()), 3.0),
        ("s", pa.array(["a"], pa.large_string()), "a"),
        ("s", pa.array(["a"]).dictionary_encode(), "a"),
        ("t", pa.array([AT], pa.timestamp("s", tz="Europe/Lisbon")), AT),
    ],
)
def test_a_type_stands_for_one_that_holds_its_values(tmp_path, column, given, kept):
    """No value is changed by that."""
    address = f"sqlite:///{tmp_path}/ingest.db?log=wide"
    with IngestLog.open(address, WIDE) as log:
        log.append(pa.table(GOOD | {column: given}))
    (run,) = feed_of(address).read(Position(), {column: WIDE.field(column).type})
    assert run.rows.to_pylist() == [{column: kept}]


@pytest.mark.parametrize(
    ("column", "given", "told"),
    [
        ("i", pa.array([1.0]), "'i' of log 'wide' is int64, and the rows to append hold double: a log keeps its types"),
        ("i", pa.array(["1"]), "is int64, and the rows to append hold string"),
        ("i", pa.array([2**63], pa.uint64()), "is int64, and the rows to append hold uint64 .*not in range"),
        ("f", pa.array([2**53 + 1]), "is double, and the rows to append hold int64 .*not in range"),
        ("h", pa.array([0.1]), "'h' of log 'wide' is float, and the rows to append hold double"),
        ("h", pa.array([2**24 + 1]), "is float, and the rows to append hold int64 .*not in range"),
        ("f", pa.array([True]), "is double, and the rows to append hold bool"),
        ("s", pa.array([1]), "is string, and the rows to append hold int64"),
        ("b", pa.array([1]), "is bool, and the rows to append hold int64"),
        ("t", pa.array([datetime(2026, 1, 1)]), r"is timestamp\[us, tz=UTC\], and the rows to append hold timestamp"),
        ("t", pa.array([1], pa.timestamp("ns", "UTC")), "would lose data"),
        ("t", pa.array([None], pa.timestamp("us", "UTC")), "'t' of log 'wide' may not be null, and row 0 .* is"),
        ("t", None, "column 't' is missing in rows for log 'wide': it has i, f, h, s, b, t"),
        ("ss", pa.array([1]), "log 'wide' has no column 'ss': did you mean `s`"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused_whole(tmp_path, column, given, told):
    """The message names column, types and the next step, and nothing is written."""
    address = f"sqlite:///{tmp_path}/ingest.db?log=wide"
    wrong = {name: values for name, values in (GOOD | {column: given}).items() if values is not None}
    with IngestLog.open(address, WIDE) as log:
        with pytest.raises(DataError, match=told):
            append_together([Append(log=log, rows=pa.table(GOOD)), Append(log=log, rows=pa.table(wrong))])
        with pytest.raises(DataError, match=told):
            log.conform(pa.table(wrong).to_batches()[0])
        with pytest.raises(DataError, match="give a pyarrow batch or table"):
            log.append([{"i": 1}])
    assert list(feed_of(address).read(Position(), {"i": pa.int64()})) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (pa.schema({"x": pa.null()}), "holds nothing yet: say what it will hold"),
        (pa.schema({"x": pa.list_(pa.int64())}), "which no learner reads"),
        (pa.schema({"x": pa.large_binary()}), "which no learner reads"),
        (pa.schema([("x", pa.int64()), ("x", pa.int64())]), "each a name of its own"),
        (pa.schema([]), "each a name of its own"),
    ],
)
def test_a_log_holds_what_learners_read(tmp_path, given, told):
    """Columns that nobody could read later are refused when the log is made."""
    with pytest.raises(ConfigError, match=told):
        IngestLog.open(f"sqlite:///{tmp_path}/ingest.db?log=calls", given)


def test_several_logs_take_rows_in_one_transaction(url):
    """All of it is durable, or nothing: what was asked and what became of it do not come apart."""
    with IngestLog.open(url("calls"), SCHEMA) as calls, IngestLog.open(url("labels"), SCHEMA) as labels:
        several = [Append(log=labels, rows=rows(0, 1)), Append(log=calls, rows=rows(0, 2), key="a"),
                   Append(log=calls, rows=rows(2, 3)), Append(log=calls, rows=rows(0, 2), key="a")]  # fmt: skip
        assert append_together(several) == [True, True, True, False]
        assert append_together([]) == []
        with pytest.raises(KeyTaken, match=r"key 'a' was used before for other rows .*nothing was written") as caught:
            append_together([Append(log=labels, rows=rows(9, 10)), Append(log=calls, rows=rows(8, 9), key="a")])
        assert caught.value.index == pickle.loads(pickle.dumps(caught.value)).index == 1
    assert read(url("calls"))[0] == [0, 1, 2]
    assert read(url("labels"))[0] == [0]


def test_whoever_must_look_before_it_appends_holds_the_lock(url):
    """What it finds in tables of its own is so until it is done; what raises leaves nothing behind."""
    table = sa.table("own", sa.column("n", sa.Integer))
    with IngestLog.open(url(), SCHEMA) as log:
        with together([log]) as writing:
            own = f"{writing.schema}.own" if writing.schema else "own"
            table.schema = writing.schema or None
            writing.connection.execute(sa.text(f"CREATE TABLE {own} (n integer)"))
            writing.connection.execute(table.insert(), {"n": 0})
        with pytest.raises(ZeroDivisionError), together([log]) as writing:  # noqa: PT012 - what was done before it
            writing.append(log, rows(90, 99), key="never")
            writing.connection.execute(table.insert(), {"n": 99})
            _ = 1 / 0

        def count():
            for _ in range(10):
                with together([log]) as writing:
                    n = writing.connection.execute(sa.select(sa.func.max(table.c.n))).scalar_one()
                    writing.append(log, rows(n, n + 1))
                    writing.connection.execute(table.insert(), {"n": n + 1})

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read(url())[0] == list(range(40))
        assert log.append(rows(40, 41), key="never")


def test_a_key_may_stand_for_more_than_rows(url):
    """For what was sent, of which the rows are only a part: known to all, and in order."""
    with IngestLog.open(url(), SCHEMA) as log:
        with together([log]) as writing:
            assert writing.known(log, ["k", "l"]) == {}
            assert writing.remember(log, "k", "digest")
            assert not writing.remember(log, "k", "digest")
            assert writing.append(log, rows(0, 2), key="rows")
            assert not writing.append(log, rows(0, 2), key="rows")
        with together([log]) as writing:
            assert writing.known(log, ["k", "l", "k"]) == {"k": "digest"}
            assert not writing.remember(log, "k", "digest")
            with pytest.raises(KeyTaken, match="key 'k' was used before"):
                writing.remember(log, "k", "another")
            writing.append(log, rows(2, 3))  # the transaction goes on
    assert read(url())[0] == [0, 1, 2]


def test_logs_of_one_transaction_are_of_one_database(tmp_path):
    """Two files cannot be written at once."""
    one, two = (IngestLog.open(f"sqlite:///{tmp_path}/{name}.db?log=calls", SCHEMA) for name in "ab")
    with one, two, pytest.raises(ConfigError, match="logs of one transaction are of one database"):
        append_together([Append(log=one, rows=rows(0, 1)), Append(log=two, rows=rows(0, 1))])


def test_an_append_that_is_done_again_does_nothing(url, monkeypatch):
    """Its key tells, also where the rows lie in memory in another way, and after they were trimmed."""
    with IngestLog.open(url(), SCHEMA) as log:
        assert log.append(rows(0, 3), key="a")
        assert not log.append(rows(-9, 12).slice(9, 3), key="a")
        with pytest.raises(KeyTaken):
            log.append(rows(0, 4), key="a")
        every, position = read(url())
        assert every == [0, 1, 2]
        feed_of(url()).trim(position)
        assert not log.append(rows(0, 3), key="a")
        monkeypatch.setattr(ingest, "KEYS_KEPT", 2)
        for i in range(3, 6):
            log.append(rows(i, i + 1))
        every, position = read(url(), position)
        feed_of(url()).trim(position)
        assert log.append(rows(0, 3), key="a")
        assert read(url(), position)[0] == [0, 1, 2]


# ---------------------------------------------------------------------- trimming


def test_what_lies_wholly_behind_a_position_goes(url):
    """An entry that was read in part stays; later positions go on from there, and new readers begin with the rest."""
    with IngestLog.open(url(), SCHEMA) as log:
        for low in (0, 2, 4):
            log.append(rows(low, low + 2))
        feed = feed_of(url())
        positions = [run.position(i + 1) for run in feed.read(Position(), TYPES) for i in range(run.rows.num_rows)]
        feed.trim(Position())
        assert read(url())[0] == list(range(6))
        for taken, left in [(1, 0), (2, 2), (3, 2), (4, 4), (4, 4), (6, 6)]:
            feed.trim(positions[taken - 1])
            assert read(url())[0] == list(range(left, 6))
            assert read(url(), positions[taken - 1])[0] == list(range(taken, 6))
        log.append(rows(6, 8))
        assert read(url(), positions[-1])[0] == [6, 7]
        with pytest.raises(OffsetGone, match=r"rows up to 6 were trimmed, and only 3 were read: another deployment"):
            read(url(), positions[2])
    source = open_source(url())
    source.types((), ())
    assert source.rows == 2


def test_a_reader_goes_on_while_rows_behind_it_are_trimmed(url):
    """A run trims what its last turn took in the middle of reading on."""
    with IngestLog.open(url(), SCHEMA) as log:
        for low in range(0, 40, 2):
            log.append(rows(low, low + 2))
        feed, ids = feed_of(url()), []
        for run in feed.read(Position(), TYPES):
            ids += run.rows.column("id").to_pylist()
            feed.trim(run.position(run.rows.num_rows))
        assert ids == list(range(40))
        assert read(url())[0] == []


def test_a_trim_that_was_cut_off_goes_on(url, monkeypatch):
    """What a log says is trimmed is gone for readers at once; its bytes go with the next trim of anybody."""
    with IngestLog.open(url(), SCHEMA) as log:
        for low in range(0, 20, 2):
            log.append(rows(low, low + 2))
        position = read(url())[1]
        with monkeypatch.context() as patch:
            patch.setattr(IngestFeed, "_delete", lambda *_: False)
            feed_of(url()).trim(position)
        assert read(url())[0] == []
        count = "SELECT count(*) FROM perennial_entries WHERE log = :log"
        assert change(url(), count, log=log.identity) == [(10,)]
        feed_of(url()).trim(position)
        assert change(url(), count, log=log.identity) == [(0,)]
        log.append(rows(20, 21))
        assert read(url(), position)[0] == [20]


def test_a_log_keeps_rows_as_long_as_it_is_told_to(url):
    """By the database's clock, from when they were appended."""
    with IngestLog.open(url(), SCHEMA) as log:
        for low in (0, 2, 4):
            log.append(rows(low, low + 2))
    position = read(url())[1]
    feed = feed_of(url(keep="2h"))
    feed.trim(position)
    assert read(url())[0] == list(range(6))
    change(url(), "UPDATE perennial_entries SET appended = appended - 7200000000 WHERE entry = 0 AND log = :log",
           log=position.key[0])  # fmt: skip
    feed.trim(position)
    assert read(url())[0] == [2, 3, 4, 5]


# ---------------------------------------------------------------------- what is lost is told


@pytest.fixture
def lost(url):
    """A log of three appends, read up to the middle of the second, and what reading on then says."""
    with IngestLog.open(url(), SCHEMA) as log:
        for low in (0, 4, 8):
            log.append(rows(low, low + 4))
    ids, position = [], Position()
    for run in feed_of(url()).read(Position(), TYPES):
        for i in range(run.rows.num_rows):
            ids.append(run.rows.column("id")[i].as_py())
            if len(ids) == 6:
                position = run.position(i + 1)
    assert read(url(), position)[0] == list(range(6, 12))
    return url(), position


@pytest.mark.parametrize("how", ["deleted", "replaced", "deleted meanwhile"])
def test_a_file_that_is_gone_takes_no_rows(tmp_path, how):
    """A connection would go on in the deleted one, and what was acknowledged would be nowhere."""
    url, file = f"sqlite:///{tmp_path}/ingest.db?log=calls", tmp_path / "ingest.db"

    def remove():
        for one in tmp_path.glob("ingest.db*"):
            one.unlink()

    def append_and_remove():
        with together([log]) as writing:
            writing.append(log, rows(1, 2))
            remove()

    with IngestLog.open(url, SCHEMA) as log:
        log.append(rows(0, 1))
        if how != "deleted meanwhile":
            remove()
        if how == "replaced":
            IngestLog.open(url, SCHEMA).close()
        with pytest.raises(OffsetGone, match=r"deleted or replaced.*nothing was written"):
            append_and_remove()
        assert file.exists() == (how == "replaced")  # no connection made it anew
        with pytest.raises(OffsetGone, match="open the log again"):
            log.append(rows(1, 2))
    with IngestLog.open(url, SCHEMA) as again:
        again.append(rows(2, 3))
    assert read(url)[0] == [2]


def test_a_log_that_was_made_anew_is_told(lost):
    """Though it has the same name, columns and rows; and to whoever has it open for appending."""
    url, position = lost
    with IngestLog.open(url) as log:
        change(url, "DELETE FROM perennial_logs WHERE name = :name", name=log.name)
        with IngestLog.open(url, SCHEMA) as fresh:
            for low in (0, 4, 8):
                fresh.append(rows(low, low + 4))
        with pytest.raises(OffsetGone, match="made anew"):
            read(url, position)
        with pytest.raises(OffsetGone, match="made anew since it was opened: open it again"):
            log.append(rows(0, 1))
    assert read(url)[0] == list(range(12))


@pytest.mark.parametrize("entry", [1, 2])
def test_an_entry_that_is_missing_is_told(lost, entry):
    """In the middle or at the end: numbers have no gaps."""
    url, position = lost
    change(url, "DELETE FROM perennial_entries WHERE entry = :e AND log = :log", e=entry, log=position.key[0])
    with pytest.raises(OffsetGone, match=f"entry {entry} is missing"):
        read(url, position)


def test_an_older_state_is_told(lost):
    """A backup that ends before what was read."""
    url, position = lost
    log = position.key[0]
    change(url, "DELETE FROM perennial_entries WHERE entry > 0 AND log = :log", log=log)
    change(url, 'UPDATE perennial_logs SET entries = 1, "rows" = 4 WHERE identity = :log', log=log)
    with pytest.raises(OffsetGone, match="it holds 4 rows and 6 were read: an older state was restored"):
        read(url, position)


def test_other_rows_in_the_place_of_those_read_are_told(lost):
    """A backup that others appended to since."""
    url, position = lost
    log = position.key[0]
    change(url, "DELETE FROM perennial_entries WHERE entry > 0 AND log = :log", log=log)
    change(url, 'UPDATE perennial_logs SET entries = 1, "rows" = 4 WHERE identity = :log', log=log)
    with IngestLog.open(url) as again:
        again.append(rows(104, 108))
    with pytest.raises(OffsetGone, match="the last row that was read is another one now"):
        read(url, position)


def test_another_source_is_told(lost):
    """A position is of one log."""
    url, position = lost
    with pytest.raises(OffsetGone, match=r"what was read is 0.parquet, and the source is log calls.* now"):
        read(url, Position("0.parquet", 3, "", 0))
    with pytest.raises(DataError, match=r"column 'id' of log .* was double and is int64"):
        read(url, position, {"id": pa.float64()})
    with pytest.raises(DataError, match=r"column 'y' of log .* was double and is gone"):
        read(url, position, {"y": pa.float64()})


def test_damage_is_told(lost):
    """Bytes that are no rows any more."""
    url, position = lost
    change(url, "UPDATE perennial_entries SET content = :no WHERE entry = 2 AND log = :log", no=b"no rows",
           log=position.key[0])  # fmt: skip
    with pytest.raises(DataError, match=r"entry 2 of log .* is damaged: restore"):
        read(url, position)


def test_a_newer_format_is_told(lost):
    """A log that a later release changed is not guessed at."""
    url, position = lost
    change(url, "UPDATE perennial_logs SET format = 9 WHERE identity = :log", log=position.key[0])
    with pytest.raises(FormatError, match=r"has format 9; this release reads 1\.\.1"):
        read(url, position)
    with pytest.raises(FormatError, match="format 9"):
        IngestLog.open(url)


# ---------------------------------------------------------------------- erasing


def test_a_subject_is_taken_out(url):
    """Positions stay what they were, before, within and behind what is gone; runs have no gap inside."""
    with IngestLog.open(url(), SCHEMA) as log:
        log.append(pa.table({"id": range(5), "who": ["a", "b", "a", "b", "b"], "x": [0.0] * 5}))
        log.append(rows(5, 8, "b"))
        log.append(pa.table({"id": [8, 9], "who": ["a", "b"], "x": [0.0] * 2}))
        positions = [Position()]
        for run in feed_of(url()).read(Position(), TYPES):
            positions += [run.position(i + 1) for i in range(run.rows.num_rows)]
        assert log.erase("who", ["b"]) == 7
        assert log.erase("who", ["b"]) == 0
        for taken, position in enumerate(positions):
            assert read(url(), position)[0] == [i for i in (0, 2, 8) if i >= taken]
        runs = list(feed_of(url()).read(Position(), TYPES))
        assert [(run.start, run.rows.num_rows) for run in runs] == [(0, 1), (2, 1), (8, 1)]
        assert log.erase("id", ["8"]) == 1
        feed_of(url()).trim(positions[-1])
        log.append(rows(10, 12))
        assert read(url(), positions[-1])[0] == [10, 11]
        with pytest.raises(ConfigError, match="no such column: did you mean `who`"):
            log.erase("wo", ["b"])


# ---------------------------------------------------------------------- many at once

WRITER = """
import sys
import pyarrow as pa
from perennial.stream.ingest import IngestLog
url, writer, appends = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with IngestLog.open(url) as log:
    for i in range(appends):
        n = i % 3 + 1
        log.append(pa.table({"id": [writer * 10**6 + i * 10 + j for j in range(n)], "who": [str(writer)] * n,
                             "x": [float(i)] * n}))
"""


def test_many_processes_append_while_one_follows(url, monkeypatch):
    """Every row comes once, an append in one piece, each writer's in its order; what was read stays as it was."""
    monkeypatch.undo()
    IngestLog.open(url(), SCHEMA).close()
    command = [sys.executable, "-c", WRITER, url()]
    writers = [subprocess.Popen([*command, str(i), "60"], env=_env()) for i in range(4)]
    feed, position, ids = IngestFeed(url()), Position(), []
    deadline = time.monotonic() + 120
    try:
        while True:
            over = all(writer.poll() is not None for writer in writers)
            assert time.monotonic() < deadline
            before = position
            for run in feed.read(position, TYPES):
                ids += run.rows.column("id").to_pylist()
                position = run.position(run.rows.num_rows)
            again = [i for run in feed.read(before, TYPES) for i in run.rows.column("id").to_pylist()]
            assert again[: position.rows - before.rows] == ids[before.rows :]
            feed.trim(position)
            if over:
                break
    finally:
        for writer in writers:
            writer.wait(timeout=60)
    assert [writer.returncode for writer in writers] == [0] * 4
    for writer in range(4):
        mine = [i % 10**6 for i in ids if i // 10**6 == writer]
        assert mine == [i * 10 + j for i in range(60) for j in range(i % 3 + 1)]
    steps = np.diff(ids)
    assert all(step == 1 for step, i in zip(steps, ids[1:], strict=True) if i % 10)  # within an append
    assert len(ids) == position.rows == 4 * 120
    assert read(url())[0] == []


def _env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


# ---------------------------------------------------------------------- SQLite's files


def held(folder):
    """All bytes in the files of a folder."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_an_append_is_synced_before_it_returns(tmp_path, schema):
    """Every connection of a writer waits for the disk at its commit, whatever the database's own settings are."""
    with IngestLog.open(f"sqlite:///{tmp_path}/ingest.db?log=calls", SCHEMA) as log, log._database.writing() as one:
        found = [one.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
        assert found == ["wal", 2]
    off = _url(postgres.URL, log="synced", schema=schema, options="-csynchronous_commit%3Doff")
    with IngestLog.open(off, SCHEMA) as log, log._database.writing() as one:
        assert one.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


@pytest.mark.parametrize("how", ["trim", "erase"])
def test_nothing_is_left_of_bytes_that_went(tmp_path, how):
    """Neither in the file nor in its write-ahead log, with a writer at work, also of large values."""
    address = f"sqlite:///{tmp_path}/ingest.db?log=calls"
    secret, large = "planted-secret", "large-secret" * 5_000
    with IngestLog.open(address, SCHEMA) as log:
        log.append(pa.table({"id": [1, 2], "who": [secret, large], "x": [0.0, 1.0]}))
        log.append(rows(2, 3))
        assert b"planted-secret" in held(tmp_path)
        if how == "trim":
            feed_of(address).trim(read(address)[1])
        else:
            assert log.erase("who", [secret, large]) == 2
        assert b"secret" not in held(tmp_path)
        log.append(rows(3, 4))


def test_bytes_that_a_reader_held_on_to_go_with_the_next_call(tmp_path, monkeypatch):
    """A log cannot be emptied to its last byte beside a long reader: a trim does it later, an erasure says so."""
    monkeypatch.setattr(ingest, "PATIENCE", 0.05)
    address = f"sqlite:///{tmp_path}/ingest.db?log=calls"
    with IngestLog.open(address, SCHEMA) as log:
        log.append(rows(0, 1, "planted-secret"))
        feed, position = feed_of(address), read(address)[1]
        with log._database.reading() as connection:
            log._database.head(connection)
            feed.trim(position)
            with pytest.raises(SourceAway, match="0 rows are erased, and others read or write just now"):
                feed.erase("who", ["nobody"])
        assert b"secret" in held(tmp_path)
        feed.trim(position)
        assert b"secret" not in held(tmp_path)


def test_a_full_disk_is_told(tmp_path):
    """Nothing is written, the message says what to do, and the log goes on once there is room."""
    address = f"sqlite:///{tmp_path}/ingest.db?log=calls"
    with IngestLog.open(address, SCHEMA) as log:
        log.append(rows(0, 1))
        with log._database.reading() as connection:  # the pool has one connection: the limit is its own
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(SourceAway, match="full: nothing was written; make room, and append again"):
            log.append(rows(1, 9_999))
        with log._database.reading() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 100000")
        log.append(rows(1, 20))
    assert read(address)[0] == list(range(20))


def test_a_lock_is_waited_for_and_told(tmp_path, monkeypatch):
    """Somebody who holds the file too long: trying again may help."""
    monkeypatch.setattr(ingest, "PATIENCE", 0.1)
    address = f"sqlite:///{tmp_path}/ingest.db?log=calls"
    with IngestLog.open(address, SCHEMA) as log, IngestLog.open(address) as other:
        with other._database.writing(), pytest.raises(SourceAway, match="another process is writing; try again"):
            log.append(rows(0, 1))
        assert log.append(rows(0, 1))


def test_who_hangs_with_the_lock_is_cut_off(schema, monkeypatch):
    """Others append once the server has ended the transaction; whoever hung hears that it may be done again."""
    monkeypatch.setattr(ingest, "_POSTGRES", ("SET idle_in_transaction_session_timeout = '0.3s'",))
    address = _url(postgres.URL, log="hangs", schema=schema)

    def hang(log, other):
        with log._database.writing() as connection:
            log._database.head(connection, lock=True)
            assert other.append(rows(0, 1))
            connection.execute(sa.text("SELECT 1"))

    with IngestLog.open(address, SCHEMA) as log, IngestLog.open(address) as other:
        with pytest.raises(SourceAway, match="it is not known whether this was written; do it again"):
            hang(log, other)
        assert log.append(rows(1, 2))
    assert read(address)[0] == [0, 1]


def test_a_server_that_is_away(schema):
    """It may come back: the error says so by its type, and that nobody knows what was written."""
    with pytest.raises(SourceAway, match="try again once the database answers"):
        IngestLog.open("postgresql://nobody@127.0.0.1:1/none?log=calls")
    address = _url(postgres.URL, log="away", schema=schema)
    with IngestLog.open(address, SCHEMA) as log:
        log.append(rows(0, 1))

        def die():
            with log._database.writing() as connection:
                pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
                change(address, "SELECT pg_terminate_backend(:pid)", pid=pid)
                connection.execute(sa.text("SELECT 1"))

        with pytest.raises(SourceAway, match="it is not known whether this was written; do it again, with the same"):
            die()
        assert log.append(rows(1, 2))
    assert read(address)[0] == [0, 1]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("sqlite:///{}/none.db?log=calls", "no such file"),
        ("sqlite:///{}/ingest.db?log=", "say which table"),
        ("sqlite:///{}/ingest.db?log=call", "has no such log: did you mean `calls`"),
        ("sqlite:///{}/other.db?log=call", "has no such log: it has none at all"),
        ("sqlite:///{}/ingest.db?log=calls&order=id", "log has no 'order': its parameters are log, schema, keep"),
        ("sqlite:///{}/ingest.db?log=calls&table=calls", "a table has no 'log'"),
        ("sqlite:///{}/ingest.db?table=calls&keep=1d", "a table has no 'keep'"),
        ("sqlite:///{}/ingest.db?log=calls&kep=1d", "'kep' is no parameter: did you mean `keep`"),
        ("sqlite:///{}/ingest.db?log=calls&keep=long", "keep"),
    ],
)  # fmt: skip
def test_a_wrong_url_is_told(tmp_path, address, told):
    """What is read, and followed, is an ingest log that is there."""
    IngestLog.open(f"sqlite:///{tmp_path}/ingest.db?log=calls", SCHEMA).close()
    (tmp_path / "other.db").touch()
    address = address.format(tmp_path)
    with pytest.raises(ConfigError, match=told):
        open_source(address).types((), ())
    with pytest.raises(ConfigError, match=told):
        feed_of(address).open().types((), ())


def test_a_table_is_no_log(tmp_path):
    """Rows are appended to a log only."""
    with pytest.raises(ConfigError, match="a table is no ingest log: write sqlite:"):
        IngestLog.open(f"sqlite:///{tmp_path}/ingest.db?table=calls")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="check who may write"):
        IngestLog.open(f"sqlite:///{tmp_path}/file/ingest.db?log=calls", SCHEMA)
    assert timedelta(0) == ingest.Address.of(f"sqlite:///{tmp_path}/i.db?log=calls", there=False).keep
