"""What the pages know of a ledger: read turn by turn, once, and kept in sums whose size does not grow with its history.

Turns are append-only, so what was read stays true. What is not kept here, a single version or a single turn, is read
from the ledger when somebody asks for it.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import numpy as np

from perennial.core.errors import PerennialError
from perennial.core.records import Verdict
from perennial.core.times import micros
from perennial.ledger.records import Alias, Entry, Saved
from perennial.ledger.sql import SqlLedger
from perennial.production.freshness import median_to_live
from perennial.server.pages.series import Series

#: spans that a chart can show, by their names in its address; None: everything
SPANS: dict[str, timedelta | None] = {
    "all": None,
    "30d": timedelta(days=30),
    "7d": timedelta(days=7),
    "1d": timedelta(days=1),
}

EVENTS_KEPT = 2000  # updates of a line are none: they are counted, in buckets
UPDATES_KEPT = 500  # of all lines, the newest
TRIALS_KEPT = 30
LOOKS_KEPT = 400  #: points of a trial's picture, at most; more looks are thinned evenly
CHANGES_ASKED = 200  #: of what answers, the newest, tell how soon a label is learned
_TABLES_ASKED = 40  # turns whose labels tell the median label delay

#: how a run notes that it forgot someone, see :meth:`perennial.production.Run.erase`
ERASED, ROWS_ERASED = "a subject was erased", "rows of one subject were erased"

What = Literal["trained", "trigger", "promoted", "rejected", "rolled back", "quarantined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a person wants to see in the picture: when in event time, what, which version, and why."""

    turn: int
    at: int
    what: What
    version: str | None
    reason: str
    actor: str = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """A version in short. ``turn`` is the one that trained it."""

    number: str
    major: int
    minor: int
    parent: str | None
    kind: str
    at: int
    turn: int
    rows: int
    reason: str
    cpu_seconds: float
    size: int


@dataclass(slots=True, kw_only=True)
class Line:
    """One MAJOR with its MINORs: the first version, how many updates it had, and what became of it.

    ``live`` are the MINORs that came to serve, the first and the last of them; ``rejected`` the last that was.
    """

    first: Brief
    last_minor: int = 0
    updates: int = 0
    live: tuple[int, int] | None = None
    rejected: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What the evidence of a trial was at one turn."""

    at: int
    rows: int
    mean: float
    lower: float | None
    upper: float | None


@dataclass(slots=True, kw_only=True)
class Trial:
    """The trial of one line against a champion. ``last`` is the gate's last word on it."""

    key: int
    champion: str | None
    begun: int
    last: Verdict
    until: int
    looks: list[Look] = field(default_factory=list)
    stride: int = 1
    seen: int = 0

    @property
    def major(self) -> int:
        """The line that is on trial."""
        return int(self.last.version.partition(".")[0])

    def look(self, look: Look) -> None:
        """Keep a look, and every second of them where they became too many; the newest is always there."""
        if self.looks and (self.seen - 1) % self.stride:
            self.looks.pop()  # the newest so far was kept as the newest alone
        self.looks.append(look)
        self.seen += 1
        if len(self.looks) > LOOKS_KEPT:
            self.looks = [*self.looks[:-1:2], self.looks[-1]]
            self.stride *= 2


@dataclass(slots=True)
class Score:
    """Losses of the labels that were joined while a version served."""

    n: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Their mean; None for none."""
        return self.total / self.n if self.n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Event time in which one version answered, ``[start, end)``; ``end`` None: it still does."""

    version: str
    start: int
    end: int | None
    turn: int
    rows: int


