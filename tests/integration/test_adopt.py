"""A model that was trained elsewhere becomes champion 1.0, says what it said, and the strategy goes on from it."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import perennial as pn
from perennial import cli, learners, strategies, triggers, windows
from perennial.core.protocols import Trust
from perennial.gate import Gate
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run, tables
from perennial.production.adopting import adopt
from perennial.production.doctor import examine, sound
from perennial.production.explain import History, explain, served_at, versions
from perennial.production.operate import rollback
from perennial.production.reproduce import reproduce
from perennial.production.service import keep_current, leased

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WEEK = triggers.every("4d")


def frame(rows=400, seed=0):
    """What the user's own script reads: numbers with gaps, a word with gaps, and a label."""
    rng = np.random.default_rng(seed)
    out = pd.DataFrame({
        "at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(rows), unit="h"),
        "first one": rng.normal(size=rows), "b": rng.normal(size=rows),
        "word": np.array(["red", "blue", "green"])[rng.integers(0, 3, rows)],
    })  # fmt: skip
    z = out["first one"] + (out["word"] == "red") + np.cos(np.arange(rows) / 60) * out["b"]
    out["y"] = np.where(z + rng.normal(size=rows) / 2 > 0.3, "up", "down")
    out.loc[out.index % 17 == 3, "b"] = np.nan
    out.loc[out.index % 23 == 5, "word"] = None
    return out


WORDS, NUMBERS = ["first one", "b", "word"], ["first one", "b"]


@pytest.fixture
def shop(tmp_path):
    """A function that makes a deployment of rows that came after the model was trained."""

    def make(model, *, rows=None, drop=(), stateful=False, **about):
        table = frame(400, seed=1) if rows is None else rows
        (tmp_path / "rows").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), tmp_path / "rows" / "0.parquet")
        stream = pn.Stream(
            tmp_path / "rows", time="at", target="y", time_zone="UTC", label_delay="6h", batch="1d", drop=drop
        )
        strategy = (
            strategies.Stateful(model, initial="3d", trigger=WEEK)
            if stateful
            else strategies.Stateless(model, initial="3d", trigger=WEEK, window=windows.Sliding("8d"))
        )
        settings = {"strategy": strategy, **about}
        return Deployment(
            name="shop", stream=stream, ledger=f"sqlite:///{tmp_path}/ledger.db", blobs=tmp_path / "blobs", **settings
        )

    return make


def taking(made, source, **about):
    """What adopting gives, in a ledger of its own."""
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        return adopt(made, ledger, lease, str(source), **{"now": NOW, "actor": "ada@host", **about})


def run(made, mode="once"):
    """Take the turns there are."""
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        return keep_current(
            made, ledger, lease, mode=mode, stopped=lambda: False, wait=lambda _: None, clock=lambda: NOW,
            tell=lambda *_: None,
        )  # fmt: skip


def opened(made):
    """The ledger of a deployment, to look at."""
    return SqlLedger.open(made.ledger, made.name, blobs=made.blobs, create=False)


def said(made):
    """Predictions of 1.0 by the run, in the order of rows, as one table."""
    with opened(made) as ledger:
        kept = [tables.from_bytes(ledger.get(e.predictions)) for e in ledger.entries() if e.serving == "1.0" and e.rows]
    return pa.concat_tables(kept)


def probabilities(made, classes):
    """As :func:`said`, shape (n, classes)."""
    table = said(made)
    return np.column_stack([table.column(f"proba_{name}").to_numpy() for name in classes])


def as_categories(rows):
    """Words as pandas categories, in an order that is not that of their first appearance in the stream."""
    words = ["blue", "green", "red"]
    return rows.assign(word=pd.Categorical(rows["word"].where(rows["word"].isin(words)), categories=words))


def pipeline():
    """A pipeline as it is built at home: by column name, with an encoder for words."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    columns = ColumnTransformer([("n", SimpleImputer(), NUMBERS), ("w", OneHotEncoder(), ["word"])])
    return Pipeline([("columns", columns), ("model", LogisticRegression())])


def lightgbm(**more):
    """A small one."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=8, min_child_samples=5, verbose=-1, n_jobs=1, random_state=1, **more)


def xgboost(**more):
    """A small one."""
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1, **more)


def catboost(**more):
    """A small one."""
    from catboost import CatBoostClassifier

    return CatBoostClassifier(iterations=8, silent=True, allow_writing_files=False, thread_count=1, **more)


@pytest.mark.parametrize("ending", [".skops", ".joblib", ".pkl"])
def test_a_pipeline_says_what_it_said(shop, tmp_path, ending):
    """A pandas pipeline with words of its own, by skops, joblib and pickle."""
    model = pipeline().fit(frame()[WORDS], frame()["y"])
    path = tmp_path / f"model{ending}"
    if ending == ".skops":
        from skops.io import dump

        dump(model, path)
    elif ending == ".joblib":
        joblib.dump(model, path)
    else:
        path.write_bytes(pickle.dumps(model))
    made = shop(pipeline())
    done = taking(made, path, allow_pickle=ending != ".skops")
    assert (done.version, done.features, done.classes) == ("1.0", tuple(WORDS), ("down", "up"))
    assert done.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    run(made)
    told = probabilities(made, ["down", "up"])
    assert len(told) == 96  # four days, until 2.0 is trained
    assert np.array_equal(told, model.predict_proba(frame(400, seed=1)[WORDS][: len(told)]))


