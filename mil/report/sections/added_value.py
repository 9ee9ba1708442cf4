"""What a score adds to the clinical variables.

Two questions, two ways. Is the score associated with the outcome, given the covariates? Models of the reported patients
with and without it, where the score is in standard deviations of its fold's reported patients, so that folds can be
taken together. Does it order patients better? Models that were fitted before: covariates on each fold's training
patients, and both together on its select patients, whose scores did not train the weights; refitted ones would flatter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.report.evaluation import Evaluation
from mil.report.page.words import named
from mil.report.predictions import fold_name, rows_of
from mil.report.schema import Estimate, Model, Section
from mil.report.sections.clinical import Clinical, without_certain
from mil.stats import cox_regression, odds_ratios
from mil.stats.bootstrap import Score
from mil.stats.bootstrap_intervals import intervals
from mil.stats.classification_metrics import auroc
from mil.stats.cox_regression import NotEstimableError
from mil.stats.estimate import format_counts, format_p
from mil.stats.weights import Floats

SCORE, CLINICAL = "score_", "clinical_"
"""Columns of the designs; the underscore keeps them apart from clinical columns."""
FEWEST = 10
"""Events, and for classes as many without, among the select patients of a model with two coefficients."""


class Covariates(Model):
    """The clinical variables of the models."""

    numeric: tuple[str, ...]
    categorical: dict[str, tuple[str, ...]]
    """levels by variable"""
    absent: tuple[str, ...]
    """named by the tool, but not in the clinical table"""
    scaled_on: str


class ScoreRatio(Model):
    """Hazard or odds ratio of the score, alone and given the covariates."""

    per: str | None = None
    alone: Estimate
    adjusted: Estimate


class CovariateRatio(Model):
    """Hazard or odds ratio of a covariate, in models with and without the score."""

    name: str
    reference: str | None = None
    """level that a category is compared with"""
    with_level: int | None = Field(default=None, title="Patients with the level")
    with_score: Estimate
    without_score: Estimate


class LikelihoodRatio(Model):
    """The test that the score adds nothing; only the counts where `reason` says why."""

    statistic: float | None = None
    freedom: int | None = Field(default=None, title="Degrees of freedom")
    p: float | None = None
    counts: dict[str, int]
    reason: str | None = None


class LeftOut(Model):
    """Patients of a level who all had the same outcome, so that they say nothing about the other estimates."""

    name: str
    n: int
    reason: str


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


class Adjusted(Model):
    """Models of the reported patients with and without the score."""

    score: ScoreRatio
    rows: tuple[CovariateRatio, ...] = Field(default=(), title="Covariates")
    likelihood_ratio: LikelihoodRatio
    standard_deviations: dict[str, float] = Field(default={}, title="Standard deviations of numeric covariates")
    left_out: tuple[LeftOut, ...] = ()


class _Setup(Model):
    counts: dict[str, int] = Field(title="Patients")
    measure: Literal["hazard_ratio", "odds_ratio"]
    covariates: Covariates


class AddedValue(Section, Adjusted, _Setup):  # the fields of the last base come first
    """What the score adds to the clinical variables."""

    key: ClassVar[str] = "added_value"
    title: ClassVar[str] = "Added value"
    explanation: ClassVar[str] = "What the score adds to the clinical variables."
    not_applicable: ClassVar[str] = "The tool names no clinical variables, or no clinical table was given."
    position: ClassVar[int] = 70

    discrimination: DiscriminationGain

    def card_sentences(self) -> Iterator[str]:
        """Yield what the rows are about, and the likelihood-ratio test."""
        per = f" (per {self.score.per})" if self.score.per else ""
        metric = named(self.discrimination.metric)
        yield (
            f"{named(self.measure)}s of the score{per} and of the covariates; then {metric} of models of the clinical "
            "variables, of the score, and of both."
        )
        if (test := self.likelihood_ratio).p is not None:
            counts = format_counts(test.counts)
            yield f"Likelihood-ratio test that the score adds nothing: p {format_p(test.p)}, {counts}."

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the section, or None without clinical variables.

        Survival has Cox's model, a binary endpoint logistic regression; other endpoints have no such section.
        """
        endpoint = evaluation.endpoint
        if endpoint.survival is None and len(endpoint.class_columns) != 1:
            return None
        clinical = Clinical.of(evaluation)
        if clinical is None:
            return None
        return cls(
            counts=evaluation.counts,
            measure="odds_ratio" if endpoint.survival is None else "hazard_ratio",
            covariates=Covariates(
                numeric=tuple(clinical.covariates.numeric),
                categorical={name: tuple(levels) for name, levels in clinical.covariates.categorical.items()},
                absent=clinical.absent,
                scaled_on="all reported patients, missing values at the mean with an indicator",
            ),
            **dict(adjusted(evaluation, clinical)),
            discrimination=_gain(evaluation, clinical),
        )


@dataclass(frozen=True)
class _Outcome:
    """How patients fared: when and whether they had the event, or whether they are positives."""

    event: NDArray[np.bool_]
    time: Floats | None = None

    @classmethod
    def of(cls, endpoint: Endpoint, rows: pd.DataFrame) -> "_Outcome":
        """Return the outcomes of predictions; of competing events the first cause."""
        target = endpoint.encode(rows.set_index("patient"))
        if endpoint.survival is None:
            return cls(target.double().numpy() == 1)
        time, code = endpoint.survival.event_times(target).numpy().T
        return cls(code == 1, time)

    def among(self, members: NDArray[np.bool_]) -> "_Outcome":
        """Return the outcomes of some of the patients."""
        return _Outcome(self.event[members], None if self.time is None else self.time[members])

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


