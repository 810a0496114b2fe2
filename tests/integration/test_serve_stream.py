"""A stream that is served: what servers write is drained, scored by what was said, and nothing in it stops a run."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import SGDClassifier

import perennial as pn
from perennial import strategies, triggers, windows
from perennial.cli import main
from perennial.config import load
from perennial.core.errors import ConfigError, DataError
from perennial.core.records import Prediction
from perennial.gate import Gate
from perennial.learners.plain import Logistic
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run, tables
from perennial.production.freshness import median_to_live
from perennial.production.service import keep_current, leased
from perennial.stream import inbox as inboxes
from perennial.stream.inbox import INSTANT, Inbox, InboxLogs, pack, push
from perennial.stream.ingest import Append, IngestFeed, KeyTaken, append_together
from tests import postgres
from tests.integration.test_parity import same_as_replayed

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
START = 1_767_225_600 * SECOND  # 2026-01-01
TYPES = {"a": pa.float64(), "b": pa.float64(), "who": pa.string(), "y": pa.string()}
SAID = {"perennial_version": pa.string(), "perennial_said": pa.binary(), "perennial_shadow": pa.string(),
        "perennial_shadow_said": pa.binary()}  # fmt: skip

UPDATED = strategies.Stateful(
    SGDClassifier(loss="log_loss", random_state=0), initial=200, trigger=triggers.every(rows=50)
)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """The URL of a database for an inbox."""
    with postgres.schema() if request.param == "postgres" else nullcontext(f"sqlite:///{tmp_path}/inbox.db") as url:
        yield url


@pytest.fixture
def here(tmp_path):
    """An inbox in a file."""
    return f"sqlite:///{tmp_path}/inbox.db"


def deployment(tmp_path, database, strategy=UPDATED, *, keep=timedelta(days=3650), batch="1h", **about):
    """A deployment that is served."""
    inbox = Inbox(database, "shop", keep)
    settings = {"label_wait": "7d", "lateness": "1min", "key": "who"}
    stream = pn.Stream(
        inbox.url("rows"), labels=inbox.url("labels"), time="time", id="id", target="y", served=True, name="shop",
        batch=batch, **settings,
    )  # fmt: skip
    return Deployment(
        name="shop", stream=stream, strategy=strategy, ledger=f"sqlite:///{tmp_path}/ledger.db", inbox=inbox,
        columns=TYPES, **about,
    )  # fmt: skip


def values(n, seed=0):
    """Features and labels of n rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return x, np.where(x[:, 0] + rng.normal(size=n) / 2 > 0, "up", "down")


def rows(ids, time, x, *, version=None, said=None, shadow=None, shadow_said=None):
    """Rows as a server writes them."""
    n = len(ids)
    told = {"perennial_version": version, "perennial_said": said, "perennial_shadow": shadow,
            "perennial_shadow_said": shadow_said}  # fmt: skip
    columns = {"id": ids, "time": pa.array(time, pa.int64()).cast(INSTANT), "a": x[:, 0], "b": x[:, 1],
               "who": [f"who-{i % 7}" for i in range(n)]}  # fmt: skip
    for name, given in told.items():
        columns[name] = pa.nulls(n, SAID[name]) if given is None else pa.array(given, SAID[name])
    return pa.table(columns)


def labels(ids, known, y):
    """Labels as a server writes them."""
    at = pa.array(known, pa.int64()).cast(INSTANT)
    return pa.table({"id": ids, "y": pa.array(y), "known_at": at, "observed_at": pa.nulls(len(ids), INSTANT)})


def write(made, *parts):
    """Append (log, table) after table, each in a transaction."""
    assert made.begun()
    with InboxLogs.open(made.inbox, made.stream) as logs:
        for which, table in parts:
            append_together([Append(log=getattr(logs, which), rows=table)])


def run(made, mode="until-end", *, clock=None, tell=lambda *_: None, stopped=lambda: False):
    """Run a deployment."""
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs, forgets=made.forgets) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        return keep_current(
            made, ledger, lease, mode=mode, stopped=stopped, wait=lambda _: None,
            clock=clock or (lambda: datetime.now(UTC)), tell=tell,
        )  # fmt: skip


def read(made, what):
    """Something of the ledger."""
    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs, create=False) as ledger:
        return what(ledger)


