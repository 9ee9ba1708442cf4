"""Survival: how well risks order patients, how far they are from what happened, and how long patients were followed.

Ranks are compared within folds and averaged over them. Weights by the inverse probability of censoring, and the curve
that a model has to beat, come from each fold's training patients; where a fold has none, from its reported ones, and it
is said.

Where causes compete, everything is about the first one, as if the others' patients never had it; what is said of the
others has a part of its own, by their risks.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.survival import Survival
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.sections.horizon import calibration, columns
from mil.report.sections.recalibration import recalibrated
from mil.stats.bootstrap import Fold, Score
from mil.stats.bootstrap_intervals import intervals
from mil.stats.censoring import Censoring
from mil.stats.observed_risk import incidence_at, median_follow_up, risk_at
from mil.stats.survival_metrics import (
    brier_at,
    c_index,
    competing_c_index,
    cumulative_dynamic_auc,
    integrated_brier,
    uno_c,
)
from mil.stats.weights import Floats, as_given, as_rows, ratio

AT_RISK = 0.1
"""The share of patients still at risk at tau, where no times are stated."""
FEWEST = 3
"""Horizons, below which no Brier score is integrated."""
_WOLBERS = "Wolbers 2014: who has another event first stays at risk"
_MODEL, _NULL, _SCALED = "model", "kaplan_meier", "scaled"


@dataclass(frozen=True)
class Plan:
    """What is asked of every fold."""

    endpoint: Survival
    times: Mapping[str, float]
    """by name, rising"""
    risks: Mapping[str, str]
    """by horizon, rising: the column of the risk"""
    tau: float
    rank: str
    """the column that orders patients"""
    cause: int = 1
    """the event in question"""

    @property
    def scores(self) -> list[str]:
        """The columns that a fold's logits are made of."""
        return [self.rank, *self.risks.values()]

    def codes(self, target: Tensor) -> Tensor:
        """Time, and 0 for censored, 1 for the event in question, 2 for another one, `(p, 2)`."""
        code = target[:, 1].clone()
        code[target[:, 1] > 0] = 2
        code[target[:, 1] == self.cause] = 1
        return torch.stack([target[:, 0], code], 1).double()

    @property
    def moments(self) -> Floats:
        """Of the horizons, `(h,)`."""
        return np.array([self.endpoint.horizons[name] for name in self.risks])

    @property
    def competing(self) -> bool:
        """Whether there are events beside the first one."""
        return isinstance(self.endpoint, CompetingRisks)


