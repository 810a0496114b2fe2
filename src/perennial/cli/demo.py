"""``perennial demo``: the bundled data through the real backtest, and then live."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli import backtest, live
from perennial.core.errors import ConfigError

if TYPE_CHECKING:
    from perennial.client import Client

FILES = ("perennial.yaml", live.CONFIG, live.DATA, "LICENCE.md")


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to copy the demo to and run it in.")] = Path(
        "demo"
    ),
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; one per CPU unless given.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Serve at this port of 127.0.0.1.")] = 8000,
    no_live: Annotated[bool, typer.Option("--no-live", help="End after the backtest.")] = False,
    leave: Annotated[
        bool, typer.Option("--exit", help="Look at every part of what is live, and end: for scripts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of report.json on stdout.")] = False,
) -> None:
    """Compare strategies on bundled real data, then keep a model of it current under load.

    Copies 41,188 calls of a bank, 2008 to 2010, and two configurations to a folder, and runs `perennial backtest`.
    Then the calls come live: `perennial run` and `perennial serve` on 127.0.0.1, asked at speed, with labels that come
    back some seconds later, until Ctrl-C. Files that are already in the folder are used as they are, so that you can
    change a configuration and run again.
    """
    if not no_live:
        live.check_port(port)
    _copy(output)
    config = output / FILES[0]
    backtest.replay(config, output=None, jobs=jobs, cache=None, no_cache=False, as_json=as_json)

    def say(line: str) -> None:
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    say(f"\nOpen {output / 'report' / backtest.HTML} in a browser.")
    say(f"Change {config} and run  perennial backtest -c {config}  to go on.")
    if not no_live and not _live(output, port, leave, say):
        raise typer.Exit(1)


def _live(folder: Path, port: int, leave: bool, say: Callable[[str], None]) -> bool:
    from perennial.cli import live_checks

    url = f"http://127.0.0.1:{port}"

    def tell(check: live_checks.Check) -> None:
        say(f"{'ok ' if check.holds else 'NOT'} {check.what}: {check.seen}")

    def look(client: Client, seen: live.Seen, home: Path) -> bool:
        return live_checks.look(client, seen, home, url, tell)

    say("\nNow live.")
    return live.play(folder, port=port, leave=look if leave else None, say=say)


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
