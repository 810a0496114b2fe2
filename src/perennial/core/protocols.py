"""The seams: what a learner, a window, a trigger, a gate, a trainer and a ledger must be.

A capability is a type, never a flag: whoever can be updated is :class:`Updatable`, and asking a learner that is
not fails before any training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError
from perennial.core.features import Features, Schema
from perennial.core.records import Decision, Examples, Label, Loss, Prediction, TaskKind, Turn, Verdict, Version
from perennial.core.times import NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a saved model may hold: how :meth:`Learner.save` writes it, and what :meth:`Learner.load` takes.

    Nothing given is the safe way: native formats, numbers, and objects by name if their type is on the list that is
    shipped. What a saved model says of itself never widens it.

    Parameters
    ----------
    pickle : bool
        Write a pickle where there is no safe form, and read one whose ``digest`` is given. A pickle runs code as it is
        loaded.
    types : tuple of str
        Further types and functions, ``package.module.Name``, that may be loaded by name: those whose code is yours.
    digest : str, optional
        The SHA-256, in hex, of the whole saved model, as recorded when it was saved. Whatever is loaded must match it.
    local : bool
        Made by this process, or kept in its own cache, and so trusted as the code beside it: quick, and often a pickle.
    """

    pickle: bool = False
    types: tuple[str, ...] = ()
    digest: str | None = None
    local: bool = False

    def __post_init__(self) -> None:
        for name in self.types:
            parts = name.split(".")
            if len(parts) < 2 or not all(part.isidentifier() for part in parts):
                raise ConfigError("trust", name, "name a type in full, as in my_package.my_module.MyType")

    def recorded(self, digest: str) -> Trust:
        """The same for one saved model, whose digest was recorded when it was saved."""
        return replace(self, digest=digest)


#: for copies within a process and for the backtest's own cache
LOCAL = Trust(local=True)


@runtime_checkable
class Learner(Protocol):
    """A way to learn, and after ``fit`` a model.

    A learner that was never fitted is a template. ``fit`` leaves ``self`` alone and gives a new model, always from
    scratch, also when ``self`` is a model. Prediction never changes a model.
    """

    @property
    def name(self) -> str:
        """A short name for reports, e.g. ``"LGBMClassifier"``."""
        ...

    @property
    def task(self) -> TaskKind:
        """``"classification"`` or ``"regression"``."""
        ...

    @property
    def resumes(self) -> bool:
        """Whether save, load and go on gives bit for bit what going on gives: the resume contract."""
        ...

    def identity(self) -> str:
        """Canonical text of class, parameters and library versions; raises ``Unhashable`` if it cannot be told."""
        ...

    def fit(self, examples: Examples, seed: int) -> Self:
        """A new model trained on ``examples`` alone. The user's own ``random_state`` wins over ``seed``."""
        ...

    def predict(self, features: Features) -> Prediction:
        """Predictions for rows, with this model's own classes."""
        ...

    def save(self, trust: Trust = LOCAL) -> bytes:
        """The whole state, preprocessing and random state included, in a form that ``load`` takes with this trust.

        Raises ``LearnerError`` if there is none, and says what to allow.
        """
        ...

    def load(self, blob: bytes, trust: Trust = LOCAL) -> Self:
        """A new model from what :meth:`save` of the same template gave.

        Raises ``FormatError`` if it cannot, or if ``trust`` does not cover what it holds: nothing of it has run then.
        """
        ...

    def digest(self) -> str:
        """Digest of the learned state: equal for equal states, whatever their pickles look like."""
        ...

    def row_trees(self, rows: int) -> int:
        """Rows times trees that the last training of ``rows`` rows built: the noise-free cost; 0 without trees."""
        ...

    def check(self, features: Features) -> None:
        """Raise ``DataError``, naming the column, if rows hold what this learner refuses (infinities, NaN, text)."""
        ...


@runtime_checkable
class Sized(Learner, Protocol):
    """A learner that says how large what it has learned is."""

    def size(self) -> int:
        """Bytes of the learned state, laid out plainly: equal for equal states, however they are saved."""
        ...


Serving = Callable[[NDArray[np.float64]], Prediction]  #: what is said of the rows of a matrix, shape (n, d), n >= 1


@runtime_checkable
class Servable(Learner, Protocol):
    """A learner that can be asked about a matrix without the detour over columns: for whoever answers row by row."""

    def serving(self) -> Serving | None:
        """The quickest form of this model, to be asked for anew after an update; None if it has none.

        It is given a C-contiguous matrix as :meth:`~perennial.core.features.Features.matrix` shows rows, changes
        nothing, says bit for bit what :meth:`Learner.predict` says, and may be asked by several threads at once.
        Whoever uses it compares: a model may want more of its rows than their numbers, and not know it.
        """
        ...


@runtime_checkable
class Updatable(Learner, Protocol):
    """A learner whose model can go on learning in place."""

    def begin(self) -> Self:
        """A new untrained model that can be updated and asked from the first row on."""
        ...

    def update(self, examples: Examples, seed: int) -> None:
        """Go on from the current state on new examples only. Mutates ``self``."""
        ...


