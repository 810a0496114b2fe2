"""The loop closes: what labels follow is turned round, and without help a better version is live, on both databases."""

from __future__ import annotations

import re
import statistics
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from perennial.production.freshness import label_to_live, median_to_live
from tests import postgres

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

loops = pytest.importorskip("benchmarks.servers.loop", reason="the benchmarks are beside the package in its repository")
pytest.importorskip("uvicorn", reason="needs perennial[serve]")

LAST = 250  #: answers that an accuracy is told of
LOST = 0.1  #: how much less than before the change counts as recovered: twice what 250 answers vary by


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request):
    """URL of a database of its own; empty for a file beside the configuration."""
    if request.param == "sqlite":
        yield ""
        return
    with postgres.schema() as url:
        yield url


@pytest.mark.slow
def test_the_loop_closes(tmp_path, ledger):
    """Labels come late, in any order, some never; they turn round, and a version that learned it answers as well."""
    with loops.looping(tmp_path, ledger) as loop:
        seen = loop.caller.seen
        loop.until(lambda: len(seen.asked) >= LAST and len(seen.first) >= 3, "two versions have learned from labels")
        before, old = seen.accuracy(LAST), loops.number(seen.asked[-1].version)
        loop.caller.flip()
        flipped = len(seen.asked)
        loop.until(lambda: len(seen.asked) >= flipped + LAST, "answers show what the change did")
        loop.until(lambda: seen.accuracy(LAST) > before - LOST, f"answers are right again as before, {before:.0%}")
        seen = loop.caller.end()
        loop.until(lambda: len(loop.joined()) == loops.HISTORY + _logged(loop), "every label is joined")
        page = _page(loop)
        predicted, labels, joined = loop.log("rows"), loop.log("labels"), loop.joined()
        with loop.ledger() as opened:
            versions, live = opened.versions(), opened.became_champion()

    assert before > 0.8
    assert _worst(seen, flipped) < 0.5  # it did turn round
    assert loops.number(seen.asked[-1].version) > old
    assert seen.asked[-1].version in {saved.version.number for saved in versions}

    told = Counter(row["id"] for row in labels)
    assert set(seen.labels) < {one.id for one in seen.asked}  # some labels never came
    assert {one: told[one] for one in seen.labels} == dict.fromkeys(seen.labels, 1)
    assert set(seen.outcomes) <= {"accepted", "repeated"}  # repeated where a busy machine had it sent again
    ids = [row["id"] for row in predicted]
    assert max(Counter(row for row, _ in joined).values()) == 1
    assert {ids[row]: label for row, label in joined if ids[row] in seen.labels} == {
        one: label for one, label in seen.labels.items() if one in set(ids)
    }

    facts = {saved.version.number: saved.facts["labels"] for saved in versions}
    assert len(label_to_live(facts, live)) > 3
    assert 0 < median_to_live(facts, live) < loops.PATIENCE
    ours = loop.seconds_to_live()
    assert len(ours) > LAST
    assert 0 < statistics.median(ours) < loops.PATIENCE
    assert re.search(r"Label to live</dt><dd[^>]*>[\d.]+ (ms|s|min)</dd>", page)


def _logged(loop):
    """How many acknowledged labels are about a prediction that is in the log."""
    ids = {row["id"] for row in loop.log("rows")}
    return sum(one in ids for one in loop.caller.seen.labels)


def _worst(seen, since):
    """The least share of right answers of a hundred in a row."""
    right = [one.said == one.truth for one in seen.asked[since:]]
    return min(sum(right[i : i + 100]) / 100 for i in range(len(right) - 99))


def _page(loop):
    """The page of the deployment, as a person sees it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{loop.server.port}/ui/", timeout=loops.PATIENCE) as answer:
        return answer.read().decode()
