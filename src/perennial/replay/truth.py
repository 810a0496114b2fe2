"""What the labels of a stream were in the end, and what was known of them first: a log of labels included."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from perennial.core.records import Label, TaskKind, typed
from perennial.core.times import NEVER
from perennial.stream.prepared import REVISIONS, Prepared, StreamLabels


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The labels of a stream: the latest ones known at its end, and the first ones, by the same class table.

    ``known_at`` of both is the instant at which the first one became known.
    """

    last: StreamLabels
    first: StreamLabels


def truth(prepared: Prepared, task: TaskKind, closes_at: int) -> Truth:
    """All labels that are known by ``closes_at``, in rows and in the log."""
    own = prepared.labels(task)
    later = [entry for entry in _revisions(prepared) if entry[1] <= closes_at]
    if not later:
        return Truth(last=own, first=own)
    classes = list(own.classes)
    code = {typed(label): i for i, label in enumerate(classes)}
    labels = own.codes if own.codes is not None else own.values
    assert labels is not None
    first, last = labels.copy(), labels.copy()
    known_at, newest = own.known_at.copy(), np.where(own.known_at <= closes_at, own.known_at, -NEVER)
    for position, at, label in later:
        value = label
        if task == "classification":
            value = code.setdefault(typed(label), len(classes))
            if value == len(classes):
                classes.append(label)
        if at >= newest[position]:
            last[position], newest[position] = value, at
        if at < known_at[position]:
            first[position], known_at[position] = value, at

    known = replace(own, known_at=known_at, classes=tuple(classes))
    if task == "classification":
        return Truth(
            last=replace(known, codes=np.asarray(last, dtype=np.int32)),
            first=replace(known, codes=np.asarray(first, dtype=np.int32)),
        )
    return Truth(
        last=replace(known, values=np.asarray(last, dtype=np.float64)),
        first=replace(known, values=np.asarray(first, dtype=np.float64)),
    )


def longest_wait(prepared: Prepared, task: TaskKind) -> timedelta:
    """How long after its event a row got its first label from the log, at most; zero without a log.

    Where `label_wait` says how long a row may wait, it is that.
    """
    if prepared.label_wait is not None:
        return prepared.label_wait
    later = _revisions(prepared)
    if not later:
        return timedelta(0)
    own = prepared.labels(task)
    waits = [known - int(own.time[position]) for position, known, _ in later if known < own.known_at[position]]
    return timedelta(microseconds=max(waits, default=0))


def _revisions(prepared: Prepared) -> list[tuple[int, int, Label]]:
    """(position, known at, label) of every label that came apart from its row, in the order in which they did."""
    if not prepared.revisions:
        return []
    with pa.OSFile(str(prepared.folder / REVISIONS)) as file:
        table = pa.ipc.open_file(file).read_all()
    entries = zip(*(table.column(name).to_pylist() for name in ("position", "known_at", "label")), strict=True)
    return sorted(entries, key=lambda entry: entry[1])
