"""What holds of a learner that is made of other learners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import LearnerError
from perennial.core.features import Features
from perennial.core.protocols import Learner, Memorises, Pickled, Servable, Serving, Sized, Trust
from perennial.core.records import ABSTAINED, Examples, Prediction, TaskKind
from perennial.learners.export import Exportable, Files
from perennial.learners.saved import Codec, codec_of, within

CODECS: tuple[Codec, ...] = ("native", "skops", "pickle")  #: of what is inside, from the safest on


class Around(ABC):
    """A learner around others; nothing here learns."""

    @abstractmethod
    def _inside(self) -> Sequence[Learner]:
        """The learners inside, at least one: of a template the templates, of a model the models."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for reports."""

    @property
    def task(self) -> TaskKind:
        """That of what is inside."""
        return self._inside()[0].task

    @property
    def resumes(self) -> bool:
        """Whether all inside do."""
        return all(one.resumes for one in self._inside())

    @property
    def needs_pickle(self) -> bool:
        """Whether one inside does."""
        return any(isinstance(one, Pickled) and one.needs_pickle for one in self._inside())

    def memorises(self, *, untrained: bool) -> str | None:
        """What the first one inside says that holds rows."""
        told = (one.memorises(untrained=untrained) for one in self._inside() if isinstance(one, Memorises))
        return next((what for what in told if what is not None), None)

    def check(self, features: Features) -> None:
        """Refuse what one inside refuses."""
        for one in self._inside():
            one.check(features)

    def size(self) -> int:
        """Bytes of the states inside; raises ``LearnerError`` if one does not say."""
        total = 0
        for one in self._inside():
            if not isinstance(one, Sized):
                raise LearnerError(f"{one.name} does not say how large it is: leave out the gate's largest_bytes")
            total += one.size()
        return total


class AroundOne(Around):
    """A learner around a single other one, whose model it asks as it is."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._model: Learner | None = None

    def _inside(self) -> Sequence[Learner]:
        return [self._learner if self._model is None else self._model]

    def _trained(self) -> Learner:
        if self._model is None:
            raise LearnerError(f"{self.name} was not fitted: call fit")
        return self._model

    def predict(self, features: Features) -> Prediction:
        """What the model inside says."""
        return self._trained().predict(features)

    def serving(self) -> Serving | None:
        """The quickest form of the model inside."""
        model = self._trained()
        return model.serving() if isinstance(model, Servable) else None

    def exported(self, trust: Trust) -> Files:
        """The files of the model inside."""
        model = self._trained()
        if not isinstance(model, Exportable):
            raise LearnerError(f"{model.name} has no plain form: its type has no method `exported`")
        return model.exported(trust)


def saved(models: Sequence[Learner], trust: Trust) -> tuple[list[bytes], Codec]:
    """Each model as it saves itself, and the codec of all together: that of the least safe."""
    blobs = [model.save(trust) for model in models]
    return blobs, max((codec_of(blob) or "native" for blob in blobs), key=CODECS.index, default="native")


def loaded(template: Learner, blob: bytes, trust: Trust) -> Learner:
    """A model inside another that was checked."""
    return template.load(blob, within(trust, blob))


def per_row(models: Sequence[Learner], rows: int) -> int:
    """Rows times trees of all together."""
    return sum(model.row_trees(rows) for model in models)


def joined(several: Sequence[Examples]) -> Examples:
    """The examples of several batches of one stream, one after the other: the newest class table has all classes."""
    last = several[-1]
    if len(several) == 1:
        return last
    weighted = any(one.weights is not None for one in several)
    grouped = all(one.groups is not None for one in several)
    return Examples(
        features=Features.join(last.features.schema, [one.features for one in several]),
        rows=np.concatenate([one.rows for one in several]),
        time=np.concatenate([one.time for one in several]),
        codes=None if last.codes is None else np.concatenate([one.codes for one in several if one.codes is not None]),
        classes=last.classes,
        values=None if last.values is None else np.concatenate([v.values for v in several if v.values is not None]),
        weights=np.concatenate([np.ones(len(v)) if v.weights is None else v.weights for v in several])
        if weighted
        else None,
        groups=np.concatenate([one.groups for one in several if one.groups is not None]) if grouped else None,
    )


def told(said: Prediction) -> NDArray[np.bool_]:
    """Which rows were answered, shape (n,)."""
    if said.values is not None:
        return np.asarray(~np.isnan(said.values))
    assert said.codes is not None
    return np.asarray(said.codes != ABSTAINED)
