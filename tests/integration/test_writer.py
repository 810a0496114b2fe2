"""The writer of a worker on real databases: what is answered gets into the log, what comes back is durable, once."""

from __future__ import annotations

import json
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from perennial.core.errors import ConfigError
from perennial.core.records import Prediction
from perennial.server import received
from perennial.server import writer as writer_module
from perennial.server.received import LabelItem, Received, Thumb
from perennial.server.rows import Answered, Rows
from perennial.server.standing import Flow, Standing, standing
from perennial.stream import inbox_index, ingest
from perennial.stream.feed import OffsetGone, Position, SourceAway, feed_of
from perennial.stream.inbox import SAID, SHADOW, SHADOW_SAID, VERSION, Inbox, erase, rows_schema, unpack
from perennial.stream.ingest import IngestLog, KeyTaken
from tests import inboxes, postgres
from tests.inboxes import answered, entries, rows


@pytest.fixture(scope="module")
def served():
    """A schema of its own on a server."""
    with postgres.schema() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> Inbox:
    """An inbox in each database in turn."""
    if request.param == "sqlite":
        return Inbox(f"sqlite:///{tmp_path}/inbox.db", "shop")
    return Inbox(request.getfixturevalue("served"), f"shop-{secrets.token_hex(4)}")


@pytest.fixture
def start():
    """Starts writers, and closes them in the end."""
    begun = []

    def started(inbox, **settings):
        begun.append(inboxes.writer(inbox, **settings))
        begun[-1].start()
        return begun[-1]

    yield started
    for one in begun:
        one.close()


def take(writer, *, labels=(), thumbs=(), key=""):
    """Hand items over, and wait for what became of them."""
    items = {"labels": [LabelItem(*item) for item in labels], "thumbs": [Thumb(*item) for item in thumbs]}
    request = Received(**items, key=key, content=repr(items))
    return [(one.outcome, one.label) for one in writer.take(request).result(20)]


def outcomes(writer, *labels, key=""):
    """Hand labels over, and wait for what became of them."""
    return [outcome for outcome, _ in take(writer, labels=labels, key=key)]


# ---------------------------------------------------------------------- predictions


def test_what_was_answered_is_logged_as_it_was(inbox, start):
    """Columns in their types, nulls where nothing was given, who said what, and beside it a challenger."""
    counters = inboxes.Counters()
    beside = ("2.0", inboxes.prediction(np.arange(3, 5.0), proba=False))
    one = start(inbox, counters=counters)
    assert one.log(answered(0, 3)) is True
    assert one.log(answered(3, 2, time=2_000_000, version="1.1", shadow=beside))
    values = Prediction(values=np.array([0.25]))
    one.log(Answered(
        time=3_000_000, ids=["r"], version="1.2", prediction=values,
        rows=Rows(n=1, numbers=np.full((1, 4), np.nan), others={"word": [None]}, keys=None),
    ))  # fmt: skip
    one.close()
    got = rows(inbox, "rows")
    assert [row["call"] for row in got] == [*(f"call-{i}" for i in range(5)), "r"]
    assert [(row["x"], row["n"], row["flag"], row["word"], row["who"]) for row in got] == [
        (0.0, 0, False, "w0", "who-0"), (0.5, 1, True, "w1", "who-1"), (1.0, 2, False, "w2", "who-0"),
        (1.5, 3, True, "w0", "who-0"), (2.0, 4, False, "w1", "who-1"), (None,) * 5,
    ]  # fmt: skip
    assert [row["at"].timestamp() for row in got] == [1, 1, 1, 2, 2, 3]
    assert [row[VERSION] for row in got] == ["1.0"] * 3 + ["1.1"] * 2 + ["1.2"]
    assert [row[SHADOW] for row in got] == [None] * 3 + ["2.0"] * 2 + [None]
    said = [list(numbers) for numbers in unpack(pa.array([row[SAID] for row in got]))]
    assert said == [[i % 2, 1 - i / 1e6, i / 1e6] for i in range(5)] + [[0.25]]
    assert [None if n is None else list(n) for n in unpack(pa.array([row[SHADOW_SAID] for row in got]))] == [
        None, None, None, [1.0], [0.0], None,
    ]  # fmt: skip
    assert counters == {"logged": 6}


