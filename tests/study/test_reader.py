"""Stages of reading a study: a failed stage does not stop independent ones, and each stage runs once."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from mil.cohort.clinical_table import Cohort
from mil.cohort.columns import Columns
from mil.cohort.covariates import Covariates
from mil.endpoints.classification import Binary
from mil.errors import ConfigError, FeatureError, SplitError
from mil.features.formats import Reading
from mil.features.store import FeatureStore
from mil.splits.folds import HoldOut, KFold
from mil.study.pipeline import read_source, split_by
from mil.study.reader import StudyReader
from mil.study.source import StudySource
from tests.features.test_producers import PRODUCERS, SMALL, TCGA


@pytest.fixture
def source(hospital: Path, tmp_path: Path) -> StudySource:
    """Return the source of a copy of the cohort, made from Python without a configuration."""
    folder = shutil.copytree(hospital, tmp_path / "site")
    return StudySource(folder / "cohort.csv", folder / "features", Binary("MSI", classes=["MSS", "MSI-H"]))


def slide_file(source: StudySource, place: int) -> Path:
    """Return the file of a slide whose patient has no other slide."""
    table = pd.read_csv(source.cohort, dtype=str)
    return source.features / f"{table.loc[~table['patient'].duplicated(keep=False), 'slide'].iloc[place]}.h5"


def recording(name: str, method: Callable[..., object], calls: list[str]) -> Callable[..., object]:
    """Return the method wrapped so that each call appends its name to `calls`."""

    def call(*arguments: object, **options: object) -> object:
        calls.append(name)
        return method(*arguments, **options)

    return call


def untried_stages(reader: StudyReader) -> list[str]:
    return [name for name, stage in reader.stages() if stage.untried]


def test_study_is_read_and_split_without_a_configuration(source: StudySource) -> None:
    study = read_source(source)
    assert study.findings == ()
    assert len(study.patients) == len(study.target) == len(study.bags) == 24
    assert list(study.patients.index) == sorted(study.patients.index)
    split = split_by(HoldOut(), study, seed=0)
    assert sorted(set(split.table["role"])) == ["report", "select", "train"]
    with pytest.raises(SplitError, match=r"class 'MSS' of MSI has 14 patients, expected at least 20 for 20 folds"):
        split_by(KFold(20), study, seed=0)


def test_files_are_checked_if_the_table_is_unreadable(source: StudySource) -> None:
    slide_file(source, 0).write_bytes(b"no HDF5")
    source.cohort.unlink()
    reader = StudyReader(source)
    codes = {name: [finding.code for finding in stage.errors] for name, stage in reader.stages()}
    assert codes == {
        "cohort": ["cohort"],
        "features": [],
        "headers": ["unreadable"],
        "opened": [],
        "encoder": [],
        "labels": [],
    }
    assert untried_stages(reader) == ["labels"]
    assert reader.encoder.value_or_raise().name == "simulated"


def test_a_file_whose_tiles_cannot_be_read_is_found_though_its_header_can(source: StudySource, tmp_path: Path) -> None:
    """Training would stop at its first batch: every file of the folder has a readable header and a broken chunk."""
    for path in source.features.iterdir():
        with h5py.File(path, "r+") as file:
            values = file["features"][()]
            del file["features"]
            file.create_dataset("features", data=values, chunks=(1, values.shape[1]), compression="gzip")
            file["features"].attrs["encoder"] = "simulated"
            place = file["features"].id.get_chunk_info(0)
        with path.open("r+b") as raw:
            raw.seek(place.byte_offset)
            raw.write(b"no gzip" * 2)
    reader = StudyReader(source)
    assert [finding.code for finding in reader.study().errors] == ["unreadable"]
    assert len(reader.opened.errors) == 1


def test_each_slide_s_resolution_is_read_from_the_table(source: StudySource, tmp_path: Path) -> None:
    shutil.copytree(PRODUCERS / "stamp_2.5_two_resolutions", tmp_path / "stamp")
    slides = pd.DataFrame({"patient": ["p", "q"], "slide": [SMALL, TCGA], "MSI": ["MSS", "MSI-H"]})
    slides.assign(mpp=[0.499, 0.25]).to_csv(tmp_path / "both.csv", index=False)
    slides.assign(mpp=[0.499, 40]).to_csv(tmp_path / "wrong.csv", index=False)
    slides.assign(scanner=[0.499, 0.25]).to_csv(tmp_path / "named.csv", index=False)
    slides.to_csv(tmp_path / "none.csv", index=False)
    stamp = replace(source, features=tmp_path / "stamp", cohort=tmp_path / "both.csv", known_encoders=())
    stamp = replace(stamp, reading=Reading(slide_mpp=0.25))
    for each in (stamp, replace(stamp, cohort=tmp_path / "named.csv", columns=Columns(mpp="scanner"))):
        reader = StudyReader(each)
        extents = {slide: header.extent for slide, header in (reader.headers.value or {}).items()}
        assert extents == {SMALL: 514, TCGA: 1024}
        assert not reader.encoder.errors
    assert [e.code for e in StudyReader(replace(stamp, cohort=tmp_path / "wrong.csv")).headers.errors] == ["mpp"]
    refused = StudyReader(replace(stamp, cohort=tmp_path / "none.csv")).encoder.errors
    assert "resolutions differ" in refused[0].message


def test_labels_are_checked_if_the_features_are_missing(source: StudySource, tmp_path: Path) -> None:
    reader = StudyReader(replace(source, features=tmp_path / "absent"))
    assert [finding.code for finding in reader.features.errors] == ["features"]
    assert untried_stages(reader) == ["headers", "encoder"]
    assert len(reader.labels.value_or_raise().patients) == 24
    with pytest.raises(FeatureError, match="absent"):
        reader.study().require()


def test_missing_files_are_found_despite_contradictory_rows(source: StudySource) -> None:
    slide_file(source, 0).unlink()
    table = pd.read_csv(source.cohort, dtype=str)
    pd.concat([table, table.iloc[-1:]]).to_csv(source.cohort, index=False)
    reader = StudyReader(source)
    assert [finding.code for finding in reader.cohort.errors] == ["doubled-slide"]
    assert [finding.code for finding in reader.headers.findings] == ["no-file"]
    assert untried_stages(reader) == ["labels"]


def test_a_stage_reports_all_its_problems(source: StudySource) -> None:
    slide_file(source, 0).unlink()
    slide_file(source, 1).write_bytes(b"no HDF5")
    reader = StudyReader(source)
    assert [finding.code for finding in reader.headers.errors] == ["no-file", "unreadable"]
    assert len(reader.labels.value_or_raise().patients) == 24
    study = reader.study().value
    assert study is not None
    assert set(study.cohort.table["slide"]) == set(reader.usable)
    with pytest.raises(FeatureError, match=r"no feature file.*the first of 2 errors; mil check with the same words"):
        read_source(source)


def test_skipped_slides_are_counted_in_warnings(source: StudySource) -> None:
    slide_file(source, 0).unlink()
    slide_file(source, 1).write_bytes(b"no HDF5")
    with h5py.File(slide_file(source, 2), "r+") as file:
        file["features"][0] = np.nan
    study = read_source(replace(source, on_missing="skip", on_bad_bag="skip"))
    counts = {finding.code: finding.count for finding in study.findings}
    assert counts == {"no-file": 1, "unreadable": 1, "not-finite": 1, "left-out": 3}
    assert [(step.patients_left_out, step.slides_left_out) for step in study.flow] == [(0, 0), (0, 0), (1, 1), (2, 2)]
    assert study.flow[0].patients == 24
    assert study.flow[-1].patients == len(study.patients) == 21
    assert len(study.patients) == len(study.target) == len(study.bags) == 21
    with pytest.raises(FeatureError, match="cannot be read as HDF5"):
        read_source(replace(source, on_missing="skip"))


def test_no_usable_slide_is_an_error(source: StudySource) -> None:
    for file in source.features.rglob("*.h5"):
        file.write_bytes(b"no HDF5")
    reader = StudyReader(replace(source, on_bad_bag="skip"))
    assert [finding.code for finding in reader.labels.errors] == ["nothing-left"]
    assert untried_stages(reader) == ["encoder"]


def test_each_stage_runs_once(source: StudySource, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for owner, name in ((Cohort, "from_rows"), (FeatureStore, "resolve"), (FeatureStore, "headers")):
        monkeypatch.setattr(owner, name, recording(name, getattr(owner, name), calls))
    reader = StudyReader(source)
    list(reader.stages())
    reader.study()
    assert sorted(calls) == ["from_rows", "headers", "headers", "resolve"], "resolve reads the headers too"


def test_invalid_label_error_names_the_patients(source: StudySource) -> None:
    table = pd.read_csv(source.cohort, dtype=str)
    patients = table["patient"].unique()[:2]
    table.assign(MSI=table["MSI"].mask(table["patient"].isin(patients), "low")).to_csv(source.cohort, index=False)
    (error,) = StudyReader(source).labels.errors
    assert (error.code, error.count, error.first) == ("label", 2, tuple(patients))


def test_unknown_covariate_levels_give_a_warning(source: StudySource) -> None:
    table = pd.read_csv(source.cohort, dtype=str)
    table.assign(sex=["F", "X"] + ["M"] * (len(table) - 2)).to_csv(source.cohort, index=False)
    labels = StudyReader(replace(source, covariates=Covariates(categorical={"sex": ["F", "M"]}))).labels
    assert [finding.code for finding in labels.findings] == ["unknown-level"]
    with pytest.raises(ConfigError, match="column 'MSI' is what is to be predicted"):
        replace(source, covariates=Covariates(numeric=["MSI"]))
