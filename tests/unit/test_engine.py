"""One turn of the engine: its order, what it learns, what it serves, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.semi_supervised import SelfTrainingClassifier

import perennial as pn
from perennial import strategies, triggers, windows
from perennial.core.errors import ConfigError, DataError, LearnerError
from perennial.core.features import Features
from perennial.core.protocols import Trained
from perennial.core.records import Adopt, Answers, Appoint, Close, Prediction, Said, Tick, Verdict, align
from perennial.engine import Engine
from perennial.gate import Gate, Golden
from perennial.gate.trial import Line
from perennial.learners import as_learner, plain
from perennial.ledger.memory import MemoryLedger
from perennial.stream.quality import Quality

HOUR = 3_600_000_000
START = np.datetime64("2026-01-01", "us")
BEGIN = int(START.astype(np.int64))


def columns(n: int, *, seed: int = 0, step: int = 1) -> dict:
    """Rows ``step`` hours apart with two numbers, and a label that follows from them with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    z = x[:, 0] * np.cos(np.arange(n) / 100) + x[:, 1] + 0.4 * rng.normal(size=n)
    at = START + np.arange(n) * np.timedelta64(step, "h")
    return {"at": at, "a": x[:, 0], "b": x[:, 1], "y": np.where(z > 0, "up", "down")}


class Recorded:
    """A trainer that does every training and remembers keys."""

    def __init__(self):
        self.keys = []

    def cpu_seconds(self):
        return 0.0

    def obtain(self, key, template, make):
        model = make()
        self.keys.append(key)
        return Trained(model=model, cpu_seconds=0.0, shared=False)


@dataclass
class Run:
    """An engine over a prepared stream, and the turns it gave."""

    engine: Engine
    prepared: object
    ledger: MemoryLedger = field(default_factory=MemoryLedger)

    @property
    def turns(self):
        return self.ledger.turns

    @property
    def versions(self):
        return self.ledger.versions

    def said(self):
        """(row, predicted label, MAJOR.MINOR) of every row."""
        out = []
        for turn in self.turns:
            if (p := turn.predicted) is not None:
                codes = p.prediction.codes.tolist()
                names = [p.prediction.classes[c] if c >= 0 else c for c in codes]
                numbers = [f"{major}.{m}" for major, m in zip(p.major.tolist(), p.minor.tolist(), strict=True)]
                out += list(zip(range(p.first, p.first + len(codes)), names, numbers, strict=True))
        return out


@pytest.fixture
def engine(tmp_path):
    """A function that prepares a stream and gives an engine for it."""
    made = []

    def make(cols, strategy, *, trainer=None, learner=None, label_wait=timedelta(0), settings=None, **stream):
        made.append(None)
        table = pa.table(cols) if isinstance(cols, dict) else cols
        stream = pn.Stream(table, **{"time": "at", "target": "y", "time_zone": "UTC", **stream})
        prepared = stream.prepare(tmp_path / f"stream-{len(made)}")
        learner = learner or as_learner(strategy.model)
        return Run(
            Engine(
                strategy, learner, schema=prepared.schema, trainer=trainer or Recorded(),
                label_delay=prepared.label_delay, label_wait=label_wait, **(settings or {}),
            ),
            prepared,
        )  # fmt: skip

    return make


def replay(run, *, close=True, upto=None):
    """Give the engine every batch of its stream."""
    for i, batch in enumerate(run.prepared.batches("classification")):
        if upto is not None and i >= upto:
            return run
        run.ledger.commit(run.engine.advance(batch))
    if close:
        run.ledger.commit(run.engine.advance(Close(now=run.prepared.last_time)))
    return run


def stateless(model=None, **settings):
    """Retrained every five days after five, unless told otherwise."""
    settings = {"initial": "5d", "trigger": triggers.every("5d"), **settings}
    return strategies.Stateless(model or GaussianNB(), **settings)


def stateful(model=None, **settings):
    """Updated every day after five, unless told otherwise."""
    settings = {"initial": "5d", "trigger": triggers.every("1d"), **settings}
    return strategies.Stateful(model or SGDClassifier(loss="log_loss", random_state=0), **settings)


# ---------------------------------------------------------------------- order of a turn


def test_what_is_known_at_the_start_is_learned_before_the_batch_is_predicted(engine):
    """A label known at exactly the batch's start is learned before that batch is predicted; a later one is not."""
    cols = columns(20)
    run = engine(cols, stateful(initial=5, trigger=triggers.every(rows=1)), batch=1, label_delay="2h")
    replay(run)
    first, second = run.versions[:2]
    assert (first.last, second.last) == (3, 4)  # at hour 5 the label of hour 3 is just known
    assert first.at == BEGIN + 5 * HOUR
    assert run.turns[5].predicted.first == 5
    assert run.turns[5].serving == "1.0"


def test_a_batch_is_predicted_before_its_own_labels_are_learned(engine):
    """With labels known at once, the rows of a batch are learned by the next turn, never by their own."""
    run = replay(engine(columns(240), stateful(), batch="1d"))
    for turn in run.turns:
        for version in turn.trained:
            assert version.last < (turn.predicted.first if turn.predicted else 0)


def test_loss_is_that_of_predictions_made_before_learning(engine):
    """The loss of a turn is that of what was predicted then, not of what the new model would say."""
    frozen = replay(engine(columns(240), strategies.Frozen(LogisticRegression(), initial="5d"), batch="1d"))
    turn = frozen.turns[7]
    before = frozen.turns[6].predicted
    truth = np.where(columns(240)["y"][before.first : before.first + 24] == "up", "up", "down")
    column = [list(turn.classes).index(label) for label in truth]
    expected = -np.log(before.prediction.proba[np.arange(24), column]).sum()
    assert turn.loss.n == 24
    assert turn.loss.total == pytest.approx(expected)
    assert turn.loss.name == "log_loss"


def test_close_scores_and_trains_nothing(engine):
    """At the end of the recording labels are joined and scored, and no trigger is asked."""
    run = replay(engine(columns(240), stateful(trigger=triggers.every(rows=1)), batch="1d"))
    close = run.turns[-1]
    assert close.loss.n == 24
    assert len(close.joined.position) == 24
    assert close.trained == close.decisions == ()
    assert close.predicted is None


def test_a_tick_fires_schedules_on_an_idle_stream(engine):
    """Without a row for weeks, a tick joins the last labels and makes the training of the schedule."""
    run = replay(engine(columns(144), stateless(), batch="1d", label_delay="2d"), close=False)
    assert [v.number for v in run.versions] == ["1.0"]
    now = BEGIN + 10 * 24 * HOUR
    turn = run.engine.advance(Tick(now=now))
    assert [v.number for v in turn.trained] == ["2.0"]
    assert turn.trained[0].trained_rows == 144
    assert turn.rows == 0
    assert turn.predicted is None


def test_the_first_training_may_come_with_a_tick(engine):
    """The initial period ends by the clock, row or no row."""
    run = replay(engine(columns(72), stateless(), batch="1d"), close=False)
    assert not run.versions
    turn = run.engine.advance(Tick(now=BEGIN + 5 * 24 * HOUR))
    assert turn.trained[0].trained_rows == 72


@pytest.mark.parametrize("event", [Tick(now=0), Close(now=0)], ids=["tick", "close"])
@pytest.mark.parametrize("make", [stateless, lambda: stateful(initial=None)], ids=["stateless", "untrained"])
def test_an_engine_that_saw_no_batch_does_nothing(engine, event, make):
    """Neither a tick nor the end of an empty recording is an error."""
    turn = engine(columns(10), make()).engine.advance(event)
    assert turn.trained == ()
    assert turn.serving is None


