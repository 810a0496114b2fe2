"""The last checkpoint, for those who read and take no turns."""

from __future__ import annotations

from typing import Any

from perennial.core.errors import LedgerError
from perennial.core.state import State
from perennial.ledger.errors import MissingBlob
from perennial.ledger.sql import SqlLedger
from perennial.production.deployment import Deployment
from perennial.stream.intake import Intake


def last(ledger: SqlLedger) -> State:
    """The state after the last turn, without models.

    Raises
    ------
    LedgerError
        If no turn was taken yet, or its bytes are gone.
    FormatError
        If a newer release wrote it.
    """
    while True:
        head = ledger.head()
        if head.turn < 0:
            raise LedgerError(f"{ledger.deployment!r} has taken no turn yet: start it with  perennial run")
        try:
            return State.from_bytes(ledger.get(head.checkpoint), {})
        except MissingBlob:
            if ledger.head().turn == head.turn:  # else a run went on meanwhile, and dropped it
                raise


def restored(deployment: Deployment, state: State) -> Intake:
    """An intake that stands where a state says: for its words and its schema, and to look at the source.

    Raises
    ------
    LedgerError
        If the deployment was begun with other settings.
    """
    if (fault := other_settings(deployment, state)) is not None:
        raise LedgerError(f"{fault}: go back to them")
    intake = Intake(deployment.stream, deployment.learner.task)
    intake.restore(state.part("intake"))
    return intake


def adopted(ledger: SqlLedger) -> dict[str, Any]:
    """What the ledger says of the model that was adopted; empty if the deployment began otherwise."""
    return next((saved.facts["adopted"] for saved in ledger.versions() if saved.version.kind == "adopt"), {})


def other_settings(deployment: Deployment, state: State) -> str | None:
    """What is to be said if a deployment's settings are not those that it was begun with."""
    before, now = state.plain["run"]["identity"], deployment.identity()
    changed = [part for part in now if before.get(part) != now[part]]
    if not changed:
        return None
    return f"deployment {deployment.name!r} was begun with other settings: its {' and its '.join(changed)} changed"
