"""Records: examples, their identity, and the small ones."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.core import protocols, records
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.records import Decision, Examples, Loss, Prediction, Version, align, class_array
from perennial.core.times import instant

N = 6
SCHEMA = Schema([Column("x", Kind.NUMBER, "double")])


def examples(sizes: tuple[int, ...] = (N,), schema: Schema = SCHEMA, **change: Any) -> Examples:
    """Six labelled rows, in as many chunks as there are sizes."""
    assert sum(sizes) == N
    x = np.arange(N) / 2
    edges = np.cumsum([0, *sizes])
    parts = [Features.of(Chunk(pa.table({"x": x[a:b]}), schema)) for a, b in itertools.pairwise(edges)]
    settings: dict[str, Any] = {
        "features": Features.join(schema, parts),
        "rows": np.arange(N * 16, dtype=np.uint8).reshape(N, 16),
        "time": np.arange(N),
        "codes": np.array([0, 1, 1, 0, 1, 0], dtype=np.int32),
        "classes": ("no", "yes"),
    }
    return Examples(**{**settings, **change})


def numbers(**change: Any) -> Examples:
    """The same rows with numbers for labels."""
    return examples(**{"codes": None, "classes": (), "values": np.arange(N) / 4, **change})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, N), max_size=3))
def test_the_identity_does_not_depend_on_chunks(cuts: list[int]) -> None:
    """However many pieces the rows came in, they are the same examples."""
    edges = [0, *sorted(cuts), N]
    sizes = tuple(b - a for a, b in itertools.pairwise(edges))
    assert examples(sizes).identity == examples().identity


def test_the_identity_does_not_depend_on_time_or_the_numbering_of_classes() -> None:
    """Labels count by value, and event times do not count at all."""
    base = examples()
    assert examples(time=np.arange(N) + 100).identity == base.identity
    renumbered = examples(codes=1 - base.codes, classes=("yes", "no"))
    assert renumbered.identity == base.identity
    assert examples(classes=("no", "yes", "maybe")).identity == base.identity


CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a label": {"codes": np.array([1, 1, 1, 0, 1, 0], dtype=np.int32)},
    "a label lost": {"codes": np.array([-1, 1, 1, 0, 1, 0], dtype=np.int32)},
    "another label lost": {"codes": np.array([0, -1, 1, 0, 1, 0], dtype=np.int32)},
    "the classes' names": {"classes": ("no", "maybe")},
    "the classes' type": {"classes": (0, 1)},
    "the classes' type again": {"classes": ("0", "1")},
    "true and false": {"classes": (False, True)},
    "weights": {"weights": np.ones(N)},
    "other weights": {"weights": np.arange(N) + 1.0},
    "groups": {"groups": np.arange(N)},
    "other groups": {"groups": np.arange(N)[::-1]},
    "groups that are words": {"groups": np.array(list("012345"))},
    "a row": {"rows": np.arange(N * 16, dtype=np.uint8)[::-1].reshape(N, 16)},
    "the schema": {"schema": Schema([Column("y", Kind.NUMBER, "double")])},
    "labels that are numbers": {"codes": None, "values": np.zeros(N)},
    "other numbers": {"codes": None, "values": np.arange(N) * 1.0},
}


def test_the_identity_changes_with_all_that_a_learner_sees() -> None:
    """Labels, weights, groups, rows and schema each make other examples, and no two changes make the same."""
    seen = {name: examples(**change).identity for name, change in CHANGES.items()}
    assert len(set(seen.values())) == len(seen)


def test_the_identity_depends_on_order() -> None:
    """The same rows in another order are other examples."""
    base = examples()
    assert base.take(np.arange(N)[::-1].copy()).identity != base.identity
    assert base.take(np.arange(N)).identity == base.identity


def test_a_class_that_no_row_has_does_not_change_rows_without_a_label() -> None:
    """An unlabelled row has no label by value: growing the class table leaves the identity as it was."""
    codes = np.array([-1, 1, 1, 0, 1, 0], dtype=np.int32)
    assert examples(codes=codes).identity == examples(codes=codes, classes=("no", "yes", "maybe")).identity


def test_a_row_without_a_label_is_not_shown_as_one_of_the_classes() -> None:
    """`y` never says that an unlabelled row is of the last class."""
    codes = np.array([-1, 1, 1, 0, 1, 0], dtype=np.int32)
    assert examples(codes=codes).y.tolist()[0] not in ("no", "yes")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, N), st.integers(0, N), st.booleans())
def test_slices_and_takes_carry_everything(start: int, stop: int, regression: bool) -> None:
    """A part of the examples has its own part of every column, and slicing is taking."""
    extra = {"weights": np.arange(N) + 1.0, "groups": np.arange(N) * 10}
    whole = numbers(**extra) if regression else examples(**extra)
    part, taken = whole.slice(start, stop), whole.take(np.arange(start, max(start, stop)))
    assert len(part) == max(0, stop - start)
    assert part.identity == taken.identity
    for one in (part, taken):
        np.testing.assert_array_equal(one.time, whole.time[start:stop])
        np.testing.assert_array_equal(one.rows, whole.rows[start:stop])
        np.testing.assert_array_equal(one.weights, whole.weights[start:stop])
        np.testing.assert_array_equal(one.groups, whole.groups[start:stop])
        np.testing.assert_array_equal(one.y, whole.y[start:stop])
        np.testing.assert_array_equal(one.features.matrix(), whole.features.matrix()[start:stop])
        assert one.classes == whole.classes


def test_labels_are_shown_as_the_user_wrote_them() -> None:
    """Class values for classification, numbers for regression."""
    assert examples().y.tolist() == ["no", "yes", "yes", "no", "yes", "no"]
    assert numbers().y.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


@pytest.mark.parametrize("classes", [("a", "b"), (1, 2), (True, False), (1, "1"), (1.5, 2), (), (0, False)])
def test_a_class_array_keeps_each_class_as_it_is(classes: tuple[Any, ...]) -> None:
    """1 and "1" stay apart, as do 0 and False."""
    kept = class_array(classes).tolist()
    assert kept == list(classes)
    assert [type(c) for c in kept] == [type(c) for c in classes]


def test_the_mean_loss() -> None:
    """Total over number, NaN for none."""
    assert Loss(n=4, total=2.0).mean == 0.5
    assert np.isnan(Loss().mean)


def test_a_prediction_is_as_long_as_its_rows() -> None:
    """Codes or values say how many."""
    assert len(Prediction(codes=np.zeros(3, np.int32), classes=("a",))) == 3
    assert len(Prediction(values=np.zeros(2))) == 2


def test_a_version_says_its_number_and_time() -> None:
    """MAJOR.MINOR, and an aware UTC instant."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    version = Version(
        major=2, minor=7, parent="2.6", kind="update", at=instant(at), ready_at=instant(at), trained_rows=1,
        row_trees=0, first=0, last=0, newest=0, data="", key=None, reason="",
    )  # fmt: skip
    assert version.number == "2.7"
    assert version.trained_at == at


