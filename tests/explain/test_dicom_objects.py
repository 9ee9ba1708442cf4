"""DICOM objects are read back with highdicom: references, coordinates, values."""

from pathlib import Path

import numpy as np
import pytest

from mil.errors import ScanError
from mil.explain.scans import Scans
from mil.explain.writers import ExplanationFiles
from tests.explain.dicom_scans import ORIGIN, SPACING, write_dicom_scan
from tests.explain.drawn_scans import explained, grid_places, hot_scores, picture, write_tiff

highdicom = pytest.importorskip("highdicom")
HOT = 7
PLACES = grid_places(2, 6, 64, x=128, y=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the scan of S1 in `scans`, and its explanation in `out`."""
    base = tmp_path_factory.mktemp("dicom")
    write_dicom_scan(base / "scans" / "S1" / "volume.dcm", picture(512, 768))
    write_dicom_scan(base / "scans" / "S1" / "label.dcm", picture(256, 256), flavour="LABEL")
    with ExplanationFiles(base / "out", ("dicom",), slides=base / "scans") as files:
        files.write(explained({"S1": (PLACES, hot_scores(PLACES, HOT))}))
    assert len(files.paths) == 5
    assert not files.options.warnings
    return base


def test_scans_are_read_from_dicom_too(folder: Path) -> None:
    pytest.importorskip("openslide")
    scan = Scans(folder / "scans").open("S1")
    assert scan is not None
    with scan:
        assert scan.mpp == pytest.approx(1000 * SPACING)
        assert np.array_equal(np.asarray(scan.region(192, 128, 64, 64)), picture(512, 768)[128:192, 192:256])


def test_the_parametric_map_has_the_hot_tile_at_its_place(folder: Path) -> None:
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    source = dcmread(folder / "scans" / "S1" / "volume.dcm")
    image = highdicom.imread(folder / "out" / "dicom" / "S1.single.MSI-H.map.dcm")
    assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"
    assert image.StudyInstanceUID == source.StudyInstanceUID
    assert image.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert image.PatientID == "P1"
    referenced = image.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert referenced.ReferencedSOPInstanceUID == source.SOPInstanceUID
    mapping = image.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == (
        codes.DCM.ClassActivation.value,
        codes.DCM.ClassActivation.scheme_designator,
    )
    values = image.get_total_pixel_matrix(apply_real_world_transform=False)
    assert values.shape == (2, 6)
    assert divmod(int(np.argmax(values)), 6) == divmod(HOT, 6)
    assert values.max() == np.float32(2.0)
    measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(each) for each in measures.PixelSpacing] == pytest.approx([64 * SPACING] * 2)
    # rows run along -x of the slide here, columns along -y: see ImageOrientationSlide
    corner = image.TotalPixelMatrixOriginSequence[0]
    centre = (
        float(corner.XOffsetInSlideCoordinateSystem),
        float(corner.YOffsetInSlideCoordinateSystem),
    )
    first = (64 + 32 - 0.5, 128 + 32 - 0.5)  # row and column of the first tile's centre, from the first pixel's centre
    assert centre == pytest.approx((ORIGIN[0] - first[0] * SPACING, ORIGIN[1] - first[1] * SPACING), abs=1e-6)


def test_cells_without_a_tile_are_padding(tmp_path: Path, folder: Path) -> None:
    places = grid_places(1, 2, 64)
    places.x[1] = 192
    with ExplanationFiles(tmp_path, ("dicom",), slides=folder / "scans") as files:
        files.write(explained({"S1": (places, np.array([[1.0, -1.0], [2.0, -2.0]]))}))
    image = highdicom.imread(files.paths[0])
    values = image.get_total_pixel_matrix(apply_real_world_transform=False)
    assert values.ravel().tolist() == [1.0, image.FloatPixelPaddingValue, image.FloatPixelPaddingValue, 2.0]


def test_the_annotations_have_each_tile_with_its_scores(folder: Path) -> None:
    from pydicom import dcmread

    source = dcmread(folder / "scans" / "S1" / "volume.dcm")
    annotations = highdicom.ann.annread(folder / "out" / "dicom" / "S1.tiles.dcm")
    assert annotations.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    (group,) = annotations.get_annotation_groups()
    corners = group.get_graphic_data(coordinate_type="2D")
    assert len(corners) == 12
    assert corners[HOT].tolist() == [[192, 128], [256, 128], [256, 192], [192, 192]]
    names, values, units = group.get_measurements()
    assert [name.meaning for name in names] == ["single:MSI-H", "single:MSS", "attention:MSI-H", "attention:MSS"]
    assert values.shape == (12, 4)
    assert int(values[:, 0].argmax()) == HOT
    assert values[HOT, :2].tolist() == [2.0, -2.0]
    assert {unit.value for unit in units} == {"1"}


def test_the_same_explanation_is_the_same_object(tmp_path: Path, folder: Path) -> None:
    from pydicom import dcmread

    with ExplanationFiles(tmp_path, ("dicom",), slides=folder / "scans") as files:
        files.write(explained({"S1": (PLACES, hot_scores(PLACES, HOT))}))
    for path in files.paths:
        assert dcmread(path).SOPInstanceUID == dcmread(folder / "out" / "dicom" / path.name).SOPInstanceUID
    assert len({dcmread(path).SOPInstanceUID for path in files.paths}) == 5


def test_without_a_dicom_image_nothing_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    write_tiff(tmp_path / "S1.tiff", picture(256, 256))
    for slides in (None, tmp_path):
        with ExplanationFiles(tmp_path / "out", ("dicom",), slides=slides) as files:
            files.write(explained({"S1": (PLACES, hot_scores(PLACES, HOT))}))
        assert files.paths == []
        where = "given" if slides is None else f"in {slides}"
        assert files.options.warnings == [
            f"slide 'S1': no DICOM image {where}: no DICOM objects, which must reference it"
        ]


def test_dicom_is_a_default_where_scans_are_dicom(folder: Path, tmp_path: Path) -> None:
    assert "dicom" in ExplanationFiles(tmp_path, slides=folder / "scans").formats
    assert "dicom" not in ExplanationFiles(tmp_path).formats


def test_another_kind_of_dicom_file_is_an_error(tmp_path: Path) -> None:
    write_dicom_scan(tmp_path / "scans" / "S1.dcm", picture(256, 256), flavour="LABEL")
    files = ExplanationFiles(tmp_path / "out", ("dicom",), slides=tmp_path / "scans")
    with pytest.raises(ScanError, match=r"S1\.dcm is no whole-slide image"):
        files.write(explained({"S1": (PLACES, hot_scores(PLACES, HOT))}))
