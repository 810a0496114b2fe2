"""The pages say what is so: their Python runs, every public name is in them, links and drawings are not stale."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import perennial
from perennial import gate, learners, strategies, triggers, windows
from perennial.core.records import Version
from perennial.replay.result import StrategyResult
from tests.command import perennial as perennial_here

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *(DOCS / "adr").glob("*.md")])
RUN = subprocess.run
WITH_CODE = [page for page in PAGES if "```python\n" in page.read_text(encoding="utf-8")]


def name_of(page: Path) -> str:
    """A page as tests call it."""
    return str(page.relative_to(DOCS))


def blocks(text: str) -> list[tuple[int, str]]:
    """Python blocks of a page, each with the number of the line before its first one."""
    found = re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in found]


def prose_and_code(page: str) -> str:
    """The text of a page."""
    return (DOCS / page).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """What a link may point at within a page: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def in_this_process(command, **how):
    """What ``subprocess.run`` gives; a command of ours is run here."""
    own = [sys.executable, "-m", "perennial"]
    return perennial_here(*command[len(own) :]) if command[: len(own)] == own else RUN(command, **how)


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_python_runs(page, tmp_path, monkeypatch):
    """The Python of a page runs from top to bottom as one program, and what it asserts is true."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", in_this_process)
    calls = {"timestamp": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)], "x": [1.0, 2.0, 3.0]}
    pq.write_table(pa.table({**calls, "target": ["no", "yes", "no"]}), "calls.parquet")  # configuration.md's file
    space: dict[str, object] = {"__name__": f"page_{page.stem}"}
    for line, code in blocks(page.read_text(encoding="utf-8")):
        exec(compile("\n" * line + code, str(page), "exec"), space)


def test_every_python_block_is_one_that_runs():
    """No block of Python is marked in a way that the test above would pass over."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^\s*```\s*(?:py|python)", text, flags=re.MULTILINE)) == len(blocks(text)), page


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("windows.md", windows),
        ("triggers.md", triggers),
        ("strategies.md", strategies),
        ("learners.md", learners),
        ("gate.md", gate),
        ("python.md", perennial),
    ],
    ids=lambda value: value.__name__ if isinstance(value, ModuleType) else value,
)
def test_every_public_name_is_in_its_page(page, module):
    """Whatever a module makes public, its page names as code."""
    code = " ".join(re.findall(r"```.*?```|`[^`]+`", prose_and_code(page), flags=re.DOTALL))
    missing = [name for name in module.__all__ if not re.search(rf"\b{name}\b", code)]
    assert not missing


def test_every_field_of_a_result_is_documented():
    """Fields of a strategy's result and of a version, and the methods of the whole result, are in python.md."""
    code = " ".join(re.findall(r"`([^`\n]+)`", prose_and_code("python.md")))
    names = [f.name for f in fields(StrategyResult) if not f.name.startswith("_")] + ["predictions"]
    names += [f.name for f in fields(Version)] + ["number", "trained_at"]
    names += [name for name in vars(perennial.BacktestResult) if not name.startswith("_")]
    names += [f.name for f in fields(perennial.Stream) if f.name != "_"]
    assert not [name for name in names if not re.search(rf"\b{name}\b", code)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    """Every relative link of a page is a file of the repository, and its anchor a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_page_is_in_the_index():
    """The index leads to each page, and the list of decisions to each decision."""
    index, decisions = prose_and_code("index.md"), prose_and_code("adr/README.md")
    assert not [page.name for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in index]
    assert not [
        page.name for page in (DOCS / "adr").glob("*.md") if page.name != "README.md" and page.name not in decisions
    ]


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "adr" and p.stem != "README"], ids=name_of)
def test_a_decision_says_all_four_things(page):
    """Context, options, choice and consequences, in that order."""
    found = re.findall(r"^\*\*(\w+)\.\*\*", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found == ["Context", "Options", "Choice", "Consequences"]


def test_drawings_are_not_stale():
    """The pictures of windows are what the windows select now; all of them, and no others, are shown."""
    drawn = runpy.run_path(str(DOCS / "pictures" / "draw.py"))["pictures"]()
    stored = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / "pictures").glob("windows-*.svg")}
    assert stored == drawn, "run: python docs/pictures/draw.py"
    shown = re.findall(r"!\[[^\]]+\]\(pictures/([^)]+)\)", prose_and_code("windows.md"))
    assert sorted(shown) == sorted(drawn)
