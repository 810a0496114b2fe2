"""Peak memory of a backtest of 5 million rows of 30 columns, read from Parquet, in a process of its own.

The stream is made in parts and deleted afterwards. Peak memory is what the process itself reached: ``VmHWM`` where the
system tells it, since ``ru_maxrss`` of a fresh process starts from what its parent held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.common import Figure, Size, require, times

NAME = "memory"
COLUMNS = 30  # 28 numbers, the time and the label

_SIZES = {"full": (5_000_000, 200_000), "quick": (500_000, 50_000), "tiny": (5_000, 1_000)}
_PART = 100_000  # rows written at once: a row group


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:  # noqa: ARG001 - memory repeats: one round
    """Peak resident gigabytes of a sliding and a stateful strategy, one process, scores and report included."""
    rows, window = _SIZES[size]
    path = folder / "many-rows.parquet"
    _write(path, rows)
    try:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.memory", str(path), str(window)]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
        bytes_on_disk = path.stat().st_size
    finally:
        path.unlink()
    predicted = told["predicted"]
    require(all(count == told["expected"] for count in predicted), f"{predicted} of {told['expected']:,} predictions")
    return [
        Figure(
            benchmark=NAME,
            what=f"{rows:,} rows x {COLUMNS} columns, windows of {window:,} rows: peak resident memory",
            peer=f"none: a limit (as float64 in memory: {rows * COLUMNS * 8 / 1e9:.2f} GB; "
            f"as Parquet: {bytes_on_disk / 1e9:.2f} GB)",
            rounds=[told["peak_bytes"] / 1e9],
            unit="GB",
            at_most=2.0,
            checked=f"{predicted[0]:,} rows predicted by each strategy",
        )
    ]


def _write(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, _PART):
        stop = min(start + _PART, rows)
        x = rng.normal(size=(stop - start, COLUMNS - 2))
        label = (x[:, 0] + x[:, 1] + rng.normal(size=len(x)) > 0).astype(np.int8)
        columns = {f"x{j}": x[:, j] for j in range(x.shape[1])}
        table = pa.table({"at": times(start, stop), **columns, "y": label})
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _replay(path: str, window: int) -> dict[str, object]:
    """Run in the fresh process: what a user would, and then the peak."""
    from sklearn.linear_model import SGDClassifier

    from perennial import Stream, backtest, learners, strategies, triggers, windows

    batch = window // 20
    result = backtest(
        Stream(path, time="at", target="y", label_delay="1h", batch=batch),
        {
            "sliding": strategies.Stateless(
                learners.plain.GaussianNB(),
                initial=window,
                trigger=triggers.every(rows=window // 4),
                window=windows.Sliding(rows=window),
            ),
            "stateful": strategies.Stateful(
                SGDClassifier(loss="log_loss"), initial=window, trigger=triggers.every(rows=batch)
            ),
        },
        metrics=["accuracy", "log_loss", "roc_auc"],
        jobs=1,
    )
    rows = pyarrow.parquet.ParquetFile(path).metadata.num_rows
    predicted = [result[name].predictions.num_rows for name in result]
    return {"peak_bytes": _peak(), "predicted": predicted, "expected": rows - window}


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(_replay(sys.argv[1], int(sys.argv[2]))))
