"""Every learner keeps the contract of `perennial.testing.learner_contract`: one line each."""

import copy
import hashlib
import importlib
import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from perennial.core.protocols import LOCAL, Learner, Pickled, Servable, Sized, Trust, Updatable
from perennial.core.records import Prediction, TaskKind
from perennial.learners import as_learner
from perennial.testing import check_learner, make_examples
from perennial.testing.learner_contract import PARTS


class _Modules(dict[str, Any]):
    """Names of modules, imported when an expression uses them: ``svm`` is ``sklearn.svm``."""

    def __missing__(self, name: str) -> Any:
        for path in (f"perennial.{name}", f"sklearn.{name}", name.replace("river_", "river.")):
            if importlib.util.find_spec(path):
                return importlib.import_module(path)
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
    def needs(self) -> list[str]:
        optional = ("lightgbm", "xgboost", "catboost", "river", "torch")
        found = [framework for framework in optional if framework in self.made]
        return [*found, "safetensors"] if "torch" in found else found


def _regression(name: str, made: str) -> Case:
    return Case(name, made, "regression")


_LGBM = "lightgbm.LGBM{}(n_estimators=8, num_leaves=7, n_jobs=1, verbose=-1)"
_XGB = "xgboost.XGB{}(n_estimators=8, max_depth=3, n_jobs=1)"
_CAT = "catboost.CatBoost{}(iterations=8, depth=3, thread_count=1, verbose=False, allow_writing_files=False)"
_RF = "ensemble.RandomForest{}(6, max_depth=4)"
_PICK = "compose.ColumnTransformer([('n', preprocessing.StandardScaler(), ['x0', 'x1'])], remainder='passthrough')"
_SCALED = "pipeline.make_pipeline(preprocessing.StandardScaler(), {})"
_TREE = "tree.DecisionTreeClassifier(max_depth=3)"
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
    Case("hist-boosting-early", "ensemble.HistGradientBoostingClassifier(max_iter=5, early_stopping=True)"),
    Case("gradient-boosting", "ensemble.GradientBoostingClassifier(n_estimators=5)"),
    Case("bagging", "ensemble.BaggingClassifier(n_estimators=3)"),
    Case("voting", f"ensemble.VotingClassifier([('a', {_TREE}), ('b', linear_model.Perceptron())])"),
    Case("stacking", f"ensemble.StackingClassifier([('a', {_TREE}), ('b', naive_bayes.GaussianNB())])"),
    Case("calibrated-cv", "calibration.CalibratedClassifierCV(linear_model.LogisticRegression())"),
    Case("neighbours", "neighbors.KNeighborsClassifier(3)"),
    Case("neighbours-ball", "neighbors.KNeighborsClassifier(3, algorithm='ball_tree')"),
    Case("svc", "svm.SVC()"),
    Case("search", "model_selection.GridSearchCV(tree.DecisionTreeClassifier(), {'max_depth': [2, 3]}, cv=2)"),
    Case("sliding-forest", f"learners.SlidingForest({_RF.format('Classifier')}, trees=3, size=3)"),
    Case("sliding-extra", "learners.SlidingForest(ensemble.ExtraTreesClassifier(6), trees=3, size=2, drop='oldest')"),
    Case("calibrated-sgd", f"learners.Calibrated({_LOG})"),
    Case("calibrated-forest", f"learners.Calibrated({_RF.format('Classifier')})"),
    Case("calibrated-frozen", f"learners.Calibrated({_RF.format('Classifier')}, inner='frozen')"),
    _regression("sgd-regressor", "linear_model.SGDRegressor()"),
    _regression("ridge", "linear_model.Ridge()"),
    _regression("svr", "svm.SVR()"),
    _regression("neighbours-regressor", "neighbors.KNeighborsRegressor(3)"),
    _regression("hist-boosting-regressor", "ensemble.HistGradientBoostingRegressor(max_iter=5)"),
    _regression("mlp-regressor", _NET.format("Regressor")),
    _regression("forest-regressor", _RF.format("Regressor")),
    _regression("sliding-forest-regressor", f"learners.SlidingForest({_RF.format('Regressor')}, trees=3, size=3)"),
    Case("plain-logistic", "learners.plain.Logistic(forgetting=0.99)"),
    Case("plain-gaussian-nb", "learners.plain.GaussianNB()"),
    _regression("plain-linear", "learners.plain.Linear(forgetting=0.99)"),
    _regression("plain-ridge", "learners.plain.Ridge()"),
    Case("ensemble", "learners.AccuracyUpdated(naive_bayes.GaussianNB(), size=3)"),
    Case("ensemble-forest", f"learners.AccuracyUpdated({_RF.format('Classifier')}, size=2)"),
    _regression("ensemble-regressor", "learners.AccuracyUpdated(learners.plain.Ridge(), size=3)"),
    Case("rebuilt", f"learners.Rebuilt({_RF.format('Classifier')}, rows=150, every=2)"),
    Case("rebuilt-sgd", f"learners.Rebuilt({_LOG}, rows=150)"),
    _regression("rebuilt-ridge", "learners.Rebuilt(learners.plain.Ridge(), rows=150, every=2)"),
    Case("tuned", "learners.Tuned(tree.DecisionTreeClassifier(), {'max_depth': [2, 3]})"),
    Case("tuned-sgd", f"learners.Tuned({_LOG}, {{'alpha': [1e-4, 1e-2, 1.0]}}, trials=2)"),
    Case("prior-corrected", "learners.PriorCorrected(naive_bayes.GaussianNB(), memory=50)"),
    Case("committee", "learners.committee.committee({'a': naive_bayes.GaussianNB(), 'b': learners.plain.Logistic()})"),
    Case(
        "committee-copies",
        "learners.committee.committee({'sgd': " + _LOG + ", 'window': learners.Rebuilt(learners.plain.Logistic(), "
        "rows=200), 'frozen': " + _RF.format("Classifier") + "}, champions=2, every=2)",
    ),
    _regression(
        "committee-regressor",
        "learners.committee.committee({'a': learners.plain.Linear(), 'b': linear_model.SGDRegressor()}, champions=1, "
        "every=1)",
    ),
    Case("hashed-ftrl", "learners.hashed.FTRL(bits=12, l1=0.1)"),
    Case("hashed-adagrad", "learners.hashed.AdaGrad(bits=12)"),
    Case("calibrated-plain", "learners.Calibrated(learners.plain.Logistic())"),
    Case("river-logistic", "river_preprocessing.StandardScaler() | river_linear_model.LogisticRegression()"),
    Case("river-softmax", "river_preprocessing.StandardScaler() | river_linear_model.SoftmaxRegression()"),
    Case("river-naive-bayes", "river_naive_bayes.GaussianNB()"),
    Case("river-tree", "river_tree.HoeffdingTreeClassifier(grace_period=20)"),
    _regression("river-linear", "river_preprocessing.StandardScaler() | river_linear_model.LinearRegression()"),
]
for _name, _made in (("lightgbm", _LGBM), ("xgboost", _XGB), ("catboost", _CAT)):
    _class, _reg = _made.format("Classifier"), _made.format("Regressor")
    CASES += [
        Case(_name, _class),
        Case(f"{_name}-early", f"learners.EarlyStopped({_class}, rounds=3)"),
        Case(f"{_name}-decayed", f"learners.Decayed({_class}, trees=4)"),
        Case(f"{_name}-refit", f"learners.LeafRefit({_class})"),
        Case(f"{_name}-continued", f"learners.Continued({_class}, trees=4)"),
        Case(f"{_name}-ensemble", f"learners.AccuracyUpdated({_class}, size=3)"),
        Case(f"{_name}-committee", f"learners.committee.light({_name!r}, champions=1, every=2)"),
        _regression(f"{_name}-regressor", _reg),
        _regression(f"{_name}-decayed-regressor", f"learners.Decayed({_reg}, trees=4)"),
        _regression(f"{_name}-refit-regressor", f"learners.LeafRefit({_reg})"),
        _regression(f"{_name}-continued-regressor", f"learners.Continued({_reg}, trees=4)"),
    ]


