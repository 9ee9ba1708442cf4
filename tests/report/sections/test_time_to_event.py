"""The survival section: every number against scikit-survival, fold by fold."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from sksurv import metrics
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.fitted import calibrators
from mil.report.sections.horizon import BY_CHANCE
from mil.report.sections.recalibration import NOT_CALIBRATED
from mil.report.sections.survival_scores import NARROW, WEIGHTS, within
from mil.report.sections.time_to_event import TimeToEvent
from mil.report.sections.utility import Utility
from mil.stats.censoring import Censoring
from mil.stats.survival_metrics import brier_at, c_index, competing_c_index, cumulative_dynamic_auc, uno_c
from tests.estimates import holds
from tests.report.followed import COMPETING, ENDPOINT, HORIZONS, clinic, competed, follow_up, with_risks
from tests.report.tables import binary, refitted, survival

TIMES = list(map(float, HORIZONS.values()))


def section_of(table: pd.DataFrame | None = None, **options: Any) -> Any:
    if table is None and not options:
        return plain()
    evaluation = refitted(with_risks() if table is None else table, ENDPOINT, resamples=20, **options)
    result: Any = TimeToEvent.compute(evaluation)
    assert result is not None
    return result


@cache
def plain() -> Any:
    return section_of(with_risks())


def by_fold(table: pd.DataFrame) -> list[tuple[Any, Any, pd.DataFrame]]:
    """Outcomes of training and of reported patients, and the reported rows.

    Censorings come a moment after their times: scikit-survival's G of a time is then G just before it.
    """
    folds = []
    for fold in range(3):
        train, rows = (table[(table["fold"] == fold) & (table["role"] == role)] for role in ("train", "report"))
        late = (
            Surv.from_arrays(part["event"] == 1, part["time"] + 1e-6 * (part["event"] == 0)) for part in (train, rows)
        )
        folds.append((*late, rows))
    return folds


def test_concordances_are_means_over_folds_of_the_libraries_values() -> None:
    report, folds = section_of(), by_fold(with_risks())
    harrell = [concordance_index(rows["time"], -rows["log_hazard"], rows["event"]) for _, _, rows in folds]
    uno = [metrics.concordance_index_ipcw(train, seen, rows["log_hazard"], 60)[0] for train, seen, rows in folds]
    assert report.c_index.folds == pytest.approx(harrell, abs=1e-12)
    assert report.c_index.value == pytest.approx(np.mean(harrell), abs=1e-12)
    assert report.uno_c.folds == pytest.approx(uno, abs=1e-12)
    for number in (report.c_index, report.uno_c):
        assert number.low <= number.value <= number.high
        assert number.counts == report.counts == {"n": 150, "events": report.counts["events"]}


def test_areas_at_the_stated_times_are_scikit_survivals() -> None:
    report, folds = section_of(tool={"times": [36, 20]}), by_fold(with_risks())
    scores = ("log_hazard", "risk_3y")
    assert [(each.name, each.score) for each in report.auc] == [("20", "log_hazard"), ("3y", "risk_3y")]
    for each, score in zip(report.auc, scores, strict=True):
        expected = [
            metrics.cumulative_dynamic_auc(train, seen, rows[score], [each.time])[0][0] for train, seen, rows in folds
        ]
        assert each.estimate.folds == pytest.approx(expected, abs=1e-12)


def test_brier_scores_and_their_integral_are_scikit_survivals() -> None:
    report, folds = section_of(), by_fold(with_risks())
    for place, each in enumerate(report.brier):
        expected = [
            metrics.brier_score(train, seen, 1 - rows[[f"risk_{each.name}"]], [TIMES[place]])[1][0]
            for train, seen, rows in folds
        ]
        assert each.model.folds == pytest.approx(expected, abs=1e-12)
    integrals, nulls = [], []
    for train, seen, rows in folds:
        chances = 1 - rows[[f"risk_{name}" for name in HORIZONS]].to_numpy()
        integrals.append(metrics.integrated_brier_score(train, seen, chances, TIMES))
        moments, curve = kaplan_meier_estimator(train["event"], train["time"])
        null = np.tile(curve[np.searchsorted(moments, TIMES, side="right") - 1], (len(rows), 1))
        nulls.append(metrics.integrated_brier_score(train, seen, null, TIMES))
    integrated = report.integrated_brier
    assert integrated.model.folds == pytest.approx(integrals, abs=1e-12)
    assert integrated.kaplan_meier.folds == pytest.approx(nulls, abs=1e-12)
    assert integrated.scaled.folds == pytest.approx(1 - np.array(integrals) / nulls, abs=1e-12)
    assert (integrated.start, integrated.end, integrated.horizons) == (12, 60, ("1y", "3y", "5y"))


def survival_before(time: Any, event: Any, at: float, *, including: bool) -> float:
    """Kaplan and Meier's estimate from its definition, with the events at the very time or without them."""
    chance = 1.0
    for moment in sorted(set(time[event])):
        if moment < at or (including and moment == at):
            chance *= 1 - np.sum(event & (time == moment)) / np.sum(time >= moment)
    return chance


