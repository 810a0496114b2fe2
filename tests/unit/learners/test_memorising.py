"""Which models hold rows."""

from __future__ import annotations

from importlib import import_module

import pytest

from perennial.core.protocols import Memorises
from perennial.learners import Calibrated, as_learner
from perennial.learners.memorising import _BY_DEFAULT, _HOLDING, memorises


@pytest.mark.parametrize("path", [*_HOLDING, *_BY_DEFAULT])
def test_every_class_is_where_it_is_said_to_be(path):
    """A library that moves one must not make it pass unseen."""
    module, name = path.rsplit(".", 1)
    found = getattr(import_module(module), name)
    assert f"{found.__module__}.{found.__qualname__}" == path


def _sklearn():
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import VotingClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, StandardScaler
    from sklearn.svm import SVC, LinearSVC

    sgd = SGDClassifier(loss="log_loss")
    return {
        "scaled": (make_pipeline(StandardScaler(), sgd), None),
        "linear": (LinearSVC(), None),
        "kernel": (SVC(), "SVC holds its support vectors"),
        "prose": (make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), sgd), "TfidfVectorizer holds"),
        "ranks": (make_pipeline(QuantileTransformer(), sgd), "QuantileTransformer holds values"),
        "vote": (VotingClassifier([("a", sgd), ("b", make_pipeline(SVC()))]), "SVC holds"),
    }


@pytest.mark.parametrize("name", ["scaled", "linear", "kernel", "prose", "ranks", "vote"])
def test_parts_of_scikit_learn(name):
    """However deep in a pipeline or an ensemble it sits."""
    model, expected = _sklearn()[name]
    assert memorises(model) is None if expected is None else str(memorises(model)).startswith(expected)


def test_parts_of_river():
    """Trees are refused by what their leaves keep."""
    from river import forest, linear_model, neighbors, preprocessing, tree
    from river.tree.splitter import QOSplitter

    assert memorises(preprocessing.StandardScaler() | linear_model.LogisticRegression()) is None
    assert memorises(tree.HoeffdingTreeClassifier()) is None
    assert "KNNClassifier" in str(memorises(preprocessing.StandardScaler() | neighbors.KNNClassifier()))
    assert "QOSplitter" in str(memorises(tree.HoeffdingTreeRegressor()))
    assert memorises(tree.HoeffdingTreeRegressor(splitter=QOSplitter())) is None
    assert "QOSplitter" in str(memorises(forest.ARFRegressor()))
    assert "leaves" in str(memorises(forest.AMFClassifier()))


def test_learners_say_it_of_what_is_inside():
    """Wrappers too; an untrained classifier of scikit-learn holds rows for a while, a fitted one does not."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.svm import SVC

    held = as_learner(Calibrated(SVC(probability=True)))
    assert isinstance(held, Memorises)
    assert "SVC" in str(held.memorises(untrained=False))
    updated = as_learner(SGDClassifier(loss="log_loss"))
    assert isinstance(updated, Memorises)
    assert updated.memorises(untrained=False) is None
    assert "second class" in str(updated.memorises(untrained=True))
