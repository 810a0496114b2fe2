"""The views of the dashboard: from facts to what a page shows, without a ledger, a server or a browser."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from perennial.core.records import Decision, Loss, Verdict, Version
from perennial.ledger.records import ALIASES, Alias, Entry, Saved
from perennial.replay import report as reports
from perennial.replay.report import reading
from perennial.server.pages import (
    backtests,
    chronicle,
    data,
    deployment,
    evidence,
    feedback,
    lineage,
    served,
    versions,
    words,
)
from perennial.server.pages.chronicle import Chronicle
from perennial.server.pages.rendering import rendered
from perennial.server.pages.series import Series
from perennial.server.pages.words import Times
from tests.unit.replay.report_example import example

HOUR = 3_600_000_000
UTC = Times("UTC")


def saved(number: str, *, parent: str | None = None, at: int = 0, reason: str = "every 1d") -> Saved:
    """A version that was trained."""
    major, minor = map(int, number.split("."))
    version = Version(
        major=major, minor=minor, parent=parent, kind="update" if minor else "fit", at=at, ready_at=at, trained_rows=60,
        row_trees=0, first=0, last=59, newest=at, data="", key=None, reason=reason,
    )  # fmt: skip
    return Saved(version=version, blob="b", state="s", size=1000, cpu_seconds=0.5)


def verdict(number: str, outcome: Any, *, trial: int = 1, mean: float | None = -0.02, rows: int = 100) -> Verdict:
    """What the gate said of it."""
    facts: dict[str, Any] = {"trial": trial, "margin": 0.01}
    if mean is not None:
        facts |= {
            "rows": rows, "blocks": 9, "least_blocks": 8, "block": "6h", "mean": mean, "lower": mean - 0.03,
            "upper": mean + 0.02, "alpha": 0.05, "planned_labels": 400, "waited": "2d",
        }  # fmt: skip
    return Verdict(outcome=outcome, version=number, reason=f"{outcome} {number}", champion="1.0", evidence=facts)


def lost(n: int, total: float) -> Loss:
    """Losses of n labels."""
    return Loss(n=n, total=total, name="log_loss")


class Turns:
    """A ledger of entries that are written down here."""

    def __init__(self) -> None:
        self.all: list[Entry] = []

    def add(self, **about: Any) -> None:
        """One more turn, an hour after the one before."""
        turn = len(self.all)
        about = {"kind": "batch", "now": turn * HOUR, "first": 10 * turn, "rows": 10} | about
        self.all.append(Entry(turn=turn, position="", checkpoint="", **about))

    def entries(self, since: int = 0, until: int | None = None) -> list[Entry]:
        """Those from one on."""
        return self.all[since:until]

    def committed(self, since: int = 0) -> dict[int, int]:
        """A second of the wall for each turn."""
        return {entry.turn: entry.turn * 1_000_000 for entry in self.all[since:]}


def told(turns: Turns) -> Chronicle:
    """What the pages know of these turns."""
    out = Chronicle(turns)  # type: ignore[arg-type]
    out.catch_up()
    return out


def pointers(champion: str | None = None, challenger: str | None = None, previous: str | None = None) -> Any:
    """Where champion, challenger and previous point."""
    named = dict(zip(ALIASES, (champion, challenger, previous), strict=True))
    return {name: Alias(alias=name, version=version, generation=1, at=HOUR) for name, version in named.items()}


@pytest.fixture
def turns() -> Turns:
    """A first version, a challenger that is promoted, one that is rejected, a roll back, a quarantine."""
    out = Turns()
    out.add(decisions=(Decision(False, "initial period until then"),))
    first = Verdict(outcome="promote", version="1.0", reason="first")
    out.add(versions=(saved("1.0", at=HOUR),), serving="1.0", verdicts=(first,))
    tried = (verdict("2.0", "keep", mean=None),)
    out.add(versions=(saved("2.0", parent="1.0", at=2 * HOUR),), serving="1.0", loss=lost(10, 5.0), verdicts=tried)
    watched = (verdict("2.1", "keep", rows=50),)
    out.add(versions=(saved("2.1", parent="2.0", at=3 * HOUR),), serving="1.0", verdicts=watched)
    out.add(serving="2.1", verdicts=(verdict("2.1", "promote"),), loss=lost(10, 2.0))
    worse = (verdict("3.0", "reject", trial=2, mean=0.09),)
    out.add(versions=(saved("3.0", parent="2.1", at=5 * HOUR),), serving="2.1", verdicts=worse)
    out.add(serving="2.1", quarantined="column 'age' is 100% null")
    out.add(kind="operator", rows=0, first=-1, serving="1.0", decisions=(Decision(True, "1.0 made champion: ann"),))
    return out


# -- the chronicle ----------------------------------------------------------------------------------------------------


def test_what_happened_in_order(turns: Turns) -> None:
    """Each thing that a person wants to see is told once, with its reason."""
    events = [(event.what, event.version, event.reason) for event in told(turns).events]
    assert events == [
        ("trained", "1.0", "every 1d"),
        ("promoted", "1.0", "first"),
        ("trained", "2.0", "every 1d"),
        ("promoted", "2.1", "promote 2.1"),
        ("trained", "3.0", "every 1d"),
        ("rejected", "3.0", "reject 3.0"),
        ("quarantined", None, "column 'age' is 100% null"),
        ("rolled back", "1.0", "1.0 made champion: ann"),
    ]


def test_a_trigger_that_waits_is_told_once() -> None:
    """One that fires turn after turn and trains nothing yet is one event, until it was quiet between."""
    turns = Turns()
    for fire in (True, True, False, True):
        turns.add(decisions=(Decision(fire, "regret above 1"),))
    assert [(event.what, event.turn) for event in told(turns).events] == [("trigger", 0), ("trigger", 3)]


def test_who_answered_when(turns: Turns) -> None:
    """Stretches are half-open and without gaps; before the first nobody answered."""
    found = told(turns).stretches
    assert [(s.version, s.start, s.end) for s in (found[i] for i in range(len(found)))] == [
        ("1.0", HOUR, 4 * HOUR),
        ("2.1", 4 * HOUR, 7 * HOUR),
        ("1.0", 7 * HOUR, None),
    ]
    assert found.at(HOUR - 1) is None
    assert found.at(4 * HOUR - 1).version == "1.0"  # type: ignore[union-attr]
    assert found.at(4 * HOUR).version == "2.1"  # type: ignore[union-attr]
    assert [s.turn for s in found.of("1.0")] == [1, 7]
    assert [s.version for s in found.between(2 * HOUR, 5 * HOUR)] == ["1.0", "2.1"]


def test_a_long_history_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates, points of a picture and looks at a trial are bounded; the sums over them are not cut."""
    monkeypatch.setattr(chronicle, "UPDATES_KEPT", 20)
    monkeypatch.setattr(chronicle, "LOOKS_KEPT", 16)
    turns = Turns()
    turns.add(versions=(saved("1.0"),), serving="1.0")
    for i in range(1, 1500):
        version = saved(f"1.{i}", parent=f"1.{i - 1}", at=i * HOUR)
        keep = verdict(f"1.{i}", "keep", rows=i)
        turns.add(versions=(version,), serving=f"1.{i}", loss=lost(2, 1.0), verdicts=(keep,))
    found = told(turns)
    assert len(found.briefs) == 21
    assert found.versions == 1500
    assert found.lines[1].updates == 1499
    assert len(found.scores) <= 22
    buckets = found.series["all"].read()
    assert len(buckets) <= 1000
    assert sum(bucket.scored for _, bucket in buckets) == found.joined == 2998
    looks = found.trials[1].looks
    assert len(looks) <= 17
    assert looks[-1].rows == 1499
    assert len({later.rows - look.rows for look, later in pairwise(looks[:-1])}) == 1  # thinned evenly
    assert versions.listing(found, pointers("1.1499")).rows[0].status == "champion"
    assert versions.listing(found, pointers("1.1499")).collapsed == 1479


