"""How a request for predictions becomes an answer, whatever protocol it came in.

Who answers, what is said, under which ids, whether it was asked before, and what is logged and counted. Few rows are
predicted where they came in, which is quicker than handing them over; many in a thread, so that others are answered
meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from itertools import count
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol, final

import orjson

from perennial.config.records import Serve
from perennial.core.records import Label, Prediction
from perennial.server import failures
from perennial.server.counters import Counters
from perennial.server.failures import Refused, no_champion
from perennial.server.history import History
from perennial.server.rows import Answered, Rows
from perennial.server.seen import Seen
from perennial.server.signature import Policy, Signature, check_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]
Tell = Callable[[str, dict[str, Any]], None]

INLINE_ROWS = 256  #: up to so many rows are predicted on the loop's own thread
INLINE_BYTES = 1 << 18  #: bodies of up to so many bytes are read there

_PLACES = [f"/{i}" for i in range(10_000)]  #: ends of ids: adding one is three times as quick as formatting it
_JSON = (b"content-type", b"application/json")


class Slot(Protocol):
    """One version, ready to answer: see :mod:`perennial.server.models`."""

    @property
    def version(self) -> str:
        """Its number."""

    @property
    def classes(self) -> tuple[Label, ...]:
        """What codes mean; none for a regression."""

    @property
    def task(self) -> str:
        """``"classification"`` or ``"regression"``."""

    @property
    def signature(self) -> Signature:
        """The raw columns that a client sends."""

    def predict(self, rows: Rows, at: int | None = None) -> Prediction:
        """What it says of rows that happened at an instant; changes nothing."""


class Models(Protocol):
    """Who answers: see :mod:`perennial.server.models`."""

    @property
    def champion(self) -> Slot | None:
        """The version that serves."""

    @property
    def history(self) -> History | None:
        """Past rows that features are built from, where they are."""

    def choose(self, key: object | None, request_id: str) -> tuple[Slot, Slot | None]:
        """Who answers, and who is asked beside it."""

    def version(self, number: str) -> Slot:
        """A version by its number."""

    def resident(self) -> dict[str, str]:
        """Versions that are ready, by number, and what each is."""

    def close(self) -> None:
        """Let go of everything."""


class Writer(Protocol):
    """Where answers are logged: see :mod:`perennial.server.writer`."""

    def log(self, answered: Answered, first: Callable[[], object] | None = None) -> bool:
        """Take an answer to be logged, and call ``first`` before anybody can read it; false if it was not taken."""

    def close(self) -> None:
        """Let go of everything."""


class Access(Protocol):
    """Who may do what: see :mod:`perennial.server.access`."""

    def permit(self, scope: Scope, need: Any) -> Any:
        """Raise :class:`Refused` unless whoever asks may."""


@final
class Parts:
    """What the server is made of: the state of the app, filled as parts become ready.

    ``models`` and ``writer`` are None until there is a ledger; ``access`` where everybody may do everything.
    """

    def __init__(self, *, name: str, settings: Serve, counters: Counters, seen: Seen, tell: Tell) -> None:
        self.name = name
        self.settings = settings
        self.counters = counters
        self.seen = seen
        self.tell = tell
        self.models: Models | None = None
        self.writer: Writer | None = None
        self.access: Access | None = None
        self.deployment: Any = None
        self.hot: dict[str, Route] = {}
        self._waits_for = ""

    def wait_for(self, what: str) -> None:
        """Tell what is missing, once."""
        if what != self._waits_for:
            self.tell("waiting", {"deployment": self.name, "error": what})
        self._waits_for = what

    def close(self) -> None:
        """Let go of everything, once no request is being answered: what waits to be logged is logged first."""
        for part in (self.writer, self.models, self.seen, self.counters):
            if part is not None:
                part.close()


class Head(NamedTuple):
    """What matters of a request's headers."""

    length: int | None
    kind: bytes
    request: str | None
    tensors: bytes | None


class Asked(NamedTuple):
    """A request for predictions, read: ``request`` is the id that the client gave it.

    ``strict``: the id stands for the request whatever the ids of its rows are.
    """

    rows: Rows
    request: str | None
    strict: bool = False


class Said(NamedTuple):
    """What was said, and the id of the request: the client's, or ours."""

    request: str
    answered: Answered


Read = Callable[[bytes, Head, Signature], tuple[Asked, Any]]
Write = Callable[[Said, Any], tuple[bytes, list[tuple[bytes, bytes]]]]


