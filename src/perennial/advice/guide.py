"""Stateless or stateful, for somebody who has no history yet: an answer with reasons, and a configuration to start on.

Nothing here looks at data: what only a history can tell is listed as such, with how many labelled rows it takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from perennial.core.errors import ConfigError, nearest
from perennial.core.times import duration, spell

Way = Literal["stateless", "stateful", "both"]

DAY = timedelta(days=1)
_ENOUGH = 1_000  # labelled rows with which a comparison begins to say something
_CHECKPOINTS = 8  # trainings that a comparison should hold at least
_WINDOW = 16  # checkpoint intervals that a window spans to begin with
_QUARTER = 90 * DAY  # spans it, where the pace of rows is not known
_SHARE = 0.25  # of the interval that a training from scratch may take and still be affordable
_SELDOM = 7 * DAY  # between versions: each can wait for its verdict before it serves
_BLOCK = 100  # scored rows below which noise decides how good a model is


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of model: what it is called, how it is retrained and updated, and why.

    Parameters
    ----------
    title : str
        In words.
    scratch, update : mapping by task
        The model of the configuration for trainings from scratch, and for updates in place; None if there is none.
    why_scratch, why_update : str
        What speaks for each.
    grows : bool, optional
        Whether an update takes up classes that first appear later; None if that is up to a learner of the user's.
    cheap : bool
        Whether an update is as good as a retrain, so that nothing is gained by one from scratch.
    weights : bool
        Whether an update goes on from weights, and so forgets what it is no longer shown.
    """

    title: str
    scratch: Mapping[str, Any]
    update: Mapping[str, Any]
    why_scratch: str
    why_update: str
    grows: bool | None
    cheap: bool = False
    weights: bool = False


def _both(path: str) -> dict[str, str]:
    return {"classification": f"{path}Classifier", "regression": f"{path}Regressor"}


def _with(models: Mapping[str, str], **more: Any) -> dict[str, Any]:
    return {task: {"estimator": path, **more} for task, path in models.items()}


_OWN = {"classification": "my_model:build", "regression": "my_model:build"}
_FOREST = _both("sklearn.ensemble.RandomForest")
_BOOSTED = _both("lightgbm.LGBM")
_SGD = {
    "classification": {"estimator": "sklearn.linear_model.SGDClassifier", "params": {"loss": "log_loss"}},
    "regression": "perennial.learners.plain.Linear",
}

