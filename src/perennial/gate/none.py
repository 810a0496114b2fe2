"""The gate of plain backtests: every version is promoted as soon as it is ready."""

from __future__ import annotations

from perennial.core.records import Verdict, Version


class NoGate:
    """Promotes every challenger without evidence, and says so."""

    def judge(self, challenger: Version, champion: Version | None) -> Verdict:
        """Promote."""
        over = f" over {champion.number}" if champion is not None else ""
        return Verdict(outcome="promote", version=challenger.number, reason=f"no gate: promoted{over} untested")
