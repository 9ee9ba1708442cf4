"""What public cohorts' ids say of themselves: which cohort, and which patient."""

import re

from mil.data.formats import slide_id

_FAMILIES = {
    "TCGA": re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])"),
    "CPTAC": re.compile(r"(?:C3[LN]-\d{5}|X?\d{2}(?:BR|CO|OV)\d{3})(?!\d)"),
    "GTEx": re.compile(r"GTEX-[A-Z0-9]{4,5}(?![A-Z0-9])"),
    "CAMELYON17": re.compile(r"patient_\d{3}(?=_node_\d)"),
}
"""A patient's part of an id, from its beginning: of a TCGA barcode the first twelve characters."""


def family(name: str) -> str | None:
    """The public cohort whose ids look like this one; None for any other."""
    return next((cohort for cohort, form in _FAMILIES.items() if form.match(name)), None)


def patient_of(name: str) -> str | None:
    """The patient in the id or file name of a public cohort's slide; None where it cannot be told."""
    bare = slide_id(name)
    found = (form.match(bare) for form in _FAMILIES.values())
    return next((match.group() for match in found if match), None)
