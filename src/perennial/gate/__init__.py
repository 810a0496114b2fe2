"""Champion against challenger: the test before promotion."""

from perennial.gate.evidence import Estimate, Evidence
from perennial.gate.margin import Level, Margin, default_margin, margin_from_cost, trial_margin
from perennial.gate.none import NoGate
from perennial.gate.paired import Checks, Gate, Golden, Wait
from perennial.gate.slices import Between, Slice

__all__ = [
    "Between",
    "Checks",
    "Estimate",
    "Evidence",
    "Gate",
    "Golden",
    "Level",
    "Margin",
    "NoGate",
    "Slice",
    "Wait",
    "default_margin",
    "margin_from_cost",
    "trial_margin",
]
