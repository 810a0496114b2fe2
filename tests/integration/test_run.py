"""`perennial run` as a process: it follows a source that grows, stops when told, and yields to whoever took over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import SGDRegressor
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import cli, strategies, triggers
from perennial.gate import Gate, Slice
from perennial.ledger.errors import LeaseHeld, LeaseLost, StorageError
from perennial.ledger.records import AliasChange
from perennial.ledger.sql import SqlLedger
from perennial.metrics import Prices
from perennial.production import Deployment, Run, explain
from perennial.production.metrics import Metrics
from perennial.production.service import keep_current, leased
from tests import postgres

YAML = """\
name: shop
stream: {source: rows, time: at, time_zone: UTC, label: {column: y, delay: 6h}, batch: 1d}
model: sklearn.naive_bayes.GaussianNB
initial: 3d
strategies: {daily: {stateful: {every: 1d}}}
deploy: daily
"""


def rows(low, high, *, start="2026-01-01"):
    """Rows an hour apart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2))
    z = np.cos(np.arange(2000) / 200) * x[:, 0] + x[:, 1] + rng.normal(size=2000) / 2
    at = np.datetime64(start, "us") + np.arange(2000) * np.timedelta64(1, "h")
    return pa.table({"at": at, "a": x[:, 0], "b": x[:, 1], "y": np.where(z > 0, "up", "down")}).slice(low, high - low)


@pytest.fixture
def shop(tmp_path):
    """A configuration and an empty folder of rows beside it."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "perennial.yaml").write_text(YAML)
    return tmp_path


def put(shop, name, low, high, **about):
    """A new file, moved in whole."""
    part = shop / f".{name}.part"
    pq.write_table(rows(low, high, **about), part)
    part.rename(shop / "rows" / f"{name}.parquet")


def start(shop, *options):
    """A `perennial run` process."""
    return subprocess.Popen(
        [sys.executable, "-m", "perennial", "run", *options], cwd=shop, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def ledger_of(shop):
    """The ledger that the processes write."""
    return SqlLedger.open(f"sqlite:///{shop}/.perennial/ledger.db", "shop", create=False)


def until(said, seconds=40.0):
    """Wait until ``said()`` is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if said():
                return
        except pn.LedgerError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def turns(shop):
    """How many turns are durable."""
    with ledger_of(shop) as ledger:
        return ledger.head().turn + 1


def events(process):
    """What a finished process told."""
    _, err = process.communicate(timeout=30)
    return [json.loads(line) for line in err.splitlines() if line.startswith("{")], err


def test_it_follows_a_folder_and_stops_when_told(shop):
    """Files that come are taken batch by batch; SIGTERM ends the process well, and the next one goes on."""
    put(shop, "0", 0, 100)
    process = start(shop, "--poll", "0.05")
    until(lambda: turns(shop) == 4)
    put(shop, "1", 100, 150)
    until(lambda: turns(shop) == 6)
    process.send_signal(signal.SIGTERM)
    told, err = events(process)
    assert process.returncode == 0, err
    assert told[0]["event"] == "started"
    assert {"turn", "decision", "trained", "promoted", "stopping"} <= {e["event"] for e in told}
    assert told[-1]["event"] == "ended"
    put(shop, "2", 150, 200)
    process = start(shop, "--once", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out) == {"deployment": "shop", "turns": 2, "champion": "1.4"}
    with ledger_of(shop) as ledger:
        assert [e.rows for e in ledger.entries()] == [24] * 8


