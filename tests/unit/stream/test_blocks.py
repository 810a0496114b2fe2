"""Fits from sums of block statistics equal fits on all rows, and read rows once."""

import numpy as np
import pytest

from perennial.learners import plain
from perennial.stream import blocks
from perennial.stream.blocks import BlockSums
from perennial.testing import make_examples

SMALL = 50


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "GRID", SMALL)


class Counting:
    """A summable learner that counts the rows it summarised."""

    def __init__(self, inner):
        self.inner, self.rows = inner, 0

    def summarise(self, examples):
        self.rows += len(examples)
        return self.inner.summarise(examples)

    def fit_sum(self, sums, examples):
        return self.inner.fit_sum(sums, examples)


LEARNERS = {
    "ridge": (plain.Ridge(), "regression"),
    "naive bayes": (plain.GaussianNB(), "classification"),
}


def told(model, data):
    """What a model predicts, as numbers."""
    prediction = model.predict(data.features)
    return prediction.values if prediction.values is not None else prediction.proba


@pytest.mark.parametrize("name", LEARNERS)
def test_a_sliding_window_equals_refitting_and_reads_each_row_about_once(name):
    """At every step the model is that of a fit on the window, to 1e-8."""
    learner, task = LEARNERS[name]
    counting = Counting(learner)
    grid = BlockSums(counting)
    data = make_examples(1000, task=task)
    for start in range(0, 750, 50):
        position = np.arange(start, start + 250)
        window = data.slice(start, start + 250)
        np.testing.assert_allclose(
            told(grid.fit(position, window), data), told(learner.fit(window, 0), data), atol=1e-8
        )
    assert counting.rows <= 1000 + 15 * 2 * SMALL


@pytest.mark.parametrize("name", LEARNERS)
def test_rows_missing_inside_a_block_are_missing_from_the_sum(name):
    """A row whose label came late joins its block later: the block is summed anew."""
    learner, task = LEARNERS[name]
    grid = BlockSums(learner)
    data = make_examples(200, task=task)
    all_rows = np.arange(200)
    for gone in ([], [60, 61, 130], [60], []):
        position = np.setdiff1d(all_rows, gone)
        window = data.take(position)
        np.testing.assert_allclose(
            told(grid.fit(position, window), data), told(learner.fit(window, 0), data), atol=1e-8
        )


def test_a_revised_label_is_summed_anew_once_forgotten():
    """The members of a block are the same, and its statistics are not."""
    data = make_examples(200)
    flipped = make_examples(200)
    flipped.codes[60:90] = 1 - flipped.codes[60:90]
    learner = plain.GaussianNB()
    grid = BlockSums(learner)
    grid.fit(np.arange(200), data)
    grid.forget(np.arange(60, 90))
    np.testing.assert_allclose(
        told(grid.fit(np.arange(200), flipped), data), told(learner.fit(flipped, 0), data), atol=1e-8
    )


def test_a_class_that_first_appears_later_joins_old_blocks():
    """Blocks summed when the table was shorter go on to be used."""
    from dataclasses import replace

    full = make_examples(300, classes=("a", "b", "c"))
    codes = np.where(np.arange(300) < 150, full.codes % 2, full.codes).astype(np.int32)
    full = replace(full, codes=codes)
    learner = plain.GaussianNB()
    grid = BlockSums(learner)
    grid.fit(np.arange(150), replace(full.slice(0, 150), classes=("a", "b")))
    model = grid.fit(np.arange(300), full)
    np.testing.assert_allclose(told(model, full), told(learner.fit(full, 0), full), atol=1e-8)


def test_only_blocks_of_the_window_are_kept():
    """Memory follows the window."""
    grid = BlockSums(plain.Ridge())
    data = make_examples(2000, task="regression")
    for start in range(0, 1800, 50):
        grid.fit(np.arange(start, start + 150), data.slice(start, start + 150))
        assert len(grid._whole) <= 4
