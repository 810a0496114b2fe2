"""The correction of probabilities: what it minimises, what it repairs, and when the learner inside learns."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.svm import SVC

from perennial import learners
from perennial.core.errors import ConfigError, LearnerError
from perennial.core.protocols import Updatable
from perennial.core.records import Examples, Prediction
from perennial.learners import as_learner
from perennial.learners.calibrated import CalibratedLearner, UpdatableCalibrated, _fitted
from perennial.testing import make_examples


def log_loss(said: Prediction, data: Examples) -> float:
    """Mean log loss of the labels, whatever order the prediction's classes have."""
    assert said.proba is not None
    at = [said.classes.index(label) for label in data.y.tolist()]
    return float(-np.log(np.maximum(said.proba[np.arange(len(at)), at], 1e-12)).mean())


def frozen(estimator: Any, **settings: Any) -> UpdatableCalibrated:
    """A calibrated learner whose inside stays as it was first trained."""
    learner = learners.Calibrated(estimator, inner="frozen", **settings)
    assert isinstance(learner, UpdatableCalibrated)
    return learner


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("ridge", [0.1, 10.0])
def test_the_correction_is_the_optimum(k: int, ridge: float) -> None:
    """Slope and shifts minimise the weighted log loss plus the ridge towards the former ones."""
    draw = np.random.default_rng(k)
    logs = np.log(draw.dirichlet(np.ones(k), size=80))
    truth, weights = draw.integers(0, k, 80), draw.uniform(0.5, 2.0, 80)
    before = np.append(1.2, draw.normal(size=k) / 3)

    def objective(theta: Any) -> float:
        scores = theta[0] * logs + theta[1:]
        missed = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(80), truth]
        return float((weights * missed).sum() + ridge / 2 * ((theta - before) ** 2).sum())

    best = minimize(objective, before, bounds=[(0.05, 20.0)] + [(None, None)] * k, tol=1e-12)
    ours = _fitted(logs, truth, weights, before, ridge)
    assert objective(ours) <= best.fun + 1e-7
    np.testing.assert_allclose(ours, best.x, atol=2e-3)


def test_a_contradicting_slope_stops_at_its_bound() -> None:
    """Labels that turn the ranking round flatten it: the learner inside is never contradicted."""
    p = np.linspace(0.05, 0.95, 60)
    logs = np.log(np.column_stack([1 - p, p]))
    ours = _fitted(logs, (p < 0.5).astype(np.int64), np.ones(60), np.array([1.0, 0.0, 0.0]), 0.1)
    assert ours[0] == 0.05


def test_two_classes_are_platts() -> None:
    """For two classes the log odds are a line in the log odds of the inside, so the ranking is kept."""
    data = make_examples(400)
    model = frozen(RandomForestClassifier(20, max_depth=3, random_state=0)).fit(data.slice(0, 200), 1)
    model.update(data.slice(200, 400), 2)
    inside, said = model._learner.predict(data.features).proba, model.predict(data.features).proba
    assert inside is not None
    assert said is not None
    x, y = (np.log(p[:, 1] / p[:, 0]) for p in (np.clip(inside, 1e-6, None), said))
    slope, shift = np.polyfit(x, y, 1)
    np.testing.assert_allclose(slope * x + shift, y, atol=1e-9)
    assert slope > 0


def test_a_frozen_inside_follows_a_change_of_base_rate() -> None:
    """Calibration alone repairs the log loss when the share of a class changes, and costs no trees."""
    data = make_examples(3000)
    assert data.codes is not None
    rare = np.flatnonzero((data.codes == 0) | (np.arange(3000) % 10 == 0)).astype(np.int64)
    later = data.take(rare[rare >= 500])
    model = frozen(RandomForestClassifier(20, max_depth=4, random_state=0)).fit(data.slice(0, 500), 1)
    inside = model._learner.digest()
    before = log_loss(model.predict(later.features.slice(600, 1000)), later.slice(600, 1000))
    for start in range(0, 600, 100):
        model.update(later.slice(start, start + 100), start)
    after = log_loss(model.predict(later.features.slice(600, 1000)), later.slice(600, 1000))
    assert after < 0.85 * before
    assert model._learner.digest() == inside
    assert model.row_trees(100) == 0


