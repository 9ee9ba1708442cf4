"""Where a tool falls short, in sentences made from its report: targets that were not reached, or not shown."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from mil.cards.card_facts import REPORT, Facts
from mil.cards.content import Field
from mil.cards.section_parts import EndpointReport, endpoint_reports
from mil.report.page.words import below, named
from mil.report.schema import Estimate
from mil.report.sections.calibration import ACCEPTABLE, Calibration, QuestionCalibration
from mil.report.sections.comparator import comparators
from mil.report.sections.horizon import HorizonCalibration
from mil.report.sections.operating_point import CUT, UPPER, OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.report.sections.time_to_event import TimeToEvent
from mil.report.sections.utility import Utility

FEW = 0.1
"""A cut that decides for a smaller share of the patients saves hardly any work."""
MOST = 0.5
"""Share of the patients that a rule with abstention must decide to be useful for most of them."""


def shortfalls(facts: Facts) -> list[Field]:
    """Return what a reader must not overlook, with the numbers."""
    fields = list(_compared(facts))
    for part in endpoint_reports(facts):
        fields += [*_decisions(part), *_calibration(part), *_decision_curves(part)]
    return [*fields, *_gates(facts)]


def _compared(facts: Facts) -> Iterator[Field]:
    """Yield simpler models that are better, and a best possible model that is better beyond the intervals."""
    metric, report = facts.metric, facts.all_folds
    if metric is None:
        return
    for section in comparators(report):
        gain = section.difference[metric]
        if gain.high is not None and gain.high < 0:
            text = f"worse than {section.name}: difference in {named(metric)} {gain.described}"
            yield Field("Simpler model", text, below(facts.source, "sections", section.key, "difference", metric))
    oracle, value = report.section(Oracle), report.metrics[metric]
    best = None if oracle is None else oracle.metrics[metric]
    if best is not None and value.high is not None and best.low is not None and value.high < best.low:
        text = f"{named(metric)} {value} where {best} could be reached, {value.population}"
        yield Field("Best possible", text, below(facts.source, "sections", Oracle.key, "metrics", metric))


def _decisions(part: EndpointReport) -> Iterator[Field]:
    if (section := part.report.section(OperatingPoints)) is None:
        return
    for at, point in enumerate(section.decisions):
        if lines := [*_missed_targets(point), *_usefulness(point)]:
            yield Field(part.headed(f"Cut of {point.name}"), lines, f"{part.section_source(section)}.decisions[{at}]")


def _missed_targets(point: OperatingPoint) -> Iterator[str]:
    """Yield the measures for which the rule asks for a number that is not reached."""
    if point.lowest is None or point.highest is None:
        return
    reached = {
        "sensitivity": point.lowest.sensitivity,
        "specificity": point.highest.specificity,
        "ppv": point.highest.ppv,
        "npv": point.lowest.npv,
    }
    for measure, target in _targets(point.rule):
        estimate = reached.get(measure)
        if estimate is None or estimate.value is None:
            continue
        name = named(measure) if named(measure).isupper() else measure
        text = f"{name} of at least {target:g} was asked, {estimate} was reached, {estimate.population}"
        if estimate.value < target:
            yield f"{text}: not reached"
        elif estimate.low is not None and estimate.low < target:
            yield f"{text}: reached, but not shown by so few patients"


def _targets(rule: Mapping[str, JsonValue]) -> Iterator[tuple[str, float]]:
    if rule.get("rule") in ("sensitivity", "specificity"):
        yield str(rule["rule"]), float(str(rule["at_least"]))
    for side in ("out", "in"):
        targets = rule.get(side)
        if isinstance(targets, Mapping):
            yield from ((measure, float(str(target))) for measure, target in targets.items())


def _usefulness(point: OperatingPoint) -> Iterator[str]:
    """Say whether a cut decides for few patients, and whether those it rules out (or in) differ from the rest."""
    for cut in point.at_cuts:
        if cut.name == UPPER or (cut.name == CUT and point.rule.get("rule") == "specificity"):
            yield from _few("ruled in", cut.ruled_in, "sensitivity", cut.sensitivity)
            yield from _no_better("ruled in", "lr_positive", cut.lr_positive)
        else:
            yield from _few("ruled out", cut.ruled_out, "specificity", cut.specificity)
            yield from _no_better("ruled out", "lr_negative", cut.lr_negative)
    decided = point.coverage
    if decided is not None and decided.value is not None and decided.value < MOST:
        yield f"fewer than half of the patients are decided: {decided.described}"


def _few(words: str, share: Estimate | None, price_name: str, price: Estimate) -> Iterator[str]:
    if share is not None and share.value is not None and share.value < FEW:
        yield f"few are {words}: {share} of all patients, {share.population}; {price_name} {price.described}"


def _no_better(words: str, odds_name: str, odds: Estimate | None) -> Iterator[str]:
    if odds is not None and odds.low is not None and odds.high is not None and odds.low <= 1 <= odds.high:
        yield (
            f"those {words} are not shown to differ from the rest: {named(odds_name)} {odds.described}, where 1 is "
            "uninformative"
        )


def _calibration(part: EndpointReport) -> Iterator[Field]:
    """Yield probabilities and risks whose spread is wrong; if they are recalibrated, only those are judged."""
    if (section := part.report.section(Calibration)) is not None:
        questions = {question.name: question for question in section.questions}
        yield from _wrong_slopes(part, questions, "probabilities", f"{part.section_source(section)}.questions")
    if (survival := part.report.section(TimeToEvent)) is not None:
        horizons = {horizon.horizon: horizon for horizon in survival.calibration}
        yield from _wrong_slopes(part, horizons, "risks", f"{part.section_source(survival)}.calibration")


def _wrong_slopes(
    part: EndpointReport,
    records: Mapping[str, QuestionCalibration | HorizonCalibration],
    what: str,
    source: str,
) -> Iterator[Field]:
    least, most = ACCEPTABLE
    slopes = {name: _slope(record) for name, record in records.items()}
    wrong = {
        name: slope
        for name, slope in slopes.items()
        if slope is not None and slope.value is not None and not least <= slope.value <= most
    }
    if not wrong:
        return
    patients = next(iter(records.values())).n
    recalibrated = any(record.calibrated is not None for record in records.values())
    kind = f"{what}, calibrated where they could be," if recalibrated else what
    text = (
        f"{kind} of {len(wrong)} of {len(records)} are for ranking only: slope outside {least:g} to {most:g} "
        f"(n {patients}): {'; '.join(f'{name} {slope}' for name, slope in wrong.items())}"
    )
    yield Field(part.headed("Calibration"), text, source)


def _slope(record: QuestionCalibration | HorizonCalibration) -> Estimate | None:
    """Return the slope of the recalibrated numbers if it is defined, otherwise that of the model's own numbers."""
    after = None if record.calibrated is None else record.calibrated.slope
    return after if after is not None and after.value is not None else record.slope


def _decision_curves(part: EndpointReport) -> Iterator[Field]:
    """Yield decision curves that are nowhere shown to be above acting on all patients or on none."""
    if (section := part.report.section(Utility)) is None:
        return
    key = "horizons" if section.horizons else "questions"
    curves = [curve for curve in section.horizons or section.questions if curve.thresholds and curve.gain is not None]
    useless = [
        curve
        for curve in curves
        if (judged := curve.simultaneous or curve.gain) is not None and not any((low or 0) > 0 for low in judged.low)
    ]
    if useless:
        text = (
            f"{', '.join(curve.name for curve in useless)}: at no threshold is acting on the tool shown to be worth "
            f"more than acting on all patients or on none (n {curves[0].n})"
        )
        yield Field(part.headed("Decision curve"), text, f"{part.section_source(section)}.{key}")


def _gates(facts: Facts) -> Iterator[Field]:
    for at, gate in enumerate(facts.report.gates):
        if gate.holds is False:
            name = f"Release gate {gate.number}, {gate.name}"
            yield Field(name, f"does not hold: {gate.sentence}", f"{REPORT}gates[{at}]")
