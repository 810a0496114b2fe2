"""What the boosted-tree learners share: class tables, priors, gradients and leaf steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perennial.core.errors import ConfigError
from perennial.learners.boosting import (
    Decay,
    Leaves,
    Stopping,
    Target,
    aligned,
    gradients,
    outputs,
    prior,
    probabilities,
    ranked,
    refitted,
    widened,
)
from perennial.testing import make_examples


def _loss(raw: np.ndarray, target: Target) -> float:
    weights = np.ones(len(raw)) if target.weights is None else target.weights
    if not target.classes:
        return float((weights * (raw[:, 0] - target.y) ** 2).sum() / 2)
    p = probabilities(raw, target.classes)
    return float(-(weights * np.log(p[np.arange(len(p)), target.y.astype(int)])).sum())


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_gradients_are_the_slope_of_the_loss(classes: int) -> None:
    """Slopes equal central differences of the weighted loss, for regression, two and four classes."""
    draw = np.random.default_rng(0)
    y = draw.normal(size=6) if not classes else draw.integers(0, classes, 6).astype(np.float64)
    target = Target(y=y, classes=classes, weights=draw.uniform(0.5, 2, 6))
    raw = draw.normal(size=(6, target.outputs))
    slope, _ = gradients(raw, target)
    for i, j in np.ndindex(raw.shape):
        step = np.zeros_like(raw)
        step[i, j] = 1e-5
        measured = (_loss(raw + step, target) - _loss(raw - step, target)) / 2e-5
        assert slope[i, j] == pytest.approx(measured, abs=1e-6)


@pytest.mark.parametrize("classes", [0, 2])
def test_curvature_is_the_slope_of_the_slope(classes: int) -> None:
    """Second derivatives equal differences of the first, where the loss has one score per row."""
    draw = np.random.default_rng(1)
    y = draw.normal(size=5) if not classes else draw.integers(0, 2, 5).astype(np.float64)
    target = Target(y=y, classes=classes)
    raw = draw.normal(size=(5, 1))
    _, curve = gradients(raw, target)
    measured = (gradients(raw + 1e-5, target)[0] - gradients(raw - 1e-5, target)[0]) / 2e-5
    np.testing.assert_allclose(curve, measured, atol=1e-8)


def test_a_class_is_told_by_type_and_value() -> None:
    """1, True and "1" are three classes, and one that no row has is not met."""
    examples = make_examples(60, classes=(1, True, "1", 2.5))
    assert examples.codes is not None
    examples = examples.take(np.flatnonzero(examples.codes != 3))
    classes, codes = aligned((True,), examples)
    assert [(type(c), c) for c in classes] == [(bool, True), (int, 1), (str, "1")]
    assert [classes[i] is examples.classes[c] for i, c in zip(codes, examples.codes, strict=True)].count(False) == 0


def test_ranks_follow_the_order_of_the_classes_and_not_of_the_table() -> None:
    """Classes come out sorted whatever order a stream named them in; words and numbers keep the table's."""
    examples = make_examples(60, classes=("b", "c", "a"))
    classes, labels, ranks = ranked(examples)
    assert classes == ("a", "b", "c")
    assert [classes[rank] for rank in ranks] == labels.tolist() == examples.y.tolist()
    mixed = replace(examples, classes=("b", 3, "a"))
    classes, labels, ranks = ranked(mixed)
    assert classes == ("b", 3, "a")
    assert labels.tolist() == ranks.tolist()


def test_two_classes_widen_to_three_and_say_the_same_of_the_two() -> None:
    """The odds of two former classes are unchanged when a third comes, which scores 0."""
    raw = np.array([[1.7], [-0.4]])
    before, after = probabilities(raw, 2), probabilities(widened(raw, 3), 3)
    np.testing.assert_allclose(after[:, 0] / after[:, 1], before[:, 0] / before[:, 1])
    assert (widened(raw, 3)[:, 2] == 0).all()
    assert widened(np.ones((2, 3)), 5).tolist() == [[1, 1, 1, 0, 0]] * 2


@pytest.mark.parametrize(("mass", "shares"), [((30.0, 10.0), (0.75, 0.25)), ((60.0, 30.0, 10.0), (0.6, 0.3, 0.1))])
def test_the_prior_gives_the_shares_of_the_labels(mass: tuple[float, ...], shares: tuple[float, ...]) -> None:
    """Without trees, each class has its share, up to half a label of smoothing."""
    raw = prior("classification", mass)
    assert raw.shape == (outputs("classification", len(mass)),)
    np.testing.assert_allclose(probabilities(raw[None, :], len(mass))[0], shares, atol=0.01)


