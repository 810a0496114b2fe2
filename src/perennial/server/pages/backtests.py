"""Reports of backtests that lie beside the configuration, and what each strategy scored and cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perennial.replay.report import reading, style
from perennial.replay.report.words import metric

REPORT, PAGE = "report.json", "report.html"
MOST = 50  #: folders that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One strategy of a report: its score, its costs, and where it stands in the picture."""

    name: str
    recommended: bool
    score: float | None
    versions: int
    cpu_seconds: float | None
    rows: float | None
    cost: float | None
    x: float
    y: float
    colour: int
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Score against cost: ticks of both axes as (place, label), the place between 0 and 1."""

    across: str
    up: str
    greater: bool
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report that was found. ``page`` says whether its page lies beside it."""

    name: str
    folder: str
    data: str
    strategies: tuple[Strategy, ...]
    picture: Picture | None
    recommended: str | None
    reason: str
    priced: bool
    page: bool


def found(folder: Path) -> list[Path]:
    """Folders beside a configuration, and itself, that hold a report; newest first."""
    if not folder.is_dir():
        return []
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))]
    holding = [place for place in places[:MOST] if (place / REPORT).is_file()]
    return sorted(holding, key=lambda place: -(place / REPORT).stat().st_mtime)


def read(folder: Path, name: str) -> Report | None:
    """The report in a folder that :func:`found` gave; None if it cannot be read."""
    try:
        plain = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return report(plain, name, page=(folder / PAGE).is_file())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def report(plain: dict[str, Any], name: str, *, page: bool) -> Report:
    """What the list shows of a report, the content of ``report.json``."""
    first = plain["metrics"][0] if plain["metrics"] else None
    chosen = reading.recommended(plain)
    ranked = reading.ranked(plain)
    seconds = [_number(one["costs"].get("train_cpu_seconds")) for one in ranked]
    scores = [_number(one["scores"].get(first["name"])) if first else None for one in ranked]
    x, x_ticks = _axis(seconds, log=True)
    y, y_ticks = _axis(scores, log=False)
    names = [one["name"] for one in plain["strategies"]]
    strategies = []
    for one, cost, score in zip(ranked, seconds, scores, strict=True):
        place = names.index(one["name"])
        strategies.append(
            Strategy(
                name=one["name"],
                recommended=chosen is not None and chosen["name"] == one["name"],
                score=score,
                versions=len(one["versions"]),
                cpu_seconds=cost,
                rows=_number(one["costs"].get("rows_trained")),
                cost=_number(one["costs"].get("money")),
                x=x(cost),
                y=y(score),
                colour=place % style.COLOURS,
                shape=style.shape(place),
            )
        )
    picture = None
    if first is not None and any(score is not None for score in scores):
        picture = Picture(
            across="CPU seconds of training",
            up=metric(first["name"]),
            greater=bool(first["greater_is_better"]),
            x_ticks=x_ticks,
            y_ticks=y_ticks,
        )
    recommended = plain.get("recommended")
    return Report(
        name=name,
        folder=name,
        data=str(plain["data"].get("name", "")),
        strategies=tuple(strategies),
        picture=picture,
        recommended=recommended["strategy"] if recommended else None,
        reason=recommended["reason"] if recommended else "",
        priced=reading.priced(plain),
        page=page,
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _axis(values: list[float | None], *, log: bool) -> tuple[Any, tuple[tuple[float, str], ...]]:
    """Where a value stands between 0 and 1, and ticks; a cost of nothing stands at the beginning of a log axis."""
    there = [value for value in values if value is not None and (value > 0 or not log)]
    if not there:
        return (lambda _value: 0.0), ()
    low, high = min(there), max(there)
    if log:
        low, high = math.log10(low), math.log10(high)
    room = (high - low) * 0.12 or max(abs(high) * 0.1, 0.1)
    low, high = low - room, high + room

    def place(value: float | None) -> float:
        if value is None or (log and value <= 0):
            return 0.0
        return ((math.log10(value) if log else value) - low) / (high - low)

    return place, tuple((place(tick), label) for tick, label in _ticks(low, high, log=log))


def _ticks(low: float, high: float, *, log: bool) -> list[tuple[float, str]]:
    if log:
        candidates = [base * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for base in (1, 2, 5)]
        inside = [tick for tick in candidates if low <= math.log10(tick) <= high]
        return [(tick, f"{tick:g}") for tick in inside[:: max(len(inside) // 5, 1)]]
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    first = math.ceil(low / step)
    return [(i * step, f"{i * step:.6g}") for i in range(first, math.floor(high / step) + 1)]
