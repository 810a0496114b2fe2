"""The OpenAPI description of the routes for predictions, which are plain ASGI and say nothing of themselves."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from perennial.core.features import Kind
from perennial.server import invocations, oip
from perennial.server.answering import Parts
from perennial.server.signature import ID_LENGTH, Signature

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_STATUSES = {
    "400": "The body cannot be read.",
    "401": "A token is needed.",
    "403": "The token does not allow this.",
    "404": "No such model or version.",
    "408": "The request came too slowly.",
    "409": "The request id was used before with other content.",
    "413": "The body is too large, or has too many rows.",
    "415": "The body is of a kind that is not read.",
    "422": "The rows are not what the signature says.",
    "429": "Too many requests.",
    "500": "The server failed.",
    "503": "No version answers now; ask again later.",
}


def describe(app: FastAPI, parts: Parts) -> None:
    """Have an app describe all its routes; rows as the champion's signature has them, once there is one."""

    def description() -> dict[str, Any]:
        told = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        signature = None
        if parts.models is not None and (champion := parts.models.champion) is not None:
            signature = champion.signature
        told["paths"] |= prediction_paths(signature)
        for path in told["paths"].values():
            for operation in path.values():
                operation["responses"] |= {
                    status: _answer(text, _ERROR)
                    for status, text in _STATUSES.items()
                    if status not in operation["responses"] or status == "422"
                }
        return told

    app.openapi = description  # type: ignore[method-assign]


def prediction_paths(signature: Signature | None) -> dict[str, Any]:
    """The paths of ``infer`` and ``invocations``."""
    model, version = _parameter("model"), _parameter("version")
    infer = _operation("Predict rows", "Open Inference Protocol", _infer(signature), _inferred())
    return {
        "/v2/models/{model}/infer": {"post": {**infer, "operationId": "infer", "parameters": [model, _request_id()]}},
        "/v2/models/{model}/versions/{version}/infer": {
            "post": {**infer, "operationId": "infer_version", "parameters": [model, version, _request_id()]}
        },
        "/invocations": {
            "post": {
                **_operation("Predict rows", "MLflow", _invocations(signature), _invoked()),
                "operationId": "invocations",
                "parameters": [_request_id()],
            }
        },
    }


def _operation(summary: str, tag: str, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "tags": [tag],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer("What the version that serves says of each row.", answer)},
    }


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _request_id() -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": ID_LENGTH}
    return {"name": "X-Request-Id", "in": "header", "required": False, "schema": schema}


def value_schema(dtype: Any, kind: Kind) -> dict[str, Any]:
    """The JSON Schema of a column's values."""
    if kind is not Kind.NUMBER:
        return {"type": ["string", "null"]}
    if pa.types.is_boolean(dtype):
        return {"type": ["boolean", "null"]}
    return {"type": ["integer" if pa.types.is_integer(dtype) else "number", "null"]}


def _values(signature: Signature | None) -> dict[str, Any]:
    if signature is None:
        return {}
    out = {column.name: value_schema(signature.types[column.name], column.kind) for column in signature.columns}
    if signature.id is not None:
        out[signature.id] = {"type": "string", "minLength": 1, "maxLength": ID_LENGTH}
    if signature.key is not None:
        out[signature.key] = {"type": ["integer" if pa.types.is_integer(signature.key_type) else "string", "null"]}
    return out


def _needed(signature: Signature | None) -> list[str]:
    if signature is None:
        return []
    return [*signature.names, *([str(signature.key)] if signature.needs_key else [])]


def _infer(signature: Signature | None) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
            "datatype": {"enum": sorted(oip.DATATYPES)},
            "data": {"type": "array"},
        },
    }
    if signature is not None:
        columns = ", ".join(_needed(signature))
        tensor = {**tensor, "description": f"A tensor for each of the columns {columns}, of shape [n] or [n, 1]."}
    output = {"type": "object", "required": ["name"], "properties": {"name": {"enum": list(oip.OUTPUTS)}}}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": ID_LENGTH},
            "inputs": {"type": "array", "minItems": 1, "items": tensor},
            "outputs": {"type": "array", "items": output},
            "parameters": {"type": "object"},
        },
    }


def _inferred() -> dict[str, Any]:
    output = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"enum": list(oip.OUTPUTS)},
            "datatype": {"enum": ["BOOL", "BYTES", "FP64", "INT64"]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
        },
    }
    return {
        "type": "object",
        "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": output},
        },
    }


def _invocations(signature: Signature | None) -> dict[str, Any]:
    record: dict[str, Any] = {"type": "object"}
    if signature is not None:
        record |= {"properties": _values(signature), "required": _needed(signature), "additionalProperties": False}
    split = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array"}},
        },
    }
    rows = {"type": "array", "items": record, "minItems": 1}
    forms: dict[str, dict[str, Any]] = {
        "dataframe_split": split, "dataframe_records": rows, "instances": rows, "inputs": rows,
    }  # fmt: skip
    params = {"type": "object", "properties": {"probabilities": {"type": "boolean"}}, "additionalProperties": False}
    return {
        "oneOf": [
            {
                "type": "object",
                "required": [form],
                "properties": {form: forms[form], "params": params},
                "additionalProperties": False,
            }
            for form in invocations.FORMS
        ]
    }


def _invoked() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["predictions", "version", "ids"],
        "properties": {
            "predictions": {"type": "array"},
            "version": {"type": "string"},
            "ids": {"type": "array", "items": {"type": "string"}},
            "probabilities": {"type": "array", "items": {"type": "array", "items": {"type": ["number", "null"]}}},
            "classes": {"type": "array"},
        },
    }
