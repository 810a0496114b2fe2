"""Who answered at an instant, and why: the question about last Tuesday at three."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from perennial.core.records import Verdict
from perennial.core.times import instant
from perennial.ledger.records import Alias, Entry
from perennial.server.pages.chronicle import Chronicle, Stretch
from perennial.server.pages.words import Times

DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day to pick: its name, and the date as an address holds it."""

    name: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """An hour of a day, the version that answered at its beginning, and its instant as a field of a form has it."""

    name: str
    field: str
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Who answered at an instant; ``version`` is None before the first, or where nothing was asked yet."""

    at: int
    version: str | None
    since: int | None = None
    until: int | None = None
    rows: int = 0
    why: str = ""
    actor: str = ""
    ahead: bool = False


def days(told: Chronicle, times: Times) -> tuple[Day, ...]:
    """The last days up to the newest turn, newest last."""
    if told.now is None:
        return ()
    last = times.local(told.now)
    picks = [last - timedelta(days=back) for back in range(DAYS)]
    return tuple(Day(name=f"{day:%a} {day.day} {day:%b}", date=f"{day:%Y-%m-%d}") for day in reversed(picks))


def hours(told: Chronicle, times: Times, date: str) -> tuple[Hour, ...]:
    """The hours of a day and who answered at each; raises ``ValueError`` if it is no date."""
    day = datetime.strptime(date, "%Y-%m-%d")
    out = []
    for hour in range(24):
        local = day.replace(hour=hour, tzinfo=times.zone)
        found = told.stretches.at(instant(local))
        out.append(Hour(name=f"{hour:02}", field=f"{local:%Y-%m-%dT%H:%M}", version=found.version if found else None))
    return tuple(out)


def parsed(text: str, times: Times) -> int:
    """The instant that a field holds, in the pages' zone unless it names one; raises ``ValueError`` if it is none."""
    found = datetime.fromisoformat(text)
    return instant(found if found.tzinfo is not None else found.replace(tzinfo=times.zone))


def nobody(told: Chronicle, at: int, times: Times) -> Answer:
    """What to say where nobody answered."""
    if told.began is None:
        why = "No row was taken yet."
    elif at < told.began:
        why = f"The stream begins on {times.short(told.began)}."
    else:
        why = "No version served yet: the initial period was not over."
    return Answer(at=at, version=None, why=why)


def answer(told: Chronicle, at: int, stretch: Stretch, entry: Entry, moves: list[Alias]) -> Answer:
    """Who answered at an instant.

    Parameters
    ----------
    told : Chronicle
        What was read.
    at : int
        The instant.
    stretch : Stretch
        The one that it lies in.
    entry : Entry
        The turn with which that began.
    moves : list of Alias
        The moves of ``champion``, in order.
    """
    why, actor = came_to_serve(stretch, entry, moves)
    return Answer(
        at=at,
        version=stretch.version,
        since=stretch.start,
        until=stretch.end,
        rows=stretch.rows,
        why=why,
        actor=actor,
        ahead=told.newest is not None and at > told.newest,
    )


def came_to_serve(stretch: Stretch, entry: Entry, moves: list[Alias]) -> tuple[str, str]:
    """Why a version came to serve with a turn, and who had it so."""
    verdicts: tuple[Verdict, ...] = entry.verdicts
    if entry.kind == "operator":
        word = next((decision.reason for decision in entry.decisions if decision.fire), "")
        theirs = [move for move in moves if move.version == stretch.version and move.at <= stretch.start]
        actors = [move.actor for move in theirs if move.actor != "run"]
        return word, actors[-1] if actors else "operator"
    passed = [verdict.reason for verdict in verdicts if verdict.version == stretch.version and verdict.reason]
    if passed:
        return passed[-1], "run"
    turned_down = [verdict for verdict in verdicts if verdict.outcome == "reject"]
    if turned_down:
        return f"{turned_down[-1].version} was rejected: {turned_down[-1].reason}", "run"
    theirs = [move for move in moves if move.version == stretch.version and move.at <= stretch.start]
    return (theirs[-1].reason if theirs else ""), "run"
