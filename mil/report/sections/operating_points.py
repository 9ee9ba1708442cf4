"""What the tool's frozen decisions did to the reported patients.

Each fold's cuts come from its own train or select patients; calls, unlike scores, can be pooled over folds, and a
patient whom several folds report counts once, as the first of them that can decide has it. Who is neither ruled out nor
in is no error: sensitivity is the share of positives who were not ruled out, specificity the share of negatives who
were not ruled in, so that with two cuts they are the sensitivity of the lower and the specificity of the upper.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from mil.endpoints.classification import Classes
from mil.errors import ConfigError, PredictionsError
from mil.fitted.decision import ABSTAINED
from mil.fitted.decision_rules import Plan, plans
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import Confusion, Estimate, Model, Number, Section
from mil.stats.proportions import UNDEFINED, likelihood_ratio, predictive_value, proportion, wilson

logger = logging.getLogger(__name__)


class FittedCuts(Model):
    """The cuts of one fold, and the patients who set them."""

    fold: int | str
    columns: tuple[str, ...] | None = None
    """summed into the score that is cut"""
    cuts: tuple[float, ...] | None = None
    """None where these patients cannot set them; `reason` says why"""
    on: str | None = None
    n: int | None = None
    positives: int | None = None
    achieved: dict[str, Number] = Field(default={})
    """rates of the patients who set the cuts"""
    note: str | None = None
    reason: str | None = None


class CallRate(Model):
    """Of 1,000 patients, how many are positive (or negative) and get this call."""

    call: str
    positive: bool
    estimate: Estimate = Field(title="Of 1,000 patients")


class AtPrevalence(Model):
    """Predictive values, were `prevalence` the proportion of positives."""

    prevalence: float
    ppv: Estimate
    npv: Estimate
    per_1000: tuple[CallRate, ...]


class GroupCounts(Model):
    """Patients with one call."""

    name: str
    counts: dict[str, int]


class OperatingPoint(Model):
    """One decision and what it did to the reported patients.

    A decision about a yes-or-no question has `sensitivity` and what belongs to it, the choice of the likeliest class
    has `accuracy` and `recall`, groups by risk or score have `groups`.
    """

    name: str
    rule: dict[str, JsonValue]
    role: str | None = None
    calls: tuple[str, ...]
    cuts: tuple[tuple[float, ...] | None, ...] = Field(title="Cuts by fold")
    fitted: tuple[FittedCuts, ...] = Field(default=(), title="Who set the cuts")
    undecided_patients: int | None = None
    n: int | None = None
    positives: int | None = None
    negatives: int | None = None
    primary_interval: str | None = None
    confusion: Confusion | None = None
    prevalence: Estimate | None = None
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    ppv: Estimate | None = None
    npv: Estimate | None = None
    lr_positive: Estimate | None = None
    lr_negative: Estimate | None = None
    ruled_out: Estimate | None = None
    ruled_in: Estimate | None = None
    indeterminate: Estimate | None = None
    accuracy: Estimate | None = None
    recall: dict[str, Estimate] = Field(default={})
    abstained: Estimate | None = None
    coverage: Estimate | None = None
    per_1000: tuple[CallRate, ...] = ()
    at_prevalence: tuple[AtPrevalence, ...] = ()
    groups: tuple[GroupCounts, ...] = ()


class OperatingPoints(Section):
    """What the tool's frozen decisions did to the reported patients."""

    key: ClassVar[str] = "operating_points"
    title: ClassVar[str] = "Operating points"
    explanation: ClassVar[str] = "What the frozen decisions did; their cuts were set without these patients."
    not_applicable: ClassVar[str] = "The tool states no decision rule."
    position: ClassVar[int] = 20

    decisions: tuple[OperatingPoint, ...]


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """`{"decisions": [...]}`, one for each question or score that the tool decides; none without a rule.

    Raises:
        ConfigError: a rule that does not exist, or a prevalence that is none.
    """
    asked = plans(evaluation.tool.get("decision"), evaluation.endpoint)
    return {"decisions": [_operating(evaluation, plan) for plan in asked]} if asked else None


