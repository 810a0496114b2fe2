"""A deployment on an ingest log: the same turns as on a file, its rows trimmed once they are durable, and erased."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import json
import struct
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from sklearn.linear_model import SGDClassifier

import perennial as pn
from perennial import cli, strategies, triggers
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run
from perennial.production.service import keep_current, leased
from perennial.stream.feed import OffsetGone, Position, feed_of
from perennial.stream.ingest import IngestFeed, IngestLog, _Database
from tests import postgres
from tests.crash import deployments
from tests.crash.test_kill import served  # noqa: F401 - a fixture

YAML = """\
name: shop
stream: {source: "SOURCE", time: at, time_zone: UTC, key: who, label: {column: y, delay: 6h}, batch: 1d, lateness: 2h}
model: sklearn.naive_bayes.GaussianNB
initial: 3d
strategies: {daily: {stateful: {every: 1d}}}
deploy: daily
metrics: [log_loss]
"""
FILE, LOG = "calls.parquet", "sqlite:///own/ingest.db?log=calls"


def rows(n=200):
    """Rows an hour apart of some customers, a few of them out of order."""
    rng = np.random.default_rng(0)
    at = np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    at[50:60:3] -= np.timedelta64(90, "m")
    x = rng.normal(size=(2, n))
    who = [f"customer-{i}" for i in rng.integers(0, 5, n)]
    return pa.table({"at": at, "who": who, "a": x[0], "b": x[1], "y": np.where(x[0] > 0, "up", "down")})


def append(url, table, most=7, seed=0):
    """Append rows in appends of some size."""
    rng, low = np.random.default_rng(seed), 0
    with IngestLog.open(url, table.schema) as log:
        while low < len(table):
            n = int(rng.integers(1, most))
            log.append(table.slice(low, n))
            low += n


def left(url):
    """Rows that a log holds."""
    return sum(run.rows.num_rows for run in feed_of(url).read(Position(), {"who": pa.string()}))


# ---------------------------------------------------------------------- the same as a file


def program(folder, *arguments):
    """Run the program beside a configuration, in this process: to start one costs more than what it does here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def turns(folder, *how):
    """The turns that `perennial run` takes: instants, rows, losses and versions."""
    done = program(folder, "run", "-c", "config/perennial.yaml", *how)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    told = [(e["at"], e["rows"], e["loss"], e["serving"]) for e in events if e["event"] == "turn"]
    return told, [e["digest"] for e in events if e["event"] == "trained"]


def test_perennial_runs_on_a_log(tmp_path):
    """`run` takes the turns and trains the models that it does on a file; `backtest` sees the rest; all is sound."""
    told, every = {}, rows()
    for kind, source in {"log": LOG, "file": FILE}.items():
        (shop := tmp_path / kind / "config").mkdir(parents=True)
        (shop / "perennial.yaml").write_text(YAML.replace("SOURCE", source))
        url = f"sqlite:///{shop}/own/ingest.db?log=calls"
        out = []
        for low, high in ((0, 100), (100, 200)):
            pq.write_table(every.slice(0, high), shop / "calls.parquet")
            append(url, every.slice(low, high - low))
            out.append(turns(shop.parent, "--once"))
            assert kind == "file" or left(url) < 24 + 7  # the day that is not over, and the append that it begins in
        out.append(turns(shop.parent, "--until-end"))
        told[kind] = out
        done = program(shop.parent, "doctor", "-c", "config/perennial.yaml")
        assert (done.returncode, done.stdout) == (0, "shop: sound\n"), done.stdout
        assert left(url) == (0 if kind == "log" else 200)
    assert told["log"] == told["file"]
    assert [len(taken) for taken, _ in told["log"]] == [4, 4, 2]
    shop = tmp_path / "log" / "config"
    append(f"sqlite:///{shop}/own/ingest.db?log=calls", every)
    done = program(shop.parent, "backtest", "-c", "config/perennial.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["rows"] == 200


def test_perennial_begins_on_a_log(tmp_path):
    """`init` looks at a log, and names it as the configuration's folder sees it."""
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", rows().sort_by("at"))
    done = program(tmp_path, "init", LOG, "--yes", "-o", "config/perennial.yaml")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "config" / "perennial.yaml").read_text()
    assert "\nname: calls\n" in text
    assert "source: sqlite:///../own/ingest.db?log=calls\n" in text
    (tmp_path / "elsewhere").mkdir()
    done = program(tmp_path / "elsewhere", "backtest", "-c", "../config/perennial.yaml")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [("lightgbm", "sqlite"), ("sgd", "sqlite"), ("linear", "sqlite"), ("sgd", "postgres")],
)
def test_a_run_on_a_log_equals_one_on_files(tmp_path, served, strategy, kind):  # noqa: F811 - the fixture
    """Every version, prediction, label and stored row is the same, bit for bit; the rows come while it runs."""
    told = {}
    for source in ("files", "log"):
        place = tmp_path / source
        deployments.write_stream(place / "rows")
        made = deployments.deployment(strategy, f"sqlite:///{place}/ledger.db", place)
        if source == "log":
            every = pa.concat_tables([pq.read_table(file) for file in sorted((place / "rows").iterdir())])
            url = f"sqlite:///{place}/ingest.db?log=rows"
            if kind == "postgres":
                url = f"{served}&log=rows"
            IngestLog.open(url, every.schema).close()
            made = dataclasses.replace(made, stream=dataclasses.replace(made.stream, source=url))
            for low, high in pairwise((0, 60, 61, 200, len(every))):
                append(url, every.slice(low, high - low), most=40, seed=high)
                _run(made)
        deployments.run(made)
        found = deployments.remembered(made)
        found["entries"] = [dataclasses.replace(e, position="", checkpoint="") for e in found["entries"]]
        told[source] = found
    for name, found in told["files"].items():
        assert told["log"][name] == found, name


