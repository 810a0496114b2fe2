"""River through us: River's own numbers, its labels, its randomness and its state."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from river import (
    anomaly,
    compose,
    drift,
    dummy,
    ensemble,
    evaluate,
    forest,
    imblearn,
    linear_model,
    metrics,
    multiclass,
    naive_bayes,
    neighbors,
    optim,
    preprocessing,
    stats,
    tree,
)

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.identity import Unhashable
from perennial.core.protocols import Interleaved
from perennial.core.records import ABSTAINED, UNSEEN, Examples
from perennial.learners.river import River, wrap
from perennial.testing import make_examples


def logistic():
    """The published pipeline: scaled features and plain gradient descent."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.005))


def alma():
    """The published pipeline with a large-margin classifier."""
    return preprocessing.StandardScaler() | linear_model.ALMAClassifier()


def binary(n=120, classes=("no", "yes"), **options) -> Examples:
    """Classification examples."""
    return make_examples(n, 3, classes=classes, **options)


def named(said):
    """The predicted classes; the code itself where there is none."""
    return [said.classes[code] if code >= 0 else code for code in said.codes.tolist()]


@pytest.fixture(scope="module")
def electricity_table():
    """A cache for the stream, read once."""
    return {}


@pytest.fixture
def electricity(real_stream, electricity_table) -> Examples:
    """Elec2: its eight features in source order, the faulty date included, and the classes as words."""
    if not electricity_table:
        table = pq.read_table(real_stream("electricity"))
        names = [name for name in table.column_names if name not in ("timestamp", "target")]
        schema = Schema([Column(name, Kind.NUMBER, str(table.schema.field(name).type)) for name in names])
        labels = table["target"].to_pylist()
        classes = tuple(dict.fromkeys(labels))
        electricity_table["examples"] = Examples(
            features=Features.of(Chunk(table.select(names).combine_chunks(), schema)),
            rows=np.zeros((len(labels), 16), dtype=np.uint8),
            time=table["timestamp"].cast(pa.int64()).to_numpy(),
            codes=np.array([classes.index(label) for label in labels], dtype=np.int32),
            classes=classes,
        )
    return electricity_table["examples"]


def accuracy(said, examples) -> float:
    """Share of right predictions among those made."""
    made = said.codes != ABSTAINED
    right = [one == truth for one, truth in zip(named(said), examples.y.tolist(), strict=True)]
    return float(np.mean(np.array(right)[made]))


# --- River's own numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "published"),
    [(dummy.NoChangeClassifier, 0.853303), (logistic, 0.822144), (alma, 0.906427)],
    ids=["no-change", "logistic", "alma"],
)
def test_published_accuracies_come_out(electricity, make, published):
    """Row by row on Elec2, with labels as words and nothing declared, accuracies are River's published ones."""
    said = River(make()).begin().interleave(electricity, electricity.features, np.arange(len(electricity)), 0)
    assert accuracy(said, electricity) == pytest.approx(published, abs=1e-6)


@pytest.mark.parametrize("make", [dummy.NoChangeClassifier, logistic], ids=["no-change", "logistic"])
@pytest.mark.parametrize("delay", [dt.timedelta(0), dt.timedelta(minutes=45), dt.timedelta(days=1)])
def test_delayed_labels_are_learned_in_rivers_order(electricity, make, delay):
    """Learning all labels known by a row's own time, oldest first, is ``progressive_val_score(..., delay=...)``."""
    part = electricity.slice(0, 3000)  # labels as truth values, as River has them: False has a name from the start
    up = part.codes == part.classes.index("UP")
    part = replace(part, codes=up.astype(np.int32), classes=(False, True))
    time = part.time // 3_600_000_000 * 3_600_000_000  # hours: half the rows share their instant with another
    known = time + delay // dt.timedelta(microseconds=1)
    upto = np.minimum(np.searchsorted(known, time, side="right"), np.arange(3000))
    said = River(make()).begin().interleave(part, part.features, upto, 0)

    instants = iter(np.datetime64(0, "us") + time)
    metric = evaluate.progressive_val_score(
        zip(part.features.dicts(), up.tolist(), strict=True),
        make(),
        metrics.Accuracy(),
        moment=lambda _: next(instants).astype(dt.datetime),
        delay=delay,
    )
    assert accuracy(said, part) == pytest.approx(metric.get(), abs=1e-12)


