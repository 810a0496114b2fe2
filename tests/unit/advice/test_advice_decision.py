"""The advice is the cheapest of what cannot be told apart, and says how sure it is, or that nothing can be said."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest

from perennial.advice.advise import LEAST_BATCHES, advise, recommended
from perennial.advice.blocks import Blocks
from perennial.core.errors import ConfigError, DataError


def made(offsets: Any, t: int = 80, *, noise: float = 1.0, seed: int = 0, **settings: Any) -> Blocks:
    """Strategies whose losses per batch are a common course, their own noise, and an offset."""
    random = np.random.default_rng(seed)
    k = len(offsets)
    lines = settings.get("lines", ())
    common = 50 + np.cumsum(random.normal(size=(t, 1)), axis=0)
    given: dict[str, Any] = {
        "strategies": tuple("abcdefghij"[: k - len(lines)]),
        "rows": np.full(t, 100),
        "loss": common + noise * random.normal(size=(t, k)) + np.array(offsets, dtype=float),
        "effort": {"rows_trained": 100.0 * 2 ** np.arange(k - len(lines))},
    }
    return Blocks(**{**given, **settings})


def test_the_cheapest_of_those_that_cannot_be_told_apart():
    """Not the one of the least loss, where that may be chance."""
    blocks = made([9, 0.02, 0, 8])
    found = advise(blocks)
    assert (found.strategy, found.tied, found.verdict) == ("b", ("c",), "tied")
    dear = advise(made([9, 0.02, 0, 8], effort={"rows_trained": np.array([1.0, 9.0, 4.0, 1.0])}))
    assert (dear.strategy, dear.tied, dear.cheapest_by) == ("c", ("b",), "rows_trained")
    trees = {"row_trees": np.array([5.0, 3.0, 9.0, 0.0]), "rows_trained": np.array([1.0, 9.0, 4.0, 1.0])}
    assert advise(made([9, 0.02, 0, 8], effort=trees)).strategy == "b"
    mixed = trees | {"row_trees": np.array([5.0, 3.0, 0.0, 0.0])}
    assert advise(made([9, 0.02, 0, 8], effort=mixed)).strategy == "c"


def test_one_that_is_better_than_all_others_is_told_apart():
    """Then there is nothing to be tied with, however much it costs."""
    found = advise(made([9, 0, 3], lines=()))
    assert (found.strategy, found.tied, found.verdict) == ("b", (), "clear")
    assert "Every other strategy is shown to be worse" in str(found)
    assert found.p_best > 0.99
    assert found.low < found.saving < found.high
    assert found.saving == pytest.approx(9 * 80 / 8000, rel=0.1)
    assert found.per == "row"


def test_identical_strategies_give_the_cheapest():
    """The same predictions in every batch are one strategy at several prices; their chances to be best are shared."""
    same = made([0, 0, 0], noise=0, effort={"rows_trained": np.array([9.0, 1.0, 4.0])})
    found = advise(same)
    assert (found.strategy, found.tied) == ("b", ("a", "c"))
    assert [one.p_best for one in found.standings] == pytest.approx([1 / 3] * 3)
    assert [(one.saving, one.low, one.high) for one in found.standings] == [(0, 0, 0)] * 3
    assert advise(made([0, 0, 0], noise=0, effort={})).strategy == "a"


def test_chances_of_the_strategies_sum_to_one():
    """Lines have none."""
    found = advise(made([0, 0.1, 0.2, 5], lines=("majority",)))
    assert sum(one.p_best for one in found.standings if not one.line) == pytest.approx(1)
    assert [one.p_best for one in found.standings if one.line] == [None]


def test_the_same_seed_the_same_advice():
    """To the last digit; another seed changes intervals and not what was measured."""
    blocks = made([2, 0, 0.3])
    first, other = advise(blocks, seed=3), advise(blocks, seed=4)
    assert advise(blocks, seed=3) == first
    assert other.low != first.low
    assert other.saving == first.saving
    wide = advise(blocks, level=0.99, seed=3)
    assert wide.low < first.low < first.high < wide.high


def priced(price: float) -> Blocks:
    """`never` loses 10 a batch more than `often`, which trains in every batch at a price."""
    random = np.random.default_rng(1)
    common = 50 + random.normal(size=(60, 1))
    return Blocks(
        strategies=("never", "often"),
        rows=np.full(60, 100),
        loss=common + random.normal(size=(60, 2)) / 2 + [10.0, 0.0],
        training=np.tile([0.0, price], (60, 1)),
        running=np.zeros((60, 2)),
        priced=True,
        metric="money",
        loss_name="mistakes in money",
        days=60.0,
    )


def test_a_dearer_retrain_changes_the_advice():
    """With prices the advice says what it becomes if a training costs twice or half as much."""
    found = advise(priced(7.0))
    assert (found.strategy, found.if_double, found.if_half) == ("often", "never", "often")
    assert "If a retrain costs twice as much: never; half as much: the same." in str(found)
    assert (found.per, found.by, found.unit) == ("month", "money", "money")
    assert found.saving == pytest.approx(30 * 3, rel=0.1)
    dear = advise(priced(14.0))
    assert (dear.strategy, dear.if_double, dear.if_half) == ("never", "never", "often")
    assert "Against it, often would save -" in str(dear)
    unpriced = advise(made([1, 0]))
    assert unpriced.if_double is unpriced.if_half is None
    assert "cannot be told without a price" in str(unpriced)


def test_where_money_is_tied_the_cheapest_is_who_trains_for_less():
    """And of equally dear ones who costs less in all."""
    random = np.random.default_rng(5)
    loss = 50 + random.normal(size=(60, 1)) + random.normal(size=(60, 3)) + [0.0, 0.1, -0.1]
    training = np.tile([0.2, 0.1, 0.1], (60, 1))
    found = advise(
        Blocks(strategies=("a", "b", "c"), rows=np.full(60, 9), loss=loss, training=training, priced=True, days=20.0)
    )
    assert set(found.tied) | {found.strategy} == {"a", "b", "c"}
    assert found.strategy == ("b" if loss[:, 1].sum() < loss[:, 2].sum() else "c")
    assert (found.cheapest_by, found.per) == ("money", "span")


def test_too_few_batches_are_not_enough():
    """It says so, and names the cheapest without a claim; with very few nothing is tested at all."""
    few = advise(made([9, 0, 8.5], t=LEAST_BATCHES - 1))
    assert (few.verdict, few.strategy) == ("not_enough", "b")
    assert str(few).startswith(
        "Not enough evidence to choose: 19 batches, and 20 are needed.\nAs a stop-gap, the cheapest of what lost"
    )
    assert recommended(few)["reason"].startswith("not enough evidence: 19 batches")
    assert advise(made([9, 0, 8.5], t=2 * LEAST_BATCHES)).verdict == "clear"
    for t in (1, 2, 3, 5, 7):
        very = advise(made([9, 0, 8.5], t=t))
        assert (very.verdict, very.strategy, very.tied) == ("not_enough", "b", ("a", "c"))
        assert advise(made([9, 0, 8.5], t=t), margin=math.inf).strategy == "a"
        assert all(one.p_set is None for one in very.standings)
        json.dumps(very.to_dict(), allow_nan=False)


def test_a_tie_is_no_licence_to_lose_more():
    """Of what cannot be told apart the cheapest is taken only if it lost about as little, unless told otherwise."""
    blocks = made([0.8, 0, 5], noise=6, seed=3)
    found = advise(blocks)
    assert "a" in {found.strategy, *found.tied}
    assert found.strategy == "b"
    assert "lost at most 1 % more" in str(found)
    for margin in (0.05, math.inf):
        assert advise(blocks, margin=margin).strategy == "a"
    assert advise(blocks, margin=math.inf).to_dict()["margin"] is None
    with pytest.raises(ConfigError, match="margin"):
        advise(blocks, margin=-0.1)


def test_what_lasts_for_long_counts_for_few_batches():
    """Thirty batches of which each run is better for one strategy are a handful of cases."""
    turns = np.repeat([1.0, -1.0, 1.0, -1.0], 10)[:, None]
    blocks = Blocks(strategies=("a", "b"), rows=np.full(40, 10), loss=50 + turns * [1.0, -1.0])
    found = advise(blocks)
    assert found.verdict == "not_enough"
    assert "count as" in found.short


def test_nothing_told_apart_from_no_skill_is_not_enough():
    """Where the set holds everything, the lines without skill too, there is no finding."""
    found = advise(made([0, 0.01, 0.02], t=40, noise=5, seed=2, lines=("majority",)))
    assert found.verdict == "not_enough"
    assert "always saying the commonest class" in found.short


def test_a_line_that_is_not_beaten_is_named():
    """Whether it is as good as the best strategy, or better than all of them."""
    as_good = advise(made([4, 0, 0.01], lines=("no_change",)))
    assert (as_good.verdict, as_good.strategy, as_good.unbeaten) == ("no_skill", "b", ("no_change",))
    assert "It is not shown to beat repeating the last label." in str(as_good)
    better = advise(made([7, 4, 0], lines=("no_change",)))
    assert (better.verdict, better.strategy, better.unbeaten) == ("no_skill", "b", ("no_change",))
    assert [one.in_set for one in better.standings] == [False, False, True]
    worse = advise(made([4, 0, 5], lines=("no_change",)))
    assert (worse.verdict, worse.unbeaten) == ("clear", ())


def test_a_line_without_probabilities_is_compared_by_its_errors():
    """It has no log loss; whether the advised strategy makes fewer mistakes can be told all the same."""
    errors = np.random.default_rng(3).normal(20, 2, size=(80, 2))
    beaten = advise(made([4, 0], errors=errors, apart={"no_change": errors[:, 1] + 5}))
    assert beaten.unbeaten == ()
    not_beaten = advise(made([4, 0], errors=errors, apart={"no_change": errors[:, 1] - 5}))
    assert not_beaten.unbeaten == ("no_change",)


def test_notes_and_stand_ins_are_said():
    """What the comparison left out, and a loss that stands in for a metric of ranks."""
    found = advise(made([1, 0], metric="roc_auc", exact=False, notes=("two were left out",)))
    assert str(found).endswith("Two were left out.\nRoc_auc is no mean over rows: log loss stands in for it.")
    assert recommended(found)["by"] == "roc_auc"


def test_one_strategy_alone():
    """There is nothing to choose, and it says so."""
    found = advise(made([0]))
    assert (found.strategy, found.verdict, found.p_best) == ("a", "clear", 1)
    assert "There is nothing to compare it with" in str(found)
    assert "only strategy" in found.reason()


def test_plain_data():
    """All of it, as JSON can hold it."""
    plain = advise(made([4, 0, 0.2], lines=("majority",))).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["sentences"][0].startswith("Use ")
    assert [one["name"] for one in plain["standings"]] == ["a", "b", "majority"]


@pytest.mark.parametrize(("level", "seed"), [(1.0, 0), (0.3, 0), ("high", 0), (0.9, -1), (0.9, 1.5), (0.9, True)])
def test_a_level_or_seed_that_is_none(level, seed):
    """Refused by name."""
    with pytest.raises(ConfigError):
        advise(made([1, 0]), level=level, seed=seed)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": np.zeros((80, 3))},
        {"loss": np.full((80, 2), np.nan)},
        {"strategies": (), "lines": ("a", "b")},
        {"training": np.zeros((79, 2))},
        {"effort": {"rows_trained": np.zeros(3)}},
    ],
)
def test_blocks_that_do_not_fit(changes):
    """Refused when made."""
    with pytest.raises(DataError):
        made([1, 0], **changes)


def test_it_takes_little_time():
    """Ten strategies and four lines over 500 batches: a second or two of CPU."""
    blocks = made(np.linspace(0, 3, 14), t=500, lines=("majority", "no_change", "no_change_by_batch", "frozen"))
    advise(made([1, 0]))
    begun = time.process_time()
    advise(blocks)
    assert time.process_time() - begun < 4
