"""A client that asks, and again when it was answered: run as a process of its own.

``python client.py PORT PATH BODIES COUNT [CONNECTIONS]``: bodies are those of a JSON list, in turn; several connections
share them. It prints one JSON object: how many were answered otherwise than with 200, the seconds of all, and quantiles
of the time to an answer.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Connection:
    """A connection that is kept open, over which one question is asked at a time; sockets and nothing else."""

    def __init__(self, port: int, *, patience: float = 30) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a whole request."""
        self._socket.sendall(request)
        data = self._left
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        status, length = int(data[9:12]), _length(data[:end])
        end += 4
        parts, have = [data[end:]], len(data) - end
        while have < length:
            parts.append(self._more())
            have += len(parts[-1])
        body = b"".join(parts)
        self._left = body[length:]
        return status, body[:length]

    def close(self) -> None:
        self._socket.close()

    def _more(self) -> bytes:
        if not (more := self._socket.recv(262_144)):
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return more


def _length(head: bytes) -> int:
    head = head.lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer without a length: {head!r}")
    return int(head[at + 17 :].partition(b"\r")[0])


def post(path: str, body: bytes) -> bytes:
    """A whole request that sends JSON."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(path: str) -> bytes:
    """A whole request that asks for something."""
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


def answers(port: int, path: str) -> bool:
    """Whether a server answers a GET with 200."""
    try:
        connection = Connection(port, patience=5)
        try:
            return connection.ask(get(path))[0] == 200
        finally:
            connection.close()
    except (OSError, ValueError):
        return False


def main(port: int, path: str, bodies: Path, count: int, connections: int = 1) -> None:
    requests = [post(path, body.encode()) for body in json.loads(bodies.read_text())]
    numbers = iter(range(count))
    took: list[float] = []
    statuses: list[int] = []

    def ask() -> None:
        connection = Connection(port)
        for number in numbers:  # each takes the next: a step of this iterator is one step of the interpreter
            before = time.perf_counter()
            status, _ = connection.ask(requests[number % len(requests)])
            took.append(time.perf_counter() - before)
            statuses.append(status)
        connection.close()

    begun = time.perf_counter()
    if connections == 1:
        ask()
    else:
        with ThreadPoolExecutor(connections) as pool:
            for done in [pool.submit(ask) for _ in range(connections)]:
                done.result()
    spent = time.perf_counter() - begun
    took.sort()
    failed = sum(status != 200 for status in statuses)
    print(json.dumps({"failed": failed, "seconds": spent, "p50": took[count // 2], "p99": took[count * 99 // 100]}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
