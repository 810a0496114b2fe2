"""From Python objects back to the records that describe them, so that what was tried can be written and deployed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from perennial import strategies as kinds
from perennial import triggers, windows
from perennial.config.checking import checked
from perennial.config.records import Config
from perennial.core.errors import ConfigError
from perennial.core.times import spell
from perennial.gate import Gate
from perennial.metrics.money import Prices
from perennial.stream.quality import Quality

_AS_FACTORY = "make it in a function of a module of yours and name that, package.module:function"

_WINDOWS = {
    windows.Sliding: "sliding",
    windows.Expanding: "expanding",
    windows.Tumbling: "tumbling",
    windows.Decayed: "decayed",
    windows.Mix: "mix",
}


def from_objects(
    stream: Any,
    strategies: Mapping[str, kinds.Strategy],
    *,
    metrics: Sequence[Any] | None = None,
    prices: Prices | Mapping[str, Any] | None = None,
    seed: int = 0,
    train_latency: timedelta | str | None = None,
    gate: Gate | None = None,
    quality: Quality | None = None,
    deploy: str | None = None,
) -> Config:
    """The configuration that describes a backtest called from Python: its records, ready for ``to_yaml``.

    Call it before training: what a file cannot hold is refused here.

    Parameters
    ----------
    stream : Stream
        A stream of files; a table in memory has no place that a file could name.
    strategies : mapping of str to Strategy
        Whose models are paths, ``{"estimator", "params"}`` mappings, or estimators with scikit-learn's ``get_params``
        whose parameters are plain values.
    metrics, prices, seed, train_latency, gate, quality, deploy
        As the backtest and the file have them.

    Raises
    ------
    ConfigError
        For whatever cannot be written: a lambda, an open object, a function of a notebook, a table in memory.
    """
    data: dict[str, Any] = {
        "stream": _stream(stream),
        "strategies": {name: _strategy(strategy, f"strategies.{name}") for name, strategy in strategies.items()},
    }
    if metrics is not None:
        data["metrics"] = [_metric(metric, f"metrics[{i}]") for i, metric in enumerate(metrics)]
    if prices is not None:
        data["cost"] = _prices(prices)
    if seed:
        data["seed"] = seed
    if train_latency is not None:
        data["train_latency"] = train_latency
    if gate is not None:
        data["gate"] = _gate(gate)
    if quality is not None:
        data["quality"] = _filled(quality)
    if deploy is not None:
        data["deploy"] = deploy
    return checked(data, name="configuration", lines={})


def _stream(stream: Any) -> dict[str, Any]:
    for setting in ("source", "labels"):
        value = getattr(stream, setting)
        if value is not None and not isinstance(value, str | Path):
            need = "a table in memory cannot be named in a file: write it to Parquet and give the path"
            raise ConfigError(f"stream.{setting}", type(value).__name__, need)
    label = {
        "column": stream.target,
        "delay": stream.label_delay,
        "known_at": stream.known_at,
        "within": stream.within,
        "absent": stream.absent,
        "positives_wait": None if stream.positives_wait else False,
        "wait": stream.label_wait,
    }
    features = stream.features
    plain = ("time", "time_zone", "id", "key", "weight", "group", "batch", "lateness", "positive")
    data = {
        "source": str(stream.source),
        "label": _given(label),
        **{name: getattr(stream, name) for name in plain},
        "drop": list(stream.drop) or None,
        "text": list(stream.text) or None,
        "word_rows": stream.word_rows if stream.word_rows > 1 else None,
        "features": None
        if features is None
        else {"build": _reference(features, "stream.features"), "lookback": stream.lookback},
        "labels": None if stream.labels is None else str(stream.labels),
    }
    return _given(data)


def _strategy(strategy: kinds.Strategy, field: str) -> dict[str, Any]:
    record: dict[str, Any] = {"model": model_of(strategy.model, f"{field}.model"), "initial": _span(strategy.initial)}
    match strategy:
        case kinds.Frozen():
            pass
        case kinds.Stateless():
            record |= {"trigger": _trigger(strategy.trigger, field), "window": _window(strategy.window, field)}
        case kinds.Stateful():
            record |= {"trigger": _trigger(strategy.trigger, field)}
        case kinds.Hybrid():
            record |= {"trigger": _trigger(strategy.trigger, field), "reset": _trigger(strategy.reset, field)}
            record |= {"window": _window(strategy.window, field)}
        case _:
            need = "only Frozen, Stateless, Stateful and Hybrid have a place in the file"
            raise ConfigError(field, type(strategy).__qualname__, need)
    if set(record.get("trigger", {})) == {"every"}:
        record = {**record, **record["trigger"]}
        del record["trigger"]
    return {strategy.kind: record}


def _window(window: Any, field: str) -> dict[str, Any]:
    if type(window) not in _WINDOWS:
        raise ConfigError(f"{field}.window", type(window).__qualname__, f"use one of: {', '.join(_WINDOWS.values())}")
    return {_WINDOWS[type(window)]: _changed(window)}


def _trigger(trigger: Any, field: str) -> dict[str, Any]:
    match trigger:
        case triggers.Every():
            return {"every": _changed(trigger)}
        case triggers.LossAbove():
            return {"loss_above": {"level": trigger.level, "rows": trigger.rows}}
        case triggers.Regret():
            return {"regret": _changed(trigger)}
        case triggers.Forecast():
            return {"forecast": _changed(trigger)}
        case triggers.AnyOf() | triggers.AllOf():
            inner = [_trigger(one, field) for one in trigger.triggers]
            return {"any" if isinstance(trigger, triggers.AnyOf) else "all": inner}
        case triggers.Limited():
            limits = {"least_gap": _span(trigger.least_gap) if trigger.least_gap else None}
            limits["greatest_age"] = _span(trigger.greatest_age)
            settings = {"back_off": trigger.back_off, "rejected": trigger.rejected}
            return {"limited": {"trigger": _trigger(trigger.trigger, field), **_given(limits), **settings}}
    raise ConfigError(f"{field}.trigger", type(trigger).__qualname__, "use one of the triggers of perennial.triggers")


def model_of(model: Any, field: str = "model") -> Any:
    """The configuration's way to name a model: a path, with the parameters that differ from its defaults.

    Raises
    ------
    ConfigError
        If it cannot be named, or a parameter is no plain value: a lambda, a fitted object, an inner estimator.
    """
    if isinstance(model, str):
        return model
    if isinstance(model, Mapping):
        return {key: plain_value(value, f"{field}.{key}") for key, value in model.items()}
    kind = type(model)
    if not hasattr(model, "get_params") or not _importable(kind):
        raise ConfigError(field, kind.__qualname__, f"this object cannot be written to a file: {_AS_FACTORY}")
    defaults = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
    params = {}
    for name, value in model.get_params(deep=False).items():
        if not _same(value, defaults.get(name, inspect.Parameter.empty)):
            params[name] = plain_value(value, f"{field}.params.{name}")
    path = f"{_public_home(kind)}.{kind.__qualname__}"
    return {"estimator": path, "params": params} if params else path


def plain_value(value: Any, field: str) -> Any:
    """A value that YAML holds and gives back; raises ``ConfigError`` for any other."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain_value(item, f"{field}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        return {key: plain_value(item, f"{field}.{key}") for key, item in value.items()}
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    raise ConfigError(field, name, f"this object cannot be written to a file: {_AS_FACTORY}")


