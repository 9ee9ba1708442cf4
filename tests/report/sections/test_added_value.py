"""Added value: lifelines' and scikit-learn's models, and no refitting on reported patients."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceWarning
from lifelines.utils import concordance_index
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from mil.endpoints.classification import Binary
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.regression import Regression
from mil.report.sections.added_value import AddedValue, adjusted
from mil.report.sections.clinical import Clinical, without_certain
from mil.stats.corrected_resampled import fold_mean
from tests.report.followed import COMPETING, ENDPOINT, clinic, competed, with_risks
from tests.report.tables import binary, refitted

TOOL = {"clinical": {"numeric": ["age"], "categorical": ["stage"]}}


def section_of(
    table: pd.DataFrame,
    endpoint: Endpoint = ENDPOINT,
    tool: dict[str, Any] | None = None,
    patients: pd.DataFrame | None = None,
) -> Any:
    clinical = clinic() if patients is None else patients
    result = AddedValue.compute(refitted(table, endpoint, TOOL if tool is None else tool, clinical, resamples=50))
    assert result is not None
    return result


@cache
def survived() -> Any:
    return section_of(with_risks())


def design(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """The columns as one would write them by hand, and the score in deviations of its fold."""
    rows = table[table["role"] == "report"].sort_values(["fold", "patient"]).set_index("patient")
    by_fold = rows.groupby("fold")[score]
    patients = clinic().loc[rows.index]
    age = pd.to_numeric(patients["age"])
    filled = ((age - age.mean()) / age.std(ddof=0)).fillna(0)
    levels = {f"stage={level}": (patients["stage"] == level) * 1.0 for level in ("II", "III")}
    missing = {"age=missing": age.isna() * 1.0, "stage=missing": (patients["stage"] == "") * 1.0}
    columns = {
        "age": filled,
        **levels,
        **missing,
        "score": (rows[score] - by_fold.transform("mean")) / by_fold.transform("std"),
    }
    return pd.DataFrame(columns, index=rows.index).assign(time=rows.get("time"), event=rows.get("event"))


def test_hazard_ratios_and_the_likelihood_ratio_test_are_those_of_lifelines() -> None:
    frame, report = design(with_risks(), "log_hazard"), survived()
    options = {"precision": 1e-9}
    both = CoxPHFitter().fit(frame, "time", "event", fit_options=options)
    without = CoxPHFitter().fit(frame.drop(columns="score"), "time", "event", fit_options=options)
    row = both.summary.loc["score"]
    expected = row[["exp(coef)", "exp(coef) lower 95%", "exp(coef) upper 95%", "p"]].tolist()
    adjusted = report.score.adjusted
    assert [adjusted.value, adjusted.low, adjusted.high, adjusted.p] == pytest.approx(expected, rel=1e-7)
    for shown in report.rows:
        assert shown.with_score.value == pytest.approx(both.summary.loc[shown.name, "exp(coef)"], rel=1e-6)
        assert shown.without_score.value == pytest.approx(without.summary.loc[shown.name, "exp(coef)"], rel=1e-6)
    statistic = 2 * (both.log_likelihood_ - without.log_likelihood_)
    assert report.likelihood_ratio.statistic == pytest.approx(statistic, rel=1e-8)
    assert {shown.reference for shown in report.rows} == {None, "stage=I"}
    assert (adjusted.n, report.counts["n"]) == (150, 150)


def test_odds_ratios_are_those_of_maximum_likelihood() -> None:
    table = binary(patients=150)
    logits = table.assign(logit=np.log(table["p_1"] / (1 - table["p_1"])))
    frame = design(logits, "logit").drop(columns=["time", "event"])
    label = table.drop_duplicates("patient").set_index("patient")["label"].loc[frame.index]
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(frame, label)
    report = section_of(table, Binary())
    assert report.measure == "odds_ratio"
    assert report.score.adjusted.value == pytest.approx(np.exp(fit.coef_[0, -1]), rel=1e-4)
    share = fit.predict_proba(frame)[:, 1]
    full = np.column_stack([np.ones(len(frame)), frame])
    error = np.sqrt(np.linalg.inv(full.T @ (full * (share * (1 - share))[:, None]))[-1, -1])
    assert report.score.adjusted.high == pytest.approx(np.exp(fit.coef_[0, -1] + 1.959964 * error), rel=1e-3)
    assert report.likelihood_ratio.p < 1e-6


def test_discrimination_is_of_models_that_never_saw_the_reported_patients() -> None:
    table, report = with_risks(), survived()
    gained = report.discrimination
    assert {(fold.clinical_on, fold.both_on) for fold in gained.fitted} == {("train", "select")}
    for fold, value in enumerate(gained.score.folds):
        rows = table[(table["fold"] == fold) & (table["role"] == "report")]
        assert value == pytest.approx(concordance_index(rows["time"], -rows["log_hazard"], rows["event"]), abs=1e-12)
    for pair, (first, second) in {
        "both_minus_clinical": ("both", "clinical"),
        "score_minus_clinical": ("score", "clinical"),
    }.items():
        expected = getattr(gained, first).value - getattr(gained, second).value
        assert getattr(gained, pair).value == pytest.approx(expected, abs=1e-12)
    reported = table["role"] == "report"
    shifted = table.assign(time=np.where(reported, 200 - table["time"], table["time"]))
    assert section_of(shifted).discrimination.fitted == gained.fitted
    # the same weights order other outcomes: reversed times of patients who all had the event give the complement
    events = table.assign(event=np.where(reported, 1, table["event"]), time=table["time"] + table.index % 150 / 1000)
    turned = events.assign(time=np.where(reported, 200 - events["time"], events["time"]))
    forward, backward = (section_of(each).discrimination for each in (events, turned))
    for name in ("clinical", "both"):
        assert getattr(forward, name).value + getattr(backward, name).value == pytest.approx(1, abs=1e-9)


def test_score_and_covariates_are_weighted_by_select_patients() -> None:
    table, gained = with_risks(), survived().discrimination
    sizes = table.groupby(["fold", "role"]).size()
    for fold in gained.fitted:
        assert (fold.clinical_n, fold.both_n) == (sizes[fold.fold, "train"], sizes[fold.fold, "select"])
    for role, is_used in (("train", False), ("select", True)):
        turned = table.assign(log_hazard=table["log_hazard"].where(table["role"] != role, -table["log_hazard"]))
        assert (section_of(turned).discrimination.both != gained.both) == is_used


def test_covariates_that_know_the_outcome_leave_nothing_to_add() -> None:
    table = with_risks()
    hazard = table.drop_duplicates("patient").set_index("patient")["log_hazard"]
    informative = clinic().assign(age=[f"{value:.6f}" for value in hazard.loc[clinic().index]])
    noise = table.assign(log_hazard=np.random.default_rng(10**6).normal(size=len(table)))
    report = section_of(noise, patients=informative)
    assert report.likelihood_ratio.p > 0.01
    assert report.discrimination.both_minus_clinical.high < 0.1
    assert report.discrimination.score_minus_clinical.high < 0


def test_binary_gains_are_differences_of_areas() -> None:
    table = binary(patients=150)
    gained = section_of(table, Binary()).discrimination
    by_fold = [part for _, part in table[table["role"] == "report"].groupby("fold")]
    expected = [roc_auc_score(part["label"], part["p_1"]) for part in by_fold]
    assert gained.score.folds == pytest.approx(expected, abs=1e-12)
    gain = gained.both_minus_clinical
    assert gain.second is not None
    assert gain.second.low > 0  # the covariates are noise, for these trained models
    assert gain.p == pytest.approx(fold_mean(gain.folds, 50 / 100).p)


def test_a_level_without_events_is_left_out_and_the_rest_is_its_limit() -> None:
    table, patients = with_risks(), clinic()
    safe = table.drop_duplicates("patient").set_index("patient").query("event == 0").index[:8]
    patients.loc[safe, "stage"] = "IV"
    report = section_of(table, patients=patients)
    (left,) = report.left_out
    assert (left.name, left.n) == ("stage=IV", 8)
    assert report.likelihood_ratio.counts["n"] == 142
    frame = design(table, "log_hazard")
    # an indicator with a very low hazard comes close to it
    with_level = frame.assign(iv=frame.index.isin(safe) * 1.0).astype(float)
    for name in ("II", "III", "missing"):
        with_level[f"stage={name}"] *= 1 - with_level["iv"]
    model = CoxPHFitter()
    with pytest.warns(ConvergenceWarning):
        model.fit(with_level, "time", "event")
    assert report.score.adjusted.value == pytest.approx(np.exp(model.params_["score"]), rel=1e-3)


def test_certain_levels_are_found_one_after_another() -> None:
    table = pd.DataFrame({"a": [1.0, 1, 0, 0, 0, 0], "b": [0, 1, 1, 0, 0, 0], "c": [0, 0, 0, 1, 1, 0]})
    event = np.array([False, False, True, True, False, True])
    members, dropped = without_certain(table, event, both=True)
    assert dropped == {"a": 2, "b": 1}
    assert members.tolist() == [False, False, False, True, True, True]
    assert without_certain(table, event, both=False)[1] == {"a": 2}


def test_columns_that_are_not_there_are_named_and_without_any_there_is_no_section() -> None:
    report = section_of(
        with_risks(), tool={"clinical": {"numeric": ["age", "grade"], "categorical": {"stage": ["III", "II"]}}}
    )
    assert report.covariates.absent == ("grade",)
    assert [row.name for row in report.rows if row.reference] == ["stage=II", "stage=unknown", "stage=missing"]
    table = with_risks()
    assert AddedValue.compute(refitted(table, ENDPOINT, {"clinical": {"numeric": ["grade"]}}, clinic())) is None
    assert AddedValue.compute(refitted(table, ENDPOINT, {}, clinic())) is None
    assert AddedValue.compute(refitted(table, ENDPOINT, TOOL)) is None
    numbers = table.assign(target=table["time"], value=table["log_hazard"])
    assert AddedValue.compute(refitted(numbers, Regression("target"), TOOL, clinic())) is None


def test_without_training_rows_nothing_is_compared_and_it_says_why() -> None:
    table = with_risks()
    report = section_of(table[table["role"] == "report"])
    assert report.discrimination.both.value is None
    assert "no training patients" in report.discrimination.fitted[0].reason
    assert report.score.adjusted.value > 1


def test_too_few_events_have_a_reason() -> None:
    table = with_risks()
    rare = table.assign(event=np.where(table["patient"].astype(int) % 40 == 0, 1, 0))
    report = section_of(rare)
    assert (report.score.adjusted.value, report.rows) == (None, ())
    assert "too few" in report.likelihood_ratio.reason


def test_of_competing_causes_the_first_has_the_hazard_ratio() -> None:
    table = competed()
    report = section_of(table, COMPETING)
    first = table.assign(event=(table["event"] == "relapse") * 1, log_hazard=table["risk"])
    expected = section_of(first)
    assert report.score.adjusted.value == pytest.approx(expected.score.adjusted.value, rel=1e-9)
    assert report.discrimination.both.value != expected.discrimination.both.value


@pytest.mark.slow
def test_the_likelihood_ratio_test_is_right_about_scores_without_worth() -> None:
    rejected, runs = 0, 100
    for seed in range(runs):
        table = with_risks(seed)
        noise = table.assign(log_hazard=np.random.default_rng(seed + 10**6).normal(size=len(table)))
        evaluation = refitted(noise, ENDPOINT, TOOL, clinic(seed))
        clinical = Clinical.of(evaluation)
        assert clinical is not None
        p = adjusted(evaluation, clinical).likelihood_ratio.p
        assert p is not None
        rejected += p < 0.05
    assert 0.01 <= rejected / runs <= 0.12
