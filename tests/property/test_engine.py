"""The engine and its book against slow and plain models, on whatever Hypothesis thinks of."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import SGDClassifier

import perennial as pn
from perennial import learners, strategies, triggers
from perennial.core.errors import DataError
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.protocols import Keep, Trained
from perennial.core.records import Batch, Close, Revisions
from perennial.core.times import NEVER
from perennial.engine import Engine
from perennial.learners import as_learner
from perennial.stream.book import Book

START = np.datetime64("2026-01-01", "us")
LABELS = ["a", "b", "c"]
SCHEMA = Schema([Column("x", Kind.NUMBER, "int64")])


# ---------------------------------------------------------------------- the book


@dataclass
class PlainBook:
    """What a book should say, by looking at every label every time."""

    coming: list = field(default_factory=list)  # (known at, position, order of arrival, label)
    learnable: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)
    classes: list = field(default_factory=list)
    count: int = 0

    def add(self, known, position, label):
        """A label that will be known."""
        self.count += 1
        self.coming.append((known, position, self.count, label))

    def due(self, now):
        """(position, label, whether it had one before) of all that is known by now."""
        out = []
        for _, position, _, label in sorted(event for event in self.coming if event[0] <= now):
            out.append((position, label, position in self.labels))
            self.labels[position] = label
            if label not in self.classes:
                self.classes.append(label)
        self.coming = [event for event in self.coming if event[0] > now]
        return out


rows = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.booleans()), min_size=1, max_size=6)
steps = st.lists(
    st.tuples(
        rows,  # wait, label, whether it has one
        st.booleans(),  # learnable
        st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6), st.integers(0, 2)), max_size=3),  # corrections
        st.integers(0, 5),  # time that passes
        st.integers(0, 8),  # rows of the window
    ),
    min_size=1,
    max_size=12,
)


def as_batch(first, now, told):
    """Rows whose feature is their position."""
    n = len(told)
    position = np.arange(first, first + n)
    known = np.array([now + wait if has else NEVER for wait, _, has in told], np.int64)
    return Batch(
        start=now, first=first, features=Features.of(Chunk(pa.table({"x": position}), SCHEMA)),
        rows=np.zeros((n, 16), np.uint8), time=np.full(n, now), known_at=known,
        label_codes=np.array([code if has else -1 for _, code, has in told], np.int32), label_values=LABELS,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps)
def test_a_book_says_what_a_plain_list_of_labels_says(script):
    """Whatever arrives, waits, is corrected, quarantined or let go: joins, labels, classes and examples agree."""
    book, plain = Book(SCHEMA, "classification"), PlainBook()
    now = first = 0
    own = set()
    for told, learnable, corrections, passes, window in script:
        batch = as_batch(first, now, told)
        book.arrive(batch, learnable=learnable)
        for i, (wait, code, has) in enumerate(told):
            if has:
                plain.add(now + wait, first + i, LABELS[code])
                own.add(first + i)
        first += len(told)
        plain.learnable += [learnable] * len(told)
        fixes = sorted((now + wait, position % first, LABELS[code]) for position, wait, code in corrections)
        if fixes:
            book.revise(
                Revisions(
                    position=np.array([p for _, p, _ in fixes]), known_at=np.array([k for k, _, _ in fixes]),
                    codes=np.array([LABELS.index(label) for _, _, label in fixes], np.int32),
                ),
                LABELS,
            )  # fmt: skip
            for known, position, label in fixes:
                plain.add(known, position, label)
        now += passes
        joined, expected = book.due(now), plain.due(now)
        assert joined.position.tolist() == [position for position, _, _ in expected]
        assert book.classes == plain.classes
        assert [book.classes[code] for code in joined.codes] == [label for _, label, _ in expected]
        held = {i for segment in book._segments() for i in range(segment.base, segment.stop)}
        for position, revised, (_, _, again) in zip(joined.position.tolist(), joined.revised, expected, strict=True):
            assert revised == again or (position not in held and position not in own)
        known = [p for p in sorted(plain.labels) if p in held and plain.learnable[p]]
        cut = book.cut(now, initial=0, label_delay=0, seed=0)
        assert cut.position.tolist() == known
        examples = book.examples(cut.position)
        assert [book.classes[code] for code in examples.codes] == [plain.labels[p] for p in known]
        if known:
            assert examples.features.matrix("int64")[:, 0].tolist() == known
        if first < 2:
            continue  # the initial period is over before anything is let go
        book.give_up(Keep(rows=window, initial=True), initial=2, unlearned=first)
        kept = {i for segment in book._segments() for i in range(segment.base, segment.stop)}
        wanted = [p for p in sorted(plain.labels) if plain.learnable[p] and p in held]
        assert set(wanted[-window:] if window else []) <= kept
        assert {0, 1} <= kept


# ---------------------------------------------------------------------- rows that share a turn


class Plain:
    """A trainer that trains."""

    def cpu_seconds(self):
        return 0.0

    def obtain(self, key, template, make):
        return Trained(model=make(), cpu_seconds=0.0, shared=False)


def stream_of(draw_seed, n, classes, waits, words):
    """A table with numbers, perhaps words, and labels known after random waits."""
    rng = np.random.default_rng(draw_seed)
    x = rng.normal(size=n)
    gaps = np.cumsum(rng.integers(0, 3, n))  # rows may share an instant
    at = START + gaps * np.timedelta64(1, "h")
    late_classes = np.minimum(np.arange(n) * classes // n + 1, classes - 1)  # classes first appear one after the other
    label = np.minimum((np.abs(x) * classes).astype(int), np.maximum(late_classes, 1))
    cols = {"at": at, "x": x, "y": [LABELS[i] for i in label]}
    if waits:
        cols["known"] = at + rng.integers(0, waits, n) * np.timedelta64(1, "h")
    if words:
        cols["word"] = rng.choice(["red", "green", "blue", "grey"], n)
    return pa.table(cols)


def told_by(prepared, strategy, bundle):
    """Every prediction with its version, classes by name."""
    learner = as_learner(strategy.model)
    engine = Engine(strategy, learner, schema=prepared.schema, trainer=Plain(), label_delay=prepared.label_delay)
    out, joined = [], []
    if bundle is None:
        batches = prepared.batches(learner.task)
    else:
        batches = prepared.batches(learner.task, apart=True, bundle=bundle)
    for event in [*batches, Close(now=prepared.last_time)]:
        try:
            turn = engine.advance(event)
        except DataError as error:
            return str(error)
        joined += turn.joined.position.tolist()
        if (said := turn.predicted) is None:
            continue
        for i, minor in enumerate(said.minor.tolist()):
            p = said.prediction
            code = int(p.codes[i])
            row = (said.first + i, p.classes[code] if code >= 0 else code, f"{said.major[i]}.{minor}")
            chances = {} if p.proba is None else dict(zip(p.classes, p.proba[i].tolist(), strict=True))
            out.append((*row, {k: v for k, v in chances.items() if v == v and v != 0}))
    return out, joined, engine.classes


def river_model():
    """A model that learns any number of classes."""
    pytest.importorskip("river")
    from river import linear_model, multiclass, preprocessing

    return preprocessing.StandardScaler() | multiclass.OneVsRestClassifier(linear_model.LogisticRegression())


MODELS = {
    "river": (river_model, False),
    "sgd": (lambda: SGDClassifier(loss="log_loss"), False),
    "plain": (lambda: learners.plain.Logistic(forgetting=0.98), True),
}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(2, 3),
    waits=st.sampled_from([None, 1, 4, 30]),
    delay=st.sampled_from([None, "3h"]),
    initial=st.sampled_from([None, 25, "20h"]),
    bundle=st.sampled_from([1, 2, 7, 64, 4096]),
)
def test_rows_that_share_a_turn_are_tested_and_trained_one_by_one(name, seed, classes, waits, delay, initial, bundle):
    """Results are those of a turn for each row, bit for bit, whatever the delay, the start and the bundle's size."""
    make, words = MODELS[name]
    table = stream_of(seed, 90, classes, waits, words)
    how = {"known_at": "known"} if waits else {"label_delay": delay} if delay else {}
    strategy = strategies.Stateful(make(), initial=initial, trigger=triggers.every(rows=1))
    with tempfile.TemporaryDirectory() as folder:
        prepared = pn.Stream(table, time="at", target="y", time_zone="UTC", batch=1, **how).prepare(Path(folder))
        single = told_by(prepared, strategy, None)
        shared = told_by(prepared, strategy, bundle)
    assert shared == single
    if isinstance(single, str):
        return  # the first window was empty or had one class: both ways say so
    assert len(single[0]) > 30
    assert sorted(single[1]) == sorted(set(single[1]))


