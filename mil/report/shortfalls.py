"""Where a tool falls short, in sentences made from its report: the most important first, one line each.

Every rule reads the typed report only, so that the report's page, the card and the index say the same. A rule says
nothing where the report lacks the numbers that it judges.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from mil.report.decision_targets import (
    MISSED,
    NOT_SHOWN,
    DecisionTarget,
    decision_targets,
    estimate_of,
    measure_name,
    targets_of,
)
from mil.report.page.words import below, named
from mil.report.report_parts import REPORT_FILE, EndpointReport, reports_by_endpoint
from mil.report.schema import Estimate, Report
from mil.report.sections.calibration import ACCEPTABLE, Calibration, ProbabilityCalibration, QuestionCalibration
from mil.report.sections.comparator import comparators
from mil.report.sections.groups import GroupContrast, RiskGroups
from mil.report.sections.horizon import HorizonCalibration, RiskCalibration
from mil.report.sections.operating_point import CUT, UPPER, AtCut, OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.report.sections.site_effects import Sites
from mil.report.sections.time_to_event import TimeToEvent
from mil.report.sections.utility import Utility
from mil.report.verdict_minimum import FEWEST_OF_EACH, FEWEST_PATIENTS, MINIMUM
from mil.stats.estimate import format_class, format_counts, format_p

FEW = 0.1
"""A cut that decides for a smaller share of the patients saves hardly any work."""
UNDECIDED = 1 / 3
"""Share of the patients whom a rule may leave without an answer before it is said."""
CHANCE = {"auroc": 0.5, "macro_auroc": 0.5, "c_index": 0.5, "qwk": 0.0, "r2": 0.0}
"""Value of each endpoint's metric for predictions that know nothing."""
SIGNIFICANT = 0.05
"""Of the p value by which proportional hazards are rejected."""

NOTHING_MISSED = (
    "Nothing that was asked for was missed in this report. It is nevertheless a report on simulated or few patients."
)
"""What is said where no rule has anything to say."""


class Shortfall(NamedTuple):
    """Something that a reader must not overlook."""

    title: str
    sentence: str
    """with the number, its interval and its patients"""
    source: str
    """file and key of the number, such as `report.json: sections.groups.next_hazard_ratios`"""


def shortfalls(report: Report) -> list[Shortfall]:
    """Return everything in which a tool falls short, the most important first.

    Args:
        report: Of a run or a checkpoint; of one of several folds, the report of all folds is judged.
    """
    parts = list(reports_by_endpoint(report))
    by_rule = [shortfall for rule in RULES for part in parts for shortfall in rule(part)]
    return [*by_rule, *_gates(report)]