def test_lightgbm_keeps_its_words(shop, tmp_path):
    """A native file knows pandas categories by a list of words: the stream's codes are those."""
    rows = as_categories(frame())
    model = lightgbm().fit(rows[WORDS], rows["y"])
    model.booster_.save_model(tmp_path / "model.txt")
    fresh = frame(400, seed=1)
    fresh.loc[fresh.index % 11 == 7, "word"] = "pink"  # which the model never saw: a null to pandas
    made = shop(lightgbm(), rows=fresh)
    done = taking(made, tmp_path / "model.txt", classes=["down", "up"])
    assert done.asked == 32
    run(made)
    told = probabilities(made, ["down", "up"])
    assert len(told) == 96
    assert np.array_equal(told, model.predict_proba(as_categories(fresh)[WORDS][: len(told)]))


def test_xgboost_keeps_its_words(shop, tmp_path):
    """As LightGBM's: the categories are in the file."""
    rows = as_categories(frame())
    model = xgboost(enable_categorical=True).fit(rows[WORDS], rows["y"] == "up")
    for ending in (".json", ".ubj"):
        model.save_model(tmp_path / f"model{ending}")
        made = replace(shop(xgboost()), name=f"shop{ending}")
        taking(made, tmp_path / f"model{ending}", classes=["down", "up"])
        run(made)
        told = probabilities(made, ["down", "up"])
        assert len(told) == 96
        fresh = as_categories(frame(400, seed=1))[WORDS][: len(told)]
        assert np.array_equal(told, model.predict_proba(fresh).astype(float))


def test_xgboost_stops_where_its_estimator_stops(shop, tmp_path):
    """A file of an estimator that stopped early holds more rounds than the estimator is asked for."""
    rows = frame()
    other = frame(100, seed=5)
    model = xgboost(early_stopping_rounds=3).set_params(n_estimators=60)
    model.fit(rows[NUMBERS], rows["y"] == "up", eval_set=[(other[NUMBERS], other["y"] == "up")], verbose=False)
    assert model.get_booster().num_boosted_rounds() > model.best_iteration + 1
    model.save_model(tmp_path / "model.json")
    made = shop(xgboost(), drop=("word",))
    taking(made, tmp_path / "model.json", classes=["down", "up"])
    run(made)
    told = probabilities(made, ["down", "up"])
    assert np.array_equal(told, model.predict_proba(frame(400, seed=1)[NUMBERS][: len(told)]).astype(float))


def test_catboost_is_asked_in_words(shop, tmp_path):
    """A native file with category columns, which CatBoost tells by the words themselves."""
    rows = frame().fillna({"word": "nan"})  # CatBoost takes no null in such a column: this is how it is told one
    model = catboost().fit(rows[WORDS], rows["y"], cat_features=["word"])
    model.save_model(str(tmp_path / "model.cbm"))
    made = shop(catboost())
    done = taking(made, tmp_path / "model.cbm")
    assert done.classes == ("down", "up")
    run(made)
    told = probabilities(made, ["down", "up"])
    assert len(told) == 96
    fresh = frame(400, seed=1).fillna({"word": "nan"})[WORDS][: len(told)]
    assert np.array_equal(told, model.predict_proba(fresh))


@pytest.mark.parametrize("label", ["bool", "int", "word"])
def test_river_goes_on_learning(shop, tmp_path, label):
    """A River model says what it said, row by row, and its first update is what going on at home gives."""
    from river import linear_model, preprocessing

    def build():
        return preprocessing.StandardScaler() | linear_model.LogisticRegression()

    model = build()
    rows = frame().fillna({"b": 0.0})
    for x, y in zip(rows[NUMBERS].to_dict("records"), rows["y"] == "up", strict=True):
        model.learn_one(x, bool(y))
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(model))
    fresh = frame(400, seed=1).fillna({"b": 0.0}).drop(columns="word")
    fresh["y"] = {"bool": fresh["y"] == "up", "int": (fresh["y"] == "up").astype(int), "word": fresh["y"]}[label]
    made = shop(build(), rows=fresh, stateful=True, trust=Trust(pickle=True))
    taking(made, path, allow_pickle=True, classes=["down", "up"] if label == "word" else [])
    run(made)
    table = said(made)
    names = {"bool": ["False", "True"], "int": ["0", "1"], "word": ["down", "up"]}[label]
    expected = [model.predict_proba_one(x) for x in fresh[NUMBERS].to_dict("records")]
    told = np.column_stack([table.column(f"proba_{name}").to_numpy() for name in names])
    assert np.array_equal(told, [[p[False], p[True]] for p in expected[: len(told)]])
    with opened(made) as ledger:
        kept = ledger.versions()
        assert [v.version.number for v in kept][:3] == ["1.0", "1.1", "1.2"]
        learned = kept[1].version
        assert kept[1].facts["lesson"]["rows"] == [[0, learned.trained_rows]]
        for x, y in list(zip(fresh[NUMBERS].to_dict("records"), fresh["y"], strict=True))[: learned.trained_rows]:
            model.learn_one(x, y == "up" if label == "word" else bool(y))
        ours = made.load(ledger.get(kept[1].blob))._model
        assert ours["LogisticRegression"].weights == model["LogisticRegression"].weights


