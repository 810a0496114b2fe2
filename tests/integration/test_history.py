"""Features that look back, served by several workers: what each request was answered from is what training sees."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from perennial.server.answering import failed
from perennial.server.failures import FeaturesFailed
from perennial.server.history import History
from perennial.server.rows import Rows
from perennial.stream import Stream
from perennial.stream.ingest import IngestLog
from perennial.stream.intake import Intake

MINUTE = 60_000_000
INSTANT = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False), pa.field("at", INSTANT, nullable=False),
        pa.field("who", pa.string()), pa.field("x", pa.float64()), pa.field("half", pa.float32()),
        pa.field("n", pa.int64()), pa.field("flag", pa.bool_()), pa.field("word", pa.string()),
    ]
)  # fmt: skip
LABELS = pa.schema([pa.field("id", pa.string()), pa.field("y", pa.string()), pa.field("known_at", INSTANT)])
NAMES = ("x", "half", "n", "flag", "word")


def build(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Some of the row, and of the past of its key: how many rows, their sum in order, and the last word."""
    grouped = dict(iter(past.groupby("who")))
    seen = [grouped.get(who) for who in now["who"]]
    return pd.DataFrame({
        "x": now["x"], "half": now["half"], "flag": now["flag"],
        "rows": [0 if rows is None else len(rows) for rows in seen],
        "sum": [np.nan if rows is None else float(np.add.reduce(rows["x"].fillna(0.25).to_numpy())) for rows in seen],
        "word": [None if rows is None else rows["word"].iloc[-1] for rows in seen],
    })  # fmt: skip


class Request:
    """Rows of one request: a minute, ids, keys and values."""

    def __init__(self, minute: int, size: int, draw: np.random.Generator) -> None:
        self.at = 1_767_225_600_000_000 + minute * MINUTE
        self.ids = [f"{minute}/{i}" for i in range(size)]
        numbers = np.full((size, len(NAMES)), np.nan)
        numbers[:, 0] = np.where(draw.random(size) < 0.2, np.nan, draw.normal(size=size))
        numbers[:, 1] = draw.normal(size=size).astype(np.float32)
        numbers[:, 2] = draw.integers(-5, 5, size)
        numbers[:, 3] = draw.integers(0, 2, size)
        words: list[Any] = [None if draw.random() < 0.2 else f"w{draw.integers(3)}" for _ in range(size)]
        keys: list[Any] = [None if draw.random() < 0.1 else f"k{draw.integers(3)}" for _ in range(size)]
        self.rows = Rows(n=size, numbers=numbers, others={"word": words}, ids=self.ids, keys=keys)

    def table(self) -> Any:
        """As the log has them."""
        numbers, n = self.rows.numbers, self.rows.n
        return pa.table(
            {
                "id": self.ids, "at": pa.array([self.at] * n).cast(INSTANT),
                "who": pa.array(self.rows.keys, pa.string()),
                "x": pa.array(numbers[:, 0], mask=np.isnan(numbers[:, 0])), "half": numbers[:, 1].astype(np.float32),
                "n": numbers[:, 2].astype(np.int64), "flag": numbers[:, 3] > 0,
                "word": pa.array(self.rows.others["word"], pa.string()),
            }
        ).cast(SCHEMA)  # fmt: skip


@pytest.fixture
def requests() -> list[Request]:
    """Three hours of them, a minute or more apart."""
    draw = np.random.default_rng(4)
    minutes = np.cumsum(draw.integers(1, 12, 30))
    return [Request(int(minute), int(draw.integers(1, 4)), draw) for minute in minutes]


@pytest.fixture
def log(tmp_path) -> IngestLog:
    """The log that all workers write to, and the run reads."""
    IngestLog.open(f"sqlite:///{tmp_path}/inbox.db?log=labels", LABELS).close()
    return IngestLog.open(f"sqlite:///{tmp_path}/inbox.db?log=rows", SCHEMA)


@pytest.fixture
def stream(tmp_path, log) -> Stream:
    """A stream of that log, which looks back three quarters of an hour."""
    return Stream(
        f"sqlite:///{tmp_path}/inbox.db?log=rows", time="at", target="y", id="id", key="who", batch="1h",
        labels=f"sqlite:///{tmp_path}/inbox.db?log=labels", features=build, lookback="45min", lateness="1min",
    )  # fmt: skip


def trained(stream: Stream) -> Any:
    """The features of the whole log, as a run would have them."""
    intake = Intake(stream, "classification")
    intake.ends()
    parts = []
    while (bounds := intake.look(to_the_end=True)) is not None:
        parts.append(intake.take(bounds, intake.look_at_log(bounds.start)).batch.features.arrow())
    return pa.concat_tables(parts)


def served(told: list[Rows], names: list[str]) -> Any:
    """What requests were answered from, as one table."""
    columns: dict[str, Any] = {}
    for j, name in enumerate(names):
        if name in told[0].others:
            columns[name] = pa.array([value for rows in told for value in rows.others[name]], pa.string())
        else:
            numbers = np.concatenate([rows.numbers[:, j] for rows in told])
            columns[name] = pa.array(numbers, mask=np.isnan(numbers))
    return pa.table(columns)


