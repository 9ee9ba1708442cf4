"""Block 11: what was measured."""

from collections.abc import Iterator

from mil.cards.card_facts import NOBODY_REPORTED, REPORT, Facts, missing
from mil.cards.content import CardBlock, Field, Subsection
from mil.cards.external_validation import side_by_side, summary
from mil.cards.section_parts import (
    HEADS,
    confusion_table,
    endpoint_reports,
    further_figures,
    methods_note,
    section_part,
)
from mil.report.page.words import below, named
from mil.report.schema import Report, Section, Table, section_classes
from mil.report.sections.comparator import Comparator, comparators
from mil.report.sections.discrimination import Discrimination
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.report.sections.patient_flow import PatientFlow
from mil.report.sections.patient_table import PatientTable
from mil.report.sections.site_effects import Sites
from mil.report.sections.subgroups import Subgroups
from mil.report.value_intervals import POOLED_VALUES
from mil.stats.bootstrap import POOLED

NUMBER = 11
"""Number of this block."""
ELSEWHERE: tuple[type[Section], ...] = (
    OperatingPoints,
    Subgroups,
    Sites,
    Comparator,
    Oracle,
    PatientFlow,
    PatientTable,
)
"""Sections with a place of their own on the card; all others are in this block."""


def performance(facts: Facts) -> CardBlock:
    """Every metric and every comparison."""
    fields = [
        Field("Cohort of these numbers", facts.cohort),
        Field("Main result, best possible, simpler models", "on this card's first screen, and in the table below"),
        Field("Where it falls short", "on this card's first screen"),
        Field("External validation", summary(facts)),
        Field("Wrong results looked at by", facts.stated("reviewed_by")),
    ]
    subsections = [*_metrics(facts), *side_by_side(facts), *_sections(facts), *further_figures(facts)]
    return CardBlock(NUMBER, "Performance", fields, subsections)


def _metrics(facts: Facts) -> Iterator[Subsection]:
    """Yield the metrics of this model and of its comparators: over all folds, and of these weights alone."""
    if not facts.all_folds.metrics:
        yield Subsection("Metrics", [f"{NOBODY_REPORTED[0].upper()}{NOBODY_REPORTED[1:]}."])
    elif facts.report.run is None:
        yield Subsection("Metrics", (), [_metrics_table(facts.report, REPORT)])
    else:
        run = facts.report.run
        pooled = all((metric.method or "").endswith((POOLED, POOLED_VALUES)) for metric in run.metrics.values())
        joint = "Over the patients of all folds together: values of different folds have one unit."
        note = joint if pooled else f"Mean over {run.folds} folds; scores of different folds are never compared."
        heading = f"Cross-validation of the run ({run.folds} folds)"
        yield Subsection(heading, [note], [_metrics_table(run, f"{REPORT}run")])
        fold = f"Fold {facts.manifest.data.split.fold}, to which these weights belong."
        yield Subsection("These weights on their own report patients", [fold], [_metrics_table(facts.report, REPORT)])


def _metrics_table(report: Report, source: str) -> Table:
    simpler, oracle = comparators(report), report.section(Oracle)
    groups = [("this model", below(source, "metrics"), report.metrics)]
    groups += [(model.name, below(source, "sections", model.key, "metrics"), model.metrics) for model in simpler]
    if oracle is not None:
        place = below(source, "sections", oracle.key, "metrics")
        groups.append(("oracle (knows the simulated tiles)", place, oracle.metrics))
    groups += [
        (f"this model minus {model.name}", below(source, "sections", model.key, "difference"), model.difference)
        for model in simpler
    ]
    rows = [
        (name, named(metric), str(estimate), estimate.population, below(place, metric))
        for name, place, metrics in groups
        for metric, estimate in metrics.items()
    ]
    return Table(columns=("Model", "Metric", *HEADS[1:]), rows=tuple(rows), note=methods_note(report.metrics.values()))


def _sections(facts: Facts) -> Iterator[Subsection]:
    """Yield the sections of the report, and at the end why others are missing."""
    reasons = []
    for part in endpoint_reports(facts):
        for kind in section_classes():
            if issubclass(kind, ELSEWHERE):
                continue
            section = part.report.section(kind)
            if section is None:
                reasons += [f"{part.headed(kind.title)}: {missing(kind)}."] if kind.not_applicable else []
                continue
            shown = section_part(facts, part, section)
            yield shown
            if isinstance(section, Discrimination) and section.confusion is not None:
                table = confusion_table(section.confusion, f"{part.section_source(section)}.confusion")
                yield Subsection(part.headed("Confusion of the classes"), tables=[table])
    if reasons:
        yield Subsection("Not in this report", reasons)
