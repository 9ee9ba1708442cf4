"""Arguments of this package's constructors that are plainly of another kind: a number where names are expected.

A command line and yaml give any value to any option. Without this check a constructor fails wherever it first uses one,
with a message about Python.
"""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mil.errors import ConfigError
from mil.study.component import TARGET

PACKAGE = "mil."
"""Prefix of the classes whose annotations are relied on."""


def refuse_other_kinds(values: Mapping[str, object]) -> None:
    """Check the arguments of every class of this package that a configuration names.

    Args:
        values: A configuration as plain containers.

    Raises:
        ConfigError: An argument that its constructor cannot use, by its dotted name.
    """
    from mil.study.build import parameters

    # the simulation takes its words from the tool, whose options are what the user gave
    ordered = dict(sorted(values.items(), key=lambda item: item[0] == "simulation"))
    for key, node in _components(ordered):
        takes = parameters(str(node[TARGET]), key)
        for name, value in node.items():
            if name in takes and (expected := expected_kind(value, takes[name].annotation)):
                shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
                raise ConfigError(f"{key}.{name}={shown}, expected {expected}")


def expected_kind(value: object, annotation: object) -> str | None:
    """Return in words what an argument has to be; None where a value fits, or where the annotation does not tell.

    Numbers count as text: a table may have a column called 2024.
    """
    kinds = _kinds(annotation)
    if not kinds or any(_fits(value, kind) for kind in kinds):
        return None
    words = dict.fromkeys(_WORDS[kind] for kind in kinds if kind is not type(None))
    return " or ".join(words) or None


_WORDS: Mapping[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Mapping: "names with values, such as {a: 1}",
    Sequence: "a list such as [a,b]",
}


def _kinds(annotation: object) -> tuple[object, ...]:
    """Return the kinds that an annotation allows; none where any part of it is not among `_WORDS`."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = [_kinds(each) for each in typing.get_args(annotation)]
        return tuple(kind for each in kinds for kind in each) if all(kinds) else ()
    kind: object = annotation if origin is None else origin
    if origin is not None and isinstance(origin, type):
        kind = Mapping if issubclass(origin, Mapping) else Sequence if issubclass(origin, Sequence) else origin
    return (kind,) if kind in _WORDS or kind is type(None) else ()


def _fits(value: object, kind: object) -> bool:
    match kind:
        case _ if kind is type(None):
            return value is None
        case _ if kind is str:
            return isinstance(value, str | Path | int | float) and not isinstance(value, bool)
        case _ if kind is bool:
            return isinstance(value, bool)
        case _ if kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        case _ if kind is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _ if kind is Mapping:
            return isinstance(value, Mapping)
    return isinstance(value, Sequence) and not isinstance(value, str)


def _components(node: object, key: str = "") -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield each component of this package with its dotted name."""
    if not isinstance(node, Mapping):
        return
    if str(node.get(TARGET, "")).startswith(PACKAGE):
        yield key, node
    for name, value in node.items():
        yield from _components(value, f"{key}.{name}" if key else str(name))
