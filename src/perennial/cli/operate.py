"""The operator's commands: what happened and why, and a word in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from perennial.cli import session
from perennial.core.errors import ConfigError

if TYPE_CHECKING:
    from perennial.ledger.sql import SqlLedger
    from perennial.production.operate import Moved

UNSOUND = 5  #: exit code where the ledger is readable and what it holds is not what it should be

Config = Annotated[Path, typer.Option("-c", "--config", help="The configuration that `perennial run` was given.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Which = Annotated[str, typer.Argument(help="Its number, as in 3.1, or: champion, previous, challenger.")]
DEFAULT = Path("perennial.yaml")


# -- what happened ----------------------------------------------------------------------------------------------------


def versions(
    config: Config = DEFAULT,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only so many, the newest.")] = None,
    status: Annotated[
        Literal["champion", "challenger", "previous", "rejected", "retired"] | None,
        typer.Option("--status", help="Only those: champion, challenger, previous, rejected or retired."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the versions of a deployment.

    In order of creation: its number, parent, status, when and why it was trained, the gate's last verdict, and the mean
    loss while it served.
    """
    from perennial.production import explain

    with session.reading(session.load(config)) as ledger:
        told = explain.versions(explain.History.read(ledger))
    told = [one for one in told if status in (None, one["status"])][-(last or 0) :]
    _document(told) if as_json else _show_versions(told, status)


def explain(version: Which, config: Config = DEFAULT, as_json: Json = False) -> None:
    """Say everything there is to say of one version.

    Which rows it learned, from which version it came, what fired, what the gate said and on what evidence, when it
    served, what it cost, and why it is or is not champion now.
    """
    from perennial.production import explain

    with session.reading(session.load(config)) as ledger:
        number = _numbered(ledger, version)
        told = explain.explain(explain.History.read(ledger), number)
        told["files"] = _files(ledger, number, config)
    _document(told) if as_json else _show_version(told)


def served_at(
    time: Annotated[str, typer.Argument(help="An instant in ISO 8601; without an offset, in the stream's time zone.")],
    config: Config = DEFAULT,
    as_json: Json = False,
) -> None:
    """Say which version answered rows of an instant, since when, and why."""
    from perennial.production import explain

    loaded = session.load(config)
    instant = _instant(time, loaded.config.stream.time_zone)
    with session.reading(loaded) as ledger:
        told = explain.served_at(explain.History.read(ledger), instant)
    if as_json:
        return _document(told)
    if told["version"] is None:
        return typer.echo(f"no version: {told['why']}")
    until = f" until {told['until']}" if told["until"] else ""
    committed = f"(committed {told['committed_at'][:19]}Z)"
    return typer.echo(f"{told['version']}  since {told['since']} {committed}{until}: {told['why']}")


# -- a word -----------------------------------------------------------------------------------------------------------


def promote(version: Which, config: Config = DEFAULT, reason: Reason = "", as_json: Json = False) -> None:
    """Make a version champion, whatever the gate says.

    A run that is going on heeds it at its next turn. Its model is loaded and checked first.
    """
    from perennial.production import operate

    loaded = session.load(config)
    with session.reading(loaded) as ledger:
        number = operate.numbered(ledger, version)
        moved = operate.promote(ledger, loaded.deployment(), number, actor=session.actor(), reason=reason)
    _tell_moved(moved, as_json)


def rollback(config: Config = DEFAULT, reason: Reason = "", as_json: Json = False) -> None:
    """Make the version before the champion champion again.

    One step: a second roll back goes forward again. To go further, name the version: `perennial promote`.
    """
    from perennial.production import operate

    loaded = session.load(config)
    with session.reading(loaded) as ledger:
        moved = operate.rollback(ledger, loaded.deployment(), actor=session.actor(), reason=reason)
    _tell_moved(moved, as_json)


Share = Annotated[str, typer.Argument(help="Of the requests that are served, as in 0.05 or 5%; 0 for none.")]


def canary(share: Share, config: Config = DEFAULT, reason: Reason = "", as_json: Json = False) -> None:
    """Let the challenger answer a share of the requests.

    Whoever the rows are about stays on one side: a share is drawn by the stream's `key`, else by request, and a larger
    one keeps those that it had. It is gone when the trial ends.
    """
    _set_share(config, "canary", share, reason, as_json)


def shadow(share: Share, config: Config = DEFAULT, reason: Reason = "", as_json: Json = False) -> None:
    """Ask champion and challenger both about a share of the requests.

    One answers, what the other said is logged and unseen. It is gone when the trial ends.
    """
    _set_share(config, "shadow", share, reason, as_json)


