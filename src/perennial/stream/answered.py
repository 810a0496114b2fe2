"""What was said of rows when they were asked about, as they come in: the numbers of each, and the version that said it.

What cannot be read was said by nobody: it is no error, the row is predicted anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import ABSTAINED, UNSEEN, Answers, Label, Prediction, TaskKind

#: columns of a served stream's rows beside its own: who said it and what; null where nobody did
VERSION, SAID = "perennial_version", "perennial_said"
#: the same of a challenger that was asked beside it
SHADOW, SHADOW_SAID = "perennial_shadow", "perennial_shadow_said"
#: all of them: no features
COLUMNS = (VERSION, SAID, SHADOW, SHADOW_SAID)

_NUMBER = re.compile(r"(\d{1,9})\.(\d{1,9})", re.ASCII)


def answers(versions: Sequence[str | None], said: Sequence[bytes | None], task: TaskKind) -> Answers:
    """The record of n rows: who said something, and the numbers of it, little-endian doubles: a value, or a code and
    the probabilities.

    Examples
    --------
    >>> told = answers(["2.1", None], [np.array([1.0, 0.25, 0.75]).tobytes(), None], "classification")
    >>> told.major.tolist(), told.prediction.codes.tolist(), told.prediction.proba[0].tolist()
    ([2, -1], [1, -1], [0.25, 0.75])
    """
    n = len(versions)
    major, minor = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    there: list[NDArray[np.float64] | None] = []
    for i, (version, one) in enumerate(zip(versions, said, strict=True)):
        number, numbers = _NUMBER.fullmatch(version or ""), _numbers(one, task)
        there.append(numbers if number is not None else None)
        if number is not None and numbers is not None:
            major[i], minor[i] = int(number[1]), int(number[2])
    if task == "regression":
        values = np.array([np.nan if numbers is None else numbers[0] for numbers in there])
        return Answers(major=major, minor=minor, prediction=Prediction(values=values))
    codes = np.array([ABSTAINED if numbers is None else int(numbers[0]) for numbers in there], dtype=np.int32)
    width = max((len(numbers) - 1 for numbers in there if numbers is not None), default=0)
    proba = None
    if width and all(numbers is None or len(numbers) > 1 for numbers in there):
        proba = np.full((n, width), np.nan)
        for i, numbers in enumerate(there):
            if numbers is not None:
                proba[i] = 0.0  # a class that came after the version was made has no probability
                proba[i, : len(numbers) - 1] = numbers[1:]
    return Answers(major=major, minor=minor, prediction=Prediction(codes=codes, proba=proba))


def _numbers(said: bytes | None, task: TaskKind) -> NDArray[np.float64] | None:
    if not said or len(said) % 8:
        return None
    numbers = np.frombuffer(said, dtype="<f8")
    if task == "regression":
        return numbers if len(numbers) == 1 else None
    return numbers if UNSEEN <= numbers[0] < 2**31 else None  # NaN is neither


# ---------------------------------------------------------------------- predictions, put together


def nothing(n: int, like: Prediction) -> Prediction:
    """No prediction of n rows."""
    if like.values is not None:
        return Prediction(values=np.full(n, np.nan))
    return Prediction(codes=np.full(n, ABSTAINED, dtype=np.int32))


def widened(prediction: Prediction, classes: tuple[Label, ...]) -> Prediction:
    """A prediction in the terms of an earlier class table, in those of today's, which begins with it."""
    if prediction.codes is None:
        return prediction
    codes, proba = np.where(prediction.codes < len(classes), prediction.codes, UNSEEN), prediction.proba
    if proba is not None:
        more = np.where(np.isnan(proba[:, :1]), np.nan, np.zeros((1, max(len(classes) - proba.shape[1], 0))))
        proba = np.concatenate([proba[:, : len(classes)], more], axis=1)
    return Prediction(codes=codes.astype(np.int32), proba=proba, classes=classes)


def laid_over(prediction: Prediction, rows: NDArray[np.int64], own: Prediction) -> Prediction:
    """A prediction in which some rows are those of ``own``, of which there is one for each of ``rows``."""
    if own.values is not None:
        assert prediction.values is not None
        values = prediction.values.copy()
        values[rows] = own.values
        return Prediction(values=values)
    assert prediction.codes is not None
    assert own.codes is not None
    codes, proba = prediction.codes.copy(), prediction.proba
    rest = np.ones(len(codes), dtype=np.bool_)
    codes[rows], rest[rows] = own.codes, False
    if own.proba is None:
        proba = None
    elif proba is not None or (prediction.codes[rest] == ABSTAINED).all():  # else the others have none
        proba = np.full((len(codes), own.proba.shape[1]), np.nan) if proba is None else proba.copy()
        proba[rows] = own.proba
    return Prediction(codes=codes, proba=proba, classes=own.classes)
