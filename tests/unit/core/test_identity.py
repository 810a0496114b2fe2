"""Identity from content: equal texts mean equal content, and what cannot be told is refused."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from perennial.core.identity import Unhashable, canonical, digest, seed_from


class Colour(Enum):
    """An enum to be told by its name."""

    RED = 1
    BLUE = 2


class Shape(Enum):
    """Another enum with the same names."""

    RED = 1


def double(x: Any) -> Any:
    """Twice as much."""
    return 2 * x


def triple(x: Any) -> Any:
    """Three times as much."""
    return 3 * x


class Scale:
    """Something with a method, whose meaning depends on what the object holds."""

    def __init__(self, by: float) -> None:
        self.by = by

    def apply(self, x: Any) -> Any:
        return self.by * x


def times(by: float) -> Any:
    """A decorator that makes a closure under the name of what it decorates."""

    def decorate(function: Any) -> Any:
        @wraps(function)
        def inner(x: Any) -> Any:
            return by * function(x)

        return inner

    return decorate


#: pairwise different contents, many of them nearly alike
DIFFERENT: list[Any] = [
    None,
    0,
    1,
    True,
    False,
    1.0,
    -0.0,
    float("nan"),
    float("inf"),
    "1",
    "",
    "None",
    b"1",
    [],
    (),
    {},
    set(),
    [1],
    (1,),
    {1},
    [[1]],
    [1, [2]],
    [[1, 2]],
    {"a": 1},
    {"a": 1.0},
    {"a": [1]},
    {"map": []},
    {1: "a"},
    {"1": "a"},
    date(2026, 1, 1),
    datetime(2026, 1, 1),
    datetime(2026, 1, 1, tzinfo=UTC),
    timedelta(days=1),
    Colour.RED,
    Colour.BLUE,
    Shape.RED,
    np.array([1, 2]),
    np.array([1, 2], dtype=np.int32),
    np.array([1.0, 2.0]),
    np.array([[1, 2]]),
    np.array([[1], [2]]),
    np.array([2, 1]),
    np.array([1, "a"], dtype=object),
    np.array([[1], ["a"]], dtype=object),
    np.int32(1),
    np.random.RandomState(0),
    np.random.RandomState(1),
    np.random.default_rng(0),
    np.random.default_rng(1),
    double,
    triple,
    Colour,
    int,
    np.log1p,
    np.log,
    partial(double, 1),
    partial(double, 2),
    partial(double, x=1),
    partial(triple, 1),
    LogisticRegression(),
    LogisticRegression(C=2.0),
    make_pipeline(StandardScaler(), LogisticRegression()),
    make_pipeline(StandardScaler(), LogisticRegression(C=2.0)),
    make_pipeline(StandardScaler(with_mean=False), LogisticRegression()),
    FunctionTransformer(double),
    FunctionTransformer(triple),
]

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def typed(value: Any) -> Any:
    """A key that is equal for equal content and keeps 1, True and 1.0 apart, written another way."""
    if isinstance(value, list):
        return ("list", tuple(typed(v) for v in value))
    if isinstance(value, dict):
        return ("dict", frozenset((k, typed(v)) for k, v in value.items()))
    return (type(value).__name__, repr(value))


def test_different_contents_have_different_texts() -> None:
    """No two different contents share a text, however alike they look."""
    texts = [canonical(value) for value in DIFFERENT]
    clashes = [
        (DIFFERENT[i], DIFFERENT[j])
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if texts[i] == texts[j]
    ]
    assert clashes == []


@settings(max_examples=100, deadline=None)
@given(json_like, json_like)
def test_texts_are_equal_exactly_where_contents_are(one: Any, other: Any) -> None:
    """For plain data, texts are equal if and only if contents are."""
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


def test_equal_contents_have_equal_texts() -> None:
    """Order of dicts and sets, memory layout and object identity are no content."""
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical({3, 1, 2}) == canonical(frozenset([2, 3, 1]))
    matrix = np.arange(6).reshape(2, 3)
    assert canonical(matrix) == canonical(np.asfortranarray(matrix))
    assert canonical(np.arange(6)[::2]) == canonical(np.array([0, 2, 4]))
    assert canonical(np.random.RandomState(3)) == canonical(np.random.RandomState(3))
    assert canonical(make_pipeline(StandardScaler(), LogisticRegression(C=3))) == canonical(
        make_pipeline(StandardScaler(), LogisticRegression(C=3))
    )


def test_an_estimator_is_told_by_its_settings_and_not_by_what_it_learned() -> None:
    """Fitting an estimator that a training would clone does not change its text."""
    fitted = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    assert canonical(fitted) == canonical(LogisticRegression())


def test_a_frozen_estimator_is_told_by_what_it_learned_or_refused() -> None:
    """A fitted part that cloning leaves alone is content: two that learned differently never share a text."""
    frozen = [FrozenEstimator(StandardScaler().fit([[low], [1.0]])) for low in (0.0, 5.0)]
    try:
        texts = [canonical(estimator) for estimator in frozen]
    except Unhashable:
        return
    assert texts[0] != texts[1]


@pytest.mark.parametrize(
    "value",
    [lambda x: x, times(2), object(), Scale(2.0), [lambda x: x], {"f": lambda x: x}, partial(lambda x: x, 1), iter([])],
    ids=["lambda", "closure", "object", "instance", "in a list", "in a dict", "in a partial", "iterator"],
)
def test_what_cannot_be_told_is_refused(value: Any) -> None:
    """A lambda, a local function or an object of unknown content raises Unhashable, also when nested."""
    with pytest.raises(Unhashable):
        canonical(value)


def test_a_lambda_inside_an_estimator_is_refused() -> None:
    """An estimator that holds a lambda cannot be told."""
    with pytest.raises(Unhashable, match="lambda"):
        canonical(make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression()))


def test_a_bound_method_is_told_by_its_object_or_refused() -> None:
    """Two methods of objects that hold different things never share a text."""
    try:
        texts = [canonical(FunctionTransformer(Scale(by).apply)) for by in (2.0, 3.0)]
    except Unhashable:
        return
    assert texts[0] != texts[1]


def test_a_closure_that_wears_another_name_is_told_apart_or_refused() -> None:
    """A decorated function is a closure though it carries a module-level name."""
    try:
        texts = [canonical(times(by)(double)) for by in (2.0, 3.0)]
    except Unhashable:
        return
    assert texts[0] != texts[1]


def _module(path: Path, body: str) -> ModuleType:
    path.write_text(body)
    spec = importlib.util.spec_from_file_location("users_own_features", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["users_own_features"] = module
    spec.loader.exec_module(module)
    return module


def test_a_users_edited_function_is_another_function(tmp_path: Path) -> None:
    """A cache on disk outlives an edit: a function of a user's own module is told by what it does, too."""
    try:
        before = canonical(_module(tmp_path / "a.py", "def build(x):\n    return x + 1\n").build)
        after = canonical(_module(tmp_path / "b.py", "def build(x):\n    return x + 2\n").build)
    finally:
        del sys.modules["users_own_features"]
    assert before != after