FAMILIES: dict[str, Family] = {
    "forest": Family(
        title="random forest",
        scratch=_FOREST,
        update=_with(_FOREST, update="sliding_forest"),
        why_scratch="a random forest cannot go on learning in place: its trees are grown once, so that a new model "
        "from a window that moves is the honest way",
        why_update="a sliding forest is what comes nearest to an update: a small forest for each batch of labels, the "
        "worst dropped; it needs no old rows",
        grows=True,
    ),
    "boosting": Family(
        title="boosted trees",
        scratch=_BOOSTED,
        update=_with(_BOOSTED, update="decayed"),
        why_scratch="boosted trees are quick to train from scratch, and forget whatever leaves the window",
        why_update="decayed boosting shrinks the model and adds a few trees for the new rows, in bounded memory; plain "
        "continuation grows without bound, and is there as a baseline to beat only",
        grows=True,
    ),
    "linear": Family(
        title="linear model",
        scratch=_SGD,
        update=_SGD,
        why_scratch="a linear model is cheap to train from scratch as well",
        why_update="a linear model updates cheaply; learners.plain.Linear, updated or fitted anew on the exponentially "
        "weighted history, is the same model",
        grows=True,
        cheap=True,
    ),
    "neural": Family(
        title="neural network",
        scratch=_both("sklearn.neural_network.MLP"),
        update=_both("sklearn.neural_network.MLP"),
        why_scratch="a network that always goes on from its weights can generalise worse than one trained anew (Ash "
        "and Adams, 2020), so that a new start now and then is worth its price",
        why_update="fine-tuning on new labels costs a fraction of a training from scratch",
        grows=False,
        weights=True,
    ),
    "text-encoder": Family(
        title="pretrained text encoder",
        scratch=_OWN,
        update=_OWN,
        why_scratch="a new fine-tuning from the pretrained weights forgets what past updates got wrong",
        why_update="what was pretrained is worth keeping: fine-tuning goes on from it on new labels only, with a fresh "
        "optimizer and a learning rate that is warmed up again",
        grows=None,
        weights=True,
    ),
    "language-model": Family(
        title="language model",
        scratch=_OWN,
        update=_OWN,
        why_scratch="a new adapter from the base model on all feedback so far is what the continued one has to beat",
        why_update="nobody trains such a model from scratch: continue the adapter of the last release on new feedback, "
        "and let the base model be",
        grows=None,
        weights=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What somebody says of a model that is to be kept current.

    Parameters
    ----------
    family : str
        One of :data:`FAMILIES`.
    task : {"classification", "regression"}
        What it predicts.
    label_delay : timedelta
        How long after its event a label is known.
    keep : bool
        Whether raw rows may be kept.
    keep_for : timedelta, optional
        How long, if not for ever.
    cadence : timedelta, optional
        How often a new version is wished for.
    rows_per_day : float, optional
        Labelled rows a day.
    retrain_takes : timedelta, optional
        How long a training from scratch takes.
    worth : float, optional
        How much loss, such as wrong predictions, a retrain may cost.
    window : timedelta, optional
        A window that is wished for.
    looks_back : timedelta, optional
        How far back features look, as moving averages do.
    returns : bool
        Whether what was true before comes back, as seasons do.
    new_classes : bool
        Whether classes appear that were not there before.
    """

    family: str
    task: Literal["classification", "regression"] = "classification"
    label_delay: timedelta = timedelta(0)
    keep: bool = True
    keep_for: timedelta | None = None
    cadence: timedelta | None = None
    rows_per_day: float | None = None
    retrain_takes: timedelta | None = None
    worth: float | None = None
    window: timedelta | None = None
    looks_back: timedelta | None = None
    returns: bool = False
    new_classes: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError("family", self.family, nearest(self.family, FAMILIES))
        if self.task not in ("classification", "regression"):
            raise ConfigError("task", self.task, "give classification or regression")
        for field in ("cadence", "keep_for", "retrain_takes", "window", "looks_back"):
            span = getattr(self, field)
            if span is not None and span <= timedelta(0):
                raise ConfigError(field, spell(span), "give a positive duration, e.g. 1d")
        for field in ("rows_per_day", "worth"):
            value = getattr(self, field)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(field, value, "give a positive number")
        if not self.keep:
            for field, what in (
                ("window", "a window reads raw rows again"),
                ("keep_for", "it says how long raw rows are kept"),
                ("looks_back", "features that look back read raw rows again"),
            ):
                if getattr(self, field) is not None:
                    need = f"{what}, and none may be kept: leave it out, or keep data"
                    raise ConfigError(field, spell(getattr(self, field)), need)
        if self.keep_for is not None and self.keep_for <= self.label_delay:
            need = f"labels come after {spell(self.label_delay)}, when rows are gone, so that nothing can learn them: "
            need += "keep rows longer, or keep none (--no-keep-data): a row is then held until its label is learned"
            raise ConfigError("keep_for", spell(self.keep_for), need)
        if self.window is not None and self.keep_for is not None and self.window + self.label_delay > self.keep_for:
            need = f"it ends where labels are known, {spell(self.label_delay)} ago, and rows are kept for " + spell(
                self.keep_for
            )
            raise ConfigError("window", spell(self.window), f"{need}: make it shorter, or keep rows longer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to begin with, and why.

    Parameters
    ----------
    way : {"stateless", "stateful", "both"}
        The answer. With ``both``, one is deployed and the other stands beside it in every comparison.
    reasons, unknown : tuple of str
        Why; and what cannot be known without a history, with what to do about it.
    trigger, window : dict
        As the configuration writes them; no window where nothing is trained from scratch again.
    strategies : dict of str to dict
        To compare, by name.
    deploy : str
        The one to begin with.
    config : str
        A commented configuration that holds all of this.
    """

    way: Way
    reasons: tuple[str, ...]
    unknown: tuple[str, ...]
    trigger: dict[str, Any]
    window: dict[str, Any] | None
    strategies: dict[str, Any]
    deploy: str
    config: str


def advise(given: Situation) -> Advice:
    """What to begin with. Pure: it depends on what was said alone.

    Examples
    --------
    >>> advise(Situation(family="forest", label_delay=DAY, cadence=DAY)).way
    'stateless'
    >>> advise(Situation(family="forest", keep=False, cadence=DAY)).way
    'stateful'
    """
    family = FAMILIES[given.family]
    cadence = given.cadence if given.cadence is not None else max(7 * DAY, given.label_delay)
    way, reasons = _way(given, family, cadence)
    trigger, why = _trigger(given, cadence)
    reasons += why
    window: dict[str, Any] | None = None
    if way != "stateful":
        window, why = _window(given, cadence)
        reasons += why
    reasons += _surroundings(given, family, way)
    strategies, deploy = _strategies(given, family, way, trigger, window, cadence)
    unknown = _unknown(given, cadence, way, window)
    return Advice(
        way=way, reasons=tuple(reasons), unknown=tuple(unknown), trigger=trigger, window=window,
        strategies=strategies, deploy=deploy,
        config=_config(given, family, way, strategies, deploy, cadence, window, reasons, unknown),
    )  # fmt: skip


def _way(given: Situation, family: Family, cadence: timedelta) -> tuple[Way, list[str]]:
    if not given.keep:
        why = "no raw row may be kept, and every training from scratch reads raw rows again: only updates are left"
        return "stateful", [why, family.why_update]
    takes = given.retrain_takes
    if takes is not None and takes > cadence:
        why = f"a training from scratch takes {spell(takes)}, longer than the {spell(cadence)} between two: it is "
        return "stateful", [why + "never done in time", family.why_update]
    if given.family == "forest":
        return "stateless", [family.why_scratch]
    if family.cheap:
        return "stateful", [family.why_update]
    if takes is not None and takes > _SHARE * cadence:
        why = f"a training from scratch takes {spell(takes)} of every {spell(cadence)}: too much for every version"
        return "stateful", [why, family.why_update]
    if takes is None and family.weights:
        beside = "; put it beside the updates wherever you can afford it, and let the gate choose"
    else:
        beside = "; it is affordable here, and the gate chooses between the two"
    return "both", [family.why_update, family.why_scratch + beside]


def _trigger(given: Situation, cadence: timedelta) -> tuple[dict[str, Any], list[str]]:
    if given.cadence is None and given.worth is not None:
        gap = max(given.label_delay, DAY)
        age = max(90 * DAY, 4 * gap)
        why = "you said what a retrain is worth: train when staleness has cost half as much, which waits where nothing "
        what = {"worth": given.worth, "least_gap": spell(gap), "greatest_age": spell(age)}
        return {"regret": what}, [why + f"goes stale, and at least every {spell(age)} all the same"]
    every = {"every": spell(cadence)}
    if given.cadence is None:
        return every, [
            f"every {spell(cadence)}, since no cadence and no price was given: a place to begin, and no more"
        ]
    return every, [f"every {spell(cadence)}, as you wish: a fixed interval is what others must beat"]


def _window(given: Situation, cadence: timedelta) -> tuple[dict[str, Any], list[str]]:
    """The window, and why; mixed with past rows where what was true before comes back."""
    if given.window is not None:
        return {"sliding": spell(given.window)}, [f"the last {spell(given.window)}, as you wish"]
    if given.family == "language-model" and given.keep_for is None:
        return {"expanding": {}}, ["all feedback so far, since there is never much of it"]
    span = _WINDOW * cadence
    if given.rows_per_day is None:
        span = max(span, _QUARTER)
    else:
        span = max(span, timedelta(days=math.ceil(_ENOUGH / given.rows_per_day)))
    if given.keep_for is not None:
        span = min(span, given.keep_for - given.label_delay)
    if given.returns and given.rows_per_day is not None and given.keep_for is None:
        rows = max(_ENOUGH, round(given.rows_per_day * (span / DAY)))
        why = "what was true before comes back: a share of past rows beside the newest keeps it learned"
        return {"mix": {"past": 0.3, "recent": 0.7, "rows": rows}}, [why]
    why = f"a sliding window of the last {spell(span)} moves along and forgets; half of it, and all rows so far, stand "
    return {"sliding": spell(span)}, [why + "beside it in the comparison"]


def _surroundings(given: Situation, family: Family, way: Way) -> list[str]:
    out = []
    if given.label_delay:
        what = (
            f"labels come {spell(given.label_delay)} late: no model knows anything newer, however often it is trained"
        )
        out.append(what)
    if given.looks_back is not None:
        what = f"features look back {spell(given.looks_back)}: build them with `features`, so that no row sees its own "
        out.append(what + "future")
    if given.rows_per_day is not None and given.cadence is not None:
        rows = given.rows_per_day * (given.cadence / DAY)
        if rows < _BLOCK:
            what = (
                f"only about {rows:.0f} labelled rows come between two trainings, too few to tell one model from the "
            )
            out.append(what + "next: compare longer intervals as well")
    if given.returns:
        out.append("concepts return: keep a frozen model in the comparison, an old one may be right again")
    if given.new_classes:
        if way == "stateless":
            out.append("new classes: a training from scratch knows the classes of its window")
        elif family.grows is None:
            out.append("new classes: whether updates take them up is up to your own learner")
        elif family.grows:
            out.append("new classes: updates of this model take them up")
        else:
            what = "new classes: updates of this model leave such rows out until the next training from scratch"
            out.append(what + ("" if given.keep else ", for which rows would have to be kept"))
    if family.weights and way != "stateless":
        if given.keep:
            out.append("updates forget: replay some old rows beside the new ones, a quarter for a language model, "
                       "and hold the model to an anchor, text or weights of the release before")  # fmt: skip
        else:
            out.append("updates forget, and without kept rows there is no replay: hold the model to an anchor, such as "
                       "golden text or the weights of the release before")  # fmt: skip
    if given.family == "language-model":
        out.append("thumbs reward flattery, and a better loss on them does not show a damaged model: let golden "
                   "questions decide before a release goes out")  # fmt: skip
    return out


def _strategies(
    given: Situation,
    family: Family,
    way: Way,
    trigger: dict[str, Any],
    window: dict[str, Any] | None,
    cadence: timedelta,
) -> tuple[dict[str, Any], str]:
    when = trigger if set(trigger) == {"every"} else {"trigger": trigger}
    scratch, update = family.scratch[given.task], family.update[given.task]
    out: dict[str, Any] = {"frozen": {"frozen": {}}}
    if way != "stateful":
        assert window is not None
        out["stateless"] = {"stateless": {**when, "window": window}}
        if set(window) == {"sliding"} and given.window is None:
            half = spell(_rounded(duration(window["sliding"], "window") / 2))
            out["half the window"] = {"stateless": {**when, "window": {"sliding": half}}}
        if given.keep_for is None and set(window) != {"expanding"}:
            out["all so far"] = {"stateless": {**when, "window": "expanding"}}
    if way != "stateless":
        own = {} if update == scratch else {"model": update}
        out["stateful"] = {"stateful": {**when, **own}}
        if family.weights and window is not None and way == "both":
            reset = {"every": spell(6 * cadence)}
            out["updates with new starts"] = {"hybrid": {**when, "reset": reset, "window": window}}
    return out, "stateless" if way == "stateless" or (way == "both" and not family.weights) else "stateful"


def _rounded(span: timedelta) -> timedelta:
    """In whole days, if it is longer than a few."""
    return timedelta(days=round(span / DAY)) if span > 3 * DAY else span


def _needed(given: Situation, cadence: timedelta, window: dict[str, Any] | None) -> int | None:
    """Labelled rows with which a backtest begins to tell; None if the pace is not known."""
    if given.rows_per_day is None:
        return None
    days = (_initial(given, cadence, window) + _CHECKPOINTS * cadence + given.label_delay) / DAY
    return max(_ENOUGH, math.ceil(given.rows_per_day * days))


def _unknown(given: Situation, cadence: timedelta, way: Way, window: dict[str, Any] | None) -> list[str]:
    rows = _needed(given, cadence, window)
    span = spell(_initial(given, cadence, window) + _CHECKPOINTS * cadence)
    enough = f"about {rows:,} labelled rows" if rows is not None else f"{_ENOUGH:,} labelled rows over {span}"
    tell = f"run `perennial backtest` once you have {enough}"
    out = [f"whether this beats a model that is never retrained: {tell}"]
    if window is not None and "sliding" in window:
        out.append("how long the window should be: where the half does better, what is old hurts more than it helps")
    if way == "both":
        out.append("which of the two is better here: no rule knows, the same backtest compares them")
    if given.cadence is None:
        out.append("how often: compare a few intervals, or say what a retrain is worth and let `regret` decide")
    if given.retrain_takes is None and way != "stateful":
        out.append("what a training from scratch costs: the backtest measures it")
    return out


def _initial(given: Situation, cadence: timedelta, window: dict[str, Any] | None) -> timedelta:
    """How much history the first training gets: a window's, or little where most was learned elsewhere."""
    if given.family in ("text-encoder", "language-model"):
        return cadence + given.label_delay
    if window is not None and "sliding" in window:
        return duration(window["sliding"], "window") + given.label_delay
    least = max(_CHECKPOINTS * cadence, timedelta(days=math.ceil(_ENOUGH / (given.rows_per_day or _ENOUGH))))
    return least + given.label_delay  # the first training learns what has a label by then


def _config(
    given: Situation,
    family: Family,
    way: Way,
    strategies: Mapping[str, Any],
    deploy: str,
    cadence: timedelta,
    window: dict[str, Any] | None,
    reasons: list[str],
    unknown: list[str],
) -> str:
    scratch, update = family.scratch[given.task], family.update[given.task]
    model = update if way == "stateful" else scratch
    if way == "stateful":  # one model, and so no strategy has its own
        strategies = {
            name: {kind: {k: v for k, v in plan.items() if k != "model"} for kind, plan in strategy.items()}
            for name, strategy in strategies.items()
        }
    own = isinstance(model, str) and model.startswith("my_model:")
    metrics = "[mae, rmse]" if given.task == "regression" else "[log_loss, accuracy]"
    about = {
        "frozen": "one model for good: what every other must beat",
        "stateless": "a new model from scratch on a window",
        "half the window": "does what is old help, or hurt?",
        "all so far": "nothing is forgotten",
        "stateful": "one model that goes on learning, each label once",
        "updates with new starts": "updates, and now and then a new start",
    }
    lines = [
        "# Written by `perennial advise`. Why:",
        *(f"# - {reason}" for reason in reasons),
        "# What cannot be known yet:",
        *(f"# - {what}" for what in unknown),
        "name: my-model",
        "stream:",
        "  source: rows.parquet             # yours: a file, a folder, a table's URL",
        "  time: timestamp                  # the column of event times",
        _label(given),
    ]
    if given.looks_back is not None:
        features = _flow({"build": "my_features:build", "lookback": spell(given.looks_back)})
        lines.append(f"  # features: {features}   # write this function: it sees past rows only")
    lines += [
        f"  batch: {spell(min(cadence, DAY))}",
        f"model: {_flow(model)}"
        + ("   # a function of yours that makes the model; see docs/learners.md" if own else ""),
        "strategies:",
    ]
    for name, strategy in strategies.items():
        lines += [f"  # {about[name]}", f"  {name}: {_flow(strategy)}"]
    lines += [f"initial: {spell(_initial(given, cadence, window))}", f"deploy: {deploy}", f"metrics: {metrics}"]
    if way != "stateless":
        mode = "before" if cadence >= _SELDOM else "after"
        what = "serves once evidence says that it is no worse" if mode == "before" else "is rolled back on evidence"
        lines.append(f"gate: {{mode: {mode}}}   # a version {what}; backtests heed it too")
        if family.weights:
            lines.append("# gate: {mode: " + mode + ", golden: {file: golden.parquet}}   # and forgets no golden row")
    if not given.keep:
        until = spell(_initial(given, cadence, window))
        late = f", {spell(given.label_delay)} for each label" if given.label_delay else ""
        lines.append(f"retention: none   # a row goes as it is learned: until then it waits, {until} at first{late}")
    elif given.keep_for is not None:
        lines.append(f"retention: {spell(given.keep_for)}")
    if given.worth is None:
        lines.append("# cost: {retrain: 0.50, update: 0.05, error: 1.00}   # in your money: a report then counts in it")
    return "\n".join(lines) + "\n"


def _label(given: Situation) -> str:
    if not given.label_delay:  # a delay of nothing is written by who knows it: a report says what it takes for granted
        return "  label: {column: label}           # add `delay:` if it is known later, or every score is too good"
    return f"  label: {_flow({'column': 'label', 'delay': spell(given.label_delay)})}"


def _flow(value: Any) -> str:
    """Plain data in one line of YAML; all words here may stand without quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return str(value)
