"""Learners, risk groups and calls compared."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from coverage_studies.simulated import PREVALENCE, RESAMPLES, Floats, Truths, evaluated, holds, predictions
from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.report.evaluation import Evaluation
from mil.report.paired_difference import paired_differences, shown_sign
from mil.report.sections.added_value import AddedValue
from mil.report.sections.groups import RiskGroups
from mil.runs.leaderboard import Entry, against_best
from mil.study.tool import Tool


def learners(
    rng: np.random.Generator, n: int, folds: int, count: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], Floats]:
    """Return labels `(n,)`, folds and logits `(count, n)` of equally good learners.

    Each is a linear discriminant on ten features of its own, trained on the patients of the other folds. A hold-out is
    about trained models: they are equal there, with scores that are correlated by one half.
    """
    label = rng.permutation(np.arange(n) < round(PREVALENCE * n))
    if folds == 1:
        shared = rng.normal(size=n)
        logits = 1.2 * label + (shared + rng.normal(size=(count, n))) / 2**0.5
        return label, np.zeros(n, np.int64), logits
    fold = predictions(rng, folds, {}, label.astype(np.int64))["fold"].to_numpy()
    features = rng.normal(size=(count, n, 10)) + 0.38 * label[:, None]
    logits = np.zeros((count, n))
    for each in range(folds):
        train, test = fold != each, fold == each
        for learner in range(count):
            x, y = features[learner, train], label[train]
            difference = x[y].mean(0) - x[~y].mean(0)
            centred = np.concatenate([x[y] - x[y].mean(0), x[~y] - x[~y].mean(0)])
            direction = np.linalg.solve(centred.T @ centred / len(centred) + 0.1 * np.eye(10), difference)
            logits[learner, test] = features[learner, test] @ direction
    return label, fold, logits


def comparisons(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Two equal learners, and the leader of five."""
    label, fold, logits = learners(rng, n, folds, 5)
    names = [f"{at:05}" for at in range(n)]
    base = pd.DataFrame({"patient": names, "fold": fold, "role": "report", "label": label.astype(int)})
    evaluations = [evaluated(base.assign(p_1=expit(each)), Binary()) for each in logits]
    difference = paired_differences(evaluations[0], evaluations[1].folds)["auroc"]
    leader = against_best([Entry(str(at), each) for at, each in enumerate(evaluations)])
    return {
        "two equal learners: wrongly called different": None if difference.p is None else shown_sign(difference) != 0,
        "two equal learners: difference of AUROC": holds(difference, 0.0),
        "leader of five equal learners: wrongly called better": None
        if leader[0].p is None
        else any(" is better than " in each.verdict for each in leader),
    }


def hazards(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Two equal learners of survival, trained anew in each fold, and groups of a risk that says nothing."""
    hazard = rng.normal(size=n)
    death, leaving = rng.exponential(50 * np.exp(-hazard)), rng.uniform(5, 120, n)
    time, event = np.minimum(death, leaving), (death <= leaving).astype(int)
    table = predictions(rng, folds, {"time": time, "event": event, "log_hazard": 0.0}, event.astype(np.int64))
    scores = []
    for _ in range(2):
        features = hazard[:, None] + 3 * rng.normal(size=(n, 10))
        score = features.mean(1)
        for each in range(folds if folds > 1 else 0):
            train = (table["fold"] != each).to_numpy()
            direction = features[train].T @ (event[train] - time[train] / time[train].mean() * event[train].mean())
            score[~train] = features[~train] @ direction / np.linalg.norm(direction)
        scores.append(score)
    evaluations = [evaluated(table.assign(log_hazard=score), Cox()) for score in scores]
    difference = paired_differences(evaluations[0], evaluations[1].folds)["c_index"]
    useless = table.assign(log_hazard=rng.normal(size=n))
    trained = useless.assign(role="train", patient=[f"t{at}" for at in range(n)], log_hazard=rng.normal(size=n))
    both = pd.concat([useless, trained], ignore_index=True)
    groups = RiskGroups.compute(Evaluation.refitted(both, Cox(), Tool(), None, RESAMPLES))
    ratios = () if groups is None else groups.hazard_ratios
    means = None if groups is None else groups.restricted_mean
    proportional = None if groups is None or not groups.proportional_hazards_p else groups.proportional_hazards_p
    return {
        "two equal learners: difference of C-index": holds(difference, 0.0),
        "two equal learners of survival: wrongly called different": None
        if difference.p is None
        else shown_sign(difference) != 0,
        "risk groups: log-rank wrongly below 0.05": None
        if groups is None or groups.log_rank_p is None
        else groups.log_rank_p < 0.05,
        "risk groups: hazard ratio": holds(ratios[0].estimate, 1.0) if ratios else None,
        "risk groups: difference of restricted means": None
        if means is None
        else holds(means.differences[0].estimate, 0.0),
        "risk groups: proportional hazards wrongly below 0.05": None
        if proportional is None
        else min(proportional.values()) < 0.05,
    }


def added(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """A score that adds nothing to the age, in logistic regression and in Cox's model."""
    age = rng.normal(60, 10, n)
    label = rng.random(n) < expit((age - 60) / 10 - 0.8)
    score = 0.5 * (age - 60) / 10 + rng.normal(size=n)
    tool = Tool.parse({"clinical": {"numeric": ["age"], "categorical": []}})
    table = predictions(rng, folds, {"label": label.astype(int), "p_1": expit(score)}, label.astype(np.int64))
    patients = pd.DataFrame({"age": age.astype(str)}, index=table["patient"])
    rows = _added("logistic regression", Evaluation.of(table, Binary(), tool, patients, RESAMPLES))
    death, leaving = rng.exponential(50 * np.exp(-(age - 60) / 10)), rng.uniform(5, 120, n)
    event = (death <= leaving).astype(int)
    columns = {"time": np.minimum(death, leaving), "event": event, "log_hazard": score}
    table = predictions(rng, folds, columns, event.astype(np.int64))
    return rows | _added("Cox's model", Evaluation.of(table, Cox(), tool, patients, RESAMPLES))


def _added(model: str, evaluation: Evaluation) -> Truths:
    section = AddedValue.compute(evaluation)
    assert section is not None
    p = section.likelihood_ratio.p
    return {
        f"added value, {model}: likelihood ratio wrongly below 0.05": None if p is None else p < 0.05,
        f"added value, {model}: ratio of the score": holds(section.score.adjusted, 1.0),
    }
