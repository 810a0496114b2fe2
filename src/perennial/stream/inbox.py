"""What server processes write and a run takes: the logs of a served deployment, and what their columns are.

Three ingest logs in one database. ``rows`` holds what was predicted, or pushed with its label: the stream's columns,
and what was said of each row. ``labels`` holds labels by id, ``feedback`` thumbs, corrections and words. A run follows
the first two as the source and the label log of its stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, final
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.records import Prediction
from perennial.core.times import spell
from perennial.stream.settings import Stream

Which = Literal["rows", "labels", "feedback"]

#: columns of ``rows`` beside the stream's own: who said it and what; null where nobody did
VERSION, SAID = "perennial_version", "perennial_said"
#: the same of a challenger that was asked beside it
SHADOW, SHADOW_SAID = "perennial_shadow", "perennial_shadow_said"
#: when a label or thumb was received: it is known from then on, whenever it was observed
KNOWN_AT = "known_at"

INSTANT = pa.timestamp("us", tz="UTC")


@final
@dataclass(frozen=True, slots=True)
class Inbox:
    """Where the logs of a deployment are.

    Parameters
    ----------
    database : str
        ``sqlite:///.perennial/inbox.db`` or ``postgresql://user@host/database``.
    deployment : str
        Its name in the ledger.
    keep : timedelta
        How long what a run took stays, to be replayed.
    """

    database: str
    deployment: str
    keep: timedelta = timedelta(0)

    def url(self, which: Which) -> str:
        """The URL of a log, as :class:`~perennial.stream.ingest.IngestLog` and streams take it."""
        join = "&" if "?" in self.database else "?"
        kept = f"&keep={spell(self.keep)}" if self.keep else ""
        return f"{self.database}{join}log={quote(f'{self.deployment}.{which}')}{kept}"


def rows_schema(stream: Stream, types: Mapping[str, Any]) -> Any:
    """Columns of ``rows``: the stream's, of canonical ``types`` by name, and what was said. It has no labels."""
    fields = [pa.field(str(stream.id), pa.string(), nullable=False), pa.field(stream.time, INSTANT, nullable=False)]
    apart = {stream.id, stream.time, stream.target, stream.known_at, *stream.drop}
    fields += [pa.field(name, dtype) for name, dtype in types.items() if name not in apart]
    said = {VERSION: pa.string(), SAID: pa.binary(), SHADOW: pa.string(), SHADOW_SAID: pa.binary()}
    return pa.schema([*fields, *(pa.field(name, dtype) for name, dtype in said.items())])


def labels_schema(stream: Stream, dtype: Any) -> Any:
    """Columns of ``labels``, whose labels are of ``dtype``. ``observed_at`` is what the sender said of its time."""
    fields = [(str(stream.id), pa.string(), False), (str(stream.target), dtype, False), (KNOWN_AT, INSTANT, False)]
    return pa.schema([*(pa.field(n, t, nullable=null) for n, t, null in fields), pa.field("observed_at", INSTANT)])


#: columns of ``feedback``; ``correction`` is JSON
FEEDBACK = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field(KNOWN_AT, INSTANT, nullable=False),
        pa.field("up", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("correction", pa.string()),
    ]
)


def pack(prediction: Prediction) -> Any:
    """What was said of n rows, as a binary array: little-endian doubles, a value, or a code and the probabilities."""
    if prediction.values is not None:
        table = prediction.values.astype("<f8").reshape(-1, 1)
    else:
        assert prediction.codes is not None
        table = prediction.codes.astype("<f8").reshape(-1, 1)
        if prediction.proba is not None:
            table = np.concatenate([table, prediction.proba.astype("<f8")], axis=1)
    rows, width = table.shape
    packed = pa.py_buffer(np.ascontiguousarray(table))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(8 * width), rows, [None, packed]).cast(pa.binary())


def unpack(said: Any) -> list[NDArray[np.float64] | None]:
    """The numbers of each row; None where nothing was said."""
    return [None if one is None else np.frombuffer(one, dtype="<f8") for one in said.to_pylist()]
