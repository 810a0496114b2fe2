"""What a reader should take from a report: the order of strategies, who is best, what to be warned of."""

from __future__ import annotations

from typing import Any

from perennial.replay.report import words

Report = dict[str, Any]

IMPLICIT_DELAY = (
    "Labels: implicit delay of zero. No label delay was set, so every label counts as known the moment its row "
    "happens. If labels come later in production, these scores are too good: say how much later and run "
    "again, with  label_delay  in Python,  stream: {label: {column: ..., delay: ...}}  in YAML."
)
ONE_HISTORY = (
    "This is one history, and the best of several is picked after seeing it: small differences may be chance. "
)
TESTED = (
    "The advice allows for that: it resamples whole batches in runs, and takes the cheapest of the strategies that "
    "cannot be told apart from the best. It cannot know a future that is unlike this history."
)
UNTESTED = "No significance test has been made."


def priced(report: Report) -> bool:
    """Whether strategies carry a cost in the user's money."""
    return any(words.finite(s["costs"].get("money")) is not None for s in report["strategies"])


def better(a: float | None, b: float | None, greater: bool) -> bool:
    """Whether score ``a`` beats ``b``; no score beats nothing, and anything beats no score."""
    if a is None or b is None:
        return a is not None and b is None
    return a > b if greater else a < b


def ranked(report: Report) -> list[dict[str, Any]]:
    """Strategies, best first: by money if there are prices, else by the first metric; equal ones in given order."""
    if priced(report):
        return sorted(report["strategies"], key=lambda s: _ascending(s["costs"].get("money")))
    if not report["metrics"]:
        return list(report["strategies"])
    first = report["metrics"][0]
    sign = -1.0 if first["greater_is_better"] else 1.0
    return sorted(report["strategies"], key=lambda s: _ascending(s["scores"].get(first["name"]), sign))


def _ascending(value: Any, sign: float = 1.0) -> float:
    number = words.finite(value)
    return float("inf") if number is None else sign * number


def best(report: Report, metric: dict[str, Any]) -> float | None:
    """The best score that any strategy has on a metric; None if none has one."""
    found = [x for s in report["strategies"] if (x := words.finite(s["scores"].get(metric["name"]))) is not None]
    return (max if metric["greater_is_better"] else min)(found, default=None)


def recommended(report: Report) -> dict[str, Any] | None:
    """The strategy that the report recommends, if it does."""
    advice = report.get("recommended")
    return next((s for s in report["strategies"] if advice and s["name"] == advice["strategy"]), None)


def beside(report: Report) -> list[str]:
    """What the advice says beyond the reason of the recommendation: what is tied, what another price would change."""
    found = report.get("advice")
    if not found:
        return []
    out = [f"Cannot be told apart from it: {'; '.join(found['tied'])}."] if found["tied"] else []
    if found["if_double"] is not None:
        double, half = (
            "the same" if found[name] == found["strategy"] else found[name] for name in ("if_double", "if_half")
        )
        out.append(f"If a retrain costs twice as much: {double}; half as much: {half}.")
    return out + [f"{note[:1].upper()}{note[1:]}." for note in found["notes"]]


def chance(report: Report) -> str:
    """What the reader must know of one history, and whether a test was made of it."""
    return ONE_HISTORY + (TESTED if report.get("advice") else UNTESTED)


def best_line(report: Report, metric: dict[str, Any]) -> dict[str, Any] | None:
    """The no-skill line that is best on a metric, the frozen model aside; None if none has a score."""
    lines = [line for line in report["baselines"] if line["name"] != "frozen"]
    known = [line for line in lines if words.finite(line["scores"].get(metric["name"])) is not None]
    pick = max if metric["greater_is_better"] else min
    return pick(known, key=lambda line: float(line["scores"][metric["name"]]), default=None)


def unbeaten(report: Report) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """No-skill lines that beat every strategy, each with the metric on which it does."""
    return [
        (line, metric)
        for metric in report["metrics"]
        for line in report["baselines"]
        if better(words.finite(line["scores"].get(metric["name"])), best(report, metric), metric["greater_is_better"])
    ]


def cautions(report: Report) -> list[str]:
    """What the reader must know before believing a number, except the implicit label delay."""
    out = [str(w) for w in report["warnings"]]
    for line, metric in unbeaten(report):
        own, ours = words.score(line["scores"][metric["name"]]), words.score(best(report, metric))
        out.append(
            f'The no-skill line "{words.baseline(line["name"])}" beats every strategy on '
            f"{words.metric(metric['name'])} ({own} against {ours})."
        )
    for strategy in report["strategies"]:
        if held := strategy.get("quarantined"):
            out.append(f"{strategy['name']}: {_several(len(held), 'batch', 'batches')} quarantined and never learned.")
        if strategy.get("abstained"):
            out.append(f"{strategy['name']}: no answer for {_several(strategy['abstained'], 'row', 'rows')}.")
        out.extend(f"{strategy['name']}: {note}" for note in strategy.get("notes", ()))
    return out


def _several(n: int, one: str, many: str) -> str:
    return f"{words.count(n)} {one if n == 1 else many}"


def trainings(strategy: dict[str, Any]) -> str:
    """How often a strategy trained, split into new fits and updates where it did both.

    Examples
    --------
    >>> trainings({"costs": {"trainings": 903, "fits": 3, "updates": 900}})
    '903 (3 fits, 900 updates)'
    """
    costs = strategy["costs"]
    total = words.count(costs["trainings"])
    if costs["fits"] and costs["updates"]:
        total += f" ({_several(costs['fits'], 'fit', 'fits')}, {_several(costs['updates'], 'update', 'updates')})"
    return total


def regret(committee: dict[str, Any]) -> str:
    """What a committee lost against its best expert, and what it could have lost at most, in words."""
    if committee["regret"] is None:
        return "It has learned no batch yet, so that there is nothing to hold it against."
    each = committee["regret"] / max(committee["rows"], 1e-12)
    most = committee["bound"] / max(committee["rows"], 1e-12)
    way = "more than" if each > 0 else "less than"
    return (
        f"Over {committee['batches']:,} batches it lost {abs(each):.3g} {committee['unit']} per row {way} its best "
        f"expert in hindsight, {abs(committee['regret']):,.4g} in all. By the bound for fixed-share weights it cannot "
        f"have lost more than {most:.3g} per row above it, {committee['bound']:,.4g} in all."
    )
