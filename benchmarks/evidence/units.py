"""What was measured before, by everything that it depends on: hours of work are not lost with the session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import perennial

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".evidence"
T = TypeVar("T")


def kept(part: str, key: Any, make: Callable[[], T]) -> T:
    """What ``make`` gave for a part and a key, with this very code; made now if it was not before.

    Parameters
    ----------
    part : str
        A module of this package.
    key : plain data
        What else decides what it gives.
    make : callable
        Gives plain data.
    """
    name = hashlib.sha256(f"{part}{json.dumps(key, sort_keys=True)}{_code(part)}".encode()).hexdigest()[:24]
    path = KEPT / part / f"{name}.json"
    if path.exists():
        found: T = json.loads(path.read_text(encoding="utf-8"))
        return found
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made), encoding="utf-8")
    return made


def _code(part: str) -> str:
    """Digest of what learns, decides and measures: a change of it is measured anew."""
    sha = hashlib.sha256()
    package = Path(perennial.__file__).parent
    homes = [package / name for name in ("core", "learners", "strategies", "triggers", "windows", "metrics", "stream")]
    files = [file for home in homes for file in sorted(home.rglob("*.py"))]
    for file in [
        *files,
        package / "engine.py",
        Path(__file__).with_name(f"{part}.py"),
        Path(__file__).with_name("streams.py"),
    ]:
        sha.update(file.read_bytes())
    return sha.hexdigest()
