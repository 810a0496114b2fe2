"""What the boosted-tree learners share: class tables, gradients, members with weights, and how they are updated.

The three frameworks differ in how trees are grown, asked and stored, which an :class:`Engine` hides; what is learned
when is written here, once. Scores before the link ("raw") are float64 of shape (n, outputs): one column for
regression and for two classes (the log-odds of the second), else one per class. No framework is imported here.

References
----------
Friedman (2001), Greedy function approximation: a gradient boosting machine, Annals of Statistics 29.
Chen and Guestrin (2016), XGBoost: a scalable tree boosting system, KDD: Newton steps with an L2 penalty.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Features, Kind, Schema
from perennial.core.identity import Unhashable, canonical, digest, seed_from
from perennial.core.protocols import LOCAL, Known, Serving, Trust
from perennial.core.records import ABSTAINED, Examples, Label, Prediction, TaskKind
from perennial.learners.export import Files, as_json
from perennial.learners.recall import Recall
from perennial.learners.saved import join, pack, part, unpack

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

#: added to the mass of every class, so that a class's prior is never zero (Krichevsky and Trofimov 1981)
_SMOOTHING = 0.5
#: a leaf that hardly any of a batch's curvature reaches must not jump: the least penalty of a leaf refit
_LEAST_L2 = 1.0

#: log-odds beyond which float64 knows only 0 and 1, and its exponential would overflow
_STEEPEST = 700.0
#: of new trees: how often Newton's method moves their weight, the greatest, and how fast the first weight follows
_WEIGHT_STEPS, _MOST_WEIGHT, _STEP_RATE = 5, 1.5, 0.2
_LEAST_TRIED = 100  #: rows that the former weight counts as, at least
#: why updates refuse the frameworks' own class weights: base rates and leaves would not agree on them
WEIGH_ROWS = "updates know the weights of examples only: leave it out, and give the stream a weight column"


# -- class tables -----------------------------------------------------------------------------------------------------


def outputs(task: TaskKind, classes: int) -> int:
    """Raw scores per row: one for regression and up to two classes, else one per class."""
    return classes if task == "classification" and classes > 2 else 1


def aligned(own: Sequence[Label], examples: Examples) -> tuple[tuple[Label, ...], Codes]:
    """A model's classes, those that ``examples`` show for the first time appended, and each row's index into them.

    A class is told by type and value: ``1``, ``True`` and ``"1"`` are three. Classes that the examples' table names
    but no row has are left out.
    """
    assert examples.codes is not None
    place = {(type(label), label): i for i, label in enumerate(own)}
    new: list[Label] = []
    lookup = np.full(len(examples.classes), -1, dtype=np.int64)
    for code in np.unique(examples.codes).tolist():
        label = examples.classes[code]
        key = (type(label), label)
        if key not in place:
            place[key] = len(place)
            new.append(label)
        lookup[code] = place[key]
    return (*own, *new), lookup[examples.codes]


def ranked(examples: Examples) -> tuple[tuple[Label, ...], NDArray[Any], Codes]:
    """The classes that rows have, sorted; labels for the estimator; and each row's rank among those classes.

    Sorted is how every framework orders the columns of its probabilities. Labels that numpy holds in one plain type
    are given as the user wrote them; of others, which no framework accepts, the rank.
    """
    order = _sorted(examples)
    return tuple(examples.classes[code] for code in order), *_told(examples, order)


def ranked_as(train: Examples, valid: Examples) -> tuple[NDArray[Any], Codes]:
    """Labels for the estimator, and ranks, of rows whose classes ``train`` has, as :func:`ranked` tells those.

    Both share one class table, as slices of the same examples do.
    """
    return _told(valid, _sorted(train))


def _sorted(examples: Examples) -> list[int]:
    """Codes of the classes that rows have, in the classes' own order."""
    assert examples.codes is not None
    table: tuple[Any, ...] = examples.classes
    present: list[int] = np.unique(examples.codes).tolist()
    try:
        return sorted(present, key=lambda code: table[code])
    except TypeError:  # words and numbers together have no order
        return present


def _told(examples: Examples, order: Sequence[int]) -> tuple[NDArray[Any], Codes]:
    assert examples.codes is not None
    lookup = np.zeros(len(examples.classes), dtype=np.int64)
    lookup[list(order)] = np.arange(len(order))
    ranks = lookup[examples.codes]
    y = examples.y
    return (ranks if y.dtype.hasobject else y), ranks


# -- raw scores, probabilities, gradients -----------------------------------------------------------------------------


def probabilities(raw: Floats, classes: int) -> Floats:
    """Probabilities of each class, shape (n, classes), from raw scores."""
    if classes <= 1:
        return np.ones((len(raw), classes))
    if classes == 2:
        second = 1.0 / (1.0 + np.exp(-np.clip(raw[:, 0], -_STEEPEST, _STEEPEST)))
        return np.column_stack([1.0 - second, second])
    shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
    out: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return out


