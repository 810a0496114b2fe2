"""The dashboard of a real server in a real browser: every page and action, by mouse, by keyboard and without script.

Chromium is taken from ``PERENNIAL_CHROMIUM`` (default ``/usr/bin/chromium``); without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from perennial import cli
from perennial.core.times import instant
from perennial.ledger.sql import SqlLedger
from perennial.production import explain
from perennial.replay import report as reports
from perennial.server import tokens
from perennial.server.pages import served
from perennial.server.pages.chronicle import Chronicle
from tests.integration.dashboard_example import deploy
from tests.serving import serving
from tests.unit.replay.report_example import example as report_example

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
PAGES = {
    "deployment": "/ui/",
    "events": "/ui/?all=1",
    "versions": "/ui/versions",
    "champion": "/ui/versions/9.6",
    "rejected": "/ui/versions/6.8",
    "first": "/ui/versions/1.0",
    "evidence": "/ui/evidence",
    "data": "/ui/data",
    "feedback": "/ui/feedback",
    "backtests": "/ui/backtests",
    "report": "/ui/backtests/report",
    "day": "/ui/served-at?day=2026-11-03",
    "hour": "/ui/served-at?at=2026-11-03T15:00",
    "promote": "/ui/promote?version=8.5",
    "shares": "/ui/shares",
    "nowhere": "/ui/versions/99.9",
}
MISSING = {"nowhere"}
STANDARD = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}

browsers = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}: install it or set PERENNIAL_CHROMIUM"
)


Opener = Callable[..., Any]


# -- what is looked at ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a deployment with a history, and of a report of a backtest."""
    folder = tmp_path_factory.mktemp("dashboard") / "offers"
    deploy(folder)
    (folder / "report").mkdir()
    report = report_example(60)
    (folder / "report" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "report" / "report.html").write_text(reports.html(report), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(deployed: Path) -> Iterator[Any]:
    """A server of it that nobody changes anything with."""
    with serving(deployed / "perennial.yaml") as found:
        yield found


@pytest.fixture
def own(deployed: Path, tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """A server of a copy, and its folder."""
    folder = tmp_path / "own"
    shutil.copytree(deployed, folder)
    with serving(folder / "perennial.yaml") as found:
        yield found, folder


def opened_ledger(folder: Path) -> SqlLedger:
    """The ledger of a copy."""
    return SqlLedger.open(f"sqlite:///{folder}/ledger.db", "offers", blobs=folder / "blobs", create=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, started once."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page_of(browser: Any) -> Iterator[Opener]:
    """Opens a page of a server; afterwards nothing may be on the console, and nothing asked of another server."""
    heard: list[str] = []
    contexts: list[Any] = []
    expected: list[str] = []

    def opener(server: Any, path: str, *, width: int = 1280, fails: bool = False, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        if fails:  # the browser itself notes an answer that is none
            expected.append("Failed to load resource")
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda asked: None if asked.url.startswith(server.url) else heard.append(asked.url))
        page.goto(server.url + path)
        page.wait_for_load_state("networkidle")
        return page

    yield opener
    for context in contexts:
        context.close()
    assert [one for one in heard if not any(known in one for known in expected)] == []


# -- every page -------------------------------------------------------------------------------------------------------


@browsers
@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_it(server: Any, page_of: Opener, name: str) -> None:
    """Contrast, labels, roles and landmarks hold to WCAG AA in light and dark, at a desk and on a phone."""
    from axe_playwright_python.sync_playwright import Axe

    page = page_of(server, PAGES[name], color_scheme="light", fails=name in MISSING)
    colours = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}  # what the same width has not shown yet
    for width, scheme, rules in (
        (1280, "light", STANDARD), (1280, "dark", colours), (390, "dark", STANDARD), (390, "light", colours),
    ):  # fmt: skip
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)  # colours take their time to change
        found = Axe().run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") == width


@browsers
def test_navigation_reaches_every_page(server: Any, page_of: Opener) -> None:
    """Each entry of the navigation opens its page, which says that it is where one is."""
    page = page_of(server, "/")
    for name in ("Versions", "Evidence", "Data", "Feedback", "Backtests", "Deployment"):
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        page.wait_for_load_state("networkidle")
        assert page.get_by_role("navigation").locator("[aria-current=page]").inner_text() == name
        assert page.title() == f"{name} · offers"


@browsers
def test_the_toggle_wins_over_the_system(server: Any, page_of: Opener) -> None:
    """A chosen theme stays on the next page; a third press gives it back to the system."""
    page = page_of(server, "/ui/data", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Colours").click()
    light = page.evaluate(ground)
    assert light != dark
    page.goto(server.url + "/ui/feedback")
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Colours").click()
    page.get_by_role("button", name="Colours").click()
    assert page.get_by_role("button", name="Colours: as the system").count() == 1
    assert page.evaluate("localStorage.getItem('theme')") is None


# -- two clicks -------------------------------------------------------------------------------------------------------


@browsers
def test_why_is_this_version_live(server: Any, page_of: Opener) -> None:
    """One click from the first page: what fired, what it learned, what the gate found, who promoted it, and when."""
    page = page_of(server, "/ui/")
    page.get_by_role("link", name="Why is this version live?").click()
    told = page.locator("#why").inner_text()
    assert page.url.endswith("/ui/versions/9.6#why")
    for part in (
        "every 1d",
        "Updated from 9.5, on 60 rows.",
        "376 labels in 26 blocks",
        "0.00411 lower than",
        "by the run",
    ):
        assert part in told


@browsers
def test_what_served_on_tuesday_at_three(server: Any, page_of: Opener) -> None:
    """Two clicks from the first page; the answer is that of `perennial served-at`."""
    page = page_of(server, "/ui/")
    page.get_by_role("link", name="Tue 3 Nov").click()
    page.get_by_role("link", name="15", exact=False).filter(has_text="15").click()
    page.locator(".answer").wait_for()
    told = page.locator(".answer").inner_text()
    assert "On 3 Nov 2026, 15:00, 8.5 answered." in told
    assert "8.5 is promoted over 7.5" in told


@browsers
def test_a_click_into_the_picture_asks_the_same(server: Any, page_of: Opener) -> None:
    """Where the picture is clicked, the page tells who served then."""
    page = page_of(server, "/ui/")
    box = page.locator("#score .u-over").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.05, box["y"] + box["height"] / 3)
    page.locator(".answer").wait_for()
    assert "nothing answered" in page.locator(".answer").inner_text()
    assert "the initial period was not over" in page.locator(".answer").inner_text()
    page.mouse.click(box["x"] + box["width"] * 0.99, box["y"] + box["height"] / 3)
    page.locator(".answer", has_text="9.6").wait_for()


# -- pictures ---------------------------------------------------------------------------------------------------------


@browsers
def test_the_picture_marks_what_happened(server: Any, page_of: Opener) -> None:
    """Every promotion, rejection, roll back, quarantine and training is a mark; hovering over one tells its reason."""
    drawn = server.get("/ui/json/score")[1]
    kinds = [mark["what"] for mark in drawn["marks"]]
    assert {"promoted", "trained", "rejected", "rolled back", "quarantined"} == set(kinds)
    assert kinds.count("promoted") == 8
    assert len(drawn["t"]) == len(drawn["mean"]) <= 1000
    page = page_of(server, "/ui/")
    back = next(mark for mark in drawn["marks"] if mark["what"] == "rolled back")
    share = (back["t"] - drawn["t"][0]) / (drawn["t"][-1] - drawn["t"][0])
    box = page.locator("#score .u-over").bounding_box()
    page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] - 30)
    tip = page.locator("#score .tip")
    assert "2.8 rolled back" in tip.inner_text()
    assert "the shop saw odd offers" in tip.inner_text()


