"""The evidence: its page is what its results say, its streams are functions of their seeds, its parts run."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.evidence import __main__ as evidence
from benchmarks.evidence import committee
from benchmarks.evidence.records import Goal
from benchmarks.evidence.streams import KINDS, Source, sources

ROOT = Path(__file__).parents[2]
SETTINGS = yaml.safe_load((ROOT / "benchmarks/evidence/settings.yaml").read_text(encoding="utf-8"))


def test_the_page_is_written_from_the_results() -> None:
    """Nobody edits a number on the page."""
    found = json.loads(evidence.RESULTS.read_text(encoding="utf-8"))
    assert evidence.PAGE.read_text(encoding="utf-8") == evidence.page(found)


def test_what_was_measured_was_registered() -> None:
    """The settings that the results were measured with are those of the file."""
    found = json.loads(evidence.RESULTS.read_text(encoding="utf-8"))
    for name, part in found.items():
        assert part["settings"] == SETTINGS[name], name
        for goal in part["goals"]:
            holds = goal["value"] is not None and (
                goal["value"] <= goal["limit"] if goal["way"] == "at most" else goal["value"] >= goal["limit"]
            )
            assert goal["holds"] == holds
    assert set(found) <= set(evidence.PARTS) <= set(SETTINGS)


def test_a_missed_goal_says_by_how_much() -> None:
    """On either side, and one that was not measured does not hold."""
    goal = Goal(what="x", value=1.3, limit=1.0, way="at most")
    assert (goal.holds, round(goal.missed_by, 9)) == (False, 0.3)
    assert replace(goal, value=0.9).missed_by == 0
    assert not replace(goal, value=0.9, way="at least").holds
    assert math.isnan(replace(goal, value=None).missed_by)
    assert not replace(goal, value=None).holds


@pytest.mark.parametrize("kind", KINDS)
def test_generated_streams_are_functions_of_their_seed(kind: str) -> None:
    """The same seed gives the same rows, another seed others; both classes are there."""
    (source,) = sources({}, {kind: {"rows": 800, "columns": 4, "batch": 50}})
    one, again, other = source.read(3), source.read(3), source.read(4)
    assert one.equals(again)
    assert not one.equals(other)
    assert len(one) == 800
    assert set(one["y"]) == {"up", "down"}


def test_the_kinds_differ_in_what_drifts() -> None:
    """Labels drift in ``prior``, features in ``covariate``; in ``stationary`` neither."""

    def halves(kind: str) -> tuple[float, float]:
        frame = KINDS[kind](np.random.default_rng(5), 20_000, 4)
        up = (frame["y"] == "up").to_numpy().astype(float)
        x = frame[["x0", "x1", "x2"]].to_numpy()
        parts = np.array_split(np.arange(len(frame)), 8)
        return float(np.ptp([up[p].mean() for p in parts])), float(
            np.ptp([x[p].mean(axis=0) for p in parts], axis=0).max()
        )

    labels, features = halves("stationary")
    assert labels < 0.05
    assert features < 0.1
    assert halves("prior")[0] > 0.3
    assert halves("covariate")[1] > 0.3


def test_a_stream_is_held_against_the_whole_grid() -> None:
    """Every strategy on the same rows, with losses, costs and series by batch; and goals of what was found."""
    pytest.importorskip("lightgbm")
    settings = SETTINGS["committee"] | {"windows": [2, "all"], "intervals": [1], "mixes": []}
    source = Source(
        name="gradual",
        batch=60,
        generated=True,
        read=lambda seed: KINDS["gradual"](np.random.default_rng(seed), 480, 3),
    )
    unit = committee.one(source, 0, settings)
    told = {name: facts for name, facts in unit.items() if not name.startswith("no skill")}
    assert {"w2/1", "wall/1", "light", "full", "expert refit"} <= set(told)
    for name, facts in told.items():
        assert facts["rows"] == told["light"]["rows"], name
        assert len(facts["losses"]) == len(facts["trees"]) == len(facts["rows"])
        assert sum(facts["trees"]) < facts["row_trees"]
        there = [(loss, n) for loss, n in zip(facts["losses"], facts["rows"], strict=True) if n]
        mean = np.average([loss for loss, _ in there], weights=[n for _, n in there])
        assert mean == pytest.approx(facts["loss"], rel=1e-9)
    part = committee.summarised({"gradual": [unit, unit]}, {"gradual": 60}, settings)
    best = min(told["w2/1"]["loss"], told["wall/1"]["loss"])
    assert part.goals[0].value == float(told["light"]["loss"] <= best)
