"""Errors as messages and exit codes: one table."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer

from perennial.core.errors import (
    ConfigError,
    DataError,
    FormatError,
    LearnerError,
    LedgerError,
    MissingExtra,
    PerennialError,
)

BUG = 1
INTERRUPTED = 130

#: exit code and meaning of each kind of error
CODES: tuple[tuple[type[Exception], int, str], ...] = (
    (ConfigError, 2, "a setting or an argument is wrong, or leads to no file"),
    (typer.TyperException, 2, "a setting or an argument is wrong, or leads to no file"),
    (DataError, 3, "the data break a rule, or what was read of them is there no more"),
    (LearnerError, 4, "a learner cannot do what was asked, or failed"),
    (LedgerError, 5, "what happened cannot be recorded or read, or was saved by another release"),
    (FormatError, 5, "what happened cannot be recorded or read, or was saved by another release"),
    (MissingExtra, 6, "an optional framework is not installed"),
)


def exit_code(error: BaseException) -> int:
    """The exit code of an error; 1 for a bug.

    Examples
    --------
    >>> exit_code(DataError("no rows")), exit_code(ZeroDivisionError())
    (3, 1)
    """
    return next((code for kind, code, _ in CODES if isinstance(error, kind)), BUG)


def tell(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong, to people on stderr and to programs on stdout; give the exit code.

    A message is one statement without a traceback, unless the error is none that Perennial raises on purpose.
    """
    code = exit_code(error)
    if code == BUG:
        traceback.print_exception(error, file=sys.stderr)
        print("This error was not foreseen: please report it with the lines above.", file=sys.stderr)
    else:
        print(f"Error: {_message(error)}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": facts(error)}, indent=1))
    return code


def facts(error: Exception) -> dict[str, Any]:
    """An error as plain data: kind, exit code, message, and what its kind has besides."""
    out: dict[str, Any] = {
        "kind": type(error).__name__ if isinstance(error, PerennialError) else "UsageError",
        "exit_code": exit_code(error),
        "message": _message(error),
    }
    if out["exit_code"] == BUG:
        out["kind"] = "Bug"
    if isinstance(error, MissingExtra):
        out["extra"] = error.extra
    if isinstance(error, ConfigError):
        problems = getattr(error.got, "all", None)  # of a configuration file: all that is wrong with it
        out |= {"problems": [p.to_dict() for p in problems]} if problems else {"field": error.field}
    return out


def _message(error: Exception) -> str:
    if isinstance(error, typer.TyperException) and hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        hint = f"\nTry: {context.command_path} --help" if context is not None else ""
        return f"{error.format_message()}{hint}"
    if isinstance(error, ConfigError | DataError):  # they may name settings as Python does
        from perennial.config.checking import in_yaml

        return in_yaml(str(error))
    return str(error) or type(error).__name__


@contextmanager
def telling_warnings() -> Iterator[None]:
    """Warnings as one line on stderr each, without the place in our code that gave them."""

    def show(
        message: Warning | str,
        category: type[Warning],  # noqa: ARG001 - the arguments of warnings.showwarning
        filename: str,  # noqa: ARG001
        lineno: int,  # noqa: ARG001
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        print(f"Warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
