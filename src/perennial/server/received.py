"""What comes back about predictions: labels and thumbs as requests hand them over, and what becomes of each.

Requests that came at the same time are written in one transaction, in the order in which they came, an entry for all
of them in each log. What each item becomes is decided there, under the lock of its log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, final

import pyarrow as pa

from perennial.core.errors import DataError
from perennial.core.records import Label
from perennial.core.times import EPOCH, micros
from perennial.stream import inbox_index
from perennial.stream.inbox import FEEDBACK, labels_schema
from perennial.stream.inbox_index import Line
from perennial.stream.ingest import IngestLog, KeyTaken, Together
from perennial.stream.label_log import id_digest
from perennial.stream.settings import Stream

_LATEST = micros(datetime(2201, 1, 1, tzinfo=UTC) - EPOCH)


class LabelItem(NamedTuple):
    """A label of an id; ``observed_at`` is the sender's word, in microseconds."""

    id: str
    label: Label
    observed_at: int | None = None


class Thumb(NamedTuple):
    """Feedback about an id: a thumb, words, a correction, or several of them. A correction is a label too."""

    id: str
    up: bool | None = None
    text: str | None = None
    correction: Label | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Labelled rows: ``rows`` as the log of predictions has them, with ``ids``, instants and labels in their order."""

    ids: Sequence[str]
    time: Sequence[int]
    labels: Sequence[Label]
    rows: Any


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The items of one request: labels, thumbs or examples.

    ``key`` says that it is the same request if it comes again, with ``content``, a digest of what was sent; empty for
    none.
    """

    labels: Sequence[LabelItem] = ()
    thumbs: Sequence[Thumb] = ()
    examples: Examples | None = None
    key: str = ""
    content: str = ""

    @property
    def ids(self) -> list[str]:
        """Whom its items are about, in order."""
        examples = () if self.examples is None else self.examples.ids
        return [*(item.id for item in self.labels), *(thumb.id for thumb in self.thumbs), *examples]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item.

    Parameters
    ----------
    id : str
        Whose it was.
    outcome : {"accepted", "repeated", "revised", "older", "changed"}
        The first of its id; the same as the one that stands, so that nothing was written; another label, or other
        feedback, that stands from now on; a label that was observed before the one that stands, and was kept out.
    label : str
        Of feedback: what became of the label in it; ``"unknown"`` where a thumb would be one and what it is about is
        not known, ``""`` where it holds none.
    """

    id: str
    outcome: Literal["accepted", "repeated", "revised", "older", "changed"]
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """The logs that a transaction needs, and no others. ``confirms``: thumbs are labels of what ``rows`` says."""

    rows: IngestLog | None = None
    labels: IngestLog | None = None
    feedback: IngestLog | None = None
    confirms: bool = False


def first_label(requests: Sequence[Received]) -> Label | None:
    """The first label among what was received."""
    for one in requests:
        examples = () if one.examples is None else one.examples.labels
        for label in (*(item.label for item in one.labels), *(thumb.correction for thumb in one.thumbs), *examples):
            if label is not None:
                return label
    return None


@dataclass(slots=True)
class _Book:
    """The lines of one log within a transaction: what was there, what changed, and the rows to append."""

    log: IngestLog
    there: dict[bytes, Line]
    changed: dict[bytes, Line] = field(default_factory=dict)
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def judge(self, item: str, said: bytes, observed_at: int | None, now: int) -> tuple[inbox_index.Came, Line]:
        key = id_digest(item)
        before = self.there.get(key)
        came, line = inbox_index.judge(before, said, observed_at, now)
        if line is not before:
            self.there[key] = self.changed[key] = line
        return came, line

    def write(self, writing: Together, schema: Any, now: int) -> None:
        inbox_index.keep(writing, self.log, self.changed)
        if self.rows:
            columns = zip(*self.rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writing.append(self.log, pa.record_batch(arrays, schema=schema))
            inbox_index.count(writing, self.log, now, len(self.rows))


def write(
    writing: Together, requests: Sequence[Received], logs: Logs, stream: Stream, clock: Callable[[], int]
) -> list[list[Outcome] | KeyTaken]:
    """Write what requests hand over, within a transaction; gives the outcomes of each, in the order of its items.

    A request whose key was used for another is refused by itself: nothing of it is written, and the others stand.
    """
    now = clock()
    about = [id_digest(one) for request in requests for one in request.ids]
    labels, thumbs = _book(writing, logs.labels, about), _book(writing, logs.feedback, about)
    said: dict[bytes, Line] | None = {} if logs.confirms else None
    if logs.confirms and logs.rows is not None:
        said = inbox_index.lines(writing, logs.rows, about)
    for book in (labels, thumbs):
        if book is not None:
            writing.known(book.log, [one.key for one in requests if one.key])
    out: list[list[Outcome] | KeyTaken] = []
    for one in requests:
        try:
            fresh = _fresh(writing, one, labels, thumbs)
        except KeyTaken as error:
            out.append(error)
            continue
        if not fresh:
            out.append([Outcome(each, "repeated") for each in one.ids])
            continue
        mine = [Outcome(item.id, _label(labels, item, now)) for item in one.labels]
        mine += [_thumb(thumbs, labels, thumb, said, now) for thumb in one.thumbs]
        if one.examples is not None:
            mine += _examples(writing, logs.rows, labels, one.examples, now)
        out.append(mine)
    if labels is not None:
        assert labels.log.schema is not None
        labels.write(writing, labels_schema(stream, labels.log.schema.field(str(stream.target)).type), now)
    if thumbs is not None:
        thumbs.write(writing, FEEDBACK, now)
    return out


def _book(writing: Together, log: IngestLog | None, about: Sequence[bytes]) -> _Book | None:
    return None if log is None else _Book(log, inbox_index.lines(writing, log, about))


def _fresh(writing: Together, one: Received, labels: _Book | None, thumbs: _Book | None) -> bool:
    """Whether a request was not written before; raises ``KeyTaken`` if its key was used for another."""
    if not one.key:
        return True
    book = thumbs if one.thumbs else labels
    assert book is not None
    return writing.remember(book.log, one.key, one.content)


def _label(labels: _Book | None, item: LabelItem, now: int) -> inbox_index.Came:
    assert labels is not None
    dtype = labels.log.schema.field(1).type
    said = inbox_index.digest_of(_json(float(item.label) if pa.types.is_floating(dtype) else item.label))
    came, line = labels.judge(item.id, said, item.observed_at, now)
    if came in ("accepted", "revised"):
        labels.rows.append((item.id, item.label, line.known_at, item.observed_at))
    return came


def _thumb(
    thumbs: _Book | None, labels: _Book | None, thumb: Thumb, said: dict[bytes, Line] | None, now: int
) -> Outcome:
    assert thumbs is not None
    correction = None if thumb.correction is None else json.dumps(thumb.correction)
    content = inbox_index.digest_of(_json([thumb.up, thumb.text, correction]))
    came, line = thumbs.judge(thumb.id, content, None, now)
    if came != "repeated":
        thumbs.rows.append((thumb.id, line.known_at, thumb.up, thumb.text, correction))
    outcome: Any = "changed" if came == "revised" else came
    label = thumb.correction
    if label is None and thumb.up is not None and said is not None:
        if (about := said.get(id_digest(thumb.id))) is None or labels is None:
            return Outcome(thumb.id, outcome, "unknown")
        label = confirmed(about.said, up=thumb.up)
    if label is None:
        return Outcome(thumb.id, outcome)
    return Outcome(thumb.id, outcome, _label(labels, LabelItem(thumb.id, label), now))


def _examples(
    writing: Together, rows: IngestLog | None, labels: _Book | None, examples: Examples, now: int
) -> list[Outcome]:
    """A row and its label of each that is new; of one that is there, another label."""
    assert rows is not None
    out = []
    for row_id, time, label in zip(examples.ids, examples.time, examples.labels, strict=True):
        out.append(Outcome(row_id, _label(labels, LabelItem(row_id, label), max(now, time))))
    new = pa.array([one.outcome == "accepted" for one in out], pa.bool_())
    if n := new.true_count:
        writing.append(rows, examples.rows.filter(new))
        inbox_index.count(writing, rows, now, n)
    return out


def spelled(label: Label, classes: Sequence[Label]) -> bytes:
    """What a thumb about a prediction would confirm: the class that was said, and of two classes the other."""
    others = [one for one in classes if one != label]
    return _json([label, others[0] if len(classes) == 2 and len(others) == 1 else None])


def confirmed(said: bytes, *, up: bool) -> Label | None:
    """The label that a thumb is, from what :func:`spelled` gave; None if down could mean several."""
    label, other = json.loads(said)
    found: Label | None = label if up else other
    return found


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_label(value: Any, dtype: Any, name: str) -> Label:
    """A JSON value as a label of a log's type; raises ``DataError``, which begins with its name."""
    found: Label | None = as_value(value, dtype, name)
    assert found is not None
    return found


