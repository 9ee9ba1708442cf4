"""Options of prediction sets and of novelty as a tool states them: typed, and checked before any work is done."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mil.errors import ConfigError

METHODS = ("lac", "aps")
"""Kinds of prediction sets, see `mil.fitted.conformal.Sets`."""
QUANTILE = 0.99
"""Share of bags like those of training that get a result, where a tool does not state it."""


class ConformalOptions(BaseModel):
    """What a tool states under `conformal`.

    Limits are a class's own (Mondrian) unless `per_class` is false: with one limit for all, a rare class can be missed
    most of the time while the coverage over all patients is as asked (simulated, 0.9 asked, a class of 15%, a model
    that is calibrated and not very sharp: 0.28 of that class, and 0.91 with limits of its own).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    coverage: float
    method: Literal["lac", "aps"] = "lac"
    per_class: bool = True


def parse_conformal(stated: object) -> ConformalOptions | None:
    """Return the tool's `{coverage: 0.9, method: lac, per_class: true}`; all but the coverage can be left out.

    Raises:
        ConfigError: another key, a coverage that is not between 0 and 1, or an unknown method.
    """
    if isinstance(stated, ConformalOptions):
        return stated
    if not stated:
        return None
    keys = list(ConformalOptions.model_fields)
    if not isinstance(stated, Mapping):
        raise ConfigError(f"conformal: {stated!r}, expected a mapping with {', '.join(keys)}")
    if unknown := sorted(set(map(str, stated)) - set(keys)):
        raise ConfigError(f"conformal: key {unknown[0]!r}, expected {', '.join(keys)}")
    coverage, method, per_class = stated.get("coverage"), stated.get("method", "lac"), stated.get("per_class", True)
    if isinstance(coverage, bool) or not isinstance(coverage, int | float) or not 0 < coverage < 1:
        raise ConfigError(f"conformal: coverage {coverage!r}, expected a share between 0 and 1")
    if method not in METHODS:
        raise ConfigError(f"conformal: method {method!r}, expected one of {', '.join(METHODS)}")
    if not isinstance(per_class, bool):
        raise ConfigError(f"conformal: per_class {per_class!r}, expected true or false")
    return ConformalOptions.model_validate(dict(stated))


class NoveltyOptions(BaseModel):
    """What a tool states under `novelty`.

    Attributes:
        min_tiles: Tiles that a bag needs; None takes the `1 - quantile` quantile of the training bags.
        quantile: Share of bags like those of training that get a result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_tiles: int | None = None
    quantile: float = QUANTILE


def parse_novelty(stated: object) -> NoveltyOptions | None:
    """Return the tool's `{min_tiles: 50, quantile: 0.99}`; both can be left out.

    Raises:
        ConfigError: another key, or a value out of range.
    """
    if stated is None or isinstance(stated, NoveltyOptions):
        return stated
    keys = list(NoveltyOptions.model_fields)
    if not isinstance(stated, Mapping):
        raise ConfigError(f"novelty: {stated!r}, expected a mapping with {', '.join(keys)}")
    if unknown := sorted(set(map(str, stated)) - set(keys)):
        raise ConfigError(f"novelty: key {unknown[0]!r}, expected {', '.join(keys)}")
    least, quantile = stated.get("min_tiles"), stated.get("quantile", QUANTILE)
    if least is not None and (isinstance(least, bool) or not isinstance(least, int) or least < 1):
        raise ConfigError(f"novelty: min_tiles {least!r}, expected a whole number from 1")
    if isinstance(quantile, bool) or not isinstance(quantile, int | float) or not 0.5 <= quantile < 1:
        raise ConfigError(f"novelty: quantile {quantile!r}, expected 0.5 or more and below 1")
    return NoveltyOptions.model_validate(dict(stated))
