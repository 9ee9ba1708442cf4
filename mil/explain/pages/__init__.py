"""Pages that show predictions and what speaks for them: one file for each patient, and an index of them."""

from collections.abc import Iterable
from pathlib import Path

from mil import files
from mil.explain.file_names import file_names
from mil.explain.pages.case import Case
from mil.explain.pages.case_page import case_page
from mil.explain.pages.cases_index import IndexRow, index_page, index_row

INDEX = "index.html"


def write_cases(folder: Path, cases: Iterable[Case], patients: Iterable[str], title: str, banner: str) -> Path:
    """Write a page for each case and `index.html`, misses and false calls first; return the index.

    Cases are read one after the other and not kept, so that a large cohort needs the memory of one patient.

    Args:
        folder: Where; is made where it does not exist.
        cases: What is shown.
        patients: Names of all patients that `cases` has, from which the names of the files are made.
        title: Of the tool.
        banner: What stands above everything: simulated data, research use.
    """
    names, rows = file_names(patients), list[IndexRow]()
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        name = f"{names[case.scores.patient]}.html"
        files.write(folder / name, case_page(case, back=INDEX))
        rows.append(index_row(case, name))
    files.write(folder / INDEX, index_page(rows, title, banner))
    return folder / INDEX