def test_turns_are_numbered_and_committed_in_order(engine):
    """Every event is one turn, and turn numbers leave no gap."""
    run = replay(engine(columns(100), stateless(initial=40), batch=10))
    assert [turn.index for turn in run.turns] == list(range(11))


# ---------------------------------------------------------------------- versions


def test_versions_say_where_they_come_from(engine):
    """MAJOR counts fits and MINOR updates; parents, rows, newest event time and reasons are those of the training."""
    strategy = strategies.Hybrid(
        SGDClassifier(loss="log_loss", random_state=0), initial="5d", trigger=triggers.every("1d"),
        reset=triggers.every("3d"), window=windows.Sliding("4d"),
    )  # fmt: skip
    run = replay(engine(columns(240), strategy, batch="1d"))
    numbers = [v.number for v in run.versions]
    assert numbers == ["1.0", "1.1", "1.2", "2.0", "2.1"]
    assert [v.parent for v in run.versions] == [None, "1.0", "1.1", "1.2", "2.0"]
    assert [v.kind for v in run.versions] == ["fit", "update", "update", "fit", "update"]
    assert [v.trained_rows for v in run.versions] == [96, 24, 24, 96, 24]
    assert (run.versions[3].first, run.versions[3].last) == (96, 191)
    assert run.versions[3].newest == BEGIN + 191 * HOUR
    assert run.versions[1].newest == BEGIN + 143 * HOUR
    assert run.versions[0].reason == "end of the initial period"
    assert "every 3d" in run.versions[3].reason
    assert len({v.key for v in run.versions}) == 5
    turn = run.turns[9]
    assert turn.serving == "2.1"
    assert turn.staleness == turn.now - run.versions[4].newest


def test_an_untrained_start_is_version_one_zero(engine):
    """``initial=None`` predicts from the first row on; the first update makes 1.1, and nothing made 1.0."""
    run = replay(engine(columns(20), stateful(initial=None, trigger=triggers.every(rows=1)), batch=5))
    assert run.turns[0].serving == "1.0"
    assert run.turns[0].predicted is not None
    assert run.turns[0].staleness is None
    assert [(v.number, v.kind) for v in run.versions][:2] == [("1.0", "start"), ("1.1", "update")]
    assert [v.number for v in run.versions] == ["1.0", "1.1", "1.2", "1.3"]
    assert [v.parent for v in run.versions] == [None, "1.0", "1.1", "1.2"]


def test_every_example_is_learned_once_across_a_reset(engine):
    """What a reset's half-open window leaves out because it is too new, the next update learns; nothing is lost."""
    cols = columns(240)
    cols["at"] = START + np.arange(240) // 8 * np.timedelta64(8, "h")  # many rows share an instant
    strategy = strategies.Hybrid(
        SGDClassifier(loss="log_loss", random_state=0), initial=40, trigger=triggers.every(rows=1),
        reset=triggers.every(rows=60), window=windows.Sliding("3d"),
    )  # fmt: skip
    run = replay(engine(cols, strategy, batch=10, label_delay="8h"))
    newest, learned = 0, []
    for turn in run.turns:
        for version in turn.trained:
            if version.kind == "update":
                assert version.first == newest + 1, "rows between a reset and its first update were skipped"
                assert version.trained_rows == version.last - version.first + 1
                learned.append(version.number)
            newest = version.last
    assert len(learned) > 5


# ---------------------------------------------------------------------- labels


def test_rows_without_a_label_are_predicted_and_never_learned(engine):
    """A null label is no class: such rows get a prediction, and no training counts them."""
    cols = columns(240)
    labels = np.where(np.arange(240) % 3 == 0, None, cols["y"])
    cols["y"] = pa.array(labels.tolist(), pa.string())
    run = replay(engine(cols, stateless(), batch="1d"))
    assert run.versions[0].trained_rows == 80
    assert len(run.said()) == 120
    assert set(run.engine.classes) == {"up", "down"}


def test_a_semi_supervised_learner_is_given_unlabelled_rows_too(engine):
    """Self-training gets every row that came, labelled or not."""
    cols = columns(240)
    labels = np.where(np.arange(240) % 3 == 0, None, cols["y"])
    cols["y"] = pa.array(labels.tolist(), pa.string())
    run = replay(engine(cols, stateless(SelfTrainingClassifier(LogisticRegression())), batch="1d"))
    assert run.versions[0].trained_rows == 120
    assert {name for _, name, _ in run.said()} == {"up", "down"}


class Counts(plain.Logistic):
    """Remembers by how many rows, with and without labels, each training was taught; learns those with a label."""

    wants_unlabelled = True

    def __init__(self):
        super().__init__()
        self.taught = []

    def _count(self, examples):
        self.taught.append((int((examples.codes >= 0).sum()), int((examples.codes < 0).sum())))
        return examples.take(np.flatnonzero(examples.codes >= 0))

    def _with(self, state):
        new = Counts()
        new._state, new.taught = state, self.taught
        return new

    def fit(self, examples, seed):
        return self._with(plain.Logistic().fit(self._count(examples), seed)._state)

    def update(self, examples, seed):
        super().update(self._count(examples), seed)


def test_updates_learn_rows_without_a_label_as_they_come_and_with_it_later(engine):
    """Each row once without its label, unless that is known by then, and once with it; none twice the same way."""
    learner = Counts()
    run = replay(engine(columns(240), stateful(learner), batch="1d", label_delay="36h"))
    (first_with, first_without), *updates = learner.taught
    assert (first_with, first_without) == (85, 35)
    assert all(without == 24 for _, without in updates)
    assert first_with + sum(with_label for with_label, _ in updates) == 181  # known by the start of the last batch
    assert [v.trained_rows for v in run.versions[1:]] == [a + b for a, b in updates]


def test_where_labels_come_at_once_no_row_is_learned_without_one(engine):
    """The label is known before the update that would have done without it."""
    learner = Counts()
    replay(engine(columns(240), stateful(learner), batch="1d"))
    assert all(without == 0 for _, without in learner.taught)
    assert sum(with_label for with_label, _ in learner.taught) == 216


def test_late_rows_join_the_next_batch_and_are_flagged(engine):
    """A row that comes after younger ones is counted as late, predicted where it came, and learned."""
    cols = columns(240)
    cols["at"][100] = cols["at"][60]
    run = replay(engine(cols, stateful(), batch="1d", lateness="3d"))
    assert [turn.late for turn in run.turns] == [0] * 4 + [1] + [0] * 6
    assert run.versions[0].trained_rows == 120
    assert sum(v.trained_rows for v in run.versions) == 216


def test_a_revised_label_wins_in_windows_and_is_not_learned_again_by_updates(engine):
    """Windows see the latest label known at the cut; a stateful line learns each row once, with the first."""
    cols = columns(240)
    cols["id"] = np.arange(240)
    truth = cols["y"].copy()
    log = pa.table(
        {"id": np.arange(48), "y": np.where(truth[:48] == "up", "down", "up"),
         "known_at": START + np.repeat(np.timedelta64(6 * 24, "h"), 48)}
    )  # fmt: skip
    seen = []

    class Spy(GaussianNB):
        def fit(self, X, y):
            seen.append(np.asarray(y).copy())
            return super().fit(X, y)

    replay(engine(cols, stateless(Spy(), trigger=triggers.every("2d")), id="id", labels=log, batch="1d"))
    assert (seen[0][:48] == truth[:48]).all()
    assert (seen[1][:48] != truth[:48]).all()
    assert (seen[1][48:] == truth[48 : len(seen[1])]).all()
    run = replay(engine(cols, stateful(), id="id", labels=log, batch="1d"))
    assert sum(v.trained_rows for v in run.versions) == 216
    revised = [turn for turn in run.turns if turn.joined.revised.any()]
    assert len(revised) == 1
    assert revised[0].joined.revised.sum() == 48


