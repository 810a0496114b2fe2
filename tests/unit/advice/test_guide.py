"""What the guide answers: the textbook's two cases, what it refuses, and that its configurations are ones."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import pytest

from perennial.advice.guide import DAY, FAMILIES, Advice, Situation, advise
from perennial.config import parse
from perennial.core.errors import ConfigError
from perennial.core.times import spell


def said(advice: Advice) -> str:
    """All its reasons as one text."""
    return "; ".join(advice.reasons)


def test_daily_trading_with_moving_averages_and_a_random_forest() -> None:
    """Data are kept and labels come the next day: stateless, every day, on a window that moves, and it says why."""
    advice = advise(Situation(family="forest", label_delay=DAY, cadence=DAY, looks_back=60 * DAY))
    assert advice.way == "stateless"
    assert advice.trigger == {"every": "1d"}
    assert advice.window is not None
    assert list(advice.window) == ["sliding"]
    assert (advice.deploy, advice.strategies["stateless"]["stateless"]["every"]) == ("stateless", "1d")
    assert "cannot go on learning in place" in said(advice)
    assert "sliding window" in said(advice)
    assert "labels come 1d late" in said(advice)
    assert "features look back 60d" in said(advice)
    assert "features: {build: my_features:build, lookback: 60d}" in advice.config
    assert not any("stateful" in strategy for strategy in advice.strategies.values())


def test_a_language_model_with_thumbs_and_a_monthly_release() -> None:
    """Stateful fine-tuning each month, the adapter continued with replay and an anchor; a stateless one beside it."""
    monthly = 30 * DAY
    advice = advise(Situation(family="language-model", cadence=monthly))
    assert (advice.way, advice.deploy, advice.trigger) == ("both", "stateful", {"every": "30d"})
    for word in ("continue the adapter", "replay", "anchor", "thumbs reward flattery"):
        assert word in said(advice)
    assert {"stateful", "stateless"} <= {kind for strategy in advice.strategies.values() for kind in strategy}
    assert "gate: {mode: before}" in advice.config
    dear = advise(Situation(family="language-model", cadence=monthly, retrain_takes=10 * DAY))
    assert dear.way == "stateful"
    assert not any("stateless" in strategy for strategy in dear.strategies.values())
    assert "replay" in said(dear)
    forgotten = advise(Situation(family="language-model", cadence=monthly, keep=False))
    assert forgotten.way == "stateful"
    assert "there is no replay" in said(forgotten)
    assert "anchor" in said(forgotten)


def test_without_raw_rows_only_updates_are_left() -> None:
    """Whatever the model: no window, nothing from scratch, and no row kept."""
    for family in FAMILIES:
        advice = advise(Situation(family=family, keep=False, cadence=DAY))
        assert (advice.way, advice.window, advice.deploy) == ("stateful", None, "stateful")
        assert "retention: none" in advice.config
        assert "no raw row may be kept" in said(advice)


def test_rows_that_are_gone_before_their_labels_teach_nobody() -> None:
    """Kept for a week, labelled after a month: neither a window nor an update could learn them."""
    with pytest.raises(ConfigError, match="when rows are gone") as caught:
        Situation(family="forest", label_delay=30 * DAY, keep_for=7 * DAY, cadence=DAY)
    assert caught.value.field == "keep_for"


def test_the_first_training_waits_for_its_labels() -> None:
    """The initial period holds what has a label by its end, also where no window says so."""
    for family in ("boosting", "linear", "forest"):
        advice = advise(Situation(family=family, label_delay=60 * DAY, keep=False, cadence=DAY))
        assert "initial: 68d" in advice.config
        assert "60d for each label" in advice.config


def test_a_training_longer_than_the_interval_is_no_choice() -> None:
    """It is never done in time; one that takes much of it is left to the exceptions."""
    given = {"family": "boosting", "cadence": DAY}
    assert advise(Situation(**given, retrain_takes=timedelta(hours=1))).way == "both"
    assert advise(Situation(**given, retrain_takes=timedelta(hours=12))).way == "stateful"
    late = advise(Situation(**given, retrain_takes=2 * DAY))
    assert late.way == "stateful"
    assert "never done in time" in said(late)


def test_a_price_without_a_cadence_is_regret() -> None:
    """What a retrain is worth decides when, between a least gap and a greatest age."""
    advice = advise(Situation(family="boosting", worth=50.0, label_delay=7 * DAY))
    assert advice.trigger == {"regret": {"worth": 50.0, "least_gap": "7d", "greatest_age": "90d"}}
    assert "trigger: {regret: {worth: 50.0" in advice.config
    neither = advise(Situation(family="boosting"))
    assert neither.trigger == {"every": "7d"}
    assert any(what.startswith("how often") for what in neither.unknown)


def test_it_says_what_it_cannot_know_and_when_a_backtest_will() -> None:
    """Every answer names the labelled rows with which a comparison begins to tell."""
    rows = {advise(Situation(family="forest", cadence=DAY, rows_per_day=pace)).unknown[0] for pace in (10, 1000)}
    assert rows == {
        "whether this beats a model that is never retrained: run `perennial backtest` once you have about 1,080 "
        "labelled rows",
        "whether this beats a model that is never retrained: run `perennial backtest` once you have about 24,000 "
        "labelled rows",
    }
    assert "1,000 labelled rows over 98d" in advise(Situation(family="forest", cadence=DAY)).unknown[0]


def test_returning_concepts_and_new_classes_have_their_word() -> None:
    """Past rows stay in the window, an old model in the comparison; who takes up new classes is said."""
    advice = advise(Situation(family="forest", cadence=DAY, rows_per_day=100, returns=True, new_classes=True))
    assert advice.window == {"mix": {"past": 0.3, "recent": 0.7, "rows": 1600}}
    assert "keep a frozen model" in said(advice)
    assert "classes of its window" in said(advice)
    assert "leave such rows out" in said(advise(Situation(family="neural", cadence=DAY, new_classes=True)))


REFUSED = [
    ("family", {"family": "forrest"}),
    ("task", {"family": "forest", "task": "ranking"}),
    ("cadence", {"family": "forest", "cadence": timedelta(0)}),
    ("rows_per_day", {"family": "forest", "rows_per_day": 0}),
    ("worth", {"family": "forest", "worth": float("inf")}),
    ("window", {"family": "linear", "keep": False, "window": 90 * DAY}),
    ("keep_for", {"family": "linear", "keep": False, "keep_for": 90 * DAY}),
    ("looks_back", {"family": "linear", "keep": False, "looks_back": 90 * DAY}),
    ("window", {"family": "forest", "keep_for": 60 * DAY, "window": 60 * DAY, "label_delay": DAY}),
]


@pytest.mark.parametrize(("field", "given"), REFUSED, ids=[f"{i}-{f}" for i, (f, _) in enumerate(REFUSED)])
def test_what_does_not_go_together_is_refused_in_words(field: str, given: dict) -> None:
    """The error names the setting, and the way out."""
    with pytest.raises(ConfigError) as caught:
        Situation(**given)
    assert caught.value.field == field


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_configuration_is_one(family: str, task: str) -> None:
    """Whatever is answered, what is written reads back, and deploys what was advised."""
    choices = itertools.product(
        [timedelta(0), 7 * DAY], [{"keep": False}, {}, {"keep_for": 60 * DAY}], [None, timedelta(hours=1)],
        [None, 5.0], [False, True],
    )  # fmt: skip
    for delay, kept, cadence, pace, both in choices:
        given = Situation(
            family=family, task=task, label_delay=delay, cadence=cadence, rows_per_day=pace, returns=both,
            new_classes=both, worth=5.0 if both else None, **kept,
        )  # fmt: skip
        advice = advise(given)
        config = parse(advice.config, Path("perennial.yaml")).config
        assert config.deploy == advice.deploy
        assert set(config.strategies) == set(advice.strategies)
        kinds = {strategy.kind for strategy in config.strategies.values()} - {"frozen", "hybrid"}
        assert kinds == ({"stateless", "stateful"} if advice.way == "both" else {advice.way})
        assert all(line in advice.config for line in (f"# - {reason}" for reason in advice.reasons))
        assert (f"delay: {spell(delay)}" in advice.config) == bool(delay)
