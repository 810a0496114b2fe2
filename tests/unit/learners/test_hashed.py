"""Hashed learners: the published equations, what decay does, and what the order of words does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from math import exp, sqrt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial import learners
from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.core.protocols import Servable, Sized, Trust, Updatable
from perennial.core.records import ABSTAINED, Examples
from perennial.learners.export import Exportable
from perennial.learners.hashed import FTRL, AdaGrad
from perennial.learners.saved import sha256
from perennial.testing import make_examples

BOTH = pytest.mark.parametrize("learner", [FTRL(bits=14, l1=0.1), AdaGrad(bits=14)], ids=["ftrl", "adagrad"])


def clicks(n=300, seed=0, *, weighted=False, numbers=True, gaps=True, items=20, words=None) -> Examples:
    """Rows of a user, an item and a number, some of them missing; the label bears on the item and the number."""
    draw = np.random.default_rng(seed)
    users, shown, x = draw.integers(0, 9, n), draw.integers(0, items, n), draw.normal(size=n)
    y = (draw.random(n) < 1 / (1 + np.exp(1 - x - (shown % 3)))).astype(np.int32)
    absent = draw.random((3, n)) < 0.1 * gaps
    words = words or {"user": [f"u{i}" for i in range(9)], "item": [f"i{i}" for i in range(items)]}
    at = {name: {word: code for code, word in enumerate(known)} for name, known in words.items()}
    codes = {
        "user": [-1 if gone else at["user"][f"u{i}"] for i, gone in zip(users, absent[0], strict=True)],
        "item": [-1 if gone else at["item"][f"i{i}"] for i, gone in zip(shown, absent[1], strict=True)],
    }
    columns = [Column(name, Kind.CATEGORY, "string") for name in codes]
    table = pa.table({name: pa.array(values, pa.int32()) for name, values in codes.items()})
    if numbers:
        columns.append(Column("x", Kind.NUMBER, "double"))
        table = table.append_column("x", pa.array(x, mask=absent[2]))
    schema = Schema(columns, {name: Vocabulary(known) for name, known in words.items()})
    return Examples(
        features=Features.of(Chunk(table, schema)),
        rows=draw.integers(0, 256, (n, 16)).astype(np.uint8),
        time=np.arange(n, dtype=np.int64),
        codes=y,
        classes=("no", "yes"),
        weights=draw.uniform(0, 3, n) if weighted else None,
    )


def proba(model, examples: Examples) -> np.ndarray:
    """The probability of "yes"."""
    said = model.predict(examples.features)
    return said.proba[:, said.classes.index("yes")]


class Naive:
    """Both models row by row, over dicts keyed by what a slot stands for."""

    def __init__(self, make, cross=()):
        self.params, self.cross = make._params, cross
        self.ftrl = isinstance(make, FTRL)
        self.values, self.squares = defaultdict(float), defaultdict(float)

    def slots(self, row):
        found = [(("intercept",), 1.0)]
        for name, value in row.items():
            if value is None or isinstance(value, str):
                found.append(((name, value), 1.0))
            else:
                found.append(((name,), value))
        return found + [((one, other, row[one], row[other]), 1.0) for one, other in self.cross]

    def coefficient(self, slot):
        value, p = self.values[slot], self.params
        if not self.ftrl:
            return value
        if abs(value) <= p["l1"]:
            return 0.0
        return -(value - np.sign(value) * p["l1"]) / ((p["beta"] + sqrt(self.squares[slot])) / p["alpha"] + p["l2"])

    def odds(self, row):
        return sum(self.coefficient(slot) * value for slot, value in self.slots(row))

    def learn(self, examples, positive, passes):
        rows, p = examples.features.dicts(), self.params
        weights = np.ones(len(rows)) if examples.weights is None else examples.weights
        for _ in range(passes):
            for start in range(0, len(rows), p["rows"]):
                gradient, pull = defaultdict(float), defaultdict(float)
                for row, y, weight in list(zip(rows, positive, weights, strict=True))[start : start + p["rows"]]:
                    error = weight * (1 / (1 + exp(-self.odds(row))) - y)
                    for slot, value in self.slots(row):
                        gradient[slot] += error * value
                        pull[slot] += weight
                before = {slot: self.coefficient(slot) for slot in gradient}
                for slot, g in gradient.items():
                    if self.ftrl:
                        n = self.squares[slot]
                        self.values[slot] += g - (sqrt(n + g * g) - sqrt(n)) / p["alpha"] * before[slot]
                    else:
                        g = g + p["l2"] * before[slot] * pull[slot]
                        self.values[slot] -= p["rate"] * g / (p["beta"] + sqrt(self.squares[slot] + g * g))
                    self.squares[slot] += g * g

    def age(self):
        before = {slot: self.coefficient(slot) for slot in list(self.values)}
        for slot, w in before.items():
            self.squares[slot] *= self.params["decay"]
            if self.ftrl and w:
                p = self.params
                scale = (p["beta"] + sqrt(self.squares[slot])) / p["alpha"] + p["l2"]
                self.values[slot] = -w * scale - np.sign(w) * p["l1"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cross", [(), (("user", "item"),)], ids=["alone", "crossed"])
@pytest.mark.parametrize("few", [True, False], ids=["one-block", "slot-by-slot"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **k: FTRL(bits=22, l1=0.3, l2=0.5, decay=0.8, **k),
        lambda **k: FTRL(bits=22, l1=0.0, l2=0.0, **k),
        lambda **k: AdaGrad(bits=22, l2=0.05, decay=0.7, rate=0.3, beta=0.5, **k),
        lambda **k: AdaGrad(bits=22, decay=1.0, **k),
    ],
    ids=["ftrl-decayed", "ftrl", "adagrad-l2", "adagrad"],
)
def test_it_is_the_published_algorithm(make, few, cross, weighted):
    """A fit and two updates give what the equations give row by row, in mini-batches, weighted, with gaps and pairs."""
    rows = 32 if few else 2  # of so few rows, each mini-batch has only some of the slots, and finds its own
    history = clicks(150, weighted=weighted, items=40)
    learner = make(rows=rows, epochs=2, passes=2, interactions=cross)
    naive = Naive(learner, cross)
    model = learner.fit(history.slice(0, 90), seed=0)
    yes = history.codes == history.classes.index(model.predict(history.features).classes[1])
    naive.learn(history.slice(0, 90), yes[:90], 2)
    for start, stop in ((90, 110), (110, 150)):
        model.update(history.slice(start, stop), seed=0)
        naive.age()
        naive.learn(history.slice(start, stop), yes[start:stop], 2)
    want = [1 / (1 + exp(-naive.odds(row))) for row in history.features.dicts()]
    np.testing.assert_allclose(model.predict(history.features).proba[:, 1], want, rtol=0, atol=1e-11)


@BOTH
def test_rows_are_told_alone_as_among_others(learner):
    """Whatever rows stand beside it, a row is told the same to the last bit, and by the quickest form too."""
    history = clicks(400)
    model = learner.fit(history, seed=0)
    whole = model.predict(history.features).proba
    for start, stop in ((0, 1), (1, 4), (7, 40), (3, 395)):
        np.testing.assert_array_equal(model.predict(history.features.slice(start, stop)).proba, whole[start:stop])
    assert isinstance(model, Servable)
    assert model.serving() is None  # a matrix has codes, and it wants words
    plain = learner.fit(numbers := make_examples(50, 3), seed=0)
    form = plain.serving()
    assert form is not None
    np.testing.assert_array_equal(form(numbers.features.matrix()).proba, plain.predict(numbers.features).proba)


@BOTH
def test_the_order_of_words_does_not_matter(learner):
    """Another vocabulary, with other codes for the same words and some never met, gives the same model and answers."""
    history = clicks(200)
    shuffled = {"user": [f"u{i}" for i in (5, 2, 8, 0, 1, 3, 4, 7, 6)], "item": [f"i{i}" for i in range(30)][::-1]}
    other = clicks(200, words=shuffled)
    one, two = (learner.fit(of, seed=0) for of in (history, other))
    assert one.digest() == two.digest()
    np.testing.assert_array_equal(proba(one, other), proba(two, history))


@BOTH
def test_words_first_seen_later_have_their_slot(learner):
    """A vocabulary may grow between updates; of a word that nobody has learned the model says what it says without."""
    history = clicks(200, gaps=False, numbers=False)
    words = history.features.schema.vocabularies["item"]
    model = learner.fit(history.slice(0, 100), seed=0)
    new = words.encode(["brand new"])
    table = pa.table({"user": pa.array([0, 0, 1], pa.int32()), "item": pa.array([int(new[0])] * 3, pa.int32())})
    rows = replace(history.slice(0, 3), features=Features.of(Chunk(table, history.features.schema)))
    before = model.predict(rows.features).proba
    assert model.load(model.save()).predict(rows.features).proba.tolist() == before.tolist()
    for _ in range(5):
        model.update(replace(rows, codes=np.ones(3, dtype=np.int32)), seed=0)
    assert (proba(model, rows) > before[:, model.predict(rows.features).classes.index("yes")]).all()


def test_slots_are_the_same_in_every_process():
    """They follow from text alone: another process, with another seed of Python's own hash, finds the same model."""
    code = (
        "import runpy, sys; t = runpy.run_path(sys.argv[1]);"
        "print(t['AdaGrad'](bits=12, interactions=[('user', 'item')]).fit(t['clicks'](80), 0).digest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True, env=env
        ).stdout
        for env in ({**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2"))
    }
    assert len(told) == 1


def test_without_decay_it_freezes():
    """Weeks after popularity has turned around, AdaGrad with decay has followed; without, it is still on its way."""

    def day(turned, seed):
        made = clicks(200, seed, numbers=False, gaps=False)
        draw = np.random.default_rng(seed)
        liked = (made.features.codes()["item"] % 2 == 0) != turned
        return replace(made, codes=(draw.random(200) < np.where(liked, 0.9, 0.1)).astype(np.int32))

    losses = {}
    for decay in (0.9, 1.0):
        model = AdaGrad(bits=14, decay=decay, rate=0.5).begin()
        for seed in range(60):
            model.update(day(False, seed), seed=0)
        for seed in range(60, 76):
            model.update(day(True, seed), seed=0)
        test = day(True, 99)
        right = np.where(test.codes == 1, proba(model, test), 1 - proba(model, test))
        losses[decay] = -np.mean(np.log(right))
    assert losses[0.9] < losses[1.0] - 0.1


@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_decay_changes_no_coefficient(decay):
    """What an update forgets are sums of squares: rows of no weight move no probability, and later steps are longer."""
    history = clicks(200)
    none = replace(history, weights=np.zeros(200))
    for learner in (FTRL(bits=14, l1=0.1, decay=decay), AdaGrad(bits=14, decay=decay)):
        model = learner.fit(history, seed=0)
        before = proba(model, history)
        kept = model.load(model.save())
        model.update(none, seed=0)
        np.testing.assert_allclose(proba(model, history), before, rtol=1e-12)
        moved = []
        for one in (kept, model):
            one.update(history.slice(0, 50), seed=0)
            moved.append(np.abs(proba(one, history) - before).max())
        assert moved[1] > moved[0]


def test_sums_of_squares_decay_to_nothing():
    """They end at 0 and not at numbers too small for full precision, which would slow down every later update."""
    model = AdaGrad(bits=6, decay=0.5).fit(clicks(100, gaps=False), seed=0)
    rare = replace(clicks(1, gaps=False), weights=np.zeros(1))
    for _ in range(1_100):
        model.update(rare, seed=0)
    squares = model._state.squares
    assert not squares.any()


@BOTH
def test_a_weight_is_as_many_rows(learner):
    """Within a mini-batch, a row of weight 3 is three rows."""
    history = clicks(60)
    weights = np.random.default_rng(1).integers(0, 4, 60)
    repeated = history.take(np.repeat(np.arange(60), weights).astype(np.int64))
    one = learner.fit(replace(history, weights=weights.astype(float)), seed=0)
    other = learner.fit(repeated, seed=0)
    np.testing.assert_allclose(proba(one, history), proba(other, history), rtol=0, atol=1e-12)


@BOTH
def test_one_class_and_then_another(learner):
    """Nothing is said before a label; one class is told with what is left for the other; the other may come later."""
    history = clicks(120)
    only = replace(history, codes=np.zeros(120, dtype=np.int32))
    model = learner.begin()
    said = model.predict(history.features)
    assert said.codes is not None
    assert (said.codes == ABSTAINED).all()
    assert said.proba is not None
    assert said.proba.shape == (120, 0)
    model.update(only.slice(0, 0), seed=0)
    assert model.predict(history.features).classes == ()
    model.update(only.slice(0, 60), seed=0)
    said = model.predict(history.features)
    assert said.classes == ("no",)
    assert ((said.proba > 0.5) & (said.proba < 1)).all()
    model.update(replace(history.slice(60, 120), codes=np.ones(60, dtype=np.int32)), seed=0)
    assert model.predict(history.features).classes == ("no", "yes")
    named = learner.begin()  # as if both had been named from the start
    named.update(only.slice(0, 60), seed=0)
    np.testing.assert_array_equal(named.predict(history.features).proba[:, 0], said.proba[:, 0])


@BOTH
def test_a_third_class_is_refused_and_learned_nothing(learner):
    """A model of two classes stays as it was when it is told of a third, and rows of no weight name none."""
    history = make_examples(120, 2, classes=("a", "b", "c"))
    with pytest.raises(LearnerError, match="two classes apart, and met a third"):
        learner.fit(history, seed=0)
    assert history.codes is not None
    two = replace(history, weights=(history.codes != 2).astype(float))
    model = learner.fit(two, seed=0)
    assert set(model.predict(history.features).classes) == {"a", "b"}
    before = model.digest()
    with pytest.raises(LearnerError, match="'c' beside"):
        model.update(history, seed=0)
    assert model.digest() == before


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 119), max_size=4),
    ftrl=st.booleans(),
    decay=st.sampled_from([0.5, 0.9, 1.0]),
    weighted=st.booleans(),
)
def test_saved_between_updates_it_goes_on_bit_for_bit(cuts, ftrl, decay, weighted):
    """However a history is split into updates, saving and loading between them changes nothing."""
    history = clicks(120, weighted=weighted)
    learner = (FTRL if ftrl else AdaGrad)(bits=10, decay=decay, rows=16)
    straight, resumed = learner.begin(), learner.begin()
    edges = sorted({0, *cuts, 120})
    for start, stop in pairwise(edges):
        straight.update(history.slice(start, stop), seed=0)
        resumed.update(history.slice(start, stop), seed=1)
        blob = resumed.save(Trust())
        resumed = learner.load(blob, Trust().recorded(sha256(blob)))
    assert resumed.digest() == straight.digest()
    assert resumed.size() == straight.size()
    np.testing.assert_array_equal(proba(resumed, history), proba(straight, history))


