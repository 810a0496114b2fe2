"""LightGBM: stateless retraining as its own ``fit`` does it, and three ways to update.

This module imports LightGBM: load it through the registry, which does so only when a LightGBM estimator is used.
"""

from __future__ import annotations

import ctypes
import re
import warnings
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, final

import lightgbm as lgb
import numpy as np
from sklearn.base import clone

from perennial.core.errors import ConfigError, DataError, LearnerError
from perennial.core.features import Features, Schema
from perennial.core.protocols import Known
from perennial.core.records import Examples, Label, TaskKind
from perennial.learners import boosting
from perennial.learners.boosting import Boosted, Decay, Decayed, Floats, Growth, LeafRefit, Leaves, Stopping, Target

_THREADS = ("n_jobs", "num_threads", "num_thread", "nthread", "nthreads")
_SEEDS = ("random_state", "seed", "random_seed")
_QUIET = ("verbosity", "verbose")
_OBJECTIVES = ("objective", "objective_type", "app", "application", "loss")
_LEAVES = ("num_leaves", "num_leaf", "max_leaves", "max_leaf", "max_leaf_nodes")
_L2 = ("reg_lambda", "lambda_l2", "lambda")
_RATE = ("learning_rate", "shrinkage_rate", "eta")
_BOOSTING = ("boosting_type", "boosting", "boost")
_CATEGORIES = ("categorical_feature", "cat_feature", "categorical_column", "cat_column")
_ROUNDS = (
    *("n_estimators", "num_iterations", "num_iteration", "n_iter", "num_tree", "num_trees", "num_round"),
    *("num_rounds", "nrounds", "num_boost_round", "max_iter"),
)

#: objectives whose raw score is what we add priors and means to
_PROBABILITIES = frozenset({"binary", "multiclass", "softmax", "multiclassova", "multiclass_ova", "ova", "ovr"})
_UPDATES = {
    "classification": frozenset({None, "binary", "multiclass", "softmax"}),
    "regression": frozenset({None, "regression", "regression_l2", "l2", "mean_squared_error", "mse"}),
}


def wrap(estimator: object) -> Boosted:
    """The stateless learner for an ``LGBMClassifier`` or ``LGBMRegressor``.

    Category columns are handed over by their codes, as ``categorical_feature``, unless the estimator names its own.

    Raises
    ------
    ConfigError
        If it is another estimator, or a classifier whose objective gives no probabilities.
    """
    return Boosted(LightGBM(estimator))


def early_stopped(estimator: object, *, share: float = 0.2, rounds: int = 50) -> Boosted:
    """As :func:`wrap`, with the number of rounds chosen on the newest ``share`` of the window (in time order).

    The model is then trained on the whole window with the best number of rounds. ``rounds`` is how many without
    improvement end the search.
    """
    return Boosted(LightGBM(estimator), Stopping(share=share, rounds=rounds))


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
    """Decayed boosting: see :class:`~perennial.learners.boosting.Decayed` for the settings."""
    settings = Decay(gamma=gamma, trees=trees, leaves=leaves, l2=l2, clip=clip, floor=floor, weigh=weigh)
    return boosting.decayed(LightGBM(estimator, updates=True), settings)


def leaf_refit(estimator: object, *, decay: float = 0.9) -> LeafRefit:
    """Leaf refit: see :class:`~perennial.learners.boosting.LeafRefit`."""
    return LeafRefit(LightGBM(estimator, updates=True), decay=decay)


def continued(estimator: object, *, trees: int = 10) -> Decayed:
    """Naive continuation, a baseline that warns when it is made: take :func:`decayed`."""
    return boosting.continued(LightGBM(estimator, updates=True), trees)


