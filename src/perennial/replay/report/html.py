"""The report as one page that works offline: style, script and data inside, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from perennial.advice.advise import spelled
from perennial.replay.report import reading, series, style, words

SHOWN_VERSIONS = 40  #: rows of a strategy's table of versions

_ASSETS = files("perennial.replay.report").joinpath("assets")


def html(report: dict[str, Any]) -> str:
    """The report as a self-contained HTML page.

    The page names no other file and its content security policy forbids fetching any; only its own style and
    script, known by their digests, may run. Text from the user is escaped wherever it stands. Lines are drawn with
    at most 400 points and 400 version marks each, and the page says where it left some out.

    Parameters
    ----------
    report : dict
        The content of ``report.json``.
    """
    chosen = reading.recommended(report)
    css, script = _asset("page.css") + _palette(), _asset("page.js")
    out: str = _template().render(
        report=report,
        css=css,
        script=script,
        css_digest=_digest(css),
        script_digest=_digest(script),
        payload=_embedded(_drawn(report)),
        strategies=[_row(report, s) for s in reading.ranked(report)],
        evidence=_evidence(report),
        cautions=reading.cautions(report),
        implicit_delay=reading.IMPLICIT_DELAY,
        one_history=reading.chance(report),
        advice=_advice(report),
        committees=[_committee(s) for s in report["strategies"] if s.get("committee") is not None],
        priced=reading.priced(report),
        trees=any(s["costs"]["row_trees"] for s in report["strategies"]),
        best={m["name"]: reading.best(report, m) for m in report["metrics"]},
        chosen=chosen,
        colour=None if chosen is None else _place(report, chosen) % style.COLOURS,
    )
    return out


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for name in ("score", "count", "large", "money", "seconds", "size"):
        environment.filters[name] = _typeset(getattr(words, name))
    environment.filters.update(
        when=words.when, day=words.day, plain=words.plain, metric=words.metric, baseline=words.baseline
    )
    return environment.from_string(_asset("page.html.j2"))


def _typeset(spell: Any) -> Any:
    """The same words with a true minus, and a dash for nothing."""

    def typeset(value: Any) -> str:
        text: str = spell(value)
        return "–" if text == words.NONE else text.replace("-", "−", 1) if text.startswith("-") else text

    return typeset


def _asset(name: str) -> str:
    return _ASSETS.joinpath(name).read_text(encoding="utf-8")


def _palette() -> str:
    """CSS that gives each colour its light and its dark value; on paper it is always the light one."""
    light = "".join(f"--c{i}:{colour};" for i, colour in enumerate(style.LIGHT))
    dark = "".join(f"--c{i}:{colour};" for i, colour in enumerate(style.DARK))
    classes = "".join(f".s{i}{{color:var(--c{i})}}" for i in range(style.COLOURS))
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{classes}\n"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _drawn(report: dict[str, Any]) -> dict[str, Any]:
    """What the script draws, and no more: shortened series, marks, costs."""
    grids: list[dict[str, Any]] = []
    reasons: dict[str, int] = {}
    chosen = reading.recommended(report)
    return {
        "metrics": [
            {"name": m["name"], "label": words.metric(m["name"]), "greater": m["greater_is_better"]}
            for m in report["metrics"]
        ],
        "axes": _axes(report),
        "shapes": style.SHAPES,
        "strategies": [
            {
                "name": s["name"],
                "kind": s["kind"],
                **_look(i),
                "recommended": s is chosen,
                "scores": _finite(s["scores"]),
                "costs": _costs(s["costs"]),
                "marks": _marks(s["versions"], reasons),
                "versions": len(s["versions"]),
                **_line(s["series"], grids),
            }
            for i, s in enumerate(report["strategies"])
        ],
        "baselines": [
            {
                "name": words.baseline(b["name"]),
                "dash": style.baseline_dash(i),
                "hidden": _is_strategy(report, b),
                "scores": _finite(b["scores"]),
                **(_line(b["series"], grids) if b.get("series") else {}),
            }
            for i, b in enumerate(report["baselines"])
        ],
        "reasons": list(reasons),
        "grids": grids,
    }


def _look(index: int) -> dict[str, Any]:
    return {"colour": index % style.COLOURS, "shape": style.shape(index), "dash": style.dash(index)}


def _place(report: dict[str, Any], strategy: dict[str, Any]) -> int:
    """A strategy's place in the report: what its look is chosen by."""
    return next(i for i, s in enumerate(report["strategies"]) if s is strategy)


def _is_strategy(report: dict[str, Any], line: dict[str, Any]) -> bool:
    """Whether a no-skill line repeats a strategy, as the frozen one often does: drawn only when asked for."""
    return any(line["scores"] == s["scores"] and s["kind"] == line["name"] for s in report["strategies"])


def _finite(scores: dict[str, Any]) -> dict[str, float | None]:
    return {name: words.finite(value) for name, value in scores.items()}


def _costs(costs: dict[str, Any]) -> dict[str, float | None]:
    cpu = (words.finite(costs["train_cpu_seconds"]) or 0.0) + (words.finite(costs["predict_cpu_seconds"]) or 0.0)
    names = ("train_cpu_seconds", "rows_trained", "row_trees", "kept_bytes", "money")
    return {"cpu_seconds": cpu} | {name: words.finite(costs.get(name)) for name in names}


