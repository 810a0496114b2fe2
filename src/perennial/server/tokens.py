"""The file of access tokens: who may do what. It holds hashes, from which no token can be told.

A token is 192 random bits, so that one round of SHA-256 hides it as well as any slow hash: there is nothing to guess.
The file is YAML, written whole, aside and then renamed: a server that reads it meanwhile sees the old one or the new.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from perennial.core.errors import ConfigError, FormatError, nearest

Scope = Literal["predict", "feedback", "operate", "read"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

FORMAT = 1
_PREFIX = "pn_"  #: by which scanners for leaked secrets, and people, know one
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is kept of a token: the hash, and what it allows.

    Parameters
    ----------
    name : str
        Who has it; in logs, and as the one who gave a word.
    scopes : tuple of {"predict", "feedback", "operate", "read"}
        What it allows.
    hash : str
        SHA-256 of the token, in hex.
    created : datetime
        When it was made.
    expires : datetime, optional
        From when on it is refused.
    """

    name: str
    scopes: tuple[str, ...]
    hash: str
    created: datetime
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError("name", self.name, "use letters, digits, `.`, `_` and `-`, at most 64 of them")
        if not self.scopes:
            raise ConfigError("scope", [], f"say what the token allows: {', '.join(SCOPES)}")
        for scope in self.scopes:
            if scope not in SCOPES:
                raise ConfigError("scope", scope, nearest(str(scope), SCOPES))
        if not _HASH.fullmatch(self.hash):
            raise ConfigError("sha256", "...", "is no SHA-256 in hex: make tokens with  perennial token")
        for field, instant in (("created", self.created), ("expires", self.expires)):
            if instant is not None and instant.tzinfo is None:
                raise ConfigError(field, instant.isoformat(), "give its offset, e.g. 2027-01-31T00:00:00Z")

    def valid(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the file."""
        told = {"name": self.name, "scopes": list(self.scopes), "sha256": self.hash, "created": _spelt(self.created)}
        return told if self.expires is None else {**told, "expires": _spelt(self.expires)}


def hashed(token: str) -> str:
    """What is kept of a token."""
    return sha256(token.encode()).hexdigest()


def make(name: str, scopes: Collection[str], *, now: datetime, expires: datetime | None = None) -> tuple[str, Token]:
    """A new token, and what to keep of it. The first is shown once and never again."""
    text = _PREFIX + secrets.token_urlsafe(24)
    return text, Token(name=name, scopes=tuple(scopes), hash=hashed(text), created=now, expires=expires)


# -- the file ---------------------------------------------------------------------------------------------------------


def read(file: Path) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises
    ------
    ConfigError
        If it is missing, or what it holds are no tokens: names the file and the next step, and quotes no line.
    FormatError
        If a later release wrote it.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        need = f"cannot be read ({reason}): make it with  perennial token NAME --scope predict --file {file}"
        raise ConfigError("tokens", str(file), need) from error
    try:
        held = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ConfigError("tokens", str(file), f"is no YAML{where}: make tokens with  perennial token") from None
    if held is None:
        return ()
    if not isinstance(held, dict) or not isinstance(held.get("tokens", []), list):
        raise ConfigError("tokens", str(file), "holds no list of `tokens`: make them with  perennial token")
    if held.get("format") != FORMAT:
        raise FormatError(f"{file} has format {held.get('format')!r}; this release reads {FORMAT}: upgrade perennial")
    return tuple(_parsed(file, place, one) for place, one in enumerate(held.get("tokens") or [], 1))


def _parsed(file: Path, place: int, one: Any) -> Token:
    try:
        if not isinstance(one, dict) or set(one) - {"name", "scopes", "sha256", "created", "expires"}:
            raise ConfigError("token", place, "has name, scopes, sha256, created, and maybe expires")
        return Token(
            name=str(one.get("name", "")),
            scopes=tuple(one.get("scopes") or ()),
            hash=str(one.get("sha256", "")),
            created=_instant("created", one.get("created")),
            expires=None if one.get("expires") is None else _instant("expires", one["expires"]),
        )
    except (ConfigError, TypeError) as error:
        why = f"{error.field}: {error.need}" if isinstance(error, ConfigError) else "its scopes are no list"
        raise ConfigError("tokens", str(file), f"token {place}: {why}") from None


def _instant(field: str, value: Any) -> datetime:
    if isinstance(value, datetime):  # YAML reads instants itself
        return value
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise ConfigError(field, "...", "give an instant, e.g. 2027-01-31T00:00:00Z") from None


def _spelt(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def write(file: Path, tokens: Sequence[Token]) -> None:
    """Write the file whole, readable by its owner alone: old or new, whenever the machine stops."""
    told = yaml.safe_dump({"format": FORMAT, "tokens": [token.to_dict() for token in tokens]}, sort_keys=False)
    place_private(file, told.encode())


def place_private(file: Path, data: bytes) -> None:
    """Put bytes in the place of a file that only its owner may read, durably."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def changing(file: Path) -> Iterator[None]:
    """Nobody else who changes the file does so meanwhile. Readers need not wait."""
    handle = os.open(file.with_name(f".{file.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def add(
    file: Path, name: str, scopes: Collection[str], *, now: datetime, expires: datetime | None = None
) -> tuple[str, Token]:
    """Make a token and keep its hash; the first of a file makes the file. Gives the token, and what is kept of it.

    Raises
    ------
    ConfigError
        If the name is taken by a token that is still valid.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with changing(file):
        there = read(file) if file.exists() else ()
        if any(one.name == name and one.valid(now) for one in there):
            need = f"there is one of this name: choose another, or first  perennial token --revoke {name}"
            raise ConfigError("name", name, need)
        text, token = make(name, scopes, now=now, expires=expires)
        write(file, [*(one for one in there if one.name != name), token])
    return text, token


def revoke(file: Path, name: str) -> Token:
    """Take a token away; servers refuse it within seconds.

    Raises
    ------
    ConfigError
        If there is none of this name; suggests the nearest.
    """
    with changing(file):
        there = read(file)
        found = next((one for one in there if one.name == name), None)
        if found is None:
            names = [one.name for one in there]
            need = nearest(name, names) if names else "the file holds none"
            raise ConfigError("name", name, f"there is no token of this name: {need}")
        write(file, [one for one in there if one.name != name])
    return found
