"""Metrics over weighted patients, in numpy: light enough for every validation epoch, vectorised over resamples."""

from mil.stats.censoring import Censoring, KaplanMeier
from mil.stats.classification_metrics import (
    auroc,
    average_precision,
    balanced_accuracy,
    macro_auroc,
    sensitivity,
    specificity,
)
from mil.stats.kappa import quadratic_kappa
from mil.stats.survival_metrics import brier_at, c_index, cumulative_dynamic_auc, integrated_brier, uno_c
from mil.stats.value_metrics import concordance, mean_absolute_error, pearson, r2

__all__ = [
    "Censoring",
    "KaplanMeier",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier_at",
    "c_index",
    "concordance",
    "cumulative_dynamic_auc",
    "integrated_brier",
    "macro_auroc",
    "mean_absolute_error",
    "pearson",
    "quadratic_kappa",
    "r2",
    "sensitivity",
    "specificity",
    "uno_c",
]
