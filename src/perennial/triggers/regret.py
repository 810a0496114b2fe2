"""Retrain when staleness has cost as much as a retrain."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import pstdev
from typing import Any

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts
from perennial.core.records import Decision

_FRESH = 2  # batches after a training that tell what a fresh model loses
_MEMORY = 12  # fresh batches remembered across trainings


@dataclass(frozen=True, slots=True)
class Regret:
    """Fires when the excess loss since the last training has cost as much as a retrain; build with :func:`regret`."""

    worth: float
    kappa: float

    def start(self) -> Any:
        """Accumulated regret, batches scored since the last training, and the fresh batches' mean losses."""
        return {"regret": 0.0, "batches": 0, "fresh": []}

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """Add this turn's excess loss over the fresh level, less a slack for noise; fire at ``kappa * worth``."""
        loss = facts.loss
        due = self.kappa * self.worth
        if not loss.n:
            return Decision(False, f"regret {state['regret']:.4g} of {due:g}; nothing scored"), state
        state = {**state, "batches": state["batches"] + 1}
        if state["batches"] <= _FRESH:
            state["fresh"] = [*state["fresh"], loss.mean][-_MEMORY:]
            return Decision(False, f"learning the fresh level: {loss.mean:.4g} per row"), state
        level = sum(state["fresh"]) / len(state["fresh"])
        slack = 0.5 * pstdev(state["fresh"]) if len(state["fresh"]) > 1 else 0.0
        state["regret"] = max(0.0, state["regret"] + loss.total - loss.n * (level + slack))
        return Decision(
            state["regret"] >= due,
            f"staleness has cost {state['regret']:.4g} {loss.name or 'loss'}, a retrain is worth {due:g}",
        ), state

    def trained(self, state: Any, facts: Facts) -> Any:  # noqa: ARG002 - the protocol's arguments
        """Regret starts again; what fresh models lose is remembered."""
        return {**state, "regret": 0.0, "batches": 0}

    def __str__(self) -> str:
        return f"when staleness has cost {self.kappa * self.worth:g} of loss"


def regret(worth: float, *, kappa: float = 0.5) -> Regret:
    """A trigger that fires when staleness has cost as much as a retrain: cumulative regret with slack.

    After every batch ``S = max(0, S + n (l - b - k))`` with ``l`` the batch's mean loss, ``b`` the mean of the first
    two batches after each training, over the last twelve such batches, and ``k`` half their standard deviation;
    it fires when ``S >= kappa * worth``.

    Parameters
    ----------
    worth : float
        What a retrain is worth in units of loss: its price divided by the price of one unit, e.g. how many wrong
        predictions it may cost.
    kappa : float
        1 is optimal for staleness that grows linearly: the cost rate ``c / T + a T / 2`` is least where the regret
        since the last training has come to ``c``. 0.5 acts sooner on jumps.

    Raises
    ------
    ConfigError
        If ``worth`` or ``kappa`` is not positive.

    References
    ----------
    Mahadevan and Mathioudakis (2023), Cost-Aware Retraining for Machine Learning (arXiv 2310.04216), for the
    trade-off; the one-sided accumulation with slack is Page's CUSUM (1954, Biometrika 41).
    """
    for field, value in (("worth", worth), ("kappa", kappa)):
        if not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise ConfigError(field, value, "give a positive number")
    return Regret(float(worth), float(kappa))
