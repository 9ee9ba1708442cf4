"""Whole-slide images: the scan of a slide, its thumbnail, regions and deep-zoom tiles.

Read through OpenSlide (extra `mil-zoo[slides]`), which reads what the producers of features read, with the same origin
of coordinates: SVS, NDPI, MIRAX with its bounds, SCN, BIF, VMS, generic TIFF and DICOM. tiffslide, the pure Python
alternative, reads neither MIRAX nor DICOM, and its dependencies are eight times as large.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from PIL import Image

from mil.errors import ConfigError, ScanError
from mil.files import write
from mil.slide_names import slide_id
from mil.storage import limited, retried

if TYPE_CHECKING:
    from openslide import OpenSlide
    from openslide.deepzoom import DeepZoomGenerator

SCAN_ENDINGS = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm")
"""Endings of the files that OpenSlide opens."""
_DICOM = ".dcm"
_WHITE = (255, 255, 255)
_FINEST, _COARSEST = 0.02, 20.0
"""Micrometres a pixel that scanners have. TIFF files state others where nobody knew, such as 72 dots an inch."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Rectangle in level-0 pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnail:
    """A small picture of the scanned part of a slide.

    Attributes:
        image: RGB picture.
        bounds: What it shows, in level-0 pixels.
    """

    image: Image.Image
    bounds: Bounds


class Scans:
    """The scans in a folder and its subfolders, by the name of the slide."""

    def __init__(self, folder: Path) -> None:
        """List the folder.

        Raises:
            ConfigError: The folder does not exist, or its storage fails.
        """
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder, expected one with the scans of the slides")
        self.folder = folder
        self._files = dict[str, list[Path]]()
        for path in limited(lambda: retried(lambda: _scan_files(folder), folder), folder, doing="listing it"):
            for name in {slide_id(path.name), *self._folder_name(path)}:
                self._files.setdefault(name, []).append(path)

    def find(self, slide: str) -> Path | None:
        """Return the file of a slide; of a DICOM series one of its files; None where the folder has none.

        Raises:
            ScanError: Several files may be the scan.
        """
        paths = self._files.get(slide_id(slide), [])
        images = [path for path in paths if path.suffix.lower() != _DICOM]
        if len(images) > 1 or len({path.parent for path in paths}) > 1:
            names = ", ".join(str(path.relative_to(self.folder)) for path in paths[:3])
            raise ScanError(f"slide '{slide}': {len(paths)} files in {self.folder} may be its scan: {names}")
        return images[0] if images else next(iter(paths), None)

    @property
    def has_dicom(self) -> bool:
        """Whether any file is a DICOM file."""
        return any(path.suffix.lower() == _DICOM for paths in self._files.values() for path in paths)

    def dicom_files(self, slide: str) -> list[Path]:
        """Return the DICOM files of a slide: files of its name, or the files in a folder of its name."""
        return [path for path in self._files.get(slide_id(slide), []) if path.suffix.lower() == _DICOM]

    def open(self, slide: str) -> "Scan | None":
        """Return the opened scan of a slide; None where the folder has none.

        Raises:
            ScanError: The file cannot be read, or several may be the scan.
        """
        path = self.find(slide)
        return None if path is None else Scan(path)

    def _folder_name(self, path: Path) -> Iterator[str]:
        if path.suffix.lower() == _DICOM and path.parent != self.folder:
            yield slide_id(path.parent.name)


