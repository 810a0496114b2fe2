"""The evidence on triggers, at a small size: its simulator is held to what it says of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import benchmarks.evidence
from benchmarks.evidence import triggers as evidence
from perennial.replay.clairvoyant import schedule
from perennial.triggers import every

SETTINGS = yaml.safe_load((Path(benchmarks.evidence.__file__).parent / "settings.yaml").read_text(encoding="utf-8"))
SMALL = {**SETTINGS["triggers"]["simulated"], "days": 120, "prices": [0.5], "fixed": [1, 7, 30, 120]}


@pytest.mark.parametrize("kind", SMALL["kinds"])
def test_a_model_is_fresh_on_the_day_of_its_training(kind):
    """No excess at no age, none before the training, and none that is negative."""
    excess = evidence.KINDS[kind](60, rng=np.random.default_rng(0), **SMALL["kinds"][kind])
    assert excess.shape == (60, 60)
    np.testing.assert_allclose(np.diag(excess), 0.0, atol=1e-12)
    assert not np.tril(excess, -1).any()
    assert excess.min() >= 0


def test_costs_are_those_of_the_clairvoyant_schedule():
    """Its own days, priced the way policies are, cost what the dynamic programme says."""
    for world in evidence.worlds(SMALL, [3]).values():
        best = schedule(world.excess, 0.5)
        assert evidence.cost(world.excess, best.retrain_at, 0.5) == pytest.approx(best.cost - 0.5)


def test_a_trigger_lives_by_the_losses_of_the_days_before():
    """A fixed interval retrains on its days, and a change of the last day changes no decision."""
    world = next(iter(evidence.worlds(SMALL, [3]).values()))
    assert evidence.live(every("30d"), world) == (30, 60, 90)
    later = evidence.World(excess=world.excess.copy(), noise=world.noise.copy(), rows=world.rows, fresh=world.fresh)
    later.noise[-1] += 5.0
    for make in evidence.policies(SMALL).values():
        assert evidence.live(make(0.5), world) == evidence.live(make(0.5), later)


def test_nobody_beats_the_clairvoyant():
    """Every policy, and the best fixed interval, costs at least as much in every cell."""
    found = evidence.simulate(SMALL, range(1))
    assert evidence.FIXED in found.cells
    assert all(ratio >= 1 for of in found.cells.values() for ratio in of.values())
