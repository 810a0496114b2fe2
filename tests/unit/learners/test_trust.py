"""What a saved model may hold: the list, what is refused, and that nothing refused has run."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import json
import operator
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from perennial import learners
from perennial.core.errors import ConfigError, FormatError, LearnerError
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.protocols import Learner, Pickled, Trust
from perennial.core.records import Examples
from perennial.learners import as_learner, trust
from perennial.learners.golden import reproduces
from perennial.learners.saved import codec_of, pack, sha256
from perennial.testing import make_examples

DATA = make_examples(160)
SAFE = Trust()
ran = Path("ran")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which a payload that runs would leave a file."""
    monkeypatch.chdir(tmp_path)


class Evil:
    """What an attacker pickles."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def back(model: Learner, template: Learner, allowed: Trust = SAFE) -> Learner:
    """A model after it was saved for production and loaded."""
    blob = model.save(allowed)
    return template.load(blob, allowed.recorded(sha256(blob)))


# -- what comes back --------------------------------------------------------------------------------------------------


def texts(n: int = 120) -> Examples:
    """Examples with a column of prose that tells the label, and a number."""
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 2, n).astype(np.int32)
    said = [
        f"{'win money' if c else 'see you'} {draw.choice(['now', 'later', 'Zürich'])} {i % 7}"
        for i, c in enumerate(codes)
    ]
    schema = Schema([Column("x0", Kind.NUMBER, "double"), Column("said", Kind.TEXT, "string")])
    table = pa.table({"x0": draw.normal(size=n), "said": said})
    return Examples(
        features=Features.of(Chunk(table, schema)),
        rows=np.zeros((n, 16), dtype=np.uint8),
        time=np.arange(n, dtype=np.int64),
        codes=codes,
        classes=("no", "yes"),
    )


WORDS = make_examples(160, categories=2)
PIPELINES: dict[str, tuple[Callable[[], Any], Examples]] = {
    "one-hot": (lambda: _columns(OneHotEncoder(handle_unknown="ignore"), ["c0", "c1"], LogisticRegression()), WORDS),
    "one-hot-dense": (lambda: _columns(OneHotEncoder(sparse_output=False), ["c0"], SGDClassifier()), WORDS),
    "ordinal": (lambda: _columns(OrdinalEncoder(), ["c0", "c1"], RandomForestClassifier(4)), WORDS),
    "target": (lambda: _columns(TargetEncoder(cv=3), ["c0", "c1"], LogisticRegression()), WORDS),
    "tfidf": (lambda: _columns(TfidfVectorizer(), "said", LogisticRegression()), texts()),
    "tfidf-ngrams": (lambda: _columns(TfidfVectorizer(ngram_range=(1, 2), min_df=2), "said", SGDClassifier()), texts()),
    "hashing": (lambda: _columns(HashingVectorizer(n_features=16), "said", SGDClassifier()), texts()),
    "union": (lambda: make_pipeline(make_union(_kbest(2), "passthrough"), GaussianNB()), DATA),
    "chosen": (lambda: make_pipeline(_kbest(2), GaussianNB()), DATA),
    "log1p": (lambda: make_pipeline(FunctionTransformer(np.abs), FunctionTransformer(np.log1p), MultinomialNB()), DATA),
    "identity": (lambda: make_pipeline(FunctionTransformer(), GaussianNB()), DATA),
    "weighted": (lambda: SGDClassifier(class_weight={"no": 1.0, "yes": 5.0}), DATA),
    "native-categories": (lambda: HistGradientBoostingClassifier(max_iter=4, categorical_features=[4, 5]), WORDS),
}


def _columns(encoder: Any, names: Any, last: Any) -> Any:
    return make_pipeline(make_column_transformer((encoder, names), (FunctionTransformer(), ["x0"])), last)


def _kbest(k: int) -> Any:
    return SelectKBest(f_classif, k=k)


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_come_back_without_pickle(name: str) -> None:
    """Encoders, vectorisers and chosen columns: the same digest and predictions, and the same again after an update."""
    make, data = PIPELINES[name]
    learner = as_learner(make())
    model = learner.fit(data.slice(0, 100), 1)
    loaded = back(model, as_learner(make()))
    assert codec_of(model.save(SAFE)) == "skops"
    assert loaded.digest() == model.digest()
    assert reproduces(model, loaded, data.features)
    if hasattr(model, "update") and hasattr(loaded, "update"):
        model.update(data.slice(100, 120), 2)
        loaded.update(data.slice(100, 120), 2)
        assert loaded.digest() == model.digest()


@pytest.mark.parametrize("framework", ["lightgbm.LGBM", "xgboost.XGB"])
def test_boosters_inside_an_ensemble_come_back(framework: str) -> None:
    """LightGBM and XGBoost as members of scikit-learn's own ensembles."""
    pytest.importorskip(framework.partition(".")[0])
    booster = as_learner(f"{framework}Classifier", params={"n_estimators": 3, "n_jobs": 1, "verbosity": 0})
    inside: Any = booster._engine.estimator  # type: ignore[attr-defined]
    inside.set_params(random_state=1)
    voting = VotingClassifier([("a", inside), ("b", GaussianNB())], voting="soft")
    model = as_learner(voting).fit(DATA, 1)
    loaded = back(model, as_learner(voting))
    assert loaded.digest() == model.digest()
    assert reproduces(model, loaded, DATA.features)


