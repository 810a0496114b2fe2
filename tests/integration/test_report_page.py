"""The report page in a real browser: it draws, answers mouse and keyboard, and says nothing on the console.

Chromium is taken from ``PERENNIAL_CHROMIUM`` (default ``/usr/bin/chromium``); without it these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perennial.replay import report as reports

CHROMIUM = os.environ.get("PERENNIAL_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"

#: the lowest contrast of any element with text of its own, and that element; large headings and dots are exempt
WORST_CONTRAST = """() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => {
    const [r, g, b] = parts(c).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (parts(c).length < 4 || parts(c)[3] === 1) return c;
    }
  };
  let worst = [99, ""];
  for (const e of document.querySelectorAll("main *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest("h1") || e.closest(".dot")) continue;
    const colour = e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color;
    const [a, b] = [light(colour), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
  }
  return worst;
}"""

pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}: install it or set PERENNIAL_CHROMIUM"
)

_SPEC = importlib.util.spec_from_file_location(
    "report_example", Path(__file__).parents[1] / "unit" / "replay" / "report_example.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
example = _MODULE.example

Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Opener]:
    """Opens a report; afterwards no console message, error or request beside the file itself may have come."""
    heard: list[str] = []
    contexts: list[Any] = []

    def opener(report: dict[str, Any], width: int = 1280, **options: Any) -> Any:
        path = tmp_path / "report.html"
        path.write_text(reports.html(report), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else heard.append(request.url),
        )
        page.goto(path.as_uri())
        return page

    yield opener
    for context in contexts:
        context.close()
    assert heard == []


def test_draws_every_line_and_point(opened: Opener) -> None:
    """Each strategy has a line, a lane of versions and a point; lines without skill are dashed."""
    page = opened(example(90))
    assert page.locator("#time .line").count() == 6
    assert page.locator("#time .lane").count() == 6
    assert page.locator("#scatter g[tabindex]").count() == 6
    assert page.locator("#time .base").count() == 3
    assert page.locator("html").get_attribute("lang") == "en"
    assert "stateful" in page.locator("h1").inner_text()


def test_metric_view_and_legend_change_the_picture(opened: Opener) -> None:
    """Another metric, another view and a line switched off each redraw the picture."""
    page = opened(example(90))
    line = page.locator("#time .line").first
    seen = {line.get_attribute("d")}
    page.select_option("#metric", label="log loss")
    assert "Log loss (lower is better)" in page.locator("#time").text_content()
    seen.add(line.get_attribute("d"))
    for view in ("Per batch", "Cumulative"):
        page.get_by_label(view, exact=True).check()
        seen.add(line.get_attribute("d"))
    assert len(seen) == 4
    button = page.get_by_role("button", name="mix 30/70")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.locator("#time .line").count() == 5
    page.select_option("#cost", label="Rows trained")
    assert "Rows trained" in page.locator("#scatter").text_content()


def test_hover_tells_scores_and_versions(opened: Opener) -> None:
    """The pointer over the plot tells every score there; over a lane it tells the version and why it was trained."""
    page = opened(example(90))
    page.locator("#time").scroll_into_view_if_needed()
    box = page.locator("#time").bounding_box()
    page.mouse.move(box["x"] + 500, box["y"] + 150)
    tip = page.locator("#time .tip")
    assert tip.is_visible()
    assert "stateless 7d" in tip.inner_text()
    lane = page.locator("#time .lane").nth(1).bounding_box()
    page.mouse.move(lane["x"] + lane["width"] / 2, lane["y"] + lane["height"] / 2)
    assert "New model" in tip.inner_text()
    assert "7d since the last training" in tip.inner_text()


def test_keyboard_reaches_what_the_mouse_does(opened: Opener) -> None:
    """Arrow keys walk along scores and versions and speak them; points of the scatter take the focus."""
    page = opened(example(90))
    page.locator("#time").focus()
    spoken = page.locator("[aria-live]")
    page.keyboard.press("ArrowRight")
    first = spoken.text_content()
    page.keyboard.press("ArrowRight")
    assert "accuracy" not in first
    assert "hybrid 0." in first
    assert spoken.text_content() != first
    page.keyboard.press("ArrowDown")
    assert "frozen version 1.0" in spoken.text_content()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "stateless 7d version 2.0" in spoken.text_content()
    page.locator("#scatter g[tabindex]").first.focus()
    assert page.locator("#scatter .tip").is_visible()


def test_table_sorts_by_every_heading(opened: Opener) -> None:
    """A heading sorts its column best first, again reversed, and tells the order to screen readers."""
    page = opened(example(90))

    def column(index: int) -> list[float]:
        cells = page.locator(f"#strategies tbody:first-of-type tr > :nth-child({index + 1})")
        return [float(v) for v in cells.evaluate_all("cells => cells.map(c => c.dataset.v)")]

    heads = page.locator("#strategies thead th")
    for index in range(1, heads.count()):
        heads.nth(index).locator("button").click()
        down = heads.nth(index).get_attribute("aria-sort") == "descending"
        assert column(index) == sorted(column(index), reverse=down)
        heads.nth(index).locator("button").click()
        assert column(index) == sorted(column(index), reverse=not down)
    assert page.locator("#strategies [aria-sort]").count() == 1
    assert page.locator("#strategies .lines tr").count() == 5


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_sticks_out(opened: Opener, width: int) -> None:
    """From a phone to a desk, the page itself never scrolls sideways, even with very long names."""
    report = example(60)
    report["strategies"][0]["name"] = "a_strategy_with_a_name_that_nobody_should_give_" * 3
    report["data"]["name"] = "electricity_" * 20
    page = opened(report, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(opened: Opener, scheme: str) -> None:
    """All small text stands out 4.5:1 from its ground in light and dark."""
    page = opened(example(30), color_scheme=scheme)
    worst = page.evaluate(WORST_CONTRAST)
    assert worst[0] >= 4.5, worst


def test_hostile_names_do_nothing(opened: Opener) -> None:
    """Names and reasons that look like script stay text in every table, legend and tooltip."""
    report = example(20, 2)
    report["metrics"][0]["name"] = HOSTILE
    for strategy in report["strategies"]:
        strategy["name"] += HOSTILE
        strategy["scores"][HOSTILE] = strategy["scores"]["accuracy"]
        strategy["series"]["by_batch"][HOSTILE] = strategy["series"]["by_batch"]["accuracy"]
        strategy["series"]["cumulative"][HOSTILE] = strategy["series"]["cumulative"]["accuracy"]
        for version in strategy["versions"]:
            version["reason"] = HOSTILE
    report["recommended"] = None
    page = opened(report)
    page.locator("#time").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    page.locator("#scatter g[tabindex]").first.focus()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("#legend").text_content()
    assert HOSTILE in page.locator("#time .tip").text_content()


def test_works_with_nothing_to_draw(opened: Opener) -> None:
    """A report without strategies, and one without metrics, open without an error."""
    opened(example(5, 0))
    report = example(5, 2)
    report["metrics"] = []
    report["recommended"] = None
    opened(report)


def test_tables_stand_without_script_and_on_paper(opened: Opener) -> None:
    """Without JavaScript the tables are whole; printed, the page has no controls and is light."""
    page = opened(example(30), java_script_enabled=False)
    assert page.locator("#strategies tbody").first.locator("tr").count() == 6
    assert "The pictures need JavaScript" in page.content()
    page = opened(example(30), color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator(".controls").first.is_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")
