"""The bank example: its Python and its configuration are one comparison, and it runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jsonschema
import pyarrow.parquet as pq

from perennial.config import load
from perennial.replay.report import schema

ROOT = Path(__file__).parents[2]


def example():
    """examples/bank/compare.py as a module."""
    spec = importlib.util.spec_from_file_location("compare_bank", ROOT / "examples" / "bank" / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_runs_and_tells_what_the_configuration_tells(tmp_path):
    """On the first calls and few trees: the strategies, windows and triggers are those of the demo's file."""
    module = example()
    source = tmp_path / "bank.parquet"
    pq.write_table(pq.read_table(module.BANK).slice(0, 12_500), source)
    result = module.compare(str(source), trees=5, jobs=1)
    built = load(ROOT / "src" / "perennial" / "demo" / "perennial.yaml").build()
    assert list(result) == list(built.strategies)
    for name, strategy in built.strategies.items():
        assert result[name].kind == strategy.kind
        assert result[name].description.endswith(str(strategy))
        assert result[name].scores["log_loss"] is not None
    assert result["frozen"].costs["trainings"] == 1
    assert result.recommended["by"] == "money"
    report = result.to_dict()
    jsonschema.Draft202012Validator(schema()).validate(report)
    advice = report["advice"]
    assert advice == result.advice().to_dict()
    assert (advice["unit"], advice["per"], advice["reference"]) == ("money", "span", "frozen")
    assert advice["if_double"] is not None
    assert advice["strategy"] == result.recommended["strategy"]
    assert advice["sentences"][0] in result.to_html(tmp_path / "report.html").read_text()


def test_the_bundled_data_hold_no_leak():
    """The call's duration, which gives the answer away, is not in the file."""
    assert "duration" not in pq.read_schema(example().BANK).names
