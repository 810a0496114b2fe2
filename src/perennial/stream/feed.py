"""A source that grows: rows behind a position, and a position that says when the source no longer holds it.

A position is plain data, ordered, and opaque to everybody else: the file or table, the rows read of it, and a digest of
the last of them, by which a file that was rewritten is told from one that grew. Files are read here, tables of a
database in :mod:`perennial.stream.sql`, and logs of ours in :mod:`perennial.stream.ingest`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import pyarrow as pa

from perennial.core.errors import ConfigError, DataError
from perennial.stream.sources import Source, check_types, files_of, is_url, open_files, place


@final
class OffsetGone(DataError):
    """The source no longer holds what was read before: rows were taken away or rewritten."""


@final
class SourceAway(DataError):
    """The source cannot be reached now: a server that does not answer, a lock that is held. Trying again may help."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was read.

    Parameters
    ----------
    file : str
        Name of the file that holds the last row, or of the table; empty before the first.
    rows : int
        Rows read of it; of a table, less those that were deleted since.
    last : str
        Digest of the last row read.
    earlier : int
        Files that come before it: one that turns up among them later would be passed over.
    key : tuple
        Of a table: where the last row stands in the order of arrival, as plain values.
    """

    file: str = ""
    rows: int = 0
    last: str = ""
    earlier: int = 0
    key: tuple[Any, ...] = ()

    def to_plain(self) -> list[Any]:
        """The position as JSON keeps it."""
        plain = [self.file, self.rows, self.last, self.earlier]
        return [*plain, list(self.key)] if self.key else plain

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Position:
        """What :meth:`to_plain` gave."""
        return cls(*plain[:4], *map(tuple, plain[4:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Some rows of one file or table, in order, and where the first of them stands in it.

    ``keys`` holds, of a table, where each row stands in the order of arrival; ``path`` is the file's, for errors.
    """

    rows: Any
    file: str
    start: int
    earlier: int = 0
    keys: Sequence[tuple[Any, ...]] = ()
    path: str = ""

    def position(self, upto: int) -> Position:
        """The position after the first ``upto`` rows, at least one."""
        row = self.rows.slice(upto - 1, 1)
        key = self.keys[upto - 1] if self.keys else ()
        return Position(self.file, self.start + upto, row_digest(row), self.earlier, key)