def _set_share(config: Path, what: Literal["canary", "shadow"], text: str, reason: str, as_json: bool) -> None:
    from perennial.production import operate

    wanted = {what: _share(what, text)}
    loaded = session.load(config)
    with session.reading(loaded) as ledger:
        shared = operate.share(ledger, loaded.deployment(), actor=session.actor(), reason=reason, **wanted)
    if as_json:
        return _document(asdict(shared))
    return typer.echo(
        f"{shared.version}, the challenger, answers {shared.canary:.3g} of the requests; both are asked about "
        f"{shared.shadow:.3g}. Servers heed it within a second."
    )


def _share(what: str, text: str) -> float:
    """A share from ``"0.05"`` or ``"5%"``."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    share = number / 100 if text.endswith("%") else number
    if not 0.0 <= share <= 1.0:
        raise ConfigError(what, text, "give a share from 0 to 1, or from 0% to 100%")
    return share


def _tell_moved(moved: Moved, as_json: bool) -> None:
    if as_json:
        return _document(
            {"champion": moved.version, "previous": moved.left, "actor": moved.actor, "reason": moved.reason,
             "closed": moved.closed}
        )  # fmt: skip
    left = f", instead of {moved.left}" if moved.left else ""
    what = "The next run heeds it, or the one that is going on, at its next turn."
    if moved.closed:
        what = "The deployment was run to its end and is closed: no row comes that it could answer. predict uses it."
    return typer.echo(f"{moved.version} is champion{left}. {what}")


# -- is it true? ------------------------------------------------------------------------------------------------------


def reproduce(version: Which, config: Config = DEFAULT, as_json: Json = False) -> None:
    """Train a version again from the ledger, and compare.

    From the rows, labels, weights and seed that the ledger kept; an update goes on from its parent's model. The exit
    code is 0 if the learned state has the digest that was recorded, and 5 if not, or if rows are gone.
    """
    from perennial.production.reproduce import reproduce

    loaded = session.load(config)
    deployment = loaded.deployment()
    with session.reading(loaded) as ledger, session.one_thread():
        found = reproduce(deployment, ledger, _numbered(ledger, version))
    if as_json:
        _document({**asdict(found), "same": found.same})
    else:
        _show_reproduced({**asdict(found), "same": found.same})
    if not found.same:
        raise typer.Exit(UNSOUND)


def doctor(
    config: Config = DEFAULT,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is safe to mend, leftovers; needs the lease: stop the run.")
    ] = False,
    lease: Annotated[
        float, typer.Option("--lease", min=1.0, help="With --repair: seconds until another process may take over.")
    ] = 30.0,
    as_json: Json = False,
) -> None:
    """Check that a deployment could go on from what its ledger holds.

    Every byte against its digest, turns without gaps, pointers, the settings, the last checkpoint, the models of
    champion, challenger and previous against their golden predictions, and the source. The exit code is 5 if anything
    is found that a run could not go on with.
    """
    from perennial.production.doctor import examine, sound
    from perennial.production.doctor import repair as mend

    loaded = session.load(config)
    deployment = loaded.deployment()
    with session.reading(loaded) as ledger, session.one_thread():
        if repair:
            findings = mend(deployment, ledger, f"{session.actor()} (doctor)", timedelta(seconds=lease))
        else:
            findings = examine(deployment, ledger)
    fine = sound(findings)
    if as_json:
        _document({"deployment": deployment.name, "sound": fine, "findings": [asdict(found) for found in findings]})
    else:
        for found in findings:
            typer.echo(f"{'mended' if found.mended else 'leftover' if found.safe else 'wrong'}: {found.what}")
        typer.echo(f"{deployment.name}: {'sound' if fine else 'not sound'}")
    if not fine:
        raise typer.Exit(UNSOUND)


# -- models elsewhere -------------------------------------------------------------------------------------------------


def export(
    version: Which,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; made if missing.")],
    config: Config = DEFAULT,
    as_json: Json = False,
) -> None:
    """Write a version as plain files that its own framework reads.

    Beside the model lies `columns.json`, or a file that ends so: the model's columns in order, and for a category
    column its words, whose places in the list are their codes. What to call is said on stdout.
    """
    from perennial.learners.export import export
    from perennial.production import checkpoint

    loaded = session.load(config)
    deployment = loaded.deployment()
    with session.reading(loaded) as ledger:
        version = _numbered(ledger, version)
        saved = ledger.version(version)
        model = deployment.load(ledger.get(saved.blob))
        schema = checkpoint.restored(deployment, checkpoint.last(ledger)).schema
    try:
        done = export(model, output, f"{deployment.name}-{version}", trust=deployment.trust, schema=schema)
    except OSError as error:
        need = f"cannot write there: {error.strerror or error}; name another folder"
        raise ConfigError("output", str(output), need) from error
    if as_json:
        return _document({"version": version, "path": str(done.path), "readme": done.readme, "digest": saved.state})
    return typer.echo(f"{done.path}\n{done.readme}")


def predict(
    file: Annotated[Path, typer.Argument(help="A Parquet or CSV file, or a folder of them; labels may be absent.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The Parquet or CSV file to write.")
    ] = Path("predictions.parquet"),
    version: Annotated[
        str | None, typer.Option("--version", help="Its number, or previous or challenger; the champion unless given.")
    ] = None,
    config: Config = DEFAULT,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Predict the rows of a file with the champion.

    Writes id, prediction, a probability per class and the version, and logs what was said by id: once labels of these
    ids come, `explain` tells how it turned out. Rows that shall be learned go into the stream's source.
    """
    from perennial.production.predict import predict

    loaded = session.load(config)
    deployment = loaded.deployment()
    with session.reading(loaded) as ledger, session.one_thread():
        number = None if version is None else _numbered(ledger, version)
        scored = predict(deployment, ledger, file, output, version=number)
    if as_json:
        told = {"version": scored.version, "rows": scored.rows, "output": str(scored.path), "file": scored.number}
        return _document(told)
    logged = "not logged: it has no `id` column" if scored.number is None else f"logged as file {scored.number}"
    return typer.echo(f"{scored.path}: {scored.rows:,} rows, predicted by {scored.version}; {logged}")


