"""Where an inbox stands: what came to each of its logs, and what no turn has taken yet."""

from __future__ import annotations

import json
from dataclasses import dataclass

from perennial.ledger.sql import SqlLedger
from perennial.stream import inbox_index
from perennial.stream.feed import Position
from perennial.stream.inbox import Inbox, Which
from perennial.stream.ingest import IngestLog, held

HOUR = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One log.

    Parameters
    ----------
    came, last_hour : int
        Rows that were ever written to it, and in the last hour.
    waiting : int or None
        Rows that no turn has taken; None where nobody says how far it was read.
    oldest : int or None
        When the oldest of these, or of all that are kept, was appended.
    """

    came: int = 0
    last_hour: int = 0
    waiting: int | None = None
    oldest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The three logs of an inbox; of one that is not there nothing came."""

    rows: Flow = Flow()
    labels: Flow = Flow()
    feedback: Flow = Flow()


def standing(inbox: Inbox, ledger: SqlLedger | None, now: int) -> Standing:
    """Where an inbox stands ``now``, for a page to show; ``ledger`` says how far rows were taken.

    Raises
    ------
    SourceAway
        If the database cannot be reached.
    """
    position = "" if ledger is None else ledger.head().position
    taken = Position.from_plain(json.loads(position)) if position else Position()
    return Standing(
        rows=_flow(inbox, "rows", now, taken),
        labels=_flow(inbox, "labels", now),
        feedback=_flow(inbox, "feedback", now),
    )


def _flow(inbox: Inbox, which: Which, now: int, taken: Position | None = None) -> Flow:
    found = held(inbox.url(which), 0 if taken is None else taken.rows)
    if found is None:
        return Flow()
    # the run takes labels with its turns, and the ledger says of rows alone how far; without `keep` what is left waits
    waits = found.rows if taken is not None or not inbox.keep else None
    with IngestLog.open(inbox.url(which)) as log:
        hour = inbox_index.arrived(log, now - HOUR)
    return Flow(came=found.came, last_hour=sum(hour.values()), waiting=waits, oldest=found.oldest)
