"""What the workers count, in memory that outlives them: each has a file of its own, and anybody can read them all.

A worker maps a file of fixed cells and adds to them; nothing is locked or sent. ``kill -9`` takes nothing away: the
next worker that takes the file goes on from what it says, and finds out how many predictions the dead one had answered
and not logged.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import threading
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Self, final

#: what is counted since the files were made, with what a person is told of it; here is where to add one
COUNTED: dict[str, str] = {
    "rows": "Rows that predictions were asked for.",
    "predictions": "Predictions that were answered.",
    "answered": "Predictions that were answered and are to be logged.",
    "logged": "Predictions that are in the log.",
    "dropped": "Predictions that were answered and not logged, because too many waited.",
    "lost": "Predictions that were answered and not logged, because their worker was killed.",
    "repeated": "Predictions of a request that was sent again; they are logged once.",
    "shadowed": "Predictions that a challenger was asked for besides.",
    "labels": "Labels that were taken in.",
    "feedback": "Thumbs, corrections and words that were taken in.",
    "examples": "Labelled rows that were taken in.",
    "swaps": "Times that another version took over.",
}

#: counted by several threads: the loop, the writer, and the one that predicts many rows. All others belong to one
#: thread, ``logged`` to the writer's, ``swaps`` to the one that watches the aliases and the rest to the loop's, and
#: need no lock, which costs more than the count
SHARED = frozenset({"dropped", "shadowed"})

#: what is so now, in each worker; it begins at 0
NOW: dict[str, str] = {
    "in_flight": "Requests that are being answered.",
    "generation": "Generation of the champion that answers.",
}

#: routes and status codes that requests are counted by; what is none of them is counted under the last
ROUTES = ("infer", "invocations", "labels", "feedback", "examples", "other")
STATUSES = (200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503, 0)

#: durations that are kept as histograms
TIMED: dict[str, str] = {"seconds": "From the first byte of a request for predictions to its answer."}

#: upper ends of a histogram's bins, in nanoseconds; one more is open
EDGES = (*(int(base * 10**power) for power in range(5, 10) for base in (1, 2.5, 5)), 10**10)

_SLOTS = 256  #: files at most
_PAGE = 4096

_CELLS: dict[str, int] = {}
for _name in (*COUNTED, *NOW):
    _CELLS[_name] = len(_CELLS)
_REQUESTS = len(_CELLS)
_HISTOGRAMS = _REQUESTS + len(ROUTES) * len(STATUSES)
_BINS = len(EDGES) + 2  # with the open one, and the sum
_COUNT = _HISTOGRAMS + len(TIMED) * _BINS
_HEAD = 2  # cells before: which layout, and the process that has it
_BYTES = -(-8 * (_HEAD + _COUNT) // _PAGE) * _PAGE
_ROUTE = {name: _REQUESTS + i * len(STATUSES) for i, name in enumerate(ROUTES)}
_STATUS = {status: i for i, status in enumerate(STATUSES)}
_TIMED = {name: _HISTOGRAMS + i * _BINS for i, name in enumerate(TIMED)}
#: another release counts other things
_LAYOUT = int.from_bytes(
    hashlib.blake2b(repr((*_CELLS, ROUTES, STATUSES, *TIMED, EDGES)).encode(), digest_size=7).digest(), "little"
)


@final
class Counters:
    """One worker's cells, and the sums over all workers.

    Parameters
    ----------
    folder : Path
        Where the files are; made if missing. Workers of one deployment share it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.worker, self._file, self._map = _take(folder)
        self._cells = memoryview(self._map).cast("q")[_HEAD:]
        _settle(self._cells)
        for path in folder.glob("worker-*.cells"):  # fewer workers may serve than before
            _settle_dead(path)

    def add(self, name: str, n: int = 1) -> None:
        """Count ``n`` more; from one thread for each name, but for those of :data:`SHARED`."""
        if name in SHARED:
            with self._lock:  # to read a cell and to write it are two steps
                self._cells[_CELLS[name]] += n
        else:
            self._cells[_CELLS[name]] += n

    def put(self, name: str, value: int) -> None:
        """Say what is so now in this worker."""
        self._cells[_CELLS[name]] = value

    def request(self, route: str, status: int) -> None:
        """Count a request that was answered; from the loop's thread alone, without a lock."""
        self._cells[_ROUTE.get(route, _ROUTE["other"]) + _STATUS.get(status, _STATUS[0])] += 1

    def observe(self, name: str, nanoseconds: int) -> None:
        """Put a duration into its bin; from the loop's thread alone, without a lock."""
        at = _TIMED[name]
        self._cells[at + bisect_left(EDGES, nanoseconds)] += 1
        self._cells[at + _BINS - 1] += nanoseconds

    def own(self, name: str) -> int:
        """What this worker's file says."""
        return self._cells[_CELLS[name]]

    def total(self, name: str) -> int:
        """The sum over all workers, those that are dead included."""
        return sum(cells[_CELLS[name]] for _, cells in self._all())

    def requests(self) -> dict[tuple[str, int], int]:
        """How many requests of a route were answered with a status; 0 stands for any other status."""
        out: dict[tuple[str, int], int] = {}
        for _, cells in self._all():
            for i, route in enumerate(ROUTES):
                for j, status in enumerate(STATUSES):
                    n = cells[_REQUESTS + i * len(STATUSES) + j]
                    out[route, status] = out.get((route, status), 0) + n
        return {key: n for key, n in out.items() if n}

    def durations(self, name: str) -> tuple[list[int], int]:
        """How many durations are in each bin of :data:`EDGES` and behind the last, and their sum in nanoseconds."""
        bins, total = [0] * (_BINS - 1), 0
        for _, cells in self._all():
            at = _TIMED[name]
            bins = [n + cells[at + i] for i, n in enumerate(bins)]
            total += cells[at + _BINS - 1]
        return bins, total

    def workers(self) -> dict[int, dict[str, int]]:
        """What is so now in each worker that lives."""
        return {
            worker: {name: cells[_CELLS[name]] for name in NOW} for worker, cells in self._all() if self._lives(worker)
        }

    def metrics(self) -> str:
        """Everything in the text format of Prometheus."""
        out = []
        for name, help_ in COUNTED.items():
            out += _head(f"perennial_{name}_total", help_, "counter")
            out.append(f"perennial_{name}_total {self.total(name)}")
        out += _head("perennial_requests_total", "Requests that were answered, by route and status.", "counter")
        for (route, status), n in sorted(self.requests().items()):
            told = str(status) if status else "other"
            out.append(f'perennial_requests_total{{route="{route}",status="{told}"}} {n}')
        workers = self.workers()
        for name, help_ in NOW.items():
            out += _head(f"perennial_{name}", help_, "gauge")
            out += [f'perennial_{name}{{worker="{worker}"}} {now[name]}' for worker, now in sorted(workers.items())]
        for name, help_ in TIMED.items():
            out += _head(f"perennial_request_{name}", help_, "histogram")
            bins, total = self.durations(name)
            upto = 0
            for edge, n in zip((*EDGES, 0), bins, strict=True):
                upto += n
                out.append(f'perennial_request_{name}_bucket{{le="{edge / 1e9 if edge else "+Inf"}"}} {upto}')
            out += [f"perennial_request_{name}_sum {total / 1e9}", f"perennial_request_{name}_count {upto}"]
        return "\n".join(out) + "\n"

    def close(self) -> None:
        """Let another worker have the file; who counts later counts for nobody."""
        for name in NOW:
            self.put(name, 0)
        with self._lock:
            mapped, self._cells = self._cells, memoryview(bytearray(_BYTES)).cast("q")[_HEAD:]
            mapped.release()
        self._map.close()
        os.close(self._file)

    def _all(self) -> Iterator[tuple[int, memoryview]]:
        """Every worker's number and cells; read only, but for the own."""
        yield self.worker, self._cells
        for path in sorted(self._folder.glob("worker-*.cells")):
            worker = int(path.stem.removeprefix("worker-"))
            if worker == self.worker:
                continue
            with path.open("rb") as file:
                data = file.read(_BYTES)
            if len(data) == _BYTES and (cells := memoryview(data).cast("q"))[0] == _LAYOUT:
                yield worker, cells[_HEAD:]

    def _lives(self, worker: int) -> bool:
        if worker == self.worker:
            return True
        with _path(self._folder, worker).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _path(folder: Path, worker: int) -> Path:
    return folder / f"worker-{worker}.cells"


