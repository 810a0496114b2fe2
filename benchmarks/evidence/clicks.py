"""Stateful training of a click model against daily retraining on a window: ranking, rows, CPU and their ratios.

The library's own backtest is what is measured. Costs are those of a training once the initial period is over: both
strategies begin with a fit of the same data. The CPU seconds of an update are those of all updates, divided by their
number; they are known as the costs of the stateful strategy less those of a frozen one, whose only training is the
same initial fit, taken from the cache with its seconds. A backtest counts the rows of a training once however often it
passes over them; here a row counts once a pass.

Egg (2021), Online Learning for Recommendations at Grubhub, RecSys (arXiv 2107.07106), reports "up to a 45x cost
savings" from a shift of this kind. That is a bill for computers, and not a claim about this simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.evidence.churn import Churn
from benchmarks.evidence.records import Cell, Goal, Part, Table
from perennial import Stream, backtest, strategies, triggers, windows
from perennial.learners.hashed import AdaGrad
from perennial.replay.result import BacktestResult, StrategyResult

_SWEEP_SEEDS = 1_000_000  # seeds of the sweep's streams are these further on


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one training of a strategy takes: rows times passes, and CPU seconds."""

    rows: float
    seconds: float


def measure(settings: Mapping[str, Any], seeds: Sequence[int], tell: Callable[[str], None]) -> Part:
    """All of it; ``settings`` are the section ``clicks`` of settings.yaml."""
    rows: list[list[Cell]] = []
    stateless_costs, stateful_costs, gaps = [], [], []
    for seed in seeds:
        result = _compared(settings, seed)
        stateless, stateful = result["stateless"], result["stateful"]
        learner = settings["learner"]
        fit = _fit_cost(stateless, learner["epochs"])
        update = _update_cost(stateful, result["frozen"], learner["passes"])
        auc = {name: _auc(one) for name, one in result.items()}
        gaps.append(auc["stateful"] - auc["stateless"])
        stateless_costs.append(fit)
        stateful_costs.append(update)
        names = ("stateful", "stateless", "without decay", "frozen")
        ratios = (fit.rows / update.rows, 1e3 * fit.seconds, 1e3 * update.seconds, fit.seconds / update.seconds)
        rows.append([seed, *(auc[name] for name in names), gaps[-1], *ratios])
        tell(f"clicks, seed {seed}: AUC {gaps[-1]:+.4f}, CPU {ratios[-1]:.0f}x")
    goals = settings["goals"]
    lower, upper = min(gaps), max(gaps)
    each = [a.seconds / b.seconds for a, b in zip(stateless_costs, stateful_costs, strict=True)]
    return Part(
        name="clicks",
        title="Clicks: stateful training against daily retraining on a window",
        goals=[
            Goal(
                what="AUC, stateful less daily retraining (mean over seeds)",
                value=float(np.mean(gaps)),
                limit=goals["auc_difference"],
                way="at least",
                note=f"{lower:+.4f} to {upper:+.4f}, standard deviation {_deviation(gaps):.4f}",
            ),
            Goal(
                what="rows trained, daily retraining over stateful",
                value=sum(c.rows for c in stateless_costs) / sum(c.rows for c in stateful_costs),
                limit=goals["rows_ratio"],
                way="at least",
                note="a row counts once a pass",
            ),
            Goal(
                what="training CPU, daily retraining over stateful",
                value=sum(c.seconds for c in stateless_costs) / sum(c.seconds for c in stateful_costs),
                limit=goals["cpu_ratio"],
                way="at least",
                note=f"{min(each):.0f} to {max(each):.0f} by seed",
            ),
        ],
        tables=[
            Table(
                title=f"AUC over {settings['test_days']} test days, and the cost of a training",
                columns=[
                    "seed",
                    "stateful",
                    "stateless",
                    "decay 1",
                    "frozen",
                    "difference",
                    "rows ratio",
                    "fit ms",
                    "update ms",
                    "CPU ratio",
                ],
                rows=rows,
            ),
            _sweep(settings, seeds, tell),
        ],
        notes=[
            "A row counts once a pass; the initial fit, the same for all, is left out of rows and CPU.",
            "Rows follow from the settings: window / interval x epochs / passes. CPU is what a fixed cost an update "
            "leaves of that.",
            "Published: up to a 45x cost savings at Grubhub (Egg 2021, Online Learning for Recommendations at Grubhub, "
            "RecSys, arXiv 2107.07106), of a system, data and bill of its own.",
            "Decay 1 is the same stateful model without decay, as published by Duchi et al.: no goal, for comparison.",
        ],
    )


