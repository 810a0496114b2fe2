"""A made-up report that looks like a real one: half-hourly prices, six ways to keep a model current."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from perennial.advice.advise import Advice, advise, recommended
from perennial.advice.blocks import Blocks

START = datetime(1996, 7, 6, tzinfo=UTC)
METRICS = (("accuracy", True), ("log_loss", False), ("roc_auc", True))

#: name, kind, description, level of accuracy, decay per 100 batches, every how many batches it trains, CPU per training
WAYS = (
    ("frozen", "frozen", "LightGBM fitted once on the first 60 days", 0.79, 0.028, 0, 1.4),
    ("stateless 7d", "stateless", "LightGBM, a new model every 7 days from the last 90 days", 0.815, 0.0, 7, 1.9),
    ("stateless 30d", "stateless", "LightGBM, a new model every 30 days from the last 180 days", 0.803, 0.001, 30, 3.8),
    (
        "mix 30/70",
        "stateless",
        "LightGBM, every 7 days: 30 % initial rows, 70 % recent, 20,000 rows",
        0.808,
        0.0,
        7,
        2.6,
    ),
    ("stateful", "stateful", "Decayed boosting, 10 trees a day, decay 0.95", 0.829, 0.0, 1, 0.021),
    ("hybrid", "hybrid", "Decayed boosting daily, a new model every 90 days", 0.831, 0.0, 1, 0.026),
)


def iso(at: datetime) -> str:
    """An instant as the report writes it."""
    return at.isoformat()


def example(batches: int = 60, strategies: int = 6, *, metrics: int = 3, rows: int = 48) -> dict[str, Any]:
    """A report of ``strategies`` strategies over ``batches`` daily batches of ``rows`` rows."""
    random = np.random.default_rng(7)
    times = [START + timedelta(days=60 + i) for i in range(batches)]
    season = 0.035 * np.sin(np.arange(batches) / 58) + 0.02 * np.sin(np.arange(batches) / 17 + 1)
    chosen = METRICS[:metrics]
    out = [
        _strategy(WAYS[k % 6], "" if k < 6 else f" ({k})", times, season, rows, chosen, random)
        for k in range(strategies)
    ]
    lines = [
        ("no_change", "repeats the last label known at each row", 0.853),
        ("no_change_by_batch", "repeats the last label known when the batch began", 0.571),
        ("majority", "the commonest label so far", 0.575),
    ]
    baselines: list[dict[str, Any]] = []
    for name, words, level in lines:
        each = _series(times, np.clip(level + 0.5 * season + random.normal(0, 0.02, batches), 0, 1), rows, chosen[:1])
        baselines.append(
            {
                "name": name,
                "description": words,
                "scores": {"accuracy": each["cumulative"]["accuracy"][-1]} | {m: None for m, _ in chosen[1:]},
                "series": each,
            }
        )
    if out:
        baselines.append(
            {"name": "frozen", "description": "the first model, never trained again", "scores": out[0]["scores"]}
        )
    found = advised(out, baselines, rows) if out and metrics else None
    return {
        "format": 1,
        "perennial": "0.1.0",
        "data": {
            "name": "electricity",
            "source": "data/electricity.parquet",
            "digest": "9f2c7a4e51d0b6c83e17aa90c2d4f6581b3e7790a5cc12de4487b0e63fd91a25",
            "rows": (batches + 60) * rows,
            "first": iso(START),
            "last": iso(times[-1] + timedelta(hours=23, minutes=30)),
            "columns": [
                {"name": n, "kind": "number", "dtype": "double"}
                for n in ("date", "day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
            ],
            "target": "target",
            "task": "classification",
            "classes": ["DOWN", "UP"],
            "positive": "UP",
            "label_rule": "a label is known when its row happens",
            "label_delay": None,
            "implicit_label_delay": True,
            "time_zone": "Australia/Sydney",
            "batch": "1d",
            "batches": batches,
            "late_rows": 0,
            "unlabelled_rows": 12,
        },
        "settings": {
            "metrics": [m for m, _ in chosen],
            "seed": 0,
            "train_latency": "0s",
            "prices": None,
            "perennial.yaml": "name: electricity\nstream:\n  source: data/electricity.parquet\n  time: timestamp\n",
        },
        "evaluated": {"rows": batches * rows, "first": iso(times[0]), "last": iso(times[-1]), "first_row": 60 * rows},
        "metrics": [{"name": m, "greater_is_better": g} for m, g in chosen],
        "strategies": out,
        "baselines": baselines,
        "clairvoyant": {
            "strategy": "stateless 7d",
            "metric": "accuracy",
            "retrain_price": 0.5,
            "cost": 84.2,
            "trainings": 3,
            "retrain_at": [iso(t) for t in times[10:40:10]],
            "description": "The cheapest schedule in hindsight, by dynamic programming over all checkpoints.",
        },
        "recommended": found and dict(recommended(found)),
        "advice": found and found.to_dict(),
        "warnings": [],
    }


def advised(strategies: list[dict[str, Any]], baselines: list[dict[str, Any]], rows: int) -> Advice:
    """The advice on made-up accuracies."""
    lines = [b for b in baselines if "series" in b]
    right = [one["series"]["by_batch"]["accuracy"] for one in [*strategies, *lines]]
    return advise(
        Blocks(
            strategies=tuple(s["name"] for s in strategies),
            lines=tuple(b["name"] for b in lines),
            rows=np.full(len(right[0]), rows),
            loss=rows * (1 - np.array(right).T),
            metric="accuracy",
            loss_name="error rate",
            days=float(len(right[0])),
            effort={"rows_trained": np.array([s["costs"]["rows_trained"] for s in strategies], dtype=float)},
            described=tuple(s["description"] for s in strategies),
        )
    )


def _series(times: list[datetime], accuracy: Any, rows: int, metrics: Any) -> dict[str, Any]:
    made = {
        "accuracy": accuracy,
        "log_loss": 0.12 + 1.9 * (1 - accuracy) ** 1.1,
        "roc_auc": np.clip(accuracy + 0.07, 0, 1),
    }
    count = np.arange(1, len(times) + 1)
    return {
        "time": [iso(t) for t in times],
        "rows": [rows] * len(times),
        "by_batch": {m: [round(float(v), 6) for v in made[m]] for m, _ in metrics},
        "cumulative": {m: [round(float(v), 6) for v in np.cumsum(made[m]) / count] for m, _ in metrics},
    }


def _strategy(
    way: Any, suffix: str, times: list[datetime], season: Any, rows: int, metrics: Any, random: Any
) -> dict[str, Any]:
    name, kind, description, level, decay, every, cpu = way
    n = len(times)
    accuracy = np.clip(level - decay * np.arange(n) / 100 + season + random.normal(0, 0.045, n), 0.02, 0.98)
    series = _series(times, accuracy, rows, metrics)
    versions = _versions(kind, times, every, rows)
    fits = sum(v["kind"] == "fit" for v in versions)
    cost = cpu * max(1, len(versions))
    return {
        "name": name + suffix,
        "kind": kind,
        "description": description,
        "learner": "LGBMClassifier(n_estimators=100, num_leaves=31)",
        "scores": {m: values[-1] for m, values in series["cumulative"].items()},
        "costs": {
            "train_cpu_seconds": round(cost, 3),
            "predict_cpu_seconds": round(0.004 * n, 3),
            "rows_trained": sum(v["trained_rows"] for v in versions),
            "row_trees": sum(v["row_trees"] for v in versions),
            "trainings": len(versions),
            "fits": fits,
            "updates": len(versions) - fits,
            "kept_bytes": 0 if kind == "stateful" else 90 * rows * 72,
            "staleness_seconds": 43_200.0 * max(1, every or n),
            "staleness_max_seconds": 86_400.0 * max(1, every or n),
            "money": None,
            "bill": None,
        },
        "versions": versions,
        "series": series,
        "abstained": 0,
        "quarantined": [],
        "decisions": [],
        "notes": [],
    }


def _versions(kind: str, times: list[datetime], every: int, rows: int) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    major, minor = 1, 0
    for i, at in enumerate(times):
        if i and (not every or i % every):
            continue
        fit = i == 0 or kind == "stateless" or (kind == "hybrid" and i % 90 == 0)
        parent = f"{major}.{minor}" if out else None
        major, minor = (major + bool(out), 0) if fit else (major, minor + 1)
        learned = rows * (60 if fit else 1)
        out.append(
            {
                "number": f"{major}.{minor}",
                "parent": parent,
                "kind": "fit" if fit else "update",
                "trained_at": iso(at),
                "ready_at": iso(at),
                "trained_rows": learned,
                "row_trees": learned * (100 if fit else 10),
                "first_row": max(0, (i + 60) * rows - learned),
                "last_row": (i + 60) * rows - 1,
                "newest": iso(at - timedelta(minutes=30)),
                "data": f"{i:064x}",
                "key": f"{i + 1:064x}",
                "reason": "first training"
                if not out
                else f"{every}d since the last training, {every * rows} new labels",
                "steps": 1,
            }
        )
    return out
