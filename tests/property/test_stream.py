"""Streams: nothing depends on where files or blocks end, and batches follow from the data."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.core.times import NEVER, instant
from perennial.stream import Prepared, Stream, encoding
from perennial.stream.calendar import Calendar
from perennial.stream.encoding import Encoder

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
START = instant(datetime(2026, 3, 27, tzinfo=UTC))  # two days before clocks change in Europe
HOUR = 3_600_000_000

numbers = st.one_of(st.none(), st.floats(width=64), st.integers(-3, 3).map(float))
words = st.one_of(st.none(), st.sampled_from(["", "a", "b", "ü"]), st.text(max_size=3))


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A history of a few rows with nulls, ties and gaps, some of them late by less than a day."""
    rows = draw(st.integers(1, 25))

    def some(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    steps = np.cumsum([draw(st.integers(0, 30)) for _ in range(rows)])
    late = np.array(some(st.sampled_from([0, 0, 0, 5, 23])))
    time = START + (steps - late) * HOUR
    return pa.table(
        {
            "at": pa.array(time).cast(pa.timestamp("us", "UTC")),
            "x": pa.array(some(numbers), pa.float64()),
            "n": pa.array(some(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))), pa.int64()),
            "w": pa.array(some(words), pa.string()),
            "flag": pa.array(some(st.booleans()), pa.bool_()),
            "y": pa.array(some(st.sampled_from([None, "p", "q", "r"])), pa.string()),
        }
    )


@given(st.lists(st.sampled_from([None, *"abcdefg"]), max_size=60), st.lists(st.integers(0, 60)), st.integers(2, 4))
def test_a_word_counts_from_its_nth_row_on(column, cuts, least):
    """However rows are cut into blocks, and whether or not the encoder was saved in between; too many are forgotten."""
    whole, parts = (Encoder({"w": pa.string()}, (), least) for _ in range(2))
    expected, seen, table = [], Counter(), {}
    for word in column:
        seen[word] += word is not None
        if word is not None and seen[word] >= least:
            table.setdefault(word, len(table))
        expected.append(table.get(word, -1))
    array = pa.array(column, pa.string())
    stored, digests = whole.encode([array], 0)
    assert stored[0].to_pylist() == expected
    bounds = sorted({0, len(column), *(cut for cut in cuts if cut < len(column))})
    codes, rows = [], []
    for low, high in pairwise(bounds):
        part, some = parts.encode([array.slice(low, high - low)], low)
        codes += part[0].to_pylist()
        rows.append(some)
        parts = Encoder.restore(json.loads(json.dumps(parts.state())), (), least)
    assert codes == expected
    assert not rows or (np.concatenate(rows) == digests).all()
    assert parts.state() == whole.state()
    assert list(whole.state()["words"]["w"]) == list(table)
    assert {digest for digest, _ in whole.state()["rare"]["w"]} <= {
        hashlib.blake2b(word.encode(), digest_size=16).hexdigest() for word in "abcdefg"
    }


def test_of_too_many_rare_words_the_oldest_is_forgotten(monkeypatch):
    """What is counted is bounded: a word that was not seen for long begins anew."""
    monkeypatch.setattr(encoding, "MOST_RARE", 2)
    encoder = Encoder({"w": pa.string()}, (), 2)
    stored, _ = encoder.encode([pa.array(["a", "b", "c", "a", "c", "b"])], 0)
    assert stored[0].to_pylist() == [-1, -1, -1, -1, 0, -1]
    assert len(encoder.state()["rare"]["w"]) == 2


def stream(source: Any, batch: Any) -> Stream:
    """The stream of a source."""
    return Stream(
        source,
        time="at",
        target="y",
        time_zone="Europe/Lisbon",
        lateness="1d",
        text=["w"],
        label_delay="6h",
        batch=batch,
    )


