"""A report says from its numbers, without a hand in it, what was asked and not reached, or not shown."""

import re

import pytest

from mil.cards import card
from mil.report.schema import Estimate, GateResult, Report, Section
from mil.report.sections.applied_cuts import FittedCuts
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.calibration import (
    Calibration,
    ErrorEstimate,
    QuestionCalibration,
    RecalibratedProbability,
)
from mil.report.sections.groups import GroupContrast, PromisedRisk, RiskGroup, RiskGroups
from mil.report.sections.horizon import HorizonCalibration, RecalibratedRisk
from mil.report.sections.operating_point import CUT, LOWER, UPPER, AtCut, OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.oracle import Oracle
from mil.report.sections.pooled import Band
from mil.report.sections.recalibration import CalibrationEffect, CalibrationFit
from mil.report.sections.site_effects import SiteMetric, Sites, WithinSites
from mil.report.sections.time_to_event import TimeToEvent
from mil.report.sections.utility import DecisionCurve, Utility
from mil.report.shortfalls import FEW, RULES, UNDECIDED, shortfalls
from mil.stats.site_signature import SitePredictability
from tests.cards.test_card import manifest
from tests.report.figures.cases import evaluated


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
                name=CUT,
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


def lines(*sections: Section, gates: tuple[GateResult, ...] = (), **metrics: Estimate) -> list[str]:
    """The shortfalls of a report that has these sections and no other, a line each."""
    report = Report(metrics=metrics, gates=gates, sections={section.key: section for section in sections})
    return [f"{each.title}: {each.sentence}" for each in shortfalls(report)]


def points(*decisions: OperatingPoint) -> OperatingPoints:
    return OperatingPoints(decisions=decisions)


def contrast(group: str, reference: str, value: float, low: float, high: float) -> GroupContrast:
    ratio = estimate(value, low, high).with_counts({"n": 240, "events": 81})
    return GroupContrast(group=group, reference=reference, estimate=ratio)


def three_groups(*further: GroupContrast, **fields: object) -> RiskGroups:
    groups = tuple(RiskGroup(name=name, n=80, events=27) for name in ("low", "intermediate", "high"))
    section = RiskGroups(rule={"rule": "quantiles"}, n=240, events=81, groups=groups, hazard_ratios=further)
    return section.model_copy(update=fields)


GOOD = cut(share(290, 300, 0.951, 0.98), share(150, 300, 0.44, 0.56), share(160, 600, 0.23, 0.3), (0.07, 0.04, 0.12))
FAILED_GATE = GateResult(number=2, name="unseen sites", holds=False, sentence="chance 0.5.")


def test_a_report_that_reaches_what_was_asked_has_no_shortfall() -> None:
    calibrated = Calibration(questions=(calibration("BRAF", estimate(1.0, 0.9, 1.1)),))
    utility = Utility(questions=(curve("BRAF", (0.1,), (0.02,)),))
    gate = GateResult(number=1, name="no leakage", holds=True, sentence="0 of 9.")
    auroc = estimate(0.7, 0.6, 0.8)
    assert lines(points(GOOD), calibrated, utility, gates=(gate,), auroc=auroc) == []


def test_a_metric_that_guessing_would_reach_is_named_with_the_label() -> None:
    (line,) = lines(auroc=estimate(0.61, 0.55, 0.67), auroc_NRAS=estimate(0.33, 0.167, 0.514))
    assert line.startswith("Chance: not shown to be better than chance: AUROC, NRAS 0.330 (0.167 to 0.514), chance 0.5")
    assert lines(qwk=estimate(0.2, -0.01, 0.4))[0].startswith("Chance")
    assert lines(qwk=estimate(0.2, 0.01, 0.4), mae=estimate(0.2, 0.1, 0.4)) == []


def test_a_metric_without_an_interval_is_not_passed_over() -> None:
    (line,) = lines(c_index=Estimate(value=None, reason="no events"))
    assert line.startswith("Chance: not shown to be better than chance: C-index not estimable")
    (line,) = lines(auroc=Estimate(value=0.5))
    assert line.startswith("Chance: not shown to be better than chance: AUROC 0.500")


