"""Committees against every stateless schedule of a grid, and against their own experts.

Costs are what the backtest counts: row-trees (rows times boosting rounds, the noise-free cost), and the CPU seconds of
training and predicting together. A schedule is held against others as if it had been run alone: trainings that it
shares are counted in full.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.records import Cell, Goal, Part, Table
from benchmarks.evidence.streams import Source, folder, sources
from benchmarks.evidence.units import kept

HERE = Path(__file__).parent
#: losses, rows and row-trees of every batch: what advice is tried on
MATRICES = HERE / "matrices.json"
Told = Callable[[str], None]
Unit = dict[str, dict[str, Any]]  #: by strategy: its loss, costs, and series by batch


def grid(settings: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """Every stateless schedule, by name: ``w8/1`` is 8 batches at each batch."""
    import lightgbm as lgb

    from perennial import strategies, triggers, windows

    def schedule(window: Any, interval: int) -> Any:
        return strategies.Stateless(
            lgb.LGBMClassifier(n_jobs=1, verbose=-1),
            initial=settings["initial"] * batch,
            trigger=triggers.every(rows=interval * batch),
            window=window,
        )

    found: dict[str, Any] = {}
    for interval in settings["intervals"]:
        for width in settings["windows"]:
            window = windows.Expanding() if width == "all" else windows.Sliding(rows=width * batch)
            found[f"w{width}/{interval}"] = schedule(window, interval)
        for width in settings["mixes"]:
            window = windows.Mix(initial=0.3, recent=0.7, rows=width * batch)
            found[f"mix{width}/{interval}"] = schedule(window, interval)
    return found


def rivals(settings: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The committees, and each expert of the full one by itself."""
    from perennial import strategies, triggers
    from perennial.learners import committee

    def stateful(model: Any) -> Any:
        return strategies.Stateful(model, initial=settings["initial"] * batch, trigger=triggers.every(rows=batch))

    full = committee.full()
    alone = {f"expert {name}": stateful(expert) for name, expert in full.experts.items()}
    return {"light": stateful(committee.light()), "full": stateful(full), **alone}


