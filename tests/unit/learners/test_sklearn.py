"""The scikit-learn learner: equal to a hand-written loop, honest about classes, weights and values."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from perennial import learners
from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.identity import Unhashable
from perennial.core.protocols import LearnsUnlabelled, Updatable
from perennial.core.records import ABSTAINED, Examples
from perennial.learners import as_learner
from perennial.learners import saved as saved_module
from perennial.learners.sklearn import SlidingForest, UpdatableSklearn, wrap
from perennial.testing import make_examples

DATA = make_examples(200)
X = DATA.features.matrix()


def updatable(estimator: Any) -> UpdatableSklearn:
    """The learner, known to be updatable."""
    learner = wrap(estimator)
    assert isinstance(learner, UpdatableSklearn)
    return learner


def without(data: Examples, code: int) -> Examples:
    """The examples of all classes but one."""
    assert data.codes is not None
    return data.take(np.flatnonzero(data.codes != code).astype(np.int64))


def text_features(columns: dict[str, list[str]]) -> Features:
    """Columns of prose."""
    schema = Schema([Column(name, Kind.TEXT, "string") for name in columns])
    return Features.of(Chunk(pa.table(columns), schema))


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(10, max_depth=3, random_state=0),
        ExtraTreesClassifier(10, max_depth=3, random_state=0),
        DecisionTreeClassifier(max_depth=2, random_state=0),
        BaggingClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=4, random_state=0),
        HistGradientBoostingClassifier(max_iter=3, random_state=0),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        LogisticRegression(),
        GaussianNB(),
        SGDClassifier(loss="modified_huber", random_state=0),
        KNeighborsClassifier(4),
        CalibratedClassifierCV(SVC(random_state=0), cv=2),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2),
        MLPClassifier((4,), max_iter=200, tol=0.01, random_state=0),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("classes", [("yes", "no"), (2, 0, 1)], ids=["two", "three"])
def test_equals_a_hand_written_loop(estimator: Any, classes: tuple[Any, ...]) -> None:
    """Labels and probabilities are the estimator's own, bit for bit, ties and class order included."""
    data = make_examples(150, classes=classes)
    by_hand = clone(estimator).fit(data.features.matrix(), data.y)
    grid = make_examples(400, seed=9).features
    said = as_learner(estimator).fit(data, 99).predict(grid)
    assert said.codes is not None
    assert [said.classes[c] for c in said.codes] == by_hand.predict(grid.matrix()).tolist()
    assert said.classes == tuple(by_hand.classes_.tolist())
    np.testing.assert_array_equal(said.proba, by_hand.predict_proba(grid.matrix()))


def test_updates_equal_a_hand_written_loop() -> None:
    """``fit`` and then ``partial_fit`` by batch, weights included, are the estimator's own, bit for bit."""
    data = replace(DATA, weights=np.linspace(0.5, 2.0, len(DATA)))
    by_hand = SGDClassifier(random_state=3).fit(X[:100], data.y[:100], sample_weight=data.weights[:100])
    model = updatable(SGDClassifier(random_state=3)).fit(data.slice(0, 100), 1)
    for start in (100, 150):
        rows = slice(start, start + 50)
        by_hand.partial_fit(X[rows], data.y[rows], sample_weight=data.weights[rows])
        model.update(data.slice(start, start + 50), start)
    said = model.predict(data.features)
    assert said.codes is not None
    assert [said.classes[c] for c in said.codes] == by_hand.predict(X).tolist()
    np.testing.assert_array_equal(model._model.coef_, by_hand.coef_)


def test_open_random_states_are_seeded_everywhere() -> None:
    """A nested random state, and a shuffling splitter's, follow the seed; the user's own wins."""
    search = GridSearchCV(SGDClassifier(), {"alpha": [1e-4, 1.0]}, cv=StratifiedKFold(2, shuffle=True))
    learner = as_learner(make_pipeline(StandardScaler(), search))
    same, again, other = (learner.fit(DATA, seed).digest() for seed in (1, 1, 2))
    assert same == again != other
    assert search.cv.random_state is None, "the user's own object was changed"
    fixed = as_learner(SGDClassifier(random_state=5))
    assert fixed.fit(DATA, 1).digest() == fixed.fit(DATA, 2).digest()


