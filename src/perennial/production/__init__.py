"""Production: the engine on a source that grows, with a ledger that outlives every crash."""

from perennial.production.deployment import Deployment
from perennial.production.run import Run

__all__ = ["Deployment", "Run"]
