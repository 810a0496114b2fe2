"""Routes that take in what comes back: labels, feedback, and labelled rows.

A request is checked whole before anything is written, and answered when it is durable. Each item gets an outcome, so
that a request may be sent again whenever its answer was lost: what is there already is ``repeated``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import orjson
import pyarrow as pa
from fastapi import APIRouter, Request, Response

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.records import Label
from perennial.server import received
from perennial.server.failures import RETRY, Refused
from perennial.server.received import Examples, LabelItem, Outcome, Received, Thumb
from perennial.stream import inbox_index
from perennial.stream.answered import SAID, SHADOW, SHADOW_SAID, VERSION
from perennial.stream.feed import SourceAway
from perennial.stream.inbox import INSTANT
from perennial.stream.ingest import KeyTaken
from perennial.stream.label_log import LARGEST
from perennial.stream.settings import Stream

if TYPE_CHECKING:
    from perennial.server.writer import Writer

What = Literal["labels", "feedback", "examples"]
Item = TypeVar("Item")

log = logging.getLogger(__name__)

INLINE_ITEMS = 100  #: up to so many are checked on the loop's own thread
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


def routes(state: Any) -> APIRouter:
    """``POST /labels``, ``/feedback`` and ``/examples`` of an application with this state."""
    router = APIRouter(tags=["feedback"])

    @router.post("/labels", openapi_extra=_described(_LABEL, "labels"), responses=_RESPONSES)
    async def labels(request: Request) -> Response:
        """Labels of predictions, by id: durable when this is answered."""
        return await _take(state, request, "labels")

    @router.post("/feedback", openapi_extra=_described(_THUMB, "feedback"), responses=_RESPONSES)
    async def feedback(request: Request) -> Response:
        """Thumbs, words and corrections about predictions, by id: durable when this is answered."""
        return await _take(state, request, "feedback")

    @router.post("/examples", openapi_extra=_described(_EXAMPLE, "examples"), responses=_RESPONSES)
    async def examples(request: Request) -> Response:
        """Labelled rows that nobody predicted: durable when this is answered."""
        return await _take(state, request, "examples")

    return router


async def _take(state: Any, request: Request, which: What) -> Response:
    """Check a request whole, hand it to the writer, and answer once it is durable."""
    stream = state.deployment.stream
    if not stream.served:
        why = _NOT_SERVED.format(name=state.deployment.name, source=stream.describe()["source"])
        return _answer(409, {"error": why})
    writer: Writer | None = state.writer
    if writer is None:
        raise SourceAway("the inbox is not open yet: send it again a little later")
    key = request.headers.get("idempotency-key", "")
    if len(key) > KEY_LENGTH:
        raise Wrong(f"Idempotency-Key: {_size(key)}; give at most {KEY_LENGTH}")
    raw = await request.body()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _answer(400, {"error": f"the body is no JSON: {error}"})
    given, single = listed(body, which, most=state.settings.rows)
    name = {"labels": "label", "feedback": "correction", "examples": str(stream.target)}[which]
    with _of_ours():
        dtype = writer.label_type or await asyncio.to_thread(writer.labels_are) or received.type_of(_first(given, name))
        schema = await asyncio.to_thread(writer.rows_are) if which == "examples" else None
    plain, now = Received(key=key, content=inbox_index.digest_of(raw).hex()), writer.clock()

    def items() -> Received:
        if which == "labels":
            return replace(plain, labels=label_items(given, dtype, now))
        if which == "feedback":
            return replace(plain, thumbs=thumb_items(given, dtype))
        ids = f"examples/{key or secrets.token_hex(8)}"
        return replace(plain, examples=example_items(given, dtype, stream, schema, now, ids))

    taken = items() if len(given) <= INLINE_ITEMS else await asyncio.to_thread(items)  # others are answered meanwhile
    with _of_ours():
        outcomes = await asyncio.wrap_future(writer.take(taken))
    state.counters.add(which, sum(one.outcome not in ("repeated", "older") for one in outcomes))
    told = [_told(one) for one in outcomes]
    return _answer(200, told[0] if single else {which: told})


@contextmanager
def _of_ours() -> Iterator[None]:
    """What goes wrong with the inbox itself is no fault of the client's, who learns nothing of paths and columns."""
    try:
        yield
    except (KeyTaken, Wrong):
        raise
    except (ConfigError, DataError) as error:
        if isinstance(error, SourceAway):
            raise
        log.exception("the inbox cannot be used")
        raise Refused(
            "the inbox cannot be used now, as the server's log says why: send it again later", 503, RETRY
        ) from error


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


