"""scikit-learn: any classifier, regressor or pipeline; ``partial_fit`` where it exists; forests that slide.

Results are those of a hand-written loop, bit for bit: the estimator is cloned, gets the labels as the user wrote
them, weights only if there are any, and always float64 (1.9.1's ``SGDClassifier.partial_fit`` fails when float64
follows float32).
"""

from __future__ import annotations

import io
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, Literal, Protocol, Self, final

import numpy as np
import sklearn
import skops
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.linear_model import PassiveAggressiveClassifier, Perceptron, SGDClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError, nearest
from perennial.core.features import Features, Kind, Schema
from perennial.core.identity import canonical
from perennial.core.protocols import LOCAL, Known, Serving, Trust
from perennial.core.records import ABSTAINED, Examples, Label, Prediction, TaskKind, class_array
from perennial.learners import trust as by_name
from perennial.learners.export import Files, as_json
from perennial.learners.memorising import memorises
from perennial.learners.saved import codec_of, join, pack, part, state_digest, state_size, unpack

View = Literal["frame", "arrow", "matrix"]

#: one-class rows that an untrained classifier holds until it hears of a second class; the newest are kept
WAITING_ROWS = 10_000

#: whose ``predict`` is, by its source, the class of the highest ``predict_proba``: asking once is enough
_ARGMAX = (
    RandomForestClassifier,
    ExtraTreesClassifier,
    DecisionTreeClassifier,
    ExtraTreeClassifier,
    BaggingClassifier,
    MLPClassifier,
)
_LINEAR = (SGDClassifier, Perceptron, PassiveAggressiveClassifier)
_COUNTING = (MultinomialNB, BernoulliNB, ComplementNB, CategoricalNB)
_BY_NAME = (ColumnTransformer, FunctionTransformer, FeatureUnion)
_FORESTS = (RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor)


def wrap(estimator: Any, *, view: View | None = None) -> SklearnLearner:
    """The learner for an estimator: its type says whether it can be updated or learns from unlabelled rows.

    An estimator can be updated if it has ``partial_fit``, without early stopping; a pipeline, if its last step can
    and every step before it either has ``partial_fit`` or needs no fitting at all.

    Raises
    ------
    ConfigError
        If it is neither a classifier nor a regressor, or the view is not known.
    """
    if view not in (None, "frame", "arrow", "matrix"):
        raise ConfigError("view", view, nearest(str(view), ["frame", "arrow", "matrix"]))
    if not (is_classifier(estimator) or is_regressor(estimator)):
        raise ConfigError("model", type(estimator).__qualname__, "give a classifier, a regressor or a pipeline of one")
    if _last(estimator).__class__.__module__.startswith("sklearn.semi_supervised."):
        return SemiSupervisedLearner(estimator, view)
    if _can_update(estimator):
        return UpdatableSklearn(estimator, view)
    return SklearnLearner(estimator, view)