@pytest.mark.parametrize("encoded", [False, True])
def test_partial_fit_goes_on(shop, tmp_path, encoded):
    """A stateful strategy updates the adopted estimator itself, also one that was trained on numbered labels."""
    from sklearn.linear_model import SGDClassifier

    rows = frame().fillna({"b": 0.0})
    y = (rows["y"] == "up").astype(int) if encoded else rows["y"]
    model = SGDClassifier(loss="log_loss", random_state=0).fit(rows[NUMBERS], y)
    joblib.dump(model, tmp_path / "model.joblib")
    fresh = frame(400, seed=1).fillna({"b": 0.0}).drop(columns="word")
    made = shop(SGDClassifier(loss="log_loss", random_state=0), rows=fresh, stateful=True)
    taking(made, tmp_path / "model.joblib", allow_pickle=True, classes=["down", "up"] if encoded else [])
    run(made)
    told = probabilities(made, ["down", "up"])
    assert len(told) == 96
    # the last bit of a matrix product depends on the layout of the rows and on the processor's kernels
    np.testing.assert_allclose(told, model.predict_proba(fresh[NUMBERS][: len(told)]), rtol=1e-12)
    with opened(made) as ledger:
        first = ledger.version("1.1")
        low, high = first.facts["lesson"]["rows"][0]
        labels = fresh["y"][low:high]
        model.partial_fit(fresh[NUMBERS][low:high], (labels == "up").astype(int) if encoded else labels)
        ours = made.load(ledger.get(first.blob))._model
        assert np.array_equal(ours.coef_, model.coef_)
        assert ledger.alias("champion").version == "1.3"
    with opened(made) as ledger:
        assert reproduce(made, ledger, "1.1").same
        assert reproduce(made, ledger, "1.3").same


def test_a_booster_of_an_estimator(shop, tmp_path):
    """A pickled estimator of a booster's sklearn face knows its own classes."""
    rows = as_categories(frame())
    for build, labels in ((lightgbm, rows["y"]), (catboost, rows["y"])):
        model = build()
        words = {"cat_features": ["word"]} if build is catboost else {}
        train = rows.assign(word=rows["word"].astype(object).fillna("nan")) if words else rows
        joblib.dump(model.fit(train[WORDS], labels, **words), tmp_path / "model.pkl")
        made = replace(shop(build()), name=build.__name__)
        assert taking(made, tmp_path / "model.pkl", allow_pickle=True).classes == ("down", "up")
        run(made)
        told = probabilities(made, ["down", "up"])
        fresh = as_categories(frame(400, seed=1))[WORDS][: len(told)]
        fresh = fresh.assign(word=fresh["word"].astype(object).fillna("nan")) if words else fresh
        assert np.array_equal(told, model.predict_proba(fresh))


@pytest.mark.parametrize("labels", [("high", "low", "mid"), (0, 1, 2)])
@pytest.mark.parametrize("build", [lightgbm, xgboost, catboost])
def test_three_classes_by_number(shop, tmp_path, build, labels):
    """A native file of several classes: numbers are taken over numbers, and words are named by the user."""

    def coded(rows):
        return np.digitize(rows["first one"], [-0.5, 0.5])

    rows, fresh = frame(), frame(400, seed=1).drop(columns="word")
    model = build().fit(rows[NUMBERS], coded(rows))
    path = tmp_path / {lightgbm: "model.txt", xgboost: "model.json", catboost: "model.cbm"}[build]
    {lightgbm: lambda: model.booster_.save_model(path)}.get(build, lambda: model.save_model(str(path)))()
    made = shop(build(), rows=fresh.assign(y=np.array(labels)[coded(fresh)]))
    words = isinstance(labels[0], str)
    assert taking(made, path, classes=labels if words else []).classes == labels
    run(made)
    told = probabilities(made, labels)
    assert np.array_equal(told, model.predict_proba(fresh[NUMBERS][: len(told)]).astype(float))
    with opened(made) as ledger:
        assert ledger.version("2.0").facts["lesson"]["classes"] == 3


def test_lightgbm_stops_where_its_estimator_stops(shop, tmp_path):
    """An estimator that stopped early is asked up to its best round, and so is what was adopted."""
    from lightgbm import early_stopping

    rows, other = frame(), frame(100, seed=5)
    model = lightgbm().set_params(n_estimators=200)
    model.fit(rows[NUMBERS], rows["y"] == "up", eval_X=other[NUMBERS], eval_y=other["y"] == "up",
              callbacks=[early_stopping(3, verbose=False)])  # fmt: skip
    assert 0 < model.best_iteration_ < 200
    joblib.dump(model, tmp_path / "model.pkl")
    made = shop(lightgbm(), drop=("word",))
    taking(made, tmp_path / "model.pkl", allow_pickle=True, classes=["down", "up"])
    run(made)
    told = probabilities(made, ["down", "up"])
    assert np.array_equal(told, model.predict_proba(frame(400, seed=1)[NUMBERS][: len(told)]))