def test_events_are_those_of_the_documentation(shop):
    """Each has the fields of its row in docs/production.md; the metrics read the instant of a turn."""
    page = (Path(__file__).parents[2] / "docs" / "production.md").read_text()
    listed = [line.split("|") for line in page.splitlines() if line.startswith("| `") and line.count("|") == 4]
    documented = {name.strip(" `"): set(re.findall(r"`(\w+)`", fields)) for _, name, _, fields, _ in listed}
    put(shop, "0", 0, 150)
    told, err = events(start(shop, "--once"))
    common = {"event", "deployment", "turn", "at"}
    for event in told:
        if event["event"] not in ("started", "ended"):
            assert set(event) <= common | documented[event["event"]], event
    assert {"turn", "decision", "trained", "verdict", "promoted"} <= {event["event"] for event in told}, err
    last = [event for event in told if event["event"] == "turn"][-1]
    assert set(last) == common | documented["turn"]
    metrics = Metrics("shop")
    metrics.see("turn", last)
    instant = metrics.registry.get_sample_value("perennial_turn_timestamp_seconds", {"deployment": "shop"})
    assert instant == datetime.fromisoformat(last["at"]).timestamp()


def test_a_run_without_a_label_delay_says_so(shop):
    """Production is where it does harm; with a delay nothing is said."""
    put(shop, "0", 0, 50)
    assert "note" not in {event["event"] for event in events(start(shop, "--once"))[0]}
    (shop / "perennial.yaml").write_text(YAML.replace(", delay: 6h", "").replace("name: shop", "name: hasty"))
    told, _ = events(start(shop, "--once"))
    assert told[1]["event"] == "note"
    assert "no label delay is set" in told[1]["note"]


def test_a_second_run_is_told_and_ends(shop):
    """One writer: the lease of a run that lives is not taken."""
    put(shop, "0", 0, 100)
    process = start(shop, "--poll", "0.1", "--lease", "2")
    try:
        until(lambda: turns(shop) == 4)
        other = start(shop, "--once", "--json")
        out, err = other.communicate(timeout=60)
        assert other.returncode == 5, err
        assert json.loads(out)["error"]["kind"] == "LeaseHeld"
        assert '"event": "waiting"' in err
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.fixture(params=["sqlite", "postgres"])
def either(shop, request):
    """The shop with its ledger in SQLite or in PostgreSQL, and a function that opens it."""
    if request.param == "sqlite":
        yield shop, lambda: ledger_of(shop)
        return
    with postgres.schema() as url:
        with (shop / "perennial.yaml").open("a") as file:
            file.write(f"ledger: {url}\nblobs: blobs\n")
        yield shop, lambda: SqlLedger.open(url, "shop", blobs=shop / "blobs", create=False)


def test_a_run_that_was_stopped_past_its_lease_yields(either):
    """SIGSTOP, another takes over and goes on, SIGCONT: the first says so and ends; no batch is learned twice."""
    shop, opened = either

    def taken_turns():
        with opened() as ledger:
            return ledger.head().turn + 1

    put(shop, "0", 0, 100)
    process = start(shop, "--poll", "0.05", "--lease", "1")
    until(lambda: taken_turns() == 4)
    process.send_signal(signal.SIGSTOP)
    put(shop, "1", 100, 200)
    other = start(shop, "--once")
    _, err = other.communicate(timeout=60)
    assert other.returncode == 0, err
    assert taken_turns() == 8
    put(shop, "2", 200, 300)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert "Error:" in err
    with opened() as ledger:
        learned = [v.version.trained_rows for v in ledger.versions()]
        entries = list(ledger.entries())
        assert sum(learned) == sum(e.rows for e in entries[:-1]) - 6 + 1
        assert [e.turn for e in entries] == list(range(len(entries)))


def test_a_killed_run_is_taken_over(shop):
    """The next process waits for the lease of the dead one to run out, and goes on."""
    put(shop, "0", 0, 100)
    process = start(shop, "--poll", "0.05", "--lease", "9")
    until(lambda: turns(shop) == 4)
    process.kill()
    process.communicate(timeout=30)
    put(shop, "1", 100, 150)
    other = start(shop, "--once")
    told, err = events(other)
    assert other.returncode == 0, err
    assert "waiting" in {e["event"] for e in told}
    assert turns(shop) == 6


