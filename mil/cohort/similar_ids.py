"""Ids that are easily one id spelled in two ways, and slides whose names are those of another patient."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from mil.findings import Finding
from mil.slide_names import patient_of

INVISIBLE = (
    "the form of Unicode",
    "spaces or characters without a width",
    "letters of another script that look the same",
    "dashes, dots or underscores",
)
"""Differences that cannot be seen in print, or hardly."""
_SHOWN = 5
"""Groups of similar ids that a message names."""
_WITHOUT_WIDTH = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(code) for code in range(0xFE00, 0xFE10)
}
"""Characters that show nothing, besides spaces and those of the category Cf: fillers and variation selectors."""
_LATIN = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455"  # Cyrillic
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",  # Greek
    "abekmhopctyxijs" + "abezhikmnoptyx",
)
"""Letters of other scripts whose capitals, or which themselves, look like a Latin letter; folded to lower case."""


def spelling_free(name: str) -> str:
    """Return an id without what people and spreadsheets change: case, spaces, leading zeros, a trailing `.0`.

    Unicode's compatibility forms are composed (NFKC), characters without a width are dropped, letters that look Latin
    are, and dots, dashes and underscores are one sign: R writes `TCGA.A1.A0SB`.
    """
    text = re.sub(r"\.0+$", "", _of_one_script(name))
    return re.sub(r"(?<!\d)0+(?=\d)", "", _of_one_sign(text))


def similar(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of different ids that differ in spelling only, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[spelling_free(name)].add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def difference(first: str, second: str) -> str:
    """Return in words how the spellings of two similar ids differ."""
    if unicodedata.normalize("NFKC", first) == unicodedata.normalize("NFKC", second):
        return INVISIBLE[0]
    if _visible(first) == _visible(second):
        return INVISIBLE[1]
    if _visible(first).casefold() == _visible(second).casefold():
        return "upper and lower case"
    if _of_one_script(first) == _of_one_script(second):
        return INVISIBLE[2]
    if _of_one_sign(_of_one_script(first)) == _of_one_sign(_of_one_script(second)):
        return INVISIBLE[3]
    return "leading zeros or a trailing .0"


def findings_of(path: Path, rows: pd.DataFrame) -> list[Finding]:
    """Return warnings of patients, slides and sites with similar ids, and of slides named after another patient.

    Args:
        path: The table, for messages.
        rows: One row a slide: `patient`, `slide`, and `site` where known.
    """
    findings = []
    for column in (name for name in ("patient", "slide", "site") if name in rows):
        groups = similar(name for name in rows[column].unique() if name)
        if groups:
            message = f"{path}: {column} ids that differ in spelling only, {len(groups)} in all: {described(groups)}"
            findings.append(Finding("warning", f"similar-{column}", message, len(groups)))
    return [*findings, *_of_another_patient(path, rows)]


def described(groups: list[tuple[str, ...]]) -> str:
    """Return the first groups with what differs; where that cannot be seen, letters beyond ASCII are escaped."""
    texts = []
    for first, second, *_ in groups[:_SHOWN]:
        what = difference(first, second)
        written = ascii if what in INVISIBLE else repr
        texts.append(f"{written(first)} and {written(second)} ({what})")
    return ", ".join(texts) + (f" and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else "")


def _of_another_patient(path: Path, rows: pd.DataFrame) -> list[Finding]:
    """Return a warning of slides whose names begin with another patient's id, where names usually begin with the own.

    The barcodes of public cohorts always name the patient.
    """
    patients = {spelling_free(patient): patient for patient in rows["patient"].unique() if patient}
    named = [_named_patient(slide, patients) for slide in rows["slide"]]
    pairs = list(zip(rows["slide"], rows["patient"], named, strict=True))
    usual = 2 * sum(name == patient for _, patient, name in pairs) >= len(pairs)
    strange = []
    for slide, patient, name in pairs:
        barcode, owner = patient_of(slide), patient_of(patient)
        by_barcode = barcode is not None and owner is not None and barcode != owner
        if by_barcode or (usual and owner is None and name not in (None, patient)):
            strange.append((slide, patient, barcode if by_barcode else name))
    if not strange:
        return []
    slide, patient, name = min(strange)
    message = f"{path}: {len(strange)} slides have names of other patients: '{slide}' of '{patient}' names '{name}'"
    return [Finding.of_items("warning", "slide-of-another", message, sorted(row[0] for row in strange))]


def _named_patient(slide: str, patients: Mapping[str, str]) -> str | None:
    """Return the patient with the longest id that the name of a slide begins with, up to a sign or the end."""
    ends = [match.start() for match in re.finditer(r"[^0-9A-Za-z]|$", slide)]
    keys = [spelling_free(slide[:end]) for end in reversed(ends)]
    return next((patients[key] for key in keys if key in patients), None)


def _visible(name: str) -> str:
    """Return an id without spaces and without characters of no width, in Unicode's composed compatibility form."""
    letters = unicodedata.normalize("NFKC", name)
    return "".join(
        letter
        for letter in letters
        if not (unicodedata.category(letter) in ("Cf", "Cc") or letter.isspace() or letter in _WITHOUT_WIDTH)
    )


def _of_one_script(name: str) -> str:
    return _visible(name).casefold().translate(_LATIN)


def _of_one_sign(text: str) -> str:
    """Return a text in which every dash, minus sign, dot and underscore is a hyphen."""
    return "".join("-" if letter in "._\u2212" or unicodedata.category(letter) == "Pd" else letter for letter in text)
