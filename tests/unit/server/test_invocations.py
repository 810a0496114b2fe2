"""MLflow's protocol: what is read of a request in each of its forms, and what is written of an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.core.records import Prediction
from perennial.server import invocations
from perennial.server.answering import Asked, Head, Said
from perennial.server.failures import Refused
from perennial.server.rows import Answered, Rows
from perennial.server.signature import Policy, Signature

TYPED = Signature(
    {"a": pa.float64(), "n": pa.int64(), "flag": pa.bool_(), "word": pa.string()},
    id=("call", pa.string()),
    key=("person", pa.int64()),
)
NUMBERS = Signature({"a": pa.float64(), "b": pa.float64()})


def read(body: Any, *, signature: Signature = TYPED, policy: Policy | None = None, kind: bytes = b"") -> Asked:
    """A request as it is read."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return invocations.Reader(policy or Policy())(data, Head(None, kind, "h", None), signature)[0]


def csv(text: str, **more: Any) -> Rows:
    """A table in text as it is read."""
    return read(text.encode(), kind=b"text/csv; charset=utf-8", **more).rows


def refused(call: Any, status: int, words: str) -> None:
    """The call is refused with a status, and these words."""
    with pytest.raises(Refused) as caught:
        call()
    assert (caught.value.status, words in str(caught.value)) == (status, True), str(caught.value)


rows = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "n": st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
            "flag": st.none() | st.booleans(),
            "word": st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1),
        }
    ),
    min_size=1,
    max_size=8,
)


@given(rows)
def test_every_form_is_the_same_rows(records: list[dict[str, Any]]) -> None:
    """Frames, records, lists, columns, and text."""
    lists = [[record[name] for name in TYPED.names] for record in records]
    columns = {name: [record[name] for record in records] for name in TYPED.names}
    lines = [",".join(TYPED.names)] + [",".join(_field(value) for value in row) for row in lists]
    wanted = read({"dataframe_records": records}).rows
    for other in (
        read({"dataframe_split": {"columns": list(TYPED.names), "index": [5], "data": lists}}).rows,
        read({"dataframe_split": {"data": lists}}).rows,
        read({"instances": records}).rows,
        read({"instances": lists}).rows,
        read({"inputs": lists}).rows,
        read({"inputs": columns}).rows,
        read({"inputs": {name: [[value] for value in values] for name, values in columns.items()}}).rows,
        csv("\n".join(lines)),
    ):
        assert np.array_equal(other.numbers, wanted.numbers, equal_nan=True)
        assert other.others == wanted.others


def _field(value: Any) -> str:
    if value is None:
        return ""
    return '"' + value.replace('"', '""') + '"' if isinstance(value, str) else repr(value)


def test_nan_as_mlflow_writes_it() -> None:
    """JSON has none; Python's own writes it all the same, and the policy is heeded."""
    body = b'{"instances": [[NaN, 1], [2, -Infinity]]}'
    refused(lambda: read(body, signature=NUMBERS), 422, "column 'b' (double), row 1: an infinite number")
    found = read(body, signature=NUMBERS, policy=Policy(infinite="null")).rows.numbers
    assert np.array_equal(found, [[np.nan, 1], [2, np.nan]], equal_nan=True)
    refused(lambda: read(body, signature=NUMBERS, policy=Policy(nan="refuse")), 422, "the body has a NaN")
    refused(lambda: read(b'{"instances": [[NaN'), 400, "no JSON")
    refused(lambda: read(b"NaN" + b"[" * 100_000), 400, "no JSON")
    refused(lambda: read(b"[NaN]"), 400, "no JSON object")


