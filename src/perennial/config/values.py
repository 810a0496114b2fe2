"""The kinds of value that settings have, each checked when read and written back as a user would write it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from perennial.core.errors import ConfigError
from perennial.core.records import Label
from perennial.core.times import duration, instant, moment, spell

#: what a duration and a number of rows look like, as JSON Schema
DURATION: dict[str, Any] = {
    "type": "string",
    "pattern": r"^\s*\d+(\.\d+)?\s*(us|ms|s|min|h|d|w)\s*$",
    "examples": ["30min", "7d"],
}
ROWS: dict[str, Any] = {"type": "integer", "minimum": 1, "description": "a number of rows"}


def _span(value: object) -> timedelta:
    return duration(value, "duration")


def _span_or_rows(value: object) -> timedelta | int:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ConfigError("rows", value, "give a positive whole number of rows, or a duration such as '7d'")
        return value
    return duration(value, "duration", positive=True)


def _batch(value: object) -> str | int:
    from perennial.stream.calendar import Calendar

    if isinstance(value, str | timedelta):
        return str(Calendar.of(value))
    rows = _span_or_rows(value)
    assert isinstance(rows, int)
    return rows


def _label(value: object) -> Label:
    if isinstance(value, str | int | float):
        return value
    raise ConfigError("label", value, "write one label: text, a number, true or false")


def _retention(value: object) -> timedelta | Literal["none"]:
    if value == "none":
        return "none"
    try:
        return duration(value, "retention", positive=True)
    except ConfigError as error:
        raise ConfigError("retention", value, "write a positive duration such as '365d', or none") from error


def _origin(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = str(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError("origin", value, "write an instant with its offset, e.g. 2026-01-01T00:00:00+00:00")
    return moment(instant(value))


def _written(value: object) -> object:
    if isinstance(value, timedelta):
        return spell(value)
    return value.isoformat() if isinstance(value, datetime) else value


_write = PlainSerializer(_written)
_ONE: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}

#: a length of time: ``7d``
Span = Annotated[timedelta, PlainValidator(_span), _write, WithJsonSchema(DURATION)]
#: a length of time or a number of rows
SpanOrRows = Annotated[
    timedelta | int, PlainValidator(_span_or_rows), _write, WithJsonSchema({"anyOf": [DURATION, ROWS]})
]
#: calendar time, months included, or a number of rows
Batch = Annotated[
    str | int,
    PlainValidator(_batch),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(us|ms|s|min|h|d|w|mo)\s*$"}, ROWS]}),
]
#: one value of the label column
Class = Annotated[Any, PlainValidator(_label), WithJsonSchema({"type": ["string", "number", "boolean"]})]
#: what a column must say: a value, a list of values, or a range of numbers; the gate checks it
Condition = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                _ONE,
                {"type": "array", "items": _ONE, "minItems": 1},
                {
                    "type": "object",
                    "properties": {"least": {"type": "number"}, "below": {"type": "number"}},
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        }
    ),
]
#: how long labelled examples are kept; ``none`` keeps no raw row
Retention = Annotated[
    timedelta | Literal["none"],
    PlainValidator(_retention),
    _write,
    WithJsonSchema({"anyOf": [{"const": "none"}, DURATION]}),
]
#: an instant with its offset from UTC
Instant = Annotated[
    datetime, PlainValidator(_origin), _write, WithJsonSchema({"type": "string", "format": "date-time"})
]
