"""``perennial push``: labelled rows into the inbox of a deployment that is served."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli import screen


def command(
    file: Annotated[Path, typer.Argument(help="A Parquet or CSV file with the stream's columns and its label.")],
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration, with `deploy` filled in.")] = Path(
        "perennial.yaml"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print how many rows there were as JSON on stdout.")] = False,
) -> None:
    """Push labelled rows into the inbox.

    For a deployment whose stream is `source: serve`: its history, before the first prediction, or examples that come
    from elsewhere. Rows are in order of time, and labels are known when a column `known_at` says, else `label.delay`
    after the event. The first push says what rows hold. Doing it again appends nothing twice.
    """
    from perennial.config import load
    from perennial.core.times import EPOCH, micros
    from perennial.production.examples import push_file

    loaded = load(config)
    deployment = loaded.deployment()
    pushed = push_file(deployment, file, now=micros(datetime.now(UTC) - EPOCH))
    if as_json:
        typer.echo(json.dumps({"deployment": deployment.name, **asdict(pushed)}))
        return
    already = f"; {pushed.before:,} were there already" if pushed.before else ""
    screen.console().print(f"{pushed.rows:,} rows pushed to {deployment.name}{already}.", markup=False)
