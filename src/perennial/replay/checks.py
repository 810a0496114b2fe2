"""What can be known to fail before any training, fails before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.features import Chunk, Features, Kind, Schema, Vocabulary
from perennial.core.protocols import Gate, Learner, LearnsUnlabelled, Trained
from perennial.core.records import TaskKind
from perennial.core.times import micros, moment, spell
from perennial.engine import check_can_update
from perennial.gate import Gate as PairedGate
from perennial.learners import as_learner
from perennial.replay.run import Job, shares_turns
from perennial.strategies import Frozen, Hybrid, Stateful, Stateless, Strategy
from perennial.stream import Stream
from perennial.stream.labelled import Labelled, read_labelled
from perennial.stream.prepared import Prepared
from perennial.stream.quality import Quality


def learners_of(strategies: Mapping[str, Strategy]) -> dict[str, Learner]:
    """Each strategy's model as a learner; all of one task, and updatable where the strategy updates.

    Raises
    ------
    ConfigError
        If there is no strategy, something is none, or tasks differ.
    LearnerError
        If a strategy asks a learner to update that cannot.
    """
    if not isinstance(strategies, Mapping) or not strategies:
        raise ConfigError(
            "strategies", type(strategies).__name__, "give at least one: {'monthly': strategies.Stateless(...)}"
        )
    found: dict[str, Learner] = {}
    for name, strategy in strategies.items():
        if not isinstance(name, str) or not name:
            raise ConfigError("strategies", name, "name each strategy with a word")
        if not hasattr(strategy, "plan") or not hasattr(strategy, "model"):
            kinds = ", ".join(kind.__name__ for kind in (Frozen, Stateless, Stateful, Hybrid))
            raise ConfigError(f"strategies.{name}", type(strategy).__name__, f"use one of strategies.: {kinds}")
        found[name] = as_learner(strategy.model)
        check_can_update(strategy, found[name])
    tasks = {learner.task for learner in found.values()}
    if len(tasks) > 1:
        by_task = "; ".join(f"{name}: {learner.task}" for name, learner in found.items())
        raise ConfigError("strategies", by_task, "compare models of one task: all classifiers or all regressors")
    return found


def check_labels(prepared: Prepared, task: TaskKind, positive: Any) -> None:
    """Raise if the labels do not suit the task, or the positive class is none of them."""
    if prepared.target is None or not (prepared.labelled or prepared.revisions):
        raise DataError("no row of the stream has a label: name the label column with target=")
    if task == "regression" and prepared.label_type == "string":
        raise DataError(f"column {prepared.target!r} holds words, and the models are regressors: use classifiers")
    values = prepared.label_values
    if task == "classification" and values is None:
        raise DataError(
            f"column {prepared.target!r} has more than 10,000 distinct values, and the models are classifiers: "
            "use regressors, or check the label column"
        )
    if task == "classification" and values is not None and positive is not None and positive not in values:
        raise ConfigError("positive", positive, f"no label has this value: {nearest(str(positive), map(str, values))}")


def check_columns(prepared: Prepared, learner: Learner) -> None:
    """Raise ``DataError`` if the learner refuses what some column holds, saying where.

    The learner is asked about single rows made from what the pass over the stream found; so nothing is read again.
    """
    schema = prepared.schema
    if not len(schema):
        raise DataError("the stream has no feature column: check `drop` and the roles")
    learner.check(_row(schema, {}))
    for column in schema.columns:
        stats = prepared.stats[column.name]
        troubles = [
            (stats.infinities, np.inf, "infinite", stats.first_infinite),
            (stats.nans, np.nan, "NaN", stats.first_null),
            (stats.nulls - stats.nans, None, "null", stats.first_null),
        ]
        for count, value, what, first in troubles:
            if not count:
                continue
            try:
                learner.check(_row(schema, {column.name: value}))
            except DataError as error:
                where = f"{count:,} {what} values, the first in row {first or 0:,}"
                raise DataError(f"column {column.name!r} holds {where}: {error}") from error


def cautions(prepared: Prepared, learner: Learner) -> tuple[str, ...]:
    """What a user should know before trusting what this learner gives on this stream."""
    say = getattr(learner, "cautions", None)
    return () if say is None else tuple(say(_row(prepared.schema, {})))


def check_quality(prepared: Prepared, quality: Quality | None, stream: Stream, task: TaskKind) -> None:
    """Raise ``ConfigError`` if a rule is about no column of numbers, no class, or labels that are never due."""
    if quality is None:
        return
    numbers = [column.name for column in prepared.schema.columns if column.kind is Kind.NUMBER]
    for name in quality.ranges:
        if name not in numbers:
            raise ConfigError(f"ranges.{name}", name, f"no such column of numbers: {nearest(name, numbers)}")
    if quality.labelled is not None and (stream.known_at, stream.within, stream.labels) != (None, None, None):
        raise ConfigError(
            "labelled", quality.labelled, "needs a fixed `label_delay`: nobody knows when these labels are late"
        )
    known = prepared.label_values or ()
    for label in quality.label_rates:
        if task == "regression":
            raise ConfigError("label_rates", label, "is about classes, and the models are regressors: take it out")
        if not any(type(label) is type(value) and label == value for value in known):
            hint = nearest(str(label), map(str, known))
            raise ConfigError(f"label_rates.{label}", label, f"no label has this value: {hint}")


def golden_rows(prepared: Prepared, gate: Gate | None, stream: Stream, task: TaskKind) -> Labelled | None:
    """The rows of the gate's golden set; None if it has none.

    Raises
    ------
    ConfigError, DataError
        If they are not there, do not suit the stream, or have a label that no row of it has.
    """
    if not isinstance(gate, PairedGate) or gate.golden is None:
        return None
    golden = read_labelled(gate.golden.file, stream, prepared.schema, prepared.label_type, task)
    known = prepared.label_values
    for label in golden.classes if known is not None else ():
        if not any(type(label) is type(value) and label == value for value in known or ()):
            hint = nearest(str(label), map(str, known or ()))
            raise DataError(f"{gate.golden.file}: no row of the stream has the label {label!r}: {hint}")
    return golden


def _row(schema: Schema, values: Mapping[str, Any]) -> Features:
    """One row of harmless values, but for those given."""
    words = {schema.columns[j].name: Vocabulary(["word"]) for j in schema.categories}
    cells = {}
    for column in schema.columns:
        if column.kind is Kind.CATEGORY:
            cells[column.name] = pa.array([-1 if column.name in values else 0], pa.int32())
        elif column.kind is Kind.NUMBER:
            number = values.get(column.name, 0.0)
            whole = number is not None and np.isfinite(number)
            cells[column.name] = pa.array([number], pa.float64() if not whole else _arrow_type(column.dtype))
        else:
            cells[column.name] = pa.array([values.get(column.name, "word")], pa.string())
    return Features.of(Chunk(pa.table(cells), Schema(schema.columns, words)))


def _arrow_type(dtype: str) -> Any:
    try:
        return pa.type_for_alias(dtype)
    except ValueError:  # decimals and the like
        return pa.float64()


class _Reached(BaseException):
    """The first training is due, and everything before it was in order."""


class _Halt:
    """A trainer that trains nothing."""

    def cpu_seconds(self) -> float:
        return 0.0

    def latency(self, model: Learner, features: Features) -> timedelta:  # noqa: ARG002
        return timedelta(0)

    def obtain(self, key: str | None, template: Learner, make: Callable[[], Learner]) -> Trained:  # noqa: ARG002
        raise _Reached


def check_first_windows(jobs: Sequence[Job]) -> None:
    """Raise ``DataError`` if some strategy's first window is empty or has one class: found by the engine itself.

    The initial part of the stream is replayed without training, once for each distinct initial period and window.
    """
    seen = set()
    for job in jobs:
        about = (job.strategy.initial, repr(job.strategy.window), isinstance(job.learner, LearnsUnlabelled))
        if job.strategy.initial is None or about in seen:
            continue
        seen.add(about)
        engine = job.engine(_Halt())
        try:
            for batch in job.prepared.batches(job.learner.task, apart=shares_turns(job)):
                engine.advance(batch)
        except _Reached:
            _check_ready(job, batch.start)
            continue
        except DataError as error:
            raise DataError(f"strategy {job.name!r}: {error}") from error
        raise DataError(_never(job))


def _check_ready(job: Job, at: int) -> None:
    last = int(job.prepared.batch_bounds()[0][-1])
    if at + micros(job.train_latency) > last:
        raise DataError(
            f"strategy {job.name!r}: its first version is trained at {moment(at):%Y-%m-%d %H:%M} UTC, and with "
            f"train_latency={spell(job.train_latency)} the last batch begins before it may serve: nothing would ever "
            "be predicted: make `initial` or `train_latency` shorter"
        )


def _never(job: Job) -> str:
    initial = job.strategy.initial
    if isinstance(initial, int):
        return f"strategy {job.name!r}: initial={initial:,} rows, and the stream has {job.prepared.rows:,}: use fewer"
    assert initial is not None
    days = (job.prepared.last_time - job.prepared.first_time) / 86_400e6
    wanted = micros(initial) / 86_400e6
    return (
        f"strategy {job.name!r}: initial={wanted:g}d, and the stream spans {days:,.1f} days: nothing would ever be "
        "predicted: make `initial` shorter"
    )
