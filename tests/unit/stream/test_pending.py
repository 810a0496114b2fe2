"""Predictions that wait for labels: which of them are asked for, when they are let go, and what a state keeps."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.core.records import Prediction
from perennial.core.state import State
from perennial.stream.pending import Pending, PendingBatch


def waiting(first, rows, *, shadow=False, until=100, seed=0):
    """A batch of predictions with two classes; with a shadow it has times, a trial and two slices."""
    rng = np.random.default_rng([seed, first])

    def prediction():
        return Prediction(
            codes=rng.integers(0, 2, rows).astype(np.int32), proba=rng.random((rows, 2)), classes=("a", "b")
        )

    out = PendingBatch(first, rows, prediction(), 1, rows, until)
    if shadow:
        out.shadow, out.time, out.trial = prediction(), np.arange(rows), 3
        out.members = rng.random((rows, 2)) < 0.5
    return out


@pytest.fixture
def pending():
    """Three batches of ten rows, the second with a shadow, and a gap before the third."""
    out = Pending()
    for batch in (waiting(0, 10), waiting(10, 10, shadow=True), waiting(30, 10, until=500)):
        out.add(batch)
    return out


def test_labels_find_their_batches(pending):
    """Ascending positions, some of rows that wait no longer or never did."""
    position = np.array([3, 9, 10, 25, 30, 39, 40])
    found = [(batch.first, position[part].tolist()) for batch, part in pending.labelled(position)]
    assert found == [(0, [3, 9]), (10, [10]), (30, [30, 39])]
    assert list(pending.labelled(np.empty(0, dtype=np.int64))) == []


def test_a_batch_is_let_go_when_no_label_can_come(pending):
    """All came, or the instant is over by which they come; one that waits holds no others."""
    assert [batch.first for batch, _ in pending.labelled(np.arange(10))] == [0]
    pending.let_go(50)
    assert len(pending) == 2
    pending.let_go(101)
    assert len(pending) == 1
    for first in range(40, 40 + 80):
        pending.add(waiting(first, 1, until=500))
    list(pending.labelled(np.arange(40, 120)))
    pending.let_go(101)
    assert len(pending) == 1


def test_a_state_keeps_all_of_it(pending):
    """Bit for bit, with batches that have a shadow and slices among others that have none."""
    data = pending.state().to_bytes()
    again = Pending()
    again.restore(State.from_bytes(data, {}), ["a", "b", "later"])
    assert again.state().to_bytes() == data
    (batch, part), (kept, same) = (next(p.labelled(np.array([12, 17]))) for p in (pending, again))
    assert (kept.trial, kept.until, kept.out, same) == (batch.trial, batch.until, batch.out, part)
    assert kept.shadow.classes == ("a", "b")
    for name in ("time", "members"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(batch, name))
    np.testing.assert_array_equal(kept.shadow.proba, batch.shadow.proba)
