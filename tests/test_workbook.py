import io
import logging
import zipfile
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.chart import BarChart

from mil import workbook
from mil.cohort.clinical_table import Cohort
from mil.errors import CohortError, SplitError
from mil.tables import read_table

Value = str | float | bool | date | None
ROWS: list[list[Value]] = [["patient", "slide", "label"], ["001", "a", "1E5"], ["1E5", "b", None]]


def content(rows: Sequence[Sequence[Value]] = ROWS, formats: dict[str, str] | None = None) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in rows:
        sheet.append(list(row))
    for cell, shown in (formats or {}).items():
        sheet[cell].number_format = shown
    return saved(book)


def saved(book: openpyxl.Workbook) -> bytes:
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def write(folder: Path, raw: bytes, name: str = "cohort.xlsx") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def test_workbook_equals_csv_under_any_file_name(tmp_path: Path) -> None:
    for name in ("cohort.xlsx", "cohort.csv"):
        table = read_table(write(tmp_path, content(), name))
        assert table.to_dict("list") == {"patient": ["001", "1E5"], "slide": ["a", "b"], "label": ["1E5", ""]}


def test_cohort_is_read_from_a_workbook(tmp_path: Path) -> None:
    cohort = Cohort.read(write(tmp_path, content([*ROWS, ["2", "c.svs", "x"]])), labels=["label"]).require()
    assert cohort.patients["label"].to_dict() == {"001": "1E5", "2": "x"}


@pytest.mark.parametrize(
    ("value", "shown", "text"),
    [
        (7, "General", "7"),
        (7, "000", "007"),
        (1234, "000", "1234"),
        (-7, "000", "-7"),
        (100000, "0.00E+00", "100000"),
        (0.1, "General", "0.1"),
        (12.0, "0.0", "12"),
        (1e300, "General", "1e+300"),
        (True, "General", "TRUE"),
        ("2024-05", "General", "2024-05"),
        (" 1/2 ", "General", "1/2"),
        (datetime(2024, 5, 1), "dd/mm/yyyy", "2024-05-01"),
        (datetime(2024, 5, 1, 13, 30), "dd/mm/yyyy hh:mm", "2024-05-01 13:30:00"),
        ("#N/A", "General", "#N/A"),
    ],
)
def test_cell_values_become_text(tmp_path: Path, value: Value, shown: str, text: str) -> None:
    path = write(tmp_path, content([["id"], [value]], {"A2": shown}))
    assert read_table(path)["id"].tolist() == [text]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.text("0123456789abE.-+ é", min_size=1, max_size=6).filter(str.strip), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_text_is_unchanged(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path = write(tmp_path_factory.getbasetemp(), content([["a", "b", "c"], *rows]), "typed.xlsx")
    assert read_table(path).to_numpy().tolist() == [[text.strip() for text in row] for row in rows]


def test_blank_rows_and_columns_around_the_table_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, content([[None], ["a", "b", " "], ["1"], [None, None, None], ["2", "3"], [" "]]))
    assert read_table(path).to_dict("list") == {"a": ["1", "2"], "b": ["", "3"]}


def test_first_sheet_with_a_table_is_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for line in ("about this file", "=1+1"):
        book.worksheets[0].append([line])
    sheet = book.create_sheet("data")
    for row in (["patient", "slide"], ["1", "s1"]):
        sheet.append(row)
    assert read_table(write(tmp_path, saved(book))).to_dict("list") == {"patient": ["1"], "slide": ["s1"]}


def test_a_warning_names_the_sheet_that_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = openpyxl.load_workbook(io.BytesIO(content()))
    book.worksheets[0].title = "clinic"
    book.create_sheet("other").append(["patient"])
    path = write(tmp_path, saved(book))
    with caplog.at_level(logging.WARNING):
        assert len(read_table(path)) == 2
    assert caplog.messages == [f"{path} has 2 sheets, only 'clinic' is read"]


def test_sheet_with_a_wrong_declared_size_is_read_completely(tmp_path: Path) -> None:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content())) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'<dimension ref="A1:C3"', b'<dimension ref="A1:A1"'))
    assert changed.getvalue() != content()
    assert read_table(write(tmp_path, changed.getvalue())).shape == (2, 3)


def test_formula_error_names_the_cell(tmp_path: Path) -> None:
    path = write(tmp_path, content([["patient", "age"], ["1", "=2+3"]]))
    with pytest.raises(CohortError, match=r"cohort\.xlsx, cell B2 holds a formula"):
        read_table(path)


def test_workbook_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="is empty"):
        read_table(write(tmp_path, content([])))
    book = openpyxl.Workbook()
    book.create_chartsheet("chart").add_chart(BarChart())
    book.remove(book.worksheets[0])
    with pytest.raises(CohortError, match="has no sheet"):
        read_table(write(tmp_path, saved(book)))


def test_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "_LARGEST", 1000)
    with pytest.raises(CohortError, match="expected a table of less than"):
        read_table(write(tmp_path, content()))


@pytest.mark.filterwarnings("ignore::UserWarning:openpyxl")  # openpyxl warns of defects that it can read
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_workbook_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    damaged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content())) as old, zipfile.ZipFile(damaged, "w") as new:
        member = data.draw(st.sampled_from(old.namelist()))
        for name in old.namelist():
            part = old.read(name)
            if name == member:
                start = data.draw(st.integers(0, len(part) - 1))
                end = data.draw(st.integers(start, min(len(part), start + 40)))
                part = part[:start] + data.draw(st.binary(max_size=4)) + part[end:]
            new.writestr(name, part)
    cut = data.draw(st.integers(0, 2000))
    raw = damaged.getvalue()[:-cut] if data.draw(st.booleans()) and cut else damaged.getvalue()
    outcome = ""
    try:
        outcome = read_table(write(tmp_path_factory.getbasetemp(), raw, "damaged.xlsx"), SplitError).columns[0]
    except SplitError as refused:
        outcome = str(refused)
    assert outcome
    assert "\n" not in outcome
