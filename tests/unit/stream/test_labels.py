"""When labels become known: delay, a column, silence, and a log of labels apart from the rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from perennial.core.errors import ConfigError, DataError
from perennial.core.times import NEVER, instant
from perennial.stream import Prepared, Stream

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(days: float) -> int:
    """An instant some days after the start."""
    return instant(START + timedelta(days=days))


def daily(labels: list[Any], known: list[float | None] | None = None, **columns: Any) -> pd.DataFrame:
    """One row a day; ``known`` in days after the start."""
    rows = len(labels)
    table = {"at": pd.date_range(START, periods=rows), "x": np.arange(rows), "y": labels, **columns}
    if known is not None:
        days = [pd.NaT if k is None else pd.Timestamp(START) + pd.Timedelta(days=k) for k in known]
        table["known"] = pd.to_datetime(days, utc=True)
    return pd.DataFrame(table)


def prepared(tmp_path: Path, source: pd.DataFrame, **settings: Any) -> Prepared:
    """The source, prepared."""
    return Stream(source, **{"time": "at", "target": "y", **settings}).prepare(tmp_path)


def outcome(p: Prepared) -> list[tuple[Any, float | None]]:
    """Each row's label and after how many days from the start it is known."""
    found = p.labels("classification")
    assert found.codes is not None
    days = [None if k == NEVER else (k - at(0)) / 86_400_000_000 for k in found.known_at.tolist()]
    return [(found.classes[c] if c >= 0 else None, day) for c, day in zip(found.codes, days, strict=True)]


def revised(p: Prepared) -> list[tuple[int, int, float, Any]]:
    """(batch, position, known after days, label) of everything that batches revise."""
    out = []
    for number, batch in enumerate(p.batches("classification")):
        if (r := batch.revisions) is not None:
            assert r.codes is not None
            for position, known, code in zip(r.position, r.known_at, r.codes, strict=True):
                out.append((number, int(position), (known - at(0)) / 86_400_000_000, batch.label_values[code]))
    return out


def test_delay(tmp_path: Path) -> None:
    """A label is known `label_delay` after its event; a missing one never."""
    p = prepared(tmp_path, daily(["a", None, "b"]), label_delay="36h")
    assert outcome(p) == [("a", 1.5), (None, None), ("b", 3.5)]
    assert (p.implicit_delay, p.label_rule, p.label_delay) == (False, "known 36h after the event", timedelta(hours=36))
    assert p.labelled == 2


def test_nothing_said_means_at_once_and_is_flagged(tmp_path: Path) -> None:
    """Without a rule labels are known at once, and the stream says that nobody stated it."""
    p = prepared(tmp_path, daily(["a", "b"]))
    assert outcome(p) == [("a", 0), ("b", 1)]
    assert (p.implicit_delay, p.label_rule) == (True, "known at once")
    assert not prepared(tmp_path, daily(["a", "b"]), label_delay="0s").implicit_delay


def test_known_at_column(tmp_path: Path) -> None:
    """A column says when; a null there means never."""
    p = prepared(tmp_path, daily([1, 0, 1], [4, None, 2]), known_at="known")
    assert outcome(p) == [(1, 4), (0, None), (1, 2)]


SILENCE = [
    # label, known after days (its event: day 0), positives wait -> label, known; revision
    (None, None, True, (0, 10), None),
    (None, None, False, (0, 10), None),
    (1, 3, True, (1, 10), None),
    (1, 3, False, (1, 3), None),
    (1, 10, True, (1, 10), None),
    (1, 12, True, (0, 10), (12, 1)),
    (1, 12, False, (0, 10), (12, 1)),
    (0, 3, True, (0, 10), None),
    (0, 3, False, (0, 3), None),
    (0, 12, False, (0, 10), None),
    (1, None, True, (0, 10), None),
]


