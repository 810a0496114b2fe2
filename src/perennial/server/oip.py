"""The Open Inference Protocol, version 2, over HTTP, with the extension for tensors in binary.

Rows come as a tensor per column, of shape [n] or [n, 1], or, where all columns are numbers, as one of shape [n, d].
Sources: the protocol's REST specification, https://github.com/kserve/open-inference-protocol, and Triton's binary data
extension, https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from perennial import __version__
from perennial.core.features import Kind
from perennial.core.records import Label, Prediction
from perennial.server.answering import Asked, Head, Models, Said, Slot
from perennial.server.failures import Refused
from perennial.server.rows import Rows
from perennial.server.signature import Policy, Signature, check_id

EXTENSIONS = ("binary_tensor_data",)
OUTPUTS = ("predict", "probabilities", "id", "classes")  #: the last one only on request

_NUMPY: dict[str, Any] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = frozenset([*_NUMPY, "BYTES"])
_OF_LABEL: dict[type, str] = {str: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}
_LENGTH = struct.Struct("<I")
_LISTS = frozenset([list])

_JSON = (b"content-type", b"application/json")
_OCTETS = (b"content-type", b"application/octet-stream")


class Wanted(NamedTuple):
    """What an answer shall have: outputs by name, each in binary or not; None for all but ``classes``."""

    model: str
    outputs: tuple[tuple[str, bool], ...] | None
    binary: bool


class Reader:
    """Reads requests for the model of a name."""

    def __init__(self, model: str, policy: Policy) -> None:
        self._model, self._policy = model, policy
        self._plain = Wanted(model, None, False)

    def __call__(self, body: bytes, head: Head, signature: Signature) -> tuple[Asked, Wanted]:
        """Rows of a request, and what its answer shall have.

        Raises
        ------
        Refused
            If it is no JSON or no request of this protocol, or the rows are not what the signature says.
        """
        tail = memoryview(b"")
        if head.tensors is not None:
            try:
                length = int(head.tensors)
            except ValueError:
                length = -1
            if not 0 <= length <= len(body):
                raise Refused("header Inference-Header-Content-Length: give how many bytes of the body are JSON", 400)
            tail, body = memoryview(body)[length:], body[:length]
        document = loads(body)
        inputs = document.get("inputs")
        if type(inputs) is not list or not inputs:
            raise Refused("`inputs` is missing: give a list of tensors", 400)
        request = document.get("id", "")
        if request != "":
            if type(request) is not str:
                raise Refused("`id` is no text: give text, or leave it out", 400)
            check_id(request, "`id`")
        rows = self._rows(inputs, tail, signature, booleans=holds_booleans(body))
        strict = bool(request)
        asked = Asked(rows, request or head.request, strict)
        if "outputs" not in document and "parameters" not in document:
            return asked, self._plain
        return asked, _wanted(self._model, document)

    def _rows(self, inputs: list[Any], tail: memoryview, signature: Signature, *, booleans: bool) -> Rows:
        first = inputs[0]
        shape: Any = first.get("shape") if len(inputs) == 1 and type(first) is dict else None
        matrix = signature.numeric and type(shape) is list and len(shape) == 2
        if matrix and (shape[1] != 1 or first.get("name") not in signature.names):  # else it is the only column
            return self._matrix(first, tail, signature, booleans=booleans)
        columns: dict[str, Any] = {}
        for tensor in inputs:
            name, dtype, shape, values, tail = _tensor(tensor, tail)
            if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
                raise Refused(f"tensor {_quoted(name)} has the shape {shape}: a column has the shape [n] or [n, 1]")
            if name in columns:
                raise Refused(f"two tensors are called {_quoted(name)}: give each column once")
            if isinstance(values, np.ndarray) and values.dtype.kind == "f":
                self._check_nan(values, name, signature)
            elif dtype == "BYTES" and isinstance(values, list) and values and type(values[0]) is bytes:
                values = _decoded(name, values)
            columns[name] = values
        if tail:
            raise Refused(f"{len(tail)} bytes of the body belong to no tensor: see `binary_data_size`", 400)
        return signature.by_column(columns, self._policy)

    def _matrix(self, tensor: dict[str, Any], tail: memoryview, signature: Signature, *, booleans: bool) -> Rows:
        name, dtype, (n, width), values, tail = _tensor(tensor, tail, flatten=False)
        if tail:
            raise Refused(f"{len(tail)} bytes of the body belong to no tensor: see `binary_data_size`", 400)
        if dtype == "BYTES":
            raise Refused(f"tensor {_quoted(name)} holds text: numbers are wanted, or a tensor for each column")
        if width != len(signature):
            raise Refused(
                f"tensor {_quoted(name)} has the shape {[n, width]}: give [n, {len(signature)}], the columns in the "
                "order that the model's metadata has them, or a tensor for each by its name"
            )
        if isinstance(values, np.ndarray):
            matrix = values.reshape(n, width)
            if values.dtype.kind == "f" and self._policy.nan == "refuse":
                signature.refuse_nan(matrix)
            return signature.matrix(matrix, self._policy)
        if values and type(values[0]) is list:
            return signature.lists(values, self._policy, booleans=booleans)
        return signature.flat(values, n, self._policy, booleans=booleans)

    def _check_nan(self, values: NDArray[Any], name: str, signature: Signature) -> None:
        if self._policy.nan == "refuse" and name in signature.types:
            signature.refuse_nan(values, name)


def loads(body: bytes) -> dict[str, Any]:
    """A JSON object; raises :class:`Refused` if it is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(f"the body is no JSON: {error.msg} at character {error.pos}", 400) from None
    if type(document) is not dict:
        raise Refused("the body is no JSON object", 400)
    return document


