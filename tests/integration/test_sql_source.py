"""A table of a database gives the batches that files with the same rows give, once and as it grows."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

import perennial as pn
from perennial.core.errors import ConfigError, DataError
from perennial.core.state import State
from perennial.stream import sql
from perennial.stream.feed import OffsetGone, Position, SourceAway
from perennial.stream.intake import Intake
from perennial.stream.sources import open_source
from tests.command import perennial
from tests.integration.test_intake import content
from tests.postgres import url as served

N = 300
COLUMNS = {"id": "BIGINT", "at": "TIMESTAMP", "a": "DOUBLE PRECISION", "n": "INTEGER", "word": "TEXT", "yes": "BOOLEAN",
           "day": "DATE", "w": "NUMERIC(10, 3)", "k": "TIMESTAMP", "y": "TEXT"}  # fmt: skip


def table(n=N, seed=0):
    """Rows with gaps, several at one instant and some that come late."""
    rng = np.random.default_rng(seed)
    at = np.datetime64("2026-01-01T20:00:00.000001", "us") + np.sort(rng.integers(0, n // 3, n)) * np.timedelta64(
        20, "m"
    )
    at[n // 2 : n // 2 + 9] -= np.timedelta64(90, "m")
    some = lambda: rng.random(n) < 0.1  # noqa: E731
    return pa.table({
        "id": np.arange(n), "at": at, "a": pa.array(rng.normal(size=n), mask=some()),
        "n": pa.array(rng.integers(-9, 9, n), mask=some()),
        "word": pa.array([f"w{i} 'ü%:x" for i in rng.integers(0, n // 20, n)], mask=some()),
        "yes": pa.array(rng.random(n) < 0.5, mask=some()),
        "day": pa.array([None if x < 0.1 else datetime(2026, 1, 1 + int(x * 20)).date() for x in rng.random(n)]),
        "w": np.round(rng.uniform(1, 2, n), 3),
        "k": pa.array(at + rng.integers(0, 900, n) * np.timedelta64(1, "m"), mask=rng.random(n) < 0.2),
        "y": pa.array(np.array(["b", "a", "c"])[rng.integers(0, 3, n)], mask=some()),
    })  # fmt: skip


SETTINGS: dict[str, dict[str, Any]] = {
    "daily": {"batch": "1d", "time_zone": "Europe/Lisbon", "label_delay": "3h", "drop": ["k", "day"]},
    "rows": {"batch": 37, "label_delay": "3h", "drop": ["k"], "time_zone": "UTC"},
    "known at": {"batch": "6h", "known_at": "k", "time_zone": "UTC"},
}


def stream(source, name="rows"):
    """The stream of a case over some source."""
    return pn.Stream(source, time="at", target="y", lateness="2h", weight="w", id="id", **SETTINGS[name])


def spelled(batch):
    """Everything in a batch, in words: a NaN is like another."""
    return repr(content(batch))


def replayed(made, folder):
    """The batches of a replay, and the digest of its data."""
    prepared = made.prepare(folder)
    return [spelled(batch) for batch in prepared.batches("classification")], prepared.digest


def arrived(intake, *, to_the_end=False):
    """Every whole batch behind the position."""
    out = []
    intake.refresh()
    while (bounds := intake.look(to_the_end=to_the_end)) is not None:
        out.append(spelled(intake.take(bounds).batch))
    return out


def again(intake, made):
    """The intake taken apart and put together."""
    fresh = Intake(made, "classification")
    fresh.restore(State.from_bytes(intake.state().to_bytes(), {}))
    return fresh


class Place:
    """A database with a table of calls: how to write to it, and the URL that reads it."""

    def __init__(self, run: Callable[..., Any], url: Callable[..., str], marks: str) -> None:
        self.run, self.url, self.marks = run, url, marks

    def create(self, extra="", name="calls", **types):
        """Make the table."""
        columns = ", ".join(f"{column} {kind}" for column, kind in {**COLUMNS, **types}.items())
        self.run(f"CREATE TABLE {name} ({columns}{extra})")

    def add(self, rows, name="calls"):
        """Insert rows in one transaction."""
        values = [tuple(_value(v, self.marks) for v in row.values()) for row in rows.to_pylist()]
        marks = ", ".join([self.marks] * rows.num_columns)
        self.run(f"INSERT INTO {name} ({', '.join(rows.column_names)}) VALUES ({marks})", values)


def _value(value, marks):
    return str(value) if marks == "?" and hasattr(value, "isoformat") else value


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    """A database in a file."""
    path = tmp_path / "shop.db"

    def run(statement, many=None):
        with closing(sqlite3.connect(path)) as connection, connection:
            return (
                connection.execute(statement) if many is None else connection.executemany(statement, many)
            ).fetchall()

    run("PRAGMA user_version = 1")
    return Place(run, lambda table="calls", **more: _url(f"sqlite:///{path}", table=table, **more), "?")


def _url(base, **parameters):
    return base + "?" + "&".join(f"{name}={value}" for name, value in parameters.items())


@pytest.fixture
def postgres() -> Iterator[Place]:
    """A schema of its own on a server."""
    url = served()
    import psycopg

    plain = url.replace("postgresql+psycopg://", "postgresql://")
    schema = f"source_{secrets.token_hex(6)}"
    connection = psycopg.connect(plain, connect_timeout=3, autocommit=True)

    def run(statement, many=None):
        with connection.cursor() as cursor, connection.transaction():
            if many is None:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
            return cursor.executemany(statement, many)

    with connection:
        run(f"CREATE SCHEMA {schema}")
        run(f"SET search_path TO {schema}")
        place = Place(run, lambda table="calls", **more: _url(url, table=table, schema=schema, **more), "%s")
        place.schema, place.psycopg = schema, (lambda: psycopg.connect(plain, options=f"-c search_path={schema}"))  # type: ignore[attr-defined]
        try:
            yield place
        finally:
            run(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each database in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Pages of a few rows, so that tests have many."""
    monkeypatch.setattr(sql, "FIRST_ROWS", 50)
    monkeypatch.setattr(sql, "BLOCK_ROWS", 41)


