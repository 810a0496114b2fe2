"""An operator's word: which version answers from the next turn on, and what a challenger gets of the requests.

A word is a move of two pointers in one transaction, ``champion`` to the version and ``previous`` to the one that was
champion. It needs no lease. A run that is going on heeds it at the beginning of its next turn, and records that as a
turn of its own; one that is taking a turn finishes it, or takes it again behind the word where it moves the champion
too.
"""

from __future__ import annotations

from dataclasses import dataclass

from perennial.core.errors import ConfigError, LedgerError
from perennial.gate import Gate
from perennial.learners.golden import reproduces_set
from perennial.ledger.errors import MissingBlob, UnknownVersion
from perennial.ledger.records import ALIASES, Alias, AliasChange, Saved
from perennial.ledger.sql import SqlLedger
from perennial.production.deployment import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What an operator did: ``version`` is champion now, ``left`` was before and is ``previous`` now.

    ``closed``: the deployment was run to its end, so that no row comes that it could answer.
    """

    version: str
    left: str | None
    reason: str
    actor: str
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What an operator did: ``version``, the challenger, answers ``canary`` of the requests, ``shadow`` unseen."""

    version: str
    canary: float
    shadow: float
    reason: str
    actor: str


def numbered(ledger: SqlLedger, version: str) -> str:
    """The number of a version that is named by its number or by a pointer: champion, challenger or previous.

    Raises
    ------
    UnknownVersion
        If nothing is pointed at. Whether there is a version of a number is not looked up.
    """
    for name in ALIASES:
        if version == name:
            number = ledger.alias(name).version
            if number is None:
                raise UnknownVersion(f"{ledger.deployment!r} has no {name} now: see  perennial versions")
            return number
    return version


def promote(ledger: SqlLedger, deployment: Deployment, number: str, *, actor: str, reason: str = "") -> Moved:
    """Make a version champion, whatever the gate says.

    Its model is loaded and held against its golden predictions first: a run could not go on with one that is broken.

    Parameters
    ----------
    ledger : SqlLedger
        Of the deployment.
    deployment : Deployment
        What loads the model.
    number : str
        The version, ``"MAJOR.MINOR"``.
    actor, reason : str
        Who, and why; recorded.

    Raises
    ------
    UnknownVersion
        If there is no such version; suggests the nearest.
    ConfigError
        If it is champion already.
    LedgerError, FormatError
        If its model cannot be read, or predicts otherwise than it did.
    AliasMoved
        If somebody moved a pointer at the same time: nothing was done.
    """
    saved = ledger.version(number)
    champion = ledger.alias("champion")
    if champion.version == number:
        raise ConfigError("version", number, "it is champion already: see  perennial versions")
    return _move(ledger, deployment, saved, champion, ledger.alias("previous"), actor=actor, reason=reason)


def rollback(ledger: SqlLedger, deployment: Deployment, *, actor: str, reason: str = "") -> Moved:
    """Make the version before the champion champion again: one step.

    ``previous`` then points to the version that was left, so that a second roll back goes forward again to where it
    was. To go further back, name the version: :func:`promote`.

    Raises
    ------
    LedgerError
        If there was no champion before; else as :func:`promote`.
    """
    champion, previous = ledger.alias("champion"), ledger.alias("previous")
    if previous.version is None or previous.version == champion.version:
        now = f"{champion.version} is the only one there was" if champion.version else "there is none yet"
        raise LedgerError(
            f"{ledger.deployment!r} has no champion to go back to ({now}): name a version,  perennial promote"
        )
    saved = ledger.version(previous.version)
    told = reason or f"roll back from {champion.version}"
    return _move(ledger, deployment, saved, champion, previous, actor=actor, reason=told)


def share(
    ledger: SqlLedger,
    deployment: Deployment,
    *,
    canary: float | None = None,
    shadow: float | None = None,
    actor: str,
    reason: str = "",
) -> Shared:
    """Give the challenger another share of the requests that are served; servers heed it at their next look.

    The version stays what it is, and with it the trial. The share is gone when the trial ends.

    Parameters
    ----------
    ledger : SqlLedger
        Of the deployment.
    deployment : Deployment
        With its gate.
    canary, shadow : float, optional
        The share of requests that the challenger answers, and of those that both are asked about, from 0 to 1; as they
        are unless given.
    actor, reason : str
        Who, and why; recorded.

    Raises
    ------
    ConfigError
        If a share is none, or nothing is ever held back: there is no gate, or it serves challengers at once.
    LedgerError
        If no challenger is on trial now.
    AliasMoved
        If the pointer was moved at the same time: nothing was done.
    """
    gate = deployment.gate
    mode = gate.mode if isinstance(gate, Gate) else "none"
    field, given = ("canary", canary) if canary is not None else ("shadow", shadow)
    if mode != "before":
        raise ConfigError(
            f"gate.{field}", given,
            f"gate mode {mode!r} holds no challenger back: a share of the requests needs mode 'before'",
        )  # fmt: skip
    before = ledger.alias("challenger")
    if before.version is None:
        raise LedgerError(
            f"{ledger.deployment!r} has no challenger on trial now: gate.{field} in the configuration is for the next"
        )
    change = AliasChange(
        alias="challenger", version=before.version, generation=before.generation, actor=actor, at=before.at,
        reason=reason or before.reason, canary=before.canary if canary is None else canary,
        shadow=before.shadow if shadow is None else shadow,
    )  # fmt: skip
    made = ledger.set_alias(change)
    return Shared(version=before.version, canary=made.canary, shadow=made.shadow, reason=made.reason, actor=made.actor)


def _move(
    ledger: SqlLedger,
    deployment: Deployment,
    saved: Saved,
    champion: Alias,
    previous: Alias,
    *,
    actor: str,
    reason: str,
) -> Moved:
    number = saved.version.number
    fault = broken(ledger, deployment, saved)
    if fault is not None:
        raise LedgerError(f"{number} cannot be made champion, {fault}: choose another, and see  perennial doctor")
    # event time, as the run's own moves have it: what is asked of the past then agrees with who served
    now, closed = saved.version.at, False
    for entry in ledger.entries():
        now, closed = max(now, entry.now), closed or entry.kind == "close"
    changes = [AliasChange(
        alias="champion", version=number, generation=champion.generation, reason=reason, actor=actor, at=now
    )]  # fmt: skip
    if champion.version is not None:
        changes.append(AliasChange(
            alias="previous", version=champion.version, generation=previous.generation, reason=reason, actor=actor,
            at=now,
        ))  # fmt: skip
    ledger.set_aliases(changes)
    return Moved(version=number, left=champion.version, reason=reason, actor=actor, closed=closed)


def broken(ledger: SqlLedger, deployment: Deployment, saved: Saved) -> str | None:
    """What is wrong with a version's saved model; None if it loads and says what it said before it was saved.

    A golden set that was erased with a subject, or lost, is no fault of the model: ``ledger.check`` tells the latter.
    """
    try:
        model = deployment.load(ledger.get(saved.blob))
        golden = _golden(ledger, saved)
        if golden and not reproduces_set(model, golden):
            return "its model predicts otherwise than when it was saved"
    except Exception as error:  # whatever a framework raises on a model that it cannot use
        return f"its model cannot be used: {error}"
    return None


def _golden(ledger: SqlLedger, saved: Saved) -> bytes:
    try:
        return ledger.get(saved.golden) if saved.golden else b""
    except MissingBlob:
        return b""
