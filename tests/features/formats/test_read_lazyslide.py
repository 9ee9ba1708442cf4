import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
import zarr
from numpy.typing import ArrayLike
from pyarrow import parquet

from mil.errors import FeatureError
from mil.features.formats import Header, Reading
from tests.features.formats.lazyslides import box, write_array, write_shapes, write_slide, write_table
from tests.features.formats.reading import claims, header, read

FEATURES = np.random.default_rng(1).standard_normal((11, 6)).astype("f4")
COORDS = np.random.default_rng(2).integers(0, 90_000, (11, 2))
MIXED = np.random.default_rng(3).permutation(11)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("encoding", ["number", "text", "categorical", "nullable"])
def test_all_metadata_of_the_folder_is_read(tmp_path: Path, version: Literal[2, 3], encoding: str) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS, encoding=encoding, version=version)
    assert claims(path) == ["lazyslide"]
    slide = read(path)
    assert slide.header == Header(
        11, 6, "float32", "uni2", "LazySlide", 512.0, 0.5, True, 256.0, 0.25, (100_000.0, 80_000.0)
    )
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))


@pytest.mark.parametrize("encoding", ["number", "text", "categorical"])
def test_rows_are_joined_on_tile_id_not_by_order(tmp_path: Path, encoding: str) -> None:
    ids = np.random.default_rng(4).permutation(1000)[:11]
    slide = read(write_slide(tmp_path / "a.zarr", FEATURES, COORDS, ids, encoding=encoding, order=MIXED))
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))


def test_tiles_without_features_are_left_out(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    write_shapes(path, "tiles", np.arange(20)[::-1], np.vstack([COORDS, COORDS[:9]])[::-1])
    slide = read(path)
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_features_keep_their_dtype(tmp_path: Path, dtype: str) -> None:
    slide = read(write_slide(tmp_path / "a.zarr", FEATURES.astype(dtype), COORDS))
    expected = torch.from_numpy(FEATURES.astype(dtype))
    assert torch.equal(slide.features, expected.float() if dtype == "f8" else expected)


def test_empty_slide_has_a_header(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES[:0], COORDS[:0])
    assert header(path).tiles == 0
    assert read(path).features.shape == (0, 6)


def test_single_tile_with_id_zero_is_read(tmp_path: Path) -> None:
    """Zarr stores no chunk that is all zeros, such as the ids of a single tile."""
    slide = read(write_slide(tmp_path / "a.zarr", FEATURES[:1], COORDS[:1]))
    assert slide.coords is not None
    assert slide.coords.tolist() == COORDS[:1].tolist()


def test_tiling_is_the_longest_matching_name(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS, model="conch_v1", tiling="fine_tiles")
    (path / "shapes" / "tiles").mkdir()
    assert header(path).encoder == "conch_v1"


def test_missing_specification_leaves_the_geometry_unknown(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS, spec={})
    stated = header(path)
    assert (stated.extent, stated.mpp, stated.tile_px, stated.has_coords) == (512.0, None, None, True)
    (path / "shapes" / "tiles" / "shapes.parquet").unlink()
    assert header(path).extent is None


def test_without_boxes_the_extent_is_that_of_the_specification(tmp_path: Path) -> None:
    spec = {"width": 224, "height": 448, "base_downsample": 1.002004008016032}
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS, spec=spec)
    (path / "shapes" / "tiles" / "shapes.parquet").unlink()
    assert (header(path).extent, header(path).extent_height) == (224.0, 448.0)


def test_older_files_with_corners_in_columns_are_read(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    x, y = COORDS.T
    parquet.write_table(
        pa.table({"tile_id": np.arange(11), "x": x, "y": y}), path / "shapes" / "tiles" / "shapes.parquet"
    )
    slide = read(path)
    assert slide.coords is not None
    assert torch.equal(slide.coords, torch.from_numpy(COORDS))
    assert slide.header.extent == 512


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (b"box", "well-known binary"),
        (struct.pack("<BI2d", 1, 1, 3.0, 4.0), "kind 1"),
        (box(float("nan"), 0, 1), "no pixels"),
        (box(0, 0, 1)[:-1], "expected a box"),
    ],
)
def test_geometry_that_is_no_box_is_refused(tmp_path: Path, geometry: bytes, reason: str) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    shapes = pa.table({"tile_id": np.arange(11), "geometry": pa.array([geometry] * 11, pa.binary())})
    parquet.write_table(shapes, path / "shapes" / "tiles" / "shapes.parquet")
    with pytest.raises(FeatureError, match=reason):
        header(path)