RECORDS = [
    record
    for module in (records, protocols)
    for record in vars(module).values()
    if isinstance(record, type) and dataclasses.is_dataclass(record) and record.__module__ == module.__name__
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_records_are_frozen_and_documented(record: Any) -> None:
    """No record changes after it was made, and each says what it is; all but the shortest are keyword-only."""
    assert record.__dataclass_params__.frozen
    assert record.__doc__
    if record is not Decision:
        assert all(field.kw_only for field in dataclasses.fields(record))


def test_align_translates_classes_by_value_and_type():
    """Codes follow labels; classes that the table lacks are unseen; 1 and True are two classes."""
    told = Prediction(codes=np.array([0, 1, 2, -1, -2], np.int32), proba=np.eye(5, 3), classes=("x", True, 1))
    out = align(told, (1, "x"))
    assert out.codes.tolist() == [1, -2, 0, -1, -2]
    assert out.proba[:3].tolist() == [[0, 1], [0, 0], [1, 0]]


def test_align_survives_a_model_that_knows_no_class_yet():
    """A code that says `unseen` is no index."""
    told = Prediction(codes=np.array([-2, -1], np.int32), proba=np.empty((2, 0)), classes=())
    out = align(told, ("a",))
    assert out.codes.tolist() == [-2, -1]
    assert out.proba.tolist() == [[0.0], [0.0]]
