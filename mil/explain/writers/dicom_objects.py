"""DICOM objects of an explanation: a parametric map and bulk annotations that reference the slide's DICOM image.

Extra `mil-zoo[dicom]` (highdicom). Written only where the scan is a DICOM image, since both must reference it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

import mil
from mil.errors import ConfigError, ScanError
from mil.explain.file_names import file_name
from mil.explain.map_colours import scale
from mil.explain.tile_grid import tile_grid
from mil.explain.tile_scores import PatientScores, SlideScores, TilePlaces
from mil.explain.writers.writing_options import DrawnMap, WritingOptions, drawn_maps
from mil.files import write

if TYPE_CHECKING:
    from highdicom.ann import Measurements
    from highdicom.pm import RealWorldValueMapping
    from pydicom.dataset import Dataset

FOLDER = "dicom"
WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
PADDING = float(np.finfo(np.float32).min)
"""Stored where there is no tile (FloatPixelPaddingValue)."""
_SCHEME = "99MIL"
"""Designator of our own codes; 99 marks private ones."""
_NAMESPACE = UUID("5c0f4dc3-53c4-5f0e-9d0c-2a8b0c1d8f11")
_MAKER = "mil"
_SENTENCE = 64
"""Most characters of a text of DICOM's kind LO."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The DICOM image of a slide at full resolution, without its pixels."""

    image: "Dataset"

    @property
    def spacing(self) -> tuple[float, float]:
        """Millimetres between rows and between columns."""
        measures = self.image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        rows, columns = measures.PixelSpacing
        return float(rows), float(columns)


def write_dicom(patient: PatientScores, slide: SlideScores, options: WritingOptions) -> list[Path]:
    """Write a parametric map for each method and output, and the tiles with all scores as bulk annotations.

    Args:
        patient: The patient.
        slide: The slide, with places.
        options: Where; `scans` must have the slide's DICOM image, otherwise nothing is written, with a warning.

    Returns:
        The files.

    Raises:
        ConfigError: The extra `mil-zoo[dicom]` is not installed.
        ScanError: The slide's DICOM files hold no whole-slide image.
    """
    files = [] if options.scans is None else options.scans.dicom_files(slide.slide)
    if not files:
        where = "given" if options.scans is None else f"in {options.scans.folder}"
        options.warn(f"slide '{slide.slide}': no DICOM image {where}: no DICOM objects, which must reference it")
        return []
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise ConfigError("DICOM objects need highdicom: pip install 'mil-zoo[dicom]'") from None
    source = _source(files, slide.slide)
    folder = options.folder / FOLDER
    maps = list(drawn_maps(patient, slide))
    paths = [_write_map(drawn, number, source, folder) for number, drawn in enumerate(maps, start=1)]
    return [*paths, _write_annotations(maps, source, folder)]


def _saved(dataset: "Dataset", path: Path) -> Path:
    """Write an object completely or not at all."""
    content = BytesIO()
    dataset.save_as(content)
    write(path, content.getvalue())
    return path


def _source(files: Sequence[Path], slide: str) -> _Source:
    """Return the image with most pixels among the files of a series; labels and overviews are no volume."""
    from pydicom import dcmread

    images = [dcmread(path, stop_before_pixels=True) for path in files]
    scans = [image for image in images if image.get("SOPClassUID") == WHOLE_SLIDE_IMAGE]
    volumes = [image for image in scans if "VOLUME" in image.get("ImageType", ())]
    if not volumes:
        raise ScanError(f"slide '{slide}': {files[0]} is no whole-slide image (VL Whole Slide Microscopy, VOLUME)")
    return _Source(image=max(volumes, key=lambda image: int(image.TotalPixelMatrixColumns)))


