"""Exact models of our own, in numpy alone: linear and logistic models with forgetting, Ridge, Gaussian naive Bayes.

They keep sufficient statistics and no rows, so what stateful training gives can be said as an equation, and tested:

- :class:`Linear` updated by rows, by batches or fitted anew on the exponentially weighted history is one model.
- :class:`Ridge` and :class:`GaussianNB` fit a sliding window from sums of block statistics, reading each row once.
- :class:`Logistic` fits its window exactly and goes on by one Newton step per update.

Category columns are one-hot by code, without a column for null. The layout is append-only: a code first seen later
adds a column, and since all earlier rows had 0 there, padding the statistics with zeros is exactly what having had
the column from the start would have given. A code that no training saw is a row of zeros.

References
----------
Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance: merging of means and centred moments.
Haykin, Adaptive Filter Theory: exponentially weighted least squares.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Features, Kind, Schema
from perennial.core.identity import canonical, digest
from perennial.core.protocols import LOCAL, Serving, Trust
from perennial.core.records import ABSTAINED, Examples, Label, Prediction, TaskKind
from perennial.learners.export import Files, as_json
from perennial.learners.saved import pack, unpack

Floats = NDArray[np.float64]

#: least curvature p(1 - p) that a row counts with: below it a saturated model would lose all inertia
CURVATURE_FLOOR = 1e-4
#: how far one update may move the log odds of the rows it learns, root mean square: a Newton step from a saturated
#: model overshoots. From zero a step moves them by 2 at most, so it is never shortened
STEP_LIMIT = 4.0
_MOST_STEPS = 100
_TINY = float(np.finfo(np.float64).tiny)


# ---------------------------------------------------------------------------------------------------------------
# columns
# ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What each column of the design matrix is: (feature column, code), code -1 for a number. Append-only."""

    names: tuple[str, ...]
    categories: tuple[int, ...]
    slots: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, schema: Schema) -> _Layout:
        words = schema.categories
        return cls(
            names=schema.names,
            categories=words,
            slots=tuple((j, -1) for j in range(len(schema)) if j not in words),
        )

    @classmethod
    def read(cls, saved: dict[str, Any]) -> _Layout:
        return cls(
            names=tuple(saved["names"]),
            categories=tuple(saved["categories"]),
            slots=tuple((int(j), int(code)) for j, code in saved["slots"]),
        )

    def grown(self, matrix: Floats) -> _Layout:
        """This layout with columns for codes that it does not have yet."""
        if not self.categories:
            return self
        known = set(self.slots)
        new = []
        for j in self.categories:
            codes = matrix[:, j]
            new += [(j, int(code)) for code in np.unique(codes[~np.isnan(codes)]) if (j, int(code)) not in known]
        return self.with_slots(new)

    def with_slots(self, new: Sequence[tuple[int, int]]) -> _Layout:
        if not new:
            return self
        return _Layout(names=self.names, categories=self.categories, slots=(*self.slots, *new))

    def design(self, matrix: Floats) -> Floats:
        """The design matrix, shape (n, slots); the matrix itself where all columns are numbers."""
        if not self.categories:
            return matrix
        out = np.zeros((len(matrix), len(self.slots)))
        for k, (j, code) in enumerate(self.slots):
            out[:, k] = matrix[:, j] if code < 0 else matrix[:, j] == code
        return out


def _matrix(features: Features, layout: _Layout | None) -> Floats:
    if layout is not None and features.names != layout.names:
        raise DataError(f"columns {features.names} came to a model of {layout.names}: fit it anew on these columns")
    return features.matrix("float64")


def _checked(features: Features, layout: _Layout | None) -> Floats:
    """The matrix, refused if a number is missing or infinite: one such row would spoil the statistics for good."""
    matrix = _matrix(features, layout)
    if not np.isfinite(matrix).all():
        _refuse(features, matrix)
    return matrix


def _refuse(features: Features, matrix: Floats) -> None:
    for j, column in enumerate(features.schema.columns):
        values = matrix[:, j]
        if np.isinf(values).any():
            raise DataError(f"column {column.name!r} holds infinite values: clip them or make them null, and impute")
        if column.kind is not Kind.CATEGORY and np.isnan(values).any():
            raise DataError(
                f"column {column.name!r} holds nulls, which an exact model cannot learn: impute it under `features`, "
                "list it under `drop`, or use a learner that takes nulls, e.g. LightGBM"
            )


def _aged(forgetting: float, rows: int, weights: Floats | None) -> Floats | None:
    """The weight of each of ``rows`` new rows once the last of them is learned; None for all ones."""
    if forgetting == 1.0:
        return weights
    age = forgetting ** np.arange(rows - 1, -1, -1, dtype=np.float64)
    return age if weights is None else age * weights


# ---------------------------------------------------------------------------------------------------------------
# what all four share: settings, saving, refusing
# ---------------------------------------------------------------------------------------------------------------


