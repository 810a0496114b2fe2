"""The trial of a challenger line: what is known of it so far, and what the gate makes of that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from perennial.core.features import Features, Schema
from perennial.core.protocols import Evidence, Gate, GoldenSet, Learner, Sized, Trainer
from perennial.core.records import Label, Prediction, Verdict, Version
from perennial.core.times import micros
from perennial.gate.evidence import Evidence as PairedEvidence
from perennial.gate.margin import Margin
from perennial.gate.paired import Checks
from perennial.gate.paired import Gate as PairedGate
from perennial.metrics.losses import LARGEST_LOSS, bounded


@dataclass(slots=True)
class Line:
    """A model that serves or waits to serve, and the version it is."""

    version: Version
    model: Learner


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of the newest version of a line that predicted; ``golden`` is challenger minus champion."""

    version: str | None = None
    golden: float | None = None
    size: int | None = None
    latency: int | None = None  # microseconds


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
    golden: GoldenSet | None = None
    base_golden: float | None = None  # the champion's mean loss on the golden set
    measured: Measured = Measured()
    margin: Margin | None = None  # of a gate that has one: fixed when the trial begins
    held_out: int = 0  # rows of the evidence that a fit had left out

    @classmethod
    def begin(
        cls,
        gate: Gate,
        number: int,
        major: int,
        base: Line,
        now: int,
        *,
        golden: GoldenSet | None = None,
        margin: Margin | None = None,
    ) -> Self:
        """A trial without evidence."""
        trial = cls(gate, number, major, base, now, gate.begin(), golden=golden, margin=margin)
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
        return self._about(Verdict(outcome="keep", version=number, reason=reason, champion=against))

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
        shown, _ = bounded(served, labels, classes)
        unseen, _ = bounded(shadow, labels, classes)
        with np.errstate(invalid="ignore"):
            difference = unseen - shown if self.gate.mode == "before" else shown - unseen
        paired = (np.abs(difference) <= LARGEST_LOSS) & sound
        if paired.any():
            blocks, difference = self.gate.blocks(time[paired], position[paired]), difference[paired]
            self.evidence = self.evidence.add(blocks, difference)
            if members is not None:
                for (name, found), here in zip(self.slices.items(), members[paired].T, strict=True):
                    self.slices[name] = found.add(blocks[here], difference[here])

    def measure(self, line: Line, features: Features, trainer: Trainer) -> str | None:
        """Measure a version of the challenger line that predicts ``features``, once; gives what cannot be, in words."""
        if not isinstance(self.gate, PairedGate) or self.measured.version == line.version.number:
            return None
        golden, note = self._golden_loss(line, features.schema)
        size = latency = None
        if self.gate.largest_bytes is not None:
            size = cast(Sized, line.model).size()  # checked before any work
        if self.gate.largest_latency is not None:
            latency = micros(trainer.latency(line.model, features))
        self.measured = Measured(version=line.version.number, golden=golden, size=size, latency=latency)
        return note

    def _golden_loss(self, line: Line, schema: Schema) -> tuple[float | None, str | None]:
        """How much larger the mean loss on the golden set is than the champion's, and what went wrong.

        NaN if the challenger does not predict all of it; None if the champion does not: then nobody is held to it.
        """
        if not isinstance(self.gate, PairedGate) or self.gate.golden is None or self.golden is None:
            return None, None
        rows = self.golden.features(schema)
        if self.base_golden is None:
            loss, fault = _mean_loss(self.base, rows, self.golden)
            if fault is not None:
                return None, f"{fault}: nothing can be held to it, and nothing is promoted"
            self.base_golden = loss
        loss, fault = _mean_loss(line, rows, self.golden)
        return loss - self.base_golden, fault

    def judge(self, now: int, challenger: Version) -> Verdict:
        """The gate's verdict on the newest version of the line."""
        about: dict[str, Any] = {"now": now, "begun": self.begun, "champion": self.base.version}
        if isinstance(self.gate, PairedGate):
            found = self.measured
            checks = Checks(
                slices=self.slices,
                golden=found.golden,
                size_bytes=found.size,
                latency=None if found.latency is None else timedelta(microseconds=found.latency),
            )
            gate = self.gate if self.margin is None else replace(self.gate, margin=self.margin.value)
            return self._about(gate.judge(self.evidence, challenger=challenger, checks=checks, **about))
        return self.gate.judge(self.evidence, challenger=challenger, **about)

    def _about(self, verdict: Verdict) -> Verdict:
        """The verdict with what it is under: which trial, and the margin that was set for it."""
        if self.margin is None:
            return verdict
        facts: dict[str, Any] = {"trial": self.number, "margin": self.margin.value, "margin_from": self.margin.source}
        if self.margin.level is not None:
            facts["champion_loss"] = self.margin.level
        if self.held_out:
            facts["held_out_rows"] = self.held_out
        told = "" if self.margin.source == "given" else f"; {self.margin}"
        return replace(verdict, reason=verdict.reason + told, evidence={**verdict.evidence, **facts})

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, Any]:
        """Plain values, models by their numbers."""
        return {
            "gate": _settings(self.gate, self.golden),
            "number": self.number,
            "major": self.major,
            "base": self.base.version.number,
            "begun": self.begun,
            "evidence": self.evidence.to_plain(),
            "shown": [line.version.number for line in self.shown],
            "slices": {name: evidence.to_plain() for name, evidence in self.slices.items()},
            "base_golden": self.base_golden,
            "measured": asdict(self.measured),
            "margin": None if self.margin is None else asdict(self.margin),
            "held_out": self.held_out,
        }

    @classmethod
    def restore(
        cls, plain: Mapping[str, Any], gate: Gate, lines: Mapping[str, Line], golden: GoldenSet | None = None
    ) -> Self | None:
        """Go on from what :meth:`state` gave; None if the gate has other settings: the trial under the old is over."""
        if plain["gate"] != _settings(gate, golden):
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
            golden,
            plain["base_golden"],
            Measured(**plain["measured"]),
            None if plain["margin"] is None else Margin(**plain["margin"]),
            plain["held_out"],
        )


def _settings(gate: Gate, golden: GoldenSet | None) -> str:
    """What a trial is under: evidence gathered under other settings is none."""
    return f"{gate!r} {golden.digest if golden is not None else ''}"


def _mean_loss(line: Line, rows: Features, golden: GoldenSet) -> tuple[float, str | None]:
    """The mean loss on a golden set; NaN, and why, if the model does not predict all of it."""
    number = line.version.number
    try:
        losses, _ = bounded(line.model.predict(rows), golden.truth, golden.classes)
    except Exception as error:  # frameworks raise anything
        return math.nan, f"{number} cannot predict the golden set: {error}"
    if missing := int(np.isnan(losses).sum()):
        return math.nan, f"{number} leaves {missing:,} of {len(losses):,} rows of the golden set without an answer"
    return float(losses.mean()), None


def _slices_of(gate: Gate, plain: Mapping[str, Any]) -> dict[str, PairedEvidence]:
    """Evidence of each slice in the order of the gate's, which that of rows follows; JSON keeps no order."""
    if not isinstance(gate, PairedGate):
        return {}
    return {name: gate.resume(plain[name]) if name in plain else gate.begin() for name in gate.slices}
