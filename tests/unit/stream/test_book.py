"""Rows in play: what is joined when, what may be learned, and what is let go."""

import numpy as np
import pyarrow as pa
import pytest

from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.protocols import Keep
from perennial.core.records import Batch, Revisions
from perennial.core.times import NEVER
from perennial.stream.book import Book

SCHEMA = Schema([Column("x", Kind.NUMBER, "int64")])
LABELS = ["a", "b", "c"]


def batch(first, known_at, codes=None, *, time=None, **more):
    """Rows whose feature is their position."""
    n = len(known_at)
    position = np.arange(first, first + n)
    rows = np.zeros((n, 16), np.uint8)
    rows[:, :8] = position.astype(np.int64)[:, None].view(np.uint8)
    return Batch(
        start=0, first=first, features=Features.of(Chunk(pa.table({"x": position}), SCHEMA)), rows=rows,
        time=np.asarray(position if time is None else time, np.int64), known_at=np.asarray(known_at, np.int64),
        label_codes=np.asarray(np.zeros(n) if codes is None else codes, np.int32), label_values=LABELS, **more,
    )  # fmt: skip


def log(position, known_at, codes):
    """Labels that came apart from their rows."""
    return Revisions(
        position=np.asarray(position, np.int64), known_at=np.asarray(known_at, np.int64),
        codes=np.asarray(codes, np.int32),
    )  # fmt: skip


@pytest.fixture
def book():
    """An empty book of classes."""
    return Book(SCHEMA, "classification")


def values(examples):
    """Features of examples, which are their positions, and their labels."""
    return examples.features.matrix("int64")[:, 0].tolist(), [examples.classes[c] for c in examples.codes]


def test_labels_leave_when_they_are_known_and_not_before(book):
    """Exactly at the instant counts; order is by instant, then position."""
    book.arrive(batch(0, [5, 3, 9, 3], [0, 1, 2, 0]))
    assert book.due(2).position.tolist() == []
    assert book.due(3).position.tolist() == [1, 3]
    assert book.due(8).position.tolist() == [0]
    assert book.due(100).position.tolist() == [2]
    assert book.due(100).position.tolist() == []


def test_classes_are_appended_in_the_order_in_which_labels_become_known(book):
    """The stream's codes are its own business."""
    book.arrive(batch(0, [5, 3, 9], [0, 1, 2]))
    assert book.due(4).codes.tolist() == [0]
    assert book.classes == ["b"]
    assert book.due(9).codes.tolist() == [1, 2]
    assert book.classes == ["b", "a", "c"]


def test_classes_known_beforehand_come_first(book):
    """A boolean label has both."""
    book = Book(SCHEMA, "classification", ["b", "a"])
    book.arrive(batch(0, [1, 1, 1], [0, 1, 2]))
    assert book.due(1).codes.tolist() == [1, 0, 2]
    assert book.classes == ["b", "a", "c"]


def test_the_latest_label_known_wins(book):
    """A correction replaces the label for windows, and is told from a first label."""
    book.arrive(batch(0, [1, 1, NEVER], [0, 0, -1]))
    assert book.due(1).revised.tolist() == [False, False]
    book.revise(log([0, 2], [4, 6], [1, 2]), LABELS)
    assert values(book.examples(np.array([0, 1]))) == ([0, 1], ["a", "a"])
    later = book.due(10)
    assert later.position.tolist() == [0, 2]
    assert later.revised.tolist() == [True, False]
    assert values(book.examples(np.array([0, 1, 2]))) == ([0, 1, 2], ["b", "a", "c"])


def test_a_label_and_its_correction_in_one_turn(book):
    """The row is joined once as new and once as revised; the correction is what counts."""
    book.arrive(batch(0, [3, 7], [0, 0]))
    book.revise(log([0, 0, 1], [5, 7, 7], [1, 2, 1]), LABELS)
    joined = book.due(10)
    assert joined.position.tolist() == [0, 0, 0, 1, 1]
    assert joined.revised.tolist() == [False, True, True, False, True]
    assert values(book.examples(np.array([0, 1]))) == ([0, 1], ["c", "b"])


@pytest.mark.parametrize("early", [[9, 2], [2, 9]])
def test_of_labels_known_at_the_same_instant_the_one_that_came_last_wins(book, early):
    """However the labels before them lie."""
    book.arrive(batch(0, early, [0, 0]))
    at = early.index(9)
    book.revise(log([at, 1 - at], [9, 1], [1, 1]), LABELS)
    book.due(9)
    assert values(book.examples(np.array([at])))[1] == ["b"]


def test_quarantined_rows_are_joined_and_not_offered(book):
    """Their labels are scored; no window sees them, and no update may learn them."""
    book.arrive(batch(0, [1, 1]), learnable=False)
    book.arrive(batch(2, [1, 1, 5]))
    assert len(book.due(1).position) == 4
    assert cut(book).position.tolist() == [2, 3]
    assert book.learnable(np.array([0, 2, 4, 77])).tolist() == [False, True, False, False]


def cut(book, **settings):
    """What windows see."""
    return book.cut(100, initial=0, label_delay=0, seed=0, **settings)


def test_a_cut_shows_rows_with_a_known_label(book):
    """Or all that came, for a learner of unlabelled rows."""
    book.arrive(batch(0, [1, 50, NEVER]))
    book.due(10)
    assert cut(book).position.tolist() == [0]
    assert cut(book, unlabelled=True).position.tolist() == [0, 1, 2]
    assert book.examples(np.array([0, 1, 2])).codes.tolist() == [0, -1, -1]


