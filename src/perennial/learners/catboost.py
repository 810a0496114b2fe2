"""CatBoost: stateless retraining as its own ``fit`` does it, and three ways to update.

This module imports CatBoost: load it through the registry, which does so only when a CatBoost estimator is used.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, final

import catboost as cb
import numpy as np

from perennial.core.errors import ConfigError, DataError, LearnerError
from perennial.core.features import Features, Schema
from perennial.core.protocols import Known
from perennial.core.records import Examples, Label, TaskKind
from perennial.learners import boosting
from perennial.learners.boosting import Boosted, Decay, Decayed, Floats, Growth, LeafRefit, Leaves, Stopping, Target

_THREADS = ("thread_count",)
_SEEDS = ("random_seed", "random_state")
_QUIET = ("verbose", "logging_level", "silent", "verbose_eval")
_LOSS = ("loss_function", "objective")
_ROUNDS = ("iterations", "n_estimators", "num_boost_round", "num_trees")
_DEPTH = ("depth", "max_depth")
_LEAVES = ("max_leaves", "num_leaves")
_L2 = ("l2_leaf_reg", "reg_lambda")
_RATE = ("learning_rate", "eta")
_UPDATES = {
    "classification": frozenset({None, "Logloss", "MultiClass"}),
    "regression": frozenset({None, "RMSE"}),
}
#: a null in a category column, which CatBoost refuses as such
_NULL = "nan"


def wrap(estimator: object) -> Boosted:
    """The stateless learner for a ``CatBoostClassifier`` or ``CatBoostRegressor``.

    With category columns (or the estimator's own ``cat_features``) rows are a frame whose categories are strings, a
    null being ``"nan"``; else a float64 matrix.

    Raises
    ------
    ConfigError
        If it is another estimator, or has a loss of its own, whose scores are no probabilities.
    """
    return Boosted(CatBoost(estimator))


def early_stopped(estimator: object, *, share: float = 0.2, rounds: int = 50) -> Boosted:
    """As :func:`wrap`, with the number of rounds chosen on the newest ``share`` of the window (in time order).

    The model is then trained on the whole window with the best number of rounds. ``rounds`` is how many without
    improvement end the search.
    """
    return Boosted(CatBoost(estimator), Stopping(share=share, rounds=rounds))


def decayed(
    estimator: object,
    *,
    gamma: float = 0.7,
    trees: int = 10,
    leaves: int | None = None,
    l2: float | None = None,
    clip: float | None = 5.0,
    floor: float = 1e-3,
    weigh: bool = True,
) -> Decayed:
    """Decayed boosting: see :class:`~perennial.learners.boosting.Decayed` for the settings.

    CatBoost's trees are symmetric, so ``leaves`` is rounded down to a power of 2. Its guess of a learning rate from
    the size of the data is not used: 0.1 unless the estimator says otherwise, and one Newton step per leaf.
    """
    settings = Decay(gamma=gamma, trees=trees, leaves=leaves, l2=l2, clip=clip, floor=floor, weigh=weigh)
    return boosting.decayed(CatBoost(estimator, updates=True), settings)


def leaf_refit(estimator: object, *, decay: float = 0.9) -> LeafRefit:
    """Leaf refit: see :class:`~perennial.learners.boosting.LeafRefit`. Learning rate as in :func:`decayed`."""
    return LeafRefit(CatBoost(estimator, updates=True), decay=decay)


def continued(estimator: object, *, trees: int = 10) -> Decayed:
    """Naive continuation, a baseline that warns when it is made: take :func:`decayed`."""
    return boosting.continued(CatBoost(estimator, updates=True), trees)


@final
class CatBoost:
    """CatBoost behind the seam of :class:`~perennial.learners.boosting.Engine`.

    One thread, no output and no files unless the user chose otherwise. The time and the random id that CatBoost
    writes into a model are emptied, so that equal trainings give equal bytes.
    """

    framework = "catboost"
    ending = ".cbm"
    opens = (
        "catboost.CatBoostClassifier().load_model(path).predict_proba(rows), for a regression CatBoostRegressor and "
        'predict; raw scores: catboost.CatBoost().load_model(path).predict(rows, prediction_type="RawFormulaVal")'
    )
    version: str = cb.__version__

    def __init__(self, estimator: object, *, updates: bool = False) -> None:
        if not isinstance(estimator, cb.CatBoostClassifier | cb.CatBoostRegressor):
            raise ConfigError("estimator", type(estimator).__name__, "give a CatBoostClassifier or CatBoostRegressor")
        self.task: TaskKind = "classification" if isinstance(estimator, cb.CatBoostClassifier) else "regression"
        params = estimator.get_params()
        if not any(name in params for name in _QUIET):
            params["logging_level"] = "Silent"
        params.setdefault("thread_count", 1)
        params.setdefault("allow_writing_files", False)
        self.estimator: Any = type(estimator)(**params)
        self._params = params
        loss = self._set(_LOSS)
        if updates:
            self._refuse_odd_updates(loss)
        elif self.task == "classification" and not isinstance(loss, str | None):
            raise ConfigError("loss_function", loss, "its scores are no probabilities: use Logloss or MultiClass")

    def _refuse_odd_updates(self, loss: object) -> None:
        allowed = _UPDATES[self.task]
        if not isinstance(loss, str | None) or loss not in allowed:
            words = ", ".join(sorted(filter(None, allowed)))
            raise ConfigError("loss_function", loss, f"updates know log loss and squared error only: use {words}")
        for name in ("class_weights", "auto_class_weights", "scale_pos_weight"):
            if self._params.get(name) not in (None, 1, 1.0):
                raise ConfigError(name, self._params[name], boosting.WEIGH_ROWS)

    def _set(self, names: tuple[str, ...], default: Any = None) -> Any:
        """What the user set under any of a parameter's names, else the default."""
        return next((self._params[name] for name in names if self._params.get(name) is not None), default)

    @cached_property
    def threads(self) -> int:
        """Threads of training and prediction; -1 for all."""
        return int(self._set(_THREADS))

    @property
    def convention(self) -> Mapping[str, object]:
        """Whole numbers that the estimator names as categories are told as whole numbers, also beside a null."""
        return {"rows": 2} if self._params.get("cat_features") is not None else {}

    @property
    def random_state(self) -> object:
        """The user's seed, or None."""
        return self._set(_SEEDS)

    @property
    def rounds(self) -> int:
        """``iterations`` under any of its names; CatBoost's default is 1000."""
        return int(self._set(_ROUNDS, 1000))

    @property
    def rate(self) -> float:
        """Learning rate of updates."""
        return float(self._set(_RATE, 0.1))

    @property
    def leaves(self) -> int:
        """Most leaves of a tree: two to the depth (6 by default), or ``max_leaves`` where trees grow leaf by leaf."""
        if self._leafwise:
            return int(self._set(_LEAVES, 31))
        return 1 << int(self._set(_DEPTH, 6))

    @property
    def l2(self) -> float:
        """L2 penalty of the leaves; CatBoost's default is 3."""
        return float(self._set(_L2, 3.0))

    @property
    def _leafwise(self) -> bool:
        return bool(self._params.get("grow_policy") == "Lossguide")

    # -- rows ---------------------------------------------------------------------------------------------------------

    def takes_matrix(self, booster: Any) -> bool:
        """Whether none of its features is a category, which CatBoost takes in no matrix of floats."""
        return not booster.get_cat_feature_indices()

    def rows(self, features: Features) -> Any:
        """A matrix; or a frame with strings for categories, which CatBoost takes in no matrix of floats."""
        categories = self._categories(features)
        if not categories:
            return features.matrix()
        features.matrix()  # words and dates are refused by name here, as for the other frameworks
        frame = features.frame().copy(deep=False)
        types = {column.name: column.dtype for column in features.schema.columns}
        for name in categories:
            column = frame[name]
            if types[name].lstrip("u").startswith("int") and column.dtype.kind == "f":
                column = column.astype("Int64")  # a null made floats of them, and "1.0" is another word than "1"
            if not isinstance(column.dtype, np.dtype) or column.dtype.kind not in "iu":
                frame[name] = column.astype(object).where(column.notna(), _NULL).astype(str)
        return frame

    def _categories(self, features: Features) -> list[str]:
        names = features.names
        if (own := self._params.get("cat_features")) is not None:
            return [names[i] if isinstance(i, int | np.integer) else str(i) for i in own]
        return [names[i] for i in features.schema.categories]

    # -- stateless ----------------------------------------------------------------------------------------------------

    def fit(self, examples: Examples, rounds: int | None) -> Any:
        """The estimator after its own ``fit``."""
        params = self._params
        if rounds is not None:
            params = {k: v for k, v in params.items() if k not in _ROUNDS} | {"iterations": rounds}
        return _anonymous(self._fitted(type(self.estimator)(**params), examples))

    def search(self, train: Examples, valid: Examples, patience: int) -> tuple[int, int]:
        """Rounds at which ``valid`` was best, and trees built until the search gave up."""
        held_out = cb.Pool(
            self.rows(valid.features),
            valid.values if valid.codes is None else boosting.ranked_as(train, valid)[0],
            cat_features=self._categories(valid.features) or None,
            weight=valid.weights,
        )
        more = {"eval_set": held_out, "early_stopping_rounds": patience, "use_best_model": False}
        estimator = self._fitted(type(self.estimator)(**self._params), train, **more)
        return int(estimator.get_best_iteration()) + 1, int(estimator.tree_count_)

    def _fitted(self, estimator: Any, examples: Examples, **more: Any) -> Any:
        if categories := self._categories(examples.features):
            more["cat_features"] = categories
        if examples.weights is not None:
            more["sample_weight"] = examples.weights
        try:
            return estimator.fit(self.rows(examples.features), self._labels(examples), **more)
        except cb.CatBoostError as error:
            raise LearnerError(f"CatBoost refused {len(examples)} rows: {error}") from error

    def _labels(self, examples: Examples) -> Any:
        return examples.values if examples.codes is None else boosting.ranked(examples)[1]

    def quick(self, booster: Any) -> Callable[[Floats], Floats]:
        """The same call."""
        return partial(self.outcome, booster)

    def outcome(self, booster: Any, rows: Any) -> Floats:
        """The estimator's own probabilities or values."""
        ask = booster.predict_proba if self.task == "classification" else booster.predict
        told = np.asarray(ask(rows, thread_count=self.threads), dtype=np.float64)
        # a loss that also tells its uncertainty gives it in a second column
        return told[:, 0] if self.task == "regression" and told.ndim > 1 else told

    # -- updates ------------------------------------------------------------------------------------------------------

    def grow(self, features: Features, target: Target, start: Floats, growth: Growth) -> Any:
        """Trees on the gradients at ``start``.

        CatBoost refuses a baseline where a class is absent, and labels that are all equal. One row of weight 0 for
        each absent class (or, in a regression, with another label) settles that: it weighs nothing in any sum.
        """
        absent = self._absent(target)
        again = np.zeros(len(absent), dtype=np.int64)  # row 0, once for each
        weights = np.ones(len(features)) if target.weights is None else target.weights
        rows: Any = self.rows(features)
        if len(absent):
            index = np.concatenate([np.arange(len(features)), again])
            rows = rows[index] if isinstance(rows, np.ndarray) else rows.iloc[index].reset_index(drop=True)
        pool = cb.Pool(
            rows,
            np.concatenate([target.y, absent])
            if not target.classes
            else np.concatenate([target.y, absent]).astype(int),
            cat_features=self._categories(features) or None,
            weight=np.concatenate([weights, np.zeros(len(absent))]),
            baseline=np.concatenate([start, start[again]]),  # row after row
            thread_count=self.threads,
        )
        try:
            return _anonymous(cb.CatBoost(self._native(target, growth)).fit(pool))
        except cb.CatBoostError as error:
            raise LearnerError(f"CatBoost refused a batch of {len(features)} rows: {error}") from error

    def _absent(self, target: Target) -> Floats:
        """Labels that CatBoost must see beside those of the rows."""
        if target.classes:
            return np.setdiff1d(np.arange(target.classes, dtype=np.float64), target.y)
        return target.y[:1] + 1.0 if (target.y == target.y[0]).all() else np.empty(0)

    def _native(self, target: Target, growth: Growth) -> dict[str, Any]:
        ours = {*_SEEDS, *_LOSS, *_ROUNDS, *_DEPTH, *_LEAVES, *_L2, *_RATE, "eval_metric", "cat_features"}
        ours |= {"classes_count", "class_names", "class_weights", "auto_class_weights", "scale_pos_weight"}
        params = {k: v for k, v in self._params.items() if k not in ours}
        if self._leafwise:
            params |= {"max_leaves": growth.leaves, "depth": int(self._set(_DEPTH, 6))}
        else:
            params["depth"] = max(1, math.floor(math.log2(growth.leaves)))
        if target.classes:
            params.setdefault("leaf_estimation_method", "Newton")
        params.setdefault("leaf_estimation_iterations", 1)
        loss = "RMSE" if not target.classes else "MultiClass" if target.outputs > 1 else "Logloss"
        return params | {
            "loss_function": loss,
            "iterations": growth.rounds,
            "learning_rate": self.rate,
            "l2_leaf_reg": growth.l2,
            "random_seed": growth.seed,
            "boost_from_average": False,
        }

    def raw(self, booster: Any, rows: Any, outputs: int) -> Floats:
        """Raw scores of the trees."""
        told = booster.predict(rows, prediction_type="RawFormulaVal", thread_count=self.threads)
        return np.asarray(told, dtype=np.float64).reshape(len(rows), outputs)

    def read_leaves(self, booster: Any, payload: bytes, features: Features, outputs: int) -> Leaves:  # noqa: ARG002
        """Leaves of one tree per round, with a value for each class."""
        where = booster.calc_leaf_indexes(self.rows(features), thread_count=self.threads)
        values = np.asarray(booster.get_leaf_values(), dtype=np.float64).reshape(-1, outputs)
        ends = np.cumsum(np.asarray(booster.get_tree_leaf_counts(), dtype=np.int64))
        return Leaves(where=np.asarray(where, dtype=np.int64), values=np.split(values, ends[:-1]))

    def with_leaves(self, booster: Any, payload: bytes, values: list[Floats]) -> bytes:  # noqa: ARG002
        """The same trees with other leaves."""
        new = self.read(payload)
        new.set_leaf_values(np.concatenate(values).ravel())
        return self.dump(new)

    # -- trained elsewhere --------------------------------------------------------------------------------------------

    def taken(self, model: Any) -> Any:
        """The model as it will be stored."""
        return self.read(self.dump(model))

    def known(self, model: Any, schema: Schema) -> Known:
        """Names and classes. Category columns are told in words, and must be the stream's own."""
        wanted = type(self.estimator).__name__
        if type(model) is not type(self.estimator) or not model.is_fitted():
            raise boosting.other_model(model, wanted)
        classes: tuple[Label, ...] = tuple(np.asarray(model.classes_).tolist())
        if bool(classes) != (self.task == "classification"):
            what = "a classifier" if classes else "a regression or a ranking"
            raise LearnerError(f"the model is {what}, and the configured `model` is {wanted}: configure its own class")
        names: list[str] = list(model.feature_names_)
        unnamed = names == [str(i) for i in range(len(names))]
        if tuple(names) == schema.names or (unnamed and len(names) == len(schema)):
            self._refuse_other_categories(model, schema)
        return Known(
            names=None if unnamed else tuple(names),
            width=len(names),
            classes=classes,
        )

    def _refuse_other_categories(self, model: Any, schema: Schema) -> None:
        """Raise ``DataError`` for a column that is words to one and numbers to the other."""
        own = self._params.get("cat_features")
        ours = set(schema.categories) if own is None else {
            i if isinstance(i, int | np.integer) else schema.names.index(str(i)) for i in own
        }  # fmt: skip
        theirs = set(model.get_cat_feature_indices())
        for i in sorted(ours ^ theirs):
            was, now = ("a category", "a number") if i in theirs else ("a number", "words, a category")
            raise DataError(
                f"column {schema.names[i]!r} was {was} when the model was trained, and is {now} in the stream: name "
                "the model's own columns as `cat_features` in `params`, or write the column as it was"
            )
        if odd := [*model.get_text_feature_indices(), *model.get_embedding_feature_indices()]:
            raise DataError(f"column {schema.names[odd[0]]!r} is text or an embedding to the model, which is not given")

    # -- stored form --------------------------------------------------------------------------------------------------

    def trees(self, booster: Any) -> int:
        """Trees; each has a value for every class."""
        return int(booster.tree_count_)

    def dump(self, booster: Any) -> bytes:
        """CatBoost's binary form, which it writes to files only."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.cbm")
            booster.save_model(path)
            with open(path, "rb") as file:
                return file.read()

    def read(self, payload: bytes) -> Any:
        """The estimator with what :meth:`dump` gave; grown trees too, which are only asked for raw scores."""
        empty = type(self.estimator)(**self._params)  # with its loss, which says how raw scores become values
        # from a stream: what is loaded from bytes shares them, and refuses other leaf values
        return empty.load_model(stream=io.BytesIO(payload))

    def learned(self, payload: bytes) -> bytes:
        """All of it: what differs between equal trainings was emptied."""
        return payload


def _anonymous(model: Any) -> Any:
    facts = model.get_metadata()
    facts["model_guid"] = ""
    facts["train_finish_time"] = ""
    return model
