"""XGBoost learners: the user's own numbers, layouts by a gradient oracle, and updates that resume."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perennial.core.errors import ConfigError, LearnerError
from perennial.core.records import Examples
from perennial.learners.boosting import Growth, Target, gradients, refitted
from perennial.testing import make_examples

xgb = pytest.importorskip("xgboost")
ours = pytest.importorskip("perennial.learners.xgboost")

CLASSES = {1: ("x",), 2: ("yes", "no"), 3: ("b", "c", "a")}
SMALL = {"n_estimators": 5, "max_depth": 3}


def _examples(n: int, classes: int = 2, **more: Any) -> Examples:
    return make_examples(n, classes=CLASSES[classes], **more)


def _without(examples: Examples, code: int) -> Examples:
    return examples.take(np.flatnonzero(examples.codes != code))


@pytest.mark.parametrize(("classes", "objective"), [(2, None), (3, None), (3, "multi:softmax")])
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_is_the_users_own_fit(classes: int, objective: str | None, weighted: bool) -> None:
    """Probabilities equal, bit for bit, those of a plain loop over encoded labels."""
    examples = _examples(300, classes, missing=True, categories=1)
    if weighted:
        examples = replace(examples, weights=np.linspace(0.1, 2, 300))
    params = {"n_estimators": 8, "subsample": 0.7, "colsample_bytree": 0.7, "n_jobs": 1, "objective": objective}
    names, codes = np.unique(examples.y, return_inverse=True)
    matrix = examples.features.matrix()
    plain = xgb.XGBClassifier(**params).fit(matrix, codes, sample_weight=examples.weights)
    learner = ours.wrap(xgb.XGBClassifier(**params))
    model = learner.fit(examples, 99)
    told = model.predict(examples.features)
    assert told.classes == tuple(names.tolist())
    assert np.array_equal(told.proba, plain.predict_proba(matrix))
    assert np.array_equal(learner.load(model.save()).predict(examples.features).proba, told.proba)


@pytest.mark.parametrize("booster", ["gbtree", "gblinear"])
def test_regression_is_the_users_own_fit(booster: str) -> None:
    """Values equal those of a plain loop bit for bit, of trees and of linear boosters."""
    examples = make_examples(300, task="regression")
    params = {"n_estimators": 8, "booster": booster, "n_jobs": 1}
    plain = xgb.XGBRegressor(**params).fit(examples.features.matrix(), examples.y)
    model = ours.wrap(xgb.XGBRegressor(**params)).fit(examples, 1)
    assert np.array_equal(model.predict(examples.features).values, plain.predict(examples.features.matrix()))
    assert model.row_trees(10) == (80 if booster == "gbtree" else 0)


def test_a_new_category_code_is_predicted() -> None:
    """A word that training never saw does not crash the prediction."""
    examples = _examples(200, categories=1)
    codes = examples.features.matrix()[:, 4]
    model = ours.wrap(xgb.XGBClassifier(**SMALL)).fit(examples.take(np.flatnonzero(codes < 2)), 1)
    assert np.isfinite(model.predict(examples.features).proba).all()


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_new_trees_start_at_the_given_scores(classes: int) -> None:
    """Each leaf of the first tree is the Newton step at ``start``: for regression, two and three classes.

    The starting scores differ by row and class, so a layout that mixes them up cannot pass.
    """
    task = "regression" if classes == 1 else "classification"
    examples = make_examples(300, task=task, classes=CLASSES[classes])
    estimator = xgb.XGBRegressor(max_depth=2) if classes == 1 else xgb.XGBClassifier(max_depth=2)
    engine = ours.XGBoost(estimator, updates=True)
    y = examples.values if examples.codes is None else examples.codes.astype(np.float64)
    target = Target(y=y, classes=0 if classes == 1 else classes, weights=np.linspace(0.5, 1.5, 300))
    start = np.random.default_rng(5).normal(size=(300, target.outputs))
    booster = engine.grow(examples.features, target, start, Growth(rounds=1, leaves=4, l2=5.0, seed=1))
    slope, curve = gradients(start, target)
    if target.outputs > 1:
        curve = curve * (2 * (classes - 1) / classes)  # XGBoost's own bound: 2 p (1 - p)
    leaves = engine.read_leaves(booster, engine.dump(booster), examples.features, target.outputs)
    assert len(leaves.values) == target.outputs
    for j, values in enumerate(leaves.values):
        reached = np.unique(leaves.where[:, j])
        assert len(reached) > 1
        for leaf in reached:
            rows = leaves.where[:, j] == leaf
            step = -engine.rate * slope[rows, j].sum() / (curve[rows, j].sum() + 5.0)
            assert values[leaf, 0] == pytest.approx(step, rel=1e-4)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_raw_scores_leave_the_start_out_and_leaves_add_up_to_them(classes: int) -> None:
    """The sum of the leaves that a row reaches is its raw score: no base score hides in it."""
    task = "regression" if classes == 1 else "classification"
    examples = make_examples(200, task=task, classes=CLASSES[classes])
    engine = ours.XGBoost(xgb.XGBRegressor() if classes == 1 else xgb.XGBClassifier(), updates=True)
    y = examples.values if examples.codes is None else examples.codes.astype(np.float64)
    target = Target(y=y, classes=0 if classes == 1 else classes)
    start = np.full((200, target.outputs), 0.7)
    booster = engine.grow(examples.features, target, start, Growth(rounds=4, leaves=5, l2=5.0, seed=1))
    leaves = engine.read_leaves(booster, engine.dump(booster), examples.features, target.outputs)
    total = np.zeros_like(start)
    for tree, values in enumerate(leaves.values):
        total[:, tree % target.outputs] += values[leaves.where[:, tree], 0]
    np.testing.assert_allclose(engine.raw(booster, engine.rows(examples.features), target.outputs), total, atol=1e-5)
    assert max(len(np.unique(leaves.where[:, tree])) for tree in range(len(leaves.values))) <= 5


def test_written_leaves_are_predicted() -> None:
    """What is written into the leaves is what the booster says, up to its float32."""
    examples = _examples(200, 3)
    assert examples.codes is not None
    engine = ours.XGBoost(xgb.XGBClassifier(), updates=True)
    target = Target(y=examples.codes.astype(np.float64), classes=3)
    start = np.zeros((200, 3))
    booster = engine.grow(examples.features, target, start, Growth(rounds=3, leaves=6, l2=1.0, seed=1))
    leaves = engine.read_leaves(booster, engine.dump(booster), examples.features, 3)
    moved = refitted(leaves, start, target, decay=0.5, rate=0.3, l2=1.0)
    total = np.zeros((200, 3))
    for tree, values in enumerate(moved):
        total[:, tree % 3] += values[leaves.where[:, tree], 0]
    again = engine.read(engine.with_leaves(booster, engine.dump(booster), moved))
    np.testing.assert_allclose(engine.raw(again, engine.rows(examples.features), 3), total, atol=1e-5)
    assert not np.allclose(total, engine.raw(booster, engine.rows(examples.features), 3), atol=1e-3)


def test_a_batch_that_lacks_a_class_trains() -> None:
    """Decayed boosting and leaf refit go on over batches without a class, and then with all again."""
    examples = _examples(900, 3)
    for make in (ours.decayed, ours.leaf_refit):
        model = make(xgb.XGBClassifier(**SMALL)).fit(examples.slice(0, 300), 1)
        model.update(_without(examples.slice(300, 600), 0), 2)
        model.update(examples.slice(600, 900), 3)
        told = model.predict(examples.features)
        named = np.array([told.classes[code] for code in told.codes])
        assert (named == examples.y).mean() > 0.7


@pytest.mark.parametrize("make", [ours.decayed, ours.leaf_refit])
def test_going_on_after_loading_is_going_on(make: Any) -> None:
    """Saving and loading before every update, with sampling, gives the bytes of a straight run.

    Other trainings in between move XGBoost's global random state, and must not matter.
    """
    examples = _examples(700, 3)
    estimator = xgb.XGBClassifier(**SMALL, subsample=0.6, colsample_bytree=0.6)
    straight = make(estimator).fit(examples.slice(0, 300), 1)
    resumed = make(estimator).load(straight.save())
    for at in range(300, 700, 200):
        straight.update(examples.slice(at, at + 200), at)
        ours.wrap(estimator).fit(examples.slice(0, 100), 5)
        resumed.update(examples.slice(at, at + 200), at)
        resumed = make(estimator).load(resumed.save())
        assert straight.save() == resumed.save()


def test_early_stopping_ends_on_the_newest_rows_and_trains_on_all() -> None:
    """The rounds are those that the newest fifth likes best, and the model is a plain fit with that many."""
    examples = _examples(400, 3)
    params = {"n_estimators": 200, "max_depth": 3, "n_jobs": 1}
    model = ours.early_stopped(xgb.XGBClassifier(**params), share=0.25, rounds=5).fit(examples, 1)
    matrix, y = examples.features.matrix(), np.unique(examples.y, return_inverse=True)[1]
    search = xgb.XGBClassifier(**params, early_stopping_rounds=5)
    search.fit(matrix[:300], y[:300], eval_set=[(matrix[300:], y[300:])], verbose=False)
    best = search.best_iteration + 1
    assert 1 < best < 150
    plain = xgb.XGBClassifier(**params | {"n_estimators": best}).fit(matrix, y)
    assert np.array_equal(model.predict(examples.features).proba, plain.predict_proba(matrix))
    assert model.row_trees(400) == 300 * 3 * (best + 5) + 400 * 3 * best


def test_what_cannot_be_updated_is_refused_at_once() -> None:
    """Objectives, boosters and class weights that updates do not know fail before any training, by name."""
    for params, word in (
        ({"objective": "binary:hinge"}, "objective"),
        ({"booster": "dart"}, "booster"),
        ({"num_parallel_tree": 3}, "num_parallel_tree"),
        ({"scale_pos_weight": 3.0}, "scale_pos_weight"),
    ):
        with pytest.raises(ConfigError, match=word):
            ours.leaf_refit(xgb.XGBClassifier(**params))
    with pytest.raises(ConfigError, match="objective"):
        ours.wrap(xgb.XGBClassifier(objective="binary:logitraw"))
    with pytest.raises(ConfigError, match="XGBClassifier"):
        ours.wrap(object())
    with pytest.warns(UserWarning, match="worse than never updating"):
        ours.continued(xgb.XGBClassifier())


def test_a_refusal_of_the_framework_is_a_learner_error() -> None:
    """What XGBoost refuses names XGBoost and its reason."""
    with pytest.raises(LearnerError, match="XGBoost refused"):
        ours.wrap(xgb.XGBClassifier(max_depth=-1)).fit(_examples(40), 1)