def eventually(found, wanted):
    """Wait until other tests' transactions on the server are over, which hold rows back."""
    deadline = time.monotonic() + 60
    got = found()
    while len(got) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
        got += found()
    return got


# ---------------------------------------------------------------------- parity


@pytest.mark.parametrize("name", SETTINGS)
def test_a_table_is_read_as_a_file(place, tmp_path, name):
    """A replay of a table has the batches, and the digest, of a replay of a Parquet file."""
    rows = table()
    place.create(", PRIMARY KEY (id)" if place.marks == "%s" else "")
    place.add(rows)
    pq.write_table(rows, tmp_path / "calls.parquet")
    expected, digest = replayed(stream(tmp_path / "calls.parquet", name), tmp_path / "p")
    got, same = replayed(stream(place.url(), name), tmp_path / "q")
    assert got == expected
    assert same == digest


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("own", ["rowid", "xmin", "a column of transactions", "delay"])
def test_a_table_that_grows_gives_the_batches_of_a_replay(request, tmp_path, name, own):
    """Batches come as soon as they are whole, with the intake taken apart and put together in between."""
    rows, more, postgres = table(), {}, own != "rowid"
    place = request.getfixturevalue("postgres" if postgres else "sqlite")
    extra = ", PRIMARY KEY (id)" if postgres else ""
    if own == "a column of transactions":
        extra, more = extra + ", tx xid8 NOT NULL DEFAULT pg_current_xact_id()", {"order": "tx"}
    if own == "delay":
        extra = extra + ", put timestamptz DEFAULT now() - interval '1 minute'"
        more = {"order": "put,id", "delay": "1s"}
    place.create(extra)
    pq.write_table(rows, tmp_path / "calls.parquet")
    expected, _ = replayed(stream(tmp_path / "calls.parquet", name), tmp_path / "p")
    made = stream(place.url(**more), name)
    if own == "delay":
        made = replace(made, drop=[*made.drop, "put"])
    intake, got, at = Intake(made, "classification"), [], 0
    assert arrived(intake) == []
    for size in [60, 1, 40, 100, 99]:
        place.add(rows.slice(at, size))
        at += size
        if postgres:
            _until_readable(place, made)
        got += arrived(intake, to_the_end=at == N)
        assert got == expected[: len(got)]
        intake = again(intake, made)
    assert got == expected
    intake.changed()
    assert not intake.changed()
    assert replayed(made, tmp_path / "q")[0] == expected


