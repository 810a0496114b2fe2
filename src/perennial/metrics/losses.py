"""The loss of each prediction: what triggers watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import Label, Prediction
from perennial.metrics.additive import SMALLEST_PROBABILITY

#: a loss, or a difference of two, beyond it is left out: sums of squares stay finite, whatever a label or a model says
LARGEST_LOSS = 1e120


def pointwise(
    prediction: Prediction, truth: NDArray[Any], classes: Sequence[Label] = ()
) -> tuple[NDArray[np.float64], str]:
    """The loss of each row and the name of that loss.

    Parameters
    ----------
    prediction : Prediction
        Its classes may be any; none means those of ``classes``.
    truth : array of int32 or float64, shape (n,)
        Classification: codes into ``classes``, -1 without a label. Regression: values, NaN without a label.
    classes : sequence
        The class table.

    Returns
    -------
    losses : array of float64, shape (n,)
        NaN where the model abstained or there is no label.
    name : {"log_loss", "zero_one", "absolute_error"}
        Log loss in nats where the prediction has probabilities (floored at 2.2e-16), else 1 for a wrong class and 0
        for the right one; for regression the absolute error.
    """
    if prediction.values is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out by whoever adds up
            return np.abs(truth - prediction.values), "absolute_error"
    assert prediction.codes is not None
    losses = np.full(len(truth), np.nan)
    there = (prediction.codes != -1) & (truth >= 0)
    columns = _columns(tuple(prediction.classes), tuple(classes))
    if prediction.proba is None:
        said = truth if columns is None else columns[np.maximum(truth, 0)]  # the truth in the model's own codes
        losses[there] = (prediction.codes != said)[there]
        return losses, "zero_one"
    rows = np.flatnonzero(there)
    at = truth[rows] if columns is None else columns[truth[rows]]
    has = (at >= 0) & (at < prediction.proba.shape[1])
    given = np.zeros(len(rows))
    given[has] = prediction.proba[rows[has], at[has]]
    losses[rows] = -np.log(np.maximum(given, SMALLEST_PROBABILITY))
    return losses, "log_loss"


def bounded(
    prediction: Prediction, truth: NDArray[Any], classes: Sequence[Label] = ()
) -> tuple[NDArray[np.float64], str]:
    """The loss of each row by which two models are compared: as :func:`pointwise`, but never far above 1.

    Half the Brier score where the prediction has probabilities: for two classes the squared error of the probability.
    A single confident mistake weighs 1, where its log loss would outweigh hundreds of other rows.

    Parameters
    ----------
    prediction, truth, classes
        As for :func:`pointwise`.

    Returns
    -------
    losses : array of float64, shape (n,)
        NaN where the model abstained or there is no label.
    name : {"brier", "zero_one", "absolute_error"}
        Half the Brier score, in [0, 1]; 1 for a wrong class; for regression the absolute error, which has no bound.

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability, equation 2, halved.
    """
    if prediction.values is not None or prediction.proba is None:
        return pointwise(prediction, truth, classes)
    assert prediction.codes is not None
    losses = np.full(len(truth), np.nan)
    rows = np.flatnonzero((prediction.codes != -1) & (truth >= 0))
    columns = _columns(tuple(prediction.classes), tuple(classes))
    at = truth[rows] if columns is None else columns[truth[rows]]
    proba = prediction.proba[rows]
    has = (at >= 0) & (at < proba.shape[1])
    given = np.zeros(len(rows))
    given[has] = proba[np.flatnonzero(has), at[has]]
    losses[rows] = ((proba**2).sum(axis=1) - 2 * given + 1) / 2
    return losses, "brier"


def _columns(own: tuple[Label, ...], table: tuple[Label, ...]) -> NDArray[np.int64] | None:
    """For each class of the table its index in ``own``, -1 if it has none there; None if indices agree."""
    if not own or (own == table[: len(own)] and all(type(a) is type(b) for a, b in zip(own, table, strict=False))):
        return None
    index = {(type(label), label): i for i, label in enumerate(own)}  # 1, True and 1.0 are three classes
    return np.array([index.get((type(label), label), -1) for label in table] or [-1], dtype=np.int64)
