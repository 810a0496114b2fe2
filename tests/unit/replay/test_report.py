"""The report says what the data say, whatever names and sizes it is given."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.replay import report as reports
from perennial.replay.report import reading, series, style, words

_SPEC = importlib.util.spec_from_file_location("report_example", Path(__file__).with_name("report_example.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules.setdefault("report_example", _MODULE)
_SPEC.loader.exec_module(_MODULE)
example = _MODULE.example

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'&{{7*7}}{% x %} [red]b[/red] \u2028 <!--"


def valid(report: dict[str, Any]) -> bool:
    """Whether a report passes the schema."""
    return jsonschema.Draft202012Validator(reports.schema()).is_valid(report)


def terminal(report: dict[str, Any], width: int = 80, *, colours: bool = False) -> str:
    """What a terminal of that width, or a pipe, is sent."""
    from rich.console import Console

    out = io.StringIO()
    reports.show(report, Console(file=out, width=width, force_terminal=colours, highlight=False, legacy_windows=False))
    return out.getvalue()


class Page(HTMLParser):
    """Every element, attribute and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def payload(page: str) -> dict[str, Any]:
    """The data that a page carries for its script."""
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    out: dict[str, Any] = json.loads(found[1])
    return out


def hostile() -> dict[str, Any]:
    """A report in which every text of the user tries to break out."""
    report = example(12, 2)
    for strategy in report["strategies"]:
        strategy["name"] += HOSTILE
        strategy["description"] = strategy["learner"] = HOSTILE
        strategy["notes"] = [HOSTILE]
        for version in strategy["versions"]:
            version["reason"] = HOSTILE
        strategy["quarantined"] = [{"at": "2026-01-01T00:00:00Z", "reason": HOSTILE}]
    report["recommended"] = {"strategy": report["strategies"][0]["name"], "by": HOSTILE, "reason": HOSTILE}
    report["advice"] |= {"strategy": HOSTILE, "reference": HOSTILE, "unit": HOSTILE, "sentences": [HOSTILE, HOSTILE]}
    report["advice"]["standings"][0]["name"] = HOSTILE
    report["data"] |= {"name": HOSTILE, "source": HOSTILE, "target": HOSTILE, "classes": [HOSTILE], "positive": HOSTILE}
    report["data"]["columns"][0]["name"] = HOSTILE
    report["settings"]["perennial.yaml"] = HOSTILE
    report["settings"][HOSTILE] = HOSTILE
    report["warnings"] = [HOSTILE]
    return report


# ---- schema ------------------------------------------------------------------------------------------------------


def test_schema_is_sound_and_accepts_a_report() -> None:
    """The published schema is itself valid, and a report passes it."""
    jsonschema.Draft202012Validator.check_schema(reports.schema())
    assert valid(example())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("surprise",), 1),
        (("data", "rows"), -1),
        (("data", "digest"), None),
        (("data", "first"), "6 July 1996"),
        (("data", "first"), "1996-07-06T00:00:00+10:00"),
        (("strategies", 0, "kind"), "magic"),
        (("strategies", 0, "scores", "accuracy"), "good"),
        (("strategies", 0, "costs", "extra"), 1),
        (("strategies", 0, "versions", 0, "number"), "1"),
        (("strategies", 0, "series", "time"), [0]),
        (("baselines", 0, "name"), "oracle"),
        (("recommended",), {"strategy": "hybrid"}),
        (("advice", "verdict"), "sure"),
        (("advice", "standings", 0, "p_best"), "high"),
    ],
)
def test_schema_refuses(path: tuple[str | int, ...], value: object) -> None:
    """A report with an unknown, missing or ill-typed part fails the schema."""
    report: Any = example(4, 2)
    inner = report
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert not valid(report)


def test_schema_needs_every_top_part() -> None:
    """No top-level part may be missing."""
    for part in reports.schema()["required"]:
        report = example(2, 1)
        del report[part]
        assert not valid(report), part


def test_schema_is_a_fresh_copy() -> None:
    """Changing the returned schema does not change the next one."""
    reports.schema().clear()
    assert reports.schema()


# ---- terminal ----------------------------------------------------------------------------------------------------


def test_table_fits_80_columns_and_is_plain_in_a_pipe() -> None:
    """At 80 columns no line is longer, nothing is cut, and a pipe gets no colour codes and only ASCII rules aside."""
    text = terminal(example())
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "…" not in text
    assert "371,520" in terminal(example(900))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_table_shows_every_score_at_any_width(width: int) -> None:
    """However narrow the terminal, each strategy's scores and costs are there in full."""
    report = example(40, 6, metrics=3)
    report["metrics"] += [{"name": "average_precision", "greater_is_better": True}]
    text = terminal(report, width)
    assert max(map(len, text.splitlines())) <= width
    for strategy in report["strategies"]:
        for value in strategy["scores"].values():
            assert words.score(value) in text
        assert words.count(strategy["costs"]["rows_trained"]) in text


