"""Labels that come apart: what is joined follows from rows and log, not from when and in what pieces they came."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.core.records import Joined, WaitingRow
from perennial.core.state import State
from perennial.replay.run import _revisions
from perennial.stream import Stream
from perennial.stream.book import Book
from perennial.stream.feed import Position, Run
from perennial.stream.intake import Intake
from perennial.stream.sources import open_source

MINUTE = 60_000_000
END = 2**62


@dataclass
class Told:
    """A source of which the first ``upto`` rows are there, read so many at a time."""

    table: pa.Table
    chunk: int
    upto: int = 0

    def open(self) -> Any:
        return open_source(self.table)

    def is_new(self, seen: dict[str, Any]) -> bool:
        before, seen["upto"] = seen.get("upto"), self.upto
        return before != self.upto

    def read(self, position: Position, types: Mapping[str, Any], *, grows: bool = True) -> Iterator[Run]:
        for start in range(position.rows, self.upto, self.chunk):
            some = self.table.slice(start, min(self.chunk, self.upto - start))
            for block in open_source(some).blocks(dict(types)):
                yield Run(rows=block.rows, file="told", start=start)


@dataclass
class Case:
    """Rows, a log, the settings, and in how many pieces they come."""

    rows: pa.Table
    log: pa.Table
    settings: dict[str, Any]
    pieces: int
    seed: int

    @property
    def stream(self) -> Stream:
        return Stream(
            self.rows, time="at", target="y", known_at="known_at", id="id", labels=self.log, time_zone="UTC",
            **self.settings,
        )  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Rows some minutes apart with ties and late ones; labels about them and about nobody, many of them at once."""
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    at = np.cumsum(rng.choice([0, 1, 5, 20], size=n)) - np.where(rng.random(n) < 0.1, rng.integers(0, 9, n), 0)
    own = rng.random(n) < draw(st.sampled_from([0.0, 0.0, 0.5]))
    known = at + rng.choice([0, 10, 30, 45], size=n)
    m = int(rng.integers(0, 3 * n))
    about = rng.integers(0, n + 3, m)
    said_at = np.append(at, rng.integers(0, 100, 3))[about] + rng.choice([0, 1, 29, 30, 31, 60, 90, 91], size=m)
    order = rng.permutation(m) if draw(st.booleans()) else np.argsort(said_at, kind="stable")
    stamp = pa.timestamp("us", "UTC")
    word = np.array(["no", "yes", "maybe"])
    brought = [str(w) if o else None for o, w in zip(own, word[rng.integers(0, 3, n)], strict=True)]
    rows = pa.table({
        "at": pa.array(at * MINUTE).cast(stamp), "x": rng.normal(size=n), "id": rng.permutation(n + 3)[:n],
        "y": pa.array(brought, pa.string()), "known_at": pa.array(known * MINUTE).cast(stamp),
    })  # fmt: skip
    ids = np.append(rows["id"].to_numpy(), [900, 901, 902])
    log = pa.table({
        "id": ids[about][order], "y": pa.array(word[rng.integers(0, 3, m)][order].tolist(), pa.string()),
        "known_at": pa.array(said_at[order] * MINUTE).cast(stamp),
    })  # fmt: skip
    given: dict[str, Any] = {"lateness": "10min", "label_wait": draw(st.sampled_from(["90min", "2h", "30min"]))}
    given["batch"] = draw(st.sampled_from([1, 7, "1h", "30min"]))
    if draw(st.booleans()):
        given |= {"within": "30min", "absent": "no", "positives_wait": draw(st.booleans())}
    return Case(rows, log, given, draw(st.integers(1, 6)), seed)


def told(joined: Joined, book: Book) -> list[tuple[Any, ...]]:
    """What was joined, in order."""
    assert joined.codes is not None
    labels = [book.classes[code] for code in joined.codes]
    return list(zip(joined.position.tolist(), joined.known_at.tolist(), labels, joined.revised.tolist(), strict=True))


def replayed(case: Case) -> list[list[tuple[Any, ...]]]:
    """What each batch of a backtest joins, and the end."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = case.stream.prepare(Path(folder))
        book = Book(prepared.schema, "classification")
        out = []
        for batch in prepared.batches("classification"):
            if batch.revisions is not None:
                book.revise(batch.revisions, batch.label_values)
            out.append(told(book.due(batch.start), book))
            book.arrive(batch)
        if tail := prepared.tail():
            book.revise(*_revisions(tail, batch.label_values, "classification"))
        return [*out, told(book.due(END), book)]


class Table:
    """The rows that wait, as a ledger keeps them."""

    def __init__(self) -> None:
        self.rows: list[WaitingRow] = []

    def find(self, ids: Any) -> dict[bytes, list[WaitingRow]]:
        out: dict[bytes, list[WaitingRow]] = {}
        for row in self.rows:
            if row.id in set(ids):
                out.setdefault(row.id, []).append(row)
        return out

    def commit(self, intake: Intake, now: int) -> None:
        changes = intake.waiting(now)
        assert changes is not None
        named = set(changes.named)
        kept = [row for row in self.rows if row.time > changes.until]
        self.rows = [replace(row, named=row.named or (row.id, row.position) in named) for row in kept]
        self.rows += changes.added


def arriving(case: Case) -> list[list[tuple[Any, ...]]]:
    """What each batch joins as rows and log come in pieces, every batch by an intake made anew; and the end."""
    rng = np.random.default_rng(case.seed)
    rows, log = Told(case.rows, int(rng.integers(1, 9))), Told(case.log, int(rng.integers(1, 9)))
    known = case.log["known_at"].cast(pa.int64()).to_numpy()
    ordered = bool((np.diff(known) >= 0).all())
    table, out = Table(), []
    state: State | None = None
    book: Book | None = None
    cuts = np.sort(rng.integers(1, case.rows.num_rows + 1, case.pieces)).tolist()
    for cut in [*cuts, case.rows.num_rows, None]:
        if cut is not None:
            rows.upto = max(rows.upto, cut)
            newest = int(case.rows["at"].cast(pa.int64()).to_numpy()[: rows.upto].max())
            need = int(np.searchsorted(known, newest, side="right")) if ordered else len(known)
            log.upto = max(log.upto, min(need + int(rng.integers(0, 9)), len(known)))
        while True:
            intake = Intake(case.stream, "classification", rows, log, find=table.find)
            if state is not None:
                intake.restore(state)
            intake.refresh()
            bounds = intake.look(to_the_end=cut is None)
            if bounds is None:
                break
            arrived = intake.take(bounds, intake.look_at_log(bounds.start))
            batch = arrived.batch
            book = book or Book(batch.features.schema, "classification")
            if batch.revisions is not None:
                book.revise(batch.revisions, intake.labels)
            out.append(told(book.due(batch.start), book))
            book.arrive(batch)
            table.commit(intake, batch.start)
            state = State.from_bytes(intake.state().to_bytes(), {})
    assert book is not None
    log.upto = len(known)
    if (tail := intake.tail(intake.look_at_log(2**63 - 1))) is not None:
        book.revise(tail, intake.labels)
    return [*out, told(book.due(END), book)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_what_is_joined_does_not_depend_on_how_it_came(case: Case) -> None:
    """Every batch joins the same labels in the same order, with the same instants, as in a backtest of the whole."""
    assert arriving(case) == replayed(case)
