"""The no-skill lines against straightforward loops."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.core.times import NEVER
from perennial.replay import baselines


def _slow_no_change(labels: np.ndarray, time: np.ndarray, known_at: np.ndarray) -> list[float]:
    out = []
    for i in range(len(labels)):
        known = [j for j in range(i) if _has(labels[j]) and known_at[j] <= time[i]]
        out.append(labels[known[-1]] if known else _nothing(labels))
    return out


def _known_to(b: int, labels: np.ndarray, known_at: np.ndarray, starts: np.ndarray, firsts: np.ndarray) -> list[int]:
    now = max(starts[: b + 1])
    return [j for j in range(firsts[b]) if _has(labels[j]) and known_at[j] <= now]


def _has(label: float) -> bool:
    return not np.isnan(label) and (isinstance(label, np.floating) or label >= 0)


def _nothing(labels: np.ndarray) -> float:
    return np.nan if labels.dtype.kind == "f" else -1


def _batch_of(i: int, firsts: np.ndarray) -> int:
    return int(np.searchsorted(firsts, i, side="right")) - 1


@st.composite
def _streams(draw: st.DrawFn) -> dict[str, np.ndarray]:
    n = draw(st.integers(0, 25))
    ints = st.lists(st.integers(0, 8), min_size=n, max_size=n)
    time = np.array(draw(ints), dtype=np.int64)
    if draw(st.booleans()):
        time.sort()
    delay = np.array(draw(st.one_of(st.just([0] * n), ints)), dtype=np.int64)
    known_at = time + delay
    never = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
    known_at[never & draw(st.booleans())] = NEVER
    codes = np.array(draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)), dtype=np.int32)
    firsts = np.array(sorted({draw(st.integers(0, 2)), *draw(st.lists(st.integers(0, max(n, 1)), max_size=6))}))
    firsts = firsts[firsts <= n].astype(np.int64)
    starts = np.array(draw(st.lists(st.integers(0, 12), min_size=len(firsts), max_size=len(firsts))), dtype=np.int64)
    values = np.where(codes < 0, np.nan, codes * 1.5)
    return {"time": time, "known_at": known_at, "codes": codes, "values": values, "firsts": firsts, "starts": starts}


@settings(max_examples=300, deadline=None)
@given(_streams(), st.sampled_from(["codes", "values"]))
def test_no_change_by_row(s: dict[str, np.ndarray], kind: str) -> None:
    """Each row repeats the label of the latest row before it that was known at its time."""
    got = baselines.no_change(s[kind], s["time"], s["known_at"])
    assert got.dtype == s[kind].dtype
    np.testing.assert_array_equal(got, _slow_no_change(s[kind], s["time"], s["known_at"]))


@settings(max_examples=300, deadline=None)
@given(_streams(), st.sampled_from(["codes", "values"]))
def test_no_change_by_batch(s: dict[str, np.ndarray], kind: str) -> None:
    """Each row repeats the label of the latest row of an earlier batch that was known at its batch's start."""
    labels, firsts = s[kind], s["firsts"]
    got = baselines.no_change_by_batch(labels, s["known_at"], s["starts"], firsts)
    for i in range(len(labels)):
        b = _batch_of(i, firsts)
        known = _known_to(b, labels, s["known_at"], s["starts"], firsts) if b >= 0 else []
        np.testing.assert_equal(got[i], labels[known[-1]] if known else _nothing(labels))


@settings(max_examples=300, deadline=None)
@given(_streams(), st.sampled_from([2, 2**20]))
def test_majority_and_mean(s: dict[str, np.ndarray], chunk: int) -> None:
    """Majority, shares and mean are of the labels of earlier batches that were known at the batch's start."""
    firsts, codes, values = s["firsts"], s["codes"], s["values"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_ROWS", chunk)
        got = baselines.majority(codes, s["known_at"], s["starts"], firsts, 4)
        means = baselines.mean(values, s["known_at"], s["starts"], firsts)
    assert got.predicted.dtype == np.int32
    for i in range(len(codes)):
        b = _batch_of(i, firsts)
        known = _known_to(b, codes, s["known_at"], s["starts"], firsts) if b >= 0 else []
        counts = np.bincount(codes[known], minlength=4)
        assert got.predicted[i] == (counts.argmax() if known else -1)
        np.testing.assert_allclose(got.proba[i], counts / max(len(known), 1))
        np.testing.assert_allclose(means[i], values[known].mean() if known else np.nan)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(0, 400))
def test_no_change_over_chunks_and_long_delays(seed: int, n: int, delay: int) -> None:
    """Longer streams, arbitrary order of knowledge and chunked queries give what the loop gives."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, 300, n))
    known_at = time + rng.integers(0, delay + 1, n)
    codes = rng.integers(-1, 5, n).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_ROWS", 64)
        got = baselines.no_change(codes, time, known_at)
    np.testing.assert_array_equal(got, _slow_no_change(codes, time, known_at))


def test_zero_delay_and_tied_times() -> None:
    """With labels known at once, rows of one instant know those before them by position and none after."""
    same = np.zeros(4, dtype=np.int64)
    codes = np.array([3, 1, 2, 0], np.int32)
    assert baselines.no_change(codes, same, same).tolist() == [-1, 3, 1, 2]


def test_future_labels_change_nothing() -> None:
    """Labels after a row, and labels known after it, do not reach its prediction."""
    rng = np.random.default_rng(3)
    time = np.sort(rng.integers(0, 200, 100))
    known_at = time + rng.integers(0, 30, 100)
    codes = rng.integers(0, 3, 100).astype(np.int32)
    firsts = np.arange(0, 100, 10)
    poisoned = codes.copy()
    now = time[60]
    poisoned[(np.arange(100) >= 60) | (known_at > now)] += 7
    upto = 61
    for labels, other in ((codes, poisoned), (codes.astype(float), poisoned.astype(float))):
        np.testing.assert_array_equal(
            baselines.no_change(labels, time, known_at)[:upto], baselines.no_change(other, time, known_at)[:upto]
        )
    before = baselines.majority(codes, known_at, time[firsts], firsts, 10)
    after = baselines.majority(poisoned, known_at, time[firsts], firsts, 10)
    np.testing.assert_array_equal(before.proba[:70], after.proba[:70])
    assert (before.proba[80:] != after.proba[80:]).any()


def test_row_by_row_streams_are_quick() -> None:
    """45,000 batches of one row take a moment."""
    n = 45_000
    time_ = np.arange(n) * 1_000
    known_at = time_ + 5_000_000
    codes = (np.arange(n) % 3).astype(np.int32)
    firsts = np.arange(n)
    began = time.process_time()
    repeated = baselines.no_change(codes, time_, known_at)
    by_batch = baselines.no_change_by_batch(codes, known_at, time_, firsts)
    baselines.majority(codes, known_at, time_, firsts, 3)
    baselines.mean(codes.astype(float), known_at, time_, firsts)
    assert time.process_time() - began < 3  # about 0.1 s; the slack is for busy machines
    np.testing.assert_array_equal(repeated, by_batch)
    assert repeated[6000] == codes[1000]
