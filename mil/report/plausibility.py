"""Warnings about predictions that are probably a mistake of the table: turned round, or on another scale.

A model may rank patients worse than chance, and its probabilities may be far from the observed frequencies. Much more
often the positive label, the sign of the score or its scale was mistaken.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from mil.report.evaluation import Evaluation
from mil.report.schema import PredictionWarning, Section
from mil.report.sections.discrimination import Discrimination
from mil.report.sections.horizon import risk_columns
from mil.stats.estimate import Estimate, format_number
from mil.stats.observed_risk import reaches, risk_at
from mil.stats.proportions import proportion

CHANCE = 0.5
"""AUROC and C-index of scores that have nothing to do with the outcome."""
MAGNITUDE = 10.0
"""How many times as large predicted or observed frequencies must be."""
_CORRELATION = "pearson"


def find_warnings(
    evaluation: Evaluation, metrics: Mapping[str, Estimate], sections: Mapping[str, Section]
) -> Iterator[PredictionWarning]:
    """Yield what is implausible about the predictions of a report.

    Args:
        evaluation: The predictions.
        metrics: Of the endpoint.
        sections: By key.
    """
    yield from _inverse(evaluation, metrics, sections)
    yield from _frequencies(evaluation)


def scale_warning(column: str, score: "pd.Series[float]") -> PredictionWarning:
    """Return the warning about a column of scores that are not probabilities and are used as ranks."""
    sentence = (
        f"The scores of {column} run from {score.min():.4g} to {score.max():.4g} and are not "
        f"probabilities{scale(score)}. Only their ranks are used: no calibration and no net benefit is reported."
    )
    return PredictionWarning(code="scale", about=column, sentence=sentence)


def scale(score: "pd.Series[float]") -> str:
    """Return what numbers that are no probabilities seem to be, as the end of a sentence; empty if nothing is clear."""
    if score.between(0, 100).all():
        return "; they look like percentages, which divided by 100 are probabilities"
    if (score < 0).any():
        return "; they look like logits, of which 1 / (1 + exp(-score)) is the probability"
    return ""


def _inverse(
    evaluation: Evaluation, metrics: Mapping[str, Estimate], sections: Mapping[str, Section]
) -> Iterator[PredictionWarning]:
    endpoint, areas = evaluation.endpoint, sections.get(Discrimination.key)
    if isinstance(areas, Discrimination):
        for question, area in zip(evaluation.questions, areas.questions, strict=False):
            if _below(area.auroc, CHANCE):
                sentence = (
                    f"AUROC {area.auroc} of {question.positive}: all of the interval lies below 0.5, so that the score "
                    f"rises with {question.negative}. Check which label is the positive one and the sign of the score."
                )
                yield PredictionWarning(code="inverse", about=question.name, sentence=sentence)
    ranked = metrics.get(endpoint.metric)
    if endpoint.survival is not None and ranked is not None and _below(ranked, CHANCE):
        sentence = (
            f"C-index {ranked}: all of the interval lies below 0.5, so that the score falls as the risk rises, as a "
            "predicted survival time does. Check the sign of the score and which code is an event."
        )
        yield PredictionWarning(code="inverse", about=endpoint.metric, sentence=sentence)
    correlation = metrics.get(_CORRELATION)
    if endpoint.value_column is not None and correlation is not None and _below(correlation, 0.0):
        sentence = (
            f"Correlation {correlation}: all of the interval lies below 0, so that predicted values fall as true ones "
            "rise. Check the sign of the predicted values."
        )
        yield PredictionWarning(code="inverse", about=_CORRELATION, sentence=sentence)


def _below(estimate: Estimate, chance: float) -> bool:
    return estimate.value is not None and estimate.high is not None and estimate.high < chance


def _frequencies(evaluation: Evaluation) -> Iterator[PredictionWarning]:
    reported = evaluation.reported
    for question in evaluation.questions:
        truth, probability = question.truth(reported), question.probability(reported)
        stated = np.isfinite(truth)
        if stated.any():
            observed = proportion(int(truth[stated].sum()), int(stated.sum()))
            what = f"probability of {question.positive}"
            yield from _frequency(question.name, what, float(probability[stated].mean()), observed)
    view = evaluation.endpoint.survival
    if view is None:
        return
    time, code = view.event_times(evaluation.endpoint.encode(reported)).numpy().T
    for horizon, column in risk_columns(evaluation, view).items():
        at = view.horizons[horizon]
        if reaches(time, code, at):
            predicted, observed = float(reported[column].mean()), risk_at(time, code, at)
            yield from _frequency(column, f"risk at {at:g} {view.unit}", predicted, observed)


def _frequency(about: str, what: str, predicted: float, observed: Estimate) -> Iterator[PredictionWarning]:
    """Yield a warning where yes or no is predicted ten times as often or as rarely as it is observed.

    A predicted mean within the interval of the observed share, the exact one where there are two, is no reason for a
    warning: one event among many patients may be chance.
    """
    share, n, bounds = observed.value, observed.n, observed.second or observed
    if share is None or bounds.low is None or bounds.high is None or not n:
        return
    if bounds.low <= predicted <= bounds.high:
        return
    least = 0.5 / n
    ratio = max(
        max(x, least) / max(y, least)
        for x, y in ((predicted, share), (share, predicted), (1 - predicted, 1 - share), (1 - share, 1 - predicted))
    )
    if ratio >= MAGNITUDE:
        sentence = (
            f"The mean predicted {what} is {format_number(predicted)}, the observed one {observed.described}: they "
            "differ by a factor of ten or more. Check whether the numbers are of another class, time or scale, or of a "
            "population with another frequency."
        )
        yield PredictionWarning(code="frequency", about=about, sentence=sentence)