@pytest.mark.parametrize("wait", ["30h", "9d"])
def test_labels_that_only_a_log_brings_are_learned_and_scored(engine, wait):
    """Rows that came without a label are held for as long as the log may bring one."""
    cols = columns(600)
    y = cols.pop("y")
    cols["id"] = np.arange(600)
    hours = int(wait[:-1]) * (24 if wait.endswith("d") else 1)
    log = pa.table({"id": np.arange(600), "y": y, "known_at": cols["at"] + np.timedelta64(hours, "h")})
    settings = {"id": "id", "labels": log, "batch": "1d", "label_wait": timedelta(hours=hours)}
    run = replay(engine(cols, stateful(initial="12d"), **settings))
    known = 600 - hours - 24  # by the start of the last batch
    assert sum(v.trained_rows for v in run.versions) == known + 1
    firing = replay(engine(cols, stateless(initial="12d", trigger=triggers.loss_above(0.0, rows=20)), **settings))
    assert len(firing.versions) > 1
    assert len(firing.engine._pending) < 12


# ---------------------------------------------------------------------- quality


def test_a_quarantined_batch_is_predicted_recorded_and_never_learned(engine):
    """A batch out of range keeps the champion answering; its labels are scored, and no window or update takes them."""
    cols = columns(240)
    cols["a"][144:150] = 1e6
    quality = Quality(ranges={"a": (-10, 10)})
    for strategy in (stateless(trigger=triggers.every("1d")), stateful()):
        run = replay(engine(cols, strategy, batch="1d", settings={"quality": quality}))
        bad = run.turns[6]
        assert "outside [-10, 10]" in bad.quarantined
        assert [t.quarantined for t in run.turns].count(None) == 10
        assert bad.predicted is not None
        assert len(bad.predicted.time) == 24
        assert run.turns[7].loss.n == 24
        rows = [version.trained_rows for version in run.versions]
        learned = rows[-1] if strategy.kind == "stateless" else sum(rows)
        assert learned == 192


def test_rows_that_get_no_label_in_time_are_never_learned(engine):
    """Labels are judged when they are due: an outage of the label feed is quarantined, and no earlier label with it."""
    cols = columns(240)
    y = cols["y"].astype(object)
    y[144:160] = None
    table = pa.table({**cols, "y": pa.array(y.tolist())})
    settings = {"quality": Quality(labelled=0.5, least_rows=10)}
    for strategy in (stateless(trigger=triggers.every("1d")), stateful()):
        run = replay(engine(table, strategy, batch="1d", label_delay="12h", settings=settings))
        (bad,) = [turn for turn in run.turns if turn.quarantined]
        assert bad.quarantined == "46% of the 24 rows whose label was due have one, least 50%"
        assert bad.index == 7
        assert len(bad.joined.position) == 11, "they are joined and scored all the same"
        rows = [version.trained_rows for version in run.versions]
        learned = rows[-1] if strategy.kind == "stateless" else sum(rows)
        assert learned == 205 - 16 - 11


def test_labels_of_an_unlikely_rate_are_never_learned(engine):
    """A feed that says the same of everything is not learned from, and neither windows nor updates take its rows."""
    cols = columns(240)
    cols["y"][144:168] = "up"
    settings = {"quality": Quality(label_rates={"up": (0.1, 0.9)})}
    for strategy in (stateless(trigger=triggers.every("1d")), stateful()):
        run = replay(engine(cols, strategy, batch="1d", settings=settings))
        assert [turn.index for turn in run.turns if turn.quarantined] == [7]
        assert run.turns[7].quarantined == "100.0% of 24 labels are 'up', outside [10.0%, 90.0%]"
        rows = [version.trained_rows for version in run.versions]
        learned = rows[-1] if strategy.kind == "stateless" else sum(rows)
        assert learned == 9 * 24 - 24


def test_judging_labels_sees_no_future(engine):
    """Labels that come later change no earlier verdict: a turn is the same whatever follows."""
    cols = columns(240)
    y = cols["y"].astype(object)
    y[150:170] = None
    other = y.copy()
    other[190:] = None
    settings = {"quality": Quality(labelled=0.9, least_rows=5)}
    told = []
    for labels in (y, other):
        table = pa.table({**cols, "y": pa.array(labels.tolist())})
        run = replay(engine(table, stateful(), batch="6h", label_delay="10h", settings=settings))
        told.append([(turn.quarantined, turn.trained) for turn in run.turns])
    until = 190 // 6 + 2
    assert told[0][:until] == told[1][:until]
    assert any(fault for fault, _ in told[0][:until])


def test_a_window_of_rows_is_full_behind_a_quarantined_batch(engine):
    """Rows in quarantine do not crowd out those that the window counts."""
    cols = columns(480)
    cols["a"][336:456] = 1e6
    strategy = stateless(window=windows.Sliding(rows=100), trigger=triggers.every("1d"))
    run = replay(engine(cols, strategy, batch="1d", settings={"quality": Quality(ranges={"a": (-10, 10)})}))
    assert {v.trained_rows for v in run.versions} == {100}


# ---------------------------------------------------------------------- failures


class Failing(GaussianNB):
    """Fails to fit when asked the second time or later, or from the start."""

    fits = 0
    fail_from = 1

    def fit(self, X, y):
        type(self).fits += 1
        if type(self).fits > type(self).fail_from:
            raise FloatingPointError("the solver diverged")
        return super().fit(X, y)


def test_a_fit_that_fails_leaves_the_champion(engine):
    """After the first version a failing training is a note, and the champion answers on."""
    kind = type("FailsLater", (Failing,), {"fits": 0, "fail_from": 1})
    run = replay(engine(columns(360), stateless(kind()), batch="1d"))
    assert [v.number for v in run.versions] == ["1.0"]
    assert {number for _, _, number in run.said()} == {"1.0"}
    notes = [note for turn in run.turns for note in turn.notes]
    assert notes
    assert "the champion stays" in notes[0]
    assert "the solver diverged" in notes[0]


def test_a_first_fit_that_fails_is_an_error(engine):
    """There is no champion to keep: the error names the model, the instant and the cause."""
    kind = type("FailsAtOnce", (Failing,), {"fits": 0, "fail_from": 0})
    with pytest.raises(LearnerError, match=r"FailsAtOnce failed to train at 2026-01-06 00:00: the solver diverged"):
        replay(engine(columns(240), stateless(kind()), batch="1d"))


class Fragile(SGDClassifier):
    """Learns half of an update and then fails, as often as told."""

    fails: ClassVar[list[bool]] = []

    def partial_fit(self, X, y, classes=None):
        out = super().partial_fit(X, y, classes)
        if classes is None and type(self).fails and type(self).fails.pop(0):
            raise FloatingPointError("overflow")
        return out


