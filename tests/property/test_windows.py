"""Windows over any stream: none holds the future, and what `keep` lets go is never missed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perennial.core.protocols import Cut, Keep, Window
from perennial.core.times import EPOCH
from perennial.windows import Decayed, Expanding, Mix, Sliding, Tumbling

QUICK = settings(max_examples=60, deadline=None)
LABEL_DELAY = 3  # microseconds, as all times here
INITIAL = 6


@dataclass(frozen=True)
class Stream:
    """Rows in order of arrival: when they happened, when their labels become known, and what they hold."""

    time: NDArray[np.int64]
    known_at: NDArray[np.int64]
    rows: NDArray[np.uint8]
    offset: int = 0  # position of the first row, less 0

    def cut(self, now: int, held: NDArray[np.bool_] | None = None, seed: int = 1) -> Cut:
        """What is known at ``now`` of the rows that arrived by then and are still held."""
        there = (self.known_at <= now) & (self.time <= now)
        index = np.flatnonzero(there if held is None else there & held)
        return Cut(
            now=now,
            position=index + self.offset,
            time=self.time[index],
            rows=self.rows[index],
            initial=INITIAL + self.offset,
            label_delay=LABEL_DELAY,
            seed=seed,
        )

    def chosen(self, window: Window, cut: Cut) -> list[int]:
        """Row numbers that a window selects."""
        return [int(p) - self.offset for p in cut.position[window.select(cut).index]]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """A short stream with ties, gaps, late rows, labels of any delay from the least on, and rows of equal content."""
    n = draw(st.integers(1, 24))
    gaps = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    time = np.cumsum(gaps)
    late = draw(st.lists(st.sampled_from([0, 0, 0, 0, 2, 7]), min_size=n, max_size=n))
    time = np.maximum(time - late, 0)
    extra = draw(st.lists(st.sampled_from([0, 0, 0, 1, 5, 20]), min_size=n, max_size=n))
    content = draw(st.lists(st.integers(0, 30), min_size=n, max_size=n))
    table = np.random.default_rng(5).integers(0, 256, (31, 16), dtype=np.uint8)
    return Stream(time.astype(np.int64), (time + LABEL_DELAY + extra).astype(np.int64), table[content])


def us(low: int, high: int) -> st.SearchStrategy[timedelta]:
    """A duration of some microseconds."""
    return st.integers(low, high).map(lambda n: timedelta(microseconds=n))


guards = st.fixed_dictionaries({"purge": us(0, 5), "embargo": us(0, 3)})
shares = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0])
spans = us(1, 12)
counts = st.integers(1, 9)
by_time = st.one_of(
    st.builds(lambda span, guard: Sliding(span, **guard), spans, guards),
    st.builds(lambda span, guard, zero: Tumbling(span, origin=EPOCH + zero, **guard), spans, guards, us(0, 5)),
    st.builds(lambda life, guard: Decayed(life, floor=0.1, **guard), us(1, 4), guards),
)
by_rows = st.one_of(
    st.builds(lambda rows, guard: Sliding(rows=rows, **guard), counts, guards),
    st.builds(lambda rows, guard: Tumbling(rows=rows, **guard), counts, guards),
    st.builds(lambda rows, guard: Decayed(rows=rows, floor=0.3, **guard), counts, guards),
    st.builds(lambda guard: Expanding(**guard), guards),
    st.builds(lambda old, rows, guard: Mix(initial=old, recent=1 - old, rows=rows, **guard), shares, counts, guards),
    st.builds(lambda old, rows, guard: Mix(past=old, recent=1 - old, rows=rows, **guard), shares, counts, guards),
    st.builds(lambda old, new, guard: Mix(initial=old, recent=new, share_of="source", **guard), shares, shares, guards),
)
every_window = st.one_of(by_time, by_rows)


def micro(span: timedelta) -> int:
    """Whole microseconds."""
    return span // timedelta(microseconds=1)


def end(window: Window, now: int) -> int:
    """The exclusive end of a window in time, from the words of its documentation."""
    return now - max(LABEL_DELAY, micro(window.purge)) - micro(window.embargo)  # type: ignore[attr-defined]


@QUICK
@given(streams(), by_time, st.integers(0, 90))
def test_no_window_in_time_holds_anything_at_or_after_its_end(stream: Stream, window: Window, now: int) -> None:
    """Every chosen example happened before the cut less delay, purge and embargo, and its label was known."""
    for row in stream.chosen(window, stream.cut(now)):
        assert stream.time[row] < end(window, now)
        assert stream.known_at[row] <= now


@QUICK
@given(streams(), by_rows, st.integers(0, 90))
def test_no_window_in_rows_holds_a_label_that_looks_past_the_cut(stream: Stream, window: Window, now: int) -> None:
    """Every chosen example's label interval closed by the cut less the embargo, and its label was known."""
    for row in stream.chosen(window, stream.cut(now)):
        guard = micro(window.purge) + micro(window.embargo)  # type: ignore[attr-defined]
        assert stream.time[row] + guard <= now
        assert stream.known_at[row] <= now


