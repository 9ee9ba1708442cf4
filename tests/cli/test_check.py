"""`mil check` reports every problem at once, for people and for programs; `mil train` stops at the first."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from mil import config
from mil.study import content_findings
from mil.study.compose import compose
from mil.study.pipeline import check_study, read_study, split_study
from tests.conftest import HOSPITAL, Mil, Said
from tests.features.conftest import random_features, write_trident

HOLDOUT = [*HOSPITAL, "split=holdout"]


@pytest.fixture
def table(hospital: Path) -> pd.DataFrame:
    return pd.read_csv(hospital / "cohort.csv", dtype=str)


@pytest.fixture
def copy(hospital: Path, tmp_path: Path) -> Path:
    """Return a copy of the cohort that a test may spoil."""
    return shutil.copytree(hospital, tmp_path / "site")


def given(folder: Path) -> list[str]:
    return [f"data.cohort={folder}/cohort.csv", f"data.features={folder}/features"]


def document(result: Said) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(result.out)
    return answer


def codes(result: Said, severity: str) -> dict[str, int]:
    return {
        finding["code"]: finding["count"] for finding in document(result)["findings"] if finding["severity"] == severity
    }


def test_a_clean_cohort_is_described_as_a_table_or_as_one_json_document(
    hospital: Path, mil: Mil, table: pd.DataFrame
) -> None:
    plain, as_json = (mil("check", *HOLDOUT, *given(hospital), *words) for words in ([], ["--json"]))
    assert (plain.code, plain.err, as_json.code, as_json.err) == (0, "", 0, "")
    assert plain.out.rstrip().endswith("nothing is wrong")
    answer = document(as_json)
    patients = table.drop_duplicates("patient")
    assert answer["patients"] == {"n": 24} | patients["MSI"].value_counts().to_dict()
    assert answer["slides"] == {"table": len(table), "files": len(table), "with_tiles": len(table)}
    assert answer["labels"] == {"MSI": {"present": 24, "missing": 0}}
    counted = patients.groupby(["site", "MSI"]).size()
    assert {site: {name: n for name, n in counts.items() if n} for site, counts in answer["sites"].items()} == {
        site: counts.droplevel(0).to_dict() for site, counts in counted.groupby("site")
    }
    sizes = [h5py.File(path)["features"].shape[0] for path in sorted((hospital / "features").rglob("*.h5"))]
    assert answer["bags"]["n"] == 24
    assert sum(sizes) / len(sizes) <= answer["bags"]["max"] <= sum(sizes)
    assert answer["encoder"] == {"name": "simulated", "dim": 16, "verified": True}
    assert (answer["geometry"]["mpp"], answer["geometry"]["tile_px"]) == (0.5, 256)
    assert sum(answer["split"][0][role] for role in ("train", "select", "report")) == 24
    assert (answer["findings"], answer["not_checked"], answer["errors"], answer["warnings"]) == ([], [], 0, 0)


def test_all_errors_are_reported_at_once_with_what_could_not_be_checked(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    features, slides = copy / "features", table["slide"].tolist()
    (features / f"{slides[0]}.h5").unlink()
    (features / f"{slides[1]}.h5").write_bytes(b"no HDF5")
    write_trident(features / f"{slides[2]}.h5", np.zeros((0, 16), "float16"), encoder="simulated")
    write_trident(features / f"{slides[3]}.h5", random_features(5, 24), encoder="simulated")
    write_trident(features / "stranger.h5", random_features(5, 16), encoder="simulated")
    who = table["patient"].unique()[:2]
    table.assign(MSI=table["MSI"].mask(table["patient"].isin(who), "low")).to_csv(copy / "cohort.csv", index=False)
    result = mil("check", *HOLDOUT, *given(copy), "--json")
    assert result.code == 2
    assert codes(result, "error") == {"no-file": 1, "unreadable": 1, "empty": 1, "encoder": 1, "label": 2}
    assert codes(result, "warning") == {"no-slide": 1}
    assert document(result)["not_checked"] == ["model", "split"]
    missing = f"mil: 1 of {len(slides)} slides have no feature file; data.on_missing=skip leaves them out"
    assert result.err == f"{missing}: '{slides[0]}' (the first of 5 errors)\n"
    plain = mil("check", *HOLDOUT, *given(copy))
    assert (plain.code, plain.err) == (2, result.err)
    assert all(finding["message"] in plain.out for finding in document(result)["findings"])
    assert "not checked, for want of what comes before: model, split" in plain.out


def test_files_are_checked_although_the_table_is_broken(copy: Path, mil: Mil, table: pd.DataFrame) -> None:
    (copy / "features" / f"{table['slide'][0]}.h5").write_bytes(b"no HDF5")
    several = table["patient"].duplicated()
    flipped = table["MSI"].map({"MSS": "MSI-H", "MSI-H": "MSS"})
    twice = pd.concat([table.assign(MSI=table["MSI"].mask(several, flipped)), table.iloc[-2:]])
    twice.to_csv(copy / "cohort.csv", index=False)
    result = mil("check", *HOLDOUT, *given(copy), "--json")
    assert codes(result, "error") == {
        "doubled-slide": 2,
        "label-differs": table.loc[several, "patient"].nunique(),
        "unreadable": 1,
    }
    assert document(result)["not_checked"] == ["labels", "split"]
    (copy / "cohort.csv").unlink()
    gone = mil("check", *HOLDOUT, *given(copy), "--json")
    assert codes(gone, "error") == {"cohort": 1, "unreadable": 1}
    assert gone.err.startswith(f"mil: {copy}/cohort.csv cannot be read")


def test_a_label_associated_with_the_site_a_patient_of_two_sites_and_unknown_files_are_warnings(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    write_trident(copy / "features" / "stranger.h5", random_features(5, 16), encoder="simulated")
    several = table.loc[table["patient"].duplicated(), "slide"].iloc[0]
    site = np.where(table["slide"] == several, "far", np.where(table["MSI"] == "MSS", "near", "there"))
    table.assign(site=site).to_csv(copy / "cohort.csv", index=False)
    result = mil("check", *HOLDOUT, *given(copy), "--json")
    assert (result.code, result.err) == (1, "")
    assert codes(result, "warning") == {"no-slide": 1, "several-sites": 1, "site": 24}
    run = mil("train", *HOLDOUT, *given(copy), "baseline=false", f"hydra.run.dir={copy}/run")
    assert run.code == 0, run.err
    assert run.err.count("goes along with the site") == 1
    assert "goes along with the site" in (copy / "run" / "log.txt").read_text()


def test_slides_left_out_on_request_are_warnings_and_the_others_are_checked(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    slides = table.loc[~table["patient"].duplicated(keep=False), "slide"].tolist()
    (copy / "features" / f"{slides[0]}.h5").unlink()
    (copy / "features" / f"{slides[1]}.h5").write_bytes(b"no HDF5")
    words = [*HOLDOUT, *given(copy), "data.on_missing=skip", "data.on_bad_bag=skip"]
    result = mil("check", *words, "--json")
    assert result.code == 1
    assert codes(result, "warning") == {"no-file": 1, "unreadable": 1, "left-out": 2}
    answer = document(result)
    study = read_study(compose(words))
    assert answer["patients"]["n"] == len(study.patients) == 22
    for slide in table["slide"].drop_duplicates():
        (copy / "features" / f"{slide}.h5").write_bytes(b"no HDF5")
    result = mil("check", *words, "--json")
    assert "nothing-left" in codes(result, "error")


OFTEN = ("msi-crc", "multilabel", "several", "survival")


@pytest.mark.parametrize(
    "tool", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in config.choices("tool")]
)
def test_check_and_train_read_the_same_patients_targets_and_split(tool: str) -> None:
    words = ["simulation.patients=80", "simulation.tiles=20", "simulation.width=8", "simulation.slides=1"]
    settings = compose([f"tool={tool}", *words, "split=holdout"])
    checked, study = check_study(settings), read_study(settings)
    assert checked.errors == []
    labels = checked.reader.labels.value_or_raise()
    assert checked.split is not None
    assert labels.target.equal(study.target) or labels.target.isnan().equal(study.target.isnan())
    pd.testing.assert_frame_equal(labels.patients, study.patients)
    assert checked.split.digest() == split_study(settings, study).digest()


def test_deep_reads_the_features_too(copy: Path, mil: Mil, table: pd.DataFrame) -> None:
    alone = table.loc[~table["patient"].duplicated(keep=False), "slide"].tolist()
    nan, zero, same, original, duplicate = (copy / "features" / f"{slide}.h5" for slide in alone[:5])
    with h5py.File(nan, "r+") as file:
        file["features"][:2, 2] = np.nan
    with h5py.File(zero, "r+") as file:
        file["features"][:3] = 0
    with h5py.File(same, "r+") as file:
        file["features"][:] = file["features"][0]
    shutil.copy(original, duplicate)
    shallow = mil("check", *HOLDOUT, *given(copy), "--json")
    assert set(codes(shallow, "error")) | set(codes(shallow, "warning")) == {"copies"}, "headers show the copy alone"
    sides = table.assign(side=np.where(table["slide"] == alone[4], "test", np.where(table.index % 4, "train", "val")))
    sides["side"] = sides.groupby("patient")["side"].transform("first")
    sides.to_csv(copy / "cohort.csv", index=False)
    fixed = [*HOSPITAL, "split=fixed", "split.column=side", *given(copy), "--deep", "--json"]
    result = mil("check", *fixed)
    assert result.code == 2
    assert codes(result, "error") == {"not-finite": 1, "copies": 1}
    assert codes(result, "warning") | {"one-class": 1} == {"zero": 1, "constant": 1, "one-class": 1}
    assert f"'{alone[0]}'" in result.err
    by_code = {finding["code"]: finding for finding in document(result)["findings"]}
    assert by_code["copies"]["first"] == [" = ".join(sorted(alone[3:5]))]
    assert "2 of " in by_code["not-finite"]["message"]
    soft = mil("check", *fixed, "data.on_bad_bag=skip")
    assert codes(soft, "warning")["not-finite"] == 1


def test_a_file_on_which_the_reading_process_dies_is_named(
    hospital: Path, mil: Mil, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_findings, "content", _dying)
    result = mil("check", *HOLDOUT, *given(hospital), "--deep")
    assert result.code == 2
    assert result.err == f"mil: {hospital}/features/{DEADLY}.h5 cannot be read: the process that reads it dies\n"


DEADLY = "P0003-1"


def _dying(store: Any, slide: str) -> content_findings.Content:
    if slide == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return content_findings.Content(tiles=1)


def tcga(folder: Path, encoder: str = "phikon", width: int = 768) -> list[str]:
    """Write a cohort of twelve patients, of whom the first two are the same person under two ids."""
    rows = ["patient,slide,MSI,side"]
    for number in range(12):
        slide = f"TCGA-AA-{max(number, 1):04d}-01Z-00-DX{number}"
        write_trident(folder / "features" / f"{slide}.h5", random_features(4 + number, width), encoder=encoder)
        rows.append(
            f"p{number},{slide},{('MSS', 'MSI-H')[number // 2 % 2]},{'test' if number in (1, 6, 8) else 'train'}"
        )
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return given(folder)


def test_an_encoder_pretrained_on_tcga_is_a_warning_and_one_person_under_two_ids_on_two_sides_an_error(
    mil: Mil, tmp_path: Path
) -> None:
    words = [*HOSPITAL, *tcga(tmp_path), "split=fixed", "split.column=side"]
    result = mil("check", *words, "--json")
    assert result.code == 2
    assert codes(result, "error") == {"two-sides": 1}
    assert codes(result, "warning")["seen-by-encoder"] == 12
    assert result.err == "mil: fold 0: 1 patients, by their slides' barcodes, stand on two sides: 'TCGA-AA-0001'\n"
    run = mil("train", *words, f"hydra.run.dir={tmp_path}/run")
    assert (run.code, run.err) == (2, result.err)
    assert not (tmp_path / "run").exists()


def test_a_class_with_fewer_patients_than_folds_is_named(hospital: Path, mil: Mil, table: pd.DataFrame) -> None:
    result = mil("check", *HOSPITAL, "split.folds=12", *given(hospital))
    few = table.drop_duplicates("patient")["MSI"].value_counts()["MSI-H"]
    assert result.code == 2
    assert f"mil: class 'MSI-H' of MSI has {few} patients, expected at least 12 for 12 folds" in result.err


def test_training_stops_at_the_first_error_and_points_to_mil_check_for_the_others(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    (copy / "features" / f"{table['slide'][0]}.h5").unlink()
    words = [*HOLDOUT, *given(copy), f"hydra.run.dir={copy}/new/run"]
    result = mil("train", *words)
    assert result.code == 2
    missing = f"mil: 1 of {len(table)} slides have no feature file; data.on_missing=skip leaves them out"
    assert result.err == f"{missing}: '{table['slide'][0]}'\n"
    (copy / "features" / f"{table['slide'][1]}.h5").write_bytes(b"no HDF5")
    result = mil("train", *words)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.endswith(" (the first of 2 errors; mil check with the same words shows all)\n")
    assert not (copy / "new").exists()


def test_a_fold_of_one_class_stops_training_before_the_first_fold(
    hospital: Path, mil: Mil, table: pd.DataFrame, tmp_path: Path
) -> None:
    patients = table.drop_duplicates("patient")
    alike = (patients["MSI"] == "MSS") & (np.arange(len(patients)) % 2 > 0)
    folds = [np.where(alike == (fold == 0), "report", "train") for fold in (0, 1)]
    split = [pd.DataFrame({"patient": patients["patient"], "fold": k, "role": roles}) for k, roles in enumerate(folds)]
    pd.concat(split).to_csv(tmp_path / "split.csv", index=False)
    words = [*HOSPITAL, *given(hospital), "split=fixed", f"split.file={tmp_path}/split.csv"]
    for verb in ("check", "train"):
        result = mil(verb, *words, f"hydra.run.dir={tmp_path}/run")
        assert result.code == 2
        assert result.err.startswith("mil: fold 1: column MSI: all ")
        assert "training patients are 'MSS'" in result.err
    assert not (tmp_path / "run").exists()


def test_a_split_file_is_checked_alone(mil: Mil, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text(
        "case,fold_1,fold_2\n" + "".join(f"p{n % 150},{'train' if n < 150 else 'val'},train\n" for n in range(264))
    )
    result = mil("check", "--split", path, "--id", "case")
    assert result.code == 2
    assert result.err.startswith(
        "mil: fold fold_1: 114 patients stand on both sides (train and select 114): 'p0', 'p1'"
    )
    assert result.err.endswith("'p106' and 104 more\n")
    rows = [line.split() for line in result.out.splitlines()[:3]]
    assert rows[1:] == [["fold_1", "150", "114", "0", "114"], ["fold_2", "150", "0", "0", "0"]]
    answer = document(mil("check", "--split", path, "--id", "case", "--json"))
    assert [len(fold["both"].get("train and select", [])) for fold in answer["folds"]] == [114, 0]
    assert (answer["errors"], answer["warnings"]) == (1, 0)
    clean = mil("check", "--split", path, "--id", "fold_2")
    assert clean.code == 2
    path.write_text("case,fold\np1,train\np2,test\n")
    assert mil("check", "--split", path, "--id", "case").code == 0


@pytest.mark.parametrize("words", [["--id", "x"], ["--split", "x", "model=mean"], ["--split", "x", "--deep"]])
def test_options_that_exclude_each_other_are_refused(words: list[str], mil: Mil) -> None:
    result = mil("check", *words)
    assert result.code == 2
    assert "--split" in result.err


def test_slides_of_the_gdc_are_found_without_their_uuid_and_all_odd_labels_are_named(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    slide = table["slide"][0]
    file = next((copy / "features").rglob(f"{slide}.h5"))
    file.rename(file.with_name(f"{slide}.A44D70FA-4D96-43F4-9DD7-A61535786297.h5"))
    assert mil("check", *HOLDOUT, *given(copy)).code == 0
    odd = table["patient"].map(dict(zip(table["patient"].unique(), ["yes", "no", "no"], strict=False)))
    table.assign(MSI=odd.fillna(table["MSI"])).to_csv(copy / "cohort.csv", index=False)
    result = mil("check", *HOLDOUT, *given(copy))
    assert result.code == 2
    assert "of no class are 'no' (2), 'yes' (1): give them a meaning by data.labels.MSI={no: " in result.out
