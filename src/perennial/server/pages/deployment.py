"""The first page: what answers now, how well, since when, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perennial.ledger.records import Alias
from perennial.replay.report.words import metric
from perennial.server.pages import words
from perennial.server.pages.chronicle import Chronicle, Event, Score
from perennial.server.pages.series import Bucket
from perennial.server.pages.words import Times

RECENT = 500  #: labels at least, where there are as many, whose mean loss is called recent
EVENTS = 9  #: of the list beside the picture
MARKS = 400  #: of the picture, the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number with its name, and what to think of it."""

    name: str
    value: str
    note: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The version that a pointer says answers. ``heeded``: it does; ``previous`` is what a roll back goes to."""

    number: str
    since: int
    reason: str
    actor: str
    mean: float | None
    scored: int
    heeded: bool
    serving: str | None
    previous: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """The version on trial; shares are of requests that it answers, or is asked about beside the champion."""

    number: str
    reason: str
    canary: float
    shadow: float
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The first page. ``wait`` says what is missing where nothing answers yet."""

    champion: Champion | None
    challenger: Challenger | None
    tiles: tuple[Tile, ...]
    wait: str
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the server's processes counted. ``per_second`` is None until two looks tell it."""

    predictions: int
    per_second: float | None


def overview(
    told: Chronicle,
    pointers: Mapping[str, Alias],
    *,
    times: Times,
    delay: float | None = None,
    fresh: float | None = None,
    served: Served | None = None,
) -> Overview:
    """The first page.

    Parameters
    ----------
    told : Chronicle
        What was read.
    pointers : mapping
        Where champion, challenger and previous point.
    times : Times
        Writes instants.
    delay : float, optional
        The median label delay, in seconds.
    fresh : float, optional
        The median time from a label's acknowledgement to a version that learned it being live, in seconds.
    served : Served, optional
        What was counted; None where no server runs.
    """
    champion = _champion(told, pointers)
    challenger = _challenger(told, pointers)
    return Overview(
        champion=champion,
        challenger=challenger,
        tiles=_tiles(told, times, delay, fresh, served),
        wait="" if champion is not None else waits(told),
        closed=told.closed,
    )


def loss_name(told: Chronicle) -> str:
    """The loss that is scored, in words."""
    return metric(told.loss_name) if told.loss_name else "loss"


def _champion(told: Chronicle, pointers: Mapping[str, Alias]) -> Champion | None:
    champion, previous = pointers["champion"], pointers["previous"]
    if champion.version is None:
        return None
    score = told.scores.get(champion.version, Score())
    return Champion(
        number=champion.version,
        since=champion.at,
        reason=champion.reason,
        actor=champion.actor,
        mean=score.mean,
        scored=score.n,
        heeded=told.serving == champion.version,
        serving=told.serving,
        previous=previous.version if previous.version != champion.version else None,
    )


def _challenger(told: Chronicle, pointers: Mapping[str, Alias]) -> Challenger | None:
    challenger = pointers["challenger"]
    if challenger.version is None:
        return None
    trial = told.trials.get(max(told.trials, default=-1))
    said = challenger.reason
    if trial is not None and trial.major == int(challenger.version.partition(".")[0]):
        said = trial.last.reason
    return Challenger(
        number=challenger.version,
        reason=said,
        canary=challenger.canary,
        shadow=challenger.shadow,
        ready="ready: " in said,
    )


def waits(told: Chronicle) -> str:
    """What is missing where nothing answers yet."""
    if told.now is None:
        return "No row was taken yet. Start  perennial run  with the same configuration, or send examples here."
    why = "; ".join(told.deciding) or "no trigger fired"
    return f"{told.rows:,} rows were taken, and no version is trained yet: {why}."


def _tiles(
    told: Chronicle, times: Times, delay: float | None, fresh: float | None, served: Served | None
) -> tuple[Tile, ...]:
    recent, before = recent_loss(told.series["all"].read())
    name = loss_name(told)
    note = "no label came yet"
    if recent.n:
        note = f"last {recent.n:,} labels"
        if before.n:
            note += f"; before {words.number(before.mean)}"
    out = [
        Tile(name=f"Mean {name}", value=words.number(recent.mean), note=note, help="Lower is better."),
        Tile(
            name="Staleness",
            value=words.micros_span(told.staleness),
            note="from the newest row that it learned to now",
        ),
        Tile(
            name="Label delay",
            value=words.span(delay),
            note="median, from a row to its label" if delay is not None else "no label came yet",
        ),
    ]
    if fresh is not None:
        out.append(
            Tile(name="Label to live", value=words.span(fresh), note="median, until a version that learned it answers")
        )
    if served is not None:
        out.append(
            Tile(
                name="Traffic", value=words.rate(served.per_second), note=f"{served.predictions:,} predictions answered"
            )
        )
    else:
        rows = f"{told.rows:,}"
        out.append(
            Tile(name="Rows", value=rows, note=f"up to {times.short(told.newest)}" if told.newest else "none yet")
        )
    return tuple(out)


def recent_loss(buckets: list[tuple[int, Bucket]]) -> tuple[Score, Score]:
    """The losses of the newest labels, about :data:`RECENT` of them, and of as many before."""
    recent, before = Score(), Score()
    for _, bucket in reversed(buckets):
        into = recent if recent.n < RECENT else before
        if before.n >= RECENT:
            break
        into.n += bucket.scored
        into.total += bucket.loss
    return recent, before


def happened(told: Chronicle, count: int = EVENTS) -> list[Event]:
    """What happened last, newest first."""
    events = list(told.events)
    return events[: -count - 1 : -1]


def picture(told: Chronicle, span: str) -> dict[str, Any]:
    """What the chart draws: instants in seconds, a mean loss for each, rows, staleness in seconds, and marks."""
    series = told.series[span]
    buckets = series.read()
    begin = buckets[0][0] if buckets else 0
    marks = [event for event in told.events if event.at >= begin]
    left = len(marks) - MARKS
    return {
        "loss": loss_name(told),
        "width": series.width / 1e6,
        "t": [start / 1e6 for start, _ in buckets],
        "mean": [bucket.loss / bucket.scored if bucket.scored else None for _, bucket in buckets],
        "rows": [bucket.rows for _, bucket in buckets],
        "scored": [bucket.scored for _, bucket in buckets],
        "updates": [bucket.updates for _, bucket in buckets],
        "staleness": [None if bucket.staleness is None else bucket.staleness / 1e6 for _, bucket in buckets],
        "live": _live(told, begin),
        "marks": [
            {"t": event.at / 1e6, "what": event.what, "version": event.version, "why": event.reason}
            for event in marks[-MARKS:]
        ],
        "left_out": max(left, 0),
    }


def _live(told: Chronicle, begin: int) -> list[dict[str, Any]]:
    """Which line answered when, for the band below the score: updates of a line are one stretch of it."""
    out: list[dict[str, Any]] = []
    if told.now is None:
        return out
    for stretch in told.stretches.between(begin, told.now + 1):
        major = int(stretch.version.partition(".")[0])
        end = told.now if stretch.end is None else stretch.end
        if out and out[-1]["major"] == major:
            out[-1]["to"], out[-1]["last"] = end / 1e6, stretch.version
        else:
            first = {"major": major, "from": max(stretch.start, begin) / 1e6, "to": end / 1e6}
            out.append({**first, "first": stretch.version, "last": stretch.version})
    return out[-MARKS:]
