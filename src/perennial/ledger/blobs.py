"""Bytes by their SHA-256, beside the database: in a folder, or in any file system that fsspec knows.

A folder keeps ``ab/abcdef...`` for digest ``abcdef...``. A blob gets its name only when its bytes are synced, so a file
with a digest for a name is whole, whatever the power did. What ``put`` gave back is durable.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from perennial.core import failpoints
from perennial.core.errors import ConfigError
from perennial.ledger.errors import CorruptBlob, MissingBlob, StorageError

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PART = ".part"


class BlobStore(Protocol):
    """Bytes by their digest, a SHA-256 in hex."""

    def put(self, data: bytes) -> str:
        """Keep ``data`` and give its digest; durable on return. Known bytes are not written again."""
        ...

    def get(self, digest: str) -> bytes:
        """The bytes of ``digest``, verified; raises ``MissingBlob`` or ``CorruptBlob``."""
        ...

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under ``digest``; None if there are none."""
        ...

    def delete(self, digest: str) -> None:
        """Remove a blob; nothing happens if there is none."""
        ...

    def digests(self) -> Iterator[str]:
        """Every blob that is there, in no order."""
        ...

    def parts(self) -> Iterator[str]:
        """Names of what an interrupted ``put`` left behind."""
        ...

    def discard(self, part: str) -> None:
        """Remove a leftover that :meth:`parts` named."""
        ...


