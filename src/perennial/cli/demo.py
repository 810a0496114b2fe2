"""``perennial demo``: the bundled data through the real backtest."""

from __future__ import annotations

import sys
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from shutil import copyfile
from typing import Annotated

import typer

from perennial.cli import backtest
from perennial.core.errors import ConfigError

FILES = ("perennial.yaml", "bank.parquet", "LICENCE.md")


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to copy the demo to and run it in.")] = Path(
        "demo"
    ),
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; one per CPU unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of report.json on stdout.")] = False,
) -> None:
    """Compare strategies on bundled real data.

    Copies 41,188 calls of a bank, 2008 to 2010, and a configuration to a folder, and runs `perennial backtest` there.
    Files that are already in the folder are used as they are, so that you can change the configuration and run again.
    """
    _copy(output)
    config = output / FILES[0]
    backtest.replay(config, output=None, jobs=jobs, cache=None, no_cache=False, as_json=as_json)
    print(f"\nOpen {output / 'report' / backtest.HTML} in a browser.", file=sys.stderr if as_json else sys.stdout)
    print(
        f"Change {config} and run  perennial backtest -c {config}  to go on.",
        file=sys.stderr if as_json else sys.stdout,
    )


def _bundled() -> Traversable:
    return files("perennial") / "demo"


def _copy(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if not (folder / name).exists():
                with as_file(_bundled() / name) as source:
                    copyfile(source, folder / name)
    except OSError as error:
        raise ConfigError("output", str(folder), f"cannot write there: {error}; name another folder") from error
