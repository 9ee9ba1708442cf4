"""A card says from its numbers, without a hand in it, what was asked and not reached, or not shown."""

from collections.abc import Sequence

from mil.cards import card
from mil.cards.card_facts import Facts
from mil.cards.shortfalls import FEW, shortfalls
from mil.report.schema import Estimate, GateResult, Report, Section
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.calibration import Calibration, QuestionCalibration, RecalibratedProbability
from mil.report.sections.horizon import HorizonCalibration
from mil.report.sections.operating_point import AtCut, OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.report.sections.pooled import Band
from mil.report.sections.time_to_event import TimeToEvent
from mil.report.sections.utility import DecisionCurve, Utility
from tests.report.figures.cases import CASES, evaluated

from .test_card import manifest


def share(successes: int, n: int, low: float, high: float) -> Estimate:
    return Estimate(value=successes / n, low=low, high=high, counts={"n": n, "successes": successes})


def estimate(value: float | None, low: float | None = None, high: float | None = None, n: int = 240) -> Estimate:
    return Estimate(value=value, low=low, high=high, counts={"n": n})


def cut(
    sensitivity: Estimate, specificity: Estimate, ruled_out: Estimate, odds: tuple[float, float, float]
) -> OperatingPoint:
    """A rule-out of at least 0.95."""
    return OperatingPoint(
        name="BRAF",
        rule={"rule": "sensitivity", "at_least": 0.95, "role": "rule-out"},
        calls=("no", "yes"),
        cuts=((0.5,),),
        at_cuts=(
            AtCut(
                name="cut",
                sensitivity=sensitivity,
                specificity=specificity,
                ruled_out=ruled_out,
                lr_negative=estimate(*odds, n=300),
            ),
        ),
    )


def changed(point: OperatingPoint, **fields: Estimate) -> OperatingPoint:
    """Return the point with other numbers at its cut."""
    (at,) = point.at_cuts
    return point.model_copy(update={"at_cuts": (at.model_copy(update=fields),)})


def calibration(name: str, slope: Estimate, calibrated: Estimate | None = None) -> QuestionCalibration:
    after = None if calibrated is None else RecalibratedProbability(method="platt", n=240, slope=calibrated)
    return QuestionCalibration(name=name, n=240, slope=slope, calibrated=after)


def curve(name: str, thresholds: tuple[float, ...], low: tuple[float | None, ...]) -> DecisionCurve:
    gain = Band(value=low, low=low, high=low)
    return DecisionCurve(name=name, n=240, prevalence=0.3, thresholds=thresholds, gain=gain)


def lines(*sections: Section, gates: Sequence[GateResult] = (), **metrics: Estimate) -> list[str]:
    """The shortfalls of a report that has these sections and no other, a line each."""
    endpoint = CASES["binary"]().endpoint
    report = Report(metrics=metrics, gates=tuple(gates), sections={section.key: section for section in sections})
    fields = shortfalls(Facts(manifest(endpoint), report, endpoint))
    texts = [(field.name, [field.text] if isinstance(field.text, str) else field.text) for field in fields]
    return [f"{name}: {line}" for name, field_lines in texts for line in field_lines]


def points(*decisions: OperatingPoint) -> OperatingPoints:
    return OperatingPoints(decisions=decisions)


GOOD = cut(share(290, 300, 0.951, 0.98), share(150, 300, 0.44, 0.56), share(160, 600, 0.23, 0.3), (0.07, 0.04, 0.12))
FAILED_GATE = GateResult(number=2, name="unseen sites", holds=False, sentence="chance 0.5.")


def test_a_report_that_reaches_what_was_asked_has_no_shortfall() -> None:
    calibrated = Calibration(questions=(calibration("BRAF", estimate(1.0, 0.9, 1.1)),))
    utility = Utility(questions=(curve("BRAF", (0.1,), (0.02,)),))
    gate = GateResult(number=1, name="no leakage", holds=True, sentence="0 of 9.")
    assert lines(points(GOOD), calibrated, utility, gates=[gate]) == []


