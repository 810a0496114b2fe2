"""Labelled rows of a file apart from the stream: what a model must go on knowing, whatever the stream brings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError
from perennial.core.features import Column, Features, Kind, Schema
from perennial.core.records import Label, TaskKind, typed
from perennial.stream.encoding import Encoder
from perennial.stream.settings import Stream
from perennial.stream.sources import Widened, canonical_type, files_of, open_files

_FIELD = "gate.golden.file"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Rows with the feature columns of a stream, and their labels, n of them. Can be pickled.

    Parameters
    ----------
    digest : str
        SHA-256 of the files.
    truth : array of int32 or float64, shape (n,)
        Codes into ``classes``, or values.
    classes : tuple
        The labels in order of first appearance; none for a regression.
    rows : pyarrow.Table
        The features as they were read, in the stream's types.
    text : tuple of str
        Columns of prose.
    """

    digest: str
    truth: NDArray[Any]
    classes: tuple[Label, ...]
    rows: Any = field(repr=False)
    text: tuple[str, ...] = ()

    def features(self, schema: Schema) -> Features:
        """The rows, encoded with the words that a schema has by now; those it lacks get codes behind them.

        The schema learns nothing of them.
        """
        encoder = Encoder({f.name: f.type for f in self.rows.schema}, self.text)
        for name, vocabulary in schema.vocabularies.items():
            encoder.schema.vocabularies[name].encode(vocabulary.words)
        return encoder.features([column.combine_chunks() for column in self.rows.columns], 0)


def read_labelled(file: str | Path, stream: Stream, schema: Schema, label_type: str, task: TaskKind) -> Labelled:
    """The rows of Parquet or CSV files, checked against a stream.

    Parameters
    ----------
    file : str or Path
        A file, a folder or a glob, with the stream's feature columns and its label column; others are ignored.
    stream, schema, label_type
        The stream, its features, and the type of its labels.
    task : {"classification", "regression"}
        Whether labels are classes or numbers.

    Raises
    ------
    ConfigError
        If there is no such file, or the stream's features are built from past rows.
    DataError
        If a column is missing or of another type, there is no row, or one without a label.
    """
    check_readable(file, stream)
    wanted = {column.name: column for column in schema.columns}
    target = str(stream.target)
    while True:
        source = open_files(file, _FIELD)
        types = _types(file, source, wanted, target, label_type)
        try:
            blocks = [block.rows for block in source.blocks(types)]
        except Widened:  # a CSV column turned out wider than its first rows showed
            continue
        break
    if not blocks:
        raise DataError(f"{file} holds no row: a golden set of none keeps nothing")
    table = pa.Table.from_batches(blocks)
    labels = _cast(file, target, table.column(target), pa.type_for_alias(label_type))
    if labels.null_count:
        row = labels.is_null().to_pylist().index(True)
        raise DataError(f"{file}, row {row}: it has no label in {target!r}: a golden row without one tells nothing")
    columns = [_conformed(file, table.column(name), column) for name, column in wanted.items()]
    classes: dict[tuple[str, Label], int] = {}
    if task == "regression":
        truth: NDArray[Any] = np.asarray(labels.cast(pa.float64()).to_numpy())
    else:
        codes = [classes.setdefault(typed(label), len(classes)) for label in labels.to_pylist()]
        truth = np.array(codes, dtype=np.int32)
    return Labelled(
        digest=_digest(files_of(file)),
        truth=truth,
        classes=tuple(label for _, label in classes),
        rows=pa.Table.from_arrays(columns, names=list(wanted)),
        text=tuple(stream.text),
    )


def check_readable(file: str | Path, stream: Stream) -> None:
    """Raise ``ConfigError`` if there are no such files, or features are built from a past that they do not have."""
    open_files(file, _FIELD)
    if stream.features is not None:
        raise ConfigError(
            _FIELD,
            str(file),
            "the stream's features are built from past rows, which a file apart does not have: use a slice instead",
        )


def _types(file: str | Path, source: Any, wanted: dict[str, Column], target: str, label_type: str) -> dict[str, Any]:
    words = [name for name, column in wanted.items() if column.dtype == "string"]
    found = source.types((), [*words, *([target] if label_type == "string" else [])])
    missing = [name for name in (*wanted, target) if name not in found]
    if missing:
        raise DataError(
            f"{file} lacks the {'column' if len(missing) == 1 else 'columns'} {', '.join(map(repr, missing))}: a "
            "golden set has every feature of the stream, and the label; add it"
        )
    return {name: canonical_type(found[name]) for name in (*wanted, target)}


def _conformed(file: str | Path, values: Any, column: Column) -> Any:
    """The values in the stream's type: whole numbers of a CSV file pass for fractions, nulls for anything."""
    if str(values.type) == column.dtype:
        return values
    try:
        dtype = pa.type_for_alias(column.dtype)
    except ValueError as error:  # decimals and the like have no alias
        raise DataError(_other_type(file, column.name, values.type, column.dtype)) from error
    if column.kind is not Kind.NUMBER and values.null_count < len(values):
        raise DataError(_other_type(file, column.name, values.type, column.dtype))
    return _cast(file, column.name, values, dtype)


def _cast(file: str | Path, name: str, values: Any, dtype: Any) -> Any:
    number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
    wide = pa.types.is_integer(dtype) or pa.types.is_floating(dtype)
    if values.type != dtype and not (number and wide) and values.null_count < len(values):
        raise DataError(_other_type(file, name, values.type, dtype))
    try:
        return values.cast(dtype)
    except pa.ArrowException as error:
        raise DataError(_other_type(file, name, values.type, dtype)) from error


def _other_type(file: str | Path, name: str, found: Any, wanted: Any) -> str:
    return f"{file}: column {name!r} is {found}, and {wanted} in the stream: convert the file"


def _digest(files: list[Path]) -> str:
    sha = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            sha.update(hashlib.file_digest(content, "sha256").digest())
    return sha.hexdigest()
