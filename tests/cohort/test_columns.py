import logging
from pathlib import Path

import pandas as pd
import pytest

from mil.cohort.columns import Columns, identified, translated
from mil.errors import CohortError, ConfigError

PATH = Path("cohort.csv")
BOTH = ("patient", "slide")


def table(header: str) -> pd.DataFrame:
    names = header.split(",")
    return pd.DataFrame([[f"{name} {row}" for name in names] for row in range(2)], columns=names, dtype=str)


def ids(header: str, columns: Columns | None = None) -> list[str]:
    identified_ids = identified(PATH, table(header), columns or Columns(), BOTH, set()).require()
    return [name for name in identified_ids if name in ("patient", "slide", "site")]


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("PATIENT,FILENAME,project_id", {"PATIENT": "patient", "FILENAME": "slide"}),
        ("case_id,slide_id,label", {"case_id": "patient", "slide_id": "slide"}),
        ("Patient ID,Slide Name,Center", {"Patient ID": "patient", "Slide Name": "slide", "Center": "site"}),
        ("submitter_id,wsi", {"submitter_id": "patient", "wsi": "slide"}),
        ("bcr_patient_barcode,image,tss", {"bcr_patient_barcode": "patient", "image": "slide", "tss": "site"}),
        ("case_submitter_id,Slide,Tissue source site", {"case_submitter_id": "patient", "Slide": "slide"}),
        ("patient,case_id,slide,FILENAME", {}),
    ],
)
def test_common_id_column_names_are_recognised_and_logged(
    header: str, taken: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        identified_ids = identified(PATH, table(header), Columns(), BOTH, set()).require()
    for theirs, column in taken.items():
        assert identified_ids[column].tolist() == [f"{theirs} 0", f"{theirs} 1"]
        assert f"{PATH}: column '{theirs}' is taken for the {column}" in caplog.messages
    assert list(identified_ids)[:2] == ["patient", "slide"]
    assert len(identified_ids.columns) == len(header.split(","))


def test_declared_column_name_takes_precedence() -> None:
    identified_ids = identified(PATH, table("patient,case_id,slide"), Columns(patient="case_id"), BOTH, set()).require()
    assert identified_ids["patient"].tolist() == ["case_id 0", "case_id 1"]
    assert list(identified_ids) == ["patient", "slide"]
    with pytest.raises(CohortError, match="no column 'PATEINT', it has PATIENT, FILENAME; the nearest is 'PATIENT'"):
        ids("PATIENT,FILENAME", Columns(patient="PATEINT"))


def test_ambiguous_id_columns_are_refused_by_name() -> None:
    with pytest.raises(
        CohortError, match=r"'case_id', 'PATIENT' may be the patient.*give data\.columns\.patient=\.\.\."
    ):
        ids("case_id,PATIENT,slide")


def test_ambiguous_site_columns_are_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert ids("patient,slide,center,site_id") == ["patient", "slide"]
    assert "'center', 'site_id' may be the site, none is taken; give data.columns.site=..." in caplog.text


def test_missing_slide_column_error_suggests_a_slide_table() -> None:
    with pytest.raises(CohortError, match=r"no column for the slide, it has 'PATIENT', 'MSI'; .*data\.slides="):
        ids("PATIENT,MSI")
    with pytest.raises(CohortError, match="no column 'patient', it has pateint, slide; the nearest is 'pateint'"):
        ids("pateint,slide")


MSI = pd.DataFrame({"MSI": ["High", "low", "MSS", "", "unclear"], "age": ["1", "2", "3", "4", "5"]}, dtype=str)


def test_declared_values_are_translated_and_others_stay() -> None:
    words: dict[str, dict[str, str | None]] = {"MSI": {"high": "MSI-H", "LOW": "MSS", "unclear": None}}
    translation = translated(PATH, MSI, words, {"MSI"}).require()
    assert translation["MSI"].tolist() == ["MSI-H", "MSS", "MSS", "", ""]
    assert MSI["MSI"].tolist()[0] == "High"
    pd.testing.assert_frame_equal(translated(PATH, MSI, {}, {"MSI"}).require(), MSI)


def test_two_values_can_be_swapped() -> None:
    swapped = translated(PATH, MSI, {"age": {"1": "2", "2": "1"}}, {"MSI", "age"}).require()
    assert swapped["age"].tolist() == ["2", "1", "3", "4", "5"]


def test_unused_translation_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    translated(PATH, MSI, {"MSI": {"hihg": "MSI-H", "low": "MSS"}}, {"MSI"}).require()
    assert caplog.messages == ["cohort.csv: no row has 'hihg' in 'MSI', which data.labels translates"]


def test_translation_of_an_unused_column_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.labels\.MIS: .* neither a label nor a covariate, did you mean 'MSI'"):
        translated(PATH, MSI, {"MIS": {"high": "MSI-H"}}, {"MSI", "age"}).require()


def test_words_for_a_missing_value_are_no_patient_no_slide_and_no_site() -> None:
    rows = {
        "patient": ["P1", "NA", "n/a", "Not Reported", "TCGA-NA-A4QV"],
        "slide": ["S1", "S2", "unknown", "S4", "S5"],
        "site": ["A", "B", "'--", "NA", "NA"],
    }
    read = identified(PATH, pd.DataFrame(rows, dtype=str), Columns(), BOTH, set()).require()
    assert read["patient"].tolist() == ["P1", "", "", "", "TCGA-NA-A4QV"]
    assert read["slide"].tolist() == ["S1", "S2", "", "S4", "S5"]
    assert read["site"].tolist() == ["A", "B", "", "", "NA"]
    labelled = identified(PATH, pd.DataFrame(rows, dtype=str), Columns(), BOTH, {"site"}).require()
    assert labelled["site"].tolist() == rows["site"], "a site that is a label keeps its words"
