"""Windows: what they choose on a stream one can count by hand, what they refuse, and how they are told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from perennial.core.errors import ConfigError
from perennial.core.protocols import Cut, Keep, Window
from perennial.core.times import instant, micros
from perennial.windows import Decayed, Expanding, Mix, Sliding, Tumbling

DAY = micros(timedelta(days=1))
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


def cut(days: int = 28, *, label_delay: int = 0, initial: int = 7) -> Cut:
    """One row at noon of each of ``days`` days from a Monday on, asked at midnight after the last."""
    time = instant(MONDAY) + DAY // 2 + np.arange(days) * DAY
    now = instant(MONDAY) + days * DAY
    known = time + label_delay <= now
    return Cut(
        now=now,
        position=np.flatnonzero(known),
        time=time[known],
        rows=np.random.default_rng(1).integers(0, 256, (days, 16), dtype=np.uint8)[known],
        initial=initial,
        label_delay=label_delay,
        seed=0,
    )


def chosen(window: Window, *, days: int = 28, delay: int = 0) -> list[int]:
    """Days that a window chooses."""
    at = cut(days, label_delay=delay * DAY)
    return at.position[window.select(at).index].tolist()


@pytest.mark.parametrize(
    ("window", "delay", "days"),
    [
        (Sliding("7d"), 0, range(21, 28)),
        (Sliding("7d"), 2, range(19, 26)),
        (Sliding("7d", purge="5d"), 0, range(16, 23)),
        (Sliding("7d", purge="5d"), 2, range(16, 23)),
        (Sliding("7d", purge="2d"), 5, range(16, 23)),
        (Sliding("7d", embargo="1d"), 2, range(18, 25)),
        (Sliding("36h"), 0, range(26, 28)),
        (Sliding(rows=7), 0, range(21, 28)),
        (Sliding(rows=7), 2, range(19, 26)),
        (Sliding(rows=7, purge="5d"), 0, range(16, 23)),
        (Sliding(rows=99), 0, range(28)),
        (Expanding(), 0, range(28)),
        (Expanding(), 2, range(26)),
        (Expanding(purge="5d", embargo="1d"), 0, range(22)),
        (Tumbling("7d"), 0, range(21, 28)),
        (Tumbling("7d"), 1, range(14, 21)),
        (Tumbling("7d", origin=datetime(2026, 1, 1, tzinfo=UTC)), 0, range(17, 24)),
        (Tumbling("7d", embargo="1d"), 0, range(14, 21)),
        (Tumbling(rows=10), 0, range(10, 20)),
        (Tumbling(rows=10), 10, range(10)),
        (Tumbling(rows=99), 0, range(0)),
        (Decayed("1d", floor=0.126), 0, range(25, 28)),
        (Decayed("1d", floor=0.125), 2, range(23, 26)),
        (Mix(initial=0.0, recent=1.0, rows=5), 0, range(23, 28)),
        (Mix(initial=1.0, recent=0.0, rows=7), 0, range(7)),
        (Mix(past=0.5, recent=0.5, rows=56), 0, range(28)),
        (Mix(initial=1.0, recent=1.0, share_of="source"), 0, range(28)),
        (Mix(initial=0.0, recent=0.5, share_of="source"), 0, range(18, 28)),  # 10 of 21
    ],
    ids=str,
)
def test_a_window_chooses_the_days_it_should(window: Window, delay: int, days: Any) -> None:
    """Counted by hand on one row a day."""
    assert chosen(window, delay=delay) == list(days)


def test_the_worked_example_of_the_issue() -> None:
    """30 % of the set are initial rows and 70 % are the newest."""
    days = chosen(Mix(initial=0.3, recent=0.7, rows=10))
    assert days[3:] == list(range(21, 28))
    assert len(set(days[:3])) == 3
    assert max(days[:3]) < 7


def test_the_third_reading_keeps_thirty_percent() -> None:
    """A sliding window moved by 70 % of its span keeps 30 % of the former one."""
    before, after = set(chosen(Sliding("10d"), days=20)), set(chosen(Sliding("10d"), days=27))
    assert len(before & after) == 3


def test_the_recent_share_may_reach_into_the_initial_data() -> None:
    """Early on, recent rows are initial ones too: none is there twice, and all there are are used."""
    assert chosen(Mix(initial=0.3, recent=0.7, rows=10), days=8) == list(range(8))


def test_decayed_weights_and_sample_size() -> None:
    """Weights halve with age; their sum is 1.44 half-lives and the Kish size 2.9 half-lives, as the docstring says."""
    selection = Decayed(rows=100, floor=1e-6).select(cut(3000))
    weights = selection.weights
    assert weights is not None
    assert weights[-1] == 1
    assert weights[-101] == pytest.approx(0.5)
    assert weights.sum() == pytest.approx(144, rel=0.01)
    assert weights.sum() ** 2 / (weights**2).sum() == pytest.approx(289, rel=0.01)


def test_weights_in_time_count_from_the_end_of_the_window() -> None:
    """The row at noon is half a day old at midnight."""
    weights = Decayed("1d").select(cut()).weights
    assert weights is not None
    np.testing.assert_allclose(weights[-3:], 2.0 ** np.array([-2.5, -1.5, -0.5]))


def test_what_must_be_kept() -> None:
    """Each window asks for what it may still use, and no more."""
    now, zero = cut().now, instant(MONDAY)
    assert Sliding("7d").keep(now, 2 * DAY) == Keep(since=zero + 19 * DAY)
    assert Sliding("7d", purge="5d", embargo="1d").keep(now, 2 * DAY) == Keep(since=zero + 15 * DAY)
    assert Sliding(rows=7, purge="5d").keep(now, 0) == Keep(rows=7, until=now - 5 * DAY)
    assert Expanding().keep(now, 0) == Keep(everything=True)
    assert Tumbling("7d").keep(now, DAY) == Keep(since=zero + 14 * DAY)
    assert Decayed("1d", floor=0.25).keep(now, 0) == Keep(since=now - 2 * DAY)
    assert Mix(initial=0.3, recent=0.7, rows=10).keep(now, 0) == Keep(rows=7, until=now, initial=True)
    assert Mix(past=0.3, recent=0.7, rows=10).keep(now, 0) == Keep(everything=True)


WRONG: list[tuple[str, Callable[[], object]]] = [
    ("span", lambda: Sliding()),
    ("span", lambda: Sliding("7d", rows=5)),
    ("span", lambda: Sliding("0d")),
    ("span", lambda: Sliding(timedelta(days=-1))),
    ("span", lambda: Sliding("7 days")),
    ("rows", lambda: Sliding(rows=0)),
    ("rows", lambda: Sliding(rows=True)),
    ("rows", lambda: Sliding(rows=2.5)),  # type: ignore[arg-type]
    ("purge", lambda: Sliding("7d", purge="x")),
    ("embargo", lambda: Sliding("7d", embargo=timedelta(-1))),
    ("purge", lambda: Expanding(purge="x")),
    ("span", lambda: Tumbling()),
    ("span", lambda: Tumbling("7d", rows=5)),
    ("rows", lambda: Tumbling(rows=-1)),
    ("origin", lambda: Tumbling("7d", origin=datetime(2026, 1, 1))),
    ("origin", lambda: Tumbling("7d", origin="2026-01-01")),  # type: ignore[arg-type]
    ("half_life", lambda: Decayed("0d")),
    ("half_life", lambda: Decayed()),
    ("half_life", lambda: Decayed("1d", rows=4)),
    ("rows", lambda: Decayed(rows=0)),
    ("floor", lambda: Decayed("1d", floor=0)),
    ("floor", lambda: Decayed("1d", floor=1)),
    ("floor", lambda: Decayed("1d", floor=float("nan"))),
    ("floor", lambda: Decayed("1d", floor="0.1")),  # type: ignore[arg-type]
    ("initial", lambda: Mix(recent=1.0, rows=5)),
    ("initial", lambda: Mix(initial=0.3, past=0.3, recent=0.4, rows=5)),
    ("initial", lambda: Mix(initial=1.3, recent=-0.3, rows=5)),
    ("initial", lambda: Mix(initial=float("nan"), recent=0.5, rows=5)),
    ("initial", lambda: Mix(initial="0.3", recent=0.7, rows=5)),  # type: ignore[arg-type]
    ("recent", lambda: Mix(initial=0.3, recent=70, rows=5)),
    ("mix", lambda: Mix(initial=0.3, recent=0.6, rows=5)),
    ("mix", lambda: Mix(past=0.5, recent=0.6, rows=5)),
    ("rows", lambda: Mix(initial=0.3, recent=0.7)),
    ("rows", lambda: Mix(initial=0.3, recent=0.7, rows=0)),
    ("rows", lambda: Mix(initial=0.3, recent=0.7, rows=5, share_of="source")),
    ("past", lambda: Mix(past=0.3, recent=0.7, share_of="source")),
    ("share_of", lambda: Mix(initial=0.3, recent=0.7, rows=5, share_of="sets")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("field", "make"), WRONG, ids=[f"{i}-{f}" for i, (f, _) in enumerate(WRONG)])
def test_a_wrong_setting_is_refused_by_name(field: str, make: Callable[[], object]) -> None:
    """A window is checked when made, and the error names the setting that the user wrote."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


def test_shares_may_sum_to_one_as_floats_do() -> None:
    """0.1 + 0.9 and thirds are no error."""
    assert Mix(initial=0.1, recent=0.9, rows=5).rows == 5
    assert Mix(past=1 / 3, recent=2 / 3, rows=5).past == 1 / 3
    with pytest.raises(ConfigError, match=r"0\.3 \+ 0\.6"):
        Mix(initial=0.3, recent=0.6, rows=5)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        (Sliding("180d"), "the last 180d"),
        (Sliding(rows=2000, purge="5d", embargo="12h"), "the last 2,000 rows (purge 5d, embargo 12h)"),
        (Expanding(), "all data so far"),
        (Tumbling("1w"), "the last whole period of 7d"),
        (Decayed(rows=500), "weights halved every 500 rows"),
        (Mix(initial=0.3, recent=0.7, share_of="source"), "each source: 30% initial, 70% recent"),
        (Mix(past=0.5, recent=0.5, rows=20_000), "20,000 rows: 50% past, 50% recent"),
    ],
)
def test_a_window_is_told_in_a_few_words(window: Window, words: str) -> None:
    """The words of a report."""
    assert str(window) == words
