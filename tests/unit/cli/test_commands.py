"""init, backtest and demo, with the replay itself stood in for."""

from __future__ import annotations

import errno
import json
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet
import pytest

from perennial import cli
from perennial.config import load, parse

REPORT = {"strategies": [{"name": "weekly"}], "data": {}}


class Result:
    """A result that writes what it is told."""

    def __init__(self, best):
        self.recommended = best and {"strategy": best, "by": "log_loss", "reason": "lowest"}

    def to_html(self, path):
        path.write_text("<html>")

    def to_json(self, path):
        path.write_text(json.dumps(REPORT) + "\n")

    def to_svg(self, path):
        path.write_text("<svg/>")

    def table(self):
        return "the table"


class Calls(list):
    """Keyword arguments of each call."""

    recommends = True


@pytest.fixture
def calls(monkeypatch):
    """What the backtest was called with; it recommends the first strategy, unless ``recommends`` is turned off."""
    made = Calls()

    def backtest(stream, strategies, **settings):
        made.append({"stream": stream, "strategies": strategies, **settings})
        return Result(next(iter(strategies)) if made.recommends else None)

    monkeypatch.setattr("perennial.replay.backtest", backtest)
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with data and a configuration in a subfolder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    times = pa.array([datetime(2026, 1, 1) + timedelta(hours=i) for i in range(500)], pa.timestamp("us"))
    table = pa.table({"at": times, "x": list(range(500)), "y": [i % 2 for i in range(500)]})
    pa.parquet.write_table(table, tmp_path / "conf" / "calls.parquet")
    (tmp_path / "conf" / "perennial.yaml").write_text(
        "# mine\nstream: {source: calls.parquet, time: at, label: y}\n"
        "model: sklearn.linear_model.SGDClassifier\ninitial: 5d\nstrategies: {weekly: {stateless: {every: 7d}}}\n"
    )
    return tmp_path


def test_backtest_writes_its_four_files_beside_the_configuration(folder, calls, capsys):
    """The report, its data and the recommendation, with the cache beside; the terminal says where."""
    assert cli.main(["backtest", "-c", "conf/perennial.yaml"]) == 0
    out = capsys.readouterr().out
    report = folder / "conf" / "report"
    assert sorted(p.name for p in report.iterdir()) == ["recommended.yaml", "report.html", "report.json", "report.svg"]
    recommended = load(report / "recommended.yaml")
    assert recommended.config.deploy == "weekly"
    assert recommended.folder == folder / "conf"
    assert "# mine" in recommended.document.text
    assert "the table" in out
    assert "conf/report/report.html" in out
    [call] = calls
    assert str(call["stream"].source) == "conf/calls.parquet"
    assert (call["jobs"], call["progress"]) == (None, None)
    assert call["cache"].absolute() == folder / "conf" / ".perennial" / "cache"


def test_json_is_exactly_the_report(folder, calls, capsys):
    """Nothing else is on stdout, byte for byte."""
    assert cli.main(["backtest", "-c", "conf/perennial.yaml", "--json", "-o", "out", "--no-cache", "-j", "1"]) == 0
    assert capsys.readouterr().out == (folder / "out" / "report.json").read_text()
    assert (calls[0]["jobs"], calls[0]["cache"]) == (1, None)


def test_without_a_recommendation_an_older_one_is_removed(folder, calls):
    """It would be mistaken for this run's."""
    assert cli.main(["backtest", "-c", "conf/perennial.yaml"]) == 0
    calls.recommends = False
    assert cli.main(["backtest", "-c", "conf/perennial.yaml"]) == 0
    assert not (folder / "conf" / "report" / "recommended.yaml").exists()