def censoring_before(time: Any, event: Any, at: float) -> float:
    """The chance not to be censored before a time: of patients at one time, those with the event leave first."""
    chance = 1.0
    for moment in sorted(set(time[~event])):
        if moment < at:
            at_risk = np.sum(time > moment) + np.sum((time == moment) & ~event)
            chance *= 1 - np.sum((time == moment) & ~event) / at_risk
    return chance


def test_the_index_of_prediction_accuracy_is_one_minus_two_weighted_sums_of_squares() -> None:
    """Kattan and Gerds 2018, patient by patient: null model and weights come from the fold's training patients."""
    table, report = with_risks(), section_of()
    for place, each in enumerate(report.brier):
        at, losses = TIMES[place], {"model": list[float](), "null": list[float]()}
        for fold in range(3):
            train = table[(table["fold"] == fold) & (table["role"] == "train")]
            time, event = train["time"].to_numpy(), train["event"].to_numpy() == 1
            null = 1 - survival_before(time, event, at, including=True)
            for _, row in table[(table["fold"] == fold) & (table["role"] == "report")].iterrows():
                had, known = row["event"] == 1 and row["time"] <= at, row["event"] == 1 or row["time"] >= at
                weight = known / censoring_before(time, event, min(row["time"], at))
                losses["model"].append(weight * (had - row[f"risk_{each.name}"]) ** 2)
                losses["null"].append(weight * (had - null) ** 2)
        assert each.model.value == pytest.approx(np.mean(losses["model"]), abs=1e-12)
        assert each.kaplan_meier.value == pytest.approx(np.mean(losses["null"]), abs=1e-12)
        assert each.scaled.value == pytest.approx(1 - sum(losses["model"]) / sum(losses["null"]), abs=1e-12)


def test_intervals_that_hold_less_than_they_say_say_so() -> None:
    """The measured coverage is in docs/coverage.md."""

    def caveats(table: pd.DataFrame) -> tuple[str | None, ...]:
        section = section_of(table)
        first = section.brier[0]
        numbers = (first.model, first.kaplan_meier, first.scaled, section.auc[0].estimate, section.uno_c)
        assert section.calibration[0].ici.caveat == BY_CHANCE
        assert section.integrated_brier.model.caveat == first.model.caveat
        return tuple(number.caveat for number in numbers)

    folds = with_risks()
    assert caveats(folds) == (None, None, NARROW, None, None)
    large = with_risks(patients=900)
    assert caveats(large) == (None,) * 5
    hold_out = folds[folds["fold"] == 0]
    assert caveats(hold_out) == (WEIGHTS, WEIGHTS, NARROW, NARROW, None)
    train = hold_out["role"] == "train"
    alone = hold_out[~train]
    assert caveats(alone)[:2] == (None, None), "their own weights move with the resamples' patients"
    copies = [hold_out[train].assign(patient=f"{at}" + hold_out["patient"][train]) for at in range(6)]
    assert caveats(pd.concat([alone, *copies], ignore_index=True))[:2] == (None, None)


def test_the_order_of_competing_risks_in_few_patients_says_that_its_interval_is_too_narrow() -> None:
    for patients, caveat in ((60, NARROW), (150, None)):
        table = competed(patients=patients)
        table["risk_death_3y"] = 1 - table["risk_3y"]
        report: Any = TimeToEvent.compute(refitted(table, COMPETING, resamples=20))
        (second,) = report.other_causes
        assert [each.caveat for each in (report.c_index, report.uno_c, second.uno_c)] == [caveat] * 3


def test_scores_of_folds_are_never_compared_with_each_other() -> None:
    table = with_risks()
    moved = table.assign(log_hazard=table["log_hazard"] * (1 + table["fold"]) - 1000 * table["fold"])
    for name in ("c_index", "uno_c"):
        assert getattr(section_of(moved), name).value == pytest.approx(getattr(section_of(), name).value, abs=1e-12)


def test_what_training_patients_had_sets_the_weights() -> None:
    table = with_risks()
    reported = table["role"] == "report"
    less_followed = section_of(table.assign(event=np.where(reported | (table["time"] > 20), table["event"], 0)))
    assert less_followed.uno_c.value != section_of().uno_c.value
    assert less_followed.c_index == section_of().c_index
    assert section_of().reference == "training patients"
    assert "without training rows" in section_of(table[reported]).reference


