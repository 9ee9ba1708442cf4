"""A frozen decision: zones that partition, ties, JSON, and a lowest cut set anew."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mil.errors import ConfigError, PredictionsError
from mil.fitted.decision import Decision, apply, recalibrate
from mil.fitted.rules import ArgmaxRule, SensitivityRule, parse_rule

few = settings(deadline=None, max_examples=40)
TWO_CUTS = parse_rule({"rule": "two_cuts", "low": 0.3, "high": 0.6})
ONE = Decision(
    name="MSI-H",
    columns=("p_MSI-H",),
    rule=SensitivityRule(rule="sensitivity", at_least=0.95, role="rule-out"),
    cuts=(0.3,),
    calls=("MSS", "MSI-H"),
    on="select",
    n=40,
    positives=9,
    achieved={"sensitivity": 1.0, "npv": None},
)
TWO = ONE.model_copy(update={"rule": TWO_CUTS, "cuts": (0.3, 0.6), "calls": ("MSS", "indeterminate", "MSI-H")})
LIKELIEST = Decision(
    name="label",
    columns=("p_a", "p_b", "p_c"),
    rule=ArgmaxRule(rule="argmax", abstain_below=0.5),
    cuts=(0.5,),
    calls=("a", "b", "c", "abstained"),
    on="stated beforehand",
)


@few
@given(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.30000000000000004, 0.5, 0.6, 0.9, 1.0]), max_size=12))
def test_every_score_lies_in_one_zone_and_a_tie_in_the_upper(scores: list[float]) -> None:
    expected = ["MSS" if score < 0.3 else "indeterminate" if score < 0.6 else "MSI-H" for score in scores]
    assert TWO.call(pd.DataFrame({"p_MSI-H": np.array(scores, dtype=float)})).tolist() == expected


def test_a_score_is_the_sum_of_its_columns() -> None:
    decision = ONE.model_copy(update={"columns": ("p_a", "p_b")})
    table = pd.DataFrame({"p_a": [0.1, 0.2], "p_b": [0.1, 0.2]})
    assert decision.score(table).tolist() == [0.2, 0.4]
    assert decision.call(table).tolist() == ["MSS", "MSI-H"]


def test_a_missing_score_has_no_call() -> None:
    nothing = float("nan")
    assert TWO.call(pd.DataFrame({"p_MSI-H": [0.9, nothing]})).tolist() == ["MSI-H", None]
    table = pd.DataFrame({"p_a": [0.6, nothing, 0.4], "p_b": [0.2, 0.9, 0.3], "p_c": [0.2, 0.1, 0.3]})
    assert LIKELIEST.call(table).tolist() == ["a", None, "abstained"]


def test_the_likeliest_of_two_classes_needs_one_column() -> None:
    rule, calls = {"rule": "argmax", "abstain_below": 0.8}, ("no", "yes", "abstained")
    decision = ONE.model_copy(update={"rule": parse_rule(rule), "cuts": (0.8,), "calls": calls, "columns": ("p_yes",)})
    table = pd.DataFrame({"p_yes": [0.1, 0.2, 0.21, 0.79, 0.8, 1.0]})
    assert decision.call(table).tolist() == ["no", "no", "abstained", "abstained", "yes", "yes"]


def test_columns_of_calls_are_named_by_question_where_there_are_several() -> None:
    table = pd.DataFrame({"p_MSI-H": [0.1, 0.9], "p_a": [0.7, 0.1], "p_b": [0.2, 0.1], "p_c": 0.8}, index=["x", "y"])
    assert apply([ONE], table)["call"].to_dict() == {"x": "MSS", "y": "MSI-H"}
    both = apply([ONE, LIKELIEST], table)
    assert list(both) == ["call_MSI-H", "call_label"]
    assert both["call_label"].tolist() == ["c", "c"]
    with pytest.raises(PredictionsError, match="no column 'p_MSI-H'"):
        apply([ONE], table[["p_a"]])


@pytest.mark.parametrize("decision", [ONE, TWO, LIKELIEST, recalibrate(TWO, np.linspace(0.2, 0.9, 64))])
def test_a_decision_survives_json(decision: Decision) -> None:
    again = Decision.model_validate_json(decision.model_dump_json())
    assert again == decision


@pytest.mark.parametrize(
    "changed", [{"cuts": [0.6, 0.3]}, {"calls": ["MSS"]}, {"columns": []}, {"cuts": ["low"]}, {"more": 1}]
)
def test_a_state_that_is_no_decision_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Decision.model_validate(TWO.model_dump() | changed)


def test_known_positives_move_the_lowest_cut_only() -> None:
    scores = np.linspace(0.2, 0.9, 64)
    fresh = recalibrate(TWO, scores)
    assert fresh.cuts == (0.2, 0.6)
    assert (fresh.on, fresh.n, fresh.positives) == ("known positives", 64, 64)
    assert fresh.achieved == {"sensitivity, lower cut": 1.0}
    assert fresh.guarantee is not None
    assert fresh.guarantee.cut == 0.2
    assert (fresh.calls, fresh.columns, fresh.rule) == (TWO.calls, TWO.columns, TWO.rule)
    assert recalibrate(ONE, np.arange(100.0)).achieved == {"sensitivity": 0.99}


def test_a_cut_that_cannot_be_set_by_positives_is_refused() -> None:
    with pytest.raises(PredictionsError, match=r"lower cut to 0.7, expected it below the upper cut 0.6"):
        recalibrate(TWO, np.linspace(0.7, 0.9, 64))
    with pytest.raises(PredictionsError, match="59 or more"):
        recalibrate(ONE, np.linspace(0.7, 0.9, 30))
    for decision in (LIKELIEST, ONE.model_copy(update={"rule": parse_rule({"rule": "specificity", "at_least": 0.9})})):
        with pytest.raises(ConfigError, match="rules nobody out"):
            recalibrate(decision, np.linspace(0.7, 0.9, 64))
