"""Our own exact models: what equals what, and to how many digits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.naive_bayes import GaussianNB as SklearnGaussianNB

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.core.protocols import Interleaved, Summable, Updatable
from perennial.core.records import ABSTAINED, Examples
from perennial.learners.plain import GaussianNB, Linear, Logistic, Ridge
from perennial.testing import make_examples


def numbers(n=200, d=4, seed=0, weighted=False, offset=0.0) -> Examples:
    """Regression examples whose columns may lie far from zero."""
    made = make_examples(n, d, task="regression", seed=seed)
    if offset:
        made = with_matrix(made, made.features.matrix() + offset)
    weights = np.random.default_rng(seed).uniform(0, 3, n) if weighted else None
    return replace(made, weights=weights)


def classified(n=200, d=4, classes=("no", "yes"), weighted=False, seed=0) -> Examples:
    """Classification examples, weighted or not."""
    made = make_examples(n, d, classes=classes, seed=seed)
    return replace(made, weights=np.random.default_rng(1).uniform(0, 3, n) if weighted else None)


def with_matrix(examples: Examples, matrix) -> Examples:
    """The same examples with other numbers."""
    names = list(examples.features.names)
    table = pa.table({name: pa.array(matrix[:, j]) for j, name in enumerate(names)})
    return replace(examples, features=Features.of(Chunk(table, examples.features.schema)))


def with_words(n=120, task="regression", words=4, order=None) -> Examples:
    """Two number columns and one of words, whose codes appear as ``order`` says: low codes early by default."""
    made = make_examples(n, 2, task=task)
    codes = (np.arange(n) * words // n).astype(np.int32) if order is None else np.asarray(order, dtype=np.int32)
    schema = Schema(
        [*made.features.schema.columns, Column("word", Kind.CATEGORY, "string")],
        {"word": Vocabulary([f"w{i}" for i in range(words)])},
    )
    table = made.features.arrow().append_column("word", pa.array(codes))
    return replace(made, features=Features.of(Chunk(table, schema)))


def exponentially_weighted(examples: Examples, forgetting: float) -> np.ndarray:
    """The weights that forgetting gives each row once the last is learned."""
    n = len(examples)
    age = forgetting ** np.arange(n - 1, -1, -1)
    return age if examples.weights is None else age * examples.weights


# --- Linear --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("step", [1, 7, 50])
def test_stateful_with_forgetting_equals_refitting_on_weighted_history(intercept, weighted, step):
    """At every step, updates of any size give what ridge on the exponentially weighted history gives, to 1e-8."""
    history = numbers(150, weighted=weighted)
    model = Linear(forgetting=0.97, ridge=0.5, intercept=intercept).begin()
    for start in range(0, 150, step):
        stop = min(start + step, 150)
        model.update(history.slice(start, stop), seed=0)
        past = history.slice(0, stop)
        weights = exponentially_weighted(past, 0.97)
        peer = SklearnRidge(alpha=0.5, fit_intercept=intercept).fit(past.features.matrix(), past.y, weights)
        np.testing.assert_allclose(
            model.predict(history.features).values, peer.predict(history.features.matrix()), rtol=0, atol=1e-8
        )


def test_fit_is_the_exponentially_weighted_fit():
    """A fit of the whole history is the same model as updates over it."""
    history = numbers(150, weighted=True)
    model = Linear(forgetting=0.9).begin()
    for start in range(0, 150, 13):
        model.update(history.slice(start, min(start + 13, 150)), seed=0)
    fitted = Linear(forgetting=0.9).fit(history, seed=0)
    np.testing.assert_allclose(
        model.predict(history.features).values, fitted.predict(history.features).values, rtol=0, atol=1e-10
    )


def test_forgetting_matters():
    """After the relation turned around, a forgetful model follows and one that keeps everything does not."""
    before, after = numbers(300), numbers(300, seed=1)
    after = replace(after, values=-after.values)
    errors = {}
    for forgetting in (1.0, 0.95):
        model = Linear(forgetting=forgetting).fit(before, seed=0)
        model.update(after, seed=0)
        errors[forgetting] = np.mean((model.predict(after.features).values - after.values) ** 2)
    assert errors[0.95] < errors[1.0] / 2


def test_linear_keeps_its_digits_far_from_zero():
    """Columns that lie a million away from zero lose no accuracy: moments are centred."""
    near, far = numbers(200), numbers(200, offset=1e6)
    one, other = (Linear(forgetting=0.99).begin() for _ in range(2))
    for start in range(0, 200, 10):
        one.update(near.slice(start, start + 10), seed=0)
        other.update(far.slice(start, start + 10), seed=0)
    np.testing.assert_allclose(other.predict(far.features).values, one.predict(near.features).values, atol=1e-7)


def test_a_column_told_by_others_is_solved_without_ridge():
    """Without ridge, two equal columns share one coefficient: predictions are those of one of them alone."""
    made = numbers(80, 2)
    doubled = numbers(80, 3)
    matrix = made.features.matrix()
    doubled = with_matrix(replace(doubled, values=made.values), np.column_stack([matrix, matrix[:, 0]]))
    one, both = Linear(ridge=0.0).fit(made, seed=0), Linear(ridge=0.0).fit(doubled, seed=0)
    np.testing.assert_allclose(
        both.predict(doubled.features).values, one.predict(made.features).values, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize(
    ("learner", "task"),
    [(Linear(forgetting=0.98), "regression"), (Logistic(forgetting=0.98), "classification")],
    ids=["linear", "logistic"],
)
@pytest.mark.parametrize("words", [False, True])
def test_interleaving_is_one_update_and_one_prediction_a_row(learner, task, words):
    """Test-then-train in one call equals single calls bit for bit, with late labels and new words too."""
    data = with_words(90, task) if words else make_examples(90, 3, task=task, classes=("a", "b", "c"))
    queue, asked = data.slice(0, 80), data.features.slice(10, 90)
    upto = np.maximum(np.arange(80) - 5, 0).astype(np.int64) // 3 * 3
    together, apart = learner.begin(), learner.begin()
    said = together.interleave(queue, asked, upto, 0)
    known = 0
    for i, stop in enumerate(upto.tolist()):
        for k in range(known, stop):
            apart.update(queue.slice(k, k + 1), 0)
        known = stop
        one = apart.predict(asked.slice(i, i + 1))
        if task == "regression":
            np.testing.assert_array_equal(said.values[i], one.values[0])
        else:
            assert said.codes[i] == one.codes[0]
            np.testing.assert_array_equal(said.proba[i, : len(one.classes)], one.proba[0])
    assert together.digest() == apart.digest()


@pytest.mark.parametrize("learner", [Linear(forgetting=0.98), Logistic(forgetting=0.98)], ids=["linear", "logistic"])
def test_a_word_met_later_is_as_if_its_column_had_always_been_there(learner):
    """Columns added for new words change nothing: a model told of all words at first agrees to 1e-8."""
    data = with_words(120, learner.task)
    told = with_words(120, learner.task, order=[*range(4), *([0] * 116)])
    late, early = learner.begin(), learner.begin()
    first = replace(told.slice(0, 4), weights=np.zeros(4))  # rows of no weight, that only name the words
    early.update(first, 0)
    for start in range(0, 120, 20):
        late.update(data.slice(start, start + 20), 0)
        early.update(data.slice(start, start + 20), 0)
    one, other = late.predict(data.features), early.predict(data.features)
    if learner.task == "regression":
        np.testing.assert_allclose(one.values, other.values, rtol=0, atol=1e-8)
    else:
        np.testing.assert_allclose(one.proba, other.proba, rtol=0, atol=1e-8)


def test_an_untrained_linear_model_abstains():
    """Before the first label every prediction is NaN, and a template says that it was not fitted."""
    data = numbers(5)
    assert np.isnan(Linear().begin().predict(data.features).values).all()
    with pytest.raises(LearnerError, match="not fitted"):
        Linear().predict(data.features)


# --- Logistic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_fit_is_the_penalised_optimum(weighted):
    """With two classes, a fit is scikit-learn's LogisticRegression(C=1/ridge) on the aged weights."""
    data = classified(300, weighted=weighted)
    peer = LogisticRegression(C=2.0, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    peer.fit(data.features.matrix(), data.codes, exponentially_weighted(data, 0.99))
    said = Logistic(forgetting=0.99, ridge=0.5).fit(data, seed=0).predict(data.features)
    want = peer.predict_proba(data.features.matrix())[:, [data.classes.index(c) for c in said.classes]]
    np.testing.assert_allclose(said.proba, want, rtol=0, atol=1e-7)


def test_one_update_is_one_newton_step():
    """From untrained, one update is the first step of iteratively reweighted least squares from zero."""
    data = classified(120)
    model = Logistic(ridge=2.0).begin()
    model.update(data, seed=0)
    rows = np.column_stack([np.ones(120), data.features.matrix()])
    for k, label in enumerate(model.predict(data.features).classes):
        target = (data.y == label) - 0.5
        theta = np.linalg.solve(rows.T @ rows / 4 + np.diag([0.0, 2, 2, 2, 2]), rows.T @ target)
        odds = model.predict(data.features).proba[:, k]
        np.testing.assert_allclose(np.log(odds / (1 - odds)), rows @ theta, rtol=0, atol=1e-8)


def test_an_update_is_a_newton_step_on_an_aged_quadratic_memory():
    """A second update equals the textbook equations A <- lam^n A + X'WX, b <- lam^n b + X'Wz."""
    data, lam, ridge = classified(200), 0.99, np.diag([0.0, 1, 1, 1, 1])
    model = Logistic(forgetting=lam).begin()
    rows = np.column_stack([np.ones(200), data.features.matrix()])
    positive = (data.codes == data.codes[0]).astype(float)  # the first class named is our first
    curvature, target, theta = np.zeros((5, 5)), np.zeros(5), np.zeros(5)
    for start in (0, 60, 130):
        part = slice(start, {0: 60, 60: 130, 130: 200}[start])
        model.update(data.slice(part.start, part.stop), seed=0)
        x, y = rows[part], positive[part]
        age = lam ** np.arange(len(y) - 1, -1, -1)
        odds = x @ theta
        chance = 1 / (1 + np.exp(-odds))
        weight = age * chance * (1 - chance)
        curvature = lam ** len(y) * curvature + (x.T * weight) @ x
        target = lam ** len(y) * target + x.T @ (weight * odds + age * (y - chance))
        theta = np.linalg.solve(curvature + ridge, target)
    np.testing.assert_allclose(
        model.predict(data.features).proba[:, 0], 1 / (1 + np.exp(-rows @ theta)), rtol=0, atol=1e-8
    )


def test_updates_come_close_to_the_optimum():
    """On a steady stream, online steps from a fit end near the fit of everything."""
    data = classified(1200)
    whole = Logistic().fit(data, seed=0).predict(data.features)
    model = Logistic().fit(data.slice(0, 300), seed=0)
    for start in range(300, 1200, 100):
        model.update(data.slice(start, start + 100), seed=0)
    np.testing.assert_allclose(model.predict(data.features).proba, whole.proba, rtol=0, atol=0.05)


def test_a_class_is_not_known_before_its_first_label():
    """A class table that names a class early changes nothing at all; its first label starts it."""
    data = classified(240, classes=("a", "b", "c"))
    rare = np.flatnonzero((data.codes != 2) | (np.arange(240) > 120)).astype(np.int64)
    data = data.take(rare)
    named, unnamed = Logistic().begin(), Logistic().begin()
    for start in range(0, len(data) - 20, 20):
        batch = data.slice(start, start + 20)
        named.update(batch, 0)
        known = int(batch.codes.max()) + 1
        unnamed.update(replace(batch, classes=batch.classes[:known]), 0)
    assert named.digest() == unnamed.digest()
    said = named.predict(data.features)
    assert set(said.classes) == {"a", "b", "c"}
    late = data.codes == 2
    column = said.classes.index("c")
    assert said.proba[late, column].mean() > 2 * said.proba[~late, column].mean()


def test_a_new_class_starts_from_a_step_on_the_whole_history():
    """When it appears, a class's model is one Newton step from zero on all aged rows, all of them negative."""
    data = classified(200, classes=("a", "b"))
    grown = Logistic(forgetting=0.99).begin()
    for start in range(0, 200, 25):
        grown.update(data.slice(start, start + 25), 0)
    third = replace(data.slice(0, 1), classes=("a", "b", "c"), codes=np.array([2], dtype=np.int32))
    before = replace(third, weights=np.array([1e-300]))  # a label of next to no weight: only the start is seen
    grown.update(before, 0)
    rows = np.column_stack([np.ones(200), data.features.matrix()])
    age = 0.99 ** (np.arange(199, -1, -1) + 1.0)
    theta = np.linalg.solve((rows.T * age) @ rows / 4 + np.diag([0.0, 1, 1, 1, 1]), -rows.T @ age / 2)
    said = grown.predict(data.features)
    chances = 1 / (1 + np.exp(-rows @ theta))
    # rows are scaled to sum to 1: undo it with a class whose own chance is known to follow from another
    ratio = said.proba[:, 2] / (said.proba[:, 0] + said.proba[:, 1])  # the two mirror each other and sum to 1
    np.testing.assert_allclose(ratio, chances, rtol=0, atol=1e-8)


def test_a_sure_model_that_is_wrong_stays_finite():
    """A thousand labels of one class under fast forgetting, and then the other: probabilities stay finite."""
    data = classified(1000)
    ones = replace(data, codes=np.where(np.arange(1000) < 5, np.arange(1000) % 2, 1).astype(np.int32))
    model = Logistic(forgetting=0.9).begin()
    for start in range(0, 1000, 5):
        model.update(ones.slice(start, start + 5), 0)
    for _ in range(10):
        model.update(replace(data.slice(0, 5), codes=np.zeros(5, dtype=np.int32)), 0)
        assert np.isfinite(model.predict(data.features).proba).all()
    assert (model.predict(data.features.slice(0, 5)).codes == model.predict(data.features).classes.index("no")).all()


def test_one_class_alone_is_certain():
    """A window that holds one class only can be fitted, and says that class."""
    data = classified(50)
    only = replace(data, codes=np.ones(50, dtype=np.int32))
    said = Logistic().fit(only, seed=0).predict(data.features)
    assert said.classes == ("yes",)
    np.testing.assert_array_equal(said.proba, np.ones((50, 1)))


def test_an_untrained_logistic_model_abstains():
    """Before the first label there is no class to name."""
    said = Logistic().begin().predict(classified(5).features)
    assert said.classes == ()
    assert (said.codes == ABSTAINED).all()
    assert said.proba.shape == (5, 0)


# --- Ridge and GaussianNB ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_ridge_of_blocks_is_scikit_learns(weighted):
    """Sums of block statistics give scikit-learn's Ridge on the window to 1e-8, far from zero as well."""
    data = numbers(300, 6, weighted=weighted, offset=1000.0)
    ridge = Ridge(alpha=3.0)
    blocks = [ridge.summarise(data.slice(start, start + 60)) for start in range(60, 300, 60)]
    window = data.slice(60, 300)
    peer = SklearnRidge(alpha=3.0).fit(window.features.matrix(), window.y, window.weights)
    want = peer.predict(data.features.matrix())
    for model in (ridge.fit_sum(blocks, data.slice(0, 0)), ridge.fit(window, seed=0)):
        np.testing.assert_allclose(model.predict(data.features).values, want, rtol=0, atol=1e-8)


def test_ridge_blocks_may_know_different_words():
    """Blocks whose words differ, in any order, add up to the fit with one column for every word."""
    order = np.random.default_rng(3).integers(0, 5, 120)
    order[:30], order[30:60] = order[:30] % 2 + 3, order[30:60] % 3
    data = with_words(120, words=5, order=order)
    ridge = Ridge()
    model = ridge.fit_sum([ridge.summarise(data.slice(s, s + 30)) for s in range(0, 120, 30)], data.slice(0, 0))
    matrix = data.features.matrix()
    design = np.column_stack([matrix[:, :2], matrix[:, 2:] == np.arange(5)])
    want = SklearnRidge().fit(design, data.y).predict(design)
    np.testing.assert_allclose(model.predict(data.features).values, want, rtol=0, atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [1e-9, 0.1])
def test_naive_bayes_of_blocks_is_scikit_learns(weighted, smoothing):
    """Sums of block statistics give scikit-learn's GaussianNB on the window to 1e-8, a class missing in a block."""
    data = classified(300, 5, classes=("b", "c", "a"), weighted=weighted)
    spread = data.features.matrix() * np.array([1, 10, 100, 0.1, 1]) + np.array([0, 5, -300, 0, 1e3])
    data = with_matrix(data, spread)
    data = data.take(np.flatnonzero((data.codes != 1) | (np.arange(300) > 120)).astype(np.int64))
    n = len(data) // 4 * 4
    bayes = GaussianNB(var_smoothing=smoothing)
    blocks = [bayes.summarise(data.slice(s, s + n // 4)) for s in range(0, n, n // 4)]
    assert len({len(block.classes) for block in blocks}) > 1
    window = data.slice(0, n)
    peer = SklearnGaussianNB(var_smoothing=smoothing).fit(window.features.matrix(), window.y, window.weights)
    want = peer.predict_proba(data.features.matrix())
    for model in (bayes.fit_sum(blocks, data.slice(0, 0)), bayes.fit(window, seed=0)):
        said = model.predict(data.features)
        assert said.classes == ("b", "c", "a")
        np.testing.assert_allclose(said.proba[:, [2, 0, 1]], want, rtol=0, atol=1e-8)


def test_a_class_without_weight_is_no_class():
    """Rows of weight 0 bring no class into naive Bayes, and still count for the smoothing as in scikit-learn."""
    data = classified(90, classes=("a", "b", "c"))
    weights = np.where(data.codes == 1, 0.0, 1.0)
    said = GaussianNB().fit(replace(data, weights=weights), seed=0).predict(data.features)
    assert said.classes == ("a", "c")
    kept = weights > 0
    smoothing = 1e-9 * data.features.matrix().var(axis=0).max() / data.features.matrix()[kept].var(axis=0).max()
    peer = SklearnGaussianNB(var_smoothing=smoothing).fit(data.features.matrix()[kept], data.y[kept])
    np.testing.assert_allclose(said.proba, peer.predict_proba(data.features.matrix()), rtol=0, atol=1e-8)


@pytest.mark.parametrize("learner", [Ridge(), GaussianNB()], ids=["ridge", "naive bayes"])
def test_an_empty_window_is_refused(learner):
    """No blocks, or blocks without rows, are no window."""
    data = make_examples(6, 2, task=learner.task)
    with pytest.raises(LearnerError, match="longer window"):
        learner.fit_sum([], data)
    with pytest.raises(LearnerError, match="longer window"):
        learner.fit(data.slice(0, 0), seed=0)


# --- what all share ------------------------------------------------------------------------------------------------

ALL = [Linear(forgetting=0.99), Logistic(forgetting=0.99), Ridge(), GaussianNB()]
ids = [learner.name for learner in ALL]


def test_capabilities_are_types():
    """The linear and logistic models update and interleave; Ridge and naive Bayes are summable; none pretends."""
    assert [isinstance(learner, Updatable) for learner in ALL] == [True, True, False, False]
    assert [isinstance(learner, Interleaved) for learner in ALL] == [True, True, False, False]
    assert [isinstance(learner, Summable) for learner in ALL] == [False, False, True, True]


@pytest.mark.parametrize("learner", ALL, ids=ids)
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nulls"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_what_cannot_be_learned_is_refused_by_column(learner, value, word):
    """A null or an infinity is refused by its column's name, by ``check`` and before anything is learned."""
    data = make_examples(20, 3, task=learner.task)
    matrix = data.features.matrix().copy()
    matrix[4, 1] = value
    bad = with_matrix(data, matrix)
    learner.check(data.features)
    with pytest.raises(DataError, match=f"'x1' holds {word}"):
        learner.check(bad.features)
    with pytest.raises(DataError, match=f"'x1' holds {word}"):
        learner.fit(bad, seed=0)


@pytest.mark.parametrize("learner", ALL, ids=ids)
def test_a_row_with_a_null_abstains_alone(learner):
    """A missing number spoils the prediction of its own row and of no other."""
    data = make_examples(30, 3, task=learner.task)
    matrix = data.features.matrix().copy()
    matrix[4, 1] = np.nan
    model = learner.fit(data, seed=0)
    said, want = model.predict(with_matrix(data, matrix).features), model.predict(data.features)
    others = np.arange(30) != 4
    if learner.task == "regression":
        assert np.isnan(said.values[4])
        np.testing.assert_allclose(said.values[others], want.values[others])
    else:
        assert said.codes[4] == ABSTAINED
        np.testing.assert_array_equal(said.codes[others], want.codes[others])


def test_naive_bayes_refuses_words():
    """A word column has no mean; the error says so and what to do."""
    data = with_words(20, "classification")
    with pytest.raises(DataError, match="'word' holds words"):
        GaussianNB().check(data.features)
    with pytest.raises(DataError, match="'word' holds words"):
        GaussianNB().fit(data, seed=0)


@pytest.mark.parametrize("learner", ALL, ids=ids)
def test_other_columns_are_refused(learner):
    """A model asked about columns other than its own says both."""
    model = learner.fit(make_examples(30, 3, task=learner.task), seed=0)
    with pytest.raises(DataError, match="fit it anew"):
        model.predict(make_examples(5, 2, task=learner.task).features)


@pytest.mark.parametrize("learner", [Linear(forgetting=0.98), Logistic(forgetting=0.98)], ids=["linear", "logistic"])
def test_a_resumed_model_is_bit_identical(learner):
    """Saved and loaded after every batch, words still coming, the state stays the same to the last bit."""
    data = with_words(120, learner.task)
    straight, resumed = learner.begin(), learner.begin()
    for start in range(0, 120, 15):
        batch = data.slice(start, start + 15)
        straight.update(batch, 0)
        resumed.update(batch, 0)
        resumed = learner.load(resumed.save())
        assert resumed.digest() == straight.digest()
    one, other = straight.predict(data.features), resumed.predict(data.features)
    np.testing.assert_array_equal(
        one.values if one.values is not None else one.proba, other.values if other.values is not None else other.proba
    )


@pytest.mark.parametrize("learner", ALL, ids=ids)
def test_a_saved_model_needs_its_own_settings(learner):
    """A model saved under other settings, or by another kind, is refused by name."""
    data = make_examples(30, 3, task=learner.task)
    blob = learner.fit(data, seed=0).save()
    other = {"Linear": Linear(ridge=9), "Logistic": Logistic(ridge=9), "Ridge": Ridge(alpha=9)}
    with pytest.raises(FormatError, match=learner.name):
        other.get(learner.name, GaussianNB(var_smoothing=0.5)).load(blob)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Linear(forgetting=0), "forgetting"),
        (lambda: Linear(forgetting=1.1), "forgetting"),
        (lambda: Linear(ridge=-1), "ridge"),
        (lambda: Logistic(ridge=0), "ridge"),
        (lambda: Logistic(forgetting=float("nan")), "forgetting"),
        (lambda: Ridge(alpha=-1), "alpha"),
        (lambda: GaussianNB(var_smoothing=-1), "var_smoothing"),
    ],
)
def test_wrong_settings_fail_when_made(make, field):
    """A setting out of range is named where it was written."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


def test_identity_tells_settings_apart():
    """Equal settings have equal identities, others have others."""
    texts = {model.identity() for model in (Linear(), Linear(ridge=2), Ridge(), Logistic(), Linear(ridge=1.0))}
    assert len(texts) == 4


def test_numpy_alone_is_loaded():
    """Importing these models brings in no framework."""
    code = (
        "import sys, perennial.learners.plain; print([m for m in ('sklearn', 'scipy', 'pandas') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
