"""Decision curves: what acting on the model is worth at each threshold, against all, none and clinical variables.

Vickers & Elkin, Medical Decision Making 26, 2006; at a horizon Vickers et al., BMC Medical Informatics and Decision
Making 8, 2008. Bands are pointwise: no statement is about all thresholds at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.endpoint import Scores
from mil.endpoints.question import Question
from mil.endpoints.survival import Survival
from mil.errors import ConfigError, PredictionsError
from mil.fitted.calibrators import calibrated
from mil.report.evaluation import Evaluation
from mil.report.sections import clinical_baseline
from mil.report.sections.clinical import Clinical
from mil.report.sections.pooled import METHOD, band, points, resampled
from mil.report.sections.recalibration import Recalibrated, recalibrated
from mil.stats.bootstrap import Floats
from mil.stats.net_benefit import censored_net_benefit, incidence_until, net_benefit

_POINTS, _HORIZON_POINTS = 50, 25
_Benefit = Callable[[NDArray[np.bool_], Floats, Floats | None], Floats]
"""From who is treated `(p, t)`, the thresholds' odds `(t,)` and weights `(r, p)` to net benefits `(r, t)`."""


@dataclass(frozen=True, eq=False)
class Case:
    """One probability that patients are treated by."""

    name: str
    counts: dict[str, int]
    probability: Floats
    """`(p,)`"""
    prevalence: float
    benefit: _Benefit
    clinical: Floats | None
    """of the same patients, `(p,)`"""
    about: dict[str, Any]
    """what else the report says of it"""


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Curves for each question, or each horizon; none for regression and survival without horizons.

    Raises:
        ConfigError: `thresholds` of the tool are no shares between 0 and 1, or its calibration does not exist.
        PredictionsError: a risk at a horizon is none.
    """
    stated = _stated(evaluation.tool.get("thresholds"))
    clinical = Clinical.of(evaluation)
    if isinstance(evaluation.endpoint, Survival):
        cases = list(_horizons(evaluation, evaluation.endpoint, clinical))
        return {"horizons": [_curves(case, stated, _HORIZON_POINTS, evaluation) for case in cases]} if cases else None
    if not evaluation.questions:
        return None
    after = recalibrated(evaluation)
    asked = [_case(evaluation, question, after, clinical) for question in evaluation.questions]
    return {"questions": [_curves(case, stated, _POINTS, evaluation) for case in asked]}


def thresholds(prevalence: float, count: int = _POINTS) -> Floats:
    """From a quarter of the prevalence to four times of it, within 0.01 and 0.99."""
    low, high = np.clip([prevalence / 4, 4 * prevalence], 0.01, 0.99)
    return np.unique(np.linspace(low, high, count).round(4))


def _stated(asked: object) -> Floats | None:
    if asked is None:
        return None
    shares = list(asked) if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked]
    fine = [isinstance(one, int | float) and not isinstance(one, bool) and 0 < one < 1 for one in shares]
    if not shares or not all(fine):
        raise ConfigError(f"thresholds: {asked!r}, expected a list of shares between 0 and 1")
    return np.unique(np.asarray(shares, dtype=np.float64))


def _case(evaluation: Evaluation, question: Question, after: Recalibrated | None, clinical: Clinical | None) -> Case:
    answered, table, method = question, evaluation.reported, None
    if after is not None:
        columns = list(calibrated(question).columns)
        kept = after.reported.reindex(columns=columns).notna().all(axis=1)
        if kept.any():
            answered, table, method = calibrated(question), after.reported[kept], after.method
    truth = question.truth(table)
    table, truth = table[~np.isnan(truth)], truth[~np.isnan(truth)]
    predict = partial(clinical_baseline.answers, evaluation, question=question)
    baseline, words = _baseline(clinical, table, predict, "logistic")
    counts = {"n": len(truth), "positives": int(truth.sum())}
    prevalence = counts["positives"] / max(1, counts["n"])
    about = {"calibrated": method} | words
    return Case(question.name, counts, answered.probability(table), prevalence, _of_truth(truth), baseline, about)


def _horizons(evaluation: Evaluation, endpoint: Survival, clinical: Clinical | None) -> Iterator[Case]:
    after = recalibrated(evaluation)
    cause = f"{endpoint.causes[0]}_" if isinstance(endpoint, CompetingRisks) else ""
    alone = None if cause else clinical  # a Cox model of one cause gives no incidence beside others
    for name, horizon in endpoint.horizons.items():
        column = f"risk_{cause}{name}"
        if column not in evaluation.reported:
            continue
        shown, table, method = column, evaluation.reported, None
        if after is not None and len((better := after.answered(column))[1]):
            shown, table, method = *better, after.method
        time, code = endpoint.encode(table)[:, :2].double().numpy().T
        predict = partial(clinical_baseline.risks, evaluation, endpoint=endpoint, horizon=horizon)
        baseline, words = _baseline(alone, table, predict, "cox")
        about = {"horizon": name, "time": horizon, "unit": endpoint.unit, "calibrated": method} | words
        counts = {"n": len(table), "events": int(((code == 1) & (time <= horizon)).sum())}
        incidence = float(incidence_until(time, code, horizon)[0])
        benefit = _until(time, code, horizon)
        yield Case(column, counts, _risk(table, shown), incidence, benefit, baseline, about)


def _of_truth(truth: Floats) -> _Benefit:
    return lambda called, odds, weight: net_benefit(called, truth, odds, weight)


def _until(time: Floats, code: Floats, horizon: float) -> _Benefit:
    return lambda called, odds, weight: censored_net_benefit(called, time, code, horizon, odds, weight)


def _risk(table: pd.DataFrame, column: str) -> Floats:
    found = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    if (wrong := ~((found >= 0) & (found <= 1))).any():
        raise PredictionsError(f"predictions: {int(wrong.sum())} of {len(found)} values of {column} outside [0, 1]")
    return found


def _baseline(
    clinical: Clinical | None, table: pd.DataFrame, predict: Callable[[Clinical], "pd.Series[float]"], method: str
) -> tuple[Floats | None, dict[str, Any]]:
    """The probabilities of these patients, or the reason why there are none."""
    if clinical is None:
        return None, {"clinical_reason": "no clinical variables are stated, or none is at hand"}
    found = predict(clinical).reindex(table.index)
    if found.isna().any():
        missing = int(found.isna().sum())
        return None, {"clinical_reason": f"no fold's training patients give it for {missing} of {len(found)} patients"}
    said = {"clinical_method": clinical_baseline.METHODS[method], "clinical_absent": list(clinical.absent)}
    return np.asarray(found, np.float64), {"clinical_variables": list(clinical.covariates.columns)} | said


def _curves(case: Case, stated: Floats | None, count: int, evaluation: Evaluation) -> dict[str, Any]:
    found: dict[str, Any] = {"name": case.name, **case.counts, "prevalence": case.prevalence, **case.about}
    if not 0 < case.prevalence < 1:
        return found | {"thresholds": [], "reason": "positives or negatives are absent"}
    at = thresholds(case.prevalence, count) if stated is None else stated
    scored = resampled(_Curves(case, at), len(case.probability), evaluation)
    gain = band(scored, "gain")
    useful = _runs(at, gain["low"])
    compared = {name: band(scored, name) for name in ("clinical", "over_clinical") if case.clinical is not None}
    return found | {
        "thresholds": at.tolist(),
        "thresholds_from": "prevalence" if stated is None else "tool",
        "model": band(scored, "model"),
        "all": band(scored, "all")["value"],
        "none": [0.0] * len(at),
        "clinical": compared.get("clinical"),
        "gain": gain,
        "over_clinical": compared.get("over_clinical"),
        "avoided_per_100": band(scored, "avoided"),
        "level": 0.95,
        "method": f"{METHOD}, pointwise",
        "useful": useful,
        "verdict": _verdict(at, useful),
    }


class _Curves:
    """Net benefits and their differences in each resample; `gain` is over the better of treating all and none."""

    def __init__(self, case: Case, at: Floats) -> None:
        self.case, self.odds = case, at / (1 - at)
        self.called = case.probability[:, None] >= at
        self.everybody = np.ones((len(case.probability), 1), dtype=bool)
        self.clinical = None if case.clinical is None else case.clinical[:, None] >= at

    def __call__(self, weight: Floats | None) -> Scores:
        model = self.case.benefit(self.called, self.odds, weight)
        share = self.case.benefit(self.everybody, np.zeros(1), weight)  # (r, 1), the prevalence
        everybody = share - (1 - share) * self.odds
        found = points(model, "model") | points(everybody, "all")
        found |= points(model - np.maximum(everybody, 0), "gain")
        found |= points(100 * (model - everybody) / self.odds, "avoided")
        if self.clinical is None:
            return found
        clinical = self.case.benefit(self.clinical, self.odds, weight)
        return found | points(clinical, "clinical") | points(model - clinical, "over_clinical")


def _runs(at: Floats, low: Sequence[float | None]) -> list[list[float]]:
    """First and last threshold of each stretch where the band lies above zero."""
    above = np.array([value is not None and value > 0 for value in low], dtype=np.int64)
    edges = np.diff(above, prepend=0, append=0)
    pairs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    return [[float(at[first]), float(at[after - 1])] for first, after in pairs]


def _verdict(at: Floats, useful: Sequence[Sequence[float]]) -> str:
    if not useful:
        return (
            f"no threshold from {at[0]:.3g} to {at[-1]:.3g} is shown at which the model is worth more than all or none"
        )
    where = ", ".join(f"{first:.3g}" if first == last else f"{first:.3g} to {last:.3g}" for first, last in useful)
    return f"worth more than treating all or none at thresholds of {where} (pointwise 95% band above zero)"
