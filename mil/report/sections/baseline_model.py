"""Mean pooling with a linear classifier, trained and evaluated in the same folds."""

from typing import ClassVar

from mil.report.sections.comparator import Comparator


class Baseline(Comparator):
    """A simple model of the same patients."""

    key: ClassVar[str] = "baseline"
    title: ClassVar[str] = "Baseline"
    explanation: ClassVar[str] = "A simple model of the same patients in the same folds."
    not_applicable: ClassVar[str] = "No baseline was trained."
    position: ClassVar[int] = 110
    model_name: ClassVar[str] = "mean pooling, linear"
