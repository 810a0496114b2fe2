"""What is wrong with a configuration: every problem with its line, path and rule, in one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from perennial.core.errors import ConfigError

Steps = tuple[str | int, ...]  #: where a setting is: the keys and list positions that lead to it

_LONGEST = 60  # characters of a value that an error shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One setting that breaks a rule: its line (None without a file), dotted path, value and the rule."""

    line: int | None
    path: str
    got: Any
    need: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}={_short(self.got)}: {self.need}"

    def to_dict(self) -> dict[str, Any]:
        """Plain facts, for ``--json``."""
        return {"line": self.line, "path": self.path, "got": _short(self.got), "need": self.need}


@dataclass(frozen=True, slots=True)
class Problems:
    """The ``got`` of a configuration's error: all its problems, in order of line."""

    all: tuple[Problem, ...]

    def __repr__(self) -> str:
        return _short(self.all[0].got) if len(self.all) == 1 else f"{len(self.all)} problems"


def refuse(name: str, problems: Sequence[Problem]) -> NoReturn:
    """Raise the ``ConfigError`` of a file's problems; its ``got`` is a :class:`Problems`."""
    found = Problems(tuple(sorted(problems, key=lambda p: p.line or 0)))
    if len(found.all) == 1:
        only = found.all[0]
        where = f"{name}, line {only.line}" if only.line is not None else name
        raise ConfigError(f"{where}: {only.path}" if only.path else where, found, only.need)
    listed = "\n".join(f"  {problem}" for problem in found.all)
    raise ConfigError(name, found, f"correct each of them:\n{listed}")


def dotted(steps: Steps) -> str:
    """A path as people write it: ``strategies.monthly.stateless``, ``metrics[1]``.

    Examples
    --------
    >>> dotted(("trigger", "any", 0, "every"))
    'trigger.any[0].every'
    """
    out = ""
    for step in steps:
        out += f"[{step}]" if isinstance(step, int) else f".{step}"
    return out.removeprefix(".")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
