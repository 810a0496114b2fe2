"""What the model sees of a day: moving averages, returns and volatility, all of them ratios of past closes.

`build` is the look-back function of the stream. It is given the rows of one instant and the past rows of the same
tickers, and nothing that comes later.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DAYS = 60  # trading days that the longest average needs
NAMES = (
    "return_1d",
    "return_5d",
    "return_20d",
    "close_over_average_5d",
    "close_over_average_20d",
    "close_over_average_60d",
    "average_5d_over_20d",
    "average_20d_over_60d",
    "volatility_20d",
)


def build(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Features of the rows `now`; NaN where a ticker's past is too short."""
    closes = pd.concat([past, now]).groupby("ticker")["adjusted_close"]
    rows = [_row(closes.get_group(ticker).to_numpy()) for ticker in now["ticker"]]
    return pd.DataFrame(rows, columns=list(NAMES), dtype="float64")


def _row(close: NDArray[np.float64]) -> list[float]:
    """The features after the last of a ticker's closes.

    Ratios only: a later split or dividend multiplies all earlier adjusted closes by one number, which cancels out.
    """
    average = {days: close[-days:].mean() if len(close) >= days else np.nan for days in (5, 20, 60)}
    changes = np.diff(np.log(close[-21:]))
    return [
        *(close[-1] / close[-1 - days] - 1 if len(close) > days else np.nan for days in (1, 5, 20)),
        *(close[-1] / average[days] - 1 for days in (5, 20, 60)),
        average[5] / average[20] - 1,
        average[20] / average[60] - 1,
        changes.std() if len(changes) == 20 else np.nan,
    ]