def widened(raw: Floats, classes: int) -> Floats:
    """Raw scores of a model of fewer classes as scores for ``classes`` of them; new ones score 0.

    The log-odds of two classes become half of it for and half of it against, which says the same of those two.
    """
    wide = outputs("classification", classes)
    if raw.shape[1] == wide:
        return raw
    if raw.shape[1] == 1:
        raw = np.column_stack([-raw[:, 0] / 2, raw[:, 0] / 2])
    return np.pad(raw, ((0, 0), (0, wide - raw.shape[1])))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What trees are fitted to.

    ``y`` float64 (n,) holds values, or codes in [0, classes); ``weights`` float64 (n,) or None; ``classes`` counts
    the whole class table, whatever the rows have, and is 0 for regression.
    """

    y: Floats
    classes: int = 0
    weights: Floats | None = None

    @property
    def outputs(self) -> int:
        """Raw scores per row."""
        return self.classes if self.classes > 2 else 1

    @property
    def mass(self) -> Floats:
        """Weight per class; or for regression the weights' sum and the weighted labels' sum."""
        weights = np.ones(len(self.y)) if self.weights is None else self.weights
        if self.classes:
            return np.bincount(self.y.astype(np.int64), weights, self.classes).astype(np.float64)
        return np.array([weights.sum(), weights @ self.y])


def gradients(raw: Floats, target: Target) -> tuple[Floats, Floats]:
    """First and second derivatives of the weighted loss by the raw scores, each of shape (n, outputs).

    Squared error over two, or log loss. The curvature of several classes is Friedman's ``k / (k - 1) p (1 - p)``,
    as LightGBM has it.
    """
    k = target.outputs
    if not target.classes:
        slope = raw - target.y[:, None]
        curve = np.ones_like(raw)
    elif k == 1:
        p = probabilities(raw, 2)[:, 1:]
        slope, curve = p - target.y[:, None], p * (1.0 - p)
    else:
        p = probabilities(raw, k)
        slope = p.copy()
        slope[np.arange(len(p)), target.y.astype(np.int64)] -= 1.0
        curve = k / (k - 1) * p * (1.0 - p)
    if target.weights is not None:
        slope, curve = slope * target.weights[:, None], curve * target.weights[:, None]
    return slope, curve


def prior(task: TaskKind, mass: Sequence[float] | Floats) -> Floats:
    """The raw score that is best without features, shape (outputs,), from the mass of the labels so far.

    Log of each class's share (of two classes, their log-odds), or the mean label.
    """
    if task == "regression":
        return np.array([mass[1] / mass[0] if mass[0] > 0 else math.nan], dtype=np.float64)
    logs = np.log(np.asarray(mass, dtype=np.float64) + _SMOOTHING)
    if len(mass) <= 2:
        return logs[1:] - logs[:1] if len(mass) == 2 else np.zeros(1)
    total: Floats = logs - math.log(float(np.sum(mass)) + _SMOOTHING * len(mass))
    return total


# -- leaves -----------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """The leaves of a booster and where rows end.

    Parameters
    ----------
    where : array of int, shape (n, trees)
        Which leaf of each tree a row reaches.
    values : list of float64 arrays, each (leaves of the tree, width)
        What leaves add to the raw score, learning rate included. ``width`` is the number of outputs, or 1 when
        every output has a tree of its own: those of a round then follow one another.
    """

    where: Codes
    values: list[Floats]


def refitted(leaves: Leaves, start: Floats, target: Target, *, decay: float, rate: float, l2: float) -> list[Floats]:
    """Leaf values moved to ``decay * old + (1 - decay) * new``, where new is the Newton step on these rows.

    Rounds are visited in order, each at the raw score that the moved leaves before it give, as LightGBM's ``refit``
    does. Leaves that no row reaches stay as they are, and so do the scores of a class that no row has (of two
    classes both): a batch without it says how rare it is, which is the prior's, and not where it lives.

    Parameters
    ----------
    leaves : Leaves
        Of a booster with at least one tree. Not mutated.
    start : array of float64, shape (n, outputs)
        The raw score before the first tree.
    target : Target
        The labels of the n rows.
    decay, rate, l2 : float
        Weight of the old value, learning rate, and L2 penalty of the step.
    """
    k = target.outputs
    learns = np.ones(k, dtype=bool)
    if target.classes:
        seen = target.mass > 0
        learns = seen if k > 1 else np.array([bool(seen.all())])
    raw = start.copy()
    moved: list[Floats] = []
    for tree, old in enumerate(leaves.values):
        column = tree % k if old.shape[1] < k else 0
        if column == 0:  # a round begins
            slope, curve = gradients(raw, target)
        leaf = leaves.where[:, tree]
        hit = np.bincount(leaf, minlength=len(old)) > 0
        new = old.copy()
        for j in range(old.shape[1]):
            if learns[column + j]:
                pull = np.bincount(leaf, slope[:, column + j], len(old))
                hold = np.bincount(leaf, curve[:, column + j], len(old))
                new[hit, j] = decay * old[hit, j] - (1.0 - decay) * rate * pull[hit] / (hold[hit] + l2)
            # scores of a class are not read before the next round: its gradients were taken at the round's start
            raw[:, column + j] += new[leaf, j]
        moved.append(new)
    return moved


# -- the seam ---------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How new trees are grown: ``rounds`` of at most ``leaves`` leaves each, with L2 penalty ``l2``."""

    rounds: int
    leaves: int
    l2: float
    seed: int


class Engine(Protocol):
    """One framework with one user's estimator: how its trees are trained, asked, stored and changed.

    ``booster`` stands for the framework's own trained object.
    """

    @property
    def framework(self) -> str:
        """The framework's name, also that of the extra."""
        ...

    @property
    def version(self) -> str:
        """The installed version of the framework."""
        ...

    @property
    def estimator(self) -> Any:
        """The user's estimator, with our threads and silence where the user chose none."""
        ...

    @property
    def task(self) -> TaskKind:
        """Classification or regression."""
        ...

    @property
    def convention(self) -> Mapping[str, object]:
        """How rows are shown to the framework, where that has ever changed; part of the identity."""
        ...

    @property
    def threads(self) -> int:
        """Threads that training and prediction use."""
        ...

    @property
    def random_state(self) -> object:
        """What the user set, or None."""
        ...

    @property
    def rounds(self) -> int:
        """Boosting rounds of the estimator."""
        ...

    @property
    def rate(self) -> float:
        """Learning rate of updates."""
        ...

    @property
    def leaves(self) -> int:
        """Most leaves that a tree of the estimator has."""
        ...

    @property
    def l2(self) -> float:
        """L2 penalty of the estimator."""
        ...

    def fit(self, examples: Examples, rounds: int | None) -> Any:
        """A booster trained exactly as the estimator's own ``fit`` would, with its rounds or with ``rounds``."""
        ...

    def search(self, train: Examples, valid: Examples, patience: int) -> tuple[int, int]:
        """The best number of rounds on ``valid``, and how many trees were built to find it."""
        ...

    def rows(self, features: Features) -> Any:
        """Rows as the framework is asked about them: their matrix, unless it wants words."""
        ...

    def takes_matrix(self, booster: Any) -> bool:
        """Whether a matrix is all that a booster wants of rows."""
        ...

    def quick(self, booster: Any) -> Callable[[Floats], Floats]:
        """What :meth:`outcome` says of a matrix, by the quickest call that there is; where it takes one."""
        ...

    def outcome(self, booster: Any, rows: Any) -> Floats:
        """Probabilities (n, classes), or values (n,), equal to what the fitted estimator would say.

        ``rows`` as :meth:`rows` gives them, n >= 1.
        """
        ...

    def grow(self, features: Features, target: Target, start: Floats, growth: Growth) -> Any:
        """A booster of trees fitted to the gradients at raw score ``start``, which it does not include."""
        ...

    def raw(self, booster: Any, rows: Any, outputs: int) -> Floats:
        """What the trees of a grown booster add to the raw score, shape (n, outputs); ``rows`` as :meth:`rows`."""
        ...

    def read_leaves(self, booster: Any, payload: bytes, features: Features, outputs: int) -> Leaves:
        """Leaf values, and the leaf that each row reaches; ``payload`` is what :meth:`dump` gives of the booster."""
        ...

    def with_leaves(self, booster: Any, payload: bytes, values: list[Floats]) -> bytes:
        """What :meth:`dump` gives of a booster of the same structure with other leaf values."""
        ...

    def trees(self, booster: Any) -> int:
        """How many trees a booster has; several per round where each class has its own."""
        ...

    def dump(self, booster: Any) -> bytes:
        """The framework's own serialised form."""
        ...

    def read(self, payload: bytes) -> Any:
        """A booster from what :meth:`dump` gave."""
        ...

    def learned(self, payload: bytes) -> bytes:
        """The part of a serialised form that was learned: equal for equal boosters."""
        ...

    def taken(self, model: Any) -> Any:
        """The booster of a model that was trained elsewhere: an estimator of the framework, or a booster already."""
        ...

    def known(self, model: Any, schema: Schema) -> Known:
        """What such a model knows of rows and labels; raises as :meth:`~perennial.core.protocols.Adopts.known`."""
        ...

    @property
    def ending(self) -> str:
        """The ending of the framework's own files."""
        ...

    @property
    def opens(self) -> str:
        """How the framework opens its file, and asks it for raw scores, in Python."""
        ...


