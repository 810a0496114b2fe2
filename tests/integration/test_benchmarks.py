"""The benchmarks run and compare like with like; how quick anything is, no test says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

suite = pytest.importorskip("benchmarks.suite", reason="the benchmarks are beside the package in its repository")
common = pytest.importorskip("benchmarks.common")

#: how many figures each benchmark gives on made-up rows
FIGURES = {
    "import_time": 2,
    "engine_lightgbm": 3,
    "river_rows": 6,
    "shared_cadences": 1,
    "two_processes": 2,
    "block_sums": 6,
    "memory": 1,
    "gate": 78,
    "durable_turn": 5,
    "ingest_append": 4,
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_benchmark_finds_the_results_of_both_sides_equal(name):
    """Every benchmark runs at a tiny size, and what it compares gives the same results."""
    outcome = suite.run([name], "tiny")
    assert outcome.different == {}
    assert len(outcome.figures) == FIGURES[name]
    assert all(figure.checked and figure.value > 0 for figure in outcome.figures)


def test_every_benchmark_is_tested():
    """The list of benchmarks and the list tested here are one."""
    assert sorted(suite.NAMES) == sorted(FIGURES)
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(suite.NAMES) == files - {"__init__", "__main__", "common", "suite"}


def test_different_results_give_no_speed(monkeypatch):
    """Where results differ, a benchmark gives the reason and no figure."""
    from benchmarks import engine_lightgbm

    right = engine_lightgbm._bare
    monkeypatch.setattr(engine_lightgbm, "_bare", lambda *given: right(*given) + 1e-12)
    outcome = suite.run(["engine_lightgbm"], "tiny")
    assert outcome.figures == []
    assert outcome.different == {"engine_lightgbm": "probabilities of the engine and of the loop, bit for bit"}


@pytest.mark.parametrize(
    ("limits", "met"),
    [({"at_most": 2.0}, True), ({"at_most": 1.9}, False), ({"at_least": 2.1}, False), ({}, None)],
)
def test_a_figure_is_the_median_of_its_rounds_held_against_the_target(limits, met, tmp_path):
    """The median counts, a limit may be met exactly, and the file says all of it."""
    figure = common.Figure(benchmark="b", what="w", peer="p", rounds=[9.0, 2.0, 1.0], **limits)
    assert figure.value == 2.0
    assert figure.met is met
    suite.write(suite.Outcome(size="tiny", figures=[figure]), tmp_path / "results.json")
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["figures"][0]["value"] == 2.0
    assert told["figures"][0]["met"] is met
    assert told["figures"][0]["rounds"] == [9.0, 2.0, 1.0]
    assert {"python", "numpy", "perennial"} <= told["versions"].keys()


def test_rounds_are_interleaved_and_turn_about():
    """Arms take turns within each round, and every second round goes backwards."""
    order = []
    arms = {name: (lambda name=name: order.append(name)) for name in "ab"}
    measured = common.interleaved(arms, 3)
    assert "".join(order) == "abbaab"
    assert {name: len(found) for name, found in measured.items()} == {"a": 3, "b": 3}
