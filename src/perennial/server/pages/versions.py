"""The versions: a list, and a page for each that says why it is, or is not, live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from perennial.core.records import Verdict
from perennial.ledger.records import Alias, Saved
from perennial.server.pages import words
from perennial.server.pages.chronicle import Brief, Chronicle, Score, Stretch, moves_of
from perennial.server.pages.words import Times

PAGE = 40
SHOWN_STRETCHES = 20
SHOWN_VERDICTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A version in the list."""

    brief: Brief
    status: str
    mean: float | None
    scored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Some versions, newest first; ``older`` is the page behind them, None if there is none."""

    rows: tuple[Row, ...]
    total: int
    older: int | None
    collapsed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """A step in the answer to why a version is, or is not, live."""

    name: str
    told: str
    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything the page of one version shows."""

    number: str
    status: str
    kind: str
    live: bool
    pending: bool
    why: tuple[Reason, ...]
    facts: tuple[tuple[str, str], ...]
    parent: str | None
    ancestors: tuple[str, ...]
    children: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    left_out: int
    judged: str | None
    trial: int | None
    stretches: tuple[Stretch, ...]
    stretches_left_out: int
    moves: tuple[dict[str, Any], ...]
    digest: str


def statuses(told: Chronicle, pointers: Mapping[str, Alias], number: str) -> str:
    """What became of a version: champion, challenger, previous, rejected or retired."""
    for name in ("champion", "challenger", "previous"):
        if pointers[name].version == number:
            return name
    return "rejected" if number in told.rejections else "retired"


def listing(told: Chronicle, pointers: Mapping[str, Alias], page: int = 0) -> Listing:
    """A page of the list, the newest on page 0; of long lines only the newest updates are listed one by one."""
    newest = islice(reversed(told.briefs.values()), page * PAGE, (page + 1) * PAGE)
    rows = []
    for brief in newest:
        score = told.scores.get(brief.number, Score())
        status = statuses(told, pointers, brief.number)
        rows.append(Row(brief=brief, status=status, mean=score.mean, scored=score.n))
    more = len(told.briefs) > (page + 1) * PAGE
    return Listing(
        rows=tuple(rows),
        total=told.versions,
        older=page + 1 if more else None,
        collapsed=told.versions - len(told.briefs),
    )


def page(
    told: Chronicle,
    pointers: Mapping[str, Alias],
    saved: Saved,
    *,
    verdicts: Sequence[Verdict],
    moves: list[Alias],
    times: Times,
) -> Page:
    """The page of one version.

    Parameters
    ----------
    told : Chronicle
        What was read.
    pointers : mapping
        Where champion, challenger and previous point.
    saved : Saved
        The version.
    verdicts : sequence of Verdict
        What the gate said of it, in order.
    moves : list of Alias
        The moves of ``champion``, in order.
    times : Times
        Writes instants.
    """
    version = saved.version
    number = version.number
    stretches = told.stretches.of(number)
    live = pointers["champion"].version == number
    telling = [verdict for verdict in verdicts if verdict.evidence.get("rows")]
    judged = words.judged(telling[-1] if telling else None, told.loss_name)
    mine = moves_of(moves, number)
    trials = [verdict.evidence["trial"] for verdict in verdicts if "trial" in verdict.evidence]
    children = [one.first.number for one in told.lines.values() if one.first.parent == number]
    if f"{version.major}.{version.minor + 1}" in told.briefs:
        children.insert(0, f"{version.major}.{version.minor + 1}")
    return Page(
        number=number,
        status=statuses(told, pointers, number),
        kind=version.kind,
        live=live,
        pending=live and told.serving != number,
        why=tuple(_why(told, saved, list(verdicts), judged, mine, stretches, live, times)),
        facts=_facts(told, saved, stretches, times),
        parent=version.parent,
        ancestors=tuple(ancestors(told, version.parent)),
        children=tuple(children),
        verdicts=tuple(verdicts[: -SHOWN_VERDICTS - 1 : -1]),
        left_out=max(len(verdicts) - SHOWN_VERDICTS, 0),
        judged=judged,
        trial=trials[-1] if trials and trials[-1] in told.trials else None,
        stretches=tuple(stretches[: -SHOWN_STRETCHES - 1 : -1]),
        stretches_left_out=max(len(stretches) - SHOWN_STRETCHES, 0),
        moves=tuple(reversed(mine)),
        digest=saved.state,
    )


