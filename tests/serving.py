"""A deployment on generated rows, and a server of it in a process of its own: for tests that talk HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.command import perennial

PATIENCE = 180.0  #: seconds that a server may take to be ready on a busy machine

NUMBERS = """\
name: numbers
stream: {{source: rows.parquet, time: at, label: {{column: y, delay: 1h}}, batch: 1d{stream}}}
model: {{estimator: lightgbm.LGBMClassifier, params: {{n_estimators: 20, min_child_samples: 5, verbosity: -1}}}}
strategies: {{daily: {{stateless: {{every: 1d}}}}}}
initial: 2d
deploy: daily
{more}"""

MIXED = """\
name: mixed
stream:
  source: rows.parquet
  time: at
  id: call
  key: person
  drop: [note]
  label: {{column: y, delay: 1h}}
  batch: 1d{stream}
model: {{estimator: lightgbm.LGBMClassifier, params: {{n_estimators: 20, min_child_samples: 5, verbosity: -1}}}}
strategies: {{daily: {{stateless: {{every: 1d}}}}}}
initial: 2d
deploy: daily
{more}"""


def rows(n: int = 600, features: int = 4, seed: int = 0) -> Any:
    """Rows of four days: ``features`` numbers ``x0, x1, ...``, and a class of 0 and 1 that the first two tell."""
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(n, features))
    y = (X[:, 0] + X[:, 1] + 0.3 * draw.normal(size=n) > 0).astype(np.int64)
    columns: dict[str, Any] = {"at": _times(n)} | {f"x{j}": X[:, j] for j in range(features)} | {"y": y}
    return pa.table(columns)


def mixed_rows(n: int = 600, seed: int = 0) -> Any:
    """Rows with an id, a key, numbers of three types, words, a column that is dropped, and labels in words."""
    draw = np.random.default_rng(seed)
    amount, age = draw.normal(size=n), draw.integers(18, 90, size=n)
    colour = draw.choice(["red", "green", "blue"], size=n)
    y = np.where(amount + (colour == "red") > 0.3, "yes", "no")
    return pa.table({
        "at": _times(n), "call": [f"c{i}" for i in range(n)], "person": draw.integers(0, 50, size=n),
        "amount": amount, "age": pa.array(age, pa.int16()), "member": draw.random(n) < 0.5, "colour": colour,
        "note": ["nothing"] * n, "y": y,
    })  # fmt: skip


def _times(n: int) -> Any:
    start = np.datetime64("2026-01-01T00:00:00", "us")
    return pa.array(start + np.arange(n) * (4 * 86_400_000_000 // n), pa.timestamp("us", "UTC"))


def configure(folder: Path, text: str, table: Any, *, stream: str = "", more: str = "") -> Path:
    """Write rows and a configuration, and give its path; ``stream`` and ``more`` go into it as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "rows.parquet")
    config = folder / "perennial.yaml"
    config.write_text(text.format(stream=stream, more=more))
    return config


def run(config: Path, *arguments: str) -> None:
    """``perennial run --until-end``, in this process."""
    done = perennial("run", "-c", str(config), *(arguments or ("--until-end",)))
    assert done.returncode == 0, done.stderr


def deploy(folder: Path, *, features: int = 4, stream: str = "", more: str = "") -> Path:
    """A deployment of numbers with a champion; gives its configuration."""
    config = configure(folder, NUMBERS, rows(features=features), stream=stream, more=more)
    run(config)
    return config


def deploy_mixed(folder: Path, *, stream: str = "", more: str = "") -> Path:
    """A deployment of numbers and words, with ids and keys, that has a champion; gives its configuration."""
    config = configure(folder, MIXED, mixed_rows(), stream=stream, more=more)
    run(config)
    return config


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    host: str = "127.0.0.1"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    def events(self) -> list[dict[str, Any]]:
        """What it told so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and body of a GET; the body as JSON says it, else as text."""
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and body of a POST; bytes are sent as they are, anything else as JSON."""
        return self.ask("POST", path, body, headers)

    def ask(self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and body of any request."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        own = {"Content-Type": "application/json", **self.headers, **(headers or {})}
        request = urllib.request.Request(self.url + path, data=data, headers=own, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, _read(answer)
        except urllib.error.HTTPError as error:
            return error.code, _read(error)

    def wait(self, path: str = "/v2/health/ready") -> None:
        """Wait until a path answers with 200."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self.get(path)[0] == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and give the exit code once it ended."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def _read(answer: Any) -> Any:
    text = answer.read()
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


@contextmanager
def serving(config: Path, *args: str, ready: bool = True, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """``perennial serve`` at a free port, waited for until it is ready; it ends with the block."""
    log = config.parent / f"serve-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "perennial", "serve", "-c", str(config), "--port", "0", *args]
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out, stdout=out, text=True, env=_env() | dict(env or {}))
    try:
        server = Server(process, _port(process, log), log)
        server.wait("/v2/health/ready" if ready else "/v2/health/live")
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    """The port that a server says it listens at."""
    deadline = time.monotonic() + PATIENCE
    while True:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (event := json.loads(line))["event"] == "listening":
                return int(event["url"].rsplit(":", 1)[1])
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONWARNINGS": "default", "OMP_NUM_THREADS": "1"}
