"""Evidence: sums by block, late labels, bounded memory, and what it refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from perennial.core.errors import DataError, FormatError
from perennial.gate import Evidence
from perennial.gate.evidence import MOST_BLOCKS


def evidence(*blocks):
    """Evidence from the differences of each block."""
    key = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    return Evidence().add(key, np.concatenate([np.asarray(block, dtype=float) for block in blocks]))


def test_rows_are_summed_by_block_whatever_their_order():
    """Blocks come out ascending, with counts and sums."""
    found = Evidence().add(np.array([5, 3, 5]), np.array([1.0, -1.0, 0.5]))
    assert (found.keys, found.rows, found.sums) == ((3, 5), (1, 2), (-1.0, 1.5))
    assert (found.n, found.squares, found.largest) == (3, 2.25, 1.0)


def test_a_late_label_counts_in_its_own_block():
    """Not in the one that is open when it comes."""
    late = Evidence().add(np.array([1, 2]), np.array([1.0, 0.0])).add(np.array([1]), np.array([-1.0]))
    assert late == Evidence().add(np.array([1, 1, 2]), np.array([1.0, -1.0, 0.0]))


def test_adding_changes_nothing_in_place():
    """A trial that is rolled back keeps the evidence it had."""
    before = Evidence().add(np.array([1]), np.array([1.0]))
    before.add(np.array([1]), np.array([1.0]))
    assert before.rows == (1,)
    assert before.add(np.array([], dtype=np.int64), np.array([])) is before


@pytest.mark.parametrize(("bad", "shown"), [(math.nan, "nan"), (math.inf, "inf")])
def test_a_loss_that_is_no_number_is_refused_by_name(bad, shown):
    """The message names the row, the value and what to do."""
    with pytest.raises(DataError, match=rf"difference of row 1 is {shown}, and 1 more .* did not predict .*NaN"):
        Evidence().add(np.array([1, 1, 1]), np.array([0.0, bad, bad]))


def test_one_block_for_each_row():
    """A shorter array is not stretched."""
    with pytest.raises(DataError, match="one block for each row"):
        Evidence().add(np.array([1]), np.array([0.0, 1.0]))


def test_the_mean_is_over_rows_and_its_error_over_blocks():
    """By hand: blocks of 2, 2 and 4 rows with sums 2, -1 and 0; k = 64 / 24."""
    found = evidence([1, 1], [-1, 0], [1, -1, 0, 0]).estimate()
    mean, k = 1 / 8, 64 / 24
    spread = (2 - 2 * mean) ** 2 + (-1 - 2 * mean) ** 2 + (0 - 4 * mean) ** 2
    assert (found.rows, found.blocks, found.mean) == (8, 3, mean)
    assert found.effective_blocks == pytest.approx(k)
    assert found.error == pytest.approx(math.sqrt(k / (k - 1) * (spread + 1)) / 8)


def test_blocks_that_differ_raise_the_design_effect():
    """All of the difference between blocks: the mean of n rows is as unsure as that of k."""
    apart = evidence(*([[1.0] * 10, [-1.0] * 10] * 20)).estimate()
    alike = evidence(*([[1.0, -1.0] * 5] * 40)).estimate()
    assert apart.design_effect == pytest.approx(10, rel=0.05)
    assert alike.design_effect == 0


def test_without_any_difference_the_next_row_might_differ():
    """The error is that of one mistake, so that nothing is certain after a few rows."""
    found = evidence(*([[0.0] * 5] * 10)).estimate()
    assert found.mean == 0
    assert found.error == pytest.approx(math.sqrt(10 / 9) / 50)
    assert math.isnan(found.design_effect)


@pytest.mark.parametrize("found", [Evidence(), evidence([1.0, 0.0])])
def test_less_than_two_blocks_say_nothing_of_the_error(found):
    """It is infinite."""
    assert found.estimate().error == math.inf


def test_memory_is_bounded_and_the_mean_stays():
    """Neighbours are joined, into blocks that are a power of two of the caller's; late rows still find theirs."""
    rng = np.random.default_rng(0)
    keys, d = np.arange(-3000, 3000), rng.choice([-1.0, 0.0, 1.0], 6000)
    found = Evidence().add(keys, d)
    assert MOST_BLOCKS / 2 < len(found.keys) <= MOST_BLOCKS
    assert found.coarse == 3
    assert found.n == 6000
    assert found.estimate().mean == d.mean()
    late = found.add(np.array([-2999]), np.array([1.0]))
    assert late.rows[0] == found.rows[0] + 1
    assert late.keys == found.keys


def test_json_keeps_it_exactly():
    """Floats come back bit for bit."""
    found = evidence([0.1, 0.2], [1e-300, -1 / 3])
    assert Evidence.from_plain(json.loads(json.dumps(found.to_plain()))) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2; this release reads 1: upgrade perennial"),
        ({"format": None}, "format None"),
        ({"rows": [1]}, "one length"),
        ({"rows": [1, 0]}, "at least one row"),
        ({"keys": [1, 1]}, "ascending"),
        ({"sums": [0.0, math.nan]}, "not finite"),
        ({"coarse": -1}, "one length"),
        ({"keys": None}, "damaged"),
        ({"squares": "x"}, "damaged"),
    ],
)
def test_damage_is_told(change, message):
    """What cannot be evidence is refused before anything is judged by it."""
    plain = evidence([1.0], [0.0]).to_plain() | change
    with pytest.raises(FormatError, match=message):
        Evidence.from_plain(plain)


def test_what_is_missing_is_told():
    """A key that is not there is named."""
    plain = evidence([1.0], [0.0]).to_plain()
    del plain["sums"]
    with pytest.raises(FormatError, match="sums"):
        Evidence.from_plain(plain)
