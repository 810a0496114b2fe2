"""The time of one prediction: the shortest of several, each from a fresh row."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from perennial.core.errors import DataError
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.learners.timing import latency

SCHEMA = Schema([Column("x", Kind.NUMBER, "double")])


class Asked:
    """Remembers what it was asked."""

    def __init__(self):
        self.rows = []

    def predict(self, features):
        self.rows.append((id(features.parts[0][0]), features.matrix().tolist()))
        self.features = features  # alive, or its place in memory could be given again


def test_the_shortest_of_several_fresh_rows():
    """The same row each time, put into the model's form anew: serving has to do that too."""
    features = Features.of(Chunk(pa.table({"x": np.arange(9.0)}), SCHEMA)).take(np.array([4, 2]))
    model, ticks = Asked(), iter([0, 9, 10, 13, 20, 22, 30, 34, 40, 45, 50, 56, 60, 67])
    assert latency(model, features, clock=lambda: next(ticks) / 1e3) == timedelta(milliseconds=2)
    assert [row for _, row in model.rows] == [[[4.0]]] * 7
    assert all(one[0] != other[0] for one, other in zip(model.rows, model.rows[1:], strict=False))


def test_no_row_no_time():
    """By name."""
    with pytest.raises(DataError, match="no row to time"):
        latency(Asked(), Features(SCHEMA, [], 0))
