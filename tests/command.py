"""The command line as another program would use it, without the seconds that an interpreter takes to start."""

from __future__ import annotations

import io
import subprocess
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path

from perennial import cli


def perennial(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``perennial`` with these words in a folder: its exit status, and what it wrote."""
    out, told = io.StringIO(), io.StringIO()
    with chdir(cwd) if cwd is not None else nullcontext(), redirect_stdout(out), redirect_stderr(told):
        status = cli.main(list(arguments))
    return subprocess.CompletedProcess(["perennial", *arguments], status, out.getvalue(), told.getvalue())