def _run(made):
    """Take the turns that are whole."""
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs, inline_bytes=1000) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        keep_current(
            made, ledger, lease, mode="once", stopped=lambda: False, wait=lambda _: None,
            clock=lambda: datetime.now(UTC), tell=lambda *_: None,
        )  # fmt: skip


# ---------------------------------------------------------------------- trimmed and erased


def deployment(tmp_path, **about):
    """A deployment on a log in a folder of its own."""
    url = f"sqlite:///{tmp_path}/own/ingest.db?log=calls"
    settings = {"time": "at", "target": "y", "key": "who", "time_zone": "UTC", "label_delay": "6h", "lateness": "2h"}
    made = Deployment(
        name="shop", stream=pn.Stream(url, **{**settings, "batch": "1d", **about}), ledger=f"sqlite:///{tmp_path}/l.db",
        strategy=strategies.Stateful(SGDClassifier(loss="log_loss"), initial="3d",
                                     trigger=triggers.every("1d")),
    )  # fmt: skip
    return made, url


def test_rows_go_when_their_turn_is_durable_and_not_before(tmp_path, monkeypatch):
    """A turn that is not committed leaves every row in the log; its commit lets go of them."""
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", rows(), most=2)
    made, url = deployment(tmp_path)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        run = Run(made, ledger, ledger.acquire("test", timedelta(seconds=60)))
        held = []
        commit = SqlLedger.commit
        monkeypatch.setattr(SqlLedger, "commit", lambda *given: held.append(left(url)) or commit(*given))
        while run.step():
            held.append(left(url))
        assert held[:6] == [200, 176, 176, 152, 152, 128]
        assert held[-1] == 8
        assert made.stream.describe()["source"] == url


def test_a_second_deployment_on_the_same_log_is_told(tmp_path):
    """One reader trims what the other still wants: nothing is passed over in silence."""
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", rows(), most=2)
    made, url = deployment(tmp_path)
    other = dataclasses.replace(made, name="other")
    _run_some(other, 2)
    _run_some(made, 1)
    append(url, rows(224).slice(200))
    _run_some(made, 99)
    with pytest.raises(OffsetGone, match="another deployment reads the same log"):
        _run_some(other, 1)


def _run_some(made, most):
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        while most and run.step():
            most -= 1
        ledger.release(lease)


def test_a_subject_is_erased_from_rows_that_wait(tmp_path):
    """Rows of the log that no batch took go with those that the ledger keeps, to the last byte; the run goes on."""
    every = rows()
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", every)
    made, _ = deployment(tmp_path)
    _run_some(made, 3)
    theirs = np.array(every.column("who").to_pylist()) == "customer-3"
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        assert run._intake.look() is not None  # rows of theirs were read and wait
        erased = run.erase("customer-3")
        assert erased.rows == theirs[:72].sum()
        assert erased.waiting >= theirs[72:].sum()  # and those of an append that was taken in part
        while run.step():
            pass
        assert sum(entry.rows for entry in ledger.entries()) == 72 + (~theirs[72:192]).sum()
        ledger.release(lease)
    held = b"".join(file.read_bytes() for file in Path(tmp_path, "own").iterdir())
    assert b"customer-3" not in held
    assert b"customer-2" in held