class SklearnLearner:
    """A scikit-learn estimator that trains from scratch."""

    resumes = True

    def __init__(self, estimator: Any, view: View | None = None) -> None:
        self._estimator = clone(estimator)
        self._view = view
        self._model: Any = None
        self._table: tuple[Label, ...] | None = None  # the classes that integer labels stand for, when they do

    @property
    def name(self) -> str:
        """The estimator's class; for a pipeline, those of its steps."""
        return _name(self._estimator)

    @property
    def task(self) -> TaskKind:
        """What the estimator says it is."""
        return "classification" if is_classifier(self._estimator) else "regression"

    def memorises(self, *, untrained: bool) -> str | None:  # noqa: ARG002 - updated ones look at it
        """The part of the estimator that holds rows."""
        return memorises(self._estimator)

    def identity(self) -> str:
        """Class, parameters, view and versions."""
        parts = {"estimator": self._estimator, "view": self._view, "versions": _versions(self._estimator)}
        return canonical({"learner": "sklearn", **parts})

    def fit(self, examples: Examples, seed: int) -> Self:
        """A clone of the estimator, fitted; whatever ``random_state`` was left open is ``seed``.

        Raises
        ------
        LearnerError
            If weights are given and the estimator takes none, or it refuses a window with a single class.
        """
        model = clone(self._estimator)
        _seed(model, seed)
        new = self._new()
        y = new._labels(examples)
        try:
            model.fit(_rows(model, examples.features, self._view), y, **_weights(model, examples))
        except ValueError as error:
            if examples.codes is not None and len(only := np.unique(examples.codes[examples.codes >= 0])) == 1:
                raise LearnerError(
                    f"{self.name} cannot be fitted on {len(examples)} rows that all have the label "
                    f"{examples.classes[int(only[0])]!r}: widen the window"
                ) from error
            raise
        new._model = model
        return new

    def predict(self, features: Features) -> Prediction:
        """What the estimator's own ``predict`` and ``predict_proba`` say."""
        if self._model is None:
            raise LearnerError(f"{self.name} has not been fitted: predict with what fit returned")
        return self._said(lambda method: self._asked(method, features))

    def serving(self) -> Serving | None:
        """The estimator itself, asked in a matrix; None if it was fitted on a frame, or not at all."""
        model = self._model
        if model is None or self._view in ("frame", "arrow") or _wants_frame(model) or _knows_names(model):
            return None
        return lambda matrix: self._said(lambda method: np.asarray(getattr(model, method)(matrix)))

    def _said(self, ask: Callable[[str], NDArray[Any]]) -> Prediction:
        """What the estimator's methods give, as a prediction; ``ask`` calls one of them by name."""
        if self.task == "regression":
            return Prediction(values=ask("predict").astype(np.float64, copy=False).ravel())
        classes = self._classes()
        proba = None
        if hasattr(self._model, "predict_proba"):
            proba = ask("predict_proba").astype(np.float64, copy=False)
        if proba is not None and type(_last(self._model)) in _ARGMAX:
            codes = proba.argmax(axis=1)
        else:
            own = self._model.classes_
            order = np.argsort(own, kind="stable")
            codes = order[np.searchsorted(own, ask("predict"), sorter=order)]
        return Prediction(codes=codes.astype(np.int32), proba=proba, classes=classes)

    def save(self, trust: Trust = LOCAL) -> bytes:
        """A header and the fitted estimator: a pickle if ``trust`` is local, else by name, and loaded back to see.

        Raises
        ------
        LearnerError
            If it holds something that cannot be saved, or not in a form that ``trust`` covers.
        """
        return _saved(self, "sklearn", _versions(self._estimator), trust)

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """The learner that was saved; nothing is made of it before header and names have been checked."""
        new = self._new()
        _load_into(new, "sklearn", blob, _versions(self._estimator), trust)
        return new

    def exported(self, trust: Trust) -> Files:
        """The fitted estimator as skops writes it; a pickle where it must be one and ``trust`` allows it."""
        if self._model is None:
            raise LearnerError(f"{self.name} has not been fitted: export what fit returned")
        labels = "" if self._table is None else f"; its integer labels stand for {list(self._table)}"
        if codec_of(self.save(replace(trust, local=False, digest=None))) == "pickle":
            how = f"pickle.load, with scikit-learn {sklearn.__version__}"
            return Files(files={"model.pickle": pickle.dumps(self._model, protocol=5)}, readme=how + labels)
        content = by_name.dump(self._model)
        return Files(files={"model.skops": content}, readme=f"{by_name.opens(content)}.predict(rows){labels}")

    def known(self, model: Any, schema: Schema) -> Known:
        """Names and number of features, and classes, as the fitted estimator says them.

        Words are a pipeline's own business: it is given them as they are.

        Raises
        ------
        LearnerError
            If its steps have other names or classes than the configured estimator's, or it is not fitted.
        DataError
            If there are columns of words, and the estimator would be given their codes, which it never saw.
        """
        _refuse_other_steps(self._estimator, model)
        try:
            check_is_fitted(model)
        except NotFittedError as error:
            raise LearnerError(f"the {_name(model)} is not fitted: fit it before it is saved") from error
        if isinstance(self, UpdatableSklearn) and (lost := set(_open_seeds(self._estimator)) - set(model.get_params())):
            raise LearnerError(f"the model has no parameter {min(lost)}: configure the same steps inside it")
        if schema.categories and self._shows(model, schema) == "matrix":
            name = schema.names[schema.categories[0]]
            raise DataError(
                f"column {name!r} holds words, and {self.name} would be given codes for them that it never saw: adopt "
                "a pipeline with an encoder for it, or list the column under `drop`"
            )
        classes = getattr(model, "classes_", ()) if self.task == "classification" else ()
        names = getattr(model, "feature_names_in_", None)
        return Known(
            names=None if names is None else tuple(map(str, names)),
            width=getattr(model, "n_features_in_", None),
            classes=tuple(np.asarray(classes).tolist()),
        )

    def adopted(self, model: Any, classes: tuple[Label, ...]) -> Self:
        """The fitted estimator as a model of this learner.

        Raises
        ------
        LearnerError
            If other labels are given for its classes, and these are not the numbers 0, 1, ...
        """
        new = self._new()
        own = tuple(np.asarray(model.classes_).tolist()) if classes else ()
        if [(type(c), c) for c in own] != [(type(c), c) for c in classes]:
            if [(type(c), c) for c in own] != [(int, i) for i in range(len(classes))]:
                raise LearnerError(
                    f"{self.name} says {_few(own)}, and scikit-learn cannot be told that these are {_few(classes)}: "
                    "train it on the label column as it is, or on the numbers 0, 1, ..."
                )
            new._table = classes
        if self._view == "matrix" or (self._view is None and not _wants_frame(model)):
            _forget_names(model)
        new._model = model
        return new

    def digest(self) -> str:
        """Digest of the fitted attributes, random states included."""
        return state_digest(self._state())

    def size(self) -> int:
        """Bytes of the fitted attributes."""
        return state_size(self._state())

    def cautions(self, features: Features) -> tuple[str, ...]:
        """What a user should know of how this learner reads rows: category codes mean nothing to a linear model."""
        if _view(self._estimator, features, self._view) != "matrix" or not features.schema.categories:
            return ()
        if type(self._estimator).__module__.startswith(("sklearn.ensemble", "sklearn.tree")):
            return ()
        names = ", ".join(features.schema.names[j] for j in features.schema.categories)
        return (
            f"{self.name} reads the codes of category columns ({names}) as numbers, in order of first appearance: "
            "put an encoder for them in a pipeline",
        )

    def row_trees(self, rows: int) -> int:
        """Rows times trees for forests and boosting, 0 for everything without trees."""
        return 0 if self._model is None else rows * _trees(_last(self._model))

    def check(self, features: Features) -> None:
        """Refuse infinities always, and nulls unless the estimator or an imputer before it takes them."""
        if _view(self._estimator, features, self._view) == "matrix":
            _check_matrix(features, self.name, _takes_nulls(self._estimator))
        else:
            _check_columns(features, self.name, _takes_nulls(self._estimator))

    def _new(self) -> Self:
        return type(self)(self._estimator, self._view)

    def _shows(self, model: Any, schema: Schema) -> View:
        """The view of the rows that a model is given."""
        return _view(model, Features(schema, [], 0), self._view)

    def _state(self) -> dict[str, Any]:
        return {"model": self._model, "table": self._table}

    def _restore(self, state: dict[str, Any]) -> None:
        self._model, self._table = state["model"], state["table"]

    def _plain(self) -> tuple[dict[str, Any], list[bytes]]:
        """The state beside the estimator, as JSON and bytes."""
        return {"table": self._table}, []

    def _objects(self) -> Any:
        """The part of the state that is the framework's."""
        return self._model

    def _fill(self, objects: Any, plain: dict[str, Any], parts: list[bytes]) -> None:  # noqa: ARG002
        """Take what :meth:`_objects` and :meth:`_plain` gave."""
        self._model = objects
        self._table = None if plain["table"] is None else tuple(plain["table"])

    def _labels(self, examples: Examples) -> NDArray[Any]:
        """Labels as the user wrote them, or as integers where scikit-learn could not tell them apart or sort them."""
        coded = self._table is not None or _needs_codes(self._estimator, examples.classes)
        if examples.codes is None or not coded:
            return examples.y
        self._table = examples.classes
        return examples.codes.astype(np.int64)

    def _classes(self) -> tuple[Label, ...]:
        own = self._model.classes_.tolist()
        return tuple(own) if self._table is None else tuple(self._table[code] for code in own)

    def _asked(self, method: str, features: Features) -> NDArray[Any]:
        if not len(features):
            width = (len(self._model.classes_),) if method == "predict_proba" else ()
            kind = self._model.classes_.dtype if method == "predict" and self.task == "classification" else np.float64
            return np.empty((0, *width), dtype=kind)
        return np.asarray(getattr(self._model, method)(_rows(self._model, features, self._view)))


