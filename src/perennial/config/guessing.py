"""A first look at a file: which column is what, and how much of it makes a batch, an initial period and a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, nearest
from perennial.core.records import TaskKind
from perennial.core.times import NEVER, duration, micros, spell

_SAMPLE = 200_000  # rows that distinct values, lengths and suspected leaks are judged by
_MOST_CLASSES = 50  # whole numbers with more distinct values than this are quantities
_MANY = 1_000  # values of a column by which a label could still be looked up
_SURE, _LIKELY = 0.999, 0.97  # a column that tells the label this well is the label; or may be
_TIMES = ("timestamp", "event_time", "datetime", "time", "date", "created_at", "occurred_at", "ts", "at")
_TARGETS = ("target", "label", "y", "class", "outcome", "is_fraud", "fraud", "churn", "churned", "clicked", "converted")
_BATCHES = ("1min", "5min", "15min", "1h", "6h", "1d", "1w", "1mo")
_UPDATE_ROWS = 300  # trees grown from fewer rows hardly split
_INTERVALS = ("1min", "5min", "15min", "30min", "1h", "3h", "6h", "12h", "1d", "2d", "7d", "14d", "30d", "60d", "90d")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How a stream's length is divided; durations as text, or numbers of rows where there is no time to speak of."""

    batch: str | int
    initial: str | int
    every: str | int
    update: str | int
    window: str | int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a file seems to be.

    Parameters
    ----------
    source : str
        What was looked at.
    rows : int
        Its rows.
    time, target, id, key : str or None
        Columns by role.
    naive : bool
        Whether times state no offset.
    task : str
        ``"classification"`` or ``"regression"``.
    classes : int
        Distinct labels of a classification.
    drop : mapping of str to str
        Columns better left out, and why.
    text : tuple of str
        Columns of prose.
    schedule : Schedule
        How its length is divided.
    reasons : mapping of str to str
        Why, for each setting that was guessed.
    warnings : tuple of str
        What a person should look at.
    unsure : mapping of str to sequence of str
        Roles that could as well be another column's, and the candidates.
    """

    source: str
    rows: int
    time: str
    target: str
    id: str | None
    key: str | None
    naive: bool
    task: TaskKind
    classes: int
    drop: Mapping[str, str]
    text: tuple[str, ...]
    schedule: Schedule
    reasons: Mapping[str, str]
    warnings: tuple[str, ...]
    unsure: Mapping[str, Sequence[str]]


@dataclass(slots=True)
class _Look:
    """What was found so far."""

    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    unsure: dict[str, list[str]] = field(default_factory=dict)


def guess(source: str, *, time: str | None = None, target: str | None = None) -> Guess:
    """Roles and settings for a file, a folder or a glob, from one pass over it.

    Parameters
    ----------
    source : str
        Parquet or CSV.
    time, target : str, optional
        Columns that are known and need no guess.

    Raises
    ------
    ConfigError
        If there is no such file, or no column of that name.
    DataError
        If it cannot be read, has no row, or no column holds times.
    """
    sample = _sample(source)
    for role, name in (("time", time), ("target", target)):
        if name is not None and name not in sample.column_names:
            raise ConfigError(role, name, nearest(name, sample.column_names))
    look = _Look()
    when = time if time is not None else _time(sample, look)
    what = target if target is not None else _target(sample, when, look)
    others = [name for name in sample.column_names if name not in (when, what)]
    still = [name for name in others if _distinct(sample.column(name)) < 2]
    instants, labels, constant, naive = _pass(source, when, what, still)
    if len(instants) and (np.diff(instants) < 0).any():
        look.warnings.append(f"`{when}` is not in order: sort the rows by it, or set `lateness`")
    task, classes = _task(labels, look)
    identity, key = _names(sample, others, look)
    rest = [name for name in others if name not in (identity, key)]
    drop = {name: "the same value in every row" for name in rest if name in constant}
    text = [name for name in rest if name not in drop and _is_prose(sample.column(name))]
    if len(drop) + len(text) < len(rest):
        drop |= dict.fromkeys(text, "free text: a model needs a vectoriser for it")
    elif text:
        look.warnings.append(
            "only free text is left: give `model` a pipeline with a vectoriser, package.module:factory"
        )
    _leaks(sample, [name for name in rest if name not in drop and name not in text], what, task, drop, look)
    return Guess(
        source=source,
        rows=len(instants),
        time=when,
        target=what,
        id=identity,
        key=key,
        naive=naive,
        task=task,
        classes=classes,
        drop=drop,
        text=tuple(name for name in text if name not in drop),
        schedule=_schedule(instants, labels if task == "classification" else None, look),
        reasons=look.reasons,
        warnings=tuple(look.warnings),
        unsure=look.unsure,
    )


def _blocks(source: str, only: Sequence[str] | None = None) -> Iterator[Any]:
    from perennial.stream.sources import Widened, open_source

    opened = open_source(source)
    given = 0
    while True:
        types = opened.types((), ())
        chosen = types if only is None else {name: types[name] for name in dict.fromkeys(only)}
        try:
            # after a column was widened the file is read anew, and what was already given is skipped
            for block in islice(opened.blocks(chosen), given, None):
                given += 1
                yield block.rows
            return
        except Widened:
            continue


def _sample(source: str) -> Any:
    import pyarrow as pa

    blocks, rows = [], 0
    for block in _blocks(source):
        blocks.append(block)
        rows += block.num_rows
        if rows >= _SAMPLE:
            break
    if not rows:
        raise DataError(f"{source} has no row: give a file that holds some of your history")
    tables = [pa.Table.from_batches([block]) for block in blocks]
    return pa.concat_tables(tables, promote_options="permissive")


def _time(sample: Any, look: _Look) -> str:
    found = [name for name in sample.column_names if _instants(sample.column(name), name) is not None]
    if not found:
        raise DataError(
            f"no column holds times ({', '.join(sample.column_names)}): Perennial needs to know when each row "
            "happened, as timestamps, dates or ISO 8601 text"
        )
    ordered = [name for name in found if _ordered(sample.column(name), name)]
    candidates = ordered or found
    named = [name for hint in _TIMES for name in candidates if name.lower() == hint]
    best = str((named or candidates)[0])
    look.reasons["time"] = "its rows are in order of it" if best in ordered else "it holds times"
    if len(candidates) > 1 and not named:
        look.unsure["time"] = candidates
    return best


def _instants(column: Any, name: str) -> NDArray[np.int64] | None:
    """Instants of a column's first rows; None if it holds no times."""
    import pyarrow as pa

    from perennial.stream.instants import Instants

    head = column.slice(0, _MANY).combine_chunks()
    if head.null_count == len(head) or not _may_be_time(head.type):
        return None
    try:
        return Instants(name, head.type, None).convert(head, 0, ())
    except (DataError, pa.ArrowException):
        return None


