"""When to train. Every trigger is a fold over facts that gives a decision with its reason, and touches nothing."""

from perennial.triggers.combined import AllOf, AnyOf, Limited, all_of, any_of, limited
from perennial.triggers.every import Every, every
from perennial.triggers.forecast import Forecast, forecast
from perennial.triggers.loss import LossAbove, loss_above
from perennial.triggers.regret import Regret, regret

__all__ = [
    "AllOf",
    "AnyOf",
    "Every",
    "Forecast",
    "Limited",
    "LossAbove",
    "Regret",
    "all_of",
    "any_of",
    "every",
    "forecast",
    "limited",
    "loss_above",
    "regret",
]
