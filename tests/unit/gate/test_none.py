"""The gate of plain backtests."""

from perennial.core.records import Version
from perennial.gate import NoGate


def version(number):
    """A version with a number and nothing else of interest."""
    major, minor = map(int, number.split("."))
    return Version(
        major=major, minor=minor, parent=None, kind="fit", at=0, ready_at=0, trained_rows=1, row_trees=0, first=0,
        last=0, newest=0, data="", key=None, reason="",
    )  # fmt: skip


def test_everything_is_promoted_and_the_verdict_says_that_nothing_was_tested():
    """No gate is not a passed test."""
    first = NoGate().judge(version("1.0"), None)
    assert (first.outcome, first.version, first.reason) == ("promote", "1.0", "no gate: promoted untested")
    assert "over 1.0" in NoGate().judge(version("2.0"), version("1.0")).reason
