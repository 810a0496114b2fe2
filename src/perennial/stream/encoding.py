"""Feature columns in canonical form: kinds, codes of categories, digests of rows, and what was found in them."""

from __future__ import annotations

import hashlib
import struct
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from numpy.typing import NDArray

from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary

DIGEST_BYTES = 16
ERASED = "\x00erased "  #: before the code of a word that was forgotten
_BLOCK_ROWS = 1024
MOST_RARE = 65_536  #: words of a column that are counted before they are common; of more, the oldest is forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStats:
    """What a feature column holds, over the whole stream.

    ``nulls`` counts missing values, NaN among them; ``nans`` and ``infinities`` count those values. ``first_null``
    and ``first_infinite`` are the positions of the first, None if there is none. ``low`` and ``high`` are the
    least and greatest number, infinities aside. ``distinct`` is the number of words of a category column.
    """

    name: str
    kind: Kind
    nulls: int = 0
    nans: int = 0
    infinities: int = 0
    first_null: int | None = None
    first_infinite: int | None = None
    low: float | None = None
    high: float | None = None
    distinct: int | None = None


def kind_of(dtype: Any, is_text: bool) -> Kind:
    """The kind of a canonical type."""
    if pa.types.is_string(dtype):
        return Kind.TEXT if is_text else Kind.CATEGORY
    number = pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_boolean(dtype)
    return Kind.NUMBER if number or pa.types.is_decimal(dtype) else Kind.OTHER


@final
class Encoder:
    """Puts feature columns into canonical form, block after block, and remembers what it saw.

    A NaN becomes a null, so that a stream is the same wherever it was kept; categories become int32 codes in order
    of first appearance, -1 for null. A row's digest is BLAKE2b over the little-endian values of its columns in
    order, after a bit for each that says whether it is there; words go in by their own digest.

    With ``word_rows`` above 1, a word gets a code once that many rows had it, the one that makes it so included, and is
    as a null before. Until then its digest is counted, and the word itself is nowhere.
    """

    def __init__(self, types: Mapping[str, Any], text: Sequence[str], word_rows: int = 1) -> None:
        self._types = pa.schema(list(types.items()))
        columns = [Column(name, kind_of(dtype, name in text), str(dtype)) for name, dtype in types.items()]
        words = {column.name: Vocabulary() for column in columns if column.kind is Kind.CATEGORY}
        self.schema = Schema(columns, words)
        self._word_rows = word_rows
        self._columns = [_column(column, words, word_rows) for column in columns]

    def erase(self, column: str, words: Collection[str]) -> None:
        """Words of a category column that are forgotten: their codes stay taken, and mean nothing."""
        known = self.schema.vocabularies[column].words
        kept = [f"{ERASED}{code}" if word in words else word for code, word in enumerate(known)]
        state = self.state()
        state["words"][column] = kept
        prose = [c.name for c in self.schema.columns if c.kind is Kind.TEXT]
        fresh = type(self).restore(state, prose, self._word_rows)
        self.schema, self._columns = fresh.schema, fresh._columns

    def state(self) -> dict[str, Any]:
        """Types and words, as plain values; what was counted is not among them."""
        words = {name: vocabulary.words for name, vocabulary in self.schema.vocabularies.items()}
        out: dict[str, Any] = {
            "types": b64encode(self._types.serialize()).decode(), "words": {n: list(w) for n, w in words.items()},
        }  # fmt: skip
        if self._word_rows > 1:
            out["rare"] = {column.name: column.rare for column in self._columns if isinstance(column, _Categories)}
        return out

    @classmethod
    def restore(cls, state: Mapping[str, Any], text: Sequence[str], word_rows: int = 1) -> Self:
        """An encoder that goes on with the words of :meth:`state`."""
        types = pa.ipc.read_schema(pa.py_buffer(b64decode(state["types"])))
        out = cls({field.name: field.type for field in types}, text, word_rows)
        for name, words in state["words"].items():
            out.schema.vocabularies[name].encode(words)
        for column in out._columns:
            if isinstance(column, _Categories) and word_rows > 1:
                column.rare = state["rare"][column.name]
        return out

    @property
    def types(self) -> dict[str, Any]:
        """Arrow type of each column, as it is given to :meth:`encode`."""
        return {field.name: field.type for field in self._types}

    @property
    def stats(self) -> tuple[ColumnStats, ...]:
        """What each column held so far."""
        return tuple(column.stats for column in self._columns)

    def encode(self, arrays: Sequence[Any], first: int) -> tuple[list[Any], NDArray[np.uint8]]:
        """Stored columns of a block, and the digests of its rows, shape (n, 16)."""
        stored, present, contents = [], [], []
        for column, array in zip(self._columns, arrays, strict=True):
            kept, there, content = column.encode(array, first)
            stored.append(kept)
            present.append(there)
            contents.append(content)
        return stored, hash_rows(_side_by_side(present, contents))

    def features(self, arrays: Sequence[Any], first: int) -> Features:
        """A block of rows that no stream keeps, as a model is asked about them."""
        stored, _ = self.encode(arrays, first)
        return Features.of(Chunk(pa.Table.from_arrays(stored, names=list(self.schema.names)), self.schema))