@final
class Answering:
    """Answers requests for predictions.

    Parameters
    ----------
    parts : Parts
        What answers, logs and counts.
    clock : callable
        Microseconds since 1970 UTC: a prediction happened when its request came.
    """

    def __init__(self, parts: Parts, clock: Callable[[], int]) -> None:
        self._parts = parts
        self._clock = clock
        self.policy = Policy(nan=parts.settings.nan, infinite=parts.settings.infinite)
        self._most = parts.settings.rows
        self._refuses = parts.settings.overflow == "refuse"
        self._nonce = secrets.token_hex(6)
        self._numbers = count()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="perennial-predict")

    def fresh(self) -> str:
        """An id for a request that came without one; no other process ever gives it."""
        return f"{self._nonce}-{next(self._numbers):x}"

    def asks(self, version: str | None) -> Slot:
        """The version that rows are to be read for: the champion's columns are everybody's."""
        models = self._parts.models
        if models is None or models.champion is None:
            raise no_champion()
        return models.champion if version is None else models.version(version)

    async def say(self, asked: Asked, only: Slot | None = None) -> Said:
        """Predict, under the ids that labels will refer to; ``only`` is the version that was named, if one was.

        Raises
        ------
        Refused
            If there are too many rows or none, or nobody can answer.
        """
        rows, time = asked.rows, self._clock()
        if not 0 < rows.n <= self._most:
            if not rows.n:
                raise Refused("there is no row: give at least one")
            raise Refused(f"there are {rows.n:,} rows, and {self._most:,} may come at once: send them in parts", 413)
        request = self.fresh() if asked.request is None else asked.request
        slot, shadow = (only, None) if only is not None else self._chosen(rows, request)
        prediction, beside = await self._predict(slot, shadow, rows, time)
        ids = list(map(request.__add__, _PLACES[: rows.n])) if rows.ids is None else rows.ids
        if len(ids) < rows.n:  # more rows than anybody has set so far
            ids += [f"{request}/{i}" for i in range(len(ids), rows.n)]
        told = None if shadow is None or beside is None else (shadow.version, beside)
        return Said(
            request,
            Answered(time=time, ids=ids, rows=rows, version=slot.version, prediction=prediction, shadow=told),
        )

    def record(self, asked: Asked, answered: Answered) -> None:
        """Log and count what is about to be answered; a request that came before is logged once.

        Raises
        ------
        Refused
            If its id was used for something else, or nothing more can be logged and nothing may go unlogged.
        """
        parts, rows, request = self._parts, asked.rows, None
        counters = parts.counters
        if asked.request is not None and (asked.strict or rows.ids is None):
            claim = parts.seen.claim(asked.request, _content(rows))
            if claim == "other":
                raise Refused(failures.REUSED, 409)
            if claim == "same":
                counters.add("repeated", rows.n)
                counters.add("predictions", rows.n)
                return
            request = answered.request = asked.request
        if parts.writer is None:
            if request is not None:  # nothing is to become durable
                parts.seen.confirm([request])
        else:
            self._log(parts.writer, answered, request)
        counters.add("predictions", rows.n)
        counters.add("rows", rows.n)

    def _log(self, writer: Writer, answered: Answered, request: str | None) -> None:
        """Log what is about to be answered to ``request``, which was claimed."""
        parts, n = self._parts, answered.rows.n
        history = None if parts.models is None else parts.models.history
        parts.counters.add("answered", n)
        try:
            if history is None:
                taken = writer.log(answered)
            else:  # what is not logged is nobody's past: training never sees it
                taken = writer.log(answered, partial(history.saw, answered.ids, answered.rows, answered.time))
            if not taken and self._refuses:
                raise Refused("too many predictions wait to be logged: send this one again", 503, failures.RETRY)
        except BaseException:
            parts.counters.add("answered", -n)
            if request is not None:
                parts.seen.release(request)  # it may come again, and is logged then
            raise
        if not taken and request is not None:
            parts.seen.unlogged([request])

    def _chosen(self, rows: Rows, request: str) -> tuple[Slot, Slot | None]:
        models = self._parts.models
        if models is None or models.champion is None:
            raise no_champion()
        keys = rows.keys
        # one version answers a request: rows of several subjects are routed together, by the request
        key = keys[0] if keys and (len(keys) == 1 or len(set(keys)) == 1) else None
        return models.choose(key, request)

    async def _predict(
        self, slot: Slot, shadow: Slot | None, rows: Rows, at: int
    ) -> tuple[Prediction, Prediction | None]:
        if rows.n <= INLINE_ROWS:
            return slot.predict(rows, at), None if shadow is None else self._beside(shadow, rows, at)
        loop = asyncio.get_running_loop()
        said = await loop.run_in_executor(self._threads, slot.predict, rows, at)
        if shadow is None:
            return said, None
        return said, await loop.run_in_executor(self._threads, self._beside, shadow, rows, at)

    def _beside(self, shadow: Slot, rows: Rows, at: int) -> Prediction | None:
        """What a challenger says; that it fails is told, and changes no answer."""
        try:
            said = shadow.predict(rows, at)
        except Exception as error:  # whoever asked gets the champion's answer all the same
            self._parts.tell("shadow failed", {"version": shadow.version, "error": repr(error)})
            return None
        self._parts.counters.add("shadowed", rows.n)
        return said

    def close(self) -> None:
        """Let go of the thread."""
        self._threads.shutdown(wait=False)


