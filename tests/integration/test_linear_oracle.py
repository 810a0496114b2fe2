"""The linear oracle: stateful training with forgetting equals refitting on exponentially weighted history."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import perennial as pn
from perennial import strategies, triggers
from perennial.learners.plain import Linear

ROWS, RIDGE = 900, 1.0
START = np.datetime64("2026-01-01", "us")


def drifting():
    """Hourly rows whose coefficients turn slowly."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(ROWS, 3))
    angle = np.arange(ROWS) / 200
    y = x[:, 0] * np.cos(angle) + x[:, 1] * np.sin(angle) + 2 + 0.1 * rng.normal(size=ROWS)
    return x, y


def weighted_refit(x, y, forgetting):
    """Ridge on history with weight ``forgetting ** age``, the intercept not penalised: by the normal equations."""
    weights = forgetting ** np.arange(len(x) - 1, -1, -1.0)
    design = np.column_stack([np.ones(len(x)), x])
    gram = design.T @ (weights[:, None] * design) + RIDGE * np.diag([0.0, 1, 1, 1])
    return np.linalg.solve(gram, design.T @ (weights * y))


@pytest.mark.parametrize("forgetting", [0.9, 0.99, 1.0])
@pytest.mark.parametrize(("batch", "delay"), [(1, 0), (24, 0), (24, 7)], ids=["rows", "batches", "delay"])
def test_stateful_equals_weighted_refits(forgetting, batch, delay):
    """To 1e-8, at every single batch."""
    x, y = drifting()
    at = START + np.arange(ROWS) * np.timedelta64(1, "h")
    table = pa.table({"at": at, "a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y})
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC", batch=batch, label_delay=f"{delay}h")
    model = Linear(forgetting=forgetting, ridge=RIDGE)
    strategy = strategies.Stateful(model, initial=96, trigger=triggers.every(rows=1))
    told = pn.backtest(stream, {"s": strategy}, metrics=["mae"], jobs=1)["s"].predictions
    first = told["row"].to_numpy()[0]
    assert first == 96
    said = told["prediction"].to_numpy()
    for start in range(96, ROWS, batch):
        known = int(np.searchsorted(np.arange(ROWS) + delay, start, side="right"))
        known = min(known, start)
        coefficients = weighted_refit(x[:known], y[:known], forgetting)
        rows = slice(start, start + batch)
        expected = coefficients[0] + x[rows] @ coefficients[1:]
        np.testing.assert_allclose(said[start - 96 : start - 96 + batch], expected, atol=1e-8)
