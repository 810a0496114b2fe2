"""The clairvoyant retrain schedule of a strategy: a lower bound for what its learner and window can cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError
from perennial.core.features import Features
from perennial.core.protocols import Learner, Trained
from perennial.core.records import Batch, Version, align
from perennial.core.times import moment
from perennial.metrics import Prices, Scored, bill
from perennial.replay.clairvoyant import schedule
from perennial.replay.evaluation import Evaluation, translated
from perennial.replay.run import Job
from perennial.replay.trainings import Trainings
from perennial.strategies import Strategy


@final
class _Keeping:
    """A trainer that also keeps what was trained."""

    def __init__(self, inner: Trainings) -> None:
        self._inner = inner
        self.models: list[Learner] = []

    def cpu_seconds(self) -> float:
        return self._inner.cpu_seconds()

    def latency(self, model: Learner, features: Features) -> timedelta:
        return self._inner.latency(model, features)

    def obtain(self, key: str | None, template: Learner, make: Callable[[], Learner]) -> Trained:
        trained = self._inner.obtain(key, template, make)
        self.models.append(trained.model)
        return trained


def check_bound(name: str, strategy: Strategy, prices: Prices | None) -> None:
    """Raise ``ConfigError`` if the strategy is not stateless, or prices of mistakes and of a retrain are missing."""
    if strategy.kind != "stateless":
        raise ConfigError("clairvoyant", name, "name a stateless strategy: its checkpoints are what is chosen from")
    if prices is None or not prices.retrain:
        raise ConfigError("clairvoyant", name, "give prices of mistakes and of a retrain: the bound is in money")


def lower_bound(job: Job, trainings: Path, evaluation: Evaluation, prices: Prices | None) -> dict[str, Any]:
    """The cheapest schedule in hindsight over a stateless strategy's own checkpoints.

    Trains at every checkpoint, lets every model predict all that came after it, and finds the schedule of least
    money by dynamic programming. The first training is free of choice and is charged like the others.
    """
    assert prices is not None
    versions, models = _train_all(job, trainings)
    losses = _losses(job, versions, models, evaluation, prices)
    best = schedule(losses, prices.retrain)
    at = [moment(versions[i].at).isoformat().replace("+00:00", "Z") for i in best.retrain_at]
    return {
        "strategy": job.name,
        "metric": "money",
        "retrain_price": prices.retrain,
        "cost": best.cost,
        "trainings": best.trainings,
        "retrain_at": at,
        "description": "the cheapest choice among this strategy's checkpoints, known only in hindsight: no other "
        "choice among them costs less",
    }


def _train_all(job: Job, trainings: Path) -> tuple[list[Version], list[Learner]]:
    trainer = _Keeping(Trainings(trainings))
    engine = replace(job, train_latency=timedelta(0), gate=None, golden=None).engine(trainer)  # no trial holds up a fit
    versions: list[Version] = []
    for batch in job.prepared.batches(job.learner.task):
        versions.extend(engine.advance(batch).trained)
    return versions, trainer.models


def _losses(
    job: Job, versions: list[Version], models: list[Learner], evaluation: Evaluation, prices: Prices
) -> NDArray[np.float64]:
    """Money lost to mistakes on the interval after checkpoint j by the model trained at checkpoint i <= j."""
    count = len(versions)
    losses = np.zeros((count, count))
    amounts = {name: job.prepared.column(name) for name in prices.columns}
    starts = np.array([version.at for version in versions])
    for batch in job.prepared.batches(job.learner.task):
        interval = int(np.searchsorted(starts, batch.start, side="right")) - 1
        rows = np.arange(batch.first, batch.first + len(batch))
        rows = rows[evaluation.scored(rows)] if interval >= 0 else rows[:0]
        if not len(rows):
            continue
        for i in range(interval + 1):
            losses[i, interval] += _paid(models[i], batch, rows, evaluation, prices, amounts)
    return losses


def _paid(
    model: Learner,
    batch: Batch,
    rows: NDArray[np.int64],
    evaluation: Evaluation,
    prices: Prices,
    amounts: dict[str, NDArray[np.float64]],
) -> float:
    truth = evaluation.truth
    said = model.predict(batch.features)
    at = rows - batch.first
    if truth.codes is not None:
        classes = truth.classes
        aligned = align(replace(said, proba=None), classes)
        assert aligned.codes is not None
        scored = Scored(
            codes=translated(truth.codes[rows], classes, classes),
            predicted=aligned.codes[at],
            classes=classes,
            positive=evaluation.positive(classes),
        )
    else:
        assert truth.values is not None
        assert said.values is not None
        scored = Scored(values=truth.values[rows], predicted_values=said.values[at])
    return bill(prices, scored, amounts={name: column[rows] for name, column in amounts.items()}).errors
