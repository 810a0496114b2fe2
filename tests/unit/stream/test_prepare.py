"""Preparing a stream: what is refused, what is written, and what is read back."""

from __future__ import annotations

import gzip
import pickle
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from perennial.core.errors import ConfigError, DataError, PerennialError
from perennial.core.features import Kind
from perennial.core.records import Batch
from perennial.core.times import NEVER, instant
from perennial.stream import Prepared, Stream
from perennial.stream.sources import place

START = datetime(2026, 1, 1, tzinfo=UTC)


def frame(rows: int = 60, **columns: Any) -> pd.DataFrame:
    """A small history: one row every six hours."""
    numbers = np.arange(rows)
    table = {
        "at": pd.date_range("2026-01-01", periods=rows, freq="6h", tz="UTC").as_unit("us"),
        "x": np.sin(numbers),
        "n": numbers,
        "colour": np.array(["red", "green", "blue"])[numbers % 3],
        "y": np.array(["no", "yes"])[numbers % 2],
    }
    return pd.DataFrame({**table, **columns})


def prepared(tmp_path: Path, source: Any, **settings: Any) -> Prepared:
    """The source, prepared."""
    return Stream(source, **{"time": "at", "target": "y", **settings}).prepare(tmp_path / "prepared")


def told(prepared: Prepared, **how: Any) -> list[tuple[Any, ...]]:
    """Everything that batches say, as plain values."""
    out: list[tuple[Any, ...]] = []
    for b in prepared.batches("classification", **how):
        assert b.label_codes is not None
        labels = [b.label_values[c] if c >= 0 else None for c in b.label_codes]
        rows = (b.features.arrow().to_pylist(), b.rows.tobytes(), b.time.tolist(), b.known_at.tolist(), labels)
        out.append((b.start, b.first, *rows))
    return out


def at(days: float) -> int:
    """An instant some days after the start."""
    return instant(START + timedelta(days=days))


def test_features_are_what_has_no_other_role(tmp_path: Path) -> None:
    """Every column without a role that is not dropped is a feature, in the order of the source."""
    source = frame(who=["a"] * 60, w=[1.0] * 60, g=[0] * 60, extra=[2] * 60)
    p = prepared(tmp_path, source, key="who", weight="w", group="g", drop=["n"], text=["colour"])
    assert [(c.name, c.kind, c.dtype) for c in p.schema.columns] == [
        ("x", Kind.NUMBER, "double"),
        ("colour", Kind.TEXT, "string"),
        ("extra", Kind.NUMBER, "int64"),
    ]


def test_kinds_follow_types(tmp_path: Path) -> None:
    """Numbers, booleans and decimals are numbers, words categories, and the rest is left to the user's pipeline."""
    from decimal import Decimal

    source = frame(
        flag=[True, False] * 30,
        price=[Decimal("1.5")] * 60,
        cat=pd.Categorical(["b", "a"] * 30, categories=["a", "b", "unused"]),
        day=pd.date_range("2026-01-01", periods=60, freq="D"),
        nothing=[None] * 60,
    )
    p = prepared(tmp_path, source)
    kinds = {c.name: c.kind for c in p.schema.columns}
    assert kinds == {
        "x": Kind.NUMBER,
        "n": Kind.NUMBER,
        "colour": Kind.CATEGORY,
        "flag": Kind.NUMBER,
        "price": Kind.NUMBER,
        "cat": Kind.CATEGORY,
        "day": Kind.OTHER,
        "nothing": Kind.NUMBER,
    }
    assert p.schema.vocabularies["cat"].words == ["b", "a"]  # in order of first appearance


def test_batches_by_calendar(tmp_path: Path) -> None:
    """A calendar batch holds the rows of one local day and starts at its midnight."""
    p = prepared(tmp_path, frame(10), batch="1d")
    batches = list(p.batches("classification"))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert [b.start for b in batches] == [at(0), at(1), at(2)]
    assert [b.first for b in batches] == [0, 4, 8]
    starts, firsts = p.batch_bounds()
    assert starts.tolist() == [at(0), at(1), at(2)]
    assert firsts.tolist() == [0, 4, 8]