@dataclass(frozen=True)
class Reference:
    """What a fold's metrics are measured against."""

    censoring: Censoring
    null: Floats
    """at each horizon the chance to be without the first event, the same for all patients, `(h,)`"""
    site: NDArray[np.intp] | None
    """of the reported patients, -1 where it is not known, `(p,)`"""


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Discrimination, Brier scores, follow-up and calibration; none where the endpoint is no time to an event."""
    if not isinstance(evaluation.endpoint, Survival):
        return None
    rows, table = evaluation.reported, evaluation.table
    time, code = evaluation.endpoint.encode(rows)[:, :2].double().numpy().T
    plan, tau = planned(evaluation, time)
    numbers = _measured(evaluation, plan, evaluation.counts)
    after = recalibrated(evaluation)
    trained = all(len(train) for _, train in rows_of(table, "train"))
    return {
        **evaluation.counts,
        "unit": evaluation.endpoint.unit,
        "median_follow_up": as_dict(median_follow_up(time, code)),
        "tau": tau,
        "reference": "training patients" if trained else "reported patients, in folds without training rows",
        "times": [
            {"name": name, "time": at, "observed": as_dict(risk_at(time, code, at))} for name, at in plan.times.items()
        ],
        **_discrimination(numbers, plan),
        **_errors(numbers, plan),
        "calibration": calibration(evaluation),
        "recalibration": None if after is None else {"method": after.method, "on": after.on, "folds": after.fitted},
        "other_causes": list(_others(evaluation, plan)),
    }


def planned(evaluation: Evaluation, time: Floats) -> tuple[Plan, dict[str, Any]]:
    """The times, and tau: the last stated one, or where a tenth of the reported patients is still at risk."""
    endpoint = evaluation.endpoint
    assert isinstance(endpoint, Survival)
    names = {at: name for name, at in endpoint.horizons.items()}
    stated = [float(at) for at in evaluation.tool.get("times") or endpoint.horizons.values()]
    times = {names.get(at, f"{at:g}"): at for at in sorted(stated)}
    tau = max(times.values()) if times else float(np.quantile(time, 1 - AT_RISK))
    risks = sorted(columns(evaluation).items(), key=lambda item: endpoint.horizons[item[0]])
    said = {"value": tau, "set_by": "the last stated time" if times else "a tenth of the patients still at risk"}
    return Plan(endpoint, times, dict(risks), tau, endpoint.rank), said | {
        "at_risk": int((time >= tau).sum()),
        "n": len(time),
    }


def _others(evaluation: Evaluation, first: Plan) -> Iterator[dict[str, Any]]:
    """Each further cause at its horizons, its patients in order of the risk until the last of them."""
    endpoint = evaluation.endpoint
    others = endpoint.causes[1:] if isinstance(endpoint, CompetingRisks) else ()
    for cause, name in enumerate(others, 2):
        risks = sorted(columns(evaluation, cause).items(), key=lambda item: first.endpoint.horizons[item[0]])
        if not risks:
            continue
        times = {horizon: first.endpoint.horizons[horizon] for horizon, _ in risks}
        plan = Plan(first.endpoint, times, dict(risks), max(times.values()), risks[-1][1], cause)
        time, code = plan.codes(endpoint.encode(evaluation.reported)).numpy().T
        counts = {"n": len(time), "events": int((code == 1).sum())}
        numbers = _measured(evaluation, plan, counts)
        observed = [
            {"name": label, "time": at, "observed": as_dict(risk_at(time, code, at))} for label, at in times.items()
        ]
        found = _discrimination(numbers, plan) | _errors(numbers, plan)
        yield {"name": name, **counts, "score": plan.rank, "times": observed, **found}


def _measured(evaluation: Evaluation, plan: Plan, counts: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Every metric of a cause."""
    references = [_reference(evaluation, plan, fold) for fold, _ in rows_of(evaluation.table, "report")]
    found = intervals(_score(plan, references), _folds(evaluation, plan), evaluation.resamples, evaluation.seed)
    return {name: as_dict(interval) | counts for name, interval in found.items()}


def _reference(evaluation: Evaluation, plan: Plan, fold: Hashable) -> Reference:
    reported, train = (dict(rows_of(evaluation.table, role))[fold] for role in ("report", "train"))
    source = train if len(train) else reported
    time, code = plan.codes(plan.endpoint.encode(source.set_index("patient"))).numpy().T
    null = np.array([1 - float(incidence_at(time, code, at)) for at in plan.moments])
    patients = evaluation.patients
    site = None
    if patients is not None and "site" in patients:
        known = patients["site"].reindex(reported["patient"])
        site = pd.factorize(known.where(known.astype(str).str.strip() != ""))[0]
    return Reference(Censoring.fit(time, code), null, site)


def _folds(evaluation: Evaluation, plan: Plan) -> list[Fold]:
    """With scores and the fold's place as logits `(p, s + 1)`: a metric has to know whose censoring holds."""
    found = list[Fold]()
    for fold, (_, rows) in zip(evaluation.folds, rows_of(evaluation.table, "report"), strict=True):
        scores = rows[plan.scores].assign(place=len(found)).to_numpy(np.float64)
        found.append(fold._replace(logits=torch.from_numpy(scores), target=plan.codes(fold.target)))
    return found


def _score(plan: Plan, references: Sequence[Reference]) -> Score:
    """Every metric of one fold, for `intervals`."""

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        values, (time, code) = logits.numpy(), target.numpy().T
        reference = references[int(values[0, -1])]
        scores = dict(zip(plan.scores, values.T, strict=False))
        return _ordered(plan, reference, scores, time, code, weight) | _missed(
            plan, reference, scores, time, code, weight
        )

    return score


def _ordered(
    plan: Plan, reference: Reference, scores: Mapping[str, Floats], time: Floats, code: Floats, weight: Floats | None
) -> dict[str, Floats]:
    risk, censoring = scores[plan.rank], reference.censoring
    concordance = competing_c_index if plan.competing else c_index
    found = {"c_index": concordance(risk, time, code, weight)}
    found["uno_c"] = uno_c(risk, time, code, plan.tau, censoring, weight)
    for name, at in plan.times.items():
        own = scores[plan.risks.get(name, plan.rank)]
        found[f"auc_{name}"] = cumulative_dynamic_auc(own, time, code, at, censoring, weight)
    if reference.site is not None:
        found["within_site"] = within(risk, time, code, reference.site, weight)
    return found