@browsers
def test_a_shorter_span_is_drawn_finer(server: Any, page_of: Opener) -> None:
    """Seven days are seven days, in buckets of their own."""
    page = page_of(server, "/ui/")
    with page.expect_response("**/ui/json/score?span=7d") as answer:
        page.get_by_role("button", name="7 days").click()
    drawn = answer.value.json()
    assert drawn["t"][-1] - drawn["t"][0] <= 7 * 86400
    assert page.get_by_role("button", name="7 days").get_attribute("aria-pressed") == "true"


@browsers
def test_evidence_shows_the_comparison(server: Any, page_of: Opener) -> None:
    """The trial that goes on, in words and as a picture; older ones are a click away."""
    page = page_of(server, "/ui/evidence")
    assert "10.1 against 9.6" in page.locator("#trial").inner_text()
    assert page.locator("#evidence-chart canvas").count() == 1
    page.get_by_role("link", name="6.8 against 5.3").click()
    page.wait_for_load_state("networkidle")
    assert "rejected" in page.locator("#trial").inner_text()
    assert "proven worse" in page.locator("#trial").inner_text()
    drawn = page.evaluate("fetch(document.getElementById('evidence-chart').dataset.json).then((one) => one.json())")
    assert drawn["lower"][-1] > 0
    assert drawn["margin"] == 0.01