def test_a_cut_that_misses_its_target_says_by_how_much() -> None:
    missed = changed(GOOD, sensitivity=share(34, 36, 0.819, 0.985))
    (line,) = lines(points(missed))
    text = "sensitivity of at least 0.95 was asked, 0.944 (0.819 to 0.985) was reached, 34 of 36: not reached"
    assert line == f"Cut of BRAF: {text}"
    few = changed(GOOD, sensitivity=share(29, 29, 0.883, 1.0))
    (line,) = lines(points(few))
    assert line.endswith("29 of 29: reached, but not shown by so few patients")


def test_a_cut_that_decides_for_next_to_nobody_is_not_praised_for_its_sensitivity() -> None:
    braf = cut(share(29, 29, 0.96, 1.0), share(12, 271, 0.026, 0.076), share(12, 300, 0.023, 0.069), (0.0, 0.0, 5.973))
    assert lines(points(braf)) == [
        "Cut of BRAF: few are ruled out: 0.040 (0.023 to 0.069) of all patients, 12 of 300; "
        "specificity 0.044 (0.026 to 0.076), 12 of 271",
        "Cut of BRAF: those ruled out are not shown to differ from the rest: LR− 0.000 (0.000 to 5.973), n 300, "
        "where 1 is uninformative",
    ]
    assert lines(points(changed(GOOD, ruled_out=share(1, 10, 0.0, 0.4)))) == []
    assert FEW == 0.1


def test_a_rule_in_is_judged_by_those_whom_it_rules_in() -> None:
    point = OperatingPoint(
        name="PR",
        rule={"rule": "specificity", "at_least": 0.998, "role": "rule-in"},
        calls=("no", "yes"),
        cuts=((0.9,),),
        at_cuts=(
            AtCut(
                name="cut",
                sensitivity=share(3, 182, 0.006, 0.047),
                specificity=share(98, 98, 0.962, 1.0),
                ruled_in=share(3, 280, 0.004, 0.031),
                lr_positive=estimate(None),
            ),
        ),
    )
    texts = lines(points(point))
    assert [line.partition(":")[2].split(":")[0].strip() for line in texts][1] == "few are ruled in"
    assert "sensitivity 0.016" in texts[1]


def test_two_cuts_are_asked_for_each_target_and_for_whom_they_leave_undecided() -> None:
    lower = AtCut(
        name="lower cut",
        sensitivity=share(32, 34, 0.809, 0.984),
        specificity=share(73, 206, 0.292, 0.422),
        npv=share(73, 75, 0.908, 0.993),
        ruled_out=share(75, 240, 0.257, 0.374),
        lr_negative=estimate(0.17, 0.04, 0.64),
    )
    upper = AtCut(
        name="upper cut",
        sensitivity=share(1, 34, 0.005, 0.149),
        specificity=share(206, 206, 0.982, 1.0),
        ppv=share(95, 100, 0.905, 0.99),
        ruled_in=share(1, 240, 0.001, 0.023),
        lr_positive=estimate(None, 0.737),
    )
    point = OperatingPoint(
        name="EGFR",
        rule={"rule": "two_cuts", "out": {"npv": 0.98}, "in": {"ppv": 0.9}},
        calls=("wild-type", "indeterminate", "mutated"),
        cuts=((0.03, 0.74),),
        undecided=share(164, 240, 0.622, 0.739),
        at_cuts=(lower, upper),
        coverage=share(76, 240, 0.261, 0.378),
    )
    texts = lines(points(point))
    assert "NPV of at least 0.98 was asked, 0.973" in texts[0]
    assert texts[1] == (
        "Cut of EGFR: few are ruled in: 0.004 (0.001 to 0.023) of all patients, 1 of 240; "
        "sensitivity 0.029 (0.005 to 0.149), 1 of 34"
    )
    assert texts[2] == "Cut of EGFR: fewer than half of the patients are decided: 0.317 (0.261 to 0.378), 76 of 240"
    assert len(texts) == 3


