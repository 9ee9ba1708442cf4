"""Metrics over weighted patients, in numpy: light enough for every validation epoch, vectorised over resamples."""

from mil.metrics.classification import auroc, balanced_accuracy, macro_auroc, sensitivity, specificity
from mil.metrics.ordinal import quadratic_kappa
from mil.metrics.regression import concordance, mean_absolute_error, pearson, r2
from mil.metrics.survival import c_index

__all__ = [
    "auroc",
    "balanced_accuracy",
    "c_index",
    "concordance",
    "macro_auroc",
    "mean_absolute_error",
    "pearson",
    "quadratic_kappa",
    "r2",
    "sensitivity",
    "specificity",
]
