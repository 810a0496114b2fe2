"""Strategies by the dozen: every combination of intervals, windows and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from perennial.core.errors import ConfigError
from perennial.core.protocols import Trigger, Window
from perennial.core.times import Duration
from perennial.strategies import Stateful, Stateless, Strategy
from perennial.triggers import every


def grid(
    model: Any,
    *,
    initial: Duration | int,
    triggers: Sequence[Duration | int | Trigger] | Mapping[str, Duration | int | Trigger],
    windows: Sequence[Window] | Mapping[str, Window] = (),
    updatable: Any = None,
) -> dict[str, Strategy]:
    """Stateless strategies for every trigger on every window, and stateful ones for every trigger.

    Combinations that ask for the same training share it, so a grid costs far less than its parts.

    Parameters
    ----------
    model : estimator or Learner
        What the stateless strategies train.
    initial : str, timedelta or int
        As in :class:`~perennial.strategies.Stateless`.
    triggers : sequence or mapping
        Intervals (``"7d"``), numbers of rows, or triggers; names are the descriptions unless given.
    windows : sequence or mapping of Window
        E.g. ``[windows.Sliding("30d"), windows.Mix(initial=0.3, recent=0.7, rows=5_000)]``.
    updatable : estimator or Learner, optional
        What the stateful strategies update; none unless given.

    Raises
    ------
    ConfigError
        If nothing is left to combine.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from perennial import windows
    >>> list(grid(LogisticRegression(), initial="60d", triggers=["7d", "30d"], windows=[windows.Sliding("90d")]))
    ['every 7d, the last 90d', 'every 30d, the last 90d']
    """
    when = {name: _trigger(value) for name, value in _named(triggers).items()}
    what = _named(windows)
    found: dict[str, Strategy] = {
        f"{at}, {on_what}": Stateless(model, initial=initial, trigger=trigger, window=window)
        for at, trigger in when.items()
        for on_what, window in what.items()
    }
    if updatable is not None:
        for at, trigger in when.items():
            found[f"{at}, updated"] = Stateful(updatable, initial=initial, trigger=trigger)
    if not found:
        raise ConfigError("windows", windows, "give at least one trigger, and a window or an updatable model")
    return found


def _named(values: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(values, Mapping):
        return dict(values)
    return {str(_trigger(v)) if isinstance(v, str | int) else str(v): v for v in values}


def _trigger(value: Duration | int | Trigger) -> Trigger:
    if isinstance(value, int):
        return every(rows=value)
    if isinstance(value, str | timedelta):
        return every(value)
    return value
