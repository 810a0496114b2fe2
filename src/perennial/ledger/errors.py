"""What can go wrong with a durable ledger. ``retryable`` says whether the same call may succeed later, untouched.

LedgerError
├── StorageError     the database or the disk did not do what was asked
├── LeaseHeld        someone else takes the turns; names the holder and the seconds that are left
├── LeaseLost        the lease ran out or was taken over: nothing was written
├── Conflict         the turn does not follow the last one, or was committed before
├── AliasMoved       somebody moved the pointer first
├── UnknownVersion   (LookupError)   no such version; suggests the nearest
├── MissingBlob      (LookupError)   no such bytes
└── CorruptBlob      the bytes are not what their digest says
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from perennial.core.errors import LedgerError


class StorageError(LedgerError):
    """The database or the disk did not do what was asked; the cause is ``__cause__``."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class LeaseHeld(LedgerError):
    """Someone else's lease has not run out: ``holder``, and ``remaining`` in seconds."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, holder: str = "", remaining: float = 0.0) -> None:
        super().__init__(message)
        self.holder = holder
        self.remaining = remaining


class LeaseLost(LedgerError):
    """The lease ran out or was taken over. Nothing was written: stop, and acquire it anew."""

    retryable: ClassVar[bool] = False


class Conflict(LedgerError):
    """What was to be written does not follow what is there. ``head()`` says what is."""

    retryable: ClassVar[bool] = False


class AliasMoved(LedgerError):
    """A pointer has another generation than the one that was read: ``expected`` and ``actual``."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, alias: str = "", expected: int = 0, actual: int = 0) -> None:
        super().__init__(message)
        self.alias = alias
        self.expected = expected
        self.actual = actual


class UnknownVersion(LedgerError, LookupError):
    """There is no such version; the message suggests the nearest."""

    retryable: ClassVar[bool] = False

    @classmethod
    def among(cls, deployment: str, number: str, known: Sequence[str]) -> Self:
        """The error for a number that is not among those of a deployment, which are in order of creation.

        Examples
        --------
        >>> print(UnknownVersion.among("churn", "1.7", ["1.0", "1.1", "1.2"]))
        'churn' has no version '1.7': did you mean `1.2`? It has 3, from 1.0 to 1.2:  perennial versions
        """
        if not known:
            return cls(f"{deployment!r} has no version {number!r}: none was made yet, run the deployment first")
        span = f"{len(known):,}, from {known[0]} to {known[-1]}" if len(known) > 1 else f"one, {known[0]}"
        wanted = _parts(number)
        near = min(known, key=lambda other: _distance(_parts(other), wanted)) if wanted is not None else ""
        hint = f"did you mean `{near}`? It" if near else "it"
        return cls(f"{deployment!r} has no version {number!r}: {hint} has {span}:  perennial versions")


def _parts(number: str) -> tuple[int, int] | None:
    if len(number) > 40:  # Python refuses to read a number of thousands of digits
        return None
    major, _, minor = number.partition(".")
    return (int(major), int(minor or 0)) if major.isdecimal() and (minor or "0").isdecimal() else None


def _distance(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int]:
    assert one is not None
    assert other is not None
    return abs(one[0] - other[0]), abs(one[1] - other[1])


class MissingBlob(LedgerError, LookupError):
    """No bytes have this digest here, or they were erased."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, digest: str = "") -> None:
        super().__init__(message)
        self.digest = digest


class CorruptBlob(LedgerError):
    """The bytes that are kept are not those that the digest names."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, digest: str = "") -> None:
        super().__init__(message)
        self.digest = digest