def predictions(ledger):
    """All that was said, in order, as one table."""
    parts = [tables.from_bytes(ledger.get(entry.predictions)) for entry in ledger.entries() if entry.predictions]
    return pa.concat_tables(parts, promote_options="default")


def traffic(n=1500):
    """Rows a minute apart with labels an hour later, and what clients do: all of it has an outcome."""
    x, y = values(n)
    time = START + np.arange(n) * MINUTE
    ids = [f"call-{i}" for i in range(n)]
    known = time + np.random.default_rng(1).integers(1, 120, n) * MINUTE
    for i in range(300, n, 100):
        ids[i + 40] = ids[i]  # asked about again
        known[i] = time[i] + 20 * MINUTE  # before that: it is of the first
    said = np.ones(n, dtype=bool)
    said[::11] = False  # no label ever comes
    return ids, time, x, y, known, said


@pytest.mark.parametrize("kind", ["stateful", "stateless"])
def test_a_backtest_replays_the_log(tmp_path, database, kind):
    """Ids asked about twice, labels from before their event, of nobody, late rows: versions and losses are the same."""
    strategy = UPDATED
    if kind == "stateless":
        strategy = strategies.Stateless(
            SGDClassifier(random_state=0), initial="4h", trigger=triggers.every("3h"), window=windows.Sliding("6h")
        )
    made = deployment(tmp_path, database, strategy)
    ids, time, x, y, known, said = traffic()
    time, known = time.copy(), known.copy()
    time[700:705] -= 5 * HOUR  # as late as no other stream could have them
    known[905] = time[905] - 30 * SECOND  # by another machine's clock
    known[906] = time[906] - 10 * MINUTE  # of nobody: no clock is that wrong
    order = np.argsort(known[said], kind="stable")
    which = np.flatnonzero(said)[order]
    told = labels([ids[i] for i in which] + ["nobody"], [*known[which].tolist(), int(known[-1])], [*y[which], "up"])
    write(made, ("rows", rows(ids, time, x)), ("labels", told))
    assert run(made) > 20
    assert same_as_replayed(made, tmp_path / "prepared") > 5
    entries = read(made, lambda ledger: list(ledger.entries()))
    assert sum(entry.late for entry in entries) == 5
    assert any("of no row" in note for entry in entries for note in entry.notes)


def test_a_label_is_of_the_newest_row_before_it(tmp_path, here):
    """Two rows have an id; each label joins the one that it can have been about."""
    made = deployment(tmp_path, here)
    x, _ = values(4)
    time = START + np.array([0, 2, 4, 6]) * HOUR
    write(made, ("rows", rows(["one", "two", "one", "end"], time, x)))
    told = [("one", 3 * HOUR, "first"), ("one", 5 * HOUR, "second"), ("two", 2 * HOUR - 30 * SECOND, "soon")]
    write(made, ("labels", labels([t[0] for t in told], [START + t[1] for t in told], [t[2] for t in told])))
    run(made)

    def joined(ledger):
        found = [tables.from_bytes(ledger.get(entry.labels)) for entry in ledger.entries() if entry.labels]
        return {row["row"]: (row["label"], row["known_at"]) for part in found for row in part.to_pylist()}

    assert read(made, joined) == {
        0: ("first", START + 3 * HOUR), 2: ("second", START + 5 * HOUR), 1: ("soon", START + 2 * HOUR)
    }  # fmt: skip


def numbers(codes, proba):
    """What was said, packed."""
    return pack(Prediction(codes=np.asarray(codes, dtype=np.int32), proba=np.asarray(proba))).to_pylist()


