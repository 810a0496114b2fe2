"""Triggers one can follow by hand, what they refuse, and how they are told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.core.errors import ConfigError
from perennial.core.protocols import Facts, Trigger
from perennial.core.records import Loss
from perennial.core.times import instant, micros
from perennial.triggers import all_of, any_of, every, limited, loss_above, regret

DAY = micros(timedelta(days=1))
ZERO = instant(datetime(2026, 3, 2, tzinfo=UTC))


def facts(day: float = 0, *, trained: float = 0, n: int = 0, mean: float = 0.0, **change: Any) -> Facts:
    """Facts of a turn, in days since the first training."""
    return Facts(
        **{
            "now": ZERO + round(day * DAY),
            "anchor": ZERO,
            "trained_at": ZERO + round(trained * DAY),
            "labelled": n,
            "fresh": n,
            "loss": Loss(n=n, total=n * mean, name="log loss"),
            **change,
        }
    )


def fires(trigger: Trigger, *turns: Facts) -> list[bool]:
    """What a trigger that is never obeyed says, turn by turn."""
    state, said = trigger.start(), []
    for turn in turns:
        decision, state = trigger.step(state, turn)
        said.append(decision.fire)
    return said


class TestEvery:
    def test_it_fires_at_the_checkpoint_and_not_before(self) -> None:
        """The instant of the checkpoint is in."""
        assert fires(every("7d"), facts(6.999), facts(7), facts(7.5)) == [False, True, True]

    @pytest.mark.parametrize(("trained", "due"), [(0, 7), (7, 14), (7.1, 14), (13.9, 14), (14, 21), (40, 42)])
    def test_the_calendar_keeps_its_place(self, trained: float, due: float) -> None:
        """However late a training was, the next checkpoint is a multiple of the interval from the first."""
        before, at = facts(due - 0.001, trained=trained), facts(due, trained=trained)
        assert fires(every("7d"), before, at) == [False, True]

    def test_a_long_silence_is_made_up_once(self) -> None:
        """Four missed checkpoints are one training."""
        assert fires(every("7d"), facts(30), facts(31, trained=30), facts(35, trained=30)) == [True, False, True]

    def test_rows_count_since_the_last_training(self) -> None:
        """Rows are newly labelled rows."""
        assert fires(every(rows=5), facts(n=4), facts(n=5), facts(n=6)) == [False, True, True]

    def test_reasons_name_the_facts(self) -> None:
        """An operator sees the checkpoint or the count."""
        assert every("7d").step(None, facts(7))[0].reason == "checkpoint of 2026-03-09 00:00, every 7d"
        assert every("7d").step(None, facts(6))[0].reason == "next checkpoint 2026-03-09 00:00, every 7d"
        assert "1,200 newly labelled rows" in every(rows=1000).step(None, facts(n=1200))[0].reason


class TestLossAbove:
    def test_it_waits_for_enough_rows(self) -> None:
        """Too few scored rows decide nothing, however bad."""
        trigger = loss_above(0.5, rows=10)
        assert fires(trigger, facts(n=9, mean=9.0), facts(n=1, mean=0.0)) == [False, True]

    def test_the_level_itself_is_allowed(self) -> None:
        """Above is above."""
        assert fires(loss_above(0.5, rows=4), facts(n=4, mean=0.5), facts(n=4, mean=0.75)) == [False, True]

    def test_old_turns_are_forgotten(self) -> None:
        """A bad day long ago does not fire today."""
        bad, good = facts(n=4, mean=2.0), facts(n=4, mean=0.1)
        assert fires(loss_above(0.5, rows=8), bad, good, good, good) == [False, True, False, False]

    def test_a_new_model_starts_clean(self) -> None:
        """After a training the former model's losses are gone."""
        trigger = loss_above(0.5, rows=4)
        _, state = trigger.step(trigger.start(), facts(n=8, mean=1.0))
        assert trigger.trained(state, facts()) == trigger.start()

    def test_the_reason_names_the_loss(self) -> None:
        """Loss, rows and level."""
        trigger = loss_above(0.5, rows=4)
        reason = trigger.step(trigger.start(), facts(n=4, mean=0.75))[0].reason
        assert reason == "mean log loss 0.75 on 4 rows, level 0.5"


