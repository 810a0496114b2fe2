"""Strategies: which training they plan, what they refuse, and how they are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts
from perennial.core.records import Loss
from perennial.strategies import Frozen, Hybrid, Situation, Stateful, Stateless, Strategy
from perennial.triggers import every, limited, loss_above
from perennial.windows import Expanding, Sliding

HOUR = 3_600_000_000


def situation(hour: int, *, fit: int = 0, training: int = 0, labelled: int = 5) -> Situation:
    """A turn at ``hour``, the hours of the last fit and the last training."""
    facts = Facts(now=hour * HOUR, anchor=0, trained_at=training * HOUR, labelled=labelled, fresh=labelled, loss=Loss())
    return Situation(since_fit=replace(facts, trained_at=fit * HOUR), since_training=facts)


def action(strategy: Strategy, now: Situation) -> str:
    """What a strategy plans in its first turn."""
    return strategy.plan(strategy.start(), now)[0].action


def test_frozen_never_trains() -> None:
    """Not after a thousand hours."""
    assert action(Frozen("m", initial="1d"), situation(1000, labelled=10**6)) == "nothing"


def test_stateless_counts_from_the_last_fit() -> None:
    """Its trigger is about fits."""
    strategy = Stateless("m", initial="1d", trigger=every("10h"))
    assert action(strategy, situation(15, fit=3, training=3)) == "fit"
    assert action(strategy, situation(15, fit=12, training=12)) == "nothing"


def test_stateful_counts_from_the_last_training() -> None:
    """Its trigger is about updates."""
    strategy = Stateful("m", initial="1d", trigger=every("10h"))
    assert action(strategy, situation(15, fit=0, training=3)) == "update"
    assert action(strategy, situation(15, fit=0, training=12)) == "nothing"


def test_a_reset_wins_over_an_update() -> None:
    """In one turn there is one training, and it is the fit; its reason is the reset's."""
    strategy = Hybrid("m", initial="1d", trigger=every("10h"), reset=every("20h"))
    assert action(strategy, situation(9)) == "nothing"
    assert action(strategy, situation(12)) == "update"
    plan, _ = strategy.plan(strategy.start(), situation(21))
    assert plan.action == "fit"
    assert "every 20h" in plan.reason
    assert "every 10h" not in plan.reason


def test_an_update_does_not_put_off_a_reset() -> None:
    """The reset is about fits: updates in between leave its calendar and its state alone."""
    strategy = Hybrid("m", initial="1d", trigger=every("1h"), reset=loss_above(0.5, rows=4))
    bad = replace(situation(3).since_fit, loss=Loss(n=2, total=2.0))
    turn = Situation(since_fit=bad, since_training=bad)
    _, state = strategy.plan(strategy.start(), turn)
    updated = strategy.trained(state, "update", turn)
    assert updated["reset"] == state["reset"] != strategy.reset.start()
    assert strategy.plan(updated, turn)[0].action == "fit"
    assert strategy.trained(state, "fit", turn)["reset"] == strategy.reset.start()


def test_a_fit_sets_the_update_trigger_back_too() -> None:
    """The update trigger is told of every training."""
    strategy = Hybrid("m", initial="1d", trigger=loss_above(0.5, rows=4), reset=every("9h"))
    bad = replace(situation(10).since_fit, loss=Loss(n=2, total=2.0))
    turn = Situation(since_fit=bad, since_training=bad)
    plan, state = strategy.plan(strategy.start(), turn)
    assert plan.action == "fit"
    assert strategy.trained(state, "fit", turn)["update"] == strategy.trigger.start()


@pytest.mark.parametrize(
    ("trigger", "alone"),
    [
        (every(rows=1), True),
        (every(rows=2), False),
        (every("1h"), False),
        (limited(every(rows=1), least_gap="1h"), False),
    ],
    ids=str,
)
def test_only_a_stateful_line_of_single_rows_shares_turns(trigger: Any, alone: bool) -> None:
    """Rows share a turn where every row is learned at once and nothing is decided."""
    assert Stateful("m", initial=None, trigger=trigger).row_by_row is alone
    assert not Hybrid("m", initial=5, trigger=trigger, reset=every("9d")).row_by_row
    assert not Stateless("m", initial=5, trigger=trigger).row_by_row


def test_the_initial_period() -> None:
    """A duration, a number of rows, or None for a stateful line that starts untrained."""
    assert Frozen("m", initial="60d").initial == timedelta(days=60)
    assert Stateless("m", initial=500, trigger=every("1d")).initial == 500
    assert Stateful("m", initial=None, trigger=every("1d")).initial is None


def test_windows() -> None:
    """All so far unless given; what was given is kept."""
    assert Stateless("m", initial=5, trigger=every("1d")).window == Expanding()
    assert Stateless("m", initial=5, trigger=every("1d"), window=Sliding("9d")).window == Sliding("9d")
    assert Hybrid("m", initial=5, trigger=every("1d"), reset=every("2d")).window == Expanding()


DAILY = every("1d")
WRONG: list[tuple[str, Callable[[], object]]] = [
    ("initial", lambda: Frozen("m", initial=0)),
    ("initial", lambda: Frozen("m", initial=-5)),
    ("initial", lambda: Frozen("m", initial="0d")),
    ("initial", lambda: Frozen("m", initial=True)),
    ("initial", lambda: Frozen("m", initial=2.5)),  # type: ignore[arg-type]
    ("initial", lambda: Frozen("m", initial=None)),  # type: ignore[arg-type]
    ("initial", lambda: Frozen("m", initial="two months")),
    ("initial", lambda: Stateless("m", initial=None, trigger=DAILY)),  # type: ignore[arg-type]
    ("initial", lambda: Hybrid("m", initial=None, trigger=DAILY, reset=DAILY)),  # type: ignore[arg-type]
    ("initial", lambda: Stateful("m", initial=0, trigger=DAILY)),
    ("trigger", lambda: Stateless("m", initial=5, trigger="7d")),  # type: ignore[arg-type]
    ("trigger", lambda: Stateful("m", initial=5, trigger="7d")),  # type: ignore[arg-type]
    ("trigger", lambda: Hybrid("m", initial=5, trigger="7d", reset=DAILY)),  # type: ignore[arg-type]
    ("reset", lambda: Hybrid("m", initial=5, trigger=DAILY, reset="7d")),  # type: ignore[arg-type]
    ("window", lambda: Stateless("m", initial=5, trigger=DAILY, window="9d")),  # type: ignore[arg-type]
    ("window", lambda: Hybrid("m", initial=5, trigger=DAILY, reset=DAILY, window="9d")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("field", "make"), WRONG, ids=[f"{i}-{f}" for i, (f, _) in enumerate(WRONG)])
def test_a_wrong_setting_is_refused_by_name(field: str, make: Callable[[], object]) -> None:
    """A strategy is checked when made, not at its first checkpoint, and the error names the setting."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        (Frozen("m", initial="60d"), "never retrained, first trained after 60d"),
        (
            Stateless("m", initial=5000, trigger=every("7d"), window=Sliding("90d")),
            "retrained from scratch every 7d on the last 90d, first trained after 5,000 rows",
        ),
        (Stateful("m", initial=None, trigger=every(rows=1)), "updated every row, starts untrained"),
        (
            Hybrid("m", initial="1d", trigger=every("1d"), reset=every("30d")),
            "updated every 1d, reset from scratch every 30d on all data so far, first trained after 1d",
        ),
    ],
)
def test_a_strategy_is_told_in_words(strategy: Strategy, words: str) -> None:
    """The words of a report."""
    assert str(strategy) == words
