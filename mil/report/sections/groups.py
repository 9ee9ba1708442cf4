"""Patients in groups of risk by a frozen rule: how differently they fare.

A rule's cuts come from training patients or were stated beforehand. Groups, unlike scores, can be pooled over folds.
Where causes compete, hazards, the log-rank test and its p are those of the first cause, with the others' events as
censoring, and what is observed by a time is the incidence of Aalen and Johansen.
"""

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import pandas as pd
from lifelines.statistics import multivariate_logrank_test
from pydantic import Field, JsonValue
from scipy import stats

from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.survival import Survival
from mil.errors import PredictionsError
from mil.fitted.decision_rules import GROUP_RULES, MEDIAN, group_plan
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import Estimate, Model, Number, Section
from mil.report.sections.operating_points import FittedCuts
from mil.stats import cox_regression
from mil.stats.cox_regression import NotEstimableError
from mil.stats.estimate import LEVEL
from mil.stats.observed_risk import restricted_mean, risk_at, survival_at

logger = logging.getLogger(__name__)


class AtTime(Model):
    """What is observed by a time."""

    time: float
    estimate: Estimate


class RiskGroup(Model):
    """The patients of one group, and what became of them."""

    name: str
    n: int
    events: int
    survival: tuple[AtTime, ...] = Field(default=(), title="Free of the event")
    incidence: tuple[AtTime, ...] = Field(default=(), title="Cumulative incidence")
    """in place of `survival` where causes compete"""


class LogRank(Model):
    """The test that all groups have the same hazard."""

    statistic: float
    freedom: int = Field(title="Degrees of freedom")
    p: float


class GroupContrast(Model):
    """A group compared with a group of lower risk."""

    group: str
    reference: str
    estimate: Estimate


class GroupMean(Model):
    """The mean of one group."""

    group: str
    estimate: Estimate


class RestrictedMean(Model):
    """Mean time without the event up to a time."""

    until: float
    groups: tuple[GroupMean, ...]
    differences: tuple[GroupContrast, ...]


class RiskGroups(Section):
    """How patients fare in the groups of risk that frozen cuts make."""

    key: ClassVar[str] = "groups"
    title: ClassVar[str] = "Risk groups"
    explanation: ClassVar[str] = "How patients fare in the groups that frozen cuts make."
    not_applicable: ClassVar[str] = "The endpoint is not a time to an event, or no fold could set a cut."
    position: ClassVar[int] = 60

    rule: dict[str, JsonValue]
    fitted: tuple[FittedCuts, ...] = Field(default=(), title="Who set the cuts")
    n: int
    events: int
    groups: tuple[RiskGroup, ...]
    log_rank_p: Number = None
    log_rank: LogRank | None = None
    hazard_ratios: tuple[GroupContrast, ...] = ()
    proportional_hazards_p: dict[str, Number] | None = None
    restricted_mean: RestrictedMean | None = None


def assigned(evaluation: Evaluation) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Return the reported patients with `group, time, event, code`, and what was fitted for each fold.

    A group is one of an ordered category, low before high. A patient whom several folds report counts once, as its
    first fold has it; a fold without cuts assigns nobody, and is listed with the reason.

    Raises:
        ConfigError: a rule with keys or shares that do not exist.
    """
    endpoint = evaluation.endpoint
    plan = group_plan(evaluation.tool.get("decision"), endpoint)
    if plan is None or not isinstance(endpoint, Survival):
        raise ValueError(f"{type(endpoint).__name__} has no risk groups")
    tables, fitted, names = [], list[dict[str, Any]](), list[str]()
    for fold, reported in rows_of(evaluation.table, "report"):
        state = evaluation.state(fold)
        try:
            decision = state.decision(plan)
            calls = decision.call(state.calibrated(reported))
        except PredictionsError as error:
            logger.warning("fold %s: %s", fold, error)
            fitted.append({"fold": fold, "cuts": None, "reason": str(error)})
            continue
        names = list(decision.calls)
        cut = {"cuts": list(decision.cuts), "columns": list(decision.columns)}
        fitted.append({"fold": fold, **cut, "on": decision.on, "n": decision.n})
        tables.append(reported.assign(group=calls))
    pooled = pd.concat(tables) if tables else evaluation.table.head(0).assign(group=[])
    ordered = pd.Categorical(pooled["group"], names, ordered=True)
    return outcomes(pooled.assign(group=ordered), endpoint), fitted


def outcomes(rows: pd.DataFrame, endpoint: Survival) -> pd.DataFrame:
    """Columns `time`, `event`, `code` and, where the rows have one, `group`; one row a patient."""
    once = rows.drop_duplicates("patient").set_index("patient")
    time, code = endpoint.encode(once)[:, :2].double().numpy().T
    kept = once[["group"]] if "group" in once else once[[]]
    return kept.assign(time=time, event=code == 1, code=code)


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Counts, curves at the stated times, hazard ratios, log-rank test and mean times; none without groups."""
    endpoint = evaluation.endpoint
    if not isinstance(endpoint, Survival):
        return None
    decision = evaluation.tool.get("decision")
    patients, fitted = assigned(evaluation)
    if patients.empty:
        return None
    times = sorted(map(float, evaluation.tool.get("times") or endpoint.horizons.values()))
    competing = isinstance(endpoint, CompetingRisks)
    names = [name for name in patients["group"].cat.categories if (patients["group"] == name).any()]
    until = _until(patients, times)
    return {
        "rule": dict(decision) if decision and decision.get("rule") in GROUP_RULES else MEDIAN,
        "fitted": fitted,
        "n": len(patients),
        "events": int(patients["event"].sum()),
        "groups": [_fared(name, patients[patients["group"] == name], times, competing) for name in names],
        **_tested(patients, names),
        **hazards(patients, names),
        "restricted_mean": None if competing else _means(patients, names, until),
    }


