"""Committees: weights that follow losses, a regret that its bound holds, copies that remember, and a bounded state."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB

from perennial import learners
from perennial.core.errors import ConfigError, LearnerError
from perennial.core.features import Chunk, Features, Schema, Vocabulary
from perennial.core.protocols import Accounts, Learner
from perennial.core.records import Examples, Prediction
from perennial.learners.committee import CommitteeLearner, committee, full, light
from perennial.testing import make_examples


class Says(learners.plain.Logistic):
    """An expert that always gives the positive class one probability, and learns nothing."""

    def __init__(self, p: float = 0.5, row: float | None = None) -> None:
        super().__init__()
        self._params, self.p, self.row = {"p": p, "row": row}, p, row

    def fit(self, examples: Examples, seed: int) -> Any:
        return self._made()

    def begin(self) -> Any:
        return self._made()

    def _made(self) -> Any:
        new = type(self)(self.p, self.row)
        new._state = super().begin()._state
        return new

    def load(self, blob: bytes, trust: Any = None) -> Any:
        return self._made()

    def update(self, examples: Examples, seed: int) -> None:
        """Nothing."""

    def predict(self, features: Any) -> Prediction:
        p = np.full(len(features), self.p)
        if self.row is not None:  # the first row apart
            p[:1] = self.row
        return Prediction(codes=(p > 0.5).astype(np.int32), proba=np.column_stack([1 - p, p]), classes=("no", "yes"))


def labelled(data: Examples, yes: Any) -> Examples:
    """The same rows with other labels."""
    return replace(data, codes=np.asarray(yes, dtype=np.int32))


def batches(n: int, rows: int = 20, seed: int = 0) -> list[Examples]:
    """Batches of one stream."""
    whole = make_examples(n * rows, seed=seed)
    return [whole.slice(i * rows, (i + 1) * rows) for i in range(n)]


def weights(model: CommitteeLearner) -> dict[str, float]:
    """What each expert weighs."""
    return {one["name"]: one["weight"] for one in model.account()["experts"]}


def test_weights_are_those_of_fixed_share() -> None:
    """One update by hand: exponential in the batch's loss, then a share for all."""
    data = make_examples(30)
    model = committee({"a": Says(0.8), "b": Says(0.4)}, rate=0.1, share=0.2).fit(data, 0)
    assert weights(model) == {"a": 0.5, "b": 0.5}
    batch = labelled(make_examples(10, seed=1), [1] * 7 + [0] * 3)
    mixed = model.predict(batch.features).proba
    assert mixed is not None
    np.testing.assert_allclose(mixed[:, 1], 0.6)
    model.update(batch, 0)
    a = -7 * np.log(0.8) - 3 * np.log(0.2)
    b = -7 * np.log(0.4) - 3 * np.log(0.6)
    gained = np.exp(-0.1 * np.array([a, b])) / 2
    expected = 0.8 * gained / gained.sum() + 0.2 / 2
    np.testing.assert_allclose(list(weights(model).values()), expected)
    told = model.account()
    own = -7 * np.log(0.6) - 3 * np.log(0.4)
    np.testing.assert_allclose(told["loss"] * 10, own)
    np.testing.assert_allclose(told["regret"], own - min(a, b))
    mix = -np.log(gained.sum()) / 0.1
    np.testing.assert_allclose(told["gaps"], own - mix)
    np.testing.assert_allclose(told["bound"], np.log(2) / 0.1 + own - mix)


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(st.floats(0.02, 0.98), min_size=2, max_size=5),
    yes=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=12),
    rate=st.floats(0.01, 2.0),
    share=st.floats(0.001, 0.5),
)
def test_the_regret_is_within_its_bound(said: list[float], yes: list[list[bool]], rate: float, share: float) -> None:
    """Whatever the labels, rate and share; and at a rate of one over the rows no gap is above 0."""
    data = make_examples(40)
    for chosen in (rate, 1 / 4):
        model = committee({str(i): Says(p) for i, p in enumerate(said)}, rate=chosen, share=share).fit(data, 0)
        for labels in yes:
            model.update(labelled(data.slice(0, 4), labels), 0)
        told = model.account()
        assert told["regret"] <= told["bound"] + 1e-9
        if chosen == 1 / 4:
            assert told["gaps"] <= 1e-9


def test_the_bound_holds_with_copies_too() -> None:
    """Copies that join take weight from all, and the bound counts it."""
    model = committee({"a": GaussianNB(), "b": learners.plain.Logistic()}, champions=2, every=2, rate=0.5)
    trained = model.fit(make_examples(60), 0)
    for i, batch in enumerate(batches(12, seed=3)):
        trained.update(batch, i)
        told = trained.account()
        assert told["regret"] <= told["bound"]
    assert sum("@" in one["name"] for one in told["experts"]) == 2


