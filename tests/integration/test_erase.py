"""A subject is erased from every file and table that the deployment owns."""

from __future__ import annotations

import struct
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import perennial as pn
from perennial import strategies, triggers, windows
from perennial.ledger.errors import LeaseHeld
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run, tables

WORD, NUMBER, WHO = "planted-word", 1234.56789012345, "subject-77"
MARKS = [WORD.encode(), WHO.encode(), struct.pack("<d", NUMBER)]


def rows(n=240):
    """Rows an hour apart of ten subjects, one of whom has planted values."""
    rng = np.random.default_rng(0)
    who = np.array([f"subject-{i}" for i in rng.integers(70, 80, n)])
    theirs = who == WHO
    x = rng.normal(size=n)
    words = np.where(theirs, WORD, np.array(["red", "blue"])[rng.integers(0, 2, n)])
    return pa.table({
        "at": np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h"), "who": who,
        "a": np.where(theirs, NUMBER, x), "word": words,
        "y": np.where(x + rng.normal(size=n) > 0, "up", "down"),
    }), theirs  # fmt: skip


def usual(past, now):
    """How often this subject came lately."""
    out = now[["a", "word"]].copy()
    out["before"] = now["who"].map(past["who"].value_counts()).fillna(0.0).astype(float)
    return out


def deployment(path, strategy, **about):
    """A deployment of these rows."""
    path.mkdir(exist_ok=True)
    pq.write_table(rows()[0], path / "rows.parquet")
    stream = pn.Stream(
        path / "rows.parquet", time="at", target="y", key="who", time_zone="UTC", label_delay="30h", batch="1d", **about
    )  # fmt: skip
    return Deployment(name="shop", stream=stream, strategy=strategy, ledger=f"sqlite:///{path}/own/ledger.db")


def encoded(model):
    """A pipeline that takes words."""
    coded = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(make_column_transformer((coded, ["word"]), remainder="passthrough"), model)


def found(path):
    """Planted values in everything that the deployment owns, compressed or not."""
    out = []
    for file in (path / "own").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            out += [(file.name, mark) for mark in MARKS if mark in content]
    with SqlLedger.open(f"sqlite:///{path}/own/ledger.db", "shop", create=False) as ledger:
        for segment in ledger.segments():
            table = tables.from_bytes(ledger.get(segment.digest))
            content = b"".join(b.to_pybytes() for c in table.columns for p in c.chunks for b in p.buffers() if b)
            out += [(f"segment {segment.first}", mark) for mark in MARKS if mark in content]
        for entry in ledger.entries():
            for digest in (entry.predictions, entry.labels):
                out += [(f"turn {entry.turn}", mark) for mark in MARKS[:2] if digest and mark in ledger.get(digest)]
    return out


STATELESS = strategies.Stateless(
    GaussianNB(), initial="3d", trigger=triggers.every("2d"), window=windows.Sliding("5d")
)  # fmt: skip


@pytest.mark.parametrize("look", [False, True], ids=["plain", "look-back"])
def test_a_subject_is_gone_from_everything(tmp_path, look):
    """No planted value is left in any file, table, checkpoint, golden set or vocabulary; the run goes on."""
    about = {"features": usual, "lookback": "3d"} if look else {}
    strategy = strategies.Stateless(
        encoded(GaussianNB()), initial="3d", trigger=triggers.every("2d"), window=windows.Sliding("5d")
    )  # fmt: skip
    made = deployment(tmp_path, strategy, **about)
    theirs = rows()[1]
    with SqlLedger.open(made.ledger, made.name, inline_bytes=1500) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        while run.step():
            pass
        taken = int(sum(e.rows for e in ledger.entries()))
        assert found(tmp_path), "the test looks where they are"
        erased = Run(made, ledger, lease).erase(WHO)
        assert erased.rows == int(theirs[:taken].sum())
        assert {v.number for v in erased.versions} == {s.version.number for s in ledger.versions()}
        champion = ledger.alias("champion").version
        assert next(v.advice for v in erased.versions if v.number == champion).startswith("serves")
        assert not [finding for finding in ledger.check() if not finding.safe]
    models = {"1.0", "2.0", "3.0", "4.0"}
    left = [mark for place, mark in found(tmp_path) if mark != struct.pack("<d", NUMBER)]
    assert models >= {v.number for v in erased.versions}
    assert left == []
    with SqlLedger.open(made.ledger, made.name) as ledger:
        for saved in ledger.versions():
            assert WHO.encode() not in ledger.get(saved.blob)
        lease = ledger.acquire("test", timedelta(seconds=60))
        with pytest.raises(pn.LedgerError, match="no row of 'subject-77' is kept"):
            Run(made, ledger, lease).erase(WHO)
        last = Run(made, ledger, lease)
        assert last.step(to_the_end=True)
        (newest,) = [s for e in list(ledger.entries())[-1:] for s in e.versions] or [None]
        if newest is not None:
            assert newest.version.trained_rows < 120 - int(theirs[90:210].sum()) + 40


