from pathlib import Path

import pandas as pd
import pytest

from mil.cohort.slide_resolutions import slide_mpps, slide_mpps_in
from mil.errors import CohortError

HERE = Path("slides.csv")


def rows(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"patient": ["p", "p", "q"], "slide": ["a", "b", "c"], **columns})


@pytest.mark.parametrize("name", ["mpp", "MPP", "slide_mpp", "mpp_x", "Microns per pixel"])
def test_common_names_are_found(name: str) -> None:
    stated = slide_mpps(HERE, rows(**{name: ["0.25", "", "0.499"]})).require()
    assert stated == {"a": 0.25, "c": 0.499}


def test_given_name_is_taken_and_must_exist() -> None:
    table = rows(scan=["0.25", "NA", "0.5"], mpp=["1", "1", "1"])
    assert slide_mpps(HERE, table, "scan").require() == {"a": 0.25, "c": 0.5}
    with pytest.raises(CohortError, match=r"no column 'scna' \(data\.columns\.mpp\), it has .*'scan'"):
        slide_mpps(HERE, table, "scna").require()


def test_table_without_the_column_says_nothing() -> None:
    assert slide_mpps(HERE, rows()).require() == {}


def test_several_candidates_are_left_to_the_user() -> None:
    checked = slide_mpps(HERE, rows(mpp=["1"] * 3, slide_mpp=["2"] * 3))
    assert checked.value == {}
    assert [finding.code for finding in checked.findings] == ["which-mpp"]


@pytest.mark.parametrize("value", ["40", "forty", "0", "-0.25", "250", "inf"])
def test_values_that_are_no_resolution_are_errors(value: str) -> None:
    with pytest.raises(CohortError, match=rf"1 slides have no resolution in 'mpp' \(slide 'b' has '{value}'\)"):
        slide_mpps(HERE, rows(mpp=["0.25", value, ""])).require()


def test_table_of_slides_alone_is_read(tmp_path: Path) -> None:
    path = tmp_path / "slides.csv"
    path.write_text("FILENAME,mpp\nx/a.h5,0.25\nb.svs,0.5\n")
    assert slide_mpps_in(path) == {"a": 0.25, "b": 0.5}
    path.write_text("FILENAME\na.h5\n")
    with pytest.raises(CohortError, match="no column of micrometres per pixel such as 'mpp'"):
        slide_mpps_in(path)
