"""Processes that append to an ingest log, or run on it, killed with SIGKILL: no row is lost, and none comes twice."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.core.failpoints import NAMES
from perennial.stream.feed import Position, feed_of
from perennial.stream.ingest import IngestLog
from tests.crash import deployments
from tests.crash.test_kill import children, same, served  # noqa: F401 - a fixture

WRITER = """
import sys
import pyarrow as pa
from perennial.stream.ingest import IngestLog
url, writer = sys.argv[1], int(sys.argv[2])
with IngestLog.open(url) as log:
    for i in range(10**6):
        n = 1 + 997 * (i % 2)
        batch = pa.table({"writer": [writer] * n, "append": [i] * n, "rows": [n] * n, "word": ["w" * 50] * n})
        log.append(batch)
        print(i, flush=True)  # durable
"""
SCHEMA = pa.schema({"writer": pa.int64(), "append": pa.int64(), "rows": pa.int64(), "word": pa.string()})


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_writer_that_is_killed_leaves_whole_appends(tmp_path, served, kind):  # noqa: F811 - the fixture
    """Everything that it was told is durable is there; of the append that it died in, all rows or none."""
    url = f"{served}&log=calls" if served else f"sqlite:///{tmp_path}/ingest.db?log=calls"
    IngestLog.open(url, SCHEMA).close()
    chance, told = random.Random(kind), []
    for writer in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(writer)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.02, 0.3))
        process.kill()
        told.append(1 + len(process.stdout.read().splitlines()))
        process.wait()
        process.stdout.close()
    types = {name: SCHEMA.field(name).type for name in ("writer", "append", "rows")}
    runs = list(feed_of(url).read(Position(), types))
    found = [row for run in runs for row in run.rows.to_pylist()]
    feed_of(url).trim(runs[-1].position(runs[-1].rows.num_rows))
    for writer in range(6):
        mine = [(row["append"], row["rows"]) for row in found if row["writer"] == writer]
        appends = sorted({i for i, _ in mine})
        assert appends == list(range(len(appends)))
        assert len(appends) in (told[writer], told[writer] + 1)
        assert mine == [(i, 1 + 997 * (i % 2)) for i in appends for _ in range(1 + 997 * (i % 2))]
    assert sum(told) > 20


@pytest.fixture(scope="module")
def child():
    """See :func:`~tests.crash.test_kill.children`."""
    with children() as run:
        yield run


def test_a_run_that_is_killed_before_and_after_it_trims(tmp_path, child):
    """At every durable step of every turn, its log trimmed up to the turn before or not: the same turns in the end."""
    straight, place = tmp_path / "straight", tmp_path / "killed"
    deployments.write_stream(straight / "rows")
    url = "sqlite:///{}/ingest.db?log=rows"
    rows = pa.concat_tables([pq.read_table(file) for file in sorted((straight / "rows").iterdir())])
    with IngestLog.open(url.format(straight), rows.schema) as log:
        for low in range(0, len(rows), 37):
            log.append(rows.slice(low, 37))
    shutil.copytree(straight, place)
    expected = deployments.deployment("sgd", f"sqlite:///{straight}/ledger.db", straight)
    deployments.run(expected)
    ledger, died, held = f"sqlite:///{place}/ledger.db", [], set()
    chance = random.Random(0)
    for _ in range(2):
        order = list(NAMES)
        chance.shuffle(order)
        for name in order:
            often = 1 if name.startswith(("recover", "lease", "orphan")) else chance.randint(1, 2)
            if child("sgd", ledger, place, f"{name}:{often}", turns="2"):
                died.append(name)
            held.add(sum(run.rows.num_rows for run in feed_of(url.format(place)).read(Position(), {"id": pa.int64()})))
    assert child("sgd", ledger, place) == 0
    same(deployments.remembered(expected), deployments.remembered(deployments.deployment("sgd", ledger, place)))
    assert len(set(died)) >= len(NAMES) - 2
    assert len(held) > 3  # it was trimmed by and by, not in the end
    for folder in (straight, place):
        assert list(feed_of(url.format(folder)).read(Position(), {"id": pa.int64()})) == []
