"""Where a tool falls short, in words made from its report: what was asked of it and not reached, or not shown."""

from collections.abc import Iterator, Mapping
from typing import Any

from mil.cards.card_facts import REPORT, Facts
from mil.cards.content import Field
from mil.cards.measured import below, interval, population
from mil.cards.performance import COMPARATORS
from mil.cards.section_tables import endpoint_reports
from mil.report.page.words import named
from mil.report.sections.calibration import ACCEPTABLE

FEW = 0.1
"""A cut that decides for a smaller share of the patients saves next to no work."""
MOST = 0.5
"""Of a rule that may leave patients undecided: those whom it must decide to be of use to most."""


def shortfalls(facts: Facts) -> list[Field]:
    """What a reader must not overlook, each with its numbers; from the same report as the rest of the card."""
    found = [one for name, report, source in endpoint_reports(facts) for one in _of(name, report, source)]
    return [*_beside(facts), *found, *_gates(facts)]


def _beside(facts: Facts) -> Iterator[Field]:
    """Models that are better, and a best possible one that the intervals show to be out of reach."""
    metric = facts.metric
    for key in COMPARATORS:
        gain = ((facts.all_folds.get(key) or {}).get("difference") or {}).get(metric)
        if gain and gain["high"] is not None and gain["high"] < 0:
            said = f"worse than {facts.all_folds[key]['name']}: difference in {named(str(metric))} {interval(gain)}, "
            source = below(below(below(facts.source, key), "difference"), str(metric))
            yield Field("Simpler model", said + population(gain), source)
    own, best = (
        facts.all_folds[key].get(metric) if facts.all_folds.get(key) else None for key in ("metrics", "oracle")
    )
    if own and best and own["high"] is not None and best["low"] is not None and own["high"] < best["low"]:
        said = f"{named(str(metric))} {interval(own)} where {interval(best)} could be reached, {population(own)}"
        yield Field("Best possible", said, below(below(facts.source, "oracle"), str(metric)))


def _of(name: str, report: Mapping[str, Any], source: str) -> Iterator[Field]:
    ahead = f"{name}: " if name else ""
    points = below(source, "operating_points")
    for at, one in enumerate((report.get("operating_points") or {}).get("decisions") or []):
        if said := [*_targets(one), *_use(one)]:
            yield Field(f"{ahead}Cut of {one['name']}", said, f"{points}.decisions[{at}]")
    yield from _calibration(ahead, report, source)
    yield from _curves(ahead, report, source)


def _targets(one: Mapping[str, Any]) -> Iterator[str]:
    """Measures that the rule asks for by a number."""
    for measure, least in _asked(one.get("rule") or {}):
        found = one.get(measure)
        if not found or found["value"] is None:
            continue
        name = named(measure) if named(measure).isupper() else measure
        said = f"{name} of at least {least:g} was asked, {interval(found)} was reached, {_counted(found)}"
        if found["value"] < least:
            yield f"{said}: not reached"
        elif found["low"] is not None and found["low"] < least:
            yield f"{said}: reached, but not shown by so few patients"


def _asked(rule: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if rule.get("rule") in ("sensitivity", "specificity"):
        yield str(rule["rule"]), float(rule["at_least"])
    for side in ("out", "in"):
        wanted = rule.get(side)
        if isinstance(wanted, Mapping):
            yield from ((str(measure), float(least)) for measure, least in wanted.items())


def _use(one: Mapping[str, Any]) -> Iterator[str]:
    """Whether the cut decides for enough patients, and whether what it leaves out differs from the rest."""
    rule = (one.get("rule") or {}).get("rule")
    side, ratio = ("ruled_in", "lr_positive") if rule == "specificity" else ("ruled_out", "lr_negative")
    share, decided = one.get(side), one.get("coverage")
    words = side.replace("_", " ")
    if share and share["value"] is not None and share["value"] < FEW:
        other = "sensitivity" if rule == "specificity" else "specificity"
        found = one[other]
        yield (
            f"few are {words}: {interval(share)} of all patients, {_counted(share)}; {other} {interval(found)}, "
            f"{_counted(found)}"
        )
    if decided and decided["value"] is not None and decided["value"] < MOST:
        yield f"fewer than half of the patients are decided: {interval(decided)}, {_counted(decided)}"
    odds = one.get(ratio)
    if odds and odds["value"] is not None and odds["low"] is not None and odds["low"] <= 1 <= odds["high"]:
        said = f"{named(ratio)} {interval(odds)}, n {odds['n']}"
        yield f"those {words} are not shown to differ from the rest: {said}, where 1 tells nothing"


def _counted(found: Mapping[str, Any]) -> str:
    return f"{found['successes']} of {found['n']}" if "successes" in found else f"n {found.get('n', '–')}"


def _calibration(ahead: str, report: Mapping[str, Any], source: str) -> Iterator[Field]:
    """Probabilities and risks whose spread is wrong; of calibrated ones these alone, since they are what one reads."""
    for section, key, what in (("calibration", "questions", "probabilities"), ("survival", "calibration", "risks")):
        records = (report.get(section) or {}).get(key) or []
        judged = [(str(one.get("name") or one.get("horizon")), _slope(one)) for one in records]
        wrong = [f"{name} {interval(slope)}" for name, slope in judged if slope and not _acceptable(slope)]
        if not wrong:
            continue
        whom = records[0].get("n") or (records[0].get("slope") or {}).get("n")
        kind = f"{what}, calibrated where they could be," if any(one.get("calibrated") for one in records) else what
        least, most = ACCEPTABLE
        said = (
            f"{kind} of {len(wrong)} of {len(judged)} are for ranking only: slope outside {least:g} to {most:g} "
            f"(n {whom}): {'; '.join(wrong)}"
        )
        yield Field(f"{ahead}Calibration", said, below(below(source, section), key))


def _slope(one: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of the calibrated numbers where they have one, else of those that the model gives."""
    known = [found.get("slope") or {} for found in (one.get("calibrated") or {}, one)]
    return next((found for found in known if found.get("value") is not None), None)


def _acceptable(slope: Mapping[str, Any]) -> bool:
    least, most = ACCEPTABLE
    return bool(least <= slope["value"] <= most)


def _curves(ahead: str, report: Mapping[str, Any], source: str) -> Iterator[Field]:
    """Decision curves that lie nowhere above acting on all or on none."""
    utility = report.get("utility") or {}
    key = "horizons" if "horizons" in utility else "questions"
    drawn = [one for one in utility.get(key) or [] if one.get("thresholds")]
    vain = [str(one["name"]) for one in drawn if not any((low or 0) > 0 for low in one["gain"]["low"])]
    if vain:
        said = (
            f"{', '.join(vain)}: at no threshold is acting on the tool shown to be worth more than acting on all "
            f"patients or on none (n {drawn[0].get('n', '–')})"
        )
        yield Field(f"{ahead}Decision curve", said, below(below(source, "utility"), key))


def _gates(facts: Facts) -> Iterator[Field]:
    for at, gate in enumerate(facts.gates):
        if gate.holds is False:
            name = f"Release gate {gate.number}, {gate.name}"
            yield Field(name, f"does not hold: {gate.sentence}", f"{REPORT}gates[{at}]")
