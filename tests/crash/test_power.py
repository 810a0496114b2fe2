"""The power goes in the middle of a real commit: database and blobs together recover from whatever the disk kept."""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from perennial.ledger.errors import StorageError
from perennial.ledger.sql import SqlLedger
from tests.crash import deployments, disk, planted
from tests.crash.test_kill import child, same  # noqa: F401 - a fixture

#: a process that takes one more turn of a deployment, empties the database's log, takes another, and is gone
SCRIPT = """
import os, sys
from datetime import timedelta
from pathlib import Path
from perennial.ledger import database, blobs
from perennial.ledger.sql import SqlLedger
from perennial.production import Run
from tests.crash import deployments

strategy, url, place, mutant = sys.argv[1:]
if mutant == "synchronous off":
    database._SQLITE = tuple(p for p in database._SQLITE if "synchronous" not in p) + ("PRAGMA synchronous = OFF",)
if mutant == "no fsync before the rename":
    blobs.Disk.fsync = lambda self, handle: None
made = deployments.deployment(strategy, url, Path(place))
ledger = SqlLedger.open(url, made.name, blobs=made.blobs, inline_bytes=1000, forgets=made.forgets)
run = Run(made, ledger, ledger.acquire("test", timedelta(hours=1)))
assert run.step(to_the_end=True)
ledger.scrub()
assert run.step(to_the_end=True)
os._exit(0)
"""
_IGNORED = re.compile(r"^rows|-shm$")  # the source is the user's; SQLite builds its shared memory anew

TURNS = 11  #: of thirteen: those before are durable


def place_of(tmp_path: Path, name: str, strategy: str) -> tuple[Path, str]:
    """A folder with the rows of a strategy, and the URL of its ledger."""
    place = tmp_path / name
    (planted.write if strategy in deployments.FORGETFUL else deployments.write_stream)(place / "rows")
    return place, f"sqlite:///{place}/ledger.db"


def straight(tmp_path: Path, child, strategy: str) -> dict:  # noqa: F811
    """What the uninterrupted run remembers."""
    place, url = place_of(tmp_path, "straight", strategy)
    assert child(strategy, url, place) == 0
    return deployments.remembered(deployments.deployment(strategy, url, place))


def recorded(tmp_path: Path, child, strategy: str, mutant: str = "") -> tuple[disk.Disk, Path, Path]:  # noqa: F811
    """A deployment near its end, as a disk, and the recording of its next two turns."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: it records what a process writes")
    place, url = place_of(tmp_path, "cut", strategy)
    assert child(strategy, url, place, turns=str(TURNS)) == 0
    whole = disk.Disk(place, _IGNORED)
    log = tmp_path / "calls"
    done = disk.traced(
        [sys.executable, "-c", SCRIPT, strategy, url, str(place), mutant], log, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return whole, log, place


def recovered(
    tmp_path: Path,
    child,  # noqa: F811
    strategy: str,
    recording: tuple[disk.Disk, Path, Path],
    expected: dict,
    *,
    one_in: int = 1,
    goes_on: int = 1,
) -> tuple[int, int]:
    """Look at every image that differs, or at one in so many: it is sound, and holds whole turns; gives how many.

    From one in ``goes_on`` of these the deployment goes on to its end as well, and is then the uninterrupted one: the
    second number is how many of these there were.
    """
    whole, log, place = recording
    chance, seen, looked, finished = random.Random(0), set[str](), 0, 0
    again = tmp_path / "images" / place.name
    url = f"sqlite:///{again}/ledger.db"
    disk.lay({}, again, beside=place, shared=["rows"])
    made = deployments.deployment(strategy, url, again)
    for now in whole.replay(log):
        for image in now.images(chance):
            if (which := disk.identity(image)) in seen:
                continue
            seen.add(which)
            if int(which, 16) % one_in:
                continue
            looked += 1
            disk.lay(image, again, beside=place, shared=["rows"])
            with SqlLedger.open(url, made.name, blobs=made.blobs, create=False) as ledger:
                entries = [replace(entry, cpu_seconds=0.0, versions=()) for entry in ledger.entries()]
                assert len(entries) >= TURNS
                assert entries == expected["entries"][: len(entries)]
                assert [finding for finding in ledger.check() if not finding.safe] == []
            if int(which, 16) % (one_in * goes_on):
                continue
            finished += 1
            assert child(strategy, url, again) == 0
            same(expected, deployments.remembered(made))
    return looked, finished


@pytest.mark.parametrize("strategy", ["sgd", "classes"])
def test_the_power_goes_in_a_commit(tmp_path, child, strategy):  # noqa: F811 - the fixture
    """Two turns and a checkpoint of the database, cut anywhere: keeping rows, and keeping none."""
    recording = recorded(tmp_path, child, strategy)
    expected = straight(tmp_path, child, strategy)
    images, finished = recovered(tmp_path, child, strategy, recording, expected, one_in=3, goes_on=8)
    assert images > 100  # `make soak` tries all
    assert finished > 5


@pytest.mark.parametrize("mutant", ["synchronous off", "no fsync before the rename"])
def test_a_disk_that_is_not_asked_to_sync_is_noticed(tmp_path, child, mutant):  # noqa: F811 - the fixture
    """Without a sync that the order of a commit demands, some image does not recover: this tests the test."""
    recording = recorded(tmp_path, child, "sgd", mutant)
    expected = straight(tmp_path, child, "sgd")
    with pytest.raises((AssertionError, StorageError)):
        recovered(tmp_path, child, "sgd", recording, expected, one_in=4, goes_on=1 << 30)
