"""CatBoost learners: the user's own numbers, layouts by a gradient oracle, and absent classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perennial.core.errors import ConfigError, LearnerError
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.records import Examples
from perennial.learners.boosting import Growth, Target, gradients, probabilities, refitted
from perennial.testing import make_examples

cb = pytest.importorskip("catboost")
ours = pytest.importorskip("perennial.learners.catboost")

CLASSES = {1: ("x",), 2: ("yes", "no"), 3: ("b", "c", "a")}
QUIET = {"verbose": False, "allow_writing_files": False, "thread_count": 1}
SMALL = {"iterations": 5, "depth": 3}


def _examples(n: int, classes: int = 2, **more: Any) -> Examples:
    return make_examples(n, classes=CLASSES[classes], **more)


def _without(examples: Examples, *codes: int) -> Examples:
    return examples.take(np.flatnonzero(~np.isin(examples.codes, codes)))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_is_the_users_own_fit(classes: int, weighted: bool) -> None:
    """Probabilities equal, bit for bit, those of a plain loop, before and after saving."""
    examples = _examples(300, classes, missing=True)
    if weighted:
        examples = replace(examples, weights=np.linspace(0.1, 2, 300))
    params = {"iterations": 8, "bootstrap_type": "Bernoulli", "subsample": 0.7}
    matrix = examples.features.matrix()
    plain = cb.CatBoostClassifier(**params, **QUIET).fit(matrix, examples.y, sample_weight=examples.weights)
    learner = ours.wrap(cb.CatBoostClassifier(**params))
    model = learner.fit(examples, 99)
    told = model.predict(examples.features)
    assert told.classes == tuple(plain.classes_.tolist())
    assert np.array_equal(told.proba, plain.predict_proba(matrix))
    assert np.array_equal(learner.load(model.save()).predict(examples.features).proba, told.proba)


@pytest.mark.parametrize("loss", ["RMSE", "Poisson", "RMSEWithUncertainty"])
def test_regression_is_the_users_own_fit(loss: str) -> None:
    """Values equal those of a plain loop bit for bit, the link of the loss included, also once loaded."""
    examples = make_examples(200, task="regression")
    assert examples.values is not None
    examples = replace(examples, values=np.abs(examples.values))
    params = {"iterations": 8, "loss_function": loss}
    plain = cb.CatBoostRegressor(**params, **QUIET).fit(examples.features.matrix(), examples.y)
    learner = ours.wrap(cb.CatBoostRegressor(**params))
    model = learner.fit(examples, 1)
    want = plain.predict(examples.features.matrix())
    want = want[:, 0] if want.ndim > 1 else want
    assert np.array_equal(model.predict(examples.features).values, want)
    assert np.array_equal(learner.load(model.save()).predict(examples.features).values, want)


def test_categories_are_strings_in_a_frame() -> None:
    """Category columns are CatBoost's own categories, nulls the word "nan", as a plain loop would have them."""
    examples = _examples(300, categories=2, missing=True)
    frame = examples.features.frame().copy()
    for name in ("c0", "c1"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "nan")
    plain = cb.CatBoostClassifier(**SMALL, **QUIET).fit(frame, examples.y, cat_features=["c0", "c1"])
    learner = ours.wrap(cb.CatBoostClassifier(**SMALL))
    model = learner.fit(examples, 1)
    assert np.array_equal(model.predict(examples.features).proba, plain.predict_proba(frame))
    assert np.array_equal(learner.load(model.save()).predict(examples.features).proba, plain.predict_proba(frame))


def test_a_whole_number_is_the_same_word_beside_a_null() -> None:
    """A category of whole numbers keeps its words in a batch that has a null: "1" there, and not "1.0"."""
    schema = Schema([Column("shop", Kind.NUMBER, "int64"), Column("a", Kind.NUMBER, "double")])

    def rows(shops: list[int | None]) -> Features:
        columns = {"shop": pa.array(shops, pa.int64()), "a": pa.array(np.linspace(0.0, 1.0, len(shops)))}
        return Features.of(Chunk(pa.table(columns), schema))

    shops = [i % 3 for i in range(300)]
    frame = rows(shops).frame()
    plain = cb.CatBoostClassifier(**SMALL, **QUIET).fit(frame, np.array(shops) == 1, cat_features=["shop"])
    model = ours.wrap(cb.CatBoostClassifier(**SMALL, cat_features=["shop"])).adopted(plain, (False, True))
    for beside in (2, None):
        told = model.predict(rows([1, 0, beside])).proba
        assert told is not None
        assert np.array_equal(told[:2], plain.predict_proba(rows([1, 0, 2]).frame())[:2])


