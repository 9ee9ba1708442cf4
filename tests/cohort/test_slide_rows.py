"""Contradictory rows: all are counted, and the first one is the error that `Cohort.read` raises."""

from pathlib import Path

import pytest

from mil.cohort.clinical_table import Cohort
from mil.cohort.slide_rows import patients_without, read_rows
from mil.errors import CohortError, ConfigError
from mil.findings import Checked

CLEAN = "patient,slide,site,MSI\np1,a,x,low\np1,b,x,low\np2,c.svs,y,high\n"


def write_table(folder: Path, text: str, name: str = "cohort.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def codes(result: Checked[object]) -> list[str]:
    return [finding.code for finding in result.findings]


def test_clean_table_has_no_findings(tmp_path: Path) -> None:
    path = write_table(tmp_path, CLEAN)
    result = read_rows(path, labels=["MSI"])
    assert result.findings == ()
    rows = result.value_or_raise()
    assert patients_without(rows, ["MSI"]) == {"MSI": []}
    assert (
        rows["slide"].tolist() == Cohort.read(path, labels=["MSI"]).require().table["slide"].tolist() == ["a", "b", "c"]
    )


@pytest.mark.parametrize(
    ("rows", "code", "count", "first"),
    [
        (",d,x,low\n,e,x,low\n", "no-id", 2, ()),
        ("p3,a.h5,x,low\np3,c,x,low\n", "doubled-slide", 2, ("a", "c")),
        ("p1,d,x,high\np2,e,y,low\n", "label-differs", 2, ("p1", "p2")),
    ],
)
def test_contradictions_are_counted_and_worded_like_the_error(
    rows: str, code: str, count: int, first: tuple[str, ...], tmp_path: Path
) -> None:
    path = write_table(tmp_path, CLEAN + rows)
    result = read_rows(path, labels=["MSI"])
    (finding,) = result.findings
    assert (finding.severity, finding.code, finding.count, finding.first) == ("error", code, count, first)
    assert result.value is not None
    with pytest.raises(CohortError) as error:
        Cohort.read(path, labels=["MSI"]).require()
    assert str(error.value) == finding.line


def test_all_contradictions_are_reported(tmp_path: Path) -> None:
    path = write_table(tmp_path, CLEAN + "p1,a,z,high\n,e,y,low\n")
    result = read_rows(path, labels=["MSI", "age"])
    assert codes(result) == ["no-id", "doubled-slide", "cohort", "several-sites", "label-differs"]
    assert "no column 'age'" in result.findings[2].message
    sites = result.findings[3]
    assert (sites.severity, sites.first) == ("warning", ("p1",))
    assert Cohort.read(path, labels=["MSI", "age"]).value is None


def test_values_declared_missing_count_as_missing(tmp_path: Path) -> None:
    path = write_table(tmp_path, CLEAN + "p3,d,x,n/a\np4,e,x,unclear\np5,f,x,\np5,g,x,low\n")
    rows = read_rows(path, labels=["MSI"], words={"MSI": {"unclear": None}}).require()
    assert patients_without(rows, ["MSI", "absent"]) == {"MSI": ["p3", "p4"]}
    cohort = Cohort.from_rows(path, rows, ["MSI"])
    (left_out,) = cohort.findings
    assert (left_out.severity, left_out.first) == ("warning", ("p3", "p4"))
    assert left_out.message == "2 of 5 patients are left out as they lack a label (MSI 2)"
    assert sorted(cohort.require().patients.index) == ["p1", "p2", "p5"]


def test_patients_in_only_one_of_two_tables_are_reported(tmp_path: Path) -> None:
    clinical = write_table(tmp_path, "PATIENT,MSI\np1,low\np2,high\np9,low\n")
    slides = write_table(tmp_path, "PATIENT,FILENAME\np1,a.h5\np2,b.h5\np7,c.h5\n", "slides.csv")
    result = read_rows(clinical, labels=["MSI"], slides=slides)
    rows = result.value_or_raise()
    assert rows[["patient", "slide", "MSI"]].to_numpy().tolist() == [["p1", "a", "low"], ["p2", "b", "high"]]
    without_slides, unknown = result.findings
    assert (without_slides.code, without_slides.first) == ("no-slides", ("p9",))
    assert (unknown.code, unknown.first) == ("no-patient", ("p7",))


def test_repeated_rows_are_reported_with_their_table(tmp_path: Path) -> None:
    clinical = write_table(tmp_path, "PATIENT,MSI\np1,low\np1,high\np2,high\n")
    slides = write_table(tmp_path, "PATIENT,FILENAME\np1,a.h5\np2,b.h5\np2,b.svs\n", "slides.csv")
    patient, slide = read_rows(clinical, labels=["MSI"], slides=slides).errors
    assert patient.line == f"{clinical}: 1 patients have several rows that differ in 'MSI', expected one each: 'p1'"
    assert slide.line == f"{slides}: 1 slides have several rows, expected one each: 'b'"


def test_unreadable_table_keeps_its_error_class(tmp_path: Path) -> None:
    absent = read_rows(tmp_path / "absent.csv")
    assert (absent.value, codes(absent)) == (None, ["cohort"])
    with pytest.raises(CohortError, match=r"absent\.csv cannot be read"):
        absent.require()
    path = write_table(tmp_path, CLEAN)
    with pytest.raises(ConfigError, match=r"data\.labels\.MIS: 'MIS' is neither a label nor a covariate"):
        read_rows(path, labels=["MSI"], words={"MIS": {"low": "MSS"}}).require()


SLIDES = "PATIENT,FILENAME\np1,a\np1,b\np2,c\np9,d\np9,d\n,e\n"
CLINIC = "PATIENT,MSI\np1,low\np2,high\np3,odd\np3,low\np3,low\n,low\n"


def test_rows_of_other_patients_do_not_spoil_a_cohort(tmp_path: Path) -> None:
    clinic = write_table(tmp_path, CLINIC, "clinic.csv")
    slides = write_table(tmp_path, SLIDES, "slides.csv")
    result = read_rows(clinic, labels=["MSI"], slides=slides)
    assert not result.errors
    assert codes(result) == ["no-id", "no-id", "no-slides", "no-patient"]
    assert result.value_or_raise()["slide"].tolist() == ["a", "b", "c"]


def test_rows_of_patients_without_features_contradict_nothing(tmp_path: Path) -> None:
    path, header = tmp_path / "cohort.csv", "patient,slide,site,MSI\n"
    good = "p1,a,x,low\np2,b,x,high\n"
    others = "p9,z,x,low\np9,y,x,high\n", "p9,z,x,low\np9,z,x,low\n", ",z,x,low\n"
    for rows in others:
        path.write_text(header + good + rows)
        assert read_rows(path, labels=["MSI"]).errors, "all rows are judged where all are used"
        judged = read_rows(path, labels=["MSI"], has_file=lambda table: table["slide"].isin(["a", "b"]))
        assert judged.errors == []
        assert set(judged.require()["slide"]) >= {"a", "b", "z"}
        path.write_text(header + good + rows.replace("p9", "p1").replace("\n,", "\np1,"))
        if "p9" in rows:  # the other slides of a patient with features count
            judged = read_rows(path, labels=["MSI"], has_file=lambda table: table["slide"].isin(["a", "b"]))
            assert judged.errors


def test_duplicates_of_patients_without_features_count_in_no_table(tmp_path: Path) -> None:
    clinical, slides = tmp_path / "clinical.csv", tmp_path / "slides.csv"
    clinical.write_text("patient,MSI\np1,low\np2,high\np9,low\np9,high\n")
    slides.write_text("patient,slide\np1,a\np2,b\np9,z\np9,z\n")
    assert len(read_rows(clinical, labels=["MSI"], slides=slides).errors) == 2
    judged = read_rows(clinical, labels=["MSI"], slides=slides, has_file=lambda table: table["slide"].isin(["a", "b"]))
    assert judged.errors == []


def test_several_rows_of_a_patient_are_an_error_only_where_they_differ_in_what_is_used(tmp_path: Path) -> None:
    slides = write_table(tmp_path, SLIDES, "slides.csv")
    alike = "PATIENT,sample,MSI\np1,1,low\np1,2,low\np2,1,high\n"
    result = read_rows(write_table(tmp_path, alike), labels=["MSI"], slides=slides)
    assert not result.errors
    assert "1 patients have several rows with the same 'MSI'" in " ".join(each.message for each in result.findings)
    assert len(result.value_or_raise()) == 3
    differing = write_table(tmp_path, alike.replace("p1,2,low", "p1,2,high"))
    [error] = read_rows(differing, labels=["MSI"], slides=slides).errors
    assert (error.code, error.first) == ("doubled-patient", ("p1",))


def test_rows_without_a_slide_are_of_patients_without_one(tmp_path: Path) -> None:
    result = read_rows(write_table(tmp_path, CLEAN + "p3,,y,high\n"), labels=["MSI"])
    assert codes(result) == ["no-id"]
    assert result.findings[0].severity == "warning"
    assert "p3" not in set(result.value_or_raise()["patient"])
