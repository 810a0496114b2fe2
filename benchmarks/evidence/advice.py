"""Is the advice right? Intervals on histories whose truth is known, and advice that is followed for a while.

1. Losses of batches are simulated, with differences between strategies that last over several batches. Of the 90 %
   intervals for savings at least 85 % are to hold the true ones.
2. Of each stream the first 60 % of the batches are advised upon, and the advice is kept for the other 40 %. Regret is
   how much more is lost there than by the strategy that turns out best there: at most 1 % of the loss in the median
   stream.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence import matrices
from benchmarks.evidence.matrices import Matrix
from benchmarks.evidence.records import Cell, Goal, Part, Table
from perennial.advice.advise import Advice, advise
from perennial.advice.blocks import Blocks

DATA = Path(os.environ.get("PERENNIAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


@dataclass(frozen=True, kw_only=True)
class Lived:
    """What became of advice: of which stream, what it was, and what it cost against the best in hindsight."""

    stream: str
    advised: Advice
    best: str
    regret: float
    #: of whoever takes the least loss of the head, and of whoever never retrains; shares of the least loss of the tail
    regret_of_least: float
    regret_of_frozen: float | None
    #: stated intervals, and how many hold the saving that came true on the tail
    stated: int
    held: int


def measure(settings: Mapping[str, Any], seeds: Sequence[int], tell: Callable[[str], None]) -> Part:
    """Both, and how far intervals of the past hold for the time after."""
    simulated, coverage = _covered(settings, seeds, tell)
    given = matrices.MATRICES.exists()
    streams = matrices.read() if given else list(matrices.made(settings["streams"], DATA, seeds[0], tell))
    lives = [live(matrix, settings["streams"]["head"], settings["level"], settings["margin"]) for matrix in streams]
    regrets = [one.regret for one in lives]
    worst = max(lives, key=lambda one: one.regret)
    stated, held = sum(one.stated for one in lives), sum(one.held for one in lives)
    goals = settings["goals"]
    return Part(
        name="advice",
        title="Is the advice right?",
        goals=[
            Goal(
                what="share of 90 % intervals that hold the true saving, simulated",
                value=coverage,
                limit=goals["coverage"],
                way="at least",
                note=f"{len(seeds) * settings['simulated']['replications']} histories in each cell",
            ),
            Goal(
                what="median regret of advice on 60 % of a stream over the other 40 %, share of the loss",
                value=float(np.median(regrets)),
                limit=goals["regret"],
                way="at most",
                note=f"worst {100 * worst.regret:.3g} %: {worst.stream}",
            ),
        ],
        tables=[simulated, _told(lives)],
        notes=[
            why(worst),
            f"taking the least loss of the head instead has a median regret of "
            f"{100 * float(np.median([one.regret_of_least for one in lives])):.3g} %, at worst "
            f"{100 * max(one.regret_of_least for one in lives):.3g} %; advice takes the cheap one of a tie",
            f"as a prediction of the other 40 % the intervals hold {held} of {stated} savings "
            f"({100 * held / max(stated, 1):.0f} %): they tell of the time that was measured, and drift goes on",
            f"matrices: {'of ' + matrices.MATRICES.name if given else 'made by this part'}",
        ],
    )


# ---------------------------------------------------------------------- 1: known truth


def _covered(settings: Mapping[str, Any], seeds: Sequence[int], tell: Callable[[str], None]) -> tuple[Table, float]:
    given = settings["simulated"]
    rows: list[list[Cell]] = []
    held = total = 0
    for strength in given["strengths"]:
        for length in given["lengths"]:
            inside = intervals = kept = few = n = 0
            width = 0.0
            for seed in seeds:
                draw = np.random.default_rng([seed, round(100 * strength), length])
                for _ in range(given["replications"]):
                    advice, truth = simulated(given, strength, length, settings["level"], draw)
                    for one, true in zip(advice.standings[1:], truth[1:], strict=True):
                        inside += one.low <= true <= one.high
                        width += one.high - one.low
                        intervals += 1
                    kept += advice.standings[0].in_set
                    few += advice.verdict == "not_enough"
                    n += 1
            tell(f"strength {strength}, {length} batches: {inside / intervals:.3f}")
            rows.append([strength, length, inside / intervals, width / intervals, kept / n, few / n])
            held, total = held + inside, total + intervals
    columns = [
        "autocorrelation",
        "batches",
        "intervals that hold",
        "mean width",
        "best strategy in the set",
        "not enough evidence",
    ]
    return Table(title="Simulated histories of known truth", columns=columns, rows=rows), held / total


def simulated(
    settings: Mapping[str, Any], strength: float, length: int, level: float, draw: np.random.Generator
) -> tuple[Advice, list[float]]:
    """Advice on one history, and the true savings per row against its first strategy."""
    offsets = np.array(settings["offsets"])
    rows = draw.poisson(settings["rows"], length) + 1
    own = _lasting(draw, strength, length, len(offsets)) * settings["own"]
    shared = _lasting(draw, 0.9, length, 1) * settings["swing"]
    blocks = Blocks(
        strategies=tuple(f"s{j}" for j in range(len(offsets) - 1)),
        lines=("majority",),
        rows=rows,
        loss=(settings["level"] + shared + own + offsets) * rows[:, None],
        effort={"rows_trained": np.arange(1.0, len(offsets))},
    )
    return advise(blocks, level=level, seed=int(draw.integers(2**31))), (-offsets).tolist()


def _lasting(draw: np.random.Generator, rho: float, t: int, k: int) -> Any:
    """Autoregressive series of variance 1, stationary from the first."""
    out = draw.standard_normal((t, k))
    fresh = math.sqrt(1 - rho**2)
    for i in range(1, t):
        out[i] = rho * out[i - 1] + fresh * out[i]
    return out


# ---------------------------------------------------------------------- 2: advice that is followed


def live(matrix: Matrix, head: float, level: float, margin: float) -> Lived:
    """Advise on the first share of the batches, and see what it comes to on the rest."""
    cut = round(head * len(matrix.rows))
    before, after = matrix.blocks(slice(0, cut)), matrix.blocks(slice(cut, None))
    advice = advise(before, level=level, margin=margin)
    tail = after.loss.sum(axis=0)
    least = float(tail.min())
    shares = dict(zip(matrix.strategies, ((tail - least) / least).tolist(), strict=True))
    first = matrix.strategies[int(before.loss.sum(axis=0).argmin())]
    per_row = (tail[after.reference] - tail) / after.rows.sum()
    others = [j for j in range(len(matrix.strategies)) if j != before.reference]
    return Lived(
        stream=matrix.stream,
        advised=advice,
        best=matrix.strategies[int(tail.argmin())],
        regret=shares[advice.strategy],
        regret_of_least=shares[first],
        regret_of_frozen=shares.get("frozen"),
        stated=len(others),
        held=sum(advice.standings[j].low <= per_row[j] <= advice.standings[j].high for j in others),
    )


def why(worst: Lived) -> str:
    """What went wrong on the worst stream, in words."""
    if not worst.regret:
        return "no advice had any regret"
    best = worst.best
    told = f"worst: {worst.stream}, {worst.advised.strategy} where {best} turned out best"
    if worst.advised.verdict == "not_enough":
        return f"{told}; it had said that there was not enough evidence: {worst.advised.short}"
    if best in worst.advised.tied:
        return f"{told}; the two could not be told apart before, and the cheaper one was taken"
    return f"{told}; it was shown to be worse before: what held for the first 60 % did not for the rest"


def _told(lives: Sequence[Lived]) -> Table:
    columns = ["stream", "advised", "verdict", "tied with", "best on the rest", "regret", "of the least loss before", "of frozen", "savings held"]  # fmt: skip  # noqa: E501
    rows: list[list[Cell]] = [
        [
            one.stream,
            one.advised.strategy,
            one.advised.verdict,
            len(one.advised.tied),
            one.best,
            one.regret,
            one.regret_of_least,
            one.regret_of_frozen,
            f"{one.held} of {one.stated}",
        ]
        for one in lives
    ]
    return Table(title="Advice on the first 60 %, lived with on the rest", columns=columns, rows=rows)
