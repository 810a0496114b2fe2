"""What a learner says of a model that was trained elsewhere, and which models it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perennial import learners
from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Column, Kind, Schema
from perennial.core.protocols import Adopts, ReadsNative, Trust
from perennial.learners import as_learner, opening

catboost = pytest.importorskip("catboost")
lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
river = pytest.importorskip("river")

NUMBERS = Schema([Column("a", Kind.NUMBER, "double"), Column("b", Kind.NUMBER, "double")])
WORDS = Schema([Column("a", Kind.NUMBER, "double"), Column("b", Kind.CATEGORY, "string")])
N = 200
X = np.random.default_rng(0).normal(size=(N, 2))
Y = X[:, 0] > 0
FRAME = pd.DataFrame({"a": X[:, 0], "b": np.array(["x", "y", "z"])[np.arange(N) % 3]})
CODED = FRAME.assign(b=FRAME["b"].astype("category"))


def lgb(**params):
    """A small classifier of LightGBM."""
    return lightgbm.LGBMClassifier(**{"n_estimators": 3, "verbose": -1, "n_jobs": 1, **params})


def xgb(**params):
    """A small classifier of XGBoost."""
    return xgboost.XGBClassifier(**{"n_estimators": 3, "n_jobs": 1, **params})


def cat(**params):
    """A small classifier of CatBoost."""
    return catboost.CatBoostClassifier(**{"iterations": 3, "silent": True, "allow_writing_files": False, **params})


REFUSED = {
    "lightgbm: regression": (lgb(), lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(X, X[:, 0]).booster_,
                             "objective is regression"),
    "lightgbm: the other class": (lgb(), lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(X, X[:, 0]),
                                  "configured `model` is LGBMClassifier"),
    "lightgbm: not fitted": (lgb(), lgb(), "configured `model` is LGBMClassifier"),
    "lightgbm: of xgboost": (lgb(), xgb().fit(X, Y), "the model is XGBClassifier"),
    "lightgbm: own objective": (
        lgb(), lightgbm.train({"objective": lambda p, d: (p - d.get_label(), np.ones(N)), "verbose": -1},
                              lightgbm.Dataset(X, Y.astype(int)), 3), "objective is none"),
    "xgboost: softmax": (xgb(), xgboost.train({"objective": "multi:softmax", "num_class": 3},
                                              xgboost.DMatrix(X, np.arange(N) % 3), 2), "set objective=multi:softmax"),
    "xgboost: linear": (xgb(), xgboost.train({"objective": "binary:logistic", "booster": "gblinear"},
                                             xgboost.DMatrix(X, Y), 2), "set booster=gblinear"),
    "xgboost: ranking": (xgb(), xgboost.train({"objective": "rank:pairwise"}, xgboost.DMatrix(X, Y), 2),
                         "objective is rank:pairwise"),
    "xgboost: null": (xgb(), xgb(missing=-1.0).fit(X, Y), "set missing=-1.0"),
    "xgboost: of lightgbm": (xgb(), lgb().fit(X, Y).booster_, "the model is Booster"),
    "catboost: regression": (cat(), catboost.CatBoostRegressor(iterations=3, silent=True, allow_writing_files=False)
                             .fit(X, X[:, 0]), "configured `model` is CatBoostClassifier"),
    "catboost: not fitted": (cat(), cat(), "configured `model` is CatBoostClassifier"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_model_is_refused(case):
    """What is of another class, or would be asked otherwise than it was trained, is named."""
    wanted, model, words = REFUSED[case]
    with pytest.raises(LearnerError, match=words):
        as_learner(wanted).known(model, NUMBERS)


def test_a_native_regression_is_no_classifier():
    """CatBoost's file does not say of which class its model was; whether there are classes does."""
    regression = catboost.CatBoostRegressor(iterations=3, silent=True, allow_writing_files=False).fit(X, X[:, 0])
    data = as_learner(catboost.CatBoostRegressor(silent=True))._engine.dump(regression)
    learner = as_learner(cat())
    with pytest.raises(LearnerError, match="a regression or a ranking"):
        learner.known(learner.opened(data), NUMBERS)


def test_words_are_those_of_the_model():
    """LightGBM and XGBoost keep their categories; in the stream they must be words too, and only there."""
    for wanted, model in ((lgb(), lgb().fit(CODED, Y)), (xgb(), xgb(enable_categorical=True).fit(CODED, Y))):
        learner = as_learner(wanted)
        known = learner.known(model, WORDS)
        assert (known.names, known.words) == (("a", "b"), {1: ("x", "y", "z")})
        with pytest.raises(DataError, match=r"'b'|1 category columns"):
            learner.known(model, NUMBERS)
    numbers = CODED.assign(b=pd.Categorical(np.arange(N) % 3))
    for wanted, model in ((lgb(), lgb().fit(numbers, Y)), (xgb(), xgb(enable_categorical=True).fit(numbers, Y))):
        with pytest.raises(DataError, match="column 'b' holds words, and the model knows it as 0, 1, 2"):
            as_learner(wanted).known(model, WORDS)
    for wanted, model in ((lgb(), lgb().fit(X, Y)), (xgb(), xgb().fit(X, Y))):
        with pytest.raises(DataError, match="column 'b' holds words, and the model knows no words for it"):
            as_learner(wanted).known(model, WORDS)
    swapped = pd.DataFrame({"a": CODED["b"], "b": CODED["a"]})
    with pytest.raises(DataError, match="column 'a' was a category"):
        as_learner(lgb()).known(lgb().fit(swapped, Y), WORDS)


