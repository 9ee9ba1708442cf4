"""Tables with the headers of four public ones, made-up patients, and the faults that the real ones have.

The headers are those of the TCGA Clinical Data Resource, of cBioPortal, of Liu et al. 2018 and of STAMP's CLINI and
SLIDE tables. What `mil check` says fits on a screen and names the option that helps.
"""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from tests.conftest import Mil

PATIENTS = 30
SCREEN = 40
"""Lines that a data manager sees at once."""
CDR = (
    "bcr_patient_barcode,type,age_at_initial_pathologic_diagnosis,gender,race,ajcc_pathologic_tumor_stage,clinical_stage,"
    "vital_status,tumor_status,last_contact_days_to,death_days_to,OS,OS.time,DSS,DSS.time,PFI,PFI.time,Redaction,tss"
)
CBIOPORTAL = (
    "Study ID,Patient ID,Sample ID,Diagnosis Age,Neoplasm Disease Stage American Joint Committee on Cancer Code,"
    "Cancer Type,Overall Survival (Months),Overall Survival Status,Progress Free Survival (Months),Sex"
)
LIU = (
    "TCGA Participant Barcode,TCGA Project Code,Organ,Pathologic Stage,Country,Gender,"
    "Age at initial pathologic diagnosis,Days to last known alive,Vital status,MSI Status,Molecular_Subtype"
)
CLINI = "PATIENT,ajcc_pathologic_stage,gender,KRAS_driver,TP53_driver,ImmuneSubtype"


def barcode(number: int) -> str:
    return f"TCGA-ZZ-{number:04}"


def table(header: str, **columns: object) -> pd.DataFrame:
    """Return a row a patient; ten more than have slides, of whom the first is there twice."""
    names = header.split(",")
    rows = pd.DataFrame(dict.fromkeys(names, "[Not Available]"), index=range(PATIENTS + 10))
    patient = next(
        name for name in names if name in ("bcr_patient_barcode", "Patient ID", "PATIENT") or "Barcode" in name
    )
    rows[patient] = [barcode(number) for number in rows.index]
    for name, values in columns.items():
        rows[name] = np.resize(np.asarray(values, dtype=object), len(rows))
    return pd.concat([rows, rows.tail(1).assign(**{names[-1]: "twice"})])


@pytest.fixture
def scans(tmp_path: Path) -> list[str]:
    """Write feature files under the GDC's names and STAMP's table of them; return options that name both."""
    (tmp_path / "features").mkdir()
    rng = np.random.default_rng(0)
    names = []
    for number in range(PATIENTS):
        name = f"{barcode(number)}-01Z-00-DX1.{rng.bytes(4).hex()}-0000-4000-8000-{rng.bytes(6).hex()}.h5"
        with h5py.File(tmp_path / "features" / name, "w") as file:
            file["features"] = rng.standard_normal((5, 8), dtype=np.float32)
        names.append((barcode(number), name))
    pd.DataFrame(names, columns=["PATIENT", "FILENAME"]).to_csv(tmp_path / "slide.csv", index=False)
    encoder = ["encoder=custom", "encoder.name=x", "encoder.dim=8"]
    return [f"data.features={tmp_path}/features", f"data.slides={tmp_path}/slide.csv", "split.folds=2", *encoder]


@pytest.mark.parametrize(
    ("header", "columns", "words", "code", "messages"),
    [
        (
            CDR,
            {"OS": [0, 1, 0], "OS.time": [0, *range(400, 429)]},
            ["tool=survival", "tool.endpoint.time=OS.time", "tool.endpoint.event=OS", "tool.endpoint.unit=days"],
            2,
            ["1 are 0, see tool.endpoint.zero_time=half_unit or drop"],
        ),
        (
            CBIOPORTAL,
            {"Overall Survival (Months)": range(12, 42), "Overall Survival Status": ["0:LIVING", "1:DECEASED"]},
            [
                "tool=survival",
                "tool.endpoint.time=Overall Survival (Months)",
                "tool.endpoint.event=Overall Survival Status",
            ],
            1,
            ["10 of 40 patients of", "have no slide in"],
        ),
        (
            LIU,
            {"MSI Status": ["MSS", "MSI-H", "MSI-L"]},
            ["tool=binary", "tool.endpoint.column=MSI Status", "tool.endpoint.classes=[MSS,MSI-H]"],
            2,
            ["'MSI-L' (10)", "data.labels.MSI Status={MSI-L: MSS, ...}"],
        ),
        (
            CLINI,
            {"KRAS_driver": ["WT", "MUT"], "ajcc_pathologic_stage": ["Stage IIA", "Stage I"]},
            ["tool=binary", "tool.endpoint.column=KRAS_drivr", "tool.endpoint.classes=[WT,MUT]"],
            2,
            ["has no column 'KRAS_drivr'", "the nearest is 'KRAS_driver'"],
        ),
    ],
    ids=["TCGA-CDR", "cBioPortal", "Liu 2018", "STAMP"],
)
def test_a_check_fits_on_a_screen_and_names_what_helps(
    header: str,
    columns: dict[str, object],
    words: list[str],
    code: int,
    messages: list[str],
    scans: list[str],
    mil: Mil,
    tmp_path: Path,
) -> None:
    table(header, **columns).to_csv(tmp_path / "cohort.csv", index=False)
    checked = mil("check", *words, *scans, f"data.cohort={tmp_path}/cohort.csv")
    assert checked.code == code, checked.out + checked.err
    text = " ".join((checked.out + checked.err).split())
    assert not [message for message in messages if message not in text], text
    assert len((checked.out + checked.err).splitlines()) <= SCREEN
