"""Slices: kinds of rows on which a challenger must not get worse, told by their features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perennial.core.errors import ConfigError, nearest
from perennial.core.features import Column, Features, Kind, Schema

_LIMITS = ("least", "below")
_VALUES = "give a value, a list of values, or a range of numbers such as {least: 18, below: 30}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Numbers of at least ``least`` and below ``below``; None where a side has no limit.

    Raises
    ------
    ConfigError
        If there is no limit, one is no number, or no number lies between them.
    """

    least: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        for name in _LIMITS:
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                raise ConfigError(name, value, "give a finite number")
        if self.least is None and self.below is None:
            raise ConfigError("least", None, "a range has a limit: give least, below, or both")
        if self.least is not None and self.below is not None and not self.least < self.below:
            raise ConfigError("below", self.below, f"no number is at least {self.least:g} and below {self.below:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Rows whose columns all are as said, and how much worse the mean loss may be on them.

    Parameters
    ----------
    where : mapping of str to value, list of values, or range
        For each column the value, the values or the numbers that belong to the slice. A range is a :class:`Between`, or
        a mapping ``{"least": 18, "below": 30}``. None means that the value is missing.
    margin : float, optional
        The slice's own margin, in units of the loss; the gate's unless given.

    Raises
    ------
    ConfigError
        If no column is named, or something else is given for one.

    Examples
    --------
    >>> young = Slice(where={"age": {"least": 18, "below": 30}, "job": ["student", "self-employed"]}, margin=0.01)
    >>> young.where["age"]
    Between(least=18, below=30)
    """

    where: Mapping[str, Any]
    margin: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.where, Mapping) or not self.where:
            raise ConfigError("where", self.where, "name a column and its value, e.g. {job: student}")
        for name in self.where:
            if not isinstance(name, str):
                raise ConfigError("where", name, "a column's name is a word: put it in quotes")
        read = {name: _condition(f"where.{name}", given) for name, given in self.where.items()}
        object.__setattr__(self, "where", read)
        if self.margin is not None and not (_is_number(self.margin) and self.margin > 0):
            raise ConfigError("margin", self.margin, "give a number above 0")

    def check(self, schema: Schema, *, whole: bool) -> None:
        """Raise ``ConfigError`` if a column is not among the features or cannot be as said.

        With ``whole`` the schema has all words that there will be, and one that it lacks is refused too.
        """
        columns = {column.name: column for column in schema.columns}
        for name, condition in self.where.items():
            if name not in columns:
                raise ConfigError(f"where.{name}", name, f"no such feature: {nearest(name, columns)}")
            _check(f"where.{name}", condition, columns[name], schema if whole else None)

    def members(self, features: Features) -> NDArray[np.bool_]:
        """Which rows belong to the slice, shape (n,)."""
        out = np.ones(len(features), dtype=np.bool_)
        for name, condition in self.where.items():
            values = features.values(name)
            if isinstance(condition, Between):
                out &= values >= (-math.inf if condition.least is None else condition.least)
                out &= values < (math.inf if condition.below is None else condition.below)
                continue
            vocabulary = features.schema.vocabularies.get(name)
            if vocabulary is not None:
                wanted = [-1 if word is None else vocabulary.code(word) for word in condition]
                out &= np.isin(values, [code for code in wanted if code is not None])
            else:
                among = np.isin(values, [float(value) for value in condition if value is not None])
                out &= among | np.isnan(values) if None in condition else among
        return out


def _condition(field: str, given: Any) -> Between | tuple[Any, ...]:
    """A range, or the values that will do."""
    if isinstance(given, Between):
        return given
    if isinstance(given, Mapping):
        for name in given:
            if name not in _LIMITS:
                raise ConfigError(f"{field}.{name}", given[name], f"no such limit: {nearest(str(name), _LIMITS)}")
        try:
            return Between(**given)
        except ConfigError as error:
            raise ConfigError(f"{field}.{error.field}", error.got, error.need) from error
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not values:
        raise ConfigError(field, given, _VALUES)
    for value in values:
        if not (value is None or isinstance(value, str) or _is_number(value)):
            raise ConfigError(field, given, _VALUES)
    return values


def _check(field: str, condition: Between | tuple[Any, ...], column: Column, schema: Schema | None) -> None:
    if column.kind is Kind.NUMBER:
        words = [] if isinstance(condition, Between) else [value for value in condition if isinstance(value, str)]
        if words:
            raise ConfigError(
                field, words[0], f"{column.name!r} holds numbers ({column.dtype}): give numbers, or a range"
            )
        return
    if column.kind is not Kind.CATEGORY:
        raise ConfigError(
            field, column.name, f"the column holds {column.kind}: a slice is told by numbers or categories"
        )
    if isinstance(condition, Between):
        raise ConfigError(field, "a range", f"{column.name!r} holds words: give one, or a list of them")
    for value in condition:
        if value is not None and not isinstance(value, str):
            raise ConfigError(field, value, f"{column.name!r} holds words: put it in quotes")
        if value is not None and schema is not None and schema.vocabularies[column.name].code(value) is None:
            known = schema.vocabularies[column.name].words
            raise ConfigError(field, value, f"no row says so: {nearest(value, known)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
