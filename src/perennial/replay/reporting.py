"""From runs and scores to the content of ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial import __version__
from perennial.advice.advise import Advice, recommended
from perennial.core.identity import Unhashable
from perennial.core.records import Label, TaskKind, Version
from perennial.core.times import NEVER, moment, spell
from perennial.metrics import Bill, Prices, bill
from perennial.replay.checks import cautions
from perennial.replay.evaluation import Curve, Evaluation, Line
from perennial.replay.result import Baseline, Home, StrategyResult
from perennial.replay.run import Job
from perennial.replay.spill import Summary
from perennial.stream import Stream
from perennial.stream.prepared import Prepared

FORMAT = 1  #: of report.json

_MICROSECONDS = 1e6


@dataclass(frozen=True, kw_only=True)
class Account:
    """A strategy's result, with what only the report needs; ``scored`` holds how many rows were, and the ends."""

    job: Job
    result: StrategyResult
    scored: NDArray[np.int64]

    def result_with(self, home: Home | None) -> StrategyResult:
        """The result, keeping alive the folder that its predictions lie in."""
        return replace(self.result, _home=home)


def account_of(
    job: Job,
    summary: Summary,
    line: Line,
    folder: Path,
    prices: Prices | None,
    prepared: Prepared,
    evaluation: Evaluation,
) -> Account:
    """A run's result: scores, costs in CPU and, with prices, in money."""
    fits = sum(version.kind == "fit" for version in summary.versions)
    updates = sum(version.steps for version in summary.versions if version.kind == "update")
    cpu = summary.train_cpu_seconds + summary.predict_cpu_seconds
    paid: Bill | None = None
    if prices is not None:
        amounts = {name: prepared.column(name)[line.rows] for name in prices.columns}
        span = timedelta(
            microseconds=prepared.last_time - int(evaluation.truth.time[min(evaluation.start, prepared.rows - 1)])
        )
        paid = bill(
            prices,
            line.scored,
            amounts=amounts,
            trainings=fits,
            updates=updates,
            cpu_seconds=cpu,
            kept_bytes=summary.kept_bytes,
            span=max(span, timedelta(0)),
        )
    costs = {
        "train_cpu_seconds": summary.train_cpu_seconds,
        "predict_cpu_seconds": summary.predict_cpu_seconds,
        "rows_trained": sum(version.trained_rows for version in summary.versions),
        "row_trees": sum(version.row_trees for version in summary.versions),
        "trainings": fits + updates,
        "fits": fits,
        "updates": updates,
        "kept_bytes": summary.kept_bytes,
        "staleness_seconds": summary.staleness_sum / max(summary.predicted_rows, 1) / _MICROSECONDS,
        "staleness_max_seconds": summary.staleness_max / _MICROSECONDS,
        "money": None if paid is None else paid.total,
        "bill": None if paid is None else paid.parts,
    }
    result = StrategyResult(
        name=job.name,
        kind=job.strategy.kind,
        description=f"{job.learner.name}, {job.strategy}",
        learner=job.learner.name,
        scores=line.scores,
        curve=line.curve,
        costs=costs,
        versions=summary.versions,
        shared_trainings=summary.shared_trainings,
        abstained=summary.abstained,
        quarantined=summary.quarantined,
        notes=summary.notes,
        committee=summary.committee,
        _summary=summary,
        _folder=folder,
        _home=None,
    )
    ends = line.rows[[0, -1]] if len(line.rows) else line.rows
    return Account(job=job, result=result, scored=np.array([len(line.rows), *ends]))


def baseline_of(account: Account) -> Baseline:
    """The frozen model as a no-skill line."""
    description = f"{account.result.description}: what the same model gives if nobody touches it"
    return Baseline(name="frozen", description=description, scores=account.result.scores, curve=account.result.curve)


def report_of(
    stream: Stream,
    prepared: Prepared,
    task: TaskKind,
    evaluation: Evaluation,
    accounts: Sequence[Account],
    lines: Mapping[str, Baseline],
    bound: dict[str, Any] | None,
    advice: Advice | None,
    prices: Prices | None,
    seed: int,
    train_latency: timedelta,
) -> dict[str, Any]:
    """The content of ``report.json``: plain data that its schema describes."""
    rows, *ends = max((account.scored.tolist() for account in accounts), key=lambda scored: scored[0])
    when = evaluation.truth.time[ends]
    return {
        "format": FORMAT,
        "perennial": __version__,
        "data": _data(stream, prepared, task, evaluation),
        "settings": {
            "metrics": [metric.name for metric in evaluation.metrics],
            "seed": seed,
            "train_latency": spell(train_latency),
            "prices": None if prices is None else _prices(prices),
        },
        "evaluated": {
            "rows": rows,
            "first": _iso(int(when[0])) if rows else None,
            "last": _iso(int(when[1])) if rows else None,
            "first_row": evaluation.start,
        },
        "metrics": [{"name": m.name, "greater_is_better": m.greater_is_better} for m in evaluation.metrics],
        "strategies": [_strategy(account) for account in accounts],
        "baselines": [
            {"name": b.name, "description": b.description, "scores": dict(b.scores), "series": _series(b.curve)}
            for b in lines.values()
        ],
        "clairvoyant": bound,
        "recommended": None if advice is None else dict(recommended(advice)),
        "advice": None if advice is None else advice.to_dict(),
        "warnings": _warnings(prepared, evaluation, accounts),
    }


