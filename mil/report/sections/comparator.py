"""Another model on the same patients in the same folds: its metrics, and how much better the evaluated model is."""

from typing import ClassVar, Self

from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.page.words import named
from mil.report.paired_difference import CORRECTED, FOR_MODELS, paired_differences, shown_sign
from mil.report.predictions import checked, report_folds, same_patients
from mil.report.schema import Estimate, Report, Section
from mil.stats.corrected_resampled import FOR_METHOD
from mil.stats.estimate import format_p


class Comparator(Section):
    """Metrics of another model, and the difference to it on the same resamples."""

    model_name: ClassVar[str]
    """what the model is called in sentences"""

    name: str
    metrics: dict[str, Estimate]
    difference: dict[str, Estimate]
    """the evaluated model minus this one, paired"""

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the comparison; None without predictions of the other model.

        Raises:
            PredictionsError: the other model's table cannot be evaluated, or has other patients in its folds.
        """
        table = evaluation.comparators.get(cls.key)
        if table is None:
            return None
        endpoint, folds = evaluation.endpoint, evaluation.folds
        others = report_folds(checked(table, endpoint, cls.key), endpoint)
        same_patients(folds, others, cls.key)
        others = [fold._replace(logits=compared.logits) for fold, compared in zip(folds, others, strict=True)]
        return cls(
            name=cls.model_name,
            metrics=metric_intervals(evaluation, others),
            difference=paired_differences(evaluation, others),
        )

    def verdict(self, metric: str) -> str:
        """Return whether the evaluated model is better by this metric, as a sentence."""
        gain = self.difference.get(metric)
        if gain is None or gain.value is None or gain.low is None or gain.high is None:
            reason = f": {gain.reason}" if gain is not None and gain.reason else ""
            return f"The difference to {self.name} is not estimable{reason}."
        shown = {1: "beats", -1: "is worse than", 0: "is not shown to beat"}[shown_sign(gain)]
        question = FOR_METHOD if gain.method == CORRECTED else FOR_MODELS
        test = "" if gain.p is None else f", p {format_p(gain.p)}, {question}"  # older reports have no test
        return f"The model {shown} {self.name}: difference in {named(metric)} {gain}, paired{test}."


def comparators(report: Report) -> list[Comparator]:
    """Return the other models that a report compares its model with."""
    return [section for section in report.sections.values() if isinstance(section, Comparator)]


def verdict(report: Report) -> str:
    """Return whether the model is better than each model it was compared with, by the first metric."""
    metric = next(iter(report.metrics), None)
    if metric is None:
        return f"{report.patients.get('n', 0)} patients of the final test are here to compare models on."
    return " ".join(comparator.verdict(metric) for comparator in comparators(report)) or "No baseline was run."
