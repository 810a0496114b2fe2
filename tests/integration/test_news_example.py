"""The example `examples/news`: its made-up stream, its encoder, and its comparison of both workflows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

EXAMPLE = Path(__file__).parents[2] / "examples" / "news"
MODULES = ("encoder", "headlines", "compare")


@pytest.fixture(scope="module")
def news() -> Iterator[SimpleNamespace]:
    """The example's modules, imported as its own script imports them, and forgotten afterwards."""
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield SimpleNamespace(**{name: import_module(name) for name in MODULES})
    finally:
        sys.path.remove(str(EXAMPLE))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


@pytest.fixture(scope="module")
def table(news: SimpleNamespace) -> pa.Table:
    """Thirty days of made-up headlines."""
    return news.headlines.made_up(days=30, a_day=14)


def test_sections_begin_late_in_the_made_up_stream(table: pa.Table) -> None:
    """Three of eight are first seen at two thirds; the same seed gives the same stream."""
    frame = table.to_pandas()
    first = frame.groupby("target")["timestamp"].min().sort_values()
    assert (first < pd.Timestamp("2022-01-08")).sum() == 5
    assert (first >= pd.Timestamp("2022-01-21")).sum() == 3
    assert frame["timestamp"].is_monotonic_increasing


def test_headlines_come_from_where_they_are(
    news: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is named, else the folder's, else none; columns that give the section away are left."""
    monkeypatch.delenv("PERENNIAL_DATA", raising=False)
    assert news.headlines.find() is None
    monkeypatch.setenv("PERENNIAL_DATA", str(tmp_path))
    assert news.headlines.find() is None
    path = tmp_path / news.headlines.NAME
    whole = {"timestamp": [0], "title": ["a"], "domain": ["b"], "sentiment": [1], "link": ["c"], "target": ["d"]}
    pq.write_table(pa.table(whole), path)
    assert news.headlines.find() == path
    assert news.headlines.read(path).column_names == ["timestamp", "title", "target"]
    assert news.headlines.find(Path("mine.parquet")) == Path("mine.parquet")


def test_the_encoder_places_words_and_hides_what_fills_up(news: SimpleNamespace) -> None:
    """Equal words have equal places, and a longer row of zeros says nothing else."""
    rows = news.encoder.encode(pd.DataFrame({"title": ["Storm hits Miami", "storm HITS", ""]}))
    assert rows.shape == (3, news.encoder.LONGEST)
    assert rows[0, 0] == rows[1, 0]
    assert not rows[2].any()
    torch.manual_seed(0)
    encoder = news.encoder.Encoder().eval()
    with torch.no_grad():
        short, whole = encoder(rows[:, :40]), encoder(rows)
    np.testing.assert_allclose(short, whole, atol=1e-6)
    assert torch.isfinite(encoder.self_supervised_loss(rows))


def test_both_workflows_are_compared(news: SimpleNamespace, table: pa.Table) -> None:
    """All strategies are scored on the same rows, above the majority line, and fine-tuning learns the late sections."""
    result: Any = news.compare.compare(table, initial="10d", epochs=4, places=1024, jobs=1)
    assert len({sum(strategy.curve.rows) for strategy in result.values()}) == 1
    assert result["frozen"].costs["trainings"] == 1
    assert result["weekly, anew on all"].costs["trainings"] == 3
    scores = {name: strategy.scores["accuracy"] for name, strategy in result.items()}
    for name in scores:
        if name.startswith("daily"):
            assert result[name].costs["trainings"] > 16
    assert scores["daily, with replay"] > scores["frozen"]
    assert scores["daily, with replay"] > 0.4
    assert {"majority", "no_change"} <= set(result.baselines)
