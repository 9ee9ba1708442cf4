"""Slide ids: derived from file names, made into file names, and the public cohort and patient that an id belongs to."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

FEATURE_ENDINGS = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz", ".zarr")
"""Endings of files that may hold a slide's features."""
_SCANS = ("svs", "tif", "tiff", "ndpi", "mrxs", "scn", "vms", "vmu", "czi", "dcm", "isyntax", "bif", "svslide", "ome")
_ENDING = re.compile(rf"(?<=.)(?:{'|'.join(map(re.escape, FEATURE_ENDINGS))}|\.(?:{'|'.join(_SCANS)}))$", re.IGNORECASE)
_UUID = re.compile(r"\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)
"""What the GDC adds to the name of a slide: `TCGA-A1-A0SH-01Z-00-DX1.90E71B08-E1D9-4FC2-85AC-062E56DDF17C`."""
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


def matching_files(slides: Iterable[str], files: Iterable[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Match slides of a table with feature files where only one of the two names has the GDC's UUID at its end.

    Args:
        slides: Ids in the table.
        files: Ids of the feature files.

    Returns:
        The file of each slide that has exactly one, without slides that have a file of their very name; and the
        candidates of slides that have several, or whose file is another slide's too.
    """
    by_name = set(files)
    by_stem = defaultdict[str, list[str]](list)
    for file in sorted(by_name):
        by_stem[_UUID.sub("", file)].append(file)
    candidates = {
        slide: [name] if (name := _UUID.sub("", slide)) in by_name and name != slide else by_stem.get(slide, [])
        for slide in dict.fromkeys(slides)
        if slide not in by_name
    }
    claims = Counter(file for choice in candidates.values() for file in choice)
    unique = {slide: choice[0] for slide, choice in candidates.items() if len(choice) == 1 and claims[choice[0]] == 1}
    return unique, {slide: choice for slide, choice in candidates.items() if choice and slide not in unique}


_LONGEST = 180
"""Longest file name in bytes, without its ending; file systems allow 255."""
_SIGNS = frozenset("-_. ()+,=@&'!#~[]{};")
"""Characters besides letters and digits that stand for themselves in file names."""
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)


def file_stem(name: str) -> str:
    """Return the name of a file, without its ending, for the id of a slide, a patient or anything else.

    Usual ids stay as they are. Separators of folders, control characters, a leading dot and what some systems do not
    allow in names are written as `%2F` and the like, a long id is cut and its digest added: the file lies in the folder
    that the name is joined to, and two ids have two files.

    >>> file_stem("TCGA-A6-2671-01Z-00-DX1"), file_stem("../../S 1")
    ('TCGA-A6-2671-01Z-00-DX1', '%2E.%2F..%2FS 1')
    """
    if not name:
        return "%"
    edges = {0: "." if not _DEVICES.match(name) else name[0], len(name) - 1: ". "}
    letters = (
        letter
        if (letter.isalnum() or letter in _SIGNS) and letter not in edges.get(place, "")
        else "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))
        for place, letter in enumerate(name)
    )
    stem = "".join(letters)
    if len(stem.encode()) <= _LONGEST:
        return stem
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"{stem.encode()[: _LONGEST - 26].decode(errors='ignore')}%-{digest}"
