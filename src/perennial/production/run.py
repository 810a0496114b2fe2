"""The production loop: one turn of the engine after the other, each durable before the next begins.

The order of a turn: rows are read and its bounds fixed in the ledger; the engine takes it in memory; models, rows and
the state after it go to the ledger's blobs; one transaction records it all. Whoever is killed between any two of these
finds the last turn whole, does the next one again from the same rows, and gets the same turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, LedgerError
from perennial.core.failpoints import reach
from perennial.core.features import Features, Schema
from perennial.core.protocols import Learner
from perennial.core.records import Adopt, Appoint, Batch, Close, Lesson, Revisions, Tick, Turn, Version, WaitingChanges
from perennial.core.state import State, Stored
from perennial.core.times import EPOCH, NEVER, iso, micros
from perennial.engine import Engine, Event
from perennial.gate import Gate
from perennial.learners.golden import GOLDEN_ROWS, golden_set
from perennial.ledger.errors import AliasMoved
from perennial.ledger.records import Alias, AliasChange, AliasName, Entry, Lease, Saved, Segment
from perennial.ledger.sql import SqlLedger
from perennial.production import checkpoint, erasing, forgetting, outcomes, tables
from perennial.production.deployment import Deployment
from perennial.production.erasing import Erased
from perennial.production.forgetting import Thinning
from perennial.production.trainer import SavingTrainer
from perennial.stream.calendar import Calendar
from perennial.stream.intake import Arrived, Bounds, Intake
from perennial.stream.label_log import id_digest

#: how differently champion and challenger are taken to see rows, where nothing is known yet: the share of rows that one
#: of them gets wrong, and for a regression the spread of the differences of errors, in mean errors of the champion
DISAGREEMENT, SPREAD = 0.1, 0.3

Kind = Literal["batch", "tick", "close", "operator"]
Tell = Callable[[str, dict[str, Any]], None]  #: takes an event's name and its facts


def silent(event: str, facts: dict[str, Any]) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A model that was trained elsewhere, checked and ready to be the first champion.

    ``types`` are the features and ``words`` those of category columns that the model has codes for; ``probe`` are rows
    to hold it against before and after it is saved. ``facts`` go to the ledger with the version.
    """

    event: Adopt
    types: Mapping[str, Any]
    words: Mapping[str, Sequence[str]]
    probe: Features
    facts: Mapping[str, Any]


