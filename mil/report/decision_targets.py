"""What the rules of a tool's decisions ask for, and what was reached among the reported patients."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydantic import JsonValue

from mil.report.page.words import named
from mil.report.report_parts import EndpointReport, reports_by_endpoint
from mil.report.schema import Estimate, Report
from mil.report.sections.operating_point import OperatingPoint
from mil.report.sections.operating_points import OperatingPoints

MISSED, NOT_SHOWN, REACHED = "not reached", "reached, but not shown by so few patients", "reached"


class DecisionTarget(NamedTuple):
    """A number that a decision's rule asks for."""

    decision: str
    measure: str
    at_least: float
    estimate: Estimate
    """what was reached, of the reported patients"""
    source: str
    """file and key of the decision in the report"""

    @property
    def aim(self) -> str:
        """What is asked for, in words."""
        return f"{measure_name(self.measure)} of at least {self.at_least:g}"

    @property
    def verdict(self) -> str:
        """Whether it was reached: by the value, and by the lower bound."""
        if self.estimate.value is None or self.estimate.value < self.at_least:
            return MISSED
        return REACHED if self.estimate.low is not None and self.estimate.low >= self.at_least else NOT_SHOWN


def decision_targets(part: EndpointReport) -> Iterator[DecisionTarget]:
    """Yield every number that the decisions of one endpoint ask for and that these patients can show."""
    if (section := part.report.section(OperatingPoints)) is None:
        return
    for at, point in enumerate(section.decisions):
        source = f"{part.section_source(section)}.decisions[{at}]"
        for measure, at_least in targets_of(point.rule):
            if (estimate := estimate_of(point, measure)) is not None and estimate.value is not None:
                yield DecisionTarget(point.name, measure, at_least, estimate, source)


def targets_in_words(report: Report) -> str:
    """Return which of the asked numbers were missed, not shown and reached, the worst first."""
    targets = [
        (part.headed(target.decision), target)
        for part in reports_by_endpoint(report)
        for target in decision_targets(part)
    ]
    texts = []
    for verdict in (MISSED, NOT_SHOWN, REACHED):
        members = [(name, target) for name, target in targets if target.verdict == verdict]
        listed = ", ".join(f"{name} {target.aim}: {target.estimate.described}" for name, target in members)
        texts += [f"{verdict}: {listed}"] if members else []
    return "; ".join(texts) or "nothing is asked for"


def targets_of(rule: Mapping[str, JsonValue]) -> Iterator[tuple[str, float]]:
    """Yield the measures that a rule, as the report states it, asks for, with the least value of each."""
    if rule.get("rule") in ("sensitivity", "specificity"):
        yield str(rule["rule"]), float(str(rule["at_least"]))
    for side in ("out", "in"):
        targets = rule.get(side)
        if isinstance(targets, Mapping):
            yield from ((measure, float(str(target))) for measure, target in targets.items())


def estimate_of(point: OperatingPoint, measure: str) -> Estimate | None:
    """Return a measure at the cut that it is asked of: the lowest rules out, the highest rules in."""
    out, into = point.lowest, point.highest
    if out is None or into is None:
        return None
    by_measure = {
        "sensitivity": out.sensitivity,
        "npv": out.npv,
        "specificity": into.specificity,
        "ppv": into.ppv,
    }
    return by_measure.get(measure)


def measure_name(measure: str) -> str:
    """Return a measure as it stands within a sentence: `sensitivity`, `NPV`."""
    return named(measure) if named(measure).isupper() else measure