def test_batches_by_rows(tmp_path: Path) -> None:
    """A batch of rows starts at the event time of its first row."""
    p = prepared(tmp_path, frame(10), batch=3)
    batches = list(p.batches("classification"))
    assert [len(b) for b in batches] == [3, 3, 3, 1]
    assert [b.start for b in batches] == [at(0.25 * i) for i in (0, 3, 6, 9)]


def test_rows_apart_come_in_bundles_of_the_same_rows(tmp_path: Path) -> None:
    """Rows that share a record hold what single batches hold."""
    p = prepared(tmp_path, frame(10), batch=1)
    single = list(p.batches("classification"))
    bundles = list(p.batches("classification", apart=True, bundle=4))
    assert [len(b) for b in bundles] == [4, 4, 2]
    assert all(b.apart for b in bundles)
    assert not any(b.apart for b in single)
    assert np.concatenate([b.rows for b in bundles]).tolist() == [b.rows[0].tolist() for b in single]
    assert [t for b in bundles for t in b.time.tolist()] == [b.start for b in single]
    with pytest.raises(ConfigError, match="batch=1"):
        prepared(tmp_path, frame(10), batch=2).batches("classification", apart=True)


def test_views_of_a_batch(tmp_path: Path) -> None:
    """A batch shows its rows as a matrix and as the user wrote them."""
    source = frame(10)
    source.loc[5, "x"] = np.nan
    source.loc[6, "colour"] = None
    batch = list(prepared(tmp_path, source).batches("classification"))[1]
    got = batch.features.frame()
    assert got["colour"].tolist()[:2] == ["green", "blue"]
    assert pd.isna(got["colour"][2])
    np.testing.assert_array_equal(batch.features.matrix()[:, 0], source["x"][4:8])
    np.testing.assert_array_equal(batch.features.matrix()[:, 2], [1, 2, np.nan, 1])


def test_reading_again_gives_the_same_also_after_pickling(tmp_path: Path) -> None:
    """A prepared stream can be read again and again, in other processes too."""
    p = prepared(tmp_path, frame())
    assert told(pickle.loads(pickle.dumps(p))) == told(p)
    stream = pickle.loads(pickle.dumps(Stream(frame(), time="at", target="y")))
    assert stream.prepare(tmp_path / "again").digest == p.digest


def test_the_same_rows_from_anywhere_are_the_same_stream(tmp_path: Path) -> None:
    """A file, many files, a glob, CSV, Arrow, pandas and Polars give the same digest, batches and row digests."""
    source = frame()
    source.loc[7, "x"] = np.nan
    source.loc[8, "colour"] = None
    arrow = pa.Table.from_pandas(source, preserve_index=False)
    parts, csvs = tmp_path / "parts", tmp_path / "csvs"
    parts.mkdir()
    csvs.mkdir()
    for i, low in enumerate(range(0, 60, 9)):
        pa.parquet.write_table(arrow.slice(low, 9), parts / f"{i}.parquet")
        pa.csv.write_csv(arrow.slice(low, 9), csvs / f"{i}.csv")
    pa.parquet.write_table(arrow, tmp_path / "one.parquet", row_group_size=13)
    reader = pa.RecordBatchReader.from_batches(arrow.schema, arrow.to_batches(max_chunksize=11))
    sources = [
        source,
        arrow,
        reader,
        pl.from_arrow(arrow),
        parts,
        csvs,
        str(parts / "*.parquet"),
        tmp_path / "one.parquet",
    ]
    found = []
    for i, s in enumerate(sources):
        p = Stream(s, time="at", target="y").prepare(tmp_path / str(i))
        found.append((p.digest, told(p), p.stats, p.label_values))
    for other in found[1:]:
        assert other == found[0]


def test_nan_is_null(tmp_path: Path) -> None:
    """NaN and null are one value, which is counted."""
    values = pa.array([1.0, float("nan"), None])
    table = pa.table(
        {"at": pa.array([at(0), at(1), at(2)]).cast(pa.timestamp("us", "UTC")), "x": values, "y": [0, 1, 0]}
    )
    p = prepared(tmp_path, table)
    rows = np.concatenate([b.rows for b in p.batches("classification")])
    assert rows[1].tolist() == rows[2].tolist()
    assert (p.stats["x"].nulls, p.stats["x"].nans, p.stats["x"].first_null) == (2, 1, 1)