def adjusted(evaluation: Evaluation, clinical: Clinical) -> Adjusted:
    """Return models of the reported patients, one row a patient, with and without the score."""
    endpoint, rows = evaluation.endpoint, evaluation.reported.reset_index()
    outcome, is_binary = _Outcome.of(endpoint, rows), endpoint.survival is None
    score = _standardised(evaluation)
    scale = clinical.fit(list(rows["patient"]))
    design = clinical.design(list(rows["patient"]), scale)
    references = clinical.references(design, outcome.event, is_binary)
    design = design.drop(columns=list(references.values()))
    members, dropped = without_certain(design, outcome.event, is_binary)
    counts = {name: int((design[name] == 1).sum()) for name in map(str, design) if design[name].isin([0, 1]).all()}
    design, outcome = design[members], outcome.among(members)
    design = design.loc[:, design.nunique() > 1]
    models = _models(design, pd.Series(score[members], index=design.index), outcome, references, counts)
    left_out = tuple(LeftOut(name=name, n=n, reason="all of them had the same outcome") for name, n in dropped.items())
    deviations = dict(zip(scale.numeric, scale.spread, strict=True))
    return models.model_copy(update={"standard_deviations": deviations, "left_out": left_out})


def _models(
    design: pd.DataFrame,
    score: pd.Series,
    outcome: _Outcome,
    references: Mapping[str, str],
    with_level: Mapping[str, int],
) -> Adjusted:
    counts = {"n": len(score), "events": int(outcome.event.sum())}
    try:
        alone = outcome.model(score.to_frame(SCORE))
        without, both = outcome.model(design), outcome.model(design.assign(**{SCORE: score}))
    except NotEstimableError as error:
        missing = Estimate.missing(str(error), counts)
        return Adjusted(
            score=ScoreRatio(alone=missing, adjusted=missing),
            likelihood_ratio=LikelihoodRatio(counts=counts, reason=str(error)),
        )
    statistic = max(0.0, 2 * (both.log_likelihood - without.log_likelihood))
    return Adjusted(
        score=ScoreRatio(
            per="standard deviation of the fold's reported patients",
            alone=alone.ratio(SCORE),
            adjusted=both.ratio(SCORE),
        ),
        rows=tuple(
            CovariateRatio(
                name=name,
                reference=references.get(name.partition("=")[0]),
                with_level=with_level.get(name),
                with_score=both.ratio(name),
                without_score=without.ratio(name),
            )
            for name in map(str, design)
        ),
        likelihood_ratio=LikelihoodRatio(
            statistic=statistic, freedom=1, p=float(stats.chi2.sf(statistic, 1)), counts=counts
        ),
    )


def _scores(endpoint: Endpoint, rows: pd.DataFrame) -> Floats:
    """Return the number that orders patients, `(p,)`: of classes the logit."""
    if endpoint.survival is not None:
        return rows[endpoint.survival.rank_column].to_numpy(np.float64)
    return np.asarray(endpoint.recode(rows).double().numpy()[:, 0])


def _standardised(evaluation: Evaluation) -> Floats:
    """Return each patient's standardised score in order of `evaluation.reported`, as the first fold has it."""
    by_fold = []
    for _, rows in rows_of(evaluation.table, "report"):
        score = _scores(evaluation.endpoint, rows)
        spread = score.std(ddof=1) if len(score) > 1 else 0.0
        by_fold.append(pd.Series((score - score.mean()) / (spread or 1.0), index=rows["patient"].to_numpy()))
    scores = pd.concat(by_fold)
    return np.asarray(scores[~scores.index.duplicated()].reindex(evaluation.reported.index).to_numpy(np.float64))


def _gain(evaluation: Evaluation, clinical: Clinical) -> DiscriminationGain:
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
    return DiscriminationGain(metric=endpoint.metric, fitted=tuple(fitted), **metrics)


def _ranked(
    endpoint: Endpoint, clinical: Clinical, rows: pd.DataFrame, train: pd.DataFrame, select: pd.DataFrame
) -> tuple[Floats, dict[str, str | int]]:
    """Return the scores of covariates, model and both for the reported patients, `(p, 3)`, and whom they are from."""
    if train.empty:
        raise NotEstimableError("there are no training patients to fit the covariates")
    scale, outcome = clinical.fit(list(train["patient"])), _Outcome.of(endpoint, train)
    design = clinical.design(list(train["patient"]), scale)
    varying = design.columns[np.ptp(design.to_numpy(), axis=0) > 0]
    # the ridge of scikit-learn's C = 1, so that rare levels keep finite weights
    model = outcome.model(design[varying], penalty=1 / len(train))

    def pairs(patients: pd.DataFrame) -> pd.DataFrame:
        risk = model.risk(clinical.design(list(patients["patient"]), scale)[varying])
        return pd.DataFrame({CLINICAL: risk, SCORE: _scores(endpoint, patients)})

    is_selected = bool(len(select)) and _Outcome.of(endpoint, select).is_enough
    weighed = select if is_selected else train
    both = _Outcome.of(endpoint, weighed).model(pairs(weighed), penalty=1 / len(weighed))
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
