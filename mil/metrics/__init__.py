"""Metrics over weighted patients, in numpy: light enough for every validation epoch, vectorised over resamples."""

from mil.metrics.censoring import Censoring, KaplanMeier
from mil.metrics.classification import (
    auroc,
    average_precision,
    balanced_accuracy,
    macro_auroc,
    sensitivity,
    specificity,
)
from mil.metrics.ordinal import quadratic_kappa
from mil.metrics.regression import concordance, mean_absolute_error, pearson, r2
from mil.metrics.survival import brier_at, c_index, cumulative_dynamic_auc, integrated_brier, uno_c

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
