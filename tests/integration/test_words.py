"""Words that first appear late in a stream reach every kind of learner."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import perennial as pn
from perennial import strategies, triggers


@pytest.mark.parametrize("batch", [1, "1d"])
def test_river_meets_a_word_that_first_appears_later(batch):
    """A word that rows at the end bring is no trouble for the rows before, and is seen as it is."""
    tree = pytest.importorskip("river.tree").HoeffdingTreeClassifier()
    days = np.datetime64("2026-01-01", "us") + np.arange(30) * np.timedelta64(1, "D")
    table = pa.table({"at": days, "c": ["r", "g"] * 10 + ["new", None] * 5, "y": ["a", "b"] * 15})
    stream = pn.Stream(table, time="at", target="y", label_delay="1d", batch=batch)
    result = pn.backtest(
        stream,
        {"s": strategies.Stateful(tree, initial=None, trigger=triggers.every(rows=1))},
        metrics=["accuracy"],
        jobs=1,
    )
    assert result["s"].predictions.num_rows == 30
    prepared_rows = [v.trained_rows for v in result["s"].versions]
    assert sum(prepared_rows) == 29
    assert (result["s"].versions[0].kind, result["s"].versions[0].number) == ("start", "1.0")
