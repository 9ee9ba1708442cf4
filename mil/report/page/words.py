"""How a report's keys and numbers are written for a reader."""

import re
from collections.abc import Mapping
from typing import Any

from mil.stats.estimate import format_count, format_number, format_p

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
    "ece": "Calibration error (ECE)",
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
    "scaled_brier": "Scaled Brier score",
    "uno_c": "Uno's C",
}
_OF_PARTS = ("auroc",)
"""Metrics that endpoints of several parts give for each: `auroc_<label>`, `auroc_from_<grade>`."""
_FROM = "from_"
_APART = ("value", "low", "high", "level", "method", "reason", "resamples")


def named(key: str) -> str:
    """A key as a heading: `net_benefit` is `Net benefit`, `auroc` is `AUROC`, `auroc_BRAF` is `AUROC, BRAF`."""
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


def is_number(found: Any) -> bool:
    """Whether this is one number of a report: a `value`, perhaps null, with what belongs to it."""
    return isinstance(found, Mapping) and "value" in found and isinstance(found["value"], int | float | None)


def written(value: Any, key: str = "") -> str:
    """A plain value: three decimals, one of what is large, two digits of what is small; a p is never zero."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if key == "p" or key.endswith(("_p", "p_value")):
            return format_p(value)
        return format_number(value)
    return str(value)


def estimate(found: Mapping[str, Any], key: str = "") -> str:
    """`0.912 (0.870 to 0.950)`, or why it cannot be had."""
    value, low, high = (found.get(name) for name in ("value", "low", "high"))
    if value is None:
        reason = str(found.get("reason") or "").strip()
        return f"not estimable: {reason.removeprefix('not estimable').lstrip(': ')}" if reason else "not estimable"
    if low is None and high is None:
        return written(value, key)
    ends = ["…" if end is None else written(float(end)) for end in (low, high)]
    return f"{written(float(value))} ({ends[0]} to {ends[1]})"


def population(found: Mapping[str, Any]) -> str:
    """Whom a number is of, and what else belongs to it: `n 200, positives 30`."""
    several = {key: value for key, value in found.items() if key != "folds" or not value or len(value) > 1}
    return ", ".join(_told(key, value) for key, value in several.items() if key not in _APART and _short(value))


def verdict(report: Mapping[str, Any], metric: str) -> str:
    """Whether the model beats what it is compared with, in words."""
    others = [report[key] for key in ("baseline", "covariates") if report.get(key)]
    return " ".join(_compared(other, metric) for other in others) or "No baseline was run."


def _compared(other: Mapping[str, Any], metric: str) -> str:
    gain, name = other["difference"].get(metric), other["name"]
    if not gain or gain["value"] is None or gain["low"] is None:
        return f"The difference to {name} is not estimable."
    shown = "beats" if gain["low"] > 0 else "is worse than" if gain["high"] < 0 else "is not shown to beat"
    return f"The model {shown} {name}: difference in {named(metric)} {estimate(gain)}, paired."


def _short(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(item, int | float | str) for item in value.values())
    if isinstance(value, list | tuple):
        return 0 < len(value) <= 10 and all(isinstance(item, int | float | None) for item in value)
    return value is not None


def _told(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        if {"low", "high", "method"} <= set(value):
            return f"{value['method']} {written(value['low'])} to {written(value['high'])}"
        inside = ", ".join(format_count(str(name), written(item, str(name))) for name, item in value.items())
        return inside if key == "counts" else f"{named(key).lower()} {inside}"
    words = "/".join(map(written, value)) if isinstance(value, list | tuple) else written(value, key)
    label = named(key)  # a class keeps its letters
    return f"{label} {words}" if key in _KNOWN or label == key else f"{label.lower()} {words}"
