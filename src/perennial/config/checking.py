"""From data to records: what pydantic finds wrong, said in this project's words and with the file's lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from perennial.config.problems import Problem, Steps, dotted, refuse
from perennial.config.records import Config
from perennial.config.shapes import Record
from perennial.config.writing import scalar_text
from perennial.core.errors import ConfigError, nearest

#: pydantic's names for a wrong type, and what to write instead
_WANTED = {
    "string_type": "write text",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "bool_type": "write true or false",
    "dict_type": "write a mapping, e.g. {name: value}",
    "model_type": "write a mapping, e.g. {name: value}",
    "tuple_type": "write a list, e.g. [a, b]",
    "finite_number": "write a finite number",
}

#: where the file writes what the stream calls by these names
STREAM_NAMES: dict[str, Steps] = {
    "target": ("label", "column"),
    "label_delay": ("label", "delay"),
    "known_at": ("label", "known_at"),
    "within": ("label", "within"),
    "label_wait": ("label", "wait"),
    "absent": ("label", "absent"),
    "positives_wait": ("label", "positives_wait"),
    "features": ("features", "build"),
    "lookback": ("features", "lookback"),
}


def checked(data: Mapping[str, Any], *, name: str, lines: Mapping[Steps, int]) -> Config:
    """The configuration that plain data describe.

    Parameters
    ----------
    data : mapping
        What the file says.
    name : str
        What errors call the file.
    lines : mapping
        The line of each setting by its path; empty for data that came from no file.

    Raises
    ------
    ConfigError
        With every setting that breaks a rule, its line, the rule and the nearest valid word.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        found = [_problem(item, data, lines) for item in error.errors(include_url=False)]
        refuse(name, list({(p.path, p.need): p for p in found}.values()))


def place(steps: Steps, lines: Mapping[Steps, int]) -> int | None:
    """The line of a setting, or of the nearest one around it that was written."""
    return next((lines[steps[:n]] for n in range(len(steps), -1, -1) if steps[:n] in lines), None)


def as_problem(error: ConfigError, steps: Steps, data: Any, lines: Mapping[Steps, int]) -> Problem:
    """A constructor's error, placed where its setting was written, with the value as it was written."""
    steps = _written(_deepest(steps, error, lines), lines)
    around = _at(steps, data)
    got = error.got if around is None or isinstance(around, Mapping | list) else around
    return Problem(line=place(steps, lines), path=dotted(steps), got=got, need=in_yaml(error.need))


def in_yaml(message: str) -> str:
    """A message with the settings of labels, which it names as Python does, named as the file does.

    Examples
    --------
    >>> in_yaml("correct `known_at`, or use `label_delay`")
    'correct `stream.label.known_at`, or use `stream.label.delay`'
    """

    def path(found: re.Match[str]) -> str:
        steps = STREAM_NAMES.get(found[1], ())
        return f"`{dotted(('stream', *steps))}`" if steps[:1] == ("label",) else found[0]

    return re.sub(r"`(\w+)`", path, message)


def _deepest(steps: Steps, error: ConfigError, lines: Mapping[Steps, int]) -> Steps:
    """The setting that an error is about, as far down as the file has it: its field, or the key that is its value."""
    tail = error.field.split(".")
    for step in tail[1:] if steps and tail[0] == steps[-1] else tail:
        if (*steps, step) not in lines:
            return steps
        steps = (*steps, step)
    if isinstance(error.got, str) and (*steps, error.got) in lines:
        steps = (*steps, error.got)
    return steps


def _at(steps: Steps, data: Any) -> Any:
    """What the data say at a path; None where they say nothing."""
    for step in steps:
        if isinstance(data, Mapping):
            data = data.get(step)
        else:
            data = data[step] if isinstance(data, list) and isinstance(step, int) else None
    return data


def _written(steps: Steps, lines: Mapping[Steps, int]) -> Steps:
    """The part of a path that is in the file: `sliding: 0d` has no `span` to point at."""
    while lines and len(steps) > 1 and steps not in lines:
        steps = steps[:-1]
    return steps


def _problem(item: Any, data: Mapping[str, Any], lines: Mapping[Steps, int]) -> Problem:
    steps: Steps = tuple(item["loc"])
    kind, got = item["type"], item["input"]
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return as_problem(cause, steps, data, lines)
    if kind == "invalid_key" or steps[-1:] == ("[key]",):
        steps = steps[:-1] if kind != "invalid_key" else steps
        need = "a name is a word: put it in quotes"
        return Problem(line=place(steps, lines), path=dotted(steps[:-1]), got=steps[-1], need=need)
    if kind == "missing":
        need = f"is missing: {_description(steps)}"
        return Problem(line=place(steps[:-1], lines), path=dotted(steps), got=None, need=need)
    if kind == "extra_forbidden":
        return Problem(line=place(steps, lines), path=dotted(steps), got=got, need=_unknown(steps, data))
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        need = nearest(str(got), words)
    else:
        need = _WANTED.get(kind, item["msg"])
    return Problem(line=place(steps, lines), path=dotted(_written(steps, lines)), got=got, need=need)


def _unknown(steps: Steps, data: Mapping[str, Any]) -> str:
    inner = {**STREAM_NAMES, "delay": ("label", "delay")}.get(str(steps[-1]))
    if inner is not None and steps[-1] != inner[0] and steps[:-1] in ((), ("stream",)):
        return f"there is no such setting here: {_inside(inner, _at(steps, data), data)}"
    record = _record_at(steps[:-1])
    fields = record.model_fields if record is not None else {}
    around = _at(steps[:-1], data)
    free = [field for field in fields if not (isinstance(around, Mapping) and field in around)]
    return f"there is no such setting here: {nearest(str(steps[-1]), free or fields)}"


def _inside(inner: Steps, value: Any, data: Mapping[str, Any]) -> str:
    """Where to write a setting of the stream that stands beside the mapping that it belongs into."""
    around, key = inner
    label = _at(("stream", "label"), data)
    column = label.get("column") if isinstance(label, Mapping) else label
    written = {"column": column} if around == "label" and isinstance(column, str) else {}
    inside = ", ".join(f"{name}: {scalar_text(is_)}" for name, is_ in {**written, str(key): value}.items())
    return f"write it as  stream: {around}: {{{inside}}}"


def _description(steps: Steps) -> str:
    record = _record_at(steps[:-1])
    field = record.model_fields.get(str(steps[-1])) if record is not None else None
    return (field.description or "") if field is not None else "give it"


def _record_at(steps: Steps) -> type[Record] | None:
    """The record whose settings a path's next step names."""
    record: type[Record] | None = Config
    by_name = False
    for step in steps:
        if by_name or isinstance(step, int):  # the name of a strategy, or a place in a list
            by_name = False
            continue
        if record is None or step not in record.model_fields:
            return None
        annotation = record.model_fields[step].annotation
        by_name = get_origin(annotation) is dict
        record = _inner(annotation)
    return record


def _inner(annotation: Any) -> type[Record] | None:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part)) is not None), None)
