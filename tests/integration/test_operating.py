"""An operator's routes on a ledger that a real run wrote, asked by the client."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from perennial import cli
from perennial.client import AccessDenied, Client, Conflict, InvalidRequest, NotFound, Unavailable
from perennial.config import load
from perennial.core.errors import PerennialError
from perennial.server import failures, operating, tokens
from perennial.server.access import Access
from tests.live import live

CONFIG = """\
name: shop
stream: {source: rows.parquet, time: at, time_zone: Europe/Lisbon, label: {column: y, delay: 1h}, batch: 1d}
model: {estimator: perennial.learners.plain.GaussianNB}
strategies: {daily: {stateless: {every: 1d}}}
initial: 1d
deploy: daily
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A deployment with two versions."""
    folder = tmp_path_factory.mktemp("operating")
    rng, n = np.random.default_rng(0), 160
    times = np.datetime64("2026-06-01T00:00", "us") + np.arange(n) * np.timedelta64(30, "m")
    x = rng.normal(size=n)
    table = {"at": pa.array(times, pa.timestamp("us", "UTC")), "x": x, "y": np.where(x > 0, "yes", "no")}
    pq.write_table(pa.table(table), folder / "rows.parquet")
    (folder / "perennial.yaml").write_text(CONFIG)
    assert cli.main(["run", "--once", "-c", str(folder / "perennial.yaml")]) == 0
    return folder / "perennial.yaml"


def application(config, access):
    """The routes, with errors as the server answers them."""
    app = FastAPI()
    state = SimpleNamespace(deployment=load(config).deployment(), models=None, access=access)
    app.state = state

    async def explain(_, error):
        told = failures.answer(error, "r1")
        return JSONResponse({"error": told.message}, told.status, dict(told.headers))

    async def invalid(_, error):
        return JSONResponse({"error": str(error.errors()[0]["msg"])}, 422)

    app.add_exception_handler(PerennialError, explain)
    app.add_exception_handler(RequestValidationError, invalid)
    app.include_router(operating.routes(state))
    return app


@pytest.fixture(scope="module")
def place(config):
    """Where the routes answer, and tokens by scope."""
    file, now = config.with_name("tokens.yaml"), datetime.now(UTC)
    made = {name: tokens.add(file, name, [name], now=now)[0] for name in tokens.SCOPES}
    made["both"] = tokens.add(file, "both", ["read", "operate"], now=now)[0]
    with live(application(config, Access(file, secret=b"s" * 32))) as url:
        yield url, made


@pytest.fixture
def client(place):
    """A client that may read and operate."""
    with Client(place[0], place[1]["both"], retries=0) as client:
        yield client


@pytest.fixture
def standing(client):
    """Who is champion; whoever it was before the test is again behind it."""
    before = client.champion()
    yield before
    client.promote(before.version, "as it was")


def printed(capsys, config, *arguments):
    """What the command prints as JSON."""
    capsys.readouterr()
    assert cli.main([*arguments, "-c", str(config), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_routes_say_what_the_commands_do(client, config, capsys):
    """`versions`, `explain` and `served-at` have the same fields over HTTP; files are told by the command alone."""
    assert client.versions() == printed(capsys, config, "versions")
    assert len(client.versions()) == 2
    told = printed(capsys, config, "explain", "champion")
    assert told.pop("files") == []
    assert client.explain("champion") == told == client.explain(told["number"])
    for time in ("2026-06-03T12:00", "2026-06-03T12:00+02:00"):
        assert client.served_at(time) == printed(capsys, config, "served-at", time)


def test_a_part_of_the_versions_may_be_asked_for(place, client):
    """The newest so many, and those with a status."""
    headers = {"Authorization": f"Bearer {place[1]['read']}"}
    with httpx.Client(base_url=place[0], headers=headers) as http:
        numbers = [one["number"] for one in client.versions()]
        assert [one["number"] for one in http.get("/versions?last=2").json()] == numbers[-2:]
        assert [one["number"] for one in http.get("/versions?status=champion").json()] == numbers[-1:]
        for query in ("last=0", "last=x", "status=dead"):
            assert http.get(f"/versions?{query}").status_code == 422


def test_promote_and_roll_back_move_the_champion(client, standing):
    """Who did it and why is in the ledger, and the names of the pointers are versions too."""
    moved = client.promote("1.0", "the new one is wrong")
    assert (moved.champion, moved.previous) == ("1.0", standing.version)
    now = client.champion()
    assert (now.version, now.previous) == ("1.0", standing.version)
    assert (now.actor, now.reason) == ("both (serve)", "the new one is wrong")
    assert client.rollback("it was not").champion == standing.version
    assert client.promote("previous").champion == "1.0"


def test_a_word_that_is_sent_again_is_heeded_once(client, standing):
    """An answer that was lost costs nothing: a second roll back of the same champion does not go forward again."""
    moved = client.promote("1.0", "once")
    assert client.promote("1.0", "twice") == moved
    back = client.rollback("worse", left="1.0")
    assert client.rollback("worse", left="1.0") == back
    assert client.champion().version == standing.version


def test_a_word_about_another_champion_is_refused(client, standing):
    """Somebody moved it meanwhile: look again."""
    for left in ("1.0", "9.9"):
        with pytest.raises(Conflict, match="look again"):
            client.rollback("another reason", left=left)
    assert client.champion() == standing


def test_what_is_not_there_is_told(client, standing):
    """An unknown version, a pointer that points nowhere, a time that is none."""
    with pytest.raises(NotFound, match=r"no version '9\.9'"):
        client.promote("9.9")
    with pytest.raises(NotFound, match="has no challenger"):
        client.explain("challenger")
    with pytest.raises(NotFound, match="no version"):
        client.explain("9" * 5000)
    with pytest.raises(InvalidRequest, match="ISO 8601"):
        client.served_at("yesterday")
    with pytest.raises(InvalidRequest, match="at most 1000"):
        client.promote("1.0", "x" * 1001)
    assert client.champion() == standing


@pytest.mark.parametrize("scope", tokens.SCOPES)
def test_each_route_has_its_scope(place, scope):
    """Who may read gives no word, and who gives one need not read."""
    with Client(place[0], place[1][scope], retries=0) as client:
        for ask in (client.champion, client.versions, lambda: client.served_at("2026-06-03T12:00")):
            if scope == "read":
                ask()
            else:
                with pytest.raises(AccessDenied, match="'read'"):
                    ask()
        for word in (lambda: client.promote("9.9"), lambda: client.rollback(left="9.9")):
            with pytest.raises((NotFound, Conflict) if scope == "operate" else AccessDenied):
                word()


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"{", b'{"reason": 1}', b'{"why": "x"}', b'{"from": []}', b'"x"', b"\xff"]
)
def test_a_body_that_is_no_word_is_refused(place, body, client):
    """Nothing moves."""
    before = client.champion()
    headers = {"Authorization": f"Bearer {place[1]['operate']}", "Content-Type": "application/json"}
    answered = httpx.post(f"{place[0]}/versions/1.0/promote", content=body, headers=headers)
    assert answered.status_code in (400, 422)
    assert client.champion() == before


def test_nobody_is_told_about_a_body_before_they_may_send_one(place):
    """Whoever has no token learns that, whatever they sent."""
    for route in ("versions/1.0/promote", "rollback"):
        assert httpx.post(f"{place[0]}/{route}", content=b"{bad").status_code == 401


def test_before_there_is_a_ledger_the_answer_is_to_wait(config, tmp_path):
    """A server may be started first; it says where nothing is, and not in which folder."""
    own = tmp_path / "perennial.yaml"
    own.write_text(CONFIG)
    pq.write_table(pq.read_table(config.with_name("rows.parquet")), tmp_path / "rows.parquet")
    with live(application(own, Access(None, secret=b"s" * 32))) as url, Client(url, retries=0) as client:
        with pytest.raises(Unavailable, match="no run has made it yet") as caught:
            client.versions()
        assert str(tmp_path) not in str(caught.value)
