"""Adoptions that are killed at a failpoint, each in a process of its own, and adopted again."""

from __future__ import annotations

import json
import os
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perennial.core import failpoints
from perennial.core.errors import LedgerError
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment
from perennial.production.adopting import adopt
from perennial.production.service import leased
from tests.crash import deployments

#: places that an adoption does not come to: its turn takes no rows, and so has no bounds to fix
NOT_REACHED = ("intent.before", "intent.after")


def write_model(path: Path) -> None:
    """A native LightGBM file of the stream's columns, trained on other rows."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(9)
    words = pd.Categorical(np.array(["green", "red", "blue"])[rng.integers(0, 3, 200)])
    rows = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200), "word": words, "id": np.arange(200)})
    model = deployments.lightgbm().model.fit(rows.drop(columns="id"), rows["a"] > 0)
    model.booster_.save_model(path)


def adopted(made: Deployment, model: Path) -> str:
    """``"done"``, or why nothing was to be done."""
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs, inline_bytes=1000) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        try:
            adopt(made, ledger, lease, str(model), now=datetime(2026, 6, 1, tzinfo=UTC))
        except LedgerError as error:
            return str(error)
    return "done"


def killed(made: Deployment, model: Path, places: str) -> int:
    """Adopt in a forked process that dies where it is told to; gives its exit code."""
    if not (pid := os.fork()):
        failpoints.arm(places)
        adopted(made, model)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: Path) -> None:
    """Die once at each failpoint, in deployments that are equal but for their place, and say what came of it."""
    write_model(folder / "model.txt")
    for name in failpoints.NAMES:
        place = folder / f"at-{name}"
        deployments.write_stream(place / "rows")
        made = deployments.deployment("lightgbm", f"sqlite:///{place}/ledger.db", place)
        if name == "orphan.removed":  # something must be left over first
            killed(made, folder / "model.txt", "blob.after:1")
        status = killed(made, folder / "model.txt", name)
        print(json.dumps([name, status, adopted(made, folder / "model.txt")]), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
