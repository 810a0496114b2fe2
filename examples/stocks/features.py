"""What a recommender may look at: moving averages of one ticker's prices and volumes up to the close of the day.

Every feature is a ratio of prices, or of volumes, of the same ticker. Adjusted prices are scaled anew whenever a later
dividend or split comes; a ratio is not, so nothing that happened afterwards can be read from it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

AVERAGES = (5, 10, 20, 50)  # trading days
RETURNS = (1, 5, 20)  # trading days
NAMES = (
    *(f"price_to_{n}" for n in AVERAGES),
    "10_to_50",
    *(f"return_{n}" for n in RETURNS),
    "volatility_20",
    "volume_to_20",
)


def build(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Features of each row of ``now`` from it and the ticker's past; NaN where the past is too short.

    Parameters
    ----------
    past, now : DataFrame
        With ``ticker``, ``adjusted_close`` and ``volume``; ``past`` in order of time.

    Returns
    -------
    DataFrame
        One row per row of ``now``. ``price_to_n``: the price over its mean of n trading days, less 1. ``10_to_50``:
        one mean over the other, less 1. ``return_n``: over n trading days. ``volatility_20``: standard deviation of the
        daily returns of 20 trading days. ``volume_to_20``: the volume over its mean of 20 trading days, less 1.
    """
    before, price, volume = (past[name].to_numpy() for name in ("ticker", "adjusted_close", "volume"))
    rows = []
    for ticker, last_price, last_volume in zip(now["ticker"], now["adjusted_close"], now["volume"], strict=True):
        own = np.flatnonzero(before == ticker)
        rows.append(_of_one(np.append(price[own], last_price), np.append(volume[own], last_volume)))
    return pd.DataFrame(rows, columns=list(NAMES))


def _of_one(price: NDArray[np.float64], volume: NDArray[np.float64]) -> list[float]:
    """The features of the last day of one ticker's history."""
    daily = price[1:] / price[:-1] - 1
    return [
        *(price[-1] / _mean(price, n) - 1 for n in AVERAGES),
        _mean(price, 10) / _mean(price, 50) - 1,
        *(price[-1] / price[-1 - n] - 1 if len(price) > n else np.nan for n in RETURNS),
        float(np.std(daily[-20:], ddof=1)) if len(daily) >= 20 else np.nan,
        volume[-1] / _mean(volume, 20) - 1,
    ]


def _mean(values: NDArray[np.float64], days: int) -> float:
    return float(np.mean(values[-days:])) if len(values) >= days else np.nan