def test_a_subject_whose_rows_only_wait_is_erased(tmp_path):
    """Before there is any turn, and though the ledger knows nothing of them."""
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", rows())
    made, url = deployment(tmp_path)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        run = Run(made, ledger, ledger.acquire("test", timedelta(seconds=60)))
        before = left(url)
        assert run.erase("customer-3").waiting == before - left(url) > 0
        with pytest.raises(pn.LedgerError, match="no row of 'customer-3' is kept"):
            run.erase("customer-3")


def test_bounds_that_were_fixed_are_kept_when_a_subject_is_erased(tmp_path, monkeypatch):
    """A turn whose rows were counted, and that died, is taken before any of them go."""
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", rows(), most=2)
    made, _ = deployment(tmp_path)
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        with monkeypatch.context() as patch:
            patch.setattr(Run, "_batch", lambda *_: (_ for _ in ()).throw(RuntimeError))
            with pytest.raises(RuntimeError):
                run.step()
        assert ledger.head().intent
        erased = Run(made, ledger, lease).erase("customer-3")
        assert [entry.rows for entry in ledger.entries() if entry.kind == "batch"] == [24]
        assert erased.rows > 0
        assert erased.waiting > 0
        assert Run(made, ledger, lease).step()


def look(past, now):
    """How often this customer came lately."""
    out = now[["a", "b"]].copy()
    out["before"] = now["who"].map(past["who"].value_counts()).fillna(0.0).astype(float)
    return out


def test_rows_whose_features_are_built_are_taken_first(tmp_path):
    """A batch of rows that ends within an instant holds features of rows that wait: nothing is erased under them."""
    table = rows()
    same = table.set_column(0, "at", pa.array(np.repeat(table.column("at").to_numpy()[::10], 10)))
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", same, most=2)
    made, url = deployment(tmp_path, batch=25, features=look, lookback="3d")
    with SqlLedger.open(made.ledger, made.name) as ledger:
        run = Run(made, ledger, ledger.acquire("test", timedelta(seconds=60)))
        assert run.step()
        before = left(url)
        with pytest.raises(pn.DataError, match=r"5 rows of the last batch's instant wait .* erase once a batch has"):
            run.erase("customer-3")
        assert left(url) == before
        assert run.step()
        assert run.erase("customer-3").waiting > 0
        while run.step():
            pass


def test_a_start_lets_go_of_what_a_crash_left(tmp_path, monkeypatch):
    """Killed between its commit and the trimming, or between the trimming and the emptying of SQLite's own log."""
    append(f"sqlite:///{tmp_path}/own/ingest.db?log=calls", rows(), most=2)
    made, url = deployment(tmp_path)
    mark = rows().column("a")[30].as_py()

    def found():
        files = [file for file in (tmp_path / "own").iterdir() if struct.pack("<d", mark) in file.read_bytes()]
        return sorted(file.name for file in files)

    with (
        IngestLog.open(url),  # somebody holds it open: SQLite's log is not emptied by itself
        SqlLedger.open(made.ledger, made.name) as ledger,
    ):
        lease = ledger.acquire("test", timedelta(seconds=60))
        with monkeypatch.context() as killed:
            killed.setattr(IngestFeed, "trim", lambda *_, **__: None)
            run = Run(made, ledger, lease)
            run.step()
            run.step()
            assert left(url) == 200
        with monkeypatch.context() as killed:
            killed.setattr(_Database, "scrub", lambda _: False)
            Run(made, ledger, lease)
            assert left(url) == 152
            assert found()
        Run(made, ledger, lease)
        assert not found()


# ---------------------------------------------------------------------- connections


def test_a_feed_keeps_its_connection_and_makes_another_where_it_broke():
    """Looks share one connection to a server; it is made anew if it is cut, and closed with the feed."""
    made = []

    def remember(connection, _):
        made.append(connection)

    with postgres.schema() as server:
        url = f"{server}&log=calls"
        append(url, rows(10))
        feed, seen = IngestFeed(url), {}
        sa.event.listen(sa.pool.Pool, "connect", remember)
        try:
            assert feed.is_new(seen)
            assert sum(run.rows.num_rows for run in feed.read(Position(), {"who": pa.string()})) == 10
            assert not feed.is_new(seen)
            assert len(made) == 1
            with postgres.server() as engine, engine.connect() as other:
                other.execute(sa.text(f"SELECT pg_terminate_backend({made[0].info.backend_pid})"))
            assert not feed.is_new(seen)
        finally:
            sa.event.remove(sa.pool.Pool, "connect", remember)
        assert len(made) == 3  # the second is the one that cut the first
        del feed
        gc.collect()
        assert made[2].closed
