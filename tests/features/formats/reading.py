"""How the tests of layouts read a file: as the store does, by what it holds."""

from pathlib import Path

from mil.features import formats
from mil.features.formats import Header, Reading, Slide

SILENT = Reading()


def claims(path: Path) -> list[str]:
    """The layouts that claim a file."""
    with formats.opened(path) as content:
        known = formats.formats().items()
        return [name for name, one in known if path.suffix in one.SUFFIXES and one.matches(path, content)]


def header(path: Path, asked: Reading = SILENT) -> Header:
    """What a file says of itself."""
    return formats.examine(path, asked)[1]


def read(path: Path, asked: Reading = SILENT) -> Slide:
    """The whole slide, with its header as it was examined."""
    layout, said = formats.examine(path, asked)
    slide = formats.read(path, layout, said, asked)
    assert slide.header == said
    assert slide.features.shape == (said.tiles, said.width)
    assert (slide.coords is not None) == said.has_coords
    return slide