def _missed(
    plan: Plan, reference: Reference, scores: Mapping[str, Floats], time: Floats, code: Floats, weight: Floats | None
) -> dict[str, Floats]:
    """Brier scores of the model and of the same curve for everybody, at each horizon and over them."""
    own = 1 - np.array([scores[column] for column in plan.risks.values()]).T  # (p, h)
    found = {}
    for kind, survival in ((_MODEL, own), (_NULL, reference.null)):
        for place, (name, at) in enumerate(zip(plan.risks, plan.moments, strict=True)):
            there = survival[..., place]
            found[f"brier_{name}_{kind}"] = brier_at(there, time, code, at, reference.censoring, weight)
        if len(plan.risks) >= FEWEST:
            found[f"integrated_{kind}"] = integrated_brier(
                survival, time, code, plan.moments, reference.censoring, weight
            )
    for name in {key.removesuffix(f"_{_NULL}") for key in found if key.endswith(_NULL)}:
        found[f"{name}_{_SCALED}"] = 1 - ratio(found[f"{name}_{_MODEL}"], found[f"{name}_{_NULL}"])
    return found


def within(risk: Floats, time: Floats, code: Floats, stratum: NDArray[np.intp], weight: Floats | None = None) -> Floats:
    """Harrell's C of pairs from one stratum, all strata together, `()` or `(r,)`; a stratum below zero is left out.

    A model that only knows the site has 1/2. Patients with a competing event outlive every first event.
    """
    rows = as_rows(weight, len(risk))
    ends, event = np.where(code > 1, np.inf, time), code == 1
    won, pairs = np.zeros(len(rows)), np.zeros(len(rows))
    for one in np.unique(stratum[stratum >= 0]):
        own = np.flatnonzero(stratum == one)
        seen = own[event[own]]
        outlived = (ends[own] > ends[seen, None]) | ((ends[own] == ends[seen, None]) & ~event[own])  # (e, s)
        better = (risk[own] < risk[seen, None]) + 0.5 * (risk[own] == risk[seen, None])
        pairs += np.einsum("re,re->r", rows[:, seen], rows[:, own] @ outlived.T)
        won += np.einsum("re,re->r", rows[:, seen], rows[:, own] @ (outlived * better).T)
    return as_given(ratio(won, pairs), weight)


def _discrimination(numbers: Mapping[str, dict[str, Any]], plan: Plan) -> dict[str, Any]:
    definition = {"definition": _WOLBERS} if plan.competing else {}
    return {
        "c_index": numbers["c_index"],
        "uno_c": _explained(numbers["uno_c"]) | {"tau": plan.tau} | definition,
        "auc": [
            {"name": name, "time": at, "score": plan.risks.get(name, plan.rank)} | _explained(numbers[f"auc_{name}"])
            for name, at in plan.times.items()
        ],
        "c_index_within_site": numbers.get("within_site"),
    }


def _errors(numbers: Mapping[str, dict[str, Any]], plan: Plan) -> dict[str, Any]:
    kinds = (_MODEL, _NULL, _SCALED)
    scores = [
        {"name": name, "time": float(at)} | {kind: _explained(numbers[f"brier_{name}_{kind}"]) for kind in kinds}
        for name, at in zip(plan.risks, plan.moments, strict=True)
    ]
    if len(plan.risks) < FEWEST:
        reason = f"{len(plan.risks)} horizons have a predicted risk, an integral needs {FEWEST}"
        return {"brier": scores, "integrated_brier": {"value": None, "reason": reason}}
    over = {"from": float(plan.moments[0]), "to": float(plan.moments[-1]), "rule": "trapezoids over the horizons"}
    whole = {kind: _explained(numbers[f"integrated_{kind}"]) for kind in kinds}
    return {"brier": scores, "integrated_brier": over | {"horizons": list(plan.risks)} | whole}


def _explained(number: dict[str, Any]) -> dict[str, Any]:
    """With the reason where no fold defines it."""
    if number["value"] is not None:
        return number
    reason = "no fold has events and patients without one on both sides of the time, within the reference's follow-up"
    return number | {"value": None, "reason": reason}
