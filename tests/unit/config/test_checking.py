"""Errors of a configuration: the line, the path, the rule and the nearest valid word."""

from __future__ import annotations

import pickle

import pytest

from perennial.config import parse
from perennial.core.errors import ConfigError

VALID = """\
name: bank
stream:
  source: calls/
  time: timestamp
  label: {column: target, delay: 7d}
  weight: null
  drop: [duration]
  batch: 1d
model: lightgbm.LGBMClassifier
strategies:
  monthly: {stateless: {every: 30d, window: {sliding: 180d}}}
  mixed: {stateless: {every: 7d, window: {mix: {initial: 0.3, recent: 0.7, rows: 20000}}}}
  daily: {stateful: {every: 1d}}
  both: {hybrid: {trigger: {any: [{loss_above: 0.6}, {limited: {trigger: 500, least_gap: 1d}}]}, reset: 90d}}
initial: 60d
deploy: monthly
metrics: [log_loss, roc_auc]
cost: {retrain: 0.50, false_positive: 0.10, false_negative: amount}
gate: {mode: before}
"""


def told(old: str, new: str) -> list[tuple[int | None, str, str]]:
    """The problems of the valid text with one place changed."""
    assert old in VALID
    with pytest.raises(ConfigError) as caught:
        parse(VALID.replace(old, new))
    return [(p.line, p.path, p.need) for p in caught.value.got.all]


