"""What commands on a deployment share: its configuration, its ledger, its lease, and who gives the word.

Heavy modules are imported inside, as in commands.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.core.errors import ConfigError

if TYPE_CHECKING:
    from perennial.config import Loaded
    from perennial.ledger.records import Lease
    from perennial.ledger.sql import SqlLedger
    from perennial.production import Deployment
    from perennial.production.run import Tell


def load(config: Path) -> Loaded:
    """The configuration; what it names as source may be away, which is when an operator is needed most."""
    from perennial.config import load

    return replace(load(config), reads=False)


@contextmanager
def reading(loaded: Loaded) -> Iterator[SqlLedger]:
    """The ledger of a configuration, which must be there; what the deployment turns out to lack has its line."""
    from perennial.config.deploying import place
    from perennial.ledger.sql import SqlLedger

    name, url, blobs = place(loaded)
    try:
        with SqlLedger.open(url, name, blobs=blobs, create=False) as ledger:
            yield ledger
    except ConfigError as error:
        raise loaded.placed(error) from error


@contextmanager
def leased(
    loaded: Loaded, deployment: Deployment, *, seconds: float = 30.0, create: bool = True, tell: Tell | None = None
) -> Iterator[tuple[SqlLedger, Lease]]:
    """The ledger of a deployment and the right to write to it, given for so many seconds and renewed meanwhile.

    What the deployment turns out to lack has its line.
    """
    from perennial.ledger.sql import SqlLedger
    from perennial.production.run import silent
    from perennial.production.service import leased

    where, name, blobs = deployment.ledger, deployment.name, deployment.blobs
    try:
        with (
            SqlLedger.open(where, name, blobs=blobs, create=create, forgets=deployment.forgets) as ledger,
            leased(ledger, holder(), timedelta(seconds=seconds), tell or silent) as lease,
        ):
            yield ledger, lease
    except ConfigError as error:
        raise loaded.placed(error) from error


def one_thread() -> Any:
    """As a run trains: sums of several threads depend on how many there are."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def holder() -> str:
    """This process, as the one that has a lease."""
    return f"{socket.gethostname()}:{os.getpid()}"


def actor() -> str:
    """Who gives the word, as the ledger keeps it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