def test_what_was_said_is_the_prediction(tmp_path, here):
    """Rows that servers answered are recorded and scored by their answers; pushed ones by the champion's."""
    made = deployment(tmp_path, here)
    x, y = values(200)
    write(made, ("rows", rows([f"h{i}" for i in range(200)], START + np.arange(200) * SECOND, x)))
    at = START + np.arange(200) * SECOND
    write(made, ("labels", labels([f"h{i}" for i in range(200)], at, y)))
    ids = [f"call-{i}" for i in range(4)]
    time = [START + 2 * HOUR + i * SECOND for i in range(4)]
    proba = [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]
    x4 = values(4, seed=2)[0]
    write(made, ("rows", rows(ids, time, x4, version=["1.0", "1.0", "7.3", None],
                              said=[*numbers([0, 1, 0], proba), None])))  # fmt: skip
    after = START + 3 * HOUR
    write(made, ("labels", labels(ids[:3], [after] * 3, ["down", "down", "down"])))
    write(made, ("rows", rows(["end"], [START + 5 * HOUR], x4[:1])))
    run(made)
    table = read(made, predictions)
    entries = read(made, lambda ledger: list(ledger.entries()))
    said = table.filter(pa.array(np.isin(table["row"].to_numpy(), [200, 201, 202, 203]))).to_pylist()
    first = [y[0], *({"up", "down"} - {y[0]})]  # the class table: in order of the first label
    assert [row["version"] for row in said] == ["1.0", "1.0", "7.3", "1.0"]
    assert [row["prediction"] for row in said[:3]] == [first[0], first[1], first[0]]
    assert [row[f"proba_{first[0]}"] for row in said[:3]] == [0.9, 0.3, 0.6]
    assert 0 < said[3][f"proba_{first[0]}"] < 1
    down = first.index("down")
    losses = [entry.loss for entry in entries if entry.loss.n and entry.now > START + HOUR]
    want = -math.log(proba[0][down]) - math.log(proba[1][down])  # that of 7.3 is none of the champion's
    assert [(loss.n, loss.total) for loss in losses] == [(2, pytest.approx(want))]


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("kind", ["stateful", "stateless"])
def test_evidence_is_what_was_said(tmp_path, here, mode, kind):
    """Verdicts by what champion and challenger said when asked are those of a run that asks them itself."""
    model = Logistic()
    strategy = strategies.Stateful(model, initial=200, trigger=triggers.every(rows=200))
    if kind == "stateless":
        strategy = strategies.Stateless(model, initial=200, trigger=triggers.every(rows=300))
    gate = Gate(mode=mode, margin=0.05, least_blocks=2, planned_labels=400, block=timedelta(hours=2))
    ids, time, x, y, known, _ = traffic()
    ids = [f"call-{i}" for i in range(len(ids))]
    told = labels([ids[i] for i in np.argsort(known)], np.sort(known), y[np.argsort(known)])
    plain = deployment(tmp_path / "plain", here.replace("inbox.db", "plain.db"), strategy, gate=gate)
    write(plain, ("rows", rows(ids, time, x)), ("labels", told))
    run(plain)
    asked = read(plain, predictions).sort_by("row").to_pylist()
    names = [name.removeprefix("proba_") for name in asked[-1] if name.startswith("proba_")]
    version, said = [None] * len(ids), [None] * len(ids)
    for row in asked:
        version[row["row"]] = row["version"]
        proba = [row[f"proba_{name}"] for name in names]
        said[row["row"]] = numbers([names.index(row["prediction"])], [proba])[0]
    made = deployment(tmp_path, here, strategy, gate=gate)
    write(made, ("rows", rows(ids, time, x, version=version, said=said)), ("labels", told))
    run(made)
    one, other = (read(which, lambda ledger: list(ledger.entries())) for which in (plain, made))
    assert [entry.verdicts for entry in one] == [entry.verdicts for entry in other]
    assert [entry.loss for entry in one] == [entry.loss for entry in other]
    assert {verdict.outcome for entry in other for verdict in entry.verdicts} > {"keep"}
    assert read(made, predictions).equals(read(plain, predictions))


def test_nothing_that_comes_stops_it(tmp_path, here):
    """Answers of no version, torn bytes, classes nobody knows, labels of everything: turns go on, and count it."""
    trees = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    made = deployment(tmp_path, here, strategies.Stateless(trees, initial=200, trigger=triggers.every(rows=100)))
    ids, time, x, *_ = traffic(600)
    rng = np.random.default_rng(4)
    version = [[None, "1.0", "x.y", "", "9.9", "1.99999999999"][i] for i in rng.integers(0, 6, 600)]
    whole = numbers([0], [[0.5, 0.5]])[0]
    wild = numbers([5, 0, -2], [[0.2] * 6] * 3)
    said = [[None, whole, b"", b"torn", *wild, np.array([np.nan]).tobytes()][i] for i in rng.integers(0, 8, 600)]
    x = np.where(rng.random((600, 2)) < 0.05, np.nan, x)
    time = np.where(rng.random(600) < 0.05, time - 3 * 24 * HOUR, time)
    write(made, ("rows", rows(ids, time, x, version=version, said=said, shadow=version, shadow_said=said)))
    many = [*rng.choice(ids, 900), *(f"nobody-{i}" for i in range(100))]
    write(made, ("labels", labels(many, rng.integers(START - HOUR, START + 20 * HOUR, 1000),
                                  rng.choice(["up", "down", "", "new"], 1000))))  # fmt: skip
    notes = []
    assert run(made, tell=lambda event, facts: notes.append(facts["note"]) if event == "note" else None) > 8
    assert any("of no row" in note for note in notes)
    assert len(read(made, lambda ledger: ledger.versions())) > 1


