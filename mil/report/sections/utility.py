"""Decision curves: the net benefit of acting on the model at each threshold, against all, none and clinical variables.

Vickers & Elkin, Medical Decision Making 26, 2006; at a horizon Vickers et al., BMC Medical Informatics and Decision
Making 8, 2008. Whether acting on the model is worth more is said at the cuts of the tool's own decision, and of all
thresholds by a band that holds the curve at all of them at once: scanning 50 thresholds for a pointwise band above zero
finds one by chance far too often.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from mil.endpoints.endpoint import Scores
from mil.endpoints.question import Question
from mil.endpoints.survival_view import SurvivalView
from mil.errors import PredictionsError
from mil.fitted.calibrators import calibrated
from mil.report.evaluation import Evaluation
from mil.report.paired_difference import shown_sign, without_verdict
from mil.report.schema import Drawing, Estimate, Model, Number, Report, Row, Section, Sentence
from mil.report.sections import clinical_baseline
from mil.report.sections.clinical import Clinical
from mil.report.sections.own_cuts import OwnCut, own_cuts
from mil.report.sections.pooled import METHOD, Band, band, points, resampled, simultaneous
from mil.report.sections.recalibration import Recalibrated, recalibrated
from mil.report.verdict_minimum import FEWEST_OF_EACH, FEWEST_PATIENTS, MINIMUM
from mil.stats.bootstrap import Floats
from mil.stats.estimate import LEVEL
from mil.stats.net_benefit import censored_net_benefit, incidence_until, net_benefit
from mil.stats.observed_risk import reaches

_POINTS, _HORIZON_POINTS = 50, 25
_ENOUGH = 300
"""Patients below which intervals and band of a gain are too narrow: simulated with 40 and 100, the band holds the whole
curve in 0.70 to 0.85 of cohorts (`docs/coverage.md`). The better of treating all and none changes between resamples,
and where nobody is below a threshold the gain does not vary."""
NARROW = f"too narrow below {_ENOUGH} patients"
_CARD_POINTS = 5
"""Thresholds of a curve that the card shows."""
_Benefit = Callable[[NDArray[np.bool_], Floats, Floats | None], Floats]
"""From who is treated `(p, t)`, the thresholds' odds `(t,)` and weights `(r, p)` to net benefits `(r, t)`."""


class ClinicalModel(Model):
    """A model of the clinical variables that the curve is compared with, or the reason why there is none."""

    clinical_variables: tuple[str, ...] = ()
    clinical_method: str | None = None
    clinical_absent: tuple[str, ...] = Field(default=(), title="Clinical variables that the table lacks")
    clinical_reason: str | None = Field(default=None, title="No clinical model, because")


class AtOwnCut(Model):
    """Net benefit of acting on the tool's own calls, at the probability of a cut."""

    name: str
    """cut, or lower cut and upper cut"""
    threshold: float
    """probability at the cut, the mean over folds"""
    above: int
    """patients above it"""
    benefit: Estimate = Field(title="Net benefit")
    gain: Estimate = Field(title="Gain over treating all or none")


class NetBenefits(Model):
    """Net benefits at each threshold; none where `reason` says why."""

    thresholds: tuple[float, ...] = ()
    thresholds_from: str | None = None
    reason: str | None = None
    model: Band | None = None
    all: tuple[Number, ...] = ()
    """of treating everybody"""
    none: tuple[float, ...] = ()
    """of treating nobody, which is zero"""
    clinical: Band | None = None
    gain: Band | None = None
    """over the better of treating everybody and nobody"""
    over_clinical: Band | None = None
    avoided_per_100: Band | None = None
    """treatments that the model avoids among 100 patients, at the same true positives"""
    level: float | None = None
    method: str | None = None
    at_cuts: tuple[AtOwnCut, ...] = ()
    """at the tool's own cuts; none where it cuts no probability of this question"""
    simultaneous: Band | None = None
    """of `gain`, at all thresholds at once"""
    useful: tuple[tuple[float, float], ...] = ()
    """first and last threshold of each stretch where the simultaneous band is above zero"""
    verdict: Sentence | None = None


class _Treated(Model):
    name: str
    n: int
    positives: int | None = None
    events: int | None = None
    prevalence: float
    horizon: str | None = None
    time: float | None = None
    unit: str | None = None
    calibrated: str | None = None
    """method, where patients are treated by the recalibrated probability"""


class DecisionCurve(NetBenefits, ClinicalModel, _Treated):  # the fields of the last base come first
    """The decision curve of one question, or of the risk at one horizon."""


