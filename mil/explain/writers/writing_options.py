"""What every writer of maps is given beside the scores, and the names of its files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mil.explain.file_names import file_name
from mil.explain.scans import Scan, Scans
from mil.explain.tile_scores import Array, ExplainedOutput, Method, PatientScores, SlideScores


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """Where and how files are written.

    Attributes:
        folder: The folder of the explanation; each format has a subfolder or a file of its own.
        scans: The scans of the slides; None where they were not given.
        merge: Whether neighbouring tiles of one colour step become one polygon in QuPath files.
        top: Number of top and of bottom tiles.
        warnings: Sentences for the user that writers add, each once.
    """

    folder: Path
    scans: Scans | None = None
    merge: bool = False
    top: int = 20
    warnings: list[str] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        """Add a sentence unless it is there."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def open_scan(self, slide: str) -> Scan | None:
        """Return the opened scan of a slide; None, with a warning, where `scans` has none.

        Raises:
            ScanError: The scan cannot be read.
        """
        if self.scans is None:
            return None
        scan = self.scans.open(slide)
        if scan is None:
            self.warn(f"slide '{slide}': no scan in {self.scans.folder}: its files are made from coordinates alone")
        return scan

    def origin(self, slide: str) -> tuple[float, float]:
        """Return the origin of viewers that crop a scan to OpenSlide's bounds, in level-0 pixels; 0, 0 without a scan.

        QuPath does so, and large_image, on which the Digital Slide Archive builds.

        Raises:
            ScanError: The scan cannot be read.
        """
        scan = self.open_scan(slide)
        if scan is None:
            return 0.0, 0.0
        with scan:
            return float(scan.bounds.x), float(scan.bounds.y)


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnMap:
    """One method and output of one slide.

    Attributes:
        patient: The patient, whose slides share a scale.
        slide: The slide.
        method: The method.
        output: The output.
        values: `(n,)`, scores of the slide's tiles.
        limit: Largest absolute score over all slides of the patient.
    """

    patient: PatientScores
    slide: SlideScores
    method: Method
    output: ExplainedOutput
    values: Array
    limit: float

    @property
    def column(self) -> str:
        """Name of the scores in tables and measurements."""
        return f"{self.method.name}:{self.output.name}"

    @property
    def unit(self) -> str:
        """Unit of the scores."""
        return self.method.unit or self.output.unit

    @property
    def stem(self) -> str:
        """Name of a file of this map, without an ending."""
        return ".".join(file_name(name) for name in (self.slide.slide, self.method.name, self.output.name))


def drawn_maps(patient: PatientScores, slide: SlideScores) -> Iterator[DrawnMap]:
    """Yield the maps of a slide, method after method, outputs within a method."""
    for method in patient.methods:
        for column, output in enumerate(patient.outputs):
            yield DrawnMap(
                patient=patient,
                slide=slide,
                method=method,
                output=output,
                values=slide.scores[method.name][:, column],
                limit=patient.limit(method.name, output.name),
            )
