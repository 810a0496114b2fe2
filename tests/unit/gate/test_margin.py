"""Margins from prices, and by rule of thumb."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perennial.core.errors import ConfigError
from perennial.gate import Level, default_margin, margin_from_cost, trial_margin
from perennial.metrics import Prices


def test_at_the_margin_staleness_costs_one_training():
    """The price of a training, shared out over the predictions until the next."""
    margin = margin_from_cost(Prices(retrain=5.0, error=0.1), predictions=10_000, level=0.12)
    assert margin is not None
    assert margin * 0.1 * 10_000 == pytest.approx(5.0)


def test_an_update_has_its_own_price():
    """Cheap updates make for a narrow margin."""
    prices = Prices(retrain=5.0, update=2.0, error=0.1)
    assert margin_from_cost(prices, predictions=10_000, level=0.12, update=True) == pytest.approx(0.002)


@pytest.mark.parametrize(("predictions", "margin"), [(10**9, 0.0012), (10, 0.012)])
def test_a_margin_is_held_to_what_can_be_shown_and_meant(predictions, margin):
    """Between 1 % and 10 % of the champion's mean loss."""
    prices = Prices(retrain=5.0, error=0.1)
    assert margin_from_cost(prices, predictions=predictions, level=0.12) == pytest.approx(margin)


@pytest.mark.parametrize(
    ("prices", "loss"),
    [
        (Prices(error=0.1), "zero_one"),
        (Prices(retrain=5.0), "zero_one"),
        (Prices(retrain=5.0, error=0.0), "zero_one"),
        (Prices(retrain=5.0, error="amount"), "zero_one"),
        (Prices(retrain=5.0, false_negative=1.0), "zero_one"),
        (Prices(retrain=5.0, error=0.1), "log_loss"),
    ],
)
def test_prices_that_do_not_tell_give_none(prices, loss):
    """No margin is made up."""
    assert margin_from_cost(prices, predictions=1000, level=0.1, loss=loss) is None


@pytest.mark.parametrize(
    ("loss", "level", "margin"),
    [("zero_one", 0.3, 0.003), ("brier", 0.3, 0.003), ("zero_one", 0.01, 0.0003), ("absolute_error", 20.0, 0.6)],
)
def test_the_rule_of_thumb_is_three_percent(loss, level, margin):
    """Of the champion's loss, and no more than 0.3 points of losses between 0 and 1."""
    assert default_margin(loss, level) == pytest.approx(margin)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, "much"])
def test_levels_and_counts_must_be_positive(bad):
    """The error names the argument."""
    with pytest.raises(ConfigError, match="level"):
        default_margin("zero_one", bad)
    with pytest.raises(ConfigError, match="predictions"):
        margin_from_cost(Prices(retrain=1.0, error=1.0), predictions=bad, level=0.1)


def level(mean, n=1000, loss="zero_one"):
    """A line that served ``n`` rows."""
    return Level().add(1, np.full(n, mean), loss)


PRICES = Prices(retrain=5.0, update=2.0, error=0.1)


@pytest.mark.parametrize(
    ("given", "known", "about", "value", "source"),
    [
        (0.02, level(0.2), {"prices": PRICES, "predictions": 10_000}, 0.02, "given"),
        (None, level(0.2), {"prices": PRICES, "predictions": 10_000}, 0.005, "cost"),
        (None, level(0.2), {"prices": PRICES, "predictions": 10_000, "update": True}, 0.002, "cost"),
        (None, level(0.2), {"prices": PRICES, "predictions": 0}, 0.003, "default"),
        (None, level(0.2), {"prices": Prices(retrain=5.0)}, 0.003, "default"),
        (None, level(0.2), {}, 0.003, "default"),
        (None, level(0.02), {}, 0.0006, "level"),
        (None, level(4.0, loss="absolute_error"), {"task": "regression"}, 0.12, "level"),
        (None, level(0.0), {}, 0.003, "default"),
        (None, Level(), {}, 0.003, "default"),
        (None, Level(), {"task": "regression", "prices": PRICES, "predictions": 10}, 0.0, "default"),
    ],
)
def test_the_margin_of_a_trial(given, known, about, value, source):
    """As given, else from prices, else from the champion's loss; a regression of which nothing is known wants proof."""
    margin = trial_margin(given, level=known, **{"task": "classification", **about})
    assert margin.value == pytest.approx(value)
    assert margin.source == source
    assert margin.level == known.mean
    assert f"margin {margin.value:g}" in str(margin)


def test_the_level_is_that_of_the_line_once_it_has_served_enough():
    """Before that of all lines; another loss begins anew."""
    known = Level()
    assert known.mean is None
    known = known.add(1, np.full(50, 0.2), "brier").add(1, np.full(50, 0.4), "brier")
    assert known.mean == pytest.approx(0.3)
    known = known.add(2, np.full(99, 0.1), "brier")
    assert known.mean == pytest.approx((30 + 9.9) / 199)
    assert known.add(2, np.full(1, 0.1), "brier").mean == pytest.approx(0.1)
    assert known.add(2, np.full(1, 1.0), "zero_one").mean == 1.0
