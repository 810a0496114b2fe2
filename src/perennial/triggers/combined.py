"""Triggers made of triggers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts, Trigger
from perennial.core.records import Decision
from perennial.core.times import Duration, duration, spell


def _step_all(triggers: tuple[Trigger, ...], state: Any, facts: Facts) -> tuple[list[Decision], list[Any]]:
    pairs = [trigger.step(part, facts) for trigger, part in zip(triggers, state, strict=True)]
    return [decision for decision, _ in pairs], [part for _, part in pairs]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Fires when at least one of its triggers does; build it with :func:`any_of`."""

    triggers: tuple[Trigger, ...]

    def start(self) -> Any:
        """One state for each trigger."""
        return [trigger.start() for trigger in self.triggers]

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """Ask every trigger, so that none misses a turn."""
        decisions, state = _step_all(self.triggers, state, facts)
        fired = [d.reason for d in decisions if d.fire]
        reason = " and ".join(fired) if fired else "none of: " + "; ".join(d.reason for d in decisions)
        return Decision(bool(fired), reason), state

    def trained(self, state: Any, facts: Facts) -> Any:
        """Tell every trigger."""
        return [trigger.trained(part, facts) for trigger, part in zip(self.triggers, state, strict=True)]

    def __str__(self) -> str:
        return " or ".join(_grouped(t) for t in self.triggers)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Fires when all of its triggers do in the same turn; build it with :func:`all_of`."""

    triggers: tuple[Trigger, ...]

    def start(self) -> Any:
        """One state for each trigger."""
        return [trigger.start() for trigger in self.triggers]

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """Ask every trigger, so that none misses a turn."""
        decisions, state = _step_all(self.triggers, state, facts)
        waiting = [d.reason for d in decisions if not d.fire]
        reason = "waiting for: " + "; ".join(waiting) if waiting else " and ".join(d.reason for d in decisions)
        return Decision(not waiting, reason), state

    def trained(self, state: Any, facts: Facts) -> Any:
        """Tell every trigger."""
        return [trigger.trained(part, facts) for trigger, part in zip(self.triggers, state, strict=True)]

    def __str__(self) -> str:
        return " and ".join(_grouped(t) for t in self.triggers)


@dataclass(frozen=True, slots=True)
class Limited:
    """A trigger held to a least gap and a greatest age, and backed off by rejections; build with :func:`limited`."""

    trigger: Trigger
    least_gap: timedelta
    greatest_age: timedelta | None
    back_off: float
    rejected: int

    def start(self) -> Any:
        """The inner trigger's state."""
        return self.trigger.start()

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """The inner decision, unless the gap is too small or the age too great."""
        decision, state = self.trigger.step(state, facts)
        age = timedelta(microseconds=facts.now - facts.trained_at)
        if self.greatest_age is not None and age >= self.greatest_age and not decision.fire:
            return Decision(True, f"age {age}, greatest age {spell(self.greatest_age)}"), state
        try:
            gap = self.least_gap * backed_off(facts.rejections, self.back_off, self.rejected)
        except (OverflowError, ValueError):  # an infinite factor of no gap at all is not a number
            gap = timedelta.max if self.least_gap else timedelta(0)
        if self.greatest_age is not None:
            gap = min(gap, self.greatest_age)
        if decision.fire and age < gap:
            why = f" after {facts.rejections} rejections" if facts.rejections >= self.rejected else ""
            return Decision(
                False, f"held back, {age} since the last training, least gap {gap}{why}: {decision.reason}"
            ), state
        return decision, state

    def trained(self, state: Any, facts: Facts) -> Any:
        """Tell the inner trigger."""
        return self.trigger.trained(state, facts)

    def __str__(self) -> str:
        limits = []
        if self.least_gap:
            limits.append(f"at least {spell(self.least_gap)} apart")
        if self.greatest_age is not None:
            limits.append(f"at most {spell(self.greatest_age)} apart")
        return f"{self.trigger} ({', '.join(limits)})"


def _grouped(trigger: Trigger) -> str:
    return f"({trigger})" if isinstance(trigger, AnyOf | AllOf) and len(trigger.triggers) > 1 else str(trigger)


def any_of(*triggers: Trigger) -> AnyOf:
    """A trigger that fires when at least one of ``triggers`` does.

    Raises
    ------
    ConfigError
        If none is given.
    """
    return AnyOf(_some(triggers))


def all_of(*triggers: Trigger) -> AllOf:
    """A trigger that fires when all of ``triggers`` do in the same turn.

    Raises
    ------
    ConfigError
        If none is given.
    """
    return AllOf(_some(triggers))


def _some(triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
    if not triggers:
        raise ConfigError("triggers", (), "give at least one trigger")
    for trigger in triggers:
        check_trigger(trigger, "triggers")
    return triggers


def check_trigger(trigger: Trigger, field: str) -> Trigger:
    """``trigger`` if it can be asked, else ``ConfigError``."""
    if not all(callable(getattr(trigger, name, None)) for name in ("start", "step", "trained")):
        raise ConfigError(field, trigger, 'give a trigger, e.g. triggers.every("7d")')
    return trigger


def limited(
    trigger: Trigger,
    *,
    least_gap: Duration | None = None,
    greatest_age: Duration | None = None,
    back_off: float = 2.0,
    rejected: int = 2,
) -> Limited:
    """``trigger``, held to limits.

    Parameters
    ----------
    trigger : Trigger
        What decides within the limits.
    least_gap : str or timedelta, optional
        Never fire sooner after a training.
    greatest_age : str or timedelta, optional
        Fire in any case when the last training is this old.
    back_off : float
        From the ``rejected``-th rejection by the gate since the last promotion on, the least gap is multiplied by this
        once more for each.
    rejected : int
        See ``back_off``.

    Raises
    ------
    ConfigError
        If neither limit is given, the gap is not below the age, or ``back_off`` is below 1.
    """
    check_trigger(trigger, "trigger")
    if least_gap is None and greatest_age is None:
        raise ConfigError("limited", None, "give least_gap=, greatest_age= or both")
    gap = duration(least_gap, "least_gap") if least_gap is not None else timedelta(0)
    age = duration(greatest_age, "greatest_age", positive=True) if greatest_age is not None else None
    if age is not None and gap >= age:
        raise ConfigError("least_gap", spell(gap), f"give less than greatest_age, {spell(age)}")
    check_back_off(back_off, rejected)
    return Limited(trigger, gap, age, float(back_off), rejected)


def check_back_off(back_off: float, rejected: int) -> None:
    """Raise ``ConfigError`` if these are no factor and no number of rejections."""
    if not isinstance(back_off, int | float) or not 1 <= back_off < float("inf"):
        raise ConfigError("back_off", back_off, "give a factor of at least 1")
    if not isinstance(rejected, int) or isinstance(rejected, bool) or rejected < 1:
        raise ConfigError("rejected", rejected, "give a positive whole number of rejections")


def backed_off(rejections: int, back_off: float, rejected: int) -> float:
    """What to multiply by: ``back_off`` once for each rejection from the ``rejected``-th on; perhaps infinite."""
    try:
        return float(back_off) ** max(0, rejections - rejected + 1)
    except OverflowError:
        return float("inf")
