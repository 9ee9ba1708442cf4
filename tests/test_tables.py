import csv
import gzip
import os
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import CohortError, SplitError
from mil.tables import (
    csv_text,
    is_missing,
    listed,
    names_no_site,
    neutralised,
    read_table,
    require,
    restored,
    without_marks,
)

PLAIN = b"patient,slide,label\n001,a,1E5\n1E5,b,NA\n"


def write(folder: Path, content: bytes, name: str = "cohort.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.replace(b",", b";"),
        PLAIN.replace(b",", b"\t"),
        PLAIN.replace(b",", b" , "),
        PLAIN.replace(b"\n", b"  \n\n"),
        PLAIN.replace(b"\n", b",,\n"),
        b"\n\n" + PLAIN,
        b'"patient","slide","label"\n"001","a","1E5"\n"1E5","b","NA"',
        PLAIN.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + PLAIN.replace(b",", b" ; ").replace(b"\n", b" \r\n"),
        b"sep=;\n" + PLAIN.replace(b",", b";"),
        b"sep=\t\r\n" + PLAIN.replace(b",", b"\t").replace(b"\n", b"\r\n"),
        PLAIN.replace(b",", b",,"),
        PLAIN.replace(b"\n", b",,\n").replace(b"slide,", b"slide,,").replace(b"a,", b"a,,").replace(b"b,", b"b,,"),
    ],
)
def test_encoding_and_delimiter_do_not_matter(tmp_path: Path, content: bytes) -> None:
    for name in ("cohort.csv", "cohort.csv.gz"):
        table = read_table(write(tmp_path, content, name))
        assert table.to_dict("list") == {"patient": ["001", "1E5"], "slide": ["a", "b"], "label": ["1E5", "NA"]}


def test_quoted_delimiters_are_ignored(tmp_path: Path) -> None:
    content = b'patient;"ductal, lobular, NOS";slide\nA;"1,5";s\n'
    assert list(read_table(write(tmp_path, content)).columns) == ["patient", "ductal, lobular, NOS", "slide"]


def test_commas_in_column_names_do_not_change_the_delimiter(tmp_path: Path) -> None:
    content = b"patient\tslide\tdiagnosis, first, second, third\n1\ts1\tx\n2\ts2\ty\n"
    table = read_table(write(tmp_path, content))
    assert table.to_dict("list") == {
        "patient": ["1", "2"],
        "slide": ["s1", "s2"],
        "diagnosis, first, second, third": ["x", "y"],
    }


def test_unnamed_column_with_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="row 2: 3 fields, the header has 2"):
        read_table(write(tmp_path, b"a,b,\n1,2,\n1,2,3\n"))


def test_declared_words_are_values_and_others_missing() -> None:
    values = pd.Series(["none", " NA ", "", None, "x", "'--", "Not Reported", "-"])
    assert is_missing(values).tolist() == [True, True, True, True, False, True, True, True]
    assert is_missing(values, ["None", "-"]).tolist() == [False, True, True, True, False, True, True, False]


def test_multiline_field_becomes_one_line(tmp_path: Path) -> None:
    content = b'patient,"Age\n at  diagnosis (years)"\n1,"two  words"\n'
    assert read_table(write(tmp_path, content)).to_dict("list") == {
        "patient": ["1"],
        "Age at diagnosis (years)": ["two  words"],
    }


def test_single_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, b"slide\n1\n02\n")).to_dict("list") == {"slide": ["1", "02"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n,\n", "is empty"),
        (b"patient,slide\n", "no rows"),
        (b"a,b\n1,2\n1,2,3\n", "row 2: 3 fields, the header has 2"),
        (b"a,b\n1\n", "row 1: 1 fields, the header has 2"),
        (b"a,b,a\n1,2,3\n", "column 'a' twice"),
        (b"a,b\n\xe4,2\n", "no UTF-8 text"),
        (b"\x00\xff\xff", "no UTF-8 text"),
        (b"PK\x03\x04\xff\xff", "cannot be read as a workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel before 2007"),
    ],
)
def test_invalid_table_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(CohortError, match=reason):
        read_table(write(tmp_path, content))
    with pytest.raises(SplitError, match=r"cohort\.csv"):
        read_table(write(tmp_path, content), SplitError)


def test_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(CohortError, match="cannot be read"):
            read_table(path)
    path = write(tmp_path, PLAIN * 100, "cohort.csv.gz")
    for content in (path.read_bytes()[:-20], PLAIN, b"\x1f\x8b" + PLAIN):
        path.write_bytes(content)
        with pytest.raises(CohortError, match="cannot be read"):
            read_table(path)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.text("ab,;\t\"'\n\r\0 ", max_size=40).map(str.encode))
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp(), content, "any.csv")
    try:
        table = read_table(path)
    except CohortError:
        return
    assert len(table) > 0


