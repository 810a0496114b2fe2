"""Positions of rows whose values Python has no name for."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from perennial.stream.feed import row_digest


def row(at, dtype):
    """One raw row with a time."""
    return pa.record_batch({"x": [1.5], "at": pa.array([at], pa.int64()).cast(dtype)})


def test_a_digest_is_of_the_values():
    """The same from release to release: positions that were kept hold."""
    values = {"x": 1.5, "at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}
    want = hashlib.sha256(repr(pa.record_batch({k: [v] for k, v in values.items()}).to_pylist()[0]).encode())
    assert row_digest(row(1_000_000, pa.timestamp("us", "UTC"))) == want.hexdigest()[:32]


@pytest.mark.parametrize("dtype", [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.timestamp("s", "Europe/Berlin"),
                                   pa.date64()])  # fmt: skip
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_time_outside_the_years_of_python_has_a_digest(dtype, sign):
    """By its number."""
    days = sign * 20_000 * 365
    a_day = {"us": 86_400_000_000, "s": 86_400}.get(getattr(dtype, "unit", ""), 86_400_000)
    one, other = row_digest(row(days * a_day, dtype)), row_digest(row((days + 1) * a_day, dtype))
    assert one != other
    assert one == row_digest(row(days * a_day, dtype))
