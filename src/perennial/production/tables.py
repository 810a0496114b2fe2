"""What a turn said and learned of labels, as Arrow tables in bytes: what the ledger keeps of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from perennial.core.records import Joined, Label, Predicted


def predictions(predicted: Predicted, *, times: bool = True) -> bytes:
    """Row, event time, prediction, probabilities and version of each row that was predicted; event times may be left.

    The row's id is in the store beside its features: once a subject is erased there, nothing ties a prediction to them.
    """
    told = predicted.prediction
    n = len(told)
    columns: dict[str, Any] = {"row": np.arange(predicted.first, predicted.first + n)}
    if times:
        columns["time"] = predicted.time
    if told.values is not None:
        columns["prediction"] = told.values
    else:
        assert told.codes is not None
        columns["prediction"] = _words(told.codes, told.classes)
        for j, label in enumerate(told.classes if told.proba is not None else ()):
            assert told.proba is not None
            columns[f"proba_{label}"] = np.ascontiguousarray(told.proba[:, j])
    numbers = zip(predicted.major.tolist(), predicted.minor.tolist(), strict=True)
    columns["version"] = pa.array([None if major < 0 else f"{major}.{minor}" for major, minor in numbers], pa.string())
    return to_bytes(pa.table(columns))


def labels(joined: Joined, classes: tuple[Label, ...]) -> bytes:
    """Row, label, when it became known and whether it is a revision, of each label that was joined."""
    label = _words(joined.codes, classes) if joined.codes is not None else pa.array(joined.values)
    columns = {"row": joined.position, "known_at": joined.known_at, "label": label, "revised": joined.revised}
    return to_bytes(pa.table(columns))


def _words(codes: Any, classes: tuple[Label, ...]) -> Any:
    """Class values of codes, null below 0."""
    if not classes:
        return pa.nulls(len(codes), pa.string())
    return pa.array(list(classes)).take(pa.array(codes, mask=codes < 0, type=pa.int32()))


def to_bytes(table: Any) -> bytes:
    """A table as a compressed Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> Any:
    """The table that :func:`to_bytes` wrote."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()
