"""How well predictions separate classes whatever threshold is chosen, and how often the called class is right.

Areas, balanced accuracy and kappa are computed within folds and averaged. Average precision is not: of few positives it
is too high (by 0.05 of 20 patients a fold), so that scores become percentile ranks within their fold and are pooled.
Calls are pooled over folds, one row a patient, and counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import rankdata

from mil.endpoints.endpoint import Endpoint, Ranking
from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import (
    CALL_METRICS,
    area_metrics,
    call_estimate,
    for_method,
    mean_area,
    pooled_calls,
)
from mil.report.predictions import rows_of
from mil.report.schema import Confusion, Drawing, Estimate, Model, Number, Report, Section
from mil.report.sections.agreement import BlandAltman, agreement
from mil.stats import auroc, average_precision, balanced_accuracy, jackknife, quadratic_kappa
from mil.stats.bootstrap import Floats, Fold
from mil.stats.proportions import proportion

_PERFECT = "every positive scores above every negative: these patients do not show how certain it is"
_REASON = "no fold has every class that this is about"


class QuestionAreas(Model):
    """How well the probability of one yes-or-no question separates positives from negatives."""

    name: str
    n: int
    positives: int
    prevalence: Number
    auroc: Estimate
    auroc_delong: Estimate | None = None
    """of reports made before `auroc` had this interval"""
    auprc: Estimate


class ClassCalls(Model):
    """How often a class is recognised, and how often its call is right."""

    name: str
    n: int
    recall: Estimate
    precision: Estimate


class Discrimination(Section):
    """How well the predictions separate classes whatever threshold is chosen, or agree with true values."""

    key: ClassVar[str] = "discrimination"
    title: ClassVar[str] = "Discrimination"
    explanation: ClassVar[str] = "How well the predictions separate patients with and without the finding."
    not_applicable: ClassVar[str] = "The endpoint is a time to an event; see Survival."
    position: ClassVar[int] = 10
    captions: ClassVar[Mapping[str, str]] = {
        "roc": "ROC curve: sensitivity against false positive rate, over all thresholds",
        "precision_recall": "Precision against recall over all thresholds, with the prevalence",
        "regression": "Predicted against true values, and their differences against their means",
        "class_confusion": "Confusion matrix of all classes: patients of each true class by the class that was called",
        "score_distribution": "Scores by true class, with the frozen cuts",
    }

    questions: tuple[QuestionAreas, ...] = ()
    macro_auroc: Estimate | None = None
    balanced_accuracy: Estimate | None = None
    quadratic_kappa: Estimate | None = None
    called: str | None = None
    """how a class is called, in words"""
    accuracy: Estimate | None = None
    classes: tuple[ClassCalls, ...] = ()
    confusion: Confusion | None = None
    metrics: dict[str, Estimate] = Field(default={}, title="Agreement")
    """of a predicted value: the metrics of the endpoint"""
    bland_altman: BlandAltman | None = Field(default=None, title="Differences, predicted minus true")

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return areas of each question and what the called classes are worth, or the agreement of predicted values.

        None for endpoints without questions and values. A patient's class is called by the largest probability, a
        grade by the median of its probabilities; `called` says which.
        """
        endpoint, questions = evaluation.endpoint, evaluation.questions
        if endpoint.value_column is not None:
            metrics, differences = agreement(evaluation, endpoint.value_column)
            return cls(metrics=metrics, bland_altman=differences)
        if not questions:
            return None
        counts = {"n": len(evaluation.reported)}
        by_fold = _rankings(evaluation)
        overall = {name: each.with_counts(counts) for name, each in _of_calls(evaluation).items()}
        section = cls(
            questions=tuple(
                _question(evaluation, question, [rankings[at] for rankings in by_fold])
                for at, question in enumerate(questions)
            ),
            macro_auroc=None if _is_binary(endpoint) else _macro(evaluation, by_fold, counts),
            balanced_accuracy=overall.get("balanced_accuracy"),
            quadratic_kappa=overall.get("quadratic_kappa"),
        )
        return section._with_calls(evaluation) if endpoint.classes else section

    def _with_calls(self, evaluation: Evaluation) -> Self:
        """Add how often called classes are right; of two classes only the accuracy, since nobody cuts at one half."""
        endpoint, reported = evaluation.endpoint, evaluation.reported
        label, calls = endpoint.labels(reported), endpoint.call_classes(endpoint.class_probabilities(reported))
        names, size = endpoint.classes, len(endpoint.classes)
        counts = np.bincount(label * size + calls, minlength=size**2).reshape(size, size)  # true, called
        fields = {"called": endpoint.called_by, "accuracy": proportion(int(np.trace(counts)), len(label))}
        if _is_binary(endpoint):
            return self.model_copy(update=fields)
        matrix = Confusion(classes=names, calls=names, rows=tuple(tuple(row) for row in counts.tolist()))
        return self.model_copy(update={**fields, "classes": _class_calls(names, counts), "confusion": matrix})

    def drawings(self, evaluation: Evaluation, report: Report) -> Iterator[Drawing]:
        """Yield curves and scores of the questions, agreement of values, and the confusion of all classes.

        A decision by the likeliest class has a confusion matrix of its own.
        """
        from mil.report.figures.agreement_plot import agreement
        from mil.report.figures.confusion import confusion, within_one
        from mil.report.figures.precision_recall import precision_recall
        from mil.report.figures.roc import roc
        from mil.report.figures.score_distribution import score_distribution
        from mil.report.sections.operating_points import OperatingPoints

        yield Drawing("roc", roc(evaluation, report))
        yield Drawing("precision_recall", precision_recall(evaluation, report))
        yield Drawing("score_distribution", score_distribution(evaluation))
        yield Drawing("regression", agreement(evaluation, report))
        decisions, matrix = report.section(OperatingPoints), self.confusion
        decided = [] if decisions is None else [each.classes for _, each in decisions.confusions]
        if matrix is not None and matrix.classes not in decided:
            note = f"; within one grade {within_one(matrix):.0%}" if evaluation.endpoint.ordered else ""
            yield Drawing("class_confusion", confusion([(f"Called by {self.called}{note}", matrix)]))


