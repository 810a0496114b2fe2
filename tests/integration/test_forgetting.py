"""``retention: none`` besides the search: what is refused, what errors say, and that decisions are a replay's."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import perennial as pn
from perennial import cli, learners, strategies, triggers, windows
from perennial.core.errors import ConfigError, LedgerError
from perennial.gate import Gate
from perennial.ledger.records import AliasChange
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment, Run, tables
from perennial.production.service import leased
from perennial.stream.ingest import IngestLog
from perennial.stream.quality import Quality
from tests.integration.test_parity import replayed

EVERY = triggers.every("1d")
N = 400


def rows(n=N):
    """Rows an hour apart with a word."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 2))
    x[300, 1] = 9.25  # out of the ordinary
    return pa.table({
        "at": np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(1, "h"), "who": np.arange(n) % 50,
        "a": x[:, 0], "b": x[:, 1], "word": np.array(["red", "blue"])[rng.integers(0, 2, n)],
        "y": np.where(x[:, 0] + rng.normal(size=n) > 0, "up", "down"),
    })  # fmt: skip


def stream(path, **about):
    """A stream of these rows without the word."""
    path.mkdir(exist_ok=True)
    pq.write_table(rows(), path / "rows.parquet")
    facts = {"time": "at", "target": "y", "key": "who", "time_zone": "UTC", "label_delay": "7h", "batch": "1d"}
    return pn.Stream(path / "rows.parquet", **{**facts, "drop": ["word"], **about})


def deployment(path, strategy=None, retention="none", about=None, **options):
    """A deployment that keeps no row."""
    made = strategy or strategies.Stateful(GaussianNB(), initial="3d", trigger=EVERY)
    url = f"sqlite:///{path}/own/ledger.db"
    return Deployment(
        name="shop", stream=stream(path, **(about or {})), strategy=made, ledger=url, retention=retention, **options
    )


def run(made, turns=None):
    """Take all turns, or so many; gives the run's ledger entries."""
    with (
        SqlLedger.open(made.ledger, made.name, forgets=made.forgets) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        going = Run(made, ledger, lease)
        taken = 0
        while taken != turns and going.step(to_the_end=True):
            taken += 1
        if turns is None:
            going.close()
        return list(ledger.entries())


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (strategies.Stateless(GaussianNB(), initial="3d", trigger=EVERY), "stateless trains on a window"),
        (strategies.Hybrid(GaussianNB(), initial="3d", trigger=EVERY, reset=triggers.every("5d"),
                           window=windows.Sliding("4d")), "hybrid trains on a window"),
        (strategies.Frozen(make_pipeline(KNeighborsClassifier()), initial="3d"), "holds every row"),
        (strategies.Stateful(SGDClassifier(loss="log_loss"), initial=None, trigger=EVERY), "second class"),
    ],
    ids=["stateless", "hybrid", "neighbours", "untrained"],
)  # fmt: skip
def test_what_would_keep_rows_is_refused(tmp_path, strategy, told):
    """Before anything is done, with the reason."""
    with pytest.raises(ConfigError, match=told):
        deployment(tmp_path, strategy)
    deployment(tmp_path, strategy, retention=timedelta(days=3))


def past(earlier, now):
    """Nothing of the past."""
    return now[["a"]]


def test_features_that_look_back_and_observing_are_refused(tmp_path):
    """Both would need rows that are gone."""
    with pytest.raises(ConfigError, match="look back"):
        deployment(tmp_path, about={"features": past, "lookback": "2d"})
    with pytest.raises(ConfigError, match="observe a deployment that keeps rows"):
        deployment(tmp_path, observe=True)


def test_an_ingest_log_keeps_nothing_either(tmp_path):
    """It is the deployment's own: `keep` is refused, and what was taken is in none of its files."""
    url = f"sqlite:///{tmp_path}/own/ingest.db?log=calls"
    strategy = strategies.Stateful(GaussianNB(), initial="3d", trigger=EVERY)
    about = {"time": "at", "target": "y", "key": "who", "time_zone": "UTC", "label_delay": "7h", "batch": "1d"}
    facts = {"name": "shop", "strategy": strategy, "ledger": f"sqlite:///{tmp_path}/own/ledger.db", "retention": "none"}
    (tmp_path / "own").mkdir()
    planted = rows().set_column(2, "a", pa.array(np.where(np.arange(N) == 130, 1234.56789012345, 0.5 + np.arange(N))))
    with IngestLog.open(url) as log:
        log.append(planted)
        with pytest.raises(ConfigError, match="leave out `keep`"):
            Deployment(stream=pn.Stream(f"{url}&keep=90d", drop=["word"], **about), **facts)
        made = Deployment(stream=pn.Stream(url, drop=["word"], **about), **facts)
        mark = struct.pack("<d", 1234.56789012345)
        files = [file for file in (tmp_path / "own").rglob("*") if file.is_file()]
        assert any(mark in file.read_bytes() for file in files)
        run(made)
    assert not [file for file in (tmp_path / "own").rglob("*") if file.is_file() and mark in file.read_bytes()]


