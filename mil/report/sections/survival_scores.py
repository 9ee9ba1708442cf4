"""Concordance, areas and Brier scores of risks.

Ranks are compared within folds and averaged over them. The losses of Brier scores are pooled over folds, since a mean
of ratios over folds is another number than the ratio of all patients. Weights by the inverse probability of censoring,
and the curve that a model has to beat, come from each fold's training patients; where a fold has none, from its
reported ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.survival_view import SurvivalView
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import Estimate
from mil.stats.bootstrap import Fold, Score
from mil.stats.bootstrap_intervals import intervals
from mil.stats.censoring import Censoring
from mil.stats.observed_risk import incidence_at
from mil.stats.survival_metrics import brier_losses, cumulative_dynamic_auc, mean_loss, uno_c
from mil.stats.weights import Floats, as_given, as_rows, ratio

FEWEST = 3
"""Horizons below which no Brier score is integrated."""
MODEL, NULL, SCALED = "model", "kaplan_meier", "scaled"
"""Brier scores: of the model, of the training patients' Kaplan-Meier curve, and 1 minus their ratio: the index of
prediction accuracy of Kattan and Gerds, Diagnostic and Prognostic Research 2, 2018."""
_UNDEFINED = (
    "the time lies beyond the follow-up of these patients or of those who set the weights, "
    "or no fold has patients with and without the event by then"
)


_ENOUGH, _ENOUGH_IN_FOLDS, _TRAINED = 300, 100, 4
NARROW = f"too narrow below {_ENOUGH} patients"
WEIGHTS = "too narrow: the censoring weights of the training patients count as known"


@dataclass(frozen=True)
class Measures:
    """What is measured in every fold, about one cause."""

    view: SurvivalView
    times: Mapping[str, float]
    """by name, rising"""
    risks: Mapping[str, str]
    """by horizon, rising: the column of the risk"""
    tau: float
    rank: str
    """the column that orders patients"""
    cause: int = 1
    """code of the event that is measured"""

    @property
    def scores(self) -> list[str]:
        """The columns that a fold's logits are made of."""
        return [self.rank, *self.risks.values()]

    @property
    def moments(self) -> Floats:
        """Times of the horizons, `(h,)`."""
        return np.array([self.view.horizons[name] for name in self.risks])

    @property
    def brier_names(self) -> frozenset[str]:
        """Keys of all Brier scores, at each horizon and over them."""
        scores = [f"brier_{name}" for name in self.risks] + ["integrated"] * (len(self.risks) >= FEWEST)
        return frozenset(f"{score}_{kind}" for score in scores for kind in (MODEL, NULL, SCALED))

    def score_at(self, name: str) -> str:
        """Return the column that orders patients at a time: the risk where that time is a horizon."""
        return self.risks.get(name, self.rank)

    def event_times(self, target: Tensor) -> Tensor:
        """Return time and code, 0 for censored, 1 for the event in question, 2 for another one, `(p, 2)`."""
        code = target[:, 1].clone()
        code[target[:, 1] > 0] = 2
        code[target[:, 1] == self.cause] = 1
        return torch.stack([target[:, 0], code], 1).double()


@dataclass(frozen=True)
class Reference:
    """What a fold's metrics are measured against."""

    censoring: Censoring
    null: Floats
    """at each horizon the chance to be without the event, the same for all patients, `(h,)`"""
    site: NDArray[np.intp] | None
    """of the reported patients, -1 where it is not known, `(p,)`"""


def measure(evaluation: Evaluation, measures: Measures, counts: Mapping[str, int]) -> dict[str, Estimate]:
    """Return every metric of a cause by its key.

    Keys: `c_index`, `uno_c`, `within_site`, `auc_<time>`, and `brier_<horizon>_<kind>` and `integrated_<kind>` for
    each kind of `MODEL`, `NULL` and `SCALED`.
    """
    by_role = (rows_of(evaluation.table, role) for role in ("report", "train"))
    references = [
        _reference(evaluation, measures, reported, train) for (_, reported), (_, train) in zip(*by_role, strict=True)
    ]
    folds = _folds(evaluation, measures)
    metrics = intervals(_ranks(measures, references), folds, evaluation.resamples, evaluation.seed, counts=counts)
    if measures.risks:
        score = _brier(measures, references)
        pooled = [fold._replace(pooled=measures.brier_names) for fold in folds]
        metrics |= intervals(score, pooled, evaluation.resamples, evaluation.seed, counts=counts)
    explained = {name: metric.explained(_UNDEFINED) for name, metric in metrics.items()}
    return {name: metric.with_caveat(_caveat(evaluation, measures, name)) for name, metric in explained.items()}


def _caveat(evaluation: Evaluation, measures: Measures, name: str) -> str | None:
    """Return what is wrong with the interval of a metric, as docs/coverage.md measured it; None where it holds.

    In a hold-out, the error of weights from fewer than four times as many training patients is as large as that of
    the score, and resampling the reported patients does not show it. Over folds there are four times as many.
    """
    reported, train = (len(rows) for rows in _sides(evaluation))
    hold_out, few = len(evaluation.folds) == 1, len(evaluation.reported) < _ENOUGH
    if name.endswith(f"_{SCALED}"):
        return NARROW if few else None
    if name in measures.brier_names:
        return WEIGHTS if hold_out and 0 < train < _TRAINED * reported else None
    competing = bool(measures.view.causes) and name in ("c_index", "uno_c")
    if competing and len(evaluation.reported) < _ENOUGH_IN_FOLDS:
        return NARROW
    return NARROW if hold_out and few and (competing or name.startswith("auc_")) else None


