"""Triggers against the clairvoyant schedule: on simulated staleness, on clean streams, and on real ones."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import perennial as pn
from benchmarks.evidence.records import Cell, Goal, Part, Table
from perennial import strategies, triggers, windows
from perennial.core.protocols import Facts, Trigger
from perennial.core.records import Loss
from perennial.core.times import duration
from perennial.replay.clairvoyant import schedule

DATA = Path(os.environ.get("PERENNIAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
DAY = 86_400_000_000

Matrix = NDArray[np.float64]


# ---------------------------------------------------------------------- how models go stale


def linear(days: int, size: float, rng: np.random.Generator) -> Matrix:  # noqa: ARG001 - one face for all
    """Excess loss that grows by ``size`` a day."""
    return size * _ages(days)


def root(days: int, size: float, rng: np.random.Generator) -> Matrix:  # noqa: ARG001 - one face for all
    """Fast at first, then slower: the square root of age."""
    return size * np.sqrt(_ages(days))


def accelerating(days: int, size: float, rng: np.random.Generator) -> Matrix:  # noqa: ARG001 - one face for all
    """Slow at first, then ever faster: the square of age."""
    return size * _ages(days) ** 2


def jumps(days: int, every: float, least: float, most: float, rng: np.random.Generator) -> Matrix:
    """Abrupt changes at random times: a model trained before one loses its size from then on."""
    happens = rng.random(days) < 1 / every
    level = np.cumsum(np.where(happens, rng.uniform(least, most, days), 0.0))
    return _since(level[None, :] - level[:, None])


def recurring(days: int, period: float, height: float, rng: np.random.Generator) -> Matrix:
    """A season: a model is right again a whole period after it was trained."""
    angle = 2 * math.pi * (np.arange(days) / period + rng.random())
    place = np.stack([np.cos(angle), np.sin(angle)])
    return _since(height * _apart(place) / 2)


def wandering(days: int, slow: float, fast: float, stretch: float, rng: np.random.Generator) -> Matrix:
    """A random walk in the plane whose pace changes between slow and fast: excess is the way from there to here."""
    pace = np.where((np.arange(days) // stretch).astype(int) % 2 == 0, slow, fast)
    return _since(_apart(np.cumsum(pace * rng.normal(size=(2, days)), axis=1)))


KINDS: dict[str, Callable[..., Matrix]] = {
    kind.__name__: kind for kind in (linear, root, accelerating, jumps, recurring, wandering)
}


def _ages(days: int) -> Matrix:
    at = np.arange(days, dtype=np.float64)
    return np.maximum(at[None, :] - at[:, None], 0.0)


def _apart(place: Matrix) -> Matrix:
    return np.sqrt(((place[:, None, :] - place[:, :, None]) ** 2).sum(axis=0))


def _since(excess: Matrix) -> Matrix:
    """Nothing is asked of a model before its training."""
    return np.triu(excess)


# ---------------------------------------------------------------------- one life of a trigger


@dataclass(frozen=True, kw_only=True)
class World:
    """What a day's batch loses: ``rows`` rows at ``fresh`` each, more for a stale model, and noise of the mean."""

    excess: Matrix
    noise: NDArray[np.float64]
    rows: int
    fresh: float


def live(trigger: Trigger, world: World) -> tuple[int, ...]:
    """Days on which an engine with this trigger retrains; it sees only what a day's batch lost, noise and all."""
    state, trained, fired = trigger.start(), 0, []
    for day in range(1, len(world.noise)):
        seen = world.fresh + world.excess[trained, day - 1] + world.noise[day - 1]
        facts = Facts(
            now=day * DAY, anchor=0, trained_at=trained * DAY, labelled=(day - trained) * world.rows,
            fresh=world.rows, loss=Loss(n=world.rows, total=world.rows * float(seen), name="loss"),
        )  # fmt: skip
        decision, state = trigger.step(state, facts)
        if decision.fire:
            state, trained = trigger.trained(state, facts), day
            fired.append(day)
    return tuple(fired)


def cost(excess: Matrix, retrained: Sequence[int], price: float) -> float:
    """Loss-days of staleness, and the price of every retrain; the first training is everybody's and not counted."""
    total, starts = 0.0, [0, *retrained]
    for start, end in zip(starts, [*retrained, len(excess)], strict=True):
        total += float(excess[start, start:end].sum())
    return total + price * len(retrained)


# ---------------------------------------------------------------------- simulated streams


def worlds(given: Mapping[str, Any], seeds: Sequence[int]) -> dict[tuple[str, int], World]:
    """A stream for each way to go stale and each seed."""
    made = {}
    for index, (kind, sizes) in enumerate(given["kinds"].items()):
        for seed in seeds:
            rng = np.random.default_rng([seed, index])
            excess = KINDS[kind](given["days"], rng=rng, **sizes)
            noise = rng.normal(0.0, given["noise"], given["days"])
            made[kind, seed] = World(excess=excess, noise=noise, rows=given["rows"], fresh=given["fresh"])
    return made


