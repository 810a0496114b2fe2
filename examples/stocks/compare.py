"""How often should a trading recommender be retrained, and on how much of the past? A backtest on six tickers.

Run from the clone, after `make demo` or `make test` has made the environment:

    .venv/bin/python examples/stocks/compare.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
from features import build
from prepare import HERE, labelled, prices
from rich.console import Console
from sklearn.ensemble import RandomForestClassifier

import perennial as pn
from perennial import strategies, triggers, windows

INITIAL = "1826d"  # five years, before anything is predicted
#: A label looks five trading days ahead: a week, and more over holidays, which is what `known_at` is there for.
APART: dict[str, Any] = {"purge": "7d", "embargo": "1d"}


def compare(
    table: pa.Table, *, initial: str = INITIAL, trees: int = 30, rows: int = 4_500, jobs: int | None = None
) -> pn.BacktestResult:
    """Intervals on a window of three years, and windows at an interval of a week, on a labelled stream.

    Parameters
    ----------
    table : Table
        What ``prepare.labelled`` gives.
    initial : str
        How long before the first training.
    trees, rows : int
        Trees of each forest; examples of the 30/70 mix.
    jobs : int, optional
        Processes; as many as there are CPUs unless given.
    """
    stream = pn.Stream(
        table,
        time="timestamp",
        time_zone="America/New_York",
        key="ticker",
        target="label",
        known_at="known_at",
        features=build,
        lookback="120d",
        batch="1d",
        name="stocks",
    )
    forest = RandomForestClassifier(n_estimators=trees, max_depth=5, min_samples_leaf=50, n_jobs=1, random_state=0)

    def retrained(every: str, window: Any) -> strategies.Stateless:
        return strategies.Stateless(forest, initial=initial, trigger=triggers.every(every), window=window)

    three_years = windows.Sliding("1095d", **APART)
    mix = windows.Mix(initial=0.3, recent=0.7, rows=rows, **APART)
    return pn.backtest(
        stream,
        {
            "frozen": strategies.Frozen(forest, initial=initial),
            "daily, 3 years": retrained("1d", three_years),
            "weekly, 3 years": retrained("7d", three_years),
            "monthly, 3 years": retrained("30d", three_years),
            "quarterly, 3 years": retrained("91d", three_years),
            "weekly, 1 year": retrained("7d", windows.Sliding("365d", **APART)),
            "weekly, all data": retrained("7d", windows.Expanding(**APART)),
            "weekly, 30/70 mix": retrained("7d", mix),
        },
        metrics=["log_loss", "accuracy", "roc_auc"],
        jobs=jobs,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE / "report", help="folder to write the report to")
    arguments = parser.parse_args()
    result = compare(labelled(prices()))
    Console().print(result.table())
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(f"wrote {result.to_html(arguments.output / 'report.html')}")
    print(f"wrote {result.to_json(arguments.output / 'report.json')}")
