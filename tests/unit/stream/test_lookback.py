"""Features that look back: the same for any batch size and file split, and blind to the future."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from perennial.core.errors import ConfigError, DataError
from perennial.core.times import instant
from perennial.stream import LookBack, Stream

START = datetime(2026, 1, 1, tzinfo=UTC)
calls: list[tuple[pd.DataFrame, pd.DataFrame]] = []


def history(rows: int = 40) -> pd.DataFrame:
    """Two keys an hour apart, two rows at each instant."""
    numbers = np.arange(rows)
    hours = pd.to_timedelta(numbers // 2, unit="h")
    return pd.DataFrame(
        {"at": pd.Timestamp(START) + hours, "who": [1, 2] * (rows // 2), "price": numbers * 1.5, "y": numbers % 2}
    )


def means(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Mean past price of each row's key, and how many past rows there are."""
    calls.append((past, now))
    past_of = past.groupby("who")["price"]
    mean, count = past_of.mean(), past_of.size()
    return pd.DataFrame(
        {
            "mean": [mean.get(w, np.nan) for w in now["who"]],
            "count": [int(count.get(w, 0)) for w in now["who"]],
            "price": now["price"],
            "first": ["yes" if w not in count else "no" for w in now["who"]],
        }
    )


def wrong_length(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Loses a row."""
    return now[["price"]].iloc[1:]


def changing(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Has other columns where there is a past."""
    return now[["price"]].rename(columns={} if past.empty else {"price": "other"})


def retyping(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Changes a type where there is a past."""
    return pd.DataFrame({"price": now["price"] if past.empty else ["x"] * len(now)})


def failing(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Fails."""
    raise KeyError("gone")


def no_frame(past: pd.DataFrame, now: pd.DataFrame) -> Any:
    """Gives no frame."""
    return 3


def unsure(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Has no word before it has seen a past."""
    return pd.DataFrame({"price": now["price"], "word": [None if past.empty else "seen"] * len(now)})


def features(tmp_path: Path, source: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """All features of the source."""
    how = {"time": "at", "target": "y", "key": "who", "features": means, "lookback": "3h", **settings}
    p = Stream(source, **how).prepare(tmp_path)
    return pd.concat([b.features.frame() for b in p.batches("classification")], ignore_index=True)


def test_past_rows_of_the_key(tmp_path: Path) -> None:
    """`past` holds the rows of the key in the half-open span before the instant, and no label."""
    calls.clear()
    got = features(tmp_path, history())
    source = history()
    for i, row in source.iterrows():
        span = (source["at"] < row["at"]) & (source["at"] >= row["at"] - pd.Timedelta("3h"))
        past = source[span & (source["who"] == row["who"])]["price"]
        assert got["count"][i] == len(past)
        assert np.array_equal(got["mean"][i], past.mean(), equal_nan=True)
    assert list(got.columns) == ["mean", "count", "price", "first"]
    assert all(list(past.columns) == list(now.columns) == ["at", "who", "price"] for past, now in calls)
    assert [len(now) for _, now in calls] == [2] * 20


def test_without_a_key_all_rows_are_past(tmp_path: Path) -> None:
    """Without a key `past` holds every row of the span."""
    calls.clear()
    features(tmp_path, history(), key=None)
    assert [len(past) for past, _ in calls][:5] == [0, 2, 4, 6, 6]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_how_rows_arrive_changes_nothing(size: int, tmp_path: Path) -> None:
    """Fed in any portions, the function gives the same features and holds no more than it can still ask for."""
    whole = features(tmp_path, history())
    table = pa.Table.from_pandas(history().drop(columns=["y"]), preserve_index=False)
    time = table.column("at").cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    back = LookBack(means, timedelta(hours=3), time="at", key="who", zone="UTC", lateness=timedelta(0))
    parts = []
    for low in range(0, 40, size):
        batch = table.slice(low, size).combine_chunks().to_batches()[0]
        parts.append(back.feed(batch, time[low : low + size]))
        assert back.held <= 8 + size
    parts.append(back.finish())
    got = pa.concat_tables([p for p in parts if p is not None]).to_pandas()
    pd.testing.assert_frame_equal(got, whole, check_dtype=False)


def test_the_future_is_not_seen(tmp_path: Path) -> None:
    """Changing rows from some instant on changes no earlier feature."""
    poisoned = history()
    poisoned.loc[20:, ["price", "who"]] = [1e9, 1]
    got, clean = features(tmp_path, poisoned), features(tmp_path, history())
    pd.testing.assert_frame_equal(got[:20], clean[:20])
    assert not got[20:].equals(clean[20:])


def test_late_rows_see_what_had_come(tmp_path: Path) -> None:
    """A late row sees rows that came before it and are older; rows after it see it."""
    calls.clear()
    hours = [0, 2, 1, 3]
    source = pd.DataFrame({"at": [START + timedelta(hours=h) for h in hours], "who": [1] * 4, "price": [0.0, 2, 1, 3]})
    source["y"] = 0
    features(tmp_path, source, lateness="2h", lookback="1d")
    assert [past["price"].tolist() for past, _ in calls] == [[], [0], [0], [0, 1, 2]]
    calls.clear()
    features(tmp_path, source, lateness="2h", lookback="1d", key=None)
    assert [past["price"].tolist() for past, _ in calls] == [[], [0], [0], [0, 1, 2]]


def test_numbers_keep_one_type(tmp_path: Path) -> None:
    """Whole numbers arrive as float64 and keys as nullable integers, so that a missing one changes no type."""
    calls.clear()
    source = history().assign(units=range(40), who=pd.array([1, None] * 20, dtype="Int64"))
    features(tmp_path, source)
    past, now = calls[-1]
    assert (now["units"].dtype, str(now["who"].dtype), past["units"].dtype) == ("float64", "Int64", "float64")
    assert past["who"].notna().all()  # a row without a key has no past and is nobody's


def test_a_column_of_nothing_but_nulls_counts_as_numbers() -> None:
    """Once such a column went out, words in it are refused in words; in one portion with words, it is of words."""
    table = pa.Table.from_pandas(history().drop(columns=["y"]), preserve_index=False)
    time = table.column("at").cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    for size in (2, 40):
        back = LookBack(unsure, timedelta(hours=3), time="at", key="who", zone="UTC", lateness=timedelta(0))
        low = 0
        with pytest.raises(DataError, match="'word' as string, and as double") if size == 2 else nullcontext():
            for low in range(0, 40, size):
                back.feed(table.slice(low, size).combine_chunks().to_batches()[0], time[low : low + size])
        assert low == (0 if size == 40 else 4)  # an instant's rows go out once the next one is there


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (wrong_length, "wrong_length gave 1 rows for the 2"),
        (changing, r"changing gave columns \['other'\]"),
        (retyping, "retyping gave column 'price'"),
        (failing, "failing failed on the rows of 2026-01-01.*KeyError: 'gone'"),
        (no_frame, "no_frame gave a int"),
    ],
)
def test_what_a_function_must_not_do(function: Any, message: str, tmp_path: Path) -> None:
    """A function that breaks the rules is named with the rule."""
    with pytest.raises(DataError, match=message):
        features(tmp_path, history(), features=function)


def test_a_function_by_name(tmp_path: Path) -> None:
    """A function can be named as package.module:function; a wrong name is refused."""
    stream = Stream(history()[["at", "price"]], time="at", features="pandas:merge_ordered", lookback="1h")
    assert stream.describe()["features"] == "pandas:merge_ordered"
    for name, message in (("nothing.here:f", "cannot be imported"), ("pandas:DataFram", "did you mean `DataFrame`")):
        with pytest.raises(ConfigError, match=message):
            Stream(history(), time="at", features=name, lookback="1h").prepare(tmp_path)


def test_times_are_in_the_zone_of_the_stream(tmp_path: Path) -> None:
    """The time column of the frames is in the stream's zone."""
    calls.clear()
    features(tmp_path, history(), time_zone="Europe/Lisbon")
    assert str(calls[0][1]["at"].dt.tz) == "Europe/Lisbon"
    assert instant(calls[0][1]["at"][0].to_pydatetime()) == instant(START)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        (pa.array(["a", "b"]), "a"),
        (pa.array([7, 8]), "7"),
        (pa.array([7.5, 8.5]), "7.5"),
        (pa.array([True, False]), "True"),
        (pa.array([Decimal("7.50"), Decimal("8.50")]), "7.50"),
        (pa.array([date(2026, 1, 1), date(2026, 1, 2)]), "2026-01-01"),
        (pa.array(["--7", "-7"]), "--7"),
    ],
    ids=["text", "whole", "fraction", "truth", "decimal", "date", "dashes"],
)
def test_a_key_is_erased_whatever_its_type(keys: Any, key: str) -> None:
    """Its rows go, those of another key and of none stay: keys are compared as text, as in the store."""
    look = LookBack(means, timedelta(days=9), time="at", key="who", zone="UTC", lateness=timedelta(0))
    who = keys.take(pa.array([0, 1, None, 0]))
    time = np.arange(4) * 3_600_000_000
    look.feed(pa.record_batch({"at": pa.array(time), "who": who, "price": pa.array([1.0, 2.0, 3.0, 4.0])}), time)
    look.erase(key)
    kept = pa.ipc.open_stream(look.state().arrays["held"].tobytes()).read_all()
    assert kept.column("price").to_pylist() == [2.0, 3.0]
    look.erase("nobody")
    assert look.held == 2


def picky(past: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Fails on some prices, in each way that there is."""
    first = now["price"].iloc[0]
    if first == 3.0:
        raise ValueError("3.0 is a secret")
    if first == 9.0:
        return now[["price"]].iloc[1:]
    if first == 15.0:
        return pd.DataFrame({"price": ["x"] * len(now), "word": "w", "seen": 0})
    return pd.DataFrame({"price": now["price"], "word": "w", "seen": [len(past)] * len(now)})


def instants_of(frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Event times as the engine counts them."""
    return np.array([instant(at.to_pydatetime()) for at in frame["at"]], dtype=np.int64)


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_what_is_forgiven_is_null(rows: int) -> None:
    """However rows are cut: an instant on which the function fails has no features, and the others have theirs."""
    frame = history()
    looking = LookBack(
        picky, timedelta(hours=3), time="at", key=None, zone="UTC", lateness=timedelta(0), forgiving=True
    )
    table, time = pa.Table.from_pandas(frame.drop(columns="y")), instants_of(frame)
    parts = []
    for start in range(0, 40, rows):
        part = table.slice(start, rows).combine_chunks().to_batches()[0]
        parts.append(looking.feed(part, time[start : start + rows]))
    parts.append(looking.finish())
    got = pa.concat_tables([part for part in parts if part is not None], promote_options="permissive").to_pylist()
    without = [i for i, row in enumerate(got) if row == {"price": None, "word": None, "seen": None}]
    assert without == [2, 3, 6, 7, 10, 11]
    assert [row["price"] for i, row in enumerate(got) if i not in without] == [
        price for i, price in enumerate(frame["price"]) if i not in without
    ]
    assert got[12] == {"price": 18.0, "word": "w", "seen": 6.0}  # rows that failed are past for others
    told = looking.failures()
    assert told == "features: 6 rows have none, as picky failed (DataError)"
    assert looking.failures() is None


def test_nothing_is_forgiven_before_columns_are_known() -> None:
    """What rows without features would lack must have been said."""
    frame = history(4)
    rows = pa.Table.from_pandas(frame.drop(columns="y")).combine_chunks().to_batches()[0]
    looking = LookBack(
        wrong_length, timedelta(hours=3), time="at", key=None, zone="UTC", lateness=timedelta(0), forgiving=True
    )
    time = instants_of(frame)
    with pytest.raises(DataError, match="gave 1 rows for the 2"):
        looking.feed(rows, time)
    looking = LookBack(
        wrong_length, timedelta(hours=3), time="at", key=None, zone="UTC", lateness=timedelta(0), forgiving=True
    )
    looking.know({"price": pa.float64(), "word": pa.string()})
    assert looking.feed(rows, time).to_pylist() == [{"price": None, "word": None}] * 2
