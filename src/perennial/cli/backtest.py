"""``perennial backtest``: replay history under the strategies of a configuration."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli import screen
from perennial.core.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from perennial.config import Loaded
    from perennial.replay import BacktestResult

HTML, JSON, PICTURE, RECOMMENDED = "report.html", "report.json", "report.svg", "recommended.yaml"


def command(
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration.")] = Path("perennial.yaml"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; `report` beside the configuration.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes; one per CPU unless given.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder of finished trainings; `.perennial/cache` beside the configuration."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Train everything anew and keep nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of report.json on stdout.")] = False,
) -> None:
    """Replay history under several strategies.

    Says which strategy of the configuration to use. Writes report.html, report.json, report.svg and
    recommended.yaml. A rerun without changes trains nothing.
    """
    if cache is not None and no_cache:
        raise typer.BadParameter("give --cache or --no-cache, not both")
    replay(config, output=output, jobs=jobs, cache=cache, no_cache=no_cache, as_json=as_json)


def replay(
    config: Path, *, output: Path | None, jobs: int | None, cache: Path | None, no_cache: bool, as_json: bool
) -> None:
    """Run the backtest of a configuration file, write its report and show it."""
    from perennial.config import load

    loaded = load(config)
    beside = loaded.file.parent
    folder = _writable(output if output is not None else beside / "report", loaded)
    keep = None if no_cache else cache if cache is not None else beside / ".perennial" / "cache"
    result = _result(loaded, jobs, keep)
    written = write(result, loaded, folder)
    if as_json:
        typer.echo((folder / JSON).read_text(encoding="utf-8"), nl=False)
        return
    out = screen.console()
    out.print(result.table())
    out.print()
    for what, file in written.items():
        out.print(f"{what:<15}{file}", markup=False, soft_wrap=True)
    if result.recommended is not None and loaded.config.retention == "none":
        chosen = result.recommended["strategy"]
        kind = loaded.config.strategies[chosen].kind
        if kind not in ("stateful", "frozen"):
            out.print(
                f"\n{chosen} is {kind}: it trains on windows, and with retention none there are no rows for them. "
                "perennial run refuses it: deploy a stateful strategy, or give a duration.",
                markup=False,
            )


def _result(loaded: Loaded, jobs: int | None, cache: Path | None) -> BacktestResult:
    built = loaded.build()
    from perennial.replay import backtest

    try:
        with screen.progress() as progress:
            return backtest(built.stream, built.strategies, jobs=jobs, cache=cache, progress=progress, **built.settings)
    except ConfigError as error:
        raise loaded.placed(error) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        places, kept = f"{tempfile.gettempdir()} (TMPDIR)", ""
        if cache is not None:
            places, kept = (
                f"{places} and the cache {cache}",
                "; what was finished is in the cache and is not done twice",
            )
        need = f"the disk is full: free some space in {places}, or name other folders, and run again{kept}"
        raise LedgerError(need) from error


def write(result: BacktestResult, loaded: Loaded, folder: Path) -> dict[str, Path]:
    """Write the report's files, each whole or not at all; gives them by what they are."""
    written = {"Report": folder / HTML, "Data": folder / JSON, "Picture": folder / PICTURE}
    result.to_html(_aside(folder / HTML))
    result.to_json(_aside(folder / JSON))
    result.to_svg(_aside(folder / PICTURE))
    best = folder / RECOMMENDED
    if result.recommended is not None:
        text = loaded.deploying(result.recommended["strategy"], best)
        _aside(best).write_text(text, encoding="utf-8")
        written["Configuration"] = best
    else:
        best.unlink(missing_ok=True)  # an older one would be mistaken for this run's
    for file in written.values():
        os.replace(_aside(file), file)
    return written


def _aside(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _writable(folder: Path, loaded: Loaded) -> Path:
    """The folder, made if missing: a report that cannot be written is known before any training."""
    if (folder / RECOMMENDED).absolute() == loaded.file.absolute():
        raise ConfigError("output", str(folder), f"it would overwrite {loaded.file.name}: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = _aside(folder / JSON)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            "output", str(folder), f"cannot write there: {error.strerror}; name another folder"
        ) from error
    return folder