def test_infinities_are_counted(tmp_path: Path) -> None:
    """Infinite values are let through and counted with the first row, for learners that refuse them."""
    source = frame()
    source.loc[[9, 20], "x"] = [np.inf, -np.inf]
    stats = prepared(tmp_path, source).stats["x"]
    assert (stats.infinities, stats.first_infinite) == (2, 9)
    assert stats.low is not None
    assert stats.low >= -1
    assert stats.high is not None
    assert stats.high <= 1


def test_row_digests_are_about_content(tmp_path: Path) -> None:
    """A row's digest follows from its features: equal rows have equal ones, whatever their label, time or place."""
    source = frame(
        8, x=[1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, None], n=[0] * 8, colour=["a", "a", "a", "b", None, "", "a", "a"]
    )
    (batch,) = prepared(tmp_path, source, batch=8).batches("classification")
    rows = [bytes(r) for r in batch.rows]
    assert rows[0] == rows[1] == rows[6]
    assert len(set(rows)) == 6


def test_the_future_changes_nothing_before_it(tmp_path: Path) -> None:
    """Corrupting all rows from some time on leaves earlier batches as they were, vocabularies and classes included."""
    source, poisoned = frame(), frame()
    poisoned.loc[30:, ["colour", "y"]] = "poison"
    poisoned.loc[30:, ["x", "n"]] = -1

    def seen(source: pd.DataFrame, name: str) -> list[Any]:
        p = Stream(source, time="at", target="y", label_delay="2d").prepare(tmp_path / name)
        out = []
        for b in p.batches("classification"):
            if b.first + len(b) <= 30:
                assert b.label_codes is not None
                words = {k: list(v.words) for k, v in b.features.schema.vocabularies.items()}
                facts = (b.start, b.known_at.tolist(), b.label_codes.tolist(), list(b.label_values), words)
                out.append((*facts, b.rows.tobytes(), b.features.matrix().tobytes()))
        return out

    assert len(seen(source, "a")) == 7
    assert seen(source, "a") == seen(poisoned, "b")


def test_vocabularies_grow_with_the_batches(tmp_path: Path) -> None:
    """A word or class gets its code when it first appears, keeps it, and is not known before."""
    source = frame(8, colour=["b", "b", None, "a", "b", "c", "a", "a"], y=[3, 3, 3, 5, 3, 4, 5, 5])
    words, classes = [], []
    for batch in prepared(tmp_path, source, batch=2).batches("classification"):
        words.append(list(batch.features.schema.vocabularies["colour"].words))
        classes.append(list(batch.label_values))
    assert words == [["b"], ["b", "a"], ["b", "a", "c"], ["b", "a", "c"]]
    assert classes == [[3], [3, 5], [3, 5, 4], [3, 5, 4]]


def test_batches_across_stored_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are stored together changes nothing."""
    p = prepared(tmp_path, frame(), batch=7)
    monkeypatch.setattr("perennial.stream.prepare.BLOCK_ROWS", 10)
    small = Stream(frame(), time="at", target="y", batch=7).prepare(tmp_path / "small")
    assert pa.ipc.open_file(tmp_path / "small" / "rows.arrow").num_record_batches == 6
    assert told(small) == told(p)
    assert small.digest == p.digest
    np.testing.assert_array_equal(small.column("n"), np.arange(60))


def test_one_batch_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading on frees the batches read before, unless somebody keeps them."""
    monkeypatch.setattr("perennial.stream.prepare.BLOCK_ROWS", 8)
    p = prepared(tmp_path, frame(200), batch=4)
    from perennial.core.features import Chunk

    made: list[Any] = []

    class Watched(Chunk):  # type: ignore[misc]
        __slots__ = ("__weakref__",)

        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            made.append(weakref.ref(self))

    monkeypatch.setattr("perennial.stream.prepared.Chunk", Watched)
    alive = [sum(ref() is not None for ref in made) for _ in p.batches("classification")]
    assert len(made) == 25
    assert max(alive) <= 2


