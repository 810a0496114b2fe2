"""Positions of an ingest log: whatever the sizes of appends, reading from any of them gives the rest, and no more."""

from __future__ import annotations

import tempfile
from contextlib import suppress

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.stream import ingest
from perennial.stream.feed import Position, feed_of
from perennial.stream.ingest import Append, IngestLog, append_together

TYPES = {"id": pa.int64(), "who": pa.string()}


def rows(low, high):
    """Rows with ids in order, of three subjects."""
    return pa.table({"id": pa.array(range(low, high), pa.int64()), "who": [f"s{i % 3}" for i in range(low, high)]})


def positions_of(url):
    """Each id that is left, with the position after it."""
    out = []
    for run in feed_of(url).read(Position(), TYPES):
        ids = run.rows.column("id").to_pylist()
        assert [run.start + i for i in range(len(ids))] == ids  # rows are counted as if none had been erased
        out += [(number, run.position(i + 1)) for i, number in enumerate(ids)]
    return out


def behind(url, position):
    """Ids behind a position."""
    return [i for run in feed_of(url).read(position, TYPES) for i in run.rows.column("id").to_pylist()]


@settings(max_examples=25, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=4),
    page=st.integers(1, 5),
    block=st.integers(1, 12),
    gone=st.sets(st.integers(0, 2), max_size=2),
    data=st.data(),
)
def test_reading_from_any_position_gives_the_rest(groups, page, block, gone, data):
    """Through any pages, beside erased subjects, after any trim of what was read, and through plain data."""
    before = ingest.PAGE_ENTRIES, ingest.BLOCK_ROWS
    ingest.PAGE_ENTRIES, ingest.BLOCK_ROWS = page, block
    try:
        with tempfile.TemporaryDirectory() as folder:
            url, total = f"sqlite:///{folder}/ingest.db?log=calls", 0
            with IngestLog.open(url, pa.schema(TYPES)) as log:
                for group in groups:
                    appends = []
                    for n in group:
                        appends.append(Append(log=log, rows=rows(total, total + n)))
                        total += n
                    append_together(appends)
                places = positions_of(url)
                assert [number for number, _ in places] == list(range(total))
                erased = log.erase("who", [f"s{i}" for i in gone])
                left = [i for i in range(total) if i % 3 not in gone]
                assert erased == total - len(left)
                assert behind(url, Position()) == left
                for number, position in places:
                    plain = Position.from_plain(position.to_plain())
                    assert behind(url, plain) == [i for i in left if i > number]
                if places:
                    cut, position = data.draw(st.sampled_from(places))
                    feed_of(url).trim(position)
                    for number, later in places[cut:]:
                        assert behind(url, later) == [i for i in left if i > number]
                    for number, earlier in places[:cut]:  # what went is never passed over in silence
                        with suppress(ingest.OffsetGone):
                            assert behind(url, earlier) == [i for i in left if i > number]
    finally:
        ingest.PAGE_ENTRIES, ingest.BLOCK_ROWS = before
