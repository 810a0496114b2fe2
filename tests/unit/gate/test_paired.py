"""Verdicts one can follow, the words they come with, and settings that are refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from perennial.core.errors import ConfigError
from perennial.core.records import Version
from perennial.core.times import micros
from perennial.gate import Checks, Evidence, Gate, Golden, Slice

DAY = micros(timedelta(days=1))


def version(number, kind="fit"):
    """A version with a number and nothing else of interest."""
    major, minor = map(int, number.split("."))
    return Version(
        major=major, minor=minor, parent=None, kind=kind, at=0, ready_at=0, trained_rows=1, row_trees=0, first=0,
        last=0, newest=0, data="", key=None, reason="",
    )  # fmt: skip


def evidence(better, worse, days=40, rows=100):
    """Days of ``rows`` labels; of a hundred the challenger is right alone on ``better``, wrong alone on ``worse``."""
    share = days * rows // 100
    all_rows = np.concatenate([np.full(better * share, -1.0), np.full(worse * share, 1.0)])
    all_rows = np.concatenate([all_rows, np.zeros(days * rows - len(all_rows))])
    return Evidence().add(np.arange(days).repeat(rows), np.random.default_rng(0).permutation(all_rows))


def judge(gate, found, *, day=40, kind="fit", checks=None, champion="1.0"):
    """The verdict on 2.0 after ``day`` days of trial."""
    against = version(champion) if champion else None
    return gate.judge(found, now=day * DAY, begun=0, challenger=version("2.0", kind), champion=against, checks=checks)


GOOD, EQUAL, BAD = evidence(6, 2), evidence(4, 4), evidence(2, 6)
GATE = Gate(margin=0.01)
NEW = Slice(where={"kind": "new"})
OLD = Golden(file="old.csv", limit=0.01)


class TestVerdict:
    @pytest.mark.parametrize(("found", "outcome"), [(GOOD, "promote"), (BAD, "reject")])
    def test_what_is_plain_is_decided(self, found, outcome):
        """Four points better or worse on 4,000 labels leave no doubt."""
        assert judge(GATE, found).outcome == outcome

    def test_the_reason_has_the_numbers(self):
        """Mean, bounds, labels, blocks, margin and both versions, for whoever reads it at 3 a.m."""
        said = judge(GATE, GOOD)
        assert said.reason.startswith("2.0 is promoted over 1.0: not worse by 0.01: loss -0.0")
        assert "labels in 40 blocks" in said.reason
        assert "between -0.0" in said.reason
        assert (said.version, said.champion) == ("2.0", "1.0")

    def test_what_is_not_told_apart_is_watched(self):
        """A challenger as good as the champion needs more labels for a margin this narrow."""
        said = judge(Gate(margin=0.0001), EQUAL)
        assert said.outcome == "keep"
        assert said.reason.startswith("2.0 is watched beside 1.0: not yet told apart, margin 0.0001; loss ")

    def test_it_is_promoted_below_the_margin_and_not_before(self):
        """The upper bound decides, strictly."""
        upper = judge(GATE, GOOD).evidence["upper"]
        shifted = Evidence().add(np.arange(40).repeat(5), np.tile([1.0, -1.0, 0.0, 0.0, 0.0], 40))
        edge = judge(GATE, shifted).evidence["upper"]
        assert upper < 0 < edge
        assert judge(Gate(margin=edge), shifted).outcome == "keep"
        assert judge(Gate(margin=math.nextafter(edge, 1)), shifted).outcome == "promote"

    def test_proven_worse_is_rejected_although_within_the_margin(self):
        """Whoever is worse does not take over, however little."""
        said = judge(Gate(margin=0.2), BAD)
        assert said.outcome == "reject"
        assert said.reason.startswith("2.0 is rejected: proven worse: loss +0.0")

    def test_too_few_blocks_decide_nothing(self):
        """However plain it looks: 19 days are not 20."""
        for days, outcome in ((19, "keep"), (20, "promote")):
            found = Evidence().add(np.arange(days).repeat(20), np.tile([-1.0] * 10 + [0.0] * 10, days))
            said = judge(GATE, found)
            assert said.outcome == outcome
        early = judge(GATE, evidence(6, 2, days=19)).reason
        assert "19 of the 20 blocks that a verdict needs" in early
        assert "between" not in early

    def test_one_large_block_is_no_twenty(self):
        """Blocks count by their size."""
        key = np.concatenate([np.zeros(5000, dtype=np.int64), np.arange(1, 40)])
        said = judge(GATE, Evidence().add(key, -np.ones(len(key))))
        assert said.outcome == "keep"
        assert said.evidence["blocks"] == 40
        assert "1 of the 20 blocks" in said.reason

    @pytest.mark.parametrize(("labels", "outcome"), [(200, "keep"), (4000, "promote")])
    def test_the_same_predictions_are_promoted_in_time(self, labels, outcome):
        """No difference and no variance: sure after some hundred labels, not at once."""
        found = Evidence().add(np.arange(labels) // (labels // 40), np.zeros(labels))
        assert judge(Gate(), found).outcome == outcome

    def test_no_label_is_no_verdict(self):
        """And JSON keeps what it says."""
        said = judge(GATE, GATE.begin(), day=3)
        assert said.outcome == "keep"
        assert said.reason == "2.0 is watched beside 1.0: 0 of the 20 blocks that a verdict needs; no label yet"
        assert said.evidence["mean"] is None

    def test_a_single_block_has_a_mean_and_no_bounds(self):
        """Infinite bounds are told as nothing."""
        said = judge(GATE, Evidence().add(np.array([0, 0]), np.array([1.0, 0.0])))
        assert "loss +0.5 on 2 labels in 1 block" in said.reason
        assert (said.evidence["lower"], said.evidence["upper"]) == (None, None)

    def test_the_first_version_has_nothing_to_be_held_against(self):
        """It is promoted, unless it breaks a limit."""
        said = judge(GATE, GATE.begin(), champion=None)
        assert (said.outcome, said.champion) == ("promote", None)
        large = Gate(largest_bytes=10)
        assert judge(large, GATE.begin(), champion=None, checks=Checks(size_bytes=11)).outcome == "reject"

    def test_evidence_is_plain_data(self):
        """Strict JSON keeps it whole."""
        gate = Gate(
            margin=0.01,
            golden=Golden(file="g.csv", limit=0.1),
            largest_latency=timedelta(milliseconds=5),
            slices={"new": NEW},
        )
        checks = Checks(golden=math.nan, latency=timedelta(milliseconds=2), slices={"new": EQUAL}, size_bytes=7)
        for found, given in ((GOOD, checks), (gate.begin(), Checks())):
            facts = judge(gate, found, checks=given).evidence
            assert json.loads(json.dumps(facts, allow_nan=False)) == facts
        facts = judge(GATE, GOOD).evidence
        assert facts["rows"] == GOOD.n
        assert {"mean", "lower", "upper", "margin", "alpha", "block", "blocks", "planned_labels"} <= facts.keys()
        assert (facts["block"], facts["waited"]) == ("1d", "40d")

    def test_a_gate_refuses_evidence_that_is_not_its_own(self):
        """Of another gate, by name."""
        with pytest.raises(ConfigError, match="evidence='object'"):
            judge(GATE, object())


class TestWaiting:
    def test_no_promotion_before_the_least_wait(self):
        """A rejection does not wait."""
        gate = replace(GATE, least_wait=timedelta(days=60))
        said = judge(gate, GOOD)
        assert said.outcome == "keep"
        assert "on trial for 40 days of at least 60d" in said.reason
        assert judge(gate, GOOD, day=60).outcome == "promote"
        assert judge(gate, BAD).outcome == "reject"

    @pytest.mark.parametrize(
        ("then", "found", "outcome"),
        [
            ("keep", EQUAL, "keep"),
            ("promote", EQUAL, "promote"),
            ("reject", EQUAL, "reject"),
            ("better", evidence(5, 4, days=20), "promote"),
            ("better", evidence(4, 5, days=20), "reject"),
            ("better", Evidence(), "reject"),
        ],
    )
    def test_what_happens_without_a_verdict(self, then, found, outcome):
        """Nothing before the greatest wait, and then what was said."""
        gate = Gate(margin=0.0001, greatest_wait=timedelta(days=50), on_no_verdict=then)
        assert judge(gate, found, day=49.9).outcome == "keep"
        said = judge(gate, found, day=50)
        assert said.outcome == outcome
        assert f"no verdict within 50d, on_no_verdict is '{then}'" in said.reason

    def test_no_default_lets_pass_what_was_never_measured(self):
        """A golden set that was not scored is no golden set."""
        gate = Gate(margin=0.0001, greatest_wait=timedelta(days=50), on_no_verdict="promote", golden=OLD)
        said = judge(gate, EQUAL, day=50)
        assert said.outcome == "keep"
        assert "golden set is not measured yet" in said.reason
        assert judge(gate, EQUAL, day=50, checks=Checks(golden=0.0)).outcome == "promote"


class TestModes:
    def test_a_person_promotes(self):
        """Ready, with the command; a rejection needs nobody."""
        gate = replace(GATE, promote="manual")
        said = judge(gate, GOOD)
        assert said.outcome == "keep"
        assert said.reason.startswith("ready: perennial promote 2.0 (not worse by 0.01: ")
        assert judge(gate, BAD).outcome == "reject"

    def test_after_promotion_the_challenger_stays_or_is_rolled_back(self):
        """The same evidence, other words."""
        gate = replace(GATE, mode="after")
        assert judge(gate, GOOD).reason.startswith("2.0 stays, in place of 1.0: ")
        assert judge(gate, BAD).reason.startswith("rolled back from 2.0 to 1.0: proven worse")
        assert judge(replace(gate, margin=0.0001), EQUAL).reason.startswith("2.0 serves, and is held against 1.0: ")

    def test_none_promotes_untested_and_says_so(self):
        """As the gate of plain backtests does."""
        said = judge(Gate(mode="none"), BAD)
        assert (said.outcome, said.reason) == ("promote", "no gate: promoted over 1.0 untested")
        assert judge(Gate(mode="none"), BAD, champion=None).reason == "no gate: promoted untested"

    @pytest.mark.parametrize(("on_reject", "kind", "told"), [("back", "update", True), ("go_on", "update", False),
                                                             ("back", "fit", False)])  # fmt: skip
    def test_a_stateful_line_goes_back(self, on_reject, kind, told):
        """The reason says so, where there is something to go back to."""
        said = judge(replace(GATE, on_reject=on_reject), BAD, kind=kind)
        assert ("goes back to the last good checkpoint" in said.reason) == told


class TestChecks:
    @pytest.mark.parametrize(
        ("limit", "bad", "good", "words"),
        [
            (
                {"golden": OLD},
                {"golden": 0.02},
                {"golden": 0.01},
                r"golden set is \+0.02 against the .*, at most \+0.01",
            ),
            ({"golden": OLD}, {"golden": math.nan}, {"golden": -1.0}, "does not predict all rows of the golden set"),
            ({"largest_bytes": 1000}, {"size_bytes": 1001}, {"size_bytes": 1000}, "1,001 bytes, at most 1,000"),
            (
                {"largest_latency": timedelta(milliseconds=5)},
                {"latency": timedelta(milliseconds=6)},
                {"latency": timedelta(milliseconds=5)},
                "prediction takes 6ms, at most 5ms",
            ),
        ],
    )
    def test_a_limit_holds_whatever_the_evidence(self, limit, bad, good, words):
        """Broken it rejects at once, unmeasured it holds a promotion up, kept it says nothing."""
        gate = replace(GATE, **limit)
        said = judge(gate, GOOD, checks=Checks(**bad))
        assert said.outcome == "reject"
        assert re.search(words, said.reason)
        assert "is not measured yet" in judge(gate, GOOD).reason
        assert judge(gate, GOOD, checks=Checks(**good)).outcome == "promote"

    def test_every_slice_must_pass(self):
        """One that is worse rejects, one that is not clear yet waits, one without labels is not judged."""
        gate = replace(GATE, slices={"new": NEW, "old": replace(NEW, margin=0.05), "rare": NEW})
        unclear = evidence(1, 1, rows=10)
        cases = {
            "promote": {"new": GOOD, "old": GOOD},
            "reject": {"new": GOOD, "old": evidence(1, 30)},
            "keep": {"new": unclear, "old": GOOD},
        }
        for outcome, slices in cases.items():
            said = judge(gate, GOOD, checks=Checks(slices=slices))
            assert said.outcome == outcome
        said = judge(gate, GOOD, checks=Checks(slices={"new": unclear}))
        assert "not yet told apart on new" in said.reason
        assert said.evidence["slices"]["rare"]["rows"] == 0
        assert said.evidence["slices"]["old"]["margin"] == 0.05
        assert "proven worse on old" in judge(gate, GOOD, checks=Checks(slices=cases["reject"])).reason

    def test_many_slices_share_alpha(self):
        """What would be proof on one slice is none on the worst of many (Holm)."""
        steps = [evidence(4, 4 + more, rows=100) for more in range(1, 20)]
        alone = replace(GATE, margin=0.5, slices={"a": replace(NEW, margin=0.001)})
        found = next(e for e in steps if alone._harmed({"a": alone._bounds(e, e)}, e.n))
        lower = alone._bounds(found, found).lower
        edge = replace(alone, slices=dict.fromkeys("abcdefgh", replace(NEW, margin=lower * 0.999)))
        assert edge._harmed({"a": edge._bounds(found, found)}, found.n) == ["a"]
        rest = {name: edge._bounds(GOOD, found) for name in "bcdefgh"}
        assert edge._harmed({"a": edge._bounds(found, found), **rest}, found.n) == []


class TestBlocks:
    def test_blocks_are_days_of_event_time_or_runs_of_rows(self):
        """Also before 1970."""
        time = np.array([-1, 0, DAY - 1, DAY])
        assert Gate().blocks(time, np.arange(4)).tolist() == [-1, 0, 0, 1]
        assert Gate(block=2).blocks(time, np.arange(4)).tolist() == [0, 0, 1, 1]
        assert Gate(block=timedelta(hours=12)).blocks(time, np.arange(4)).tolist() == [-1, 0, 1, 2]

    def test_evidence_begins_empty_and_resumes(self):
        """What a checkpoint holds is what was there."""
        assert GATE.begin() == Evidence()
        assert GATE.resume(GOOD.to_plain()) == GOOD


class TestExpectedWait:
    def test_more_labels_a_day_are_fewer_days(self):
        """About as many labels, whatever their rate."""
        slow, fast = (GATE.expected_wait(labels_per_block=n, effect=-0.01, disagreement=0.08) for n in (20, 80))
        assert slow.labels == pytest.approx(fast.labels, rel=0.2)
        assert slow.blocks > 3 * fast.blocks
        assert slow.outcome == fast.outcome == "promote"

    def test_it_is_said_in_words(self):
        """Labels, blocks, days, and for whom."""
        said = str(GATE.expected_wait(labels_per_block=27, effect=0.02, disagreement=0.08))
        assert said.startswith("reject after about ")
        assert said.endswith("for a challenger whose mean loss is +0.02, at 27 labels per block")
        assert " days" in said

    def test_rows_as_blocks_have_no_days(self):
        """A stream may have no rate."""
        assert "days" not in str(Gate(block=50).expected_wait(labels_per_block=50, effect=-0.02, disagreement=0.1))

    def test_a_challenger_at_the_margin_has_none_in_sight(self):
        """Nothing tells what cannot be told."""
        wait = Gate(margin=0.003, planned_labels=100).expected_wait(
            labels_per_block=10, effect=0.003, spread=0.3, design_effect=2.0
        )
        assert wait.outcome in (None, "reject")
        assert Gate(margin=0.003).expected_wait(labels_per_block=10, effect=0.0029999, spread=5.0).outcome is None

    def test_waits_are_told_against_the_limits(self):
        """A greatest wait that comes first, a least one that comes later."""
        short = replace(GATE, greatest_wait=timedelta(days=30), on_no_verdict="better")
        wait = short.expected_wait(labels_per_block=27, effect=-0.01, disagreement=0.08)
        assert wait.outcome is None
        assert "no verdict within 30d" in wait.words
        assert "then 'better'" in wait.words
        long = replace(GATE, least_wait=timedelta(days=500))
        assert "not before 500d" in long.expected_wait(labels_per_block=27, effect=-0.02, disagreement=0.08).words

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({}, "spread"),
            ({"spread": 1.0, "disagreement": 0.1}, "spread"),
            ({"spread": 0.0}, "spread"),
            ({"disagreement": 1.5}, "disagreement"),
            ({"disagreement": 0.01, "effect": -0.02}, "disagreement"),
            ({"spread": 1.0, "labels_per_block": 0}, "labels_per_block"),
            ({"spread": 1.0, "design_effect": math.nan}, "design_effect"),
        ],
    )
    def test_what_it_refuses(self, arguments, field):
        """By name."""
        with pytest.raises(ConfigError, match=field):
            GATE.expected_wait(**{"labels_per_block": 20, **arguments})


class TestSettings:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("mode", "befor"), ("promote", "never"), ("on_reject", "stay"), ("on_no_verdict", "wait"),
            ("margin", -0.1), ("margin", math.nan), ("margin", "0.1"), ("alpha", 0), ("alpha", 0.6), ("alpha", True),
            ("planned_labels", 0), ("planned_labels", 10.5), ("least_blocks", 1), ("least_wait", -timedelta(1)),
            ("least_wait", "7d"), ("greatest_wait", timedelta(0)), ("block", timedelta(0)), ("block", 0),
            ("block", "1d"), ("golden", 0.01), ("slices", {"new": 1.0}), ("largest_bytes", 0),
            ("largest_latency", timedelta(0)),
        ],
    )  # fmt: skip
    def test_a_setting_out_of_range_is_refused_by_name(self, field, value):
        """At line 1, not at hour 6."""
        with pytest.raises(ConfigError) as refused:
            Gate(**{field: value})
        assert refused.value.field.startswith(f"gate.{field}")

    @pytest.mark.parametrize("given", [{"file": ""}, {"file": 3}, {"file": "a.csv", "limit": math.inf}])
    def test_a_golden_set_that_is_none_is_refused(self, given):
        """By name."""
        with pytest.raises(ConfigError, match=r"gate\.golden\."):
            Golden(**given)

    def test_a_near_miss_is_suggested(self):
        """The nearest valid word."""
        with pytest.raises(ConfigError, match=r"gate\.mode='befor': did you mean `before`\?"):
            Gate(mode="befor")

    @pytest.mark.parametrize(
        "settings",
        [
            {"on_no_verdict": "promote"},
            {"promote": "manual", "mode": "after"},
            {"least_wait": timedelta(days=9), "greatest_wait": timedelta(days=8)},
        ],
    )
    def test_settings_that_contradict_each_other_are_refused(self, settings):
        """Each is fine alone."""
        with pytest.raises(ConfigError):
            Gate(**settings)

    def test_a_margin_of_nothing_wants_proof(self):
        """Promoted only if proven better."""
        gate = Gate(margin=0.0)
        assert judge(gate, EQUAL).outcome == "keep"
        assert judge(gate, GOOD).outcome == "promote"
        assert gate.expected_wait(labels_per_block=20, disagreement=0.1).outcome is None

    def test_it_is_told_in_a_line(self):
        """For reports."""
        said = "before promotion: margin {}, alpha 0.05, planned for 4,000 labels in blocks of 1d"
        assert str(Gate()) == said.format("set by each trial")
        assert str(Gate(margin=0.003)) == said.format("0.003")
        assert str(Gate(mode="after", block=50)).endswith("in blocks of 50 rows")
        assert str(Gate(mode="none")) == "no gate"


def test_shares_of_the_requests_decide_nothing():
    """They are for challengers that are held back, from 0 to 1; a trial is the same whatever they are."""
    assert Gate(canary=0.05, shadow=1.0).canary == 0.05
    assert repr(Gate(canary=0.05, shadow=1.0)) == repr(Gate())
    for wrong in (-0.1, 1.1, math.nan, "5%"):
        with pytest.raises(ConfigError, match=r"gate\.canary"):
            Gate(canary=wrong)
    with pytest.raises(ConfigError, match="mode 'after' holds no challenger back"):
        Gate(mode="after", shadow=0.5)