def test_categories_are_updated() -> None:
    """Decayed boosting and leaf refit take category columns too, in batches that lack a class."""
    examples = _examples(600, 3, categories=1, missing=True)
    for make in (ours.decayed, ours.leaf_refit):
        model = make(cb.CatBoostClassifier(**SMALL)).fit(examples.slice(0, 300), 1)
        model.update(_without(examples.slice(300, 600), 0), 2)
        assert np.isfinite(model.predict(examples.features).proba).all()


@pytest.mark.parametrize("classes", [1, 2])
def test_new_trees_start_at_the_given_scores(classes: int) -> None:
    """Each leaf of the first tree is the Newton step at ``start``, in a regression and for two classes."""
    task = "regression" if classes == 1 else "classification"
    examples = make_examples(300, task=task, classes=CLASSES[classes])
    engine = ours.CatBoost(cb.CatBoostRegressor() if classes == 1 else cb.CatBoostClassifier(), updates=True)
    y = examples.values if examples.codes is None else examples.codes.astype(np.float64)
    target = Target(y=y, classes=0 if classes == 1 else classes)
    start = np.random.default_rng(5).normal(size=(300, 1))
    booster = engine.grow(examples.features, target, start, Growth(rounds=1, leaves=4, l2=5.0, seed=1))
    slope, curve = gradients(start, target)
    leaves = engine.read_leaves(booster, engine.dump(booster), examples.features, 1)
    for leaf in np.unique(leaves.where[:, 0]):
        rows = leaves.where[:, 0] == leaf
        step = -engine.rate * slope[rows, 0].sum() / (curve[rows, 0].sum() + 5.0)
        assert leaves.values[0][leaf, 0] == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("method", ["Newton", "Gradient"])
