"""Block 11: what was measured."""

from collections.abc import Iterator, Mapping
from typing import Any

from mil.cards.card_facts import REPORT, Facts
from mil.cards.content import CardBlock, Field, Subsection, absent
from mil.cards.measured import HEADS, below, interval, numbers, population
from mil.cards.section_tables import confusion, endpoint_reports, figures_of, figures_only, with_endpoint
from mil.report.page.words import named, written
from mil.report.schema import Table

COMPARATORS = ("baseline", "covariates")
"""Parts of a report that are about another model of the same patients."""
MEASURED = {
    "discrimination": "Discrimination: are patients with and without the finding told apart?",
    "calibration": "Calibration: does a predicted number mean what it says?",
    "utility": "Decision curve: is acting on the tool worth more than acting on all or on none?",
    "survival": "Survival: do risks order patients, and do they come true?",
    "groups": "Groups of risk by the frozen cuts",
    "added_value": "Added value beside clinical variables",
    "conformal": "Sets or intervals that hold the truth as often as was asked",
}
_PLACES = 5
"""Thresholds of a decision curve that a table shows."""


def performance(facts: Facts) -> CardBlock:
    """Every metric, every comparison."""
    fields = [
        Field("Cohort of these numbers", facts.cohort),
        Field("Main result, best possible, simpler models", "on this card's first screen, and in the table below"),
        Field("Where it falls short", "on this card's first screen"),
        Field("External validation", "no external validation"),
        Field("Failures looked at", absent("no pathologist has looked at the patients whom it got wrong")),
    ]
    return CardBlock(
        11, "Performance", fields, [*_tables(facts), *_sections(facts), *figures_only(facts, "baseline", "further")]
    )


def _tables(facts: Facts) -> Iterator[Subsection]:
    """Metrics of this model and of those beside it: over all folds, and of these weights alone."""
    if not facts.all_folds["metrics"]:
        yield Subsection("Metrics", [absent("no patient was held back to report on")])
        return
    if facts.report.get("run"):
        folds = f"Mean over {facts.all_folds['folds']} folds; scores of different folds are never compared."
        heading = f"Cross-validation of the run ({facts.all_folds['folds']} folds)"
        yield Subsection(heading, [folds], [_metrics(facts.all_folds, f"{REPORT}run")])
        fold = f"Fold {facts.manifest.data['split']['fold']}, of which these weights are."
        yield Subsection("These weights on their own report patients", [fold], [_metrics(facts.report, REPORT)])
        return
    yield Subsection("Metrics", (), [_metrics(facts.report, REPORT)])


def _metrics(report: Mapping[str, Any], source: str) -> Table:
    groups = [("this model", below(source, "metrics"), report["metrics"])]
    groups += [(report[key]["name"], f"{below(source, key)}.metrics", report[key]["metrics"]) for key in _there(report)]
    groups += [("oracle (knows the simulated tiles)", below(source, "oracle"), report.get("oracle") or {})]
    gains = [
        (f"this model minus {report[key]['name']}", f"{below(source, key)}.difference", report[key]["difference"])
        for key in _there(report)
    ]
    rows = [
        (who, named(name), interval(found), population(found), below(place, name))
        for who, place, metrics in [*groups, *gains]
        for name, found in metrics.items()
    ]
    methods = dict.fromkeys(str(one.get("method") or "bootstrap of patients") for one in report["metrics"].values())
    return Table(
        columns=("Model", "Metric", *HEADS[1:]), rows=tuple(rows), note=f"95% intervals: {'; '.join(methods)}."
    )


def _there(report: Mapping[str, Any]) -> list[str]:
    return [key for key in COMPARATORS if report.get(key)]


def _sections(facts: Facts) -> Iterator[Subsection]:
    """What was measured beside the metrics; what was not, and why, comes last."""
    missing = []
    for name, report, source in endpoint_reports(facts):
        for key, heading in MEASURED.items():
            found, place = report.get(key), below(source, key)
            if not found:
                missing.append(f"{with_endpoint(heading.partition(':')[0], name)}: {facts.missing(key)}.")
                continue
            figures = figures_of(facts, (key,)) if not name else []
            unit = (report.get("survival") or {}).get("unit") if key == "groups" else None
            told = [*([f"Times and restricted means are in {unit}."] if unit else []), *_sentences(found)]
            yield Subsection(with_endpoint(heading, name), told, list(_section(key, found, place)), figures)
    if missing:
        yield Subsection("Not in this report", missing)


def _section(key: str, found: Mapping[str, Any], place: str) -> Iterator[Table]:
    if key == "utility":
        yield from _curves(found, place)
        return
    table = numbers(found, place)
    if table:
        yield table
    if key == "discrimination" and found.get("confusion"):
        yield confusion({"calls": found["confusion"]["classes"]} | found["confusion"], place)


def _sentences(found: Any, name: str = "") -> Iterator[str]:
    """Verdicts in words, of each question by its name."""
    if isinstance(found, Mapping):
        own = str(found.get("name") or found.get("horizon") or name)
        if isinstance(found.get("verdict"), str):
            said = found["verdict"]
            yield f"{own}: {said}." if own else f"{said[:1].upper()}{said[1:]}."
        if isinstance(found.get("reason"), str) and "value" not in found:
            yield f"{own}: not estimable: {found['reason']}." if own else f"Not estimable: {found['reason']}."
        if found.get("unit") and found.get("times"):
            yield f"Times are in {found['unit']}."
        if found.get("measure") and "score" in found:
            per = found["score"].get("per", "standard deviation")
            yield f"{named(found['measure'])}s; of the score per {per}. Below them {_gained(found)}."
        if found.get("log_rank_p") is not None:
            yield f"Log-rank test between the groups: p {written(found['log_rank_p'], 'p')}, {population(found)}."
        for key, value in found.items():
            if isinstance(value, Mapping | list):
                yield from _sentences(value, f"{own} {key}".strip() if key == "calibrated" else own)
    elif isinstance(found, list):
        for one in found:
            yield from _sentences(one, name)


def _gained(found: Mapping[str, Any]) -> str:
    """What the comparison of models with and without the score is of."""
    metric = named((found.get("discrimination") or {}).get("metric") or "metric")
    p = (found.get("likelihood_ratio") or {}).get("p")
    test = f"; likelihood-ratio test of the score: p {written(p, 'p')}, {population(found)}" if p is not None else ""
    return f"{metric} of the variables, of the score, and of both{test}"


def _curves(found: Mapping[str, Any], place: str) -> Iterator[Table]:
    """A decision curve at a few of its thresholds."""
    key = "horizons" if "horizons" in found else "questions"
    for at, one in enumerate(found.get(key) or []):
        if not one.get("thresholds"):
            continue
        last = len(one["thresholds"]) - 1
        places = sorted({round(last * step / (_PLACES - 1)) for step in range(_PLACES)})
        rows = [
            (
                f"{one['thresholds'][k]:.3f}",
                _point(one["model"], k),
                written(one["all"][k]),
                _point(one["gain"], k),
                population(one),
                f"{place}.{key}[{at}], point {k}",
            )
            for k in places
        ]
        heads = (f"Threshold ({one['name']})", "Net benefit", "Of treating all", "Gain over all or none", *HEADS[2:])
        yield Table(
            columns=heads, rows=tuple(rows), note=f"95% intervals: {one['method']}." if one.get("method") else ""
        )


def _point(curve: Mapping[str, Any], k: int) -> str:
    return interval({key: curve[key][k] for key in ("value", "low", "high")})
