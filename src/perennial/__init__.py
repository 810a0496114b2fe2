"""Perennial keeps deployed machine-learning models current.

It replays a stream of one's own history under stateless retraining, stateful training and hybrids of both, and
says what each would have scored and cost.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from perennial.core.errors import (
    ConfigError,
    DataError,
    FormatError,
    LearnerError,
    LedgerError,
    MissingExtra,
    PerennialError,
)

if TYPE_CHECKING:
    from perennial import learners, metrics, strategies, triggers, windows
    from perennial.replay import BacktestResult, backtest, grid
    from perennial.stream import Stream

__version__ = "0.2.0"

#: where the lazily imported public names live: ``import perennial`` loads no framework, not even Arrow
_HOMES = {
    "BacktestResult": "perennial.replay",
    "Stream": "perennial.stream",
    "backtest": "perennial.replay",
    "grid": "perennial.replay",
}
_MODULES = ("learners", "metrics", "strategies", "triggers", "windows")

__all__ = [
    "BacktestResult",
    "ConfigError",
    "DataError",
    "FormatError",
    "LearnerError",
    "LedgerError",
    "MissingExtra",
    "PerennialError",
    "Stream",
    "backtest",
    "grid",
    "learners",
    "metrics",
    "strategies",
    "triggers",
    "windows",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"perennial.{name}")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'perennial' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
