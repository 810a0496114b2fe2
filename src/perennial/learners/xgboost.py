"""XGBoost: stateless retraining as its own ``fit`` does it, and three ways to update.

This module imports XGBoost: load it through the registry, which does so only when an XGBoost estimator is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.base import clone

from perennial.core.errors import ConfigError, LearnerError
from perennial.core.features import Features, Schema
from perennial.core.protocols import Known
from perennial.core.records import Examples, Label, TaskKind
from perennial.learners import boosting
from perennial.learners.boosting import Boosted, Decay, Decayed, Floats, Growth, LeafRefit, Leaves, Stopping, Target

_THREADS = ("n_jobs", "nthread")
_SEEDS = ("random_state", "seed")
_LEAVES = ("max_leaves",)
_L2 = ("reg_lambda", "lambda")
_RATE = ("learning_rate", "eta")
_OBJECTIVES = frozenset({None, "binary:logistic", "multi:softprob", "multi:softmax"})
_UPDATES = {
    "classification": _OBJECTIVES,
    "regression": frozenset({None, "reg:squarederror"}),
}


def wrap(estimator: object) -> Boosted:
    """The stateless learner for an ``XGBClassifier`` or ``XGBRegressor``.

    Labels are given as their rank among the window's sorted classes, which XGBoost asks for. Category columns are
    numbers to it, their codes: a code that is new at prediction then needs no special care.

    Raises
    ------
    ConfigError
        If it is another estimator, or a classifier whose objective gives no probabilities.
    """
    return Boosted(XGBoost(estimator))


def early_stopped(estimator: object, *, share: float = 0.2, rounds: int = 50) -> Boosted:
    """As :func:`wrap`, with the number of rounds chosen on the newest ``share`` of the window (in time order).

    The model is then trained on the whole window with the best number of rounds. ``rounds`` is how many without
    improvement end the search.
    """
    return Boosted(XGBoost(estimator), Stopping(share=share, rounds=rounds))


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
    return boosting.decayed(XGBoost(estimator, updates=True), settings)


def leaf_refit(estimator: object, *, decay: float = 0.9) -> LeafRefit:
    """Leaf refit: see :class:`~perennial.learners.boosting.LeafRefit`.

    XGBoost's own ``refresh`` updater replaces leaves and blends nothing, so the leaves are written by us.
    """
    return LeafRefit(XGBoost(estimator, updates=True), decay=decay)


def continued(estimator: object, *, trees: int = 10) -> Decayed:
    """Naive continuation, a baseline that warns when it is made: take :func:`decayed`."""
    return boosting.continued(XGBoost(estimator, updates=True), trees)


@final
class XGBoost:
    """XGBoost behind the seam of :class:`~perennial.learners.boosting.Engine`.

    One thread unless the user chose a number. Updates train each member as a booster of its own with
    ``seed_per_iteration``: XGBoost's random state is global and not saved, so one that went on would not resume.
    """

    framework = "xgboost"
    convention: Mapping[str, object] = MappingProxyType({})
    ending = ".ubj"
    opens = (
        "xgboost.Booster(model_file=path).predict(xgboost.DMatrix(matrix)), "
        "with two classes the share of the second; raw scores: output_margin=True"
    )
    version: str = xgb.__version__

    def __init__(self, estimator: object, *, updates: bool = False) -> None:
        if not isinstance(estimator, xgb.XGBClassifier | xgb.XGBRegressor):
            raise ConfigError("estimator", type(estimator).__name__, "give an XGBClassifier or XGBRegressor")
        self.estimator: Any = clone(estimator)
        self.task: TaskKind = "classification" if isinstance(estimator, xgb.XGBClassifier) else "regression"
        if self._set(_THREADS) is None:
            self.estimator.set_params(n_jobs=1)
        objective = self.estimator.get_params()["objective"]
        if updates:
            self._refuse_odd_updates(objective)
        elif self.task == "classification" and not callable(objective) and objective not in _OBJECTIVES:
            words = ", ".join(sorted(filter(None, _OBJECTIVES)))
            raise ConfigError("objective", objective, f"it gives no probabilities: leave it out, or use one of {words}")

    def _refuse_odd_updates(self, objective: object) -> None:
        params = self.estimator.get_params()
        allowed = _UPDATES[self.task]
        if callable(objective) or objective not in allowed:
            words = ", ".join(sorted(filter(None, allowed)))
            raise ConfigError("objective", objective, f"updates know log loss and squared error only: use {words}")
        if params["booster"] not in (None, "gbtree"):
            raise ConfigError("booster", params["booster"], "it is no sum of trees to update: use gbtree")
        if params["num_parallel_tree"] not in (None, 1) or params["multi_strategy"] == "multi_output_tree":
            name = "multi_strategy" if params["num_parallel_tree"] in (None, 1) else "num_parallel_tree"
            raise ConfigError(name, params[name], "updates know one tree per class and round: leave it out")
        if params["scale_pos_weight"] not in (None, 1, 1.0):
            raise ConfigError("scale_pos_weight", params["scale_pos_weight"], boosting.WEIGH_ROWS)

    def _set(self, names: tuple[str, ...], default: Any = None) -> Any:
        """What the user set under any of a parameter's names, else XGBoost's default."""
        params = self.estimator.get_params()
        return next((params[name] for name in names if params.get(name) is not None), default)

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
        """``n_estimators``."""
        return int(self.estimator.get_num_boosting_rounds())

    @property
    def rate(self) -> float:
        """Learning rate; XGBoost's default is 0.3."""
        return float(self._set(_RATE, 0.3))

    @property
    def leaves(self) -> int:
        """Most leaves of a tree: ``max_leaves``, else what ``max_depth`` (6 by default) allows."""
        depth = int(self._set(("max_depth",), 6))
        return int(self._set(_LEAVES, 0)) or (2**depth if depth else 256)

    @property
    def l2(self) -> float:
        """L2 penalty of the leaves; XGBoost's default is 1."""
        return float(self._set(_L2, 1.0))

    # asked for at every prediction, and slow to ask XGBoost for

    @cached_property
    def _missing(self) -> float:
        return float(self.estimator.missing)

    @cached_property
    def _linear(self) -> bool:
        return bool(self._set(("booster",)) == "gblinear")

    @cached_property
    def _softmax(self) -> bool:
        return bool(self.estimator.objective == "multi:softmax")

    # -- stateless ----------------------------------------------------------------------------------------------------

    def fit(self, examples: Examples, rounds: int | None) -> xgb.Booster:
        """The booster of the estimator's own ``fit``."""
        estimator = clone(self.estimator)
        if rounds is not None:
            estimator.set_params(n_estimators=rounds, early_stopping_rounds=None)
        return self._fitted(estimator, examples).get_booster()

    def search(self, train: Examples, valid: Examples, patience: int) -> tuple[int, int]:
        """Rounds at which ``valid`` was best, and trees built until the search gave up."""
        estimator = clone(self.estimator).set_params(early_stopping_rounds=patience)
        labels = valid.values if valid.codes is None else boosting.ranked_as(train, valid)[1]
        self._fitted(
            estimator,
            train,
            eval_set=[(valid.features.matrix(), labels)],
            sample_weight_eval_set=None if valid.weights is None else [valid.weights],
            verbose=False,
        )
        return int(estimator.best_iteration) + 1, self.trees(estimator.get_booster())

    def _fitted(self, estimator: Any, examples: Examples, **more: Any) -> Any:
        labels = examples.values if examples.codes is None else boosting.ranked(examples)[2]
        if examples.weights is not None:
            more["sample_weight"] = examples.weights
        try:
            return estimator.fit(examples.features.matrix(), labels, **more)
        except xgb.core.XGBoostError as error:
            raise LearnerError(f"XGBoost refused {len(examples)} rows: {error}") from error

    def rows(self, features: Features) -> Floats:
        """The matrix; categories by code."""
        return features.matrix()

    def takes_matrix(self, booster: Any) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def quick(self, booster: Any) -> Callable[[Floats], Floats]:
        """The same call."""
        return partial(self.outcome, booster)

    def outcome(self, booster: Any, rows: Floats) -> Floats:
        """Probabilities or values by the native call, without the estimator's checks."""
        told = self._asked(booster, rows, margin=self._softmax)
        if self._softmax and told.ndim > 1:  # with this objective the booster itself names classes only
            from scipy.special import softmax

            told = softmax(told, axis=1)
        if self.task == "classification" and told.ndim == 1:
            told = np.column_stack([1.0 - told, told])  # in float32, as the estimator does
        return told.astype(np.float64)

    def _asked(self, booster: Any, matrix: Floats, *, margin: bool) -> NDArray[np.float32]:
        if self._linear:
            rows = xgb.DMatrix(matrix, missing=self._missing, nthread=self.threads)
            return booster.predict(rows, output_margin=margin)  # type: ignore[no-any-return]
        kind = "margin" if margin else "value"
        return booster.inplace_predict(  # type: ignore[no-any-return]
            matrix, predict_type=kind, missing=self._missing, validate_features=False
        )

    # -- updates ------------------------------------------------------------------------------------------------------

    def grow(self, features: Features, target: Target, start: Floats, growth: Growth) -> xgb.Booster:
        """Trees on the gradients at ``start``, through ``xgb.train``: it takes a table with absent classes."""
        params = self._native | {"lambda": growth.l2, "seed": growth.seed}
        if growth.leaves < self.leaves:  # depth by depth, a bound on leaves would cut the last level short
            params |= {"max_leaves": growth.leaves, "grow_policy": "lossguide"}
        if target.outputs > 1:
            params |= {"objective": "multi:softprob", "num_class": target.outputs, "base_score": 0.0}
        rows = xgb.DMatrix(
            features.matrix(),
            label=target.y,
            weight=target.weights,
            base_margin=start if target.outputs > 1 else start[:, 0],  # row after row
            missing=self._missing,
            nthread=self.threads,
        )
        try:
            return xgb.train(params, rows, num_boost_round=growth.rounds, verbose_eval=False)
        except xgb.core.XGBoostError as error:
            raise LearnerError(f"XGBoost refused a batch of {len(features)} rows: {error}") from error

    @cached_property
    def _native(self) -> dict[str, Any]:
        ours = {*_THREADS, *_SEEDS, *_L2, *_RATE, "objective", "base_score", "eval_metric", "num_class"}
        params = {k: v for k, v in self.estimator.get_xgb_params().items() if k not in ours and v is not None}
        classifies = self.task == "classification"
        return params | {
            "objective": "binary:logistic" if classifies else "reg:squarederror",
            "base_score": 0.5 if classifies else 0.0,  # a raw score of 0: of two classes it is given as a probability
            "learning_rate": self.rate,
            "nthread": self.threads,
            "seed_per_iteration": True,
            "disable_default_eval_metric": True,
        }

    def raw(self, booster: Any, rows: Floats, outputs: int) -> Floats:
        """Raw scores of the trees."""
        told = self._asked(booster, rows, margin=True)
        return told.astype(np.float64).reshape(len(rows), outputs)

    def read_leaves(self, booster: Any, payload: bytes, features: Features, outputs: int) -> Leaves:  # noqa: ARG002
        """Values by node (inner nodes among them, which no row ends in), one tree per class and round."""
        rows = xgb.DMatrix(features.matrix(), missing=self._missing, nthread=self.threads)
        where = booster.predict(rows, pred_leaf=True).reshape(len(features), -1).astype(np.int64)
        trees = _trees(json.loads(booster.save_raw("json")))
        values = [np.asarray(tree["split_conditions"], dtype=np.float64)[:, None] for tree in trees]
        return Leaves(where=where, values=values)

    def with_leaves(self, booster: Any, payload: bytes, values: list[Floats]) -> bytes:  # noqa: ARG002
        """The same trees with other leaves; XGBoost keeps them in float32."""
        model = json.loads(booster.save_raw("json"))
        for tree, new in zip(_trees(model), values, strict=True):
            told = np.where(np.asarray(tree["left_children"]) < 0, new[:, 0], tree["split_conditions"])
            tree["split_conditions"] = told.tolist()
        return self.dump(self.read(json.dumps(model).encode()))

    # -- trained elsewhere --------------------------------------------------------------------------------------------

    def taken(self, model: Any) -> xgb.Booster:
        """The booster of an estimator, or the booster itself, with the rounds that it is asked for."""
        booster = self._booster(model)
        best = booster.attr("best_iteration")
        # an estimator, and so a file that one wrote, is asked up to the best round; a booster for all
        whole = booster if best is None or not self._of_estimator(model) else booster[: int(best) + 1]
        out = self.read(self.dump(whole))
        if self._linear:  # such a one is asked through a table without names
            out.feature_names = None
        return out

    def _booster(self, model: Any) -> Any:
        return model.get_booster() if isinstance(model, xgb.XGBModel) else model

    def _of_estimator(self, model: Any) -> bool:
        return isinstance(model, xgb.XGBModel) or model.attr("scikit_learn") is not None

    def known(self, model: Any, schema: Schema) -> Known:
        """Names, words of categories, and classes."""
        wanted = type(self.estimator).__name__
        if isinstance(model, xgb.XGBModel):
            if type(model) is not type(self.estimator) or not model.__sklearn_is_fitted__():
                raise boosting.other_model(model, wanted)
            if not np.array_equal(float(model.missing), self._missing, equal_nan=True):
                raise LearnerError(
                    f"the model takes {model.missing} for a null: set missing={model.missing} in `params`"
                )
        elif not isinstance(model, xgb.Booster):
            raise boosting.other_model(model, wanted)
        booster = self._booster(model)
        config = json.loads(booster.save_config())["learner"]
        objective = str(config["objective"]["name"])
        self._refuse_otherwise(objective, str(config["gradient_booster"]["name"]), wanted)
        several = int(config["learner_model_param"]["num_class"])
        classes: tuple[Label, ...] = tuple(range(max(2, several))) if self.task == "classification" else ()
        if classes and isinstance(model, xgb.XGBModel):
            classes = tuple(model.classes_.tolist())
        names = None if booster.feature_names is None else tuple(booster.feature_names)
        same = names == schema.names or (names is None and booster.num_features() == len(schema))
        return Known(
            names=names,
            width=int(booster.num_features()),
            words=boosting.words_meant(schema, self._meant(booster)) if same else {},
            classes=classes,
        )

    def _refuse_otherwise(self, objective: str, kind: str, wanted: str) -> None:
        """Raise ``LearnerError`` if the booster would be asked otherwise than it was trained."""
        if self.task == "classification":
            fits = objective in ("binary:logistic", "multi:softprob", "multi:softmax")
        else:
            fits = not objective.startswith(("binary:", "multi:", "rank:", "survival:"))
        if not fits:
            raise LearnerError(
                f"the model's objective is {objective}, which says nothing that {wanted} says: configure the class "
                "that it was trained with"
            )
        if (objective == "multi:softmax") != self._softmax:
            raise LearnerError(f"the model's objective is {objective}: set objective={objective} in `params`")
        if (kind == "gblinear") != self._linear:
            raise LearnerError(f"the model's booster is {kind}: set booster={kind} in `params`")

    @staticmethod
    def _meant(booster: Any) -> dict[int, list[Any] | None]:
        """What codes of category columns stand for; None for those that were codes already."""
        kinds = booster.feature_types or []
        coded = [i for i, kind in enumerate(kinds) if kind == "c"]
        if not coded:
            return {}
        if not hasattr(booster, "get_categories"):  # before 3.1, a model held codes only
            return dict.fromkeys(coded)
        lists = [words for _, words in booster.get_categories(export_to_arrow=True).to_arrow()]
        return {i: None if i >= len(lists) or lists[i] is None else lists[i].to_pylist() for i in coded}

    # -- stored form --------------------------------------------------------------------------------------------------

    def trees(self, booster: Any) -> int:
        """Trees, over all classes."""
        if self._linear:
            return 0
        return int(booster.num_boosted_rounds()) * self._per_round(booster)

    def _per_round(self, booster: Any) -> int:
        config = json.loads(booster.save_config())["learner"]
        parallel = int(self._set(("num_parallel_tree",), 1))
        if self._set(("multi_strategy",)) == "multi_output_tree":
            return parallel
        return parallel * max(1, int(config["learner_model_param"]["num_class"]))

    def dump(self, booster: Any) -> bytes:
        """XGBoost's binary JSON."""
        return bytes(booster.save_raw("ubj"))

    def read(self, payload: bytes) -> xgb.Booster:
        """A booster from its binary JSON."""
        booster = xgb.Booster({"nthread": self.threads})
        booster.load_model(bytearray(payload))
        return booster

    def learned(self, payload: bytes) -> bytes:
        """All of it: the form holds the model and no settings of its training."""
        return payload


def _trees(model: dict[str, Any]) -> list[dict[str, Any]]:
    trees: list[dict[str, Any]] = model["learner"]["gradient_booster"]["model"]["trees"]
    return trees
