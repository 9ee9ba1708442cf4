"""Areas under curves, agreement of grades, and the interval for the method."""

from functools import cache

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from scipy.stats import norm

from coverage_studies.compared import learners
from coverage_studies.simulated import PREVALENCE, SHIFT, Truths, evaluated, holds, predictions
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.ordinal import Ordinal
from mil.report.metric_intervals import metric_intervals
from mil.report.sections.discrimination import Discrimination
from mil.stats import quadratic_kappa


def classification(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Areas, average precision and calls of one question, at an easy and at a hard one."""
    truths: Truths = {}
    for gap in (1.2, 2.8):
        label = rng.permutation(np.arange(n) < round(PREVALENCE * n))
        ratio = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2 + np.log(PREVALENCE / (1 - PREVALENCE))
        table = predictions(rng, folds, {"label": label.astype(int)}, label.astype(np.int64))
        shifts = rng.normal(0, SHIFT, folds) if folds > 1 else np.zeros(1)
        section = Discrimination.compute(evaluated(table.assign(p_1=expit(ratio + shifts[table["fold"]])), Binary()))
        assert section is not None
        [question], area = section.questions, norm.cdf(gap / 2**0.5)
        name = f"AUROC {area:.3f}"
        truths[f"{name}: AUROC"] = holds(question.auroc, float(area))
        truths[f"{name}: average precision"] = holds(question.auprc, average_precision_of(gap))
        at_half = -np.log(PREVALENCE / (1 - PREVALENCE))
        rates = [
            (norm.cdf((gap**2 / 2 + s - at_half) / gap), norm.cdf((gap**2 / 2 - s + at_half) / gap)) for s in shifts
        ]
        balanced = float(np.mean(rates))
        truths[f"{name}: balanced accuracy"] = holds(section.balanced_accuracy, balanced)
        accuracy = float(np.mean([PREVALENCE * hit + (1 - PREVALENCE) * cleared for hit, cleared in rates]))
        truths[f"{name}: accuracy"] = holds(section.accuracy, accuracy)
    return truths


@cache
def average_precision_of(gap: float) -> float:
    """Return the area under the precision-recall curve of normal scores."""
    cut = np.linspace(-10, 10 + gap, 200_001)
    hit, false = norm.sf(cut - gap), norm.sf(cut)
    precision = PREVALENCE * hit / np.maximum(PREVALENCE * hit + (1 - PREVALENCE) * false, 1e-300)
    return float(-np.sum(precision[:-1] * np.diff(hit)))


def grades(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Macro AUROC of three classes, and quadratic kappa of four grades."""
    label = rng.integers(0, 3, n)
    logits = 1.5 * np.eye(3)[label] + rng.normal(size=(n, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns = {"label": np.array(list("abc"))[label], **{f"p_{c}": shares[:, at] for at, c in enumerate("abc")}}
    classes = evaluated(predictions(rng, folds, columns, label), Multiclass(classes=("a", "b", "c")))
    grade, expected = rng.integers(0, 4, n), None
    expected = np.clip(grade + rng.normal(0, 0.8, n), 0, 3)
    spread = np.exp(-((np.arange(4) - expected[:, None]) ** 2))
    spread /= spread.sum(1, keepdims=True)
    columns = {"label": np.array(list("0123"))[grade], **{f"p_{g}": spread[:, at] for at, g in enumerate("0123")}}
    ordered = evaluated(predictions(rng, folds, columns, grade), Ordinal("label", ("0", "1", "2", "3")))
    section = Discrimination.compute(ordered)
    assert section is not None
    return {
        "three classes: macro AUROC": holds(metric_intervals(classes)["macro_auroc"], macro_of_three()),
        "four grades: quadratic kappa": holds(section.quadratic_kappa, kappa_of_four()),
    }


@cache
def macro_of_three() -> float:
    """Return the true macro AUROC of the three classes."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300_000)
    logits = torch.from_numpy(1.5 * np.eye(3)[label] + rng.normal(size=(300_000, 3)))
    return float(Multiclass(classes=("a", "b", "c")).score(logits, torch.from_numpy(label))["macro_auroc"])


@cache
def kappa_of_four() -> float:
    """Return the true kappa of the four grades, called by their median."""
    rng = np.random.default_rng(0)
    grade = rng.integers(0, 4, 300_000)
    expected = np.clip(grade + rng.normal(0, 0.8, len(grade)), 0, 3)
    spread = np.exp(-((np.arange(4) - expected[:, None]) ** 2))
    calls = Ordinal("label", ("0", "1", "2", "3")).call_classes(spread / spread.sum(1, keepdims=True))
    return float(quadratic_kappa(calls, grade, 4))


def method(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """The interval for the method of a single AUROC: it holds what models trained on other patients have on average."""
    label, fold, logits = learners(rng, n, folds, 1)
    names = [f"{at:05}" for at in range(n)]
    table = pd.DataFrame({"patient": names, "fold": fold, "role": "report", "label": label.astype(int)})
    estimate = metric_intervals(evaluated(table.assign(p_1=expit(logits[0])), Binary()))["auroc"]
    second = estimate.second
    truth = true_of_method(n)
    held = None if second is None or second.low is None or second.high is None else second.low <= truth <= second.high
    return {"AUROC of a method: its interval for the method": held}


@cache
def true_of_method(n: int) -> float:
    """Return the AUROC of linear discriminants trained on four fifths of n patients, on average."""
    rng, areas = np.random.default_rng(0), []
    for _ in range(400):
        y = np.arange(round(0.8 * n)) < round(PREVALENCE * 0.8 * n)
        x = rng.normal(size=(len(y), 10)) + 0.38 * y[:, None]
        centred = np.concatenate([x[y] - x[y].mean(0), x[~y] - x[~y].mean(0)])
        direction = np.linalg.solve(centred.T @ centred / len(centred) + 0.1 * np.eye(10), x[y].mean(0) - x[~y].mean(0))
        areas.append(norm.cdf(0.38 * direction.sum() / np.linalg.norm(direction) / 2**0.5))
    return float(np.mean(areas))