def label_items(given: Sequence[Any], dtype: Any, now: int) -> list[LabelItem]:
    """Labels, of a log whose labels are of ``dtype``; raises ``Wrong`` with the place of every wrong one."""

    def item(one: dict[str, Any]) -> LabelItem:
        _known(one, ("id", "label", "time"))
        return LabelItem(_id(one, "id"), _label(one, "label", dtype), _time(one, "time", now))

    return _each(given, "labels", item)


def thumb_items(given: Sequence[Any], dtype: Any) -> list[Thumb]:
    """Feedback, whose corrections are labels of ``dtype``; raises ``Wrong`` with the place of every wrong one."""

    def item(one: dict[str, Any]) -> Thumb:
        _known(one, ("id", "up", "text", "correction"))
        up, text, correction = one.get("up"), one.get("text"), one.get("correction")
        if up is None and text is None and correction is None:
            raise DataError("it says nothing; give up (true or false), text or correction")
        if up is not None and not isinstance(up, bool):
            raise DataError(f"up: {_kind(up)}; give true or false")
        if text is not None and (not isinstance(text, str) or not 0 < len(text) <= TEXT_LENGTH):
            raise DataError(f"text: {_size(text)}; give text of 1 to {TEXT_LENGTH:,} characters")
        return Thumb(_id(one, "id"), up, text, None if correction is None else _label(one, "correction", dtype))

    return _each(given, "feedback", item)


def example_items(given: Sequence[Any], dtype: Any, stream: Stream, schema: Any, now: int, ids: str) -> Examples:
    """Labelled rows of a stream, for a log of some schema; raises ``Wrong`` with the place of every wrong one.

    Columns are named as the stream names them. A row without an id gets one that begins with ``ids``, one without a
    time happened ``now``.
    """
    id_, time, target = str(stream.id), stream.time, str(stream.target)
    columns = {one.name: one.type for one in schema if one.name not in (id_, time, VERSION, SAID, SHADOW, SHADOW_SAID)}
    spare = {stream.weight, stream.group}  # whoever trains with them may not have them of every row
    values: dict[str, list[Any]] = {name: [] for name in columns}

    def item(one: dict[str, Any]) -> tuple[str | None, int, Label]:
        _known(one, (id_, time, target, *columns))
        for name, kept in columns.items():
            if name not in one and name not in spare:
                raise DataError(f"{name}: missing; a value that is not known is null")
            values[name].append(received.as_value(one.get(name), kept, name))
        row, at = None if one.get(id_) is None else _id(one, id_), _time(one, time, now)
        return row, now if at is None else at, _label(one, target, dtype)

    own, times, labels = zip(*_each(given, "examples", item), strict=True)
    names = [f"{ids}/{i}" if name is None else name for i, name in enumerate(own)]
    arrays: dict[str, Any] = {name: pa.array(values[name], kept) for name, kept in columns.items()}
    arrays |= {id_: pa.array(names, pa.string()), time: pa.array(times, INSTANT)}
    rows = [arrays[one.name] if one.name in arrays else pa.nulls(len(names), one.type) for one in schema]
    return Examples(ids=names, time=times, labels=labels, rows=pa.record_batch(rows, schema=schema))


def _each(given: Sequence[Any], which: What, item: Callable[[dict[str, Any]], Item]) -> list[Item]:
    items: list[Item] = []
    wrong: list[str] = []
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


def _id(one: Mapping[str, Any], name: str) -> str:
    found = one.get(name)
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not 0 < len(found) <= ID_LENGTH:
        raise DataError(f"{name}: {_size(found)}; give the id of a row, 1 to {ID_LENGTH} characters")
    return found


def _label(one: Mapping[str, Any], name: str, dtype: Any) -> Label:
    value = one.get(name)
    if value is None:
        raise DataError(f"{name}: null or missing; leave the item out until its label is known")
    if isinstance(value, str) and len(value) > LABEL_LENGTH:
        raise DataError(f"{name}: {_size(value)}; give at most {LABEL_LENGTH:,}")
    label = received.as_label(value, dtype, name)
    if isinstance(label, float) and not abs(label) <= LARGEST:
        raise DataError(f"{name}: {label:g}; give a number from {-LARGEST:g} to {LARGEST:g}")
    return label


def _time(one: Mapping[str, Any], name: str, now: int) -> int | None:
    value = one.get(name)
    if value is None:
        return None
    at = received.as_instant(value, name)
    if at > now + AHEAD:
        raise DataError(f"{name}: {value!r} has not come yet; give the time by a clock that is right, or leave it out")
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
_EXAMPLE = {
    "type": "object",
    "description": "The stream's columns by name, and the label; its id and time where they are known.",
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