def test_an_update_that_fails_is_recorded_and_changes_nothing(engine):
    """The half-learned state is undone, the rows wait for the next update, and the line goes on as if never hurt."""
    Fragile.fails = [False, True, False]
    run = replay(engine(columns(240), stateful(Fragile(loss="log_loss", random_state=0)), batch="1d"))
    assert Fragile.fails == []
    ((at, note),) = [(turn.index, note) for turn in run.turns for note in turn.notes]
    assert "update failed: Fragile failed to train at 2026-01-07 00:00: overflow" in note.replace("-08", "-07")
    assert "24 rows wait for the next update" in note
    assert not run.turns[at].trained
    after = next(turn.trained[0] for turn in run.turns[at + 1 :] if turn.trained)
    assert after.trained_rows == 48
    assert sum(v.trained_rows for v in run.versions) == 9 * 24
    assert [v.minor for v in run.versions] == list(range(len(run.versions)))

    Fragile.fails = [False]
    clean = engine(columns(240), stateful(Fragile(loss="log_loss", random_state=0)), batch="1d")
    replay(clean, upto=at)
    replay(failed := engine(columns(240), stateful(Fragile(loss="log_loss", random_state=0)), batch="1d"), upto=at)
    Fragile.fails = [True]
    failed.engine.advance(list(failed.prepared.batches("classification"))[at])
    assert failed.engine._tip.model.digest() == clean.engine._tip.model.digest()


def test_rows_that_cannot_be_learned_are_given_up(engine):
    """Three failures in a row quarantine the examples: poison neither stops a line for good nor fills memory."""
    Fragile.fails = [True, True, True]
    run = replay(engine(columns(240), stateful(Fragile(loss="log_loss")), batch="1d"))
    notes = [note for turn in run.turns for note in turn.notes]
    assert ["wait for" in note for note in notes] == [True, True, False]
    (given_up,) = [turn.quarantined for turn in run.turns if turn.quarantined]
    assert given_up == "72 rows failed to be learned 3 times in a row"
    assert sum(v.trained_rows for v in run.versions) == 9 * 24 - 72
    assert "2026-01-10" in f"{run.versions[1].trained_at}"


def test_failures_make_a_limited_trigger_back_off(engine):
    """A training that fails counts as a rejection: it is not tried again at every turn."""
    kind = type("FailsLater", (Failing,), {"fits": 0, "fail_from": 1})
    trigger = triggers.limited(triggers.every("1d"), least_gap="1d", back_off=2.0, rejected=1)
    run = replay(engine(columns(20 * 24), stateless(kind(), trigger=trigger), batch="1d"))
    failures = [turn.index for turn in run.turns for note in turn.notes if "failed" in note]
    assert 1 < len(failures) < 6


def test_a_prediction_that_fails_is_an_error(engine):
    """The message names version and row."""

    class Mute(GaussianNB):
        def predict_proba(self, X):
            raise FloatingPointError("mute")

        predict = predict_proba

    with pytest.raises(LearnerError, match=r"Mute 1\.0 failed to predict rows from 120 .*mute"):
        replay(engine(columns(240), stateless(Mute()), batch="1d"))


def test_an_empty_first_window_is_an_error_that_says_what_to_do(engine):
    """No label known by the end of the initial period."""
    with pytest.raises(DataError, match=r"the first window is empty.*no label is known by then"):
        replay(engine(columns(240), stateless(), batch="1d", label_delay="6d"))


def test_an_empty_later_window_keeps_the_champion(engine):
    """A window that a gap in the data emptied is a decision not to train."""
    cols = columns(240)
    cols["at"][150:] += np.timedelta64(60, "D")
    run = replay(engine(cols, stateless(window=windows.Sliding("3d"), trigger=triggers.every("1d")), batch="1d"))
    reasons = [d.reason for turn in run.turns for d in turn.decisions]
    assert any("nothing to learn, the last 3d is empty" in reason for reason in reasons)
    assert run.versions[-1].trained_rows > 0


def test_a_learner_that_cannot_update_is_refused_at_once(engine):
    """Before any batch."""
    with pytest.raises(LearnerError, match=r"a stateful strategy updates its model, and .*LogisticRegression.* cannot"):
        engine(columns(10), stateful(LogisticRegression()))


# ---------------------------------------------------------------------- latency


@pytest.mark.parametrize("make", [stateless, stateful], ids=["stateless", "stateful"])
def test_a_version_serves_once_it_is_ready(engine, make):
    """With a train latency the older state serves until then, bit for bit, although the newer exists."""
    cols = columns(360)
    strategy = make(trigger=triggers.every("1d"))
    prompt = replay(engine(cols, strategy, batch="12h"))
    slow = replay(engine(cols, strategy, batch="12h", settings={"train_latency": timedelta(hours=30)}))
    assert [v.number for v in slow.versions] == [v.number for v in prompt.versions]
    assert all(v.ready_at == v.at + 30 * HOUR for v in slow.versions)
    served = [turn for turn in slow.turns if turn.predicted is not None]
    assert all(t.serving == [v.number for v in slow.versions if v.ready_at <= t.now][-1] for t in served)
    assert served[0].predicted.first == 120 + 36  # the first that begins 30 hours after the first training
    states = {}
    again = engine(cols, strategy, batch="12h")  # a prompt run, whose states are kept as they were
    for batch in again.prepared.batches("classification"):
        for version in again.engine.advance(batch).trained:
            model = again.engine._tip.model
            states[version.number] = model.load(model.save())
    batches = {batch.first: batch for batch in again.prepared.batches("classification")}
    for turn in served:
        told = align(states[turn.serving].predict(batches[turn.predicted.first].features), turn.classes)
        np.testing.assert_array_equal(told.proba, turn.predicted.prediction.proba)


# ---------------------------------------------------------------------- gate


@dataclass(frozen=True)
class Seen:
    """Evidence that remembers every paired row."""

    block: tuple[int, ...] = ()
    difference: tuple[float, ...] = ()

    def add(self, block, difference):
        return Seen(self.block + tuple(block.tolist()), self.difference + tuple(difference.tolist()))

    def to_plain(self):
        return {"block": list(self.block), "difference": list(self.difference)}


@dataclass
class Picky:
    """A gate that says the same of every challenger, from the first turn or from so many paired rows on."""

    outcome: str = "reject"
    mode: str = "before"
    on_reject: str = "back"
    rows: int = 0
    seen: list = field(default_factory=list)

    def begin(self):
        return Seen()

    def resume(self, plain):
        return Seen(tuple(plain["block"]), tuple(plain["difference"]))

    def blocks(self, time, position):
        return time // (24 * HOUR)

    def judge(self, evidence, *, now, begun, challenger, champion):
        self.seen.append((evidence, challenger, champion))
        outcome = self.outcome if len(evidence.difference) >= self.rows else "keep"
        return Verdict(outcome=outcome, version=challenger.number, reason="tested", champion=champion.number)


@pytest.mark.parametrize("make", [stateless, stateful], ids=["stateless", "stateful"])
@pytest.mark.parametrize("outcome", ["reject", "keep"])
def test_a_challenger_that_is_not_promoted_never_serves(engine, make, outcome):
    """The champion answers on with its own state, although challengers are trained from it."""
    cols = columns(360)
    run = replay(engine(cols, make(trigger=triggers.every("2d")), batch="1d", settings={"gate": Picky(outcome)}))
    assert len(run.versions) > 2 or (outcome == "keep" and make is stateless)
    assert {turn.serving for turn in run.turns} == {None, "1.0"}
    frozen = make(trigger=triggers.every("300d"))
    alone = replay(engine(cols, frozen, batch="1d"))
    assert run.said() == alone.said()
    verdicts = [verdict.outcome for turn in run.turns for verdict in turn.verdicts]
    assert verdicts[0] == "promote"
    assert set(verdicts[1:]) == {"keep", outcome}


@dataclass(frozen=True)
class Listening:
    """Fires at a fixed interval, and remembers the facts."""

    heard: list
    inner: object = triggers.every("2d")

    def start(self):
        return None

    def step(self, state, facts):
        self.heard.append(facts)
        return self.inner.step(state, facts)

    def trained(self, state, facts):
        return state