@runtime_checkable
class Interleaved(Updatable, Protocol):
    """An updatable learner that can test and train rows one after the other in a single call, cheaply."""

    def interleave(self, queue: Examples, features: Features, upto: NDArray[np.int64], seed: int) -> Prediction:
        """Before predicting row i, learn ``queue[upto[i - 1] : upto[i]]`` one example at a time; mutates ``self``.

        ``upto`` is non-decreasing, shape (n,) for n rows of ``features``. Must equal n single calls of ``update``
        and ``predict``. Examples beyond ``upto[-1]`` are not learned.
        """
        ...


@runtime_checkable
class Summable(Learner, Protocol):
    """A learner that fits from sums of block statistics, so that a sliding window reads each row once."""

    def summarise(self, examples: Examples) -> Any:
        """Sufficient statistics of a block of examples."""
        ...

    def fit_sum(self, blocks: Sequence[Any], examples: Examples) -> Self:
        """The model that ``fit`` on all blocks together gives, from their statistics.

        ``examples`` has the class table and schema, and may be empty.
        """
        ...


@runtime_checkable
class LearnsUnlabelled(Learner, Protocol):
    """A learner that is also given rows without a label (code -1, or NaN)."""

    @property
    def wants_unlabelled(self) -> Literal[True]:
        """Always true; its presence is what makes the type."""
        ...


@runtime_checkable
class Pickled(Learner, Protocol):
    """A learner that may have no form but a pickle, which production must allow: ``serialisation: {pickle: true}``."""

    @property
    def needs_pickle(self) -> bool:
        """Whether only a pickle holds it."""
        ...


@runtime_checkable
class Accounts(Learner, Protocol):
    """A learner of several experts, which can tell what each has lost and what it weighs."""

    def account(self) -> Mapping[str, Any]:
        """Plain data for a report: see ``committee`` in its schema."""
        ...


@runtime_checkable
class Memorises(Learner, Protocol):
    """A learner whose model may hold rows that it was trained on, and not only what it learned from them."""

    def memorises(self, *, untrained: bool) -> str | None:
        """What holds rows, and which, in words; None if nothing does that is known.

        ``untrained`` says that it starts with :meth:`Updatable.begin` and not with a fit.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a model that was trained elsewhere knows of the rows and the labels that it wants.

    Parameters
    ----------
    names : tuple of str, optional
        Its features in order; None if it does not know their names.
    width : int, optional
        How many features it wants; None if it does not know.
    words : mapping of int to tuple of str
        Of category columns, by index: the words that the codes 0, 1, ... mean to it. Empty where it is asked in words.
    classes : tuple
        Its classes in its own order, often just the numbers 0, 1, ...; empty for a regression, or if it does not know.
    """

    names: tuple[str, ...] | None = None
    width: int | None = None
    words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[Label, ...] = ()


@runtime_checkable
class Adopts(Learner, Protocol):
    """A learner that can go on from a model of its framework that was trained elsewhere."""

    def known(self, model: Any, schema: Schema) -> Known:
        """What a trained model of the framework knows of its rows and labels.

        Raises
        ------
        LearnerError
            If it is another kind of model than this learner's, or would be asked otherwise than it was trained.
        DataError
            If it means something else by a column of ``schema`` than the stream does; names the column.
        """
        ...

    def adopted(self, model: Any, classes: tuple[Label, ...]) -> Self:
        """A new model of this learner that says what ``model`` says; ``classes`` are the labels of its classes.

        ``model`` is taken over, and may be changed. Raises ``LearnerError`` if its classes cannot have these labels.
        """
        ...


@runtime_checkable
class ReadsNative(Adopts, Protocol):
    """A learner whose framework has a file format of its own that holds no code."""

    @property
    def framework(self) -> str:
        """The framework's name, as in ``"lightgbm"``."""
        ...

    def opened(self, data: bytes) -> Any:
        """The framework's model from the bytes of a file of its own; raises ``FormatError`` if they are none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What a window may look at: the examples whose labels are known at ``now``, in order of position.

    Parameters
    ----------
    now : int
        The instant of training.
    position, time : array of int64, shape (n,)
        Ascending positions, and their event times.
    rows : array of uint8, shape (n, 16)
        Digests of their features: what seeded draws are made by.
    initial : int
        Rows at positions below this one are the initial data.
    label_delay : int
        How long every label takes at least, in microseconds.
    seed : int
        The base seed.
    """

    now: int
    position: NDArray[np.int64]
    time: NDArray[np.int64]
    rows: NDArray[np.uint8]
    initial: int
    label_delay: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a window chose: ascending indices into the cut, and a weight for each (None: all ones)."""

    index: NDArray[np.int64]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What must be kept for a window's next use: the rest of the raw rows may go. The union is kept.

    ``since``: rows at or after this event time. ``rows``: this many newest labelled rows among those with event time at
    or before ``until``, and all that are newer by position or by time. ``initial``: the initial rows.
    ``everything``: all rows.
    """

    since: int | None = None
    rows: int = 0
    until: int = NEVER
    initial: bool = False
    everything: bool = False


