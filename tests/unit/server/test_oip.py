"""The Open Inference Protocol: what is read of a request, and what is written of an answer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from perennial.core.records import Label, Prediction
from perennial.server import oip
from perennial.server.answering import Asked, Head, Said
from perennial.server.failures import Refused
from perennial.server.rows import Answered, Rows
from perennial.server.signature import Policy, Signature

NUMBERS = Signature({"a": pa.float64(), "b": pa.float64()})
TYPED = Signature(
    {"a": pa.float64(), "n": pa.int64(), "flag": pa.bool_(), "word": pa.string()},
    id=("call", pa.string()),
    key=("person", pa.int64()),
)


def read(
    document: Any, tail: bytes = b"", *, signature: Signature = NUMBERS, policy: Policy | None = None, **head: Any
) -> tuple[Asked, oip.Wanted]:
    """A request as it is read; ``tail`` goes behind the JSON."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    length = head.pop("length", str(len(body)).encode() if tail else None)
    own = {"length": None, "kind": b"", "request": None, "tensors": length} | head
    return oip.Reader("m", policy or Policy())(body + tail, Head(**own), signature)


def matrix(data: Any, shape: list[Any], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    """A request of one tensor."""
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}], **more}


def binary(name: str, values: Any, datatype: str, shape: list[int]) -> tuple[dict[str, Any], bytes]:
    """A tensor whose values go behind the JSON, and their bytes."""
    data = b"".join(struct.pack("<I", len(v)) + v for v in values) if datatype == "BYTES" else values.tobytes()
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}, data


def refused(call: Any, status: int, *words: str) -> None:
    """The call is refused with a status, and these words."""
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.status == status
    for word in words:
        assert word in str(caught.value)


# -- reading ----------------------------------------------------------------------------------------------------------


@given(npst.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(2)), elements=st.floats(allow_infinity=False)))
def test_a_matrix_in_json_and_in_binary_is_the_same(X: np.ndarray[Any, Any]) -> None:
    """Nested, flat and as bytes; a NaN goes as null in JSON."""
    nested = [[None if np.isnan(v) else v for v in row] for row in X.tolist()]
    shape = list(X.shape)
    tensor, data = binary("x", X, "FP64", shape)
    for asked, _ in (
        read(matrix(nested, shape)),
        read(matrix([v for row in nested for v in row], shape)),
        read({"inputs": [tensor]}, data),
    ):
        assert np.array_equal(asked.rows.numbers, X, equal_nan=True)


@pytest.mark.parametrize("dtype", sorted(oip.DATATYPES - {"BYTES", "BOOL"}))
def test_every_datatype_of_numbers(dtype: str) -> None:
    """A tensor of any width is widened to doubles."""
    kind = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}.get(dtype) or ("<u" if dtype[0] == "U" else "<i") + str(
        int(dtype.lstrip("UINT")) // 8
    )
    tensor, data = binary("x", np.array([[1, 2], [3, 4]], dtype=kind), dtype, [2, 2])
    assert read({"inputs": [tensor]}, data)[0].rows.numbers.tolist() == [[1, 2], [3, 4]]
    assert read(matrix([1, 2, 3, 4], [2, 2], dtype))[0].rows.n == 2


def test_a_tensor_for_each_column_with_ids_and_keys() -> None:
    """In any order, of shape [n] or [n, 1], some in binary and some in JSON."""
    pieces = [
        binary("word", ["röt".encode(), b""], "BYTES", [2, 1]),
        binary("flag", np.array([True, False]), "BOOL", [2]),
        binary("n", np.array([5, -6], "<i8"), "INT64", [2, 1]),
    ]
    inputs = [tensor for tensor, _ in pieces]
    inputs.insert(1, {"name": "a", "shape": [2, 1], "datatype": "FP64", "data": [[1.5], [None]]})
    inputs.append({"name": "call", "shape": [2], "datatype": "BYTES", "data": ["c1", "c2"]})
    inputs.append({"name": "person", "shape": [2], "datatype": "INT64", "data": [7, None]})
    asked, _ = read({"inputs": inputs, "id": "r1"}, b"".join(data for _, data in pieces), signature=TYPED)
    rows = asked.rows
    assert rows.numbers[0, :3].tolist() == [1.5, 5, 1]
    assert np.isnan(rows.numbers[1, 0])
    assert rows.others == {"word": ["röt", ""]}
    assert (rows.ids, rows.keys) == (["c1", "c2"], [7, None])
    assert (asked.request, asked.strict) == ("r1", True)


