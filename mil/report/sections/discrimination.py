"""How well predictions separate classes whatever threshold is chosen, and how often the called class is right.

Areas, balanced accuracy and kappa are computed within folds and averaged. Calls are pooled over folds, one row a
patient, and counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from mil.endpoints.endpoint import Endpoint, Scores
from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import Confusion, Drawing, Estimate, Model, Number, Report, Section
from mil.report.sections.agreement import BlandAltman, agreement
from mil.stats import auroc, average_precision, balanced_accuracy, delong, macro_auroc, quadratic_kappa
from mil.stats.bootstrap import Floats, Fold, Score
from mil.stats.bootstrap_intervals import intervals
from mil.stats.proportions import proportion

_REASON = "no fold has every class that this is about"


class QuestionAreas(Model):
    """How well the probability of one yes-or-no question separates positives from negatives."""

    name: str
    n: int
    positives: int
    prevalence: Number
    auroc: Estimate
    auroc_delong: Estimate
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
        "confusion": "Confusion matrix: patients of each true class by what was called",
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
        folds = folds_of(evaluation)
        scored = intervals(score_of(endpoint, len(questions)), folds, evaluation.resamples, evaluation.seed)
        counts = {"n": len(evaluation.reported)}
        means = {name: metric.with_counts(counts).explained(_REASON) for name, metric in scored.items()}
        section = cls(
            questions=tuple(
                _question(evaluation, folds, at, question, scored) for at, question in enumerate(questions)
            ),
            macro_auroc=means.get("macro_auroc"),
            balanced_accuracy=means.get("balanced_accuracy"),
            quadratic_kappa=means.get("quadratic_kappa"),
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
        """Yield curves of the questions, agreement of values, and the confusion matrix where no decision has one."""
        from mil.report.figures.agreement_plot import agreement
        from mil.report.figures.confusion import confusion
        from mil.report.figures.precision_recall import precision_recall
        from mil.report.figures.roc import roc
        from mil.report.sections.operating_points import OperatingPoints

        yield Drawing("roc", roc(evaluation, report))
        yield Drawing("precision_recall", precision_recall(evaluation, report))
        yield Drawing("regression", agreement(evaluation, report))
        decisions = report.section(OperatingPoints)
        if self.confusion is not None and (decisions is None or not decisions.confusions):
            yield Drawing("confusion", confusion([("Likeliest class", self.confusion)]))


def folds_of(evaluation: Evaluation) -> list[Fold]:
    """Return each fold's probabilities as logits `(p, q + c)` and truths as targets `(p, q + 1)`.

    The first q columns are about the questions, the others about exclusive classes, where there are some.
    """
    folds = []
    for fold, (_, rows) in zip(evaluation.folds, rows_of(evaluation.table, "report"), strict=True):
        table = rows.set_index("patient")
        columns = [question.probability(table) for question in evaluation.questions]
        truth = [question.truth(table) for question in evaluation.questions]
        if evaluation.endpoint.classes:
            columns += list(evaluation.endpoint.class_probabilities(table).T)
            truth.append(evaluation.endpoint.labels(table).astype(np.float64))
        logits, target = (torch.from_numpy(np.stack(values, axis=1)) for values in (columns, truth))
        folds.append(fold._replace(logits=logits, target=target))
    return folds


def score_of(endpoint: Endpoint, questions: int) -> Score:
    """Return the score of `folds_of`: `auroc <i>` and `auprc <i>` of question i, and the metrics over all classes."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> Scores:
        values, truth = logits.numpy(), target.numpy()
        scores: Scores = {}
        for at in range(questions):
            scores |= _areas(at, values[:, at], truth[:, at], weight)
        areas = [scores[f"auroc {at}"] for at in range(questions)]
        if endpoint.classes:
            return scores | _overall(
                endpoint, areas, values[:, questions:], truth[:, questions].astype(np.int64), weight
            )
        return scores | {"macro_auroc": np.asarray(np.mean(areas, axis=0))}

    return score


def _areas(at: int, probability: Floats, truth: Floats, weight: Floats | None) -> Scores:
    answered = np.flatnonzero(~np.isnan(truth))
    if len(answered) < len(truth):
        probability, truth = probability[answered], truth[answered]
        weight = None if weight is None else weight[:, answered]
    areas = (("auroc", auroc), ("auprc", average_precision))
    return {f"{name} {at}": area(probability, truth == 1, weight) for name, area in areas}


def _overall(
    endpoint: Endpoint, areas: list[Floats], shares: Floats, label: NDArray[np.int64], weight: Floats | None
) -> Scores:
    calls, classes = endpoint.call_classes(shares), len(endpoint.classes)
    scores = {"balanced_accuracy": balanced_accuracy(calls, label, classes, weight)}
    if endpoint.ordered:  # its questions are boundaries, not classes
        kappa = quadratic_kappa(calls, label, classes, weight)
        return scores | {"macro_auroc": macro_auroc(shares, label, weight), "quadratic_kappa": kappa}
    return scores if _is_binary(endpoint) else scores | {"macro_auroc": np.asarray(np.mean(areas, axis=0))}


def _question(
    evaluation: Evaluation, folds: list[Fold], at: int, question: Question, scored: dict[str, Estimate]
) -> QuestionAreas:
    truth = question.truth(evaluation.reported)
    counts = {"n": int((~np.isnan(truth)).sum()), "positives": int((truth == 1).sum())}
    return QuestionAreas(
        name=question.name,
        n=counts["n"],
        positives=counts["positives"],
        prevalence=proportion(counts["positives"], counts["n"]).value,
        auroc=scored[f"auroc {at}"].with_counts(counts).explained(_REASON),
        auroc_delong=_delong(folds, at).estimate(counts),
        auprc=scored[f"auprc {at}"].with_counts(counts).explained(_REASON),
    )


def _delong(folds: list[Fold], at: int) -> delong.Area:
    areas, names = [], []
    for fold in folds:
        truth = fold.target[:, at].numpy()
        answered = ~np.isnan(truth)
        areas.append(delong.area(fold.logits[:, at].numpy()[answered], truth[answered] == 1))
        names.append(np.asarray(fold.patients)[answered])
    return delong.mean(areas, names)


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
