"""What `perennial demo --exit` looks at before it ends: every part of the live deployment, as its users reach it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perennial.cli.live import Seen
    from perennial.client import Client

PATIENCE = 150.0  #: seconds that something may take to happen
PAGES = ("", "versions", "evidence", "data", "feedback", "backtests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at: what it is, whether it holds, and what was seen."""

    what: str
    holds: bool
    seen: str


def look(client: Client, seen: Seen, home: Path, url: str, tell: Callable[[Check], None]) -> bool:
    """Look at every part while the load goes on; whether all is well."""
    checks: tuple[tuple[str, Callable[[], tuple[bool, str]]], ...] = (
        ("clients are answered", lambda: _answered(seen)),
        ("a better version was promoted while they asked", lambda: _promoted(client, seen)),
        ("labels came back and were learned", lambda: _learned(client, seen)),
        ("a roll back reaches the answers", lambda: _rolled_back(client)),
        ("every page opens", lambda: _pages(url)),
        ("metrics are there", lambda: _metrics(url)),
        ("the ledger says what served when, and why", lambda: _told(home)),
        ("no request failed", lambda: (not seen.failed, f"{len(seen.failed)} failed of {seen.asked:,} calls asked")),
    )
    well = True
    for what, check in checks:
        try:
            holds, found = check()
        except Exception as error:  # a part that breaks is told like one that is wrong: the others are looked at too
            holds, found = False, f"{type(error).__name__}: {error}"
        tell(Check(what=what, holds=holds, seen=found))
        well = well and holds
    return well


def _wait(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _answered(seen: Seen) -> tuple[bool, str]:
    holds = _wait(lambda: seen.answered >= 500)
    return holds, f"{seen.answered:,} calls"


def _promoted(client: Client, seen: Seen) -> tuple[bool, str]:
    first = next(iter(seen.versions), "")
    holds = _wait(lambda: client.champion().answers not in (None, first))
    return holds, " → ".join(seen.versions)


def _learned(client: Client, seen: Seen) -> tuple[bool, str]:
    versions = client.versions()
    return len(
        versions
    ) > 1 and seen.labels > 0, f"{seen.labels:,} labels, {seen.thumbs} thumbs, {len(versions)} versions"


def _rolled_back(client: Client) -> tuple[bool, str]:
    moved = client.rollback(reason="the demo looks whether this works")
    holds = _wait(lambda: client.champion().answers == moved.champion)
    client.promote(str(moved.previous), reason="the demo is done looking")
    return holds, f"{moved.previous} → {moved.champion} → {moved.previous}"


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def _pages(url: str) -> tuple[bool, str]:
    for page in PAGES:
        if "<html" not in _get(f"{url}/ui/{page}"):
            return False, f"/ui/{page} is no page"
    return True, ", ".join(f"/ui/{page}" for page in PAGES)


def _metrics(url: str) -> tuple[bool, str]:
    lines = [line for line in _get(f"{url}/metrics").splitlines() if line and not line.startswith("#")]
    return any(line.startswith("perennial_") for line in lines), f"{len(lines)} series"


def _told(home: Path) -> tuple[bool, str]:
    from perennial.cli.live import CONFIG

    asked = [sys.executable, "-m", "perennial", "explain", "champion", "-c", CONFIG]
    done = subprocess.run(asked, cwd=home, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.strip()]
    return done.returncode == 0 and len(told) > 3, told[0] if told else done.stderr.strip()