def test_what_waits_becomes_one_entry(inbox, start):
    """However many requests it was, and in order of their times."""
    one = inboxes.writer(inbox)
    for i in (3, 1, 2):
        one.log(answered(i, time=i))
    one.start()
    one.close()
    assert [[row["call"] for row in entry] for entry in entries(inbox, "rows")] == [["call-1", "call-2", "call-3"]]


def test_more_than_may_wait_is_dropped_and_counted(inbox):
    """Bounded memory; what was taken is written."""
    counters = inboxes.Counters()
    one = inboxes.writer(inbox, queue_rows=10, counters=counters)
    assert [one.log(answered(i * 4, 4)) for i in range(4)] == [True, True, False, False]
    assert (one.waits, counters) == (8, {"dropped": 8})
    one.start()
    one.close()
    assert len(rows(inbox, "rows")) == counters["logged"] == 8
    assert not one.log(answered(99))


def test_with_refuse_the_caller_answers_for_it(inbox):
    """Nothing is counted as dropped: the request is refused."""
    counters = inboxes.Counters()
    one = inboxes.writer(inbox, queue_rows=1, overflow="refuse", counters=counters)
    assert [one.log(answered(i)) for i in range(2)] == [True, False]
    assert counters == {}


def test_an_answer_that_cannot_be_a_row_takes_no_other_along(inbox, start, caplog):
    """It is counted as dropped, and told."""
    counters, wrong = inboxes.Counters(), answered(1)
    wrong.rows.numbers[0, 1] = 0.5  # a fraction, where the column holds whole numbers
    one = inboxes.writer(inbox, counters=counters)
    for each in (answered(0), wrong, answered(2)):
        one.log(each)
    one.start()
    one.close()
    assert [row["call"] for row in rows(inbox, "rows")] == ["call-0", "call-2"]
    assert counters == {"logged": 2, "dropped": 1}
    assert "a prediction cannot be logged" in caplog.text


def test_a_log_with_other_columns_is_told_and_not_written(inbox, caplog):
    """Labels are still taken in."""
    IngestLog.open(inbox.url("rows"), pa.schema({"other": pa.int64()})).close()
    counters = inboxes.Counters()
    one = inboxes.writer(inbox, counters=counters)
    one.log(answered(0))
    one.start()
    assert outcomes(one, ("call-0", "up")) == ["accepted"]
    one.log(answered(1))
    one.close()
    assert counters == {"dropped": 2}
    assert [record.getMessage() for record in caplog.records] == ["predictions are not logged"]
    assert rows(inbox, "rows") == []


def test_a_log_that_is_there_may_have_more_columns_in_another_order(inbox):
    """History that was pushed had weights; what a server logs has none."""
    schema = rows_schema(inboxes.stream(), inboxes.TYPES)
    IngestLog.open(inbox.url("rows"), pa.schema([pa.field("weight", pa.float64()), *reversed(list(schema))])).close()
    one = inboxes.writer(inbox)
    one.log(answered(5))
    one.start()
    one.close()
    (row,) = rows(inbox, "rows")
    assert (row["call"], row["x"], row["n"], row["who"], row["weight"]) == ("call-5", 2.5, 5, "who-0", None)


# ---------------------------------------------------------------------- labels


