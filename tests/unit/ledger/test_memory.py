"""The ledger in memory: every turn once, in order."""

import numpy as np
import pytest

from perennial.core.errors import LedgerError
from perennial.core.protocols import Ledger
from perennial.core.records import Joined, Loss, Turn
from perennial.ledger import MemoryLedger

NONE = Joined(position=np.empty(0, np.int64), known_at=np.empty(0, np.int64), revised=np.empty(0, bool))


def turn(index):
    """A turn in which nothing happened."""
    return Turn(index=index, now=index, rows=0, joined=NONE, loss=Loss())


def test_turns_are_kept_in_order():
    """What was committed is there, in order."""
    ledger: Ledger = MemoryLedger()
    for index in range(3):
        ledger.commit(turn(index))
    assert [t.index for t in ledger.turns] == [0, 1, 2]
    assert ledger.versions == []


@pytest.mark.parametrize("index", [0, 2, 5])
def test_a_turn_that_does_not_follow_is_refused(index):
    """A turn committed twice, or after a gap, is an error that names both."""
    ledger = MemoryLedger()
    ledger.commit(turn(0))
    with pytest.raises(LedgerError, match=f"turn {index} was committed after turn 0"):
        ledger.commit(turn(index))
    assert len(ledger.turns) == 1