@pytest.mark.parametrize("value", ['"\\ud800"', "9" * 30])
def test_what_json_cannot_hold_is_refused_beside_a_nan_too(value: str) -> None:
    """Half a character, and a number of more than 64 bits, pass Python's reader, which NaN needs."""
    body = f'{{"instances": [{{"a": NaN, "b": {value}}}]}}'.encode()
    refused(lambda: read(body), 400, "no JSON")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "give rows under one of"),
        ({"instances": [], "inputs": []}, 400, "give rows under one of"),
        ({"dataframe_split": []}, 400, "`columns` and `data`"),
        ({"dataframe_split": {"columns": 5, "data": []}}, 400, "`columns` is no list"),
        ({"dataframe_records": {}}, 400, "a list of objects"),
        ({"instances": 5}, 400, "a list of rows"),
        ({"inputs": {"a": 5}}, 400, "column 'a' is none"),
        ({"instances": [], "params": {"more": 1}}, 422, "`params`"),
        ({"instances": [], "params": [1]}, 422, "`params`"),
    ],
)
def test_what_is_none_of_the_forms(body: Any, status: int, words: str) -> None:
    """Is refused, by what is missing."""
    refused(lambda: read(body), status, words)


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("", 400, "the body is empty"),
        ("a,n,flag,word\n1,2,true", 422, "row 0 has 3 values, the line of names 4"),
        ("a,n,flag,word\nx,2,true,w", 422, "column 'a', row 0: text"),
        ("a,n,flag,word\n1,2.5,true,w", 422, "column 'n' (int64), row 0: a fraction"),
        ("a,n,flag,word\n1,2,yes,w", 422, "column 'flag', row 0: text"),
        ("a,a,flag,word\n1,2,true,w", 422, "two columns have the same name"),
        ('a,n,flag,word\n1,2,true,"w', 400, "no CSV"),
        ("a,n,flag,word,call\n1,2,true,w,", 422, "column 'call', row 0: an id is missing"),
        ("a,n,flag,word,person\n1,2,true,w,p", 422, "column 'person', row 0: text"),
        ("a,n,flag,word\ninf,2,true,w", 422, "an infinite number"),
    ],
)
def test_text_that_is_no_table(text: str, status: int, words: str) -> None:
    """By row and column, as anything else."""
    refused(lambda: csv(text), status, words)


def test_text_with_ids_keys_and_nan() -> None:
    """What is not a number in a file is heeded by the policy; a mark of the byte order is none of the first name."""
    found = csv("\ufeffa,n,flag,word,call,person\nnan,2,0,,c1,7\n\n1.5,,True,w,c2,\n")
    assert np.array_equal(found.numbers[:, :3], [[np.nan, 2, 0], [1.5, np.nan, 1]], equal_nan=True)
    assert (found.ids, found.keys, found.others) == (["c1", "c2"], [7, None], {"word": [None, "w"]})
    refused(lambda: csv("a,n,flag,word\nnan,2,0,w", policy=Policy(nan="refuse")), 422, "column 'a', row 0: NaN")
    refused(lambda: read(b"\xff", kind=b"text/csv"), 400, "no CSV")
    refused(lambda: read(b"{}", kind=b"application/x-protobuf"), 415, "neither")


def test_the_answer() -> None:
    """Predictions, the version and the ids; probabilities where they were asked for."""
    prediction = Prediction(
        codes=np.array([1, -1], np.int32), proba=np.array([[0.25, 0.75], [0.5, 0.5]]), classes=("n", "y")
    )
    rows = Rows(n=2, numbers=np.ones((2, 2)), others={})
    said = Said("r", Answered(time=0, ids=["r/0", "r/1"], rows=rows, version="3.1", prediction=prediction))
    plain = {"predictions": ["y", None], "version": "3.1", "ids": ["r/0", "r/1"]}
    assert orjson.loads(invocations.write(said, False)[0]) == plain
    more = {"probabilities": [[0.25, 0.75], [0.5, 0.5]], "classes": ["n", "y"]}
    assert orjson.loads(invocations.write(said, True)[0]) == plain | more
    said.answered.prediction = Prediction(values=np.array([1.5, np.nan]))
    assert orjson.loads(invocations.write(said, True)[0]) == plain | {"predictions": [1.5, None]}
