"""From a configuration that names the strategy to run to the deployment that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    url = config.ledger if config.ledger is not None else LEDGER
    start = "sqlite:///"
    if url.startswith(start):
        url = start + str(loaded.folder / url.removeprefix(start))
    blobs = config.blobs
    if blobs is not None and "://" not in blobs:
        blobs = str(loaded.folder / blobs)
    return config.name or _name(config.stream.source), url, blobs


def _name(source: str) -> str:
    """A deployment's name where none is given: its file's, folder's or table's."""
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
    return Deployment(
        name=name,
        stream=built.stream,
        strategy=built.strategies[config.deploy],
        ledger=url,
        blobs=blobs,
        quality=built.quality or Quality(),
        train_latency=built.train_latency,
        retention=config.retention,
        seed=built.seed,
        trust=config.serialisation.build(),
        gate=built.gate,
        prices=built.prices,
    )
