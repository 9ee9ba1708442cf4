"""Metrics over weighted patients, in numpy: light enough for every validation epoch, vectorised over resamples."""

from mil.metrics.classification import auroc, balanced_accuracy, macro_auroc, sensitivity, specificity
from mil.metrics.survival import c_index

__all__ = ["auroc", "balanced_accuracy", "c_index", "macro_auroc", "sensitivity", "specificity"]
