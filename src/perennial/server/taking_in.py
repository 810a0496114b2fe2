"""Routes that take in what comes back: labels, feedback, and labelled rows.

A request is checked whole before anything is written, and answered when it is durable. Each item gets an outcome, so
that a request may be sent again whenever its answer was lost: what is there already is ``repeated``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response

from perennial.core.errors import DataError, nearest
from perennial.core.times import instant
from perennial.server import received
from perennial.server.received import LabelItem, Outcome, Received, Thumb

if TYPE_CHECKING:
    from starlette.datastructures import State

    from perennial.server.writer import Writer

ID_LENGTH = 256  #: characters of an id
TEXT_LENGTH = 10_000  #: of words in feedback
LABEL_LENGTH = 1_000  #: of a label that is text
KEY_LENGTH = 200  #: of an idempotency key
TOLD = 10  #: wrong items that an error names
#: microseconds that the clock of a sender may be ahead of ours
AHEAD = 5 * 60 * 1_000_000

_NOT_SERVED = (
    "deployment {name!r} gets its rows and labels from {source}: nothing that comes here would reach it; write to that "
    "source, or set  stream: {{source: serve}}  and start a deployment of a new name"
)


class Wrong(DataError):
    """Items of a request break a rule: the message names each by its place, and nothing was written."""


def routes(state: State) -> APIRouter:
    """``POST /labels`` and ``/feedback`` of an application with this state."""
    router = APIRouter(tags=["feedback"])

    @router.post("/labels", openapi_extra=_described(_LABEL, "labels"), responses=_RESPONSES)
    async def labels(request: Request) -> Response:
        """Labels of predictions, by id: durable when this is answered."""
        return await _take(state, request, "labels", label_items)

    @router.post("/feedback", openapi_extra=_described(_THUMB, "feedback"), responses=_RESPONSES)
    async def feedback(request: Request) -> Response:
        """Thumbs, words and corrections about predictions, by id: durable when this is answered."""
        return await _take(state, request, "feedback", thumb_items)

    return router


async def _take(state: State, request: Request, which: Literal["labels", "feedback"], items_of: Any) -> Response:
    writer: Writer | None = state.writer
    if writer is None:
        return _answer(409, {"error": not_served(state.deployment)})
    key = request.headers.get("idempotency-key", "")
    if len(key) > KEY_LENGTH:
        raise Wrong(f"Idempotency-Key: {len(key)} characters; give at most {KEY_LENGTH}")
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        return _answer(400, {"error": f"the body is no JSON: {error}"})
    given, single = listed(body, which, most=state.settings.rows)
    dtype = writer.label_type or await asyncio.to_thread(writer.labels_are)
    if dtype is None:
        dtype = received.type_of(_first(given, "label" if which == "labels" else "correction"))
    items = items_of(given, which, dtype, writer.clock())
    taken = Received(key=key, **{"labels" if which == "labels" else "thumbs": items})
    outcomes = await asyncio.wrap_future(writer.take(taken))
    state.counters.add(which, sum(one.outcome not in ("repeated", "older") for one in outcomes))
    told = [_told(one) for one in outcomes]
    return _answer(200, told[0] if single else {which: told})


def not_served(deployment: Any) -> str:
    """Why a deployment whose rows come from elsewhere takes nothing in, and what to do."""
    return _NOT_SERVED.format(name=deployment.name, source=deployment.stream.describe()["source"])


def _answer(status: int, content: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _told(outcome: Outcome) -> dict[str, str]:
    told = {"id": outcome.id, "outcome": outcome.outcome}
    return told | {"label": outcome.label} if outcome.label else told


# ---------------------------------------------------------------------- what a body says


def listed(body: Any, which: str, *, most: int) -> tuple[list[Any], bool]:
    """The items of a body, and whether it is a single one.

    Raises
    ------
    Wrong
        If it is neither an item nor a list of some.
    """
    if not isinstance(body, dict):
        raise Wrong(f"the body is {_kind(body)}: send an object, with a list as {which!r} or a single item")
    if which not in body:
        return [body], True
    if other := [name for name in body if name != which]:
        raise Wrong(f"{other[0]!r} beside {which!r} is unknown: items are in the list")
    items = body[which]
    if not isinstance(items, list) or not items:
        raise Wrong(f"{which}: {_kind(items)}; send a list with at least one item")
    if len(items) > most:
        raise Wrong(f"{which}: {len(items):,} items; send at most {most:,} at once")
    return items, False


def label_items(given: Sequence[Any], which: str, dtype: Any, now: int) -> list[LabelItem]:
    """Labels, of a log whose labels are of ``dtype``; raises ``Wrong`` with the place of every wrong one."""

    def item(one: dict[str, Any]) -> LabelItem:
        _known(one, ("id", "label", "time"))
        if one.get("label") is None:
            raise DataError("label: null or missing; leave the item out until its label is known")
        return LabelItem(_id(one), _label(one["label"], dtype, "label"), _time(one.get("time"), now))

    return _each(given, which, item)


def thumb_items(given: Sequence[Any], which: str, dtype: Any, now: int) -> list[Thumb]:  # noqa: ARG001
    """Feedback, whose corrections are labels of ``dtype``; raises ``Wrong`` with the place of every wrong one."""

    def item(one: dict[str, Any]) -> Thumb:
        _known(one, ("id", "up", "text", "correction"))
        up, text, correction = one.get("up"), one.get("text"), one.get("correction")
        if up is None and text is None and correction is None:
            raise DataError("it says nothing; give up (true or false), text or correction")
        if up is not None and not isinstance(up, bool):
            raise DataError(f"up: {_kind(up)}; give true or false")
        if text is not None and (not isinstance(text, str) or not text or len(text) > TEXT_LENGTH):
            raise DataError(f"text: {_size(text)}; give text of 1 to {TEXT_LENGTH:,} characters")
        return Thumb(_id(one), up, text, None if correction is None else _label(correction, dtype, "correction"))

    return _each(given, which, item)


def _each(given: Sequence[Any], which: str, item: Callable[[dict[str, Any]], Any]) -> list[Any]:
    items, wrong = [], []
    for i, one in enumerate(given):
        try:
            if not isinstance(one, dict):
                raise DataError(f"{_kind(one)}; send an object")
            items.append(item(one))
        except DataError as error:
            wrong.append(f"{which}[{i}]: {error}")
    if wrong:
        more = f"; and {len(wrong) - TOLD:,} more" if len(wrong) > TOLD else ""
        raise Wrong("; ".join(wrong[:TOLD]) + f"{more}; nothing was written")
    return items


def _known(one: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in one:
        if name not in names:
            raise DataError(f"{name[:50]!r} is unknown: {nearest(name[:50], names)}")


def _id(one: Mapping[str, Any]) -> str:
    found = one.get("id")
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not 0 < len(found) <= ID_LENGTH:
        raise DataError(f"id: {_size(found)}; give the id of a prediction, 1 to {ID_LENGTH} characters")
    return found


def _label(value: Any, dtype: Any, name: str) -> Any:
    if isinstance(value, str) and len(value) > LABEL_LENGTH:
        raise DataError(f"{name}: {_size(value)}; give at most {LABEL_LENGTH:,}")
    try:
        return received.as_label(value, dtype)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _time(value: Any, now: int) -> int | None:
    if value is None:
        return None
    need = "write when the label was observed as 2026-01-31T12:00:00Z, with an offset, or leave it out"
    if not isinstance(value, str) or len(value) > 40:
        raise DataError(f"time: {_size(value)}; {need}")
    try:
        when = datetime.fromisoformat(value)
    except ValueError as error:
        raise DataError(f"time: {value!r} is none; {need}") from error
    if when.tzinfo is None:
        raise DataError(f"time: {value!r} has no offset; {need}")
    at = instant(when.astimezone(UTC))
    if at > now + AHEAD:
        raise DataError(f"time: {value!r} has not come yet; a label is observed before it is sent")
    return at


def _first(given: Sequence[Any], name: str) -> Any:
    found = (one.get(name) for one in given if isinstance(one, dict))
    return next((value for value in found if isinstance(value, str | int | float)), "")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null or missing"}
    return names.get(type(value), "a number")


def _size(value: Any) -> str:
    return f"{len(value):,} characters" if isinstance(value, str) else _kind(value)


# ---------------------------------------------------------------------- how it is described

_TEXT = {"type": "string", "minLength": 1}
_VALUE = {"oneOf": [{"type": kind} for kind in ("string", "boolean", "number")]}
_LABEL = {
    "type": "object",
    "required": ["id", "label"],
    "additionalProperties": False,
    "properties": {
        "id": _TEXT | {"maxLength": ID_LENGTH},
        "label": _VALUE,
        "time": {"type": "string", "format": "date-time", "description": "When it was observed."},
    },
}
_THUMB = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": _TEXT | {"maxLength": ID_LENGTH},
        "up": {"type": "boolean", "description": "Thumb up, or down."},
        "text": _TEXT | {"maxLength": TEXT_LENGTH},
        "correction": _VALUE,
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no JSON."},
    409: {"description": "The deployment's rows come from elsewhere, or the idempotency key was used before."},
    422: {"description": "Some item breaks a rule; nothing was written."},
    503: {"description": "The database does not answer; send it again."},
}


def _described(item: Mapping[str, Any], which: str) -> dict[str, Any]:
    """A body of one item or of many, and the header that says that a request is the same."""
    many = {
        "type": "object",
        "required": [which],
        "additionalProperties": False,
        "properties": {which: {"type": "array", "items": item, "minItems": 1}},
    }
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": KEY_LENGTH}}
    body = {"required": True, "content": {"application/json": {"schema": {"oneOf": [item, many]}}}}
    return {"requestBody": body, "parameters": [key]}
