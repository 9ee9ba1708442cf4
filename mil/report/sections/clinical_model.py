"""A linear model of the clinical covariates, without the slides."""

from typing import ClassVar

from mil.report.sections.comparator import Comparator


class CovariatesAlone(Comparator):
    """A model that sees the clinical covariates and no slides."""

    key: ClassVar[str] = "covariates"
    title: ClassVar[str] = "Clinical covariates"
    explanation: ClassVar[str] = "A model that sees the clinical covariates and no slides."
    not_applicable: ClassVar[str] = "No model of the clinical covariates was trained."
    position: ClassVar[int] = 120
    model_name: ClassVar[str] = "clinical covariates alone, linear"
