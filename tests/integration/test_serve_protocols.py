"""The server speaks its protocols: clients that others wrote work unchanged, and no request makes it fail."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from perennial.config import load
from perennial.core.records import Prediction, align
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint
from tests import serving
from tests.command import perennial
from tests.serving import Server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # those of other people's clients

INFER = "/v2/models/numbers/infer"
X = np.random.default_rng(7).normal(size=(5, 4))
NAMES = ["x0", "x1", "x2", "x3"]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a deployment whose columns are all numbers."""
    return serving.deploy(tmp_path_factory.mktemp("numbers"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a deployment of numbers and words, with ids and keys."""
    return serving.deploy_mixed(tmp_path_factory.mktemp("mixed"), more="serve: {rows: 100, body_bytes: 65536}\n")


@pytest.fixture(scope="module")
def server(numbers: Path) -> Iterator[Server]:
    """A server of numbers."""
    with serving.serving(numbers) as server:
        yield server


@pytest.fixture(scope="module")
def words(mixed: Path) -> Iterator[Server]:
    """A server of numbers and words, with two workers."""
    with serving.serving(mixed, "--workers", "2") as server:
        yield server


def offline(config: Path, table: Any) -> Prediction:
    """What the champion says of rows, without a server."""
    deployment = load(config).deployment()
    with SqlLedger.open(deployment.ledger, deployment.name, blobs=deployment.blobs, create=False) as ledger:
        saved = ledger.version(str(ledger.alias("champion").version))
        model, state = deployment.load(ledger.get(saved.blob)), checkpoint.last(ledger)
    encoder = checkpoint.restored(deployment, state).encoder
    features = encoder.features([table.column(n).combine_chunks() for n in encoder.schema.names], 0)
    classes = tuple(state.part("engine").part("book").plain["classes"])
    return align(model.predict(features), classes)


def one_tensor(data: Any, **more: Any) -> dict[str, Any]:
    """A request of the Open Inference Protocol with one tensor."""
    shape = list(np.shape(data))
    return {"inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": data}], **more}


# -- tritonclient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("by_column", [True, False])
def test_tritonclient(server: Server, numbers: Path, binary: bool, by_column: bool) -> None:
    """Health, metadata and infer, in JSON and in binary, by column and as one matrix; what is said is the model's."""
    import tritonclient.http as triton

    wanted = offline(numbers, pa.table(dict(zip(NAMES, X.T, strict=True))))
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("numbers")
        assert not client.is_model_ready("other")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("numbers")
        assert [column["name"] for column in metadata["inputs"]] == NAMES
        version = server.get("/health")[1]["champion"]
        assert version in metadata["versions"]
        assert client.is_model_ready("numbers", version)
        assert not client.is_model_ready("numbers", "99.0")

        inputs = [triton.InferInput("x", [5, 4], "FP64").set_data_from_numpy(X, binary_data=binary)]
        if by_column:
            inputs = [
                triton.InferInput(name, [5, 1], "FP64").set_data_from_numpy(X[:, [j]], binary_data=binary)
                for j, name in enumerate(NAMES)
            ]
        names = ("predict", "probabilities", "id")
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
        request = f"t-{binary}-{by_column}"
        for number in ("", version):
            result = client.infer("numbers", inputs, model_version=number, outputs=outputs, request_id=request)
            answer = result.get_response()
            assert (answer["id"], answer["model_name"], answer["model_version"]) == (request, "numbers", version)
            assert wanted.codes is not None
            assert result.as_numpy("predict").tolist() == [wanted.classes[code] for code in wanted.codes]
            assert np.array_equal(result.as_numpy("probabilities"), wanted.proba)
            ids = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("id")]
            assert ids == [f"{request}/{i}" for i in range(5)]
        with pytest.raises(triton.InferenceServerException, match=r"no version '99\.0'"):
            client.infer("numbers", inputs, model_version="99.0")


def test_tritonclient_with_words(words: Server, mixed: Path) -> None:
    """Words, booleans and whole numbers, each in a tensor of its own type."""
    import tritonclient.http as triton

    table = serving.mixed_rows(6, seed=3)
    columns = {"amount": "FP64", "age": "INT16", "member": "BOOL", "colour": "BYTES", "call": "BYTES"}
    wanted = offline(mixed, table)
    with triton.InferenceServerClient(f"127.0.0.1:{words.port}") as client:
        inputs = []
        for name, datatype in columns.items():
            values = table.column(name).to_numpy(zero_copy_only=False)
            values = values.astype(object) if datatype == "BYTES" else values
            inputs.append(triton.InferInput(name, [6], datatype).set_data_from_numpy(values))
        result = client.infer("mixed", inputs)
        assert wanted.codes is not None
        told = [one.decode() for one in result.as_numpy("predict")]
        assert told == [wanted.classes[code] for code in wanted.codes]
        assert np.array_equal(result.as_numpy("probabilities"), wanted.proba)
        assert [one.decode() for one in result.as_numpy("id")] == table.column("call").to_pylist()


# -- MLflow -----------------------------------------------------------------------------------------------------------


def test_mlflow_client(server: Server, numbers: Path) -> None:
    """MLflow's own client: a frame, with a NaN that it writes as such, and a matrix."""
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", server.port)
    client.wait_server_ready(timeout=30)
    assert client.get_version() == server.get("/version")[1]
    rows = X.copy()
    rows[2, 1] = np.nan
    frame = pd.DataFrame(rows, columns=NAMES)
    wanted = offline(numbers, pa.Table.from_pandas(frame, preserve_index=False))
    assert wanted.codes is not None
    labels = [wanted.classes[code] for code in wanted.codes]
    for data in (frame, frame[NAMES[::-1]], rows):
        response = client.invoke(data)
        assert response.get_predictions()[0].tolist() == labels
    told = client.invoke(frame, params={"probabilities": True})
    assert np.array_equal(np.array(told["probabilities"]), wanted.proba)
    assert (told["version"], len(told["ids"]), told["classes"]) == (
        server.get("/health")[1]["champion"],
        5,
        list(wanted.classes),
    )


def test_every_form_of_invocations_is_the_same(words: Server) -> None:
    """Split, records, instances, by column, and CSV; in CSV an empty field is a null."""
    row = {"amount": 0.5, "age": 40, "member": True, "colour": "red"}
    null = dict.fromkeys(row)
    by_column = {name: [row[name], None] for name in row}
    bodies: list[Any] = [
        {"dataframe_split": {"columns": list(row), "data": [list(row.values()), list(null.values())]}},
        {"dataframe_records": [row, null]},
        {"instances": [row, null]},
        {"instances": [list(row.values()), list(null.values())]},
        {"inputs": by_column},
        {"inputs": [row, null]},
    ]
    answers = [words.post("/invocations", body | {"params": {"probabilities": True}}) for body in bodies]
    assert {status for status, _ in answers} == {200}
    assert len({str(body["probabilities"]) for _, body in answers}) == 1
    csv = b"amount,age,member,colour\n0.5,40,true,red\n,,,\n"
    status, body = words.post("/invocations", csv, {"Content-Type": "text/csv; charset=utf-8"})
    assert (status, body["predictions"]) == (200, answers[0][1]["predictions"])


# -- ids --------------------------------------------------------------------------------------------------------------


def test_a_request_id_is_one_request_for_all_workers(words: Server) -> None:
    """The same content again is answered again; other content is a 409, whichever worker hears it."""
    row = {"amount": 0.5, "age": 40, "member": True, "colour": "red"}
    other = row | {"age": 41}
    header = {"X-Request-Id": "only-once"}
    statuses = [words.post("/invocations", {"instances": [row]}, header)[0] for _ in range(6)]
    assert statuses == [200] * 6
    assert {words.post("/invocations", {"instances": [other]}, header)[0] for _ in range(6)} == {409}
    with_id = {"instances": [other | {"call": "own"}]}
    assert words.post("/invocations", with_id, header)[0] == 200  # its rows have ids of their own
    metrics = words.get("/metrics")[1]
    assert "perennial_repeated_total 5" in metrics
    assert 'perennial_requests_total{route="invocations",status="409"} 6' in metrics


def test_ids_come_back(server: Server) -> None:
    """An id is the request's and the row's number; a request without one gets one that nobody else has."""
    _, body = server.post(INFER, one_tensor([[1, 2, 3, 4], [1, 2, 3, 4]], id="mine"))
    assert body["outputs"][-1]["data"] == ["mine/0", "mine/1"]
    found = {server.post(INFER, one_tensor([[1, 2, 3, 4]]))[1]["id"] for _ in range(20)}
    assert len(found) == 20


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_refused(server: Server, words: Server) -> None:
    """Each with its status, as JSON, in words about the request."""
    record = {"amount": 0.5, "age": 40, "member": True, "colour": "red"}
    cases: list[tuple[Server, str, str, Any, int, str]] = [
        (server, "POST", INFER, b"{", 400, "no JSON"),
        (server, "POST", INFER, one_tensor([[1, 2, 3, "4"]]), 422, "column 'x3' (double), row 0: text"),
        (server, "POST", INFER, one_tensor([[1, 2, 3]]), 422, "give [n, 4]"),
        (server, "POST", "/v2/models/other/infer", one_tensor([[1, 2, 3, 4]]), 404, "serves 'numbers'"),
        (server, "POST", "/v2/models/numbers/versions/x/infer", one_tensor([[1, 2, 3, 4]]), 404, "no version 'x'"),
        (server, "GET", INFER, None, 405, "POST"),
        (server, "GET", "/v2/models/other", None, 404, "serves 'numbers'"),
        (server, "GET", "/nowhere", None, 404, "no such route"),
        (server, "DELETE", "/health", None, 405, "another method"),
        (server, "POST", "/invocations", {"instances": []}, 422, "there is no row"),
        (server, "POST", "/invocations", {"rows": []}, 400, "give rows under one of"),
        (server, "POST", "/invocations", {"instances": [], "inputs": []}, 400, "give rows under one of"),
        (server, "POST", "/invocations", {"instances": [[1, 2, 3, 4]], "params": {"x": 1}}, 422, "`params`"),
        (server, "POST", "/invocations", b'{"instances": [[1, 2, 3, Infinity]]}', 422, "an infinite number"),
        (server, "POST", "/invocations", b'{"NaN": ' + b"[" * 100_000, 400, "no JSON"),
        (words, "POST", "/invocations", {"instances": [record | {"y": "yes"}]}, 422, "POST /labels"),
        (words, "POST", "/invocations", {"instances": [record] * 101}, 413, "100 may come at once"),
        (words, "POST", "/invocations", {"instances": ["x" * 70_000]}, 413, "larger than 65,536 bytes"),
        (words, "POST", "/invocations", {"instances": [{"amount": 1.0}]}, 422, "missing 'age', 'member', 'colour'"),
    ]
    for where, method, path, body, wanted, told in cases:
        status, answer = where.ask(method, path, body)
        assert (status, told in answer["error"]) == (wanted, True), (path, body, status, answer)
    status, answer = server.post("/invocations", b"<x/>", {"Content-Type": "text/xml"})
    assert (status, answer["error"]) == (
        415,
        "the content type is neither application/json nor text/csv: send one of them",
    )


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("which", ["server", "words"])
def test_schemathesis_finds_no_5xx(which: str, mode: str, request: pytest.FixtureRequest) -> None:
    """Requests that the OpenAPI description allows, and such that it does not, make nothing fail."""
    import schemathesis

    where: Server = request.getfixturevalue(which)
    schema = schemathesis.openapi.from_url(f"{where.url}/openapi.json")
    seen = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if not operation.path.startswith(("/v2", "/invocations", "/health", "/ping", "/version", "/metrics")):
            continue  # other routes have their own
        seen += 1

        @settings(
            max_examples=15, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
        def check(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)
            if answer.status_code != 200:
                assert answer.json()["error"]

        try:
            check()
        except Exception as error:
            if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):  # nothing is wrong with a GET without input
                raise
    assert seen >= 14
    assert where.get("/health")[0] == 200


def test_the_description_says_what_a_row_has(words: Server) -> None:
    """The schema of a record is the signature."""
    document = words.get("/openapi.json")[1]
    body = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    record = next(one for one in body["oneOf"] if one["required"] == ["dataframe_records"])
    row = record["properties"]["dataframe_records"]["items"]
    assert row["properties"]["age"] == {"type": ["integer", "null"]}
    assert row["required"] == ["amount", "age", "member", "colour"]
    assert set(row["properties"]) == {"amount", "age", "member", "colour", "call", "person"}


# -- processes --------------------------------------------------------------------------------------------------------


def test_it_waits_for_a_champion(tmp_path: Path) -> None:
    """Before there is a ledger it says so, and begins to answer by itself once a run made one."""
    config = serving.configure(tmp_path, serving.NUMBERS, serving.rows())
    with serving.serving(config, ready=False) as server:
        assert server.get("/health") == (503, {"status": "not ready", "champion": None})
        assert server.get("/ping")[0] == 503
        assert server.get("/v2/models/numbers/ready")[0] == 503
        status, body = server.post(INFER, one_tensor([[1, 2, 3, 4]]))
        assert (status, "no version serves yet" in body["error"]) == (503, True)
        serving.run(config)
        server.wait()
        assert server.post(INFER, one_tensor([[1, 2, 3, 4]]))[0] == 200
        assert server.end() == 0
        events = [event["event"] for event in server.events()]
        assert events[0] == "listening"
        assert events[-1] == "ended"


def test_workers_that_die_are_replaced_and_ids_outlive_them(mixed: Path) -> None:
    """A killed worker is replaced; one that lost its supervisor ends; a restart knows the ids of before."""
    row = {"amount": 0.5, "age": 40, "member": True, "colour": "red"}
    ask = {"instances": [row]}
    with serving.serving(mixed, "--workers", "2") as server:
        assert server.post("/invocations", ask, {"X-Request-Id": "before"})[0] == 200
        first = _workers(server)
        os.kill(first[0], signal.SIGKILL)
        _until(lambda: len(_workers(server)) == 3)
        assert server.post("/invocations", ask)[0] == 200
        pids = [pid for pid in _workers(server) if _lives(pid)]
        server.end(signal.SIGKILL)
        _until(lambda: not any(map(_lives, pids)))
    with serving.serving(mixed) as again:
        other = {"instances": [row | {"age": 41}]}
        assert again.post("/invocations", other, {"X-Request-Id": "before"})[0] == 409


def _workers(server: Server) -> list[int]:
    return [event["pid"] for event in server.events() if event["event"] == "started"]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _until(true: Any) -> None:
    deadline = time.monotonic() + serving.PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_requests_that_are_being_answered_end_before_the_server_does(numbers: Path) -> None:
    """SIGTERM in the middle of many requests: each that was taken is answered."""
    with serving.serving(numbers) as server, ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(_ask, server) for _ in range(200)]
        _until(lambda: sum(one.done() for one in sent) > 20)
        assert server.end() == 0
        told = [one.result() for one in sent]
    assert set(told) <= {200, None}
    assert told.count(200) > 20


