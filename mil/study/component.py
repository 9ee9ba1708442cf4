"""Building blocks of a configuration: groups of options, and classes with the arguments of their constructors."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

TARGET = "_target_"
"""The key of a component's class in yaml."""


def _positive(value: object) -> object:
    """Check a positive, finite number; an integer stays an integer."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise PydanticCustomError("positive", "a positive number")
    return value


def _as_text(value: object) -> object:
    """Return a number as text: a command line and yaml read a column called 2024 as a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]
"""Text that may look like a number."""
Positive = Annotated[float, PlainValidator(_positive)]


class Config(BaseModel):
    """A group of options with fixed names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def plain(self) -> dict[str, Any]:
        """Return the options that were given, as plain containers for a yaml or JSON file."""
        return self.model_dump(exclude_unset=True)


class Options(BaseModel):
    """Keyword arguments of a component's constructor. Subclasses declare those that are checked before it is called."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def keywords(self) -> dict[str, Any]:
        """Return the arguments that were given, as plain containers."""
        return self.model_dump(exclude_unset=True)


OptionsT = TypeVar("OptionsT", bound=Options)


class Component(BaseModel, Generic[OptionsT]):
    """A class by its import path, with keyword arguments for its constructor; `mil.study.build.make` calls it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    options: OptionsT

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, node: object) -> object:
        if not isinstance(node, Mapping) or set(node) == {"target", "options"}:
            return node
        target = {"target": node[TARGET]} if TARGET in node else {}
        return target | {"options": {key: value for key, value in node.items() if key != TARGET}}

    @model_serializer
    def plain(self) -> dict[str, Any]:
        """Return the component as yaml has it: `_target_` and the arguments side by side."""
        return {TARGET: self.target, **self.options.keywords()}