class Utility(Section):
    """What acting on the predictions would be worth."""

    key: ClassVar[str] = "utility"
    title: ClassVar[str] = "Clinical utility"
    explanation: ClassVar[str] = "The net benefit of acting on the model, against acting on everybody or on nobody."
    not_applicable: ClassVar[str] = "The predictions contain no probability and no risk at a horizon."
    position: ClassVar[int] = 40
    captions: ClassVar[Mapping[str, str]] = {
        "decision_curve": "Decision curve: net benefit over threshold probabilities",
    }

    questions: tuple[DecisionCurve, ...] = ()
    horizons: tuple[DecisionCurve, ...] = ()

    def card_rows(self) -> Iterator[Row]:
        """Yield each curve at the tool's own cuts, and at a few of its thresholds."""
        for key, curves in (("questions", self.questions), ("horizons", self.horizons)):
            for position, curve in enumerate(curves):
                yield from _own_rows(curve, f"{key}[{position}]")
                yield from _card_rows(curve, f"{key}[{position}]")

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return a curve for each question or horizon; None for regression and survival without horizons.

        Raises:
            PredictionsError: a risk at a horizon is not between 0 and 1.
        """
        thresholds = evaluation.tool.thresholds
        stated = None if thresholds is None else np.unique(np.asarray(thresholds, dtype=np.float64))
        clinical, view = Clinical.of(evaluation), evaluation.endpoint.survival
        if view is not None:
            cases = list(_horizon_cases(evaluation, view, clinical))
            curves = tuple(_curve(case, stated, _HORIZON_POINTS, evaluation) for case in cases)
            return cls(horizons=curves) if curves else None
        if not evaluation.questions:
            return None
        after = recalibrated(evaluation)
        cases = [_question_case(evaluation, question, after, clinical) for question in evaluation.questions]
        return cls(questions=tuple(_curve(case, stated, _POINTS, evaluation) for case in cases))

    def drawings(self, evaluation: Evaluation, report: Report) -> Iterator[Drawing]:
        """Yield the decision curves."""
        from mil.report.figures.decision_curve import decision_curve

        yield Drawing("decision_curve", decision_curve(self.questions or self.horizons))


def _own_rows(curve: DecisionCurve, source: str) -> Iterator[Row]:
    for at, each in enumerate(curve.at_cuts):
        label = f"{curve.name}, own {each.name} at {each.threshold:.3f}"
        yield Row(f"{label}: net benefit", each.benefit, f"{source}.at_cuts[{at}].benefit")
        yield Row(f"{label}: gain over treating all or none", each.gain, f"{source}.at_cuts[{at}].gain")


def _card_rows(curve: DecisionCurve, source: str) -> Iterator[Row]:
    last, counts = len(curve.thresholds) - 1, {"n": curve.n}
    for at in sorted({round(last * step / (_CARD_POINTS - 1)) for step in range(_CARD_POINTS)} if last >= 0 else ()):
        label = f"{curve.name}, threshold {curve.thresholds[at]:.3f}"
        for field, words, curve_band in (
            ("model", "net benefit", curve.model),
            ("gain", "gain over treating all or none", curve.gain),
        ):
            if curve_band is not None:
                value, low, high = curve_band.value[at], curve_band.low[at], curve_band.high[at]
                estimate = Estimate(value=value, low=low, high=high, method=curve.method, counts=counts)
                yield Row(f"{label}: {words}", estimate, f"{source}.{field}.value[{at}]")
        everybody = Estimate(value=curve.all[at], counts=counts)
        yield Row(f"{label}: net benefit of treating all", everybody, f"{source}.all[{at}]")


@dataclass(frozen=True, eq=False)
class _Case:
    """One probability by which patients are treated."""

    treated: _Treated
    probability: Floats
    """`(p,)`"""
    benefit: _Benefit
    clinical_model: ClinicalModel
    clinical: Floats | None
    """probability from the clinical variables, of the same patients, `(p,)`"""
    cuts: tuple[OwnCut, ...] = ()
    """of the tool's own decision about this probability"""
    reason: str | None = None
    """why there is no net benefit"""


def thresholds(prevalence: float, count: int = _POINTS) -> Floats:
    """Return thresholds from a quarter of the prevalence to four times of it, within 0.01 and 0.99."""
    low, high = np.clip([prevalence / 4, 4 * prevalence], 0.01, 0.99)
    return np.unique(np.linspace(low, high, count).round(4))


