"""What a ledger says of its versions: which there are, what each learned, when it served, and why.

Pure functions over a :class:`History`, which is what the ledger gave at one time. They give plain data, ready for JSON:
instants are ISO 8601 in UTC.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

from perennial.core.records import Verdict
from perennial.core.times import iso
from perennial.ledger.errors import UnknownVersion
from perennial.ledger.records import Alias, Entry, Saved, Segment
from perennial.ledger.sql import SqlLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A stretch of event time in which one version answered, ``[start, end)``; ``end`` None: it still does.

    ``rows`` counts the rows that it predicted; none if it was made champion and no batch came since. ``turn`` is the
    turn with which it began, ``until_turn`` that with which another did.
    """

    version: str
    start: int
    end: int | None
    rows: int
    turn: int
    until_turn: int | None = None


@dataclass(frozen=True, kw_only=True)
class History:
    """What a ledger holds: all that is told is told from here."""

    deployment: str
    entries: tuple[Entry, ...]
    versions: tuple[Saved, ...]
    statuses: dict[str, str]
    moves: tuple[Alias, ...]
    segments: tuple[Segment, ...]
    committed: dict[int, int]  #: by turn, when it was committed by the database's clock

    @classmethod
    def read(cls, ledger: SqlLedger) -> Self:
        """The history so far; a run may go on meanwhile: what is read later holds all that is read before."""
        entries = tuple(ledger.entries())
        return cls(
            deployment=ledger.deployment,
            entries=entries,
            segments=tuple(ledger.segments(alive=False)),
            versions=tuple(ledger.versions()),
            moves=tuple(ledger.alias_history()),
            statuses=ledger.statuses(),
            committed=ledger.committed(),
        )

    @cached_property
    def by_number(self) -> dict[str, Saved]:
        """Versions by number, in order of creation."""
        return {saved.version.number: saved for saved in self.versions}

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the gate said, in order."""
        return tuple(verdict for entry in self.entries for verdict in entry.verdicts)

    @cached_property
    def heeded(self) -> bool:
        """Whether a turn was taken since the champion was last moved: until then the one before answers."""
        serving = self.entries[-1].serving if self.entries else None
        return not self.champions or self.champions[-1].version == serving

    @cached_property
    def champions(self) -> tuple[Alias, ...]:
        """The moves of ``champion``, in order."""
        return tuple(move for move in self.moves if move.alias == "champion")

    def version(self, number: str) -> Saved:
        """One version; raises ``UnknownVersion``, which suggests the nearest."""
        found = self.by_number.get(number)
        if found is None:
            raise UnknownVersion.among(self.deployment, number, list(self.by_number))
        return found


# -- versions ---------------------------------------------------------------------------------------------------------


def versions(history: History) -> list[dict[str, Any]]:
    """Every version in order of creation.

    ``scores`` are mean losses by name over the labels that were joined while the version served, ``scored`` of them. A
    turn's loss is that of predictions of the serving line: with late labels, the first of them are of rows that an
    earlier MINOR of the line had predicted. The exact loss per row is in the tables of predictions and labels.
    """
    sums = _sums(history.entries)
    outcomes = {verdict.version: verdict.outcome for verdict in history.verdicts}
    out = []
    for saved in history.versions:
        version = saved.version
        scores = sums.get(version.number, {})
        out.append(
            {
                "number": version.number,
                "kind": version.kind,
                "parent": version.parent,
                "status": history.statuses.get(version.number, "retired"),
                "at": iso(version.at),
                "trained_rows": version.trained_rows,
                "reason": version.reason,
                "verdict": outcomes.get(version.number),
                "scores": {name: total / n for name, (n, total) in scores.items() if n},
                "scored": max((n for n, _ in scores.values()), default=0),
                "digest": saved.state,
                "size": saved.size,
            }
        )
    return out


def _sums(entries: Iterable[Entry]) -> dict[str, dict[str, tuple[int, float]]]:
    out: dict[str, dict[str, tuple[int, float]]] = {}
    for entry in entries:
        if entry.serving is None:
            continue
        of = out.setdefault(entry.serving, {})
        for name, (n, total) in entry.scores.items():
            before = of.get(name, (0, 0.0))
            of[name] = (before[0] + n, before[1] + total)
    return out


# -- who served when --------------------------------------------------------------------------------------------------


def services(history: History) -> tuple[Service, ...]:
    """Who answered when, in order, without gaps from the first on.

    A batch's rows are answered by the version that serves in its turn. A version that came to serve in a turn without
    rows, by an operator's word or a tick, answers what comes after the rows that were there.
    """
    out: list[Service] = []
    newest = -(2**63)
    for entry in history.entries:
        start = entry.now if entry.rows else max(entry.now, newest)
        if entry.segment is not None:
            newest = max(newest, entry.segment.newest + 1)
        if entry.serving is None:
            continue
        last = out[-1] if out else None
        if last is not None and last.version == entry.serving:
            if entry.rows and len(out) == 1 and not last.rows:  # adopted before any row: it answers from the first on
                last = replace(last, start=min(last.start, start))
            out[-1] = replace(last, rows=last.rows + entry.rows)
            continue
        if last is not None:
            start = max(start, last.start)
            out[-1] = replace(last, end=start, until_turn=entry.turn)
        out.append(Service(version=entry.serving, start=start, end=None, rows=entry.rows, turn=entry.turn))
    return tuple(out)


def served_at(history: History, instant: int) -> dict[str, Any]:
    """Which version answered rows of an instant, since when and why; ``version`` is None before the first."""
    found = [s for s in services(history) if s.start <= instant and (s.end is None or instant < s.end)]
    batches = [entry for entry in history.entries if entry.rows]
    told: dict[str, Any] = {"deployment": history.deployment, "instant": iso(instant)}
    if not found:
        first = batches[0].now if batches else None
        why = "no row was taken yet" if first is None else "no version served yet: the initial period was not over"
        if first is not None and instant < first:
            why = f"the stream begins at {iso(first)}"
        nobody = {"version": None, "since": None, "until": None, "rows": 0, "committed_at": None}
        return {**told, **nobody, "why": why, "actor": None}
    service = found[-1]
    newest = max((entry.segment.newest for entry in batches if entry.segment is not None), default=service.start)
    why, actor = _why(history, service)
    if instant > newest:
        why += f" (rows came up to {iso(newest)} so far; this is who would answer)"
    return {
        **told,
        "version": service.version,
        "since": iso(service.start),
        "until": None if service.end is None else iso(service.end),
        "rows": service.rows,
        "committed_at": _wall(history, service.turn),
        "why": why,
        "actor": actor,
    }


def _why(history: History, service: Service) -> tuple[str, str]:
    """Why a version came to serve, and who had it so."""
    entry = next(e for e in history.entries if e.turn == service.turn)
    if entry.kind == "operator":
        reason = next((d.reason for d in entry.decisions if d.fire), "")
        move = _last_move(history.champions, service.version, service.start)
        return reason, move.actor if move is not None else "operator"
    verdict = next((v for v in reversed(entry.verdicts) if v.version == service.version), None)
    if verdict is not None and verdict.reason:
        return verdict.reason, "run"
    turned_down = next((v for v in reversed(entry.verdicts) if v.outcome == "reject"), None)
    if turned_down is not None:
        return f"{turned_down.version} was rejected: {turned_down.reason}", "run"
    return history.version(service.version).version.reason, "run"


def _last_move(moves: Iterable[Alias], version: str, instant: int) -> Alias | None:
    found = [move for move in moves if move.version == version and move.at <= instant and move.actor != "run"]
    return found[-1] if found else None


# -- one version ------------------------------------------------------------------------------------------------------


def explain(history: History, number: str) -> dict[str, Any]:
    """Everything there is to say of one version: what it learned, from whom, why, what the gate said, when it served.

    Raises
    ------
    UnknownVersion
        If there is none of this number.
    """
    saved = history.version(number)
    version = saved.version
    entry = next((e for e in history.entries if any(s.version.number == number for s in e.versions)), None)
    lesson = saved.facts.get("lesson")
    ranges = lesson["rows"] if lesson else []
    mine = [service for service in services(history) if service.version == number]
    return {
        "deployment": history.deployment,
        "number": number,
        "kind": version.kind,
        "status": history.statuses.get(number, "retired"),
        "learner": saved.facts.get("learner"),
        "strategy": saved.facts.get("strategy"),
        "at": iso(version.at),
        "turn": None if entry is None else entry.turn,
        "ready_at": iso(version.ready_at),
        "reason": version.reason,
        "window": saved.facts.get("window"),
        "adopted": saved.facts.get("adopted"),
        "rows": {
            "count": version.trained_rows,
            "ranges": ranges,
            **_span(ranges, history.segments),
            "weighted": bool(lesson and lesson["weights"]),
            "newest_ever": iso(version.newest) if version.trained_rows or version.parent else None,
        },
        "parent": version.parent,
        "lineage": lineage(history, number),
        "steps": version.steps,
        "verdicts": [_plain(verdict) for verdict in history.verdicts if verdict.version == number],
        "served": [
            {
                "from": iso(s.start),
                "until": None if s.end is None else iso(s.end),
                "rows": s.rows,
                "turn": s.turn,
                "until_turn": s.until_turn,
                "committed": {"from": _wall(history, s.turn), "until": _wall(history, s.until_turn)},
            }
            for s in mine
        ],
        "predicted_rows": sum(service.rows for service in mine),
        "champion": is_champion(history, number),
        "cost": {"cpu_seconds": saved.cpu_seconds, "row_trees": version.row_trees},
        "size": saved.size,
        "digest": saved.state,
        "data": version.data,
        "seed": lesson["seed"] if lesson else None,
    }


def _wall(history: History, turn: int | None) -> str | None:
    """When a turn was committed, by the database's clock."""
    return None if turn is None or turn not in history.committed else iso(history.committed[turn])