def _content(rows: Rows) -> bytes:
    """What was asked, whatever the bytes it was written in."""
    hashing = blake2b(rows.numbers.tobytes(), digest_size=16)
    if rows.others or rows.ids is not None or rows.keys is not None:
        hashing.update(repr((sorted(rows.others.items()), rows.ids, rows.keys)).encode())
    return hashing.digest()


@final
class Route:
    """A route for predictions as a plain ASGI app: reads, answers, writes, and counts.

    Parameters
    ----------
    answering : Answering
        What answers.
    parts : Parts
        What it counts in.
    name : str
        What requests are counted under.
    read, write : callable
        The protocol: from a body to rows and what the answer shall have, and from what was said to a body and headers.
    """

    def __init__(self, answering: Answering, parts: Parts, name: str, read: Read, write: Write) -> None:
        self._answering, self._parts, self._name = answering, parts, name
        self._read, self._write = read, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter_ns()
        counters = self._parts.counters
        head: Head | None = None
        counters.add("in_flight")
        try:
            if scope["method"] != "POST":
                raise Refused("this route takes POST", 405, {"allow": "POST"})
            if self._parts.access is not None:
                self._parts.access.permit(scope, "predict")
            head = read_head(scope)
            body = await read_body(receive, head.length, self._parts.settings.body_bytes)
            if body is None:  # whoever asked is gone
                return
            found = scope.get("path_params")
            version = found.get("version") if found else None
            if found and found.get("model", self._parts.name) != self._parts.name:
                raise unknown_model(self._parts.name)
            if version is None:
                slot, only = self._answering.asks(None), None
            else:  # it may have to be loaded: others are answered meanwhile
                slot = only = await asyncio.to_thread(self._answering.asks, version)
            if len(body) <= INLINE_BYTES:
                asked, wanted = self._read(body, head, slot.signature)
            else:
                asked, wanted = await asyncio.to_thread(self._read, body, head, slot.signature)
            said = await self._answering.say(asked, only)
            content, headers = self._write(said, wanted)
            self._answering.record(asked, said.answered)  # last: what is logged is answered
            status = 200
        except Exception as error:  # a request ends here: every error becomes an answer
            request = (head.request if head is not None else None) or self._answering.fresh()
            status, content, headers = failed(error, request, self._parts.tell)
        finally:
            counters.add("in_flight", -1)
        counters.request(self._name, status)
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        counters.observe("seconds", perf_counter_ns() - began)


def unknown_model(name: str) -> Refused:
    """What is said where somebody asks for another model."""
    return Refused(f"there is no such model here: this server serves {name!r}", 404)


def failed(error: Exception, request: str, tell: Tell) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """The answer to an error; one that is no fault of the client's is told to the log, a bug with its trace."""
    told = failures.answer(error, request)
    if told.logged:
        tell("failed", {"request": request, **failures.facts(error, trace=not told.foreseen)})
    headers = [_JSON, *((name.encode(), value.encode()) for name, value in told.headers.items())]
    return told.status, orjson.dumps({"error": told.message}), headers


def read_head(scope: Scope) -> Head:
    """What matters of the headers; raises :class:`Refused` if one makes no sense."""
    length: int | None = None
    kind, request, tensors = b"", None, None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value) if value.isdigit() and len(value) < 19 else 2**63
        elif name == b"content-type":
            kind = value
        elif name == b"x-request-id":
            request = value.decode("latin-1")
            check_id(request, "header X-Request-Id")
        elif name == b"inference-header-content-length":
            tensors = value
        elif name == b"content-encoding" and value != b"identity":
            raise Refused("the body is compressed: send it as it is", 415)
    return Head(length, kind, request, tensors)


async def read_body(receive: Receive, length: int | None, most: int) -> bytes | None:
    """The whole body, held against the cap before and while it comes; None if the client went away."""
    if length is not None and length > most:
        raise _too_large(most)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False):
        if len(body) > most:
            raise _too_large(most)
        return body
    parts, size = [body], len(body)
    while True:
        if message["type"] != "http.request":
            return None
        if size > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
        if more := message.get("body", b""):
            parts.append(more)
            size += len(more)


def _too_large(most: int) -> Refused:
    return Refused(f"the body is larger than {most:,} bytes: send fewer rows at a time", 413, {"connection": "close"})
