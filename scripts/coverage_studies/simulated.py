"""What all studies share: simulated tables of predictions, and whether an interval holds the truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.report.evaluation import Evaluation
from mil.report.schema import Curve, Estimate, Section
from mil.study.tool import Tool

Floats = NDArray[np.float64]
Truths = dict[str, bool | float | None]
"""By row: whether an interval held the truth or a verdict was wrong, a mean, or None where it was not estimable."""
SIZES, DESIGNS = (40, 100, 300), {"hold-out": 1, "five folds": 5}
PREVALENCE, SHIFT, RESAMPLES = 0.3, 0.3, 200
BASE_LOGIT = float(np.log(PREVALENCE / (1 - PREVALENCE)))
HORIZON = 36.0


@dataclass(frozen=True)
class Study:
    """Rows that are measured on the same simulated cohorts."""

    trial: Callable[[np.random.Generator, int, int], Truths]
    share: float = 1.0
    """of the trials that it gets"""
    designs: tuple[str, ...] = tuple(DESIGNS)


def holds(estimate: Estimate | None, truth: float) -> bool | None:
    """Return whether an interval holds the truth; None where there is none."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return bool(estimate.low <= truth <= estimate.high)


def predictions(
    rng: np.random.Generator, folds: int, columns: Mapping[str, object], strata: NDArray[np.int64]
) -> pd.DataFrame:
    """Return a table of predictions with stratified folds; all patients are reported once."""
    n = len(strata)
    fold = np.empty(n, dtype=np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        fold[members] = (rng.permutation(len(members)) + rng.integers(folds)) % folds
    names = [f"{at:05}" for at in range(n)]
    return pd.DataFrame({"patient": names, "fold": fold, "role": "report", **columns})


def evaluated(table: pd.DataFrame, endpoint: object, tool: Mapping[str, object] | None = None) -> Evaluation:
    return Evaluation.of(table, endpoint, Tool.parse(dict(tool or {})), None, RESAMPLES)  # type: ignore[arg-type]


def estimates(section: Section | None) -> dict[str, Estimate]:
    return {} if section is None else {row.source: row.estimate for row in section.card_rows()}


def with_training(table: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Return reported patients together with the training patients of their folds.

    Of several folds these are the patients of the other folds, of a hold-out they are `others`.
    """
    folds = table["fold"].unique()
    if len(folds) == 1:
        trained = [others.assign(patient="t" + others["patient"], role="train")]
    else:
        trained = [table[table["fold"] != fold].assign(fold=fold, role="train") for fold in folds]
    return pd.concat([table, *trained], ignore_index=True)


def point(curve: Curve, at: int) -> Estimate:
    """Return one point of a curve as an estimate."""
    return Estimate(value=curve.y[at], low=curve.low[at], high=curve.high[at])


def hold_all(truths: Mapping[str, float], intervals: Mapping[str, Estimate]) -> bool | None:
    """Return whether all intervals hold their truths; None where one is missing."""
    each = [holds(intervals.get(name), truth) for name, truth in truths.items()]
    return None if None in each else all(each)
