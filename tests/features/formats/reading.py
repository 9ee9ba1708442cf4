"""How the tests of layouts read a file: as the store does, by what it holds."""

from pathlib import Path

from mil.features import formats
from mil.features.formats import Header, Reading, Slide

SILENT = Reading()


def claims(path: Path) -> list[str]:
    """The layouts that claim a file."""
    with formats.opened(path) as content:
        layouts = formats.formats().items()
        return [name for name, layout in layouts if path.suffix in layout.SUFFIXES and layout.matches(path, content)]


def header(path: Path, reading: Reading = SILENT) -> Header:
    """What a file says of itself."""
    return formats.examine(path, reading)[1]


def read(path: Path, reading: Reading = SILENT) -> Slide:
    """The whole slide, with its header as it was examined."""
    layout, header = formats.examine(path, reading)
    slide = formats.read(path, layout, header, reading)
    assert slide.header == header
    assert slide.features.shape == (header.tiles, header.width)
    assert (slide.coords is not None) == header.has_coords
    return slide
