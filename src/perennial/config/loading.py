"""Reading a configuration file, and writing the one that names the strategy to run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.config.building import Built, build
from perennial.config.checking import STREAM_NAMES, as_problem, checked
from perennial.config.deploying import deployment
from perennial.config.document import Document, read
from perennial.config.problems import Steps, refuse
from perennial.config.records import Config, Quality
from perennial.config.writing import scalar_text, to_yaml
from perennial.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from perennial.production import Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A configuration and the file it was read from; without ``reads`` its source need not be there."""

    config: Config
    document: Document
    file: Path
    reads: bool = True

    @property
    def folder(self) -> Path:
        """Where relative paths and the user's modules are looked up: absolute."""
        return Path(os.path.normpath(self.file.absolute().parent / self.config.folder))

    def build(self) -> Built:
        """The objects it describes; see :func:`~perennial.config.building.build`."""
        document = self.document
        return build(
            self.config, folder=self.folder, name=document.name, data=document.data, lines=document.lines,
            reads=self.reads,
        )  # fmt: skip

    def deployment(self) -> Deployment:
        """What production runs; see :func:`~perennial.config.deploying.deployment`."""
        try:
            return deployment(self)
        except ConfigError as error:
            raise self.placed(error) from error

    def placed(self, error: ConfigError) -> ConfigError:
        """An error that the data brought to light, such as a column that is not there, with the line that is wrong.

        An error about no setting of the file is given back as it is.
        """
        steps: Steps = ("stream", *STREAM_NAMES.get(error.field, (error.field,)))
        if error.field in ("prices", "cost"):
            steps = ("cost",)
        if error.field.partition(".")[0] in ("gate", "retention", "blobs", "serialisation", "ledger"):
            steps = tuple(error.field.split("."))
        if error.field.partition(".")[0] in Quality.model_fields:
            steps = ("quality", *error.field.split("."))
        while steps and steps not in self.document.lines:
            steps = steps[:-1]
        if steps in ((), ("stream",)) and error.field != "stream":
            return error
        problem = as_problem(error, steps, self.document.data, self.document.lines)
        try:
            refuse(self.document.name, [problem])
        except ConfigError as told:
            return told

    def deploying(self, strategy: str, file: Path) -> str:
        """The text of the same configuration with ``deploy`` filled in, to be written at ``file``.

        Comments and layout are kept: lines are replaced or added, and the result is read again to prove that nothing
        else changed. Where ``file`` lies in another folder, ``folder`` is set too, so that paths keep their meaning.

        Raises
        ------
        ConfigError
            If there is no such strategy.
        """
        if strategy not in self.config.strategies:
            raise ConfigError("deploy", strategy, f"name a strategy; {nearest(strategy, self.config.strategies)}")
        changes = {"deploy": strategy}
        if file.absolute().parent != self.file.absolute().parent:
            changes["folder"] = Path(os.path.relpath(self.folder, file.absolute().parent)).as_posix()
        wanted = checked({**self.document.data, **changes}, name=self.document.name, lines=self.document.lines)
        edited = _edited(self.document, changes)
        return edited if _says(edited, {**self.document.data, **changes}) else to_yaml(wanted)


def load(path: str | Path) -> Loaded:
    """The configuration in a YAML file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or with every setting that breaks a rule: its line, the rule and the nearest
        valid word.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("config", str(path), f"save it as UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        need = "there is no such file: write one with  perennial init DATA  or name another with -c"
        raise ConfigError("config", str(path), need if not file.exists() else f"cannot read it: {error}") from error
    return parse(text, file)


def parse(text: str, file: str | Path = "perennial.yaml") -> Loaded:
    """The configuration that a text holds, as if it were in ``file``.

    Examples
    --------
    >>> text = '''
    ... stream: {source: calls.parquet, time: at, label: target}
    ... model: lightgbm.LGBMClassifier
    ... initial: 60d
    ... strategies: {weekly: {stateless: {every: 7d}}}
    ... '''
    >>> parse(text).config.strategies["weekly"].kind
    'stateless'
    """
    document = read(text, str(file))
    config = checked(document.data, name=document.name, lines=document.lines)
    return Loaded(config=config, document=document, file=Path(file))


def _edited(document: Document, changes: dict[str, str]) -> str:
    text = document.text
    for key, value in sorted(changes.items(), key=lambda item: -document.spans.get(item[0], (-1, 0))[0]):
        if key in document.spans:
            start, end = document.spans[key]
            text = text[:start] + (" " if text[start - 1] == ":" else "") + scalar_text(value) + text[end:]
        else:
            text = text.rstrip("\n") + f"\n{key}: {scalar_text(value)}\n"
    return text


def _says(text: str, data: dict[str, Any]) -> bool:
    try:
        return read(text, "recommended").data == data
    except ConfigError:
        return False