def test_what_does_not_come_back_the_same_is_not_saved() -> None:
    """CatBoost inside an ensemble is on no list: it is refused, and a pickle where one is allowed."""
    catboost = pytest.importorskip("catboost")
    member = catboost.CatBoostClassifier(iterations=2, verbose=False, allow_writing_files=False, thread_count=1)
    learner = as_learner(VotingClassifier([("a", member), ("b", GaussianNB())], voting="soft"))
    model = learner.fit(DATA, 1)
    with pytest.raises(LearnerError, match=r"CatBoostClassifier, not on the list.*`serialisation: \{pickle: true\}`"):
        model.save(SAFE)
    listed = Trust(types=("catboost.core.CatBoostClassifier",))
    with pytest.raises(LearnerError, match="what was loaded back is not what was saved"):
        model.save(listed)
    allowed = Trust(pickle=True)
    assert codec_of(model.save(allowed)) == "pickle"
    assert reproduces(model, back(model, learner, allowed), DATA.features)


def test_waiting_rows_come_back_without_pickle() -> None:
    """Rows that an untrained classifier holds are saved as numbers or Arrow, whichever view they are in."""
    arrow = learners.Sklearn(make_pipeline(FunctionTransformer(_framed), SGDClassifier()), view="arrow")
    frame = as_learner(make_pipeline(HashingVectorizer(n_features=8), SGDClassifier()))
    prose = texts()
    only_text = Features.of(Chunk(prose.features.arrow().select(["said"]), Schema(prose.features.schema.columns[1:])))
    series = Examples(features=only_text, rows=prose.rows, time=prose.time, codes=prose.codes, classes=prose.classes)
    mixed = as_learner(make_pipeline(FunctionTransformer(), SGDClassifier()))
    own = Trust(types=(f"{__name__}._framed",))
    for learner, data in ((arrow, DATA), (frame, series), (mixed, DATA), (as_learner(SGDClassifier()), DATA)):
        model: Any = learner.begin()  # type: ignore[attr-defined]
        assert data.codes is not None
        model.update(data.take(np.flatnonzero(data.codes == 1)[:9]), 1)
        loaded: Any = back(model, learner, own)
        assert loaded._waiting is not None
        for both in (model, loaded):
            both.update(data, 2)
        assert loaded.digest() == model.digest()


def _framed(table: Any) -> Any:
    return table.to_pandas() if hasattr(table, "to_pandas") else table


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_pickle_needs_permission_and_its_digest() -> None:
    """Refused by default; with permission alone; with another digest. Nothing has run."""
    learner = as_learner(SGDClassifier())
    evil = pack("sklearn", pickle.dumps(Evil()), learners_versions(), "pickle")
    for allowed in (SAFE, SAFE.recorded(sha256(evil)), Trust(pickle=True), Trust(pickle=True).recorded("0" * 64)):
        with pytest.raises(FormatError, match=r"is a pickle|SHA-256"):
            learner.load(evil, allowed)
    assert not ran.exists()
    good = learner.fit(DATA, 1).save()
    assert codec_of(good) == "pickle"
    assert sha256(good) == hashlib.sha256(good).hexdigest()
    assert learner.load(good, Trust(pickle=True).recorded(sha256(good))).predict(DATA.features).proba is None