class Files(Protocol):
    """What a folder of blobs does to a disk, one effect at a time: a test records them and cuts the power."""

    def open(self, path: Path) -> int:
        """Create a new file for writing and give its handle."""
        ...

    def write(self, handle: int, data: bytes) -> None:
        """Write all of ``data``."""
        ...

    def fsync(self, handle: int) -> None:
        """Make what was written durable."""
        ...

    def close(self, handle: int) -> None:
        """Close a handle."""
        ...

    def replace(self, source: Path, target: Path) -> None:
        """Rename, over ``target`` if it is there."""
        ...

    def fsync_folder(self, path: Path) -> None:
        """Make a folder's names durable."""
        ...

    def make_folder(self, path: Path) -> None:
        """Create one folder whose parent exists; nothing happens if it is there."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def read(self, path: Path) -> bytes:
        """All bytes of a file."""
        ...

    def size(self, path: Path) -> int | None:
        """Bytes of a file, or 0 for a folder; None if nothing is there."""
        ...

    def list(self, path: Path) -> list[str]:
        """Names in a folder; none if it is not there."""
        ...


class Disk:
    """The real disk."""

    def open(self, path: Path) -> int:
        """Create a new file for writing and give its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)

    def write(self, handle: int, data: bytes) -> None:
        """Write all of ``data``: one call may take less than it was given."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]

    def fsync(self, handle: int) -> None:
        """Make what was written durable."""
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Close a descriptor."""
        os.close(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Rename, over ``target`` if it is there."""
        os.replace(source, target)

    def fsync_folder(self, path: Path) -> None:
        """Make a folder's names durable, where the file system has a way to."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync names at once
                raise
        finally:
            os.close(handle)

    def make_folder(self, path: Path) -> None:
        """Create one folder."""
        path.mkdir(exist_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.remove(path)

    def read(self, path: Path) -> bytes:
        """All bytes of a file."""
        return path.read_bytes()

    def size(self, path: Path) -> int | None:
        """Bytes of a file, or 0 for a folder; None if nothing is there."""
        try:
            return 0 if path.is_dir() else path.stat().st_size
        except FileNotFoundError:
            return None

    def list(self, path: Path) -> list[str]:
        """Names in a folder."""
        try:
            return os.listdir(path)
        except FileNotFoundError:
            return []


def make_durable_folder(path: Path, files: Files) -> None:
    """Create a folder and those above it, each synced into its parent.

    The name of the folder is synced also if it is there already: whoever made it may have died before doing so.
    """
    missing = []
    while files.size(path) is None:
        missing.append(path)
        path = path.parent
    with suppress(PermissionError):  # a folder of someone else, which stood here before us
        files.fsync_folder(path.parent)
    for folder in reversed(missing):
        files.make_folder(folder)
        files.fsync_folder(folder.parent)


class LocalBlobs:
    """Blobs in a folder, which is created with the first one.

    Parameters
    ----------
    root : Path
        The folder.
    files : Files
        How the disk is reached; the real one unless a test says otherwise.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     blobs = LocalBlobs(Path(folder) / "blobs")
    ...     blobs.get(blobs.put(b"a model"))
    b'a model'
    """

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self.root = root
        self._files: Files = files or Disk()
        self._sure: set[Path] = set()  # folders whose names this process has synced

    def __repr__(self) -> str:
        return f"LocalBlobs({str(self.root)!r})"

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def put(self, data: bytes) -> str:
        """Keep ``data`` and give its digest: temporary name, write, fsync, rename, fsync of the folder.

        Raises
        ------
        StorageError
            If the disk is full or refuses. Nothing is then kept under the digest.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        with _told(path):
            self._prepare(path.parent)
            if self._files.size(path) == len(data) and self._files.read(path) == data:  # rotten bytes are replaced
                self._files.fsync_folder(path.parent)  # whoever wrote it may have died before this
                return digest
            part = path.with_name(f"{digest}.{secrets.token_hex(8)}{_PART}")
            try:
                self._write(part, data)
                failpoints.reach("blob.synced")
                self._files.replace(part, path)
            except OSError:
                with suppress(OSError):
                    self._files.remove(part)
                raise
            failpoints.reach("blob.renamed")
            self._files.fsync_folder(path.parent)
        failpoints.reach("blob.after")
        return digest

    def _write(self, part: Path, data: bytes) -> None:
        handle = self._files.open(part)
        try:
            self._files.write(handle, data)
            failpoints.reach("blob.part")
            self._files.fsync(handle)
        finally:
            self._files.close(handle)

    def _prepare(self, folder: Path) -> None:
        """Durable folders from the root's parent down to ``folder``; once per folder and process."""
        for path in (self.root.parent, self.root, folder):
            if path not in self._sure:
                make_durable_folder(path, self._files)
                self._sure.add(path)

    def get(self, digest: str) -> bytes:
        """The bytes of ``digest``, verified.

        Raises
        ------
        MissingBlob, CorruptBlob
            If they are not there, or are not what the digest says.
        """
        path = self._path(_checked(digest))
        with _told(path):
            try:
                data = self._files.read(path)
            except FileNotFoundError as error:
                raise MissingBlob(f"blob {digest} is not in {self.root}", digest=digest) from error
        return verified(digest, data, str(path))

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under ``digest``; None if there are none."""
        path = self._path(_checked(digest))
        with _told(path):
            return self._files.size(path)

    def delete(self, digest: str) -> None:
        """Remove a blob; nothing happens if there is none. Durable: what was erased does not come back."""
        self._remove(self._path(_checked(digest)))

    def digests(self) -> Iterator[str]:
        """Every blob that is there, in no order."""
        return (name for _, name in self._names() if _DIGEST.fullmatch(name))

    def parts(self) -> Iterator[str]:
        """Names of what an interrupted ``put`` left behind, below the folder."""
        return (f"{shard}/{name}" for shard, name in self._names() if name.endswith(_PART))

    def discard(self, part: str) -> None:
        """Remove a leftover that :meth:`parts` named."""
        self._remove(self.root / part)

    def _remove(self, path: Path) -> None:
        with _told(path), suppress(FileNotFoundError):
            self._files.remove(path)
            self._files.fsync_folder(path.parent)

    def _names(self) -> Iterator[tuple[str, str]]:
        with _told(self.root):
            for shard in self._files.list(self.root):
                if len(shard) == 2:
                    for name in self._files.list(self.root / shard):
                        yield shard, name


class RemoteBlobs:
    """Blobs in a file system that fsspec knows, such as an object store: ``s3://bucket/folder``.

    A put is one complete write to the digest's key, which an object store does whole or not at all; its length and
    checksum are then read back.

    Parameters
    ----------
    url : str
        Where, with fsspec's protocol.
    options
        For fsspec: credentials, endpoint.

    Examples
    --------
    >>> blobs = RemoteBlobs("memory://models")
    >>> blobs.get(blobs.put(b"a model"))
    b'a model'
    """

    def __init__(self, url: str, **options: Any) -> None:
        import fsspec

        try:
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:  # an unknown protocol, or one whose package is not installed
            raise ConfigError("blobs", url, str(error)) from error
        self.url = url
        self._root = root.rstrip("/")

    def __repr__(self) -> str:
        return f"RemoteBlobs({self.url!r})"

    def _key(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    def put(self, data: bytes) -> str:
        """Keep ``data`` and give its digest; written once, then length and checksum verified.

        Raises
        ------
        StorageError
            If the store refuses or cannot be reached.
        CorruptBlob
            If what the store gives back is not what it was given. It is then removed.
        """
        digest = hashlib.sha256(data).hexdigest()
        key = self._key(digest)
        with _told(key):
            if self.size(digest) == len(data):
                return digest
            self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(key, data)
        try:
            self.get(digest)
        except CorruptBlob:
            self.delete(digest)
            raise
        failpoints.reach("blob.after")
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes of ``digest``, verified; raises ``MissingBlob`` or ``CorruptBlob``."""
        key = self._key(_checked(digest))
        with _told(key):
            try:
                data: bytes = self._fs.cat_file(key)
            except FileNotFoundError as error:
                raise MissingBlob(f"blob {digest} is not in {self.url}", digest=digest) from error
        return verified(digest, data, key)

    def size(self, digest: str) -> int | None:
        """How many bytes are kept under ``digest``; None if there are none."""
        key = self._key(_checked(digest))
        with _told(key):
            self._fs.invalidate_cache(key.rpartition("/")[0])  # listings that fsspec remembers grow old
            try:
                return int(self._fs.info(key)["size"])
            except FileNotFoundError:
                return None

    def delete(self, digest: str) -> None:
        """Remove a blob; nothing happens if there is none."""
        key = self._key(_checked(digest))
        with _told(key), suppress(FileNotFoundError):
            self._fs.rm_file(key)

    def digests(self) -> Iterator[str]:
        """Every blob that is there, in no order."""
        with _told(self._root):
            self._fs.invalidate_cache()
            try:
                paths = self._fs.find(self._root)
            except FileNotFoundError:
                paths = []
        return (name for path in paths if _DIGEST.fullmatch(name := path.rpartition("/")[2]))

    def parts(self) -> Iterator[str]:
        """Nothing: a put that was interrupted left nothing that has a name."""
        return iter(())

    def discard(self, part: str) -> None:
        """Nothing to remove."""


def open_blobs(location: str | Path, *below: str) -> BlobStore:
    """The store at a folder or a URL, in the folder ``below`` it.

    Examples
    --------
    >>> open_blobs("memory://models", "churn")
    RemoteBlobs('memory://models/churn')
    >>> open_blobs("state/blobs", "churn")
    LocalBlobs('state/blobs/churn')
    """
    if isinstance(location, str) and "://" in location and not location.startswith("file://"):
        return RemoteBlobs("/".join([location.rstrip("/"), *below]))
    return LocalBlobs(Path(str(location).removeprefix("file://")).joinpath(*below))


def verified(digest: str, data: bytes, where: str) -> bytes:
    """``data``, if it is what ``digest`` says; raises ``CorruptBlob`` otherwise."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise CorruptBlob(
            f"{where} holds {len(data)} bytes that are not those of {digest}: restore it from a backup", digest=digest
        )
    return data


def _checked(digest: str) -> str:
    """A digest; anything else must not become a path."""
    if not _DIGEST.fullmatch(digest):
        raise MissingBlob(f"{digest!r} is no digest: 64 hexadecimal digits name a blob", digest=digest)
    return digest


@contextmanager
def _told(path: object) -> Iterator[None]:
    """Errors of the disk as errors of the ledger."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{path}: {reason}", retryable=not _lasting(error)) from error


def _lasting(error: OSError) -> bool:
    """Whether somebody must do something before it can work: a full disk, a missing right."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
