"""MLflow's scoring protocol: ``POST /invocations`` with a frame as JSON or CSV.

Source: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally, "Inference Server Specification". An answer
has besides ``predictions`` the ``version`` that gave them and the ``ids`` that labels refer to; with
``"params": {"probabilities": true}`` also ``probabilities`` and ``classes``.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, final

import numpy as np
import orjson
import pyarrow as pa

from perennial.core.features import Kind
from perennial.server.answering import Asked, Head, Said
from perennial.server.failures import Refused
from perennial.server.oip import holds_booleans, loads
from perennial.server.rows import Rows
from perennial.server.signature import Policy, Signature

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_FORMS = frozenset(FORMS)
_JSON = (b"content-type", b"application/json")
_TRUTH = {"true": True, "True": True, "1": True, "1.0": True, "false": False, "False": False, "0": False, "0.0": False}


@final
class Reader:
    """Reads requests by their content type."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def __call__(self, body: bytes, head: Head, signature: Signature) -> tuple[Asked, bool]:
        """Rows of a request, and whether probabilities are wanted.

        Raises
        ------
        Refused
            If it is neither JSON nor CSV, in none of the forms, or the rows are not what the signature says.
        """
        kind = head.kind.partition(b";")[0].strip().lower()
        if kind == b"text/csv":
            return Asked(self._csv(body, signature), head.request), False
        if kind not in (b"application/json", b""):
            raise Refused("the content type is neither application/json nor text/csv: send one of them", 415)
        document = self._document(body)
        params = document.pop("params", None) or {}
        if type(params) is not dict or not params.keys() <= {"probabilities"}:
            raise Refused("`params` may have `probabilities`, true or false, and nothing else")
        if len(document) != 1 or not document.keys() <= _FORMS:
            raise Refused(f"give rows under one of {', '.join(FORMS)}, and nothing else beside `params`", 400)
        form, data = next(iter(document.items()))
        rows = getattr(self, f"_{form}")(data, signature, holds_booleans(body))
        return Asked(rows, head.request), params.get("probabilities", False) is True

    def _document(self, body: bytes) -> dict[str, Any]:
        """A JSON object; NaN and Infinity, which JSON does not have and MLflow's client writes, as the policy says."""
        if b"NaN" not in body and b"Infinity" not in body:
            return loads(body)
        try:
            document = json.loads(body, parse_constant=self._constant)
            orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)  # half a character, or too large a number, is none
        except (ValueError, TypeError, RecursionError):
            raise Refused("the body is no JSON", 400) from None
        if type(document) is not dict:
            raise Refused("the body is no JSON object", 400)
        return document

    def _constant(self, text: str) -> float | None:
        if text != "NaN":
            return float(text)
        if self._policy.nan == "refuse":
            raise Refused("the body has a NaN, which is refused here: send null, or a number")
        return None

    def _dataframe_split(self, data: Any, signature: Signature, booleans: bool) -> Rows:
        if type(data) is not dict or type(data.get("data")) is not list:
            raise Refused("`dataframe_split` has `columns` and `data`, a list of rows", 400)
        names = data.get("columns")
        if names is None:
            return signature.lists(data["data"], self._policy, booleans=booleans)
        if type(names) is not list:
            raise Refused("`columns` is no list: give the names of the columns", 400)
        return signature.table(names, data["data"], self._policy, booleans=booleans)

    def _dataframe_records(self, data: Any, signature: Signature, booleans: bool) -> Rows:
        if type(data) is not list:
            raise Refused("`dataframe_records` is a list of objects, one for each row", 400)
        return signature.records(data, self._policy, booleans=booleans)

    def _instances(self, data: Any, signature: Signature, booleans: bool) -> Rows:
        if type(data) is not list:
            raise Refused("`instances` is a list of rows", 400)
        if data and type(data[0]) is dict:
            return signature.records(data, self._policy, booleans=booleans)
        return signature.lists(data, self._policy, booleans=booleans)

    def _inputs(self, data: Any, signature: Signature, booleans: bool) -> Rows:
        if type(data) is dict:
            for name, values in data.items():
                if type(values) is not list:
                    raise Refused(f"`inputs` by column has lists, and column {name[:40]!r} is none", 400)
            columns = {name: [_inner(value) for value in values] for name, values in data.items()}
            return signature.by_column(columns, self._policy) if columns else signature.lists([], self._policy)
        return self._instances(data, signature, booleans)

    def _csv(self, body: bytes, signature: Signature) -> Rows:
        """Rows of a table in text; an empty field is a null, and a NaN is heeded by the policy."""
        try:
            lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error):
            raise Refused("the body is no CSV in UTF-8", 400) from None
        lines = [line for line in lines if line]
        if not lines:
            raise Refused("the body is empty: give a line with the names of the columns, and lines of values", 400)
        names, rows = lines[0], lines[1:]
        for i, row in enumerate(rows):
            if len(row) != len(names):
                raise Refused(f"row {i} has {len(row)} values, the line of names {len(names)}: give as many")
        kinds = {column.name: column for column in signature.columns}
        columns: dict[str, Any] = {}
        for name, values in zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True):
            if name in columns:
                raise Refused("two columns have the same name: give each column once")
            column = kinds.get(name)
            if column is None or column.kind is not Kind.NUMBER:
                whole = name == signature.key and pa.types.is_integer(signature.key_type)
                columns[name] = [_whole(name, i, v) if whole else v or None for i, v in enumerate(values)]
            else:
                flag = pa.types.is_boolean(signature.types[name])
                columns[name] = [self._number(name, i, value, flag=flag) for i, value in enumerate(values)]
        if signature.id in columns and None in columns[signature.id]:
            raise Refused(f"column {signature.id!r}, row {columns[signature.id].index(None)}: an id is missing")
        return signature.by_column(columns, self._policy)

    def _number(self, name: str, i: int, text: str, *, flag: bool) -> float | bool | None:
        if not text:
            return None
        if flag and text in _TRUTH:
            return _TRUTH[text]
        try:
            number = float(text)
        except ValueError:
            raise Refused(f"column {name!r}, row {i}: text; send a number, or nothing for a null") from None
        if number != number:
            if self._policy.nan == "refuse":
                raise Refused(f"column {name!r}, row {i}: NaN; send a number, or nothing for a null")
            return None
        return number


def _whole(name: str, i: int, text: str) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        raise Refused(f"column {name!r}, row {i}: text; send a whole number, or nothing for a null") from None


def _inner(value: Any) -> Any:
    """The value of a column that came as [n, 1]."""
    return value[0] if type(value) is list and len(value) == 1 else value


def write(said: Said, probabilities: bool) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The answer: body and headers."""
    answered = said.answered
    prediction = answered.prediction
    told: Any = prediction.values
    if told is None:
        assert prediction.codes is not None
        classes = prediction.classes
        told = [classes[code] if code >= 0 else None for code in prediction.codes.tolist()]
    document: dict[str, Any] = {"predictions": told, "version": answered.version, "ids": answered.ids}
    if probabilities and prediction.proba is not None:
        document |= {"probabilities": np.ascontiguousarray(prediction.proba), "classes": list(prediction.classes)}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), [_JSON]