def test_each_label_has_an_outcome(inbox, start):
    """First, again, another, older, without a time; what stands is what the log says last."""
    one = start(inbox)
    said = [("a", "up", 10), ("a", "up", 10), ("a", "down", 11), ("a", "up", 9), ("a", "up", None), ("b", "up", 1)]
    assert [outcomes(one, item)[0] for item in said] == [
        "accepted", "repeated", "revised", "older", "revised", "accepted",
    ]  # fmt: skip
    got = rows(inbox, "labels")
    assert [(row["call"], row["y"]) for row in got] == [("a", "up"), ("a", "down"), ("a", "up"), ("b", "up")]
    observed = [row["observed_at"] and row["observed_at"].microsecond for row in got]
    assert observed == [10, 11, None, 1]


def test_of_one_id_instants_are_all_different(inbox, start):
    """Also in one request, and where the clock stands still: who orders by them finds the last one last."""
    one = start(inbox, clock=lambda: 5_000_000)
    assert outcomes(one, ("a", "up"), ("a", "down"), ("b", "up"), ("a", "up")) == [
        "accepted", "revised", "accepted", "revised",
    ]  # fmt: skip
    known = [(row["call"], row["y"], row["known_at"]) for row in rows(inbox, "labels")]
    start_at = datetime.fromtimestamp(5, UTC)
    assert known == [
        (name, label, start_at + timedelta(microseconds=after))
        for name, label, after in [("a", "up", 0), ("a", "down", 1), ("b", "up", 0), ("a", "up", 2)]
    ]


def test_a_prediction_is_durable_before_its_label(inbox, start, monkeypatch):
    """Both in one transaction, predictions first; it happens long before they would be flushed."""
    one = start(inbox, flush=timedelta(hours=1))
    one.log(answered(0))
    assert outcomes(one, ("call-0", "up")) == ["accepted"]
    assert len(rows(inbox, "rows")) == len(rows(inbox, "labels")) == 1


def test_requests_that_come_together_share_a_transaction(inbox):
    """One entry holds the labels of all of them."""
    one = inboxes.writer(inbox)
    futures = [one.take(Received(labels=[LabelItem(f"a{i}", "up")])) for i in range(50)]
    one.start()
    assert {future.result(20)[0].outcome for future in futures} == {"accepted"}
    one.close()
    assert [len(entry) for entry in entries(inbox, "labels")] == [50]


def test_a_key_says_that_a_request_is_the_same(inbox, start):
    """Sent again after the label was revised it changes nothing; with other content it is refused, alone."""
    one = start(inbox)
    assert outcomes(one, ("a", "up"), key="k") == ["accepted"]
    assert outcomes(one, ("a", "down")) == ["revised"]
    assert outcomes(one, ("a", "up"), key="k") == ["repeated"]
    futures = [
        one.take(Received(labels=[LabelItem("a", "other")], key="k", content="other")),
        one.take(Received(labels=[LabelItem("c", "up")], key="c")),
    ]
    with pytest.raises(KeyTaken, match="key 'k' was used before"):
        futures[0].result(20)
    assert futures[1].result(20)[0].outcome == "accepted"
    assert [(row["call"], row["y"]) for row in rows(inbox, "labels")] == [("a", "up"), ("a", "down"), ("c", "up")]


@pytest.mark.parametrize(
    ("dtype", "labels"),
    [(pa.int64(), [1, 2]), (pa.bool_(), [True, False]), (pa.float64(), [0.5, 2.0]), (pa.string(), ["x", "y"])],
)
def test_labels_are_of_one_type(tmp_path, start, dtype, labels):
    """That of the first one, where nothing else says it; another process finds it in the log."""
    inbox = Inbox(f"sqlite:///{tmp_path}/inbox.db", "shop")
    one, other = start(inbox), start(inbox)
    assert one.labels_are() is None
    assert outcomes(one, ("a", labels[0]), ("a", labels[1])) == ["accepted", "revised"]
    assert one.label_type == other.labels_are() == dtype
    assert [row["y"] for row in rows(inbox, "labels")] == labels