def pooled(evaluation: Evaluation, plan: Plan) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """What each fold's patients set, and the reported patients whom some fold decided, with their `call`.

    A fold whose patients cannot set the cuts decides nobody, and says why.
    """
    fitted, decided = [], [evaluation.table.head(0).assign(call=None)]
    for fold, rows in rows_of(evaluation.table, "report"):
        found, calls = _fold(evaluation, plan, fold, rows)
        fitted.append(found)
        if calls is not None:
            decided.append(rows.assign(call=calls))
    parts = decided[1:] or decided
    return fitted, pd.concat(parts).dropna(subset=["call"]).drop_duplicates("patient").set_index("patient")


def _fold(
    evaluation: Evaluation, plan: Plan, fold: Hashable, rows: pd.DataFrame
) -> tuple[dict[str, Any], NDArray[np.object_] | None]:
    try:
        state = evaluation.state(fold)
        decision = state.decision(plan)
        calls = decision.call(state.calibrated(rows))
    except PredictionsError as error:
        logger.warning("fold %s: %s", fold, error)
        return {
            "fold": fold,
            "columns": None,
            "cuts": None,
            "on": None,
            "n": 0,
            "positives": None,
            "reason": str(error),
        }, None
    kept = decision.model_dump(mode="json", include={"columns", "cuts", "on", "n", "positives", "achieved", "note"})
    return {"fold": fold, **kept}, calls


def _operating(evaluation: Evaluation, plan: Plan) -> dict[str, Any]:
    fitted, rows = pooled(evaluation, plan)
    found = {
        "name": plan.name,
        "rule": dict(plan.rule),
        "role": plan.rule.get("role"),
        "calls": list(plan.calls),
        "cuts": [each["cuts"] for each in fitted],
        "fitted": fitted,
        "undecided_patients": len(evaluation.reported) - len(rows),
    }
    if plan.question is not None:
        truth = plan.question.truth(rows)
        known = ~np.isnan(truth)
        counts = Counts.of(plan, rows["call"].to_numpy()[known], truth[known] == 1)
        return found | yes_no(counts, _prevalences(evaluation.tool))
    if isinstance(evaluation.endpoint, Classes):
        return found | _likeliest(rows["call"].to_numpy(), evaluation.endpoint.labels(rows), evaluation.endpoint, plan)
    groups = [{"name": name} | _counted(evaluation, rows[rows["call"] == name]) for name in plan.calls]
    return found | {"n": len(rows), "groups": groups}


def _counted(evaluation: Evaluation, rows: pd.DataFrame) -> dict[str, int]:
    return evaluation.endpoint.counts(evaluation.endpoint.encode(rows))


def _prevalences(tool: Mapping[str, Any]) -> list[float]:
    given = tool.get("prevalences") or []
    wrong = [share for share in given if not isinstance(share, int | float) or not 0 < share < 1]
    if wrong:
        raise ConfigError(f"prevalences: {wrong[0]!r}, expected shares between 0 and 1")
    return [float(share) for share in given]


@dataclass(frozen=True)
class Counts:
    """Patients by truth and call."""

    outer: tuple[str, str]
    """what is called ruled out, and in"""
    calls: tuple[str, ...]
    negatives: Mapping[str, int]
    """with each call"""
    positives: Mapping[str, int]

    @classmethod
    def of(cls, plan: Plan, call: NDArray[np.object_], positive: NDArray[np.bool_]) -> "Counts":
        """Of patients whose truth is known, `(p,)` each."""
        negatives, positives = (
            {name: int(((call == name) & (positive == side)).sum()) for name in plan.calls} for side in (False, True)
        )
        return cls(plan.outer, plan.calls, negatives, positives)

    def with_call(self, name: str) -> tuple[int, int, int, int]:
        """Positives with a call, all positives, negatives with it, all negatives."""
        return self.positives[name], sum(self.positives.values()), self.negatives[name], sum(self.negatives.values())