def test_table_says_the_implicit_label_delay_in_bold() -> None:
    """An implicit label delay of zero is bold on a terminal, and absent where a delay was given."""
    report = example()
    assert re.search(r"\x1b\[1mLabels: implicit delay of zero", terminal(report, 400, colours=True))
    report["data"] |= {"implicit_label_delay": False, "label_delay": "0s"}
    assert "implicit" not in terminal(report)


def test_table_sorts_by_the_first_metric_or_by_money() -> None:
    """Without prices the best first metric comes first; with prices the lowest cost does."""
    report = example()
    assert reading.ranked(report)[0]["name"] == "hybrid"
    report["metrics"].reverse()
    report["metrics"].sort(key=lambda m: m["name"] != "log_loss")
    losses = [s["scores"]["log_loss"] for s in reading.ranked(report)]
    assert losses == sorted(losses)
    for money, strategy in enumerate(report["strategies"]):
        strategy["costs"]["money"] = None if money == 0 else -1234.5 * money
    order = [s["name"] for s in reading.ranked(report)]
    assert order[0] == report["strategies"][-1]["name"]
    assert order[-1] == "frozen"
    assert "-6,172" in terminal(report, 120)


def test_table_marks_the_best_of_each_metric() -> None:
    """Exactly the best strategies of a metric carry the star; no-skill lines never do."""
    report = example()
    lines = terminal(report, 100).splitlines()
    starred = [line.split()[0] for line in lines if "*" in line and line.strip()[0] != "*"]
    assert starred == ["hybrid"]
    assert "no-skill lines" in terminal(report)


def test_table_shows_names_as_they_are() -> None:
    """A name that looks like markup is printed, not obeyed."""
    report = example(3, 1)
    report["strategies"][0]["name"] = "[bold red]x[/]"
    report["recommended"] = None
    assert "[bold red]x[/]" in terminal(report)


# ---- what the reader must know -----------------------------------------------------------------------------------


def test_a_no_skill_line_that_wins_is_said() -> None:
    """Where a no-skill line beats every strategy, table and page say so with both numbers."""
    report = example(60)
    assert [(b["name"], m["name"]) for b, m in reading.unbeaten(report)] == [("no_change", "accuracy")]
    sentence = reading.cautions(report)[0]
    assert words.score(report["baselines"][0]["scores"]["accuracy"]) in sentence
    assert sentence in "".join(Page(reports.html(report)).texts)
    report["baselines"][0]["scores"]["accuracy"] = 0.1
    assert reading.unbeaten(report) == []


def test_quarantine_abstention_and_notes_are_cautions() -> None:
    """Batches not learned, rows not answered and a strategy's notes are all said, with its name."""
    report = example(4, 1)
    report["baselines"] = []
    report["strategies"][0] |= {
        "abstained": 1200,
        "quarantined": [{"at": "2026-01-01T00:00:00Z", "reason": "nulls"}],
        "notes": ["naive continuation"],
    }
    assert reading.cautions(report) == [
        "frozen: 1 batch quarantined and never learned.",
        "frozen: no answer for 1,200 rows.",
        "frozen: naive continuation",
    ]


# ---- shortened series --------------------------------------------------------------------------------------------


def test_short_series_are_left_alone() -> None:
    """A series within the limit keeps each batch as it is."""
    data = example(30, 1)["strategies"][0]["series"]
    lines = series.compress(data)
    assert lines.each["accuracy"] == [float(f"{v:.5g}") for v in data["by_batch"]["accuracy"]]
    assert lines.start == lines.stop


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.floats(-5, 5)), max_size=90), st.integers(1, 40))
def test_shortening_keeps_rows_and_the_mean(batches: list[tuple[int, float | None]], points: int) -> None:
    """However it is shortened, rows add up, the row-weighted mean stays, and the last cumulative score is the last."""
    rows = [r for r, _ in batches]
    values = [v for _, v in batches]
    data = {
        "time": [f"2026-01-01T{i // 60:02d}:{i % 60:02d}:00Z" for i in range(len(rows))],
        "rows": rows,
        "by_batch": {"m": values},
        "cumulative": {"m": values},
    }
    lines = series.compress(data, points)
    assert len(lines.rows) == min(points, len(rows))
    assert sum(lines.rows) == sum(rows)
    if all(v is not None for v in values) and sum(rows):
        known = [(v, r) for v, r in zip(lines.each["m"], lines.rows, strict=True) if v is not None]
        mean = sum(v * r for v, r in known) / sum(rows)
        assert mean == pytest.approx(np.average([v or 0.0 for v in values], weights=rows), abs=1e-3)
    if lines.cumulative["m"]:
        last = next((v for v in reversed(values) if v is not None), None)
        assert lines.cumulative["m"][-1] == (None if last is None else pytest.approx(last, rel=1e-4))


