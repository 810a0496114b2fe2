"""The URL of a table is checked before anything is read, and a file's path in it can be moved."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from perennial.config import parse
from perennial.config.building import build
from perennial.core.errors import ConfigError, MissingExtra
from perennial.stream import Stream
from perennial.stream.feed import Feed, Position, feed_of
from perennial.stream.sources import is_url, open_source
from perennial.stream.sql import Address, TableFeed, moved


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A database with one table."""
    path = tmp_path / "shop 100%.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, at DATETIME, x REAL, y TEXT)")
        rows = [(i, f"2026-01-{i:02} 10:00:00", i / 2, "ab"[i % 2]) for i in range(1, 10)]
        connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?)", rows)
    return path


def url(path: Path, query: str = "table=calls") -> str:
    """The URL of a file."""
    return f"sqlite:///{str(path).replace('%', '%25')}?{query}"


def test_what_is_a_url() -> None:
    """Paths and globs are none."""
    assert is_url("sqlite:///shop.db?table=calls")
    assert is_url("postgresql+psycopg://user@host/db?table=calls")
    assert is_url("mysql://host/db?table=calls")
    assert not any(is_url(path) for path in ("calls.parquet", "/data/*.csv", "C:\\data", Path("sqlite:///x"), None))


def test_an_address_says_what_the_url_says() -> None:
    """Parameters that are ours are taken out, and the others are the driver's."""
    source = "postgresql://user@host:5433/db?table=calls&sslmode=require&schema=app&order=at,+id&delay=10min"
    assert Address.of(source) == Address(
        url="postgresql+psycopg://user@host:5433/db?sslmode=require", table="calls", schema="app", order=("at", "id"),
        delay=timedelta(minutes=10), field="source",
    )  # fmt: skip
    assert Address.of(source).name == "app.calls"
    assert Address.of("postgres://host/db?table=calls").url == "postgresql+psycopg://host/db"


WRONG = [
    ("sqlite:///nowhere.db?table=calls", "no such file"),
    ("sqlite://?table=calls", "three slashes"),
    ("sqlite:///:memory:?table=calls", "three slashes"),
    ("sqlite:///{}", "say which table"),
    ("sqlite:///{}?tabel=calls", r"'tabel' is no parameter: did you mean `table`"),
    ("sqlite:///{}?table=calls&schema=app", "SQLite has no `schema`"),
    ("sqlite:///{}?table=calls&delay=1h", "take `delay` out"),
    ("postgresql://host/db", "say which table"),
    ("postgresql://host/db?tables=calls", r"say which table \(`tables` is no parameter\)"),
    ("postgresql://host/db?table=calls&delay=1h", "&order=arrived_at"),
    ("postgresql://host/db?table=calls&order=at&delay=soon", "duration"),
    ("postgresql://host/db?table=calls&order=at&delay=0h", "positive"),
    ("postgresql://me:secret@host/db?table=calls", "PGPASSWORD"),
    ("postgresql://host/db?table=calls&password=secret", "PGPASSWORD"),
    ("mysql://host/db?table=calls", "SQLite or PostgreSQL"),
]


@pytest.mark.parametrize(("source", "told"), WRONG)
def test_a_wrong_url_is_told_when_the_stream_is_made(tmp_path: Path, source: str, told: str) -> None:
    """Before anything is read, and without the password."""
    (tmp_path / "shop.db").touch()
    with pytest.raises(ConfigError, match=told) as caught:
        Stream(source.format(tmp_path / "shop.db"), time="at")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """The driver's word and the file are told."""
    (tmp_path / "shop.db").write_text("no database" * 100)
    with pytest.raises(ValueError, match=r"shop\.db: file is not a database"):
        open_source(f"sqlite:///{tmp_path}/shop.db?table=calls").types((), ())
    (tmp_path / "empty.db").touch()
    with pytest.raises(ConfigError, match="no such table: it has none at all"):
        open_source(f"sqlite:///{tmp_path}/empty.db?table=calls").types((), ())


def test_a_stream_is_called_as_its_table(shop: Path) -> None:
    """Reports show the URL, which holds no password."""
    stream = Stream(url(shop), time="at", target="y")
    assert stream.name == "calls"
    assert stream.describe()["source"] == url(shop)


def test_a_path_is_moved() -> None:
    """What is relative to the configuration becomes relative to the working folder; a server stays where it is."""
    assert moved("sqlite:///a/shop.db?table=calls", lambda path: f"b/{path}") == "sqlite:///b/a/shop.db?table=calls"
    assert moved("sqlite:////a/100%25.db?table=c", lambda path: path) == "sqlite:////a/100%25.db?table=c"
    assert moved("postgresql://host/db?table=calls", lambda path: "") == "postgresql://host/db?table=calls"


def test_a_configuration_names_a_table_beside_it(shop: Path) -> None:
    """A relative path in a file is relative to the file."""
    text = f"""
        stream: {{source: "sqlite:///{shop.name.replace("%", "%25")}?table=calls", time: at, label: y, drop: [id]}}
        model: sklearn.naive_bayes.GaussianNB
        initial: 3d
        strategies: {{daily: {{stateful: {{every: 1d}}}}}}
    """
    built = build(parse(text, shop.parent / "perennial.yaml").config, folder=shop.parent)
    assert built.stream.source == url(shop)
    assert built.stream.prepare(shop.parent / "prepared").rows == 9


def test_what_follows_a_source() -> None:
    """A URL is followed as a table and a path as files; a table in memory does not grow."""
    assert isinstance(feed_of("files/*.csv"), Feed)
    with pytest.raises(ConfigError, match="give a path or a URL"):
        feed_of([1])


def test_a_table_is_followed(shop: Path) -> None:
    """The position of a table keeps where its last row stands, and that of files is as it was."""
    feed = feed_of(url(shop))
    assert isinstance(feed, TableFeed)
    source = feed.open()
    (run,) = feed.read(Position(), source.types(("at",), ()))
    assert run.position(9).to_plain()[:2] == ["calls", 9]
    assert run.position(9).to_plain()[4] == [9]
    assert Position("0.csv", 3, "abc", 1).to_plain() == ["0.csv", 3, "abc", 1]


def test_psycopg_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'perennial\[postgres\]'"):
        open_source("postgresql://host/db?table=calls")