def learners_versions() -> dict[str, str]:
    """What a header of a scikit-learn model says."""
    import sklearn

    return {"sklearn": sklearn.__version__, "numpy": np.__version__, "skops": skops.__version__}


@pytest.mark.parametrize("said", ["skops", "native", "pickle"])
def test_a_header_that_lies_runs_nothing(said: Any) -> None:
    """Whatever the header calls a pickle, and wherever it is put, it is not unpickled."""
    evil = pickle.dumps(Evil())
    inner = pack("sklearn", evil, learners_versions(), said)
    templates: list[tuple[Learner, bytes]] = [
        (as_learner(SGDClassifier()), inner),
        (learners.SlidingForest(RandomForestClassifier()), pack("SlidingForest", evil, learners_versions(), said)),
        (learners.plain.Linear(), pack(learners.plain.Linear()._kind(), evil, {}, said)),
        (learners.Calibrated(SGDClassifier(loss="log_loss")), _calibrated(inner, "native")),
        (learners.Calibrated(SGDClassifier(loss="log_loss")), _calibrated(inner, "pickle")),
    ]
    for template, blob in templates:
        for allowed in (SAFE, SAFE.recorded(sha256(blob)), Trust(types=("os.system", "posix.system"))):
            with pytest.raises(FormatError):
                template.load(blob, allowed)
    assert not ran.exists()


def _calibrated(inner: bytes, codec: Any) -> bytes:
    from perennial.learners.saved import join

    return pack("Calibrated", join({"slope": 1.0, "classes": [], "shifts": [], "trees": 0}, [inner]), {}, codec)


def rewritten(data: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """A file of skops with another schema."""
    out = io.BytesIO()
    with ZipFile(io.BytesIO(data)) as old, ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, json.dumps(change(json.loads(content))) if name == "schema.json" else content)
    return out.getvalue()


def plain(value: Any) -> dict[str, Any]:
    """A schema's piece for a literal."""
    return {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(value),
        "is_json": True,
    }


def piece(loader: str, name: str, **more: Any) -> dict[str, Any]:
    """A schema's piece for anything."""
    module, _, last = name.rpartition(".")
    return {"__class__": last, "__module__": module, "__loader__": loader, **more}