class Scan:
    """An opened whole-slide image.

    Attributes:
        path: The file.
        width: Width in level-0 pixels.
        height: Height in level-0 pixels.
        bounds: The scanned part; the whole image where the file does not state it.
        mpp: Micrometres a pixel at level 0, mean of both axes; None where the file states none that a scanner
            has.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            ConfigError: The extra `mil-zoo[slides]` is not installed.
            ScanError: The file cannot be read.
        """
        try:
            import openslide
        except ImportError:
            raise ConfigError("reading scans needs OpenSlide: pip install 'mil-zoo[slides]'") from None
        try:
            self._slide: OpenSlide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise ScanError(f"{path}: cannot be read as a whole-slide image ({error})") from None
        self.path = path
        self.width, self.height = self._slide.dimensions
        self.bounds = self._read_bounds()
        self.mpp = self._read_mpp()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def region(self, x: float, y: float, width: float, height: float, longest: int | None = None) -> Image.Image:
        """Return a rectangle of the scan, white where nothing was scanned.

        Args:
            x: Left edge in level-0 pixels.
            y: Top edge in level-0 pixels.
            width: Width in level-0 pixels.
            height: Height in level-0 pixels.
            longest: Longest side of the picture in its own pixels; None for level 0 as it is.

        Raises:
            ScanError: The file is damaged there.
        """
        shrink = 1.0 if longest is None else max(1.0, max(width, height) / longest)
        level = self._slide.get_best_level_for_downsample(shrink)
        factor = self._slide.level_downsamples[level]
        size = (max(1, round(width / factor)), max(1, round(height / factor)))
        picture = self._on_white(self._read((round(x), round(y)), level, size))
        if shrink == 1.0:
            return picture
        return picture.resize((max(1, round(width / shrink)), max(1, round(height / shrink))), Image.Resampling.BOX)

    def thumbnail(self, longest: int = 1600) -> Thumbnail:
        """Return a picture of the scanned part with a longest side of so many pixels, or fewer where it is smaller."""
        box = self.bounds
        return Thumbnail(image=self.region(box.x, box.y, box.width, box.height, longest), bounds=box)

    def deep_zoom(self, tile: int = 254, overlap: int = 1) -> "DeepZoom":
        """Return the scanned part in Microsoft's deep-zoom format, as OpenSeadragon shows it."""
        from openslide.deepzoom import DeepZoomGenerator

        return DeepZoom(DeepZoomGenerator(self._slide, tile_size=tile, overlap=overlap, limit_bounds=True), self.bounds)

    def _read(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        from openslide import OpenSlideError

        try:
            return self._slide.read_region(place, level, size)
        except OpenSlideError as error:
            raise ScanError(f"{self.path}: damaged at x={place[0]}, y={place[1]} ({error})") from None

    @staticmethod
    def _on_white(picture: Image.Image) -> Image.Image:
        ground = Image.new("RGB", picture.size, _WHITE)
        ground.paste(picture, mask=picture.getchannel("A"))
        return ground

    def _read_bounds(self) -> Bounds:
        properties = self._slide.properties
        try:
            x, y, width, height = (
                int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
            )
        except (KeyError, ValueError):
            return Bounds(x=0, y=0, width=self.width, height=self.height)
        return Bounds(x=x, y=y, width=width, height=height)

    def _read_mpp(self) -> float | None:
        properties = self._slide.properties
        try:
            sides = [float(properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
        except (KeyError, ValueError):
            return None
        return sum(sides) / 2 if min(sides) > _FINEST and max(sides) < _COARSEST else None


def _scan_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SCAN_ENDINGS and path.is_file()]


class DeepZoom:
    """Tiles of a pyramid in which each level halves the one below.

    Attributes:
        bounds: What the pyramid shows, in level-0 pixels; its origin is (0, 0) in the viewer.
    """

    def __init__(self, generator: "DeepZoomGenerator", bounds: Bounds) -> None:
        """Wrap OpenSlide's generator."""
        self._generator = generator
        self.bounds = bounds

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Columns and rows of tiles of each level, the smallest level first."""
        return tuple(self._generator.level_tiles)

    def descriptor(self) -> str:
        """Return the XML of the `.dzi` file."""
        return str(self._generator.get_dzi("jpeg"))

    def tile(self, level: int, column: int, row: int, quality: int = 80) -> bytes:
        """Return a tile as JPEG."""
        content = BytesIO()
        self._generator.get_tile(level, (column, row)).convert("RGB").save(content, "JPEG", quality=quality)
        return content.getvalue()

    def write(self, folder: Path, name: str, longest: int | None = None) -> Path:
        """Write `<name>.dzi` and its tiles in `<name>_files`.

        Args:
            folder: Where.
            name: Name without an ending.
            longest: Leave out levels whose longest side has more pixels; the descriptor then states the largest level
                that is there.

        Returns:
            The `.dzi` file.
        """
        sizes = [size for size in self._generator.level_dimensions if longest is None or max(size) <= longest]
        for level in range(len(sizes)):
            columns, rows = self.grids[level]
            for column in range(columns):
                for row in range(rows):
                    write(folder / f"{name}_files" / str(level) / f"{column}_{row}.jpeg", self.tile(level, column, row))
        width, height = sizes[-1]
        full_width, full_height = self._generator.level_dimensions[-1]
        descriptor = self.descriptor()
        descriptor = descriptor.replace(f'Width="{full_width}"', f'Width="{width}"')
        descriptor = descriptor.replace(f'Height="{full_height}"', f'Height="{height}"')
        write(folder / f"{name}.dzi", descriptor)
        return folder / f"{name}.dzi"
