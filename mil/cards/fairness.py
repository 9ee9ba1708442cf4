"""Block 12: in whom it does worse."""

from collections.abc import Mapping, Sequence
from typing import Any

from mil.cards.card_facts import Facts
from mil.cards.content import CardBlock, Field, Subsection, absent
from mil.cards.measured import HEADS, below, interval, population
from mil.cards.section_tables import endpoint_reports, figures_of, with_endpoint
from mil.report.page.words import named
from mil.report.schema import Table

_SUBGROUPS = ("Group", "Patients", "Metric", "Sensitivity", "Specificity", "Undecided", "Observed/expected", "Source")


_EXTREMES = (
    "worst",
    "largest_gap",
    "largest_sensitivity_gap",
    "largest_specificity_gap",
    "equalised_odds_difference",
)


def subgroups(facts: Facts) -> CardBlock:
    """The fixed table, and what a real cohort would have to add."""
    wanted = facts.lines_or_reason("subgroups_wanted")
    fields = [
        Field("Subgroups that a real cohort must show", wanted),
        Field("Ancestry", facts.absent("simulated patients have none", "not recorded")),
        Field("Mitigation", absent("none was taken: the model is trained alike on all patients")),
    ]
    parts = []
    for name, report, source in endpoint_reports(facts):
        found = report.get("subgroups")
        if found:
            parts.append(_subgroups(name, found, below(source, "subgroups"), facts))
        else:
            parts.append(Subsection(with_endpoint("By subgroup", name), [facts.missing("subgroups")]))
    return CardBlock(12, "Subgroups and fairness", fields, parts)


def _subgroups(name: str, found: Mapping[str, Any], source: str, facts: Facts) -> Subsection:
    least = found["least"]
    sentences = [
        f"A group with fewer than {least} positives or {least} negatives ({least} events, {2 * least} patients where a "
        f"number is predicted) is not estimable for {named(found['metric'])}, and keeps its row. Sensitivity and "
        "specificity, where they stand, are those of the frozen cut."
    ]
    if found.get("absent"):
        sentences.append(f"Not recorded in this cohort: {', '.join(found['absent'])}.")
    if any(row.get("questions") for row in found["rows"]):
        sentences.append(f"The same of each class or label: {source}.rows[…].questions.")
    if all((row.get("undecided") or {}).get("value") == 0 for row in found["rows"]):
        sentences.append("In no group was a patient left undecided.")
        found = {**found, "rows": [{**row, "undecided": None} for row in found["rows"]]}
    rows = [_subgroup(row, f"{source}.rows[{at}]") for at, row in enumerate(found["rows"])]
    extremes = {key: found[key] for key in _EXTREMES if found.get(key)}
    worst = [
        (_extreme(key, one), interval(one), population(one) or "see the rows", below(source, key))
        for key, one in extremes.items()
    ]
    tables = [_filled(rows, named(found["metric"])), *([Table(columns=HEADS, rows=tuple(worst))] if worst else [])]
    return Subsection(
        with_endpoint("By subgroup", name), sentences, tables, figures_of(facts, ("subgroups",)) if not name else []
    )


def _filled(rows: Sequence[tuple[str, ...]], metric: str) -> Table:
    """Without the columns that nothing is known of."""
    kept = [at for at in range(len(_SUBGROUPS)) if any(row[at] != "–" for row in rows)]
    heads = [metric if head == "Metric" else head for head in _SUBGROUPS]
    return Table(columns=tuple(heads[at] for at in kept), rows=tuple(tuple(row[at] for at in kept) for row in rows))


def _extreme(key: str, one: Mapping[str, Any]) -> str:
    who = one.get("group") or " against ".join(str(one[end]) for end in ("best", "worst") if one.get(end))
    return f"{named(key)}: {one['variable']}" + (f", {who}" if who else "")


def _subgroup(row: Mapping[str, Any], source: str) -> tuple[str, ...]:
    group = "all" if row["variable"] == "all" else f"{row['variable']}: {row['level']}"
    keys = ("sensitivity", "specificity", "undecided", "calibration")
    others = [_share(row.get(key)) for key in keys]
    value = "not estimable" if row["value"]["value"] is None else interval(row["value"])  # why is said above the table
    return (group, population(row), value, *others, source)


def _share(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    if found["value"] is None:
        return "not estimable"
    n = found.get("n")
    return interval(found) + (f", n {n}" if n is not None else "")
