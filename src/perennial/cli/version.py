"""``perennial version``."""

from __future__ import annotations

import json
import platform
from typing import Annotated

import typer

from perennial import __version__

_FRAMEWORKS = ("scikit-learn", "lightgbm", "xgboost", "catboost", "river", "torch")


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """Print the versions of what is installed."""
    found = {"perennial": __version__, "python": platform.python_version(), **_frameworks()}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    for name, number in found.items():
        typer.echo(f"{name} {number}")


def _frameworks() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    out = {}
    for name in _FRAMEWORKS:
        for package in (name, f"{name}-cpu"):
            try:
                out[name] = version(package)
            except PackageNotFoundError:
                continue
    return out