def _why(
    told: Chronicle,
    saved: Saved,
    verdicts: list[Verdict],
    judged: str | None,
    moves: list[dict[str, Any]],
    stretches: list[Stretch],
    live: bool,
    times: Times,
) -> list[Reason]:
    """From the trigger to the answers that it gave, one step after the other."""
    version = saved.version
    learned = words.KINDS[version.kind]
    if version.parent:
        learned += f" from {version.parent}" if version.kind == "update" else f", to replace {version.parent}"
    learned += f", on {version.trained_rows:,} rows." if version.trained_rows else ", on no row."
    fired = version.reason or "Nothing: it was brought along."
    out = [
        Reason(name="What fired", told=fired, when=times.short(version.at)),
        Reason(name="What it learned", told=learned),
    ]
    last = verdicts[-1] if verdicts else None
    if last is not None:
        said = {"promote": "Promoted", "reject": "Rejected", "keep": "No verdict"}[last.outcome]
        out.append(Reason(name="What the gate said", told=f"{said}: {last.reason}"))
        if judged is not None:
            out.append(Reason(name="On what evidence", told=judged))
    became = [move for move in moves if move["what"] == "became champion"]
    gave_way = [move for move in moves if move["what"] != "became champion"]
    if became:
        who = "by the run itself" if became[-1]["actor"] == "run" else f"by {became[-1]['actor']}"
        because = became[-1]["reason"]
        same = last is not None and because == last.reason
        told_so = f"Made champion {who}" + (f": {because}" if because and not same else "") + "."
        out.append(Reason(name="Who promoted it", told=told_so, when=times.short(became[-1]["at"])))
    if stretches:
        answered = f"{sum(stretch.rows for stretch in stretches):,} rows"
        end = stretches[-1].end
        ended = "and it still does" if end is None else f"until {times.short(end)}"
        began = times.short(stretches[0].start)
        out.append(Reason(name="What it answered", told=f"{answered}, {ended}.", when=began))
    if live and told.serving != version.number:
        out.append(Reason(name="When", told=f"{told.serving or 'Nothing'} answers until the run takes its next turn."))
    elif not live and gave_way:
        because = f": {gave_way[-1]['reason']}" if gave_way[-1]["reason"] else ""
        ended = f"It {gave_way[-1]['what']}, by {gave_way[-1]['actor']}{because}"
        out.append(Reason(name="Why no longer", told=ended, when=times.short(gave_way[-1]["at"])))
    elif not live and not became:
        out.append(Reason(name="Why not live", told=_never(told, version.number, last)))
    return out


def _never(told: Chronicle, number: str, last: Verdict | None) -> str:
    major, minor = map(int, number.split("."))
    line = told.lines.get(major)
    if last is not None and last.outcome == "reject":
        return "The gate turned it down."
    if line is not None and line.last_minor > minor:
        return f"Its line went on learning before it was let through: {major}.{minor + 1} came after it."
    if last is not None and last.outcome == "keep":
        return "It is on trial: the gate has no verdict yet."
    return "It never was: no verdict let it through."


def _facts(told: Chronicle, saved: Saved, stretches: list[Stretch], times: Times) -> tuple[tuple[str, str], ...]:
    version, facts = saved.version, saved.facts
    score = told.scores.get(version.number, Score())
    lesson = facts.get("lesson") or {}
    ranges = lesson.get("rows") or []
    told_rows = f"{version.trained_rows:,}"
    if ranges:
        told_rows += ": " + ", ".join(f"{low:,}..{high - 1:,}" for low, high in ranges[:3])
        told_rows += f" and {len(ranges) - 3} more" if len(ranges) > 3 else ""
    if lesson.get("weights"):
        told_rows += ", weighted"
    out = [
        ("Learner", facts.get("learner")),
        ("Strategy", facts.get("strategy")),
        ("Window", facts.get("window")),
        ("Rows", told_rows),
        ("Newest row learned", times.short(version.newest) if version.trained_rows or version.parent else None),
        ("Mean loss while it served", f"{words.number(score.mean)} on {score.n:,} labels" if score.n else None),
        ("Rows answered", f"{sum(stretch.rows for stretch in stretches):,}" if stretches else None),
        ("Training", f"{words.span(saved.cpu_seconds)} of CPU" if saved.cpu_seconds else None),
        ("Size", words.byte_size(saved.size)),
        ("Seed", str(lesson["seed"]) if "seed" in lesson else None),
    ]
    return tuple((name, value) for name, value in out if value)


def ancestors(told: Chronicle, parent: str | None, most: int = 8) -> list[str]:
    """The versions that one comes from, nearest first: of each line the one that others went on from, and its first."""
    out: list[str] = []
    while parent is not None and len(out) < most:
        out.append(parent)
        line = told.lines.get(int(parent.partition(".")[0]))
        if line is None:
            break
        if line.first.number != parent:
            out.append(line.first.number)
        parent = line.first.parent
    return out
