"""What the engine asks of a strategy, and the settings that all strategies share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts, Plan, Window
from perennial.core.records import Decision
from perennial.core.times import Duration, duration, spell

StrategyKind = Literal["frozen", "stateless", "stateful", "hybrid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a strategy sees at the start of a turn: facts since the last fit, and since the last training."""

    since_fit: Facts
    since_training: Facts


class Strategy(Protocol):
    """When to do which training.

    ``model`` is the user's estimator or a learner. ``initial`` is the span or the number of rows before the first
    training; None starts untrained. ``window`` chooses the examples of every fit.
    """

    @property
    def model(self) -> Any:
        """The estimator or learner as the user gave it."""
        ...

    @property
    def initial(self) -> timedelta | int | None:
        """Time or rows before the first training."""
        ...

    @property
    def window(self) -> Window:
        """The examples of a fit."""
        ...

    @property
    def kind(self) -> StrategyKind:
        """Which workflow this is."""
        ...

    @property
    def updates(self) -> bool:
        """Whether it updates the model in place, and so needs an updatable learner."""
        ...

    @property
    def refits(self) -> bool:
        """Whether it fits again after the first training, and so needs its window's rows."""
        ...

    @property
    def row_by_row(self) -> bool:
        """Whether it updates after every single row and decides nothing else: rows may then share a turn."""
        ...

    def start(self) -> Any:
        """State before the first turn after the first training."""
        ...

    def plan(self, state: Any, situation: Situation) -> tuple[Plan, Any]:
        """What to do in this turn, why, and the next state."""
        ...

    def trained(self, state: Any, action: str, situation: Situation) -> Any:
        """State after a training in this turn."""
        ...

    def __str__(self) -> str:
        """The strategy in words, without its model."""
        ...


def initial_period(value: Duration | int | None, *, untrained: bool) -> timedelta | int | None:
    """A checked ``initial``: a positive duration, a positive number of rows, or None where that is allowed.

    Raises
    ------
    ConfigError
        If it is none of these.
    """
    if value is None:
        if untrained:
            return None
        raise ConfigError(
            "initial", None, "say how much data the first training gets, e.g. initial='60d' or 5_000 rows"
        )
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ConfigError("initial", value, "give a positive number of rows, or a duration")
        return value
    return duration(value, "initial", positive=True)


def check_window(value: Window) -> Window:
    """``value`` if it is a window, else ``ConfigError``."""
    if not all(callable(getattr(value, name, None)) for name in ("select", "keep")):
        raise ConfigError("window", value, 'give a window, e.g. windows.Sliding("90d")')
    return value


def spell_initial(initial: timedelta | int | None) -> str:
    """The initial period in words."""
    if initial is None:
        return "starts untrained"
    return (
        f"first trained after {initial:,} rows" if isinstance(initial, int) else f"first trained after {spell(initial)}"
    )


def nothing(*decisions: Decision) -> Plan:
    """The plan to do nothing."""
    return Plan(action="nothing", decisions=decisions)