@QUICK
@given(streams(), every_window, st.integers(0, 90), st.integers(0, 2**31))
def test_the_future_cannot_be_seen(stream: Stream, window: Window, now: int, seed: int) -> None:
    """Whatever is not known at the cut may be anything else: the selection is the same."""
    poison = np.random.default_rng(seed)
    unknown = (stream.known_at > now) | (stream.time > now)
    other = Stream(
        stream.time,
        np.where(unknown, now + 1 + poison.integers(0, 9, len(unknown)), stream.known_at),
        np.where(unknown[:, None], poison.integers(0, 256, stream.rows.shape, dtype=np.uint8), stream.rows),
    )
    assert stream.chosen(window, stream.cut(now)) == other.chosen(window, other.cut(now))


@QUICK
@given(streams(), spans, guards, st.integers(0, 90))
def test_a_sliding_window_is_half_open_and_misses_nothing(
    stream: Stream, span: timedelta, guard: dict[str, timedelta], now: int
) -> None:
    """It holds exactly the known examples with start <= t < end."""
    window = Sliding(span, **guard)
    stop = end(window, now)
    cut = stream.cut(now)
    expected = [int(p) for p, t in zip(cut.position, cut.time, strict=True) if stop - micro(span) <= t < stop]
    assert stream.chosen(window, cut) == expected


@QUICK
@given(st.integers(1, 12), st.integers(20, 60))
def test_sliding_in_time_by_one_adds_and_drops_one(span: int, now: int) -> None:
    """On rows a microsecond apart, a step of one adds the example at the old end and drops the one at the old start."""
    time = np.arange(100)
    stream = Stream(time, time + LABEL_DELAY, np.zeros((100, 16), np.uint8))
    window = Sliding(timedelta(microseconds=span))
    before = set(stream.chosen(window, stream.cut(now)))
    after = set(stream.chosen(window, stream.cut(now + 1)))
    assert len(before) == span
    assert after - before == {now - LABEL_DELAY}
    assert before - after == {now - LABEL_DELAY - span}


@QUICK
@given(streams(), counts, st.integers(0, 90))
def test_sliding_in_rows_drops_the_oldest_for_the_newest(stream: Stream, rows: int, now: int) -> None:
    """From one instant to the next, what is added is newly known, what is dropped is older than all that stays."""
    before = stream.chosen(Sliding(rows=rows), stream.cut(now))
    after = stream.chosen(Sliding(rows=rows), stream.cut(now + 1))
    known = np.flatnonzero((stream.known_at <= now + 1) & (stream.time <= now + 1))
    assert after == known[-rows:].tolist()
    assert len(before) == min(rows, len(stream.cut(now).position))
    added, dropped = set(after) - set(before), set(before) - set(after)
    assert all(stream.known_at[row] == now + 1 or stream.time[row] == now + 1 for row in added)
    assert all(row < min(after) for row in dropped)


