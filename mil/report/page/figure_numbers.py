"""What a figure shows, in words and numbers, for readers who cannot see it."""

from collections.abc import Callable, Iterator, Mapping

from mil.report.page.words import named
from mil.report.schema import Confusion, Estimate, Report
from mil.report.sections.calibration import Calibration
from mil.report.sections.discrimination import Discrimination
from mil.report.sections.groups import RiskGroups
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.subgroups import Subgroups
from mil.report.sections.time_to_event import TimeToEvent
from mil.report.sections.utility import Utility
from mil.stats.estimate import format_number

MOST = 8
"""Questions, groups or rows that a text lists."""


def figure_numbers(figure: str, report: Report) -> str:
    """Return the numbers of a figure in one sentence; empty for figures whose numbers the report does not hold.

    Args:
        figure: Name of the figure, without ending and without the name of an endpoint.
        report: The report that it was drawn from.
    """
    describe = _TEXTS.get(figure)
    texts = list(describe(report)) if describe else []
    rest = [f"and {len(texts) - MOST} more"] if len(texts) > MOST else []
    return "; ".join([*texts[:MOST], *rest])


def _areas(report: Report) -> Iterator[str]:
    section = report.section(Discrimination)
    for question in () if section is None else section.questions:
        yield f"{question.name}: AUROC {question.auroc}, {question.positives} of {question.n} positive"


def _precisions(report: Report) -> Iterator[str]:
    section = report.section(Discrimination)
    for question in () if section is None else section.questions:
        prevalence = "–" if question.prevalence is None else format_number(question.prevalence)
        yield f"{question.name}: average precision {question.auprc}, prevalence {prevalence}"


def _scores(report: Report) -> Iterator[str]:
    section, decisions = report.section(Discrimination), report.section(OperatingPoints)
    points = {} if decisions is None else {point.name: point for point in decisions.decisions}
    names = dict.fromkeys([*points, *(question.name for question in section.questions)] if section else points)
    counts = (
        {} if section is None else {each.name: f"{each.positives} of {each.n} positive" for each in section.questions}
    )
    for name in names:
        cuts = sorted({cut for fold in points[name].cuts for cut in fold or ()}) if name in points else []
        text = f", cut at {' and '.join(map(format_number, cuts))}" if 0 < len(cuts) <= 2 else ""
        yield f"{name}: {counts.get(name, 'several classes together')}{text}"


def _calls(report: Report) -> Iterator[str]:
    section = report.section(OperatingPoints)
    for name, matrix in () if section is None else section.confusions:
        yield from (f"{name}, {row}" for row in _rows(matrix))


def _classes(report: Report) -> Iterator[str]:
    section = report.section(Discrimination)
    if section is not None and section.confusion is not None:
        yield from _rows(section.confusion)


def _rows(matrix: Confusion) -> Iterator[str]:
    for name, counts in zip(matrix.classes, matrix.rows, strict=True):
        called = ", ".join(f"{count} called {call}" for call, count in zip(matrix.calls, counts, strict=True))
        yield f"of {sum(counts)} truly {name} {called}"


def _slopes(report: Report) -> Iterator[str]:
    section = report.section(Calibration)
    for question in () if section is None else section.questions:
        after = question.calibrated.slope if question.calibrated else None
        yield f"{question.name}: slope {question.slope}" + ("" if after is None else f", after recalibration {after}")


def _horizons(report: Report) -> Iterator[str]:
    section = report.section(TimeToEvent)
    for horizon in () if section is None else section.calibration:
        counts = f"n {horizon.n}, events {horizon.events}"
        yield f"{horizon.horizon}: observed/expected {horizon.observed_expected}, {counts}"


def _benefits(report: Report) -> Iterator[str]:
    section = report.section(Utility)
    for curve in () if section is None else (*section.questions, *section.horizons):
        if curve.verdict:
            yield f"{curve.name}: {curve.verdict}"


def _subgroups(report: Report) -> Iterator[str]:
    section = report.section(Subgroups)
    rows = (
        []
        if section is None
        else [row for row in section.rows if row.variable != "all" and row.value.value is not None]
    )
    if section is not None and rows:
        ordered = sorted(rows, key=lambda row: row.value.value or 0.0)
        for word, row in (("lowest", ordered[0]), ("highest", ordered[-1])):
            yield f"{word} {named(section.metric)} {row.value}, {row.variable} {row.level}, n {row.n}"
        yield f"{len(rows)} of {sum(row.variable != 'all' for row in section.rows)} subgroups are estimable"


def _groups(report: Report) -> Iterator[str]:
    section = report.section(RiskGroups)
    if "c_index" in report.metrics:
        yield f"C-index {report.metrics['c_index'].described}"
    if section is None:
        return
    for group in section.groups:
        words, times = ("free of the event", group.survival) if group.survival else ("incidence", group.incidence)
        at = f", {words} at {times[-1].time:g} {section.unit or ''} {times[-1].estimate}" if times else ""
        yield f"{group.name} risk: n {group.n}, events {group.events}{at}"
    for pair in section.adjacent():
        yield f"hazard ratio of {pair.group} against {pair.reference} {pair.estimate}"


def _agreement(report: Report) -> Iterator[str]:
    metrics: Mapping[str, Estimate] = report.metrics
    yield from (f"{named(name)} {estimate.described}" for name, estimate in metrics.items())


_TEXTS: Mapping[str, Callable[[Report], Iterator[str]]] = {
    "roc": _areas,
    "precision_recall": _precisions,
    "score_distribution": _scores,
    "confusion": _calls,
    "class_confusion": _classes,
    "calibration": _slopes,
    "calibration_horizon": _horizons,
    "decision_curve": _benefits,
    "subgroups": _subgroups,
    "kaplan_meier": _groups,
    "incidence": _groups,
    "regression": _agreement,
}
