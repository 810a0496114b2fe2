"""Strategies side by side on recorded time, each in a process of its own with one thread."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from perennial import __version__
from perennial.advice.advise import advise
from perennial.core.errors import ConfigError, nearest
from perennial.core.identity import users_code
from perennial.core.protocols import Gate
from perennial.core.records import Label, TaskKind
from perennial.core.times import NEVER, Duration, duration
from perennial.engine import check_gate
from perennial.gate import Gate as PairedGate
from perennial.metrics import Metric, Prices, resolve
from perennial.replay import checks, trainings
from perennial.replay.clairvoyant_run import check_bound, lower_bound
from perennial.replay.evaluation import Evaluation, Line
from perennial.replay.reporting import Account, account_of, baseline_of, report_of
from perennial.replay.result import BacktestResult, Baseline, Home
from perennial.replay.run import Job, finished, run, unfinished
from perennial.replay.spill import Summary, read
from perennial.replay.truth import longest_wait
from perennial.replay.weighing import Weighing
from perennial.strategies import Frozen, Strategy
from perennial.stream import Stream
from perennial.stream.prepared import Prepared
from perennial.stream.quality import Quality

_FROZEN = "frozen (baseline)"
_POLL_SECONDS = 0.1

Progress = Callable[[str, int, int], None]  #: what is being done, rows done, rows in all


def backtest(
    stream: Stream,
    strategies: Mapping[str, Strategy],
    *,
    metrics: Sequence[str | Metric | Callable[..., Any]] | None = None,
    prices: Prices | Mapping[str, Any] | None = None,
    seed: int = 0,
    train_latency: Duration = timedelta(0),
    quality: Quality | None = None,
    gate: Gate | None = None,
    clairvoyant: str | None = None,
    jobs: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> BacktestResult:
    """What each strategy would have given on a stream of one's own history.

    Every strategy sees labels only once they were known, predicts each batch before it learns it, and is scored on
    the same rows: those from the latest first prediction on. Beside them stand the no-skill lines.

    Parameters
    ----------
    stream : Stream
        The history.
    strategies : mapping of str to Strategy
        What to compare, by name.
    metrics : sequence of str, callable or Metric, optional
        See :func:`perennial.metrics.resolve`. The first one ranks strategies where no prices are given.
    prices : Prices or mapping, optional
        What mistakes, trainings and storage cost, for one number in the user's money.
    seed : int
        Base of every seed; a training's own seed also depends on its content.
    train_latency : str or timedelta
        How long after its training a version may serve.
    quality : Quality, optional
        What a batch must hold to be learned from.
    gate : Gate, optional
        Champion against challenger, for every strategy; each version is promoted untested unless given.
    clairvoyant : str, optional
        Name of a stateless strategy, for whose learner and window the cheapest schedule of retrains is found in
        hindsight: a lower bound for cost. Costs a training per checkpoint, and needs prices.
    jobs : int, optional
        Processes; as many as there are CPUs or runs unless given. 1 runs in this process.
    cache : path, optional
        A folder in which trainings and whole runs are kept: a rerun without changes trains nothing. Without one,
        strategies of this call share their trainings, and nothing is left behind.
    progress : callable, optional
        Called with what is being done, the rows done and the rows in all.

    Raises
    ------
    ConfigError, DataError, LearnerError
        For bad input, before any training; for a training that fails, when it does.

    Examples
    --------
    >>> import numpy as np, pyarrow as pa
    >>> from sklearn.linear_model import LogisticRegression
    >>> from perennial import Stream, strategies, triggers
    >>> hours = np.datetime64("2026-01-01", "us") + np.arange(400) * np.timedelta64(1, "h")
    >>> x = np.random.default_rng(0).normal(size=400)
    >>> table = pa.table({"at": hours, "x": x, "y": np.where(x > 0, "up", "down")})
    >>> result = backtest(
    ...     Stream(table, time="at", target="y", label_delay="2h", batch="1d"),
    ...     {"weekly": strategies.Stateless(LogisticRegression(), initial="5d", trigger=triggers.every("7d"))},
    ...     metrics=["accuracy"],
    ...     jobs=1,
    ... )
    >>> [version.number for version in result["weekly"].versions]
    ['1.0', '2.0']
    """
    latency = duration(train_latency, "train_latency")
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ConfigError("jobs", jobs, "give a positive number of processes")
    if not isinstance(stream, Stream):
        raise ConfigError("stream", type(stream).__name__, "give a Stream: pn.Stream(data, time=..., target=...)")
    if quality is not None and not isinstance(quality, Quality):
        raise ConfigError("quality", type(quality).__name__, "give perennial.stream.Quality(nulls=0.5, ...)")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError("seed", seed, "give a whole number")
    if cache is not None and Path(cache).is_file():
        raise ConfigError("cache", str(cache), "is a file: name a folder")
    learners = checks.learners_of(strategies)
    task = next(iter(learners.values())).task
    measured = resolve(metrics, task)
    priced = Prices.parse(prices) if isinstance(prices, Mapping) else prices
    if priced is not None:
        priced.check(task)
    if clairvoyant is not None:
        if clairvoyant not in strategies:
            raise ConfigError("clairvoyant", clairvoyant, nearest(clairvoyant, strategies))
        check_bound(clairvoyant, strategies[clairvoyant], priced)

    home = Home()
    keep = Path(cache).absolute() if cache is not None else home.path  # processes may have another working folder
    try:
        prepared = stream.prepare(
            home.path / "stream",
            extra=priced.columns if priced else (),
            progress=None if progress is None else lambda done, rows: progress("reading", done, rows or 0),
        )
    except ConfigError as error:
        if error.field != "extra":
            raise
        raise ConfigError("prices", error.got, error.need) from error  # the columns that prices name
    if isinstance(gate, PairedGate):
        gate.check_columns(prepared.schema, whole=True)
    golden = checks.golden_rows(prepared, gate, stream, task)
    checks.check_labels(prepared, task, stream.positive)
    if priced is not None and task == "classification":
        priced.check(task, prepared.label_values)
    checks.check_quality(prepared, quality, stream, task)
    for name, learner in learners.items():
        check_gate(gate, strategies[name], learner)
        checks.check_columns(prepared, learner)
    common: dict[str, Any] = {
        "prepared": prepared,
        "label_delay": prepared.label_delay,
        "closes_at": _closes_at(stream, prepared, task),
        "label_wait": longest_wait(prepared, task),
        "train_latency": latency,
        "seed": seed,
        "quality": quality or Quality(),
        "version": __version__,
        "gate": gate,
        "prices": priced,
        "golden": golden,
        "classes": (False, True) if task == "classification" and prepared.label_type == "bool" else (),
    }
    planned = [Job(name=name, strategy=s, learner=learners[name], **common) for name, s in strategies.items()]
    checks.check_first_windows(planned)
    frozen = _frozen_baseline(planned)
    folders = _folders([*planned, *frozen], keep, home.path)
    summaries = _run_all([*planned, *frozen], folders, keep / "trainings", jobs, progress)

    start = max((s.first_predicted for s in summaries if s.first_predicted is not None), default=prepared.rows)
    evaluation = Evaluation(prepared, task, measured, start, common["closes_at"])
    weighing = Weighing(evaluation, prepared, task, priced)
    accounts: list[Account] = []
    for job, summary, folder in zip([*planned, *frozen], summaries, folders, strict=True):
        line = evaluation.of(read(folder, summary), summary.classes)
        account = account_of(job, summary, line, folder, priced, prepared, evaluation)
        accounts.append(account)
        again = partial(_scored_again, evaluation, folder, summary)
        if any(job is one for one in frozen):
            weighing.line("frozen", line, again, account.result, summary)
        else:
            weighing.strategy(account.result, summary, line, again)
        del line  # as large as the stream: no two are held at once
    lines: dict[str, Baseline] = {}
    for name, description, line in evaluation.baselines(summaries[0].classes):
        lines[name] = Baseline(name=name, description=description, scores=line.scores, curve=line.curve)
        weighing.line(name, line, partial(_line_again, evaluation, summaries[0].classes, name))
        del line
    if frozen:
        lines["frozen"] = baseline_of(accounts.pop())
    bound = None
    if clairvoyant is not None:
        job = next(job for job in planned if job.name == clairvoyant)
        bound = lower_bound(job, keep / "trainings", evaluation, priced)
    blocks = weighing.blocks()
    advice = None if blocks is None else advise(blocks)
    report = report_of(stream, prepared, task, evaluation, accounts, lines, bound, advice, priced, seed, latency)
    results = {
        account.result.name: account.result_with(home if home.path in account.result._folder.parents else None)
        for account in accounts
    }
    shutil.rmtree(prepared.folder, ignore_errors=True)
    if cache is not None:
        trainings.prune(keep, spare=folders)
    return BacktestResult(report, results, lines, blocks)


def _scored_again(evaluation: Evaluation, folder: Path, summary: Summary) -> Line:
    return evaluation.of(read(folder, summary), summary.classes)


def _line_again(evaluation: Evaluation, classes: tuple[Label, ...], name: str) -> Line:
    return next(line for found, _, line in evaluation.baselines(classes) if found == name)


def _closes_at(stream: Stream, prepared: Prepared, task: TaskKind) -> int:
    """The instant at which the recording ends: silence cannot be told from a late label beyond the last row."""
    if stream.within is not None:
        return prepared.last_time
    known = prepared.labels(task).known_at
    known = known[known < NEVER]
    revised = [known_at for _, known_at, _ in prepared.tail()]
    return max([prepared.last_time, *revised, *([int(known.max())] if len(known) else [])])


def _frozen_baseline(jobs: Sequence[Job]) -> list[Job]:
    """The frozen model that every report shows, unless a strategy is one, or none is trained before it predicts."""
    if any(job.strategy.kind == "frozen" for job in jobs):
        return []
    for job in jobs:
        if job.strategy.initial is not None:
            strategy = Frozen(job.strategy.model, initial=job.strategy.initial)
            return [_with(job, name=_FROZEN, strategy=strategy, gate=None, golden=None)]
    return []


def _with(job: Job, **changes: Any) -> Job:
    from dataclasses import replace

    return replace(job, **changes)


def _folders(jobs: Sequence[Job], keep: Path, home: Path) -> list[Path]:
    """Where each run is to be: by its identity, so that it is found again; by its place where it has none."""
    keys = [job.key() for job in jobs]
    return [keep / "runs" / key if key else home / "runs" / f"job-{i}" for i, key in enumerate(keys)]


# ---------------------------------------------------------------------- processes


@dataclass(frozen=True, kw_only=True)
class _Watch:
    """Files in which the processes write how far they are."""

    files: list[Path]
    rows: int
    progress: Progress | None

    def tell(self) -> None:
        """Tell the caller how far all are together."""
        if self.progress is not None:
            done = sum(struct.unpack("<q", file.read_bytes())[0] for file in self.files)
            self.progress("replaying", done, self.rows * len(self.files))


def _run_all(
    jobs: Sequence[Job], folders: Sequence[Path], cache: Path, processes: int | None, progress: Progress | None
) -> list[Summary]:
    for folder in folders:
        folder.parent.mkdir(parents=True, exist_ok=True)
    todo = [i for i, folder in enumerate(folders) if folders.index(folder) == i and finished(folder) is None]
    workers = min(processes or _cpus(), max(len(todo), 1))
    shared = cache if len(todo) > 1 or cache.exists() else None
    if workers == 1:
        _run_here(jobs, folders, todo, shared, progress)
    elif todo:
        _run_apart(jobs, folders, todo, shared, workers, progress)
    return [run(job, folder, None) for job, folder in zip(jobs, folders, strict=True)]  # all done: read back


def _cpus() -> int:
    """CPUs that this process may use, container limits included."""
    from loky import cpu_count

    return int(cpu_count())


def _run_here(
    jobs: Sequence[Job], folders: Sequence[Path], todo: Sequence[int], cache: Path | None, progress: Progress | None
) -> None:
    rows = jobs[0].prepared.rows
    for at, i in enumerate(todo):

        def report(done: int, before: int = at * rows) -> None:
            if progress is not None:
                progress("replaying", before + done, rows * len(todo))

        with one_thread():
            run(jobs[i], folders[i], cache, report=report)


def _run_apart(
    jobs: Sequence[Job],
    folders: Sequence[Path],
    todo: Sequence[int],
    cache: Path | None,
    workers: int,
    progress: Progress | None,
) -> None:
    from loky import get_reusable_executor

    watch = _Watch(
        files=[folders[i].parent / f"progress-{os.getpid()}-{i}" for i in todo],
        rows=jobs[0].prepared.rows,
        progress=progress,
    )
    for file in watch.files:
        file.write_bytes(struct.pack("<q", 0))
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    # workers outlive a call, and with them the user's modules as they were: other code, other workers
    settings = {**threads, "PERENNIAL_USERS_CODE": users_code()}
    executor = get_reusable_executor(max_workers=workers, env=settings, timeout=60)
    try:
        futures: list[Future[None]] = [
            executor.submit(_run_one, jobs[i], folders[i], cache, file, os.getpid())
            for i, file in zip(todo, watch.files, strict=True)
        ]
        waiting = set(futures)
        while waiting:
            done, waiting = wait_for(waiting, timeout=_POLL_SECONDS)
            watch.tell()
            for future in done:
                future.result()
    except BaseException:  # an error, or Ctrl-C: what was finished stays in the cache
        executor.shutdown(wait=True, kill_workers=True)
        for i in todo:
            shutil.rmtree(unfinished(folders[i], os.getpid()), ignore_errors=True)
        raise
    finally:
        for file in watch.files:
            file.unlink(missing_ok=True)


def _run_one(job: Job, folder: Path, cache: Path | None, progress: Path, owner: int) -> None:
    with one_thread():
        run(job, folder, cache, progress, owner=owner)


def one_thread() -> AbstractContextManager[Any]:
    """A context in which numeric libraries use one thread: strategies run side by side instead."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # pragma: no cover - a dependency of scikit-learn
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits
