"""Patients in groups of risk by frozen cuts: how differently they fare.

The cuts come from training patients or were stated beforehand. Groups, unlike scores, can be pooled over folds. With
competing events, hazards and the log-rank test are about the first cause and treat the others as censoring; what is
observed by a time is the incidence of Aalen and Johansen.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from lifelines.statistics import multivariate_logrank_test
from pydantic import Field, JsonValue
from scipy import stats

from mil.endpoints.survival_view import SurvivalView
from mil.fitted.decision_rules import Plan, group_plan
from mil.fitted.rules import AbsoluteRiskRule
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import LEVEL, Drawing, Estimate, Model, Number, Report, Section
from mil.report.sections.applied_cuts import FittedCuts, call_fold
from mil.stats import cox_regression
from mil.stats.cox_regression import NotEstimableError
from mil.stats.estimate import format_counts, format_p
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


class PromisedRisk(Model):
    """The range of risks that a group by stated risks promises, and the risk that was observed."""

    group: str
    at_least: float | None = None
    below: float | None = None
    time: float
    """by which the event is counted"""
    estimate: Estimate = Field(title="Observed risk")

    @property
    def broken(self) -> bool:
        """Whether the observed risk lies outside the promised range."""
        value = self.estimate.value
        return value is not None and not self._contains(value)

    @property
    def shown(self) -> bool:
        """Whether the whole interval of the observed risk lies within the promised range."""
        low, high = self.estimate.low, self.estimate.high
        return low is not None and high is not None and self._contains(low) and self._contains(high)

    def _contains(self, risk: float) -> bool:
        return (self.at_least is None or risk >= self.at_least) and (self.below is None or risk < self.below)


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
    captions: ClassVar[Mapping[str, str]] = {
        "kaplan_meier": "Kaplan-Meier curves of the risk groups, with the numbers at risk",
        "incidence": "Cumulative incidence of each cause in the risk groups, with the numbers at risk",
    }

    rule: dict[str, JsonValue]
    fitted: tuple[FittedCuts, ...] = Field(default=(), title="Who set the cuts")
    n: int
    events: int
    unit: str | None = Field(default=None, title="Unit of times")
    groups: tuple[RiskGroup, ...]
    log_rank_p: Number = None
    log_rank: LogRank | None = None
    hazard_ratios: tuple[GroupContrast, ...] = ()
    next_hazard_ratios: tuple[GroupContrast, ...] = Field(
        default=(), title="Hazard ratios of higher groups against the next lower one"
    )
    by_hazard: tuple[str, ...] = Field(default=(), title="Groups from the lowest to the highest observed hazard")
    promises: tuple[PromisedRisk, ...] = Field(default=(), title="Risks that the groups promise")
    proportional_hazards_p: dict[str, float] | None = None
    restricted_mean: RestrictedMean | None = None

    def adjacent(self) -> list[GroupContrast]:
        """Return the hazard ratio of each group against the next lower one, from the lowest groups on."""
        names = [group.name for group in self.groups]
        contrasts = {(each.group, each.reference): each for each in (*self.hazard_ratios, *self.next_hazard_ratios)}
        return [contrasts[pair] for pair in zip(names[1:], names, strict=False) if pair in contrasts]

    def card_sentences(self) -> Iterator[str]:
        """Yield the unit of the times and the log-rank test."""
        if self.unit is not None:
            yield f"Times and restricted means are in {self.unit}."
        if self.log_rank_p is not None:
            counts = format_counts({"n": self.n, "events": self.events})
            yield f"Log-rank test between the groups: p {format_p(self.log_rank_p)}, {counts}."

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return what becomes of each group, with hazard ratios, log-rank test and mean times; None without groups."""
        view = evaluation.endpoint.survival
        if view is None:
            return None
        if _cannot_be_cut(evaluation):
            logger.info("no risk groups: the table has no training patients, whose scores would cut them")
            return None
        patients, fitted = assigned(evaluation)
        if patients.empty:
            return None
        times = sorted(map(float, evaluation.tool.times or view.horizons.values()))
        names = [name for name in patients["group"].cat.categories if (patients["group"] == name).any()]
        log_rank = _log_rank(patients, names)
        ratios, proportionality = hazards(patients, names)
        return cls(
            rule=_plan(evaluation).rule.terms(),
            fitted=fitted,
            n=len(patients),
            events=int(patients["event"].sum()),
            unit=view.unit,
            groups=tuple(_group(name, patients[patients["group"] == name], times, view) for name in names),
            log_rank_p=None if log_rank is None else log_rank.p,
            log_rank=log_rank,
            hazard_ratios=ratios,
            next_hazard_ratios=next_hazards(patients, names),
            by_hazard=_by_hazard(names, patients),
            promises=_promises(patients, evaluation),
            proportional_hazards_p=proportionality,
            restricted_mean=None if view.causes else _means(patients, names, _until(patients, times)),
        )

    def drawings(self, evaluation: Evaluation, report: Report) -> Iterator[Drawing]:
        """Yield the curves of the groups."""
        from mil.report.figures.incidence import incidence
        from mil.report.figures.kaplan_meier import kaplan_meier

        yield Drawing("kaplan_meier", kaplan_meier(evaluation, report))
        yield Drawing("incidence", incidence(evaluation, report))


