"""The ledger of a backtest: predictions and labels go to disk as they come, sums and versions stay in memory.

Memory is bounded by the number of versions, never by the rows of the stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.errors import LedgerError
from perennial.core.records import ABSTAINED, Label, TaskKind, Turn, Version

_FLUSH_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What one strategy did, but for its predictions.

    ``segments`` names the files of predictions in order, each with its number of probability columns (None: the model
    gave none). ``staleness_sum`` and ``staleness_max`` are over predicted rows, in microseconds. ``committee`` is what
    the last model told of its experts. ``promoted`` and ``rejected`` count verdicts.
    """

    task: TaskKind
    classes: tuple[Label, ...]
    versions: tuple[Version, ...]
    first_predicted: int | None
    predicted_rows: int
    abstained: int
    segments: tuple[tuple[str, int | None], ...]
    train_cpu_seconds: float
    predict_cpu_seconds: float
    shared_trainings: int
    kept_bytes: int
    staleness_sum: float
    staleness_max: int
    late: int
    turns: int
    quarantined: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()
    committee: Mapping[str, Any] | None = None
    promoted: int = 0
    rejected: int = 0


@final
@dataclass
class _Buffer:
    """Columns that wait to be written."""

    rows: int = 0
    columns: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def add(self, columns: dict[str, NDArray[Any]]) -> None:
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)
        self.rows += len(next(iter(columns.values())))

    def take(self) -> pa.RecordBatch:
        batch = pa.record_batch({name: np.concatenate(parts) for name, parts in self.columns.items()})
        self.rows, self.columns = 0, {}
        return batch


@final
class Spill:
    """A ledger that writes predictions and joined labels to Arrow files in ``folder``.

    Parameters
    ----------
    folder : Path
        Where to write; made if missing.
    task : {"classification", "regression"}
        Whether predictions are codes or values.
    """

    def __init__(self, folder: Path, task: TaskKind) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._task = folder, task
        self._said, self._labels = _Buffer(), _Buffer()
        self._width: int | None = -1  # probability columns of the open segment; None where the model gives none
        self._segments: list[tuple[str, int | None]] = []
        self._writers: dict[str, Any] = {}
        self._turns = self._rows = self._abstained = self._kept = self._late = self._shared = 0
        self._first: int | None = None
        self._train_cpu = self._predict_cpu = 0.0
        self._stale_sum, self._stale_max = 0.0, 0
        self._versions: list[Version] = []
        self._quarantined: list[tuple[int, str]] = []
        self._notes: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._classes: tuple[Label, ...] = ()

    def commit(self, turn: Turn) -> None:
        """Record a turn.

        Raises
        ------
        LedgerError
            If it does not follow the last one.
        """
        if turn.index != self._turns:
            raise LedgerError(
                f"turn {turn.index} was committed after turn {self._turns - 1}: commit each once, in order"
            )
        self._turns += 1
        self._classes = turn.classes
        self._versions.extend(turn.trained)
        self._train_cpu += turn.train_cpu_seconds
        self._predict_cpu += turn.predict_cpu_seconds
        self._shared += turn.shared_trainings
        self._late += turn.late
        self._notes.update(turn.notes)
        self._verdicts.update(verdict.outcome for verdict in turn.verdicts)
        if turn.quarantined is not None:
            self._quarantined.append((turn.now, turn.quarantined))
        if turn.predicted is not None:
            self._predictions(turn)
        if len(turn.joined.position):
            labels = turn.joined.codes if turn.joined.codes is not None else turn.joined.values
            assert labels is not None
            self._labels.add({"row": turn.joined.position, "label": labels})
            if self._labels.rows >= _FLUSH_ROWS:
                self._flush("labels", self._labels)

    def _predictions(self, turn: Turn) -> None:
        said = turn.predicted
        assert said is not None
        prediction, n = said.prediction, len(said.time)
        width = prediction.proba.shape[1] if prediction.proba is not None else None
        if width != self._width:  # a class was seen for the first time: files have a fixed schema
            self._flush_said()
            self._width = width
            self._segments.append((f"said-{len(self._segments)}", width))
        columns: dict[str, NDArray[Any]] = {
            "row": np.arange(said.first, said.first + n),
            "time": said.time,
            "major": said.major,
            "minor": said.minor,
        }
        if prediction.codes is not None:
            columns["prediction"] = prediction.codes
            self._abstained += int((prediction.codes == ABSTAINED).sum())
        else:
            assert prediction.values is not None
            columns["prediction"] = prediction.values
            self._abstained += int(np.isnan(prediction.values).sum())
        for j in range(width or 0):
            assert prediction.proba is not None
            columns[f"p{j}"] = prediction.proba[:, j]
        self._said.add(columns)
        self._first = said.first if self._first is None else self._first
        self._rows += n
        self._kept = max(self._kept, turn.kept_bytes)
        if turn.staleness is not None:
            self._stale_sum += float(turn.staleness) * n
            self._stale_max = max(self._stale_max, turn.staleness)
        if self._said.rows >= _FLUSH_ROWS:
            self._flush_said()

    def _flush_said(self) -> None:
        if self._said.rows:
            self._flush(self._segments[-1][0], self._said)

    def _flush(self, name: str, buffer: _Buffer) -> None:
        batch = buffer.take()
        if name not in self._writers:
            self._writers[name] = pa.ipc.new_file(str(self._folder / f"{name}.arrow"), batch.schema)
        self._writers[name].write_batch(batch)

    def close(self, committee: Mapping[str, Any] | None = None) -> Summary:
        """Finish the files, and say what was done; ``committee`` is what the last model tells of its experts."""
        self._flush_said()
        if self._labels.rows:
            self._flush("labels", self._labels)
        for writer in self._writers.values():
            writer.close()
        return Summary(
            task=self._task,
            classes=self._classes,
            versions=tuple(self._versions),
            first_predicted=self._first,
            predicted_rows=self._rows,
            abstained=self._abstained,
            segments=tuple(self._segments),
            train_cpu_seconds=self._train_cpu,
            predict_cpu_seconds=self._predict_cpu,
            shared_trainings=self._shared,
            kept_bytes=self._kept,
            staleness_sum=self._stale_sum,
            staleness_max=self._stale_max,
            late=self._late,
            turns=self._turns,
            quarantined=tuple(self._quarantined),
            committee=committee,
            promoted=self._verdicts["promote"],
            rejected=self._verdicts["reject"],
            notes=tuple(note if n == 1 else f"{note} ({n} times)" for note, n in self._notes.items()),
        )


