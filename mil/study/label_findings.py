"""What the labels are, and what goes along with them."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from mil.study.findings import Finding, finding

CHANCE = 0.01
"""Associations that chance makes less often are told."""
STRENGTH = 0.3
"""Cramér's V from which on they are: Cohen's medium effect (Statistical Power Analysis, 1988, section 7.2).

In a large cohort the slightest association has a small p-value, and sites always differ a little in their patients.
"""


def association(one: "pd.Series[str]", other: "pd.Series[str]") -> tuple[float, float]:
    """Cramér's V of two columns of words, and the p-value of Pearson's test; (0, 1) where one of them is constant.

    V is corrected for its bias, without which many small sites alone make it large (Bergsma, Journal of the Korean
    Statistical Society 2013, equations 5 to 7).
    """
    counts = pd.crosstab(one, other).to_numpy()
    rows, columns, n = *counts.shape, counts.sum()
    if min(rows, columns) < 2:
        return 0.0, 1.0
    chi2, p, _, _ = chi2_contingency(counts, correction=False)
    beyond = max(0.0, chi2 / n - (rows - 1) * (columns - 1) / (n - 1))
    sides = (side - (side - 1) ** 2 / (n - 1) for side in (rows, columns))
    most = min(sides) - 1
    return (math.sqrt(beyond / most) if most > 0 else 0.0), float(p)


def confounded(name: str, classes: "pd.Series[str]", sites: "pd.Series[str]") -> list[Finding]:
    """Whether the site alone tells the label, so that a model may learn the site.

    Args:
        name: The label's.
        classes: Each patient's class, by patient.
        sites: Each patient's site, by patient; empty where unknown. Others than those with a class do not matter.
    """
    sites = sites.reindex(classes.index)
    known = sites.notna() & (sites != "") & classes.notna()
    strength, p = association(classes[known], sites[known])
    if p >= CHANCE or strength < STRENGTH:
        return []
    message = (
        f"'{name}' goes along with the site of {known.sum()} patients (Cramér's V {strength:.2f}, p {p:.1g}): a model "
        "can learn to tell sites apart instead"
    )
    return [Finding("warning", "site", message, int(known.sum()))]


def too_few(strata: "pd.Series[int]", names: pd.DataFrame, folds: int) -> list[Finding]:
    """Classes with fewer patients than folds, of which some fold would have none.

    Args:
        strata: Each patient's stratum, by patient.
        names: Their labels, by patient; a stratum is called by those that all its patients share.
        folds: How many there are to be.
    """
    found = []
    for stratum, own in strata.groupby(strata):
        if len(own) < folds:
            called = _called(names.loc[own.index]) or f"stratum {stratum}"
            message = f"class {called} has {len(own)} patients, expected at least {folds} for {folds} folds"
            found.append(finding("error", "few", message, sorted(own.index)))
    return found


def _called(labels: pd.DataFrame) -> str:
    shared = [name for name in labels if labels[name].nunique() == 1]
    return " and ".join(f"'{labels[name].iloc[0]}' of {name}" for name in shared)


def words(codes: NDArray[np.generic], patients: "pd.Index[str]") -> "pd.Series[str]":
    """Numbers as words, by patient; NaN stays missing."""
    values = pd.Series(np.asarray(codes, dtype=np.float64), index=patients)
    return values.map("{:g}".format).where(values.notna())
