"""The contract of a learner, one sentence a function: run :func:`check` over your own, or each of ``PARTS``.

A part is called with a function that makes a fresh, untrained learner and with its task, and fails with an
``AssertionError``. Parts about a capability (``Updatable``, ``Interleaved``, ``Summable``, ``Servable``) pass at once
for a learner whose type does not claim it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import DataError, FormatError, LearnerError
from perennial.core.features import Chunk, Features
from perennial.core.protocols import Interleaved, Learner, Pickled, Servable, Sized, Summable, Trust, Updatable
from perennial.core.records import UNSEEN, Examples, Prediction, TaskKind
from perennial.learners.golden import reproduces
from perennial.learners.saved import codec_of, sha256
from perennial.testing import make_examples

Make = Callable[[], Learner]

_THREE = ("b", "c", "a")  # in the order in which a stream might have named them


def check(make: Make, task: TaskKind) -> None:
    """Every part in turn.

    Raises
    ------
    AssertionError
        At the first sentence that does not hold.
    """
    for part in PARTS:
        part(make, task)


def says_what_it_is(make: Make, task: TaskKind) -> None:
    """A learner has the protocol's face, and its identity is that of any other made alike."""
    learner = make()
    assert isinstance(learner, Learner), f"{type(learner).__qualname__} lacks part of the Learner protocol"
    assert learner.task == task
    assert learner.name
    assert isinstance(learner.resumes, bool)
    assert learner.identity() == make().identity()
    assert learner.identity() == learner.fit(_data(task), 1).identity(), "training changed the identity"


def fits_from_scratch(make: Make, task: TaskKind) -> None:
    """``fit`` leaves its learner alone and starts from nothing, also when asked of a model."""
    data, other = _data(task), _data(task, seed=5)
    learner = make()
    first = learner.fit(other, 3)
    before = first.digest()
    again = first.fit(data, 1)
    assert first.digest() == before, "fit changed the model that it was asked of"
    fresh = make().fit(data, 1)
    assert again.digest() == fresh.digest(), "fit of a model differs from fit of a template"
    _assert_same(again.predict(data.features), fresh.predict(data.features))
    _assert_same(learner.fit(data, 1).predict(data.features), fresh.predict(data.features))


def repeats(make: Make, task: TaskKind) -> None:
    """The same data and seed give the same model and predictions, bit for bit."""
    data = _data(task)
    first, second = make().fit(data, 7), make().fit(data, 7)
    assert first.digest() == second.digest()
    _assert_same(first.predict(data.features), second.predict(data.features))


def predicts(make: Make, task: TaskKind) -> None:
    """Predictions are shaped as the record says, and making them changes nothing."""
    data = _richest(make, task)
    model = make().fit(data, 1)
    before = model.digest()
    _assert_valid(model.predict(data.features), len(data))
    _assert_valid(model.predict(data.features.slice(0, 1)), 1)
    _assert_valid(model.predict(data.features.slice(0, 0)), 0)
    assert model.digest() == before, "predicting changed the model"


def predicts_rows_alone(make: Make, task: TaskKind) -> None:
    """A row alone is predicted as it is among others, to rounding."""
    data = _richest(make, task)
    model = make().fit(data, 1)
    whole = model.predict(data.features)
    for i in range(0, 60, 13):
        alone = model.predict(data.features.slice(i, i + 1))
        shown = (alone.proba, whole.proba) if whole.proba is not None else (alone.values, whole.values)
        if shown[0] is not None and shown[1] is not None:
            np.testing.assert_allclose(shown[0][0], shown[1][i], rtol=1e-6, atol=1e-9)
        else:
            assert alone.codes is not None
            assert whole.codes is not None
            assert alone.codes[0] == whole.codes[i]


def learns(make: Make, task: TaskKind) -> None:
    """A model does better on what it was trained on than the most common class, or the mean."""
    data = _data(task)
    said = make().fit(data, 1).predict(data.features)
    if task == "regression":
        assert said.values is not None
        assert data.values is not None
        assert np.mean((said.values - data.values) ** 2) < np.var(data.values)
        return
    right = np.mean([label == truth for label, truth in zip(_named(said), data.y.tolist(), strict=True)])
    assert data.codes is not None
    assert right > np.bincount(data.codes).max() / len(data)


