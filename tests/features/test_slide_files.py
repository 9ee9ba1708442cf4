"""Which files of a folder count as slides."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mil.errors import FeatureError
from mil.features.slide_files import listing

Write = Callable[..., Path]


def test_slide_ids_have_no_folders_or_extensions(tmp_path: Path, trident: Write) -> None:
    for name in ("a.svs.h5", "x/b.ome.tif.H5", "TCGA-A1.90E71B08.h5", "c.hdf5"):
        shutil.copy(trident(tmp_path / "source" / "s.h5"), with_parents(tmp_path / "in" / name))
    assert list(listing(tmp_path / "in")) == ["TCGA-A1.90E71B08", "a", "b", "c"]


def with_parents(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("a.h5", "x/a.h5"),
        ("a.h5", "a.svs.h5"),
        ("x/h5_files/a.h5", "y/pt_files/a.pt"),
        ("h5_files/a.h5", "other_files/a.h5"),
        ("a.h5", "a.pt"),
    ],
)
def test_duplicate_slide_error_names_both_files(tmp_path: Path, trident: Write, names: list[str]) -> None:
    for name in names:
        trident(tmp_path / name)
    with pytest.raises(FeatureError, match="slide 'a' is there twice") as raised:
        listing(tmp_path)
    assert all(str(tmp_path / name) in str(raised.value) for name in names)


@pytest.mark.parametrize("under", ["", "FEATURES"])
def test_clam_h5_file_is_preferred_to_the_pt_file(tmp_path: Path, clam: Write, under: str) -> None:
    expected = clam(tmp_path / under / "h5_files" / "a.h5")
    shutil.copy(expected, with_parents(tmp_path / under / "pt_files" / "a.pt"))
    shutil.copy(expected, tmp_path / under / "pt_files" / "b.pt")
    paths = listing(tmp_path)
    assert paths == {"a": expected, "b": tmp_path / under / "pt_files" / "b.pt"}
    assert list(listing(tmp_path / under / "pt_files")) == ["a", "b"]


def test_zarr_folder_is_one_slide_and_is_not_searched(tmp_path: Path, trident: Write) -> None:
    trident(tmp_path / "a.zarr" / "tables" / "inner.h5")
    trident(tmp_path / "c.h5")
    (tmp_path / "x" / "b.svs.zarr").mkdir(parents=True)
    assert listing(tmp_path) == {
        "a": tmp_path / "a.zarr",
        "b": tmp_path / "x" / "b.svs.zarr",
        "c": tmp_path / "c.h5",
    }
    assert listing(tmp_path / "a.zarr") == {"a": tmp_path / "a.zarr"}


def test_labels_coords_and_index_files_are_not_slides(tmp_path: Path, trident: Write) -> None:
    expected = trident(tmp_path / "features" / "a.h5")
    for name in ("slide_features_titan/a.h5", "labels/a.npy", "coords/a.npy", "coords_224/a.svs/coords.npy"):
        shutil.copy(expected, with_parents(tmp_path / name))
    (tmp_path / "features" / "a.index.npz").touch()
    (tmp_path / "features" / ".a.h5").touch()
    assert listing(tmp_path) == {"a": expected}


def test_names_that_merely_contain_labels_or_coords_are_slides(tmp_path: Path, trident: Write) -> None:
    for name in ("my_labels/a.h5", "coords_a.h5", "labels.h5"):
        trident(tmp_path / name)
    assert list(listing(tmp_path)) == ["a", "coords_a", "labels"]


def test_dangling_and_circular_links_are_tolerated(tmp_path: Path, trident: Write) -> None:
    expected = trident(tmp_path / "x" / "a.h5")
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert listing(tmp_path) == {"a": expected}
    (tmp_path / "b.h5").symlink_to(tmp_path / "b.h5")
    (tmp_path / "c.h5").symlink_to(tmp_path / "gone.h5")
    assert list(listing(tmp_path)) == ["a", "b", "c"], "the error comes when the slide is read"
