import logging
from pathlib import Path

import pandas as pd
import pytest

from mil.cohort.clinical_table import Cohort, without_files
from mil.cohort.columns import Columns
from mil.errors import CohortError, ConfigError, FeatureError
from mil.findings import raise_first_error

TABLE = """\
patient,slide,site,label,age
001,001-b,A,1,50
1E5,x,B,0,61
001,001-a,A,1,50
10,y,B,1,70
"""


def read(
    folder: Path, content: str = TABLE, labels: tuple[str, ...] = ("label",), columns: Columns | None = None
) -> Cohort:
    path = folder / "cohort.csv"
    path.write_text(content)
    return Cohort.read(path, columns, labels, [name for name in ("age",) if name in content]).require()


def refusal(folder: Path, content: str, labels: tuple[str, ...] = ("label",)) -> str:
    with pytest.raises(CohortError) as raised:
        read(folder, content, labels)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_patient_rows_hold_site_labels_covariates_and_slides(tmp_path: Path) -> None:
    patients = read(tmp_path).patients
    assert list(patients.index) == ["001", "10", "1E5"]
    assert patients.index.name == "patient"
    assert list(patients.columns) == ["site", "label", "age", "slides"]
    assert patients.to_dict("index")["001"] == {"site": "A", "label": "1", "age": "50", "slides": ("001-a", "001-b")}


def test_slides_of_a_patient_are_one_bag_or_one_bag_each(tmp_path: Path) -> None:
    cohort = read(tmp_path)
    assert cohort.bags().to_dict("list") == {
        "bag": ["001", "10", "1E5"],
        "patient": ["001", "10", "1E5"],
        "slides": [("001-a", "001-b"), ("y",), ("x",)],
    }
    assert cohort.bags("slide").to_dict("list") == {
        "bag": ["001-a", "001-b", "x", "y"],
        "patient": ["001", "001", "1E5", "10"],
        "slides": [("001-a",), ("001-b",), ("x",), ("y",)],
    }
    assert list(cohort.bags("slide").index) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="'tile', expected patient or slide"):
        cohort.bags("tile")  # type: ignore[arg-type]  # a user may write this


def test_order_of_rows_does_not_change_the_bags(tmp_path: Path) -> None:
    header, *rows = TABLE.splitlines()
    turned = read(tmp_path, "\n".join([header, *reversed(rows)]))
    for unit in ("patient", "slide"):
        pd.testing.assert_frame_equal(turned.bags(unit), read(tmp_path).bags(unit))


def test_id_and_site_columns_may_have_other_names(tmp_path: Path) -> None:
    content = TABLE.replace("patient,slide,site", "case_id,FILE,hospital")
    cohort = read(tmp_path, content, columns=Columns("case_id", "FILE", "hospital"))
    pd.testing.assert_frame_equal(cohort.table, read(tmp_path).table)
    assert list(read(tmp_path, content, columns=Columns("case_id", "FILE")).patients) == ["label", "age", "slides"]


def test_site_column_may_also_be_a_label(tmp_path: Path) -> None:
    cohort = read(tmp_path, labels=("site",))
    assert cohort.patients["site"].tolist() == ["A", "B", "B"]
    content = TABLE.replace("site", "hospital")
    cohort = read(tmp_path, content, labels=("hospital",), columns=Columns(site="hospital"))
    assert cohort.patients["hospital"].tolist() == cohort.patients["site"].tolist() == ["A", "B", "B"]


def test_cohort_without_labels_keeps_every_patient(tmp_path: Path) -> None:
    cohort = read(tmp_path, "slide,patient\na,1\nb,2\n", labels=())
    assert cohort.patients.to_dict("index") == {"1": {"slides": ("a",)}, "2": {"slides": ("b",)}}


def test_missing_column_error_names_the_nearest_one(tmp_path: Path) -> None:
    assert "no column 'lable', it has patient, slide, site, label, age; the nearest is 'label'" in refusal(
        tmp_path, TABLE, ("lable",)
    )


def test_slide_with_two_rows_is_refused(tmp_path: Path) -> None:
    assert "1 slides have several rows, expected one each: 'x'" in refusal(tmp_path, TABLE + "10,x,B,1,70\n")


@pytest.mark.parametrize(("row", "column"), [(",z,A,1,4", "patient")])
def test_empty_id_error_names_the_row(tmp_path: Path, row: str, column: str) -> None:
    assert f"row 5: no {column} id" in refusal(tmp_path, TABLE + row + "\n")


