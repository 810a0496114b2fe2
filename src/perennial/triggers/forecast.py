"""Retrain when a retrain is forecast to save more loss than it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from statistics import NormalDist
from typing import Any

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts
from perennial.core.records import Decision
from perennial.core.times import Duration, duration, micros, spell
from perennial.triggers import fresh
from perennial.triggers.combined import Limited, backed_off, check_back_off, limited

_POINTS = 90  # blocks that the trend and the pace remember: older ones fade
_RECENT = 3  # newest blocks that tell how far the model at hand is off the trend
_RIDGE = 1.0  # pull of the trend to none, in blocks at the age of one horizon; likewise of the newest blocks to it
_OWN = ("trend", "recent", "pace", "closed")


@dataclass(frozen=True, slots=True)
class Forecast:
    """Fires when a retrain is likely to save more loss than it costs; build it with :func:`forecast`."""

    worth: float
    horizon: timedelta
    quantile: float
    fresh_rows: int = 100
    back_off: float = 2.0
    rejected: int = 2

    def start(self) -> Any:
        """Sums for the slope of excess over age, the newest blocks, rows and time for the pace; and the fresh level."""
        return fresh.start(trend=[0.0, 0.0], recent=[], pace=[0.0, 0.0], closed=None)

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """Take in a block that is full, and weigh what a retrain would save over the horizon against its worth."""
        fresh.check(state, *_OWN)
        if facts.own and not state["own"]:  # what was on trial serves: from here on the losses are its own
            state = self.trained(state, facts)
        block, state = fresh.take({**state, "own": facts.own}, facts, self.fresh_rows)
        if block is None:
            waiting = f"{state['open'][0]:,} of {self.fresh_rows:,} scored rows" if facts.loss.n else "nothing scored"
            return Decision(False, f"no forecast without a block of rows: {waiting}"), state
        if state["closed"] is not None:
            state["pace"] = _faded(state["pace"], block.rows, facts.now - state["closed"])
        state["closed"] = facts.now
        if block.fresh:
            return Decision(False, f"learning the fresh level: {block.mean:.4g} per row"), state
        age = (facts.now - facts.trained_at) / micros(self.horizon)
        if facts.own:
            state["trend"] = _faded(state["trend"], age * age, age * block.excess)
        state["recent"] = [*state["recent"], [age, block.excess]][-_RECENT:]
        saved, least = self._saved(state, age, block)
        due = self.worth * backed_off(facts.rejections, self.back_off, self.rejected)
        what = facts.loss.name or "loss"
        return Decision(
            least >= due,
            f"a retrain would save about {saved:.4g} {what} in {spell(self.horizon)}, {least:.4g} with "
            f"{1 - self.quantile:.0%} confidence; it is worth {due:g}",
        ), state

    def _saved(self, state: Any, age: float, block: fresh.Block) -> tuple[float, float]:
        """Loss saved over the horizon: the forecast, and its lower quantile."""
        squares, products = state["trend"]
        slope = max(0.0, products / (squares + _RIDGE))
        newest = state["recent"]
        weight = len(newest) + _RIDGE
        excess = slope * age + sum(y - slope * x for x, y in newest) / weight
        variance = block.sigma**2 * (1 / weight + age * age / (squares + _RIDGE)) + block.error**2
        lower = excess + NormalDist().inv_cdf(self.quantile) * math.sqrt(variance)
        seen, took = state["pace"]
        rows = seen / took * micros(self.horizon) if took else 0.0  # without time between blocks nothing can be told
        return rows * excess, rows * lower

    def trained(self, state: Any, facts: Facts) -> Any:  # noqa: ARG002 - the protocol's arguments
        """The newest blocks are another model's; trend, pace, fresh level and noise are remembered."""
        return fresh.trained(state, recent=[])

    def __str__(self) -> str:
        return f"when a retrain would save {self.worth:g} of loss in {spell(self.horizon)}"


def forecast(
    worth: float,
    horizon: Duration = "14d",
    *,
    quantile: float = 0.05,
    fresh_rows: int = 100,
    least_gap: Duration | None = None,
    greatest_age: Duration | None = None,
    back_off: float = 2.0,
    rejected: int = 2,
) -> Forecast | Limited:
    """A trigger that fires when a retrain is forecast to save more loss over a horizon than it is worth.

    Scored rows are gathered into blocks as for :func:`~perennial.triggers.regret`, and the fresh level is that. The
    excess of a block over it is regressed on the age of the model, over all trainings, by a line through no excess at
    no age; older blocks fade, so that about the last 90 count, and a ridge pulls the slope to none. The last three
    blocks say how far the model at hand is off that line. A retrain takes the age back to none, and so saves, in each
    row of the horizon, the excess of now. It fires when the lower ``quantile`` of that, for as many rows as come in
    ``horizon`` at the pace so far, is at least ``worth``.

    Parameters
    ----------
    worth : float
        What a retrain is worth in units of loss.
    horizon : str or timedelta
        How long a retrain is expected to be of use. Too short a one finds no retrain worth its price.
    quantile : float
        Of the saved loss, between 0 and 0.5: lower is later, and surer.
    fresh_rows, least_gap, greatest_age, back_off, rejected
        As for :func:`~perennial.triggers.regret`.

    Raises
    ------
    ConfigError
        If a number is out of its range.

    References
    ----------
    Regol, Schwinn, Sprague, Coates and Markovich (2025), When to retrain a machine learning model (arXiv 2505.14903),
    which forecasts with a distribution per pair of models and dates; here it is a line and normal errors.
    """
    fresh.check_settings({"worth": worth}, fresh_rows)
    if not (isinstance(quantile, int | float) and 0 < quantile <= 0.5):
        raise ConfigError("quantile", quantile, "give a number above 0, and 0.5 at most")
    check_back_off(back_off, rejected)
    span = duration(horizon, "horizon", positive=True)
    made = Forecast(float(worth), span, float(quantile), fresh_rows, float(back_off), rejected)
    if least_gap is None and greatest_age is None:
        return made
    return limited(made, least_gap=least_gap, greatest_age=greatest_age, back_off=back_off, rejected=rejected)


def _faded(sums: list[float], *more: float) -> list[float]:
    """Sums in which older terms count less, with one more term each."""
    return [(1 - 1 / _POINTS) * old + new for old, new in zip(sums, more, strict=True)]
