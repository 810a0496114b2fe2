"""The durable ledger: turns, versions, aliases and bytes, in SQLite or PostgreSQL with blobs beside it.

A turn becomes durable in this order: blobs first, each on its own; then one transaction with everything else. A crash
between the two leaves blobs that no turn names, and the next holder of the lease collects them. Nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import sqlalchemy as sa

from perennial.core import failpoints
from perennial.core.errors import ConfigError, LedgerError, nearest
from perennial.core.records import Verdict, WaitingChanges, WaitingRow
from perennial.core.times import micros
from perennial.ledger import rows
from perennial.ledger.blobs import BlobStore, open_blobs, verified
from perennial.ledger.database import Database
from perennial.ledger.errors import (
    AliasMoved,
    Conflict,
    CorruptBlob,
    LeaseHeld,
    LeaseLost,
    MissingBlob,
    StorageError,
    UnknownVersion,
)
from perennial.ledger.records import (
    ALIASES,
    Alias,
    AliasChange,
    AliasName,
    Entry,
    FilePart,
    Finding,
    Head,
    Lease,
    Saved,
    Segment,
)
from perennial.ledger.schema import (
    REVISION,
    aliases,
    database_now,
    deployments,
    heads,
    leases,
    prepare,
    revision,
    segments,
    turns,
    verdicts,
)
from perennial.ledger.statements import Statements

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
#: ids that one statement asks for
_IDS = 5000
#: turns that one reading transaction fetches: a slow reader holds nothing open
_PAGE = 500


def no_place() -> ConfigError:
    """What is said where a ledger is on a server, which has no folder for models beside it."""
    return ConfigError("blobs", None, "say where models are kept: a folder that all share, or s3://...")


class SqlLedger:
    """The ledger of one deployment. Make one with :meth:`open`.

    One thread takes turns with it (``put``, ``intend``, ``commit``); others may read, renew the lease and move aliases
    at the same time.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with SqlLedger.open(f"sqlite:///{folder.name}/ledger.db", "churn") as ledger:
    ...     lease = ledger.acquire("host-1", timedelta(seconds=30))
    ...     state = ledger.put(b"weights and counters")
    ...     ledger.commit(lease, Entry(turn=0, kind="tick", now=0, first=0, rows=0, position="", checkpoint=state))
    ...     ledger.head().turn, ledger.get(ledger.head().checkpoint)
    (0, b'weights and counters')
    >>> folder.cleanup()
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        deployment: str,
        *,
        inline_bytes: int = 65536,
        keep_checkpoints: int = 2,
        forgets: bool = False,
    ) -> None:
        self.deployment = deployment
        self.blobs = blobs
        self.forgets = forgets
        self._database = database
        self._inline_bytes = inline_bytes
        self._keep_checkpoints = 1 if forgets else keep_checkpoints
        self._pending: dict[str, bytes] = {}  # put, and to be written with the next commit
        self._loose: dict[str, int] = {}  # put in the blob store since the last commit: no turn names them yet
        self._outdated: set[str] = set()  # in the blob store, and to be deleted: nothing names them any more
        self._renewed: float | None = None  # by our own clock: when our lease last was, at the latest
        self._found: tuple[tuple[int, int], float] | None = None  # somebody else's lease, and when we saw it first
        self._say = Statements(deployment, database.dialect)

    # -- opening

    @classmethod
    def open(
        cls,
        url: str,
        deployment: str,
        *,
        blobs: str | Path | None = None,
        create: bool = True,
        inline_bytes: int = 65536,
        keep_checkpoints: int = 2,
        forgets: bool | None = None,
    ) -> SqlLedger:
        """The ledger of a deployment; upgraded if an older release made it.

        Parameters
        ----------
        url : str
            ``sqlite:///folder/ledger.db`` or ``postgresql+psycopg://user@host/database``.
        deployment : str
            Its name: letters, digits, ``.``, ``_`` and ``-``.
        blobs : str or Path, optional
            Folder or fsspec URL (``s3://bucket/folder``) of what is too big for a row. SQLite's default is the folder
            ``blobs`` beside the file; PostgreSQL has none.
        create : bool
            Make file, tables and deployment if they are not there.
        inline_bytes : int
            Bytes up to this many are kept in the database.
        keep_checkpoints : int
            How many checkpoints are kept, the newest.
        forgets : bool, optional
            Whether rows of the stream leave no trace once nothing needs them: what holds any is kept out of the
            database, only the last checkpoint is kept, and of source positions past ones only a digest. As the
            deployment was begun unless given.

        Raises
        ------
        ConfigError
            If a setting is wrong, or ``forgets`` is not what the deployment was begun with.
        MissingExtra
            If psycopg is needed and not installed.
        FormatError
            If a newer release made the ledger.
        LedgerError
            If nothing is there and ``create`` is false, or the database cannot be used.
        """
        if not _NAME.fullmatch(deployment):
            raise ConfigError("deployment", deployment, "name it with letters, digits, '.', '_' and '-', 100 at most")
        if inline_bytes < 0:
            raise ConfigError("inline_bytes", inline_bytes, "give 0 or more")
        if keep_checkpoints < 1:
            raise ConfigError("keep_checkpoints", keep_checkpoints, "keep at least 1, or nothing can go on")
        database = Database.open(url, create=create)
        try:
            root = blobs if blobs is not None else database.folder and database.folder / "blobs"
            if root is None:
                raise no_place()
            place, forgetful = _place(database, deployment, create, bool(forgets))
            if forgets is not None and forgets != forgetful:
                raise ConfigError(
                    "retention", "none" if forgets else "rows are kept",
                    f"deployment {deployment!r} was begun {'without keeping rows' if forgetful else 'keeping rows'}, "
                    "and what it kept, or did not, cannot be made otherwise: give it a new `name`",
                )  # fmt: skip
            return cls(
                database,
                open_blobs(root, place),
                deployment,
                inline_bytes=inline_bytes,
                keep_checkpoints=keep_checkpoints,
                forgets=forgetful,
            )
        except BaseException:
            database.close()
            raise

    @staticmethod
    def deployments(url: str) -> list[str]:
        """Names of the deployments in a database, sorted; raises ``LedgerError`` if it holds no ledger."""
        database = Database.open(url, create=False)
        try:
            _upgrade(database, create=False)
            with database.reading() as connection:
                return _deployments(connection)
        finally:
            database.close()

    def close(self) -> None:
        """Close all connections. Bytes that no commit has written are forgotten."""
        self._pending.clear()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SqlLedger({self._database.where!r}, {self.deployment!r})"

    # -- the lease

    def acquire(self, holder: str, ttl: timedelta) -> Lease:
        """The right to take turns for ``ttl``, by the database's clock.

        A holder of the same name takes over at once: after a crash it need not wait for itself. The token grows all
        the same, so what is left of the former process can write nothing.

        No lease is waited for longer than it was given for, also if the database's clock was set back: one that is
        found unchanged that long after it was first found, by this process's monotonic clock, has run out.

        Raises
        ------
        LeaseHeld
            If somebody else's lease has not run out.
        """
        span, asked = _span(ttl), time.monotonic()
        with self._database.writing() as connection:
            row = connection.execute(self._say.lease).one()
            if row.holder not in ("", holder) and row.expires_at > row.now and not self._outlived(row):
                remaining = min(row.expires_at - row.now, row.ttl) / 1e6
                raise LeaseHeld(
                    f"{self.deployment!r} is run by {row.holder!r}, whose lease lasts another {remaining:.1f} s: "
                    "stop it, or wait",
                    holder=row.holder,
                    remaining=remaining,
                )
            token: int = row.token + 1
            connection.execute(self._say.set_lease, {"new_holder": holder, "new_token": token, "span": span})
        self._renewed = asked
        return Lease(holder=holder, token=token, ttl=ttl)

    def _outlived(self, row: Any) -> bool:
        """Whether somebody else's lease was seen, not renewed, for as long as it was given for.

        A holder that lives writes a new expiry. What one that does not may still try is fenced off by the token.
        """
        lease, now, ttl = (row.token, row.expires_at), time.monotonic(), float(row.ttl) / 1e6
        if self._found is None or self._found[0] != lease:
            self._found = lease, now
        return now - self._found[1] >= ttl

    def renew(self, lease: Lease, ttl: timedelta) -> None:
        """Let the lease last ``ttl`` from now. One that ran out and that nobody took over can be renewed.

        Raises
        ------
        LeaseLost
            If somebody took over.
        """
        span, asked = _span(ttl), time.monotonic()
        with self._database.writing() as connection:
            done = connection.execute(self._say.renew, {"held": lease.token, "by": lease.holder, "span": span})
            if not done.rowcount:
                raise self._lost(connection.execute(self._say.lease).one())
        self._renewed = asked

    def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens if it is somebody else's by now."""
        with self._database.writing() as connection:
            connection.execute(self._say.free_lease, {"held": lease.token, "by": lease.holder})

    def _hold(self, connection: sa.Connection, lease: Lease) -> float:
        """Check the lease inside a transaction, which then nobody can take it over in; seconds that are left."""
        row = connection.execute(self._say.lease).one()
        if row.token != lease.token or row.holder != lease.holder:
            raise self._lost(row)
        if row.expires_at <= row.now:
            raise LeaseLost(
                f"the lease of {self.deployment!r} ran out {(row.now - row.expires_at) / 1e6:.1f} s ago: renew it "
                "sooner, or acquire it anew"
            )
        left = float(row.expires_at - row.now)
        if self._renewed is not None:  # the database's clock may have been set back: by ours, others may take over
            left = min(left, row.ttl - (time.monotonic() - self._renewed) * 1e6)
        return left / 1e6

    def _lost(self, row: Any) -> LeaseLost:
        taken = f"was taken over by {row.holder!r}" if row.holder else "was given back"
        return LeaseLost(f"the lease of {self.deployment!r} {taken}: acquire it anew before the next turn")

    # -- turns

    def head(self) -> Head:
        """Where the deployment stands."""
        with self._database.reading() as connection:
            return self._head(connection)

    def _head(self, connection: sa.Connection) -> Head:
        row = connection.execute(self._say.head).one()
        return Head(turn=row.turn, position=row.position, checkpoint=row.checkpoint, intent=row.intent)

    def intend(self, lease: Lease, turn: int, intent: str) -> None:
        """Fix the bounds of the next turn, before anything is trained on it: what is replayed is then the same.

        Raises
        ------
        LeaseLost
            If the lease ran out or was taken over.
        Conflict
            If ``turn`` is not the next one, or its bounds were fixed to be others.
        """
        with self._database.writing() as connection:
            self._hold(connection, lease)
            head = self._head(connection)
            if turn != head.turn + 1:
                raise Conflict(f"turn {turn} cannot be next: the last one is {head.turn}")
            if head.intent not in ("", intent):
                raise Conflict(f"the bounds of turn {turn} are fixed to be {head.intent!r}: take these, not {intent!r}")
            connection.execute(self._say.intend, {"bounds": intent})

    def put(self, data: bytes, *, raw: bool = False) -> str:
        """Keep bytes for the next commit and give their digest.

        Up to ``inline_bytes`` they are held in memory and written by that commit's own transaction; more go to the blob
        store at once, durable before the commit. What the commit names is kept: in a field of the entry, or anywhere in
        the facts of a version. What it does not name is dropped, or collected later.

        ``raw`` says that rows of the stream are in them. A ledger that forgets puts these into the blob store, whatever
        their size: a file that was removed is gone, and what was deleted from a database lingers in its pages.

        Raises
        ------
        StorageError
            If the blob store refuses them.
        """
        if len(data) > self._inline_bytes or (raw and self.forgets):
            digest = self.blobs.put(data)
            self._loose[digest] = len(data)
            self._outdated.discard(digest)
            return digest
        digest = hashlib.sha256(data).hexdigest()
        self._pending[digest] = bytes(data)
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes of a digest, verified, wherever they are.

        Raises
        ------
        MissingBlob
            If they were never kept, are kept no more, or were erased.
        CorruptBlob
            If they are not what the digest says.
        """
        if digest in self._pending:
            return self._pending[digest]
        with self._database.reading() as connection:
            row = connection.execute(self._say.payload, {"digest": digest}).one_or_none()
        if row is not None and row.data is not None:
            return verified(digest, row.data, f"{self._database.where}, payloads,")
        if row is not None and row.erased_at is not None:
            raise MissingBlob(f"{digest} was erased", digest=digest)
        return self.blobs.get(digest)

    def commit(self, lease: Lease, entry: Entry) -> None:
        """Write one turn whole, in one transaction.

        If it raises, nothing was written, and what was ``put`` stays for another try. Only where the server went away
        while it answered is that not known: ``head()`` then says.

        Raises
        ------
        LeaseLost
            If the lease ran out or was taken over.
        Conflict
            If the turn is not the next one, or something in it does not fit what is there.
        AliasMoved
            If somebody moved one of its aliases.
        MissingBlob
            If it names bytes that were never put.
        StorageError
            If the database did not do it.
        """
        failpoints.reach("commit.before")
        with self._database.writing() as connection:
            safe_until = time.monotonic() + self._hold(connection, lease) / 2
            self._advance(connection, entry)
            self._record(connection, entry)
            for change in entry.aliases:
                self._move(connection, change, entry.turn)
            if entry.waiting is not None:
                self._wait(connection, entry.waiting)
            outdated = [*self._bury(connection, entry), *self._drop_checkpoint(connection, entry)]
            failpoints.reach("commit.inside")
        self._pending.clear()
        self._loose.clear()
        self._outdated.update(outdated)
        failpoints.reach("commit.after")
        for digest in sorted(self._outdated):
            if time.monotonic() < safe_until:
                with suppress(StorageError):  # the turn is committed: the next one tries again, or `collect` does
                    self.blobs.delete(digest)
                    self._outdated.discard(digest)

    def _advance(self, connection: sa.Connection, entry: Entry) -> None:
        """Move the head, as a compare-and-set on its turn."""
        values = {
            "last": entry.turn - 1,
            "new_turn": entry.turn,
            "new_position": entry.position,
            "new_checkpoint": entry.checkpoint,
        }
        if not connection.execute(self._say.advance, values).rowcount:
            last = self._head(connection).turn
            told = "was committed before" if entry.turn <= last else "does not follow"
            raise Conflict(f"turn {entry.turn} {told}: the last one is {last}")

    def _record(self, connection: sa.Connection, entry: Entry) -> None:
        """Add the rows of a turn."""
        row = rows.turn_row(entry)
        connection.execute(self._say.add_turn, row | {"position": self._past(entry.position)})
        for statement, made in (
            (self._say.add_decision, rows.decision_rows(entry)),
            (self._say.add_verdict, rows.verdict_rows(entry)),
            (self._say.add_version, rows.version_rows(entry)),
            (self._say.add_score, rows.score_rows(entry)),
            (self._say.add_segment, rows.segment_rows(entry)),
            (self._say.add_payload, self._payloads(connection, entry)),
        ):
            if made:  # one row is not sent as many: psycopg takes twice as long for that
                connection.execute(statement, made if len(made) > 1 else made[0])

    def _past(self, position: str) -> str:
        """A source position as turns keep it: that of a table may hold the key of a row."""
        return hashlib.sha256(position.encode()).hexdigest() if self.forgets and position else position

    def _wait(self, connection: sa.Connection, changes: WaitingChanges) -> None:
        """Let rows wait for a label of a log, and others no more."""
        connection.execute(self._say.end_waiting, {"until": changes.until})
        for statement, made in (
            (self._say.drop_waiting, [{"of": key, "at": position} for key, position in changes.gone]),
            (self._say.name_waiting, [{"of": key, "at": position} for key, position in changes.named]),
            (
                self._say.add_waiting,
                [
                    {"id": row.id, "position": row.position, "time": row.time, "named": row.named}
                    for row in changes.added
                ],
            ),
        ):
            if made:
                connection.execute(statement, made)

    def _payloads(self, connection: sa.Connection, entry: Entry) -> list[rows.Row]:
        """A row for all bytes that the turn names and that have none yet, or that shall now outlast a checkpoint."""
        lasting = {digest for saved in entry.versions for digest in (saved.blob, saved.golden)}
        lasting |= {entry.predictions, entry.labels, entry.segment.digest if entry.segment else ""}
        lasting |= {segment.digest for segment in entry.thinned}
        sizes = {digest: len(data) for digest, data in self._pending.items()} | self._loose
        facts = {
            digest: saved.version.number
            for saved in reversed(entry.versions)
            for digest in rows.digests(saved.facts) & sizes.keys()
        }
        lasting |= facts.keys()
        named = sorted((lasting | {entry.checkpoint}) - {""})
        kept = {}
        if before := [digest for digest in named if digest not in sizes]:
            found = connection.execute(self._say.known, {"digests": before})
            kept = {row.digest: row.kept for row in found if row.erased_at is None}
        made = []
        for digest in named:
            size = sizes.get(digest)
            if size is None and digest not in kept:
                size = self.blobs.size(digest)
                if size is None:
                    raise MissingBlob(f"turn {entry.turn} names {digest}, which was never put", digest=digest)
            if size is not None or (digest in lasting and not kept[digest]):
                data = self._pending.get(digest)
                made.append(
                    {
                        "digest": digest,
                        "size": size or 0,
                        "kept": digest in lasting,
                        "data": data,
                        "of_version": facts.get(digest),
                    }
                )
        return made

    def _bury(self, connection: sa.Connection, entry: Entry) -> list[str]:
        """Mark released segments as dead, of equal ones the oldest, and let go of bytes that none alive has.

        Gives the digests of those that are in the blob store.
        """
        outside = []
        for seq, digest in enumerate(entry.released):
            oldest = connection.execute(self._say.oldest_alive, {"digest": digest}).one_or_none()
            if oldest is None:
                raise Conflict(f"turn {entry.turn} releases segment {digest}, and none of that digest is alive")
            which = {"oldest_born": oldest.born, "its_seq": oldest.seq}
            connection.execute(self._say.bury, which | {"at_turn": entry.turn, "at_seq": seq})
            if connection.execute(self._say.oldest_alive, {"digest": digest}).one_or_none() is None:
                row = connection.execute(self._say.payload_place, {"digest": digest}).one_or_none()
                if row is not None and row.erased_at is None:
                    connection.execute(self._say.drop_payload, {"gone": digest})
                    outside += [digest] if row.outside else []
        return outside

    def _drop_checkpoint(self, connection: sa.Connection, entry: Entry) -> list[str]:
        """Delete the checkpoint that newer ones have made superfluous; its digest, if it is in the blob store."""
        if not entry.checkpoint:
            return []
        found = connection.execute(self._say.checkpoints, {"count": self._keep_checkpoints + 1}).all()
        *newer, old = (row.checkpoint for row in found)
        if len(newer) < self._keep_checkpoints or old in newer:
            return []
        row = connection.execute(self._say.payload_place, {"digest": old}).one_or_none()
        if row is None or row.kept or row.erased_at is not None:
            return []
        connection.execute(self._say.drop_payload, {"gone": old})
        return [old] if row.outside else []

    def waiting(self, ids: Sequence[bytes]) -> dict[bytes, list[WaitingRow]]:
        """The rows that wait for a label of a log, of these digests of ids; in order of position."""
        out: dict[bytes, list[WaitingRow]] = {}
        if not ids:
            return out
        with self._database.reading() as connection:
            for first in range(0, len(ids), _IDS):
                for row in connection.execute(self._say.find_waiting, {"ids": ids[first : first + _IDS]}):
                    out.setdefault(row.id, []).append(
                        WaitingRow(id=row.id, position=row.position, time=row.time, named=row.named)
                    )
        return out

    # -- files that are predicted apart from the stream

    def log_file(self, version: str, file: str, parts: Sequence[tuple[int, bytes]]) -> int:
        """Log what a version said of a file, the rows and the bytes of each part; gives its number. Needs no lease.

        The bytes are rows of the database whatever their size: a run that begins just now could take a file in the blob
        store for a leftover.

        Raises
        ------
        UnknownVersion
            If there is no such version.
        """
        with self._database.writing() as connection:
            connection.execute(self._say.lock_head)
            self._demand(connection, version)
            number: int = (connection.execute(self._say.last_file).scalar() or 0) + 1
            for part, (size, data) in enumerate(parts):
                row = {"number": number, "part": part, "version": version, "file": rows.prose(file), "rows": size}
                connection.execute(self._say.add_file, row | {"predictions": self._keep(connection, data)})
        return number

    def _keep(self, connection: sa.Connection, data: bytes) -> str:
        """Put bytes into the database, to stay; gives their digest."""
        digest = hashlib.sha256(data).hexdigest()
        row = {"digest": digest, "size": len(data), "kept": True, "data": data, "of_version": None}
        connection.execute(self._say.add_payload, row)
        return digest

    def files(self) -> list[FilePart]:
        """What was logged of files, in order."""
        with self._database.reading() as connection:
            names = ("number", "part", "version", "at", "file", "rows", "predictions")
            return [
                FilePart(**{name: getattr(row, name) for name in names}) for row in connection.execute(self._say.files)
            ]

    def change_file(self, part: FilePart, data: bytes) -> None:
        """Put other predictions in place of a part's; its own are then to be forgotten, once no part has the same."""
        with self._database.writing() as connection:
            values = {"of_number": part.number, "of_part": part.part, "instead": self._keep(connection, data)}
            connection.execute(self._say.change_file, values)

    # -- aliases

    def set_alias(self, change: AliasChange) -> Alias:
        """Move a pointer, as an operator does: a compare-and-set in a transaction of its own. Needs no lease.

        Raises
        ------
        AliasMoved
            If its generation is another than ``change.generation``.
        UnknownVersion
            If there is no such version.
        ConfigError
            If the alias is none, the champion would be taken away, or a share is none or not the challenger's.
        """
        return self.set_aliases([change])[0]

    def set_aliases(self, changes: Sequence[AliasChange]) -> list[Alias]:
        """Move several pointers as :meth:`set_alias` does, all in one transaction or none."""
        with self._database.writing() as connection:
            connection.execute(self._say.lock_head)  # before it is read: moves happen one after the other
            return [self._move(connection, change, None) for change in changes]

    def _move(self, connection: sa.Connection, change: AliasChange, turn: int | None) -> Alias:
        current = self._alias(connection, change.alias)
        if current.generation != change.generation:
            by = f", by {current.actor!r} to {current.version}" if current.actor else ""
            raise AliasMoved(
                f"{change.alias} has generation {current.generation}, not {change.generation}: it was moved{by}. "
                "Read it again and decide anew",
                alias=change.alias,
                expected=change.generation,
                actual=current.generation,
            )
        _check_shares(change)
        if change.version is None and change.alias == "champion":
            raise ConfigError("version", None, "a champion is replaced by another version and never taken away")
        if change.version is not None:
            self._demand(connection, change.version)
        moved = connection.execute(self._say.moves).scalar() or 0
        made = Alias(
            alias=change.alias,
            version=change.version,
            generation=change.generation + 1,
            reason=rows.prose(change.reason),
            actor=rows.prose(change.actor),
            at=int(change.at),
            canary=float(change.canary),
            shadow=float(change.shadow),
        )
        names = ("alias", "version", "generation", "reason", "actor", "at", "canary", "shadow")
        values = {name: getattr(made, name) for name in names}
        connection.execute(self._say.add_alias, values | {"turn": turn, "moved": moved + 1})
        return made

    def alias(self, name: AliasName) -> Alias:
        """Where a pointer points; generation 0 if it was never set."""
        with self._database.reading() as connection:
            return self._alias(connection, name)

    def moves(self) -> int:
        """How often pointers were moved, all together: whoever follows them looks no further while it stays."""
        with self._database.reading() as connection:
            return connection.execute(self._say.moves).scalar() or 0

    def pointers(self) -> dict[AliasName, Alias]:
        """Where every pointer points, all at one instant."""
        with self._database.reading() as connection:
            return {name: self._alias(connection, name) for name in ALIASES}

    def _alias(self, connection: sa.Connection, name: AliasName) -> Alias:
        if name not in ALIASES:
            raise ConfigError("alias", name, nearest(str(name), get_args(AliasName)))
        row = connection.execute(self._say.alias, {"alias": name}).one_or_none()
        return Alias(alias=name, version=None, generation=0) if row is None else rows.alias(row)

    def alias_history(self, name: AliasName | None = None) -> list[Alias]:
        """Every move of one pointer, or of all, in the order they were made."""
        query = sa.select(aliases).where(aliases.c.deployment_id == self.deployment).order_by(aliases.c.moved)
        if name is not None:
            query = query.where(aliases.c.alias == name)
        with self._database.reading() as connection:
            return [rows.alias(row) for row in connection.execute(query)]

    def became_champion(self) -> list[tuple[str, int]]:
        """Each version that a run made champion, and when that was durable by the database's clock, in order."""
        query = (
            sa.select(aliases.c.version, turns.c.committed_at)
            .join(turns, (turns.c.deployment_id == aliases.c.deployment_id) & (turns.c.turn == aliases.c.turn))
            .where(aliases.c.deployment_id == self.deployment, aliases.c.alias == "champion")
            .where(aliases.c.version.is_not(None))
            .order_by(aliases.c.moved)
        )
        with self._database.reading() as connection:
            return [(str(version), int(at)) for version, at in connection.execute(query)]

    def served_at(self, at: int) -> Alias | None:
        """The champion at an instant; None before the first."""
        with self._database.reading() as connection:
            row = connection.execute(self._say.champion_at, {"instant": at}).one_or_none()
        return None if row is None else rows.alias(row)

    # -- reading

    def versions(self) -> list[Saved]:
        """Every version, in order of creation."""
        with self._database.reading() as connection:
            return [rows.saved(row) for row in connection.execute(self._say.versions)]

    def version(self, number: str) -> Saved:
        """One version, ``"MAJOR.MINOR"``; raises ``UnknownVersion``, which suggests the nearest."""
        with self._database.reading() as connection:
            row = connection.execute(self._say.version, {"number": number}).one_or_none()
            if row is None:
                raise self._unknown(connection, number)
        return rows.saved(row)

    def _demand(self, connection: sa.Connection, number: str) -> None:
        if connection.execute(self._say.has_version, {"number": number}).scalar() is None:
            raise self._unknown(connection, number)

    def _unknown(self, connection: sa.Connection, number: str) -> UnknownVersion:
        return UnknownVersion.among(self.deployment, number, list(connection.execute(self._say.numbers).scalars()))

    def committed(self, since: int = 0) -> dict[int, int]:
        """When each turn from ``since`` on was committed, by the database's clock."""
        with self._database.reading() as connection:
            found = connection.execute(self._say.committed, {"from_turn": since})
            return {row.turn: row.committed_at for row in found}

    def entries(self, since: int = 0, until: int | None = None) -> Iterator[Entry]:
        """Turns ``[since, until)`` in order, each equal to what was committed.

        Tuples in plain data are lists. Of ``waiting`` nothing is kept with a turn; of ``position`` a digest where the
        ledger forgets.
        """
        while True:
            stop = since + _PAGE if until is None else min(since + _PAGE, until)
            page = self._page(since, stop) if stop > since else []
            yield from page
            if not page:
                return
            since = page[-1].turn + 1

    def _page(self, first: int, stop: int) -> list[Entry]:
        """Turns ``[first, stop)``. Nothing of a turn ever changes, so pages need not be of one instant."""
        with self._database.reading() as connection:

            def part(statement: Any) -> dict[int, list[Any]]:
                grouped: dict[int, list[Any]] = {}
                for row in connection.execute(statement, {"from_turn": first, "to_turn": stop}):
                    grouped.setdefault(row.of_turn, []).append(row)
                return grouped

            parts = {name: part(statement) for name, statement in self._say.parts.items()}
            found = connection.execute(self._say.turns, {"from_turn": first, "to_turn": stop}).all()
        return [rows.entry(row, {name: of.get(row.turn, []) for name, of in parts.items()}) for row in found]

    def verdicts(self, version: str | None = None) -> list[Verdict]:
        """What the gate said, of one version or of all, in order."""
        query = (
            sa.select(verdicts)
            .where(verdicts.c.deployment_id == self.deployment)
            .order_by(verdicts.c.turn, verdicts.c.seq)
        )
        if version is not None:
            query = query.where(verdicts.c.version == version)
        with self._database.reading() as connection:
            return [rows.verdict(row) for row in connection.execute(query)]

    def segments(self, alive: bool = True) -> list[Segment]:
        """The labelled examples that are kept, or all that ever were, in order of their turns."""
        query = sa.select(segments).where(segments.c.deployment_id == self.deployment)
        query = query.order_by(segments.c.born, segments.c.seq)
        if alive:
            query = query.where(segments.c.dead.is_(None))
        with self._database.reading() as connection:
            return [rows.segment(row) for row in connection.execute(query)]

    def statuses(self) -> dict[str, str]:
        """What became of each version, in order of creation.

        ``champion``, ``challenger`` or ``previous`` where an alias says so; else ``rejected`` if that is the gate's
        last word on it, and otherwise ``retired``.
        """
        with self._database.reading() as connection:
            found = dict.fromkeys(connection.execute(self._say.numbers).scalars(), "retired")
            for number, outcome in connection.execute(self._say.outcomes):
                if number in found:
                    found[number] = "rejected" if outcome == "reject" else "retired"
            for name in ("previous", "challenger", "champion"):
                pointed = self._alias(connection, name).version
                if pointed is not None:
                    found[pointed] = name
        return found

    # -- what nothing names, and what is not whole

    def collect(self, lease: Lease) -> list[str]:
        """Remove the bytes that nothing names any more, and what interrupted puts left; their digests and names.

        Kept are models, golden sets, what facts of versions name, predictions, labels, segments that are alive, the
        last checkpoints, and what was put since the last commit. Call it before the first turn, and between turns as
        often as you like.

        Raises
        ------
        LeaseLost
            If the lease ran out or was taken over. What was removed by then stays removed.
        """
        with self._database.writing() as connection:
            self._hold(connection, lease)
            named = self._named(connection)
            erased = set(connection.execute(self._say.erased).scalars())
            known = set(connection.execute(self._say.digests).scalars())
            inline = sorted(known - named.keys() - erased)
            for digest in inline:
                connection.execute(self._say.drop_payload, {"gone": digest})
        spared = (named.keys() | self._loose.keys()) - erased
        still = self._watch(lease)
        removed = []
        for digest in sorted(set(self.blobs.digests()) - spared):
            still()
            self.blobs.delete(digest)
            failpoints.reach("orphan.removed")
            removed.append(digest)
        for part in sorted(self.blobs.parts()):
            still()
            self.blobs.discard(part)
            failpoints.reach("orphan.removed")
            removed.append(part)
        return removed + [digest for digest in inline if digest not in removed]

    def _watch(self, lease: Lease) -> Callable[[], None]:
        """A check that the lease is still ours, which asks the database before half of what was left is over."""
        asked = 0.0

        def still() -> None:
            nonlocal asked
            if time.monotonic() >= asked:
                with self._database.writing() as connection:
                    asked = time.monotonic() + self._hold(connection, lease) / 2

        return still

    def check(self) -> list[Finding]:
        """What is wrong: bytes that are missing or changed, gaps, pointers to nothing, leftovers. Reads every blob.

        Released segments that wait to be collected are no finding. While a run is going on, bytes that it is about to
        name look like leftovers.
        """
        files = set(self.blobs.digests())  # before what names them: a turn may be committed meanwhile
        parts = sorted(self.blobs.parts())
        with self._database.reading() as connection:
            found = [*self._broken_turns(connection), *self._broken_aliases(connection)]
            named = self._named(connection)
            erased = set(connection.execute(self._say.erased).scalars())
            inline = set(connection.execute(self._say.inline).scalars())
            known = set(connection.execute(self._say.digests).scalars())
            released = set(connection.execute(self._say.released).scalars())
        wrong = {digest: told for digest in sorted(named.keys() - erased) if (told := self._wrong(digest))}
        if wrong:  # a run may have dropped an old checkpoint meanwhile
            with self._database.reading() as connection:
                named = self._named(connection)
        found += [_broken(f"{named[digest]}: {told}") for digest, told in wrong.items() if digest in named]
        orphans = ((files | inline | known - erased) - named.keys() - released) | (files & erased)
        found += [_leftover(f"{digest} is kept, and no turn names it") for digest in sorted(orphans)]
        return found + [_leftover(f"{part} was left by a write that was interrupted") for part in parts]

    def mend(self, lease: Lease) -> list[Finding]:
        """Repair what is safe to repair, the leftovers; what was mended, then what is still wrong."""
        done = [
            Finding(what=f"{name} was kept, and no turn names it", safe=True, mended=True)
            for name in self.collect(lease)
        ]
        return done + self.check()

    def _wrong(self, digest: str) -> str:
        try:
            self.get(digest)
        except (MissingBlob, CorruptBlob) as error:
            return str(error)
        return ""

    def _named(self, connection: sa.Connection) -> dict[str, str]:
        """Every digest whose bytes must be there, and what names it."""
        checkpoints = connection.execute(self._say.checkpoints, {"count": self._keep_checkpoints}).all()
        oldest = checkpoints[-1].turn if checkpoints else 0
        found = connection.execute(self._say.named, {"from_turn": oldest})
        return {row.digest: f"{row.what} {row.of}" for row in found if row.digest}

    def _broken_turns(self, connection: sa.Connection) -> Iterable[Finding]:
        head = self._head(connection)
        row = connection.execute(self._say.turn_range).one()
        if row.n != head.turn + 1 or (row.n and (row.low, row.high) != (0, head.turn)):
            yield _broken(f"{row.n} turns from {row.low} to {row.high} are kept, and the head says {head.turn}")
        beyond = connection.execute(self._say.last_waiting).scalar()
        if beyond is not None and beyond >= (taken := connection.execute(self._say.rows).scalar() or 0):
            yield _broken(f"row {beyond} waits for a label, and {taken} rows were taken")
        last = connection.execute(self._say.last_turn, {"turn": head.turn}).one_or_none()
        if last is not None and (last.position, last.checkpoint) != (self._past(head.position), head.checkpoint):
            yield _broken(f"the head does not stand where turn {head.turn} ended")

    def _broken_aliases(self, connection: sa.Connection) -> Iterable[Finding]:
        for row in connection.execute(self._say.alias_range):
            if (row.low, row.high) != (1, row.n):
                yield _broken(f"{row.alias} was moved {row.n} times, from generation {row.low} to {row.high}")
        for row in connection.execute(self._say.lost_aliases):
            yield _broken(f"{row.alias}, generation {row.generation}, points to {row.version}, which is not there")

    # -- erasing

    def forget(self, digest: str) -> None:
        """Remove bytes for good, whatever names them; :meth:`get` then says that they were erased.

        Call :meth:`scrub` after the last one, so that no copy stays in the database's own files.
        """
        self._pending.pop(digest, None)
        self._loose.pop(digest, None)
        with self._database.writing() as connection:
            if not connection.execute(self._say.erase, {"gone": digest}).rowcount and self.blobs.size(digest):
                connection.execute(self._say.add_erased, {"digest": digest})
        self.blobs.delete(digest)

    def scrub(self) -> None:
        """Rid the database's files of what was deleted: SQLite's log is emptied, PostgreSQL's table rewritten.

        Raises
        ------
        StorageError
            If somebody reads just now: try again.
        """
        if self._database.dialect == "postgresql":
            self._database.outside("VACUUM (FULL) payloads, waiting")
        elif self._database.outside("PRAGMA wal_checkpoint(TRUNCATE)"):
            raise StorageError(f"{self._database.where} is being read: the log cannot be emptied", retryable=True)


