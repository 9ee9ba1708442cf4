"""Block 10: the frozen cuts, who set them, and what they did."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mil.cards.card_facts import MANIFEST, REPORT, Facts, component
from mil.cards.content import CardBlock, Field, Subsection, absent
from mil.cards.measured import below, interval, numbers, population
from mil.cards.section_tables import confusion, endpoint_reports, figures_only, with_endpoint
from mil.report.page.words import written
from mil.report.schema import Table

_FEW = 4
"""Decisions on the first screen."""


def operating(facts: Facts) -> CardBlock:
    """Cuts: who set them, and what they did."""
    parts = [
        Subsection(with_endpoint("At the frozen cuts", name), list(_undecided(found)), list(_decided(found, source)))
        for name, report, source in endpoint_reports(facts)
        for found, source in [(report.get("operating_points"), below(source, "operating_points"))]
        if found
    ]
    return CardBlock(
        10,
        "Operating point",
        _frozen(facts),
        [Subsection("Who set what", tables=_fitted(facts)), *parts, *figures_only(facts, "operating_points")],
    )


def at_the_cut(facts: Facts) -> list[Field]:
    """Sensitivity and specificity at the frozen cuts, for the reader's first screen."""
    fields: list[Field] = []
    for name, report, source in endpoint_reports(facts):
        for at, one in enumerate((report.get("operating_points") or {}).get("decisions") or []):
            key = "sensitivity" if "sensitivity" in one else "accuracy" if "accuracy" in one else None
            if key is None or len(fields) == _FEW:
                continue
            both = [key, "specificity"] if key == "sensitivity" else [key, "abstained"]
            said = ", ".join(f"{key} {interval(one[key])} of {one[key]['n']}" for key in both)
            title = f"{name}: {one['name']}" if name else str(one["name"])
            place = f"{below(source, 'operating_points')}.decisions[{at}]"
            fields.append(Field(f"At the cut, {title}", said, place))
    return fields


def _frozen(facts: Facts) -> list[Field]:
    decisions = facts.manifest.fitted.decisions
    if not decisions:
        said = "the tool asks for no decision" if not facts.tool.get("decision") else "no patients could set the cuts"
        return [Field("Cut", absent(said))]
    fields = []
    for at, one in enumerate(decisions):
        cuts = ", ".join(f"{cut:.6g}" for cut in one.cuts) or "none: the likeliest class"
        whom = f"{one.n} {one.on} patients" if one.n else str(one.on)
        whom += f", {one.positives} positive" if one.positives is not None and one.n else ""
        said = f"{_rule(one.rule)}; cuts {cuts}; set on {whom}"
        fields.append(Field(f"Rule and cuts of {one.name}", said, f"{MANIFEST}fitted.decisions[{at}]"))
        if (promise := one.guarantee) is not None:
            said = f"sensitivity at least {promise.lower:.3f} with confidence {promise.confidence:.0%}"
            said += f", set on {promise.positives} known positives"
            fields.append(Field("Guarantee", said, f"{MANIFEST}fitted.decisions[{at}].guarantee"))
    on = " and ".join(dict.fromkeys(str(one.on) for one in decisions if one.n)) or "no"
    none = absent(f"the cuts were set on {on} patients of the training cohort, not on known positives of a new site")
    if not any(one.guarantee for one in decisions):
        fields.append(Field("Statistical guarantee", none))
    return [
        *fields,
        Field(
            "Date frozen", absent("left out, so that the same commit gives the same files; frozen before the report")
        ),
        Field("At a new site or scanner", "set the cut anew on its own known positives before any use"),
    ]


def _rule(rule: Mapping[str, Any]) -> str:
    """As a tool's yaml has it, on one line."""
    return component({"_target_": rule.get("rule"), **{key: value for key, value in rule.items() if key != "rule"}})


def _fitted(facts: Facts) -> list[Table]:
    rows = [
        (
            str(one["what"]),
            str(one["on"]),
            str(one.get("n") if one.get("n") is not None else "–"),
            str(one["fold"]),
            f"{REPORT}fitted[{at}]",
        )
        for at, one in enumerate(facts.report.get("fitted") or [])
    ]
    if not rows:
        return [Table(columns=("What",), rows=((absent("this report has none"),),))]
    return [Table(columns=("What was fitted or chosen", "On", "Patients", "Fold", "Source"), rows=tuple(rows))]


def _undecided(found: Mapping[str, Any]) -> Iterator[str]:
    """Folds whose patients could not set the cuts."""
    for one in found["decisions"]:
        for fold in one["fitted"]:
            if fold.get("reason"):
                yield f"{one['name']}, fold {fold['fold']}: nobody was decided, {fold['reason']}."


def _decided(found: Mapping[str, Any], source: str) -> Iterator[Table]:
    for at, one in enumerate(found["decisions"]):
        place = f"{source}.decisions[{at}]"
        table = numbers({key: value for key, value in one.items() if key != "name"}, place)
        if table:
            heads = (f"{one['name']}, at the frozen cut", *table.columns[1:])
            yield Table(columns=heads, rows=table.rows, note=table.note)
        if one.get("confusion"):
            yield confusion(one["confusion"], place)
        if one.get("groups"):
            yield _grouped(one["groups"], place)
        thousand = _thousand(one, place)
        if thousand:
            yield thousand


def _grouped(groups: Sequence[Mapping[str, Any]], place: str) -> Table:
    rows = [
        (
            str(one["name"]),
            population({"counts": {k: v for k, v in one.items() if k != "name"}}),
            f"{place}.groups[{at}]",
        )
        for at, one in enumerate(groups)
    ]
    return Table(columns=("Group", "Patients", "Source"), rows=tuple(rows))


def _thousand(one: Mapping[str, Any], place: str) -> Table | None:
    """Of 1,000 patients, as observed and at each prevalence that the tool assumes."""
    rows = []
    stated = [(f"{at['prevalence']:g} (assumed)", at, f"{place}.at_prevalence[{k}]") for k, at in _stated(one)]
    observed = one.get("prevalence") or {}
    for name, found, source in [(f"{written(observed.get('value'))} (observed)", one, place), *stated]:
        if not found.get("per_1000"):
            continue
        ppv, npv = (interval(found[key]) for key in ("ppv", "npv"))
        cells = ["–" if cell["value"] is None else f"{cell['value']:.0f}" for cell in found["per_1000"]]
        rows.append((name, ppv, npv, *cells, source))
    if not rows:
        return None
    heads = [
        f"Truly {'positive' if cell['positive'] else 'negative'}, called {cell['call']}" for cell in one["per_1000"]
    ]
    heads[0] = f"Of 1,000: {heads[0][0].lower()}{heads[0][1:]}"
    note = (
        f"The columns of 1,000 patients are rounded; from {population(one)}. An assumed prevalence is an example, no "
        "finding: PPV and NPV follow from sensitivity and specificity by Bayes' rule."
    )
    return Table(columns=("Prevalence", "PPV", "NPV", *heads, "Source"), rows=tuple(rows), note=note)


def _stated(one: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    return list(enumerate(one.get("at_prevalence") or []))
