"""Labels that the site gives away, and classes with too few patients."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.errors import SplitError
from mil.findings import Finding

CHANCE = 0.01
"""An association is reported where its p-value is below this."""
STRENGTH = 0.3
"""An association is reported from this Cramér's V on, Cohen's medium effect (Power Analysis, 1988, section 7.2).

In a large cohort the slightest association has a small p-value, and sites always differ a little in their patients.
"""


def of_labels(endpoint: Endpoint, patients: pd.DataFrame, target: Tensor) -> list[Finding]:
    """Return warnings of labels that are associated with the site, and of horizons beyond the follow-up."""
    findings = beyond_follow_up(endpoint, target)
    if "site" not in patients:
        return findings
    classes = classes_of(endpoint, patients, target)
    return findings + [
        finding for name, words in classes.items() for finding in confounded(name, words, patients["site"])
    ]


def beyond_follow_up(endpoint: Endpoint, target: Tensor) -> list[Finding]:
    """Return a warning for each horizon that no patient's follow-up reaches: its risk will be missing."""
    if endpoint.parts():
        parts = endpoint.part_targets(target)
        return [finding for _, part, _, of_part in parts for finding in beyond_follow_up(part, of_part)]
    if endpoint.survival is None or not len(target):
        return []
    view = replace(endpoint.survival, longest=float(target[:, 0].max()))
    reasons = {name: view.beyond(name) for name in view.horizons}
    return [
        Finding("warning", "horizon", f"horizon {name}: {reason}; its risk will be missing", 1)
        for name, reason in reasons.items()
        if reason is not None
    ]


def classes_of(endpoint: Endpoint, patients: pd.DataFrame, target: Tensor) -> dict[str, "pd.Series[str]"]:
    """Return, by the name of the label, each patient's class as a word; of survival the event."""
    index = patients.index
    if endpoint.survival is not None:
        return {endpoint.survival.event_column: codes_as_words(target[:, 1].numpy(), index)}
    if endpoint.parts():
        by_part = [
            classes_of(part, patients[has_label], part_target)
            for _, part, has_label, part_target in endpoint.part_targets(target)
        ]
        return {name: words for classes in by_part for name, words in classes.items()}
    if labels := endpoint.label_columns:
        return {name: codes_as_words(target[:, place].numpy(), index) for place, name in enumerate(labels)}
    if endpoint.classes:
        return {endpoint.columns[0]: patients[endpoint.columns[0]]}
    return {", ".join(endpoint.columns): codes_as_words(endpoint.strata(target), index)}


def association(first: "pd.Series[str]", second: "pd.Series[str]") -> tuple[float, float]:
    """Return Cramér's V of two columns of words and the p-value of Pearson's test; (0, 1) where one is constant.

    V is corrected for its bias, without which many small sites alone make it large (Bergsma, Journal of the Korean
    Statistical Society 2013, equations 5 to 7).
    """
    counts = pd.crosstab(first, second).to_numpy()
    rows, columns, n = *counts.shape, counts.sum()
    if min(rows, columns) < 2:
        return 0.0, 1.0
    chi2, p, _, _ = chi2_contingency(counts, correction=False)
    beyond = max(0.0, chi2 / n - (rows - 1) * (columns - 1) / (n - 1))
    sides = (side - (side - 1) ** 2 / (n - 1) for side in (rows, columns))
    most = min(sides) - 1
    return (math.sqrt(beyond / most) if most > 0 else 0.0), float(p)


def confounded(name: str, classes: "pd.Series[str]", sites: "pd.Series[str]") -> list[Finding]:
    """Return a warning where the label is associated with the site, so that a model may learn the site instead.

    Args:
        name: Of the label.
        classes: Each patient's class, by patient.
        sites: Each patient's site, by patient; empty where unknown. Patients without a class are ignored.
    """
    sites = sites.reindex(classes.index)
    has_both = sites.notna() & (sites != "") & classes.notna()
    strength, p = association(classes[has_both], sites[has_both])
    if p >= CHANCE or strength < STRENGTH:
        return []
    message = (
        f"'{name}' goes along with the site of {has_both.sum()} patients (Cramér's V {strength:.2f}, p {p:.1g}): "
        "a model can learn to tell sites apart instead"
    )
    return [Finding("warning", "site", message, int(has_both.sum()))]


def too_few(strata: "pd.Series[int]", names: pd.DataFrame, folds: int) -> list[Finding]:
    """Return an error for each class with fewer patients than folds, as some fold would have none of it.

    Args:
        strata: Each patient's stratum, by patient.
        names: Their labels, by patient; a stratum is named by the labels that all its patients share.
        folds: Number of folds.
    """
    findings = []
    for stratum, patients in strata.groupby(strata):
        if len(patients) < folds:
            name = _shared_labels(names.loc[patients.index]) or f"stratum {stratum}"
            counted = "1 patient" if len(patients) == 1 else f"{len(patients)} patients"
            message = f"class {name} has {counted}, expected at least {folds} for {folds} folds"
            findings.append(Finding.of_items("error", "few", message, sorted(patients.index), SplitError))
    return findings


def _shared_labels(labels: pd.DataFrame) -> str:
    shared = [name for name in labels if labels[name].nunique() == 1]
    if len(labels) == 1:  # a single patient's time is its own, and names no class
        shared = [name for name in shared if not _is_number(labels[name].iloc[0])] or shared[-1:]
    return " and ".join(f"'{labels[name].iloc[0]}' of {name}" for name in shared)


def _is_number(word: object) -> bool:
    return bool(pd.to_numeric(pd.Series([word]), errors="coerce").notna().all())


def codes_as_words(codes: NDArray[np.generic], patients: "pd.Index[str]") -> "pd.Series[str]":
    """Return numbers as words, by patient; NaN stays missing."""
    values = pd.Series(np.asarray(codes, dtype=np.float64), index=patients)
    return values.map("{:g}".format).where(values.notna())
