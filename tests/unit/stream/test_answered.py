"""What was said of rows: read from the numbers of a log, put together with what is said now."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.core.records import ABSTAINED, UNSEEN, Prediction
from perennial.stream.answered import answers, laid_over, nothing, widened
from perennial.stream.inbox import pack


def packed(codes, proba=None):
    """What a server writes of a classification."""
    proba = None if proba is None else np.asarray(proba)
    return pack(Prediction(codes=np.asarray(codes, dtype=np.int32), proba=proba)).to_pylist()


def test_a_log_gives_back_what_was_said():
    """Codes, probabilities and values bit for bit, and by whom."""
    proba = np.random.default_rng(0).random((3, 2))
    told = answers(["1.0", "1.2", "2.0"], packed([0, 1, 1], proba), "classification")
    assert told.major.tolist() == [1, 1, 2]
    assert told.minor.tolist() == [0, 2, 0]
    assert told.prediction.codes.tolist() == [0, 1, 1]
    assert (told.prediction.proba == proba).all()
    values = pack(Prediction(values=np.array([1.5, np.pi, np.nan]))).to_pylist()
    said = answers(["1.0"] * 3, values, "regression").prediction.values
    assert said.tobytes() == np.array([1.5, np.pi, np.nan]).tobytes()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, b"\0" * 8), ("1.0", None), ("1.0", b""), ("1.0", b"torn"), ("1", b"\0" * 8), ("1.0.0", b"\0" * 8),
        ("../etc", b"\0" * 8), ("1." + "9" * 12, b"\0" * 8), ("1.0", np.array([np.nan]).tobytes()),
        ("1.0", np.array([-3.0]).tobytes()), ("1.0", np.array([2.0**40]).tobytes()),
    ],
)  # fmt: skip
def test_what_cannot_be_read_was_said_by_nobody(version, said):
    """No error: the row is predicted anew."""
    told = answers([version, "1.0"], [said, *packed([1])], "classification")
    assert told.major.tolist() == [-1, 1]
    assert told.prediction.codes.tolist() == [ABSTAINED, 1]


def test_versions_that_knew_fewer_classes():
    """A class that came later had no probability; a version without probabilities has none of the batch's."""
    told = answers(
        ["1.0", "2.0", None], [*packed([0], [[1.0]]), *packed([2], [[0.2, 0.3, 0.5]]), None], "classification"
    )
    assert told.prediction.proba[:2].tolist() == [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]
    assert np.isnan(told.prediction.proba[2]).all()
    wide = widened(told.prediction, ("a", "b", "c", "d"))
    assert wide.proba[:2].tolist() == [[1.0, 0.0, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0]]
    assert np.isnan(wide.proba[2]).all()
    assert widened(told.prediction, ("a", "b")).codes.tolist() == [0, UNSEEN, ABSTAINED]
    assert (
        answers(["1.0", "2.0"], [*packed([0]), *packed([1], [[0.5, 0.5]])], "classification").prediction.proba is None
    )


def test_rows_are_laid_over_others():
    """Some rows are another version's; what nobody said stays unsaid."""
    own = Prediction(codes=np.array([1], dtype=np.int32), proba=np.array([[0.1, 0.9]]), classes=("a", "b"))
    one = laid_over(nothing(3, own), np.array([1]), own)
    assert one.codes.tolist() == [ABSTAINED, 1, ABSTAINED]
    both = laid_over(one, np.array([0]), own)
    assert both.codes.tolist() == [1, 1, ABSTAINED]
    assert both.proba[:2].tolist() == [[0.1, 0.9], [0.1, 0.9]]
    bare = Prediction(codes=np.array([0], dtype=np.int32), classes=("a", "b"))
    assert laid_over(both, np.array([2]), bare).proba is None
    values = laid_over(nothing(2, Prediction(values=np.zeros(2))), np.array([1]), Prediction(values=np.array([4.0])))
    assert np.isnan(values.values[0])
    assert values.values[1] == 4.0
