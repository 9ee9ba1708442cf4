"""Records of earlier reports whose names or nesting changed: each function returns today's nesting of an old record."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from mil.report.schema import Confusion, Curve, GateResult, Model
from mil.report.sections.added_value import AddedValue, LikelihoodRatio
from mil.report.sections.calibration import Calibration
from mil.report.sections.discrimination import Discrimination, QuestionAreas
from mil.report.sections.operating_point import CUT, LOWER, UPPER, AtCut, GroupCounts
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.report.sections.pooled import CalibrationBin
from mil.report.sections.prediction_sets import ClassCoverage
from mil.report.sections.subgroups import QuestionResult, SubgroupRow, Subgroups
from mil.report.sections.time_to_event import IntegratedBrier, OtherCause, TimeToEvent
from mil.report.sections.value_calibration import SpreadCoverage
from mil.stats.proportions import proportion
from mil.stats.site_signature import SitePredictability

Json = dict[str, Any]
COUNTED = ("positives", "negatives", "events")
"""Counts that stood both in a subgroup and in its metric."""


def from_schema_1(old: Json) -> Json:
    """Return a report of schema 1 in the form of schema 2: its one cut as a decision, its two groups as a list."""
    new = {key: value for key, value in old.items() if key not in ("operating_point", "groups")}
    if point := old.get("operating_point"):
        cuts = [[cut] for cut in point.pop("thresholds")]
        new["operating_points"] = {"decisions": [{"name": "decision", "calls": [], "cuts": cuts, **point}]}
    if groups := old.get("groups"):
        listed = [{"name": name, **groups[name]} for name in ("low", "high")]
        ratio = groups.get("hazard_ratio")
        new["groups"] = {
            "rule": {"rule": "quantiles", "cuts": [0.5]},
            "fitted": [{"fold": fold, "cuts": [cut]} for fold, cut in enumerate(groups["cuts"])],
            "n": sum(group["n"] for group in listed),
            "events": sum(group["events"] for group in listed),
            "groups": listed,
            "log_rank_p": groups.get("log_rank_p"),
            "hazard_ratios": [] if ratio is None else [{"group": "high", "reference": "low", **ratio}],
        }
    return new


def separate_cuts(sections: Json) -> Json:
    """Return sections, by key, in which the numbers of two cuts no longer stand in one row as if they were of one cut.

    Up to the first reports of schema 3, sensitivity and NPV were those of the lower of two cuts, specificity and PPV
    those of the upper one. What was not reported of each follows from the confusion matrix.
    """
    new = dict(sections)
    if points := sections.get(OperatingPoints.key):
        decisions = [_with_cuts(dict(point)) for point in points["decisions"]]
        new[OperatingPoints.key] = {**points, "decisions": decisions}
        moved = {point["name"] for point in points["decisions"] if point.get("indeterminate")}
        if moved and (subgroups := sections.get(Subgroups.key)):
            rows = [_upper_specificity(row, moved, len(decisions)) for row in subgroups["rows"]]
            new[Subgroups.key] = {**subgroups, "rows": rows}
    return new


def _with_cuts(old: Json) -> Json:
    flat = {name: old.pop(name) for name in AtCut.model_fields if name not in ("name", "cut") and name in old}
    between = old.pop("indeterminate", None)
    if not any(flat.values()):
        return old
    if not between:
        return old | {"at_cuts": [{"name": CUT, "cut": _only_cut(old, 0), **flat}]}
    lower = {name: flat.get(name) for name in ("sensitivity", "npv", "lr_negative", "ruled_out")}
    upper = {name: flat.get(name) for name in ("specificity", "ppv", "lr_positive", "ruled_in")}
    negatives, positives = (old.get("confusion") or {}).get("rows") or ((0, 0, 0), (0, 0, 0))
    lower["specificity"] = proportion(negatives[0], sum(negatives)).model_dump(mode="json")
    upper["sensitivity"] = proportion(positives[-1], sum(positives)).model_dump(mode="json")
    cuts = [
        {"name": LOWER, "cut": _only_cut(old, 0), **lower},
        {"name": UPPER, "cut": _only_cut(old, -1), **upper},
    ]
    return old | {"undecided": between, "at_cuts": cuts}


def _only_cut(old: Json, at: int) -> float | None:
    values = {cuts[at] for cuts in old.get("cuts") or () if cuts}
    return values.pop() if len(values) == 1 and (old.get("rule") or {}).get("rule") != "argmax" else None


def _upper_specificity(row: Json, names: set[str], decisions: int) -> Json:
    """Return a row of a subgroup whose specificity is that of the upper cut, where the decision has two."""
    questions = [
        _renamed(each, "specificity", "upper_specificity") if each["name"] in names else each
        for each in row.get("questions") or ()
    ]
    new = _renamed(row, "specificity", "upper_specificity") if decisions == 1 and not questions else row
    return {**new, "questions": questions} if questions else new


def _renamed(old: Json, name: str, new_name: str) -> Json:
    return {new_name if key == name else key: value for key, value in old.items()}


def _discrimination(old: Json) -> Json:
    """Metrics of a predicted value stood beside the other keys."""
    fields = Discrimination.model_fields
    metrics = {key: value for key, value in old.items() if key not in fields}
    return {key: value for key, value in old.items() if key in fields} | ({"metrics": metrics} if metrics else {})


def _question(old: Json) -> Json:
    """The prevalence was repeated in the average precision."""
    auprc = {key: value for key, value in old["auprc"].items() if (key, value) != ("prevalence", old["prevalence"])}
    return old | {"auprc": auprc}


def _confusion(old: Json) -> Json:
    return {"calls": old["classes"], **old}


def _group(old: Json) -> Json:
    return {"name": old.pop("name"), "counts": old}


def _site_predictability(old: Json) -> Json:
    """What guessing gives stood in each metric; a reason stood beside a missing value."""
    new = {key: value for key, value in old.items() if key != "value" or value is not None}
    metrics = {key: dict(value) for key, value in new.items() if isinstance(value, dict)}
    chance = {key: metric.pop("chance") for key, metric in metrics.items() if "chance" in metric}
    return new | metrics | {"chance": chance}


def _subgroup(old: Json) -> Json:
    """The counts of the metric were repeated in its subgroup."""
    return {key: value for key, value in old.items() if key not in COUNTED or value != old["value"].get(key)}


def _oracle(old: Json) -> Json:
    return {"metrics": old}


def _gate(old: Json) -> Json:
    return {"sentence": old.pop("said"), **old}


def _calibration(old: Json) -> Json:
    """The calibration of a predicted value stood beside the questions."""
    return {"predicted_value": old} if "bias" in old else old


def _curve(old: Json) -> Json:
    names = {"predicted": "x", "observed": "y", "low": "low", "high": "high", "level": "level", "method": "method"}
    return {new: old[key] for key, new in names.items() if key in old}


def _bin(old: Json) -> Json:
    """The interval of an observed share stood beside it."""
    if isinstance(old["observed"], dict):
        return old
    rest = {key: value for key, value in old.items() if key not in ("predicted", "observed")}
    return {"n": old["n"], "predicted": old["predicted"], "observed": {"value": old["observed"], **rest}}


def _counted(old: Json, model: type[Model]) -> Json:
    """Counts stood beside the other keys."""
    counts = {key: value for key, value in old.items() if key not in model.model_fields and isinstance(value, int)}
    return {key: value for key, value in old.items() if key not in counts} | {"counts": counts}


def _survival(old: Json) -> Json:
    return _counted(_uno(old), TimeToEvent)


def _other_cause(old: Json) -> Json:
    return _counted(_uno(old) | {"tau": old["uno_c"]["tau"]}, OtherCause)


def _uno(old: Json) -> Json:
    """Its time and its definition stood in Uno's C."""
    uno = {key: value for key, value in old["uno_c"].items() if key not in ("tau", "definition")}
    return old | {"uno_c": uno, "definition": old["uno_c"].get("definition")}