def test_the_only_column_by_its_name_is_no_matrix() -> None:
    """Of a signature of one column, [n, 1] under its name and [n, 1] under any are the same."""
    one = Signature({"a": pa.float64()})
    for name in ("a", "input-0"):
        document = {"inputs": [{"name": name, "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}]}
        assert read(document, signature=one)[0].rows.numbers.tolist() == [[1.0], [2.0]]


def test_the_id_of_a_request() -> None:
    """Its own, else the header's, which stands for the request only where rows are numbered by it."""
    assert read(matrix([1, 2], [1, 2]))[0][1:] == (None, False)
    assert read(matrix([1, 2], [1, 2]), request="h")[0][1:] == ("h", False)
    assert read(matrix([1, 2], [1, 2], id="r"), request="h")[0][1:] == ("r", True)
    assert read(matrix([1, 2], [1, 2], id=""), request="h")[0][1:] == ("h", False)
    refused(lambda: read(matrix([1, 2], [1, 2], id=5)), 400, "`id` is no text")
    refused(lambda: read(matrix([1, 2], [1, 2], id="\n")), 422, "`id`: an id has 1 to 256 characters")


def test_nan_in_tensors_is_heeded_by_the_policy() -> None:
    """JSON has none; bytes have."""
    strict = Policy(nan="refuse")
    tensor, data = binary("x", np.array([[1.0, np.nan]]), "FP64", [1, 2])
    assert np.isnan(read({"inputs": [tensor]}, data)[0].rows.numbers[0, 1])
    refused(lambda: read({"inputs": [tensor]}, data, policy=strict), 422, "column 'b' (double), row 0: NaN")
    a, of_a = binary("a", np.array([np.nan], "<f4"), "FP32", [1])
    b = {"name": "b", "shape": [1], "datatype": "FP64", "data": [None]}
    refused(lambda: read({"inputs": [a, b]}, of_a, policy=strict), 422, "column 'a' (double), row 0: NaN")
    assert read(matrix([[None, 1.0]], [1, 2]), policy=strict)[0].rows.n == 1  # a null is a null


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"[]", 400, "no JSON object"),
        (b'{"inputs": NaN}', 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        ({}, 400, "`inputs` is missing"),
        ({"inputs": {}}, 400, "`inputs` is missing"),
        ({"inputs": [3]}, 400, "no tensor"),
        ({"inputs": [{"shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}, 400, "no `name`"),
        (matrix([1, 2], [1, 2], "FP8"), 400, "no known `datatype`"),
        (matrix([1, 2], [1, 2], {}), 400, "no known `datatype`"),  # type: ignore[arg-type]
        (matrix([1, 2], [1, -2]), 400, "no `shape`"),
        (matrix([1, 2], [1, True]), 400, "no `shape`"),
        (matrix([1, 2], []), 400, "no `shape`"),
        (matrix({"a": 1}, [1, 2]), 400, "no `data`"),
        (matrix([1, 2, 3], [1, 2]), 422, "has 3 values, and its shape [1, 2] has 2"),
        (matrix([[1, 2], [3]], [2, 2]), 422, "not of the shape [2, 2]"),
        (matrix([[1, 2], 3], [2, 2]), 422, "not of the shape [2, 2]"),
        (matrix([1, 2, 3], [1, 3]), 422, "give [n, 2]"),
        (matrix([], [0, 2**30 + 1]), 422, "give [n, 2]"),
        (matrix(["1", "2"], [1, 2], "BYTES"), 422, "holds text"),
        (matrix([1, "2"], [1, 2]), 422, "column 'b' (double), row 0: text"),
        (matrix([1, 2], [1, 2, 1]), 422, "a column has the shape [n] or [n, 1]"),
        (matrix([1, 2], [1, 2], outputs=3), 400, "`outputs` is no list"),
        (matrix([1, 2], [1, 2], outputs=[{"name": "y"}]), 422, "no output is called 'y'"),
        (matrix([1, 2], [1, 2], outputs=[3]), 422, "no output is called"),
        (matrix([1, 2], [1, 2], parameters=[1]), 400, "`parameters` is no object"),
        (
            matrix([1, 2], [1, 2], outputs=[{"name": "predict", "parameters": {"classification": 1}}]),
            422, "classification extension",
        ),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: Any, status: int, words: str) -> None:
    """With a status of the client's, and in words about what is wrong."""
    refused(lambda: read(body), status, words)


def test_binary_tensors_that_do_not_add_up() -> None:
    """Sizes are held against the body, the shape and each other."""
    tensor, data = binary("x", np.ones((1, 2)), "FP64", [1, 2])
    refused(lambda: read({"inputs": [tensor]}, data + b"1"), 400, "1 bytes of the body belong to no tensor")
    refused(lambda: read({"inputs": [tensor]}, data[:-1]), 400, "`binary_data_size` is not")
    refused(lambda: read({"inputs": [tensor | {"shape": [2, 2]}]}, data), 400, "has 16 bytes; 4 of FP64 have 32")
    for size in (-1, 2**60, "16", None):
        wrong = tensor | {"parameters": {"binary_data_size": size}}
        refused(lambda wrong=wrong: read({"inputs": [wrong]}, data), 400, "`binary_data_size` is not")
    for length in (b"9999999", b"-1", b"x"):
        refused(lambda length=length: read({"inputs": [tensor]}, data, length=length), 400, "Inference-Header")
    for bytes_ in (b"\1\0\0\0", b"\1\0\0", b"\2\0\0\0a", b"\1\0\0\0ab", b"\0\0\0\0\0\0\0\0"):
        text = {"name": "word", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(bytes_)}}
        refused(lambda t=text, b=bytes_: read({"inputs": [t]}, b, signature=TYPED), 400, "its bytes are not 1 texts")
    text, data = binary("word", [b"\xff"], "BYTES", [1])
    refused(lambda: read({"inputs": [text]}, data, signature=TYPED), 422, "no UTF-8")


def test_columns_are_given_once_and_by_name() -> None:
    """Where there is a tensor for each column."""
    column = {"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}
    refused(lambda: read({"inputs": [column, column]}), 422, "two tensors are called 'a'")
    refused(lambda: read({"inputs": [column]}), 422, "missing 'b'")
    refused(lambda: read({"inputs": [column, column | {"name": "c"}]}), 422, "missing 'b'")


# -- writing ----------------------------------------------------------------------------------------------------------


def said(codes: Sequence[int] = (), classes: tuple[Label, ...] = (), *, values: Sequence[float] | None = None) -> Said:
    """An answer; probabilities fall with the class."""
    if values is not None:
        prediction = Prediction(values=np.array(values))
    else:
        proba = np.tile(np.arange(len(classes), 0.0, -1.0), (len(codes), 1))
        prediction = Prediction(codes=np.array(codes, np.int32), proba=proba, classes=classes)
    n = len(prediction)
    rows = Rows(n=n, numbers=np.ones((n, 2)), others={})
    ids = [f"r1/{i}" for i in range(n)]
    return Said("r1", Answered(time=0, ids=ids, rows=rows, version="3.1", prediction=prediction))


ALL = oip.Wanted("m", None, False)


@pytest.mark.parametrize(
    ("classes", "datatype", "data"),
    [
        ((3, 5), "INT64", [5, 3, None]),
        (("no", "yes"), "BYTES", ["yes", "no", None]),
        ((False, True), "BOOL", [True, False, None]),
        ((0.5, 1.5), "FP64", [1.5, 0.5, None]),
        ((1, "1"), "BYTES", ["1", "1", None]),
    ],
)
def test_labels_are_of_the_type_that_they_have(classes: tuple[Label, ...], datatype: str, data: list[Any]) -> None:
    """Mixed ones are text; where nothing was said there is a null."""
    body, headers = oip.write(said([1, 0, -1], classes), ALL)
    document = orjson.loads(body)
    assert headers == [(b"content-type", b"application/json")]
    assert (document["model_name"], document["model_version"], document["id"]) == ("m", "3.1", "r1")
    predict, probabilities, ids = document["outputs"]
    assert predict == {"name": "predict", "datatype": datatype, "shape": [3], "data": data}
    assert probabilities == {
        "name": "probabilities", "datatype": "FP64", "shape": [3, 2], "data": [2.0, 1.0, 2.0, 1.0, 2.0, 1.0],
    }  # fmt: skip
    assert ids == {"name": "id", "datatype": "BYTES", "shape": [3], "data": ["r1/0", "r1/1", "r1/2"]}


def test_a_regression_says_numbers() -> None:
    """And null where it abstained; there are no probabilities to ask for."""
    outputs = orjson.loads(oip.write(said(values=[1.5, float("nan")]), ALL)[0])["outputs"]
    assert [output["name"] for output in outputs] == ["predict", "id"]
    assert outputs[0] == {"name": "predict", "datatype": "FP64", "shape": [2], "data": [1.5, None]}
    wanted = oip.Wanted("m", (("probabilities", False),), False)
    refused(lambda: oip.write(said(values=[1.0]), wanted), 422, "no probabilities")


def test_outputs_that_are_asked_for_in_binary_and_in_json() -> None:
    """Bytes lie behind the JSON in the order of the outputs, and a header says where they begin."""
    document = {
        "outputs": [
            {"name": "id", "parameters": {"binary_data": True}},
            {"name": "probabilities"},
            {"name": "predict", "parameters": {"binary_data": False}},
            {"name": "classes"},
        ],
        "parameters": {"binary_data_output": True},
    }
    _, wanted = read(matrix([1, 2], [1, 2], **document))
    body, headers = oip.write(said([1, 0], (3, 5)), wanted)
    length = int(dict(headers)[b"inference-header-content-length"])
    outputs, tail = orjson.loads(body[:length])["outputs"], body[length:]
    assert [output["name"] for output in outputs] == ["id", "probabilities", "predict", "classes"]
    sizes = [output.get("parameters", {}).get("binary_data_size") for output in outputs]
    assert sizes == [16, 32, None, 10]
    assert tail[:16] == b"\4\0\0\0r1/0\4\0\0\0r1/1"
    assert np.frombuffer(tail[16:48], "<f8").tolist() == [2.0, 1.0, 2.0, 1.0]
    assert tail[48:] == b"\1\0\0\x003\1\0\0\x005"
    assert outputs[2]["data"] == [5, 3]


def test_nothing_said_has_no_binary_form() -> None:
    """A null is not among the values of a tensor."""
    wanted = oip.Wanted("m", (("predict", True),), False)
    refused(lambda: oip.write(said([-1], (3, 5)), wanted), 422, "ask for JSON")
    assert len(oip.write(said([1], (3, 5)), wanted)[0]) > 8


@pytest.mark.parametrize(
    ("body", "may"),
    [
        (b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [1, 2e5, null]}]}', False),
        (b'{"inputs": [{"data": [1, true], "name": "x"}]}', True),
        (b'{"inputs": [{"data": [1], "datatype": "FP64"}]}', False),
        (b'{"inputs": [{"data": [1]}, {"data": [false]}]}', True),
        (b'{"dataframe_split": {"data": [[1, true]]}}', True),
        (b'{"instances": [[true]]}', True),
        (b'{"instances": [[1]]}', False),
    ],
)
def test_what_may_hold_a_boolean(body, may):
    """No boolean is overlooked, wherever the data stand."""
    assert oip.holds_booleans(body) is may
