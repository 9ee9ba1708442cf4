"""Which columns of a table are its ids, and what the words in the others mean."""

import difflib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mil.errors import CohortError, ConfigError
from mil.tables import listed, require

_log = logging.getLogger(__name__)

Words = Mapping[str, Mapping[str, str | None]]
"""What the words of a column mean: `{column: {word: class}}`; None is a missing value."""

_SPELLINGS = {
    "patient": ["patient", "case", "subject", "participant", "case submitter", "submitter"],
    "slide": ["slide", "wsi", "image", "file", "slide file", "image file"],
    "site": ["site", "center", "centre", "tissue source site"],
}
_SUFFIXES = {"patient": ("", "id", "barcode"), "slide": ("", "id", "name"), "site": ("", "id", "code")}
_WHOLE = {"patient": ["bcr patient barcode", "TCGA participant barcode"], "slide": [], "site": ["tss", "TSS code"]}


@dataclass(frozen=True)
class Columns:
    """What a table calls its ids; what is None is looked for under the names that are common for it.

    A table without a column for the site has no sites.
    """

    patient: str | None = None
    slide: str | None = None
    site: str | None = None


def identified(
    path: Path, raw: pd.DataFrame, columns: Columns, needed: Collection[str], asked: set[str]
) -> pd.DataFrame:
    """The table with its ids first, as `patient`, `slide` and `site`, so far as it has them.

    Args:
        path: Its file, for messages.
        raw: As it was read.
        columns: What it calls its ids.
        needed: Which of the three it must have.
        asked: Labels and covariates: columns that stay under their own names even where they are ids.

    Raises:
        CohortError: A needed column is not there, or several may be it.
    """
    found = {own: _theirs(path, raw, own, getattr(columns, own), own in needed) for own in _SPELLINGS}
    names = {own: theirs for own, theirs in found.items() if theirs is not None}
    ids = {own: raw[theirs] for own, theirs in names.items()}
    # A column the user calls something else gives way to the id of that name, unless it is asked for as well.
    others = [name for name in raw.columns if name not in names and (name not in names.values() or name in asked)]
    return pd.DataFrame({**ids, **{name: raw[name] for name in others}})


def translated(path: Path, table: pd.DataFrame, words: Words, asked: Collection[str]) -> pd.DataFrame:
    """The table with the words of its labels and covariates replaced by what they mean; other words stay.

    Words are compared without regard to case. One that no row holds is warned of, as it is likely a slip.

    Raises:
        ConfigError: Words for a column that is neither a label nor a covariate.
    """
    for column, meanings in words.items():
        if column not in asked:
            near = difflib.get_close_matches(column, list(asked), n=1)
            hint = f", did you mean '{near[0]}'?" if near else f", expected one of {listed(sorted(asked)) or 'none'}"
            raise ConfigError(f"data.labels.{column}: '{column}' is neither a label nor a covariate{hint}")
        told = {str(word).strip().casefold(): "" if value is None else str(value) for word, value in meanings.items()}
        written = table[column].str.casefold()
        if unheard := sorted(set(told) - set(written)):
            _log.warning("%s: no row has %s in '%s', which data.labels tells of", path, listed(unheard), column)
        table = table.assign(**{column: written.map(told).where(written.isin(list(told)), table[column])})
    return table


def _theirs(path: Path, table: pd.DataFrame, own: str, given: str | None, needed: bool) -> str | None:
    if given is not None:
        if needed:
            require(path, table, [given])
        return given if given in table else None
    if own in table:
        return own
    candidates = [str(name) for name in table.columns if _folded(str(name)) in _known(own)]
    if len(candidates) == 1:
        _log.info("%s: column '%s' is taken for the %s", path, candidates[0], own)
        return candidates[0]
    if not needed:
        if candidates:
            _log.warning("%s: %s may be the %s, none is taken; %s", path, listed(candidates), own, _how(own))
        return None
    if candidates:
        raise CohortError(f"{path}: {listed(candidates)} may be the {own}, expected one; {_how(own)}")
    if own == "slide":
        has = listed([str(name) for name in table.columns])
        raise CohortError(
            f"{path} has no column for the slide, it has {has}; {_how(own)}, or beside it a table of slides, "
            "data.slides=..."
        )
    require(path, table, [own])
    return own


def _how(own: str) -> str:
    return f"give data.columns.{own}=..."


def _known(own: str) -> set[str]:
    composed = {_folded(name + suffix) for name in _SPELLINGS[own] for suffix in _SUFFIXES[own]}
    return composed | set(map(_folded, _WHOLE[own]))


def _folded(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
