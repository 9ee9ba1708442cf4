"""Real TCGA tables, read as `mil train` reads them, against counts made from the same files with the csv module."""

import csv
import gzip
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from mil.cohort.clinical_table import Cohort
from mil.errors import CohortError
from mil.tables import MISSING, read_table

TABLES = Path(os.environ.get("MIL_REAL_DATA", "no-real-data")) / "tcga_labels"
pytestmark = pytest.mark.skipif(not TABLES.is_dir(), reason="$MIL_REAL_DATA does not name a folder with tcga_labels/")
CDR = TABLES / "tcga_cdr.csv.gz"

COHORTS = {  # each with a label that most of its patients have
    "BRCA": "BRCA_Subtype_PAM50",
    "CESC": "ImmuneSubtype",
    "CRC": "MSIStatus",
    "HNSC": "ajcc_pathologic_stage",
    "LIHC": "TP53_driver",
    "LUAD": "EGFR_driver",
    "LUSC": "ajcc_pathologic_stage",
    "PAAD": "KRAS_driver",
    "PRAD": "SPOP_driver",
    "SKCM": "BRAF_driver",
    "STAD": "MSIStatus",
}
Row = dict[str, str]


def clinical_path(name: str) -> Path:
    return TABLES / "clini_slide" / f"TCGA-{name}-DX_CLINI.csv.gz"


def slide_path(name: str) -> Path:
    return TABLES / "clini_slide" / f"TCGA-{name}-DX_SLIDE.csv.gz"


def rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt", newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def without_missing(labels: Iterable[str]) -> list[str]:
    return [label for label in labels if label.strip().casefold() not in MISSING]


def expected_labels_and_slides(
    clinical: list[Row], slides: list[Row], who: str, label: str
) -> tuple[Row, dict[str, set[str]]]:
    """Return the label, and the slides, of each patient who has both."""
    owned = defaultdict(set)
    for row in slides:
        owned[row["PATIENT"]].add(row["FILENAME"])
    labels = {row[who]: row[label].strip() for row in clinical if row[who] in owned and without_missing([row[label]])}
    return labels, {patient: owned[patient] for patient in labels}


def read_and_compare(path: Path, slides: Path, who: str, label: str) -> Cohort:
    cohort = Cohort.read(path, labels=[label], slides=slides).require()
    labels, owned = expected_labels_and_slides(rows(path), rows(slides), who, label)
    assert cohort.patients[label].to_dict() == labels
    assert {patient: set(slides) for patient, slides in cohort.patients["slides"].items()} == owned
    assert len(cohort.table) == sum(map(len, owned.values()))
    return cohort


