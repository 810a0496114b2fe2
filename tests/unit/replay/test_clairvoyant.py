"""The clairvoyant schedule against all schedules there are."""

from __future__ import annotations

from itertools import chain, combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.core.errors import ConfigError, DataError
from perennial.replay.clairvoyant import schedule


def _cost_of(losses: np.ndarray, price: float, stops: tuple[int, ...]) -> float:
    edges = [0, *stops, len(losses)]
    return sum(price + losses[i, i:j].sum() for i, j in pairwise(edges))


def _every_schedule(checkpoints: int) -> list[tuple[int, ...]]:
    later = range(1, checkpoints)
    return list(chain.from_iterable(combinations(later, size) for size in range(checkpoints)))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10**6), st.sampled_from([0, 1, 2, 5]))
def test_none_is_cheaper(checkpoints: int, seed: int, price: int) -> None:
    """No schedule costs less, and none of equal cost trains less often."""
    rng = np.random.default_rng(seed)
    losses = rng.integers(0, 5, (checkpoints, checkpoints)).astype(float)  # whole numbers, so that ties are exact
    found = schedule(losses, price)
    costs = {stops: _cost_of(losses, price, stops) for stops in _every_schedule(checkpoints)}
    assert found.cost == min(costs.values()) == costs[found.retrain_at]
    assert found.trainings == 1 + min(len(stops) for stops, cost in costs.items() if cost == found.cost)


def test_below_the_diagonal_is_not_read() -> None:
    """A model has no losses before its training, and the input is left as it is."""
    losses = np.triu(np.arange(16.0).reshape(4, 4))
    poisoned = losses + np.tril(np.full((4, 4), np.nan), -1)
    kept = poisoned.copy()
    assert schedule(poisoned, 1.0) == schedule(losses, 1.0)
    np.testing.assert_array_equal(poisoned, kept)


def test_models_that_cannot_be_had() -> None:
    """An infinite loss keeps a checkpoint out of the schedule."""
    losses = np.array([[0.0, 9.0, 9.0], [0.0, np.inf, np.inf], [0.0, 0.0, 0.0]])
    assert schedule(losses, 1.0).retrain_at == (2,)
    with pytest.raises(DataError, match="every schedule"):
        schedule(np.full((2, 2), np.inf), 1.0)


def test_dear_and_free_retrains() -> None:
    """Dear retrains are never bought; free ones only where they help."""
    losses = np.array([[1.0, 2.0, 3.0], [0.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    assert schedule(losses, 1e9).retrain_at == ()
    free = schedule(losses, 0.0)
    assert (free.retrain_at, free.cost, free.trainings) == ((2,), 4.0, 2)


@pytest.mark.parametrize("losses", [np.zeros((2, 3)), np.zeros(3), np.zeros((0, 0)), np.array([[np.nan]])])
def test_bad_losses(losses: np.ndarray) -> None:
    """Losses that are no square of numbers are refused."""
    with pytest.raises(DataError):
        schedule(losses, 1.0)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_bad_price(price: float) -> None:
    """A price is finite and not negative."""
    with pytest.raises(ConfigError, match="retrain_price"):
        schedule(np.zeros((2, 2)), price)