def test_numbers_that_are_none_are_no_labels(tmp_path, here):
    """A regression's labels of NaN and infinity are passed over; the first training waits for the others."""
    strategy = strategies.Stateful(pn.learners.plain.Linear(), initial=10, trigger=triggers.every(rows=20))
    made = replace(deployment(tmp_path, here, strategy), columns={**TYPES, "y": pa.float64()})
    x, _ = values(60)
    ids, time = [f"call-{i}" for i in range(60)], START + np.arange(60) * MINUTE
    known = START + HOUR + np.arange(60) * HOUR
    y = np.where(np.arange(60) % 3 == 0, [np.nan, np.inf, -np.inf] * 20, x[:, 0])
    write(made, ("rows", rows(ids, time, x)), ("labels", labels(ids, known, y)))
    write(made, ("rows", rows(["end"], [START + 100 * HOUR], x[:1])))
    run(made)
    learned = [saved.version.trained_rows for saved in read(made, lambda ledger: ledger.versions())]
    assert learned == [40]


@pytest.mark.parametrize("mode", ["before", "after"])
def test_numbers_that_are_huge_stop_nothing(tmp_path, here, mode):
    """Those beyond 1e100 are passed over; the others are learned, and losses that cannot be squared tell nothing."""
    strategy = strategies.Stateful(pn.learners.plain.Linear(), initial=10, trigger=triggers.every(rows=20))
    gate = Gate(mode=mode, least_blocks=2, planned_labels=100, block=timedelta(hours=2))
    made = replace(deployment(tmp_path, here, strategy, gate=gate), columns={**TYPES, "y": pa.float64()})
    x, _ = values(200)
    ids, time = [f"call-{i}" for i in range(200)], START + np.arange(200) * HOUR
    known = time + HOUR
    y = x[:, 0].copy()
    y[25::10] = [1e308, -1e308, 1e100, -1e100, 1.7e308] * 3 + [1e308] * 3
    write(made, ("rows", rows(ids, time, x)), ("labels", labels(ids, known, y)))
    write(made, ("rows", rows(["end"], [START + 300 * HOUR], x[:1])))
    run(made)
    entries = read(made, lambda ledger: list(ledger.entries()))
    assert all(math.isfinite(entry.loss.total) for entry in entries)
    learned = [saved.version.trained_rows for saved in read(made, lambda ledger: ledger.versions())]
    assert sum(learned) == 10 + 8 * 20  # of 188


def test_classes_have_a_limit(tmp_path, here):
    """Labels beyond it are passed over and counted, also by a run that goes on; those that are known go on counting."""
    made = deployment(tmp_path, here)
    made = replace(made, stream=replace(made.stream, most_classes=3))
    ids, time, x, y, known, _ = traffic(600)
    ids = [f"call-{i}" for i in range(600)]
    y = y.astype(object)
    y[100:] = [f"new-{i}" if i % 5 == 0 else one for i, one in enumerate(y[100:])]
    order = np.argsort(known, kind="stable")
    write(made, ("rows", rows(ids[:300], time[:300], x[:300])))
    write(made, ("labels", labels([ids[i] for i in order], known[order], list(y[order]))))
    run(made, "once")
    write(made, ("rows", rows(ids[300:], time[300:], x[300:])))
    run(made)
    entries = read(made, lambda ledger: list(ledger.entries()))
    told = [tables.from_bytes(read(made, lambda ledger, e=e: ledger.get(e.labels))) for e in entries if e.labels]
    words = [row["label"] for part in told for row in part.to_pylist()]
    assert len(set(words)) == 3
    assert {"up", "down"} < set(words)
    assert len(words) > 400
    passed = [
        note for entry in entries for note in entry.notes if "of a class beyond the first 3 (serve.classes)" in note
    ]
    assert sum(int(note.split()[2]) for note in passed) == 99


