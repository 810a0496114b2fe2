"""``perennial init``: look at a file and write a commented configuration."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.core.errors import ConfigError

if TYPE_CHECKING:
    from perennial.config.guessing import Guess


def command(
    data: Annotated[str, typer.Argument(help="A Parquet or CSV file, a folder of them, a glob, or a database's URL.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the configuration; `perennial.yaml`.")
    ] = None,
    time: Annotated[str | None, typer.Option("--time", help="The column of event times.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="The column of labels.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", "--no-input", help="Ask nothing; take every guess.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a configuration that is there.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the guesses as JSON on stdout; asks nothing, and writes only to --output."),
    ] = False,
) -> None:
    """Look at a file and write a commented configuration.

    Guesses what each column is, how much arrives at a time and what the first training gets, and says why. On a
    terminal it asks where it is unsure.
    """
    writes, output = output is not None or not as_json, output or Path("perennial.yaml")
    if writes and output.exists() and not force:
        raise ConfigError("output", str(output), "it is there already: give --force to overwrite it, or another name")
    from perennial.config.guessing import as_facts, guess

    found = guess(data, time=time, target=target)
    if found.unsure and not yes and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        found = guess(data, time=_asked("time", found, found.time), target=_asked("target", found, found.target))
    if writes:
        _write(output, found, data)
    following = "perennial backtest" if output == Path("perennial.yaml") else f"perennial backtest -c {output}"
    if as_json:
        written, following = (str(output), following) if writes else (None, f"perennial init {data}")
        typer.echo(json.dumps({**as_facts(found), "written": written, "next": following}, indent=1))
        return
    _show(found)
    typer.echo(f"\nWrote {output}. Read it, then run:  {following}")


def _asked(role: str, found: Guess, default: str) -> str:
    if role not in found.unsure:
        return default
    candidates = list(found.unsure[role])
    question = "Which column says when each row happened?" if role == "time" else "Which column is to be predicted?"
    typer.echo(f"{question} One of: {', '.join(candidates)}")
    while True:
        answer = str(typer.prompt(role, default=default))
        if answer in candidates:
            return answer
        typer.echo(f"There is no such column among them: {answer}")


def _write(output: Path, found: Guess, data: str) -> None:
    from perennial.config import parse
    from perennial.config.template import commented

    text = commented(found, name=_name(data), source=_relative(data, output.absolute().parent))
    parse(text, output)  # what is written must be readable
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError("output", str(output), f"cannot write it: {error.strerror}; name another place") from error


def _name(data: str) -> str:
    from perennial.stream.sources import is_url
    from perennial.stream.sql import Address

    if is_url(data):
        return Address.of(data).table
    path = Path(data)
    return path.absolute().parent.name if "*" in path.name else path.absolute().name.split(".")[0]


def _relative(data: str, folder: Path) -> str:
    """The data as seen from the configuration's folder; an absolute path elsewhere stays as it is."""
    from perennial.stream.sources import is_url
    from perennial.stream.sql import moved

    if is_url(data):
        return moved(data, lambda file: _relative(file, folder))
    path = Path(data)
    if path.is_absolute() and not path.is_relative_to(folder):
        return data
    return Path(os.path.relpath(path.absolute(), folder)).as_posix()


def _show(found: Guess) -> None:
    from rich.table import Table
    from rich.text import Text

    from perennial.cli import screen

    schedule = found.schedule
    rows = [
        ("time", found.time, found.reasons.get("time", "as you said")),
        ("label", found.target, found.reasons.get("label", "as you said")),
        ("id", found.id, found.reasons.get("id", "")),
        ("key", found.key, found.reasons.get("key", "")),
        ("task", found.task, found.reasons.get("model", "")),
        *(("drop", name, why) for name, why in found.drop.items()),
        *(("text", name, "long and nearly always different") for name in found.text),
        ("batch", str(schedule.batch), found.reasons.get("batch", "")),
        ("initial", str(schedule.initial), found.reasons.get("initial", "")),
    ]
    table = Table("setting", "guess", "why", box=None, pad_edge=False)
    for setting, value, why in rows:
        if value is not None:
            table.add_row(setting, Text(value), Text(why))
    out = screen.console()
    out.print(f"{found.source}: {found.rows:,} rows", markup=False, soft_wrap=True)
    out.print(table)
    out.print("labels count as known at once: say  label: {column: ..., delay: ...}  if yours come later", style="bold")
    for warning in found.warnings:
        out.print(f"Warning: {warning}", style="yellow", markup=False)
