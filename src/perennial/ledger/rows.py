"""Records as rows and back: what is read equals what was written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from perennial.core.errors import LedgerError
from perennial.core.records import Decision, Loss, Verdict, Version
from perennial.ledger.records import Alias, AliasChange, Entry, Saved, Segment

Row = dict[str, Any]

VERSION = tuple(f.name for f in fields(Version))
SEGMENT = tuple(f.name for f in fields(Segment))
_DIGEST = re.compile(r'"([0-9a-f]{64})"')
_SAVED = ("blob", "state", "size", "golden", "cpu_seconds")
_TURN = ("turn", "kind", "now", "first", "rows", "position", "checkpoint", "serving")
_TURN_END = ("predictions", "labels", "quarantined", "late", "staleness", "cpu_seconds")


def cell(value: Any) -> Any:
    """A plain value for a column: numbers of numpy become Python's, and NaN becomes NULL."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return value.item() if hasattr(value, "item") else value


def number(value: float | None) -> float:
    """A double as it was before :func:`cell`."""
    return math.nan if value is None else value


def prose(text: str) -> str:
    """Words for people, without what a database cannot hold: lone surrogates, and zeros in PostgreSQL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def to_json(value: Any) -> str:
    """Plain data as strict JSON, which databases can query.

    What JSON lacks is written as an object whose name begins with ``$``: ``{"$float": "nan"}``.

    Examples
    --------
    >>> to_json({"p": 0.5, "bounds": [0.0, float("inf")]})
    '{"p": 0.5, "bounds": [0.0, {"$float": "inf"}]}'
    """
    try:
        text = json.dumps(value, allow_nan=False, default=_plain)
    except TypeError as error:
        raise LedgerError(f"{value!r} is no plain data: keep numbers, strings, lists and mappings") from error
    except ValueError:  # a NaN or an infinity
        return json.dumps(_marked(value), allow_nan=False, default=_plain)
    return json.dumps(_marked(value), allow_nan=False, default=_plain) if '"$' in text else text


def digests(value: Any) -> set[str]:
    """Every digest that plain data names, as a value or a name of its own."""
    return set(_DIGEST.findall(to_json(value)))


def from_json(text: str) -> Any:
    """What :func:`to_json` was given; tuples have become lists."""
    return json.loads(text, object_hook=_unmarked) if '"$' in text else json.loads(text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__qualname__)


def _marked(value: Any) -> Any:
    if not isinstance(value, str | bytes | Mapping) and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, Mapping):
        return {f"${name}" if str(name).startswith("$") else name: _marked(item) for name, item in value.items()}
    return [_marked(item) for item in value] if isinstance(value, list | tuple) else value


def _unmarked(found: Row) -> Any:
    if set(found) == {"$float"}:
        return float(found["$float"])
    return {name[1:] if name.startswith("$$") else name: item for name, item in found.items()}


def turn_row(entry: Entry) -> Row:
    """The row of ``turns``."""
    row = {name: cell(getattr(entry, name)) for name in _TURN + _TURN_END}
    if entry.quarantined is not None:
        row["quarantined"] = prose(entry.quarantined)
    loss = entry.loss
    return row | {
        "loss_n": int(loss.n),
        "loss_total": cell(loss.total),
        "loss_name": loss.name,
        "notes": to_json(entry.notes),
    }


def decision_rows(entry: Entry) -> list[Row]:
    """Rows of ``decisions``, in order."""
    return [
        {"turn": entry.turn, "seq": seq, "fire": bool(one.fire), "reason": prose(one.reason)}
        for seq, one in enumerate(entry.decisions)
    ]


def verdict_rows(entry: Entry) -> list[Row]:
    """Rows of ``verdicts``, in order."""
    return [
        {
            "turn": entry.turn,
            "seq": seq,
            "outcome": one.outcome,
            "version": one.version,
            "reason": prose(one.reason),
            "champion": one.champion,
            "evidence": to_json(one.evidence),
        }
        for seq, one in enumerate(entry.verdicts)
    ]


def version_rows(entry: Entry) -> list[Row]:
    """Rows of ``versions``, in order."""
    return [
        {"turn": entry.turn, "seq": seq, "number": saved.version.number}
        | {name: cell(getattr(saved.version, name)) for name in VERSION}
        | {name: cell(getattr(saved, name)) for name in _SAVED}
        | {"reason": prose(saved.version.reason), "facts": to_json(saved.facts)}
        for seq, saved in enumerate(entry.versions)
    ]


def score_rows(entry: Entry) -> list[Row]:
    """Rows of ``scores``."""
    return [
        {"turn": entry.turn, "name": name, "n": int(n), "total": cell(total)}
        for name, (n, total) in entry.scores.items()
    ]


def segment_rows(entry: Entry) -> list[Row]:
    """Rows of ``segments``: what the turn brought is number 0."""
    brought = [] if entry.segment is None else [(0, entry.segment)]
    return [
        {"born": entry.turn, "seq": seq} | {name: cell(getattr(one, name)) for name in SEGMENT}
        for seq, one in (*brought, *enumerate(entry.thinned, start=1))
    ]


def decision(row: Any) -> Decision:
    """A row of ``decisions`` as it was."""
    return Decision(fire=row.fire, reason=row.reason)


def verdict(row: Any) -> Verdict:
    """A row of ``verdicts`` as it was."""
    return Verdict(
        outcome=row.outcome,
        version=row.version,
        reason=row.reason,
        champion=row.champion,
        evidence=from_json(row.evidence),
    )


def saved(row: Any) -> Saved:
    """A row of ``versions`` as it was."""
    version = Version(**{name: getattr(row, name) for name in VERSION})
    kept = {name: getattr(row, name) for name in _SAVED} | {"cpu_seconds": number(row.cpu_seconds)}
    return Saved(version=version, facts=from_json(row.facts), **kept)


def segment(row: Any) -> Segment:
    """A row of ``segments`` as it was."""
    return Segment(**{name: getattr(row, name) for name in SEGMENT})


def alias(row: Any) -> Alias:
    """A row of ``aliases``: where the pointer points since then."""
    return Alias(
        alias=row.alias,
        version=row.version,
        generation=row.generation,
        reason=row.reason,
        actor=row.actor,
        at=row.at,
        canary=row.canary,
        shadow=row.shadow,
    )


def alias_change(row: Any) -> AliasChange:
    """A row of ``aliases`` as the change that made it."""
    return AliasChange(
        alias=row.alias,
        version=row.version,
        generation=row.generation - 1,
        reason=row.reason,
        actor=row.actor,
        at=row.at,
        canary=row.canary,
        shadow=row.shadow,
    )


def entry(row: Any, of: Mapping[str, list[Any]]) -> Entry:
    """A row of ``turns``, with its rows of the other tables in order, as it was committed."""
    came = of["segments"]
    return Entry(
        **{name: getattr(row, name) for name in (*_TURN, *_TURN_END) if name != "cpu_seconds"},
        cpu_seconds=number(row.cpu_seconds),
        loss=Loss(n=row.loss_n, total=number(row.loss_total), name=row.loss_name),
        notes=tuple(from_json(row.notes)),
        decisions=tuple(map(decision, of["decisions"])),
        verdicts=tuple(map(verdict, of["verdicts"])),
        versions=tuple(map(saved, of["versions"])),
        scores={one.name: (one.n, number(one.total)) for one in of["scores"]},
        segment=next((segment(one) for one in came if not one.seq), None),
        thinned=tuple(segment(one) for one in came if one.seq),
        released=tuple(one.digest for one in of["released"]),
        aliases=tuple(map(alias_change, of["aliases"])),
    )
