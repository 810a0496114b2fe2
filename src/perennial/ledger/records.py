"""What a durable ledger takes and gives: frozen records, no database in sight.

Instants are microseconds since 1970-01-01 UTC. A digest is the SHA-256, in hex, of the bytes it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from perennial.core.records import Decision, Loss, Verdict, Version, WaitingChanges

AliasName = Literal["champion", "challenger", "previous"]
ALIASES: tuple[AliasName, ...] = ("champion", "challenger", "previous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to take turns. ``token`` grows with every holder; a commit under an old one is refused."""

    holder: str
    token: int
    ttl: timedelta = timedelta(0)  #: how long an acquisition lasts, and so a renewal


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a deployment stands: the last committed turn, and what the next one was fixed to be.

    Parameters
    ----------
    turn : int
        Index of the last turn; -1 before the first.
    position : str
        Source position after it, opaque; ``""`` before the first.
    checkpoint : str
        Digest of the state after it; ``""`` before the first.
    intent : str
        Bounds of the next turn, fixed before its training; ``""`` if none are.
    """

    turn: int
    position: str
    checkpoint: str
    intent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A version with what was kept of it.

    Parameters
    ----------
    version : Version
        The version.
    blob : str
        Digest of the saved model.
    state : str
        The learner's state digest: equal for equal learned states.
    size : int
        Bytes of the saved model.
    golden : str
        Digest of the golden inputs and predictions that the saved model gave back; ``""`` if there are none.
    cpu_seconds : float
        What training it cost.
    facts : mapping
        Plain data besides, for ``explain`` and ``reproduce``: the learner's name and identity, the window in words.
    """

    version: Version
    blob: str
    state: str
    size: int
    golden: str = ""
    cpu_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Rows of one turn in the store, ``[first, first + rows)``; some may be blank: erased, or they wait no more."""

    digest: str
    first: int
    rows: int
    oldest: int
    newest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """A pointer that moves, as a compare-and-set on its generation.

    ``version`` None takes the alias away. ``actor`` is ``"run"``, or who asked. ``canary`` and ``shadow`` are the
    challenger's: the share of requests that it answers, and of those that it is asked about beside the champion.
    """

    alias: AliasName
    version: str | None
    generation: int
    reason: str
    actor: str = "run"
    at: int = 0
    canary: float = 0.0
    shadow: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Where a pointer points. ``generation`` is 0, and ``version`` None, before it was first set.

    ``canary`` and ``shadow`` as in :class:`AliasChange`; 0 for every pointer but the challenger.
    """

    alias: AliasName
    version: str | None
    generation: int
    reason: str = ""
    actor: str = ""
    at: int = 0
    canary: float = 0.0
    shadow: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One turn as the ledger keeps it, whole: it is committed in one transaction, or it did not happen.

    Parameters
    ----------
    turn : int
        Index; one more than the head's.
    kind : {"batch", "tick", "close", "operator"}
        What the turn was given.
    now, first, rows : int
        The instant, the position of its first row, the number of its rows.
    position : str
        Source position after it.
    checkpoint : str
        Digest of the state after it.
    serving : str or None
        The version that predicted its rows.
    loss : Loss
        Of the labels that were joined.
    decisions, verdicts, versions
        What was decided, judged and trained, in order.
    scores : mapping of str to (n, total)
        Sums of pointwise losses, by name, of what ``serving`` had predicted.
    segment : Segment, optional
        The rows that the turn brought to the store.
    thinned : tuple of Segment
        Segments of rows that came before, with some of them blank now: they take the place of released ones.
    released : tuple of str
        Segments that nothing needs any more.
    predictions, labels : str
        Digests of Arrow tables: what was predicted, which labels were joined; ``""`` for none.
    aliases : tuple of AliasChange
        Pointers that move with this turn.
    quarantined, late, staleness, notes
        As in :class:`~perennial.core.records.Turn`.
    cpu_seconds : float
        Of training and prediction.
    waiting : WaitingChanges, optional
        What it changes among the rows that wait for a label of a log. It is not read back: the rows are.
    """

    turn: int
    kind: Literal["batch", "tick", "close", "operator"]
    now: int
    first: int
    rows: int
    position: str
    checkpoint: str
    serving: str | None = None
    loss: Loss = field(default_factory=Loss)
    decisions: tuple[Decision, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    versions: tuple[Saved, ...] = ()
    scores: dict[str, tuple[int, float]] = field(default_factory=dict)
    segment: Segment | None = None
    thinned: tuple[Segment, ...] = ()
    released: tuple[str, ...] = ()
    predictions: str = ""
    labels: str = ""
    aliases: tuple[AliasChange, ...] = ()
    quarantined: str | None = None
    late: int = 0
    staleness: int | None = None
    notes: tuple[str, ...] = ()
    cpu_seconds: float = 0.0
    waiting: WaitingChanges | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Some rows of a file that was predicted apart from the stream, in order.

    ``number`` counts the files of the deployment from 1, ``part`` the parts of a file from 0. ``predictions`` is the
    digest of what was said, by digests of ids; ``at`` when it was logged, by the database's clock.
    """

    number: int
    part: int
    version: str
    at: int
    file: str
    rows: int
    predictions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that ``doctor`` found: what is wrong, whether mending it is safe, and whether that was done."""

    what: str
    safe: bool
    mended: bool = False