def _side_by_side(present: list[NDArray[np.bool_]], contents: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Each row's bytes: a bit for each column that says whether it is there, then the columns' contents."""
    flags = np.packbits(np.stack(present, axis=1), axis=1)
    parts = [flags, *contents]
    widths = [part.shape[1] for part in parts]
    offsets = np.concatenate([[0], np.cumsum(widths)])
    out = np.empty((len(flags), int(offsets[-1])), dtype=np.uint8)
    fields = out.view(
        np.dtype(
            {
                "names": [str(i) for i in range(len(parts))],
                "formats": [f"V{width}" for width in widths],
                "offsets": offsets[:-1].tolist(),
                "itemsize": int(offsets[-1]),
            }
        )
    ).ravel()
    whole = [np.ascontiguousarray(part).view(f"V{width}").ravel() for part, width in zip(parts, widths, strict=True)]
    for start in range(0, len(out), _BLOCK_ROWS):  # in blocks that stay in the cache while columns become rows
        rows = slice(start, start + _BLOCK_ROWS)
        for i, values in enumerate(whole):
            fields[str(i)][rows] = values[rows]
    return out


def hash_rows(matrix: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The 16-byte BLAKE2b digest of each row of a byte matrix, shape (n, 16)."""
    rows, width = matrix.shape
    fresh = hashlib.blake2b(digest_size=DIGEST_BYTES).copy  # a copy is quicker to make than a new one
    hashes = []
    for (row,) in struct.iter_unpack(f"{width}s", np.ascontiguousarray(matrix).data) if rows else ():
        hashing = fresh()
        hashing.update(row)
        hashes.append(hashing.digest())
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(rows, DIGEST_BYTES)


def hash_words(words: Sequence[str]) -> NDArray[np.uint8]:
    """The 16-byte BLAKE2b digest of each word, shape (n, 16)."""
    joined = b"".join(hashlib.blake2b(w.encode(), digest_size=DIGEST_BYTES).digest() for w in words)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(words), DIGEST_BYTES)


def _column(column: Column, words: dict[str, Vocabulary], word_rows: int) -> _Numbers | _Categories | _Others:
    if column.kind is Kind.NUMBER:
        return _Numbers(column)
    return _Categories(column, words[column.name], word_rows) if column.kind is Kind.CATEGORY else _Others(column)


def _presence(array: Any) -> NDArray[np.bool_]:
    if not array.null_count:
        return np.ones(len(array), dtype=np.bool_)
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)


class _Nulls:
    """Counts missing values."""

    def __init__(self) -> None:
        self.count = 0
        self.first: int | None = None

    def see(self, there: NDArray[np.bool_], first: int) -> None:
        missing = len(there) - int(there.sum())
        if missing and self.first is None:
            self.first = first + int(np.argmin(there))
        self.count += missing


@final
class _Numbers:
    def __init__(self, column: Column) -> None:
        self._column = column
        self._nulls = _Nulls()
        self._nans = self._infinities = 0
        self._first_infinite: int | None = None
        self._low: float | None = None
        self._high: float | None = None

    @property
    def stats(self) -> ColumnStats:
        return ColumnStats(
            name=self._column.name,
            kind=Kind.NUMBER,
            nulls=self._nulls.count,
            nans=self._nans,
            infinities=self._infinities,
            first_null=self._nulls.first,
            first_infinite=self._first_infinite,
            low=self._low,
            high=self._high,
        )

    def encode(self, array: Any, first: int) -> tuple[Any, NDArray[np.bool_], NDArray[np.uint8]]:
        if pa.types.is_floating(array.type):
            array = self._without_nan(array)
        there = _presence(array)
        self._nulls.see(there, first)
        numbers = array.cast(pa.float64()) if pa.types.is_decimal(array.type) else array
        if pa.types.is_boolean(array.type):
            numbers = array.cast(pa.uint8())
        values = (numbers.fill_null(0) if numbers.null_count else numbers).to_numpy(zero_copy_only=False)
        self._see(values, there, first)
        if pa.types.is_decimal(array.type):
            return array, there, _word_bytes(array.cast(pa.string()))
        content = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
        return array, there, content.view(np.uint8).reshape(len(values), values.dtype.itemsize)

    def _without_nan(self, array: Any) -> Any:
        nan = pc.is_nan(array)
        count = pc.sum(nan).as_py() or 0
        self._nans += count
        return pc.if_else(nan, pa.scalar(None, array.type), array) if count else array

    def _see(self, values: NDArray[Any], there: NDArray[np.bool_], first: int) -> None:
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            infinite = np.isinf(values)
            if self._first_infinite is None:
                self._first_infinite = first + int(np.argmax(infinite))
            self._infinities += int(infinite.sum())
            there = there & ~infinite
        if not there.all():
            values = values[there]
        if len(values):
            low, high = float(values.min()), float(values.max())
            self._low = low if self._low is None else min(low, self._low)
            self._high = high if self._high is None else max(high, self._high)