def test_no_coordinates_without_shapes(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    (path / "shapes" / "tiles" / "shapes.parquet").unlink()
    assert read(path).coords is None


def test_several_feature_tables_are_refused_by_name(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    write_table(zarr.open_group(path, mode="a"), "gigapath_tiles", FEATURES, np.arange(11))
    for reading in (Reading(), Reading("lazyslide")):
        with pytest.raises(FeatureError, match=r"'gigapath_tiles', 'uni2_tiles'.*data\.table=\.\.\. chooses one"):
            header(path, reading)


@pytest.mark.parametrize("table", ["uni2_tiles", "uni2", "UNI-2"])
def test_one_of_several_feature_tables_is_chosen(tmp_path: Path, table: str) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    write_table(zarr.open_group(path, mode="a"), "gigapath_tiles", FEATURES[:, :4], np.arange(11))
    slide = read(path, Reading(table=table))
    assert (slide.header.encoder, slide.header.width) == ("uni2", 6)
    assert torch.equal(slide.features, torch.from_numpy(FEATURES))
    assert header(path, Reading(table="gigapath")).width == 4


def test_unknown_or_ambiguous_table_is_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    with pytest.raises(FeatureError, match=r"data\.table=conch: it has no such table, expected one of 'uni2_tiles'"):
        header(path, Reading(table="conch"))
    write_table(zarr.open_group(path, mode="a"), "uni2_fine", FEATURES, np.arange(11))
    write_shapes(path, "fine", np.arange(11), COORDS)
    with pytest.raises(FeatureError, match=r"2 tables of that encoder, expected one of 'uni2_fine', 'uni2_tiles'"):
        header(path, Reading(table="uni2"))


def test_folder_without_features_matches_no_layout(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(FeatureError, match="no known layout"):
        header(tmp_path / "a.zarr")


def test_sparse_features_are_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    table = zarr.open_group(path, mode="a")["tables/uni2_tiles"]
    assert isinstance(table, zarr.Group)
    del table["X"]
    table.create_group("X", attributes={"encoding-type": "csr_matrix"})
    with pytest.raises(FeatureError, match="csr_matrix, expected a dense array"):
        header(path)


@pytest.mark.parametrize("side", ["features", "shapes"])
def test_duplicate_tile_is_refused(tmp_path: Path, side: str) -> None:
    ids = np.arange(11)
    doubled = np.where(ids == 7, 3, ids)
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS, doubled if side == "features" else ids)
    write_shapes(path, "tiles", ids if side == "features" else doubled, COORDS)
    with pytest.raises(FeatureError, match=f"'3' is there twice in the table of {side}"):
        read(path)


def test_tile_without_coordinates_is_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    write_shapes(path, "tiles", np.arange(10), COORDS[:10])
    with pytest.raises(FeatureError, match="'10' has features, but no place"):
        read(path)


@pytest.mark.parametrize("ids", [np.arange(11) + 0.5, np.arange(10), np.zeros((11, 1), "i8")])
def test_ids_of_another_dtype_are_refused(
    tmp_path: Path, ids: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    obs = zarr.open_group(path, mode="a")["tables/uni2_tiles/obs"]
    assert isinstance(obs, zarr.Group)
    del obs["tile_id"]
    obs.create_array("tile_id", data=ids)
    with pytest.raises(FeatureError, match="tile_id"):
        read(path)


def test_integer_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="int32, expected float16"):
        header(write_slide(tmp_path / "a.zarr", FEATURES.astype("i4"), COORDS))


def write_vector(path: Path, vectors: ArrayLike, key: str = "agg_slide", encoder: str = "titan") -> None:
    """Write what `lazyslide.tl.feature_aggregation` adds to a table."""
    table = zarr.open_group(path, mode="a")["tables/uni2_tiles"]
    assert isinstance(table, zarr.Group)
    place = table.require_group(f"uns/agg_ops/{key}")
    write_array(place, "features", vectors)
    write_array(place, "encoder", np.array(encoder))


@pytest.mark.parametrize("table", ["agg_slide", "uni2_tiles/agg_slide"])
def test_the_vector_of_a_slide_is_read_where_the_table_names_it(tmp_path: Path, table: str) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    write_vector(path, np.arange(7, dtype="f4")[None])
    slide = read(path, Reading(table=table))
    assert slide.header == Header(1, 7, "float32", "titan", "LazySlide", None, None, False, level="slide")
    np.testing.assert_array_equal(slide.features.numpy(), np.arange(7, dtype="f4")[None])
    assert read(path).header.level == "tile"


def test_vectors_of_tissues_are_refused(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    write_vector(path, np.ones((3, 7), "f4"), "agg_tissue_id")
    with pytest.raises(FeatureError, match="agg_tissue_id holds 3 vectors, expected one of the whole slide"):
        read(path, Reading(table="agg_tissue_id"))
