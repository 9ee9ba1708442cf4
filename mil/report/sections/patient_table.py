"""Table 1: the patients by role and by outcome, with missing values."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.report.evaluation import Evaluation
from mil.report.schema import Block, Model, Section, Table
from mil.report.sections.levels import UNKNOWN, used_columns
from mil.splits.roles import ROLES
from mil.tables import MISSING

FEWEST_NUMBERS = 10
"""A column with more different numbers is described by quartiles, others by their levels."""
MOST_LEVELS = 20
REST = "all others"
_ROLE_NAMES = {"train": "training", "select": "model selection", "report": "report"}

Members = NDArray[np.bool_]


class PatientGroup(Model):
    """A column of the table."""

    name: str
    n: int


class Quartiles(Model):
    """The distribution of a number; None where nobody has one."""

    lower: float | None
    median: float | None
    upper: float | None


class LevelCounts(Model):
    """Patients of one level in each group."""

    level: str
    counts: tuple[int, ...]


class VariableCounts(Model):
    """A clinical variable in each group."""

    name: str
    quartiles: tuple[Quartiles, ...] = ()
    """of a number"""
    levels: tuple[LevelCounts, ...] = ()
    """of words"""
    missing: tuple[int, ...]


class PatientTable(Section):
    """The patients by role and by outcome."""

    key: ClassVar[str] = "patient_table"
    title: ClassVar[str] = "Patients by role and outcome"
    explanation: ClassVar[str] = "Who the patients are (Table 1), with missing values."
    not_applicable: ClassVar[str] = "There is no clinical table with variables that this report uses."
    position: ClassVar[int] = 5

    groups: tuple[PatientGroup, ...]
    """by role where there is one fold, all reported patients otherwise; then all patients by outcome"""
    variables: tuple[VariableCounts, ...]

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the table of the clinical variables that the tool names; None without a clinical table."""
        if evaluation.patients is None:
            return None
        columns = used_columns(map(str, evaluation.patients.columns), evaluation.tool)
        rows = evaluation.table.drop_duplicates("patient").set_index("patient")
        clinic = evaluation.patients[~evaluation.patients.index.duplicated()].reindex(rows.index)
        if not columns:
            return None
        groups = dict(_groups(evaluation, rows))
        return cls(
            groups=tuple(PatientGroup(name=name, n=int(members.sum())) for name, members in groups.items()),
            variables=tuple(_variable(name, clinic[name], groups) for name in columns),
        )

    def block(self) -> Block:
        """Return the table."""
        return Block(heading=self.title, tables=(self.table(),))

    def card_sentences(self) -> Iterator[str]:
        """Yield nothing: the card shows the table with the data."""
        yield from ()

    def table(self) -> Table:
        """Return the table with a column for each group."""
        heads = (f"{group.name} (n {group.n})" for group in self.groups)
        rows = tuple(row for variable in self.variables for row in self._rows(variable))
        note = "Numbers: median (lower to upper quartile). Levels: patients and share of the column's patients."
        return Table(columns=("Variable", *heads), rows=rows, note=note)

    def _rows(self, variable: VariableCounts) -> Iterator[tuple[str, ...]]:
        if variable.quartiles:
            yield variable.name, *map(_range, variable.quartiles)
        for level in variable.levels:
            yield f"{variable.name}: {level.level}", *self._shares(level.counts)
        yield f"{variable.name}: {UNKNOWN}", *self._shares(variable.missing)

    def _shares(self, counts: tuple[int, ...]) -> Iterator[str]:
        for count, group in zip(counts, self.groups, strict=True):
            yield f"{count} ({count / group.n:.1%})" if group.n else "0"


def _groups(evaluation: Evaluation, rows: pd.DataFrame) -> Iterator[tuple[str, Members]]:
    """Yield the columns of the table with their members among `rows (p)`, one row a patient."""
    table = evaluation.table
    roles = [role for role in ROLES if (table["role"] == role).any()] if table["fold"].nunique() == 1 else ["report"]
    for role in roles:
        yield _ROLE_NAMES[role], rows.index.isin(table.loc[table["role"] == role, "patient"])
    yield from _outcomes(evaluation, rows)


def _outcomes(evaluation: Evaluation, rows: pd.DataFrame) -> Iterator[tuple[str, Members]]:
    endpoint = evaluation.endpoint
    if (view := endpoint.survival) is not None:
        code = view.event_times(endpoint.encode(rows)).numpy()[:, 1]
        for place, name in enumerate(("no event", *(view.causes or ("event",)))):
            yield name, code == place
    elif endpoint.classes:
        label = endpoint.labels(rows)
        for place, name in enumerate(endpoint.classes):
            yield name, label == place
    else:
        for question in evaluation.questions:
            yield f"{question.name} {question.positive}", question.truth(rows) == 1


def _variable(name: str, values: "pd.Series[str]", groups: Mapping[str, Members]) -> VariableCounts:
    words = values.fillna("").astype(str).str.strip()
    stated = (~words.str.casefold().isin(MISSING)).to_numpy()
    missing = tuple(int((~stated & members).sum()) for members in groups.values())
    numbers = pd.to_numeric(words.where(stated), errors="coerce")
    if numbers[stated].notna().all() and numbers.nunique() > FEWEST_NUMBERS:
        quartiles = tuple(_quartiles(numbers[stated & members]) for members in groups.values())
        return VariableCounts(name=name, quartiles=quartiles, missing=missing)
    frequent = words[stated].value_counts()
    named = sorted(frequent.index[:MOST_LEVELS])
    levels = [(level, (words == level).to_numpy()) for level in named]
    if len(frequent) > len(named):
        levels.append((REST, stated & ~words.isin(named).to_numpy()))
    counts = tuple(
        LevelCounts(level=level, counts=tuple(int((having & members).sum()) for members in groups.values()))
        for level, having in levels
    )
    return VariableCounts(name=name, levels=counts, missing=missing)


def _quartiles(numbers: "pd.Series[float]") -> Quartiles:
    if numbers.empty:
        return Quartiles(lower=None, median=None, upper=None)
    lower, median, upper = np.quantile(numbers, [0.25, 0.5, 0.75])
    return Quartiles(lower=float(lower), median=float(median), upper=float(upper))


def _range(quartiles: Quartiles) -> str:
    if quartiles.median is None or quartiles.lower is None or quartiles.upper is None:
        return "none stated"
    return f"{quartiles.median:.4g} ({quartiles.lower:.4g} to {quartiles.upper:.4g})"
