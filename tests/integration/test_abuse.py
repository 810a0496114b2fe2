"""A server that is treated badly: it says no, in bounded time and memory, and goes on for everybody else."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.serving import deploy, serving

from perennial.server import tokens

BODY = 64 * 1024  #: the largest request of this server
PATIENCE = 1.0  #: seconds that it waits for a client
WAIT = 30.0  #: seconds that a test waits for what must come, on a busy machine
ROWS = 50
SETTINGS = f"serve: {{tokens: tokens.yaml, body_bytes: {BODY}, patience: {PATIENCE:g}s, rows: {ROWS}}}\n"
PATH = "/v2/models/numbers/infer"


def rows(n=1, **changed):
    """A request for predictions of n rows."""
    tensor = {"name": "x", "shape": [n, 4], "datatype": "FP64", "data": [[0.1, 0.2, 0.3, 0.4]] * n}
    return {"inputs": [tensor | changed]}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A server, the tokens it takes by name, and the file they are in."""
    folder = tmp_path_factory.mktemp("abuse")
    config = deploy(folder, more=SETTINGS)
    file, now = folder / "tokens.yaml", datetime.now(UTC)
    made = {name: tokens.add(file, name, [name], now=now)[0] for name in tokens.SCOPES}
    made["over"] = tokens.add(file, "over", ["predict"], now=now, expires=now - timedelta(seconds=1))[0]
    made["gone"] = tokens.add(file, "gone", ["predict"], now=now)[0]
    with serving(config, "--host", "0.0.0.0") as server:
        server.headers["Authorization"] = f"Bearer {made['predict']}"
        yield server, made, file


@pytest.fixture
def server(held):
    """The server, which answers as before when a test is done, and had nothing to report."""
    server, made, _ = held
    before = len(server.events())
    yield server
    assert server.process.poll() is None
    status, said = server.post(PATH, rows(), {"Authorization": f"Bearer {made['predict']}"})
    assert (status, said["model_name"]) == (200, "numbers")
    told = server.events()[before:]
    assert not [event for event in told if event["event"] == "failed" or "trace" in event]
    log = server.log.read_text()
    assert not [name for name, token in made.items() if token in log]


def talk(server, sent: bytes, *, half=False) -> bytes:
    """What the server answers to bytes, until it closes or says nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(sent)
        if half:
            connection.shutdown(socket.SHUT_WR)
        return listen(connection)


def listen(connection) -> bytes:
    """Everything until the server closes the connection."""
    said = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            return said
        if not part:
            return said
        said += part


def statuses(said: bytes) -> list[int]:
    """The status codes in what a server said."""
    return [int(line.split()[1]) for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def head(method="POST", path=PATH, *headers, host="127.0.0.1", token="") -> bytes:
    """A request's head as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


CLOSE = "Connection: close"


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused(server):
    """The answer comes though the client first sends all of it."""
    status, said = server.post(PATH, b" " * (BODY + 1))
    assert status == 413
    assert f"{BODY:,} bytes" in said["error"]


@pytest.mark.parametrize("length", ["99999999999999999999999999", "9" * 5000, "1e9", "-1", "+5", "0x10", "1,1"])
def test_a_length_that_cannot_be_is_refused(server, held, length):
    """A declared length is no number to be trusted, and none to allocate."""
    said = talk(server, head("POST", PATH, f"Content-Length: {length}", CLOSE, token=held[1]["predict"]))
    assert statuses(said)
    assert set(statuses(said)) <= {400, 413}


def test_a_body_shorter_than_it_says_is_waited_for_no_longer_than_patience(server, held):
    """A client that stops halfway is told so, and costs nothing further."""
    said = talk(server, head("POST", PATH, "Content-Length: 500", token=held[1]["predict"]) + b'{"inputs": [')
    assert statuses(said) == [408]
    assert b"1 seconds" in said


def test_a_body_longer_than_it_says_is_another_request_that_is_none(server, held):
    """What lies behind a body is not taken for a part of it."""
    body = json.dumps(rows()).encode()
    sent = head("POST", PATH, f"Content-Length: {len(body)}", token=held[1]["predict"]) + body + b"junk\r\n\r\n"
    assert statuses(talk(server, sent))[-1] == 400


