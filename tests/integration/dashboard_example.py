"""A deployment to look at: ten weeks of a shop's offers, with a gate that lets through, turns down and quarantines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from perennial import cli

DAYS, PER_DAY = 70, 60
ROWS = DAYS * PER_DAY

CONFIG = """\
name: offers
stream:
  source: rows
  time: at
  time_zone: UTC
  id: id
  key: customer
  label: {column: bought, delay: 12h}
  batch: 6h
model:
  estimator: lightgbm.LGBMClassifier
  params: {n_estimators: 30, num_leaves: 4, min_child_samples: 10, verbose: -1, n_jobs: 1}
  update: decayed
  options: {weigh: false}
strategies:
  daily, reset weekly: {hybrid: {every: 1d, reset: {every: 7d}, window: {sliding: 7d}}}
initial: 5d
deploy: daily, reset weekly
gate: {mode: before, margin: 0.01, planned_labels: 500, least_blocks: 8, block: 6h, on_reject: back}
quality: {nulls: 0.4, least_rows: 10}
retention: 45d
ledger: sqlite:///ledger.db
blobs: blobs
"""


def rows() -> pa.Table:
    """Offers of ten weeks: what customers want turns around, and for one week nobody wrote down their age."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(ROWS, 3))
    day = np.arange(ROWS) / PER_DAY
    turn = np.interp(day, [0, 18, 30, 48, 55, DAYS], [0.0, 0.2, 1.5, 1.6, 2.6, 2.7])
    wants = np.cos(turn) * x[:, 0] + np.sin(turn) * x[:, 1] + rng.normal(size=ROWS) * 0.45 > 0
    odd = (day >= 38) & (day < 42)  # a week of labels that mean nothing: what is learned from them is turned down
    wants[odd] = rng.random(int(odd.sum())) < 0.5
    age = 40 + 9 * x[:, 2]
    age[(day >= 60) & (day < 60.5)] = np.nan
    return pa.table({
        "at": np.datetime64("2026-08-31", "us") + np.arange(ROWS) * np.timedelta64(86_400_000_000 // PER_DAY, "us"),
        "basket": x[:, 0], "visits": x[:, 1], "age": pa.array(age, from_pandas=False),
        "customer": [f"c{i}" for i in rng.integers(0, 400, ROWS)],
        "id": [f"offer-{i}" for i in range(ROWS)], "bought": np.where(wants, "yes", "no"),
    })  # fmt: skip


def deploy(folder: Path) -> Path:
    """Run it to where its rows end, with a roll back by an operator on the way, and give its configuration."""
    (folder / "rows").mkdir(parents=True)
    config = folder / "perennial.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    every, pause = rows(), 27 * PER_DAY
    pq.write_table(every.slice(0, pause), folder / "rows" / "0.parquet")
    assert cli.main(["run", "--once", "-c", str(config)]) == 0
    assert cli.main(["rollback", "-c", str(config), "--reason", "the shop saw odd offers"]) == 0
    pq.write_table(every.slice(pause), folder / "rows" / "1.parquet")
    assert cli.main(["run", "--once", "-c", str(config)]) == 0
    return config
