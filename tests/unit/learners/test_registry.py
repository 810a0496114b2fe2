"""What a user hands in, and which learner comes of it."""

import subprocess
import sys
import types
from importlib.metadata import EntryPoint

import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline

from perennial import learners
from perennial.core.errors import ConfigError, MissingExtra
from perennial.core.protocols import Updatable
from perennial.learners import as_learner, factory


@pytest.fixture
def users_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An importable module of the user's, empty so far."""
    module = types.ModuleType("users_models")
    monkeypatch.setitem(sys.modules, "users_models", module)
    return module


def test_choosing_imports_no_framework() -> None:
    """Importing learners, and making nothing, loads no framework."""
    code = (
        "import sys, perennial.learners as l; l.as_learner, l.Decayed, l.SlidingForest, l.Calibrated, l.FineTuned;"
        "print([m for m in ('sklearn', 'lightgbm', 'xgboost', 'catboost', 'river', 'torch', 'pandas', 'pyarrow')"
        " if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_learner_is_given_back() -> None:
    """A learner is its own learner."""
    learner = as_learner(SGDClassifier())
    assert as_learner(learner) is learner


def test_the_most_derived_framework_wins() -> None:
    """An estimator that inherits from scikit-learn belongs to its own framework."""
    pytest.importorskip("xgboost")
    from xgboost import XGBClassifier

    home = factory.FRAMEWORKS["xgboost"]
    pytest.importorskip(home)
    assert factory._home(XGBClassifier()).__name__ == home
    assert factory._home(make_pipeline(XGBClassifier())).__name__ == factory.FRAMEWORKS["sklearn"]


def test_a_users_subclass_is_its_bases() -> None:
    """A class of the user's own goes by the framework that it extends."""

    class Mine(LogisticRegression):  # type: ignore[misc]
        pass

    assert as_learner(Mine()).name == "Mine"


def test_a_path_of_a_class_takes_params() -> None:
    """The path of a class is instantiated, with parameters from beside it."""
    learner = as_learner("sklearn.ensemble.RandomForestClassifier", params={"n_estimators": 3})
    assert learner.identity() == as_learner(RandomForestClassifier(3)).identity()
    written = {"estimator": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 3}}
    assert as_learner(written).identity() == learner.identity()


def test_a_factory_is_called(users_module: types.ModuleType) -> None:
    """``package.module:factory`` is called, and what it gives is wrapped unless it is a learner already."""
    ready = as_learner(SGDClassifier())
    users_module.estimator = lambda alpha=1.0: SGDClassifier(alpha=alpha)  # type: ignore[attr-defined]
    users_module.learner = lambda: ready  # type: ignore[attr-defined]
    assert as_learner("users_models:estimator").identity() == as_learner(SGDClassifier(alpha=1.0)).identity()
    tuned = as_learner("users_models:estimator", params={"alpha": 0.1})
    assert tuned.identity() == as_learner(SGDClassifier(alpha=0.1)).identity()
    assert as_learner("users_models:learner") is ready


def test_an_update_can_be_written_as_a_path() -> None:
    """The configuration can name our own learners, with a path as their estimator."""
    learner = as_learner(
        "perennial.learners.SlidingForest", params={"estimator": "sklearn.ensemble.ExtraTreesClassifier", "trees": 3}
    )
    assert learner.name == "SlidingForest(ExtraTreesClassifier)"
    assert isinstance(learner, Updatable)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (object(), "builtins.object.*catboost, lightgbm, river, sklearn, torch, xgboost"),
        (RandomForestClassifier, r"RandomForestClassifier\(\)"),
        ("forest", "lightgbm.LGBMClassifier or package.module:factory"),
        ("sklearn.ensemble.RandomForestClasifier", "did you mean `RandomForestClassifier`"),
        ("no_such_package.models:build", "no module 'no_such_package'"),
        ("sklearn.no_such_part:build", "no module 'sklearn.no_such_part'"),
        ({"estimater": "x.y"}, "did you mean `estimator`"),
        ({"params": {}}, "say which"),
    ],
)
def test_what_leads_nowhere_is_refused(model: object, says: str) -> None:
    """An error names what was given, and what would do."""
    with pytest.raises(ConfigError, match=says):
        as_learner(model)


def test_wrong_params_are_refused() -> None:
    """Parameters that a class does not have, or for an object that is made already, are refused."""
    with pytest.raises(ConfigError, match="trees"):
        as_learner("sklearn.ensemble.RandomForestClassifier", params={"trees": 3})
    with pytest.raises(ConfigError, match="set them on the SGDClassifier itself"):
        as_learner(SGDClassifier(), params={"alpha": 1.0})


def test_a_missing_framework_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework that is not installed says what to install."""
    monkeypatch.setitem(sys.modules, "catboost", None)
    monkeypatch.delitem(sys.modules, "catboost.core", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'perennial\[catboost\]'"):
        as_learner("catboost.CatBoostClassifier")


def test_a_broken_module_of_the_users_keeps_its_own_trace(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the user's module is found and imports something that is not there, that is the error."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "users_broken.py").write_text("import something_that_is_not_there\n")  # type: ignore[operator]
    with pytest.raises(ModuleNotFoundError, match="something_that_is_not_there"):
        as_learner("users_broken:build")


def test_boosted_updates_want_boosted_trees() -> None:
    """Decayed boosting of a forest is refused, with what it is for."""
    for make in (learners.Decayed, learners.LeafRefit, learners.Continued, learners.EarlyStopped):
        with pytest.raises(ConfigError, match="lightgbm, xgboost or catboost"):
            make(RandomForestClassifier())


def test_other_packages_register_by_entry_point(
    users_module: types.ModuleType, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """An entry point named after a framework's top-level module brings that framework's learners."""

    class Foreign:
        __module__ = "foreignml.models"

    ready = as_learner(SGDClassifier())
    users_module.wrap = lambda model: ready  # type: ignore[attr-defined]
    point = EntryPoint(name="foreignml", value="users_models", group="perennial.learners")
    monkeypatch.setattr(factory, "entry_points", lambda group: [point] if group == "perennial.learners" else [])
    request.addfinalizer(factory._others.cache_clear)
    factory._others.cache_clear()
    assert as_learner(Foreign()) is ready
