"""Commands that hear of promotions, rejections and quarantines."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any, final

from perennial.core.errors import ConfigError
from perennial.production.run import Tell

SECONDS = 60.0  #: that a command may take; it holds up the next turn


@final
class Hooks:
    """Runs a command for each event of its kind, once the event is durable.

    A command that fails, or takes too long, is told and changes nothing. A crash right behind a commit may lose a call:
    the ledger, not a hook, is the record.

    Parameters
    ----------
    commands : mapping of {"promoted", "rejected", "quarantined"} to str
        Commands, split as a shell would and run without one.
    tell : callable
        Hears of commands that fail.

    Raises
    ------
    ConfigError
        If a command cannot be split.
    """

    def __init__(self, commands: Mapping[str, str], tell: Tell) -> None:
        self._tell = tell
        self._commands: dict[str, list[str]] = {}
        for kind, command in commands.items():
            try:
                self._commands[kind] = shlex.split(command)
            except ValueError as error:
                raise ConfigError(f"hooks.{kind}", command, f"cannot be read as a command: {error}") from error
            if not self._commands[kind]:
                raise ConfigError(f"hooks.{kind}", command, "give a command, or leave it out")

    def see(self, event: str, facts: Mapping[str, Any]) -> None:
        """Run the command of an event, if there is one."""
        kind = "rejected" if event == "verdict" and facts["outcome"] == "reject" else event
        command = self._commands.get(kind)
        if command is None:
            return
        told = json.dumps({"event": kind, **facts}, default=str)
        try:
            done = subprocess.run(command, input=told, text=True, capture_output=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            self._failed(kind, str(error))
            return
        if done.returncode:
            self._failed(kind, f"exit code {done.returncode}: {done.stderr.strip()[-500:]}")

    def _failed(self, kind: str, why: str) -> None:
        self._tell("hook failed", {"hook": kind, "error": why})