def holds_booleans(body: bytes) -> bool:
    """Whether a JSON text may hold a boolean: quick searches, so that not every value must be looked at.

    A single letter is found many times as quickly as a word. Behind the key of the data, where numbers come last, there
    is none of a boolean's first ones.
    """
    start = body.find(b'"data"') + 6
    if start > 5 and body.find(b"t", start) < 0 and body.find(b"f", start) < 0:
        return False
    return b"true" in body or b"false" in body


def _tensor(tensor: Any, tail: memoryview, *, flatten: bool = True) -> tuple[str, str, list[int], Any, memoryview]:
    """Name, datatype, shape and values of a tensor, flat unless they may stay lists of rows, and the bytes behind."""
    if type(tensor) is not dict:
        raise Refused(
            "`inputs` holds something that is no tensor: give objects with name, shape, datatype and data", 400
        )
    name, shape, dtype = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    if type(name) is not str:
        raise Refused("a tensor has no `name`: give text", 400)
    if type(dtype) is not str or dtype not in DATATYPES:
        raise Refused(
            f"tensor {_quoted(name)} has no known `datatype`: give one of {', '.join(sorted(DATATYPES))}", 400
        )
    if type(shape) is not list or not 0 < len(shape) <= 8 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Refused(f"tensor {_quoted(name)} has no `shape`: give a list of whole numbers", 400)
    size = 1
    for n in shape:
        size *= n
    parameters = tensor.get("parameters")
    if parameters and type(parameters) is dict and "binary_data_size" in parameters:
        values, tail = _binary(name, dtype, size, parameters["binary_data_size"], tail)
        return name, dtype, shape, values, tail
    values = tensor.get("data")
    if type(values) is not list:
        raise Refused(f"tensor {_quoted(name)} has no `data`: give a list", 400)
    if values and type(values[0]) is list:
        wrong = len(shape) != 2 or len(values) != shape[0] or not set(map(type, values)) <= _LISTS
        if wrong or not set(map(len, values)) <= {shape[1]}:
            raise Refused(f"tensor {_quoted(name)}: its lists are not of the shape {shape}: give rows of equal length")
        if flatten:
            values = list(chain.from_iterable(values))
    elif len(values) != size:
        raise Refused(
            f"tensor {_quoted(name)} has {len(values)} values, and its shape {shape} has {size}: give as many"
        )
    return name, dtype, shape, values, tail