def test_a_champion_says_the_type_of_labels(tmp_path, start):
    """A first label 1 of a regression is a fraction."""
    inbox = Inbox(f"sqlite:///{tmp_path}/inbox.db", "shop")
    one = start(inbox, label_type=pa.float64)
    assert one.labels_are() == pa.float64()
    assert outcomes(one, ("a", 1), ("a", 1.0)) == ["accepted", "repeated"]


def test_labels_of_another_stream_are_refused(tmp_path, start):
    """The log says which columns it has."""
    inbox = Inbox(f"sqlite:///{tmp_path}/inbox.db", "shop")
    IngestLog.open(inbox.url("labels"), pa.schema({"call": pa.string(), "z": pa.string()})).close()
    with pytest.raises(ConfigError, match="a log keeps its columns"):
        start(inbox).labels_are()


# ---------------------------------------------------------------------- feedback


def test_feedback_is_kept_with_what_it_corrects(inbox, start):
    """A thumb, the same thumb, another; a correction is a label in the same transaction."""
    one = start(inbox)
    assert take(one, thumbs=[("a", True)]) == [("accepted", "")]
    assert take(one, thumbs=[("a", True)]) == [("repeated", "")]
    assert take(one, thumbs=[("a", False, "no")]) == [("changed", "")]
    assert take(one, thumbs=[("a", False, None, "down"), ("b", None, "hm")]) == [
        ("changed", "accepted"),
        ("accepted", ""),
    ]
    assert take(one, thumbs=[("a", False, None, "down")]) == [("repeated", "repeated")]
    got = [(row["id"], row["up"], row["text"], row["correction"]) for row in rows(inbox, "feedback")]
    assert got == [
        ("a", True, None, None), ("a", False, "no", None), ("a", False, None, '"down"'), ("b", None, "hm", None),
    ]  # fmt: skip
    assert [(row["call"], row["y"]) for row in rows(inbox, "labels")] == [("a", "down")]


def test_thumbs_are_labels_where_that_is_asked_for(inbox, start):
    """Up confirms what was said, of two classes down is the other; what is not known can come again."""
    one = start(inbox, thumbs=True, label_type=pa.string)
    assert take(one, thumbs=[("call-1", True)]) == [("accepted", "unknown")]
    one.log(answered(0, 4))
    one.log(answered(9, 1, classes=("down", "up", "flat")))
    said = [("call-1", True), ("call-2", True), ("call-3", False), ("call-9", False), ("?", True)]
    assert take(one, thumbs=said) == [
        ("repeated", "accepted"), ("accepted", "accepted"), ("accepted", "accepted"), ("accepted", ""),
        ("accepted", "unknown"),
    ]  # fmt: skip
    assert take(one, thumbs=[("call-2", False), ("call-0", True, None, "up")]) == [
        ("changed", "revised"), ("accepted", "accepted"),
    ]  # fmt: skip
    assert [(row["call"], row["y"]) for row in rows(inbox, "labels")] == [
        ("call-1", "up"), ("call-2", "down"), ("call-3", "down"), ("call-2", "up"), ("call-0", "up"),
    ]  # fmt: skip


# ---------------------------------------------------------------------- a database that is away


@pytest.fixture
def switch(monkeypatch):
    """Takes databases away, and lets a commit through whose answer is lost."""
    state = {"away": False, "unheard": 0, "tried": 0}
    writing = ingest._Database.writing

    def away(self):
        state["tried"] += 1
        if state["away"]:
            raise SourceAway("gone fishing: try again")
        return _unheard(writing(self), state)

    monkeypatch.setattr(ingest._Database, "writing", away)
    monkeypatch.setattr(writer_module, "SOON", 0.01)
    return state


class _unheard:  # noqa: N801 - reads as what it is
    def __init__(self, inner, state):
        self._inner, self._state = inner, state

    def __enter__(self):
        return self._inner.__enter__()

    def __exit__(self, *error):
        out = self._inner.__exit__(*error)
        if self._state["unheard"] and error[0] is None:
            self._state["unheard"] -= 1
            raise SourceAway("the connection broke: it is not known whether this was written")
        return out


