"""Stateful training with stateless resets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

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
class Hybrid:
    """A stateful line that is now and then replaced by a new model from scratch.

    A reset wins over an update that fires in the same turn.

    Parameters
    ----------
    model : estimator or Learner
        What to train; it must be updatable.
    initial : str, timedelta or int
        How long, or how many rows, before the first training, which uses ``window`` too.
    trigger : Trigger
        When to update.
    reset : Trigger
        When to fit a new model from scratch.
    window : Window
        The examples of each fit; all so far unless given.
    """

    model: Any
    initial: timedelta | int | None
    trigger: Trigger
    reset: Trigger
    window: Window

    def __init__(
        self, model: Any, *, initial: Duration | int, trigger: Trigger, reset: Trigger, window: Window | None = None
    ) -> None:
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "initial", initial_period(initial, untrained=False))
        object.__setattr__(self, "trigger", check_trigger(trigger, "trigger"))
        object.__setattr__(self, "reset", check_trigger(reset, "reset"))
        object.__setattr__(self, "window", check_window(window) if window is not None else Expanding())

    @property
    def kind(self) -> StrategyKind:
        """``"hybrid"``."""
        return "hybrid"

    @property
    def updates(self) -> bool:
        """Always."""
        return True

    @property
    def refits(self) -> bool:
        """Always."""
        return True

    @property
    def row_by_row(self) -> bool:
        """No: a reset may fall between any two rows."""
        return False

    def start(self) -> Any:
        """The states of both triggers."""
        return {"update": self.trigger.start(), "reset": self.reset.start()}

    def plan(self, state: Any, situation: Situation) -> tuple[Plan, Any]:
        """A fit if the reset fires, else an update if that does."""
        reset, after_reset = self.reset.step(state["reset"], situation.since_fit)
        update, after_update = self.trigger.step(state["update"], situation.since_training)
        state = {"update": after_update, "reset": after_reset}
        if reset.fire:
            otherwise: Literal["nothing", "update"] = "update" if update.fire else "nothing"
            return Plan(action="fit", decisions=(reset,), otherwise=otherwise), state
        if update.fire:
            return Plan(action="update", decisions=(update, reset)), state
        return nothing(update, reset), state

    def trained(self, state: Any, action: str, situation: Situation) -> Any:
        """Tell the update trigger of every training, and the reset trigger of fits."""
        update = self.trigger.trained(state["update"], situation.since_training)
        reset = self.reset.trained(state["reset"], situation.since_fit) if action == "fit" else state["reset"]
        return {"update": update, "reset": reset}

    def __str__(self) -> str:
        return (
            f"updated {self.trigger}, reset from scratch {self.reset} on {self.window}, {spell_initial(self.initial)}"
        )
