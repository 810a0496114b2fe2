"""``perennial serve``: the HTTP server of a deployment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from perennial.core.errors import MissingExtra


def command(
    config: Annotated[
        Path, typer.Option("-c", "--config", help="The configuration that `perennial run` is given.")
    ] = Path("perennial.yaml"),
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0 for any.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, max=128, help="Processes that answer.")] = 1,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="Access tokens; `serve: {tokens: ...}` unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say where it listens as JSON on stdout too.")] = False,
) -> None:
    """Answer predictions over HTTP with the current champion.

    Beside a `perennial run`, or without one: whichever version the ledger names champion answers, and another takes
    over without a request being dropped. Until there is a champion, requests are answered with 503. SIGTERM or Ctrl-C
    ends it after the requests that are being answered. Events go to stderr, as JSON lines in a pipe.
    """
    try:
        from perennial.server.app import Settings
        from perennial.server.main import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("fastapi", "starlette", "uvicorn", "orjson", "httptools", "uvloop"):
            raise MissingExtra("serve", "perennial serve") from error
        raise
    settings = Settings(config=config, host=host, port=port, workers=workers, tokens=token_file)
    serve(settings, listening=_on_stdout if as_json else None)


def _on_stdout(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)
