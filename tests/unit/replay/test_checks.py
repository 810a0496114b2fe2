"""When rows may share a turn, and that sharing one never changes what is learned."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import SGDClassifier

import perennial as pn
from perennial import strategies, triggers
from perennial.core.errors import DataError
from perennial.learners import as_learner
from perennial.replay.checks import check_first_windows
from perennial.replay.run import Job, shares_turns
from perennial.replay.trainings import Trainings
from perennial.stream.quality import Quality

START = np.datetime64("2026-01-01", "us")


def columns(n=60):
    """Hourly rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    return {"at": START + np.arange(n) * np.timedelta64(1, "h"), "x": x, "y": np.where(x > 0, "up", "down")}


@pytest.fixture
def job(tmp_path):
    """A function that makes the job of a strategy on a stream."""

    def make(cols=None, *, rows=1, quality=None, latency="0s", **stream):
        from perennial.core.times import duration

        settings = {"time": "at", "target": "y", "time_zone": "UTC", "batch": 1, **stream}
        prepared = pn.Stream(pa.table(cols or columns()), **settings).prepare(tmp_path)
        strategy = strategies.Stateful(SGDClassifier(loss="log_loss"), initial=20, trigger=triggers.every(rows=rows))
        return Job(
            name="s", strategy=strategy, learner=as_learner(strategy.model), prepared=prepared,
            label_delay=prepared.label_delay, closes_at=prepared.last_time, train_latency=duration(latency, "latency"),
            label_wait=duration("0s", "wait"), seed=0, quality=quality or Quality(), version="0",
        )  # fmt: skip

    return make


def late():
    """One row comes an hour after a younger one."""
    cols = columns()
    cols["at"][30] = cols["at"][28]
    return cols


LOG = pa.table({"id": [3], "y": ["up"], "known_at": [START + np.timedelta64(40, "h")]})


def test_rows_share_turns_where_nothing_has_to_be_decided_between_them(job):
    """And only there: not with late rows, corrections, a latency, larger steps, or quality that judges single rows."""
    assert shares_turns(job())
    assert shares_turns(job(label_delay="5h", quality=Quality(nulls=0.5)))
    assert not shares_turns(job(batch=2))
    assert not shares_turns(job(rows=2))
    assert not shares_turns(job(latency="1h"))
    assert not shares_turns(job(late(), lateness="1d"))
    assert not shares_turns(job({**columns(), "id": np.arange(60)}, id="id", labels=LOG))
    assert not shares_turns(job(quality=Quality(ranges={"x": (0, 1)}, least_rows=1)))


@pytest.mark.parametrize("what", ["late", "log"])
def test_the_engine_refuses_rows_that_must_not_share_a_turn(job, what):
    """Late rows and labels of other rows would be learned out of order."""
    if what == "late":
        made = job(late(), lateness="1d")
    else:
        made = job({**columns(), "id": np.arange(60)}, id="id", labels=LOG)
    engine = made.engine(Trainings(None))
    with pytest.raises(DataError, match="cannot share a turn: give them one by one"):
        list(map(engine.advance, made.prepared.batches("classification", apart=True)))


def test_quality_judges_batches_and_not_what_shares_a_turn(job):
    """Rows in batches of one are too few to judge, however many share a turn."""
    made = job(quality=Quality(ranges={"x": (-0.1, 0.1)}))
    engine = made.engine(Trainings(None))
    turns = [engine.advance(batch) for batch in made.prepared.batches("classification", apart=True)]
    assert [turn.quarantined for turn in turns] == [None]
    assert sum(version.trained_rows for version in turns[0].trained) == 59


def test_a_first_window_that_is_fine_passes_without_training(job):
    """The check replays the initial part and stops where the first training is due."""
    check_first_windows([job()])
