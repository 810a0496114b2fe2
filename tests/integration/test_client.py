"""The client against a server that answers as it is told to."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from perennial import client as module
from perennial.client import (
    AccessDenied,
    Client,
    Conflict,
    InvalidRequest,
    NotFound,
    Outcome,
    ServerError,
    Unavailable,
    Unreachable,
)
from perennial.core.errors import DataError, MissingExtra
from tests.live import live


class Told:
    """A server that says what it is told to, in turn, and remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, dict, dict]] = []
        self.says: list[tuple[int, dict, dict]] = []

    async def answer(self, request):
        body = await request.body()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.heard.append((request.method, path, json.loads(body) if body else {}, dict(request.headers)))
        if path == "/v2":
            return JSONResponse({"name": "perennial", "models": ["shop"]})
        status, said, headers = self.says.pop(0)
        return JSONResponse(said, status, headers)

    def say(self, said, status=200, **headers):
        self.says.append((status, said, headers))

    @property
    def asked(self):
        """What was heard, but for the question of the model's name."""
        return [one for one in self.heard if one[1] != "/v2"]


@pytest.fixture(scope="module")
def place():
    """A running server, and what it is told."""
    told = Told()
    methods = ["GET", "POST"]
    with live(Starlette(routes=[Route("/{rest:path}", told.answer, methods=methods)])) as url:
        yield url, told


@pytest.fixture
def told(place):
    """What the server is told; it heard nothing yet."""
    _, told = place
    told.heard.clear()
    told.says.clear()
    yield told
    assert not told.says, "the client did not ask as often as it was expected to"


@pytest.fixture
def waits():
    """How long the client waited, each time."""
    return []


@pytest.fixture
def client(place, waits):
    """A client of it that waits for nothing."""
    with Client(place[0], "pn_secret", retries=2, sleep=waits.append) as client:
        yield client


def answer(n=2, **changed):
    """What a server says of n rows."""
    outputs = {
        "predict": ["yes", "no"][:n], "probabilities": [0.25, 0.75, 0.5, 0.5][: 2 * n], "classes": ["no", "yes"],
        "id": ["a", "b"][:n],
    } | changed  # fmt: skip
    data = [{"name": name, "data": values} for name, values in outputs.items() if values is not None]
    return {"model_name": "shop", "model_version": "3.1", "id": "r1", "outputs": data}


def test_predictions_are_a_record(client, told):
    """Labels, probabilities by class, ids and the version; the token goes along."""
    told.say(answer())
    said = client.predict([{"age": 31, "job": "nurse"}, {"age": None, "job": "cook"}], request_id="r1")
    assert said.labels == ("yes", "no")
    assert said.probabilities == ((0.25, 0.75), (0.5, 0.5))
    assert (said.classes, said.ids, said.version, said.request_id) == (("no", "yes"), ("a", "b"), "3.1", "r1")
    assert len(said) == 2
    method, path, body, headers = told.asked[0]
    assert (method, path) == ("POST", "/v2/models/shop/infer")
    assert headers["authorization"] == "Bearer pn_secret"
    assert body["id"] == "r1"
    assert body["inputs"] == [
        {"name": "age", "shape": [2], "datatype": "INT64", "data": [31, None]},
        {"name": "job", "shape": [2], "datatype": "BYTES", "data": ["nurse", "cook"]},
    ]


TABLE = {"x": [1.5, None], "n": [1, 2], "word": ["a", None], "flag": [True, False], "at": [datetime(2026, 1, 2)] * 2}


@pytest.mark.parametrize(
    "rows",
    [
        [dict(zip(TABLE, values, strict=True)) for values in zip(*TABLE.values(), strict=True)],
        [
            {"x": np.float64(1.5), "n": np.int64(1), "word": "a", "flag": np.True_, "at": datetime(2026, 1, 2)},
            {"x": float("nan"), "n": np.int32(2), "word": None, "flag": False, "at": datetime(2026, 1, 2)},
        ],
        pd.DataFrame(TABLE, index=[7, 8]),
        pl.DataFrame(TABLE),
        pa.table(TABLE),
        pa.record_batch(TABLE),
    ],
    ids=["dicts", "numpy scalars", "pandas", "polars", "arrow", "batch"],
)
def test_rows_may_come_in_any_of_these(client, told, rows):
    """The same rows are sent as the same columns; NaN is a null."""
    told.say(answer())
    client.predict(rows)
    got = {tensor["name"]: (tensor["datatype"], tensor["data"]) for tensor in told.asked[0][2]["inputs"]}
    assert got == {
        "x": ("FP64", [1.5, None]), "n": ("INT64", [1, 2]), "word": ("BYTES", ["a", None]),
        "flag": ("BOOL", [True, False]), "at": ("BYTES", ["2026-01-02T00:00:00"] * 2),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "at least one"),
        ([1, 2], "list of dicts"),
        ([{"a": 1}, {"b": 1}], "row 1 and row 0 have other columns, 'a'"),
        ([{"a": float("inf")}], "finite"),
        ([{"a": object()}], "cannot be sent"),
        (7, "rows are a int"),
    ],
)
def test_rows_that_cannot_be_sent_are_told_before_anything_is(client, told, rows, match):
    """The error names the row or the rule; the server hears nothing of it."""
    with pytest.raises(DataError, match=match):
        client.predict(rows)
    assert not told.asked


