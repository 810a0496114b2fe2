"""Rows that share a turn, each of them a batch of its own: tested and learned one after the other.

What is learned before which row is known beforehand, from labels' times alone. So the turns of single rows become one
pass over the model, with the results that single turns would have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.features import Features
from perennial.core.protocols import Interleaved, Learner, Updatable
from perennial.core.records import Batch, Examples, Joined, Label, Prediction, Turn, align

#: gives key and seed of a training: of what kind, from which key on, of which examples
Keys = Callable[[str, str | None, Examples], tuple[str | None, int]]


@final
@dataclass(frozen=True, slots=True)
class Order:
    """What is learned before each of n rows is tested.

    Parameters
    ----------
    position : array of int64, shape (m,)
        Rows that may be learned, in the order in which they are.
    upto : array of int64, shape (n,)
        How many of them before each row is tested.
    known : array of int64, shape (n,)
        How many classes of the table are known then.
    """

    position: NDArray[np.int64]
    upto: NDArray[np.int64]
    known: NDArray[np.int64]

    @classmethod
    def of(
        cls, batch: Batch, starts: NDArray[np.int64], joined: Joined, *, unlearned: NDArray[np.int64], classes: int
    ) -> Self:
        """The order of a batch, from the labels that became known during it.

        Parameters
        ----------
        batch : Batch
            Whose rows are apart.
        starts : array of int64, shape (n,)
            When the turn of each row begins.
        joined : Joined
            All labels that became known in these turns.
        unlearned : array of int64
            Positions that may be learned and were not, those of ``joined`` among them.
        classes : int
            How many classes of the table were known before.
        """
        known_at = np.full(len(unlearned), np.iinfo(np.int64).min)
        here = np.isin(unlearned, joined.position)
        if here.any():
            fresh = ~joined.revised
            place = np.argsort(joined.position[fresh], kind="stable")
            at = np.searchsorted(joined.position[fresh][place], unlearned[here])
            known_at[here] = joined.known_at[fresh][place][at]
        row = _usable_from(known_at, unlearned, starts, batch.first)
        order = np.lexsort((unlearned, known_at, row))
        upto = np.searchsorted(row[order], np.arange(len(batch)), side="right")
        return cls(unlearned[order], upto.astype(np.int64), _known_classes(joined, starts, batch.first, classes))

    @property
    def learned(self) -> NDArray[np.int64]:
        """Positions that are learned before the last row is tested, in order."""
        return self.position[: int(self.upto[-1])]

    @property
    def left(self) -> NDArray[np.int64]:
        """Positions that wait for a later turn."""
        return self.position[int(self.upto[-1]) :]

    @property
    def steps(self) -> NDArray[np.int64]:
        """How many updates were done before each row is tested, shape (n,)."""
        return np.cumsum(np.diff(self.upto, prepend=0) > 0)

    def stretches(self, *, many: bool) -> list[tuple[int, int]]:
        """Runs of rows ``[low, high)`` that one call may test and train: single rows unless it may be many.

        Within a run, at most one example is learned before each row but the first, and the class table stays as it is.
        """
        rows = np.arange(1, len(self.upto))
        if many:
            rows = rows[(np.diff(self.upto) > 1) | (np.diff(self.known) > 0)]
        return list(zip([0, *rows.tolist()], [*rows.tolist(), len(self.upto)], strict=True))


def one_by_one(
    model: Learner, key: str | None, queue: Examples, features: Features, order: Order, keys: Keys
) -> tuple[Prediction, str | None]:
    """Predictions of rows, each made after learning what is known by then, and the key of the model after them.

    Each row's update is the one that a turn of its own would do: with the same examples, seed and class table.

    Parameters
    ----------
    model, key : Updatable, str
        What learns, in place, and its key.
    queue : Examples
        The rows at ``order.learned``, with the class table as it is after the last of them.
    features : Features
        The rows that are tested, n of them.
    order : Order
        What is learned before which row.
    keys : callable
        Gives key and seed of each training.
    """
    assert isinstance(model, Updatable)
    began, done, said = key, 0, []
    many = isinstance(model, Interleaved)
    for low, high in order.stretches(many=many):
        ready, table = int(order.upto[low]), queue.classes[: int(order.known[low])]
        if ready > done:
            due = replace(queue.slice(done, ready), classes=table)
            key, seed = keys("update", key, due)
            model.update(due, seed)
            done = ready
        rows = features.slice(low, high)
        if isinstance(model, Interleaved):
            done = int(order.upto[high - 1])
            due = replace(queue.slice(ready, done), classes=table)
            prediction = model.interleave(due, rows, order.upto[low:high] - ready, 0)
        else:
            prediction = model.predict(rows)
        said.append(align(prediction, table))
    if many and len(queue):
        key, _ = keys("apart", began, queue)
    return _stacked(said, queue.classes), key


def part(batch: Batch, start: int, stop: int) -> Batch:
    """Rows ``[start, stop)`` of a batch whose rows are apart."""
    cut = slice(start, stop)
    return replace(
        batch,
        start=int(np.maximum.accumulate(batch.time)[start]),
        first=batch.first + start,
        features=batch.features.slice(start, stop),
        rows=batch.rows[cut],
        time=batch.time[cut],
        known_at=batch.known_at[cut],
        label_codes=None if batch.label_codes is None else batch.label_codes[cut],
        labels=None if batch.labels is None else batch.labels[cut],
        weights=None if batch.weights is None else batch.weights[cut],
        groups=None if batch.groups is None else batch.groups[cut],
        ids=None if batch.ids is None else batch.ids[cut],
        late=None if batch.late is None else batch.late[cut],
    )


def joined_both(first: Joined, second: Joined) -> Joined:
    """The labels of two turns that become one."""
    return Joined(
        position=np.concatenate([first.position, second.position]),
        known_at=np.concatenate([first.known_at, second.known_at]),
        revised=np.concatenate([first.revised, second.revised]),
        codes=None if first.codes is None or second.codes is None else np.concatenate([first.codes, second.codes]),
        values=None if first.values is None or second.values is None else np.concatenate([first.values, second.values]),
    )


def merged(head: Turn, tail: Turn, rows: int) -> Turn:
    """One turn of a batch whose first rows fell into the initial period."""
    return replace(
        tail,
        rows=rows,
        joined=joined_both(head.joined, tail.joined),
        decisions=(*head.decisions, *tail.decisions),
        late=head.late + tail.late,
        quarantined=head.quarantined or tail.quarantined,
        notes=(*head.notes, *tail.notes),
    )


def _known_classes(joined: Joined, starts: NDArray[np.int64], first: int, before: int) -> NDArray[np.int64]:
    """How many classes of the table are known when each row is tested, shape (n,)."""
    sizes = np.full(len(starts), before)
    if joined.codes is not None:
        row = _usable_from(joined.known_at, joined.position, starts, first)
        here = row < len(starts)
        np.maximum.at(sizes, row[here], joined.codes[here] + 1)
    return np.maximum.accumulate(sizes)


def _usable_from(
    known_at: NDArray[np.int64], position: NDArray[np.int64], starts: NDArray[np.int64], first: int
) -> NDArray[np.int64]:
    """The first row of a batch whose turn knows each label: it began late enough, and after the label's own row."""
    return np.maximum(np.searchsorted(starts, known_at, side="left"), position - first + 1).clip(min=0)


def _stacked(said: list[Prediction], classes: tuple[Label, ...]) -> Prediction:
    """Predictions one after the other; those without probabilities have NaN, if any has some."""
    if said[0].values is not None:
        return Prediction(values=np.concatenate([p.values for p in said if p.values is not None]))
    several = [align(p, classes) for p in said]
    proba = None
    if any(p.proba is not None for p in several):
        proba = np.concatenate(
            [np.full((len(p), len(classes)), np.nan) if p.proba is None else p.proba for p in several]
        )
    return Prediction(
        codes=np.concatenate([p.codes for p in several if p.codes is not None]), proba=proba, classes=classes
    )
