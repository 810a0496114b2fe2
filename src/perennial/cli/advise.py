"""``perennial advise``: stateless, stateful or both, before there is a history to compare them on."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perennial.core.errors import ConfigError

if TYPE_CHECKING:
    from datetime import timedelta

    from perennial.advice.guide import Advice

_FAMILIES = "forest, boosting, linear, neural, text-encoder, language-model"


def command(
    family: Annotated[str | None, typer.Option("--family", help=f"The kind of model: {_FAMILIES}.")] = None,
    task: Annotated[str, typer.Option("--task", help="What it predicts: classification or regression.")] = (
        "classification"
    ),
    label_delay: Annotated[
        str | None,
        typer.Option("--label-delay", help="How long after its event a label is known, e.g. 1d; at once unless given."),
    ] = None,
    keep_data: Annotated[
        bool | None, typer.Option("--keep-data/--no-keep-data", help="Whether raw rows may be kept; yes unless given.")
    ] = None,
    keep_for: Annotated[
        str | None, typer.Option("--keep-for", help="How long raw rows may be kept, e.g. 365d; for ever unless given.")
    ] = None,
    cadence: Annotated[
        str | None, typer.Option("--cadence", help="How often a new version is wished for, e.g. 1d.")
    ] = None,
    rows_per_day: Annotated[float | None, typer.Option("--rows-per-day", help="Labelled rows a day.")] = None,
    retrain_takes: Annotated[
        str | None, typer.Option("--retrain-takes", help="How long a training from scratch takes, e.g. 2h.")
    ] = None,
    worth: Annotated[
        float | None, typer.Option("--worth", help="How much loss, such as wrong predictions, a retrain may cost.")
    ] = None,
    window: Annotated[str | None, typer.Option("--window", help="A window that you wish for, e.g. 90d.")] = None,
    looks_back: Annotated[
        str | None, typer.Option("--look-back", help="How far back features look, as moving averages do, e.g. 60d.")
    ] = None,
    returns: Annotated[
        bool | None, typer.Option("--returns/--no-returns", help="Whether what was true before comes back.")
    ] = None,
    new_classes: Annotated[
        bool | None, typer.Option("--new-classes/--no-new-classes", help="Whether classes appear that were not there.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the configuration; on the screen alone unless given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a configuration that is there.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", "--no-input", help="Ask nothing; what is not given is as it usually is.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the advice as JSON on stdout; asks nothing.")] = False,
) -> None:
    """Stateless, stateful or both, before there is a history.

    Answers with reasons, a trigger and a window, says what only a backtest can tell, and gives a commented
    configuration to begin with. On a terminal it asks for what was not given.
    """
    if output is not None and output.exists() and not force:
        raise ConfigError("output", str(output), "it is there already: give --force to overwrite it, or another name")
    asks = not yes and not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if family is None:
        if not asks:
            raise ConfigError("family", None, f"say which kind of model with --family: {_FAMILIES}")
        family = _one_of("What kind of model is it?", _FAMILIES.split(", "))
    if asks:
        label_delay = _text(label_delay, "How long after its event is a label known?", "0d")
        keep_data = _yes(keep_data, "May raw rows be kept?", usual=True)
        if keep_data:
            keep_for = _text(keep_for, "For how long? Nothing for ever, else e.g. 365d.", "")
        cadence = _text(cadence, "How often do you wish for a new version? Nothing if you do not know.", "")
        rows_per_day = _number(rows_per_day, "How many labelled rows come in a day? Nothing if you do not know.")
        retrain_takes = _text(retrain_takes, "How long does a training from scratch take? Nothing if unknown.", "")
        returns = _yes(returns, "Does what was true before come back, as seasons do?", usual=False)
        new_classes = _yes(new_classes, "Do classes appear that were not there before?", usual=False)
    from perennial.advice.guide import Situation, advise
    from perennial.core.times import duration

    def span(field: str, given: str | None) -> timedelta | None:
        return duration(given, field) if given else None

    given: dict[str, Any] = {"family": family, "task": task, "rows_per_day": rows_per_day, "worth": worth}
    spans = {
        "keep_for": keep_for, "cadence": cadence, "retrain_takes": retrain_takes, "window": window,
        "looks_back": looks_back,
    }  # fmt: skip
    given |= {field: span(field, value) for field, value in spans.items()}
    given |= {"keep": keep_data is not False, "returns": bool(returns), "new_classes": bool(new_classes)}
    advice = advise(Situation(label_delay=duration(label_delay or "0d", "label_delay"), **given))
    if output is not None:
        _write(output, advice.config)
    if as_json:
        written = str(output) if output is not None else None
        typer.echo(json.dumps({**asdict(advice), "written": written}, indent=1))
        return
    _show(advice)
    typer.echo(f"\nWrote {output}." if output is not None else f"\n{advice.config}", nl=output is not None)


def _show(advice: Advice) -> None:
    from perennial.cli import screen

    out = screen.console()
    beside = f"; begin with the {advice.deploy} one" if advice.way == "both" else ""
    out.print(f"{advice.way}{beside}", style="bold")
    for reason in advice.reasons:
        out.print(f"- {reason}", markup=False, soft_wrap=True)
    out.print("\nWhat cannot be known yet:", style="bold")
    for what in advice.unknown:
        out.print(f"- {what}", markup=False, soft_wrap=True)


def _write(output: Path, text: str) -> None:
    from perennial.config import parse

    parse(text, output)  # what is written must be readable
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError("output", str(output), f"cannot write it: {error.strerror}; name another place") from error


def _one_of(question: str, choices: list[str]) -> str:
    typer.echo(f"{question} One of: {', '.join(choices)}")
    while True:
        answer = str(typer.prompt("family"))
        if answer in choices:
            return answer
        typer.echo(f"There is no such kind among them: {answer}")


def _text(given: str | None, question: str, usual: str) -> str | None:
    """What was given, or an answer; nothing is None."""
    if given is not None:
        return given
    return str(typer.prompt(question, default=usual, show_default=bool(usual))).strip() or None


def _number(given: float | None, question: str) -> float | None:
    answer = _text(None if given is None else str(given), question, "")
    try:
        return None if answer is None else float(answer)
    except ValueError as error:
        raise ConfigError("rows_per_day", answer, "give a positive number") from error


def _yes(given: bool | None, question: str, *, usual: bool) -> bool:
    return typer.confirm(question, default=usual) if given is None else given