def test_a_regression(shop, tmp_path):
    """Without classes there is nothing to agree on but columns; numbers of an array have no names."""
    from lightgbm import LGBMRegressor

    rows = frame()
    target = rows["first one"] * 2 + 1
    model = LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1).fit(rows[NUMBERS].to_numpy(), target)
    model.booster_.save_model(tmp_path / "model.lgb")
    fresh = frame(400, seed=1).drop(columns="word").assign(y=lambda d: d["first one"] * 2 + 1)
    made = shop(LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1), rows=fresh)
    assert taking(made, tmp_path / "model.lgb").classes == ()
    run(made)
    told = said(made).column("prediction").to_numpy()
    assert np.array_equal(told, model.predict(fresh[NUMBERS].to_numpy()[: len(told)]))


def mlflow_folder(folder, flavor, data, *, names=None):
    """The folder of an MLflow model, as its client writes it."""
    folder.mkdir()
    about = {"flavors": {"python_function": {"loader_module": "mlflow.x"}, **flavor}}
    if names:
        about["signature"] = {"inputs": json.dumps([{"type": "double", "name": name} for name in names])}
    (folder / "MLmodel").write_text(yaml.safe_dump(about))
    (folder / next(iter(flavor.values())).get("data", "model.pkl")).write_bytes(data)


@pytest.fixture
def booster(tmp_path):
    """A native LightGBM file of two numbers, trained on an array, and the model."""
    rows = frame()
    model = lightgbm().fit(rows[NUMBERS].to_numpy(), rows["y"])
    model.booster_.save_model(tmp_path / "model.txt")
    return model


def test_an_mlflow_folder(shop, tmp_path, booster):
    """Its description says which file is the model; where the model names no columns, its signature does."""
    data = (tmp_path / "model.txt").read_bytes()
    mlflow_folder(tmp_path / "logged", {"lightgbm": {"data": "model.lgb", "model_class": "x"}}, data, names=NUMBERS)
    made = shop(lightgbm(), drop=("word",))
    done = taking(made, tmp_path / "logged", classes=["down", "up"])
    assert (done.form, done.digest) == ("lightgbm", hashlib.sha256(data).hexdigest())
    mlflow_folder(tmp_path / "other", {"lightgbm": {"data": "model.lgb"}}, data, names=["b", "first one"])
    with pytest.raises(pn.DataError, match=r"feature 1 is column 'first one' .* and 'b' in the model"):
        taking(replace(made, name="other"), tmp_path / "other", classes=["down", "up"])
    model = pipeline().fit(frame()[WORDS], frame()["y"])
    mlflow_folder(
        tmp_path / "pickled", {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}},
        pickle.dumps(model),
    )  # fmt: skip
    assert taking(replace(shop(pipeline()), name="p"), tmp_path / "pickled", allow_pickle=True).form == "pickle"
    from skops.io import dumps

    made = replace(shop(lightgbm(), drop=("word",)), name="estimator")  # MLflow 3 writes estimators of LightGBM so
    about = {"lightgbm": {"data": "model.skops", "serialization_format": "skops"}}
    mlflow_folder(tmp_path / "estimator", about, dumps(booster))
    assert taking(made, tmp_path / "estimator").classes == ("down", "up")
    run(made)
    told = probabilities(made, ["down", "up"])
    assert np.array_equal(told, booster.predict_proba(frame(400, seed=1)[NUMBERS].to_numpy()[: len(told)]))
    boosted = replace(made, name="boosted")
    about = {"lightgbm": {"data": "model.lgb", "serialization_format": "skops"}}  # and boosters natively all the same
    mlflow_folder(tmp_path / "boosted", about, data)
    assert taking(boosted, tmp_path / "boosted", classes=["down", "up"]).form == "lightgbm"


def test_an_mlflow_address(shop, tmp_path, booster, monkeypatch):
    """The client fetches what an address names; without it, the message says what to install."""
    made = shop(lightgbm(), drop=("word",))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "mlflow", None)
        without.setitem(sys.modules, "mlflow.artifacts", None)
        with pytest.raises(pn.ConfigError, match="pip install mlflow"):
            taking(made, "models:/churn/3")
    data = (tmp_path / "model.txt").read_bytes()
    mlflow_folder(tmp_path / "logged", {"lightgbm": {"data": "model.lgb"}}, data)
    asked = []

    def download(artifact_uri, dst_path):
        asked.append((artifact_uri, dst_path))
        return str(tmp_path / "logged")

    package = ModuleType("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.artifacts", SimpleNamespace(download_artifacts=download))
    done = taking(made, "models:/churn/3", classes=["down", "up"])
    assert asked[0][0] == done.source == "models:/churn/3"


