"""Learners: every framework behind one protocol, each in a file of its own that is imported when it is needed.

Strategies take the user's own estimator, or a path to one, and ask :func:`as_learner`. The other names say how an
estimator is to be updated, or change what comes out of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from perennial.learners.factory import (
    FRAMEWORKS,
    AccuracyUpdated,
    Calibrated,
    Continued,
    Decayed,
    EarlyStopped,
    FineTuned,
    LeafRefit,
    PriorCorrected,
    Rebuilt,
    Sklearn,
    SlidingForest,
    Tuned,
    as_learner,
)

if TYPE_CHECKING:
    from perennial.learners import committee, hashed, plain

__all__ = [
    "FRAMEWORKS",
    "AccuracyUpdated",
    "Calibrated",
    "Continued",
    "Decayed",
    "EarlyStopped",
    "FineTuned",
    "LeafRefit",
    "PriorCorrected",
    "Rebuilt",
    "Sklearn",
    "SlidingForest",
    "Tuned",
    "as_learner",
    "committee",
    "hashed",
    "plain",
]


def __getattr__(name: str) -> object:
    if name in ("committee", "hashed", "plain"):
        return import_module(f"perennial.learners.{name}")
    raise AttributeError(f"module 'perennial.learners' has no attribute {name!r}")
