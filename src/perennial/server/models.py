"""What answers: versions, loaded, compared and ready, and the one table that says which of them does what.

A version is brought up beside the one that answers: loaded from the ledger, brought to its quickest form, held against
its golden predictions. Then one attribute is set. A request reads that attribute once, so it is answered by one whole
version or by another, and never waits. A version that cannot be brought up never answers: the one before goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, LedgerError, PerennialError
from perennial.core.features import Features
from perennial.core.protocols import Learner, Servable, Serving, Sized
from perennial.core.records import ABSTAINED, Label, Prediction, TaskKind, align, typed
from perennial.learners.golden import read_inputs, reproduces_set, said
from perennial.learners.saved import part
from perennial.ledger.errors import MissingBlob, StorageError
from perennial.ledger.records import Alias, AliasName, Head, Saved
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint
from perennial.production.deployment import Deployment
from perennial.production.run import Tell, silent
from perennial.server import routing
from perennial.server.columns import Columns
from perennial.server.history import History
from perennial.server.routing import NOTHING, Shares
from perennial.server.rows import Rows
from perennial.server.watch import Watch
from perennial.stream.intake import Intake

if TYPE_CHECKING:
    from perennial.server.signature import Signature

log = logging.getLogger(__name__)

#: golden and made-up rows that are asked for one by one as well when two forms of a model are compared
_SINGLES = 4


class NoChampion(LedgerError):
    """No version serves yet: the first one is still to be trained, or could not be loaded."""


class Counts(Protocol):
    """What counts of this worker are kept in."""

    def add(self, name: str, n: int = 1) -> None:
        """Count more."""
        ...

    def put(self, name: str, value: int) -> None:
        """Say what is so now."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a checkpoint says of rows and labels; ``head`` is whose it is."""

    head: Head
    columns: Columns
    classes: tuple[Label, ...]
    signature: Signature


@final
class Slot:
    """One version, ready to answer; nothing of it ever changes.

    Parameters
    ----------
    version : str
        Its number.
    learner : Learner
        The model.
    known : Known
        The checkpoint that its rows are encoded by.
    golden : Features, optional
        Rows that it was saved with, to compare its forms on.
    history : History, optional
        The past rows that features are built from, where they are.
    size : int
        Bytes that it takes, about.
    """

    def __init__(
        self,
        version: str,
        learner: Learner,
        known: Known,
        *,
        golden: Features | None = None,
        history: History | None = None,
        size: int = 0,
    ) -> None:
        self.version = version
        self.classes = known.classes
        self.task: TaskKind = learner.task
        self.signature = known.signature
        self.size = size
        self._learner, self._columns, self._history = learner, known.columns, history
        self._native, self.unlike = _native(learner, known.columns, golden)
        self._own, self._to = self._places(known.columns)

    @property
    def form(self) -> str:
        """``"native"`` if rows go straight to the framework as a matrix, else ``"learner"``."""
        return "learner" if self._native is None else "native"

    def predict(self, rows: Rows, at: int | None = None) -> Prediction:
        """What this version says of rows, in terms of the deployment's class table. Any thread may ask.

        Parameters
        ----------
        rows : Rows
            Checked against ``signature``. Not mutated.
        at : int, optional
            The instant of the request, in microseconds: where features look back, what they look back from.

        Raises
        ------
        DataError
            If a row holds what the model refuses.
        FeaturesFailed
            If the function that builds features fails on it.
        """
        if self._history is not None:
            rows = self._history.features(rows, at)
        if self._native is not None and rows.n:
            try:
                return self._aligned(self._native(self._columns.matrix(rows)))
            except Exception:  # what it refuses is told below, by the name of its column
                log.debug("the native form of %s refused %d rows", self.version, rows.n, exc_info=True)
        features = self._columns.features(rows)
        try:
            return self._aligned(self._learner.predict(features))
        except PerennialError:
            raise
        except Exception:  # each framework has errors of its own
            self._learner.check(features)
            raise

    def _aligned(self, told: Prediction) -> Prediction:
        """As :func:`~perennial.core.records.align`, with the table of classes looked up once for all requests."""
        if told.values is not None or told.classes == self.classes:
            return told
        if told.classes != self._own:
            return align(told, self.classes)
        assert told.codes is not None
        proba = None
        if told.proba is not None:
            proba = np.zeros((len(told.codes), len(self.classes)))
            proba[:, self._to[:-1]] = told.proba
        return Prediction(codes=self._to[told.codes], proba=proba, classes=self.classes)

    def _places(self, columns: Columns) -> tuple[tuple[Label, ...], NDArray[np.int32]]:
        """The model's own classes, as it tells them when it is asked, and the place of each in the table.

        None where the table lacks one; behind the last stands what an abstention, -1, finds.
        """
        rows = columns.probes(None, n=1)
        try:
            own = self._learner.predict(columns.features(rows)).classes
        except Exception:  # it refuses made-up rows, as it may
            return (), np.empty(0, dtype=np.int32)
        index = {typed(label): code for code, label in enumerate(self.classes)}
        to = [index.get(typed(label), -1) for label in own]
        if min(to, default=-1) < 0:
            return (), np.empty(0, dtype=np.int32)
        return own, np.array([*to, ABSTAINED], dtype=np.int32)