class Window(Protocol):
    """Which examples a stateless training may see."""

    def select(self, cut: Cut) -> Selection:
        """The chosen examples. Pure: depends on the cut alone."""
        ...

    def keep(self, now: int, label_delay: int) -> Keep:
        """What a selection at ``now`` or later can still ask for."""
        ...

    def __str__(self) -> str:
        """The window in a few words, for reports."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a trigger sees at the start of a turn.

    Parameters
    ----------
    now : int
        The instant.
    anchor : int
        The instant of the first training: calendars count from here.
    trained_at : int
        The instant of the last training that this trigger is about.
    labelled : int
        Examples whose labels became known since that training, up to now.
    fresh : int
        Of those, the ones that became known in this turn.
    loss : Loss
        Losses of the predictions whose labels became known in this turn.
    rejections : int
        Verdicts against challengers, and trainings that failed, since the last promotion.
    own : bool
        Whether ``loss`` is of the model of the last training: not while that is on trial or was turned down, and the
        one before it goes on.
    """

    now: int
    anchor: int
    trained_at: int
    labelled: int
    fresh: int
    loss: Loss
    rejections: int = 0
    own: bool = True


class Trigger(Protocol):
    """When to train: a fold over facts. State is plain data (numbers, strings, lists) and goes into checkpoints."""

    def start(self) -> Any:
        """State before the first turn."""
        ...

    def step(self, state: Any, facts: Facts) -> tuple[Decision, Any]:
        """The decision of this turn with its reason, and the state for the next."""
        ...

    def trained(self, state: Any, facts: Facts) -> Any:
        """State after a training in this turn."""
        ...

    def __str__(self) -> str:
        """The trigger in a few words, for reports."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a strategy wants done in a turn, and what instead while a fit has to wait for a trial."""

    action: Literal["nothing", "fit", "update"]
    decisions: tuple[Decision, ...]
    otherwise: Literal["nothing", "update"] = "nothing"

    @property
    def reason(self) -> str:
        """Why: the reasons of the decisions that fired."""
        return "; ".join(d.reason for d in self.decisions if d.fire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A training's result: the model, the CPU seconds that making it costs, and whether it was shared, not made."""

    model: Learner
    cpu_seconds: float
    shared: bool


class Trainer(Protocol):
    """Has trainings done, once each: the edge where CPU time is measured and identical work is shared."""

    def obtain(self, key: str | None, template: Learner, make: Callable[[], Learner]) -> Trained:
        """The model for ``key``: loaded into ``template`` if it was made before, else from ``make()``.

        ``key`` None means that this training must not be shared.
        """
        ...

    def cpu_seconds(self) -> float:
        """CPU seconds used so far by this process: for the cost of predictions. Decides nothing."""
        ...

    def latency(self, model: Learner, features: Features) -> timedelta:
        """How long one prediction of a single row takes: asked only where a gate has a limit for it."""
        ...


class GoldenSet(Protocol):
    """Labelled rows apart from the stream, n of them: what a model must go on knowing."""

    @property
    def digest(self) -> str:
        """Identity of the rows and their labels."""
        ...

    @property
    def truth(self) -> NDArray[Any]:
        """Codes into ``classes`` or values, shape (n,)."""
        ...

    @property
    def classes(self) -> tuple[Label, ...]:
        """What codes mean; none for a regression."""
        ...

    def features(self, schema: Schema) -> Features:
        """The rows, encoded with the words that a schema has by now; it learns nothing of them."""
        ...


class Evidence(Protocol):
    """Paired losses of a challenger line and the champion, summed up: frozen, of bounded size, plain when saved."""

    def add(self, block: NDArray[np.int64], difference: NDArray[np.float64]) -> Self:
        """The evidence with more rows, n of them: the block of each, and its loss under the challenger less that
        under the champion.
        """
        ...

    def to_plain(self) -> dict[str, Any]:
        """Everything it holds, as JSON can keep it exactly."""
        ...


class Gate(Protocol):
    """Champion against challenger: the test before, or after, a promotion."""

    @property
    def mode(self) -> Literal["before", "after", "none"]:
        """Hold a challenger back until there is evidence, serve it at once and roll back on evidence, or neither."""
        ...

    @property
    def on_reject(self) -> Literal["back", "go_on"]:
        """Whether a stateful line that was rejected goes back to the champion's state, or goes on."""
        ...

    def begin(self) -> Evidence:
        """No evidence yet."""
        ...

    def resume(self, plain: Mapping[str, Any]) -> Evidence:
        """Evidence from what :meth:`Evidence.to_plain` gave."""
        ...

    def blocks(self, time: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
        """The unit of analysis that each row belongs to, shape (n,): labels that come together err together."""
        ...

    def judge(self, evidence: Evidence, *, now: int, begun: int, challenger: Version, champion: Version) -> Verdict:
        """Promote, reject or keep watching, with the evidence; the challenger's line was first shown at ``begun``."""
        ...


class Ledger(Protocol):
    """Where turns become a lasting record: whole, in order, once."""

    def commit(self, turn: Turn) -> None:
        """Record a turn; raises ``LedgerError`` if it does not follow the last one."""
        ...
