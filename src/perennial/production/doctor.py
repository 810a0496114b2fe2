"""Whether a deployment could go on from what its ledger holds: findings, and what was mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from perennial.core.state import State
from perennial.ledger.records import ALIASES, Finding, Lease
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint
from perennial.production.deployment import Deployment
from perennial.production.operate import broken
from perennial.production.run import Run
from perennial.production.service import leased
from perennial.stream.intake import Intake


def examine(deployment: Deployment, ledger: SqlLedger) -> list[Finding]:
    """What is wrong: in the ledger, the settings, the last checkpoint, the models that aliases name, the source.

    Reads only. Beside a run that is going on, bytes that it is about to name look like leftovers, which are safe.
    """
    return [*ledger.check(), *_beyond(deployment, ledger)]


def repair(deployment: Deployment, ledger: SqlLedger, holder: str, ttl: timedelta) -> list[Finding]:
    """Mend what is safe to mend, the leftovers, under the lease; what was mended, then what is still wrong.

    Raises
    ------
    LeaseHeld
        If a run holds the lease and goes on.
    """
    done: list[Finding] = []

    def hear(event: str, facts: dict[str, Any]) -> None:
        if event == "collected":
            done.append(Finding(what=f"{facts['blob']} was kept, and no turn names it", safe=True, mended=True))

    with leased(ledger, holder, ttl, hear) as lease:
        return [*done, *ledger.mend(lease), *_beyond(deployment, ledger)]


def sound(findings: list[Finding]) -> bool:
    """Whether nothing unsafe was found: a deployment may go on beside leftovers."""
    return all(finding.safe or finding.mended for finding in findings)


def _beyond(deployment: Deployment, ledger: SqlLedger) -> Iterator[Finding]:
    """What the ledger cannot know of itself."""
    yield from _models(deployment, ledger)
    if ledger.head().turn < 0:
        return
    state: State | None = None
    with _finding("the last checkpoint cannot be read") as wrong:
        state = checkpoint.last(ledger)
    yield from wrong
    if state is None:
        return
    if (fault := checkpoint.other_settings(deployment, state)) is not None:
        yield Finding(what=f"{fault}: go back to them, or give the new ones a name of their own", safe=False)
        return
    yield from _goes_on(deployment, ledger)
    yield from _source(deployment, state)


def _models(deployment: Deployment, ledger: SqlLedger) -> Iterator[Finding]:
    """Every model that an alias names loads, and predicts its golden rows as it did."""
    for name in ALIASES:
        number = ledger.alias(name).version
        if number is None:
            continue
        fault: str | None = None
        with _finding(f"{name} {number} is not there") as wrong:
            fault = broken(ledger, deployment, ledger.version(number))
        yield from wrong
        if fault is not None:
            yield Finding(what=f"{name} {number}: {fault}", safe=False)


def _goes_on(deployment: Deployment, ledger: SqlLedger) -> Iterator[Finding]:
    """A run could be made from the last checkpoint, with every row and model that it names. It takes no turn."""
    nobody = Lease(holder="", token=-1)  # no turn can be written with it
    turn = ledger.head().turn
    with _finding("no run can go on from the last checkpoint") as wrong:
        Run(deployment, ledger, nobody)
    if wrong and ledger.head().turn != turn:  # a run went on meanwhile, and let go of what was read
        yield from _goes_on(deployment, ledger)
        return
    yield from wrong


def _source(deployment: Deployment, state: State) -> Iterator[Finding]:
    """The source still holds what was read, and what comes behind it can be read."""
    with _finding("the source") as wrong:
        intake = Intake(deployment.stream, deployment.learner.task)
        intake.restore(state.part("intake"))
        intake.refresh()
        bounds = intake.look()
        intake.look_at_log(bounds.start if bounds is not None else intake.newest)
    yield from wrong


@contextmanager
def _finding(what: str) -> Iterator[list[Finding]]:
    """An error inside becomes a finding."""
    out: list[Finding] = []
    try:
        yield out
    except Exception as error:  # a checkpoint or a model that is damaged may raise anything: that is the finding
        out.append(Finding(what=f"{what}: {error}", safe=False))
