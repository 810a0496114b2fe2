"""Learners around others: ensembles, stateless experts, priors, tuning; and what is remembered of the last rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from perennial import learners
from perennial.core.errors import ConfigError, FormatError, LearnerError
from perennial.core.protocols import Trust, Updatable
from perennial.core.records import Examples
from perennial.learners import as_learner
from perennial.learners.recall import MOST_ROWS, Recall
from perennial.testing import make_examples


def batches(n: int, rows: int = 40, **settings: Any) -> list[Examples]:
    """Batches of one stream, that share its schema."""
    whole = make_examples(n * rows, **settings)
    return [whole.slice(i * rows, (i + 1) * rows) for i in range(n)]


def proba(model: Any, data: Examples) -> Any:
    """Probabilities of all rows."""
    said = model.predict(data.features).proba
    assert said is not None
    return said


# -- ensembles by batch


def test_members_weigh_by_the_newest_batch() -> None:
    """1 / (E + e) for those there before, 1 / E for the newcomer, with E the error of the class shares."""
    first, second, rest = batches(3)
    model: Any = learners.AccuracyUpdated(GaussianNB(), size=5).fit(first, 0)
    p = proba(as_learner(GaussianNB()).fit(first, 0), second)
    assert second.codes is not None
    error = float(np.square(1 - p[np.arange(len(second)), second.codes]).mean())
    shares = np.bincount(second.codes) / len(second)
    floor = float(shares @ (1 - shares) ** 2)
    model.update(second, 0)
    raw = np.array([1 / (floor + error), 1 / floor])
    np.testing.assert_allclose(model._weights, raw / raw.sum(), rtol=1e-9)
    alone = [proba(as_learner(GaussianNB()).fit(one, 0), rest) for one in (first, second)]
    np.testing.assert_allclose(proba(model, rest), np.tensordot(raw / raw.sum(), alone, 1), rtol=1e-9)


def test_the_lightest_member_goes() -> None:
    """A member of turned labels is the worst on the newest batch, and goes though it is not the oldest."""
    first, second, third = batches(3)
    turned = replace(second, codes=1 - second.codes)  # type: ignore[operator]
    model: Any = learners.AccuracyUpdated(GaussianNB(), size=2).fit(first, 0)
    model.update(turned, 0)
    model.update(third, 0)
    kept = {member.digest() for member in model._members}
    assert kept == {as_learner(GaussianNB()).fit(one, 0).digest() for one in (first, third)}


def test_a_member_without_a_class_gives_it_nothing() -> None:
    """Members are aligned by class: a batch that lacks one does not shift the others."""
    whole = make_examples(240, classes=("a", "b", "c"))
    assert whole.codes is not None
    without = whole.take(np.flatnonzero(whole.codes != 1)[:60])
    model: Any = learners.AccuracyUpdated(GaussianNB(), size=3).fit(whole.slice(0, 100), 0)
    model.update(without, 0)
    said = model.predict(whole.features)
    assert said.classes == ("a", "b", "c")
    np.testing.assert_allclose(said.proba.sum(axis=1), 1.0)


# -- a stateless expert


def test_rebuilt_is_a_fit_on_its_newest_rows() -> None:
    """After every ``every``-th update the model is what a fit on the window gives; between, it stays."""
    stream = batches(6)
    whole = make_examples(6 * 40)
    model: Any = learners.Rebuilt(GaussianNB(), rows=100, every=2).fit(stream[0], 0)
    for i in range(1, 6):
        before = model.digest(), model._model.digest()
        model.update(stream[i], 0)
        assert model.digest() != before[0]
        if i % 2:
            assert model._model.digest() == before[1]
            assert model.row_trees(40) == 0
        else:
            end = (i + 1) * 40
            expected = as_learner(GaussianNB()).fit(whole.slice(max(0, end - 100), end), 0)
            np.testing.assert_array_equal(proba(model, whole), proba(expected, whole))


def test_rebuilt_comes_back_with_words_weights_and_words_to_come() -> None:
    """Its window is saved with it; a word that first comes after loading has its code in the stream's own schema."""
    whole = make_examples(160, categories=1, missing=True)
    whole = replace(whole, weights=np.linspace(0.5, 1.5, 160))
    made: Any = learners.Rebuilt("sklearn.ensemble.HistGradientBoostingClassifier", rows=90)
    going = made.fit(whole.slice(0, 80), 0)
    back = made.load(going.save(Trust()), Trust())
    assert back.digest() == going.digest()
    assert back.size() == going.size()
    for one in (going, back):
        one.update(whole.slice(80, 160), 1)
    assert back.digest() == going.digest()
    np.testing.assert_array_equal(proba(back, whole), proba(going, whole))
    assert "90 rows" in going.memorises(untrained=False)
    blob = going.save()
    with pytest.raises(FormatError):
        made.load(blob[:-40] + b"x" * 40)


# -- priors


