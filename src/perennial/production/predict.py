"""Batch scoring: rows of a file, encoded as the stream's own were, through a version of the ledger.

What was said is logged by id, so that labels to come find it: see :mod:`~perennial.production.outcomes`. Nothing is
learned from a file: rows that shall be go into the stream's source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from perennial.core.errors import ConfigError, DataError, LedgerError
from perennial.core.protocols import Learner
from perennial.core.records import Label, Prediction, align
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint, outcomes
from perennial.production.deployment import Deployment
from perennial.stream.encoding import Encoder
from perennial.stream.settings import Stream
from perennial.stream.sources import canonical_type, check_source, check_types, files_of, open_files

_ENDINGS = (".parquet", ".pq", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What was written: ``rows`` predictions of ``version`` at ``path``.

    ``number`` is that of the file in the ledger; None where it has no ids, and so nothing was logged.
    """

    version: str
    rows: int
    path: Path
    number: int | None


def predict(
    deployment: Deployment, ledger: SqlLedger, file: Path, output: Path, *, version: str | None = None
) -> Scored:
    """Predict the rows of a file and write one row for each: id, prediction, probabilities, version. Log it by id.

    Parameters
    ----------
    deployment : Deployment
        With the settings that the ledger was begun with.
    ledger : SqlLedger
        Its ledger; a run may be going on.
    file : Path
        Parquet or CSV files, with the feature columns of the stream. The label and the other columns with a role may be
        absent; without the ``id`` column a row's id is its number, and nothing is logged.
    output : Path
        A Parquet or CSV file, written aside and put in place whole.
    version : str, optional
        The champion unless given.

    Raises
    ------
    ConfigError
        If there is no such file, the output would be one of the stream's own, or features are built from past rows.
    UnknownVersion, LedgerError
        If there is no such version, or none at all.
    DataError
        If the file lacks a column, or one has another type.
    """
    _check_output(deployment.stream, file, output)
    if deployment.stream.features is not None:
        raise ConfigError(
            "features", str(deployment.stream.describe()["features"]),
            "its features are built from past rows, which a file apart does not have: append the rows to the stream's "
            "source, and `perennial run` predicts them",
        )  # fmt: skip
    number = version if version is not None else ledger.alias("champion").version
    if number is None:
        raise LedgerError(f"{ledger.deployment!r} has no champion yet: its initial period is not over")
    saved = ledger.version(number)
    model = deployment.load(ledger.get(saved.blob))
    parts: list[tuple[int, bytes]] = []
    tables = _predictions(deployment, ledger, model, file, number, parts)
    logged: list[int] = []

    def log() -> None:
        if parts:
            logged.append(ledger.log_file(number, str(file), parts))

    rows = _write(tables, output, log)
    return Scored(version=number, rows=rows, path=output, number=logged[0] if logged else None)


def _check_output(stream: Stream, file: Path, output: Path) -> None:
    if output.suffix.lower() not in _ENDINGS:
        raise ConfigError("output", str(output), f"name a file that ends in {', '.join(_ENDINGS)}")
    if "://" in str(file):
        raise ConfigError("file", str(file), "give Parquet or CSV files")
    check_source(file, "file")  # else the error would be one of the stream's own source
    target, read = output.resolve(), {path.resolve() for path in files_of(file)}
    if "://" not in str(stream.source):  # rows are read from files, and a new one in their place would be read too
        source = Path(stream.source)
        read |= {path.resolve() for path in files_of(source)}
        read |= {source.resolve() / target.name} if source.is_dir() else set()
        if "*" in source.name and target.match(source.name):
            read |= {source.resolve().parent / target.name}
    if target in read:
        raise ConfigError("output", str(output), "rows are read from there: write predictions somewhere else")


def _predictions(
    deployment: Deployment, ledger: SqlLedger, model: Learner, file: Path, number: str, parts: list[tuple[int, bytes]]
) -> Iterator[Any]:
    """Tables of predictions, a block of rows after the other; what is to be logged of each is added to ``parts``."""
    state = checkpoint.last(ledger)
    encoder = checkpoint.restored(deployment, state).encoder
    classes = tuple(state.part("engine").part("book").plain["classes"])
    types = _types(deployment.stream, encoder, file)
    names, done = list(encoder.schema.names), 0
    for path in files_of(file):
        check_types(path, {name: types[name] for name in names})
        for block in open_files(path).blocks(types):
            rows = block.rows
            features = encoder.features([rows.column(name) for name in names], done)
            prediction = align(model.predict(features), classes)
            identity = deployment.stream.id
            if identity in types:
                ids = rows.column(identity)
                parts.append((rows.num_rows, outcomes.said(ids, prediction)))
            else:
                ids = pa.array(np.arange(done, done + rows.num_rows))
            yield _table(prediction, ids, number)
            done += rows.num_rows
    if not done:
        raise DataError(f"{file} holds no row: there is nothing to predict")


def _types(stream: Stream, encoder: Encoder, file: Path) -> dict[str, Any]:
    """Columns to read and their types: the features, as the stream has them, and the id if it is there."""
    first = open_files(file, "file")
    found = first.types((), [c.name for c in encoder.schema.columns if c.dtype == "string"])
    missing = [name for name in encoder.schema.names if name not in found]
    if missing:
        raise DataError(
            f"{file} lacks the {'column' if len(missing) == 1 else 'columns'} {', '.join(map(repr, missing))}: the "
            "model wants every feature of the stream; add it"
        )
    types = encoder.types
    if stream.id is not None and stream.id in found:
        types[stream.id] = canonical_type(found[stream.id])
    return types


def _table(prediction: Prediction, ids: Any, number: str) -> Any:
    columns: dict[str, Any] = {"id": ids}
    if prediction.values is not None:
        columns["prediction"] = pa.array(prediction.values, mask=np.isnan(prediction.values))
    else:
        assert prediction.codes is not None
        columns["prediction"] = _words(prediction.codes, prediction.classes)
        if prediction.proba is not None:
            for j, label in enumerate(prediction.classes):
                columns[f"proba_{label}"] = np.ascontiguousarray(prediction.proba[:, j])
    columns["version"] = pa.array([number] * len(prediction))
    return pa.table(columns)


def _words(codes: Any, classes: tuple[Label, ...]) -> Any:
    """Class values of codes, null where the model abstained."""
    return pa.array(list(classes)).take(pa.array(codes, mask=codes < 0, type=pa.int32()))


def _write(tables: Iterator[Any], output: Path, log: Callable[[], None]) -> int:
    """Write tables aside, log them and put them in place; gives the number of rows."""
    head = next(tables)
    aside = output.with_name(output.name + ".part")
    rows = 0
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _writer(output, aside, head.schema) as writer:
            for table in _chained(head, tables):
                writer.write_table(table)
                rows += table.num_rows
        log()  # first: nobody shall act on a prediction that its label will not find
        aside.replace(output)
    except OSError as error:
        need = f"cannot write it: {error.strerror or error}; name another place"
        raise ConfigError("output", str(output), need) from error
    finally:
        aside.unlink(missing_ok=True)
    return rows


def _chained(head: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield head
    yield from rest


def _writer(output: Path, aside: Path, schema: Any) -> Any:
    if output.suffix.lower() == ".csv":
        return pa.csv.CSVWriter(aside, schema)
    return pq.ParquetWriter(aside, schema)