_TUNED = "learners.FineTuned('torch.nn.{}', epochs=12, update_epochs=4, rows=16, rate=0.03, {})"
CASES += [
    Case("torch-head", _TUNED.format("Identity", "replay=40, anchor=0.01")),
    Case("torch-own-outputs", _TUNED.format("Linear", "params={'in_features': 4, 'out_features': 3}, head=False")),
    _regression(
        "torch-regressor", _TUNED.format("Linear", "params={'in_features': 4, 'out_features': 8}, task='regression'")
    ),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(case: Case, part: Callable[[Callable[[], Learner], TaskKind], None]) -> None:
    """The sentence of this part holds for this learner."""
    for framework in case.needs:
        pytest.importorskip(framework)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")
        warnings.filterwarnings("ignore", "naive continued boosting is a baseline")
        part(case.make, case.task)


@pytest.mark.filterwarnings("ignore:naive continued boosting is a baseline")
def test_only_river_needs_a_pickle() -> None:
    """Every learner that is shipped says truly whether production must allow pickles for it, and only River does."""
    for case in CASES:
        if all(importlib.util.find_spec(framework) for framework in case.needs):
            model = case.make()
            assert (isinstance(model, Pickled) and model.needs_pickle) == ("river" in case.made), case.name


@pytest.mark.filterwarnings("ignore:naive continued boosting is a baseline")
def test_every_learner_says_how_large_it_is() -> None:
    """A gate may limit any that is shipped; the contract holds the size to be that of the state."""
    for case in CASES:
        if all(importlib.util.find_spec(framework) for framework in case.needs):
            assert isinstance(case.make(), Sized), case.name


@pytest.mark.filterwarnings("ignore:naive continued boosting is a baseline")
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_every_learner_but_river_has_a_quick_form() -> None:
    """Of rows of numbers each can be asked in a matrix, once it is trained; River takes dicts, and has none."""
    for case in CASES:
        if all(importlib.util.find_spec(framework) for framework in case.needs):
            model = case.make().fit(make_examples(120, task=case.task), 1)
            form = model.serving() if isinstance(model, Servable) else None
            assert (form is None) == ("river" in case.made or case.name == "columns"), case.name


# a line each of what saves in its own way
ELSEWHERE = ("sgd-scaled", "sliding-forest", "calibrated-sgd", "plain-logistic", "hashed-adagrad", "river-tree")
ELSEWHERE += ("lightgbm-decayed", "xgboost-decayed", "catboost-decayed")
ELSEWHERE = ("sgd-scaled", "sliding-forest", "calibrated-sgd", "plain-logistic", "river-tree", "lightgbm-decayed")
ELSEWHERE += ("xgboost-decayed", "catboost-decayed", "torch-head")


def test_a_saved_model_predicts_the_same_in_another_process(tmp_path: Path) -> None:
    """What one process saved and updated further, another loads and updates further, bit for bit alike."""
    cases = [c for c in CASES if c.name in ELSEWHERE and all(importlib.util.find_spec(f) for f in c.needs)]
    here = {}
    for case in cases:
        model = case.make().fit(make_examples(120, task=case.task), 1)
        (tmp_path / case.name).write_bytes(model.save())
        here[case.name] = _went_on(model)
    code = (
        "import json, pathlib, runpy, sys; module = runpy.run_path(sys.argv[1]); folder = pathlib.Path(sys.argv[2]);"
        "print(json.dumps({c.name: module['_went_on'](c.make().load((folder / c.name).read_bytes()))"
        " for c in module['CASES'] if (folder / c.name).exists()}))"
    )
    child = subprocess.run([sys.executable, "-c", code, __file__, str(tmp_path)], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout) == here


def _went_on(model: Learner) -> list[str]:
    """Digests of a model's state and predictions after one more update."""
    data = make_examples(160, task=model.task)
    assert isinstance(model, Updatable)
    model.update(data.slice(120, 160), 2)
    said = model.predict(data.features)
    shown = said.values if said.proba is None else said.proba
    assert shown is not None
    return [model.digest(), hashlib.sha256(shown.tobytes()).hexdigest()]


class Forgetful:
    """A learner made wrong on purpose, one fault at a time: does the contract notice?"""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._inside = as_learner("sklearn.linear_model.SGDClassifier", params={"loss": "log_loss"}).begin()  # type: ignore[attr-defined]

    name, task, resumes = "Forgetful", "classification", True

    def identity(self) -> str:
        return str(id(self)) if self._fault == "identity" else "forgetful"

    def _with(self, inside: Any) -> Any:
        new = Forgetful(self._fault)
        new._inside = inside
        return new

    def begin(self) -> Any:
        return Forgetful(self._fault)

    def fit(self, examples: Any, seed: int) -> Any:
        if self._fault == "weights":
            examples = replace(examples, weights=None)
        if self._fault == "scratch" and self._inside._model is not None:
            self._inside.update(examples, seed)
            return self
        return self._with(self._inside.fit(examples, id(examples) if self._fault == "seed" else seed))

    def update(self, examples: Any, seed: int) -> None:
        if self._fault != "update":
            self._inside.update(examples, seed)

    def predict(self, features: Any) -> Prediction:
        if self._fault == "pure" and self._inside._model is not None:
            self._inside._model.t_ += 1
        said = self._inside.predict(features)
        if self._fault == "classes" and said.codes is not None and (said.codes >= 0).all():
            return replace(said, classes=said.classes[::-1])
        return said

    def save(self, trust: Trust = LOCAL) -> bytes:
        trust = LOCAL if self._fault == "trust" else trust
        if self._fault == "resume" and self._inside._model is not None:
            model = copy.deepcopy(self._inside)
            model._model.t_ = 1.0
            return model.save(trust)
        return self._inside.save(trust)

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Any:
        trust = LOCAL if self._fault == "trust" else trust
        return self._with(self._inside if self._fault == "format" else self._inside.load(blob, trust))

    def digest(self) -> str:
        return self._inside.digest()

    def row_trees(self, rows: int) -> int:
        return 0

    def check(self, features: Any) -> None:
        if self._fault != "check":
            self._inside.check(features)


FAULTS = ("identity", "weights", "scratch", "seed", "update", "pure", "classes", "resume", "format", "check", "trust")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contract_notices(fault: str) -> None:
    """A learner with one fault fails the contract."""
    with pytest.raises((AssertionError, ValueError)):
        check_learner(lambda: Forgetful(fault), "classification")


def test_the_contract_has_no_other_complaint() -> None:
    """The same learner without a fault passes."""
    check_learner(lambda: Forgetful("none"), "classification")
