"""Shapes that records share: one of several, and arguments that may be written as their main value alone.

Every window, trigger and strategy is written ``name: {argument: value}``, after its constructor in Python. Where the
first argument is all there is to say, ``name: value`` will do, and a bare whole number is a number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from perennial.core.errors import ConfigError, nearest


class Record(BaseModel):
    """A frozen record of settings that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Arguments(Record):
    """Arguments that may be written as the main one alone, or as a number of rows."""

    main: ClassVar[str]
    counted: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, given: Any) -> Any:
        if given is None:
            return {}
        if isinstance(given, Mapping | BaseModel):
            return given
        if cls.counted and isinstance(given, int) and not isinstance(given, bool):
            return {cls.counted: given}
        return {cls.main: given}

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> Any:
        whole = handler(self)
        if len(whole) == 1 and set(whole) <= {self.main, self.counted}:
            return next(iter(whole.values()))
        return whole

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(core_schema)
        properties = handler.resolve_ref_schema(whole)["properties"]
        short = [properties[name] for name in (cls.main, cls.counted) if name is not None]
        return {"anyOf": [*short, whole]}


class OneOf(Record):
    """Exactly one of several, written as a mapping with one key."""

    #: those that need no arguments, and may be written as a word
    words: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, str):
            if given not in cls.words:
                raise ConfigError("", given, f"write a mapping with one key; {nearest(given, cls.model_fields)}")
            return {given: {}}
        if isinstance(given, Mapping):
            return {key: {} if value is None else value for key, value in given.items()}
        return given

    @model_validator(mode="after")
    def _just_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            got = sorted(self.model_fields_set)
            raise ConfigError("", got, f"give exactly one of: {', '.join(type(self).model_fields)}")
        return self

    @property
    def chosen(self) -> Any:
        """The one that was given."""
        return getattr(self, self.kind)

    @property
    def kind(self) -> str:
        """Its name."""
        return next(iter(self.model_fields_set))

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> Any:
        whole = {key: value for key, value in handler(self).items() if key in self.model_fields_set}
        return self.kind if self.kind in self.words and whole == {self.kind: {}} else whole

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(core_schema)
        handler.resolve_ref_schema(whole).update(minProperties=1, maxProperties=1)
        return {"anyOf": [{"enum": list(cls.words)}, whole]} if cls.words else whole