@BOTH
def test_memory_is_bounded_and_told(learner):
    """Two numbers a slot, whatever was learned; saved are only the slots that hold something."""
    assert isinstance(learner, Updatable)
    few, many = learner.fit(clicks(50), seed=0), learner.fit(clicks(2_000, items=1_000), seed=0)
    assert isinstance(few, Sized)
    assert few.size() == many.size()
    assert 16 * 2**14 < few.size() < 16 * 2**14 + 300
    assert len(few.save()) < 20_000


@BOTH
def test_what_it_refuses(learner):
    """Infinite numbers, prose, other columns than it learned, and damaged models, each by name."""
    history = clicks(60)
    table = history.features.arrow()
    model = learner.fit(history, seed=0)
    codes = {name: pa.array(values, pa.int32()) for name, values in history.features.codes().items()}
    x = table.column("x").to_numpy(zero_copy_only=False).copy()
    x[3] = np.inf
    broken = Features.of(Chunk(pa.table({**codes, "x": pa.array(x)}), history.features.schema))
    before = model.digest()
    for refuse in (learner.check, lambda f: model.update(replace(history, features=f), 0)):
        with pytest.raises(DataError, match="'x' holds infinite"):
            refuse(broken)
    assert model.digest() == before
    prose = Schema([Column("note", Kind.TEXT, "string")])
    with pytest.raises(DataError, match="'note' holds text"):
        learner.check(Features.of(Chunk(pa.table({"note": ["a", "b"]}), prose)))
    with pytest.raises(DataError, match="fit it anew on these columns"):
        model.predict(clicks(5, numbers=False).features)
    with pytest.raises(LearnerError, match="no examples"):
        learner.fit(history.slice(0, 0), seed=0)
    with pytest.raises(LearnerError, match="not fitted"):
        learner.predict(history.features)
    for pair, what in ((("user", "x"), "holds no words"), (("user", "shop"), "no such column")):
        with pytest.raises(DataError, match=what):
            AdaGrad(interactions=[pair]).check(history.features)
    with pytest.raises(FormatError):
        AdaGrad(bits=13).load(AdaGrad(bits=14).begin().save())


