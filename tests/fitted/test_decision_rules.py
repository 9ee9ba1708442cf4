"""What a tool's rule becomes for each kind of endpoint, and what is refused."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import ConfigError, MilError, PredictionsError
from mil.fitted import calibrators, decision_rules
from mil.fitted.calibrators import Calibrator
from mil.fitted.cutoffs import choose
from mil.fitted.decision_rules import Decision, Plan, apply, on_calibrated_columns
from mil.fitted.rules import SensitivityRule, parse_rule
from mil.fitted.specification import Specification

few = settings(deadline=None, max_examples=25)
BINARY = Binary("MSI", ("MSS", "MSI-H"))
CLASSES, GRADES = Multiclass(classes=("a", "b", "c")), Ordinal(classes=("1", "2", "3"))
LABELS = Multilabel(("MSI", "EBV"), (("MSS", "MSI-H"), ("no", "yes")))
COX = Cox(horizons={"5y": 60})
CAUSES = CompetingRisks(causes=("relapse", "death"), horizons={"5y": 60})
NOBODY = pd.DataFrame()


def plans(decision: object, endpoint: Endpoint) -> list[Plan]:
    """The plans of a tool that states this."""
    asked = Specification.model_validate({"decision": decision}).decision_of_single()
    return decision_rules.plans(asked, endpoint)


def fit(
    decision: object,
    endpoint: Endpoint,
    train: pd.DataFrame,
    select: pd.DataFrame,
    calibrator: Calibrator | None = None,
) -> list[Decision]:
    """The decisions of a tool that states this."""
    return [plan.fit(train, select, calibrator) for plan in plans(decision, endpoint)]


def patients(seed: int = 0, count: int = 60) -> pd.DataFrame:
    """Targets and scores of every endpoint above, with ties."""
    rng = np.random.default_rng(seed)
    grade = np.append([0, 1, 2], rng.integers(0, 3, count - 3))
    shares = rng.dirichlet([1, 1, 1], count) + np.eye(3)[grade]
    shares = np.round(shares / shares.sum(1, keepdims=True), 2)
    score = np.round(shares[:, 2], 1)
    ebv = np.where(rng.random(count) < 0.3, "", np.where(grade > 0, "yes", "no"))
    return pd.DataFrame(
        {
            "label": np.array(["a", "b", "c"])[grade],
            "grade": grade + 1,
            "MSI": np.where(grade == 2, "MSI-H", "MSS"),
            "EBV": ebv,
            "p_MSI-H": score,
            "p_MSI": score,
            "p_EBV": 1 - shares[:, 0],
            **{f"p_{name}": shares[:, at] for at, name in enumerate("abc")},
            **{f"p_{at + 1}": shares[:, at] for at in range(3)},
            "time": rng.exponential(40, count) + 1,
            "event": (rng.random(count) < 0.5).astype(int),
            "log_hazard": rng.normal(size=count),
            "risk_5y": score,
            "risk_relapse_5y": score,
            "score": rng.normal(size=count),
            "value": rng.normal(size=count),
        }
    )


def one(rule: dict[str, Any], endpoint: Endpoint, **tables: pd.DataFrame) -> Decision:
    (decision,) = fit(rule, endpoint, tables.get("train", NOBODY), tables.get("select", NOBODY))
    return decision


def test_a_binary_question_is_cut_as_the_rule_chooses() -> None:
    rule, table = {"rule": "sensitivity", "at_least": 0.9, "role": "rule-out"}, patients()
    found = one(rule, BINARY, select=table)
    positive = table["MSI"] == "MSI-H"
    assert found.cuts == (choose(SensitivityRule.model_validate(rule), table["p_MSI-H"], positive),)
    assert (found.name, found.calls, found.on, found.rule.plain()) == ("MSI-H", ("MSS", "MSI-H"), "select", rule)
    assert (found.n, found.positives) == (60, positive.sum())
    called = apply([found], table)["call"]
    assert found.achieved["sensitivity"] == np.mean(called[positive] == "MSI-H")
    assert found.achieved["npv"] == np.mean(~positive[called == "MSS"])


@pytest.mark.parametrize(
    ("endpoint", "names", "first"),
    [
        (CLASSES, ["a", "b", "c"], ("not a", "a")),
        (GRADES, [">= 2", ">= 3"], ("< 2", ">= 2")),
        (LABELS, ["MSI", "EBV"], ("MSS", "MSI-H")),
    ],
)
def test_every_question_has_a_decision_of_its_own(endpoint: Endpoint, names: list[str], first: tuple[str, str]) -> None:
    table = patients()
    found = fit({"rule": "youden"}, endpoint, NOBODY, table)
    assert [decision.name for decision in found] == names
    assert found[0].calls == first
    assert list(apply(found, table)) == [f"call_{name}" for name in names]


def test_patients_whose_label_is_not_known_set_no_cut() -> None:
    table = patients()
    known = table["EBV"] != ""
    found = one({"questions": {"EBV": {"rule": "youden"}, "MSI": None}}, LABELS, select=table)
    alone = one({"questions": {"EBV": {"rule": "youden"}}}, LABELS, select=table[known])
    assert found == alone
    assert found.n == known.sum() < len(table)


def test_classes_can_be_positive_together() -> None:
    table = patients()
    found = one({"rule": "sensitivity", "at_least": 0.95, "positive": ["2", "3"]}, GRADES, select=table)
    assert (found.name, found.calls, found.columns) == ("2 or 3", ("1", "2 or 3"), ("p_2", "p_3"))
    finds = apply([found], table)["call"][table["grade"] > 1] == "2 or 3"
    assert finds.mean() >= 0.95


def test_stated_cuts_need_nobody() -> None:
    table = patients()
    zones = one({"rule": "two_cuts", "low": 0.1, "high": 0.9}, BINARY)
    assert (zones.cuts, zones.calls) == ((0.1, 0.9), ("MSS", "indeterminate", "MSI-H"))
    risk = one({"rule": "absolute_risk", "horizon": "5y", "cuts": [0.05]}, COX)
    assert (risk.cuts, risk.calls, risk.columns) == ((0.05,), ("low", "high"), ("risk_5y",))
    cause = one({"rule": "absolute_risk", "horizon": "5y", "cuts": [0.05, 0.2]}, CAUSES)
    assert (cause.columns, cause.calls) == (("risk_relapse_5y",), ("low", "intermediate", "high"))
    likely = one({"rule": "argmax", "abstain_below": 0.5}, CLASSES)
    assert (likely.calls, likely.name) == (("a", "b", "c", "abstained"), "label")
    assert one({"rule": "argmax"}, BINARY).calls == ("MSS", "MSI-H")
    for found in (zones, risk, cause, likely):
        assert (found.on, found.n, found.positives, found.achieved) == ("stated beforehand", 0, None, {})
        assert set(apply([found], table)["call"]) <= set(found.calls)


@pytest.mark.parametrize(
    ("rule", "endpoint", "columns"),
    [
        ({"rule": "two_cuts", "low": 0.1, "high": 0.9}, BINARY, ("calibrated_MSI-H",)),
        ({"rule": "argmax", "abstain_below": 0.5}, CLASSES, ("calibrated_a", "calibrated_b", "calibrated_c")),
        (
            {"rule": "two_cuts", "low": 0.1, "high": 0.9, "positive": ["2", "3"]},
            GRADES,
            ("calibrated_2", "calibrated_3"),
        ),
        ({"rule": "youden"}, BINARY, ("p_MSI-H",)),
        ({"rule": "sensitivity", "at_least": 0.9}, BINARY, ("p_MSI-H",)),
        ({"rule": "two_cuts", "out": {"npv": 0.7}, "in": {"ppv": 0.7}}, BINARY, ("p_MSI-H",)),
    ],
)
def test_what_is_stated_is_cut_on_the_calibrated_columns_and_what_is_fitted_is_not(
    rule: dict[str, Any], endpoint: Endpoint, columns: tuple[str, ...]
) -> None:
    table = patients(count=200)
    calibrator = calibrators.fit("platt", endpoint, table)
    (found,) = fit(rule, endpoint, NOBODY, table, calibrator)
    assert found.columns == columns
    (plain,) = fit(rule, endpoint, NOBODY, table)
    assert (found.cuts, found.calls, found.on) == (plain.cuts, plain.calls, plain.on)
    assert on_calibrated_columns(plain, calibrator) == found
    assert on_calibrated_columns(found, None) == found
    assert set(apply([found], calibrator.apply(table))["call"].dropna()) <= set(found.calls)
    if columns[0].startswith("calibrated"):
        with pytest.raises(PredictionsError, match="no column 'calibrated_"):
            found.call(table)


def test_a_label_without_a_calibration_is_cut_as_the_model_gives_it() -> None:
    table = patients(count=200).assign(EBV="no")
    calibrator = calibrators.fit("platt", LABELS, table)
    rule = {"rule": "two_cuts", "low": 0.1, "high": 0.9}
    found = fit(rule, LABELS, NOBODY, table, calibrator)
    assert [one.columns for one in found] == [("calibrated_MSI",), ("p_EBV",)]
    again = on_calibrated_columns(found[0], calibrators.fit("platt", LABELS, patients(count=200).assign(MSI="MSS")))
    assert again.columns == ("p_MSI",)


@pytest.mark.parametrize(("endpoint", "column", "events"), [(COX, "log_hazard", True), (Regression(), "value", False)])
def test_groups_are_cut_at_quantiles_of_training_patients(endpoint: Endpoint, column: str, events: bool) -> None:
    table = patients()
    found = one({"rule": "quantiles", "cuts": [1 / 3, 2 / 3]}, endpoint, train=table)
    assert found.cuts == tuple(np.quantile(table[column], [1 / 3, 2 / 3]))
    assert (found.name, found.on, found.n) == (column, "train", 60)
    assert found.positives == (table["event"].sum() if events else None)
    assert found.achieved == pytest.approx({"low": 1 / 3, "intermediate": 1 / 3, "high": 1 / 3})
    with pytest.raises(PredictionsError, match=f"decision {column}: 0 train patients"):
        one({"rule": "quantiles", "cuts": [0.5]}, endpoint, select=table)


def test_zones_that_overlap_become_one_cut_and_it_is_said() -> None:
    table = patients().assign(**{"p_MSI-H": lambda rows: (rows["MSI"] == "MSI-H") * 0.5 + rows["p_MSI-H"] / 4})
    found = one({"rule": "two_cuts", "out": {"sensitivity": 0.7}, "in": {"specificity": 0.7}}, BINARY, select=table)
    assert (len(found.cuts), found.calls) == (1, ("MSS", "MSI-H"))
    assert "one cut in the middle" in (found.note or "")


def test_a_specificity_out_of_reach_is_said_in_the_decision(caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame({"MSI": ["MSS", "MSI-H", "MSS"], "p_MSI-H": [0.1, 0.2, 0.8]})
    with caplog.at_level(logging.WARNING):
        found = one({"rule": "specificity", "at_least": 0.9}, BINARY, select=table)
    assert found.note == (
        "A specificity of 0.9 cannot be promised from 2 negatives (9 are needed): the cut is set by the highest of "
        "their scores, and 0.666 is to be expected."
    )
    assert found.note in caplog.text
    assert found.achieved["specificity"] == 1


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([BINARY, LABELS, CLASSES, GRADES]), st.sampled_from([0.6, 0.9, 1.0]))
def test_what_is_promised_is_reached_and_calls_partition(seed: int, endpoint: Endpoint, share: float) -> None:
    table = patients(seed)
    for plan in plans({"rule": "sensitivity", "at_least": share}, endpoint):
        found = plan.fit(NOBODY, table)
        calls, truth = found.call(table), plan.question.truth(table) if plan.question else np.array([])
        assert set(calls) <= set(found.calls)
        reached = np.mean(calls[truth == 1] == found.calls[1])
        (promise,) = found.promises
        assert found.achieved["sensitivity"] == reached
        assert (promise.holds, found.note is None) == (promise.expected >= share,) * 2
        assert (promise.patients, promise.measure) == (np.sum(truth == 1), "sensitivity")
        below = (found.score(table)[truth == 1] < found.cuts[0]).sum()
        assert below < promise.rank
        if promise.holds and len(higher := found.score(table)[found.score(table) > found.cuts[0]]):
            missed = (found.score(table)[truth == 1] < higher.min()).sum()
            assert (promise.patients - missed) / (promise.patients + 1) < share, "no higher cut keeps it"


def test_none_decides_nothing() -> None:
    rules: list[dict[str, Any] | None] = [None, {}, {"rule": None}, {"questions": {}}, {"questions": {"MSI-H": None}}]
    for rule in rules:
        assert fit(rule, BINARY, NOBODY, NOBODY) == []


@pytest.mark.parametrize(
    ("rule", "endpoint", "said"),
    [
        ({"rule": "best"}, BINARY, "rule 'best', expected one of sensitivity"),
        ({"rule": "youden", "at_least": 0.9}, BINARY, "youden: key 'at_least'"),
        ({"rule": "sensitivity", "at_least": 95}, BINARY, "at_least 95"),
        ({"rule": "sensitivity", "at_most": 0.9}, BINARY, "key 'at_most'"),
        ({"rule": "two_cuts", "low": 0.9, "high": 0.1}, BINARY, "low 0.9 and high 0.1"),
        ({"rule": "two_cuts", "low": 0.9, "in": {"ppv": 0.9}}, BINARY, "in, low, expected low and high"),
        ({"rule": "two_cuts", "out": {"ppv": 0.9}, "in": {"ppv": 0.9}}, BINARY, "one share of sensitivity or npv"),
        ({"rule": "two_cuts", "out": {"npv": 0.9}, "in": {"ppv": 9}}, BINARY, "one share of specificity or ppv"),
        ({"rule": "two_cuts"}, BINARY, "neither"),
        ({"rule": "argmax", "abstain_below": 1}, CLASSES, "abstain_below 1"),
        ({"rule": "quantiles", "cuts": [0.7, 0.3]}, COX, "one or two rising shares"),
        ({"rule": "quantiles", "cuts": 0.5}, COX, "cuts 0.5"),
        ({"rule": "quantiles", "cuts": [0.5]}, BINARY, "quantiles: Binary"),
        ({"rule": "absolute_risk", "horizon": "3y", "cuts": [0.1]}, COX, "horizon '3y', expected one of 5y"),
        ({"rule": "absolute_risk", "horizon": "5y", "cuts": [0.1]}, BINARY, "(none)"),
        ({"rule": "absolute_risk", "horizon": "5y", "cuts": [0.1], "cause": "flu"}, CAUSES, "cause 'flu'"),
        ({"rule": "absolute_risk", "horizon": "5y", "cuts": [0.1], "cause": "flu"}, COX, "cause 'flu'"),
        ({"rule": "youden"}, COX, "Cox asks no question, expected quantiles or absolute_risk"),
        ({"rule": "youden"}, Regression(), "asks no question, expected quantiles"),
        ({"rule": "youden", "positive": "d"}, CLASSES, "positive d"),
        ({"questions": {"TP53": {"rule": "youden"}}}, LABELS, "question 'TP53', expected some of MSI, EBV"),
        ({"questions": {"a": {"rule": "argmax"}}}, CLASSES, "all classes compared at once"),
        ({"questions": {"a": {"rule": "youden", "positive": ["a"]}}}, CLASSES, "key 'positive'"),
        ({"questions": ["MSI"]}, LABELS, "a rule for each"),
        ({"questions": {"MSI": "youden"}}, LABELS, "'youden', expected a mapping"),
        ({"questions": {}, "rule": "youden"}, LABELS, "key 'rule'"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused(rule: dict[str, Any], endpoint: Endpoint, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        fit(rule, endpoint, patients(), patients())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rule", [{"rule": "youden"}, {"rule": "two_cuts", "out": {"npv": 0.9}, "in": {"ppv": 0.9}}])
def test_select_patients_of_one_class_set_no_cut(rule: dict[str, Any]) -> None:
    table = patients()
    with pytest.raises(PredictionsError, match="0 positives among"):
        one(rule, BINARY, select=table[table["MSI"] == "MSS"])
    with pytest.raises(MilError, match="0 positives among 0"):
        one(rule, BINARY, select=table.head(0))


def test_a_decision_at_a_horizon_beyond_the_follow_up_is_refused_in_one_line() -> None:
    endpoint = Cox(horizons={"5y": 60, "20y": 240})
    endpoint.longest = 60.0
    [plan] = decision_rules.plans(parse_rule({"rule": "absolute_risk", "horizon": "5y", "cuts": [0.1]}), endpoint)
    assert plan.columns == ("risk_5y",)
    message = "horizon 20y, 240 months lie beyond the follow-up: the training patients were followed for 60 months"
    with pytest.raises(ConfigError, match=message) as error:
        decision_rules.plans(parse_rule({"rule": "absolute_risk", "horizon": "20y", "cuts": [0.1]}), endpoint)
    assert "\n" not in str(error.value)
