"""What is kept of the data, for how long, and what was erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from perennial.core.times import spell
from perennial.ledger.records import Segment
from perennial.server.pages import words
from perennial.server.pages.chronicle import Chronicle
from perennial.server.pages.words import Times


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the ledger holds of rows now."""

    rows: int
    batches: int
    oldest: int | None
    newest: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A time at which a subject was erased, and what the run noted."""

    turn: int
    at: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is kept, what was let go, what was erased."""

    taken: int
    kept: Kept
    released: int
    rule: str
    late: int
    quarantined: int
    erasures: tuple[Erasure, ...]
    erased: int
    facts: tuple[tuple[str, str], ...]


def kept(segments: Sequence[Segment]) -> Kept:
    """The sums over the segments that are alive."""
    return Kept(
        rows=sum(segment.rows for segment in segments),
        batches=len(segments),
        oldest=min((segment.oldest for segment in segments), default=None),
        newest=max((segment.newest for segment in segments), default=None),
    )


def rule(retention: timedelta | Literal["none"] | None) -> str:
    """How long rows are kept, in words."""
    if retention is None:
        return "Every row is kept, so that every version can be reproduced. Set  retention  to let old ones go."
    if retention == "none":
        return "No row is kept longer than it waits to be learned."
    return (
        f"A row is let go {spell(retention)} after its time, unless the window, a label that is still to come or an "
        "update needs it longer."
    )


def page(
    told: Chronicle,
    segments: Sequence[Segment],
    retention: timedelta | Literal["none"] | None,
    *,
    source: str,
    delay: str,
    times: Times,
) -> Page:
    """The page.

    Parameters
    ----------
    told : Chronicle
        What was read.
    segments : sequence of Segment
        Those that are alive.
    retention
        As the deployment has it.
    source, delay : str
        Where rows come from, and when their labels do, in words.
    times : Times
        Writes instants.
    """
    held = kept(segments)
    return Page(
        taken=told.rows,
        kept=held,
        released=max(told.rows - held.rows, 0),
        rule=rule(retention),
        late=told.late,
        quarantined=told.counts.get("quarantined", 0),
        erasures=tuple(Erasure(turn=turn, at=at, note=note) for turn, at, note in reversed(told.notes)),
        erased=told.erasures,
        facts=tuple(
            (name, value)
            for name, value in (
                ("Rows come from", source),
                ("Labels are", delay),
                ("First row taken", times.short(told.began) if told.began is not None else ""),
                ("Newest row", times.short(told.newest) if told.newest is not None else ""),
                ("Labels joined", words.whole(told.joined) + " with a prediction to score"),
                ("Rows that came late", words.whole(told.late)),
            )
            if value
        ),
    )