def test_the_example_is_valid():
    """What the other tests spoil is fine to begin with."""
    assert list(parse(VALID).config.strategies) == ["monthly", "mixed", "daily", "both"]


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "words"),
    [
        ("sliding: 180d", "slidng: 180d", 11, "strategies.monthly.stateless.window.slidng", "did you mean `sliding`?"),
        ("sliding: 180d", "sliding: 180", None, "", ""),
        ("sliding: 180d", "sliding: 180x", 11, "strategies.monthly.stateless.window.sliding", "write a duration"),
        ("{sliding: 180d}", "slidng", 11, "strategies.monthly.stateless.window", "did you mean `sliding`?"),
        ("{sliding: 180d}", "{sliding: 1d, tumbling: 2d}", 11, "strategies.monthly.stateless.window", "exactly one of"),
        ("recent: 0.7", "recent: 0.8", 12, "strategies.mixed.stateless.window.mix", "sum to 1"),
        ("recent: 0.7, ", "", 12, "strategies.mixed.stateless.window.mix.recent", "is missing"),
        ("rows: 20000", "rows: many", 12, "strategies.mixed.stateless.window.mix.rows", "whole number"),
        ("rows: 20000", "rows: true", 12, "strategies.mixed.stateless.window.mix.rows", "whole number"),
        ("every: 30d, ", "", 11, "strategies.monthly.stateless", "either `every`"),
        ("every: 30d", "every: 30d, trigger: 5", 11, "strategies.monthly.stateless.every", "either `every`"),
        ("stateful:", "statefull:", 13, "strategies.daily.statefull", "did you mean `stateful`?"),
        ("daily:", "5:", 13, "strategies", "put it in quotes"),
        ("loss_above: 0.6", "loss_above: high", 14, "strategies.both.hybrid.trigger.any[0].loss_above", "a number"),
        ("least_gap", "leastgap", 14, "strategies.both.hybrid.trigger.any[1].limited.leastgap", "`least_gap`"),
        ("trigger: 500, ", "", 14, "strategies.both.hybrid.trigger.any[1].limited.trigger", "is missing"),
        (", reset: 90d", "", 14, "strategies.both.hybrid.reset", "is missing"),
        ("  time: timestamp\n", "", 2, "stream.time", "is missing: Column of event times."),
        ("delay: 7d", "delay: 7", 5, "stream.label.delay", "write a duration"),
        ("delay: 7d", "delay: 7d, known_at: seen", 5, "stream.label.delay", "one of the two"),
        ("delay: 7d", "within: 7d", 5, "stream.label.within", "go together"),
        ("delay: 7d", "within: 7d, absent: 0, wait: 5d", 5, "stream.label.wait", "wait at least as long"),
        ("weight: null", "weight: 3", 6, "stream.weight", "write text"),
        ("weight: null", "label_delay: 7d", 6, "stream.label_delay", "stream: label: {column: target, delay: 7d}"),
        ("weight: null", "target: y", 6, "stream.target", "stream: label: {column: y}"),
        ("weight: null", "lookback: 7d", 6, "stream.lookback", "stream: features: {lookback: 7d}"),
        ("initial: 60d", "known_at: at", 15, "known_at", "stream: label: {column: target, known_at: at}"),
        ("initial: 60d", "within: 9d", 15, "within", "stream: label: {column: target, within: 9d}"),
        ("initial: 60d", "absent: 'no'", 15, "absent", "stream: label: {column: target, absent: 'no'}"),
        ("[duration]", "duration", 7, "stream.drop", "write a list"),
        ("batch: 1d", "batch: 0", 8, "stream.batch", "positive whole number"),
        ("batch: 1d", "batch: 1month", 8, "stream.batch", "write a duration"),
        ("batch: 1d", "bach: 1d", 8, "stream.bach", "did you mean `batch`?"),
        ("model: lightgbm.LGBMClassifier", "model: {params: {a: 1}}", 9, "model.estimator", "is missing"),
        ("model: lightgbm.LGBMClassifier", "model: {estimator: a.B, update: decay}", 9, "model.update", "`decayed`"),
        ("model: lightgbm.LGBMClassifier", "model: {estimator: a.B, options: {c: 1}}", 9, "model.options", "`update`"),
        ("initial: 60d", "initial: sixty", 15, "initial", "write a duration"),
        ("initial: 60d", "intial: 60d", 15, "intial", "did you mean `initial`?"),
        ("deploy: monthly", "deploy: montly", 16, "deploy", "did you mean `monthly`?"),
        ("[log_loss, roc_auc]", "log_loss", 17, "metrics", "write a list"),
        ("retrain: 0.50", "retrian: 0.50", 18, "cost.retrian", "did you mean `retrain`?"),
        ("retrain: 0.50", "retrain: -1", 18, "cost.retrain", ""),
        ("mode: before", "mode: befor", 19, "gate.mode", "did you mean `before`?"),
        ("{mode: before}", "{slices: {a: {where: {b: 1}, margn: 1}}}", 19, "gate.slices.a.margn", "`margin`"),
        ("{mode: before}", "{slices: {a: {where: {b: {from: 1}}}}}", 19, "gate.slices.a.where.b.from", "below, least"),
        ("{mode: before}", "{slices: {a: {where: {b: []}}}}", 19, "gate.slices.a.where.b", "a range of numbers"),
        ("{mode: before}", "{golden: {file: ''}}", 19, "gate.golden.file", "name a file"),
        ("{mode: before}", "{golden: {limit: 0}}", 19, "gate.golden.file", "is missing"),
        ("{mode: before}", "{largest_bytes: 0}", 19, "gate.largest_bytes", "whole number"),
        ("gate: {mode: before}", "clairvoyant: daily", 19, "clairvoyant", "stateless"),
        ("gate: {mode: before}", "quality: {nulls: 2}", 19, "quality.nulls", "share"),
        ("gate: {mode: before}", "retention: never", 19, "retention", "or none"),
    ],
)
def test_a_mistake_is_told_where_it_is(old, new, line, path, words):
    """Each rule names the line and path of the setting that breaks it, and what to write."""
    if line is None:  # a bare number is a number of rows, which is no mistake
        assert parse(VALID.replace(old, new)).config.strategies["monthly"].chosen.window.chosen.rows == 180
        return
    [(at, where, need)] = told(old, new)
    assert (at, where) == (line, path)
    assert words in need


def test_all_mistakes_are_told_at_once_in_order():
    """Three wrong lines give one error that lists three problems from top to bottom, as text and as facts."""
    text = (
        VALID.replace("time: timestamp", "tim: timestamp").replace("1d\nmodel", "0\nmodel").replace("[log_loss", "[1")
    )
    with pytest.raises(ConfigError) as caught:
        parse(text, "bank.yaml")
    assert [p.line for p in caught.value.got.all] == [2, 4, 8, 17]
    lines = str(caught.value).splitlines()
    assert lines[0] == "bank.yaml=4 problems: correct each of them:"
    assert lines[2] == "  line 4: stream.tim='timestamp': there is no such setting here: did you mean `time`?"


def test_one_mistake_reads_as_one_sentence():
    """The message has the file, the line, the path, the value as written and the rule."""
    with pytest.raises(ConfigError) as caught:
        parse(VALID.replace("sliding: 180d", "sliding: 0d"), "bank.yaml")
    assert str(caught.value) == (
        "bank.yaml, line 11: strategies.monthly.stateless.window.sliding='0d': give a positive duration"
    )


def test_an_error_crosses_processes():
    """Pickling keeps message and problems."""
    with pytest.raises(ConfigError) as caught:
        parse(VALID.replace("batch: 1d", "batch: 0"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.got.all == caught.value.got.all
