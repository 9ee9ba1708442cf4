"""What a run folder holds, what it depends on, and what it does not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from mil import checkpoint, files
from mil.report.prediction_files import read
from tests.conftest import HOSPITAL, QUICK, SMALL, TINY, Mil, run_quietly

SCORES = {"crc_run": ["p_MSI-H"], "surv_run": ["log_hazard", "risk_1y", "risk_3y", "risk_5y"], "real_run": ["p_MSI-H"]}
TARGETS = {"crc_run": ["MSI"], "surv_run": ["time", "event"], "real_run": ["MSI"]}
NEEDED = "expected 20 patients, and 10 of each class or 10 events"
TOO_FEW = f"too few for a verdict: 6 patients, 2 positives, 4 negatives, {NEEDED}"
"""Why a difference on the report patients of one fold has no interval; those of several folds are judged over folds."""
RUNS = pytest.mark.parametrize("run", list(SCORES))


def weights(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("weights.safetensors"))}


def fitted(run: Path) -> dict[str, object]:
    return {str(at): json.loads(at.read_text())["fitted"] for at in sorted(run.rglob("manifest.json"))}


@RUNS
def test_a_run_folder_holds_what_it_promises(run: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(run)
    names = [
        "config.yaml",
        "split.csv",
        "predictions.csv",
        "baseline.csv",
        "report.json",
        "report.html",
        "patients.csv",
        "looks.json",
        "manifests.json",
        "log.txt",
    ]
    assert all((folder / name).exists() for name in names)
    assert (folder / "oracle.csv").exists() == (run != "real_run")
    places = [folder / "checkpoint"] if run == "real_run" else [folder / f"fold_{k}" / "checkpoint" for k in (0, 1)]
    for place in places:
        held = sorted(path.name for path in place.iterdir())
        page = ["report.html"] if run == "real_run" else []  # of several folds the page is the run's
        card = ["README.md", "model_card.html", "LICENSE-weights.txt"]
        assert held == sorted([*card, "manifest.json", "report.json", "weights.safetensors", *page])
        checkpoint.load(place)
    assert not list(folder.rglob("last.ckpt")), "what resuming needs is gone"
    assert "epoch 2 of 2" in (folder / "log.txt").read_text()
    said = OmegaConf.load(folder / "config.yaml")
    assert said.trainer.max_epochs == 2
    assert "${" not in (folder / "config.yaml").read_text(), "everything is resolved"


@RUNS
def test_predictions_have_every_patient_once_a_fold_in_the_splits_role(
    run: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(run)
    table, split = read(folder / "predictions.csv"), read(folder / "split.csv")
    simulated = [] if run == "real_run" else ["simulated"]
    assert list(table) == ["patient", "fold", "role", *TARGETS[run], *SCORES[run], *simulated]
    assert all(table[name].all() for name in simulated)
    assert not table.duplicated(["patient", "fold"]).any()
    keys = ["patient", "fold", "role"]
    assert set(table[keys].itertuples(index=False)) == set(split[keys].itertuples(index=False))
    assert np.isfinite(table[SCORES[run]].to_numpy()).all()
    if run != "real_run":
        assert sorted(table.loc[table["role"] == "report", "patient"]) == sorted(set(table["patient"]))


@RUNS
def test_every_number_of_the_report_has_its_interval_and_its_counts(run: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(run)
    report, table = files.read_json(folder / "report.json"), read(folder / "predictions.csv", TARGETS[run])
    reported = table[table["role"] == "report"].drop_duplicates("patient")
    counted = {"n": len(reported)}
    if run == "surv_run":
        counted["events"] = int((reported["event"].astype(float) == 1).sum())
    else:
        counted |= {name: int((reported["MSI"] == name).sum()) for name in ("MSS", "MSI-H")}
    blocks = [
        report["metrics"],
        report["sections"]["baseline"]["metrics"],
        report["sections"]["baseline"]["difference"],
    ]
    blocks += [] if run == "real_run" else [report["sections"]["oracle"]["metrics"]]
    for block in blocks:
        assert block
        for found in block.values():
            assert found["counts"] == counted
            assert found["level"] == 0.95
            if run == "real_run" and block is report["sections"]["baseline"]["difference"]:
                assert found.keys().isdisjoint(("low", "high", "p"))
                assert found["reason"] == TOO_FEW
            else:
                assert found["low"] <= found["high"]
    assert report["about"]["simulated"] == (run != "real_run")
    assert report["folds"] == (1 if run == "real_run" else 2)


def words_of(hospital: Path, cohort: Path | None = None, features: Path | None = None) -> list[str]:
    return [
        *HOSPITAL,
        "baseline=false",
        f"data.cohort={cohort or hospital / 'cohort.csv'}",
        f"data.features={features or hospital / 'features'}",
    ]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    hospital: Path, real_run: Path, tmp_path: Path
) -> None:
    again = run_quietly("train", *words_of(hospital), "split=holdout", f"hydra.run.dir={tmp_path}/again")
    assert weights(again) == weights(real_run)
    other = run_quietly("train", *words_of(hospital), "split=holdout", "seed=1", f"hydra.run.dir={tmp_path}/other")
    assert weights(other) != weights(real_run)


def given(
    hospital: Path, real_run: Path, folder: Path, cohort: Path | None = None, features: Path | None = None
) -> Path:
    """`given_back` with another table or other features."""
    split = ["split=fixed", f"split.file={real_run / 'split.csv'}"]
    return run_quietly("train", *words_of(hospital, cohort, features), *split, f"hydra.run.dir={folder}")


def test_a_split_given_back_gives_the_same_split_and_the_same_weights(given_back: Path, real_run: Path) -> None:
    assert (given_back / "split.csv").read_bytes() == (real_run / "split.csv").read_bytes()
    assert weights(given_back) == weights(real_run)
    assert (given_back / "predictions.csv").read_bytes() == (real_run / "predictions.csv").read_bytes()


def unseen(run: Path, patients: list[str]) -> pd.DataFrame:
    table = read(run / "predictions.csv")
    return table[~table["patient"].isin(patients)].reset_index(drop=True)


def reported(run: Path) -> list[str]:
    table = read(run / "split.csv")
    return sorted(table.loc[table["role"] == "report", "patient"])


def test_the_report_patients_labels_change_no_weight_no_threshold_and_no_fitted_number(
    hospital: Path, real_run: Path, given_back: Path, tmp_path: Path
) -> None:
    patients = reported(real_run)
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    flipped = table["MSI"].map({"MSS": "MSI-H", "MSI-H": "MSS"})
    table["MSI"] = table["MSI"].where(~table["patient"].isin(patients), flipped)
    table.to_csv(tmp_path / "flipped.csv", index=False)
    run = given(hospital, real_run, tmp_path / "run", cohort=tmp_path / "flipped.csv")
    assert weights(run) == weights(given_back)
    assert list(fitted(run).values()) == list(fitted(given_back).values())
    pd.testing.assert_frame_equal(unseen(run, patients), unseen(given_back, patients), check_exact=True)
    ours, theirs = (read(at / "predictions.csv").set_index("patient") for at in (run, given_back))
    assert (ours.loc[patients, "MSI"] != theirs.loc[patients, "MSI"]).all(), "the labels did change"


def test_the_report_patients_features_change_no_weight_no_threshold_and_no_fitted_number(
    hospital: Path, real_run: Path, given_back: Path, tmp_path: Path
) -> None:
    patients = reported(real_run)
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    own = table.loc[table["patient"].isin(patients), "slide"].tolist()
    features = shutil.copytree(hospital / "features", tmp_path / "features")
    for slide, other in zip(own, own[1:] + own[:1], strict=True):
        shutil.copy(hospital / "features" / f"{other}.h5", features / f"{slide}.h5")
    run = given(hospital, real_run, tmp_path / "run", features=features)
    assert weights(run) == weights(given_back)
    assert list(fitted(run).values()) == list(fitted(given_back).values())
    pd.testing.assert_frame_equal(unseen(run, patients), unseen(given_back, patients), check_exact=True)
    ours, theirs = (read(at / "predictions.csv").set_index("patient") for at in (run, given_back))
    assert (ours.loc[patients, "p_MSI-H"] != theirs.loc[patients, "p_MSI-H"]).any(), "the features did change"


def test_resuming_a_finished_run_changes_nothing(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    copy = shutil.copytree(crc_run, tmp_path / "run")
    assert mil("train", "--resume", copy).code == 0
    ignored = {"log.txt", ".lock", "looks.json"}
    for path in crc_run.rglob("*"):
        if path.is_file() and path.name not in ignored:
            assert (copy / path.relative_to(crc_run)).read_bytes() == path.read_bytes(), path
    assert {path.name for path in copy.rglob("*")} == {path.name for path in crc_run.rglob("*")}


def test_resuming_what_is_no_run_or_with_other_words_is_refused(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    said = mil("train", "--resume", tmp_path)
    assert (said.code, said.err) == (2, f"mil: --resume {tmp_path}: holds no config.yaml, expected a run folder\n")
    said = mil("train", "--resume", crc_run, "seed=3")
    assert said.code == 2
    assert "found 'seed=3' beside it" in said.err


def test_a_folder_with_another_run_is_refused_and_left_alone(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    copy = shutil.copytree(crc_run, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    said = mil("train", *TINY, "model.embed_dim=32", f"hydra.run.dir={copy}")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "holds a run with model.embed_dim=16, found model.embed_dim=32; expected a new folder" in said.err
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_a_folder_in_use_is_refused(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    copy = shutil.copytree(crc_run, tmp_path / "run")
    with files.locked(copy):
        for words in (["--resume", copy], [*TINY, f"hydra.run.dir={copy}"]):
            said = mil("train", *words)
            assert (said.code, said.err.count("\n")) == (2, 1)
            assert "is in use by another process" in said.err
    assert weights(copy) == weights(crc_run)


def test_a_split_file_that_a_killed_process_left_alone_is_not_taken(hospital: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    patients = pd.read_csv(hospital / "cohort.csv", dtype=str)["patient"].drop_duplicates()
    pd.DataFrame({"patient": patients, "fold": 0, "role": "train"}).to_csv(folder / "split.csv", index=False)
    words = ["train", *words_of(hospital), "split=holdout", f"hydra.run.dir={folder}"]
    before = (folder / "split.csv").read_bytes()
    with pytest.raises(AssertionError, match=r"holds split\.csv, expected a new folder"):
        run_quietly(*words)
    assert (folder / "split.csv").read_bytes() == before, "without the lock of a run it is somebody's own"
    (folder / ".lock").touch()
    run_quietly(*words)
    assert set(read(folder / "split.csv")["role"]) == {"train", "select", "report"}


def test_words_that_cannot_be_leave_nothing_behind(mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "results").mkdir()
    for words in (
        ["model.droput=0.1"],
        ["modle=abmil"],
        ["tool=msi"],
        ["optimizer.lr=nan"],
        ["trainer.max_epochs=0"],
        ["data.batch_bags=0"],
        ["model.dropout=2", "hydra.run.dir=results/a/b"],
        ["data.cohort=none.csv", "data.features=none", "hydra.run.dir=results/a/b"],
        ["data.cohort=none.csv", "data.features=none"],
        ["-m", "modle=abmil,mean"],
    ):
        said = mil("train", *TINY, *words)
        assert (said.code, said.err.count("\n")) == (2, 1), said.err
        assert [path.relative_to(place).name for path in place.rglob("*")] == ["results"], words


def test_a_run_that_fails_before_its_first_epoch_leaves_nothing_behind(
    mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mil.errors import FeatureError
    from mil.training import train_network

    def broken(*_: object) -> None:
        raise FeatureError("slide s1: broken")

    monkeypatch.setattr(train_network, "_trainer", broken)
    said = mil("train", *TINY, f"hydra.run.dir={tmp_path}/new/run")
    assert said.code == 2
    assert said.err.splitlines()[-1] == "mil: slide s1: broken"
    assert list(tmp_path.iterdir()) == []


def test_cfg_job_prints_the_configuration_wherever_it_stands(
    mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = mil("train", "--cfg", "job", "model=mean", "seed=3")
    amid = mil("train", "model=mean", "--cfg", "job", "seed=3")
    assert (first.code, amid.code) == (0, 0)
    assert OmegaConf.create(first.out).seed == 3
    assert first.out == amid.out
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_folder_of_choices_and_odd_paths_work_from_training_to_resuming(
    hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    odd = tmp_path / 'it\'s a=b, "ü" [1]'
    (odd / "conf" / "tool").mkdir(parents=True)
    (odd / "conf" / "tool" / "ours.yaml").write_text(
        "# @package _global_\ntool:\n  name: ours\n  version: 1.0.0\n  title: Unsere Frage\n  category: custom\n"
        "  question: Was?\n  endpoint:\n    _target_: mil.endpoints.classification.Binary\n    column: MSI\n"
        "    classes: [MSS, MSI-H]\n  decision:\n    rule: youden\n"
    )
    shutil.copytree(hospital / "features", odd / "features")
    shutil.copy(hospital / "cohort.csv", odd / "cohort.csv")
    given = [f"data.cohort={odd}/cohort.csv", f"data.features={odd}/features", f"hydra.run.dir={odd}/run 1"]
    own = ["--config-dir", odd / "conf", "tool=ours", "split=holdout", "baseline=false"]
    said = mil("train", *HOSPITAL, *own, *given)
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == str(odd / "run 1")
    assert mil("train", "--resume", odd / "run 1").code == 0
    assert mil("evaluate", odd / "run 1").code == 0
    again = mil("train", *HOSPITAL, *own, *given)
    assert again.code == 0, "the same words go on with the same run"
    assert "epoch" not in again.err
    refused = mil("train", *HOSPITAL, *own, *given, "tool=outs")
    assert "tool=outs does not exist, did you mean 'ours'?" in refused.err


def test_several_classes_and_a_process_that_reads_ahead_work(mil: Mil, tmp_path: Path) -> None:
    words = ["tool=multiclass", "split=holdout", "data.workers=1", "trainer.max_epochs=1", "baseline=false"]
    said = mil("train", *QUICK[1:], *SMALL, *words, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    table = read(tmp_path / "run" / "predictions.csv")
    assert table[["p_0", "p_1", "p_2"]].sum(axis=1).to_numpy() == pytest.approx(1)
