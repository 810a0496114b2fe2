"""The reference of the command line, docs/cli.md, from the commands themselves.

``python -m perennial.cli.reference > docs/cli.md`` writes it; a test says when it is stale.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from typer.main import get_command

from perennial.cli import app
from perennial.cli.failures import BUG, CODES, INTERRUPTED

_INTRODUCTION = """\
# Command line

This page is generated: run `python -m perennial.cli.reference > docs/cli.md` after a change of the commands.

Results go to stdout, messages, warnings and progress to stderr. Progress shows on a terminal only; in a pipe
nothing moves. `python -m perennial` is the same program as `perennial`.

With `--json`, stdout holds exactly one JSON document: the result, or, if the command fails,

    {"error": {"kind": "ConfigError", "exit_code": 2, "message": "...", "problems": [...]}}

`kind` is the name of the error, `UsageError` for wrong arguments, or `Bug`. The error of a configuration file lists all
its `problems`, each with `line`, `path`, `got` and `need`; that of another setting has its `field`, and a missing
framework's its `extra`. The message for people is on stderr all the same.

## Exit codes

| code | error | meaning |
|---|---|---|
"""


def reference() -> str:
    """The whole page, as Markdown."""
    root: Any = get_command(app)
    return _INTRODUCTION + _codes() + "".join(_section(name, command) for name, command in root.commands.items())


def _codes() -> str:
    rows = [(0, "", "done")]
    for code in sorted({code for _, code, _ in CODES}):
        kinds = [kind.__name__ for kind, own, _ in CODES if own == code and kind.__module__.startswith("perennial")]
        rows.append((code, ", ".join(f"`{kind}`" for kind in kinds), next(m for _, own, m in CODES if own == code)))
    rows.insert(1, (BUG, "any other", "a bug, or an error in your own code: stderr has the traceback"))
    rows.append((INTERRUPTED, "", "interrupted; finished trainings are in the cache"))
    return "".join(f"| {code} | {kinds} | {meaning} |\n" for code, kinds, meaning in rows)


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(["perennial", name, *(p.name.upper() for p in arguments), "[OPTIONS]"])
    rows = "".join(_row(p) for p in command.params)
    table = f"\n| argument or option | meaning | default |\n|---|---|---|\n{rows}" if rows else ""
    return f"\n## perennial {name}\n\n    {usage}\n\n{inspect.cleandoc(command.help)}\n{table}"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    shown = f"`{default}`" if default not in (None, False) and not parameter.required else ""
    if parameter.required and parameter.param_type_name == "option":
        shown = "needed"
    return f"| {names} | {parameter.help} | {shown} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