class Stretches:
    """Who answered when, in order and without gaps from the first on; 40 bytes for each change."""

    def __init__(self) -> None:
        self._starts, self._turns, self._rows = array("q"), array("q"), array("q")
        self._majors, self._minors = array("q"), array("q")
        self._newest = -(2**63)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, place: int) -> Stretch:
        place = range(len(self))[place]
        return Stretch(
            version=f"{self._majors[place]}.{self._minors[place]}",
            start=self._starts[place],
            end=self._starts[place + 1] if place + 1 < len(self) else None,
            turn=self._turns[place],
            rows=self._rows[place],
        )

    def take(self, entry: Entry) -> bool:
        """Go on with a turn; says whether another version answers from it on. See ``explain.services``."""
        start = entry.now if entry.rows else max(entry.now, self._newest)
        if entry.segment is not None:
            self._newest = max(self._newest, entry.segment.newest + 1)
        if entry.serving is None:
            return False
        major, minor = map(int, entry.serving.split("."))
        if len(self) and (self._majors[-1], self._minors[-1]) == (major, minor):
            if entry.rows and len(self) == 1 and not self._rows[-1]:  # adopted before any row
                self._starts[-1] = min(self._starts[-1], start)
            self._rows[-1] += entry.rows
            return False
        if len(self):
            start = max(start, self._starts[-1])
        for column, value in (
            (self._starts, start),
            (self._turns, entry.turn),
            (self._rows, entry.rows),
            (self._majors, major),
            (self._minors, minor),
        ):
            column.append(value)
        return True

    def at(self, instant: int) -> Stretch | None:
        """Who answered at an instant; None before the first."""
        place = bisect_right(self._starts, instant) - 1
        return self[place] if place >= 0 else None

    def between(self, low: int, high: int) -> list[Stretch]:
        """Who answered in ``[low, high)``, in order."""
        first = max(bisect_right(self._starts, low) - 1, 0)
        out = []
        for place in range(first, len(self)):
            stretch = self[place]
            if stretch.start >= high:
                break
            if stretch.end is None or stretch.end > low:
                out.append(stretch)
        return out

    def of(self, number: str) -> list[Stretch]:
        """Every stretch of a version, in order."""
        major, minor = map(int, number.split("."))
        theirs = (np.frombuffer(self._majors, np.int64) == major) & (np.frombuffer(self._minors, np.int64) == minor)
        return [self[int(place)] for place in np.flatnonzero(theirs)]