def _sides(evaluation: Evaluation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the reported and the training rows of all folds."""
    table = evaluation.table
    return table[table["role"] == "report"], table[table["role"] == "train"]


def _reference(evaluation: Evaluation, measures: Measures, reported: pd.DataFrame, train: pd.DataFrame) -> Reference:
    source = train if len(train) else reported
    time, code = measures.event_times(evaluation.endpoint.encode(source.set_index("patient"))).numpy().T
    null = np.array([1 - float(incidence_at(time, code, at)) for at in measures.moments])
    patients, site = evaluation.patients, None
    if patients is not None and "site" in patients:
        names = patients["site"].reindex(reported["patient"])
        site = pd.factorize(names.where(names.astype(str).str.strip() != ""))[0]
    return Reference(Censoring.fit(time, code), null, site)


def _folds(evaluation: Evaluation, measures: Measures) -> list[Fold]:
    """Return folds with scores and the fold's index as logits, `(p, s + 1)`; the index finds the fold's reference."""
    folds = list[Fold]()
    for fold, (_, rows) in zip(evaluation.folds, rows_of(evaluation.table, "report"), strict=True):
        scores = rows[measures.scores].assign(place=len(folds)).to_numpy(np.float64)
        folds.append(fold._replace(logits=torch.from_numpy(scores), target=measures.event_times(fold.target)))
    return folds


def _ranks(measures: Measures, references: Sequence[Reference]) -> Score:
    """Return the metrics of order in one fold, for `intervals`."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        values, (time, code) = logits.numpy(), target.numpy().T
        reference = references[int(values[0, -1])]
        scores = dict(zip(measures.scores, values.T, strict=False))
        risk, censoring = scores[measures.rank], reference.censoring
        metrics = {"c_index": measures.view.concordance(risk, time, code, weight)}
        metrics["uno_c"] = uno_c(risk, time, code, measures.tau, censoring, weight)
        for name, at in measures.times.items():
            ordering = scores[measures.score_at(name)]
            metrics[f"auc_{name}"] = cumulative_dynamic_auc(ordering, time, code, at, censoring, weight)
        if reference.site is not None:
            metrics["within_site"] = within(risk, time, code, reference.site, weight)
        return metrics

    return score


def _brier(measures: Measures, references: Sequence[Reference]) -> Score:
    """Return Brier scores of the model and of the same curve for everybody, at each horizon and over them.

    The patients may be of one fold or of several, each with the weights and the curve of its own fold.
    """
    moments = measures.moments

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        values, (time, code) = logits.numpy(), target.numpy().T
        place, first = values[:, -1].astype(np.intp), measures.scores.index(next(iter(measures.risks.values())))
        predicted = 1 - values[:, first : first + len(moments)]  # (p, h)
        null, metrics = np.stack([reference.null for reference in references])[place], dict[str, Floats]()
        for kind, survival in ((MODEL, predicted), (NULL, null)):
            losses = np.empty(survival.shape)
            for number in np.unique(place):
                of_fold = place == number
                parts = survival[of_fold], time[of_fold], code[of_fold]
                losses[of_fold] = brier_losses(*parts, moments, references[number].censoring)
            for index, name in enumerate(measures.risks):
                metrics[f"brier_{name}_{kind}"] = mean_loss(losses[:, index], time, code, moments[index], weight)
            if len(moments) >= FEWEST:
                integral = np.trapezoid(losses, moments, axis=1) / (moments[-1] - moments[0])
                metrics[f"integrated_{kind}"] = mean_loss(integral, time, code, moments[-1], weight)
        for name in [key.removesuffix(f"_{NULL}") for key in metrics if key.endswith(NULL)]:
            metrics[f"{name}_{SCALED}"] = 1 - ratio(metrics[f"{name}_{MODEL}"], metrics[f"{name}_{NULL}"])
        return metrics

    return score


def within(risk: Floats, time: Floats, code: Floats, stratum: NDArray[np.intp], weight: Floats | None = None) -> Floats:
    """Return Harrell's C of pairs from one stratum, all strata together, `()` or `(r,)`.

    A model that only knows the site has 1/2. Patients of stratum -1 are left out; patients with a competing event
    count as event-free for ever.
    """
    rows = as_rows(weight, len(risk))
    ends, event = np.where(code > 1, np.inf, time), code == 1
    won, pairs = np.zeros(len(rows)), np.zeros(len(rows))
    for number in np.unique(stratum[stratum >= 0]):
        members = np.flatnonzero(stratum == number)
        seen = members[event[members]]
        tied = ends[members] == ends[seen, None]
        outlived = (ends[members] > ends[seen, None]) | (tied & ~event[members])  # (e, s)
        better = (risk[members] < risk[seen, None]) + 0.5 * (risk[members] == risk[seen, None])
        pairs += np.einsum("re,re->r", rows[:, seen], rows[:, members] @ outlived.T)
        won += np.einsum("re,re->r", rows[:, seen], rows[:, members] @ (outlived * better).T)
    return as_given(ratio(won, pairs), weight)