def _integrated_brier(old: Json) -> Json:
    names = {"from": "start", "to": "end"}
    return {names.get(key, key): value for key, value in old.items() if key != "value"}


def _added_value(old: Json) -> Json:
    return _counted(old, AddedValue)


def _likelihood_ratio(old: Json) -> Json:
    return _counted({key: value for key, value in old.items() if key != "value"}, LikelihoodRatio)


def _class_coverage(old: Json) -> Json:
    return {"name": old["class"], "coverage": old["coverage"]}


def _spread_coverage(old: Json) -> Json:
    return {"expected": old.pop("asked"), **old}


RESHAPED: dict[type[BaseModel], Callable[[Json], Json]] = {
    Discrimination: _discrimination,
    QuestionAreas: _question,
    Confusion: _confusion,
    GroupCounts: _group,
    SitePredictability: _site_predictability,
    SubgroupRow: _subgroup,
    QuestionResult: _subgroup,
    Oracle: _oracle,
    GateResult: _gate,
    Calibration: _calibration,
    Curve: _curve,
    SpreadCoverage: _spread_coverage,
    CalibrationBin: _bin,
    TimeToEvent: _survival,
    OtherCause: _other_cause,
    IntegratedBrier: _integrated_brier,
    AddedValue: _added_value,
    LikelihoodRatio: _likelihood_ratio,
    ClassCoverage: _class_coverage,
}
"""By the model whose old record it takes; a record may be changed in place."""
