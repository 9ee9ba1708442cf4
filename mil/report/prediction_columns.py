"""The columns of a table of predictions, which determine what was predicted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

from mil.errors import ConfigError
from mil.fitted.rules import AnyRule, NoRule, parse_rule

CUTS = ("sensitivity", "specificity")
"""Rules of a cut that a share says all of."""
ALWAYS = ("patient", "group", "role")
TAKES: Mapping[str, Collection[str]] = {
    "binary": ("target", "score", "positive", *CUTS),
    "classes": ("target", "score", "ordered", *CUTS),
    "labels": ("target", "score", "positive", *CUTS),
    "regression": ("target", "value"),
    "survival": ("time", "event", "unit", "score", "risk"),
    "competing risks": ("time", "event", "unit", "cause", "score", "horizon"),
}
"""Options that have a meaning for each kind, beside those that always have."""


@dataclass(frozen=True)
class PredictionColumns:
    """What a table of any software's predictions calls its columns; each is an option of `mil evaluate`.

    Attributes:
        target: Column of labels (`label`); for several labels `NAME=COLUMN` for each.
        score: Column of scores (`score`), larger for the positive class or the higher risk; `CLASS=COLUMN` for each
            class, `NAME=COLUMN` for each label or cause.
        positive: The positive label (`1`).
        ordered: Whether classes are grades, the lowest first.
        value: Column of predicted numbers; `target` names the true ones.
        time: Column of times to an event.
        event: Column of events (`event`): 0 or 1, or 0 and codes of causes.
        unit: Unit of time: days, months or years (`months`).
        risk: `TIME=COLUMN` for each risk of an event until a time.
        cause: `NAME=CODE` for each competing cause; the first is ranked.
        horizon: Time until which the scores of causes are risks.
        patient: Column of patients (`patient`).
        group: Column of folds; scores of different folds are not compared.
        role: Column of roles: train, select, report.
        sensitivity: Of a threshold that is set on select rows.
        specificity: Of a threshold that is set on select rows.
    """

    target: Sequence[str] = ()
    score: Sequence[str] = ()
    positive: str | None = None
    ordered: bool = False
    value: str | None = None
    time: str | None = None
    event: str | None = None
    unit: str | None = None
    risk: Sequence[str] = ()
    cause: Sequence[str] = ()
    horizon: float | None = None
    patient: str | None = None
    group: str | None = None
    role: str | None = None
    sensitivity: float | None = None
    specificity: float | None = None

    @property
    def given(self) -> list[str]:
        """The names of the columns that were given."""
        return [one.name for one in fields(self) if getattr(self, one.name) not in (None, False, (), [])]

    def kind(self, found: Collection[str]) -> str:
        """What was predicted, by the options alone; `found` are the table's columns.

        Raises:
            ConfigError: options that do not go together.
        """
        kind = self._named(found)
        takes = [*TAKES[kind], *ALWAYS]
        if odd := [name for name in self.given if name not in takes]:
            known = ", ".join(f"--{name}" for name in takes)
            raise ConfigError(f"--{odd[0]}: has no meaning for {kind}, expected some of {known}")
        if kind == "competing risks" and self.time is None:
            raise ConfigError("--cause: is of a time to an event, expected --time COLUMN")
        return kind

    def _named(self, found: Collection[str]) -> str:
        if self.value is not None:
            return "regression"
        if self.time is not None or self.cause:
            return "competing risks" if self.cause else "survival"
        targets, scores = (
            len(words) > 1 or any("=" in word and word not in found for word in words)
            for words in (self.target, self.score)
        )
        if targets:
            return "labels"
        return "classes" if self.ordered or scores else "binary"

    def cut(self) -> AnyRule | NoRule | None:
        """The rule of a cut that was asked for.

        Raises:
            ConfigError: two promises, or nobody to set the cut on.
        """
        asked = [(name, share) for name in CUTS if (share := getattr(self, name)) is not None]
        if len(asked) > 1:
            raise ConfigError(f"--{asked[0][0]} and --{asked[1][0]}: a cut keeps one promise, expected one")
        if asked and self.role is None:
            raise ConfigError(f"--{asked[0][0]}: a cut is set on rows whose role is select, expected --role COLUMN")
        return parse_rule({"rule": asked[0][0], "at_least": asked[0][1]}) if asked else None