def _until(patients: pd.DataFrame, times: Sequence[float]) -> float:
    """How long every group is followed, or the last stated time where that is shorter."""
    followed = float(patients.groupby("group", observed=True)["time"].max().min())
    return min(followed, times[-1]) if times else followed


def _fared(name: str, patients: pd.DataFrame, times: Sequence[float], competing: bool) -> dict[str, Any]:
    time, code = patients["time"].to_numpy(), patients["code"].to_numpy()
    observed = risk_at if competing else survival_at
    curve = [{"time": at} | as_dict(observed(time, code, at)) for at in times]
    counts = {"n": len(patients), "events": int(patients["event"].sum())}
    return {"name": name} | counts | {"incidence" if competing else "survival": curve}


def _tested(patients: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    if len(names) < 2 or not patients["event"].any():
        return {"log_rank_p": None, "log_rank": None}
    test = multivariate_logrank_test(patients["time"], patients["group"].astype(str), patients["event"])
    p = float(test.p_value)
    return {"log_rank_p": p, "log_rank": {"statistic": float(test.test_statistic), "freedom": len(names) - 1, "p": p}}


def hazards(patients: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Each group's hazard ratio against the lowest, and the p of tests whether it is the same at all times.

    Groups without an event are left out of the model, where they would be infinitely safe, and have no ratio.
    """
    reference, others = names[0], names[1:]
    ratios: dict[str, dict[str, Any]] = {name: _without(patients, name) for name in others}
    with_events = [name for name in others if patients.loc[patients["group"] == name, "event"].any()]
    own = patients[patients["group"].isin([reference, *with_events])]
    dummies = pd.DataFrame({name: (own["group"] == name).astype(float) for name in with_events}, index=own.index)
    moving: dict[str, float] | None = None
    if not patients.loc[patients["group"] == reference, "event"].any():
        ratios = {name: _none(f"no event in the {reference} group", patients) for name in others}
    elif with_events:
        try:
            model = cox_regression.fit(dummies, own["time"].to_numpy(), own["event"].to_numpy())
            ratios |= {name: as_dict(model.ratio(name)) for name in with_events}
            moving = model.proportionality()
        except NotEstimableError as reason:
            ratios |= {name: _none(str(reason), patients) for name in with_events}
    found = [{"group": name, "reference": reference} | ratio for name, ratio in ratios.items()]
    return {"hazard_ratios": found, "proportional_hazards_p": moving}


def _without(patients: pd.DataFrame, name: str) -> dict[str, Any]:
    return _none(f"no event in the {name} group", patients)


def _none(reason: str, patients: pd.DataFrame) -> dict[str, Any]:
    return {"value": None, "reason": reason, "n": len(patients), "events": int(patients["event"].sum())}


def _means(patients: pd.DataFrame, names: Sequence[str], until: float) -> dict[str, Any]:
    """Mean time without event up to a time, and how much each group loses against the one below it in risk."""
    found = {name: patients[patients["group"] == name] for name in names}
    means = {name: restricted_mean(g["time"].to_numpy(), g["event"].to_numpy(), until) for name, g in found.items()}
    counts = {name: {"n": len(group), "events": int(group["event"].sum())} for name, group in found.items()}
    groups = [{"group": name} | _normal(*means[name]) | counts[name] for name in names]
    apart = [
        {"group": higher, "reference": lower}
        | _normal(means[higher][0] - means[lower][0], means[higher][1] + means[lower][1])
        | {"n": counts[higher]["n"] + counts[lower]["n"]}
        for lower, higher in pairwise(names)
    ]
    return {"until": until, "groups": groups, "differences": apart}


def _normal(value: float, variance: float) -> dict[str, Any]:
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * variance**0.5
    beside = {"level": LEVEL, "method": "area under Kaplan-Meier, Greenwood, normal"}
    return {"value": value, "low": value - half, "high": value + half} | beside