def test_what_differs_is_named_and_nothing_is_done(shop, tmp_path, booster):
    """Columns, words, classes, frameworks, pickles: each refusal names what is wrong, and leaves no turn behind."""
    path, yes = tmp_path / "model.txt", {"classes": ["down", "up"]}
    rows = frame()
    numbers = shop(lightgbm(), drop=("word",))

    def refuses(made, source, error, words, **about):
        with pytest.raises(error, match=words):
            taking(made, source, **about)
        with opened(made) as ledger:
            assert ledger.head().turn == -1
            assert ledger.versions() == []

    named = lightgbm().fit(rows[["b", "first one"]], rows["y"]).booster_
    named.save_model(tmp_path / "named.txt")
    refuses(numbers, tmp_path / "named.txt", pn.DataError, "feature 1 is column 'first one'", **yes)
    other = lightgbm().fit(rows[NUMBERS].rename(columns={"b": "c"}), rows["y"]).booster_
    other.save_model(tmp_path / "other.txt")
    refuses(numbers, tmp_path / "other.txt", pn.DataError, "wants a column 'c'", **yes)
    refuses(shop(lightgbm()), path, pn.DataError, "wants 2 features and names none, and .* has 3", **yes)
    wide = lightgbm().fit(as_categories(rows)[WORDS].assign(word=rows["b"]), rows["y"]).booster_
    wide.save_model(tmp_path / "wide.txt")
    refuses(shop(lightgbm()), tmp_path / "wide.txt", pn.DataError, "column 'word' holds words, and the model knows no")
    coded = lightgbm().fit(rows[NUMBERS].assign(b=pd.Categorical(rows["b"] > 0)), rows["y"]).booster_
    coded.save_model(tmp_path / "coded.txt")
    refuses(numbers, tmp_path / "coded.txt", pn.DataError, "trained on 1 category columns .*'b'", **yes)
    refuses(numbers, path, pn.DataError, "label column 'y' holds string, and the model's classes are 0, 1: .*--classes")
    refuses(numbers, path, pn.DataError, "label column 'y' holds 'down', and .* 'no', 'up'", classes=["no", "up"])
    refuses(numbers, path, pn.ConfigError, "the model has 2 classes", classes=["up", "down", "flat"])
    refuses(shop(xgboost(), drop=("word",)), path, pn.LearnerError, "a file of lightgbm, .* is XGBClassifier")
    refuses(shop(learners.Decayed(lightgbm()), drop=("word",), stateful=True), path, pn.LearnerError, "cannot adopt")
    (tmp_path / "broken.txt").write_text("tree")
    refuses(numbers, tmp_path / "broken.txt", pn.FormatError, "no file of lightgbm", **yes)
    joblib.dump(booster, tmp_path / "model.joblib")
    refuses(numbers, tmp_path / "model.joblib", pn.ConfigError, "code of whoever wrote it .* --pickle")
    refuses(numbers, tmp_path / "nowhere.txt", pn.ConfigError, "no such file")
    (tmp_path / "model.onnx").write_bytes(b"")
    refuses(numbers, tmp_path / "model.onnx", pn.ConfigError, "its ending")