def test_label_to_live_is_told_by_the_wall() -> None:
    """From when labels were received to the commit with which a version that learned them answers."""
    turns = Turns()
    turns.add(versions=(saved("1.0"),), serving="1.0")
    one = saved("1.1", parent="1.0")
    labels = {"rows": 3, "newest_known_at": 400_000, "median_known_at": 250_000}
    turns.add(
        versions=(Saved(version=one.version, blob="", state="", size=1, facts={"labels": labels}),), serving="1.1"
    )
    assert told(turns).label_to_live() == 0.75


def test_a_span_forgets_what_is_before_it() -> None:
    """A series of a span has buckets of one width, and none that are older."""
    series = Series(span=100, points=10)
    for at in range(0, 500, 5):
        series.at(at).rows += 1
    assert [start for start, _ in series.read()] == list(range(400, 500, 10))
    series.at(3).rows += 1
    assert sum(bucket.rows for _, bucket in series.read()) == 20


# -- the first page ---------------------------------------------------------------------------------------------------


def test_the_first_page(turns: Turns) -> None:
    """Champion with its score, whether the run heeded it, and where a roll back would go."""
    page = deployment.overview(told(turns), pointers("2.1", None, "1.0"), times=UTC, delay=7200.0, fresh=1.25)
    assert page.champion is not None
    assert (page.champion.number, page.champion.mean, page.champion.scored) == ("2.1", 0.2, 10)
    assert (page.champion.heeded, page.champion.serving, page.champion.previous) == (False, "1.0", "1.0")
    shown = {tile.name: tile.value for tile in page.tiles}
    assert shown["Label delay"] == "2 h"
    assert shown["Label to live"] == "1.2 s"
    assert shown["Mean log loss"] == "0.3500"