@pytest.mark.parametrize(("label", "known", "wait", "want", "revision"), SILENCE)
def test_silence(label: Any, known: Any, wait: bool, want: Any, revision: Any, tmp_path: Path) -> None:
    """Silence makes a negative after `within`; a later label revises it, an earlier one waits as long by default."""
    source = daily([label] + [0] * 19, [known] + [19 + i for i in range(19)])
    source["y"] = source["y"].astype("Int64")
    p = prepared(tmp_path, source, known_at="known", within="10d", absent=0, positives_wait=wait)
    assert outcome(p)[0] == want
    later = [(known, label) for _, position, known, label in revised(p) if position == 0]
    assert later == ([] if revision is None else [revision])
    assert any("nobody ever reported" in w for w in p.warnings) == (label == 1 and known is None)


def test_the_learned_base_rate_is_right(tmp_path: Path) -> None:
    """With silence, the share of positives among known labels is that of the stream at any time, not nearly one."""
    rows = 400
    fraud = np.arange(rows) % 10 == 0
    reported = [float(i + 5) if f else None for i, f in enumerate(fraud)]
    source = daily([1 if f else None for f in fraud], reported)
    p = prepared(tmp_path, source, known_at="known", within="90d", absent=0)
    labels = p.labels("classification")
    assert labels.codes is not None
    positive = labels.codes == labels.classes.index(1)
    for now in (at(200), at(300), at(399)):
        known = labels.known_at <= now
        assert positive[known].mean() == pytest.approx(0.1, abs=0.01)


def test_a_revision_comes_with_the_first_batch_that_starts_after_it(tmp_path: Path) -> None:
    """A label later than silence is given by the first batch whose start is not before it."""
    source = daily([1] + [None] * 9, [4.5] + [None] * 9)
    p = prepared(tmp_path, source, known_at="known", within="2d", absent=0)
    assert revised(p) == [(5, 0, 4.5, 1)]
    assert p.tail() == []
    short = prepared(tmp_path, source[:4], known_at="known", within="2d", absent=0)
    assert revised(short) == []
    assert short.tail() == [(0, at(4.5), 1)]


def test_a_revision_never_comes_before_its_row(tmp_path: Path) -> None:
    """A label that was known long before its late row came is given by the batch after that row's own."""
    days = [0, 1, 2, 3, 4, 5, 0.5, 6, 7]
    source = daily([None] * 6 + [1] + [None] * 2, [None] * 6 + [3] + [None] * 2)
    source["at"] = [START + timedelta(days=d) for d in days]
    p = prepared(tmp_path, source, known_at="known", within="1d", absent=0, lateness="9d")
    assert revised(p) == [(6, 6, 3.0, 1)]


def test_bundles_bring_the_same_revisions(tmp_path: Path) -> None:
    """Rows that share a record bring all revisions that they would bring one by one."""
    source = daily([1] * 20, [i + 3.5 for i in range(20)])
    p = prepared(tmp_path, source, known_at="known", within="2d", absent=0, batch=1)
    single = [r[1:] for r in revised(p)]
    bundled: list[tuple[int, float]] = []
    for batch in p.batches("classification", apart=True, bundle=6):
        if (r := batch.revisions) is not None:
            assert (np.diff(r.known_at) >= 0).all()
            assert r.known_at[-1] <= batch.time[-1]
            bundled += zip(r.position.tolist(), ((r.known_at - at(0)) / 86_400_000_000).tolist(), strict=True)
    assert [r[:2] for r in single] == bundled
    assert len(bundled) == 16


def test_a_log_of_labels(tmp_path: Path) -> None:
    """Labels from a log come as first labels and corrections, in the order in which they became known."""
    source = daily([None] * 6, name=list("abcdef")).drop(columns=["y"])
    log = pd.DataFrame({"name": ["b", "a", "zz", "b", "a"], "y": ["no", "yes", "no", "yes", "no"]})
    log["known_at"] = [START + timedelta(days=d) for d in (2, 2.5, 3, 4, 99)]
    p = prepared(tmp_path, source, id="name", labels=log)
    assert outcome(p) == [(None, None)] * 6
    assert revised(p) == [(2, 1, 2.0, "no"), (3, 0, 2.5, "yes"), (4, 1, 4.0, "yes")]
    assert p.tail() == [(0, at(99), "no")]
    assert (p.revisions, p.implicit_delay) == (4, False)
    assert p.label_values == ("no", "yes")
    assert any("1 ids of the label log" in w for w in p.warnings)


