"""One subject is forgotten: their rows are blanked where they lie, and every version that had learned them is named.

A blanked row keeps its position and its event time, without which the rows around it would mean something else, and
nothing besides. What was said of it and what its label was stay in the tables of the turns, by position: nothing ties
them to anyone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.times import NEVER
from perennial.learners.golden import GOLDEN_ROWS
from perennial.ledger.records import Saved, Segment
from perennial.production import tables

WIDTH = 16  #: bytes of a row's digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A version that had learned rows of the subject, and what to do about it."""

    number: str
    rows: int
    through: str | None
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was forgotten.

    ``rows`` were blanked in ``segments`` of the store, ``words`` of category columns belonged to nobody else, the
    ``golden`` sets of these versions held one of the rows and are gone. ``versions`` had learned from the subject.
    ``waiting`` rows were taken out of an ingest log before any batch had them.
    """

    rows: int
    segments: int
    words: int
    golden: tuple[str, ...]
    versions: tuple[Touched, ...]
    waiting: int = 0


def rows_of(batch: Any, key: str) -> NDArray[np.bool_]:
    """Which rows of a stored batch are of a subject; keys are compared as text."""
    names = batch.schema.names
    if "key" not in names:
        return np.zeros(batch.num_rows, dtype=np.bool_)
    return np.array([value is not None and str(value) == key for value in batch.column("key").to_pylist()])


def filled(batch: Any) -> NDArray[np.bool_]:
    """Which rows of a stored batch are not blank."""
    return np.asarray(_digests(batch.column("digest")).any(axis=1))


def _digests(column: Any) -> NDArray[np.uint8]:
    """A copy of the digests of rows, shape (n, 16)."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    start = column.offset * WIDTH
    found = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * WIDTH]
    return found.copy().reshape(-1, WIDTH)


def blanked(batch: Any, rows: NDArray[np.bool_], *, first: int | None = None) -> bytes:
    """A stored batch without what some of its rows held; ``first`` says where it lies, for a digest of its own."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        columns.append(_blank(name, column, rows))
    schema = batch.schema if first is None else batch.schema.with_metadata({"first": str(first)})
    return tables.to_bytes(pa.table(columns, schema=schema))


def _blank(name: str, column: Any, rows: NDArray[np.bool_]) -> Any:
    if name == "time":
        return column
    if name == "digest":
        digests = _digests(column)
        digests[rows] = 0
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(WIDTH), len(column), [None, pa.py_buffer(digests)])
    if name == "known_at":
        return pa.array(np.where(rows, NEVER, column.to_numpy()))
    if name == "late":
        return pa.array(np.where(rows, False, column.to_numpy(zero_copy_only=False)))
    if name == "weight":
        return pa.array(np.where(rows, 0.0, column.to_numpy(zero_copy_only=False)))
    if column.type == pa.int32() and name.startswith("f") and _codes(column):
        return pa.array(np.where(rows, -1, column.to_numpy()).astype(np.int32))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = (column.fill_null(0) if column.null_count else column).to_numpy().copy()
        values[rows] = 0  # nothing is left under a null
        return pa.array(values, type=column.type, mask=rows | np.asarray(column.is_null()))
    kept = [None if gone else value for gone, value in zip(rows, column.to_pylist(), strict=True)]
    return pa.array(kept, type=column.type)  # built anew: a null laid over a value would leave the value under it


def _codes(column: Any) -> bool:
    """Whether a column of int32 may hold category codes: those have no null."""
    return not column.null_count


def lonely_words(used: Mapping[str, Iterable[int]], others: Mapping[str, Iterable[int]]) -> dict[str, set[int]]:
    """Codes of category columns that the erased rows used and no other row that is kept."""
    return {name: gone for name, codes in used.items() if (gone := set(codes) - set(others[name]) - {-1})}


def touched(versions: Iterable[Saved], positions: NDArray[np.int64], champion: str | None) -> tuple[Touched, ...]:
    """Versions that learned some of the positions, themselves or through the version they went on from."""
    out: dict[str, Touched] = {}
    for saved in versions:
        version = saved.version
        ranges = saved.facts.get("lesson", {}).get("rows", [])
        own = sum(int(np.searchsorted(positions, high) - np.searchsorted(positions, low)) for low, high in ranges)
        through = version.parent if version.kind == "update" and version.parent in out else None
        if not own and through is None:
            continue
        advice = "does not serve: do not promote or export it"
        if version.number == champion:
            advice = "serves: retrain without them, or promote a version that never learned them"
        out[version.number] = Touched(number=version.number, rows=own, through=through, advice=advice)
    return tuple(out.values())


def golden_of(segments: Iterable[Segment], positions: NDArray[np.int64], limit: int = GOLDEN_ROWS) -> set[int]:
    """First positions of the batches whose first rows, which golden sets are made of, hold an erased one."""
    return {
        segment.first
        for segment in segments
        if np.searchsorted(positions, segment.first) < np.searchsorted(positions, segment.first + limit)
    }