def test_rows_that_break_a_rule_are_told_and_the_run_resumes(shop):
    """A file that cannot be taken ends the run with its name and row; turns before it stand, and it goes on after."""
    put(shop, "0", 0, 100)
    broken = rows(100, 200)
    at = broken["at"].to_numpy().copy()
    at[60] -= np.timedelta64(400, "D")
    pq.write_table(broken.set_column(0, "at", pa.array(at)), shop / "rows" / "1.parquet")
    process = start(shop, "--once", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert json.loads(out)["error"]["kind"] == "DataError"
    assert "row 60 (in rows/1.parquet), counting from 0: 2024-" in err
    before = turns(shop)
    assert before >= 4
    put(shop, "1", 100, 200)
    process = start(shop, "--once")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert turns(shop) == 8


def test_a_csv_file_that_breaks_a_rule_is_told_by_line_and_value(shop, capsys):
    """A word among numbers in rows that came later, and rows of one batch in two files: file, line, code 3."""
    config = shop / "perennial.yaml"
    config.write_text(YAML.replace("source: rows", f"source: {shop}/rows/*.csv"))
    pa.csv.write_csv(rows(0, 100), shop / "rows" / "0.csv")
    assert cli.main(["run", "--once", "-c", str(config)]) == 0
    whole = (shop / "rows" / "0.csv").read_text()
    words = rows(100, 130).to_pandas().astype({"a": str})
    words.loc[7, "a"] = "n.a.?"
    (shop / "rows" / "0.csv").write_text(whole + words.to_csv(header=False, index=False))
    capsys.readouterr()
    assert cli.main(["run", "--once", "-c", str(config)]) == 3
    assert (
        f"column 'a', line 109 of {shop}/rows/0.csv: 'n.a.?' where earlier rows hold double" in capsys.readouterr().err
    )
    (shop / "rows" / "0.csv").write_text(whole)
    late = rows(100, 150).to_pandas()
    late.loc[3, "at"] -= np.timedelta64(30, "D")
    late.to_csv(shop / "rows" / "1.csv", index=False)
    assert cli.main(["run", "--once", "-c", str(config)]) == 3
    assert f"line 5 of {shop}/rows/1.csv: 2025-12-" in capsys.readouterr().err


def test_what_is_not_there(shop, capsys):
    """A path that leads nowhere is a wrong setting, code 2; a file that was read and is gone breaks a rule, code 3."""
    config = ["-c", str(shop / "perennial.yaml")]
    put(shop, "0", 0, 100)
    put(shop, "1", 100, 200)
    assert cli.main(["run", "--once", *config]) == 0
    (shop / "rows" / "1.parquet").rename(shop / "elsewhere.parquet")
    assert cli.main(["run", "--once", *config]) == 3
    (shop / "rows").rename(shop / "moved")
    assert cli.main(["run", "--once", *config]) == 2
    assert cli.main(["backtest", *config]) == 2
    assert cli.main(["predict", str(shop / "none.parquet"), "-o", str(shop / "said.parquet"), *config]) == 2
    assert cli.main(["init", str(shop / "none.parquet"), "-o", str(shop / "new.yaml")]) == 2
    assert cli.main(["run", "--once", "-c", str(shop / "none.yaml")]) == 2
    told = capsys.readouterr().err
    assert f"{config[1]}, line 2: stream.source=" in told


# ---------------------------------------------------------------------- in this process


def deployment(tmp_path, upto=100, **settings):
    """A small deployment of rows in a folder, the first of them there."""
    (tmp_path / "rows").mkdir(exist_ok=True, parents=True)
    put(tmp_path, "0", 0, upto)
    stream = pn.Stream(tmp_path / "rows", time="at", target="y", time_zone="UTC", label_delay="6h", batch="1d")
    given = {"strategy": strategies.Stateful(GaussianNB(), initial="3d", trigger=triggers.every("1d")), **settings}
    return Deployment(name="shop", stream=stream, ledger=f"sqlite:///{tmp_path}/ledger.db", **given)


def taken(made, *, mode="once", clock=lambda: datetime(2026, 6, 1, tzinfo=UTC), waits=0, tell=lambda *_: None):
    """Run in this process; follow mode ends after so many waits."""
    left = [waits]

    def wait(_):
        left[0] -= 1

    with (
        SqlLedger.open(made.ledger, made.name) as ledger,
        leased(ledger, "test", timedelta(seconds=60), tell) as lease,
    ):
        return keep_current(
            made, ledger, lease, mode=mode, stopped=lambda: mode == "follow" and left[0] < 0, wait=wait, clock=clock,
            poll=0.0, tell=tell,
        )  # fmt: skip


def entries_of(made):
    """Every turn that is durable."""
    with SqlLedger.open(made.ledger, made.name) as ledger:
        return list(ledger.entries())


def test_other_settings_are_another_deployment(tmp_path):
    """A deployment that was begun with one model does not go on with another."""
    made = deployment(tmp_path)
    assert taken(made) == 4
    other = deployment(tmp_path, strategy=strategies.Stateful(GaussianNB(var_smoothing=0.1), initial="3d",
                                                              trigger=triggers.every("1d")))  # fmt: skip
    with pytest.raises(
        pn.LedgerError, match=r"begun with other settings: its model, or a library of its changed.*--acc"
    ):
        taken(other)
    assert taken(made) == 0
    put(tmp_path, "1", 100, 150)
    assert taken(replace(other, accept=True)) == 2
    assert taken(other) == 0


def test_no_acceptance_goes_on_with_other_features(tmp_path):
    """A feature that is dropped, or a column with a new role, is told by its name, before anything is read."""
    made = deployment(tmp_path)
    assert taken(made) == 4
    put(tmp_path, "1", 100, 150)
    for role, settings in (("drop", {"drop": ["a"]}), ("key", {"key": "a"}), ("weight", {"weight": "w"})):
        other = replace(made, stream=replace(made.stream, **settings), accept=True)
        with pytest.raises(pn.ConfigError, match="a `name` of their own") as told:
            taken(other)
        assert told.value.field == role
    assert taken(made) == 2


def test_the_clock_closes_a_batch_whose_time_is_over(tmp_path):
    """On a stream that is alive, a day that has ended is taken as it is, and a day without rows is a tick."""
    made = deployment(tmp_path)
    put(tmp_path, "0", 0, 100)  # four days and four hours
    now = [datetime(2026, 1, 5, 9, tzinfo=UTC)]
    assert taken(made, mode="follow", clock=lambda: now[0], waits=2) == 4
    now[0] = datetime(2026, 1, 6, 0, 1, tzinfo=UTC)
    assert taken(made, mode="follow", clock=lambda: now[0], waits=2) == 2
    last = entries_of(made)
    assert [(e.kind, e.rows) for e in last[4:]] == [("batch", 4), ("tick", 0)]
    assert last[5].now == int(np.datetime64("2026-01-06", "us").astype(int))
    put(tmp_path, "1", 100, 130)  # the rest of that day comes late, and is a batch of its own
    assert taken(made, mode="follow", clock=lambda: now[0], waits=2) >= 1
    assert sum(e.rows for e in entries_of(made)) >= 120
    far = deployment(tmp_path / "far")
    assert taken(far, mode="follow", clock=lambda: datetime(2026, 6, 1, tzinfo=UTC), waits=2) == 4, "a recording"


def test_an_operators_word_is_the_next_turn(tmp_path):
    """A champion that somebody appoints serves from the next turn on, and a stateful line goes on from it."""
    made = deployment(tmp_path, 150)
    taken(made)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        before = ledger.alias("champion")
        ledger.set_alias(AliasChange(
            alias="champion", version="1.0", generation=before.generation, reason="it sold more", actor="kim", at=1,
        ))  # fmt: skip
    put(tmp_path, "1", 150, 200)
    told = []
    assert taken(made, tell=lambda event, facts: told.append((event, facts))) == 3
    operator, *after = entries_of(made)[6:]
    first = next(facts for event, facts in told if event == "promoted")  # hooks and metrics hear of it as of any other
    assert (first["turn"], first["version"]) == (6, "1.0")
    assert "kim: it sold more" in first["reason"]
    assert (operator.kind, operator.serving) == ("operator", "1.0")
    assert "kim: it sold more" in operator.decisions[0].reason
    assert after[0].versions[0].version.parent == "1.0"
    assert after[0].versions[0].version.number == "1.3"


@pytest.mark.parametrize("kind", ["stateful", "stateless"])
def test_observing_decides_and_trains_nothing(tmp_path, kind):
    """The champion predicts and is scored, what would be trained is said, and acting again makes up for it."""
    strategy = strategies.Stateless(GaussianNB(), initial="3d", trigger=triggers.every("2d"))
    if kind == "stateful":
        strategy = strategies.Stateful(GaussianNB(), initial="3d", trigger=triggers.every("1d"))
    made = deployment(tmp_path, strategy=strategy)
    watched = replace(made, observe=True)
    with pytest.raises(pn.LedgerError, match="no champion to observe"):
        taken(watched)
    assert taken(made) == 4
    put(tmp_path, "1", 100, 200)
    assert taken(watched) == 4
    seen = entries_of(made)[4:]
    assert all(e.serving == "1.0" and not e.versions and e.predictions for e in seen)
    told = [d.reason for e in seen for d in e.decisions]
    assert any("observed, would" in reason for reason in told)
    assert not any(d.fire for e in seen for d in e.decisions)
    put(tmp_path, "2", 200, 230)
    assert taken(made) == 1
    (saved,) = entries_of(made)[-1].versions
    assert saved.version.trained_rows == {"stateful": 192 - 6 + 1 - (72 - 6 + 1), "stateless": 192 - 6 + 1}[kind]


def test_rows_that_broke_a_rule_fix_no_bounds(tmp_path):
    """Once the file is mended the batch holds the rows of its day, however many bad ones were there before."""
    made = deployment(tmp_path, 96)
    broken = rows(96, 124)
    at = broken["at"].to_numpy().copy()
    at[3] -= np.timedelta64(400, "D")
    pq.write_table(broken.set_column(0, "at", pa.array(at)), tmp_path / "rows" / "1.parquet")
    with pytest.raises(pn.DataError, match=r"1\.parquet"):
        taken(made)
    mended = rows(96, 124)
    pq.write_table(pa.concat_tables([mended.slice(0, 3), mended.slice(4)]), tmp_path / "rows" / "1.parquet")
    taken(made)
    assert [e.rows for e in entries_of(made)] == [24, 24, 24, 24, 23]


def test_an_idle_run_waits(tmp_path):
    """Before the first whole batch too: it looks again after a pause, not at full speed."""
    made = deployment(tmp_path, 10)
    waits = []
    with (
        SqlLedger.open(made.ledger, made.name) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        looks = iter(range(50))
        keep_current(
            made, ledger, lease, mode="follow", stopped=lambda: next(looks, None) is None, wait=waits.append,
            clock=lambda: datetime(2026, 6, 1, tzinfo=UTC), poll=0.5, tell=lambda *_: None,
        )  # fmt: skip
    assert len(waits) >= 40


def test_an_operator_who_is_quicker_does_not_stop_the_close(tmp_path, monkeypatch):
    """A champion that moves while the recording closes is heeded, and then it closes."""
    made = deployment(tmp_path, gate=Gate(mode="before", margin=0.9, least_blocks=2, planned_labels=20))
    commit, moved = SqlLedger.commit, []

    def late(self, lease, entry):
        if entry.kind == "close" and not moved:
            before = self.alias("champion")
            moved.append(before)
            self.set_alias(AliasChange(alias="champion", version="1.0", generation=before.generation, reason="no",
                                       actor="kim", at=1))  # fmt: skip
            if not any(change.alias == "champion" for change in entry.aliases):
                moved.append("nothing to collide with")
        return commit(self, lease, entry)

    monkeypatch.setattr(SqlLedger, "commit", late)
    taken(made, mode="until-end")
    assert moved
    assert entries_of(made)[-1].kind == "close" or entries_of(made)[-2].kind == "close"
    assert taken(made, mode="until-end") <= 1


def test_equal_rows_are_let_go_one_by_one(tmp_path):
    """Segments with the same bytes are as many as they are: retention lets go of each."""
    (tmp_path / "rows").mkdir()
    n = 400
    x = np.repeat(np.arange(n // 2) % 2, 2).astype(float)
    at = np.datetime64("2026-01-01", "us") + np.repeat(np.arange(n // 2), 2) * np.timedelta64(1, "h")
    pq.write_table(pa.table({"at": at, "a": x, "y": np.where(x > 0, "up", "down")}), tmp_path / "rows" / "0.parquet")
    stream = pn.Stream(tmp_path / "rows", time="at", target="y", time_zone="UTC", label_delay="2h", batch=1)
    made = Deployment(
        name="shop", stream=stream, ledger=f"sqlite:///{tmp_path}/ledger.db", retention=timedelta(0),
        strategy=strategies.Stateful(GaussianNB(), initial=40, trigger=triggers.every(rows=10)),
    )  # fmt: skip
    taken(made)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        assert len(ledger.segments()) < 100


def test_a_segment_holds_no_byte_of_the_next(tmp_path):
    """Rows are stored alone, and the same in whatever files they came."""
    digests = []
    for sizes in ([96], [30, 66], [24, 24, 24, 24]):
        place = tmp_path / f"{len(sizes)}-{sizes[0]}"
        (place / "rows").mkdir(parents=True)
        low = 0
        for i, size in enumerate(sizes):
            put(place, str(i), low, low + size)
            low += size
        made = Deployment(
            name="shop", ledger=f"sqlite:///{place}/ledger.db",
            stream=pn.Stream(place / "rows", time="at", target="y", time_zone="UTC", label_delay="6h", batch="1d"),
            strategy=strategies.Stateful(GaussianNB(), initial="1d", trigger=triggers.every("1d")),
        )  # fmt: skip
        taken(made)
        with SqlLedger.open(made.ledger, made.name) as ledger:
            digests.append([segment.digest for segment in ledger.segments()][:3])
    assert digests[0] == digests[1] == digests[2]


def test_a_recording_is_closed(tmp_path):
    """After --until-end every label is joined; more rows are another deployment's."""
    made = deployment(tmp_path)
    assert taken(made, mode="until-end") == 6
    assert entries_of(made)[-1].kind == "close"
    assert taken(made, mode="until-end") == 0
    put(tmp_path, "1", 100, 150)
    with pytest.raises(pn.LedgerError, match="closed"):
        taken(made)


def test_a_gate_decides_and_remembers(tmp_path):
    """With a real gate versions shadow until the bounds tell, also across restarts after every turn."""
    gate = Gate(mode="before", margin=0.5, least_blocks=3, planned_labels=100)
    made = deployment(tmp_path, 480, gate=gate)
    with (
        SqlLedger.open(made.ledger, made.name) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        while Run(made, ledger, lease).step():
            pass
        statuses = ledger.statuses()
    once = deployment(tmp_path / "once", 480, gate=gate)
    taken(once)
    assert [e.verdicts for e in entries_of(made)] == [e.verdicts for e in entries_of(once)]
    outcomes = [v.outcome for e in entries_of(made) for v in e.verdicts]
    assert outcomes.count("promote") > 1
    assert "keep" in outcomes
    assert list(statuses.values()).count("champion") == 1


def test_how_long_a_verdict_may_take_is_said_as_each_trial_begins(tmp_path):
    """Once for each trial, with the margin that was set for it; the next may begin in the turn that ends one."""
    told = []
    gate = Gate(least_blocks=3, planned_labels=100, slices={"high": Slice(where={"a": {"least": 0}}, margin=0.5)},
                largest_latency=timedelta(minutes=1))  # fmt: skip
    prices = Prices(update=1.0, error=0.001)
    made = deployment(tmp_path, 600, gate=replace(gate, margin=None), prices=prices)
    taken(made, mode="until-end", tell=lambda event, facts: told.append((event, facts)))
    trials = {v.evidence["trial"]: v for e in entries_of(made) for v in e.verdicts if v.evidence}
    begun = [facts["reason"] for event, facts in told if event == "trial"]
    assert len(begun) == len(trials) > 1
    for reason, verdict in zip(begun, trials.values(), strict=True):
        assert f"with a margin of {verdict.evidence['margin']:g}" in reason
        assert " after about " in reason
    assert {verdict.evidence["margin_from"] for verdict in trials.values()} == {"cost"}
    with SqlLedger.open(made.ledger, made.name) as ledger:
        history = explain.History.read(ledger)
    shown = explain.explain(history, trials[1].version)["verdicts"][-1]
    assert shown["evidence"]["slices"]["high"]["rows"] > 0
    assert shown["evidence"]["latency"]
    assert "; margin 0.0" in shown["reason"]
    assert shown["reason"].endswith("from cost")


def test_a_regression_needs_no_margin_of_its_own(tmp_path):
    """It is a share of what the champion lost, and the wait is told by it."""
    told = []
    line = strategies.Stateful(SGDRegressor(random_state=0), initial="3d", trigger=triggers.every("1d"))
    gate = Gate(least_blocks=3, planned_labels=100, greatest_wait=timedelta(days=3), on_no_verdict="promote")
    made = deployment(tmp_path, 480, gate=gate, strategy=line)
    roles = {"time": "at", "target": "b", "time_zone": "UTC", "label_delay": "30h", "batch": "1d", "drop": ["y"]}
    made = replace(made, stream=pn.Stream(tmp_path / "rows", **roles))
    taken(made, tell=lambda event, facts: told.append((event, facts)))
    verdicts = [v for e in entries_of(made) for v in e.verdicts if v.evidence]
    first, *rest = [v.evidence for v in verdicts if v.reason.startswith("predicts unseen")]
    assert (first["margin"], first["margin_from"]) == (0.0, "default"), "nothing was scored before the first trial"
    known = [facts for facts in rest if facts["trial"] > 1]
    assert known
    assert all(facts["margin"] == pytest.approx(0.03 * facts["champion_loss"]) for facts in known)
    begun = [facts["reason"] for event, facts in told if event == "trial"]
    assert begun[0] == "until labels tell (with a margin of 0, if it is as good)"
    assert "of the champion's mean error)" in begun[1]


def test_storage_that_fails_for_a_while_is_waited_for(tmp_path, monkeypatch):
    """A database that is restarted: the turn is taken again once it is back, and nothing is learned twice."""
    made = deployment(tmp_path, 200)
    commit, failures = SqlLedger.commit, [2]

    def flaky(self, lease, entry):
        if entry.turn == 5 and failures[0]:
            failures[0] -= 1
            raise StorageError("the server is gone", retryable=True)
        return commit(self, lease, entry)

    monkeypatch.setattr(SqlLedger, "commit", flaky)
    told = []
    assert taken(made, tell=lambda event, facts: told.append(event)) == 8
    assert told.count("retrying") == 2
    straight = deployment(tmp_path / "straight", 200)
    taken(straight)
    assert [e.decisions for e in entries_of(made)] == [e.decisions for e in entries_of(straight)]
    monkeypatch.setattr(SqlLedger, "commit", lambda *_: (_ for _ in ()).throw(StorageError("read-only")))
    put(tmp_path, "1", 200, 300)
    with pytest.raises(StorageError, match="read-only"):
        taken(made)


def test_a_lost_lease_ends_a_turn(tmp_path):
    """Who was overtaken commits nothing."""
    made = deployment(tmp_path)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("one", timedelta(seconds=0.2))
        run = Run(made, ledger, lease)
        assert run.step()
        time.sleep(0.3)
        with SqlLedger.open(made.ledger, made.name) as other:
            other.acquire("two", timedelta(seconds=60))
            with pytest.raises(LeaseLost):
                run.step()
            with pytest.raises(LeaseHeld):
                other.acquire("three", timedelta(seconds=60))
            assert other.head().turn == 0