@final
class LightGBM:
    """LightGBM behind the seam of :class:`~perennial.learners.boosting.Engine`.

    One thread unless the user chose a number. Updates add ``deterministic`` and ``force_row_wise``; a stateless
    ``fit`` does not, and is the user's own.
    """

    framework = "lightgbm"
    convention: Mapping[str, object] = MappingProxyType({})
    ending = ".txt"
    opens = (
        "lightgbm.Booster(model_file=path).predict(matrix), "
        "with two classes the share of the second; raw scores: raw_score=True"
    )
    version: str = lgb.__version__

    def __init__(self, estimator: object, *, updates: bool = False) -> None:
        if not isinstance(estimator, lgb.LGBMClassifier | lgb.LGBMRegressor):
            raise ConfigError("estimator", type(estimator).__name__, "give an LGBMClassifier or LGBMRegressor")
        self.estimator: Any = clone(estimator)
        self.task: TaskKind = "classification" if isinstance(estimator, lgb.LGBMClassifier) else "regression"
        if self._set(_THREADS) is None:
            self.estimator.set_params(n_jobs=1)
        if self._set(_QUIET) is None:
            self.estimator.set_params(verbosity=-1)
        objective = self._set(_OBJECTIVES)
        if updates:
            self._refuse_odd_updates(objective)
        elif self.task == "classification" and objective is not None and objective not in _PROBABILITIES:
            need = f"it gives no probabilities: leave it out, or use one of {', '.join(sorted(_PROBABILITIES))}"
            raise ConfigError("objective", objective, need)

    def _refuse_odd_updates(self, objective: object) -> None:
        allowed = _UPDATES[self.task]
        if objective not in allowed:
            words = ", ".join(sorted(filter(None, allowed)))
            raise ConfigError("objective", objective, f"updates know log loss and squared error only: use {words}")
        if (kind := self._set(_BOOSTING)) not in (None, "gbdt", "gbrt", "goss"):
            raise ConfigError("boosting_type", kind, "its trees are no sum to update: use gbdt")
        for name in ("class_weight", "is_unbalance", "unbalance", "unbalanced_sets", "scale_pos_weight"):
            if self.estimator.get_params().get(name) not in (None, False, 1, 1.0):
                raise ConfigError(name, self.estimator.get_params()[name], boosting.WEIGH_ROWS)
        if self._set(("linear_tree", "linear_trees")):
            raise ConfigError("linear_tree", True, "leaves with models inside cannot be updated: leave it out")

    def _set(self, names: tuple[str, ...]) -> Any:
        """What the user set under any of a parameter's names; an alias wins over the estimator's own default."""
        params = self.estimator.get_params()
        given = [params[name] for name in reversed(names) if params.get(name) is not None]
        return given[0] if given else None

    @cached_property
    def threads(self) -> int:
        """Threads of training and prediction."""
        return int(self._set(_THREADS))

    @property
    def random_state(self) -> object:
        """The user's seed, or None."""
        return self._set(_SEEDS)

    @property
    def rounds(self) -> int:
        """``n_estimators`` under any of its names."""
        return int(self._set(_ROUNDS))

    @property
    def rate(self) -> float:
        """Learning rate."""
        return float(self._set(_RATE))

    @property
    def leaves(self) -> int:
        """Most leaves of a tree."""
        return int(self._set(_LEAVES))

    @property
    def l2(self) -> float:
        """L2 penalty of the leaves."""
        return float(self._set(_L2))

    # -- stateless ----------------------------------------------------------------------------------------------------

    def fit(self, examples: Examples, rounds: int | None) -> lgb.Booster:
        """The booster of the estimator's own ``fit``."""
        estimator = clone(self.estimator)
        if rounds is not None:
            self._set_rounds(estimator, rounds)
        return self._fitted(estimator, examples).booster_

    def search(self, train: Examples, valid: Examples, patience: int) -> tuple[int, int]:
        """Rounds at which ``valid`` was best, and trees built until the search gave up."""
        estimator = clone(self.estimator)
        labels = valid.values if valid.codes is None else boosting.ranked_as(train, valid)[0]
        with warnings.catch_warnings():
            # 4.7 asks for `eval_X` and `eval_y`, and then forgets to encode the labels of `eval_y`
            warnings.filterwarnings("ignore", message=".*'eval_set' is deprecated")
            self._fitted(
                estimator,
                train,
                eval_set=[(valid.features.matrix(), labels)],
                eval_sample_weight=None if valid.weights is None else [valid.weights],
                callbacks=[lgb.early_stopping(patience, verbose=False)],
            )
        # what came after the best round is dropped from the booster: the record of the scores counts it
        tried = max(len(scores) for scores in estimator.evals_result_["valid_0"].values())
        return max(1, estimator.best_iteration_), tried * int(estimator.booster_.num_model_per_iteration())

    def _fitted(self, estimator: Any, examples: Examples, **more: Any) -> Any:
        if categories := self._categories(examples.features):
            more["categorical_feature"] = categories
        if examples.weights is not None:
            more["sample_weight"] = examples.weights
        try:
            return estimator.fit(examples.features.matrix(), self._labels(examples), **more)
        except lgb.basic.LightGBMError as error:
            raise LearnerError(f"LightGBM refused {len(examples)} rows: {error}") from error

    def _labels(self, examples: Examples) -> Any:
        return examples.values if examples.codes is None else boosting.ranked(examples)[1]

    def _categories(self, features: Features) -> list[int]:
        return [] if self._set(_CATEGORIES) is not None else list(features.schema.categories)

    @staticmethod
    def _set_rounds(estimator: Any, rounds: int) -> None:
        names = [name for name in _ROUNDS if name in estimator.get_params()]
        estimator.set_params(**dict.fromkeys(names, rounds))

    def rows(self, features: Features) -> Floats:
        """The matrix; categories by code."""
        return features.matrix()

    def takes_matrix(self, booster: Any) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def quick(self, booster: Any) -> Callable[[Floats], Floats]:
        """Single rows by the library's own call for them, which is as quick as its trees; others as ever."""
        single = _Single.of(booster, self._asking)
        if single is None:
            return partial(self.outcome, booster)
        return lambda rows: self._told(single(rows)) if single.fits(rows) else self.outcome(booster, rows)

    def outcome(self, booster: Any, rows: Floats) -> Floats:
        """Probabilities or values by the native call, without the estimator's checks."""
        return self._told(booster.predict(rows, **self._asking))

    def _told(self, told: Floats) -> Floats:
        """What the booster gives as the estimator says it: of two classes both."""
        if self.task == "regression" or told.ndim > 1:
            return told
        both = np.empty((len(told), 2))
        both[:, 0], both[:, 1] = 1.0 - told, told
        return both

    @cached_property
    def _asking(self) -> dict[str, Any]:
        early = {k: v for k, v in self.estimator.get_params().items() if k.startswith("pred_early_stop")}
        return {"num_threads": self.threads, **early}

    # -- updates ------------------------------------------------------------------------------------------------------

    def grow(self, features: Features, target: Target, start: Floats, growth: Growth) -> lgb.Booster:
        """Trees on the gradients at ``start``, through ``lgb.train``: it takes a table with absent classes.

        LightGBM grows nothing for a class that no row has: how rare it became is left to the prior.
        """
        params = self._native | {"num_leaves": growth.leaves, "lambda_l2": growth.l2, "seed": growth.seed}
        if target.outputs > 1:
            params |= {"objective": "multiclass", "num_class": target.outputs}
        rows = lgb.Dataset(
            features.matrix(),
            label=target.y,
            weight=target.weights,
            # class after class: row after row would be taken without complaint, and train on other rows' scores
            init_score=start.ravel(order="F"),
            categorical_feature=self._categories(features) or "auto",
            params=params,
            free_raw_data=True,
        )
        try:
            return lgb.train(params, rows, num_boost_round=growth.rounds)
        except lgb.basic.LightGBMError as error:
            raise LearnerError(f"LightGBM refused a batch of {len(features)} rows: {error}") from error

    @cached_property
    def _native(self) -> dict[str, Any]:
        ours = {*_THREADS, *_SEEDS, *_OBJECTIVES, *_LEAVES, *_L2, *_RATE, *_ROUNDS}
        ours |= {"class_weight", "importance_type", "metric", "num_class", "num_classes"}
        params = {k: v for k, v in self.estimator.get_params().items() if k not in ours and v is not None}
        return params | {
            "objective": "binary" if self.task == "classification" else "regression",
            "metric": "None",
            "learning_rate": self.rate,
            "num_threads": self.threads,
            "boost_from_average": False,
            "deterministic": True,
            "force_row_wise": True,
        }

    def raw(self, booster: Any, rows: Floats, outputs: int) -> Floats:
        """Raw scores of the trees."""
        told: Floats = booster.predict(rows, raw_score=True, num_threads=self.threads)
        return told.reshape(len(rows), outputs)

    def read_leaves(self, booster: Any, payload: bytes, features: Features, outputs: int) -> Leaves:  # noqa: ARG002
        """Leaves, one tree per class and round."""
        where = booster.predict(features.matrix(), pred_leaf=True, num_threads=self.threads)
        lines = re.findall(r"^leaf_value=(.*)$", payload.decode(), flags=re.MULTILINE)
        values = [np.array(line.split(), dtype=np.float64)[:, None] for line in lines]
        return Leaves(where=where.reshape(len(features), -1), values=values)

    def with_leaves(self, booster: Any, payload: bytes, values: list[Floats]) -> bytes:  # noqa: ARG002
        """The same trees with other leaves, in the text of the model: the library sets one leaf per call."""
        told = iter(values)

        def line(_: re.Match[str]) -> str:
            return f"leaf_value={' '.join(map(repr, next(told)[:, 0].tolist()))}"

        head, *trees = re.split(r"^(?=Tree=)", payload.decode(), flags=re.MULTILINE)
        last, end, rest = trees[-1].partition("end of trees")
        trees[-1] = last
        trees = [re.sub(r"^leaf_value=.*$", line, tree, count=1, flags=re.MULTILINE) for tree in trees]
        sizes = " ".join(str(len(tree.encode())) for tree in trees)
        head = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", head, count=1, flags=re.MULTILINE)
        return "".join([head, *trees, end, rest]).encode()

    # -- trained elsewhere --------------------------------------------------------------------------------------------

    def taken(self, model: Any) -> lgb.Booster:
        """The booster of an estimator, or the booster itself, with the rounds that it is asked for."""
        booster = model.booster_ if isinstance(model, lgb.LGBMModel) else model
        return self.read(self.dump(booster))  # without the rounds behind the best one, which it does not use

    def known(self, model: Any, schema: Schema) -> Known:
        """Names, words of pandas categories, and classes, if it is an estimator."""
        if isinstance(model, lgb.LGBMModel):
            if type(model) is not type(self.estimator) or not model.__sklearn_is_fitted__():
                raise boosting.other_model(model, type(self.estimator).__name__)
        elif not isinstance(model, lgb.Booster):
            raise boosting.other_model(model, type(self.estimator).__name__)
        booster = model.booster_ if isinstance(model, lgb.LGBMModel) else model
        head = self.dump(booster).decode().partition("\nTree=")[0]
        facts = dict(line.partition("=")[::2] for line in head.split("\n"))
        objective = facts.get("objective", "none").split(" ")[0]
        if (objective in ("binary", "multiclass", "multiclassova")) != (self.task == "classification") or (
            objective in ("none", "custom", "lambdarank", "rank_xendcg")
        ):
            raise LearnerError(
                f"the model's objective is {objective}, which says nothing that {type(self.estimator).__name__} says: "
                "configure the class that it was trained with"
            )
        # spaces in names become underscores as LightGBM trains
        names: list[str] = booster.feature_name()
        spaced = {name.replace(" ", "_"): name for name in schema.names}
        told = tuple(name if name in schema.names else spaced.get(name, name) for name in names)
        classes: tuple[Label, ...] = ()
        if self.task == "classification":
            classes = tuple(range(max(2, int(facts["num_class"]))))
            classes = tuple(model.classes_.tolist()) if isinstance(model, lgb.LGBMModel) else classes
        unnamed = names == [f"Column_{i}" for i in range(len(names))]
        same = told == schema.names or (unnamed and len(names) == len(schema))
        return Known(
            names=None if unnamed else told,
            width=len(names),
            words=self._words(booster, facts["feature_infos"].split(" "), schema) if same else {},
            classes=classes,
        )

    @staticmethod
    def _words(booster: lgb.Booster, infos: list[str], schema: Schema) -> dict[int, tuple[str, ...]]:
        """The lists of pandas categories belong to the columns that were categories, in order, without their names."""
        lists = list(booster.pandas_categorical or ())
        coded = {i for i, info in enumerate(infos) if ":" in info and not info.startswith("[")}
        if lists and len(lists) == len(schema.categories):  # a column of one word only is not told from a constant
            if not coded <= set(schema.categories):
                name = schema.names[min(coded - set(schema.categories))]
                raise DataError(f"column {name!r} was a category when the model was trained: write words into it")
            return boosting.words_meant(schema, dict(zip(schema.categories, lists, strict=True)))
        if lists:
            among = ", ".join(map(repr, (schema.names[i] for i in sorted(coded)))) or "none that it uses"
            raise DataError(
                f"the model was trained on {len(lists)} category columns (of those it uses: {among}), and the stream "
                f"has {len(schema.categories)} columns of words: give it the same columns with the same types"
            )
        return boosting.words_meant(schema, {})

    # -- stored form --------------------------------------------------------------------------------------------------

    def trees(self, booster: Any) -> int:
        """Trees, over all classes."""
        return int(booster.num_trees())

    def dump(self, booster: Any) -> bytes:
        """LightGBM's model text."""
        text: str = booster.model_to_string()
        return text.encode()

    def read(self, payload: bytes) -> lgb.Booster:
        """A booster from its model text."""
        return lgb.Booster(model_str=payload.decode())

    def learned(self, payload: bytes) -> bytes:
        """The trees: without importances and parameters, which follow them."""
        return payload.partition(b"\nend of trees")[0]