# ---------------------------------------------------------------------- place is no content


@settings(max_examples=6, deadline=None)
@given(cuts=st.sets(st.integers(1, 199), max_size=4), kind=st.sampled_from(["parquet", "csv"]))
def test_files_of_any_size_give_the_same_versions(cuts, kind):
    """Data digest, training keys and predictions follow from rows alone, not from the files they came in."""
    from pyarrow import csv, parquet

    table = stream_of(1, 200, 2, 5, False)
    strategy = strategies.Stateless(SGDClassifier(loss="log_loss"), initial="2d", trigger=triggers.every("1d"))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        edges = [0, *sorted(cuts), 200]
        for i, (low, high) in enumerate(pairwise(edges)):
            part = table.slice(low, high - low)
            if kind == "parquet":
                parquet.write_table(part, source / f"{i}.parquet", row_group_size=37)
            else:
                csv.write_csv(part, source / f"{i}.csv")
        for data in (table, source):
            stream = pn.Stream(data, time="at", target="y", time_zone="UTC", known_at="known", batch="6h")
            result = pn.backtest(stream, {"s": strategy}, metrics=["accuracy"], jobs=1)
            keys = [(v.number, v.key, v.data) for v in result["s"].versions]
            found.append((result.to_dict()["data"]["digest"], keys, result["s"].predictions))
    assert found[0][:2] == found[1][:2]
    assert found[0][2].equals(found[1][2])
