"""What every trigger keeps to: a new trigger is one line in ``TRIGGERS``."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from perennial import triggers
from perennial.core.protocols import Facts, Trigger
from perennial.core.records import Decision, Loss
from perennial.triggers import all_of, any_of, every, forecast, limited, loss_above, regret

TRIGGERS: list[Trigger] = [
    every("3h"),
    every(rows=25),
    every(rows=1),
    loss_above(0.5, rows=20),
    regret(worth=4.0, fresh_rows=10),
    regret(worth=4.0, kappa=1.0, fresh_rows=10),
    regret(worth=2.0, fresh_rows=25, back_off=1.0),
    regret(worth=1.0, fresh_rows=10, least_gap="3h", greatest_age="20h"),
    forecast(worth=4.0, horizon="12h", fresh_rows=10),
    forecast(worth=2.0, horizon="12h", quantile=0.5, fresh_rows=20, greatest_age="30h"),
    any_of(every("9h"), loss_above(0.6, rows=20)),
    all_of(every(rows=30), regret(worth=3.0, fresh_rows=10)),
    all_of(any_of(every("9h"), every(rows=40)), loss_above(0.4, rows=10)),
    any_of(every("9h"), all_of(every(rows=40), loss_above(0.4, rows=10))),
    limited(regret(worth=1.0, fresh_rows=10), least_gap="2h", greatest_age="12h"),
    limited(every(rows=10), least_gap="4h", back_off=3.0, rejected=1),
]

all_triggers = pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
HOUR = 3_600_000_000


@dataclasses.dataclass
class Life:
    """Hourly turns of 10 rows whose loss rises until the next training, as an engine would tell them."""

    turns: int
    seed: int = 0
    fired: int = 0
    trained_at: int = 0
    labelled: int = 0

    def facts(self) -> Iterator[Facts]:
        """One turn's facts after another; whoever fires calls :meth:`train`."""
        noise = np.random.default_rng(self.seed)
        for turn in range(1, self.turns + 1):
            idle = turn % 7 == 0
            n = 0 if idle else 10
            self.labelled += n
            now = turn * HOUR
            age = (now - self.trained_at) / HOUR
            total = float(n * (0.3 + 0.03 * age) + noise.normal(0, 0.3)) if n else 0.0
            yield Facts(
                now=now, anchor=0, trained_at=self.trained_at, labelled=self.labelled, fresh=n,
                loss=Loss(n=n, total=total, name="log loss" if n else ""), rejections=turn // 20,
            )  # fmt: skip

    def train(self, facts: Facts) -> None:
        self.fired += 1
        self.trained_at, self.labelled = facts.now, 0


def decisions(trigger: Trigger, *, through_json: bool = False, turns: int = 60) -> list[Decision]:
    """What a trigger decides over a life, its state stored as JSON after each turn or held in memory."""
    life, state, said = Life(turns), trigger.start(), []
    for facts in life.facts():
        decision, state = trigger.step(state, facts)
        if decision.fire:
            life.train(facts)
            state = trigger.trained(state, facts)
        if through_json:
            state = json.loads(json.dumps(state, allow_nan=False))
        said.append(decision)
    return said


def test_every_trigger_is_here() -> None:
    """The list holds each public trigger class."""
    classes = {name for name in triggers.__all__ if isinstance(getattr(triggers, name), type)}
    assert {type(t).__name__ for t in TRIGGERS} == classes


@all_triggers
def test_it_fires_at_times_and_waits_at_times(trigger: Trigger) -> None:
    """Over a life, a trigger decides both ways, and every decision has a reason in words."""
    said = decisions(trigger)
    assert any(d.fire for d in said)
    assert str(trigger) == "every row" or not all(d.fire for d in said)
    assert all(isinstance(d.fire, bool) and d.reason for d in said)
    assert not any("perennial" in d.reason or "nan" in d.reason for d in said)


@all_triggers
def test_a_checkpoint_as_json_changes_no_decision(trigger: Trigger) -> None:
    """State is plain data: a trigger stopped and gone on at every turn decides the same, for the same reasons."""
    assert decisions(trigger, through_json=True) == decisions(trigger)


@all_triggers
def test_a_step_is_pure(trigger: Trigger) -> None:
    """Neither step nor trained changes the state it is given, and both repeat."""
    life, state = Life(40), trigger.start()
    for facts in life.facts():
        before = copy.deepcopy(state)
        decision, after = trigger.step(state, facts)
        assert state == before
        assert trigger.step(state, facts) == (decision, after)
        kept = copy.deepcopy(after)
        fresh = trigger.trained(after, facts)
        assert after == kept
        assert trigger.trained(after, facts) == fresh
        if decision.fire:
            life.train(facts)
        state = fresh if decision.fire else after


@all_triggers
def test_the_state_stays_small(trigger: Trigger) -> None:
    """A trigger that is never obeyed does not remember for ever: its state goes into every checkpoint."""
    state: Any = trigger.start()
    for facts in Life(300).facts():
        state = trigger.step(state, facts)[1]
    assert len(json.dumps(state)) < 1500


@all_triggers
def test_a_turn_without_labels_is_no_error(trigger: Trigger) -> None:
    """The first turn may be a tick: nothing labelled, nothing scored."""
    facts = Facts(now=0, anchor=0, trained_at=0, labelled=0, fresh=0, loss=Loss())
    decision, _ = trigger.step(trigger.start(), facts)
    assert not decision.fire
    assert decision.reason


@all_triggers
def test_a_trigger_is_a_frozen_value(trigger: Trigger) -> None:
    """A trigger cannot change, equals its copy, crosses processes, and has words."""
    assert dataclasses.is_dataclass(trigger)
    field = dataclasses.fields(trigger)[0].name
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        setattr(trigger, field, None)
    again = pickle.loads(pickle.dumps(trigger))
    assert again == trigger
    assert hash(again) == hash(trigger)
    assert "perennial" not in str(trigger)
    assert type(trigger).__doc__


def test_different_triggers_have_different_words() -> None:
    """A report tells any two triggers apart by their words."""
    words = [str(t) for t in TRIGGERS]
    assert sorted(set(words)) == sorted(words)
