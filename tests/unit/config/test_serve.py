"""``source: serve``: what it stands for, its defaults, and what it refuses."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from perennial.config import load
from perennial.core.errors import ConfigError
from perennial.stream.calendar import Calendar

YAML = """
name: shop
stream: {{source: serve, label: {{column: y, wait: 7d}}{stream}}}
model: {model}
initial: 50
strategies: {{live: {{stateful: {{every: 20}}}}}}
deploy: live
{more}
"""


@pytest.fixture
def made(tmp_path):
    """A function that gives the deployment of a configuration."""

    def make(stream="", more="", model="perennial.learners.plain:Logistic"):
        file = tmp_path / "perennial.yaml"
        file.write_text(YAML.format(stream=stream, more=more, model=model))
        return load(file).deployment()

    return make


def test_what_need_not_be_said(made, tmp_path):
    """Columns, batches, where the inbox is and how long it keeps what was taken."""
    shop = made()
    stream = shop.stream
    assert (stream.served, stream.time, stream.id) == (True, "time", "id")
    assert stream.calendar == Calendar.of("10s")
    assert stream.span("lateness") == timedelta(minutes=1)
    assert shop.inbox.database == f"sqlite:///{tmp_path}/.perennial/inbox.db"
    assert (shop.inbox.deployment, shop.inbox.keep) == ("shop", timedelta(days=30))
    assert (stream.source, stream.labels) == (shop.inbox.url("rows"), shop.inbox.url("labels"))
    assert shop.columns is None
    assert not (tmp_path / ".perennial").exists()


@pytest.mark.parametrize(
    ("more", "database", "keep"),
    [
        ("retention: 90d", "sqlite:///{}/.perennial/inbox.db", 90),
        ("retention: none\nserve: {inbox: 'sqlite:///other.db'}", "sqlite:///{}/other.db", 0),
        ("ledger: 'postgresql://me@host/base'\nblobs: blobs", "postgresql://me@host/base", 30),
        ("serve: {inbox: 'postgresql://me@host/base'}", "postgresql://me@host/base", 30),
    ],
)
def test_where_the_inbox_is(made, tmp_path, more, database, keep):
    """Beside the ledger, in its database, or where the configuration says; it keeps what retention says."""
    inbox = made(more=more).inbox
    assert inbox.database == database.format(tmp_path)
    assert inbox.keep == timedelta(days=keep)


@pytest.mark.parametrize(
    ("stream", "model", "label"),
    [
        (", columns: {a: number, b: boolean, n: integer, w: text, t: time, y: boolean}", "Logistic", pa.bool_()),
        (", columns: {a: number}, positive: 1", "Logistic", pa.int64()),
        (", columns: {a: number}, positive: yes", "Logistic", pa.string()),
        (", columns: {a: number}", "Linear", pa.float64()),
    ],
)
def test_what_labels_are(made, stream, model, label):
    """Columns say it, or the positive class, or that a number is predicted."""
    columns = made(stream, model=f"perennial.learners.plain:{model}").columns
    assert columns["y"] == label
    assert columns["a"] == pa.float64()


def test_labels_that_nothing_tells(made):
    """The logs cannot be made, and are waited for."""
    shop = made(", columns: {a: number}")
    assert shop.columns is None
    assert not shop.begun()


@pytest.mark.parametrize(
    ("stream", "need"),
    [
        (", labels: log.parquet", "its own label log"),
        (", columns: {a: float}", "did you mean|one of"),
    ],
)
def test_what_it_refuses(made, stream, need):
    """Each with what to do instead."""
    with pytest.raises(ConfigError, match=need):
        made(stream)


def test_columns_are_of_what_is_served(tmp_path):
    """A file says what it holds."""
    file = tmp_path / "perennial.yaml"
    file.write_text(
        YAML.format(stream=", time: at, columns: {a: number}", more="", model="x.Y").replace("serve", "rows.csv", 1)
    )
    with pytest.raises(ConfigError, match="they are of `source: serve`"):
        load(file)


def test_known_at_is_the_servers(tmp_path):
    """Labels are known when they are received."""
    file = tmp_path / "perennial.yaml"
    text = YAML.format(stream="", more="", model="x.Y").replace("wait: 7d", "known_at: paid")
    file.write_text(text)
    with pytest.raises(ConfigError, match="known when they are received"):
        load(file)