def test_chunks_without_end_are_refused_at_the_limit(server, held):
    """A body that does not say how large it is is measured as it comes."""
    start = head("POST", PATH, "Transfer-Encoding: chunked", token=held[1]["predict"])
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(start)
        assert closes(connection, (b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(100 * BODY // 4096)))
    small = start + b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(17)) + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(small)
        assert statuses(connection.recv(65536)) == [413]


def test_trailers_are_bounded_as_headers_are(server, held):
    """What comes behind the last chunk is no way around the limits of a head."""
    start = head("POST", PATH, "Transfer-Encoding: chunked", token=held[1]["predict"]) + b"2\r\n{}\r\n0\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(start)
        assert closes(connection, (b"X-%d: " % i + b"y" * 1000 + b"\r\n" for i in range(100_000)))


def closes(connection, parts) -> bool:
    """Whether the server closes a connection before all parts of what a client says are sent."""
    try:
        for part in parts:
            connection.sendall(part)
    except OSError:
        return True
    return False


def test_a_body_that_comes_in_drops_is_waited_for_no_longer_than_patience(server, held):
    """Bytes that keep coming do not make a request young again."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(head("POST", PATH, "Content-Length: 60000", token=held[1]["predict"]))
        said = drip(connection, b" ")
    assert statuses(said) == [408]


def drip(connection, byte: bytes) -> bytes:
    """Send a byte now and then until the server says something."""
    connection.settimeout(0.1)
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            connection.sendall(byte)
            if said := connection.recv(65536):
                return said
            return b""
        except TimeoutError:
            continue
        except OSError:
            return b""
    raise AssertionError("the server waits forever")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 50_000,
        b'{"inputs":' * 5_000,
        b"[" * 2000 + b"]" * 2000,
        b'{"inputs": [' + b'{"data": [' * 600 + b"]}" * 600 + b"]}",
    ],
)
def test_deep_json_is_refused(server, body):
    """Nesting costs no stack."""
    status, said = server.post(PATH, body)
    assert status in (400, 422)
    assert len(said["error"]) < 500


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'"x"', b"1e999", b"\xff\xfe", b"\x00", b"NaN", b'{"inputs": {}}',
        b'{"inputs": [1]}', b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64"}]}',
        *(json.dumps(rows(**changed)).encode() for changed in (
            {"shape": [2**31, 4]}, {"shape": [2**62, 2**62]}, {"shape": [-1, 4]}, {"shape": [1.5, 4]}, {"shape": "14"},
            {"shape": [1] * 1000}, {"datatype": "OBJECT"}, {"datatype": ["FP64"]}, {"data": "0.1"},
            {"data": [[{}] * 4]}, {"data": [["a", "b", "c", "d"]]}, {"data": [[1, 2, 3]]}, {"name": "\u0000"}, {"name": {"x": 1}},
            {"name": "x" * 10_000}, {"data": [[1e400, 0, 0, 0]]}, {"parameters": {"binary_data_size": 10**12}},
        )),
        json.dumps(rows() | {"id": "x" * 10_000}).encode(),
        json.dumps(rows() | {"id": ["a"]}).encode(),
        json.dumps(rows() | {"outputs": 5}).encode(),
        json.dumps(rows() | {"outputs": [{"name": "../../etc/passwd"}]}).encode(),
        json.dumps(rows() | {"parameters": [1]}).encode(),
    ],
)  # fmt: skip
def test_wrong_types_are_told_and_nothing_of_the_server_is(server, body):
    """Every way to be wrong is a 4xx with words, without a trace, a path, or the body said back."""
    status, said = server.post(PATH, body)
    assert 400 <= status < 500, said
    assert set(said) == {"error"}
    assert len(said["error"]) < 600
    assert not any(word in said["error"] for word in ("Traceback", ".py", "/tmp", "site-packages"))


def test_too_many_rows_are_refused(server):
    """The number of rows has its own limit."""
    status, said = server.post(PATH, rows(ROWS + 1))
    assert status == 413
    assert str(ROWS) in said["error"]


def test_binary_tensors_that_lie_about_their_size_are_refused(server):
    """Offsets of the extension stay inside the body."""
    text = json.dumps(rows(parameters={"binary_data_size": 32})).encode()
    for size in ("-1", "999999999", "x", "0", str(len(text)), "9" * 5000):
        kind = {"Inference-Header-Content-Length": size, "Content-Type": "application/octet-stream"}
        assert 400 <= server.post(PATH, text + b"short", kind)[0] < 500


# -- heads ------------------------------------------------------------------------------------------------------------


def test_a_head_that_comes_in_drops_is_waited_for_no_longer_than_patience(server):
    """The slow head of a request holds a connection for a while, and not for good."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-A: ")
        assert statuses(drip(connection, b"a")) == [408]


def test_a_connection_that_says_nothing_is_closed(server):
    """Without a word there is no answer."""
    assert talk(server, b"") == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(1000)) + b"\r\n",
        b"GET /health HTTP/1.1\r\n" + b"y" * 40_000,
    ],
    ids=["value", "url", "number", "name"],
)
def test_a_huge_head_is_refused(server, sent):
    """Headers and URLs have a limit, in bytes and in number."""
    assert set(statuses(talk(server, sent))) <= {431, 400}
    assert statuses(talk(server, sent))


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a plain port
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /he\x00alth HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(server, sent):
    """Garbage is a 400, or nothing."""
    assert set(statuses(talk(server, sent, half=True))) <= {400}


