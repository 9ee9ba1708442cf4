"""The resolution of each slide, where the table of slides has a column for it."""

from pathlib import Path

import pandas as pd

from mil.cohort.columns import Columns, identified
from mil.errors import CohortError
from mil.findings import Checked, Finding
from mil.slide_names import slide_id
from mil.tables import checked_table, is_missing, listed

_NAMES = frozenset(
    {"mpp", "mppx", "slidempp", "level0mpp", "micronsperpixel", "micrometersperpixel", "micrometresperpixel"}
)
_LOWEST, _HIGHEST = 0.02, 20.0
"""Micrometres a pixel that a scanner of tissue may have: 0.02 would be 500x, 20 half a magnification."""


def slide_mpps(path: Path, rows: pd.DataFrame, column: str | None = None) -> Checked[dict[str, float]]:
    """Return micrometres a level-0 pixel by slide; empty where the table has no column for it.

    Args:
        path: The table, for messages.
        rows: One row a slide, all text, with the column `slide`.
        column: Name of the column, `data.columns.mpp`; None looks for common names such as `mpp`.

    Returns:
        The slides that have a value. A missing column, or values that are no resolution, are errors among the findings.
    """
    if column is not None and column not in rows:
        message = f"{path} has no column '{column}' (data.columns.mpp), it has {listed(list(map(str, rows.columns)))}"
        return Checked({}, (Finding("error", "cohort", message, raises=CohortError),))
    names = [column] if column is not None else [name for name in map(str, rows.columns) if _is_resolution(name)]
    if len(names) > 1:
        message = f"{path}: {listed(names)} may be the resolution of slides, none is taken; give data.columns.mpp=..."
        return Checked({}, (Finding("warning", "which-mpp", message, len(names)),))
    if not names:
        return Checked({})
    return _numbers(path, names[0], rows[["slide", names[0]]])


def slide_mpps_in(path: Path, columns: Columns | None = None) -> dict[str, float]:
    """Return micrometres a level-0 pixel by slide, from a table with a row for each slide.

    Raises:
        CohortError: The table cannot be read, has no column for slides or for their resolution, or other values.
    """
    raw = checked_table(path).value_or_raise()
    rows = identified(path, raw, columns or Columns(), ("slide",), set()).value_or_raise()
    rows["slide"] = rows["slide"].map(slide_id)
    mpps = slide_mpps(path, rows, None if columns is None else columns.mpp).require()
    if not mpps:
        columns_there = listed(list(map(str, rows.columns)))
        raise CohortError(f"{path} has no column of micrometres per pixel such as 'mpp', it has {columns_there}")
    return mpps


def _is_resolution(name: str) -> bool:
    return "".join(letter for letter in name.casefold() if letter.isalnum()) in _NAMES


def _numbers(path: Path, column: str, rows: pd.DataFrame) -> Checked[dict[str, float]]:
    stated = rows[(rows["slide"] != "") & (rows[column] != "") & ~is_missing(rows[column])]
    numbers = pd.to_numeric(stated[column], errors="coerce")
    wrong = stated.loc[~numbers.between(_LOWEST, _HIGHEST), "slide"]
    mpps = _by_slide(stated["slide"], numbers)
    if wrong.empty:
        return Checked(mpps)
    value = stated.loc[wrong.index[0], column]
    message = (
        f"{path}: {len(wrong)} slides have no resolution in '{column}' (slide '{wrong.iloc[0]}' has '{value}'), "
        f"expected micrometres per pixel at level 0, {_LOWEST:g} to {_HIGHEST:g}"
    )
    return Checked({}, (Finding.of_items("error", "mpp", message, sorted(set(wrong)), CohortError),))


def _by_slide(slides: "pd.Series[str]", numbers: "pd.Series[float]") -> dict[str, float]:
    return dict(zip(slides.tolist(), numbers.tolist(), strict=True))
