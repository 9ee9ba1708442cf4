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
def test_common_names_of_ids_are_found_and_told_of(
    header: str, taken: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        identified_ids = identified(PATH, table(header), Columns(), BOTH, set()).require()
    for theirs, column in taken.items():
        assert identified_ids[column].tolist() == [f"{theirs} 0", f"{theirs} 1"]
        assert f"{PATH}: column '{theirs}' is taken for the {column}" in caplog.messages
    assert list(identified_ids)[:2] == ["patient", "slide"]
    assert len(identified_ids.columns) == len(header.split(","))


def test_a_name_that_is_given_wins_over_what_could_be_found() -> None:
    identified_ids = identified(PATH, table("patient,case_id,slide"), Columns(patient="case_id"), BOTH, set()).require()
    assert identified_ids["patient"].tolist() == ["case_id 0", "case_id 1"]
    assert list(identified_ids) == ["patient", "slide"]
    with pytest.raises(CohortError, match="no column 'PATEINT', it has PATIENT, FILENAME; the nearest is 'PATIENT'"):
        ids("PATIENT,FILENAME", Columns(patient="PATEINT"))


def test_several_columns_that_may_be_an_id_are_refused_by_name() -> None:
    with pytest.raises(
        CohortError, match=r"'case_id', 'PATIENT' may be the patient.*give data\.columns\.patient=\.\.\."
    ):
        ids("case_id,PATIENT,slide")


def test_several_columns_that_may_be_the_site_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert ids("patient,slide,center,site_id") == ["patient", "slide"]
    assert "'center', 'site_id' may be the site, none is taken; give data.columns.site=..." in caplog.text


def test_a_table_without_slides_asks_for_them() -> None:
    with pytest.raises(CohortError, match=r"no column for the slide, it has 'PATIENT', 'MSI'; .*data\.slides="):
        ids("PATIENT,MSI")
    with pytest.raises(CohortError, match="no column 'patient', it has pateint, slide; the nearest is 'pateint'"):
        ids("pateint,slide")


MSI = pd.DataFrame({"MSI": ["High", "low", "MSS", "", "unclear"], "age": ["1", "2", "3", "4", "5"]}, dtype=str)


def test_words_become_what_they_mean_and_others_stay() -> None:
    words: dict[str, dict[str, str | None]] = {"MSI": {"high": "MSI-H", "LOW": "MSS", "unclear": None}}
    translation = translated(PATH, MSI, words, {"MSI"}).require()
    assert translation["MSI"].tolist() == ["MSI-H", "MSS", "MSS", "", ""]
    assert MSI["MSI"].tolist()[0] == "High"
    pd.testing.assert_frame_equal(translated(PATH, MSI, {}, {"MSI"}).require(), MSI)


def test_two_words_can_change_places() -> None:
    swapped = translated(PATH, MSI, {"age": {"1": "2", "2": "1"}}, {"MSI", "age"}).require()
    assert swapped["age"].tolist() == ["2", "1", "3", "4", "5"]


def test_a_word_that_no_row_holds_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    translated(PATH, MSI, {"MSI": {"hihg": "MSI-H", "low": "MSS"}}, {"MSI"}).require()
    assert caplog.messages == ["cohort.csv: no row has 'hihg' in 'MSI', which data.labels translates"]


def test_words_of_a_column_that_nobody_asked_for_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.labels\.MIS: .* neither a label nor a covariate, did you mean 'MSI'"):
        translated(PATH, MSI, {"MIS": {"high": "MSI-H"}}, {"MSI", "age"}).require()
