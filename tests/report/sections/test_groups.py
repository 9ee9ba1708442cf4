"""Risk groups: cuts of training patients, lifelines' curves, hazard ratios, tests and mean times."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import logrank_test, multivariate_logrank_test, proportional_hazard_test
from lifelines.utils import restricted_mean_survival_time
from sksurv.compare import compare_survival
from sksurv.util import Surv

from mil.endpoints.classification import Binary
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival import Cox
from mil.errors import ConfigError
from mil.fitted import calibrators
from mil.report.predictions import checked
from mil.report.sections import groups
from mil.report.sections.applied_cuts import FittedCuts
from mil.report.sections.groups import RestrictedMean, RiskGroups, hazards
from tests.estimates import triple, value_of
from tests.report.followed import COMPETING, ENDPOINT, competed, with_risks
from tests.report.tables import binary, refitted, survival

THIRDS = {"rule": "quantiles", "cuts": [0.3333, 0.6667]}
ABSOLUTE: dict[str, Any] = {"rule": "absolute_risk", "horizon": "5y", "cuts": [0.5, 0.9]}


def table(**options: int) -> pd.DataFrame:
    return checked(with_risks(**options), ENDPOINT)


def computed(rows: pd.DataFrame | None = None, decision: dict[str, Any] | None = None) -> RiskGroups:
    section = RiskGroups.compute(refitted(table() if rows is None else rows, ENDPOINT, {"decision": decision}))
    assert section is not None
    return section


def assign(
    rows: pd.DataFrame, decision: dict[str, Any] | None = None, endpoint: Endpoint = ENDPOINT, **tool: Any
) -> tuple[pd.DataFrame, tuple[FittedCuts, ...]]:
    return groups.assigned(refitted(rows, endpoint, {"decision": decision, **tool}))


def means_of(section: RiskGroups) -> RestrictedMean:
    assert section.restricted_mean is not None
    return section.restricted_mean


def test_without_a_rule_each_fold_is_cut_at_the_median_of_its_own_training_patients() -> None:
    rows = table()
    patients, fitted = assign(rows)
    medians = rows[rows["role"] == "train"].groupby("fold")["log_hazard"].median()
    assert [fold.cuts for fold in fitted] == [(cut,) for cut in medians]
    reported = rows[rows["role"] == "report"].set_index("patient")
    expected = reported["log_hazard"] >= reported["fold"].map(medians)
    assert (patients["group"] == "high").to_dict() == expected.to_dict()
    assert 50 < expected.sum() < 100  # the folds' shifts of 10 would put whole folds on one side


def test_reported_patients_move_no_cut() -> None:
    rows = table()
    changed = rows.assign(log_hazard=rows["log_hazard"].where(rows["role"] == "train", 99.0))
    for rule in (None, THIRDS):
        assert assign(rows, rule)[1] == assign(changed, rule)[1]


def test_a_stated_risk_makes_the_groups_without_training_patients() -> None:
    rows = table()
    patients, fitted = assign(rows[rows["role"] == "report"], ABSOLUTE)
    risk = rows[rows["role"] == "report"].set_index("patient")["risk_5y"]
    assert patients["group"].value_counts().to_dict() == {
        "low": (risk < 0.5).sum(),
        "intermediate": ((risk >= 0.5) & (risk < 0.9)).sum(),
        "high": (risk >= 0.9).sum(),
    }
    assert [fold.on for fold in fitted] == ["stated beforehand"] * 3
    assert computed(decision=ABSOLUTE).rule == ABSOLUTE
    with pytest.raises(ConfigError, match="cuts"):
        assign(rows, {"rule": "quantiles", "cuts": [2]})


def test_a_stated_risk_is_compared_with_the_calibrated_risk_of_the_fold() -> None:
    rows = checked(with_risks(patients=450, stretch=2.0), ENDPOINT)
    patients, fitted = assign(rows, ABSOLUTE, calibration="baseline_slope")
    assert [fold.columns for fold in fitted] == [("calibrated_risk_5y",)] * 3
    for fold in range(3):
        select, members = (rows[(rows["fold"] == fold) & (rows["role"] == role)] for role in ("select", "report"))
        calibrator = calibrators.fit("baseline_slope", ENDPOINT, select.set_index("patient"))
        better = calibrator.apply(members.set_index("patient"))
        expected = np.digitize(better["calibrated_risk_5y"], ABSOLUTE["cuts"])
        assert patients.loc[better.index, "group"].cat.codes.tolist() == expected.tolist()
    thirds = assign(rows, THIRDS, calibration="baseline")[1]
    assert thirds == assign(rows, THIRDS)[1]
    assert [fold.columns for fold in thirds] == [("log_hazard",)] * 3


def test_two_groups_have_the_numbers_of_lifelines_and_scikit_survival() -> None:
    report, (patients, _) = computed(), assign(table())
    high = patients["group"] == "high"
    frame = pd.DataFrame({"high": high * 1.0, "time": patients["time"], "event": patients["event"] * 1.0})
    fit = CoxPHFitter().fit(frame, "time", "event", fit_options={"precision": 1e-9})
    expected = fit.summary.loc["high", ["exp(coef)", "exp(coef) lower 95%", "exp(coef) upper 95%", "p"]].tolist()
    (ratio,) = report.hazard_ratios
    assert [*triple(ratio.estimate), ratio.estimate.p] == pytest.approx(expected, rel=1e-10)
    assert (ratio.group, ratio.reference, ratio.estimate.n) == ("high", "low", 150)
    apart, near = patients[high], patients[~high]
    test = logrank_test(apart["time"], near["time"], apart["event"], near["event"])
    assert report.log_rank_p == pytest.approx(test.p_value, rel=1e-12)
    outcome = Surv.from_arrays(patients["event"], patients["time"])
    assert report.log_rank is not None
    assert report.log_rank.statistic == pytest.approx(compare_survival(outcome, high)[0], rel=1e-12)
    moving = proportional_hazard_test(fit, frame, time_transform="km").p_value[0]
    assert report.proportional_hazards_p is not None
    assert report.proportional_hazards_p["high"] == pytest.approx(moving, rel=1e-6)
    assert [(group.name, group.n) for group in report.groups] == [("low", len(near)), ("high", len(apart))]
    assert sum(group.events for group in report.groups) == report.events == patients["event"].sum()


def test_three_groups_have_the_numbers_of_lifelines() -> None:
    report, (patients, _) = computed(decision=THIRDS), assign(table(), THIRDS)
    group = patients["group"].astype(str)
    test = multivariate_logrank_test(patients["time"], group, patients["event"])
    assert report.log_rank_p == pytest.approx(test.p_value, rel=1e-12)
    expected = compare_survival(Surv.from_arrays(patients["event"], patients["time"]), group.to_numpy())
    assert report.log_rank is not None
    assert report.log_rank.statistic == pytest.approx(expected[0], rel=1e-10)
    assert [ratio.group for ratio in report.hazard_ratios] == ["intermediate", "high"]
    first, second = (value_of(ratio.estimate) for ratio in report.hazard_ratios)
    assert 1 < first < second
    for shown in report.groups:
        members = patients[group == shown.name]
        fit = KaplanMeierFitter().fit(members["time"], members["event"])
        for point in shown.survival:
            if point.estimate.value is not None:
                assert point.estimate.value == pytest.approx(fit.predict(point.time), abs=1e-10)
                assert point.estimate.counts["at_risk"] == (members["time"] >= point.time).sum()


def test_mean_times_are_those_of_lifelines_and_differ_by_their_difference() -> None:
    means, (patients, _) = means_of(computed()), assign(table())
    assert means.until == 60
    values = []
    for group in means.groups:
        members = patients[patients["group"] == group.group]
        fit = KaplanMeierFitter().fit(members["time"], members["event"])
        values.append(restricted_mean_survival_time(fit, t=60))
        assert group.estimate.value == pytest.approx(values[-1], rel=1e-10)
    (apart,) = means.differences
    value, low, high = triple(apart.estimate)
    assert value == pytest.approx(values[1] - values[0], rel=1e-10)
    assert low < value < high < 0


def test_mean_times_end_where_a_group_is_no_longer_followed() -> None:
    rows = table()
    short = rows.assign(time=np.minimum(rows["time"], 30.5))
    assert means_of(computed(short)).until == 30.5


def test_a_patient_of_several_folds_counts_once() -> None:
    once, again = with_risks(), with_risks()
    repeated = computed(checked(pd.concat([once, again.assign(fold=again["fold"] + 3)]), ENDPOINT))
    assert repeated.model_dump(exclude={"fitted"}) == computed().model_dump(exclude={"fitted"})
    assert len(repeated.fitted) == 6


def test_without_training_rows_there_are_no_groups_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = table()
    with caplog.at_level(logging.INFO):
        assert RiskGroups.compute(refitted(rows[rows["role"] == "report"], ENDPOINT)) is None
    assert caplog.messages == ["no risk groups: the table has no training patients, whose scores would cut them"]


def test_a_fold_without_training_rows_is_listed_with_its_reason() -> None:
    rows = table()
    report = computed(rows[(rows["fold"] != 1) | (rows["role"] != "train")])
    assert [fold.cuts is None for fold in report.fitted] == [False, True, False]
    assert "0 train patients" in str(report.fitted[1].reason)
    assert report.n == 100


def grouped(time: Any, event: Any) -> pd.DataFrame:
    names = pd.Categorical(["low", "intermediate", "high"] * 20, ["low", "intermediate", "high"], ordered=True)
    return pd.DataFrame({"group": names, "time": np.asarray(time, float), "event": np.asarray(event, bool)})


def test_a_hazard_ratio_without_a_finite_estimate_has_a_reason() -> None:
    time, every = np.arange(1, 61), np.ones(60, bool)
    names = ["low", "intermediate", "high"]
    nobody = [ratio.estimate for ratio in hazards(grouped(time, np.arange(60) % 3 != 1), names)[0]]
    assert (nobody[0].value, nobody[0].reason) == (None, "no event in the intermediate group")
    subset = grouped(time, every)[np.arange(60) % 3 != 1]
    frame = pd.DataFrame({"high": (subset["group"] == "high") * 1.0, "time": subset["time"]})
    assert nobody[1].value == pytest.approx(np.exp(CoxPHFitter().fit(frame, "time").params_.high), rel=1e-6)
    lowest = hazards(grouped(time, np.arange(60) % 3 != 0), names)[0]
    assert [ratio.estimate.reason for ratio in lowest] == ["no event in the low group"] * 2
    apart = hazards(grouped(time + 1000 * (np.arange(60) % 3 == 0), every), names)[0]
    assert "separated" in str(apart[0].estimate.reason)


def test_one_group_alone_has_no_test() -> None:
    rows = table()
    report = computed(rows.assign(log_hazard=rows["log_hazard"].where(rows["role"] == "train", -99.0)))
    assert (report.log_rank_p, report.hazard_ratios, means_of(report).differences) == (None, (), ())
    assert [group.name for group in report.groups] == ["low"]


def test_groups_of_competing_risks_show_incidences_and_hazards_of_the_first_cause() -> None:
    rows = checked(competed(), COMPETING)
    report, (patients, _) = RiskGroups.compute(refitted(rows, COMPETING)), assign(rows, endpoint=COMPETING)
    assert report is not None
    first = rows.drop_duplicates("patient").set_index("patient")["event"] == "relapse"
    assert (patients["event"] == first.loc[patients.index]).all()
    frame = patients[["time", "event"]].astype(float).assign(high=(patients["group"] == "high") * 1.0)
    fit = CoxPHFitter().fit(frame, "time", "event")
    assert value_of(report.hazard_ratios[0].estimate) == pytest.approx(np.exp(fit.params_.high), rel=1e-6)
    assert report.restricted_mean is None
    low, high = (value_of(group.incidence[0].estimate) for group in report.groups)
    assert low < high


def test_only_survival_has_groups() -> None:
    assert RiskGroups.compute(refitted(binary(), Binary())) is None
    assert RiskGroups.compute(refitted(survival(), Cox())) is not None


def test_each_group_is_compared_with_the_next_lower_one_in_the_same_model() -> None:
    section = computed(decision=THIRDS)
    patients, _ = assign(table(), THIRDS)
    dummies = pd.DataFrame({name: (patients["group"] == name).astype(float) for name in ("low", "high")})
    frame = dummies.assign(time=patients["time"], event=patients["event"].astype(float))
    expected = CoxPHFitter().fit(frame, "time", "event").summary.loc["high"]
    (contrast,) = section.next_hazard_ratios
    assert (contrast.group, contrast.reference) == ("high", "intermediate")
    numbers = [expected[f"exp(coef){bound}"] for bound in ("", " lower 95%", " upper 95%")]
    assert triple(contrast.estimate) == pytest.approx(numbers, rel=1e-5)
    assert [(each.group, each.reference) for each in section.adjacent()] == [
        ("intermediate", "low"),
        ("high", "intermediate"),
    ]
    assert computed().next_hazard_ratios == ()
    assert section.by_hazard == ("low", "intermediate", "high")


def test_groups_are_ordered_by_their_hazard_those_without_events_first() -> None:
    names = ("low", "intermediate", "high")
    group = np.repeat(names, 40)
    rng = np.random.default_rng(0)
    time = rng.exponential(np.where(group == "low", 10.0, np.where(group == "high", 100.0, 40.0)))
    patients = pd.DataFrame({"group": group, "time": time, "event": True})
    assert groups._by_hazard(names, patients) == ("high", "intermediate", "low")
    eventless = patients.assign(event=patients["group"] != "intermediate")
    assert groups._by_hazard(names, eventless) == ("intermediate", "high", "low")
    assert groups._by_hazard(names, patients.assign(event=patients["group"] == "low")) == (
        "intermediate",
        "high",
        "low",
    )
    assert groups.next_hazards(eventless, names)[0].estimate.value is None


def test_a_stated_risk_is_held_against_what_was_observed_by_its_horizon() -> None:
    section = computed(decision=ABSOLUTE)
    by_name = {promise.group: promise for promise in section.promises}
    assert [(each.at_least, each.below) for each in by_name.values()] == [(None, 0.5), (0.5, 0.9), (0.9, None)]
    for group in section.groups:
        observed = next(each.estimate for each in group.survival if each.time == 60.0)
        estimate = by_name[group.name].estimate
        assert by_name[group.name].time == 60.0
        assert value_of(estimate) == pytest.approx(1 - value_of(observed))
        _, low, high = triple(observed)
        assert triple(estimate)[1:] == pytest.approx([1 - high, 1 - low])
    assert computed(decision=THIRDS).promises == ()
    promise = by_name["low"]
    inside = promise.estimate.model_copy(update={"value": 0.1, "low": 0.0, "high": 0.49})
    assert promise.model_copy(update={"estimate": inside}).shown
    assert not promise.model_copy(update={"estimate": inside.model_copy(update={"high": 0.5})}).shown
    assert promise.model_copy(update={"estimate": inside.model_copy(update={"value": 0.5})}).broken