COMMAND = piece("TupleNode", "builtins.tuple", content=[plain("touch ran")])
SYSTEM = piece("FunctionNode", "posix.system")
ATTACKS = {
    "object": piece("ObjectNode", "os.system"),
    "function": SYSTEM,
    "called": piece("ConstructorFromReduceNode", "posix.system", content=COMMAND),
    "called-listed": piece(
        "ConstructorFromReduceNode", "sklearn.linear_model._logistic.LogisticRegression", content=COMMAND
    ),
    "loss": piece("LossNode", "posix.system", content=plain({}), __reduce__={"args": COMMAND}),
    "list": piece("ListNode", "posix.system", content=[plain("touch ran")]),
    "array": piece("NdArrayNode", "posix.system", type="json", content=[], shape=plain([0])),
    "array-listed": piece("NdArrayNode", "lightgbm.basic.Booster", type="json", content=[], shape=plain([0])),
    "type": piece("TypeNode", "subprocess.Popen"),
    "keys": piece(
        "DictNode",
        "builtins.dict",
        content={"touch ran": plain(1)},
        key_types=piece("ListNode", "builtins.list", content=[piece("TypeNode", "posix.system")]),
    ),
    "method": piece(
        "MethodNode", "builtins.list", content={"func": "append", "obj": piece("ListNode", "builtins.list", content=[])}
    ),
    "operator": piece("OperatorFuncNode", "operator.methodcaller", attrs=COMMAND),
    "partial": piece(
        "PartialNode",
        "functools.partial",
        content={"func": SYSTEM, "args": COMMAND, "kwds": plain({}), "namespace": plain({})},
    ),
    "generator": piece("RandomStateNode", "subprocess.Popen", content=plain({})),
    "unknown": piece("PickleNode", "builtins.str", content="x"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_crafted_file_is_refused_and_not_run(attack: str) -> None:
    """Every way in which skops could be made to call something is closed, before skops builds anything."""
    learner = as_learner(LogisticRegression())
    data = trust.dump(learner.fit(DATA, 1)._model)  # type: ignore[attr-defined]

    def hidden(schema: dict[str, Any]) -> dict[str, Any]:
        schema["content"]["content"]["coef_"] = ATTACKS[attack]
        return schema

    for crafted in (rewritten(data, hidden), rewritten(data, lambda schema: {**schema, **ATTACKS[attack]})):
        with pytest.raises(FormatError, match="not on the list"):
            trust.load(crafted, SAFE)
    assert not ran.exists()


def test_older_protocols_and_what_is_no_file_are_refused() -> None:
    """Loaders of older protocols say their names elsewhere, so those files are not read; nor is anything else."""
    data = trust.dump(GaussianNB())
    for protocol in (0, 1, 99, None, True):
        with pytest.raises(FormatError, match="protocol"):
            trust.load(rewritten(data, lambda schema, p=protocol: {**schema, "protocol": p}), SAFE)
    for wrong in (b"", b"no file", data[:-30], pickle.dumps(Evil())):
        with pytest.raises(FormatError, match="no file of skops"):
            trust.load(wrong, SAFE)
    with pytest.raises(FormatError, match="does not hold what it should"):
        trust.load(rewritten(data, lambda schema: {**schema, "content": {}}), SAFE)
    assert not ran.exists()


@pytest.mark.parametrize("field", ["left_child", "feature", "threshold-columns"])
def test_a_tree_that_leads_out_of_itself_is_refused(field: str) -> None:
    """A node's child or column beyond what there is would have compiled code read whatever memory holds."""
    forest = RandomForestClassifier(2, random_state=0).fit(DATA.features.matrix(), DATA.codes)
    trust.load(trust.dump(forest), SAFE)
    if field == "threshold-columns":
        forest.estimators_[1].n_features_in_ = 2
    else:
        forest.estimators_[1].tree_.__getstate__()["nodes"][field][0] = 10**6
        nodes = forest.estimators_[1].tree_.__getstate__()["nodes"]
        state = {**forest.estimators_[1].tree_.__getstate__(), "nodes": nodes.copy()}
        state["nodes"][field][0] = 10**6
        forest.estimators_[1].tree_.__setstate__(state)
    with pytest.raises(FormatError, match="tampered"):
        trust.load(trust.dump(forest), SAFE)


def test_trees_of_histograms_and_neighbours_are_checked() -> None:
    """The same for the two other kinds of trees that are followed without looking."""
    boosted = HistGradientBoostingClassifier(max_iter=2).fit(DATA.features.matrix(), DATA.codes)
    for field in ("left", "feature_idx"):
        nodes = boosted._predictors[0][0].nodes
        before = nodes[field][0]
        nodes[field][0] = 10**6
        with pytest.raises(FormatError, match="tampered"):
            trust.load(trust.dump(boosted), SAFE)
        nodes[field][0] = before
    near = KNeighborsClassifier(3, algorithm="kd_tree").fit(DATA.features.matrix(), DATA.codes)
    rows, index, *rest = near._tree.__getstate__()
    near._tree.__setstate__((rows, index + 10**6, *rest))
    with pytest.raises(FormatError, match="tampered"):
        trust.load(trust.dump(near), SAFE)
    lone = DecisionTreeClassifier().fit(DATA.features.matrix(), DATA.codes)
    del lone.n_features_in_  # without it scikit-learn would not look at the columns at all
    with pytest.raises(FormatError, match="tampered"):
        trust.load(trust.dump(lone), SAFE)


# -- the operator's own types -----------------------------------------------------------------------------------------

OWN = """
from sklearn.base import BaseEstimator, ClassifierMixin
import numpy as np

class Majority(ClassifierMixin, BaseEstimator):
    def __init__(self, shrink=1.0):
        self.shrink = shrink
    def fit(self, X, y):
        self.classes_, counts = np.unique(y, return_counts=True)
        self.share_ = counts / counts.sum()
        self.most_ = Counted(int(counts.max()))
        return self
    def predict(self, X):
        return np.repeat(self.classes_[self.share_.argmax()], len(X))

class Counted:
    def __init__(self, number):
        self.number = number
    def __reduce__(self):
        return Counted, (self.number,)

def doubled(X):
    return 2 * X
"""
_numbers = count()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of the user's own."""
    name = f"own_module_{os.getpid()}_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


def test_types_of_ones_own_are_refused_until_they_are_trusted(own: Any) -> None:
    """The error names each type and what to write; with that in the trust the model comes back."""
    learner = as_learner(own.Majority())
    model = learner.fit(DATA, 1)
    names = (f"{own.__name__}.Counted", f"{own.__name__}.Majority")
    with pytest.raises(LearnerError, match=rf"serialisation: \{{trust: \[{names[0]}, {names[1]}\]\}}"):
        model.save(SAFE)
    with pytest.raises(LearnerError, match=f"holds {names[0]}, not on the list"):
        model.save(Trust(types=names[1:]))
    allowed = Trust(types=names)
    assert back(model, learner, allowed).digest() == model.digest()
    blob = model.save(allowed)
    for less in (SAFE, Trust(types=names[:1]), Trust(types=names[1:])):
        with pytest.raises(FormatError, match=r"not on the list.*serialisation: \{trust: "):
            learner.load(blob, less)
    assert codec_of(model.save(Trust(pickle=True))) == "pickle"


def test_a_function_of_ones_own_is_trusted_by_name(own: Any) -> None:
    """As types are; what has no name of its own, as `operator.itemgetter` gives, is refused with what to do instead."""
    learner = as_learner(make_pipeline(FunctionTransformer(own.doubled), GaussianNB()))
    model = learner.fit(DATA, 1)
    with pytest.raises(LearnerError, match=rf"{own.__name__}\.doubled, not on the list"):
        model.save(SAFE)
    assert reproduces(model, back(model, learner, Trust(types=(f"{own.__name__}.doubled",))), DATA.features)
    nameless = as_learner(make_pipeline(FunctionTransformer(operator.itemgetter(slice(None))), GaussianNB()))
    with pytest.raises(LearnerError, match="use a class or a function of a module of yours"):
        nameless.fit(DATA, 1).save(SAFE)


@pytest.mark.parametrize("name", ["Mine", "os.", "a b.C", ".x", "sklearn.*"])
def test_a_trusted_type_is_named_in_full(name: str) -> None:
    """One exact name each: no patterns and no bare words."""
    with pytest.raises(ConfigError, match="name a type in full"):
        Trust(types=(name,))


def test_calibrated_passes_the_trust_on(own: Any) -> None:
    """What is inside is saved and loaded by the same rules, and the codec of the whole is that of the inside."""
    pytest.importorskip("river")
    inner = as_learner("river.linear_model.LogisticRegression")
    for learner, needs in ((learners.Calibrated(inner), True), (learners.Calibrated(GaussianNB()), False)):
        assert isinstance(learner, Pickled)
        assert learner.needs_pickle is needs
        model = learner.fit(DATA, 1)
        blob = model.save(Trust(pickle=True))
        assert codec_of(blob) == ("pickle" if needs else "skops")
        assert reproduces(model, learner.load(blob, Trust(pickle=True).recorded(sha256(blob))), DATA.features)
        if needs:
            with pytest.raises(LearnerError, match="as a pickle only"):
                model.save(SAFE)
            with pytest.raises(FormatError, match="is a pickle"):
                learner.load(blob, SAFE)


# -- how the list was vetted ------------------------------------------------------------------------------------------

#: code that runs while a listed type is filled, read line by line: BaseEstimator's compares a version and sets
#: attributes; IsotonicRegression's calls it and then builds its own interpolation; TreePredictor's sets attributes and
#: converts an array; Bunch's does nothing; boosters' hand text or bytes to the library's own parser
READ = {
    "sklearn.base.BaseEstimator.__setstate__",
    "sklearn.isotonic.IsotonicRegression.__setstate__",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor.__setstate__",
    "sklearn.utils._bunch.Bunch.__setstate__",
    "lightgbm.basic.Booster.__setstate__",
    "xgboost.core.Booster.__setstate__",
    # warns of its own retirement
    "sklearn.linear_model._passive_aggressive.PassiveAggressiveClassifier.__new__",
    "sklearn.linear_model._passive_aggressive.PassiveAggressiveRegressor.__new__",
    # free what the parser made; neither can be given a handle from a file
    "lightgbm.basic.Booster.__del__",
    "xgboost.core.Booster.__del__",
    # answers with what is inside
    "sklearn.frozen._frozen.FrozenEstimator.__getattr__",
    "sklearn.utils._bunch.Bunch.__getattr__",
    "sklearn.utils._bunch.Bunch.__setattr__",
}
#: compiled: they take arrays and numbers
COMPILED = (
    "sklearn.tree._tree",
    "sklearn.neighbors._kd_tree",
    "sklearn.neighbors._ball_tree",
    "sklearn.metrics._dist_metrics",
)
_RUN = ("__setstate__", "__new__", "__del__", "__getattr__", "__getattribute__", "__setattr__")


def _found(name: str) -> Any:
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last, None)
    except ModuleNotFoundError:
        return None  # of another release, or a framework that is not installed: it cannot be loaded either


@pytest.mark.parametrize("kind", ["sklearn", "others"])
def test_the_code_that_runs_as_listed_types_are_filled_was_read(kind: str) -> None:
    """No listed type brings a hook of its own that is not in the list above."""
    names = [name for name in sorted(trust.TYPES) if (name.partition(".")[0] == "sklearn") == (kind == "sklearn")]
    seen = 0
    for name in names:
        if (found := _found(name)) is None:
            continue
        seen += 1
        assert inspect.isclass(found), name
        if found.__module__ in COMPILED:
            continue
        for hook in _RUN:
            owner = next(base for base in (*found.__mro__, object) if hook in vars(base) or base is object)
            ours = owner is object or owner.__module__ in ("builtins", "typing", "abc")
            assert ours or f"{owner.__module__}.{owner.__qualname__}.{hook}" in READ, f"{name}: {hook} of {owner}"
    assert seen > (150 if kind == "sklearn" else 2)


def test_every_name_on_the_list_is_there() -> None:
    """A misspelt name would protect nothing and allow nothing: each is found in what is installed."""
    gone = {name for name in trust.TYPES | trust.FUNCTIONS if name.startswith("sklearn.") and _found(name) is None}
    assert not gone
    assert all(callable(_found(name)) for name in trust.FUNCTIONS if name.startswith(("numpy.a", "sklearn")))


def test_functions_on_the_list_are_arithmetic() -> None:
    """They are called with whatever a file gives when a model predicts: ufuncs, and scores of columns."""
    for name in trust.FUNCTIONS:
        found = _found(name) if not name.startswith("numpy.core.") else np.abs
        scores = name.startswith(("sklearn.feature_selection.", "sklearn.preprocessing.", "sklearn.utils.validation"))
        assert isinstance(found, np.ufunc) or scores, name


def test_what_scikit_learn_has_is_on_the_list_or_left_out_on_purpose() -> None:
    """A new kind of classifier, regressor or transformer is noticed, and judged, when it arrives."""
    left_out = {
        "Birch",
        "PatchExtractor",
        "Isomap",
        "LocallyLinearEmbedding",
        "TSNE",
    }  # skops cannot; images; hold whole graphs
    kinds = ["classifier", "regressor", "transformer"]
    for name, found in all_estimators(type_filter=kinds):
        if name not in left_out and issubclass(found, BaseEstimator):
            assert f"{found.__module__}.{name}" in trust.TYPES


def test_no_way_of_building_calls_what_may_only_be_filled() -> None:
    """Types are made blank by one loader alone: a loader that calls its name has numbers and plain types only."""
    for loader, names in trust.LOADERS.items():
        if loader != "ObjectNode":
            assert not names & trust.TYPES, loader
    assert not {"MethodNode", "OperatorFuncNode", "ConstructorFromReduceNode"} & set(trust.LOADERS)
    assert trust.load(trust.dump(OrderedDict(a=1)), SAFE) == OrderedDict(a=1)