@final
class Run:
    """Takes the turns of one deployment, under a lease of its ledger.

    Parameters
    ----------
    deployment : Deployment
        What to run.
    ledger : SqlLedger
        Where turns become durable.
    lease : Lease
        The right to take them.
    tell : callable, optional
        Hears of everything that happened, once it is durable.

    Raises
    ------
    ConfigError
        If the deployment keeps no rows and its ledger was begun keeping them, or the other way round.
    LedgerError
        If the ledger holds a deployment of this name with other settings, or its last state cannot be read.
    """

    def __init__(self, deployment: Deployment, ledger: SqlLedger, lease: Lease, tell: Tell = silent) -> None:
        self._deployment = deployment
        self._ledger, self._lease, self._tell = ledger, lease, tell
        self._learner = deployment.learner
        self._trainer = SavingTrainer(deployment.trust)
        self._thinning = Thinning(ledger) if deployment.forgets else None
        if ledger.forgets != deployment.forgets:
            raise ConfigError(
                "retention", deployment.retention,
                f"{deployment.name!r} was begun {'without keeping rows' if ledger.forgets else 'keeping rows'}, which "
                "cannot be changed: go back to that, or give it a new `name` (and SqlLedger.open, which begins it, "
                f"forgets={deployment.forgets})",
            )  # fmt: skip
        self._adopted: Mapping[str, Any] = {}  # about the model that is being adopted
        self._recover()

    @property
    def turn(self) -> int:
        """Index of the next turn."""
        return self._turn

    # ------------------------------------------------------------------ going on

    def _recover(self) -> None:
        """Go on from the last turn that is durable."""
        reach("recover.before")
        head = self._ledger.head()
        self._turn = head.turn + 1
        self._intent: dict[str, Any] | None = json.loads(head.intent) if head.intent else None
        self._intake = Intake(
            self._deployment.stream, self._learner.task, find=self._ledger.waiting, forgiving=self._deployment.accept
        )
        self._engine: Engine | None = None
        self._aliases = self._ledger.pointers()
        self._alive = self._ledger.segments()
        self._now: int | None = None
        self._closed = False
        self._on_trial: int | None = None  # number of the trial that is on
        self._first: int | None = None  # instant of the first turn
        self._identity = self._deployment.identity()
        if head.turn >= 0:
            self._restore(State.from_bytes(self._ledger.get(head.checkpoint), {}))
        if self._deployment.observe and (self._engine is None or self._engine.serving is None):
            raise LedgerError(
                f"deployment {self._deployment.name!r} has no champion to observe: run it without --observe first"
            )
        self._intake.refresh()
        self._trim()  # of a turn whose process died between its commit and this
        reach("recover.after")

    def _restore(self, state: State) -> None:
        about = state.plain["run"]
        fault = checkpoint.other_settings(self._deployment, state)
        if fault is not None and not self._deployment.accept:
            raise LedgerError(
                f"{fault}: go back to them, give the new ones a `name` of their own, or go on with  "
                "perennial run --accept"
            )
        self._now, self._closed, self._first = about["now"], about["closed"], about["first"]
        self._intake.restore(state.part("intake"))
        kept = state.part("engine")
        models = {number: self.model(number) for number in kept.plain["versions"]}
        engine = self._deployment.engine(self._intake.schema, self._trainer, self._intake.label_type)
        engine.restore(replace(kept, models=models), self._intake.labels, self._stored)
        self._engine = engine

    def model(self, number: str) -> Learner:
        """The learner of a version, loaded from the ledger."""
        return self._deployment.load(self._ledger.get(self._ledger.version(number).blob))

    def _stored(self, name: str) -> Stored:
        return self._intake.stored(self._ledger.get(name), name)

    # ------------------------------------------------------------------ turns

    def step(self, *, to_the_end: bool = False) -> bool:
        """Take the next turn, if there is a whole batch or an operator's word; say whether there was.

        Raises
        ------
        OffsetGone, DataError
            If the source breaks a rule: nothing of the turn is durable but its bounds.
        LeaseLost
            If somebody else took over.
        LedgerError
            If the ledger cannot be used; what is durable is whole.
        """
        if to_the_end:
            self._intake.ends()
        return self._step(to_the_end)

    def _step(self, to_the_end: bool) -> bool:
        if self._heed_operator():
            return True
        if self._intent is not None:
            return self._again(self._intent)
        bounds = self._intake.look(to_the_end=to_the_end)
        if bounds is None:
            return False
        if self._closed:
            raise LedgerError(
                f"deployment {self._deployment.name!r} was run to the end of its recording and closed, and now there "
                "are more rows: begin a deployment of another name, without --until-end"
            )
        lines = self._intake.look_at_log(bounds.start)
        arrived = self._intake.take(bounds, lines)  # rows that break a rule are told before any bounds are fixed
        reach("intent.before")
        self._intend({"batch": [bounds.start, bounds.rows, bounds.ahead]} | _fixed(lines))
        self._batch(arrived)
        return True

    def idle(self, now: datetime) -> bool:
        """What the clock alone brings where no batch is whole: say whether there was a turn.

        On a calendar, a batch whose time is over is taken with the rows it has, and a time without rows is a tick:
        labels that became known by its beginning are joined, and schedules fire. Both are fixed in the ledger before
        they happen, so the clock decides each once. Only a stream that is alive is treated so, one whose newest row is
        no older than the two batches before, or a label of its log: a recording that is played back has its own pace.
        """
        calendar = self._deployment.stream.calendar
        newest = self._intake.newest_seen
        if not isinstance(calendar, Calendar) or newest is None or self._closed:
            return False
        start, _, oldest = _starts(calendar, micros(now - EPOCH), self._intake.zone)
        if newest < oldest and not self._intake.log_tells(oldest, start):
            return False
        pending = self._intake.pending_start
        if pending is not None:
            return pending < start and self._step(True)
        if self._engine is None or self._now is None or self._now >= start:
            return False
        lines = self._intake.look_at_log(start)
        revisions = self._intake.tick(lines, start)
        self._intend({"tick": start} | _fixed(lines))
        self._tick(start, revisions)
        return True

    def _tick(self, start: int, revisions: Revisions | None) -> None:
        assert self._engine is not None
        if revisions is not None:
            self._engine.deliver(revisions, self._intake.labels)
        self._event("tick", Tick(now=start))

    def close(self) -> None:
        """The recording ends here: every label that its rows brought is joined, and nothing more is trained."""
        if self.closed or self._engine is None:
            return
        last = self._intake.newest
        lines = self._intake.look_at_log(NEVER)
        tail = self._intake.tail(lines)
        if self._deployment.stream.within is None:  # silence cannot be told from a late label beyond the last row
            last = max(last, self._engine.last_label(), -NEVER if tail is None else int(tail.known_at[-1]))
        self._intend({"close": last} | _fixed(lines))
        self._end(last, tail)

    def _end(self, at: int, tail: Revisions | None) -> None:
        assert self._engine is not None
        if tail is not None:
            self._engine.deliver(tail, self._intake.labels)
        self._event("close", Close(now=at))

    @property
    def closed(self) -> bool:
        """Whether the recording's end is durable, or there was none."""
        return self._closed or self._engine is None or not self._intake.rows

    def refresh(self) -> bool:
        """Look at the source anew; whether it may hold more than before."""
        changed = self._intake.changed()
        if changed:
            self._intake.refresh()
        return changed

    def _intend(self, intent: dict[str, Any]) -> None:
        self._ledger.intend(self._lease, self._turn, json.dumps(intent))
        reach("intent.after")

    def _again(self, intent: dict[str, Any]) -> bool:
        """The turn whose bounds an earlier process had fixed."""
        self._intent = None
        lines = intent.get("labels")
        self._intake.fetch_log(lines)
        if "tick" in intent:
            self._tick(intent["tick"], self._intake.tick(lines, intent["tick"]))
        elif "close" in intent:
            self._end(intent["close"], self._intake.tail(lines))
        else:
            start, rows, ahead = intent["batch"]
            bounds = Bounds(start=start, rows=rows, ahead=ahead)
            self._intake.fetch(bounds)
            self._batch(self._intake.take(bounds, lines))
        return True

    def _batch(self, arrived: Arrived) -> None:
        if self._engine is None:
            self._engine = self._fresh_engine()
        self._event("batch", arrived.batch, arrived)

    def _fresh_engine(self) -> Engine:
        if self._deployment.forgets:
            forgetting.check_words(self._intake.schema, self._deployment.stream.word_rows)
        return self._deployment.engine(self._intake.schema, self._trainer, self._intake.label_type)

    def _event(self, kind: Kind, event: Event, arrived: Arrived | None = None) -> None:
        assert self._engine is not None
        batch = event if isinstance(event, Batch) else None
        self._trainer.made.clear()
        fit = batch is not None and self._deployment.quality.fault(batch) is None
        self._trainer.probe = self._probe(batch) if batch is not None and fit else None
        turn = self._engine.advance(event)
        reach("turn.after")
        self._commit(kind, turn, batch, arrived)

    def _probe(self, batch: Batch) -> Features:
        """The rows by which a saved model is known again."""
        if self._deployment.forgets:
            return self._supplied(batch.features.schema)
        return batch.features.slice(0, GOLDEN_ROWS)

    def _supplied(self, schema: Schema) -> Features:
        """Rows that are none of the stream's: the gate's golden set, or made up."""
        assert self._engine is not None
        if (golden := self._engine.golden) is not None:
            return golden.features(schema).slice(0, GOLDEN_ROWS)
        return forgetting.golden_rows(schema, self._deployment.quality)

    def adopt(self, adoption: Adoption) -> None:
        """Begin with a champion that was trained elsewhere: one turn, the first; see :mod:`.adopting`.

        Raises
        ------
        LedgerError
            If a turn was taken before.
        LearnerError
            If the model cannot be saved in a form that is trusted, or predicts otherwise once it was loaded.
        """
        if self._turn:
            raise LedgerError(
                f"deployment {self._deployment.name!r} has begun: a model is adopted before the first turn"
            )
        self._intake.begin(adoption.types, adoption.words)
        self._engine = self._fresh_engine()
        self._trainer.made.clear()
        self._trainer.probe = self._supplied(self._intake.schema) if self._deployment.forgets else adoption.probe
        self._adopted = adoption.facts
        trained = self._trainer.obtain(None, self._learner, lambda: adoption.event.model)
        turn = self._engine.advance(replace(adoption.event, model=trained.model))
        reach("turn.after")
        self._commit("operator", turn, None, None)

    def erase(self, key: str) -> Erased:
        """Forget a subject: see :mod:`~perennial.production.erasing`. Several turns, each durable.

        After a crash do it again: what is left is erased, and versions are named that had learned of what was left.

        Raises
        ------
        ConfigError
            If the stream has no key column.
        LedgerError
            If nothing of this subject is kept.
        """
        if self._deployment.stream.key is None:
            raise ConfigError("key", key, "the stream names no `key` column, so nobody can say whose rows these are")
        while self._intake.owned and self._intent is not None and self._step(False):
            pass  # its bounds count rows that may go now: it is taken first
        waiting = self._intake.erase_waiting(key)
        marks: dict[str, NDArray[np.bool_]] = {}
        words: dict[str, set[int]] = {}
        lonely: dict[str, set[int]] = {}
        for segment in self._alive:
            batch = tables.from_bytes(self._ledger.get(segment.digest)).combine_chunks()
            rows = erasing.rows_of(batch, key)
            for name in self._categories(batch):
                codes = batch.column(name).to_numpy()
                words.setdefault(name, set()).update(codes[rows].tolist())
                lonely.setdefault(name, set()).update(codes[~rows].tolist())
            if rows.any():
                marks[segment.digest] = rows
        if not marks and waiting:
            return Erased(rows=0, segments=0, words=0, golden=(), versions=(), waiting=waiting)
        if not marks:
            why = "or they were released or erased before"
            if self._deployment.forgets:
                why = "or none waits: which versions learned others of them cannot be told where no row is kept"
            raise LedgerError(f"no row of {key!r} is kept: check the key, {why}")
        segments = [segment for segment in self._alive if segment.digest in marks]
        positions = np.sort(np.concatenate([s.first + np.flatnonzero(marks[s.digest]) for s in segments]))
        versions = self._ledger.versions()
        # golden sets go first: a crash behind that leaves rows by which to find the rest
        golden = self._drop_golden(segments, positions, versions)
        gone = self._forgotten_words(erasing.lonely_words(words, lonely))
        self._intake.erase(key, gone)
        for segment in segments:
            self._blank(segment, marks[segment.digest])
        self._note_turn("checkpoints before it are gone")  # as many as are kept, so that none of them is older
        self._note_turn("a subject was erased")
        self._ledger.scrub()
        return Erased(
            rows=len(positions),
            segments=len(segments),
            words=sum(map(len, gone.values())),
            golden=golden,
            versions=erasing.touched(versions, positions, self._aliases["champion"].version),
            waiting=waiting,
        )

    def _categories(self, batch: Any) -> list[str]:
        schema = self._intake.schema
        return [f"f{j}" for j in schema.categories if f"f{j}" in batch.schema.names]

    def _forgotten_words(self, codes: dict[str, set[int]]) -> dict[str, set[str]]:
        schema = self._intake.schema
        own: dict[str, int] = checkpoint.adopted(self._ledger).get("words", {})
        out = {}
        for name, some in codes.items():
            column = schema.columns[int(name[1:])].name
            # words that an adopted model has codes for are its own: it would not understand another code
            out[column] = {schema.vocabularies[column].words[code] for code in some if code >= own.get(column, 0)}
        return out

    def _blank(self, segment: Segment, rows: NDArray[np.bool_]) -> None:
        assert self._engine is not None
        batch = tables.from_bytes(self._ledger.get(segment.digest)).combine_chunks()
        first = segment.first if self._deployment.forgets else None
        digest = self._ledger.put(erasing.blanked(batch, rows, first=first), raw=True)
        position = segment.first + np.flatnonzero(rows)
        self._engine.erase(position, {segment.digest: digest})
        self._intake.forget(position)
        ids = batch.column("id").filter(pa.array(rows)).to_pylist() if "id" in batch.schema.names else []
        self._intake.erase_labels([one for one in ids if one is not None])
        outcomes.forget(self._ledger, [one for one in ids if one is not None])
        gone = [(id_digest(one), row) for one, row in zip(ids, position.tolist(), strict=False) if one is not None]
        fresh = replace(segment, digest=digest)
        self._note_turn(f"{int(rows.sum()):,} rows of one subject were erased", fresh, (segment.digest,), gone)
        self._alive[self._alive.index(segment)] = fresh

    def _note_turn(
        self,
        note: str,
        segment: Segment | None = None,
        released: tuple[str, ...] = (),
        gone: Sequence[tuple[bytes, int]] = (),
    ) -> None:
        """A turn that changes what is kept, and nothing else."""
        now = self._now if self._now is not None else 0
        state = self._whole_state(now, self._closed)
        entry = Entry(
            turn=self._turn,
            kind="operator",
            now=now,
            first=-1,
            rows=0,
            position=json.dumps(self._intake.position.to_plain()),
            checkpoint=self._ledger.put(state.to_bytes(), raw=True),
            serving=self._engine.serving if self._engine is not None else None,
            segment=segment,
            released=released,
            notes=(note,),
            waiting=WaitingChanges(until=-NEVER, gone=gone) if gone else None,
        )
        self._ledger.commit(self._lease, entry)
        self._turn += 1

    def _drop_golden(
        self, segments: list[Segment], positions: NDArray[np.int64], versions: list[Saved]
    ) -> tuple[str, ...]:
        """Golden sets that hold an erased row go; their versions are named. Where no row is kept they are made up."""
        if self._deployment.forgets:
            return ()
        starts = erasing.golden_of(segments, positions)
        turns = {entry.turn for entry in self._ledger.entries() if entry.first in starts}
        born = {s.version.number: e.turn for e in self._ledger.entries() for s in e.versions}
        out = []
        for saved in versions:
            first = saved.facts.get("adopted", {}).get("rows", 0)  # it was held against the first rows of all
            if saved.golden and (born[saved.version.number] in turns or positions[0] < first):
                self._ledger.forget(saved.golden)
                out.append(saved.version.number)
        return tuple(out)

    def _heed_operator(self) -> bool:
        """A champion that an operator appointed since the last turn is an input of this one."""
        if self._engine is None:
            return False
        # an operator moves `previous` with the champion, and gives the challenger another share of the requests: a turn
        # that went on from what was there before would only find out when it commits
        self._aliases = self._ledger.pointers()
        alias = self._aliases["champion"]
        serving = self._engine.serving
        if alias.version is None or alias.version == serving or alias.actor == "run":
            return False
        saved = self._ledger.version(alias.version)
        now = self._now if self._now is not None else saved.version.at
        word = f"{alias.actor}: {alias.reason}" if alias.reason else alias.actor
        self._intent = None
        self._event("operator", Appoint(now=now, version=saved.version, model=self.model(alias.version), reason=word))
        if self._deployment.forgets:  # a turn that came too late behind their word may have left rows that waited then
            self._ledger.collect(self._lease)
        return True

    # ------------------------------------------------------------------ the commit

    def _commit(self, kind: Kind, turn: Turn, batch: Batch | None, arrived: Arrived | None) -> None:
        assert self._engine is not None
        ledger = self._ledger
        versions = self._versions(turn)
        now = turn.now
        if self._now is not None and self._first is not None:  # before the first row it was the clock's, of an adoption
            now = max(self._now, now)
        closed = self._closed or kind == "close"
        if self._thinning is not None:
            segment, thinned, released = self._forget(self._thinning, arrived, turn.now, closed)
        else:
            segment, thinned = self._segment(arrived), []
            released = self._released(turn.now, segment)
        self._first = turn.now if self._first is None and batch is not None else self._first
        whole = self._whole_state(now, closed)
        entry = Entry(
            turn=self._turn,
            kind=kind,
            now=turn.now,
            first=batch.first if batch is not None else -1,
            rows=turn.rows,
            position=json.dumps(self._intake.position.to_plain()),
            checkpoint=ledger.put(whole.to_bytes(), raw=True),
            serving=turn.serving,
            loss=turn.loss,
            decisions=turn.decisions,
            verdicts=turn.verdicts,
            versions=versions,
            scores={turn.loss.name: (turn.loss.n, turn.loss.total)} if turn.loss.n else {},
            segment=segment,
            thinned=tuple(thinned),
            released=released,
            predictions=self._predictions(turn),
            labels=self._labels(turn),
            aliases=self._moved(turn),
            quarantined=turn.quarantined,
            late=turn.late,
            staleness=turn.staleness,
            notes=(*turn.notes, *(self._intake.notes() if kind != "operator" else ())),
            cpu_seconds=turn.train_cpu_seconds + turn.predict_cpu_seconds,
            waiting=self._intake.waiting(now) if kind != "operator" else None,
        )
        try:
            ledger.commit(self._lease, entry)
        except AliasMoved:  # an operator was quicker: the turn is taken again, behind their word
            self._recover()
            return
        self._turn, self._now, self._closed = self._turn + 1, now, closed
        self._point(entry.aliases)
        self._alive += [brought for brought in (segment, *thinned) if brought is not None]
        for gone in released:  # of equal ones the ledger lets go of the oldest
            self._alive.remove(next(segment for segment in self._alive if segment.digest == gone))
        if self._thinning is not None:
            self._thinning.keep(self._alive)
        self._say(entry, turn)
        self._trim()  # never before: a source of ours holds rows until the ledger does

    def _trim(self) -> None:
        self._intake.trim(within=self._deployment.forgets)

    def _whole_state(self, now: int, closed: bool) -> State:
        """All that the next turn depends on."""
        assert self._engine is not None
        about = {"identity": self._identity, "now": now, "closed": closed, "first": self._first}
        engine = replace(self._engine.state(), models={}).under("engine")
        return State.join(State(plain={"run": about}), engine, self._intake.state().under("intake"))

    def _segment(self, arrived: Arrived | None) -> Segment | None:
        """The rows of a turn, put into the store."""
        if arrived is None:
            return None
        self._ledger.put(arrived.segment)
        return _described(arrived)

    def _predictions(self, turn: Turn) -> str:
        if turn.predicted is None:
            return ""
        return self._ledger.put(tables.predictions(turn.predicted, times=not self._deployment.forgets))

    def _labels(self, turn: Turn) -> str:
        if not len(turn.joined.position) or self._deployment.forgets:
            return ""
        return self._ledger.put(tables.labels(turn.joined, turn.classes))

    def _versions(self, turn: Turn) -> tuple[Saved, ...]:
        """Each version of the turn, with its model in the ledger."""
        lessons = {lesson.version: lesson for lesson in turn.lessons}
        made = iter(self._trainer.made)
        out = []
        for version in turn.trained:
            if version.kind == "start":
                out.append(self._started(version))
                continue
            kept = next(made)
            out.append(self._saved(version, kept.blob, kept.state, kept.cpu_seconds, lessons.get(version.number)))
        return tuple(out)

    def _started(self, version: Version) -> Saved:
        assert self._engine is not None
        model = self._engine.state().models[version.number]
        return self._saved(version, model.save(self._deployment.trust), model.digest(), 0.0, None)

    def _saved(self, version: Version, blob: bytes, state: str, seconds: float, lesson: Lesson | None) -> Saved:
        facts: dict[str, Any] = {
            "learner": self._learner.name,
            "strategy": str(self._deployment.strategy),
            "window": str(self._deployment.strategy.window) if version.kind == "fit" else None,
        }
        if version.kind == "adopt":
            facts["adopted"] = dict(self._adopted)
        if lesson is not None:
            facts["lesson"] = {
                "rows": _ranges(lesson.position),
                "weights": "" if lesson.weights is None else self._ledger.put(lesson.weights.tobytes()),
                "classes": lesson.classes,
                "seed": lesson.seed,
            }
        golden = ""
        if self._trainer.probe is not None and len(self._trainer.probe):
            golden = self._ledger.put(golden_set(self._deployment.load(blob), self._trainer.probe))
        return Saved(
            version=version,
            blob=self._ledger.put(blob),
            state=state,
            size=len(blob),
            golden=golden,
            cpu_seconds=seconds,
            facts=facts,
        )

    def _forget(
        self, thinning: Thinning, arrived: Arrived | None, now: int, closed: bool
    ) -> tuple[Segment | None, list[Segment], tuple[str, ...]]:
        """Rid the store of rows that wait no longer: the turn's own segment, what is thinner now, and what is gone."""
        assert self._engine is not None
        wanted = np.empty(0, dtype=np.int64) if closed else self._engine.wanted(now)
        brought, thinned, released = None, [], []
        renamed: dict[str, str] = {}
        if arrived is not None:
            brought = thinning.take(_described(arrived), wanted, arrived.segment)
            renamed[arrived.name] = brought.digest
        in_play = self._engine.chunks
        for segment in self._alive:
            if segment.digest not in in_play:
                released.append(segment.digest)
            elif (thin := thinning.thin(segment, wanted)) is not None:
                thinned.append(thin)
                released.append(segment.digest)
                renamed[segment.digest] = thin.digest
        self._engine.thin(wanted, renamed, closed=closed)
        return brought, thinned, tuple(released)

    def _released(self, now: int, brought: Segment | None) -> tuple[str, ...]:
        """Rows that neither the engine nor the retention wants any more."""
        assert self._engine is not None
        retention = self._deployment.retention
        if not isinstance(retention, timedelta):
            return ()
        needed, until = self._engine.chunks, now - micros(retention)
        held = self._alive if brought is None else [*self._alive, brought]
        return tuple(s.digest for s in held if s.newest < until and s.digest not in needed)

    def _moved(self, turn: Turn) -> tuple[AliasChange, ...]:
        """The pointers that this turn moves."""
        champion = self._aliases["champion"]
        wanted: dict[AliasName, str | None] = {"challenger": turn.challenger}
        if turn.serving is not None and turn.serving != champion.version:
            wanted["champion"] = turn.serving
            wanted["previous"] = champion.version
        out = []
        for name, version in wanted.items():
            before = self._aliases[name]
            if before.version != version:
                reason = self._why(turn, version) if version is not None else ""
                canary, shadow = self._shares(turn, before, version) if name == "challenger" else (0.0, 0.0)
                out.append(
                    AliasChange(
                        alias=name, version=version, generation=before.generation, reason=reason, at=turn.now,
                        canary=canary, shadow=shadow,
                    )
                )  # fmt: skip
        return tuple(out)

    def _shares(self, turn: Turn, before: Alias, version: str | None) -> tuple[float, float]:
        """What a challenger gets of the requests that are served: what the gate says, when its trial begins.

        The newest version of a line that goes on learning keeps what the line has, which an operator may have set.
        """
        gate = self._deployment.gate
        if version is None or not isinstance(gate, Gate) or gate.mode != "before":
            return 0.0, 0.0
        settled = any(verdict.outcome != "keep" for verdict in turn.verdicts)
        if before.version is None or settled or before.version.partition(".")[0] != version.partition(".")[0]:
            return gate.canary, gate.shadow
        return before.canary, before.shadow

    def _why(self, turn: Turn, version: str) -> str:
        """Why a version is pointed at: a verdict for it, one against what took its place, or why it was trained."""
        for verdict in reversed(turn.verdicts):
            if verdict.version == version or (verdict.outcome == "reject" and verdict.champion == version):
                return verdict.reason
        for trained in turn.trained:
            if trained.number == version:
                return trained.reason
        return self._ledger.version(version).version.reason

    def _point(self, changes: tuple[AliasChange, ...]) -> None:
        """Remember where pointers point after a commit."""
        for change in changes:
            self._aliases[change.alias] = Alias(
                alias=change.alias,
                version=change.version,
                generation=change.generation + 1,
                reason=change.reason,
                actor=change.actor,
                at=change.at,
                canary=change.canary,
                shadow=change.shadow,
            )

    # ------------------------------------------------------------------ what is told

    def _expected(self, turn: Turn) -> str:
        """How long a verdict may take at the pace of the stream so far, in words."""
        gate, facts = self._deployment.gate, _under(turn)
        if not isinstance(gate, Gate) or self._first is None or "margin" not in facts:
            return "until labels tell"
        per_block = float(gate.block) if not isinstance(gate.block, timedelta) else 0.0
        if isinstance(gate.block, timedelta):
            per_block = self._intake.rows * micros(gate.block) / max(turn.now - self._first, 1)
        margin, level = facts["margin"], facts.get("champion_loss")
        fixed, per_block = replace(gate, margin=margin), max(per_block, 1e-6)
        told = f"with a margin of {margin:g}, if it is as good"
        if self._learner.task == "classification":
            wait = fixed.expected_wait(labels_per_block=per_block, disagreement=DISAGREEMENT)
            return f"{wait} ({told}, and they disagree on {DISAGREEMENT:.0%} of the rows)"
        if not level:
            return f"until labels tell ({told})"
        wait = fixed.expected_wait(labels_per_block=per_block, spread=SPREAD * level)
        return f"{wait} ({told}, and their errors differ by {SPREAD:.0%} of the champion's mean error)"

    def _say(self, entry: Entry, turn: Turn) -> None:
        common = {"deployment": self._deployment.name, "turn": entry.turn, "at": iso(entry.now)}
        facts: dict[str, Any] = {
            "kind": entry.kind,
            "rows": entry.rows,
            "serving": entry.serving,
            "loss": _mean(turn),
            "joined": len(turn.joined.position),
            "late": entry.late,
            "labels_passed_over": self._intake.passed_over if entry.kind != "operator" else 0,
            "cpu_seconds": round(entry.cpu_seconds, 6),
        }
        self._tell("turn", {**common, **facts})
        for decision in entry.decisions:
            self._tell("decision", {**common, "fire": decision.fire, "reason": decision.reason})
        for saved in entry.versions:
            version = saved.version
            what = {"version": version.number, "parent": version.parent, "rows": version.trained_rows}
            self._tell("trained", {**common, **what, "reason": version.reason, "digest": saved.state})
        number = _under(turn).get("trial", 0)
        if turn.challenger is not None and self._on_trial != number:
            self._tell("trial", {**common, "version": turn.challenger, "reason": self._expected(turn)})
        self._on_trial = None if turn.challenger is None else number
        for verdict in entry.verdicts:
            self._tell("verdict", {**common, **{k: v for k, v in asdict(verdict).items() if v not in (None, {})}})
        for change in entry.aliases:
            if change.alias == "champion":
                self._tell("promoted", {**common, "version": change.version, "reason": change.reason})
        if entry.kind == "operator":  # who moved the pointers themselves, before this turn
            self._tell("promoted", {**common, "version": entry.serving, "reason": entry.decisions[0].reason})
        if entry.quarantined:
            self._tell("quarantined", {**common, "reason": entry.quarantined})
        for note in entry.notes:
            self._tell("note", {**common, "note": note})


