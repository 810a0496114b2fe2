"""``perennial adopt``: begin with a model that is there already."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli import screen, session


def command(
    model: Annotated[
        str, typer.Argument(help="A model file, the folder of an MLflow model, models:/name/version or runs:/id/path.")
    ],
    config: Annotated[Path, typer.Option("-c", "--config", help="The configuration, with `deploy` filled in.")] = Path(
        "perennial.yaml"
    ),
    classes: Annotated[
        str,
        typer.Option("--classes", help="Labels that the model's classes 0, 1, ... stand for, as in: no,yes."),
    ] = "",
    pickle: Annotated[
        bool, typer.Option("--pickle", help="Open a pickle: it runs the code of whoever wrote it.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger.")] = "",
    lease: Annotated[
        float, typer.Option("--lease", min=1.0, help="Seconds until another process may take over.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was adopted as JSON on stdout.")] = False,
) -> None:
    """Begin a deployment with a model that was trained elsewhere.

    It becomes champion 1.0, without an initial training: `perennial run` then predicts with it from the first row on,
    and trains as the strategy says. Columns, categories and classes are checked first; what differs is named, and
    nothing is done. Only for a deployment that has taken no turn yet.
    """
    from perennial.config import load
    from perennial.production.adopting import adopt

    loaded = load(config)
    deployment = loaded.deployment()
    labels = [word.strip() for word in classes.split(",")] if classes else []
    with session.leased(loaded, deployment, seconds=lease) as (ledger, held), session.one_thread():
        done = adopt(
            deployment, ledger, held, model, now=datetime.now(UTC), allow_pickle=pickle, classes=labels,
            actor=session.actor(), reason=reason,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({"deployment": deployment.name, **asdict(done)}, indent=1))
        return
    out = screen.console()
    what = f"{done.learner} from {done.source}, SHA-256 {done.digest}"
    out.print(f"{done.version} is champion of {deployment.name}: {what}", markup=False)
    out.print(f"features  {', '.join(done.features)}", markup=False)
    if done.classes:
        out.print(f"classes   {', '.join(map(str, done.classes))}", markup=False)
    rows = f"{done.asked} rows of the source" if done.asked else "made-up rows, since the source holds none"
    out.print(f"asked     {rows}: it says the same before and after it was saved")
    for note in done.notes:
        out.print(f"note      {note}", markup=False)
