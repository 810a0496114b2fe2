"""From a configuration that names the strategy to run to the deployment that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perennial.config.records import SERVE, Config
from perennial.core.errors import ConfigError
from perennial.stream.quality import Quality
from perennial.stream.sources import is_url
from perennial.stream.sql import Address

if TYPE_CHECKING:
    from perennial.config.loading import Loaded
    from perennial.production import Deployment

LEDGER = "sqlite:///.perennial/ledger.db"  #: unless the configuration says otherwise


def place(loaded: Loaded) -> tuple[str, str, str | None]:
    """Name of the deployment, URL of its ledger, and where its models are kept; paths are absolute."""
    config = loaded.config
    url = ledger_of(config, loaded.folder)
    blobs = config.blobs
    if blobs is not None and "://" not in blobs:
        blobs = str(loaded.folder / blobs)
    return name_of(config), url, blobs


def ledger_of(config: Config, folder: Path) -> str:
    """URL of the ledger; its path is absolute."""
    url, start = config.ledger if config.ledger is not None else LEDGER, "sqlite:///"
    return start + str(folder / url.removeprefix(start)) if url.startswith(start) else url


def name_of(config: Config) -> str:
    """A deployment's name: where none is given, its file's, folder's or table's."""
    source = config.stream.source
    if config.name:
        return config.name
    if is_url(source):
        return Address.of(source).table
    return Path(source).stem or "deployment"


def deployment(loaded: Loaded) -> Deployment:
    """What the configuration's ``deploy`` strategy runs.

    Raises
    ------
    ConfigError
        If ``deploy`` is missing, or a setting is one that a run does not take.
    """
    from perennial.config.serving import columns_of, inbox_of
    from perennial.learners import as_learner
    from perennial.production import Deployment

    config = loaded.config
    if config.deploy is None:
        raise ConfigError(
            "deploy",
            None,
            "name the strategy to run, or give the recommended.yaml that  perennial backtest  writes: -c",
        )
    built = loaded.build()
    name, url, blobs = place(loaded)
    strategy = built.strategies[config.deploy]
    served = config.stream.source == SERVE
    return Deployment(
        name=name,
        stream=built.stream,
        strategy=strategy,
        ledger=url,
        blobs=blobs,
        quality=built.quality or Quality(),
        train_latency=built.train_latency,
        retention=config.retention,
        seed=built.seed,
        trust=config.serialisation.build(),
        gate=built.gate,
        prices=built.prices,
        inbox=inbox_of(config, loaded.folder) if served else None,
        columns=columns_of(config, as_learner(strategy.model).task) if served else None,
    )
