"""A trial: what counts of the rows that both lines predicted, and what is measured of a version besides."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest

from perennial.core.features import Features, Schema
from perennial.core.records import Prediction, Version
from perennial.gate import Evidence, Gate, Golden, Slice
from perennial.gate.trial import Line, Trial

GATE = Gate(
    margin=0.01, block=1, golden=Golden(file="old.csv", limit=0.1),
    slices={"z": Slice(where={"x": 1}), "a": Slice(where={"x": 2})},
)  # fmt: skip
NOTHING = Features(Schema([]), [], 0)


@dataclass
class Says:
    """A model that says the same of each golden row, or fails."""

    code: int
    asked: int = 0

    name = "Says"

    def size(self):
        return 1000

    def predict(self, features):
        self.asked += 1
        if self.code < -1:
            raise FloatingPointError("mute")
        return Prediction(codes=np.full(4, self.code, dtype=np.int32), classes=("yes", "no"))


@dataclass(frozen=True)
class Rows:
    """Four golden rows, a quarter of them "no"; their classes are in another order than the model's."""

    digest: str = "d1"
    classes: tuple = ("no", "yes")

    @property
    def truth(self):
        return np.array([1, 1, 1, 0])

    def features(self, schema):
        return NOTHING


class Clock:
    """A trainer whose clock says what it is told."""

    def __init__(self, *milliseconds):
        self.left = list(milliseconds)

    def latency(self, model, features):
        return timedelta(milliseconds=self.left.pop(0))


def line(minor, code=0):
    """A version of line 1."""
    version = Version(
        major=1, minor=minor, parent=None, kind="fit", at=0, ready_at=0, trained_rows=1, row_trees=0, first=0, last=0,
        newest=0, data="", key=None, reason="",
    )  # fmt: skip
    return Line(version, Says(code))


def trial(champion=0, gate=GATE):
    """One that begins."""
    return Trial.begin(gate, 1, 1, line(0, champion), 0, golden=Rows())


@pytest.mark.parametrize(
    ("champion", "challenger", "golden", "outcome"),
    [(0, 0, 0.0, "keep"), (0, 1, 0.5, "reject"), (1, 0, -0.5, "keep"), (0, -1, math.nan, "reject")],
)
def test_forgetting_is_a_larger_loss_on_the_golden_set(champion, challenger, golden, outcome):
    """The difference of two means, whatever the order of classes; who abstains anywhere has not passed."""
    on = trial(champion)
    note = on.measure(line(1, challenger), NOTHING, Clock())
    assert note == ("1.1 leaves 4 of 4 rows of the golden set without an answer" if challenger < 0 else None)
    assert on.measured.golden == pytest.approx(golden, nan_ok=True)
    verdict = on.judge(0, line(1).version)
    assert verdict.outcome == outcome
    assert ("golden" in verdict.reason) == (outcome == "reject")
    if not math.isnan(golden):
        assert verdict.evidence["golden"] == golden


def test_each_version_is_measured_once():
    """And the champion once in a trial."""
    on, first, second = trial(), line(1), line(2)
    for one in (first, first, second, second):
        on.measure(one, NOTHING, Clock())
    assert (on.base.model.asked, first.model.asked, second.model.asked) == (1, 1, 1)
    assert on.measured.version == "1.2"


def test_a_challenger_that_cannot_predict_the_golden_set_is_rejected():
    """And the turn says why; a champion that cannot holds nobody to it, and promotes nobody."""
    on = trial()
    assert on.measure(line(1, -7), NOTHING, Clock()) == "1.1 cannot predict the golden set: mute"
    assert on.judge(0, line(1).version).outcome == "reject"
    for champion, words in ((-7, "1.0 cannot predict the golden set: mute"), (-1, "1.0 leaves 4 of 4 rows")):
        on = trial(champion)
        note = on.measure(line(1), NOTHING, Clock())
        assert note.startswith(words)
        assert note.endswith("nothing is promoted")
        verdict = on.judge(0, line(1).version)
        assert verdict.outcome == "keep"
        assert "golden set is not measured yet" in verdict.reason


