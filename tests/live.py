"""An ASGI application behind a real socket, in a thread of this process: for tests that talk HTTP to a small one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from perennial.config.records import Serve
from perennial.server.connections import bounded


@contextmanager
def live(app: Any) -> Iterator[str]:
    """The URL at which an application answers until the block ends."""
    config = uvicorn.Config(app, http=bounded(Serve()), ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # who connects before the server runs waits in the queue
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
