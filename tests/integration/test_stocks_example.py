"""The example `examples/stocks`: its labels, its features, and the same comparison from Python and from YAML."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from perennial.core.times import moment
from perennial.stream.lookback import LookBack

EXAMPLE = Path(__file__).parents[2] / "examples" / "stocks"
MODULES = ("features", "prepare", "compare")
SINCE = datetime(2016, 5, 16)  # the last two years
SMALL: dict[str, Any] = {"initial": "545d", "trees": 3, "rows": 900}


@pytest.fixture(scope="module")
def stocks() -> Iterator[SimpleNamespace]:
    """The example's modules, imported as its own scripts import them, and forgotten afterwards."""
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
def table(stocks: SimpleNamespace) -> pa.Table:
    """Two years of labelled rows."""
    return stocks.prepare.labelled(stocks.prepare.prices(SINCE))


@pytest.fixture(scope="module")
def result(stocks: SimpleNamespace, table: pa.Table) -> Any:
    """The example's comparison on them, made small."""
    return stocks.compare.compare(table, **SMALL, jobs=1)


def built(stocks: SimpleNamespace, prices: pa.Table, feed: int = 500) -> pd.DataFrame:
    """The features of all rows, as a stream would have them built."""
    instants = prices["timestamp"].cast(pa.int64()).to_numpy()
    look = LookBack(
        stocks.features.build,
        timedelta(days=120),
        time="timestamp",
        key="ticker",
        zone="UTC",
        lateness=timedelta(0),
    )
    parts = [look.feed(prices.slice(at, feed), instants[at : at + feed]) for at in range(0, len(instants), feed)]
    return pa.concat_tables([part for part in [*parts, look.finish()] if part is not None]).to_pandas()


def test_a_label_is_known_at_the_close_it_looks_at(table: pa.Table) -> None:
    """A label compares a ticker's adjusted close with that five of its trading days later, and is known then."""
    frame = table.to_pandas()
    for _, own in frame.groupby("ticker"):
        days, closes = own["timestamp"].tolist(), own["adjusted_close"].tolist()
        labels, known = own["label"].tolist(), own["known_at"].tolist()
        for i in range(len(days) - 5):
            change = closes[i + 5] / closes[i] - 1
            assert known[i] == days[i + 5]
            assert labels[i] == ("buy" if change >= 0.02 else "sell" if change <= -0.02 else "hold")
        assert all(pd.isna(value) for value in [*labels[-5:], *known[-5:]])
    assert set(frame["label"].dropna()) == {"buy", "hold", "sell"}


def test_features_are_those_of_a_rolling_computation(stocks: SimpleNamespace) -> None:
    """Built from 120 days of past, features are what pandas computes on each ticker's whole series."""
    prices = stocks.prepare.prices(SINCE).select(["timestamp", "ticker", "adjusted_close", "volume"])
    frame = prices.to_pandas()
    expected = pd.DataFrame(index=frame.index, columns=list(stocks.features.NAMES), dtype="float64")
    for _, own in frame.groupby("ticker"):
        price, volume, rows = own["adjusted_close"], own["volume"].astype("float64"), own.index
        for n in (5, 10, 20, 50):
            expected.loc[rows, f"price_to_{n}"] = price / price.rolling(n).mean() - 1
        expected.loc[rows, "10_to_50"] = price.rolling(10).mean() / price.rolling(50).mean() - 1
        for n in (1, 5, 20):
            expected.loc[rows, f"return_{n}"] = price.pct_change(n)
        expected.loc[rows, "volatility_20"] = price.pct_change().rolling(20).std()
        expected.loc[rows, "volume_to_20"] = volume / volume.rolling(20).mean() - 1
    pd.testing.assert_frame_equal(built(stocks, prices), expected, rtol=1e-9, atol=1e-12)
    assert expected.iloc[0].isna().all()
    assert expected.iloc[300:].notna().all(axis=None)


def test_features_cannot_see_later_prices(stocks: SimpleNamespace) -> None:
    """Spoiling all prices and volumes from a day on leaves every earlier feature as it was, to the bit."""
    prices = stocks.prepare.prices(SINCE).select(["timestamp", "ticker", "adjusted_close", "volume"]).slice(0, 1200)
    frame, at = prices.to_pandas(), 900
    later = frame.index >= at
    frame.loc[later, "adjusted_close"] = 1e6
    frame.loc[later, "volume"] = 1
    whole, spoilt = built(stocks, prices), built(stocks, pa.Table.from_pandas(frame, preserve_index=False))
    pd.testing.assert_frame_equal(spoilt[:at], whole[:at], check_exact=True)
    assert not spoilt[at:].equals(whole[at:])


