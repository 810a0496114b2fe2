"""What a real process wrote, as ``strace`` saw it, and every state of the disk that a power cut could leave of it.

Of bytes that were not synced any part may have arrived; of names that were not synced in their folder, any subset.
What was synced is there.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TRACED = "openat,lseek,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,close"
#: what else could change a file: seen, and the recording would be wrong
UNKNOWN = "writev,pwritev,pwritev2,fallocate,copy_file_range,link,linkat,symlinkat,sync_file_range,truncate"
SECTOR = 512

_LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
_FD = re.compile(r"(-?\d+)<((?:\\x[0-9a-f]{2})*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def traced(command: Sequence[str], log: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command under ``strace``, its first thread alone: others write nothing that is durable."""
    words = ["strace", "-qq", "-y", "-xx", "-s", str(1 << 24), "-e", f"trace={TRACED},{UNKNOWN}", "-o", str(log)]
    return subprocess.run([*words, *command], capture_output=True, text=True, **options)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Write:
    """Bytes at an offset; or, without bytes, the end of the file there."""

    at: int
    data: bytes | None


@dataclass
class File:
    """What is surely there, and what was written since."""

    durable: bytes = b""
    pending: list[Write] = field(default_factory=list)


@dataclass(frozen=True)
class Name:
    """A change of names in a folder, whole or not at all: each path is then a file, a folder (None), or gone ("")."""

    paths: tuple[tuple[str, File | str | None], ...]


class Disk:
    """Files of a folder, as they are when a recording begins, and what happens to them.

    Parameters
    ----------
    root : Path
        The folder.
    ignore : callable
        Paths, seen from the folder, that a power cut does not concern: what is rebuilt anyway, and what is the user's.
    """

    def __init__(self, root: Path, ignore: re.Pattern[str]) -> None:
        self.root, self._ignore = str(root), ignore
        self.durable: dict[str, File | None] = {}
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if not ignore.search(name):
                self.durable[name] = None if path.is_dir() else File(path.read_bytes())
        self.names = dict(self.durable)
        self.changes: dict[str, list[Name]] = {}  # by folder
        self._open: dict[int, tuple[File, int]] = {}

    def _seen(self, path: str) -> str | None:
        """A path from the folder on; None if it is none of the recording's."""
        if path == self.root:
            return ""
        if not path.startswith(self.root + "/"):
            return None
        name = path[len(self.root) + 1 :]
        return None if self._ignore.search(name) else name

    def replay(self, log: Path) -> Iterator[Disk]:
        """Take in what was recorded, and stop after each effect."""
        for line in log.read_text().splitlines():
            found = _LINE.match(line)
            if found is None or int(found[3]) < 0:
                continue
            if self._took(found[1], found[2], int(found[3])):
                yield self

    def _took(self, call: str, words: str, result: int) -> bool:
        fd = _FD.match(words)
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(words)]
        if call == "openat":
            return self._opened(texts[0].decode(), words, result)
        if call in ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir"):
            return self._named(call, [text.decode() for text in texts])
        number = int(fd[1]) if fd else -1
        if call == "close":
            self._open.pop(number, None)
            return False
        if call in ("fsync", "fdatasync"):
            assert fd is not None
            return self._synced(number, bytes.fromhex(fd[2].replace("\\x", "")).decode())
        if number not in self._open:
            return False
        file, at = self._open[number]
        if call == "lseek":
            self._open[number] = (file, result)
            return False
        if call == "write":
            file.pending.append(Write(at, texts[0][:result]))
            self._open[number] = (file, at + result)
        elif call == "pwrite64":
            file.pending.append(Write(int(words.rsplit(",", 1)[1]), texts[0][:result]))
        elif call == "ftruncate":
            file.pending.append(Write(int(words.rsplit(",", 1)[1]), None))
        else:
            raise AssertionError(f"{call} is not recorded")
        return True

    def _opened(self, path: str, words: str, number: int) -> bool:
        name = self._seen(path if path.startswith("/") else "/nowhere")
        if not name or "O_DIRECTORY" in words:
            return False
        made = name not in self.names
        if made:
            self._change(name, Name(((name, File()),)))
        file = self.names[name]
        if file is None:
            return False
        assert isinstance(file, File)
        if "O_TRUNC" in words and not made:
            file.pending.append(Write(0, None))
        self._open[number] = (file, 0)
        return made

    def _named(self, call: str, paths: list[str]) -> bool:
        names = [self._seen(path) for path in paths]
        if any(name is None for name in names):
            assert all(name is None for name in names), f"{call} of {paths} crosses the recording"
            return False
        if call == "mkdir":
            self._change(str(names[0]), Name(((str(names[0]), None),)))
        elif call.startswith("unlink"):
            self._change(str(names[0]), Name(((str(names[0]), ""),)))
        else:
            old, new = map(str, names)
            assert _folder(old) == _folder(new)
            self._change(new, Name(((old, ""), (new, self.names[old]))))
        return True

    def _change(self, name: str, change: Name) -> None:
        self.changes.setdefault(_folder(name), []).append(change)
        _apply(self.names, change)

    def _synced(self, number: int, path: str) -> bool:
        name = self._seen(path)
        if name is None:
            return False
        if number in self._open:
            file, _ = self._open[number]
            file.durable, file.pending = _written(file.durable, file.pending), []
            return True
        for change in self.changes.pop(name, []):
            _apply(self.durable, change)
        return True

    def images(self, chance: random.Random, few: int = 3) -> Iterator[dict[str, bytes | None]]:
        """What a power cut may leave now: nothing of what was not synced, all of it, or any part."""
        changes = [change for some in self.changes.values() for change in some]
        files = list({id(f): f for f in [*self.names.values(), *self.durable.values()] if f and f.pending}.values())
        everything = [True] * len(changes)
        yield self._image([False] * len(changes), {})
        yield self._image(everything, {id(f): list(f.pending) for f in files})
        yield self._image(everything, {})
        yield self._image([False] * len(changes), {id(f): list(f.pending) for f in files})
        yield self._image(everything, {id(f): _torn(f.pending, chance) for f in files})
        for _ in range(few):
            kept = [chance.random() < 0.5 for _ in changes]
            yield self._image(kept, {id(f): [w for w in f.pending if chance.random() < 0.5] for f in files})

    def _image(self, kept: list[bool], arrived: dict[int, list[Write]]) -> dict[str, bytes | None]:
        names, place = dict(self.durable), 0
        for some in self.changes.values():
            for change in some:
                if kept[place]:
                    _apply(names, change)
                place += 1
        out: dict[str, bytes | None] = {}
        for name, file in sorted(names.items()):
            folder = _folder(name)
            if folder and folder not in out:  # its folder did not arrive
                continue
            out[name] = _written(file.durable, arrived.get(id(file), [])) if file is not None else None
        return out


