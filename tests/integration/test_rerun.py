"""Identical trainings are done once, reruns train nothing, and what was cut short is reused or redone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import perennial as pn
from perennial import strategies, triggers, windows
from perennial.replay.trainings import Trainings

START = np.datetime64("2026-01-01", "us")
ROWS = 480


def columns(n=ROWS, seed=0):
    """Hourly rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    z = x[:, 0] + x[:, 1] + rng.normal(size=n)
    at = START + np.arange(n) * np.timedelta64(1, "h")
    return {"at": at, "a": x[:, 0], "b": x[:, 1], "y": np.where(z > 0, "up", "down")}


def stream(cols=None, **settings):
    """The stream of these columns."""
    table = pa.table(cols or columns())
    return pn.Stream(table, **{"time": "at", "target": "y", "time_zone": "UTC", "batch": "1d", **settings})


def weekly(model=None, every="5d", **settings):
    """Retrained on the last ten days."""
    model = model or LogisticRegression()
    return strategies.Stateless(
        model, **{"initial": "10d", "trigger": triggers.every(every), "window": windows.Sliding("10d"), **settings}
    )


def daily(model=None):
    """Updated every day."""
    return strategies.Stateful(model or SGDClassifier(loss="log_loss"), initial="10d", trigger=triggers.every("1d"))


@pytest.fixture
def made(monkeypatch):
    """How many trainings were really made, by key."""
    keys = []
    honest = Trainings.obtain

    def obtain(self, key, template, make):
        def counted():
            keys.append(key)
            return make()

        return honest(self, key, template, counted)

    monkeypatch.setattr(Trainings, "obtain", obtain)
    return keys


def backtest(strategies_, cols=None, *, jobs=1, cache=None, seed=0, **settings):
    """A backtest in this process."""
    return pn.backtest(stream(cols, **settings), strategies_, metrics=["accuracy"], jobs=jobs, cache=cache, seed=seed)


def same(a, b, name="s"):
    """Whether two results agree on everything but CPU time."""
    assert a[name].predictions.equals(b[name].predictions)
    assert a[name].versions == b[name].versions
    assert a[name].scores == b[name].scores


# ---------------------------------------------------------------------- sharing


def test_cadences_share_their_trainings(made):
    """Every 2 days and every 4 days over one window: the trainings of the rarer are among those of the other."""
    result = backtest({"two": weekly(every="2d"), "four": weekly(every="4d"), "again": weekly(every="2d")})
    assert result["two"].costs["trainings"] == 5
    assert result["four"].costs["trainings"] == 3
    assert len(made) == len(set(made)) == 5  # the frozen line's, too, is among them
    assert result["four"].shared_trainings == 3
    keys = {v.key for v in result["two"].versions}
    assert {v.key for v in result["four"].versions} <= keys


def test_a_shared_training_costs_each_strategy_in_full():
    """Costs are what a strategy costs alone."""
    result = backtest({"two": weekly(every="2d"), "four": weekly(every="4d")})
    assert result["four"].costs["train_cpu_seconds"] > 0
    assert result["four"].costs["rows_trained"] == 3 * 240


def test_different_trainings_are_not_shared(made):
    """Another seed, parameter, window, label or weight is another training."""
    cols = columns()
    base = backtest({"s": weekly()}, cols)
    keys = {v.key for v in base["s"].versions}
    flipped = {**cols, "y": np.where(np.arange(ROWS) % 2, cols["y"], "up")}
    weighed = {**cols, "w": np.linspace(1, 2, ROWS)}
    others = [
        backtest({"s": weekly()}, cols, seed=1),
        backtest({"s": weekly(LogisticRegression(C=2.0))}, cols),
        backtest({"s": weekly(window=windows.Sliding("9d"))}, cols),
        backtest({"s": weekly()}, flipped),
        backtest({"s": weekly()}, weighed, weight="w"),
        backtest({"s": weekly(window=windows.Decayed("5d"))}, cols),
    ]
    for other in others:
        assert not keys & {v.key for v in other["s"].versions}
    names = backtest({"s": weekly()}, {"at": cols["at"], "b": cols["a"], "a": cols["b"], "y": cols["y"]})
    assert not keys & {v.key for v in names["s"].versions}


def test_updates_are_shared_by_parent_and_batch(made):
    """Two stateful lines with the same start and the same batches are one line."""
    result = backtest({"one": daily(), "two": daily()})
    assert len(made) == len(set(made)) == 10
    assert result["one"].predictions.equals(result["two"].predictions)


