"""The README does what it says: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perennial

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_python_runs(tmp_path, monkeypatch):
    """The Python of the README runs as it stands, and its comments are true."""
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    space: dict[str, object] = {}
    exec(
        compile(code.replace("pn.backtest(stream, {", "pn.backtest(stream, jobs=1, strategies={"), "README", "exec"),
        space,
    )
    result = space["result"]
    assert result["stateful"].versions[-1].number == "1.104"
    assert result["stateful"].predictions.column_names[:4] == ["row", "event_time", "label", "prediction"]
    assert set(result.recommended) == {"strategy", "by", "reason"}
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_two_commands_are_targets():
    """`make demo` and `make test` are there, and `make` lists them."""
    first = blocks("sh")[0]
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in first.strip().splitlines():
        command, target = shlex.split(line, comments=True)
        assert command == "make"
        assert re.search(rf"^{target}\b", listed, flags=re.MULTILINE)


def test_the_commands_for_ones_own_file_run(tmp_path):
    """`advise`, and `init` and `backtest`, as written, on a file called history.parquet."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=800)
    at = pd.date_range("2026-01-01", periods=800, freq="6h")
    pd.DataFrame({"at": at, "x": x, "y": np.where(x + rng.normal(size=800) > 0, "a", "b")}).to_parquet(
        tmp_path / "history.parquet"
    )
    for line in "".join(blocks("sh")[1:3]).strip().splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == ".venv/bin/perennial"
        done = subprocess.run(
            [sys.executable, "-m", "perennial", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "report").iterdir()} >= {"report.html", "report.json", "recommended.yaml"}


@pytest.mark.parametrize(
    "page", [README, (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")], ids=["README", "ARCHITECTURE"]
)
def test_links_lead_somewhere(page):
    """Every relative link and picture is a file or folder of the repository."""
    for target in re.findall(r"\]\(([^)#]+)", page):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_the_changelog_knows_this_version():
    """The newest entry of the changelog is this version."""
    (newest, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert newest == perennial.__version__


def test_architecture_names_files_that_exist():
    """Every module that ARCHITECTURE.md names is there."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z_/]+\.py)`", text):
        assert (ROOT / path).exists() or (ROOT / "src" / "perennial" / path).exists(), path
