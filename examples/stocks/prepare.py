"""From closes to a labelled stream: what would have been right to do, and when that was known.

A row is one ticker at the close of one trading day. Its label looks five trading days ahead: `buy` if the close is
then more than 2 % higher, `sell` if it is more than 2 % lower, else `hold`. It becomes known at that close, which is
what the column `known_at` says. The last five days of a ticker have no label.

    .venv/bin/python examples/stocks/prepare.py      # writes examples/stocks/signals.parquet
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
PRICES, SIGNALS = HERE / "prices.parquet", HERE / "signals.parquet"

AHEAD = 5  # trading days
THRESHOLD = 0.02
FIRST, LAST = date(2004, 1, 2), date(2009, 12, 31)
CLOSE = timedelta(hours=16)  # New York time


def label(prices: pd.DataFrame, first: date = FIRST, last: date = LAST) -> pd.DataFrame:
    """The labelled rows of all trading days from `first` to `last`, in order of time and ticker."""
    rows = prices.sort_values(["ticker", "timestamp"], kind="stable").reset_index(drop=True)
    rows["timestamp"] = rows["timestamp"] + CLOSE
    of_ticker = rows.groupby("ticker")
    change = of_ticker["adjusted_close"].shift(-AHEAD) / rows["adjusted_close"] - 1
    signal = np.select([change > THRESHOLD, change < -THRESHOLD], ["buy", "sell"], "hold")
    rows["signal"] = pd.Series(signal, dtype="str").where(change.notna())
    rows["known_at"] = of_ticker["timestamp"].shift(-AHEAD)
    inside = rows["timestamp"].between(pd.Timestamp(first), pd.Timestamp(last) + timedelta(days=1))
    return rows[inside].sort_values(["timestamp", "ticker"], kind="stable").reset_index(drop=True)


if __name__ == "__main__":
    label(pd.read_parquet(PRICES)).to_parquet(SIGNALS, index=False)
    print(f"wrote {SIGNALS}")
