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
    """Numbers in standard deviations, categories as levels against a reference; what is missing is a level."""

    covariates: Covariates
    patients: pd.DataFrame
    """the clinical table of everybody in the predictions"""
    absent: tuple[str, ...] = ()
    """columns that the tool names and the table lacks"""

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Clinical | None":
        """None without a table, or where it has none of the columns.

        Levels of a category are those that the tool lists, or all words of the column.
        """
        asked = evaluation.tool.get("clinical") or {}
        if evaluation.patients is None or not asked:
            return None
        table = evaluation.patients.reindex(evaluation.table["patient"].unique())
        numeric, categories = list(asked.get("numeric") or []), asked.get("categorical") or []
        known = [name for name in numeric if name in table]
        levels = {name: _levels(table[name], categories) for name in categories if name in table}
        levels = {name: words for name, words in levels.items() if words}
        absent = tuple(name for name in [*numeric, *categories] if name not in known and name not in levels)
        return cls(Covariates(known, levels), table, absent) if known or levels else None

    def design(self, patients: Sequence[str], fitted: Covariates) -> pd.DataFrame:
        """Every column `(p, k)` of these patients, on the scale of `fitted`."""
        encoded = fitted.encode(self.patients.loc[list(patients)]).double().numpy()
        return pd.DataFrame(encoded, columns=fitted.names, index=list(patients))

    def fit(self, patients: Sequence[str]) -> Covariates:
        """Means and deviations of these patients."""
        return self.covariates.fit(self.patients.loc[list(patients)])

    def references(self, design: pd.DataFrame, event: NDArray[np.bool_], both: bool) -> dict[str, str]:
        """The level that each category's others are held against: the first with events, or with `both` outcomes."""
        found = {}
        for name, levels in self.covariates.categorical.items():
            columns = [f"{name}={level}" for level in (*levels, "missing")]
            fine = [column for column in columns if not _certain(design[column], event, both)]
            found[name] = next((column for column in fine if design[column].any()), columns[0])
        return found


def _levels(column: "pd.Series[str]", listed: object) -> list[str]:
    if isinstance(listed, dict) and listed[column.name]:
        return [str(level) for level in listed[column.name]]
    words = {str(word).strip().casefold(): str(word).strip() for word in column.dropna()}
    return [words[word] for word in sorted(words) if word not in MISSING]


def _certain(indicator: "pd.Series[float]", event: NDArray[np.bool_], both: bool) -> bool:
    """Whether nobody, or with `both` nobody or everybody, of those with the indicator has the event."""
    own = event[indicator.to_numpy() == 1]
    return not own.any() or (both and bool(own.all()))


def without_certain(
    design: pd.DataFrame, event: NDArray[np.bool_], both: bool
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Patients to fit `(p,)`, and the indicators of the others with how many they are.

    Where nobody of a level has the event, its likeliest hazard is zero: the other estimates are exactly those without
    these patients. With `both` outcomes this also holds where everybody has it.
    """
    kept, dropped = np.ones(len(design), dtype=bool), dict[str, int]()
    indicators = [name for name in map(str, design) if design[name].isin([0, 1]).all()]
    while True:
        there = {name: design.loc[kept, name] for name in indicators}
        name = next((n for n, column in there.items() if column.any() and _certain(column, event[kept], both)), None)
        if name is None:
            return kept, dropped
        own = kept & (design[name].to_numpy() == 1)
        dropped[name] = int(own.sum())
        kept &= ~own