@pytest.mark.parametrize(
    ("field", "settings_"),
    [
        ("bits", {"bits": 0}),
        ("bits", {"bits": 29}),
        ("bits", {"bits": True}),
        ("rate", {"rate": 0.0}),
        ("beta", {"beta": 0}),
        ("l2", {"l2": -1.0}),
        ("decay", {"decay": 0.0}),
        ("decay", {"decay": 1.1}),
        ("epochs", {"epochs": 0}),
        ("passes", {"passes": 1.5}),
        ("rows", {"rows": 0}),
        ("interactions", {"interactions": "user"}),
        ("interactions", {"interactions": [["user"]]}),
        ("interactions", {"interactions": [["user", "user"]]}),
        ("interactions", {"interactions": [["user", "item"], ["item", "user"]]}),
        ("interactions", {"interactions": [["user", 3]]}),
    ],
)
def test_bad_settings_fail_when_made(field, settings_):
    """With the name of the setting."""
    with pytest.raises(ConfigError) as caught:
        AdaGrad(**settings_)
    assert caught.value.field == field
    for name in ("alpha", "beta", "l1"):
        with pytest.raises(ConfigError):
            FTRL(**{name: -1.0})


@BOTH
def test_exported_coefficients_are_the_model(learner):
    """The file says how a word becomes a slot: who follows it says what the model says."""
    history = clicks(200)
    learner = type(learner)(**{**learner._params, "interactions": [("user", "item")]})
    model = learner.fit(history, seed=0)
    assert isinstance(model, Exportable)
    facts = json.loads(model.exported(Trust()).files["model.json"])
    weights = {int(slot): value for slot, value in facts["coefficients"].items()}

    def hashed(*parts):
        return int.from_bytes(blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "little")

    def crossed(a, b):
        h = (a * 0x9E3779B97F4A7C15 + b) % 2**64
        h ^= h >> 30
        h = h * 0xBF58476D1CE4E5B9 % 2**64
        h ^= h >> 27
        h = h * 0x94D049BB133111EB % 2**64
        return h ^ h >> 31

    def weight(h):
        return weights.get(h >> (64 - facts["bits"]), 0.0)

    for row, want in zip(history.features.dicts(), model.predict(history.features).proba[:, 1], strict=True):
        user, item = hashed("user", row["user"]), hashed("item", row["item"])
        odds = weights[2 ** facts["bits"]] + weight(user) + weight(item) + weight(crossed(user, item))
        odds += weight(hashed("x", None)) if row["x"] is None else weight(hashed("x")) * row["x"]
        assert 1 / (1 + exp(-odds)) == pytest.approx(want, abs=1e-12)
    with pytest.raises(LearnerError, match="nothing to export"):
        learner.begin().exported(Trust())


def test_it_is_named_by_a_path():
    """As in a configuration: `model: perennial.learners.hashed.AdaGrad` with parameters, pairs as lists."""
    made = learners.as_learner(
        "perennial.learners.hashed.AdaGrad", params={"bits": 12, "interactions": [["user", "item"]]}
    )
    assert made.identity() == learners.hashed.AdaGrad(bits=12, interactions=[("user", "item")]).identity()
    with pytest.raises(ConfigError, match="it could not be called"):
        learners.as_learner("perennial.learners.hashed.FTRL", params={"rate": 0.1})