def _data(stream: Stream, prepared: Prepared, task: TaskKind, evaluation: Evaluation) -> dict[str, Any]:
    facts = stream.describe()
    classes = list(prepared.label_values or ()) if task == "classification" else []
    return {
        "name": prepared.name,
        "source": facts["source"],
        "digest": prepared.digest,
        "rows": prepared.rows,
        "first": _iso(prepared.first_time),
        "last": _iso(prepared.last_time),
        "columns": [{"name": c.name, "kind": str(c.kind), "dtype": c.dtype} for c in prepared.schema.columns],
        "target": prepared.target,
        "task": task,
        "classes": classes,
        "positive": _positive(prepared, classes),
        "label_rule": prepared.label_rule,
        "label_delay": spell(prepared.label_delay) if prepared.label_delay else None,
        "implicit_label_delay": prepared.implicit_delay,
        "time_zone": prepared.zone,
        "batch": prepared.batch if isinstance(prepared.batch, int) else str(prepared.batch),
        "batches": len(prepared.batch_bounds()[0]),
        "late_rows": prepared.late_rows,
        "unlabelled_rows": int((evaluation.truth.known_at == NEVER).sum()),
    }


def _positive(prepared: Prepared, classes: list[Label]) -> Label | None:
    from perennial.metrics import default_positive

    if prepared.positive is not None:
        return prepared.positive
    index = default_positive(classes)
    return None if index is None else classes[index]


def _strategy(account: Account) -> dict[str, Any]:
    result = account.result
    return {
        "name": result.name,
        "kind": result.kind,
        "description": result.description,
        "learner": result.learner,
        "scores": dict(result.scores),
        "costs": dict(result.costs),
        "versions": [_version(version) for version in result.versions],
        "series": _series(result.curve),
        "abstained": result.abstained,
        "quarantined": [{"at": _iso(at), "reason": reason} for at, reason in result.quarantined],
        "notes": list(result.notes),
        "committee": None if result.committee is None else dict(result.committee),
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "parent": version.parent,
        "kind": version.kind,
        "trained_at": _iso(version.at),
        "ready_at": _iso(version.ready_at),
        "trained_rows": version.trained_rows,
        "row_trees": version.row_trees,
        "first_row": version.first,
        "last_row": version.last,
        "newest": _iso(version.newest) if version.newest else None,
        "data": version.data,
        "key": version.key,
        "reason": version.reason,
        "steps": version.steps,
    }


def _series(curve: Curve) -> dict[str, Any]:
    return {
        "time": [_iso(at) for at in curve.time],
        "rows": curve.rows,
        "by_batch": curve.by_batch,
        "cumulative": curve.cumulative,
    }


def _prices(prices: Prices) -> dict[str, Any]:
    out: dict[str, Any] = {
        name: getattr(prices, name)
        for name in ("retrain", "update", "cpu_hour", "kept_gb_month", "error", "false_positive", "false_negative")
        if getattr(prices, name) not in (None, 0.0)
    }
    if prices.matrix:
        out["matrix"] = [
            {"true": true, "predicted": predicted, "price": price} for (true, predicted), price in prices.matrix.items()
        ]
    return out


def _warnings(prepared: Prepared, evaluation: Evaluation, accounts: Sequence[Account]) -> list[str]:
    found = list(prepared.warnings)
    if evaluation.stride > 1:
        found.append(f"curves put {evaluation.stride} neighbouring batches together: there are too many to draw")
    if not all(account.scored[0] for account in accounts):
        found.append("no row could be scored: every strategy must predict rows whose labels become known")
    for account in accounts:
        found += [f"{account.result.name}: {caution}" for caution in cautions(prepared, account.job.learner)]
        found += _held_back(account)
        try:
            account.job.learner.identity()
        except Unhashable as error:
            found.append(f"{account.result.name}: trainings are neither shared nor kept in the cache: {error}")
    return found


def _held_back(account: Account) -> list[str]:
    """What a gate kept from serving: a score is of what served."""
    made, summary = len(account.result.versions), account.result._summary
    if account.job.gate is None or account.job.gate.mode != "before" or summary.promoted >= made:
        return []
    return [
        f"{account.result.name}: the gate let {summary.promoted} of {made} versions serve and turned "
        f"{summary.rejected} down; the others were on trial at the end, or gave way to newer ones. Without `gate` all "
        "of them serve"
    ]


def _iso(at: int) -> str:
    return moment(at).isoformat().replace("+00:00", "Z")
