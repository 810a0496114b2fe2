"""What is served is what is trained on: features of single rows as they come, and of the same rows as a stream."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.stream import lookback
from perennial.stream.lookback import LookBack, Past

MINUTE = 60_000_000
SPAN, LATE = 90, 45  # minutes

Group = tuple[int, list[tuple[Any, ...]]]


@st.composite
def groups(draw: st.DrawFn, keys: st.SearchStrategy[Any]) -> list[Group]:
    """Instants with their rows; one may be late, and none is that of the one before."""
    out: list[Group] = []
    newest = last = 1000
    row = st.tuples(keys, st.none() | st.floats(-1e6, 1e6), st.none() | st.sampled_from(["red", "blue"]))
    for _ in range(draw(st.integers(1, 9))):
        at = draw(st.integers(newest - LATE, newest + 60).filter(lambda at, before=last: at != before))
        newest, last = max(newest, at), at
        out.append((at * MINUTE, draw(st.lists(row, min_size=1, max_size=4))))
    return out


def table(group: Group, dtype: Any) -> tuple[pa.Table, np.ndarray]:
    """The rows of an instant as a source has them."""
    at, rows = group
    who, x, word = zip(*rows, strict=True)
    time = np.full(len(rows), at, dtype=np.int64)
    columns = {
        "at": pa.array(time).cast(pa.timestamp("us", "UTC")), "who": pa.array(who, type=dtype),
        "x": pa.array(x, type=pa.float64()),
        "flag": pa.array([None if v is None else v > 0 for v in x], type=pa.bool_()),
        "word": pa.array(word, type=pa.string()),
    }  # fmt: skip
    return pa.table(columns), time


class Build:
    """A function of everything that it is shown, which keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[pd.DataFrame, pd.DataFrame]] = []

    def __call__(self, past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
        self.shown.append((past.copy(), now.copy()))
        weights = np.arange(1, len(past) + 1)
        seen = past["x"].fillna(0.5).to_numpy(dtype=np.float64)
        words = "".join("-" if pd.isna(word) else str(word)[0] for word in past["word"])
        return pd.DataFrame({
            "x": now["x"], "order": [float(weights @ seen) if len(past) else np.nan] * len(now),
            "rows": [len(past)] * len(now), "word": [words] * len(now),
        })  # fmt: skip


def held_against(sequence: list[Group], dtype: Any, key: str | None, start: int) -> None:
    """Serve the instants from ``start`` on, one after the other, and hold them against the stream of all."""
    how: dict[str, Any] = {
        "time": "at", "key": key, "zone": "Europe/Lisbon", "lateness": timedelta(minutes=LATE),
    }  # fmt: skip
    trained, served = Build(), Build()
    whole = LookBack(trained, timedelta(minutes=SPAN), **how)
    tables = [table(group, dtype) for group in sequence]
    want = []
    for rows, time in tables:
        want += [whole.feed(rows, time)]
    want.append(whole.finish())
    expected = pa.concat_tables([part for part in want if part is not None])

    before = LookBack(Build(), timedelta(minutes=SPAN), **how)
    for rows, time in tables[:start]:
        before.feed(rows, time)
    before.finish()
    resumed = LookBack(served, timedelta(minutes=SPAN), **how)
    resumed.restore(before.state())
    past = Past(resumed)
    got = []
    for rows, time in tables[start:]:
        first = past.build(rows, int(time[0]))
        assert past.build(rows, int(time[0])).equals(first), "asking changed something"
        served.shown.pop()
        got.append(first)
        past.add(rows, time)
    if got:
        skipped = sum(len(time) for _, time in tables[:start])
        assert pa.concat_tables(got).equals(expected.slice(skipped))
        for ours, theirs in zip(served.shown, trained.shown[start:], strict=True):
            for mine, other in zip(ours, theirs, strict=True):
                pd.testing.assert_frame_equal(mine, other, check_exact=True)


WHO = st.one_of(st.none(), st.integers(1, 3))


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_a_key_sees_in_serving_what_it_sees_in_training(data: st.DataObject) -> None:
    """Bit for bit the same features from the same frames, late rows, missing keys and restored checkpoints included."""
    sequence = data.draw(groups(WHO))
    start = data.draw(st.integers(0, len(sequence)))
    with patch.multiple(lookback, _TAIL=data.draw(st.sampled_from([1, 4, 512])), _FEW=3):
        held_against(sequence, pa.int64(), "who", start)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_keys_are_text_as_well(data: st.DataObject) -> None:
    """The same where keys are words."""
    sequence = data.draw(groups(st.one_of(st.none(), st.sampled_from(["ada", "bob"]))))
    start = data.draw(st.integers(0, len(sequence)))
    with patch.multiple(lookback, _TAIL=data.draw(st.sampled_from([1, 4, 512])), _FEW=3):
        held_against(sequence, pa.string(), "who", start)


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_without_a_key_everybody_is_everybodys_past(data: st.DataObject) -> None:
    """The same where the stream has no key."""
    sequence = data.draw(groups(WHO))
    start = data.draw(st.integers(0, len(sequence)))
    with patch.multiple(lookback, _TAIL=data.draw(st.sampled_from([1, 4, 512])), _FEW=3):
        held_against(sequence, pa.int64(), None, start)


def test_what_no_call_may_look_at_is_let_go_of() -> None:
    """Memory is bounded by how far features look back, and not by how long a worker lives."""
    past = LookBack(
        Build(), timedelta(minutes=SPAN), time="at", key="who", zone="UTC", lateness=timedelta(minutes=LATE)
    ).past()
    largest = 0
    for minute in range(20, 2_400, 20):
        rows, _ = table((0, [(who % 5, 1.0, "red") for who in range(20)]), pa.int64())
        past.add(rows, (minute + np.arange(20)) * MINUTE)
        largest = max(largest, len(past))
    assert largest <= 1.5 * (SPAN + LATE + 1) + 512 + 20
    assert sum(len(numbers) for numbers, _ in past._places.values()) == len(past)