def _binary(name: str, dtype: str, size: int, length: Any, tail: memoryview) -> tuple[Any, memoryview]:
    """Values of a tensor whose bytes lie behind the JSON, and the bytes behind these."""
    if type(length) is not int or not 0 <= length <= len(tail):
        raise Refused(f"tensor {_quoted(name)}: `binary_data_size` is not how many bytes there are", 400)
    data, tail = tail[:length], tail[length:]
    if dtype == "BYTES":
        values: list[bytes] = []
        at = 0
        while at < length and len(values) < size:
            stop = at + 4
            if stop <= length:
                at = stop + _LENGTH.unpack_from(data, at)[0]
            if stop > length or at > length:
                break
            values.append(bytes(data[stop:at]))
        if len(values) != size or at != length:
            raise Refused(
                f"tensor {_quoted(name)}: its bytes are not {size} texts, each after its length in 4 bytes", 400
            )
        return values, tail
    kind = _NUMPY[dtype]
    if length != size * kind.itemsize:
        raise Refused(
            f"tensor {_quoted(name)} has {length} bytes; {size} of {dtype} have {size * kind.itemsize}: give as many",
            400,
        )
    if dtype == "BOOL":
        return np.frombuffer(data, dtype=np.uint8) != 0, tail
    return np.frombuffer(data, dtype=kind), tail


def _decoded(name: str, values: list[bytes]) -> list[str]:
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        raise Refused(f"tensor {_quoted(name)} holds bytes that are no UTF-8: encode text as UTF-8") from None


def _wanted(model: str, document: Mapping[str, Any]) -> Wanted:
    """The outputs that a request names, and which of them in binary."""
    parameters = document.get("parameters") or {}
    outputs = document.get("outputs")
    if type(parameters) is not dict:
        raise Refused("`parameters` is no object", 400)
    binary = parameters.get("binary_data_output", False) is True
    if outputs is None:
        return Wanted(model, None, binary)
    if type(outputs) is not list:
        raise Refused("`outputs` is no list: give objects with a name, or leave it out", 400)
    named: dict[str, bool] = {}
    for output in outputs:
        name = output.get("name") if type(output) is dict else None
        if name not in OUTPUTS:
            raise Refused(f"no output is called {_quoted(name)}: there are {', '.join(OUTPUTS)}")
        own = output.get("parameters") or {}
        if type(own) is not dict or own.get("classification"):
            raise Refused(f"output {name!r}: the classification extension is not served: ask for `probabilities`")
        named[name] = own["binary_data"] is True if "binary_data" in own else binary
    return Wanted(model, tuple(named.items()) or None, binary)


# ---------------------------------------------------------------------- answers


def label_datatype(classes: Sequence[Label]) -> str:
    """The datatype of predicted labels: that of the classes, text where they are of several types."""
    kinds = set(map(type, classes))
    return _OF_LABEL.get(kinds.pop(), "BYTES") if len(kinds) == 1 else "BYTES"