def test_each_update_has_its_seed() -> None:
    """An open random state follows the seed of each update."""
    one, two = (updatable(SGDClassifier()).fit(DATA.slice(0, 100), 1) for _ in range(2))
    one.update(DATA.slice(100, 200), 1)
    two.update(DATA.slice(100, 200), 2)
    assert one.digest() != two.digest()


def test_identity_tells_settings_apart() -> None:
    """Another parameter, a nested one too, or another view is another identity."""
    texts = {
        as_learner(e).identity()
        for e in (
            SGDClassifier(),
            SGDClassifier(alpha=0.1),
            make_pipeline(SGDClassifier()),
            make_pipeline(SGDClassifier(alpha=0.1)),
            learners.Sklearn(SGDClassifier(), view="frame"),
            learners.SlidingForest(RandomForestClassifier()),
            learners.SlidingForest(RandomForestClassifier(), trees=5),
        )
    }
    assert len(texts) == 7
    with pytest.raises(Unhashable):
        as_learner(make_pipeline(FunctionTransformer(lambda x: x), SGDClassifier())).identity()


@pytest.mark.parametrize(
    ("estimator", "can"),
    [
        (SGDClassifier(), True),
        (SGDRegressor(), True),
        (GaussianNB(), True),
        (make_pipeline(StandardScaler(), SGDClassifier()), True),
        (make_pipeline(FunctionTransformer(np.tanh), StandardScaler(), "passthrough", SGDClassifier()), True),
        (make_pipeline(PolynomialFeatures(), SGDClassifier()), False),  # must be fitted, and cannot go on
        (make_pipeline(ColumnTransformer([]), SGDClassifier()), False),
        (SGDClassifier(early_stopping=True), False),
        (SGDClassifier(class_weight="balanced"), False),
        (MLPClassifier(solver="lbfgs"), False),
        (LogisticRegression(), False),
        (RandomForestClassifier(), False),
    ],
)
def test_updating_is_a_type(estimator: Any, can: bool) -> None:
    """Whoever can go on is Updatable; a pipeline only if each step can go on or needs no fitting."""
    assert isinstance(as_learner(estimator), Updatable) is can


def test_a_pipelines_steps_learn_each_batch() -> None:
    """A scaler in a pipeline goes on with the update, before its rows reach the last step."""
    model = updatable(make_pipeline(StandardScaler(), SGDClassifier(random_state=0))).begin()
    model.update(DATA.slice(0, 80), 1)
    model.update(DATA.slice(80, 200), 2)
    scaler = model._model.steps[0][1]
    np.testing.assert_allclose(scaler.mean_, X.mean(axis=0))
    assert scaler.n_samples_seen_ == 200


def test_neither_classifier_nor_regressor_is_refused() -> None:
    """A transformer alone is no model, and a view has a name."""
    with pytest.raises(ConfigError, match="give a classifier, a regressor or a pipeline"):
        as_learner(StandardScaler())
    with pytest.raises(ConfigError, match="did you mean `frame`"):
        learners.Sklearn(SGDClassifier(), view="farme")  # type: ignore[arg-type]


# Views


class Spy(LogisticRegression):  # type: ignore[misc]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        type(self).seen = X
        return super().fit(np.zeros((len(y), 1)), y)


def test_a_plain_estimator_gets_a_float64_matrix() -> None:
    """Numbers and category codes come as one float64 matrix unless another view is asked for."""
    data = make_examples(60, categories=1)
    as_learner(Spy()).fit(data, 1)
    assert Spy.seen.dtype == np.float64
    assert Spy.seen.shape == (60, 5)
    learners.Sklearn(Spy(), view="frame").fit(data, 1)
    assert list(Spy.seen.columns) == ["x0", "x1", "x2", "x3", "c0"]
    learners.Sklearn(Spy(), view="arrow").fit(data, 1)
    assert isinstance(Spy.seen, pa.Table)


def test_a_pipeline_meets_words_in_a_frame() -> None:
    """A column transformer picks columns by name, and words are words again."""
    data = make_examples(120, categories=1)
    pick = ColumnTransformer([("w", OneHotEncoder(), ["c0"]), ("n", StandardScaler(), ["x0", "x1"])])
    estimator = make_pipeline(pick, LogisticRegression())
    by_hand = clone(estimator).fit(data.features.frame(), data.y)
    said = as_learner(estimator).fit(data, 1).predict(data.features)
    np.testing.assert_array_equal(said.proba, by_hand.predict_proba(data.features.frame()))


