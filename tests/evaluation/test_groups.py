"""Risk groups: cuts of training patients, lifelines' hazard ratio and log-rank test."""

import logging

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.statistics import logrank_test
from sksurv.compare import compare_survival
from sksurv.util import Surv

from mil.endpoints.survival import Cox
from mil.evaluation.groups import assign, groups
from mil.evaluation.predictions import checked

from .tables import survival


def table(**options: int) -> pd.DataFrame:
    return checked(survival(**options), Cox())


def test_each_fold_is_cut_at_the_median_of_its_own_training_patients() -> None:
    rows = table()
    patients, cuts = assign(rows, Cox())
    trained = rows[rows["role"] == "train"]
    assert cuts == trained.groupby("fold")["log_hazard"].median().tolist()
    reported = rows[rows["role"] == "report"].set_index("patient")
    expected = reported["log_hazard"] > reported["fold"].map(dict(enumerate(cuts)))
    assert patients["high"].to_dict() == expected.to_dict()
    assert 40 < patients["high"].sum() < 80  # the folds' shifts of 10 would put whole folds on one side


def test_reported_patients_move_no_cut() -> None:
    rows = table()
    changed = rows.assign(log_hazard=rows["log_hazard"].where(rows["role"] == "train", 99.0))
    assert assign(rows, Cox())[1] == assign(changed, Cox())[1]


def test_numbers_are_those_of_lifelines_and_scikit_survival() -> None:
    found = groups(table(), Cox())
    patients, _ = assign(table(), Cox())
    assert found is not None
    fit = CoxPHFitter().fit(patients.astype(float), "time", "event").summary.loc["high"]
    ratio = found["hazard_ratio"]
    expected = fit[["exp(coef)", "exp(coef) lower 95%", "exp(coef) upper 95%"]].tolist()
    assert [ratio["value"], ratio["low"], ratio["high"]] == pytest.approx(expected, rel=1e-12)
    high, low = patients[patients["high"]], patients[~patients["high"]]
    test = logrank_test(high["time"], low["time"], high["event"], low["event"])
    assert found["log_rank_p"] == pytest.approx(test.p_value, rel=1e-12)
    outcome = Surv.from_arrays(patients["event"], patients["time"])
    assert found["log_rank_p"] == pytest.approx(compare_survival(outcome, patients["high"])[1], rel=1e-6)
    assert found["high"]["n"] + found["low"]["n"] == 120
    assert found["high"]["events"] + found["low"]["events"] == patients["event"].sum()


def test_a_patient_of_several_folds_counts_once() -> None:
    once, again = survival(folds=3), survival(folds=3)
    repeated = checked(pd.concat([once, again.assign(fold=again["fold"] + 3)]), Cox())
    assert groups(repeated, Cox()) == {
        **(groups(checked(once, Cox()), Cox()) or {}),
        "cuts": assign(repeated, Cox())[1],
    }


def test_without_training_rows_there_are_no_groups_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = table()
    with caplog.at_level(logging.WARNING):
        assert groups(rows[rows["role"] == "report"], Cox()) is None
    assert caplog.text.count("no training rows") == 3


def test_a_hazard_ratio_without_a_finite_estimate_is_null() -> None:
    rows = table()
    patients, _ = assign(rows, Cox())
    safe = rows["patient"].isin(patients.index[~patients["high"]])
    nobody = groups(rows.assign(event=rows["event"].where(~safe, 0)), Cox())
    assert nobody is not None
    assert nobody["hazard_ratio"] is None
    assert nobody["log_rank_p"] < 1e-3
    apart = groups(rows.assign(event=1, time=np.where(safe, 1000.0, 1.0) + np.arange(len(rows)) / 1e4), Cox())
    assert apart is not None
    assert apart["hazard_ratio"] is None
    one_sided = groups(rows.assign(log_hazard=rows["log_hazard"].where(rows["role"] == "train", -99.0)), Cox())
    assert one_sided is not None
    assert (one_sided["hazard_ratio"], one_sided["log_rank_p"], one_sided["high"]["n"]) == (None, None, 0)
