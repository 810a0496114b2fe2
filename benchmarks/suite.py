"""All benchmarks: run them, show a table, and keep the numbers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.common import Different, Figure, NotMeasured, Size, cores, versions

#: in the order in which they are shown: what is short comes first
NAMES = (
    "import_time",
    "engine_lightgbm",
    "river_rows",
    "shared_cadences",
    "two_processes",
    "block_sums",
    "memory",
    "gate",
    "durable_turn",
    "ingest_append",
    "serving",
    "swaps",
    "taking_in",
    "freshness",
)

FORMAT = 1  #: of results.json


@dataclass(kw_only=True)
class Outcome:
    """What a run of the benchmarks gave: figures, peers that are missing, and benchmarks whose results differed."""

    size: Size
    figures: list[Figure] = field(default_factory=list)
    missing: list[NotMeasured] = field(default_factory=list)
    different: dict[str, str] = field(default_factory=dict)


def run(
    names: Sequence[str],
    size: Size,
    *,
    rounds: int | None = None,
    electricity: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run benchmarks by name.

    Parameters
    ----------
    names : sequence of str
        Of :data:`NAMES`.
    size : {"full", "quick", "tiny"}
        How much data.
    rounds : int, optional
        Interleaved rounds; each benchmark's own number unless given.
    electricity : Path, optional
        The real stream for ``river_rows``.
    tell : callable
        Is told what is being done.
    """
    outcome = Outcome(size=size)
    for name in names:
        benchmark = import_module(f"benchmarks.{name}")
        begun = time.perf_counter()
        more = {"electricity": electricity} if name == "river_rows" else {}
        with TemporaryDirectory(prefix="perennial-benchmark-") as folder:
            try:
                chosen = rounds or (1 if size == "tiny" else 3)
                told = benchmark.measure(size, chosen, Path(folder), **more)
                figures = [one for one in told if isinstance(one, Figure)]
                outcome.missing += [one for one in told if isinstance(one, NotMeasured)]
                # fixed costs weigh too much in small sizes to hold them against a target
                outcome.figures += figures if size == "full" else [_aimless(figure) for figure in figures]
            except Different as error:
                outcome.different[name] = str(error)
        tell(f"{name}: {time.perf_counter() - begun:.0f} s")
    return outcome


def _aimless(figure: Figure) -> Figure:
    return replace(figure, at_most=None, at_least=None)


def show(outcome: Outcome, console: Console | None = None) -> None:
    """Print a table of the figures, under a line for each benchmark and peer."""
    table = Table(title=f"Perennial against its peers ({outcome.size})", box=box.SIMPLE_HEAD)
    table.add_column("what", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    for heading in ("rounds", "target", "met"):
        table.add_column(heading, no_wrap=True)
    before = None
    for figure in outcome.figures:
        if (heading := f"[bold]{figure.benchmark}[/] against {figure.peer}") != before:
            table.add_section()
            table.add_row(heading)
        before = heading
        spread = f"{min(figure.rounds):.3g}..{max(figure.rounds):.3g}" if len(figure.rounds) > 1 else ""
        value = f"{figure.value:.3g} {figure.unit}"
        met = {True: "yes", False: "[bold red]NO[/]", None: ""}[figure.met]
        table.add_row(f"  {figure.what}", value, spread, figure.target, met)
    for one in outcome.missing:
        table.add_section()
        table.add_row(f"[bold]{one.benchmark}[/] against {one.peer}: not measured: {one.reason}")
    for name, reason in outcome.different.items():
        table.add_section()
        table.add_row(f"[bold]{name}[/]: [bold red]results differ:[/] {reason}")
    (console or Console()).print(table)


def write(outcome: Outcome, path: Path) -> None:
    """Keep the figures as JSON: versions and ratios, nothing about the machine but its number of cores."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "size": outcome.size,
        "cores": cores(),
        "versions": versions(),
        "figures": [figure.record() for figure in outcome.figures],
        "not_measured": [asdict(one) for one in outcome.missing],
        "different": outcome.different,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
