"""What the engine takes in and gives out. Every record is frozen; nothing here decides or touches the world.

Instants (``start``, ``time``, ``known_at``, ...) are microseconds since 1970-01-01 UTC (see ``core.times``).
Positions count the rows of a stream from 0 in the order they arrived: position, not time, defines batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perennial.core.features import Features
from perennial.core.identity import digest
from perennial.core.times import moment

Label = str | int | float | bool  #: a class as the user writes it
TaskKind = Literal["classification", "regression"]

ABSTAINED = -1  #: code of a prediction that was not made; such rows are not scored
UNSEEN = -2  #: code of a predicted class that no label has named yet; scored as wrong
UNLABELLED = -1  #: code of a label that is not known


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Labelled rows that one training may learn from, in order.

    Parameters
    ----------
    features : Features
        The rows, n of them.
    codes : array of int32, shape (n,), optional
        Classification: index into ``classes``; -1 for a row without a label, which only a learner that
        :class:`~perennial.core.protocols.LearnsUnlabelled` is given.
    classes : tuple
        Classification: the class table, append-only, in order of first known label. It may name classes that
        no row here has.
    values : array of float64, shape (n,), optional
        Regression: the labels; NaN for a row without one.
    weights : array of float64, shape (n,), optional
        None means all ones.
    groups : array, shape (n,), optional
        The stream's ``group`` column, for learners that keep groups together.
    rows : array of uint8, shape (n, 16)
        Digest of each row's features.
    time : array of int64, shape (n,)
        Event times. Not part of the identity: what a learner must not see cannot change what it learns.
    """

    features: Features
    rows: NDArray[np.uint8]
    time: NDArray[np.int64]
    codes: NDArray[np.int32] | None = None
    classes: tuple[Label, ...] = ()
    values: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    groups: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def y(self) -> NDArray[Any]:
        """Labels as the user wrote them, shape (n,): class values, or float64 for regression."""
        if self.values is not None:
            return self.values
        assert self.codes is not None
        labels = class_array(self.classes)
        if (self.codes < 0).any():
            labels = np.concatenate([labels.astype(object), np.array([None], dtype=object)])  # -1 finds the None
        return labels[self.codes]

    @cached_property
    def identity(self) -> str:
        """Digest of what a learner sees: rows in order, labels by value, weights, groups, schema."""
        schema = self.features.schema
        parts: list[str | bytes | memoryview] = [schema.digest(), np.ascontiguousarray(self.rows).data]
        if self.codes is not None:
            names = np.frombuffer(b"".join(bytes.fromhex(digest(repr(c)))[:8] for c in self.classes), dtype="S8")
            parts.append(names[np.maximum(self.codes, 0)][self.codes >= 0].tobytes() if len(names) else b"")
            parts.append((self.codes < 0).tobytes())
        else:
            assert self.values is not None
            parts.append(self.values.tobytes())
        parts.append(b"" if self.weights is None else self.weights.tobytes())
        parts.append("" if self.groups is None else repr(self.groups.tolist()))
        return digest(*parts)

    def slice(self, start: int, stop: int) -> Examples:
        """Rows ``[start, stop)``."""
        return Examples(
            features=self.features.slice(start, stop),
            rows=self.rows[start:stop],
            time=self.time[start:stop],
            codes=None if self.codes is None else self.codes[start:stop],
            classes=self.classes,
            values=None if self.values is None else self.values[start:stop],
            weights=None if self.weights is None else self.weights[start:stop],
            groups=None if self.groups is None else self.groups[start:stop],
        )

    def take(self, indices: NDArray[np.int64]) -> Examples:
        """Rows at ``indices``, in that order."""
        return Examples(
            features=self.features.take(indices),
            rows=self.rows[indices],
            time=self.time[indices],
            codes=None if self.codes is None else self.codes[indices],
            classes=self.classes,
            values=None if self.values is None else self.values[indices],
            weights=None if self.weights is None else self.weights[indices],
            groups=None if self.groups is None else self.groups[indices],
        )


def typed(label: Label) -> tuple[str, Label]:
    """A class that is told from one that Python calls equal: True and 1, 1 and 1.0."""
    return type(label).__name__, label


