"""Slide ids of public cohorts."""

import csv
import gzip
import os
from pathlib import Path

import pytest

from mil.slide_names import family, file_stem, matching_files, patient_of

LABELS = Path(os.environ.get("MIL_REAL_DATA", "no-real-data")) / "tcga_labels" / "clini_slide"


@pytest.mark.parametrize(
    ("name", "cohort", "patient"),
    [
        ("TCGA-A1-A0SK-01Z-00-DX1.A44D70FA-4D96-43F4-9DD7-A61535786297", "TCGA", "TCGA-A1-A0SK"),
        ("tiles/TCGA-A1-A0SK-01Z-00-DX1.svs.h5", None, "TCGA-A1-A0SK"),
        ("TCGA-A1-A0SK", "TCGA", "TCGA-A1-A0SK"),
        ("TCGA-A1-A0SKX", None, None),
        ("C3L-00016-21", "CPTAC", "C3L-00016"),
        ("11BR047-3", "CPTAC", "11BR047"),
        ("GTEX-1117F-0126", "GTEx", "GTEX-1117F"),
        ("patient_004_node_4.tif", "CAMELYON17", "patient_004"),
        ("patient_004", None, None),
        ("20-00301-2", None, None),
        ("tcga-a1-a0sk", None, None),
    ],
)
def test_cohort_and_patient_are_read_from_public_slide_ids(name: str, cohort: str | None, patient: str | None) -> None:
    assert family(name) == cohort
    assert patient_of(name) == patient


@pytest.mark.skipif(not LABELS.is_dir(), reason="$MIL_REAL_DATA does not name a folder with tcga_labels/")
def test_patients_are_read_from_tcga_slide_tables() -> None:
    for path in sorted(LABELS.glob("*_SLIDE.csv.gz")):
        with gzip.open(path, "rt", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        assert rows
        for row in rows:
            assert patient_of(row["FILENAME"]) == row["PATIENT"][:12], path


@pytest.mark.parametrize(
    "name",
    ["../../x", "..", ".", "", "a/b", "a\\b", "a%2Fb", "x\n", ".hidden", "con", "NUL.h5", "é" * 300, "e\u0301", "é"],
)
def test_a_file_of_any_id_stays_in_its_folder_and_is_that_id_s_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / f"{file_stem(name)}.csv"
    path.parent.mkdir()
    path.write_text("x")
    assert path.resolve().parent == (tmp_path / "in").resolve()
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_two_ids_have_two_files_and_usual_ids_their_own_names() -> None:
    names = ["a/b", "a\\b", "a%2Fb", "a b", "ab", "é", "e\u0301", "x" * 400, "x" * 401, "", "%"]
    assert len({file_stem(name) for name in names}) == len(names)
    for name in ("TCGA-A1-A0SK-01Z-00-DX1.A44D70FA-4D96", "S 1 (2)", "Müller_3"):
        assert file_stem(name) == name


UUIDS = ("A44D70FA-4D96-43F4-9DD7-A61535786297", "90E71B08-E1D9-4FC2-85AC-062E56DDF17C")


def test_a_uuid_that_only_one_of_two_names_has_does_not_matter_where_it_is_unique() -> None:
    first, second = (f"TCGA-A1-A0SK-01Z-00-DX1.{uuid}" for uuid in UUIDS)
    assert matching_files(["TCGA-A1-A0SK-01Z-00-DX1", "S2"], [first, "S3"]) == ({"TCGA-A1-A0SK-01Z-00-DX1": first}, {})
    assert matching_files([first], ["TCGA-A1-A0SK-01Z-00-DX1"]) == ({first: "TCGA-A1-A0SK-01Z-00-DX1"}, {})
    assert matching_files([first], [first, second]) == ({}, {})
    assert matching_files([first], [second]) == ({}, {}), "two UUIDs are two slides"


def test_several_files_of_one_name_and_one_file_of_several_slides_are_ambiguous() -> None:
    bare = "TCGA-A1-A0SK-01Z-00-DX1"
    first, second = (f"{bare}.{uuid}" for uuid in UUIDS)
    assert matching_files([bare], [first, second]) == ({}, {bare: sorted([first, second])})
    assert matching_files([first, second], [bare]) == ({}, {first: [bare], second: [bare]})