def _until_readable(place, made):
    """Wait until what is there may be read: transactions of other tests may be on."""
    count = place.run("SELECT count(*) FROM calls")[0][0]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        feed = sql.TableFeed(str(made.source))
        if sum(run.rows.num_rows for run in feed.read(Position(), {"id": pa.int64()})) == count:
            return
        time.sleep(0.02)
    raise AssertionError("a transaction on the server is open for a minute")


def test_bounds_that_were_fixed_are_kept(place):
    """After a crash the batch that was begun has the same rows, though more of them came."""
    rows = table()
    place.create(", PRIMARY KEY (id)" if place.marks == "%s" else "")
    place.add(rows.slice(0, 120))
    made = stream(place.url(), "daily")
    if place.marks == "%s":
        _until_readable(place, made)
    intake = Intake(made, "classification")
    arrived(intake)
    intake.refresh()
    bounds = intake.look(to_the_end=True)
    state = intake.state().to_bytes()
    expected = spelled(intake.take(bounds).batch)
    place.add(rows.slice(120, 100))
    fresh = Intake(made, "classification")
    fresh.restore(State.from_bytes(state, {}))
    fresh.refresh()
    fresh.fetch(bounds)
    assert spelled(fresh.take(bounds).batch) == expected


def test_a_position_is_plain_data(place):
    """What the ledger keeps of a position comes back from JSON as it was."""
    place.create(", PRIMARY KEY (id)" if place.marks == "%s" else "")
    place.add(table())
    feed = sql.TableFeed(place.url())
    first = next(feed.read(Position(), {"id": pa.int64()}))
    position = first.position(7)
    assert Position.from_plain(json.loads(json.dumps(position.to_plain()))) == position
    got = [i for run in feed.read(position, {"id": pa.int64()}) for i in run.rows.column("id").to_pylist()]
    assert got[:2] == [7, 8]


YAML = """\
name: shop
stream: {source: "SOURCE", time: at, time_zone: UTC, label: {column: y, delay: 6h}, batch: 1d}
model: sklearn.naive_bayes.GaussianNB
initial: 3d
strategies: {daily: {stateful: {every: 1d}}}
deploy: daily
"""


def test_perennial_runs_on_a_table(tmp_path):
    """`perennial run` on a table beside the configuration takes the turns that it takes on a file."""
    rng = np.random.default_rng(0)
    at = np.datetime64("2026-01-01", "us") + np.arange(200) * np.timedelta64(1, "h")
    x = rng.normal(size=(2, 200))
    rows = pa.table({"at": at, "a": x[0], "b": x[1], "y": np.where(x[0] > 0, "up", "down")})
    told = {}
    for kind, source in {"table": "sqlite:///shop.db?table=calls", "file": "calls.parquet"}.items():
        (shop := tmp_path / kind / "config").mkdir(parents=True)
        (shop / "perennial.yaml").write_text(YAML.replace("SOURCE", source))
        pq.write_table(rows.slice(0, 100), shop / "calls.parquet")
        with closing(sqlite3.connect(shop / "shop.db")) as connection, connection:
            connection.execute("CREATE TABLE calls (at DATETIME, a REAL, b REAL, y TEXT)")
            values = [tuple(_value(v, "?") for v in row.values()) for row in rows.to_pylist()]
            connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?)", values[:100])
        out = [_run(shop.parent)]
        pq.write_table(rows, shop / "calls.parquet")
        with closing(sqlite3.connect(shop / "shop.db")) as connection, connection:
            connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?)", values[100:])
        out.append(_run(shop.parent))
        told[kind] = out
    assert told["table"] == told["file"]
    assert [len(turns) for turns in told["table"]] == [4, 4]