def test_two_ways_to_say_where_a_body_ends_are_one_too_many(server, held):
    """No request is hidden from a proxy that reads the other length."""
    hidden = head("POST", "/versions/1.0/promote", "Content-Length: 0", token=held[1]["operate"])
    token = held[1]["predict"]
    for headers in (
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 5"),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding:\x0bchunked",),
    ):
        said = talk(server, head("POST", PATH, *headers, token=token) + b"0\r\n\r\n" + hidden)
        assert statuses(said) == [400], headers


def test_requests_in_one_go_are_answered_in_order(server, held):
    """Pipelining is no way around anything, and loses nothing."""
    body = json.dumps(rows()).encode()
    one = head("POST", PATH, f"Content-Length: {len(body)}", token=held[1]["predict"]) + body
    last = head("POST", PATH, f"Content-Length: {len(body)}", CLOSE, token="pn_wrong") + body
    assert statuses(talk(server, one * 20 + last)) == [200] * 20 + [401]


def test_an_upgrade_is_not_followed(server, held):
    """There is no other protocol here to hide in."""
    sent = head("GET", "/health", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
    assert set(statuses(talk(server, sent))) <= {200, 400, 426}
    assert 101 not in statuses(
        talk(server, head("GET", "/health", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"))
    )


# -- connections ------------------------------------------------------------------------------------------------------


def resident(server) -> int:
    """Bytes of memory that the server has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def test_idle_connections_cost_little_and_hold_up_nobody(server, held):
    """500 clients that say nothing, or begin and stop: others are answered, memory is bounded, and they are let go."""
    before = resident(server)
    begun = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b" " * 30_000
    with ExitStack() as stack:
        idle = []
        for i in range(500):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=WAIT))
            if i % 2:
                connection.sendall(begun if i % 4 == 1 else begun[:40])
            idle.append(connection)
            if i % 50 == 0:
                assert server.post(PATH, rows())[0] == 200
        assert server.post(PATH, rows())[0] == 200
        assert resident(server) - before < 64 * 2**20
        assert {status for connection in idle for status in statuses(listen(connection))} <= {408, 401}


def test_answers_that_nobody_reads_are_not_kept(server, held):
    """A client that asks and never reads is let go."""
    one = head("GET", "/openapi.json", token=held[1]["read"])
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(WAIT)
        connection.connect(("127.0.0.1", server.port))
        assert closes(connection, (one for _ in range(100_000)))  # or nothing more is taken


# -- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["over", "none", "cut", "other case", "basic", "twice", "empty"])
def test_a_token_that_is_none_is_refused(server, held, name):
    """Expired, forged, or said in another way: 401 or 400, and which it was is not told."""
    good = held[1]["predict"]
    sent = {
        "over": f"Bearer {held[1]['over']}",
        "none": "Bearer pn_" + "A" * 32,
        "cut": f"Bearer {good[:-1]}",
        "other case": f"Bearer {good.swapcase()}",
        "basic": f"Basic {good}",
        "twice": f"Bearer {good} {good}",
        "empty": "Bearer ",
    }[name]
    status, said = server.post(PATH, rows(), {"Authorization": sent})
    assert status == 401
    assert good not in said["error"]


def test_a_revoked_token_is_refused_in_seconds(server, held):
    """The server takes the change of the file by itself."""
    _, made, file = held
    sent = {"Authorization": f"Bearer {made['gone']}"}
    assert server.post(PATH, rows(), sent)[0] == 200
    tokens.revoke(file, "gone")
    deadline = time.monotonic() + WAIT
    while server.post(PATH, rows(), sent)[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.post(PATH, rows(), sent)[0] == 401


def test_a_token_in_the_url_is_none(server, held):
    """URLs end up in logs: a token there is not taken, nor written down."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as connection:
        connection.sendall(head("GET", f"/v2?token={held[1]['predict']}", CLOSE))
        assert statuses(listen(connection)) == [401]


def test_a_token_does_what_its_scopes_say_and_no_more(server, held):
    """403 names the scope that is missing."""
    status, said = server.post(PATH, rows(), {"Authorization": f"Bearer {held[1]['read']}"})
    assert status == 403
    assert "predict" in said["error"]
    assert server.get("/metrics", {"Authorization": f"Bearer {held[1]['predict']}"})[0] == 403
    assert server.get("/metrics", {"Authorization": f"Bearer {held[1]['read']}"})[0] == 200


def test_whether_it_lives_is_told_to_anybody(server):
    """Load balancers have no token."""
    for path in ("/v2/health/live", "/v2/health/ready", "/health", "/ping"):
        assert server.get(path, {"Authorization": ""})[0] == 200


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "//v2/models/numbers/infer", "/v2/models/../models/numbers/infer", "/v2/models/%2e%2e/numbers/infer",
        "/v2/models/numbers%2finfer/x", "/v2/models/numbers/versions/..%2f..%2f/infer",
        "/v2/models/numbers/versions/1.0%00/infer", "/v2/models/numbers/versions/%2e%2e%2f%2e%2e%2fetc%2fpasswd/infer",
        "/v2/models/numbers/versions/99.9/infer", "/v2/models/numbers/versions/1.0;/infer",
        "/v2/models/numbers/versions/1e1/infer", "/v2/models/numbers/versions/-1/infer",
        "/v2/models/numbers/versions/%F0%9F%98%80/infer", "/v2/models/numbers/versions/" + "9" * 5000 + "/infer",
        "/v2/models/numbers/versions/champion%0d%0aX-Evil:1/infer", "/%00", "/..%2f..%2fetc/passwd", "/%ff%fe",
        "/ui/static/%2e%2e/%2e%2e/access.py", "/ui/static/..%2f..%2faccess.py", "/ui/static//etc/passwd",
        "/ui/static/%00", "/ui/static/..%5c..%5caccess.py",
    ],
)  # fmt: skip
def test_paths_lead_nowhere_but_to_routes(server, held, path):
    """Nothing in a path reaches a file or another version, or breaks an answer in two."""
    body = json.dumps(rows()).encode()
    for method, token in (("POST", held[1]["predict"]), ("GET", held[1]["read"])):
        sent = head(method, path, f"Content-Length: {len(body)}", CLOSE, token=token) + body
        said = talk(server, sent)
        assert len(statuses(said)) == 1, said
        assert 400 <= statuses(said)[0] < 500
        assert b"X-Evil" not in said.partition(b"\r\n\r\n")[0]
        assert b"root:" not in said
        assert b"import" not in said


def test_ids_that_are_not_there_are_told(server):
    """An unknown model or version is a 404 that says what there is."""
    assert server.post("/v2/models/other/infer", rows())[0] == 404
    status, said = server.post("/v2/models/numbers/versions/99.9/infer", rows())
    assert status == 404
    assert "99.9" in said["error"]


# -- this machine alone -----------------------------------------------------------------------------------------------


def test_without_tokens_it_listens_to_this_machine_alone(tmp_path):
    """Beyond it, it does not start; on it, other sites get nothing through a browser."""
    from perennial import cli

    config = deploy(tmp_path)
    assert cli.main(["serve", "-c", str(config), "--host", "0.0.0.0", "--port", "0"]) == 2
    body = json.dumps(rows()).encode()
    with serving(config) as server:
        assert server.post(PATH, rows())[0] == 200

        def sent(*headers, host="127.0.0.1"):
            length = f"Content-Length: {len(body)}"
            return statuses(talk(server, head("POST", PATH, length, CLOSE, *headers, host=host) + body))

        assert sent() == [200]
        assert sent(host="evil.example") == [403]
        assert sent("Origin: https://evil.example") == [403]
        assert sent("Sec-Fetch-Site: cross-site") == [403]
        assert sent("Origin: null") == [403]
        assert sent("Origin: http://127.0.0.1", "Sec-Fetch-Site: same-origin") == [200]
