"""The power goes at any instant: whatever the disk made of what was not synced, a blob with a name is whole.

``Recorder`` is a disk in memory that knows of everything whether it is durable. ``images`` gives every state that a
crash may legally leave: of bytes that were not synced, all, none or half arrived; of names that were not synced in
their folder, any subset did, in any order.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from perennial.ledger.blobs import LocalBlobs, make_durable_folder

ROOT = Path("/state/blobs/churn")
MODELS = [b"one model" * 10, b"another model" * 10, b"a third" * 10]


@dataclass
class File:
    """Bytes as a program sees them, and as they surely are on the disk."""

    data: bytes = b""
    durable: bytes = b""


@dataclass
class Folder:
    """Names as a program sees them, as they surely are on the disk, and the changes between the two in order."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def change(self, **names: File | Folder | None) -> None:
        """Set names, or take them away, in one step that happens whole."""
        self.changes.append(dict(names))
        apply(self.names, names)


def apply(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    """Carry out a change."""
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Recorder:
    """A disk in memory. After each effect it calls ``after``, which may look at what a crash would leave."""

    def __init__(self, top: Folder | None = None) -> None:
        self.top = top or Folder()
        self.handles: dict[int, File] = {}
        self.done: list[str] = []

    def after(self, effect: str, path: object) -> None:
        """One effect happened."""
        self.done.append(f"{effect} {path}")

    def node(self, path: Path) -> File | Folder | None:
        """What a path leads to."""
        found: File | Folder | None = self.top
        for part in path.parts[1:]:
            found = found.names.get(part) if isinstance(found, Folder) else None
        return found

    def folder(self, path: Path) -> Folder:
        """The folder at a path."""
        found = self.node(path)
        if not isinstance(found, Folder):
            raise FileNotFoundError(2, "no such folder", str(path))
        return found

    def open(self, path: Path) -> int:
        file = File()
        self.folder(path.parent).change(**{path.name: file})
        self.handles[len(self.handles)] = file
        self.after("open", path)
        return len(self.handles) - 1

    def write(self, handle: int, data: bytes) -> None:
        self.handles[handle].data += data
        self.after("write", handle)

    def fsync(self, handle: int) -> None:
        self.handles[handle].durable = self.handles[handle].data
        self.after("fsync", handle)

    def close(self, handle: int) -> None:
        self.after("close", handle)

    def replace(self, source: Path, target: Path) -> None:
        folder = self.folder(source.parent)
        folder.change(**{source.name: None, target.name: folder.names[source.name]})
        self.after("replace", target)

    def fsync_folder(self, path: Path) -> None:
        folder = self.folder(path)
        folder.durable, folder.changes = dict(folder.names), []
        self.after("fsync_folder", path)

    def make_folder(self, path: Path) -> None:
        self.folder(path.parent).change(**{path.name: Folder()})
        self.after("make_folder", path)

    def remove(self, path: Path) -> None:
        if self.node(path) is None:
            raise FileNotFoundError(2, "no such file", str(path))
        self.folder(path.parent).change(**{path.name: None})
        self.after("remove", path)

    def read(self, path: Path) -> bytes:
        found = self.node(path)
        if not isinstance(found, File):
            raise FileNotFoundError(2, "no such file", str(path))
        return found.data

    def size(self, path: Path) -> int | None:
        found = self.node(path)
        return None if found is None else len(found.data) if isinstance(found, File) else 0

    def list(self, path: Path) -> list[str]:
        found = self.node(path)
        return list(found.names) if isinstance(found, Folder) else []


def images(folder: Folder) -> Iterator[Folder]:
    """Every state of a folder and all below it that may be found after the power went."""
    for chosen in itertools.product([False, True], repeat=len(folder.changes)):
        for order in {False, any(chosen)}:
            names = dict(folder.durable)
            happened = [change for change, yes in zip(folder.changes, chosen, strict=True) if yes]
            for change in reversed(happened) if order else happened:
                apply(names, change)
            choices = [list(states(node)) for node in names.values()]
            for nodes in itertools.product(*choices):
                settled = dict(zip(names, nodes, strict=True))
                yield Folder(names=settled, durable=dict(settled))


def states(node: File | Folder) -> Iterator[File | Folder]:
    """Every state that one name may be found in."""
    if isinstance(node, Folder):
        yield from images(node)
        return
    kept = {node.durable, node.data}
    if node.data != node.durable:
        kept |= {node.data[: (len(node.durable) + len(node.data)) // 2], b"\0" * len(node.data)}
    for data in sorted(kept):
        yield File(data=data, durable=data)


class Watched(Recorder):
    """A disk that collects the images of a crash after each effect, with the digests that were promised by then."""

    def __init__(self, top: Folder | None = None) -> None:
        super().__init__(top)
        self.promised: set[str] = set()
        self.crashes: list[tuple[str, set[str], Folder]] = []

    def after(self, effect: str, path: object) -> None:
        super().after(effect, path)
        still = copy.deepcopy(self.top)
        self.crashes += [(f"{effect} {path}", set(self.promised), image) for image in images(still)]


def put_all(disk: Watched) -> None:
    """Three puts, one of them twice, in a fresh process each."""
    for data in (*MODELS, MODELS[0]):
        disk.promised.add(LocalBlobs(ROOT, disk).put(data))
        disk.after("returned", "put")


def faults(disk: Watched) -> list[str]:
    """What is wrong in any image: a broken promise, or a name whose bytes are not its own."""
    wrong = []
    for where, promised, image in disk.crashes:
        blobs = LocalBlobs(ROOT, Recorder(image))
        there = set(blobs.digests())
        if promised - there:
            wrong.append(f"after {where}: a blob that was promised is lost")
        for digest in there:
            try:
                blobs.get(digest)
            except Exception as error:
                wrong.append(f"after {where}: {type(error).__name__}")
    return wrong


def test_no_crash_loses_a_blob_or_shows_half_of_one():
    """After every effect, in every legal image: what was promised is there, and what has a name is whole."""
    disk = Watched()
    put_all(disk)
    assert len(disk.crashes) > 100
    assert faults(disk) == []
    assert any(not promised for _, promised, _ in disk.crashes)
    assert any(len(promised) == len(MODELS) for _, promised, _ in disk.crashes)


def test_a_put_after_any_crash_is_durable_again():
    """Whatever is left, the same put succeeds, and a second crash right after it loses nothing."""
    disk = Watched()
    disk.promised.add(LocalBlobs(ROOT, disk).put(MODELS[0]))
    for where, _, image in disk.crashes:
        after = Recorder(copy.deepcopy(image))
        digest = LocalBlobs(ROOT, after).put(MODELS[0])
        for second in images(after.top):
            assert LocalBlobs(ROOT, Recorder(second)).get(digest) == MODELS[0], where


def test_a_put_of_what_a_dead_process_left_is_durable():
    """A process died, without a crash, between rename and sync; who finds the blob there syncs its name."""
    for last in ("replace", "fsync", "make_folder"):
        disk = Recorder()

        class Killed(Exception):
            pass

        def die(effect: str, path: object, last: str = last, killed: type[Exception] = Killed) -> None:
            if effect == last:
                raise killed

        disk.after = die  # type: ignore[method-assign]
        with pytest.raises(Killed):
            LocalBlobs(ROOT, disk).put(MODELS[0])
        disk.after = lambda effect, path: None  # type: ignore[method-assign]
        digest = LocalBlobs(ROOT, disk).put(MODELS[0])
        for image in images(disk.top):
            assert LocalBlobs(ROOT, Recorder(image)).get(digest) == MODELS[0], last


def test_what_was_deleted_does_not_come_back():
    """Erasing is durable, too."""
    disk = Recorder()
    blobs = LocalBlobs(ROOT, disk)
    digest = blobs.put(MODELS[0])
    blobs.delete(digest)
    assert not any(digest in set(LocalBlobs(ROOT, Recorder(image)).digests()) for image in images(disk.top))


class NoSync(Watched):
    """A mutant: bytes are not synced before the rename."""

    def fsync(self, handle: int) -> None:
        """Nothing."""


class LateSync(Watched):
    """A mutant: bytes are synced, but after the rename."""

    def fsync(self, handle: int) -> None:
        self.late = handle

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        super().fsync(self.late)


class NoFolderSync(Watched):
    """A mutant: the names of blobs are not synced."""

    def fsync_folder(self, path: Path) -> None:
        if len(path.name) > 2:
            super().fsync_folder(path)


class NoParentSync(Watched):
    """A mutant: the names of new folders are not synced."""

    def fsync_folder(self, path: Path) -> None:
        if len(path.name) == 2:
            super().fsync_folder(path)


class InPlace(Watched):
    """A mutant: bytes are written under their own name."""

    def open(self, path: Path) -> int:
        return super().open(path.with_name(path.name.partition(".")[0]))

    def replace(self, source: Path, target: Path) -> None:
        """Nothing: it has its name already."""


@pytest.mark.parametrize("mutant", [NoSync, LateSync, NoFolderSync, NoParentSync, InPlace])
def test_the_test_catches_a_mutant(mutant: type[Watched]):
    """Each order that loses data is told from the right one."""
    disk = mutant()
    put_all(disk)
    assert faults(disk)


def test_every_new_folder_is_synced_into_its_parent():
    """And the topmost that was there already, too, for whoever made it may have died."""
    disk = Recorder()
    make_durable_folder(ROOT, disk)
    assert disk.done == [
        "fsync_folder /",
        "make_folder /state",
        "fsync_folder /",
        "make_folder /state/blobs",
        "fsync_folder /state",
        "make_folder /state/blobs/churn",
        "fsync_folder /state/blobs",
    ]