def write(said: Said, wanted: Wanted) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The answer: body and headers."""
    answered = said.answered
    prediction, n = answered.prediction, answered.rows.n
    names = wanted.outputs
    if names is None:
        names = (("predict", wanted.binary), ("probabilities", wanted.binary), ("id", wanted.binary))
        if prediction.proba is None:
            names = (names[0], names[2])
    outputs, parts = [], []
    for name, binary in names:
        values: Any
        if name == "predict":
            dtype, shape, values = "FP64", [n], prediction.values
            if values is None:
                dtype, values = _labels(prediction)
        elif name == "id":
            dtype, shape, values = "BYTES", [n], answered.ids
        elif name == "probabilities":
            proba = prediction.proba
            if proba is None:
                raise Refused("this version gives no probabilities: ask for `predict`")
            dtype, shape, values = "FP64", list(proba.shape), proba.ravel()
        else:
            dtype, shape, values = "BYTES", [len(prediction.classes)], [str(label) for label in prediction.classes]
        output: dict[str, Any] = {"name": name, "datatype": dtype, "shape": shape}
        if binary:
            data = _packed(dtype, values)
            output["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            output["data"] = values
        outputs.append(output)
    document = {"model_name": wanted.model, "model_version": answered.version, "id": said.request, "outputs": outputs}
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return body, [_JSON]
    length = (b"inference-header-content-length", b"%d" % len(body))
    return b"".join([body, *parts]), [_OCTETS, length]


def _labels(prediction: Prediction) -> tuple[str, list[Any]]:
    """Predicted labels; null where the version abstained, or named a class that no label has."""
    assert prediction.codes is not None
    classes = prediction.classes
    dtype = label_datatype(classes)
    told = classes if dtype != "BYTES" else tuple(map(str, classes))
    return dtype, [told[code] if code >= 0 else None for code in prediction.codes.tolist()]


def _packed(dtype: str, values: Any) -> bytes:
    if isinstance(values, np.ndarray):
        return values.astype("<f8", copy=False).tobytes()
    if None in values:
        raise Refused("the version does not know what to say of some rows, which has no binary form: ask for JSON")
    if dtype == "BYTES":
        return b"".join(_LENGTH.pack(len(text)) + text for text in (value.encode() for value in values))
    return np.array(values, dtype=_NUMPY[dtype]).tobytes()


# ---------------------------------------------------------------------- metadata


def server_metadata(model: str) -> dict[str, Any]:
    """What serves which model, and by which extensions."""
    return {"name": "perennial", "version": __version__, "extensions": list(EXTENSIONS), "models": [model]}


def model_metadata(model: str, slot: Slot, models: Models) -> dict[str, Any]:
    """Columns in the order of a matrix, and what is answered."""
    signature = slot.signature
    inputs: list[dict[str, Any]] = [
        {"name": column.name, "datatype": column_datatype(signature.types[column.name], column.kind), "shape": [-1]}
        for column in signature.columns
    ]
    for name, dtype in ((signature.id, pa.string()), (signature.key, signature.key_type)):
        if name is not None:
            kind = Kind.NUMBER if pa.types.is_integer(dtype) else Kind.CATEGORY
            inputs.append({
                "name": name, "datatype": column_datatype(dtype, kind), "shape": [-1],
                "parameters": {"optional": not (signature.needs_key and name == signature.key)},
            })  # fmt: skip
    label = "FP64" if slot.task == "regression" else label_datatype(slot.classes)
    outputs: list[dict[str, Any]] = [{"name": "predict", "datatype": label, "shape": [-1]}]
    if slot.task != "regression":
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(slot.classes)]})
        outputs.append({"name": "classes", "datatype": "BYTES", "shape": [len(slot.classes)]})
    outputs.append({"name": "id", "datatype": "BYTES", "shape": [-1]})
    return {
        "name": model, "versions": list(models.resident()), "platform": "perennial", "inputs": inputs,
        "outputs": outputs,
    }  # fmt: skip


def column_datatype(dtype: Any, kind: Kind) -> str:
    """The datatype of a column's tensor."""
    if kind is not Kind.NUMBER or pa.types.is_decimal(dtype):
        return "BYTES" if kind is not Kind.NUMBER else "FP64"
    found = np.dtype(dtype.to_pandas_dtype())
    return next(name for name, own in _NUMPY.items() if own == found)


def _quoted(name: object) -> str:
    text = str(name)
    return repr(text if len(text) <= 40 else text[:40] + "...")
