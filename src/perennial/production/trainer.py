"""Trainings in production: each is saved at once, loaded back, and gone on from as it was saved.

A run that was never interrupted and one that was recovered are then the same code on the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from perennial.core.errors import LearnerError
from perennial.core.features import Features
from perennial.core.protocols import Learner, Trained, Trust
from perennial.learners import timing
from perennial.learners.golden import reproduces
from perennial.learners.saved import sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A training's result as it is kept."""

    blob: bytes
    state: str
    cpu_seconds: float


@final
class SavingTrainer:
    """Does every training, and keeps what was saved of it until it is fetched.

    Parameters
    ----------
    trust : Trust
        In which forms models may be saved.

    Attributes
    ----------
    probe : Features, optional
        Rows that a model must predict after loading as it did before saving, bit for bit.
    made : list of Made
        The trainings since the list was last emptied, in order.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self.probe: Features | None = None
        self.made: list[Made] = []

    def cpu_seconds(self) -> float:
        """CPU seconds used so far by this process, all threads."""
        return time.process_time()

    def latency(self, model: Learner, features: Features) -> timedelta:
        """The shortest of several predictions of a single row."""
        return timing.latency(model, features)

    def obtain(self, key: str | None, template: Learner, make: Callable[[], Learner]) -> Trained:  # noqa: ARG002
        """The model that ``make`` gives, as it is after it was saved and loaded.

        Raises
        ------
        LearnerError
            If it does not predict after loading what it did before.
        """
        before = time.process_time()
        model = make()
        seconds = time.process_time() - before
        blob = model.save(self._trust)
        loaded = template.load(blob, self._trust.recorded(sha256(blob)))
        if self.probe is not None and not reproduces(model, loaded, self.probe):
            raise LearnerError(
                f"{model.name} predicts otherwise after it was saved and loaded: it cannot be kept, and is not promoted"
            )
        self.made.append(Made(blob=blob, state=loaded.digest(), cpu_seconds=seconds))
        return Trained(model=loaded, cpu_seconds=seconds, shared=False)
