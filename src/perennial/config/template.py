"""The commented configuration that ``perennial init`` writes."""

from __future__ import annotations

from importlib.util import find_spec

from perennial.config.guessing import Guess
from perennial.config.writing import scalar_text


def commented(found: Guess, *, name: str, source: str, model: str | None = None) -> str:
    """A configuration with four strategies and a comment on every choice.

    A River model is updated row by row as it is, and can only be saved as a pickle: the text allows that, and says so.

    Parameters
    ----------
    found : Guess
        What the data seem to be.
    name : str
        For reports.
    source : str
        The data, relative to where the text will be saved.
    model : str, optional
        The path of a class or a factory, instead of the one that suits the task.
    """
    path, params = estimator(found) if model is None else (model, "{}")
    parts = [_head(name), _stream(found, source), _model(found, path, params), _strategies(found, path)]
    return "\n".join([*parts, _foot(found), _saving(path)])


def estimator(found: Guess) -> tuple[str, str]:
    """The estimator for a task, by what is installed, and its parameters as YAML."""
    kind = "Classifier" if found.task == "classification" else "Regressor"
    if find_spec("lightgbm") is not None:
        return f"lightgbm.LGBM{kind}", "{n_estimators: 100, verbosity: -1}"
    return f"sklearn.ensemble.HistGradientBoosting{kind}", "{}"


def _head(name: str) -> str:
    return f"""\
# Written by `perennial init`. Every guess has its reason beside it: change what is wrong, then run
#     perennial backtest
name: {scalar_text(name)}
"""


def _stream(found: Guess, source: str) -> str:
    quoted = scalar_text
    lines = ["stream:", f"  source: {quoted(source)}"]
    lines.append(f"  time: {quoted(found.time)}{_why(found, 'time')}")
    if found.naive:
        lines.append(
            "  time_zone: UTC                # the times state no offset: write their zone, e.g. Europe/Lisbon"
        )
    if found.id is not None:
        lines.append(f"  id: {quoted(found.id)}{_why(found, 'id')}")
    if found.key is not None:
        lines.append(f"  key: {quoted(found.key)}{_why(found, 'key')}")
    lines += [
        "  label:",
        f"    column: {quoted(found.target)}{_why(found, 'label')}",
        "    # When does a label become known? Until you say so, at once, and scores are too good. One of:",
        "    # delay: 7d                   # this long after the event",
        "    # known_at: confirmed_at      # a column says when",
    ]
    if found.drop:
        lines.append("  drop:                         # columns that are no features")
        lines += [f"    - {quoted(column)}  # {why}" for column, why in found.drop.items()]
    if found.text:
        lines.append(
            f"  text: [{', '.join(quoted(column) for column in found.text)}]  # prose, for a vectoriser of yours"
        )
    lines.append(f"  batch: {found.schedule.batch}{_why(found, 'batch')}")
    return "\n".join(lines) + "\n"


def _model(found: Guess, path: str, params: str) -> str:
    return f"""\
# {found.reasons.get("model", "what to train")}
model:
  estimator: {path}   # or a function of yours that makes one, package.module:factory
  params: {params}
"""


def _strategies(found: Guess, model: str) -> str:
    schedule = found.schedule
    window = f"{{rows: {schedule.window}}}" if isinstance(schedule.window, int) else schedule.window
    path, params = estimator(found)
    if path.startswith("lightgbm"):
        update = f"{{estimator: {path}, params: {params}, update: decayed}}"
    else:
        kind = "Classifier" if found.task == "classification" else "Regressor"
        settings = "{n_estimators: 50, min_samples_leaf: 5}"
        update = f"{{estimator: sklearn.ensemble.RandomForest{kind}, params: {settings}, update: sliding_forest}}"
    own = "" if _is_river(model) else f"\n      model: {update}"  # River updates itself
    every, rows = schedule.every, schedule.rows
    return f"""\
strategies:
  # one model for good: what every other strategy must beat
  frozen: {{frozen: {{}}}}
  # stateless retraining on the most recent data
  sliding: {{stateless: {{every: {every}, window: {{sliding: {window}}}}}}}
  # stateless retraining on 30 % initial and 70 % most recent data
  mix: {{stateless: {{every: {every}, window: {{mix: {{initial: 0.3, recent: 0.7, rows: {rows}}}}}}}}}
  # stateful training: one model, updated with the labels that came since its last update
  stateful:
    stateful:
      every: {schedule.update}{own}
initial: {schedule.initial}{_why(found, "initial")}
"""


def _foot(found: Guess) -> str:
    if found.task == "regression":
        metrics = "[mae, rmse, r2]"
    else:
        metrics = "[log_loss, accuracy, roc_auc]" if found.classes == 2 else "[log_loss, accuracy]"
    price = "error: 1.00" if found.task == "regression" else "false_positive: 0.10, false_negative: 1.00"
    return f"""\
metrics: {metrics}   # the first one decides, unless there are prices
# cost: {{retrain: 0.50, {price}}}   # in your money: numbers, or columns of amounts
"""


def _saving(model: str) -> str:
    if _is_river(model):
        return """\
# River models have no form but a pickle, which runs code as it is loaded. This allows it: a model is loaded only if its
# digest is the one recorded when it was saved, and whoever can write to the ledger can run code here.
serialisation: {pickle: true}
"""
    return """\
# Models are saved in forms that run no code. Types of your own are allowed by name, and River models need a pickle:
# serialisation: {pickle: true, trust: [my_package.my_module.MyType]}
"""


def _is_river(model: str) -> bool:
    return model.partition(".")[0] == "river"


def _why(found: Guess, setting: str) -> str:
    why = found.reasons.get(setting)
    return f"   # {why}" if why else ""