def test_roles_travel_with_their_rows(tmp_path: Path) -> None:
    """Weights, groups and ids come with the batch; amounts and numbers by name."""
    source = frame(
        6, w=[1.0, 2, 3, 4, 5, 6], g=list("aabbcc"), call=[f"c{i}" for i in range(6)], money=[1, None, 3, 4, 5, 6]
    )
    stream = Stream(source, time="at", target="y", weight="w", group="g", id="call", drop=["money"], batch=4)
    p = stream.prepare(tmp_path, extra=["money"])
    second = list(p.batches("classification"))[1]
    assert second.weights is not None
    assert second.groups is not None
    assert second.ids is not None
    assert (second.weights.tolist(), second.groups.tolist(), second.ids.tolist()) == ([5, 6], ["c", "c"], ["c4", "c5"])
    np.testing.assert_array_equal(p.column("money"), [1, np.nan, 3, 4, 5, 6])
    np.testing.assert_array_equal(p.column("n"), np.arange(6))
    with pytest.raises(ConfigError, match="money"):
        p.column("monay")


def test_labels_keep_their_python_type(tmp_path: Path) -> None:
    """Classes are the user's own values: True is not 1, and 1 is not "1"."""
    for label, kind in ((["a", "b"], str), ([1, 0], int), ([True, False], bool), ([0.5, 1.0], float)):
        p = prepared(tmp_path, frame(4, y=label * 2))
        assert p.label_values == tuple(label)
        labels = p.labels("classification")
        assert [type(c) for c in labels.classes] == [kind, kind]
        assert labels.codes is not None
        assert labels.codes.tolist() == [0, 1, 0, 1]


def test_numbers_for_a_regression(tmp_path: Path) -> None:
    """A regression reads labels as float64, NaN for none; words are refused."""
    p = prepared(tmp_path, frame(4, y=[1, None, 3, 4]))
    (batch,) = p.batches("regression")
    assert batch.labels is not None
    assert batch.label_codes is None
    np.testing.assert_array_equal(batch.labels, [1, np.nan, 3, 4])
    assert batch.known_at[1] == NEVER
    values = p.labels("regression").values
    assert values is not None
    np.testing.assert_array_equal(values, [1, np.nan, 3, 4])
    with pytest.raises(DataError, match="regression"):
        prepared(tmp_path, frame(4)).batches("regression")


def test_a_stream_without_labels(tmp_path: Path) -> None:
    """Without a target no label is ever known."""
    p = Stream(frame(4), time="at").prepare(tmp_path)
    assert (p.labels("classification").known_at == NEVER).all()
    assert p.labelled == 0


def test_the_digest_is_about_everything_learned(tmp_path: Path) -> None:
    """A changed feature, label, time, weight, or rule changes the digest of the data; batches and names do not."""
    source = frame(8, w=[1.0] * 8)

    def digest(table: pd.DataFrame, **settings: Any) -> str:
        return prepared(tmp_path, table, **{"weight": "w", **settings}).digest

    same = digest(source)
    assert digest(source, batch=3, name="other", positive="no") == same
    changed = [source.copy() for _ in range(4)]
    changed[0].loc[3, "x"] += 1e-9
    changed[1].loc[3, "y"] = None
    changed[2].loc[3, "at"] += pd.Timedelta(microseconds=1)
    changed[3].loc[3, "w"] = 2
    found = [digest(table) for table in changed]
    found += [digest(source, label_delay="1d"), digest(source.rename(columns={"n": "m"})), digest(source[:7])]
    assert len({same, *found}) == 8


def test_a_frame_of_mixed_types(tmp_path: Path) -> None:
    """A pandas column that holds words and numbers is refused."""
    with pytest.raises(DataError, match="one type per column"):
        prepared(tmp_path, frame(2, n=pd.Series(["a", 1], dtype=object)))