def _ask(server: Server) -> int | None:
    try:
        return server.post(INFER, one_tensor([[1, 2, 3, 4]]))[0]
    except (ConnectionRefusedError, ConnectionResetError, http.client.RemoteDisconnected):
        return None  # it listens no more, or the connection was still to be taken
    except OSError as error:
        if isinstance(getattr(error, "reason", None), ConnectionRefusedError | ConnectionResetError):
            return None
        raise


def test_an_inbox_that_is_away_is_not_made_anew(tmp_path: Path) -> None:
    """Its folder goes before the first write: labels are refused, nothing is made, and it goes on afterwards."""
    text = serving.MIXED.replace("source: rows.parquet", "source: serve").replace("delay: 1h", "wait: 1d")
    config = serving.configure(tmp_path, text.replace("drop: [note]", "drop: []"), serving.mixed_rows())
    assert perennial("push", str(tmp_path / "rows.parquet"), "-c", str(config)).returncode == 0
    serving.run(config, "--until-end")
    home, away = tmp_path / ".perennial", tmp_path / "away"
    label = {"id": "c1", "label": "yes"}
    with serving.serving(config) as server:
        home.rename(away)
        assert server.post("/labels", label)[0] == 503
        assert not home.exists()
        away.rename(home)
        deadline = time.monotonic() + serving.PATIENCE
        while (told := server.post("/labels", label))[0] != 200:
            assert time.monotonic() < deadline, told
            time.sleep(0.1)


def test_what_cannot_start_says_why(numbers: Path, tmp_path: Path) -> None:
    """The exit codes of every command, and one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, told = _start(numbers, "--port", port)
        assert (code, "cannot listen there" in told) == (2, True)
    code, told = _start(tmp_path / "none.yaml")
    assert (code, "no such file" in told) == (2, True)
    code, told = _start(numbers, "--host", "0.0.0.0", "--port", "0")
    assert (code, "token" in told) == (2, True)
    config = tmp_path / "elsewhere.yaml"
    text = numbers.read_text().replace("source: rows.parquet", f"source: {numbers.parent / 'rows.parquet'}")
    config.write_text(text + "ledger: postgresql+psycopg://nobody@127.0.0.1:9/none\n")
    code, told = _start(config)
    assert (code, "say where models are kept" in told) == (2, True)


def _start(config: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "perennial", "serve", "-c", str(config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=serving.PATIENCE)
    return done.returncode, done.stderr