@browsers
def test_lineage_leads_to_every_version(server: Any, page_of: Opener) -> None:
    """Nodes are links with names; champion, challenger and previous are told apart."""
    page = page_of(server, "/ui/versions")
    assert page.locator(".lineage .champion text").text_content() == "9.6"
    assert page.locator(".lineage .challenger text").text_content() == "10.1"
    assert page.locator(".lineage .previous text").text_content() == "8.5"
    page.get_by_role("link", name="6.8: rejected").click()
    assert page.locator("h1").inner_text() == "6.8"
    assert "Why is this version not live?" in page.locator("#why-title").inner_text()
    page.goto(server.url + "/ui/versions?number=2.12")
    assert page.url.endswith("/ui/versions/2.12")


@browsers
def test_a_report_is_shown_in_a_sandbox(server: Any, page_of: Opener) -> None:
    """The report draws in its frame, and has no origin: nothing of ours is within its reach."""
    page = page_of(server, "/ui/backtests")
    assert page.locator(".cost .point").count() == 6
    page.get_by_role("link", name="The whole report").click()
    page.wait_for_load_state("networkidle")
    frame = page.frames[1]
    assert frame.locator("#time .line").count() == 6
    assert frame.evaluate("self.origin") == "null"
    assert server.get("/ui/backtests/..%2F..%2Fetc/report.html")[0] == 404
    assert server.get("/ui/backtests/rows/report.html")[0] == 404


# -- actions ----------------------------------------------------------------------------------------------------------


@browsers
def test_promote_and_roll_back(own: tuple[Any, Path], page_of: Opener) -> None:
    """Both ask first, both keep who and why, and the page tells that the run has yet to heed it."""
    server, folder = own
    page = page_of(server, "/ui/versions/7.5")
    page.get_by_role("button", name="Promote").click()
    page.get_by_role("dialog").wait_for()
    page.get_by_label("Why?").fill(HOSTILE)
    page.get_by_role("button", name="Promote 7.5").click()
    page.wait_for_load_state("networkidle")
    assert page.get_by_role("status").inner_text() == "7.5 is champion."
    assert page.locator("#champion-number").inner_text() == "7.5"
    assert "9.6 answers until the run takes its next turn" in page.locator("#cards").inner_text()
    with opened_ledger(folder) as ledger:
        moved = ledger.alias("champion")
        assert (moved.version, moved.actor, moved.reason) == ("7.5", "dashboard", HOSTILE)
        assert ledger.alias("previous").version == "9.6"
    page.goto(server.url + "/ui/versions/7.5")
    assert HOSTILE in page.locator("#why").inner_text()
    assert page.evaluate("window.hacked") is None
    page.goto(server.url + "/ui/")
    page.get_by_role("button", name="Roll back to 9.6").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back to 9.6").click()
    page.wait_for_load_state("networkidle")
    assert page.locator("#champion-number").inner_text() == "9.6"
    with opened_ledger(folder) as ledger:
        assert ledger.alias("champion").reason == "roll back from 7.5"
    assert cli.main(["run", "--once", "-c", str(folder / "perennial.yaml")]) == 0
    page.locator("#cards").filter(has_not_text="answers until").wait_for()


@browsers
def test_shares_of_traffic(own: tuple[Any, Path], page_of: Opener) -> None:
    """Canary and shadow are set on the challenger's pointer; what is no share is refused in words."""
    server, folder = own
    page = page_of(server, "/ui/")
    page.get_by_role("button", name="Shares of traffic").click()
    page.get_by_label("Canary").fill("5")
    page.get_by_label("Shadow").fill("40")
    page.get_by_label("Why?").fill("a careful start")
    page.get_by_role("button", name="Set shares").click()
    page.wait_for_load_state("networkidle")
    assert "answers 5 % of requests" in page.locator("#cards").inner_text()
    with opened_ledger(folder) as ledger:
        pointer = ledger.alias("challenger")
        assert (pointer.version, pointer.canary, pointer.shadow) == ("10.1", 0.05, 0.4)
        assert pointer.reason == "a careful start"
    for wrong in ({"canary": "140", "shadow": "0"}, {"canary": "some", "shadow": "0"}):
        assert post(server, "/ui/shares", wrong)[0] == 422


