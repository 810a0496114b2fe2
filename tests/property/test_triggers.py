"""Triggers over any stream of facts."""

from __future__ import annotations

import copy
import itertools
import json
import math
from dataclasses import replace
from datetime import timedelta
from statistics import mean as average
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.core.protocols import Facts, Trigger
from perennial.core.records import Loss
from perennial.triggers import all_of, any_of, every, forecast, limited, loss_above, regret

QUICK = settings(max_examples=60, deadline=None)

#: minutes since the turn before, rows scored, mean loss
turns = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 20), st.floats(0, 2)), min_size=1, max_size=40)
MINUTE = 60_000_000

simple = st.one_of(
    st.integers(1, 200).map(lambda m: every(timedelta(minutes=m))),
    st.integers(1, 50).map(lambda n: every(rows=n)),
    st.builds(lambda level, rows: loss_above(level, rows=rows), st.floats(0, 2), st.integers(1, 60)),
    st.builds(
        lambda worth, kappa, rows: regret(worth, kappa=kappa, fresh_rows=rows),
        st.floats(0.01, 30),
        st.floats(0.1, 2),
        st.integers(1, 40),
    ),
    st.builds(
        lambda worth, hours, quantile, rows: forecast(worth, f"{hours}h", quantile=quantile, fresh_rows=rows),
        st.floats(0.01, 30),
        st.integers(1, 90),
        st.floats(0.01, 0.5),
        st.integers(1, 40),
    ),
)
any_trigger: st.SearchStrategy[Trigger] = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: any_of(*some)),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: all_of(*some)),
        st.builds(
            lambda t, gap: limited(t, least_gap=timedelta(minutes=gap), greatest_age="5h"), inner, st.integers(0, 90)
        ),
    ),
    max_leaves=4,
)


def facts_of(turns: list[tuple[int, int, float]], trained: list[int], *, rejections: int = 0) -> list[Facts]:
    """Facts of each turn, given the turns at which trainings happened."""
    now, trained_at, labelled, out = 0, 0, 0, []
    for index, (minutes, n, mean) in enumerate(turns):
        now += minutes * MINUTE
        labelled += n
        out.append(
            Facts(
                now=now,
                anchor=0,
                trained_at=trained_at,
                labelled=labelled,
                fresh=n,
                loss=Loss(n=n, total=n * mean),
                rejections=rejections,
            )
        )
        if index in trained:
            trained_at, labelled = now, 0
    return out


@QUICK
@given(any_trigger, turns, st.lists(st.integers(0, 40), max_size=5))
def test_a_fold_over_facts_and_nothing_else(trigger: Trigger, turns: list[Any], trained: list[int]) -> None:
    """State is never mutated, survives JSON bit for bit, and gives the same decisions from there."""
    state: Any = trigger.start()
    stored: Any = json.loads(json.dumps(state))
    for index, facts in enumerate(facts_of(turns, trained)):
        before = copy.deepcopy(state)
        decision, after = trigger.step(state, facts)
        again, stored = trigger.step(stored, facts)
        assert state == before
        assert again == decision
        state = trigger.trained(after, facts) if index in trained else after
        stored = trigger.trained(stored, facts) if index in trained else stored
        stored = json.loads(json.dumps(stored, allow_nan=False))
        assert stored == state


@QUICK
@given(st.integers(1, 300), turns)
def test_a_calendar_fires_once_for_each_interval_that_held_a_turn(minutes: int, turns: list[Any]) -> None:
    """Obeyed at once, the trainings are the first turns at or after each checkpoint counted from the anchor."""
    trigger, step = every(timedelta(minutes=minutes)), minutes * MINUTE
    trained_at, fired, expected, period = 0, [], [], 0
    for facts in facts_of(turns, []):
        told = Facts(now=facts.now, anchor=0, trained_at=trained_at, labelled=0, fresh=0, loss=Loss())
        if trigger.step(None, told)[0].fire:
            trained_at = facts.now
            fired.append(facts.now)
        if facts.now // step > period:
            period = facts.now // step
            expected.append(facts.now)
    assert fired == expected


