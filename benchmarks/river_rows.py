"""The same rows one by one: the engine against River's own ``progressive_val_score``.

River is fed by ``stream.iter_array``, the quickest of its ordinary ways from rows in memory to dicts: measured beside
``iter_frame`` and ``DataFrame.to_dict("records")``. Its time includes making the dicts, as ours does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from river import evaluate, linear_model, metrics, optim, preprocessing, tree
from river.stream import iter_array

from benchmarks.common import Data, Figure, Size, classified, interleaved, ours, ratios, require
from perennial import Stream, strategies, triggers
from perennial.core.records import ABSTAINED
from perennial.replay.spill import Columns

NAME = "river_rows"

_ROWS = {"full": 45_000, "quick": 12_000, "tiny": 300}


def _logistic() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.005))


def _alma() -> Any:
    return preprocessing.StandardScaler() | linear_model.ALMAClassifier()


MODELS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": _logistic,
    "ALMA": _alma,
    "HoeffdingTree": tree.HoeffdingTreeClassifier,
}


def measure(size: Size, rounds: int, folder: Path, electricity: Path | None = None) -> list[Figure]:
    """Our CPU seconds over River's for three models on made-up rows of electricity's size, and on electricity."""
    made = classified(_ROWS[size], 8)
    streams = {f"{_ROWS[size]:,} made-up rows": Data(x=made.x, y=made.y.astype(bool))}
    if electricity is not None and size != "tiny":
        streams["electricity"] = _electricity(electricity, _ROWS[size])
    figures = []
    for name, data in streams.items():
        for model, make in MODELS.items():
            figures += _one(f"{model}, {name}", make, data, rounds, folder)
    return figures


def _one(what: str, make: Callable[[], Any], data: Data, rounds: int, folder: Path) -> list[Figure]:
    table = data.table
    strategy = strategies.Stateful(make(), initial=None, trigger=triggers.every(rows=1))

    def stream() -> Stream:
        return Stream(table, time="at", target="y", label_delay="0s", batch=1)

    def river() -> float:
        rows = iter_array(data.x, data.y, feature_names=data.names)
        return float(evaluate.progressive_val_score(rows, make(), metrics.Accuracy()).get())

    measured = interleaved({"river": river, "ours": lambda: ours(stream, strategy, folder)}, rounds)
    theirs, accuracy = measured["river"][0][1], _accuracy(measured["ours"][0][1].columns, len(data.x))
    require(abs(theirs - accuracy) < 1e-12, f"accuracy of {what}: River {theirs!r}, engine {accuracy!r}")
    river_seconds = [spent for spent, _ in measured["river"]]
    runs = [result for _, result in measured["ours"]]
    peer = "river.evaluate.progressive_val_score over stream.iter_array"
    checked = f"accuracy {accuracy:.6f}"
    return [
        Figure(
            benchmark=NAME,
            what=f"{what}: one strategy's run, CPU",
            peer=peer,
            rounds=ratios([r.run_seconds for r in runs], river_seconds),
            at_most=1.15,
            checked=checked,
        ),
        Figure(
            benchmark=NAME,
            what=f"{what}: the run and the pass that prepares the stream, CPU",
            peer=peer,
            rounds=ratios([r.run_seconds + r.prepare_seconds for r in runs], river_seconds),
            checked=checked,
        ),
    ]


def _accuracy(columns: Columns, rows: int) -> float:
    """Share of right answers among rows that the model answered, as River scores them."""
    require(len(columns.row) == rows, f"{len(columns.row):,} of {rows:,} rows were predicted")
    answered = columns.prediction != ABSTAINED
    return float(np.mean(columns.prediction[answered] == columns.label[answered]))


def _electricity(path: Path, rows: int) -> Data:
    table = pa.parquet.read_table(path).slice(0, rows)
    names = [name for name in table.column_names if name not in ("timestamp", "target")]
    labels = table["target"].to_pylist()
    highest = max(labels)
    x = np.column_stack([table[name].cast(pa.float64()).to_numpy() for name in names])
    return Data(x=x, y=np.array([label == highest for label in labels]))