def _axes(report: dict[str, Any]) -> list[dict[str, str]]:
    """The costs that the scatter can show; the first is shown first."""
    axes = [
        {"key": "train_cpu_seconds", "label": "Training CPU", "unit": "seconds"},
        {"key": "cpu_seconds", "label": "Training and prediction CPU", "unit": "seconds"},
        {"key": "rows_trained", "label": "Rows trained", "unit": "rows"},
    ]
    if any(s["costs"]["row_trees"] for s in report["strategies"]):
        axes.append({"key": "row_trees", "label": "Rows × trees", "unit": "row-trees"})
    axes.append({"key": "kept_bytes", "label": "Raw data kept", "unit": "bytes"})
    if reading.priced(report):
        axes.insert(0, {"key": "money", "label": "Money", "unit": "money"})
    return axes


def _marks(versions: list[dict[str, Any]], reasons: dict[str, int]) -> list[list[Any]]:
    """Version marks: instant (s), whether it is a new model, number, rows, place of its reason in the list."""
    return [
        [
            int(words.instant(v["trained_at"]).timestamp()),
            int(v["kind"] != "update"),
            v["number"],
            v["trained_rows"],
            reasons.setdefault(v["reason"], len(reasons)),
        ]
        for v in (versions[i] for i in series.thin(versions, series.MARKS))
    ]


def _line(data: dict[str, Any], grids: list[dict[str, Any]]) -> dict[str, Any]:
    """A line's values; its instants go to the list of grids, once for all lines on the same batches."""
    lines = series.compress(data)
    grid = {
        "start": lines.start,
        "stop": lines.stop,
        "middle": lines.middle,
        "rows": lines.rows,
        "batches": lines.batches,
    }
    if grid not in grids:
        grids.append(grid)
    return {
        "grid": grids.index(grid),
        "smooth": lines.smooth,
        "each": lines.each,
        "cumulative": lines.cumulative,
    }


def _row(report: dict[str, Any], strategy: dict[str, Any]) -> dict[str, Any]:
    """A strategy as the tables show it."""
    shown = series.thin(strategy["versions"], SHOWN_VERSIONS)
    return strategy | {
        "look": _look(_place(report, strategy)),
        "shown": [strategy["versions"][i] for i in shown],
        "trainings": reading.trainings(strategy),
    }


def _committee(strategy: dict[str, Any]) -> dict[str, Any]:
    """A committee's experts, the one of least loss marked, and its regret in words."""
    told = strategy["committee"]
    losses = [one["loss"] for one in told["experts"] if one["loss"] is not None]
    experts = [one | {"best": bool(losses) and one["loss"] == min(losses)} for one in told["experts"]]
    return {**told, "name": strategy["name"], "experts": experts, "verdict": reading.regret(told)}


def _advice(report: dict[str, Any]) -> dict[str, Any] | None:
    """The advice with a picture of each interval: places on a line 240 wide, nothing saved where ``zero`` is."""
    found: dict[str, Any] | None = report.get("advice")
    if not found:
        return None
    rows = found["standings"]
    ends: list[float] = [0.0, *(one[end] for one in rows if not one["line"] for end in ("low", "high"))]
    low, high = min(ends), max(ends)
    width = (high - low) or 1.0

    def at(value: float) -> float:
        return round(8 + 224 * min(max((value - low) / width, 0.0), 1.0), 1)

    places = {s["name"]: i for i, s in enumerate(report["strategies"])}
    shown = [
        one
        | {
            "spelled": [_typeset(spelled)(one[part]) for part in ("saving", "low", "high")],
            "from": at(one["low"]),
            "to": at(one["high"]),
            "at": at(one["saving"]),
            "label": words.baseline(one["name"]) if one["line"] else one["name"],
            "look": None if one["line"] else _look(places.get(one["name"], 0)),
        }
        for one in rows
    ]
    unit = {"month": "money per month", "span": "money", "row": f"{found['unit']} per row"}[found["per"]]
    return found | {"rows": shown, "zero": at(0.0), "saved": unit}


def _evidence(report: dict[str, Any]) -> list[dict[str, str]]:
    """The few numbers that a decision rests on."""
    chosen = reading.recommended(report)
    if chosen is None or not report["metrics"]:
        return []
    metric = report["metrics"][0]
    name, label = metric["name"], words.metric(metric["name"])
    score = _typeset(words.score)
    out = [{"label": label[:1].upper() + label[1:], "value": score(chosen["scores"].get(name)), "note": ""}]
    reference = _frozen(report)
    if reference is not None and reference is not chosen:
        out[0]["note"] = f"{score(reference['scores'].get(name))} if never retrained"
    if (line := reading.best_line(report, metric)) is not None:
        out.append(
            {
                "label": "Best no-skill line",
                "value": score(line["scores"].get(name)),
                "note": words.baseline(line["name"]),
            }
        )
    if words.finite(chosen["costs"].get("money")) is not None:
        out.insert(0, {"label": "Money", "value": _typeset(words.money)(chosen["costs"]["money"]), "note": "all costs"})
    costs = chosen["costs"]
    out.append(
        {
            "label": "Training",
            "value": words.seconds(costs["train_cpu_seconds"]),
            "note": f"CPU, {words.count(costs['rows_trained'])} rows read",
        }
    )
    out.append({"label": "Trainings", "value": words.count(costs["trainings"]), "note": _pace(report, costs)})
    return out


def _frozen(report: dict[str, Any]) -> dict[str, Any] | None:
    found = [b for b in report["baselines"] if b["name"] == "frozen"]
    found += [s for s in report["strategies"] if s["kind"] == "frozen"]
    return found[0] if found else None


def _pace(report: dict[str, Any], costs: dict[str, Any]) -> str:
    """How much time lay between trainings on average."""
    first, last = report["evaluated"]["first"], report["evaluated"]["last"]
    if not costs["trainings"] or first is None or last is None:
        return ""
    span = (words.instant(last) - words.instant(first)).total_seconds()
    return f"one per {words.seconds(span / costs['trainings'])} on average" if costs["trainings"] > 1 else ""