@browsers
def test_the_keyboard_is_enough(own: tuple[Any, Path], page_of: Opener) -> None:
    """Tab reaches the buttons, Enter and Space open the dialog, Escape closes it and gives the focus back."""
    server, folder = own
    page = page_of(server, "/ui/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "rollback":
            break
    for key in ("Enter", "Space"):
        page.keyboard.press(key)
        page.get_by_role("dialog").wait_for()
        assert page.evaluate("document.activeElement.id") == "reason"
        page.keyboard.press("Escape")
        assert page.get_by_role("dialog").count() == 0
        assert page.evaluate("document.activeElement.id") == "rollback"
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    page.get_by_role("status").wait_for()
    with opened_ledger(folder) as ledger:
        assert ledger.alias("champion").reason == "by keyboard"


@browsers
def test_it_works_without_script(own: tuple[Any, Path], page_of: Opener) -> None:
    """Links lead to pages and forms are sent as forms: reading, asking and acting need no JavaScript."""
    server, folder = own
    page = page_of(server, "/ui/", java_script_enabled=False)
    page.get_by_role("link", name="Tue 3 Nov").click()
    page.get_by_role("link", name="15 8.5").click()
    assert "8.5 answered" in page.locator(".answer").inner_text()
    page.goto(server.url + "/ui/versions/8.5")
    page.get_by_role("button", name="Promote").click()
    assert page.url.endswith("/ui/promote?version=8.5")
    page.get_by_label("Why?").fill("without script")
    page.get_by_role("button", name="Promote 8.5").click()
    assert page.locator("#champion-number").inner_text() == "8.5"
    with opened_ledger(folder) as ledger:
        assert ledger.alias("champion").reason == "without script"


@browsers
def test_what_changes_is_shown_by_itself(own: tuple[Any, Path], page_of: Opener) -> None:
    """A word that is given elsewhere reaches an open page, which loses neither its place nor the focus."""
    server, folder = own
    page = page_of(server, "/ui/")
    page.evaluate("window.kept = true")
    page.locator("#why").focus()
    assert cli.main(["promote", "3.5", "-c", str(folder / "perennial.yaml"), "--reason", "elsewhere"]) == 0
    page.locator("#champion-number", has_text="3.5").wait_for()
    assert page.evaluate("window.kept")
    assert page.evaluate("document.activeElement.id") == "why"


# -- who may ----------------------------------------------------------------------------------------------------------


def post(server: Any, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and text of a form that is sent; redirects are not followed."""
    body = urllib.parse.urlencode(fields).encode()
    request = urllib.request.Request(server.url + path, data=body, headers=headers or {}, method="POST")
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *about: Any) -> None:
        """Take the redirect as the answer."""


@pytest.mark.parametrize("path", ["/ui/promote", "/ui/rollback", "/ui/shares"])
def test_other_sites_change_nothing(server: Any, deployed: Path, path: str) -> None:
    """A form that a page of another site sends is refused, whatever it says of itself."""
    fields = {"version": "1.0", "canary": "1", "shadow": "1"}
    with opened_ledger(deployed) as ledger:
        before = ledger.alias_history()
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site", "Origin": server.url},
            {"Host": "evil.example"},
        ):
            assert post(server, path, fields, headers)[0] == 403
        assert ledger.alias_history() == before


def test_a_wrong_version_is_told(server: Any) -> None:
    """What is not there, is champion already, or was overtaken, is said in words, and nothing is done."""
    assert post(server, "/ui/promote", {"version": "99.9"})[0] == 404
    status, text = post(server, "/ui/promote", {"version": "9.6"})
    assert status == 422
    assert "it is champion already" in text
    status, text = post(server, "/ui/rollback", {"version": "7.5"})
    assert status == 409
    assert "somebody moved the champion" in text


@browsers
def test_tokens_say_who_may(deployed: Path, tmp_path: Path, page_of: Opener) -> None:
    """Nobody reads without a token; one that reads sees no buttons and can do nothing; an operator's name is kept."""
    folder = tmp_path / "guarded"
    shutil.copytree(deployed, folder)
    file, now = folder / "tokens.yaml", datetime.now(UTC)
    (reader, of_reader), (operator, of_operator) = (
        tokens.make("reader", ["read"], now=now),
        tokens.make("operator", ["read", "operate"], now=now),
    )
    tokens.write(file, [of_reader, of_operator])
    with serving(folder / "perennial.yaml", "--token-file", str(file)) as server:
        page = page_of(server, "/ui/evidence", fails=True)
        assert page.url.startswith(server.url + "/ui/login")
        page.get_by_label("Token").fill("nonsense")
        page.get_by_role("button", name="Sign in").click()
        assert "unknown, expired or revoked" in page.get_by_role("alert").inner_text()
        page.get_by_label("Token").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        page.goto(server.url + "/ui/")
        assert page.get_by_role("button", name="Promote").count() == 0
        assert "signed in as reader" in page.locator("footer").inner_text()
        assert page.goto(server.url + "/ui/rollback").status == 403
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").fill(operator)
        page.get_by_role("button", name="Sign in").click()
        page.goto(server.url + "/ui/")
        cookie = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
        assert post(server, "/ui/rollback", {}, {"Cookie": cookie, "Origin": server.url})[0] == 403
        page.get_by_role("button", name="Roll back to 8.5").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back to 8.5").click()
        page.get_by_role("status").wait_for()
        assert page.locator("#champion-number").inner_text() == "8.5"
        page.context.close()  # before the server ends: an open page would ask it in vain, and say so
    with opened_ledger(folder) as ledger:
        assert ledger.alias("champion").actor == "operator"


# -- nothing to show --------------------------------------------------------------------------------------------------


@browsers
def test_empty_pages_say_what_to_do_next(deployed: Path, tmp_path: Path, page_of: Opener) -> None:
    """Before there is a ledger, and before there is a version, every page opens and names the next step."""
    folder = tmp_path / "empty"
    (folder / "rows").mkdir(parents=True)
    config = folder / "perennial.yaml"
    text = (deployed / "perennial.yaml").read_text(encoding="utf-8")
    config.write_text(text.replace("initial: 5d", "initial: 500d"), encoding="utf-8")
    with serving(config, ready=False) as server:
        page = page_of(server, "/ui/", fails=True)
        assert "perennial run" in page.locator("main").inner_text()
        shutil.copy(deployed / "rows" / "0.parquet", folder / "rows")
        assert cli.main(["run", "--once", "-c", str(config)]) == 0
        for path in ("/ui/", "/ui/versions", "/ui/evidence", "/ui/data", "/ui/feedback", "/ui/backtests"):
            assert page.goto(server.url + path).status == 200
            page.wait_for_load_state("networkidle")
        page.goto(server.url + "/ui/")
        assert "no version is trained yet: initial period" in page.locator("#cards").inner_text()
        page.goto(server.url + "/ui/backtests")
        assert "perennial backtest" in page.locator("main").inner_text()


# -- the same as the command line says --------------------------------------------------------------------------------


def test_the_pages_and_the_commands_agree(deployed: Path) -> None:
    """Who served when, and why, is what `perennial served-at` says, for instants all over the history."""
    with opened_ledger(deployed) as ledger:
        told, history = Chronicle(ledger), explain.History.read(ledger)
        told.catch_up()
        mine = [told.stretches[i] for i in range(len(told.stretches))]
        theirs = explain.services(history)
        assert [(s.version, s.start, s.end, s.rows, s.turn) for s in mine] == [
            (s.version, s.start, s.end, s.rows, s.turn) for s in theirs
        ]
        first, last = mine[0].start, instant(datetime(2026, 11, 20, tzinfo=UTC))
        moves = ledger.alias_history("champion")
        for at in range(first, last, (last - first) // 97):
            stretch = told.stretches.at(at)
            assert stretch is not None
            entry = next(iter(ledger.entries(stretch.turn, stretch.turn + 1)))
            answer = served.answer(told, at, stretch, entry, moves)
            known = explain.served_at(history, at)
            assert (answer.version, answer.actor) == (known["version"], known["actor"])
            assert known["why"].startswith(answer.why)
        assert told.versions == len(history.versions)
        assert told.joined == sum(entry.loss.n for entry in history.entries)


def test_reading_on_is_reading_anew(deployed: Path) -> None:
    """A chronicle that follows turn by turn knows what one that reads them all at once does."""

    class Slowly:
        """A ledger that shows a few more turns each time."""

        def __init__(self, ledger: SqlLedger) -> None:
            self.ledger, self.upto = ledger, 0

        def entries(self, since: int) -> Any:
            self.upto += 17
            return self.ledger.entries(since, self.upto)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.ledger, name)

    with opened_ledger(deployed) as ledger:
        whole, slow = Chronicle(ledger), Chronicle(Slowly(ledger))  # type: ignore[arg-type]
        whole.catch_up()
        while slow.turn < whole.turn:
            slow.catch_up()
        assert list(slow.events) == list(whole.events)
        assert slow.series["all"].read() == whole.series["all"].read()
        assert slow.trials == whole.trials
        assert slow.lines == whole.lines
        assert slow.label_delay() == whole.label_delay() == pytest.approx(12 * 3600, abs=2)
