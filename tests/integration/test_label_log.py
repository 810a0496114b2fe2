"""A label log in `perennial run`: what is joined is what a backtest joins, whenever and in whatever files it comes."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from sklearn.linear_model import LinearRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import strategies, triggers, windows
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run, tables
from perennial.production.service import keep_current, leased
from perennial.stream import label_log
from perennial.stream.feed import OffsetGone
from tests import postgres
from tests.integration.test_parity import same_as_replayed

START = np.datetime64("2026-01-01", "us")
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")
N = 30 * 24

STATEFUL = strategies.Stateful(
    SGDClassifier(loss="log_loss", random_state=0), initial="8d", trigger=triggers.every("1d")
)
STATELESS = strategies.Stateless(
    GaussianNB(), initial="8d", trigger=triggers.every("2d"), window=windows.Sliding("6d")
)  # fmt: skip
HYBRID = strategies.Hybrid(
    SGDClassifier(loss="log_loss", random_state=0), initial="8d", trigger=triggers.every("1d"),
    reset=triggers.every("7d"), window=windows.Sliding("5d"),
)  # fmt: skip


def hourly(n=N):
    """Rows an hour apart, with ids, and what their label is."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 2))
    truth = np.where(np.cos(np.arange(n) / 200) * x[:, 0] + x[:, 1] + rng.normal(size=n) / 2 > 0, "up", "down")
    at = START + np.arange(n) * HOUR
    table = pa.table({"at": at, "a": x[:, 0], "b": x[:, 1], "id": [f"row-{i}" for i in range(n)]})
    return table, at, truth, rng


def log_of(rows, labels, known, *, ordered=True):
    """A log, in the order in which its labels became known, as it would be written."""
    order = np.argsort(known, kind="stable") if ordered else np.arange(len(known))
    return pa.table({
        "id": [f"row-{i}" for i in np.asarray(rows)[order]], "y": pa.array(np.asarray(labels)[order].tolist()),
        "known_at": np.asarray(known)[order],
    })  # fmt: skip


def plain():
    """A label some hours to two days after its event; some twice or three times; some never, and some of nobody."""
    table, at, truth, rng = hourly()
    said = np.flatnonzero(rng.random(N) < 0.9)
    known = at[said] + rng.integers(0, 50, len(said)) * HOUR
    wrong = said[rng.random(len(said)) < 0.2]
    again = at[wrong] + rng.integers(50, 90, len(wrong)) * HOUR
    third = wrong[: len(wrong) // 3]
    rows = np.concatenate([said, wrong, third, third, [9990, 9991]])
    other = np.where(truth == "up", "down", "up")
    labels = np.concatenate([truth[said], other[wrong], truth[third], other[third], ["up", "down"]])
    later = at[third] + 95 * HOUR
    known = np.concatenate([known, again, later, later, START + np.array([100, 101]) * HOUR])
    return table, log_of(rows, labels, known), {}


def beside():
    """Rows that bring labels of their own, late or never, and a log that says some earlier and some anew."""
    table, log, _ = plain()
    rng = np.random.default_rng(8)
    own = [("up" if rng.random() < 0.5 else "down") if rng.random() < 0.6 else None for _ in range(N)]
    return table.append_column("y", pa.array(own)), log, {"label_delay": "30h"}


def silence(**about):
    """Positives that are reported within three days, in part after it; silence is negative."""
    table, at, _, rng = hourly()
    bad = np.flatnonzero(table["a"].to_numpy() + rng.normal(size=N) / 2 > 0.5)
    known = at[bad] + rng.integers(0, 90, len(bad)) * HOUR
    known[:20] = at[bad[:20]] + 3 * DAY  # at the last moment
    withdrawn = bad[rng.random(len(bad)) < 0.3]
    again = at[withdrawn] + rng.integers(20, 110, len(withdrawn)) * HOUR
    rows, labels = np.concatenate([bad, withdrawn]), np.concatenate([np.ones(len(bad)), np.zeros(len(withdrawn))])
    log = log_of(rows, labels.astype(int), np.concatenate([known, again]))
    return table, log, {"within": "3d", "absent": 0, "label_wait": "5d", **about}


def silence_beside(**about):
    """Silence, a log, and rows that bring reports of their own, some of them after silence."""
    table, log, settings = silence(**about)
    rng = np.random.default_rng(2)
    own = rng.random(N) < 0.3
    known = np.where(own, table["at"].to_numpy() + rng.integers(0, 100, N) * HOUR, np.datetime64("NaT"))
    table = table.append_column("y", pa.array([1 if o else None for o in own], pa.int64()))
    return table.append_column("known_at", pa.array(known)), log, settings | {"known_at": "known_at"}


LOGS = {
    "plain": plain,
    "beside": beside,
    "silence": silence,
    "silence-at-once": lambda: silence(positives_wait=False),
    "silence-beside": silence_beside,
    "silence-beside-at-once": lambda: silence_beside(positives_wait=False),
}


def deployment(place: Path, rows, log, *, strategy=STATEFUL, **settings):
    """A deployment of rows and a log."""
    given = {"time": "at", "target": "y", "time_zone": "UTC", "id": "id", "batch": "1d", "label_wait": "5d", **settings}
    return Deployment(
        name="shop",
        stream=pn.Stream(rows, labels=log, **given),
        strategy=strategy,
        ledger=f"sqlite:///{place}/ledger.db",
    )


def until_end(made, **about):
    """Run a deployment to the end of its recording."""
    return go(made, mode="until-end", **about)


def go(made, *, mode="once", clock=lambda: datetime(2026, 6, 1, tzinfo=UTC), waits=0, tell=lambda *_: None):
    """Run in this process; follow mode ends after so many waits."""
    left = [waits]

    def wait(_):
        left[0] -= 1

    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger,
        leased(ledger, "test", timedelta(seconds=60), tell) as lease,
    ):
        return keep_current(
            made, ledger, lease, mode=mode, stopped=lambda: mode == "follow" and left[0] < 0, wait=wait, clock=clock,
            poll=0.0, tell=tell,
        )  # fmt: skip


