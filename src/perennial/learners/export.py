"""A model as plain files that its own framework reads without us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from perennial.core.errors import LearnerError
from perennial.core.features import Schema
from perennial.core.protocols import Learner, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A model outside of Perennial.

    ``files`` are contents by name; a name may have a folder. ``readme`` says in a line what they are and how to ask.
    """

    files: Mapping[str, bytes]
    readme: str


@runtime_checkable
class Exportable(Learner, Protocol):
    """A learner that can be written as plain files."""

    def exported(self, trust: Trust) -> Files:
        """The files; raises ``LearnerError`` if there is nothing to write, or only a pickle and none is allowed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Where a model was written, a file or a folder, and a line that says what it is and how to ask it."""

    path: Path
    readme: str


def export(
    model: Learner, folder: Path, name: str, *, trust: Trust | None = None, schema: Schema | None = None
) -> Exported:
    """Write a model as a plain file ``folder/name.*``, or, where it takes several, as a folder ``folder/name``.

    Parameters
    ----------
    model : Learner
        A trained one.
    folder : Path
        Made if it is not there.
    name : str
        Without an ending, which is the framework's own.
    trust : Trust, optional
        Whether a pickle may be written, and which types of the user's own are known.
    schema : Schema, optional
        With it, the order of the columns and the codes of their words are written too, into ``columns.json``.

    Raises
    ------
    LearnerError
        If the learner has no plain form, or only a pickle and ``trust`` allows none.
    """
    if not isinstance(model, Exportable):
        raise LearnerError(f"{model.name} has no plain form: its type has no method `exported`")
    found = model.exported(Trust() if trust is None else trust)
    folder.mkdir(parents=True, exist_ok=True)
    if len(found.files) == 1:
        ((inner, content),) = found.files.items()
        path, columns = folder / f"{name}{Path(inner).suffix}", folder / f"{name}.columns.json"
        path.write_bytes(content)
    else:
        path = folder / name
        for inner, content in found.files.items():
            (path / inner).parent.mkdir(parents=True, exist_ok=True)
            (path / inner).write_bytes(content)
        columns = path / "columns.json"
    if schema is not None:
        columns.write_bytes(as_json(_columns(schema)))
    return Exported(path=path, readme=found.readme)


def as_json(value: Any) -> bytes:
    """JSON for people and programs: floats keep every bit."""
    return json.dumps(value, indent=1).encode() + b"\n"


def _columns(schema: Schema) -> list[dict[str, Any]]:
    """Columns in order; a category's code is the place of its word."""
    return [
        {"name": c.name, "kind": str(c.kind), "type": c.dtype}
        | ({"words": schema.vocabularies[c.name].words} if c.name in schema.vocabularies else {})
        for c in schema.columns
    ]
