"""A small DICOM whole-slide image that tests write."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPACING = 0.0005
"""Millimetres a pixel."""
ORIGIN = (10.0, 20.0)
"""Of the total pixel matrix in the slide's frame of reference, in millimetres."""


def write_dicom_scan(path: Path, scanned: NDArray[np.uint8], tile: int = 256, flavour: str = "VOLUME") -> None:
    """Write a VL Whole Slide Microscopy image of one level, its tiles uncompressed, its sides multiples of `tile`."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

    rows, columns = scanned.shape[:2]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(image, name, generate_uid(entropy_srcs=[name]))
    for name in (
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
    ):
        setattr(image, name, "")
    image.ReferringPhysicianName = image.PositionReferenceIndicator = image.Laterality = ""
    image.PatientID, image.Modality, image.Manufacturer, image.ManufacturerModelName = "P1", "SM", "mil", "tests"
    image.DeviceSerialNumber, image.SoftwareVersions = "1", "1"
    image.SeriesNumber = image.InstanceNumber = 1
    image.ImageType = ["ORIGINAL", "PRIMARY", flavour, "NONE"]
    image.ContentDate, image.ContentTime, image.AcquisitionDateTime = "20200101", "000000", "20200101000000"
    image.Rows = image.Columns = tile
    image.TotalPixelMatrixRows, image.TotalPixelMatrixColumns = rows, columns
    image.TotalPixelMatrixFocalPlanes = image.NumberOfOpticalPaths = 1
    image.NumberOfFrames = (rows // tile) * (columns // tile)
    image.ImagedVolumeWidth, image.ImagedVolumeHeight, image.ImagedVolumeDepth = (
        columns * SPACING,
        rows * SPACING,
        0.001,
    )
    image.DimensionOrganizationType = "TILED_FULL"
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation, image.LossyImageCompression = 7, 0, "00"
    image.BurnedInAnnotation, image.SpecimenLabelInImage, image.FocusMethod = "NO", "NO", "AUTO"
    image.ExtendedDepthOfField, image.VolumetricProperties = "NO", "VOLUME"
    image.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = ORIGIN
    image.TotalPixelMatrixOriginSequence = [origin]
    measures, shared, kind = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [SPACING, SPACING], 0.001, 0.001
    kind.FrameType = image.ImageType
    shared.PixelMeasuresSequence, shared.WholeSlideMicroscopyImageFrameTypeSequence = [measures], [kind]
    image.SharedFunctionalGroupsSequence = [shared]
    container, specimen, path_of_light, code = Dataset(), Dataset(), Dataset(), Dataset()
    image.ContainerIdentifier, image.IssuerOfTheContainerIdentifierSequence = "C1", []
    container.CodeValue, container.CodingSchemeDesignator, container.CodeMeaning = (
        "433466003",
        "SCT",
        "Microscope slide",
    )
    image.ContainerTypeCodeSequence = [container]
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "S1", generate_uid(entropy_srcs=["specimen"])
    specimen.IssuerOfTheSpecimenIdentifierSequence, specimen.SpecimenPreparationSequence = [], []
    image.SpecimenDescriptionSequence, image.AcquisitionContextSequence = [specimen], []
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "111744", "DCM", "Brightfield illumination"
    path_of_light.OpticalPathIdentifier, path_of_light.IlluminationTypeCodeSequence = "1", [code]
    path_of_light.IlluminationWaveLength = 550.0
    image.OpticalPathSequence = [path_of_light]
    tiles = [
        scanned[row : row + tile, column : column + tile].tobytes()
        for row in range(0, rows, tile)
        for column in range(0, columns, tile)
    ]
    image.PixelData = b"".join(tiles)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path, enforce_file_format=True)
