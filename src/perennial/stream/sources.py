"""Where rows come from: Parquet and CSV files, and tables in memory, all read as record batches.

Every source gives the same canonical column types, so that what follows cannot tell where the rows were kept:
words are ``string`` (whatever their width or dictionary), and a column of nulls only is ``double``.
"""

from __future__ import annotations

import csv
import glob
import gzip
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard, final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from perennial.core.errors import ConfigError, DataError

BLOCK_BYTES = 32 << 20  #: about how much a block holds, unless one row is larger
BLOCK_ROWS = 1 << 16  #: how many rows a block holds at most

_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".csv.gz": "csv"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9]*(\+[A-Za-z0-9_]+)?://")
_CONVERSION = re.compile(r"In CSV column #(\d+):.*conversion error to (\w+).*?: invalid value '(.*)'", re.DOTALL)


class Block(NamedTuple):
    """Some rows, the file they came from (empty if none), and where the first of them stands in it."""

    rows: Any
    origin: str
    start: int = 0


class Part(NamedTuple):
    """Rows of the stream from position ``first`` on are those of a file from its row ``row`` on."""

    first: int
    row: int
    file: str


Origin = Sequence[Part]  #: where rows came from, in order; empty if from no file


class Source(Protocol):
    """A table that can be read in order, a block at a time."""

    @property
    def rows(self) -> int | None:
        """Number of rows, if known without reading them."""
        ...

    @property
    def names(self) -> list[str]:
        """All columns, also those that are ignored; empty before :meth:`types`."""
        ...

    def types(self, ignore: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
        """Canonical Arrow type of each column but the ignored; columns in ``words`` are wanted as written."""
        ...

    def blocks(self, types: dict[str, Any]) -> Iterator[Block]:
        """The columns of ``types``, in that order and of those types."""
        ...


class Unseen(str):
    """A path that is not looked for until its rows are read: who asks a ledger, or gives it a word, needs none."""


class Widened(Exception):
    """A CSV column turned out to hold more than its first rows showed: read again from the start."""


def is_url(source: object) -> TypeGuard[str]:
    """Whether a source is the URL of a database rather than a path."""
    return isinstance(source, str) and _URL.match(source) is not None


def check_source(source: object, field: str, *, there: bool = True) -> None:
    """Raise ``ConfigError`` unless ``source`` can be read, or will be if it need not be ``there``: nothing is read."""
    if is_url(source):
        from perennial.stream.sql import Address

        Address.of(source, field, there=there)
    elif isinstance(source, Unseen):
        pass
    elif isinstance(source, str | Path):
        _files(source, field)
    elif not hasattr(source, "__arrow_c_stream__"):
        need = "give a file, a folder, a glob, a database's URL, or a table of pyarrow, pandas or Polars"
        raise ConfigError(field, type(source).__name__, need)


def open_source(source: object, field: str = "source") -> Source:
    """The reader for a path, a glob, a database's URL or a table in memory.

    Raises
    ------
    ConfigError
        If there is no such file, or files of several kinds; if a URL is wrong, or leads to no table.
    """
    if is_url(source):
        from perennial.stream.sql import Address, Table

        if Address.of(source, field).log:
            from perennial.stream.ingest import IngestSource

            return IngestSource(source, field)
        return Table(source, field)
    if isinstance(source, str | Path):
        return open_files(source, field)
    check_source(source, field)
    return _Memory(source)


def open_files(source: str | Path, field: str = "source", *, grows: bool = False) -> _Parquet | _Csv:
    """The reader for a path or a glob; raises as :func:`open_source` does.

    Parameters
    ----------
    source, field
        As there.
    grows : bool
        Somebody may be writing: a CSV file ends with its last line end, what is behind it is no line yet.
    """
    kind, files = _files(source, field)
    return _Parquet(files) if kind == "parquet" else _Csv(files, grows)


def files_of(source: str | Path) -> list[Path]:
    """The files of a path or a glob, in name order; none if there are none yet."""
    try:
        return _files(source, "source")[1]
    except ConfigError:
        path = Path(source)
        if not any(path.iterdir()) if path.is_dir() else not path.exists() and not glob.glob(str(source)):
            return []
        raise


def check_types(file: Path, types: Mapping[str, Any], *, grows: bool = False) -> None:
    """Raise ``DataError`` unless a file holds every column of ``types`` in its type; it may hold more.

    A CSV file's whole numbers pass for fractions, and a column of nulls for anything.
    """
    source = open_files(file, grows=grows)
    source.types((), [name for name, dtype in types.items() if pa.types.is_string(dtype)])
    found = [
        (origin, {name: dtype for name, dtype in columns.items() if name in types}) for origin, columns in source.found
    ]
    if isinstance(source, _Csv):
        source.check(file, types)
    unified = _unify([("earlier files", dict(types)), *found], promote=isinstance(source, _Csv))
    for name, dtype in types.items():
        if unified[name] != dtype:
            raise DataError(
                f"column {name!r} is {dtype} in earlier files and {unified[name]} in {file}: a column keeps its "
                "type; convert the file"
            )


def canonical_type(dtype: Any) -> Any:
    """The type that stands for all types that hold the same values for a learner."""
    if pa.types.is_dictionary(dtype):
        return canonical_type(dtype.value_type)
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pa.string()
    if pa.types.is_float16(dtype):
        return pa.float32()
    return pa.float64() if pa.types.is_null(dtype) else dtype


def _files(source: str | Path, field: str) -> tuple[str, list[Path]]:
    try:
        return _found(Path(source), source, field)
    except OSError as error:
        raise DataError(f"{source} cannot be listed: {error.strerror or error}") from error


def _found(path: Path, source: str | Path, field: str) -> tuple[str, list[Path]]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
    elif path.exists():
        files = [path]
    else:
        files = sorted(Path(p) for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
    if not files:
        found = "the folder is empty" if path.is_dir() else "no such file or folder"
        raise ConfigError(field, str(source), f"{found} (looked in {Path.cwd()})")
    kinds = {file: _kind(file) for file in files}
    for file, kind in kinds.items():
        if kind is None:
            raise ConfigError(
                field, str(file), f"files end in {', '.join(_SUFFIXES)}: name them with a glob such as '*.csv'"
            )
        if kind != kinds[files[0]]:
            raise ConfigError(
                field, str(source), f"{files[0].name} and {file.name} are of two kinds: give one, e.g. '*.parquet'"
            )
    kind = kinds[files[0]]
    assert kind is not None
    return kind, files


def _kind(file: Path) -> str | None:
    name = file.name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def _unify(found: list[tuple[str, dict[str, Any]]], promote: bool) -> dict[str, Any]:
    """One type per column over files; ``promote``: whole numbers and fractions are one (text has no types)."""
    first_origin, first = found[0]
    types, seen = dict(first), dict.fromkeys(first, first_origin)
    for origin, columns in found[1:]:
        for name in types.keys() | columns.keys():
            if name not in columns or name not in types:
                has, lacks = (first_origin, origin) if name in types else (origin, first_origin)
                raise DataError(
                    f"column {name!r} is in {has} but not in {lacks}: files of a stream have the same columns; "
                    "add it, or list it under `drop`"
                )
            old, new = types[name], columns[name]
            if pa.types.is_null(new) or old == new:
                continue
            if pa.types.is_null(old) or (promote and old == pa.int64() and new == pa.float64()):
                types[name], seen[name] = new, origin
            elif not (promote and old == pa.float64() and new == pa.int64()):
                raise DataError(
                    f"column {name!r} is {old} in {seen[name]} and {new} in {origin}: a column keeps its type; "
                    "convert one of the files, or list the column under `drop`"
                )
    return {name: canonical_type(dtype) for name, dtype in types.items()}


def _flat(dtype: Any) -> Any:
    """Canonical, but nulls stay nulls: they agree with any type."""
    return dtype if pa.types.is_null(dtype) else canonical_type(dtype)


def _conform(batch: Any, types: dict[str, Any]) -> Any:
    columns = []
    for name, dtype in types.items():
        column = batch.column(batch.schema.get_field_index(name))
        columns.append(column if column.type == dtype else column.cast(dtype))
    return pa.record_batch(columns, schema=pa.schema(list(types.items())))


def _cut(batches: Iterable[Any], types: dict[str, Any], origin: str) -> Iterator[Block]:
    done = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, rows):
            yield Block(_conform(batch.slice(start, rows), types), origin, done + start)
        done += batch.num_rows


def _from_pandas(frame: Any) -> Any:
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (ValueError, TypeError) as error:  # Arrow's errors among them
        raise DataError(f"the pandas frame cannot be read, one type per column is needed: {error}") from error


@final
class _Memory:
    """A table in memory: Arrow, pandas, Polars, or a reader that can be read once."""

    def __init__(self, table: Any) -> None:
        if type(table).__module__.partition(".")[0] == "pandas":
            table = _from_pandas(table)
        if isinstance(table, pa.Table):
            self.rows: int | None = table.num_rows
            self._reader = table.to_reader()
        else:
            self.rows = None
            self._reader = pa.RecordBatchReader.from_stream(table)
        self.names: list[str] = self._reader.schema.names

    def types(self, ignore: Sequence[str], words: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        schema = self._reader.schema
        if len(set(schema.names)) < len(schema.names):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise DataError(f"two columns are called {twice!r}: rename one")
        return {f.name: canonical_type(f.type) for f in schema if f.name not in ignore}

    def blocks(self, types: dict[str, Any]) -> Iterator[Block]:
        yield from _cut(self._reader, types, "")


@final
class _Parquet:
    """Parquet files, read by record batches."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self.rows: int | None = None
        self.names: list[str] = []
        self.found: list[tuple[str, dict[str, Any]]] = []  #: what each file's columns are

    def types(self, ignore: Sequence[str], words: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        found, rows = [], 0
        for file in self._files:
            try:
                with pa.parquet.ParquetFile(file) as parquet:
                    rows += parquet.metadata.num_rows
                    schema = parquet.schema_arrow
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file} cannot be read as Parquet: {error}") from error
            self.names = self.names or schema.names
            found.append((str(file), {f.name: _flat(f.type) for f in schema if f.name not in ignore}))
        self.rows, self.found = rows, found
        return _unify(found, promote=False)

    def blocks(self, types: dict[str, Any]) -> Iterator[Block]:
        for file in self._files:
            with pa.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as parquet:
                meta = parquet.metadata
                size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
                rows = max(16, min(BLOCK_ROWS, BLOCK_BYTES * meta.num_rows // max(size, 1)))
                try:
                    yield from _cut(parquet.iter_batches(batch_size=rows, columns=list(types)), types, str(file))
                except (pa.ArrowException, OSError) as error:
                    raise DataError(f"{file} cannot be read as Parquet: {error}") from error


@final
class _Csv:
    """CSV files with a header; types are inferred from the first rows of each file and must agree."""

    def __init__(self, files: list[Path], grows: bool = False) -> None:
        self._files, self._grows = files, grows
        self._wider: dict[str, Any] = {}
        self._empty: set[str] = set()  # no value in the first rows of any file
        self._columns: dict[str, list[str]] = {}
        self.rows: int | None = None
        self.names: list[str] = []
        self.found: list[tuple[str, dict[str, Any]]] = []  #: what the first rows of each file's columns are

    def types(self, ignore: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
        found = []
        as_written = dict.fromkeys(words, pa.string())
        for file in self._files:
            try:
                with self._open(file, as_written) as reader:
                    schema = reader.schema
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file} cannot be read as CSV: {error}") from error
            self._columns[file.name] = schema.names
            self.names = self.names or schema.names
            found.append((str(file), {f.name: f.type for f in schema if f.name not in ignore}))
        self.found = found
        unified = _unify(found, promote=True)
        self._empty = {name for name in unified if all(pa.types.is_null(columns[name]) for _, columns in found)}
        return unified | {name: dtype for name, dtype in self._wider.items() if name in unified}

    def blocks(self, types: dict[str, Any]) -> Iterator[Block]:
        for file in self._files:
            try:
                with self._open(file, types, list(types)) as reader:
                    yield from _cut(reader, types, str(file))
            except (pa.ArrowException, OSError) as error:
                self._widen(file, str(error), types)
                raise DataError(f"{file} cannot be read as CSV: {error}") from error

    def _open(self, file: Path, types: dict[str, Any], only: list[str] | None = None) -> Any:
        convert = pa.csv.ConvertOptions(
            column_types=types,
            include_columns=only,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        # one block is parsed at a time, and must hold the longest row
        read = pa.csv.ReadOptions(use_threads=False, block_size=4 << 20)
        parse = pa.csv.ParseOptions(newlines_in_values=True)
        source = _lines(file) if self._grows and file.suffix.lower() == ".csv" else file
        return pa.csv.open_csv(source, read_options=read, parse_options=parse, convert_options=convert)

    def _widen(self, file: Path, message: str, types: dict[str, Any]) -> None:
        """Raise ``Widened`` where whole numbers turn into fractions, ``DataError`` where numbers turn into words."""
        if not (match := _CONVERSION.search(message)):
            return
        name, value = self._columns[file.name][int(match[1])], match[3]
        old = types[name]
        if name in self._empty and old == pa.float64():
            self._wider[name] = pa.string()
            raise Widened
        if old == pa.int64() and _is_number(value):
            self._wider[name] = pa.float64()
            raise Widened
        self._refuse_misfit(file, name, old)
        raise DataError(
            f"column {name!r} of {file} holds {value!r} where earlier rows hold {old}: a column keeps its type; "
            "correct the value, or list the column under `drop`"
        )

    def check(self, file: Path, types: Mapping[str, Any]) -> None:
        """Raise ``DataError`` for the first value that does not fit, in a column that seems to be of another type."""
        seen = dict(next(columns for origin, columns in self.found if origin == str(file)))
        for name, dtype in types.items():
            now = seen.get(name, dtype)
            if now != dtype and not pa.types.is_null(now) and (now, dtype) != (pa.int64(), pa.float64()):
                self._refuse_misfit(file, name, dtype)

    def _refuse_misfit(self, file: Path, name: str, dtype: Any) -> None:
        if (found := self._misfit(file, name, dtype)) is not None:
            row, value = found
            raise DataError(
                f"column {name!r}, {place(file, row)}: {value!r} where earlier rows hold {dtype}: a column keeps its "
                "type; correct the value, or list the column under `drop`"
            )

    def _misfit(self, file: Path, name: str, dtype: Any) -> tuple[int, str] | None:
        """The first value of a column that a type does not hold, and its row; None if every value fits."""
        done = 0
        with self._open(file, {name: pa.string()}, [name]) as reader:
            for batch in reader:
                column = batch.column(0)
                if not _casts(column, dtype):
                    rows = (row for row in range(len(column)) if not _casts(column.slice(row, 1), dtype))
                    if (row := next(rows, None)) is not None:
                        return done + row, column[row].as_py()
                done += len(column)
        return None


def place(file: str | Path, row: int) -> str:
    """Where a row of a file is, as people look for it: the line of a CSV file, else its number, counting from 0."""
    if _kind(Path(file)) == "csv" and (line := _line(Path(file), row)) is not None:
        return f"line {line:,} of {file}"
    return f"row {row} (in {file}), counting from 0"


def _line(file: Path, row: int) -> int | None:
    """The line on which a row of a CSV file begins, counting from 1; None if that cannot be told.

    The header, lines that are empty and quoted line ends count, as in an editor.
    """
    opened: Any = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", errors="replace", newline="") as text:
            lines = csv.reader(text)
            begins = 1
            for fields in lines:
                if fields:
                    if row < 0:
                        return begins
                    row -= 1
                begins = lines.line_num + 1
    except (OSError, csv.Error):
        pass
    return None


def _casts(column: Any, dtype: Any) -> bool:
    try:
        column.cast(dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _lines(file: Path) -> Any:
    """A CSV file up to its last line end."""
    raw = pa.OSFile(str(file))
    end = raw.size()
    while end:
        low = max(end - (1 << 16), 0)
        raw.seek(low)
        at = raw.read(end - low).rfind(b"\n")
        if at >= 0:
            end = low + at + 1
            break
        end = low
    return raw.get_stream(0, end)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
