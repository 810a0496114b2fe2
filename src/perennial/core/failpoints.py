"""Named places at which a test kills the process: what is durable there is what a crash leaves.

``PERENNIAL_FAILPOINT=commit.before`` kills with SIGKILL at the first such place, ``commit.before:3`` at the third.
Several are separated by commas, and the first that is reached kills. Unset, which it is in production, a place costs
one look at a module variable.
"""

from __future__ import annotations

import os
import signal

#: every place, with what is durable there; tests kill at each of them
NAMES: dict[str, str] = {
    "recover.before": "a process took over and has read nothing yet",
    "recover.after": "the state of the last turn was read back",
    "lease.acquired": "the lease is taken, and nothing of the last holder's leftovers is removed",
    "orphan.removed": "one blob that no turn names was removed",
    "intent.before": "rows were read, and the turn's bounds are not fixed yet",
    "intent.after": "the turn's bounds are fixed, and nothing was trained",
    "turn.after": "the turn was taken in memory, and nothing of it is durable",
    "blob.part": "a blob was written under a temporary name, and is not synced",
    "blob.synced": "a blob is synced under its temporary name",
    "blob.renamed": "a blob has its name, and its folder is not synced",
    "blob.after": "a blob is durable, and no turn names it",
    "commit.before": "all blobs of a turn are durable, and the transaction has not begun",
    "commit.inside": "the transaction has everything, and is not committed",
    "commit.after": "the turn is committed, and nobody was told",
}


_left: dict[str, int] = {}


def arm(places: str) -> None:
    """Set where to die, as ``PERENNIAL_FAILPOINT`` does at import; raises ``ValueError`` for what is no failpoint."""
    _left.clear()
    for word in filter(None, places.split(",")):
        name, _, count = word.partition(":")
        if name not in NAMES:
            raise ValueError(f"{name!r} is no failpoint: use one of {sorted(NAMES)}")
        _left[name] = int(count or 1)


arm(os.environ.get("PERENNIAL_FAILPOINT", ""))


def reach(name: str) -> None:
    """Die here, if a test asked for it."""
    if name in _left:
        _left[name] -= 1
        if not _left[name]:
            os.kill(os.getpid(), signal.SIGKILL)