def policies(given: Mapping[str, Any]) -> dict[str, Callable[[float], Trigger]]:
    """What is compared, by name: a trigger for a price in loss-days. The first is what we ship as the default."""
    rows, level = given["rows"], given["fresh"] + given["sigmas"] * given["noise"]
    return {
        "regret": lambda price: triggers.regret(price * rows),
        "regret, kappa 1": lambda price: triggers.regret(price * rows, kappa=1.0),
        "forecast": lambda price: triggers.forecast(price * rows, given["horizon"]),
        "loss above 3 sigma": lambda _price: triggers.loss_above(level, rows=rows),
    }


FIXED = "best fixed interval, in hindsight"


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Cost over that of the clairvoyant schedule: by policy, kind and price, the geometric mean over seeds."""

    cells: Mapping[str, Mapping[tuple[str, float], float]]

    def mean(self, policy: str) -> float:
        return geometric(self.cells[policy].values())

    def worst(self, policy: str) -> tuple[float, str]:
        (kind, price), ratio = max(self.cells[policy].items(), key=lambda item: item[1])
        return ratio, f"{kind}, {price:g} loss-days"


def simulate(given: Mapping[str, Any], seeds: Sequence[int]) -> Simulated:
    """Let every policy live on every stream."""
    streams = worlds(given, seeds)
    ratios: dict[str, dict[tuple[str, float], list[float]]] = {}
    for (kind, _), world in streams.items():
        for price in given["prices"]:
            bound = schedule(world.excess, price).cost - price
            costs = {
                name: cost(world.excess, live(make(price), world), price) for name, make in policies(given).items()
            }
            intervals = [range(every, given["days"], every) for every in given["fixed"]]
            costs[FIXED] = min(cost(world.excess, interval, price) for interval in intervals)
            for name, paid in costs.items():
                ratios.setdefault(name, {}).setdefault((kind, price), []).append(paid / bound)
    cells = {name: {cell: geometric(found) for cell, found in of.items()} for name, of in ratios.items()}
    return Simulated(cells=cells)


def wasted(given: Mapping[str, Any], clean: Mapping[str, Any]) -> dict[str, dict[float, list[int]]]:
    """Retrains of a year in which no model grows stale, by policy and price: each of them is wasted."""
    days, streams = clean["days"], range(clean["streams"])
    never = np.zeros((days, days))
    out: dict[str, dict[float, list[int]]] = {name: {} for name in policies(given)}
    for stream in streams:
        noise = np.random.default_rng([1, stream]).normal(0.0, given["noise"], days)
        world = World(excess=never, noise=noise, rows=given["rows"], fresh=given["fresh"])
        for name, make in policies(given).items():
            for price in given["prices"]:
                out[name].setdefault(price, []).append(len(live(make(price), world)))
    return out


def geometric(values: Iterable[float]) -> float:
    return math.exp(float(np.mean([math.log(value) for value in values])))


# ---------------------------------------------------------------------- real streams

#: what each stream predicts, and the model; none gives probabilities, so that a trigger's loss is what is paid
REAL: dict[str, Callable[[], Any]] = {
    "electricity": lambda: make_pipeline(StandardScaler(), RidgeClassifier()),
    "insects_gradual_balanced": lambda: make_pipeline(StandardScaler(), RidgeClassifier()),
    "bike_sharing_hourly": lambda: HistGradientBoostingRegressor(random_state=0),
}


def real(name: str, given: Mapping[str, Any], fixed: Sequence[int], price: float, cache: Path) -> list[Cell]:
    """One row of the table: money paid by each policy over the bound, as the product's own backtest says."""
    batch, window = given["batch"], given["window"]
    stream = pn.Stream(
        str(DATA / f"{name}.parquet"), name=name, time=given["time"], target="target", time_zone="UTC",
        drop=given["drop"], batch=batch,
    )  # fmt: skip
    span, horizon = (times(batch, window), times(batch, given["horizon"]))
    if isinstance(batch, int):  # a made-up clock of a row a minute
        horizon = timedelta(minutes=batch * given["horizon"])

    def line(trigger: Trigger) -> strategies.Stateless:
        sliding = windows.Sliding(rows=span) if isinstance(span, int) else windows.Sliding(span)
        return strategies.Stateless(REAL[name](), initial=span, trigger=trigger, window=sliding)

    lines = {f"every {k}": line(every(times(batch, k))) for k in fixed}
    lines |= {
        "never": line(every(times(batch, 10_000))),
        "regret": line(triggers.regret(price)),
        "regret, kappa 1": line(triggers.regret(price, kappa=1.0)),
        "forecast": line(triggers.forecast(price, horizon)),
    }
    prices = pn.metrics.Prices(retrain=price, error=1.0)
    result = pn.backtest(stream, lines, prices=prices, clairvoyant="every 1", jobs=1, cache=cache)
    assert result.clairvoyant is not None
    bound = result.clairvoyant["cost"]
    paid = {label: result[label].costs["money"] / bound for label in lines}
    best = min((label for label in lines if label.startswith(("every", "never"))), key=lambda label: paid[label])
    trained = {label: len(result[label].versions) for label in lines}
    told = [f"{paid[label]:.3f} ({trained[label]})" for label in ("regret", "regret, kappa 1", "forecast")]
    return [name, price, *told, f"{paid[best]:.3f} ({trained[best]}, {best})", f"{paid['every 1']:.3f}",
            f"{paid['never']:.3f}", result.clairvoyant["trainings"]]  # fmt: skip


