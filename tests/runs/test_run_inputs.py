"""What a run was begun with is compared when it goes on, when it is evaluated and when it is released."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pytest

from mil import files
from mil.errors import ConfigError, FeatureError
from mil.features.fingerprints import fingerprint
from mil.features.store import FeatureStore
from mil.runs.fit_run import _claimed
from mil.runs.run_inputs import remarks_of
from mil.runs.trained_patients import trained_patients
from mil.training.module import MILModule
from tests.conftest import HOSPITAL, Mil, run_quietly

IGNORED = ("log.txt", ".lock")
WORDS = [*HOSPITAL, "split=holdout", "baseline=false"]


@pytest.fixture(scope="module")
def begun(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a cohort of its own and a run that was stopped in its second epoch."""
    place = tmp_path_factory.mktemp("begun") / "site"
    shutil.copytree(hospital, place)
    start = MILModule.on_train_batch_start

    def stop(self: MILModule, batch: Any, batch_idx: int) -> None:
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        start(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(MILModule, "on_train_batch_start", stop)
        with pytest.raises(AssertionError, match="continue with: mil train --resume"):
            run_quietly("train", *WORDS, "data.cohort=cohort.csv", "data.features=features", "hydra.run.dir=run")
    return place


@pytest.fixture
def site(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = shutil.copytree(begun, tmp_path / "site")
    config = (copy / "run" / "config.yaml").read_text()
    (copy / "run" / "config.yaml").write_text(config.replace(str(begun), str(copy)))
    record = files.read_json(copy / "run" / "inputs.json")
    record["files"]["config.yaml"] = files.sha256(copy / "run" / "config.yaml")
    files.write_json(copy / "run" / "inputs.json", record)
    monkeypatch.chdir(copy)
    return copy


def test_an_unchanged_run_goes_on(site: Path, mil: Mil) -> None:
    os.utime(sorted((site / "features").glob("*.h5"))[0])
    said = mil("train", "--resume", "run")
    assert said.code == 0, said.err
    assert "1 feature files are newer than the run, with the same content" in said.err
    assert files.read_json(site / "run" / "report.json").get("remarks") is None


def test_flipped_labels_are_refused_or_accepted_and_reported(site: Path, mil: Mil) -> None:
    table = pd.read_csv("cohort.csv", dtype=str)
    first = table["patient"].iloc[0]
    rows = table["patient"] == first
    table.loc[rows, "MSI"] = "MSS" if table.loc[rows, "MSI"].iloc[0] == "MSI-H" else "MSI-H"
    table.to_csv("cohort.csv", index=False)
    before = {path: path.stat().st_mtime_ns for path in (site / "run").rglob("*") if path.name not in IGNORED}
    said = mil("train", "--resume", "run")
    assert said.code == 2
    sentence = f"data.cohort is not what it was; 1 of 24 patients have other labels, slides or covariates: '{first}'"
    assert said.err.splitlines()[-1].startswith(f"mil: run: {sentence}: ")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    said = mil("train", "--resume", "run", "--accept-changes")
    assert said.code == 0, said.err
    remarks = files.read_json(site / "run" / "report.json")["remarks"]
    assert len(remarks) == 1
    assert "although its inputs had changed since it began" in remarks[0]
    assert first in remarks[0]
    assert "WARNING: The run went on" in mil("evaluate", "run").out


def test_features_of_another_extraction_are_refused(site: Path, mil: Mil) -> None:
    path = sorted((site / "features").glob("*.h5"))[0]
    with h5py.File(path, "r+") as file:
        file["features"][...] = file["features"][...] + 1
    said = mil("train", "--resume", "run")
    assert said.code == 2
    assert f"1 of {len(list((site / 'features').glob('*.h5')))} feature files are not what they were" in said.err
    assert path.stem in said.err


def test_a_changed_split_or_option_is_refused(site: Path, mil: Mil) -> None:
    split = site / "run" / "split.csv"
    split.write_text(split.read_text().replace("report", "@").replace("train", "report", 1).replace("@", "report"))
    config = site / "run" / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 2", "max_epochs: 3"))
    said = mil("train", "--resume", "run")
    assert said.code == 2
    assert "split.csv is not what it was; config.yaml is not what it was" in said.err


def test_features_that_change_while_training_reads_them_stop_it(
    site: Path, mil: Mil, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, touched = MILModule.on_train_batch_start, list(site.glob("features/*.h5"))

    def touch(self: MILModule, batch: Any, batch_idx: int) -> None:
        for path in touched:
            os.utime(path, ns=(1, 1))
        start(self, batch, batch_idx)

    monkeypatch.setattr(MILModule, "on_train_batch_start", touch)
    words = ["data.cohort=cohort.csv", "data.features=features", "data.memory=0", "hydra.run.dir=new"]
    said = mil("train", *WORDS, *words)
    assert said.code == 2
    assert "has changed while it was in use" in said.err.splitlines()[-1]


def test_changed_predictions_are_said_by_evaluate_and_release(real_run: Path, mil: Mil, tmp_path: Path) -> None:
    copy = shutil.copytree(real_run, tmp_path / "run")
    assert "predictions.csv is not" not in mil("evaluate", copy).out
    table = pd.read_csv(copy / "predictions.csv", dtype=str)
    table["p_MSI-H"] = table["p_MSI-H"].to_numpy()[::-1]
    table.to_csv(copy / "predictions.csv", index=False)
    said = mil("evaluate", copy)
    assert "WARNING: predictions.csv is not what training wrote on" in said.out
    said = mil("release", copy, "--version", "1.0.0", "--out", tmp_path / "zoo")
    assert "warning: predictions.csv is not what training wrote on" in said.err
    released = next((tmp_path / "zoo").glob("*/report.json"))
    assert "is not what training wrote" in files.read_json(released)["remarks"][0]


def test_changed_or_missing_files_of_a_run_are_said(real_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(real_run, tmp_path / "run")
    assert remarks_of(run) is None
    for name in ("config.yaml", "split.csv", "patients.csv"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content + b"\n")
        assert remarks_of(run) == (f"{name} is not what the run began with: it was changed.",)
        (run / name).unlink()
        assert remarks_of(run) == (f"{name}, which the run began with, is missing.",)
        (run / name).write_bytes(content)
    (run / "looks.json").unlink()
    remarks = remarks_of(run)
    assert remarks is not None
    assert "whether predictions.csv is what it wrote cannot be known" in remarks[0]


def test_a_comparison_says_that_a_run_was_changed(real_run: Path, mil: Mil, tmp_path: Path) -> None:
    copies = [shutil.copytree(real_run, tmp_path / name) for name in ("a", "b")]
    (copies[1] / "split.csv").write_bytes((copies[1] / "split.csv").read_bytes() + b"\n")
    said = mil("compare", *copies, "--resamples", "10")
    assert f"warning: {copies[1]}: split.csv is not what the run began with" in said.err
    assert f"{copies[0]}:" not in said.err


def test_patients_of_the_run_are_known_in_another_spelling(real_run: Path, hospital: Path) -> None:
    patients = pd.read_csv(hospital / "cohort.csv", dtype=str)["patient"].unique()
    store = FeatureStore(hospital / "features")
    for respelled in (str.lower, lambda name: name.replace("-", "."), lambda name: f"{name}\u200b"):
        sentences = trained_patients(real_run / "checkpoint", set(map(respelled, patients)), store, [])
        assert f"{len(patients)} of {len(patients)} patients took part in the run" in sentences[0]
    assert trained_patients(real_run / "checkpoint", {"somebody else"}, store, []) == ()


def test_an_evaluation_on_patients_of_the_run_says_how_many(
    real_run: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    table["patient"] = "other-" + table["patient"]
    renamed = tmp_path / "renamed.csv"
    table.to_csv(renamed, index=False)
    words = ["evaluate", real_run / "checkpoint", "--features", hospital / "features"]
    said = mil(*words, "--cohort", hospital / "cohort.csv", "--out", tmp_path / "a")
    assert said.code == 0, said.err
    assert "24 of 24 patients took part in the run that trained this checkpoint" in said.err
    assert len(files.read_json(tmp_path / "a" / "report.json")["remarks"]) == 2
    said = mil(*words, "--cohort", renamed, "--out", tmp_path / "b")
    assert "patients took part" not in said.err
    assert f"{len(table)} of {len(table)} slides have the features of slides of the run that trained" in said.err


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_evaluation_on_a_packed_copy_of_the_slides_says_how_many(
    real_run: Path, hospital: Path, mil: Mil, tmp_path: Path, dtype: str
) -> None:
    said = mil("convert", hospital / "features", tmp_path / "packed.h5", "--dtype", dtype)
    assert said.code == 0, said.err
    slides = FeatureStore(tmp_path / "packed.h5").slides
    sentences = trained_patients(
        real_run / "checkpoint", {"somebody else"}, FeatureStore(tmp_path / "packed.h5"), slides
    )
    assert len(sentences) == 1
    assert sentences[0].startswith(f"{len(slides)} of {len(slides)} slides have the features of slides of the run")


def test_an_edited_manifest_is_said_by_evaluate_and_release(real_run: Path, mil: Mil, tmp_path: Path) -> None:
    run = shutil.copytree(real_run, tmp_path / "run")
    assert "is not what training wrote" not in mil("evaluate", run).out
    path = run / "checkpoint" / "manifest.json"
    manifest = files.read_json(path)
    manifest["fitted"]["decisions"][0]["cuts"] = [0.123]
    manifest["training"]["best_epoch"] = 77
    files.write_json(path, manifest)
    sentence = "checkpoint/manifest.json is not what training wrote: 'fitted', 'training' changed since."
    for _ in range(2):  # the second time the manifest has been sealed again
        assert f"WARNING: {sentence}" in mil("evaluate", run).out
    assert f"warning: {sentence}" in mil("release", run, "--version", "1.0.0", "--out", tmp_path / "zoo").err
    released = next((tmp_path / "zoo").glob("*/report.json"))
    assert sentence in files.read_json(released)["remarks"]
    (run / "manifests.json").unlink()
    assert "manifests.json is missing" in mil("evaluate", run).out


def test_other_weights_with_a_fitting_manifest_are_said(real_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(real_run, tmp_path / "run")
    weights, path = run / "checkpoint" / "weights.safetensors", run / "checkpoint" / "manifest.json"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    manifest = files.read_json(path)
    manifest["files"]["weights.safetensors"] = files.sha256(weights)
    files.write_json(path, manifest)
    assert remarks_of(run) == ("checkpoint/manifest.json is not what training wrote: 'weights' changed since.",)


def _fail_while_a_second_process_tries(run: Path) -> None:
    with _claimed(run, begun=False, always_new=False) as place:
        (place / "log.txt").write_text("of the first")
        with pytest.raises(ConfigError, match="in use by another process"), _claimed(run, False, False):
            pass
        assert (place / "log.txt").read_text() == "of the first"
        raise FeatureError("the first fails by itself")


def test_only_who_holds_the_lock_removes_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="by itself"):
        _fail_while_a_second_process_tries(tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []


def test_default_names_are_unique(tmp_path: Path) -> None:
    with _claimed(tmp_path / "2026", False, True) as first, _claimed(tmp_path / "2026", False, True) as second:
        assert (first.name, second.name) == ("2026", "2026-2")


def test_a_fingerprint_sees_every_part_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    content = bytearray(os.urandom(1_000_000))
    path.write_bytes(content)
    before = fingerprint(path)
    assert before.has_same_content(fingerprint(path))
    for place in (0, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert not before.has_same_content(fingerprint(path))
    path.write_bytes(content + b"0")
    assert not before.has_same_content(fingerprint(path))