def reference_regret(worth: float, kappa: float, rows: int, facts: list[Facts], trained: list[int]) -> list[Any]:
    """Cumulative regret written another way: over whole lists, from the formula. Regret after each block, and fires."""
    lines: list[list[tuple[int, float]]] = [[]]  # blocks of each model
    opened: list[Loss] = []
    out: list[Any] = []
    for index, fact in enumerate(facts):
        opened.append(fact.loss)
        n, total = sum(loss.n for loss in opened), sum(loss.total for loss in opened)
        out.append(None)
        if n >= rows:
            lines[-1].append((n, total / n))
            opened = []
            out[-1] = regret_now(lines, kappa * worth)
        if index in trained:
            lines.append([])
            opened = []
    return out


def noise_of(lines: list[list[tuple[int, float]]]) -> float:
    """Variance of a row's loss from neighbouring blocks of one model."""
    steps = [(m2 - m1) ** 2 / (1 / n1 + 1 / n2) for line in lines for (n1, m1), (n2, m2) in itertools.pairwise(line)][
        -24:
    ]
    if len(steps) < 2:
        return 9 * sum(steps)
    return average(sorted(steps)[:-1]) * (1 + 8 / len(steps))


def regret_now(lines: list[list[tuple[int, float]]], due: float) -> tuple[float, float] | None:
    """Regret of the newest model, and what it must come to; None while it says what is fresh."""
    *former, line = lines
    if len(line) <= 2:
        return None
    episodes = [line[:2] for line in lines if line]
    while sum(map(len, episodes)) > 12:
        del episodes[0]
    blocks = [block for episode in episodes for block in episode]
    rows = sum(n for n, _ in blocks)
    pooled = sum(n * m for n, m in blocks) / rows
    s = noise = 0.0
    for at in range(2, len(line)):
        variance = noise_of([*former, line[:at]])
        b, error = pooled, math.sqrt(variance / rows)
        own = [(sum(n for n, _ in e), sum(n * m for n, m in e) / sum(n for n, _ in e)) for e in episodes]
        if len(own) >= 3:
            spread = sum((m - pooled) ** 2 for _, m in own) / (len(own) - 1)
            between = spread - 2 * average(variance / n for n, _ in own)
            if between > 0:
                share = between / (between + variance / own[-1][0])
                b = share * own[-1][1] + (1 - share) * pooled
                error = math.sqrt(share * variance / own[-1][0] + (1 - share) * variance / rows)
        n, m = line[at]
        sigma = math.sqrt(variance / n)
        s = max(0.0, s + n * (m - b - 0.5 * sigma - error))
        noise = 4 * sigma * n
    return s, max(due, noise)


@QUICK
@given(st.floats(0.05, 20), st.floats(0.1, 2), st.integers(1, 30), turns, st.lists(st.integers(0, 40), max_size=6))
def test_regret_is_its_formula(worth: float, kappa: float, rows: int, turns: list[Any], trained: list[int]) -> None:
    """S = max(0, S + N (l - b - k)) over blocks of rows, wherever trainings fall."""
    facts = facts_of(turns, trained)
    trigger = regret(worth, kappa=kappa, fresh_rows=rows)
    state = trigger.start()
    told = reference_regret(worth, kappa, rows, facts, trained)
    for index, (fact, expected) in enumerate(zip(facts, told, strict=True)):
        decision, state = trigger.step(state, fact)
        if expected is None:
            assert not decision.fire
        else:
            assert math.isclose(state["regret"], expected[0], rel_tol=1e-6, abs_tol=1e-6)
            if not math.isclose(*expected, rel_tol=1e-6, abs_tol=1e-6):  # where rounding decides, either is right
                assert decision.fire == (expected[0] > expected[1])
        if index in trained:
            state = trigger.trained(state, fact)


