"""Stateful training of a click model against daily retraining on a window: ranking, rows, CPU and their ratios.

The library's own backtest is what is measured. Costs are those of one training once the initial period is over. The CPU
seconds of an update are the mean of all updates: the costs of the stateful strategy less those of a frozen one, whose
only training is the same initial fit, taken from the cache with its seconds. A backtest counts the rows of a training
once however often it passes over them; here a row counts once a pass.

Egg (2021), Online Learning for Recommendations at Grubhub, RecSys (arXiv 2107.07106), reports "up to a 45x cost
savings" from a shift of this kind. That is a bill for computers, and not a claim about this simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from benchmarks.evidence.churn import Churn
from benchmarks.evidence.records import Cell, Goal, Part, Table
from perennial import Stream, backtest, strategies, triggers, windows
from perennial.learners.hashed import AdaGrad
from perennial.replay.result import BacktestResult, StrategyResult

#: what is shown of each seed
COMPARED = ("stateful", "stateless", "decay 1", "frozen")
_SWEEP_SEEDS = 1_000_000  # seeds of the sweep's streams are these further on


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one training of a strategy takes: rows times passes, and CPU seconds."""

    rows: float
    seconds: float


@dataclass(frozen=True)
class _Tally:
    """By seed: the cost of a retraining and of an update, and the AUC of stateful less that of stateless training."""

    fits: list[Cost] = field(default_factory=list)
    updates: list[Cost] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def add(self, fit: Cost, update: Cost, gap: float) -> None:
        self.fits.append(fit)
        self.updates.append(update)
        self.gaps.append(gap)

    @property
    def gap(self) -> float:
        return float(np.mean(self.gaps))

    @property
    def rows_ratio(self) -> float:
        return sum(c.rows for c in self.fits) / sum(c.rows for c in self.updates)

    @property
    def cpu_ratio(self) -> float:
        return sum(c.seconds for c in self.fits) / sum(c.seconds for c in self.updates)

    @property
    def cpu_ratios(self) -> list[float]:
        return [fit.seconds / update.seconds for fit, update in zip(self.fits, self.updates, strict=True)]


def measure(settings: Mapping[str, Any], seeds: Sequence[int], tell: Callable[[str], None]) -> Part:
    """All of it; ``settings`` are the section ``clicks`` of settings.yaml."""
    learner = settings["learner"]
    crossed = {passes: _Tally() for passes in settings["crossed"]["passes"]}
    whole = _Tally()
    rows: list[list[Cell]] = []
    for seed in seeds:
        result = _compared(settings, seed)
        fit = _fit_cost(result["stateless"], learner["epochs"])
        update = _update_cost(result["stateful"], result["frozen"], learner["passes"])
        whole.add(fit, update, _auc(result["stateful"]) - _auc(result["stateless"]))
        costs = (fit.rows / update.rows, 1e3 * fit.seconds, 1e3 * update.seconds, fit.seconds / update.seconds)
        rows.append([seed, *(_auc(result[name]) for name in COMPARED), whole.gaps[-1], *costs])
        for passes, tally in crossed.items():
            one, fit = result[f"crossed {passes}"], _fit_cost(result["crossed"], learner["epochs"])
            update = _update_cost(one, result["crossed frozen"], passes)
            tally.add(fit, update, _auc(one) - _auc(result["crossed"]))
        tell(f"clicks, seed {seed}: AUC {whole.gaps[-1]:+.4f}, CPU {costs[-1]:.0f}x")
    goals, each = settings["goals"], whole.cpu_ratios
    return Part(
        name="clicks",
        title="Clicks: stateful training against daily retraining on a window",
        goals=[
            Goal(
                what="AUC, stateful less daily retraining (mean over seeds)",
                value=whole.gap,
                limit=goals["auc_difference"],
                way="at least",
                note=f"{min(whole.gaps):+.4f} to {max(whole.gaps):+.4f}, deviation {_deviation(whole.gaps):.4f}",
            ),
            Goal(
                what="rows trained, daily retraining over stateful",
                value=whole.rows_ratio,
                limit=goals["rows_ratio"],
                way="at least",
                note="a row counts once a pass",
            ),
            Goal(
                what="training CPU, daily retraining over stateful",
                value=whole.cpu_ratio,
                limit=goals["cpu_ratio"],
                way="at least",
                note=f"{min(each):.0f} to {max(each):.0f} by seed",
            ),
        ],
        tables=[
            Table(
                title=f"AUC over {settings['test_days']} test days, and the cost of a training",
                columns=["seed", *COMPARED, "difference", "rows ratio", "fit ms", "update ms", "CPU ratio"],
                rows=rows,
            ),
            Table(
                title="With a slot for each user and category too: what passes over the new rows give, and cost",
                columns=["passes", "AUC, stateful less stateless", "standard deviation", "rows ratio", "CPU ratio"],
                rows=[[p, t.gap, _deviation(t.gaps), t.rows_ratio, t.cpu_ratio] for p, t in crossed.items()],
            ),
            _sweep(settings, seeds, tell),
        ],
        notes=[
            "A row counts once a pass; the initial fit is left out of rows and CPU.",
            "Rows follow from the settings: window / interval x epochs / passes. CPU is what the fixed cost of an "
            "update leaves of that.",
            "Published: up to a 45x cost savings at Grubhub (Egg 2021, Online Learning for Recommendations at Grubhub, "
            "RecSys, arXiv 2107.07106), of a system, data and bill of its own.",
            "Decay 1 is the stateful model without decay, otherwise the same: no goal, for comparison.",
        ],
    )