def test_smoothing_is_weighted_and_leaves_a_constant_alone() -> None:
    """A constant score stays constant at the edges and over batches without rows or score."""
    n = 100
    data = {
        "time": [f"2026-01-{1 + i // 24:02d}T{i % 24:02d}:00:00Z" for i in range(n)],
        "rows": [0 if i % 7 == 0 else i + 1 for i in range(n)],
        "by_batch": {"m": [None if i % 5 == 0 else 0.25 for i in range(n)]},
        "cumulative": {"m": [0.25] * n},
    }
    assert set(series.compress(data).smooth["m"]) == {0.25}


def test_thinning_prefers_new_models_and_keeps_the_ends() -> None:
    """Of too many versions all new models stay while there is room, and the first and last always do."""
    versions = [{"kind": "fit" if i % 100 == 50 else "update"} for i in range(1000)]
    kept = series.thin(versions, 40)
    assert len(kept) == 40
    assert kept == sorted(set(kept))
    assert {0, 999} <= set(kept)
    assert {i for i in range(1000) if i % 100 == 50} <= set(kept)
    assert len(series.thin([{"kind": "fit"}] * 5000, 40)) == 40
    assert series.thin(versions[:40], 40) == list(range(40))


# ---- page --------------------------------------------------------------------------------------------------------


def test_page_is_small() -> None:
    """Ten strategies over a thousand batches make a page under 1.5 MB, and 45,000 batches make one no larger."""
    assert len(reports.html(example(1000, 10)).encode()) < 1_500_000
    assert len(reports.html(example(45_000, 2, rows=1)).encode()) < 1_500_000


