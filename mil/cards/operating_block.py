"""Block 10: the frozen cuts, on whom they were set, and what they did."""

from collections.abc import Iterator

from mil.cards.card_facts import MANIFEST, REPORT, Facts, component
from mil.cards.content import CardBlock, Field, Subsection, not_applicable
from mil.cards.section_parts import confusion_table, endpoint_reports, estimates_table, figures_of
from mil.fitted.decision import Decision
from mil.fitted.rules import AnyRule, NoRule
from mil.report.page.outline import rows_of
from mil.report.page.words import written
from mil.report.report_parts import EndpointReport
from mil.report.schema import Table
from mil.report.sections.operating_point import LOWER, UPPER, CallRate, OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.stats.estimate import Estimate, format_class, format_counts

_MOST = 4
"""Decisions on the first screen."""


def operating(facts: Facts) -> CardBlock:
    """The cuts: on whom they were set, and what they did."""
    subsections = [Subsection("Fitted on whom", tables=[_fitted(facts)])]
    for part, section in _sections(facts):
        tables = [
            table
            for at, point in enumerate(section.decisions)
            for table in _tables(point, f"{part.section_source(section)}.decisions[{at}]")
        ]
        figures = [] if part.name else figures_of(facts, OperatingPoints)
        subsections.append(Subsection(part.headed("At the frozen cuts"), list(_undecided(section)), tables, figures))
    return CardBlock(10, "Operating point", _frozen(facts), subsections)


def at_the_cut(facts: Facts) -> list[Field]:
    """Return what each frozen cut does, for the first screen; of two cuts first the share that they leave undecided."""
    fields: list[Field] = []
    decisions = 0
    for part, section in _sections(facts):
        for at, point in enumerate(section.decisions):
            source = f"{part.section_source(section)}.decisions[{at}]"
            lines = [
                Field(f"{name}, {part.headed(format_class(point.name))}", _estimates(estimates), f"{source}{place}")
                for name, estimates, place in _headline(point)
                if estimates
            ]
            if lines and decisions < _MOST:
                fields += lines
                decisions += 1
    return fields


def _sections(facts: Facts) -> Iterator[tuple[EndpointReport, OperatingPoints]]:
    for part in endpoint_reports(facts):
        if (section := part.report.section(OperatingPoints)) is not None:
            yield part, section


def _headline(point: OperatingPoint) -> Iterator[tuple[str, dict[str, Estimate], str]]:
    """Yield heading, measures in words, and place in the report: a row for each cut."""
    if point.undecided is not None:
        yield "Undecided", {"between the two cuts": point.undecided}, ".undecided"
    for at, cut in enumerate(point.at_cuts):
        words = {"sensitivity": cut.sensitivity, "specificity": cut.specificity}
        if cut.name == LOWER:
            words |= _present({"NPV": cut.npv, "ruled out": cut.ruled_out})
        elif cut.name == UPPER:
            words |= _present({"PPV": cut.ppv, "ruled in": cut.ruled_in})
        yield f"At the {cut.name}", words, f".at_cuts[{at}]"
    if point.accuracy is not None and point.abstained is not None:
        yield "At the cut", {"accuracy": point.accuracy, "abstained": point.abstained}, ""


def _present(estimates: dict[str, Estimate | None]) -> dict[str, Estimate]:
    return {name: estimate for name, estimate in estimates.items() if estimate is not None}


def _estimates(estimates: dict[str, Estimate]) -> str:
    return ", ".join(f"{name} {estimate}, {estimate.population}" for name, estimate in estimates.items())


