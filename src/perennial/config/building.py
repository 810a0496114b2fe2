"""From the configuration's records to the objects they stand for: the stream, learners, strategies and prices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.config.checking import STREAM_NAMES, as_problem
from perennial.config.problems import Problem, Steps, refuse
from perennial.config.records import SERVE, Config, Model
from perennial.core.errors import ConfigError
from perennial.core.protocols import Gate, Learner, Updatable
from perennial.metrics.money import Prices

if TYPE_CHECKING:
    from perennial.gate import Gate as PairedGate
    from perennial.metrics import Metric
    from perennial.strategies import Strategy
    from perennial.stream import Stream
    from perennial.stream.quality import Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a backtest is called with."""

    stream: Stream
    strategies: dict[str, Strategy]
    metrics: tuple[Metric, ...] | None
    prices: Prices | None
    seed: int
    train_latency: timedelta
    quality: Quality | None
    clairvoyant: str | None
    gate: Gate | None

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`perennial.backtest` takes besides stream and strategies."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("stream", "strategies")}


def build(
    config: Config,
    *,
    folder: Path,
    name: str = "configuration",
    data: Mapping[str, Any] | None = None,
    lines: Mapping[Steps, int] | None = None,
    reads: bool = True,
) -> Built:
    """The objects that a configuration describes, every one checked.

    Imports the frameworks and modules that the models name; ``folder`` is put on ``sys.path`` for that.

    Parameters
    ----------
    config : Config
        The configuration.
    folder : Path
        What relative paths are relative to, and where the user's own modules are.
    name, data, lines
        The file, what it says and the lines of its settings, for errors.
    reads : bool
        Rows will be read: the source must be there.

    Raises
    ------
    ConfigError
        With everything that is wrong: a file that is not there, an unknown class, a learner that cannot be updated
        under a strategy that updates.
    MissingExtra
        If a model's framework is not installed.
    """
    _importable_from(folder)
    collect = _Collector(data=data or {}, lines=lines or {})
    learners = _learners(config, collect)
    strategies: dict[str, Strategy] = {}
    for key, learner in learners.items():
        with collect.at("strategies", key, config.strategies[key].kind):
            strategies[key] = _strategy(config, key, learner)
    with collect.at("stream", names=STREAM_NAMES):
        stream = _stream(config, folder, reads)
    gate = None
    with collect.at("gate"):
        gate = _gate(config, folder)
    metrics = _metrics(config, learners, collect)
    if collect.problems:
        refuse(name, collect.problems)
    return Built(
        stream=stream,
        strategies=strategies,
        metrics=metrics,
        prices=Prices.parse(config.cost) if config.cost is not None else None,
        seed=config.seed,
        train_latency=config.train_latency if config.train_latency is not None else timedelta(0),
        quality=config.quality.build() if config.quality is not None else None,
        clairvoyant=config.clairvoyant,
        gate=gate,
    )


def _importable_from(folder: Path) -> None:
    """Let modules beside the configuration be imported; worker processes inherit the path."""
    place = str(folder)
    if place not in sys.path:
        sys.path.insert(0, place)


@dataclass(slots=True)
class _Collector:
    """Gathers errors with the place of their settings, so that all are told at once."""

    data: Mapping[str, Any]
    lines: Mapping[Steps, int]
    problems: list[Problem] = field(default_factory=list)

    @contextmanager
    def at(self, *steps: str | int, names: Mapping[str, Steps] | None = None) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            steps = (*steps, *(names or {}).get(error.field, ()))
            problem = as_problem(error, steps, self.data, self.lines)
            if problem not in self.problems:  # strategies that share a wrong model share its problem
                self.problems.append(problem)


def _learners(config: Config, collect: _Collector) -> dict[str, Learner]:
    """A learner for each strategy whose model can be made."""
    out: dict[str, Learner] = {}
    for name, strategy in config.strategies.items():
        own = strategy.chosen.model is not None
        model = config.model_of(name)
        with collect.at(*(("strategies", name, strategy.kind, "model") if own else ("model",))):
            if model is None:
                raise ConfigError("model", None, f"say what {name} trains, e.g. model: lightgbm.LGBMClassifier")
            out[name] = learner(model)
    return out