def checkpoint(stream: Stream, batches: int) -> tuple[Intake, int]:
    """A run that took so many batches of what is there, restored from its state; and the rows that it took."""
    intake: Intake = Intake(stream, "classification")
    intake.refresh()
    for _ in range(batches):
        bounds = intake.look()
        assert bounds is not None
        intake.take(bounds, intake.look_at_log(bounds.start))
    again = Intake(stream, "classification")
    again.restore(intake.state())
    return again, again.rows


@pytest.mark.parametrize("batches", [1, 2])
def test_two_workers_serve_what_a_run_trains_on(stream, log, requests, batches) -> None:
    """Bit for bit, each going on from a checkpoint: own rows at once, those of the other as they come along the log."""
    cut = 22
    for request in requests[:cut]:
        log.append(request.table())
    workers = [History(stream, lambda: 0), History(stream, lambda: 0)]
    intake, _ = checkpoint(stream, batches)
    for worker in workers:
        assert worker.lost
        worker.begin(intake.standing())
        worker.follow()
        assert not worker.lost
    told = []
    for request, worker in zip(requests[cut:], cycle(workers), strict=False):
        worker.follow()
        told.append(worker.features(request.rows, request.at))
        worker.saw(request.ids, request.rows, request.at)
        assert worker.features(request.rows, request.at) is told[-1]
        log.append(request.table())
    whole = trained(stream)
    before = sum(request.rows.n for request in requests[:cut])
    assert served(told, whole.column_names).equals(whole.slice(before).combine_chunks())
    assert whole.slice(before).column("rows").to_numpy().max() > 2


def test_own_rows_are_past_once(stream, log, requests) -> None:
    """A row that this worker answered is known at once, and not a second time when it comes along the log."""
    log.append(requests[0].table())
    worker = History(stream, lambda: 0)
    worker.begin(at_the_start(stream))
    worker.follow()
    one = Request(int(requests[0].at / MINUTE) % 1000 + 3, 1, np.random.default_rng(1))
    one.rows.keys = ["k9"]
    later = one.at + MINUTE
    assert worker.features(one.rows, later).numbers[0, 3] == 0
    worker.saw(one.ids, one.rows, one.at)
    fresh = Rows(n=1, numbers=one.rows.numbers, others=one.rows.others, keys=["k9"])
    assert worker.features(fresh, later).numbers[0, 3] == 1
    log.append(one.table())
    worker.follow()
    again = Rows(n=1, numbers=one.rows.numbers, others=one.rows.others, keys=["k9"])
    assert worker.features(again, later).numbers[0, 3] == 1


def test_a_worker_that_fell_behind_begins_anew(stream, log, requests) -> None:
    """The run went on and let go of rows that this worker had not read: it asks for the checkpoint that has them."""
    for request in requests:
        log.append(request.table())
    worker = History(stream, lambda: 0)
    worker.begin(checkpoint(stream, 1)[0].standing())
    intake, taken = checkpoint(stream, 2)
    intake.trim()
    first = requests[0]
    before = worker.features(first.rows, first.at + MINUTE).numbers.tobytes()
    worker.follow()
    assert worker.lost
    same = Rows(n=first.rows.n, numbers=first.rows.numbers, others=first.rows.others, keys=first.rows.keys)
    assert worker.features(same, first.at + MINUTE).numbers.tobytes() == before  # from what it knows, meanwhile
    worker.follow()
    worker.begin(intake.standing())
    worker.follow()
    assert not worker.lost
    assert taken > 0
    last = requests[-1]
    told = worker.features(last.rows, last.at + 10 * MINUTE)
    other = History(stream, lambda: last.at + 10 * MINUTE)
    other.begin(intake.standing())
    other.follow()
    assert other.features(last.rows, None).numbers.tobytes() == told.numbers.tobytes()


def test_what_a_failing_function_says_stays_in_the_log(stream, log, requests) -> None:
    """Whoever asks learns that features could not be built; paths and values in the function's words do not go out."""

    def fails(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
        raise OSError("/srv/secret/rates.csv is missing")

    log.append(requests[0].table())
    worker = History(replace(stream, features=fails), lambda: 0)
    worker.begin(at_the_start(replace(stream, features=fails)))
    told: list[Any] = []
    with pytest.raises(FeaturesFailed, match=r"rates\.csv is missing") as error:
        worker.features(requests[1].rows, requests[1].at)
    status, body, _ = failed(error.value, "r7", lambda *event: told.append(event))
    assert status == 422
    assert b"secret" not in body
    assert b"could not be built" in body
    assert b"'r7'" in body
    (event, facts), *_ = told
    assert event == "failed"
    assert "rates.csv is missing" in facts["error"]


def at_the_start(stream: Stream) -> Any:
    """Where a stream stands of which nothing was read."""
    intake = Intake(stream, "classification")
    intake.refresh()
    return intake.standing()