COMMANDS: dict[str, Callable[..., None]] = {
    "predict": predict,
    "versions": versions,
    "explain": explain,
    "served-at": served_at,
    "promote": promote,
    "rollback": rollback,
    "canary": canary,
    "shadow": shadow,
    "reproduce": reproduce,
    "export": export,
    "doctor": doctor,
}


# -- what they share --------------------------------------------------------------------------------------------------


def _numbered(ledger: SqlLedger, version: str) -> str:
    from perennial.production.operate import numbered

    return numbered(ledger, version)


def _instant(text: str, zone: str | None) -> int:
    """Microseconds of an ISO 8601 text; without an offset it is local to ``zone``, UTC unless given."""
    from zoneinfo import ZoneInfo

    from perennial.core.times import instant

    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError("time", text, "write ISO 8601, e.g. 2026-01-31T12:00 or 2026-01-31T12:00+01:00") from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=ZoneInfo(zone) if zone is not None else UTC)
    return instant(at)


def _document(told: Any) -> None:
    from perennial.ledger.rows import to_json

    typer.echo(json.dumps(json.loads(to_json(told)), indent=1))  # infinite bounds of evidence in a form that JSON has


# -- what a person sees -----------------------------------------------------------------------------------------------


def _show_versions(told: list[dict[str, Any]], status: str | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from perennial.cli import screen

    if not told:
        return typer.echo("no version was made yet" if status is None else f"no version is {status}")
    names = list(dict.fromkeys(name for one in told for name in one["scores"]))
    headers = ["version", "parent", "status", "trained at", "rows", *(name.replace("_", " ") for name in names)]
    lines = []
    for one in told:
        losses = (f"{one['scores'][name]:.4g}" if name in one["scores"] else "" for name in names)
        at = one["at"][:16].replace("T", " ")
        lines.append([one["number"], one["parent"] or "", one["status"], at, f"{one['trained_rows']:,}", *losses])
    out = screen.console()
    # a reason that wraps makes columns that nobody reads: a terminal gets what fits, a pipe the whole
    taken = sum(2 + max(map(len, column)) for column in zip(headers, *lines, strict=True))
    room = max(out.width - taken, 10) if out.is_terminal else None
    table = Table(box=None, pad_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=True, justify="left" if header in headers[:4] else "right")
    table.add_column("reason", no_wrap=True)
    for one, cells in zip(told, lines, strict=True):
        reason = Text(one["reason"])
        if room is not None:
            reason.truncate(room, overflow="ellipsis")
        table.add_row(*map(Text, cells), reason)
    out.width = max(out.width, 10_000 if room is None else taken + room)
    return out.print(table)


def _show_version(told: dict[str, Any]) -> None:
    rows, cost, champion = told["rows"], told["cost"], told["champion"]
    waits = "; it answers from the next turn on" if champion["now"] and not champion["heeded"] else ""
    ranges = ", ".join(f"{low:,}..{high - 1:,}" if high - low > 1 else f"{low:,}" for low, high in rows["ranges"][:6])
    more = f" and {len(rows['ranges']) - 6} more runs" if len(rows["ranges"]) > 6 else ""
    lines = [
        ("version", f"{told['number']} of {told['deployment']}: {told['kind']}, {told['status']}"),
        ("learner", told["learner"]),
        ("strategy", told["strategy"]),
        ("trained", f"{told['at']}, turn {told['turn']}: {told['reason']}"),
        ("window", told["window"]),
        ("rows", f"{rows['count']:,}{', weighted' if rows['weighted'] else ''}: {ranges}{more}" if ranges else "none"),
        ("of", f"{rows['from']} to {rows['until']}" if rows["from"] else None),
        ("from", " <- ".join(_shortened([told["number"], *told["lineage"]]))),
        *(("verdict", f"{v['outcome']}: {v['reason']}") for v in told["verdicts"]),
        *(("held to", held) for held in _held_to(told["verdicts"])),
        *(("served", _served(span, told["champion"])) for span in told["served"]),
        ("champion", f"{'yes' if champion['now'] else 'no'}: {champion['why']}{waits}"),
        *(("predicted", _predicted(file)) for file in told["files"]),
        ("cost", f"{cost['cpu_seconds']:.3g} CPU seconds, {told['size']:,} bytes"),
        ("digest", told["digest"]),
        ("times", "of the stream, event time; committed: by the clock of the ledger's database"),
    ]
    for name, value in lines:
        if value:
            typer.echo(f"{name:<10}{value}")


def _shortened(line: list[str], most: int = 4) -> list[str]:
    """A line of ancestors, nearest first: the last few, how many are between, and the first."""
    between = len(line) - most - 1
    return line if between < 2 else [*line[:most], f"({between:,} more)", line[-1]]


def _served(span: dict[str, Any], champion: dict[str, Any]) -> str:
    """One stretch in which a version answered, in both clocks."""
    until = span["until"] or ("now" if champion["now"] else "the next turn, which another begins")
    wall = span["committed"]
    ended = f" to {wall['until'][:19]}Z" if wall["until"] else ""
    return f"{span['from']} to {until}: {span['rows']:,} rows (committed {wall['from'][:19]}Z{ended})"


def _files(ledger: SqlLedger, number: str, config: Path) -> list[dict[str, Any]]:
    """Files that a version predicted, and how that turned out."""
    if not any(part.version == number for part in ledger.files()):
        return []
    from perennial.config import load
    from perennial.core.times import iso
    from perennial.production.outcomes import outcomes

    found = outcomes(load(config).deployment(), ledger, number)  # asks the label log, which must be there
    return [{**asdict(one), "at": iso(one.at)} for one in found]


def _predicted(file: dict[str, Any]) -> str:
    """A file that was predicted, in a line."""
    told = f"{file['file']} at {file['at'][:19]}Z: {file['rows']:,} rows, {file['labelled']:,} with a label by now"
    if file["loss"] is None:
        return told
    right = "" if file["right"] is None else f", {file['right']:.1%} right"
    return f"{told}: {file['loss_name']} {file['loss']:.4g}{right}"


def _held_to(verdicts: list[dict[str, Any]]) -> list[str]:
    """What the last verdict knew besides the paired losses of all rows."""
    judged = [verdict["evidence"] for verdict in verdicts if "rows" in verdict["evidence"]]
    facts = judged[-1] if judged else {}
    out = []
    for name, part in facts.get("slices", {}).items():
        bounds = "" if part["upper"] is None else f", between {part['lower']:+.4g} and {part['upper']:+.4g}"
        loss = "no label yet" if part["mean"] is None else f"loss {part['mean']:+.4g}{bounds}"
        out.append(f"slice {name}: {loss}, on {part['rows']:,} labels, margin {part['margin']:g}")
    if facts.get("golden") is not None:
        out.append(f"golden set: loss {facts['golden']:+.4g} against the champion's")
    if "size_bytes" in facts:
        out.append(f"size: {facts['size_bytes']:,} bytes")
    if "latency" in facts:
        out.append(f"latency: {facts['latency']} for a row")
    return out


def _show_reproduced(told: dict[str, Any]) -> None:
    if told["data"] != told["data_again"]:
        typer.echo(f"{told['number']}: NOT the same training data")
        typer.echo(f"recorded  {told['data']}\nnow       {told['data_again']}")
        return
    what = "reproduced, bit for bit" if told["same"] else "NOT reproduced: the data are the same, the training is not"
    typer.echo(f"{told['number']}: {what} ({told['rows']:,} rows)")
    typer.echo(f"recorded  {told['state']}\nnow       {told['state_again']}")