def _compared(settings: Mapping[str, Any], seed: int) -> BacktestResult:
    """Daily retraining on a window, stateful training with and without decay, and the initial fit alone."""
    model, undecayed = AdaGrad(**settings["learner"]), AdaGrad(**{**settings["learner"], "decay": 1.0})
    initial, daily = f"{settings['initial_days']}d", triggers.every("1d")
    window = windows.Sliding(f"{settings['window_days']}d")
    return backtest(
        _stream(settings, settings["initial_days"] + settings["test_days"], seed),
        {
            "frozen": strategies.Frozen(model, initial=initial),
            "stateless": strategies.Stateless(model, initial=initial, trigger=daily, window=window),
            "stateful": strategies.Stateful(model, initial=initial, trigger=daily),
            "without decay": strategies.Stateful(undecayed, initial=initial, trigger=daily),
        },
        metrics=["roc_auc", "log_loss"],
        seed=seed,
        jobs=1,
    )


def _sweep(settings: Mapping[str, Any], seeds: Sequence[int], tell: Callable[[str], None]) -> Table:
    """The cost of a retraining over that of an update by window, interval and epochs, with AUC; means over seeds."""
    sweep = settings["sweep"]
    initial = f"{sweep['initial_days']}d"
    cells = list(product(sweep["windows"], sweep["intervals"], sweep["epochs"]))
    fits: dict[tuple[int, int, int], list[tuple[Cost, Cost, float]]] = {cell: [] for cell in cells}
    for seed in seeds:
        compared: dict[str, Any] = {}
        for epochs in sweep["epochs"]:
            model = AdaGrad(**{**settings["learner"], "epochs": epochs})
            compared[f"frozen {epochs}"] = strategies.Frozen(model, initial=initial)
            for days in sweep["intervals"]:
                trigger = triggers.every(f"{days}d")
                compared[f"stateful {days} {epochs}"] = strategies.Stateful(model, initial=initial, trigger=trigger)
                for window in sweep["windows"]:
                    compared[f"stateless {window} {days} {epochs}"] = strategies.Stateless(
                        model, initial=initial, trigger=trigger, window=windows.Sliding(f"{window}d")
                    )
        stream = _stream(settings, sweep["initial_days"] + sweep["test_days"], _SWEEP_SEEDS + seed)
        result = backtest(stream, compared, metrics=["roc_auc"], seed=seed, jobs=1)
        for window, days, epochs in cells:
            stateless, stateful = result[f"stateless {window} {days} {epochs}"], result[f"stateful {days} {epochs}"]
            update = _update_cost(stateful, result[f"frozen {epochs}"], settings["learner"]["passes"])
            gap = _auc(stateful) - _auc(stateless)
            fits[window, days, epochs].append((_fit_cost(stateless, epochs), update, gap))
        tell(f"clicks, sweep of seed {seed}: {len(compared)} strategies")
    table: list[list[Cell]] = []
    for cell in cells:
        fit, update, gaps = zip(*fits[cell], strict=True)
        ratios = [sum(c.rows for c in fit) / sum(c.rows for c in update)]
        ratios += [sum(c.seconds for c in fit) / sum(c.seconds for c in update)]
        table.append([*cell, *ratios, float(np.mean(gaps))])
    return Table(
        title=f"What a retraining costs over an update, {sweep['test_days']} test days",
        columns=["window, days", "interval, days", "epochs", "rows ratio", "CPU ratio", "AUC, stateful less stateless"],
        rows=table,
    )


def _stream(settings: Mapping[str, Any], days: int, seed: int) -> Stream:
    table = Churn(**settings["simulator"]).stream(days, seed)
    return Stream(table, time="at", target="clicked", label_delay="0s", batch="1d", name=f"churn {seed}")


def _fit_cost(one: StrategyResult, epochs: int) -> Cost:
    """Of one retraining; the first, on a window as long, is one of them."""
    fits = [v for v in one.versions if v.kind == "fit"]
    rows = epochs * sum(v.trained_rows for v in fits)
    return Cost(rows=rows / len(fits), seconds=one.costs["train_cpu_seconds"] / len(fits))


def _update_cost(one: StrategyResult, frozen: StrategyResult, passes: int) -> Cost:
    """Of one update."""
    updates = [v for v in one.versions if v.kind == "update"]
    seconds = one.costs["train_cpu_seconds"] - frozen.costs["train_cpu_seconds"]
    return Cost(rows=passes * sum(v.trained_rows for v in updates) / len(updates), seconds=seconds / len(updates))


def _auc(one: StrategyResult) -> float:
    value = one.scores["roc_auc"]
    assert value is not None
    return value


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
