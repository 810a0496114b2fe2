"""Starting the server: one process, or a supervisor with several workers that share a socket."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, final

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from perennial.config import load
from perennial.core.errors import ConfigError, PerennialError
from perennial.ledger.sql import no_place
from perennial.server.access import check_listening
from perennial.server.app import Front, Settings, create, tokens_file
from perennial.server.connections import bounded
from perennial.server.limits import Limits
from perennial.server.logs import Discreet

GRACE = 30  #: seconds that requests have to end once the server was told to
KEEP_ALIVE = 75  #: seconds that a connection may be idle: longer than most load balancers keep theirs
BACKLOG = 2048
STUCK = 60  #: seconds after which a worker that says nothing is replaced; as long may the imports of one take


def serve(settings: Settings, listening: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Serve until told to end: SIGTERM or SIGINT, after the requests that are being answered.

    ``listening`` hears where, as soon as that is settled.

    Raises
    ------
    ConfigError
        If the configuration is wrong, or the address is taken.
    """
    loaded = replace(load(settings.config), reads=False)
    made = loaded.deployment()  # an error is told before anything starts
    if made.blobs is None and not made.ledger.startswith("sqlite"):
        raise no_place()
    check_listening(settings.host, tokens_file(settings, loaded))
    bound = _bind(settings)
    host, port = bound.getsockname()[:2]
    facts = {"url": f"http://{f'[{host}]' if ':' in host else host}:{port}", "workers": settings.workers}
    tell("listening", facts)
    if listening is not None:
        listening(facts)
    if settings.workers > 1:
        settings = replace(settings, parent=os.getpid())
    config = uvicorn.Config(
        partial(application, settings), factory=True, interface="asgi3", loop="uvloop", ws="none",
        http=bounded(loaded.config.serve),
        lifespan="on", log_config=None, access_log=False, proxy_headers=False, server_header=False, backlog=BACKLOG,
        workers=settings.workers, timeout_graceful_shutdown=GRACE, timeout_keep_alive=KEEP_ALIVE,
        timeout_worker_healthcheck=STUCK,
    )  # fmt: skip
    _log_events()
    with bound:
        if settings.workers == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _heeded)  # uvicorn raises it again once all is done
            uvicorn.Server(config).run([bound])
            return
        supervisor = Multiprocess(config, [bound])
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            raise PerennialError("a worker did not start: the lines above say why")


def application(settings: Settings) -> Limits:
    """The application of one worker process."""
    _log_events()
    app = create(settings, tell)
    serve = app.state.settings
    return Limits(
        Front(app),
        body_bytes=serve.body_bytes,
        rate=serve.rate,
        access=app.state.access,
        counters=app.state.counters,
    )


def tell(event: str, facts: dict[str, Any]) -> None:
    """An event on stderr: words for a person at a terminal, a JSON object per line in a pipe."""
    if sys.stderr.isatty():
        line = " ".join([f"{event:<11}", *(f"{name}={value}" for name, value in facts.items() if value is not None)])
    else:
        line = json.dumps({"event": event, **facts}, default=str)
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        need = f"cannot listen there: {error.strerror or error}; name another address with --host and --port"
        raise ConfigError("port", f"{settings.host}:{settings.port}", need) from error
    listening.set_inheritable(True)
    return listening


def _heeded(number: int, frame: Any) -> None:
    """A signal that the server has heeded already."""


#: what every record of a log has
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


@final
class _Events(logging.Handler):
    """What libraries log, as events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one record; a trace goes with it."""
        facts = {"from": record.name, "level": record.levelname.lower(), "message": record.getMessage()}
        facts |= {name: value for name, value in vars(record).items() if name not in _PLAIN}  # its `extra`
        if record.exc_info:
            facts["trace"] = self.format(record)
        tell("log", facts)


def _log_events() -> None:
    """Warnings and errors of uvicorn and of ours as events; what it tells of its own doing is left out."""
    for name in ("uvicorn", "perennial", "asyncio"):
        logger = logging.getLogger(name)
        events = _Events()
        events.addFilter(Discreet())
        logger.handlers = [events]
        logger.setLevel(logging.WARNING)
        logger.propagate = False