def test_a_version_that_knows_no_probabilities_is_asked_for_none_from_then_on(client, told):
    """A regression has labels that are numbers."""
    told.say({"error": "this version gives no probabilities"}, 422)
    plain = answer(1, predict=[2.5], probabilities=None, classes=None)
    told.say(plain)
    told.say(plain)
    for _ in range(2):
        said = client.predict([{"x": 1.0}], request_id="r1")
        assert (said.labels, said.probabilities, said.classes) == ((2.5,), None, ())
    assert [("outputs" in body) for _, _, body, _ in told.asked] == [True, False, False]


def test_a_version_may_be_asked_by_its_number(client, told):
    """Nothing in a number leads elsewhere."""
    told.say(answer(1))
    client.predict([{"x": 1}], version="1.0")
    told.say({"error": "no such version"}, 404)
    with pytest.raises(NotFound):
        client.predict([{"x": 1}], version="../secret")
    assert [path for _, path, _, _ in told.asked] == [
        "/v2/models/shop/versions/1.0/infer", "/v2/models/shop/versions/../secret/infer",
    ]  # fmt: skip


# -- again ------------------------------------------------------------------------------------------------------------


def test_what_the_server_cannot_do_now_is_asked_again_as_the_same_request(client, told, waits):
    """One id for all tries, longer and longer waits, and no shorter ones than the server asks for."""
    told.say({"error": "busy"}, 503)
    told.say({"error": "too many"}, 429, **{"retry-after": "7"})
    told.say(answer(1))
    client.predict([{"x": 1}])
    assert len({body["id"] for _, _, body, _ in told.asked}) == 1
    assert len(told.asked) == 3
    assert 0 < waits[0] <= 0.1
    assert waits[1] == 7.0


def test_labels_are_brought_again_under_the_same_key(client, told):
    """The server can tell a label that comes again from another one."""
    told.say({"error": "away"}, 503)
    told.say({"labels": [{"id": "a", "outcome": "accepted"}]})
    assert client.label("a", "yes", datetime(2026, 1, 2, tzinfo=UTC)) == Outcome(id="a", outcome="accepted")
    assert len({headers["idempotency-key"] for _, _, _, headers in told.asked}) == 1
    assert told.asked[0][2] == {"labels": [{"id": "a", "label": "yes", "time": "2026-01-02T00:00:00+00:00"}]}


def test_there_is_an_end_to_asking_again(client, told, waits):
    """The last refusal is the error."""
    for _ in range(3):
        told.say({"error": "the ledger is away"}, 503)
    with pytest.raises(Unavailable, match=r"the ledger is away \(503\)\. Next: send it again later") as caught:
        client.versions()
    assert (caught.value.status, caught.value.message) == (503, "the ledger is away")
    assert len(waits) == 2


def test_a_server_that_is_not_there_is_told(waits):
    """No status, and the next step."""
    with Client("http://127.0.0.1:9", retries=1, sleep=waits.append) as client:
        with pytest.raises(Unreachable, match="does not answer") as caught:
            client.champion()
        assert caught.value.status == 0
        assert len(waits) == 1
        assert not client.health()
        assert not client.ready()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest), (401, AccessDenied), (403, AccessDenied), (404, NotFound), (409, Conflict),
        (413, InvalidRequest), (422, InvalidRequest), (500, ServerError),
    ],
)  # fmt: skip
def test_what_would_be_refused_again_is_not_asked_again(client, told, waits, status, kind):
    """Each kind of refusal is an error of its own, in the server's words."""
    told.say({"error": "age is missing"}, status)
    with pytest.raises(ServerError, match="age is missing") as caught:
        client.versions()
    assert type(caught.value) is kind
    assert caught.value.next_step
    assert not waits


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_many_labels_are_brought_in_parts(client, told, monkeypatch):
    """Each part has a key of its own, and all outcomes come back in order."""
    monkeypatch.setattr(module, "ITEMS", 2)
    told.say({"labels": [{"id": "0", "outcome": "accepted"}, {"id": "1", "outcome": "repeated"}]})
    told.say({"labels": [{"id": "2", "outcome": "revised"}]})
    said = client.labels([(str(i), np.int64(i % 2)) for i in range(3)])
    assert [one.outcome for one in said] == ["accepted", "repeated", "revised"]
    first, second = (headers["idempotency-key"] for _, _, _, headers in told.asked)
    assert second == f"{first}/1"