def _may_be_time(dtype: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(dtype) or pa.types.is_date(dtype) or pa.types.is_string(dtype))


def _ordered(column: Any, name: str) -> bool:
    instants = _instants(column, name)
    return instants is not None and not (np.diff(instants) < 0).any() and bool((instants != NEVER).all())


def _target(sample: Any, time: str, look: _Look) -> str:
    names = [name for name in sample.column_names if name != time]
    if not names:
        raise DataError("there is no column beside the times: nothing to predict")
    for hint in _TARGETS:
        for name in names:
            if name.lower() == hint:
                look.reasons["label"] = "its name says so"
                return str(name)
    look.reasons["label"] = "it is the last column"
    look.unsure["target"] = names[::-1]
    return str(names[-1])


def _pass(source: str, time: str, target: str, still: Sequence[str]) -> tuple[NDArray[np.int64], Any, set[str], bool]:
    """All instants and labels, which of the columns that seemed constant are, and whether times state no offset."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from perennial.stream.instants import Instants
    from perennial.stream.sources import Part

    instants, labels, reader = [], [], None
    values: dict[str, set[Any]] = {name: set() for name in still}
    first = 0
    for block in _blocks(source, [time, target, *still]):
        column = block.column(block.schema.get_field_index(time))
        reader = reader if reader is not None else Instants(time, column.type, None)
        instants.append(reader.convert(column, first, (Part(0, 0, source),)))
        labels.append(block.column(block.schema.get_field_index(target)))
        first += block.num_rows
        for name, seen in values.items():
            if len(seen) < 2:
                seen.update(pc.unique(block.column(block.schema.get_field_index(name))).slice(0, 2).to_pylist())
    assert reader is not None
    constant = {name for name, seen in values.items() if len(seen - {None}) < 2}
    whole = np.concatenate(instants)
    return (
        whole[whole != NEVER],
        pa.chunked_array([part.cast(labels[-1].type) for part in labels]),
        constant,
        reader.naive,
    )


def _distinct(column: Any) -> int:
    import pyarrow.compute as pc

    return int(pc.count_distinct(column, mode="only_valid").as_py())


def _task(labels: Any, look: _Look) -> tuple[TaskKind, int]:
    import pyarrow as pa

    classes = _distinct(labels)
    if classes < 2:
        look.warnings.append("the label has fewer than two different values: there is nothing to learn from it")
    words = pa.types.is_string(labels.type) or pa.types.is_boolean(labels.type)
    if words or (pa.types.is_integer(labels.type) and classes <= _MOST_CLASSES) or classes <= 2:
        look.reasons["model"] = f"the label has {classes} different values, so this is classification"
        return "classification", classes
    look.reasons["model"] = "the label is a quantity, so this is regression"
    return "regression", 0


def _names(sample: Any, others: Sequence[str], look: _Look) -> tuple[str | None, str | None]:
    """The column that names each row, and the one that says whom it is about."""
    identity = key = None
    for name in others:
        word, column = name.lower(), sample.column(name)
        if word != "id" and not word.endswith("_id"):
            continue
        distinct = _distinct(column)
        if identity is None and distinct == len(column):
            identity = name
            look.reasons["id"] = "it is different in every row"
        elif key is None and distinct < len(column):
            key = name
            look.reasons["key"] = f"it names {distinct:,} things that come again"
    return identity, key


def _is_prose(column: Any) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type):
        return False
    length = pc.mean(pc.utf8_length(column)).as_py() or 0
    return bool(length > 25 and _distinct(column) > 0.5 * len(column))


def _leaks(sample: Any, names: Sequence[str], target: str, task: TaskKind, drop: dict[str, str], look: _Look) -> None:
    """Put columns that tell the label by themselves into ``drop``, and warn of those that nearly do."""
    labels = sample.column(target)
    left = len(names)
    for name in names:
        strength = _tells(sample.column(name), labels, task)
        if strength >= _SURE and left > 1:
            left -= 1
            drop[name] = "it tells the label by itself: known only afterwards?"
            look.warnings.append(
                f"`{name}` tells the label by itself and is dropped: keep it only if it is known before"
            )
        elif strength >= _LIKELY:
            look.warnings.append(
                f"`{name}` nearly tells the label ({strength:.3f}): if it is known only afterwards, put it in `drop`"
            )


def _tells(column: Any, labels: Any, task: TaskKind) -> float:
    """How well one column tells the label: AUC, share of right look-ups or absolute correlation, each up to 1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.and_(pc.is_valid(column), pc.is_valid(labels))
    column, labels = column.filter(known), labels.filter(known)
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if len(column) < 50 or _distinct(labels) < 2:
        return 0.0
    if task == "regression":
        if not numeric:
            return 0.0
        x, y = _floats(column), _floats(labels)
        return abs(float(np.corrcoef(x, y)[0, 1])) if x.std() and y.std() else 0.0
    codes = labels.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    if numeric and codes.max() == 1:
        return _auc(_floats(column), codes == 1)
    if _distinct(column) > min(_MANY, len(column) / 20):
        return 0.0
    values = column.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    table = np.zeros((values.max() + 1, codes.max() + 1))
    np.add.at(table, (values, codes), 1)
    right, majority = table.max(axis=1).sum() / len(codes), table.sum(axis=0).max() / len(codes)
    return float(right) if right > majority + 0.5 * (1 - majority) else 0.0


