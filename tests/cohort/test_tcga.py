"""Real tables as they come, read as `mil train` reads them, against counts that plain csv makes of the same files."""

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

COHORTS = {  # with a label that most of its patients have
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


def clini(name: str) -> Path:
    return TABLES / "clini_slide" / f"TCGA-{name}-DX_CLINI.csv.gz"


def slide(name: str) -> Path:
    return TABLES / "clini_slide" / f"TCGA-{name}-DX_SLIDE.csv.gz"


def rows(path: Path) -> list[Row]:
    with gzip.open(path, "rt", newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def known(labels: Iterable[str]) -> list[str]:
    return [label for label in labels if label.strip().casefold() not in MISSING]


def expected(clinical: list[Row], slides: list[Row], who: str, label: str) -> tuple[Row, dict[str, set[str]]]:
    """Each patient's label, and slides, of those who have both."""
    owned = defaultdict(set)
    for row in slides:
        owned[row["PATIENT"]].add(row["FILENAME"])
    labels = {row[who]: row[label].strip() for row in clinical if row[who] in owned and known([row[label]])}
    return labels, {patient: owned[patient] for patient in labels}


def check(path: Path, slides: Path, who: str, label: str) -> Cohort:
    cohort = Cohort.read(path, labels=[label], slides=slides).require()
    labels, owned = expected(rows(path), rows(slides), who, label)
    assert cohort.patients[label].to_dict() == labels
    assert {patient: set(slides) for patient, slides in cohort.patients["slides"].items()} == owned
    assert len(cohort.table) == sum(map(len, owned.values()))
    return cohort


@pytest.mark.parametrize(("name", "label"), COHORTS.items())
def test_clinical_tables_and_tables_of_slides_are_joined_as_they_come(
    name: str, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(clini(name), slide(name), "PATIENT", label)
    patients, owners = ({row["PATIENT"] for row in rows(table)} for table in (clini(name), slide(name)))
    missing = sum(row["PATIENT"] in owners and not known([row[label]]) for row in rows(clini(name)))
    assert f"{len(patients - owners)} of {len(patients)} patients of" in caplog.text
    assert (f"of {len(owners - patients)} patients that are not in" in caplog.text) == bool(owners - patients)
    assert (f"{missing} of {len(patients & owners)} patients are left out as they lack" in caplog.text) == bool(missing)


def test_the_counts_of_one_cohort_are_those_told_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cohort = Cohort.read(clini("CRC"), labels=["MSIStatus"], slides=slide("CRC")).require()
    assert (len(cohort.patients), len(cohort.table)) == (443, 1357)
    assert cohort.patients["MSIStatus"].value_counts().to_dict() == {"MSS": 308, "MSI-L": 71, "MSI-H": 64}
    assert "14 of 628 patients of" in caplog.text
    assert "5 of 1971 slides of" in caplog.text
    assert "are of 2 patients that are not in" in caplog.text
    assert "171 of 614 patients are left out as they lack a label (MSIStatus 171)" in caplog.text


@pytest.mark.parametrize("part", ["KICH", "KIRC", "KIRP"])
def test_the_three_kidney_tables_of_slides_fit_the_one_clinical_table(part: str) -> None:
    cohort = check(clini("KIXX"), slide(part), "PATIENT", "ajcc_pathologic_stage")
    assert len(cohort.patients) > 800


def test_a_clinical_table_alone_asks_for_its_slides() -> None:
    assert len(read_table(clini("CHOL"))) == len(rows(clini("CHOL"))) == 48
    with pytest.raises(CohortError, match=r"CHOL.*no column for the slide.*data\.slides="):
        Cohort.read(clini("CHOL"), labels=["IDH1_driver"]).require()


def test_a_table_of_slides_alone_is_a_cohort_without_labels() -> None:
    cohort = Cohort.read(slide("KICH")).require()
    cohort_rows = rows(slide("KICH"))
    assert cohort.patients["slides"].map(len).to_dict() == Counter(row["PATIENT"] for row in cohort_rows)
    assert len(cohort.table) == len({row["FILENAME"] for row in cohort_rows}) == 3182


@pytest.mark.parametrize("endpoint", ["OS", "DSS", "DFI", "PFI"])
def test_the_clinical_data_resource_gives_follow_up_to_a_cohorts_slides(endpoint: str) -> None:
    time, event = f"{endpoint}.time", endpoint
    cohort = Cohort.read(CDR, labels=[time, event], slides=slide("BRCA")).require()
    slides = rows(slide("BRCA"))
    times, _ = expected(rows(CDR), slides, "bcr_patient_barcode", time)
    events, _ = expected(rows(CDR), slides, "bcr_patient_barcode", event)
    both = set(times) & set(events)
    assert cohort.patients[time].to_dict() == {patient: times[patient] for patient in both}
    assert cohort.patients[event].value_counts().to_dict() == Counter(events[patient] for patient in both)
    sites = {row["bcr_patient_barcode"]: row["tss"] for row in rows(CDR)}
    assert cohort.patients["site"].to_dict() == {patient: sites[patient] for patient in both}


def test_the_clinical_data_resource_is_read_whole() -> None:
    table, plain = read_table(CDR), rows(CDR)
    assert len(table) == len(plain) == 11160
    assert table["bcr_patient_barcode"].tolist() == [row["bcr_patient_barcode"] for row in plain]
    for column in ("OS", "OS.time", "PFI", "ajcc_pathologic_tumor_stage"):
        mine = table[column].str.casefold()
        assert (~mine.isin(MISSING)).sum() == len(known(row[column] for row in plain)), column


@pytest.mark.parametrize(
    ("name", "label", "slides", "counts"),
    [
        ("slideflow_breast_er", "ER_Status_By_IHC", 1048, {"positive": 766, "negative": 224}),
        ("slideflow_lung_adeno_squam", "subtype", 941, {"squamous": 474, "adenocarcinoma": 467}),
        ("slideflow_thyroid_brs", "brs_class", 369, {"Braf-like": 264, "Ras-like": 105}),
    ],
)
def test_slide_tasks_with_sites_are_read_as_they_come(
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
