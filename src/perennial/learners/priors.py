"""Probabilities corrected for how common the classes have become.

Where only the shares of the classes changed, and what each class looks like did not, the right probabilities are the
old ones times the ratio of the shares: ``p'(y | x)`` is proportional to ``p(y | x) q(y) / p(y)``, with ``p(y)`` the
shares that the model was trained on and ``q(y)`` those of now.

References
----------
Saerens, Latinne and Decaestecker (2002), Adjusting the outputs of a classifier to new a priori probabilities, Neural
Computation 14. Here the new shares are counted among the newest labels, not estimated from unlabelled rows.
"""

from __future__ import annotations

from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, LearnerError
from perennial.core.features import Features
from perennial.core.identity import canonical, digest
from perennial.core.protocols import LOCAL, Learner, Serving, Trust
from perennial.core.records import Examples, Label, Prediction
from perennial.learners.around import CODECS, AroundOne, loaded
from perennial.learners.export import Files, as_json
from perennial.learners.saved import codec_of, join, pack, part, unpack

Floats = NDArray[np.float64]

_SMOOTHING = 0.5  #: rows added to every class (Krichevsky and Trofimov 1981): a share is never zero
_FLOOR = 1e-6  #: probabilities below it count as it: no ratio lifts a 0 that was rounded


