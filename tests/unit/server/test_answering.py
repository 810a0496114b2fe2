"""From a request to an answer: who is asked, what is logged and counted, and what an error says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from perennial.config.records import Serve
from perennial.core.errors import DataError
from perennial.core.records import Prediction
from perennial.ledger.errors import StorageError, UnknownVersion
from perennial.server import oip
from perennial.server.answering import INLINE_ROWS, Answering, Parts, Route
from perennial.server.counters import Counters
from perennial.server.failures import Refused
from perennial.server.rows import Answered, Rows
from perennial.server.seen import Seen
from perennial.server.signature import Signature

SIGNATURE = Signature({"a": pa.float64()}, id=("call", pa.string()), key=("person", pa.string()))


class Slot:
    """Says the first column, and remembers who asked."""

    task, classes, signature = "regression", (), SIGNATURE

    def __init__(self, version: str, error: Exception | None = None) -> None:
        self.version, self._error = version, error
        self.threads: list[str] = []
        self.instants: list[int | None] = []

    def predict(self, rows: Rows, at: int | None = None) -> Prediction:
        self.threads.append(threading.current_thread().name)
        self.instants.append(at)
        if self._error is not None:
            raise self._error
        return Prediction(values=rows.numbers[:, 0].copy())


class Models:
    history = None

    def __init__(self, champion: Slot | None, shadow: Slot | None = None) -> None:
        self.champion, self.shadow = champion, shadow
        self.keys: list[object] = []

    def choose(self, key: object | None, request_id: str) -> tuple[Slot, Slot | None]:
        self.keys.append(key)
        assert self.champion is not None
        return self.champion, self.shadow

    def version(self, number: str) -> Slot:
        raise UnknownVersion.among("m", number, ["1.0"])

    def resident(self) -> dict[str, str]:
        return {}

    def close(self) -> None: ...


class Writer:
    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.log_: list[Answered] = []

    def log(self, answered: Answered, first: Callable[[], object] | None = None) -> bool:
        if self.takes:
            if first is not None:
                first()
            self.log_.append(answered)
        return self.takes

    def close(self) -> None: ...


class Asks:
    """One route over fakes."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.parts = Parts(
            name="m", settings=Serve(**settings), counters=Counters(folder / "counters"), seen=Seen(folder / "seen"),
            tell=lambda event, facts: self.told.append((event, facts)),
        )  # fmt: skip
        self.models, self.writer = Models(Slot("1.0")), Writer()
        self.parts.models, self.parts.writer = self.models, self.writer
        self.answering = Answering(self.parts, lambda: 1_000)
        reader = oip.Reader("m", self.answering.policy)
        self.route = Route(self.answering, self.parts, "infer", reader, oip.write)

    def __call__(self, body: Any, *, headers: dict[str, str] | None = None, chunks: int = 1, **scope: Any) -> Any:
        """Status and document of an answer; None if there is none."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        size = max(1, -(-len(data) // chunks))
        parts = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
        messages = [
            {"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)
        ]
        return self.receive(messages, headers, **scope)

    def receive(self, messages: list[dict[str, Any]], headers: dict[str, str] | None = None, **scope: Any) -> Any:
        """The same of messages as a server gives them."""
        sent: list[dict[str, Any]] = []
        left = iter(messages)

        async def receive() -> dict[str, Any]:
            return next(left)

        async def send(message: Any) -> None:
            sent.append(message)

        own = {"type": "http", "method": "POST", "path": "/v2/models/m/infer"} | scope
        own["headers"] = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        asyncio.run(self.route(own, receive, send))
        if not sent:
            return None
        self.headers = dict(sent[0]["headers"])
        return sent[0]["status"], orjson.loads(sent[1]["body"])

    @property
    def in_flight(self) -> int:
        return self.parts.counters.own("in_flight")


@pytest.fixture
def asks(tmp_path: Path) -> Iterator[Asks]:
    """A route over fakes, of which nothing is left in flight."""
    asks = Asks(tmp_path)
    yield asks
    assert asks.in_flight == 0
    asks.parts.close()


def column(*values: float, **more: Any) -> dict[str, Any]:
    """A request for rows of one column."""
    return {"inputs": [{"name": "a", "shape": [len(values)], "datatype": "FP64", "data": list(values)}], **more}


def with_keys(*keys: str) -> dict[str, Any]:
    """Rows of these subjects."""
    body = column(*map(float, range(len(keys))))
    body["inputs"].append({"name": "person", "shape": [len(keys)], "datatype": "BYTES", "data": list(keys)})
    return body


def test_what_is_answered_is_logged_and_counted(asks: Asks) -> None:
    """Under the ids that come back, with the version that said it and the time of the request."""
    status, document = asks(column(1.5, 2.5, id="r"))
    assert status == 200
    assert (document["model_version"], document["outputs"][0]["data"]) == ("1.0", [1.5, 2.5])
    (logged,) = asks.writer.log_
    assert (logged.ids, logged.version, logged.time) == (["r/0", "r/1"], "1.0", 1_000)
    assert asks.models.champion is not None
    assert asks.models.champion.instants == [1_000]  # features look back from there
    count = asks.parts.counters
    assert [count.own(name) for name in ("rows", "predictions", "answered", "repeated")] == [2, 2, 2, 0]
    assert count.requests() == {("infer", 200): 1}
    assert sum(count.durations("seconds")[0]) == 1


def test_the_same_request_again_is_answered_and_not_logged(asks: Asks) -> None:
    """However its JSON is written; and with other rows it is refused."""
    assert asks(column(1.0, id="r"))[0] == 200
    assert asks(column(1, id="r"))[0] == 200
    assert len(asks.writer.log_) == 1
    assert asks.parts.counters.own("repeated") == 1
    status, document = asks(column(2.0, id="r"))
    assert (status, "used before" in document["error"]) == (409, True)
    assert len(asks.writer.log_) == 1
    assert asks(column(2.0, outputs=[{"name": "probabilities"}], id="s"))[0] == 422
    assert asks(column(2.0, id="s"))[0] == 200  # what was not answered was not claimed either


def test_the_header_names_a_request(asks: Asks) -> None:
    """Unless its rows have ids: calls of one trace share one."""
    head = {"X-Request-Id": "trace"}
    assert asks(column(1.0), headers=head)[1]["id"] == "trace"
    assert asks(column(2.0), headers=head)[0] == 409
    for name in ("c1", "c2"):
        body = column(1.0)
        body["inputs"].append({"name": "call", "shape": [1], "datatype": "BYTES", "data": [name]})
        assert asks(body, headers=head)[0] == 200
    assert [one.ids for one in asks.writer.log_] == [["trace/0"], ["c1"], ["c2"]]
    assert asks(column(1.0), headers={"X-Request-Id": "\t"})[0] == 422


def test_who_is_asked(asks: Asks) -> None:
    """The key routes a request whose rows are of one subject; else the request itself does."""
    for keys in (["p"], ["p", "p"], ["p", "q"]):
        assert asks(with_keys(*keys))[0] == 200
    assert asks.models.keys == ["p", "p", None]


def test_a_shadow_is_asked_beside_and_changes_no_answer(asks: Asks) -> None:
    """What it said is logged with the answer; that it failed is told."""
    asks.models.shadow = Slot("2.0")
    assert asks(column(1.0))[1]["model_version"] == "1.0"
    shadow = asks.writer.log_[0].shadow
    assert shadow is not None
    assert (shadow[0], np.asarray(shadow[1].values).tolist()) == ("2.0", [1.0])
    assert asks.parts.counters.own("shadowed") == 1
    asks.models.shadow = Slot("2.0", RuntimeError("broken"))
    assert asks(column(1.0))[0] == 200
    assert asks.writer.log_[1].shadow is None
    assert [event for event, _ in asks.told] == ["shadow failed"]


def test_many_rows_are_predicted_elsewhere(asks: Asks) -> None:
    """Few where they came in, which is quicker."""
    for n in (1, INLINE_ROWS, INLINE_ROWS + 1):
        assert asks(column(*map(float, range(n))))[0] == 200
    assert asks.models.champion is not None
    assert [name.startswith("perennial-predict") for name in asks.models.champion.threads] == [False, False, True]


def test_no_row_and_too_many(tmp_path: Path) -> None:
    """The most is a setting; ids go as far as it does."""
    asks = Asks(tmp_path, rows=12_000)
    assert asks(column())[0] == 422
    status, document = asks(column(*map(float, range(12_001))))
    assert (status, "12,000 may come at once" in document["error"]) == (413, True)
    status, document = asks(column(*map(float, range(12_000)), id="r"))
    assert status == 200
    ids = document["outputs"][-1]["data"]
    assert (len(set(ids)), ids[0], ids[-1]) == (12_000, "r/0", "r/11999")


@pytest.mark.parametrize(("overflow", "status"), [("drop", 200), ("refuse", 503)])
def test_when_nothing_more_can_be_logged(tmp_path: Path, overflow: str, status: int) -> None:
    """The answer goes out without, or does not, as the setting says."""
    asks = Asks(tmp_path, overflow=overflow)
    asks.writer.takes = False
    assert asks(column(1.0))[0] == status
    assert (b"retry-after" in asks.headers) == (status == 503)


@pytest.mark.parametrize(("overflow", "status", "other"), [("drop", 200, 409), ("refuse", 503, 200)])
def test_what_was_not_logged_is_logged_when_it_comes_again(
    tmp_path: Path, overflow: str, status: int, other: int
) -> None:
    """Under its id; other rows are refused where somebody has the first answer."""
    asks = Asks(tmp_path, overflow=overflow)
    asks.writer.takes = False
    assert asks(column(1.0, id="r"))[0] == status
    assert asks(column(1.0, id="s"))[0] == status
    asks.writer.takes = True
    assert asks(column(1.0, id="r"))[0] == 200
    assert [(one.ids, one.request) for one in asks.writer.log_] == [(["r/0"], "r")]
    assert asks(column(2.0, id="s"))[0] == other


def test_a_refusal_releases_no_claim_of_another_request(tmp_path: Path) -> None:
    """Rows with ids of their own claim nothing, though they share the id of one that did."""
    asks = Asks(tmp_path, overflow="refuse")
    head = {"X-Request-Id": "trace"}
    assert asks(column(1.0), headers=head)[0] == 200
    body = column(1.0)
    body["inputs"].append({"name": "call", "shape": [1], "datatype": "BYTES", "data": ["c1"]})
    asks.writer.takes = False
    assert asks(body, headers=head)[0] == 503
    assert asks(column(2.0), headers=head)[0] == 409


def test_a_worker_that_was_killed_before_it_logged(tmp_path: Path) -> None:
    """The next one logs what comes again, once."""
    killed = Asks(tmp_path)
    assert killed(column(1.0, id="r"))[0] == 200
    asks = Asks(tmp_path)
    assert [asks(column(1.0, id="r"))[0] for _ in range(2)] == [200, 200]
    assert len(asks.writer.log_) == 1
    asks.parts.seen.confirm(["r"])
    third = Asks(tmp_path)
    assert third(column(1.0, id="r"))[0] == 200
    assert not third.writer.log_


@pytest.mark.parametrize("overflow", ["drop", "refuse"])
def test_only_what_is_logged_is_past(tmp_path: Path, overflow: str) -> None:
    """Training never sees the others: features that look back would differ."""
    asks = Asks(tmp_path, overflow=overflow)
    seen: list[list[str]] = []

    class History:
        def saw(self, ids: list[str], rows: Rows, at: int) -> None:
            assert (rows.n, at) == (1, 1_000)
            seen.append(ids)

    asks.models.history = History()  # type: ignore[assignment]
    asks(column(1.0, id="a"))
    asks.writer.takes = False
    asks(column(1.0, id="b"))
    assert seen == [["a/0"]]


def test_what_fails_on_its_way_to_the_log_may_come_again(asks: Asks) -> None:
    """It was not answered: neither counted nor claimed."""

    class History:
        def saw(self, *_: object) -> None:
            raise DataError("no past")

    asks.models.history = History()  # type: ignore[assignment]
    assert asks(column(1.0, id="r"))[0] == 422
    assert asks.parts.counters.own("answered") == 0
    asks.models.history = None
    assert asks(column(1.0, id="r"))[0] == 200
    assert len(asks.writer.log_) == 1


def test_the_body_is_held_against_the_cap_as_it_comes(tmp_path: Path) -> None:
    """Also where nobody said how large it is; a client that goes away is not answered."""
    asks = Asks(tmp_path, body_bytes=1_000)
    body = orjson.dumps(column(*map(float, range(30))))
    assert asks(body, chunks=7)[0] == 200
    padded = body + b" " * 1_000
    for chunks in (1, 9):
        assert asks(padded, chunks=chunks)[0] == 413
        assert asks.headers[b"connection"] == b"close"
    assert asks(b"", headers={"Content-Length": "1001"})[0] == 413
    assert asks(b"", headers={"Content-Length": "-5"})[0] == 413
    gone = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert asks.receive(gone) is None
    assert asks.receive(gone[1:]) is None
    assert asks(body, headers={"Content-Encoding": "gzip"})[0] == 415
    assert asks(body, headers={"Content-Encoding": "identity"})[0] == 200


def test_before_there_is_a_champion(asks: Asks) -> None:
    """It says so, and when to come again."""
    for models in (None, Models(None)):
        asks.parts.models = models
        status, document = asks(column(1.0))
        assert (status, "no version serves yet" in document["error"]) == (503, True)
        assert asks.headers[b"retry-after"] == b"1"


def test_other_models_and_versions(asks: Asks) -> None:
    """A path may name what is not there."""
    assert asks(column(1.0), path_params={"model": "n"})[0] == 404
    status, document = asks(column(1.0), path_params={"model": "m", "version": "9.0"})
    assert (status, "no version '9.0'" in document["error"]) == (404, True)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (DataError("column 'a' holds nulls"), 422, "column 'a' holds nulls"),
        (StorageError("disk I/O error at /srv/ledger.db"), 503, "cannot be reached"),
        (ZeroDivisionError("in /srv/models.py"), 500, "its log says why under the request id 'r'"),
        (KeyError("secret"), 500, "its log says why"),
    ],
)
def test_an_error_leaks_nothing(asks: Asks, error: Exception, status: int, words: str) -> None:
    """What is not about the request is told to the log, under the id of the request."""
    asks.models.champion = Slot("1.0", error)
    found, document = asks(column(1.0), headers={"X-Request-Id": "r"})
    assert (found, words in document["error"]) == (status, True)
    assert "/srv" not in document["error"]
    assert "secret" not in document["error"]
    assert asks.parts.counters.requests() == {("infer", status): 1}
    if status == 422:
        assert not asks.told
        return
    ((event, facts),) = asks.told
    assert (event, facts["request"], facts["kind"]) == ("failed", "r", type(error).__name__)
    assert ("trace" in facts) == (status == 500)


def test_whoever_may_not_is_not_read(asks: Asks) -> None:
    """Access comes before the body."""

    class Nobody:
        def permit(self, scope: Any, wanted: str) -> None:
            assert wanted == "predict"
            raise Refused("a token is needed", 401, {"www-authenticate": "Bearer"})

    asks.parts.access = Nobody()  # type: ignore[assignment]
    assert asks.receive([])[0] == 401
    assert asks.headers[b"www-authenticate"] == b"Bearer"
