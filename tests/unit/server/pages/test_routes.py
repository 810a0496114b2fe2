"""The routes of the dashboard, asked in this process: what they read of an inbox, and what they send along."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa
import pytest
from starlette.applications import Starlette

from perennial.ledger.sql import SqlLedger
from perennial.server.access import Access
from perennial.server.pages import routes as pages
from perennial.stream.inbox import FEEDBACK, Inbox
from perennial.stream.ingest import IngestLog, newest


class Client:
    """Asks an application without a network."""

    def __init__(self, app: Starlette, inbox: Inbox) -> None:
        self.app, self.inbox = app, inbox

    def get(self, path: str) -> httpx.Response:
        """What a path is answered with."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.get(path)

        return asyncio.run(ask())


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """The pages of a deployment without a turn, whose inbox is beside its ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    SqlLedger.open(url, "shop").close()
    stream = SimpleNamespace(
        time_zone="Europe/Lisbon", source="serve", served=True, label_rule="known at once", key=None
    )
    deployment = SimpleNamespace(name="shop", stream=stream, ledger=url, blobs=None, gate=None, retention=None)
    app = Starlette()
    app.state.deployment, app.state.access = deployment, Access(None, secret=b"s" * 32)
    inbox = Inbox(f"sqlite:///{tmp_path}/inbox.db", "shop")
    app.router.routes += pages.routes(app.state, folder=tmp_path, inbox=inbox)
    return Client(app, inbox)


def thumbs(ids: list[str], text: str = "as I thought") -> Any:
    """Feedback about some predictions."""
    at, n = datetime(2026, 1, 31, 12, tzinfo=UTC), len(ids)
    columns = {"id": ids, "known_at": [at] * n, "up": [True] * n, "text": [text] * n, "correction": [None] * n}
    return pa.table(columns, schema=FEEDBACK)


def test_feedback_is_read_from_the_inbox(client: Client) -> None:
    """Nothing is made by looking; what people wrote is shown, newest first, and never as markup."""
    assert "Nothing yet" in client.get("/ui/feedback").text
    assert newest(client.inbox.url("feedback")) is None
    with IngestLog.open(client.inbox.url("feedback"), FEEDBACK) as log:
        log.append(thumbs(["a", "b"]))
        log.append(thumbs(["c"], "<img src=x onerror=alert(1)>"))
    text = client.get("/ui/feedback").text
    assert "▲ 3 up" in text
    assert text.index("<code>c</code>") < text.index("<code>a</code>")
    assert "<img src=x" not in text
    assert "31 Jan 2026, 12:00" in text


def test_the_newest_rows_of_a_log(client: Client) -> None:
    """As many as are asked for, of as many entries as it takes, and how many there ever were."""
    url = client.inbox.url("feedback")
    with IngestLog.open(url, FEEDBACK) as log:
        for i in range(200):
            log.append(thumbs([f"r{i}", f"s{i}"]))
    count, rows = newest(url, 150) or (0, None)
    assert count == 400
    assert rows.column("id").to_pylist() == [name for i in range(125, 200) for name in (f"r{i}", f"s{i}")]
    assert newest(url)[1].num_rows == 0  # type: ignore[index]


def test_what_did_not_change_is_not_sent_again(client: Client) -> None:
    """A part of a page whose content the browser has is answered with nothing."""
    part = client.get("/ui/part/cards")
    assert part.status_code == 200
    seen = part.text.split("seen=")[1].split('"')[0]
    assert client.get(f"/ui/part/cards?seen={seen}").status_code == 204
    assert client.get("/ui/part/cards?seen=other").status_code == 200


def test_pages_say_what_they_may_load(client: Client) -> None:
    """No script but ours, in no frame, stored nowhere; files are checked for a newer release."""
    headers = client.get("/ui/").headers
    assert "script-src 'self';" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    page = client.get("/ui/").text
    assert "style=" not in page
    assert "<script>" not in page
    assert client.get("/ui/static/pages.js").headers["cache-control"] == "no-cache"
    assert client.get("/ui/static/NOTICE").text.count("htmx") > 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/served-at?at=tuesday", 400),
        ("/ui/served-at?at=9999999999-01-01", 400),
        ("/ui/served-at?day=2026-02-31", 400),
        ("/ui/served-at?at=2026-01-31T15:00", 200),
        ("/ui/versions/1.0", 404),
        ("/ui/versions/..%2F..", 404),
        ("/ui/versions?page=-5&lines=999999999", 200),
        ("/ui/evidence?trial=x", 404),
        ("/ui/json/evidence?trial=7", 404),
        ("/ui/json/score?span=../etc", 200),
        ("/ui/promote?version=", 404),
        ("/ui/rollback", 409),
        ("/ui/shares", 409),
        ("/ui/backtests/..%2F..%2Fetc%2Fpasswd/report.html", 404),
    ],
)
def test_odd_questions_have_an_answer(client: Client, path: str, status: int) -> None:
    """What makes no sense is told so; nothing breaks."""
    answer = client.get(path)
    assert answer.status_code == status, answer.text