# ---------------------------------------------------------------------- cache


@pytest.mark.parametrize("make", [weekly, daily, lambda: strategies.Hybrid(
    SGDClassifier(loss="log_loss"), initial="10d", trigger=triggers.every("1d"), reset=triggers.every("4d")
)], ids=["stateless", "stateful", "hybrid"])  # fmt: skip
def test_a_rerun_trains_nothing_and_gives_the_same(made, tmp_path, make):
    """Whole runs are found again; and without them, all their trainings."""
    first = backtest({"s": make()}, cache=tmp_path)
    assert made
    made.clear()
    same(first, backtest({"s": make()}, cache=tmp_path))
    assert made == []
    import shutil

    shutil.rmtree(tmp_path / "runs")
    again = backtest({"s": make()}, cache=tmp_path)
    assert made == []
    assert again["s"].shared_trainings == again["s"].costs["trainings"]
    same(first, again)
    same(first, backtest({"s": make()}))
    assert made


def test_what_changes_is_run_anew(made, tmp_path):
    """Another seed, batch, latency, zone or class of rows is another run."""
    first = backtest({"s": weekly()}, cache=tmp_path)
    for change in ({"batch": "12h"}, {"label_delay": "5h"}, {"time_zone": "Asia/Tokyo"}, {"drop": ["a"]}):
        fresh = backtest({"s": weekly()}, **change)
        same(fresh, backtest({"s": weekly()}, cache=tmp_path, **change))
    made.clear()
    same(first, backtest({"other name": weekly(), "s": weekly()}, cache=tmp_path))
    assert made == []


def test_the_same_instants_in_another_zone_have_other_days(tmp_path):
    """The zone decides where days begin, so it is part of what a run is."""
    cols = columns()
    cols["at"] = pa.array(cols["at"]).cast(pa.timestamp("us", "UTC"))
    told = {}
    for zone in ("UTC", "Asia/Tokyo"):
        told[zone] = backtest({"s": daily()}, cols, cache=tmp_path, time_zone=zone)
        same(told[zone], backtest({"s": daily()}, cols, time_zone=zone))
    assert not told["UTC"]["s"].predictions.equals(told["Asia/Tokyo"]["s"].predictions)


