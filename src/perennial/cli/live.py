"""The second half of the demo: a deployment that lives. A run, a server, and clients that ask and answer.

Nothing here is other than what a user does: ``perennial push``, ``run`` and ``serve``, and the Python client.
"""

from __future__ import annotations

import heapq
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.core.errors import ConfigError, PerennialError

if TYPE_CHECKING:
    from perennial.client import Client

CONFIG, DATA, FOLDER = "live.yaml", "bank.parquet", "live"
HISTORY = 24_000  #: calls that are pushed as history: the others are asked about
RATE = 150.0  #: calls asked about per second
UNANSWERED = 0.1  #: share of calls whose label never comes
THUMBED = 0.05  #: share of answers that somebody judges
LABEL_SECONDS = (1.0, 4.0)  #: how long a label takes: so they come out of order
START_SECONDS = 300.0  #: how long the server may take to have a champion


@dataclass
class Seen:
    """What clients saw: counts, and the versions that answered, in order of appearance."""

    asked: int = 0
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    labels: int = 0
    thumbs: int = 0
    versions: dict[str, int] = field(default_factory=dict)


def play(
    folder: Path, *, port: int, leave: Callable[[Client, Seen, Path], bool] | None, say: Callable[[str], None]
) -> bool:
    """Bring up the deployment, put load on it, and stay until interrupted, or until ``leave`` says how it went.

    Parameters
    ----------
    folder : Path
        The demo's folder, with its data and configuration.
    port : int
        Where to serve, on this machine alone.
    leave : callable, optional
        Looks at everything while the load runs, and says whether all is well; the demo ends with it.
    say : callable
        Tells a person what happens.

    Raises
    ------
    ConfigError
        If the port is taken.
    PerennialError
        If a part does not come up; what it said is in its log.
    """
    check_port(port)
    home = _fresh(folder)
    calls = _calls(folder / DATA)
    _write_history(calls[:HISTORY], home / "history.parquet")
    with ExitStack() as stack:
        say(f"pushing {HISTORY:,} calls as history")
        _once(home, "push", "history.parquet", "-c", CONFIG)
        stack.enter_context(_started(home, "run", "-c", CONFIG, "--poll", "0.1"))
        stack.enter_context(_started(home, "serve", "-c", CONFIG, "--port", str(port)))
        client = stack.enter_context(_client(f"http://127.0.0.1:{port}"))
        say("waiting for the first champion")
        _await_champion(client, home)
        say(f"open http://127.0.0.1:{port}/  to watch: {RATE:.0f} calls a second, labels some seconds later")
        seen, stop = Seen(), threading.Event()
        load = threading.Thread(target=_load, args=(client, calls[HISTORY:], seen, stop), name="load", daemon=True)
        load.start()
        try:
            if leave is not None:
                return leave(client, seen, home)
            say("Ctrl-C ends it")
            while load.is_alive():
                load.join(1.0)
        except KeyboardInterrupt:
            say("ending")
        finally:
            stop.set()
            load.join(10.0)
    return not seen.failed


def check_port(port: int) -> None:
    """Raise ``ConfigError`` if a port of this machine cannot be listened at."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            need = f"it cannot be listened at: {error.strerror}; name another, --port"
            raise ConfigError("port", port, need) from error


def _fresh(folder: Path) -> Path:
    """The folder of the live part, as nobody had run it before."""
    home = folder / FOLDER
    if home.exists():
        shutil.rmtree(home)
    home.mkdir()
    shutil.copyfile(folder / CONFIG, home / CONFIG)
    return home


# -- calls ------------------------------------------------------------------------------------------------------------


def _calls(file: Path) -> list[dict[str, Any]]:
    """Every call as it is asked about, with its label and an id."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(file).drop_columns(["timestamp"]).to_pylist()
    for number, row in enumerate(rows):
        row["call"] = f"call-{number:05d}"
    return rows


def _write_history(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """History that ends now: a millisecond a call."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = datetime.now(UTC) - timedelta(milliseconds=len(rows) + 1000)
    times = [start + timedelta(milliseconds=i) for i in range(len(rows))]
    pq.write_table(pa.Table.from_pylist([{"time": at, **row} for at, row in zip(times, rows, strict=True)]), file)


def _rounds(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The calls, over and over: each round under ids of its own."""
    number = 0
    while True:
        for row in rows:
            yield row if not number else {**row, "call": f"{row['call']}-{number}"}
        number += 1


def _load(client: Client, rows: Sequence[dict[str, Any]], seen: Seen, stop: threading.Event) -> None:
    """Ask about calls at a steady pace, one to twenty at a time, and send labels and thumbs back later."""
    draw, calls = random.Random(0), _rounds(rows)
    waiting: list[tuple[float, str, Any, Any]] = []  # due, id, label, what was predicted
    begun = time.monotonic()
    while not stop.is_set():
        some = [next(calls) for _ in range(draw.choice((1, 1, 2, 5, 20)))]
        asked = [{name: value for name, value in row.items() if name != "target"} for row in some]
        seen.asked += len(some)
        try:
            said = client.predict(asked)
            seen.answered += len(said.ids)
            seen.versions[said.version] = seen.versions.get(said.version, 0) + len(said.ids)
            for row, number, label in zip(some, said.ids, said.labels, strict=True):
                if draw.random() >= UNANSWERED:
                    due = time.monotonic() + draw.uniform(*LABEL_SECONDS)
                    heapq.heappush(waiting, (due, number, row["target"], label))
            _send_back(client, waiting, draw, seen)
        except Exception as error:  # whatever goes wrong is a failed request to whoever looks on
            seen.failed.append(f"{type(error).__name__}: {error}")
        stop.wait(max(begun + seen.asked / RATE - time.monotonic(), 0.0))


def _send_back(client: Client, waiting: list[tuple[float, str, Any, Any]], draw: random.Random, seen: Seen) -> None:
    now, labels = time.monotonic(), []
    while waiting and waiting[0][0] <= now:
        _, number, label, said = heapq.heappop(waiting)
        labels.append((number, label))
        if draw.random() < THUMBED:
            client.feedback(number, up=bool(label == said))
            seen.thumbs += 1
    if labels:
        seen.labels += len(client.labels(labels))


# -- processes --------------------------------------------------------------------------------------------------------


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "perennial", *arguments]


def _once(home: Path, *arguments: str) -> None:
    done = subprocess.run(_command(*arguments), cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PerennialError(f"perennial {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")


@contextmanager
def _started(home: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on while the block does; what it says goes to a file of its name."""
    with (home / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            _command(*arguments), cwd=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _client(url: str) -> Client:
    from perennial.client import Client

    return Client(url)


def _await_champion(client: Client, home: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with suppress(PerennialError):
            if client.ready():
                return
        time.sleep(0.3)
    said = "\n".join(f"{name}: {_last_line(home / f'{name}.log')}" for name in ("run", "serve"))
    raise PerennialError(f"there is no champion after {START_SECONDS:.0f} s; the last that was said:\n{said}")


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"