def test_text_reaches_a_vectoriser() -> None:
    """A text vectoriser reads the one text column; among several it must be told which."""
    words = ["good fine", "bad poor"] * 20
    base = make_examples(40)
    data = replace(base, features=text_features({"review": words}), codes=np.arange(40, dtype=np.int32) % 2)
    for estimator in (
        make_pipeline(TfidfVectorizer(), LogisticRegression()),
        make_pipeline(HashingVectorizer(n_features=64), SGDClassifier()),
    ):
        said = as_learner(estimator).fit(data, 1).predict(data.features)
        np.testing.assert_array_equal(said.codes, [1, 0] * 20 if said.classes[0] == "yes" else [0, 1] * 20)
    two = replace(data, features=text_features({"review": words, "title": words}))
    with pytest.raises(LearnerError, match="reads one column of text and there are 2"):
        as_learner(make_pipeline(TfidfVectorizer(), LogisticRegression())).fit(two, 1)


def test_text_is_refused_by_a_matrix() -> None:
    """An estimator that reads numbers names the text column that it cannot."""
    with pytest.raises(DataError, match="'review'"):
        learners.Sklearn(SGDClassifier(), view="matrix").check(text_features({"review": ["a", "b"]}))


# Classes


@pytest.mark.parametrize(
    "estimator",
    [
        SGDClassifier(loss="log_loss", random_state=0),
        SGDClassifier(random_state=0, average=True),
        SGDClassifier(random_state=0, average=10_000),
        Perceptron(random_state=0),
    ],
)
@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_linear_model_grows(estimator: Any, late: int) -> None:
    """A class that appears late joins, wherever it sorts, and what was said of the former ones still stands."""
    table = ("a", "b", "c")
    known = [c for i, c in enumerate(table) if i != late]
    data = make_examples(600, classes=table)
    model = updatable(estimator).fit(without(data.slice(0, 300), late), 1)
    before = model.predict(data.features)
    newcomer = replace(data.take(np.flatnonzero(data.codes == late).astype(np.int64)[:1]), weights=np.full(1, 1e-9))
    model.update(newcomer, 1)
    after = model.predict(data.features)
    assert after.classes == table
    assert before.codes is not None
    assert after.codes is not None
    said = [known[c] for c in before.codes]
    np.testing.assert_array_equal([table[c] for c in after.codes], said)
    for start in (300, 400, 500):
        model.update(data.slice(start, start + 100), start)
    final = model.predict(data.features)
    assert final.codes is not None
    if estimator.get_params().get("average") is not True:  # a mean over all history takes as long to turn
        assert np.mean(final.codes[data.codes == late] == late) > 0.5


@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize("estimator", [GaussianNB(), MultinomialNB(), BernoulliNB(), ComplementNB(), CategoricalNB()])
def test_naive_bayes_grows_exactly(estimator: Any, late: int) -> None:
    """Naive Bayes that met a class late equals one that was told of all classes at the start."""
    data = make_examples(300, 3, classes=("a", "b", "c"))
    if not isinstance(estimator, GaussianNB):
        counts = np.abs(np.round(data.features.matrix())).clip(0, 2)
        table = pa.table({f"x{j}": counts[:, j] for j in range(3)})
        data = replace(data, features=Features.of(Chunk(table, data.features.schema)))
    first, rest = without(data.slice(0, 150), late), data.slice(150, 300)
    model = updatable(estimator).fit(first, 1)
    model.update(rest, 1)
    told = clone(estimator)
    with np.errstate(divide="ignore"):
        told.partial_fit(first.features.matrix(), first.y, classes=["a", "b", "c"])
        told.partial_fit(rest.features.matrix(), rest.y)
    said = model.predict(data.features)
    np.testing.assert_allclose(said.proba, told.predict_proba(data.features.matrix()), rtol=1e-9)


