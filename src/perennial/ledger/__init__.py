"""Where turns become a lasting record."""

from perennial.ledger.memory import MemoryLedger

__all__ = ["MemoryLedger"]
