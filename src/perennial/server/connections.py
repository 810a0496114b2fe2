"""Connections that a client cannot hold for nothing: bounded in time, in size and in number.

uvicorn bounds how much of a body it holds ahead of the application, and how long a connection may be idle between
requests. It has no bound on a connection that never sends a request, on how long one may take to arrive, on the size of
its head, nor on a client that does not read its answer. Those are here, at the price of a timer for each connection and
a few comparisons for each request.
"""

from __future__ import annotations

import asyncio
import json
import resource
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from perennial.config.records import Serve

HEAD_BYTES = 32 * 1024  #: the largest head of a request: its line and its headers
HEADERS = 100  #: the most headers of a request
CONNECTIONS = 2000  #: open connections of a worker, or three quarters of the files that it may open


def most_connections() -> int:
    """How many connections a worker holds: it needs files besides."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft * 3 // 4)


def bounded(serve: Serve) -> Any:
    """The protocol as uvicorn makes it for each connection: the same in every worker, and picklable."""
    return partial(BoundedProtocol, patience=serve.patience.total_seconds(), body_bytes=serve.body_bytes)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds.

    Parameters
    ----------
    patience : float
        Seconds that a client may take to send a request, from its first byte to its last, and to read an answer.
    body_bytes : int
        The largest body. The application refuses what is larger, with an answer; what goes on being sent is thrown
        away here, up to twice as much, so that a client which first sends all can read that answer.
    connections : int, optional
        How many are held at once; beyond that the one that waits longest for its client is closed.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        patience: float,
        body_bytes: int,
        connections: int | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._patience = patience
        self._most_bytes = HEAD_BYTES + 2 * body_bytes
        self._most_connections = connections or most_connections()
        self._bytes = 0  # of the request that is arriving
        self._in_head = True
        self._arriving = True  # a request is due, or on its way
        self._refused = False
        # since when we wait for the client: to send a request, or the rest of one; None while it waits for us
        self._waiting: float | None = None
        self._stuck: float | None = None  # since when it has not read what we sent
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None

    # -- a connection's life ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait, in the place of another if there are too many."""
        super().connection_made(transport)
        self._waiting = self.loop.time()
        self._timer = self.loop.call_later(self._patience, self._look)
        if len(self.connections) > self._most_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        """Close the connection that waits longest for its client; if all clients wait for us, this one."""
        waiting = [other for other in self.connections if isinstance(other, BoundedProtocol) and other.idle]
        if waiting:
            longest = min(waiting, key=lambda other: other._waiting or 0.0)
            longest.transport.abort()
            self.connections.discard(longest)
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections: try again")

    @property
    def idle(self) -> bool:
        """Whether it waits for the client, and is not on its way out."""
        return self._waiting is not None and not self.transport.is_closing()

    def _look(self) -> None:
        """See whether the client took too long, and look again when it could have."""
        now = self.loop.time()
        if self.transport.is_closing():
            if self._leaving:  # what we sent last was not read: it is not waited for any longer
                self.transport.abort()
                return
            self._leaving = True
        elif self._stuck is not None and now - self._stuck >= self._patience:
            self.transport.abort()
            return
        elif self._waiting is not None and not self.flow.read_paused and now >= self._due:
            self._too_slow()
        due = self._due if self._stuck is None else self._stuck + self._patience
        wait = due - now
        self._timer = self.loop.call_later(wait if 0 < wait < self._patience else self._patience, self._look)

    @property
    def _due(self) -> float:
        """Until when the client is waited for: for a request, or for the next one between two."""
        if self._waiting is None:
            return self.loop.time() + self._patience
        return self._waiting + (self._patience if self._arriving else self.timeout_keep_alive)

    def _too_slow(self) -> None:
        if not self._bytes:  # it sent nothing at all
            self.transport.close()
            return
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the request did not arrive within {self._patience:g} seconds: send it in smaller parts",
        )

    def pause_writing(self) -> None:
        """The client does not read what we sent."""
        self._stuck = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stuck = None
        super().resume_writing()

    # -- a request's life ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Some of a request, or several of them."""
        if self._refused:
            return
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > HEAD_BYTES and not self._refused and not self.transport.is_closing():
            if self._in_head:
                self._refuse_head()
            elif self._bytes > self._most_bytes:
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too large: send fewer rows")
            elif len(self.headers) > HEADERS:  # behind the body
                self._refuse_head()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = self._arriving = True
        self._waiting = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        if len(self.headers) > HEADERS or (self._bytes > HEAD_BYTES and self._head_bytes() > HEAD_BYTES):
            self._refuse_head()
            return
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of its body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._bytes = 0
        self._in_head = True
        self._arriving = False
        self._waiting = None
        if self._refused:
            return
        super().on_message_complete()
        if self.cycle.response_complete:  # it was answered before it was there
            self._waiting = self.loop.time()

    def on_response_complete(self) -> None:
        """It is answered."""
        if self._waiting is None:
            self._waiting = self.loop.time()
        super().on_response_complete()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    # -- refusing -----------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP request; ``msg`` says so."""
        self._refuse(HTTPStatus.BAD_REQUEST, f"{msg} Nothing was done.")

    def _refuse_head(self) -> None:
        need = f"at most {HEADERS} headers, and {HEAD_BYTES:,} bytes of them with the URL"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head of the request is too large: {need}")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer a request that never reaches the application, or not whole, and close."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        cycle = self.cycle
        pending = cycle is not None and not cycle.response_complete
        # an answer that has begun, or is due to an earlier request, would be mistaken for this one's: say nothing
        silent = pending and (cycle.response_started or self._in_head or bool(self.pipeline))
        if pending:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        if not silent:
            self.transport.write(_raw(status, message))
        self.transport.close()


def _raw(status: HTTPStatus, message: str) -> bytes:
    body = json.dumps({"error": message}).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