def test_an_empty_page_says_what_is_missing() -> None:
    """Before a row, and before a version."""
    turns = Turns()
    assert "perennial run" in deployment.overview(told(turns), pointers(), times=UTC).wait
    turns.add(decisions=(Decision(False, "initial period until 5 Sep"),))
    assert (
        deployment.waits(told(turns))
        == "10 rows were taken, and no version is trained yet: initial period until 5 Sep."
    )


def test_the_picture(turns: Turns) -> None:
    """Every bucket has a mean or none, and lines that answered are one stretch each."""
    drawn = deployment.picture(told(turns), "all")
    assert drawn["mean"][2:5] == [0.5, None, 0.2]
    assert [(one["first"], one["last"]) for one in drawn["live"]] == [("1.0", "1.0"), ("2.1", "2.1"), ("1.0", "1.0")]
    assert json.loads(json.dumps(drawn)) == drawn


# -- versions ---------------------------------------------------------------------------------------------------------


def why(turns: Turns, number: str, champion: str, moves: list[Alias]) -> dict[str, str]:
    """The answer that a version's page gives."""
    verdicts = [one for entry in turns.all for one in entry.verdicts if one.version == number]
    version = next(one for entry in turns.all for one in entry.versions if one.version.number == number)
    page = versions.page(told(turns), pointers(champion), version, verdicts=verdicts, moves=moves, times=UTC)
    return {reason.name: reason.told for reason in page.why}


MOVES = [
    Alias(alias="champion", version="1.0", generation=1, reason="first", actor="run", at=HOUR),
    Alias(alias="champion", version="2.1", generation=2, reason="promote 2.1", actor="run", at=4 * HOUR),
    Alias(alias="champion", version="1.0", generation=3, reason="odd offers", actor="ann", at=7 * HOUR),
]


def test_why_a_version_is_live(turns: Turns) -> None:
    """Who had it so comes from the pointer; a version that was champion twice tells the last time."""
    said = why(turns, "1.0", "1.0", MOVES)
    assert said["What fired"] == "every 1d"
    assert said["Who promoted it"] == "Made champion by ann: odd offers."
    assert said["What it answered"] == "30 rows, and it still does."


def test_why_a_version_is_live_no_longer(turns: Turns) -> None:
    """The gate's numbers in words, and who took it away."""
    said = why(turns, "2.1", "1.0", MOVES)
    assert said["What it learned"] == "Updated from 2.0, on 60 rows."
    assert said["On what evidence"].startswith(
        "On 100 labels in 9 blocks, the mean log loss of 2.1 was 0.02 lower than"
    )
    assert said["Why no longer"] == "It gave way to 1.0, by ann: odd offers"


def test_why_a_version_never_was(turns: Turns) -> None:
    """Turned down, or overtaken by the line's own next update."""
    assert why(turns, "3.0", "1.0", MOVES)["Why not live"] == "The gate turned it down."
    assert "2.1 came after it" in why(turns, "2.0", "1.0", MOVES)["Why not live"]


def test_lineage_joins_children_to_parents(turns: Turns) -> None:
    """A row for each line, the newest above, an edge for each parent, runs of updates as one."""
    drawn = lineage.graph(told(turns), {"champion": "1.0", "previous": "2.1"})
    assert [(node.number, node.status) for node in drawn.nodes] == [
        ("3.0", "rejected"),
        ("2.0", "quiet"),
        ("2.1", "previous"),
        ("1.0", "champion"),
    ]
    assert len(drawn.edges) == 2
    assert [run.skipped for run in drawn.runs] == [0]
    assert lineage.graph(told(turns), {}, rows=1).left_out == 2


# -- evidence, data, feedback -----------------------------------------------------------------------------------------


def test_a_trial_tells_its_numbers(turns: Turns) -> None:
    """The newest unless one is named; None for one that is not there."""
    newest = evidence.page(told(turns))
    assert newest is not None
    assert (newest.challenger, newest.outcome, newest.going_on) == ("3.0", "reject", False)
    first = evidence.page(told(turns), 1)
    assert first is not None
    facts = dict(first.facts)
    assert facts["Between"] == "−0.05 and +0"
    assert facts["Labels"] == "100 of 400 planned"
    assert first.progress == 0.25
    assert evidence.page(told(turns), 9) is None
    drawn = evidence.picture(told(turns).trials[1])
    assert drawn["rows"] == [50, 100]
    assert drawn["upper"] == [pytest.approx(0.0), pytest.approx(0.0)]


