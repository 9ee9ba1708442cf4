"""Instability of a run's models: about patients they were not fitted to, over folds, seeds and new cohorts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil import checkpoint
from mil.cards import CARD
from mil.errors import ConfigError, ReportError
from mil.report.report_files import read_report
from mil.report.sections.prediction_instability import FILE, FOLDER, Instability, read_instability
from mil.runs.describe import REPORT, describe_run
from mil.runs.instability_run import evaluate_instability
from mil.stats.estimate import format_number
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


def test_the_report_of_the_run_has_it_and_keeps_it(tmp_path: Path) -> None:
    run = folder_of(tmp_path / "run", "figures=false", table=binary(patients=90))
    describe_run(run)
    assert read_report(run / REPORT).section(Instability) is None
    before = read_report(run / REPORT)
    result = evaluate_instability(run)
    report = read_report(run / REPORT)
    section = report.section(Instability)
    assert section is not None
    assert (section.scores, section.models, section.source) == (result.scores, 3, result.source)
    assert report.metrics == before.metrics
    assert report.looks == before.looks, "no look at the patients"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Prediction instability" in page
    assert format_number(result.scores[0].ninth_decile) in page
    assert [path.stem for path in (run / "figures").glob("instability.*")]
    describe_run(run, "evaluate")
    assert read_report(run / REPORT).section(Instability) == section
    (run / FOLDER / FILE).write_text('{"models": 3}')
    with pytest.raises(ReportError, match=r"instability\.json: source: Field required"):
        read_instability(run)


def test_cards_say_how_far_models_differ_and_a_cohort_elsewhere_changes_no_report(
    crc_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    before = (run / REPORT).read_bytes()
    table = pd.read_csv(run / "predictions.csv", dtype=str)
    if table[table["role"] != "train"].groupby("patient")["fold"].nunique().max() < 2:
        pytest.fail("the run has no patient with two models")
    evaluate_instability(run, out=tmp_path / "out")
    assert (run / REPORT).read_bytes() == before
    result = evaluate_instability(run)
    place = run / "fold_0" / "checkpoint"
    report, card = read_report(place / REPORT), (place / CARD).read_text(encoding="utf-8")
    assert report.run is not None
    assert report.section(Instability) == report.run.section(Instability)
    assert result.scores[0].sentence in card
    checkpoint.read_manifest(place)  # its seal is that of the new card


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
