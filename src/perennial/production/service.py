"""A run as a process has it: its lease kept, its mode, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Literal, final

from perennial.core.errors import LedgerError
from perennial.core.failpoints import reach
from perennial.ledger.errors import LeaseHeld, LeaseLost, StorageError
from perennial.ledger.records import Lease
from perennial.ledger.sql import SqlLedger
from perennial.production.deployment import Deployment
from perennial.production.run import Run, Tell
from perennial.stream.feed import SourceAway

Mode = Literal["once", "until-end", "follow"]

_EXAMPLES = (
    "nothing says yet what rows hold: push labelled rows,  perennial push FILE,  or give the columns and the label,  "
    "stream: {columns: {age: number, job: text, ...}}"
)

RETRIES = 8  #: failures of the storage in a row until a run gives up: about two minutes


@final
class _Keeper:
    """Renews a lease in the background while turns are taken: a training may be longer than the lease."""

    def __init__(self, ledger: SqlLedger, lease: Lease, ttl: timedelta) -> None:
        self._ledger, self._lease, self._ttl = ledger, lease, ttl
        self._stop = threading.Event()
        self.lost: LedgerError | None = None
        self._thread = threading.Thread(target=self._keep, name="perennial-lease", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._stop.wait(self._ttl.total_seconds() / 3):
            try:
                self._ledger.renew(self._lease, self._ttl)
            except LeaseLost as error:
                self.lost = error
                return
            except LedgerError:  # the database may be back before the lease runs out; a commit will say if not
                continue

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def _acquired(ledger: SqlLedger, holder: str, ttl: timedelta, wait: Callable[[float], None], tell: Tell) -> Lease:
    try:
        return ledger.acquire(holder, ttl)
    except LeaseHeld as held:  # its holder may be dead: then it runs out, and is ours
        facts = {"deployment": ledger.deployment, "holder": held.holder, "seconds": round(held.remaining, 1)}
        tell("waiting", facts)
        wait(held.remaining + 0.2)
        return ledger.acquire(holder, ttl)


@contextmanager
def leased(
    ledger: SqlLedger, holder: str, ttl: timedelta, tell: Tell, wait: Callable[[float], None] = time.sleep
) -> Iterator[Lease]:
    """The right to take turns, renewed until the block ends; leftovers of an earlier holder are removed first.

    Who finds it taken waits until it would run out, once: a holder that was killed does not renew it, one that lives
    does.

    Raises
    ------
    LeaseHeld
        If somebody else has it.
    """
    lease = _acquired(ledger, holder, ttl, wait, tell)
    reach("lease.acquired")
    keeper = _Keeper(ledger, lease, ttl)
    try:
        for gone in ledger.collect(lease):
            tell("collected", {"deployment": ledger.deployment, "blob": gone})
        yield lease
    finally:
        keeper.close()
        if keeper.lost is None:
            with suppress(LedgerError):  # it runs out by itself
                ledger.release(lease)


def keep_current(
    deployment: Deployment,
    ledger: SqlLedger,
    lease: Lease,
    *,
    mode: Mode,
    stopped: Callable[[], bool],
    wait: Callable[[float], None],
    clock: Callable[[], datetime],
    poll: float = 5.0,
    tell: Tell,
) -> int:
    """Take turns until the mode's end, or until ``stopped`` says so; gives how many were taken.

    Parameters
    ----------
    deployment, ledger, lease, tell
        As for :class:`~perennial.production.run.Run`.
    mode : {"once", "until-end", "follow"}
        Take what is whole and end; take all there is, the last batch too, and close; or go on for ever.
    stopped : callable
        Asked between turns.
    wait : callable
        Waits so many seconds, or until stopped.
    clock : callable
        The time now, for labels and schedules on an idle stream.
    poll : float
        Seconds between looks at the source.

    Raises
    ------
    LeaseLost
        If another process took over.
    DataError
        If the source breaks a rule; turns before stand, and the next run begins where it breaks.
    LedgerError
        If the ledger cannot be used, and waiting did not help.
    """
    before, failures = ledger.head().turn, 0
    run: Run | None = None
    told = False
    while not stopped():
        try:
            if run is None and not deployment.begun():
                if not told:
                    tell("waiting for examples", {"deployment": deployment.name, "note": _EXAMPLES})
                    told = True
                if mode != "follow":
                    break
                wait(poll)
                continue
            if run is None:
                if failures:  # it may have run out while nobody could take it over; LeaseLost if somebody did
                    ledger.renew(lease, lease.ttl)
                run = Run(deployment, ledger, lease, tell)
            if run.step(to_the_end=mode == "until-end"):
                failures = 0
                continue
            if mode == "until-end":
                run.close()
                if not run.closed:  # an operator was quicker: heed them, then close
                    continue
            if mode != "follow":
                break
            if not run.refresh() and not run.idle(clock()):
                wait(poll)
        except (StorageError, SourceAway) as error:
            failures += 1
            if failures > RETRIES:  # a full or read-only disk is waited for as well: somebody may be making room
                raise
            pause = min(0.5 * 2**failures, 30.0)
            tell(
                "retrying", {"deployment": deployment.name, "error": str(error), "seconds": pause, "failure": failures}
            )
            wait(pause)
            run = None  # what was taken in memory and is not durable is taken again
    return ledger.head().turn - before