def _of_calls(evaluation: Evaluation) -> dict[str, Estimate]:
    """Return balanced accuracy, and of grades the quadratic kappa: means over folds; none without classes."""
    endpoint, folds = evaluation.endpoint, evaluation.folds
    if not endpoint.classes:
        return {}
    by_fold = [pooled_calls(endpoint, [fold]) for fold in folds]
    values = {"balanced_accuracy": tuple(float(balanced_accuracy(*each)) for each in by_fold)}
    if endpoint.ordered:
        values["quadratic_kappa"] = tuple(float(quadratic_kappa(*each)) for each in by_fold)
    pooled, metrics = pooled_calls(endpoint, folds), dict[str, Estimate]()
    for name, of_folds in values.items():
        defined = [value for value in of_folds if np.isfinite(value)]
        mean = Estimate(value=float(np.mean(defined)) if defined else None, folds=of_folds).explained(_REASON)
        kind = CALL_METRICS["balanced_accuracy" if name == "balanced_accuracy" else "qwk"]
        metrics[name] = for_method(call_estimate(mean, kind, *pooled), evaluation.fold_ratio, name)
    return metrics


def _rankings(evaluation: Evaluation) -> list[list[Ranking]]:
    """Return of each fold the ranking of each question."""
    return [
        [Ranking(question.probability(table), question.truth(table)) for question in evaluation.questions]
        for table in (rows.set_index("patient") for _, rows in rows_of(evaluation.table, "report"))
    ]


