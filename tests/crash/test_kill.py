"""Real processes, killed with SIGKILL at every durable step: the recovered run equals the uninterrupted one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from perennial.core.failpoints import NAMES
from tests import postgres
from tests.crash import deployments

#: databases, strategies and learners, covered in pairs
PAIRS = [("sqlite", name) for name in deployments.STRATEGIES]
PAIRS += [("postgres", name) for name in ("lightgbm", "xgboost", "sgd", "logged", "served")]


@contextmanager
def children():
    """A function that runs a deployment to its end in a process, or until it dies at a failpoint; gives its status."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.deployments"], cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdin is not None
    assert parent.stdout is not None

    def run(strategy: str, url: str, place: Path, failpoint: str = "", turns: str = "", mutant: str = "") -> int:
        parent.stdin.write("\t".join([strategy, url, str(place), failpoint, turns, mutant]) + "\n")
        parent.stdin.flush()
        status = int(parent.stdout.readline())
        assert mutant or status in (0, -signal.SIGKILL)
        return status

    try:
        yield run
    finally:
        parent.stdin.close()
        parent.wait(timeout=30)
        parent.stdout.close()


@pytest.fixture(scope="module")
def child():
    """See :func:`children`."""
    with children() as run:
        yield run


@pytest.fixture
def served(kind: str) -> Iterator[str]:
    """The URL of a schema on a server, where the ledger is to be there."""
    with postgres.schema() if kind == "postgres" else nullcontext("") as url:
        yield url


def place_of(tmp_path: Path, name: str, served: str = "") -> tuple[Path, str]:
    """A folder for a deployment, and the URL of its ledger: in SQLite, unless one is given."""
    place = tmp_path / f"{name}-{uuid.uuid4().hex[:12]}"
    deployments.write_stream(place / "rows")
    return place, served or f"sqlite:///{place}/ledger.db"


def same(one: dict, other: dict) -> None:
    """Assert that two deployments remember the same."""
    for name in one:
        assert one[name] == other[name], name
    assert not other["wrong"]


@pytest.fixture
def straight(tmp_path):
    """What an uninterrupted run of a strategy remembers."""

    def make(strategy: str) -> dict:
        place, url = place_of(tmp_path, "straight")
        made = deployments.deployment(strategy, url, place)
        deployments.run(made)
        return deployments.remembered(made)

    return make


@pytest.mark.parametrize(("kind", "strategy"), PAIRS, ids=lambda value: value)
def test_killed_at_every_step(tmp_path, straight, child, kind, strategy, served):
    """One deployment that dies at every failpoint, one after the other and while it recovers from the last."""
    expected = straight(strategy)
    place, url = place_of(tmp_path, strategy, served)
    chance = random.Random(f"{kind}-{strategy}")
    died = []
    for _ in range(2):
        order = list(NAMES)
        chance.shuffle(order)
        for name in order:
            often = 1 if name.startswith(("recover", "lease", "orphan")) else chance.randint(1, 2)
            if child(strategy, url, place, f"{name}:{often}", turns="2"):
                died.append(name)
    assert child(strategy, url, place) == 0
    same(expected, deployments.remembered(deployments.deployment(strategy, url, place)))
    assert len(set(died)) >= len(NAMES) - 2
    shutil.rmtree(place)


def test_every_step_is_reached(tmp_path, child):
    """No failpoint is a name without a place: each of them kills a run that comes there."""
    base, _ = place_of(tmp_path, "base")
    missed = []
    for name in NAMES:
        place = tmp_path / f"at-{name}"
        shutil.copytree(base, place)
        url = f"sqlite:///{place}/ledger.db"
        if name in ("orphan.removed",):  # something must be left over first
            child("lightgbm", url, place, "blob.after:3")
        if child("lightgbm", url, place, name) == 0:
            missed.append(name)
    assert missed == []


@pytest.mark.parametrize(
    ("mutant", "strategy"),
    [("offset_apart", "sgd"), ("random_state_lost", "xgboost"), ("model_not_with_the_turn", "sgd")],
)
def test_the_suite_would_notice(tmp_path, child, mutant, strategy):
    """A run that breaks a rule of durability is caught by the same comparison: these test the test."""
    straight, url = place_of(tmp_path, "straight")
    assert child(strategy, url, straight, mutant=mutant) == 0
    expected = deployments.remembered(deployments.deployment(strategy, url, straight))
    for name in ("turn.after:5", "commit.before:5", "commit.inside:5", "intent.after:5"):
        place, url = place_of(tmp_path, strategy)
        assert child(strategy, url, place, name, mutant=mutant)
        if child(strategy, url, place, mutant=mutant):
            return  # it could not go on at all
        try:
            same(expected, deployments.remembered(deployments.deployment(strategy, url, place)))
        except AssertionError:
            return
    pytest.fail(f"{mutant} was not noticed")