@pytest.mark.parametrize(
    ("patients", "is_few"),
    [
        ({"n": 60, "events": 1}, True),
        ({"n": 60, "events": 10}, False),
        ({"n": 19, "class 0": 10, "class 1": 9}, True),
        ({"n": 200, "a": 9, "b": 191}, True),
        ({"n": 20, "a": 10, "b": 10}, False),
    ],
)
def test_an_interval_from_few_patients_is_no_conclusion(patients: dict[str, int], is_few: bool) -> None:
    report = Report(metrics={"c_index": estimate(0.854, 0.746, 0.937)}, patients=patients)
    found = [f"{each.title}: {each.sentence}" for each in shortfalls(report)]
    assert [line.startswith("Few patients: too few for a conclusion, whatever the interval: n ") for line in found] == (
        [True] if is_few else []
    )


def test_a_cut_that_misses_its_target_says_by_how_much() -> None:
    missed = changed(GOOD, sensitivity=share(34, 36, 0.819, 0.985))
    (line,) = lines(points(missed))
    text = "sensitivity of at least 0.95 was asked and is not reached: BRAF 0.944 (0.819 to 0.985), 34 of 36"
    assert line == f"Target missed: {text}"
    few = changed(GOOD, sensitivity=share(29, 29, 0.883, 1.0))
    (line,) = lines(points(few))
    text = "sensitivity of at least 0.95 was asked and is reached, but not shown by so few patients: BRAF 1.000"
    assert line.startswith(f"Target not shown: {text}")


def test_missed_targets_come_first_and_decisions_with_one_aim_share_a_line() -> None:
    missed = changed(GOOD, sensitivity=share(21, 30, 0.521, 0.833))
    also, fine = missed.model_copy(update={"name": "KRAS"}), GOOD.model_copy(update={"name": "NRAS"})
    few = changed(GOOD, sensitivity=share(29, 29, 0.883, 1.0)).model_copy(update={"name": "PIK3CA"})
    report = Report(sections={"operating_points": points(few, missed, fine, also)}, gates=(FAILED_GATE,))
    first, second, gate = shortfalls(report)
    assert first.sentence.partition(": ")[2] == (
        "BRAF 0.700 (0.521 to 0.833), 21 of 30; KRAS 0.700 (0.521 to 0.833), 21 of 30"
    )
    assert first.source == "report.json: sections.operating_points.decisions"
    assert (second.title, second.source) == ("Target not shown", "report.json: sections.operating_points.decisions[0]")
    assert gate.source == "report.json: gates[0]"


def test_a_decision_without_an_operating_point_says_why() -> None:
    reason = "0 positive select patients, expected some"
    bare = OperatingPoint(
        name="NRAS",
        rule={"rule": "sensitivity", "at_least": 0.9},
        calls=("no", "yes"),
        cuts=(None,),
        fitted=(FittedCuts(fold=0, n=0, reason=reason),),
    )
    assert lines(points(bare)) == [f"No operating point: NRAS: nobody is called, {reason}"]
    undefined = changed(GOOD, sensitivity=Estimate.missing("no positives"))
    (line,) = lines(points(undefined))
    assert line == (
        "No operating point: BRAF: sensitivity of at least 0.95 was asked and is not estimable: no positives"
    )


def test_a_cut_that_decides_for_next_to_nobody_is_not_praised_for_its_sensitivity() -> None:
    braf = cut(share(29, 29, 0.96, 1.0), share(12, 271, 0.026, 0.076), share(12, 300, 0.023, 0.069), (0.0, 0.0, 5.973))
    assert lines(points(braf)) == [
        "Few decided: hardly any patient gets the call: BRAF ruled out 0.040 (0.023 to 0.069), 12 of 300, specificity "
        "0.044 (0.026 to 0.076), 12 of 271",
        "Uninformative calls: not shown to differ from the rest, for whom a likelihood ratio of 1 would stand: BRAF "
        "ruled out, LR− 0.000 (0.000 to 5.973), n 300",
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
                name=CUT,
                sensitivity=share(3, 182, 0.006, 0.047),
                specificity=share(98, 98, 0.962, 1.0),
                ruled_in=share(3, 280, 0.004, 0.031),
                lr_positive=estimate(None),
            ),
        ),
    )
    unshown, few = lines(points(point))
    assert unshown.startswith("Target not shown: specificity of at least 0.998")
    assert "PR ruled in 0.011 (0.004 to 0.031), 3 of 280, sensitivity 0.016" in few


