"""Files that were predicted apart from the stream, and how they turned out once labels came.

What was said is logged by digests of ids. Labels are looked up when somebody asks: in the rows of the store, and in the
label log, the latest one of each id. Nothing is learned from these rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.records import Label, Prediction
from perennial.core.times import NEVER
from perennial.ledger.errors import MissingBlob
from perennial.ledger.records import FilePart
from perennial.ledger.sql import SqlLedger
from perennial.metrics.losses import LARGEST_LOSS, pointwise
from perennial.production import tables
from perennial.production.deployment import Deployment
from perennial.stream.instants import Instants
from perennial.stream.label_log import id_digest, log_columns, log_types
from perennial.stream.sources import open_source

_CLASSES = b"classes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the predictions of a file turned out so far.

    ``labelled`` of its ``rows`` have a label by now; ``loss`` is their mean, by its name, and ``right`` the share whose
    class was predicted; None without a label, or for a regression. ``at`` is when it was predicted, in microseconds.
    """

    number: int
    version: str
    file: str
    at: int
    rows: int
    labelled: int
    loss_name: str
    loss: float | None
    right: float | None


def said(ids: Any, prediction: Prediction) -> bytes:
    """What is logged of some rows of a file: what was said, by digests of ids."""
    digests = [b"" if one is None else id_digest(one) for one in ids.to_pylist()]
    columns: dict[str, Any] = {"id": pa.array(digests, type=pa.binary())}
    if prediction.values is not None:
        columns["value"] = prediction.values
    else:
        assert prediction.codes is not None
        columns["code"] = prediction.codes
        for j in range(len(prediction.classes) if prediction.proba is not None else 0):
            assert prediction.proba is not None
            columns[f"proba{j}"] = np.ascontiguousarray(prediction.proba[:, j])
    table = pa.table(columns)
    return tables.to_bytes(table.replace_schema_metadata({_CLASSES: json.dumps(list(prediction.classes))}))


def _read(data: bytes) -> tuple[list[bytes], Prediction]:
    table = tables.from_bytes(data)
    ids = table.column("id").to_pylist()
    if "value" in table.schema.names:
        return ids, Prediction(values=table.column("value").to_numpy())
    classes = tuple(json.loads(table.schema.metadata[_CLASSES]))
    proba = None
    if "proba0" in table.schema.names:
        proba = np.stack([table.column(f"proba{j}").to_numpy() for j in range(len(classes))], axis=1)
    return ids, Prediction(codes=table.column("code").to_numpy(), proba=proba, classes=classes)


def outcomes(deployment: Deployment, ledger: SqlLedger, version: str | None = None) -> tuple[Outcome, ...]:
    """How files that were predicted turned out, of one version or of all, in order.

    Reads the rows that are kept and the label log, if there were files at all.

    Raises
    ------
    ConfigError, DataError
        If the label log cannot be read.
    """
    parts = [part for part in ledger.files() if version in (None, part.version)]
    if not parts:
        return ()
    wanted = {one for part in parts for one in _read(ledger.get(part.predictions))[0]}
    labels = _labels(deployment, ledger, wanted)
    numbers = dict.fromkeys(part.number for part in parts)
    return tuple(_outcome([part for part in parts if part.number == number], ledger, labels) for number in numbers)


def _outcome(parts: Sequence[FilePart], ledger: SqlLedger, labels: Mapping[bytes, Label]) -> Outcome:
    losses: list[NDArray[np.float64]] = []
    right = named = 0
    name = ""
    for part in parts:
        ids, prediction = _read(ledger.get(part.predictions))
        truth = [labels.get(one) for one in ids]
        classes: tuple[Label, ...] = prediction.classes
        if prediction.values is None:  # a class that the model never heard of is a wrong answer, and no missing one
            more = dict.fromkeys(one for one in truth if one is not None and one not in classes)
            classes = (*classes, *more)
            codes = np.array([-1 if one is None else classes.index(one) for one in truth], dtype=np.int32)
            found, name = pointwise(prediction, codes, classes)
            assert prediction.codes is not None
            there = codes >= 0
            right += int((prediction.codes[there] == codes[there]).sum())
        else:
            values = np.array([np.nan if one is None else float(one) for one in truth])
            found, name = pointwise(prediction, values)
            there = ~np.isnan(values)
        named += int(there.sum())
        losses.append(found[found <= LARGEST_LOSS])
    every = np.concatenate(losses)
    first = parts[0]
    return Outcome(
        number=first.number, version=first.version, file=first.file, at=first.at,
        rows=sum(part.rows for part in parts), labelled=named, loss_name=name,
        loss=float(every.mean()) if len(every) else None,
        right=right / named if named and name != "absolute_error" else None,
    )  # fmt: skip


# -- labels by id -----------------------------------------------------------------------------------------------------


def _labels(deployment: Deployment, ledger: SqlLedger, wanted: set[bytes]) -> dict[bytes, Label]:
    """The latest label of each id, of those that are wanted."""
    latest: dict[bytes, tuple[int, Label]] = {}
    for digest, known_at, label in (*_of_rows(ledger), *_of_log(deployment)):
        if digest in wanted and (digest not in latest or known_at >= latest[digest][0]):
            latest[digest] = (known_at, label)
    return {digest: label for digest, (_, label) in latest.items()}


def _of_rows(ledger: SqlLedger) -> Iterable[tuple[bytes, int, Label]]:
    for segment in ledger.segments():
        try:
            batch = tables.from_bytes(ledger.get(segment.digest))
        except MissingBlob:  # a run released it just now
            continue
        if "id" in batch.schema.names:
            yield from _told(batch.column("id"), batch.column("label"), batch.column("known_at").to_numpy())


def _of_log(deployment: Deployment) -> Iterable[tuple[bytes, int, Label]]:
    stream = deployment.stream
    if stream.labels is None:
        return
    source, columns = open_source(stream.labels), log_columns(stream)
    types = log_types(stream, source)
    instants = Instants(columns["known_at"], types[columns["known_at"]], stream.time_zone, ordered=False)
    done = 0
    for block in source.blocks(types):
        known_at = instants.convert(block.rows.column(columns["known_at"]), done, ())
        done += len(known_at)
        yield from _told(block.rows.column(columns["id"]), block.rows.column(columns["target"]), known_at)


def _told(ids: Any, labels: Any, known_at: NDArray[np.int64]) -> Iterable[tuple[bytes, int, Label]]:
    for one, label, at in zip(ids.to_pylist(), labels.to_pylist(), known_at.tolist(), strict=True):
        if one is not None and label is not None and at < NEVER:
            yield id_digest(one), at, label


def forget(ledger: SqlLedger, ids: Iterable[Any]) -> int:
    """Take what was said of these ids out of the log; says of how many rows."""
    gone, rows, touched = {id_digest(one) for one in ids}, 0, set()
    for part in ledger.files() if gone else ():
        table = tables.from_bytes(ledger.get(part.predictions))
        theirs = np.array([one in gone for one in table.column("id").to_pylist()], dtype=bool)
        if theirs.any():
            rows += int(theirs.sum())
            touched.add(part.predictions)
            kept = table.filter(pa.array(~theirs)).combine_chunks()
            ledger.change_file(part, tables.to_bytes(kept))
    for digest in sorted(touched):  # last: files that were predicted twice have the same bytes
        ledger.forget(digest)
    return rows