def test_a_concept_that_returns_is_met_by_its_copy() -> None:
    """Two concepts take turns: with copies the first batch of a known one costs less than without."""

    def lost(champions: int) -> float:
        data = make_examples(60)
        experts = {"a": learners.plain.Logistic(forgetting=0.99), "b": learners.plain.Logistic(forgetting=0.98)}
        model = committee(experts, champions=champions, every=5, rate=0.2).fit(data, 0)
        total = 0.0
        for i, batch in enumerate(batches(60, seed=5)):
            assert batch.codes is not None
            turned = labelled(batch, 1 - batch.codes if i // 10 % 2 else batch.codes)
            said = model.predict(turned.features).proba
            assert said is not None
            if i >= 20:
                assert turned.codes is not None
                total += float(-np.log(np.maximum(said[np.arange(len(turned)), turned.codes], 1e-6)).sum())
            model.update(turned, i)
        return total

    assert lost(4) < 0.9 * lost(0)


def test_who_is_useless_for_long_comes_back_soon() -> None:
    """The share keeps a floor under every weight."""
    data = make_examples(30)
    model = committee({"yes": Says(0.9), "no": Says(0.1)}, rate=0.1, share=0.05).fit(data, 0)
    for _ in range(30):
        model.update(labelled(data.slice(0, 10), [1] * 10), 0)
    assert weights(model)["no"] == pytest.approx(0.028, abs=0.001)
    for _ in range(2):
        model.update(labelled(data.slice(0, 10), [0] * 10), 0)
    assert weights(model)["no"] > 0.5


def test_who_abstains_has_no_say_and_neither_gains_nor_loses() -> None:
    """An untrained expert leaves the others' mean as it is, and its weight changes by the share alone."""
    data = make_examples(30)
    model = committee({"a": Says(0.8), "forest": learners.SlidingForest("sklearn.ensemble.RandomForestClassifier")})
    begun = model.begin()
    said = begun.predict(data.features)
    begun.update(data, 0)
    first = begun.account()
    assert said.proba is None or len(said.classes) in (0, 2)
    assert {one["loss"] for one in first["experts"]} == {first["experts"][0]["loss"]}


class Silent(Says):
    """An expert that abstains from everything."""

    def predict(self, features: Any) -> Prediction:
        return Prediction(codes=np.full(len(features), -1, dtype=np.int32))


def test_who_says_nothing_at_all_is_no_error() -> None:
    """It has no probabilities to be asked for; a copy is made of nobody as long as nothing was counted."""
    data = make_examples(40)
    model = committee({"a": Says(0.8), "silent": Silent()}, champions=2, every=1).fit(data, 0)
    np.testing.assert_allclose(model.predict(data.features).proba[:, 1], 0.8)  # type: ignore[index]
    model.update(data, 0)
    told = {one["name"]: one["loss"] for one in model.account()["experts"]}
    assert told["a"] == told["silent"]
    mute = committee({"a": Silent(), "b": Silent()}, champions=2, every=1).fit(data, 0)
    mute.update(data, 0)
    assert [one["name"] for one in mute.account()["experts"]] == ["a", "b"]
    assert mute.account()["bound"] is None


def test_an_exact_start_is_no_unit_for_ever() -> None:
    """Labels that were constant, and met exactly, leave a unit by which later losses are still told."""
    data = make_examples(60, task="regression")
    still = replace(data, values=np.zeros(60))
    model = committee({"a": learners.plain.Linear(), "b": learners.plain.Linear(ridge=1e9)}).fit(still, 0)
    model.update(still, 0)
    model.update(data, 1)
    told = model.account()
    assert told["regret"] <= told["bound"] < 1e5


def test_the_same_codes_of_other_words_are_other_rows() -> None:
    """What was said of a word is not said of the word that has its code elsewhere."""
    red = make_examples(60, 1, categories=1, seed=1)
    model = committee({"a": learners.hashed.FTRL(bits=10), "b": learners.hashed.AdaGrad(bits=10)}).fit(red, 0)
    vocabulary = red.features.schema.vocabularies["c0"].words
    other = Vocabulary([f"{word}-else" for word in vocabulary])
    schema = Schema(red.features.schema.columns, {"c0": other})
    chunks = [(Chunk(chunk.table, schema), index) for chunk, index in red.features.parts]
    blue = Features(schema, chunks, len(red))
    fresh = model.load(model.save())
    expected = fresh.predict(blue).proba
    model.predict(red.features)
    np.testing.assert_array_equal(model.predict(blue).proba, expected)


def test_frozen_experts_stay_and_experts_without_probabilities_are_refused() -> None:
    """An expert that cannot be updated is frozen after its fit; a ranking without probabilities cannot be weighed."""
    data = make_examples(60)
    model = committee({"frozen": LogisticRegression(), "nb": GaussianNB()}).fit(data, 0)
    told = {one["name"]: one["frozen"] for one in model.account()["experts"]}
    assert told == {"frozen": True, "nb": False}
    with pytest.raises(LearnerError, match="must be fitted first"):
        committee({"frozen": LogisticRegression(), "nb": GaussianNB()}).begin()
    bad = committee({"svm": "sklearn.svm.LinearSVC", "nb": GaussianNB()}).fit(data, 0)
    with pytest.raises(LearnerError, match="gives no probabilities"):
        bad.predict(data.features)


def test_the_state_is_held_to_its_size() -> None:
    """Copies go first; experts that are larger than all that is allowed fail with a word."""
    experts = {"a": learners.plain.Logistic(), "b": GaussianNB()}
    stream = batches(8, seed=2)
    roomy = committee(experts, champions=3, every=1).fit(make_examples(60), 0)
    for i, batch in enumerate(stream):
        roomy.update(batch, i)
    alone = max(one.size() for one in roomy._inside()) * 2  # type: ignore[attr-defined]
    tight = committee(experts, champions=3, every=1, most_bytes=alone + 1500).fit(make_examples(60), 0)
    for i, batch in enumerate(stream):
        tight.update(batch, i)
        assert tight.size() <= alone + 1500
        assert sum(weights(tight).values()) == pytest.approx(1.0)
    assert len(weights(tight)) < len(weights(roomy))
    with pytest.raises(LearnerError, match="most_bytes is 10"):
        committee(experts, most_bytes=10).fit(make_examples(60), 0)


def test_regression_is_weighed_by_squared_error() -> None:
    """In units of the committee's own, so that the scale of labels does not matter."""
    data = make_examples(120, task="regression")
    big = replace(data, values=1000.0 * data.values)  # type: ignore[operator]
    found = []
    for one in (data, big):
        model = committee({"line": learners.plain.Linear(), "mean": learners.plain.Linear(ridge=1e12)}, rate=0.5)
        trained = model.fit(one.slice(0, 60), 0)
        for low in (60, 80, 100):
            trained.update(one.slice(low, low + 20), 0)
        found.append(weights(trained))
    assert found[0]["line"] > 0.9
    assert found[1]["line"] == pytest.approx(found[0]["line"], rel=1e-6)


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (lambda: committee({"a": GaussianNB()}), "experts"),
        (lambda: committee({"a": GaussianNB(), "b": Ridge()}), "experts"),
        (lambda: committee({"a": LogisticRegression(), "b": LogisticRegression()}), "experts"),
        (lambda: committee({"a@1": GaussianNB(), "b": GaussianNB()}), "experts"),
        (lambda: committee({"a": GaussianNB(), "b": GaussianNB()}, rate=0), "rate"),
        (lambda: committee({"a": GaussianNB(), "b": GaussianNB()}, share=1.0), "share"),
        (lambda: committee({"a": GaussianNB(), "b": GaussianNB()}, share=0.0), "share"),
        (lambda: committee({"a": GaussianNB(), "b": GaussianNB()}, champions=-1), "champions"),
        (lambda: committee({"a": GaussianNB(), "b": GaussianNB()}, every=0), "every"),
        (lambda: committee({"a": GaussianNB(), "b": GaussianNB()}, most_bytes=0), "most_bytes"),
        (lambda: light("sklearn"), "framework"),
        (lambda: light(task="ranking"), "task"),
    ],
)
def test_what_cannot_be_is_refused(made: Any, field: str) -> None:
    """Before any training, with the name of the setting."""
    with pytest.raises(ConfigError) as caught:
        made()
    assert caught.value.field == field


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_ready_made_ones_say_what_they_are(task: Any) -> None:
    """Three cheap ways, and all; calibrated where there are probabilities; the full one holds rows."""
    pytest.importorskip("lightgbm")
    small, big = light(task=task), full(task=task)
    assert list(small.experts) == ["refit", "ensemble", "decayed"]
    assert list(big.experts) == ["refit", "ensemble", "decayed", "fast", "slow", "forest", "window"]
    for expert in big.experts.values():
        assert expert.name.startswith("Calibrated(") == (task == "classification")
    assert small.memorises(untrained=False) is None
    assert "8,000" in str(big.memorises(untrained=False))
    assert isinstance(small, Accounts)
    assert isinstance(small, Learner)


def test_what_was_said_of_a_batch_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test-then-train asks each booster about a batch once; the results are those of asking twice."""
    pytest.importorskip("lightgbm")
    from perennial.learners.lightgbm import LightGBM

    asked = 0
    raw = LightGBM.raw

    def counted(self: Any, *args: Any) -> Any:
        nonlocal asked
        asked += 1
        return raw(self, *args)

    monkeypatch.setattr(LightGBM, "raw", counted)
    data, stream = make_examples(300), batches(4, rows=100, seed=4)
    path = {"estimator": "lightgbm.LGBMClassifier", "params": {"n_estimators": 5, "verbose": -1, "n_jobs": 1}}
    tested = learners.Decayed(path, trees=3).fit(data, 0)
    blind = learners.Decayed(path, trees=3).fit(data, 0)
    for batch in stream:
        tested.predict(batch.features)
        before = asked
        tested.update(batch, 0)
        assert asked == before
        blind.update(batch, 0)
    assert tested.digest() == blind.digest()
