"""A deployment on made-up rows, brought to several versions by ``perennial run``, and its server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from benchmarks.common import classified
from benchmarks.servers.client import Connection, answers, get
from benchmarks.servers.process import Server, free_port, serving, threads
from perennial.config import load
from perennial.core.features import Chunk, Column, Features, Kind, Schema
from perennial.core.protocols import Learner
from perennial.core.records import Prediction
from perennial.learners.export import export
from perennial.ledger.sql import SqlLedger

Floats = NDArray[np.float64]

NAME = "rows"
INFER = f"/v2/models/{NAME}/infer"

_CONFIG = """\
name: {name}
stream:
  source: serve
  time: at
  time_zone: UTC
  id: id
  label: {{column: y}}
  batch: {every}
model:
  estimator: {estimator}
  params: {params}
strategies:
  often: {{stateless: {{every: {every}, window: {{sliding: {window}}}}}}}
initial: {window}
deploy: often
ledger: sqlite:///ledger.db
{more}"""


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A deployment whose run has ended: its folder, where ``perennial.yaml`` is."""

    folder: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.folder / "perennial.yaml"

    @contextmanager
    def ledger(self) -> Iterator[tuple[SqlLedger, Any]]:
        """Its ledger, and the deployment that reads it."""
        deployment = load(self.config).deployment()
        with SqlLedger.open(deployment.ledger, deployment.name) as ledger:
            yield ledger, deployment

    def learners(self) -> dict[str, Learner]:
        """Every version by its number, loaded from the ledger."""
        with self.ledger() as (ledger, deployment):
            return {one.version.number: deployment.load(ledger.get(one.blob)) for one in ledger.versions()}

    def positive(self, rows: Floats) -> dict[str, Floats]:
        """What every version says offline of rows (n, d): the probability of class 1."""
        names = [f"x{j}" for j in range(rows.shape[1])]
        schema = Schema([Column(name, Kind.NUMBER, "double") for name in names])
        features = Features.of(Chunk(pa.table(dict(zip(names, rows.T, strict=True))), schema))
        return {number: _proba(learner.predict(features))[:, 1] for number, learner in self.learners().items()}

    def booster(self) -> Path:
        """The champion as a file of LightGBM's own."""
        with self.ledger() as (ledger, deployment):
            saved = ledger.version(ledger.alias("champion").version)
            learner = deployment.load(ledger.get(saved.blob))
        return export(learner, self.folder / "exported", "champion").path

    def start(self, *, workers: int = 1) -> AbstractContextManager[Server]:
        """``perennial serve``, which ends with the ``with``."""
        port = free_port()
        command = [
            sys.executable, "-m", "perennial", "serve", "--config", str(self.config), "--port", str(port), "--workers",
            str(workers),
        ]  # fmt: skip
        return serving(command, port, self.folder, ready=lambda port: _ready(port, workers))


def deployed(
    folder: Path, *, versions: int, rows: int, columns: int, estimator: str, params: dict[str, Any], more: str = ""
) -> Deployed:
    """Train as many versions, each on ``rows`` rows of the stream, a quarter of them new."""
    folder.mkdir(parents=True, exist_ok=True)
    every = rows // 4
    data = classified(rows + every * versions, columns)
    data.y[0] = 0  # classes stand in the order in which they came
    pyarrow.parquet.write_table(data.table, folder / "rows.parquet")
    chosen = ", ".join(f"{name}: {value}" for name, value in params.items())
    (folder / "perennial.yaml").write_text(
        _CONFIG.format(name=NAME, every=every, window=rows, estimator=estimator, params=f"{{{chosen}}}", more=more)
    )
    for command in (["push", "rows.parquet"], ["run", "--once"]):
        given = [sys.executable, "-m", "perennial", *command, "--config", "perennial.yaml"]
        done = subprocess.run(given, cwd=folder, capture_output=True, text=True, env=threads(), check=False)
        if done.returncode:
            raise RuntimeError(f"perennial {command[0]} failed: {done.stderr[-2000:]}")
    return Deployed(folder=folder)


def asked(count: int, rows: int, columns: int) -> Floats:
    """Rows to ask about, shape (count, rows, columns); none was trained on."""
    found: Floats = classified(count * rows, columns, seed=1).x.reshape(count, rows, columns)
    return found


def _ready(port: int, workers: int) -> bool:
    """Whether as many workers have a champion: one that is late would be given no connection."""
    if not answers(port, "/v2/health/ready"):
        return False
    connection = Connection(port)
    lines = connection.ask(get("/metrics"))[1].decode().splitlines()
    connection.close()
    ready = [line for line in lines if line.startswith("perennial_generation{") and not line.endswith(" 0")]
    return len(ready) >= workers


def _proba(prediction: Prediction) -> Floats:
    assert prediction.proba is not None
    return prediction.proba