def _metric(metric: Any, field: str) -> str:
    if isinstance(metric, str):
        return metric
    if inspect.isfunction(metric):
        return _reference(metric, field)
    raise ConfigError(field, type(metric).__qualname__, f"name a metric, or {_AS_FACTORY}")


def _prices(prices: Prices | Mapping[str, Any]) -> dict[str, Any]:
    record = prices if isinstance(prices, Prices) else Prices.parse(prices)
    matrix: dict[Any, dict[Any, Any]] = {}
    for (true, predicted), price in record.matrix.items():
        matrix.setdefault(true, {})[predicted] = price
    given = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "matrix"}
    cost = {name: price for name, price in given.items() if price is not None and price != 0}
    return {**cost, "matrix": matrix} if matrix else cost


def _reference(function: str | Callable[..., Any], field: str) -> str:
    if isinstance(function, str):
        return function
    if not _importable(function):
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise ConfigError(field, name, f"a lambda or local function cannot be written to a file: {_AS_FACTORY}")
    return f"{function.__module__}:{function.__qualname__}"


def _importable(thing: Any) -> bool:
    name = getattr(thing, "__qualname__", "<none>")
    return "<" not in name and getattr(thing, "__module__", "__main__") not in (None, "__main__", "builtins")


def _public_home(kind: type) -> str:
    """The shortest module that has the class under its own name: ``lightgbm`` rather than ``lightgbm.sklearn``."""
    import sys

    steps = kind.__module__.split(".")
    for n in range(1, len(steps)):
        module = ".".join(steps[:n])
        if getattr(sys.modules.get(module), kind.__qualname__, None) is kind:
            return module
    return kind.__module__


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def _changed(record: Any) -> dict[str, Any]:
    """The fields of a frozen record that differ from their defaults, as the file writes them."""
    out = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if f.default is MISSING or value != f.default:
            out[f.name] = _span(value) if isinstance(value, timedelta) else value
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in out.items()}


def _filled(record: Any) -> dict[str, Any]:
    """The same of a record that has mappings: an empty one is its default."""
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in _changed(record).items()
        if not isinstance(value, Mapping) or value
    }


def _gate(gate: Gate) -> dict[str, Any]:
    """A gate, with slices and golden set as the file nests them."""
    data = _filled(gate)
    for name, one in data.get("slices", {}).items():
        where = {column: _condition(told) for column, told in one.where.items()}
        data["slices"][name] = _given({"where": where, "margin": one.margin})
    if gate.golden is not None:
        data["golden"] = {"file": gate.golden.file, "limit": gate.golden.limit}
    return data


def _condition(told: Any) -> Any:
    """A range, a list of values, or a value of a slice's column."""
    if is_dataclass(told):
        return _changed(told)
    return list(told) if isinstance(told, tuple) else told


def _span(value: Any) -> Any:
    return spell(value) if isinstance(value, timedelta) else value


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
