"""Runs whose model reads clinical covariates, or that answer several questions, from training to prediction."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mil import checkpoint, files
from mil.report.prediction_files import read
from mil.study.compose import read_config
from mil.study.pipeline import read_study
from tests.conftest import HOSPITAL, QUICK, SMALL, Mil, run_quietly

SAID = "{numeric: [age], categorical: {sex: [F, M], stage: [I, II, III, IV]}, fusion: gated}"


def trained(hospital: Path, folder: Path, *words: str, cohort: Path | None = None) -> Path:
    given = [f"data.cohort={cohort or hospital / 'cohort.csv'}", f"data.features={hospital}/features"]
    return run_quietly("train", *HOSPITAL, *given, *words, f"+tool.covariates={SAID}", f"hydra.run.dir={folder}")


@pytest.fixture(scope="module")
def clinic(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hospital's table, with an age and a stage that are missing and a sex that nobody declared."""
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    patients = table["patient"].drop_duplicates().tolist()
    table.loc[table["patient"] == patients[0], ["age", "stage"]] = ["", "NA"]
    table.loc[table["patient"] == patients[1], "sex"] = "X"
    path = tmp_path_factory.mktemp("clinic") / "cohort.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def clinical_run(hospital: Path, clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(hospital, tmp_path_factory.mktemp("clinical") / "run", "split=holdout", cohort=clinic)


def test_a_run_with_covariates_reports_what_these_alone_can_do(clinical_run: Path) -> None:
    report = files.read_json(clinical_run / "report.json")
    beside = report["sections"]["covariates"]
    assert beside["name"] == "clinical covariates alone, linear"
    assert set(beside["metrics"]) == set(beside["difference"]) == set(report["metrics"])
    card = (clinical_run / "checkpoint" / "README.md").read_text()
    assert "age, sex, stage" in card
    assert card.count("clinical covariates alone, linear") > len(report["metrics"]), "in the verdict and the table"


def test_predict_gives_the_runs_own_numbers_and_needs_the_columns(
    clinical_run: Path, clinic: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    words = ["predict", clinical_run / "checkpoint", "--features", hospital / "features", "--out", tmp_path / "s.csv"]
    assert mil(*words, "--cohort", clinic).code == 0
    places = (tmp_path / "s.csv", clinical_run / "predictions.csv")
    found, own = (read(at).set_index("patient")["p_MSI-H"] for at in places)
    assert found.to_dict() == own.to_dict()
    said = mil(*words)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "reads age, sex, stage of the clinical table, expected --cohort with them" in said.err
    pd.read_csv(clinic, dtype=str).drop(columns="stage").to_csv(tmp_path / "bare.csv", index=False)
    said = mil(*words, "--cohort", tmp_path / "bare.csv")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "has no column 'stage'" in said.err


def test_the_report_patients_covariates_change_no_weight_and_no_fitted_number(
    clinical_run: Path, clinic: Path, hospital: Path, tmp_path: Path
) -> None:
    split = pd.read_csv(clinical_run / "split.csv", dtype=str)
    reported = set(split.loc[split["role"] == "report", "patient"])
    table = pd.read_csv(clinic, dtype=str, keep_default_na=False)
    mine = table["patient"].isin(reported)
    table.loc[mine, ["age", "sex", "stage"]] = ["999", "M", "IV"]
    table.to_csv(tmp_path / "changed.csv", index=False)
    given = ["split=fixed", f"split.file={clinical_run / 'split.csv'}"]
    same = trained(hospital, tmp_path / "same", *given, cohort=clinic)
    other = trained(hospital, tmp_path / "other", *given, cohort=tmp_path / "changed.csv")
    weights = [(run / "checkpoint" / "weights.safetensors").read_bytes() for run in (clinical_run, same, other)]
    assert len(set(weights)) == 1
    first, second = (checkpoint.read_manifest(run / "checkpoint") for run in (same, other))
    assert first.covariates == second.covariates
    assert first.covariates is not None
    assert first.covariates.state["mean"] != [0.0]
    assert first.fitted == second.fitted
    before, after = (read(run / "predictions.csv").set_index("patient")["p_MSI-H"] for run in (same, other))
    moved = before.index[before != after]
    assert len(moved) > 0
    assert set(moved) <= reported


@pytest.fixture(scope="module")
def several_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions at once, with a decoder that has a query for each, and age beside."""
    words = [word for word in (*QUICK, *SMALL) if not word.startswith("model.")]
    chosen = ["tool=several", "model=decoder", "model.embed_dim=16", "model.heads=2", "split=holdout"]
    beside = ["simulation.patients=40", "+tool.covariates={numeric: [age]}"]
    folder = tmp_path_factory.mktemp("several") / "run"
    return run_quietly("train", *words, *chosen, *beside, f"hydra.run.dir={folder}")


def test_several_questions_are_learnt_scored_and_reported_together(several_run: Path) -> None:
    table, report = read(several_run / "predictions.csv"), files.read_json(several_run / "report.json")
    targets, scores = ["label", "time", "event", "score"], ["p_1", "log_hazard", "value"]
    assert list(table) == ["patient", "fold", "role", *targets, *scores, "simulated"]
    assert table["simulated"].all()
    raw = pd.read_csv(several_run / "predictions.csv", dtype=str)
    assert raw[targets].isna().any(axis=1).any(), "who lacks a target stays"
    assert raw[scores].notna().all(axis=None)
    assert next(iter(report["metrics"])) == "mean"
    assert {"class_auroc", "outcome_c_index", "amount_r2"} < set(report["metrics"])
    assert report["sections"]["oracle"]["metrics"]["mean"]["value"] > 0.5
    assert report["patients"]["n"] >= report["patients"].get("amount known", 0)
    card = (several_run / "checkpoint" / "README.md").read_text()
    assert all(name in card for name in scores)


def test_a_checkpoint_of_several_predicts_the_runs_own_numbers(several_run: Path, mil: Mil, tmp_path: Path) -> None:
    settings = read_config(several_run / "config.yaml")
    cohort = read_study(settings).source
    words = ["--cohort", cohort, "--features", cohort.parent / "features", "--out", tmp_path / "s.csv"]
    assert mil("predict", several_run / "checkpoint", *words).code == 0
    found, own = (read(at).set_index("patient") for at in (tmp_path / "s.csv", several_run / "predictions.csv"))
    for column in ("p_1", "log_hazard", "value"):
        assert found[column].to_dict() == own[column].to_dict()
    loaded = checkpoint.load(several_run / "checkpoint")
    assert loaded.manifest.model.options["groups"] == [1, 1, 1]


def test_patients_without_some_labels_stay_and_those_without_any_are_counted(
    hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    shutil.copytree(hospital / "features", tmp_path / "features")
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    patients = table["patient"].drop_duplicates().tolist()
    words = {patient: ("0" if at % 2 else "1", "1" if at % 3 else "0") for at, patient in enumerate(patients)}
    words |= {patients[0]: ("", "1"), patients[1]: ("", "NA")}
    for at, name in enumerate(("first", "second")):
        table[name] = [words[patient][at] for patient in table["patient"]]
    table.to_csv(tmp_path / "cohort.csv", index=False)
    given = [f"data.cohort={tmp_path}/cohort.csv", f"data.features={tmp_path}/features", "tool=multilabel"]
    said = mil("train", *HOSPITAL, *given, "split=holdout", "baseline=false", f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    assert f"1 of {len(patients)} patients are left out as they lack a label (first 1, second 1)" in said.err
    predicted = set(read(tmp_path / "run" / "predictions.csv")["patient"])
    assert predicted == set(patients) - {patients[1]}
