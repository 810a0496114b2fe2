"""The cache of trainings: identical trainings are done once, by strategies, processes and runs alike."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import final

from filelock import FileLock

from perennial.core.errors import FormatError
from perennial.core.features import Features
from perennial.core.identity import digest
from perennial.core.protocols import Learner, Trained
from perennial.learners import timing

FORMAT = 1
KEEP_BYTES = 4 * 2**30  #: what a cache folder may hold after a backtest; the oldest entries go first
_BYTES_PER_SECOND = 64 * 2**20  # a model that is larger than this per CPU second of training is not worth keeping


@final
class Trainings:
    """Does trainings and remembers them in a folder.

    Parameters
    ----------
    folder : Path, optional
        Where models are kept, by key. None keeps nothing: every training is done when asked for.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def cpu_seconds(self) -> float:
        """CPU seconds used so far by this process, all threads."""
        return time.process_time()

    def latency(self, model: Learner, features: Features) -> timedelta:
        """The shortest of several predictions of a single row."""
        return timing.latency(model, features)

    def obtain(self, key: str | None, template: Learner, make: Callable[[], Learner]) -> Trained:
        """The model for ``key``: loaded if some process made it before, else made, and kept for others.

        Who asks for a training that another process is doing waits for it.
        """
        if self._folder is None or key is None:
            return self._made(make)
        path = self._folder / key[:2] / key[2:]
        if (found := self._loaded(path, template)) is not None:
            return found
        path.parent.mkdir(exist_ok=True)
        with FileLock(f"{path}.lock"):
            if (found := self._loaded(path, template)) is not None:
                return found
            trained = self._made(make)
            self._keep(path, trained)
        return trained

    def _made(self, make: Callable[[], Learner]) -> Trained:
        before = time.process_time()
        model = make()
        return Trained(model=model, cpu_seconds=time.process_time() - before, shared=False)

    def _loaded(self, path: Path, template: Learner) -> Trained | None:
        try:
            head, _, blob = path.read_bytes().partition(b"\n")
            facts = json.loads(head)
            if facts["format"] != FORMAT or facts["digest"] != digest(blob):
                return None
            os.utime(path)  # the oldest entries go first: this one is young again
            return Trained(model=template.load(blob), cpu_seconds=facts["cpu_seconds"], shared=True)
        except (OSError, ValueError, KeyError, TypeError, FormatError):  # absent, cut short or foreign: train again
            return None

    def _keep(self, path: Path, trained: Trained) -> None:
        blob = trained.model.save()
        if len(blob) > max(_BYTES_PER_SECOND * trained.cpu_seconds, 2**16):
            return
        head = json.dumps({"format": FORMAT, "cpu_seconds": trained.cpu_seconds, "digest": digest(blob)})
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(head.encode() + b"\n" + blob)
        os.replace(part, path)


def prune(folder: Path, keep_bytes: int = KEEP_BYTES, *, spare: Collection[Path] = ()) -> int:
    """Delete the oldest trainings and runs of a cache until it holds at most ``keep_bytes``; gives how many went.

    Locks are left: another backtest may hold one. Runs in ``spare`` stay: someone reads their predictions.
    """
    entries = []
    for path in (folder / "trainings").glob("??/*"):
        if path.suffix not in (".lock", ".part"):
            with suppress(FileNotFoundError):  # another backtest deletes too
                status = path.stat()
                entries.append((status.st_mtime, status.st_size, path))
    for path in (folder / "runs").glob("*"):
        if path.is_dir() and path.suffix != ".part" and path not in spare:  # a part is being written
            with suppress(FileNotFoundError):
                status = path.stat()
                entries.append((status.st_mtime, sum(file.stat().st_size for file in path.iterdir()), path))
    held, gone = sum(size for _, size, _ in entries), 0
    for _, size, path in sorted(entries):
        if held <= keep_bytes:
            break
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        held, gone = held - size, gone + 1
    return gone
