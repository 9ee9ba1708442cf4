"""Table 1: the patients by role and by outcome, with missing values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.report.evaluation import Evaluation
from mil.report.schema import Block, Model, Section, Table
from mil.report.sections.levels import UNKNOWN, used_columns
from mil.splits.roles import ROLES
from mil.tables import MISSING, says_simulated

FEWEST_NUMBERS = 10
"""A column with more different numbers is described by quartiles, others by their levels."""
MOST_LEVELS = 20
FEWEST_SHOWN = 5
"""Of real patients smaller counts than this are not shown: with what else is known they could name somebody."""
FEW = f"under {FEWEST_SHOWN}"
HIDDEN = "not shown"
REST = "all others"
_ROLE_NAMES = {"train": "training", "select": "model selection", "report": "report"}

Members = NDArray[np.bool_]


class PatientGroup(Model):
    """A column of the table."""

    name: str
    n: int


class Quartiles(Model):
    """The distribution of a number; None where nobody has one, or so few that they are not shown."""

    lower: float | None
    median: float | None
    upper: float | None
    few: Literal[True] | None = None
    """whether it is that of fewer patients than are shown"""


class LevelCounts(Model):
    """Patients of one level in each group; None where the count is not shown."""

    level: str
    counts: tuple[int | None, ...]


class VariableCounts(Model):
    """A clinical variable in each group."""

    name: str
    quartiles: tuple[Quartiles, ...] = ()
    """of a number"""
    levels: tuple[LevelCounts, ...] = ()
    """of words"""
    missing: tuple[int | None, ...]


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
    fewest_shown: int | None = None
    """smallest count but zero that is shown; None where all are, as of simulated patients"""

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
        variables = tuple(_variable(name, clinic[name], groups) for name in columns)
        is_real = not says_simulated(evaluation.patients)
        return cls(
            groups=tuple(PatientGroup(name=name, n=int(members.sum())) for name, members in groups.items()),
            variables=tuple(map(_without_few, variables)) if is_real else variables,
            fewest_shown=FEWEST_SHOWN if is_real else None,
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
        if self.fewest_shown is not None:
            note += (
                f" Counts under {self.fewest_shown} are not shown, so that nobody can be recognised, nor are "
                "counts from which one of those would follow."
            )
        return Table(columns=("Variable", *heads), rows=rows, note=note)

    def _rows(self, variable: VariableCounts) -> Iterator[tuple[str, ...]]:
        if variable.quartiles:
            yield variable.name, *map(_range, variable.quartiles)
        for level in variable.levels:
            yield f"{variable.name}: {level.level}", *self._shares(level.counts)
        yield f"{variable.name}: {UNKNOWN}", *self._shares(variable.missing)

    def _shares(self, counts: tuple[int | None, ...]) -> Iterator[str]:
        for count, group in zip(counts, self.groups, strict=True):
            if count is None:
                yield HIDDEN
            else:
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
    few: Literal[True] | None = True if len(numbers) < FEWEST_SHOWN else None
    return Quartiles(lower=float(lower), median=float(median), upper=float(upper), few=few)


def _without_few(variable: VariableCounts) -> VariableCounts:
    """Return the counts of a variable without the small ones, and without those that give them away."""
    counts = _hidden([level.counts for level in variable.levels] + [variable.missing], variable.levels != ())
    levels = (level.model_copy(update={"counts": row}) for level, row in zip(variable.levels, counts, strict=False))
    quartiles = (
        Quartiles(lower=None, median=None, upper=None, few=True) if numbers.few else numbers
        for numbers in variable.quartiles
    )
    return VariableCounts(name=variable.name, quartiles=tuple(quartiles), levels=tuple(levels), missing=counts[-1])


def _hidden(counts: Sequence[Sequence[int | None]], add_up: bool) -> list[tuple[int | None, ...]]:
    """Return counts with None for the small ones; where one of a row or column would follow from the rest, for two.

    Args:
        counts: Of each level (row) in each group (column). Rows are sums too: roles and outcomes count the same people.
        add_up: Whether the rows of a column add up to its patients, who are shown.
    """
    cells = np.array(counts, dtype=float)
    cells[(cells > 0) & (cells < FEWEST_SHOWN)] = np.nan
    lines = [*cells, *(cells.T if add_up else ())]  # views: what is hidden in a row is hidden in its column
    while short := [line for line in lines if np.isnan(line).sum() == 1 and len(line) > 1]:
        line = short[0]
        line[np.nanargmin(np.where(line == 0, line.size + np.nansum(line), line))] = np.nan  # a zero only after others
    return [tuple(None if np.isnan(cell) else int(cell) for cell in row) for row in cells]


def _range(quartiles: Quartiles) -> str:
    if quartiles.few and quartiles.median is None:
        return f"{HIDDEN}: {FEW} patients"
    if quartiles.median is None or quartiles.lower is None or quartiles.upper is None:
        return "none stated"
    return f"{quartiles.median:.4g} ({quartiles.lower:.4g} to {quartiles.upper:.4g})"
