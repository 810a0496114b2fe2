"""Strategies by the dozen."""

import pytest
from sklearn.linear_model import LogisticRegression, SGDClassifier

from perennial import triggers, windows
from perennial.core.errors import ConfigError
from perennial.replay import grid

MODEL = LogisticRegression()


def test_every_combination_of_triggers_and_windows_and_every_updated_one():
    """Names say what each is."""
    found = grid(
        MODEL, initial="60d", triggers=["7d", 500, triggers.loss_above(0.5)],
        windows=[windows.Sliding("30d"), windows.Mix(initial=0.3, recent=0.7, rows=5_000)], updatable=SGDClassifier(),
    )  # fmt: skip
    assert len(found) == 3 * 2 + 3
    assert [strategy.kind for strategy in found.values()] == ["stateless"] * 6 + ["stateful"] * 3
    assert "every 500 rows, the last 30d" in found
    assert "every 7d, updated" in found
    one = found["every 7d, 5,000 rows: 30% initial, 70% recent"]
    assert one.trigger == triggers.every("7d")
    assert one.model is MODEL


def test_names_may_be_given():
    """By mappings."""
    found = grid(MODEL, initial=100, triggers={"weekly": "7d"}, windows={"narrow": windows.Sliding("9d")})
    assert list(found) == ["weekly, narrow"]


@pytest.mark.parametrize("settings", [{"triggers": []}, {"triggers": ["7d"]}, {"triggers": [], "updatable": MODEL}])
def test_nothing_to_combine(settings):
    """An empty grid is an error."""
    with pytest.raises(ConfigError, match="give at least one trigger"):
        grid(MODEL, initial=5, **settings)
