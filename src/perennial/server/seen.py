"""Which requests were answered, by the id that their client gave: one table in shared memory for all workers.

An id that comes again with the same content is a client that did not hear the answer; with other content it is a
mistake, since labels refer to predictions by it. The table holds 8 bytes of the hash of each, and outlives workers.

A claim is made before what was answered is durable, and is confirmed after. One that was never confirmed, since its
worker was killed or had no room, is as good as none when it comes again; while it waits in the memory of this worker
it is known.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal, Self, final

KEPT = 1 << 17  #: at least so many of the latest ids are known

_FORMAT = int.from_bytes(b"seen\x02", "little")
_ENTRY = struct.Struct("<QQ")  # hash of the id, which is never 0, and of the content
_HEAD = struct.Struct("<QQQQ")  # format, ids kept, which half is written to, how many ids are in it
_HEAD_BYTES = 4096
_RELEASED = 0  # in the place of a content: the id may be claimed again
_LOGGED = 1 << 63  # beside a content: what was answered is durable
_FEW = 64  #: ids that are confirmed while a request waits for the lock

Outcome = Literal["new", "same", "other"]


def _number(content: bytes) -> int:
    """Eight bytes that stand for others; never zero, which is no id and no content."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little") or 1


@final
class Seen:
    """Ids of requests, and what each was about.

    There are two halves. Ids go into one of them until it holds ``kept``; then the other one is emptied and takes the
    next, so that the latest ``kept`` are always known, and up to twice as many. Every look holds a lock of the file,
    which ends with the process: about two microseconds.

    Parameters
    ----------
    file : Path
        Where the table is; made if missing. Workers of one deployment share it.
    kept : int
        How many ids are known at least.
    """

    def __init__(self, file: Path, kept: int = KEPT) -> None:
        self._kept = kept
        self._lock = threading.Lock()  # that of the file does not part the threads of one process
        self._waits: set[int] = set()  # claimed here, and neither logged nor given up; the writer's queue bounds it
        self._closed = False
        self._slots = 1 << (2 * kept - 1).bit_length()  # each half is at most half full
        self._half = self._slots * _ENTRY.size
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            size = _HEAD_BYTES + 2 * self._half
            head = os.pread(self._file, _HEAD.size, 0)
            if os.fstat(self._file).st_size != size or _HEAD.unpack(head)[:2] != (_FORMAT, kept):
                os.ftruncate(self._file, 0)  # new, or of other settings: it begins empty
                os.ftruncate(self._file, size)
                os.pwrite(self._file, _HEAD.pack(_FORMAT, kept, 0, 0), 0)
            self._map = mmap.mmap(self._file, size)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def claim(self, request: str, content: bytes) -> Outcome:
        """Whether a request is new, and then remember it; else whether it was about the same.

        ``content`` is any digest of what was asked. What was claimed and not confirmed is new when it comes again with
        the same content, unless it waits in this process: better that another worker logs it a second time, under the
        same ids, than nobody.
        """
        key = _number(request.encode())
        about = _number(content) & ~_LOGGED or 1
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                outcome = self._claim(key, about)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            if outcome == "new":
                self._waits.add(key)
        return outcome

    def _claim(self, key: int, about: int) -> Outcome:
        _, _, half, count = _HEAD.unpack_from(self._map)
        at, found = self._find(half, key)
        if found is None:
            before, found = self._find(1 - half, key)
            at = at if found is None else before
        if found == _RELEASED:
            _ENTRY.pack_into(self._map, at, key, about)
            return "new"
        if found is not None:
            if found & ~_LOGGED != about:
                return "other"
            return "same" if found & _LOGGED or key in self._waits else "new"
        if count >= self._kept:
            half, count = 1 - half, 0
            start = _HEAD_BYTES + half * self._half
            self._map[start : start + self._half] = bytes(self._half)
            at, _ = self._find(half, key)
        # an entry counts once its key is there: killed before, it was never made
        _ENTRY.pack_into(self._map, at, 0, about)
        _ENTRY.pack_into(self._map, at, key, about)
        _HEAD.pack_into(self._map, 0, _FORMAT, self._kept, half, count + 1)
        return "new"

    def confirm(self, requests: Sequence[str]) -> None:
        """What was answered to these is durable: from now on they are known for good. Called off the event loop."""
        for start in range(0, len(requests), _FEW):
            keys = [_number(one.encode()) for one in requests[start : start + _FEW]]
            with self._lock:
                if self._closed:  # the writer outlived its patience: nobody asks this process any more
                    return
                fcntl.flock(self._file, fcntl.LOCK_EX)
                try:
                    for key in keys:
                        self._put(key, lambda about: about | _LOGGED if about != _RELEASED else about)
                finally:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
                self._waits.difference_update(keys)

    def unlogged(self, requests: Sequence[str]) -> None:
        """These were answered and will not be logged: the same again is logged then, other content stays refused."""
        keys = [_number(one.encode()) for one in requests]
        with self._lock:
            self._waits.difference_update(keys)

    def release(self, request: str) -> None:
        """A request that the caller claimed is new again, whatever it is about: it was not answered."""
        key = _number(request.encode())
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._put(key, lambda _: _RELEASED)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self._waits.discard(key)

    def _put(self, key: int, about: Callable[[int], int]) -> None:
        """Change what is said of a key, where it is there."""
        for half in (0, 1):
            at, found = self._find(half, key)
            if found is not None:
                _ENTRY.pack_into(self._map, at, key, about(found))

    def _find(self, half: int, key: int) -> tuple[int, int | None]:
        """Where a key is in a half, or would be, and what it was about if it is there."""
        start, mask = _HEAD_BYTES + half * self._half, self._slots - 1
        slot = key & mask
        while True:
            at = start + slot * _ENTRY.size
            there, about = _ENTRY.unpack_from(self._map, at)
            if there == key:
                return at, about
            if not there:
                return at, None
            slot = (slot + 1) & mask

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._closed = True
            self._map.close()
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