def _question_case(
    evaluation: Evaluation, question: Question, after: Recalibrated | None, clinical: Clinical | None
) -> _Case:
    answered, table, method = question, evaluation.reported, None
    if after is not None:
        better = calibrated(question)
        complete = after.reported.reindex(columns=list(better.columns)).notna().all(axis=1)
        if complete.any():
            answered, table, method = better, after.reported[complete], after.method
    truth = question.truth(table)
    table, truth = table[~np.isnan(truth)], truth[~np.isnan(truth)]
    predict = partial(clinical_baseline.answers, evaluation, question=question)
    probability, clinical_model = _clinical(clinical, table, predict, "logistic")
    n, positives = len(truth), int(truth.sum())
    treated = _Treated(
        name=question.name, n=n, positives=positives, prevalence=positives / max(1, n), calibrated=method
    )
    shown = pd.Series(answered.probability(table), index=table.index)
    cuts = own_cuts(evaluation, question, None, answered.columns, shown)
    return _Case(treated, np.asarray(shown, np.float64), _truth_benefit(truth), clinical_model, probability, cuts)


def _horizon_cases(evaluation: Evaluation, view: SurvivalView, clinical: Clinical | None) -> Iterator[_Case]:
    after = recalibrated(evaluation)
    alone = None if view.causes else clinical  # a Cox model of one cause gives no incidence where causes compete
    for name, horizon in view.horizons.items():
        column = view.risk_column(name)
        if column not in evaluation.reported or evaluation.reported[column].isna().any():
            continue  # beyond the follow-up, which the section on survival says
        shown, table, method = column, evaluation.reported, None
        if after is not None and len((better := after.risks(column))[1]):
            shown, table, method = *better, after.method
        time, code = view.event_times(evaluation.endpoint.encode(table)).numpy().T
        predict = partial(clinical_baseline.risks, evaluation, view=view, horizon=horizon)
        probability, clinical_model = _clinical(alone, table, predict, "cox")
        treated = _Treated(
            name=column,
            n=len(table),
            events=int(((code == 1) & (time <= horizon)).sum()),
            prevalence=float(incidence_until(time, code, horizon)[0]),
            horizon=name,
            time=horizon,
            unit=view.unit,
            calibrated=method,
        )
        benefit, risk = _horizon_benefit(time, code, horizon), pd.Series(_risk(table, shown), index=table.index)
        cuts = own_cuts(evaluation, None, column, (shown,), risk)
        reason = None if reaches(time, code, horizon) else f"nobody is followed for {horizon:g} {view.unit}"
        yield _Case(treated, np.asarray(risk, np.float64), benefit, clinical_model, probability, cuts, reason)


def _truth_benefit(truth: Floats) -> _Benefit:
    return lambda called, odds, weight: net_benefit(called, truth, odds, weight)


def _horizon_benefit(time: Floats, code: Floats, horizon: float) -> _Benefit:
    return lambda called, odds, weight: censored_net_benefit(called, time, code, horizon, odds, weight)


def _risk(table: pd.DataFrame, column: str) -> Floats:
    risk = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    if (wrong := ~((risk >= 0) & (risk <= 1))).any():
        raise PredictionsError(f"predictions: {int(wrong.sum())} of {len(risk)} values of {column} outside [0, 1]")
    return risk


def _clinical(
    clinical: Clinical | None, table: pd.DataFrame, predict: Callable[[Clinical], "pd.Series[float]"], method: str
) -> tuple[Floats | None, ClinicalModel]:
    """Return the clinical probabilities of these patients and what they are from, or the reason why there are none."""
    if clinical is None:
        return None, ClinicalModel(clinical_reason="no clinical variables are stated, or none is at hand")
    probability = predict(clinical).reindex(table.index)
    if missing := int(probability.isna().sum()):
        reason = f"no fold's training patients give it for {missing} of {len(probability)} patients"
        return None, ClinicalModel(clinical_reason=reason)
    return np.asarray(probability, np.float64), ClinicalModel(
        clinical_variables=tuple(clinical.covariates.columns),
        clinical_method=clinical_baseline.METHODS[method],
        clinical_absent=clinical.absent,
    )


def _curve(case: _Case, stated: Floats | None, count: int, evaluation: Evaluation) -> DecisionCurve:
    treated = {**dict(case.treated), **dict(case.clinical_model)}
    if case.reason is not None:
        return DecisionCurve(**treated, reason=case.reason)
    if not 0 < case.treated.prevalence < 1:
        return DecisionCurve(**treated, reason="positives or negatives are absent")
    at = thresholds(case.treated.prevalence, count) if stated is None else stated
    samples = resampled(_Benefits(case, at), len(case.probability), evaluation)
    gain, wide = band(samples, "gain"), simultaneous(samples, "gain")
    reason = _too_few(case.treated)
    useful = () if reason else _useful(at, wide)
    at_cuts = tuple(_at_cut(case, cut, reason, evaluation) for cut in case.cuts)
    return DecisionCurve(
        **treated,
        thresholds=tuple(at.tolist()),
        thresholds_from="prevalence" if stated is None else "tool",
        model=band(samples, "model"),
        all=band(samples, "all").value,
        none=(0.0,) * len(at),
        clinical=band(samples, "clinical") if case.clinical is not None else None,
        gain=gain,
        over_clinical=band(samples, "over_clinical") if case.clinical is not None else None,
        avoided_per_100=band(samples, "avoided"),
        level=LEVEL,
        method=f"{METHOD}, pointwise",
        at_cuts=at_cuts,
        simultaneous=wide,
        useful=useful,
        verdict=f"no verdict: {reason}"
        if reason
        else " ".join((*map(_own_verdict, at_cuts), _verdict(at, useful, case.treated.n))),
    )


