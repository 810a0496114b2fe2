"""Logistic models of hashed words, for clicks and the like: many users and items, new ones every day, little memory.

Every row is a handful of slots. A category column gives one, the hash of its name and the row's word; a number column
one of its name, with the number as its value; what is missing has a slot of its own; a pair of columns that is to
interact gives one of both words. A model is two numbers for each of ``2 ** bits`` slots, however many words there are:
a word that is first seen later has its slot already, and two words may share one.

Slots follow from text alone, not from the codes of a vocabulary, so neither the order in which words came nor the
process that hashed them matters. Both models learn in mini-batches: gradients are taken at the coefficients before a
mini-batch, summed over its rows for each slot, and applied once. What a row is told does not depend on its neighbours.

References
----------
Weinberger, Dasgupta, Langford, Smola and Attenberg (2009), Feature hashing for large scale multitask learning, ICML.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, Self, final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, FormatError, LearnerError
from perennial.core.features import Features, Kind, Schema, Vocabulary
from perennial.core.identity import canonical, digest
from perennial.core.protocols import LOCAL, Serving, Trust
from perennial.core.records import ABSTAINED, Examples, Label, Prediction, TaskKind
from perennial.learners.export import Files, as_json
from perennial.learners.saved import pack, unpack

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

_TINY = 1e-200
_LEAST_SCALE = 1e-30
_FEW = 4  # slots a cell: up to here, arithmetic on all is quicker than finding those that occur
_MOST_BITS = 28
_HASHING = (
    "A slot is the top `bits` bits of 64, of the BLAKE2b hash (8 bytes, little-endian) of JSON, in ASCII and with a "
    'blank after a comma: ["column", "word"] of a category, ["column"] of a number, ["column", null] of a missing one; '
    "of an interaction, of the hashes a and b of both words: with h = a * 0x9E3779B97F4A7C15 + b, "
    "h ^= h >> 30, h *= 0xBF58476D1CE4E5B9, h ^= h >> 27, h *= 0x94D049BB133111EB, h ^= h >> 31, modulo 2 ** 64. "
    "Slot 2 ** bits is the intercept's."
)


# ---------------------------------------------------------------------------------------------------------------
# slots
# ---------------------------------------------------------------------------------------------------------------


def _hash(*parts: str | None) -> int:
    text = json.dumps(parts)  # brackets and quotes: no two lists of parts have one text
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


#: hashes of the words of each vocabulary by column, that of a missing word last; words are hashed once a process
_hashed: WeakKeyDictionary[Vocabulary, dict[str, Hashes]] = WeakKeyDictionary()


def _words(column: str, vocabulary: Vocabulary) -> Hashes:
    """The hash of each word by its code, and behind the last that of a missing one, where code -1 finds it."""
    known = _hashed.get(vocabulary)
    if known is None:
        known = _hashed.setdefault(vocabulary, {})
    found = known.get(column)
    done = 0 if found is None else len(found) - 1
    if found is None or done < len(vocabulary):
        fresh = [_hash(column, word) for word in vocabulary.words[done:]]
        new = np.array([*fresh, _hash(column, None)], dtype=np.uint64)
        found = known[column] = new if found is None else np.concatenate([found[:-1], new])
    return found


def _crossed(one: Hashes, other: Hashes) -> Hashes:
    """Hashes of pairs: the mixing steps of splitmix64."""
    mixed = one * np.uint64(0x9E3779B97F4A7C15) + other
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


class _Rows(NamedTuple):
    """What n rows are: their slots, (f, n), and the values there, (f, n); None if all are 1."""

    slots: NDArray[np.int64]
    values: Floats | None


Columns = tuple[tuple[str, str], ...]  #: name and kind of each feature column


def _design(
    matrix: Floats,
    columns: Columns,
    vocabularies: Mapping[str, Vocabulary],
    interactions: Sequence[tuple[str, str]],
    bits: int,
) -> _Rows:
    """Slots and values of the rows of a matrix: the intercept's, each column's, each interaction's."""
    crossing = 1 + len(columns)
    hashes = np.empty((crossing + len(interactions), len(matrix)), dtype=np.uint64)
    values = np.ones(hashes.shape) if any(kind == Kind.NUMBER for _, kind in columns) else None
    missing = np.isnan(matrix)
    codes = None if values is not None else np.where(missing, -1.0, matrix).T.astype(np.int64)
    field = {}
    for at, (name, kind) in enumerate(columns, start=1):
        field[name] = at
        if codes is not None:
            hashes[at] = _words(name, vocabularies[name])[codes[at - 1]]  # -1 is the last
            continue
        gaps, row = missing[:, at - 1], matrix[:, at - 1]
        if kind == Kind.CATEGORY:
            hashes[at] = _words(name, vocabularies[name])[np.where(gaps, -1.0, row).astype(np.int64)]
        else:
            assert values is not None
            hashes[at] = np.where(gaps, np.uint64(_hash(name, None)), np.uint64(_hash(name)))
            values[at] = np.where(gaps, 1.0, row)
    for at, (one, other) in enumerate(interactions, start=crossing):
        hashes[at] = _crossed(hashes[field[one]], hashes[field[other]])
    hashes >>= np.uint64(64 - bits)
    hashes[0] = 2**bits
    return _Rows(hashes.view(np.int64), values)