def _span(ttl: timedelta) -> int:
    if ttl <= timedelta(0):
        raise ConfigError("ttl", ttl, "give a positive duration, e.g. timedelta(seconds=30)")
    return micros(ttl)


def _broken(what: str) -> Finding:
    return Finding(what=what, safe=False)


def _leftover(what: str) -> Finding:
    return Finding(what=what, safe=True)


def _upgrade(database: Database, *, create: bool) -> None:
    """Bring the tables to this release; who finds them so need not wait for a writer."""
    with database.reading() as connection:
        ready = revision(connection) == REVISION
    if not ready:
        with database.writing() as connection:
            prepare(connection, database.where, create=create)


def _deployments(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.select(deployments.c.deployment_id).order_by("deployment_id")).scalars())


def _check_shares(change: AliasChange) -> None:
    for name in ("canary", "shadow"):
        share = getattr(change, name)
        if not 0.0 <= share <= 1.0:  # NaN lands here too
            raise ConfigError(name, share, "give the share of requests, from 0 to 1")
        if share and (change.alias != "challenger" or change.version is None):
            raise ConfigError(name, share, "only a challenger has a share of requests: point it at a version")


def _place(database: Database, deployment: str, create: bool, forgets: bool) -> tuple[str, bool]:
    """The folder of a deployment's blobs and whether it forgets rows; made with the deployment if it is new.

    It ends in random digits: what one ledger collects can never be another's, also where two share a folder or a
    bucket, and where a name was given up and taken again.
    """
    _upgrade(database, create=create)
    query = sa.select(deployments.c.place, deployments.c.forgets).where(deployments.c.deployment_id == deployment)
    with database.reading() as connection:
        found = connection.execute(query).one_or_none()
        names = [] if found is not None or create else _deployments(connection)
    if found is not None:
        return found.place, found.forgets
    if not create:
        hint = nearest(deployment, names) if names else "there are none yet"
        raise LedgerError(f"{database.where} has no deployment {deployment!r}: {hint}")
    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(sa.text("LOCK TABLE deployments IN SHARE ROW EXCLUSIVE MODE"))
        found = connection.execute(query).one_or_none()
        if found is not None:  # somebody made it since
            return found.place, found.forgets
        place = f"{deployment.lower()}-{secrets.token_hex(4)}"
        mine = {"deployment_id": deployment}
        made = sa.insert(deployments).values(place=place, forgets=forgets, created_at=database_now())
        connection.execute(made, mine)
        connection.execute(sa.insert(leases), mine | {"holder": "", "token": 0, "expires_at": 0, "ttl": 0})
        connection.execute(sa.insert(heads), mine | {"turn": -1, "position": "", "checkpoint": "", "intent": ""})
    return place, forgets
