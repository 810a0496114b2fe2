"""What one client may take."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from perennial.server.access import Access
from perennial.server.limits import Limits, Rates
from perennial.server.logs import Discreet

MOST = 1000


class Clock:
    """A clock that is set by hand."""

    def __init__(self, at: float = 0.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


async def reads(scope, receive, send):
    """An application that reads the whole body and says how long it was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(app, *, path="/", headers=(), parts=(b"",), client="10.0.0.1"):
    """What an application answers: status, headers, body."""
    told, waiting = [], list(parts)

    async def receive():
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message):
        told.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "query_string": b"", "client": (client, 1),
        "headers": [(b"host", b"127.0.0.1"), *headers],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert [message["type"] for message in told] == ["http.response.start", "http.response.body"]
    return told[0]["status"], dict(told[0]["headers"]), told[1]["body"]


class Counted(list):
    """What was counted."""

    def request(self, route, status):
        self.append((route, status))


def limited(app=reads, rate=None, steady=None, counted=None):
    """An application behind limits."""
    access, counters = Access(None, secret=b"s" * 32), Counted() if counted is None else counted
    return Limits(app, body_bytes=MOST, rate=rate, access=access, counters=counters, steady=steady or Clock())


def test_what_is_refused_is_counted():
    """Too large, said or measured, and too often."""
    counted = Counted()
    app = limited(rate=2, counted=counted)
    ask(app, headers=length(MOST + 1))
    ask(app, headers=[(b"transfer-encoding", b"chunked")], parts=(b"x" * MOST, b"x"))
    assert ask(app)[0] == 429
    assert counted == [("other", 413), ("other", 413), ("other", 429)]


def length(value):
    """The header that says how large a body is."""
    return [(b"content-length", str(value).encode())]


def test_a_body_up_to_the_limit_passes():
    """Declared or not, what is not too large reaches the application whole."""
    assert ask(limited(), headers=length(MOST), parts=[b"x" * MOST])[::2] == (200, b"1000")
    chunked = [(b"transfer-encoding", b"chunked")]
    assert ask(limited(), headers=chunked, parts=[b"x" * 500] * 2)[::2] == (200, b"1000")


@pytest.mark.parametrize("value", [MOST + 1, 10**17, 10**30, "-1", "1e3", "0x10", ""])
def test_a_body_that_says_it_is_too_large_is_refused_unread(value):
    """The application never sees it."""

    async def never(scope, receive, send):
        raise AssertionError

    status, headers, body = ask(limited(never), headers=length(value), parts=[])
    assert status == 413
    assert headers[b"content-type"] == b"application/json"
    assert "1,000 bytes" in json.loads(body)["error"]


def test_a_body_that_does_not_say_is_measured_as_it_comes():
    """It is refused at the limit and not at its end."""
    parts = [b"x" * 400] * 50
    status, _, _ = ask(limited(), headers=[(b"transfer-encoding", b"chunked")], parts=parts)
    assert status == 413


def test_a_path_without_printable_characters_is_refused():
    """A null byte gets no further."""
    assert ask(limited(), path="/v2/\x00")[0] == 400
    assert ask(limited(), path="/v2/modèles")[0] == 200


def test_requests_beyond_the_rate_wait():
    """A client may ask a second's worth at once, and then at the rate; others do not notice."""
    clock = Clock()
    app = limited(rate=2.0, steady=clock)
    assert [ask(app)[0] for _ in range(3)] == [200, 200, 429]
    status, headers, body = ask(app)
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert "2 requests a second" in json.loads(body)["error"]
    assert ask(app, client="10.0.0.2")[0] == 200
    clock.at += 0.5
    assert [ask(app)[0] for _ in range(2)] == [200, 429]


def test_who_sends_tokens_that_are_none_counts_by_address():
    """Making up a token for each request is no way around the rate."""
    app = limited(rate=1.0)
    sent = [[(b"authorization", f"Bearer pn_{i}".encode())] for i in range(2)]
    assert [ask(app, headers=headers)[0] for headers in sent] == [200, 429]


def test_the_table_of_clients_is_bounded():
    """The client that was quiet longest is forgotten first."""
    rates = Rates(1.0, Clock(), clients=3)
    for name in ("a", "b", "c", "a", "d"):
        rates.take(name)
    assert list(rates._table) == ["c", "a", "d"]


def test_pages_are_sent_with_what_keeps_other_sites_out():
    """Every answer below /ui has the headers, refusals too; the rest has none of it to carry."""
    for path in ("/ui/", "/ui/\x00"):
        _, headers, _ = ask(limited(), path=path)
        assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]
        assert b"script-src 'self';" in headers[b"content-security-policy"]
        assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"content-security-policy" not in ask(limited(), path="/v2/")[1]


def test_a_page_with_a_policy_of_its_own_keeps_it():
    """A report brings its own script, in a sandbox."""

    async def report(scope, receive, send):
        headers = [(b"content-security-policy", b"sandbox")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    headers = ask(limited(report), path="/ui/backtests/1")[1]
    assert headers[b"content-security-policy"] == b"sandbox"
    assert headers[b"referrer-policy"] == b"same-origin"


def test_logs_hold_no_query_and_no_token():
    """What was sent as a token is not in the log, wherever it was put."""
    secret = "pn_" + "s3cret" * 5
    args = ("127.0.0.1:5", "GET", f"/v2?token={secret}", "1.1", 200)
    access = logging.LogRecord("uvicorn.access", logging.INFO, "", 1, '%s - "%s %s HTTP/%s" %d', args, None)
    other = logging.LogRecord("perennial", logging.INFO, "", 1, "sent %s", (f"Bearer {secret}",), None)
    plain = logging.LogRecord("perennial", logging.INFO, "", 1, f"sent Bearer {secret}", (), None)
    for record in (access, other, plain):
        assert Discreet().filter(record)
        assert "s3cret" not in record.getMessage()
    assert "GET /v2 HTTP/1.1" in access.getMessage()
