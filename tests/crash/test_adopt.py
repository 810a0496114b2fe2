"""An adoption that is killed: there is nothing or there is champion 1.0, and adopting again ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from perennial.core.failpoints import NAMES
from tests.crash import adopting, deployments


def test_killed_at_every_step(tmp_path):
    """SIGKILL at each durable step; the second adoption does the job or says that it is done, and runs go on alike."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.adopting", str(tmp_path)], cwd=Path(__file__).parents[2], text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = {name: (status, what) for name, status, what in map(json.loads, done.stdout.splitlines())}
    assert list(told) == list(NAMES)
    straight = deployments_at(tmp_path, "straight")
    assert adopting.adopted(straight, tmp_path / "model.txt") == "done"
    adopted = deployments.remembered(straight)
    assert [saved.version.number for saved in adopted["versions"]] == ["1.0"]
    for name, (status, what) in told.items():
        assert status == (0 if name in adopting.NOT_REACHED else -signal.SIGKILL), name
        there = name in (*adopting.NOT_REACHED, "commit.after")
        assert ("has a model already" in what) if there else what == "done", name
        same(adopted, deployments.remembered(deployments_at(tmp_path, f"at-{name}")))
    deployments.run(straight)
    killed = deployments_at(tmp_path, "at-commit.inside")
    deployments.run(killed)
    same(deployments.remembered(straight), deployments.remembered(killed))


def deployments_at(folder: Path, name: str):
    """The deployment in a folder of its own; its rows are written if they are not there."""
    place = folder / name
    if not (place / "rows").exists():
        deployments.write_stream(place / "rows")
    return deployments.deployment("lightgbm", f"sqlite:///{place}/ledger.db", place)


def same(one: dict, other: dict) -> None:
    """Assert that two deployments remember the same, and that nothing is wrong with the other."""
    for part in one:
        assert one[part] == other[part], part
    assert not other["wrong"]
