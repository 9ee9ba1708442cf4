"""The clinical columns of a simulated cohort: their distributions, and how they go with what is predicted."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mil.errors import ConfigError

Floats = NDArray[np.float64]

SEVERITY = "severity"
"""The name under which effects are stated on the latent severity: an odds ratio for each of its standard deviations."""


class Effect(BaseModel):
    """How a clinical variable goes with what is predicted, adjusted for the other variables.

    Attributes:
        odds_ratio: Of a class, label or step of a grade: of each level against the first one, 1 where a level is left
            out; of a number for `per` units.
        hazard_ratio: The same for a time to an event.
        of: The class, label or cause that the ratio is about; by default the positive class, the first cause, or each
            step of a grade.
        source: Where direction and size come from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    odds_ratio: float | dict[str, float] | None = None
    hazard_ratio: float | dict[str, float] | None = None
    of: str | None = None
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.odds_ratio is None) == (self.hazard_ratio is None):
            raise ValueError("odds_ratio or hazard_ratio expected, and not both")
        ratios = self.ratio.values() if isinstance(self.ratio, dict) else [self.ratio]
        if not all(0 < ratio < np.inf for ratio in ratios):
            raise ValueError("positive ratios expected")
        return self

    @property
    def ratio(self) -> float | dict[str, float]:
        """The ratio, or the ratio of each level."""
        stated = self.hazard_ratio if self.odds_ratio is None else self.odds_ratio
        assert stated is not None
        return stated

    @property
    def measure(self) -> str:
        """What the ratio is of, in words."""
        return "hazard ratio" if self.odds_ratio is None else "odds ratio"


class NumericVariable(BaseModel):
    """Whole numbers with a normal distribution that is cut off at both ends, such as age in years.

    Attributes:
        mean: Of the distribution before it is cut off.
        sd: Its standard deviation.
        low: The smallest number.
        high: The largest one.
        per: The units for which effects are stated.
        effects: How the number goes with what is predicted.
        source: Where the distribution comes from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    sd: float = Field(gt=0)
    low: int = 18
    high: int = 95
    per: float = Field(default=10, gt=0)
    effects: tuple[Effect, ...] = ()
    source: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low <= self.mean <= self.high or self.low == self.high:
            raise ValueError("a mean between low and high expected")
        if any(isinstance(effect.ratio, dict) for effect in self.effects):
            raise ValueError("one ratio for each effect of a number expected")
        return self

    @property
    def values(self) -> Sequence[int]:
        """The values that patients have."""
        return range(self.low, self.high + 1)

    @property
    def weights(self) -> Floats:
        """Share of each value, `(values,)`."""
        density = np.exp(-0.5 * ((np.array(self.values) - self.mean) / self.sd) ** 2)
        return np.asarray(density / density.sum())

    def log_ratios(self, effect: Effect) -> Floats:
        """Return the log of an effect's ratio for each value against the mean, `(values,)`."""
        assert isinstance(effect.ratio, float)
        return np.asarray((np.array(self.values) - self.mean) / self.per * np.log(effect.ratio))


class Band(BaseModel):
    """Shares of levels from some value of another variable on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: float
    shares: dict[str, float]


class CategoricalVariable(BaseModel):
    """Levels with their shares; effects are stated against the first level.

    Attributes:
        shares: Share of each level.
        effects: How the levels go with what is predicted.
        given: A numeric variable on which the shares depend, instead of effects.
        bands: Shares of the levels for bands of that variable.
        source: Where the shares come from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: dict[str, float] = {}
    effects: tuple[Effect, ...] = ()
    given: str | None = None
    bands: tuple[Band, ...] = ()
    source: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.shares) == bool(self.bands) or bool(self.bands) != (self.given is not None):
            raise ValueError("shares, or given with bands expected")
        if self.bands and self.effects:
            raise ValueError("no effects expected of a variable whose shares depend on another one")
        for shares in (self.shares, *(band.shares for band in self.bands)):
            if shares and not (all(share > 0 for share in shares.values()) and abs(sum(shares.values()) - 1) < 1e-6):
                raise ValueError("positive shares that sum to 1 expected")
        starts = [band.start for band in self.bands]
        if starts != sorted(set(starts)):
            raise ValueError("bands in rising order expected")
        for effect in self.effects:
            if not isinstance(effect.ratio, dict) or not set(effect.ratio) <= set(list(self.shares)[1:]):
                raise ValueError(f"ratios of the levels {', '.join(list(self.shares)[1:])} expected")
        return self

    @property
    def values(self) -> Sequence[str]:
        """The levels that patients have."""
        return list(self.shares)

    @property
    def weights(self) -> Floats:
        """Share of each level, `(levels,)`."""
        weights = np.array(list(self.shares.values()))
        return np.asarray(weights / weights.sum())

    def log_ratios(self, effect: Effect) -> Floats:
        """Return the log of an effect's ratio for each level against the first one, `(levels,)`."""
        assert isinstance(effect.ratio, dict)
        return np.log([effect.ratio.get(level, 1.0) for level in self.shares])


ClinicalVariable = NumericVariable | CategoricalVariable

DEFAULT: Mapping[str, object] = {
    "age": {
        "mean": 65,
        "sd": 11,
        "low": 20,
        "high": 95,
        "effects": [{"odds_ratio": 1.2, "of": SEVERITY, "source": "set by hand: weak"}],
    },
    "sex": {"shares": {"F": 0.5, "M": 0.5}},
    "stage": {
        "shares": {"I": 0.25, "II": 0.30, "III": 0.30, "IV": 0.15},
        "effects": [{"odds_ratio": {"II": 1.2, "III": 1.4, "IV": 1.6}, "of": SEVERITY, "source": "set by hand: weak"}],
    },
}
"""The clinical columns of a simulated cohort whose tool does not state any: of no particular disease."""


def parse(stated: Mapping[str, object]) -> dict[str, ClinicalVariable]:
    """Return clinical variables from the mapping of their columns in yaml.

    Raises:
        ConfigError: a key or value that does not exist, or a variable that depends on one that is not numeric.
    """
    variables = {str(name): _parsed(f"simulation.clinical.{name}", node) for name, node in stated.items()}
    for name, variable in variables.items():
        given = variable.given if isinstance(variable, CategoricalVariable) else None
        if given is not None and not isinstance(variables.get(given), NumericVariable):
            raise ConfigError(f"simulation.clinical.{name}.given: {given!r} found, a numeric variable expected")
    return variables


def _parsed(key: str, node: object) -> ClinicalVariable:
    has_levels = isinstance(node, Mapping) and not {"shares", "given"}.isdisjoint(node)
    kind: type[ClinicalVariable] = CategoricalVariable if has_levels else NumericVariable
    try:
        return kind.model_validate(node)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join([key, *map(str, first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{place}: {first['input']!r} found, {message}") from None
