"""One decision and what it did to the reported patients."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, JsonValue

from mil.report.schema import PAGE_ONLY, Confusion, Estimate, Model, Number
from mil.report.sections.applied_cuts import FittedCuts

CUT, LOWER, UPPER = "cut", "lower cut", "upper cut"
"""Names of a single cut and of two."""


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


class OutputMeaning(Model):
    """What one output of a decision means for the patient."""

    name: str
    meaning: str


class DecisionFacts(Model):
    """What a decision is, and who set its cuts."""

    name: str
    rule: dict[str, JsonValue]
    role: str | None = None
    calls: tuple[str, ...]
    outputs: tuple[OutputMeaning, ...] = ()
    """what each call means, where the tool says it"""
    cuts: tuple[tuple[float, ...] | None, ...] = Field(title="Cuts by fold")
    fitted: tuple[FittedCuts, ...] = Field(default=(), title="Who set the cuts")
    undecided_patients: int | None = None


class AtCut(Model):
    """One cut of a yes-or-no question: patients at or above it count as positive, patients below it as negative.

    The lower of two cuts has what ruling out is judged by, the upper what ruling in is judged by; a single cut has the
    predictive values and likelihood ratios of both sides.
    """

    name: str
    """`cut`, or `lower cut` and `upper cut`"""
    cut: Number = None
    """None where the folds cut differently; `OperatingPoint.cuts` has each"""
    sensitivity: Estimate
    """share of the positives at or above the cut"""
    specificity: Estimate
    """share of the negatives below it"""
    npv: Estimate | None = None
    """share of negatives among patients below the cut"""
    lr_negative: Estimate | None = None
    """(1 - sensitivity) / specificity of this cut"""
    ruled_out: Estimate | None = None
    """share of all patients who are below the cut; None where the rule rules nobody out"""
    ppv: Estimate | None = None
    """share of positives among patients at or above the cut"""
    lr_positive: Estimate | None = None
    """sensitivity / (1 - specificity) of this cut"""
    ruled_in: Estimate | None = None
    """share of all patients who are at or above the cut; None where the rule rules nobody in"""

    def estimates(self) -> Iterator[tuple[str, Estimate]]:
        """Yield every measure of this cut with its name, as it is in report.json."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Estimate):
                yield name, value


class OperatingPoint(DecisionFacts):
    """One decision and what it did to the reported patients.

    A decision about a yes-or-no question has `at_cuts`, the choice of the likeliest class has `accuracy` and `recall`,
    groups by risk or score have `groups`.
    """

    undecided: Estimate | None = None
    """share of the patients between two cuts"""
    at_cuts: tuple[AtCut, ...] = Field(default=(), title="At each cut")
    """from the lowest"""
    n: int | None = None
    positives: int | None = None
    negatives: int | None = None
    primary_interval: str | None = None
    confusion: Confusion | None = None
    prevalence: Estimate | None = None
    accuracy: Estimate | None = None
    recall: dict[str, Estimate] = Field(default={})
    abstained: Estimate | None = None
    coverage: Estimate | None = None
    per_1000: Annotated[tuple[CallRate, ...], PAGE_ONLY] = ()
    at_prevalence: Annotated[tuple[AtPrevalence, ...], PAGE_ONLY] = ()
    groups: tuple[GroupCounts, ...] = ()

    @property
    def lowest(self) -> AtCut | None:
        """The cut below which patients are ruled out; None for decisions without a cut of a yes-or-no question."""
        return self.at_cuts[0] if self.at_cuts else None

    @property
    def highest(self) -> AtCut | None:
        """The cut from which on patients are ruled in; None for decisions without a cut of a yes-or-no question."""
        return self.at_cuts[-1] if self.at_cuts else None