@final
class _Categories:
    def __init__(self, column: Column, words: Vocabulary, least: int) -> None:
        self.name = column.name
        self._words = words
        self._least = least
        self._rare: dict[bytes, int] = {}  # digest of a word that is not common yet -> rows that had it
        self._digests = np.empty((0, DIGEST_BYTES), dtype=np.uint8)
        self._nulls = _Nulls()

    @property
    def stats(self) -> ColumnStats:
        return ColumnStats(
            name=self.name,
            kind=Kind.CATEGORY,
            nulls=self._nulls.count,
            first_null=self._nulls.first,
            distinct=len(self._words),
        )

    @property
    def rare(self) -> list[list[Any]]:
        """Digests of words that are not common yet, in hex, and how many rows had each."""
        return [[digest.hex(), count] for digest, count in self._rare.items()]

    @rare.setter
    def rare(self, counts: list[list[Any]]) -> None:
        self._rare = {bytes.fromhex(digest): count for digest, count in counts}

    def encode(self, array: Any, first: int) -> tuple[Any, NDArray[np.bool_], NDArray[np.uint8]]:
        there = _presence(array)
        self._nulls.see(there, first)
        if self._least > 1:
            return self._encode_common(array, there)
        words = array.dictionary_encode()  # its dictionary is in order of first appearance
        codes = self._words.encode(words.dictionary.to_pylist())
        if new := self._words.words[len(self._digests) :]:
            self._digests = np.concatenate([self._digests, hash_words(new)])
        indices = words.indices.fill_null(0).to_numpy(zero_copy_only=False)
        out = np.full(len(array), -1, dtype=np.int32)
        content = np.zeros((len(array), DIGEST_BYTES), dtype=np.uint8)
        out[there] = codes[indices[there]]
        content[there] = self._digests[out[there]]
        return pa.array(out), there, content

    def _encode_common(self, array: Any, there: NDArray[np.bool_]) -> tuple[Any, NDArray[np.bool_], NDArray[np.uint8]]:
        """The same where a word must be common before it has a code: row by row, however rows are cut into blocks."""
        encoded = array.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        digests = hash_words(words)
        which = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        known = self._words.find(words)
        out = np.full(len(array), -1, dtype=np.int32)
        content = np.zeros((len(array), DIGEST_BYTES), dtype=np.uint8)
        out[there] = known[which[there]]
        content[there] = digests[which[there]]
        for row in np.flatnonzero(there & (out < 0)).tolist():
            word = int(which[row])
            if known[word] < 0:
                known[word] = self._counted(digests[word].tobytes(), words[word])
            out[row] = known[word]
        return pa.array(out), there, content

    def _counted(self, digest: bytes, word: str) -> int:
        """The code of a word that one more row has; -1 while it is not common."""
        count = self._rare.pop(digest, 0) + 1
        if count >= self._least:
            return int(self._words.encode([word])[0])
        self._rare[digest] = count  # behind the others: of too many, the one that was not seen longest goes
        if len(self._rare) > MOST_RARE:
            del self._rare[next(iter(self._rare))]
        return -1


@final
class _Others:
    def __init__(self, column: Column) -> None:
        self._column = column
        self._nulls = _Nulls()

    @property
    def stats(self) -> ColumnStats:
        return ColumnStats(
            name=self._column.name, kind=self._column.kind, nulls=self._nulls.count, first_null=self._nulls.first
        )

    def encode(self, array: Any, first: int) -> tuple[Any, NDArray[np.bool_], NDArray[np.uint8]]:
        there = _presence(array)
        self._nulls.see(there, first)
        if pa.types.is_string(array.type):
            return array, there, _word_bytes(array)
        if pa.types.is_temporal(array.type) and not pa.types.is_duration(array.type):
            return array, there, _word_bytes(array.cast(pa.string()))
        return array, there, hash_words([repr(value) for value in array.to_pylist()])


def _word_bytes(array: Any) -> NDArray[np.uint8]:
    """The digest of each word, zeros for a null; each distinct word is hashed once per block."""
    words = array.dictionary_encode()
    digests = np.concatenate([hash_words(words.dictionary.to_pylist()), np.zeros((1, DIGEST_BYTES), np.uint8)])
    return np.asarray(digests[words.indices.fill_null(len(digests) - 1).to_numpy(zero_copy_only=False)])


def content_of(array: Any) -> tuple[bytes, bytes]:
    """The canonical bytes of a column: the values, and which of them are there. Each can be continued by a block."""
    there = _presence(array)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        wide = array.cast(pa.float64() if pa.types.is_floating(array.type) else pa.int64())
        values = (wide.fill_null(0) if wide.null_count else wide).to_numpy(zero_copy_only=False)
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes(), there.tobytes()
    if pa.types.is_binary(array.type):
        array = pa.array([None if value is None else value.hex() for value in array.to_pylist()], pa.string())
    return _word_bytes(array.cast(pa.string())).tobytes(), there.tobytes()