def saves_and_loads(make: Make, task: TaskKind) -> None:
    """What was saved loads into another learner made alike, and predicts the same, bit for bit."""
    data = _richest(make, task)
    model = make().fit(data, 1)
    loaded = make().load(model.save())
    _holds_the_same(loaded, model)
    _assert_same(loaded.predict(data.features), model.predict(data.features))
    assert loaded.row_trees(100) == model.row_trees(100)


def saves_for_production(make: Make, task: TaskKind) -> None:
    """Saved without pickle, or with one that was allowed, a model loads and goes on as if it had never been saved.

    A learner that must have a pickle says so before, refuses to be saved without the permission, and is not loaded
    without it or without the digest that was recorded.
    """
    data = _richest(make, task, n=200)
    model, straight = (make().fit(data.slice(0, 120), 1) for _ in range(2))
    trust = Trust(pickle=isinstance(model, Pickled) and model.needs_pickle)
    _comes_back(make, model, trust, data)
    if trust.pickle:
        _refuses_a_pickle(make, model)
    resumed = make().load(blob := model.save(trust), trust.recorded(sha256(blob)))
    if isinstance(resumed, Updatable) and isinstance(straight, Updatable) and resumed.resumes:
        straight.update(data.slice(120, 200), 2)
        resumed.update(data.slice(120, 200), 2)
        assert resumed.digest() == straight.digest(), "an update after loading is not the update without"
        _assert_same(resumed.predict(data.features), straight.predict(data.features))
        _comes_back(make, resumed, trust, data)
    try:
        begun = make().begin()  # type: ignore[attr-defined]
    except (AttributeError, LearnerError):
        return
    _comes_back(make, begun, trust, data)
    begun.update(_without(data.slice(0, 40), 0) if task == "classification" else data.slice(0, 40), 1)
    _comes_back(make, begun, trust, data)


def _holds_the_same(loaded: Learner, model: Learner) -> None:
    assert loaded.digest() == model.digest()
    if isinstance(model, Sized):
        assert isinstance(loaded, Sized)
        assert loaded.size() == model.size()


def _comes_back(make: Make, model: Learner, trust: Trust, data: Examples) -> None:
    blob = model.save(trust)
    assert trust.pickle or codec_of(blob) != "pickle", "a pickle was saved, and none was allowed"
    loaded = make().load(blob, trust.recorded(sha256(blob)))
    _holds_the_same(loaded, model)
    assert reproduces(model, loaded, data.features), "what was loaded predicts something else"


def _refuses_a_pickle(make: Make, model: Learner) -> None:
    allowed = Trust(pickle=True)
    blob = model.save(allowed)
    try:
        model.save(Trust())
    except LearnerError:
        pass
    else:
        raise AssertionError("it needs a pickle, and was saved without permission")
    for trust in (Trust(), Trust().recorded(sha256(blob)), allowed, allowed.recorded("0" * 64)):
        try:
            make().load(blob, trust)
        except FormatError:
            continue
        raise AssertionError(f"a pickle was loaded with {trust}")


