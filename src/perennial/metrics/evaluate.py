"""From names to metrics, and from metrics to scores: over everything, per batch and cumulatively."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, nearest
from perennial.core.records import TaskKind
from perennial.metrics import additive, ranked
from perennial.metrics.custom import Custom, custom
from perennial.metrics.ranked import Ranked
from perennial.metrics.records import Metric, Scored, Series, optionals

_PLAIN: dict[str, Callable[[], Metric]] = {
    "accuracy": additive.accuracy,
    "log_loss": additive.log_loss,
    "brier": additive.brier,
    "roc_auc": ranked.roc_auc,
    "average_precision": ranked.average_precision,
    "f1": additive.f1,
    "kappa": additive.kappa,
    "kappa_temporal": additive.kappa_temporal,
    "mae": additive.mae,
    "rmse": additive.rmse,
    "r2": additive.R2,
    "wape": additive.wape,
}
#: metrics with a parameter, written ``name@value``: its builder and default
_WITH_LEVEL: dict[str, tuple[Callable[[float, str], Metric], float]] = {
    "recall_at_fpr": (ranked.recall_at_fpr, 0.01),
    "pinball": (additive.pinball, 0.5),
}

NAMES = (*_PLAIN, *_WITH_LEVEL)  #: names of the standard metrics

DEFAULTS: dict[TaskKind, tuple[str, ...]] = {
    "classification": ("log_loss", "accuracy", "roc_auc", "kappa_temporal"),
    "regression": ("mae", "rmse", "r2"),
}  #: what is computed if nothing is asked for

CURVE_POINTS = 50  #: cumulative values of a metric that cannot be added up, at most
_CURVE_ROWS = 10**8  # rows summed over the points of such a curve; long streams get fewer points, never under 5

Spec = str | Metric | Callable[..., Any]


def resolve(spec: Sequence[Spec] | None, task: TaskKind) -> tuple[Metric, ...]:
    """The metrics that a user asked for, in that order.

    Parameters
    ----------
    spec : sequence of str, callable or Metric, optional
        Names of :data:`NAMES` (``"recall_at_fpr@0.05"`` and ``"pinball@0.9"`` take a value), functions
        ``f(y_true, y_pred)`` of which more is better (else see :func:`~perennial.metrics.custom`), or metrics.
        None gives :data:`DEFAULTS`.
    task : {"classification", "regression"}
        What the metrics must be for.

    Raises
    ------
    ConfigError
        For an unknown name or value, a metric of the other task, one named twice, or none at all.

    Examples
    --------
    >>> [metric.name for metric in resolve(["accuracy", "recall_at_fpr@0.05"], "classification")]
    ['accuracy', 'recall_at_fpr@0.05']
    """
    if spec is None:
        spec = DEFAULTS[task]
    if isinstance(spec, str) or not isinstance(spec, Sequence) or not spec:
        raise ConfigError("metrics", spec, f"give a list of metrics, e.g. {list(DEFAULTS[task])}")
    found = tuple(_one(item, task) for item in spec)
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("metrics", name, "named twice: drop one, or name yours with metrics.custom(name, f)")
    for metric in found:
        if metric.task not in (None, task):
            raise ConfigError("metrics", metric.name, f"is for {metric.task}, this is {task}: {_for(task)}")
    return found


def _one(item: Spec, task: TaskKind) -> Metric:
    if isinstance(item, str):
        return _named(item, task)
    if isinstance(item, Metric) and not isinstance(item, type):
        return item
    if callable(item):
        name = getattr(item, "__name__", type(item).__name__)
        if name == "<lambda>":
            raise ConfigError("metrics", name, "a lambda has no name: use metrics.custom('name', lambda ...)")
        return custom(name, item)
    raise ConfigError("metrics", item, "give a name, a function f(y_true, y_pred) or a Metric")


def _named(text: str, task: TaskKind) -> Metric:
    name, at, level = text.partition("@")
    if name in _PLAIN:
        if at:
            raise ConfigError("metrics", text, f"{name} takes no value: write {name!r}")
        return _PLAIN[name]()
    if name not in _WITH_LEVEL:
        fitting = [n for n in NAMES if _build(n).task == task]
        raise ConfigError("metrics", text, nearest(name, fitting))
    build, default = _WITH_LEVEL[name]
    try:
        value = float(level) if at else default
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise ConfigError("metrics", text, f"needs a number between 0 and 1, e.g. '{name}@{default}'")
    return build(value, text)


def _build(name: str) -> Metric:
    return _PLAIN[name]() if name in _PLAIN else _WITH_LEVEL[name][0](_WITH_LEVEL[name][1], name)


def _for(task: TaskKind) -> str:
    return "use one of: " + ", ".join(name for name in NAMES if _build(name).task == task)


def score(metrics: Sequence[Metric], scored: Scored) -> dict[str, float | None]:
    """The score of all rows by each metric; None where undefined.

    Raises
    ------
    ConfigError
        If a user's own metric refuses the rows.
    """
    sorts = [metric for metric in metrics if isinstance(metric, Ranked)]
    values = ranked.whole(sorts, scored) if sorts else {}
    return {metric.name: values[metric.name] if metric.name in values else metric.compute(scored) for metric in metrics}


def series(metrics: Sequence[Metric], scored: Scored, edges: NDArray[np.int64]) -> Series:
    """Scores of each batch alone, and of all rows up to its end.

    Metrics that are functions of sums over rows have both for every batch, exactly. Metrics of ranks (ROC AUC, average
    precision, recall at a false-positive rate) and users' own have a value for each batch of two rows or more, and a
    cumulative one at no more than :data:`CURVE_POINTS` batches, evenly spaced and always including the last; the
    others are None.

    Parameters
    ----------
    edges : array of int64, shape (b + 1,)
        Non-decreasing: batch i has the rows ``[edges[i], edges[i + 1])`` of ``scored``. A batch may be empty. Rows
        before the first edge are in no score.
    """
    edges = np.asarray(edges, dtype=np.int64)
    out = Series(rows=np.diff(edges).tolist())
    if len(edges) < 2:
        for metric in metrics:
            out.batches[metric.name], out.cumulative[metric.name] = [], []
        return out
    scored, edges = scored.slice(int(edges[0]), int(edges[-1])), edges - edges[0]
    sorts = [metric for metric in metrics if isinstance(metric, Ranked)]
    points = _points(scored, edges)
    alone = ranked.per_batch(sorts, scored, edges) if sorts else {}
    prefixes = ranked.at_prefixes(sorts, scored, edges[1:][points].tolist()) if sorts else {}
    for metric in metrics:
        name = metric.name
        if isinstance(metric, Ranked):
            curve = np.full(len(edges) - 1, np.nan)
            curve[points] = prefixes[name]
            out.batches[name], out.cumulative[name] = optionals(alone[name]), optionals(curve)
        elif isinstance(metric, additive.Sums | additive.ByClass | additive.R2):
            each, curve = additive.over_time(metric, scored, edges)
            out.batches[name], out.cumulative[name] = optionals(each), optionals(curve)
        else:
            out.batches[name], out.cumulative[name] = _opaque(metric, scored, edges, points)
    return out


def _points(scored: Scored, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = max(len(scored) * ranked.classes_ranked(scored), 1)
    count = min(max(_CURVE_ROWS // rows, 5), CURVE_POINTS, len(edges) - 1)
    # counted back from the last batch, so that the curve ends on the whole
    return len(edges) - 2 - np.unique(np.arange(count) * (len(edges) - 1) // count)[::-1]


def _opaque(
    metric: Metric, scored: Scored, edges: NDArray[np.int64], points: NDArray[np.int64]
) -> tuple[list[float | None], list[float | None]]:
    compute = metric.attempt if isinstance(metric, Custom) else metric.compute
    alone: list[float | None] = [None] * (len(edges) - 1)
    curve = alone.copy()
    for i in np.flatnonzero(np.diff(edges) > 1).tolist():
        alone[i] = compute(scored.slice(int(edges[i]), int(edges[i + 1])))
    for i in points.tolist():
        curve[i] = compute(scored.slice(0, int(edges[i + 1])))
    return alone, curve
