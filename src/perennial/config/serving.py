"""What ``source: serve`` stands for: where the inbox is, how long it keeps what was taken, and what its rows hold."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from perennial.config.deploying import ledger_of, name_of
from perennial.config.records import Config
from perennial.core.records import TaskKind
from perennial.stream.inbox import INSTANT, Inbox
from perennial.stream.sql import moved

#: how long the inbox keeps what a run took, where `retention` does not say
KEEP = timedelta(days=30)

_TYPES = {
    "number": pa.float64(), "integer": pa.int64(), "text": pa.string(), "boolean": pa.bool_(), "time": INSTANT,
}  # fmt: skip


def inbox_of(config: Config, folder: Path) -> Inbox:
    """The inbox of a deployment: where `serve.inbox` says, else beside an SQLite ledger or in its database."""
    ledger = ledger_of(config, folder)
    if config.serve.inbox is not None:
        database = moved(config.serve.inbox, lambda path: str(folder / path))
    elif ledger.startswith("sqlite:"):
        database = moved(ledger, lambda path: str(Path(path).parent / "inbox.db"))
    else:
        database = ledger
    keep = config.retention if isinstance(config.retention, timedelta) else timedelta(0)
    return Inbox(database=database, deployment=name_of(config), keep=KEEP if config.retention is None else keep)


def columns_of(config: Config, task: TaskKind) -> dict[str, Any] | None:
    """Arrow types of the columns, as far as the configuration says; None if it does not, or not those of labels."""
    given = config.stream.columns
    if given is None:
        return None
    types = {name: _TYPES[word] for name, word in given.items()}
    target = config.stream.label.column
    if target not in types:
        positive = config.stream.positive
        if positive is not None:
            types[target] = pa.scalar(positive).type
        elif task == "regression":
            types[target] = pa.float64()
        else:
            return None
    return types
