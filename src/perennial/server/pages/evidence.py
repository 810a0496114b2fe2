"""A challenger's running comparison with the champion: what the gate knows, look by look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perennial.core.records import Verdict
from perennial.replay.report.words import metric
from perennial.server.pages import words
from perennial.server.pages.chronicle import Chronicle, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A slice of the rows that is judged on its own."""

    name: str
    rows: int
    mean: float | None
    lower: float | None
    upper: float | None
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A trial that can be looked at."""

    key: int
    name: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One trial. ``progress`` is the share of the labels that the gate planned for, 1 at most."""

    key: int
    challenger: str
    champion: str | None
    outcome: str
    going_on: bool
    reason: str
    told: str | None
    facts: tuple[tuple[str, str], ...]
    slices: tuple[Part, ...]
    progress: float | None
    begun: int
    until: int
    choices: tuple[Choice, ...]


def page(told: Chronicle, key: int | None = None) -> Page | None:
    """The newest trial, or another one; None if there is none of this number."""
    if not told.trials:
        return None
    trial = told.trials.get(max(told.trials) if key is None else key)
    if trial is None:
        return None
    last = trial.last
    facts = last.evidence
    planned = facts.get("planned_labels")
    return Page(
        key=trial.key,
        challenger=last.version,
        champion=trial.champion,
        outcome=last.outcome,
        going_on=last.outcome == "keep" and trial.key == max(told.trials),
        reason=last.reason,
        told=words.judged(last, told.loss_name),
        facts=_facts(last, metric(told.loss_name) if told.loss_name else "loss"),
        slices=tuple(
            Part(name=name, **{k: part[k] for k in ("rows", "mean", "lower", "upper", "margin")})
            for name, part in facts.get("slices", {}).items()
        ),
        progress=min(facts.get("rows", 0) / planned, 1.0) if planned else None,
        begun=trial.begun,
        until=trial.until,
        choices=tuple(_choice(one, told) for one in sorted(told.trials.values(), key=lambda one: -one.key)),
    )


def _choice(trial: Trial, told: Chronicle) -> Choice:
    going_on = trial.key == max(told.trials)
    words = {"promote": "promoted", "reject": "rejected", "keep": "going on" if going_on else "ended without a verdict"}
    name = f"{trial.last.version} against {trial.champion or 'nothing'}"
    return Choice(key=trial.key, name=name, outcome=words[trial.last.outcome])


def _facts(verdict: Verdict, loss: str) -> tuple[tuple[str, str], ...]:
    facts = verdict.evidence
    mean, lower, upper = facts.get("mean"), facts.get("lower"), facts.get("upper")
    blocks = f"{words.whole(facts.get('blocks'))} of {words.whole(facts.get('least_blocks'))} at least"
    out = [
        (f"Difference in mean {loss}", words.signed(mean)),
        ("Between", f"{words.signed(lower)} and {words.signed(upper)}" if upper is not None else None),
        (
            "Margin",
            f"{words.signed(facts['margin'])}{_source(facts.get('margin_from'))}" if "margin" in facts else None,
        ),
        (
            "Labels",
            f"{words.whole(facts.get('rows', 0))} of {words.whole(facts.get('planned_labels'))} planned"
            if "planned_labels" in facts
            else None,
        ),
        (f"Blocks of {facts.get('block')}", blocks if "blocks" in facts else None),
        (
            "Each bound is wrong for",
            f"{words.percent(facts['alpha'])} of challengers at most" if "alpha" in facts else None,
        ),
        ("Waited", facts.get("waited")),
        ("Design effect", words.number(facts.get("design_effect")) if facts.get("design_effect") is not None else None),
        ("On the golden set", words.signed(facts["golden"]) if facts.get("golden") is not None else None),
        ("Size", words.byte_size(facts["size_bytes"]) if "size_bytes" in facts else None),
        ("Latency", facts.get("latency")),
        ("Rows that a fit left out", words.whole(facts["held_out_rows"]) if "held_out_rows" in facts else None),
    ]
    return tuple((name, str(value)) for name, value in out if value)


def _source(source: str | None) -> str:
    return {"cost": ", from prices", "level": ", 3 % of the champion's mean loss", "default": ", by default"}.get(
        source or "", ""
    )


def picture(trial: Trial) -> dict[str, Any]:
    """What the chart draws: instants in seconds, the mean difference, its bounds, the margin."""
    looks = trial.looks
    return {
        "t": [look.at / 1e6 for look in looks],
        "rows": [look.rows for look in looks],
        "mean": [look.mean for look in looks],
        "lower": [look.lower for look in looks],
        "upper": [look.upper for look in looks],
        "margin": trial.last.evidence.get("margin"),
        "extent": _extent([max(abs(look.lower), abs(look.upper)) for look in looks if look.lower and look.upper]),
    }


def _extent(sizes: list[float]) -> float | None:
    """How far the picture reaches: bounds on a few blocks are far out, and would flatten all that comes later."""
    return min(max(sizes), 5 * sizes[-1]) if sizes else None
