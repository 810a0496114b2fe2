"""Stateless retraining: model 1, 2, 3, each from scratch on a window."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perennial.core.protocols import Plan, Trigger, Window
from perennial.core.times import Duration
from perennial.strategies.protocol import (
    Situation,
    StrategyKind,
    check_window,
    initial_period,
    nothing,
    spell_initial,
)
from perennial.triggers.combined import check_trigger
from perennial.windows import Expanding


@dataclass(frozen=True, slots=True)
class Stateless:
    """A new model from scratch on a window of the stream whenever the trigger fires.

    Parameters
    ----------
    model : estimator or Learner
        What to train. Each training starts from a fresh instance.
    initial : str, timedelta or int
        How long, or how many rows, before the first training, which uses ``window`` too.
    trigger : Trigger
        When to train again.
    window : Window
        The examples of each training; all so far unless given.
    """

    model: Any
    initial: timedelta | int | None
    trigger: Trigger
    window: Window

    def __init__(self, model: Any, *, initial: Duration | int, trigger: Trigger, window: Window | None = None) -> None:
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "initial", initial_period(initial, untrained=False))
        object.__setattr__(self, "trigger", check_trigger(trigger, "trigger"))
        object.__setattr__(self, "window", check_window(window) if window is not None else Expanding())

    @property
    def kind(self) -> StrategyKind:
        """``"stateless"``."""
        return "stateless"

    @property
    def updates(self) -> bool:
        """Never."""
        return False

    @property
    def refits(self) -> bool:
        """Always."""
        return True

    @property
    def row_by_row(self) -> bool:
        """No."""
        return False

    def start(self) -> Any:
        """The trigger's state."""
        return self.trigger.start()

    def plan(self, state: Any, situation: Situation) -> tuple[Plan, Any]:
        """A fit if the trigger fires."""
        decision, state = self.trigger.step(state, situation.since_fit)
        return (Plan(action="fit", decisions=(decision,)) if decision.fire else nothing(decision)), state

    def trained(self, state: Any, action: str, situation: Situation) -> Any:  # noqa: ARG002
        """Tell the trigger."""
        return self.trigger.trained(state, situation.since_fit)

    def __str__(self) -> str:
        return f"retrained from scratch {self.trigger} on {self.window}, {spell_initial(self.initial)}"