def test_feedback_has_what_was_given(client, told):
    """A thumb down is not the same as none."""
    told.say({"feedback": [{"id": "a", "outcome": "accepted", "label": "accepted"}]})
    assert client.feedback("a", up=False, correction="no").label == "accepted"
    assert told.asked[0][2] == {"feedback": [{"id": "a", "up": False, "correction": "no"}]}


def test_examples_are_rows_with_their_label(client, told):
    """The key of a caller is the server's."""
    told.say({"examples": [{"id": "k/0", "outcome": "accepted"}]})
    client.examples([{"x": 1.0, "y": "yes", "at": date(2026, 1, 2)}], key="k")
    _, path, body, headers = told.asked[0]
    assert (path, body) == ("/examples", {"examples": [{"x": 1.0, "y": "yes", "at": "2026-01-02"}]})
    assert headers["idempotency-key"] == "k"


def test_a_roll_back_says_which_champion_it_leaves(client, told):
    """So that it is done once, however often it is sent."""
    facts = {"deployment": "shop", "previous": "1.0", "since": None, "actor": "run", "reason": "", "answers": "2.0"}
    moved = {"champion": "1.0", "previous": "2.0", "actor": "ops (serve)", "reason": "worse", "closed": False}
    told.say(facts | {"version": "2.0"})
    told.say({"error": "away"}, 503)
    told.say(moved)
    assert client.rollback("worse").champion == "1.0"
    assert [body for _, path, body, _ in told.asked if path == "/rollback"] == [{"reason": "worse", "from": "2.0"}] * 2
    told.say(moved)
    client.promote("1.0", "back")
    assert told.asked[-1][1:3] == ("/versions/1.0/promote", {"reason": "back"})


def test_whether_it_is_there_is_asked_once(client, told, waits):
    """503 is an answer too."""
    told.say({"live": True})
    told.say({"ready": False}, 503)
    assert client.health()
    assert not client.ready()
    assert not waits


def test_an_answer_that_is_none_of_ours_is_an_error(client, told, place):
    """A proxy in between may say anything."""
    told.say("gateway", 418)
    with pytest.raises(ServerError, match="gateway"):
        client.champion()


def test_without_httpx_it_says_what_to_install(monkeypatch):
    """The client is an extra."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'perennial\[client\]'"):
        Client("http://127.0.0.1:9")


def test_importing_it_loads_no_framework():
    """A program that only asks for predictions starts quickly."""
    code = "import perennial.client, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded).isdisjoint({"httpx", "pyarrow", "pandas", "sklearn", "fastapi", "pydantic", "sqlalchemy"})


def test_its_types_are_those_that_a_user_sees(tmp_path):
    """A program that uses it as documented passes a strict type checker; one that does not, fails."""
    good = tmp_path / "good.py"
    good.write_text(
        textwrap.dedent("""\
        from perennial.client import Champion, Client, Moved, Outcome, Predictions, ServerError

        def ask(url: str, token: str) -> float:
            with Client(url, token, timeout=2.0, retries=5) as client:
                said: Predictions = client.predict([{"age": 31}], request_id="r1", version="1.0")
                outcome: Outcome = client.label(said.ids[0], "yes")
                many: list[Outcome] = client.labels([("a", 1), ("b", 0, "2026-01-02T00:00:00Z")])
                client.feedback(said.ids[0], up=True, text="good", correction="yes")
                client.examples([{"age": 31, "y": "yes"}], key="k")
                now: Champion = client.champion()
                moved: Moved = client.promote("1.0", "better")
                if not (client.health() and client.ready()) or outcome.outcome == many[0].outcome:
                    return float(len(now.reason + moved.champion))
                return said.probabilities[0][1] if said.probabilities is not None else 0.0

        def status(error: ServerError) -> int:
            return error.status
    """)
    )
    bad = tmp_path / "bad.py"
    bad.write_text("from perennial.client import Client\nClient('x', retries='3').feedback('a', True)\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent"]
    done = subprocess.run([*command, str(good), str(bad)], capture_output=True, text=True, check=False)
    wrong = [Path(line.partition(":")[0]).name for line in done.stdout.splitlines() if "error:" in line]
    assert wrong == ["bad.py", "bad.py"], done.stdout
