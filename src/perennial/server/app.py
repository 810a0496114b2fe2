"""The application: its parts put together, its routes, and their description."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route as PlainRoute

from perennial import __version__
from perennial.config import Loaded, load
from perennial.config.serving import columns_of, inbox_of
from perennial.core.errors import ConfigError, PerennialError
from perennial.server import describing, invocations, oip, operating, taking_in
from perennial.server.access import Access, require
from perennial.server.access import routes as login_routes
from perennial.server.answering import Answering, Parts, Receive, Route, Scope, Send, Tell, failed, unknown_model
from perennial.server.counters import Counters
from perennial.server.failures import Refused, no_champion
from perennial.server.models import Models
from perennial.server.pages import routes as pages
from perennial.server.seen import Seen
from perennial.server.writer import Writer
from perennial.stream.inbox import Inbox

_TAKING_IN = frozenset({"/labels", "/feedback", "/examples"})
RETRY = 0.5  #: seconds between looks for a ledger that is not there yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `perennial serve` was told; the rest is in the configuration.

    ``parent`` is the process whose end is a worker's end too; 0 for none.
    """

    config: Path
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    tokens: Path | None = None
    parent: int = 0

    def facts(self) -> dict[str, Any]:
        """The same as plain data."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


def now() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def state_folder(loaded: Loaded, name: str, ledger: str) -> Path:
    """Where workers of a deployment share what they count and what they answered: beside an SQLite ledger."""
    prefix = "sqlite:///"
    beside = Path(ledger.removeprefix(prefix)).parent if ledger.startswith(prefix) else loaded.folder / ".perennial"
    return beside / "serve" / quote(name, safe="")


def tokens_file(settings: Settings, loaded: Loaded) -> Path | None:
    """The file of tokens: that of the command line, else that of the configuration."""
    if settings.tokens is not None:
        return settings.tokens
    named = loaded.config.serve.tokens
    return loaded.folder / named if named is not None else None


def create(settings: Settings, tell: Tell) -> FastAPI:
    """The application of one worker process.

    It answers at once: with 503 where a version is needed, until there is a ledger and a champion.

    Raises
    ------
    ConfigError
        If the configuration is wrong.
    """
    loaded = replace(load(settings.config), reads=False)  # rows are the client's: the source need not be there
    deployment = loaded.deployment()
    folder = state_folder(loaded, deployment.name, deployment.ledger)
    parts = Parts(
        name=deployment.name,
        settings=loaded.config.serve,
        counters=Counters(folder / "counters"),
        seen=Seen(folder / "seen"),
        tell=tell,
    )
    parts.deployment = deployment
    parts.access = Access.of(host=settings.host, tokens=tokens_file(settings, loaded), folder=folder)
    inbox = inbox_of(loaded.config, loaded.folder) if deployment.stream.served else None
    writer = None
    if inbox is not None:
        writer = parts.writer = _writer(parts, inbox, columns_of(loaded.config, deployment.learner.task))
    answering = Answering(parts, now)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001 - the argument of a lifespan
        ended = threading.Event()
        opening = threading.Thread(target=_open, args=(parts, ended), name="perennial-opening", daemon=True)
        # a worker that replaces another takes no request before it can answer, if there is what answers
        if not await asyncio.to_thread(_try_open, parts):
            opening.start()
        if writer is not None:
            writer.start()
        # what is there by now stays: the collector need not look through it again and again
        gc.collect()
        gc.freeze()
        if settings.parent:
            threading.Thread(target=_follow, args=(settings.parent, ended), daemon=True).start()
        tell("started", {"deployment": deployment.name, "pid": os.getpid(), "worker": parts.counters.worker})
        yield
        ended.set()
        if opening.ident is not None:
            opening.join()
        parts.close()
        answering.close()
        tell("ended", {"deployment": deployment.name, "pid": os.getpid()})

    app = FastAPI(
        title=f"Perennial: {deployment.name}", version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        openapi_url=None,
        description="Predictions of the current champion, and what comes back of them.",
    )  # fmt: skip
    app.state = parts  # type: ignore[assignment]
    infer = Route(answering, parts, "infer", oip.Reader(deployment.name, answering.policy), oip.write)
    invoke = Route(answering, parts, "invocations", invocations.Reader(answering.policy), invocations.write)
    plain = {
        "/v2/models/{model}/infer": infer,
        "/v2/models/{model}/versions/{version}/infer": infer,
        "/invocations": invoke,
    }
    app.router.routes += [PlainRoute(path, route) for path, route in plain.items()]
    app.include_router(_routes(parts))
    app.include_router(taking_in.routes(parts), dependencies=[Depends(require("feedback"))])
    app.include_router(operating.routes(parts))
    app.router.routes += [*login_routes(), *pages.routes(parts, folder=loaded.folder, inbox=inbox)]
    _explain_errors(app, parts, answering)
    describing.describe(app, parts)
    parts.hot = {f"/v2/models/{deployment.name}/infer": infer, "/invocations": invoke}
    return app


def _open(parts: Parts, ended: threading.Event) -> None:
    """Wait for a ledger, and have its champion answer."""
    while not ended.wait(RETRY) and not _try_open(parts):
        pass


def _try_open(parts: Parts) -> bool:
    """Have the champion answer, if it can; whether the ledger is followed from now on."""
    try:
        models = Models.open(
            parts.deployment, budget_bytes=parts.settings.models_bytes, clock=now, tell=parts.tell,
            counters=parts.counters,
        )  # fmt: skip
    except PerennialError as error:
        parts.wait_for(str(error))
        return False
    parts.models = models
    models.start()
    return True


def _writer(parts: Parts, inbox: Inbox, stated: Mapping[str, Any] | None) -> Writer:
    """What logs predictions and takes in what comes back; ``stated`` are columns that the configuration says."""
    deployment, settings = parts.deployment, parts.settings

    def types() -> Mapping[str, Any]:
        champion = None if parts.models is None else parts.models.champion
        if champion is None:  # something was predicted, or examples come before the first version
            if stated is not None:
                return stated
            need = "nothing says yet what rows hold: state them, or push labelled rows,  perennial push FILE"
            raise ConfigError("stream.columns", None, need)
        signature = champion.signature
        key = {} if signature.key is None else {signature.key: signature.key_type}
        return {**signature.types, **key}

    return Writer(
        inbox,
        deployment.stream,
        flush=settings.flush,
        queue_rows=settings.queue_rows,
        overflow=settings.overflow,
        counters=parts.counters,
        types=types,
        label_type=lambda: None if stated is None else stated.get(deployment.stream.target),
        may_make=lambda: not _ledger_gone(parts),
        thumbs=settings.thumbs == "label",
        clock=now,
        seen=parts.seen,
    )


def _ledger_gone(parts: Parts) -> bool:
    """Whether the file of a ledger that a champion came from is gone: with it goes the inbox, which comes back."""
    file = parts.deployment.ledger.removeprefix("sqlite:///")
    served = parts.models is not None and parts.models.champion is not None
    return served and file != parts.deployment.ledger and not Path(file).exists()


def _follow(parent: int, ended: threading.Event) -> None:
    """End with the supervisor, also where it was killed: nobody would end or replace this worker any more."""
    while not ended.wait(1.0):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return


@final
class Front:
    """Finds the routes for predictions by their path alone, before anything else is asked: one look into a dict."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._hot: dict[str, Route] = app.state.hot

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Hand the request to who answers it."""
        path = scope.get("path", "")
        route = self._hot.get(path)
        if route is not None:
            return route(scope, receive, send)
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        return self._app(scope, receive, self._counted(path, send))

    def _counted(self, path: str, send: Send) -> Send:
        """What sends an answer, and counts it by its route."""
        name = path[1:] if path in _TAKING_IN else "other"
        counters = self._app.state.counters

        def told(message: Any) -> Any:
            if message["type"] == "http.response.start" and not path.endswith("/infer"):  # these count themselves
                counters.request(name, message["status"])
            return send(message)

        return told


def _routes(parts: Parts) -> APIRouter:
    """Health, metadata and metrics."""
    router = APIRouter()
    told = [Depends(require("predict"))]

    def known(model: str) -> None:
        if model != parts.name:
            raise unknown_model(parts.name)

    def ready() -> bool:
        return parts.models is not None and parts.models.champion is not None

    @router.get("/health", tags=["health"])
    def health() -> Response:
        """Whether predictions are answered, and by which version."""
        models = parts.models
        champion = None if models is None else models.champion
        body = {"status": "ok" if champion else "not ready", "champion": champion.version if champion else None}
        return JSONResponse(body, 200 if champion else 503)

    @router.get("/ping", tags=["MLflow"])
    def ping() -> Response:
        """Whether predictions are answered."""
        return PlainTextResponse("\n", 200 if ready() else 503)

    @router.get("/version", tags=["MLflow"])
    def version() -> Response:
        """The release of Perennial that serves."""
        return PlainTextResponse(__version__)

    @router.get("/metrics", tags=["health"], dependencies=[Depends(require("read"))])
    def metrics() -> Response:
        """Everything that is counted, over all workers, in the text format of Prometheus."""
        text = parts.counters.metrics()
        if parts.models is not None and (champion := parts.models.champion) is not None:
            name = "perennial_champion_info"
            text += f"# HELP {name} The version that answers.\n# TYPE {name} gauge\n"
            text += f'{name}{{version="{champion.version}"}} 1\n'
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/openapi.json", include_in_schema=False, dependencies=told)
    def description(request: Request) -> Response:
        """All routes, and what the champion wants of a row."""
        app: FastAPI = request.app
        return JSONResponse(app.openapi())

    @router.get("/v2", tags=["Open Inference Protocol"], dependencies=told)
    def server_metadata() -> dict[str, Any]:
        """What serves, and by which extensions."""
        return oip.server_metadata(parts.name)

    @router.get("/v2/health/live", tags=["Open Inference Protocol"])
    def live() -> dict[str, bool]:
        """Whether the server is there."""
        return {"live": True}

    @router.get("/v2/health/ready", tags=["Open Inference Protocol"])
    def server_ready() -> Response:
        """Whether predictions are answered."""
        return JSONResponse({"ready": ready()}, 200 if ready() else 503)

    def model_metadata(model: str, version: str | None = None) -> dict[str, Any]:
        known(model)
        models = parts.models
        if models is None or models.champion is None:
            raise no_champion()
        slot = models.champion if version is None else models.version(version)
        return oip.model_metadata(parts.name, slot, models)

    def model_ready(model: str, version: str | None = None) -> Response:
        known(model)
        models = parts.models
        there = models is not None and models.champion is not None
        if there and version is not None:
            assert models is not None
            models.version(version)
        return JSONResponse({"name": parts.name, "ready": there}, 200 if there else 503)

    @router.get("/v2/models/{model}", tags=["Open Inference Protocol"], dependencies=told)
    def metadata(model: str) -> dict[str, Any]:
        """The columns that a row has, and what is answered."""
        return model_metadata(model)

    @router.get("/v2/models/{model}/versions/{version}", tags=["Open Inference Protocol"], dependencies=told)
    def version_metadata(model: str, version: str) -> dict[str, Any]:
        """The same of one version."""
        return model_metadata(model, version)

    @router.get("/v2/models/{model}/ready", tags=["Open Inference Protocol"])
    def ready_model(model: str) -> Response:
        """Whether the model answers."""
        return model_ready(model)

    @router.get("/v2/models/{model}/versions/{version}/ready", tags=["Open Inference Protocol"], dependencies=told)
    def ready_version(model: str, version: str) -> Response:
        """Whether a version answers."""
        return model_ready(model, version)

    return router


def _explain_errors(app: FastAPI, parts: Parts, answering: Answering) -> None:
    """Errors of the other routes as the same table has them."""

    async def explain(_: Request, error: Exception) -> Response:
        status, body, headers = failed(error, answering.fresh(), parts.tell)
        return Response(body, status, {name.decode(): value.decode() for name, value in headers})

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {404: "there is no such route", 405: "this route takes another method"}
        text = words.get(error.status_code, "the request is refused")
        return await explain(request, Refused(text, error.status_code, error.headers))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        return await explain(request, Refused(told))

    app.add_exception_handler(HTTPException, unrouted)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(PerennialError, explain)
    app.add_exception_handler(Exception, explain)