def _question(evaluation: Evaluation, question: Question, by_fold: Sequence[Ranking]) -> QuestionAreas:
    truth = question.truth(evaluation.reported)
    counts = {"n": int((~np.isnan(truth)).sum()), "positives": int((truth == 1).sum())}
    return QuestionAreas(
        name=question.name,
        n=counts["n"],
        positives=counts["positives"],
        prevalence=proportion(counts["positives"], counts["n"]).value,
        auroc=_area(evaluation, [[ranking] for ranking in by_fold], counts),
        auprc=pooled_precision(by_fold, [_names(fold) for fold in evaluation.folds], counts),
    )


def _macro(evaluation: Evaluation, by_fold: Sequence[Sequence[Ranking]], counts: Mapping[str, int]) -> Estimate:
    """Return the mean area over questions, or over classes where the questions are boundaries between grades."""
    endpoint = evaluation.endpoint
    if endpoint.ordered:
        return area_metrics(evaluation)["macro_auroc"].with_counts(counts).explained(_REASON)
    return _area(evaluation, by_fold, counts)


def _area(evaluation: Evaluation, by_fold: Sequence[Sequence[Ranking]], counts: Mapping[str, int]) -> Estimate:
    within = [[float(auroc(*_answered(ranking))) for ranking in rankings] for rankings in by_fold]
    area = mean_area(by_fold, [_names(fold) for fold in evaluation.folds])
    estimate = area.estimate(counts).model_copy(update={"folds": tuple(float(np.mean(areas)) for areas in within)})
    return for_method(estimate.explained(_REASON), evaluation.fold_ratio, "auroc")


def pooled_precision(
    by_fold: Sequence[Ranking], names: Sequence[NDArray[np.str_]], counts: Mapping[str, int]
) -> Estimate:
    """Return the average precision of all folds together, scores as percentile ranks within each fold.

    Args:
        by_fold: The ranking of each fold.
        names: Of the patients of each fold; one of several folds counts as in the first.
        counts: Of the estimate.
    """
    ranks = [each.score if len(by_fold) == 1 else rankdata(each.score) / max(1, len(each.score)) for each in by_fold]
    first = np.unique(np.concatenate(names), return_index=True)[1]
    ranking = Ranking(np.concatenate(ranks)[first], np.concatenate([each.truth for each in by_fold])[first])
    score, positive = _answered(ranking)
    over_folds = f"; scores as percentile ranks within each of {len(by_fold)} folds, pooled" if len(by_fold) > 1 else ""
    method, counts = f"{jackknife.METHOD}, logit{over_folds}", dict(counts)
    if not 0 < positive.sum() < len(positive):
        return Estimate(value=None, method=method, counts=counts, reason=_REASON)
    value = float(average_precision(score, positive))
    error = jackknife.jackknife_error(lambda weight: average_precision(score, positive, weight), len(score))
    low, high = jackknife.bounds(value, error, "logit")
    if not np.isfinite(low):
        return Estimate(value=value, method=method, counts=counts, reason=_PERFECT)
    return Estimate(value=value, low=low, high=high, method=method, counts=counts)


def _answered(ranking: Ranking) -> tuple[Floats, NDArray[np.bool_]]:
    rows = ~np.isnan(ranking.truth)
    return ranking.score[rows], ranking.truth[rows] == 1


def _names(fold: Fold) -> NDArray[np.str_]:
    return np.asarray(fold.patients)


def _class_calls(names: Sequence[str], counts: NDArray[np.int64]) -> tuple[ClassCalls, ...]:
    """Return recall and precision of each class, from counts by true and called class `(k, k)`."""
    return tuple(
        ClassCalls(
            name=name,
            n=int(counts[at].sum()),
            recall=proportion(int(counts[at, at]), int(counts[at].sum())),
            precision=proportion(int(counts[at, at]), int(counts[:, at].sum())),
        )
        for at, name in enumerate(names)
    )


def _is_binary(endpoint: Endpoint) -> bool:
    return len(endpoint.class_columns) == 1
