"""Records as YAML text that reads back as the same records."""

from __future__ import annotations

from typing import Any

import yaml

from perennial.config.document import scalar
from perennial.config.records import Config


class _Dumper(yaml.SafeDumper):
    """Quotes every text that would otherwise be read as something else, here or by other readers of YAML."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's argument
        """Always: what is there twice is written twice."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    quoted = "'" if scalar(value) != value else None
    if not value.isprintable():  # line breaks of any kind, which plain and single-quoted text would fold
        quoted = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=quoted)


_Dumper.add_representer(str, _text)


def to_yaml(config: Config) -> str:
    """The configuration as YAML, with the settings that were given; reads back as an equal record."""
    plain = config.model_dump(mode="python", exclude_unset=True)
    return dumped(_plain(plain))


def dumped(plain: Any) -> str:
    """Plain data as YAML: short mappings on one line, in the order given."""
    return _dump(plain, width=110)


def _dump(plain: Any, width: float) -> str:
    out: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return out


def scalar_text(value: str | int | float | bool | None) -> str:
    """A value as it is written after a key: quoted where it would be read as something else.

    Examples
    --------
    >>> scalar_text("no"), scalar_text("weekly"), scalar_text(5), scalar_text("5")
    ("'no'", 'weekly', '5', "'5'")
    """
    return _dump([value], width=float("inf"))[2:].rstrip("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