def _frozen(facts: Facts) -> list[Field]:
    decisions = facts.manifest.fitted.decisions
    if not decisions:
        reason = "no patients could set the cuts" if facts.tool.decision else "the tool asks for no decision"
        return [Field("Cut", not_applicable(reason))]
    fields = []
    for at, decision in enumerate(decisions):
        source = f"{MANIFEST}fitted.decisions[{at}]"
        cuts = ", ".join(f"{cut:.6g}" for cut in decision.cuts) or "none: the likeliest class"
        text = f"{_rule(decision.rule)}; cuts {cuts}; set on {_patients(decision)}"
        fields.append(Field(f"Rule and cuts of {format_class(decision.name)}", text, source))
        if sentences := decision.promise_sentences():
            key = "promises" if decision.guarantee is None else "guarantee"
            fields.append(
                Field(f"What the cut of {format_class(decision.name)} promises", " ".join(sentences), f"{source}.{key}")
            )
        if decision.note is not None:
            fields.append(Field(f"Not as asked, {format_class(decision.name)}", decision.note, f"{source}.note"))
    if not any(decision.guarantee for decision in decisions):
        roles = " and ".join(dict.fromkeys(str(decision.on) for decision in decisions if decision.n)) or "no"
        reason = f"the cuts were set on {roles} patients of the training cohort, not on known positives of a new site"
        fields.append(Field("Guarantee at a new site", not_applicable(reason)))
    return [
        *fields,
        Field("When frozen", "before the report patients were predicted"),
        Field("At a new site or scanner", "set the cut anew on its own known positives before any use"),
    ]


def _patients(decision: Decision) -> str:
    if not decision.n:
        return str(decision.on)
    positives = "" if decision.positives is None else f", {decision.positives} positive"
    return f"{decision.n} {decision.on} patients{positives}"


def _rule(rule: AnyRule | NoRule) -> str:
    """Return a rule on one line."""
    options = {key: value for key, value in rule.terms().items() if key != "rule"}
    return component({"_target_": rule.rule, **options})


def _fitted(facts: Facts) -> Table:
    rows = [
        (row.what, row.on, "–" if row.n is None else str(row.n), str(row.fold), f"{REPORT}fitted[{at}]")
        for at, row in enumerate(facts.report.fitted)
    ]
    if not rows:
        return Table(columns=("What",), rows=(("this report has none",),))
    return Table(columns=("What was fitted or chosen", "On", "Patients", "Fold", "Source"), rows=tuple(rows))


def _undecided(section: OperatingPoints) -> Iterator[str]:
    """Yield the folds whose patients could not set the cuts."""
    for point in section.decisions:
        for fold in point.fitted:
            if fold.reason:
                yield f"{point.name}, fold {fold.fold}: no patient was called, {fold.reason}."


def _tables(point: OperatingPoint, source: str) -> Iterator[Table]:
    if table := estimates_table(rows_of(point), source):
        heads = (f"{point.name}, at the frozen cut", *table.columns[1:])
        yield table.model_copy(update={"columns": heads})
    if point.confusion is not None:
        yield confusion_table(point.confusion, f"{source}.confusion")
    if point.groups:
        rows = tuple(
            (group.name, format_counts(group.counts), f"{source}.groups[{at}]") for at, group in enumerate(point.groups)
        )
        yield Table(columns=("Group", "Patients", "Source"), rows=rows)
    if point.per_1000:
        yield _per_1000(point, source)


def _per_1000(point: OperatingPoint, source: str) -> Table:
    """Return what happens to 1,000 patients at the observed prevalence and at each that the tool assumes."""
    observed = None if point.prevalence is None else point.prevalence.value
    ppv = None if point.highest is None else point.highest.ppv
    npv = None if point.lowest is None else point.lowest.npv
    cases = [(f"{written(observed)} (observed)", ppv, npv, point.per_1000, source)]
    cases += [
        (f"{case.prevalence:g} (assumed)", case.ppv, case.npv, case.per_1000, f"{source}.at_prevalence[{at}]")
        for at, case in enumerate(point.at_prevalence)
    ]
    rows = [(name, str(ppv), str(npv), *map(_rounded, rates), place) for name, ppv, npv, rates, place in cases if rates]
    heads = [f"Truly {'positive' if rate.positive else 'negative'}, called {rate.call}" for rate in point.per_1000]
    heads[0] = f"Of 1,000: {heads[0][0].lower()}{heads[0][1:]}"
    patients = format_counts({"n": point.n or 0, "positives": point.positives or 0, "negatives": point.negatives or 0})
    note = (
        f"The columns of 1,000 patients are rounded; from {patients}. An assumed prevalence is an example, not a "
        "finding: PPV and NPV follow from sensitivity and specificity by Bayes' rule."
    )
    return Table(columns=("Prevalence", "PPV", "NPV", *heads, "Source"), rows=tuple(rows), note=note)


def _rounded(rate: CallRate) -> str:
    return "–" if rate.estimate.value is None else f"{rate.estimate.value:.0f}"