def test_sklearn_refusals(shop, tmp_path):
    """Another class, other steps, an unfitted estimator, codes that it never saw, labels of another type."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    rows = frame().fillna({"b": 0.0})
    fresh = frame(400, seed=1).fillna({"b": 0.0, "word": "red"})

    def refuses(wanted, model, words, error=pn.LearnerError, drop=("word",), **about):
        joblib.dump(model, tmp_path / "model.joblib")
        with pytest.raises(error, match=words):
            taking(shop(wanted, rows=fresh, drop=drop), tmp_path / "model.joblib", allow_pickle=True, **about)

    forest = RandomForestClassifier(n_estimators=3, random_state=0)
    refuses(LogisticRegression(), forest.fit(rows[NUMBERS], rows["y"]), "the model is RandomForestClassifier, and")
    refuses(LogisticRegression(), LogisticRegression(), "is not fitted")
    one = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
    other = Pipeline([("scaler", StandardScaler()), ("model", LogisticRegression())])
    refuses(one, other.fit(rows[NUMBERS], rows["y"]), "the model's are scaler, model")
    three = rows.assign(word=rows["word"].map({"red": 0, "blue": 1, "green": 2}).fillna(0))
    codes = LogisticRegression().fit(three[WORDS], rows["y"])
    refuses(LogisticRegression(), codes, "column 'word' holds words", pn.DataError, drop=())
    floats = LogisticRegression().fit(rows[NUMBERS], np.where(rows["y"] == "up", 2.0, 1.0))
    refuses(LogisticRegression(), floats, "the model's classes are 1.0, 2.0", pn.DataError)
    refuses(LogisticRegression(), floats, "cannot be told that these are", classes=["down", "up"])
    third = LogisticRegression().fit(rows[NUMBERS], np.where(rows["y"] == "up", "high", "low"))
    refuses(LogisticRegression(), third, "label column 'y' holds 'down', 'up', and the model's", pn.DataError)


def test_the_strategy_goes_on_from_it(shop, tmp_path, booster):
    """2.0 at the trigger, counted from the first row; everything that is asked of versions copes with 1.0."""
    made = shop(lightgbm(), drop=("word",))
    done = taking(made, tmp_path / "model.txt", classes=["down", "up"], reason="the model of last year")
    assert "`initial` is not used" in done.notes[0]
    with opened(made) as ledger:
        assert sound(examine(made, ledger))  # before any run
        kept = ledger.version("1.0")
        assert (kept.version.kind, kept.version.trained_rows) == ("adopt", 0)
        assert f"SHA-256 {done.digest}" in kept.version.reason
        assert "ada@host" in kept.version.reason
        assert kept.golden
    run(made)
    with opened(made) as ledger:
        entries = list(ledger.entries())
        assert [(e.kind, e.rows, e.serving) for e in entries[:2]] == [("operator", 0, "1.0"), ("batch", 24, "1.0")]
        history = History.read(ledger)
        assert [(v["number"], v["kind"], v["parent"]) for v in versions(history)][:3] == [
            ("1.0", "adopt", None), ("2.0", "fit", "1.0"), ("3.0", "fit", "2.0"),
        ]  # fmt: skip
        assert [saved.version.at // 86_400_000_000 - 20454 for saved in ledger.versions()] == [0, 4, 8, 12]
        about = explain(history, "1.0")
        assert about["adopted"]["sha256"] == done.digest
        assert about["served"][0]["rows"] == 96
        assert about["reason"].endswith("the model of last year")
        told = served_at(history, entries[1].now + 1)
        assert told["version"] == "1.0"
        assert "adopted from" in told["why"]
        with pytest.raises(pn.LedgerError, match="was not trained here"):
            reproduce(made, ledger, "1.0")
        assert reproduce(made, ledger, "2.0").same
        assert rollback(ledger, made, actor="ada").version == "3.0"
        assert sound(examine(made, ledger))
        assert not [finding for finding in ledger.check() if not finding.safe]


def test_only_before_the_first_turn(shop, tmp_path, booster):
    """A deployment that has begun adopts nothing: one that adopted says so, another says what to do instead."""
    made = shop(lightgbm(), drop=("word",))
    taking(made, tmp_path / "model.txt", classes=["down", "up"])
    with pytest.raises(pn.LedgerError, match=r"has a model already, 1\.0 adopted from .*model\.txt"):
        taking(made, tmp_path / "model.txt", classes=["down", "up"])
    meant = replace(made, name="meant")
    with SqlLedger.open(meant.ledger, "meant", blobs=meant.blobs) as ledger:  # a run that died before its first turn
        ledger.intend(ledger.acquire("test", timedelta(minutes=1)), 0, '{"batch": [0, 24, 0]}')
    assert taking(meant, tmp_path / "model.txt", classes=["down", "up"]).version == "1.0"
    assert run(meant) == 16
    other = replace(made, name="begun")
    run(other)
    with pytest.raises(pn.LedgerError, match=r"has begun, and adopts no model any more: .* perennial promote"):
        taking(other, tmp_path / "model.txt", classes=["down", "up"])
    with opened(other) as ledger, pytest.raises(pn.LedgerError, match="before the first turn"):
        Run(other, ledger, ledger.acquire("x", timedelta(minutes=1))).adopt(None)


def test_a_gate_holds_challengers_against_it(shop, tmp_path, booster):
    """With a gate, 2.0 predicts unseen beside the adopted champion until labels tell."""
    made = shop(lightgbm(), drop=("word",), gate=Gate(margin=0.05))
    taking(made, tmp_path / "model.txt", classes=["down", "up"])
    run(made)
    with opened(made) as ledger:
        first = ledger.verdicts("2.0")[0]
        assert (first.outcome, first.champion) == ("keep", "1.0")
        assert ledger.alias("champion").version == "1.0"
    after = replace(made, name="after", gate=Gate(margin=0.05, mode="after"))
    taking(after, tmp_path / "model.txt", classes=["down", "up"])
    run(after)
    with opened(after) as ledger:
        assert ledger.verdicts("2.0")[0].champion == "1.0"
        assert [move.version for move in ledger.alias_history("champion")][:2] == ["1.0", "2.0"]


def test_a_hybrid_with_a_mix_and_no_initial_rows(shop, tmp_path):
    """Updates go on from the adopted model, a reset replaces it; the initial share of a mix has no rows."""
    from sklearn.linear_model import SGDClassifier

    rows = frame().fillna({"b": 0.0})
    model = SGDClassifier(loss="log_loss", random_state=0)
    joblib.dump(model.fit(rows[NUMBERS], rows["y"]), tmp_path / "model.pkl")
    fresh = frame(400, seed=1).fillna({"b": 0.0}).drop(columns="word")
    mix = windows.Mix(initial=0.3, recent=0.7, rows=100)
    strategy = strategies.Hybrid(
        SGDClassifier(loss="log_loss", random_state=0), initial="3d", trigger=triggers.every("2d"),
        reset=triggers.every("5d"), window=mix,
    )  # fmt: skip
    made = shop(None, rows=fresh, strategy=strategy, retention=timedelta(days=1))
    notes = taking(made, tmp_path / "model.pkl", allow_pickle=True).notes
    assert any("has no initial rows to draw from" in note for note in notes)
    run(made, "until-end")
    with opened(made) as ledger:
        made_of = {s.version.number: s.version for s in ledger.versions()}
        assert list(made_of)[:4] == ["1.0", "1.1", "1.2", "2.0"]
        assert (made_of["2.0"].parent, made_of["2.0"].trained_rows) == ("1.2", 70)


def test_observing_an_adopted_champion(shop, tmp_path, booster):
    """A champion that is there from the start can be watched before anything is trained."""
    made = shop(lightgbm(), drop=("word",))
    taking(made, tmp_path / "model.txt", classes=["down", "up"])
    run(replace(made, observe=True))
    with opened(made) as ledger:
        assert [saved.version.number for saved in ledger.versions()] == ["1.0"]
        assert any("observed, would train" in d.reason for e in ledger.entries() for d in e.decisions)
    assert len(said(made)) == 384


def test_a_source_without_rows(shop, tmp_path, booster):
    """Columns are enough: the model is held against made-up rows, and an empty recording ends well."""
    made = shop(lightgbm(), rows=frame(400, seed=1)[:0].astype({"y": "str", "word": "str"}), drop=("word",))
    assert taking(made, tmp_path / "model.txt", classes=["down", "up"]).asked == 0
    with opened(made) as ledger:
        assert ledger.version("1.0").golden
    assert run(made, "until-end") == 0
    pq.write_table(pa.Table.from_pandas(frame(400, seed=1), preserve_index=False), tmp_path / "rows" / "1.parquet")
    run(made)
    with opened(made) as ledger:
        assert ledger.version("1.0").version.trained_at == NOW
        assert [s.version.number for s in ledger.versions()] == ["1.0", "2.0", "3.0", "4.0"]
        first = next(e for e in ledger.entries() if e.rows)
        assert served_at(History.read(ledger), first.now)["version"] == "1.0"
        assert sound(examine(made, ledger))
    empty = pd.DataFrame({"at": frame(1)["at"], **{name: [None] for name in NUMBERS}, "y": ["up"]})[:0]
    for folder, write in (
        ("csv", lambda table, path: table.to_csv(path, index=False)),
        ("pq", pd.DataFrame.to_parquet),
    ):
        (tmp_path / folder).mkdir()
        write(empty, tmp_path / folder / f"0.{folder}")
        other = replace(made, name=folder, stream=replace(made.stream, source=tmp_path / folder, drop=()))
        with pytest.raises(pn.DataError, match="does not tell the types of its columns"):
            taking(other, tmp_path / "model.txt", classes=["down", "up"])


def test_a_class_that_the_model_does_not_know(shop, tmp_path):
    """A model that names its classes is not refused over one more: it is told, scored, and learned later."""
    rows = frame()
    joblib.dump(lightgbm().fit(rows[NUMBERS], rows["y"]), tmp_path / "model.pkl")
    fresh = frame(400, seed=1)
    fresh.loc[fresh.index % 5 == 0, "y"] = "flat"
    made = shop(lightgbm(), rows=fresh, drop=("word",))
    done = taking(made, tmp_path / "model.pkl", allow_pickle=True)
    assert done.notes[0].startswith("label column 'y' holds 'flat', which the model does not know")
    run(made)
    with opened(made) as ledger:
        last = tables.from_bytes(ledger.get(list(ledger.entries())[-1].predictions))
        assert [n for n in last.column_names if n.startswith("proba_")] == ["proba_down", "proba_up", "proba_flat"]
        assert reproduce(made, ledger, "2.0").same


def test_river_row_by_row(shop, tmp_path):
    """Rows that share a turn are tested and learned one after the other, from the adopted state on."""
    from river import tree

    rows, fresh = frame().fillna({"b": 0.0}), frame(60, seed=1).fillna({"b": 0.0}).drop(columns="word")
    model = tree.HoeffdingTreeClassifier(grace_period=20)
    for x, y in zip(rows[NUMBERS].to_dict("records"), rows["y"], strict=True):
        model.learn_one(x, y)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    wanted = tree.HoeffdingTreeClassifier(grace_period=20)
    made = shop(
        None, rows=fresh, strategy=strategies.Stateful(wanted, initial=None, trigger=triggers.every(rows=1)),
        trust=Trust(pickle=True),
    )  # fmt: skip
    made = replace(made, stream=replace(made.stream, batch=1, label_delay=None))
    done = taking(made, tmp_path / "model.pkl", allow_pickle=True)
    assert (done.classes, done.asked) == (("down", "up"), 32)
    run(made, "until-end")
    with opened(made) as ledger:
        kept = [tables.from_bytes(ledger.get(e.predictions)) for e in ledger.entries() if e.predictions]
    told = pa.concat_tables(kept).column("proba_up").to_numpy()
    expected = []
    for x, y in zip(fresh[NUMBERS].to_dict("records"), fresh["y"], strict=True):
        expected.append(model.predict_proba_one(x).get("up", 0.0))
        model.learn_one(x, y)
    assert np.array_equal(told, expected)


def ratio(past, now):
    """Features that a function builds."""
    return now.assign(more=now["first one"] * 2)[["first one", "b", "more"]].reset_index(drop=True)


def test_features_that_a_function_builds(shop, tmp_path):
    """The model is held against what the function builds, which only rows can tell."""
    wide = frame().assign(more=lambda rows: rows["first one"] * 2)
    lightgbm().fit(wide[["first one", "b", "more"]], wide["y"]).booster_.save_model(tmp_path / "model.txt")
    made = shop(lightgbm(), drop=("word",))
    made = replace(made, stream=replace(made.stream, features=ratio, lookback=timedelta(days=1)))
    done = taking(made, tmp_path / "model.txt", classes=["down", "up"])
    assert done.features == ("first one", "b", "more")
    run(made)
    model = lightgbm().fit(wide[["first one", "b", "more"]], wide["y"])
    fresh = ratio(None, frame(400, seed=1))
    told = probabilities(made, ["down", "up"])
    assert np.array_equal(told, model.predict_proba(fresh[: len(told)]))
    nothing = replace(shop(lightgbm(), rows=frame(400)[:0].astype({"y": "str", "word": "str"})), name="nothing")
    nothing = replace(nothing, stream=replace(nothing.stream, features=ratio, lookback=timedelta(days=1)))
    with pytest.raises(pn.DataError, match="adopt once there is a row"):
        taking(nothing, tmp_path / "model.txt", classes=["down", "up"])


def test_a_subject_is_erased(shop, tmp_path):
    """What the adopted model was held against goes too; words that it has codes for are its own and stay."""
    rows = as_categories(frame())
    lightgbm().fit(rows[WORDS], rows["y"]).booster_.save_model(tmp_path / "model.txt")
    fresh = frame(400, seed=1).assign(who=lambda d: np.where(d.index == 2, "bob", "eve"))
    fresh["word"] = np.where(fresh["who"] == "bob", "green", "red")
    made = shop(lightgbm(), rows=fresh)
    made = replace(made, stream=replace(made.stream, key="who"))
    taking(made, tmp_path / "model.txt", classes=["down", "up"])
    run(made)
    with opened(made) as ledger:
        erased = Run(made, ledger, ledger.acquire("test", timedelta(minutes=1))).erase("bob")
        assert (erased.rows, erased.words) == (1, 0)
        assert "1.0" in erased.golden
        assert sound(examine(made, ledger))


YAML = """\
name: shop
stream: {source: rows, time: at, time_zone: UTC, drop: [word], label: {column: y, delay: 6h}, batch: 1d}
model: {estimator: lightgbm.LGBMClassifier, params: {n_estimators: 8, verbose: -1}}
initial: 3d
strategies: {often: {stateless: {every: 4d, window: {sliding: 8d}}}}
deploy: often
"""


def test_the_command(shop, tmp_path, booster, monkeypatch, capsys):
    """`perennial adopt` says what it did, to people and to programs; what is wrong has its exit code."""
    shop(lightgbm())
    (tmp_path / "perennial.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["adopt", "model.txt"]) == 3
    assert "--classes" in capsys.readouterr().err
    assert cli.main(["adopt", "nothing.txt", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["field"] == "model"
    assert cli.main(["adopt", "model.txt", "--classes", "down, up", "--reason", "it is good", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["deployment"], told["version"], told["classes"]) == ("shop", "1.0", ["down", "up"])
    assert told["digest"] == hashlib.sha256((tmp_path / "model.txt").read_bytes()).hexdigest()
    assert cli.main(["adopt", "model.txt", "--classes", "down,up"]) == 5
    assert "has a model already" in capsys.readouterr().err
    assert cli.main(["run", "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["champion"] == "4.0"
    assert cli.main(["explain", "1.0"]) == 0
    assert "adopted from model.txt" in capsys.readouterr().out
    assert cli.main(["versions"]) == 0
    assert cli.main(["export", "1.0", "--output", "out"]) == 0
    (tmp_path / "perennial.yaml").write_text(YAML.replace("name: shop", "name: other"))
    capsys.readouterr()
    assert cli.main(["adopt", "model.txt", "--classes", "down,up"]) == 0
    out = capsys.readouterr().out
    assert "1.0 is champion of other" in out
    assert "`initial` is not used" in out
    assert cli.main(["predict", "rows/0.parquet", "--output", "said.csv"]) == 0  # before any turn but that one


def test_rows_older_than_the_adoption_wait_for_the_label_log(shop, tmp_path, booster):
    """Adopted before there was a row, by the clock; older rows come, and their labels when the run has taken them."""
    rows = frame(400, seed=1).assign(id=np.arange(400)).drop(columns="word")
    log = rows[["id", "y"]].assign(known_at=rows["at"] + pd.Timedelta("30h"))
    rows = rows.drop(columns="y")
    (tmp_path / "log").mkdir()
    log[:100].to_parquet(tmp_path / "log" / "0.parquet")
    made = shop(lightgbm(), rows=rows[:0])
    apart = {"labels": tmp_path / "log", "label_delay": None, "id": "id", "label_wait": timedelta(days=3)}
    made = replace(made, stream=replace(made.stream, **apart))
    taking(made, tmp_path / "model.txt", classes=["down", "up"])
    rows[:150].to_parquet(tmp_path / "rows" / "1.parquet")
    run(made)
    log[100:].to_parquet(tmp_path / "log" / "1.parquet")
    rows[150:].to_parquet(tmp_path / "rows" / "2.parquet")
    run(made, "until-end")
    with opened(made) as ledger:
        entries = list(ledger.entries())
        kept = [tables.from_bytes(ledger.get(entry.labels)) for entry in entries if entry.labels]
        assert not [note for entry in entries for note in entry.notes if "passed over" in note]
    assert pa.concat_tables(kept).num_rows == 400
