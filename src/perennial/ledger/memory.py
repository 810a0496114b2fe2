"""A ledger that lives as long as its process: for tests, notebooks and short streams."""

from __future__ import annotations

from perennial.core.errors import LedgerError
from perennial.core.records import Turn, Version


class MemoryLedger:
    """Keeps every turn in a list."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    def commit(self, turn: Turn) -> None:
        """Append a turn.

        Raises
        ------
        LedgerError
            If the turn does not follow the last one: a turn was lost or committed twice.
        """
        if turn.index != len(self.turns):
            raise LedgerError(
                f"turn {turn.index} was committed after turn {len(self.turns) - 1}: commit every turn once, in order"
            )
        self.turns.append(turn)

    @property
    def versions(self) -> list[Version]:
        """All versions in order of creation."""
        return [version for turn in self.turns for version in turn.trained]
