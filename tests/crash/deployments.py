"""Small deployments that a crash test kills, and what must be equal after all of it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import perennial as pn
from perennial import learners, strategies, triggers, windows
from perennial.core import failpoints
from perennial.core.protocols import Trust
from perennial.core.records import Prediction
from perennial.engine import Engine
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run
from perennial.production.service import keep_current, leased
from perennial.production.trainer import SavingTrainer
from perennial.stream.feed import Position
from perennial.stream.inbox import INSTANT, Inbox, InboxLogs, pack
from perennial.stream.label_log import id_digest
from tests.crash.planted import numbers

EVERY = triggers.every("1d")


def lightgbm() -> Any:
    """A stateless deployment."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=5, num_leaves=4, min_child_samples=5, verbose=-1, n_jobs=1)
    return strategies.Stateless(model, initial="3d", trigger=EVERY, window=windows.Sliding("4d"))


def xgboost() -> Any:
    """A hybrid of boosters that sample rows and columns: their random state must go on."""
    from xgboost import XGBClassifier

    model = XGBClassifier(n_estimators=5, max_depth=2, subsample=0.6, colsample_bytree=0.6, n_jobs=1)
    return strategies.Hybrid(
        learners.Decayed(model, trees=3), initial="3d", trigger=EVERY, reset=triggers.every("4d"),
        window=windows.Mix(initial=0.3, recent=0.7, rows=60),
    )  # fmt: skip


def sgd() -> Any:
    """A stateful deployment of scikit-learn."""
    from sklearn.linear_model import SGDClassifier

    return strategies.Stateful(SGDClassifier(loss="log_loss", random_state=3), initial="3d", trigger=EVERY)


def river() -> Any:
    """A stateful deployment that starts untrained."""
    from river import linear_model, preprocessing

    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    return strategies.Stateful(model, initial=None, trigger=triggers.every(rows=30))


def linear() -> Any:
    """A hybrid of the exact logistic model with forgetting."""
    return strategies.Hybrid(
        learners.plain.Logistic(forgetting=0.999), initial="3d", trigger=EVERY, reset=triggers.every("5d"),
        window=windows.Decayed("3d"),
    )  # fmt: skip


def logged() -> Any:
    """A stateful deployment whose labels come in a log of their own."""
    return sgd()


def served() -> Any:
    """A stateful deployment whose rows were answered by servers, and whose labels came back to them."""
    return sgd()


STRATEGIES = {make.__name__: make for make in (lightgbm, xgboost, sgd, river, linear, logged, served)}


def classes() -> Any:
    """A classifier that hashes prose and is updated, of a deployment that keeps no row."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    model = make_pipeline(
        FunctionTransformer(numbers), StandardScaler(), SGDClassifier(loss="log_loss", random_state=3)
    )
    return strategies.Stateful(model, initial="3d", trigger=EVERY)


def values() -> Any:
    """A regression that is updated now and then, its labels in a log, of a deployment that keeps no row."""
    from sklearn.linear_model import SGDRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), SGDRegressor(random_state=3))
    return strategies.Stateful(model, initial="3d", trigger=triggers.every("2d"))


FORGETFUL = {make.__name__: make for make in (classes, values)}


def write_stream(folder: Path, *, rows: int = 300, files: int = 3) -> None:
    """Two weeks of rows an hour apart, with words, labels some hours late, and a few rows out of order."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 2))
    turn = np.linspace(0, 2, rows)
    at = np.datetime64("2026-01-01", "us") + np.arange(rows) * np.timedelta64(1, "h")
    at[100:104] -= np.timedelta64(3, "h")
    table = pa.table({
        "at": at, "a": x[:, 0], "b": x[:, 1],
        "word": np.array(["red", "blue", "green"])[rng.integers(0, 3, rows)], "id": np.arange(rows),
        "y": np.cos(turn) * x[:, 0] + np.sin(turn) * x[:, 1] + rng.normal(size=rows) / 2 > 0,
    })  # fmt: skip
    folder.mkdir(parents=True)
    cuts = np.linspace(0, rows, files + 1).astype(int)
    for i, (low, high) in enumerate(pairwise(cuts)):
        pq.write_table(table.slice(low, high - low), folder / f"{i}.parquet")
    write_log(folder.parent / "log", table)


def write_log(folder: Path, rows: pa.Table) -> None:
    """What the label of each row turns out to be, some hours later, and for some rows a correction after that."""
    rng = np.random.default_rng(6)
    at, y = rows["at"].to_numpy(), rows["y"].to_numpy()
    known = at + rng.integers(5, 30, len(at)) * np.timedelta64(1, "h")
    wrong = np.flatnonzero(rng.random(len(at)) < 0.1)
    lines = pa.table({
        "id": np.concatenate([np.arange(len(at)), wrong]),
        "said": np.concatenate([np.where(np.isin(np.arange(len(at)), wrong), ~y, y), y[wrong]]),
        "known_at": np.concatenate([known, known[wrong] + np.timedelta64(20, "h")]),
    }).sort_by("known_at")  # fmt: skip
    folder.mkdir()
    for i, low in enumerate(range(0, lines.num_rows, 90)):
        pq.write_table(lines.slice(low, 90), folder / f"{i}.parquet")


