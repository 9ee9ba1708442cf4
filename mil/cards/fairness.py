"""Block 12: results in subgroups."""

from collections.abc import Iterator, Sequence

from mil.cards.card_facts import Facts, missing
from mil.cards.content import CardBlock, Field, Subsection, not_applicable, not_stated
from mil.cards.section_parts import HEADS, endpoint_reports, figures_of
from mil.report.page.words import named
from mil.report.report_parts import EndpointReport
from mil.report.schema import Estimate, Table
from mil.report.sections.subgroups import SubgroupRow, Subgroups
from mil.stats.estimate import format_counts

_COLUMNS = (
    "Group",
    "Patients",
    "Metric",
    "Sensitivity",
    "Specificity",
    "Sensitivity, upper cut",
    "Specificity, upper cut",
    "Undecided",
    "Observed/expected",
    "Source",
)
_NONE = "–"


def subgroups(facts: Facts) -> CardBlock:
    """The fixed table of subgroups, and what a real cohort would have to add."""
    fields = [
        Field("Subgroups that a real cohort must show", facts.lines_or_gap("subgroups_wanted")),
        Field("Ancestry", not_applicable("simulated patients have none") if facts.simulated else not_stated()),
        Field("Mitigation", facts.stated("mitigation")),
    ]
    subsections = []
    for part in endpoint_reports(facts):
        section = part.report.section(Subgroups)
        if section is None:
            subsections.append(Subsection(part.headed("By subgroup"), [missing(Subgroups)]))
        else:
            subsections.append(_by_subgroup(facts, part, section))
    return CardBlock(12, "Subgroups and fairness", fields, subsections)


def _by_subgroup(facts: Facts, part: EndpointReport, section: Subgroups) -> Subsection:
    source = part.section_source(section)
    tables = [_rows_table(section, source)]
    if extremes := tuple(_extremes(section, source)):
        tables.append(Table(columns=HEADS, rows=extremes))
    figures = [] if part.name else figures_of(facts, Subgroups)
    return Subsection(part.headed("By subgroup"), list(_sentences(section, source)), tables, figures)


def _sentences(section: Subgroups, source: str) -> Iterator[str]:
    least = section.least
    yield (
        f"The metric of a group with fewer than {least} positives or {least} negatives ({least} events, {2 * least} "
        f"patients if a number is predicted) is not estimable; the group keeps its row. {_whose_rates(section)}"
    )
    if section.absent:
        yield f"Not recorded in this cohort: {', '.join(section.absent)}."
    if any(row.questions for row in section.rows):
        yield f"The same for each class or label: {source}.rows[…].questions."
    if _nobody_undecided(section):
        yield "In no group was a patient left undecided."


def _has_two_cuts(section: Subgroups) -> bool:
    return any(row.upper_specificity is not None for row in section.rows)


def _whose_rates(section: Subgroups) -> str:
    if not _has_two_cuts(section):
        return "Sensitivity and specificity are those at the frozen cut."
    return (
        "Sensitivity and specificity are those of one frozen cut each, named in the head of the table. The largest gap "
        "in sensitivity is that of the lower cut, which may miss positives; the largest gap in specificity is that of "
        "the upper cut, which may raise false alarms."
    )


def _nobody_undecided(section: Subgroups) -> bool:
    return all(row.undecided is not None and row.undecided.value == 0 for row in section.rows)


def _rows_table(section: Subgroups, source: str) -> Table:
    """Return a row per subgroup, without the columns that are empty."""
    hide_undecided = _nobody_undecided(section)
    rows = [_cells(row, hide_undecided, f"{source}.rows[{at}]") for at, row in enumerate(section.rows)]
    filled = [at for at in range(len(_COLUMNS)) if any(row[at] != _NONE for row in rows)]
    heads = [named(section.metric) if head == "Metric" else head for head in _COLUMNS]
    if _has_two_cuts(section):
        heads = [f"{head}, lower cut" if head in ("Sensitivity", "Specificity") else head for head in heads]
    return Table(columns=_pick(heads, filled), rows=tuple(_pick(row, filled) for row in rows))


def _pick(cells: Sequence[str], columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(cells[at] for at in columns)


def _cells(row: SubgroupRow, hide_undecided: bool, source: str) -> tuple[str, ...]:
    group = "all" if row.variable == "all" else f"{row.variable}: {row.level}"
    undecided = None if hide_undecided else row.undecided
    calibration = None if row.calibration is None else row.calibration.estimate
    rates = [
        _cell(estimate)
        for estimate in (
            row.sensitivity,
            row.specificity,
            row.upper_sensitivity,
            row.upper_specificity,
            undecided,
            calibration,
        )
    ]
    value = "not estimable" if row.value.value is None else str(row.value)  # the reason is stated above the table
    return group, format_counts(row.counts), value, *rates, source


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return _NONE
    if estimate.value is None:
        return "not estimable"
    return str(estimate) if estimate.n is None else f"{estimate}, n {estimate.n}"


def _extremes(section: Subgroups, source: str) -> Iterator[tuple[str, ...]]:
    """Yield the worst group and the largest differences between groups."""
    extremes: list[tuple[str, str, Estimate]] = []
    if (worst := section.worst) is not None:
        extremes.append(("worst", f"{worst.variable}, {worst.group}", worst.estimate))
    for key, gap in (
        ("largest_gap", section.largest_gap),
        ("largest_sensitivity_gap", section.largest_sensitivity_gap),
        ("largest_specificity_gap", section.largest_specificity_gap),
    ):
        if gap is not None:
            extremes.append((key, f"{gap.variable}, {gap.best} against {gap.worst}", gap.estimate))
    if (odds := section.equalised_odds_difference) is not None:
        extremes.append(("equalised_odds_difference", odds.variable, odds.estimate))
    for key, groups, estimate in extremes:
        yield f"{named(key)}: {groups}", str(estimate), estimate.population or "see the rows", f"{source}.{key}"