@QUICK
@given(streams(), spans, guards, us(0, 5), st.integers(0, 60))
def test_tumbling_periods_follow_each_other_and_miss_nothing(
    stream: Stream, span: timedelta, guard: dict[str, timedelta], zero: timedelta, start: int
) -> None:
    """Over time, two periods are the same or share no instant, and each instant falls in one."""
    window = Tumbling(span, origin=EPOCH + zero, **guard)
    time = np.arange(-40, 120)
    dense = Stream(time, time, np.zeros((160, 16), np.uint8))
    periods = []
    for now in range(start, start + 40):
        held = [int(time[row]) for row in dense.chosen(window, dense.cut(now))]
        assert len(held) == micro(span)
        assert (held[0] - micro(zero)) % micro(span) == 0
        assert end(window, now) - micro(span) <= held[-1] + 1 <= end(window, now)
        if not periods or periods[-1] != held:
            periods.append(held)
    joined = [t for period in periods for t in period]
    assert joined == list(range(joined[0], joined[0] + len(joined)))
    for now in (start, start + 20):  # on any stream: only rows of one period, and all that are known of it
        first = periods[0][0] + ((end(window, now) - periods[0][0]) // micro(span) - 1) * micro(span)
        cut = stream.cut(now)
        inside = (cut.time >= first) & (cut.time < first + micro(span))
        assert stream.chosen(window, cut) == cut.position[inside].tolist()


@QUICK
@given(streams(), counts, guards)
def test_tumbling_rows_are_whole_periods_of_positions(stream: Stream, rows: int, guard: dict[str, timedelta]) -> None:
    """All chosen positions lie in one period counted from 0, which lies before or at the newest usable example."""
    last = -1
    for now in range(0, 100, 5):
        cut = stream.cut(now)
        chosen = stream.chosen(Tumbling(rows=rows, **guard), cut)
        if not chosen:
            continue
        period = chosen[0] // rows
        assert {p // rows for p in chosen} == {period}
        assert period >= last
        usable = cut.position[cut.time <= now - sum(map(micro, guard.values()))]
        assert chosen == [int(p) for p in usable if p // rows == period]
        assert (int(usable[-1]) + 1) // rows - 1 == period
        last = period


@QUICK
@given(streams(), us(1, 4), st.floats(0.05, 0.95), guards, st.integers(0, 90))
@example(
    Stream(np.arange(9), np.arange(9) + LABEL_DELAY, np.zeros((9, 16), np.uint8)),
    timedelta(microseconds=3), 0.3, {"purge": timedelta(0), "embargo": timedelta(0)}, 11,
)  # fmt: skip
def test_decay_in_time_halves_and_stops_at_the_floor(
    stream: Stream, life: timedelta, floor: float, guard: dict[str, timedelta], now: int
) -> None:
    """Each known example before the end weighs 2 ** (-age / half_life), and is there if that is at least the floor."""
    window = Decayed(life, floor=floor, **guard)
    cut, stop = stream.cut(now), end(window, now)
    selection = window.select(cut)
    assert selection.weights is not None
    weighed = dict(zip(cut.position[selection.index].tolist(), selection.weights.tolist(), strict=True))
    for position, t in zip(cut.position.tolist(), cut.time.tolist(), strict=True):
        weight = 2.0 ** (-(stop - t) / micro(life)) if t < stop else 0.0
        if weight >= floor * (1 + 1e-9):
            assert abs(weighed[position] - weight) < 1e-12
        elif weight <= floor * (1 - 1e-9):
            assert position not in weighed


@QUICK
@given(st.integers(0, 40), counts, st.floats(0.05, 0.95))
@example(5, 1, 0.5)
@example(9, 2, 0.25)
def test_decay_in_rows_halves_and_stops_at_the_floor(n: int, rows: int, floor: float) -> None:
    """The newest weighs 1, one ``rows`` older half, and every example that weighs at least the floor is there."""
    time = np.arange(n)
    stream = Stream(time, time + LABEL_DELAY, np.zeros((n, 16), np.uint8))
    selection = Decayed(rows=rows, floor=floor).select(stream.cut(n + LABEL_DELAY))
    assert selection.weights is not None
    weights = [2.0 ** (-age / rows) for age in range(n)]
    least = len([w for w in weights if w >= floor * (1 + 1e-9)])
    most = len([w for w in weights if w >= floor * (1 - 1e-9)])
    assert least <= len(selection.index) <= most
    if floor in (0.5, 0.25):  # exact in binary: no rounding to excuse the example that weighs just the floor
        assert len(selection.index) == most
    np.testing.assert_allclose(selection.weights, weights[: len(selection.index)][::-1], rtol=1e-12)
    assert selection.index.tolist() == list(range(n))[n - len(selection.index) :]


@QUICK
@given(streams(), shares, counts, st.booleans(), guards, st.integers(0, 90))
def test_a_mix_has_the_sizes_it_says(
    stream: Stream, old: float, rows: int, initial: bool, guard: dict[str, timedelta], now: int
) -> None:
    """The newest by position, whole; then old ones from what is left: no duplicate, never more than asked for."""
    mix = Mix(**{"initial" if initial else "past": old}, recent=1 - old, rows=rows, **guard)  # type: ignore[arg-type]
    cut = stream.cut(now)
    chosen = stream.chosen(mix, cut)
    usable = cut.position[cut.time <= now - sum(map(micro, guard.values()))].tolist()
    newest = round((1 - old) * rows)
    recent = usable[max(0, len(usable) - newest) :]
    older = [p for p in usable if p not in recent and (p < INITIAL or not initial)]
    assert len(set(chosen)) == len(chosen) <= rows
    assert set(recent) <= set(chosen)
    drawn = set(chosen) - set(recent)
    assert drawn <= set(older)
    assert len(drawn) == min(rows - newest, len(older))


@QUICK
@given(streams(), shares, shares, st.integers(0, 90))
def test_a_mix_of_sources_has_a_share_of_each(stream: Stream, old: float, new: float, now: int) -> None:
    """A share of the initial examples, and the newest share of those that came after."""
    cut = stream.cut(now)
    chosen = stream.chosen(Mix(initial=old, recent=new, share_of="source"), cut)
    first, after = [p for p in cut.position if p < INITIAL], [p for p in cut.position if p >= INITIAL]
    assert len([p for p in chosen if p < INITIAL]) == round(old * len(first))
    assert [p for p in chosen if p >= INITIAL] == after[len(after) - round(new * len(after)) :]


def distinct(n: int) -> Stream:
    """Rows a microsecond apart that all differ."""
    time = np.arange(n)
    rows = np.random.default_rng(n).integers(0, 256, (n, 16), dtype=np.uint8)
    return Stream(time, time + LABEL_DELAY, rows)


@QUICK
@given(st.integers(1, 40), st.integers(1, 1000))
def test_a_draw_depends_on_content_and_not_on_place(n: int, offset: int) -> None:
    """The same rows stored at other positions are drawn alike."""
    here = distinct(n)
    there = Stream(here.time, here.known_at, here.rows, offset)
    for mix in (Mix(initial=1.0, recent=0.0, rows=3), Mix(past=0.4, recent=0.6, rows=8)):
        assert here.chosen(mix, here.cut(99)) == there.chosen(mix, there.cut(99))


def test_a_draw_follows_its_seed() -> None:
    """The same seed draws the same rows, and other seeds other rows."""
    stream, mix = distinct(60), Mix(past=0.5, recent=0.5, rows=20)
    draws = [tuple(stream.chosen(mix, stream.cut(99, seed=seed))) for seed in range(8)]
    assert len(set(draws)) == 8
    assert draws == [tuple(stream.chosen(mix, stream.cut(99, seed=seed))) for seed in range(8)]


@QUICK
@given(st.integers(7, 40), st.integers(1, 6))
def test_a_larger_draw_holds_the_smaller(n: int, rows: int) -> None:
    """Draws are nested: asking for one more keeps all that were drawn."""
    stream = distinct(n)
    smaller = stream.chosen(Mix(initial=1.0, recent=0.0, rows=rows), stream.cut(99))
    larger = stream.chosen(Mix(initial=1.0, recent=0.0, rows=rows + 1), stream.cut(99))
    assert set(smaller) <= set(larger)


@QUICK
@given(st.integers(15, 40), st.integers(0, 20))
def test_initial_examples_stay_drawn_from_checkpoint_to_checkpoint(n: int, later: int) -> None:
    """Once initial labels are known and the recent share has left them, the same initial rows are drawn for good."""
    stream, mix = distinct(80), Mix(initial=0.4, recent=0.6, rows=10)
    first, second = ({p for p in stream.chosen(mix, stream.cut(now)) if p < INITIAL} for now in (n, n + later))
    assert first == second
    assert len(first) == 4


def test_a_draw_from_rows_of_few_contents_is_no_draw_of_contents() -> None:
    """Rows of equal content are drawn one by one: a tenth of the rows is about a tenth of each content."""
    time = np.arange(2000)
    content = np.random.default_rng(0).integers(0, 256, (4, 16), dtype=np.uint8)
    stream = Stream(time, time + LABEL_DELAY, content[time % 4])
    mix = Mix(past=1.0, recent=0.0, rows=400)
    drawn = np.bincount(np.array(stream.chosen(mix, stream.cut(5000))) % 4, minlength=4)
    assert drawn.sum() == 400
    assert drawn.min() > 50, f"rows drawn of each of four contents: {drawn}"


def test_every_initial_row_is_drawn_about_equally_often() -> None:
    """Over seeds, no row is preferred: each of 40 is drawn in about a quarter of 400 draws of 10."""
    time = np.arange(40)
    rows = np.random.default_rng(3).integers(0, 256, (40, 16), dtype=np.uint8)
    stream = Stream(time, time + LABEL_DELAY, rows)
    mix = Mix(past=1.0, recent=0.0, rows=10)
    counts = np.bincount(
        [p for seed in range(400) for p in stream.chosen(mix, stream.cut(99, seed=seed))], minlength=40
    )
    spread = ((counts - 100) ** 2 / (400 * 0.25 * 0.75)).sum()
    assert 15 < spread < 80, f"chi-square {spread:.1f} on about 39 degrees"


def kept(keep: Keep, stream: Stream, now: int) -> NDArray[np.bool_]:
    """Which rows stay when everything goes that `keep` lets go, word for word."""
    arrived = stream.time <= now
    if keep.everything:
        return np.ones(len(arrived), bool)
    stay = ~arrived  # rows that are still to come
    if keep.since is not None:
        stay |= stream.time >= keep.since
    if keep.rows:
        counted = np.flatnonzero(arrived & (stream.known_at <= now) & (stream.time <= keep.until))
        oldest = counted[-keep.rows] if len(counted) >= keep.rows else 0
        stay |= (np.arange(len(arrived)) >= oldest) | (stream.time > keep.until)
    if keep.initial:
        stay |= np.arange(len(arrived)) < INITIAL
    return stay


@settings(max_examples=300, deadline=None)
@given(streams(), every_window, st.integers(0, 60), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_what_keep_lets_go_is_never_missed(stream: Stream, window: Window, now: int, steps: list[int]) -> None:
    """Dropping at each checkpoint every row that may go changes no later selection, however late labels come."""
    held = np.ones(len(stream.time), bool)
    for step in steps:
        held &= kept(window.keep(now, LABEL_DELAY), stream, now)
        now += step
        full, less = stream.cut(now), stream.cut(now, held)
        assert stream.chosen(window, less) == stream.chosen(window, full)
        one, other = window.select(full).weights, window.select(less).weights
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_array_equal(one, other)


def test_keep_lets_something_go() -> None:
    """Bounded windows do let old rows go, or memory would not be bounded by the window."""
    time = np.arange(60)
    stream = Stream(time, time + LABEL_DELAY, np.zeros((60, 16), np.uint8))
    bounded = [
        Sliding("10us"), Sliding(rows=10), Tumbling("10us"), Tumbling(rows=10),
        Decayed("2us", floor=0.1), Decayed(rows=2, floor=0.1), Mix(initial=0.3, recent=0.7, rows=10),
    ]  # fmt: skip
    for window in bounded:
        assert kept(window.keep(59, LABEL_DELAY), stream, 59).sum() <= 30, str(window)