def refuses_what_it_did_not_save(make: Make, task: TaskKind) -> None:
    """Bytes of something else, or cut short, or damaged, raise ``FormatError``."""
    blob = make().fit(_data(task), 1).save()
    for wrong in (b"", b"no model at all, only some text", blob[: len(blob) // 2], blob[:-9] + b"123456789"):
        try:
            make().load(wrong)
        except FormatError:
            continue
        raise AssertionError(f"load took {wrong[:20]!r}... ({len(wrong)} bytes) for a model")


def misses_a_class(make: Make, task: TaskKind) -> None:
    """A window may lack a class that the table names, in the middle or at its end."""
    if task == "regression":
        return
    data = _data(task, three=True)  # of three, so that two are left
    for missing in (0, 1, 2):
        part = _without(data, missing)
        said = make().fit(part, 1).predict(data.features)
        _assert_valid(said, len(data))
        assert said.codes is not None
        assert data.classes[missing] not in _named(said)
        right = np.mean([label == truth for label, truth in zip(_named(said), data.y.tolist(), strict=True)])
        assert right > 0.4, f"classes are mixed up when {data.classes[missing]!r} is missing"


def takes_any_kind_of_class(make: Make, task: TaskKind) -> None:
    """Classes may be integers, booleans or words, and a prediction names them as they were written."""
    if task == "regression":
        return
    for classes in ((7, 3), (True, False), ("yes", "no")):
        said = make().fit(make_examples(120, classes=classes), 1).predict(make_examples(120).features)
        assert {type(c) for c in said.classes} == {type(classes[0])}
        assert set(said.classes) == set(classes)


def weighs_or_refuses(make: Make, task: TaskKind) -> None:
    """Weights change the model, or are refused with a ``LearnerError``: they are never ignored."""
    data = _data(task)
    weights = np.where(np.arange(len(data)) % 2 == 0, 5.0, 0.2)
    try:
        weighted = make().fit(replace(data, weights=weights), 1)
    except LearnerError:
        return
    plain = make().fit(data, 1)
    assert weighted.digest() != plain.digest(), "weights were ignored"


def checks_infinities(make: Make, task: TaskKind) -> None:
    """An infinity is refused by ``check`` with its column's name, or can be learned from."""
    data = _data(task)
    broken = _with_infinity(data)
    make().check(data.features)
    refusal = ""
    try:
        make().check(broken.features)
    except DataError as error:
        refusal = str(error)
    if refusal:
        assert "x2" in refusal, f"the error does not name the column: {refusal}"
    else:
        make().fit(broken, 1).predict(broken.features)


def counts_trees(make: Make, task: TaskKind) -> None:
    """The cost in row-trees is a whole number, in proportion to the rows."""
    model = make().fit(_data(task), 1)
    cost = model.row_trees(1000)
    assert isinstance(cost, int)
    assert cost >= 0
    assert abs(model.row_trees(2000) - 2 * cost) <= 1


def updates(make: Make, task: TaskKind) -> None:
    """An update learns, in place, and repeats: two models that saw the same are the same."""
    learner = make()
    if not isinstance(learner, Updatable):
        return
    data = _data(task, n=240)
    first, second = (learner.fit(data.slice(0, 120), 1) for _ in range(2))
    assert isinstance(first, Updatable)
    assert isinstance(second, Updatable)
    before = first.digest()
    first.update(data.slice(120, 240), 2)
    assert first.digest() != before, "an update changed nothing"
    assert second.digest() == before, "an update reached another model"
    second.update(data.slice(120, 240), 2)
    assert first.digest() == second.digest()
    _assert_same(first.predict(data.features), second.predict(data.features))
    _assert_valid(first.predict(data.features), len(data))


def resumes(make: Make, task: TaskKind) -> None:
    """Saving and loading after every second update gives bit for bit what going straight on gives."""
    learner = make()
    if not isinstance(learner, Updatable) or not learner.resumes:
        return
    data = _richest(make, task, n=300)
    straight, resumed = (learner.fit(data.slice(0, 100), 1) for _ in range(2))
    for turn, start in enumerate(range(100, 300, 40)):
        batch = data.slice(start, start + 40)
        straight.update(batch, turn)
        resumed.update(batch, turn)
        if turn % 2:
            resumed = make().load(resumed.save())  # type: ignore[assignment]
        assert resumed.digest() == straight.digest(), f"the states differ after update {turn + 1}"
        _assert_same(resumed.predict(data.features), straight.predict(data.features))


def begins(make: Make, task: TaskKind) -> None:
    """An untrained model can be asked and updated from the first row on, or says that it must be trained first."""
    learner = make()
    if not isinstance(learner, Updatable):
        return
    data = _data(task, n=160)
    try:
        model = learner.begin()
    except LearnerError:
        return
    _assert_valid(model.predict(data.features), len(data))
    for start in range(0, 160, 40):
        batch = data.slice(start, start + 40)
        if task == "classification" and start == 0:
            batch = _without(batch, 0)  # one class is known, and the other is not
        model.update(batch, start)
        said = model.predict(data.features)
        _assert_valid(said, len(data))
        resumed = make().load(model.save())
        assert resumed.digest() == model.digest()
        _assert_same(resumed.predict(data.features), said)
    if task == "classification":
        assert set(_named(said)) == set(data.classes), "a model that began untrained predicts one class only"


def meets_new_classes(make: Make, task: TaskKind) -> None:
    """A class may first appear after the first training, and be missing from later batches again."""
    learner = make()
    data = _richest(make, task, n=360)
    if len(data.classes) < 3 or not isinstance(learner, Updatable):
        return
    model = learner.fit(replace(_without(data.slice(0, 120), 2), classes=data.classes[:2]), 1)
    assert isinstance(model, Updatable)
    before = model.predict(data.features)
    for start in (120, 200):
        model.update(data.slice(start, start + 80), start)
        said = model.predict(data.features)
        _assert_valid(said, len(data))
        assert set(before.classes) <= set(said.classes), "a class that was known is gone"
    model.update(_without(data.slice(280, 360), 0), 5)
    _assert_valid(model.predict(data.features), len(data))
    right = np.mean([label == truth for label, truth in zip(_named(said), data.y.tolist(), strict=True)])
    assert right > 0.4, "classes are mixed up after a new one came"


def interleaves(make: Make, task: TaskKind) -> None:
    """Interleaved rows give what one call per row gives, bit for bit."""
    learner = make()
    if not isinstance(learner, Interleaved):
        return
    data = _richest(make, task, n=90)
    queue, asked = data.slice(0, 60), data.features.slice(30, 90)
    upto = np.minimum(np.arange(60) // 2 * 2, 50).astype(np.int64)  # labels come in pairs, and the last never
    together, apart = learner.begin(), learner.begin()
    assert isinstance(together, Interleaved)
    said = together.interleave(queue, asked, upto, 3)
    _assert_valid(said, len(asked))
    learned = 0
    labels: list[object] = []
    values: list[float] = []
    for i, until in enumerate(upto.tolist()):
        for j in range(learned, until):
            apart.update(queue.slice(j, j + 1), 3)
        learned = until
        one = apart.predict(asked.slice(i, i + 1))
        if one.values is None:
            labels += _named(one)
        else:
            values.append(float(one.values[0]))
    if task == "regression":
        np.testing.assert_array_equal(said.values, values)
    else:
        assert _named(said) == labels
    assert together.digest() == apart.digest()


def sums(make: Make, task: TaskKind) -> None:
    """Fitting from the statistics of blocks gives what fitting on all their rows gives, to 1e-8."""
    learner = make()
    if not isinstance(learner, Summable):
        return
    data = _richest(make, task, n=200)
    blocks = [learner.summarise(data.slice(start, start + 50)) for start in range(50, 200, 50)]
    summed = learner.fit_sum(blocks, data.slice(0, 0))
    fitted = learner.fit(data.slice(50, 200), 1)
    assert isinstance(summed, Learner)
    one, other = summed.predict(data.features), fitted.predict(data.features)
    assert one.classes == other.classes
    for a, b in ((one.proba, other.proba), (one.values, other.values)):
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def serves(make: Make, task: TaskKind) -> None:
    """The quickest form of a model says bit for bit what it predicts, of many rows and of one, with gaps, updated too.

    Rows that the model refuses, its form refuses.
    """
    learner = make()
    if not isinstance(learner, Servable):
        return
    data = _data(task)
    model = learner.fit(data.slice(0, 120), 1)
    _assert_served(model, data.features)
    if isinstance(model, Updatable):
        model.update(data.slice(120, 160), 2)
        _assert_served(model, data.features)
    words = make_examples(160, task=task, categories=2)
    try:
        taught = make().fit(words, 1)
    except (DataError, LearnerError, ValueError):  # it takes no words
        return
    assert isinstance(taught, Servable)
    form, rows = taught.serving(), words.features
    if form is not None:
        want, got = _said(taught.predict, rows), _said(form, rows.matrix())
        assert got == want, f"the quickest form of {taught.name} says otherwise of rows with words"


def _assert_served(model: Learner, features: Features) -> None:
    assert isinstance(model, Servable)
    form = model.serving()
    if form is None or not features.schema.numeric:
        return
    whole = features.matrix().copy()
    gaps = whole.copy()
    gaps[::3, 0] = gaps[1::4, -1] = np.nan
    for matrix in (whole, gaps, whole[:1].copy(), gaps[:1].copy(), np.full_like(whole[:1], np.nan)):
        before = matrix.copy()
        want, got = _said(model.predict, _shown(features, matrix)), _said(form, matrix)
        assert got == want, f"the quickest form of {model.name} says otherwise of {len(matrix)} rows"
        np.testing.assert_array_equal(matrix, before, f"{model.name} wrote to the rows that it was asked about")


def _shown(features: Features, matrix: NDArray[np.float64]) -> Features:
    """The rows of a matrix as columns, NaN as null."""
    import pyarrow as pa

    columns = [pa.array(np.ascontiguousarray(column), mask=np.isnan(column)) for column in matrix.T]
    return Features.of(Chunk(pa.table(columns, names=list(features.names)), features.schema))


def _said(ask: Callable[[Any], Prediction], rows: Any) -> bytes | None:
    """What is said, bit by bit; None of rows that are refused."""
    try:
        told = ask(rows)
    except Exception:  # each framework has its own
        return None
    parts = [part.tobytes() for part in (told.codes, told.proba, told.values) if part is not None]
    return repr(told.classes).encode() + b"|".join(parts)


PARTS: tuple[Callable[[Make, TaskKind], None], ...] = (
    says_what_it_is,
    fits_from_scratch,
    repeats,
    predicts,
    predicts_rows_alone,
    learns,
    saves_and_loads,
    saves_for_production,
    refuses_what_it_did_not_save,
    misses_a_class,
    takes_any_kind_of_class,
    weighs_or_refuses,
    checks_infinities,
    counts_trees,
    updates,
    resumes,
    begins,
    meets_new_classes,
    interleaves,
    sums,
    serves,
)


def _data(task: TaskKind, *, n: int = 160, three: bool = False, seed: int = 0) -> Examples:
    return make_examples(n, task=task, classes=_THREE if three else ("yes", "no"), seed=seed)


def _richest(make: Make, task: TaskKind, *, n: int = 160) -> Examples:
    """Three classes, or two for a learner that says it tells no more apart."""
    data = _data(task, n=n, three=True)
    try:
        make().fit(data, 1)
    except LearnerError:
        return _data(task, n=n)
    return data


def _without(data: Examples, code: int) -> Examples:
    assert data.codes is not None
    return data.take(np.flatnonzero(data.codes != code).astype(np.int64))


def _with_infinity(data: Examples) -> Examples:
    import pyarrow as pa

    table = data.features.arrow()
    values = table.column("x2").to_numpy().copy()
    values[3] = np.inf
    table = table.set_column(table.column_names.index("x2"), "x2", pa.array(values))
    return replace(data, features=Features.of(Chunk(table, data.features.schema)))


def _named(said: Prediction) -> list[object]:
    """The predicted classes themselves; None where there is none."""
    assert said.codes is not None
    return [said.classes[code] if code >= 0 else None for code in said.codes.tolist()]


def _assert_same(one: Prediction, other: Prediction) -> None:
    assert one.classes == other.classes
    for name in ("codes", "proba", "values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def _assert_valid(said: Prediction, n: int) -> None:
    assert len(said) == n
    if said.values is not None:
        assert said.codes is None
        assert said.values.dtype == np.float64
        assert said.values.shape == (n,)
        return
    assert said.codes is not None
    assert said.codes.dtype == np.int32
    assert said.codes.shape == (n,)
    assert len(set(said.classes)) == len(said.classes)
    assert ((said.codes >= UNSEEN) & (said.codes < len(said.classes))).all()
    if said.proba is None:
        return
    assert said.proba.dtype == np.float64
    assert said.proba.shape == (n, len(said.classes))
    made = said.codes >= 0
    assert (said.proba[made] >= 0).all()
    total = said.proba[made].sum(axis=1)
    if len(said.classes) == 1:  # what is missing from 1 may be the share of a class that no label has named yet
        assert (total <= 1.0 + 1e-6).all()
    else:
        np.testing.assert_allclose(total, 1.0, atol=1e-6)
