"""What an ingest log costs: durable appends of 1 and of 100 rows, against bare inserts into a table of SQLite.

Both sides commit each append on its own, with the same settings: a write-ahead log, synced with every commit, and
deleted bytes overwritten. Ours takes Arrow batches and checks them; the peer takes tuples that are ready. It is
measured by the wall clock: for most of the time a commit waits for the disk.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.common import Figure, Size, classified, interleaved, ratios, require, seconds
from perennial.stream.ingest import IngestLog, IngestSource

NAME = "ingest_append"
COLUMNS = 10

_APPENDS = {"full": 2_000, "quick": 300, "tiny": 10}


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:
    """Seconds of an append against those of a bare insert, and rows a second."""
    appends = _APPENDS[size]
    out = []
    for rows in (1, 100):
        table = classified(rows * appends, COLUMNS).table
        batches = table.to_batches(max_chunksize=rows)
        ready = [[tuple(row.values()) for row in _plain(batch)] for batch in batches]
        measured = interleaved(
            {
                "ours": lambda batches=batches: _ours(folder / f"{time.perf_counter_ns()}.db", batches),
                "bare": lambda ready=ready: _bare(folder / f"{time.perf_counter_ns()}.db", ready),
            },
            rounds,
            time.perf_counter,
        )
        for (_, url), (_, path) in zip(measured["ours"], measured["bare"], strict=True):
            require(_read(url) == _selected(path), "the rows of the log and of the table differ")
        ours, bare = seconds(measured["ours"]), seconds(measured["bare"])
        what = f"append of {rows} row{'s' if rows > 1 else ''} x {COLUMNS}, durable, wall clock"
        checked = f"{appends} appends, all rows read back"
        out += [
            Figure(benchmark=NAME, what=what, peer="a bare insert into SQLite", rounds=ratios(ours, bare),
                   checked=checked),
            Figure(benchmark=NAME, what=f"the same, rows a second in appends of {rows}", unit="rows/s",
                   peer="a bare insert into SQLite", rounds=[rows * appends / spent for spent in ours],
                   checked=checked),
        ]  # fmt: skip
    return out


def _plain(batch: Any) -> list[dict[str, Any]]:
    """Rows as SQLite takes them: instants as microseconds."""
    at = batch.column("at").cast(pa.int64())
    plain: list[dict[str, Any]] = batch.set_column(0, "at", at).to_pylist()
    return plain


def _ours(path: Path, batches: list[Any]) -> str:
    url = f"sqlite:///{path}?log=rows"
    with IngestLog.open(url, batches[0].schema) as log:
        for batch in batches:
            log.append(batch)
    return url


def _bare(path: Path, appends: list[list[tuple[Any, ...]]]) -> Path:
    columns = ", ".join(f"x{j} REAL" for j in range(COLUMNS))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute(f"CREATE TABLE rows (at INTEGER, {columns}, y INTEGER)")
        insert = f"INSERT INTO rows VALUES ({', '.join('?' * (COLUMNS + 2))})"
        for rows in appends:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows)
            connection.execute("COMMIT")
    return path


def _read(url: str) -> list[tuple[Any, ...]]:
    source = IngestSource(url)
    blocks = source.blocks(source.types((), ()))
    return [tuple(row.values()) for block in blocks for row in _plain(block.rows)]


def _selected(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM rows ORDER BY rowid").fetchall()