def write_inbox(place: Path) -> Inbox:
    """The stream's rows as servers wrote them, half of them answered, and the labels; the same bytes of every log."""
    inbox = Inbox(f"sqlite:///{place / 'inbox.db'}", "served", timedelta(days=30))
    if (place / "inbox.db").exists():
        return inbox
    for left in place.glob("half.db*"):  # of a process that was killed
        left.unlink()
    half = dataclasses.replace(inbox, database=f"sqlite:///{place / 'half.db'}")
    table = pq.read_table(place / "rows").select(["at", "a", "b", "id"])
    said = pack(Prediction(codes=np.ones(150, dtype=np.int32), proba=np.tile([0.25, 0.75], (150, 1))))
    answers = {"perennial_version": ["1.0"] * 150, "perennial_said": said.to_pylist()}
    columns = {name: table[name] for name in ("a", "b")} | {
        "id": table["id"].cast(pa.string()), "at": table["at"].cast(INSTANT),
        **{name: pa.array([*([None] * 150), *told]) for name, told in answers.items()},
        "perennial_shadow": pa.nulls(300, pa.string()), "perennial_shadow_said": pa.nulls(300, pa.binary()),
    }  # fmt: skip
    lines = pq.read_table(place / "log")
    labels = pa.table({
        "id": lines["id"].cast(pa.string()), "said": lines["said"], "known_at": lines["known_at"].cast(INSTANT),
        "observed_at": pa.nulls(lines.num_rows, INSTANT),
    })  # fmt: skip
    types = {"a": pa.float64(), "b": pa.float64(), "said": pa.bool_()}
    with InboxLogs.open(half, served_stream(half), types) as logs:
        for low in range(0, 300, 25):
            logs.rows.append(pa.table(columns).slice(low, 25))
        for low in range(0, lines.num_rows, 40):
            logs.labels.append(labels.slice(low, 40))
    with sqlite3.connect(place / "half.db") as base:  # a log's identity is by chance, and in every position
        for name, identity in base.execute("SELECT name, identity FROM perennial_logs").fetchall():
            base.execute("UPDATE perennial_logs SET identity = name WHERE name = ?", (name,))
            base.execute("UPDATE perennial_entries SET log = ? WHERE log = ?", (name, identity))
    base.close()
    (place / "half.db").rename(place / "inbox.db")
    return inbox


def served_stream(inbox: Inbox) -> Any:
    """The stream of an inbox."""
    return pn.Stream(
        inbox.url("rows"), labels=inbox.url("labels"), time="at", lateness="1min", batch="1d", id="id", target="said",
        label_wait="3d", served=True, name="served",
    )  # fmt: skip


def deployment(strategy: str, url: str, place: Path) -> Deployment:
    """The deployment of a strategy by name; its files are in ``place``."""
    if strategy == "served":
        inbox = write_inbox(place)
        return Deployment(
            name=place.name, stream=served_stream(inbox), strategy=sgd(), ledger=url, blobs=place / "blobs",
            retention=timedelta(days=6), inbox=inbox,
        )  # fmt: skip
    if strategy in FORGETFUL:
        return forgetful(strategy, url, place)
    words, log = strategy in ("lightgbm", "linear"), place / "ingest.db"
    source = f"sqlite:///{log}?log=rows" if log.exists() else place / "rows"
    labels: dict[str, Any] = {"target": "y", "label_delay": "7h", "drop": () if words else ("word",)}
    if strategy == "logged":
        labels = {"target": "said", "labels": place / "log", "label_wait": "3d", "drop": ("word", "y")}
    stream = pn.Stream(source, time="at", time_zone="UTC", lateness="4h", batch="1d", id="id", **labels)
    return Deployment(
        name=place.name, stream=stream, strategy=STRATEGIES[strategy](), ledger=url, blobs=place / "blobs",
        retention=timedelta(days=6), trust=Trust(pickle=strategy == "river"),
    )  # fmt: skip


def forgetful(strategy: str, url: str, place: Path, retention: Any = "none") -> Deployment:
    """A deployment that keeps no row, or the same keeping them; its files are in ``place``."""
    facts: dict[str, Any] = {"time": "at", "time_zone": "UTC", "batch": "1d", "id": "id", "key": "who"}
    if strategy == "classes":
        facts |= {"target": "class", "label_delay": "7h", "text": ("note",), "drop": ("y", "n", "w")}
    else:  # labels come in a log
        facts |= {"target": "said", "labels": place / "rows" / "said", "label_wait": "2d", "weight": "w"}
        facts["drop"] = ("y", "class", "note", "word")
    stream = pn.Stream(place / "rows", word_rows=10 if retention else 1, **facts)
    return Deployment(
        name=place.name, stream=stream, strategy=FORGETFUL[strategy](), ledger=url, blobs=place / "blobs",
        retention=retention, trust=Trust(types=("tests.crash.planted.numbers",)),
    )  # fmt: skip


