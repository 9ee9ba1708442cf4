"""A perfect reader of the simulated tiles."""

from typing import ClassVar, Self

from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.predictions import oracle_folds
from mil.report.schema import Estimate, Section


class Oracle(Section):
    """The metric of a reader who knows what every simulated tile shows: the most that can be reached."""

    key: ClassVar[str] = "oracle"
    title: ClassVar[str] = "Oracle"
    explanation: ClassVar[str] = "A reader who knows what every simulated tile shows: the most that can be reached."
    not_applicable: ClassVar[str] = "It exists for simulated cohorts only."
    position: ClassVar[int] = 130

    metrics: dict[str, Estimate]

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the endpoint's metric of the oracle's scores; None without them.

        Raises:
            PredictionsError: a column or the score of a reported patient is missing.
        """
        table, endpoint = evaluation.comparators.get(cls.key), evaluation.endpoint
        if table is None:
            return None
        folds = oracle_folds(table, evaluation.folds, endpoint)
        scored = metric_intervals(evaluation, folds)
        return cls(metrics={endpoint.metric: scored[endpoint.metric]})