# -- models that were trained elsewhere -------------------------------------------------------------------------------


def other_model(model: Any, wanted: str) -> LearnerError:
    """What to raise over a model that is another than the configured one."""
    return LearnerError(
        f"the model is {type(model).__qualname__}, and the configured `model` is {wanted}: configure the class that is "
        "to be adopted"
    )


def words_meant(schema: Schema, lists: Mapping[int, Sequence[Any] | None]) -> dict[int, tuple[str, ...]]:
    """Words of the stream's category columns, by index, from what a model says its categories are.

    Parameters
    ----------
    schema : Schema
        The stream's features.
    lists : mapping of int to sequence or None
        By index of feature, those that were categories when the model was trained: what its codes 0, 1, ... stand for,
        or None where it knows codes only.

    Raises
    ------
    DataError
        If one of both has words in a column where the other has numbers; names the column.
    """
    out = {}
    for i, column in enumerate(schema.columns):
        meant = lists.get(i)
        if column.kind is not Kind.CATEGORY:
            if meant is not None:
                raise DataError(
                    f"column {column.name!r} was a category when the model was trained ({_few(meant)}), and the stream "
                    f"holds {column.dtype}: write its words into the column, or adopt a model that takes numbers"
                )
        elif meant is None or not all(isinstance(word, str) for word in meant):
            says = "knows no words for it" if meant is None else f"knows it as {_few(meant)}"
            raise DataError(
                f"column {column.name!r} holds words, and the model {says}: adopt a model that was trained on a frame "
                "with this column as a category, or list the column under `drop`"
            )
        else:
            out[i] = tuple(meant)
    return out


def _few(values: Sequence[Any], most: int = 3) -> str:
    return ", ".join(map(repr, values[:most])) + (", ..." if len(values) > most else "")


# -- what the three learners have in common ---------------------------------------------------------------------------


def refuse_infinities(features: Features, name: str) -> None:
    """Raise ``DataError``, naming the column, where a number is infinite or a column is none."""
    found = np.isinf(features.matrix()).any(axis=0).tolist()
    for column, infinite in zip(features.names, found, strict=True):
        if infinite:
            raise DataError(
                f"column {column!r} holds infinite values, which {name} refuses: clip them, or make them null"
            )


def _described(engine: Engine, kind: str, options: Mapping[str, object]) -> str:
    return canonical(
        {
            "learner": kind,
            "estimator": engine.estimator,
            "options": dict(options),
            "versions": {engine.framework: engine.version, "numpy": np.__version__},
            "threads": engine.threads,
            **engine.convention,
        }
    )


def _classified(proba: Floats, classes: tuple[Label, ...]) -> Prediction:
    """The most probable class of each row, and the probabilities; abstains while no class is known."""
    if not classes:
        return Prediction(codes=np.full(len(proba), ABSTAINED, dtype=np.int32), proba=proba, classes=())
    return Prediction(codes=proba.argmax(axis=1).astype(np.int32), proba=proba, classes=classes)


def _rows(engine: Engine, features: Features) -> Any:
    """Rows as the framework is asked about them; of none there is no frame."""
    return engine.rows(features) if len(features) else np.empty((0, len(features.names)))


def _params(engine: Engine) -> str | None:
    """The estimator's settings as text, for whoever opens a saved model; None if they cannot be told."""
    if engine not in _told_params:  # they do not change, and to tell them takes longer than to save a small model
        try:
            _told_params[engine] = canonical(engine.estimator)
        except Unhashable:
            _told_params[engine] = None
    return _told_params[engine]


_told_params: WeakKeyDictionary[Engine, str | None] = WeakKeyDictionary()


def _update_seed(engine: Engine, seed: int, updates: int) -> int:
    """The seed of one training: the user's wins, and still every update draws anew."""
    if engine.random_state is None:
        return seed
    return seed_from("update", str(engine.random_state), str(updates))


# -- stateless --------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Early stopping: the newest ``share`` of the window decides, after ``rounds`` rounds without improvement."""

    share: float = 0.2
    rounds: int = 50

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ConfigError("share", self.share, "give the part of the window that decides, between 0 and 1")
        if self.rounds < 1:
            raise ConfigError("rounds", self.rounds, "give at least 1 round")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """A trained booster; None where the labels had one class only. ``work``: (share of the rows, trees) trained."""

    booster: Any
    classes: tuple[Label, ...]
    work: tuple[tuple[float, int], ...]
    payload: bytes | None = None