def test_two_cuts_are_asked_for_each_target_and_for_whom_they_leave_undecided() -> None:
    lower = AtCut(
        name=LOWER,
        sensitivity=share(32, 34, 0.809, 0.984),
        specificity=share(73, 206, 0.292, 0.422),
        npv=share(73, 75, 0.908, 0.993),
        ruled_out=share(75, 240, 0.257, 0.374),
        lr_negative=estimate(0.17, 0.04, 0.64),
    )
    upper = AtCut(
        name=UPPER,
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
    )
    missed, undecided, few = lines(points(point))
    assert "NPV of at least 0.98 was asked and is not reached: EGFR 0.973 (0.908 to 0.993), 73 of 75" in missed
    text = "more than a third get no answer: EGFR 0.683 (0.622 to 0.739), 164 of 240"
    assert undecided == f"Undecided patients: {text}"
    assert "EGFR ruled in 0.004" in few
    at_a_third = point.model_copy(update={"undecided": share(80, 240, 0.28, 0.4)})
    assert not any("Undecided" in line for line in lines(points(at_a_third)))
    assert UNDECIDED == 1 / 3


def test_an_abstention_of_more_than_a_third_is_named_as_well() -> None:
    argmax = OperatingPoint(
        name="subtype",
        rule={"rule": "argmax"},
        calls=("a", "b", "abstained"),
        cuts=((0.8,),),
        accuracy=share(9, 10, 0, 1),
    )
    half = argmax.model_copy(update={"abstained": share(120, 240, 0.44, 0.56)})
    assert lines(points(half))[0].endswith("subtype 0.500 (0.440 to 0.560), 120 of 240")
    assert lines(points(argmax.model_copy(update={"abstained": share(58, 260, 0.177, 0.278)}))) == []


def test_groups_that_do_not_separate_are_named_with_their_hazard_ratio() -> None:
    apart = contrast("intermediate", "low", 9.277, 3.643, 23.6)
    alike = contrast("high", "intermediate", 0.995, 0.634, 1.56)
    near = contrast("high", "intermediate", 1.2, 0.9, 1.56)
    high = contrast("high", "low", 9.284, 3.65, 23.6)
    assert lines(three_groups(apart, high)) == []
    section = three_groups(apart, high, next_hazard_ratios=(near,))
    (line,) = lines(section)
    text = "not shown to separate: high against intermediate, hazard ratio 1.200 (0.900 to 1.560), n 240, events 81"
    assert line == f"Risk groups: {text}"
    order = ("low", "high", "intermediate")
    (line,) = lines(section.model_copy(update={"next_hazard_ratios": (alike,), "by_hazard": order}))
    assert "in the wrong order (by hazard: low, high, intermediate): high against intermediate" in line


def test_groups_in_the_wrong_order_are_named_even_where_chance_may_have_done_it() -> None:
    swapped = contrast("intermediate", "low", 0.814, 0.406, 1.63)
    apart = contrast("high", "intermediate", 4.37, 2.4, 7.9)
    order = ("intermediate", "low", "high")
    (line,) = lines(three_groups(swapped, next_hazard_ratios=(apart,), by_hazard=order))
    assert line == (
        "Risk groups: in the wrong order (by hazard: intermediate, low, high): intermediate against low, hazard ratio "
        "0.814 (0.406 to 1.630), n 240, events 81"
    )


@pytest.mark.parametrize(
    ("observed", "ending"),
    [
        (Estimate(value=0.0, low=0.0, high=0.088, counts={"n": 45, "events": 0}), "is not shown by so few patients"),
        (Estimate(value=0.07, low=0.02, high=0.2, counts={"n": 45, "events": 3}), "is not kept"),
        (Estimate(value=0.01, low=0.0, high=0.049, counts={"n": 145, "events": 1}), ""),
        (Estimate.missing("nobody is followed for 60"), ""),
    ],
)
def test_an_absolute_risk_that_the_sample_cannot_show_is_named(observed: Estimate, ending: str) -> None:
    low = PromisedRisk(group="low", below=0.05, time=60.0, estimate=observed)
    texts = lines(three_groups(promises=(low,)))
    assert bool(texts) == bool(ending)
    if ending:
        assert texts[0].startswith("Absolute risk: the low group promises a risk of less than 0.05; observed 0.0")
        assert texts[0].endswith(f"the promise {ending}")