def as_value(value: Any, dtype: Any, name: str) -> Any:
    """A JSON value as one of an Arrow type; null is None.

    Raises
    ------
    DataError
        If it is of another kind, or too large: begins with ``name``, and says the rule.

    Examples
    --------
    >>> as_value(3.0, pa.int64(), "n"), as_value(None, pa.string(), "word")
    (3, None)
    """
    types, need = pa.types, ""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if types.is_string(dtype):
        need = "" if isinstance(value, str) else "text"
    elif types.is_boolean(dtype):
        need = "" if isinstance(value, bool) else "true or false"
    elif types.is_integer(dtype):
        if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:  # larger ones are not exact
            value = int(value)
        low, high = (-(2 ** (dtype.bit_width - 1)), 2 ** (dtype.bit_width - 1))
        if types.is_unsigned_integer(dtype):
            low, high = 0, 2**dtype.bit_width
        need = "" if number and isinstance(value, int) and low <= value < high else f"a whole number, {dtype}"
    elif types.is_floating(dtype):
        need = "" if number else "a number"  # JSON has no NaN, and no infinity
        value = float(value) if number else value
    elif types.is_timestamp(dtype):
        when = _moment(value, name)
        try:  # as it is read again: its year is one that Python has, in the zone of the column
            return pa.scalar(when, dtype).as_py()
        except (pa.ArrowException, ValueError, OverflowError):
            need = "a time in the years 1 to 9999"
    else:  # dates and decimals, as text that Arrow reads
        try:
            return pa.scalar(str(value)).cast(dtype).as_py()
        except (pa.ArrowException, ValueError, OverflowError):
            need = str(dtype)
    if need:
        shown = json.dumps(value)
        raise DataError(f"{name}: {shown if len(shown) <= 40 else f'{shown[:40]}...'}; it holds {need}")
    return value


def as_instant(value: Any, name: str) -> int:
    """Microseconds since 1970 from ISO 8601 text with an offset, up to the year 2200.

    Raises
    ------
    DataError
        If it is no such time: begins with the name, and says the rule.
    """
    at = (_moment(value, name) - EPOCH) // timedelta(microseconds=1)
    if not 0 <= at < _LATEST:
        raise DataError(f"{name}: {value}; give a time from 1970 to 2200")
    return at


def _moment(value: Any, name: str) -> datetime:
    need = f"{name}: write a time as 2026-01-31T12:00:00Z, with its offset"
    if not isinstance(value, str) or len(value) > 40:
        raise DataError(need)
    try:
        when = datetime.fromisoformat(value)
    except ValueError as error:
        raise DataError(need) from error
    if when.tzinfo is None:
        raise DataError(need)
    return when


def type_of(value: Any) -> Any:
    """The type of a log whose first label this is."""
    match value:
        case bool():
            return pa.bool_()
        case int():
            return pa.int64()
        case float():
            return pa.float64()
        case _:
            return pa.string()
