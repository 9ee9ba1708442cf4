"""One decision and what it did to the reported patients."""

from typing import Annotated

from pydantic import Field, JsonValue

from mil.report.schema import PAGE_ONLY, Confusion, Estimate, Model
from mil.report.sections.applied_cuts import FittedCuts


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


class DecisionFacts(Model):
    """What a decision is, and who set its cuts."""

    name: str
    rule: dict[str, JsonValue]
    role: str | None = None
    calls: tuple[str, ...]
    cuts: tuple[tuple[float, ...] | None, ...] = Field(title="Cuts by fold")
    fitted: tuple[FittedCuts, ...] = Field(default=(), title="Who set the cuts")
    undecided_patients: int | None = None


class OperatingPoint(DecisionFacts):
    """One decision and what it did to the reported patients.

    A decision about a yes-or-no question has `sensitivity` and what belongs to it, the choice of the likeliest class
    has `accuracy` and `recall`, groups by risk or score have `groups`.
    """

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
    per_1000: Annotated[tuple[CallRate, ...], PAGE_ONLY] = ()
    at_prevalence: Annotated[tuple[AtPrevalence, ...], PAGE_ONLY] = ()
    groups: tuple[GroupCounts, ...] = ()
