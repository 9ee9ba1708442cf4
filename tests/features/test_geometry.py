from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mil.errors import EncoderError
from mil.features.formats import Header
from mil.features.geometry import MPP_TOLERANCE, TILE_TOLERANCE, Expected, Geometry, common_geometry

Size = tuple[float | None, float | None]
NOTHING_EXPECTED = Expected()
UNI = Expected(0.5, 256, "encoder 'uni'", "encoder=uni encoder")


def headers(sizes: Mapping[str, Size], tiles: int = 5) -> dict[str, Header]:
    """Return headers of slides with these `(mpp, tile_px)`."""
    return {
        slide: Header(tiles, 8, "float16", None, "X", 512 * (1 + len(slide)), mpp, True, px)
        for slide, (mpp, px) in sizes.items()
    }


def refusal(sizes: Mapping[str, Size], expected: Expected = NOTHING_EXPECTED) -> str:
    with pytest.raises(EncoderError) as raised:
        common_geometry(headers(sizes), expected, "folder")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_geometry_stated_by_all_files_is_verified() -> None:
    assert common_geometry(headers({"a": (0.5, 256), "b": (0.5, 256)}), UNI, "x") == Geometry(0.5, 256, True, True)


def test_geometry_stated_by_some_files_is_used_but_not_verified() -> None:
    assert common_geometry(headers({"a": (0.5, None), "b": (None, None)}), UNI, "x") == Geometry(0.5, 256, False, False)


def test_geometry_stated_by_no_file_is_the_expected_one() -> None:
    assert common_geometry(headers({"a": (None, None)}), UNI, "x") == Geometry(0.5, 256, False, False)
    assert common_geometry(headers({"a": (None, None)}), NOTHING_EXPECTED, "x") == Geometry()


@pytest.mark.parametrize("mpp", [0.45, 0.55])
@pytest.mark.parametrize("px", [224, 256])
def test_usual_deviations_are_within_the_tolerance(mpp: float, px: float) -> None:
    geometry = common_geometry(headers({"a": (0.5, 256), "b": (mpp, px), "c": (0.5, 256)}), UNI, "x")
    assert (geometry.mpp, geometry.tile_px) == (0.5, 256)


def test_differing_slides_error_names_the_exceptions() -> None:
    message = refusal({"a": (0.5, 256), "b": (0.25, 256), "c": (0.5, 256)})
    assert message == (
        "features under folder differ in mpp: 0.5 (2) and 0.25 (1, e.g. slide 'b'), expected one within 12%"
    )
    assert "differ in tile_px: 256 (1) and 512 (1, e.g. slide 'b')" in refusal({"a": (0.5, 256), "b": (0.5, 512)})


def test_unexpected_geometry_error_names_both_and_the_override() -> None:
    message = refusal({"a": (256 / 224, 224)}, UNI)
    assert message == (
        "features under folder have mpp 1.143, encoder 'uni' expects 0.5 within 12% "
        "(encoder=uni encoder.mpp=1.143 accepts it)"
    )
    assert "tile_px 512, encoder 'uni' expects 256 within 25%" in refusal({"a": (0.5, 512)}, UNI)
    assert "accepts" not in refusal({"a": (1.0, 256)}, Expected(0.5, 256, "the checkpoint"))


def test_extents_may_differ_between_scanners() -> None:
    sizes = {"a": (0.5, 256.0), "bb": (0.5, 256.0)}
    assert len({header.extent for header in headers(sizes).values()}) == 2
    assert common_geometry(headers(sizes), UNI, "x").mpp_verified


def test_empty_slides_do_not_determine_the_geometry() -> None:
    both = headers({"a": (0.5, 256)}) | headers({"b": (2.0, None)}, tiles=0)
    assert common_geometry(both, UNI, "x") == Geometry(0.5, 256, True, True)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_sizes_count_as_not_stated(value: float) -> None:
    assert common_geometry(headers({"a": (value, value)}), UNI, "x") == Geometry(0.5, 256, False, False)
    with pytest.raises(ValueError, match="expected a positive number"):
        Geometry(mpp=value)


@given(stated=st.floats(0.05, 4), required=st.floats(0.05, 4))
def test_tolerance_is_symmetric(stated: float, required: float) -> None:
    def accepts(first: float, second: float) -> bool:
        try:
            common_geometry(headers({"a": (first, 256 * first)}), Expected(second, 256 * second), "x")
        except EncoderError:
            return False
        return True

    assert accepts(stated, required) == accepts(required, stated)
    assert accepts(stated, required) == (
        max(stated, required) / min(stated, required) - 1 <= MPP_TOLERANCE < TILE_TOLERANCE
    )