def test_what_cannot_grow_says_so() -> None:
    """A network keeps its classes, learns the rest of the batch, and notes what it ignored until it is refitted."""
    data = make_examples(300, classes=("a", "b", "c"))
    network = MLPClassifier((4,), max_iter=300, tol=0.01, random_state=0)
    model = updatable(network).fit(without(data.slice(0, 150), 2), 1)
    batch = data.slice(150, 300)
    twin = model.load(model.save())
    model.update(batch, 1)
    twin.update(without(batch, 2), 1)
    np.testing.assert_array_equal(model.predict(data.features).proba, twin.predict(data.features).proba)
    assert model.predict(data.features).classes == ("a", "b")
    (note,) = model.notes
    assert str(int((batch.codes == 2).sum())) in note
    assert "'c'" in note
    assert model.fit(data, 1).notes == ()


def test_an_untrained_classifier_waits_for_two_classes() -> None:
    """It abstains, then predicts the one class it knows, then trains on all that it held."""
    data = make_examples(100)
    model = updatable(SGDClassifier(loss="log_loss", random_state=0)).begin()
    assert model.predict(data.features).codes.tolist() == [ABSTAINED] * 100  # type: ignore[union-attr]
    one = without(data.slice(0, 50), 0)
    model.update(replace(one, classes=("yes",), codes=np.zeros(len(one), dtype=np.int32)), 1)
    said = model.predict(data.features)
    assert said.classes == ("yes",)
    np.testing.assert_array_equal(said.proba, np.ones((100, 1)))
    model = model.load(model.save())
    rest = data.slice(50, 100)
    assert rest.codes is not None
    model.update(replace(rest, classes=("yes", "no"), codes=1 - rest.codes), 2)
    by_hand = SGDClassifier(loss="log_loss", random_state=0).partial_fit(
        np.vstack([one.features.matrix(), rest.features.matrix()]), np.append(one.y, rest.y), classes=["no", "yes"]
    )
    np.testing.assert_array_equal(model.predict(data.features).proba, by_hand.predict_proba(X[:100]))


def test_classes_that_numpy_would_mix_stay_apart() -> None:
    """1 and "1", or halves, are classes like others."""
    for classes in ((1, "1"), (0.5, 1.5)):
        data = make_examples(200, classes=classes)
        said = as_learner(DecisionTreeClassifier(random_state=0)).fit(data, 1).predict(data.features)
        assert said.codes is not None
        assert [said.classes[c] for c in said.codes] == data.y.tolist()


def test_one_class_is_a_clear_error() -> None:
    """A window of one class names it, where the estimator refuses such windows."""
    with pytest.raises(LearnerError, match="label 'yes': widen the window"):
        as_learner(LogisticRegression()).fit(without(DATA, 0), 1)


@pytest.mark.parametrize("estimator", [LabelSpreading(), SelfTrainingClassifier(GaussianNB())])
@pytest.mark.parametrize("classes", [("no", "yes"), (-1, 1)])
def test_rows_without_a_label_are_learned(estimator: Any, classes: tuple[Any, ...]) -> None:
    """Semi-supervised estimators are a type of their own and take code -1, even where -1 is also a class."""
    data = make_examples(200, classes=classes)
    assert data.codes is not None
    hidden = np.where(np.arange(200) % 4 == 0, data.codes, -1).astype(np.int32)
    learner = as_learner(estimator)
    assert isinstance(learner, LearnsUnlabelled)
    assert not isinstance(as_learner(GaussianNB()), LearnsUnlabelled)
    said = learner.fit(replace(data, codes=hidden), 1).predict(data.features)
    assert said.classes == classes
    assert np.mean(said.codes == data.codes) > 0.8


# Weights and values


def test_weights_reach_the_last_step() -> None:
    """Weights are routed to the end of a pipeline, through a search too."""
    data = replace(DATA, weights=np.linspace(0.01, 3.0, len(DATA)))
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    by_hand = clone(pipe).fit(X, data.y, logisticregression__sample_weight=data.weights)
    np.testing.assert_array_equal(as_learner(pipe).fit(data, 1).predict(data.features).proba, by_hand.predict_proba(X))
    search = GridSearchCV(clone(pipe), {"logisticregression__C": [1.0]}, cv=2)
    np.testing.assert_array_equal(
        as_learner(search).fit(data, 1).predict(data.features).proba, by_hand.predict_proba(X)
    )


