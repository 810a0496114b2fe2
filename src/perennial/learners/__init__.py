"""Learners: every framework behind one protocol, each in a file of its own that is imported when it is needed.

Strategies take the user's own estimator, or a path to one, and ask :func:`as_learner`. The other names say how an
estimator is to be updated, or change what comes out of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from perennial.learners.factory import (
    FRAMEWORKS,
    Calibrated,
    Continued,
    Decayed,
    EarlyStopped,
    FineTuned,
    LeafRefit,
    Sklearn,
    SlidingForest,
    as_learner,
)

if TYPE_CHECKING:
    from perennial.learners import plain

__all__ = [
    "FRAMEWORKS",
    "Calibrated",
    "Continued",
    "Decayed",
    "EarlyStopped",
    "FineTuned",
    "LeafRefit",
    "Sklearn",
    "SlidingForest",
    "as_learner",
    "plain",
]


def __getattr__(name: str) -> object:
    if name == "plain":
        return import_module("perennial.learners.plain")
    raise AttributeError(f"module 'perennial.learners' has no attribute {name!r}")
