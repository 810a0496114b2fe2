"""From a label's acknowledgement to the first answer by a version that learned it: real processes, by the wall clock.

A run and a server with two workers beside it, a linear model that is updated every 100 labels in batches of a second,
and a client that asks about 200 rows a second and brings labels back late, in any order, some never. PostgreSQL is
measured where ``PERENNIAL_POSTGRES`` names a server.
"""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import Figure, NotMeasured, Size, require
from benchmarks.servers.loop import HISTORY, Loop, looping

NAME = "freshness"

_SECONDS = {"full": 20.0, "quick": 8.0, "tiny": 4.0}  #: how long a round asks


def measure(size: Size, rounds: int, folder: Path) -> list[Figure | NotMeasured]:
    """Median seconds from acknowledged to live, on each database."""
    out: list[Figure | NotMeasured] = [_figure("SQLite", [_round(size, folder / f"{i}") for i in range(rounds)])]
    server = os.environ.get("PERENNIAL_POSTGRES")
    if server is None:
        return [*out, NotMeasured(benchmark=NAME, peer="PostgreSQL", reason="PERENNIAL_POSTGRES names no server")]
    told = []
    for i in range(rounds):
        with _schema(server) as ledger:
            told.append(_round(size, folder / f"postgresql-{i}", ledger))
    return [*out, _figure("PostgreSQL", told)]


def _figure(database: str, told: list[tuple[float, int]]) -> Figure:
    return Figure(
        benchmark=NAME,
        what=f"{database}: from a label's acknowledgement to an answer by a version that learned it, median",
        peer="a limit",
        rounds=[seconds for seconds, _ in told],
        unit="s",
        at_most=2.0,
        checked=f"{sum(labels for _, labels in told):,} labels, each joined once",
    )


def _round(size: Size, folder: Path, ledger: str = "") -> tuple[float, int]:
    """The median, and how many labels were acknowledged."""
    with looping(folder, ledger) as loop:
        time.sleep(_SECONDS[size])
        loop.until(lambda: len(loop.caller.seen.first) > 3, "three versions have learned from labels")
        seen = loop.caller.end()
        loop.until(lambda: len(loop.joined()) >= HISTORY + len(seen.labels), "every label is joined")
        _check(loop)
        return statistics.median(loop.seconds_to_live()), len(seen.labels)


def _check(loop: Loop) -> None:
    ids = [row["id"] for row in loop.log("rows")]
    joined = Counter(ids[row] for row, _ in loop.joined())
    require(set(joined.values()) == {1}, "a label was joined more than once")
    require(loop.caller.seen.labels.keys() <= joined.keys(), "an acknowledged label was not joined")


@contextmanager
def _schema(server: str) -> Iterator[str]:
    """A schema of our own on a PostgreSQL server, dropped in the end."""
    import sqlalchemy as sa

    name, engine = f"benchmark_{secrets.token_hex(4)}", sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    try:
        yield sa.make_url(server).update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
        engine.dispose()