class TestRegret:
    def test_it_follows_a_hand_written_ledger(self) -> None:
        """Fresh 0.2 and 0.4: level 0.3, slack 0.05; then 10 rows at 0.5 cost 1.5 each turn."""
        trigger = regret(worth=6.0)  # fires at 3.0
        turns = [facts(n=10, mean=m) for m in (0.2, 0.4, 0.5, 0.5)]
        state, seen = trigger.start(), []
        for turn in turns:
            decision, state = trigger.step(state, turn)
            seen.append((decision.fire, round(state["regret"], 9)))
        assert [fire for fire, _ in seen[:3]] == [False, False, False]
        assert [r for _, r in seen] == [0.0, 0.0, 1.5, 3.0]
        assert trigger.step(state, turns[-1])[0].fire

    def test_good_turns_pay_back_and_never_below_nothing(self) -> None:
        """Regret is never negative: good luck is not saved up."""
        trigger = regret(worth=100.0)
        state = trigger.start()
        for mean in (0.3, 0.3, 0.4, 0.0, 0.0, 0.4):
            _, state = trigger.step(state, facts(n=10, mean=mean))
        assert state["regret"] == pytest.approx(1.0)

    def test_the_fresh_level_outlives_a_training(self) -> None:
        """Twelve fresh batches are remembered across trainings, regret is not."""
        trigger = regret(worth=100.0)
        state = trigger.start()
        for line in range(9):
            for _ in range(3):
                _, state = trigger.step(state, facts(n=10, mean=float(line)))
            state = trigger.trained(state, facts())
            assert (state["regret"], state["batches"]) == (0.0, 0)
        assert state["fresh"] == [float(line) for line in range(3, 9) for _ in range(2)]

    def test_an_idle_turn_changes_nothing(self) -> None:
        """Nothing scored, nothing learned."""
        trigger = regret(worth=1.0)
        decision, state = trigger.step(trigger.start(), facts())
        assert state == trigger.start()
        assert "nothing scored" in decision.reason


class TestLimited:
    def test_the_least_gap_holds_back(self) -> None:
        """Wishes within the gap are not granted, and the reason says so."""
        trigger = limited(every(rows=1), least_gap="2d")
        assert fires(trigger, facts(1.9, n=5), facts(2, n=5)) == [False, True]
        decision, _ = trigger.step(None, facts(1, n=5))
        assert "held back" in decision.reason
        assert "5 newly labelled rows" in decision.reason

    def test_the_greatest_age_fires_in_any_case(self) -> None:
        """A trigger that never fires is overruled at that age."""
        trigger = limited(every(rows=99), greatest_age="5d")
        assert fires(trigger, facts(4.9), facts(5)) == [False, True]
        assert "greatest age 5d" in trigger.step(None, facts(5))[0].reason

    @pytest.mark.parametrize(("rejections", "gap"), [(0, 1), (1, 1), (2, 3), (3, 9), (4, 27)])
    def test_rejections_back_off(self, rejections: int, gap: int) -> None:
        """From the second rejection on, the gap is multiplied once more for each."""
        trigger = limited(every(rows=1), least_gap="1d", back_off=3.0)
        turns = [facts(gap - 0.1, n=5, rejections=rejections), facts(gap, n=5, rejections=rejections)]
        assert fires(trigger, *turns) == [False, True]

    def test_the_greatest_age_fires_also_while_backed_off(self) -> None:
        """Rejections never silence the greatest age, whether the trigger inside fires or not."""
        for rows in (1, 99):
            trigger = limited(every(rows=rows), least_gap="1d", greatest_age="10d")
            assert fires(trigger, facts(12, n=5, rejections=6)) == [True], f"every(rows={rows})"

    def test_a_month_of_rejections_is_no_error(self) -> None:
        """A gate that said no forty times makes the gap long and the engine none the worse."""
        trigger = limited(every(rows=1), least_gap="7d")
        assert fires(trigger, facts(1, n=5, rejections=40)) == [False]