# ---------------------------------------------------------------------------------------------------------------
# what both share
# ---------------------------------------------------------------------------------------------------------------


@dataclass
class _State:
    """Two numbers a slot, the intercept's last: a coefficient, or z of FTRL, and a sum of squared gradients.

    The sums are ``squares * scale``: they age by one number, so that an update takes no longer for more slots.
    """

    columns: Columns | None
    classes: list[Label]
    values: Floats
    squares: Floats
    scale: float = 1.0

    def head(self) -> bytes:
        return json.dumps([self.columns, self.classes, self.scale], separators=(",", ":")).encode()

    def dump(self) -> bytes:
        """A line of JSON, and then number and contents of the slots that are not empty."""
        used = np.flatnonzero((self.values != 0) | (self.squares != 0))
        parts = [used.astype("<u4"), self.values[used].astype("<f8"), self.squares[used].astype("<f8")]
        return b"\n".join([self.head(), b"".join(part.tobytes() for part in parts)])

    @classmethod
    def read(cls, payload: bytes, bits: int) -> _State:
        head, _, data = payload.partition(b"\n")
        try:
            columns, classes, scale = json.loads(head)
            named = None if columns is None else tuple((str(name), str(kind)) for name, kind in columns)
            count, rest = divmod(len(data), 20)
            if rest:
                raise ValueError(f"{len(data)} bytes of slots")
            used = np.frombuffer(data, "<u4", count)
            if count and int(used.max()) > 2**bits:
                raise ValueError(f"slot {int(used.max())} of {2**bits + 1}")
            state = cls(named, list(classes), values=_empty(bits), squares=_empty(bits), scale=float(scale))
            state.values[used] = np.frombuffer(data, "<f8", count, 4 * count)
            state.squares[used] = np.frombuffer(data, "<f8", count, 12 * count)
        except (ValueError, TypeError) as error:
            raise FormatError(f"the saved model does not hold what it should ({error}): train anew") from error
        return state


