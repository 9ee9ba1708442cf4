"""Reading of a file in the tests of layouts, as the store reads it: by its content."""

from pathlib import Path

from mil.features import formats
from mil.features.formats import Header, Reading, Slide

SILENT = Reading()


def claims(path: Path) -> list[str]:
    """Return the layouts that accept a file."""
    with formats.opened(path) as content:
        layouts = formats.formats().items()
        return [name for name, layout in layouts if path.suffix in layout.SUFFIXES and layout.matches(path, content)]


def header(path: Path, reading: Reading = SILENT) -> Header:
    """Return the header of a file."""
    return formats.examine(path, reading)[1]


def read(path: Path, reading: Reading = SILENT) -> Slide:
    """Return a slide with its header."""
    layout, header = formats.examine(path, reading)
    slide = formats.read(path, layout, header, reading)
    assert slide.header == header
    assert slide.features.shape == (header.tiles, header.width)
    assert (slide.coords is not None) == header.has_coords
    return slide