def test_page_fetches_nothing() -> None:
    """No element names an address, and the policy in the page forbids fetching any."""
    page = reports.html(example())
    tags = Page(page).tags
    named = [(t, a) for t, a in tags if {"src", "href", "action", "data", "srcset", "style"} & set(a)]
    assert named == [("link", {"rel": "icon", "href": "data:,"})]
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z]", re.sub(r"(?m)^\s*//.*$", "", page))
    policy = next(a["content"] for t, a in tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_page_carries_hostile_text_as_text() -> None:
    """Names, reasons and settings that look like HTML, script or templates appear as text and add no element."""
    report = hostile()
    assert valid(report)
    page = reports.html(report)
    parsed = Page(page)
    assert [t for t, _ in parsed.tags].count("script") == 2
    assert "img" not in {t for t, _ in parsed.tags}
    assert not [a for _, attributes in parsed.tags for a in attributes if a.startswith("on")]
    assert "49" not in "".join(parsed.texts[:40])
    data = payload(page)
    assert data["strategies"][0]["name"] == report["strategies"][0]["name"]
    assert data["reasons"] == [HOSTILE]


def test_page_says_the_implicit_label_delay_in_bold() -> None:
    """An implicit label delay of zero is bold in the page, and absent where a delay was given."""
    report = example()
    assert "<strong>Labels: implicit delay of zero." in reports.html(report)
    report["data"] |= {"implicit_label_delay": False, "label_delay": "30min"}
    assert "implicit delay of zero" not in reports.html(report)


def test_page_survives_what_is_missing() -> None:
    """No strategies, no metrics, no series, infinite scores, no recommendation: still a page and a picture."""
    empty = example(3, 0)
    bare = example(3, 2)
    odd = example(5, 2)
    odd["strategies"][0]["scores"] = {"accuracy": float("nan"), "log_loss": float("inf"), "roc_auc": None}
    odd["strategies"][0]["series"]["by_batch"]["accuracy"] = [None] * 5
    odd["baselines"] = []
    odd["clairvoyant"] = odd["recommended"] = None
    without = copy.deepcopy(odd)
    without["metrics"] = []
    for report in (empty, odd, without):
        assert "No strategy is recommended" in reports.html(report)
        ElementTree.fromstring(reports.picture(report))
        terminal(report)
    assert payload(reports.html(odd))["strategies"][0]["scores"]["accuracy"] is None
    bare["evaluated"] |= {"first": None, "last": None, "rows": 0}
    for strategy in bare["strategies"]:
        nothing = {m: [] for m in strategy["scores"]}
        strategy |= {"series": {"time": [], "rows": [], "by_batch": nothing, "cumulative": nothing}, "versions": []}
    assert valid(bare)
    ElementTree.fromstring(reports.picture(bare))
    assert "It never trained." in reports.html(bare)


def test_page_caps_the_versions_and_says_so() -> None:
    """A strategy with many versions shows a capped table that names the full count."""
    page = reports.html(example(900))
    assert "40 of 900 versions" in page
    marks = {s["name"]: (len(s["marks"]), s["versions"]) for s in payload(page)["strategies"]}
    assert marks["stateful"] == (400, 900)
    assert marks["stateless 7d"] == (129, 129)


def test_lines_on_the_same_batches_share_their_instants() -> None:
    """The instants of batches are written once, however many strategies share them."""
    assert len(payload(reports.html(example(50)))["grids"]) == 1


# ---- picture -----------------------------------------------------------------------------------------------------


def test_picture_is_deterministic_and_well_formed() -> None:
    """The same report gives the same bytes of valid XML, names everyone, and fetches nothing."""
    report = example(300)
    text = reports.picture(report)
    assert text == reports.picture(copy.deepcopy(report))
    root = ElementTree.fromstring(text)
    said = " ".join(e.text or "" for e in root.iter() if e.tag.endswith("text"))
    for strategy in report["strategies"]:
        assert strategy["name"] in said
    assert "href" not in text
    assert "prefers-color-scheme:dark" in text


def test_picture_carries_hostile_names_as_text() -> None:
    """A name with markup or control characters stays text in the picture."""
    report = hostile()
    report["strategies"][0]["name"] = "a\x00\x08<b>" + HOSTILE
    report["recommended"] = None
    root = ElementTree.fromstring(reports.picture(report))
    assert {e.tag.split("}")[1] for e in root.iter()} <= {"svg", "style", "rect", "text", "line", "path", "g"}


@pytest.mark.parametrize("costs", [[0, 0, 0], [0, 1, 100], [1, 1.1, 1.2], [-5, 0, 900], [1e-6, 1, 1e9]])
def test_picture_places_any_cost(costs: list[float]) -> None:
    """Costs of nothing, negative money and costs many powers apart all lie inside the picture."""
    report = example(20, 3)
    for cost, strategy in zip(costs, report["strategies"], strict=True):
        strategy["costs"]["money"] = cost
    text = reports.picture(report)
    assert "nan" not in text
    for x in re.findall(r"translate\((-?[\d.]+) ", text):
        assert 0 < float(x) < 1200


# ---- looks -------------------------------------------------------------------------------------------------------


def _contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted([light(a), light(b)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_keep_their_contrast() -> None:
    """Every line's colour stands out 3:1 from the card it is drawn on, in light and dark."""
    assert min(_contrast(c, "#ffffff") for c in style.LIGHT) >= 3
    assert min(_contrast(c, "#1b1e23") for c in style.DARK) >= 3


def test_no_two_strategies_look_alike() -> None:
    """Up to 64 strategies differ in colour or shape, and neighbours differ in colour, shape and dash."""
    looks = [(i % style.COLOURS, style.shape(i)) for i in range(64)]
    assert len(set(looks)) == 64
    assert len({style.dash(i) for i in range(8)}) == len({style.shape(i) for i in range(8)}) == 8


# ---- advice ------------------------------------------------------------------------------------------------------


def test_advice_is_on_the_page_and_on_the_terminal() -> None:
    """Its sentences and every standing are on the page, what is tied on the terminal; a report without any has none."""
    report = example(60, 6)
    advice = report["advice"]
    page = reports.html(report)
    text = "".join(Page(page).texts)
    for sentence in advice["sentences"]:
        assert sentence in text
    assert page.count('class="range"') == len(advice["standings"])
    for x in re.findall(r'class="range".*?<path d="M([\d.]+) 8H([\d.]+)"|<circle cx="([\d.]+)"', page):
        assert all(0 <= float(place) <= 240 for place in x if place)
    assert f"Cannot be told apart from it: {advice['tied'][0]}" in " ".join(terminal(report, 200).split())
    older = {name: part for name, part in report.items() if name != "advice"}
    assert valid(older)
    assert 'class="range"' not in reports.html(older)
    assert "No significance test has been made." in reports.html(older)
    assert "resamples whole batches" in page


def test_another_price_is_on_the_terminal() -> None:
    """With prices, what the advice becomes."""
    report = example(60, 3)
    report["advice"] |= {"if_double": "frozen", "if_half": report["advice"]["strategy"], "notes": ["two were left out"]}
    told = " ".join(terminal(report, 200).split())
    assert "If a retrain costs twice as much: frozen; half as much: the same. Two were left out." in told
