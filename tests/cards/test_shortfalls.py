"""A card says from its numbers, without a hand in it, what was asked and not reached, or not shown."""

from typing import Any

from mil.cards import card
from mil.cards.card_facts import Facts
from mil.cards.shortfalls import FEW, shortfalls
from tests.report.figures.cases import CASES, evaluated

from .test_card import manifest

Node = dict[str, Any]


def share(successes: int, n: int, low: float, high: float) -> Node:
    """As a report has it."""
    return {"value": successes / n, "low": low, "high": high, "successes": successes, "n": n}


def cut(sensitivity: Node, specificity: Node, ruled_out: Node, odds: tuple[float, float, float]) -> Node:
    """A rule-out of at least 0.95."""
    value, low, high = odds
    return {
        "name": "BRAF",
        "rule": {"rule": "sensitivity", "at_least": 0.95, "role": "rule-out"},
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ruled_out": ruled_out,
        "lr_negative": {"value": value, "low": low, "high": high, "n": 300},
    }


def told(gates: list[Node] | None = None, **sections: Any) -> list[str]:
    """The shortfalls of a report that has these sections and no other, a line each."""
    endpoint = CASES["binary"]().endpoint
    found = shortfalls(Facts(manifest(endpoint), {"metrics": {}, "gates": gates} | sections, endpoint))
    return [f"{one.name}: {line}" for one in found for line in ([one.text] if isinstance(one.text, str) else one.text)]


GOOD = cut(share(290, 300, 0.951, 0.98), share(150, 300, 0.44, 0.56), share(160, 600, 0.23, 0.3), (0.07, 0.04, 0.12))


def test_a_report_that_reaches_what_was_asked_has_no_shortfall() -> None:
    slope = {"value": 1.0, "low": 0.9, "high": 1.1, "n": 300}
    calibration = {"questions": [{"name": "BRAF", "n": 300, "slope": slope}]}
    utility = {"questions": [{"name": "BRAF", "n": 300, "thresholds": [0.1], "gain": {"low": [0.02]}}]}
    gates = [{"number": 1, "name": "no leakage", "holds": True, "sentence": "0 of 9."}]
    assert told(gates, operating_points={"decisions": [GOOD]}, calibration=calibration, utility=utility) == []


def test_a_cut_that_misses_its_target_says_by_how_much() -> None:
    missed = GOOD | {"sensitivity": share(34, 36, 0.819, 0.985)}
    (line,) = told(operating_points={"decisions": [missed]})
    said = "sensitivity of at least 0.95 was asked, 0.944 (0.819 to 0.985) was reached, 34 of 36: not reached"
    assert line == f"Cut of BRAF: {said}"
    few = GOOD | {"sensitivity": share(29, 29, 0.883, 1.0)}
    (line,) = told(operating_points={"decisions": [few]})
    assert line.endswith("29 of 29: reached, but not shown by so few patients")


def test_a_cut_that_decides_for_next_to_nobody_is_not_praised_for_its_sensitivity() -> None:
    braf = cut(share(29, 29, 0.96, 1.0), share(12, 271, 0.026, 0.076), share(12, 300, 0.023, 0.069), (0.0, 0.0, 5.973))
    lines = told(operating_points={"decisions": [braf]})
    assert lines == [
        "Cut of BRAF: few are ruled out: 0.040 (0.023 to 0.069) of all patients, 12 of 300; "
        "specificity 0.044 (0.026 to 0.076), 12 of 271",
        "Cut of BRAF: those ruled out are not shown to differ from the rest: LR− 0.000 (0.000 to 5.973), n 300, "
        "where 1 tells nothing",
    ]
    assert told(operating_points={"decisions": [GOOD | {"ruled_out": share(1, 10, 0.0, 0.4)}]}) == []
    assert FEW == 0.1


def test_a_rule_in_is_judged_by_those_whom_it_rules_in() -> None:
    rule = {"rule": "specificity", "at_least": 0.998, "role": "rule-in"}
    one = {
        "name": "PR",
        "rule": rule,
        "sensitivity": share(3, 182, 0.006, 0.047),
        "specificity": share(98, 98, 0.962, 1.0),
        "ruled_in": share(3, 280, 0.004, 0.031),
        "ruled_out": share(277, 280, 0.969, 0.996),
        "lr_positive": {"value": None, "low": None, "high": None, "n": 280},
    }
    lines = told(operating_points={"decisions": [one]})
    assert [line.partition(":")[2].split(":")[0].strip() for line in lines][1] == "few are ruled in"
    assert "sensitivity 0.016" in lines[1]


