"""What a deployment is: everything that decides what its run does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from perennial.core.errors import ConfigError
from perennial.core.identity import Unhashable, canonical, digest
from perennial.core.protocols import Gate, Learner, Pickled, Trainer, Trust
from perennial.core.records import Label
from perennial.engine import Engine, check_can_update, check_gate
from perennial.gate import Gate as PairedGate
from perennial.learners import as_learner
from perennial.learners.saved import sha256
from perennial.metrics.money import Prices
from perennial.production import forgetting
from perennial.production.observing import Observing
from perennial.strategies import Strategy
from perennial.stream import Stream
from perennial.stream.canonical import least_delay
from perennial.stream.inbox import Inbox, InboxLogs, ready
from perennial.stream.labelled import check_readable, read_labelled
from perennial.stream.quality import Quality


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One model that is kept current.

    Parameters
    ----------
    name : str
        Its name in the ledger.
    stream : Stream
        Where rows come from; files that grow or become more.
    strategy : Strategy
        When to do which training.
    ledger : str
        ``sqlite:///folder/ledger.db``, or a PostgreSQL URL.
    blobs : str or Path, optional
        Where models are kept; beside an SQLite file unless given.
    gate : Gate, optional
        Champion against challenger; every version is promoted unless given.
    prices : Prices, optional
        What a mistake and a training cost, for the margin of a gate that states none.
    quality : Quality, optional
        What a batch must hold to be learned from.
    train_latency : timedelta
        As for :class:`~perennial.engine.Engine`.
    retention : timedelta or "none", optional
        How long rows are kept beyond what the strategy needs, for ``reproduce``; for ever unless given. ``"none"``
        keeps none longer than it waits to be learned: see :mod:`~perennial.production.forgetting`.
    seed : int
        Base of every seed.
    trust : Trust
        In which forms models may be saved, and which types besides ours may be in them.
    observe : bool
        Decide and record, and train and judge nothing: needs a champion that is there already, and ends its trial.
    inbox : Inbox, optional
        Of a stream that is served: where its logs are, feedback among them.
    columns : mapping, optional
        With ``inbox``: Arrow types of the columns and the label, to make the logs by; else examples that are pushed
        say what they hold, and a run waits for them.
    accept : bool
        Go on although settings are not those that the deployment was begun with.

    Raises
    ------
    ConfigError, LearnerError
        If the strategy updates a learner that cannot be updated or can be saved only in a form that is not trusted, the
        stream has no label column, the gate's golden set is not there, or no row may be kept and something would keep
        some.
    """

    name: str
    stream: Stream
    strategy: Strategy
    ledger: str
    blobs: str | Path | None = None
    gate: Gate | None = None
    prices: Prices | None = None
    quality: Quality = field(default_factory=Quality)
    train_latency: timedelta = timedelta(0)
    retention: timedelta | Literal["none"] | None = None
    seed: int = 0
    trust: Trust = field(default_factory=Trust)
    inbox: Inbox | None = None
    columns: Mapping[str, Any] | None = None
    observe: bool = False
    accept: bool = False

    def __post_init__(self) -> None:
        check_can_update(self.strategy, self.learner)
        learner = self.learner
        if isinstance(learner, Pickled) and learner.needs_pickle and not self.trust.pickle:
            raise ConfigError(
                "serialisation.pickle", False, f"{learner.name} can be saved only as a pickle: allow it, pickle: true"
            )
        check_gate(self.gate, self.strategy, learner)
        if isinstance(self.gate, PairedGate) and self.gate.golden is not None:
            check_readable(self.gate.golden.file, self.stream)
        if self.stream.target is None:
            raise ConfigError("target", None, "name the label column: without labels nothing can be learned")
        if self.forgets:
            forgetting.check(self)

    @property
    def forgets(self) -> bool:
        """Whether no row is kept longer than it waits."""
        return self.retention == "none"

    @property
    def learner(self) -> Learner:
        """The strategy's model as a learner."""
        return as_learner(self.strategy.model)

    def begun(self) -> bool:
        """Whether it is known what rows hold; the logs of an inbox are made, if the settings say what to make.

        Raises
        ------
        ConfigError
            If the inbox holds other columns.
        SourceAway, DataError
            If it cannot be written.
        """
        if self.inbox is None or ready(self.inbox):
            return True
        if self.columns is None:
            return False
        InboxLogs.open(self.inbox, self.stream, self.columns).close()
        return True

    def load(self, blob: bytes) -> Learner:
        """A learner of this deployment from what the ledger kept; raises ``FormatError`` if it cannot be trusted."""
        return self.learner.load(blob, self.trust.recorded(sha256(blob)))

    def engine(self, schema: Any, trainer: Trainer, label_type: str) -> Engine:
        """A fresh engine; raises what the gate's slices and its golden set refuse of the stream's columns."""
        learner, golden = self.learner, None
        if isinstance(self.gate, PairedGate) and not self.observe:
            self.gate.check_columns(schema, whole=False)
            if self.gate.golden is not None:
                golden = read_labelled(self.gate.golden.file, self.stream, schema, label_type, learner.task)
        known: tuple[Label, ...] = (False, True) if learner.task == "classification" and label_type == "bool" else ()
        return Engine(
            Observing(self.strategy) if self.observe else self.strategy,
            learner,
            schema=schema,
            trainer=trainer,
            label_delay=least_delay(self.stream),
            train_latency=self.train_latency,
            label_wait=self.stream.waits,
            seed=self.seed,
            gate=None if self.observe else self.gate,
            quality=replace(self.quality, discreet=True) if self.forgets else self.quality,
            classes=known,
            forgets=self.forgets,
            prices=self.prices,
            golden=golden,
            patient=self.stream.served,
        )

    def identity(self) -> dict[str, str | None]:
        """Digests of what a running deployment does not change unawares; None for a part that cannot be hashed."""
        about = self.stream.describe()
        del about["source"], about["name"]
        try:
            model: str | None = digest(self.learner.identity())
        except Unhashable:
            model = None
        return {
            "model, or a library of its": model,
            "strategy": digest(str(self.strategy)),
            "stream": digest(canonical(about)),
            "seed": digest(str(self.seed)),
        }
