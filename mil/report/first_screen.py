"""What a reader sees before anything else, in the order of its importance.

What is predicted and for whom; how well it separates patients; the decision that was asked for and whether it was
reached; whether its probabilities are right; only then how it compares with simpler models.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mil.report.decision_targets import REACHED, decision_targets
from mil.report.page.words import named
from mil.report.report_parts import EndpointReport, of_all_folds, reports_by_endpoint
from mil.report.schema import About, Estimate, Report
from mil.report.sections.calibration import ACCEPTABLE, Calibration
from mil.report.sections.comparator import verdict
from mil.report.sections.groups import RiskGroups
from mil.report.sections.operating_point import OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.report.sections.time_to_event import TimeToEvent
from mil.stats.estimate import format_class, format_counts

DISCRIMINATION = "Discrimination"
"""Label of the line with the metric of the endpoint."""
MOST_LISTED = 6
"""Questions or decisions that a line lists; of more it says how many there are."""


class ScreenLine(NamedTuple):
    """One line of the first screen."""

    label: str
    text: str
    missed: bool = False
    """whether it says that something asked for was not reached"""


def first_screen(report: Report) -> list[ScreenLine]:
    """Return the lines of the first screen; of one of several folds, of the report of all folds."""
    all_folds, _ = of_all_folds(report)
    lines = [
        ScreenLine("Predicted", _question(report.about)),
        ScreenLine("Patients", _patients(report.about, all_folds)),
    ]
    if not all_folds.metrics:
        return [*lines, ScreenLine(DISCRIMINATION, "no patient was held back to report on")]
    lines.append(ScreenLine(DISCRIMINATION, _discrimination(all_folds)))
    parts = list(reports_by_endpoint(report))
    lines += [line for part in parts for line in _decisions(part)]
    lines += [line for part in parts for line in _calibration(part)]
    lines.append(ScreenLine("Simpler models", verdict(all_folds)))
    if (oracle := _best_possible(all_folds)) is not None:
        lines.append(ScreenLine("Best possible", oracle))
    return lines


def _question(about: About) -> str:
    text = about.question or about.title or about.tool or "not stated"
    return f"{text} ({about.specimen})" if about.specimen else text


_ROLES = {
    True: "of a cohort that the model was not trained on",
    False: "held back from training",
    None: "(whether the model was trained on them is not stated)",
}
"""By `About.external`."""


def _patients(about: About, report: Report) -> str:
    """Return how many patients the numbers are about, and where they are from."""
    counts = format_counts(report.patients) or "none"
    data = {True: "simulated", False: "real", None: "real or simulated (not stated)"}[about.simulated]
    role = _ROLES[about.external]
    withheld = f"; {about.withheld} withheld" if about.withheld else ""
    folds = f", {report.folds} folds" if report.folds > 1 else ""
    return f"{counts}; {data} patients {role}{folds}{withheld}"


def _discrimination(report: Report) -> str:
    """Return the first metric with its patients, and the areas of several questions without them."""
    (first, estimate), *further = report.metrics.items()
    text = f"{named(first)} {estimate.described}"
    rest = [f"{named(name)} {value}" for name, value in further]
    listed = rest[:MOST_LISTED] + ([f"{len(rest) - MOST_LISTED} more below"] if len(rest) > MOST_LISTED else [])
    return "; ".join([text, *listed])


def _decisions(part: EndpointReport) -> Iterator[ScreenLine]:
    """Yield for each decision what was asked and reached, or what it did where nothing was asked."""
    section = part.report.section(OperatingPoints)
    if section is None:
        yield ScreenLine(part.headed("Decision"), "none: the tool gives scores and makes no call")
        return
    verdicts = dict[str, list[str]]()
    missed = set[str]()
    for target in decision_targets(part):
        verdicts.setdefault(target.decision, []).append(
            f"{target.aim} was asked: {target.estimate.described}: {target.verdict}"
        )
        missed |= set() if target.verdict == REACHED else {target.decision}
    for point in section.decisions[:MOST_LISTED]:
        texts = [*_undecided(point), *verdicts.get(point.name, ()), *_what_it_did(point, point.name in verdicts)]
        label = f"Decision on {format_class(point.name)}" if point.at_cuts or point.accuracy is not None else "Groups"
        yield ScreenLine(part.headed(label), "; ".join(texts) or _groups(part, point), point.name in missed)
    if (rest := len(section.decisions) - MOST_LISTED) > 0:
        yield ScreenLine(part.headed("Decisions"), f"{rest} more below")


def _undecided(point: OperatingPoint) -> Iterator[str]:
    share = point.undecided or point.abstained
    if share is not None:
        yield f"no answer for {share.described}"


def _what_it_did(point: OperatingPoint, asked_for: bool) -> Iterator[str]:
    """Yield what a cut or the likeliest class is worth; of targets only what they cost."""
    rule = str(point.rule.get("rule"))
    for cut in point.at_cuts:
        rates = {"sensitivity": cut.sensitivity, "specificity": cut.specificity}
        shown = {name: rate for name, rate in rates.items() if not (asked_for and rule == name)}
        place = "" if len(point.at_cuts) == 1 else f"{cut.name}: "
        yield place + ", ".join(f"{name} {rate.described}" for name, rate in shown.items())
    if point.accuracy is not None:
        yield f"accuracy of the others {point.accuracy.described}" if point.abstained else f"accuracy {point.accuracy}"


def _groups(part: EndpointReport, point: OperatingPoint) -> str:
    """Return the sizes of groups, and how differently neighbours fare."""
    if not point.groups:
        reasons = dict.fromkeys(fold.reason for fold in point.fitted if fold.reason)
        return f"nobody is called: {'; '.join(map(str, reasons)) or 'no fold could set a cut'}"
    sizes = "; ".join(f"{group.name} {format_counts(group.counts)}" for group in point.groups)
    section = part.report.section(RiskGroups)
    pairs = [] if section is None else section.adjacent()
    ratios = [f"hazard ratio of {pair.group} against {pair.reference} {pair.estimate}" for pair in pairs]
    return "; ".join([sizes, *ratios])


def _calibration(part: EndpointReport) -> Iterator[ScreenLine]:
    """Yield slopes of probabilities, risks or values: recalibrated ones where there are some."""
    label = part.headed("Calibration")
    section, survival = part.report.section(Calibration), part.report.section(TimeToEvent)
    if section is not None and section.predicted_value is not None:
        value = section.predicted_value
        yield ScreenLine(label, f"bias {value.bias}, slope {value.slope.described}")
    elif section is not None and section.questions:
        after = {each.name: each.calibrated.slope for each in section.questions if each.calibrated is not None}
        slopes = {format_class(each.name): after.get(each.name) or each.slope for each in section.questions}
        yield ScreenLine(label, _slopes(slopes, recalibrated=any(after.values())))
    if survival is not None and survival.calibration:
        texts = []
        for horizon in survival.calibration:
            judged = horizon.calibrated if horizon.calibrated and horizon.calibrated.observed_expected else horizon
            if judged.observed_expected is not None and judged.slope is not None:
                ratio = f"observed/expected {judged.observed_expected}"
                texts.append(
                    f"at {horizon.horizon} {ratio}, slope {judged.slope}, n {judged.n}, events {judged.events}"
                )
        yield ScreenLine(label, "; ".join(texts) or "not estimable")


def _slopes(slopes: Mapping[str, Estimate | None], recalibrated: bool) -> str:
    least, most = ACCEPTABLE
    defined = {name: slope for name, slope in slopes.items() if slope is not None}
    fine = [name for name, slope in defined.items() if slope.value is not None and least <= slope.value <= most]
    listed = [f"{name} {slope.described}" for name, slope in list(defined.items())[:MOST_LISTED]] or ["not estimable"]
    after = " after recalibration" if recalibrated else ""
    return f"slope{after} within {least:g} to {most:g} for {len(fine)} of {len(slopes)}: {'; '.join(listed)}"


def _best_possible(report: Report) -> str | None:
    oracle, metric = report.section(Oracle), next(iter(report.metrics))
    return (
        None
        if oracle is None
        else f"{named(metric)} {oracle.metrics[metric]} by a reader who knows the simulated tiles"
    )
