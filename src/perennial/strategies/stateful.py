"""Stateful training: model 1.0, 1.1, 1.2, each going on from the one before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perennial.core.protocols import Plan, Trigger, Window
from perennial.core.times import Duration
from perennial.strategies.protocol import Situation, StrategyKind, initial_period, nothing, spell_initial
from perennial.triggers.combined import check_trigger
from perennial.triggers.every import Every
from perennial.windows import Expanding


@dataclass(frozen=True, slots=True)
class Stateful:
    """One model, trained on the initial data and then updated with each example once, as its label comes.

    Parameters
    ----------
    model : estimator or Learner
        What to train; it must be updatable.
    initial : str, timedelta, int or None
        How long, or how many rows, before the first training; None starts with an untrained model.
    trigger : Trigger
        When to update, with all examples that became known since the last update.
    """

    model: Any
    initial: timedelta | int | None
    trigger: Trigger
    window: Window

    def __init__(self, model: Any, *, initial: Duration | int | None, trigger: Trigger) -> None:
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "initial", initial_period(initial, untrained=True))
        object.__setattr__(self, "trigger", check_trigger(trigger, "trigger"))
        object.__setattr__(self, "window", Expanding())

    @property
    def kind(self) -> StrategyKind:
        """``"stateful"``."""
        return "stateful"

    @property
    def updates(self) -> bool:
        """Always."""
        return True

    @property
    def refits(self) -> bool:
        """Never."""
        return False

    @property
    def row_by_row(self) -> bool:
        """Whether every single row is learned as soon as its label is known."""
        return isinstance(self.trigger, Every) and self.trigger.rows == 1

    def start(self) -> Any:
        """The trigger's state."""
        return self.trigger.start()

    def plan(self, state: Any, situation: Situation) -> tuple[Plan, Any]:
        """An update if the trigger fires."""
        decision, state = self.trigger.step(state, situation.since_training)
        return (Plan(action="update", decisions=(decision,)) if decision.fire else nothing(decision)), state

    def trained(self, state: Any, action: str, situation: Situation) -> Any:  # noqa: ARG002
        """Tell the trigger."""
        return self.trigger.trained(state, situation.since_training)

    def __str__(self) -> str:
        return f"updated {self.trigger}, {spell_initial(self.initial)}"