@final
class Boosted:
    """A boosted-tree estimator, retrained from scratch: bit for bit what its own ``fit`` on the same rows gives.

    The framework's default seed is left alone, since it is fixed; ``random_state`` wins, and ``fit``'s ``seed`` is
    not used. A window whose labels have a single class gives a model that says so, without trees.

    With ``stopping``, the newest share of the window first decides the number of rounds, and the model is then
    trained on the whole window with that number: the newest rows are the likest to what comes next, and too good to
    be spent on stopping alone.

    Parameters
    ----------
    engine : Engine
        The framework with the estimator.
    stopping : Stopping, optional
        Early stopping in time order.
    """

    def __init__(self, engine: Engine, stopping: Stopping | None = None) -> None:
        self._engine = engine
        self._stopping = stopping
        self._model: _Whole | None = None

    @property
    def name(self) -> str:
        """The estimator's class."""
        kind = type(self._engine.estimator).__name__
        return kind if self._stopping is None else f"EarlyStopped({kind})"

    @property
    def task(self) -> TaskKind:
        """Classification or regression."""
        return self._engine.task

    @property
    def resumes(self) -> bool:
        """True: a loaded model is the saved one, and each fit starts from nothing."""
        return True

    def identity(self) -> str:
        """Canonical text of estimator, parameters, threads and versions; raises ``Unhashable`` if it cannot be told."""
        stopping = self._stopping
        options = {} if stopping is None else {"share": stopping.share, "rounds": stopping.rounds}
        return _described(self._engine, self._kind(), options)

    def fit(self, examples: Examples, seed: int) -> Boosted:  # noqa: ARG002
        """A new model trained on ``examples`` alone.

        Raises
        ------
        LearnerError
            If the framework refuses the rows.
        """
        engine = self._engine
        classes: tuple[Label, ...] = ranked(examples)[0] if examples.codes is not None else ()
        if len(classes) == 1:
            return self._with(_Whole(booster=None, classes=classes, work=()))
        work: list[tuple[float, int]] = []
        rounds = None
        if self._stopping is not None:
            rounds, tried = self._searched(examples, self._stopping)
            if tried:
                work.append((1.0 - self._stopping.share, tried))
        booster = engine.fit(examples, rounds)
        work.append((1.0, engine.trees(booster)))
        return self._with(_Whole(booster=booster, classes=classes, work=tuple(work)))

    def predict(self, features: Features) -> Prediction:
        """What the fitted estimator says, through the framework's native call."""
        return self._said(_rows(self._engine, features))

    def serving(self) -> Serving | None:
        """The native call on a matrix; None if it wants words."""
        model = self._trained()
        if model.booster is None:
            return self._said
        if not self._engine.takes_matrix(model.booster):
            return None
        ask, classes = self._engine.quick(model.booster), model.classes
        return lambda matrix: _classified(ask(matrix), classes) if classes else Prediction(values=ask(matrix))

    def _said(self, rows: Any) -> Prediction:
        model = self._trained()
        if model.booster is None:
            return _classified(np.ones((len(rows), 1)), model.classes)
        if not len(rows):
            outcome = np.empty((0, len(model.classes))) if model.classes else np.empty(0)
        else:
            outcome = self._engine.outcome(model.booster, rows)
        return _classified(outcome, model.classes) if model.classes else Prediction(values=outcome)

    def save(self, trust: Trust = LOCAL) -> bytes:  # noqa: ARG002 - every trust covers it
        """The framework's own format behind a checked header; no pickle."""
        model = self._trained()
        header = {"classes": list(model.classes), "work": list(model.work), "params": _params(self._engine)}
        payloads = [] if model.booster is None else [self._payload(model)]
        return pack(self._kind(), join(header, payloads), {self._engine.framework: self._engine.version}, "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Boosted:
        """A new model from what :meth:`save` gave.

        Raises
        ------
        FormatError
            If it is damaged, or was saved by another kind of learner, a newer release or another framework version.
        """
        engine = self._engine
        header, payloads = part(unpack(self._kind(), blob, {engine.framework: engine.version}, trust)[1])
        return self._with(
            _Whole(
                booster=engine.read(payloads[0]) if payloads else None,
                classes=tuple(header["classes"]),
                work=tuple((share, trees) for share, trees in header["work"]),
                payload=payloads[0] if payloads else None,
            )
        )

    def exported(self, trust: Trust) -> Files:  # noqa: ARG002 - nothing is pickled
        """The framework's own file."""
        model = self._trained()
        if model.booster is None:
            raise LearnerError(f"{self.name} has no trees to export: every label that it saw is {model.classes[0]!r}")
        classes = f"; its classes, in order: {list(model.classes)}" if model.classes else ""
        opens = self._engine.opens.partition(";")[0]
        return Files(files={f"model{self._engine.ending}": self._payload(model)}, readme=f"{opens}{classes}")

    def digest(self) -> str:
        """Digest of the classes and of what the framework's own format holds of the trees."""
        model = self._trained()
        learned = b"" if model.booster is None else self._engine.learned(self._payload(model))
        return digest(canonical(list(model.classes)), learned)

    def size(self) -> int:
        """Bytes of what the framework's own format holds of the trees."""
        model = self._trained()
        return 0 if model.booster is None else len(self._engine.learned(self._payload(model)))

    @property
    def framework(self) -> str:
        """The framework's name."""
        return self._engine.framework

    def opened(self, data: bytes) -> Any:
        """The framework's model from the bytes of a file of its own; raises ``FormatError`` if they are none."""
        try:
            return self._engine.read(data)
        except Exception as error:  # each framework has errors of its own for bytes that it cannot read
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise FormatError(f"this is no file of {self.framework} ({first}): save the model again") from error

    def known(self, model: Any, schema: Schema) -> Known:
        """What a trained model of the framework knows; see :class:`~perennial.core.protocols.Adopts`."""
        return self._engine.known(model, schema)

    def adopted(self, model: Any, classes: tuple[Label, ...]) -> Boosted:
        """The trees of a model that was trained elsewhere."""
        return self._with(_Whole(booster=self._engine.taken(model), classes=classes, work=()))

    def row_trees(self, rows: int) -> int:
        """Rows times the trees of the last fit; early stopping counts the search too."""
        return sum(round(rows * share) * trees for share, trees in self._trained().work)

    def check(self, features: Features) -> None:
        """Raise ``DataError``, naming the column, for infinite numbers and for text; nulls are the trees' own."""
        refuse_infinities(features, self.name)

    def _kind(self) -> str:
        return f"{self._engine.framework}: {self.name}"

    def _with(self, model: _Whole) -> Boosted:
        new = Boosted(self._engine, self._stopping)
        new._model = model
        return new

    def _trained(self) -> _Whole:
        if self._model is None:
            raise LearnerError(f"{self.name} was not fitted: call fit")
        return self._model

    def _payload(self, model: _Whole) -> bytes:
        if model.payload is None:  # kept: who is updated around it is saved again and again
            model = self._model = replace(model, payload=self._engine.dump(model.booster))
        assert model.payload is not None
        return model.payload

    def _searched(self, examples: Examples, stopping: Stopping) -> tuple[int | None, int]:
        """The number of rounds that the newest share of the window likes best, and the trees built to find it."""
        cut = len(examples) - max(1, round(stopping.share * len(examples)))
        train, valid = examples.slice(0, cut), examples.slice(cut, len(examples))
        if train.codes is not None and valid.codes is not None:
            known = np.unique(train.codes)
            if len(known) < 2:
                return None, 0
            valid = valid.take(np.flatnonzero(np.isin(valid.codes, known)))
        if len(train) < 2 or not len(valid):
            return None, 0
        return self._engine.search(train, valid, stopping.rounds)


# -- decayed boosting -------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """Settings of decayed boosting; see :class:`Decayed`."""

    gamma: float = 0.7
    trees: int = 10
    leaves: int | None = None
    l2: float | None = None
    clip: float | None = 5.0
    floor: float = 1e-3
    weigh: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigError("gamma", self.gamma, "give the weight an update leaves to older trees, in [0, 1)")
        if self.trees < 1:
            raise ConfigError("trees", self.trees, "give at least 1 boosting round per update")
        if self.leaves is not None and self.leaves < 2:
            raise ConfigError("leaves", self.leaves, "give at least 2 leaves per tree, or None to go by the batch")
        if self.l2 is not None and not self.l2 >= 0.0:
            raise ConfigError("l2", self.l2, "give a penalty of at least 0, or None for 5 or the estimator's, if more")
        if self.clip is not None and not self.clip > 0.0:
            raise ConfigError("clip", self.clip, "give a positive bound for the log-odds, or None for no bound")
        if not 0.0 < self.floor < 1.0:
            raise ConfigError("floor", self.floor, "give the weight below which trees are dropped, between 0 and 1")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """Trees grown in one training, frozen since: their weight, serialised form and live booster."""

    weight: float
    classes: int
    payload: bytes
    booster: Any = field(compare=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """Everything an updatable booster has learned; replaced whole by each training."""

    classes: tuple[Label, ...] = ()
    mass: tuple[float, ...] = ()
    members: tuple[_Member, ...] = ()
    updates: int = 0
    built: int = 0
    step: float = 1.0  # what new trees weigh until others than those they learned tell
    untried: bool = False  # whether the newest member has been weighed by no row but those it learned


def _load_state(engine: Engine, kind: str, blob: bytes, trust: Trust) -> _State:
    header, payloads = part(unpack(kind, blob, {engine.framework: engine.version}, trust)[1])
    members = [
        _Member(weight=weight, classes=classes, payload=payload, booster=engine.read(payload))
        for (weight, classes), payload in zip(header["members"], payloads, strict=True)
    ]
    return _State(
        classes=tuple(header["classes"]),
        mass=tuple(header["mass"]),
        members=tuple(members),
        updates=header["updates"],
        built=header["built"],
        step=header.get("step", 1.0),
        untried=header.get("untried", False),
    )


def _save_state(engine: Engine, kind: str, state: _State) -> bytes:
    header = {
        "classes": list(state.classes),
        "mass": list(state.mass),
        "members": [(member.weight, member.classes) for member in state.members],
        "updates": state.updates,
        "built": state.built,
        "step": state.step,
        "untried": state.untried,
        "params": _params(engine),
    }
    content = join(header, [member.payload for member in state.members])
    return pack(kind, content, {engine.framework: engine.version}, "native")


def _digest_state(engine: Engine, state: _State) -> str:
    weights = [(m.weight, m.classes) for m in state.members]
    plain = [list(state.classes), list(state.mass), state.updates, state.step, state.untried, weights]
    return digest(canonical(plain), *(engine.learned(member.payload) for member in state.members))


def _size_of(engine: Engine, state: _State) -> int:
    return sum(len(engine.learned(member.payload)) for member in state.members)


def _exported(engine: Engine, state: _State, clip: float | None) -> Files:
    """Each member in the framework's own file, and beside them how their scores are put together."""
    if not state.mass:
        raise LearnerError(f"this {engine.framework} model has learned nothing to export: update it first")
    names = [f"member-{i}{engine.ending}" for i in range(1, len(state.members) + 1)]
    facts = {
        "task": engine.task,
        "classes": list(state.classes),
        "prior": prior(engine.task, state.mass).tolist(),
        "clip": clip,
        "members": [
            {"file": name, "weight": member.weight, "classes": member.classes}
            for name, member in zip(names, state.members, strict=True)
        ],
    }
    link = "" if engine.task == "regression" else "; probabilities: its sigmoid (of the second class) or softmax"
    readme = (
        "raw score: prior + clip(sum over members of weight * raw score), in ensemble.json; a member of fewer classes "
        "scores 0 for the others, and with one score s for two of several, -s/2 and s/2"
        f"{link}. Each member: {engine.opens}"
    )
    files = {name: member.payload for name, member in zip(names, state.members, strict=True)}
    return Files(files={"ensemble.json": as_json(facts), **files}, readme=readme)


def _target(task: TaskKind, own: tuple[Label, ...], examples: Examples) -> tuple[tuple[Label, ...], Target]:
    """The class table with what the examples add to it, and the examples as a target on that table."""
    if task == "regression":
        assert examples.values is not None
        return (), Target(y=examples.values, weights=examples.weights)
    classes, codes = aligned(own, examples)
    return classes, Target(y=codes.astype(np.float64), classes=len(classes), weights=examples.weights)


def _member(engine: Engine, features: Features, target: Target, start: Floats, growth: Growth) -> _Member | None:
    """New trees; None where nothing could be split: fewer than two classes ever, or rows that are all alike."""
    matrix = features.matrix()
    first = matrix[:1]
    alike = not ((matrix != first) & ~(np.isnan(matrix) & np.isnan(first))).any()
    if alike or target.classes == 1:
        return None
    grown = engine.dump(engine.grow(features, target, start, growth))
    # asked and continued only as it is stored, so that a run and its resumption are the same code
    return _Member(weight=1.0, classes=target.classes, payload=grown, booster=engine.read(grown))


@final
class Decayed:
    """Boosted trees that fade: each update multiplies the old trees by ``gamma`` and adds new ones on what is left.

    The raw score is ``b_t + G_t(x)`` with ``G_t = gamma * G_{t-1} + new trees``, the new trees fitted to the
    gradients at ``b_t + gamma * G_{t-1}``. The offset ``b_t`` is the log prior of the classes (or the mean label)
    under the same forgetting: labels count ``gamma`` to the power of their age in updates. So what fades, fades
    towards the recent base rate and not towards 0. Trees whose weight falls under ``floor`` are dropped, which bounds
    memory and time at about ``log(floor) / log(gamma)`` trainings.

    Trees that learned one batch know its noise as well. So, with ``weigh``, the newest trees are weighed anew by the
    next batch, which they have not seen: their weight goes half the way, in the curvature of the loss, from what such
    trees weighed before to what would have been best there. What new trees weigh at first follows these weights. On a
    stream that stands still they come to weigh little, and where a concept moves, much.

    ``fit`` grows the estimator's own number of rounds in the same regularised form, as the first member. After
    ``begin``, every update grows ``trees`` rounds, the first one too. Classes may be missing from a batch and may
    first appear in one: trees older than a class score 0 for it. Every update is a function of the stored form and
    its examples alone, so that a resumed run equals an uninterrupted one bit for bit.

    Parameters
    ----------
    engine : Engine
        The framework with the estimator; its learning rate, sampling and constraints are kept.
    settings : Decay
        ``gamma`` and ``trees`` as above. ``leaves``: most leaves of a new tree, by default a fiftieth of the batch,
        at least 4 and at most the estimator's. ``l2``: penalty of the leaves, by default 5 or the estimator's if that
        is more. ``clip``: bound of the trees' part of a classifier's raw score (log-odds), against leaves that run
        away where the curvature vanishes; a regression is not clipped. ``floor`` and ``weigh`` as above.
    label : str
        The word for it in reports.

    References
    ----------
    Derived from Friedman (2001) with exponential forgetting of the additive terms. With ``gamma`` 1 it is plain
    continuation, which keeps the offset of its fit.
    """

    def __init__(self, engine: Engine, settings: Decay, *, label: Literal["Decayed", "Continued"] = "Decayed") -> None:
        self._engine = engine
        self._settings = settings
        self._label: Literal["Decayed", "Continued"] = label
        self._state: _State | None = None
        self._recall = Recall()

    @property
    def name(self) -> str:
        """What it does, and the estimator's class."""
        return f"{self._label}({type(self._engine.estimator).__name__})"

    @property
    def task(self) -> TaskKind:
        """Classification or regression."""
        return self._engine.task

    @property
    def resumes(self) -> bool:
        """True: every update continues from the serialised form."""
        return True

    def identity(self) -> str:
        """Canonical text of estimator, settings, threads and versions; raises ``Unhashable`` if it cannot be told."""
        s = self._settings
        options = asdict(s)
        return _described(self._engine, self._kind(), options)

    def fit(self, examples: Examples, seed: int) -> Decayed:
        """A new model from ``examples`` alone: the estimator's own number of rounds, regularised."""
        return self._with(self._next(_State(), examples, seed, self._engine.rounds))

    def begin(self) -> Decayed:
        """A new model that knows nothing: it abstains until it has been updated."""
        return self._with(_State())

    def update(self, examples: Examples, seed: int) -> None:
        """Fade the old trees and grow new ones on ``examples``; mutates the model. No examples, no change."""
        if len(examples):
            self._state = self._next(self._trained(), examples, seed, self._settings.trees)
            self._recall.forget()  # it was for the rows that are learned now

    def predict(self, features: Features) -> Prediction:
        """The link of offset plus weighed trees."""
        return self._said(_rows(self._engine, features), self._recall)

    def serving(self) -> Serving | None:
        """The same on a matrix; None if members want words."""
        members = self._trained().members
        return self._said if all(self._engine.takes_matrix(member.booster) for member in members) else None

    def _said(self, rows: Any, recall: Recall | None = None) -> Prediction:
        state = self._trained()
        if not state.mass:
            if self.task == "regression":
                return Prediction(values=np.full(len(rows), np.nan))
            return _classified(np.empty((len(rows), 0)), ())
        k = outputs(self.task, len(state.classes))
        raw = prior(self.task, state.mass) + self._trees(state.members, rows, k, recall)
        if self.task == "regression":
            return Prediction(values=raw[:, 0])
        return _classified(probabilities(raw, len(state.classes)), state.classes)

    def save(self, trust: Trust = LOCAL) -> bytes:  # noqa: ARG002 - every trust covers it
        """Offset, weights and each member in the framework's own format, behind a checked header; no pickle."""
        return _save_state(self._engine, self._kind(), self._trained())

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Decayed:
        """A new model from what :meth:`save` gave; raises ``FormatError`` as :meth:`Boosted.load` does."""
        return self._with(_load_state(self._engine, self._kind(), blob, trust))

    def exported(self, trust: Trust) -> Files:  # noqa: ARG002 - nothing is pickled
        """Each member as the framework's own file, and how they are put together as JSON."""
        clip = None if self.task == "regression" else self._settings.clip
        return _exported(self._engine, self._trained(), clip)

    def digest(self) -> str:
        """Digest of offset, weights, classes and trees."""
        return _digest_state(self._engine, self._trained())

    def size(self) -> int:
        """Bytes of the trees of all members."""
        return _size_of(self._engine, self._trained())

    def row_trees(self, rows: int) -> int:
        """Rows times the trees that the last training grew."""
        return rows * self._trained().built

    def check(self, features: Features) -> None:
        """Raise ``DataError``, naming the column, for infinite numbers and for text; nulls are the trees' own."""
        refuse_infinities(features, self.name)

    def _kind(self) -> str:
        return f"{self._engine.framework}: {self.name}"

    def _with(self, state: _State) -> Decayed:
        new = Decayed(self._engine, self._settings, label=self._label)
        new._state = state
        return new

    def _trained(self) -> _State:
        if self._state is None:
            raise LearnerError(f"{self.name} was not fitted: call fit, or begin to start untrained")
        return self._state

    def _next(self, state: _State, examples: Examples, seed: int, rounds: int) -> _State:
        """The state after one training; a pure function."""
        s, engine = self._settings, self._engine
        classes, target = _target(engine.task, state.classes, examples)
        mass = self._weighed(state.mass, target)
        shown = _rows(engine, examples.features)
        members, step = self._tried(state, shown, prior(engine.task, mass), target)
        faded = tuple(replace(m, weight=m.weight * s.gamma) for m in members)
        faded = tuple(m for m in faded if m.weight >= s.floor)
        start = prior(engine.task, mass) + self._trees(faded, shown, target.outputs, self._recall)
        growth = self._growth(len(examples), rounds, _update_seed(engine, seed, state.updates))
        grown = _member(engine, examples.features, target, start, growth)
        return _State(
            classes=classes,
            mass=tuple(mass.tolist()),
            members=faded if grown is None else (*faded, replace(grown, weight=step if faded else 1.0)),
            updates=state.updates + 1,
            built=0 if grown is None else engine.trees(grown.booster),
            step=step,
            untried=grown is not None and bool(faded),
        )

    def _tried(self, state: _State, rows: Any, offset: Floats, target: Target) -> tuple[tuple[_Member, ...], float]:
        """The members, the newest weighed by rows that it has not seen; and what new trees weigh at first from now on.

        The first member is what all others add to, and keeps its weight. Few rows tell little: the former weight counts
        as much as this batch, or as a hundred rows of its curvature where they are fewer.
        """
        if not self._settings.weigh or not state.untried or len(state.members) < 2:
            return state.members, state.step
        *older, newest = state.members
        k = target.outputs
        before = offset + self._trees(older, rows, k, self._recall)
        own = self._trees([replace(newest, weight=1.0)], rows, k, self._recall)
        weight = hold = state.step
        for i in range(_WEIGHT_STEPS):
            slope, curve = gradients(before + weight * own, target)
            bend = float((curve * own * own).sum())
            if i == 0:
                held = bend * max(1.0, _LEAST_TRIED / len(own))
            if not bend + held > 0.0:
                return state.members, state.step
            pull = float((slope * own).sum()) + held * (weight - hold)
            weight = min(max(weight - pull / (bend + held), 0.0), _MOST_WEIGHT)
        step = state.step + _STEP_RATE * (weight - state.step)
        return (*older, replace(newest, weight=weight)), step

    def _weighed(self, former: tuple[float, ...], target: Target) -> Floats:
        """Label mass with the former part faded; plain continuation keeps the offset, new classes apart."""
        mass = target.mass
        old = np.asarray(former)
        if self._settings.gamma < 1.0 or not len(old):
            mass[: len(old)] += self._settings.gamma * old
        else:
            mass[: len(old)] = old
        return mass

    def _growth(self, rows: int, rounds: int, seed: int) -> Growth:
        s, engine = self._settings, self._engine
        leaves = min(engine.leaves, max(4, rows // 50)) if s.leaves is None else s.leaves
        return Growth(rounds=rounds, leaves=leaves, l2=max(5.0, engine.l2) if s.l2 is None else s.l2, seed=seed)

    def _trees(self, members: Sequence[_Member], rows: Any, k: int, recall: Recall | None) -> Floats:
        """The trees' part of the raw score, shape (n, k), clipped; what members just said is not asked again."""
        total = np.zeros((len(rows), k))
        if not len(rows):
            return total
        for member in members:
            ask = partial(self._engine.raw, member.booster, rows, outputs(self.task, member.classes))
            total += member.weight * widened(ask() if recall is None else recall.of(rows, member.booster, ask), k)
        bound = self._settings.clip
        return total if bound is None or self.task == "regression" else np.clip(total, -bound, bound)


# -- leaf refit -------------------------------------------------------------------------------------------------------


@final
class LeafRefit:
    """Boosted trees whose structure stays while updates move the leaves to ``decay * old + (1 - decay) * new``.

    New is the Newton step on the batch (:func:`refitted`); its L2 penalty is the estimator's, and 1 at least. The
    offset (log prior of the classes, or mean label) is under the same forgetting. The cheapest update: no tree is
    built, and memory stays what ``fit`` made it.

    ``fit`` grows the estimator's own trees, so there is no starting untrained: ``begin`` refuses. If its examples had
    one class only, the first update with a second one grows the trees. A class that first appears later has no
    leaves and cannot get any: its examples are left out, and the model goes on answering with the classes it has. A
    stateless retrain brings the class in.

    Parameters
    ----------
    engine : Engine
        The framework with the estimator.
    decay : float
        In [0, 1): how much of a leaf's old value stays.

    References
    ----------
    LightGBM's ``Booster.refit``, which this equals for one starting score; written here once for the three
    frameworks, because that one ignores starting scores and loses its way when a batch lacks a class.
    """

    def __init__(self, engine: Engine, *, decay: float = 0.9) -> None:
        if not 0.0 <= decay < 1.0:
            raise ConfigError("decay", decay, "give the share of a leaf's old value that stays, in [0, 1)")
        self._engine = engine
        self._decay = decay
        self._state: _State | None = None

    @property
    def name(self) -> str:
        """What it does, and the estimator's class."""
        return f"LeafRefit({type(self._engine.estimator).__name__})"

    @property
    def task(self) -> TaskKind:
        """Classification or regression."""
        return self._engine.task

    @property
    def resumes(self) -> bool:
        """True: every update continues from the serialised form."""
        return True

    def identity(self) -> str:
        """Canonical text of estimator, decay, threads and versions; raises ``Unhashable`` if it cannot be told."""
        return _described(self._engine, self._kind(), {"decay": self._decay})

    def fit(self, examples: Examples, seed: int) -> LeafRefit:
        """A new model from ``examples`` alone, with the estimator's own settings."""
        return self._with(self._grown(_State(), examples, seed))

    def begin(self) -> LeafRefit:
        """Nothing: the structure comes from a fit, and what a first small batch gave would stay for ever.

        Raises
        ------
        LearnerError
            Always.
        """
        raise LearnerError(f"{self.name} keeps the trees of its first fit: start it with an initial window")

    def update(self, examples: Examples, seed: int) -> None:
        """Move the leaves towards ``examples``; mutates the model. No examples, no change."""
        state = self._trained()
        if not len(examples):
            return
        self._state = self._moved(state, examples) if state.members else self._grown(state, examples, seed)

    def predict(self, features: Features) -> Prediction:
        """The link of offset plus trees."""
        return self._said(_rows(self._engine, features))

    def serving(self) -> Serving | None:
        """The same on a matrix; None if the trees want words."""
        members = self._trained().members
        return self._said if all(self._engine.takes_matrix(member.booster) for member in members) else None

    def _said(self, rows: Any) -> Prediction:
        state = self._trained()
        k = outputs(self.task, len(state.classes))
        raw = np.tile(prior(self.task, state.mass), (len(rows), 1))
        if state.members and len(rows):
            raw += self._engine.raw(state.members[0].booster, rows, k)
        if self.task == "regression":
            return Prediction(values=raw[:, 0])
        return _classified(probabilities(raw, len(state.classes)), state.classes)

    def save(self, trust: Trust = LOCAL) -> bytes:  # noqa: ARG002 - every trust covers it
        """Offset and trees in the framework's own format, behind a checked header; no pickle."""
        return _save_state(self._engine, self._kind(), self._trained())

    def load(self, blob: bytes, trust: Trust = LOCAL) -> LeafRefit:
        """A new model from what :meth:`save` gave; raises ``FormatError`` as :meth:`Boosted.load` does."""
        return self._with(_load_state(self._engine, self._kind(), blob, trust))

    def exported(self, trust: Trust) -> Files:  # noqa: ARG002 - nothing is pickled
        """The trees as the framework's own file, and the offset as JSON."""
        return _exported(self._engine, self._trained(), None)

    def digest(self) -> str:
        """Digest of offset, classes and trees."""
        return _digest_state(self._engine, self._trained())

    def size(self) -> int:
        """Bytes of the trees."""
        return _size_of(self._engine, self._trained())

    def row_trees(self, rows: int) -> int:
        """Rows times the trees that the last training grew: 0 for an update, which grows none."""
        return rows * self._trained().built

    def check(self, features: Features) -> None:
        """Raise ``DataError``, naming the column, for infinite numbers and for text; nulls are the trees' own."""
        refuse_infinities(features, self.name)

    def _kind(self) -> str:
        return f"{self._engine.framework}: {self.name}"

    def _with(self, state: _State) -> LeafRefit:
        new = LeafRefit(self._engine, decay=self._decay)
        new._state = state
        return new

    def _trained(self) -> _State:
        if self._state is None:
            raise LearnerError(f"{self.name} was not fitted: call fit")
        return self._state

    def _grown(self, state: _State, examples: Examples, seed: int) -> _State:
        """Structure and leaves from these examples, with the base rates of all so far."""
        engine = self._engine
        classes, target = _target(engine.task, state.classes, examples)
        mass = self._weighed(state.mass, target)
        growth = Growth(
            rounds=engine.rounds, leaves=engine.leaves, l2=engine.l2, seed=_update_seed(engine, seed, state.updates)
        )
        start = np.tile(prior(engine.task, mass), (len(examples), 1))
        grown = _member(engine, examples.features, target, start, growth)
        return _State(
            classes=classes,
            mass=tuple(mass.tolist()),
            members=() if grown is None else (grown,),
            updates=state.updates + 1,
            built=0 if grown is None else engine.trees(grown.booster),
        )

    def _moved(self, state: _State, examples: Examples) -> _State:
        """The same structure with leaves moved; examples of classes without leaves are left out."""
        engine, member = self._engine, state.members[0]
        classes, target = _target(engine.task, state.classes, examples)
        if len(classes) > len(state.classes):
            known = np.flatnonzero(target.y < len(state.classes))
            if not len(known):
                return replace(state, updates=state.updates + 1, built=0)
            examples = examples.take(known)
            target = _target(engine.task, state.classes, examples)[1]
        mass = self._weighed(state.mass, target)
        leaves = engine.read_leaves(member.booster, member.payload, examples.features, target.outputs)
        start = np.tile(prior(engine.task, mass), (len(examples), 1))
        values = refitted(leaves, start, target, decay=self._decay, rate=engine.rate, l2=max(_LEAST_L2, engine.l2))
        payload = engine.with_leaves(member.booster, member.payload, values)
        moved = replace(member, payload=payload, booster=engine.read(payload))
        return replace(state, mass=tuple(mass.tolist()), members=(moved,), updates=state.updates + 1, built=0)

    def _weighed(self, former: tuple[float, ...], target: Target) -> Floats:
        mass = target.mass
        mass[: len(former)] += self._decay * np.asarray(former)
        return mass


# -- what each framework's module offers ------------------------------------------------------------------------------


def decayed(engine: Engine, settings: Decay) -> Decayed:
    """Decayed boosting; raises ``ConfigError`` for a ``gamma`` of 1, under which nothing would fade."""
    if settings.gamma == 1.0:
        raise ConfigError("gamma", settings.gamma, "give less than 1, or take Continued, the baseline that keeps all")
    return Decayed(engine, settings)


def continued(engine: Engine, trees: int) -> Decayed:
    """Naive continuation: full-size trees on top of all former ones, for ever. Warns."""
    warnings.warn(
        "naive continued boosting is a baseline: it was measured worse than never updating, its size grows without "
        "bound and early trees are never undone; use Decayed or LeafRefit",
        UserWarning,
        stacklevel=3,
    )
    settings = Decay(gamma=1.0, trees=trees, leaves=engine.leaves, l2=engine.l2, clip=None, weigh=False)
    return Decayed(engine, settings, label="Continued")