def test_missing_column_error_names_columns_and_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN)
    with pytest.raises(CohortError, match="no column 'Lable', it has patient, slide, label; the nearest is 'label'"):
        require(path, read_table(path), ["patient", "Lable"])


def test_list_of_ids_stops_at_ten() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed([str(number) for number in range(13)]).endswith("'8', '9' and 3 more")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1+1", "'\t=1+1"),
        ("＝1+1", "'＝1+1"),
        ("'=x", "''=x"),
        ("-1.5e-3", "-1.5e-3"),
        ("-", "-"),
        ("'60", "'60"),
        ("TCGA-1=2", "TCGA-1=2"),
    ],
)
def test_no_cell_of_ours_is_a_formula_and_each_reads_back(text: str, cell: str, tmp_path: Path) -> None:
    assert neutralised(text) == cell
    assert restored(cell) == text
    table = pd.DataFrame({"patient": [text, "P1"], text: ["a", "b"], "score": [-0.1 - 0.2, 1.0]})
    path = tmp_path / "own.csv"
    path.write_text(csv_text(table), encoding="utf-8")
    with path.open(newline="", encoding="utf-8") as file:
        header, first, _ = csv.reader(file)
    assert (header[1], first[0], float(first[2])) == (cell, cell, -0.1 - 0.2)
    pd.testing.assert_frame_equal(without_marks(pd.read_csv(path, float_precision="round_trip")), table)
    if text == text.strip():
        assert list(read_table(path)["patient"]) == [text, "P1"]


def test_small_files_of_huge_tables_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "c.csv.gz"
    with gzip.open(bomb, "wb", 1) as file:
        for _ in range(30):
            file.write(b"\0" * (10 << 20))
    with pytest.raises(CohortError, match="unpacks to more than 256 MiB"):
        read_table(bomb)
    wide = write(tmp_path, (",".join(f"c{at}" for at in range(17_000)) + "\n").encode())
    with pytest.raises(CohortError, match="expected at most 16384"):
        read_table(wide)
    monkeypatch.setattr("mil.tables.MOST_CELLS", 50)
    with pytest.raises(CohortError, match="expected at most 50 cells"):
        read_table(write(tmp_path, b"a,b\n" + b"1,2\n" * 30))
    monkeypatch.setattr("mil.workbook._MOST_CELLS", 50)
    book = openpyxl.Workbook()
    for _ in range(30):
        book.active.append(["a", "b"])  # type: ignore[union-attr]
    book.save(tmp_path / "c.xlsx")
    with pytest.raises(CohortError, match=r"more than \d+ cells"):
        read_table(tmp_path / "c.xlsx")


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(CohortError, match="it is a pipe, expected a file"):
        read_table(tmp_path / "pipe.csv")


def test_a_nul_character_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"cohort\.csv, line 3: holds a NUL character, expected a CSV saved as UTF-8"):
        read_table(write(tmp_path, b"patient,slide\nP1,a\nP1\0,b\n"))


def test_words_for_a_missing_value_may_have_any_spaces() -> None:
    words = pd.Series(["not  reported", " Not\u00a0Reported ", "N.A.", "<NA>", "not reported yet", ""])
    assert is_missing(words).tolist() == [True, True, True, True, False, True]


def test_a_quoted_separator_line_and_bars_are_understood(tmp_path: Path) -> None:
    rows = read_table(write(tmp_path, PLAIN))
    for content in (b'"sep=;"\n' + PLAIN.replace(b",", b";"), PLAIN.replace(b",", b"|")):
        assert read_table(write(tmp_path, content)).equals(rows)


def test_a_title_above_the_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"the header has 1; if it is a title, remove the lines above the header"):
        read_table(write(tmp_path, b"# exported in 2024\n" + PLAIN))


@pytest.mark.parametrize(
    ("patient", "site", "is_missing"),
    [
        ("P1", "NA", True),
        ("P1", " Not  Reported ", True),
        ("P1", "'--", True),
        ("P1", "", True),
        ("P1", "Mainz", False),
        ("TCGA-NA-A4QV", "NA", False),
        ("tcga-na-a4qv", "na", False),
        ("TCGA-N9-A4QV", "NA", True),
        ("TCGA-NA-A4QV", "unknown", True),
    ],
)
def test_words_for_a_missing_site_and_the_site_of_tcga_that_is_spelled_like_one(
    patient: str, site: str, is_missing: bool
) -> None:
    assert names_no_site(patient, site) is is_missing
