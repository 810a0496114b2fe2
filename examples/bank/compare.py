"""The demo in Python: which way of keeping the model current would have served the bank best?

Run from the clone, after `make demo` or `make test` has made the environment:

    .venv/bin/python examples/bank/compare.py
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from lightgbm import LGBMClassifier
from rich.console import Console

import perennial as pn
from perennial import learners, strategies, triggers, windows

BANK = files("perennial") / "demo" / "bank.parquet"


def compare(source: object, *, trees: int = 100, jobs: int | None = None) -> pn.BacktestResult:
    """The strategies of the demo on a history of calls."""
    stream = pn.Stream(
        source,
        time="timestamp",
        time_zone="Europe/Lisbon",
        target="target",
        label_delay="7d",
        positive="yes",
        batch="1d",
    )
    model = LGBMClassifier(n_estimators=trees, num_leaves=15, min_child_samples=40, verbosity=-1)
    monthly, weekly, daily = triggers.every("30d"), triggers.every("7d"), triggers.every("1d")
    return pn.backtest(
        stream,
        {
            "frozen": strategies.Frozen(model, initial="60d"),
            "monthly, all data": strategies.Stateless(model, initial="60d", trigger=monthly),
            "monthly, 90 days": strategies.Stateless(
                model, initial="60d", trigger=monthly, window=windows.Sliding("90d")
            ),
            "weekly, 30/70 mix": strategies.Stateless(
                model, initial="60d", trigger=weekly, window=windows.Mix(initial=0.3, recent=0.7, rows=10_000)
            ),
            "daily, decayed": strategies.Stateful(learners.Decayed(model), initial="60d", trigger=daily),
            "hybrid": strategies.Hybrid(
                learners.LeafRefit(model),
                initial="60d",
                trigger=daily,
                reset=triggers.every("90d"),
                window=windows.Sliding("180d"),
            ),
        },
        metrics=["log_loss", "roc_auc", "accuracy"],
        prices={"false_positive": 1, "false_negative": 5, "retrain": 5, "update": 0.2},
        jobs=jobs,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("bank.html"), help="where to write the report")
    arguments = parser.parse_args()
    result = compare(str(BANK))
    Console().print(result.table())
    print(f"wrote {result.to_html(arguments.report)}")