def _run(folder):
    """The turns of `perennial run --once`: instants, rows, losses and digests of models."""
    done = perennial("run", "-c", "config/perennial.yaml", "--once", cwd=folder)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return [(e["at"], e["rows"], e["loss"], e["serving"]) for e in events if e["event"] == "turn"]


# ---------------------------------------------------------------------- commits in another order


def ids(feed, position):
    """The ids behind a position, and the position after them."""
    out = []
    for run in feed.read(position, {"id": pa.int64()}):
        out += run.rows.column("id").to_pylist()
        position = run.position(run.rows.num_rows)
    return out, position


@pytest.mark.parametrize("how", ["xmin", "a column of transactions"])
def test_who_began_first_and_commits_last_loses_nothing(postgres, how):
    """Two writers at once: the one with the lower numbers commits last; every row is read, once."""
    extra = "" if how == "xmin" else ", tx xid8 NOT NULL DEFAULT pg_current_xact_id()"
    postgres.run(f"CREATE TABLE calls (id bigserial PRIMARY KEY{extra})")
    postgres.run("INSERT INTO calls DEFAULT VALUES")
    feed = sql.TableFeed(postgres.url() + ("" if how == "xmin" else "&order=tx,id"))
    position, seen = Position(), {}
    got = []

    def look():
        nonlocal position
        more, position = ids(feed, position)
        got.extend(more)
        return more

    eventually(look, 1)
    with postgres.psycopg() as slow, postgres.psycopg() as quick:
        slow.execute("INSERT INTO calls DEFAULT VALUES")  # 2
        quick.execute("INSERT INTO calls DEFAULT VALUES")  # 3
        quick.commit()
        assert look() == []  # 3 waits for 2
        feed.is_new(seen)
        slow.execute("INSERT INTO calls DEFAULT VALUES")  # 4
        slow.execute("SAVEPOINT here")
        slow.execute("INSERT INTO calls DEFAULT VALUES")  # 5, in a transaction within
        assert not feed.is_new(seen)
        slow.commit()
    eventually(look, 4)
    assert sorted(got) == [1, 2, 3, 4, 5]
    postgres.run("INSERT INTO calls DEFAULT VALUES")
    assert eventually(look, 1) == [6]
    assert feed.is_new(seen)


def test_a_number_that_was_drawn_early_and_written_late_is_read(postgres):
    """A writer draws a number, is overtaken, and begins to write after the other's row was read."""
    postgres.run("CREATE TABLE calls (id bigserial PRIMARY KEY)")
    feed, position, got = sql.TableFeed(postgres.url()), Position(), []

    def look():
        nonlocal position
        more, position = ids(feed, position)
        got.extend(more)
        return more

    (drawn,) = postgres.run("SELECT nextval('calls_id_seq')")[0]
    postgres.run("INSERT INTO calls DEFAULT VALUES")
    assert eventually(look, 1) == [2]
    postgres.run(f"INSERT INTO calls VALUES ({drawn})")
    assert eventually(look, 1) == [1]


def test_many_writers_at_once(postgres):
    """Whatever the order of commits, what was read at any time grows only at its end, and holds every row once."""
    rng = np.random.default_rng(1)
    postgres.run("CREATE TABLE calls (id bigserial PRIMARY KEY)")
    feed, position, got = sql.TableFeed(postgres.url()), Position(), []
    writers = [postgres.psycopg() for _ in range(4)]
    inserted = 0
    try:
        for _ in range(80):
            writer = writers[rng.integers(4)]
            if rng.random() < 0.6:
                writer.execute("INSERT INTO calls DEFAULT VALUES")
                inserted += 1
            else:
                writer.commit()
            if rng.random() < 0.3:
                more, position = ids(feed, position)
                got += more
        for writer in writers:
            writer.commit()
    finally:
        for writer in writers:
            writer.close()

    def look():
        nonlocal position
        more, position = ids(feed, position)
        return more

    got += eventually(look, inserted - len(got))
    assert sorted(got) == list(range(1, inserted + 1))
    whole = open_source(postgres.url())
    whole.types((), ())
    assert [i for block in whole.blocks({"id": pa.int64()}) for i in block.rows.column("id").to_pylist()] == got


