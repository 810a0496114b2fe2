"""Every learner keeps the contract of `perennial.testing.learner_contract`: one line each."""

import hashlib
import importlib
import importlib.util
import json
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perennial.core.errors import DataError
from perennial.core.protocols import Learner, Updatable
from perennial.core.records import Prediction, TaskKind
from perennial.learners import as_learner
from perennial.testing import check_learner, make_examples
from perennial.testing.learner_contract import PARTS


class _Modules(dict[str, Any]):
    """Names of modules, imported when an expression uses them: ``svm`` is ``sklearn.svm``."""

    def __missing__(self, name: str) -> Any:
        for path in (f"perennial.{name}", f"sklearn.{name}", name):
            try:
                return importlib.import_module(path)
            except ModuleNotFoundError:
                continue
        raise KeyError(name)


@dataclass(frozen=True)
class Case:
    """A learner as an expression, so that another process can make it too."""

    name: str
    made: str
    task: TaskKind = "classification"

    def make(self) -> Learner:
        return as_learner(eval(self.made, {}, _Modules()))

    @property
    def needs(self) -> set[str]:
        return {f for f in ("lightgbm", "xgboost", "catboost", "river") if f in self.made}


def _regression(name: str, made: str) -> Case:
    return Case(name, made, "regression")


_LGBM = "lightgbm.LGBM{}(n_estimators=8, num_leaves=7, n_jobs=1, verbose=-1)"
_XGB = "xgboost.XGB{}(n_estimators=8, max_depth=3, n_jobs=1)"
_CAT = "catboost.CatBoost{}(iterations=8, depth=3, thread_count=1, verbose=False, allow_writing_files=False)"
_RF = "ensemble.RandomForest{}(6, max_depth=4)"
_PICK = "compose.ColumnTransformer([('n', preprocessing.StandardScaler(), ['x0', 'x1'])], remainder='passthrough')"
_SCALED = "pipeline.make_pipeline(preprocessing.StandardScaler(), {})"
_LOG = "linear_model.SGDClassifier(loss='log_loss')"
_NET = "neural_network.MLP{}(hidden_layer_sizes=(8,), learning_rate_init=0.05, max_iter=40)"

CASES = [
    Case("sgd", _LOG),
    Case("sgd-average", "linear_model.SGDClassifier(average=True)"),
    Case("sgd-adaptive", "linear_model.SGDClassifier(learning_rate='adaptive', eta0=0.1)"),
    Case("sgd-scaled", _SCALED.format(_LOG)),
    Case("perceptron", "linear_model.Perceptron()"),
    Case("logistic", "linear_model.LogisticRegression()"),
    Case("columns", f"pipeline.make_pipeline({_PICK}, linear_model.LogisticRegression())"),
    Case("gaussian-nb", "naive_bayes.GaussianNB()"),
    Case("bernoulli-nb", "naive_bayes.BernoulliNB()"),
    Case("mlp", _NET.format("Classifier")),
    Case("forest", _RF.format("Classifier")),
    Case("hist-boosting", "ensemble.HistGradientBoostingClassifier(max_iter=5)"),
    Case("neighbours", "neighbors.KNeighborsClassifier(3)"),
    Case("svc", "svm.SVC()"),
    Case("search", "model_selection.GridSearchCV(tree.DecisionTreeClassifier(), {'max_depth': [2, 3]}, cv=2)"),
    Case("sliding-forest", f"learners.SlidingForest({_RF.format('Classifier')}, trees=3, size=3)"),
    Case("sliding-extra", "learners.SlidingForest(ensemble.ExtraTreesClassifier(6), trees=3, size=2, drop='oldest')"),
    Case("calibrated-sgd", f"learners.Calibrated({_LOG})"),
    Case("calibrated-forest", f"learners.Calibrated({_RF.format('Classifier')})"),
    Case("calibrated-frozen", f"learners.Calibrated({_RF.format('Classifier')}, inner='frozen')"),
    _regression("sgd-regressor", "linear_model.SGDRegressor()"),
    _regression("ridge", "linear_model.Ridge()"),
    _regression("mlp-regressor", _NET.format("Regressor")),
    _regression("forest-regressor", _RF.format("Regressor")),
    _regression("sliding-forest-regressor", f"learners.SlidingForest({_RF.format('Regressor')}, trees=3, size=3)"),
    Case("plain-logistic", "learners.plain.Logistic(forgetting=0.99)"),
    Case("plain-gaussian-nb", "learners.plain.GaussianNB()"),
    _regression("plain-linear", "learners.plain.Linear(forgetting=0.99)"),
    _regression("plain-ridge", "learners.plain.Ridge()"),
    Case("calibrated-plain", "learners.Calibrated(learners.plain.Logistic())"),
    Case("river-logistic", "(river_preprocessing.StandardScaler() | river_linear.LogisticRegression())"),
    Case("river-naive-bayes", "river_naive_bayes.GaussianNB()"),
    Case("river-tree", "river_tree.HoeffdingTreeClassifier(grace_period=20)"),
    _regression("river-linear", "(river_preprocessing.StandardScaler() | river_linear.LinearRegression())"),
]
for _name, _made in (("lightgbm", _LGBM), ("xgboost", _XGB), ("catboost", _CAT)):
    _class, _reg = _made.format("Classifier"), _made.format("Regressor")
    CASES += [
        Case(_name, _class),
        Case(f"{_name}-early", f"learners.EarlyStopped({_class}, rounds=3)"),
        Case(f"{_name}-decayed", f"learners.Decayed({_class}, trees=4)"),
        Case(f"{_name}-refit", f"learners.LeafRefit({_class})"),
        Case(f"{_name}-continued", f"learners.Continued({_class}, trees=4)"),
        _regression(f"{_name}-regressor", _reg),
        _regression(f"{_name}-decayed-regressor", f"learners.Decayed({_reg}, trees=4)"),
        _regression(f"{_name}-refit-regressor", f"learners.LeafRefit({_reg})"),
        _regression(f"{_name}-continued-regressor", f"learners.Continued({_reg}, trees=4)"),
    ]
