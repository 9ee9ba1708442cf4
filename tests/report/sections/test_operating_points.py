"""Operating points: counted by hand, pooled once a patient, and moved by nothing that is reported."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.survival import Cox
from mil.errors import ConfigError
from mil.fitted import calibrators
from mil.report.sections.operating_point import OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.stats.estimate import Estimate
from mil.stats.proportions import clopper_pearson, likelihood_ratio, predictive_value, wilson
from tests.estimates import triple, value_of
from tests.report.tables import binary, multiclass, refitted, survival

RULE_OUT = {"rule": "sensitivity", "at_least": 0.9, "role": "rule-out"}
ZONES = {"rule": "two_cuts", "out": {"npv": 0.9}, "in": {"ppv": 0.8}}
CLASSES = Multiclass(classes=("a", "b", "c"))


def decisions(table: pd.DataFrame, endpoint: Endpoint, decision: Any, **tool: Any) -> tuple[OperatingPoint, ...]:
    section = OperatingPoints.compute(refitted(table, endpoint, {"decision": decision, **tool}))
    assert section is not None
    assert OperatingPoints.model_validate_json(section.model_dump_json()) == section
    return section.decisions


def matrix(decision: OperatingPoint) -> list[list[int]]:
    """Return the counts by true class and call."""
    assert decision.confusion is not None
    return [list(row) for row in decision.confusion.rows]


def called(table: pd.DataFrame, cuts: Sequence[Sequence[float] | None]) -> tuple[Any, Any]:
    """Zone and label of each reported patient, by the cuts of the fold."""
    parts = [part for _, part in table[table["role"] == "report"].groupby("fold")]
    zones = [np.digitize(part["p_1"], cut or ()) for part, cut in zip(parts, cuts, strict=True)]
    return np.concatenate(zones), np.concatenate([part["label"] for part in parts])


def test_a_cut_is_counted_as_scikit_learn_counts() -> None:
    table = binary()
    (point,) = decisions(table, Binary(), RULE_OUT, prevalences=[0.05])
    zone, label = called(table, point.cuts)
    (tn, fp), (fn, tp) = expected = confusion_matrix(label, zone)
    assert matrix(point) == expected.tolist()
    assert point.confusion is not None
    assert point.confusion.classes == point.confusion.calls == ("0", "1")
    assert (point.n, point.positives, point.negatives) == (120, tp + fn, tn + fp)
    (at,) = point.at_cuts
    shares = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp), "npv": (tn, tn + fn)}
    assert (at.name, at.ruled_in, point.undecided) == ("cut", None, None), "a rule-out rules nobody in"
    for name, (hit, among) in (shares | {"ruled_out": (tn + fn, 120)}).items():
        estimate: Estimate = getattr(at, name)
        assert value_of(estimate) == pytest.approx(hit / among)
        assert triple(estimate)[1:] == wilson(hit, among)
        assert estimate.second is not None
        assert (estimate.second.low, estimate.second.high) == clopper_pearson(hit, among)
    for name, counts in (("lr_positive", (tp, tp + fn, fp, tn + fp)), ("lr_negative", (fn, tp + fn, tn, tn + fp))):
        assert triple(getattr(at, name)) == triple(likelihood_ratio(*counts))
    (rare,) = point.at_prevalence
    assert rare.ppv.value == predictive_value(tp, tp + fn, fp, tn + fp, 0.05).value
    assert rare.npv.value == predictive_value(tn, tn + fp, fn, tp + fn, 0.95).value
    assert (point.name, point.role, point.rule) == ("1", "rule-out", RULE_OUT)


def test_two_cuts_leave_some_patients_between() -> None:
    table = binary()
    (point,) = decisions(table, Binary(), ZONES)
    zone, label = called(table, point.cuts)
    assert matrix(point) == [[int(((zone == z) & (label == y)).sum()) for z in range(3)] for y in (0, 1)]
    assert value_of(point.undecided) == pytest.approx(np.mean(zone == 1))
    assert value_of(point.coverage) == pytest.approx(np.mean(zone != 1))


def test_each_of_two_cuts_is_described_as_what_it_is() -> None:
    table = binary()
    (point,) = decisions(table, Binary(), ZONES)
    zone, label = called(table, point.cuts)
    lower, upper = point.at_cuts
    assert (lower.name, upper.name) == ("lower cut", "upper cut")
    assert (lower.ppv, lower.lr_positive, lower.ruled_in) == (upper.npv, upper.lr_negative, upper.ruled_out)
    assert lower.ppv is None
    for at, positive in ((lower, zone > 0), (upper, zone > 1)):
        (tn, fp), (fn, tp) = confusion_matrix(label, positive)
        assert value_of(at.sensitivity) == pytest.approx(tp / (tp + fn))
        assert value_of(at.specificity) == pytest.approx(tn / (tn + fp))
    assert value_of(lower.npv) == pytest.approx(np.mean(label[zone == 0] == 0))
    assert value_of(upper.ppv) == pytest.approx(np.mean(label[zone == 2] == 1))
    assert value_of(lower.ruled_out) == pytest.approx(np.mean(zone == 0))
    assert value_of(upper.ruled_in) == pytest.approx(np.mean(zone == 2))
    assert 0 < value_of(upper.sensitivity) < value_of(lower.sensitivity) < 1


@pytest.mark.parametrize("rule", [RULE_OUT, ZONES, {"rule": "argmax", "abstain_below": 0.55}, {"rule": "youden"}])
def test_likelihood_ratios_follow_from_the_sensitivity_and_specificity_beside_them(rule: dict[str, Any]) -> None:
    (point,) = decisions(binary(patients=300), Binary(), rule)
    for at in point.at_cuts:
        sensitivity, specificity = value_of(at.sensitivity), value_of(at.specificity)
        if at.lr_negative is not None:
            assert value_of(at.lr_negative) == pytest.approx((1 - sensitivity) / specificity)
        if at.lr_positive is not None:
            assert value_of(at.lr_positive) == pytest.approx(sensitivity / (1 - specificity))
    assert sum(at.lr_negative is not None for at in point.at_cuts) == 1
    assert sum(at.lr_positive is not None for at in point.at_cuts) == 1


def test_a_cut_is_stated_where_all_folds_share_it() -> None:
    stated = {"rule": "two_cuts", "low": 0.2, "high": 0.6}
    (point,) = decisions(binary(), Binary(), stated)
    assert [at.cut for at in point.at_cuts] == [0.2, 0.6]
    (point,) = decisions(binary(), Binary(), {"rule": "argmax", "abstain_below": 0.75})
    assert [at.cut for at in point.at_cuts] == [0.25, 0.75]
    (point,) = decisions(binary(), Binary(), ZONES)
    assert [at.cut for at in point.at_cuts] == [None, None]
    (point,) = decisions(binary().query("fold == 0"), Binary(), ZONES)
    assert tuple(at.cut for at in point.at_cuts) == point.cuts[0]


@pytest.mark.parametrize("rule", [RULE_OUT, ZONES, {"rule": "argmax", "abstain_below": 0.7}])
def test_a_thousand_patients_are_a_thousand(rule: dict[str, Any]) -> None:
    (point,) = decisions(binary(), Binary(), rule, prevalences=[0.05, 0.3])
    for cells in (point.per_1000, *(each.per_1000 for each in point.at_prevalence)):
        triples = [triple(cell.estimate) for cell in cells]
        assert sum(value for value, _, _ in triples) == pytest.approx(1000)
        assert all(low <= value <= high for value, low, high in triples)
    rare = point.at_prevalence[0]
    assert sum(value_of(cell.estimate) for cell in rare.per_1000 if cell.positive) == pytest.approx(50)


@pytest.mark.parametrize("rule", [RULE_OUT, ZONES, {"rule": "specificity", "at_least": 0.7}, {"rule": "youden"}])
def test_nothing_reported_moves_a_cut(rule: dict[str, Any]) -> None:
    table = binary()
    reported = table["role"] == "report"
    changed = table.assign(
        label=table["label"].where(~reported, 1 - table["label"]), p_1=table["p_1"].where(~reported, 0.5)
    )
    ours, theirs = (decisions(each, Binary(), rule)[0] for each in (table, changed))
    assert ours.fitted == theirs.fitted
    assert ours.confusion != theirs.confusion


def test_a_patient_of_several_folds_counts_once_as_the_first_has_it() -> None:
    once = binary()
    repeated = pd.concat([once, once.assign(fold=once["fold"] + 3, p_1=0.5)])
    (alone,), (twice,) = decisions(once, Binary(), RULE_OUT), decisions(repeated, Binary(), RULE_OUT)
    assert twice.confusion == alone.confusion
    assert len(twice.fitted) == 6


def test_a_fold_that_cannot_set_the_cut_decides_nobody_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    table = binary()
    with caplog.at_level(logging.WARNING):
        rows_left = table[(table["role"] != "select") | (table["fold"] != 1)]
        (some,) = decisions(rows_left, Binary(), RULE_OUT)
        (nobody,) = decisions(table[table["role"] == "report"], Binary(), RULE_OUT, prevalences=[0.1])
    assert some.cuts[1] is None
    assert (some.n, some.undecided_patients) == (80, 40)
    assert "expected both classes" in str(some.fitted[1].reason)
    assert "fold 1" in caplog.text
    assert (nobody.n, nobody.undecided_patients) == (0, 120)
    (at,) = nobody.at_cuts
    for number in (at.sensitivity, at.lr_positive, nobody.at_prevalence[0].ppv):
        assert number is not None
        assert number.value is None
        assert number.reason


@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ({"rule": "two_cuts", "low": 0.2, "high": 0.6}, ("calibrated_1",)),
        ({"rule": "argmax", "abstain_below": 0.7}, ("calibrated_1",)),
        (RULE_OUT, ("p_1",)),
        (ZONES, ("p_1",)),
        ({"rule": "youden"}, ("p_1",)),
    ],
)
def test_a_stated_probability_is_compared_with_the_calibrated_one_of_the_fold(
    rule: dict[str, Any], columns: tuple[str, ...]
) -> None:
    table = binary()
    table["p_1"] = table["p_1"] ** 3
    (point,) = decisions(table, Binary(), rule, calibration="platt")
    assert [each.columns for each in point.fitted] == [columns] * 3
    if columns == ("p_1",):
        (plain,) = decisions(table, Binary(), rule)
        assert point.confusion == plain.confusion
        return
    zones = {"two_cuts": (0.2, 0.6), "argmax": (0.3, 0.7)}[rule["rule"]]
    counted = np.zeros((2, 3), int)
    for fold in range(3):
        select, rows = (table[(table["fold"] == fold) & (table["role"] == role)] for role in ("select", "report"))
        better = calibrators.fit("platt", Binary(), select.set_index("patient")).apply(rows)["calibrated_1"]
        np.add.at(counted, (rows["label"].to_numpy(), np.digitize(better, zones)), 1)
    order = [0, 1, 2] if rule["rule"] == "two_cuts" else [0, 2, 1]  # the calls of argmax are classes, then nobody
    assert matrix(point) == counted[:, order].tolist()


def test_where_select_patients_carry_no_calibration_the_models_own_probability_is_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table, rule = binary(), {"rule": "two_cuts", "low": 0.2, "high": 0.6}
    table["p_1"] = table["p_1"] ** 3  # so that a calibration helps
    rows_left = table[(table["role"] != "select") | (table["fold"] != 1)]
    with caplog.at_level(logging.WARNING):
        (point,) = decisions(rows_left, Binary(), rule, calibration="platt")
    assert [each.columns for each in point.fitted] == [("calibrated_1",), ("p_1",), ("calibrated_1",)]
    assert caplog.text.count("no calibration: calibration platt of 1: 0 patients") == 1
    assert point.n == 120


def test_the_likeliest_class_is_counted_among_those_with_a_call() -> None:
    table = multiclass()
    (point,) = decisions(table, CLASSES, {"rule": "argmax", "abstain_below": 0.6})
    rows = table[table["role"] == "report"]
    shares = rows[["p_a", "p_b", "p_c"]].to_numpy()
    sure, right = shares.max(1) >= 0.6, np.array(list("abc"))[shares.argmax(1)] == rows["label"]
    assert value_of(point.accuracy) == pytest.approx(right[sure].mean())
    assert value_of(point.abstained) == pytest.approx(1 - sure.mean())
    assert value_of(point.recall["b"]) == pytest.approx(right[sure & (rows["label"] == "b")].mean())
    assert np.sum(matrix(point)) == point.n == 90
    assert point.calls == ("a", "b", "c", "abstained")


def test_labels_that_are_not_known_are_not_counted() -> None:
    table = binary().rename(columns={"label": "MSI", "p_1": "p_MSI"})
    table = table.assign(p_EBV=1 - table["p_MSI"], EBV=(1 - table["MSI"]).astype(str))
    table["EBV"] = table["EBV"].where(table["patient"] > "040", "")
    first, second = decisions(table, Multilabel(("MSI", "EBV")), {"rule": "youden"})
    assert (first.name, first.n, second.name) == ("MSI", 120, "EBV")
    assert second.n == len(table[(table["EBV"] != "") & (table["role"] == "report")]) < 120


def test_groups_of_survival_are_counted_with_their_events() -> None:
    table = survival()
    (point,) = decisions(table, Cox(), {"rule": "quantiles", "cuts": [0.5]})
    assert [group.name for group in point.groups] == ["low", "high"]
    assert sum(group.counts["n"] for group in point.groups) == 120
    assert sum(group.counts["events"] for group in point.groups) == table[table["role"] == "report"]["event"].sum()


def test_scores_that_are_not_there_decide_nobody(caplog: pytest.LogCaptureFixture) -> None:
    rule = {"rule": "absolute_risk", "horizon": "5y", "cuts": [0.05]}
    with caplog.at_level(logging.WARNING):
        (point,) = decisions(survival(), Cox(horizons={"5y": 60}), rule)
    assert "no column 'risk_5y'" in str(point.fitted[0].reason)
    assert [(group.name, group.counts) for group in point.groups] == [
        (name, {"n": 0, "events": 0}) for name in ("low", "high")
    ]


@pytest.mark.parametrize("decision", [None, {"rule": None}])
def test_without_a_rule_there_is_no_section(decision: Any) -> None:
    assert OperatingPoints.compute(refitted(binary(), Binary(), {"decision": decision})) is None


@pytest.mark.parametrize("wrong", [5, 1, "0.1"])
def test_a_prevalence_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="prevalences"):
        OperatingPoints.compute(refitted(binary(), Binary(), {"decision": RULE_OUT, "prevalences": [wrong]}))