def test_new_trees_of_three_classes_start_at_the_given_scores(method: str, absent: bool) -> None:
    """Leaves are the Newton step with the full curvature, or the mean gradient; also where a class is absent.

    The starting scores differ by row and class, so a layout that mixes them up cannot pass. The rows of weight 0
    that stand for absent classes count in CatBoost's scaling of the penalty, and nowhere else.
    """
    examples = _examples(300, 3)
    if absent:
        examples = _without(examples, 1)
    assert examples.codes is not None
    n = len(examples)
    engine = ours.CatBoost(cb.CatBoostClassifier(leaf_estimation_method=method), updates=True)
    target = Target(y=examples.codes.astype(np.float64), classes=3)
    start = np.random.default_rng(5).normal(size=(n, 3))
    booster = engine.grow(examples.features, target, start, Growth(rounds=1, leaves=4, l2=5.0, seed=1))
    slope, _ = gradients(start, target)
    p = probabilities(start, 3)
    l2 = 5.0 * n / (n + absent)
    leaves = engine.read_leaves(booster, engine.dump(booster), examples.features, 3)
    for leaf in np.unique(leaves.where[:, 0]):
        rows = leaves.where[:, 0] == leaf
        pull = slope[rows].sum(axis=0)
        if method == "Newton":
            hold = np.diag(p[rows].sum(axis=0)) - p[rows].T @ p[rows]
            step = -engine.rate * np.linalg.solve(hold + l2 * np.eye(3), pull)
        else:
            step = -engine.rate * pull / (rows.sum() + l2)
        np.testing.assert_allclose(leaves.values[0][leaf], step, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_labels_that_are_all_equal_train(classes: int) -> None:
    """A batch with one class only, or one value only, is learned: the scores move towards it."""
    task = "regression" if classes == 1 else "classification"
    examples = make_examples(120, task=task, classes=CLASSES[classes])
    engine = ours.CatBoost(cb.CatBoostRegressor() if classes == 1 else cb.CatBoostClassifier(), updates=True)
    target = Target(y=np.ones(120), classes=0 if classes == 1 else classes)
    start = np.zeros((120, target.outputs))
    booster = engine.grow(examples.features, target, start, Growth(rounds=3, leaves=4, l2=3.0, seed=1))
    raw = engine.raw(booster, engine.rows(examples.features), target.outputs)
    assert raw[:, target.outputs // 2].mean() > 0.1


def test_written_leaves_are_predicted() -> None:
    """What is written into the leaves is what the booster says, also once stored."""
    examples = _examples(200, 3)
    assert examples.codes is not None
    engine = ours.CatBoost(cb.CatBoostClassifier(), updates=True)
    target = Target(y=examples.codes.astype(np.float64), classes=3)
    start = np.zeros((200, 3))
    booster = engine.grow(examples.features, target, start, Growth(rounds=3, leaves=8, l2=1.0, seed=1))
    leaves = engine.read_leaves(booster, engine.dump(booster), examples.features, 3)
    moved = refitted(leaves, start, target, decay=0.5, rate=0.3, l2=1.0)
    total = sum(values[leaves.where[:, tree]] for tree, values in enumerate(moved))
    again = engine.read(engine.with_leaves(booster, engine.dump(booster), moved))
    np.testing.assert_allclose(engine.raw(again, engine.rows(examples.features), 3), total, atol=1e-9)
    assert not np.allclose(total, engine.raw(booster, engine.rows(examples.features), 3), atol=1e-3)


def test_equal_trainings_give_equal_bytes() -> None:
    """The time and the random id that CatBoost notes in a model do not reach what we save."""
    examples = _examples(100)
    learner = ours.wrap(cb.CatBoostClassifier(**SMALL))
    assert learner.fit(examples, 1).save() == learner.fit(examples, 1).save()


@pytest.mark.parametrize("make", [ours.decayed, ours.leaf_refit])
def test_going_on_after_loading_is_going_on(make: Any) -> None:
    """Saving and loading before every update, with sampling, gives the bytes of a straight run."""
    examples = _examples(700, 3)
    estimator = cb.CatBoostClassifier(**SMALL, bootstrap_type="Bernoulli", subsample=0.6, rsm=0.6)
    straight = make(estimator).fit(examples.slice(0, 300), 1)
    resumed = make(estimator).load(straight.save())
    for at in range(300, 700, 200):
        straight.update(examples.slice(at, at + 200), at)
        resumed.update(examples.slice(at, at + 200), at)
        resumed = make(estimator).load(resumed.save())
        assert straight.save() == resumed.save()


def test_early_stopping_ends_on_the_newest_rows_and_trains_on_all() -> None:
    """The rounds are those that the newest rows like best, and the model is a plain fit with that many."""
    examples = _examples(400, 3)
    params = {"iterations": 200, "learning_rate": 0.5, "depth": 3}
    model = ours.early_stopped(cb.CatBoostClassifier(**params), share=0.25, rounds=5).fit(examples, 1)
    matrix, y = examples.features.matrix(), examples.y
    search = cb.CatBoostClassifier(**params, **QUIET)
    search.fit(matrix[:300], y[:300], eval_set=(matrix[300:], y[300:]), early_stopping_rounds=5, use_best_model=False)
    best = search.get_best_iteration() + 1
    assert 1 < best < 150
    plain = cb.CatBoostClassifier(**params | {"iterations": best}, **QUIET).fit(matrix, y)
    assert np.array_equal(model.predict(examples.features).proba, plain.predict_proba(matrix))
    assert model.row_trees(400) == 300 * search.tree_count_ + 400 * best


def test_training_writes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CatBoost's ``catboost_info`` folder does not appear."""
    monkeypatch.chdir(tmp_path)
    model = ours.decayed(cb.CatBoostClassifier(**SMALL)).fit(_examples(60), 1)
    model.update(_examples(60), 2)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_updated_is_refused_at_once() -> None:
    """Losses and class weights that updates do not know fail before any training, by name."""
    for params, word in (
        ({"loss_function": "CrossEntropy"}, "loss_function"),
        ({"auto_class_weights": "Balanced"}, "auto_class_weights"),
        ({"class_weights": [1, 2]}, "class_weights"),
    ):
        with pytest.raises(ConfigError, match=word):
            ours.decayed(cb.CatBoostClassifier(**params))
    with pytest.raises(ConfigError, match="CatBoostClassifier"):
        ours.wrap(object())
    with pytest.warns(UserWarning, match="worse than never updating"):
        ours.continued(cb.CatBoostClassifier())


def test_a_refusal_of_the_framework_is_a_learner_error() -> None:
    """What CatBoost refuses names CatBoost and its reason."""
    with pytest.raises(LearnerError, match="CatBoost refused"):
        ours.wrap(cb.CatBoostClassifier(depth=40)).fit(_examples(40), 1)