def test_a_commit_later_than_the_delay_is_told(postgres):
    """A row that turns up before rows that were read is never passed over in silence."""
    postgres.run("CREATE TABLE calls (id bigint PRIMARY KEY, put timestamp)")
    now = datetime.now(UTC).replace(tzinfo=None)
    hour = timedelta(hours=1)
    postgres.run("INSERT INTO calls VALUES (%s, %s)", [(1, now - 5 * hour), (2, now - 3 * hour), (3, now)])
    feed = sql.TableFeed(postgres.url(order="put", delay="2h"))
    got, position = ids(feed, Position())
    assert got == [1, 2]
    assert ids(feed, position) == ([], position)
    postgres.run("DELETE FROM calls WHERE id = 1")  # old rows may go
    assert ids(feed, position)[0] == []
    postgres.run("INSERT INTO calls VALUES (%s, %s)", [(4, now - 4 * hour), (1, now - 5 * hour)])
    with pytest.raises(OffsetGone, match=r"1 rows of .*calls turned up before .*longer than `delay`"):
        ids(feed, position)


# ---------------------------------------------------------------------- what was read changes


@pytest.mark.parametrize("how", ["rowid", "xmin", "a column of transactions"])
def test_what_happens_to_rows_that_were_read(request, how):
    """An updated row is never read again: it is passed over where it can be told, and else the source says so."""
    place = request.getfixturevalue("sqlite" if how == "rowid" else "postgres")
    extra = ", tx xid8 DEFAULT pg_current_xact_id()" if how == "a column of transactions" else ""
    place.run(f"CREATE TABLE calls (id INTEGER PRIMARY KEY, x INTEGER{extra})")
    insert = f"INSERT INTO calls (id, x) VALUES ({place.marks}, {place.marks})"
    place.run(insert, [(i, i) for i in range(1, 101)])
    feed = sql.TableFeed(place.url() + ("&order=tx" if extra else ""))
    types = {"id": pa.int64(), "x": pa.int64()}

    def read(position):
        runs = list(feed.read(position, types))
        end = runs[-1].position(runs[-1].rows.num_rows) if runs else position
        return [i for run in runs for i in run.rows.column("id").to_pylist()], end

    got, position = [], Position()
    while len(got) < 100:
        more, position = read(position)
        got += more
    assert got == list(range(1, 101))
    place.run("UPDATE calls SET x = 0 WHERE id = 50")
    if how == "xmin":
        with pytest.raises(OffsetGone, match=r"1 rows of .*calls that were read were updated or deleted.*xid8"):
            read(position)
        return
    assert read(position)[0] == []
    place.run("DELETE FROM calls WHERE id < 40")
    place.run(insert, [(101, 0)])
    assert eventually(lambda: read(position)[0], 1) == [101]
    place.run("UPDATE calls SET x = 0 WHERE id = 100")
    with pytest.raises(OffsetGone, match="is not what it was: it was updated"):
        read(position)
    place.run("DELETE FROM calls WHERE id = 100")
    with pytest.raises(OffsetGone, match="no longer there"):
        read(position)
    with pytest.raises(OffsetGone, match="what was read is others"):
        read(Position(file="others", rows=1, key=("1",)))


def test_a_row_that_is_put_before_others_is_told(sqlite):
    """SQLite lets anybody choose a rowid: a row below those that were read is not passed over."""
    sqlite.run("CREATE TABLE calls (id INTEGER PRIMARY KEY)")
    sqlite.run("INSERT INTO calls VALUES (?)", [(10,), (20,)])
    feed = sql.TableFeed(sqlite.url())
    _, position = ids(feed, Position())
    sqlite.run("INSERT INTO calls VALUES (15)")
    with pytest.raises(OffsetGone, match=r"1 rows of calls turned up before .*numbers of their own"):
        ids(feed, position)