def test_rules_of_keeping_are_said_in_words(turns: Turns) -> None:
    """For ever, for a span, or not at all; and what was erased is counted."""
    assert "Every row is kept" in data.rule(None)
    assert "let go 90d after its time" in data.rule(timedelta(days=90))
    assert "No row is kept longer" in data.rule("none")
    turns.add(kind="operator", rows=0, first=-1, notes=("12 rows of one subject were erased",))
    turns.add(kind="operator", rows=0, first=-1, notes=("a subject was erased",))
    page = data.page(told(turns), [], None, source="rows", delay="known at once", times=UTC)
    assert page.erased == 1
    assert [one.note for one in page.erasures] == ["12 rows of one subject were erased"]


def test_what_came_back(turns: Turns) -> None:
    """Rows on their way are those that no turn has; thumbs are counted up and down."""
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - UTC is the pages' here
    empty = {"text": None, "correction": None}
    rows = [{"id": f"r{i}", "known_at": at, "up": up, **empty} for i, up in enumerate((True, False, None, True))]
    page = feedback.page(told(turns), {"rows": 75, "labels": 20, "feedback": 4}, rows, delay=60.0)
    assert (page.behind, page.joined, page.open) == (5, 20, 40)
    assert (page.up, page.down, len(page.thumbs)) == (2, 1, 4)
    assert [flow.came for flow in page.flows] == [75, 20, 4]


# -- when -------------------------------------------------------------------------------------------------------------


def test_days_and_hours_to_pick(turns: Turns) -> None:
    """Seven days up to the newest turn, and who answered at each hour, in the stream's own zone."""
    found = told(turns)
    picks = served.days(found, UTC)
    assert (picks[-1].date, len(picks)) == ("1970-01-01", 7)
    hours = served.hours(found, UTC, "1970-01-01")
    assert [hour.version for hour in hours[:9]] == [None, "1.0", "1.0", "1.0", "2.1", "2.1", "2.1", "1.0", "1.0"]
    lisbon = served.hours(found, Times("Europe/Lisbon"), "1970-01-01")
    assert [hour.version for hour in lisbon[:3]] == [None, None, "1.0"]
    with pytest.raises(ValueError):
        served.hours(found, UTC, "yesterday")


def test_instants_without_an_offset_are_of_the_stream(turns: Turns) -> None:
    """A field of a form has no offset; an address may have one."""
    lisbon = Times("Europe/Lisbon")
    assert served.parsed("1970-01-01T01:00", lisbon) == served.parsed("1970-01-01T00:00Z", lisbon) == 0


# -- backtests --------------------------------------------------------------------------------------------------------


def test_reports_are_found_and_read(tmp_path: Path) -> None:
    """Those beside the configuration; what cannot be read is passed over."""
    plain = example(30)
    for name in ("report", "other", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(plain) if name != "broken" else "{", encoding="utf-8")
    (tmp_path / "report" / "report.html").write_text(reports.html(plain), encoding="utf-8")
    assert {place.name for place in backtests.found(tmp_path)} == {"report", "other", "broken"}
    assert backtests.read(tmp_path / "broken", "broken") is None
    report = backtests.read(tmp_path / "report", "report")
    assert report is not None
    assert report.page
    assert [one.name for one in report.strategies] == [one["name"] for one in reports_ranked(plain)]
    assert all(0 <= one.x <= 1 and 0 <= one.y <= 1 for one in report.strategies)
    assert sum(one.recommended for one in report.strategies) == 1
    assert backtests.found(tmp_path / "nowhere") == []


def reports_ranked(plain: dict[str, Any]) -> list[dict[str, Any]]:
    """As the report itself has them."""
    return reading.ranked(plain)


# -- words ------------------------------------------------------------------------------------------------------------


def test_evidence_in_words() -> None:
    """Lower or higher, with bounds if there are any; nothing where there are no numbers."""
    assert words.judged(None, "brier") is None
    assert words.judged(verdict("2.0", "keep", mean=None), "brier") is None
    said = words.judged(verdict("2.0", "reject", mean=0.02), "brier")
    assert said is not None
    assert "the mean Brier score of 2.0 was 0.02 higher than that of 1.0" in said
    assert "between −0.01 and +0.04" in said


def test_templates_escape_what_others_wrote(turns: Turns) -> None:
    """A reason that looks like markup stays text."""
    evil = "<script>alert(1)</script>"
    turns.add(serving="1.0", quarantined=evil)
    html = rendered("happened.html", UTC, happened=deployment.happened(told(turns)), seen="", all="", total=1)
    assert evil not in html
    assert "&lt;script&gt;" in html