def test_a_change_of_priors_is_corrected_exactly() -> None:
    """With the shares of now counted, odds are multiplied by the ratio of shares."""
    data = make_examples(400)
    model: Any = learners.PriorCorrected(LogisticRegression(), memory=1e9).fit(data, 0)
    plain = proba(as_learner(LogisticRegression()).fit(data, 0), data)
    np.testing.assert_allclose(proba(model, data), plain, rtol=1e-6)
    assert data.codes is not None
    ones = data.take(np.flatnonzero(data.codes == 1))
    model._now = np.zeros(2)
    model.update(ones, 0)
    then = np.bincount(data.codes) + 0.5
    now = np.array([0.0, len(ones)]) + 0.5
    ratio = np.clip(np.log(now / now.sum()) - np.log(then / then.sum()), -np.log(20), np.log(20))
    odds = np.log(plain[:, 1] / plain[:, 0]) + ratio[1] - ratio[0]
    np.testing.assert_allclose(proba(model, data)[:, 1], 1 / (1 + np.exp(-odds)), rtol=1e-6)


def test_priors_repair_label_drift_and_leave_the_model_inside() -> None:
    """A frozen model's log loss falls where only the shares changed; the correction is bounded."""
    data = make_examples(1200, seed=3)
    model: Any = learners.PriorCorrected(LogisticRegression(), memory=200).fit(data.slice(0, 400), 0)
    inside = model._model.digest()
    later = data.slice(400, 1200)
    assert later.codes is not None
    draw = np.random.default_rng(0)
    rare = later.take(np.flatnonzero((later.codes == 0) | (draw.uniform(size=len(later)) < 0.1)))
    half = len(rare) // 2
    model.update(rare.slice(0, half), 0)
    test = rare.slice(half, len(rare))
    assert test.codes is not None
    at = np.arange(len(test)), test.codes

    def loss(one: Any) -> float:
        return float(-np.log(proba(one, test)[at]).mean())

    assert loss(model) < 0.9 * loss(model._model)
    assert model._model.digest() == inside
    with pytest.raises(LearnerError, match="give `initial`"):
        model.begin()
    with pytest.raises(ConfigError, match="classification"):
        learners.PriorCorrected(learners.plain.Ridge())


# -- tuning


def test_the_choice_that_does_best_on_the_newest_part_is_taken() -> None:
    """It is fitted on the whole window, and its search is counted."""
    data = make_examples(300)
    model: Any = learners.Tuned(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 12]}, split=0.3)
    fitted = model.fit(data, 0)
    older, newer = data.slice(0, 210), data.slice(210, 300)
    assert newer.codes is not None
    losses = []
    for depth in (1, 2, 12):
        tree = as_learner(DecisionTreeClassifier(random_state=0, max_depth=depth)).fit(older, 0)
        given = proba(tree, newer)[np.arange(90), newer.codes]
        losses.append(float(-np.log(np.maximum(given, np.finfo(float).eps)).mean()))
    depth = (1, 2, 12)[int(np.argmin(losses))]
    assert fitted.chosen == {"max_depth": depth}
    assert f"max_depth={depth}" in fitted.notes[0]
    whole = as_learner(DecisionTreeClassifier(random_state=0, max_depth=depth)).fit(data, 0)
    np.testing.assert_array_equal(proba(fitted, data), proba(whole, data))


def test_the_cost_of_the_search_is_counted() -> None:
    """Row-trees of all choices and of the last fit."""
    pytest.importorskip("lightgbm")
    path = {"estimator": "lightgbm.LGBMClassifier", "params": {"verbose": -1, "n_jobs": 1, "min_child_samples": 2}}
    fitted = learners.Tuned(path, {"n_estimators": [2, 5]}, split=0.5).fit(make_examples(100), 0)
    assert fitted.row_trees(100) in (50 * 7 + 100 * 2, 50 * 7 + 100 * 5)


def test_trials_are_drawn_by_the_seed_and_updates_reach_the_chosen() -> None:
    """The same seed tries the same choices; a learner that can be updated stays one."""
    data = make_examples(200)
    model: Any = learners.Tuned(SGDClassifier(loss="log_loss", random_state=0), {"alpha": [1e-5, 1e-3, 0.1]}, trials=2)
    assert isinstance(model, Updatable)
    assert model.fit(data, 7).digest() == model.fit(data, 7).digest()
    fitted = model.fit(data.slice(0, 100), 7)
    before = fitted.digest()
    fitted.update(data.slice(100, 200), 0)
    assert fitted.digest() != before
    assert not isinstance(learners.Tuned(DecisionTreeClassifier(), {"max_depth": [1, 2]}), Updatable)
    wrapped = learners.Tuned(
        "sklearn.naive_bayes.GaussianNB", {"var_smoothing": [1e-9, 1e-3]}, wrap=learners.Calibrated
    )
    assert wrapped.name == "Tuned(Calibrated(GaussianNB))"


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (lambda: learners.Tuned(GaussianNB(), {}), "search"),
        (lambda: learners.Tuned(GaussianNB(), {"var_smoothing": []}), "search"),
        (lambda: learners.Tuned(GaussianNB(), {"depth": [1]}), "search"),
        (lambda: learners.Tuned(GaussianNB(), {"var_smoothing": [1e-9]}, split=1.0), "split"),
        (lambda: learners.Tuned(GaussianNB(), {"var_smoothing": [1e-9]}, trials=0), "trials"),
        (lambda: learners.Tuned(object(), {"x": [1]}), "estimator"),
        (lambda: learners.Rebuilt(GaussianNB(), rows=0), "rows"),
        (lambda: learners.Rebuilt(GaussianNB(), rows=5, every=0), "every"),
        (lambda: learners.AccuracyUpdated(GaussianNB(), size=0), "size"),
        (lambda: learners.PriorCorrected(GaussianNB(), memory=0), "memory"),
        (lambda: learners.PriorCorrected(GaussianNB(), bound=1.0), "bound"),
    ],
)
def test_what_cannot_be_is_refused(made: Any, field: str) -> None:
    """Before any training, with the name of the setting."""
    with pytest.raises(ConfigError) as caught:
        made()
    assert caught.value.field == field


