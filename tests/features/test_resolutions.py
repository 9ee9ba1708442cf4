from dataclasses import replace

import pytest

from mil.errors import EncoderError
from mil.features.formats import Header
from mil.features.resolutions import check_resolutions

UM = 256.0


def stamp(mpp: float, supertile: int = 1, stated: float | None = None, tiles: int = 30) -> Header:
    """STAMP 2.5: supertiles of whole pixels; in them, positions are multiples of the nominal side."""
    pixels = -(-UM // mpp)
    positions = [tile // supertile * supertile * pixels * mpp + tile % supertile * UM for tile in range(tiles)]
    grid = tuple(float(position) / UM for position in positions)
    return Header(tiles, 8, "float16", "uni", "STAMP 2.5.0", UM, 1.0, True, 256.0, stated or mpp, grid=grid)


def slideflow(step: float, stated: float = 0.25) -> Header:
    return Header(9, 8, "float32", "uni", "slideflow", 512.0, 0.5, True, 256.0, stated, step=step)


@pytest.mark.parametrize("supertile", [1, 2, 8])
def test_one_resolution_fits_slides_of_it(supertile: int) -> None:
    check_resolutions({name: stamp(0.499, supertile) for name in "abc"}, "here")
    sparse = replace(stamp(0.499, supertile), grid=stamp(0.499, supertile).grid[3:20:4])
    check_resolutions({"a": stamp(0.499, supertile), "b": sparse}, "here")


@pytest.mark.parametrize("supertile", [1, 2, 8])
@pytest.mark.parametrize("second", [0.25, 0.2527, 0.4987, 0.5])
def test_one_resolution_for_slides_of_two_is_refused(supertile: int, second: float) -> None:
    headers = {"a": stamp(0.499, supertile, 0.499), "b": stamp(second, supertile, 0.499)}
    with pytest.raises(EncoderError, match=r"'a' and 'b' under here are both taken at 0\.499"):
        check_resolutions(headers, "here")
    check_resolutions({"a": headers["a"], "b": replace(headers["b"], slide_mpp=second)}, "here")


@pytest.mark.parametrize("step", [1.0, 0.5, 1 / 3, 0.996])
def test_step_of_a_whole_part_of_a_tile_fits(step: float) -> None:
    check_resolutions({"a": slideflow(step), "b": slideflow(step)}, "here")


@pytest.mark.parametrize(("step", "times"), [(2.0, "0.5"), (0.8, "1.25"), (1.2, "0.833")])
def test_step_of_another_part_is_refused(step: float, times: str) -> None:
    with pytest.raises(EncoderError, match=rf"'b' under here cannot have 0\.25 .* would be {times} times the step"):
        check_resolutions({"a": slideflow(1.0), "b": slideflow(step)}, "here")


def test_steps_that_differ_at_one_resolution_are_refused() -> None:
    """A slide at half the stated resolution looks like one with overlap, but a folder has one overlap."""
    with pytest.raises(EncoderError, match="'b' and 'a' under here are both taken"):
        check_resolutions({"a": slideflow(1.0), "b": slideflow(0.5)}, "here")
    check_resolutions({"a": slideflow(1.0), "b": slideflow(0.5, stated=0.5)}, "here")