def until(condition):
    """Wait until something is so."""
    tick = threading.Event()
    for _ in range(4000):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("it did not come about")


def test_predictions_wait_for_a_database_that_is_away(inbox, start, switch, caplog):
    """None is lost and none comes twice; requests are told at once; it is told once."""
    counters = inboxes.Counters()
    one = start(inbox, counters=counters)
    one.log(answered(0))
    until(lambda: counters["logged"] == 1)
    switch["away"] = True
    for i in range(1, 30):
        one.log(answered(i))
    with pytest.raises(SourceAway, match="gone fishing"):
        take(one, labels=[("call-1", "up")])
    tried = switch["tried"]
    until(lambda: switch["tried"] > tried + 1)
    assert one.waits == 29
    switch["away"] = False
    until(lambda: counters["logged"] == 30)
    assert outcomes(one, ("call-1", "up")) == ["accepted"]
    one.close()
    assert sorted(row["call"] for row in rows(inbox, "rows")) == sorted(f"call-{i}" for i in range(30))
    assert [r.getMessage() for r in caplog.records] == ["inbox is away", "inbox is back"]


def test_a_commit_that_nobody_heard_of_is_not_done_twice(inbox, start, switch):
    """Predictions have a key; a label that is sent again is there already."""
    counters = inboxes.Counters()
    one = start(inbox, counters=counters)
    assert outcomes(one, ("z", "up")) == ["accepted"]
    one.log(answered(0, 3))
    until(lambda: counters["logged"] == 3)
    switch["unheard"] = 1
    one.log(answered(3, 2))
    until(lambda: counters["logged"] == 5)
    switch["unheard"] = 1
    with pytest.raises(SourceAway, match="not known"):
        take(one, labels=[("a", "up")])
    until(lambda: not switch["unheard"] and one._away is None)
    assert outcomes(one, ("a", "up")) == ["repeated"]
    one.close()
    assert [row["call"] for row in rows(inbox, "rows")] == [f"call-{i}" for i in range(5)]
    assert [row["call"] for row in rows(inbox, "labels")] == ["z", "a"]


def test_what_cannot_be_written_when_the_server_ends_is_counted(inbox, switch, caplog):
    """It waits for its patience, and no longer."""
    counters = inboxes.Counters()
    one = inboxes.writer(inbox, counters=counters)
    switch["away"] = True
    one.start()
    one.log(answered(0, 7))
    one.close(patience=0.05)
    assert counters == {"dropped": 7}
    assert "predictions lost" in caplog.text
    with pytest.raises(SourceAway, match="the server is ending"):
        one.take(Received(labels=[LabelItem("a", "up")]))
    switch["away"] = False


def test_too_many_requests_are_told_to_come_again(inbox, monkeypatch):
    """Their number is bounded."""
    monkeypatch.setattr(writer_module, "ASKED", 2)
    one = inboxes.writer(inbox)
    futures = [one.take(Received(labels=[LabelItem("a", "up")])) for _ in range(2)]
    with pytest.raises(SourceAway, match="2 requests wait to be written, with 2 items"):
        one.take(Received(labels=[LabelItem("a", "up")]))
    assert futures[1].cancel()  # its client went away
    one.start()
    assert futures[0].result(20)[0].outcome == "accepted"
    one.close()


def many(first, n):
    """A request of labels of n ids."""
    return Received(labels=[LabelItem(f"id-{i}", "up") for i in range(first, first + n)])


def test_too_many_items_are_told_to_come_again(inbox, monkeypatch):
    """However few requests they are in; a request that is larger by itself is taken where no other waits."""
    monkeypatch.setattr(writer_module, "ITEMS", 10)
    one = inboxes.writer(inbox)
    futures = [one.take(many(0, 12))]
    with pytest.raises(SourceAway, match="1 requests wait to be written, with 12 items"):
        one.take(many(20, 1))
    one.start()
    assert len(futures[0].result(20)) == 12
    futures = [one.take(many(20, 10))]
    assert len(futures[0].result(20)) == 10
    one.close()
    assert one._items == 0


