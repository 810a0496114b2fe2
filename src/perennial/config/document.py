"""YAML text as plain data, with the line of every setting.

The words of YAML 1.2 are used, as editors with a JSON Schema do: only ``true`` and ``false`` are booleans, so that
``yes``, ``no``, ``on`` and ``off`` can be labels, ``12:30`` is text and ``1e-3`` a number. Keys that are there twice,
tabs and tags are refused rather than guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from perennial.config.problems import Problem, Steps, dotted, refuse

_NULL = re.compile(r"(?:~|null|Null|NULL|)", re.ASCII)
_TRUE = re.compile(r"(?:true|True|TRUE)", re.ASCII)
_FALSE = re.compile(r"(?:false|False|FALSE)", re.ASCII)
_INT = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_SPECIAL = re.compile(r"([-+]?)\.(?:(inf|Inf|INF)|(?:nan|NaN|NAN))", re.ASCII)
_PLAIN = "plain"  # tag of an unquoted word
_TEXT = "text"  # tag of everything else that was written without one


def scalar(text: str) -> Any:
    """What an unquoted word means: None, a boolean, a number, or the word itself.

    Examples
    --------
    >>> scalar("20_000"), scalar("1e-3"), scalar("no"), scalar("true"), scalar("12:30")
    (20000, 0.001, 'no', True, '12:30')
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text.replace("_", ""))
    if special := _SPECIAL.fullmatch(text):
        return float(special[1] + ("inf" if special[2] else "nan"))
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A YAML file as it was read.

    Parameters
    ----------
    name : str
        The file's name, for errors.
    text : str
        The file's text.
    data : dict
        What it says.
    lines : dict
        The line, counted from 1, of each setting by its path.
    spans : dict
        Start and end of each top-level value in ``text``.
    """

    name: str
    text: str
    data: dict[str, Any]
    lines: dict[Steps, int]
    spans: dict[str, tuple[int, int]]


class _Nodes(Reader, Scanner, Parser, Composer, BaseResolver):
    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:  # noqa: ARG002 - PyYAML's arguments
        """The tag of what has none: composing asks only then, so that any other tag was written."""
        return _PLAIN if kind is yaml.ScalarNode and implicit[0] else _TEXT


def read(text: str, name: str) -> Document:
    """The document that a text holds.

    Raises
    ------
    ConfigError
        If it is not YAML, not a mapping, or has keys twice, tags or cycles: every one of them with its line.
    """
    node = _composed(text, name)
    walk = _Walk()
    data = walk.value(node, ())
    if walk.problems:
        refuse(name, walk.problems)
    if not isinstance(data, dict):
        what = "nothing" if node is None else type(data).__name__
        refuse(name, [Problem(line=1, path="", got=what, need="write settings such as `stream:` and `strategies:`")])
    return Document(name=name, text=text, data=data, lines=walk.lines, spans=walk.spans)


def _composed(text: str, name: str) -> Any:
    try:
        return _Nodes(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        got = (text.splitlines() or [""])[min(line, len(text.splitlines()) or 1) - 1].strip()
        if "'\\t'" in str(error.problem):
            need = "there is a tab before it: YAML is indented with spaces"
        else:
            need = f"this is not YAML: {error.problem or error.context}; check indentation, colons and quotes"
        refuse(name, [Problem(line=line, path="", got=got, need=need)])
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1
        refuse(name, [Problem(line=line, path="", got=chr(int(error.character)), need="this character is not allowed")])


@dataclass(slots=True)
class _Walk:
    """Turns nodes into data, and notes lines and problems on the way."""

    lines: dict[Steps, int] = field(default_factory=lambda: {(): 1})
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    above: set[int] = field(default_factory=set)

    def value(self, node: Any, at: Steps) -> Any:
        if node is None:
            return None
        if node.tag not in (_PLAIN, _TEXT):
            return self._refused(node, at, node.tag, "tags are not used here: take it out, or quote a word")
        if isinstance(node, yaml.ScalarNode):
            return scalar(node.value) if node.tag == _PLAIN else node.value
        if id(node) in self.above:
            return self._refused(node, at, "*", "an alias inside its own anchor never ends: write it out")
        self.above.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._item(child, (*at, i)) for i, child in enumerate(node.value)]
            return dict(self._pairs(node, at))
        finally:
            self.above.discard(id(node))

    def _item(self, node: Any, at: Steps) -> Any:
        self.lines[at] = node.start_mark.line + 1
        return self.value(node, at)

    def _pairs(self, node: Any, at: Steps) -> Iterator[tuple[Any, Any]]:
        seen: dict[Hashable, int] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            key = self.value(key_node, at) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str | int) or isinstance(key, bool):
                self._refused(
                    key_node, at, str(key_node.value)[:40], "a setting's name is a word; put it in quotes if it is one"
                )
                continue
            if key in seen:
                self._refused(key_node, (*at, key), key, f"it is here twice, first on line {seen[key]}: keep one")
                continue
            seen[key] = line
            self.lines[(*at, key)] = line
            if not at:
                self.spans[str(key)] = (child.start_mark.index, child.end_mark.index)
            yield key, self.value(child, (*at, key))

    def _refused(self, node: Any, at: Steps, got: object, need: str) -> None:
        self.problems.append(Problem(line=node.start_mark.line + 1, path=dotted(at), got=got, need=need))
