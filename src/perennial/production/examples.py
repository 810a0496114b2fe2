"""A file of labelled rows into the inbox of a deployment: how one that is served begins with its history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from perennial.core.errors import ConfigError, DataError
from perennial.core.times import NEVER, micros, moment, spell
from perennial.learners.saved import sha256
from perennial.production.deployment import Deployment
from perennial.stream.inbox import KNOWN_AT, InboxLogs, push
from perennial.stream.instants import Instants
from perennial.stream.sources import Widened, canonical_type, open_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What became of a file: rows that were appended now, and rows that had been before."""

    rows: int
    before: int


def push_file(
    deployment: Deployment, file: Path, *, now: int, progress: Callable[[int], None] = lambda _: None
) -> Pushed:
    """Append the rows of a Parquet or CSV file, a block in a transaction; what was appended before is not again.

    The logs are made from the file's types if they are not there.

    Parameters
    ----------
    deployment : Deployment
        One that is served.
    file : Path
        With the stream's columns, in order of time.
    now : int
        The clock.
    progress : callable, optional
        Called with the rows done.

    Raises
    ------
    ConfigError
        If the deployment is not served, there is no such file, or it lacks a column.
    DataError
        As :func:`~perennial.stream.inbox.push`, and if rows are not in order of time: then nothing is appended.
    """
    stream = deployment.stream
    if deployment.inbox is None:
        raise ConfigError(
            "source", str(stream.source), "rows are pushed into an inbox, `source: serve`; this stream reads its own"
        )
    types = _checked(deployment, file)
    key, rows, before = sha256(file.read_bytes())[:32], 0, 0
    with InboxLogs.open(deployment.inbox, stream, None if deployment.begun() else types) as logs:
        for number, table in enumerate(_blocks(file, types)):
            done = push(logs, stream, table, now=now, key=f"{key}/{number}")
            rows, before = rows + done, before + table.num_rows - done
            progress(rows + before)
    return Pushed(rows=rows, before=before)


def _checked(deployment: Deployment, file: Path) -> dict[str, Any]:
    """The types of a file's columns, once all of it could be read and is in order of time."""
    stream, source = deployment.stream, open_files(file, "file")
    lateness = stream.span("lateness") or timedelta(0)
    while True:
        as_written = [name for name in (stream.time, KNOWN_AT) if name]
        types = source.types(stream.drop, as_written)
        for name in (stream.time, str(stream.target)):
            if name not in types:
                raise ConfigError(
                    "file", str(file), f"it has no column {name!r}, and an example has an event and a label"
                )
        time = Instants(stream.time, canonical_type(types[stream.time]), stream.time_zone, ordered=False)
        newest = -NEVER
        try:
            for block in source.blocks(types):
                instants = time.convert(block.rows.column(stream.time), 0, ())
                if len(instants) and int(instants.min()) < newest - micros(lateness):
                    raise DataError(
                        f"{file}: {moment(int(instants.min()))} comes after {moment(newest)}, more than "
                        f"lateness={spell(lateness)!r}: sort the rows by {stream.time!r}"
                    )
                newest = max(newest, int(instants[instants != NEVER].max(initial=-NEVER)))
        except Widened:  # a CSV column turned out wider than its first rows showed
            continue
        return types


def _blocks(file: Path, types: dict[str, Any]) -> Iterator[Any]:
    source = open_files(file, "file")
    source.types((), [name for name, dtype in types.items() if pa.types.is_string(dtype)])
    for block in source.blocks(types):
        yield pa.Table.from_batches([block.rows])