def _compared(settings: Mapping[str, Any], seed: int) -> BacktestResult:
    """Daily retraining on a window, stateful training with and without decay, and the initial fits alone."""
    stateful = {**settings["learner"], **settings["stateful"]}
    stateless = {**settings["learner"], **settings["stateless"]}
    crossed = {**settings["learner"], **settings["crossed"]}
    initial, daily = f"{settings['initial_days']}d", triggers.every("1d")

    def retrained(learner: Mapping[str, Any]) -> strategies.Stateless:
        window = windows.Sliding(f"{settings['window_days']}d")
        return strategies.Stateless(AdaGrad(**learner), initial=initial, trigger=daily, window=window)

    def updated(learner: Mapping[str, Any], **changes: Any) -> strategies.Stateful:
        return strategies.Stateful(AdaGrad(**{**learner, **changes}), initial=initial, trigger=daily)

    return backtest(
        _stream(settings, settings["initial_days"] + settings["test_days"], seed),
        {
            "frozen": strategies.Frozen(AdaGrad(**stateful), initial=initial),
            "stateful": updated(stateful),
            "decay 1": updated(stateful, decay=1.0),
            "stateless": retrained(stateless),
            "crossed": retrained({**crossed, "passes": 1}),
            "crossed frozen": strategies.Frozen(AdaGrad(**{**crossed, "passes": 1}), initial=initial),
            **{f"crossed {passes}": updated(crossed, passes=passes) for passes in crossed["passes"]},
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
    tallies = {cell: _Tally() for cell in cells}
    for seed in seeds:
        compared: dict[str, Any] = {}
        for epochs in sweep["epochs"]:
            learner = {**settings["learner"], "epochs": epochs}
            stateful, stateless = ({**learner, **settings[way]} for way in ("stateful", "stateless"))
            compared[f"frozen {epochs}"] = strategies.Frozen(AdaGrad(**stateful), initial=initial)
            for days in sweep["intervals"]:
                trigger = triggers.every(f"{days}d")
                compared[f"stateful {days} {epochs}"] = strategies.Stateful(
                    AdaGrad(**stateful), initial=initial, trigger=trigger
                )
                for window in sweep["windows"]:
                    compared[f"stateless {window} {days} {epochs}"] = strategies.Stateless(
                        AdaGrad(**stateless), initial=initial, trigger=trigger, window=windows.Sliding(f"{window}d")
                    )
        stream = _stream(settings, sweep["initial_days"] + sweep["test_days"], _SWEEP_SEEDS + seed)
        result = backtest(stream, compared, metrics=["roc_auc"], seed=seed, jobs=1)
        for window, days, epochs in cells:
            one, other = result[f"stateless {window} {days} {epochs}"], result[f"stateful {days} {epochs}"]
            update = _update_cost(other, result[f"frozen {epochs}"], settings["learner"]["passes"])
            tallies[window, days, epochs].add(_fit_cost(one, epochs), update, _auc(other) - _auc(one))
        tell(f"clicks, sweep of seed {seed}: {len(compared)} strategies")
    return Table(
        title=f"What a retraining costs over an update, {sweep['test_days']} test days",
        columns=["window, days", "interval, days", "epochs", "rows ratio", "CPU ratio", "AUC, stateful less stateless"],
        rows=[[*cell, t.rows_ratio, t.cpu_ratio, t.gap] for cell, t in tallies.items()],
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
