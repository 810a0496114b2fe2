"""Scores, losses and money: measures on predictions. They measure and never decide."""

from perennial.metrics.custom import custom
from perennial.metrics.evaluate import CURVE_POINTS, DEFAULTS, NAMES, resolve, score, series
from perennial.metrics.losses import pointwise
from perennial.metrics.money import Bill, Prices, bill, mistakes
from perennial.metrics.records import Metric, Scored, Series, default_positive
from perennial.metrics.totals import Loss, loss_of

__all__ = [
    "CURVE_POINTS",
    "DEFAULTS",
    "NAMES",
    "Bill",
    "Loss",
    "Metric",
    "Prices",
    "Scored",
    "Series",
    "bill",
    "custom",
    "default_positive",
    "loss_of",
    "mistakes",
    "pointwise",
    "resolve",
    "score",
    "series",
]
