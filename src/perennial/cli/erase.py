"""``perennial erase``: forget a subject."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli import screen, session


def command(
    key: Annotated[str, typer.Option("--key", help="The subject: a value of the stream's `key` column.")],
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration.")] = Path("perennial.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print what was erased as JSON on stdout.")] = False,
) -> None:
    """Forget a subject.

    Blanks their rows where the deployment keeps them, for good, and names every version that had learned from them and
    what to do about it. Stop the run first: this takes its lease. Rows that wait in an ingest log go too; what else the
    source holds, and backups, are not touched.
    """
    from perennial.production import Run

    loaded = session.load(config)
    deployment = loaded.deployment()
    with session.leased(loaded, deployment, create=False) as (ledger, lease):
        erased = Run(deployment, ledger, lease).erase(key)
    if as_json:
        typer.echo(json.dumps(asdict(erased)))
        return
    out = screen.console()
    out.print(f"{erased.rows:,} rows erased; {erased.words:,} words that nobody else used are forgotten.")
    if erased.waiting:
        out.print(f"{erased.waiting:,} rows that waited in the ingest log are gone.")
    for version in erased.versions:
        of = f"{version.rows:,} of its rows" if version.rows else f"through {version.through}"
        out.print(f"{version.number:>8}  had learned {of}; {version.advice}", markup=False, soft_wrap=True)