# -- what is remembered


def test_answers_are_given_again_for_the_same_rows_alone() -> None:
    """The same numbers in another array are the same rows; a changed number, or too many rows, are not."""
    recall, asked = Recall(), []

    def ask() -> int:
        asked.append(1)
        return len(asked)

    rows, who, other = np.arange(6.0).reshape(3, 2), object(), object()
    assert [recall.of(rows, who, ask), recall.of(rows.copy(), who, ask), recall.of(rows, other, ask)] == [1, 1, 2]
    changed = rows.copy()
    changed[2, 1] = np.nan
    assert recall.of(changed, who, ask) == 3
    assert recall.of(changed.copy(), who, ask) == 3
    assert recall.of(rows, who, ask) == 4
    recall.forget()
    assert recall.of(rows, who, ask) == 5
    many = np.zeros((MOST_ROWS + 1, 1))
    assert recall.of(many, who, ask) != recall.of(many, who, ask)
    assert recall.of("rows", who, ask) != recall.of("rows", who, ask)


# -- trees that fit noise


def test_new_trees_come_to_weigh_little_where_there_is_nothing_new() -> None:
    """Pure noise shrinks them; a concept that moves makes them weigh more."""
    pytest.importorskip("lightgbm")
    path = {"estimator": "lightgbm.LGBMClassifier", "params": {"n_estimators": 20, "verbose": -1, "n_jobs": 1}}

    def step(turns: bool) -> float:
        model: Any = learners.Decayed(path, trees=20).fit(make_examples(300, seed=1), 0)
        draw = np.random.default_rng(2)
        for i, batch in enumerate(batches(12, rows=100, seed=3)):
            labels = (batch.features.matrix()[:, 0] > 0) if turns else draw.uniform(size=len(batch)) < 0.5
            flipped = labels ^ (turns and i % 6 < 3)
            model.update(replace(batch, codes=flipped.astype(np.int32)), i)
        return float(model._state.step)

    assert step(turns=False) < 0.5
    assert step(turns=True) > step(turns=False)


def test_updates_that_grow_nothing_leave_former_trees_alone() -> None:
    """Rows that are all alike, as one row is, fade what is there and weigh nothing anew."""
    pytest.importorskip("lightgbm")
    path = {"estimator": "lightgbm.LGBMClassifier", "params": {"n_estimators": 10, "verbose": -1, "n_jobs": 1}}
    data = make_examples(600, seed=2)
    found = []
    for weigh in (True, False):
        model: Any = learners.Decayed(path, trees=5, gamma=0.9, weigh=weigh).fit(data.slice(0, 200), 0)
        for i in range(3):
            model.update(data.slice(200 + 100 * i, 300 + 100 * i), i)
        before = [member.weight for member in model._state.members]
        for i in range(12):
            model.update(data.slice(500 + i, 501 + i), i)
        after = [member.weight for member in model._state.members]
        assert len(after) == len(before)
        np.testing.assert_allclose(after[:-1], np.array(before[:-1]) * 0.9**12)
        found.append(after)
    assert len(found[0]) == len(found[1]) == 4


def test_a_search_judged_by_rows_of_no_weight_is_judged_all_the_same() -> None:
    """Their losses count alike."""
    data = make_examples(200)
    weights = np.ones(200)
    weights[150:] = 0.0
    model: Any = learners.Tuned(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 6]}, split=0.25)
    assert model.fit(replace(data, weights=weights), 0).chosen["max_depth"] in (1, 6)


class _Gaps(learners.plain.Ridge):
    """A regression that knows nothing of every other row."""

    def predict(self, features: Any) -> Any:
        said = super().predict(features)
        values = said.values.copy()
        values[::2] = np.nan
        return replace(said, values=values)


def test_a_member_that_abstains_from_rows_spoils_no_others() -> None:
    """Weights stay numbers, and what nobody says is not said."""
    data = make_examples(120, task="regression")
    model: Any = learners.AccuracyUpdated(_Gaps(), size=3).fit(data.slice(0, 60), 0)
    model.update(data.slice(60, 120), 0)
    assert np.isfinite(model._weights).all()
    values = model.predict(data.features).values
    assert np.isnan(values[::2]).all()
    assert np.isfinite(values[1::2]).all()
