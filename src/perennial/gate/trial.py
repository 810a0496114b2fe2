"""The trial of a challenger line: what is known of it so far, and what the gate makes of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from perennial.core.protocols import Evidence, Gate, Learner
from perennial.core.records import Label, Prediction, Verdict, Version
from perennial.gate.evidence import Evidence as PairedEvidence
from perennial.gate.paired import Checks
from perennial.gate.paired import Gate as PairedGate
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
    slices: dict[str, PairedEvidence] = field(default_factory=dict)

    @classmethod
    def begin(cls, gate: Gate, number: int, major: int, base: Line, now: int) -> Self:
        """A trial without evidence."""
        trial = cls(gate, number, major, base, now, gate.begin())
        trial.slices = _slices_of(gate, {})
        return trial

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
        members: NDArray[np.bool_] | None = None,
    ) -> None:
        """Rows that both lines had predicted before either learned them, n of them; those not ``sound`` do not count.

        ``served`` is of the line that serves, ``shadow`` of the other; ``members``, shape (n, slices), says which rows
        belong to which slice.
        """
        now, _ = bounded(served, labels, classes)
        beside, _ = bounded(shadow, labels, classes)
        difference = beside - now if self.gate.mode == "before" else now - beside
        paired = ~np.isnan(difference) & sound
        if paired.any():
            blocks, difference = self.gate.blocks(time[paired], position[paired]), difference[paired]
            self.evidence = self.evidence.add(blocks, difference)
            if members is not None:
                for (name, found), here in zip(self.slices.items(), members[paired].T, strict=True):
                    self.slices[name] = found.add(blocks[here], difference[here])

    def judge(self, now: int, challenger: Version) -> Verdict:
        """The gate's verdict on the newest version of the line."""
        about: dict[str, Any] = {"now": now, "begun": self.begun, "champion": self.base.version}
        if isinstance(self.gate, PairedGate):
            return self.gate.judge(self.evidence, challenger=challenger, checks=Checks(slices=self.slices), **about)
        return self.gate.judge(self.evidence, challenger=challenger, **about)

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values, models by their numbers."""
        return {
            "gate": repr(self.gate),
            "number": self.number,
            "major": self.major,
            "base": self.base.version.number,
            "begun": self.begun,
            "evidence": self.evidence.to_plain(),
            "shown": [line.version.number for line in self.shown],
            "slices": {name: evidence.to_plain() for name, evidence in self.slices.items()},
        }

    @classmethod
    def restore(cls, plain: Mapping[str, Any], gate: Gate, lines: Mapping[str, Line]) -> Self | None:
        """Go on from what :meth:`state` gave; None if the gate has other settings: the trial under the old is over."""
        if plain["gate"] != repr(gate):
            return None
        return cls(
            gate,
            plain["number"],
            plain["major"],
            lines[plain["base"]],
            plain["begun"],
            gate.resume(plain["evidence"]),
            [lines[number] for number in plain["shown"]],
            _slices_of(gate, plain["slices"]),
        )


def _slices_of(gate: Gate, plain: Mapping[str, Any]) -> dict[str, PairedEvidence]:
    """Evidence of each slice in the order of the gate's, which that of rows follows; JSON keeps no order."""
    if not isinstance(gate, PairedGate):
        return {}
    return {name: gate.resume(plain[name]) if name in plain else gate.begin() for name in gate.slices}
