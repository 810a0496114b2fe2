"""Sliding Ridge and Gaussian naive Bayes from sums of block statistics, against scikit-learn refitted on each window.

Windows hold 5 steps, so a refit reads every row five times and block sums read it once. Measured twice: bare, with the
rows in memory and nothing but fits; and through the engine on both sides, where ``train_cpu_seconds`` is what training
costs and the whole run also reads, joins and predicts, which is the same on both sides and no cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.linear_model
import sklearn.naive_bayes
from numpy.typing import NDArray

from benchmarks.common import Data, Figure, Size, classified, interleaved, ours, ratios, require, seconds, valued
from perennial import Stream, strategies, triggers, windows
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.records import Examples
from perennial.learners import plain
from perennial.stream.blocks import BlockSums

NAME = "block_sums"

_REPEATS = 5

#: window, step, slides
_SIZES = {"full": (100_000, 20_000, 10), "quick": (100_000, 20_000, 3), "tiny": (10_000, 2_000, 3)}


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:
    """How many times cheaper sliding is than refitting, for both models, bare and through the engine."""
    window, step, slides = _SIZES[size]
    rows = window + step * slides
    regression, classes = valued(rows, 30), classified(rows, 30)
    ridge = ("Ridge", plain.Ridge(alpha=1.0), sklearn.linear_model.Ridge(alpha=1.0), regression)
    bayes = ("GaussianNB", plain.GaussianNB(), sklearn.naive_bayes.GaussianNB(), classes)
    figures = []
    for name, own, theirs, data in (ridge, bayes):
        figures += _bare(name, own, theirs, data, window, step, rounds)
        figures += _engine(name, own, theirs, data, window, step, rounds, folder)
    return figures


# ---------------------------------------------------------------------- bare


def _bare(name: str, own: Any, theirs: Any, data: Data, window: int, step: int, rounds: int) -> list[Figure]:
    examples = _examples(data)
    examples.features.matrix()  # both sides start from one row-major matrix in memory
    cuts = range(window, len(data.x) + 1, step)
    asked = data.x[-step:]

    def slide() -> list[Any]:
        sums = BlockSums(own)
        return [sums.fit(np.arange(cut - window, cut), examples.slice(cut - window, cut)) for cut in cuts]

    def refit() -> list[Any]:
        return [sklearn.base.clone(theirs).fit(data.x[cut - window : cut], data.y[cut - window : cut]) for cut in cuts]

    measured = interleaved({"refitted": _often(refit), "slid": _often(slide)}, rounds)
    pairs = zip(measured["slid"][0][1], measured["refitted"][0][1], strict=True)
    features = examples.features.slice(len(data.x) - step, len(data.x))
    gap = max(_gap(_said(one.predict(features)), _asked(other, asked)) for one, other in pairs)
    require(gap <= 1e-8, f"predictions of {name} by block sums and refitted: {gap:.1e} apart")
    return [
        Figure(
            benchmark=NAME,
            what=f"{name}: fits alone, {len(cuts)} windows of 5 steps, times cheaper, CPU",
            peer=f"scikit-learn's {name} refitted on each window",
            rounds=ratios(seconds(measured["refitted"]), seconds(measured["slid"])),
            at_least=5.0,
            checked=f"predictions of {len(cuts)} models, {gap:.0e} apart",
        )
    ]


def _often(arm: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    """Several times in a row: one takes less than a tenth of a second, and the first finds the caches cold."""
    return lambda: [arm() for _ in range(_REPEATS)][-1]


def _examples(data: Data) -> Examples:
    schema = Schema([Column(name, Kind.NUMBER, "double") for name in data.names])
    whole = data.y.dtype.kind == "f"
    return Examples(
        features=Features.of(Chunk(data.table.select(data.names), schema)),
        rows=np.zeros((len(data.x), 16), dtype=np.uint8),
        time=np.arange(len(data.x)),
        codes=None if whole else data.y.astype(np.int32),
        classes=() if whole else (0, 1),
        values=data.y if whole else None,
    )


def _said(prediction: Any) -> NDArray[np.float64]:
    return np.asarray(prediction.values if prediction.values is not None else prediction.proba)


def _asked(model: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    ask: Callable[..., Any] = model.predict_proba if hasattr(model, "predict_proba") else model.predict
    return np.asarray(ask(rows))


def _gap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(one - other).max())


# ---------------------------------------------------------------------- through the engine


def _engine(
    name: str, own: Any, theirs: Any, data: Data, window: int, step: int, rounds: int, folder: Path
) -> list[Figure]:
    table = data.table

    def arm(model: Any) -> Callable[[], Any]:
        strategy = strategies.Stateless(
            model, initial=window, trigger=triggers.every(rows=step), window=windows.Sliding(rows=window)
        )
        return lambda: ours(
            lambda: Stream(table, time="at", target="y", label_delay="0s", batch=step // 4), strategy, folder
        )

    measured = interleaved({"refitted": arm(theirs), "slid": arm(own)}, rounds)
    slid, refitted = ([result for _, result in measured[arm]] for arm in ("slid", "refitted"))
    one, other = slid[0].columns, refitted[0].columns
    gap = _gap(one.prediction, other.prediction) if one.proba is None else _gap(one.proba, other.proba)
    require(gap <= 1e-8, f"predictions of {name} by block sums and refitted in the engine: {gap:.1e} apart")
    peer = f"scikit-learn's {name} refitted on each window, in the engine"
    checked = f"{len(one.row):,} predictions, {gap:.0e} apart"
    return [
        Figure(
            benchmark=NAME,
            what=f"{name}: trainings in the engine, times cheaper, CPU",
            peer=peer,
            rounds=ratios([r.summary.train_cpu_seconds for r in refitted], [r.summary.train_cpu_seconds for r in slid]),
            at_least=5.0,
            checked=checked,
        ),
        Figure(
            benchmark=NAME,
            what=f"{name}: whole run (reading, joining and predicting too), times cheaper, CPU",
            peer=peer,
            rounds=ratios([r.run_seconds for r in refitted], [r.run_seconds for r in slid]),
            checked=checked,
        ),
    ]