def missing_decisions(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield decisions for which no fold could set a cut, or whose target these patients cannot show."""
    if (section := part.report.section(OperatingPoints)) is None:
        return
    for at, point in enumerate(section.decisions):
        source = f"{part.section_source(section)}.decisions[{at}]"
        if reason := _undecidable(point):
            yield Shortfall(part.headed("No operating point"), f"{format_class(point.name)}: {reason}", source)


def missed_targets(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield the numbers that were asked for and are not reached, then those that so few patients do not show."""
    targets = list(decision_targets(part))
    yield from _targets(part, targets, MISSED, "Target missed", "was asked and is not reached")
    words = "was asked and is reached, but not shown by so few patients"
    yield from _targets(part, targets, NOT_SHOWN, "Target not shown", words)


def no_better_than_chance(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield metrics, also of single labels and grades, whose interval reaches what guessing gives, or says nothing."""
    weak, judged = [], 0
    for name, estimate in part.report.metrics.items():
        chance = CHANCE.get(name, CHANCE["auroc"] if name.startswith("auroc_") else None)
        judged += chance is not None
        if chance is not None and (estimate.low is None or estimate.low <= chance):
            weak.append(f"{named(name)} {estimate}, chance {chance:g}")
    counts = part.report.patients
    few = [name for name, amount in counts.items() if amount < (FEWEST_PATIENTS if name == "n" else FEWEST_OF_EACH)]
    if few and judged and not weak:
        text = f"too few for a conclusion, whatever the interval: {format_counts(counts)}; expected {MINIMUM}"
        yield Shortfall(part.headed("Few patients"), text, below(part.source, "patients"))
    if weak:
        text = f"not shown to be better than chance: {'; '.join(weak)}; {format_counts(part.report.patients)}"
        yield Shortfall(part.headed("Chance"), text, below(part.source, "metrics"))


def broken_promises(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield groups by stated risks whose observed risk is outside the stated range, or not shown to be inside it."""
    if (section := part.report.section(RiskGroups)) is None:
        return
    for at, promise in enumerate(section.promises):
        if promise.estimate.value is None or promise.shown:
            continue
        words = "is not kept" if promise.broken else "is not shown by so few patients"
        text = (
            f"the {promise.group} group promises a risk of {_range(promise.at_least, promise.below)}; observed "
            f"{promise.estimate.described}: the promise {words}"
        )
        yield Shortfall(part.headed("Absolute risk"), text, f"{part.section_source(section)}.promises[{at}]")


def risk_groups(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield neighbouring groups that are in the wrong order or whose hazards are not shown to differ."""
    if (section := part.report.section(RiskGroups)) is None:
        return
    source, pairs = part.section_source(section), section.adjacent()
    title = part.headed("Risk groups")
    reversed_pairs = [pair for pair in pairs if pair.estimate.value is not None and pair.estimate.value < 1]
    if reversed_pairs:
        order = f" (by hazard: {', '.join(section.by_hazard)})" if section.by_hazard else ""
        yield Shortfall(title, f"in the wrong order{order}: {_ratios(reversed_pairs)}", f"{source}.by_hazard")
    alike = [pair for pair in pairs if pair not in reversed_pairs and _contains(pair.estimate, 1)]
    if alike:
        yield Shortfall(title, f"not shown to separate: {_ratios(alike)}", f"{source}.next_hazard_ratios")


def usefulness(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield decisions that decide for few patients, or whose calls are not shown to mean anything."""
    if (section := part.report.section(OperatingPoints)) is None:
        return
    source = f"{part.section_source(section)}.decisions"
    rules: tuple[tuple[str, str, Callable[[OperatingPoint], Iterable[str]]], ...] = (
        ("Undecided patients", "more than a third get no answer", _undecided),
        ("Few decided", "hardly any patient gets the call", _few_decided),
        (
            "Uninformative calls",
            "not shown to differ from the rest, for whom a likelihood ratio of 1 would stand",
            _uninformative,
        ),
    )
    for title, words, rule in rules:
        lines = {at: "; ".join(rule(point)) for at, point in enumerate(section.decisions)}
        lines = {at: f"{format_class(section.decisions[at].name)} {text}" for at, text in lines.items() if text}
        if lines:
            place = f"{source}[{next(iter(lines))}]" if len(lines) == 1 else source
            yield Shortfall(part.headed(title), f"{words}: {'; '.join(lines.values())}", place)


def within_sites(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield a metric that within sites is below the interval of the metric over all patients."""
    section = part.report.section(Sites)
    overall = None if section is None else part.report.metrics.get(section.metric)
    if section is None or overall is None or overall.low is None:
        return
    within = section.within_sites.estimate
    if within.value is not None and within.value < overall.low:
        text = (
            f"{named(section.metric)} within sites {within}, n {within.n}, over all patients {overall.described}: "
            "part of it is the difference between sites"
        )
        yield Shortfall(part.headed("Within sites"), text, f"{part.section_source(section)}.within_sites")


def site_signature(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield a score from which the site can be predicted, beyond what the label gives away."""
    section = part.report.section(Sites)
    by_score, beyond = (None, None) if section is None else (section.told_by.get("score"), section.beyond_label)
    if section is None or by_score is None or beyond is None or by_score.macro_auroc is None:
        return
    gain = beyond.macro_auroc
    if gain is not None and gain.low is not None and gain.low > 0:
        text = (
            f"the site can be predicted from the score: AUROC {by_score.macro_auroc.described}, chance 0.5; "
            f"beyond what the label gives away {gain}"
        )
        yield Shortfall(part.headed("Site signature"), text, f"{part.section_source(section)}.told_by.score")


def calibration(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield probabilities and risks that are wrong; if they are recalibrated, only those are judged."""
    if (section := part.report.section(Calibration)) is not None:
        source = f"{part.section_source(section)}.questions"
        questions = {format_class(question.name): question for question in section.questions}
        yield from _wrong_slopes(part, questions, "probabilities", source)
        yield from _errors(part, questions, source)
    if (survival := part.report.section(TimeToEvent)) is not None:
        source = f"{part.section_source(survival)}.calibration"
        horizons = {horizon.horizon: horizon for horizon in survival.calibration}
        yield from _wrong_slopes(part, horizons, "risks", source)
        yield from _wrong_totals(part, horizons, source)


def harmful_calibration(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield questions and horizons of which the tool's own calibration made the report patients' loss higher."""
    section, survival = part.report.section(Calibration), part.report.section(TimeToEvent)
    fits = []
    if section is not None and section.fitted is not None:
        fits.append((section.fitted, f"{part.section_source(section)}.fitted.effects"))
    if survival is not None and survival.recalibration is not None:
        fits.append((survival.recalibration, f"{part.section_source(survival)}.recalibration.effects"))
    for fit, source in fits:
        worse = [effect for effect in fit.effects if effect.worsens]
        if worse:
            lines = [
                f"{format_class(each.name)} {each.score} {each.before} before and {each.after.described} after, "
                f"change {each.change}"
                for each in worse
            ]
            text = f"made the predictions of these patients worse, by {fit.method}: {'; '.join(lines)}"
            yield Shortfall(part.headed("Recalibration"), text, source)


def simpler_models(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield simpler models that are better."""
    metric = next(iter(part.report.metrics), None)
    for section in comparators(part.report) if metric else ():
        gain = section.difference.get(metric or "")
        if gain is not None and gain.high is not None and gain.high < 0:
            text = f"worse than {section.name}: difference in {named(metric or '')} {gain.described}"
            source = below(part.section_source(section), "difference", metric or "")
            yield Shortfall(part.headed("Simpler model"), text, source)


def proportional_hazards(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield hazard ratios that change with time, by the p values of all groups together (Bonferroni)."""
    section = part.report.section(RiskGroups)
    if section is None or not section.proportional_hazards_p:
        return
    tests = len(section.proportional_hazards_p)
    rejected = {name: p for name, p in section.proportional_hazards_p.items() if p * tests < SIGNIFICANT}
    if rejected:
        groups = "; ".join(f"{name} p {format_p(p)}" for name, p in rejected.items())
        text = (
            f"rejected for {groups} ({tests} {'test' if tests == 1 else 'tests'}, n {section.n}, events "
            f"{section.events}): the hazard ratio changes with time, read the survival at each time"
        )
        source = f"{part.section_source(section)}.proportional_hazards_p"
        yield Shortfall(part.headed("Proportional hazards"), text, source)


def decision_curves(part: EndpointReport) -> Iterator[Shortfall]:
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
            f"{', '.join(format_class(curve.name) for curve in useless)}: at no threshold is acting on the tool shown "
            f"to be worth more than acting on all patients or on none (n {curves[0].n})"
        )
        yield Shortfall(part.headed("Decision curve"), text, f"{part.section_source(section)}.{key}")


def best_possible(part: EndpointReport) -> Iterator[Shortfall]:
    """Yield a best possible model that is better beyond the intervals."""
    metric, section = next(iter(part.report.metrics), None), part.report.section(Oracle)
    if metric is None or section is None:
        return
    value, best = part.report.metrics[metric], section.metrics[metric]
    if value.high is not None and best.low is not None and value.high < best.low:
        text = f"{named(metric)} {value} where {best} could be reached, {value.population}"
        yield Shortfall(part.headed("Best possible"), text, below(part.section_source(section), "metrics", metric))


RULES: tuple[Callable[[EndpointReport], Iterator[Shortfall]], ...] = (
    no_better_than_chance,
    missing_decisions,
    missed_targets,
    broken_promises,
    risk_groups,
    usefulness,
    simpler_models,
    within_sites,
    site_signature,
    calibration,
    harmful_calibration,
    proportional_hazards,
    decision_curves,
    best_possible,
)
"""In the order of their importance to a reader."""


def _gates(report: Report) -> Iterator[Shortfall]:
    for at, gate in enumerate(report.gates):
        if gate.holds is False:
            name = f"Release gate {gate.number}, {gate.name}"
            yield Shortfall(name, f"does not hold: {gate.sentence}", f"{REPORT_FILE}gates[{at}]")


def _undecidable(point: OperatingPoint) -> str:
    """Return why a decision has no operating point or its target no number; empty where it has both."""
    reasons = list(dict.fromkeys(fold.reason for fold in point.fitted if fold.cuts is None and fold.reason))
    if point.fitted and all(fold.cuts is None for fold in point.fitted):
        return f"nobody is called, {'; '.join(reasons) or 'no fold could set a cut'}"
    for measure, at_least in targets_of(point.rule):
        estimate = estimate_of(point, measure)
        if estimate is None or estimate.value is None:
            why = f": {estimate.reason}" if estimate is not None and estimate.reason else ""
            return f"{measure_name(measure)} of at least {at_least:g} was asked and is not estimable{why}"
    return ""


def _targets(
    part: EndpointReport, targets: Sequence[DecisionTarget], verdict: str, title: str, words: str
) -> Iterator[Shortfall]:
    """Yield a line for each aim, with all decisions that share it."""
    judged = sorted((target for target in targets if target.verdict == verdict), key=lambda target: target.aim)
    for aim, members in groupby(judged, key=lambda target: target.aim):
        decisions = list(members)
        texts = [f"{format_class(each.decision)} {each.estimate.described}" for each in decisions]
        source = decisions[0].source if len(decisions) == 1 else decisions[0].source.rpartition("[")[0]
        yield Shortfall(part.headed(title), f"{aim} {words}: {'; '.join(texts)}", source)


def _range(at_least: float | None, less_than: float | None) -> str:
    if at_least is None:
        return f"less than {less_than:g}"
    return f"{at_least:g} or more" if less_than is None else f"{at_least:g} to {less_than:g}"


def _ratios(pairs: Sequence[GroupContrast]) -> str:
    return "; ".join(f"{pair.group} against {pair.reference}, hazard ratio {pair.estimate.described}" for pair in pairs)


def _contains(estimate: Estimate, value: float) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= value <= estimate.high


def _undecided(point: OperatingPoint) -> Iterator[str]:
    share = point.undecided or point.abstained
    if share is not None and share.value is not None and share.value > UNDECIDED:
        yield share.described


def _few_decided(point: OperatingPoint) -> Iterator[str]:
    """Yield each share of patients ruled out or in that is small, with the price of the cut."""
    for cut in point.at_cuts:
        words, share, price_name, price = (
            ("ruled in", cut.ruled_in, "sensitivity", cut.sensitivity)
            if _rules_in(point, cut)
            else ("ruled out", cut.ruled_out, "specificity", cut.specificity)
        )
        if share is not None and share.value is not None and share.value < FEW:
            yield f"{words} {share.described}, {price_name} {price.described}"


def _uninformative(point: OperatingPoint) -> Iterator[str]:
    """Yield each likelihood ratio whose interval holds 1."""
    for cut in point.at_cuts:
        name, odds = ("lr_positive", cut.lr_positive) if _rules_in(point, cut) else ("lr_negative", cut.lr_negative)
        if odds is not None and _contains(odds, 1):
            yield f"{'ruled in' if _rules_in(point, cut) else 'ruled out'}, {named(name)} {odds.described}"


def _rules_in(point: OperatingPoint, cut: AtCut) -> bool:
    return cut.name == UPPER or (cut.name == CUT and point.rule.get("rule") == "specificity")


def _wrong_slopes(
    part: EndpointReport,
    records: Mapping[str, QuestionCalibration | HorizonCalibration],
    what: str,
    source: str,
) -> Iterator[Shortfall]:
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
    yield Shortfall(part.headed("Calibration"), text, source)


def _slope(record: QuestionCalibration | HorizonCalibration) -> Estimate | None:
    """Return the slope of the recalibrated numbers if it is defined, otherwise that of the model's own numbers."""
    after = None if record.calibrated is None else record.calibrated.slope
    return after if after is not None and after.value is not None else record.slope


def _errors(part: EndpointReport, questions: Mapping[str, QuestionCalibration], source: str) -> Iterator[Shortfall]:
    """Yield calibration errors that are shown to be above zero."""
    errors = {name: _judged(question).ece for name, question in questions.items()}
    shown = [
        f"{name} {error.estimate.described}" for name, error in errors.items() if error is not None and error.shown
    ]
    if shown:
        text = f"probabilities are shown to be wrong, debiased error (ECE): {'; '.join(shown)}"
        yield Shortfall(part.headed("Calibration error"), text, source)


def _judged(question: QuestionCalibration) -> ProbabilityCalibration:
    after = question.calibrated
    return question if after is None or after.ece is None else after


def _wrong_totals(part: EndpointReport, horizons: Mapping[str, HorizonCalibration], source: str) -> Iterator[Shortfall]:
    """Yield horizons at which more or fewer patients have the event than the risks say."""
    wrong = []
    for name, horizon in horizons.items():
        after: RiskCalibration | None = horizon.calibrated
        ratio = (after if after is not None and after.observed_expected is not None else horizon).observed_expected
        if ratio is not None and ratio.value is not None and ratio.low is not None and not _contains(ratio, 1):
            more = "more" if ratio.value > 1 else "fewer"
            counts = format_counts({key: n for key, n in ratio.counts.items() if key in ("n", "events")})
            wrong.append(f"{name} {ratio}, {counts}, {abs(ratio.value - 1):.0%} {more} events than predicted")
    if wrong:
        yield Shortfall(part.headed("Observed/expected"), f"not 1 at {'; '.join(wrong)}", source)