@QUICK
@given(st.lists(st.floats(0, 1), min_size=3, max_size=30), st.lists(st.integers(1, 49), max_size=4), st.floats(0.5, 30))
def test_rows_split_over_more_turns_are_the_same_blocks(means: list[float], cuts: list[int], worth: float) -> None:
    """Fifty rows in one turn or in several: the block closes with the last of them, and decides the same."""
    trigger = regret(worth, fresh_rows=50)
    bounds = [0, *sorted(set(cuts)), 50]
    parts = [end - begin for begin, end in itertools.pairwise(bounds)]
    whole, split = trigger.start(), trigger.start()
    for mean in means:
        (fact,) = facts_of([(1, 50, mean)], [])
        expected, whole = trigger.step(whole, fact)
        said = []
        for fact in facts_of([(1, n, mean) for n in parts], []):
            decision, split = trigger.step(split, fact)
            said.append(decision.fire)
        assert not any(said[:-1])
        if not math.isclose(whole["regret"], 0.5 * worth, rel_tol=1e-6):
            assert said[-1] == expected.fire
        assert math.isclose(whole["regret"], split["regret"], rel_tol=1e-6, abs_tol=1e-6)


@QUICK
@given(turns, st.integers(1, 20), st.floats(0, 2), st.floats(0, 2), st.floats(0.05, 20), st.integers(0, 40))
def test_more_loss_in_the_newest_block_never_makes_it_wait(
    turns: list[Any], n: int, one: float, other: float, worth: float, trained: int
) -> None:
    """Noise and the fresh level are those of earlier blocks, so that of two newest blocks the worse one fires first."""
    for trigger in (regret(worth, fresh_rows=10), forecast(worth, "5h", fresh_rows=10)):
        state: Any = trigger.start()
        *facts, last = facts_of([*turns, (5, 10 + n, 0.0)], [trained])
        for index, fact in enumerate(facts):
            state = trigger.step(state, fact)[1]
            if index == trained:
                state = trigger.trained(state, fact)
        less, more = (
            trigger.step(state, replace(last, loss=Loss(n=last.loss.n, total=last.loss.n * mean)))
            for mean in sorted((one, other))
        )
        assert more[0].fire >= less[0].fire


@QUICK
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.5))
def test_row_by_row_noise_does_not_fire(seed: int, wrong: float) -> None:
    """A year of a model that is wrong in some rows and never stale, one row a turn: at most a retrain in vain."""
    noise, trigger = np.random.default_rng(seed), regret(200.0)
    state, fired = trigger.start(), 0
    for turn, loss in enumerate(noise.random(20_000) < wrong):
        facts = Facts(now=turn, anchor=0, trained_at=0, labelled=1, fresh=1, loss=Loss(n=1, total=float(loss)))
        decision, state = trigger.step(state, facts)
        if decision.fire:
            state, fired = trigger.trained(state, facts), fired + 1
    assert fired <= 2


@QUICK
@given(st.floats(0.1, 1.5), st.integers(1, 60), turns)
def test_a_loss_level_looks_at_the_fewest_newest_turns_that_hold_enough_rows(
    level: float, rows: int, turns: list[Any]
) -> None:
    """The mean is over the shortest run of newest turns with at least that many scored rows."""
    trigger = loss_above(level, rows=rows)
    state: Any = trigger.start()
    seen: list[Loss] = []
    for facts in facts_of(turns, []):
        decision, state = trigger.step(state, facts)
        if facts.loss.n:
            seen.insert(0, facts.loss)
        runs = [seen[: i + 1] for i in range(len(seen)) if sum(loss.n for loss in seen[: i + 1]) >= rows]
        if not runs:
            assert not decision.fire
            continue
        mean = sum(loss.total for loss in runs[0]) / sum(loss.n for loss in runs[0])
        if not math.isclose(mean, level, rel_tol=1e-9):
            assert decision.fire == (mean > level)


