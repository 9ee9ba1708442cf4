"""What `mil tune` searches: options of the command line with several values, in Hydra's own grammar of sweeps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override

from mil.errors import ConfigError
from mil.study.compose import prepare

TUNABLE = ("model", "optimizer", "schedule", "trainer", "callbacks")
"""Groups of options that may be searched."""
TUNABLE_DATA = ("batch_bags", "tiles_per_batch", "whole_cohort", "passes", "max_tiles", "balance")
"""Options of `data` that may be searched: the others say who the patients are."""
DEFAULT = (
    "model=simlp,deepsets,abmil_gated",
    "optimizer.lr=tag(log,interval(3e-5,3e-3))",
    "optimizer.weight_decay=tag(log,interval(1e-6,1e-2))",
    "trainer.max_epochs=10,20,40",
)
"""Searched where no option has several values: an option of these that is given is left out."""


class Trial(Protocol):
    """What a search offers to draw values from; optuna's trial."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> object:
        """Return one of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole number."""


@dataclass(frozen=True)
class Dimension:
    """One option that is searched.

    Attributes:
        key: The option.
        choices: Its values; empty for an interval.
        low: Of an interval.
        high: Of an interval.
        log: Whether an interval is searched on a logarithmic scale.
        integers: Whether an interval is of whole numbers.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integers: bool = False

    @property
    def line(self) -> str:
        """The option with its values, for a reader."""
        if self.choices:
            return f"{self.key}: {', '.join(self.choices)}"
        return f"{self.key}: {self.low:g} to {self.high:g}{', log scale' if self.log else ''}"

    @property
    def first(self) -> str:
        """A word with a value that the option can have."""
        return self.word({self.key: self.choices[0] if self.choices else self.low})

    def suggest(self, trial: Trial) -> None:
        """Let a trial draw a value."""
        if self.choices:
            trial.suggest_categorical(self.key, list(self.choices))
        elif self.integers:
            trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        else:
            trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def word(self, values: Mapping[str, object]) -> str:
        """Return the word of the command line for the value that was drawn."""
        value = values[self.key]
        return f"{self.key}={int(value) if self.integers and isinstance(value, int | float) else value}"


@dataclass(frozen=True)
class SearchSpace:
    """What is searched, and what is fixed.

    Attributes:
        fixed: Words of the command line that all trials share.
        dimensions: Options that are searched.
    """

    fixed: tuple[str, ...]
    dimensions: tuple[Dimension, ...]

    def words(self, values: Mapping[str, object]) -> list[str]:
        """Return the words of a trial."""
        return [*self.fixed, *(dimension.word(values) for dimension in self.dimensions)]

    @property
    def first(self) -> list[str]:
        """Words with a value of every option, to read the cohort with."""
        return [*self.fixed, *(dimension.first for dimension in self.dimensions)]


def search_space(words: Sequence[str], extra: Path | None = None) -> SearchSpace:
    """Return what the words of a command line search.

    Args:
        words: As `mil train -m` takes them: `model=abmil,mean`, `optimizer.lr=interval(1e-4,1e-2)`, with
            `tag(log, interval(...))` on a logarithmic scale, `int(interval(1,8))`, `range(1,10,3)`.
        extra: A folder of the user's own, laid out like `conf/`.

    Raises:
        ConfigError: A word that cannot be read, or several values of an option that says who the patients are.
    """
    fixed, dimensions = _parsed(words, extra)
    if not dimensions:
        given = {word.partition("=")[0].lstrip("+") for word in words}
        further = [word for word in DEFAULT if word.partition("=")[0] not in given]
        dimensions = _parsed(further, extra)[1]
    if not dimensions:
        raise ConfigError("nothing to search: every option of the default search is given, expected one with several")
    return SearchSpace(tuple(fixed), tuple(dimensions))


def _parsed(words: Sequence[str], extra: Path | None) -> tuple[list[str], list[Dimension]]:
    fixed, dimensions = list[str](), list[Dimension]()
    parser = OverridesParser.create()
    for word, ready in zip(words, prepare(words, extra), strict=True):
        override = parser.parse_override(ready)
        if override.is_sweep_override():
            dimensions.append(_dimension(word, override))
        else:
            fixed.append(word)
    return fixed, dimensions


def _dimension(word: str, override: Override) -> Dimension:
    key = override.key_or_group.lstrip("+")
    group, _, name = key.partition(".")
    if not (group in TUNABLE or (group == "data" and name in TUNABLE_DATA)):
        raise ConfigError(
            f"{word}: several values of an option that is not searched, expected one of "
            f"{', '.join((*TUNABLE, *(f'data.{option}' for option in TUNABLE_DATA)))}"
        )
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return Dimension(key, tuple(dict.fromkeys(map(str, override.sweep_string_iterator()))))
    low, high, log = value.start, value.end, "log" in value.tags
    if low is None or high is None or not low < high < math.inf or (log and low <= 0):
        raise ConfigError(f"{word}: expected an interval of two rising numbers{', above 0 on a log scale' * log}")
    return Dimension(key, (), low, high, log, isinstance(low, int) and isinstance(high, int))
