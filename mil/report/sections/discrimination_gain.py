"""How much better models of clinical variables order patients with the score than without it.

The models are fitted before the reported patients are seen: covariates on each fold's training patients, covariates and
score together on its select patients, whose scores did not train the weights; refitted ones would flatter.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.report.evaluation import Evaluation
from mil.report.paired_difference import judged
from mil.report.predictions import fold_name, rows_of
from mil.report.schema import Estimate, Model
from mil.report.sections.clinical import Clinical
from mil.report.verdict_minimum import shortage
from mil.stats import cox_regression, odds_ratios
from mil.stats.bootstrap import Score
from mil.stats.bootstrap_intervals import intervals
from mil.stats.classification_metrics import auroc
from mil.stats.cox_regression import NotEstimableError
from mil.stats.weights import Floats

SCORE, CLINICAL = "score_", "clinical_"
"""Columns of the designs; the underscore keeps them apart from clinical columns."""
DIFFERENCES = ("both_minus_clinical", "score_minus_clinical")
FEWEST = 10
"""Events, and for classes as many without, among the select patients of a model with two coefficients."""


class FoldModels(Model):
    """Whom the models of one fold were fitted to, or the reason why there are none."""

    fold: int | str
    clinical_on: str | None = None
    clinical_n: int | None = None
    both_on: str | None = None
    both_n: int | None = None
    reason: str | None = None


class DiscriminationGain(Model):
    """The metric of models of covariates, of the score, and of both, and its paired differences."""

    metric: str
    fitted: tuple[FoldModels, ...]
    clinical: Estimate = Field(title="Clinical variables")
    score: Estimate
    both: Estimate
    both_minus_clinical: Estimate
    score_minus_clinical: Estimate


@dataclass(frozen=True)
class Outcome:
    """How patients fared: when and whether they had the event, or whether they are positives."""

    event: NDArray[np.bool_]
    time: Floats | None = None

    @classmethod
    def of(cls, endpoint: Endpoint, rows: pd.DataFrame) -> "Outcome":
        """Return the outcomes of predictions; of competing events the first cause."""
        target = endpoint.encode(rows.set_index("patient"))
        if endpoint.survival is None:
            return cls(target.double().numpy() == 1)
        time, code = endpoint.survival.event_times(target).numpy().T
        return cls(code == 1, time)

    def among(self, members: NDArray[np.bool_]) -> "Outcome":
        """Return the outcomes of some of the patients."""
        return Outcome(self.event[members], None if self.time is None else self.time[members])

    @property
    def is_enough(self) -> bool:
        """Whether two coefficients can be fitted."""
        events, without = int(self.event.sum()), int((~self.event).sum())
        return (events if self.time is not None else min(events, without)) >= FEWEST

    def model(self, design: pd.DataFrame, penalty: float = 0.0) -> cox_regression.Cox | odds_ratios.Odds:
        """Return Cox's model or logistic regression.

        Raises:
            NotEstimableError: there is no finite estimate.
        """
        if self.time is None:
            return odds_ratios.fit(design, self.event, penalty)
        return cox_regression.fit(design, self.time, self.event, penalty)


def score_of(endpoint: Endpoint, rows: pd.DataFrame) -> Floats:
    """Return the number that orders patients, `(p,)`: of classes the logit."""
    if endpoint.survival is not None:
        return rows[endpoint.survival.rank_column].to_numpy(np.float64)
    return np.asarray(endpoint.recode(rows).double().numpy()[:, 0])


def discrimination_gain(evaluation: Evaluation, clinical: Clinical) -> DiscriminationGain:
    """Return the discrimination of covariates, score and both, and its paired differences.

    A fold that cannot fit its clinical model counts for none of the three.
    """
    endpoint = evaluation.endpoint
    folds, fitted = [], []
    by_role = (rows_of(evaluation.table, role) for role in ("report", "train", "select"))
    for fold, (name, rows), (_, train), (_, select) in zip(evaluation.folds, *by_role, strict=True):
        models = FoldModels(fold=fold_name(name))
        try:
            scores, fitted_on = _ranked(endpoint, clinical, rows, train, select)
            models = models.model_copy(update=fitted_on)
        except NotEstimableError as error:
            scores, models = np.full((len(rows), 3), np.nan), models.model_copy(update={"reason": str(error)})
        target = fold.target if endpoint.survival is None else endpoint.survival.event_times(fold.target)
        folds.append(fold._replace(logits=torch.from_numpy(scores), target=target))
        fitted.append(models)
    metrics = intervals(_score(endpoint), folds, evaluation.resamples, evaluation.seed, counts=evaluation.counts)
    reason, ratio = shortage(endpoint, evaluation.folds, endpoint.metric), evaluation.fold_ratio
    metrics |= {name: judged(metrics[name], ratio, reason) for name in DIFFERENCES}
    return DiscriminationGain(metric=endpoint.metric, fitted=tuple(fitted), **metrics)


def _ranked(
    endpoint: Endpoint, clinical: Clinical, rows: pd.DataFrame, train: pd.DataFrame, select: pd.DataFrame
) -> tuple[Floats, dict[str, str | int]]:
    """Return the scores of covariates, model and both for the reported patients, `(p, 3)`, and whom they are from."""
    if train.empty:
        raise NotEstimableError("there are no training patients to fit the covariates")
    scale, outcome = clinical.fit(list(train["patient"])), Outcome.of(endpoint, train)
    design = clinical.design(list(train["patient"]), scale)
    varying = design.columns[np.ptp(design.to_numpy(), axis=0) > 0]
    # the ridge of scikit-learn's C = 1, so that rare levels keep finite weights
    model = outcome.model(design[varying], penalty=1 / len(train))

    def pairs(patients: pd.DataFrame) -> pd.DataFrame:
        risk = model.risk(clinical.design(list(patients["patient"]), scale)[varying])
        return pd.DataFrame({CLINICAL: risk, SCORE: score_of(endpoint, patients)})

    is_selected = bool(len(select)) and Outcome.of(endpoint, select).is_enough
    weighed = select if is_selected else train
    both = Outcome.of(endpoint, weighed).model(pairs(weighed), penalty=1 / len(weighed))
    reported = pairs(rows)
    return np.column_stack([reported.to_numpy(), both.risk(reported)]), {
        "clinical_on": "train",
        "clinical_n": len(train),
        "both_on": "select" if is_selected else "train",
        "both_n": len(weighed),
    }


def _score(endpoint: Endpoint) -> Score:
    def metric(score: Floats, target: Floats, weight: Floats | None) -> Floats:
        if endpoint.survival is None:
            return auroc(score, target, weight)
        return endpoint.survival.concordance(score, target[:, 0], target[:, 1], weight)

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        if logits.isnan().any():
            clinical = alone = both = np.full(() if weight is None else len(weight), np.nan)
        else:
            clinical, alone, both = (metric(column, target.numpy(), weight) for column in logits.numpy().T)
        differences = {"both_minus_clinical": both - clinical, "score_minus_clinical": alone - clinical}
        return {"clinical": clinical, "score": alone, "both": both} | differences

    return score