def lineage(history: History, number: str) -> list[str]:
    """A version's parents up to the first, nearest first.

    The parent of an update is the version it went on from; that of a fit is the one it was to replace.
    """
    out: list[str] = []
    parent = history.version(number).version.parent
    while parent is not None and parent not in out:
        out.append(parent)
        found = history.by_number.get(parent)
        parent = found.version.parent if found is not None else None
    return out


def _span(ranges: list[list[int]], segments: tuple[Segment, ...]) -> dict[str, Any]:
    """Event times between which rows lie: those of the turns that brought them, so the rows' own or a little wider.

    Segments tell them also after their rows were released.
    """
    segments = tuple(sorted(segments, key=lambda segment: segment.first))  # what was erased has one in its place
    oldest, newest = [], []
    firsts = [segment.first for segment in segments]
    for low, high in ranges:
        at = max(bisect_right(firsts, low) - 1, 0)
        while at < len(segments) and segments[at].first < high:
            if segments[at].first + segments[at].rows > low:
                oldest.append(segments[at].oldest)
                newest.append(segments[at].newest)
            at += 1
    return {"from": iso(min(oldest)) if oldest else None, "until": iso(max(newest)) if newest else None}


def is_champion(history: History, number: str) -> dict[str, Any]:
    """Whether a version is champion now, why or why not, and every move of ``champion`` to it and away from it.

    ``heeded`` says whether the last move of ``champion`` has had its turn.
    """
    moves = []
    for before, move in zip((None, *history.champions), history.champions, strict=False):
        if number in (move.version, before.version if before is not None else None):
            what = "became champion" if move.version == number else f"gave way to {move.version}"
            moves.append({"at": iso(move.at), "what": what, "actor": move.actor, "reason": move.reason})
    now = history.champions[-1].version if history.champions else None
    if now == number:
        last = moves[-1]
        return {"now": True, "heeded": history.heeded, "why": _told(last), "moves": moves}
    if moves:
        return {"now": False, "heeded": history.heeded, "why": _told(moves[-1]), "moves": moves}
    verdict = next((v for v in reversed(history.verdicts) if v.version == number), None)
    why = "it never was: no verdict let it through"
    if verdict is not None and verdict.outcome == "promote":
        ready = history.version(number).version.ready_at
        why = f"it was promoted and waits until it is ready, at {iso(ready)}, or was overtaken by then"
    elif verdict is not None:
        why = f"it never was: {verdict.outcome}: {verdict.reason}"
    return {"now": False, "heeded": history.heeded, "why": why, "moves": moves}


def _told(move: dict[str, Any]) -> str:
    because = f": {move['reason']}" if move["reason"] else ""
    return f"{move['what']} at {move['at']}, by {move['actor']}{because}"


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {**asdict(verdict), "evidence": dict(verdict.evidence)}
