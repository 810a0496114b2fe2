"""What tests of the inbox share: a stream that is served, a writer for it, answers to log, and a look at the logs."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import numpy as np
import pyarrow as pa

from perennial.core.errors import ConfigError
from perennial.core.records import Prediction
from perennial.server.rows import Answered, Rows
from perennial.server.writer import Writer
from perennial.stream import Stream
from perennial.stream.feed import Position, feed_of
from perennial.stream.ingest import IngestLog

TYPES = {"x": pa.float64(), "n": pa.int64(), "flag": pa.bool_(), "word": pa.string(), "who": pa.string()}
CLASSES = ("down", "up")


class Counters(Counter):
    """What a worker counts, in memory."""

    def add(self, name, n=1):
        """Count."""
        self[name] += n


def stream():
    """A stream of two classes whose rows are about customers."""
    columns = {"call": pa.array([], pa.string()), "at": pa.array([], pa.timestamp("us", "UTC"))}
    columns |= {name: pa.array([], dtype) for name, dtype in TYPES.items()}
    columns |= {"y": pa.array([], pa.string())}
    labels = pa.table({"call": columns["call"], "y": columns["y"], "known_at": columns["at"]})
    return Stream(
        pa.table(columns), time="at", time_zone="UTC", target="y", id="call", key="who", labels=labels, label_wait="30d"
    )


def writer(inbox, *, types=lambda: TYPES, counters=None, **settings):
    """A writer of an inbox, which is not started."""
    settings = {"flush": timedelta(milliseconds=5), "queue_rows": 1000, "overflow": "drop"} | settings
    return Writer(inbox, stream(), counters=Counters() if counters is None else counters, types=types, **settings)


def answered(first, n=1, *, time=1_000_000, version="1.0", proba=True, shadow=None, classes=CLASSES):
    """An answer about rows with ids in order."""
    ids = [f"call-{i}" for i in range(first, first + n)]
    at = np.arange(first, first + n, dtype=np.float64)
    numbers = np.stack([at / 2, at, at % 2, np.full(n, np.nan)], axis=1)
    said = prediction(at, proba=proba, classes=classes)
    rows = Rows(
        n=n, numbers=numbers, others={"word": [f"w{i % 3}" for i in range(n)]}, keys=[f"who-{i % 2}" for i in range(n)]
    )
    return Answered(time=time, ids=ids, rows=rows, version=version, prediction=said, shadow=shadow)


def prediction(at, *, proba=True, classes=CLASSES):
    """What is said of rows: class and probability follow from their number."""
    codes = (at % 2).astype(np.int32)
    table = np.stack([1 - at / 1e6, at / 1e6], axis=1) if proba else None
    return Prediction(codes=codes, proba=table, classes=classes)


def entries(inbox, which):
    """The entries of a log that are there: each as a list of rows."""
    try:
        with IngestLog.open(inbox.url(which)) as log:
            schema = log.schema
    except ConfigError:
        return []
    if schema is None:
        return []
    found = {}
    for run in feed_of(inbox.url(which)).read(Position(), {one.name: one.type for one in schema}):
        for key, row in zip(run.keys, run.rows.to_pylist(), strict=True):
            found.setdefault(key[1], []).append(row)
    return list(found.values())


def rows(inbox, which):
    """The rows of a log that are there."""
    return [row for entry in entries(inbox, which) for row in entry]
