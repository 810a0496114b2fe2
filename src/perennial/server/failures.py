"""Errors as answers: one table from the tree of errors to status codes, and what may be said of each.

A message goes out only where it is about what the client sent. What a database, a file or a bug said stays in the
server's log, under the id of the request.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple, final

from perennial.core.errors import (
    ConfigError,
    DataError,
    FormatError,
    LearnerError,
    LedgerError,
    PerennialError,
)
from perennial.ledger.errors import AliasMoved, LeaseHeld, StorageError, UnknownVersion
from perennial.stream.feed import OffsetGone, SourceAway
from perennial.stream.ingest import KeyTaken

RETRY = {"retry-after": "1"}


@final
class Refused(PerennialError):
    """A request that is not answered, in words that are meant for the client.

    Parameters
    ----------
    message : str
        What is wrong, the rule, and the next step; nothing of the body.
    status : int
        The status code; 422 unless given.
    headers : mapping, optional
        Headers of the answer.
    """

    def __init__(self, message: str, status: int = 422, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[type[Refused], tuple[str, int, dict[str, str]]]:
        return type(self), (str(self), self.status, self.headers)


@final
class FeaturesFailed(PerennialError):
    """The deployment's own function could not build features of the rows of a request; what it said is the cause."""


def no_champion() -> Refused:
    """What is said as long as no version serves."""
    return Refused(
        "no version serves yet: the first one is trained by  perennial run , or adopted; ask again later", 503, RETRY
    )


REUSED = "this request id was used before with other content: give each request an id of its own"

_AWAY = "what this needs cannot be reached now: nothing was done; send the same request again later"
_BUSY = "somebody else is at work on this deployment: nothing was done; send the same request again later"
_FAILED = "the server could not answer; its log says why under the request id {request!r}"
_FEATURES = "features of these rows could not be built: the server's log says why under the request id {request!r}"
_LOGGED = (_AWAY, _FAILED, _FEATURES)  #: words that say less than the log has to

#: what an error is answered with: the first kind that fits; no text: its own message, which is about the request
TABLE: tuple[tuple[type[Exception], int, str | None], ...] = (
    (UnknownVersion, 404, None),
    (AliasMoved, 409, "the champion changed meanwhile: look again, and decide anew"),
    (LeaseHeld, 409, _BUSY),
    (KeyTaken, 409, REUSED),
    (SourceAway, 503, _AWAY),
    (OffsetGone, 503, _AWAY),
    (FeaturesFailed, 422, _FEATURES),
    (StorageError, 503, _AWAY),
    (ConfigError, 422, None),
    (DataError, 422, None),
    (LearnerError, 500, _FAILED),
    (LedgerError, 500, _FAILED),
    (FormatError, 500, _FAILED),
)


class Answer(NamedTuple):
    """What to answer an error with.

    ``foreseen`` is false for a bug, whose trace belongs in the log; ``logged`` is true where the log has to say what
    the answer does not.
    """

    status: int
    message: str
    headers: Mapping[str, str]
    foreseen: bool
    logged: bool


def answer(error: Exception, request: str = "") -> Answer:
    """The status code, the words and the headers that an error is answered with.

    Examples
    --------
    >>> answer(DataError("column 'age' is missing"))[:2]
    (422, "column 'age' is missing")
    >>> answer(ZeroDivisionError("in /srv/models.py"), "r1")[:2]
    (500, "the server could not answer; its log says why under the request id 'r1'")
    """
    if isinstance(error, Refused):
        return Answer(error.status, str(error), error.headers, foreseen=True, logged=False)
    for kind, status, text in TABLE:
        if isinstance(error, kind):
            message = str(error) if text is None else text.format(request=request)
            foreseen = status < 500 or status == 503
            return Answer(status, message, RETRY if status == 503 else {}, foreseen, logged=text in _LOGGED)
    return Answer(500, _FAILED.format(request=request), {}, foreseen=False, logged=True)


def facts(error: Exception, *, trace: bool) -> dict[str, Any]:
    """An error as the log has it."""
    out: dict[str, Any] = {"kind": type(error).__name__, "error": str(error)}
    return out | {"trace": "".join(traceback.format_exception(error))} if trace else out
