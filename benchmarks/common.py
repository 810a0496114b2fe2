"""What benchmarks share: interleaved timing, the check that results are equal, streams, and one strategy's run."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from perennial import Stream, __version__
from perennial.learners import as_learner
from perennial.replay.run import Job, run
from perennial.replay.spill import Columns, Summary, read
from perennial.strategies import Strategy
from perennial.stream import Prepared
from perennial.stream.quality import Quality

Size = Literal["full", "quick", "tiny"]  #: the numbers quoted; a look in about a minute; for the smoke test


#: by itself LightGBM times row-wise against column-wise histograms at each fit and takes the quicker: two fits of the
#: same rows may then differ in their last bits. Fixed on both sides, they cannot
SAME_WAY = {"force_row_wise": True, "deterministic": True}


class Different(Exception):
    """Two ways that must give the same results do not: their speed means nothing."""


def require(equal: bool, what: str) -> None:
    """Raise :class:`Different` unless results are equal: called before any speed is quoted."""
    if not equal:
        raise Different(what)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number: ours against its peer.

    Parameters
    ----------
    benchmark, what, peer : str
        Which benchmark, what of ours was measured, and against what.
    unit : str
        ``"x"`` for a ratio, else the unit.
    rounds : list of float
        The number in each round; the figure is their median.
    at_most, at_least : float, optional
        The target; a number without one is told for the reader.
    checked : str
        What was found equal before.
    """

    benchmark: str
    what: str
    peer: str
    rounds: list[float]
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None
    checked: str = ""

    @property
    def value(self) -> float:
        """The median over rounds."""
        return statistics.median(self.rounds)

    @property
    def target(self) -> str:
        """The target in words; empty if there is none."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return f">= {self.at_least:g}" if self.at_least is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None

    def record(self) -> dict[str, Any]:
        """Plain values for ``results.json``."""
        rounds = [round(value, 4) for value in self.rounds]
        return asdict(replace(self, rounds=rounds)) | {
            "value": round(self.value, 4),
            "target": self.target,
            "met": self.met,
        }


@dataclass(frozen=True, kw_only=True)
class NotMeasured:
    """A peer that could not be measured here, and why: told beside the figures."""

    benchmark: str
    peer: str
    reason: str


Arm = Callable[[], Any]


def interleaved(
    arms: dict[str, Arm], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[Any]]:
    """Run every arm once per round, in turns, and give what each returned, with its seconds, round by round.

    Every second round goes backwards, so that an arm does not always run behind the same neighbour. Numeric libraries
    use one thread. ``clock`` is the process's CPU time unless something else is measured: other programs on the
    machine disturb it least.

    Returns
    -------
    dict
        Per arm a list of (seconds, what it returned).
    """
    out: dict[str, list[Any]] = {name: [] for name in arms}
    for number in range(rounds):
        names = list(arms) if number % 2 == 0 else list(reversed(arms))
        for name in names:
            gc.collect()
            with threadpool_limits(1):
                before = clock()
                result = arms[name]()
                out[name].append((clock() - before, result))
    return out


def seconds(measured: Sequence[tuple[float, Any]]) -> list[float]:
    """The seconds of each round."""
    return [spent for spent, _ in measured]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round: what slows a round down slows both."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


# ---------------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True)
class Data:
    """Made-up rows: ``x`` (n, d), labels ``y`` (n,), one row a minute."""

    x: NDArray[np.float64]
    y: NDArray[Any]

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [f"x{j}" for j in range(self.x.shape[1])]

    @property
    def table(self) -> Any:
        """The rows as an Arrow table with a time column ``at`` and the label ``y``."""
        columns = {name: self.x[:, j] for j, name in enumerate(self.names)}
        return pa.table({"at": times(0, len(self.x)), **columns, "y": self.y})


def times(start: int, stop: int) -> NDArray[np.datetime64]:
    """Event times of rows ``[start, stop)``, a minute apart."""
    minute = np.timedelta64(60_000_000, "us")
    found: NDArray[np.datetime64] = np.datetime64("2020-01-01", "us") + np.arange(start, stop) * minute
    return found


def classified(rows: int, columns: int, *, seed: int = 0) -> Data:
    """Rows of two classes, 0 and 1, that no model tells apart without error."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    score = x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=rows)
    return Data(x=x, y=(score > 0).astype(np.int64))


def valued(rows: int, columns: int, *, seed: int = 0) -> Data:
    """Rows with a number to predict."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    return Data(x=x, y=x @ rng.normal(size=columns) + rng.normal(size=rows))


# ---------------------------------------------------------------------- our side


def job(prepared: Prepared, strategy: Strategy, name: str = "run") -> Job:
    """The job that ``perennial.backtest`` makes of a strategy on a stream whose labels come with their rows."""
    learner = as_learner(strategy.model)
    return Job(
        name=name,
        strategy=strategy,
        learner=learner,
        prepared=prepared,
        label_delay=prepared.label_delay,
        closes_at=prepared.last_time,
        label_wait=timedelta(0),  # no label comes from a log
        train_latency=timedelta(0),
        seed=0,
        quality=Quality(),
        version=__version__,
        classes=(False, True) if learner.task == "classification" and prepared.label_type == "bool" else (),
    )


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A strategy's run, and the CPU seconds of the pass over the stream before it and of the run itself."""

    summary: Summary
    folder: Path
    prepare_seconds: float
    run_seconds: float

    @property
    def columns(self) -> Columns:
        """All predictions."""
        return read(self.folder, self.summary)


def ours(stream: Callable[[], Stream], strategy: Strategy, folder: Path) -> Ran:
    """Prepare a stream and run one strategy on it, in this process, with nothing taken from a cache."""
    folder = folder / f"{time.perf_counter_ns()}"
    begun = time.process_time()
    prepared = stream().prepare(folder / "stream")
    between = time.process_time()
    summary = run(job(prepared, strategy), folder / "run", None)
    done = time.process_time()
    return Ran(summary=summary, folder=folder / "run", prepare_seconds=between - begun, run_seconds=done - between)


def versions() -> dict[str, str]:
    """Versions of everything that was measured."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"perennial": __version__, "python": platform.python_version()}
    for name in (
        "numpy",
        "pyarrow",
        "pandas",
        "scikit-learn",
        "lightgbm",
        "river",
        "loky",
        "uvicorn",
        "fastapi",
        "orjson",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