@final
class _Single:
    """A booster asked about one row, by ``LGBM_BoosterPredictForMatSingleRowFast``.

    ``Booster.predict`` reads its parameters and builds a predictor at each call, which takes several times as long as
    the trees do. Here that is done once. The library locks the predictor while it is asked, so any thread may ask.
    """

    def __init__(self, booster: Any, library: Any, handle: ctypes.c_void_p) -> None:
        self._booster = booster  # what the handle points into
        self._call, self._handle = library.LGBM_BoosterPredictForMatSingleRowFast, handle
        self._shape = (1, booster.num_feature())
        self._outputs = booster.num_model_per_iteration()
        weakref.finalize(self, library.LGBM_FastConfigFree, handle)

    @classmethod
    def of(cls, booster: Any, asking: Mapping[str, Any]) -> _Single | None:
        """None where this release of LightGBM cannot be asked so: the names are not those of its public face."""
        try:
            library, parameters = lgb.basic._LIB, lgb.basic._param_dict_to_str(dict(asking))
            best, handle = booster.best_iteration, ctypes.c_void_p()
            failed = library.LGBM_BoosterPredictForMatSingleRowFastInit(
                booster._handle,
                ctypes.c_int(0),  # normal predictions
                ctypes.c_int(0),  # from the first iteration on
                ctypes.c_int(best if best > 0 else -1),
                ctypes.c_int(1),  # of float64
                ctypes.c_int32(booster.num_feature()),
                ctypes.c_char_p(parameters.encode()),
                ctypes.byref(handle),
            )
        except (AttributeError, ctypes.ArgumentError):
            return None
        return None if failed else cls(booster, library, handle)

    def fits(self, rows: Floats) -> bool:
        """Whether these are what it was made for: the library reads memory without a look at what is there."""
        return rows.shape == self._shape and rows.dtype == np.float64 and rows.flags.c_contiguous

    def __call__(self, row: Floats) -> Floats:
        out, length = np.empty(self._outputs), ctypes.c_int64()
        failed = self._call(
            self._handle, ctypes.c_void_p(row.ctypes.data), ctypes.byref(length), ctypes.c_void_p(out.ctypes.data)
        )
        if failed or length.value != self._outputs:
            raise LearnerError(f"LightGBM refused a row of {row.shape[1]} columns")
        return out if self._outputs == 1 else out[None, :]