def test_progress_counts_rows(tmp_path: Path) -> None:
    """Progress is told in rows done, and rows in all where a source knows them."""
    calls: list[tuple[int, int | None]] = []
    Stream(frame(), time="at").prepare(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (60, 60)


def write(path: Path, name: str, table: pd.DataFrame) -> None:
    """A file of one part of a stream."""
    pa.parquet.write_table(pa.Table.from_pandas(table, preserve_index=False), path / name)


def test_a_type_that_changes_between_files(tmp_path: Path) -> None:
    """A column that changes type is refused with both files, the column and both types, before any row is read."""
    write(tmp_path, "a.parquet", frame(4))
    write(tmp_path, "b.parquet", frame(4, n=["1", "2", "3", "4"]))
    with pytest.raises(DataError, match=r"'n' is int64 in /.*/a.parquet and string in /.*/b.parquet"):
        Stream(tmp_path, time="at", target="y").prepare(tmp_path / "out")
    assert Stream(tmp_path, time="at", target="y", drop=["n"])  # dropped columns may change


def test_a_column_that_only_some_files_have(tmp_path: Path) -> None:
    """Files of a stream have the same columns."""
    write(tmp_path, "a.parquet", frame(4))
    write(tmp_path, "b.parquet", frame(4).drop(columns=["n"]))
    with pytest.raises(DataError, match=r"'n' is in /.*/a.parquet but not in /.*/b.parquet"):
        Stream(tmp_path, time="at").prepare(tmp_path / "out")


def test_an_empty_column_takes_the_type_of_other_files(tmp_path: Path) -> None:
    """A column of nulls only agrees with any type."""
    write(tmp_path, "a.parquet", frame(4, colour=[None] * 4))
    late = frame(8)[4:]
    write(tmp_path, "b.parquet", late)
    p = Stream(str(tmp_path / "*.parquet"), time="at").prepare(tmp_path / "out")
    assert [c.kind for c in p.schema.columns if c.name == "colour"] == [Kind.CATEGORY]
    assert p.stats["colour"].nulls == 4


def test_csv_numbers_that_turn_into_fractions(tmp_path: Path) -> None:
    """A CSV column of whole numbers with a fraction far down is a column of fractions from the start."""
    rows = 300_000
    lines = [f"{np.datetime64('2026-01-01') + np.timedelta64(i, 's')},{i},{i % 2}" for i in range(rows)]
    lines[-1] = lines[-1].rsplit(",", 2)[0] + ",0.5,1"
    (tmp_path / "a.csv").write_text("at,x,y\n" + "\n".join(lines))
    p = Stream(tmp_path / "a.csv", time="at", target="y").prepare(tmp_path / "out")
    assert [(c.name, c.dtype) for c in p.schema.columns] == [("x", "double")]
    assert p.column("x")[-2:].tolist() == [rows - 2, 0.5]


def test_csv_numbers_that_turn_into_words(tmp_path: Path) -> None:
    """A CSV column of numbers with a word far down is refused with the word."""
    lines = [f"{np.datetime64('2026-01-01') + np.timedelta64(i, 's')},z,{i}" for i in range(300_000)]
    (tmp_path / "a.csv").write_text("at,w,x\n" + "\n".join([*lines, "2027-01-01,z,oops"]))
    with pytest.raises(DataError, match=r"'x', line 300,002 of /.*/a.csv: 'oops' where earlier rows hold int64"):
        Stream(tmp_path / "a.csv", time="at", drop=["w"]).prepare(tmp_path / "out")


@pytest.mark.parametrize("name", ["b.csv", "b.csv.gz"])
def test_a_row_of_a_csv_file_is_told_by_its_line(tmp_path: Path, name: str) -> None:
    """The line of that file as an editor counts: with its header, an empty line and a line end inside quotes."""
    (tmp_path / "a.csv").write_text("at,w,x\n" + "".join(f"2026-01-0{i},z,{i}\n" for i in range(1, 6)))
    text = 'at,w,x\n2026-01-06,"two\nlines",6\n\n2026-01-07,z,7\n{},z,8\n'
    write_text: Any = gzip.open if name.endswith("gz") else open
    for value, told in (("2026-01-05", "2026-01-05.* comes after 2026-01-07"), ("noon", "'noon' is no time")):
        with write_text(tmp_path / name, "wt") as file:
            file.write(text.format(value))
        with pytest.raises(DataError, match=rf"'at', line 6 of /.*/{name}: {told}"):
            Stream(str(tmp_path / "*.csv*"), time="at", drop=["w"]).prepare(tmp_path / "out")


def test_a_row_of_a_parquet_file_is_told_by_its_number_there(tmp_path: Path) -> None:
    """Not by that in the stream: whoever looks opens the file."""
    rows = frame(8)
    write(tmp_path, "a.parquet", rows[:4])
    write(tmp_path, "b.parquet", rows[4:].iloc[[0, 2, 1, 3]])
    with pytest.raises(DataError, match=r"'at', row 2 \(in /.*/b.parquet\), counting from 0: .* comes after"):
        Stream(tmp_path, time="at", target="y").prepare(tmp_path / "out")


def test_a_line_that_cannot_be_told_is_a_row(tmp_path: Path) -> None:
    """A file that is gone by then, or a row that it does not have."""
    (tmp_path / "a.csv").write_text("at\n2026-01-01\n")
    assert place(tmp_path / "a.csv", 0) == f"line 2 of {tmp_path}/a.csv"
    assert place(tmp_path / "a.csv", 1) == f"row 1 (in {tmp_path}/a.csv), counting from 0"
    assert place(tmp_path / "b.csv", 0) == f"row 0 (in {tmp_path}/b.csv), counting from 0"


BAD_DATA: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"target": "labl"}, "target='labl'"),
    ({}, {"time": "att"}, "did you mean `at`"),
    ({}, {"drop": ["colours"]}, "did you mean `colour`"),
    ({}, {"text": ["n"]}, "int64, not text"),
    ({}, {"positive": "yess"}, "did you mean `yes`"),
    ({"at": pd.date_range("2026-01-01", periods=60, tz="UTC")[::-1]}, {}, "row 1, counting from 0: 2026-02-28"),
    ({"at": range(60)}, {}, "to_datetime"),
    ({"at": ["2026-01-01"] * 59 + ["yesterday"]}, {}, "row 59.*'yesterday' is no time"),
    ({"at": [None] + ["2026-01-01"] * 59}, {}, "row 0.*missing"),
    ({"y": pd.date_range("2026-01-01", periods=60)}, {}, "labels are text"),
    ({"w": [-1.0] * 60}, {"weight": "w"}, "-1.0 is no weight"),
    ({"k": pd.date_range("2025-12-31", periods=60, tz="UTC")}, {"known_at": "k"}, "before its event"),
]