def assigned(evaluation: Evaluation) -> tuple[pd.DataFrame, tuple[FittedCuts, ...]]:
    """Return the reported patients with `group, time, event, code`, and each fold's cuts.

    `group` is an ordered category, low before high. A patient whom several folds report counts once, as in the first
    fold; a fold that cannot set its cuts assigns nobody.

    Raises:
        ConfigError: a rule with keys or shares that do not exist.
    """
    plan = _plan(evaluation)
    tables, fitted, names = list[pd.DataFrame](), list[FittedCuts](), tuple[str, ...]()
    for fold, rows in rows_of(evaluation.table, "report"):
        result = call_fold(evaluation, plan, fold, rows)
        fitted.append(result.fitted)
        if result.calls is not None:
            names = result.names
            tables.append(rows.assign(group=result.calls))
    pooled = pd.concat(tables or [evaluation.table.head(0).assign(group=[])])
    ordered = pd.Categorical(pooled["group"], list(names), ordered=True)
    return outcomes(pooled.assign(group=ordered), evaluation), tuple(fitted)


def _cannot_be_cut(evaluation: Evaluation) -> bool:
    """Return whether groups were not asked for and nobody could cut them: predictions of report patients alone."""
    fitted = any(state.risk_groups or state.decisions for state in evaluation.states.values())
    trained = (evaluation.table["role"] == "train").any()
    return not (trained or fitted or evaluation.tool.decision_of_single())


def _plan(evaluation: Evaluation) -> Plan:
    plan = group_plan(evaluation.tool.decision_of_single(), evaluation.endpoint)
    if plan is None:
        raise ValueError("the endpoint is not a time to an event")
    return plan


