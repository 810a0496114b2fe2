"""The servers that ours is held against, each in an environment of its own, made on demand with these versions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.servers.client import answers
from benchmarks.servers.process import Server, free_port, serving

HERE = Path(__file__).parent
#: where environments of peers are kept: a few hundred megabytes each
CACHE = Path(os.environ.get("PERENNIAL_PEERS", HERE.parents[1] / ".peers"))

#: what each environment holds; LightGBM is the same everywhere
LIGHTGBM = "lightgbm==4.7.0"
REQUIREMENTS = {
    "mlflow": ("mlflow==3.17.2", LIGHTGBM),
    "mlserver": (
        "mlserver==1.7.1",
        "mlserver-lightgbm==1.7.1",
        "uvloop==0.21.0",
        LIGHTGBM,
    ),  # no worker starts with 0.23
    "litserve": ("litserve==0.2.19", LIGHTGBM),
}


class NotInstalled(Exception):
    """The environment of a peer could not be made; with the reason."""


def environment(name: str) -> Path:
    """The folder of programs of a peer's environment, which is made first if it is not there.

    Raises
    ------
    NotInstalled
        If it cannot be made, for want of a network say.
    """
    folder, wanted = CACHE / name, REQUIREMENTS[name]
    stamp = folder / "requirements.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != list(wanted):
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        for command in ([sys.executable, "-m", "venv", "--clear", folder], pip):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr[-500:]]
                raise NotInstalled(f"pip install {' '.join(wanted)}: {said[0]}")
        stamp.write_text(json.dumps(wanted))
    return folder / "bin"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """How a server is started, asked, and understood.

    Parameters
    ----------
    name : str
        What it is called in figures.
    start : callable
        Gives the running server within a ``with``.
    path : str
        Where rows are sent.
    question : callable
        The body for rows (n, d).
    positive : callable
        The probabilities of the positive class in the document that was answered.
    """

    name: str
    start: Callable[[], AbstractContextManager[Server]]
    path: str
    question: Callable[[NDArray[np.float64]], Any]
    positive: Callable[[Any], list[float]]


def tensor(rows: NDArray[np.float64]) -> dict[str, Any]:
    """Rows as one tensor of the Open Inference Protocol."""
    return {"inputs": [{"name": "rows", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}]}


def probabilities(document: Mapping[str, Any]) -> list[float]:
    """Of the second class, from the tensor ``probabilities`` (n, 2)."""
    found: list[float] = next(out["data"] for out in document["outputs"] if out["name"] == "probabilities")[1::2]
    return found


def bare(model: Path, folder: Path) -> Peer:
    """The floor: see ``bare.py``."""

    def start() -> AbstractContextManager[Server]:
        port = free_port()
        command = [sys.executable, str(HERE / "bare.py"), str(model), str(port)]
        return serving(command, port, folder, ready=lambda port: answers(port, "/"))

    return Peer(name="bare ASGI app", start=start, path="/", question=tensor, positive=probabilities)


_SAVE = """
import sys, lightgbm, numpy, mlflow.lightgbm
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
spec = lambda *shape: Schema([TensorSpec(numpy.dtype("float64"), shape)])
signature = ModelSignature(spec(-1, int(sys.argv[3])), spec(-1))
mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), sys.argv[2], signature=signature)
"""


def mlflow(model: Path, folder: Path, columns: int) -> Peer:
    """``mlflow models serve`` in the environment at hand, with one worker; the signature is one tensor."""
    programs = environment("mlflow")
    saved = folder / "model"
    quiet = {"PATH": f"{programs}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    subprocess.run(
        [programs / "python", "-c", _SAVE, model, saved, str(columns)], check=True, capture_output=True,
        env={**os.environ, **quiet}, cwd=folder,
    )  # fmt: skip

    def start() -> AbstractContextManager[Server]:
        port = free_port()
        command = [
            str(programs / "mlflow"), "models", "serve", "--model-uri", str(saved), "--env-manager", "local", "--host",
            "127.0.0.1", "--port", str(port), "--workers", "1",
        ]  # fmt: skip
        return serving(command, port, folder, ready=lambda port: answers(port, "/ping"), environment=quiet)

    return Peer(
        name="mlflow models serve", start=start, path="/invocations",
        question=lambda rows: {"inputs": rows.tolist()}, positive=lambda said: said["predictions"],
    )  # fmt: skip


def mlserver(model: Path, folder: Path, *, parallel: int = 1) -> Peer:
    """MLServer with its LightGBM runtime: ``parallel`` processes that predict (its default is 1), 0 for none apart."""
    programs = environment("mlserver")
    place = folder / "served"
    place.mkdir(parents=True, exist_ok=True)
    model_settings = {
        "name": "rows", "implementation": "mlserver_lightgbm.LightGBMModel", "parameters": {"uri": str(model)},
    }  # fmt: skip
    (place / "model-settings.json").write_text(json.dumps(model_settings))

    def start() -> AbstractContextManager[Server]:
        port = free_port()
        settings = {
            "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port(),
            "debug": False, "parallel_workers": parallel,
        }  # fmt: skip
        (place / "settings.json").write_text(json.dumps(settings))
        command = [str(programs / "mlserver"), "start", str(place)]
        return serving(command, port, folder, ready=lambda port: answers(port, "/v2/models/rows/ready"))

    return Peer(
        name="MLServer" if parallel else "MLServer in one process", start=start, path="/v2/models/rows/infer",
        question=tensor, positive=lambda said: said["outputs"][0]["data"],
    )  # fmt: skip


def litserve(model: Path, folder: Path) -> Peer:
    """LitServe: see ``lit.py``."""
    programs = environment("litserve")

    def start() -> AbstractContextManager[Server]:
        port = free_port()
        command = [str(programs / "python"), str(HERE / "lit.py"), str(model), str(port)]
        return serving(command, port, folder, ready=lambda port: answers(port, "/health"))

    return Peer(
        name="LitServe", start=start, path="/predict",
        question=lambda rows: {"rows": rows.tolist()}, positive=lambda said: said["predictions"],
    )  # fmt: skip
