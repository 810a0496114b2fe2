"""A strategy that says what it would do, and does nothing: for a deployment that is to be watched first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from perennial.core.protocols import Plan, Window
from perennial.core.records import Decision
from perennial.strategies import Situation, Strategy
from perennial.strategies.protocol import StrategyKind


@dataclass(frozen=True, slots=True)
class Observing:
    """Another strategy's decisions without its trainings.

    Its triggers are asked at every turn, and nothing is told them: a training that is due is due until it is done. What
    a stateful line would have learned waits for the first turn that acts again.

    Parameters
    ----------
    strategy : Strategy
        What decides.
    """

    strategy: Strategy

    @property
    def model(self) -> Any:
        """The inner strategy's."""
        return self.strategy.model

    @property
    def initial(self) -> timedelta | int | None:
        """The inner strategy's."""
        return self.strategy.initial

    @property
    def window(self) -> Window:
        """The inner strategy's: its rows are kept, so that it can act again."""
        return self.strategy.window

    @property
    def kind(self) -> StrategyKind:
        """The inner strategy's."""
        return self.strategy.kind

    @property
    def updates(self) -> bool:
        """The inner strategy's."""
        return self.strategy.updates

    @property
    def refits(self) -> bool:
        """The inner strategy's."""
        return self.strategy.refits

    @property
    def row_by_row(self) -> bool:
        """No: every turn is looked at."""
        return False

    def start(self) -> Any:
        """The inner strategy's state."""
        return self.strategy.start()

    def plan(self, state: Any, situation: Situation) -> tuple[Plan, Any]:
        """What the inner strategy would do, as a decision that does not fire."""
        plan, state = self.strategy.plan(state, situation)
        if plan.action == "nothing":
            return plan, state
        verb = {"fit": "train a new model", "update": "update"}[plan.action]
        told = tuple(Decision(False, f"observed, would {verb}: {d.reason}") if d.fire else d for d in plan.decisions)
        return replace(plan, action="nothing", decisions=told), state

    def trained(self, state: Any, action: str, situation: Situation) -> Any:
        """Never called with a training."""
        return self.strategy.trained(state, action, situation)

    def __str__(self) -> str:
        return str(self.strategy)
