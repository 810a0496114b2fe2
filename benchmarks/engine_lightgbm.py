"""Stateless LightGBM on 100,000-row windows: the engine against a bare loop of fit and predict over arrays.

The loop is what one would write by hand with the rows in memory: slice, fit, predict_proba, keep. It does not read,
check, join labels, score or write anything; whatever the engine does beyond it counts as the engine's cost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightgbm import LGBMClassifier
from numpy.typing import NDArray

from benchmarks.common import SAME_WAY, Data, Figure, Size, classified, interleaved, ours, ratios, require, seconds
from perennial import Stream, strategies, triggers, windows

NAME = "engine_lightgbm"

#: rows, window, step, trees
_SIZES = {
    "full": (300_000, 100_000, 20_000, 100),
    "quick": (160_000, 100_000, 20_000, 50),
    "tiny": (3_000, 1_500, 500, 5),
}


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:
    """The engine's CPU seconds over the bare loop's, with and without the pass that prepares the stream."""
    rows, window, step, trees = _SIZES[size]
    data = classified(rows, 30)
    table = data.table
    model = LGBMClassifier(n_estimators=trees, n_jobs=1, verbose=-1, **SAME_WAY)
    strategy = strategies.Stateless(
        model, initial=window, trigger=triggers.every(rows=step), window=windows.Sliding(rows=window)
    )
    batch = step // 4

    def stream() -> Stream:
        return Stream(table, time="at", target="y", label_delay="0s", batch=batch)

    measured = interleaved(
        {
            "bare": lambda: _bare(data, model, window, step, batch),
            "ours": lambda: ours(stream, strategy, folder),
        },
        rounds,
    )
    ran, expected = measured["ours"][0][1], measured["bare"][0][1]
    told = ran.columns
    require(np.array_equal(told.row, np.arange(window, rows)), "rows predicted by the engine and by the loop")
    columns = list(ran.summary.classes)  # in the order in which labels came: the loop's are sorted, 0 and 1
    require(
        np.array_equal(told.proba, expected[:, columns]), "probabilities of the engine and of the loop, bit for bit"
    )

    bare = seconds(measured["bare"])
    runs = [result for _, result in measured["ours"]]
    peer = "bare loop of fit and predict_proba over arrays"
    checked = f"{expected.size:,} probabilities, bit for bit"
    apart = [
        (r.run_seconds - r.summary.train_cpu_seconds - r.summary.predict_cpu_seconds) / b
        for r, b in zip(runs, bare, strict=True)
    ]
    return [
        Figure(
            benchmark=NAME,
            what="one strategy's run over a prepared stream, CPU",
            peer=peer,
            rounds=ratios([r.run_seconds for r in runs], bare),
            at_most=1.03,
            checked=checked,
        ),
        Figure(
            benchmark=NAME,
            what="of it, neither training nor prediction",
            peer=peer,
            rounds=apart,
            checked=checked,
        ),
        Figure(
            benchmark=NAME,
            what="the run and the one-off pass that reads, checks and hashes the stream, CPU",
            peer=peer,
            rounds=ratios([r.run_seconds + r.prepare_seconds for r in runs], bare),
            checked=checked,
        ),
    ]


def _bare(data: Data, model: LGBMClassifier, window: int, step: int, batch: int) -> NDArray[np.float64]:
    params = model.get_params()
    out = []
    for start in range(window, len(data.x), batch):
        if (start - window) % step == 0:
            fitted = LGBMClassifier(**params).fit(data.x[start - window : start], data.y[start - window : start])
        out.append(fitted.predict_proba(data.x[start : start + batch]))
    return np.concatenate(out)