@dataclass(frozen=True, kw_only=True)
class Columns:
    """All predictions of a strategy as arrays, in order of position.

    ``label`` holds class table codes (-1: not known) or values (NaN: not known); ``proba`` is (n, k) or None.
    """

    row: NDArray[np.int64]
    time: NDArray[np.int64]
    label: NDArray[Any]
    prediction: NDArray[Any]
    proba: NDArray[np.float64] | None
    major: NDArray[np.int32]
    minor: NDArray[np.int32]


def read(folder: Path, summary: Summary) -> Columns:
    """What a :class:`Spill` wrote, with each row's latest label."""
    n, k = summary.predicted_rows, len(summary.classes)
    by_code = summary.task == "classification"
    row, when = np.empty(n, np.int64), np.empty(n, np.int64)
    said = np.empty(n, np.int32 if by_code else np.float64)
    major, minor = np.empty(n, np.int32), np.empty(n, np.int32)
    has_proba = any(width is not None for _, width in summary.segments)
    proba = np.zeros((n, k)) if has_proba else None
    at = 0
    for name, width in summary.segments:
        for batch in _batches(folder / f"{name}.arrow"):
            part = slice(at, at + batch.num_rows)
            row[part], when[part] = batch["row"].to_numpy(), batch["time"].to_numpy()
            said[part] = batch["prediction"].to_numpy()
            major[part], minor[part] = batch["major"].to_numpy(), batch["minor"].to_numpy()
            for j in range(width or 0):
                assert proba is not None
                proba[part, j] = batch[f"p{j}"].to_numpy()
            if proba is not None and width is None:
                proba[part] = np.nan  # this part of the run gave no probabilities
            at += batch.num_rows
    label = np.full(n, -1, np.int32) if by_code else np.full(n, np.nan)
    for batch in _batches(folder / "labels.arrow"):
        position = batch["row"].to_numpy()
        place = np.minimum(np.searchsorted(row, position), n - 1)
        here = row[place] == position if n else np.zeros(len(position), dtype=bool)
        label[place[here]] = batch["label"].to_numpy()[here]
    return Columns(row=row, time=when, label=label, prediction=said, proba=proba, major=major, minor=minor)


def _batches(path: Path) -> Iterator[Any]:
    if not path.exists():
        return
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def as_table(columns: Columns, summary: Summary, path: Path) -> pa.Table:
    """The predictions as users read them, written to ``path`` once and memory-mapped.

    Columns: row, event_time (UTC), label, prediction, proba_<class> for each class, version. ``prediction`` is null
    where the model abstained or named a class that no label has named.
    """
    if not path.exists():
        part = path.with_name(f"{path.name}.{uuid4().hex}.part")  # several may read one cached run
        n = len(columns.row)
        writer = None
        for start in range(0, max(n, 1), _FLUSH_ROWS):
            batch = _readable(columns, summary, slice(start, min(start + _FLUSH_ROWS, n)))
            if writer is None:
                writer = pa.ipc.new_file(str(part), batch.schema)
            writer.write_batch(batch)
        assert writer is not None
        writer.close()
        part.rename(path)
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _readable(columns: Columns, summary: Summary, part: slice) -> pa.RecordBatch:
    out: dict[str, Any] = {
        "row": columns.row[part],
        "event_time": pa.array(columns.time[part]).cast(pa.timestamp("us", "UTC")),
    }
    if summary.task == "classification":
        names = pa.array(list(summary.classes)) if summary.classes else pa.array([], pa.string())
        for name, codes in (("label", columns.label[part]), ("prediction", columns.prediction[part])):
            out[name] = names.take(pa.array(codes, mask=codes < 0, type=pa.int32()))
        if columns.proba is not None:
            for j, label in enumerate(summary.classes):
                out[f"proba_{label}"] = columns.proba[part, j]
    else:
        out["label"] = pa.array(columns.label[part], from_pandas=True)
        out["prediction"] = pa.array(columns.prediction[part], from_pandas=True)
    pairs = columns.major[part].astype(np.int64) << 32 | columns.minor[part]
    distinct, index = np.unique(pairs, return_inverse=True)
    numbers = pa.array([f"{pair >> 32}.{pair & 0xFFFFFFFF}" for pair in distinct.tolist()], pa.string())
    out["version"] = numbers.take(pa.array(index.astype(np.int32)))
    return pa.record_batch(out)
