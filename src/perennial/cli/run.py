"""``perennial run``: keep a deployment current."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perennial.cli import session

if TYPE_CHECKING:
    from perennial.production.run import Tell
    from perennial.production.service import Mode

#: events that a person wants to see; a pipe gets all
_SHOWN = (
    "decision",
    "trained",
    "verdict",
    "promoted",
    "quarantined",
    "note",
    "stopping",
    "started",
    "ended",
    "collected",
    "waiting",
    "waiting for examples",
    "retrying",
    "trial",
    "hook failed",
)

_IMPLICIT_DELAY = (
    "no label delay is set: a label counts as known the moment its row happens, and a row that comes without one never "
    "gets one; if yours come later, say when:  stream: {label: {column: ..., delay: ...}}"
)


def command(
    config: Annotated[
        Path, typer.Option("-c", "--config", help="The configuration, with `deploy` filled in: recommended.yaml.")
    ] = Path("perennial.yaml"),
    once: Annotated[bool, typer.Option("--once", help="Take the batches that are whole, and end: for cron.")] = False,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Take all there is, the last batch too, and close: a recording.")
    ] = False,
    observe: Annotated[
        bool, typer.Option("--observe", help="Predict, score and say what would be trained, and train nothing.")
    ] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Go on although model, libraries, strategy or stream changed.")
    ] = False,
    poll: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between looks at the source.")] = 5.0,
    lease: Annotated[
        float, typer.Option("--lease", min=1.0, help="Seconds until another process may take over.")
    ] = 30.0,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Serve Prometheus metrics at this port of 127.0.0.1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON on stdout at the end.")] = False,
) -> None:
    """Keep a deployment current.

    Reads the rows that are new, joins labels, scores, trains and promotes as the configuration's `deploy` strategy
    says, and records every turn in the ledger. Killed at any instant it goes on where it was. SIGTERM or Ctrl-C ends
    it after the turn it is taking, a second one at once; nothing is lost either way. Events go to stderr, as JSON lines
    in a pipe.
    """
    if once and until_end:
        raise typer.BadParameter("give --once or --until-end, not both")
    mode: Mode = "once" if once else "until-end" if until_end else "follow"
    from perennial.config import load
    from perennial.production.hooks import Hooks
    from perennial.production.metrics import Metrics
    from perennial.production.service import keep_current

    loaded = load(config)
    deployment = replace(loaded.deployment(), observe=observe, accept=accept)
    metrics = Metrics(deployment.name)
    if metrics_port is not None:
        metrics.serve(metrics_port)
    shown = _teller()

    hooks = Hooks(loaded.config.hooks.model_dump(exclude_none=True), shown)

    def tell(event: str, facts: dict[str, Any]) -> None:
        metrics.see(event, facts)
        shown(event, facts)
        hooks.see(event, facts)

    with (
        session.leased(loaded, deployment, seconds=lease, tell=tell) as (ledger, held),
        session.one_thread(),
        _stopping(tell) as stop,
    ):

        def pause(seconds: float) -> None:
            stop.wait(seconds)

        tell("started", {"deployment": deployment.name, "mode": mode, "holder": session.holder()})
        if deployment.stream.implicit_delay:
            tell("note", {"deployment": deployment.name, "note": _IMPLICIT_DELAY})
        turns = keep_current(
            deployment, ledger, held, mode=mode, stopped=stop.is_set, wait=pause,
            clock=lambda: datetime.now(UTC), poll=poll, tell=tell,
        )  # fmt: skip
        champion = ledger.alias("champion").version
    tell("ended", {"deployment": deployment.name, "turns": turns, "champion": champion})
    if as_json:
        print(json.dumps({"deployment": deployment.name, "turns": turns, "champion": champion}))


@contextmanager
def _stopping(tell: Tell) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second signal ends the process where it is."""
    stop = threading.Event()
    asked: list[str] = []
    before: dict[int, Any] = {}

    def heed(number: int, frame: Any) -> None:  # noqa: ARG001 - the arguments of a handler
        if stop.is_set():
            os._exit(128 + number)  # nothing is lost: what is durable is whole
        asked.append(signal.Signals(number).name)  # told by the loop: a handler may interrupt a write
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, heed)
    try:
        yield stop
    finally:
        if asked:
            tell("stopping", {"signal": asked[0]})
        for which, handler in before.items():
            signal.signal(which, handler)


def _teller() -> Tell:
    """Events on stderr: words for a person at a terminal, a JSON object per line in a pipe."""
    words: Literal[True, False] = sys.stderr.isatty()

    def line(event: str, facts: dict[str, Any]) -> None:
        if not words:
            print(json.dumps({"event": event, **facts}, default=str), file=sys.stderr, flush=True)
        elif event in _SHOWN and not (event == "decision" and not facts["fire"]):
            what = next((facts[k] for k in ("reason", "note", "error", "holder") if facts.get(k)), "")
            version = facts.get("version") or facts.get("champion") or ""
            print(f"{facts.get('at', ''):<20} {event:<11} {version:<8} {what}", file=sys.stderr, flush=True)

    return line
