"""Golden rows: what a model said before it was saved, to hold against what it says after it was loaded.

A saved model is only promoted when it gives back, bit for bit, what it said: a tree that reloads without an error may
still predict something else. The rows are a few of the stream's own or, where none may be kept, made up.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.errors import DataError, FormatError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.core.protocols import Learner
from perennial.core.records import Prediction
from perennial.learners.saved import join, part

FORMAT = 1
GOLDEN_ROWS = 32  #: of a golden set: the first rows of a batch, or of the source
_KEY = b"perennial"
_PROSE = ("nothing in particular", "a second short text, with 2 numbers: 17 and 4", "The third one.")


class Bounded(Protocol):
    """The least and the greatest number of a column, None where there is none."""

    @property
    def low(self) -> float | None:
        """The least."""
        ...

    @property
    def high(self) -> float | None:
        """The greatest."""
        ...


# -- rows -------------------------------------------------------------------------------------------------------------


def golden_inputs(features: Features, limit: int = GOLDEN_ROWS) -> bytes:
    """At most ``limit`` rows, evenly spread over ``features``, as one canonical Arrow stream.

    Equal rows give equal bytes, however they are cut into chunks. Of a vocabulary it holds the words of these rows.
    """
    n, schema = len(features), features.schema
    spread = np.linspace(0, max(n - 1, 0), min(max(limit, 0), n))
    chosen = np.unique(spread.astype(np.int64))
    tables = [
        chunk.table.take(pa.array(np.arange(index.start, index.stop) if isinstance(index, slice) else index))
        for chunk, index in features.take(chosen).parts
    ]
    if not tables:
        raise DataError("there is no row to make golden inputs of: give some, or use synthetic ones")
    table = pa.concat_tables(tables).combine_chunks()
    columns = [_without_hidden(table.column(j).combine_chunks()) for j in range(len(schema))]
    facts = {
        "format": FORMAT,
        "columns": [[c.name, str(c.kind), c.dtype] for c in schema.columns],
        "words": {schema.names[j]: _words(schema, j, columns[j].to_numpy()) for j in schema.categories},
    }
    fields = [pa.field(name, column.type) for name, column in zip(schema.names, columns, strict=True)]
    shown = pa.schema(fields, metadata={_KEY: json.dumps(facts, separators=(",", ":"))})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, shown) as writer:
        writer.write_table(pa.table(columns, schema=shown))
    return out.getvalue()


def _without_hidden(column: Any) -> Any:
    """The column without the values that lie under its nulls."""
    return pa.array(column.to_pylist(), type=column.type) if column.null_count else pa.concat_arrays([column])


def _words(schema: Schema, j: int, codes: NDArray[np.int32]) -> list[list[Any]]:
    words = schema.vocabularies[schema.names[j]].words
    return [[code, words[code]] for code in np.unique(codes[codes >= 0]).tolist()]


def read_inputs(golden: bytes) -> Features:
    """The rows that :func:`golden_inputs` kept: their codes are the ones that the model knows.

    Raises
    ------
    FormatError
        If it is no such thing, or of a newer release.
    """
    try:
        table = pa.ipc.open_stream(golden).read_all()
        facts = json.loads(table.schema.metadata[_KEY])
        if facts["format"] > FORMAT:
            raise FormatError(
                f"golden rows of format {facts['format']}; this release reads 1..{FORMAT}: upgrade perennial"
            )
        columns = [Column(name, Kind(kind), dtype) for name, kind, dtype in facts["columns"]]
        vocabularies = {name: _vocabulary(pairs) for name, pairs in facts["words"].items()}
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"these are no golden rows, or damaged ones ({error}): restore them") from error
    return Features.of(Chunk(table.replace_schema_metadata(None), Schema(columns, vocabularies)))


def _vocabulary(pairs: list[list[Any]]) -> Vocabulary:
    """The words at their codes; codes of words that were left out stand for nothing."""
    words = [""] * (max((code for code, _ in pairs), default=-1) + 1)
    for code, word in pairs:
        words[code] = word
    return Vocabulary(words)


def synthetic(schema: Schema, bounds: Mapping[str, Bounded], rows: int = GOLDEN_ROWS, seed: int = 0) -> Features:
    """Made-up rows for a deployment that may keep no raw one, the same for the same arguments.

    Numbers are drawn evenly from between a column's bounds, or from [-1, 1] without any; whole numbers and booleans
    stay such. Words are those that the vocabulary has; prose is ours; dates are days of the year 2000.

    Parameters
    ----------
    schema : Schema
        The columns, as the model sees them.
    bounds : mapping of str to Bounded
        By column name. Columns may be missing.
    rows, seed : int
        How many, and which.

    Raises
    ------
    DataError
        If a column is of a type that cannot be made up.
    """
    draw = np.random.default_rng(seed)
    columns = []
    for column in schema.columns:
        share = draw.random(rows)
        if column.kind is Kind.CATEGORY:
            known = len(schema.vocabularies[column.name])
            columns.append(pa.array((share * known).astype(np.int32) if known else np.full(rows, -1, dtype=np.int32)))
        elif column.kind is Kind.TEXT:
            columns.append(pa.array([_PROSE[i % len(_PROSE)] for i in range(rows)], type=_type(column)))
        else:
            columns.append(_drawn(column, share, bounds.get(column.name)))
    return Features.of(Chunk(pa.table(columns, names=list(schema.names)), schema))


def _drawn(column: Column, share: NDArray[np.float64], bound: Bounded | None) -> Any:
    dtype = _type(column)
    low, high = (-1.0, 1.0) if bound is None or bound.low is None or bound.high is None else (bound.low, bound.high)
    values = low + (high - low) * share
    if pa.types.is_boolean(dtype):
        return pa.array(share < 0.5)
    if pa.types.is_temporal(dtype) and not pa.types.is_time(dtype):
        days = np.datetime64("2000-01-01", "D") + np.floor(share * 366).astype("timedelta64[D]")
        return pa.array(days).cast(pa.timestamp("us")).cast(pa.timestamp("us", getattr(dtype, "tz", None))).cast(dtype)
    try:
        return pa.array(np.round(values) if pa.types.is_integer(dtype) else values).cast(dtype, safe=False)
    except pa.ArrowException as error:
        raise _no_rows(column) from error


def _type(column: Column) -> Any:
    """The Arrow type that a column's text names."""
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", column.dtype):
        return pa.timestamp(found[1], found[2])
    if found := re.fullmatch(r"decimal(128|256)\((\d+), (\d+)\)", column.dtype):
        return (pa.decimal128 if found[1] == "128" else pa.decimal256)(int(found[2]), int(found[3]))
    try:
        return pa.type_for_alias(column.dtype)
    except ValueError as error:
        raise _no_rows(column) from error


