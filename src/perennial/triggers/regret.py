"""Retrain when staleness has cost as much as a retrain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perennial.core.protocols import Facts
from perennial.core.records import Decision
from perennial.core.times import Duration
from perennial.triggers import fresh
from perennial.triggers.combined import Limited, backed_off, check_back_off, limited

_SLACK = 0.5  # of the standard deviation of a block's mean
_SURE = 4.0  # such deviations that regret must have come to, however cheap a retrain is


@dataclass(frozen=True, slots=True)
class Regret:
    """Fires when the excess loss since the last training has cost as much as a retrain; build with :func:`regret`."""

    worth: float
    kappa: float
    fresh_rows: int = 100
    back_off: float = 2.0
    rejected: int = 2

    def start(self) -> Any:
        """Accumulated regret, beside what is known of fresh models and of noise."""
        return fresh.start(regret=0.0)

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """Add the excess loss of a block that is full, less a slack for noise; fire where a retrain would have paid."""
        fresh.check(state, "regret")
        if facts.own and not state["own"]:  # what was on trial serves: from here on the losses are its own
            state = self.trained(state, facts)
        block, state = fresh.take({**state, "own": facts.own}, facts, self.fresh_rows)
        due = self.kappa * self.worth * backed_off(facts.rejections, self.back_off, self.rejected)
        if block is None:
            waiting = f"{state['open'][0]:,} of {self.fresh_rows:,} scored rows" if facts.loss.n else "nothing scored"
            return Decision(False, f"regret {state['regret']:.4g} of {due:g}; {waiting}"), state
        if block.fresh:
            return Decision(False, f"learning the fresh level: {block.mean:.4g} per row"), state
        slack = _SLACK * block.sigma + block.error
        state["regret"] = max(0.0, state["regret"] + block.rows * (block.excess - slack))
        noise = _SURE * block.sigma * block.rows
        told = f"staleness has cost {state['regret']:.4g} {facts.loss.name or 'loss'}, a retrain is worth {due:g}"
        if due <= state["regret"] < noise:
            return Decision(False, f"{told}; below {noise:.4g} it may be noise"), state
        return Decision(state["regret"] >= due, told), state

    def trained(self, state: Any, facts: Facts) -> Any:  # noqa: ARG002 - the protocol's arguments
        """Regret starts again; what fresh models lose is remembered."""
        return fresh.trained(state, regret=0.0)

    def __str__(self) -> str:
        return f"when staleness has cost {self.kappa * self.worth:g} of loss"


def regret(
    worth: float,
    *,
    kappa: float = 0.5,
    fresh_rows: int = 100,
    least_gap: Duration | None = None,
    greatest_age: Duration | None = None,
    back_off: float = 2.0,
    rejected: int = 2,
) -> Regret | Limited:
    """A trigger that fires when staleness has cost as much as a retrain: cumulative regret with slack.

    Scored rows are gathered into blocks of at least ``fresh_rows`` rows, a turn of more being a block of its own. After
    every block of N rows ``S = max(0, S + N (l - b - k))``, and it fires when ``S >= kappa * worth``:

    - ``l`` is the block's mean loss;
    - ``b`` is the fresh level: the mean of the first two blocks after each training, over the last twelve such blocks;
      where trainings differ in it by more than noise, that of the last training, shrunk to the mean of all;
    - ``k`` is half the standard deviation of a block's mean, sigma, and the standard error of ``b``, which is great as
      long as few models have been fresh. Sigma is taken from the differences of neighbouring blocks.

    It does not fire while S is below ``4 N sigma``: that much comes about by chance.

    Parameters
    ----------
    worth : float
        What a retrain is worth in units of loss: its price divided by the price of one unit, e.g. how many wrong
        predictions it may cost.
    kappa : float
        1 is optimal for staleness that grows linearly: the cost rate ``c / T + a T / 2`` is least where the regret
        since the last training has come to ``c``. 0.5 acts sooner on jumps.
    fresh_rows : int
        Scored rows that a block holds at least. With fewer, noise decides what a fresh model loses.
    least_gap, greatest_age : str or timedelta, optional
        Never fire sooner after a training; fire in any case when the last one is this old: as in
        :func:`~perennial.triggers.limited`, whose trigger is given back.
    back_off, rejected : float, int
        From the ``rejected``-th rejection by the gate since the last promotion on, both what staleness must cost and
        the least gap are multiplied by this once more for each: a retrain that helps nobody is not tried again for the
        same regret. 1 leaves them as they are.

    Raises
    ------
    ConfigError
        If ``worth``, ``kappa`` or ``fresh_rows`` is not positive, or the limits are none.

    References
    ----------
    Mahadevan and Mathioudakis (2023), Cost-Aware Retraining for Machine Learning (arXiv 2310.04216), for the
    trade-off; the one-sided accumulation with slack is Page's CUSUM (1954, Biometrika 41).
    """
    fresh.check_settings({"worth": worth, "kappa": kappa}, fresh_rows)
    check_back_off(back_off, rejected)
    made = Regret(float(worth), float(kappa), fresh_rows, float(back_off), rejected)
    if least_gap is None and greatest_age is None:
        return made
    return limited(made, least_gap=least_gap, greatest_age=greatest_age, back_off=back_off, rejected=rejected)