def learner(model: Model) -> Learner:
    """The learner that a model's record describes.

    Raises
    ------
    ConfigError
        If its path leads nowhere, or it cannot do what is asked.
    MissingExtra
        If its framework is not installed.
    """
    from perennial import learners

    # a factory of the user's takes any parameters, so their check is the call
    plain: Any = {"estimator": model.estimator, "params": model.params}
    if model.update is not None:
        ways: dict[str, Callable[..., Learner]] = {
            "decayed": learners.Decayed,
            "leaf_refit": learners.LeafRefit,
            "continued": learners.Continued,
            "sliding_forest": learners.SlidingForest,
        }
        made = _called(ways[model.update], plain, model.options)
    elif model.early_stopping is not None:
        made = learners.EarlyStopped(plain, **model.early_stopping.model_dump(exclude_unset=True))
    else:
        made = learners.as_learner(plain)
    if model.calibrated is True:
        return learners.Calibrated(made)
    return (
        made
        if model.calibrated is False
        else learners.Calibrated(made, **model.calibrated.model_dump(exclude_unset=True))
    )


def _called(way: Callable[..., Learner], estimator: Any, options: Mapping[str, Any]) -> Learner:
    try:
        return way(estimator, **options)
    except TypeError as error:
        raise ConfigError("options", dict(options), f"{way.__name__} does not take them: {error}") from error


def _strategy(config: Config, name: str, made: Learner) -> Strategy:
    strategy: Strategy = config.strategies[name].chosen.build(made, config.initial_of(name))
    if strategy.updates and not isinstance(made, Updatable):
        need = (
            f"{made.name} cannot be updated: give this strategy a model that can, e.g. model: {{estimator: "
            "lightgbm.LGBMClassifier, update: decayed}"
        )
        raise ConfigError("model", made.name, need)
    return strategy


def _stream(config: Config, folder: Path, reads: bool) -> Stream:
    from perennial.stream import Stream
    from perennial.stream.settings import COMMON
    from perennial.stream.sources import Unseen

    given = config.stream
    label = given.label
    seen = str if reads else Unseen
    served = given.source == SERVE
    name: str | None
    labels: str | None
    if served:
        from perennial.config.deploying import name_of
        from perennial.config.serving import inbox_of

        inbox = inbox_of(config, folder)
        name, source, labels = name_of(config), inbox.url("rows"), inbox.url("labels")
    else:
        name, source = config.name, seen(_source(given.source, folder))
        labels = seen(_source(given.labels, folder)) if given.labels is not None else None
    return Stream(
        source,
        name=name,
        time=given.time,
        target=label.column,
        time_zone=given.time_zone,
        id=given.id,
        key=given.key,
        weight=given.weight,
        group=given.group,
        drop=given.drop,
        text=given.text,
        word_rows=given.word_rows or (COMMON if config.retention == "none" else 1),
        label_delay=label.delay,
        known_at=label.known_at,
        within=label.within,
        absent=label.absent,
        positives_wait=label.positives_wait,
        label_wait=label.wait,
        positive=given.positive,
        batch=given.batch,
        features=given.features.build if given.features is not None else None,
        lookback=given.features.lookback if given.features is not None else None,
        lateness=given.lateness,
        labels=labels,
        served=served,
        most_classes=config.serve.classes,
    )


def _gate(config: Config, folder: Path) -> PairedGate | None:
    from perennial.stream.sources import open_files

    if config.gate is None or config.gate.mode == "none":
        return None
    gate = config.gate.build()
    if gate.golden is None:
        return gate
    file = _seen_from_here(folder / gate.golden.file)
    open_files(file, "gate.golden.file")
    return replace(gate, golden=replace(gate.golden, file=file))


def _source(given: str, folder: Path) -> str:
    """A path or a database's URL; relative to the configuration, it becomes relative to the working folder."""
    from perennial.stream.sources import is_url

    if is_url(given):
        from perennial.stream.sql import moved

        return moved(given, lambda path: _seen_from_here(folder / path))
    return _seen_from_here(folder / given)


def _seen_from_here(path: Path) -> str:
    """A path as short as the working folder allows: reports show it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _metrics(config: Config, learners: Mapping[str, Learner], collect: _Collector) -> tuple[Metric, ...] | None:
    from perennial.metrics import resolve

    if config.metrics is None or not learners:
        return None
    task = next(iter(learners.values())).task
    found: list[Any] = []
    for i, metric in enumerate(config.metrics):
        with collect.at("metrics", i):
            one = _imported(metric) if ":" in metric else metric
            resolve([one], task)
            found.append(one)
    if len(found) < len(config.metrics):
        return None
    with collect.at("metrics"):
        return resolve(found, task)
    return None


def _imported(path: str) -> Any:
    """A user's own function or metric, ``package.module:function``."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError("metrics", path, f"it cannot be imported: {error}; write package.module:function") from error