@final
class PriorCorrectedLearner(AroundOne):
    """A classifier that is trained once, and follows the shares of its classes; see ``learners.PriorCorrected``.

    Parameters
    ----------
    learner : Learner
        A classification learner that gives probabilities.
    memory : float
        How many of the newest labels the shares of now are counted among, as weights that halve: in rows.
    bound : float
        The greatest factor by which the odds of a class are corrected.
    """

    def __init__(self, learner: Learner, *, memory: float = 1000.0, bound: float = 20.0) -> None:
        if learner.task != "classification":
            raise ConfigError("learner", learner.name, "give a classification learner: there are no classes here")
        if not memory > 0:
            raise ConfigError("memory", memory, "give the labels after which an older one counts half, e.g. 1000")
        if not bound > 1:
            raise ConfigError("bound", bound, "give the greatest factor of a correction, more than 1, e.g. 20")
        super().__init__(learner)
        self._memory, self._bound = float(memory), float(bound)
        self._classes: tuple[Label, ...] = ()
        self._then: Floats = np.empty(0)  # mass of the classes in training
        self._now: Floats = np.empty(0)  # mass of the newest labels
        self._built = 0.0

    @property
    def name(self) -> str:
        """``PriorCorrected(...)`` of what is inside."""
        return f"PriorCorrected({self._learner.name})"

    def identity(self) -> str:
        """The learner inside and the settings."""
        settings = {"memory": self._memory, "bound": self._bound}
        return canonical({"learner": "PriorCorrected", "of": self._learner.identity(), **settings})

    def fit(self, examples: Examples, seed: int) -> Self:
        """The learner inside, trained on all examples; their shares, and those of the newest among them."""
        new = self._with(self._learner.fit(examples, seed))
        new._built = new._inside()[0].row_trees(len(examples)) / max(len(examples), 1)
        new._classes = examples.classes
        assert examples.codes is not None
        weights = np.ones(len(examples)) if examples.weights is None else examples.weights
        new._then = np.bincount(examples.codes, weights, len(examples.classes)).astype(np.float64)
        new._now = self._aged(np.zeros(len(examples.classes)), examples)
        return new

    def begin(self) -> Self:
        """Nothing: the model inside is trained once.

        Raises
        ------
        LearnerError
            Always.
        """
        raise LearnerError(f"{self.name} trains its inside once: give `initial`")

    def update(self, examples: Examples, seed: int) -> None:  # noqa: ARG002 - nothing is drawn
        """Count the labels; the model inside stays."""
        self._trained()
        if not len(examples):
            return
        self._classes = examples.classes
        grow = len(self._classes) - len(self._now)
        self._then, self._now = np.pad(self._then, (0, grow)), np.pad(self._now, (0, grow))
        self._now = self._aged(self._now, examples)
        self._built = 0.0

    def predict(self, features: Features) -> Prediction:
        """The corrected probabilities and the class of the highest; rows that the inside abstains from stay so."""
        return self._corrected(super().predict(features))

    def serving(self) -> Serving | None:
        """The correction of what the inside's own quickest form says."""
        inside = super().serving()
        return None if inside is None else lambda matrix: self._corrected(inside(matrix))

    def save(self, trust: Trust = LOCAL) -> bytes:
        """The shares as text, and what the inside saves."""
        inner = self._trained().save(trust)
        state = {
            "classes": self._classes,
            "then": self._then.tolist(),
            "now": self._now.tolist(),
            "built": self._built,
        }
        return pack(self.name, join(state, [inner]), {}, codec_of(inner) or "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """What was saved; the inside is loaded by the same trust."""
        state, (inner,) = part(unpack(self.name, blob, {}, trust, CODECS)[1])
        new = self._with(loaded(self._learner, inner, trust))
        new._classes, new._built = tuple(state["classes"]), state["built"]
        new._then, new._now = np.array(state["then"], dtype=np.float64), np.array(state["now"], dtype=np.float64)
        return new

    def exported(self, trust: Trust) -> Files:
        """The files of the inside, and the factors as JSON."""
        inner = super().exported(trust)
        factors = np.exp(self._logs(self._classes)).tolist()
        facts = {"classes": self._classes, "factors": factors, "floor": _FLOOR}
        names = {n: n if len(inner.files) == 1 else f"model/{n}" for n in inner.files}
        files = {"priors.json": as_json(facts), **{names[n]: content for n, content in inner.files.items()}}
        readme = (
            "corrected: max(p, floor) * factor of its class, divided by their sum, in priors.json; "
            f"p from {', '.join(names.values())}: {inner.readme}"
        )
        return Files(files=files, readme=readme)

    def digest(self) -> str:
        """Digest of the shares and of the state inside."""
        plain = [list(self._classes), self._then.tolist(), self._now.tolist(), self._built]
        return digest(canonical(plain), self._trained().digest())

    def row_trees(self, rows: int) -> int:
        """What the fit inside cost: an update costs nothing."""
        return round(rows * self._built)

    def _with(self, model: Learner) -> Self:
        new = type(self)(self._learner, memory=self._memory, bound=self._bound)
        new._model = model
        return new

    def _aged(self, mass: Floats, examples: Examples) -> Floats:
        """The mass of labels after these, each of which ages all before it."""
        assert examples.codes is not None
        n = len(examples)
        fresh = 0.5 ** (np.arange(n - 1, -1, -1) / self._memory)
        if examples.weights is not None:
            fresh = fresh * examples.weights
        return np.asarray(mass * 0.5 ** (n / self._memory) + np.bincount(examples.codes, fresh, len(mass)))

    def _logs(self, classes: tuple[Label, ...]) -> Floats:
        """Logarithm of each class's factor, in the order of ``classes``; of one that was never counted 0."""
        k = len(self._classes)
        then, now = self._then + _SMOOTHING, self._now + _SMOOTHING
        ratio = np.log(now / now.sum()) - np.log(then / then.sum())
        ratio = np.where(self._then > 0, np.clip(ratio, -np.log(self._bound), np.log(self._bound)), 0.0)
        at = {(type(c), c): i for i, c in enumerate(self._classes)}
        return np.array([ratio[at[key]] if (key := (type(c), c)) in at and k else 0.0 for c in classes])

    def _corrected(self, said: Prediction) -> Prediction:
        if said.proba is None:
            raise LearnerError(f"{self._learner.name} gives no probabilities, so there is nothing to correct")
        if not said.classes or not len(said):
            return said
        scores = np.log(np.maximum(said.proba, _FLOOR)) + self._logs(said.classes)
        scores -= scores.max(axis=1, keepdims=True)
        proba = np.exp(scores)
        proba /= proba.sum(axis=1, keepdims=True)
        assert said.codes is not None
        codes = np.where(said.codes < 0, said.codes, proba.argmax(axis=1)).astype(np.int32)
        return Prediction(codes=codes, proba=proba, classes=said.classes)
