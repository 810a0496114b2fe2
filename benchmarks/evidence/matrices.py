"""Losses of strategies by batch, stream by stream: another part's, or made here from generated and real streams.

The format of ``matrices.json``: ``{stream: {"rows": [per batch], "losses": {strategy: [mean loss per batch]},
"row_trees": {strategy: [per batch]}}}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import perennial as pn
from perennial import learners, strategies, triggers, windows
from perennial.advice.blocks import Blocks
from perennial.replay import BacktestResult

HERE = Path(__file__).parent
MATRICES = HERE / "matrices.json"
_START = np.datetime64("2026-01-01", "us")


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """Mean losses of t batches by k strategies, their rows, and the rows times trees that each trained in them."""

    stream: str
    strategies: tuple[str, ...]
    rows: NDArray[np.int64]
    losses: NDArray[np.float64]
    row_trees: NDArray[np.float64]

    def blocks(self, part: slice) -> Blocks:
        """The batches of a part, to be advised upon; savings count from the frozen model where there is one."""
        return Blocks(
            strategies=self.strategies,
            rows=self.rows[part],
            loss=self.losses[part] * self.rows[part][:, None],
            effort={"row_trees": self.row_trees[part].sum(axis=0)},
            reference=self.strategies.index("frozen") if "frozen" in self.strategies else 0,
        )


def read(path: Path = MATRICES) -> list[Matrix]:
    """The matrices of a file; batches without rows are left out."""
    found = []
    for stream, held in json.loads(path.read_text(encoding="utf-8")).items():
        names = tuple(held["losses"])
        rows = np.array(held["rows"], dtype=np.int64)
        there = rows > 0
        found.append(
            Matrix(
                stream=stream,
                strategies=names,
                rows=rows[there],
                losses=np.array([held["losses"][name] for name in names], dtype=float).T[there],
                row_trees=np.array([held["row_trees"][name] for name in names], dtype=float).T[there],
            )
        )
    return found


def made(settings: Mapping[str, Any], data: Path, seed: int, tell: Callable[[str], None]) -> Iterator[Matrix]:
    """Matrices of the generated streams, and of the real ones whose files are there."""
    for name, turn in settings["generated"]["turns"].items():
        table, batch = _generated(settings["generated"], turn, name == "abrupt", seed)
        tell(f"{name}: {table.num_rows} rows")
        yield _matrix(name, table, batch, settings)
    for name, held in settings["real"].items():
        file = data / f"{name}.parquet"
        if not file.exists():
            tell(f"{name}: not in {data.name}, left out")
            continue
        table = pq.read_table(file).drop_columns(held["drop"])
        tell(f"{name}: {table.num_rows} rows")
        yield _matrix(name, table, held["batch"], settings)


def _generated(settings: Mapping[str, Any], turn: float, at_once: bool, seed: int) -> tuple[pa.Table, str]:
    """Rows whose classes are told apart by a line that turns, evenly, or by as much at once in the middle."""
    draw = np.random.default_rng(seed)
    n = settings["batches"] * settings["rows"]
    x = draw.normal(size=(n, settings["features"]))
    along = np.linspace(0, 1, n)
    angle = turn * ((along > 0.5) if at_once else along)
    z = x[:, 0] * np.cos(angle) + x[:, 1] * np.sin(angle) + settings["noise"] * draw.normal(size=n)
    at = _START + np.arange(n) * np.timedelta64(1, "m")
    columns: dict[str, Any] = {f"x{j}": x[:, j] for j in range(x.shape[1])}
    return pa.table({"timestamp": at, **columns, "target": np.where(z > 0, "up", "down")}), f"{settings['rows']}min"


def _matrix(name: str, table: pa.Table, batch: str, settings: Mapping[str, Any]) -> Matrix:
    from lightgbm import LGBMClassifier, LGBMRegressor

    number = pa.types.is_integer(table["target"].type) and len(table["target"].unique()) > 100
    kind = LGBMRegressor if number else LGBMClassifier
    model = kind(n_estimators=settings["trees"], num_leaves=15, min_child_samples=20, n_jobs=1, verbosity=-1)
    stream = pn.Stream(table, time="timestamp", target="target", time_zone="UTC", batch=batch, label_delay="0s")
    result = pn.backtest(stream, _grid(model, batch, settings), metrics=["mae" if number else "log_loss"])
    return _of(name, result)


def _grid(model: Any, batch: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    def times(n: int) -> str:
        size = "".join(c for c in batch if c.isdigit())
        return f"{int(size) * n}{batch[len(size) :]}"

    initial = times(settings["window"])
    grid: dict[str, Any] = {"frozen": strategies.Frozen(model, initial=initial)}
    for n in settings["every"]:
        trigger = triggers.every(times(n))
        grid[f"every {n}, all"] = strategies.Stateless(model, initial=initial, trigger=trigger)
        sliding = windows.Sliding(initial)
        grid[f"every {n}, recent"] = strategies.Stateless(model, initial=initial, trigger=trigger, window=sliding)
    grid["updated"] = strategies.Stateful(learners.Decayed(model), initial=initial, trigger=triggers.every(batch))
    return grid


def _of(name: str, result: BacktestResult) -> Matrix:
    """The matrix of a backtest, by its first metric, which must be a mean loss."""
    [metric] = result.to_dict()["metrics"]
    curves = [result[one].curve for one in result]
    rows = np.array(curves[0].rows)
    there = rows > 0
    begun = np.array(curves[0].time)
    trees = np.zeros((len(rows), len(curves)))
    for j, one in enumerate(result):
        for version in result[one].versions[1:]:
            at = int(np.searchsorted(begun, version.at, side="right")) - 1
            if at >= 0:
                trees[at, j] += version.row_trees
    losses = np.array([[math.nan if x is None else x for x in c.by_batch[metric["name"]]] for c in curves]).T
    return Matrix(stream=name, strategies=tuple(result), rows=rows[there], losses=losses[there], row_trees=trees[there])
