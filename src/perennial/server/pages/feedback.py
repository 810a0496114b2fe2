"""What came back about predictions: labels, thumbs and words, what of it was joined, and what waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perennial.core.times import instant
from perennial.server.pages.chronicle import Chronicle

SHOWN = 30
NEWEST = 1000  #: thumbs that are counted
#: the logs, what they are called, and what is in them
LOGS = (
    ("rows", "Predictions", "logged with what was said, and rows that were pushed with their label"),
    ("labels", "Labels", "sent in for ids of predictions"),
    ("feedback", "Feedback", "thumbs, corrections and words"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """Feedback about one prediction; ``up`` is None where it holds no thumb."""

    id: str
    at: int
    up: bool | None
    text: str
    correction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One of the logs: how many rows ever came, and what they are."""

    name: str
    came: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What came in, what joined, what waits.

    ``behind`` rows are in the log and in no turn yet, ``open`` rows were answered and have no label so far.
    """

    flows: tuple[Flow, ...]
    behind: int
    joined: int
    open: int
    delay: float | None
    fresh: float | None
    up: int
    down: int
    thumbs: tuple[Thumb, ...]
    served: bool


def page(
    told: Chronicle,
    came: Mapping[str, int],
    newest: Sequence[Mapping[str, Any]],
    *,
    delay: float | None = None,
    fresh: float | None = None,
) -> Page:
    """The page.

    Parameters
    ----------
    told : Chronicle
        What was read.
    came : mapping of str to int
        How many rows the logs ever had, those that are there; empty where the stream does not come from a server.
    newest : sequence of mapping
        The newest feedback, newest first.
    delay, fresh : float, optional
        The median label delay, and the median time until what learned a label answers, in seconds.
    """
    thumbs = [_thumb(row) for row in newest]
    return Page(
        flows=tuple(Flow(name=name, came=came[which], what=what) for which, name, what in LOGS if which in came),
        behind=max(came.get("rows", told.rows) - told.rows, 0),
        joined=told.joined,
        open=max(told.answered - told.joined, 0),
        delay=delay,
        fresh=fresh,
        up=sum(thumb.up is True for thumb in thumbs),
        down=sum(thumb.up is False for thumb in thumbs),
        thumbs=tuple(thumbs[:SHOWN]),
        served=bool(came),
    )


def _thumb(row: Mapping[str, Any]) -> Thumb:
    return Thumb(
        id=row["id"],
        at=instant(row["known_at"]),
        up=row["up"],
        text=row["text"] or "",
        correction=row["correction"] or "",
    )
