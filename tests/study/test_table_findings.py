"""Rows that contradict each other; the words are those of `Cohort.read`, which stops at the first."""

from pathlib import Path

import pytest

from mil.cohort.clinical_table import Cohort
from mil.cohort.columns import Columns
from mil.errors import CohortError
from mil.study import table_findings
from mil.study.findings import Finding

CLEAN = "patient,slide,site,MSI\np1,a,x,low\np1,b,x,low\np2,c.svs,y,high\n"


def written(folder: Path, text: str, name: str = "cohort.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def found_in(path: Path) -> list[Finding]:
    raw = table_findings.raw(path, None, Columns(), ["MSI"], [], {})
    return [
        *table_findings.without_ids(path, raw),
        *table_findings.doubled(path, raw),
        *table_findings.differing(path, raw, ["MSI"]),
    ]


def test_a_clean_table_has_no_finding(tmp_path: Path) -> None:
    path = written(tmp_path, CLEAN)
    raw = table_findings.raw(path, None, Columns(), ["MSI"], [], {})
    assert found_in(path) == []
    assert table_findings.several_sites(raw) == []
    assert table_findings.lacking(raw, ["MSI"]) == {"MSI": []}
    assert raw["slide"].tolist() == Cohort.read(path, labels=["MSI"]).table["slide"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("rows", "code", "count", "first"),
    [
        ("p3,,x,low\np4,,x,low\n", "no-id", 2, ()),
        ("p3,a.h5,x,low\np3,c,x,low\n", "doubled-slide", 2, ("a", "c")),
        ("p1,d,x,high\np2,e,y,low\n", "label-differs", 2, ("p1", "p2")),
    ],
)
def test_contradictions_are_counted_in_the_words_of_the_error_that_stops_a_run(
    rows: str, code: str, count: int, first: tuple[str, ...], tmp_path: Path
) -> None:
    path = written(tmp_path, CLEAN + rows)
    (found,) = found_in(path)
    assert (found.severity, found.code, found.count, found.first) == ("error", code, count, first)
    with pytest.raises(CohortError) as error:
        Cohort.read(path, labels=["MSI"])
    assert str(error.value).startswith(found.message)


def test_several_contradictions_are_all_found(tmp_path: Path) -> None:
    path = written(tmp_path, CLEAN + "p1,a,z,high\n,e,y,low\n")
    assert [one.code for one in found_in(path)] == ["no-id", "doubled-slide", "label-differs"]
    (sites,) = table_findings.several_sites(table_findings.raw(path, None, Columns(), ["MSI"], [], {}))
    assert (sites.severity, sites.first) == ("warning", ("p1",))


def test_missing_words_and_those_declared_missing_count_as_missing(tmp_path: Path) -> None:
    path = written(tmp_path, CLEAN + "p3,d,x,n/a\np4,e,x,unclear\np5,f,x,\np5,g,x,low\n")
    raw = table_findings.raw(path, None, Columns(), ["MSI"], [], {"MSI": {"unclear": None}})
    assert table_findings.lacking(raw, ["MSI", "absent"]) == {"MSI": ["p3", "p4"]}
    (found,) = table_findings.left_out(5, table_findings.lacking(raw, ["MSI"]), ["p3", "p4"])
    assert found.message == "2 of 5 patients are left out as they lack a label (MSI 2)"


def test_two_tables_are_joined_and_tell_whom_the_other_lacks(tmp_path: Path) -> None:
    clinical = written(tmp_path, "PATIENT,MSI\np1,low\np2,high\np9,low\n")
    slides = written(tmp_path, "PATIENT,FILENAME\np1,a.h5\np2,b.h5\np7,c.h5\n", "slides.csv")
    raw = table_findings.raw(clinical, slides, Columns(), ["MSI"], [], {})
    assert raw[["patient", "slide", "MSI"]].to_numpy().tolist() == [["p1", "a", "low"], ["p2", "b", "high"]]
    bare, unknown = table_findings.strangers(clinical, slides, Columns())
    assert (bare.code, bare.first) == ("no-slides", ("p9",))
    assert (unknown.code, unknown.first) == ("no-patient", ("p7",))