def test_a_log_with_silence(tmp_path: Path) -> None:
    """What the log says before silence does is the row's label; what it says afterwards revises it."""
    source = daily([None] * 9, name=list("abcdefghi")).drop(columns=["y"])
    log = pd.DataFrame({"name": ["a", "b", "b"], "y": [1, 1, 0]})
    log["known_at"] = [START + timedelta(days=d) for d in (1, 6, 7)]
    p = prepared(tmp_path, source, id="name", labels=log, within="3d", absent=0)
    assert outcome(p)[:3] == [(1, 3), (0, 4), (0, 5)]
    assert revised(p) == [(6, 1, 6.0, 1), (7, 1, 7.0, 0)]


@pytest.mark.parametrize(("said", "want", "later"), [(4, (0, 4), []), (5, (0, 5), []), (6, (1, 5), [(6.0, 0)])])
def test_a_log_takes_back_nothing_that_was_known_before_it_spoke(
    tmp_path: Path, said: int, want: Any, later: Any
) -> None:
    """Without waiting, a label that its row knows on day 5 is replaced by what the log says by then, or revised."""
    source = daily([None] * 2 + [1] + [None] * 17, [None] * 2 + [5] + [None] * 17, name=list("abcdefghijklmnopqrst"))
    log = pd.DataFrame({"name": ["c"], "y": [0], "known": [START + timedelta(days=said)]})
    settings = {"known_at": "known", "within": "9d", "absent": 0, "positives_wait": False, "id": "name"}
    p = prepared(tmp_path, source, labels=log, **settings)
    assert outcome(p)[2] == want
    assert [(known, label) for _, _, known, label in revised(p)] == later


def test_a_log_within_the_wait(tmp_path: Path) -> None:
    """What became known later than `label_wait` after the event is passed over, and said."""
    source = daily([None] * 9, name=list("abcdefghi")).drop(columns=["y"])
    log = pd.DataFrame({"name": ["a", "b", "b"], "y": ["yes", "no", "yes"]})
    log["known_at"] = [START + timedelta(days=d) for d in (2, 3, 3.5)]
    p = prepared(tmp_path, source, id="name", labels=log, label_wait="2d")
    assert revised(p) == [(2, 0, 2.0, "yes"), (3, 1, 3.0, "no")]
    assert p.label_wait == timedelta(days=2)
    assert any("1 of the label log's labels became known more than `label_wait`" in w for w in p.warnings)


def test_labels_of_rows_beside_a_log(tmp_path: Path) -> None:
    """Where rows bring labels too and nobody says when those are known, the delay of zero is flagged."""
    log = pd.DataFrame({"name": ["a"], "y": ["no"], "known_at": [START + timedelta(days=1.5)]})
    p = prepared(tmp_path, daily(["yes"] * 3, name=list("abc")), id="name", labels=log)
    assert outcome(p) == [("yes", 0), ("yes", 1), ("yes", 2)]
    assert revised(p) == [(2, 0, 1.5, "no")]
    assert (p.implicit_delay, p.label_rule) == (True, "known when the label log says, those of the rows at once")


def test_a_log_must_fit_its_rows(tmp_path: Path) -> None:
    """A log that names two rows at once, or knows a label before its event, is refused."""
    log = pd.DataFrame({"name": ["a"], "y": ["no"], "known_at": [START + timedelta(days=0.5)]})
    with pytest.raises(DataError, match="rows 0 and 1 both have"):
        prepared(tmp_path, daily(["no"] * 2, name=["a", "a"]), id="name", labels=log)
    with pytest.raises(DataError, match="before its event"):
        prepared(tmp_path, daily(["no"] * 2, name=["b", "a"]), id="name", labels=log)
    with pytest.raises(ConfigError, match="label log has no such column"):
        prepared(tmp_path, daily(["no"] * 2, name=["b", "a"]), id="name", labels=log.drop(columns=["y"]))


def test_absent_is_a_label_of_the_column(tmp_path: Path) -> None:
    """The label of silence must have the type of the others."""
    with pytest.raises(ConfigError, match="absent"):
        prepared(tmp_path, daily(["a", None]), within="2d", absent=0)