def test_a_high_group_is_held_to_its_lower_bound() -> None:
    high = PromisedRisk(group="high", at_least=0.05, time=60.0, estimate=estimate(0.103, 0.04, 0.147))
    (line,) = lines(three_groups(promises=(high,)))
    assert "the high group promises a risk of 0.05 or more; observed 0.103 (0.040 to 0.147)" in line
    assert lines(three_groups(promises=(high.model_copy(update={"estimate": estimate(0.103, 0.05, 0.147)}),))) == []


def test_hazards_that_are_not_proportional_are_named_by_all_tests_together() -> None:
    (line,) = lines(three_groups(proportional_hazards_p={"intermediate": 0.0026, "high": 0.043}))
    assert line.startswith("Proportional hazards: rejected for intermediate p 0.003 (2 tests, n 240, events 81)")
    assert lines(three_groups(proportional_hazards_p={"intermediate": 0.026, "high": 0.043})) == []


def sites(within: float | None, beyond: Estimate | None = None) -> Sites:
    predicted = SitePredictability(n=240, sites=4, left_out=0, macro_auroc=estimate(0.77, 0.72, 0.81))
    extra = None if beyond is None else SitePredictability(n=240, sites=4, left_out=0, macro_auroc=beyond)
    row = SiteMetric(site="A", counts={"n": 60}, estimate=estimate(within))
    mean = WithinSites(sites=4, estimate=estimate(within, None if within is None else within - 0.1, None, n=203))
    return Sites(
        metric="qwk", sites=(row,), missing=0, within_sites=mean, told_by={"score": predicted}, beyond_label=extra
    )


def test_a_metric_that_shrinks_within_sites_is_named_with_both_numbers() -> None:
    overall = estimate(0.403, 0.31, 0.489)
    (line,) = lines(sites(0.266), qwk=overall)
    assert line.startswith(
        "Within sites: Quadratic kappa within sites 0.266 (0.166 to …), n 203, over all patients 0.403 (0.310 to 0.489)"
    )
    assert lines(sites(0.311), qwk=overall) == []
    assert lines(sites(None), qwk=overall) == []


def test_a_site_that_the_score_gives_away_is_named_where_the_label_does_not_explain_it() -> None:
    overall = estimate(0.403, 0.2, 0.489)
    (line,) = lines(sites(0.4, estimate(0.2, 0.12, 0.27)), qwk=overall)
    assert line == (
        "Site signature: the site can be predicted from the score: AUROC 0.770 (0.720 to 0.810), n 240, chance 0.5; "
        "beyond what the label gives away 0.200 (0.120 to 0.270)"
    )
    assert lines(sites(0.4, estimate(0.01, -0.02, 0.05)), qwk=overall) == []
    assert lines(sites(0.4), qwk=overall) == []


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
    (line,) = lines(followed(*horizons))
    assert line.startswith("Calibration: risks of 1 of 2 are for ranking only")


def followed(*horizons: HorizonCalibration) -> TimeToEvent:
    section = evaluated("survival")[1].section(TimeToEvent)
    assert section is not None
    return section.model_copy(update={"calibration": horizons})


def test_risks_that_are_too_high_or_too_low_on_the_whole_say_by_how_much() -> None:
    ratio = Estimate(value=0.664, low=0.449, high=0.974, counts={"n": 240, "events": 23, "at_risk": 201})
    low = HorizonCalibration(horizon="1y", time=12.0, column="r", n=240, observed_expected=ratio)
    text = "1y 0.664 (0.449 to 0.974), n 240, events 23, 34% fewer events than predicted"
    assert lines(followed(low)) == [f"Observed/expected: not 1 at {text}"]
    better = RecalibratedRisk(method="baseline", n=240, observed_expected=estimate(1.1, 0.9, 1.3))
    assert lines(followed(low.model_copy(update={"calibrated": better}))) == []
    worse = better.model_copy(update={"observed_expected": estimate(1.3, 1.1, 1.5)})
    (line,) = lines(followed(low.model_copy(update={"calibrated": worse})))
    assert line.endswith("1.300 (1.100 to 1.500), n 240, 30% more events than predicted")


