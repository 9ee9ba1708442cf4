"""Files that show an explanation in other programs, a module a format.

`ExplanationFiles` writes every format that was asked for, patient after patient. A new format is a function in
`SLIDE_WRITERS` (a slide with places at a time) or `PATIENT_WRITERS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mil.errors import ConfigError
from mil.explain.scans import Scans
from mil.explain.tile_scores import PatientScores, SlideScores
from mil.explain.writers.dicom_objects import write_dicom
from mil.explain.writers.dsa import write_dsa
from mil.explain.writers.qupath import write_geojson
from mil.explain.writers.tile_table import TileTable, has_parquet
from mil.explain.writers.writing_options import WritingOptions


def write_figures(patient: PatientScores, slide: SlideScores, options: WritingOptions) -> list[Path]:
    """Draw the maps of a slide; matplotlib, which takes seconds to import, is loaded when it is used."""
    from mil.explain.writers.map_figure import write_figures as draw

    return draw(patient, slide, options)


def write_top_tiles(patient: PatientScores, options: WritingOptions) -> list[Path]:
    """Write the top and bottom tiles of a patient, as `write_figures`."""
    from mil.explain.writers.top_tiles import write_top_tiles as draw

    return draw(patient, options)


SLIDE_WRITERS: Mapping[str, Callable[[PatientScores, SlideScores, WritingOptions], list[Path]]] = {
    "geojson": write_geojson,
    "dsa": write_dsa,
    "dicom": write_dicom,
    "figures": write_figures,
}
"""Formats that need the places of tiles, one or more files a slide."""
PATIENT_WRITERS: Mapping[str, Callable[[PatientScores, WritingOptions], list[Path]]] = {"top": write_top_tiles}
"""Formats with files for a patient, which need no places."""
TABLES = ("parquet", "csv")
FORMATS = (*TABLES, *SLIDE_WRITERS, *PATIENT_WRITERS)
"""Every format, by the name under which it is asked for."""
DEFAULT_FORMATS = ("parquet", "geojson", "dsa", "figures", "top")
"""What is written unless formats are named; `csv` takes the place of `parquet` where pyarrow is not installed."""


@dataclass(frozen=True, kw_only=True)
class FileChoices:
    """What of an explanation is written; the arguments of `ExplanationFiles` but for the folder.

    Attributes:
        formats: Of `FORMATS`; None for the default.
        scans: Folder with the scans of the slides.
        merge: Whether neighbouring tiles of one colour step are joined in QuPath files.
        top: Number of top and of bottom tiles.
    """

    formats: Sequence[str] | None = None
    scans: Path | None = None
    merge: bool = False
    top: int = 20

    def files(self, folder: Path) -> "ExplanationFiles":
        """Begin the files in a folder, see `ExplanationFiles`."""
        return ExplanationFiles(folder, self.formats, slides=self.scans, merge=self.merge, top=self.top)

    def opened(self) -> Scans | None:
        """Return the scans, if there are any."""
        return None if self.scans is None else Scans(self.scans)


class ExplanationFiles:
    """Writes explanations, one patient after the other.

    Attributes:
        options: Folder, scans and choices of the writers; `options.warnings` collects what the user should read.
        paths: The files written so far.
    """

    def __init__(
        self,
        folder: Path,
        formats: Sequence[str] | None = None,
        *,
        slides: Path | None = None,
        merge: bool = False,
        top: int = 20,
    ) -> None:
        """Begin.

        Args:
            folder: Where files are written.
            formats: Of `FORMATS`; None for `DEFAULT_FORMATS`, with `dicom` where scans are given.
            slides: Folder with the scans; None draws from coordinates alone.
            merge: Join neighbouring tiles of one colour step in QuPath files.
            top: Number of top and of bottom tiles.

        Raises:
            ConfigError: A format does not exist, its extra is not installed, or the folder of scans does not exist.
        """
        for name in formats or ():
            if name not in FORMATS:
                raise ConfigError(f"format '{name}': no such format, expected one of {', '.join(FORMATS)}")
        self.options = WritingOptions(
            folder=folder, scans=None if slides is None else Scans(slides), merge=merge, top=top
        )
        self.formats = self._default_formats() if formats is None else tuple(formats)
        self.paths = list[Path]()
        self._table = TileTable(folder, parquet="parquet" in self.formats, csv="csv" in self.formats)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.paths += self._table.close()
        else:
            self._table.discard()

    def write(self, patient: PatientScores) -> None:
        """Write the files of a patient.

        Slides without coordinates are in the tables only, with a warning.

        Raises:
            ConfigError: An extra is missing, or the patient has other methods or outputs than the first.
            ScanError: A scan cannot be read.
        """
        self._table.add(patient)
        for slide in patient.slides:
            if slide.places is None:
                self.options.warn(
                    f"slide '{slide.slide}': its features have no coordinates: its scores are in the tables, without "
                    "places, and no map can be drawn"
                )
                continue
            for name, write_slide in SLIDE_WRITERS.items():
                if name in self.formats:
                    self.paths += write_slide(patient, slide, self.options)
        for name, write_patient in PATIENT_WRITERS.items():
            if name in self.formats:
                self.paths += write_patient(patient, self.options)

    def _default_formats(self) -> tuple[str, ...]:
        formats = DEFAULT_FORMATS
        if not has_parquet():
            formats = ("csv", *formats[1:])
            self.options.warn("tiles.csv is written in place of tiles.parquet: pip install 'mil-zoo[parquet]'")
        has_dicom = self.options.scans is not None and self.options.scans.has_dicom
        return (*formats, "dicom") if has_dicom else formats