def test_transactions_of_another_server_are_told(postgres):
    """A dump that was restored brings numbers of transactions that this server has not begun."""
    postgres.run("CREATE TABLE calls (id bigint PRIMARY KEY, tx xid8)")
    postgres.run("INSERT INTO calls VALUES (1, '999999999999')")
    with pytest.raises(DataError, match=r"'tx' of .* has not begun"):
        ids(sql.TableFeed(postgres.url(order="tx")), Position())


def test_a_column_that_changes_is_told(place):
    """A column that is gone, or of another type, stops the reading; a new one is passed over."""
    place.create(", PRIMARY KEY (id)" if place.marks == "%s" else "")
    place.add(table())
    feed = sql.TableFeed(place.url())
    types = {"id": pa.int64(), "a": pa.float64()}
    list(feed.read(Position(), types))
    place.run("ALTER TABLE calls ADD COLUMN new INTEGER")
    list(feed.read(Position(), types))
    place.run("ALTER TABLE calls DROP COLUMN a")
    with pytest.raises(DataError, match="column 'a' is no longer in"):
        list(feed.read(Position(), types))
    place.run("ALTER TABLE calls ADD COLUMN a TEXT")
    with pytest.raises(DataError, match=r"column 'a' of .*calls was double and is string now \((TEXT|text)\)"):
        list(feed.read(Position(), types))


# ---------------------------------------------------------------------- types and order


def read(url):
    """A table as a whole: names, types and values."""
    source = open_source(url)
    types = source.types((), ())
    return pa.Table.from_batches([b.rows for b in source.blocks(types)], schema=pa.schema(list(types.items())))


