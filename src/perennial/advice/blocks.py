"""What strategies lost and cost in each batch, on the same rows: the one thing that advice is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """Totals per batch, t batches by k strategies and, behind them, m no-skill lines.

    Parameters
    ----------
    strategies, lines : tuple of str
        Names of the columns: the strategies, then the lines without skill.
    rows : array of int64, shape (t,)
        Rows that all of them scored, in each batch; every batch has one at least.
    loss : array, shape (t, k + m)
        What each lost on these rows: in the user's money with prices, else the sum of ``loss_name`` over rows.
    training, running : array, shape (t, k + m)
        What trainings, and what predicting and keeping data cost in each batch, in the user's money; zeros without
        prices. The first training of each is not in it: all must make one.
    priced : bool
        Whether the unit is money.
    metric : str
        What was asked for: ``"money"``, or the name of the first metric.
    loss_name : str
        What ``loss`` sums, in words.
    exact : bool
        Whether the mean loss ranks strategies as ``metric`` does; else it stands in for it.
    days : float
        How long the batches are together.
    effort : mapping of str to array, shape (k,)
        Costs without measurement noise, over the whole run: ``row_trees``, ``rows_trained``, ``trainings``.
    reference : int
        Column that savings are counted from.
    described : tuple of str
        Each strategy in words.
    errors, apart : array, shape (t, k), and mapping of line to array, shape (t,)
        Wrong answers of the strategies, and of lines that have no such loss, since they give no probabilities.
    notes : tuple of str
        What the reader must know of the comparison.

    Raises
    ------
    DataError
        If shapes do not agree, there is no strategy, or a number is not finite.
    """

    strategies: tuple[str, ...]
    rows: NDArray[np.int64]
    loss: Floats
    lines: tuple[str, ...] = ()
    training: Floats | None = None
    running: Floats | None = None
    priced: bool = False
    metric: str = "log_loss"
    loss_name: str = "log loss"
    exact: bool = True
    days: float = 0.0
    effort: Mapping[str, Floats] = field(default_factory=dict)
    reference: int = 0
    described: tuple[str, ...] = ()
    errors: Floats | None = None
    apart: Mapping[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.strategies) + len(self.lines))
        if not self.strategies:
            raise DataError("there is no strategy to compare")
        for name in ("loss", "training", "running"):
            array = getattr(self, name)
            if array is None:
                continue
            if array.shape != shape:
                raise DataError(f"{name} has the shape {array.shape}: give one of {shape}, batches by columns")
            if not np.isfinite(array).all():
                raise DataError(f"{name} holds a number that is not finite: leave that column out")
        for name, values in self.effort.items():
            if len(values) != len(self.strategies):
                raise DataError(f"effort {name!r} has {len(values)} values for {len(self.strategies)} strategies")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return self.strategies + self.lines

    @property
    def trained(self) -> Floats:
        """``training``, zeros where there is none."""
        return np.zeros_like(self.loss) if self.training is None else self.training

    @property
    def total(self) -> Floats:
        """Losses and costs together, shape (t, k + m)."""
        return self.loss + self.trained + (0.0 if self.running is None else self.running)

    def at_price(self, factor: float) -> Blocks:
        """The same, had each training cost ``factor`` times as much."""
        return replace(self, training=self.trained * factor)
