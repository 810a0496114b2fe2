"""How much worse a challenger may be and still be promoted: derived from prices, or by rule of thumb."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError
from perennial.core.records import TaskKind
from perennial.metrics.money import Prices

DEFAULT_MARGIN = 0.003  #: of a loss that is the share of wrong predictions: 0.3 points
_RELATIVE = 0.03  # of the champion's mean loss, for losses in other units; at 10 % wrong it is DEFAULT_MARGIN
_BELOW_ONE = ("zero_one", "brier")  # losses in [0, 1]
_LEAST_SCORED = 100  # rows from which on a line's own mean loss tells its level
_LEAST, _MOST = 0.01, 0.1  # of the champion's mean loss: what a margin from prices is held to


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Losses of what served, by which margins are set: of the newest line, and of all lines so far.

    ``major`` is that line, ``n`` and ``total`` count its rows and add up their losses, ``all_n`` and ``all_total``
    those of every line; ``loss`` is the gate's.
    """

    loss: str = ""
    major: int = 0
    n: int = 0
    total: float = 0.0
    all_n: int = 0
    all_total: float = 0.0

    def add(self, major: int, losses: NDArray[np.float64], loss: str) -> Level:
        """The level with more rows of a line, m of them, that have a loss."""
        known = self if loss == self.loss else Level(loss=loss)
        n, total = len(losses), float(losses.sum())
        same = known.major == major
        return Level(
            loss=loss,
            major=major,
            n=known.n + n if same else n,
            total=known.total + total if same else total,
            all_n=known.all_n + n,
            all_total=known.all_total + total,
        )

    @property
    def mean(self) -> float | None:
        """The line's mean loss; with fewer than 100 rows that of all lines, and None before the first."""
        if self.n >= _LEAST_SCORED:
            return self.total / self.n
        return self.all_total / self.all_n if self.all_n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """The margin of one trial, where it came from, and the champion's mean loss before the trial if that is known."""

    value: float
    source: Literal["given", "cost", "level", "default"]
    level: float | None = None

    def __str__(self) -> str:
        told = f"margin {self.value:g}"
        match self.source:
            case "cost":
                return f"{told} from cost"
            case "level":
                return f"{told}, 3 % of the champion's mean loss"
            case "default":
                return f"{told}, as nothing was scored before" if not self.value else f"{told} by default"
        return told


def trial_margin(
    given: float | None,
    *,
    task: TaskKind,
    level: Level,
    prices: Prices | None = None,
    predictions: float = 0.0,
    update: bool = False,
) -> Margin:
    """The margin of a trial that begins: as given, else from prices, else from the champion's mean loss so far.

    Parameters
    ----------
    given : float, optional
        The gate's own.
    task : {"classification", "regression"}
        What the losses are of. A regression's have a unit that nobody knows before something was scored: its margin is
        then 0, so that a challenger is promoted only if it is proven better.
    level : Level
        What was scored before the trial.
    prices, predictions, update
        As for :func:`margin_from_cost`.
    """
    mean = level.mean
    if given is not None:
        return Margin(value=given, source="given", level=mean)
    if mean is None or not mean > 0:
        return Margin(value=0.0 if task == "regression" else DEFAULT_MARGIN, source="default", level=mean)
    if prices is not None and predictions > 0:
        priced = margin_from_cost(prices, predictions=predictions, level=mean, loss=level.loss, update=update)
        if priced is not None:
            return Margin(value=priced, source="cost", level=mean)
    value = default_margin(level.loss, mean)
    return Margin(value=value, source="default" if value == DEFAULT_MARGIN else "level", level=mean)


def default_margin(loss: str, level: float) -> float:
    """The margin where no prices are given: 3 % of the champion's mean loss, at most 0.003 for losses in [0, 1].

    Parameters
    ----------
    loss : str
        The loss, as ``perennial.metrics`` names it: ``"zero_one"``, ``"brier"``, ``"absolute_error"``, ...
    level : float
        The champion's mean loss, known before the challenger's trial begins; positive.

    Raises
    ------
    ConfigError
        If ``level`` is not positive and finite.

    Examples
    --------
    >>> default_margin("zero_one", 0.2), round(default_margin("absolute_error", 4.0), 6)
    (0.003, 0.12)
    """
    _positive("level", level, "the champion's mean loss, or set the gate's margin")
    return min(DEFAULT_MARGIN, _RELATIVE * level) if loss in _BELOW_ONE else _RELATIVE * level


def margin_from_cost(
    prices: Prices, *, predictions: float, level: float, loss: str = "zero_one", update: bool = False
) -> float | None:
    """The margin at which serving the worse model until the next training costs as much as a training.

    ``margin = price of a training / (price of one unit of loss * predictions until the next training)``. A loss below
    the margin is then cheaper to bear than another training that would mend it. It assumes that every prediction
    costs the same, that the harm lasts until the next training and no longer, and that a training mends it.
    The result is held between 1 % and 10 % of the champion's mean loss: smaller margins cannot be told from noise
    with an ordinary number of labels, and beyond that no one would call the challenger as good.

    Parameters
    ----------
    prices : Prices
        ``retrain`` (or ``update``) and ``error`` are used.
    predictions : float
        Predictions expected until the next training; positive.
    level : float
        The champion's mean loss, known before the challenger's trial begins; positive.
    loss : str
        The gate's loss. Prices are per wrong prediction (``"zero_one"``) or per unit of ``"absolute_error"``. A unit
        of ``"brier"`` loss is one wrong prediction that was sure of itself, and is taken to cost as much.
    update : bool
        Whether the next training is a stateful update.

    Returns
    -------
    float or None
        None if prices do not tell: a training is free, mistakes have no single price, or the loss is another than
        the one that is priced. Use :func:`default_margin` then.

    Raises
    ------
    ConfigError
        If ``predictions`` or ``level`` is not positive and finite.

    Examples
    --------
    >>> margin_from_cost(Prices(retrain=5.0, error=0.1), predictions=10_000, level=0.12)
    0.005
    """
    _positive("predictions", predictions, "how many are expected until the next training")
    _positive("level", level, "the champion's mean loss")
    price = prices.update if update else prices.retrain
    unit = prices.error
    if loss not in (*_BELOW_ONE, "absolute_error") or not price or not unit or isinstance(unit, str):
        return None
    return min(max(price / (unit * predictions), _LEAST * level), _MOST * level)


def _positive(field: str, value: float, what: str) -> None:
    if not (isinstance(value, int | float) and 0 < value < math.inf):
        raise ConfigError(field, value, f"give a positive number: {what}")
