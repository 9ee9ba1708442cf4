"""How well a classifier tells classes apart, whatever cut is chosen later, and how often its likeliest class is right.

Areas, balanced accuracy and kappa are computed within folds and averaged; calls are pooled over folds, one row a
patient, and counted.
"""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from mil.endpoints.classification import Binary, Classes
from mil.endpoints.endpoint import Endpoint, Scores
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.question import Question
from mil.endpoints.regression import Regression
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import Confusion, Estimate, Model, Number, Section
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


_MEANS = ("macro_auroc", "balanced_accuracy", "quadratic_kappa")


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Of classes: areas of each question, and what the called classes are worth; of a number: agreement.

    None for survival, which has a section of its own. A patient's class is called by the largest probability, a grade
    by the median of its probabilities, as the endpoint's own kappa has it; `called` says which.
    """
    endpoint = evaluation.endpoint
    if isinstance(endpoint, Regression):
        return agreement(evaluation)
    if not evaluation.questions:
        return None
    folds = folds_of(evaluation)
    scored = intervals(score_of(endpoint, len(evaluation.questions)), folds, evaluation.resamples, evaluation.seed)
    found: dict[str, Any] = {
        "questions": [_question(evaluation, folds, at, one, scored) for at, one in enumerate(evaluation.questions)]
    }
    found |= {name: _number(scored[name], len(evaluation.reported)) for name in _MEANS if name in scored}
    return found | _calls(evaluation.reported, endpoint) if isinstance(endpoint, Classes) else found


def folds_of(evaluation: Evaluation) -> list[Fold]:
    """What each fold reports as numbers: probability of each question, then of each class; truth of each, then class.

    Logits are `(p, q + c)` and targets `(p, q + 1)`; labels that do not exclude each other have no classes.
    """
    folds = []
    for fold, (_, rows) in zip(evaluation.folds, rows_of(evaluation.table, "report"), strict=True):
        table = rows.set_index("patient")
        columns = [one.probability(table) for one in evaluation.questions]
        truth = [one.truth(table) for one in evaluation.questions]
        if isinstance(evaluation.endpoint, Classes):
            columns += list(_shares(table, evaluation.endpoint).T)
            truth.append(evaluation.endpoint.labels(table).astype(np.float64))
        logits, target = (torch.from_numpy(np.stack(found, axis=1)) for found in (columns, truth))
        folds.append(fold._replace(logits=logits, target=target))
    return folds


def score_of(endpoint: Endpoint, questions: int) -> Score:
    """Every metric of `folds_of`: `auroc` and `auprc` with the question's place, and those over all classes."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> Scores:
        values, truth = logits.numpy(), target.numpy()
        found: Scores = {}
        for at in range(questions):
            found |= _areas(at, values[:, at], truth[:, at], weight)
        own = [found[f"auroc {at}"] for at in range(questions)]
        if isinstance(endpoint, Classes):
            return found | _overall(endpoint, own, values[:, questions:], truth[:, questions].astype(np.int64), weight)
        return found | {"macro_auroc": np.asarray(np.mean(own, axis=0))}

    return score


def called_by(endpoint: Classes) -> str:
    """How `called` decides, in words."""
    if isinstance(endpoint, Binary):
        return "probability above 0.5"
    return "median grade" if isinstance(endpoint, Ordinal) else "likeliest class"


def called(endpoint: Classes, shares: Floats) -> NDArray[np.int64]:
    """The class of each patient, `(p,)`, from the probabilities of all `(p, c)`."""
    if isinstance(endpoint, Ordinal):
        above = np.cumsum(shares[:, ::-1], axis=1)[:, -2::-1]  # (p, c - 1)
        return np.asarray((above > 0.5).sum(1), dtype=np.int64)
    return np.asarray(shares.argmax(1), dtype=np.int64)


