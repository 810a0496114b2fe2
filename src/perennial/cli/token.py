"""``perennial token``: who may use the server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli import screen
from perennial.core.errors import ConfigError

if TYPE_CHECKING:
    from perennial.server.tokens import Token


def command(
    name: Annotated[str | None, typer.Argument(help="Who gets the token: a program or a person.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What it allows: predict, feedback, operate, read; may be given several times."),
    ] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="How long it is valid, e.g. 90d; for good.")] = None,
    revoke: Annotated[str | None, typer.Option("--revoke", help="Take the token of this name away.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the tokens there are.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="The file of tokens; that of the configuration, or tokens.yaml.")
    ] = None,
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration.")] = Path("perennial.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Make, list or revoke the tokens of `perennial serve`.

    A new token is printed once: the file keeps a hash of it. A server that is running takes a change of the file within
    seconds.
    """
    from perennial.core.times import duration
    from perennial.server import tokens

    if [name is not None, revoke is not None, list_them].count(True) != 1:
        raise ConfigError("name", name, "give a name, or one of --list and --revoke NAME")
    place = file if file is not None else _file(config)
    now = datetime.now(UTC)
    if list_them:
        return _show(tokens.read(place), now, as_json)
    if revoke is not None:
        gone = tokens.revoke(place, revoke)
        return typer.echo(json.dumps({"revoked": gone.name}) if as_json else f"{gone.name} is revoked")
    assert name is not None
    until = None if expires is None else now + duration(expires, "expires", positive=True)
    try:
        text, token = tokens.add(place, name, list(dict.fromkeys(scope or ())), now=now, expires=until)
    except OSError as error:
        need = f"cannot write there: {error.strerror or error}; name another file"
        raise ConfigError("file", str(place), need) from error
    if as_json:
        return typer.echo(json.dumps({"token": text, **_told(token, now), "file": str(place)}, indent=1))
    typer.echo(text)
    told = f"{name} may: {', '.join(token.scopes)}. It is shown this once; {place} has its hash."
    return typer.echo(told, err=True)


def _file(config: Path) -> Path:
    """The file that a configuration names, relative to its folder; tokens.yaml where there is none."""
    if not config.exists():
        return Path("tokens.yaml")
    from perennial.cli import session

    loaded = session.load(config)
    return loaded.folder / (loaded.config.serve.tokens or "tokens.yaml")


def _told(token: Token, now: datetime) -> dict[str, object]:
    told = {name: value for name, value in token.to_dict().items() if name != "sha256"}
    return {**told, "valid": token.valid(now)}


def _show(held: tuple[Token, ...], now: datetime, as_json: bool) -> None:
    told = [_told(token, now) for token in held]
    if as_json:
        return typer.echo(json.dumps(told, indent=1))
    from rich.table import Table

    names = ("name", "scopes", "created", "expires")
    lines = []
    for token, one in zip(held, told, strict=True):
        until = str(one.get("expires", "never")) + ("" if one["valid"] else " (over)")
        lines.append((token.name, ", ".join(token.scopes), str(one["created"]), until))
    table = Table(*names, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*line)
    out = screen.console()
    out.width = max(out.width, sum(2 + max(map(len, column)) for column in zip(names, *lines, strict=True)))
    return out.print(table)