def test_types_of_postgres(postgres):
    """Whole numbers are int64, fractions float64, words string, times microseconds with or without a zone."""
    postgres.run("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    postgres.run("CREATE DOMAIN cents AS numeric(12)")
    postgres.run(
        """CREATE TABLE calls ("i:d" smallint PRIMARY KEY, r real, p numeric, c cents, v varchar(9), b char(4), m mood,
        u uuid, "a ""%{}" boolean, d date, t timestamp(3), z timestamptz)"""
    )
    postgres.run("SET TIME ZONE 'Europe/Lisbon'")
    postgres.run(
        """INSERT INTO calls VALUES (1, 0.1, 2.5, 300, 'v', 'b', 'glad', '00000000-0000-0000-0000-000000000007', true,
        '2026-07-01', '2026-07-01 12:00:00.123', '2026-07-01 12:00:00.123456+02')"""
    )
    postgres.run("""INSERT INTO calls ("i:d") VALUES (2)""")
    found = read(postgres.url())
    us, text = pa.timestamp("us"), pa.string()
    wanted = [pa.int64(), pa.float64(), pa.float64(), pa.int64(), text, text, text, text, pa.bool_(), pa.date32(), us,
              pa.timestamp("us", tz="UTC")]  # fmt: skip
    assert found.schema.types == wanted
    first, second = found.to_pylist()
    assert set(list(second.values())[1:]) == {None}
    assert first == {
        "i:d": 1, "r": float(np.float32(0.1)), "p": 2.5, "c": 300, "v": "v", "b": "b", "m": "glad",
        "u": "00000000-0000-0000-0000-000000000007", 'a "%{}': True, "d": datetime(2026, 7, 1).date(),
        "t": datetime(2026, 7, 1, 12, 0, 0, 123000), "z": datetime(2026, 7, 1, 10, 0, 0, 123456, tzinfo=UTC),
    }  # fmt: skip
    postgres.run("""DELETE FROM calls WHERE "i:d" = 2""")
    for order in ["z", "t", "d", "u", "m", "v", "b", "c", "p", "i:d"]:
        feed = sql.TableFeed(postgres.url(order=order), follow=False)
        (run,) = feed.read(Position(), {"r": pa.float64()})
        assert list(feed.read(run.position(1), {"r": pa.float64()})) == [], order


def test_types_of_sqlite(sqlite):
    """Declared types say what a column is; a view's expressions say it by their values."""
    sqlite.run(
        """CREATE TABLE calls ("i:d" INTEGER PRIMARY KEY, r REAL, p DECIMAL(9, 2), v VARCHAR(9), b BOOLEAN, d DATE,
        t DATETIME, z TIMESTAMP)"""
    )
    sqlite.run(
        """INSERT INTO calls VALUES (1, 0.1, 2, 'v', 1, '2026-07-01', '2026-07-01T12:00:00',
        '2026-07-01 12:00:00.5+02:00'), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"""
    )
    found = read(sqlite.url())
    text, us = pa.string(), pa.timestamp("us")
    wanted = [pa.int64(), pa.float64(), pa.float64(), text, pa.bool_(), pa.date32(), us, pa.timestamp("us", tz="UTC")]
    assert found.schema.types == wanted
    assert list(found.to_pylist()[0].values()) == [
        1, 0.1, 2.0, "v", True, datetime(2026, 7, 1).date(), datetime(2026, 7, 1, 12),
        datetime(2026, 7, 1, 10, 0, 0, 500000, tzinfo=UTC),
    ]  # fmt: skip
    sqlite.run("""CREATE VIEW seen AS SELECT "i:d" AS id, r + 1 AS one, v || '' AS two, NULL AS three FROM calls""")
    assert read(sqlite.url("seen", order="id")).schema.types == [pa.int64(), pa.float64(), text, pa.float64()]


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("n INTEGER", "'many'", r"column 'n' of calls holds 'many', and the column \(INTEGER\) is read as int64"),
        ("n INTEGER", "1.5", "holds 1.5"),
        ("n BOOLEAN", "7", "holds 7"),
        ("n TEXT", "x'00'", "holds b"),
        ("n DATETIME", "'soon'", "holds 'soon'"),
        ("n DATETIME", "1700000000", "holds 1700000000"),
        ("n BLOB", "x'00'", "holds BLOB, which no learner reads: list it under `drop`"),
        ("n JSON", "'{}'", "holds JSON"),
    ],
)
def test_values_that_are_no_such_type(sqlite, column, value, told):
    """SQLite keeps whatever it is given: a value that is not of the column's type is named."""
    sqlite.run(f"CREATE TABLE calls (id INTEGER PRIMARY KEY, {column})")
    sqlite.run(f"INSERT INTO calls VALUES (1, NULL), (2, {value})")
    with pytest.raises(DataError, match=told):
        read(sqlite.url())


def test_types_that_have_no_meaning_on_postgres(postgres):
    """They are named, and may be dropped; an endless time is told."""
    postgres.run("CREATE TABLE calls (id bigint PRIMARY KEY, n jsonb, t timestamp)")
    postgres.run("INSERT INTO calls VALUES (1, '{}', 'infinity')")
    with pytest.raises(DataError, match=r"column 'n' of .*calls holds jsonb"):
        read(postgres.url())
    source = open_source(postgres.url())
    types = source.types(["n"], ())
    with pytest.raises(DataError, match="infinity"):
        list(source.blocks(types))


