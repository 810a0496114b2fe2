"""A user's own function as a metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError
from perennial.core.records import TaskKind, class_array
from perennial.metrics.records import Scored, optional


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A metric that calls ``function(y_true, y_pred)``; see :func:`custom`."""

    name: str
    function: Callable[..., Any]
    greater_is_better: bool = True
    needs_proba: bool = False
    weighted: bool = False
    task: TaskKind | None = None

    def compute(self, scored: Scored) -> float | None:
        """The score over all rows; None without rows or if the function gives NaN or an infinity.

        Raises
        ------
        ConfigError
            If the function refuses the rows (``ValueError`` or ``ArithmeticError``), or gives no number.
        """
        if not len(scored) or (self.needs_proba and scored.proba is None):
            return None
        keywords = {"sample_weight": scored.weights} if self.weighted and scored.weights is not None else {}
        try:
            return optional(float(self.function(_truth(scored), self._said(scored), **keywords)))
        except (ValueError, ArithmeticError, TypeError) as error:
            need = f"it failed on {len(scored)} rows with {type(error).__name__}: {error}; mend or drop it"
            raise ConfigError("metrics", self.name, need) from error

    def attempt(self, scored: Scored) -> float | None:
        """As :meth:`compute`, with None where the function refuses the rows: few rows may lack a class."""
        try:
            return self.compute(scored)
        except ConfigError as error:
            if isinstance(error.__cause__, TypeError):
                raise
            return None

    def _said(self, scored: Scored) -> NDArray[Any]:
        if not self.needs_proba:
            return _answer(scored)
        assert scored.proba is not None
        proba = np.zeros((len(scored), len(scored.classes)))
        proba[:, : scored.proba.shape[1]] = scored.proba
        if scored.target is not None:
            return proba[:, scored.target]
        try:
            order = sorted(range(len(scored.classes)), key=scored.classes.__getitem__)
        except TypeError:  # words and numbers side by side: the class table's own order
            return proba
        return proba[:, order]


def custom(name: str, function: Callable[..., Any], *, greater_is_better: bool = True, proba: bool = False) -> Custom:
    """A metric of a user's own function.

    Parameters
    ----------
    name : str
        How reports call it.
    function : callable
        ``function(y_true, y_pred) -> float`` on labels as the user wrote them (for regression, on float64). A
        prediction of a class that no label had named by then is None in ``y_pred``. If the function has a parameter
        ``sample_weight``, it is given the stream's weights where there are some. It is called once for the whole,
        once for each batch of two rows or more, and for up to 50 points of the cumulative curve; a batch for which it
        raises ``ValueError`` or ``ArithmeticError``, or gives NaN, has no score.
    greater_is_better : bool
        Whether more is better.
    proba : bool
        Give probabilities in place of ``y_pred``: of the positive class, shape (n,), or without a positive class of
        all classes in sorted order, shape (n, k).

    Examples
    --------
    >>> import numpy as np
    >>> hits = custom("hits", lambda y_true, y_pred: float((y_true == y_pred).sum()))
    >>> hits.compute(Scored(codes=np.array([0, 1]), predicted=np.array([0, 0]), classes=("no", "yes")))
    1.0
    """
    return Custom(
        name=name,
        function=function,
        greater_is_better=greater_is_better,
        needs_proba=proba,
        weighted=_takes_weights(function),
    )


def _takes_weights(function: Callable[..., Any]) -> bool:
    try:
        return "sample_weight" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtins without a signature
        return False


def _truth(scored: Scored) -> NDArray[Any]:
    if scored.values is not None:
        return scored.values
    assert scored.codes is not None
    return np.asarray(class_array(scored.classes)[scored.codes])


def _answer(scored: Scored) -> NDArray[Any]:
    if scored.predicted_values is not None:
        return scored.predicted_values
    assert scored.predicted is not None
    unseen = scored.predicted < 0
    if not unseen.any():
        return np.asarray(class_array(scored.classes)[scored.predicted])
    out = np.empty(len(unseen), dtype=object)
    out[~unseen] = class_array(scored.classes)[scored.predicted[~unseen]].tolist()
    return out