@pytest.mark.parametrize(("name", "label"), COHORTS.items())
def test_clinical_and_slide_tables_are_joined(name: str, label: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_and_compare(clinical_path(name), slide_path(name), "PATIENT", label)
    patients, owners = ({row["PATIENT"] for row in rows(table)} for table in (clinical_path(name), slide_path(name)))
    missing = sum(row["PATIENT"] in owners and not without_missing([row[label]]) for row in rows(clinical_path(name)))
    assert f"{len(patients - owners)} of {len(patients)} patients of" in caplog.text
    assert (f"of {len(owners - patients)} patients that are not in" in caplog.text) == bool(owners - patients)
    assert (f"{missing} of {len(patients & owners)} patients are left out as they lack" in caplog.text) == bool(missing)


def test_crc_counts_equal_hand_counted_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cohort = Cohort.read(clinical_path("CRC"), labels=["MSIStatus"], slides=slide_path("CRC")).require()
    assert (len(cohort.patients), len(cohort.table)) == (443, 1357)
    assert cohort.patients["MSIStatus"].value_counts().to_dict() == {"MSS": 308, "MSI-L": 71, "MSI-H": 64}
    assert "14 of 628 patients of" in caplog.text
    assert "5 of 1971 slides of" in caplog.text
    assert "are of 2 patients that are not in" in caplog.text
    assert "171 of 614 patients are left out as they lack a label (MSIStatus 171)" in caplog.text


@pytest.mark.parametrize("part", ["KICH", "KIRC", "KIRP"])
def test_three_kidney_slide_tables_match_one_clinical_table(part: str) -> None:
    cohort = read_and_compare(clinical_path("KIXX"), slide_path(part), "PATIENT", "ajcc_pathologic_stage")
    assert len(cohort.patients) > 800


def test_clinical_table_alone_error_suggests_a_slide_table() -> None:
    assert len(read_table(clinical_path("CHOL"))) == len(rows(clinical_path("CHOL"))) == 48
    with pytest.raises(CohortError, match=r"CHOL.*no column for the slide.*data\.slides="):
        Cohort.read(clinical_path("CHOL"), labels=["IDH1_driver"]).require()


def test_slide_table_alone_is_a_cohort_without_labels() -> None:
    cohort = Cohort.read(slide_path("KICH")).require()
    cohort_rows = rows(slide_path("KICH"))
    assert cohort.patients["slides"].map(len).to_dict() == Counter(row["PATIENT"] for row in cohort_rows)
    assert len(cohort.table) == len({row["FILENAME"] for row in cohort_rows}) == 3182


@pytest.mark.parametrize("endpoint", ["OS", "DSS", "DFI", "PFI"])
def test_clinical_data_resource_adds_follow_up_to_slides(endpoint: str) -> None:
    time, event = f"{endpoint}.time", endpoint
    cohort = Cohort.read(CDR, labels=[time, event], slides=slide_path("BRCA")).require()
    slides = rows(slide_path("BRCA"))
    times, _ = expected_labels_and_slides(rows(CDR), slides, "bcr_patient_barcode", time)
    events, _ = expected_labels_and_slides(rows(CDR), slides, "bcr_patient_barcode", event)
    both = set(times) & set(events)
    assert cohort.patients[time].to_dict() == {patient: times[patient] for patient in both}
    assert cohort.patients[event].value_counts().to_dict() == Counter(events[patient] for patient in both)
    sites = {row["bcr_patient_barcode"]: row["tss"] for row in rows(CDR)}
    assert cohort.patients["site"].to_dict() == {patient: sites[patient] for patient in both}


def test_clinical_data_resource_is_read_completely() -> None:
    table, plain = read_table(CDR), rows(CDR)
    assert len(table) == len(plain) == 11160
    assert table["bcr_patient_barcode"].tolist() == [row["bcr_patient_barcode"] for row in plain]
    for column in ("OS", "OS.time", "PFI", "ajcc_pathologic_tumor_stage"):
        mine = table[column].str.casefold()
        assert (~mine.isin(MISSING)).sum() == len(without_missing(row[column] for row in plain)), column


@pytest.mark.parametrize(
    ("name", "label", "slides", "counts"),
    [
        ("slideflow_breast_er", "ER_Status_By_IHC", 1048, {"positive": 766, "negative": 224}),
        ("slideflow_lung_adeno_squam", "subtype", 941, {"squamous": 474, "adenocarcinoma": 467}),
        ("slideflow_thyroid_brs", "brs_class", 369, {"Braf-like": 264, "Ras-like": 105}),
    ],
)
def test_slideflow_task_tables_with_sites_are_read(
    name: str, label: str, slides: int, counts: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    path = TABLES / "slide_tasks" / f"{name}.csv.gz"
    with caplog.at_level(logging.WARNING):
        cohort = Cohort.read(path, labels=[label]).require()
    plain = rows(path)
    assert len(cohort.table) == slides
    assert cohort.patients[label].value_counts().to_dict() == counts
    labels = {row["patient"]: row[label] for row in plain}
    assert cohort.patients[label].to_dict() == labels
    assert cohort.patients["site"].to_dict() == {row["patient"]: row["site"] for row in plain}
    assert set(cohort.table["slide"]) == {row["slide"] for row in plain}
    assert caplog.messages == []
