"""A level of loss that must not be passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts
from perennial.core.records import Decision


@dataclass(frozen=True, slots=True)
class LossAbove:
    """Fires when the recent mean loss passes a level; build it with :func:`loss_above`."""

    level: float
    rows: int

    def start(self) -> Any:
        """The recent turns' ``[n, sum of losses]``, oldest first."""
        return []

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """Fire if the mean over the newest turns that hold at least ``rows`` examples is above the level."""
        turns = [*state, [facts.loss.n, facts.loss.total]] if facts.loss.n else list(state)
        n, gone = sum(n for n, _ in turns), 0
        while gone < len(turns) and n - turns[gone][0] >= self.rows:
            n -= turns[gone][0]
            gone += 1
        del turns[:gone]
        total = sum(t for _, t in turns)
        if n < self.rows:
            return Decision(False, f"{n:,} scored rows since the last training, {self.rows:,} needed"), turns
        what = facts.loss.name or "loss"
        return Decision(
            total / n > self.level, f"mean {what} {total / n:.4g} on {n:,} rows, level {self.level:g}"
        ), turns

    def trained(self, state: Any, facts: Facts) -> Any:  # noqa: ARG002 - the protocol's arguments
        """The new model is judged by its own predictions only."""
        return []

    def __str__(self) -> str:
        return f"when the loss on {self.rows:,} rows is above {self.level:g}"


def loss_above(level: float, *, rows: int = 200) -> LossAbove:
    """A trigger that fires when the mean loss of the newest ``rows`` scored examples is above ``level``.

    The loss is log loss where the model gives probabilities, else the share of wrong predictions; for regression
    the absolute error. It sees an example once its label is known, and only if the current MAJOR had predicted it.

    Raises
    ------
    ConfigError
        If ``level`` is not a number, or ``rows`` not positive.
    """
    if not isinstance(level, int | float) or isinstance(level, bool) or level != level:
        raise ConfigError("level", level, "give a number, e.g. 0.6")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        raise ConfigError("rows", rows, "give a positive whole number of rows")
    return LossAbove(float(level), rows)
