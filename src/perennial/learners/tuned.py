"""A search for parameters inside the window, judged by its newest rows, with its cost counted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, Self

import numpy as np

from perennial.core.errors import ConfigError, LearnerError
from perennial.core.identity import canonical, digest
from perennial.core.protocols import LOCAL, Learner, Trust, Updatable
from perennial.core.records import ABSTAINED, Examples, align
from perennial.learners.around import CODECS, AroundOne, loaded
from perennial.learners.saved import codec_of, join, pack, part, unpack

Choice = dict[str, Any]


def tune(
    make: Callable[[Choice], Learner], search: Mapping[str, Sequence[Any]], *, split: float, trials: int | None
) -> TunedLearner:
    """The learner of :func:`perennial.learners.Tuned`; ``make`` gives one for a choice of parameters.

    Raises
    ------
    ConfigError
        If there is nothing to choose from, or a setting is out of range.
    """
    if not search or not all(isinstance(values, list | tuple) and values for values in search.values()):
        raise ConfigError("search", search, "give parameters with lists of values, e.g. {'num_leaves': [7, 31]}")
    if not 0.0 < split < 1.0:
        raise ConfigError("split", split, "give the newest share of the window that judges, between 0 and 1")
    if trials is not None and (not isinstance(trials, int) or trials < 1):
        raise ConfigError("trials", trials, "give how many choices are tried, 1 or more; None tries all")
    choices = [dict(zip(search, values, strict=True)) for values in product(*search.values())]
    templates = [make(choice) for choice in choices]
    kind = UpdatableTuned if all(isinstance(one, Updatable) for one in templates) else TunedLearner
    return kind(templates, choices, split=split, trials=trials)


class TunedLearner(AroundOne):
    """The learner with the parameters that did best on the newest part of the window.

    Parameters
    ----------
    templates : sequence of Learner
        One for each choice.
    choices : sequence of dict
        The parameters of each, for the record.
    split : float
        The newest share of the window, which judges.
    trials : int, optional
        How many choices are drawn and tried in each fit.
    """

    def __init__(
        self, templates: Sequence[Learner], choices: Sequence[Choice], *, split: float, trials: int | None
    ) -> None:
        super().__init__(templates[0])
        self._templates, self._choices = tuple(templates), tuple(choices)
        self._split, self._trials = split, trials
        self._chosen = 0
        self._searched = False  # whether the last training was a search: what it chose is news once
        self._built = 0.0

    @property
    def name(self) -> str:
        """``Tuned(...)`` of what is tuned."""
        return f"Tuned({self._templates[0].name})"

    @property
    def chosen(self) -> Choice:
        """The parameters that the last fit chose."""
        self._trained()
        return dict(self._choices[self._chosen])

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, in words, after a fit."""
        if self._model is None or not self._searched:
            return ()
        return (f"tuned: {', '.join(f'{name}={value!r}' for name, value in self.chosen.items())}",)

    def identity(self) -> str:
        """Every choice, the split and the number of trials."""
        settings = {"split": self._split, "trials": self._trials}
        return canonical({"learner": "Tuned", "of": [one.identity() for one in self._templates], **settings})

    def fit(self, examples: Examples, seed: int) -> Self:
        """Try choices on the older part of the window, take the best of the newest, and fit it on all.

        A window too small to be split, or whose older part has a single class, is fitted with the first choice.
        """
        n = len(examples)
        cut = n - max(1, round(self._split * n))
        best, cost = 0, 0
        tried = self._drawn(seed)
        if cut >= 2 and len(tried) > 1 and not _constant(examples.slice(0, cut)):
            older, newer = examples.slice(0, cut), examples.slice(cut, n)
            losses = []
            for at in tried:
                model = self._templates[at].fit(older, seed)
                cost += model.row_trees(cut)
                losses.append(_loss(model, newer))
            best = tried[int(np.argmin(losses))]
        else:
            best = tried[0]
        new = self._with(best, self._templates[best].fit(examples, seed))
        new._searched = True
        new._built = (cost + new._trained().row_trees(n)) / max(n, 1)
        return new

    def save(self, trust: Trust = LOCAL) -> bytes:
        """Which choice it is, and what its model saves."""
        inner = self._trained().save(trust)
        state = {"chosen": self._chosen, "built": self._built}
        return pack(self.name, join(state, [inner]), {}, codec_of(inner) or "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """What was saved; the model is loaded by the same trust."""
        state, (inner,) = part(unpack(self.name, blob, {}, trust, CODECS)[1])
        new = self._with(state["chosen"], loaded(self._templates[state["chosen"]], inner, trust))
        new._built = state["built"]
        return new

    def digest(self) -> str:
        """Digest of the chosen model's state and of the choice."""
        return digest(canonical([self._chosen, self._built]), self._trained().digest())

    def row_trees(self, rows: int) -> int:
        """What the last training cost, a fit's search included."""
        return round(rows * self._built)

    def _drawn(self, seed: int) -> list[int]:
        """Places of the choices that a fit tries, in order."""
        if self._trials is None or self._trials >= len(self._choices):
            return list(range(len(self._choices)))
        drawn = np.random.default_rng(seed).choice(len(self._choices), self._trials, replace=False)
        return sorted(drawn.tolist())

    def _with(self, chosen: int, model: Learner | None) -> Self:
        new = type(self)(self._templates, self._choices, split=self._split, trials=self._trials)
        new._chosen, new._model = chosen, model
        return new


class UpdatableTuned(TunedLearner):
    """A tuned learner whose chosen model goes on learning; a new search is made at the next fit."""

    def begin(self) -> Self:
        """Nothing: there is no window to search in.

        Raises
        ------
        LearnerError
            Always.
        """
        raise LearnerError(f"{self.name} searches in a window: start it with an initial one")

    def update(self, examples: Examples, seed: int) -> None:
        """Update the chosen model."""
        model = self._trained()
        assert isinstance(model, Updatable)
        if len(examples):
            model.update(examples, seed)
            self._searched = False
            self._built = model.row_trees(len(examples)) / len(examples)


def with_parameters(estimator: Any, choice: Choice) -> Any:
    """A copy of an estimator with other parameters.

    Raises
    ------
    ConfigError
        If it does not have them.
    """
    if not hasattr(estimator, "set_params"):
        kind = type(estimator).__qualname__
        raise ConfigError("estimator", kind, "give an estimator with set_params, or the path of its class")
    try:
        return copy.deepcopy(estimator).set_params(**choice)
    except ValueError as error:
        raise ConfigError("search", choice, f"{type(estimator).__qualname__} does not take it: {error}") from error


def _constant(examples: Examples) -> bool:
    return examples.codes is not None and len(np.unique(examples.codes)) < 2


def _loss(model: Learner, examples: Examples) -> float:
    """The weighted mean loss: log loss, or 0 and 1 where there are no probabilities, or the absolute error."""
    said = align(model.predict(examples.features), examples.classes)
    if said.values is not None:
        assert examples.values is not None
        losses = np.abs(examples.values - said.values)
    else:
        assert examples.codes is not None
        assert said.codes is not None
        if said.proba is None:
            losses = (said.codes != examples.codes).astype(np.float64)
        else:
            given = said.proba[np.arange(len(examples)), examples.codes]
            losses = -np.log(np.maximum(given, np.finfo(np.float64).eps))
        losses = np.where(said.codes == ABSTAINED, np.nan, losses)
    if np.isnan(losses).all():
        return float("inf")
    losses = np.where(np.isnan(losses), np.nanmax(losses), losses)  # who abstains is not spared the row
    weights = examples.weights if examples.weights is not None and examples.weights.sum() > 0 else None
    return float(np.average(losses, weights=weights))
