"""The command line: parse, call, show. Heavy modules are imported inside commands, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from perennial import __version__
from perennial.cli import adopt, advise, backtest, demo, erase, init, operate, push, run, serve, token, version
from perennial.cli.failures import INTERRUPTED, tell, telling_warnings

__all__ = ["app", "main"]

app = typer.Typer(
    name="perennial",
    help="Keep deployed models current: compare stateless retraining and stateful training on your own history.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.command)
app.command("advise")(advise.command)
app.command("init")(init.command)
app.command("backtest")(backtest.command)
app.command("adopt")(adopt.command)
app.command("push")(push.command)
app.command("run")(run.command)
app.command("serve")(serve.command)
for _name, _command in operate.COMMANDS.items():
    app.command(_name)(_command)
app.command("erase")(erase.command)
app.command("token")(token.command)
app.command("version")(version.command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"perennial {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep deployed models current: compare stateless retraining and stateful training on your own history."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code; docs/cli.md has the table.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process unless given.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        with telling_warnings():
            code = app(args=arguments, prog_name="perennial", standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except Exception as error:  # a process ends here: every error becomes a message and a code
        return tell(error, as_json=as_json)
    if code == INTERRUPTED:
        typer.echo("\nInterrupted. Run again to go on: with a cache, what was finished is not done again.", err=True)
    return code if isinstance(code, int) else 0
