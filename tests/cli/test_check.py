"""`mil check`: everything that is wrong at once, for people and for programs; and what `mil train` says of it."""

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
    """The cohort's own copy, to be spoilt."""
    return shutil.copytree(hospital, tmp_path / "site")


def given(folder: Path) -> list[str]:
    return [f"data.cohort={folder}/cohort.csv", f"data.features={folder}/features"]


def document(said: Said) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said.out)
    return found


def codes(said: Said, severity: str) -> dict[str, int]:
    return {one["code"]: one["count"] for one in document(said)["findings"] if one["severity"] == severity}


def test_a_clean_cohort_is_told_as_a_table_or_as_one_json_document(
    hospital: Path, mil: Mil, table: pd.DataFrame
) -> None:
    plain, told = (mil("check", *HOLDOUT, *given(hospital), *words) for words in ([], ["--json"]))
    assert (plain.code, plain.err, told.code, told.err) == (0, "", 0, "")
    assert plain.out.rstrip().endswith("nothing is wrong")
    found = document(told)
    patients = table.drop_duplicates("patient")
    assert found["patients"] == {"n": 24} | patients["MSI"].value_counts().to_dict()
    assert found["slides"] == {"table": len(table), "files": len(table), "with_tiles": len(table)}
    assert found["labels"] == {"MSI": {"known": 24, "missing": 0}}
    counted = patients.groupby(["site", "MSI"]).size()
    assert {site: {name: n for name, n in own.items() if n} for site, own in found["sites"].items()} == {
        site: own.droplevel(0).to_dict() for site, own in counted.groupby("site")
    }
    sizes = [h5py.File(path)["features"].shape[0] for path in sorted((hospital / "features").rglob("*.h5"))]
    assert found["bags"]["n"] == 24
    assert sum(sizes) / len(sizes) <= found["bags"]["max"] <= sum(sizes)
    assert found["encoder"] == {"name": "simulated", "dim": 16, "verified": True}
    assert (found["geometry"]["mpp"], found["geometry"]["tile_px"]) == (0.5, 256)
    assert sum(found["split"][0][role] for role in ("train", "select", "report")) == 24
    assert (found["findings"], found["not_checked"], found["errors"], found["warnings"]) == ([], [], 0, 0)


def test_all_errors_are_told_at_once_and_what_could_not_be_looked_at(copy: Path, mil: Mil, table: pd.DataFrame) -> None:
    features, slides = copy / "features", table["slide"].tolist()
    (features / f"{slides[0]}.h5").unlink()
    (features / f"{slides[1]}.h5").write_bytes(b"no HDF5")
    write_trident(features / f"{slides[2]}.h5", np.zeros((0, 16), "float16"), encoder="simulated")
    write_trident(features / f"{slides[3]}.h5", random_features(5, 24), encoder="simulated")
    write_trident(features / "stranger.h5", random_features(5, 16), encoder="simulated")
    who = table["patient"].unique()[:2]
    table.assign(MSI=table["MSI"].mask(table["patient"].isin(who), "low")).to_csv(copy / "cohort.csv", index=False)
    said = mil("check", *HOLDOUT, *given(copy), "--json")
    assert said.code == 2
    assert codes(said, "error") == {"no-file": 1, "unreadable": 1, "empty": 1, "encoder": 1, "label": 2}
    assert codes(said, "warning") == {"no-slide": 1}
    assert document(said)["not_checked"] == ["model", "split"]
    assert said.err == f"mil: 1 of {len(slides)} slides have no feature file: '{slides[0]}' (the first of 5 errors)\n"
    plain = mil("check", *HOLDOUT, *given(copy))
    assert (plain.code, plain.err) == (2, said.err)
    assert all(one["message"] in plain.out for one in document(said)["findings"])
    assert "not checked, for want of what comes before: model, split" in plain.out


def test_a_broken_table_does_not_keep_the_files_from_being_read(copy: Path, mil: Mil, table: pd.DataFrame) -> None:
    (copy / "features" / f"{table['slide'][0]}.h5").write_bytes(b"no HDF5")
    several = table["patient"].duplicated()
    flipped = table["MSI"].map({"MSS": "MSI-H", "MSI-H": "MSS"})
    twice = pd.concat([table.assign(MSI=table["MSI"].mask(several, flipped)), table.iloc[-2:]])
    twice.to_csv(copy / "cohort.csv", index=False)
    said = mil("check", *HOLDOUT, *given(copy), "--json")
    assert codes(said, "error") == {
        "doubled-slide": 2,
        "label-differs": table.loc[several, "patient"].nunique(),
        "unreadable": 1,
    }
    assert document(said)["not_checked"] == ["labels", "split"]
    (copy / "cohort.csv").unlink()
    gone = mil("check", *HOLDOUT, *given(copy), "--json")
    assert codes(gone, "error") == {"cohort": 1, "unreadable": 1}
    assert gone.err.startswith(f"mil: {copy}/cohort.csv cannot be read")


