"""Instability of a run's models: about patients they were not fitted to, over folds, seeds and new cohorts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil.errors import ConfigError
from mil.runs.instability_run import evaluate_instability
from tests.conftest import Mil
from tests.report.tables import binary
from tests.runs.test_run import folder_of


def test_only_models_that_were_not_fitted_to_a_patient_are_compared(tmp_path: Path, mil: Mil) -> None:
    table = binary(patients=90)
    said = mil("evaluate", folder_of(tmp_path / "run", table=table), "--instability")
    assert said.code == 0
    result = json.loads((tmp_path / "run" / "instability" / "instability.json").read_text())
    not_fitted = table[table["role"] != "train"]  # of three folds one reports a patient, one selects on them
    two = not_fitted.groupby("patient")["p_1"].agg(lambda values: float(np.ptp(values)) / 2**0.5)
    [score] = result["scores"]
    assert (score["n"], score["fewest_models"], score["most_models"]) == (90, 2, 2)
    assert score["mean_error"] == pytest.approx(two.mean())
    assert score["ninth_decile"] == pytest.approx(np.quantile(two, 0.9))
    # of two folds' training thirds, none is in both
    assert result["shared_training"] == 0
    assert "predicted by the 2 whose weights were not fitted to them" in said.out
    assert {path.name for path in (tmp_path / "run" / "instability").iterdir()} == {
        "instability.json",
        "instability.csv",
        "instability.png",
        "instability.svg",
    }
    assert mil("evaluate", tmp_path / "run", "--instability").code == 0, "its own folder is written again"


def test_other_seeds_add_models_and_other_tools_are_refused(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "a", table=binary(patients=90))
    second = folder_of(tmp_path / "b", "seed=2", table=binary(patients=90).assign(p_1=lambda table: table["p_1"] ** 2))
    result = evaluate_instability(first, [second], out=tmp_path / "out")
    assert result.models == 6
    assert (result.scores[0].fewest_models, result.scores[0].most_models) == (4, 4)
    assert "6 models of 2 seeds" in result.source
    other = folder_of(tmp_path / "c", "model=mean", table=binary(patients=90))
    with pytest.raises(ConfigError, match="expected another seed"):
        evaluate_instability(first, [other], out=tmp_path / "out")


def test_one_model_of_each_patient_is_not_enough(tmp_path: Path) -> None:
    table = binary(patients=90)
    with pytest.raises(ConfigError, match="no patient has 2 models that were not trained on them"):
        evaluate_instability(folder_of(tmp_path / "run", table=table[table["fold"] == 0]))


def test_all_models_predict_a_cohort_that_none_was_trained_on(
    crc_run: Path, hospital: Path, tmp_path: Path, mil: Mil
) -> None:
    run, cohort = shutil.copytree(crc_run, tmp_path / "run"), pd.read_csv(hospital / "cohort.csv", dtype=str)
    table = pd.read_csv(run / "predictions.csv", dtype=str)
    table.assign(patient="trained on " + table["patient"]).to_csv(run / "predictions.csv", index=False)
    files_of = ("--cohort", hospital / "cohort.csv", "--features", hospital / "features")
    said = mil("evaluate", run, "--instability", *files_of, "--out", tmp_path / "out")
    assert said.code == 0
    result = json.loads((tmp_path / "out" / "instability.json").read_text())
    assert result["models"] == 2
    score = result["scores"][0]
    assert (score["n"], score["fewest_models"]) == (cohort["patient"].nunique(), 2)
    assert "All 2 models predict all patients of a cohort that none was trained on" in said.out
    table.assign(patient=cohort["patient"].iloc[0]).to_csv(run / "predictions.csv", index=False)
    again = mil("evaluate", run, "--instability", *files_of, "--out", tmp_path / "out")
    assert "1 patients of the run are left out" in again.out
