"""The schedule of retrains that hindsight would have chosen: a lower bound for cost, not a strategy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The cheapest schedule of stateless trainings.

    Parameters
    ----------
    retrain_at : tuple of int
        Checkpoints at which to retrain, ascending. The training at checkpoint 0 goes without saying.
    cost : float
        Summed loss plus the price of every training, the first included.
    """

    retrain_at: tuple[int, ...]
    cost: float

    @property
    def trainings(self) -> int:
        """How many trainings it takes, the first included."""
        return 1 + len(self.retrain_at)


def schedule(losses: NDArray[np.float64], retrain_price: float) -> Schedule:
    """The schedule of least total cost when every loss is known beforehand.

    Parameters
    ----------
    losses : array, shape (t, t)
        ``losses[i, j]`` is the summed loss on checkpoint interval ``j >= i`` of the model trained at checkpoint ``i``;
        infinite where no such model can be had. Entries below the diagonal are not read. Not mutated.
    retrain_price : float
        Of one training, in units of loss, not negative.

    Raises
    ------
    ConfigError
        If the price is negative or not finite.
    DataError
        If losses are not a square of numbers, or leave no schedule of finite cost.

    Notes
    -----
    ``best[i] = price + min over m > i of (losses[i, i] + ... + losses[i, m - 1] + best[m])``, from the last checkpoint
    back: O(t^2). Of equally cheap schedules it gives one with the fewest trainings.

    References
    ----------
    Mahadevan, Mathioudakis (2023), Cost-aware retraining for machine learning (arXiv 2310.04216): the oracle by dynamic
    programming.

    Examples
    --------
    >>> import numpy as np
    >>> schedule(np.array([[1.0, 5.0, 9.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]]), 3.0)
    Schedule(retrain_at=(1,), cost=10.0)
    """
    if not (np.isfinite(retrain_price) and retrain_price >= 0):
        raise ConfigError("retrain_price", retrain_price, "give a finite price, 0 or more")
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 2 or losses.shape[0] != losses.shape[1] or not len(losses):
        raise DataError(f"losses have shape {losses.shape}: give one row and one column per checkpoint")
    checkpoints = len(losses)
    best = np.zeros(checkpoints + 1)
    trainings = np.zeros(checkpoints + 1, dtype=np.int64)
    following = np.full(checkpoints, checkpoints)
    for i in range(checkpoints - 1, -1, -1):
        costs = np.cumsum(losses[i, i:]) + best[i + 1 :]
        least = costs.min()
        if np.isnan(least) or least == -np.inf:
            raise DataError(f"losses of the model trained at checkpoint {i} hold NaN or -inf: give sums of losses")
        ties = i + 1 + np.flatnonzero(costs == least)
        chosen = ties[np.argmin(trainings[ties])]
        best[i], following[i], trainings[i] = retrain_price + least, chosen, trainings[chosen] + 1
    if not np.isfinite(best[0]):
        raise DataError("every schedule has an infinite loss: give the model of the checkpoint before instead")
    at, stops = int(following[0]), []
    while at < checkpoints:
        stops.append(at)
        at = int(following[at])
    return Schedule(retrain_at=tuple(stops), cost=float(best[0]))