def _take(folder: Path) -> tuple[int, int, mmap.mmap]:
    """The first file that nobody holds: its number, the open file, whose lock ends with the process, and its bytes."""
    for worker in range(_SLOTS):
        file = os.open(_path(folder, worker), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        if os.fstat(file).st_size != _BYTES or int.from_bytes(os.pread(file, 8, 0), "little") != _LAYOUT:
            os.ftruncate(file, 0)  # of another release, or new: it begins at 0
            os.ftruncate(file, _BYTES)
            os.pwrite(file, _LAYOUT.to_bytes(8, "little"), 0)
        return worker, file, mmap.mmap(file, _BYTES)
    raise RuntimeError(f"{_SLOTS} workers serve this deployment: end some")


def _settle(cells: memoryview) -> None:
    """Close the books of a worker that is gone: what it had answered and neither logged nor dropped is lost."""
    answered, *known = (cells[_CELLS[name]] for name in ("answered", "logged", "dropped", "lost"))
    cells[_CELLS["lost"]] += max(answered - sum(known), 0)
    for name in NOW:
        cells[_CELLS[name]] = 0


def _settle_dead(path: Path) -> None:
    """The same for a file that nobody holds."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if os.fstat(file.fileno()).st_size != _BYTES:
            return
        with mmap.mmap(file.fileno(), _BYTES) as mapped, memoryview(mapped).cast("q") as cells:
            if cells[0] == _LAYOUT:
                with cells[_HEAD:] as own:
                    _settle(own)


def _head(name: str, help_: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]