def test_an_empty_book_has_an_empty_cut(book):
    """Before any row came."""
    assert len(cut(book).position) == 0
    assert book.rows == book.nbytes == 0


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 0, 3], [2, 4], [3]])
def test_examples_have_the_order_asked_for(book, order):
    """Over several batches and in any order."""
    book.arrive(batch(0, [0, 0, 0], [0, 1, 2]))
    book.arrive(batch(3, [0, 0, 0], [2, 1, 0]))
    book.due(0)
    names = ["a", "b", "c", "c", "b", "a"]
    weights = np.arange(6.0)[order]
    examples = book.examples(np.array(order), weights)
    assert values(examples) == (order, [names[i] for i in order])
    assert examples.weights.tolist() == weights.tolist()
    assert examples.time.tolist() == order


def test_weights_of_window_and_stream_are_multiplied(book):
    """Both say how much an example counts."""
    book.arrive(batch(0, [0, 0], weights=np.array([2.0, 3.0])))
    book.due(0)
    assert book.examples(np.array([0, 1])).weights.tolist() == [2.0, 3.0]
    assert book.examples(np.array([0, 1]), np.array([0.5, 10.0])).weights.tolist() == [1.0, 30.0]


def test_examples_do_not_change_when_labels_do(book):
    """A training that is under way keeps what it was given."""
    book.arrive(batch(0, [0, 0], [0, 0]))
    book.due(0)
    examples = book.examples(np.array([0, 1]))
    book.revise(log([0], [1], [1]), LABELS)
    book.due(1)
    assert examples.codes.tolist() == [0, 0]


def give_up(book, keep, **settings):
    """Let go."""
    book.give_up(keep, **{"initial": 0, "unlearned": 10**9, **settings})


def held(book):
    """Positions that are kept."""
    return [i for rows in book._segments() for i in range(rows.base, rows.stop)]


def test_rows_that_wait_for_a_label_are_kept(book):
    """And everything behind them; what was joined goes."""
    book.arrive(batch(0, [1, 1, 9, 1, 1]))
    book.due(1)
    give_up(book, Keep())
    assert held(book) == [2, 3, 4]
    book.due(9)
    give_up(book, Keep())
    assert held(book) == []
    assert book.nbytes == 0


def test_rows_that_wait_to_be_learned_are_kept(book):
    """From the lowest on."""
    book.arrive(batch(0, [1] * 5))
    book.due(1)
    give_up(book, Keep(), unlearned=3)
    assert held(book) == [3, 4]


def test_rows_without_a_label_are_kept_as_long_as_a_log_may_bring_one(book):
    """From the given instant on; those that have a label go."""
    book.arrive(batch(0, [1, NEVER, 1, NEVER, 1]))
    book.due(1)
    give_up(book, Keep(), waits=2)
    assert held(book) == [3, 4]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(since=4), [4, 5, 6, 7]),
        (Keep(since=40), []),
        (Keep(rows=2), [6, 7]),
        (Keep(rows=2, until=5), [4, 5, 6, 7]),
        (Keep(rows=20), list(range(8))),
        (Keep(everything=True), list(range(8))),
        (Keep(rows=2, initial=True), [0, 1, 2, 6, 7]),
        (Keep(since=5, rows=1), [5, 6, 7]),
    ],
    ids=str,
)
def test_what_the_window_may_ask_for_is_kept(book, keep, kept):
    """The union of what is asked."""
    book.arrive(batch(0, [1] * 8))
    book.due(1)
    give_up(book, keep, initial=3)
    assert held(book) == kept
    assert book.nbytes == 8 * len(kept)
    assert values(book.examples(np.array(kept, dtype=np.int64)))[0] == kept if kept else True


def test_rows_in_quarantine_do_not_count_as_rows_of_a_window(book):
    """A window of the newest two labelled rows looks behind them."""
    book.arrive(batch(0, [1] * 4))
    book.arrive(batch(4, [1] * 4), learnable=False)
    book.due(1)
    give_up(book, Keep(rows=2))
    assert held(book) == [2, 3, 4, 5, 6, 7]


def test_a_correction_of_a_row_that_is_gone_is_no_first_label(book):
    """It is told as revised: nothing is learned from it."""
    book.arrive(batch(0, [1, 1, 9]))
    book.due(1)
    give_up(book, Keep())
    book.revise(log([0], [5], [1]), LABELS)
    joined = book.due(5)
    assert joined.position.tolist() == [0]
    assert joined.revised.tolist() == [True]


def test_initial_rows_that_are_set_aside_still_get_their_corrections(book):
    """Pinned rows are rows like others."""
    book.arrive(batch(0, [1] * 8))
    book.due(1)
    give_up(book, Keep(rows=2, initial=True), initial=3)
    book.revise(log([1, 7], [5, 5], [1, 1]), LABELS)
    assert book.due(5).revised.tolist() == [True, True]
    assert values(book.examples(np.array([0, 1, 2, 7])))[1] == ["a", "b", "a", "b"]
    assert cut(book).position.tolist() == [0, 1, 2, 6, 7]


def test_regression_labels_are_values():
    """Unknown ones are NaN."""
    book = Book(SCHEMA, "regression")
    told = batch(0, [1, 5, NEVER])
    from dataclasses import replace

    book.arrive(replace(told, label_codes=None, labels=np.array([1.5, 2.5, np.nan])))
    assert book.due(1).values.tolist() == [1.5]
    np.testing.assert_array_equal(book.examples(np.array([0, 1])).values, [1.5, np.nan])
