"""``retention: none``: whatever happens, no row is found in what the deployment owns once it was learned."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from perennial.core.failpoints import NAMES
from perennial.ledger.sql import SqlLedger
from perennial.production.run import Run
from perennial.production.service import leased
from tests.crash import deployments, planted
from tests.crash.test_kill import child, same, served  # noqa: F401 - fixtures

KINDS = [("sqlite", "classes"), ("postgres", "values")]


def place_of(tmp_path: Path, name: str, served: str = "") -> tuple[Path, str]:  # noqa: F811 - the fixture's value
    """A folder with the planted rows, and the URL of a ledger: in SQLite, unless one is given."""
    place = tmp_path / f"{name}-{random.SystemRandom().getrandbits(48):x}"
    planted.write(place / "rows")
    return place, served or f"sqlite:///{place}/ledger.db"


def learned(ledger: SqlLedger) -> set[int]:
    """Positions that some version learned."""
    ranges = [r for saved in ledger.versions() for r in saved.facts["lesson"]["rows"]]
    return {row for low, high in ranges for row in range(low, high)}


@pytest.mark.parametrize(("kind", "strategy"), KINDS)
def test_no_row_outlives_the_turn_that_learned_it(tmp_path, served, strategy):  # noqa: F811 - the fixture
    """After every turn: what was learned or never will be is nowhere. What waits is there, or nothing could learn."""
    place, url = place_of(tmp_path, strategy, served)
    made = deployments.forgetful(strategy, url, place)
    table = planted.rows()
    silent = np.isnan(table.column("y").to_numpy(zero_copy_only=False))
    waited = turns = 0
    home = place.with_name(f"{place.name}-rows")
    with (
        SqlLedger.open(url, made.name, blobs=made.blobs, inline_bytes=1000, forgets=True) as ledger,
        leased(ledger, "test", timedelta(minutes=5), lambda *_: None) as lease,
    ):
        run = Run(made, ledger, lease)
        while run.step(to_the_end=True):
            turns += 1
            (place / "rows").rename(home)  # the source is the user's
            found = planted.traces(ledger, place, table)
            home.rename(place / "rows")
            done = learned(ledger)
            if strategy == "classes":  # of others nobody knows before the wait is over
                done |= set(np.flatnonzero(silent).tolist())
            assert not done & found.keys(), {row: found[row] for row in done & found.keys()}
            waited += len(found)
        run.close()
        (place / "rows").rename(home)
        assert planted.traces(ledger, place, table) == {}
        assert len(learned(ledger)) > 200
        assert [finding for finding in ledger.check() if not finding.safe] == []
    assert turns == 13
    assert waited > 100


@pytest.mark.parametrize("strategy", deployments.FORGETFUL)
def test_the_search_would_find_them(tmp_path, strategy):
    """The same deployment, keeping rows: every row is found, by each of its values. This tests the test."""
    place, url = place_of(tmp_path, strategy)
    made = deployments.forgetful(strategy, url, place, retention=None)
    deployments.run(made)
    (place / "rows").rename(place.with_name(f"{place.name}-rows"))
    table = planted.rows()
    with SqlLedger.open(url, made.name, blobs=made.blobs, create=False) as ledger:
        found = planted.traces(ledger, place, table)
    assert len(found) == planted.ROWS
    assert {"a", "b", "id", "who"} <= set.intersection(*found.values())
    assert any("word" in what for what in found.values()) == (strategy == "classes")


@pytest.mark.parametrize(("kind", "strategy"), KINDS)
def test_nor_a_crash(tmp_path, child, served, kind, strategy):  # noqa: F811 - the fixtures
    """Killed at every failpoint, in a chain: the recovered run is the uninterrupted one, and keeps as little."""
    straight, url = place_of(tmp_path, "straight")
    deployments.run(deployments.forgetful(strategy, url, straight))
    expected = deployments.remembered(deployments.forgetful(strategy, url, straight))
    place, url = place_of(tmp_path, strategy, served)
    made = deployments.forgetful(strategy, url, place)
    home, table = place.with_name(f"{place.name}-rows"), planted.rows()
    order = [*NAMES, *NAMES]
    random.Random(f"{kind}-{strategy}").shuffle(order)
    died = 0
    for i, name in enumerate(order):
        died += bool(child(strategy, url, place, f"{name}:1", turns="1"))
        if i % 7:
            continue
        assert child(strategy, url, place, turns="1") == 0  # recovered: what the crash left over is gone
        (place / "rows").rename(home)
        with SqlLedger.open(url, made.name, blobs=made.blobs, create=False) as ledger:
            found = planted.traces(ledger, place, table)
            assert not learned(ledger) & found.keys()
        home.rename(place / "rows")
    assert child(strategy, url, place) == 0
    (place / "rows").rename(home)
    with SqlLedger.open(url, made.name, blobs=made.blobs, create=False) as ledger:
        assert planted.traces(ledger, place, table) == {}
    same(expected, deployments.remembered(made))
    assert died > len(NAMES)
