"""The one tree of errors.

PerennialError
├── ConfigError     (ValueError)    a setting is wrong; names the field, the value and the rule
├── DataError       (ValueError)    the user's data break a rule; names the column, file or row
├── LearnerError    (RuntimeError)  a learner cannot do what was asked, or failed while doing it
├── LedgerError     (RuntimeError)  the record of what happened cannot be written or read
├── FormatError     (ValueError)    something saved cannot be read by this release
└── MissingExtra    (ImportError)   an optional framework is not installed; names the extra
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from difflib import get_close_matches


class PerennialError(Exception):
    """Every error that Perennial raises on purpose."""


class ConfigError(PerennialError, ValueError):
    """A setting is wrong: ``field`` holds its name, ``got`` its value, ``need`` the rule and next step."""

    def __init__(self, field: str, got: object, need: str) -> None:
        super().__init__(f"{field}={got!r}: {need}")
        self.field = field
        self.got = got
        self.need = need

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        try:
            pickle.dumps(self.got)
        except Exception:  # a lambda, an open file: its text is what the message needs
            return type(self), (self.field, _Shown(repr(self.got)), self.need)
        return type(self), (self.field, self.got, self.need)


class _Shown(str):
    """The text of a value that cannot be pickled."""

    __repr__ = str.__str__


class DataError(PerennialError, ValueError):
    """The data break a rule: the message names the column, file or row, the rule and the next step."""


class LearnerError(PerennialError, RuntimeError):
    """A learner cannot do what was asked of it, or failed while doing it."""


class LedgerError(PerennialError, RuntimeError):
    """The record of what happened cannot be written or read."""


class FormatError(PerennialError, ValueError):
    """Something saved cannot be read by this release: the message names both formats."""


class MissingExtra(PerennialError, ImportError):
    """An optional framework is not installed; ``extra`` names what to install."""

    def __init__(self, extra: str, wanted_by: str) -> None:
        super().__init__(f"{wanted_by} needs {extra!r}: run  pip install 'perennial[{extra}]'")
        self.extra = extra
        self.wanted_by = wanted_by

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.extra, self.wanted_by)


def nearest(got: str, valid: Iterable[str]) -> str:
    """The end of an error message: the nearest valid word if one is near, else all of them.

    Examples
    --------
    >>> nearest("slidng", ["sliding", "tumbling"])
    'did you mean `sliding`?'
    >>> nearest("x", ["sliding", "tumbling"])
    'use one of: sliding, tumbling'
    """
    words = sorted(valid)
    close = get_close_matches(got, words, n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else f"use one of: {', '.join(words)}"