CLASSIFIERS = {
    "naive bayes": lambda: naive_bayes.GaussianNB(),
    "tree": lambda: tree.HoeffdingTreeClassifier(grace_period=20),
    "one vs rest": lambda: preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(logistic()),
    "one vs one": lambda: multiclass.OneVsOneClassifier(linear_model.LogisticRegression()),
    "softmax": lambda: linear_model.SoftmaxRegression(),
    "neighbours": lambda: neighbors.KNNClassifier(engine=neighbors.LazySearch(50)),
    "forest": lambda: forest.ARFClassifier(n_models=3, grace_period=20, seed=3),
    "bagging": lambda: ensemble.BaggingClassifier(naive_bayes.GaussianNB(), n_models=3, seed=3),
    "voting": lambda: ensemble.VotingClassifier([naive_bayes.GaussianNB(), tree.HoeffdingTreeClassifier()]),
    "prior": lambda: dummy.PriorClassifier(),
}


@pytest.mark.parametrize("make", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_labels_are_what_predict_one_says(make):
    """Each predicted class and probability is River's own at that row, ties and missing answers included."""
    data = binary(150, classes=("a", "b", "c"))
    said = River(make()).begin().interleave(data, data.features, np.arange(150), 0)
    model = make()
    for i, (x, y) in enumerate(zip(data.features.dicts(), data.y.tolist(), strict=True)):
        truth = model.predict_one(x)
        assert named(said)[i] == (ABSTAINED if truth is None else truth)
        if said.proba is not None and truth is not None:
            proba = model.predict_proba_one(x)
            assert [proba.get(label, 0.0) for label in said.classes] == said.proba[i].tolist()
        model.learn_one(x, y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: preprocessing.StandardScaler() | linear_model.LinearRegression(),
        lambda: forest.ARFRegressor(n_models=3, grace_period=20, seed=1),
    ],
    ids=["linear", "forest"],
)
def test_regression_is_rivers_own(make):
    """Predicted values are those of River's loop, bit for bit."""
    data = make_examples(120, 3, task="regression")
    said = River(make()).begin().interleave(data, data.features, np.arange(120), 0)
    model = make()
    for i, (x, y) in enumerate(zip(data.features.dicts(), data.values.tolist(), strict=True)):
        assert said.values[i] == model.predict_one(x)
        model.learn_one(x, y)


@pytest.mark.parametrize("make", [logistic, dummy.NoChangeClassifier, CLASSIFIERS["one vs one"], CLASSIFIERS["tree"]])
def test_interleaving_equals_single_calls(make):
    """One call, or one update and one prediction a row, with late labels: the same answers and the same state."""
    data = binary(100)
    upto = np.maximum(np.arange(100) - 7, 0).astype(np.int64) // 3 * 3
    together, apart = River(make()).begin(), River(make()).begin()
    assert isinstance(together, Interleaved)
    said = together.interleave(data, data.features, upto, 0)
    known = 0
    for i, stop in enumerate(upto.tolist()):
        apart.update(data.slice(known, stop), 0)
        known = stop
        one = apart.predict(data.features.slice(i, i + 1))
        assert named(said)[i] == named(one)[0]
        if one.proba is not None:
            np.testing.assert_array_equal(said.proba[i, : len(one.classes)], one.proba[0])
    assert together.digest() == apart.digest()


