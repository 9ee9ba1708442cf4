"""Zones are called by what a rule asserts: names and meanings that a tool states."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.survival import Cox
from mil.errors import ConfigError
from mil.fitted.decision import Decision, apply
from mil.fitted.decision_rules import fit, plans
from mil.fitted.rules import parse_decision, parse_rule

BINARY = Binary(classes=("MSS", "MSI-H"), column="MSI")
RULE_OUT = [
    {"name": "MSS", "meaning": "MSI-H is unlikely."},
    {"name": "undetermined", "meaning": "Test as usual; {question} or not."},
]
ZONES = [{"name": name, "meaning": f"It is {name}."} for name in ("unlikely", "unknown", "likely")]


def patients(positives: int = 30, negatives: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = np.arange(positives + negatives) < positives
    score = 1 / (1 + np.exp(2 - rng.normal(size=len(truth)) - 2 * truth))
    return pd.DataFrame({"MSI": np.where(truth, "MSI-H", "MSS"), "p_MSI-H": score})


def fitted(rule: dict[str, Any], endpoint: Any = BINARY) -> Decision:
    (decision,) = fit(parse_rule(rule), endpoint, patients(), patients())
    return decision


def test_a_rule_out_calls_nobody_by_the_finding() -> None:
    decision = fitted({"rule": "sensitivity", "at_least": 0.9, "outputs": RULE_OUT})
    (cut,) = decision.cuts
    calls = apply([decision], pd.DataFrame({"p_MSI-H": [cut - 0.001, cut, 0.99]}))["call"]
    assert list(calls) == ["MSS", "undetermined", "undetermined"]
    assert [output.meaning for output in decision.outputs] == [
        "MSI-H is unlikely.",
        "Test as usual; MSI-H or not.",
    ]
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
    assert fitted({"rule": "sensitivity", "at_least": 0.9}).calls == ("MSS", "MSI-H"), "without names, as before"
    assert fitted({"rule": "sensitivity", "at_least": 0.9}).cuts == decision.cuts


def test_names_of_the_outer_zones_stay_where_two_cuts_become_one() -> None:
    rule = {"rule": "two_cuts", "out": {"npv": 0.5}, "in": {"ppv": 0.3}, "outputs": ZONES}
    decision = fitted(rule)
    assert (len(decision.cuts), decision.calls, decision.between) == (1, ("unlikely", "likely"), None)
    assert [output.name for output in decision.outputs] == ["unlikely", "likely"]
    apart = fitted({**rule, "out": {"npv": 0.97}, "in": {"ppv": 0.9}})
    assert (apart.calls, apart.between) == (("unlikely", "unknown", "likely"), "unknown")


def test_each_question_has_outputs_about_itself() -> None:
    outputs = [{"name": name, "meaning": "About {question}."} for name in ("not {question}", "{question} first")]
    decision = parse_decision({"rule": "youden", "outputs": outputs})
    first, second = plans(decision, Multilabel(("ER", "PR")))  # type: ignore[arg-type]
    assert (first.calls, second.calls) == (("not ER", "ER first"), ("not PR", "PR first"))
    assert second.outputs[0].meaning == "About PR."


def test_a_rule_with_outputs_is_written_back_as_it_was_given() -> None:
    stated = {"rule": "sensitivity", "at_least": 0.9, "role": "rule-out", "outputs": RULE_OUT}
    rule = parse_rule(stated)
    assert rule.plain() == stated
    assert parse_rule(rule.plain()) == rule
    assert "outputs" not in rule.terms()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"rule": "youden", "outputs": ZONES}, "3 outputs, expected 2"),
        ({"rule": "two_cuts", "low": 0.1, "high": 0.9, "outputs": RULE_OUT}, "2 outputs, expected 3"),
        ({"rule": "quantiles", "cuts": [0.3, 0.6], "outputs": RULE_OUT}, "2 outputs, expected 3"),
        ({"rule": "youden", "outputs": [RULE_OUT[0]] * 2}, "output 'MSS' is there 2 times"),
        ({"rule": "youden", "outputs": [{"name": "a"}, {"name": "b"}]}, "expected a name and a meaning"),
        ({"rule": "youden", "outputs": [RULE_OUT[0], {"name": "b", "meaning": " "}]}, "in words"),
        ({"rule": "youden", "outputs": "MSS"}, "expected a list"),
    ],
)
def test_outputs_that_do_not_fit_the_zones_are_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rule(rule)


def test_the_likeliest_class_has_an_output_for_each_class_and_for_abstaining() -> None:
    endpoint = Multiclass(classes=("a", "b", "c"))
    with pytest.raises(ConfigError, match="3 outputs, expected 4: a, b, c, abstained"):
        plans(parse_decision({"rule": "argmax", "abstain_below": 0.5, "outputs": ZONES}), endpoint)  # type: ignore[arg-type]
    (plan,) = plans(parse_decision({"rule": "argmax", "outputs": ZONES}), endpoint)  # type: ignore[arg-type]
    assert (plan.calls, plan.between) == (("unlikely", "unknown", "likely"), None)


def test_groups_of_risk_have_names_of_their_own() -> None:
    rule = parse_decision({"rule": "quantiles", "cuts": [0.5], "outputs": RULE_OUT})
    (plan,) = plans(rule, Cox())  # type: ignore[arg-type]
    assert plan.calls == ("MSS", "undetermined")


def test_calls_of_a_decision_are_the_names_of_its_outputs() -> None:
    decision = fitted({"rule": "sensitivity", "at_least": 0.9, "outputs": RULE_OUT})
    with pytest.raises(ValueError, match="are not the calls"):
        Decision.model_validate(decision.model_dump() | {"calls": ("MSS", "MSI-H")})