def test_a_transaction_has_so_many_items_at_most(inbox, monkeypatch):
    """The requests behind it have the next one, in their order."""
    monkeypatch.setattr(writer_module, "ONCE", 5)
    one = inboxes.writer(inbox, flush=timedelta(hours=1))
    futures = [one.take(many(first, n)) for first, n in ((0, 2), (2, 3), (5, 1), (6, 9), (15, 1))]
    one.start()
    for future in futures:
        future.result(20)
    one.close()
    assert [len(entry) for entry in entries(inbox, "labels")] == [5, 1, 9, 1]
    assert [row["call"] for row in rows(inbox, "labels")] == [f"id-{i}" for i in range(16)]


def test_a_request_that_cannot_be_written_fails_alone(inbox, monkeypatch, caplog):
    """Those that came with it and predictions are written, and the writer is not away."""
    write = received.write

    def broken(writing, requests, *more):
        if any(item.id == "bad" for request in requests for item in request.labels):
            raise ZeroDivisionError("a bug")
        return write(writing, requests, *more)

    monkeypatch.setattr(received, "write", broken)
    counters = inboxes.Counters()
    one = inboxes.writer(inbox, counters=counters)
    one.log(answered(0, 3))
    futures = [one.take(Received(labels=[LabelItem(name, "up")])) for name in ("a", "bad", "b")]
    one.start()
    assert [futures[i].result(20)[0].outcome for i in (0, 2)] == ["accepted", "accepted"]
    with pytest.raises(ZeroDivisionError):
        futures[1].result(20)
    assert one._away is None
    assert not caplog.records
    one.close()
    assert [row["call"] for row in rows(inbox, "labels")] == ["a", "b"]
    assert [row["call"] for row in rows(inbox, "rows")] == ["call-0", "call-1", "call-2"]
    assert counters == {"logged": 3}


class Told:
    """What a writer says of requests."""

    def __init__(self):
        self.confirmed, self.given_up = [], []

    def confirm(self, requests):
        self.confirmed += requests

    def unlogged(self, requests):
        self.given_up += requests


def asked(request, *what):
    """An answer to a request with an id."""
    return replace(answered(*what), request=request)


def test_requests_are_confirmed_once_they_are_durable(inbox, switch):
    """Not while the database is away; also where nobody heard of the commit; never what is no row."""
    told, counters = Told(), inboxes.Counters()
    wrong = asked("wrong", 7)
    wrong.rows.numbers[0, 1] = 0.5
    one = inboxes.writer(inbox, seen=told, counters=counters)
    for each in (asked("a", 0, 2), answered(2), wrong, asked("b", 3)):
        one.log(each)
    switch["away"] = True
    one.start()
    until(lambda: switch["tried"] > 2)
    assert not told.confirmed
    switch["away"] = False
    until(lambda: counters["logged"] == 4)
    switch["unheard"] = 1
    one.log(asked("c", 5))
    until(lambda: counters["logged"] == 5)
    one.close()
    assert (told.confirmed, told.given_up) == (["a", "b", "c"], ["wrong"])


def test_what_is_past_is_said_before_anybody_can_read_it(inbox):
    """Where there is room, and only there; what fails then leaves its room to others."""
    said = []
    one = inboxes.writer(inbox, queue_rows=3)

    def first():
        said.append((one.waits, len(one._waiting)))

    def fails():
        raise ZeroDivisionError

    assert one.log(answered(0, 2), first)
    assert not one.log(answered(2, 2), first)
    assert said == [(2, 0)]
    with pytest.raises(ZeroDivisionError):
        one.log(answered(4), fails)
    assert one.waits == 2
    one.start()
    one.close()
    assert [row["call"] for row in rows(inbox, "rows")] == ["call-0", "call-1"]


