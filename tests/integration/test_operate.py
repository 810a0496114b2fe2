"""The operator's commands on ledgers that real runs wrote."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from perennial import cli
from perennial.config import load
from perennial.config.deploying import place
from perennial.core.errors import LedgerError
from perennial.ledger.errors import AliasMoved
from perennial.ledger.records import AliasChange
from perennial.ledger.sql import SqlLedger
from perennial.production import Run, explain, operate
from perennial.production.doctor import examine, sound
from perennial.production.reproduce import reproduce
from perennial.production.service import leased

ROWS = 300

STREAM = """\
name: {name}
stream:
  source: rows
  time: at
  time_zone: Europe/Lisbon
  id: id
  label: {{column: y, delay: 7h}}
  lateness: 4h
  batch: 1d
  {drop}
ledger: sqlite:///{name}.db
blobs: blobs
initial: 3d
deploy: it
"""

#: by name: the model and its strategy, and whether it takes words
KINDS = {
    "trees": (
        """model: {estimator: lightgbm.LGBMClassifier,
  params: {n_estimators: 5, num_leaves: 4, min_child_samples: 5, verbose: -1, n_jobs: 1}}
strategies: {it: {stateless: {every: 2d, window: {decayed: 4d}}}}""",
        True,
    ),
    "naive": (
        """model: {estimator: sklearn.naive_bayes.GaussianNB}
strategies: {it: {stateless: {every: 2d, window: {mix: {initial: 0.3, recent: 0.7, rows: 80}}}}}""",
        False,
    ),
    "exact": (
        """model: {estimator: perennial.learners.plain.GaussianNB}
strategies: {it: {stateless: {every: 2d, window: {sliding: 4d}}}}""",
        False,
    ),
    "sgd": (
        """model: {estimator: sklearn.linear_model.SGDClassifier, params: {loss: log_loss, random_state: 3}}
strategies: {it: {stateful: {every: 1d}}}""",
        False,
    ),
    "river": (
        """model: {estimator: 'own_models_of_operate:scaled'}
strategies: {it: {stateful: {every: 2d, initial: null}}}
serialisation: {pickle: true}""",
        False,
    ),
    "hybrid": (
        """model: {estimator: xgboost.XGBClassifier, update: decayed, options: {trees: 3},
  params: {n_estimators: 5, max_depth: 2, subsample: 0.6, n_jobs: 1}}
strategies: {it: {hybrid: {every: 1d, reset: {every: 4d}, window: {sliding: 5d}}}}
gate: {mode: after, margin: 0.2, least_blocks: 3, block: 6h}""",
        False,
    ),
    "brief": (
        """model: {estimator: sklearn.naive_bayes.GaussianNB}
