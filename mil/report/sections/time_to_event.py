"""Survival: how well risks order patients, how far they are from what happened, and how long patients were followed.

Ranks are compared within folds and averaged over them. Where causes compete, everything is about the first one, as if
patients with another event stayed event-free; the other causes have a part of their own, by their risks.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from mil.endpoints.survival_view import SurvivalView
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import Drawing, Estimate, Model, Report, Section
from mil.report.sections.horizon import (
    HorizonCalibration,
    MissingRisk,
    calibration,
    effects,
    missing_risks,
    risk_columns,
)
from mil.report.sections.pooled import NARROW_BANDS
from mil.report.sections.recalibration import CalibrationFit, recalibrated
from mil.report.sections.survival_scores import FEWEST, MODEL, NULL, SCALED, Measures, measure
from mil.stats.observed_risk import median_follow_up, risk_at
from mil.stats.weights import Floats

AT_RISK = 0.1
"""Share of patients still at risk at tau, where the tool states no times."""
WOLBERS = "Wolbers 2014: who has another event first stays at risk"


class Tau(Model):
    """The time up to which Uno's C compares patients."""

    value: float
    set_by: str
    at_risk: int
    n: int


class ObservedRisk(Model):
    """The observed risk at a stated time."""

    name: str
    time: float
    observed: Estimate


class AreaAtTime(Model):
    """The area under the ROC curve of events by a time."""

    name: str
    time: float
    score: str
    """column that orders patients"""
    estimate: Estimate


class BrierScores(Model):
    """Brier scores at a horizon, of the model and of the training patients' Kaplan-Meier curve."""

    name: str
    time: float
    model: Estimate
    kaplan_meier: Estimate
    scaled: Estimate = Field(title="Scaled (index of prediction accuracy)")


class IntegratedBrier(Model):
    """The mean Brier score over the horizons; no scores where `reason` says why."""

    start: float | None = None
    end: float | None = None
    rule: str | None = None
    horizons: tuple[str, ...] = ()
    reason: str | None = None
    model: Estimate | None = None
    kaplan_meier: Estimate | None = None
    scaled: Estimate | None = Field(default=None, title="Scaled (index of prediction accuracy)")


class CauseMetrics(Model):
    """Discrimination and Brier scores of the risk of one cause."""

    times: tuple[ObservedRisk, ...] = Field(default=(), title="Observed risks")
    c_index: Estimate
    uno_c: Estimate
    definition: str | None = Field(default=None, title="Competing events")
    """how patients with another event count in Uno's C"""
    auc: tuple[AreaAtTime, ...] = Field(default=(), title="AUC by time")
    c_index_within_site: Estimate | None = None
    brier: tuple[BrierScores, ...] = ()
    integrated_brier: IntegratedBrier


class _Cause(Model):
    name: str
    counts: dict[str, int]
    score: str
    """column that orders patients"""
    tau: float


class OtherCause(CauseMetrics, _Cause):  # the fields of the last base come first
    """A competing cause, by its risks."""


class _FollowUp(Model):
    counts: dict[str, int] = Field(title="Patients")
    unit: str
    median_follow_up: Estimate
    tau: Tau
    reference: str = Field(title="Censoring weights from")