@pytest.mark.parametrize("commits", [True, False])
def test_a_transaction_that_outlasts_the_patience_is_counted_as_what_it_becomes(inbox, monkeypatch, commits):
    """Neither dropped and logged at once, nor neither; what waits behind it is dropped."""
    counters, began, goes_on = inboxes.Counters(), threading.Event(), threading.Event()
    inside = writer_module.together

    @contextmanager
    def slow(logs):
        with inside(logs) as writing:
            began.set()
            assert goes_on.wait(20)
            if not commits:
                raise SourceAway("the connection broke")
            yield writing

    monkeypatch.setattr(writer_module, "together", slow)
    one = inboxes.writer(inbox, counters=counters)
    one.log(answered(0, 3))
    one.start()
    assert began.wait(20)
    one.log(answered(3, 4))
    one.close(patience=0.01)
    assert counters == {"dropped": 4}
    goes_on.set()
    one._thread.join(20)
    assert not one._thread.is_alive()
    assert counters == ({"dropped": 4, "logged": 3} if commits else {"dropped": 7})
    assert len(rows(inbox, "rows")) == (3 if commits else 0)


def test_labels_are_not_acknowledged_into_a_file_that_was_deleted(tmp_path, monkeypatch):
    """They are refused once, and then go to the new one."""
    monkeypatch.setattr(writer_module, "SOON", 0.01)
    inbox = Inbox(f"sqlite:///{tmp_path}/inbox.db", "shop")
    one = inboxes.writer(inbox)
    one.start()
    assert outcomes(one, ("a", "up")) == ["accepted"]
    for file in tmp_path.glob("inbox.db*"):
        file.unlink()
    with pytest.raises(OffsetGone, match="deleted or replaced"):
        take(one, labels=[("b", "up")])
    until(lambda: time.monotonic() >= one._retry_at)
    assert outcomes(one, ("b", "up")) == ["accepted"]
    one.close()
    assert [row["call"] for row in rows(inbox, "labels")] == ["b"]


def test_a_log_that_is_made_anew_is_found_again(inbox, start, monkeypatch):
    """What waits goes to the new one."""
    monkeypatch.setattr(writer_module, "SOON", 0.01)
    counters = inboxes.Counters()
    one = start(inbox, counters=counters)
    one.log(answered(0))
    until(lambda: counters["logged"] == 1)
    with IngestLog.open(inbox.url("rows")) as log:
        tables = log._database.tables
        with log._database.writing() as connection:
            connection.execute(tables.logs.delete().where(tables.logs.c.name == log.name))
    one.log(answered(1))
    until(lambda: counters["logged"] == 2)
    assert [row["call"] for row in rows(inbox, "rows")] == ["call-1"]


# ---------------------------------------------------------------------- the index


def lines(inbox):
    """How many lines the index holds of the logs of an inbox."""
    out = {}
    for which in ("rows", "labels", "feedback"):
        with IngestLog.open(inbox.url(which)) as log:
            if log.identity:
                with log._database.reading() as connection:
                    table = inbox_index._tables(log._database.address.schema).lines
                    query = sa.select(sa.func.count()).where(table.c.log == log.identity)
                    out[which] = connection.execute(query).scalar_one()
    return out


def test_the_index_forgets_what_is_asked_for_and_what_is_old(inbox, start):
    """By id, from every log; and labels of rows that nobody waits for any more."""
    now = [10**15]
    one = start(inbox, thumbs=True, label_type=pa.string, clock=lambda: now[0])
    one.log(answered(0, 3, time=now[0]))
    take(one, thumbs=[("call-0", True), ("call-1", True)])
    assert lines(inbox) == {"rows": 3, "labels": 2, "feedback": 2}
    assert inbox_index.forget_ids(inbox, ["call-0", "nobody"]) == 3
    assert lines(inbox) == {"rows": 2, "labels": 1, "feedback": 1}
    assert outcomes(one, ("call-0", "up")) == ["accepted"]
    one.close()
    now[0] += 31 * 86_400 * 1_000_000
    other = start(inbox, clock=lambda: now[0])
    assert outcomes(other, ("new", "up")) == ["accepted"]
    assert lines(inbox) == {"rows": 2, "labels": 1, "feedback": 1}