def running(past, now):
    """A feature that looks back, and that some rows are too much for."""
    if (now["a"] > 1e6).any():
        raise ValueError("no such row")
    return pd.DataFrame({"a": now["a"], "before": past["a"].mean() if len(past) else 0.0}, index=now.index)


def test_rows_that_features_fail_on_have_none(tmp_path, here):
    """They are learned as rows of nulls, a note says so, and the backtest has the same."""
    trees = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    strategy = strategies.Stateless(trees, initial=200, trigger=triggers.every(rows=100))
    made = deployment(tmp_path, here, strategy)
    made = replace(made, stream=replace(made.stream, features=running, lookback="6h"))
    ids, time, x, y, known, _ = traffic(600)
    x[50::20, 0] = 1e9
    order = np.argsort(known, kind="stable")
    told = labels([ids[i] for i in order], known[order], y[order])
    write(made, ("rows", rows(ids, time, x)), ("labels", told))
    assert run(made) > 8
    notes = [note for entry in read(made, lambda ledger: list(ledger.entries())) for note in entry.notes]
    assert "features: 3 rows have none, as running failed (ValueError)" in notes
    assert same_as_replayed(made, tmp_path / "prepared") > 2


def test_it_waits_for_what_rows_hold(tmp_path, here):
    """Without columns and without examples there is nothing to read: the run says so, and goes on once there is."""
    made = replace(deployment(tmp_path, here), columns=None)
    events = []
    assert run(made, "once", tell=lambda event, _: events.append(event)) == 0
    assert events == ["waiting for examples"]
    x, y = values(300)
    table = pa.table({"id": [f"h{i}" for i in range(300)],
                      "time": pa.array(START + np.arange(300) * MINUTE).cast(INSTANT),
                      "a": x[:, 0], "b": x[:, 1], "who": ["w"] * 300, "y": y})  # fmt: skip
    with InboxLogs.open(
        made.inbox, made.stream, dict(zip(table.schema.names, table.schema.types, strict=True))
    ) as logs:
        assert push(logs, made.stream, table, now=START + 10 * HOUR, key="history") == 300
    assert run(made, "once") > 2


