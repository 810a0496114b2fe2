"""The loss that strategies are compared by: one that is a sum over rows, so that batches can be added up and drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import TaskKind
from perennial.metrics import additive
from perennial.metrics.additive import Sums
from perennial.metrics.records import Metric, Scored

#: the metric whose terms are added up, for each that is no mean over rows
_IN_PLACE_OF = {
    "f1": "accuracy",
    "kappa": "accuracy",
    "kappa_temporal": "accuracy",
    "roc_auc": "log_loss",
    "average_precision": "log_loss",
    "recall_at_fpr": "log_loss",
    "rmse": "squared error",
    "r2": "squared error",
    "wape": "mae",
}
_NAMES = {"accuracy": "error rate", "brier": "Brier score", "log_loss": "log loss", "mae": "absolute error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What each row loses; less is better.

    Parameters
    ----------
    name : str
        In words, e.g. ``"log loss"``.
    exact : bool
        Whether its mean ranks strategies exactly as the metric that was asked for; else it stands in for it.
    terms : Sums
        Whose first term it is, or one less it where ``share_right``.
    share_right : bool
        Whether the term is 1 for a right answer.
    """

    name: str
    exact: bool
    terms: Sums
    share_right: bool = False

    def totals(self, scored: Scored, edges: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The loss of each batch ``[edges[i], edges[i + 1])`` in all, shape (b,); None if rows lack what it reads."""
        if not additive.available(self.terms, scored):
            return None
        out = np.zeros(len(edges) - 1)
        for low, high in additive.groups(scored, edges):
            out[low:high] = additive.states_of(self.terms, scored, edges[low : high + 1])[:, 1]
        return np.diff(edges) - out if self.share_right else out


def errors() -> Loss:
    """1 for a wrong class: what every classifier has, with probabilities or without."""
    return Loss(name=_NAMES["accuracy"], exact=True, terms=additive.accuracy(), share_right=True)


def loss_of(metric: Metric, task: TaskKind) -> Loss:
    """The loss that adds up over rows and is, or comes closest to, what a metric measures.

    A metric of ranks (ROC AUC, average precision, recall at a false-positive rate) is no mean over rows: the log loss
    stands in for it, and the error rate for F1 and kappa. A metric of the user's own is taken for one of these by
    whether it reads probabilities.

    Examples
    --------
    >>> from perennial.metrics import resolve
    >>> [loss_of(m, "classification").name for m in resolve(["accuracy", "roc_auc", "kappa"], "classification")]
    ['error rate', 'log loss', 'error rate']
    """
    base = metric.name.partition("@")[0]
    if base == "pinball" and isinstance(metric, Sums):
        return Loss(name="pinball loss", exact=True, terms=metric)
    own = {"accuracy": additive.accuracy, "log_loss": additive.log_loss, "brier": additive.brier, "mae": additive.mae}
    stand_in = _IN_PLACE_OF.get(base)
    exact = isinstance(metric, Sums) and (base in own or base == "rmse")
    if base not in own and stand_in is None:  # a user's own
        stand_in = "mae" if task == "regression" else "log_loss" if metric.needs_proba else "accuracy"
    taken = stand_in or base
    if taken == "squared error":
        return Loss(name=taken, exact=exact, terms=additive.rmse())
    return Loss(name=_NAMES[taken], exact=exact, terms=own[taken](), share_right=taken == "accuracy")
