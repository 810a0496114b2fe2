"""The family of versions as a graph: a row for each MAJOR line, runs of updates as one, parents joined to children."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perennial.server.pages.chronicle import Chronicle, Line

ROWS = 12  #: lines that are drawn at first, the newest
_LEFT, _TOP, _STEP, _ROW, _GUTTER = 52, 30, 88, 62, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A version. ``status`` is champion, challenger, previous, rejected, live (it was) or quiet."""

    number: str
    x: int
    y: int
    status: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Versions between two nodes of a line that are not drawn; none of them if ``skipped`` is 0."""

    x1: int
    x2: int
    y: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What is drawn, in pixels.

    ``edges`` are paths from a parent to the first of a line; as many lines as ``left_out`` are older.
    """

    width: int
    height: int
    nodes: tuple[Node, ...]
    runs: tuple[Run, ...]
    edges: tuple[str, ...]
    left_out: int


def graph(told: Chronicle, pointers: Mapping[str, str | None], rows: int = ROWS) -> Graph:
    """The newest lines of a deployment, newest above.

    Parameters
    ----------
    told : Chronicle
        What was read.
    pointers : mapping
        The versions that champion, challenger and previous point to.
    rows : int
        How many lines.
    """
    majors = sorted(told.lines, reverse=True)[:rows]
    shown = {major: _shown(told, major, pointers) for major in majors}
    place = {
        (major, minor): (_LEFT + i * _STEP, _TOP + row * _ROW)
        for row, major in enumerate(majors)
        for i, minor in enumerate(shown[major])
    }
    nodes, runs, edges = [], [], []
    for (major, minor), (x, y) in place.items():
        status = _status(told.lines[major], major, minor, pointers)
        nodes.append(Node(number=f"{major}.{minor}", x=x, y=y, status=status, title=_title(told, major, minor, status)))
    for major in majors:
        for a, b in zip(shown[major], shown[major][1:], strict=False):
            (x1, y), (x2, _) = place[major, a], place[major, b]
            runs.append(Run(x1=x1 + 9, x2=x2 - 9, y=y, skipped=b - a - 1))
        parent = _pair(told.lines[major].first.parent)
        if parent in place:
            edges.append(_edge(place[parent], place[major, shown[major][0]]))
    deepest = max((len(minors) for minors in shown.values()), default=1)
    return Graph(
        width=_LEFT + (deepest - 1) * _STEP + 46,
        height=_TOP + max(len(majors) - 1, 0) * _ROW + 38,
        nodes=tuple(nodes),
        runs=tuple(runs),
        edges=tuple(edges),
        left_out=len(told.lines) - len(majors),
    )


def _pair(number: str | None) -> tuple[int, int] | None:
    if number is None:
        return None
    major, minor = map(int, number.split("."))
    return major, minor


def _shown(told: Chronicle, major: int, pointers: Mapping[str, str | None]) -> list[int]:
    """The MINORs of a line that get a node: its first and last, those that others come from, and those that served."""
    line = told.lines[major]
    marked = {line.first.minor, line.last_minor}
    named = [line.first.parent for line in told.lines.values()]
    marked |= {pair[1] for pair in map(_pair, [*named, *pointers.values()]) if pair is not None and pair[0] == major}
    marked |= set(line.live or ()) | ({line.rejected} if line.rejected is not None else set())
    return sorted(marked)


def _status(line: Line, major: int, minor: int, pointers: Mapping[str, str | None]) -> str:
    for name in ("champion", "challenger", "previous"):
        if pointers.get(name) == f"{major}.{minor}":
            return name
    if line.rejected == minor:
        return "rejected"
    return "live" if line.live is not None and minor in line.live else "quiet"


def _title(told: Chronicle, major: int, minor: int, status: str) -> str:
    brief = told.briefs.get(f"{major}.{minor}")
    words = {"live": "it served before", "quiet": "never served"}.get(status, status)
    return f"{major}.{minor}: {words}" + (f"; {brief.reason}" if brief is not None and brief.reason else "")


def _edge(parent: tuple[int, int], child: tuple[int, int]) -> str:
    """From above the parent, between the rows, along the gutter and into the child from the left."""
    (px, py), (cx, cy) = parent, child
    between = py - _ROW // 2 + 6
    return f"M{px} {py - 9}V{between + 6}q0 -6 -6 -6H{_GUTTER + 6}q-6 0 -6 -6V{cy + 6}q0 -6 6 -6H{cx - 9}"
