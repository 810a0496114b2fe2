"""What is exported loads with its framework alone, and predicts the same, bit for bit."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from perennial import learners
from perennial.core.errors import LearnerError
from perennial.core.protocols import Learner, Trust, Updatable
from perennial.core.records import Examples
from perennial.learners import as_learner, plain
from perennial.learners.export import export
from perennial.testing import make_examples

TWO = make_examples(150)
THREE = make_examples(150, classes=("b", "c", "a"))
NUMBERS = make_examples(150, task="regression")
X = TWO.features.matrix()

_PARAMS: dict[str, dict[str, Any]] = {
    "lightgbm.LGBM": {"n_estimators": 6, "num_leaves": 7, "n_jobs": 1, "verbose": -1},
    "xgboost.XGB": {"n_estimators": 6, "max_depth": 3, "n_jobs": 1},
    "catboost.CatBoost": {
        "iterations": 6,
        "depth": 3,
        "verbose": False,
        "thread_count": 1,
        "allow_writing_files": False,
    },
}


def booster(framework: str, data: Examples) -> Any:
    """A learner of a framework for a task."""
    pytest.importorskip(framework.partition(".")[0])
    kind = "Regressor" if data.codes is None else "Classifier"
    return as_learner(f"{framework}{kind}", params=_PARAMS[framework])


def opened(path: Path) -> Any:
    """A booster by its own framework alone."""
    match path.suffix:
        case ".txt":
            import lightgbm

            return lightgbm.Booster(model_file=str(path))
        case ".ubj":
            import xgboost

            return xgboost.Booster(model_file=str(path))
    import catboost

    return catboost.CatBoost().load_model(str(path))


def raw(path: Path) -> np.ndarray[Any, Any]:
    """Raw scores of a booster, by its own framework alone."""
    import xgboost

    model = opened(path)
    match path.suffix:
        case ".txt":
            scores = model.predict(X, raw_score=True)
        case ".ubj":
            scores = model.predict(xgboost.DMatrix(X), output_margin=True)
        case _:
            scores = model.predict(X, prediction_type="RawFormulaVal")
    return np.asarray(scores, dtype=np.float64).reshape(len(X), -1)


@pytest.mark.parametrize("data", [TWO, THREE, NUMBERS], ids=["two", "three", "regression"])
@pytest.mark.parametrize(
    ("framework", "ending"), [("lightgbm.LGBM", "txt"), ("xgboost.XGB", "ubj"), ("catboost.CatBoost", "cbm")]
)
def test_boosters_are_their_own_files(framework: str, ending: str, data: Examples, tmp_path: Path) -> None:
    """LightGBM's text, XGBoost's binary JSON, CatBoost's cbm: one file, and a line that names the classes in order."""
    model = booster(framework, data).fit(data, 1)
    written = export(model, tmp_path / "new", "v3", schema=data.features.schema)
    assert written.path == tmp_path / "new" / f"v3.{ending}"
    assert [c["name"] for c in json.loads((tmp_path / "new" / "v3.columns.json").read_text())] == list(
        data.features.names
    )
    said = model.predict(data.features)
    told = opened(written.path)
    if ending == "ubj":
        import xgboost

        shown = told.predict(xgboost.DMatrix(X))
    elif ending == "cbm":
        shown = told.predict(X, prediction_type="Probability") if data.codes is not None else told.predict(X)
        shown = shown[:, 1] if data is TWO else shown
    else:
        shown = told.predict(X)
    if data.codes is None:
        np.testing.assert_array_equal(np.asarray(shown, dtype=np.float64), said.values)
        return
    assert f"classes, in order: {list(said.classes)}" in written.readme
    assert said.proba is not None
    np.testing.assert_array_equal(np.asarray(shown, dtype=np.float64), said.proba[:, 1] if data is TWO else said.proba)


