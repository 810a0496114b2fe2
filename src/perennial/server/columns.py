"""Rows of a request as a model is asked about them: in the order, with the codes and the types that it was trained on.

The words are those of the checkpoint that was read when the model was loaded, and none is ever added: one that the run
has not met is as a missing one. Nothing here changes once it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.errors import DataError
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.server.rows import Rows

#: numbers that lose digits on their way into a column: what the matrix shows is what is left of them
_NARROW = {"float": np.float32, "halffloat": np.float16}
#: a word that no stream holds, for probes
STRANGER = "\x00nobody"


@final
class Columns:
    """The features of a deployment, and how rows become them.

    Parameters
    ----------
    schema : Schema
        The features, with the words as of a checkpoint. Not mutated, and nobody else may.
    types : mapping of str to pyarrow.DataType
        Their Arrow types.
    names : sequence of str
        The columns of ``Rows.numbers``, in order.
    """

    def __init__(self, schema: Schema, types: Mapping[str, Any], names: Sequence[str]) -> None:
        self.schema = schema
        self._types = [types[name] for name in schema.names]
        self._width = len(names)
        self._at = np.array([names.index(name) for name in schema.names], dtype=np.intp)
        self._as_is = np.array_equal(self._at, np.arange(self._width))
        self._codes: list[tuple[int, str, Callable[[str], int | None]]] = [
            (j, schema.names[j], schema.vocabularies[schema.names[j]].code) for j in schema.categories
        ]
        self._narrow = [(j, _NARROW[c.dtype]) for j, c in enumerate(schema.columns) if c.dtype in _NARROW]
        self._untouched = self._as_is and not self._codes and not self._narrow
        #: whether a matrix shows them: all are numbers or words, and none is kept in a type that rounds in its own way
        self.as_matrix = all(
            column.kind is Kind.CATEGORY or (column.kind is Kind.NUMBER and not pa.types.is_decimal(dtype))
            for column, dtype in zip(schema.columns, self._types, strict=True)
        )

    def matrix(self, rows: Rows) -> NDArray[np.float64]:
        """What :meth:`features` shows as a matrix, without the detour over columns: shape (n, features)."""
        if self._untouched:
            return rows.numbers
        out = rows.numbers.take(self._at, axis=1)  # by take: row after row in memory, whatever the order of columns
        for j, narrow in self._narrow:
            out[:, j] = out[:, j].astype(narrow)
        for j, name, code in self._codes:
            out[:, j] = [code(word) for word in rows.others[name]]  # None, a word without a code too, is NaN
        return out

    def features(self, rows: Rows) -> Features:
        """The rows as any learner takes them.

        Raises
        ------
        DataError
            If a value does not fit its column's type.
        """
        codes = {j: code for j, _, code in self._codes}
        arrays = []
        for j, (column, dtype) in enumerate(zip(self.schema.columns, self._types, strict=True)):
            if column.kind is Kind.NUMBER:
                arrays.append(_numbers(rows.numbers[:, self._at[j]], dtype, column))
            elif column.kind is Kind.CATEGORY:
                known = map(codes[j], rows.others[column.name])
                arrays.append(pa.array([-1 if code is None else code for code in known], type=pa.int32()))
            else:
                arrays.append(_cast(rows.others[column.name], dtype, column))
        table = pa.Table.from_arrays(arrays, names=list(self.schema.names))
        return Features.of(Chunk(table, self.schema))

    def probes(self, like: NDArray[np.float64] | None, n: int = 48, seed: int = 0) -> Rows:
        """Made-up rows to hold two forms of a model against each other: known values and strange ones, and gaps.

        Parameters
        ----------
        like : array of float64, shape (m, features), optional
            Rows that the model was made for: numbers are drawn from theirs, and from around them.
        n, seed : int
            How many, and which.
        """
        draw = np.random.default_rng(seed)
        numbers = np.full((n, self._width), np.nan)
        others: dict[str, list[Any]] = {}
        for j, (column, dtype) in enumerate(zip(self.schema.columns, self._types, strict=True)):
            gone = draw.random(n) < 0.1
            if column.kind is Kind.CATEGORY:
                words = [*self.schema.vocabularies[column.name].words[:64], STRANGER]
                chosen = draw.integers(len(words), size=n).tolist()
                others[column.name] = [None if no else words[i] for i, no in zip(chosen, gone.tolist(), strict=True)]
                continue
            seen = np.empty(0) if like is None else like[:, j][np.isfinite(like[:, j])]
            values = draw.normal(size=n) * (seen.std() if len(seen) else 1.0) + (seen.mean() if len(seen) else 0.0)
            if len(seen):
                values = np.where(draw.random(n) < 0.6, draw.choice(seen, size=n), values)
            if pa.types.is_boolean(dtype):
                values = (values > 0.5).astype(np.float64)
            elif pa.types.is_integer(dtype):
                low, high = (0, 2**8 - 1) if str(dtype).startswith("u") else (-(2**7), 2**7 - 1)
                values = np.round(values if len(seen) and dtype.bit_width > 8 else values.clip(low, high))
                values = np.abs(values) if str(dtype).startswith("u") else values
            values[gone] = np.nan
            numbers[:, self._at[j]] = values
        return Rows(n=n, numbers=numbers, others=others)


def _numbers(values: NDArray[np.float64], dtype: Any, column: Column) -> Any:
    """Numbers in a column's own type; NaN is a null, as the stream has it."""
    missing = np.isnan(values)
    try:
        if pa.types.is_boolean(dtype):
            return pa.array(values != 0, mask=missing)
        return pa.array(values, mask=missing).cast(dtype, safe=not pa.types.is_floating(dtype))
    except pa.ArrowException as error:
        raise DataError(f"column {column.name!r} holds {column.dtype}: {error}") from error


def _cast(values: list[Any], dtype: Any, column: Column) -> Any:
    try:
        return pa.array(values, type=dtype)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"column {column.name!r} holds {column.dtype}: {error}") from error