def test_learning_in_batches_is_learning_in_rows():
    """However rows are cut into updates, a model that began untrained comes out the same."""
    data = binary(60)
    whole, parts = River(logistic()).begin(), River(logistic()).begin()
    whole.update(data, 0)
    for start in range(0, 60, 7):
        parts.update(data.slice(start, min(start + 7, 60)), 0)
    assert whole.digest() == parts.digest()


# --- labels of models that know True and False only ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "true"),
    [((0, 1), 1), ((1, 0), 1), ((True, False), True), (("yes", "no"), "yes"), (("DOWN", "UP"), "UP"), ((-1, 1), 1)],
)
def test_what_a_fit_calls_true(classes, true):
    """Numbers above 0, True, and of two words the one that sorts last are River's True."""
    data = binary(classes=classes)
    said = River(logistic()).fit(data, 0).predict(data.features)
    model = logistic()
    for x, y in zip(data.features.dicts(), data.y.tolist(), strict=True):
        model.learn_one(x, y == true)
    want = [model.predict_proba_one(x)[True] for x in data.features.dicts()]
    assert said.proba[:, said.classes.index(true)].tolist() == want


def test_the_first_word_of_a_stream_is_true():
    """Met one by one, the first word is True and the second False, whichever sorts last."""
    data = binary(classes=("a", "z"))
    first = int(np.flatnonzero(data.codes == 0)[0])
    data = data.slice(first, len(data))
    model = River(logistic()).begin()
    before = model.predict(data.features)
    assert before.codes.tolist() == [UNSEEN] * len(data)  # False, which nobody has named, and not silence
    model.update(data.slice(0, 1), 0)
    river_model = logistic()
    river_model.learn_one(data.features.dicts()[0], True)
    said = model.predict(data.features)
    assert said.classes == ("a",)
    assert said.proba[:, 0].tolist() == [river_model.predict_proba_one(x)[True] for x in data.features.dicts()]


def test_positive_decides():
    """A declared positive class is True whatever sorts or comes first; one that never comes is an error."""
    data = binary(classes=("a", "z"))
    said = River(logistic(), positive="a").fit(data, 0).predict(data.features)
    model = logistic()
    for x, y in zip(data.features.dicts(), data.y.tolist(), strict=True):
        model.learn_one(x, y == "a")
    assert said.proba[:, said.classes.index("a")].tolist() == [
        model.predict_proba_one(x)[True] for x in data.features.dicts()
    ]
    with pytest.raises(LearnerError, match="neither class"):
        River(logistic(), positive="b").fit(data, 0)
    with pytest.raises(ConfigError, match="takes labels as they are"):
        River(naive_bayes.GaussianNB(), positive="a")


def test_a_third_class_is_refused_before_anything_is_learned():
    """A model of two classes names the third and what to wrap it in, and is unchanged."""
    data = binary(classes=("a", "b", "c"))
    model = River(logistic()).begin()
    before = model.digest()
    with pytest.raises(LearnerError, match=r"'.' is a third.*OneVsRestClassifier"):
        model.update(data, 0)
    assert model.digest() == before


def test_no_answer_is_no_prediction():
    """Where River says None the row abstains, and is told apart from a class not yet named."""
    data = binary(5)
    said = River(dummy.NoChangeClassifier()).begin().predict(data.features)
    assert said.codes.tolist() == [ABSTAINED] * 5


# --- features, weights, mini-batches -------------------------------------------------------------------------------


def test_words_stay_words():
    """Category columns reach River as the words they are."""
    data = make_examples(80, 1, categories=2)
    model = compose.SelectType(str) | preprocessing.OneHotEncoder() | linear_model.LogisticRegression()
    fitted = River(model).fit(data, 0)
    assert any("blue" in str(name) for name in fitted._model["LogisticRegression"].weights)


