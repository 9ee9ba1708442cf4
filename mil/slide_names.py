"""Slide ids: derived from file names, and the public cohort and patient that an id belongs to."""

import re

FEATURE_ENDINGS = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz", ".zarr")
"""Endings of files that may hold a slide's features."""
_SCANS = ("svs", "tif", "tiff", "ndpi", "mrxs", "scn", "vms", "vmu", "czi", "dcm", "isyntax", "bif", "svslide", "ome")
_ENDING = re.compile(rf"(?<=.)(?:{'|'.join(map(re.escape, FEATURE_ENDINGS))}|\.(?:{'|'.join(_SCANS)}))$", re.IGNORECASE)
_FAMILIES = {
    "TCGA": re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])"),
    "CPTAC": re.compile(r"(?:C3[LN]-\d{5}|X?\d{2}(?:BR|CO|OV)\d{3})(?!\d)"),
    "GTEx": re.compile(r"GTEX-[A-Z0-9]{4,5}(?![A-Z0-9])"),
    "CAMELYON17": re.compile(r"patient_\d{3}(?=_node_\d)"),
}
"""The part of an id that names the patient, from its start: of a TCGA barcode the first twelve characters."""


def slide_id(name: str) -> str:
    """Return the bare id in a file name or table entry, without folders and without endings of features and scans.

    `normal_001.tif.npy` is `normal_001`; any other dot is part of the id.
    """
    bare = re.split(r"[/\\]", name)[-1]
    while ending := _ENDING.search(bare):
        bare = bare[: ending.start()]
    return bare


def family(name: str) -> str | None:
    """Return the public cohort whose ids look like this one; None for any other."""
    return next((cohort for cohort, form in _FAMILIES.items() if form.match(name)), None)


def patient_of(name: str) -> str | None:
    """Return the patient in the id or file name of a public cohort's slide; None where there is none."""
    bare = slide_id(name)
    matches = (form.match(bare) for form in _FAMILIES.values())
    return next((match.group() for match in matches if match), None)