def told(p: Prepared) -> list[Any]:
    """Everything that batches say."""
    out: list[Any] = []
    for b in p.batches("classification"):
        assert b.label_codes is not None
        labels = [b.label_values[c] if c >= 0 else None for c in b.label_codes]
        late = None if b.late is None else b.late.tolist()
        out.append((b.start, b.first, b.features.arrow().to_pylist(), b.rows.tobytes(), b.time.tolist()))
        out.append((b.known_at.tolist(), labels, list(b.label_values), late))
    return out


@FEW
@given(table=tables(), cuts=st.lists(st.integers(0, 25), max_size=6), batch=st.sampled_from(["1d", "6h", "1w", 1, 4]))
def test_where_files_end_changes_nothing(table: pa.Table, cuts: list[int], batch: Any) -> None:
    """One file, several files of any size and a table in memory give the same digest, batches and row digests."""
    edges = sorted({0, table.num_rows, *(c for c in cuts if c < table.num_rows)})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "parts").mkdir()
        for i, (low, high) in enumerate(pairwise(edges)):
            pa.parquet.write_table(table.slice(low, high - low), folder / "parts" / f"{i:03}.parquet")
        whole = stream(table, batch).prepare(folder / "a")
        split = stream(folder / "parts", batch).prepare(folder / "b")
        assert split.digest == whole.digest
        assert repr(told(split)) == repr(told(whole))
        assert split.stats == whole.stats


@FEW
@given(table=tables(), batch=st.sampled_from(["1d", "6h", "1w", "1mo", 1, 4]))
def test_batches_follow_from_the_data(table: pa.Table, batch: Any) -> None:
    """Batches hold every row once and in order, start in order and never after their first row, labels not before."""
    with tempfile.TemporaryDirectory() as name:
        p = stream(table, batch).prepare(Path(name))
        batches = list(p.batches("classification"))
        starts, firsts = p.batch_bounds()
    time = table.column("at").cast(pa.int64()).to_numpy()
    assert np.concatenate([b.time for b in batches]).tolist() == time.tolist()
    assert [b.first for b in batches] == firsts.tolist()
    assert [b.start for b in batches] == starts.tolist()
    assert (np.diff(starts) >= (0 if isinstance(batch, int) else 1)).all()
    newest = np.maximum.accumulate(time)
    for b in batches:
        assert b.start <= newest[b.first]
        assert ((b.known_at == NEVER) | (b.known_at == b.time + 6 * HOUR)).all()
        late = b.time < newest[b.first : b.first + len(b)]
        assert (late.tolist() if b.late is None else b.late.tolist()) == late.tolist()


@FEW
@given(table=tables(), data=st.data())
def test_the_future_changes_nothing(table: pa.Table, data: st.DataObject) -> None:
    """Batches are the same whatever rows follow them."""
    keep = data.draw(st.integers(1, table.num_rows))
    with tempfile.TemporaryDirectory() as name:
        whole = told(stream(table, "1d").prepare(Path(name) / "a"))
        part = told(stream(table.slice(0, keep), "1d").prepare(Path(name) / "b"))
    complete = len(part) - 2  # the last batch of the part may have gone on
    assert repr(whole[:complete]) == repr(part[:complete])


@FEW
@given(
    hours=st.lists(st.integers(0, 24 * 400), min_size=1, max_size=30),
    batch=st.sampled_from(["1h", "7h", "1d", "2d", "1w", "1mo", "3mo"]),
    zone=st.sampled_from(["UTC", "Europe/Lisbon", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_calendars_round_down(hours: list[int], batch: str, zone: str) -> None:
    """The start of a span is not after the instant, is its own start, keeps order, and is near."""
    at = np.sort(np.array(hours)) * HOUR + instant(datetime(2018, 1, 1, tzinfo=UTC))
    calendar = Calendar.of(batch)
    starts = calendar.floor(at, zone)
    assert (starts <= at).all()
    assert (np.diff(starts) >= 0).all()
    assert calendar.floor(starts, zone).tolist() == starts.tolist()
    longest = timedelta(days=93) if calendar.months else timedelta(days=7 * calendar.weeks + calendar.days + 1)
    assert (at - starts <= longest // timedelta(microseconds=1)).all()