@pytest.mark.parametrize("make", [stateless, stateful], ids=["stateless", "stateful"])
@pytest.mark.parametrize(
    ("gate", "own"),
    [
        (None, {True}),
        (Picky("keep"), {True, False}),
        (Picky("reject"), {True, False}),
        (Picky("promote", rows=48), {True, False}),
        (Picky("promote", mode="after"), {True}),
    ],
    ids=["none", "keep", "reject", "promote", "after"],
)
def test_a_trigger_hears_whose_losses_it_sees(engine, make, gate, own):
    """Losses are the last training's own unless that is on trial, or was turned down."""
    heard = []
    run = replay(engine(columns(480), make(trigger=Listening(heard)), batch="1d", settings={"gate": gate}))
    assert {facts.own for facts in heard} == own
    second = run.versions[1].at
    assert all(facts.own for facts in heard if facts.now <= second)
    if gate is not None and gate.outcome != "promote":
        assert not any(facts.own for facts in heard if facts.now > second)


def test_numbers_are_never_given_twice(engine):
    """A line that goes back to its champion leaves the numbers of what was rejected."""
    run = replay(engine(columns(480), stateful(), batch="1d", settings={"gate": Picky()}))
    numbers = [v.number for v in run.versions]
    assert len(set(numbers)) == len(numbers) > 5
    assert {v.parent for v in run.versions[1:]} == {"1.0"}
    going_on = replay(engine(columns(480), stateful(), batch="1d", settings={"gate": Picky(on_reject="go_on")}))
    assert [v.parent for v in going_on.versions[1:]] == [v.number for v in going_on.versions[:-1]]
    refits = replay(engine(columns(480), stateless(trigger=triggers.every("1d")), batch="1d",
                           settings={"gate": Picky()}))  # fmt: skip
    assert [v.number for v in refits.versions] == [f"{i}.0" for i in range(1, len(refits.versions) + 1)]
    assert {v.parent for v in refits.versions[1:]} == {"1.0"}


