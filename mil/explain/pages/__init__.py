"""Pages that show predictions and what speaks for them: one file for each patient, and an index of them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mil import files
from mil.explain.file_names import file_names
from mil.explain.pages.case import Case
from mil.explain.pages.case_page import case_page
from mil.explain.pages.cases_index import IndexRow, index_page, index_row

INDEX = "index.html"


def write_pages(folder: Path, cases: Iterable[Case], patients: Iterable[str]) -> Iterator[IndexRow]:
    """Write a page for each case, and yield the rows of their index.

    Cases are read one after the other and not kept, so that a large cohort needs the memory of one patient.

    Args:
        folder: Where; is made where it does not exist.
        cases: What is shown.
        patients: Names of all patients that have a page in this folder, from which the names of the files are made.
    """
    names = file_names(patients)
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        name = f"{names[case.scores.patient]}.html"
        files.write(folder / name, case_page(case, back=INDEX))
        yield index_row(case, name)


def write_index(folder: Path, rows: Sequence[IndexRow], title: str, banner: str) -> Path:
    """Write `index.html`, misses and false calls first, and return it.

    Args:
        folder: The folder of the pages.
        rows: Of all pages.
        title: Of the tool.
        banner: What stands above everything: simulated data, research use.
    """
    files.write(folder / INDEX, index_page(rows, title, banner))
    return folder / INDEX