@final
class SemiSupervisedLearner(SklearnLearner):
    """A learner of :mod:`sklearn.semi_supervised`: rows without a label are part of what it learns from."""

    @property
    def wants_unlabelled(self) -> Literal[True]:
        """It takes rows whose code is -1."""
        return True


@final
class UpdatableSklearn(SklearnLearner):
    """A scikit-learn estimator that goes on by ``partial_fit``.

    **Classes that first appear later.** Linear models trained by gradient steps and naive Bayes grow: the former
    classes keep their state, and the new one starts from nothing (naive Bayes) or from a firm "no" (linear). Others
    cannot: they go on without the examples of classes they do not know, and ``notes`` says so until a fit from
    scratch learns them.

    **Before two classes are known**, an untrained classifier holds its rows (the newest 10,000) and predicts the one
    class it has heard of, or abstains.
    """

    def __init__(self, estimator: Any, view: View | None = None) -> None:
        super().__init__(estimator, view)
        self._waiting: tuple[Any, NDArray[Any], NDArray[np.float64] | None] | None = None
        self._only: tuple[Label, ...] = ()
        self._ignored: dict[Label, int] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know: examples of classes that this model cannot take in."""
        return tuple(
            f"{self.name} ignored {count} examples of class {label!r}, which appeared after it was first trained"
            for label, count in self._ignored.items()
        )

    def memorises(self, *, untrained: bool) -> str | None:
        """The part of the estimator that holds rows; an untrained classifier does until it knows two classes."""
        if untrained and self.task == "classification":
            return f"{self.name} holds rows until it has heard of a second class: give an `initial` period"
        return super().memorises(untrained=untrained)

    def begin(self) -> Self:
        """An untrained model: its first update is its first training."""
        return self._new()

    def update(self, examples: Examples, seed: int) -> None:
        """One ``partial_fit``; in a pipeline, each step learns the batch and then passes it on."""
        if not len(examples):
            return
        y = self._labels(examples)
        rows = _rows(self._estimator, examples.features, self._view)
        if self._model is None and examples.codes is not None:
            joined = _joined(self._waiting, (rows, y, examples.weights))
            self._only = tuple(dict.fromkeys([*self._only, *(examples.classes[c] for c in np.unique(examples.codes))]))
            if len(self._only) < 2:
                self._waiting = joined
                return
            rows, y, weights = joined
            self._waiting = None
        else:
            weights = examples.weights
        if self._model is not None and self.task == "classification":
            rows, y, weights = self._known(rows, y, weights)
        if len(y):
            self._learn(rows, y, weights, seed)

    def predict(self, features: Features) -> Prediction:
        """What the model says; before it has been trained, the one class it has heard of, or nothing."""
        if self._model is not None:
            return super().predict(features)
        n = len(features)
        if self.task == "regression":
            return Prediction(values=np.full(n, np.nan))
        if not self._only:
            return Prediction(codes=np.full(n, ABSTAINED, dtype=np.int32))
        proba = np.ones((n, 1)) if hasattr(self._estimator, "predict_proba") else None
        return Prediction(codes=np.zeros(n, dtype=np.int32), proba=proba, classes=self._only)

    def _learn(self, rows: Any, y: NDArray[Any], weights: NDArray[np.float64] | None, seed: int) -> None:
        first = self._model is None
        if first:
            self._model = clone(self._estimator)
        model = self._model
        # open random states are seeded anew for each update: what a resumed model does then depends on no history
        model.set_params(**dict.fromkeys(_open_seeds(self._estimator), seed))
        for step in _steps(model):
            if hasattr(step, "partial_fit"):
                step.partial_fit(rows)
            rows = step.transform(rows)
        last = _last(model)
        extra: dict[str, Any] = {}
        if weights is not None:
            _require_weights(last, "partial_fit")
            extra["sample_weight"] = weights
        if first and self.task == "classification":
            extra["classes"] = np.unique(y)
        last.partial_fit(rows, y, **extra)

    def _known(
        self, rows: Any, y: NDArray[Any], weights: NDArray[np.float64] | None
    ) -> tuple[Any, NDArray[Any], NDArray[np.float64] | None]:
        """The batch without what the model cannot learn, after growing the model where it can."""
        last = _last(self._model)
        new = np.setdiff1d(y, last.classes_)
        if not len(new) or _grow(last, new):
            return rows, y, weights
        for value, count in zip(*np.unique(y[np.isin(y, new)], return_counts=True), strict=True):
            label = value.item() if self._table is None else self._table[int(value)]
            self._ignored[label] = self._ignored.get(label, 0) + int(count)
        keep = np.flatnonzero(~np.isin(y, new))
        return _taken(rows, keep), y[keep], None if weights is None else weights[keep]

    def _state(self) -> dict[str, Any]:
        held = {"waiting": self._waiting, "only": self._only, "ignored": self._ignored}
        return {**super()._state(), **held}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self._waiting, self._only, self._ignored = state["waiting"], state["only"], state["ignored"]

    def _plain(self) -> tuple[dict[str, Any], list[bytes]]:
        plain, parts = super()._plain()
        plain |= {"only": self._only, "ignored": list(self._ignored.items()), "waiting": None}
        if self._waiting is not None:
            rows, y, weights = self._waiting
            plain["waiting"] = _view_of(rows)
            parts = [_packed(rows), _packed(y), *([] if weights is None else [_packed(weights)])]
        return plain, parts

    def _fill(self, objects: Any, plain: dict[str, Any], parts: list[bytes]) -> None:
        super()._fill(objects, plain, parts)
        self._only = tuple(plain["only"])
        self._ignored = dict(plain["ignored"])
        if plain["waiting"] is not None:
            weights = _unpacked(parts[2], "matrix") if len(parts) > 2 else None
            self._waiting = _unpacked(parts[0], plain["waiting"]), _unpacked(parts[1], "matrix"), weights


@final
class SlidingForest:
    """Small forests, one per update, each weighed by how it did on the newest labels.

    The first fit is the estimator as the user built it; each update adds a forest of ``trees`` trees that has seen
    only the new batch. Before it does, the former members predict that batch, and member i then weighs
    ``1 / loss_i ** 2``, with Brier score or mean squared error as the loss; the newcomer, which has no record yet,
    weighs as much as the best. When there are more than ``size`` members, the one with the highest loss goes, or the
    oldest; never the newcomer.

    Members are aligned by class: one whose batch lacked a class gives it probability 0.

    References
    ----------
    Wang, Fan, Yu and Han (2003), Mining concept-drifting data streams using ensemble classifiers, and Brzezinski and
    Stefanowski (2014), for weighing by the newest batch; here with the inverse square of the loss.
    """

    resumes = True

    def __init__(
        self, estimator: Any, *, trees: int = 10, size: int = 10, drop: Literal["worst", "oldest"] = "worst"
    ) -> None:
        if not isinstance(estimator, _FORESTS):
            need = "give a RandomForest or ExtraTrees classifier or regressor"
            raise ConfigError("estimator", type(estimator).__qualname__, need)
        for field, number in (("trees", trees), ("size", size)):
            if number < 1:
                raise ConfigError(field, number, "give at least 1")
        if drop not in ("worst", "oldest"):
            raise ConfigError("drop", drop, nearest(str(drop), ["worst", "oldest"]))
        self._estimator = clone(estimator)
        self._trees, self._size, self._drop = trees, size, drop
        self._members: list[Any] = []
        self._weights = np.empty(0)
        self._classes: tuple[Label, ...] = ()
        self._last = 0  # trees that the last training built

    @property
    def name(self) -> str:
        """``SlidingForest(...)`` of the estimator's class."""
        return f"SlidingForest({type(self._estimator).__name__})"

    @property
    def task(self) -> TaskKind:
        """What the estimator says it is."""
        return "classification" if is_classifier(self._estimator) else "regression"

    def identity(self) -> str:
        """The estimator, the settings and versions."""
        settings = {"trees": self._trees, "size": self._size, "drop": self._drop}
        return canonical({"learner": "SlidingForest", "estimator": self._estimator, **settings, **_versions(None)})

    def begin(self) -> Self:
        """No forest yet: classification abstains and regression says NaN until the first update."""
        return type(self)(self._estimator, trees=self._trees, size=self._size, drop=self._drop)

    def fit(self, examples: Examples, seed: int) -> Self:
        """One forest with the estimator's own number of trees, as the only member."""
        new = self.begin()
        new._join(examples, seed, self._estimator.n_estimators)
        return new

    def update(self, examples: Examples, seed: int) -> None:
        """Weigh the members by this batch, then add a forest that learned it."""
        if len(examples):
            self._join(examples, seed, self._trees)

    def predict(self, features: Features) -> Prediction:
        """Weighted mean of the members' probabilities or values."""
        return self._answer(features.matrix())

    def serving(self) -> Serving | None:
        """The forests, asked in a matrix."""
        return self._answer

    def _answer(self, matrix: NDArray[np.float64]) -> Prediction:
        n = len(matrix)
        if not self._members:
            if self.task == "regression":
                return Prediction(values=np.full(n, np.nan))
            return Prediction(codes=np.full(n, ABSTAINED, dtype=np.int32))
        said = sum(
            weight * self._said(member, matrix, len(self._classes))
            for weight, member in zip(self._weights, self._members, strict=True)
        )
        if self.task == "regression":
            return Prediction(values=np.asarray(said)[:, 0])
        proba = np.asarray(said)
        return Prediction(codes=proba.argmax(axis=1).astype(np.int32), proba=proba, classes=self._classes)

    def save(self, trust: Trust = LOCAL) -> bytes:
        """A header and the members: a pickle if ``trust`` is local, else by name, and loaded back to see."""
        return _saved(self, "SlidingForest", _versions(None), trust)

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """The forests that were saved; nothing is made of them before header and names have been checked."""
        new = self.begin()
        _load_into(new, "SlidingForest", blob, _versions(None), trust)
        return new

    def exported(self, trust: Trust) -> Files:
        """Each forest as skops writes it, and how they are put together as JSON."""
        if not self._members:
            raise LearnerError(f"{self.name} has no forest to export yet: update it first")
        self.save(replace(trust, local=False, digest=None))  # seen to come back
        names = [f"forest-{i}.skops" for i in range(1, len(self._members) + 1)]
        weights = dict(zip(names, self._weights.tolist(), strict=True))
        facts = {"task": self.task, "classes": self._classes, "weights": weights}
        files = {name: by_name.dump(member) for name, member in zip(names, self._members, strict=True)}
        asked = "predict" if self.task == "regression" else "predict_proba; its classes_ are places in classes"
        readme = (
            f"the sum over forests of weight * what it says ({asked}), in ensemble.json. Each forest: "
            f"{by_name.opens(files[names[0]])}"
        )
        return Files(files={"ensemble.json": as_json(facts), **files}, readme=readme)

    def digest(self) -> str:
        """Digest of members, weights and classes."""
        return state_digest(*self._state())

    def size(self) -> int:
        """Bytes of members, weights and classes."""
        return state_size(*self._state())

    def row_trees(self, rows: int) -> int:
        """Rows times the trees that the last training built."""
        return rows * self._last

    def check(self, features: Features) -> None:
        """Refuse infinities, and nulls if the trees do."""
        _check_matrix(features, self.name, _takes_nulls(self._estimator))

    def _state(self) -> tuple[list[Any], NDArray[np.float64], tuple[Label, ...], int]:
        return self._members, self._weights, self._classes, self._last

    def _restore(self, state: tuple[list[Any], NDArray[np.float64], tuple[Label, ...], int]) -> None:
        self._members, self._weights, self._classes, self._last = state

    def _plain(self) -> tuple[dict[str, Any], list[bytes]]:
        return {"classes": self._classes, "last": self._last}, [_packed(self._weights)]

    def _objects(self) -> Any:
        return self._members

    def _fill(self, objects: Any, plain: dict[str, Any], parts: list[bytes]) -> None:
        self._restore((objects, _unpacked(parts[0], "matrix"), tuple(plain["classes"]), plain["last"]))

    def _join(self, examples: Examples, seed: int, trees: int) -> None:
        if examples.codes is not None:
            self._classes = examples.classes
        losses = np.array([self._loss(member, examples) for member in self._members])
        member = clone(self._estimator).set_params(n_estimators=trees)
        _seed(member, seed)
        y = examples.values if examples.codes is None else examples.codes
        member.fit(examples.features.matrix(), y, **_weights(member, examples))
        members = [*self._members, member]
        losses = np.append(losses, losses.min() if len(losses) else 1.0)
        while len(members) > self._size:
            out = int(losses[:-1].argmax()) if self._drop == "worst" and self._size > 1 else 0
            members.pop(out)
            losses = np.delete(losses, out)
        raw = 1.0 / np.square(np.maximum(losses, 1e-6 * max(float(losses.max()), 1e-12)))
        self._members, self._weights, self._last = members, raw / raw.sum(), trees

    def _loss(self, member: Any, examples: Examples) -> float:
        said = self._said(member, examples.features.matrix(), len(examples.classes))
        if examples.codes is None:
            assert examples.values is not None
            truth = examples.values[:, None]
        else:
            truth = np.eye(len(examples.classes))[examples.codes]
        return float(np.average(np.square(said - truth).sum(axis=1), weights=examples.weights))

    def _said(self, member: Any, X: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
        """A member's probabilities over the class table, or its values, shape (n, classes or 1)."""
        if self.task == "regression":
            values = member.predict(X) if len(X) else np.empty(0)
            return np.asarray(values, dtype=np.float64)[:, None]
        out = np.zeros((len(X), classes))
        if len(X):
            out[:, member.classes_] = member.predict_proba(X)
        return out


# How a learner is saved


class _Kept(Protocol):
    """A learner of this module, for the two ways in which it is saved."""

    @property
    def name(self) -> str: ...
    def digest(self) -> str: ...
    def load(self, blob: bytes, trust: Trust = ...) -> Self: ...
    def _state(self) -> Any: ...
    def _restore(self, state: Any) -> None: ...
    def _plain(self) -> tuple[dict[str, Any], list[bytes]]: ...
    def _objects(self) -> Any: ...
    def _fill(self, objects: Any, plain: dict[str, Any], parts: list[bytes]) -> None: ...


def _saved(learner: _Kept, kind: str, versions: dict[str, str], trust: Trust) -> bytes:
    if trust.local:
        return pack(kind, _pickled(learner), versions, "pickle")
    try:
        return _by_name(learner, kind, versions, trust)
    except LearnerError:
        if not trust.pickle:
            raise
    return pack(kind, _pickled(learner), versions, "pickle")


def _pickled(learner: _Kept) -> bytes:
    try:
        return pickle.dumps(learner._state(), protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise LearnerError(
            f"{learner.name} cannot be saved: {error}. Functions inside it must be defined in a module, not as a "
            "lambda or inside another function"
        ) from error


def _by_name(learner: _Kept, kind: str, versions: dict[str, str], trust: Trust) -> bytes:
    """The learner without pickle, once it has been loaded back and holds what it held."""
    plain, parts = learner._plain()
    try:
        blob = pack(kind, join(plain, [by_name.dump(learner._objects()), *parts]), _with_skops(versions), "skops")
        back = learner.load(blob, replace(trust, digest=None))
    except (FormatError, TypeError, ValueError, AttributeError) as error:
        raise LearnerError(
            f"{learner.name} cannot be saved without pickle: {error}. Or allow pickles, which run code as they are "
            "loaded, with `serialisation: {pickle: true}`"
        ) from error
    if back.digest() != learner.digest():
        raise LearnerError(
            f"{learner.name} cannot be saved without pickle: what was loaded back is not what was saved. Allow "
            "pickles, which run code as they are loaded, with `serialisation: {pickle: true}`"
        )
    return blob


def _load_into(new: _Kept, kind: str, blob: bytes, versions: dict[str, str], trust: Trust) -> None:
    codec = codec_of(blob)
    needed = _with_skops(versions) if codec == "skops" else versions
    codec, payload = unpack(kind, blob, needed, trust, ("skops", "pickle"))
    if codec == "skops":
        plain, (objects, *parts) = part(payload)
        new._fill(by_name.load(objects, trust), plain, parts)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        new._restore(pickle.loads(payload))


def _with_skops(versions: dict[str, str]) -> dict[str, str]:
    return {**versions, "skops": skops.__version__}


def _view_of(rows: Any) -> str:
    if isinstance(rows, np.ndarray):
        return "matrix"
    if hasattr(rows, "schema"):
        return "arrow"
    return "frame" if rows.ndim == 2 else "series"


def _packed(rows: Any) -> bytes:
    """Rows as numpy or Arrow writes them; an array of objects is refused."""
    out = io.BytesIO()
    if isinstance(rows, np.ndarray):
        np.save(out, rows, allow_pickle=False)
        return out.getvalue()
    import pyarrow as pa

    view = _view_of(rows)
    table = rows if view == "arrow" else pa.Table.from_pandas(rows if view == "frame" else rows.to_frame())
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def _unpacked(data: bytes, view: str) -> Any:
    if view == "matrix":
        return np.load(io.BytesIO(data), allow_pickle=False)
    import pyarrow as pa

    table = pa.ipc.open_stream(data).read_all()
    if view == "arrow":
        return table
    frame = table.to_pandas()
    return frame if view == "frame" else frame.iloc[:, 0]


# What an estimator is, needs and holds


def _name(estimator: Any) -> str:
    if isinstance(estimator, Pipeline):
        return " | ".join(_name(step) for _, step in estimator.steps if step not in (None, "passthrough"))
    return type(estimator).__name__


def _steps(estimator: Any) -> Iterator[Any]:
    """The transformers of a pipeline, nested ones in their place."""
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            if step not in (None, "passthrough"):
                yield step
        yield from _steps(estimator.steps[-1][1])


def _last(estimator: Any) -> Any:
    """The estimator at the end of a pipeline."""
    return _last(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def _can_update(estimator: Any) -> bool:
    last = _last(estimator)
    goes_on = hasattr(last, "partial_fit") and not getattr(last, "early_stopping", False)
    balanced = getattr(last, "class_weight", None) == "balanced"  # partial_fit refuses it: it needs all labels first
    return (
        goes_on
        and not balanced
        and all(hasattr(step, "partial_fit") or not get_tags(step).requires_fit for step in _steps(estimator))
    )


def _versions(estimator: Any) -> dict[str, str]:
    """Versions of scikit-learn, numpy and every other framework that is nested inside."""
    found = {"sklearn": sklearn.__version__, "numpy": np.__version__}
    nested = [estimator, *estimator.get_params(deep=True).values()] if estimator is not None else []
    for thing in nested:
        top = type(thing).__module__.partition(".")[0]
        version = getattr(sys.modules.get(top), "__version__", None)
        if hasattr(thing, "get_params") and isinstance(version, str):
            found[top] = version
    return found


def _open_seeds(estimator: Any) -> list[str]:
    params = estimator.get_params(deep=True)
    return sorted(k for k, v in params.items() if v is None and k.rpartition("__")[2] == "random_state")


def _seed(model: Any, seed: int) -> None:
    """Close every random state that the user left open, in nested estimators and cross-validation splitters too."""
    model.set_params(**dict.fromkeys(_open_seeds(model), seed))
    for value in model.get_params(deep=True).values():
        open_splitter = hasattr(value, "split") and getattr(value, "random_state", 0) is None
        if open_splitter and getattr(value, "shuffle", True):
            value.random_state = seed


def _needs_codes(estimator: Any, classes: tuple[Label, ...]) -> bool:
    kept = class_array(classes)
    fractions = kept.dtype.kind == "f" and bool((kept != np.floor(kept)).any())
    semi = type(_last(estimator)).__module__.startswith("sklearn.semi_supervised.")  # -1 means no label there
    return kept.dtype.kind == "O" or fractions or semi


def _weight_key(estimator: Any) -> str | None:
    """The keyword by which ``fit`` takes weights, routed to the last step; None if it takes none."""
    if isinstance(estimator, Pipeline):
        name, step = estimator.steps[-1]
        inner = _weight_key(step)
        return inner and f"{name}__{inner}"
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        return _weight_key(estimator.estimator)
    return "sample_weight" if has_fit_parameter(estimator, "sample_weight") else None


def _weights(model: Any, examples: Examples) -> dict[str, Any]:
    if examples.weights is None:
        return {}
    key = _weight_key(model)
    if key is None:
        raise _no_weights(model)
    return {key: examples.weights}


def _require_weights(last: Any, method: str) -> None:
    if "sample_weight" not in signature(getattr(last, method)).parameters:
        raise _no_weights(last)


def _no_weights(model: Any) -> LearnerError:
    return LearnerError(
        f"{_name(model)} takes no sample weights: drop the weight column and decaying windows, or take an estimator "
        "whose fit has sample_weight"
    )


def _trees(model: Any) -> int:
    """Trees of a fitted model, counting one per class and round for boosting; 0 if it has none."""
    if hasattr(model, "booster_"):
        return int(model.booster_.num_trees())  # LightGBM
    if hasattr(model, "get_booster"):  # XGBoost
        return int(model.get_booster().num_boosted_rounds()) * max(1, _outputs(model))
    if getattr(model, "tree_count_", None):
        return int(model.tree_count_)  # CatBoost
    if hasattr(model, "n_trees_per_iteration_") and hasattr(model, "n_iter_"):
        return int(model.n_iter_) * int(model.n_trees_per_iteration_)
    if hasattr(model, "tree_"):
        return 1
    members = getattr(model, "estimators_", None)
    if members is None:
        return _trees(model.best_estimator_) if hasattr(model, "best_estimator_") else 0
    return sum(_trees(_last(member)) for member in np.asarray(members, dtype=object).ravel())


def _outputs(model: Any) -> int:
    classes = len(getattr(model, "classes_", ()))
    return classes if classes > 2 else 1


# Estimators that were fitted elsewhere


def _refuse_other_steps(wanted: Any, model: Any) -> None:
    """Raise ``LearnerError`` unless both are of the same class, and of a pipeline all steps with their names."""
    if type(wanted) is not type(model):
        raise LearnerError(
            f"the model is {_name(model) if hasattr(model, 'get_params') else type(model).__qualname__}, and the "
            f"configured `model` is {_name(wanted)}: configure the class that is to be adopted"
        )
    if not isinstance(wanted, Pipeline):
        return
    mine, theirs = [name for name, _ in wanted.steps], [name for name, _ in model.steps]
    if mine != theirs:
        raise LearnerError(
            f"the steps of the configured pipeline are {', '.join(mine)}, and the model's are {', '.join(theirs)}: "
            "build both by the same function"
        )
    for (_, one), (_, other) in zip(wanted.steps, model.steps, strict=True):
        _refuse_other_steps(one, other)


def _forget_names(model: Any) -> None:
    """Take column names away from an estimator and all inside it, which are given matrices and would warn of them."""
    stack, seen = [model], set()
    while stack:
        thing = stack.pop()
        if isinstance(thing, dict):
            stack += thing.values()
        elif isinstance(thing, list | tuple):
            stack += thing
        elif isinstance(thing, np.ndarray) and thing.dtype.hasobject:
            stack += thing.ravel().tolist()
        elif hasattr(thing, "get_params") and hasattr(thing, "__dict__") and id(thing) not in seen:
            seen.add(id(thing))
            vars(thing).pop("feature_names_in_", None)
            stack += vars(thing).values()


def _few(values: Sequence[Any], most: int = 4) -> str:
    return ", ".join(map(repr, values[:most])) + (", ..." if len(values) > most else "")


# Rows as an estimator wants them


def _wants_frame(estimator: Any) -> bool:
    """Whether it may pick columns by name: a column transformer or the user's own function stands first."""
    if isinstance(estimator, Pipeline):
        return _wants_frame(estimator.steps[0][1])
    if isinstance(estimator, TransformedTargetRegressor):
        return _wants_frame(estimator.regressor)
    if isinstance(estimator, _BY_NAME):
        return True
    inner = [getattr(estimator, "estimator", None), *(e for _, e in getattr(estimator, "estimators", None) or ())]
    return any(_wants_frame(e) for e in inner if hasattr(e, "get_params"))


def _knows_names(model: Any) -> bool:
    """Whether it was fitted on a frame, and so would be asked in one; a pipeline says what its first step knows."""
    return hasattr(model, "feature_names_in_")


def _view(estimator: Any, features: Features, view: View | None) -> View:
    if view is not None:
        return view
    kinds = {column.kind for column in features.schema.columns}
    if _wants_frame(estimator) or (kinds & {Kind.TEXT, Kind.OTHER} and not _bare(estimator)):
        return "frame"
    return "frame" if Kind.CATEGORY in kinds and isinstance(estimator, Pipeline) else "matrix"


def _bare(estimator: Any) -> bool:
    """Whether it is scikit-learn's own and has nothing inside that could read words."""
    inside = any(hasattr(value, "fit") for value in estimator.get_params(deep=True).values())
    return type(estimator).__module__.startswith("sklearn.") and not inside


def _rows(estimator: Any, features: Features, view: View | None) -> Any:
    match _view(estimator, features, view):
        case "matrix":
            return features.matrix()
        case "arrow":
            return features.arrow()
    frame = features.frame()
    first = next(_steps(estimator), estimator)
    tags = get_tags(first).input_tags
    if tags.string and not tags.two_d_array:  # a text vectoriser reads one column of strings
        if frame.shape[1] != 1:
            raise LearnerError(
                f"{type(first).__name__} reads one column of text and there are {frame.shape[1]} columns: "
                "name its column in a ColumnTransformer"
            )
        return frame.iloc[:, 0]
    return frame


def _joined(
    before: tuple[Any, NDArray[Any], NDArray[np.float64] | None] | None,
    batch: tuple[Any, NDArray[Any], NDArray[np.float64] | None],
) -> tuple[Any, NDArray[Any], NDArray[np.float64] | None]:
    """Waiting rows and new ones, the newest ``WAITING_ROWS`` of them."""
    rows, y, weights = batch
    if before is not None:
        held, labels, held_weights = before
        if weights is not None or held_weights is not None:
            ones = [np.ones(len(part)) if w is None else w for part, w in ((labels, held_weights), (y, weights))]
            weights = np.concatenate(ones)
        rows, y = _stacked(held, rows), np.concatenate([labels, y])
    keep = np.arange(max(len(y) - WAITING_ROWS, 0), len(y))
    return _taken(rows, keep), y[keep], None if weights is None else weights[keep]


def _stacked(first: Any, second: Any) -> Any:
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second])
    if hasattr(first, "schema"):
        import pyarrow as pa

        return pa.concat_tables([first, second])
    import pandas as pd

    return pd.concat([first, second], ignore_index=True)


def _taken(rows: Any, keep: NDArray[np.intp]) -> Any:
    if isinstance(rows, np.ndarray):
        return rows[keep]
    return rows.take(keep) if hasattr(rows, "schema") else rows.iloc[keep].reset_index(drop=True)


# Values that an estimator refuses


def _takes_nulls(estimator: Any) -> bool:
    """Whether nulls may reach it; a step that treats columns apart is left to judge for itself."""
    for step in _steps(estimator):
        if type(step).__module__.startswith("sklearn.impute.") or isinstance(step, _BY_NAME):
            return True
        if not get_tags(step).input_tags.allow_nan:
            return False
    last = _last(estimator)
    inner = getattr(last, "estimator", None)
    return _takes_nulls(inner) if isinstance(inner, Pipeline) else bool(get_tags(last).input_tags.allow_nan)


def _check_matrix(features: Features, name: str, nulls: bool) -> None:
    X = features.matrix()
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(X.sum()):  # one quick pass settles the usual case
            return
    for j, column in enumerate(features.names):
        _check_values(X[:, j], column, name, nulls)


def _check_columns(features: Features, name: str, nulls: bool) -> None:
    table = features.arrow() if len(features) else None
    for j, column in enumerate(features.schema.columns):
        if table is None or column.kind is not Kind.NUMBER:
            continue
        values = table.column(j)
        if values.null_count or str(values.type) in ("double", "float", "halffloat"):
            filled = np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
            _check_values(filled, column.name, name, nulls)


def _check_values(values: NDArray[np.float64], column: str, name: str, nulls: bool) -> None:
    if infinite := int(np.isinf(values).sum()):
        raise DataError(
            f"column {column!r} holds {infinite} infinite values in {len(values)} rows, which {name} refuses: "
            "clip them in `features`, or write them as nulls and impute"
        )
    if not nulls and (missing := int(np.isnan(values).sum())):
        raise DataError(
            f"column {column!r} holds {missing} nulls in {len(values)} rows, which {name} refuses: "
            "put SimpleImputer() before it in a pipeline, or drop the column"
        )


# Classes that first appear later


def _grow(model: Any, new: NDArray[Any]) -> bool:
    """Make room for new classes, leaving the state of the former ones as it is; False if the model cannot."""
    if isinstance(model, _LINEAR):
        _grow_linear(model, *_places(model, new))
    elif isinstance(model, GaussianNB) and model.priors is None:
        # a class without rows so far: its mean and variance are set by the rows that follow in this update
        _insert(model, *_places(model, new), ("theta_", "var_", "class_count_", "class_prior_"))
    elif isinstance(model, _COUNTING) and model.class_prior is None:
        where, classes = _places(model, new)
        if isinstance(model, CategoricalNB):
            model.category_count_ = [_spread(counts, where, len(classes), 0.0) for counts in model.category_count_]
            _insert(model, where, classes, ("class_count_",))
        else:
            _insert(model, where, classes, ("class_count_", "feature_count_"))
    else:
        return False
    return True


def _places(model: Any, new: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Where the former classes stand among all of them in order, and all of them."""
    classes = np.union1d(model.classes_, new)
    return np.searchsorted(classes, model.classes_), classes


def _spread(values: NDArray[Any], where: NDArray[np.intp], size: int, fill: float) -> NDArray[Any]:
    out = np.full((size, *values.shape[1:]), fill, dtype=values.dtype)
    out[where] = values
    return out


def _insert(model: Any, where: NDArray[np.intp], classes: NDArray[Any], names: tuple[str, ...]) -> None:
    for name in names:
        setattr(model, name, _spread(getattr(model, name), where, len(classes), 0.0))
    model.classes_ = classes


def _grow_linear(model: Any, where: NDArray[np.intp], classes: NDArray[Any]) -> None:
    # one score against the rest for each class: with two classes there was one for both, s for the second, so the
    # first gets -s. A new class has said "no" to every row so far: the margin, or the log odds of never in t rows
    no = -np.log(model.t_ + 1.0) if getattr(model, "loss", "") == "log_loss" else -1.0
    two = len(where) == 2
    for stem in ("coef", "intercept"):
        for name in (f"{stem}_", f"_standard_{stem}", f"_average_{stem}"):
            old = getattr(model, name, None)
            if old is None:
                continue
            if two:
                old = np.stack([-old.ravel(), old.ravel()]) if stem == "coef" else np.concatenate([-old, old])
            setattr(model, name, np.ascontiguousarray(_spread(old, where, len(classes), no * (stem == "intercept"))))
    model.classes_ = classes