@QUICK
@given(st.lists(simple, min_size=1, max_size=4), turns)
def test_any_and_all_are_any_and_all(parts: list[Trigger], turns: list[Any]) -> None:
    """A combination decides as its parts do on their own, each told of every turn."""
    one, every_one = any_of(*parts), all_of(*parts)
    states: list[Any] = [part.start() for part in parts]
    some_state, all_state = one.start(), every_one.start()
    for facts in facts_of(turns, []):
        pairs = [part.step(state, facts) for part, state in zip(parts, states, strict=True)]
        states = [state for _, state in pairs]
        some, some_state = one.step(some_state, facts)
        whole, all_state = every_one.step(all_state, facts)
        assert some.fire == any(d.fire for d, _ in pairs)
        assert whole.fire == all(d.fire for d, _ in pairs)
        for decision, _ in pairs:
            if decision.fire:
                assert decision.reason in some.reason
            else:
                assert decision.reason in whole.reason


@QUICK
@given(st.booleans(), st.integers(0, 20), st.integers(1, 40), st.integers(0, 60), st.integers(0, 60), st.integers(1, 4))
def test_limits_hold_whatever_the_trigger_inside_wants(
    wants: bool, gap: int, more: int, age: int, rejections: int, rejected: int
) -> None:
    """Never sooner than the least gap; always by the greatest age; in between, as the trigger inside decides."""
    inner = every(rows=1) if wants else every(rows=10**9)
    oldest = gap + more
    trigger = limited(
        inner, least_gap=timedelta(minutes=gap), greatest_age=timedelta(minutes=oldest), rejected=rejected
    )
    facts = Facts(now=age * MINUTE, anchor=0, trained_at=0, labelled=5, fresh=1, loss=Loss(), rejections=rejections)
    fire = trigger.step(trigger.start(), facts)[0].fire
    doublings = max(0, rejections - rejected + 1)
    if age >= oldest:
        assert fire
    elif age < gap * 2**doublings:
        assert not fire
    else:
        assert fire == wants


@QUICK
@given(st.integers(0, 2**40), st.sampled_from([0, 1, 7 * 24 * 60]))
def test_any_number_of_rejections_is_survived(rejections: int, gap: int) -> None:
    """A gate that always says no makes the gap long, and never an error."""
    trigger = limited(every(rows=1), least_gap=timedelta(minutes=gap), greatest_age="30d")
    facts = Facts(now=MINUTE, anchor=0, trained_at=0, labelled=5, fresh=1, loss=Loss(), rejections=rejections)
    assert trigger.step(trigger.start(), facts)[0].fire == (gap <= 1 and (gap == 0 or rejections < 2))


@QUICK
@given(st.floats(0.0005, 0.02), st.floats(1.0, 30.0))
def test_regret_with_kappa_one_finds_the_best_period_for_linear_staleness(slope: float, cost: float) -> None:
    """Where loss rises by ``a`` a turn, kappa 1 retrains about every sqrt(2 c / a) turns: the cheapest period."""
    best = math.sqrt(2 * cost / slope)
    if not 15 < best < 150:  # the first two batches of each line say what is fresh and are not counted
        return
    trigger = regret(cost, kappa=1.0, fresh_rows=1)
    state, age, periods = trigger.start(), 0, []
    for turn in range(1, 1200):
        age += 1
        loss = Loss(n=1, total=0.1 + slope * age)
        facts = Facts(now=turn, anchor=0, trained_at=turn - age, labelled=age, fresh=1, loss=loss)
        decision, state = trigger.step(state, facts)
        if decision.fire:
            periods.append(age)
            state, age = trigger.trained(state, facts), 0
    assert periods
    # ages 1 and 2 set the fresh level, so the excess is counted from 1.5 on: two more turns, up to rounding
    assert best - 1 <= periods[-1] <= best + 4

    def rate(period: float) -> float:
        return cost / period + slope * period / 2

    assert rate(periods[-1]) <= 1.05 * rate(best)