def _numbered(slots: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct ones of slots below ``size``, shape (u,), and which of these each is, in the shape of ``slots``."""
    each = slots.ravel()
    place = np.empty(size, dtype=np.int64)  # by slot; what it holds where there is none is never read
    order = np.arange(len(each), dtype=np.int64)
    place[each] = order
    distinct = each[place.take(each) == order]  # one cell of each slot, whichever came last: no sorting
    place[distinct] = order[: len(distinct)]
    return distinct, place.take(each).reshape(slots.shape)


def _empty(bits: int) -> Floats:
    return np.zeros(2**bits + 1)


class _MiniBatch(NamedTuple):
    """Rows that are learned in one step: their slots (u,), and for each of their cells (f, m) which of these it is.

    ``slots`` may be more than those that occur, as the gradient of the others is 0, and changes nothing.
    """

    slots: NDArray[np.int64] | slice
    size: int
    cells: NDArray[np.int64]
    values: Floats | None
    positive: Floats
    weights: Floats | None

    def summed(self, errors: Floats, *, valued: bool = True) -> Floats:
        """The sum over rows, for each distinct slot, of ``errors`` (m,) times the values there, or times 1."""
        if valued and self.values is not None:
            over = (errors * self.values).ravel()
        else:
            over = np.concatenate([errors] * len(self.cells))
        total = np.bincount(self.cells.ravel(), weights=over, minlength=self.size)
        return total.astype(np.float64, copy=False)


class _Hashed(ABC):
    """A logistic model of hashed rows; what its state means, and how a step changes it, is for the two below to say."""

    _params: dict[str, Any]
    _bits: int
    _decay: float
    _epochs: int
    _passes: int
    _rows: int
    _l2: float
    _interactions: tuple[tuple[str, str], ...]
    _state: _State | None = None
    _schema: tuple[Schema, Columns] | None = None  # that of the last rows, and what it says: told once, not each time

    @property
    def name(self) -> str:
        """The class name."""
        return type(self).__name__

    @property
    def task(self) -> TaskKind:
        """``"classification"``."""
        return "classification"

    @property
    def resumes(self) -> bool:
        """True: the slots are the whole state, and are saved to the last bit."""
        return True

    def identity(self) -> str:
        """Canonical text of class, parameters and numpy version."""
        return canonical({"learner": type(self), "params": self._params, "numpy": np.__version__})

    def fit(self, examples: Examples, seed: int) -> Self:  # noqa: ARG002
        """A new model of ``examples``, by ``epochs`` passes over them in their order; there is no randomness.

        Raises
        ------
        LearnerError
            If there are none, or they are of more than two classes.
        """
        if not len(examples):
            raise LearnerError(f"{self.name} got no examples: give it a longer window, or begin to start untrained")
        new = self.begin()
        new._learn(examples, self._epochs)
        return new

    def begin(self) -> Self:
        """A new untrained model; it abstains until it has learned a row."""
        return self._with(_State(columns=None, classes=[], values=_empty(self._bits), squares=_empty(self._bits)))

    def update(self, examples: Examples, seed: int) -> None:  # noqa: ARG002
        """Decay the sums of squares once, and learn by ``passes`` passes in order. Mutates the model.

        Raises
        ------
        LearnerError
            If it would be told of a third class; it has learned nothing then.
        """
        if len(examples):
            self._learn(examples, self._passes, decay=self._decay)

    def predict(self, features: Features) -> Prediction:
        """Classes and probabilities, each row by itself; all rows abstain before anything was learned.

        While only one class has been heard of, what its probability lacks of 1 is that of the class without a name.
        """
        state = self._fitted()
        if not state.classes:
            return _abstained(len(features))
        return self._told(self._shown(features))

    def serving(self) -> Serving | None:
        """The model itself where all columns are numbers; a matrix shows codes of words, which mean nothing here."""
        state = self._fitted()
        columns = state.columns
        if columns is None or any(kind != Kind.NUMBER for _, kind in columns):
            return None
        return lambda matrix: self._told(_design(matrix, columns, {}, (), self._bits))

    def save(self, trust: Trust = LOCAL) -> bytes:  # noqa: ARG002 - every trust covers it
        """The slots that are not empty: plain JSON and raw numbers, behind a checked header."""
        return pack(self._kind(), self._fitted().dump(), {}, "native")

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """A new model from what :meth:`save` gave.

        Raises
        ------
        FormatError
            If it is damaged, from a newer release, or from a model with other settings.
        """
        return self._with(_State.read(unpack(self._kind(), blob, {}, trust)[1], self._bits))

    def exported(self, trust: Trust) -> Files:  # noqa: ARG002 - nothing is pickled
        """Coefficients by slot, and how a word becomes a slot, as JSON.

        Raises
        ------
        LearnerError
            If it has learned nothing yet.
        """
        state = self._fitted()
        if not state.classes or state.columns is None:
            raise LearnerError(f"{self.name} has learned nothing to export: update it first")
        coefficients = self._coefficients(state, np.arange(2**self._bits + 1))
        used = np.flatnonzero(coefficients)
        facts = {
            "model": self.name,
            "classes": state.classes,
            "columns": [{"column": name, "kind": kind} for name, kind in state.columns],
            "interactions": self._interactions,
            "bits": self._bits,
            "hashing": _HASHING,
            "coefficients": dict(zip(map(str, used.tolist()), coefficients[used].tolist(), strict=True)),
        }
        readme = (
            "probability of the second class: sigmoid of the sum of the coefficients of a row's slots, 0 for one that "
            "is not listed, that of a number times the number; `hashing` tells the slots"
        )
        return Files(files={"model.json": as_json(facts)}, readme=readme)

    def digest(self) -> str:
        """Digest of the slots."""
        return digest(self._fitted().dump())

    def size(self) -> int:
        """Bytes of the state in memory: two numbers a slot, whatever was learned, and the names of columns."""
        state = self._fitted()
        return state.values.nbytes + state.squares.nbytes + len(state.head())

    def row_trees(self, rows: int) -> int:  # noqa: ARG002
        """0: there are no trees."""
        return 0

    def check(self, features: Features) -> None:
        """Raise ``DataError``, naming the column, for prose, dates, infinite numbers and pairs that cannot interact."""
        self._check_interactions(_columns(features))
        matrix = features.matrix("float64")
        for j, column in enumerate(features.schema.columns):
            if column.kind is Kind.NUMBER and np.isinf(matrix[:, j]).any():
                raise DataError(f"column {column.name!r} holds infinite values: clip them or make them null")

    # ------------------------------------------------------------------ learning

    @abstractmethod
    def _coefficients(self, state: _State, slots: NDArray[Any] | slice) -> Floats:
        """The coefficient of each slot, in the shape of ``slots``."""

    @abstractmethod
    def _step(self, state: _State, batch: _MiniBatch, coefficients: Floats, gradient: Floats) -> None:
        """Apply the gradient of a mini-batch to its slots, whose coefficients were these. Mutates ``state``."""

    @abstractmethod
    def _age(self, state: _State, decay: float) -> None:
        """Multiply the sums of squares by ``decay``, coefficients staying what they are. Mutates ``state``."""

    def _learn(self, examples: Examples, passes: int, decay: float = 1.0) -> None:
        rows = self._shown(examples.features)
        if rows.values is not None and np.isinf(rows.values).any():
            self.check(examples.features)
        state = self._fitted()
        positive = self._admit(state, examples)
        state.columns = _columns(examples.features) if state.columns is None else state.columns
        if decay < 1.0:
            self._age(state, decay)
        used, cells = _numbered(rows.slots, len(state.values))
        part = _State(state.columns, state.classes, state.values[used], state.squares[used] * state.scale)
        batches = self._batches(cells, len(used), rows.values, positive, examples.weights)
        with np.errstate(over="ignore"):  # see _sigmoid
            for batch in batches * passes:
                coefficients = self._coefficients(part, batch.slots)
                shown = coefficients[batch.cells]
                if batch.values is not None:
                    shown *= batch.values
                errors = _sigmoid(shown.sum(axis=0)) - batch.positive
                if batch.weights is not None:
                    errors *= batch.weights
                self._step(part, batch, coefficients, batch.summed(errors))
        state.values[used], state.squares[used] = part.values, part.squares / state.scale

    def _batches(
        self, cells: NDArray[np.int64], used: int, values: Floats | None, positive: Floats, weights: Floats | None
    ) -> list[_MiniBatch]:
        """The mini-batches in order: each over all ``used`` slots if these are few, else over its own."""
        out = []
        few = used <= _FEW * len(cells) * self._rows
        for start in range(0, len(positive), self._rows):
            run = slice(start, start + self._rows)
            slots: NDArray[np.int64] | slice = slice(None)
            size, own = used, np.ascontiguousarray(cells[:, run])
            if not few:
                slots, own = _numbered(own, used)
                size = len(slots)
            out.append(
                _MiniBatch(
                    slots=slots,
                    size=size,
                    cells=own,
                    values=None if values is None else values[:, run],
                    positive=positive[run],
                    weights=None if weights is None else weights[run],
                )
            )
        return out

    def _admit(self, state: _State, examples: Examples) -> Floats:
        """Whether each row is of the second class, 1 or 0, classes being in the order of their first label.

        A row of weight 0 names no class. Before there is a second class, all rows are of the first: that is what they
        will have been if one comes.
        """
        codes, table = examples.codes, examples.classes
        assert codes is not None
        fresh = [code for code, label in enumerate(table) if label not in state.classes]
        if fresh:
            counted = codes if examples.weights is None else codes[examples.weights > 0]
            counts = np.bincount(counted, minlength=len(table))
            fresh = sorted((c for c in fresh if counts[c]), key=lambda c: int(np.argmax(counted == c)))
        known = [*state.classes, *(table[code] for code in fresh)]
        if len(known) > 2:
            raise LearnerError(
                f"{self.name} tells two classes apart, and met a third, {known[2]!r} beside {known[0]!r} and "
                f"{known[1]!r}: make the target one of two classes, or take perennial.learners.plain.Logistic"
            )
        state.classes = known
        second = table.index(known[1]) if len(known) > 1 and known[1] in table else -1
        return np.asarray(codes == second, dtype=np.float64)

    # ------------------------------------------------------------------ rows

    def _shown(self, features: Features) -> _Rows:
        schema, last = features.schema, self._schema  # once: another thread may ask with rows of another schema
        if last is None or last[0] is not schema:
            columns = _columns(features)
            self._check_interactions(columns)
            self._schema = last = schema, columns
        columns, known = last[1], self._state.columns if self._state is not None else None
        if known is not None and columns != known:
            raise DataError(
                f"columns {features.names} came to a model of {tuple(name for name, _ in known)}, or of other kinds: "
                "fit it anew on these columns"
            )
        return _design(features.matrix("float64"), columns, schema.vocabularies, self._interactions, self._bits)

    def _check_interactions(self, columns: Columns) -> None:
        kinds = dict(columns)
        for name in (name for pair in self._interactions for name in pair):
            if kinds.get(name) != Kind.CATEGORY:
                what = "there is no such column" if name not in kinds else "it holds no words"
                raise DataError(f"column {name!r} is to interact, and {what}: name two category columns a pair")

    def _told(self, rows: _Rows) -> Prediction:
        state = self._fitted()
        if not state.classes:
            return _abstained(rows.slots.shape[1])
        odds = np.zeros(rows.slots.shape[1])
        with np.errstate(invalid="ignore", over="ignore"):  # an infinite number: its row abstains
            for field, slots in enumerate(rows.slots):  # slot by slot: the same sum for a row alone and among others
                part = self._coefficients(state, slots)
                odds += part if rows.values is None else part * rows.values[field]
            both = (_sigmoid(-odds), _sigmoid(odds))
        proba = np.stack(both[: len(state.classes)], axis=1)
        codes = proba.argmax(axis=1).astype(np.int32)
        codes[np.isnan(odds)] = ABSTAINED
        return Prediction(codes=codes, proba=proba, classes=tuple(state.classes))

    def _kind(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self._params.items())})"

    def _with(self, state: _State) -> Self:
        new = type(self)(**self._params)
        new._state = state
        return new

    def _fitted(self) -> _State:
        if self._state is None:
            raise LearnerError(f"{self.name} was not fitted: call fit, or begin to start untrained")
        return self._state

    def _set(
        self, bits: int, l2: float, decay: float, epochs: int, passes: int, rows: int, interactions: Any
    ) -> dict[str, Any]:
        """Check and keep the settings that both have; gives them as parameters."""
        self._bits = _whole("bits", bits, _MOST_BITS)
        self._l2 = _number("l2", l2)
        if not 0 < decay <= 1:
            raise ConfigError("decay", decay, "give what sums of squares keep at each update, in (0, 1]; 1 keeps all")
        self._decay = float(decay)
        self._epochs, self._passes = _whole("epochs", epochs), _whole("passes", passes)
        self._rows = _whole("rows", rows)
        self._interactions = _pairs(interactions)
        return {
            "l2": self._l2,
            "decay": self._decay,
            "epochs": self._epochs,
            "passes": self._passes,
            "rows": self._rows,
            "interactions": self._interactions,
        }


def _columns(features: Features) -> Columns:
    return tuple((column.name, column.kind.value) for column in features.schema.columns)


def _decayed(squares: Floats, decay: float) -> None:
    """Multiply in place; what has become tinier than any gradient is 0 then, since subnormal numbers are slow."""
    squares *= decay
    squares += _TINY  # is lost in whatever is not far smaller itself
    squares -= _TINY


def _abstained(n: int) -> Prediction:
    return Prediction(codes=np.full(n, ABSTAINED, dtype=np.int32), proba=np.empty((n, 0)), classes=())


def _sigmoid(odds: Floats) -> Floats:
    """Of log odds below -709 it is 0, with a warning of an overflow that is none: callers ignore it."""
    return np.asarray(1.0 / (1.0 + np.exp(-odds)))


def _whole(field: str, value: Any, most: int | None = None) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        upto = "at least 1" if most is None else f"from 1 to {most}"
        raise ConfigError(field, value, f"give a whole number, {upto}")
    return value


def _number(field: str, value: Any, *, positive: bool = False) -> float:
    if not isinstance(value, int | float) or not 0 <= value < np.inf or (positive and value == 0):
        raise ConfigError(field, value, f"give a finite number that is {'positive' if positive else 'not negative'}")
    return float(value)


def _pairs(interactions: Any) -> tuple[tuple[str, str], ...]:
    need = "give pairs of names of category columns, each pair once, e.g. [[user, item]]"
    if isinstance(interactions, str) or not isinstance(interactions, Sequence):
        raise ConfigError("interactions", interactions, need)
    out: list[tuple[str, str]] = []
    for pair in interactions:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(set(pair)) != 2 or len(pair) != 2:
            raise ConfigError("interactions", interactions, need)
        one, other = pair
        if not (isinstance(one, str) and isinstance(other, str)) or (one, other) in out or (other, one) in out:
            raise ConfigError("interactions", interactions, need)
        out.append((one, other))
    return tuple(out)


# ---------------------------------------------------------------------------------------------------------------
# the two
# ---------------------------------------------------------------------------------------------------------------


@final
class FTRL(_Hashed):
    """Logistic classification of hashed rows by FTRL-proximal: a step size and a threshold for each slot.

    The coefficient of a slot follows from two sums, ``z`` and ``n`` (Algorithm 1 of the paper)::

        w = 0 if |z| <= l1, else -(z - sign(z) * l1) / ((beta + sqrt(n)) / alpha + l2)

    and a step with gradient ``g`` adds ``g - (sqrt(n + g^2) - sqrt(n)) / alpha * w`` to ``z`` and ``g^2`` to ``n``.

    Departures from the paper: ``g`` is the sum over a mini-batch and not one row's; the intercept is a slot like any
    other; and with ``decay`` below 1 each update first multiplies ``n`` by it, and moves ``z`` so that no coefficient
    changes: steps stay large in a stream that drifts.

    Parameters
    ----------
    bits : int
        1 to 28: there are ``2 ** bits`` slots, of 16 bytes each.
    alpha, beta : float
        Positive: the step of a slot is about ``alpha / (beta + sqrt(n))``.
    l1, l2 : float
        Not negative: what keeps rare slots at 0, and what pulls all of them there.
    decay : float
        In (0, 1]: what ``n`` keeps at each call of :meth:`update`. A fit does not decay.
    epochs, passes : int
        Passes over the window of a :meth:`fit`, and over the new rows of an :meth:`update`.
    rows : int
        Rows of a mini-batch, in their order; the last of a training may be smaller.
    interactions : sequence of pairs of str
        Category columns whose words get a slot together too.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    References
    ----------
    McMahan et al. (2013), Ad click prediction: a view from the trenches, KDD, Algorithm 1.

    Examples
    --------
    >>> from perennial.testing import make_examples
    >>> history = make_examples(300, 1, categories=2)
    >>> model = FTRL(bits=10, interactions=[("c0", "c1")]).fit(history.slice(0, 200), seed=0)
    >>> model.update(history.slice(200, 300), seed=0)
    >>> model.predict(history.features).proba.shape, model.size() // 2**10
    ((300, 2), 16)
    """

    def __init__(
        self,
        *,
        bits: int = 18,
        alpha: float = 0.1,
        beta: float = 1.0,
        l1: float = 1.0,
        l2: float = 1.0,
        decay: float = 1.0,
        epochs: int = 3,
        passes: int = 1,
        rows: int = 256,
        interactions: Sequence[Sequence[str]] = (),
    ) -> None:
        self._alpha, self._beta = _number("alpha", alpha, positive=True), _number("beta", beta, positive=True)
        self._l1 = _number("l1", l1)
        own = {"alpha": self._alpha, "beta": self._beta, "l1": self._l1}
        common = self._set(bits, l2, decay, epochs, passes, rows, interactions)
        self._params = {"bits": self._bits, **own, **common}

    def _coefficients(self, state: _State, slots: NDArray[Any] | slice) -> Floats:
        z = state.values[slots]
        shrunk = np.sign(z) * np.minimum(self._l1 - np.abs(z), 0.0)
        return np.asarray(shrunk / self._scale(state.squares[slots]))

    def _step(self, state: _State, batch: _MiniBatch, coefficients: Floats, gradient: Floats) -> None:
        squares = state.squares[batch.slots] + gradient**2
        grown = np.sqrt(squares) - np.sqrt(state.squares[batch.slots])
        state.squares[batch.slots] = squares
        state.values[batch.slots] += gradient - grown / self._alpha * coefficients

    def _age(self, state: _State, decay: float) -> None:
        coefficients = self._coefficients(state, np.arange(len(state.values)))
        _decayed(state.squares, decay)
        held = np.flatnonzero(coefficients)
        kept = coefficients[held]
        state.values[held] = -kept * self._scale(state.squares[held]) - np.sign(kept) * self._l1

    def _scale(self, squares: Floats) -> Floats:
        return np.asarray((self._beta + np.sqrt(squares)) / self._alpha + self._l2)


@final
class AdaGrad(_Hashed):
    """Logistic classification of hashed rows by AdaGrad, whose sums of squared gradients decay at every update.

    A step with gradient ``g`` adds ``g^2`` to a slot's ``G``, and ``-rate * g / (beta + sqrt(G))`` to its coefficient.
    Each call of :meth:`update` first multiplies every ``G`` by ``decay``. That is what keeps a stateful model alive:
    with 1, the published algorithm, sums only grow, steps only shrink, and the model freezes where it is. With updates
    of equal size ``G`` remembers about ``1 / (1 - decay)`` of them.

    Departures from the paper: the decay; ``g`` is the sum over a mini-batch; and ``l2`` costs a row
    ``l2 / 2 * w^2`` for each slot that it has, so that only slots that occur are pulled.

    Parameters
    ----------
    bits : int
        1 to 28: there are ``2 ** bits`` slots, of 16 bytes each.
    rate, beta : float
        Positive: the step of a slot is about ``rate / (beta + sqrt(G))``. With ``beta`` near 0 the first step of a slot
        is as large for a weak gradient as for a strong one, so that a rare word without a click is judged too hard.
    l2 : float
        Not negative.
    decay : float
        In (0, 1]: what ``G`` keeps at each call of :meth:`update`. A fit does not decay.
    epochs, passes : int
        Passes over the window of a :meth:`fit`, and over the new rows of an :meth:`update`.
    rows : int
        Rows of a mini-batch, in their order; the last of a training may be smaller.
    interactions : sequence of pairs of str
        Category columns whose words get a slot together too.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    References
    ----------
    Duchi, Hazan and Singer (2011), Adaptive subgradient methods for online learning and stochastic optimization, JMLR
    12: the diagonal variant of Figure 1, whose delta is here ``beta``, as McMahan et al. (2013) name it.

    Examples
    --------
    >>> from perennial.testing import make_examples
    >>> history = make_examples(300, 1, categories=2)
    >>> model = AdaGrad(bits=10).begin()
    >>> for start in range(0, 300, 100):
    ...     model.update(history.slice(start, start + 100), seed=0)
    >>> model.predict(history.features).classes == tuple(dict.fromkeys(history.y.tolist()))
    True
    """

    def __init__(
        self,
        *,
        bits: int = 16,
        rate: float = 0.1,
        beta: float = 1.0,
        l2: float = 0.0,
        decay: float = 0.9,
        epochs: int = 3,
        passes: int = 1,
        rows: int = 256,
        interactions: Sequence[Sequence[str]] = (),
    ) -> None:
        self._rate, self._beta = _number("rate", rate, positive=True), _number("beta", beta, positive=True)
        common = self._set(bits, l2, decay, epochs, passes, rows, interactions)
        self._params = {"bits": self._bits, "rate": self._rate, "beta": self._beta, **common}

    def _coefficients(self, state: _State, slots: NDArray[Any] | slice) -> Floats:
        return np.asarray(state.values[slots])

    def _step(self, state: _State, batch: _MiniBatch, coefficients: Floats, gradient: Floats) -> None:
        if self._l2:
            weights = np.ones(len(batch.positive)) if batch.weights is None else batch.weights
            gradient = gradient + self._l2 * coefficients * batch.summed(weights, valued=False)
        squares = state.squares[batch.slots] + gradient**2
        state.squares[batch.slots] = squares
        state.values[batch.slots] = coefficients - self._rate * gradient / (self._beta + np.sqrt(squares))

    def _age(self, state: _State, decay: float) -> None:
        state.scale *= decay
        if state.scale < _LEAST_SCALE:
            _decayed(state.squares, state.scale)
            state.scale = 1.0
