"""Constant load: requests at fixed times, whether or not those before were answered. Run as a process of its own.

``python load.py PORT PATH BODIES RATE SECONDS CONNECTIONS OUT`` sends the bodies of a JSON list in turn, ``RATE`` a
second, over as many connections in turn. A time to an answer counts from the moment when its request should have been
sent: a server that stalls cannot hide what it did to those that had to wait. It prints ``started`` once all connections
are open and the first request is due, and in the end writes a JSON list with one entry per request: when it was due,
sent and answered (``time.monotonic``, which all processes share), the status (0 if the connection broke), the port of
the connection, the body's number and the answer's text.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

Entry = tuple[float, float, float, int, int, int, str]

PATIENCE = 20  #: seconds that the last answers may take


class Connection(asyncio.Protocol):
    """A connection that has one request on its way at most."""

    def __init__(self, idle: Callable[[Connection], None], done: Callable[[Entry], None]) -> None:
        self._idle, self._done = idle, done
        self._waiting: tuple[float, float, int] | None = None
        self._data = b""
        self._transport: Any = None
        self.port = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]
        self._idle(self)

    def send(self, due: float, number: int, request: bytes) -> None:
        self._waiting = (due, time.monotonic(), number)
        self._transport.write(request)

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(body) < length:
            return
        self._data = body[length:]
        self._tell(int(head[9:12]), body[:length].decode())
        self._idle(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting is not None:
            self._tell(0, f"the connection broke: {error!r}")

    def _tell(self, status: int, text: str) -> None:
        assert self._waiting is not None
        due, sent, number = self._waiting
        self._waiting = None
        self._done((due, sent, time.monotonic(), status, self.port, number, text))


async def load(port: int, requests: list[bytes], rate: float, seconds: float, connections: int) -> list[Entry]:
    """Send at a constant rate, and give what became of every request."""
    loop = asyncio.get_running_loop()
    entries: list[Entry] = []
    idle: deque[Connection] = deque()
    waiting: deque[tuple[float, int]] = deque()

    def free(connection: Connection) -> None:
        if waiting:
            due, number = waiting.popleft()
            connection.send(due, number, requests[number])
        else:
            idle.append(connection)

    async def connect() -> None:
        await loop.create_connection(lambda: Connection(free, entries.append), "127.0.0.1", port)

    for _ in range(connections):
        await connect()
        await asyncio.sleep(0.05)  # at once, the worker that is awake already would take them all
    print("started", flush=True)
    count, begun = round(rate * seconds), time.monotonic()
    for i in range(count):
        due, number = begun + i / rate, i % len(requests)
        if (left := due - time.monotonic()) > 0:
            await asyncio.sleep(left)
        while idle and not idle[0].open:
            idle.popleft()
            await connect()
        if idle:
            idle.popleft().send(due, number, requests[number])
        else:
            waiting.append((due, number))
    until = time.monotonic() + PATIENCE
    while len(entries) < count and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return entries


def main(port: int, path: str, bodies: Path, rate: float, seconds: float, connections: int, out: Path) -> None:
    requests = []
    for body in json.loads(bodies.read_text()):
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        requests.append(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    out.write_text(json.dumps(asyncio.run(load(port, requests, rate, seconds, connections))))


if __name__ == "__main__":
    main(
        int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]),
        Path(sys.argv[7]),
    )  # fmt: skip