def _torn(pending: list[Write], chance: random.Random) -> list[Write]:
    """All but the end of the last bytes, which stop at a sector."""
    *before, last = pending
    if last.data is None:
        return before
    sectors = len(last.data) // SECTOR
    size = SECTOR * chance.randrange(sectors) if sectors else chance.randrange(len(last.data))
    return [*before, Write(last.at, last.data[:size])]


def _written(data: bytes, writes: Sequence[Write]) -> bytes:
    out = bytearray(data)
    for one in writes:
        if one.data is None:
            del out[one.at :]
            out.extend(bytes(one.at - len(out)))
        else:
            out.extend(bytes(max(one.at - len(out), 0)))
            out[one.at : one.at + len(one.data)] = one.data
    return bytes(out)


def _apply(names: dict[str, File | None], change: Name) -> None:
    for path, what in change.paths:
        if what == "":
            names.pop(path, None)
        else:
            assert not isinstance(what, str)
            names[path] = what


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def identity(image: dict[str, bytes | None]) -> str:
    """Digest of an image: many cuts leave the same."""
    sha = hashlib.sha256()
    for name, data in image.items():
        sha.update(f"{name}\0{-1 if data is None else len(data)}\0".encode())
        sha.update(data or b"")
    return sha.hexdigest()


def lay(image: dict[str, bytes | None], place: Path, *, beside: Path, shared: Sequence[str]) -> None:
    """Write an image to a folder, with what is the user's as it is ``beside``."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    for name in shared:
        (place / name).symlink_to(beside / name)
    for name, data in image.items():
        if data is None:
            (place / name).mkdir()
        else:
            (place / name).write_bytes(data)
