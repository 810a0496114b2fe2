"""Replay is production: backtest and run take the same decisions on the same rows, whatever files they arrive in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from lightgbm import LGBMClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import perennial as pn
from perennial import learners, strategies, triggers, windows
from perennial.core.records import Close
from perennial.gate import Gate, Golden, Slice
from perennial.learners import as_learner
from perennial.ledger.sql import SqlLedger
from perennial.metrics import Prices
from perennial.production import Deployment, tables
from perennial.production.service import keep_current, leased
from perennial.replay.checks import golden_rows
from perennial.replay.comparison import _closes_at
from perennial.replay.run import Job, _revisions
from perennial.replay.trainings import Trainings
from perennial.replay.truth import longest_wait
from perennial.stream.quality import Quality

LGB = LGBMClassifier(n_estimators=8, num_leaves=7, verbose=-1, n_jobs=1)


def kinds(initial, step):
    """A strategy of every kind."""
    every = triggers.every(step)
    days = 3 * int(step[:-1])
    return {
        "frozen": strategies.Frozen(LGB, initial=initial),
        "stateless": strategies.Stateless(
            LGB, initial=initial, trigger=every, window=windows.Mix(initial=0.3, recent=0.7, rows=2000)
        ),
        "stateless-sliding": strategies.Stateless(
            GaussianNB(), initial=initial, window=windows.Sliding(f"{days}d"),
            trigger=triggers.any_of(triggers.regret(100.0), triggers.loss_above(0.9, rows=300)),
        ),
        "stateful": strategies.Stateful(learners.Decayed(LGB, trees=3), initial=initial, trigger=every),
        "hybrid": strategies.Hybrid(
            SGDClassifier(loss="log_loss", random_state=0), initial=initial, trigger=every,
            reset=triggers.every(f"{days}d"), window=windows.Sliding(f"{2 * days}d"),
        ),
    }  # fmt: skip


STREAMS = {
    "bank_marketing": ({"drop": ["duration"], "label_delay": "2d", "batch": "2d", "time_zone": "Europe/Lisbon"},
                       "14d", "4d"),
    "electricity": ({"drop": ["date_norm"], "label_delay": "30min", "batch": "7d", "time_zone": "UTC"},
                    "60d", "21d"),
    "insects_gradual_balanced": ({"label_delay": "3h", "batch": 600, "time_zone": "UTC"}, "2d", "2d"),
}  # fmt: skip


def replayed(made, folder):
    """The turns of a backtest."""
    stream = made.stream
    prepared = stream.prepare(folder)
    learner = as_learner(made.strategy.model)
    job = Job(
        name="s", strategy=made.strategy, learner=learner, prepared=prepared, label_delay=prepared.label_delay,
        closes_at=_closes_at(stream, prepared, learner.task), label_wait=longest_wait(prepared, learner.task),
        train_latency=made.train_latency, seed=made.seed, quality=made.quality, version="test",
        classes=(False, True) if prepared.label_type == "bool" else (), gate=made.gate, prices=made.prices,
        golden=golden_rows(prepared, made.gate, stream, learner.task),
    )  # fmt: skip
    engine = job.engine(Trainings(None))
    for batch in prepared.batches(learner.task):
        yield engine.advance(batch)
    if tail := prepared.tail():
        engine.deliver(*_revisions(tail, batch.label_values, learner.task))
    yield engine.advance(Close(now=job.closes_at))


def run(made):
    """Run a deployment to the end of its recording."""
    with (
        SqlLedger.open(made.ledger, made.name) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        keep_current(
            made, ledger, lease, mode="until-end", stopped=lambda: False, wait=lambda _: None,
            clock=lambda: datetime.now(UTC), tell=lambda *_: None,
        )  # fmt: skip


def same_as_replayed(made, folder):
    """Assert that what the ledger holds is what a backtest gives, bit for bit."""
    versions = 0
    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs, create=False) as ledger:
        saved = {s.version.number: s for s in ledger.versions()}
        entries = ledger.entries()
        for turn in replayed(made, folder):
            entry = next(entries)
            assert entry.decisions == turn.decisions
            assert entry.verdicts == turn.verdicts
            assert entry.serving == turn.serving
            assert entry.loss == turn.loss
            assert entry.quarantined == turn.quarantined
            for version in turn.trained:
                assert saved[version.number].version == version
                versions += 1
            if turn.predicted is not None:
                told = tables.from_bytes(ledger.get(entry.predictions))
                assert told.equals(tables.from_bytes(tables.predictions(turn.predicted)))
            if len(turn.joined.position):
                joined = tables.from_bytes(ledger.get(entry.labels))
                assert joined.equals(tables.from_bytes(tables.labels(turn.joined, turn.classes)))
        assert next(entries, None) is None
    assert versions == len(saved)
    return versions


def write(table, folder: Path, sizes):
    """The rows in files of these sizes."""
    folder.mkdir()
    at = 0
    for i, size in enumerate(sizes):
        pq.write_table(table.slice(at, size), folder / f"{i:05}.parquet")
        at += size


@pytest.mark.parametrize("kind", ["frozen", "stateless", "stateless-sliding", "stateful", "hybrid"])
@pytest.mark.parametrize("name", STREAMS)
def test_run_is_backtest(tmp_path, real_stream, name, kind):
    """On real streams and every kind of strategy: versions, decisions, predictions and labels are the same."""
    roles, initial, step = STREAMS[name]
    table = pq.read_table(real_stream(name)).slice(0, 12_000)
    chance = np.random.default_rng(len(name) + len(kind))
    cuts = np.sort(chance.integers(0, table.num_rows, 6))
    write(table, tmp_path / "rows", np.diff([0, *cuts, table.num_rows]))
    strategy = kinds(initial, step)[kind]
    if name == "bank_marketing" and kind in ("stateless-sliding", "hybrid"):  # words, for models that want numbers
        roles = {**roles, "drop": [*roles["drop"], *(f.name for f in table.schema if f.type == pa.string()
                                                       and f.name != "target")]}  # fmt: skip
    stream = pn.Stream(tmp_path / "rows", time="timestamp", target="target", **roles)
    made = Deployment(
        name="parity", stream=stream, strategy=strategy, ledger=f"sqlite:///{tmp_path}/ledger.db",
        retention=timedelta(days=30),
    )  # fmt: skip
    run(made)
    assert same_as_replayed(made, tmp_path / "prepared") >= (1 if kind == "frozen" else 2)


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("kind", ["stateless", "stateful", "hybrid"])
def test_a_gate_decides_alike(tmp_path, mode, kind):
    """On the bundled stream, verdicts and their evidence are the same in backtest and run."""
    table = pq.read_table(str(files("perennial") / "demo" / "bank.parquet")).slice(0, 12_000)
    write(table, tmp_path / "rows", [5_000, 4_000, 3_000])
    words = [f.name for f in table.schema if f.type == pa.string() and f.name != "target"]
    stream = pn.Stream(
        tmp_path / "rows", time="timestamp", target="target", label_delay="1d", batch="1d", time_zone="Europe/Lisbon",
        drop=words,
    )  # fmt: skip
    made = Deployment(
        name="gated", stream=stream, strategy=kinds("7d", "4d")[kind], ledger=f"sqlite:///{tmp_path}/ledger.db",
        gate=Gate(mode=mode, margin=0.02, least_blocks=4, planned_labels=2000, block=timedelta(hours=12)),
    )  # fmt: skip
    run(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 1
    with SqlLedger.open(made.ledger, made.name) as ledger:
        assert {"promote", "keep"} <= {verdict.outcome for verdict in ledger.verdicts()}


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("kind", ["stateless", "stateful"])
def test_a_gate_with_everything_decides_alike(tmp_path, mode, kind):
    """Slices by words and by numbers, a golden set with words of its own, a size, and a margin from prices."""
    table = pq.read_table(str(files("perennial") / "demo" / "bank.parquet")).slice(0, 12_000)
    write(table, tmp_path / "rows", [5_000, 4_000, 3_000])
    golden = table.slice(11_000, 300)
    job = pa.array(["never seen" if i % 5 == 0 else word for i, word in enumerate(golden["job"].to_pylist())])
    golden = golden.set_column(table.column_names.index("job"), "job", job)
    pa.csv.write_csv(golden, tmp_path / "golden.csv")
    stream = pn.Stream(
        tmp_path / "rows", time="timestamp", target="target", label_delay="1d", batch="1d", time_zone="Europe/Lisbon",
    )  # fmt: skip
    gate = Gate(
        mode=mode, least_blocks=4, planned_labels=2000, block=timedelta(hours=12), largest_bytes=10_000_000,
        golden=Golden(file=str(tmp_path / "golden.csv"), limit=0.02),
        slices={"clerks": Slice(where={"job": ["admin.", "management"]}, margin=0.05),
                "asked often": Slice(where={"campaign": {"least": 3}})},
    )  # fmt: skip
    if kind == "stateless":
        gate = replace(gate, held_out=timedelta(days=2))
    made = Deployment(
        name="gated", stream=stream, ledger=f"sqlite:///{tmp_path}/ledger.db", gate=gate,
        strategy=kinds("7d", "4d")[kind], prices=Prices(retrain=20.0, update=10.0, error=0.5),
    )  # fmt: skip
    run(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 1
    with SqlLedger.open(made.ledger, made.name) as ledger:
        verdicts = list(ledger.verdicts())
        assert {verdict.evidence.get("margin_from") for verdict in verdicts} >= {"cost"}
        measured = [verdict for verdict in verdicts if verdict.evidence.get("golden") is not None]
        told = max(measured, key=lambda verdict: verdict.evidence["rows"])
    assert told.evidence["size_bytes"] > 1000
    assert told.evidence["slices"]["clerks"]["rows"] > 50
    assert told.evidence["slices"]["asked often"]["rows"] > 50
    assert told.evidence["golden"] != 0
    assert (told.evidence.get("held_out_rows", 0) > 50) == (kind == "stateless")


@pytest.mark.parametrize("positives_wait", [True, False])
def test_labels_that_come_later_than_silence(tmp_path, positives_wait):
    """A fraud that is reported after its silence revises the label, in run as in backtest, and windows learn it."""
    rng = np.random.default_rng(0)
    n = 900
    x = rng.normal(size=n)
    at = np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    fraud = x + rng.normal(size=n) > 1.2
    late = at + rng.integers(1, 300, n) * np.timedelta64(1, "h")
    table = pa.table({
        "at": at, "x": x, "id": np.arange(n), "fraud": pa.array(np.where(fraud, 1, 0), mask=~fraud),
        "reported": pa.array(late, mask=~fraud),
    })  # fmt: skip
    write(table, tmp_path / "rows", [400, 300, 200])
    stream = pn.Stream(
        tmp_path / "rows", time="at", target="fraud", known_at="reported", within="5d", absent=0, batch="1d", id="id",
        positives_wait=positives_wait, time_zone="UTC",
    )  # fmt: skip
    strategy = strategies.Stateless(
        GaussianNB(), initial="8d", trigger=triggers.every("2d"), window=windows.Sliding("12d")
    )
    made = Deployment(name="fraud", stream=stream, strategy=strategy, ledger=f"sqlite:///{tmp_path}/ledger.db")
    run(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 5
    with SqlLedger.open(made.ledger, made.name) as ledger:
        joined = [tables.from_bytes(ledger.get(e.labels)) for e in ledger.entries() if e.labels]
        assert sum(int(np.sum(t["revised"].to_numpy())) for t in joined) > 20


def moving(past, now):
    """The mean of the last week, per kind of contact."""
    out = now[["campaign", "euribor3m"]].copy()
    means = past.groupby("contact")["campaign"].mean()
    out["usual"] = now["contact"].map(means).astype(float).fillna(0.0)
    out["before"] = float(len(past))
    return out


def test_look_back_features_quality_and_latency(tmp_path):
    """On the bundled stream, with features of past rows, quarantine and a training that takes its time."""
    table = pq.read_table(str(files("perennial") / "demo" / "bank.parquet")).slice(0, 1_500)
    write(table, tmp_path / "rows", [700, 1, 400, 399])
    stream = pn.Stream(
        tmp_path / "rows", time="timestamp", target="target", label_delay="6h", batch="12h", time_zone="Europe/Lisbon",
        key="contact", features=moving, lookback="1d",
    )  # fmt: skip
    strategy = strategies.Stateless(
        make_pipeline(StandardScaler(), GaussianNB()), initial="1d", trigger=triggers.every("1d"),
        window=windows.Sliding("3d"),
    )  # fmt: skip
    made = Deployment(
        name="looks-back", stream=stream, strategy=strategy, ledger=f"sqlite:///{tmp_path}/ledger.db",
        train_latency=timedelta(hours=18),
        quality=Quality(ranges={"campaign": (0, 5)}, label_rates={"no": (0.9, 1.0)}, least_rows=10),
    )  # fmt: skip
    run(made)
    assert same_as_replayed(made, tmp_path / "prepared") > 2
    with SqlLedger.open(made.ledger, made.name) as ledger:
        assert any(entry.quarantined for entry in ledger.entries())