def in_files(table, folder: Path, name: str, cuts):
    """A table as files; what each holds ends at a cut."""
    folder.mkdir(exist_ok=True)
    for low, high in pairwise([0, *cuts, table.num_rows]):
        if high > low:
            pq.write_table(table.slice(low, high - low), folder / f"{name}{low:05}.parquet")


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize(
    ("strategy", "batch"), [(STATEFUL, "1d"), (STATELESS, 17), (HYBRID, "1d")], ids=["stateful", "rows", "hybrid"]
)
def test_a_run_joins_what_a_backtest_joins(tmp_path, name, strategy, batch):
    """All that a turn holds is equal bit for bit, `revised` and the class table too."""
    table, log, settings = LOGS[name]()
    pq.write_table(table, tmp_path / "rows.parquet")
    pq.write_table(log, tmp_path / "log.parquet")
    made = deployment(
        tmp_path, tmp_path / "rows.parquet", tmp_path / "log.parquet", strategy=strategy, **settings | {"batch": batch}
    )
    until_end(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 3
    with SqlLedger.open(made.ledger, made.name) as ledger:
        assert not ledger.check()


def arriving(made, table, log, place: Path, seed, put):
    """Take turns as rows and lines of the log arrive in pieces, each line by the time it is known; then the rest."""
    rng = np.random.default_rng(seed)
    at, known = table["at"].to_numpy(), log["known_at"].to_numpy()
    rows = lines = 0
    order = iter(range(10**6))
    for until in np.sort(rng.choice(N, size=12, replace=False)):
        now = START + until * HOUR
        ahead = int(np.searchsorted(known, now + rng.integers(0, 200) * HOUR, side="right"))
        if ahead > lines:
            put(log.slice(lines, ahead - lines), place / "log", next(order))
            lines = ahead
        upto = int(np.searchsorted(at, now, side="right"))
        if upto > rows:
            in_files(table.slice(rows, upto - rows), place / "rows", f"{next(order):03}-", [])
            rows = upto
        go(made)
    put(log.slice(lines), place / "log", next(order))
    in_files(table.slice(rows), place / "rows", f"{next(order):03}-", [])
    until_end(made)


def put_file(table, folder, number):
    """Lines of the log as a new file."""
    if table.num_rows:
        in_files(table, folder, f"{number:03}-", [])


@pytest.mark.parametrize("name", ["plain", "silence", "silence-at-once", "silence-beside-at-once"])
def test_it_is_the_same_however_rows_and_log_arrive(tmp_path, name):
    """Rows and log come in pieces of any size, the log ahead of the rows by any time; runs go on from the ledger."""
    table, log, settings = LOGS[name]()
    for folder in ("rows", "log"):
        (tmp_path / folder).mkdir()
    in_files(table.slice(0, 30), tmp_path / "rows", "000-", [])  # a stream names what is there
    in_files(log.slice(0, 5), tmp_path / "log", "000-", [])
    made = deployment(tmp_path, tmp_path / "rows", tmp_path / "log", **settings)

    def put(lines, folder, number):
        put_file(lines, folder, number + 1)

    (tmp_path / "rows" / "000-00000.parquet").unlink()
    (tmp_path / "log" / "000-00000.parquet").unlink()
    arriving(made, table, log, tmp_path, 1, put)
    assert same_as_replayed(made, tmp_path / "prepared") > 3


def table_of(url, name):
    """A function that adds lines to a table of a database, which it makes."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    stamp = "TIMESTAMP" if url.startswith("sqlite") else "timestamp"
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE {name} (n INTEGER PRIMARY KEY, id TEXT, y TEXT, known_at {stamp})"))
    done = [0]

    def add(lines, *_):
        rows = [
            {"n": done[0] + i, "id": one["id"], "y": one["y"], "known_at": one["known_at"]}
            for i, one in enumerate(lines.to_pylist())
        ]
        done[0] += len(rows)
        if url.startswith("sqlite"):
            rows = [{**row, "known_at": str(row["known_at"])} for row in rows]
        if rows:
            with engine.begin() as connection:
                connection.execute(sa.text(f"INSERT INTO {name} VALUES (:n, :id, :y, :known_at)"), rows)

    return add


def test_a_table_of_a_database_is_a_log(tmp_path):
    """SQLite: lines are inserted as they come, and what is joined is what a backtest of the table joins."""
    table, log, settings = plain()
    (tmp_path / "rows").mkdir()
    add = table_of(f"sqlite:///{tmp_path}/labels.db", "labels")
    add(log.slice(0, 1))
    in_files(table.slice(0, 1), tmp_path / "rows", "0000-", [])
    made = deployment(tmp_path, tmp_path / "rows", f"sqlite:///{tmp_path}/labels.db?table=labels", **settings)
    (tmp_path / "rows" / "0000-00000.parquet").unlink()
    arriving(made, table, log.slice(1), tmp_path, 2, add)
    assert same_as_replayed(made, tmp_path / "prepared") > 3


def test_a_table_of_postgresql_is_a_log(tmp_path):
    """Lines are followed in the order of their commits, one transaction each; ledger and log may share a database."""
    table, log, settings = plain()
    (tmp_path / "rows").mkdir()
    with postgres.schema() as url:
        add = table_of(url, "said")
        add(log.slice(0, 1))
        in_files(table.slice(0, 1), tmp_path / "rows", "0000-", [])
        own = sa.make_url(url).query["options"].partition("=")[2]
        address = postgres.URL.replace("postgresql+psycopg", "postgresql") + f"?table=said&schema={own}"
        made = deployment(tmp_path, tmp_path / "rows", address, **settings)
        made = replace(made, ledger=url, blobs=tmp_path / "blobs")
        (tmp_path / "rows" / "0000-00000.parquet").unlink()
        arriving(made, table, log.slice(1), tmp_path, 3, add)
        with SqlLedger.open(url, made.name, blobs=made.blobs) as ledger:
            assert ledger.check() == []
        assert same_as_replayed(made, tmp_path / "prepared") > 3


def test_a_log_in_any_order(tmp_path):
    """A log that was sorted by something else is looked through, as far as it may be read ahead."""
    table, log, settings = plain()
    pq.write_table(table, tmp_path / "rows.parquet")
    pq.write_table(log.take(np.random.default_rng(0).permutation(log.num_rows)), tmp_path / "log.parquet")
    made = deployment(tmp_path, tmp_path / "rows.parquet", tmp_path / "log.parquet", **settings)
    until_end(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 3


def test_a_regression_and_a_wait_that_nobody_stated(tmp_path):
    """Numbers are joined as classes are; without `label_wait` a backtest waits for ever, and a run 90 days."""
    table, log, _ = plain()
    log = log.set_column(1, "y", pa.array(np.random.default_rng(0).normal(size=log.num_rows)))
    pq.write_table(table, tmp_path / "rows.parquet")
    pq.write_table(log, tmp_path / "log.parquet")
    strategy = strategies.Stateless(
        LinearRegression(), initial="8d", trigger=triggers.every("2d"), window=windows.Sliding("6d")
    )
    made = deployment(tmp_path, tmp_path / "rows.parquet", tmp_path / "log.parquet", strategy=strategy, label_wait=None)
    until_end(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 3


def test_rows_are_held_for_the_first_label_wherever_it_comes_from(tmp_path):
    """A row that would bring its own label in a week is held in a backtest too until the log has said it sooner."""
    table, at, truth, _ = hourly()
    log = log_of(np.arange(N), truth, at + 3 * DAY)
    pq.write_table(table.append_column("y", pa.array(truth.tolist())), tmp_path / "rows.parquet")
    pq.write_table(log, tmp_path / "log.parquet")
    made = deployment(
        tmp_path, tmp_path / "rows.parquet", tmp_path / "log.parquet", label_wait=None, label_delay="7d",
        strategy=strategies.Frozen(GaussianNB(), initial="9d"),
    )  # fmt: skip
    until_end(made)
    assert same_as_replayed(made, tmp_path / "prepared") == 1


def waiting(made):
    """The rows that wait for a label."""
    with sqlite3.connect(made.ledger.removeprefix("sqlite:///")) as database:
        return database.execute("SELECT id, position, time, named FROM waiting ORDER BY position").fetchall()


def entries_of(made):
    """Every turn that is durable."""
    with SqlLedger.open(made.ledger, made.name) as ledger:
        return list(ledger.entries())


def test_what_waits_is_bounded(tmp_path, monkeypatch):
    """Rows leave the table when their wait is over, and of a recorded log only so many lines are read ahead."""
    table, log, settings = plain()
    pq.write_table(table, tmp_path / "rows.parquet")
    pq.write_table(log, tmp_path / "log.parquet")
    made = deployment(tmp_path, tmp_path / "rows.parquet", tmp_path / "log.parquet", **settings)
    monkeypatch.setattr(label_log, "AHEAD", 40)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        run = Run(made, ledger, ledger.acquire("test", timedelta(seconds=60)))
        while run.step():
            held = waiting(made)
            assert len(held) <= 6 * 24
            assert {len(row[0]) for row in held} == {16}
            assert all(row[2] > entry.now - 5 * 86400 * 10**6 for row in held for entry in [*ledger.entries()][-1:])
            log_state = run._intake.state().part("log").arrays
            assert len(log_state["parked_known_at"]) + len(log_state["position"]) <= 40 + 2
    until_end(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 3


# ---------------------------------------------------------------------- what goes wrong, and what is told


def small(tmp_path, lines, *, days=6, **settings):
    """Six days of rows, and a log of (row, label, hours after the first row)."""
    table, *_ = hourly(days * 24)
    in_files(table, tmp_path / "rows", "0-", [])
    put(tmp_path, lines)
    strategy = strategies.Stateful(GaussianNB(), initial="2d", trigger=triggers.every("1d"))
    return deployment(
        tmp_path, tmp_path / "rows", tmp_path / "log", strategy=strategy, **{"label_wait": "2d"} | settings
    )


def put(tmp_path, lines, name="0"):
    """Lines of a log as a file."""
    rows, labels, hours = zip(*lines, strict=True)
    known = START + np.array(hours) * HOUR
    (tmp_path / "log").mkdir(exist_ok=True)
    pq.write_table(log_of(rows, list(labels), known), tmp_path / "log" / f"{name}.parquet")


def daily(days=6, hours=2):
    """Every row is labelled some hours after its event."""
    return [(i, "up" if i % 3 else "down", i + hours) for i in range(days * 24)]


def joined(made):
    """(position, label, revised, turn) of all that was joined."""
    with SqlLedger.open(made.ledger, made.name) as ledger:
        return [
            (row["row"], row["label"], row["revised"], entry.turn)
            for entry in ledger.entries()
            for row in (tables.from_bytes(ledger.get(entry.labels)).to_pylist() if entry.labels else [])
        ]


def test_a_label_that_comes_too_late_is_told_and_stops_nobody(tmp_path):
    """In a run and in a backtest it is passed over; both say how many were."""
    late = [(5, "down", 5 + 49), (6, "down", 6 + 48), (900, "up", 70)]
    made = small(tmp_path, sorted(daily() + late, key=lambda line: line[2]))
    told = []
    until_end(made, tell=lambda event, facts: told.append((event, facts)))
    notes = [facts["note"] for event, facts in told if event == "note"]
    assert set(notes) == {
        "label log: 1 passed over, known more than label_wait='2d' after the event",
        "label log: 1 passed over, of no row, or of one that waits no more (label_wait='2d')",
    }
    assert sum(facts["labels_passed_over"] for event, facts in told if event == "turn") == 2
    assert [one[:3] for one in joined(made) if one[0] in (5, 6)] == [
        (5, "up", False), (6, "down", False), (6, "down", True),
    ]  # fmt: skip
    assert same_as_replayed(made, tmp_path / "prepared") > 2
    prepared = made.stream.prepare(tmp_path / "again")
    assert any(
        "1 of the label log's labels became known more than `label_wait`" in warning for warning in prepared.warnings
    )


def test_a_label_that_comes_physically_late_is_joined_in_the_next_turn(tmp_path):
    """It counts as known when it says so, and is joined when it was read."""
    lines = daily()
    held, punctual = [line for line in lines if 30 <= line[0] < 35], [line for line in lines if not 30 <= line[0] < 35]
    made = small(tmp_path, punctual, label_wait="5d")
    go(made)
    before = len(entries_of(made))
    put(tmp_path, held, "1")
    until_end(made)
    late = [one for one in joined(made) if 30 <= one[0] < 35]
    assert [one[0] for one in late] == [30, 31, 32, 33, 34]
    assert {one[3] for one in late} == {before}
    assert not any(one[2] for one in late)


def test_a_report_that_comes_after_silence_was_learned_revises_it(tmp_path):
    """It was known in time and read too late: the row has its label by silence, and then another."""
    made = small(tmp_path, [(10, 1, 15), (40, 0, 45)], within="1d", absent=0, label_wait="5d")
    go(made)
    put(tmp_path, [(30, 1, 40)], "1")
    until_end(made)
    assert [one[:3] for one in joined(made) if one[0] == 30] == [(30, 0, False), (30, 1, True)]
    assert [one[:3] for one in joined(made) if one[0] == 10] == [(10, 1, False)]


def test_a_label_waits_for_its_row(tmp_path):
    """It came in the log before its row was taken, and survives a restart in between."""
    made = small(tmp_path, daily())
    (whole,) = (tmp_path / "rows").iterdir()
    rows = pq.read_table(whole)
    whole.unlink()
    in_files(rows.slice(0, 60), tmp_path / "rows", "0-", [])
    go(made)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        run = Run(made, ledger, ledger.acquire("test", timedelta(seconds=60)))
        assert len(run._intake.state().part("log").arrays["parked_known_at"]) == 6 * 24 - 48
    in_files(rows.slice(60), tmp_path / "rows", "1-", [])
    until_end(made)
    assert sorted(one[0] for one in joined(made)) == list(range(6 * 24))
    assert same_as_replayed(made, tmp_path / "prepared") > 2


def test_labels_of_rows_that_never_come_are_given_up(tmp_path, monkeypatch):
    """Too many that are known and have no row: the oldest are told and let go of."""
    monkeypatch.setattr(label_log, "PARKED", 3)
    made = small(tmp_path, [*daily(), *((1000 + i, "up", 6 * 24 + i / 10) for i in range(8))])
    told = []
    for day in (7, 8):  # the last day is taken by the clock, then the day after it has no row
        go(made, mode="follow", waits=1, clock=lambda day=day: datetime(2026, 1, day, 12, tzinfo=UTC),
           tell=lambda event, facts: told.append((event, facts)))  # fmt: skip
    with SqlLedger.open(made.ledger, made.name) as ledger:
        run = Run(made, ledger, ledger.acquire("test", timedelta(seconds=60)))
        assert len(run._intake.state().part("log").arrays["parked_known_at"]) == 3
    notes = [facts["note"] for event, facts in told if event == "note"]
    assert notes == ["label log: 5 passed over, of no row, or of one that waits no more (label_wait='2d')"]


def test_labels_are_joined_while_no_rows_come(tmp_path):
    """Rows ended days ago, and labels go on coming: each day is a tick that joins what is known by its beginning."""
    made = small(tmp_path, daily(hours=2), label_wait="20d")
    go(made)
    put(tmp_path, [(140, "up", 11 * 24 + 5), (141, "up", 11 * 24 + 30)], "1")
    quiet = go(made, mode="follow", waits=1, clock=lambda: datetime(2026, 1, 20, 12, tzinfo=UTC))
    assert quiet == 0, "neither a row nor a label is of these days: a recording has its own pace"
    before = len(entries_of(made))
    assert go(made, mode="follow", waits=1, clock=lambda: datetime(2026, 1, 13, 12, tzinfo=UTC)) > 0
    new = entries_of(made)[before:]
    assert new[-1].kind == "tick"
    late = [one for one in joined(made) if one[0] == 140]
    assert late[-1][3] == new[-1].turn
    assert (141, "up") not in [one[:2] for one in joined(made)], "it is known later that day"
    assert go(made, mode="follow", waits=1, clock=lambda: datetime(2026, 1, 13, 13, tzinfo=UTC)) == 0


@pytest.mark.parametrize("later", [False, True], ids=["at once", "after its label"])
def test_two_rows_with_an_id_that_the_log_names(tmp_path, later):
    """It is an error as in a backtest, and nothing of the turn is fixed; where the log names neither they may."""
    made = small(tmp_path, daily(days=5, hours=2))
    (whole,) = (tmp_path / "rows").iterdir()
    rows = pq.read_table(whole)
    ids = rows["id"].to_pylist()
    ids[142] = ids[143]  # of the last day: no label
    ids[100 if later else 50] = ids[49]
    pq.write_table(rows.set_column(3, "id", pa.array(ids)), whole)
    wrong = f"names id 'row-49', which rows 49 and {100 if later else 50} both have"
    with pytest.raises(pn.DataError, match=wrong):
        made.stream.prepare(tmp_path / "prepared")
    with pytest.raises(pn.DataError, match=wrong):
        until_end(made)
    assert len(entries_of(made)) == (4 if later else 2)
    pq.write_table(rows.set_column(3, "id", pa.array([*rows["id"].to_pylist()[:142], *ids[143:], ids[143]])), whole)
    until_end(made)
    assert same_as_replayed(made, tmp_path / "again") > 2


def test_a_label_before_its_event(tmp_path):
    """It is an error; once its line was read and is gone from the log's future, `--accept` goes on without it."""
    made = small(tmp_path, [*daily(), (80, "up", 79)])
    with pytest.raises(pn.DataError, match=r"knows the label of id 'row-80' at .* before its event at"):
        made.stream.prepare(tmp_path / "prepared")
    with pytest.raises(pn.DataError, match=r"'row-80' at .*correct the log; .*run --accept"):
        until_end(made)
    assert len(entries_of(made)) == 3
    told = []
    until_end(replace(made, accept=True), tell=lambda event, facts: told.append(facts.get("note")))
    assert "label log: 1 passed over, known before the event" in told
    assert [one[:2] for one in joined(made) if one[0] == 80] == [(80, "up")]


@pytest.mark.parametrize("how", ["shorter", "rewritten", "earlier"])
def test_a_log_that_no_longer_holds_what_was_read(tmp_path, how):
    """The run ends and says so, and goes on once it is put back."""
    made = small(tmp_path, daily()[:100])
    go(made)
    file = tmp_path / "log" / "0.parquet"
    lines = pq.read_table(file)
    if how == "shorter":
        pq.write_table(lines.slice(0, 50), file)
    elif how == "rewritten":
        pq.write_table(lines.set_column(1, "y", pa.array(["sideways"] * 100)), file)
    else:
        put(tmp_path, daily()[100:], "-0")
    with pytest.raises(OffsetGone):
        until_end(made)
    pq.write_table(lines, file)
    (tmp_path / "log" / "-0.parquet").unlink(missing_ok=True)
    put(tmp_path, daily()[100:], "1")
    until_end(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 2


def test_a_turn_that_is_taken_again_sees_the_same_labels(tmp_path, monkeypatch):
    """How far the log is read is fixed with the bounds: lines that come between a crash and the next try wait."""
    made = small(tmp_path, daily()[:60])
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        assert all(run.step() for _ in range(4))
        put(tmp_path, daily()[60:80], "1")
        with monkeypatch.context() as patched:
            patched.setattr(Run, "_batch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run.step()
        (tmp_path / "log" / "1.parquet").unlink()
        with pytest.raises(OffsetGone, match="fixed to take 20 lines of the label log, and it holds fewer"):
            Run(made, ledger, lease).step()
        put(tmp_path, daily()[60:80], "1")
        put(tmp_path, daily()[80:90], "2")
        again = Run(made, ledger, lease)
        assert again.step()
        assert max(one[0] for one in joined(made)) == 79
        assert again.step(to_the_end=True)
        assert max(one[0] for one in joined(made)) == 89


def test_what_was_erased_waits_for_no_label(tmp_path):
    """Digests of a subject's ids are gone, and so are labels on their way; those that come are of nobody."""
    made = small(tmp_path, daily(hours=40))
    (whole,) = (tmp_path / "rows").iterdir()
    rows = pq.read_table(whole)
    pq.write_table(rows.append_column("who", pa.array([f"subject-{i % 5}" for i in range(rows.num_rows)])), whole)
    made = replace(made, stream=replace(made.stream, key="who"))
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        while run.step():
            pass
        before = {row[1] for row in waiting(made)}
        assert any(position % 5 == 2 for position in before)
        theirs = [label_log.id_digest(f"row-{i}") for i in range(2, 120, 5)]
        run = Run(made, ledger, lease)
        run.erase("subject-2")
        assert {row[1] for row in waiting(made)} == {position for position in before if position % 5 != 2}
        assert not [finding for finding in ledger.check() if not finding.safe]
        learned = sum(one[0] % 5 == 2 for one in joined(made))
        run = Run(made, ledger, lease)
        while run.step(to_the_end=True):
            pass
        run.close()
        ledger.release(lease)
    after = [one[0] for one in joined(made) if one[0] % 5 == 2]
    assert set(after[learned:]) <= set(range(120, 144)), "rows that came after the erasure have labels"
    content = b"".join(file.read_bytes() for file in tmp_path.glob("ledger.db*"))
    assert not any(digest in content for digest in theirs)


def test_settings_of_the_wait():
    """It belongs to a log, and lasts as long as silence at least."""
    rows = pa.table({"at": [START], "id": [1]})
    with pytest.raises(pn.ConfigError, match="about a label log"):
        pn.Stream(rows, time="at", target="y", label_wait="2d")
    with pytest.raises(pn.ConfigError, match="wait at least as long"):
        pn.Stream(rows, time="at", target="y", id="id", labels=rows, within="3d", absent=0, label_wait="2d")
    made = pn.Stream(rows, time="at", target="y", id="id", labels=rows)
    assert made.waits == timedelta(days=90)
    assert replace(made, within="3d", absent=0).waits == timedelta(days=3)
    assert pn.Stream(rows, time="at", target="y").waits == timedelta(0)


def test_a_log_that_is_new_or_holds_other_labels(tmp_path):
    """A deployment may be given a log later on, and labels of the log are of the type that those of the rows have."""
    made = small(tmp_path, daily())
    (file,) = (tmp_path / "rows").iterdir()
    rows = pq.read_table(file)
    pq.write_table(rows.append_column("y", pa.array(["up" if i % 3 else "down" for i in range(144)])), file)
    without = replace(made, stream=replace(made.stream, labels=None, label_wait=None, label_delay="6h"))
    go(without)
    until_end(replace(made, stream=replace(made.stream, label_delay="6h"), accept=True))
    assert [entry.kind for entry in entries_of(made)][-1] == "close"
    assert {one[0] for one in joined(made) if one[2]} == set(range(120, 144)), "the log revises rows that it finds"
    odd = deployment(tmp_path / "odd", tmp_path / "rows", tmp_path / "log")
    (tmp_path / "odd").mkdir()
    pq.write_table(pa.table({"id": ["row-1"], "y": [1.5], "known_at": [START + DAY]}), tmp_path / "log" / "0.parquet")
    with pytest.raises(pn.DataError, match=r"labels of the log are double, in 0.parquet, and those of the rows string"):
        until_end(odd)


@pytest.mark.parametrize("parameter", ["table", "log"])
def test_a_log_that_is_not_there_is_told_as_the_log(tmp_path, parameter):
    """An error about a table or an ingest log names the setting that leads to it: labels, and not the source."""
    sqlite3.connect(tmp_path / "shop.db").close()
    table, _, _ = plain()
    url = f"sqlite:///{tmp_path}/shop.db?{parameter}=outcomes"
    stream = pn.Stream(table, time="at", id="id", target="y", labels=url, label_wait="5d", time_zone="UTC", batch="1d")
    with pytest.raises(pn.ConfigError) as told:
        label_log.LabelLog(stream).refresh()
    assert told.value.field == "labels"