def _areas(at: int, probability: Floats, truth: Floats, weight: Floats | None) -> Scores:
    known = np.flatnonzero(~np.isnan(truth))
    if len(known) < len(truth):
        probability, truth = probability[known], truth[known]
        weight = None if weight is None else weight[:, known]
    areas = (("auroc", auroc), ("auprc", average_precision))
    return {f"{name} {at}": area(probability, truth == 1, weight) for name, area in areas}


def _overall(
    endpoint: Classes, areas: list[Floats], shares: Floats, label: NDArray[np.int64], weight: Floats | None
) -> Scores:
    calls, classes = called(endpoint, shares), len(endpoint.classes)
    found = {"balanced_accuracy": balanced_accuracy(calls, label, classes, weight)}
    if isinstance(endpoint, Ordinal):  # its questions are boundaries, not classes
        kappa = quadratic_kappa(calls, label, classes, weight)
        return found | {"macro_auroc": macro_auroc(shares, label, weight), "quadratic_kappa": kappa}
    return found if isinstance(endpoint, Binary) else found | {"macro_auroc": np.asarray(np.mean(areas, axis=0))}


def _question(
    evaluation: Evaluation, folds: list[Fold], at: int, question: Question, scored: dict[str, Estimate]
) -> dict[str, Any]:
    truth = question.truth(evaluation.reported)
    counts = {"n": int((~np.isnan(truth)).sum()), "positives": int((truth == 1).sum())}
    prevalence = proportion(counts["positives"], counts["n"])
    return {
        "name": question.name,
        **counts,
        "prevalence": prevalence.value,
        "auroc": _number(scored[f"auroc {at}"], **counts),
        "auroc_delong": as_dict(_delong(folds, at).estimate(counts)),
        "auprc": _number(scored[f"auprc {at}"], **counts) | {"prevalence": prevalence.value},
    }


def _delong(folds: list[Fold], at: int) -> delong.Area:
    areas, names = [], []
    for fold in folds:
        truth = fold.target[:, at].numpy()
        known = ~np.isnan(truth)
        areas.append(delong.area(fold.logits[:, at].numpy()[known], truth[known] == 1))
        names.append(np.asarray(fold.patients)[known])
    return delong.mean(areas, names)


def _calls(reported: pd.DataFrame, endpoint: Classes) -> dict[str, Any]:
    """Shares of right calls with Wilson's interval; two classes have no table here, as one half is nobody's cut."""
    label, calls = endpoint.labels(reported), called(endpoint, _shares(reported, endpoint))
    amount = len(endpoint.classes)
    counts = np.bincount(label * amount + calls, minlength=amount**2).reshape(amount, amount)  # true, called
    found = {"called": called_by(endpoint), "accuracy": as_dict(proportion(int(np.trace(counts)), len(label)))}
    if isinstance(endpoint, Binary):
        return found
    classes = [
        {
            "name": name,
            "n": int(counts[at].sum()),
            "recall": as_dict(proportion(int(counts[at, at]), int(counts[at].sum()))),
            "precision": as_dict(proportion(int(counts[at, at]), int(counts[:, at].sum()))),
        }
        for at, name in enumerate(endpoint.classes)
    ]
    return found | {"classes": classes, "confusion": {"classes": list(endpoint.classes), "rows": counts.tolist()}}


def _shares(table: pd.DataFrame, endpoint: Classes) -> Floats:
    """Probability of each class, `(p, c)`."""
    if isinstance(endpoint, Binary):
        positive = table[f"p_{endpoint.positive}"].to_numpy(np.float64)
        return np.stack([1 - positive, positive], axis=1)
    return table[[f"p_{name}" for name in endpoint.classes]].to_numpy(np.float64)


def _number(interval: Estimate, n: int, **counts: int) -> dict[str, Any]:
    found = as_dict(interval) | {"n": n} | counts
    if interval.value is not None:
        return found
    return found | dict.fromkeys(("value", "low", "high")) | {"reason": _REASON}