@pytest.mark.parametrize(("columns", "settings", "message"), BAD_DATA)
def test_bad_data_are_refused(columns: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Each break of a rule is refused while preparing, with the place and a next step."""
    with pytest.raises(PerennialError, match=message):
        prepared(tmp_path, frame(**columns), **settings)


def test_no_rows(tmp_path: Path) -> None:
    """An empty source is refused."""
    with pytest.raises(DataError, match="no rows"):
        prepared(tmp_path, frame(0))


def test_no_features(tmp_path: Path) -> None:
    """A stream without any feature is refused."""
    with pytest.raises(DataError, match="no column is left"):
        prepared(tmp_path, frame()[["at", "y"]])


def _times(batches: list[Batch]) -> list[int]:
    return [t for b in batches for t in b.time.tolist()]


def test_late_rows(tmp_path: Path) -> None:
    """Late rows stay where they came, are flagged, join the batch that is open, and are refused beyond `lateness`."""
    hours = [0, 30, 20, 31, 60, 7]
    times = [START + timedelta(hours=h) for h in hours]
    source = frame(6, at=pd.DatetimeIndex(times))
    with pytest.raises(DataError, match="lateness='10h'"):
        prepared(tmp_path, source)
    with pytest.raises(DataError, match="more than lateness='12h'"):
        prepared(tmp_path, source, lateness="12h")
    p = prepared(tmp_path, source, lateness="3d")
    batches = list(p.batches("classification"))
    assert [b.first for b in batches] == [0, 1, 4]
    assert [b.start for b in batches] == [at(0), at(1), at(2)]
    assert _times(batches) == [instant(t) for t in times]
    assert [None if b.late is None else b.late.tolist() for b in batches] == [None, [False, True, False], [False, True]]
    assert p.late_rows == 2
    assert (p.first_time, p.last_time) == (at(0), at(2.5))


def test_extra_amounts_must_be_numbers(tmp_path: Path) -> None:
    """A column of amounts that holds words is refused."""
    with pytest.raises(DataError, match="amounts are numbers"):
        Stream(frame(), time="at", target="y").prepare(tmp_path, extra=["colour"])
