"""``import perennial`` in a fresh interpreter: no framework, and next to nothing on top of numpy's own import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.common import Figure, Size, require

NAME = "import_time"

_ROUNDS = {"full": 15, "quick": 7, "tiny": 1}  # each takes a fraction of a second
_FRAMEWORKS = {"sklearn", "pandas", "pyarrow", "lightgbm", "xgboost", "catboost", "river", "polars"}
_CODE = """
import sys, time
wall, cpu = time.perf_counter(), time.process_time()
import {module}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, *sorted({frameworks} & sys.modules.keys()))
"""


def measure(size: Size, rounds: int, folder: Path) -> list[Figure]:  # noqa: ARG001 - all benchmarks are called alike
    """Seconds of ``import perennial``, and its CPU over that of ``import numpy``."""
    ours, theirs = [], []
    for _ in range(_ROUNDS[size]):
        theirs.append(_timed("numpy"))
        ours.append(_timed("perennial"))
    peer = "import numpy"
    checked = "no framework is loaded"
    return [
        Figure(
            benchmark=NAME,
            what="import perennial, wall clock",
            peer="none: a limit",
            rounds=[wall for wall, _ in ours],
            unit="s",
            at_most=0.3,
            checked=checked,
        ),
        Figure(
            benchmark=NAME,
            what="import perennial, CPU",
            peer=peer,
            rounds=[one / other for (_, one), (_, other) in zip(ours, theirs, strict=True)],
            checked=checked,
        ),
    ]


def _timed(module: str) -> tuple[float, float]:
    code = _CODE.format(module=module, frameworks=_FRAMEWORKS)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    require(not told[2:], f"import {module} loads {', '.join(told[2:])}")
    return float(told[0]), float(told[1])
