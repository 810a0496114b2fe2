"""From daily prices to a labelled stream: what would have been right, and when that was known.

The label of a day looks five trading days ahead, at the ticker's adjusted close then against the day's own: ``buy``
from +2 % on, ``sell`` from -2 % down, else ``hold``. The thresholds were fixed before any model was trained. The label
is known at the fifth close, which `known_at` says; the last five days of each ticker have neither.

    .venv/bin/python examples/stocks/prepare.py        # writes stream.parquet, which perennial.yaml reads
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
HORIZON = 5  # trading days
THRESHOLD = 0.02  # return over the horizon
SINCE = datetime(2009, 1, 1)


def prices(since: datetime = SINCE) -> pa.Table:
    """The bundled prices from ``since`` on: timestamp, ticker, adjusted_close, volume, by time and then ticker."""
    return pq.read_table(HERE / "prices.parquet", filters=[("timestamp", ">=", since)])


def labelled(prices: pa.Table) -> pa.Table:
    """The prices with two more columns, ``label`` and ``known_at``; rows keep their order.

    Parameters
    ----------
    prices : Table
        With ``timestamp``, ``ticker`` and ``adjusted_close``; each ticker's rows in order of time, one per trading day.
    """
    frame = prices.to_pandas()
    ahead = frame.groupby("ticker", sort=False)[["timestamp", "adjusted_close"]].shift(-HORIZON)
    change = ahead["adjusted_close"] / frame["adjusted_close"] - 1
    label = np.select([change >= THRESHOLD, change <= -THRESHOLD], ["buy", "sell"], "hold")
    known = ahead["timestamp"].notna()
    frame["label"] = pd.Series(label, index=frame.index).where(known, None)
    frame["known_at"] = ahead["timestamp"]
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


if __name__ == "__main__":
    stream = labelled(prices())
    pq.write_table(stream, HERE / "stream.parquet")
    print(f"wrote {HERE / 'stream.parquet'}: {stream.num_rows:,} rows, {stream['label'].null_count} without a label")
