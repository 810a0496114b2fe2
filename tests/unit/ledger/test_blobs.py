"""Blobs in a folder and in an object store: what is put is there, whole, or it is an error that says so."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path

import pytest

from perennial.core.errors import ConfigError, LedgerError
from perennial.ledger.blobs import BlobStore, Disk, LocalBlobs, RemoteBlobs, make_durable_folder, open_blobs
from perennial.ledger.errors import CorruptBlob, MissingBlob, StorageError

DATA = b"a model" * 100
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["folder", "object store"])
def blobs(request, tmp_path) -> BlobStore:
    """A new store."""
    return LocalBlobs(tmp_path / "blobs") if request.param == "folder" else RemoteBlobs(f"memory://{tmp_path.name}")


def test_what_is_put_is_there(blobs):
    """By its SHA-256, once, with its size."""
    assert blobs.put(DATA) == blobs.put(DATA) == DIGEST
    assert blobs.put(b"") == hashlib.sha256(b"").hexdigest()
    assert blobs.get(DIGEST) == DATA
    assert (blobs.size(DIGEST), blobs.size("0" * 64)) == (len(DATA), None)
    assert set(blobs.digests()) == {DIGEST, hashlib.sha256(b"").hexdigest()}
    assert list(blobs.parts()) == []


def test_what_is_deleted_is_gone(blobs):
    """And deleting it again changes nothing."""
    blobs.put(DATA)
    for _ in range(2):
        blobs.delete(DIGEST)
        assert list(blobs.digests()) == []
        with pytest.raises(MissingBlob, match=DIGEST) as caught:
            blobs.get(DIGEST)
        assert isinstance(caught.value, LookupError)
    assert blobs.put(DATA) == DIGEST
    assert blobs.get(DIGEST) == DATA


def test_an_empty_store_holds_nothing(blobs):
    """Before its folder is there."""
    assert list(blobs.digests()) == list(blobs.parts()) == []
    blobs.delete(DIGEST)


@pytest.mark.parametrize("name", ["", "../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "é" * 64])
def test_only_a_digest_is_looked_for(blobs, name):
    """No other word becomes a path."""
    for use in (blobs.get, blobs.size, blobs.delete):
        with pytest.raises(MissingBlob, match="is no digest"):
            use(name)


def test_bytes_that_changed_are_told(tmp_path):
    """And a blob of another length is written anew."""
    blobs = LocalBlobs(tmp_path)
    blobs.put(DATA)
    path = tmp_path / DIGEST[:2] / DIGEST
    path.write_bytes(b"x" * len(DATA))
    with pytest.raises(CorruptBlob, match="restore it from a backup"):
        blobs.get(DIGEST)
    path.write_bytes(b"short")
    blobs.put(DATA)
    assert blobs.get(DIGEST) == DATA


def test_a_known_blob_is_not_written_again(tmp_path):
    """Its file stays the one it was."""
    blobs = LocalBlobs(tmp_path)
    blobs.put(DATA)
    before = (tmp_path / DIGEST[:2] / DIGEST).stat()
    LocalBlobs(tmp_path).put(DATA)
    after = (tmp_path / DIGEST[:2] / DIGEST).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


class Full(Disk):
    """A disk on which no bytes fit."""

    def write(self, handle: int, data: bytes) -> None:
        os.write(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Unsynced(Disk):
    """A disk that cannot promise."""

    def fsync(self, handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("disk", "told", "retryable"), [(Full, "No space left", False), (Unsynced, "Input/output error", True)]
)
def test_a_disk_that_fails_keeps_nothing(tmp_path, disk, told, retryable):
    """An error of the ledger with its cause, and neither a blob nor a part of one."""
    blobs = LocalBlobs(tmp_path, disk())
    with pytest.raises(StorageError, match=told) as caught:
        blobs.put(DATA)
    assert isinstance(caught.value, LedgerError)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.retryable is retryable
    assert list(blobs.digests()) == list(blobs.parts()) == []
    assert LocalBlobs(tmp_path).put(DATA) == DIGEST


def test_a_file_in_the_way_is_told(tmp_path):
    """Where the folder should be."""
    (tmp_path / "blobs").write_bytes(b"")
    with pytest.raises(StorageError, match="blobs"):
        LocalBlobs(tmp_path / "blobs").put(DATA)


def test_leftovers_are_found_and_discarded(tmp_path):
    """What a dead process left, and nothing else."""
    blobs = LocalBlobs(tmp_path)
    blobs.put(DATA)
    part = tmp_path / DIGEST[:2] / f"{DIGEST}.0123.part"
    part.write_bytes(b"half")
    (tmp_path / "README").write_text("somebody's own")
    assert list(blobs.parts()) == [f"{DIGEST[:2]}/{part.name}"]
    assert list(blobs.digests()) == [DIGEST]
    for name in list(blobs.parts()):
        blobs.discard(name)
    assert not part.exists()
    assert blobs.get(DIGEST) == DATA


def test_folders_are_made_once(tmp_path):
    """Also where some are there."""
    for _ in range(2):
        make_durable_folder(tmp_path / "a" / "b", Disk())
        assert (tmp_path / "a" / "b").is_dir()


def test_a_store_that_changes_bytes_is_caught(monkeypatch):
    """What an object store gives back is compared; what is wrong is removed."""
    blobs = RemoteBlobs("memory://changes")
    monkeypatch.setattr(blobs._fs, "cat_file", lambda key: b"x" * len(DATA))
    with pytest.raises(CorruptBlob):
        blobs.put(DATA)
    assert blobs.size(DIGEST) is None


def test_a_store_that_cannot_be_reached_is_told(monkeypatch):
    """And it may be, later."""
    blobs = RemoteBlobs("memory://away")

    def away(key: str, data: bytes) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(blobs._fs, "pipe_file", away)
    with pytest.raises(StorageError, match="no route to host") as caught:
        blobs.put(DATA)
    assert caught.value.retryable


def test_where_blobs_are(tmp_path):
    """A path or ``file://`` is a folder; any other protocol is fsspec's."""
    assert (
        repr(open_blobs(tmp_path, "a")) == repr(open_blobs(f"file://{tmp_path}", "a")) == f"LocalBlobs('{tmp_path}/a')"
    )
    assert repr(open_blobs("memory://bucket/", "a", "b")) == "RemoteBlobs('memory://bucket/a/b')"
    with pytest.raises(ConfigError, match="blobs"):
        open_blobs("nonsense://bucket")


def test_an_uninstalled_protocol_is_a_wrong_setting(monkeypatch):
    """fsspec says what to install."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ConfigError, match="s3fs"):
        open_blobs("s3://bucket")


def test_a_write_may_take_many_calls(tmp_path, monkeypatch):
    """The system takes what it likes; all of it arrives."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:100]))
    assert LocalBlobs(tmp_path).get(LocalBlobs(tmp_path).put(DATA)) == DATA


def test_a_relative_folder_works(tmp_path, monkeypatch):
    """Wherever the process stands."""
    monkeypatch.chdir(tmp_path)
    assert LocalBlobs(Path("state/blobs")).put(DATA) == DIGEST
    assert (tmp_path / "state" / "blobs" / DIGEST[:2] / DIGEST).exists()