def test_order_is_checked(place):
    """An order that is missing, unknown, not unique or has gaps is told."""
    raw = "BLOB" if place.marks == "?" else "bytea"
    place.run(f"CREATE TABLE calls (id INTEGER, at TIMESTAMP, x DOUBLE PRECISION, j {raw})")
    place.run("INSERT INTO calls VALUES (1, '2026-01-01', 1.0, NULL), (1, NULL, 2.0, NULL), (2, NULL, 3.0, NULL)")
    place.run("CREATE VIEW seen AS SELECT id, at, x FROM calls")

    def ordered(name="calls", **more):
        return list(sql.TableFeed(place.url(name, **more), follow=False).read(Position(), {"x": pa.float64()}))

    with pytest.raises(ConfigError, match="`order` names no such column: did you mean `id`"):
        ordered(order="idd")
    with pytest.raises(ConfigError, match="&order=arrived_id"):
        ordered("seen")
    with pytest.raises(DataError, match="no value in a column of its order at"):
        ordered(order="at")
    with pytest.raises(DataError, match=r"two rows have the same place \('?1'?,\) in the order id"):
        ordered("seen", order="id")
    if place.marks == "%s":
        with pytest.raises(ConfigError, match=r"names? another"):
            ordered(order="x")
        with pytest.raises(ConfigError, match="a view does not tell when"):
            list(sql.TableFeed(place.url("seen", order="id")).read(Position(), {"x": pa.float64()}))
        with pytest.raises(ConfigError, match="begins with timestamps"):
            ordered(order="id", delay="1h")
    else:
        with pytest.raises(DataError, match="no value in a column of its order j"):
            ordered(order="j")
        place.run("UPDATE calls SET j = x'00'")
        with pytest.raises(ConfigError, match="column of bytes"):
            ordered(order="j")


def test_a_stated_order_on_sqlite(sqlite):
    """Rows that lie in another order are read in the stated one; a table without rowids needs it."""
    sqlite.run("CREATE TABLE calls (id TEXT PRIMARY KEY, at TIMESTAMP NOT NULL) WITHOUT ROWID")
    sqlite.run(
        "INSERT INTO calls VALUES (?, ?)", [(f"{i * 7 % 100:02}", f"2026-01-01 00:00:{i % 60:02}") for i in range(100)]
    )
    with pytest.raises(ConfigError, match="has no rowid"):
        read(sqlite.url())
    found = read(sqlite.url(order="at"))
    assert found.num_rows == 100
    assert found.to_pylist() == sorted(found.to_pylist(), key=lambda row: (row["at"], row["id"]))


def test_no_such_table(place):
    """The nearest name is told."""
    place.run("CREATE TABLE calls (id INTEGER PRIMARY KEY)")
    with pytest.raises(ConfigError, match=r"source='cals': .*no such table.* did you mean `calls`"):
        read(place.url("cals"))
    with pytest.raises(ConfigError, match="no such column: did you mean `id`"):
        pn.Stream(place.url(), time="idd", target="id", batch=1).prepare(Path("nowhere"))


def test_a_server_that_is_away():
    """It may come back: the error says so by its type."""
    with pytest.raises(SourceAway, match="try again once the database answers"):
        read("postgresql://nobody@127.0.0.1:1/none?table=calls")


def test_a_writer_is_not_stopped(sqlite):
    """Between two blocks nothing is locked: others write to a SQLite file while it is read."""
    sqlite.create()
    sqlite.add(table())
    runs = sql.TableFeed(sqlite.url()).read(Position(), {"id": pa.int64()})
    next(runs)
    with closing(sqlite3.connect(sa.make_url(sqlite.url()).database, timeout=0)) as other, other:
        other.execute("DELETE FROM calls WHERE id > 290")
    assert sum(run.rows.num_rows for run in runs) == 291 - 50 - 1


def test_a_label_log_in_a_table(sqlite, tmp_path):
    """Labels that arrive apart from their rows may lie in a table, too."""
    rows = table().drop(["y", "k"])
    sqlite.run("CREATE TABLE log (id INTEGER, y TEXT, known_at DATETIME)")
    entries = [(i, "ab"[i % 2], str(at + timedelta(hours=5))) for i, at in enumerate(rows.column("at").to_pylist())]
    sqlite.run("INSERT INTO log VALUES (?, ?, ?)", entries)
    log = pa.table({"id": [e[0] for e in entries], "y": [e[1] for e in entries],
                    "known_at": pa.array([datetime.fromisoformat(e[2]) for e in entries])})  # fmt: skip
    settings = {"time": "at", "target": "y", "id": "id", "lateness": "2h", "batch": "6h"}
    one = pn.Stream(rows, **settings, labels=sqlite.url("log")).prepare(tmp_path / "p")
    assert one.digest == pn.Stream(rows, **settings, labels=log).prepare(tmp_path / "q").digest