def _write_map(drawn: DrawnMap, number: int, source: _Source, folder: Path) -> Path:
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence, VOILUTTransformation
    from highdicom.pm import DerivedPixelContrastValues, ParametricMap
    from highdicom.spatial import ImageToReferenceTransformer
    from pydicom.sr.codedict import codes

    assert drawn.slide.places is not None
    grid = tile_grid(drawn.slide.places)
    cells = grid.fill(drawn.values)
    pixels = np.where(np.isnan(cells), PADDING, cells).astype(np.float32)
    low, high = scale(drawn.method, drawn.limit)
    to_slide = ImageToReferenceTransformer.for_image(source.image, for_total_pixel_matrix=True)
    # the position of an image is that of the centre of its first pixel
    position = to_slide(np.array([[grid.x + grid.dx / 2, grid.y + grid.dy / 2]]))[0]
    rows, columns = source.spacing
    thickness = source.image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].get("SliceThickness", 0.001)
    uid = _uid(drawn.stem, pixels.tobytes())
    parametric_map = ParametricMap(
        source_images=[source.image],
        pixel_array=pixels,
        series_instance_uid=_uid("maps", drawn.slide.slide, str(source.image.SOPInstanceUID), uid),
        series_number=101,
        sop_instance_uid=uid,
        instance_number=number,
        manufacturer=_MAKER,
        manufacturer_model_name="mil explain",
        software_versions=mil.__version__,
        device_serial_number=mil.__version__,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(drawn, low, high)],
        voi_lut_transformations=[VOILUTTransformation(window_center=(low + high) / 2, window_width=high - low)],
        content_description=_cut(f"{drawn.column} ({drawn.unit})", _SENTENCE),
        content_label="CLASS_ACTIVATION",
        pixel_measures=PixelMeasuresSequence(
            pixel_spacing=(rows * grid.dy, columns * grid.dx), slice_thickness=float(thickness)
        ),
        plane_orientation=PlaneOrientationSequence("SLIDE", source.image.ImageOrientationSlide),
        plane_positions=[PlanePositionSequence("SLIDE", position, pixel_matrix_position=(1, 1))],
        derived_pixel_contrast=DerivedPixelContrastValues.QUANTITY,
        tile_pixel_array=True,
        tile_size=(min(256, pixels.shape[0]), min(256, pixels.shape[1])),
        derivation=codes.DCM.ImageProcessing,
    )
    parametric_map.FloatPixelPaddingValue = PADDING
    path = folder / f"{drawn.stem}.map.dcm"
    return _saved(parametric_map, path)


def _write_annotations(maps: Sequence[DrawnMap], source: _Source, folder: Path) -> Path:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.ann import AnnotationGroup, MicroscopyBulkSimpleAnnotations
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    slide = maps[0].slide
    assert slide.places is not None
    values = np.stack([drawn.values for drawn in maps])
    corners = _corners(slide.places)
    uid = _uid("tiles", slide.slide, str(source.image.SOPInstanceUID), values.tobytes(), corners.tobytes())
    group = AnnotationGroup(
        number=1,
        uid=_uid("group", uid),
        label="Tiles",
        annotated_property_category=codes.SCT.SpatialAndRelationalConcept,
        annotated_property_type=CodedConcept("TILE", _SCHEME, "Tile of a whole-slide image"),
        graphic_type="RECTANGLE",
        graphic_data=list(corners),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="mil explain", family=codes.DCM.ArtificialIntelligence, version=mil.__version__
        ),
        measurements=[_measurements(drawn, number) for number, drawn in enumerate(maps, start=1)],
        description=_cut(f"Scores of tiles: {', '.join(drawn.column for drawn in maps)}", 1024),
    )
    annotations = MicroscopyBulkSimpleAnnotations(
        source_images=[source.image],
        annotation_coordinate_type="2D",
        annotation_groups=[group],
        series_instance_uid=_uid("annotations", uid),
        series_number=102,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=_MAKER,
        manufacturer_model_name="mil explain",
        software_versions=mil.__version__,
        device_serial_number=mil.__version__,
        content_description="Tiles with the scores of an explanation",
        content_label="TILE_SCORES",
    )
    path = folder / f"{file_name(slide.slide)}.tiles.dcm"
    return _saved(annotations, path)


def _mapping(drawn: DrawnMap, low: float, high: float) -> "RealWorldValueMapping":
    from highdicom.pm import RealWorldValueMapping
    from pydicom.sr.codedict import codes

    return RealWorldValueMapping(
        lut_label="SCORE",
        lut_explanation=_cut(f"{drawn.column} ({drawn.unit})", _SENTENCE),
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=codes.DCM.ClassActivation,
    )


def _measurements(drawn: DrawnMap, number: int) -> "Measurements":
    from highdicom.ann import Measurements
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    name: CodedConcept = CodedConcept(f"SCORE-{number}", _SCHEME, _cut(drawn.column, _SENTENCE))
    return Measurements(name=name, values=drawn.values.astype(np.float32), unit=codes.UCUM.NoUnits)


def _corners(places: TilePlaces) -> NDArray[np.float32]:
    """Return the corners of each tile, clockwise from top left, `(n, 4, 2)` columns and rows."""
    right, bottom = places.x + places.width, places.y + places.height
    corners = ((places.x, places.y), (right, places.y), (right, bottom), (places.x, bottom))
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1).astype(np.float32)


def _uid(*parts: str | bytes) -> str:
    """Return a UID of these contents: the same explanation of the same scan is the same object."""
    digest = hashlib.sha256(b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)).hexdigest()
    return f"2.25.{uuid5(_NAMESPACE, digest).int}"


def _cut(text: str, most: int) -> str:
    """Return a text that DICOM accepts: short enough, without the backslash that separates values."""
    return text.replace("\\", "/")[:most]