def test_weights_are_passed_or_refused():
    """A model whose ``learn_one`` takes w gets them, also in a pipeline; any other refuses, naming the remedy."""
    data = binary()
    weights = np.linspace(0.1, 3, len(data))
    model = logistic()
    top = sorted(data.classes)[1]
    for x, y, w in zip(data.features.dicts(), data.y.tolist(), weights.tolist(), strict=True):
        model.learn_one(x, y == top, w=w)
    said = River(logistic()).fit(replace(data, weights=weights), 0).predict(data.features)
    want = [model.predict_proba_one(x)[True] for x in data.features.dicts()]
    assert said.proba[:, said.classes.index(top)].tolist() == want
    for other in (River(alma()), River(logistic(), mini_batch=True)):
        with pytest.raises(LearnerError, match="cannot learn weighted examples"):
            other.fit(replace(data, weights=weights), 0)


def test_mini_batches_are_learn_many():
    """With ``mini_batch`` a training is one ``learn_many``; a model without it is refused when made."""
    data = binary()
    top = sorted(data.classes)[1]
    model = logistic()
    import pandas as pd

    model.learn_many(data.features.frame(), pd.Series(data.y == top))
    said = River(logistic(), mini_batch=True).fit(data, 0).predict(data.features)
    want = [model.predict_proba_one(x)[True] for x in data.features.dicts()]
    assert said.proba[:, said.classes.index(top)].tolist() == want
    with pytest.raises(ConfigError, match="no learn_many"):
        River(alma(), mini_batch=True)


def test_what_river_cannot_learn_is_refused_by_column():
    """Infinities and nulls are refused by the column's name; nulls pass where an imputer comes first."""
    data = make_examples(60, 2, missing=True)
    with pytest.raises(DataError, match=r"'x0' holds nulls.*StatImputer"):
        River(logistic()).check(data.features)
    filled = preprocessing.StatImputer(("x0", stats.Mean()), ("x1", stats.Mean())) | logistic()
    River(filled).check(data.features)
    River(filled).fit(data, 0)
    matrix = binary(20).features.matrix().copy()
    matrix[3, 1] = -np.inf
    names = ("x0", "x1", "x2")
    table = pa.table({name: matrix[:, j] for j, name in enumerate(names)})
    broken = Features.of(Chunk(table, binary(20).features.schema))
    with pytest.raises(DataError, match="'x1' holds infinite"):
        River(filled).check(broken)
    River(dummy.NoChangeClassifier()).check(broken)


# --- randomness, state, identity -----------------------------------------------------------------------------------


def test_seeds_are_set_where_the_user_set_none():
    """A None seed is set from ours, nested ones differently; the user's own seed stays."""
    nested = ensemble.BaggingClassifier(forest.ARFClassifier(n_models=2), n_models=2)
    made = River(nested).fit(binary(10), seed=1)._model
    assert made.seed is not None
    assert made.model.seed is not None
    assert made.seed != made.model.seed
    assert River(nested).fit(binary(10), seed=2)._model.seed != made.seed
    assert River(forest.ARFClassifier(n_models=2, seed=77)).fit(binary(10), seed=1)._model.seed == 77
    assert nested.seed is None


def test_fit_begins_with_nothing_learned():
    """What the given model had learned, members of a voting ensemble included, is not used."""
    voters = [naive_bayes.GaussianNB(), naive_bayes.GaussianNB()]
    trained = ensemble.VotingClassifier(voters)
    for x in binary(20).features.dicts():
        trained.learn_one(x, "other")
    said = River(trained).fit(binary(), 0).predict(binary().features)
    fresh = River(ensemble.VotingClassifier([naive_bayes.GaussianNB(), naive_bayes.GaussianNB()]))
    assert named(said) == named(fresh.fit(binary(), 0).predict(binary().features))


STATEFUL = {
    **CLASSIFIERS,
    "logistic": logistic,
    "adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=20),
    "unseeded forest": lambda: forest.ARFClassifier(n_models=3, grace_period=20, drift_detector=drift.ADWIN(0.3)),
    "sampler": lambda: imblearn.RandomUnderSampler(linear_model.LogisticRegression(), {True: 0.5, False: 0.5}),
}


