"""Slices: which rows belong to one, and which are refused before any work."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pyarrow as pa
import pytest

from perennial.core.errors import ConfigError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.gate import Between, Gate, Slice

COLUMNS = [
    Column("age", Kind.NUMBER, "double"),
    Column("member", Kind.NUMBER, "bool"),
    Column("job", Kind.CATEGORY, "string"),
    Column("note", Kind.TEXT, "string"),
]


@pytest.fixture
def features():
    """Five rows in two chunks, the second of them taken in part and out of order."""
    words = Vocabulary(["student", "retired", "clerk"])
    schema = Schema(COLUMNS, {"job": words})
    one = {"age": [17.0, 30.0], "member": [True, False], "job": [0, 1], "note": ["a", "b"]}
    two = {
        "age": [None, 18.0, 29.9, 55.0],
        "member": [True, None, True, False],
        "job": [2, -1, 0, 1],
        "note": [None] * 4,
    }

    def chunk(cols):
        types = [pa.float64(), pa.bool_(), pa.int32(), pa.string()]
        return Chunk(
            pa.table([pa.array(c, t) for c, t in zip(cols.values(), types, strict=True)], names=list(cols)), schema
        )

    return Features(schema, [(chunk(one), slice(0, 2)), (chunk(two), np.array([2, 0, 1]))], 5)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"job": "student"}, [0, 2]),
        ({"job": ["student", "retired"]}, [0, 1, 2]),
        ({"job": [None]}, [4]),
        ({"job": ["clerk", None]}, [3, 4]),
        ({"job": "never seen"}, []),
        ({"age": {"least": 18, "below": 30}}, [2, 4]),
        ({"age": {"least": 18}}, [1, 2, 4]),
        ({"age": Between(below=18)}, [0]),
        ({"age": 30}, [1]),
        ({"age": [30, None]}, [1, 3]),
        ({"member": True}, [0, 2, 3]),
        ({"member": [None]}, [4]),
        ({"member": True, "age": {"below": 20}}, [0]),
    ],
)
def test_members_are_the_rows_whose_columns_are_as_said(features, where, rows):
    """Across chunks, with missing values in no slice that does not name them, and ranges open above."""
    assert np.flatnonzero(Slice(where=where).members(features)).tolist() == rows


def test_a_word_never_seen_is_a_slice_of_rows_to_come(features):
    """And its code is not given away by asking for it."""
    vocabulary = features.schema.vocabularies["job"]
    part = Slice(where={"job": "nurse"})
    assert not part.members(features).any()
    assert vocabulary.words == ["student", "retired", "clerk"]
    vocabulary.encode(["nurse"])
    assert vocabulary.code("nurse") == 3


def test_several_slices_side_by_side(features):
    """A column for each, in the order of the gate's."""
    gate = Gate(slices={"young": Slice(where={"age": {"below": 18}}), "students": Slice(where={"job": "student"})})
    assert gate.members(features).T.tolist() == [[True, False, False, False, False], [True, False, True, False, False]]


@pytest.mark.parametrize(
    ("where", "whole", "field", "words"),
    [
        ({"jbo": "student"}, False, r"where\.jbo", "did you mean `job`"),
        ({"job": "studnet"}, True, r"where\.job", "did you mean `student`"),
        ({"job": 3}, False, r"where\.job", "holds words"),
        ({"job": {"least": 3}}, False, r"where\.job", "holds words"),
        ({"age": "old"}, False, r"where\.age", "holds numbers"),
        ({"note": "a"}, False, r"where\.note", "told by numbers or categories"),
    ],
)
def test_what_the_stream_does_not_have_is_refused_by_name(features, where, whole, field, words):
    """The setting, the rule and the nearest word there is."""
    gate = Gate(slices={"some": Slice(where=where)})
    with pytest.raises(ConfigError, match=words) as refused:
        gate.check_columns(features.schema, whole=whole)
    assert refused.value.field.startswith("gate.slices.some.where")
    Gate(slices={"some": Slice(where={"job": "nurse"})}).check_columns(features.schema, whole=False)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"where": {}}, "where"),
        ({"where": "job"}, "where"),
        ({"where": {"age": []}}, "where.age"),
        ({"where": {"age": object()}}, "where.age"),
        ({"where": {"age": math.nan}}, "where.age"),
        ({"where": {"age": {"from": 3}}}, "where.age.from"),
        ({"where": {"age": {}}}, "where.age.least"),
        ({"where": {"age": {"least": 3, "below": 3}}}, "where.age.below"),
        ({"where": {"age": {"least": "3"}}}, "where.age.least"),
        ({"where": {"age": 3}, "margin": 0.0}, "margin"),
        ({"where": {1: 3}}, "where"),
    ],
)
def test_what_is_no_slice_is_refused(given, field):
    """By name."""
    with pytest.raises(ConfigError) as refused:
        Slice(**given)
    assert refused.value.field == field


def test_equal_slices_are_equal_and_travel():
    """However their ranges were written; other processes get them too."""
    one = Slice(where={"age": {"least": 18}, "job": ["a"]})
    other = Slice(where={"age": Between(least=18), "job": "a"})
    assert one == other
    assert repr(one) == repr(other)
    assert pickle.loads(pickle.dumps(one)) == one
