"""The clinical covariates that a tool names, as columns of a regression."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.cohort.covariates import Covariates
from mil.report.evaluation import Evaluation
from mil.tables import MISSING


@dataclass(frozen=True)
class Clinical:
    """Numbers in standard deviations, categories as levels against a reference; missing values are a level."""

    covariates: Covariates
    patients: pd.DataFrame
    """the clinical table of all patients in the predictions"""
    absent: tuple[str, ...] = ()
    """columns that the tool names and the table lacks"""

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Clinical | None":
        """Return the covariates, or None without a table or where it has none of the columns.

        Levels of a category are those that the tool lists, or all words of the column.
        """
        clinical = evaluation.tool.clinical
        if evaluation.patients is None or clinical is None:
            return None
        table = evaluation.patients.reindex(evaluation.table["patient"].unique())
        numeric, categories = list(clinical.numeric), clinical.categorical
        numbers = [name for name in numeric if name in table]
        levels = {name: _levels(table[name], categories) for name in categories if name in table}
        levels = {name: words for name, words in levels.items() if words}
        absent = tuple(name for name in [*numeric, *categories] if name not in numbers and name not in levels)
        return cls(Covariates(numbers, levels), table, absent) if numbers or levels else None

    def design(self, patients: Sequence[str], fitted: Covariates) -> pd.DataFrame:
        """Return every column `(p, k)` of these patients, on the scale of `fitted`."""
        encoded = fitted.encode(self.patients.loc[list(patients)]).double().numpy()
        return pd.DataFrame(encoded, columns=fitted.names, index=list(patients))

    def fit(self, patients: Sequence[str]) -> Covariates:
        """Return the covariates with means and deviations of these patients."""
        return self.covariates.fit(self.patients.loc[list(patients)])

    def references(self, design: pd.DataFrame, event: NDArray[np.bool_], both: bool) -> dict[str, str]:
        """Return the reference level of each category: the first with events, or with both outcomes."""
        references = {}
        for name, levels in self.covariates.categorical.items():
            columns = [f"{name}={level}" for level in (*levels, "missing")]
            uncertain = [column for column in columns if not _is_certain(design[column], event, both)]
            references[name] = next((column for column in uncertain if design[column].any()), columns[0])
        return references


def _levels(column: "pd.Series[str]", listed: object) -> list[str]:
    if isinstance(listed, dict) and listed[column.name]:
        return [str(level) for level in listed[column.name]]
    words = {str(word).strip().casefold(): str(word).strip() for word in column.dropna()}
    return [words[word] for word in sorted(words) if word not in MISSING]


def _is_certain(indicator: "pd.Series[float]", event: NDArray[np.bool_], both: bool) -> bool:
    """Return whether nobody with the indicator has the event, or with `both` also whether everybody has it."""
    events = event[indicator.to_numpy() == 1]
    return not events.any() or (both and bool(events.all()))


def without_certain(
    design: pd.DataFrame, event: NDArray[np.bool_], both: bool
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Return the patients to fit, `(p,)`, and the number of the others by their indicator.

    Where nobody with a level has the event, its likeliest hazard is zero: the other estimates are exactly those without
    these patients. With `both` outcomes this also holds where everybody has it.

    Args:
        design: `(p, k)`
        event: `(p,)`
        both: Whether a level is also left out where everybody has the event.
    """
    members, left_out = np.ones(len(design), dtype=bool), dict[str, int]()
    indicators = [name for name in map(str, design) if design[name].isin([0, 1]).all()]
    while True:
        present = {name: design.loc[members, name] for name in indicators}
        certain = (
            name for name, column in present.items() if column.any() and _is_certain(column, event[members], both)
        )
        name = next(certain, None)
        if name is None:
            return members, left_out
        with_level = members & (design[name].to_numpy() == 1)
        left_out[name] = int(with_level.sum())
        members &= ~with_level
