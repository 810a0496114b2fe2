"""Predictions that wait for labels: those of the model that serves, and of one that predicts unseen beside it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.records import Label, Prediction
from perennial.core.state import State


@dataclass(slots=True)
class PendingBatch:
    """Predictions of a batch."""

    first: int
    rows: int
    prediction: Prediction
    major: int  # the line that predicted
    out: int  # labels still to come
    until: int  # none comes after this instant
    shadow: Prediction | None = None  # of the line that does not serve
    time: NDArray[np.int64] | None = None  # event times, where there is a shadow
    trial: int = 0  # the trial that this one belongs to
    members: NDArray[np.bool_] | None = None  # rows by slices of the gate: features may be gone when labels come
    majors: NDArray[np.int32] | None = None  # of rows that were answered before they came: by which line each
    served: Prediction | None = None  # beside a shadow: of the line that serves, where others answered some rows


@final
class Pending:
    """Batches whose labels are still to come, in order of position."""

    def __init__(self) -> None:
        self._batches: list[PendingBatch] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: PendingBatch) -> None:
        """The next batch."""
        self._batches.append(batch)

    def labelled(self, position: NDArray[np.int64]) -> Iterator[tuple[PendingBatch, slice]]:
        """The batches that ascending positions fall into, each with the part of them that does.

        Their labels are taken as come: ask once.
        """
        if not len(position):
            return
        at = max(bisect_right(self._batches, int(position[0]), key=lambda batch: batch.first) - 1, 0)
        for batch in self._batches[at:]:
            if batch.first > position[-1]:
                break
            low, high = np.searchsorted(position, [batch.first, batch.first + batch.rows]).tolist()
            batch.out -= high - low
            if low < high:
                yield batch, slice(low, high)

    def let_go(self, now: int) -> None:
        """Forget batches whose labels all came, or come no more."""
        while self._batches and (not self._batches[0].out or self._batches[0].until < now):
            self._batches.pop(0)
        if len(self._batches) > 64 and sum(not batch.out for batch in self._batches) > len(self._batches) // 2:
            self._batches = [batch for batch in self._batches if batch.out]  # one late label holds no others

    # ------------------------------------------------------------------ checkpoints

    def state(self) -> State:
        """Everything; classes are a head of the class table, told by its length."""
        plain = []
        arrays: dict[str, list[NDArray[Any]]] = {}
        for batch in self._batches:
            facts: list[Any] = [batch.first, batch.rows, batch.major, batch.out, batch.until, batch.trial]
            for who, prediction in (("served", batch.prediction), ("shadow", batch.shadow)):
                facts.append(_packed(arrays, who, prediction))
            if batch.time is not None:
                arrays.setdefault("time", []).append(batch.time)
            if batch.members is not None:
                arrays.setdefault("members", []).append(batch.members.ravel())
            facts.append(None if batch.members is None else batch.members.shape[1])
            if batch.majors is not None:
                arrays.setdefault("majors", []).append(batch.majors)
                facts.append(_packed(arrays, "beside", batch.served))
            plain.append(facts)
        return State(plain={"batches": plain}, arrays={name: np.concatenate(parts) for name, parts in arrays.items()})

    def restore(self, state: State, table: Sequence[Label]) -> None:
        """Go on from what :meth:`state` gave, with the class table of then."""
        at = dict.fromkeys(state.arrays, 0)

        def take(name: str, size: int) -> NDArray[Any] | None:
            if name not in state.arrays:
                return None
            start = at[name]
            at[name] += size
            return state.arrays[name][start : start + size]

        def prediction(who: str, rows: int, widths: list[Any] | None) -> Prediction | None:
            if widths is None:
                return None
            classes, width = widths
            proba = None if width is None else take(f"{who}/proba", rows * width)
            return Prediction(
                codes=take(f"{who}/codes", rows),
                values=take(f"{who}/values", rows),
                proba=None if proba is None else proba.reshape(rows, width),
                classes=tuple(table[:classes]),
            )

        self._batches = []
        for first, rows, major, out, until, trial, served, shadow, slices, *answered in state.plain["batches"]:
            told = prediction("served", rows, served)
            assert told is not None
            beside = prediction("shadow", rows, shadow)
            time = take("time", rows) if beside is not None else None
            members = None if slices is None else take("members", rows * slices)
            members = None if members is None else members.reshape(rows, slices)
            majors = take("majors", rows) if answered else None
            line = prediction("beside", rows, answered[0]) if answered else None
            self.add(PendingBatch(first, rows, told, major, out, until, beside, time, trial, members, majors, line))


def _packed(arrays: dict[str, list[NDArray[Any]]], who: str, prediction: Prediction | None) -> list[Any] | None:
    """Put the arrays of a prediction behind the others; gives what is to be known besides to take them out again."""
    if prediction is None:
        return None
    for name in ("codes", "values", "proba"):
        if (array := getattr(prediction, name)) is not None:
            arrays.setdefault(f"{who}/{name}", []).append(array.ravel())
    return [len(prediction.classes), None if prediction.proba is None else prediction.proba.shape[1]]
