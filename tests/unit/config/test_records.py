"""What the YAML means: each form gives the object that its constructor in Python gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perennial import triggers, windows
from perennial.config import Config
from perennial.config.records import Serialisation, Strategy, Trigger, Window
from perennial.core.protocols import Trust

WINDOWS = [
    ({"sliding": "180d"}, windows.Sliding("180d")),
    ({"sliding": 500}, windows.Sliding(rows=500)),
    ({"sliding": {"rows": 500}}, windows.Sliding(rows=500)),
    ({"sliding": {"span": "9d", "purge": "5d", "embargo": "1d"}}, windows.Sliding("9d", purge="5d", embargo="1d")),
    ("expanding", windows.Expanding()),
    ({"expanding": None}, windows.Expanding()),
    ({"expanding": {"purge": "5d"}}, windows.Expanding(purge="5d")),
    ({"tumbling": "7d"}, windows.Tumbling("7d")),
    ({"tumbling": {"rows": 100}}, windows.Tumbling(rows=100)),
    (
        {"tumbling": {"span": "7d", "origin": "2026-01-05T01:00:00+01:00"}},
        windows.Tumbling("7d", origin=datetime(2026, 1, 5, tzinfo=UTC)),
    ),
    ({"decayed": "30d"}, windows.Decayed("30d")),
    ({"decayed": {"rows": 50, "floor": 0.1}}, windows.Decayed(rows=50, floor=0.1)),
    ({"mix": {"initial": 0.3, "recent": 0.7, "rows": 10}}, windows.Mix(initial=0.3, recent=0.7, rows=10)),
    ({"mix": {"past": 0, "recent": 1, "rows": 10}}, windows.Mix(past=0.0, recent=1.0, rows=10)),
    (
        {"mix": {"initial": 0.3, "recent": 0.7, "share_of": "source", "embargo": "1h"}},
        windows.Mix(initial=0.3, recent=0.7, share_of="source", embargo="1h"),
    ),
]
TRIGGERS = [
    ({"every": "7d"}, triggers.every("7d")),
    ({"every": 500}, triggers.every(rows=500)),
    ({"every": {"rows": 500}}, triggers.every(rows=500)),
    ("7d", triggers.every("7d")),
    (500, triggers.every(rows=500)),
    ({"loss_above": 1}, triggers.loss_above(1)),
    ({"loss_above": {"level": 0.6, "rows": 50}}, triggers.loss_above(0.6, rows=50)),
    ({"regret": 100}, triggers.regret(100)),
    ({"regret": {"worth": 100, "kappa": 1}}, triggers.regret(100, kappa=1)),
    (
        {"regret": {"worth": 100, "fresh_rows": 50, "greatest_age": "90d", "back_off": 3}},
        triggers.regret(100, fresh_rows=50, greatest_age="90d", back_off=3),
    ),
    ({"forecast": 100}, triggers.forecast(100)),
    (
        {"forecast": {"worth": 100, "horizon": "30d", "quantile": 0.1, "least_gap": "7d", "rejected": 1}},
        triggers.forecast(100, "30d", quantile=0.1, least_gap="7d", rejected=1),
    ),
    ({"any": ["7d", {"loss_above": 0.6}]}, triggers.any_of(triggers.every("7d"), triggers.loss_above(0.6))),
    (
        {"all": [{"any": [5]}, {"regret": 2}]},
        triggers.all_of(triggers.any_of(triggers.every(rows=5)), triggers.regret(2)),
    ),
    (
        {"limited": {"trigger": {"regret": 2}, "least_gap": "1d", "greatest_age": "9d", "back_off": 3, "rejected": 1}},
        triggers.limited(triggers.regret(2), least_gap="1d", greatest_age="9d", back_off=3, rejected=1),
    ),
]


@pytest.mark.parametrize(("written", "meant"), WINDOWS, ids=lambda value: str(value)[:40])
def test_a_window_means_its_constructor(written, meant):
    """Every form of every window builds the window of Python, and what is written back builds it again."""
    record = Window.model_validate(written)
    assert record.build() == meant
    assert Window.model_validate(record.model_dump(exclude_unset=True)).build() == meant


@pytest.mark.parametrize(("written", "meant"), TRIGGERS, ids=lambda value: str(value)[:40])
def test_a_trigger_means_its_constructor(written, meant):
    """Every form of every trigger builds the trigger of Python, and what is written back builds it again."""
    record = Trigger.model_validate(written)
    assert record.build() == meant
    assert Trigger.model_validate(record.model_dump(exclude_unset=True)).build() == meant


def test_every_window_and_trigger_of_python_can_be_written():
    """A window or trigger that is added to the library and not to the file fails here."""
    assert {type(meant) for _, meant in WINDOWS} == {getattr(windows, name) for name in windows.__all__}
    classes = {getattr(triggers, name) for name in triggers.__all__ if name[0].isupper()}
    assert {type(meant) for _, meant in TRIGGERS} == classes


def test_strategies_take_their_own_model_and_initial_or_the_global_ones():
    """An explicit null initial starts untrained, and is not the same as none."""
    config = Config.model_validate(
        {
            "stream": {"source": "a", "time": "t", "label": "y"},
            "model": "global.Model",
            "initial": "60d",
            "strategies": {
                "a": {"stateful": {"every": 1}},
                "b": {"stateful": {"every": 1, "initial": None, "model": {"estimator": "own.Model"}}},
                "c": {"frozen": {"initial": 500}},
            },
        }
    )
    assert [config.initial_of(name) for name in "abc"] == [timedelta(days=60), None, 500]
    assert [config.model_of(name).estimator for name in "abc"] == ["global.Model", "own.Model", "global.Model"]


def test_strategies_mean_their_constructors():
    """The four kinds build the four strategies, with their triggers, windows and initial periods."""
    hybrid = Strategy.model_validate(
        {"hybrid": {"every": "1d", "reset": {"every": "90d"}, "window": {"sliding": "9d"}}}
    )
    built = hybrid.chosen.build("model", timedelta(days=60))
    assert (built.kind, built.trigger, built.reset) == ("hybrid", triggers.every("1d"), triggers.every("90d"))
    assert built.window == windows.Sliding("9d")
    stateless = Strategy.model_validate({"stateless": {"trigger": {"regret": 5}}}).chosen.build("model", 100)
    assert (stateless.kind, stateless.trigger, stateless.window) == (
        "stateless",
        triggers.regret(5),
        windows.Expanding(),
    )
    assert Strategy.model_validate("frozen").chosen.build("model", 100).kind == "frozen"
    assert Strategy.model_validate({"stateful": {"every": 1}}).chosen.build("model", None).row_by_row


def test_python_users_build_the_same_records():
    """Records made of records equal those made of plain data."""
    from perennial.config import records as r

    made = Config(
        stream=r.Stream(source="a", time="t", label=r.Label(column="y", delay="7d")),
        strategies={"w": r.Strategy(stateless=r.Stateless(every=r.Every(interval="7d")))},
        model=r.Model(estimator="a.B"),
    )
    plain = {
        "stream": {"source": "a", "time": "t", "label": {"column": "y", "delay": "7d"}},
        "strategies": {"w": {"stateless": {"every": "7d"}}},
        "model": "a.B",
    }
    assert made == Config.model_validate(plain)


def test_what_may_be_loaded_is_the_trust_of_the_learners():
    """Nothing given allows no pickle and no type of one's own; a pattern instead of a name is refused."""
    assert Serialisation().build() == Trust()
    written = {"pickle": True, "trust": ["my_package.models.Majority"]}
    assert Serialisation.model_validate(written).build() == Trust(pickle=True, types=("my_package.models.Majority",))
    with pytest.raises(ValueError, match="name a type in full"):
        Serialisation.model_validate({"trust": ["my_package.*"]})