def test_no_value_is_left_where_models_keep_none(tmp_path):
    """With a model that learns no word and no raw number nothing at all is found, on disk or in the database."""
    strategy = strategies.Stateful(
        SGDClassifier(loss="log_loss", random_state=0), initial="3d", trigger=triggers.every("1d")
    )  # fmt: skip
    made = deployment(tmp_path, strategy, drop=["word"])
    with SqlLedger.open(made.ledger, made.name, inline_bytes=1500) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        while run.step():
            pass
        assert found(tmp_path)
        erased = Run(made, ledger, lease).erase(WHO)
        assert erased.versions[0].number == "1.0"
        assert erased.versions[-1].through
        ledger.release(lease)
    assert found(tmp_path) == []


def test_labels_on_their_way_are_not_learned(tmp_path):
    """What was erased is in no later training, though its label comes due afterwards."""
    strategy = strategies.Stateful(GaussianNB(), initial="3d", trigger=triggers.every("1d"))
    made = deployment(tmp_path, strategy, drop=["word"])
    theirs = rows()[1]
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        for _ in range(6):
            assert run.step()
        before = sum(s.version.trained_rows for s in ledger.versions())
        Run(made, ledger, lease).erase(WHO)
        again = Run(made, ledger, lease)
        again.step()
        learned = sum(s.version.trained_rows for s in ledger.versions()) - before
    due = slice(before, 144 - 30 + 1)
    assert learned == 24 - int(theirs[91:115].sum())
    assert due.stop == 115


def test_who_cannot_be_erased_is_told(tmp_path, capsys):
    """A stream without a key, a subject nobody knows, and a run that goes on are refused by name."""
    made = deployment(tmp_path, STATELESS, drop=["word"])
    with SqlLedger.open(made.ledger, made.name) as ledger:
        lease = ledger.acquire("test", timedelta(seconds=60))
        run = Run(made, ledger, lease)
        run.step()
        with pytest.raises(pn.LedgerError, match="no row of 'nobody' is kept"):
            run.erase("nobody")
        with SqlLedger.open(made.ledger, made.name) as other, pytest.raises(LeaseHeld):
            other.acquire("two", timedelta(seconds=1))
    stream = pn.Stream(tmp_path / "rows.parquet", time="at", target="y", drop=["word", "who"], batch="1d")
    bare = Deployment(name="bare", stream=stream, strategy=STATELESS, ledger=made.ledger)
    with SqlLedger.open(bare.ledger, bare.name) as ledger:
        run = Run(bare, ledger, ledger.acquire("test", timedelta(seconds=60)))
        with pytest.raises(pn.ConfigError, match="names no `key` column"):
            run.erase("x")


def test_the_command_names_versions(tmp_path, capsys, monkeypatch):
    """`perennial erase` says what went and what to do about each version."""
    from perennial.cli import main

    pq.write_table(rows()[0], tmp_path / "rows.parquet")
    (tmp_path / "perennial.yaml").write_text(
        "name: shop\n"
        "stream: {source: rows.parquet, time: at, time_zone: UTC, label: {column: y, delay: 6h}, key: who, batch: 1d,\n"
        "         drop: [word]}\n"
        "model: sklearn.naive_bayes.GaussianNB\ninitial: 3d\n"
        "strategies: {daily: {stateful: {every: 1d}}}\ndeploy: daily\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--once"]) == 0
    assert main(["erase", "--key", WHO]) == 0
    said = capsys.readouterr().out
    assert "rows erased" in said
    assert "1.0  had learned" in said
    assert "serves: retrain without them" in said
    assert main(["erase", "--key", WHO]) == 5
    assert main(["run", "--once"]) == 0