def _fixed(lines: int | None) -> dict[str, int]:
    """How much of the label log a turn takes, for its intent; nothing without a log."""
    return {} if lines is None else {"labels": lines}


def _starts(calendar: Calendar, now: int, zone: str) -> tuple[int, int, int]:
    """When the calendar batch of an instant began, and the two before it."""
    out = [now + 1]
    for _ in range(3):
        out.append(int(calendar.floor(np.array([out[-1] - 1]), zone)[0]))
    return out[1], out[2], out[3]


def _described(arrived: Arrived) -> Segment:
    time = arrived.batch.time
    return Segment(
        digest=arrived.name, first=arrived.batch.first, rows=len(time), oldest=int(time.min()), newest=int(time.max())
    )


def _under(turn: Turn) -> Mapping[str, Any]:
    """What the verdicts say of the trial that is on; nothing if their gate does not."""
    return next((v.evidence for v in reversed(turn.verdicts) if v.outcome == "keep"), {})


def _mean(turn: Turn) -> float | None:
    return turn.loss.mean if turn.loss.n else None


def _ranges(position: NDArray[np.int64]) -> list[list[int]]:
    """Positions in order as runs ``[first, last + 1)``."""
    if not len(position):
        return []
    cuts = np.flatnonzero(np.diff(position) != 1) + 1
    starts, ends = position[[0, *cuts]], position[[*(cuts - 1), len(position) - 1]] + 1
    return [[low, high] for low, high in zip(starts.tolist(), ends.tolist(), strict=True)]