def test_the_prior_of_a_regression_is_the_mean() -> None:
    """Weighted sum over weight, and NaN before any label."""
    assert prior("regression", (4.0, 10.0)).tolist() == [2.5]
    assert np.isnan(prior("regression", (0.0, 0.0))).all()


def test_probabilities_of_extreme_scores_are_0_and_1() -> None:
    """Scores far beyond float64's exponential neither overflow nor warn."""
    assert probabilities(np.array([[1e6], [-1e6]]), 2).round(9).tolist() == [[0, 1], [1, 0]]
    assert probabilities(np.array([[1e6, 0.0, 0.0]]), 3).tolist() == [[1, 0, 0]]


def test_a_leaf_moves_to_the_blend_of_old_and_newton_step() -> None:
    """Leaves become decay * old - (1 - decay) * rate * G / (H + l2); one that no row reaches stays."""
    y = np.array([0.0, 1.0, 1.0, 1.0])
    target = Target(y=y, classes=2, weights=np.array([1.0, 2.0, 1.0, 1.0]))
    start = np.full((4, 1), 0.3)
    old = np.array([[0.5], [-0.2], [9.0]])
    where = np.array([[0], [0], [1], [1]])
    got = refitted(Leaves(where=where, values=[old]), start, target, decay=0.8, rate=0.1, l2=2.0)[0]
    p = 1 / (1 + np.exp(-0.3))
    for leaf, rows in ((0, [0, 1]), (1, [2, 3])):
        assert target.weights is not None
        w = target.weights[rows]
        step = -0.1 * (w * (p - y[rows])).sum() / ((w * p * (1 - p)).sum() + 2.0)
        assert got[leaf, 0] == pytest.approx(0.8 * old[leaf, 0] + 0.2 * step)
    assert got[2, 0] == 9.0


def test_scores_of_a_class_that_a_batch_lacks_stay() -> None:
    """With three classes only the absent one's leaves stay; with two, neither side learns from one side alone."""
    where = np.zeros((3, 3), dtype=np.int64)
    values = [np.array([[1.0]]), np.array([[2.0]]), np.array([[3.0]])]
    three = Target(y=np.array([0.0, 1.0, 0.0]), classes=3)
    moved = refitted(Leaves(where=where, values=values), np.zeros((3, 3)), three, decay=0.5, rate=0.1, l2=1.0)
    assert moved[2].tolist() == [[3.0]]
    assert moved[0].tolist() != [[1.0]]
    two = Target(y=np.ones(3), classes=2)
    moved = refitted(Leaves(where=where[:, :1], values=values[:1]), np.zeros((3, 1)), two, decay=0.5, rate=0.1, l2=1.0)
    assert moved[0].tolist() == [[1.0]]


def test_a_vector_of_leaf_values_moves_as_separate_trees_do() -> None:
    """One tree with a value per class and one tree per class are the same model, and move alike."""
    draw = np.random.default_rng(3)
    target = Target(y=draw.integers(0, 3, 40).astype(np.float64), classes=3)
    where = draw.integers(0, 4, (40, 2))
    vectors = [draw.normal(size=(4, 3)), draw.normal(size=(4, 3))]
    start = draw.normal(size=(40, 3))
    one = refitted(Leaves(where=where, values=vectors), start, target, decay=0.7, rate=0.3, l2=1.0)
    apart = Leaves(where=np.repeat(where, 3, axis=1), values=[v[:, [j]] for v in vectors for j in range(3)])
    other = refitted(apart, start, target, decay=0.7, rate=0.3, l2=1.0)
    for i, both in enumerate(one):
        np.testing.assert_allclose(both, np.hstack(other[3 * i : 3 * i + 3]))


@pytest.mark.parametrize(
    ("field", "value"), [("gamma", 1.2), ("trees", 0), ("leaves", 1), ("l2", -1.0), ("clip", 0.0), ("floor", 0.0)]
)
def test_decay_refuses_impossible_settings(field: str, value: float) -> None:
    """Each setting out of range is refused by name."""
    with pytest.raises(ConfigError, match=field):
        Decay(**{field: value})


@pytest.mark.parametrize(("field", "value"), [("share", 1.0), ("rounds", 0)])
def test_stopping_refuses_impossible_settings(field: str, value: float) -> None:
    """Each setting out of range is refused by name."""
    with pytest.raises(ConfigError, match=field):
        Stopping(**{field: value})
