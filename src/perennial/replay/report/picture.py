"""The report as one SVG picture, for a README or a slide: score over time beside score against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.sax.saxutils import escape

from perennial.replay.report import reading, series, style, words

WIDTH, HEIGHT = 1200, 500
_TOP, _BOTTOM = 104, 440
_TIME = (64, 590)  #: left and right end of the time axis
_COST = (820, 1168)

_CSS = """
.ground{fill:#fff;stroke:#d9d6cf}.ink{fill:#1d2025}.soft{fill:#585e68}.grid{stroke:#eceae4}.axis{stroke:#c9c6bf}
.base{stroke:#6d727b;fill:none;stroke-width:1.5}.front{stroke:#6d727b;fill:none;stroke-dasharray:3 3}
.line{fill:none;stroke:currentColor;stroke-width:1.9;stroke-linejoin:round;stroke-linecap:round}.chosen{stroke-width:3}
.halo{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}.lead{stroke:currentColor;stroke-width:.8}
.hollow{fill:#fff;stroke:currentColor;stroke-width:.32}
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
.title{font-size:20px;font-weight:650}.bold{font-weight:700}.small{font-size:12px}
"""
_DARK = """
.ground{fill:#1b1e23;stroke:#33373f}.ink{fill:#ebe9e4}.soft{fill:#a9afb9}.grid{stroke:#292d34}.axis{stroke:#474c56}
.base,.front{stroke:#979da7}.halo{stroke:#1b1e23}.hollow{fill:#1b1e23}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """A linear or logarithmic map from values to pixels, with the values to mark."""

    at: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def picture(report: dict[str, Any]) -> str:
    """An SVG of 1200 by 500 pixels: the first metric over time, and against money or training CPU.

    Pure text from the report alone: the same report gives the same bytes. It brings its own ground, so it reads on
    light and dark pages alike, and follows the reader's colour scheme where the viewer tells it.

    Parameters
    ----------
    report : dict
        The content of ``report.json``.
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{_safe(_spoken(report))}">',
        f"<style>{_CSS}{_colours(style.LIGHT)}@media(prefers-color-scheme:dark){{{_DARK}{_colours(style.DARK)}}}</style>",
        f'<rect class="ground" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
        _text(24, 36, _title(report), "ink title"),
        _text(24, 60, _subtitle(report), "soft"),
    ]
    if report["metrics"] and report["strategies"]:
        parts += _over_time(report) + _against_cost(report)
    return "\n".join([*parts, "</svg>\n"])


def _title(report: dict[str, Any]) -> str:
    chosen = reading.recommended(report)
    name = _clip(str(report["data"]["name"]), 40)
    return f"{name}: use {_clip(chosen['name'], 50)}" if chosen else f"{name}: no strategy is recommended"


def _subtitle(report: dict[str, Any]) -> str:
    evaluated = report["evaluated"]
    out = f"{words.count(evaluated['rows'])} rows, {words.day(evaluated['first'])} to {words.day(evaluated['last'])}"
    return out + ("; labels: implicit delay of zero" if report["data"]["implicit_label_delay"] else "")


def _spoken(report: dict[str, Any]) -> str:
    if not report["metrics"]:
        return _title(report)
    name = report["metrics"][0]["name"]
    scores = ", ".join(f"{s['name']} {words.score(s['scores'].get(name))}" for s in reading.ranked(report))
    return f"{_title(report)}. {words.metric(name)}: {scores}"


def _colours(palette: Sequence[str]) -> str:
    return "".join(f".s{i}{{color:{colour}}}" for i, colour in enumerate(palette))


def _over_time(report: dict[str, Any]) -> list[str]:
    metric = report["metrics"][0]
    name = metric["name"]
    drawn = [(i, s, series.compress(s["series"], 200)) for i, s in enumerate(report["strategies"])]
    lines = [(b, series.compress(b["series"], 200)) for b in _lines(report) if b.get("series")]
    values = sorted(v for _, _, line in drawn for v in line.smooth.get(name, ()) if v is not None)
    values = sorted(values + [v for _, line in lines for v in line.smooth.get(name, ()) if v is not None])
    instants = [t for _, _, line in drawn for t in (*line.start[:1], *line.stop[-1:])]
    if not values or not instants:
        return [_text(_TIME[0], _TOP + 20, "No scores over time.", "soft")]
    x, y = _time_axis(min(instants), max(instants)), _height(values)
    out = _frame(x, y, _TIME, _caption(metric) + ", moving mean")
    ends: list[tuple[float, str, str, str]] = []
    for k, (baseline, line) in enumerate(lines):
        path, end = _path(line.middle, line.smooth[name], x, y)
        if not path:  # a line that says only classes has no log loss
            continue
        out.append(f'<path class="base" stroke-dasharray="{style.baseline_dash(k)}" d="{path}"/>')
        ends.append((end, words.baseline(baseline["name"]), "", "soft"))
    chosen = reading.recommended(report)
    for i, strategy, line in sorted(drawn, key=lambda d: d[1] is chosen):
        if name not in line.smooth:
            continue
        path, end = _path(line.middle, line.smooth[name], x, y)
        bold = strategy is chosen
        colour = f"s{i % style.COLOURS}"
        dashes = f' stroke-dasharray="{style.dash(i)}"' if style.dash(i) else ""
        out.append(f'<g class="{colour}"><path class="line{" chosen" if bold else ""}"{dashes} d="{path}"/></g>')
        ends.append((end, strategy["name"], style.shape(i), f"{colour} {'bold' if bold else ''}"))
    return out + _ends(ends)


def _path(times: Sequence[int], values: Sequence[float | None], x: _Axis, y: _Axis) -> tuple[str, float]:
    """The path of a line, broken where it has no value, and the height at which it ends."""
    out, pen, end = [], "M", float(_BOTTOM)
    for t, v in zip(times, values, strict=True):
        if v is None:
            pen = "M"
            continue
        end = y.at(v)
        out.append(f"{pen}{x.at(t):.1f} {end:.1f}")
        pen = "L"
    return "".join(out), end


def _ends(ends: list[tuple[float, str, str, str]]) -> list[str]:
    """Names at the right ends of their lines, moved apart where they would overlap."""
    out, edge, step = [], _TIME[1], 19.0
    ordered = sorted(ends)
    places = [min(max(end, _TOP), _BOTTOM) for end, *_ in ordered]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + step)
    limit = float(_BOTTOM)
    for k in reversed(range(len(places))):
        places[k] = min(places[k], limit)
        limit = places[k] - step
    for (end, name, shape, look), place in zip(ordered, places, strict=True):
        colour = look.split()[0]
        lead = f"M{edge + 3} {end:.1f}L{edge + 16} {place:.1f}"
        out.append(f'<g class="{colour}"><path class="{"lead" if shape else "base"}" d="{lead}"/>')
        if shape:
            out.append(
                f'<path d="{shape}" fill="currentColor" transform="translate({edge + 23} {place:.1f}) scale(4.6)"/>'
            )
        out.append("</g>")
        kind = "soft" if not shape else "ink bold" if "bold" in look else "ink"
        out.append(_text(edge + 33, place + 4.5, _clip(name, 22), kind))
    return out


def _against_cost(report: dict[str, Any]) -> list[str]:
    metric = report["metrics"][0]
    priced = reading.priced(report)
    key = "money" if priced else "train_cpu_seconds"
    points = [
        (i, s, cost, score)
        for i, s in enumerate(report["strategies"])
        if (cost := words.finite(s["costs"].get(key))) is not None
        and (score := words.finite(s["scores"].get(metric["name"]))) is not None
    ]
    if not points:
        return []
    known = [(b, v) for b in _lines(report) if (v := words.finite(b["scores"].get(metric["name"]))) is not None]
    x = _cost_axis([p[2] for p in points], words.money if priced else words.seconds)
    y = _height([*(p[3] for p in points), *(v for _, v in known)])
    out = _frame(x, y, _COST, _caption(metric))
    out.append(_text(_COST[1], _BOTTOM + 40, "money" if priced else "training CPU, less is better", "soft", "end"))
    taken = [(x.at(p[2]) - 8, y.at(p[3]) - 8, 16.0, 16.0) for p in points]
    for k, (_, value) in enumerate(known):
        dashes = style.baseline_dash(k)
        out.append(f'<path class="base" stroke-dasharray="{dashes}" d="M{_COST[0]} {y.at(value):.1f}H{_COST[1]}"/>')
    front = _front(points, metric["greater_is_better"])
    out.append(f'<path class="front" d="{_steps(front, x, y)}"/>')
    chosen = reading.recommended(report)
    for point in sorted(points, key=lambda p: y.at(p[3])):
        i, strategy, cost, score = point
        at = f'transform="translate({x.at(cost):.1f} {y.at(score):.1f}) scale({7.5 if strategy is chosen else 6})"'
        look = 'fill="currentColor"' if point in front else 'class="hollow"'
        out.append(f'<g class="s{i % style.COLOURS}"><path d="{style.shape(i)}" {look} {at}/></g>')
        kind = "ink halo bold" if strategy is chosen else "ink halo"
        out += _label(x.at(cost), y.at(score), _clip(strategy["name"], 22), kind, taken)
    for baseline, value in sorted(known, key=lambda line: line[1]):
        out += _label(_COST[1] - 11, y.at(value) - 9, words.baseline(baseline["name"]), "soft halo small", taken)
    return out


def _front(points: list[Any], greater: bool) -> list[Any]:
    """The points that nothing cheaper equals, by ascending cost."""
    sign, best, out = (1.0 if greater else -1.0), -math.inf, []
    for point in sorted(points, key=lambda p: (p[2], -sign * p[3])):
        if sign * point[3] > best:
            best = sign * point[3]
            out.append(point)
    return out


def _steps(front: list[Any], x: _Axis, y: _Axis) -> str:
    out = "".join(
        f"H{x.at(cost):.1f}V{y.at(score):.1f}" if k else f"M{x.at(cost):.1f} {y.at(score):.1f}"
        for k, (_, _, cost, score) in enumerate(front)
    )
    return f"{out}H{_COST[1]}"


def _label(x: float, y: float, name: str, kind: str, taken: list[tuple[float, float, float, float]]) -> list[str]:
    """The name beside a point where it overlaps nothing; none if there is no such place."""
    width = 7.3 * len(name)
    places = (
        (x + 11, y - 8, "start", x + 12),
        (x - 11 - width, y - 8, "end", x - 12),
        (x - width / 2, y - 27, "middle", x),
        (x - width / 2, y + 12, "middle", x),
    )
    for left, top, anchor, at in places:
        inside = left >= _COST[0] and left + width <= WIDTH - 12 and top >= _TOP - 12 and top + 15 <= _BOTTOM
        free = all(left >= b[0] + b[2] or b[0] >= left + width or top >= b[1] + b[3] or b[1] >= top + 15 for b in taken)
        if inside and free:
            taken.append((left, top, width, 15))
            return [_text(at, top + 12.5, name, kind, anchor)]
    return []


def _lines(report: dict[str, Any]) -> list[dict[str, Any]]:
    """No-skill lines worth drawing: the frozen model is left out where it is among the strategies."""
    frozen = any(s["kind"] == "frozen" for s in report["strategies"])
    return [b for b in report["baselines"] if not (frozen and b["name"] == "frozen")]


def _caption(metric: dict[str, Any]) -> str:
    return f"{words.metric(metric['name'])} ({'higher' if metric['greater_is_better'] else 'lower'} is better)"


def _frame(x: _Axis, y: _Axis, ends: tuple[int, int], caption: str) -> list[str]:
    left, right = ends
    out = [_text(left - 40, _TOP - 16, caption, "ink bold")]
    for value, label in y.ticks:
        at = f"{y.at(value):.1f}"
        out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
        out.append(_text(left - 8, y.at(value) + 4, label, "soft small", "end"))
    out.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>')
    for value, label in x.ticks:
        at = f"{x.at(value):.1f}"
        out.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{_BOTTOM}" y2="{_BOTTOM + 5}"/>')
        out.append(_text(x.at(value), _BOTTOM + 20, label, "soft small", "middle"))
    return out


def _height(values: Sequence[float]) -> _Axis:
    low, high = min(values), max(values)
    pad = 0.06 * (high - low or abs(high) or 1.0)
    low, high = low - pad, high + pad
    step = _nice((high - low) / 6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step), math.floor(high / step)
    return _Axis(
        at=lambda v: _BOTTOM - (v - low) / (high - low) * (_BOTTOM - _TOP),
        ticks=[(k * step, f"{k * step:,.{digits}f}") for k in range(first, last + 1)],
    )


def _nice(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def _time_axis(first: int, last: int) -> _Axis:
    if first >= last:
        first, last = first - 43_200, last + 43_200
    low, high = _TIME
    ticks = _months(first, last)
    if len(ticks) < 3:  # a short history: even steps, to the minute or the day
        step = (last - first) / 4
        spell = "%d %b %Y" if step >= 86_400 else "%d %b %H:%M"
        marks = [first + k * step for k in range(1, 4)]
        ticks = [(t, f"{datetime.fromtimestamp(t, UTC):{spell}}") for t in marks]
    return _Axis(at=lambda t: low + (t - first) / (last - first) * (high - low), ticks=ticks)


def _months(first: int, last: int) -> list[tuple[float, str]]:
    months = next((m for m in (1, 2, 3, 6, 12, 24, 60, 120) if (last - first) / (m * 2_629_800) <= 7), 240)
    begin = datetime.fromtimestamp(first, UTC)
    out: list[tuple[float, str]] = []
    year, month = (begin.year - begin.year % max(1, months // 12), 0) if months >= 12 else (begin.year, 0)
    while True:
        at = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        if (seconds := (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)) > last:
            return out
        if seconds >= first:
            full = months < 12 and (not out or at.month == 1)
            out.append((float(seconds), f"{at:%Y}" if months >= 12 else f"{at:%b %Y}" if full else f"{at:%b}"))
        month += months


def _cost_axis(costs: Sequence[float], spell: Callable[[float], str]) -> _Axis:
    """Logarithmic where costs are positive and far apart, else linear from zero; a cost of nothing stands left."""
    low, high = _COST[0] + 14, _COST[1]
    positive = [c for c in costs if c > 0]
    if min(costs) < 0 or not positive or max(positive) < 5 * min(positive):
        a, b = min(0.0, *costs), max(*costs, 1e-9)
        b += 0.08 * (b - a)
        step = _nice((b - a) / 4)
        marks = [k * step for k in range(math.ceil(a / step), math.floor(b / step) + 1)]
        return _Axis(
            at=lambda c: low + (c - a) / (b - a) * (high - low),
            ticks=[(m, spell(m).replace(".0 ", " ")) for m in marks],
        )
    room = 0.12 * math.log10(max(positive) / min(positive))
    a, b = math.log10(min(positive)) - room, math.log10(max(positive)) + room
    start = low + 34 if 0 in costs else low
    marks = [0.0] if 0 in costs else []
    factors = (1, 3) if b - a < 2.5 else (1,)
    powers = range(math.floor(a), math.ceil(b) + 1)
    marks += [f * 10.0**k for k in powers for f in factors if a <= math.log10(f * 10.0**k) <= b]

    def at(cost: float) -> float:
        return low + 6 if cost == 0 else start + (math.log10(cost) - a) / (b - a) * (high - start)

    return _Axis(at=at, ticks=[(m, "0" if m == 0 else spell(m).replace(".0 ", " ")) for m in marks])


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _safe(text: str) -> str:
    """Text that can stand in XML: escaped, and without the control characters that XML forbids."""
    allowed = "".join(c if c.isprintable() else " " for c in text)
    return escape(allowed, {'"': "&quot;"})


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    placed = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{placed}>{_safe(text)}</text>'