@pytest.mark.parametrize("data", [TWO, THREE, NUMBERS], ids=["two", "three", "regression"])
@pytest.mark.parametrize("framework", list(_PARAMS))
@pytest.mark.parametrize("kind", ["Decayed", "LeafRefit"])
def test_updated_boosters_are_a_folder(framework: str, kind: str, data: Examples, tmp_path: Path) -> None:
    """A file per member, and the weights and the offset by which their scores are put together."""
    pytest.importorskip("xgboost")
    inner = booster(framework, data)._engine.estimator
    learner: Any = learners.Decayed(inner, trees=3) if kind == "Decayed" else learners.LeafRefit(inner)
    model = learner.fit(data.slice(0, 80), 1)
    model.update(data.slice(80, 120), 2)
    model.update(data.slice(120, 150), 3)
    written = export(model, tmp_path, "v4.2")
    facts = json.loads((written.path / "ensemble.json").read_text())
    assert written.path == tmp_path / "v4.2"
    assert len(facts["members"]) == (3 if kind == "Decayed" else 1)
    total = np.zeros((len(X), len(facts["prior"])))
    for member in facts["members"]:
        total += member["weight"] * raw(written.path / member["file"])
    if facts["clip"] is not None:
        total = np.clip(total, -facts["clip"], facts["clip"])
    score = np.array(facts["prior"]) + total
    said = model.predict(data.features)
    if data.codes is None:
        np.testing.assert_array_equal(score[:, 0], said.values)
    elif data is TWO:
        second = 1 / (1 + np.exp(-score[:, 0]))
        np.testing.assert_array_equal(np.column_stack([1 - second, second]), said.proba)
    else:
        shares = np.exp(score - score.max(axis=1, keepdims=True))
        np.testing.assert_array_equal(shares / shares.sum(axis=1, keepdims=True), said.proba)
    assert facts["classes"] == list(said.classes)


def skopsed(path: Path, readme: str) -> Any:
    """An estimator by skops alone, as the line says."""
    found = re.search(r"trusted=(\[.*?\])", readme)
    assert found
    return skops.io.load(path, trusted=eval(found[1]))


def test_estimators_are_files_of_skops(tmp_path: Path) -> None:
    """Any estimator or pipeline, with labels as the user wrote them; what the line says is enough to open it."""
    for number, estimator in enumerate(
        [LogisticRegression(), RandomForestClassifier(5), make_pipeline(FunctionTransformer(), GaussianNB())]
    ):
        model = as_learner(estimator).fit(THREE, 1)
        written = export(model, tmp_path, f"v{number}")
        assert written.path.suffix == ".skops"
        told = skopsed(written.path, written.readme)
        rows = THREE.features.frame() if number == 2 else X
        said = model.predict(THREE.features)
        np.testing.assert_array_equal(told.predict_proba(rows), said.proba)
        assert told.classes_.tolist() == list(said.classes)
    mixed = as_learner(LogisticRegression()).fit(make_examples(100, classes=("a", 1)), 1)
    assert "its integer labels stand for ['a', 1]" in export(mixed, tmp_path, "mixed").readme


@pytest.mark.parametrize("data", [THREE, NUMBERS], ids=["three", "regression"])
def test_sliding_forests_are_a_folder(data: Examples, tmp_path: Path) -> None:
    """A forest per file, and their weights."""
    forest = RandomForestRegressor(4) if data.codes is None else RandomForestClassifier(4)
    model = learners.SlidingForest(forest, trees=2, size=3).fit(data.slice(0, 80), 1)
    assert isinstance(model, Updatable)
    model.update(data.slice(80, 150), 2)
    written = export(model, tmp_path, "v1", schema=data.features.schema)
    facts = json.loads((written.path / "ensemble.json").read_text())
    assert (written.path / "columns.json").exists()
    total: Any = 0
    for name, weight in facts["weights"].items():
        member = skopsed(written.path / name, written.readme)
        if data.codes is None:
            total = total + weight * member.predict(X)
            continue
        shares = np.zeros((len(X), len(facts["classes"])))
        shares[:, member.classes_] = member.predict_proba(X)
        total = total + weight * shares
    said = model.predict(data.features)
    np.testing.assert_array_equal(total, said.values if data.codes is None else said.proba)


def test_river_is_a_pickle_where_one_is_allowed(tmp_path: Path) -> None:
    """Without the opt-in it is refused, and nothing is written; with it, River alone reads it."""
    pytest.importorskip("river")
    model = as_learner("river.linear_model.LogisticRegression").fit(TWO, 1)
    with pytest.raises(LearnerError, match=r"serialisation: \{pickle: true\}"):
        export(model, tmp_path / "none", "v1")
    assert not (tmp_path / "none").exists()
    written = export(model, tmp_path, "v1", trust=Trust(pickle=True))
    assert written.path == tmp_path / "v1.pickle"
    assert "True is 'yes'" in written.readme
    told = pickle.loads(written.path.read_bytes())
    said = model.predict(TWO.features)
    assert said.proba is not None
    yes = said.classes.index("yes")
    assert [told.predict_proba_one(row)[True] for row in TWO.features.dicts()] == said.proba[:, yes].tolist()


def design(facts: Any, data: Examples) -> np.ndarray[Any, Any]:
    """The columns that an exported model of ours speaks of."""
    matrix, names = data.features.matrix(), data.features.names
    shown = [(matrix[:, names.index(c["column"])], c.get("code")) for c in facts["columns"]]
    return np.column_stack([values if code is None else values == code for values, code in shown])