@pytest.mark.parametrize("how", ["cut", "flipped", "emptied", "deleted"])
def test_a_damaged_cache_is_repaired(tmp_path, how, made):
    """Whatever file is cut short, changed or gone: it is done again, and the result is the same."""
    first = backtest({"s": weekly()}, cache=tmp_path)
    table = pa.Table.from_batches(first["s"].predictions.to_batches())
    table = pa.table({name: pa.array(table[name].to_pylist()) for name in table.column_names})
    scores = dict(first["s"].scores)
    damaged = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert len(damaged) > 5
    for path in damaged:
        data = path.read_bytes()
        if how == "deleted":
            path.unlink()
        else:
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
            path.write_bytes({"cut": data[: len(data) // 2], "flipped": flipped, "emptied": b""}[how])
    made.clear()
    again = backtest({"s": weekly()}, cache=tmp_path)
    assert len(made) >= 2
    got = pa.table({name: pa.array(again["s"].predictions[name].to_pylist()) for name in table.column_names})
    assert got.equals(table)
    assert again["s"].scores == scores


def test_an_estimator_that_cannot_be_hashed_is_not_cached_and_says_so(tmp_path, made):
    """A lambda inside: trained every time it is asked for, predictions still readable, and a warning."""

    def model():
        return make_pipeline(FunctionTransformer(lambda x: x * 2), LogisticRegression())

    results = [backtest({"s": weekly(model())}, cache=tmp_path) for _ in range(2)]
    assert made.count(None) == 2 * (2 + 1)
    assert not list(tmp_path.glob("trainings/??/*"))
    for result in results:
        assert {v.key for v in result["s"].versions} == {None}
        assert any("neither shared nor kept in the cache" in w and "lambda" in w for w in result.to_dict()["warnings"])
        assert result["s"].predictions.num_rows == 240
    same(*results)


# ---------------------------------------------------------------------- what must not matter


def test_processes_do_not_matter(tmp_path):
    """In this process or in two others, with a cache or without: the same results."""
    both = {"a": weekly(), "b": daily(), "c": weekly(GaussianNB(), every="2d")}
    here = backtest(both)
    apart = backtest(both, jobs=2, cache=tmp_path)
    for name in both:
        same(here, apart, name)
    assert here.to_dict()["data"] == apart.to_dict()["data"]


def test_company_and_order_do_not_matter():
    """A strategy gives the same, alone or among others, first or last."""
    alone = backtest({"s": weekly()})
    for company in ({"s": weekly(), "t": daily()}, {"t": weekly(every="2d"), "s": weekly()}):
        same(alone, backtest(company))


def test_the_source_does_not_matter(tmp_path):
    """Arrow, Parquet, CSV, pandas and Polars hold the same rows, and give the same digest, keys and predictions."""
    import polars as pl
    from pyarrow import csv, parquet

    cols = columns()
    cols["n"] = np.arange(ROWS) % 7
    table = pa.table(cols)
    parquet.write_table(table, tmp_path / "data.parquet", row_group_size=100)
    csv.write_csv(table, tmp_path / "data.csv")
    sources = [
        table, table.to_pandas(), pl.from_arrow(table), tmp_path / "data.parquet", tmp_path / "data.csv",
        pa.Table.from_batches(table.to_batches(77)),
    ]  # fmt: skip
    told = []
    for source in sources:
        made = pn.Stream(source, time="at", target="y", time_zone="UTC", batch="1d")
        told.append(pn.backtest(made, {"s": weekly()}, metrics=["accuracy"], jobs=1))
    assert len({result.to_dict()["data"]["digest"] for result in told}) == 1
    for other in told[1:]:
        same(told[0], other)


# ---------------------------------------------------------------------- Ctrl-C

CHILD = """
import sys, time
import numpy as np, pyarrow as pa
from sklearn.naive_bayes import GaussianNB
import perennial as pn
from perennial import strategies, triggers
sys.path.insert(0, {here!r})
from slow_model import Slow

if __name__ == "__main__":
    n = 480
    x = np.random.default_rng(0).normal(size=n)
    at = np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    table = pa.table({{"at": at, "x": x, "y": np.where(x > 0, "up", "down")}})
    stream = pn.Stream(table, time="at", target="y", time_zone="UTC", batch="1d")
    every = triggers.every("1d")
    pn.backtest(stream, {{
        "quick": strategies.Stateless(GaussianNB(), initial="10d", trigger=every),
        "slow": strategies.Stateless(Slow(), initial="10d", trigger=every),
    }}, metrics=["accuracy"], jobs=2, cache={cache!r})
    print("finished")
"""

SLOW = """
import os, pathlib, time
from sklearn.naive_bayes import GaussianNB

class Slow(GaussianNB):
    def fit(self, X, y):
        with pathlib.Path({log!r}).open("a") as log:
            log.write(f"{{os.getpid()}} {{len(X)}}\\n")
        time.sleep(0 if pathlib.Path({log!r}).with_suffix(".go").exists() else 0.4)
        return super().fit(X, y)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_leaves_what_was_done(tmp_path):
    """After Ctrl-C no process is left, and the next call does only what was not done."""
    log, cache = tmp_path / "fits", tmp_path / "cache"
    (tmp_path / "slow_model.py").write_text(SLOW.format(log=str(log)))
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(here=str(tmp_path), cache=str(cache)))
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = subprocess.Popen(
        [sys.executable, str(script)], env=env, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) >= 4 and list(cache.glob("runs/*/summary.pickle"))):
        assert time.monotonic() < deadline, child.stderr.read().decode() if child.poll() is not None else "too slow"
        time.sleep(0.05)
    workers = {int(line.split()[0]) for line in log.read_text().splitlines()}
    os.kill(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert child.returncode != 0
    stop = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < stop:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()], "a worker was left behind"
    assert list(cache.glob("runs/*.part")) == []
    assert list(cache.glob("runs/progress-*")) == []
    done = len(log.read_text().splitlines())
    log.with_suffix(".go").touch()
    out = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, timeout=60, check=False)
    assert b"finished" in out.stdout, out.stderr.decode()
    again = len(log.read_text().splitlines()) - done
    assert again <= 10 - (done - 1), "finished trainings were done again"


def test_a_cache_is_where_it_was_named_from(tmp_path, monkeypatch):
    """Processes outlive a backtest: a relative cache is found by them, and by its result, though the folder changed."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        result = backtest({"weekly": weekly(), "daily": daily()}, jobs=2, cache=f"cache-{name}")
        monkeypatch.chdir(tmp_path)
        assert result["daily"].predictions.num_rows
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("cache")] == []
        assert (tmp_path / name / f"cache-{name}" / "runs").is_dir()
