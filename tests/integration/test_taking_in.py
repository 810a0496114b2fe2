"""Labels, feedback and examples over HTTP: checked whole, durable when answered, each item with an outcome."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pyarrow as pa
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from perennial.core.errors import ConfigError, DataError
from perennial.server.failures import Refused
from perennial.server.taking_in import ID_LENGTH, LABEL_LENGTH, TEXT_LENGTH, routes
from perennial.stream.feed import SourceAway
from perennial.stream.inbox import SAID, VERSION, Inbox, rows_schema
from perennial.stream.ingest import IngestLog, KeyTaken
from tests import inboxes
from tests.inboxes import rows

CODES = {KeyTaken: 409, SourceAway: 503, DataError: 422}
NOW = 1_767_225_600_000_000  # 2026-01-01


@pytest.fixture
def inbox(tmp_path):
    """An inbox in a file."""
    return Inbox(f"sqlite:///{tmp_path}/inbox.db", "shop")


@pytest.fixture
def serve(inbox):
    """An application that takes in, with a writer of its own; gives a function that sends."""
    begun = []

    def started(*, served=True, writer=True, most=100, **settings):
        counters = inboxes.Counters()
        stream = SimpleNamespace(served=served, target="y", id="call", time="at", weight=None, group=None)
        stream.describe = lambda: {"source": "calls.parquet"}
        one = inboxes.writer(inbox, counters=counters, clock=lambda: NOW, **settings) if writer else None
        if one is not None:
            one.start()
            begun.append(one)
        state = SimpleNamespace(
            deployment=SimpleNamespace(name="shop", stream=stream), writer=one, counters=counters,
            settings=SimpleNamespace(rows=most),
        )  # fmt: skip
        app = FastAPI()
        app.include_router(routes(state))
        for kind, code in CODES.items():
            app.add_exception_handler(kind, lambda _, error, code=code: JSONResponse({"error": str(error)}, code))

        def send(path, body, key=None):
            async def sent():
                transport = httpx.ASGITransport(app=app)
                async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
                    content = body if isinstance(body, bytes) else json.dumps(body).encode()
                    return await client.post(path, content=content, headers={"Idempotency-Key": key} if key else {})

            answer = asyncio.run(sent())
            return answer.status_code, answer.json()

        send.state, send.app = state, app
        return send

    yield started
    for one in begun:
        one.close()


def test_a_label_alone_or_many(serve, inbox):
    """The answer has the form of the request."""
    send = serve()
    assert send("/labels", {"id": "a", "label": "up"}) == (200, {"id": "a", "outcome": "accepted"})
    many = [{"id": "a", "label": "up"}, {"id": 7, "label": "down", "time": "2025-12-31T12:00:00+01:00"}]
    assert send("/labels", {"labels": many}) == (
        200, {"labels": [{"id": "a", "outcome": "repeated"}, {"id": "7", "outcome": "accepted"}]},
    )  # fmt: skip
    got = [(row["call"], row["y"], row["observed_at"]) for row in rows(inbox, "labels")]
    assert got == [("a", "up", None), ("7", "down", datetime(2025, 12, 31, 11, tzinfo=UTC))]
    assert rows(inbox, "labels")[0]["known_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert send.state.counters["labels"] == 2


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/labels", [], "the body is a list: send an object, with a list as 'labels' or a single item"),
        ("/labels", {"labels": []}, "labels: a list; send a list with at least one item"),
        ("/labels", {"labels": [1]}, "labels[0]: a number; send an object"),
        ("/labels", {"labels": [{}] * 101}, "labels: 101 items; send at most 100 at once"),
        ("/labels", {"labels": [{}], "more": 1}, "'more' beside 'labels' is unknown"),
        ("/labels", {"id": "a"}, "labels[0]: label: null or missing; leave the item out until its label is known"),
        ("/labels", {"id": "a", "lable": 1}, "labels[0]: 'lable' is unknown: did you mean `label`?"),
        ("/labels", {"id": "", "label": "up"}, "labels[0]: id: 0 characters; give the id of a row, 1 to 256"),
        ("/labels", {"id": True, "label": "up"}, "labels[0]: id: true or false; give the id"),
        ("/labels", {"id": "a" * (ID_LENGTH + 1), "label": "up"}, "labels[0]: id: 257 characters"),
        ("/labels", {"id": "a", "label": "u" * (LABEL_LENGTH + 1)}, "label: 1,001 characters; give at most 1,000"),
        ("/labels", {"id": "a", "label": 1}, "labels[0]: label: 1; it holds text"),
        ("/labels", {"id": "a", "label": {"a": "b" * 99}}, '...; it holds text'),
        ("/labels", {"id": "a", "label": "up", "time": "noon"}, "labels[0]: time: write a time as 2026-01-31T12:00"),
        ("/labels", {"id": "a", "label": "up", "time": "2026-01-01T00:00:00"}, "with its offset"),
        ("/labels", {"id": "a", "label": "up", "time": "0001-01-01T00:00:00+23:59"}, "time from 1970 to 2200"),
        ("/labels", {"id": "a", "label": "up", "time": 5}, "labels[0]: time: write a time as"),
        ("/labels", {"id": "a", "label": "up", "time": "2026-01-01T01:00:00Z"}, "has not come yet"),
        ("/feedback", {"id": "a"}, "feedback[0]: it says nothing; give up (true or false), text or correction"),
        ("/feedback", {"id": "a", "up": "yes"}, "feedback[0]: up: text; give true or false"),
        ("/feedback", {"id": "a", "up": 1}, "feedback[0]: up: a number; give true or false"),
        ("/feedback", {"id": "a", "text": ""}, "text: 0 characters; give text of 1 to 10,000 characters"),
        ("/feedback", {"id": "a", "text": "x" * (TEXT_LENGTH + 1)}, "text: 10,001 characters"),
        ("/feedback", {"id": "a", "correction": 3}, "feedback[0]: correction: 3; it holds text"),
        ("/examples", {"x": 1, "n": 1, "flag": True, "word": "w", "who": "m"}, "examples[0]: y: null or missing"),
        ("/examples", {"x": 1, "n": 1, "word": "w", "y": "up"}, "examples[0]: flag: missing; a value that"),
        ("/examples", {"x": "1", "n": 1, "flag": True, "word": "w", "who": "m", "y": "up"}, 'x: "1"; it holds a'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_whole(serve, inbox, path, body, told):
    """The message names the item, the rule and the next step; nothing is written."""
    send = serve(label_type=pa.string)
    status, answer = send(path, body)
    assert status == 422
    assert told in answer["error"]
    assert rows(inbox, "labels") == rows(inbox, "feedback") == rows(inbox, "rows") == []


@pytest.mark.parametrize("label", [1e101, -1.7e308])
def test_numbers_that_are_huge_are_no_labels(serve, inbox, label):
    """The square of their error is no number."""
    send = serve(label_type=pa.float64)
    for path, body in (("/labels", {"id": "a", "label": label}), ("/feedback", {"id": "a", "correction": label})):
        status, answer = send(path, body)
        assert status == 422
        assert "give a number from -1e+100 to 1e+100" in answer["error"]
    assert send("/labels", {"id": "a", "label": -1e100})[0] == 200
    assert len(rows(inbox, "labels")) == 1
    assert rows(inbox, "feedback") == []


def test_every_wrong_item_is_named(serve, inbox):
    """Up to ten of them, and how many more there are."""
    send = serve()
    items = [{"id": "a", "label": "up"}, *({"id": f"b{i}", "label": None} for i in range(12))]
    status, answer = send("/labels", {"labels": items})
    assert status == 422
    assert answer["error"].count("labels[") == 10
    assert answer["error"].endswith("; and 2 more; nothing was written")
    assert rows(inbox, "labels") == []


@pytest.mark.parametrize("body", [b"{", b"", b"nan", b'{"id": "a", "label": NaN}', b"\xff"])
def test_what_is_no_json_is_refused(serve, body):
    """With 400: nothing in it can be named."""
    status, answer = serve()("/labels", body)
    assert status == 400
    assert answer["error"].startswith("the body is no JSON")


def test_numbers_beyond_all_bounds(serve):
    """They are no labels, and no error of the server."""
    for label in (b"1e999", b"123456789012345678901234567890", b"-9223372036854775809"):
        status, _ = serve(label_type=pa.int64)("/labels", b'{"id": "a", "label": ' + label + b"}")
        assert status in (400, 422)


def test_feedback_with_a_correction(serve, inbox):
    """It is a label too."""
    send = serve()
    assert send("/feedback", {"id": "a", "up": False, "text": "no", "correction": "down"}) == (
        200, {"id": "a", "outcome": "accepted", "label": "accepted"},
    )  # fmt: skip
    assert send("/feedback", {"feedback": [{"id": "a", "up": True}, {"id": "b", "up": True}]}) == (
        200, {"feedback": [{"id": "a", "outcome": "changed"}, {"id": "b", "outcome": "accepted"}]},
    )  # fmt: skip
    assert [(row["call"], row["y"]) for row in rows(inbox, "labels")] == [("a", "down")]
    assert len(rows(inbox, "feedback")) == 3
    assert send.state.counters["feedback"] == 3


def test_examples_are_rows_with_their_labels(serve, inbox):
    """In one transaction; one that is sent again is there already, and another label of it is a label."""
    send = serve()
    first = {
        "x": 1,
        "n": 2.0,
        "flag": None,
        "word": "w",
        "who": "m",
        "y": "up",
        "call": "e1",
        "at": "2025-12-31T00:00:00Z",
    }
    other = {"x": None, "n": None, "flag": True, "word": None, "who": None, "y": "down"}
    status, answer = send("/examples", {"examples": [first, other]}, key="k")
    assert (status, answer) == (
        200,
        {"examples": [{"id": "e1", "outcome": "accepted"}, {"id": "examples/k/1", "outcome": "accepted"}]},
    )
    assert send("/examples", {"examples": [first, other]}, key="k")[1] == {
        "examples": [{"id": "e1", "outcome": "repeated"}, {"id": "examples/k/1", "outcome": "repeated"}]
    }
    assert send("/examples", first) == (200, {"id": "e1", "outcome": "repeated"})
    assert send("/examples", first | {"y": "down"}) == (200, {"id": "e1", "outcome": "revised"})
    assert send("/labels", {"id": "e1", "label": "down"}) == (200, {"id": "e1", "outcome": "repeated"})
    got = rows(inbox, "rows")
    assert [(row["call"], row["x"], row["n"], row["flag"], row["word"], row["who"]) for row in got] == [
        ("e1", 1.0, 2, None, "w", "m"), ("examples/k/1", None, None, True, None, None),
    ]  # fmt: skip
    assert [row["at"] for row in got] == [datetime(2025, 12, 31, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]
    assert {row[VERSION] for row in got} == {row[SAID] for row in got} == {None}
    labels = [
        (row["call"], row["y"], row["known_at"] - datetime(2026, 1, 1, tzinfo=UTC)) for row in rows(inbox, "labels")
    ]
    tick = timedelta(microseconds=1)
    assert labels == [("e1", "up", 0 * tick), ("examples/k/1", "down", 0 * tick), ("e1", "down", tick)]
    assert send.state.counters["examples"] == 3


def test_examples_come_before_the_first_version(serve, inbox):
    """The log that is there says what rows hold: nobody has to serve yet."""
    IngestLog.open(inbox.url("rows"), rows_schema(inboxes.stream(), inboxes.TYPES)).close()

    def nobody():
        raise ConfigError("columns", None, "nothing says yet what rows hold")

    example = {"x": 1, "n": 2, "flag": True, "word": "w", "who": "m", "y": "up", "call": "e1"}
    assert serve(types=nobody)("/examples", example) == (200, {"id": "e1", "outcome": "accepted"})
    assert [row["call"] for row in rows(inbox, "rows")] == ["e1"]


def test_a_key_with_another_body_is_a_conflict(serve):
    """Whoever sent it learns that it was used."""
    send = serve()
    assert send("/labels", {"id": "a", "label": "up"}, key="k")[0] == 200
    assert send("/labels", {"id": "a", "label": "down"}, key="k")[0] == 409
    assert send("/labels", {"id": "a", "label": "up"}, key="k") == (200, {"id": "a", "outcome": "repeated"})
    assert send("/labels", {"id": "a", "label": "up"}, key="k" * 201)[0] == 422


@pytest.mark.parametrize("path", ["/labels", "/feedback", "/examples"])
def test_a_deployment_that_reads_elsewhere_takes_nothing_in(serve, path):
    """It says where its labels come from, and what to do."""
    status, answer = serve(served=False, writer=False)(path, {"id": "a", "label": "up"})
    assert status == 409
    assert answer["error"].startswith("deployment 'shop' gets its rows and labels from calls.parquet")
    assert "stream: {source: serve}" in answer["error"]


def test_before_the_inbox_is_open(serve):
    """Come again."""
    assert serve(writer=False)("/labels", {"id": "a", "label": "up"})[0] == 503


def test_routes_are_described(serve):
    """Bodies of one item and of many, and the header."""
    described = serve().app.openapi()["paths"]
    for path in ("/labels", "/feedback", "/examples"):
        post = described[path]["post"]
        assert len(post["requestBody"]["content"]["application/json"]["schema"]["oneOf"]) == 2
        assert [one["name"] for one in post["parameters"]] == ["Idempotency-Key"]
        assert {"200", "409", "422", "503"} <= set(post["responses"])


def test_what_is_wrong_with_the_inbox_is_not_told_to_clients(serve, inbox, monkeypatch):
    """A folder that cannot be made is ours to mend: the client hears to come again, and no path."""
    send = serve()

    def broken(_):
        raise ConfigError("serve.inbox", "/srv/secret/inbox.db", "check who may write there")

    monkeypatch.setattr(send.state.writer, "take", broken)
    send.app.add_exception_handler(Refused, lambda _, error: JSONResponse({"error": str(error)}, error.status))
    status, told = send("/labels", {"id": "a", "label": "up"})
    assert status == 503
    assert "send it again later" in told["error"]
    assert "secret" not in told["error"]


def test_many_items_are_checked_beside_the_loop(serve, inbox):
    """As many as are taken at once give the outcomes that they give one by one."""
    send = serve(most=1000)
    many = [{"id": f"c{i}", "label": "up"} for i in range(500)]
    status, told = send("/labels", {"labels": many})
    assert (status, {one["outcome"] for one in told["labels"]}) == (200, {"accepted"})
    assert len(rows(inbox, "labels")) == 500
