"""The settings of a stream are checked when they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from perennial.core.errors import ConfigError
from perennial.stream import Stream

TABLE = pd.DataFrame({"at": pd.date_range("2026-01-01", periods=3), "x": [1, 2, 3], "y": [0, 1, 0]})

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"source": "nowhere.parquet"}, "no such file"),
    ({"source": "nowhere/*.csv"}, "no such file"),
    ({"source": 3}, "a table of pyarrow, pandas or Polars"),
    ({"time": ""}, "name the column of event times"),
    ({"target": "at"}, "already `time`"),
    ({"weight": 3}, "name of a column"),
    ({"drop": "x"}, "a list of column names"),
    ({"drop": ["y"], "target": "y"}, "take it out"),
    ({"time_zone": "Europe/Lissabon"}, "did you mean `Europe/Lisbon`"),
    ({"batch": 0}, "at least 1 row"),
    ({"batch": True}, "number of rows"),
    ({"batch": "36h"}, "whole days"),
    ({"batch": "0mo"}, "positive"),
    ({"batch": "daily"}, "duration"),
    ({"target": "y", "within": "3d"}, "go together"),
    ({"target": "y", "absent": 0}, "go together"),
    ({"target": "y", "within": "0d", "absent": 0}, "positive"),
    ({"target": "y", "label_delay": "1d", "known_at": "k"}, "give one"),
    ({"label_delay": "1d"}, "name their column"),
    ({"target": "y", "labels": TABLE}, "refers to rows by id"),
    ({"features": "a:b"}, "go together"),
    ({"lookback": "1d"}, "go together"),
    ({"features": "no function", "lookback": "1d"}, "package.module:function"),
    ({"features": 3, "lookback": "1d"}, "give a function"),
    ({"lateness": "soon"}, "duration"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Each wrong setting is refused at once, with the rule."""
    source = settings.pop("source", TABLE) if "source" in settings else TABLE
    with pytest.raises(ConfigError, match=message):
        Stream(source, **{"time": "at", **settings})


def test_folders_hold_one_kind_of_file(tmp_path: Path) -> None:
    """A folder of mixed files is refused, and so is an empty one; hidden files do not count."""
    with pytest.raises(ConfigError, match="empty"):
        Stream(tmp_path, time="at")
    (tmp_path / "a.csv").write_text("at,x\n2026-01-01,1\n")
    (tmp_path / ".hidden").touch()
    assert Stream(tmp_path, time="at").name == tmp_path.name
    TABLE.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"a.csv and b.parquet are of two kinds"):
        Stream(tmp_path, time="at")
    (tmp_path / "b.parquet").rename(tmp_path / "b.txt")
    with pytest.raises(ConfigError, match="name them with a glob"):
        Stream(tmp_path, time="at")
    assert Stream(str(tmp_path / "*.csv"), time="at").describe()["source"].endswith("*.csv")


def test_the_rule_of_labels_in_words() -> None:
    """Reports say in words when labels become known."""
    rules: list[tuple[dict[str, Any], str]] = [
        ({}, "known at once"),
        ({"label_delay": "0s"}, "known at once"),
        ({"known_at": "k"}, "known at `k`"),
        ({"known_at": "k", "within": "90d", "absent": 0}, "known at `k`; 0 after 90d of silence, others wait as long"),
        ({"within": "90d", "absent": "no", "positives_wait": False}, "known at once; 'no' after 90d of silence"),
        ({"id": "i", "labels": TABLE, "label_wait": "5d"}, "known when the label log says, up to 5d after the event"),
        (
            {"id": "i", "labels": TABLE, "label_delay": "1d", "label_wait": "5d"},
            "known 1d after the event, or as the label log says, up to 5d after the event",
        ),
    ]
    for settings, words in rules:
        assert Stream(TABLE, time="at", target="y", **settings).label_rule == words
    assert Stream(TABLE, time="at").label_rule == "no labels"