class TimeToEvent(Section, CauseMetrics, _FollowUp):
    """How well risks order patients, and whether they are right."""

    key: ClassVar[str] = "survival"
    title: ClassVar[str] = "Survival"
    explanation: ClassVar[str] = "How well risks order patients, and whether predicted risks are right."
    not_applicable: ClassVar[str] = "The endpoint is not a time to an event."
    position: ClassVar[int] = 50
    captions: ClassVar[Mapping[str, str]] = {
        "calibration_horizon": f"Observed against predicted risk at each horizon; {NARROW_BANDS}",
        "kaplan_meier": "Kaplan-Meier curves of the risk groups, with the numbers at risk",
        "incidence": "Cumulative incidence of each cause in the risk groups, with the numbers at risk",
    }

    calibration: tuple[HorizonCalibration, ...] = Field(default=(), title="Calibration at the horizons")
    missing_risks: tuple[MissingRisk, ...] = ()
    """at horizons beyond the follow-up"""
    recalibration: CalibrationFit | None = None
    other_causes: tuple[OtherCause, ...] = ()

    def card_sentences(self) -> Iterator[str]:
        """Yield the unit of the times, and the sentences."""
        yield f"Times are in {self.unit}."
        yield from super().card_sentences()

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the section, or None where the endpoint is not a time to an event."""
        view = evaluation.endpoint.survival
        if view is None:
            return None
        time, code = view.event_times(evaluation.endpoint.encode(evaluation.reported)).numpy().T
        measures, tau = _planned(evaluation, view, time)
        after = recalibrated(evaluation)
        trained = all(len(train) for _, train in rows_of(evaluation.table, "train"))
        metrics = _cause_metrics(evaluation, measures, evaluation.counts, time, code)
        return cls(
            counts=evaluation.counts,
            unit=view.unit,
            median_follow_up=median_follow_up(time, code),
            tau=tau,
            reference="training patients" if trained else "reported patients, in folds without training rows",
            **dict(metrics),
            calibration=calibration(evaluation, view),
            missing_risks=missing_risks(evaluation, view),
            recalibration=None if after is None else after.with_effects(effects(evaluation, view, after)),
            other_causes=tuple(_other_causes(evaluation, view)),
        )

    def drawings(self, evaluation: Evaluation, report: Report) -> Iterator[Drawing]:
        """Yield the calibration at the horizons, and the curves of all patients where there are no risk groups."""
        from mil.report.figures.calibration_plot import calibration_horizon
        from mil.report.figures.incidence import incidence
        from mil.report.figures.kaplan_meier import kaplan_meier

        yield Drawing("calibration_horizon", calibration_horizon(self.calibration))
        if "groups" not in report.sections:
            yield Drawing("kaplan_meier", kaplan_meier(evaluation, report))
            yield Drawing("incidence", incidence(evaluation, report))


def _planned(evaluation: Evaluation, view: SurvivalView, time: Floats) -> tuple[Measures, Tau]:
    """Return what is measured until tau: the last stated time, or where a tenth of the patients is still at risk."""
    names = {at: name for name, at in view.horizons.items()}
    stated = [float(at) for at in evaluation.tool.times or view.horizons.values()]
    times = {names.get(at, f"{at:g}"): at for at in sorted(stated)}
    tau = max(times.values()) if times else float(np.quantile(time, 1 - AT_RISK))
    set_by = "the last stated time" if times else "a tenth of the patients still at risk"
    measures = Measures(view, times, risk_columns(evaluation, view), tau, view.rank_column)
    return measures, Tau(value=tau, set_by=set_by, at_risk=int((time >= tau).sum()), n=len(time))


def _other_causes(evaluation: Evaluation, view: SurvivalView) -> Iterator[OtherCause]:
    """Yield each further cause that has risks; its patients are ordered by the risk at the last horizon."""
    for code_of_cause, name in enumerate(view.causes[1:], 2):
        risks = risk_columns(evaluation, view, name)
        if not risks:
            continue
        times = {horizon: view.horizons[horizon] for horizon in risks}
        measures = Measures(view, times, risks, max(times.values()), list(risks.values())[-1], code_of_cause)
        time, code = measures.event_times(evaluation.endpoint.encode(evaluation.reported)).numpy().T
        counts = {"n": len(time), "events": int((code == 1).sum())}
        metrics = _cause_metrics(evaluation, measures, counts, time, code)
        yield OtherCause(name=name, counts=counts, score=measures.rank, tau=measures.tau, **dict(metrics))


def _cause_metrics(
    evaluation: Evaluation, measures: Measures, counts: Mapping[str, int], time: Floats, code: Floats
) -> CauseMetrics:
    metrics = measure(evaluation, measures, counts)
    return CauseMetrics(
        times=tuple(
            ObservedRisk(name=name, time=at, observed=risk_at(time, code, at)) for name, at in measures.times.items()
        ),
        c_index=metrics["c_index"],
        uno_c=metrics["uno_c"],
        definition=WOLBERS if measures.view.causes else None,
        auc=tuple(
            AreaAtTime(name=name, time=at, score=measures.score_at(name), estimate=metrics[f"auc_{name}"])
            for name, at in measures.times.items()
        ),
        c_index_within_site=metrics.get("within_site"),
        brier=tuple(
            BrierScores(
                name=name,
                time=float(at),
                model=metrics[f"brier_{name}_{MODEL}"],
                kaplan_meier=metrics[f"brier_{name}_{NULL}"],
                scaled=metrics[f"brier_{name}_{SCALED}"],
            )
            for name, at in zip(measures.risks, measures.moments, strict=True)
        ),
        integrated_brier=_integrated(metrics, measures),
    )


def _integrated(metrics: Mapping[str, Estimate], measures: Measures) -> IntegratedBrier:
    if len(measures.risks) < FEWEST:
        reason = f"{len(measures.risks)} horizons have a predicted risk, an integral needs {FEWEST}"
        return IntegratedBrier(reason=reason)
    return IntegratedBrier(
        start=float(measures.moments[0]),
        end=float(measures.moments[-1]),
        rule="trapezoids over the horizons",
        horizons=tuple(measures.risks),
        model=metrics[f"integrated_{MODEL}"],
        kaplan_meier=metrics[f"integrated_{NULL}"],
        scaled=metrics[f"integrated_{SCALED}"],
    )