def test_conflicting_labels_error_names_the_patient(tmp_path: Path) -> None:
    message = refusal(tmp_path, TABLE.replace("001-a,A,1", "001-a,A,0"))
    assert "'label' differs between slides of 1 patients" in message
    assert "patient '001' has '0', '1'" in message


@pytest.mark.parametrize("word", ["", "NA", "n/a", "NaN", "None", "null", "[Not Available]", "Unknown", " NA "])
def test_patients_without_a_label_are_left_out_and_counted(
    tmp_path: Path, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = TABLE.replace("y,B,1", f"y,B,{word}").replace("x,B,0,61", f"x,B,0,{word}")
    cohort = read(tmp_path, content)
    assert list(cohort.patients.index) == ["001", "1E5"]
    assert set(cohort.table["patient"]) == {"001", "1E5"}
    assert caplog.messages == ["1 of 3 patients are left out as they lack a label (label 1): '10'"]


def test_label_of_one_slide_applies_to_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cohort = read(tmp_path, TABLE.replace("001-a,A,1", "001-a,A,NA"))
    assert cohort.table["label"].tolist() == ["1", "0", "1", "1"]
    assert caplog.messages == []


def test_cohort_without_any_label_is_refused(tmp_path: Path) -> None:
    assert "no patient has a value in 'label' (1 patients)" in refusal(tmp_path, "patient,slide,label\n1,a,NA\n")


def test_patient_at_two_sites_gives_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cohort = read(tmp_path, TABLE.replace("001-a,A", "001-a,B"))
    assert caplog.messages == ["1 patients have slides of several sites, the first one's counts: '001'"]
    assert len(cohort.table) == 4


def test_error_lists_ten_slides_without_files(tmp_path: Path) -> None:
    rows = "".join(f"p{number:02},s{number:02},1\n" for number in range(15))
    table = read(tmp_path, "patient,slide,label\n" + rows).table
    (absent,) = without_files(table, ["s12", "s13", "s14", "other"])
    with pytest.raises(
        FeatureError,
        match=r"12 of 15 slides have no feature file; data.on_missing=skip leaves them out: 's00', .*'s09' and 2 more$",
    ):
        raise_first_error([absent])
    assert without_files(table, table["slide"].tolist()) == []


def test_skipped_slides_without_files_are_a_warning(tmp_path: Path) -> None:
    cohort, files = read(tmp_path), {"001-a", "x"}
    (absent,) = without_files(cohort.table, files, on_missing="skip")
    assert (absent.severity, absent.count, absent.first) == ("warning", 2, ("001-b", "y"))
    assert cohort.only(files).bags()["slides"].tolist() == [("001-a",), ("x",)]


def test_no_slide_in_common_error_shows_names_of_both_sides(tmp_path: Path) -> None:
    (absent,) = without_files(read(tmp_path).table, ["x.svs"], on_missing="skip")
    with pytest.raises(FeatureError, match=r"none of 4 slides .* names '001-a', '001-b', the files 'x.svs'"):
        raise_first_error([absent])


def test_slide_ids_drop_folders_and_file_extensions(tmp_path: Path) -> None:
    content = TABLE.replace("001-b", "sub/001-b.h5").replace("x,B", "C:\\scans\\x.svs,B")
    assert read(tmp_path, content).table["slide"].tolist() == ["001-b", "x", "001-a", "y"]
    assert "1 slides have several rows, expected one each: 'y'" in refusal(tmp_path, TABLE + "11,other/y.h5,B,1,70\n")


CLINICAL = """\
PATIENT,label,age,project_id
10,high,70,study
001,low,50,study
1E5,NA,61,study
99,low,40,study
"""
SLIDES = """\
FILENAME,PATIENT,center,project_id
x.h5,1E5,B,file
a/001-b.h5,001,A,file
z.h5,7,A,file
001-a.h5,001,A,file
y.h5,10,B,file
w.h5,7,B,file
"""


def read_two(
    folder: Path,
    clinical: str = CLINICAL,
    slides: str = SLIDES,
    columns: Columns | None = None,
    **words: dict[str, str],
) -> Cohort:
    (folder / "clini.csv").write_text(clinical)
    (folder / "slide.csv").write_text(slides)
    return Cohort.read(
        folder / "clini.csv", columns, ["label"], ["age"], slides=folder / "slide.csv", words=words
    ).require()


def test_clinical_and_slide_tables_are_joined_on_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cohort = read_two(tmp_path, label={"high": "MSI-H"})
    assert cohort.patients.to_dict("index") == {
        "001": {"site": "A", "label": "low", "age": "50", "slides": ("001-a", "001-b")},
        "10": {"site": "B", "label": "MSI-H", "age": "70", "slides": ("y",)},
    }
    assert cohort.table["project_id"].unique().tolist() == ["study"]
    clini, slide = tmp_path / "clini.csv", tmp_path / "slide.csv"
    assert caplog.messages == [
        f"1 of 4 patients of {clini} have no slide in {slide} and are left out: '99'",
        f"2 of 6 slides of {slide} are of 1 patients that are not in {clini} and are left out: '7'",
        "1 of 3 patients are left out as they lack a label (label 1): '1E5'",
    ]


def test_two_tables_equal_one_joined_table(tmp_path: Path) -> None:
    joined = "patient,slide,site,label,age\n001,001-b,A,low,50\n001,001-a,A,low,50\n10,y,B,high,70\n"
    pd.testing.assert_frame_equal(read_two(tmp_path).patients, read(tmp_path, joined).patients)


@pytest.mark.parametrize(
    ("clinical", "slides", "message"),
    [
        (
            CLINICAL + "10,low,70,study\n",
            SLIDES,
            "1 patients have several rows that differ in 'label'",
        ),
        (CLINICAL, SLIDES + "b/y.h5,10,B,file\n", "slide.csv: 1 slides have several rows, expected one each: 'y'"),
        (CLINICAL, "FILENAME,PATIENT\nq.h5,P-1\n", "have no patient in common: 'P-1' and '001', '10'"),
        (CLINICAL.replace("label", "lable"), SLIDES, "no column 'label'"),
        (CLINICAL, SLIDES.replace("PATIENT", "who"), "slide.csv has no column 'patient', it has FILENAME, who"),
        (CLINICAL, CLINICAL, "slide.csv has no column for the slide"),
    ],
)
def test_inconsistent_tables_are_refused(tmp_path: Path, clinical: str, slides: str, message: str) -> None:
    with pytest.raises(CohortError) as raised:
        read_two(tmp_path, clinical, slides)
    assert message in str(raised.value)


def test_declared_site_column_must_be_in_one_of_the_tables(tmp_path: Path) -> None:
    assert read_two(tmp_path, columns=Columns(site="project_id")).patients["site"].unique().tolist() == ["study"]
    assert read_two(tmp_path, columns=Columns(site="center")).patients["site"].tolist() == ["A", "B"]
    with pytest.raises(CohortError, match="no column 'hospital'"):
        read_two(tmp_path, columns=Columns(site="hospital"))


def test_label_values_are_translated_before_comparison(tmp_path: Path) -> None:
    content = TABLE.replace("001-a,A,1", "001-a,A,positive")
    assert "'label' differs" in refusal(tmp_path, content)
    cohort = Cohort.read(
        tmp_path / "cohort.csv", labels=["label"], words={"label": {"Positive": "1", "0": None}}
    ).require()
    assert cohort.patients["label"].to_dict() == {"001": "1", "10": "1"}


def test_label_value_translated_to_none_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path)
    Cohort.read(tmp_path / "cohort.csv", labels=["label"], words={"label": {"0": None}}).require()
    assert caplog.messages == ["1 of 3 patients are left out as they lack a label (label 1): '1E5'"]


def test_a_declared_word_is_a_value_where_it_usually_means_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("patient,slide,N\np1,a,none\np2,b,NA\np3,c,micro\n")
    cohort = Cohort.read(path, labels=["N"], declared={"N": ("none", "micro")}).require()
    assert cohort.patients["N"].to_dict() == {"p1": "none", "p3": "micro"}
    assert Cohort.read(path, labels=["N"]).require().patients["N"].to_dict() == {"p3": "micro"}


def test_declared_words_that_differ_within_a_patient_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("patient,slide,N\np1,a,none\np1,b,micro\n")
    with pytest.raises(CohortError, match=r"'N' differs between slides of 1 patients.*'micro', 'none'"):
        Cohort.read(path, labels=["N"], declared={"N": ("none", "micro")}).require()


def test_covariates_that_differ_within_a_patient_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("patient,slide,label,age\np1,a,0,50\np1,b,0,60\np2,c,1,NA\np2,d,1,70\n")
    cohort = Cohort.read(path, labels=["label"], covariates=["age"])
    [finding] = cohort.findings
    assert (finding.severity, finding.code, finding.first) == ("warning", "value-differs", ("p1",))
    assert "the first one counts (patient 'p1' has '50', '60')" in finding.message
