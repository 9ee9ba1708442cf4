"""What a score adds to the clinical variables.

Two questions, two ways. Whether the score is associated with the outcome, given the covariates, is shown by models of
the reported patients with and without it; the score is in standard deviations of its fold's reported patients, so that
folds can be pooled. Whether it orders patients better is shown by models that were fitted before, see
`discrimination_gain`.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from mil.report.evaluation import Evaluation
from mil.report.page.words import named
from mil.report.predictions import rows_of
from mil.report.schema import Estimate, Model, Section
from mil.report.sections.clinical import Clinical, without_certain
from mil.report.sections.discrimination_gain import SCORE, DiscriminationGain, Outcome, discrimination_gain, score_of
from mil.stats.cox_regression import NotEstimableError
from mil.stats.estimate import format_counts, format_p
from mil.stats.weights import Floats


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
            discrimination=discrimination_gain(evaluation, clinical),
        )


def adjusted(evaluation: Evaluation, clinical: Clinical) -> Adjusted:
    """Return models of the reported patients, one row a patient, with and without the score."""
    endpoint, rows = evaluation.endpoint, evaluation.reported.reset_index()
    outcome, is_binary = Outcome.of(endpoint, rows), endpoint.survival is None
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
    outcome: Outcome,
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


def _standardised(evaluation: Evaluation) -> Floats:
    """Return each patient's standardised score in order of `evaluation.reported`, as the first fold has it."""
    by_fold = []
    for _, rows in rows_of(evaluation.table, "report"):
        score = score_of(evaluation.endpoint, rows)
        spread = score.std(ddof=1) if len(score) > 1 else 0.0
        by_fold.append(pd.Series((score - score.mean()) / (spread or 1.0), index=rows["patient"].to_numpy()))
    scores = pd.concat(by_fold)
    return np.asarray(scores[~scores.index.duplicated()].reindex(evaluation.reported.index).to_numpy(np.float64))