def _native(learner: Learner, columns: Columns, golden: Features | None) -> tuple[Serving | None, str]:
    """The quickest form of a model if it says the same as the model, and why not if it does not."""
    native = learner.serving() if isinstance(learner, Servable) and columns.as_matrix else None
    if native is None:
        return None, ""
    if golden is not None and len(golden):
        shown = golden.matrix()
        if _outcome(lambda: native(shown)) != _outcome(lambda: learner.predict(golden)):
            return None, "it says otherwise of its golden rows"
    rows = columns.probes(None if golden is None else golden.matrix())
    for some in (rows, *(_row(rows, i) for i in range(_SINGLES))):
        matrix, features = columns.matrix(some), columns.features(some)
        if not np.array_equal(matrix, features.matrix(), equal_nan=True):
            return None, "rows look otherwise as a matrix"
        if _outcome(lambda m=matrix: native(m)) != _outcome(lambda f=features: learner.predict(f)):  # type: ignore[misc]
            return None, f"it says otherwise of {some.n} made-up rows"
    return native, ""


def _row(rows: Rows, i: int) -> Rows:
    others = {name: values[i : i + 1] for name, values in rows.others.items()}
    return Rows(n=1, numbers=rows.numbers[i : i + 1].copy(), others=others)


def _outcome(ask: Callable[[], Prediction]) -> str:
    """What is said, bit by bit; or, of rows that are refused, that they are."""
    try:
        return said(ask())
    except Exception as error:  # frameworks differ in what they raise, and so do their forms
        log.debug("refused: %s", error)
        return "refused"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Who does what: replaced whole."""

    champion: Slot | None = None
    challenger: Slot | None = None
    previous: Slot | None = None
    shares: Shares = NOTHING
    trial: str = ""
    generation: int = 0  # of the champion's pointer


@final
class Models:
    """The versions that one worker answers with; they follow the pointers of the ledger.

    Make one with :meth:`open`. ``champion``, :meth:`choose` and the slots that they give may be used by any thread and
    wait for nothing; :meth:`poll` is for one thread, which :meth:`start` begins.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        budget_bytes: int,
        clock: Callable[[], int],
        tell: Tell = silent,
        counters: Counts | None = None,
        signature: Callable[[Deployment, Intake], Signature] | None = None,
    ) -> None:
        self._deployment, self._budget, self._clock = deployment, budget_bytes, clock
        self._tell, self._counters = tell, counters
        self._signature = signature or _signature
        self._ledger: SqlLedger | None = None
        self._away = False
        self._table = Table()
        self._seen = -1  # how often pointers had been moved when they were followed last
        self._known: Known | None = None
        self._asked: OrderedDict[str, Slot] = OrderedDict()  # by number, the one asked for last at the end
        self._lock = threading.Lock()  # of `_asked`
        self._loading = threading.Lock()  # of loading into it, for which whoever follows the pointers does not wait
        self._knowing = threading.Lock()  # of `_known`
        self.swapped_at = 0  #: when the champion that answers took over, by the clock; 0 before the first
        self.history = None if deployment.stream.features is None else History(deployment.stream, clock)
        watches = [Watch(self.poll, "perennial-models")]
        if self.history is not None:
            watches.append(Watch(self.history.follow, "perennial-history"))
        self._watches = tuple(watches)

    @classmethod
    def open(
        cls,
        deployment: Deployment,
        *,
        budget_bytes: int,
        clock: Callable[[], int],
        tell: Tell = silent,
        counters: Counts | None = None,
        signature: Callable[[Deployment, Intake], Signature] | None = None,
    ) -> Self:
        """The models of a deployment; when it returns, its champion answers, if there is one.

        Parameters
        ----------
        deployment : Deployment
            Whose. Its ledger need not be there yet.
        budget_bytes : int
            Memory for versions that are held ready, champion and challenger aside.
        clock : callable
            The instant now, in microseconds since 1970-01-01 UTC.
        tell : callable, optional
            Hears of ``swapped``, ``refused``, ``unlike``, ``ledger_away`` and ``ledger_back``, from the thread that
            follows.
        counters : Counts, optional
            Where ``swaps`` are counted and the champion's ``generation`` is shown.
        signature : callable, optional
            What says which columns a client sends; the server's own unless given.
        """
        models = cls(
            deployment, budget_bytes=budget_bytes, clock=clock, tell=tell, counters=counters, signature=signature
        )
        models.poll()
        if models.history is not None:
            models.history.follow()
        return models

    def start(self) -> None:
        """Follow the pointers from now on, in a thread."""
        for watch in self._watches:
            watch.start()

    def close(self) -> None:
        """Follow them no more; slots that were given out go on answering."""
        for watch in self._watches:
            watch.close()
        if self._ledger is not None:
            self._ledger.close()

    # -- who answers

    @property
    def champion(self) -> Slot | None:
        """What answers now; None before the first version."""
        return self._table.champion

    @property
    def generation(self) -> int:
        """Generation of the pointer that the champion which answers was found by; 0 before the first."""
        return self._table.generation

    @property
    def shares(self) -> Shares:
        """What the challenger gets of the requests now; nothing while it is not loaded."""
        table = self._table
        return table.shares if table.challenger is not None else NOTHING

    def choose(self, key: object | None, request_id: str) -> tuple[Slot, Slot | None]:
        """Who answers a request, and who is asked about it beside, unseen: champion and challenger, or the reverse.

        Parameters
        ----------
        key : object, optional
            Whom its rows are about; None where the stream has no key.
        request_id : str
            The request's id, which stands in for a key.

        Raises
        ------
        NoChampion
            If no version serves yet.
        """
        table = self._table
        if table.champion is None:
            raise NoChampion(
                f"{self._deployment.name!r} has no version that can serve yet: its initial period is not over"
            )
        if table.challenger is None:
            return table.champion, None
        choice = routing.choose(table.shares, key, request_id, table.trial)
        answers, other = table.champion, table.challenger
        if choice.challenger:
            answers, other = other, answers
        return answers, other if choice.beside else None

    def version(self, number: str) -> Slot:
        """A version by its number; one that is not held ready is loaded, which takes its time.

        Raises
        ------
        UnknownVersion
            If there is none.
        ConfigError
            If it takes more memory than ``models_bytes`` allows.
        LedgerError, FormatError
            If the ledger is away, or the model cannot be used.
        """
        if (slot := self._held(number)) is not None:
            return slot
        with self._loading:  # one at a time: together they must not take more than they may
            with self._lock:
                if (slot := self._asked.get(number)) is not None:
                    self._asked.move_to_end(number)
                    return slot
            saved = self._opened().version(number)
            if saved.size > self._budget:
                raise ConfigError(
                    "serve.models_bytes", self._budget,
                    f"version {number} takes {saved.size:,} bytes: allow more, or ask the champion",
                )  # fmt: skip
            slot = self._brought(saved)
            with self._lock:
                self._asked[number] = slot
                self._make_room()
            return slot

    def resident(self) -> dict[str, str]:
        """Versions that are held ready, by number: champion, challenger, previous, or ``asked`` for by number."""
        table = self._table
        with self._lock:
            out = dict.fromkeys(self._asked, "asked")
        for role, slot in (
            ("previous", table.previous),
            ("challenger", table.challenger),
            ("champion", table.champion),
        ):
            if slot is not None:
                out[slot.version] = role
        return out

    def _held(self, number: str) -> Slot | None:
        table = self._table
        for slot in (table.champion, table.challenger, table.previous):
            if slot is not None and slot.version == number:
                return slot
        return None

    def _make_room(self) -> None:
        """Let go of what was not asked for longest, until the rest is within the budget; under the lock."""
        previous = self._table.previous
        held = sum(slot.size for slot in self._asked.values()) + (0 if previous is None else previous.size)
        while held > self._budget and self._asked:
            held -= self._asked.popitem(last=False)[1].size

    # -- following the ledger

    def poll(self) -> None:
        """Look at the pointers once; bring up what they point at now, and let it answer."""
        try:
            ledger = self._opened()
            moved = ledger.moves()
            if self.history is not None and self.history.lost and self._table.champion is not None:
                self._known = None
                self._knowledge(ledger)
            if moved == self._seen:
                return self._back()
            self._follow(ledger.pointers())
        except LedgerError as error:
            # the present champion goes on; a ledger that is not there yet is one that is away
            return self._gone(error)
        self._seen = moved  # what could not be used is tried again when a pointer moves
        return self._back()

    def _opened(self) -> SqlLedger:
        if self._ledger is None:
            d = self._deployment
            self._ledger = SqlLedger.open(d.ledger, d.name, blobs=d.blobs, create=False)
        return self._ledger

    def _gone(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            champion = self._table.champion
            answers = "none" if champion is None else champion.version
            self._tell("ledger_away", {"deployment": self._deployment.name, "reason": str(error), "answers": answers})

    def _back(self) -> None:
        if self._away:
            self._away = False
            self._tell("ledger_back", {"deployment": self._deployment.name})

    def _follow(self, pointers: dict[AliasName, Alias]) -> None:
        """The champion first, and it answers at once; then what is held ready beside it."""
        before = self._table
        with self._lock:
            ready = dict(self._asked)
        ready |= {s.version: s for s in (before.champion, before.challenger, before.previous) if s is not None}
        champion = self._bring("champion", pointers["champion"], ready)
        if champion is not None:
            ready[champion.version] = champion
            self._swap(champion, pointers["champion"].generation)
        challenger = self._bring("challenger", pointers["challenger"], ready)
        previous = self._bring("previous", pointers["previous"], ready)
        if challenger is self._table.champion:
            challenger = None
        if previous in (self._table.champion, challenger) or (previous is not None and previous.size > self._budget):
            previous = None
        table = replace(self._table, challenger=challenger, previous=previous, shares=NOTHING, trial="")
        if challenger is not None:
            alias = pointers["challenger"]
            # by its line: the newest version of one that learns on goes on with the keys of those before it
            trial = f"{self._deployment.name} {challenger.version.partition('.')[0]}"
            table = replace(table, shares=Shares(canary=alias.canary, shadow=alias.shadow), trial=trial)
        self._table = table
        with self._lock:
            self._make_room()

    def _swap(self, champion: Slot, generation: int) -> None:
        before = self._table
        left = before.champion
        if left is champion:
            self._table = replace(before, generation=generation)
        else:
            # who was asked beside it belongs to the trial of before: nobody is until that of now is settled
            self._table = Table(champion=champion, previous=left, generation=generation)
            self.swapped_at = self._clock()
        if self._counters is not None:
            self._counters.put("generation", generation)
            self._counters.add("swaps", int(left is not champion))
        if left is not champion:
            self._tell("swapped", {
                "deployment": self._deployment.name, "version": champion.version, "form": champion.form,
                "generation": generation, "left": None if left is None else left.version,
            })  # fmt: skip

    def _bring(self, role: AliasName, alias: Alias, ready: dict[str, Slot]) -> Slot | None:
        """The slot that a pointer means; None if it means none, or one that cannot be had, which is told."""
        number = alias.version
        if number is None or number in ready:
            return None if number is None else ready[number]
        try:
            saved = self._opened().version(number)
            if role == "previous" and saved.size > self._budget:
                return None
            return self._brought(saved)
        except StorageError:  # the ledger is away: that is no fault of the version
            raise
        except Exception as error:  # whatever a framework raises on a model that it cannot use
            log.debug("version %s cannot be used", number, exc_info=True)
            champion = self._table.champion
            self._tell("refused", {
                "deployment": self._deployment.name, "version": number, "role": role, "reason": str(error),
                "answers": None if champion is None else champion.version,
            })  # fmt: skip
            return None

    def _brought(self, saved: Saved) -> Slot:
        """A version, loaded, compared and warm.

        Raises
        ------
        LedgerError, FormatError
            If it cannot be loaded, or predicts otherwise than when it was saved.
        """
        ledger, number = self._opened(), saved.version.number
        learner = self._deployment.load(ledger.get(saved.blob))
        golden = None
        if kept := _golden(ledger, saved):
            if not reproduces_set(learner, kept):
                raise LedgerError(
                    f"{number} predicts otherwise than when it was saved: see  perennial doctor , and promote another"
                )
            golden = read_inputs(part(kept)[1][0])
        known = self._knowledge(ledger)
        size = saved.size
        if isinstance(learner, Sized):
            size = max(size, learner.size())
        slot = Slot(number, learner, known, golden=golden, history=self.history, size=size)
        if slot.unlike:
            self._tell("unlike", {"deployment": self._deployment.name, "version": number, "reason": slot.unlike})
        return slot

    def _knowledge(self, ledger: SqlLedger) -> Known:
        """What the last checkpoint says: it is at least as new as any version that a pointer was seen to mean.

        A turn commits its version, its pointers and its checkpoint together, and pointers were read before.
        """
        with self._knowing:
            head = ledger.head()
            if self._known is None or self._known.head.checkpoint != head.checkpoint:
                state = checkpoint.last(ledger)
                intake = checkpoint.restored(self._deployment, state)
                encoder = intake.encoder
                signature = self._signature(self._deployment, intake)
                classes = tuple(state.part("engine").part("book").plain["classes"])
                if self.history is not None:
                    self.history.begin(intake.standing())
                names = encoder.schema.names if self.history is not None else signature.names
                columns = Columns(encoder.schema, encoder.types, names)
                self._known = Known(head=head, columns=columns, classes=classes, signature=signature)
            return self._known


def _signature(deployment: Deployment, intake: Intake) -> Signature:
    from perennial.server.signature import Signature

    return Signature.of(deployment, intake)


def _golden(ledger: SqlLedger, saved: Saved) -> bytes:
    """A version's golden set; empty if it was erased with a subject, or lost, which is no fault of the model."""
    try:
        return ledger.get(saved.golden) if saved.golden else b""
    except MissingBlob:
        return b""