def test_an_idle_deployment_lies_still(tmp_path, here):
    """Ticks come for labels, however late, and for a schedule that has something to learn; else no turn is written."""
    daily = strategies.Stateful(SGDClassifier(random_state=0), initial=100, trigger=triggers.every("1d"))
    made = deployment(tmp_path, here, daily, batch="1s")
    x, y = values(200)
    ids, time = [f"call-{i}" for i in range(200)], START + np.arange(200) * SECOND // 10
    write(made, ("rows", rows(ids, time, x)), ("labels", labels(ids[:100], time[:100], y[:100])))
    clock = [START + 30 * SECOND]

    def now():
        return datetime.fromtimestamp(clock[0] / SECOND, UTC)

    with (
        SqlLedger.open(made.ledger, made.name) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        made_run = Run(made, ledger, lease)

        def drain():
            before = made_run.turn
            for _ in range(100):
                if not made_run.step() and not made_run.refresh() and not made_run.idle(now()):
                    break
            return made_run.turn - before

        assert drain() >= 20
        for _ in range(50):
            clock[0] += 7 * SECOND
            assert drain() == 0
        clock[0] += 5 * HOUR
        with InboxLogs.open(made.inbox, made.stream) as logs:
            logs.labels.append(labels(ids[100:], [clock[0] - HOUR] * 100, y[100:]))  # an hour on its way
        assert drain() == 1
        assert drain() == 0
        versions = len(ledger.versions())
        clock[0] += 24 * HOUR
        assert drain() == 1  # the schedule fires, and learns them
        assert len(ledger.versions()) == versions + 1
        clock[0] += 72 * HOUR
        assert drain() == 0  # with nothing new it lies still


# ---------------------------------------------------------------------- pushing


def history(n=100, **more):
    """Labelled rows as a user has them."""
    x, y = values(n)
    return pa.table({"time": pa.array(START + np.arange(n) * MINUTE).cast(INSTANT), "a": x[:, 0], "b": x[:, 1],
                     "who": ["w"] * n, "y": y, **more})  # fmt: skip


def pushed(made, table, **about):
    """What a push gives."""
    assert made.begun()
    with InboxLogs.open(made.inbox, made.stream) as logs:
        return push(logs, made.stream, table, now=START + 100 * HOUR, **about)


def contents(made, which):
    """Rows of a log."""
    feed = IngestFeed(made.inbox.url(which))
    types = feed.open().types((), ())
    return [row for run in feed.read(pn.stream.feed.Position(), types) for row in run.rows.to_pylist()]


def test_a_push_is_done_once(tmp_path, database):
    """The same key again does nothing; other rows under it are refused; rows and labels come together."""
    made = deployment(tmp_path, database)
    table = history(known_at=pa.array([START + 3 * HOUR] * 99 + [None], INSTANT))
    assert pushed(made, table, key="one") == 100
    assert pushed(made, table, key="one") == 0
    with pytest.raises(KeyTaken):
        pushed(made, history(50), key="one")
    assert [row["id"] for row in contents(made, "rows")] == [f"one/{i}" for i in range(100)]
    assert len(contents(made, "labels")) == 99
    assert {row["known_at"] for row in contents(made, "labels")} == {datetime(2026, 1, 1, 3, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("change", "need"),
    [
        (lambda t: t.drop_columns(["a"]), "column 'a' is missing"),
        (lambda t: t.append_column("more", pa.array([1] * 100)), "has no column 'more'"),
        (lambda t: t.drop_columns(["time"]), "column 'time' is missing"),
        (lambda t: t.drop_columns(["y"]), "column 'y' is missing"),
        (lambda t: t.set_column(1, "a", pa.array(["x"] * 100)), "is double, and the rows to append hold string"),
        (lambda t: t.append_column("id", pa.array([None] * 100, pa.string())), "'id' is missing"),
        (lambda t: t.set_column(0, "time", pa.array([None] * 100, INSTANT)), "'time' is missing"),
        (lambda t: t.set_column(0, "time", pa.array([START + 200 * HOUR] * 100).cast(INSTANT)), "ahead of the clock"),
        (lambda t: t.append_column("known_at", pa.array([START - 1] * 100).cast(INSTANT)), "before its event"),
    ],
)
def test_a_push_that_breaks_a_rule_appends_nothing(tmp_path, here, change, need):
    """The error names the column; neither rows nor labels are there."""
    made = deployment(tmp_path, here)
    with pytest.raises(DataError, match=need):
        pushed(made, change(history()))
    assert contents(made, "rows") == contents(made, "labels") == []


def test_history_comes_first(tmp_path, here):
    """Rows from before what is there are refused, in words that say why."""
    made = deployment(tmp_path, here)
    pushed(made, history())
    with pytest.raises(DataError, match="lies before what is there"):
        pushed(made, history())


YAML = """
name: shop
stream: {source: serve, key: who, label: {column: y, wait: 7d, delay: 10min}, batch: 1h}
model: sklearn.linear_model.SGDClassifier
initial: 50
strategies: {live: {stateful: {every: 20}}}
deploy: live
"""


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_push_of_a_file(tmp_path, capsys, monkeypatch, kind):
    """From YAML and a file alone: push, run, backtest; again it appends nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "perennial.yaml").write_text(YAML)
    file = tmp_path / f"history.{kind}"
    table = history()
    pa.csv.write_csv(table, file) if kind == "csv" else pq.write_table(table, file)
    assert main(["push", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deployment": "shop", "rows": 100, "before": 0}
    assert main(["push", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["before"] == 100
    assert (tmp_path / ".perennial" / "inbox.db").is_file()
    assert main(["run", "--until-end", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["champion"] is not None
    assert main(["backtest", "--json", "-o", str(tmp_path / "out")]) == 0
    loaded = load("perennial.yaml").deployment()
    assert loaded.stream.served
    assert loaded.inbox.keep == timedelta(days=30)


def test_a_file_out_of_order_is_refused_whole(tmp_path, here, monkeypatch):
    """Before anything is appended, by the second block too."""
    from perennial.production import examples

    made = deployment(tmp_path, here)
    table = history()
    pq.write_table(
        pa.concat_tables([table.slice(50), table.slice(0, 50)]), tmp_path / "rows.parquet", row_group_size=50
    )
    monkeypatch.setattr("perennial.stream.sources.BLOCK_ROWS", 50)
    with pytest.raises(DataError, match="sort the rows by 'time'"):
        examples.push_file(made, tmp_path / "rows.parquet", now=START + 100 * HOUR)
    assert made.begun()
    assert contents(made, "rows") == []


# ---------------------------------------------------------------------- forgetting


def planted(made, n=300):
    """Traffic in which subject who-3 has values of its own, with labels and feedback; gives the bytes to look for."""
    x, y = values(n)
    theirs = np.arange(n) % 7 == 3
    x[theirs, 0] = 1234.56789012345
    ids = [f"planted-{i}" if theirs[i] else f"call-{i}" for i in range(n)]
    time = START + np.arange(n) * MINUTE
    write(made, ("rows", rows(ids, time, x)), ("labels", labels(ids, time + HOUR, y)))
    thumbs = pa.table({"id": ids, "known_at": pa.array(time + HOUR).cast(INSTANT), "up": [True] * n,
                       "text": [f"prose of {one}" for one in ids], "correction": pa.nulls(n, pa.string())})  # fmt: skip
    write(made, ("feedback", thumbs))
    return [b"who-3", b"planted-", np.float64(1234.56789012345).tobytes()]


def bytes_of(folder):
    """All files of a folder."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_erase_reaches_what_was_taken(tmp_path, here):
    """Rows that a run took and the inbox keeps, their labels and what was said of them go with the subject."""
    made = deployment(tmp_path, here)
    marks = planted(made)
    run(made, "once")
    assert all(mark in bytes_of(tmp_path) for mark in marks)
    with (
        SqlLedger.open(made.ledger, made.name) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        erased = Run(made, ledger, lease).erase("who-3")
    assert erased.waiting == 43  # every row of theirs that the inbox kept
    for which in ("rows", "labels", "feedback"):
        assert len(contents(made, which)) == 300 - 43
    assert [mark for mark in marks if mark in bytes_of(tmp_path)] == []
    assert run(made, "until-end") > 0


def test_without_retention_the_inbox_keeps_nothing(tmp_path, here):
    """What was taken is in no file any more once it was learned, feedback neither."""
    made = deployment(tmp_path, here, keep=timedelta(0), retention="none")
    made = replace(made, stream=replace(made.stream, word_rows=10))
    marks = planted(made)
    run(made)
    assert contents(made, "rows") == contents(made, "labels") == contents(made, "feedback") == []
    assert [mark for mark in marks if mark in bytes_of(tmp_path)] == []
    with pytest.raises(ConfigError, match="keeps nothing that was taken"):
        deployment(tmp_path, here, keep=timedelta(days=1), retention="none")


def test_feedback_goes_with_time(tmp_path, here):
    """Nobody reads it as a source; a run lets go of what is older than the inbox keeps."""
    made = deployment(tmp_path, here, keep=timedelta(days=30))
    planted(made)
    run(made, "once")
    assert len(contents(made, "feedback")) == 300
    with sqlite3.connect(tmp_path / "inbox.db") as base:
        base.execute("UPDATE perennial_entries SET appended = appended - 31 * 86400000000")
    run(made, "once")
    assert contents(made, "feedback") == []


# ---------------------------------------------------------------------- freshness


def test_from_label_to_live(tmp_path, here):
    """The ledger says when the labels that a version learned became known, and when it was champion."""
    made = deployment(tmp_path, here)
    ids, time, x, y, known, _ = traffic(600)
    ids = [f"call-{i}" for i in range(600)]
    write(made, ("rows", rows(ids, time, x)), ("labels", labels(ids, known, y)))
    run(made)
    versions = read(made, lambda ledger: ledger.versions())
    facts = {saved.version.number: saved.facts["labels"] for saved in versions}
    assert sum(fact["rows"] for fact in facts.values()) <= 600
    for saved in versions[1:]:
        fact = facts[saved.version.number]
        assert fact["rows"] == saved.version.trained_rows
        assert fact["median_known_at"] <= fact["newest_known_at"] <= saved.version.at
    live = read(made, lambda ledger: ledger.became_champion())
    assert [number for number, _ in live] == list(facts)
    assert median_to_live(facts, live) > 0


def test_ready_and_erase_of_an_inbox_that_is_not_there(here):
    """There is nothing to find."""
    assert not inboxes.ready(Inbox(here, "shop"))