@pytest.mark.parametrize(
    "value",
    [np.longdouble(1), np.array("word", dtype=object), np.array(None, dtype=object)],
    ids=["long", "0-d", "none"],
)
def test_odd_numpy_values_have_a_text_or_are_refused(value: Any) -> None:
    """No numpy value ends in anything but a text or Unhashable."""
    with contextlib.suppress(Unhashable):
        assert canonical(value) == canonical(value)


def test_a_mask_is_content() -> None:
    """Two masked arrays that hide different values never share a text."""
    arrays = [np.ma.MaskedArray([1, 2], mask=mask) for mask in ([True, False], [False, True])]
    try:
        texts = [canonical(array) for array in arrays]
    except Unhashable:
        return
    assert texts[0] != texts[1]


def test_digest_tells_where_a_part_ends() -> None:
    """No two lists of parts collide because their bytes run together."""
    lists = [(), ("",), ("", ""), ("ab",), ("a", "b"), ("b", "a"), ("a", "", "b"), ("", "ab")]
    assert len({digest(*parts) for parts in lists}) == len(lists)


def test_digest_takes_text_bytes_and_views_alike() -> None:
    """Text counts as its UTF-8 bytes, and a view as what it shows."""
    assert digest("é") == digest("é".encode()) == digest(memoryview("é".encode()))
    numbers = np.array([1.0, 2.0])
    assert digest(memoryview(numbers)) == digest(numbers.tobytes())


@given(st.lists(st.text(max_size=5), max_size=3))
@settings(max_examples=30, deadline=None)
def test_a_seed_is_repeatable_and_in_range(parts: list[str]) -> None:
    """A seed follows from its parts and fits in 31 bits, which every framework takes."""
    seed = seed_from(*parts)
    assert seed == seed_from(*parts)
    assert 0 <= seed < 2**31
    assert seed != seed_from(*parts, "more")