def test_combinations_tell_every_part() -> None:
    """No part misses a turn because another decided already, and each is told of a training."""
    parts = (loss_above(0.1, rows=1), regret(1.0))
    for trigger in (any_of(*parts), all_of(*parts)):
        _, state = trigger.step(trigger.start(), facts(n=1, mean=1.0))
        assert state == [part.step(part.start(), facts(n=1, mean=1.0))[1] for part in parts]
        assert trigger.trained(state, facts())[0] == []
        assert trigger.trained(state, facts())[1]["batches"] == 0


WRONG: list[tuple[str, Callable[[], object]]] = [
    ("every", lambda: every()),
    ("every", lambda: every("7d", rows=5)),
    ("every", lambda: every("0d")),
    ("every", lambda: every("weekly")),
    ("rows", lambda: every(rows=0)),
    ("rows", lambda: every(rows=True)),
    ("rows", lambda: every(rows=1.5)),  # type: ignore[arg-type]
    ("level", lambda: loss_above("x")),  # type: ignore[arg-type]
    ("level", lambda: loss_above(float("nan"))),
    ("level", lambda: loss_above(True)),
    ("rows", lambda: loss_above(0.5, rows=0)),
    ("rows", lambda: loss_above(0.5, rows=1.5)),  # type: ignore[arg-type]
    ("rows", lambda: loss_above(0.5, rows="9")),  # type: ignore[arg-type]
    ("worth", lambda: regret(0)),
    ("worth", lambda: regret(float("nan"))),
    ("worth", lambda: regret(float("inf"))),
    ("worth", lambda: regret("5")),  # type: ignore[arg-type]
    ("kappa", lambda: regret(1, kappa=-1)),
    ("triggers", lambda: any_of()),
    ("triggers", lambda: all_of()),
    ("triggers", lambda: any_of("7d")),  # type: ignore[arg-type]
    ("trigger", lambda: limited("7d", least_gap="1d")),  # type: ignore[arg-type]
    ("limited", lambda: limited(every("7d"))),
    ("least_gap", lambda: limited(every("7d"), least_gap="x")),
    ("greatest_age", lambda: limited(every("7d"), greatest_age="0d")),
    ("least_gap", lambda: limited(every("7d"), least_gap="7d", greatest_age="7d")),
    ("back_off", lambda: limited(every("7d"), least_gap="1d", back_off=0.5)),
    ("back_off", lambda: limited(every("7d"), least_gap="1d", back_off=float("nan"))),
    ("back_off", lambda: limited(every("7d"), least_gap="1d", back_off=float("inf"))),
    ("rejected", lambda: limited(every("7d"), least_gap="1d", rejected=0)),
    ("rejected", lambda: limited(every("7d"), least_gap="1d", rejected=1.5)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("field", "make"), WRONG, ids=[f"{i}-{f}" for i, (f, _) in enumerate(WRONG)])
def test_a_wrong_setting_is_refused_by_name(field: str, make: Callable[[], object]) -> None:
    """A trigger is checked when made, not at hour 6, and the error names the setting."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (every("1w"), "every 7d"),
        (every(rows=1), "every row"),
        (every(rows=5000), "every 5,000 rows"),
        (loss_above(0.6), "when the loss on 200 rows is above 0.6"),
        (regret(40), "when staleness has cost 20 of loss"),
        (any_of(every("30d"), loss_above(0.5)), "every 30d or when the loss on 200 rows is above 0.5"),
        (limited(every("1d"), greatest_age="9d", least_gap="2d"), "every 1d (at least 2d apart, at most 9d apart)"),
    ],
)
def test_a_trigger_is_told_in_a_few_words(trigger: Trigger, words: str) -> None:
    """The words of a report."""
    assert str(trigger) == words


def test_words_say_what_belongs_together() -> None:
    """(a or b) and c is not told like a or (b and c)."""
    a, b, c = every("1d"), every("2d"), every("3d")
    assert str(all_of(any_of(a, b), c)) != str(any_of(a, all_of(b, c)))
