"""Champion against challenger: the test before promotion."""

from perennial.gate.none import NoGate

__all__ = ["NoGate"]