def test_tau_is_the_last_stated_time_or_where_a_tenth_is_at_risk() -> None:
    stated = section_of(tool={"times": [12, 24]}).tau
    assert (stated.value, stated.set_by) == (24, "the last stated time")
    table = survival(patients=150)
    plain: Any = TimeToEvent.compute(refitted(table, Cox(), resamples=20))
    assert plain is not None
    time = table.drop_duplicates("patient")["time"]
    assert plain.tau.at_risk == (time >= plain.tau.value).sum()
    assert 0.1 <= plain.tau.at_risk / 150 <= 0.13
    assert (plain.times, plain.auc, plain.brier, plain.calibration) == ((), (), (), ())
    assert plain.integrated_brier.model is None


def test_a_time_that_nobody_reaches_has_a_reason_and_no_number() -> None:
    report = section_of(tool={"times": [12, 500]})
    late = report.auc[1]
    assert (late.name, late.estimate.value) == ("500", None)
    assert "no fold" in late.estimate.reason
    assert report.times[1].observed.reason == "nobody is followed for 500"
    assert report.auc[0].estimate.value > 0.5


Strata = tuple[Any, Any, Any]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.sampled_from([2, 6, 10**6]), st.integers(1, 2))
def test_the_stratified_concordance_is_that_of_pairs_within_a_stratum(
    seed: int, patients: int, values: int, causes: int
) -> None:
    time, code = follow_up(seed, patients, values, causes)
    rng = np.random.default_rng(seed)
    risk, stratum = rng.integers(0, 6, patients) / 2, rng.integers(-1, 3, patients)
    ends = np.where(code == 2, np.inf, time)
    pairs = [
        (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
        for i in range(patients)
        for j in range(patients)
        if stratum[i] == stratum[j] >= 0
        and code[i] == 1
        and (ends[j] > ends[i] or (ends[j] == ends[i] and code[j] != 1))
    ]
    expected = np.mean(pairs) if pairs else np.nan
    np.testing.assert_allclose(within(risk, time, code, stratum), expected, atol=1e-12)
    weight = rng.integers(0, 3, (3, patients)).astype(float)
    rows = [np.repeat(np.arange(patients), row.astype(int)) for row in weight]
    copies = [within(risk[row], time[row], code[row], stratum[row]) for row in rows]
    np.testing.assert_allclose(within(risk, time, code, stratum, weight), copies, atol=1e-12)
    total = competing_c_index(risk, time, code) if causes == 2 else c_index(risk, time, code)
    np.testing.assert_allclose(within(risk, time, code, np.zeros(patients, int)), total, atol=1e-12)


def test_a_score_that_only_knows_the_site_is_worth_nothing_within_sites() -> None:
    table, patients = with_risks(), clinic()
    site = (patients["site"] == "A").to_dict()
    report = section_of(table.assign(log_hazard=table["patient"].map(site).astype(float)), patients=patients)
    assert report.c_index_within_site.value == pytest.approx(0.5)
    assert section_of().c_index_within_site is None
    unknown = section_of(patients=patients.assign(site="")).c_index_within_site
    assert unknown.value is None


def test_competing_causes_have_their_own_concordance_and_brier_score() -> None:
    table = competed()
    report: Any = TimeToEvent.compute(refitted(table, COMPETING, resamples=20))
    assert report is not None
    for fold, value in enumerate(report.c_index.folds):
        rows = table[(table["fold"] == fold) & (table["role"] == "report")]
        code = rows["event"].map({"censored": 0, "relapse": 1, "death": 2})
        assert value == competing_c_index(rows["risk"], rows["time"], code)
    assert report.uno_c.value < report.c_index.value + 0.1
    assert "Wolbers" in report.definition
    (score,) = report.brier
    assert 0 < score.model.value < score.kaplan_meier.value < 0.27
    assert report.calibration[0].column == "risk_relapse_3y"
    observed = report.times[0].observed
    assert observed.method.startswith("Aalen-Johansen")


def test_every_cause_is_measured_by_its_own_risk_with_weights_of_its_folds_training_patients() -> None:
    table = competed()
    risk = 1 - table["risk_relapse_3y"] / 2
    report: Any = TimeToEvent.compute(refitted(table.assign(risk_death_3y=risk), COMPETING, resamples=20))
    assert report is not None
    first: Any = TimeToEvent.compute(refitted(table, COMPETING, resamples=20))
    assert first is not None
    assert first.other_causes == (), "without a risk there is nothing to measure"
    assert first.uno_c == report.uno_c
    (second,) = report.other_causes
    counts = table.drop_duplicates("patient")["event"].value_counts()
    assert (second.name, second.score, second.counts["events"]) == ("death", "risk_death_3y", counts["death"])
    codes = {"relapse": {"censored": 0, "relapse": 1, "death": 2}, "death": {"censored": 0, "relapse": 2, "death": 1}}
    for fold in range(3):
        train, rows = (table[(table["fold"] == fold) & (table["role"] == role)] for role in ("train", "report"))
        censoring = Censoring.fit(train["time"], train["event"] != "censored")
        for name, measured, score in (
            ("relapse", report, rows["risk_relapse_3y"]),
            ("death", second, risk[rows.index]),
        ):
            code, time = rows["event"].map(codes[name]).to_numpy(), rows["time"].to_numpy()
            assert measured.uno_c.folds[fold] == pytest.approx(uno_c(score, time, code, 36, censoring))
            area = cumulative_dynamic_auc(score, time, code, 36, censoring)
            assert measured.auc[0].estimate.folds[fold] == pytest.approx(area)
            error = brier_at(1 - score, time, code, 36, censoring)
            assert measured.brier[0].model.folds[fold] == pytest.approx(error)
    assert second.times[0].observed.method.startswith("Aalen-Johansen")


def test_recalibrated_risks_stand_beside_the_models_and_are_right_on_the_whole() -> None:
    table = with_risks(patients=600, stretch=1.8)
    report = section_of(table, tool={"calibration": "baseline_slope"})
    assert (report.recalibration.method, report.recalibration.on) == ("baseline_slope", "select")
    for fold, each in enumerate(report.recalibration.folds):
        select = table[(table["fold"] == fold) & (table["role"] == "select")].set_index("patient")
        assert each.parameters == calibrators.fit("baseline_slope", ENDPOINT, select).model_dump(mode="json")
    for horizon in report.calibration:
        after = horizon.calibrated
        assert after.column == f"calibrated_{horizon.column}"
        assert abs(after.slope.value - 1) < abs(horizon.slope.value - 1)
        assert after.observed_expected.low < 1 < after.observed_expected.high
        assert after.n == horizon.n == 600
    assert plain().calibration[0].calibrated is None
    assert plain().recalibration is None
    alone = section_of(table[table["role"] == "report"], tool={"calibration": "baseline"}).calibration[0].calibrated
    assert (alone.n, alone.reason) == (0, NOT_CALIBRATED)


def test_other_endpoints_have_no_such_section() -> None:
    assert TimeToEvent.compute(refitted(binary(), Binary(), resamples=20)) is None


@pytest.mark.slow
def test_intervals_of_concordances_hold_the_truth_as_often_as_they_say() -> None:
    large = survival(10**6, 6000, 3)
    rows = large[large["role"] == "report"]
    truth = np.mean([c_index(part["log_hazard"], part["time"], part["event"]) for _, part in rows.groupby("fold")])
    held, runs = 0, 100
    for seed in range(runs):
        report: Any = TimeToEvent.compute(refitted(survival(seed, 150), Cox(), resamples=200))
        assert report is not None
        held += holds(report.c_index, float(truth))
    assert 0.88 <= held / runs <= 0.99


def test_a_horizon_without_risks_is_missing_with_its_reason_and_in_no_section() -> None:
    """`risk_20y` of patients followed for 60 months entered calibration, Brier scores and decision curves."""
    endpoint = Cox(horizons={**HORIZONS, "20y": 240})
    endpoint.longest = 60.0
    table = with_risks().assign(risk_20y=np.nan)
    evaluation = refitted(table, endpoint, resamples=20)
    report: Any = TimeToEvent.compute(evaluation)
    [missing] = report.missing_risks
    assert missing.reason.startswith("risk_20y is missing for 150 of 150 patients: 240 months lie beyond the follow-up")
    assert [each.horizon for each in report.calibration] == [each.name for each in report.brier] == list(HORIZONS)
    utility: Any = Utility.compute(evaluation)
    assert [each.horizon for each in utility.horizons] == list(HORIZONS)
    # risks of other software beyond the follow-up of these patients have a reason and no number
    foreign = refitted(table.assign(risk_20y=0.9), Cox(horizons=endpoint.horizons), resamples=20)
    late: Any = TimeToEvent.compute(foreign)
    assert late.brier[-1].model.value is None
    assert late.calibration[-1].observed.value is None
    curve: Any = Utility.compute(foreign)
    assert curve.horizons[-1].reason == "nobody is followed for 240 months"
    assert curve.horizons[-1].verdict is None
