"""What every window keeps to: a new window is one line in ``WINDOWS``."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import UTC, datetime

import numpy as np
import pytest

from perennial.core.identity import canonical
from perennial.core.protocols import Cut, Keep, Selection, Window
from perennial.windows import Decayed, Expanding, Mix, Sliding, Tumbling, __all__

WINDOWS: list[Window] = [
    Sliding("5us"),
    Sliding(rows=4),
    Sliding("5us", purge="2us", embargo="1us"),
    Sliding(rows=4, purge="2us", embargo="1us"),
    Expanding(),
    Expanding(purge="3us"),
    Tumbling("4us"),
    Tumbling(rows=3),
    Tumbling("4us", origin=datetime(2026, 1, 1, tzinfo=UTC), embargo="1us"),
    Decayed("2us", floor=0.1),
    Decayed(rows=2, floor=0.1, purge="1us"),
    Mix(initial=0.3, recent=0.7, rows=6),
    Mix(past=0.5, recent=0.5, rows=6, embargo="1us"),
    Mix(initial=0.5, recent=0.5, share_of="source"),
]

windows = pytest.mark.parametrize("window", WINDOWS, ids=str)


def cut(n: int = 20, *, known: int = 18, label_delay: int = 2, initial: int = 5) -> Cut:
    """Rows a microsecond apart, the first ``known`` of them labelled, at the instant of the last."""
    rows = np.random.default_rng(0).integers(0, 256, (n, 16), dtype=np.uint8)
    return Cut(
        now=n - 1,
        position=np.arange(known),
        time=np.arange(known),
        rows=rows[:known],
        initial=initial,
        label_delay=label_delay,
        seed=7,
    )


def test_every_window_is_here() -> None:
    """The list holds each public window."""
    assert {type(w).__name__ for w in WINDOWS} == set(__all__)


@windows
def test_a_selection_is_ascending_indices_into_the_cut(window: Window) -> None:
    """Indices are whole, in range, ascending, and none is there twice; weights, if any, are in (0, 1], one for each."""
    chosen = window.select(cut())
    assert isinstance(chosen, Selection)
    assert chosen.index.dtype == np.int64
    assert len(chosen.index) > 0
    assert chosen.index.min() >= 0
    assert chosen.index.max() < 18
    assert (np.diff(chosen.index) > 0).all()
    if chosen.weights is not None:
        assert chosen.weights.dtype == np.float64
        assert chosen.weights.shape == chosen.index.shape
        assert (chosen.weights > 0).all()
        assert (chosen.weights <= 1).all()


@windows
@pytest.mark.parametrize("known", [0, 1])
def test_hardly_any_examples_are_no_error(window: Window, known: int) -> None:
    """A window over nothing, or over one example, selects at most that."""
    chosen = window.select(cut(known=known))
    assert len(chosen.index) <= known
    assert chosen.weights is None or len(chosen.weights) == len(chosen.index)


@windows
def test_a_selection_is_pure(window: Window) -> None:
    """The same cut gives the same examples, and neither cut nor window is changed."""
    one = cut()
    before, words = copy.deepcopy(one), canonical(dataclasses.asdict(window))  # type: ignore[call-overload]
    first, second = window.select(one), window.select(one)
    np.testing.assert_array_equal(first.index, second.index)
    for field in ("position", "time", "rows"):
        np.testing.assert_array_equal(getattr(one, field), getattr(before, field))
    assert canonical(dataclasses.asdict(window)) == words  # type: ignore[call-overload]


@windows
def test_a_selection_does_not_see_the_clock_of_the_stream(window: Window) -> None:
    """Rows whose labels come later, and rows that come later, change nothing."""
    now = window.select(cut(n=20, known=10))
    with_future = cut(n=20, known=18)
    past = with_future.time < 10
    again = window.select(
        dataclasses.replace(
            with_future, position=with_future.position[past], time=with_future.time[past], rows=with_future.rows[past]
        )
    )
    np.testing.assert_array_equal(now.index, again.index)


@windows
def test_a_window_says_what_must_be_kept(window: Window) -> None:
    """`keep` is a record, and asks for something."""
    keep = window.keep(19, 2)
    assert isinstance(keep, Keep)
    assert keep != Keep()


@windows
def test_a_window_is_a_frozen_value(window: Window) -> None:
    """A window cannot change, equals its copy, crosses processes, and has words."""
    assert dataclasses.is_dataclass(window)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        window.purge = None  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(window))
    assert again == window
    assert hash(again) == hash(window)
    assert str(again) == str(window) != ""
    assert "perennial" not in str(window)
    assert type(window).__doc__


def test_different_windows_have_different_words() -> None:
    """A report tells any two windows apart by their words."""
    assert len({str(w) for w in WINDOWS}) == len(WINDOWS)
