"""A server as a tree of processes: started, awaited, weighed and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


class NotStarted(Exception):
    """A server did not come up; with the end of what it said."""


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server: the leader of a session of its own, and whoever it started."""

    root: int
    port: int
    log: Path

    def processes(self) -> dict[int, list[str]]:
        """All processes of the tree, with the fields of ``/proc/<pid>/stat`` behind the name (``man proc``).

        Whoever descends from the root, and whoever is left of its session when its parent went.
        """
        stats: dict[int, list[str]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    text = Path(entry.path, "stat").read_text()
                    stats[int(entry.name)] = text[text.rindex(")") + 2 :].split()
        tree = {pid for pid, fields in stats.items() if pid == self.root or int(fields[3]) == self.root}
        while more := {pid for pid, fields in stats.items() if int(fields[1]) in tree} - tree:
            tree |= more
        return {pid: stats[pid] for pid in tree if pid in stats}

    def cpu_seconds(self) -> float:
        """CPU time of the tree so far, user and system, children that ended and were waited for with it."""
        return sum(int(value) for fields in self.processes().values() for value in fields[11:15]) / _TICK

    def connections(self) -> dict[int, int]:
        """Which process of the tree holds each open connection to the server, by the client's port."""
        sockets: dict[str, int] = {}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = fields = line.split()
            if state == "01" and int(local.partition(":")[2], 16) == self.port:
                sockets[f"socket:[{fields[9]}]"] = int(remote.partition(":")[2], 16)
        out: dict[int, int] = {}
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it ended meanwhile
                for entry in os.scandir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        if (port := sockets.get(os.readlink(entry.path))) is not None:
                            out[port] = pid
        return out

    def resident_bytes(self) -> int:
        """Resident memory of the tree; pages that processes share count in each."""
        return sum(int(fields[21]) for fields in self.processes().values()) * os.sysconf("SC_PAGE_SIZE")


def threads() -> dict[str, str]:
    """Environment in which numeric libraries use one thread: what they would do beside it is no server's doing."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    port: int,
    folder: Path,
    *,
    ready: Callable[[int], bool],
    environment: dict[str, str] | None = None,
    patience: float = 90,
) -> Iterator[Server]:
    """Start a server in ``folder``, wait until ``ready(port)``, and end all of it behind.

    Raises
    ------
    NotStarted
        If it ended instead, or was not ready after ``patience`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"server-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**threads(), **(environment or {})},
        )  # fmt: skip
    server = Server(root=process.pid, port=port, log=log)
    try:
        until = time.monotonic() + patience
        while not ready(port):
            if process.poll() is not None or time.monotonic() > until:
                how = "ended" if process.poll() is not None else f"was not ready in {patience:g} s"
                raise NotStarted(f"{Path(command[0]).name} {how}: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield server
    finally:
        _end(server, process)


def _end(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Ask the tree to end, and kill what is left of it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for pid in server.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