def times(batch: str | int, count: int) -> Any:
    """So many batches, as a number of rows or as a length of time."""
    return batch * count if isinstance(batch, int) else duration(batch, "batch") * count


def every(interval: Any) -> Trigger:
    return triggers.every(rows=interval) if isinstance(interval, int) else triggers.every(interval)


# ---------------------------------------------------------------------- the part


def measure(settings: Mapping[str, Any], seeds: Sequence[int], tell: Callable[[str], object]) -> Part:
    """Simulated streams, clean ones, and real ones."""
    given, goals = settings["simulated"], settings["goals"]
    tell(f"triggers: {len(given['kinds'])} kinds of staleness, {len(seeds)} seeds, {len(given['prices'])} prices")
    found = simulate(given, seeds)
    tell(f"triggers: {settings['clean']['streams']} clean years")
    vain = wasted(given, settings["clean"])
    rows, notes = [], list(NOTES)
    with TemporaryDirectory() as cache:
        for name in REAL:
            if not (DATA / f"{name}.parquet").exists():
                notes.append(f"{name} was not measured: set PERENNIAL_DATA to a folder that holds {name}.parquet")
                continue
            own = settings["real"][name]
            for price in own["prices"]:
                tell(f"triggers: {name}, a retrain at {price}")
                rows.append(real(name, own, settings["real"]["fixed"], float(price), Path(cache)))
    worst, cell = found.worst("regret")
    most = max(vain["regret"], key=lambda price: np.mean(vain["regret"][price]))
    return Part(
        name="triggers",
        title="When to train: against the clairvoyant schedule",
        goals=[
            Goal(what="regret: cost over the clairvoyant's, geometric mean of all cells", value=found.mean("regret"),
                 limit=goals["mean"], way="at most"),
            Goal(what="regret: the same in its worst cell", value=worst, limit=goals["worst"],
                 way="at most", note=cell),
            Goal(what="regret: cost over the best fixed interval's in hindsight, geometric mean",
                 value=found.mean("regret") / found.mean(FIXED), limit=1.0, way="at most"),
            Goal(what="regret: wasted retrains in a clean year, mean, at the price where they are most",
                 value=float(np.mean(vain["regret"][most])), limit=goals["wasted"], way="at most",
                 note=f"{most:g} loss-days; at worst {max(vain['regret'][most])} in {len(vain['regret'][most])} years"),
        ],
        tables=[
            Table(
                title="Cost over the clairvoyant's, geometric mean over seeds",
                columns=["staleness", "a retrain costs", *found.cells],
                rows=[
                    *([kind, price, *(of[kind, price] for of in found.cells.values())]
                      for kind, price in found.cells["regret"]),
                    ["geometric mean", None, *map(found.mean, found.cells)],
                    ["worst", None, *(found.worst(name)[0] for name in found.cells)],
                ],
            ),
            Table(
                title="Wasted retrains in a year without staleness: mean, and the worst year",
                columns=["policy", *(f"a retrain costs {price:g} loss-days" for price in given["prices"])],
                rows=[[name, *(f"{np.mean(n):.2f}, {max(n)}" for n in of.values())] for name, of in vain.items()],
            ),
            Table(
                title="Real streams: money over the clairvoyant's (trainings)",
                columns=["stream", "a retrain costs", "regret", "regret, kappa 1", "forecast", "best fixed",
                         "every batch", "never", "clairvoyant trainings"],
                rows=rows,
            ),
        ],
        notes=notes,
    )  # fmt: skip


NOTES = (
    "Simulated: a retrain takes a model back to its fresh loss at once, and the fresh loss never moves. Real streams "
    "do neither.",
    "Constants of the triggers and sizes of the simulator were chosen on other seeds, before these were looked at. "
    "Jumps were made smaller there, from 0.05-0.3: whoever looks at losses pays such a jump for a day, up to three "
    "times the cheapest retrain.",
    "The clairvoyant retrains on the morning of a jump; whoever looks at losses learns of it a day later at best. No "
    "policy comes to 1 there.",
    "`loss above 3 sigma` is told the true fresh level and the true noise, and the best fixed interval is chosen for "
    "each stream after it is over: nobody has either.",
    "Real: linear models without probabilities, or a regression, so that a trigger counts what is paid. Labels are "
    "known when the next batch begins. The bound chooses among all batches, and is charged for its trainings alike.",
    "Regret sees loss that grows after a training. What a retrain gains by more rows, or within its first two batches, "
    "it takes for the fresh level: where each batch is worth learning at once, a short fixed interval does better.",
)
