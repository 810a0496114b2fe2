"""Two strategies on two cores against one after the other: the only benchmark by the wall clock.

It needs two idle cores, and says little on a busy machine. Measured through ``perennial.backtest`` as a user calls it:
the pass over the stream, the frozen baseline, the scores and the report are in it on both sides, and none of these
runs in parallel. The pool of processes is warm in the second call of a session and cold in the first.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightgbm import LGBMClassifier

from benchmarks.common import SAME_WAY, Figure, Size, classified, interleaved, ratios, require, seconds
from perennial import BacktestResult, Stream, backtest, strategies, triggers, windows

NAME = "two_processes"

_SIZES = {"full": (30_000, 5_000, 12, 100), "quick": (20_000, 5_000, 8, 50), "tiny": (1_000, 200, 3, 5)}


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:  # noqa: ARG001 - all benchmarks are called alike
    """Wall seconds of two strategies with ``jobs=2``, over those with ``jobs=1``."""
    window, step, steps, trees = _SIZES[size]
    table = classified(window + step * steps, 30).table

    def both(jobs: int) -> BacktestResult:
        return backtest(
            Stream(table, time="at", target="y", label_delay="0s", batch=step),
            {f"leaves-{leaves}": _strategy(leaves, trees, window, step) for leaves in (31, 32)},
            metrics=["log_loss"],
            jobs=jobs,
        )

    def cold() -> BacktestResult:
        _stop_pool()
        return both(2)

    arms = {"one by one": lambda: both(1), "two at once, cold": cold, "two at once, warm": lambda: both(2)}
    measured = interleaved({name: arms[name] for name in arms}, rounds, clock=time.perf_counter)
    _stop_pool()
    first = measured["one by one"][0][1]
    for name in arms:
        for strategy in first:
            same = measured[name][0][1][strategy].predictions.equals(first[strategy].predictions)
            require(same, f"predictions of {strategy}, {name} and one by one")
    alone = seconds(measured["one by one"])
    common: dict[str, Any] = {
        "benchmark": NAME,
        "peer": "the same two strategies, one after the other (jobs=1)",
        "checked": "predictions, bit for bit",
    }
    return [
        Figure(
            what="two strategies with jobs=2, processes ready, wall clock",
            rounds=ratios(seconds(measured["two at once, warm"]), alone),
            at_most=0.6,
            **common,
        ),
        Figure(
            what="two strategies with jobs=2, processes started anew, wall clock",
            rounds=ratios(seconds(measured["two at once, cold"]), alone),
            **common,
        ),
    ]


def _strategy(leaves: int, trees: int, window: int, step: int) -> strategies.Stateless:
    model = LGBMClassifier(n_estimators=trees, num_leaves=leaves, n_jobs=1, verbose=-1, **SAME_WAY)
    return strategies.Stateless(
        model, initial=window, trigger=triggers.every(rows=step), window=windows.Sliding(rows=window)
    )


def _stop_pool() -> None:
    from loky import get_reusable_executor

    get_reusable_executor(max_workers=1).shutdown(wait=True)