def test_evidence_is_what_both_lines_had_predicted(engine):
    """Paired rows are those that the shadow and the champion predicted; each difference is that of their own losses."""
    cols = columns(480)
    gate = Picky("keep")
    run = replay(engine(cols, stateful(trigger=triggers.every("2d")), batch="1d", settings={"gate": gate}))
    evidence, challenger, champion = gate.seen[-1]
    assert champion.number == "1.0"
    assert challenger.major == 1
    assert challenger.minor > 3
    # the same line without a gate, and a frozen one, said the same: their losses are the pairs
    alone = replay(engine(cols, stateful(trigger=triggers.every("2d")), batch="1d"))
    frozen = replay(engine(cols, stateful(trigger=triggers.every("300d")), batch="1d"))
    shown = {row: (turn, i) for turn in alone.turns if turn.predicted
             for i, row in enumerate(range(turn.predicted.first, turn.predicted.first + turn.rows))}  # fmt: skip

    def brier(turn, i, label):
        proba = turn.predicted.prediction.proba[i]
        truth = [float(c == label) for c in turn.predicted.prediction.classes]
        return sum((p - t) ** 2 for p, t in zip(proba, truth, strict=True)) / 2

    first = next(v for v in run.versions if v.number != "1.0")
    rows = [r for r in range(480) if first.at <= BEGIN + r * HOUR]
    assert len(evidence.difference) == len(rows)
    served = {row: (turn, i) for turn in frozen.turns if turn.predicted
              for i, row in enumerate(range(turn.predicted.first, turn.predicted.first + turn.rows))}  # fmt: skip
    expected = [brier(*shown[r], cols["y"][r]) - brier(*served[r], cols["y"][r]) for r in rows]
    np.testing.assert_allclose(evidence.difference, expected, atol=1e-12)
    assert list(evidence.block) == [(BEGIN + r * HOUR) // (24 * HOUR) for r in rows]


def test_a_promotion_takes_the_version_that_was_watched(engine):
    """It serves from the turn of the verdict on, with what it knew before that turn's training."""
    gate = Picky("promote", rows=48)
    run = replay(engine(columns(480), stateful(), batch="1d", settings={"gate": gate}))
    at, verdict = next((t, v) for t in run.turns for v in t.verdicts if v.outcome == "promote" and v.champion)
    assert at.serving == verdict.version
    assert at.trained[0].parent == verdict.version
    assert [t.challenger for t in run.turns if t.index < at.index][-1] == verdict.version
    assert at.challenger == at.trained[0].number, "the next trial begins at once"


def test_serving_first_and_rolling_back(engine):
    """Mode after: a new version serves at once, and the one before answers again when labels speak against it."""
    cols = columns(480)
    gate = Picky("reject", mode="after", rows=48)
    run = replay(engine(cols, stateful(trigger=triggers.every("1d")), batch="1d", settings={"gate": gate}))
    serving = [turn.serving for turn in run.turns]
    assert serving[6] == "1.1"
    back = next(t for t in run.turns for v in t.verdicts if v.outcome == "reject")
    assert back.serving == "1.0" or back.trained[0].parent == "1.0"
    assert back.trained[0].parent == "1.0"
    alone = replay(engine(cols, stateful(trigger=triggers.every("300d")), batch="1d"))
    once = stateless(trigger=triggers.every("9d"))
    run = replay(engine(cols, once, batch="1d", settings={"gate": Picky("reject", mode="after", rows=48)}))
    assert "2.0" in {number for _, _, number in run.said()}
    assert [turn.serving for turn in run.turns][-1] == "1.0"
    assert alone.versions[0].number == "1.0"


def test_one_challenger_line_at_a_time(engine):
    """A refit waits while another is on trial; where updates are on trial it takes their place."""
    gate = Picky("keep")
    run = replay(engine(columns(480), stateless(trigger=triggers.every("2d")), batch="1d", settings={"gate": gate}))
    assert [v.number for v in run.versions] == ["1.0", "2.0"]
    waits = [d.reason for t in run.turns for d in t.decisions if "still on trial" in d.reason]
    assert waits
    assert "2.0 is still on trial" in waits[0]
    hybrid = strategies.Hybrid(GaussianNB(), initial="5d", trigger=triggers.every("1d"), reset=triggers.every("5d"))
    gate = Picky("keep")
    run = replay(engine(columns(480), hybrid, batch="1d", settings={"gate": gate}))
    assert {v.major for v in run.versions} == {1, 2}
    assert run.versions[-1].major == 2
    assert run.versions[-1].minor > 5
    assert {champion.number for _, _, champion in gate.seen} == {"1.0"}
    assert len(gate.seen[-1][0].difference) < 24 * 12, "evidence began anew with the new line"


class Bomb(GaussianNB):
    """Predicts nothing once it has learned more rows than the first version."""

    def predict_proba(self, X):
        if self.class_count_.sum() > 130:
            raise FloatingPointError("boom")
        return super().predict_proba(X)


def test_a_challenger_that_serves_and_cannot_predict_is_rolled_back(engine):
    """Mode after: the version before answers in the same turn, and the run goes on."""
    gate = Picky("keep", mode="after")
    run = replay(engine(columns(360), stateless(Bomb(), trigger=triggers.every("2d")), batch="1d",
                        settings={"gate": gate}))  # fmt: skip
    rejected = [v for turn in run.turns for v in turn.verdicts if v.outcome == "reject"]
    assert rejected
    assert all("boom" in v.reason for v in rejected)
    assert {number for _, _, number in run.said()} == {"1.0"}
    assert len(run.said()) == 240


@pytest.mark.parametrize("hours", [0, 30])
def test_a_line_is_watched_though_its_versions_take_time(engine, hours):
    """With a train latency the newest version that is ready is shown, and promoted."""
    settings = {"gate": Picky("promote", rows=48), "train_latency": timedelta(hours=hours)}
    run = replay(engine(columns(480), stateful(), batch="1d", settings=settings))
    promoted = [v.version for turn in run.turns for v in turn.verdicts if v.outcome == "promote" and v.champion]
    assert len(promoted) > 2
    assert run.turns[-1].serving not in (None, "1.0")
    ready = {v.number: v.ready_at for v in run.versions}
    assert all(turn.now >= ready[turn.serving] for turn in run.turns if turn.serving)


def test_evidence_is_of_the_line_on_trial(engine):
    """Mode after with latency: what the line before had said is no evidence for one that is not ready."""
    gate = Picky("keep", mode="after")
    settings = {"gate": gate, "train_latency": timedelta(hours=30)}
    run = replay(engine(columns(480), stateless(trigger=triggers.every("4d")), batch="1d", settings=settings))
    serving = {turn.index: turn.serving for turn in run.turns}
    for evidence, challenger, _ in gate.seen:
        shown = sum(24 for turn in run.turns if serving[turn.index] == challenger.number and turn.predicted)
        assert len(evidence.difference) <= shown


def test_an_untrained_start_is_no_champion_to_beat(engine):
    """What abstains gives no evidence: the first trained version takes its place untested."""
    line = strategies.Stateful(GaussianNB(), initial=None, trigger=triggers.every("1d"))
    run = replay(engine(columns(240), line, batch="1d", settings={"gate": Picky("promote", rows=24)}))
    assert run.turns[-1].serving not in (None, "1.0")


def test_a_gate_of_mode_none_is_no_gate(engine):
    """It promotes everything untested, as if there were none."""
    told = []
    for gate in (None, Gate(mode="none")):
        run = replay(engine(columns(240), stateful(), batch="1d", settings={"gate": gate}))
        told.append(run.said())
    assert told[0] == told[1]


def test_quarantined_labels_are_no_evidence(engine):
    """A label feed that breaks promotes nobody who agrees with it."""
    cols = columns(480)
    cols["y"][240:312] = "down"
    gate = Picky("keep")
    settings = {"gate": gate, "quality": Quality(label_rates={"up": (0.1, 0.9)})}
    replay(engine(cols, stateful(), batch="1d", settings=settings))
    evidence, _, _ = gate.seen[-1]
    clean = Picky("keep")
    replay(engine(columns(480), stateful(), batch="1d", settings={"gate": clean}))
    assert len(clean.seen[-1][0].difference) - len(evidence.difference) == 72


def test_the_last_verdict_is_carried_out(engine):
    """A promotion at the end of a recording moves the champion."""
    gate = Picky("promote", rows=24 * 10)
    run = replay(engine(columns(24 * 16), stateless(trigger=triggers.every("1d")), batch="1d",
                        settings={"gate": gate}))  # fmt: skip
    last = run.turns[-1]
    assert [v.outcome for v in last.verdicts] == ["promote"]
    assert last.serving == last.verdicts[0].version


def test_a_line_that_waits_keeps_its_interval(engine):
    """While a reset waits for a trial, updates come when their own trigger says."""
    line = strategies.Hybrid(GaussianNB(), initial="5d", trigger=triggers.every("3d"), reset=triggers.every("4d"))
    run = replay(engine(columns(24 * 30), line, batch="1d", settings={"gate": Picky("keep")}))
    days = [(v.at - BEGIN) // (24 * HOUR) for v in run.versions if v.kind == "update"]
    assert min(np.diff(days)) >= 2
    assert len(days) > 4


def test_predictions_whose_labels_never_come_are_let_go(engine):
    """Labels that stop leave no growing list behind, where rows wait so long for a log."""
    cols = columns(1200)
    cols["id"] = np.arange(1200)
    log = pa.table({"id": np.arange(200), "y": cols["y"][:200], "known_at": cols["at"][:200] + np.timedelta64(2, "h")})
    cols.pop("y")
    settings = {"id": "id", "labels": log, "batch": "1d", "label_wait": timedelta(hours=72)}
    run = replay(engine(cols, stateful(), **settings), close=False)
    assert len(run.engine._pending) < 8


def test_an_operator_decides(engine):
    """A version that is made champion serves at once, and a stateful line goes on from it."""
    run = engine(columns(480), stateful(), batch="1d")
    batches = list(run.prepared.batches("classification"))
    for batch in batches[:9]:
        run.ledger.commit(run.engine.advance(batch))
    version = run.versions[0]
    model = as_learner(GaussianNB()).load(run.engine._tip.model.save())
    turn = run.engine.advance(Appoint(now=batches[9].start, version=version, model=model, reason="better in the shop"))
    assert turn.serving == "1.0"
    assert turn.decisions[0].fire
    assert "better in the shop" in turn.decisions[0].reason
    run.ledger.commit(turn)
    run.ledger.commit(run.engine.advance(batches[9]))
    assert run.versions[-1].parent == "1.0"
    assert run.versions[-1].number == "1.4"


def trained_elsewhere(cols, model=None):
    """A learner that was fitted on other rows, with labels in another order than the stream's."""
    model = (model or GaussianNB()).fit(np.column_stack([cols["a"], cols["b"]]), cols["y"])
    return as_learner(type(model)()).adopted(model, tuple(model.classes_.tolist()))


def test_an_adopted_model_is_champion_before_the_first_row(engine):
    """It predicts from the first row on, calendars count from there, and its classes come first in the table."""
    run = engine(columns(480), stateless(window=windows.Sliding("5d")), batch="1d")
    model = trained_elsewhere(columns(300, seed=4))
    event = Adopt(now=BEGIN - HOUR, model=model, reason="from the attic", classes=("up", "down"))
    turn = run.engine.advance(event)
    assert (turn.serving, turn.rows, turn.classes) == ("1.0", 0, ("up", "down"))
    assert [(v.kind, v.trained_rows, v.parent) for v in turn.trained] == [("adopt", 0, None)]
    assert turn.decisions[0].reason == "from the attic"
    with pytest.raises(ConfigError, match="only once"):
        run.engine.advance(event)
    run.ledger.commit(turn)
    replay(run)
    assert [row for row, _, number in run.said() if number == "1.0"] == list(range(5 * 24))
    first = next(run.prepared.batches("classification"))
    assert run.turns[1].predicted.prediction.classes == ("up", "down")
    expected = model.predict(first.features)
    assert np.array_equal(run.turns[1].predicted.prediction.proba, expected.proba[:, ::-1])
    assert [((v.at - BEGIN) // (24 * HOUR), v.parent) for v in run.versions[1:3]] == [(5, "1.0"), (10, "2.0")]
    with pytest.raises(ConfigError, match="before the first row"):
        replay(engine(columns(48), stateless(), batch="1d")).engine.advance(event)


def test_an_adopted_model_gives_way_to_none_that_knows_one_class(engine):
    """A trigger that fires before labels are known, or before a second class is, leaves the champion where it is."""
    cols = columns(240)
    cols["y"][:30] = "up"
    run = engine(cols, stateless(trigger=triggers.every("1d")), batch="1d", label_delay="2d")
    run.ledger.commit(run.engine.advance(Adopt(now=BEGIN, model=trained_elsewhere(columns(99)), reason="x")))
    replay(run)
    told = [decision.reason for turn in run.turns for decision in turn.decisions]
    assert any("nothing to learn" in reason for reason in told)
    assert any("too early, all 1 examples are 'up'" in reason for reason in told)
    assert (run.versions[1].at - BEGIN) // (24 * HOUR) == 4


def test_a_model_that_was_adopted_later_than_its_first_rows_is_compared(engine):
    """Rows of the past may come after the adoption: a challenger is held against the adopted champion all the same."""
    settings = {"gate": Gate(margin=0.1, mode="after")}
    run = engine(columns(300), stateless(), batch="1d", settings=settings)
    late = BEGIN + 10_000 * HOUR
    run.ledger.commit(run.engine.advance(Adopt(now=late, model=trained_elsewhere(columns(99)), reason="x")))
    replay(run, upto=7)
    assert run.turns[-1].serving == "2.0"
    assert run.engine._pending._batches[-1].shadow is not None


def test_rejections_reach_the_triggers(engine):
    """After two rejections the least gap doubles, and doubles again."""
    trigger = triggers.limited(triggers.every("1d"), least_gap="1d")
    run = replay(engine(columns(24 * 40), stateless(trigger=trigger), batch="1d", settings={"gate": Picky()}))
    days = [(v.at - BEGIN) // (24 * HOUR) for v in run.versions]
    assert np.diff(days).tolist() == [1, 1, 2, 4, 8, 16]


def test_a_rejected_challenger_does_not_blind_the_loss_trigger(engine):
    """The champion goes on predicting, and its losses go on being watched."""
    run = replay(
        engine(columns(480), stateless(trigger=triggers.loss_above(0.0, rows=20)), batch="1d",
               settings={"gate": Picky()})
    )  # fmt: skip
    assert len(run.versions) > 5
    assert all(turn.loss.n for turn in run.turns[6:])


# ---------------------------------------------------------------------- classes


def test_the_class_table_grows_in_order_of_first_known_label(engine):
    """A class seen later is appended, and older predictions keep their meaning."""
    cols = columns(240)
    cols["y"][:] = np.where(np.arange(240) % 2, "b", "a")
    cols["y"][130] = cols["y"][150] = cols["y"][160] = "new"
    run = replay(engine(cols, stateless(trigger=triggers.every("2d")), batch="1d"))
    assert run.turns[5].classes == ("a", "b")
    assert run.turns[6].classes == ("a", "b", "new")
    assert run.turns[6].predicted.prediction.proba.shape == (24, 3)  # 1.0 knows nothing of the new class
    assert not run.turns[6].predicted.prediction.proba[:, 2].any()
    assert run.turns[8].predicted.prediction.proba[:, 2].any()


def test_a_boolean_label_has_both_classes_from_the_start(engine):
    """False and True are known before any label is."""
    cols = columns(240)
    cols["y"] = cols["y"] == "up"
    run = engine(cols, stateless(), batch="1d", settings={"classes": (False, True)})
    assert replay(run).turns[0].classes == (False, True)


# ---------------------------------------------------------------------- determinism and memory


def fingerprint(run):
    """All that matters of the turns of a run."""
    return [
        (turn.now, turn.decisions, turn.trained, turn.serving, turn.loss, turn.classes, turn.kept_bytes,
         None if turn.predicted is None else turn.predicted.prediction.codes.tobytes())
        for turn in run.turns
    ]  # fmt: skip


def test_the_same_input_gives_the_same_turns(engine):
    """Two engines given the same events say the same, to the last bit."""
    for make in (stateless, stateful):
        runs = [replay(engine(columns(300), make(), batch=10, label_delay="5h")) for _ in range(2)]
        assert fingerprint(runs[0]) == fingerprint(runs[1])


WINDOWS = [
    (windows.Sliding("4d"), 4 * 24),
    (windows.Sliding(rows=100), 100),
    (windows.Sliding(rows=100, purge="20h", embargo="10h"), 130),
    (windows.Tumbling("2d"), 4 * 24),
    (windows.Tumbling(rows=50), 100),
    (windows.Decayed("12h", floor=0.1), 41),
    (windows.Decayed(rows=20, floor=0.1), 67),
    (windows.Mix(initial=0.3, recent=0.7, rows=100), 120 + 70),
]


@pytest.mark.parametrize(("window", "needed"), WINDOWS, ids=lambda w: str(w))
def test_memory_is_bounded_by_the_window(engine, window, needed):
    """However long the stream, the rows held are those that the window and the label delay need, and some slack."""
    most = {}
    for n in (1000, 4000):
        run = engine(columns(n), stateless(window=window, trigger=triggers.every("3d")), batch=8, label_delay="10h")
        held = []
        for batch in run.prepared.batches("classification"):
            run.engine.advance(batch)
            held.append(run.engine._book.rows)
        most[n] = max(held[200 // 8 :])
    bound = (max(needed, 120) + 10) * 17 / 16 + 2 * 8 + 24
    assert most[4000] <= max(bound, 150)
    assert most[4000] <= most[1000] + 16


@pytest.mark.parametrize("make", [stateful, lambda: strategies.Frozen(GaussianNB(), initial="5d")])
def test_without_refits_only_rows_that_wait_for_labels_are_held(engine, make):
    """Stateful training keeps no raw data but what waits."""
    run = engine(columns(3000), make(), batch=8, label_delay="10h")
    held = []
    for batch in run.prepared.batches("classification"):
        turn = run.engine.advance(batch)
        held.append(run.engine._book.rows)
        assert turn.kept_bytes == pytest.approx(held[-1] * 16, rel=0.01)
    assert max(held[40:]) <= 10 + 24 + 64 + 8


def test_giving_rows_up_changes_nothing(engine, monkeypatch):
    """An engine that keeps every row gives the same turns, for every window."""
    cols = columns(700)
    rng = np.random.default_rng(3)
    cols["k"] = cols["at"] + rng.integers(0, 50, 700) * np.timedelta64(1, "h")
    cols["a"][300:310] = 1e6
    quality = {"quality": Quality(ranges={"a": (-10, 10)}, least_rows=5)}
    for window, _ in WINDOWS:
        strategy = stateless(window=window, trigger=triggers.every("1d"))
        told = []
        for keep in (False, True):
            with monkeypatch.context() as patch:
                if keep:
                    patch.setattr("perennial.stream.book.Book.give_up", lambda *args, **kw: None)
                run = replay(engine(cols, strategy, batch=20, known_at="k", settings=quality))
                told.append([(turn.trained, turn.serving, turn.loss) for turn in run.turns])
        assert told[0] == told[1], window


def test_trainings_have_keys_by_content(engine):
    """Another seed, parameter, label or weight is another training; the same content is the same."""
    cols = columns(240)
    weighed = {**cols, "w": np.linspace(0.5, 1.5, 240)}
    flipped = {**cols, "y": cols["y"].copy()}
    flipped["y"][3] = "down" if cols["y"][3] == "up" else "up"

    def key(cols, model=None, seed=0, **stream):
        trainer = Recorded()
        stream = {"batch": "1d", **stream}
        replay(engine(cols, stateless(model or GaussianNB()), trainer=trainer, settings={"seed": seed}, **stream))
        return trainer.keys[0]

    base = key(cols)
    assert base == key(cols)
    others = [
        key(cols, seed=1),
        key(cols, GaussianNB(var_smoothing=1e-6)),
        key(flipped),
        key(weighed, weight="w"),
        key(cols, DummyClassifier()),
    ]
    assert len({base, *others}) == 6
    assert key(cols, GaussianNB(), batch="12h") == base, "batches are no content"


# ---------------------------------------------------------------------- held-out rows


HELD_OUT = Gate(margin=0.5, least_blocks=3, planned_labels=50, block=timedelta(hours=6), held_out=timedelta(days=2))


@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_fit_leaves_the_newest_rows_out_and_is_judged_by_them(engine, mode):
    """Both versions are asked about rows that neither learned; the verdict falls in the turn of the training."""
    cols = columns(480)
    gate = replace(HELD_OUT, mode=mode)
    run = replay(engine(cols, stateless(), batch="1d", label_delay="3h", settings={"gate": gate}))
    begun = next(turn for turn in run.turns if len(turn.verdicts) > 1)
    opening, verdict = begun.verdicts
    assert (opening.outcome, verdict.outcome, verdict.version) == ("keep", "promote", "2.0")
    assert begun.serving == "2.0"
    version = begun.trained[0]
    end = begun.now - 3 * HOUR - 48 * HOUR
    assert version.newest == end - HOUR
    rows = np.arange((end - BEGIN) // HOUR, (begun.now - 3 * HOUR - BEGIN) // HOUR + 1)
    assert rows[0] > run.versions[0].last
    assert verdict.evidence["held_out_rows"] == verdict.evidence["rows"] == len(rows)
    # the same by hand
    batches = list(run.prepared.batches("classification"))
    features = Features.join(batches[-1].features.schema, [batch.features for batch in batches])
    labels = np.array(cols["y"])

    def losses(upto):
        learned = slice(0, upto + 1)
        x = features.matrix()
        model = GaussianNB().fit(x[learned], labels[learned])
        proba = model.predict_proba(x[rows])
        truth = (labels[rows][:, None] == model.classes_).astype(float)
        return ((proba - truth) ** 2).sum(axis=1) / 2

    difference = losses(version.last) - losses(run.versions[0].last)
    assert verdict.evidence["mean"] == pytest.approx(difference.mean())


def test_what_the_champion_learned_is_no_evidence(engine):
    """Where trainings come more often than rows are held out, only those count that are newer than its own."""
    gate = replace(HELD_OUT, held_out=timedelta(days=4))
    run = replay(engine(columns(480), stateless(trigger=triggers.every("1d")), batch="1d", settings={"gate": gate}))
    last = {version.number: version for version in run.versions}
    told = [v for turn in run.turns for v in turn.verdicts if v.evidence.get("held_out_rows")]
    assert told
    for verdict in told:
        champion, challenger = last[verdict.champion], last[verdict.version]
        known = challenger.at - (BEGIN + HOUR * champion.last)
        assert verdict.evidence["held_out_rows"] <= min(known // HOUR, 96 + 1)
    assert told[0].evidence["held_out_rows"] < 96, "the first version left nothing out"


def test_held_out_rows_wait_like_others(engine):
    """No promotion before the least wait, whatever they say."""
    gate = replace(HELD_OUT, least_wait=timedelta(days=3))
    run = replay(engine(columns(480), stateless(), batch="1d", settings={"gate": gate}))
    begun = next(turn for turn in run.turns if len(turn.verdicts) > 1)
    assert [verdict.outcome for verdict in begun.verdicts] == ["keep", "keep"]
    promoted = next(turn for turn in run.turns if turn.index > 5 and any(v.outcome == "promote" for v in turn.verdicts))
    assert promoted.now - begun.now == 72 * HOUR


def test_rows_that_a_window_wants_are_kept_behind_those_held_out(engine):
    """A window of a day, three days before now, is as full as one of the newest day."""
    gate = replace(HELD_OUT, held_out=timedelta(days=3))
    line = stateless(window=windows.Sliding("1d"), trigger=triggers.every("2d"))
    run = replay(engine(columns(24 * 60), line, batch="1d", settings={"gate": gate}))
    assert len(run.versions) > 20
    assert {version.trained_rows for version in run.versions} == {24}
    assert all(version.newest < version.at - 72 * HOUR for version in run.versions[1:])


def test_a_challenger_that_cannot_predict_what_was_held_out_is_rejected(engine):
    """In its own turn, and the champion serves on."""
    run = replay(engine(columns(480), stateless(Bomb(), trigger=triggers.every("4d")), batch="1d",
                        settings={"gate": HELD_OUT}))  # fmt: skip
    rejected = [v for turn in run.turns for v in turn.verdicts if v.outcome == "reject"]
    assert rejected
    assert all("boom" in verdict.reason for verdict in rejected)
    assert {number for _, _, number in run.said()} == {"1.0"}


def test_a_line_that_learns_every_row_holds_none_out(engine):
    """Refused before any batch, as are sizes of models that do not say theirs."""
    with pytest.raises(ConfigError, match=r"gate\.held_out='2d': a stateful strategy learns every row"):
        engine(columns(48), stateful(), settings={"gate": HELD_OUT})
    assert HELD_OUT.needs_rows
    assert not Gate().needs_rows
    with pytest.raises(ConfigError, match=r"give the rows of old\.csv"):
        engine(columns(48), stateless(), settings={"gate": Gate(golden=Golden(file="old.csv"))})


def test_without_a_gate_nothing_is_compared(engine, monkeypatch):
    """A turn of a plain backtest computes no loss twice."""
    monkeypatch.setattr("perennial.engine.bounded", None)
    run = replay(engine(columns(240), stateful(), batch="1d", settings={"gate": None}))
    assert sum(turn.loss.n for turn in run.turns) > 50


class Constant:
    """A learner that says one probability, and counts the rows that it was asked about."""

    task, name, notes = "classification", "Constant", ()

    def __init__(self, p):
        self.p, self.asked = p, 0

    def predict(self, features):
        """The same of every row."""
        n = len(features)
        self.asked += n
        return Prediction(
            codes=np.full(n, int(self.p > 0.5), dtype=np.int32), proba=np.tile([1 - self.p, self.p], (n, 1)),
            classes=("down", "up"),
        )  # fmt: skip


def test_a_version_is_asked_only_what_it_was_not_asked_before(engine):
    """Of rows that came with answers, each side of a comparison is what this very version said, and else is asked."""
    run = replay(engine(columns(360), stateless(GaussianNB()), batch="1d"))
    made = run.engine
    batch = next(iter(run.prepared.batches("classification")))
    n = len(batch)
    champion, canary = (replace(run.versions[0], major=7, minor=minor) for minor in (0, 1))
    serving, trial = Line(champion, Constant(0.25)), Line(canary, Constant(0.75))
    by_canary = np.arange(n) % 4 == 0
    shadowed = np.arange(n) % 4 == 1
    width = len(made.classes)

    def said(p, rows, minor):
        at = [made.classes.index(label) for label in ("down", "up")]
        proba = np.full((n, width), np.nan)
        proba[rows] = 0.0
        proba[np.ix_(rows, at)] = [1 - p, p]
        codes = np.where(rows, at[int(p > 0.5)], -1).astype(np.int32)
        return Answers(
            major=np.where(rows, 7, -1).astype(np.int32), minor=np.where(rows, minor, -1).astype(np.int32),
            prediction=Prediction(codes=codes, proba=proba),
        )  # fmt: skip

    told = said(0.25, ~by_canary, 0)
    other = said(0.75, by_canary, 1)
    told = Answers(
        major=np.where(by_canary, other.major, told.major), minor=np.where(by_canary, other.minor, told.minor),
        prediction=Prediction(
            codes=np.where(by_canary, other.prediction.codes, told.prediction.codes).astype(np.int32),
            proba=np.where(by_canary[:, None], other.prediction.proba, told.prediction.proba),
        ),
    )  # fmt: skip
    batch = replace(batch, said=Said(told=told, shadow=said(0.75, shadowed, 1)))
    up = made.classes.index("up")
    assert (made._ask(serving, batch).proba[:, up] == 0.25).all()
    assert (made._ask(trial, batch).proba[:, up] == 0.75).all()
    assert serving.model.asked == by_canary.sum()
    assert trial.model.asked == n - by_canary.sum() - shadowed.sum()