def run(made: Deployment, *, turns: int | None = None, inline: int = 1000) -> None:
    """Run to the end of the recording, or so many turns."""
    left = iter(range(turns)) if turns is not None else repeat(0)
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs, inline_bytes=inline, forgets=made.forgets) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        keep_current(
            made, ledger, lease, mode="until-end", stopped=lambda: next(left, None) is None, wait=lambda _: None,
            clock=lambda: datetime.now(UTC), tell=lambda *_: None,
        )  # fmt: skip


def remembered(made: Deployment) -> dict[str, Any]:
    """Everything that must not depend on crashes: versions, turns, what was predicted, digests of every state."""
    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs, create=False) as ledger:
        entries = [dataclasses.replace(entry, cpu_seconds=0.0, versions=()) for entry in ledger.entries()]
        for saved in ledger.versions():  # bytes of pickles differ between equal models, their states do not
            assert made.load(ledger.get(saved.blob)).digest() == saved.state
        versions = [dataclasses.replace(saved, cpu_seconds=0.0, blob="", size=0) for saved in ledger.versions()]
        held = {entry.turn: ledger.get(entry.predictions) for entry in entries if entry.predictions}
        wrong = [finding for finding in ledger.check() if not finding.safe]
        return {
            "entries": entries, "versions": versions, "predictions": held, "wrong": wrong,
            "segments": ledger.segments(), "aliases": ledger.alias_history(),
            "waiting": ledger.waiting([id_digest(row) for row in range(300)]),
        }  # fmt: skip


def serve() -> None:
    """Do runs as they are asked for on stdin, each in a process of its own, forked before any library did any work.

    A fork has everything imported: a run that is killed costs no more than what it did. A failpoint ``clock:0.5`` kills
    after half a second, wherever the run is. The answer is the exit status.
    """
    own = [f"perennial.learners.{name}" for name in ("lightgbm", "xgboost", "river", "sklearn", "trust", "memorising")]
    others = ["river.linear_model", "river.preprocessing", "sklearn.pipeline", "skops.io", "pyarrow.dataset"]
    for module in (*own, *others, "alembic.command", "alembic.migration", "psycopg"):
        import_module(module)
    for line in sys.stdin:
        strategy, url, place, failpoint, turns, mutant = line.rstrip("\n").split("\t")
        clock = float(failpoint.removeprefix("clock:")) if failpoint.startswith("clock:") else None
        if not (pid := os.fork()):
            failpoints.arm("" if clock is not None else failpoint)
            if mutant:
                MUTANTS[mutant](Path(place))
            run(deployment(strategy, url, Path(place)), turns=int(turns) if turns else None)
            os._exit(0)
        if clock is not None:
            time.sleep(clock)
            os.kill(pid, signal.SIGKILL)  # one that has ended waits to be asked for
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def offset_apart(place: Path) -> None:
    """Let the source position be durable before the turn that read up to it, and be believed after a crash."""
    commit, restore, file = Run._commit, Run._restore, place / "position.json"

    def apart(self: Run, *turn: Any) -> None:
        file.write_text(json.dumps(self._intake.position.to_plain()))
        commit(self, *turn)

    def believing(self: Run, state: Any) -> None:
        restore(self, state)
        self._intake.position = Position.from_plain(json.loads(file.read_text()))

    Run._commit, Run._restore = apart, believing  # type: ignore[method-assign]


def random_state_lost(place: Path) -> None:
    """Let seeds come from a counter that lives as long as its process."""
    key, counter = Engine._key, iter(range(10**6))

    def counting(self: Engine, *what: Any) -> tuple[str | None, int]:
        return key(self, *what)[0], next(counter)

    Engine._key = counting  # type: ignore[method-assign]


def model_not_with_the_turn(place: Path) -> None:
    """Let a stateful line go on from the newest model that was saved, committed or not."""
    obtain, load, file = SavingTrainer.obtain, Run.model, place / "newest.model"

    def saving(self: SavingTrainer, key: Any, template: Any, make: Any) -> Any:
        trained = obtain(self, key, template, make)
        file.write_bytes(self.made[-1].blob)
        return trained

    def newest(self: Run, number: str) -> Any:
        return self._deployment.load(file.read_bytes()) if file.exists() else load(self, number)

    SavingTrainer.obtain, Run.model = saving, newest  # type: ignore[method-assign]


MUTANTS = {mutant.__name__: mutant for mutant in (offset_apart, random_state_lost, model_not_with_the_turn)}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve()