def test_two_cuts_are_asked_for_each_target_and_for_whom_they_leave_undecided() -> None:
    rule = {"rule": "two_cuts", "out": {"npv": 0.98}, "in": {"ppv": 0.9}}
    one = GOOD | {
        "rule": rule,
        "npv": share(73, 75, 0.908, 0.993),
        "ppv": share(95, 100, 0.905, 0.99),
        "coverage": share(76, 240, 0.261, 0.378),
    }
    lines = told(operating_points={"decisions": [one]})
    assert "NPV of at least 0.98 was asked, 0.973" in lines[0]
    assert lines[1] == ("Cut of BRAF: fewer than half of the patients are decided: 0.317 (0.261 to 0.378), 76 of 240")
    assert len(lines) == 2


def test_calibrated_probabilities_are_judged_where_there_are_any_and_risks_as_well() -> None:
    wide, fine = {"value": 2.5, "low": 1.6, "high": 4.2, "n": 240}, {"value": 1.1, "low": 0.9, "high": 1.3, "n": 240}
    mended = {"name": "HER2", "n": 240, "slope": wide, "calibrated": {"slope": fine}}
    assert told(calibration={"questions": [mended]}) == []
    spoilt = {"name": "HER2", "n": 240, "slope": fine, "calibrated": {"slope": wide}}
    (line,) = told(calibration={"questions": [spoilt, mended]})
    assert line == (
        "Calibration: probabilities, calibrated where they could be, of 1 of 2 are for ranking only: "
        "slope outside 0.8 to 1.2 (n 240): "
        "HER2 2.500 (1.600 to 4.200)"
    )
    (line,) = told(survival={"calibration": [{"name": "5y", "slope": wide}, {"name": "9y", "slope": {"value": None}}]})
    assert line.startswith("Calibration: risks of 1 of 2 are for ranking only")


def test_a_decision_curve_that_gains_nothing_and_a_gate_that_does_not_hold_are_named() -> None:
    utility = {"horizons": [{"name": "risk_5y", "n": 240, "thresholds": [0.1, 0.2], "gain": {"low": [-0.1, None]}}]}
    gates = [{"number": 2, "name": "unseen sites", "holds": False, "sentence": "chance 0.5."}]
    first, second = told(gates, utility=utility)
    assert first.startswith("Decision curve: risk_5y: at no threshold")
    assert second == "Release gate 2, unseen sites: does not hold: chance 0.5."


def test_a_simpler_model_that_is_better_and_a_best_one_out_of_reach_are_named() -> None:
    metrics = {"auroc": {"value": 0.7, "low": 0.65, "high": 0.75, "counts": {"n": 240, "a": 200, "b": 40}}}
    gain = {"value": -0.015, "low": -0.03, "high": -0.003, "n": 240}
    baseline = {"name": "mean pooling, linear", "metrics": {}, "difference": {"auroc": gain}}
    oracle = {"auroc": {"value": 0.8, "low": 0.76, "high": 0.85}}
    first, second = told(metrics=metrics, baseline=baseline, oracle=oracle)
    assert first == (
        "Simpler model: worse than mean pooling, linear: difference in AUROC -0.015 (-0.030 to -0.003), n 240"
    )
    assert second == (
        "Best possible: AUROC 0.700 (0.650 to 0.750) where 0.800 (0.760 to 0.850) could be reached, n 240, a 200, b 40"
    )
    close = {"auroc": oracle["auroc"] | {"low": 0.74}}
    better = baseline | {"difference": {"auroc": gain | {"high": 0.01}}}
    assert told(metrics=metrics, baseline=better, oracle=close) == []


def test_the_card_shows_them_before_anything_else_is_explained() -> None:
    evaluation, report = evaluated("binary")
    gates = [{"number": 2, "name": "unseen sites", "holds": False, "sentence": "chance 0.5."}]
    text = card(manifest(evaluation.endpoint), evaluation.endpoint, report | {"gates": gates}, [])
    section = text.split("## Where it falls short\n")[1].split("\n## ")[0]
    assert "- **Release gate 2, unseen sites**: does not hold: chance 0.5. (`report.json: gates[0]`)" in section
    assert text.index("## Where it falls short") < text.index("## What to do with each output") < text.index("## 0.")


def test_how_far_a_model_is_from_the_best_possible_stands_beside_it() -> None:
    evaluation, report = evaluated("binary")
    name = evaluation.endpoint.metric
    own = report["metrics"][name] | {"value": 0.6, "low": 0.55, "high": 0.65}
    for oracle, words in (
        ({"value": 0.8, "low": 0.7, "high": 0.9}, "This model is 0.200 short of it; their intervals do not overlap"),
        ({"value": 0.7, "low": 0.64, "high": 0.8}, "This model is 0.100 short of it; their intervals overlap"),
        ({"value": 0.6, "low": 0.5, "high": 0.7}, "This model reaches it"),
    ):
        told = report | {"metrics": report["metrics"] | {name: own}, "oracle": {name: own | oracle}}
        assert words in card(manifest(evaluation.endpoint), evaluation.endpoint, told, [])
