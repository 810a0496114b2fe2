"""One model per batch, weighed by how each did on the newest one.

References
----------
Wang, Fan, Yu and Han (2003), Mining concept-drifting data streams using ensemble classifiers, KDD: a classifier per
batch, weighed by its mean squared error on the newest. Brzezinski and Stefanowski (2014), Reacting to different types
of concept drift: the Accuracy Updated Ensemble algorithm, IEEE Transactions on Neural Networks and Learning Systems 25:
the weights that are used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, LearnerError
from perennial.core.features import Features
from perennial.core.identity import canonical, digest
from perennial.core.protocols import LOCAL, Learner, Servable, Serving, Trust
from perennial.core.records import ABSTAINED, Examples, Label, Prediction, align
from perennial.learners.around import CODECS, Around, loaded, saved, told
from perennial.learners.export import Exportable, Files, as_json
from perennial.learners.recall import Recall, shown
from perennial.learners.saved import join, pack, part, unpack

Floats = NDArray[np.float64]

_LEAST = 1e-12  # a batch of one class alone has an error of 0 by chance, and a perfect member too


@final
class BatchEnsemble(Around):
    """A model for each update, trained on its examples alone; see :func:`perennial.learners.AccuracyUpdated`.

    Parameters
    ----------
    learner : Learner
        The template of every member.
    size : int
        Members at most.
    """

    def __init__(self, learner: Learner, *, size: int = 10) -> None:
        if not isinstance(size, int) or size < 1:
            raise ConfigError("size", size, "give how many members are kept at most, 1 or more")
        self._learner, self._size = learner, size
        self._members: list[Learner] = []
        self._weights: Floats = np.empty(0)
        self._classes: tuple[Label, ...] = ()
        self._built = 0.0  # trees per row of the last training
        self._recall = Recall()

    def _inside(self) -> Sequence[Learner]:
        return self._members or [self._learner]

    @property
    def name(self) -> str:
        """``AccuracyUpdated(...)`` of what its members are."""
        return f"AccuracyUpdated({self._learner.name})"

    def identity(self) -> str:
        """The template and the size."""
        return canonical({"learner": "AccuracyUpdated", "of": self._learner.identity(), "size": self._size})

    def begin(self) -> Self:
        """No member yet: classification abstains and regression says NaN until the first update."""
        return type(self)(self._learner, size=self._size)

    def fit(self, examples: Examples, seed: int) -> Self:
        """One member that learned all examples."""
        new = self.begin()
        new._join(examples, seed)
        return new

    def update(self, examples: Examples, seed: int) -> None:
        """Weigh the members by these examples, then add one that learned them; the one that weighs least may go."""
        if len(examples):
            self._join(examples, seed)

    def predict(self, features: Features) -> Prediction:
        """The weighted mean of the members' probabilities or values."""
        rows = shown(features)
        return self._mean(
            [self._recall.of(rows, m, partial(self._said, m, features), features.schema) for m in self._members], rows
        )

    def serving(self) -> Serving | None:
        """The quickest forms of all members; None if one has none."""
        forms = [member.serving() if isinstance(member, Servable) else None for member in self._members]
        quick = [form for form in forms if form is not None]
        if len(quick) < len(forms):
            return None
        return lambda matrix: self._mean([self._plain(form(matrix)) for form in quick], matrix)

    def save(self, trust: Trust = LOCAL) -> bytes:
        """Weights and classes as text, and what each member saves."""
        blobs, codec = saved(self._members, trust)
        state = {"weights": self._weights.tolist(), "classes": self._classes, "built": self._built}
        return pack(self.name, join(state, blobs), {}, codec)

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """What was saved; members are loaded by the same trust."""
        state, blobs = part(unpack(self.name, blob, {}, trust, CODECS)[1])
        new = self.begin()
        new._members = [loaded(self._learner, one, trust) for one in blobs]
        new._weights = np.array(state["weights"], dtype=np.float64)
        new._classes, new._built = tuple(state["classes"]), state["built"]
        return new

    def exported(self, trust: Trust) -> Files:
        """The files of every member, and their weights as JSON."""
        if not self._members:
            raise LearnerError(f"{self.name} has no member to export yet: update it first")
        files: dict[str, bytes] = {}
        members: list[dict[str, Any]] = []
        opens = ""
        for i, (weight, member) in enumerate(zip(self._weights.tolist(), self._members, strict=True), start=1):
            if not isinstance(member, Exportable):
                raise LearnerError(f"{member.name} has no plain form: its type has no method `exported`")
            inner = member.exported(trust)
            names = [f"member-{i}/{name}" for name in inner.files]
            files |= dict(zip(names, inner.files.values(), strict=True))
            members.append({"files": names, "weight": weight, "readme": inner.readme})
            opens = inner.readme
        facts = {"classes": self._classes, "members": members}
        readme = f"the sum over members of weight * what it says, in ensemble.json. Each member: {opens}"
        return Files(files={"ensemble.json": as_json(facts), **files}, readme=readme)

    def digest(self) -> str:
        """Digest of the members, their weights and the classes."""
        plain = canonical([list(self._classes), self._weights.tolist(), self._built])
        return digest(plain, *(member.digest() for member in self._members))

    def size(self) -> int:
        """Bytes of its members' states: none before the first update."""
        return super().size() if self._members else 0

    def row_trees(self, rows: int) -> int:
        """What the newest member cost."""
        return round(rows * self._built)

    def _join(self, examples: Examples, seed: int) -> None:
        if examples.codes is not None:
            self._classes = examples.classes
        rows = shown(examples.features)
        said = [
            self._recall.of(rows, m, partial(self._said, m, examples.features), examples.features.schema)
            for m in self._members
        ]
        floor, errors = self._errors(said, examples)
        member = self._learner.fit(examples, seed)
        members = [*self._members, member]
        weights = np.append(1.0 / (floor + errors + _LEAST), 1.0 / (floor + _LEAST))
        if len(members) > self._size:
            out = int(weights[:-1].argmin()) if self._size > 1 else 0
            members.pop(out)
            weights = np.delete(weights, out)
        self._members, self._weights = members, weights / weights.sum()
        self._built = member.row_trees(len(examples)) / len(examples)

    def _errors(self, said: Sequence[Prediction], examples: Examples) -> tuple[float, Floats]:
        """What saying the shares of the classes, or the mean, would have erred; and what each member did, shape (m,).

        Squared errors of the probability of the true class, or of the value, in the weighted mean over the rows.
        """
        weights = np.ones(len(examples)) if examples.weights is None else examples.weights
        if not weights.sum() > 0:
            weights = np.ones(len(examples))
        if examples.codes is not None:
            shares = np.bincount(examples.codes, weights, len(examples.classes)) / weights.sum()
            at = np.arange(len(examples))
            missed = [1.0 - self._wide(one)[at, examples.codes] for one in said]
            floor = float(shares @ np.square(1.0 - shares))
        else:
            assert examples.values is not None
            mean = float(np.average(examples.values, weights=weights))
            missed = [examples.values - np.nan_to_num(self._values(one)) for one in said]
            floor = float(np.average(np.square(examples.values - mean), weights=weights))
        errors = []
        for one, gaps in zip(said, missed, strict=True):
            heard = weights * told(one)
            errors.append(float(np.average(np.square(gaps), weights=heard)) if heard.sum() > 0 else floor)
        return floor, np.array(errors)

    def _said(self, member: Learner, features: Features) -> Prediction:
        return self._plain(member.predict(features))

    def _plain(self, said: Prediction) -> Prediction:
        if said.values is None and said.proba is None and told(said).any():
            raise LearnerError(f"{self._learner.name} gives no probabilities, which members are weighed by")
        return said

    def _wide(self, said: Prediction) -> Floats:
        """Probabilities over the class table: a class that a member never saw has none."""
        wide = align(said, self._classes).proba
        return np.zeros((len(said), len(self._classes))) if wide is None else wide

    @staticmethod
    def _values(said: Prediction) -> Floats:
        assert said.values is not None
        return said.values

    def _mean(self, said: Sequence[Prediction], rows: Any) -> Prediction:
        regression = self.task == "regression"
        if not said:
            n = len(rows)
            if regression:
                return Prediction(values=np.full(n, np.nan))
            return Prediction(codes=np.full(n, ABSTAINED, dtype=np.int32))
        there = np.stack([told(one) for one in said])
        heard = np.where(there, self._weights[:, None], 0.0)
        mass = heard.sum(axis=0)
        none = mass <= 0
        heard = heard / np.where(none, 1.0, mass)
        if regression:
            values = np.stack([np.nan_to_num(self._values(one)) for one in said])
            return Prediction(values=np.where(none, np.nan, (heard * values).sum(axis=0)))
        mean = np.asarray(sum(part[:, None] * self._wide(one) for part, one in zip(heard, said, strict=True)))
        codes = np.where(none, ABSTAINED, mean.argmax(axis=1)).astype(np.int32)
        return Prediction(codes=codes, proba=mean, classes=self._classes)
