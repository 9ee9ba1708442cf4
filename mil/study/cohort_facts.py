"""What a cohort is, in numbers: for programs as they are, for people as rows."""

import statistics
from dataclasses import dataclass

import pandas as pd

from mil.cohort.slide_rows import patients_without
from mil.features.feature_cache import needs_of_copies, size_text
from mil.splits.roles import ROLES
from mil.study.label_findings import classes_of
from mil.study.pipeline import StudyCheck
from mil.study.reader import StudyReader
from mil.tables import says_simulated

_MOST_CLASSES = 12
"""Labels with more classes are not counted by site."""


@dataclass(frozen=True)
class ToolFacts:
    """The tool that the cohort is checked against."""

    name: str
    question: str | None


@dataclass(frozen=True)
class SlideFacts:
    """Numbers of slides: rows of the table, feature files, and slides of the table with a readable file with tiles."""

    table: int
    files: int
    with_tiles: int


@dataclass(frozen=True)
class BagFacts:
    """The number of bags, and the smallest, median and largest number of tiles in one."""

    n: int
    min: int
    median: float
    max: int


@dataclass(frozen=True)
class LabelFacts:
    """Numbers of patients with and without a value of a label."""

    present: int
    missing: int


@dataclass(frozen=True)
class EncoderFacts:
    """The encoder of the features, and whether all files name it."""

    name: str
    dim: int
    verified: bool


@dataclass(frozen=True)
class TileFacts:
    """The size of the tiles, and whether all files state it."""

    mpp: float | None
    tile_px: float | None
    mpp_verified: bool
    tile_px_verified: bool


@dataclass(frozen=True)
class CopyFacts:
    """The copy of the features on nearer storage: `data.cache`.

    Attributes:
        folder: Of the copies.
        dtype: Type of the copy; None as stored.
        slides: Number of slides that training reads.
        missing: Number of those that it would copy first.
        bytes: Size of the copy that it would write.
        free: Bytes free on the disk of the folder.
    """

    folder: str
    dtype: str | None
    slides: int
    missing: int
    bytes: int
    free: int


@dataclass(frozen=True)
class CohortFacts:
    """Everything that `mil check` shows besides problems; None or empty where it could not be read.

    Attributes:
        tool: The tool.
        cohort: Path of the clinical table; None for a simulated cohort.
        features: Path of the features.
        patients: Number of patients, and of each class or of events.
        slides: Numbers of slides.
        bags: Sizes of the bags.
        labels: Of each label.
        sites: Patients of each class, by site.
        encoder: The encoder.
        geometry: The size of the tiles.
        split: Of each fold, its number and how many patients have each role.
        copy: What would be copied; None without `data.cache`.
    """

    tool: ToolFacts
    cohort: str | None
    features: str | None
    patients: dict[str, int]
    slides: SlideFacts
    bags: BagFacts | None
    labels: dict[str, LabelFacts]
    sites: dict[str, dict[str, int]]
    encoder: EncoderFacts | None
    geometry: TileFacts | None
    split: list[dict[str, int]]
    simulated: bool = False
    """whether the patients are simulated, as far as the table says"""
    copy: CopyFacts | None = None


def facts(check: StudyCheck) -> CohortFacts:
    """Return the numbers of a cohort that was checked."""
    tool, cohort, reader = check.config.tool, check.config.data.cohort, check.reader
    return CohortFacts(
        tool=ToolFacts(tool.name, tool.question),
        cohort=cohort,
        features=None if reader.features.value is None else str(reader.features.value.folder),
        patients=_patients(reader),
        slides=_slides(reader),
        bags=_bags(reader),
        labels=_labels(reader),
        sites=_sites(reader),
        encoder=_encoder(reader),
        geometry=_geometry(reader),
        split=_split(check),
        simulated=cohort is None or _says_simulated(reader),
        copy=_copy(reader),
    )


def rows(numbers: CohortFacts) -> dict[str, str]:
    """Return the same for people, by heading, without the sites."""
    lines = {
        "tool": ": ".join(word for word in (numbers.tool.name, numbers.tool.question) if word),
        "cohort": f"{numbers.cohort or numbers.features}{' (simulated)' if numbers.simulated else ''}",
        "patients": ", ".join(f"{name} {count}" for name, count in numbers.patients.items()),
        "slides": str(numbers.slides.table),
        "labels": "; ".join(
            f"{name}: {label.present} present, {label.missing} missing" for name, label in numbers.labels.items()
        ),
    }
    if bags := numbers.bags:
        lines["bags"] = f"{bags.n}, tiles {bags.min} / {bags.median:.0f} / {bags.max} (min, median, max)"
    if encoder := numbers.encoder:
        lines["encoder"] = f"{encoder.name}, {encoder.dim} wide ({_verified(encoder.verified)})"
    if numbers.geometry:
        lines["tiles"] = _tile_size(numbers.geometry)
    if numbers.copy:
        lines["copy"] = _copy_line(numbers.copy)
    if numbers.split:
        lines["split"] = "; ".join(
            f"fold {fold['fold']}: " + ", ".join(f"{role} {fold[role]}" for role in ROLES) for fold in numbers.split
        )
    return lines