def outcomes(rows: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """Return columns `time`, `event`, `code` and, where the rows have one, `group`; one row a patient."""
    view = evaluation.endpoint.survival
    if view is None:
        raise ValueError("the endpoint is not a time to an event")
    patients = rows.drop_duplicates("patient").set_index("patient")
    time, code = view.event_times(evaluation.endpoint.encode(patients)).numpy().T
    columns = patients[["group"]] if "group" in patients else patients[[]]
    return columns.assign(time=time, event=code == 1, code=code)


def hazards(patients: pd.DataFrame, names: Sequence[str]) -> tuple[tuple[GroupContrast, ...], dict[str, float] | None]:
    """Return each group's hazard ratio against the lowest, and the p of tests whether it is the same at all times.

    Groups without an event have no ratio and are left out of the model, where their hazard would be zero.
    """
    reference, higher = names[0], names[1:]
    has_events = {name: bool(patients.loc[patients["group"] == name, "event"].any()) for name in names}
    missing = {name: _missing(f"no event in the {name} group", patients) for name in higher}
    modelled = [name for name in higher if has_events[name]]
    if not has_events[reference]:
        return _contrasts(
            reference, dict.fromkeys(higher, _missing(f"no event in the {reference} group", patients))
        ), None
    if not modelled:
        return _contrasts(reference, missing), None
    rows = patients[patients["group"].isin([reference, *modelled])]
    dummies = pd.DataFrame({name: (rows["group"] == name).astype(float) for name in modelled}, index=rows.index)
    try:
        model = cox_regression.fit(dummies, rows["time"].to_numpy(), rows["event"].to_numpy())
        ratios = {name: model.ratio(name) for name in modelled}
        return _contrasts(reference, missing | ratios), model.proportionality()
    except NotEstimableError as error:
        failed = dict.fromkeys(modelled, _missing(str(error), patients))
        return _contrasts(reference, missing | failed), None


def next_hazards(patients: pd.DataFrame, names: Sequence[str]) -> tuple[GroupContrast, ...]:
    """Return the hazard ratio of each group from the third on against the next lower one, of the same Cox model.

    That of the second group is among those against the lowest.
    """
    contrasts = list[GroupContrast]()
    for lower, higher in pairwise(names[1:]):
        rest = [name for name in names if name not in (lower, higher)]
        ratios, _ = hazards(patients, [lower, *rest, higher])
        contrasts += [ratio for ratio in ratios if ratio.group == higher]
    return tuple(contrasts)


def _by_hazard(names: Sequence[str], patients: pd.DataFrame) -> tuple[str, ...]:
    """Return the groups by rising hazard, those without an event first; empty where a ratio is not estimable."""
    eventful = [name for name in names if patients.loc[patients["group"] == name, "event"].any()]
    ratios, _ = hazards(patients, eventful) if len(eventful) > 1 else ((), None)
    hazard = dict.fromkeys(names, 0.0) | dict.fromkeys(eventful[:1], 1.0)
    hazard |= {ratio.group: ratio.estimate.value for ratio in ratios if ratio.estimate.value is not None}
    estimable = len(eventful) == len(ratios) + 1 and all(ratio.estimate.value is not None for ratio in ratios)
    return tuple(sorted(names, key=hazard.__getitem__)) if estimable else ()


def _promises(patients: pd.DataFrame, evaluation: Evaluation) -> tuple[PromisedRisk, ...]:
    """Return what groups by stated risks promise, and what was observed; empty for groups by other cuts."""
    plan, view = _plan(evaluation), evaluation.endpoint.survival
    if view is None or not isinstance(plan.rule, AbsoluteRiskRule):
        return ()
    horizon, cuts = view.horizons[str(plan.rule.horizon)], plan.rule.stated_cuts()
    code_of_cause = 1 if plan.rule.cause is None else view.causes.index(plan.rule.cause) + 1
    promises = list[PromisedRisk]()
    for at, name in enumerate(plan.calls):
        members = patients[patients["group"] == name]
        if members.empty:
            continue
        time, code = members["time"].to_numpy(), members["code"].to_numpy()
        of_cause = np.where(code == code_of_cause, 1, np.where(code > 0, 2, 0))
        promises.append(
            PromisedRisk(
                group=name,
                at_least=cuts[at - 1] if at else None,
                below=cuts[at] if at < len(cuts) else None,
                time=horizon,
                estimate=risk_at(time, of_cause.astype(np.float64), horizon),
            )
        )
    return tuple(promises)


def _contrasts(reference: str, estimates: Mapping[str, Estimate]) -> tuple[GroupContrast, ...]:
    return tuple(
        GroupContrast(group=name, reference=reference, estimate=estimate) for name, estimate in estimates.items()
    )


def _missing(reason: str, patients: pd.DataFrame) -> Estimate:
    return Estimate.missing(reason, _counts(patients))


def _counts(patients: pd.DataFrame) -> dict[str, int]:
    return {"n": len(patients), "events": int(patients["event"].sum())}


def _until(patients: pd.DataFrame, times: Sequence[float]) -> float:
    """Return how long every group is followed, or the last stated time where that is shorter."""
    followed = float(patients.groupby("group", observed=True)["time"].max().min())
    return min(followed, times[-1]) if times else followed


def _group(name: str, patients: pd.DataFrame, times: Sequence[float], view: SurvivalView) -> RiskGroup:
    time, code = patients["time"].to_numpy(), patients["code"].to_numpy()
    observed = risk_at if view.causes else survival_at
    curve = tuple(AtTime(time=at, estimate=observed(time, code, at)) for at in times)
    return RiskGroup(
        name=name,
        n=len(patients),
        events=int(patients["event"].sum()),
        survival=() if view.causes else curve,
        incidence=curve if view.causes else (),
    )


def _log_rank(patients: pd.DataFrame, names: Sequence[str]) -> LogRank | None:
    if len(names) < 2 or not patients["event"].any():
        return None
    test = multivariate_logrank_test(patients["time"], patients["group"].astype(str), patients["event"])
    return LogRank(statistic=float(test.test_statistic), freedom=len(names) - 1, p=float(test.p_value))


def _means(patients: pd.DataFrame, names: Sequence[str], until: float) -> RestrictedMean:
    """Return the mean time without the event up to a time, and the loss of each group against the next lower one."""
    groups = {name: patients[patients["group"] == name] for name in names}
    means = {name: restricted_mean(g["time"].to_numpy(), g["event"].to_numpy(), until) for name, g in groups.items()}
    differences = []
    for lower, higher in pairwise(names):
        counts = {"n": len(groups[higher]) + len(groups[lower])}
        (value, variance), (base, base_variance) = means[higher], means[lower]
        estimate = _normal(value - base, variance + base_variance, counts)
        differences.append(GroupContrast(group=higher, reference=lower, estimate=estimate))
    return RestrictedMean(
        until=until,
        groups=tuple(GroupMean(group=name, estimate=_normal(*means[name], _counts(groups[name]))) for name in names),
        differences=tuple(differences),
    )


def _normal(value: float, variance: float, counts: Mapping[str, int]) -> Estimate:
    half_width = float(stats.norm.ppf((1 + LEVEL) / 2)) * variance**0.5
    method = "area under Kaplan-Meier, Greenwood without bias, normal"
    return Estimate(value=value, low=value - half_width, high=value + half_width, method=method, counts=dict(counts))
