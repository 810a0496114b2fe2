"""What one client may take: the size of a request, how many in a second; and what every page is sent with.

Time, heads and connections are bounded below, in :mod:`perennial.server.connections`; rows, ids and words where they
are read. This lies on the way of every prediction and does little: it looks at one header, and at a clock if a rate
was set.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, final

from starlette.requests import ClientDisconnect

from perennial.server.access import Access
from perennial.server.counters import Counters
from perennial.server.failures import Refused
from perennial.server.pages.rendering import POLICY

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

CLIENTS = 4096  #: clients whose rate is known
#: where pages are; everything else is for programs
PAGES = "/ui"

#: what everything below it is sent with, unless it says something else itself
_PAGE_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def too_large(most: int) -> Refused:
    """What is said of a body that is larger than ``serve.body_bytes``."""
    return Refused(f"the body is larger than {most:,} bytes: send the rows in several requests", 413)


@final
class Limits:
    """ASGI middleware: refuses what is too large or comes too often, before the application sees it.

    Parameters
    ----------
    app : callable
        The application.
    body_bytes : int
        The largest body, declared or not.
    rate : float, optional
        Requests a second that one token, or address without one, may make at this worker.
    access : Access
        Knows tokens.
    counters : Counters
        Where what is refused is counted.
    steady : callable
        Seconds that never go back.
    """

    def __init__(
        self,
        app: App,
        *,
        body_bytes: int,
        rate: float | None,
        access: Access,
        counters: Counters,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._body_bytes, self._access, self._counters = app, body_bytes, access, counters
        self._rates = Rates(rate, steady) if rate is not None else None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith(PAGES):
            send = _page(send)
        try:
            if not path.isprintable():
                raise Refused("the path has characters that no path of ours has", 400)
            if self._rates is not None:
                self._count(self._rates, scope)
            receive = self._sized(scope, receive)
        except Refused as refused:
            await self._refuse(send, refused)
            return
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            pass  # it does not wait for an answer
        except Refused as refused:  # while the body was read
            await self._refuse(send, refused)

    async def _refuse(self, send: Send, refused: Refused) -> None:
        self._counters.request("other", refused.status)
        await refuse(send, refused)

    def _count(self, rates: Rates, scope: MutableMapping[str, Any]) -> None:
        """Refuse a client that asks too often. A token that is not valid counts for its address: any can be sent."""
        client = scope.get("client")
        who = self._access.name(scope)
        wait = rates.take(f"token {who}" if who is not None else f"address {client[0] if client else ''}")
        if wait > 0:
            raise Refused(
                f"more than {rates.rate:g} requests a second: wait, or send more rows in each",
                429,
                {"retry-after": str(int(wait) + 1)},
            )

    def _sized(self, scope: MutableMapping[str, Any], receive: Receive) -> Receive:
        """Refuse a body that says it is too large; one that says nothing is measured as it comes."""
        chunked = False
        for name, value in scope["headers"]:
            if name == b"content-length":
                # the server below gives no more than was declared
                if not value.isdigit() or len(value) > 18 or int(value) > self._body_bytes:
                    raise too_large(self._body_bytes)
            elif name == b"transfer-encoding":
                chunked = True
        return _measured(receive, self._body_bytes) if chunked else receive


def _measured(receive: Receive, most: int) -> Receive:
    read = 0

    async def measured() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise too_large(most)
        return message

    return measured


def _page(send: Send) -> Send:
    """Sends what every page is sent with besides."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            told = list(message.get("headers", ()))
            named = {name for name, _ in told}  # a page may say it more closely
            message["headers"] = [*told, *(header for header in _PAGE_HEADERS if header[0] not in named)]
        await send(message)

    return sending


async def refuse(send: Send, refused: Refused) -> None:
    """Answer a request with an error, as the application does."""
    body = json.dumps({"error": str(refused)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((name.encode(), value.encode()) for name, value in refused.headers.items()),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@final
class Rates:
    """A bucket of tokens for each client: it fills at ``rate`` and holds a second's worth, at least one.

    The table is bounded: the client that was quiet longest is forgotten, and begins with a full bucket.
    """

    def __init__(self, rate: float, steady: Callable[[], float], *, clients: int = CLIENTS) -> None:
        self.rate = rate
        self._holds, self._steady, self._clients = max(rate, 1.0), steady, clients
        self._table: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take one for a request: 0, or the seconds until there is one."""
        now = self._steady()
        left, since = self._table.pop(client, (self._holds, now))
        left = min(self._holds, left + (now - since) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._table[client] = left if wait else left - 1, now
        if len(self._table) > self._clients:
            self._table.popitem(last=False)
        return wait
