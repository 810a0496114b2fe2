"""The tree of errors."""

from __future__ import annotations

import pickle

import pytest

from perennial.core import errors
from perennial.core.errors import ConfigError, DataError, MissingExtra, PerennialError, nearest

TREE = {
    "ConfigError": ValueError,
    "DataError": ValueError,
    "LearnerError": RuntimeError,
    "LedgerError": RuntimeError,
    "FormatError": ValueError,
    "MissingExtra": ImportError,
}


@pytest.mark.parametrize(("name", "kin"), TREE.items())
def test_every_error_has_its_place_and_its_builtin_kin(name: str, kin: type[Exception]) -> None:
    """Callers may catch the tree or the builtin, and the drawing at the top of the module names each error."""
    error = getattr(errors, name)
    assert issubclass(error, PerennialError)
    assert issubclass(error, kin)
    assert f"{name} " in (errors.__doc__ or "")


def test_the_tree_is_whole() -> None:
    """No error is missing from the tree above."""
    assert {e.__name__ for e in PerennialError.__subclasses__()} >= set(TREE)
    assert {n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, PerennialError)} == {
        "PerennialError",
        *TREE,
    }


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("rows", 0, "give a positive whole number of rows"),
        DataError("column 'x' is missing"),
        MissingExtra("lightgbm", "learners.Decayed"),
    ],
)
def test_errors_cross_processes(error: PerennialError) -> None:
    """An error that was pickled is the same error: type, message and facts."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_an_error_about_an_unpicklable_value_crosses_processes_too() -> None:
    """The value that was refused may be a lambda; the message must still arrive."""
    error = ConfigError("model", lambda: 0, "give an estimator")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_config_error_holds_its_facts() -> None:
    """The message holds field, value and rule, and each rides as an attribute."""
    error = ConfigError("rows", 0, "give more")
    assert str(error) == "rows=0: give more"
    assert (error.field, error.got, error.need) == ("rows", 0, "give more")


def test_a_missing_extra_says_what_to_install() -> None:
    """The message is the command."""
    assert "pip install 'perennial[river]'" in str(MissingExtra("river", "learners.River"))


def test_nearest_suggests_the_near_and_lists_the_rest() -> None:
    """One near word is suggested; where none is near, all are listed in order."""
    assert nearest("slidng", ["tumbling", "sliding"]) == "did you mean `sliding`?"
    assert nearest("zzz", ["b", "a"]) == "use one of: a, b"
