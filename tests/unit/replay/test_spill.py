"""Predictions and labels on disk: what was written is what is read, however the class table grew."""

import numpy as np
import pytest

from perennial.core.errors import LedgerError
from perennial.core.records import Joined, Loss, Predicted, Prediction, Turn
from perennial.replay.spill import Spill, as_table, read


def joined(position=(), codes=None, values=None):
    """Labels that became known."""
    n = len(position)
    return Joined(
        position=np.asarray(position, np.int64), known_at=np.zeros(n, np.int64), revised=np.zeros(n, bool),
        codes=None if codes is None else np.asarray(codes, np.int32),
        values=None if values is None else np.asarray(values, float),
    )  # fmt: skip


def turn(index, first=None, codes=None, proba=None, classes=(), labels=None, **more):
    """A turn that predicted rows from ``first`` on."""
    predicted = None
    if first is not None:
        prediction = Prediction(
            codes=np.asarray(codes, np.int32),
            proba=None if proba is None else np.asarray(proba, float),
            classes=classes,
        )
        time = np.arange(first, first + len(codes)) * 1_000_000
        predicted = Predicted(
            first=first,
            time=time,
            prediction=prediction,
            major=np.full(len(codes), 1 + index // 2, dtype=np.int32),
            minor=np.full(len(codes), index),
        )
    return Turn(
        index=index, now=0, rows=0, joined=labels or joined((), ()), loss=Loss(), predicted=predicted, classes=classes,
        **more,
    )  # fmt: skip


def written(folder, *turns):
    """The summary and columns of these turns."""
    spill = Spill(folder, "classification")
    for each in turns:
        spill.commit(each)
    summary = spill.close()
    return summary, read(folder, summary)


def test_a_growing_class_table(tmp_path):
    """Older predictions give a later class no chance; before any class is known there is no column at all."""
    summary, columns = written(
        tmp_path,
        turn(0, 5, [-2, -2], np.empty((2, 0))),
        turn(1, 7, [0], [[1.0]], ("a",), joined([5, 6], [0, 0])),
        turn(2, 8, [0, 1], [[0.6, 0.4], [0.3, 0.7]], ("a", "b"), joined([7, 5], [1, 1])),
        turn(3, classes=("a", "b", "c"), labels=joined([9], [2])),
    )
    assert summary.classes == ("a", "b", "c")
    assert columns.row.tolist() == [5, 6, 7, 8, 9]
    assert columns.label.tolist() == [1, 0, 1, -1, 2]  # the latest label of row 5, none of row 8
    np.testing.assert_array_equal(columns.proba, [[0, 0, 0], [0, 0, 0], [1, 0, 0], [0.6, 0.4, 0], [0.3, 0.7, 0]])
    assert (summary.first_predicted, summary.predicted_rows, summary.abstained) == (5, 5, 0)


def test_where_a_model_gave_no_probabilities_they_are_missing(tmp_path):
    """Which is not the same as a chance of nothing."""
    summary, columns = written(
        tmp_path, turn(0, 0, [-1, 0], None, ("a",)), turn(1, 2, [0], [[1.0]], ("a",)), turn(2, 3, [0], None, ("a",))
    )
    np.testing.assert_array_equal(columns.proba, [[np.nan], [np.nan], [1.0], [np.nan]])
    assert summary.abstained == 1
    _, nothing = written(tmp_path / "other", turn(0, 0, [0], None, ("a",)))
    assert nothing.proba is None


def test_a_table_that_users_read(tmp_path):
    """Labels by name, versions as numbers, nulls where there is nothing; written once."""
    summary, columns = written(tmp_path, turn(0, 3, [0, -1, -2], [[0.9, 0.1]] * 3, ("up", "down"), joined([3], [1])))
    for _ in range(2):
        table = as_table(columns, summary, tmp_path / "predictions.arrow")
        assert table.column_names == ["row", "event_time", "label", "prediction", "proba_up", "proba_down", "version"]
        assert table["label"].to_pylist() == ["down", None, None]
        assert table["prediction"].to_pylist() == ["up", None, None]
        assert table["version"].to_pylist() == ["1.0"] * 3
        assert str(table["event_time"].type) == "timestamp[us, tz=UTC]"
    (tmp_path / "predictions.arrow").unlink()
    assert table["row"].to_pylist() == [3, 4, 5]  # the table outlives its file


def test_nothing_predicted(tmp_path):
    """An empty table with its columns."""
    summary, columns = written(tmp_path, turn(0, labels=joined([0], [0]), classes=("a",)))
    assert summary.first_predicted is None
    assert as_table(columns, summary, tmp_path / "p.arrow").num_rows == 0


def test_turns_come_in_order(tmp_path):
    """A turn committed twice, or lost, is an error."""
    spill = Spill(tmp_path, "classification")
    spill.commit(turn(0))
    with pytest.raises(LedgerError, match="turn 0 was committed after turn 0"):
        spill.commit(turn(0))
    with pytest.raises(LedgerError, match="turn 2 was committed after turn 0"):
        spill.commit(turn(2))


def test_sums_are_over_all_turns(tmp_path):
    """CPU seconds, notes, staleness and the most raw data held while predicting."""
    summary, _ = written(
        tmp_path,
        turn(0, 0, [0], None, ("a",), train_cpu_seconds=1.0, kept_bytes=70, staleness=4, notes=("odd",)),
        turn(1, 1, [0, 0], None, ("a",), train_cpu_seconds=2.0, kept_bytes=50, staleness=10, notes=("odd",), late=2),
    )
    assert summary.train_cpu_seconds == 3.0
    assert summary.kept_bytes == 70
    assert (summary.staleness_sum, summary.staleness_max) == (24.0, 10)
    assert summary.notes == ("odd (2 times)",)
    assert summary.late == 2