strategies: {it: {stateless: {every: 2d, window: {sliding: 3d}}}}
retention: 5d""",
        False,
    ),
}


def rows() -> pa.Table:
    """Two weeks of rows an hour apart, some out of order."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(ROWS, 2))
    turn = np.linspace(0, 2, ROWS)
    at = np.datetime64("2026-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
    at[100:104] -= np.timedelta64(3, "h")
    y = np.cos(turn) * x[:, 0] + np.sin(turn) * x[:, 1] + rng.normal(size=ROWS) / 2 > 0
    return pa.table({
        "at": at, "a": x[:, 0], "b": x[:, 1], "word": np.array(["red", "blue", "green"])[rng.integers(0, 3, ROWS)],
        "id": [f"r{i}" for i in range(ROWS)], "y": np.where(y, "yes", "no"),
    })  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with rows, and a configuration and a ledger of every kind."""
    place = tmp_path_factory.mktemp("operate")
    (place / "rows").mkdir()
    for i, (low, high) in enumerate(pairwise([0, 120, 200, ROWS])):
        pq.write_table(rows().slice(low, high - low), place / "rows" / f"{i}.parquet")
    (place / "own_models_of_operate.py").write_text(
        "def scaled():\n"
        "    from river import linear_model, preprocessing\n"
        "    return preprocessing.StandardScaler() | linear_model.LogisticRegression()\n"
    )
    for name in KINDS:
        configure(place, name)
        assert cli.main(["run", "--once", "-c", str(place / f"{name}.yaml")]) == 0
    return place


def configure(place: Path, kind: str, name: str = "") -> Path:
    """Write the configuration of a kind."""
    text, words = KINDS[kind]
    file = place / f"{name or kind}.yaml"
    drop = "drop: []" if words else "drop: [word]"
    file.write_text(STREAM.format(name=name or kind, drop=drop) + text + "\n")
    return file


def asked(capsys, folder, kind, *arguments, code=0):
    """What a command printed as JSON."""
    capsys.readouterr()
    assert cli.main([arguments[0], *arguments[1:], "-c", str(folder / f"{kind}.yaml"), "--json"]) == code
    return json.loads(capsys.readouterr().out)


@contextmanager
def opened(file: Path, **options):
    """Deployment and ledger of a configuration."""
    loaded = load(file)
    name, url, blobs = place(loaded)
    with SqlLedger.open(url, name, blobs=blobs, **options) as ledger:
        yield loaded.deployment(), ledger


@contextmanager
def running(file: Path):
    """A run that a test takes step by step, its deployment and its ledger."""
    with (
        opened(file) as (deployment, ledger),
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        yield Run(deployment, ledger, lease), deployment, ledger


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_versions_are_those_of_the_ledger(folder, capsys, kind):
    """In order of creation, with the digests that were recorded; one of them is champion."""
    told = asked(capsys, folder, kind, "versions")
    with opened(folder / f"{kind}.yaml", create=False) as (_, ledger):
        assert [one["digest"] for one in told] == [saved.state for saved in ledger.versions()]
        assert [one["number"] for one in told if one["status"] == "champion"] == [ledger.alias("champion").version]
    assert all(0 <= loss < 50 for one in told for loss in one["scores"].values())
    assert sum(one["scored"] for one in told) > 100


def test_versions_as_a_table(folder, capsys):
    """A row for each, for a person."""
    assert cli.main(["versions", "-c", str(folder / "trees.yaml")]) == 0
    out = capsys.readouterr().out
    assert "champion" in out
    first = [line.split()[0] for line in out.splitlines() if not line.startswith(" " * 7)]
    assert first == ["version", *(f"{i}.0" for i in range(1, 6))]


def test_explain_accounts_for_every_row(folder, capsys):
    """What all versions predicted is what was predicted; a version learned the rows that it counts."""
    told = [asked(capsys, folder, "trees", "explain", v["number"]) for v in asked(capsys, folder, "trees", "versions")]
    with opened(folder / "trees.yaml", create=False) as (_, ledger):
        predicted = sum(entry.rows for entry in ledger.entries() if entry.predictions)
    assert sum(one["predicted_rows"] for one in told) == predicted
    assert all(sum(high - low for low, high in one["rows"]["ranges"]) == one["rows"]["count"] for one in told)
    first, last = told[0], told[-1]
    assert first["lineage"] == []
    assert last["lineage"] == [one["number"] for one in reversed(told[:-1])]
    assert last["champion"]["now"]
    assert first["champion"]["why"].startswith("gave way to 2.0 at ")
    assert first["rows"]["weighted"]
    assert first["window"] == "weights halved every 4d"
    assert first["rows"]["from"] == "2026-01-01T00:00:00Z"


def test_explain_has_the_gates_evidence(folder, capsys):
    """A gated line's verdicts are told with what they rest on, and people see the same."""
    numbers = [one["number"] for one in asked(capsys, folder, "hybrid", "versions")]
    told = [asked(capsys, folder, "hybrid", "explain", number) for number in numbers]
    assert any(verdict["evidence"] for one in told for verdict in one["verdicts"])
    assert cli.main(["explain", numbers[-1], "-c", str(folder / "hybrid.yaml")]) == 0
    out = capsys.readouterr().out
    assert told[-1]["digest"] in out
    assert told[-1]["reason"] in out


def test_explain_shows_what_a_challenger_was_held_to(folder, capsys):
    """Slices, golden set, size and latency of a run from its configuration, for programs and for people."""
    file = configure(folder, "trees", "held")
    pa.csv.write_csv(rows().slice(0, 50).drop_columns(["at", "id"]), folder / "golden.csv")
    text = (
        file.read_text()
        + """gate:
  least_blocks: 3
  slices: {reds: {where: {word: red}, margin: 0.1}, high: {where: {a: {least: 0.5}}}}
  golden: {file: golden.csv, limit: 0.5}
  largest_bytes: 1000000
  largest_latency: 10s
"""
    )
    file.write_text(text)
    assert cli.main(["run", "--until-end", "-c", str(file)]) == 0
    told = asked(capsys, folder, "held", "explain", "2.0")
    facts = told["verdicts"][-1]["evidence"]
    assert facts["slices"]["reds"]["rows"] > 0
    assert facts["margin_from"] in ("level", "default")
    assert facts["size_bytes"] > 100
    assert cli.main(["explain", "2.0", "-c", str(file)]) == 0
    out = capsys.readouterr().out
    for words in (
        "slice reds: loss ",
        "slice high: loss ",
        "golden set: loss ",
        f"size: {facts['size_bytes']:,} bytes",
    ):
        assert f"held to   {words}" in out
    assert f"held to   latency: {facts['latency']} for a row" in out
    file.write_text(text.replace("{word: red}", "{wrod: red}").replace("name: held", "name: other"))
    assert cli.main(["run", "--until-end", "-c", str(file)]) != 0
    assert "did you mean `word`?" in capsys.readouterr().err


def test_explain_suggests_the_nearest(folder, capsys):
    """An unknown version is refused with code 5, as an unknown version of the ledger is."""
    error = asked(capsys, folder, "trees", "explain", "10.0", code=5)["error"]
    assert error["kind"] == "UnknownVersion"
    assert error["message"].endswith("did you mean `5.0`? It has 5, from 1.0 to 5.0:  perennial versions")
    error = asked(capsys, folder, "trees", "promote", "best", code=5)["error"]
    assert error["message"] == "'trees' has no version 'best': it has 5, from 1.0 to 5.0:  perennial versions"


def test_pointers_name_versions(folder, capsys, tmp_path):
    """Wherever a number is taken, champion, previous and challenger are; one that points to nothing is said."""
    assert asked(capsys, folder, "trees", "explain", "champion")["number"] == "5.0"
    assert asked(capsys, folder, "trees", "reproduce", "previous")["number"] == "4.0"
    told = asked(capsys, folder, "trees", "export", "previous", "--output", str(tmp_path / "out"))
    assert told["version"] == "4.0"
    pq.write_table(rows().slice(0, 3), tmp_path / "few.parquet")
    few, said = str(tmp_path / "few.parquet"), str(tmp_path / "said.parquet")
    assert asked(capsys, folder, "trees", "predict", few, "-o", said, "--version", "previous")["version"] == "4.0"
    error = asked(capsys, folder, "trees", "explain", "challenger", code=5)["error"]
    assert error["message"] == "'trees' has no challenger now: see  perennial versions"
    file = configure(folder, "naive", "pointed")
    with running(file) as (run, _, ledger):
        until(run, ledger, 3)
        assert asked(capsys, folder, "pointed", "promote", "previous")["champion"] == "2.0"


def test_some_of_the_versions(folder, capsys):
    """The newest, those of a status, or the newest of those."""
    numbers = lambda *how: [one["number"] for one in asked(capsys, folder, "trees", "versions", *how)]  # noqa: E731
    assert numbers("--last", "2") == ["4.0", "5.0"]
    assert numbers("--status", "retired") == ["1.0", "2.0", "3.0"]
    assert numbers("--status", "retired", "--last", "1") == ["3.0"]
    assert numbers("--status", "rejected") == []
    assert cli.main(["versions", "--status", "rejected", "-c", str(folder / "trees.yaml")]) == 0
    assert capsys.readouterr().out == "no version is rejected\n"
    asked(capsys, folder, "trees", "versions", "--status", "gone", code=2)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_version_is_one_line(folder, capsys, monkeypatch, terminal):
    """On a terminal a long reason is cut off at its edge, in a pipe it is whole; never wrapped."""
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "90")
    capsys.readouterr()
    assert cli.main(["versions", "-c", str(folder / "trees.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert ("every 2d" in lines[-1], lines[-1].count("…")) == (not terminal, int(terminal))
    assert " champion " in lines[-1]
    widest = max(len(re.sub(r"\x1b\[\d*m", "", line).rstrip()) for line in lines)
    assert widest == 90 if terminal else widest > 90


def test_a_long_line_is_told_shortly(folder, capsys):
    """The last few ancestors, how many are between, and the first; as JSON all of them."""
    told = asked(capsys, folder, "sgd", "explain", "champion")
    assert len(told["lineage"]) > 6
    assert cli.main(["explain", "champion", "-c", str(folder / "sgd.yaml")]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("from ")]
    between = len(told["lineage"]) - 4
    assert line.split()[1:] == [
        told["number"], *(word for one in told["lineage"][:3] for word in ("<-", one)), "<-", f"({between}", "more)",
        "<-", "1.0",
    ]  # fmt: skip


def test_a_row_alone_is_no_range(folder, capsys):
    """A mix of few rows names each of them once."""
    told = [asked(capsys, folder, "naive", "explain", v["number"]) for v in asked(capsys, folder, "naive", "versions")]
    one = next(one for one in told if any(high - low == 1 for low, high in one["rows"]["ranges"][:6]))
    ranges = one["rows"]["ranges"]
    assert cli.main(["explain", one["number"], "-c", str(folder / "naive.yaml")]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rows ")]
    shown = line.partition(": ")[2].partition(" and ")[0].split(", ")
    assert shown == [f"{low}..{high - 1}" if high - low > 1 else str(low) for low, high in ranges[:6]]


def test_every_stretch_of_service_is_told_in_both_clocks(folder, capsys):
    """Until a run heeds a word it is said who answers; then each stretch has its end, of the stream and of the wall."""
    file = configure(folder, "naive", "stretches")

    def told(number):
        assert cli.main(["explain", number, "-c", str(file)]) == 0
        lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
        return [line for name, line in lines if name == "served"], dict(lines)["champion"]

    with running(file) as (run, _, ledger):
        until(run, ledger, 3)
        asked(capsys, folder, "stretches", "rollback")
        [left], why = told("3.0")
        assert " to the next turn, which another begins: 24 rows (committed 20" in left
        assert why.startswith("no: gave way to 2.0")
        [before], why = told("2.0")
        assert before.count("Z") == 4
        assert why.endswith("; it answers from the next turn on")
        assert run.step()
        assert run.step()
        spans = asked(capsys, folder, "stretches", "explain", "2.0")["served"]
        assert [(span["rows"], span["until"] is None) for span in spans] == [(48, False), (24, True)]
        assert spans[0]["until_turn"] < spans[1]["turn"]
        assert cli.main(["served-at", spans[1]["from"], "-c", str(file)]) == 0
        committed = spans[1]["committed"]["from"][:19]
        assert f"2.0  since {spans[1]['from']} (committed {committed}Z): " in capsys.readouterr().out
        assert spans[0]["committed"]["until"] > spans[0]["committed"]["from"] > "2026-01-20"
        assert " to now: 24 rows" in told("2.0")[0][1]
        [left], _ = told("3.0")
        assert "next turn" not in left
        assert left.count("Z") == 4


def test_a_word_to_a_closed_deployment(folder, capsys):
    """It is said that no row comes any more; predict uses the version, and a run has nothing against it."""
    file = configure(folder, "naive", "ended")
    assert cli.main(["run", "--until-end", "-c", str(file)]) == 0
    capsys.readouterr()
    assert cli.main(["rollback", "-c", str(file)]) == 0
    assert "is closed: no row comes that it could answer" in capsys.readouterr().out
    told = asked(capsys, folder, "ended", "rollback")
    assert told["closed"]
    for how in ("--once", "--until-end"):
        assert asked(capsys, folder, "ended", "run", how)["champion"] == told["champion"]
    assert asked(capsys, folder, "ended", "doctor")["sound"]


def test_served_at_agrees_with_every_prediction(folder, capsys):
    """For each row that was predicted, the version that is told is the one in the table of predictions."""
    from perennial.production import tables

    with opened(folder / "sgd.yaml", create=False) as (_, ledger):
        history = explain.History.read(ledger)
        checked = 0
        for entry in history.entries:
            if not entry.predictions:
                continue
            table = tables.from_bytes(ledger.get(entry.predictions))
            late = set(range(100, 104))  # they came after rows of a later turn may have begun
            for row, time, version in zip(*(table.column(c).to_pylist() for c in ("row", "time", "version")),
                                          strict=True):  # fmt: skip
                if row not in late:
                    assert explain.served_at(history, time)["version"] == version
                    checked += 1
    assert checked > 150
    before = asked(capsys, folder, "sgd", "served-at", "2025-12-31")
    assert (before["version"], before["why"]) == (None, "the stream begins at 2026-01-01T00:00:00Z")
    assert asked(capsys, folder, "sgd", "served-at", "2026-01-02T10:00")["why"].startswith("no version served yet")
    later = asked(capsys, folder, "sgd", "served-at", "2026-03-01T12:00+01:00")
    assert later["instant"] == "2026-03-01T11:00:00Z"
    assert later["until"] is None
    assert "who would answer" in later["why"]


def test_served_at_wants_a_time(folder, capsys):
    """With the rule, and code 2."""
    assert "ISO 8601" in asked(capsys, folder, "sgd", "served-at", "noon", code=2)["error"]["message"]


def test_there_must_be_a_ledger(folder, capsys, tmp_path):
    """Reading makes none, and says what makes one."""
    configure(tmp_path, "sgd", "fresh")
    (tmp_path / "rows").symlink_to(folder / "rows")
    error = asked(capsys, tmp_path, "fresh", "versions", code=5)["error"]
    assert "perennial run" in error["message"]
    assert not (tmp_path / "fresh.db").exists()


# -- a word -----------------------------------------------------------------------------------------------------------


def pointers(ledger):
    """Where champion and previous point."""
    return ledger.alias("champion").version, ledger.alias("previous").version


def until(run, ledger, versions):
    """Take turns until so many versions are there."""
    while len(ledger.versions()) < versions:
        assert run.step()


def test_a_run_heeds_a_promotion_and_goes_on(folder, capsys):
    """The operator's turn keeps both pointers; the next promotion leaves the operator's version as previous."""
    file = configure(folder, "trees", "heeded")
    with running(file) as (run, _, ledger):
        until(run, ledger, 3)
        assert pointers(ledger) == ("3.0", "2.0")
        told = asked(capsys, folder, "heeded", "promote", "1.0", "--reason", "3.0 is odd")
        assert (told["champion"], told["previous"], "@" in told["actor"]) == ("1.0", "3.0", True)
        assert run.step()
        last = list(ledger.entries())[-1]
        assert (last.kind, last.serving) == ("operator", "1.0")
        assert last.decisions[-1].reason == f"1.0 made champion: {told['actor']}: 3.0 is odd"
        assert pointers(ledger) == ("1.0", "3.0")
        shown = asked(capsys, folder, "heeded", "explain", "1.0")["champion"]
        assert shown["now"]
        assert "3.0 is odd" in shown["why"]
        assert asked(capsys, folder, "heeded", "explain", "1.0")["served"][-1]["rows"] == 0
        assert run.step()
        assert list(ledger.entries())[-1].serving == "1.0"
        assert asked(capsys, folder, "heeded", "explain", "1.0")["served"][-1]["rows"] == 24
        until(run, ledger, 4)
        assert pointers(ledger) == ("4.0", "1.0")
        assert sound(ledger.check())


def test_roll_back_twice_is_where_it_was(folder, capsys):
    """Previous points to what was left, and the run serves what is told each time."""
    file = configure(folder, "sgd", "twice")
    with running(file) as (run, _, ledger):
        until(run, ledger, 4)
        assert pointers(ledger) == ("1.3", "1.2")
        assert asked(capsys, folder, "twice", "rollback")["champion"] == "1.2"
        assert pointers(ledger) == ("1.2", "1.3")
        assert run.step()
        assert pointers(ledger) == ("1.2", "1.3")
        assert ledger.alias("champion").reason == "roll back from 1.3"
        assert asked(capsys, folder, "twice", "rollback", "--reason", "after all")["champion"] == "1.3"
        assert run.step()
        assert pointers(ledger) == ("1.3", "1.2")
        assert [entry.serving for entry in ledger.entries()][-2:] == ["1.2", "1.3"]


def test_after_a_roll_back_the_line_goes_on_from_there(folder, capsys):
    """A stateful line continues the version that was rolled back to, under a number of its own, and can be redone."""
    file = configure(folder, "sgd", "onward")
    with running(file) as (run, deployment, ledger):
        until(run, ledger, 4)
        asked(capsys, folder, "onward", "rollback")
        until(run, ledger, 5)
        last = ledger.versions()[-1].version
        assert (last.number, last.parent) == ("1.4", "1.2")
        assert ledger.alias("champion").version == "1.4"
        assert reproduce(deployment, ledger, "1.4").same


def test_after_a_roll_back_previous_is_what_was_rolled_back_to(folder, capsys):
    """The run's next promotion leaves the version that it replaces, not the one that the operator had left."""
    file = configure(folder, "sgd", "left")
    with running(file) as (run, _, ledger):
        until(run, ledger, 4)
        asked(capsys, folder, "left", "rollback")
        until(run, ledger, 5)
        assert pointers(ledger) == ("1.4", "1.2")


def test_a_word_while_nobody_runs_waits(folder, capsys):
    """A run that starts later begins with it."""
    file = configure(folder, "naive", "waits")
    with running(file) as (run, _, ledger):
        until(run, ledger, 2)
    assert asked(capsys, folder, "waits", "promote", "1.0")["previous"] == "2.0"
    with running(file) as (run, _, ledger):
        assert run.step()
        assert list(ledger.entries())[-1].serving == "1.0"
        assert pointers(ledger) == ("1.0", "2.0")


def test_words_that_are_refused(folder, capsys):
    """The champion itself, versions that are not there, and a step back where there is none; nothing moves."""
    file = configure(folder, "naive", "refuses")
    with running(file) as (run, _, ledger):
        until(run, ledger, 1)
        run.step()
        assert "only one" in asked(capsys, folder, "refuses", "rollback", code=5)["error"]["message"]
        assert asked(capsys, folder, "refuses", "promote", "1.0", code=2)["error"]["field"] == "version"
        assert "1.0" in asked(capsys, folder, "refuses", "promote", "1.1", code=5)["error"]["message"]
        assert len(ledger.alias_history()) == 1


def test_two_words_at_once(folder, capsys):
    """Who read before the other moved is refused, and neither pointer is moved."""
    file = configure(folder, "naive", "races")
    with running(file) as (run, deployment, ledger):
        until(run, ledger, 3)
        moved = ledger.set_alias(
            AliasChange(alias="previous", version="1.0", generation=ledger.alias("previous").generation, reason="")
        )
        stale = ledger.alias("champion")
        changes = [
            AliasChange(alias="champion", version="1.0", generation=stale.generation, reason="", actor="ada"),
            AliasChange(alias="previous", version="3.0", generation=moved.generation - 1, reason="", actor="ada"),
        ]
        with pytest.raises(AliasMoved):
            ledger.set_aliases(changes)
        assert ledger.alias("champion") == stale
        assert operate.promote(ledger, deployment, "2.0", actor="ada").left == "3.0"


def test_a_broken_model_is_not_promoted(folder, capsys):
    """A run could not go on with it: its bytes are checked first. The doctor finds it where it is named."""
    file = configure(folder, "naive", "breaks")
    with running(file) as (run, deployment, ledger):
        until(run, ledger, 3)
        ledger.forget(ledger.version("1.0").blob)
        with pytest.raises(LedgerError, match=r"1\.0 cannot be made champion.*erased"):
            operate.promote(ledger, deployment, "1.0", actor="ada")
        assert sound(examine(deployment, ledger))
        ledger.forget(ledger.version("2.0").blob)
        assert not sound(examine(deployment, ledger))
    told = asked(capsys, folder, "breaks", "doctor", code=5)
    assert any("previous 2.0" in found["what"] for found in told["findings"])


# -- is it true? ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "brief"])
def test_every_version_is_reproduced(folder, capsys, kind):
    """From scratch, from its parent, untrained; weighted, by sums of blocks, under a gate: bit for bit."""
    with opened(folder / f"{kind}.yaml", create=False) as (deployment, ledger):
        versions = ledger.versions()
        found = [reproduce(deployment, ledger, saved.version.number) for saved in versions]
    assert len(found) > 4
    assert [(one.number, one.state_again) for one in found] == [(s.version.number, s.state) for s in versions]
    assert all(one.same for one in found)
    told = asked(capsys, folder, kind, "reproduce", versions[-1].version.number)
    assert told["same"]
    assert told["state"] == versions[-1].state


def test_rows_that_were_released_are_named(folder, capsys):
    """Retention forbids it: which rows, and what to do, with code 5. A version whose rows are kept is reproduced."""
    error = asked(capsys, folder, "brief", "reproduce", "1.0", code=5)["error"]
    assert error["kind"] == "LedgerError"
    assert "rows that it learned are gone, 0.." in error["message"]
    assert "retention" in error["message"]
    last = asked(capsys, folder, "brief", "versions")[-1]["number"]
    assert asked(capsys, folder, "brief", "reproduce", last)["same"]


def test_rows_that_were_erased_are_named(folder, capsys, tmp_path):
    """A version that learned of a subject cannot be redone once they are forgotten; a pointer to it is no fault."""
    (tmp_path / "rows").mkdir()
    who = np.array(["ada", "bob", "eve"])[np.arange(ROWS) % 3]
    pq.write_table(rows().append_column("who", pa.array(who)), tmp_path / "rows" / "0.parquet")
    file = configure(tmp_path, "naive", "forgets")
    file.write_text(file.read_text().replace("  id: id", "  id: id\n  key: who"))
    assert cli.main(["run", "--once", "-c", str(file)]) == 0
    assert asked(capsys, tmp_path, "forgets", "reproduce", "2.0")["same"]
    asked(capsys, tmp_path, "forgets", "erase", "--key", "bob")
    error = asked(capsys, tmp_path, "forgets", "reproduce", "2.0", code=5)["error"]
    assert "erased with their subject" in error["message"]
    assert asked(capsys, tmp_path, "forgets", "doctor")["sound"]
    assert asked(capsys, tmp_path, "forgets", "explain", "2.0")["rows"]["from"] == "2026-01-01T00:00:00Z"
    assert asked(capsys, tmp_path, "forgets", "rollback")["previous"]
    assert cli.main(["erase", "--key", "eve", "-c", str(file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(asked(capsys, tmp_path, "forgets", "versions"))


def test_other_settings_reproduce_nothing(folder, capsys):
    """They are told apart before anything is trained."""
    text = (folder / "sgd.yaml").read_text()
    (folder / "other.yaml").write_text(text.replace("random_state: 3", "random_state: 4"))
    error = asked(capsys, folder, "other", "reproduce", "1.0", code=5)["error"]
    assert "other settings" in error["message"]
    assert not asked(capsys, folder, "other", "doctor", code=5)["sound"]


def test_a_changed_label_is_noticed(folder, capsys, monkeypatch):
    """The data's own identity is compared before the model's: what differs is said, with code 5."""
    from perennial.production import reproduce as module

    true = module._labels

    def other(*arguments):
        labels, classes = true(*arguments)
        return {**labels, 5: "no" if labels[5] == "yes" else "yes"}, classes

    monkeypatch.setattr(module, "_labels", other)
    told = asked(capsys, folder, "naive", "reproduce", "1.0", code=5)
    assert (told["same"], told["state_again"]) == (False, "")
    assert told["data"] != told["data_again"]
    assert cli.main(["reproduce", "1.0", "-c", str(folder / "naive.yaml")]) == 5
    assert "NOT the same training data" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_finds_nothing(folder, capsys, kind):
    """Every ledger that a run left is sound."""
    assert asked(capsys, folder, kind, "doctor") == {"deployment": kind, "sound": True, "findings": []}


def test_the_doctor_mends_leftovers(folder, capsys):
    """They are safe, told as such, and removed under the lease only; who runs meanwhile is named."""
    file = configure(folder, "naive", "mended")
    with running(file) as (run, _, ledger):
        until(run, ledger, 1)
        told = asked(capsys, folder, "mended", "doctor")
        assert told["sound"]
        ledger.blobs.put(b"left by nobody" * 9000)
        told = asked(capsys, folder, "mended", "doctor")
        assert told["sound"]
        assert [found["safe"] for found in told["findings"]] == [True]
    told = asked(capsys, folder, "mended", "doctor", "--repair")
    assert [found["mended"] for found in told["findings"]] == [True]
    assert asked(capsys, folder, "mended", "doctor")["findings"] == []


def test_the_doctor_looks_at_the_source(folder, capsys, tmp_path):
    """A file that was read and is gone is unsafe: no run can go on."""
    (tmp_path / "rows").mkdir()
    pq.write_table(rows().slice(0, 120), tmp_path / "rows" / "0.parquet")
    configure(tmp_path, "naive", "moved")
    assert cli.main(["run", "--once", "-c", str(tmp_path / "moved.yaml")]) == 0
    (tmp_path / "rows" / "0.parquet").rename(tmp_path / "rows" / "1.parquet")
    told = asked(capsys, tmp_path, "moved", "doctor", code=5)
    assert any("no longer in" in found["what"] for found in told["findings"])


def test_a_source_that_is_away_is_a_finding(folder, capsys, tmp_path):
    """The doctor looks at all the rest, code 5; an operator can roll back, which is when they need to most."""
    (tmp_path / "rows").mkdir()
    pq.write_table(rows().slice(0, 200), tmp_path / "rows" / "0.parquet")
    configure(tmp_path, "naive", "away")
    assert cli.main(["run", "--once", "-c", str(tmp_path / "away.yaml")]) == 0
    (tmp_path / "rows").rename(tmp_path / "elsewhere")
    told = asked(capsys, tmp_path, "away", "doctor", code=5)
    assert [found["what"].partition(":")[0] for found in told["findings"]] == ["the source"]
    assert "is no longer in" in told["findings"][0]["what"]
    assert asked(capsys, tmp_path, "away", "rollback")["champion"]
    assert asked(capsys, tmp_path, "away", "reproduce", "1.0")["same"]
    assert asked(capsys, tmp_path, "away", "run", "--once", code=2)["error"]["problems"][0]["path"] == "stream.source"
    (tmp_path / "elsewhere").rename(tmp_path / "rows")
    assert asked(capsys, tmp_path, "away", "doctor")["sound"]


# -- models elsewhere -------------------------------------------------------------------------------------------------


def test_export_writes_what_the_framework_reads(folder, capsys, tmp_path):
    """Booster files as LightGBM reads them, with the columns and their words beside."""
    import lightgbm

    told = asked(capsys, folder, "trees", "export", "2.0", "--output", str(tmp_path / "out"))
    assert lightgbm.Booster(model_file=told["path"]).num_trees() == 5
    [columns] = (tmp_path / "out").glob("*.columns.json")
    assert [c["name"] for c in json.loads(columns.read_text())] == ["a", "b", "word"]


def test_predictions_are_those_of_the_run(folder, capsys, tmp_path):
    """The rows of the last turn, from a file without labels, are predicted as the ledger says they were."""
    from perennial.production import tables

    with opened(folder / "trees.yaml", create=False) as (_, ledger):
        entry = [entry for entry in ledger.entries() if entry.predictions][-1]
        said = tables.from_bytes(ledger.get(entry.predictions))
    some = rows().slice(entry.first, entry.rows).drop_columns(["y"])
    for suffix, write in (("parquet", pq.write_table), ("csv", pa.csv.write_csv)):
        write(some, tmp_path / f"new.{suffix}")
        output = tmp_path / f"said.{suffix}"
        told = asked(capsys, folder, "trees", "predict", str(tmp_path / f"new.{suffix}"), "--output", str(output),
                     "--version", entry.serving)  # fmt: skip
        assert (told["version"], told["rows"]) == (entry.serving, entry.rows)
        found = pq.read_table(output) if suffix == "parquet" else pa.csv.read_csv(output)
        assert found.column("id").to_pylist() == some.column("id").to_pylist()
        assert found.column("prediction").to_pylist() == said.column("prediction").to_pylist()
        for name in ("proba_yes", "proba_no"):
            assert np.allclose(found.column(name), said.column(name), rtol=1e-12, atol=0)


def test_predict_takes_words_it_never_saw_and_no_id(folder, capsys, tmp_path):
    """They are as unknown to the model as any; a row's number is its id, and the ledger stays as it is."""
    table = pa.table({"word": ["mauve", None], "b": [0.5, None], "a": [0.1, 2.0]})
    pq.write_table(table, tmp_path / "odd.parquet")
    before = asked(capsys, folder, "trees", "versions")
    asked(capsys, folder, "trees", "predict", str(tmp_path / "odd.parquet"), "-o", str(tmp_path / "o.parquet"))
    found = pq.read_table(tmp_path / "o.parquet")
    assert found.column("id").to_pylist() == [0, 1]
    assert None not in found.column("prediction").to_pylist()
    assert asked(capsys, folder, "trees", "versions") == before


def test_predict_refuses_features_of_past_rows(folder, capsys, tmp_path):
    """A file apart has no past: the rows belong into the source."""
    (tmp_path / "rows").symlink_to(folder / "rows")
    (tmp_path / "own_features_of_operate.py").write_text("def same(past, now):\n    return now[['a', 'b']]\n")
    file = configure(tmp_path, "naive", "looks")
    text = file.read_text().replace(
        "  id: id", "  id: id\n  features: {build: 'own_features_of_operate:same', lookback: 1d}"
    )
    file.write_text(text)
    assert cli.main(["run", "--once", "-c", str(file)]) == 0
    last = asked(capsys, tmp_path, "looks", "versions")[-1]["number"]
    assert asked(capsys, tmp_path, "looks", "reproduce", last)["same"]
    pq.write_table(rows().slice(0, 3), tmp_path / "few.parquet")
    error = asked(capsys, tmp_path, "looks", "predict", str(tmp_path / "few.parquet"), "-o",
                  str(tmp_path / "o.parquet"), code=2)["error"]  # fmt: skip
    assert error["problems"][0]["path"] == "stream.features.build"
    assert "append the rows" in error["message"]


def test_predict_refuses_what_it_cannot_read_or_must_not_write(folder, capsys, tmp_path):
    """A column that lacks, one of another type, and an output among the rows of the stream."""
    pq.write_table(pa.table({"a": [1.0], "word": ["red"]}), tmp_path / "lacks.parquet")
    output = ["-o", str(tmp_path / "o.parquet")]
    error = asked(capsys, folder, "trees", "predict", str(tmp_path / "lacks.parquet"), *output, code=3)["error"]
    assert "'b'" in error["message"]
    pq.write_table(pa.table({"a": ["x"], "b": [1.0], "word": ["red"]}), tmp_path / "type.parquet")
    assert "double" in asked(
        capsys, folder, "trees", "predict", str(tmp_path / "type.parquet"), *output, code=3
    )["error"]["message"]  # fmt: skip
    pq.write_table(rows().slice(0, 3), tmp_path / "few.parquet")
    into = ["-o", str(folder / "rows" / "9.parquet")]
    asked(capsys, folder, "trees", "predict", str(tmp_path / "few.parquet"), *into, code=2)
    asked(capsys, folder, "trees", "predict", str(tmp_path / "few.parquet"), "-o", "said.txt", code=2)
    for name in ("none.parquet", "notes.txt"):
        error = asked(capsys, folder, "trees", "predict", str(tmp_path / name), *output, code=2)["error"]
        assert error["field"] == "file"  # and no setting of the configuration
        assert name in error["message"]
    assert not (tmp_path / "o.parquet").exists()