def _copy_line(copy: CopyFacts) -> str:
    if not copy.missing:
        return f"all {copy.slides} slides are in {copy.folder}"
    return (
        f"{copy.missing} of {copy.slides} slides will be copied to {copy.folder}, {size_text(copy.bytes)} "
        f"({copy.dtype or 'as stored'}; {size_text(copy.free)} free)"
    )


def _tile_size(tiles: TileFacts) -> str:
    sizes = []
    if tiles.tile_px is not None:
        sizes.append(f"{tiles.tile_px:.4g} pixels wide ({_verified(tiles.tile_px_verified)})")
    if tiles.mpp is not None:
        sizes.append(f"{tiles.mpp:.4g} micrometres a pixel ({_verified(tiles.mpp_verified)})")
    return ", ".join(sizes) or "of unknown size"


def _verified(verified: bool) -> str:
    return "the files say so" if verified else "not said by all files"


def _slide_rows(reader: StudyReader) -> pd.DataFrame | None:
    cohort = reader.remaining.value
    return reader.rows.value if cohort is None else cohort.table


def _patients(reader: StudyReader) -> dict[str, int]:
    if reader.labels.value is not None:
        return reader.source.endpoint.counts(reader.labels.value.target)
    table = _slide_rows(reader)
    return {} if table is None else {"n": table["patient"].nunique()}


def _slides(reader: StudyReader) -> SlideFacts:
    table, store, headers = _slide_rows(reader), reader.features.value, reader.headers.value
    return SlideFacts(
        table=0 if table is None else len(table),
        files=0 if store is None else len(store),
        with_tiles=0 if headers is None else len(headers),
    )


def _bags(reader: StudyReader) -> BagFacts | None:
    cohort, headers = reader.remaining.value, reader.headers.value
    if cohort is None or not headers:
        return None
    sizes = [
        sum(headers[slide].tiles for slide in slides if slide in headers)
        for slides in cohort.bags(reader.source.bag)["slides"]
    ]
    return BagFacts(len(sizes), min(sizes), statistics.median(sizes), max(sizes))


def _labels(reader: StudyReader) -> dict[str, LabelFacts]:
    table = reader.rows.value
    if table is None:
        return {}
    count = table["patient"].nunique()
    source = reader.source
    without = patients_without(table, source.endpoint.columns, source.declared_words)
    return {name: LabelFacts(count - len(patients), len(patients)) for name, patients in without.items()}


def _says_simulated(reader: StudyReader) -> bool:
    rows = reader.rows.value
    return rows is not None and says_simulated(rows)


def _sites(reader: StudyReader) -> dict[str, dict[str, int]]:
    """Return how many patients of each site are of each class."""
    labels = reader.labels.value
    if labels is None or "site" not in labels.patients:
        return {}
    counts: dict[str, dict[str, int]] = {}
    classes = classes_of(reader.source.endpoint, labels.patients, labels.target)
    for name, words in classes.items():
        if words.nunique() <= _MOST_CLASSES:
            for site, row in pd.crosstab(labels.patients["site"], words).iterrows():
                by_class = {f"{name} {word}" if len(classes) > 1 else str(word): int(n) for word, n in row.items()}
                counts.setdefault(str(site), {}).update(by_class)
    return counts


def _encoder(reader: StudyReader) -> EncoderFacts | None:
    encoder, store = reader.encoder.value, reader.features.value
    if encoder is None or store is None:
        return None
    return EncoderFacts(encoder.name, encoder.dim, store.verified)


def _geometry(reader: StudyReader) -> TileFacts | None:
    store = reader.features.value
    if reader.encoder.value is None or store is None:
        return None
    tiles = store.geometry
    return TileFacts(tiles.mpp, tiles.tile_px, tiles.mpp_verified, tiles.tile_px_verified)


def _copy(reader: StudyReader) -> CopyFacts | None:
    options, store, cohort = reader.source.cache, reader.features.value, reader.remaining.value
    if options is None or store is None or cohort is None or reader.headers.errors:
        return None
    slides = [slide for slide in cohort.table["slide"] if slide in reader.usable]
    needs = needs_of_copies(options, store, slides)
    return CopyFacts(str(options.folder), options.dtype, needs.slides, needs.missing, needs.bytes, needs.free)


def _split(check: StudyCheck) -> list[dict[str, int]]:
    split = check.split
    if split is None:
        return []
    return [{"fold": fold} | {role: len(split.patients(fold, role)) for role in ROLES} for fold in split.folds]
