"""Records of earlier reports whose names or nesting changed: each function returns today's nesting of an old record."""

from collections.abc import Callable
from typing import Any

from mil.report.schema import Confusion, GateResult, Model
from mil.report.sections.discrimination import Discrimination, QuestionAreas
from mil.report.sections.operating_points import GroupCounts
from mil.report.sections.oracle import Oracle
from mil.report.sections.site_effects import SitePrediction
from mil.report.sections.subgroups import QuestionResult, SubgroupRow

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


def _site_prediction(old: Json) -> Json:
    return {key: value for key, value in old.items() if key != "value" or value is not None}


def _subgroup(old: Json) -> Json:
    """The counts of the metric were repeated in its subgroup."""
    return {key: value for key, value in old.items() if key not in COUNTED or value != old["value"].get(key)}


def _oracle(old: Json) -> Json:
    return {"metrics": old}


def _gate(old: Json) -> Json:
    return {"sentence": old.pop("said"), **old}


RESHAPED: dict[type[Model], Callable[[Json], Json]] = {
    Discrimination: _discrimination,
    QuestionAreas: _question,
    Confusion: _confusion,
    GroupCounts: _group,
    SitePrediction: _site_prediction,
    SubgroupRow: _subgroup,
    QuestionResult: _subgroup,
    Oracle: _oracle,
    GateResult: _gate,
}
"""By the model whose old record it takes; a record may be changed in place."""
