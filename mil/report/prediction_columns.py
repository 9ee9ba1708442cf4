"""The columns of a table of predictions, which determine what was predicted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

from mil.errors import ConfigError
from mil.fitted.rules import AnyRule, NoRule, parse_rule

CUTS = ("sensitivity", "specificity")
"""Rules of a threshold that are complete with a share."""
ALWAYS = ("patient", "group", "role")
TAKES: Mapping[str, Collection[str]] = {
    "binary": ("target", "score", "positive", *CUTS),
    "classes": ("target", "score", "ordered", *CUTS),
    "labels": ("target", "score", "positive", *CUTS),
    "regression": ("target", "value"),
    "survival": ("time", "event", "unit", "score", "risk"),
    "competing risks": ("time", "event", "unit", "cause", "score", "horizon"),
}
"""Options for each kind, in addition to those of every kind."""


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
        return [field.name for field in fields(self) if getattr(self, field.name) not in (None, False, (), [])]

    def kind(self, table_columns: Collection[str]) -> str:
        """Return what was predicted, by the options.

        Args:
            table_columns: Of the table of predictions.

        Raises:
            ConfigError: options that do not go together.
        """
        kind = self._kind(table_columns)
        allowed = [*TAKES[kind], *ALWAYS]
        if unexpected := [name for name in self.given if name not in allowed]:
            options = ", ".join(f"--{name}" for name in allowed)
            raise ConfigError(f"--{unexpected[0]}: has no meaning for {kind}, expected some of {options}")
        if kind == "competing risks" and self.time is None:
            raise ConfigError("--cause: is of a time to an event, expected --time COLUMN")
        return kind

    def _kind(self, table_columns: Collection[str]) -> str:
        if self.value is not None:
            return "regression"
        if self.time is not None or self.cause:
            return "competing risks" if self.cause else "survival"
        targets, scores = (
            len(words) > 1 or any("=" in word and word not in table_columns for word in words)
            for words in (self.target, self.score)
        )
        if targets:
            return "labels"
        return "classes" if self.ordered or scores else "binary"

    def cut(self) -> AnyRule | NoRule | None:
        """Return the rule of the threshold, or None without one.

        Raises:
            ConfigError: two rules, or no rows to set the threshold on.
        """
        rules = [(name, share) for name in CUTS if (share := getattr(self, name)) is not None]
        if not rules:
            return None
        name, share = rules[0]
        if len(rules) > 1:
            raise ConfigError(f"--{name} and --{rules[1][0]}: a cut keeps one promise, expected one")
        if self.role is None:
            raise ConfigError(f"--{name}: a cut is set on rows whose role is select, expected --role COLUMN")
        return parse_rule({"rule": name, "at_least": share})
