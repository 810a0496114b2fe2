"""The benchmarks run and compare like with like; how quick anything is, no test says."""

from __future__ import annotations

import json
import sys
import time
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
    "serving": 6,
    "swaps": 8,
    "taking_in": 8,
    "freshness": 1,
}


#: whose parts are run by tests of their own: test_swap_under_load.py, test_loop.py
ELSEWHERE = {"swaps", "freshness"}


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - ELSEWHERE))
def test_a_benchmark_finds_the_results_of_both_sides_equal(name, monkeypatch):
    """Every benchmark runs at a tiny size, and what it compares gives the same results."""
    monkeypatch.delenv("PERENNIAL_POSTGRES", raising=False)  # another server is another figure
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


def test_a_peer_that_is_missing_is_told_with_the_reason(monkeypatch, tmp_path):
    """No network, no peer: the table and the file say so, and figures of the others stand."""
    from benchmarks.servers import peers

    monkeypatch.setattr(peers, "CACHE", tmp_path)
    monkeypatch.setattr(peers, "REQUIREMENTS", {"mlflow": ("no such package ==1",)})
    with pytest.raises(peers.NotInstalled, match="no such package"):
        peers.environment("mlflow")
    outcome = suite.Outcome(
        size="tiny", missing=[common.NotMeasured(benchmark="serving", peer="mlflow models serve", reason="no network")]
    )
    suite.write(outcome, tmp_path / "results.json")
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["not_measured"] == [{"benchmark": "serving", "peer": "mlflow models serve", "reason": "no network"}]


def test_cpu_of_a_tree_counts_children_that_ended(tmp_path):
    """What a server's processes burned is counted, whether they still live or not, and all of them end with it."""
    from benchmarks.servers.process import serving

    burn = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass\n"
    script = f"""
import os, pathlib, subprocess, sys, time
burn = {burn!r}
subprocess.run([sys.executable, "-c", burn])
subprocess.Popen([sys.executable, "-c", burn + "open('left', 'w').close(); time.sleep(600)"])
while not os.path.exists("left"):
    time.sleep(0.01)
exec(burn)
pathlib.Path("done").touch()
time.sleep(600)
"""
    done = tmp_path / "done"
    with serving([sys.executable, "-c", script], 1, tmp_path, ready=lambda _: done.exists()) as server:
        assert server.cpu_seconds() >= 0.9
        assert len(server.processes()) == 2
    deadline = time.monotonic() + 60
    while any(fields[0] != "Z" for fields in server.processes().values()):  # whoever has to bury them may be late
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rounds_are_interleaved_and_turn_about():
    """Arms take turns within each round, and every second round goes backwards."""
    order = []
    arms = {name: (lambda name=name: order.append(name)) for name in "ab"}
    measured = common.interleaved(arms, 3)
    assert "".join(order) == "abbaab"
    assert {name: len(found) for name, found in measured.items()} == {"a": 3, "b": 3}