def test_calibrated_probabilities_are_judged_where_there_are_any_and_risks_as_well() -> None:
    wide, fine = estimate(2.5, 1.6, 4.2), estimate(1.1, 0.9, 1.3)
    mended, spoilt = calibration("HER2", wide, fine), calibration("HER2", fine, wide)
    assert lines(Calibration(questions=(mended,))) == []
    (line,) = lines(Calibration(questions=(spoilt, mended.model_copy(update={"name": "ER"}))))
    assert line == (
        "Calibration: probabilities, calibrated where they could be, of 1 of 2 are for ranking only: "
        "slope outside 0.8 to 1.2 (n 240): "
        "HER2 2.500 (1.600 to 4.200)"
    )
    horizons = tuple(
        HorizonCalibration(horizon=name, time=time, column=f"risk_{name}", n=240, slope=slope)
        for name, time, slope in (("5y", 60.0, wide), ("9y", 108.0, estimate(None)))
    )
    _, survival = evaluated("survival")
    section = survival.section(TimeToEvent)
    assert section is not None
    (line,) = lines(section.model_copy(update={"calibration": horizons}))
    assert line.startswith("Calibration: risks of 1 of 2 are for ranking only")


def test_a_decision_curve_that_gains_nothing_and_a_gate_that_does_not_hold_are_named() -> None:
    utility = Utility(horizons=(curve("risk_5y", (0.1, 0.2), (-0.1, None)),))
    useful_once = Utility(horizons=(curve("risk_5y", (0.1, 0.2), (-0.1, 0.02)),))
    assert lines(useful_once) == []
    first, second = lines(utility, gates=[FAILED_GATE])
    assert first.startswith("Decision curve: risk_5y: at no threshold")
    assert second == "Release gate 2, unseen sites: does not hold: chance 0.5."


def test_a_simpler_model_that_is_better_and_a_best_one_out_of_reach_are_named() -> None:
    auroc = Estimate(value=0.7, low=0.65, high=0.75, counts={"n": 240, "a": 200, "b": 40})
    gain, best = estimate(-0.015, -0.03, -0.003), estimate(0.8, 0.76, 0.85)
    baseline = Baseline(name="mean pooling, linear", metrics={"auroc": auroc}, difference={"auroc": gain})
    first, second = lines(baseline, Oracle(metrics={"auroc": best}), auroc=auroc)
    assert first == (
        "Simpler model: worse than mean pooling, linear: difference in AUROC -0.015 (-0.030 to -0.003), n 240"
    )
    assert second == (
        "Best possible: AUROC 0.700 (0.650 to 0.750) where 0.800 (0.760 to 0.850) could be reached, n 240, a 200, b 40"
    )
    better = baseline.model_copy(update={"difference": {"auroc": gain.model_copy(update={"high": 0.01})}})
    close = Oracle(metrics={"auroc": best.model_copy(update={"low": 0.74})})
    assert lines(better, close, auroc=auroc) == []


def test_the_card_shows_them_before_anything_else_is_explained() -> None:
    evaluation, report = evaluated("binary")
    judged = report.model_copy(update={"gates": (FAILED_GATE,)})
    text = card(manifest(evaluation.endpoint), evaluation.endpoint, judged, [])
    section = text.split("## Where it falls short\n")[1].split("\n## ")[0]
    assert "- **Release gate 2, unseen sites**: does not hold: chance 0.5. (`report.json: gates[0]`)" in section
    assert text.index("## Where it falls short") < text.index("## What to do with each output") < text.index("## 0.")


def test_how_far_a_model_is_from_the_best_possible_is_stated_with_it() -> None:
    evaluation, report = evaluated("binary")
    name = evaluation.endpoint.metric
    for best, words in (
        (estimate(0.8, 0.7, 0.9), "This model is 0.200 short of it; their intervals do not overlap"),
        (estimate(0.7, 0.64, 0.8), "This model is 0.100 short of it; their intervals overlap"),
        (estimate(0.6, 0.5, 0.7), "This model reaches it"),
    ):
        metrics = report.metrics | {name: estimate(0.6, 0.55, 0.65)}
        sections = report.sections | {Oracle.key: Oracle(metrics={name: best})}
        compared = report.model_copy(update={"metrics": metrics, "sections": sections})
        assert words in card(manifest(evaluation.endpoint), evaluation.endpoint, compared, [])
