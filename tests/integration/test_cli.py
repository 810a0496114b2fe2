"""The program as people run it: a child process, real data, the real replay."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from perennial import cli
from perennial.config import load
from tests import command

ROWS = 1_500


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a small drifting stream and a module with look-back features and a model factory."""
    folder = tmp_path_factory.mktemp("project")
    random = np.random.default_rng(5)
    at = np.datetime64("2026-01-01", "us") + np.arange(ROWS) * np.timedelta64(1, "h")
    x, z = random.normal(size=ROWS), random.normal(size=ROWS)
    y = np.where(x + np.linspace(-2, 2, ROWS) * z > 0, "yes", "no")
    (folder / "calls").mkdir()
    table = pa.table({"at": at, "x": x, "z": z, "y": y})
    pa.csv.write_csv(table.slice(0, 700), folder / "calls" / "a.csv")
    pa.csv.write_csv(table.slice(700), folder / "calls" / "b.csv")
    (folder / "own_models_of_test.py").write_text(
        "from sklearn.linear_model import SGDClassifier\n"
        "def online(alpha):\n    return SGDClassifier(loss='log_loss', alpha=alpha, random_state=0)\n"
    )
    (folder / "perennial.yaml").write_text(
        """\
# weekly or daily?
name: calls
stream:
  source: calls
  time: at
  time_zone: UTC
  label: {column: y, delay: 6h}
  positive: yes
  batch: 1d
model: {estimator: 'own_models_of_test:online', params: {alpha: 0.01}}
initial: 14d
metrics: [log_loss, accuracy]
strategies:
  frozen: frozen
  weekly: {stateless: {every: 7d, window: {sliding: 14d}}}
  daily: {stateful: {every: 1d}}
"""
    )
    return folder


def perennial(folder, *arguments):
    """Run the program in a folder."""
    return command.perennial(*arguments, cwd=folder)


def test_from_configuration_to_recommendation(project):
    """Three files are written, JSON on stdout is the report's, and the recommendation runs to the same result."""
    done = perennial(project, "backtest", "--json", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert done.stdout == (project / "report" / "report.json").read_text()
    assert [s["name"] for s in report["strategies"]] == ["frozen", "weekly", "daily"]
    assert (project / "report" / "report.html").stat().st_size > 10_000
    recommended = load(project / "report" / "recommended.yaml")
    assert recommended.config.deploy == report["recommended"]["strategy"] == report["advice"]["strategy"]
    assert "# weekly or daily?" in recommended.document.text

    again = perennial(project, "backtest", "-c", "report/recommended.yaml", "-o", "again", "--json", "--no-cache")
    assert again.returncode == 0, again.stderr
    scores = [{s["name"]: s["scores"] for s in r["strategies"]} for r in (report, json.loads(again.stdout))]
    assert scores[0] == scores[1]


def test_a_rerun_trains_nothing_and_shows_the_table(project):
    """The cache beside the configuration gives every strategy; a pipe sees a table and no progress."""
    assert perennial(project, "backtest").returncode == 0
    done = perennial(project, "backtest")
    assert done.returncode == 0
    assert "Recommended:" in done.stdout
    assert "recommended.yaml" in done.stdout
    assert done.stderr == ""


def test_init_then_backtest(project, tmp_path):
    """What is guessed from a file runs as it is."""
    done = perennial(tmp_path, "init", str(project / "calls"), "--target", "y")
    assert done.returncode == 0, done.stderr
    done = perennial(tmp_path, "backtest", "--jobs", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["strategies"]) == 4


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("source: calls", "source: cals", 2, "line 4: stream.source"),
        ("every: 7d", "evry: 7d", 2, "did you mean `every`"),
        ("  time: at", "  time: x", 3, "x"),
        ("column: y", "column: w", 2, "w"),
        ("positive: yes", "positive: maybe", 2, "maybe"),
        ("alpha: 0.01", "beta: 0.01", 2, "could not be called"),
    ],
)
def test_bad_input_is_one_message_and_a_code(project, old, new, code, words):
    """No traceback, nothing on stdout, and the folder of the report is not written to."""
    text = (project / "perennial.yaml").read_text()
    assert old in text
    (project / "bad.yaml").write_text(text.replace(old, new))
    done = perennial(project, "backtest", "-c", "bad.yaml", "-o", "bad", "--jobs", "1")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(project.glob("bad/*"))


def test_a_reader_that_stops_early_is_no_bug(project):
    """`perennial ... | head -1` leaves no traceback."""
    line = f"{sys.executable} -m perennial version | head -1"
    done = subprocess.run(line, shell=True, cwd=project, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("known", "quality", "code", "words"),
    [
        (1, "quality: {labelled: 0.9}", 2, "line 5: quality.labelled=0.9: needs a fixed `stream.label.delay`"),
        (-1, "quality: {nulls: 0.5}", 3, "correct `stream.label.known_at`, or use `stream.label.delay`"),
    ],
)
def test_settings_are_named_as_the_file_has_them(tmp_path, capsys, known, quality, code, words):
    """Who writes YAML is not told to set what only Python has."""
    times = np.datetime64("2026-01-01", "us") + np.arange(300) * np.timedelta64(6, "h")
    table = pa.table(
        {"at": times, "k": times + np.timedelta64(known, "h"), "x": np.arange(300.0), "y": ["a", "b"] * 150}
    )
    pq.write_table(table, tmp_path / "calls.parquet")
    (tmp_path / "perennial.yaml").write_text(
        "stream: {source: calls.parquet, time: at, label: {column: y, known_at: k}}\n"
        "model: sklearn.naive_bayes.GaussianNB\ninitial: 10d\n"
        f"strategies: {{weekly: {{stateless: {{every: 7d}}}}}}\n{quality}\n"
    )
    assert cli.main(["backtest", "-c", str(tmp_path / "perennial.yaml"), "--jobs", "1"]) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("time: att", "line 3: stream.time='att': no such column: did you mean `at`?"),
        ("label: {column: yy, delay: 1d}", "line 4: stream.label.column='yy': no such column"),
        ("drop: [nothing]", "line 5: stream.drop='nothing': no such column"),
    ],
)
def test_a_column_that_is_not_there_is_told_with_its_line(tmp_path, wrong, told):
    """What only the data can show to be wrong is told where it was written, before any training."""
    times = np.datetime64("2026-01-01", "us") + np.arange(300) * np.timedelta64(6, "h")
    table = pa.table({"at": times, "x": np.arange(300.0), "w": np.ones(300), "y": ["a", "b"] * 150})
    pq.write_table(table, tmp_path / "calls.parquet")
    lines = ["time: at", "label: {column: y, delay: 1d}", "drop: [w]"]
    key = wrong.partition(":")[0]
    lines = [wrong if line.startswith(key) else line for line in lines]
    (tmp_path / "perennial.yaml").write_text(
        "stream:\n  source: calls.parquet\n  " + "\n  ".join(lines) + "\nmodel: sklearn.naive_bayes.GaussianNB\n"
        "initial: 10d\nstrategies: {weekly: {stateless: {every: 7d}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "perennial", "backtest"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert told in done.stderr
