"""Which encoder a cohort's features come from, and from which tiles."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from mil.errors import EncoderError, FeatureError
from mil.features.encoders import Encoder
from mil.features.geometry import Expected, Geometry
from mil.features.store import FeatureStore
from tests.features.conftest import random_features

Write = Callable[..., Path]
UNI = Encoder("uni", 8, aliases=("uni_v1",))
VIRCHOW2 = Encoder("virchow2", 16)
PHIKON = Encoder("phikon_v2", 8)

# Which encoder


def write_slides(folder: Path, write: Write, encoders: dict[str, str | None], width: int = 8) -> Path:
    for slide, encoder in encoders.items():
        write(folder / f"{slide}.h5", random_features(5, width), encoder=encoder)
    return folder


@pytest.mark.parametrize("given", [None, UNI])
def test_encoder_is_resolved_from_names_and_aliases(tmp_path: Path, trident: Write, given: Encoder | None) -> None:
    store = FeatureStore(write_slides(tmp_path, trident, {"a": "uni_v1", "b": "UNI"}), given, encoders=[PHIKON, UNI])
    assert store.resolve(store.slides).require() == UNI
    assert store.encoder == UNI
    assert store.verified


def test_unknown_encoder_name_is_accepted_as_written(tmp_path: Path, trident: Write) -> None:
    store = FeatureStore(write_slides(tmp_path, trident, {"a": "In-House", "b": "in_house"}), encoders=[UNI])
    assert store.resolve(store.slides).require() == Encoder("In-House", 8)


def test_two_encoders_error_names_both(tmp_path: Path, trident: Write) -> None:
    store = FeatureStore(
        write_slides(tmp_path, trident, {"a": "uni", "b": "phikonv2", "c": "uni"}), encoders=[UNI, PHIKON]
    )
    with pytest.raises(EncoderError, match=r"'uni' \(2, e.g. slide 'a'\) and 'phikon_v2' \(1, e.g. slide 'b'\)"):
        store.resolve(store.slides).require()
    assert store.resolve(["a", "c"]).require() == UNI


def test_two_widths_error_names_both(tmp_path: Path, trident: Write) -> None:
    write_slides(tmp_path, trident, {"a": "uni"})
    store = FeatureStore(write_slides(tmp_path, trident, {"b": "uni"}, width=4))
    with pytest.raises(EncoderError, match=r"'8' \(1, e.g. slide 'a'\) and '4' \(1, e.g. slide 'b'\)"):
        store.resolve(store.slides).require()


def test_missing_encoder_error_suggests_candidates(tmp_path: Path, clam: Write) -> None:
    clam(tmp_path / "a.h5")
    store = FeatureStore(tmp_path, encoders=[UNI, VIRCHOW2, PHIKON])
    with pytest.raises(EncoderError, match=r"give encoder=\.\.\., such as uni, phikon_v2"):
        store.resolve(store.slides).require()


def test_encoder_given_by_the_user_is_not_verified(tmp_path: Path, clam: Write) -> None:
    clam(tmp_path / "a.h5")
    store = FeatureStore(tmp_path, UNI)
    assert store.resolve(store.slides).require() == UNI
    assert not store.verified


def test_partly_missing_encoder_names_give_a_warning(
    tmp_path: Path, trident: Write, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(write_slides(tmp_path, trident, {"a": None, "b": "uni", "c": None}), encoders=[UNI])
    assert store.resolve(store.slides).require() == UNI
    assert not store.verified
    assert caplog.messages == ["2 of 3 slides do not say their encoder, taken as 'uni'"]


def test_another_encoder_of_the_same_width_is_refused(tmp_path: Path, trident: Write) -> None:
    store = FeatureStore(write_slides(tmp_path, trident, {"a": "uni", "b": "phikon_v2"}), UNI)
    with pytest.raises(EncoderError, match=r"'phikon_v2' \(1, e.g. slide 'b'\), expected encoder 'uni'"):
        store.resolve(store.slides).require()


@pytest.mark.parametrize(("stated", "given"), [("uni", UNI), ("uni", None), (None, UNI)])
def test_features_narrower_than_their_encoder_are_refused(
    tmp_path: Path, trident: Write, stated: str | None, given: Encoder | None
) -> None:
    store = FeatureStore(write_slides(tmp_path, trident, {"a": stated}, width=4), given, encoders=[UNI])
    with pytest.raises(EncoderError, match=r"features of 'a' are 4 wide.*, encoder 'uni' has 8"):
        store.resolve(store.slides).require()


def test_empty_slides_do_not_determine_the_width(tmp_path: Path, trident: Write) -> None:
    write_slides(tmp_path, trident, {"a": "uni"})
    with h5py.File(trident(tmp_path / "b.h5", coords=np.empty((0, 2), "i8")), "r+") as file:
        del file["features"]
        file["features"] = np.empty(0, "f4")
        file["features"].attrs["encoder"] = "uni"
    store = FeatureStore(tmp_path, encoders=[UNI])
    assert store.resolve(["b", "a"]).require() == UNI
    with pytest.raises(FeatureError, match="no slide with tiles"):
        store.resolve(["b"]).require()


# Which tiles

UNI_TILES = replace(UNI, mpp=0.5, tile_px=256)


def test_tiles_as_the_encoder_expects_are_verified(tmp_path: Path, trident: Write) -> None:
    store = FeatureStore(write_slides(tmp_path, trident, {"a": "uni", "b": "uni"}), encoders=[UNI_TILES])
    store.resolve(store.slides).require()
    assert store.geometry == Geometry(0.5, 256.0, True, True)


def test_unexpected_resolution_is_refused_unless_declared(tmp_path: Path, stamp: Write) -> None:
    stamp(tmp_path / "a.h5", random_features(), extractor="uni")
    with pytest.raises(EncoderError, match=r"mpp 1.143, encoder 'uni' expects 0.5.*encoder=uni encoder.mpp=1.143"):
        FeatureStore(tmp_path, encoders=[UNI_TILES]).resolve(["a"]).require()
    store = FeatureStore(tmp_path, replace(UNI_TILES, mpp=1.143))
    store.resolve(["a"]).require()
    assert store.geometry == Geometry(256 / 224, 224.0, True, True)


def test_tiles_expected_by_the_tool_override_the_encoders(tmp_path: Path, trident: Write) -> None:
    write_slides(tmp_path, trident, {"a": "uni"})
    coarse = Expected(1.0, 256, "tool 'coarse'", "tool.tiles")
    with pytest.raises(EncoderError, match=r"tool 'coarse' expects 1 .*tool.tiles.mpp=0.5 accepts it"):
        FeatureStore(tmp_path, UNI_TILES, expected=coarse).resolve(["a"]).require()
    fine = FeatureStore(tmp_path, replace(UNI_TILES, mpp=1.0), expected=replace(coarse, mpp=0.5))
    assert fine.resolve(["a"]).require().name == "uni"


def test_unstated_tiles_are_assumed_as_the_encoder_expects(tmp_path: Path, clam: Write) -> None:
    clam(tmp_path / "a.h5")
    store = FeatureStore(tmp_path, UNI_TILES)
    store.resolve(["a"]).require()
    assert store.geometry == Geometry(0.5, 256, False, False)


def test_scanners_may_differ_but_resolutions_may_not(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.h5", extent=512)
    trident(tmp_path / "b.h5", extent=256)
    store = FeatureStore(tmp_path, encoders=[UNI_TILES])
    assert store.resolve(store.slides).require() == UNI_TILES
    with h5py.File(trident(tmp_path / "c.h5"), "r+") as file:
        file["coords"].attrs["target_magnification"] = 40
    with pytest.raises(EncoderError, match=r"differ in mpp: 0.5 \(2\) and 0.25 \(1, e.g. slide 'c'\)"):
        FeatureStore(tmp_path, encoders=[UNI_TILES]).resolve(["a", "b", "c"]).require()


def test_encoders_with_the_same_alias_are_told_apart_by_width(tmp_path: Path, trident: Write) -> None:
    token = Encoder("virchow2_cls", 8, aliases=("virchow2",))
    for width, expected in ((16, VIRCHOW2), (8, token)):
        folder = tmp_path / str(width)
        folder.mkdir()
        store = FeatureStore(write_slides(folder, trident, {"a": "virchow2"}, width), encoders=[VIRCHOW2, token])
        assert store.resolve(store.slides).require() == expected
        assert store.verified


# Vectors of slides

TITAN = Encoder("titan", 8, level="slide")
CONCH = Encoder("conch_v15", 8, aliases=("titan",))


def write_vectors(folder: Path, write: Write, encoder: str = "titan") -> Path:
    for slide in ("a", "b"):
        write(
            folder / f"slide_features_{encoder}" / f"{slide}.h5", np.ones(8, "f4"), np.zeros((5, 2), int), encoder=None
        )
    return folder / f"slide_features_{encoder}"


def test_one_name_is_a_slide_encoder_for_vectors_and_a_tile_encoder_for_tiles(tmp_path: Path, trident: Write) -> None:
    encoders = [CONCH, TITAN]
    store = FeatureStore(write_vectors(tmp_path, trident), encoders=encoders)
    assert store.resolve(store.slides).require() == TITAN
    assert store.read("a").features.shape == (1, 8)
    tiles = FeatureStore(write_slides(tmp_path / "tiles", trident, {"c": "titan"}), encoders=encoders)
    assert tiles.resolve(tiles.slides).require() == CONCH
    unlisted = FeatureStore(write_vectors(tmp_path, trident, "ours"), encoders=encoders)
    assert unlisted.resolve(unlisted.slides).require() == Encoder("ours", 8, level="slide")


def test_tile_and_slide_encoders_are_not_mixed_up(tmp_path: Path, trident: Write) -> None:
    folder = write_vectors(tmp_path, trident)
    with pytest.raises(EncoderError, match=r"vectors of whole slides, encoder 'conch_v15' makes those of tiles"):
        FeatureStore(folder, CONCH).resolve(["a"]).require()
    with pytest.raises(EncoderError, match="'a' is a vector of a slide, encoder 'conch_v15' is not"):
        FeatureStore(folder, CONCH).read("a")
    write_slides(folder, trident, {"c": "titan"})
    with pytest.raises(EncoderError, match=r"are of 'slide' \(2, e.g. slide 'a'\) and 'tile' \(1, e.g. slide 'c'\)"):
        FeatureStore(folder).resolve(["a", "b", "c"])
