"""The way in: what `import perennial` offers, documents and loads."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import perennial

HEAVY = (
    "pyarrow", "pandas", "polars", "sklearn", "scipy", "lightgbm", "xgboost", "catboost", "river", "torch", "pydantic",
    "yaml", "typer", "rich", "jinja2", "loky", "joblib", "filelock", "threadpoolctl",
    "sqlalchemy", "alembic", "fsspec", "skops", "prometheus_client",
)  # fmt: skip


@pytest.mark.parametrize("name", perennial.__all__)
def test_a_public_name_can_be_imported_and_is_documented(name: str) -> None:
    """Each name of `__all__` is there and says what it is; a package's own public names do too."""
    value = getattr(perennial, name)
    assert inspect.getdoc(value)
    if isinstance(value, ModuleType):
        assert value.__all__, f"perennial.{name} has no __all__"
        for inner in value.__all__:
            assert inspect.getdoc(getattr(value, inner)), f"perennial.{name}.{inner} has no docstring"


def test_the_way_in_is_short_and_in_order() -> None:
    """Few names, sorted, none twice, and `dir` shows them."""
    assert perennial.__all__ == sorted(set(perennial.__all__))
    assert len(perennial.__all__) <= 20
    assert set(perennial.__all__) <= set(dir(perennial))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """A typo is an error and never None."""
    with pytest.raises(AttributeError, match="no attribute 'bactest'"):
        _ = perennial.bactest
    assert not hasattr(perennial, "_bactest")


@pytest.mark.parametrize("package", ["windows", "triggers", "strategies"])
def test_public_methods_are_documented(package: str) -> None:
    """Every public class of windows, triggers and strategies documents its public methods and properties."""
    module = import_module(f"perennial.{package}")
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, type):
            for method, what in vars(value).items():
                if not method.startswith("_") and (callable(what) or isinstance(what, property)):
                    assert inspect.getdoc(what), f"{package}.{name}.{method}"


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after ``code``."""
    show = "import sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    said = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return set(said.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import perennial",
        "import perennial.windows, perennial.triggers, perennial.strategies",
        "import perennial as pn\npn.windows.Sliding('7d'); pn.triggers.every('1d')\n"
        "pn.strategies.Stateless(None, initial='60d', trigger=pn.triggers.every('7d'))",
        "import perennial.metrics, perennial.learners",
    ],
    ids=["perennial", "policies", "used", "metrics and learners"],
)
def test_importing_loads_numpy_at_most(code: str) -> None:
    """No framework and no Arrow is loaded before it is needed."""
    assert loaded_by(code).isdisjoint(HEAVY)


def test_the_package_is_typed_and_versioned() -> None:
    """Type checkers see the annotations, and the version is that of the distribution."""
    from importlib.metadata import version
    from pathlib import Path

    assert Path(perennial.__file__).with_name("py.typed").exists()
    assert perennial.__version__ == version("perennial")


def test_errors_are_the_same_wherever_they_are_taken_from() -> None:
    """The face shows the errors of the one tree, which cross processes."""
    from perennial.core import errors

    for name in ("ConfigError", "DataError", "FormatError", "LearnerError", "LedgerError", "MissingExtra"):
        assert getattr(perennial, name) is getattr(errors, name)
    assert isinstance(pickle.loads(pickle.dumps(perennial.DataError("x"))), perennial.PerennialError)