def test_models_of_our_own_are_numbers(tmp_path: Path) -> None:
    """Coefficients as JSON: five lines of numpy predict the same."""
    numbers = make_examples(100, task="regression", categories=1)
    for learner in (plain.Linear(forgetting=0.99), plain.Ridge(alpha=2.0), plain.Linear(intercept=False)):
        model: Learner = learner.fit(numbers, 1)
        written = export(model, tmp_path, "line", schema=numbers.features.schema)
        facts = json.loads(written.path.read_text())
        assert written.path.suffix == ".json"
        told = design(facts, numbers) @ np.array(facts["coefficients"]) + facts["intercept"]
        np.testing.assert_array_equal(told, model.predict(numbers.features).values)
    words = json.loads((tmp_path / "line.columns.json").read_text())[-1]["words"]
    assert words == numbers.features.schema.vocabularies["c0"].words
    data = make_examples(100, classes=("b", "c", "a"), categories=1)
    for logistic in (plain.Logistic(), plain.Logistic(intercept=False)):
        model = logistic.fit(data, 1)
        facts = json.loads(export(model, tmp_path, "odds").path.read_text())
        rows = design(facts, data)
        if "[1, x" in facts["asked"]:
            rows = np.column_stack([np.ones(len(rows)), rows - np.array(facts["origin"])])
        chance = 1 / (1 + np.exp(-(rows @ np.array(facts["coefficients"]).T)))
        said = model.predict(data.features).proba
        np.testing.assert_allclose(chance / chance.sum(axis=1, keepdims=True), said, rtol=1e-12)
    model = plain.GaussianNB().fit(THREE, 1)
    facts = json.loads(export(model, tmp_path, "bayes").path.read_text())
    mean, variance = np.array(facts["mean"]), np.array(facts["variance"])
    density = np.exp(-((X[:, None] - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    joint = np.array(facts["prior"]) * density.prod(axis=2)
    np.testing.assert_allclose(
        joint / joint.sum(axis=1, keepdims=True), model.predict(THREE.features).proba, rtol=1e-12
    )


@pytest.mark.parametrize("inside", ["one file", "several"])
def test_calibrated_is_what_is_inside_and_a_correction(inside: str, tmp_path: Path) -> None:
    """The inside as it would be alone, and the slope and shifts as JSON."""
    inner: Any = LogisticRegression() if inside == "one file" else learners.SlidingForest(RandomForestClassifier(3))
    model = learners.Calibrated(inner).fit(THREE, 1)
    written = export(model, tmp_path, "v1")
    facts = json.loads((written.path / "calibration.json").read_text())
    if inside == "several":
        assert (written.path / "model" / "ensemble.json").exists()
        return
    told = skopsed(written.path / "model.skops", written.readme)
    logs = facts["slope"] * np.log(np.maximum(told.predict_proba(X), facts["floor"]))
    shifts = dict(zip(facts["classes"], facts["shifts"], strict=True))
    shares = np.exp(logs + np.array([shifts[label] for label in told.classes_]))
    said = model.predict(THREE.features)
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), said.proba, rtol=1e-12)


def test_what_has_nothing_to_export_says_so(tmp_path: Path) -> None:
    """Untrained models, a window of one class, a learner of another package, an estimator that needs a pickle."""
    assert TWO.codes is not None
    one = TWO.take(np.flatnonzero(TWO.codes == 1))
    untrained = [
        as_learner(SGDClassifier()),
        learners.SlidingForest(RandomForestClassifier()).begin(),
        plain.Linear().begin(),
        plain.Logistic().begin(),
    ]
    for model in untrained:
        with pytest.raises(LearnerError, match=r"fitted|to export"):
            export(model, tmp_path, "none")
    lgb = booster("lightgbm.LGBM", TWO)
    with pytest.raises(LearnerError, match="every label that it saw is 'yes'"):
        export(lgb.fit(one, 1), tmp_path, "none")
    with pytest.raises(LearnerError, match="learned nothing to export"):
        export(learners.Decayed(lgb._engine.estimator).begin(), tmp_path, "none")
    assert not list(tmp_path.iterdir())


def test_an_estimator_that_needs_a_pickle_is_one(tmp_path: Path) -> None:
    """A type that is on no list is refused, and a pickle where one is allowed."""
    model = as_learner(make_pipeline(FunctionTransformer(_doubled), GaussianNB())).fit(TWO, 1)
    with pytest.raises(LearnerError, match=r"_doubled, not on the list"):
        export(model, tmp_path, "v1")
    written = export(model, tmp_path, "v1", trust=Trust(pickle=True))
    assert written.path.suffix == ".pickle"
    told = pickle.loads(written.path.read_bytes())
    np.testing.assert_array_equal(told.predict_proba(TWO.features.frame()), model.predict(TWO.features).proba)


def _doubled(rows: Any) -> Any:
    return 2 * rows