def test_a_label_told_by_the_site_a_patient_of_two_sites_and_files_too_many_are_warnings(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    write_trident(copy / "features" / "stranger.h5", random_features(5, 16), encoder="simulated")
    several = table.loc[table["patient"].duplicated(), "slide"].iloc[0]
    site = np.where(table["slide"] == several, "far", np.where(table["MSI"] == "MSS", "near", "there"))
    table.assign(site=site).to_csv(copy / "cohort.csv", index=False)
    said = mil("check", *HOLDOUT, *given(copy), "--json")
    assert (said.code, said.err) == (1, "")
    assert codes(said, "warning") == {"no-slide": 1, "several-sites": 1, "site": 24}
    run = mil("train", *HOLDOUT, *given(copy), "baseline=false", f"hydra.run.dir={copy}/run")
    assert run.code == 0, run.err
    assert run.err.count("goes along with the site") == 1
    assert "goes along with the site" in (copy / "run" / "log.txt").read_text()


def test_slides_left_out_on_request_are_warnings_and_the_rest_is_looked_at(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    slides = table.loc[~table["patient"].duplicated(keep=False), "slide"].tolist()
    (copy / "features" / f"{slides[0]}.h5").unlink()
    (copy / "features" / f"{slides[1]}.h5").write_bytes(b"no HDF5")
    words = [*HOLDOUT, *given(copy), "data.on_missing=skip", "data.on_bad_bag=skip"]
    said = mil("check", *words, "--json")
    assert said.code == 1
    assert codes(said, "warning") == {"no-file": 1, "unreadable": 1, "left-out": 2}
    found = document(said)
    study = read_study(compose(words))
    assert found["patients"]["n"] == len(study.patients) == 22
    for slide in table["slide"].drop_duplicates():
        (copy / "features" / f"{slide}.h5").write_bytes(b"no HDF5")
    said = mil("check", *words, "--json")
    assert "nothing-left" in codes(said, "error")


OFTEN = ("msi-crc", "multilabel", "several", "survival")


@pytest.mark.parametrize(
    "tool", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in config.choices("tool")]
)
def test_what_is_checked_is_what_is_trained_on(tool: str) -> None:
    words = ["simulation.patients=80", "simulation.tiles=20", "simulation.width=8", "simulation.slides=1"]
    settings = compose([f"tool={tool}", *words, "split=holdout"])
    result, study = check_study(settings), read_study(settings)
    assert result.errors == []
    labels = result.reader.labels.value_or_raise()
    assert result.split is not None
    assert labels.target.equal(study.target) or labels.target.isnan().equal(study.target.isnan())
    pd.testing.assert_frame_equal(labels.patients, study.patients)
    assert result.split.digest() == split_study(settings, study).digest()


def test_contents_are_read_where_that_is_asked_for(copy: Path, mil: Mil, table: pd.DataFrame) -> None:
    alone = table.loc[~table["patient"].duplicated(keep=False), "slide"].tolist()
    nan, zero, same, one, other = (copy / "features" / f"{slide}.h5" for slide in alone[:5])
    with h5py.File(nan, "r+") as file:
        file["features"][:2, 2] = np.nan
    with h5py.File(zero, "r+") as file:
        file["features"][:3] = 0
    with h5py.File(same, "r+") as file:
        file["features"][:] = file["features"][0]
    shutil.copy(one, other)
    assert mil("check", *HOLDOUT, *given(copy)).code == 0, "headers show none of it"
    sides = table.assign(side=np.where(table["slide"] == alone[4], "test", np.where(table.index % 4, "train", "val")))
    sides["side"] = sides.groupby("patient")["side"].transform("first")
    sides.to_csv(copy / "cohort.csv", index=False)
    fixed = [*HOSPITAL, "split=fixed", "split.column=side", *given(copy), "--deep", "--json"]
    said = mil("check", *fixed)
    assert said.code == 2
    assert codes(said, "error") == {"not-finite": 1, "copies": 1}
    assert codes(said, "warning") | {"one-class": 1} == {"zero": 1, "constant": 1, "one-class": 1}
    assert f"'{alone[0]}'" in said.err
    told = {one["code"]: one for one in document(said)["findings"]}
    assert told["copies"]["first"] == [" = ".join(sorted(alone[3:5]))]
    assert "2 of " in told["not-finite"]["message"]
    soft = mil("check", *fixed, "data.on_bad_bag=skip")
    assert codes(soft, "warning")["not-finite"] == 1


def test_a_file_on_which_the_reading_process_dies_is_named(
    hospital: Path, mil: Mil, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_findings, "content", _dying)
    said = mil("check", *HOLDOUT, *given(hospital), "--deep")
    assert said.code == 2
    assert said.err == f"mil: {hospital}/features/{DEADLY}.h5 cannot be read: the process that reads it dies\n"


DEADLY = "P0003-1"


def _dying(store: Any, slide: str) -> content_findings.Content:
    if slide == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return content_findings.Content(sha256=slide, tiles=1)


def tcga(folder: Path, encoder: str = "phikon", width: int = 768) -> list[str]:
    """Twelve patients, of whom the first two are one person under two names."""
    rows = ["patient,slide,MSI,side"]
    for number in range(12):
        slide = f"TCGA-AA-{max(number, 1):04d}-01Z-00-DX{number}"
        write_trident(folder / "features" / f"{slide}.h5", random_features(4 + number, width), encoder=encoder)
        rows.append(
            f"p{number},{slide},{('MSS', 'MSI-H')[number // 2 % 2]},{'test' if number in (1, 6, 8) else 'train'}"
        )
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return given(folder)


def test_tcga_is_not_external_to_an_encoder_that_has_seen_it_and_barcodes_tell_one_person_on_two_sides(
    mil: Mil, tmp_path: Path
) -> None:
    words = [*HOSPITAL, *tcga(tmp_path), "split=fixed", "split.column=side"]
    said = mil("check", *words, "--json")
    assert said.code == 2
    assert codes(said, "error") == {"two-sides": 1}
    assert codes(said, "warning")["seen-by-encoder"] == 12
    assert said.err == "mil: fold 0: 1 patients, by their slides' barcodes, stand on two sides: 'TCGA-AA-0001'\n"
    run = mil("train", *words, f"hydra.run.dir={tmp_path}/run")
    assert (run.code, run.err) == (2, said.err)
    assert not (tmp_path / "run").exists()


def test_a_class_with_fewer_patients_than_folds_is_named(hospital: Path, mil: Mil, table: pd.DataFrame) -> None:
    said = mil("check", *HOSPITAL, "split.folds=12", *given(hospital))
    few = table.drop_duplicates("patient")["MSI"].value_counts()["MSI-H"]
    assert said.code == 2
    assert f"mil: class 'MSI-H' of MSI has {few} patients, expected at least 12 for 12 folds" in said.err


def test_training_tells_the_first_error_and_where_the_others_are_told(
    copy: Path, mil: Mil, table: pd.DataFrame
) -> None:
    (copy / "features" / f"{table['slide'][0]}.h5").unlink()
    words = [*HOLDOUT, *given(copy), f"hydra.run.dir={copy}/new/run"]
    said = mil("train", *words)
    assert said.code == 2
    assert said.err == f"mil: 1 of {len(table)} slides have no feature file: '{table['slide'][0]}'\n"
    (copy / "features" / f"{table['slide'][1]}.h5").write_bytes(b"no HDF5")
    said = mil("train", *words)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.endswith(" (the first of 2 errors; mil check with the same words shows all)\n")
    assert not (copy / "new").exists()


def test_a_fold_from_which_nothing_can_be_learnt_stops_training_before_the_first(
    hospital: Path, mil: Mil, table: pd.DataFrame, tmp_path: Path
) -> None:
    patients = table.drop_duplicates("patient")
    alike = (patients["MSI"] == "MSS") & (np.arange(len(patients)) % 2 > 0)
    folds = [np.where(alike == (fold == 0), "report", "train") for fold in (0, 1)]
    split = [pd.DataFrame({"patient": patients["patient"], "fold": k, "role": own}) for k, own in enumerate(folds)]
    pd.concat(split).to_csv(tmp_path / "split.csv", index=False)
    words = [*HOSPITAL, *given(hospital), "split=fixed", f"split.file={tmp_path}/split.csv"]
    for verb in ("check", "train"):
        said = mil(verb, *words, f"hydra.run.dir={tmp_path}/run")
        assert said.code == 2
        assert said.err.startswith("mil: fold 1: column MSI: all ")
        assert "training patients are 'MSS'" in said.err
    assert not (tmp_path / "run").exists()


def test_a_split_file_alone_is_looked_at(mil: Mil, tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text(
        "case,fold_1,fold_2\n" + "".join(f"p{n % 150},{'train' if n < 150 else 'val'},train\n" for n in range(264))
    )
    said = mil("check", "--split", path, "--id", "case")
    assert said.code == 2
    assert said.err.startswith("mil: fold fold_1: 114 patients stand on both sides (train and select 114): 'p0', 'p1'")
    assert said.err.endswith("'p106' and 104 more\n")
    rows = [line.split() for line in said.out.splitlines()[:3]]
    assert rows[1:] == [["fold_1", "150", "114", "0", "114"], ["fold_2", "150", "0", "0", "0"]]
    told = document(mil("check", "--split", path, "--id", "case", "--json"))
    assert [len(fold["both"].get("train and select", [])) for fold in told["folds"]] == [114, 0]
    assert (told["errors"], told["warnings"]) == (1, 0)
    clean = mil("check", "--split", path, "--id", "fold_2")
    assert clean.code == 2
    path.write_text("case,fold\np1,train\np2,test\n")
    assert mil("check", "--split", path, "--id", "case").code == 0


@pytest.mark.parametrize("words", [["--id", "x"], ["--split", "x", "model=mean"], ["--split", "x", "--deep"]])
def test_words_that_do_not_go_together_are_refused(words: list[str], mil: Mil) -> None:
    said = mil("check", *words)
    assert said.code == 2
    assert "--split" in said.err
