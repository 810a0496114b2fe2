"""``python -m benchmarks.evidence [PART ...]``: measure, show, and keep what was found."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table as Drawn

from benchmarks.evidence.records import Cell, Part

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PAGE = HERE.parents[1] / "docs" / "evidence.md"
#: modules of this package, in the order of what is to be shown
PARTS = ("committee", "clicks", "insects", "triggers", "advice")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.evidence", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all unless named")
    parser.add_argument("--seeds", type=int, help="fewer seeds, for a trial; the results are then not kept")
    parser.add_argument("--page", action="store_true", help="measure nothing: write docs/evidence.md from the results")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)!r}: {', '.join(PARTS)}")
    if given.page:
        PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
        return 0
    settings = yaml.safe_load((HERE / "settings.yaml").read_text(encoding="utf-8"))
    console = Console()
    held = True
    for name in given.parts or PARTS:
        begun = time.perf_counter()
        seeds = range(given.seeds or settings["seeds"])
        part: Part = import_module(f"benchmarks.evidence.{name}").measure(settings[name], seeds, console.print)
        show(part, console)
        console.print(f"{name}: {time.perf_counter() - begun:.0f} s")
        held &= all(goal.holds for goal in part.goals)
        if given.seeds is None:
            keep(part, settings[name])
    return 0 if held else 1


def keep(part: Part, settings: Mapping[str, Any]) -> None:
    """Put a part into the results; other parts stay as they were."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    facts = asdict(part) | {"settings": dict(settings)}
    for goal, told in zip(part.goals, facts["goals"], strict=True):
        told["holds"] = goal.holds
    found[part.name] = facts
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def show(part: Part, console: Console) -> None:
    """Print a part: its goals first."""
    goals = [
        [g.what, g.value, f"{g.way} {g.limit:g}", "yes" if g.holds else f"NO, by {g.missed_by:.3g}", g.note]
        for g in part.goals
    ]
    console.print(_drawn(part.title, ["goal", "measured", "limit", "met", "note"], goals))
    for table in part.tables:
        console.print(_drawn(table.title, table.columns, table.rows))
    for note in part.notes:
        console.print(f"- {note}")


def page(found: Mapping[str, Any]) -> str:
    """The results as a page of the documentation."""
    out = [(HERE / "preface.md").read_text(encoding="utf-8").rstrip(), "", "## Goals", ""]
    out += ["| part | goal | measured | limit | met | note |", "|---|---|---|---|---|---|"]
    parts = [found[name] for name in PARTS if name in found]
    for part in parts:
        for goal in part["goals"]:
            met = "yes" if goal["holds"] else f"**no**, by {_missed(goal)}"
            cells = [f"[{part['name']}](#{_anchor(part['title'])})", goal["what"], goal["value"],
                     f"{goal['way']} {goal['limit']:g}", met, goal["note"]]  # fmt: skip
            out.append(f"| {' | '.join(map(_cell, cells))} |")
    for part in parts:
        out += ["", f"## {part['title']}", ""]
        out += [f"- {note}" for note in part["notes"]]
        for table in part["tables"]:
            out += [
                "",
                f"**{table['title']}**",
                "",
                f"| {' | '.join(table['columns'])} |",
                "|---" * len(table["columns"]) + "|",
            ]
            out += [f"| {' | '.join(map(_cell, row))} |" for row in table["rows"]]
    return "\n".join(out) + "\n"


def _missed(goal: Mapping[str, Any]) -> str:
    if goal["value"] is None:
        return "not measured"
    return f"{abs(goal['value'] - goal['limit']):.3g}"


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def _cell(value: Cell) -> str:
    told = f"{value:.4g}" if isinstance(value, float) else str("" if value is None else value)
    return told.replace("|", "/")


def _drawn(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Drawn:
    drawn = Drawn(title=title, box=box.SIMPLE_HEAD)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(
            *(f"{cell:.4g}" if isinstance(cell, float) else str("" if cell is None else cell) for cell in row)
        )
    return drawn


if __name__ == "__main__":
    raise SystemExit(main())