def _floats(column: Any) -> Floats:
    values = column.to_numpy().astype(np.float64)
    return np.asarray(np.nan_to_num(values, posinf=0.0, neginf=0.0))


def _auc(x: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of a column by itself, whichever way round; ties count half."""
    _, place = np.unique(x, return_inverse=True)
    yes, no = np.bincount(place, positive), np.bincount(place, ~positive)
    below = np.cumsum(no) - no
    area = float((yes * (below + no / 2)).sum() / max(yes.sum() * no.sum(), 1))
    return max(area, 1 - area)


def _schedule(instants: NDArray[np.int64], labels: Any | None, look: _Look) -> Schedule:
    rows = len(instants)
    span = int(instants.max() - instants.min()) if rows else 0
    start = max(_first_usable(labels), min(200, rows // 3))  # rows that the first training cannot do without
    if span < 1_000_000:
        look.reasons["batch"] = "times hardly differ, so batches are numbers of rows"
        size, first = max(1, rows // 300), max(start, round(0.175 * rows), 1)
        every = max(size, rows // 25)
        update = min(max(size, _UPDATE_ROWS), every)
        return Schedule(batch=size, initial=first, every=every, update=update, window=2 * first, rows=first)
    batch = min(_BATCHES, key=lambda b: _distance(b, span, rows))
    look.reasons["batch"] = (
        f"about {max(1, round(span / _length(batch))):,} batches of {_per(batch, span, rows):,} rows"
    )
    needed = int(instants[min(start, rows - 1)] - instants.min())
    initial = _rounded(max(0.175 * span, 1.1 * needed))
    first = int((instants < instants.min() + micros(duration(initial, "initial"))).sum())
    look.reasons["initial"] = f"{micros(duration(initial, 'initial')) / span:.0%} of the time, {first:,} rows"
    least = max(span / 25, _length(batch))
    interval = next((i for i in reversed(_INTERVALS) if _length(i) <= least), _INTERVALS[0])
    enough = max(_length(batch), span * _UPDATE_ROWS / max(rows, 1))
    update = next((_length(i) for i in _INTERVALS if _length(i) >= enough), _length(interval))
    return Schedule(
        batch=batch,
        initial=initial,
        every=interval,
        update=spell(timedelta(microseconds=max(min(update, _length(interval)), _length(batch)))),
        window=_rounded(2 * micros(duration(initial, "initial"))),
        rows=_two_digits(first),
    )


def _first_usable(labels: Any | None) -> int:
    """How many rows it takes until two classes were seen."""
    import pyarrow.compute as pc

    if labels is None:
        return 0
    differs = pc.index(pc.fill_null(pc.not_equal(labels, labels[0]), False), True).as_py()
    return int(differs) + 1


def _length(batch: str) -> int:
    months = 30 if batch == "1mo" else 0
    return micros(timedelta(days=months)) if months else micros(duration(batch, "batch"))


def _per(batch: str, span: int, rows: int) -> int:
    return max(1, round(rows * _length(batch) / span))


def _distance(batch: str, span: int, rows: int) -> float:
    """How far a batch is from making some 300 of at least 20 rows."""
    few = 0 if _per(batch, span, rows) >= 20 else 10
    return few + abs(float(np.log(span / _length(batch) / 300)))


def _rounded(length: float) -> str:
    """A duration with two digits, in the largest unit of which there are at least ten."""
    for unit in ("d", "h", "min", "s"):
        count = length / micros(duration(f"1{unit}", "unit"))
        if count >= 10:
            return f"{_two_digits(round(count))}{unit}"
    return "1s"


def _two_digits(number: int) -> int:
    step = 10 ** max(0, len(str(number)) - 2)
    return max(1, int(round(number / step) * step))


def as_facts(found: Guess) -> dict[str, Any]:
    """The guess as plain data, for ``--json``."""
    return {
        "source": found.source,
        "rows": found.rows,
        "roles": {"time": found.time, "label": found.target, "id": found.id, "key": found.key},
        "task": found.task,
        "drop": dict(found.drop),
        "text": list(found.text),
        "schedule": asdict(found.schedule),
        "reasons": dict(found.reasons),
        "warnings": list(found.warnings),
    }