def test_features_are_untouched_by_later_adjustments(stocks: SimpleNamespace) -> None:
    """A later split or dividend rescales all earlier adjusted closes, and changes no feature."""
    prices = stocks.prepare.prices(SINCE).select(["timestamp", "ticker", "adjusted_close", "volume"]).slice(0, 600)
    frame = prices.to_pandas()
    frame["adjusted_close"] /= 7
    rescaled = built(stocks, pa.Table.from_pandas(frame, preserve_index=False))
    pd.testing.assert_frame_equal(rescaled, built(stocks, prices), rtol=0, atol=1e-12)


def test_no_training_uses_a_label_that_was_not_known(result: Any, table: pa.Table) -> None:
    """The newest example of every training is at least five trading days old, and older where windows are purged."""
    days = pd.DatetimeIndex(table["timestamp"].to_pandas().unique())

    def day(instant: int) -> pd.Timestamp:
        return pd.Timestamp(moment(instant)).tz_convert("America/New_York").tz_localize(None)

    def fifth_after(newest: pd.Timestamp) -> pd.Timestamp:
        return days[days.get_loc(newest) + 5]

    for strategy in result.values():
        for version in strategy.versions:
            at, newest = day(version.at), day(version.newest)
            assert fifth_after(newest) <= at, f"{strategy.name} {version.number}"
            if strategy.kind == "stateless":
                assert at - newest >= timedelta(days=8)
    (frozen,) = result["frozen"].versions
    unused = days[days.get_loc(day(frozen.newest)) + 1]
    assert fifth_after(unused) > day(frozen.at)  # without purge all that is known is used: the check is tight


def test_intervals_and_windows_are_what_they_are_called(result: Any) -> None:
    """Daily retraining trains every trading day, weekly at most every week, and all are scored on the same rows."""
    trainings = {name: strategy.costs["trainings"] for name, strategy in result.items()}
    (rows,) = {sum(strategy.curve.rows) for strategy in result.values()}
    assert trainings["frozen"] == 1
    assert trainings["daily, 3 years"] == rows / 6 + 5  # six tickers; the last five days have no label to score
    assert 24 <= trainings["weekly, 3 years"] <= 27
    assert 6 <= trainings["monthly, 3 years"] <= 7
    assert 2 <= trainings["quarterly, 3 years"] <= 3
    sizes = [version.trained_rows for version in result["weekly, 30/70 mix"].versions]
    assert max(sizes) == SMALL["rows"]
    assert {"majority", "no_change"} <= set(result.baselines)


def test_yaml_says_the_same_as_python(result: Any, table: pa.Table, tmp_path: Path) -> None:
    """`prepare.py` and `perennial backtest` on the YAML give the strategies and scores that Python gives."""
    folder = tmp_path / "stocks"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("report", ".perennial", "__pycache__", "stream.*"))
    _edit(folder / "prepare.py", {"datetime(2009, 1, 1)": "datetime(2016, 5, 16)"})
    _edit(
        folder / "perennial.yaml",
        {"n_estimators: 30": "n_estimators: 3", "initial: 1826d": "initial: 545d", "rows: 4500": "rows: 900"},
    )
    _run(str(folder / "prepare.py"))
    _run("-m", "perennial", "backtest", "-c", str(folder / "perennial.yaml"), "--jobs", "1", "--no-cache")
    said = json.loads((folder / "report" / "report.json").read_text())["strategies"]
    assert {s["name"]: s["description"] for s in said} == {s.name: s.description for s in result.values()}
    assert {s["name"]: s["scores"] for s in said} == {s.name: dict(s.scores) for s in result.values()}


def test_the_yaml_and_the_python_have_the_same_settings(stocks: SimpleNamespace) -> None:
    """What the test of both replaces for speed is the same in both as well."""
    text = (EXAMPLE / "perennial.yaml").read_text()
    defaults = stocks.compare.compare.__kwdefaults__
    assert f"initial: {defaults['initial']}" in text
    assert f"n_estimators: {defaults['trees']}," in text
    assert f"rows: {defaults['rows']}," in text


def _edit(file: Path, changes: dict[str, str]) -> None:
    text = file.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