def _no_rows(column: Column) -> DataError:
    return DataError(
        f"column {column.name!r} holds {column.dtype}, which cannot be made up: give golden rows of your own, "
        "or list it under `drop`"
    )


# -- what a model says of them ----------------------------------------------------------------------------------------


def reproduces(before: Learner, loaded: Learner, features: Features) -> bool:
    """Whether two models say the same of every row, to the last bit."""
    return said(before.predict(features)) == said(loaded.predict(features))


def golden_set(model: Learner, features: Features, limit: int = GOLDEN_ROWS) -> bytes:
    """Golden rows, and what ``model`` says of them: what to keep beside a saved model.

    The rows are asked as they will be read, so that their chunks and vocabularies make no difference.
    """
    inputs = golden_inputs(features, limit)
    return join({"format": FORMAT, "said": said(model.predict(read_inputs(inputs)))}, [inputs])


def reproduces_set(model: Learner, golden: bytes) -> bool:
    """Whether a model says of golden rows what another one said, to the last bit; see :func:`golden_set`."""
    header, (inputs,) = part(golden)
    return said(model.predict(read_inputs(inputs))) == str(header["said"])


def said(prediction: Prediction) -> str:
    """The SHA-256 of a prediction: classes with their types, codes, probabilities and values, bit by bit."""
    sha = hashlib.sha256(json.dumps(prediction.classes).encode())
    for values in (prediction.codes, prediction.proba, prediction.values):
        sha.update(b"-" if values is None else f"{values.dtype}{values.shape}".encode())
        sha.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
    return sha.hexdigest()