def test_weights_are_never_ignored() -> None:
    """An estimator without weights is named, in fit and in update."""
    data = replace(DATA, weights=np.ones(len(DATA)))
    with pytest.raises(LearnerError, match="KNeighborsClassifier takes no sample weights"):
        as_learner(KNeighborsClassifier()).fit(data, 1)
    model = updatable(OneVsRestClassifier(SGDClassifier())).fit(DATA, 1)
    with pytest.raises(LearnerError, match="OneVsRestClassifier takes no sample weights"):
        model.update(data, 1)


def test_check_names_column_count_and_next_step() -> None:
    """Nulls and infinities are refused before any training, unless the estimator or an imputer takes the nulls."""
    data = make_examples(100, missing=True)
    nulls = int(np.isnan(data.features.matrix()[:, 0]).sum())
    with pytest.raises(DataError, match=rf"'x0' holds {nulls} nulls in 100 rows.*SimpleImputer"):
        as_learner(LogisticRegression()).check(data.features)
    with pytest.raises(DataError, match="nulls"):
        as_learner(make_pipeline(StandardScaler(), LogisticRegression())).check(data.features)
    for takes in (
        make_pipeline(SimpleImputer(), LogisticRegression()),
        make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression()),
        RandomForestClassifier(3),
        HistGradientBoostingClassifier(max_iter=2),
        GridSearchCV(make_pipeline(SimpleImputer(), LogisticRegression()), {}, cv=2),
    ):
        as_learner(takes).check(data.features)
        as_learner(takes).fit(data, 1).predict(data.features)


def test_check_looks_at_frames_too() -> None:
    """An infinity in one column of a frame is found and named, words beside it notwithstanding."""
    base = make_examples(20, 1, categories=1)
    table = base.features.arrow().set_column(0, "x0", pa.array([np.inf, *range(19)], type=pa.float64()))
    codes = pa.array(np.zeros(20, dtype=np.int32))
    broken = Features.of(Chunk(table.set_column(1, "c0", codes), base.features.schema))
    with pytest.raises(DataError, match="'x0' holds 1 infinite values in 20 rows"):
        as_learner(make_pipeline(OneHotEncoder(), SGDClassifier())).check(broken)


def test_trees_are_counted() -> None:
    """Forests count their trees, boosting one per class and round, and linear models none."""
    three = make_examples(150, classes=("a", "b", "c"))
    for estimator, trees in (
        (RandomForestClassifier(7), 7),
        (GradientBoostingClassifier(n_estimators=4), 12),
        (HistGradientBoostingClassifier(max_iter=5), 15),
        (make_pipeline(StandardScaler(), ExtraTreesClassifier(6)), 6),
        (DecisionTreeClassifier(), 1),
        (LogisticRegression(), 0),
    ):
        assert as_learner(estimator).fit(three, 1).row_trees(150) == 150 * trees


# Saving


def test_what_is_off_is_never_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer format, another learner, another version or a damaged payload is refused before unpickling."""
    learner = as_learner(SGDClassifier())
    blob = learner.fit(DATA, 1).save()
    monkeypatch.setattr("perennial.learners.sklearn.pickle.loads", lambda payload: pytest.fail("it was unpickled"))
    with pytest.raises(FormatError, match="checksum"):
        learner.load(blob[:-1] + bytes([blob[-1] ^ 1]))
    with pytest.raises(FormatError, match="saved by a 'sklearn' learner"):
        learners.SlidingForest(RandomForestClassifier()).load(blob)
    older = saved_module.pack("sklearn", b"", {"sklearn": "0.1.0", "numpy": np.__version__}, "pickle")
    with pytest.raises(FormatError, match=r"saved with sklearn 0\.1\.0"):
        learner.load(older)
    monkeypatch.setattr(saved_module, "FORMAT", 9)
    newer = saved_module.pack("sklearn", b"", {}, "pickle")
    monkeypatch.setattr(saved_module, "FORMAT", 1)
    former = saved_module.pack("sklearn", b"", {}, "pickle")
    monkeypatch.setattr(saved_module, "FORMAT", 2)
    with pytest.raises(FormatError, match=r"format 9; this release reads 2\.\.2: upgrade perennial"):
        learner.load(newer)
    with pytest.raises(FormatError, match=r"format 1; this release reads 2\.\.2: train anew"):
        learner.load(former)


def test_a_lambda_cannot_be_saved() -> None:
    """What pickle cannot keep is a clear error, and trains all the same."""
    model = as_learner(make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression())).fit(DATA, 1)
    with pytest.raises(LearnerError, match="defined in a module"):
        model.save()


# The sliding forest


def test_before_an_update_a_sliding_forest_is_the_forest() -> None:
    """The first fit keeps the user's number of trees and says what the forest says."""
    forest = RandomForestClassifier(9, random_state=0, max_depth=3)
    by_hand = clone(forest).fit(X, DATA.codes)
    said = learners.SlidingForest(forest).fit(DATA, 1).predict(DATA.features)
    np.testing.assert_array_equal(said.proba, by_hand.predict_proba(X))