def test_what_was_appended_together_goes_apart(tmp_path):
    """Two weeks in one append: each row goes once it is taken, not with the last of them."""
    made = deployment(tmp_path)
    url = f"sqlite:///{tmp_path}/own/ingest.db?log=calls"
    (tmp_path / "own").mkdir()
    with IngestLog.open(url) as log:
        log.append(rows())
    made = replace(made, stream=replace(made.stream, source=url))
    marks = [struct.pack("<d", value) for value in rows().column("a").to_pylist()]
    for _ in range(8):
        run(made, turns=1)
        found = b"".join(file.read_bytes() for file in (tmp_path / "own").glob("ingest.db*"))
        with SqlLedger.open(made.ledger, made.name, create=False) as ledger:
            taken = sum(entry.rows for entry in ledger.entries())
        assert [i for i, mark in enumerate(marks) if mark in found] == list(range(taken, N))
    run(made)
    with SqlLedger.open(made.ledger, made.name, create=False) as ledger:
        assert sum(entry.rows for entry in ledger.entries()) == N


def test_words_must_be_common(tmp_path):
    """A word from its first row on would tell who that was: refused, with what to set."""
    fine = learners.SlidingForest(RandomForestClassifier(3))
    made = deployment(tmp_path, strategies.Stateful(fine, initial="3d", trigger=EVERY), about={"drop": []})
    with pytest.raises(ConfigError, match="word_rows=10"):
        run(made)


@pytest.mark.parametrize("gate", [None, Gate(mode="before", block=5, planned_labels=60), Gate(mode="after", block=5)])
def test_the_same_decisions_as_a_replay(tmp_path, gate):
    """What is forgotten is nothing that a decision needs: versions, verdicts and predictions are a backtest's."""
    model = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))
    made = deployment(tmp_path, strategies.Stateful(model, initial="3d", trigger=EVERY), gate=gate)
    entries = iter(run(made))
    with SqlLedger.open(made.ledger, made.name, create=False) as ledger:
        versions = {saved.version.number: saved.version for saved in ledger.versions()}
        for turn in replayed(made, tmp_path / "prepared"):
            entry = next(entries)
            assert (entry.decisions, entry.verdicts, entry.loss) == (turn.decisions, turn.verdicts, turn.loss)
            assert entry.serving == turn.serving
            assert all(versions[v.number] == v for v in turn.trained)
            if turn.predicted is not None:
                told = tables.from_bytes(ledger.get(entry.predictions))
                assert told.equals(tables.from_bytes(tables.predictions(turn.predicted, times=False)))
        assert ledger.check() == []
    assert next(entries, None) is None
    assert len(versions) > 10


def test_what_waits_is_bounded_by_the_wait(tmp_path):
    """Not by the stream: after every turn the store holds the rows of the last day or two."""
    made = deployment(tmp_path)
    for _ in range(12):
        run(made, turns=1)
        with SqlLedger.open(made.ledger, made.name, create=False) as ledger:
            assert sum(segment.rows for segment in ledger.segments()) <= (24 * 4 if ledger.head().turn < 4 else 48)
            assert sum(file.is_file() for file in (tmp_path / "own" / "blobs").rglob("*")) <= 6