def _size(file: Path) -> int | None:
    """Bytes of a file; None if it is gone."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def row_digest(row: Any) -> str:
    """Digest of one raw row, by value."""
    try:
        values = row.to_pylist()[0]
    except (ValueError, OverflowError):  # a time outside the years that Python has: by its number
        values = {name: _number_of(row.column(name)) for name in row.schema.names}
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]


def _number_of(column: Any) -> Any:
    types = pa.types
    if types.is_timestamp(column.type) or types.is_date64(column.type):
        column = column.cast(pa.int64())
    elif types.is_date32(column.type):
        column = column.cast(pa.int32())
    return column.to_pylist()[0]


class Growing(Protocol):
    """A source that grows."""

    def open(self) -> Source:
        """What there is now, to learn its columns."""
        ...

    def is_new(self, seen: dict[str, Any]) -> bool:
        """Whether something may have come since the call before, which ``seen`` remembers: a cheap look."""
        ...

    def read(self, position: Position, types: Mapping[str, Any], *, grows: bool = True) -> Iterator[Run]:
        """The rows behind ``position``, a block at a time; raises :class:`OffsetGone` where they cannot be told.

        While a source ``grows``, a last line without an end is not whole and waits.
        """
        ...


@runtime_checkable
class Owned(Growing, Protocol):
    """A source that is ours: it lets go of what was read, and of a subject."""

    def trim(self, position: Position, *, within: bool = False) -> None:
        """Let go of what lies behind ``position``: it is durable elsewhere. Cheap where there is nothing.

        Rows that came together may go together, once the last of them was read; with ``within`` each goes by itself.
        """
        ...

    def erase(self, column: str, values: Sequence[str]) -> int:
        """Take out rows whose ``column`` holds one of ``values``, as text; says how many."""
        ...


def known_files(feed: Growing, position: Position) -> list[list[Any]]:
    """Files up to a position, with the sizes of those before it: what is read behind it may still grow."""
    known = feed.known if isinstance(feed, Feed) else {}
    at = position.file
    return [[name, size if name < at else None] for name, size in sorted(known.items()) if name <= at]


def feed_of(source: Any, field: str = "source") -> Growing:
    """What follows a source: files, or a table or an ingest log of a database where it is a URL.

    ``field`` is the setting, for errors.

    Raises
    ------
    ConfigError
        If it is a table in memory, or the URL is wrong.
    """
    if is_url(source):
        from perennial.stream.sql import Address, TableFeed

        if Address.of(source, field).log:
            from perennial.stream.ingest import IngestFeed

            return IngestFeed(source, field)
        return TableFeed(source, field)
    return Feed(source, field)


@final
class Feed:
    """Rows of files that grow or become more, behind a position.

    Files are read in name order, which is time order. A file may grow until a later one is there; what was read of it
    may not change, and no file may turn up before one that was read.

    Parameters
    ----------
    source : str or Path
        A file, a folder or a glob, as a :class:`~perennial.stream.settings.Stream` takes it.
    field : str
        The setting, for errors.
    """

    def __init__(self, source: Any, field: str = "source") -> None:
        if not isinstance(source, str | Path):
            raise ConfigError(field, type(source).__name__, "a run reads files or a database: give a path or a URL")
        self._source, self._field = source, field
        #: files that were read and are there, each with its size when it was read, if nobody was writing
        self.known: dict[str, int | None] = {}

    def open(self) -> Source:
        """All files there are now, to learn their columns."""
        return open_files(self._source, self._field)

    def is_new(self, seen: dict[str, Any]) -> bool:
        """Whether something changed since the call before, which ``seen`` remembers: a look at names and sizes only."""
        now = {}
        for file in files_of(self._source):
            try:
                status = file.stat()
            except FileNotFoundError:  # an old file may go, also while we look
                continue
            now[file.name] = (status.st_size, status.st_mtime_ns)
        changed = now != seen
        seen.clear()
        seen.update(now)
        return changed

    def read(self, position: Position, types: Mapping[str, Any], *, grows: bool = True) -> Iterator[Run]:
        """The rows behind ``position``, a block at a time; of the last CSV file whole lines only if it ``grows``.

        Raises
        ------
        OffsetGone
            If the file of the position is gone, shorter, or rewritten, or a file turned up before it.
        DataError
            If a file lacks a column, or one changed its type.
        """
        files = files_of(self._source)
        names = [file.name for file in files]
        if position.file and position.file not in names:
            raise OffsetGone(
                f"{position.file}, read up to row {position.rows:,}, is no longer in {self._source}: put it back, or "
                "start a deployment of a new name from here"
            )
        at = names.index(position.file) if position.file else 0
        self.known = {name: size for name, size in self.known.items() if name in names}
        fresh = [name for name in names[:at] if name not in self.known]
        self._check_sizes(files[:at])
        if fresh or at > position.earlier:
            new = (fresh or names[at - 1 : at])[0]
            raise OffsetGone(
                f"{new} (or a file like it) turned up before {position.file}, which was read already: files come in "
                "name order; give it a later name"
            )
        for number, file in enumerate(files[at:], at):
            skip = position.rows if file.name == position.file else 0
            torn, before = grows and file is files[-1], _size(file)
            self.known.setdefault(file.name, None)
            yield from self._rows(file, number, skip, position.last if skip else "", types, torn)
            self.known[file.name] = before if before == _size(file) else None
            self._check_sizes(files[at:number])

    def _check_sizes(self, earlier: list[Path]) -> None:
        """Raise ``OffsetGone`` for a file that grew after a later one was begun: its new rows would be lost."""
        for file in earlier:
            was, now = self.known.get(file.name), _size(file)
            if was is not None and now is not None and now != was:
                raise OffsetGone(
                    f"{file} had {was:,} bytes when it was read to its end and has {now:,} now, and later files "
                    "were begun: rows that come belong in a later file; put it back as it was"
                )

    def _rows(
        self, file: Path, number: int, skip: int, last: str, types: Mapping[str, Any], torn: bool
    ) -> Iterator[Run]:
        check_types(file, types, grows=torn)
        start = 0
        for block in open_files(file, grows=torn).blocks(dict(types)):
            size = block.rows.num_rows
            if start < skip <= start + size and row_digest(block.rows.slice(skip - start - 1, 1)) != last:
                raise OffsetGone(
                    f"{place(file, skip - 1)}, is not what it was when it was read: the file was rewritten; "
                    "put it back, or start a deployment of a new name from here"
                )
            low = max(skip - start, 0)
            if low < size:
                yield Run(rows=block.rows.slice(low), file=file.name, start=start + low, earlier=number, path=str(file))
            start += size
        if start < skip:
            raise OffsetGone(
                f"{file} has {start:,} rows, and {skip:,} of it were read: it was cut short; put the rows back, "
                "or start a deployment of a new name from here"
            )
