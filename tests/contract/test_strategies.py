"""What every strategy keeps to: a new strategy is one line in ``STRATEGIES``."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any, get_args

import numpy as np
import pytest

from perennial import strategies
from perennial.core.protocols import Facts, Plan
from perennial.core.records import Loss
from perennial.strategies import Frozen, Hybrid, Situation, Stateful, Stateless, Strategy
from perennial.strategies.protocol import StrategyKind
from perennial.triggers import any_of, every, loss_above, regret
from perennial.windows import Mix, Sliding

MODEL = "any model: a strategy never looks at it"

STRATEGIES: list[Strategy] = [
    Frozen(MODEL, initial="60d"),
    Stateless(MODEL, initial="60d", trigger=every("7d")),
    Stateless(MODEL, initial=500, trigger=regret(5.0), window=Mix(initial=0.3, recent=0.7, rows=200)),
    Stateful(MODEL, initial="60d", trigger=every("1d")),
    Stateful(MODEL, initial=None, trigger=every(rows=1)),
    Hybrid(MODEL, initial="60d", trigger=every("1d"), reset=every("30d")),
    Hybrid(
        MODEL,
        initial=9,
        trigger=every(rows=30),
        reset=any_of(regret(2.0), loss_above(0.23)),
        window=Sliding("90d"),
    ),
]

all_strategies = pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
DAY = 86_400_000_000


def situations(turns: int, trained: dict[str, int]) -> Any:
    """Daily turns of 10 rows whose loss rises; ``trained`` holds the days of the last fit and the last training."""
    noise = np.random.default_rng(3)
    for day in range(1, turns + 1):
        facts = Facts(
            now=day * DAY, anchor=0, trained_at=trained["training"] * DAY,
            labelled=10 * (day - trained["training"]), fresh=10,
            loss=Loss(n=10, total=float(10 * (0.2 + 0.02 * (day - trained["training"])) + noise.normal(0, 0.1))),
        )  # fmt: skip
        since_fit = dataclasses.replace(facts, trained_at=trained["fit"] * DAY, labelled=10 * (day - trained["fit"]))
        yield day, Situation(since_fit=since_fit, since_training=facts)


def plans(strategy: Strategy, *, through_json: bool = False, turns: int = 70) -> list[Plan]:
    """What a strategy plans over a life in which every plan is carried out."""
    trained, state, said = {"fit": 0, "training": 0}, strategy.start(), []
    for day, situation in situations(turns, trained):
        plan, state = strategy.plan(state, situation)
        said.append(plan)
        if plan.action != "nothing":
            trained["training"] = day
            if plan.action == "fit":
                trained["fit"] = day
            state = strategy.trained(state, plan.action, situation)
        if through_json:
            state = json.loads(json.dumps(state, allow_nan=False))
    return said


def test_every_strategy_is_here() -> None:
    """The list holds each public strategy, and each kind."""
    public = set(strategies.__all__) - {"Situation", "Strategy"}
    assert {type(s).__name__ for s in STRATEGIES} == public
    assert {s.kind for s in STRATEGIES} == set(get_args(StrategyKind))


@all_strategies
def test_a_strategy_does_what_it_says_it_does(strategy: Strategy) -> None:
    """It fits again only if it refits, updates only if it updates, and each training has a reason."""
    said = plans(strategy)
    actions = {plan.action for plan in said} - {"nothing"}
    assert actions == {name for name, does in (("fit", strategy.refits), ("update", strategy.updates)) if does}
    for plan in said:
        assert bool(plan.reason) == (plan.action != "nothing")
    if strategy.row_by_row:
        assert {plan.action for plan in said} == {"update"}


@all_strategies
def test_a_checkpoint_as_json_changes_no_plan(strategy: Strategy) -> None:
    """State is plain data: stopped and gone on at every turn, a strategy plans the same."""
    assert plans(strategy, through_json=True) == plans(strategy)


@all_strategies
def test_planning_is_pure(strategy: Strategy) -> None:
    """Neither plan nor trained changes the state it is given, and both repeat."""
    state = strategy.start()
    for _, situation in situations(40, {"fit": 0, "training": 0}):
        before = copy.deepcopy(state)
        plan, after = strategy.plan(state, situation)
        assert state == before
        assert strategy.plan(state, situation) == (plan, after)
        kept = copy.deepcopy(after)
        for action in ("fit", "update"):
            assert strategy.trained(after, action, situation) == strategy.trained(after, action, situation)
        assert after == kept
        state = after


@all_strategies
def test_a_strategy_is_a_frozen_value(strategy: Strategy) -> None:
    """A strategy cannot change, equals its copy, crosses processes, and its words leave the model out."""
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        strategy.model = None  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(strategy))
    assert again == strategy
    assert MODEL not in str(strategy)
    assert "perennial" not in str(strategy)
    assert type(strategy).__doc__


def test_different_strategies_have_different_words() -> None:
    """A report tells any two strategies apart by their words."""
    assert len({str(s) for s in STRATEGIES}) == len(STRATEGIES)
