"""How keys and plain values of a report are written for a reader."""

import re
from typing import Any

from mil.stats.estimate import format_number, format_p

_KNOWN = {
    "median_follow_up": "Median follow-up",
    "at_prevalence": "At assumed prevalences",
    "auc": "AUC",
    "auprc": "Average precision",
    "auroc": "AUROC",
    "auroc_delong": "AUROC, DeLong",
    "brier": "Brier score",
    "c_index": "C-index",
    "c_index_within_site": "C-index within sites",
    "e50": "E50",
    "e90": "E90",
    "ece": "Calibration error (ECE, debiased)",
    "f1": "F1",
    "ici": "Calibration error (ICI)",
    "integrated_brier": "Integrated Brier score",
    "kaplan_meier": "Kaplan-Meier",
    "lr_minus": "LR−",
    "lr_negative": "LR−",
    "lr_plus": "LR+",
    "lr_positive": "LR+",
    "mae": "Mean absolute error",
    "macro_auroc": "Macro AUROC",
    "n": "n",
    "npv": "NPV",
    "observed_expected": "Observed/expected",
    "p": "p",
    "p_value": "p",
    "per_1000": "Of 1,000 patients",
    "ppv": "PPV",
    "qwk": "Quadratic kappa",
    "r2": "R²",
    "scaled_brier": "Scaled Brier score (index of prediction accuracy)",
    "uno_c": "Uno's C",
}
_OF_PARTS = ("auroc",)
"""Metrics that endpoints of several parts give for each: `auroc_<label>`, `auroc_from_<grade>`."""
_FROM = "from_"


def named(key: str) -> str:
    """Return a key as a heading: `net_benefit` is `Net benefit`, `auroc_BRAF` is `AUROC, BRAF`."""
    if key in _KNOWN:
        return _KNOWN[key]
    metric, _, of = key.partition("_")
    if of and metric in _OF_PARTS:
        return f"{_KNOWN[metric]}, {of.replace('_', ' ') if of.startswith(_FROM) else of}"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", key):
        return key  # a class or a column, which is left as its table writes it
    words = key.replace("_", " ")
    return words[0].upper() + words[1:]


def below(source: str, *keys: str) -> str:
    """Return the source of a value below these keys; a key with unusual characters is quoted."""
    for key in keys:
        plain = re.fullmatch(r"\w+", key) is not None
        dot = "." if plain and not source.endswith(": ") else ""
        source += f"{dot}{key}" if plain else f'["{key}"]'
    return source


def written(value: Any, key: str = "") -> str:
    """Return a plain value in words; `key` says whether a number is a p value."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if key == "p" or key.endswith(("_p", "p_value")):
            return format_p(value)
        return format_number(value)
    return str(value)
