"""The trial of a challenger line: what is known of it so far, and what the gate makes of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from perennial.core.protocols import Evidence, Gate, Learner
from perennial.core.records import Label, Prediction, Verdict, Version
from perennial.metrics.losses import bounded


@dataclass(slots=True)
class Line:
    """A model that serves or waits to serve, and the version it is."""

    version: Version
    model: Learner


@dataclass(slots=True)
class Trial:
    """A challenger line and the champion of record: one of them serves, the other predicts unseen beside it."""

    gate: Gate
    number: int  # trials so far: predictions of an older one are no evidence
    major: int  # the challenger line
    base: Line  # the champion of record
    begun: int
    evidence: Evidence
    shown: list[Line] = field(default_factory=list)  # mode before: its newest ready version, and those not ready yet

    @classmethod
    def begin(cls, gate: Gate, number: int, major: int, base: Line, now: int) -> Self:
        """A trial without evidence."""
        return cls(gate, number, major, base, now, gate.begin())

    def ready(self, now: int) -> Line | None:
        """The newest version that is ready; older ones are let go."""
        while len(self.shown) > 1 and self.shown[1].version.ready_at <= now:
            self.shown.pop(0)
        return self.shown[0] if self.shown and self.shown[0].version.ready_at <= now else None

    def opening(self, number: str) -> Verdict:
        """What is said when a version is put on trial."""
        how = "predicts unseen beside" if self.gate.mode == "before" else "serves at once, and is held against"
        against = self.base.version.number
        reason = f"{how} {against}, until labels tell them apart"
        return Verdict(outcome="keep", version=number, reason=reason, champion=against)

    def add(
        self,
        served: Prediction,
        shadow: Prediction,
        labels: NDArray[Any],
        classes: Sequence[Label],
        *,
        time: NDArray[np.int64],
        position: NDArray[np.int64],
        sound: NDArray[np.bool_],
    ) -> None:
        """Rows that both lines had predicted before either learned them, n of them; those not ``sound`` do not count.

        ``served`` is of the line that serves, ``shadow`` of the other.
        """
        here, _ = bounded(served, labels, classes)
        beside, _ = bounded(shadow, labels, classes)
        difference = beside - here if self.gate.mode == "before" else here - beside
        paired = ~np.isnan(difference) & sound
        if paired.any():
            blocks = self.gate.blocks(time[paired], position[paired])
            self.evidence = self.evidence.add(blocks, difference[paired])

    def judge(self, now: int, challenger: Version) -> Verdict:
        """The gate's verdict on the newest version of the line."""
        return self.gate.judge(
            self.evidence, now=now, begun=self.begun, challenger=challenger, champion=self.base.version
        )

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values, models by their numbers."""
        return {
            "gate": str(self.gate),
            "number": self.number,
            "major": self.major,
            "base": self.base.version.number,
            "begun": self.begun,
            "evidence": self.evidence.to_plain(),
            "shown": [line.version.number for line in self.shown],
        }

    @classmethod
    def restore(cls, plain: Mapping[str, Any], gate: Gate, lines: Mapping[str, Line]) -> Self | None:
        """Go on from what :meth:`state` gave; None if the gate has other settings: the trial under the old is over."""
        if plain["gate"] != str(gate):
            return None
        return cls(
            gate,
            plain["number"],
            plain["major"],
            lines[plain["base"]],
            plain["begun"],
            gate.resume(plain["evidence"]),
            [lines[number] for number in plain["shown"]],
        )
