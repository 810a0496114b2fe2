"""Triggers one can follow by hand, what they refuse, and how they are told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perennial.core.errors import ConfigError, FormatError
from perennial.core.protocols import Facts, Trigger
from perennial.core.records import Loss
from perennial.core.times import instant, micros
from perennial.triggers import all_of, any_of, every, forecast, limited, loss_above, regret

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
        """Fresh 0.3, no noise so far; then 10 rows at 0.5 cost 2 each block, and the jump itself is no noise."""
        trigger = regret(worth=12.0, fresh_rows=10)  # fires at 6.0
        state, seen = trigger.start(), []
        for mean in (0.3, 0.3, 0.3, 0.5, 0.5, 0.5):
            decision, state = trigger.step(state, facts(n=10, mean=mean))
            seen.append((decision.fire, round(state["regret"], 9)))
        assert seen == [(False, 0.0)] * 3 + [(False, 2.0), (False, 4.0), (True, 6.0)]

    def test_slack_is_half_of_sigma_and_the_error_of_the_level(self) -> None:
        """Two differences of 0.1 in blocks of 10: variance of a row 10 * 0.1^2 / 2, raised fivefold, is 0.25."""
        trigger = regret(worth=100.0, fresh_rows=10)
        state = trigger.start()
        for mean in (0.3, 0.4, 0.5, 0.9):
            _, state = trigger.step(state, facts(n=10, mean=mean))
        sigma, error = (0.25 / 10) ** 0.5, (0.25 / 20) ** 0.5
        assert state["regret"] == pytest.approx(10 * (0.9 - 0.35 - 0.5 * sigma - error))

    def test_what_noise_alone_brings_about_does_not_fire(self) -> None:
        """However cheap a retrain is, regret must have come to four standard deviations of a block."""
        trigger = regret(worth=0.01, fresh_rows=10)
        state = trigger.start()
        for mean in (0.3, 0.4, 0.3, 0.4, 0.3, 0.4):
            decision, state = trigger.step(state, facts(n=10, mean=mean))
            assert not decision.fire
        decision, state = trigger.step(state, facts(n=10, mean=0.8))
        assert not decision.fire
        assert "may be noise" in decision.reason
        assert trigger.step(state, facts(n=10, mean=2.0))[0].fire

    def test_good_blocks_pay_back_and_never_below_nothing(self) -> None:
        """Regret is never negative: good luck is not saved up."""
        trigger = regret(worth=100.0, fresh_rows=10)
        state = trigger.start()
        for mean in (0.3, 0.3, 0.4, 0.0, 0.0):
            _, state = trigger.step(state, facts(n=10, mean=mean))
        assert state["regret"] == 0.0

    def test_rows_are_gathered_until_they_are_a_block(self) -> None:
        """One row a turn is judged a hundred rows at a time."""
        trigger = regret(worth=10.0)
        state, said = trigger.start(), []
        for turn in range(400):
            decision, state = trigger.step(state, facts(n=1, mean=0.2 if turn < 200 else 1.0))
            said.append(decision)
        assert [turn for turn, d in enumerate(said) if d.fire] == [299, 399]
        assert "99 of 100 scored rows" in said[298].reason

    def test_the_fresh_level_outlives_a_training(self) -> None:
        """Twelve fresh blocks are remembered across trainings, regret is not."""
        trigger = regret(worth=100.0, fresh_rows=10)
        state = trigger.start()
        for line in range(9):
            for _ in range(3):
                _, state = trigger.step(state, facts(n=10, mean=float(line)))
            state = trigger.trained(state, facts())
            assert (state["regret"], state["since"], state["open"]) == (0.0, 0, [0, 0.0])
        assert state["fresh"] == [[[10, float(line)]] * 2 for line in range(3, 9)]

    def test_a_fresh_level_that_moves_is_followed(self) -> None:
        """Where trainings differ by more than noise, a new model is held against its own first blocks."""
        trigger = regret(worth=5.0, fresh_rows=100)
        state = trigger.start()
        for line in range(5):  # each concept is harder than the one before, and no model grows stale
            for turn in range(20):
                mean = 0.2 + 0.1 * line + (0.004 if turn % 2 else 0.0)
                decision, state = trigger.step(state, facts(n=100, mean=mean))
                assert not decision.fire or line < 3
            state = trigger.trained(state, facts())

    def test_an_idle_turn_changes_nothing(self) -> None:
        """Nothing scored, nothing learned."""
        trigger = regret(worth=1.0)
        decision, state = trigger.step(trigger.start(), facts())
        assert state == trigger.start()
        assert "nothing scored" in decision.reason

    def test_rejections_ask_for_more_regret(self) -> None:
        """From the second rejection on, staleness must cost twice as much for each."""
        trigger = regret(worth=8.0, fresh_rows=10)
        for rejections, fires_at in ((0, 2), (1, 2), (2, 4), (3, 8)):
            state, turns = trigger.start(), 0
            for mean in (0.3, 0.3):
                _, state = trigger.step(state, facts(n=10, mean=mean))
            while True:
                decision, state = trigger.step(state, facts(n=10, mean=0.5, rejections=rejections))
                turns += 1
                if decision.fire:
                    break
            assert turns == fires_at
        assert not trigger.step(state, facts(n=10, mean=9.0, rejections=10_000))[0].fire

    def test_a_model_on_trial_does_not_tell_what_is_fresh(self) -> None:
        """While the one before it goes on, its losses are no fresh ones; they count from the promotion on."""
        trigger = regret(worth=100.0, fresh_rows=10)
        state = trigger.start()
        for mean in (0.3, 0.3, 0.5):
            _, state = trigger.step(state, facts(n=10, mean=mean))
        state = trigger.trained(state, facts())
        for _ in range(3):
            _, state = trigger.step(state, facts(n=10, mean=0.5, own=False))
        assert (len(state["fresh"]), state["regret"] > 0) == (1, True)
        _, state = trigger.step(state, facts(n=10, mean=0.4))
        assert (state["fresh"][-1], state["regret"]) == ([[10, 0.4]], 0.0)

    def test_limits_are_those_of_limited(self) -> None:
        """Limits given make it what `limited` makes of it."""
        made = regret(5.0, least_gap="1d", greatest_age="9d", back_off=3.0, rejected=1)
        inner = regret(5.0, back_off=3.0, rejected=1)
        assert made == limited(inner, least_gap="1d", greatest_age="9d", back_off=3.0, rejected=1)

    @pytest.mark.parametrize("trigger", [regret(1.0), forecast(1.0)])
    @pytest.mark.parametrize("state", [None, [], {"regret": 1.0, "batches": 3, "fresh": [0.5]}])
    def test_a_state_of_another_layout_is_refused(self, trigger: Trigger, state: Any) -> None:
        """What another release wrote is an error that says so, not a wrong decision."""
        with pytest.raises(FormatError, match="another release"):
            trigger.step(state, facts(n=10, mean=0.5))


class TestForecast:
    def life(self, trigger: Trigger, losses: list[float]) -> list[int]:
        """Days on which it fires, obeyed, with a batch of 100 rows each day that loses by the age of the model."""
        state, trained, fired = trigger.start(), 0, []
        for day in range(1, 200):
            age = day - trained
            turn = facts(day, trained=trained, n=100, mean=losses[min(age, len(losses) - 1)])
            decision, state = trigger.step(state, turn)
            if decision.fire:
                state, trained = trigger.trained(state, turn), day
                fired.append(day)
        return fired

    def test_it_fires_once_a_retrain_saves_its_worth(self) -> None:
        """Loss that grows by 0.01 a day over 0.3: in the 1,000 rows of ten days a retrain saves 10 a day of age.

        Which is 60 at the seventh day; to be sure takes up to three more."""
        fired = self.life(forecast(60.0, "10d"), [0.3 + 0.01 * max(0, age - 1) for age in range(100)])
        gaps = [b - a for a, b in itertools.pairwise(fired)]
        assert all(7 <= gap <= 10 for gap in gaps)

    def test_a_model_that_stays_fresh_is_left_alone(self) -> None:
        """No excess, nothing to save."""
        assert self.life(forecast(1.0, "10d"), [0.3]) == []

    def test_a_longer_horizon_fires_sooner(self) -> None:
        """What a retrain is of use for decides what it may cost."""
        losses = [0.3 + 0.01 * age for age in range(100)]
        first = [self.life(forecast(60.0, horizon), losses)[0] for horizon in ("5d", "10d", "30d")]
        assert first == sorted(first, reverse=True)
        assert first[0] > first[-1]

    def test_the_reason_is_in_loss_over_the_horizon(self) -> None:
        """An operator reads what a retrain would save."""
        trigger, state = forecast(60.0, "10d"), forecast(60.0, "10d").start()
        for day in range(1, 5):
            decision, state = trigger.step(state, facts(day, n=100, mean=0.3))
        assert decision.reason == (
            "a retrain would save about 0 log loss in 10d, 0 with 95% confidence; it is worth 60"
        )

    def test_without_time_between_blocks_nothing_is_told(self) -> None:
        """Rows that all happened at one instant have no pace."""
        trigger, state = forecast(0.1, "10d", fresh_rows=10), forecast(0.1, "10d").start()
        for mean in (0.1, 0.1, 5.0, 5.0):
            decision, state = trigger.step(state, facts(n=10, mean=mean))
        assert not decision.fire

    def test_limits_are_those_of_limited(self) -> None:
        """Limits given make it what `limited` makes of it."""
        assert forecast(5.0, greatest_age="9d") == limited(forecast(5.0), greatest_age="9d")


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
        assert trigger.trained(state, facts())[1]["since"] == 0


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
    ("fresh_rows", lambda: regret(1, fresh_rows=0)),
    ("back_off", lambda: regret(1, back_off=0.5)),
    ("rejected", lambda: regret(1, rejected=0)),
    ("least_gap", lambda: regret(1, least_gap="9d", greatest_age="8d")),
    ("worth", lambda: forecast(-1)),
    ("horizon", lambda: forecast(1, "0d")),
    ("quantile", lambda: forecast(1, quantile=0.6)),
    ("quantile", lambda: forecast(1, quantile=0)),
    ("fresh_rows", lambda: forecast(1, fresh_rows=True)),
    ("greatest_age", lambda: forecast(1, greatest_age="x")),
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
        (forecast(40), "when a retrain would save 40 of loss in 14d"),
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
