"""Feature rows: Arrow columns with their types kept, and the views that learners ask for.

A :class:`Chunk` is a run of rows as it arrived. :class:`Features` is any selection over chunks, in order; it
copies nothing until a view is asked for, and converts each chunk to a matrix at most once, however many
windows and predictions use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import DataError
from perennial.core.identity import digest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Kind(StrEnum):
    """What a feature column holds, and so how a matrix shows it."""

    NUMBER = "number"  #: numbers and booleans; a null is NaN
    CATEGORY = "category"  #: plain words, shown in a matrix by their code in the vocabulary
    TEXT = "text"  #: prose, for a user's own pipeline; a matrix refuses it
    OTHER = "other"  #: dates, lists, ...: for a user's own pipeline; a matrix refuses it


_BLOCK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Column:
    """One feature column: its name, kind and Arrow type (as text)."""

    name: str
    kind: Kind
    dtype: str


@final
class Vocabulary:
    """Words and their codes, append-only: a code once given never changes its meaning.

    Examples
    --------
    >>> words = Vocabulary()
    >>> words.encode(["red", None, "blue", "red"]).tolist()
    [0, -1, 1, 0]
    >>> words.encode(["green", "blue"]).tolist()
    [2, 1]
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words: list[str] = list(words)
        self._codes = {word: code for code, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def code(self, word: str) -> int | None:
        """The code of a word; None if it was never seen."""
        return self._codes.get(word)

    def encode(self, values: Iterable[str | None]) -> NDArray[np.int32]:
        """Codes of values, shape (n,), appending words seen for the first time; -1 for a null."""
        codes, out = self._codes, []
        for value in values:
            if value is None:
                out.append(-1)
                continue
            code = codes.get(value)
            if code is None:
                code = codes[value] = len(self.words)
                self.words.append(value)
            out.append(code)
        return np.asarray(out, dtype=np.int32)

    def find(self, values: Iterable[str | None]) -> NDArray[np.int32]:
        """Codes of values, shape (n,), appending nothing; -1 for a null or a word that has none."""
        return np.array([-1 if value is None else self._codes.get(value, -1) for value in values], dtype=np.int32)


@final
class Schema:
    """The feature columns in order, and the vocabulary of each category column."""

    def __init__(self, columns: Sequence[Column], vocabularies: dict[str, Vocabulary] | None = None) -> None:
        self.columns = tuple(columns)
        self.vocabularies = vocabularies or {}

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def numeric(self) -> bool:
        """Whether every column is a number."""
        return all(column.kind is Kind.NUMBER for column in self.columns)

    @cached_property
    def categories(self) -> tuple[int, ...]:
        """Indices of the category columns."""
        return tuple(i for i, column in enumerate(self.columns) if column.kind is Kind.CATEGORY)

    def digest(self) -> str:
        """Identity of names, kinds and types; vocabularies are content and not part of it."""
        return digest(*(f"{c.name}\0{c.kind}\0{c.dtype}" for c in self.columns))


@final
class Chunk:
    """A run of rows as it arrived.

    Parameters
    ----------
    table : pyarrow.Table
        The feature columns in schema order; category columns hold int32 codes, -1 for null.
    schema : Schema
        Shared by all chunks of a stream.
    name : str
        What a store knows it by; empty if it is in none.
    """

    __slots__ = ("_dicts", "_matrices", "name", "nbytes", "rows", "schema", "table")

    def __init__(self, table: pa.Table, schema: Schema, name: str = "") -> None:
        self.table = table
        self.schema = schema
        self.name = name
        self.rows: int = table.num_rows
        self.nbytes: int = table.get_total_buffer_size() if table.num_rows == 0 else table.nbytes
        self._matrices: dict[str, NDArray[Any]] = {}
        self._dicts: list[dict[str, Any]] = []

    def matrix(self, dtype: str) -> NDArray[Any]:
        """Rows as a read-only row-major matrix, converted once."""
        if (found := self._matrices.get(dtype)) is not None:
            return found
        columns = [self._column(j, dtype) for j in range(len(self.schema))]
        out = np.empty((self.rows, len(columns)), dtype=dtype)
        for start in range(0, self.rows, _BLOCK_ROWS):  # in blocks that stay in the cache while columns become rows
            rows = slice(start, start + _BLOCK_ROWS)
            for j, values in enumerate(columns):
                out[rows, j] = values[rows]
        out.flags.writeable = False
        self._matrices[dtype] = out
        return out

    def dicts(self, stop: int) -> list[dict[str, Any]]:
        """At least the first ``stop`` rows as dicts of plain Python values, each converted once.

        Shared: do not write to them. Rows whose words are not in the vocabulary yet have not arrived, and wait.
        """
        done = len(self._dicts)
        if done < stop:
            names = self.schema.names
            fresh = _in_words(self.table.slice(done, self._readable(done) - done), self.schema)
            rows = zip(*(column.to_pylist() for column in fresh.columns), strict=True)
            self._dicts += [dict(zip(names, row, strict=True)) for row in rows]
        return self._dicts

    def _readable(self, start: int) -> int:
        """The first row from ``start`` on that holds a word the vocabulary does not have yet."""
        end = self.rows
        for j in self.schema.categories:
            codes = self.table.column(j).slice(start, end - start).to_numpy()
            unknown = codes >= len(self.schema.vocabularies[self.schema.names[j]])
            if unknown.any():
                end = start + int(np.argmax(unknown))
        return end

    def _column(self, j: int, dtype: str) -> NDArray[Any]:
        column = self.schema.columns[j]
        if column.kind not in (Kind.NUMBER, Kind.CATEGORY):
            raise DataError(
                f"column {column.name!r} holds {column.kind} ({column.dtype}), which a numeric matrix cannot "
                "show: put a vectoriser or encoder for it in a pipeline, build a number from it in `features`, "
                "or list it under `drop`"
            )
        values = _numbers(self.table.column(j))
        return np.where(values < 0, np.nan, values).astype(dtype) if column.kind is Kind.CATEGORY else values


def _in_words(table: pa.Table, schema: Schema) -> pa.Table:
    """The table with words in place of category codes."""
    import pyarrow as pa

    for j in schema.categories:
        name = schema.columns[j].name
        codes = table.column(j).to_numpy()
        words = pa.array(schema.vocabularies[name].words, type=pa.string())
        table = table.set_column(j, name, words.take(pa.array(codes, mask=codes < 0, type=pa.int32())))
    return table


def _numbers(values: Any) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    elif pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    if values.null_count:
        values = values.cast(pa.float64(), safe=False).fill_null(float("nan"))
    return np.asarray(values.to_numpy())


Index = slice | NDArray[np.int64]  #: rows of a chunk: a run, or any rows in any order


@final
class Features:
    """A selection of feature rows, in order, with the views learners ask for. Immutable.

    A view is built when first asked for. Returned arrays are read-only or shared: do not write to them.
    """

    __slots__ = ("_cache", "_parts", "_rows", "schema")

    def __init__(self, schema: Schema, parts: Sequence[tuple[Chunk, Index]], rows: int) -> None:
        self.schema = schema
        self._parts = tuple(parts)
        self._rows = rows
        self._cache: dict[str, Any] = {}

    @classmethod
    def of(cls, chunk: Chunk) -> Features:
        """All rows of one chunk."""
        return cls(chunk.schema, [(chunk, slice(0, chunk.rows))], chunk.rows)

    @classmethod
    def join(cls, schema: Schema, several: Iterable[Features]) -> Features:
        """Rows of several selections, one after the other."""
        parts: list[tuple[Chunk, Index]] = []
        rows = 0
        for features in several:
            parts.extend(features._parts)
            rows += features._rows
        return cls(schema, parts, rows)

    def __len__(self) -> int:
        return self._rows

    @property
    def parts(self) -> tuple[tuple[Chunk, Index], ...]:
        """The chunks in order, each with the rows that are selected of it."""
        return self._parts

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return self.schema.names

    def matrix(self, dtype: str = "float64") -> NDArray[Any]:
        """Rows as a row-major matrix, shape (n, d): categories by code, nulls as NaN.

        Raises
        ------
        DataError
            If a column is text, a date or anything else that is no number.
        """
        if (found := self._cache.get(dtype)) is not None:
            return found  # type: ignore[no-any-return]
        views = [chunk.matrix(dtype)[index] for chunk, index in self._parts]
        if len(views) == 1:
            out = views[0]
        elif views:
            out = np.concatenate(views)
        else:
            out = np.empty((0, len(self.schema)), dtype=dtype)
        out.flags.writeable = False
        self._cache[dtype] = out
        return out

    def arrow(self) -> pa.Table:
        """Rows as an Arrow table with the user's own types: categories are strings again."""
        import pyarrow as pa

        if (found := self._cache.get("arrow")) is not None:
            return found
        tables = [
            chunk.table.slice(index.start, index.stop - index.start)
            if isinstance(index, slice)
            else chunk.table.take(pa.array(index))
            for chunk, index in self._parts
        ]
        if not tables:
            raise DataError("no rows were selected: an empty selection has no table")
        table = pa.concat_tables(tables)
        self._cache["arrow"] = table = _in_words(table, self.schema)
        return table

    def frame(self) -> pd.DataFrame:
        """Rows as a pandas frame with a fresh 0..n-1 index: numbers keep their width, words are text."""
        if "frame" not in self._cache:
            self._cache["frame"] = self.arrow().to_pandas()
        frame: pd.DataFrame = self._cache["frame"]
        return frame

    def codes(self) -> dict[str, NDArray[np.int32]]:
        """Codes of every category column by name, each of shape (n,), -1 for null."""
        return {
            self.schema.columns[j].name: np.concatenate([c.table.column(j).to_numpy()[i] for c, i in self._parts])
            for j in self.schema.categories
        }

    def values(self, name: str) -> NDArray[np.float64]:
        """One column as numbers, shape (n,): NaN for a missing number, categories by code, -1 for a missing word."""
        j = self.schema.names.index(name)
        parts = [np.asarray(_numbers(chunk.table.column(j))[index], np.float64) for chunk, index in self._parts]
        return np.concatenate(parts) if parts else np.empty(0)

    def dicts(self) -> list[dict[str, Any]]:
        """Rows as dicts of plain Python values, as River takes them."""
        rows: list[dict[str, Any]] = []
        for chunk, index in self._parts:
            made = chunk.dicts(index.stop if isinstance(index, slice) else int(index.max(initial=-1)) + 1)
            rows += made[index] if isinstance(index, slice) else [made[i] for i in index.tolist()]
        return rows

    def slice(self, start: int, stop: int) -> Features:
        """Rows ``[start, stop)`` of this selection."""
        parts: list[tuple[Chunk, Index]] = []
        at = 0
        for chunk, index in self._parts:
            size = index.stop - index.start if isinstance(index, slice) else len(index)
            low, high = max(start - at, 0), min(stop - at, size)
            if low < high:
                if isinstance(index, slice):
                    parts.append((chunk, slice(index.start + low, index.start + high)))
                else:
                    parts.append((chunk, index[low:high]))
            at += size
        if not parts and self._parts:
            parts.append((self._parts[0][0], slice(0, 0)))  # no rows, but still columns
        return Features(self.schema, parts, max(min(stop, self._rows) - max(start, 0), 0))

    def take(self, indices: NDArray[np.int64]) -> Features:
        """Rows at indices of this selection, in that order."""
        sizes = [i.stop - i.start if isinstance(i, slice) else len(i) for _, i in self._parts]
        edges = np.concatenate([[0], np.cumsum(sizes)])
        if len(indices) and not 0 <= indices.min() <= indices.max() < self._rows:
            raise IndexError(f"rows {indices.min()}..{indices.max()} asked of a selection of {self._rows}")
        which = np.searchsorted(edges, indices, side="right") - 1
        parts: list[tuple[Chunk, Index]] = []
        cuts = np.flatnonzero(np.diff(which)) + 1  # runs that stay within one part
        for low, high in zip([0, *cuts], [*cuts, len(indices)], strict=True):
            if low == high:
                continue
            chunk, index = self._parts[which[low]]
            inner = np.asarray(indices[low:high] - edges[which[low]], dtype=np.int64)
            if isinstance(index, slice):
                first, last = int(inner[0]), int(inner[-1])
                if last - first == high - low - 1 and (np.diff(inner) == 1).all():
                    parts.append((chunk, slice(index.start + first, index.start + last + 1)))
                else:
                    parts.append((chunk, inner + index.start))
            else:
                parts.append((chunk, index[inner]))
        if not parts and self._parts:
            parts.append((self._parts[0][0], slice(0, 0)))  # no rows, but still columns
        return Features(self.schema, parts, len(indices))
