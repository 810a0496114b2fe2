"""One turn: join, score, trigger, train, gate, predict.

The engine is the same in a backtest and in production. It is deterministic: same state, same input, same turn. It
reads no clock and touches no disk; CPU time is measured by the trainer it is given and decides nothing.

::

    batch -> join labels  -> score    -> gate    -> trigger -> train -> propose -> predict -> Turn
             known by its    what was    verdict    decision   new      promote    the batch
             start           predicted   + reason   + reason   version  or show    (and beside it, unseen)

A verdict needs labels and comes before the training of its turn: what is promoted has been watched, and has learned
nothing since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, DataError, LearnerError
from perennial.core.features import Features, Kind, Schema
from perennial.core.identity import IDENTITY_FORMAT, Unhashable, digest, seed_from
from perennial.core.protocols import (
    Accounts,
    Cut,
    Facts,
    Gate,
    GoldenSet,
    Interleaved,
    Keep,
    Learner,
    LearnsUnlabelled,
    Plan,
    Sized,
    Summable,
    Trained,
    Trainer,
    Updatable,
)
from perennial.core.records import (
    Adopt,
    Appoint,
    Batch,
    Close,
    Decision,
    Examples,
    Joined,
    Label,
    Lesson,
    Loss,
    Predicted,
    Prediction,
    Revisions,
    Said,
    Tick,
    Turn,
    Verdict,
    Version,
    align,
)
from perennial.core.state import Fetch, State
from perennial.core.times import NEVER, micros, moment, spell
from perennial.gate import Gate as PairedGate
from perennial.gate import Level, Margin, NoGate, trial_margin
from perennial.gate.trial import Line, Trial
from perennial.metrics.losses import LARGEST_LOSS, bounded, pointwise
from perennial.metrics.money import Prices
from perennial.strategies import Situation, Strategy
from perennial.stream import answered, apart
from perennial.stream.blocks import BlockSums
from perennial.stream.book import Book
from perennial.stream.pending import Pending, PendingBatch
from perennial.stream.quality import Quality

Event = Batch | Tick | Appoint | Adopt | Close

#: updates that fail in a row until their examples are given up: one may want more rows, a poisoned one never ends
UPDATE_TRIES = 3


@final
class Engine:
    """Keeps one model current over a stream, one turn at a time.

    Parameters
    ----------
    strategy : Strategy
        When to do which training.
    learner : Learner
        The strategy's model, wrapped; an ``Updatable`` where the strategy updates.
    schema : Schema
        The stream's features.
    trainer : Trainer
        Does the trainings: the edge where work is shared and CPU time is measured.
    label_delay : timedelta
        How long every label takes at least: windows end that much before the cut.
    train_latency : timedelta
        How long after its training a version may serve.
    label_wait : timedelta
        How long after its event a row that came without a label may still get one from a log: rows are held that long.
    seed : int
        The base seed of all trainings and draws.
    gate : Gate, optional
        Champion against challenger; every version is promoted unless given.
    quality : Quality, optional
        What a batch must hold to be learned from; anything unless given.
    classes : sequence
        Classes known before any label is: those of a boolean label.
    forgets : bool
        Let go of every row as soon as it was learned or can be no more, and quote no error of a framework, which may
        quote a row. For strategies that never fit a window again.
    prices : Prices, optional
        What a mistake and a training cost, for the margin of a gate that states none.
    golden : GoldenSet, optional
        The rows of the gate's golden set, where it has one.
    patient : bool
        Wait with the first training until there are labels to learn from, instead of raising an error.

    Raises
    ------
    ConfigError
        If the gate has a golden set, and its rows are not given, or asks what strategy or learner cannot give.
    LearnerError
        If the strategy updates and the learner cannot.
    """

    def __init__(
        self,
        strategy: Strategy,
        learner: Learner,
        *,
        schema: Schema,
        trainer: Trainer,
        label_delay: timedelta = timedelta(0),
        train_latency: timedelta = timedelta(0),
        label_wait: timedelta = timedelta(0),
        seed: int = 0,
        gate: Gate | None = None,
        quality: Quality | None = None,
        classes: Sequence[Label] = (),
        forgets: bool = False,
        prices: Prices | None = None,
        golden: GoldenSet | None = None,
        patient: bool = False,
    ) -> None:
        check_can_update(strategy, learner)
        check_gate(gate, strategy, learner)
        if isinstance(gate, PairedGate) and gate.golden is not None and golden is None:
            raise ConfigError(
                "golden", None, f"give the rows of {gate.golden.file}: the gate holds challengers to them"
            )
        self._strategy = strategy
        self._learner = learner
        self._schema = schema
        self._trainer = trainer
        self._label_delay = micros(label_delay)
        self._latency = micros(train_latency)
        self._wait = micros(label_wait)
        self._seed = seed
        self._gate = None if gate is None or gate.mode == "none" else gate
        self._golden, self._prices = golden, prices
        held_out = self._gate.held_out if isinstance(self._gate, PairedGate) else None
        self._held_out = 0 if held_out is None else micros(held_out)
        self._levels = isinstance(self._gate, PairedGate) and self._gate.margin is None
        self._level = Level()  # of what served: margins are set by it
        self._quality = quality or Quality()
        self._forgets, self._patient = forgets, patient
        self._identity = _identity(learner)
        self._unlabelled = isinstance(learner, LearnsUnlabelled)
        self._sums = BlockSums(learner) if isinstance(learner, Summable) else None

        self._book = Book(schema, learner.task, classes)
        self._turns = 0
        self._begun: int | None = None  # start of the first batch
        self._seen = 0  # rows that arrived
        self._initial_rows: int | None = None  # position of the first row after the initial period
        self._state = strategy.start()
        self._anchor = 0
        self._tip: Line | None = None  # newest trained
        self._champion: Line | None = None  # serving
        self._started: Version | None = None  # an untrained start that no turn has told yet
        self._waiting: list[Line] = []  # promoted, not yet ready
        self._trial: Trial | None = None
        self._trials = 0
        self._highest: dict[int, int] = {}  # MINOR of the newest version of each line, rejected ones too
        self._rejections = 0
        self._failures = 0  # updates that failed in a row
        self._fit_at = self._trained_at = 0
        self._since_fit = self._since_training = 0  # examples labelled since
        self._unlearned: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._pending = Pending()
        self._given_up_at = 0

    @property
    def classes(self) -> tuple[Label, ...]:
        """The class table: append-only, in order of first known label."""
        return tuple(self._book.classes)

    def advance(self, event: Event) -> Turn:
        """Take one batch, tick or the end of a recording, and say everything that happened.

        Raises
        ------
        DataError
            If the first training has no example, or only one class, and the engine is not patient.
        ConfigError
            If a model is adopted and there is one.
        LearnerError
            If the first training or a prediction fails, or an update among rows that share a turn. Any other training
            that fails is recorded and changes no model.
        """
        turn = self._apart(event) if isinstance(event, Batch) and event.apart else self._together(event)
        self._turns += 1
        return turn

    def deliver(self, revisions: Revisions, label_values: Sequence[Label]) -> None:
        """Take in labels that no batch brings, such as those that came after the last one.

        They are joined in the turn in which they are known. ``label_values`` is the batches' own list, or longer.
        """
        self._book.revise(revisions, label_values)

    def acts(self, now: int) -> bool:
        """Whether a tick at ``now`` would do something though no label came: train, settle a trial, seat a version."""
        if any(line.version.ready_at <= now for line in self._waiting):
            return True
        trial, challenger = self._trial, self._challenger
        if trial is not None and challenger is not None and trial.judge(now, challenger.version).outcome != "keep":
            return True
        turn = Turn(index=self._turns, now=now, rows=0, joined=self._none(), loss=Loss())
        if self._tip is None:
            return self._begun is not None and self._first_is_due(now)[0] and bool(len(self._book.usable()))
        action = self._strategy.plan(self._state, self._situation(turn))[0].action
        if action == "fit":
            return self._since_fit > 0 and not self._another_line_on_trial()
        return action == "update" and len(self._unlearned) > 0

    # ------------------------------------------------------------------ checkpoints

    @property
    def chunks(self) -> set[str]:
        """Names of the chunks of rows that a later turn may ask for: what a store must keep."""
        return self._book.chunks

    @property
    def serving(self) -> str | None:
        """The version that answers."""
        return _number(self._champion)

    @property
    def account(self) -> Mapping[str, Any] | None:
        """What the newest model tells of its experts; None if it has none."""
        model = None if self._tip is None else self._tip.model
        return model.account() if isinstance(model, Accounts) else None

    @property
    def golden(self) -> GoldenSet | None:
        """The rows of the gate's golden set, where it has one."""
        return self._golden

    def erase(self, position: NDArray[np.int64], renamed: Mapping[str, str]) -> None:
        """Rows that are learned by nothing from now on, and whose labels are forgotten.

        ``renamed`` says what the store has in place of their chunks. What was learned from them before stays learned.
        """
        self._book.erase(position, renamed)
        self._unlearned = self._unlearned[~np.isin(self._unlearned, position)]

    def wanted(self, now: int) -> NDArray[np.int64]:
        """Ascending positions of the rows that a training may still learn, for strategies that never fit again.

        Before the first fit these are all that have a label or may get one; then those that the next update learns, or
        a later one once their label comes.
        """
        since = now - self._wait if self._wait else None
        if self._tip is None:
            return np.union1d(self._book.usable(unlabelled=self._unlabelled), self._book.coming(since))
        if not self._strategy.updates:
            return np.empty(0, dtype=np.int64)
        return np.union1d(self._unlearned, self._book.coming(since))

    def thin(self, wanted: NDArray[np.int64], renamed: Mapping[str, str], *, closed: bool = False) -> None:
        """Forget the labels of all rows but the wanted, and those on their way where the recording is ``closed``.

        ``renamed`` says what the store has in place of chunks.
        """
        self._book.unlabel(wanted)
        if closed:
            self._book.expect_nothing()
        self._book.rename(renamed)

    def last_label(self) -> int:
        """The instant by which every label that is on its way is known; the lowest there is if none is."""
        return self._book.last_due()

    def state(self) -> State:
        """Everything that the next turn depends on, besides settings and rows: see :meth:`restore`."""
        lines = {line.version.number: line for line in self._lines()}
        plain: dict[str, Any] = {name: getattr(self, f"_{name}") for name in _PLAIN}
        plain |= {
            "strategy": self._state,
            "highest": [list(pair) for pair in self._highest.items()],
            "versions": {number: asdict(line.version) for number, line in lines.items()},
            "tip": _number(self._tip),
            "champion": _number(self._champion),
            "waiting": [line.version.number for line in self._waiting],
            "level": asdict(self._level),
            "trial": None if self._trial is None else self._trial.state(),
            "started": None if self._started is None else self._started.number,
        }
        own = State(
            plain=plain,
            arrays={"unlearned": self._unlearned},
            models={number: line.model for number, line in lines.items()},
        )
        return State.join(own, self._book.state().under("book"), self._pending.state().under("pending"))

    def restore(self, state: State, label_values: Sequence[Label], fetch: Fetch) -> None:
        """Go on from a state that an engine of the same settings gave, as if it had never stopped.

        A gate may have other settings: a trial under the old ones is then over without a verdict.

        Parameters
        ----------
        state : State
            With the model of every version that it names.
        label_values : sequence
            The list that label codes of the next batches mean.
        fetch : callable
            Gives the chunks of rows that are still in play, by name.
        """
        plain = state.plain
        for name in _PLAIN:
            setattr(self, f"_{name}", plain[name])
        self._state = plain["strategy"]
        self._highest = dict(plain["highest"])
        lines = {n: Line(Version(**facts), state.models[n]) for n, facts in plain["versions"].items()}
        self._tip = lines[plain["tip"]] if plain["tip"] else None
        self._champion = lines[plain["champion"]] if plain["champion"] else None
        self._waiting = [lines[number] for number in plain["waiting"]]
        self._level = Level(**plain["level"])
        self._trial = None
        if plain["trial"] is not None and self._gate is not None:
            self._trial = Trial.restore(plain["trial"], self._gate, lines, self._golden)
        self._started = None if plain["started"] is None else lines[plain["started"]].version
        self._unlearned = state.arrays["unlearned"]
        self._book.restore(state.part("book"), label_values, fetch)
        self._pending.restore(state.part("pending"), self._book.classes)

    # ------------------------------------------------------------------ the turn

    def _together(self, event: Event, *, judged: bool = True) -> Turn:
        now = event.start if isinstance(event, Batch) else event.now
        batch = event if isinstance(event, Batch) else None
        if isinstance(event, Appoint):
            return self._appoint(event)
        if isinstance(event, Adopt):
            return self._adopt(event)
        if batch is not None:
            self._begin(batch)
            if batch.revisions is not None:
                self._book.revise(batch.revisions, batch.label_values)
        joined, unfit = self._join(now)
        loss = self._score(joined)
        bad = self._quality.fault(batch) if batch is not None and judged else None
        turn = Turn(
            index=self._turns,
            now=now,
            rows=len(batch) if batch else 0,
            joined=joined,
            loss=loss,
            quarantined=unfit,
        )
        turn = self._judge(turn)
        if not isinstance(event, Close):
            turn = self._train(turn)
        self._seat(now)
        if batch is not None:
            turn = self._predict(turn, batch, unfit=bad is not None)
            self._book.arrive(batch, learnable=bad is None)
            self._seen += len(batch)
            if self._unlabelled and self._strategy.updates and self._tip is not None and bad is None:
                # learned without a label by the next update, unless it comes before; and with it when it comes
                self._unlearned = np.append(self._unlearned, np.arange(batch.first, batch.first + len(batch)))
        return self._end(_quarantined(turn, bad), batch)

    def _begin(self, batch: Batch) -> None:
        if self._begun is None:
            self._begun = batch.start
            if self._tip is not None:  # adopted: calendars count from the first row, as from a first training
                self._anchor = self._fit_at = self._trained_at = batch.start
                version = self._tip.version
                self._tip.version = replace(version, ready_at=min(version.ready_at, batch.start))
            elif self._strategy.initial is None:
                self._start_untrained(batch)

    def _end(self, turn: Turn, batch: Batch | None) -> Turn:
        self._pending.let_go(turn.now)
        self._give_up(turn.now)
        if self._started is not None:
            turn, self._started = replace(turn, trained=(self._started, *turn.trained)), None
        champion = self._champion
        return replace(
            turn,
            serving=champion.version.number if champion else None,
            challenger=self._challenger.version.number if self._challenger is not None else None,
            late=int(batch.late.sum()) if batch is not None and batch.late is not None else 0,
            classes=self.classes,
            kept_bytes=self._book.nbytes,
            staleness=turn.now - champion.version.newest if champion and champion.version.newest else None,
        )

    # ------------------------------------------------------------------ join and score

    def _join(self, now: int) -> tuple[Joined, str | None]:
        """Labels known by ``now``, and why some of them must not be learned."""
        joined = self._book.due(now)
        unfit = self._judge_labels(joined, now) if self._quality.judges_labels else None
        new = joined.position[~joined.revised]
        self._since_fit += len(new)
        self._since_training += len(new)
        if self._strategy.updates and self._tip is not None and len(new):
            new = new[self._book.learnable(new)]
            before = self._unlearned
            self._unlearned = np.union1d(before, new) if self._unlabelled else np.concatenate([before, new])
        if self._sums is not None and joined.revised.any():
            self._sums.forget(joined.position[joined.revised])
        return joined, unfit

    def _judge_labels(self, joined: Joined, now: int) -> str | None:
        due = self._book.came_due(now - self._label_delay)
        missing = self._quality.missing_fault(len(due), int(self._book.known(due).sum()))
        if missing is not None:
            self._book.quarantine(due)
        rate = self._quality.rate_fault(joined, self.classes)
        if rate is not None:
            self._book.quarantine(joined.position[~joined.revised])
        return "; ".join(fault for fault in (missing, rate) if fault) or None

    def _none(self) -> Joined:
        return self._book.due(-NEVER)

    def _score(self, joined: Joined) -> Loss:
        """Losses of what the current line had predicted of examples that were just joined.

        The current line is the newest that was promoted: a challenger that was rejected has predicted nothing.
        """
        current = self._newest
        if not len(self._pending) or not len(joined.position) or current is None:
            return Loss()
        fresh = ~joined.revised
        order = np.argsort(joined.position[fresh], kind="stable")
        position = joined.position[fresh][order]
        labels = joined.codes if joined.codes is not None else joined.values
        assert labels is not None
        labels = labels[fresh][order]
        n, total, name = 0, 0.0, ""
        for batch, part in self._pending.labelled(position):
            if batch.shadow is not None:
                self._compare(batch, position[part], labels[part])
            at, truth, major = position[part] - batch.first, labels[part], current.version.major
            if batch.majors is not None:  # what another line answered is not the current one's
                mine = batch.majors[at] == major
                at, truth = at[mine], truth[mine]
            elif batch.major != major:
                continue
            rows = _rows_of(batch.prediction, at)
            losses, name = pointwise(rows, truth, self.classes)
            losses = losses[losses <= LARGEST_LOSS]
            n, total = n + len(losses), total + float(losses.sum())
            if self._levels:
                compared, loss = bounded(rows, truth, self.classes)
                self._level = self._level.add(major, compared[compared <= LARGEST_LOSS], loss)
        return Loss(n=n, total=total, name=name)

    # ------------------------------------------------------------------ gate

    @property
    def _newest(self) -> Line | None:
        """The line that was promoted last, whether or not it is ready to serve."""
        return self._waiting[-1] if self._waiting else self._champion

    @property
    def _challenger(self) -> Line | None:
        """The newest version of the line on trial."""
        if self._trial is None or self._gate is None:
            return None
        return self._trial.shown[0] if self._gate.mode == "before" else self._newest

    def _compare(self, batch: PendingBatch, position: NDArray[np.int64], labels: NDArray[Any]) -> None:
        """Give rows to the trial that both lines had predicted before either learned them."""
        trial = self._trial
        if trial is None or batch.trial != trial.number:
            return
        assert batch.shadow is not None
        assert batch.time is not None
        at = position - batch.first
        trial.add(
            _rows_of(batch.prediction if batch.served is None else batch.served, at),
            _rows_of(batch.shadow, at),
            labels,
            self.classes,
            time=batch.time[at],
            position=position,
            sound=~self._book.quarantined(position),  # a broken feed promotes nobody
            members=None if batch.members is None else batch.members[at],
        )

    def _judge(self, turn: Turn) -> Turn:
        """The gate's verdict on the line on trial, as far as labels are known."""
        trial, challenger = self._trial, self._challenger
        if trial is None or challenger is None or self._gate is None:
            return turn
        verdict = trial.judge(turn.now, challenger.version)
        if verdict.outcome != "keep":
            self._trial = None
        if verdict.outcome == "promote":
            self._rejections = 0
            if self._gate.mode == "before":
                self._waiting.append(challenger)
        elif verdict.outcome == "reject":
            self._reject(trial)
        return replace(turn, verdicts=(*turn.verdicts, verdict))

    def _reject(self, trial: Trial) -> None:
        assert self._gate is not None
        self._rejections += 1
        self._failures = 0
        if self._gate.mode == "after":
            self._champion, self._waiting = trial.base, []
        if self._gate.on_reject == "back" or not self._strategy.updates:
            self._tip = trial.base  # the next update continues it; what the rejected versions had learned is lost to it

    def _turn_down(self, turn: Turn, trial: Trial, line: Line, against: Line, error: DataError | LearnerError) -> Turn:
        """A line on trial that cannot predict is rejected, whatever the evidence so far."""
        self._trial = None
        self._reject(trial)
        version, champion = line.version.number, against.version.number
        verdict = Verdict(outcome="reject", version=version, reason=self._told(error), champion=champion)
        return replace(turn, verdicts=(*turn.verdicts, verdict))

    def _appoint(self, event: Appoint) -> Turn:
        """An operator's word is a turn of its own: labels wait for the next."""
        turn = Turn(index=self._turns, now=event.now, rows=0, joined=self._none(), loss=Loss())
        held = {line.version.number: line for line in self._lines()}
        line = held.get(event.version.number) or Line(event.version, event.model)
        self._champion, self._waiting, self._trial = line, [], None
        self._rejections = self._failures = 0
        self._tip = line
        return self._end(_decided(turn, f"{line.version.number} made champion: {event.reason}", fire=True), None)

    def _adopt(self, event: Adopt) -> Turn:
        """A model from elsewhere is the first champion: a turn of its own, before the first row."""
        if self._begun is not None or self._tip is not None:
            raise ConfigError("adopt", event.reason, "a model is adopted before the first row, and only once")
        version = Version(
            major=1, minor=0, parent=None, kind="adopt", at=event.now, ready_at=event.now, trained_rows=0,
            row_trees=0, first=-1, last=-1, newest=0, data=digest(), reason=event.reason,
            key=digest(str(IDENTITY_FORMAT), "adopt", self._identity or self._learner.name, event.model.digest()),
        )  # fmt: skip
        self._book.know(event.classes)
        self._initial_rows = 0
        self._highest[1] = 0
        self._tip = self._champion = Line(version, event.model)
        turn = Turn(index=self._turns, now=event.now, rows=0, joined=self._none(), loss=Loss(), trained=(version,))
        return self._end(_decided(turn, event.reason, fire=True), None)

    def _lines(self) -> list[Line]:
        """Every line whose model is held."""
        tried = [self._trial.base, *self._trial.shown] if self._trial else []
        lines = [self._tip, self._champion, *self._waiting, *tried]
        return [line for line in lines if line is not None]

    def _seat(self, now: int) -> None:
        """The newest promoted version that is ready becomes the champion."""
        ready = [line for line in self._waiting if line.version.ready_at <= now]
        if ready:
            self._champion = ready[-1]
            self._waiting = [line for line in self._waiting if line.version.ready_at > now]

    # ------------------------------------------------------------------ trigger, train

    def _situation(self, turn: Turn) -> Situation:
        fresh = int((~turn.joined.revised).sum())
        scored = self._newest.version if self._newest is not None else None
        fitted = scored is None or scored.major == max(self._highest)
        common = Facts(
            now=turn.now,
            anchor=self._anchor,
            trained_at=self._trained_at,
            labelled=self._since_training,
            fresh=fresh,
            loss=turn.loss,
            rejections=self._rejections,
            own=fitted and (scored is None or scored.minor == self._highest[scored.major]),
        )
        since_fit = replace(common, trained_at=self._fit_at, labelled=self._since_fit, own=fitted)
        return Situation(since_training=common, since_fit=since_fit)

    def _train(self, turn: Turn) -> Turn:
        if self._tip is None:
            return self._train_first(turn)
        situation = self._situation(turn)
        plan, state = self._strategy.plan(self._state, situation)
        turn = replace(turn, decisions=plan.decisions)
        if plan.action == "fit" and self._another_line_on_trial():
            assert self._challenger is not None
            turn = _decided(turn, f"a new model waits: {self._challenger.version.number} is still on trial")
            plan = replace(plan, action=plan.otherwise)
        if plan.action == "fit":
            turn = self._fit(turn, plan)
        elif plan.action == "update":
            turn = self._update(turn, plan)
        self._state = self._strategy.trained(state, plan.action, situation) if turn.trained else state
        return turn

    def _another_line_on_trial(self) -> bool:
        """Whether a fit would cut short the trial of a former fit: one challenger line at a time, or none is judged.

        Where challengers serve at once, a fresh one takes over all the same, held against the last that passed.
        """
        trial, gate = self._trial, self._gate
        if trial is None or gate is None or gate.mode == "after":
            return False
        return trial.major != trial.base.version.major

    def _train_first(self, turn: Turn) -> Turn:
        if self._begun is None:
            return turn
        due, waits = self._first_is_due(turn.now)
        if not due:
            return replace(turn, decisions=(Decision(False, waits),))
        self._initial_rows = self._seen
        self._anchor = turn.now
        decision = Decision(True, "end of the initial period")
        turn = self._fit(replace(turn, decisions=(decision,)), Plan(action="fit", decisions=(decision,)))
        if self._tip is None:  # it waits for labels
            self._initial_rows = None
            return turn
        self._state = self._strategy.start()
        return turn

    def _first_is_due(self, now: int) -> tuple[bool, str]:
        """Whether the initial period is over, and up to when it lasts, in words."""
        initial = self._strategy.initial
        assert initial is not None, "an untrained start has a version from the first row on"
        if isinstance(initial, int):
            return self._seen >= initial, f"{self._seen:,} of {initial:,} initial rows"
        assert self._begun is not None
        until = self._begun + micros(initial)
        return now >= until, f"initial period until {moment(until):%Y-%m-%d %H:%M}"

    def _start_untrained(self, batch: Batch) -> None:
        assert isinstance(self._learner, Updatable)
        self._anchor = self._fit_at = self._trained_at = batch.start
        self._initial_rows = 0
        version = Version(
            major=1, minor=0, parent=None, kind="start", at=batch.start, ready_at=batch.start, trained_rows=0,
            row_trees=0, first=-1, last=-1, newest=0, data=digest(), reason="starts untrained",
            key=digest(str(IDENTITY_FORMAT), "start", self._identity or self._learner.name),
        )  # fmt: skip
        self._started = version
        self._highest[1] = 0
        model = self._learner.begin()
        if self.classes and isinstance(model, Interleaved):  # tell it the classes that are known before any label is
            none = np.empty(0, dtype=np.int64)
            model.interleave(self._book.examples(none), batch.features.slice(0, 0), none, 0)
        self._tip = self._champion = Line(version, model)

    def _fit(self, turn: Turn, plan: Plan) -> Turn:
        first = self._tip is None
        cut = self._book.cut(
            turn.now,
            initial=self._initial_rows or 0,
            label_delay=self._label_delay,
            seed=self._seed,
            unlabelled=self._unlabelled,
        )
        held: NDArray[np.int64] = np.empty(0, np.int64)
        if self._held_out and not first:
            cut, held = self._hold_out(cut)
        chosen = self._strategy.window.select(cut)
        position = cut.position[chosen.index]
        if not len(position):
            if first and not self._patient:
                raise DataError(self._empty(turn.now, len(cut.position)))
            return _decided(turn, f"{plan.reason}: nothing to learn, {self._strategy.window} is empty")
        examples = self._book.examples(position, chosen.weights)
        if first and not self._patient:
            _check_classes(examples)
        elif first and (only := _only_class(examples)) is not None:
            return _decided(turn, f"{plan.reason}: too early, all {len(examples):,} examples are {only!r}")
        elif self._initial_rows == 0 and len(self._highest) == 1 and (only := _only_class(examples)) is not None:
            # the first fit after an adoption has no initial period that would have gathered examples for it
            return _decided(turn, f"{plan.reason}: too early, all {len(examples):,} examples are {only!r}")
        template = self._learner
        key, seed = self._key("fit", self._identity, examples)
        grid = self._sums
        summed = grid is not None and examples.weights is None

        def make() -> Learner:
            if summed and grid is not None:
                return grid.fit(position, examples)
            return template.fit(examples, seed)

        # block sums depend, in the last bit, on where the grid of blocks lies: such a model is not shared
        trained = self._try(turn, make, None if summed else key, first and not self._patient)
        if isinstance(trained, str):
            self._rejections += 1
            return _note(turn, f"{plan.reason}: training failed, the champion stays: {trained}")
        before = self._replaced()
        version = Version(
            major=max(self._highest, default=0) + 1,
            minor=0,
            parent=before.number if before else None,
            kind="fit",
            at=turn.now,
            ready_at=turn.now + self._latency,
            trained_rows=len(examples),
            row_trees=trained.model.row_trees(len(examples)),
            first=int(position.min()),
            last=int(position.max()),
            newest=int(examples.time.max()),
            data=examples.identity,
            key=key,
            reason=plan.reason,
        )
        self._fit_at = self._trained_at = turn.now
        self._since_fit = self._since_training = 0
        if self._strategy.updates:  # what the window left out because it is too new waits for an update
            newer = cut.position[cut.position > position[-1]]
            self._unlearned = newer if self._unlabelled else newer[self._book.learnable(newer)]
        turn = self._taught(turn, version, position, chosen.weights, seed)
        line = Line(version, trained.model)
        return self._examine(self._propose(turn, line, trained), line, held)

    def _hold_out(self, cut: Cut) -> tuple[Cut, NDArray[np.int64]]:
        """The cut as of an earlier instant, and the positions that became too new for it: no window reaches them."""
        now = cut.now - self._held_out
        newer = cut.time >= now - cut.label_delay
        old = ~newer
        earlier = replace(cut, now=now, position=cut.position[old], time=cut.time[old], rows=cut.rows[old])
        return earlier, cut.position[newer]

    def _examine(self, turn: Turn, line: Line, held: NDArray[np.int64]) -> Turn:
        """Evidence at once from rows that a fit left out and the champion never learned, and the verdict on it."""
        trial = self._trial
        if trial is None:
            return turn
        held = held[held > trial.base.version.last]
        if not len(held):
            return turn
        rows, before = self._book.examples(held), self._trainer.cpu_seconds()
        try:
            champion = self._answer(trial.base, rows.features, int(held[0]), int(rows.time[0]))
        except (DataError, LearnerError) as error:
            return _note(turn, f"held-out rows tell nothing: {self._told(error)}")
        try:
            challenger = self._answer(line, rows.features, int(held[0]), int(rows.time[0]))
        except (DataError, LearnerError) as error:
            return self._turn_down(turn, trial, line, trial.base, error)
        both = (champion, challenger) if trial.gate.mode == "before" else (challenger, champion)
        labels = rows.codes if rows.codes is not None else rows.values
        assert labels is not None
        trial.add(
            *both,
            labels,
            self.classes,
            time=rows.time,
            position=held,
            sound=np.ones(len(held), dtype=np.bool_),  # what is quarantined is in no cut
            members=self._members(rows.features),
        )
        trial.held_out = len(held)
        note = trial.measure(line, rows.features, self._trainer)
        turn = turn if note is None else _note(turn, note)
        seconds = self._trainer.cpu_seconds() - before
        return self._judge(replace(turn, predict_cpu_seconds=turn.predict_cpu_seconds + seconds))

    def _members(self, features: Features) -> NDArray[np.bool_] | None:
        """Which rows belong to which slice; None if the gate has none."""
        gate = self._gate
        return gate.members(features) if isinstance(gate, PairedGate) and gate.slices else None

    def _taught(
        self, turn: Turn, version: Version, position: NDArray[np.int64], weights: NDArray[np.float64] | None, seed: int
    ) -> Turn:
        lesson = Lesson(
            version=version.number, position=position, weights=weights, classes=len(self.classes), seed=seed
        )
        return replace(turn, lessons=(*turn.lessons, lesson))

    def _replaced(self) -> Version | None:
        """The version that a new fit would replace: the newest, or where a gate decides, the newest it let through."""
        line = self._tip if self._gate is None else self._newest
        return line.version if line is not None else None

    def _update(self, turn: Turn, plan: Plan) -> Turn:
        tip = self._tip
        assert tip is not None
        if self._unlabelled:  # what was found unfit since it came is not learned
            self._unlearned = self._unlearned[self._book.kept(self._unlearned)]
        position = self._unlearned
        if not len(position):
            return _decided(turn, f"{plan.reason}: nothing to learn, no label came since the last update")
        examples = self._book.examples(position)
        model = self._own_copy(tip)
        key, seed = self._key("update", tip.version.key, examples)

        def make() -> Learner:
            model.update(examples, seed)
            return model

        safe = model.save() if model is tip.model else None
        trained = self._try(turn, make, key, False)
        if isinstance(trained, str):
            if safe is not None:  # it may have learned a part before it failed
                tip.model = model.load(safe)
            return self._failed_update(turn, f"{plan.reason}: update failed: {trained}")
        self._failures = 0
        version = self._next_minor(turn, examples, position, key, plan.reason, 1)
        version = replace(version, row_trees=trained.model.row_trees(len(examples)))
        self._unlearned = self._unlearned[:0]
        self._trained_at = turn.now
        self._since_training = 0
        turn = self._taught(turn, version, position, None, seed)
        return self._propose(turn, Line(version, trained.model), trained)

    def _failed_update(self, turn: Turn, what: str) -> Turn:
        """The line stays as it was; its examples wait for the next update, and are given up if that goes on failing."""
        self._rejections += 1
        self._failures += 1
        if self._failures < UPDATE_TRIES:
            return _note(turn, f"{what}; its {len(self._unlearned):,} rows wait for the next update")
        self._failures = 0
        self._book.quarantine(self._unlearned)
        fault = f"{len(self._unlearned):,} rows failed to be learned {UPDATE_TRIES} times in a row"
        self._unlearned = self._unlearned[:0]
        return _quarantined(_note(turn, f"{what}; its rows are given up"), fault)

    def _own_copy(self, tip: Line) -> Updatable:
        """The model to update: the tip itself, or a copy where an older state of it still serves or may."""
        assert isinstance(tip.model, Updatable)
        ahead = self._champion is not None and self._champion.version is not tip.version
        judged = self._gate is not None  # what the gate turns down must not have touched the champion
        return tip.model.load(tip.model.save()) if ahead or judged or self._latency > 0 else tip.model

    def _next_minor(
        self,
        turn: Turn,
        examples: Examples,
        position: NDArray[np.int64],
        key: str | None,
        reason: str,
        steps: int,
    ) -> Version:
        assert self._tip is not None
        before = self._tip.version
        return Version(
            major=before.major,
            minor=max(before.minor, self._highest.get(before.major, 0)) + steps,
            parent=before.number,
            kind="update",
            at=turn.now,
            ready_at=turn.now + self._latency,
            trained_rows=len(examples),
            row_trees=0,
            first=int(position.min()),
            last=int(position.max()),
            newest=max(before.newest, int(examples.time.max())),
            data=examples.identity,
            key=key,
            reason=reason,
            steps=steps,
        )

    def _key(self, what: str, parent: str | None, examples: Examples) -> tuple[str | None, int]:
        """Key and seed of a training: from what learns and what is learned; no key if what learns cannot be told."""
        content = (examples.identity, repr(examples.classes), *_words_in(examples))
        whole = digest(str(IDENTITY_FORMAT), what, parent or self._learner.name, str(self._seed), *content)
        return (whole if parent is not None else None), seed_from(str(self._seed), whole)

    def _try(self, turn: Turn, make: Callable[[], Learner], key: str | None, must: bool) -> Trained | str:
        try:
            return self._trainer.obtain(key, self._learner, make)
        except (DataError, LearnerError) as error:
            if must:
                raise
            return self._told(error)
        except Exception as error:  # a framework may raise anything; the champion must outlive it
            what = f"{self._learner.name} failed to train at {moment(turn.now):%Y-%m-%d %H:%M}"
            if must:
                raise LearnerError(f"{what}: {error}") from error
            return f"{what}: {self._told(error)}"

    def _told(self, error: Exception) -> str:
        """An error in the words of the record."""
        return f"{type(error).__name__}, whose words may quote rows and are not kept" if self._forgets else str(error)

    def _propose(self, turn: Turn, line: Line, trained: Trained) -> Turn:
        """Without a gate it is promoted; with one it goes on trial, unless there is nothing to hold it against."""
        self._highest[line.version.major] = line.version.minor
        before, self._tip = self._newest, line
        for note in getattr(line.model, "notes", ()):  # what a framework could not do, in words
            turn = _note(turn, f"{line.version.number}: {note}")
        if self._gate is None or before is None or before.version.kind == "start":
            self._rejections = 0
            self._waiting.append(line)
            verdict = self._unjudged(line.version, before.version if before else None)
        else:
            verdict = self._try_out(line, before, turn.now, self._gate)
        return replace(
            turn,
            trained=(*turn.trained, line.version),
            verdicts=(*turn.verdicts, verdict),
            train_cpu_seconds=turn.train_cpu_seconds + trained.cpu_seconds,
            shared_trainings=turn.shared_trainings + trained.shared,
        )

    def _try_out(self, line: Line, before: Line, now: int, gate: Gate) -> Verdict:
        """Put a line on trial, or go on with its trial: evidence adds up over its MINORs."""
        trial = self._trial
        if trial is None or trial.major != line.version.major:
            base = before if trial is None else trial.base
            self._trials += 1
            margin, major = self._margin(), line.version.major
            trial = Trial.begin(gate, self._trials, major, base, now, golden=self._golden, margin=margin)
            self._trial = trial
        if gate.mode == "after":
            self._waiting.append(line)
        else:
            trial.shown.append(line)
        return trial.opening(line.version.number)

    def _margin(self) -> Margin | None:
        """The margin of a trial that begins, from what was scored before it."""
        if not isinstance(self._gate, PairedGate):
            return None
        trainings = sum(self._highest.values()) + len(self._highest) - 1  # since the first
        return trial_margin(
            self._gate.margin,
            task=self._learner.task,
            level=self._level,
            prices=self._prices,
            predictions=(self._seen - (self._initial_rows or 0)) / max(trainings, 1),
            update=self._strategy.updates,
        )

    def _unjudged(self, version: Version, before: Version | None) -> Verdict:
        """What is said of a version that no gate judges: there is none, or nothing to hold the version against."""
        if self._gate is None:
            return NoGate().judge(version, before)
        reason = f"{version.number} is promoted: there is no trained champion to hold it against"
        against = None if before is None else before.number
        return Verdict(outcome="promote", version=version.number, reason=reason, champion=against)

    def _empty(self, now: int, known: int) -> str:
        labels = "no label is known by then" if not known else f"{self._strategy.window} holds none of {known:,} known"
        return (
            f"the first window is empty: training is due at {moment(now):%Y-%m-%d %H:%M} UTC after {self._seen:,} "
            f"rows, but {labels}: make `initial` longer than the label delay, or the window wider"
        )

    # ------------------------------------------------------------------ predict

    def _predict(self, turn: Turn, batch: Batch, *, unfit: bool) -> Turn:
        if not len(batch):
            return turn
        if batch.said is not None:
            return self._take_said(turn, batch, batch.said)
        champion = self._champion
        if champion is None:
            return turn
        before = self._trainer.cpu_seconds()
        try:
            prediction = self._ask(champion, batch)
        except (DataError, LearnerError) as error:
            if unfit:  # rows that break a rule stop nobody
                return _note(turn, f"not predicted: {self._told(error)}")
            turn, champion = self._fall_back(turn, champion, error)
            prediction = self._ask(champion, batch)
        turn, shadow = self._ask_shadow(turn, batch, champion)
        if shadow is not None:
            turn = self._measure(turn, batch, champion)
        seconds = self._trainer.cpu_seconds() - before
        minor = np.full(len(batch), champion.version.minor, dtype=np.int32)
        return self._say(turn, batch, prediction, champion.version.major, minor, predict=seconds, shadow=shadow)

    def _take_said(self, turn: Turn, batch: Batch, said: Said) -> Turn:
        """Rows come with what was said of them, which is their prediction; the champion predicts the others.

        A model that cannot do what is left for it stops nobody: clients had their answers.
        """
        champion, told = self._champion, said.told
        prediction = answered.widened(told.prediction, self.classes)
        major, minor = told.major.copy(), told.minor.copy()
        rest = np.flatnonzero(told.major < 0)
        served = shadow = None
        before = self._trainer.cpu_seconds()
        if champion is not None:
            try:
                if len(rest):
                    own = self._answer(champion, _some(batch.features, rest), batch.first + int(rest[0]), batch.start)
                    prediction = answered.laid_over(prediction, rest, own)
                    major[rest], minor[rest] = champion.version.major, champion.version.minor
                turn, shadow = self._ask_shadow(turn, batch, champion)
                if shadow is not None and not told.by(champion.version).all():
                    served = self._ask(champion, batch)
                if shadow is not None:
                    turn = self._measure(turn, batch, champion)
            except (DataError, LearnerError) as error:
                turn, shadow = self._could_not(turn, champion, error), None
        if (major < 0).all():
            return turn
        seconds = self._trainer.cpu_seconds() - before
        return self._say(
            turn, batch, prediction, -1, minor, predict=seconds, shadow=shadow, majors=major, served=served
        )

    def _could_not(self, turn: Turn, champion: Line, error: DataError | LearnerError) -> Turn:
        """A champion that cannot predict is rolled back if it serves on trial, and else goes on."""
        trial, gate = self._trial, self._gate
        if trial is None or gate is None or gate.mode != "after" or champion is trial.base:
            return _note(turn, f"not predicted: {self._told(error)}")
        return self._turn_down(turn, trial, champion, trial.base, error)

    def _ask_shadow(self, turn: Turn, batch: Batch, champion: Line) -> tuple[Turn, Prediction | None]:
        """What the line that does not serve says of the batch; one that cannot say is turned down."""
        trial, gate = self._trial, self._gate
        if trial is None or gate is None:
            return turn, None
        line = trial.ready(turn.now) if gate.mode == "before" else trial.base
        if line is None or line is champion or line.version.ready_at > turn.now:
            return turn, None
        if gate.mode == "after" and champion.version.major != trial.major:  # its own line is not ready yet
            return turn, None
        try:
            return turn, self._ask(line, batch)
        except (DataError, LearnerError) as error:
            if gate.mode == "after":  # the old champion cannot be held against the new one any more
                self._trial = None
                return _note(turn, f"{line.version.number} can no longer be compared: {self._told(error)}"), None
            return self._turn_down(turn, trial, line, champion, error), None

    def _measure(self, turn: Turn, batch: Batch, champion: Line) -> Turn:
        """Hold the version on trial to the gate's limits, once, as soon as it predicts."""
        assert self._trial is not None
        line = self._trial.shown[0] if self._trial.gate.mode == "before" else champion
        note = self._trial.measure(line, batch.features, self._trainer)
        return turn if note is None else _note(turn, note)

    def _fall_back(self, turn: Turn, champion: Line, error: DataError | LearnerError) -> tuple[Turn, Line]:
        """A version that serves on trial and cannot predict is rolled back; raises if there is none to go to."""
        trial, gate = self._trial, self._gate
        if trial is None or gate is None or gate.mode != "after" or champion is trial.base:
            raise error
        return self._turn_down(turn, trial, champion, trial.base, error), trial.base

    def _ask(self, line: Line, batch: Batch) -> Prediction:
        """What a version says of a batch: what it said when it was asked, and what it says now of the other rows."""
        said = batch.said
        if said is None:
            return self._answer(line, batch.features, batch.first, batch.start)
        prediction, there = answered.nothing(len(batch), said.told.prediction), np.zeros(len(batch), dtype=np.bool_)
        for answers in (said.told, said.shadow):
            if answers is not None and (by := np.flatnonzero(answers.by(line.version))).size:
                own = answered.widened(_rows_of(answers.prediction, by), self.classes)
                prediction, there[by] = answered.laid_over(prediction, by, own), True
        if (rest := np.flatnonzero(~there)).size:
            own = self._answer(line, _some(batch.features, rest), batch.first + int(rest[0]), batch.start)
            prediction = answered.laid_over(prediction, rest, own)
        return prediction

    def _answer(self, line: Line, features: Features, first: int, at: int) -> Prediction:
        try:
            return align(line.model.predict(features), self.classes)
        except (DataError, LearnerError):
            raise
        except Exception as error:
            what = f"{self._learner.name} {line.version.number} failed to predict rows from {first:,} ({moment(at)})"
            raise LearnerError(f"{what}: {error}") from error

    def _say(
        self,
        turn: Turn,
        batch: Batch,
        prediction: Prediction,
        major: int,
        minor: NDArray[np.int32],
        *,
        predict: float = 0.0,
        shadow: Prediction | None = None,
        majors: NDArray[np.int32] | None = None,
        served: Prediction | None = None,
    ) -> Turn:
        out, until = int((batch.known_at < NEVER).sum()), NEVER
        if self._wait:
            out, until = len(batch), max(int(batch.time.max()) + self._wait, _last_known(batch))
        if out:
            waiting = PendingBatch(batch.first, len(batch), prediction, major, out, until, majors=majors, served=served)
            if shadow is not None:
                waiting.shadow, waiting.time, waiting.trial = shadow, batch.time, self._trials
                waiting.members = self._members(batch.features)
            self._pending.add(waiting)
        by = np.full(len(batch), major, dtype=np.int32) if majors is None else majors
        said = Predicted(first=batch.first, time=batch.time, prediction=prediction, major=by, minor=minor)
        return replace(turn, predicted=said, predict_cpu_seconds=turn.predict_cpu_seconds + predict)

    # ------------------------------------------------------------------ rows that share a turn

    def _apart(self, batch: Batch) -> Turn:
        """Each row is a batch of its own: tested and learned one after the other, with the results of single turns."""
        starts = np.maximum.accumulate(batch.time)
        if batch.revisions is not None or (batch.late is not None and batch.late.any()):
            raise DataError(
                "rows that come late or bring labels of other rows cannot share a turn: give them one by one"
            )
        known = len(self.classes)
        self._begin(batch)
        first = Turn(index=self._turns, now=int(starts[0]), rows=len(batch), joined=self._none(), loss=Loss())
        if self._tip is None:
            ahead = self._rows_before_first(batch, starts)
            if ahead:  # the initial period ends behind or within this batch
                turn = self._together(
                    replace(apart.part(batch, 0, ahead), start=int(starts[0]), apart=False), judged=False
                )
                if ahead == len(batch):
                    return turn
                rest = self._apart(apart.part(batch, ahead, len(batch)))
                return apart.merged(turn, rest, len(batch))
            first = self._train(replace(first, joined=self._join(int(starts[0]))[0]))
            self._seat(first.now)
        self._book.arrive(batch)  # of a single row no quality can be told: none is quarantined
        self._seen += len(batch)
        joined = apart.joined_both(first.joined, self._join(int(starts[-1]))[0])
        turn = replace(first, joined=joined, now=int(starts[-1]))
        return self._end(self._test_then_train(turn, batch, starts, known), batch)

    def _rows_before_first(self, batch: Batch, starts: NDArray[np.int64]) -> int:
        initial = self._strategy.initial
        if isinstance(initial, int):
            return min(max(initial - self._seen, 0), len(batch))
        assert initial is not None
        assert self._begun is not None
        return int(np.searchsorted(starts, self._begun + micros(initial)))

    def _test_then_train(self, turn: Turn, batch: Batch, starts: NDArray[np.int64], known: int) -> Turn:
        line = self._champion
        assert line is not None
        order = apart.Order.of(batch, starts, turn.joined, unlearned=self._unlearned, classes=known)
        learned = order.learned
        queue = self._book.examples(learned)
        before = self._trainer.cpu_seconds()
        prediction, key = apart.one_by_one(line.model, line.version.key, queue, batch.features, order, self._key)
        seconds = self._trainer.cpu_seconds() - before
        self._unlearned = order.left
        minor = line.version.minor + order.steps
        decision = Decision(bool(len(learned)), f"{len(learned):,} rows learned one after the other")
        turn = replace(turn, decisions=(*turn.decisions, decision))
        if len(learned):
            version = self._next_minor(turn, queue, learned, key, decision.reason, int(order.steps[-1]))
            line.version = replace(version, row_trees=line.model.row_trees(len(learned)))
            self._highest[version.major] = version.minor
            self._tip = line
            self._trained_at, self._since_training = turn.now, len(self._unlearned)
            turn = replace(turn, trained=(*turn.trained, line.version))
        # test and train are one loop: its CPU seconds cannot be told apart and count as training
        turn = replace(turn, train_cpu_seconds=turn.train_cpu_seconds + seconds)
        turn = self._say(turn, batch, prediction, line.version.major, minor.astype(np.int32))
        return replace(turn, loss=self._score(turn.joined))

    # ------------------------------------------------------------------ let go

    def _give_up(self, now: int) -> None:
        """Let go of rows nobody can ask for again; now and then, since looking costs as much as holding."""
        if self._tip is None:
            return
        held = self._book.rows
        if not self._forgets and (held < 64 or self._seen - self._given_up_at < held // 16):
            return
        self._given_up_at = self._seen
        window = self._strategy.window
        keep = window.keep(now - self._held_out, self._label_delay) if self._strategy.refits else Keep()
        unlearned = int(self._unlearned.min()) if len(self._unlearned) else self._seen
        waits = now - self._wait if self._wait else None
        self._book.give_up(
            keep, initial=self._initial_rows or 0, unlearned=unlearned, waits=waits, learns=self._strategy.updates,
            count_due=self._quality.judges_missing,
        )  # fmt: skip


#: what an engine's state keeps as it is
_PLAIN = (
    "turns", "begun", "seen", "initial_rows", "anchor", "trials", "rejections", "failures", "fit_at", "trained_at",
    "since_fit", "since_training", "given_up_at",
)  # fmt: skip


def _number(line: Line | None) -> str | None:
    return None if line is None else line.version.number


def check_can_update(strategy: Strategy, learner: Learner) -> None:
    """Raise ``LearnerError`` if the strategy updates its model and the learner cannot, saying what can."""
    if strategy.updates and not isinstance(learner, Updatable):
        raise LearnerError(
            f"a {strategy.kind} strategy updates its model, and {learner.name} cannot be updated: wrap boosted trees "
            "in learners.Decayed(...) or learners.LeafRefit(...), forests in learners.SlidingForest(...), take an "
            "estimator with partial_fit or a River model, or use strategies.Stateless"
        )


def check_gate(gate: Gate | None, strategy: Strategy, learner: Learner) -> None:
    """Raise ``ConfigError`` if the gate asks what a strategy or its learner cannot give."""
    if not isinstance(gate, PairedGate):
        return
    if gate.largest_bytes is not None and not isinstance(learner, Sized):
        raise ConfigError("gate.largest_bytes", gate.largest_bytes, f"{learner.name} has no size(): leave it out")
    if gate.held_out is not None and strategy.updates:
        need = f"a {strategy.kind} strategy learns every row as its label comes, and leaves none out: take it away"
        raise ConfigError("gate.held_out", spell(gate.held_out), need)


def _identity(learner: Learner) -> str | None:
    try:
        return learner.identity()
    except Unhashable:
        return None


def _last_known(batch: Batch) -> int:
    """The instant at which the last of the batch's own labels becomes known."""
    known = batch.known_at[batch.known_at < NEVER]
    return int(known.max()) if len(known) else batch.start


def _rows_of(prediction: Prediction, at: NDArray[np.int64]) -> Prediction:
    return Prediction(
        codes=None if prediction.codes is None else prediction.codes[at],
        proba=None if prediction.proba is None else prediction.proba[at],
        classes=prediction.classes,
        values=None if prediction.values is None else prediction.values[at],
    )


def _some(features: Features, rows: NDArray[np.int64]) -> Features:
    """Some of the rows; where it is all, these very ones: how rows lie can change the last bit of a sum."""
    return features if len(rows) == len(features) else features.take(rows)


def _words_in(examples: Examples) -> list[str]:
    """The words that the rows' category codes may mean: codes are content only together with these."""
    schema = examples.features.schema
    if not any(column.kind is Kind.CATEGORY for column in schema.columns) or not len(examples):
        return []
    out = []
    for name, codes in examples.features.codes().items():
        out.append(repr(schema.vocabularies[name].words[: int(codes.max()) + 1]))
    return out


def _only_class(examples: Examples) -> Label | None:
    """The one class that all labelled examples have; None if they have several, or values."""
    if examples.codes is None:
        return None
    present = np.unique(examples.codes[examples.codes >= 0])
    return examples.classes[int(present[0])] if len(present) == 1 else None


def _check_classes(examples: Examples) -> None:
    if examples.codes is None:
        return
    present = np.unique(examples.codes[examples.codes >= 0])
    if len(present) < 2:
        only = _only_class(examples)
        raise DataError(
            f"the label is constant in the first window: all {len(examples):,} examples are {only!r}: "
            "make `initial` longer, or check the label column"
        )


def _decided(turn: Turn, reason: str, *, fire: bool = False) -> Turn:
    return replace(turn, decisions=(*turn.decisions, Decision(fire, reason)))


def _quarantined(turn: Turn, fault: str | None) -> Turn:
    """The turn with one more reason why rows are never learned."""
    return replace(turn, quarantined="; ".join(why for why in (turn.quarantined, fault) if why) or None)


def _note(turn: Turn, note: str) -> Turn:
    return replace(turn, notes=(*turn.notes, note))
