"""Golden rows: the same bytes for the same rows, and a model that says something else is noticed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier

from perennial import learners
from perennial.core.errors import DataError, FormatError
from perennial.core.features import Chunk, Column, Features, Kind, Schema, Vocabulary
from perennial.core.records import Prediction
from perennial.learners import as_learner
from perennial.learners.golden import (
    golden_inputs,
    golden_set,
    read_inputs,
    reproduces,
    reproduces_set,
    said,
    synthetic,
)
from perennial.learners.saved import join
from perennial.testing import make_examples

DATA = make_examples(100, categories=2, missing=True)


def test_rows_come_back_as_a_model_sees_them() -> None:
    """Numbers, codes, words and types of the chosen rows, nulls among them; they are spread over all rows."""
    kept = read_inputs(golden_inputs(DATA.features, 12))
    chosen = DATA.features.take(np.linspace(0, 99, 12).astype(np.int64))
    assert len(kept) == 12
    assert kept.names == DATA.features.names
    assert kept.schema.digest() == DATA.features.schema.digest()
    assert kept.arrow().equals(chosen.arrow())
    np.testing.assert_array_equal(kept.matrix(), chosen.matrix())
    assert kept.dicts() == chosen.dicts()


def test_the_bytes_depend_on_the_rows_alone() -> None:
    """However rows are cut into chunks, and whatever else a vocabulary knows, they give the same bytes."""
    features = DATA.features
    table = features.parts[0][0].table
    words = {name: Vocabulary([*v.words, "never seen here"]) for name, v in features.schema.vocabularies.items()}
    schema = Schema(features.schema.columns, words)
    cut = Features.join(schema, [Features.of(Chunk(table.slice(i, 7), schema)) for i in range(0, 100, 7)])
    hidden = [pa.array(np.where(np.isnan(v := c.to_numpy()), 7.5, v), mask=np.isnan(v)) for c in table.columns[:4]]
    other = Features.of(Chunk(pa.table([*hidden, *table.columns[4:]], names=table.column_names), schema))
    assert golden_inputs(cut) == golden_inputs(features) == golden_inputs(other)
    assert golden_inputs(features.slice(1, 100)) != golden_inputs(features)
    assert b"never seen here" not in golden_inputs(cut)


@pytest.mark.parametrize(("rows", "limit", "kept"), [(1, 32, 1), (5, 32, 5), (100, 1, 1), (100, 0, 0), (0, 32, 0)])
def test_few_rows_are_all_kept(rows: int, limit: int, kept: int) -> None:
    """No more rows than there are or were asked for; none is fine too, and no columns are not."""
    assert len(read_inputs(golden_inputs(DATA.features.slice(0, rows), limit))) == kept
    with pytest.raises(DataError, match="no row"):
        golden_inputs(Features(DATA.features.schema, [], 0))


def test_what_are_no_golden_rows_is_refused() -> None:
    """Other bytes, half of them, and those of a newer release."""
    golden = golden_inputs(DATA.features)
    for wrong in (b"", b"something else", golden[: len(golden) // 3]):
        with pytest.raises(FormatError, match="no golden rows"):
            read_inputs(wrong)
    with pytest.raises(FormatError, match=r"format 9; this release reads 1\.\.1"):
        read_inputs(golden.replace(b'{"format":1,', b'{"format":9,'))


def test_a_model_that_says_something_else_is_noticed() -> None:
    """One bit of one probability is enough; a copy passes."""
    model = as_learner(LogisticRegression()).fit(make_examples(100), 1)
    features = make_examples(40, seed=3).features
    copy = as_learner(LogisticRegression()).load(model.save())
    golden = golden_set(model, features)
    assert reproduces(model, copy, features)
    assert reproduces_set(copy, golden)
    copy._model.coef_ = np.nextafter(copy._model.coef_, np.inf)  # type: ignore[attr-defined]
    assert not reproduces(model, copy, features)
    assert not reproduces_set(copy, golden)
    with pytest.raises(FormatError):
        reproduces_set(model, join({"format": 1}, [])[:3])


def test_golden_sets_hold_for_models_that_read_words() -> None:
    """Codes of words mean the same to the model when they are read back: River's words, LightGBM's codes."""
    data = make_examples(120, categories=2)
    for path in ("river.tree.HoeffdingTreeClassifier", "lightgbm.LGBMClassifier", "perennial.learners.plain.Logistic"):
        pytest.importorskip(path.partition(".")[0])
        model = as_learner(path, params={"verbose": -1} if "LGBM" in path else None).fit(data, 1)
        assert reproduces_set(model, golden_set(model, data.features))


def test_predictions_are_told_apart_by_every_bit_and_type() -> None:
    """Classes by type, codes, probabilities and values."""
    codes = np.array([0, 1], dtype=np.int32)
    proba = np.array([[1.0, 0.0], [0.25, 0.75]])
    base = Prediction(codes=codes, proba=proba, classes=(0, 1))
    others = [
        replace(base, classes=(False, True)),
        replace(base, classes=("0", "1")),
        replace(base, codes=codes[::-1].copy()),
        replace(base, proba=None),
        replace(base, proba=proba + np.array([[0, 0], [0, 1.2e-16]])),
        Prediction(values=np.zeros(2)),
        Prediction(values=-np.zeros(2)),
    ]
    assert len({said(one) for one in [base, *others]}) == 1 + len(others)
    assert said(base) == said(replace(base, proba=np.asfortranarray(proba)))


@dataclass(frozen=True)
class Bounds:
    low: float | None = None
    high: float | None = None


COLUMNS = {
    "amount": (Kind.NUMBER, "double", Bounds(10.0, 20.0)),
    "small": (Kind.NUMBER, "float", Bounds(-1.0, 0.0)),
    "count": (Kind.NUMBER, "int64", Bounds(3, 9)),
    "price": (Kind.NUMBER, "decimal128(10, 2)", Bounds(1.0, 2.0)),
    "flag": (Kind.NUMBER, "bool", Bounds(0, 1)),
    "unknown": (Kind.NUMBER, "double", Bounds()),
    "country": (Kind.CATEGORY, "string", Bounds()),
    "empty": (Kind.CATEGORY, "string", Bounds()),
    "note": (Kind.TEXT, "string", Bounds()),
    "day": (Kind.OTHER, "date32[day]", Bounds()),
    "at": (Kind.OTHER, "timestamp[us, tz=Europe/Lisbon]", Bounds()),
}


def schema_of(columns: dict[str, tuple[Kind, str, Bounds]]) -> Schema:
    """The columns above as a schema, with two words for one category and none for the other."""
    words = {name: Vocabulary(["pt", "es"] if name == "country" else []) for name in ("country", "empty")}
    return Schema([Column(name, kind, dtype) for name, (kind, dtype, _) in columns.items()], words)


def test_rows_can_be_made_up_from_what_a_column_holds() -> None:
    """Within the bounds, of the column's own type, with words that the vocabulary has, and each time the same."""
    made = synthetic(schema_of(COLUMNS), {name: bounds for name, (_, _, bounds) in COLUMNS.items()}, rows=40)
    table = made.arrow()
    assert len(made) == 40
    assert [str(t) for t in table.schema.types] == [dtype for _, dtype, _ in COLUMNS.values()]
    for name in ("amount", "small", "count", "price"):
        low, high = COLUMNS[name][2].low, COLUMNS[name][2].high
        values = np.array(table.column(name).to_pylist(), dtype=np.float64)
        assert low is not None
        assert high is not None
        assert ((values >= low) & (values <= high)).all()
        assert len(set(values)) > 3
    assert set(table.column("country").to_pylist()) == {"pt", "es"}
    assert set(table.column("empty").to_pylist()) == {None}
    assert set(table.column("flag").to_pylist()) == {True, False}
    assert not table.column("note").null_count
    again = synthetic(schema_of(COLUMNS), {name: bounds for name, (_, _, bounds) in COLUMNS.items()}, rows=40)
    assert golden_inputs(again, 40) == golden_inputs(made, 40)
    other = synthetic(schema_of(COLUMNS), {}, rows=40, seed=1)
    assert golden_inputs(other, 40) != golden_inputs(made, 40)
    assert read_inputs(golden_inputs(made)).names == made.names


def test_what_cannot_be_made_up_is_said() -> None:
    """A list of structures has no bounds to draw from: the error names the column."""
    odd = Schema([Column("path", Kind.OTHER, "list<item: struct<a: int64>>")])
    with pytest.raises(DataError, match="column 'path' holds list"):
        synthetic(odd, {})


def test_made_up_rows_will_do_for_any_learner() -> None:
    """A model trained on real rows can be held to made-up ones after it was loaded."""
    data = make_examples(100)
    model = learners.as_learner(SGDClassifier(loss="log_loss")).fit(data, 1)
    golden = golden_set(model, synthetic(data.features.schema, {"x0": Bounds(-2.0, 2.0)}))
    assert reproduces_set(as_learner(SGDClassifier(loss="log_loss")).load(model.save()), golden)