class _State(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


def _dump(state: _State) -> bytes:
    """A line of JSON that names plain values and the shapes of arrays, and then their bytes."""
    plain: dict[str, Any] = {}
    shapes: dict[str, list[int]] = {}
    data = []
    for name in (f.name for f in fields(state)):
        value = getattr(state, name)
        if isinstance(value, np.ndarray):
            shapes[name] = list(value.shape)
            data.append(np.ascontiguousarray(value, dtype="<f8").tobytes())
        elif isinstance(value, _Layout):
            plain[name] = {f.name: getattr(value, f.name) for f in fields(value)}
        else:
            plain[name] = value
    return b"\n".join([json.dumps([plain, shapes], separators=(",", ":")).encode(), b"".join(data)])


def _undump(payload: bytes) -> dict[str, Any]:
    head, _, data = payload.partition(b"\n")
    try:
        plain, shapes = json.loads(head)
        state: dict[str, Any] = dict(plain)
        at = 0
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            state[name] = np.frombuffer(data, dtype="<f8", count=size, offset=at).reshape(shape).astype(np.float64)
            at += 8 * size
        if isinstance(state.get("layout"), dict):
            state["layout"] = _Layout.read(state["layout"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"the saved model does not hold what it should ({error}): train anew") from error
    return state


class _Exact(ABC):
    """What the four models have in common; nothing here learns."""

    _params: dict[str, Any]
    _state: Any = None
    _state_type: ClassVar[type]

    @property
    def name(self) -> str:
        """The class name."""
        return type(self).__name__

    @property
    def resumes(self) -> bool:
        """True: the statistics are the whole state, and are saved to the last bit."""
        return True

    def identity(self) -> str:
        """Canonical text of class, parameters and numpy version."""
        return canonical({"learner": type(self), "params": self._params, "numpy": np.__version__})

    def save(self, trust: Trust = LOCAL) -> bytes:  # noqa: ARG002 - every trust covers it
        """The statistics: plain JSON and raw numbers, behind a checked header."""
        return pack(self._kind(), _dump(self._fitted()), {}, "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """A new model from what :meth:`save` gave.

        Raises
        ------
        FormatError
            If it is damaged, from a newer release, or from a model with other settings.
        """
        return self._with(self._state_type(**_undump(unpack(self._kind(), blob, {}, trust)[1])))

    def exported(self, trust: Trust) -> Files:  # noqa: ARG002 - nothing is pickled
        """The model in numbers, as JSON.

        Raises
        ------
        LearnerError
            If it has learned nothing yet.
        """
        facts = self._facts()
        readme = (
            f"{facts['asked']}. x: the columns in order, one that has a code being 1 in rows where its column has that "
            "code and else 0"
        )
        return Files(files={"model.json": as_json({"model": self.name, **facts})}, readme=readme)

    def serving(self) -> Serving | None:
        """The model itself: a matrix is all that it wants of rows."""
        self._fitted()
        return self._said

    @abstractmethod
    def _said(self, matrix: Floats) -> Prediction:
        """Predictions for the rows of a matrix."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What is exported; ``asked`` says what to do with the rest."""

    def _untaught(self) -> LearnerError:
        return LearnerError(f"{self.name} has learned nothing to export: update it first")

    def digest(self) -> str:
        """Digest of the statistics."""
        return digest(_dump(self._fitted()))

    def size(self) -> int:
        """Bytes of the statistics."""
        return len(_dump(self._fitted()))

    def row_trees(self, rows: int) -> int:  # noqa: ARG002
        """0: there are no trees."""
        return 0

    def check(self, features: Features) -> None:
        """Raise ``DataError``, naming the column, for text, for nulls among numbers and for infinite values."""
        _checked(features, None)

    def _kind(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self._params.items())})"

    def _with(self, state: Any) -> Self:
        new = type(self)(**self._params)
        new._state = state
        return new

    def _fitted(self) -> Any:
        if self._state is None:
            raise LearnerError(f"{self.name} was not fitted: call fit, or begin to start untrained")
        return self._state


def _need_rows(examples: Examples, name: str) -> None:
    if not len(examples):
        raise LearnerError(f"{name} got no examples: give it a longer window, or begin to start untrained")


def _need_forgetting(value: float) -> None:
    if not 0 < value <= 1:
        raise ConfigError(
            "forgetting", value, "give what a row keeps of its weight when the next is learned, in (0, 1]"
        )


# ---------------------------------------------------------------------------------------------------------------
# least squares
# ---------------------------------------------------------------------------------------------------------------


def _columns(layout: _Layout) -> list[dict[str, Any]]:
    return [{"column": layout.names[j]} | ({} if code < 0 else {"code": code}) for j, code in layout.slots]


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Weighted moments of (label, design columns): sum of weights, means, and the centred scatter matrix."""

    layout: _Layout | None = None
    weight: float = 0.0
    mean: Floats = field(default_factory=lambda: np.zeros(1))
    scatter: Floats = field(default_factory=lambda: np.zeros((1, 1)))

    @classmethod
    def of(cls, layout: _Layout, matrix: Floats, labels: Floats, weights: Floats | None) -> _Moments:
        design = layout.design(matrix)
        size = design.shape[1] + 1
        weight = np.ones(len(design)) if weights is None else weights
        total = float(weight.sum())
        if not total > 0:
            return cls(layout=layout, mean=np.zeros(size), scatter=np.zeros((size, size)))
        mean = np.empty(size)
        mean[0], mean[1:] = weight @ labels / total, weight @ design / total  # as products: half the time of `mean`
        rows, rest = design - mean[1:], labels - mean[0]
        if weights is not None:
            root = np.sqrt(weights)
            rows *= root[:, None]
            rest *= root
        scatter = np.empty((size, size))
        scatter[1:, 1:], scatter[0, 0] = rows.T @ rows, rest @ rest
        scatter[0, 1:] = scatter[1:, 0] = rest @ rows
        return cls(layout=layout, weight=total, mean=mean, scatter=scatter)

    @classmethod
    def total(cls, several: Sequence[_Moments]) -> _Moments:
        """Moments of the rows of all: in one step if they share a layout, else pair by pair."""
        layout = several[0].layout if several else None
        if layout is None or any(one.layout is None or one.layout.slots != layout.slots for one in several):
            out = cls()
            for one in several:
                out = out.merged(one)
            return out
        weight = np.array([one.weight for one in several])
        total = float(weight.sum())
        means = np.stack([one.mean for one in several])
        mean = weight @ means / total if total > 0 else means[0]
        gaps = (means - mean) * np.sqrt(weight)[:, None]
        scatter = np.sum([one.scatter for one in several], axis=0) + gaps.T @ gaps
        return cls(layout=layout, weight=total, mean=mean, scatter=scatter)

    def aged(self, factor: float) -> _Moments:
        """All weights multiplied by ``factor``."""
        return _Moments(layout=self.layout, weight=self.weight * factor, mean=self.mean, scatter=self.scatter * factor)

    def laid(self, layout: _Layout) -> _Moments:
        """The same moments in a layout that has all columns of this one, in any order."""
        if self.layout is None or layout.slots[: len(self.layout.slots)] == self.layout.slots:
            if not (grow := len(layout.slots) + 1 - len(self.mean)):
                return self
            mean, scatter = np.pad(self.mean, (0, grow)), np.pad(self.scatter, [(0, grow), (0, grow)])
            return _Moments(layout=layout, weight=self.weight, mean=mean, scatter=scatter)
        where = {slot: k + 1 for k, slot in enumerate(layout.slots)}
        index = [0, *(where[slot] for slot in self.layout.slots)]
        mean, scatter = np.zeros(len(where) + 1), np.zeros((len(where) + 1, len(where) + 1))
        mean[index] = self.mean
        scatter[np.ix_(index, index)] = self.scatter
        return _Moments(layout=layout, weight=self.weight, mean=mean, scatter=scatter)

    def merged(self, other: _Moments) -> _Moments:
        """Moments of the rows of both (Chan, Golub and LeVeque)."""
        assert other.layout is not None
        base = self.layout or other.layout
        known = set(base.slots)
        layout = base.with_slots([slot for slot in other.layout.slots if slot not in known])
        one, two = self.laid(layout), other.laid(layout)
        total = one.weight + two.weight
        if not two.weight > 0:
            return one
        if not one.weight > 0:
            return two
        gap = two.mean - one.mean
        return _Moments(
            layout=layout,
            weight=total,
            mean=one.mean + gap * (two.weight / total),
            scatter=one.scatter + two.scatter + np.outer(gap, gap) * (one.weight * two.weight / total),
        )

    def solution(self, ridge: float, intercept: bool) -> tuple[Floats, float]:
        """Coefficients and intercept of the penalised least squares; the intercept is not penalised."""
        moments = self.scatter if intercept else self.scatter + self.weight * np.outer(self.mean, self.mean)
        coefficients = _solve_spd(moments[1:, 1:], moments[1:, 0], ridge)
        return coefficients, float(self.mean[0] - self.mean[1:] @ coefficients) if intercept else 0.0


def _solve_spd(gram: Floats, target: Floats, ridge: float) -> Floats:
    """Solve (gram + ridge I) x = target: by Cholesky, or by least squares if columns tell each other."""
    system = gram + ridge * np.eye(len(gram))
    scale = np.sqrt(np.diagonal(system))
    scale = np.where(scale > 0, scale, 1.0)  # unit diagonal: columns of any unit are then equally well resolved
    system = system / np.outer(scale, scale)
    try:
        lower = np.linalg.cholesky(system)
    except np.linalg.LinAlgError:
        lower = np.zeros((1, 1))
    if np.diagonal(lower).min(initial=1.0) > 1e-6:  # its square: the share of a column not told by those before it
        solution = np.linalg.solve(lower.T, np.linalg.solve(lower, target / scale))
    else:
        solution = np.linalg.lstsq(system, target / scale, rcond=None)[0]
    return np.asarray(solution / scale, dtype=np.float64)


@final
class Linear(_Exact):
    """Linear regression with forgetting, updated exactly: the oracle that the framework is tested with.

    After rows 1..n it minimises

    ``sum_i forgetting ** (n - i) * w_i * (y_i - c - x_i' theta) ** 2  +  ridge * |theta| ** 2``

    whichever way they came: one by one, in batches, or in one ``fit`` of the whole history. Each row ages all rows
    before it by the factor ``forgetting``, also a row of weight 0. The ridge is a constant, not a prior row, so it does
    not age; the intercept c is not penalised. Means and centred moments are kept rather than raw sums, so a large
    offset in a column costs no digits.

    There is no forgetting by duration: identities of training data do not include event times, so that what a
    learner must not see cannot change what it learns. Give weights instead (a decaying window).

    Parameters
    ----------
    forgetting : float
        In (0, 1]; 1 keeps everything. Effective memory is 1 / (1 - forgetting) rows.
    ridge : float
        Not negative. With 0 and columns that tell each other, one of the equally good solutions.
    intercept : bool
        Whether there is a constant term.

    References
    ----------
    Haykin, Adaptive Filter Theory: exponentially weighted recursive least squares; here the normal equations are
    solved each time rather than their inverse updated, which costs d^3 / 3 and loses no digits.

    Examples
    --------
    >>> from perennial.testing import make_examples
    >>> history = make_examples(60, 3, task="regression")
    >>> whole = Linear(forgetting=0.95).fit(history, seed=0)
    >>> parts = Linear(forgetting=0.95).begin()
    >>> for start in range(0, 60, 7):
    ...     parts.update(history.slice(start, min(start + 7, 60)), seed=0)
    >>> bool(np.allclose(whole.predict(history.features).values, parts.predict(history.features).values, atol=1e-10))
    True
    """

    _state_type = _Moments
    _state: _Moments | None

    def __init__(self, *, forgetting: float = 1.0, ridge: float = 1.0, intercept: bool = True) -> None:
        _need_forgetting(forgetting)
        if not 0 <= ridge < np.inf:
            raise ConfigError("ridge", ridge, "give a finite number that is not negative")
        self._forgetting = float(forgetting)
        self._ridge = float(ridge)
        self._intercept = bool(intercept)
        self._params = {"forgetting": self._forgetting, "ridge": self._ridge, "intercept": self._intercept}
        self._solved: tuple[Floats, float] | None = None  # follows from the state, so it is no part of it

    @property
    def task(self) -> TaskKind:
        """``"regression"``."""
        return "regression"

    def fit(self, examples: Examples, seed: int) -> Linear:
        """A new model of ``examples``, the last of which weighs most."""
        _need_rows(examples, self.name)
        new = self.begin()
        new.update(examples, seed)
        return new

    def begin(self) -> Linear:
        """A new untrained model; it abstains until it has learned a row."""
        return self._with(_Moments())

    def update(self, examples: Examples, seed: int) -> None:  # noqa: ARG002
        """Age what is known by ``forgetting`` per row, and learn. Mutates the model; there is no randomness."""
        matrix = _checked(examples.features, self._fitted().layout)
        assert examples.values is not None
        self._absorb(examples.features.schema, matrix, examples.values, examples.weights)

    def predict(self, features: Features) -> Prediction:
        """Predicted values; NaN for every row before anything was learned, and for rows with a missing number."""
        return self._said(_matrix(features, self._fitted().layout))

    def _said(self, matrix: Floats) -> Prediction:
        return Prediction(values=self._values(matrix))

    def interleave(self, queue: Examples, features: Features, upto: NDArray[np.int64], seed: int) -> Prediction:  # noqa: ARG002
        """Before predicting row i, learn ``queue[upto[i - 1] : upto[i]]`` one by one."""
        layout = self._fitted().layout
        asked, stops, at = _matrix(features, layout), upto.tolist(), 0
        queue = queue.slice(0, stops[-1] if stops else 0)
        told = _checked(queue.features, layout)
        labels, weights, schema = queue.values, queue.weights, features.schema
        assert labels is not None
        values = np.empty(len(asked))
        for i, stop in enumerate(stops):
            for k in range(at, stop):
                row = slice(k, k + 1)
                self._absorb(schema, told[row], labels[row], None if weights is None else weights[row])
            at = max(at, stop)
            values[i] = self._values(asked[i : i + 1])[0]
        return Prediction(values=values)

    def _facts(self) -> dict[str, Any]:
        return _line(self._fitted(), self._ridge, self._intercept, self)

    def _absorb(self, schema: Schema, matrix: Floats, labels: Floats, weights: Floats | None) -> None:
        if not len(matrix):
            return
        past: _Moments = self._fitted()
        layout = (past.layout or _Layout.of(schema)).grown(matrix)
        new = _Moments.of(layout, matrix, labels, _aged(self._forgetting, len(matrix), weights))
        self._state = past.aged(self._forgetting ** len(matrix)).merged(new)
        self._solved = None

    def _values(self, matrix: Floats) -> Floats:
        state: _Moments = self._fitted()
        if state.layout is None or not state.weight > 0:
            return np.full(len(matrix), np.nan)
        if self._solved is None:
            self._solved = state.solution(self._ridge, self._intercept)
        coefficients, constant = self._solved
        return state.layout.design(matrix) @ coefficients + constant


@final
class Ridge(_Exact):
    """Ridge regression of a window, from sums of block statistics; equals scikit-learn's ``Ridge(alpha)``.

    A block is its count, means and centred second moments. Sliding a window reads the new rows once and adds blocks
    up; nothing is ever subtracted, so nothing is lost to cancellation. Category columns are one-hot by code, a
    column for every word.

    Parameters
    ----------
    alpha : float
        Not negative: what each squared coefficient costs. The intercept is free.

    References
    ----------
    Hoerl and Kennard (1970), Ridge regression. Chan, Golub and LeVeque (1983) for the sums.

    Examples
    --------
    >>> from perennial.testing import make_examples
    >>> window = make_examples(60, 3, task="regression")
    >>> ridge = Ridge(alpha=2.0)
    >>> blocks = [ridge.summarise(window.slice(start, start + 20)) for start in (0, 20, 40)]
    >>> whole, summed = ridge.fit(window, seed=0), ridge.fit_sum(blocks, window.slice(0, 0))
    >>> bool(np.allclose(whole.predict(window.features).values, summed.predict(window.features).values, atol=1e-10))
    True
    """

    _state_type = _Moments
    _state: _Moments | None

    def __init__(self, *, alpha: float = 1.0) -> None:
        if not 0 <= alpha < np.inf:
            raise ConfigError("alpha", alpha, "give a finite number that is not negative")
        self._alpha = float(alpha)
        self._params = {"alpha": self._alpha}
        self._solved: tuple[Floats, float] | None = None

    @property
    def task(self) -> TaskKind:
        """``"regression"``."""
        return "regression"

    def fit(self, examples: Examples, seed: int) -> Ridge:  # noqa: ARG002
        """A new model of ``examples``; there is no randomness."""
        return self.fit_sum([self.summarise(examples)], examples)

    def summarise(self, examples: Examples) -> Any:
        """Count, means and centred second moments of a block, in one pass over its rows."""
        matrix = _matrix(examples.features, None)
        assert examples.values is not None
        layout = _Layout.of(examples.features.schema).grown(matrix)
        with np.errstate(invalid="ignore"):
            block = _Moments.of(layout, matrix, examples.values, examples.weights)
        if not np.isfinite(block.mean).all():  # a missing or infinite number shows in its column's mean
            _refuse(examples.features, matrix)
        return block

    def fit_sum(self, blocks: Sequence[Any], examples: Examples) -> Ridge:  # noqa: ARG002
        """The model of all blocks together; ``examples`` adds nothing here."""
        total = _Moments.total(blocks)
        if not total.weight > 0:
            raise LearnerError("Ridge got no examples with weight: give it a longer window")
        return self._with(total)

    def predict(self, features: Features) -> Prediction:
        """Predicted values; NaN for rows with a missing number."""
        return self._said(_matrix(features, self._fitted().layout))

    def _said(self, matrix: Floats) -> Prediction:
        state: _Moments = self._fitted()
        assert state.layout is not None
        if self._solved is None:
            self._solved = state.solution(self._alpha, True)
        coefficients, constant = self._solved
        return Prediction(values=state.layout.design(matrix) @ coefficients + constant)

    def _facts(self) -> dict[str, Any]:
        return _line(self._fitted(), self._alpha, True, self)


def _line(state: _Moments, ridge: float, intercept: bool, model: _Exact) -> dict[str, Any]:
    """A linear model in numbers."""
    if state.layout is None or not state.weight > 0:
        raise model._untaught()
    coefficients, constant = state.solution(ridge, intercept)
    return {
        "asked": "x @ coefficients + intercept",
        "columns": _columns(state.layout),
        "coefficients": coefficients.tolist(),
        "intercept": constant,
    }


# ---------------------------------------------------------------------------------------------------------------
# logistic
# ---------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Odds:
    """One binary model per class, each against the rest, and one of a class that has had no row yet.

    ``curvature`` (k, q, q) is the information gathered about each class and ``theta`` (k, q) its coefficients;
    ``none_curvature`` (q, q) and ``none_target`` (q,) are the normal equations of the class without rows: what a class
    that appears later starts from. Design columns are shifted by ``origin`` (q,), fixed at the first batch's means.
    """

    layout: _Layout | None = None
    classes: list[Label] = field(default_factory=list)
    origin: Floats = field(default_factory=lambda: np.zeros(0))
    curvature: Floats = field(default_factory=lambda: np.zeros((0, 0, 0)))
    theta: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    none_curvature: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    none_target: Floats = field(default_factory=lambda: np.zeros(0))


@final
class Logistic(_Exact):
    """Logistic classification with forgetting: two classes, several, and such as first appear later.

    Each class has a binary model against the rest, and the probabilities are scaled to sum to 1 (with two classes
    they already do). What holds exactly:

    - ``fit`` minimises ``sum_i forgetting ** (n - i) * w_i * loss_i + ridge / 2 * |theta| ** 2`` for each class, the
      intercept free: with two classes and no forgetting, scikit-learn's ``LogisticRegression(C=1 / ridge)``.
    - ``update`` is one Newton step on the new rows' loss plus a quadratic memory of all rows before, aged by
      ``forgetting`` per row: ``A <- lam^n A + X'WX``, ``b <- lam^n b + X'Wz``, ``theta = (A + ridge I)^-1 b``. From an
      untrained model it is the first step of the fit.
    - A class seen for the first time starts from one Newton step on the whole aged history, all of it negative, as
      it would had the class been named from the start.
    - ``interleave`` equals one update and one prediction per row.

    What does not: updating is not fitting. The memory is quadratic, taken where each row was learned, so rows one
    by one, rows in batches and a fit of the whole history give different models, close ones if the model is near its
    optimum. A step is shortened if it would move the learned rows' log odds by more than 4, root mean square, and a
    row's curvature p(1 - p) counts as 1e-4 at least; both only matter to a model that is sure and wrong.

    Parameters
    ----------
    forgetting : float
        In (0, 1]; 1 keeps everything.
    ridge : float
        Positive: without it, classes that a line separates have no finite solution.
    intercept : bool
        Whether there is a constant term; it is not penalised.

    References
    ----------
    McCullagh and Nelder, Generalized Linear Models: iteratively reweighted least squares. Bohning and Lindsay
    (1988), Monotonicity of quadratic-approximation algorithms: curvature 1/4, used for the class without rows.
    """

    _state_type = _Odds
    _state: _Odds | None

    def __init__(self, *, forgetting: float = 1.0, ridge: float = 1.0, intercept: bool = True) -> None:
        _need_forgetting(forgetting)
        if not 0 < ridge < np.inf:
            raise ConfigError("ridge", ridge, "give a finite positive number")
        self._forgetting = float(forgetting)
        self._ridge = float(ridge)
        self._intercept = bool(intercept)
        self._params = {"forgetting": self._forgetting, "ridge": self._ridge, "intercept": self._intercept}

    @property
    def task(self) -> TaskKind:
        """``"classification"``."""
        return "classification"

    def fit(self, examples: Examples, seed: int) -> Logistic:
        """A new model of ``examples``, by Newton's method to convergence; one step where only one class is present."""
        _need_rows(examples, self.name)
        new = self.begin()
        new.update(examples, seed)
        state = new._fitted()
        if len(state.classes) > 1:
            new._converge(state, examples)
        return new

    def begin(self) -> Logistic:
        """A new untrained model; it abstains until it has learned a row."""
        return self._with(_Odds())

    def update(self, examples: Examples, seed: int) -> None:  # noqa: ARG002
        """One Newton step on new examples. Mutates the model; there is no randomness."""
        assert examples.codes is not None
        matrix = _checked(examples.features, self._fitted().layout)
        self._absorb(examples.features.schema, matrix, examples.codes, examples.classes, examples.weights)

    def predict(self, features: Features) -> Prediction:
        """Classes and probabilities; a row abstains before anything was learned, or if a number is missing."""
        return self._said(_matrix(features, self._fitted().layout))

    def _said(self, matrix: Floats) -> Prediction:
        return _classified(self._proba(matrix), self._fitted().classes)

    def interleave(self, queue: Examples, features: Features, upto: NDArray[np.int64], seed: int) -> Prediction:  # noqa: ARG002
        """Before predicting row i, learn ``queue[upto[i - 1] : upto[i]]`` one by one, a step for each."""
        layout = self._fitted().layout
        asked, stops, at = _matrix(features, layout), upto.tolist(), 0
        queue = queue.slice(0, stops[-1] if stops else 0)
        told = _checked(queue.features, layout)
        codes, weights, schema = queue.codes, queue.weights, features.schema
        assert codes is not None
        probas = []
        for i, stop in enumerate(stops):
            for k in range(at, stop):
                row = slice(k, k + 1)
                self._absorb(schema, told[row], codes[row], queue.classes, None if weights is None else weights[row])
            at = max(at, stop)
            probas.append(self._proba(asked[i : i + 1]))
        classes = self._fitted().classes
        proba = np.zeros((len(asked), len(classes)))
        for i, row_proba in enumerate(probas):
            proba[i, : row_proba.shape[1]] = row_proba[0] if row_proba.shape[1] else 0.0
        told_prediction = _classified(proba, classes)
        untold = [i for i, row_proba in enumerate(probas) if not row_proba.shape[1]]
        assert told_prediction.codes is not None
        told_prediction.codes[untold] = ABSTAINED
        proba[untold] = np.nan
        return told_prediction

    def _facts(self) -> dict[str, Any]:
        state: _Odds = self._fitted()
        if state.layout is None or not state.classes:
            raise self._untaught()
        row = "[1, x - origin]" if self._intercept else "x"
        return {
            "asked": f"probabilities: sigmoid({row} @ coefficients[k]) of each class k, divided by their sum",
            "classes": state.classes,
            "columns": _columns(state.layout),
            "origin": state.origin[1:].tolist() if self._intercept else [0.0] * len(state.origin),
            "coefficients": state.theta.tolist(),
        }

    def _penalty(self, size: int) -> Floats:
        penalty = np.full(size, self._ridge)
        if self._intercept:
            penalty[0] = 0.0
        return penalty

    def _design(self, state: _Odds, matrix: Floats) -> Floats:
        assert state.layout is not None
        design = state.layout.design(matrix)
        if not self._intercept:
            return design
        out = np.empty((len(design), design.shape[1] + 1))
        out[:, 0] = 1.0
        np.subtract(design, state.origin[1:], out=out[:, 1:])
        return out

    def _absorb(
        self, schema: Schema, matrix: Floats, codes: NDArray[np.int32], table: Sequence[Label], weights: Floats | None
    ) -> None:
        if not len(matrix):
            return
        state: _Odds = self._fitted()
        self._make_room(state, schema, matrix)
        keep = self._forgetting ** len(matrix)
        weights = _aged(self._forgetting, len(matrix), weights)
        own = self._admit(state, codes if weights is None else codes[weights > 0], table)
        positive = np.array([own.get(code, -1) for code in codes.tolist()])[:, None] == np.arange(len(state.classes))
        rows = self._design(state, matrix)
        penalty = self._penalty(rows.shape[1])

        theta, weight = state.theta, (np.ones(len(rows)) if weights is None else weights)[:, None]
        odds = rows @ theta.T
        chance = _sigmoid(odds)
        curvature = np.maximum(chance * (1.0 - chance), CURVATURE_FLOOR)
        memory = keep * (np.einsum("kij,kj->ki", state.curvature, theta) + penalty * theta)
        target = memory + (weight * (curvature * odds + positive - chance)).T @ rows
        state.curvature = keep * state.curvature + _information(rows, weight * curvature)
        moved = _solve_each(state.curvature + np.diag(penalty), target) - theta
        reach = np.sqrt((weight * (rows @ moved.T) ** 2).sum(axis=0) / max(float(weight.sum()), _TINY))
        state.theta = theta + moved * np.minimum(1.0, STEP_LIMIT / np.maximum(reach, STEP_LIMIT))[:, None]
        state.none_curvature = keep * state.none_curvature + _information(rows, weight / 4)[0]
        state.none_target = keep * state.none_target - (weight / 2).T[0] @ rows

    def _make_room(self, state: _Odds, schema: Schema, matrix: Floats) -> None:
        """Lay out the columns, with zeros for those that are new."""
        first = state.layout is None
        state.layout = (state.layout or _Layout.of(schema)).grown(matrix)
        size = len(state.layout.slots) + self._intercept
        if first:
            shift = int(self._intercept)
            state.origin = np.zeros(size)
            numbers = [k for k, (_, code) in enumerate(state.layout.slots) if code < 0]
            if self._intercept:
                state.origin[[k + shift for k in numbers]] = state.layout.design(matrix)[:, numbers].mean(axis=0)
            state.curvature, state.theta = np.zeros((0, size, size)), np.zeros((0, size))
            state.none_curvature, state.none_target = np.zeros((size, size)), np.zeros(size)
            return
        if not (grow := size - state.theta.shape[1]):
            return
        state.origin = np.pad(state.origin, (0, grow))
        state.theta = np.pad(state.theta, [(0, 0), (0, grow)])
        state.curvature = np.pad(state.curvature, [(0, 0), (0, grow), (0, grow)])
        state.none_curvature = np.pad(state.none_curvature, [(0, grow), (0, grow)])
        state.none_target = np.pad(state.none_target, (0, grow))

    def _admit(self, state: _Odds, codes: NDArray[np.int32], table: Sequence[Label]) -> dict[int, int]:
        """Our index of each code, with a model for every class that is new, in order of first label."""
        present, first = np.unique(codes, return_index=True)
        own = {}
        for code in present[np.argsort(first)].tolist():
            if table[code] not in state.classes:
                start = np.zeros_like(state.none_target)
                if state.none_curvature.any():
                    system = state.none_curvature + np.diag(self._penalty(len(start)))
                    start = _solve_each(system[None], state.none_target[None])[0]
                state.classes.append(table[code])
                state.curvature = np.concatenate([state.curvature, state.none_curvature[None]])
                state.theta = np.concatenate([state.theta, start[None]])
            own[code] = state.classes.index(table[code])
        return own

    def _converge(self, state: _Odds, examples: Examples) -> None:
        """Go on from one step to the optimum, class by class, and keep the curvature there."""
        assert examples.codes is not None
        rows = self._design(state, examples.features.matrix("float64"))
        weights = _aged(self._forgetting, len(rows), examples.weights)
        penalty = self._penalty(rows.shape[1])
        for k, label in enumerate(state.classes):
            positive = (examples.codes == examples.classes.index(label)).astype(np.float64)
            theta = _optimum(rows, positive, weights, penalty, state.theta[k])
            chance = _sigmoid(rows @ theta)
            curvature = np.maximum(chance * (1.0 - chance), CURVATURE_FLOOR)
            state.theta[k] = theta
            state.curvature[k] = _information(rows, (curvature if weights is None else curvature * weights)[:, None])[0]

    def _proba(self, matrix: Floats) -> Floats:
        state: _Odds = self._fitted()
        if not state.classes:
            return np.empty((len(matrix), 0))
        odds = self._design(state, matrix) @ state.theta.T
        with np.errstate(invalid="ignore"):  # a row with a missing number: it will abstain
            log_chance = -np.logaddexp(0.0, -odds)
        return _normalised(log_chance)


def _sigmoid(odds: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * odds))  # never overflows


def _information(rows: Floats, curvature: Floats) -> Floats:
    """sum_i curvature[i, k] x_i x_i' for each k, shape (k, q, q)."""
    out = np.empty((curvature.shape[1], rows.shape[1], rows.shape[1]))
    for k in range(curvature.shape[1]):
        scaled = rows * np.sqrt(curvature[:, k : k + 1])
        out[k] = scaled.T @ scaled
    return out


def _solve_each(systems: Floats, targets: Floats) -> Floats:
    """Solutions of several symmetric systems, shape (k, q)."""
    out = np.empty_like(targets)
    for k, (system, target) in enumerate(zip(systems, targets, strict=True)):
        out[k] = _solve_spd(system, target, 0.0)
    return out


def _optimum(rows: Floats, positive: Floats, weights: Floats | None, penalty: Floats, theta: Floats) -> Floats:
    """The coefficients that minimise the penalised logistic loss, by Newton's method with halved steps."""
    sign = 1.0 - 2.0 * positive
    weight = np.ones(len(rows)) if weights is None else weights

    def loss(at: Floats) -> float:
        return float(weight @ np.logaddexp(0.0, sign * (rows @ at)) + 0.5 * penalty @ at**2)

    now = loss(theta)
    if (start := loss(np.zeros_like(theta))) < now:
        theta, now = np.zeros_like(theta), start
    for _ in range(_MOST_STEPS):
        chance = _sigmoid(rows @ theta)
        slope = rows.T @ (weight * (positive - chance)) - penalty * theta
        curvature = weight * chance * (1.0 - chance)
        step = _solve_spd(_information(rows, curvature[:, None])[0] + np.diag(penalty), slope, 0.0)
        gain = float(slope @ step)  # twice what the step promises to save
        if gain <= 1e-14 * (1.0 + now):
            return theta + step
        size = 1.0
        while (after := loss(theta + size * step)) > now and size > 1e-6:
            size /= 2
        theta, now = theta + size * step, after
    return theta


def _normalised(log_values: Floats) -> Floats:
    """Rows of log values as probabilities that sum to 1."""
    top = log_values.max(axis=1, keepdims=True)
    scaled = np.exp(log_values - top)
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def _classified(proba: Floats, classes: Sequence[Label]) -> Prediction:
    """The most probable class of each row, the first of equals; a row without probabilities abstains."""
    codes = np.full(len(proba), ABSTAINED, dtype=np.int32)
    if classes:
        known = ~np.isnan(proba).any(axis=1)
        codes[known] = proba[known].argmax(axis=1)
    return Prediction(codes=codes, proba=proba, classes=tuple(classes))


# ---------------------------------------------------------------------------------------------------------------
# Gaussian naive Bayes
# ---------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Gaussians:
    """Per class: sum of weights (k,), means (k, d) and centred squares (k, d); and the same of all rows, unweighted."""

    layout: _Layout
    classes: list[Label]
    weight: Floats
    mean: Floats
    squares: Floats
    rows: float
    all_mean: Floats
    all_squares: Floats

    def ordered(self, classes: Sequence[Label]) -> _Gaussians:
        """The same with these classes, of which those not here have no rows."""
        at = [classes.index(label) for label in self.classes]
        d = self.mean.shape[1]
        weight, mean, squares = np.zeros(len(classes)), np.zeros((len(classes), d)), np.zeros((len(classes), d))
        weight[at], mean[at], squares[at] = self.weight, self.mean, self.squares
        return _Gaussians(
            layout=self.layout,
            classes=list(classes),
            weight=weight,
            mean=mean,
            squares=squares,
            rows=self.rows,
            all_mean=self.all_mean,
            all_squares=self.all_squares,
        )


def _add(one: tuple[Floats, Floats, Floats], two: tuple[Floats, Floats, Floats]) -> tuple[Floats, Floats, Floats]:
    """Weights (k, 1), means and centred squares (k, d) of two sets of rows together (Chan, Golub and LeVeque)."""
    weight = one[0] + two[0]
    share = np.divide(two[0], weight, out=np.zeros_like(weight), where=weight > 0)
    gap = two[1] - one[1]
    return weight, one[1] + gap * share, one[2] + two[2] + gap**2 * (one[0] * share)


@final
class GaussianNB(_Exact):
    """Gaussian naive Bayes of a window, from sums of block statistics; equals scikit-learn's ``GaussianNB``.

    A block holds, for each class in it, the sum of weights, the means and the centred squares of the columns. As in
    scikit-learn, every variance gets ``var_smoothing`` times the largest variance of a column over all rows of the
    window, weights left aside. Columns must be numbers: a category's code has no mean.

    Parameters
    ----------
    var_smoothing : float
        Not negative.

    References
    ----------
    Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.

    Examples
    --------
    >>> from perennial.testing import make_examples
    >>> window = make_examples(60, 3)
    >>> bayes = GaussianNB()
    >>> blocks = [bayes.summarise(window.slice(start, start + 20)) for start in (0, 20, 40)]
    >>> whole, summed = bayes.fit(window, seed=0), bayes.fit_sum(blocks, window.slice(0, 0))
    >>> bool(np.allclose(whole.predict(window.features).proba, summed.predict(window.features).proba, atol=1e-10))
    True
    """

    _state_type = _Gaussians
    _state: _Gaussians | None

    def __init__(self, *, var_smoothing: float = 1e-9) -> None:
        if not 0 <= var_smoothing < np.inf:
            raise ConfigError("var_smoothing", var_smoothing, "give a finite number that is not negative")
        self._var_smoothing = float(var_smoothing)
        self._params = {"var_smoothing": self._var_smoothing}

    @property
    def task(self) -> TaskKind:
        """``"classification"``."""
        return "classification"

    def check(self, features: Features) -> None:
        """Raise ``DataError``, naming the column, for anything but finite numbers."""
        for column in features.schema.columns:
            if column.kind is Kind.CATEGORY:
                raise DataError(
                    f"column {column.name!r} holds words, whose codes have no mean: list it under `drop`, build "
                    "numbers from it under `features`, or use Logistic, which takes words"
                )
        _checked(features, None)

    def fit(self, examples: Examples, seed: int) -> GaussianNB:  # noqa: ARG002
        """A new model of ``examples``; there is no randomness."""
        return self.fit_sum([self.summarise(examples)], examples)

    def summarise(self, examples: Examples) -> Any:
        """Weights, means and centred squares of each class of a block, in two passes over its rows."""
        features, codes, weights = examples.features, examples.codes, examples.weights
        assert codes is not None
        if features.schema.categories:
            self.check(features)
        matrix = _matrix(features, None)
        present = np.flatnonzero(np.bincount(codes, minlength=len(examples.classes)))
        own = np.zeros(len(examples.classes), dtype=np.intp)
        own[present] = np.arange(len(present))
        member = (codes == present[:, None]).astype(np.float64)  # (k, n): sums by class are then matrix products
        counts = member.sum(axis=1)[:, None]
        if weights is not None:
            member *= weights
        total = member.sum(axis=1)[:, None]
        # a class whose rows all weigh nothing has no mean: any centre will do, and 0 weight says so
        with np.errstate(invalid="ignore"):
            mean = np.divide(member @ matrix, total, out=np.zeros((len(present), matrix.shape[1])), where=total > 0)
        if not np.isfinite(mean).all():
            _refuse(features, matrix)
        centred = matrix - mean[own[codes]]
        np.square(centred, out=centred)
        squares = member @ centred
        if weights is None and len(present):
            all_mean = (counts * mean).sum(axis=0) / len(matrix)
            all_squares = squares.sum(axis=0) + (counts * (mean - all_mean) ** 2).sum(axis=0)
        else:
            all_mean = matrix.mean(axis=0) if len(matrix) else np.zeros(matrix.shape[1])
            all_squares = ((matrix - all_mean) ** 2).sum(axis=0)
        return _Gaussians(
            layout=_Layout.of(features.schema),
            classes=[examples.classes[code] for code in present],
            weight=total[:, 0],
            mean=mean,
            squares=squares,
            rows=float(len(matrix)),
            all_mean=all_mean,
            all_squares=all_squares,
        )

    def fit_sum(self, blocks: Sequence[Any], examples: Examples) -> GaussianNB:
        """The model of all blocks together, its classes in the order of ``examples.classes``."""
        met = {
            label for block in blocks for label, weight in zip(block.classes, block.weight, strict=True) if weight > 0
        }
        classes = [label for label in examples.classes if label in met]
        if not classes:
            raise LearnerError("GaussianNB got no examples with weight: give it a longer window")
        d = blocks[0].mean.shape[1]
        by_class = (np.zeros((len(classes), 1)), np.zeros((len(classes), d)), np.zeros((len(classes), d)))
        overall = (np.zeros((1, 1)), np.zeros((1, d)), np.zeros((1, d)))
        for block in blocks:
            block = _known(block, met).ordered(classes)
            by_class = _add(by_class, (block.weight[:, None], block.mean, block.squares))
            overall = _add(overall, (np.full((1, 1), block.rows), block.all_mean[None], block.all_squares[None]))
        return self._with(
            _Gaussians(
                layout=blocks[0].layout,
                classes=classes,
                weight=by_class[0][:, 0],
                mean=by_class[1],
                squares=by_class[2],
                rows=float(overall[0][0, 0]),
                all_mean=overall[1][0],
                all_squares=overall[2][0],
            )
        )

    def _facts(self) -> dict[str, Any]:
        state: _Gaussians = self._fitted()
        smoothing = self._var_smoothing * float((state.all_squares / state.rows).max(initial=0.0))
        return {
            "asked": "probabilities: prior[k] * product over columns of normal(x, mean[k], variance[k]) of each class "
            "k, divided by their sum",
            "classes": state.classes,
            "columns": _columns(state.layout),
            "prior": (state.weight / state.weight.sum()).tolist(),
            "mean": state.mean.tolist(),
            "variance": (state.squares / state.weight[:, None] + smoothing).tolist(),
        }

    def predict(self, features: Features) -> Prediction:
        """Classes and probabilities; a row with a missing number abstains."""
        return self._said(_matrix(features, self._fitted().layout))

    def _said(self, matrix: Floats) -> Prediction:
        state: _Gaussians = self._fitted()
        smoothing = self._var_smoothing * float((state.all_squares / state.rows).max(initial=0.0))
        log_joint = np.empty((len(matrix), len(state.classes)))
        for k, prior in enumerate(state.weight / state.weight.sum()):
            variance = state.squares[k] / state.weight[k] + smoothing
            with np.errstate(divide="ignore", invalid="ignore"):  # a constant column without smoothing: 0 / 0
                distance = ((matrix - state.mean[k]) ** 2 / variance).sum(axis=1)
                log_joint[:, k] = np.log(prior) - 0.5 * (np.log(2.0 * np.pi * variance).sum() + distance)
        return _classified(_normalised(log_joint), state.classes)


def _known(block: _Gaussians, met: set[Label]) -> _Gaussians:
    """A block without the classes whose rows weigh nothing anywhere in the window."""
    here = [k for k, label in enumerate(block.classes) if label in met]
    if len(here) == len(block.classes):
        return block
    return _Gaussians(
        layout=block.layout,
        classes=[block.classes[k] for k in here],
        weight=block.weight[here],
        mean=block.mean[here],
        squares=block.squares[here],
        rows=block.rows,
        all_mean=block.all_mean,
        all_squares=block.all_squares,
    )
