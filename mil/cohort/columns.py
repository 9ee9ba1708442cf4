"""Find the id columns of a table, and translate the words in other columns."""

import difflib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mil.errors import CohortError, ConfigError
from mil.findings import Checked, Finding
from mil.tables import is_missing, listed, names_no_site, require

_log = logging.getLogger(__name__)

Words = Mapping[str, Mapping[str, str | None]]
"""What the words of a column mean: `{column: {word: class}}`; None is a missing value."""
Declared = Mapping[str, Collection[str]]
"""Words by column that are values even where they usually mean a missing one, such as a class `none`."""

_SPELLINGS = {
    "patient": ["patient", "case", "subject", "participant", "case submitter", "submitter"],
    "slide": ["slide", "wsi", "image", "file", "slide file", "image file"],
    "site": ["site", "center", "centre", "tissue source site"],
}
_SUFFIXES = {"patient": ("", "id", "barcode"), "slide": ("", "id", "name"), "site": ("", "id", "code")}
_WHOLE = {"patient": ["bcr patient barcode", "TCGA participant barcode"], "slide": [], "site": ["tss", "TSS code"]}


@dataclass(frozen=True)
class Columns:
    """Names of the id columns of a table, and of the slides' resolution; None looks for common names.

    A table without a column for the site has no sites. `mpp` is in micrometres a level-0 pixel.
    """

    patient: str | None = None
    slide: str | None = None
    site: str | None = None
    mpp: str | None = None


def identified(
    path: Path, raw: pd.DataFrame, columns: Columns, needed: Collection[str], requested: set[str]
) -> Checked[pd.DataFrame]:
    """Return the table with its ids first, as `patient`, `slide` and `site`, where it has them.

    Where several columns may be the site, none is taken and a warning names them. Words for a missing value are empty
    ids: patients called `NA` would otherwise be one patient.

    Args:
        path: File of the table, for messages.
        raw: The table as it was read.
        columns: Names of the id columns.
        needed: The ids that it must have.
        requested: Labels and covariates: columns that keep their names even where they are ids.

    Raises:
        CohortError: A needed column is missing, or several columns may be the one.
    """
    warnings: list[Finding] = []
    names: dict[str, str] = {}
    for name in _SPELLINGS:
        if (column := _id_column(path, raw, name, getattr(columns, name), name in needed, warnings)) is not None:
            names[name] = column
    ids = {name: _without_words(raw[column], name) for name, column in names.items()}
    if "site" in ids and names["site"] not in requested:
        patients = ids.get("patient", pd.Series("", index=raw.index))
        pairs = zip(patients, ids["site"], strict=True)
        sites = ["" if names_no_site(patient, site) else site for patient, site in pairs]
        ids["site"] = pd.Series(sites, index=raw.index, dtype=object)
    # A column the user calls something else gives way to the id of that name, unless it is asked for as well.
    others = [name for name in raw.columns if name not in names and (name not in names.values() or name in requested)]
    return Checked(pd.DataFrame({**ids, **{name: raw[name] for name in others}}), tuple(warnings))


def translated(path: Path, table: pd.DataFrame, words: Words, requested: Collection[str]) -> Checked[pd.DataFrame]:
    """Return the table with the words of its labels and covariates translated; other words stay.

    Words are compared without regard to case. A word that occurs in no row causes a warning.

    Raises:
        ConfigError: Words for a column that is neither a label nor a covariate.
    """
    warnings = []
    for column, meanings in words.items():
        if column not in requested:
            near = difflib.get_close_matches(column, list(requested), n=1)
            hint = (
                f", did you mean '{near[0]}'?" if near else f", expected one of {listed(sorted(requested)) or 'none'}"
            )
            raise ConfigError(f"data.labels.{column}: '{column}' is neither a label nor a covariate{hint}")
        classes = {str(word).strip().casefold(): "" if name is None else str(name) for word, name in meanings.items()}
        written = table[column].str.casefold()
        if unused := sorted(set(classes) - set(written)):
            message = f"{path}: no row has {listed(unused)} in '{column}', which data.labels translates"
            warnings.append(Finding("warning", "unused-word", message, len(unused)))
        table = table.assign(**{column: written.map(classes).where(written.isin(list(classes)), table[column])})
    return Checked(table, tuple(warnings))


def _id_column(
    path: Path, table: pd.DataFrame, name: str, given: str | None, needed: bool, warnings: list[Finding]
) -> str | None:
    if given is not None:
        if needed:
            require(path, table, [given])
        return given if given in table else None
    if name in table:
        return name
    candidates = [str(column) for column in table.columns if _folded(str(column)) in _known(name)]
    if len(candidates) == 1:
        _log.info("%s: column '%s' is taken for the %s", path, candidates[0], name)
        return candidates[0]
    if not needed:
        if candidates:
            message = f"{path}: {listed(candidates)} may be the {name}, none is taken; {_how(name)}"
            warnings.append(Finding("warning", f"which-{name}", message, len(candidates)))
        return None
    if candidates:
        raise CohortError(f"{path}: {listed(candidates)} may be the {name}, expected one; {_how(name)}")
    if name == "slide":
        has = listed([str(column) for column in table.columns])
        raise CohortError(
            f"{path} has no column for the slide, it has {has}; {_how(name)}, or beside it a table of slides, "
            "data.slides=..."
        )
    require(path, table, [name])
    return name


def _without_words(ids: "pd.Series[str]", name: str) -> "pd.Series[str]":
    """Return ids of patients or slides with an empty one for each word that means a missing value."""
    return ids if name == "site" else ids.mask(is_missing(ids), "")


def _how(name: str) -> str:
    return f"give data.columns.{name}=..."


def _known(name: str) -> set[str]:
    composed = {_folded(spelling + suffix) for spelling in _SPELLINGS[name] for suffix in _SUFFIXES[name]}
    return composed | set(map(_folded, _WHOLE[name]))


def _folded(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
