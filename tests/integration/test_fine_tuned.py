"""A PyTorch network in production: from a configuration to weights in the ledger, kept, opened and made again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perennial.learners.saved import codec_of
from perennial.ledger.sql import SqlLedger
from tests.command import perennial

pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

YAML = """\
name: shop
stream: {source: rows.parquet, time: at, time_zone: UTC, text: [said], label: {column: y, delay: 6h}, batch: 1d}
model:
  estimator: perennial.learners.FineTuned
  params:
    {module: "shop_nets:Letters", params: {width: 8}, encode: "shop_nets:encode", epochs: 8, rate: 1e-2, anchor: 1e-3}
initial: 3d
strategies: {daily: {stateful: {every: 1d}}}
deploy: daily
"""
NETS = '''\
"""An encoder of short texts: the mean of what its letters are."""

import torch
from torch import nn


class Letters(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.table = nn.Embedding(27, width)

    def forward(self, letters):
        return self.table(letters).mean(dim=1)


def encode(frame):
    return torch.tensor([[ord(c) % 26 for c in text.ljust(5)[:5]] for text in frame["said"]])
'''


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration, the module that it names, and a week of short texts; a third class comes on the fifth day."""
    rng = np.random.default_rng(0)
    n = 240
    kind = np.where(np.arange(n) < 120, rng.integers(0, 2, n), rng.integers(0, 3, n))
    words = ["ab", "cd", "ef"]
    said = [words[k] + "".join(rng.choice(list("xyz"), 3)) for k in kind]
    at = np.datetime64("2026-01-01", "us") + np.arange(n) * np.timedelta64(45, "m")
    table = pa.table({"at": at, "said": said, "y": np.array(["up", "down", "away"])[kind]})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "shop_nets.py").write_text(NETS)
    (tmp_path / "perennial.yaml").write_text(YAML)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("shop_nets", None)


def asked(shop: Path, *words: str, code: int = 0) -> Any:
    """What a command tells as JSON."""
    done = perennial(*words, "--json", cwd=shop)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_network_runs_from_a_configuration(shop: Path) -> None:
    """Its versions lie in the ledger as safetensors; any is made again to the bit, and opens elsewhere."""
    told = asked(shop, "run", "--until-end")
    assert told["champion"] == "1.4"
    assert [one["number"] for one in asked(shop, "versions")] == [f"1.{i}" for i in range(5)]

    with SqlLedger.open(f"sqlite:///{shop}/.perennial/ledger.db", "shop", create=False) as ledger:
        blob = ledger.get(ledger.versions()[-1].blob)
    assert codec_of(blob) == "native"
    assert b"module.table.weight" in blob  # safetensors names what it holds
    for number in ("1.0", "1.3", "champion"):
        assert asked(shop, "reproduce", number)["same"]
    assert perennial("doctor", cwd=shop).returncode == 0

    asked(shop, "export", "champion", "-o", "out")
    (file,) = (shop / "out").rglob("*.safetensors")
    weights = safetensors.load_file(file)
    assert weights["module.table.weight"].shape == (27, 8)
    assert weights["head.weight"].shape == (3, 8)


def test_a_network_that_keeps_rows_is_refused_where_none_may_be_kept(shop: Path) -> None:
    """`replay` under `retention: none` is an error before any training; an anchor holds weights, and is none."""
    file = shop / "perennial.yaml"
    plain = YAML + "retention: none\n"
    file.write_text(plain.replace("anchor: 1e-3", "replay: 20"))
    done = perennial("run", "--until-end", cwd=shop)
    assert done.returncode != 0
    assert "keeps up to 20 rows to replay" in done.stderr
    file.write_text(plain)
    assert asked(shop, "run", "--until-end")["champion"] == "1.4"


def test_a_setting_that_is_wrong_is_found_in_the_file(shop: Path) -> None:
    """It is named with its line's setting, before any row is read."""
    (shop / "perennial.yaml").write_text(YAML.replace("epochs: 8", "epoch: 8"))
    done = perennial("run", "--until-end", cwd=shop)
    assert done.returncode != 0
    assert "did you mean `epochs`?" in done.stderr


def test_another_network_does_not_go_on_from_the_saved_weights(shop: Path) -> None:
    """The architecture is code: a changed one is found by its identity, and by the shapes of the weights."""
    asked(shop, "run", "--until-end")
    (shop / "perennial.yaml").write_text(YAML.replace("{width: 8}", "{width: 9}"))
    done = perennial("run", "--until-end", cwd=shop)
    assert done.returncode != 0
    assert "its model, or a library of its changed" in done.stderr
    done = perennial("run", "--until-end", "--accept", cwd=shop)
    assert done.returncode != 0
    assert "the saved weights are of another network than Letters is now" in done.stderr