def test_size_and_latency_are_measured_where_they_have_a_limit():
    """Once for each version, told with the evidence, and kept: a second look at the clock would say something else."""
    gate = Gate(margin=0.01, largest_bytes=1000, largest_latency=timedelta(milliseconds=5))
    on, clock = trial(gate=gate), Clock(5, 6)
    assert "its size is not measured yet; its latency is not measured yet" in on.judge(0, line(1).version).reason
    for _ in range(2):
        on.measure(line(1), NOTHING, clock)
        verdict = on.judge(0, line(1).version)
        assert verdict.outcome == "keep"
        assert (verdict.evidence["size_bytes"], verdict.evidence["latency"]) == (1000, "5ms")
    again = Trial.restore(json.loads(json.dumps(on.state())), gate, {"1.0": on.base}, Rows())
    assert again.judge(0, line(1).version) == verdict
    on.measure(line(2), NOTHING, clock)
    assert "takes 6ms, at most 5ms" in on.judge(0, line(2).version).reason
    on, small = trial(gate=replace(gate, largest_bytes=999)), Clock(1)
    on.measure(line(1), NOTHING, small)
    assert "1,000 bytes, at most 999" in on.judge(0, line(1).version).reason
    on = trial(gate=Gate())
    on.measure(line(1), NOTHING, Clock())
    assert not {"size_bytes", "latency"} & on.judge(0, line(1).version).evidence.keys()


def test_rows_count_in_the_slices_that_they_belong_to():
    """Evidence of a slice is that of its rows alone; rows that are not sound count nowhere."""
    rng = np.random.default_rng(0)
    n = 60
    served, shadow = (Prediction(codes=rng.integers(-1, 2, n).astype(np.int32), classes=("a", "b")) for _ in range(2))
    labels, members, sound = rng.integers(0, 2, n), rng.random((n, 2)) < 0.4, rng.random(n) < 0.9
    for mode, sign in (("before", 1), ("after", -1)):
        on = trial(gate=replace(GATE, mode=mode, block=7))
        for low, high in ((0, 11), (11, 12), (12, n)):
            part = slice(low, high)
            on.add(
                *(Prediction(codes=p.codes[part], classes=p.classes) for p in (served, shadow)), labels[part],
                ("a", "b"), time=np.zeros(high - low, dtype=np.int64), position=np.arange(low, high),
                sound=sound[part], members=members[part],
            )  # fmt: skip
        both = (served.codes >= 0) & (shadow.codes >= 0) & sound
        difference = sign * ((shadow.codes != labels).astype(float) - (served.codes != labels))
        assert on.evidence == Evidence().add(np.flatnonzero(both) // 7, difference[both])
        for j, name in enumerate(on.gate.slices):
            here = both & members[:, j]
            assert on.slices[name] == Evidence().add(np.flatnonzero(here) // 7, difference[here])


def test_a_trial_goes_on_from_what_json_keeps():
    """Slices stay in the gate's order, which that of members follows, and what was measured is not measured again."""
    on = trial()
    on.shown = [line(1)]
    on.measure(on.shown[0], NOTHING, Clock())
    on.add(
        Prediction(codes=np.array([0, 1], dtype=np.int32)), Prediction(codes=np.array([1, 1], dtype=np.int32)),
        np.array([0, 0]), ("a", "b"), time=np.zeros(2, dtype=np.int64), position=np.arange(2),
        sound=np.ones(2, dtype=bool), members=np.array([[True, False], [True, True]]),
    )  # fmt: skip
    plain = json.loads(json.dumps(on.state(), sort_keys=True))
    lines = {"1.0": on.base, "1.1": on.shown[0]}
    again = Trial.restore(plain, GATE, lines, Rows())
    assert again == on
    assert list(again.slices) == ["z", "a"]
    assert again.measure(on.shown[0], NOTHING, Clock()) is None
    assert on.shown[0].model.asked == 1
    assert Trial.restore(plain, GATE, lines, Rows(digest="d2")) is None
    assert Trial.restore(plain, replace(GATE, slices={}), lines, Rows()) is None
    assert Trial.restore(plain, replace(GATE, golden=Golden(file="moved.csv", limit=0.1)), lines, Rows()) is not None