def class_array(classes: Sequence[Label]) -> NDArray[Any]:
    """Classes as an array whose dtype keeps them as they are: never 1 and "1" made equal."""
    kinds = {type(c) for c in classes}
    if len(kinds) == 1 and kinds <= {str, int, bool, float}:
        return np.array(classes)
    out = np.empty(len(classes), dtype=object)
    out[:] = list(classes)
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says of n rows.

    Parameters
    ----------
    codes : array of int32, shape (n,), optional
        Classification: index into ``classes``, :data:`ABSTAINED` or :data:`UNSEEN`.
    proba : array of float64, shape (n, k), optional
        Classification: a probability per class of ``classes``; None if the model gives none.
    classes : tuple
        The classes that codes and columns mean. A learner names its own; the engine aligns them to the table.
    values : array of float64, shape (n,), optional
        Regression: the predicted values, NaN where the model abstained.
    """

    codes: NDArray[np.int32] | None = None
    proba: NDArray[np.float64] | None = None
    classes: tuple[Label, ...] = ()
    values: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        first = self.codes if self.codes is not None else self.values
        assert first is not None
        return len(first)


def align(prediction: Prediction, classes: tuple[Label, ...]) -> Prediction:
    """A classifier's prediction in terms of the class table; classes that the table lacks become ``UNSEEN``."""
    if prediction.values is not None or prediction.classes == classes:
        return prediction
    assert prediction.codes is not None
    index = {typed(label): code for code, label in enumerate(classes)}
    to = np.array([index.get(typed(label), UNSEEN) for label in prediction.classes] + [ABSTAINED], dtype=np.int32)
    codes = np.where(prediction.codes >= 0, to[np.maximum(prediction.codes, ABSTAINED)], prediction.codes)
    proba = None
    if prediction.proba is not None:
        proba = np.zeros((len(codes), len(classes)))
        has = to[:-1] >= 0
        proba[:, to[:-1][has]] = prediction.proba[:, has]
    return Prediction(codes=codes.astype(np.int32), proba=proba, classes=classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """Labels that arrived apart from their rows: first labels or corrections, in the order they were made.

    ``position`` int64 (r,), ``known_at`` int64 (r,) non-decreasing, and ``codes`` int32 (r,) into the batch's
    ``label_values`` or ``values`` float64 (r,). ``replaces`` bool (r,), where some do: each of these takes the place of
    its row's own label, unless that is known earlier; one per position at most.
    """

    position: NDArray[np.int64]
    known_at: NDArray[np.int64]
    codes: NDArray[np.int32] | None = None
    values: NDArray[np.float64] | None = None
    replaces: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow:
    """A row that may still get a label from a log: its position and event time, by a digest of its id.

    ``named`` says that the log gave it a label before.
    """

    id: bytes
    position: int
    time: int
    named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingChanges:
    """What one turn changes among the rows that wait for labels of a log.

    Rows with an event time up to ``until`` wait no more; then ``added`` ones begin to. ``named`` are (id, position) of
    rows that the log gave their first label, ``gone`` of rows that were erased.
    """

    until: int
    added: Sequence[WaitingRow] = ()
    named: Sequence[tuple[bytes, int]] = ()
    gone: Sequence[tuple[bytes, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was said of n rows when they were asked about, and which version said it.

    ``major`` and ``minor`` int32 (n,) are its number, -1 where nobody said anything. The prediction's codes, and the
    columns of its probabilities, are places in the class table of then, which has only grown since; where nothing was
    said, codes are :data:`ABSTAINED`, and probabilities and values NaN.
    """

    major: NDArray[np.int32]
    minor: NDArray[np.int32]
    prediction: Prediction

    def by(self, version: Version) -> NDArray[np.bool_]:
        """Which rows this very version answered, shape (n,)."""
        return np.asarray((self.major == version.major) & (self.minor == version.minor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What clients were told of the rows of a batch, and what another version said beside it, unseen by them."""

    told: Answers
    shadow: Answers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows that arrive together, with bounds fixed by the data.

    Labels travel with their rows and say when they become known; the engine uses none before that.

    Parameters
    ----------
    start : int
        The instant at which the batch begins: labels known by ``start`` may be learned before it is predicted.
    first : int
        Position of its first row.
    features, rows, time : Features, array of uint8 (n, 16), array of int64 (n,)
        The rows, their digests and their event times.
    known_at : array of int64, shape (n,)
        When each label becomes known; ``NEVER`` if it never does.
    label_codes, label_values : array of int32 (n,), sequence
        Classification: codes into ``label_values``, an append-only list shared by the stream; -1 for none.
    labels : array of float64, shape (n,), optional
        Regression: the labels.
    weights, groups : array, shape (n,), optional
        As in :class:`Examples`.
    ids : array, shape (n,), optional
        The stream's ``id`` column; None means that a row's id is its position.
    late : array of bool, shape (n,), optional
        Rows whose event time lies before an earlier row's; None means none.
    apart : bool
        Each row is a batch of its own, its start its own event time: the rows share one turn and are tested and
        trained one after the other.
    revisions : Revisions, optional
        Labels from a separate log that became known since the batch before.
    said : Said, optional
        What was said of the rows before they came: that is then their prediction.
    """

    start: int
    first: int
    features: Features
    rows: NDArray[np.uint8]
    time: NDArray[np.int64]
    known_at: NDArray[np.int64]
    label_codes: NDArray[np.int32] | None = None
    label_values: Sequence[Label] = ()
    labels: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    groups: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    late: NDArray[np.bool_] | None = None
    apart: bool = False
    revisions: Revisions | None = None
    said: Said | None = None

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed and no row came: labels are joined and triggers asked, so that a schedule fires when idle."""

    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The recording ends at ``now``: what is known by then is joined and scored, and nothing more is trained."""

    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Appoint:
    """An operator makes a version champion, whatever the gate says: a promotion by hand, or a roll back.

    ``model`` is that version's learner. A stateful line goes on from it.
    """

    now: int
    version: Version
    model: Any
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """A model that was trained elsewhere becomes the first champion, before any row: there is no initial period.

    ``model`` is a learner that holds it, ``classes`` are its classes in its own order.
    """

    now: int
    model: Any
    reason: str
    classes: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to act, and why, in words an operator can read at 3 a.m."""

    fire: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate said of one version, and on what evidence.

    ``evidence`` is plain data: numbers, strings and lists.
    """

    outcome: Literal["promote", "reject", "keep"]
    version: str
    reason: str
    champion: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One model: where it came from and what it learned.

    Parameters
    ----------
    major, minor : int
        A stateless retrain raises MAJOR, a stateful update raises MINOR.
    parent : str or None
        The version that this one continued, or, after a stateless retrain, the one it replaces; None for the first.
    kind : {"fit", "update", "start", "adopt"}
        A new model from a window, a continued one, an untrained one that learns from the first row on, or one that was
        trained elsewhere.
    at : int
        The instant of training.
    ready_at : int
        The instant from which it may serve: ``at`` plus the train latency.
    trained_rows, row_trees : int
        Rows this training read; rows times boosting rounds or trees, 0 for models without trees.
    first, last : int
        Lowest and highest position learned from in this training; -1 if none.
    newest : int
        Newest event time that it has learned from, ever.
    data : str
        Identity of the training data (digest).
    key : str or None
        Identity of the training; None if the learner's settings cannot be hashed.
    reason : str
        Why it was trained.
    steps : int
        How many updates this record stands for: rows that shared a turn were learned one after the other, and the
        record carries the number of the last.
    """

    major: int
    minor: int
    parent: str | None
    kind: Literal["fit", "update", "start", "adopt"]
    at: int
    ready_at: int
    trained_rows: int
    row_trees: int
    first: int
    last: int
    newest: int
    data: str
    key: str | None
    reason: str
    steps: int = 1

    @property
    def number(self) -> str:
        """``MAJOR.MINOR``."""
        return f"{self.major}.{self.minor}"

    @property
    def trained_at(self) -> datetime:
        """The instant of training, aware UTC."""
        return moment(self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Losses of examples that were just joined with their labels: how many, their sum, and what loss it is."""

    n: int = 0
    total: float = 0.0
    name: str = ""

    @property
    def mean(self) -> float:
        """Mean loss; NaN for none."""
        return self.total / self.n if self.n else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Labels that became known in a turn, in the order they did.

    ``position`` and ``known_at`` int64 (m,); ``codes`` int32 (m,) into the class table, or ``values`` float64 (m,);
    ``revised`` bool (m,): the row had another label before.
    """

    position: NDArray[np.int64]
    known_at: NDArray[np.int64]
    revised: NDArray[np.bool_]
    codes: NDArray[np.int32] | None = None
    values: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """The predictions of a turn: row ``i`` of the batch has position ``first + i``.

    ``major`` and ``minor`` int32 (n,) say which version predicted each row; they vary when rows share a turn, and where
    rows were answered before they came. -1 where none did.
    """

    first: int
    time: NDArray[np.int64]
    prediction: Prediction
    major: NDArray[np.int32]
    minor: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a training read, so that it can be done again.

    ``position`` int64 (n,) in the order of the examples, ``weights`` float64 (n,) of the window (None: all ones; the
    stream's own come on top), ``classes`` how many classes the table had, and the training's ``seed``.
    """

    version: str
    position: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    classes: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Everything that happened in one turn of the engine. A ledger commits it whole or not at all.

    ``lessons`` says what each training read, but of rows that share a turn. ``serving`` is the version that answers
    after the turn, ``challenger`` the one that is being judged against it, or, where it already serves, against the one
    before. ``classes`` is the class table after the turn. ``kept_bytes`` counts the raw rows that had to be held at its
    end, ``staleness`` is ``now`` minus the newest event time that the serving version learned from (microseconds; None
    without a model). CPU seconds are measured by whoever trains and predicts, and decide nothing.
    """

    index: int
    now: int
    rows: int
    joined: Joined
    loss: Loss
    decisions: tuple[Decision, ...] = ()
    trained: tuple[Version, ...] = ()
    lessons: tuple[Lesson, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    serving: str | None = None
    challenger: str | None = None
    predicted: Predicted | None = None
    quarantined: str | None = None
    late: int = 0
    classes: tuple[Label, ...] = ()
    kept_bytes: int = 0
    staleness: int | None = None
    train_cpu_seconds: float = 0.0
    predict_cpu_seconds: float = 0.0
    shared_trainings: int = 0
    notes: tuple[str, ...] = field(default=())
