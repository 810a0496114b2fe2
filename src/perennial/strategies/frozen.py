"""Train once and never again: the line that every other strategy must beat."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perennial.core.protocols import Plan, Window
from perennial.core.times import Duration
from perennial.strategies.protocol import Situation, StrategyKind, initial_period, nothing, spell_initial
from perennial.windows import Expanding


@dataclass(frozen=True, slots=True)
class Frozen:
    """One model, trained on the initial data and never again.

    Parameters
    ----------
    model : estimator or Learner
        What to train.
    initial : str, timedelta or int
        How long, or how many rows, before the training; it learns all examples known then.
    """

    model: Any
    initial: timedelta | int | None
    window: Window

    def __init__(self, model: Any, *, initial: Duration | int) -> None:
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "initial", initial_period(initial, untrained=False))
        object.__setattr__(self, "window", Expanding())

    @property
    def kind(self) -> StrategyKind:
        """``"frozen"``."""
        return "frozen"

    @property
    def updates(self) -> bool:
        """Never."""
        return False

    @property
    def refits(self) -> bool:
        """Never."""
        return False

    @property
    def row_by_row(self) -> bool:
        """No."""
        return False

    def start(self) -> Any:
        """No state."""
        return None

    def plan(self, state: Any, situation: Situation) -> tuple[Plan, Any]:  # noqa: ARG002 - the protocol's arguments
        """Nothing."""
        return nothing(), state

    def trained(self, state: Any, action: str, situation: Situation) -> Any:  # noqa: ARG002
        """No state."""
        return state

    def __str__(self) -> str:
        return f"never retrained, {spell_initial(self.initial)}"
