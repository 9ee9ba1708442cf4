"""Nested folds: choosing from a sweep, and a fit that does not depend on labels of report patients."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mil import files
from mil.cli.select_command import select
from mil.errors import ConfigError
from mil.report.prediction_files import read
from mil.runs.states import read_states
from mil.runs.sweep_choice import chosen_by_outer_fold
from mil.study import build
from mil.study.compose import compose, read_config, write_config
from mil.study.pipeline import read_study, split_study
from mil.training.train import train
from tests.conftest import HOSPITAL, TINY
from tests.report.tables import refitted

NESTED = [word for word in TINY if not word.startswith(("model.", "split."))]
ONCE = ["trainer.max_epochs=1", "model.embed_dim=8", "resamples=5"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    """Return a sweep of two jobs with two outer parts and two inner folds; the second job's scores are random."""
    folder = tmp_path_factory.mktemp("sweep")
    settings = compose([*NESTED, *ONCE, "model=mean", "split=nested", "split.folds=2", "split.inner=2"])
    study, job, second_job = read_study(settings), folder / "0", folder / "1"
    split = split_study(settings, study)
    train(settings, study, split, job)
    split.write(job / "split.csv")
    files.write(job / "oracle.csv", (Path(str(study.truth)) / "truth.csv").read_bytes())
    write_config(job / "config.yaml", settings)
    shutil.copytree(job, second_job)
    table = read(job / "predictions.csv", study.endpoint.columns)
    score = next(str(name) for name in table if str(name).startswith("p_"))
    table.assign(**{score: np.random.default_rng(0).random(len(table))}).to_csv(
        second_job / "predictions.csv", index=False
    )
    write_config(second_job / "config.yaml", settings.replaced({"model._target_": "mil.models.abmil.ABMIL"}))
    return folder


def test_selected_run_reports_every_patient_once(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    select(sweep)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(sweep / "selected")
    assert [line.split(":")[0] for line in lines[:-1]] == ["outer part 0", "outer part 1", "job 0", "job 1"]
    out = sweep / "selected"
    selection = pd.read_csv(out / "selection.csv", dtype={"config": str})
    assert selection.groupby("outer")["chosen"].sum().tolist() == [1, 1]
    assert selection["options"].str.contains("model._target_=mil.models").all()
    table, jobs = read(out / "predictions.csv", ["label"]), {name: sweep / name for name in ("0", "1")}
    report = table[table["role"] == "report"]
    assert sorted(report["patient"]) == sorted(set(table["patient"]))
    score = next(str(name) for name in table if str(name).startswith("p_"))
    for outer, name in chosen_by_outer_fold(selection).items():
        source = read(jobs[name] / "predictions.csv")
        report_rows = source[source["fold"].isin([2 * outer, 2 * outer + 1]) & (source["role"] == "report")]
        expected = report_rows.groupby("patient")[score].mean()
        selected_scores = report[report["fold"] == outer].set_index("patient")[score]
        assert selected_scores.to_dict() == pytest.approx(expected.to_dict(), abs=1e-12)
    config = read_config(out / "config.yaml")
    assert config.model.target == "Pooling or ABMIL"
    evaluation = refitted(table, build.endpoint(config), config.tool.plain())
    assert len(evaluation.folds) == 2
    assert read_states(out) == evaluation.states, "states are fitted once, at selection"
    assert len(evaluation.reported) == 24
    assert (out / "oracle.csv").is_file()
    assert set(read(out / "baseline.csv")["fold"]) == {0, 1}


def test_selecting_again_changes_nothing(sweep: Path) -> None:
    select(sweep)
    before = {path.name: path.read_bytes() for path in (sweep / "selected").iterdir()}
    select(sweep)
    assert {path.name: path.read_bytes() for path in (sweep / "selected").iterdir()} == before


def test_jobs_with_different_endpoints_are_refused(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds 0 runs, expected two or more"):
        select(tmp_path)
    shutil.copytree(sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns("selected", "fold_*"))
    path = tmp_path / "sweep" / "1" / "config.yaml"
    write_config(path, read_config(path).replaced({"tool.endpoint.loss": "focal"}))
    with pytest.raises(ConfigError, match=r"jobs differ in tool\.endpoint\.loss"):
        select(tmp_path / "sweep")
    (tmp_path / "sweep" / "1" / "predictions.csv").unlink()
    with pytest.raises(ConfigError, match=r"1: holds no predictions\.csv, expected a finished run"):
        select(tmp_path / "sweep")


@pytest.fixture(scope="module")
def roles(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a split file that ignores the classes, so that a change of labels does not change roles."""
    patients = sorted(set(read(hospital / "cohort.csv")["patient"]))
    table = pd.DataFrame(
        {"patient": patients, "role": np.resize(["train", "select", "train", "report"], len(patients))}
    )
    path = tmp_path_factory.mktemp("roles") / "split.csv"
    table.to_csv(path, index=False)
    return path


def fit_and_read(hospital: Path, cohort: Path, roles: Path, folder: Path) -> tuple[bytes, Any, pd.DataFrame]:
    """Return the weights, the fitted state of the manifest, and the predictions."""
    given = [f"data.cohort={cohort}", f"data.features={hospital / 'features'}", f"split.file={roles}"]
    tool_options = ["++tool.calibration=platt", "++tool.conformal={coverage: 0.8}", "data.balance=loss"]
    settings = compose([*HOSPITAL, "split=fixed", *given, "baseline=false", *tool_options])
    study = read_study(settings)
    train(settings, study, split_study(settings, study), folder)
    manifest = files.read_json(folder / "checkpoint" / "manifest.json")
    table = read(folder / "predictions.csv", ["label", *study.endpoint.columns])
    return (folder / "checkpoint" / "weights.safetensors").read_bytes(), manifest["fitted"], table


def test_labels_of_report_patients_do_not_change_the_fit(hospital: Path, roles: Path, tmp_path: Path) -> None:
    cohort = read(hospital / "cohort.csv", read(hospital / "cohort.csv").columns)
    role = cohort["patient"].map(read(roles).set_index("patient")["role"])
    [label] = build.endpoint(compose([*HOSPITAL])).columns
    words = sorted(set(cohort[label]))
    swapped = {words[0]: words[1], words[1]: words[0]}
    results = {}
    for side in ("report", "train"):
        changed = cohort.assign(**{label: cohort[label].where(role != side, cohort[label].map(swapped))})
        changed.to_csv(tmp_path / f"{side}.csv", index=False)
        results[side] = fit_and_read(hospital, tmp_path / f"{side}.csv", roles, tmp_path / side)
    weights, state, table = fit_and_read(hospital, hospital / "cohort.csv", roles, tmp_path / "as_is")
    assert results["report"][0] == weights
    assert results["report"][1] == state
    scores = [name for name in table if str(name).startswith("p_")]
    pd.testing.assert_frame_equal(results["report"][2][scores], table[scores], check_exact=True)
    assert not results["report"][2][table["role"] == "report"].equals(table[table["role"] == "report"])
    assert results["train"][0] != weights, "the comparison can fail"
    assert results["train"][1] != state