class Quoting(GaussianNB):
    """A model whose updates fail, and say what they were given."""

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Learn once, and then fail."""
        if hasattr(self, "theta_"):
            raise ValueError(f"I cannot learn {X[0, 0]!r}")
        return super().partial_fit(X, y, classes, sample_weight)


def test_no_error_is_quoted_in_the_record(tmp_path):
    """Frameworks quote values in what they raise, and quality rules name the worst: neither is kept."""
    from perennial.core.protocols import Trust

    trust = Trust(types=(f"{Quoting.__module__}.Quoting",))
    strategy = strategies.Stateful(Quoting(), initial="3d", trigger=EVERY)
    quality = Quality(ranges={"b": (-5, 5)}, least_rows=5)
    loud = run(deployment(tmp_path / "kept", strategy, retention=None, trust=trust, quality=quality))
    quiet = run(deployment(tmp_path / "none", strategy, trust=trust, quality=quality))
    assert any("I cannot learn" in note for entry in loud for note in entry.notes)
    assert not any("I cannot learn" in note for entry in quiet for note in entry.notes)
    assert any("ValueError, whose words may quote rows" in note for entry in quiet for note in entry.notes)
    assert any("holds values, outside [-5, 5]" in (entry.quarantined or "") for entry in quiet)
    assert [e.now for e in loud if e.quarantined] == [e.now for e in quiet if e.quarantined]


def test_a_subject_that_waits_is_erased(tmp_path):
    """Rows that still wait go at once; who learned earlier ones nobody can tell, and that is said."""
    made = deployment(tmp_path, about={"label_delay": "60h"})
    run(made, turns=8)
    with (
        SqlLedger.open(made.ledger, made.name) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        erased = Run(made, ledger, lease).erase("7")
        assert (erased.rows, erased.golden, erased.versions) == (1, (), ())
        assert ledger.check() == []
        for segment in ledger.segments():
            assert "7" not in {str(who) for who in tables.from_bytes(ledger.get(segment.digest))["key"].to_pylist()}
        with pytest.raises(LedgerError, match="which versions learned others of them cannot be told"):
            Run(made, ledger, lease).erase("7")
    run(made)


def test_from_a_file_and_the_command_line(tmp_path, capsys):
    """``retention: none`` in the YAML, with words counted from ten rows on; reproduce says why it cannot."""
    pq.write_table(rows(), tmp_path / "rows.parquet")
    config = {
        "name": "shop", "initial": "3d", "deploy": "daily", "retention": "none",
        "stream": {"source": "rows.parquet", "time": "at", "label": {"column": "y", "delay": "7h"}, "time_zone": "UTC",
                   "key": "who", "batch": "1d"},
        "model": {"estimator": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 3},
                  "update": "sliding_forest"},
        "strategies": {"daily": {"stateful": {"every": "1d"}}}, "ledger": "sqlite:///own/ledger.db",
    }  # fmt: skip
    file = tmp_path / "perennial.yaml"

    def said(code, *arguments):
        capsys.readouterr()
        assert cli.main([*arguments, "-c", str(file)]) == code
        out = capsys.readouterr()
        return out.out + " ".join(out.err.split())

    file.write_text(yaml.safe_dump(config))
    said(0, "run", "--until-end")
    assert "retention" in said(5, "reproduce", "1.3")
    assert json.loads(said(0, "explain", "1.3", "--json"))["rows"]["count"] == 24
    said(0, "doctor")
    config["retention"] = "30d"
    config["stream"]["word_rows"] = 10
    file.write_text(yaml.safe_dump(config))
    assert "begun without keeping rows" in said(2, "run", "--once")
    assert "begun without keeping rows" in said(2, "erase", "--key", "7")
    assert "begun without keeping rows" in said(5, "doctor")


def same_as_a_replay(made, tmp_path):
    """Decisions and what was quarantined are a backtest's."""
    entries = run(made)
    for turn, entry in zip(replayed(made, tmp_path / "prepared"), entries, strict=True):
        assert (entry.decisions, entry.quarantined, entry.loss) == (turn.decisions, turn.quarantined, turn.loss)
    return entries


def test_rows_without_a_label_are_counted_where_labels_are_missing(tmp_path):
    """A row that nothing can learn is gone at once, and is one of those whose label was due all the same."""
    made = deployment(tmp_path, quality=Quality(labelled=0.9, least_rows=10))
    table = rows()
    labels = np.array(table.column("y").to_pylist(), dtype=object)
    labels[240:264] = None  # a whole day: what is on its way to others keeps none of it in play
    pq.write_table(table.set_column(5, "y", pa.array(labels)), tmp_path / "rows.parquet")
    entries = same_as_a_replay(made, tmp_path)
    assert [entry.turn for entry in entries if entry.quarantined] == [11, 12]
    assert entries[12].quarantined.startswith("75% of the 24 rows")


def test_nothing_is_left_of_labels_that_were_on_their_way_at_the_end(tmp_path):
    """Where silence is a label, the last ones are never joined: they are forgotten with their rows."""
    table = rows()
    sums = pa.array(np.random.default_rng(5).normal(size=N))
    known = pa.array(table.column("at").to_numpy() + np.timedelta64(20, "h"))
    about = {"target": "sum", "label_delay": None, "known_at": "known", "within": "30h", "absent": 0.0}
    model = make_pipeline(StandardScaler(), SGDRegressor(random_state=0))
    made = deployment(
        tmp_path, strategies.Stateful(model, initial="3d", trigger=EVERY), about={**about, "drop": ["word", "y"]}
    )
    pq.write_table(table.append_column("sum", sums).append_column("known", known), tmp_path / "rows.parquet")
    run(made)
    found = b"".join(file.read_bytes() for file in (tmp_path / "own").rglob("*") if file.is_file())
    assert [i for i, value in enumerate(sums.to_pylist()) if struct.pack("<d", value) in found] == []


def test_an_operator_who_is_quicker_leaves_no_rows_behind(tmp_path, monkeypatch):
    """A turn that comes too late is taken again behind their word: what it had written is not left lying about."""
    made = deployment(tmp_path)
    blobs = tmp_path / "own" / "blobs"
    with (
        SqlLedger.open(made.ledger, made.name, forgets=True) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        going = Run(made, ledger, lease)
        while ledger.head().turn < 8:
            going.step(to_the_end=True)
        commit = SqlLedger.commit

        def quicker(self, lease, entry):
            monkeypatch.setattr(SqlLedger, "commit", commit)
            change = AliasChange(
                alias="champion", version="1.1", generation=self.alias("champion").generation, reason="better"
            )
            self.set_alias(replace(change, actor="ada"))
            self.commit(lease, entry)

        monkeypatch.setattr(SqlLedger, "commit", quicker)
        going.step(to_the_end=True)
        assert ledger.head().turn == 8  # too late
        while ledger.head().turn < 11:
            going.step(to_the_end=True)
        assert [e.kind for e in ledger.entries(since=9)] == ["operator", "batch", "batch"]
        assert [finding.what for finding in ledger.check()] == []
    assert any(blobs.rglob("*"))