def test_what_cannot_be_written_is_known_before_training(folder, calls, capsys):
    """A file where the folder should be, and an output that would overwrite the configuration itself."""
    (folder / "taken").touch()
    assert cli.main(["backtest", "-c", "conf/perennial.yaml", "-o", "taken"]) == 2
    (folder / "conf" / "perennial.yaml").rename(folder / "conf" / "recommended.yaml")
    assert cli.main(["backtest", "-c", "conf/recommended.yaml", "-o", "conf"]) == 2
    assert cli.main(["backtest", "-c", "conf/recommended.yaml", "--cache", "c", "--no-cache"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not calls


def test_init_writes_what_backtest_reads(folder, calls, capsys):
    """The data are named as seen from the configuration, and the next command is said."""
    assert cli.main(["init", "conf/calls.parquet", "-o", "new/p.yaml", "--target", "y"]) == 0
    assert "perennial backtest -c new/p.yaml" in capsys.readouterr().out
    assert load("new/p.yaml").config.stream.source == "../conf/calls.parquet"
    assert cli.main(["backtest", "-c", "new/p.yaml"]) == 0
    assert list(calls[0]["strategies"]) == ["frozen", "sliding", "mix", "stateful"]
    assert load("new/report/recommended.yaml").config.deploy == "frozen"


def test_init_never_overwrites_without_force(folder, capsys):
    """The file that is there stays as it is."""
    before = (folder / "conf" / "perennial.yaml").read_text()
    assert cli.main(["init", "conf/calls.parquet", "-o", "conf/perennial.yaml"]) == 2
    assert (folder / "conf" / "perennial.yaml").read_text() == before
    assert "--force" in capsys.readouterr().err
    assert cli.main(["init", "conf/calls.parquet", "-o", "conf/perennial.yaml", "--force"]) == 0
    assert (folder / "conf" / "perennial.yaml").read_text() != before


def test_init_as_json_has_the_guesses(folder, capsys):
    """Roles, reasons, schedule and warnings, and nothing else on stdout."""
    assert cli.main(["init", "conf/calls.parquet", "--json", "-o", "perennial.yaml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["roles"] == {"time": "at", "label": "y", "id": None, "key": None}
    assert found["written"] == "perennial.yaml"
    assert found["next"] == "perennial backtest"


def test_init_as_json_is_a_look(folder, capsys):
    """Without --output nothing is written, and a configuration that is there is in nobody's way."""
    assert cli.main(["init", "conf/calls.parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] is None
    assert not (folder / "perennial.yaml").exists()
    (folder / "perennial.yaml").write_text("mine")
    assert cli.main(["init", "conf/calls.parquet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["next"] == "perennial init conf/calls.parquet"
    assert (folder / "perennial.yaml").read_text() == "mine"
    assert cli.main(["init", "conf/calls.parquet", "--json", "-o", "perennial.yaml"]) == 2


def test_init_asks_on_a_terminal_when_unsure(folder, monkeypatch, capsys):
    """A wrong answer is asked again; --no-input takes the guess."""
    import sys

    table = pa.parquet.read_table("conf/calls.parquet").rename_columns(["at", "x", "z"])
    pa.parquet.write_table(table, "odd.parquet")
    answers = iter(["nonsense", "x"])
    monkeypatch.setattr("typer.prompt", lambda role, default: next(answers))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["init", "odd.parquet", "-o", "a.yaml"]) == 0
    assert load("a.yaml").config.stream.label.column == "x"
    assert cli.main(["init", "odd.parquet", "-o", "b.yaml", "--no-input"]) == 0
    assert load("b.yaml").config.stream.label.column == "z"


def test_advise_answers_with_reasons_and_a_configuration(folder, capsys):
    """The answer, why, what cannot be known, and a configuration that reads back; only --output writes."""
    words = ["advise", "--family", "forest", "--label-delay", "1d", "--cadence", "1d", "--look-back", "60d"]
    assert cli.main([*words, "--no-input"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("stateless\n- ")
    assert "What cannot be known yet:" in out
    assert parse(out[out.index("# Written by") :], folder / "p.yaml").config.deploy == "stateless"
    assert not (folder / "p.yaml").exists()
    assert cli.main([*words, "-o", "new/p.yaml"]) == 0
    assert load("new/p.yaml").config.deploy == "stateless"
    assert "Wrote new/p.yaml" in capsys.readouterr().out
    assert cli.main([*words, "-o", "new/p.yaml"]) == 2
    assert cli.main([*words, "-o", "new/p.yaml", "--force"]) == 0


def test_advise_as_json_is_the_whole_advice(folder, capsys):
    """One document on stdout, in plain data; refusals have their field."""
    assert cli.main(["advise", "--family", "language-model", "--cadence", "30d", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["way"], told["deploy"], told["written"]) == ("both", "stateful", None)
    assert set(told) == {
        "way", "reasons", "unknown", "trigger", "window", "strategies", "deploy", "config", "written",
    }  # fmt: skip
    for words, field in (
        (["--json"], "family"),
        (["--family", "forrest", "--json"], "family"),
        (["--family", "linear", "--no-keep-data", "--window", "90d", "--json"], "window"),
        (["--family", "linear", "--label-delay", "soon", "--json"], "label_delay"),
    ):
        assert cli.main(["advise", *words]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["field"] == field


def test_advise_asks_on_a_terminal(folder, monkeypatch, capsys):
    """What was not given is asked for; an answer of nothing means that nobody knows."""
    answers = iter(["tree", "linear", "7d", "", "1d", "200", ""])
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))
    monkeypatch.setattr("typer.confirm", lambda question, default: True if "kept" in question else default)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert cli.main(["advise"]) == 0
    out = capsys.readouterr().out
    assert "There is no such kind among them: tree" in out
    assert "labels come 7d late" in out
    assert "every 1d, as you wish" in out
    assert next(answers, None) is None


def test_demo_runs_the_backtest_in_its_own_copy(folder, calls, monkeypatch, capsys):
    """Files are copied once; a configuration that the user changed is used as it is."""
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "bank.parquet").write_bytes((folder / "conf" / "calls.parquet").read_bytes())
    text = (folder / "conf" / "perennial.yaml").read_text().replace("calls", "bank")
    (bundle / "perennial.yaml").write_text(text)
    (bundle / "LICENCE.md").write_text("CC BY 4.0")
    (bundle / "live.yaml").write_text("name: live\n")
    monkeypatch.setattr("perennial.cli.demo._bundled", lambda: bundle)
    assert cli.main(["demo", "--no-live"]) == 0
    assert "Open demo/report/report.html" in capsys.readouterr().out
    (folder / "demo" / "perennial.yaml").write_text(text + "seed: 5\n")
    assert cli.main(["demo", "--no-live", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == REPORT
    assert [call["seed"] for call in calls] == [0, 5]


def test_a_full_disk_is_answered(folder, monkeypatch, capsys):
    """What is full, what to do, and that finished work is kept; no traceback."""

    def full(stream, strategies, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("perennial.replay.backtest", full)
    assert cli.main(["backtest", "-c", "conf/perennial.yaml"]) == 5
    said = capsys.readouterr().err
    assert "the disk is full: free some space in" in said
    assert ".perennial" in said
    assert "Traceback" not in said