def test_who_is_erased_is_forgotten_by_id_too(inbox, start):
    """The index keeps digests of ids, and what was said: these go with the rows."""
    one = start(inbox, thumbs=True, label_type=pa.string, clock=lambda: 2_000_000)
    one.log(answered(0, 4))
    take(one, thumbs=[(f"call-{i}", True) for i in range(4)])
    one.close()
    assert erase(inbox, inboxes.stream(), "who-0") == 2
    assert lines(inbox) == {"rows": 2, "labels": 2, "feedback": 2}
    assert [row["call"] for row in rows(inbox, "labels")] == ["call-1", "call-3"]


def test_an_inbox_without_logs_has_nothing_to_forget(inbox):
    """Nothing was received yet."""
    assert inbox_index.forget_ids(inbox, ["a"]) == 0


def test_what_came_is_counted_by_minute(inbox, start):
    """Of each log; what was not written is not counted."""
    now = [0]
    one = start(inbox, clock=lambda: now[0])
    for minute, n in ((0, 2), (0, 1), (3, 4)):
        now[0] = minute * 60_000_000 + 5
        one.log(answered(minute * 10, n, time=now[0]))
        outcomes(one, (f"a{minute}", "up"))
    one.close()
    with IngestLog.open(inbox.url("rows")) as log:
        assert inbox_index.arrived(log, 0) == {0: 3, 180_000_000: 4}
        assert inbox_index.arrived(log, 60_000_000) == {180_000_000: 4}
    with IngestLog.open(inbox.url("labels")) as log:
        assert inbox_index.arrived(log, 0) == {0: 1, 180_000_000: 1}
    stands = standing(inbox, None, 62 * 60_000_000)
    assert (stands.rows.came, stands.rows.last_hour, stands.rows.waiting) == (7, 4, 7)
    assert (stands.labels.came, stands.labels.last_hour, stands.labels.waiting) == (2, 1, 2)
    assert stands.rows.oldest is not None
    assert stands.feedback == Flow()
    run = next(iter(feed_of(inbox.url("rows")).read(Position(), {"call": pa.string()})))
    ledger = SimpleNamespace(head=lambda: SimpleNamespace(position=json.dumps(run.position(2).to_plain())))
    assert standing(inbox, ledger, 0).rows.waiting == 5


def test_an_inbox_that_was_not_made_stands_empty(inbox):
    """Nothing is made by looking."""
    assert standing(inbox, None, 0) == Standing()


def test_processes_agree_on_labels_of_one_id(inbox, start):
    """Two writers: what one received the other knows."""
    one, other = start(inbox), start(inbox)
    assert outcomes(one, ("a", "up", 5)) == ["accepted"]
    assert outcomes(other, ("a", "up", 5), ("a", "down", 4), ("a", "down", 6)) == ["repeated", "older", "revised"]
    assert outcomes(one, ("a", "up", 5)) == ["older"]


def test_two_that_write_the_same_ids_at_once(inbox, start):
    """From threads of two processes' worth of writers: every id once, whoever came first."""
    writers = [start(inbox), start(inbox)]
    futures = [writers[i % 2].take(Received(labels=[LabelItem(f"a{i // 4}", "up")])) for i in range(80)]
    found = sorted(future.result(20)[0].outcome for future in futures)
    assert found == ["accepted"] * 20 + ["repeated"] * 60
    assert sorted(row["call"] for row in rows(inbox, "labels")) == sorted(f"a{i}" for i in range(20))