class Chronicle:
    """What was read of a ledger so far. Threads may share one; whoever reads holds :attr:`lock`.

    Parameters
    ----------
    ledger : SqlLedger
        Of the deployment; it is only read.
    """

    def __init__(self, ledger: SqlLedger) -> None:
        self.lock = threading.RLock()
        self.ledger = ledger
        self.turn = -1
        self.now: int | None = None  #: event time of the newest turn
        self.began: int | None = None  #: of the first that brought rows
        self.newest: int | None = None  #: event time of the newest row
        self.closed = False
        self.rows = self.answered = self.joined = self.late = 0
        self.cpu_seconds = 0.0
        self.loss_name = ""
        self.staleness: int | None = None
        self.deciding: tuple[str, ...] = ()
        self.series = {name: Series(None if span is None else micros(span)) for name, span in SPANS.items()}
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.counts: dict[What, int] = {}
        self.lines: dict[int, Line] = {}
        self.versions = 0
        self.briefs: dict[str, Brief] = {}  #: the first of each line, and the newest updates
        self.scores: dict[str, Score] = {}
        self.trials: dict[int, Trial] = {}
        self.stretches = Stretches()
        self.rejections: dict[str, str] = {}
        self.notes: deque[tuple[int, int, str]] = deque(maxlen=50)  #: turn, instant, what was erased
        self.erasures = 0
        self._fired: set[str] = set()  # by the last turn
        self._updates: deque[str] = deque()
        self._learned: dict[str, dict[str, Any]] = {}  # by version: which labels were new to it
        self._changed: list[tuple[int, str]] = []  # turn and version, where another answers from then on
        self._live: deque[tuple[str, int]] = deque(maxlen=CHANGES_ASKED)
        self._passed: dict[str, str] = {}  # by line: why the gate let its last version through
        self._batches: deque[tuple[int, int, int, int]] = deque(maxlen=20_000)  # first row, rows, oldest, newest
        self._labels: deque[tuple[int, str]] = deque(maxlen=_TABLES_ASKED)
        self._delay: tuple[int, float | None] = (-1, None)

    def catch_up(self) -> None:
        """Read the turns that were committed since."""
        with self.lock:
            first = self.turn + 1
            for entry in self.ledger.entries(first):
                self._take(entry)
            if self._changed:
                committed = self.ledger.committed(min(turn for turn, _ in self._changed))
                self._live.extend((number, committed[turn]) for turn, number in self._changed if turn in committed)
                self._changed.clear()

    # -- one turn

    def _take(self, entry: Entry) -> None:
        before = self.stretches[-1] if len(self.stretches) else None
        self.turn, self.now = entry.turn, entry.now if self.now is None else max(self.now, entry.now)
        if entry.rows and self.began is None:
            self.began = entry.now
        self.closed = entry.kind == "close"
        self.rows += entry.rows
        self.answered += entry.rows if entry.serving is not None else 0
        self.joined += entry.loss.n
        self.late += entry.late
        self.cpu_seconds += entry.cpu_seconds
        self.staleness = entry.staleness if entry.staleness is not None else self.staleness
        self.deciding = tuple(decision.reason for decision in entry.decisions) or self.deciding
        if entry.segment is not None:
            segment = entry.segment
            self.newest = segment.newest if self.newest is None else max(self.newest, segment.newest)
            if entry.rows:
                self._batches.append((entry.first, entry.rows, segment.oldest, segment.newest))
        if ERASED in entry.notes:
            self.erasures += 1
        for note in entry.notes:
            if note.endswith(ROWS_ERASED):
                self.notes.append((entry.turn, entry.now, note))
        if entry.labels:
            self._labels.append((entry.turn, entry.labels))
        self._count(entry)
        for saved in entry.versions:
            self._add_version(entry, saved)
        self._tell_triggers(entry)
        for verdict in entry.verdicts:
            self._hear(entry, verdict)
        if self.stretches.take(entry):
            self._tell_change(entry, before)
        if entry.quarantined:
            self._tell(entry, "quarantined", None, entry.quarantined)

    def _count(self, entry: Entry) -> None:
        updates = sum(saved.version.kind == "update" for saved in entry.versions)
        for series in self.series.values():
            bucket = series.at(entry.now)
            bucket.rows += entry.rows
            bucket.updates += updates
            if entry.staleness is not None:
                bucket.staleness = entry.staleness
            if entry.loss.n:
                bucket.scored += entry.loss.n
                bucket.loss += entry.loss.total
        if entry.loss.n:
            self.loss_name = entry.loss.name
            if entry.serving is not None:
                score = self.scores.setdefault(entry.serving, Score())
                score.n += entry.loss.n
                score.total += entry.loss.total

    def _tell(self, entry: Entry, what: What, version: str | None, reason: str, actor: str = "run") -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        event = Event(turn=entry.turn, at=entry.now, what=what, version=version, reason=reason, actor=actor)
        self.events.append(event)

    def _tell_triggers(self, entry: Entry) -> None:
        """What fired and trained nothing; that which trained is the reason of a version."""
        fired = [decision.reason for decision in entry.decisions if decision.fire and entry.kind != "operator"]
        trained = {saved.version.reason for saved in entry.versions}
        for reason in fired:
            if reason not in trained and reason not in self._fired:  # one that waits for its turn fires again and again
                self._tell(entry, "trigger", None, reason)
        self._fired = set(fired)

    def _add_version(self, entry: Entry, saved: Saved) -> None:
        version = saved.version
        brief = Brief(
            number=version.number, major=version.major, minor=version.minor, parent=version.parent, kind=version.kind,
            at=version.at, turn=entry.turn, rows=version.trained_rows, reason=version.reason,
            cpu_seconds=saved.cpu_seconds, size=saved.size,
        )  # fmt: skip
        self.versions += 1
        self._learned[brief.number] = saved.facts.get("labels") or {}
        if len(self._learned) > 4 * CHANGES_ASKED:
            del self._learned[next(iter(self._learned))]
        self.briefs[brief.number] = brief
        line = self.lines.get(version.major)
        if line is None:
            self.lines[version.major] = Line(first=brief, last_minor=version.minor)
            self._tell(entry, "trained", brief.number, brief.reason)
            return
        line.updates += version.steps
        line.last_minor = version.minor
        self._updates.append(brief.number)
        while len(self._updates) > UPDATES_KEPT:
            self._forget(self._updates.popleft())

    def _forget(self, number: str) -> None:
        """Keep no more than sums of an update that is long past."""
        del self.briefs[number]
        major, minor = map(int, number.split("."))
        line = self.lines[major]
        if line.live is None or minor not in line.live:
            self.scores.pop(number, None)
        self.rejections.pop(number, None)

    def _hear(self, entry: Entry, verdict: Verdict) -> None:
        line = verdict.version.partition(".")[0]
        if verdict.outcome == "promote":
            self._passed[line] = verdict.reason
        if verdict.outcome == "reject":
            self._tell(entry, "rejected", verdict.version, verdict.reason)
            self.rejections[verdict.version] = verdict.reason
            major, minor = map(int, verdict.version.split("."))
            if major in self.lines:
                self.lines[major].rejected = minor
        number = verdict.evidence.get("trial")
        if number is None:
            return
        trial = self.trials.get(number)
        if trial is None:
            trial = Trial(key=number, champion=verdict.champion, begun=entry.now, last=verdict, until=entry.now)
            self.trials[number] = trial
            if len(self.trials) > TRIALS_KEPT:
                del self.trials[min(self.trials)]
        if "rows" in verdict.evidence or "rows" not in trial.last.evidence:
            trial.last = verdict
        trial.until = entry.now
        mean = verdict.evidence.get("mean")
        if mean is not None:
            facts: Any = verdict.evidence
            trial.look(Look(entry.now, facts["rows"], mean, facts["lower"], facts["upper"]))

    def _tell_change(self, entry: Entry, before: Stretch | None) -> None:
        """Another version answers now: an update of the same line that nobody judged is counted and not told."""
        assert entry.serving is not None
        self._changed.append((entry.turn, entry.serving))
        major, minor = map(int, entry.serving.split("."))
        line = self.lines.get(major)
        if line is not None:
            line.live = (line.live[0] if line.live else minor, minor)
        now, old = (major, minor), None if before is None else tuple(map(int, before.version.split(".")))
        back = old is not None and now < old
        if entry.kind == "operator":
            word = next((decision.reason for decision in entry.decisions if decision.fire), "")
            self._tell(entry, "rolled back" if back else "promoted", entry.serving, word, "operator")
        elif back:
            assert before is not None
            turned_down = [verdict.reason for verdict in entry.verdicts if verdict.outcome == "reject"]
            self._tell(entry, "rolled back", entry.serving, [*turned_down, f"back from {before.version}"][0])
        elif old is None or old[0] != major or any(v.evidence for v in entry.verdicts if v.outcome == "promote"):
            reason = self._passed.get(str(major)) or (line.first.reason if line is not None else "")
            self._tell(entry, "promoted", entry.serving, reason)

    # -- what is asked

    @property
    def serving(self) -> str | None:
        """The version that answers after the newest turn."""
        return self.stretches[-1].version if len(self.stretches) else None

    def label_to_live(self) -> float | None:
        """The median time from when a label was received to when a version that learned it answers, in seconds."""
        with self.lock:
            return median_to_live(self._learned, list(self._live))

    def label_delay(self) -> float | None:
        """The median time from a row to its label, in seconds, of the labels that came last; None before the first."""
        with self.lock:
            if self._delay[0] == self.turn:
                return self._delay[1]
            turn, wanted, batches = self.turn, list(self._labels), list(self._batches)
        delays = _delays(self.ledger, wanted, batches)
        median = float(np.median(delays)) / 1e6 if len(delays) else None
        with self.lock:
            self._delay = (turn, median)
        return median


