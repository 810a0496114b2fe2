"""Batches as rows arrive are the batches that a replay of all of them has, to the last bit."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import perennial as pn
from perennial.core.state import State
from perennial.stream.feed import OffsetGone
from perennial.stream.intake import Intake

N = 500


def table(n=N, seed=0):
    """Rows some minutes apart, several at the same instant, some late, with words and missing values."""
    rng = np.random.default_rng(seed)
    at = np.datetime64("2026-10-24T20:00", "us") + np.sort(rng.integers(0, n // 3, n)) * np.timedelta64(20, "m")
    at[n // 2 : n // 2 + 9] -= np.timedelta64(90, "m")
    a = rng.normal(size=n)
    return pa.table({
        "at": at, "a": pa.array(a, mask=rng.random(n) < 0.1),
        "word": pa.array([f"w{i}" for i in rng.integers(0, n // 20, n)], mask=rng.random(n) < 0.1),
        "who": [f"c{i}" for i in rng.integers(0, 9, n)], "w": rng.uniform(1, 2, n), "id": np.arange(n),
        "k": pa.array(at + rng.integers(0, 900, n) * np.timedelta64(1, "m"), mask=rng.random(n) < 0.2),
        "y": pa.array(np.array(["b", "a", "c"])[rng.integers(0, 3, n)], mask=rng.random(n) < 0.1),
    })  # fmt: skip


def recent(past, now):
    """How many rows of the same key there were, and their mean."""
    out = now[[]].copy()
    counts = past.groupby("who").agg(n=("a", "size"), mean=("a", "mean"))
    out["n"] = now["who"].map(counts["n"]).fillna(0.0) if len(counts) else 0.0
    out["mean"] = now["who"].map(counts["mean"]).astype(float) if len(counts) else np.nan
    out["here"] = float(len(now))
    return out


SETTINGS = {
    "daily": {"batch": "1d", "time_zone": "Europe/Lisbon"},
    "hours, known at": {"batch": "6h", "known_at": "k", "label_delay": None, "time_zone": "UTC"},
    "rows": {"batch": 37, "time_zone": "UTC"},
    "one by one": {"batch": 1, "time_zone": "UTC"},
    "silence": {"batch": 50, "within": "5h", "absent": "a", "known_at": "k", "label_delay": None, "time_zone": "UTC",
                "positives_wait": False},
    "look back by rows": {"batch": 37, "time_zone": "UTC", "key": "who", "features": recent, "lookback": "1d"},
    "look back by days": {"batch": "1d", "time_zone": "UTC", "key": "who", "features": recent, "lookback": "1d"},
}  # fmt: skip


def stream(source, name):
    """The stream of a case over some source."""
    settings = {"label_delay": "3h", "lateness": "2h", "weight": "w", "id": "id", "drop": ["k"], **SETTINGS[name]}
    if settings.get("known_at"):
        settings["drop"] = []
    if not settings.get("features") and "key" not in settings:
        settings["group"] = "who"
    return pn.Stream(source, time="at", target="y", **settings)


def write(rows, folder, sizes, fmt="parquet"):
    """Files of so many rows each."""
    at = 0
    for i, size in enumerate(sizes):
        part = rows.slice(at, size)
        path = folder / f"{i:04}.{fmt}"
        pq.write_table(part, path) if fmt == "parquet" else pa.csv.write_csv(part, path)
        at += size
    assert at == rows.num_rows


def content(batch):
    """Everything in a batch as plain values."""
    out = {
        f.name: getattr(batch, f.name) for f in fields(batch) if f.name not in ("features", "label_values", "revisions")
    }
    out = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in out.items()}
    out["features"] = batch.features.arrow().to_pylist()
    out["labels"] = [None if c < 0 else batch.label_values[c] for c in batch.label_codes]
    out["codes"] = {name: codes.tolist() for name, codes in batch.features.codes().items()}
    return out


def replayed(rows, name, tmp_path):
    """The batches of a replay."""
    prepared = stream(rows, name).prepare(tmp_path / "prepared")
    return [content(batch) for batch in prepared.batches("classification")]


def arrived(intake, *, to_the_end=False, go_on=lambda intake: intake):
    """Every whole batch behind the position."""
    out = []
    intake.refresh()
    while (bounds := intake.look(to_the_end=to_the_end)) is not None:
        out.append(content(intake.take(bounds).batch))
        after = go_on(intake)
        if after is not intake:
            intake = after
            intake.refresh()
    return out


def nan_equal(one, other):
    """Equality that takes NaN for NaN."""
    return repr(one) == repr(other)


MANY = ("daily", "look back by rows")  #: cases that are tried with a file per row


@pytest.mark.parametrize(
    ("name", "sizes"),
    [*((name, [N]) for name in SETTINGS), *((name, [7, 93, 200, 3, 197]) for name in SETTINGS),
     *((name, [1] * N) for name in MANY)],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}-files",
)  # fmt: skip
def test_batches_are_those_of_a_replay(tmp_path, name, sizes):
    """Whatever the files hold, and with the intake taken apart and put together after each batch."""
    rows = table()
    (folder := tmp_path / "files").mkdir()
    write(rows, folder, sizes)
    made = stream(folder, name)

    def again(intake):
        state = State.from_bytes(intake.state().to_bytes(), {})
        fresh = Intake(made, "classification")
        fresh.restore(state)
        assert fresh.state().to_bytes() == intake.state().to_bytes()
        return fresh

    expected = replayed(rows, name, tmp_path)
    assert nan_equal(arrived(Intake(made, "classification"), to_the_end=True), expected)
    if len(sizes) < 100 and name != "one by one":
        assert nan_equal(arrived(Intake(made, "classification"), to_the_end=True, go_on=again), expected)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_folder_that_grows_gives_the_same_batches(tmp_path, name):
    """Batches come as soon as they are whole, and no sooner."""
    rows = table()
    (folder := tmp_path / "files").mkdir()
    expected = replayed(rows, name, tmp_path)
    intake, got, at = None, [], 0
    for i, size in enumerate([60, 1, 40, 150, 100, 149]):
        pq.write_table(rows.slice(at, size), folder / f"{i:04}.parquet")
        at += size
        intake = intake or Intake(stream(folder, name), "classification")
        assert intake.changed()
        got += arrived(intake, to_the_end=at == N)
        assert not intake.changed()
        assert nan_equal(got, expected[: len(got)])
        assert sum(len(b["time"]) for b in got) <= at
    assert len(got) == len(expected)


def test_a_csv_that_is_appended_to(tmp_path):
    """A file may grow while it is the last."""
    rows = table().drop(["word"])
    path = tmp_path / "log.csv"
    whole = tmp_path / "whole.csv"
    pa.csv.write_csv(rows, whole)
    lines = whole.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:100]))
    made = pn.Stream(path, time="at", target="y", batch=40, lateness="2h", label_delay="3h", drop=["k", "who"])
    expected = [content(b) for b in replace(made, source=whole).prepare(tmp_path / "p").batches("classification")]
    intake = Intake(made, "classification")
    got = arrived(intake)
    assert len(got) == 99 // 40
    path.write_text("".join(lines[:300]))
    got += arrived(intake)
    path.write_text("".join(lines))
    got += arrived(intake, to_the_end=True)
    assert nan_equal(got, expected)


def test_a_position_that_is_gone_is_told(tmp_path):
    """A file that shrank, was rewritten or disappeared, and one that turned up too late, are told apart."""
    rows = table()
    (folder := tmp_path / "files").mkdir()
    write(rows, folder, [200, 300])
    made = stream(folder, "rows")

    def read():
        intake = Intake(made, "classification")
        arrived(intake)
        return intake

    intake = read()
    pq.write_table(rows.slice(200, 100), folder / "0001.parquet")
    with pytest.raises(OffsetGone, match=r"0001\.parquet has 100 rows, and 281 of it were read: it was cut short"):
        arrived(intake)
    other = rows.slice(200, 300)
    changed = other.set_column(1, "a", pa.array(np.zeros(300)))
    pq.write_table(changed, folder / "0001.parquet")
    with pytest.raises(
        OffsetGone, match=r"row 280 \(in .*/0001\.parquet\), counting from 0, is not what it was.*rewritten"
    ):
        arrived(intake)
    (folder / "0001.parquet").unlink()
    with pytest.raises(OffsetGone, match=r"0001\.parquet, read up to row 281, is no longer in"):
        arrived(intake)
    write(rows, folder, [200, 300])
    assert arrived(intake) == []
    pq.write_table(rows.slice(0, 5), folder / "0000-late.parquet")
    with pytest.raises(OffsetGone, match="turned up before"):
        arrived(intake)
    (folder / "0000-late.parquet").unlink()
    (folder / "0000.parquet").unlink()  # old files may go
    assert arrived(intake) == []


def test_an_earlier_file_that_grows_is_told(tmp_path):
    """Rows that come behind what was read to its end would be lost: also after a restart."""
    rows = table()
    (folder := tmp_path / "files").mkdir()
    write(rows.slice(0, 300), folder, [100, 200])
    made = stream(folder, "rows")
    intake = Intake(made, "classification")
    arrived(intake)
    fresh = Intake(made, "classification")
    fresh.restore(State.from_bytes(intake.state().to_bytes(), {}))
    assert arrived(fresh) == []
    pq.write_table(rows.slice(0, 120), folder / "0000.parquet")
    for one in (intake, fresh):
        with pytest.raises(OffsetGone, match=r"0000\.parquet had .* bytes when it was read"):
            arrived(one)
    (folder / "0000.parquet").unlink()
    assert arrived(fresh) == []


def test_bounds_that_were_fixed_are_kept(tmp_path):
    """After a crash the batch that was begun has the same rows, though more of them came."""
    rows = table()
    (folder := tmp_path / "files").mkdir()
    pq.write_table(rows.slice(0, 120), folder / "0.parquet")
    made = stream(folder, "daily")
    intake = Intake(made, "classification")
    arrived(intake)
    intake.refresh()
    bounds = intake.look(to_the_end=True)
    state = intake.state().to_bytes()
    expected = content(intake.take(bounds).batch)
    pq.write_table(rows.slice(120, 100), folder / "1.parquet")
    fresh = Intake(made, "classification")
    fresh.restore(State.from_bytes(state, {}))
    fresh.refresh()
    fresh.fetch(bounds)
    assert nan_equal(content(fresh.take(bounds).batch), expected)
    (folder / "1.parquet").unlink()
    (folder / "0.parquet").unlink()
    pq.write_table(rows.slice(0, 119), folder / "0.parquet")
    fresh.restore(State.from_bytes(state, {}))
    fresh.refresh()
    with pytest.raises(OffsetGone):
        fresh.fetch(bounds)


def test_a_column_that_changes_its_type_is_told(tmp_path):
    """A later file may hold more columns, not fewer, and none of another type."""
    rows = table()
    (folder := tmp_path / "files").mkdir()
    pq.write_table(rows.slice(0, 100), folder / "0.parquet")
    intake = Intake(stream(folder, "rows"), "classification")
    assert len(arrived(intake)) == 2
    more = rows.slice(100, 100).append_column("new", pa.array(np.zeros(100)))
    pq.write_table(more, folder / "1.parquet")
    assert len(arrived(intake)) == 3
    pq.write_table(rows.slice(200, 100).drop(["a"]), folder / "2.parquet")
    with pytest.raises(pn.DataError, match=r"2\.parquet"):
        arrived(intake)
    wrong = rows.slice(200, 100)
    pq.write_table(wrong.set_column(1, "a", pa.array(["x"] * 100)), folder / "2.parquet")
    with pytest.raises(pn.DataError, match=r"'a' is double in earlier files and string in .*files/2\.parquet"):
        arrived(intake)
