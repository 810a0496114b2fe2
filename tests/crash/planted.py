"""Rows whose every value is found again wherever it lies, and a search of all that a deployment owns for them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import sqlalchemy as sa

from perennial.ledger import schema
from perennial.ledger.sql import SqlLedger

ROWS = 300
RARE = "planted-word"


def rows() -> pa.Table:
    """Two weeks of rows an hour apart. Most words are common, one in thirty is a row's own; some labels never come."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(ROWS, 2))
    words = np.array(["red", "blue", "green"], dtype=object)[rng.integers(0, 3, ROWS)]
    words[::30] = [f"{RARE}-{i}" for i in range(0, ROWS, 30)]
    y = x[:, 0] - x[:, 1] + rng.normal(size=ROWS) / 2
    label = np.where(np.arange(ROWS) % 17 == 5, np.nan, y)
    return pa.table({
        "at": np.datetime64("2026-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "h"),
        "a": x[:, 0], "b": x[:, 1], "n": rng.integers(10**15, 10**16, ROWS), "word": pa.array(words),
        "note": [f"prose of planted-note-{i} and more" for i in range(ROWS)],
        "id": [f"planted-id-{i}" for i in range(ROWS)], "who": [f"planted-key-{i}" for i in range(ROWS)],
        "w": rng.uniform(0.5, 1.5, ROWS),
        "y": pa.array(label, from_pandas=True), "class": pa.array([None if v != v else bool(v > 0) for v in label]),
    })  # fmt: skip


def numbers(frame: Any) -> Any:
    """Prose and words hashed, beside the numbers."""
    from sklearn.feature_extraction.text import HashingVectorizer

    said = HashingVectorizer(n_features=32).transform(frame["note"]).toarray()
    words = frame["word"].astype(str).to_numpy()[:, None] == np.array(["red", "blue"])
    return np.column_stack([frame[["a", "b"]].to_numpy(), said, words])


def write(folder: Path, files: int = 3) -> None:
    """The rows as files of a stream, and their labels as a log beside them."""
    table = rows()
    folder.mkdir(parents=True)
    cuts = np.linspace(0, ROWS, files + 1).astype(int)
    for i, (low, high) in enumerate(pairwise(cuts)):
        pq.write_table(table.slice(low, high - low), folder / f"{i}.parquet")
    known = table.column("at").to_numpy() + np.timedelta64(7, "h")
    log = pa.table({"id": table.column("id"), "said": table.column("y"), "known_at": known})
    (folder / "said").mkdir()
    pq.write_table(log.filter(log.column("said").is_valid()), folder / "said" / "log.parquet")


def needles(table: Any) -> list[dict[bytes, str]]:
    """For each row the byte strings that would give it away, and what each is."""
    out = []
    for row in table.to_pylist():
        found: dict[bytes, str] = {}
        for name, value in row.items():
            if name in ("at", "class") or value is None:
                continue
            if isinstance(value, float):
                found |= {struct.pack("<d", value): name, repr(value).encode(): name, f"{value:.15g}".encode(): name}
            elif isinstance(value, int):
                found |= {struct.pack("<q", value): name, struct.pack("<d", value): name, str(value).encode(): name}
            elif name == "note":
                found[value.split()[2].encode()] = name
            elif name != "word" or value.startswith(RARE):
                found[value.encode()] = name
        pair = struct.pack("<ff", row["a"], row["b"])
        out.append({**found, pair: "a and b in single precision"})
    return out


def traces(ledger: SqlLedger, folder: Path, table: Any) -> dict[int, set[str]]:
    """Rows of which something is found in a deployment's files and tables, and what.

    Everything is looked at as it lies, and what is packed also unpacked: Arrow tables, archives, and bytes in tables.
    """
    pile = b"\0".join(_everything(ledger, folder)) + b"\0" * 16
    heads = np.unique(np.concatenate([np.frombuffer(pile, "<i8", (len(pile) - at) // 8, at) for at in range(8)]))
    found: dict[int, set[str]] = {}
    for i, row in enumerate(needles(table)):
        starts = np.frombuffer(b"".join(needle[:8] for needle in row), "<i8")
        likely = heads[np.minimum(np.searchsorted(heads, starts), len(heads) - 1)] == starts
        told = {what for (needle, what), maybe in zip(row.items(), likely, strict=True) if maybe and _in(needle, pile)}
        if told:
            found[i] = told
    return found


def _in(needle: bytes, pile: bytes) -> bool:
    """Whether a needle is in the pile; of text, as a word of its own: id 1 is not in id 12."""
    at = pile.find(needle)
    while at >= 0:
        after = pile[at + len(needle) : at + len(needle) + 1]
        if not (needle[-1:].isdigit() and needle.isascii() and after.isdigit()):
            return True
        at = pile.find(needle, at + 1)
    return False


def _everything(ledger: SqlLedger, folder: Path) -> Iterator[bytes]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield from _unpacked(file.read_bytes())
    with ledger._database.reading() as connection:
        for one in schema.metadata.tables.values():
            query = sa.select(one).where(one.c.deployment_id == ledger.deployment)
            for value in (value for row in connection.execute(query) for value in row):
                if isinstance(value, bytes | memoryview):
                    yield from _unpacked(bytes(value))
                elif value is not None:
                    yield str(value).encode()


def _unpacked(data: bytes) -> Iterator[bytes]:
    yield data
    start = data.find(b"\xff\xff\xff\xff")  # an Arrow stream, perhaps behind a header
    if start >= 0:
        try:
            with pa.ipc.open_stream(pa.py_buffer(data[start:])) as reader:
                unpacked = reader.read_all()
        except (pa.ArrowException, OSError):
            pass
        else:
            for column in unpacked.columns:
                for chunk in column.chunks:
                    yield from (buffer.to_pybytes() for buffer in chunk.buffers() if buffer is not None)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield from _unpacked(archive.read(name))