def yes_no(counts: Counts, prevalences: Sequence[float] = ()) -> dict[str, Any]:
    """Everything that is said of a yes-or-no question at its frozen cuts."""
    out, into = counts.outer
    missed, positives, cleared, negatives = counts.with_call(out)
    found, _, false, _ = counts.with_call(into)
    n = positives + negatives
    between = [name for name in counts.calls if name not in counts.outer]
    unsure = n - missed - cleared - found - false
    return {
        "n": n,
        "positives": positives,
        "negatives": negatives,
        "primary_interval": "Wilson",
        "confusion": {
            "classes": [out, into],
            "calls": list(counts.calls),
            "rows": [[side[name] for name in counts.calls] for side in (counts.negatives, counts.positives)],
        },
        "prevalence": as_dict(proportion(positives, n)),
        "sensitivity": as_dict(proportion(positives - missed, positives)),
        "specificity": as_dict(proportion(negatives - false, negatives)),
        "ppv": as_dict(proportion(found, found + false)),
        "npv": as_dict(proportion(cleared, cleared + missed)),
        "lr_positive": as_dict(likelihood_ratio(found, positives, false, negatives)),
        "lr_negative": as_dict(likelihood_ratio(missed, positives, cleared, negatives)),
        "ruled_out": as_dict(proportion(missed + cleared, n)),
        "ruled_in": as_dict(proportion(found + false, n)),
        **(_undecided(unsure, n) if between else {}),
        "per_1000": _thousand(counts),
        "at_prevalence": [_at(counts, share) for share in prevalences],
    }


def _undecided(unsure: int, n: int) -> dict[str, Any]:
    return {"indeterminate": as_dict(proportion(unsure, n)), "coverage": as_dict(proportion(n - unsure, n))}


def _at(counts: Counts, prevalence: float) -> dict[str, Any]:
    """Predictive values and numbers of patients were `prevalence` the share of positives."""
    out, into = counts.outer
    found, positives, false, negatives = counts.with_call(into)
    missed, _, cleared, _ = counts.with_call(out)
    ppv = predictive_value(found, positives, false, negatives, prevalence)
    npv = predictive_value(cleared, negatives, missed, positives, 1 - prevalence)
    return {
        "prevalence": prevalence,
        "ppv": as_dict(ppv),
        "npv": as_dict(npv),
        "per_1000": _thousand(counts, prevalence),
    }


def _thousand(counts: Counts, prevalence: float | None = None) -> list[dict[str, Any]]:
    """Of 1,000 patients how many are positive or negative with each call, as observed or at a stated prevalence."""
    cells = []
    total = sum(counts.positives.values()) + sum(counts.negatives.values())
    for positive, side in ((True, counts.positives), (False, counts.negatives)):
        own = sum(side.values())
        weight = 1.0 if prevalence is None else prevalence if positive else 1 - prevalence
        whole = total if prevalence is None else own
        for name in counts.calls:
            low, high = (1000 * weight * bound for bound in wilson(side[name], whole))
            share = 1000 * weight * side[name] / whole if whole else float("nan")
            cell = Estimate(value=share, low=low, high=high, method="Wilson", counts={"n": whole})
            cells.append({"call": name, "positive": positive} | as_dict(cell.explained(UNDEFINED)))
    return cells


def _likeliest(call: NDArray[np.object_], label: NDArray[np.int64], endpoint: Classes, plan: Plan) -> dict[str, Any]:
    """Of the likeliest class: right among those with a call, over all and within each class."""
    truth = np.array(endpoint.classes, dtype=object)[label]
    decided = call != ABSTAINED
    right = (call == truth) & decided
    recall = {
        name: as_dict(proportion(int(right[truth == name].sum()), int(decided[truth == name].sum())))
        for name in endpoint.classes
    }
    rows = [[int(((truth == name) & (call == said)).sum()) for said in plan.calls] for name in endpoint.classes]
    return {
        "n": len(call),
        "primary_interval": "Wilson",
        "confusion": {"classes": list(endpoint.classes), "calls": list(plan.calls), "rows": rows},
        "accuracy": as_dict(proportion(int(right.sum()), int(decided.sum()))),
        "recall": recall,
        "abstained": as_dict(proportion(int((~decided).sum()), len(call))),
        "coverage": as_dict(proportion(int(decided.sum()), len(call))),
    }