def one(source: Source, seed: int, settings: Mapping[str, Any]) -> Unit:
    """Every strategy on one stream."""
    import warnings

    import perennial as pn

    warnings.filterwarnings("ignore")
    stateless, others = grid(settings, source.batch), rivals(settings, source.batch)
    names = list(stateless)
    order = [*names[: len(names) // 2], *others, *names[len(names) // 2 :]]  # what is compared runs close in time
    chosen = {**stateless, **others}
    result = pn.backtest(
        source.stream(seed), {name: chosen[name] for name in order}, metrics=[settings["loss"]], jobs=1, seed=seed
    )
    return {name: _told(result[name], settings["loss"]) for name in order} | {
        f"no skill {name}": {"loss": line.scores[settings["loss"]]} for name, line in result.baselines.items()
    }


def _told(found: Any, loss: str) -> dict[str, Any]:
    at = np.array([version.at for version in found.versions[1:]], dtype=np.int64)
    trees = np.array([version.row_trees for version in found.versions[1:]], dtype=np.float64)
    start = np.array(found.curve.time, dtype=np.int64)
    place = np.clip(np.searchsorted(start, at, side="right") - 1, 0, None)
    return {
        "loss": found.scores[loss],
        "cpu": found.costs["train_cpu_seconds"] + found.costs["predict_cpu_seconds"],
        "row_trees": found.costs["row_trees"],
        "rows": found.curve.rows,
        "losses": found.curve.by_batch[loss],
        "trees": np.bincount(place, trees, len(start)).tolist(),
    }


def measure(settings: Mapping[str, Any], seeds: Sequence[int], tell: Told) -> Part:
    streams = sources(settings["batches"], settings["generated"])
    units = [(source, seed) for source in streams for seed in (seeds if source.generated else [0])]
    found = _all(units, settings, tell)
    by_stream = {source.name: [found[source.name, s] for s in _seeds(source, seeds)] for source in streams}
    _keep_matrices(by_stream)
    return summarised(by_stream, {source.name: source.batch for source in streams}, settings)


def _seeds(source: Source, seeds: Sequence[int]) -> Sequence[int]:
    return seeds if source.generated else [0]


def _all(units: Sequence[tuple[Source, int]], settings: Mapping[str, Any], tell: Told) -> dict[tuple[str, int], Unit]:
    """Every unit, two at a time, in processes with one thread; what was done before is not done again."""
    from loky import get_reusable_executor

    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    executor = get_reusable_executor(max_workers=2, env=threads, timeout=600)
    waiting = {executor.submit(_unit, source.name, seed, dict(settings)): (source.name, seed) for source, seed in units}
    found: dict[tuple[str, int], Unit] = {}
    for future in as_completed(waiting):
        name, seed = waiting[future]
        found[name, seed] = future.result()
        tell(f"{len(found)} of {len(units)}: {name}, seed {seed}")
    return found


def _unit(name: str, seed: int, settings: Mapping[str, Any]) -> Unit:
    source = next(s for s in sources(settings["batches"], settings["generated"]) if s.name == name)
    return kept("committee", [name, seed, dict(settings)], lambda: one(source, seed, settings))


def _mean(units: Sequence[Unit], name: str, what: str) -> float:
    return float(np.mean([unit[name][what] for unit in units]))


def summarised(by_stream: Mapping[str, Sequence[Unit]], batch: Mapping[str, int], settings: Mapping[str, Any]) -> Part:
    """Goals and tables of what was found."""
    light, full = settings["light"], settings["full"]
    rows: list[list[Cell]] = []
    costs: list[list[Cell]] = []
    for name, units in by_stream.items():
        first = units[0]
        stateless = [n for n in first if n[0] in "wm" and "/" in n]
        experts = [n for n in first if n.startswith("expert ")]
        best = min(stateless, key=lambda n: _mean(units, n, "loss"))
        expert = min(experts, key=lambda n: _mean(units, n, "loss"))
        lines = [n for n in first if n.startswith("no skill ") and first[n]["loss"] is not None]
        no_skill = min((_mean(units, n, "loss") for n in lines), default=None)
        mine, its = _mean(units, "light", "loss"), _mean(units, best, "loss")
        whole, alone = _mean(units, "full", "loss"), _mean(units, expert, "loss")
        rows.append(
            [name, len(units), best, its, mine, mine / its - 1, expert[7:], alone, whole, whole / alone - 1, no_skill]
        )
        trees = _mean(units, "light", "row_trees") / _mean(units, best, "row_trees")
        cpu = _mean(units, "light", "cpu") / _mean(units, best, "cpu")
        costs.append([
            name, batch[name], trees, cpu, _mean(units, best, "cpu"), _mean(units, "light", "cpu"),
            _mean(units, "full", "cpu"), _mean(units, "full", "row_trees") / _mean(units, best, "row_trees"),
        ])  # fmt: skip
    large = [i for i, cost in enumerate(costs) if cost[1] >= settings["light_large"]["from_rows"]]
    small = [i for i in range(len(costs)) if i not in large]
    no_worse = [row[5] <= 0 for row in rows]
    within = [row[9] <= full["within"] for row in rows]
    goals = [
        Goal(what="streams on which light's log loss is no worse than the best stateless schedule's in hindsight",
             value=float(np.mean(no_worse)), limit=light["streams"], way="at least",
             note=f"{sum(no_worse)} of {len(rows)}"),
        Goal(what="light's row-trees over that schedule's, median of streams",
             value=float(np.median([costs[i][2] for i in small])), limit=light["row_trees"], way="at most",
             note=f"within on {sum(costs[i][2] <= light['row_trees'] for i in small)} of {len(small)}"),
        Goal(what="light's CPU over that schedule's, median of streams",
             value=float(np.median([costs[i][3] for i in small])), limit=light["cpu"], way="at most",
             note=f"within on {sum(costs[i][3] <= light['cpu'] for i in small)} of {len(small)}"),
        Goal(what="streams on which full's log loss is within 1 % of its best single expert's",
             value=float(np.mean(within)), limit=full["streams"], way="at least",
             note=f"{sum(within)} of {len(rows)}"),
    ]  # fmt: skip
    for i in large:
        for what, at, limit in (("row-trees", 2, "row_trees"), ("CPU", 3, "cpu")):
            goals.append(
                Goal(what=f"{rows[i][0]}, {batch[str(rows[i][0])]:,} rows to a batch: light's {what} over it",
                     value=float(costs[i][at] or 0.0), limit=settings["light_large"][limit], way="at most")
            )  # fmt: skip
    together = [
        bool(ok) and c[2] <= light["row_trees"] and c[3] <= light["cpu"] for ok, c in zip(no_worse, costs, strict=True)
    ]
    notes = [
        f"log loss no worse, a fifth of the row-trees and two thirds of the CPU hold together on {sum(together)} of "
        f"{len(rows)} streams",
        "retraining from scratch wins on: "
        + (", ".join(f"{row[0]} ({row[2]}, by {row[5]:.1%})" for row in rows if row[5] > 0) or "none"),
    ]
    if folder() is None:
        notes.append("PERENNIAL_DATA is not set, or holds no streams: generated ones alone were measured")
    return Part(
        name="committee",
        title="Committees against the best stateless schedule in hindsight, and their own experts",
        goals=goals,
        tables=[
            Table(
                title="log loss",
                columns=["stream", "seeds", "best stateless", "its loss", "light", "light over it", "best expert",
                         "its loss", "full", "full over it", "no skill"],
                rows=rows,
            ),
            Table(
                title="cost",
                columns=["stream", "batch", "light's row-trees over the schedule's", "light's CPU over it",
                         "schedule CPU s", "light CPU s", "full CPU s", "full's row-trees over it"],
                rows=costs,
            ),
            _every(by_stream),
        ],
        notes=notes,
    )  # fmt: skip


def _every(by_stream: Mapping[str, Sequence[Unit]]) -> Table:
    names = [n for n in next(iter(by_stream.values()))[0] if not n.startswith("no skill")]
    rows = [[name, *(_mean(units, n, "loss") for n in names)] for name, units in by_stream.items()]
    return Table(title="log loss of all", columns=["stream", *names], rows=rows)


def _keep_matrices(by_stream: Mapping[str, Sequence[Unit]]) -> None:
    """Losses and row-trees by batch, of the first seed where there are several."""
    out: dict[str, Any] = {}
    for name, units in by_stream.items():
        unit = {n: told for n, told in units[0].items() if "losses" in told}
        out[name] = {
            "rows": next(iter(unit.values()))["rows"],
            "losses": {n: [None if v is None else round(v, 6) for v in told["losses"]] for n, told in unit.items()},
            "row_trees": {n: told["trees"] for n, told in unit.items()},
        }
    MATRICES.write_text(json.dumps(out, separators=(",", ":")) + "\n", encoding="utf-8")
