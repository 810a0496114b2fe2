"""Cadences 1, 2, 3 and 4 over one sliding window: a cache of trainings shared by all four, against none.

Every training that cadence 2, 3 or 4 asks for is one that cadence 1 asks for too, so of 1 + 1/2 + 1/3 + 1/4 = 2.08
trainings per step only one is distinct. What is left over is predicting, four times on either side.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier
from numpy.typing import NDArray

from benchmarks.common import SAME_WAY, Figure, Size, classified, interleaved, job, ratios, require, seconds
from perennial import Stream, strategies, triggers, windows
from perennial.replay.run import run
from perennial.replay.spill import read
from perennial.stream import Prepared

NAME = "shared_cadences"
CADENCES = (1, 2, 3, 4)

_SIZES = {"full": (50_000, 5_000, 12, 100), "quick": (20_000, 2_000, 12, 30), "tiny": (1_000, 200, 4, 5)}


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:
    """CPU seconds of four cadences with shared trainings, over those without."""
    window, step, steps, trees = _SIZES[size]
    data = classified(window + step * steps, 20)
    prepared = Stream(data.table, time="at", target="y", label_delay="0s", batch=step).prepare(folder / "stream")
    model = LGBMClassifier(n_estimators=trees, n_jobs=1, verbose=-1, **SAME_WAY)

    measured = interleaved(
        {
            "apart": lambda: _four(prepared, model, window, step, folder, share=False),
            "together": lambda: _four(prepared, model, window, step, folder, share=True),
        },
        rounds,
    )
    apart, together = measured["apart"][0][1], measured["together"][0][1]
    for cadence, one, other in zip(CADENCES, apart, together, strict=True):
        require(np.array_equal(one, other), f"probabilities of cadence {cadence}, apart and together")
    return [
        Figure(
            benchmark=NAME,
            what="cadences 1, 2, 3, 4 with shared trainings, CPU",
            peer="the same four strategies, each on its own",
            rounds=ratios(seconds(measured["together"]), seconds(measured["apart"])),
            at_most=0.55,
            checked=f"{sum(part.size for part in apart):,} probabilities, bit for bit",
        )
    ]


def _four(
    prepared: Prepared, model: Any, window: int, step: int, folder: Path, *, share: bool
) -> list[NDArray[np.float64]]:
    with TemporaryDirectory(dir=folder) as home:
        out = []
        for cadence in CADENCES:
            strategy = strategies.Stateless(
                model, initial=window, trigger=triggers.every(rows=step * cadence), window=windows.Sliding(rows=window)
            )
            done = Path(home) / f"cadence-{cadence}"
            summary = run(job(prepared, strategy), done, Path(home) / "trainings" if share else None)
            proba = read(done, summary).proba
            assert proba is not None
            out.append(proba)
        return out