@pytest.mark.parametrize("make", STATEFUL.values(), ids=STATEFUL)
def test_a_resumed_model_is_the_same(make):
    """Saved and loaded between updates, digest and answers stay those of going straight on; and they repeat."""
    data = binary(180)
    straight, again, resumed = (River(make()).fit(data.slice(0, 60), 5) for _ in range(3))
    digests = {straight.digest()}
    for start in range(60, 180, 40):
        batch = data.slice(start, start + 40)
        for model in (straight, again, resumed):
            model.update(batch, start)
        resumed = River(make()).load(resumed.save())
        assert resumed.resumes
        assert resumed.digest() == straight.digest() == again.digest()
        digests.add(straight.digest())
        one, other = straight.predict(data.features), resumed.predict(data.features)
        assert named(one) == named(other)
        np.testing.assert_array_equal(one.proba, other.proba)
    assert len(digests) == 4, "learning did not change the digest"


def test_approximate_neighbours_do_not_resume():
    """A graph walked in the order of memory addresses cannot resume bit for bit, and says so."""
    assert not River(neighbors.KNNClassifier()).resumes
    assert River(neighbors.KNNClassifier(engine=neighbors.LazySearch(50))).resumes


def test_the_digest_does_not_see_caches():
    """A pipeline's plan, built by the first prediction, is no learning."""
    model = River(logistic()).begin()
    before = model.digest()
    model.predict(binary(5).features)
    assert model.digest() == before


def test_the_digest_is_that_of_another_process():
    """Digests do not depend on the process: hash seeds, addresses and the clock are not in them."""
    code = (
        "from river import forest; from perennial.learners.river import River; "
        "from perennial.testing import make_examples; "
        "print(River(forest.ARFClassifier(n_models=2, grace_period=20)).fit(make_examples(80, 3), 1).digest())"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


def test_only_its_own_saved_models_are_read():
    """Another model's bytes, or damaged ones, are refused before anything is unpickled."""
    blob = River(logistic()).fit(binary(), 0).save()
    with pytest.raises(FormatError, match="saved by"):
        River(naive_bayes.GaussianNB()).load(blob)
    with pytest.raises(FormatError, match="damaged"):
        River(logistic()).load(blob[:-3] + b"xyz")


def test_identity_is_the_settings():
    """Equal settings have equal identities, trained or not; others differ; a lambda cannot be told."""
    assert River(logistic()).identity() == River(logistic()).identity()
    assert River(logistic()).fit(binary(), 0).identity() == River(logistic()).identity()
    others = [
        River(alma()),
        River(logistic(), positive="yes"),
        River(logistic(), mini_batch=True),
        River(preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.1))),
        River(ensemble.VotingClassifier([naive_bayes.GaussianNB(), naive_bayes.BernoulliNB()])),
        River(ensemble.VotingClassifier([naive_bayes.GaussianNB(), naive_bayes.ComplementNB()])),
    ]
    assert len({learner.identity() for learner in [River(logistic()), *others]}) == len(others) + 1
    with pytest.raises(Unhashable):
        River(compose.FuncTransformer(lambda x: x) | linear_model.LogisticRegression()).identity()


@pytest.mark.parametrize("model", [anomaly.HalfSpaceTrees(), preprocessing.StandardScaler(), 3, naive_bayes.GaussianNB])
def test_only_classifiers_and_regressors_are_wrapped(model):
    """Anything else is refused when it is given."""
    with pytest.raises(ConfigError, match="model="):
        wrap(model)


def test_a_template_says_that_it_was_not_fitted():
    """Asking a template is an error that says what to call."""
    with pytest.raises(LearnerError, match="call fit, or begin"):
        River(logistic()).predict(binary(3).features)
