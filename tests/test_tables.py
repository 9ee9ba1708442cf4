import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import CohortError, SplitError
from mil.tables import is_missing, listed, read_table, require

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