def _delays(ledger: SqlLedger, wanted: list[tuple[int, str]], batches: list[tuple[int, int, int, int]]) -> Any:
    """Label delays of the labels in these tables, in microseconds.

    A row's event time is taken from where it lies between the oldest and the newest of its batch.
    """
    from perennial.production import tables

    if not batches:
        return np.empty(0)
    first, rows, oldest, newest = np.array(batches, dtype=np.int64).T
    out = []
    for _, digest in wanted:
        try:
            table = tables.from_bytes(ledger.get(digest))
        except PerennialError:  # erased meanwhile
            continue
        row, known_at = table.column("row").to_numpy(), table.column("known_at").to_numpy()
        place = np.searchsorted(first, row, side="right") - 1
        fits = (place >= 0) & ~table.column("revised").to_numpy(zero_copy_only=False)
        place, row, known_at = place[fits], row[fits], known_at[fits]
        share = (row - first[place]) / np.maximum(rows[place] - 1, 1)
        out.append(known_at - (oldest[place] + np.clip(share, 0, 1) * (newest[place] - oldest[place])))
    return np.concatenate(out) if out else np.empty(0)


def moves_of(moves: list[Alias], number: str) -> list[dict[str, Any]]:
    """Every move of ``champion`` to a version and away from it, oldest first."""
    out: list[dict[str, Any]] = []
    for before, move in zip([None, *moves], moves, strict=False):
        if number in (move.version, before.version if before is not None else None):
            what = "became champion" if move.version == number else f"gave way to {move.version}"
            out.append({"at": move.at, "what": what, "actor": move.actor, "reason": move.reason})
    return out