def test_category_columns_of_catboost_are_the_same():
    """What was a category to the model is one in the stream, and the other way round."""
    learner = as_learner(cat())
    model = cat().fit(FRAME, Y, cat_features=["b"])
    assert learner.known(model, WORDS).classes == (False, True)
    with pytest.raises(DataError, match=r"column 'b' was a category when .*, and is a number in the stream"):
        learner.known(model, NUMBERS)
    with pytest.raises(DataError, match=r"column 'b' was a number when .*, and is words"):
        learner.known(cat().fit(pd.DataFrame(X, columns=["a", "b"]), Y), WORDS)
    named = as_learner(cat(cat_features=["b"]))
    assert named.known(cat(cat_features=["b"]).fit(FRAME, Y), WORDS).names == ("a", "b")


def test_names_with_spaces():
    """LightGBM writes a space as an underscore: the stream's name is meant, unless it has both."""
    schema = Schema([Column("my a", Kind.NUMBER, "double"), Column("b", Kind.NUMBER, "double")])
    model = lgb().fit(pd.DataFrame(X, columns=["my a", "b"]), Y)
    assert as_learner(lgb()).known(model, schema).names == ("my a", "b")


def test_river_models_know_their_columns():
    """A linear model keeps something of each column: others than the stream's are named."""
    from river import linear_model, preprocessing, tree

    def build():
        return preprocessing.StandardScaler() | linear_model.LogisticRegression()

    model, learner = build(), as_learner(build())
    assert learner.known(model, NUMBERS).classes == (False, True)
    model.learn_one({"a": 1.0, "c": 2.0}, True)
    with pytest.raises(DataError, match="learned of a column 'c', which the stream lacks"):
        learner.known(model, NUMBERS)
    half = build()
    half.learn_one({"a": 1.0}, True)
    with pytest.raises(DataError, match="never met column 'b'"):
        learner.known(half, NUMBERS)
    with pytest.raises(LearnerError, match="the model is HoeffdingTreeClassifier"):
        learner.known(tree.HoeffdingTreeClassifier(), NUMBERS)
    grown = tree.HoeffdingTreeClassifier()
    for label in ("y", "x", "z"):
        grown.learn_one({"a": 1.0, "b": 2.0}, label)
    assert as_learner(tree.HoeffdingTreeClassifier()).known(grown, NUMBERS).classes == ("x", "y", "z")


def test_what_adopts_is_a_type():
    """Plain estimators and River adopt; what keeps more than one model does not."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    for plain in (lgb(), xgb(), cat(), learners.EarlyStopped(lgb()), LogisticRegression()):
        assert isinstance(as_learner(plain), Adopts)
    assert not isinstance(as_learner(LogisticRegression()), ReadsNative)
    for wrapped in (
        learners.Decayed(lgb()), learners.LeafRefit(xgb()), learners.Calibrated(lgb()), learners.plain.Logistic(),
        learners.SlidingForest(RandomForestClassifier()),
    ):  # fmt: skip
        assert not isinstance(wrapped, Adopts)


def test_a_description_that_leads_out_of_its_folder_is_refused(tmp_path):
    """An MLflow description names a file of its own folder, and nothing else."""
    (tmp_path / "secret.pkl").write_bytes(b"")
    folder = tmp_path / "logged"
    folder.mkdir()
    for text, error, words in (
        ("flavors: {sklearn: {pickled_model: ../secret.pkl}}", FormatError, "not in its folder"),
        ("flavors: {sklearn: {pickled_model: gone.pkl}}", FormatError, "not in its folder"),
        ("flavors: {pytorch: {}}", ConfigError, "its flavors are pytorch"),
        ("nothing", FormatError, "no description of an MLflow model"),
        ("a: [", FormatError, "no description of an MLflow model"),
    ):
        (folder / "MLmodel").write_text(text)
        with pytest.raises(error, match=words):
            opening.read(folder, "logged")
    with pytest.raises(ConfigError, match="holds no MLmodel file"):
        opening.read(tmp_path, "here")


def test_what_cannot_be_opened_is_said(tmp_path):
    """A broken pickle, and a native file of no kind."""
    for name, form in (("model.pkl", "pickle"), ("model.cbm", "catboost"), ("model.ubj", "xgboost")):
        path = tmp_path / name
        path.write_bytes(b"nothing")
        file = opening.read(path, name)
        assert file.form == form
        wanted = {"catboost": cat()}.get(form, xgb())
        with pytest.raises(FormatError, match=r"cannot be opened|no file of"):
            opening.opened(file, as_learner(wanted), Trust(), allow_pickle=True)
