"""What is told of versions, from records alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perennial.core.records import Decision, Verdict, Version
from perennial.ledger.errors import UnknownVersion
from perennial.ledger.records import Alias, Entry, Saved, Segment
from perennial.production.explain import History, explain, lineage, served_at, services, versions

DAY = 86_400_000_000


def saved(number, parent=None, kind="fit", rows=()):
    """A version that learned runs of rows."""
    major, minor = map(int, number.split("."))
    count = sum(high - low for low, high in rows)
    version = Version(
        major=major, minor=minor, parent=parent, kind=kind, at=major * DAY, ready_at=major * DAY, trained_rows=count,
        row_trees=0, first=0, last=0, newest=1, data="d", key=None, reason="due",
    )  # fmt: skip
    lesson = {"rows": [list(r) for r in rows], "weights": "", "classes": 2, "seed": 1}
    return Saved(version=version, blob="b", state=f"s{number}", size=9, facts={"lesson": lesson})


def entry(turn, day, serving, *, rows=10, kind="batch", trained=(), decisions=(), verdicts=(), scores=None):
    """A turn of a day whose rows come within it."""
    now = day * DAY
    segment = None
    if rows:
        segment = Segment(digest=str(turn), first=10 * turn, rows=rows, oldest=now, newest=now + DAY // 2)
    return Entry(
        turn=turn, kind=kind, now=now, first=10 * turn, rows=rows, position="", checkpoint="c", serving=serving,
        versions=tuple(trained), decisions=decisions, verdicts=verdicts, segment=segment, scores=scores or {},
    )  # fmt: skip


def history(entries, made, moves=(), statuses=None):
    """What a ledger of these would give."""
    segments = tuple(e.segment for e in entries if e.segment is not None)
    return History(
        deployment="shop", entries=tuple(entries), versions=tuple(made), statuses=statuses or {}, moves=tuple(moves),
        segments=segments, committed={e.turn: e.now + DAY for e in entries},
    )  # fmt: skip


def champion(version, generation, at, actor="run", reason=""):
    """A move of the champion."""
    return Alias(alias="champion", version=version, generation=generation, at=at, actor=actor, reason=reason)


ONE, TWO = saved("1.0", rows=[(0, 10)]), saved("2.0", "1.0", rows=[(5, 15), (18, 20)])
TOLD = (Decision(True, "1.0 made champion: ada@host: odd"),)
WHOLE = history(
    [
        entry(0, 0, None),
        entry(1, 1, "1.0", trained=[ONE], verdicts=(Verdict(outcome="promote", version="1.0", reason="the first"),)),
        entry(2, 2, "1.0", scores={"log_loss": (4, 2.0)}),
        entry(3, 3, "2.0", trained=[TWO], scores={"log_loss": (2, 3.0)},
              verdicts=(Verdict(outcome="promote", version="2.0", reason="better"),)),
        entry(4, 3, "1.0", rows=0, kind="operator", decisions=TOLD),
        entry(5, 4, "1.0", scores={"log_loss": (6, 1.0)}),
    ],
    [ONE, TWO],
    [champion("1.0", 1, DAY), champion("2.0", 2, 3 * DAY, reason="better"),
     champion("1.0", 3, 3 * DAY, "ada@host", "odd")],
    {"1.0": "champion", "2.0": "previous"},
)  # fmt: skip


def test_who_served_when():
    """Rows of a batch belong to the version of its turn; an operator's word is about what comes after them."""
    found = [(s.version, s.start, s.end, s.rows) for s in services(WHOLE)]
    after = 3 * DAY + DAY // 2 + 1  # behind the rows of the third day's batch
    assert found == [("1.0", DAY, 3 * DAY, 20), ("2.0", 3 * DAY, after, 10), ("1.0", after, None, 10)]


@pytest.mark.parametrize(
    ("instant", "version", "why", "actor"),
    [
        (-1, None, "the stream begins at 1970-01-01T00:00:00Z", None),
        (0, None, "no version served yet: the initial period was not over", None),
        (DAY, "1.0", "the first", "run"),
        (3 * DAY, "2.0", "better", "run"),
        (4 * DAY, "1.0", "1.0 made champion: ada@host: odd", "ada@host"),
    ],
)
def test_served_at(instant, version, why, actor):
    """The version, why, and who had it so."""
    told = served_at(WHOLE, instant)
    assert (told["version"], told["why"], told["actor"]) == (version, why, actor)


def test_served_at_before_anything():
    """A ledger without turns answers too."""
    assert served_at(history([], []), 5)["why"] == "no row was taken yet"


def test_scores_are_means_by_the_version_that_served():
    """Sums over the turns that it served in."""
    one, two = versions(WHOLE)
    assert (one["scores"], one["scored"]) == ({"log_loss": 0.3}, 10)
    assert (two["scores"], two["status"], two["verdict"]) == ({"log_loss": 1.5}, "previous", "promote")


def test_explain_spans_the_turns_of_its_rows():
    """Also where a subject was erased and a segment has another in its place, out of order."""
    told = explain(WHOLE, "2.0")
    assert (told["rows"]["from"], told["rows"]["until"]) == ("1970-01-01T00:00:00Z", "1970-01-02T12:00:00Z")
    assert told["rows"]["count"] == 12
    assert told["champion"]["why"] == "gave way to 1.0 at 1970-01-04T00:00:00Z, by ada@host: odd"
    again = WHOLE.segments[0]
    mixed = replace(WHOLE, segments=(*WHOLE.segments[1:], again, again))
    assert explain(mixed, "2.0")["rows"] == told["rows"]


def test_a_version_that_never_was_champion_says_why():
    """By its last verdict; without one, that there is none."""
    three = saved("3.0", "1.0")
    verdict = Verdict(outcome="reject", version="3.0", reason="worse by 0.1")
    told = explain(history([entry(0, 0, "1.0", trained=[three], verdicts=(verdict,))], [ONE, three]), "3.0")
    assert told["champion"] == {"now": False, "heeded": True, "why": "it never was: reject: worse by 0.1", "moves": []}
    told = explain(history([], [ONE, three]), "3.0")
    assert "no verdict" in told["champion"]["why"]


def test_lineage_ends_at_the_first_and_unknown_versions_are_refused():
    """The nearest number is suggested."""
    made = [saved("1.0"), saved("1.1", "1.0", "update"), saved("1.2", "1.1", "update")]
    assert lineage(history([], made), "1.2") == ["1.1", "1.0"]
    with pytest.raises(UnknownVersion, match="did you mean"):
        explain(history([], made), "1.20")
    with pytest.raises(UnknownVersion, match="none was made yet"):
        explain(history([], []), "1.0")