def test_a_sliding_forest_is_bounded_and_counts_its_trees() -> None:
    """Memory holds ``size`` members, and an update costs its own trees alone."""
    data = make_examples(400)
    model = SlidingForest(RandomForestClassifier(8), trees=3, size=4).fit(data.slice(0, 100), 1)
    assert model.row_trees(100) == 800
    for start in range(100, 400, 40):
        model.update(data.slice(start, start + 40), start)
        assert model.row_trees(40) == 120
    assert [len(member.estimators_) for member in model._members][-3:] == [3, 3, 3]
    assert len(model._members) == 4
    assert model._weights.sum() == pytest.approx(1.0)


def test_the_worst_member_goes() -> None:
    """After a flip of the labels, the members that learned the former concept lose their weight and then go."""
    data = make_examples(600)
    assert data.codes is not None
    flipped = replace(data, codes=1 - data.codes)
    model = SlidingForest(RandomForestClassifier(8, random_state=0), trees=5, size=3).fit(data.slice(0, 200), 1)
    for start in (200, 300, 400):
        model.update(flipped.slice(start, start + 100), start)
    said = model.predict(flipped.features.slice(500, 600))
    assert np.mean(said.codes == flipped.codes[500:]) > 0.75  # type: ignore[index]
    assert max(len(member.estimators_) for member in model._members) == 5, "the first, now worst, is still there"
    oldest = SlidingForest(RandomForestClassifier(8, random_state=0), trees=5, size=1, drop="worst")
    oldest = oldest.fit(data.slice(0, 200), 1)
    oldest.update(flipped.slice(200, 300), 1)
    assert [len(member.estimators_) for member in oldest._members] == [5], "the newcomer itself was dropped"


def test_members_weigh_the_inverse_square_of_their_loss() -> None:
    """Weights are those of the definition, with the newcomer at the best weight."""
    data = make_examples(300, task="regression")
    model = SlidingForest(RandomForestRegressor(6), trees=3, size=5).fit(data.slice(0, 100), 1)
    model.update(data.slice(100, 200), 2)
    batch = data.slice(200, 300)
    losses = [np.mean((m.predict(batch.features.matrix()) - batch.values) ** 2) for m in model._members]
    model.update(batch, 3)
    raw = 1.0 / np.square([*losses, min(losses)])
    np.testing.assert_allclose(model._weights, raw / raw.sum())


def test_members_are_aligned_by_class() -> None:
    """A member whose batch lacked a class gives it nothing, and mixes no other up."""
    data = make_examples(500, classes=("a", "b", "c"))
    model = SlidingForest(RandomForestClassifier(10, random_state=0), trees=10, size=4)
    model = model.fit(without(data.slice(0, 150), 0), 1)
    np.testing.assert_array_equal(model.predict(data.features).proba[:, 0], 0.0)  # type: ignore[index]
    model.update(without(data.slice(150, 300), 2), 2)
    model.update(data.slice(300, 400), 3)
    said = model.predict(data.features.slice(400, 500))
    assert np.mean(said.codes == data.codes[400:]) > 0.6  # type: ignore[index]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"estimator": LogisticRegression()}, "RandomForest or ExtraTrees"),
        ({"trees": 0}, "trees=0"),
        ({"size": 0}, "size=0"),
        ({"drop": "worse"}, "did you mean `worst`"),
    ],
)
def test_wrong_settings_of_a_sliding_forest_are_refused(settings: dict[str, Any], says: str) -> None:
    """A setting that cannot work fails when it is made."""
    with pytest.raises(ConfigError, match=says):
        learners.SlidingForest(**{"estimator": RandomForestClassifier(), **settings})