def _at_cut(case: _Case, cut: OwnCut, reason: str | None, evaluation: Evaluation) -> AtOwnCut:
    """Return what acting on the tool's calls is worth; both cuts of two are judged together."""
    odds, counts = np.array([cut.threshold / (1 - cut.threshold)]), {"n": case.treated.n}

    def metrics(weight: Floats | None) -> Scores:
        model = case.benefit(cut.above[:, None], odds, weight)[:, 0]
        share = case.benefit(np.ones((len(cut.above), 1), dtype=bool), np.zeros(1), weight)[:, 0]
        return {"benefit": model, "gain": model - np.maximum(share - (1 - share) * odds[0], 0)}

    samples = resampled(metrics, len(cut.above), evaluation)
    level = 1 - (1 - LEVEL) / len(case.cuts)
    adjusted = f", {len(case.cuts)} cuts by Bonferroni" if len(case.cuts) > 1 else ""
    gain = samples["gain"].interval(METHOD + adjusted, counts, level)
    return AtOwnCut(
        name=cut.name,
        threshold=cut.threshold,
        above=int(cut.above.sum()),
        benefit=samples["benefit"].interval(METHOD, counts),
        gain=gain.with_caveat(NARROW if case.treated.n < _ENOUGH else None)
        if reason is None
        else without_verdict(gain, reason),
    )


def _too_few(treated: _Treated) -> str | None:
    """Return why there are too few patients for a verdict; None where there are enough."""
    positives = treated.events if treated.positives is None else treated.positives
    negatives = FEWEST_OF_EACH if treated.positives is None else treated.n - treated.positives
    if treated.n >= FEWEST_PATIENTS and min(positives or 0, negatives) >= FEWEST_OF_EACH:
        return None
    return f"{treated.n} patients with {positives} positives or events, expected {MINIMUM}"


def _own_verdict(cut: AtOwnCut) -> str:
    shown = {1: "worth more than", -1: "worth less than", 0: "not shown to be worth more than"}[shown_sign(cut.gain)]
    return f"At the tool's own {cut.name} ({cut.threshold:.3f}) it is {shown} treating all or none: {cut.gain}."


class _Benefits:
    """Net benefits and their differences in each resample; `gain` is over the better of treating all and none."""

    def __init__(self, case: _Case, thresholds: Floats) -> None:
        self.case, self.odds = case, thresholds / (1 - thresholds)
        self.treated = case.probability[:, None] >= thresholds
        self.everybody = np.ones((len(case.probability), 1), dtype=bool)
        self.clinical = None if case.clinical is None else case.clinical[:, None] >= thresholds

    def __call__(self, weight: Floats | None) -> Scores:
        model = self.case.benefit(self.treated, self.odds, weight)
        share = self.case.benefit(self.everybody, np.zeros(1), weight)  # (r, 1), the prevalence
        everybody = share - (1 - share) * self.odds
        benefits = points(model, "model") | points(everybody, "all")
        benefits |= points(model - np.maximum(everybody, 0), "gain")
        benefits |= points(100 * (model - everybody) / self.odds, "avoided")
        if self.clinical is None:
            return benefits
        clinical = self.case.benefit(self.clinical, self.odds, weight)
        return benefits | points(clinical, "clinical") | points(model - clinical, "over_clinical")


def _useful(at: Floats, gain: Band) -> tuple[tuple[float, float], ...]:
    """Return first and last threshold of each stretch where the band is above zero."""
    above = np.array([low is not None and low > 0 for low in gain.low], dtype=np.int64)
    edges = np.diff(above, prepend=0, append=0)
    pairs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    return tuple((float(at[first]), float(at[after - 1])) for first, after in pairs)


def _verdict(at: Floats, useful: Sequence[tuple[float, float]], patients: int) -> str:
    narrow = f", {NARROW}" if patients < _ENOUGH else ""
    span = f"Over all thresholds from {at[0]:.3g} to {at[-1]:.3g} at once (sup-t 95% band{narrow})"
    if not useful:
        return f"{span} none is shown at which the model is worth more than treating all or none."
    where = ", ".join(f"{first:.3g}" if first == last else f"{first:.3g} to {last:.3g}" for first, last in useful)
    return f"{span} it is worth more than treating all or none at {where}."
