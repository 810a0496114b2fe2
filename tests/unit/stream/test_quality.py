"""What a batch must hold to be learned from."""

import numpy as np
import pyarrow as pa
import pytest

from perennial.core.errors import ConfigError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.core.records import Batch
from perennial.stream.quality import Quality

SCHEMA = Schema(
    [Column("a", Kind.NUMBER, "double"), Column("word", Kind.CATEGORY, "string")], {"word": Vocabulary(["red"])}
)


def batch(a, word=None, *, known=None, chunks=1, rows=None):
    """A batch of numbers and words, its rows lying in so many chunks."""
    n = len(a)
    word = np.zeros(n, np.int32) if word is None else np.asarray(word, np.int32)
    parts = []
    for at in np.array_split(np.arange(n), chunks):
        numbers = pa.array([a[i] for i in at], pa.float64())
        parts.append(Features.of(Chunk(pa.table({"a": numbers, "word": pa.array(word[at])}), SCHEMA)))
    return Batch(
        start=0, first=0, features=Features.join(SCHEMA, parts),
        rows=np.arange(n * 16, dtype=np.uint8).reshape(n, 16) if rows is None else rows, time=np.zeros(n, np.int64),
        known_at=np.zeros(n, np.int64) if known is None else known, label_codes=np.zeros(n, np.int32),
    )  # fmt: skip


def fault(told, **rules):
    """What a quality with few rows says."""
    return Quality(least_rows=2, **rules).fault(told)


def test_no_rule_finds_no_fault():
    """Every rule is off unless set."""
    assert Quality().fault(batch([None] * 30)) is None


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_nulls_are_counted_over_the_batch(chunks):
    """The share of nulls, NaN included, is that of the whole batch, however many chunks its rows lie in."""
    told = batch([None, float("nan"), 1.0, 2.0, 3.0, 4.0], chunks=chunks)
    assert fault(told, nulls=0.4) is None
    assert fault(told, nulls=0.2) == "column 'a' is 33% null, limit 20%"


def test_words_may_be_null_too():
    """A null word has code -1."""
    assert fault(batch([1.0, 2.0], [-1, 0]), nulls=0.4) == "column 'word' is 50% null, limit 40%"


@pytest.mark.parametrize("chunks", [1, 3])
def test_ranges_are_closed_and_nulls_respect_them(chunks):
    """Bounds belong to the range; a null breaks none; the fault counts all rows that do."""
    told = batch([0.0, 10.0, None, 11.0, -1.0, 5.0], chunks=chunks)
    assert fault(told, ranges={"a": (-1, 11)}) is None
    assert fault(told, ranges={"a": (0, 10)}) == "column 'a' holds 11, outside [0, 10] (2 rows)"


def test_duplicates_are_rows_that_repeat_an_earlier_one():
    """Of four equal rows three are repeats."""
    rows = np.zeros((4, 16), np.uint8)
    assert fault(batch([1.0] * 4, rows=rows), duplicates=0.75) is None
    assert fault(batch([1.0] * 4, rows=rows), duplicates=0.7) == "75% of the rows repeat another, limit 70%"


def test_small_batches_are_not_judged():
    """Shares of a few rows say nothing."""
    rules = Quality(nulls=0.0)
    assert rules.fault(batch([None] * 19)) is None
    assert rules.fault(batch([None] * 20)) is not None
    assert not rules.judges(19)
    assert rules.judges(20)
    assert not Quality(least_rows=1).judges(50)


@pytest.mark.parametrize("rules", [{"nulls": 1.5}, {"duplicates": -0.1}, {"ranges": {"a": (2, 1)}}])
def test_settings_are_checked(rules):
    """A share outside [0, 1] and an empty range are errors when the record is made."""
    with pytest.raises(ConfigError):
        Quality(**rules)