def test_a_calibration_error_that_is_shown_is_named() -> None:
    error = ErrorEstimate(estimate=estimate(0.08, 0.06, 0.1), bins=15)
    question = calibration("MSI", estimate(1.0, 0.9, 1.1)).model_copy(update={"ece": error})
    (line,) = lines(Calibration(questions=(question,)))
    assert line.startswith("Calibration error: ")
    assert line.endswith("debiased error (ECE): MSI 0.080 (0.060 to 0.100), n 240")
    for unshown in (
        error.model_copy(update={"estimate": estimate(0.02, 0.0, 0.05)}),
        ErrorEstimate(estimate=estimate(0.08, 0.06, 0.1), by_chance=0.07),
    ):
        assert lines(Calibration(questions=(question.model_copy(update={"ece": unshown}),))) == []


def test_a_calibration_that_makes_the_report_patients_worse_is_named_by_how_much() -> None:
    worse = CalibrationEffect(
        name="all classes",
        score="log loss",
        before=estimate(1.504, 1.4, 1.6),
        after=estimate(1.562, 1.45, 1.68),
        change=estimate(0.058, 0.01, 0.1),
    )
    better = worse.model_copy(update={"name": "benign", "change": estimate(-0.01, -0.05, 0.03)})
    fit = CalibrationFit(method="temperature", on="select", folds=(), effects=(better, worse))
    (line,) = lines(Calibration(fitted=fit))
    assert line == (
        "Recalibration: made the predictions of these patients worse, by temperature: all classes log loss 1.504 "
        "(1.400 to 1.600) before and 1.562 (1.450 to 1.680), n 240 after, change 0.058 (0.010 to 0.100)"
    )
    (line,) = lines(followed().model_copy(update={"recalibration": fit}))
    assert line.startswith("Recalibration: ")
    assert lines(Calibration(fitted=fit.model_copy(update={"effects": (better,)}))) == []


def test_a_decision_curve_that_gains_nothing_and_a_gate_that_does_not_hold_are_named() -> None:
    utility = Utility(horizons=(curve("risk_5y", (0.1, 0.2), (-0.1, None)),))
    useful_once = Utility(horizons=(curve("risk_5y", (0.1, 0.2), (-0.1, 0.02)),))
    assert lines(useful_once) == []
    first, second = lines(utility, gates=(FAILED_GATE,))
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


def test_of_one_of_several_folds_the_report_of_all_folds_is_judged_and_of_several_endpoints_each() -> None:
    missed = changed(GOOD, sensitivity=share(34, 36, 0.819, 0.985))
    part = Report(sections={"operating_points": points(missed)})
    fold = Report(run=Report(parts={"BRAF status": part, "other": Report()}), gates=(FAILED_GATE,))
    first, gate = shortfalls(fold)
    assert first.title == "BRAF status: Target missed"
    assert first.source == 'report.json: run.parts["BRAF status"].sections.operating_points.decisions[0]'
    assert gate.source == "report.json: gates[0]"


def test_every_rule_is_silent_about_a_report_without_numbers() -> None:
    assert shortfalls(Report()) == []
    assert len(RULES) == len(set(RULES)) == 14


def test_the_card_shows_them_before_anything_else_is_explained() -> None:
    evaluation, report = evaluated("binary")
    judged = report.model_copy(update={"gates": (FAILED_GATE,)})
    text = card(manifest(evaluation.endpoint), evaluation.endpoint, judged, [])
    section = text.split("## Where it falls short\n")[1].split("\n## ")[0]
    (number,) = re.findall(r"\*\*Release gate 2, unseen sites\*\*: does not hold: chance 0.5. \[\^(\d+)\]", section)
    assert f"[^{number}]: `report.json: gates[0]`" in text
    assert text.index("## What to do with each output") < text.index("## Where it falls short") < text.index("## 0.")


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