def test_fit_holds_out_the_last_share() -> None:
    """The inside is trained on the first part in order; the correction is made on the rest."""
    data = make_examples(200)
    model = learners.Calibrated(RandomForestClassifier(5, random_state=0), share=0.25).fit(data, 1)
    assert isinstance(model, CalibratedLearner)
    first = as_learner(RandomForestClassifier(5, random_state=0)).fit(data.slice(0, 150), 1)
    assert model._learner.digest() == first.digest()
    assert model.row_trees(200) == 150 * 5
    assert model._correction.slope != 1.0


def test_a_correction_is_made_before_the_inside_learns() -> None:
    """An update tests first: the correction comes from an inside that has not seen the batch."""
    data = make_examples(300)
    estimator = SGDClassifier(loss="log_loss", random_state=0)
    model = learners.Calibrated(estimator).fit(data.slice(0, 150), 1)
    assert isinstance(model, UpdatableCalibrated)
    twin = frozen(estimator)._with(model._learner.load(model._learner.save()))
    twin._correction = model._correction
    model.update(data.slice(150, 300), 2)
    twin.update(data.slice(150, 300), 2)
    assert model._correction == twin._correction
    assert model._learner.digest() != twin._learner.digest()
    inside = as_learner(estimator).fit(data.slice(0, 120), 1)
    assert isinstance(inside, Updatable)
    inside.update(data.slice(120, 150), 1)
    inside.update(data.slice(150, 300), 2)
    assert model._learner.digest() == inside.digest()


def test_a_class_that_appears_late_gets_its_own_shift() -> None:
    """The correction grows with the classes of the inside and keeps what it knew of the others."""
    data = make_examples(600, classes=("a", "b", "c"))
    assert data.codes is not None
    first = data.slice(0, 200).take(np.flatnonzero(data.codes[:200] < 2).astype(np.int64))
    model = learners.Calibrated(SGDClassifier(loss="log_loss", random_state=0)).fit(first, 1)
    assert isinstance(model, UpdatableCalibrated)
    known = dict(zip(model._correction.classes, model._correction.shifts, strict=True))
    model.update(data.slice(200, 300), 2)  # the inside has not met "c" when it is corrected
    assert set(model._correction.classes) == set(known)
    model.update(data.slice(300, 400), 3)
    assert set(model._correction.classes) == {"a", "b", "c"}
    assert model.predict(data.features).classes == ("a", "b", "c")


def test_frozen_makes_any_learner_updatable() -> None:
    """The type says what can go on: a frozen inside needs no update of its own, but it must be trained."""
    assert not isinstance(learners.Calibrated(LogisticRegression()), Updatable)
    assert isinstance(learners.Calibrated(SGDClassifier(loss="log_loss")), Updatable)
    with pytest.raises(LearnerError, match="give `initial`"):
        frozen(LogisticRegression()).begin()


def test_identity_tells_settings_apart() -> None:
    """Another inside, ridge, share or way of updating is another identity."""
    made = [
        learners.Calibrated(SGDClassifier(loss="log_loss"), **settings).identity()  # type: ignore[arg-type]
        for settings in ({}, {"ridge": 1.0}, {"share": 0.3}, {"inner": "frozen"})
    ]
    assert len({*made, learners.Calibrated(LogisticRegression()).identity()}) == 5


def test_weights_count() -> None:
    """Rows of weight zero do not move the correction."""
    data = make_examples(200)
    model = frozen(LogisticRegression()).fit(data.slice(0, 100), 1)
    before = model._correction
    model.update(replace(data.slice(100, 200), weights=np.zeros(100)), 2)
    np.testing.assert_allclose([model._correction.slope, *model._correction.shifts], [before.slope, *before.shifts])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: learners.Calibrated(Ridge()), "classification"),
        (lambda: learners.Calibrated(DummyClassifier(), share=1.0), "share=1.0"),
        (lambda: learners.Calibrated(DummyClassifier(), ridge=0.0), "ridge=0.0"),
        (lambda: learners.Calibrated(DummyClassifier(), inner="freezed"), "did you mean `frozen`"),
    ],
)
def test_wrong_settings_are_refused(make: Any, says: str) -> None:
    """A setting that cannot work fails when it is made."""
    with pytest.raises(ConfigError, match=says):
        make()


def test_no_probabilities_is_a_clear_error() -> None:
    """A learner that names classes only cannot be calibrated."""
    with pytest.raises(LearnerError, match="SVC gives no probabilities"):
        learners.Calibrated(SVC()).fit(make_examples(50), 1)
