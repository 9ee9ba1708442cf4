"""Zarr folders: malicious ones and randomly damaged ones."""

import importlib
import importlib.util
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from mil.errors import FeatureError
from mil.features import formats
from mil.features.containers import zarrs
from tests.features.formats.lazyslides import write_slide
from tests.features.formats.reading import read
from tests.features.mutation import mutated

FEATURES = np.random.default_rng(1).standard_normal((11, 6)).astype("f4")
COORDS = np.random.default_rng(2).integers(0, 90_000, (11, 2))
X = "tables/uni2_tiles/X"


@contextmanager
def metadata(file: Path) -> Iterator[dict[str, Any]]:
    document = json.loads(file.read_text())
    yield document
    file.write_text(json.dumps(document))


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


def pickled_ids(path: Path) -> None:
    """Use a numcodecs codec that unpickles and is looked up by its name."""
    write_slide(path, FEATURES, COORDS, encoding="text", version=2)
    ids = path / "tables/uni2_tiles/obs/tile_id"
    with metadata(ids / ".zarray") as document:
        document.update({"filters": [{"id": "pickle", "protocol": 5}], "compressor": None, "fill_value": 0})
    (ids / "0").write_bytes(pickle.dumps([Touch(path.with_name("touched")), "|O", (11,)]))


def pickled_ids_3(path: Path) -> None:
    write_slide(path, FEATURES, COORDS, encoding="text")
    with metadata(path / "tables/uni2_tiles/obs/tile_id/zarr.json") as document:
        document["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]


def unknown_codec(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    with metadata(path / X / "zarr.json") as document:
        document["codecs"].append({"name": "sharding_indexed", "configuration": {}})


def linked_chunk(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    chunk = next(file for file in (path / X).rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.rename(path.with_name("secret"))
    chunk.symlink_to(path.with_name("secret"))


def linked_folder(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    (path / X).rename(path.with_name("secret"))
    (path / X).symlink_to(path.with_name("secret"))


def linked_metadata(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    (path / X / "zarr.json").rename(path.with_name("secret"))
    (path / X / "zarr.json").symlink_to(path.with_name("secret"))


def linked_shapes(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    shapes = path / "shapes/tiles/shapes.parquet"
    shapes.rename(path.with_name("secret"))
    shapes.symlink_to(path.with_name("secret"))


def bomb(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    with metadata(path / X / "zarr.json") as document:
        document["shape"] = [10**9, 1024]


def chunk_bomb(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    with metadata(path / X / "zarr.json") as document:
        document["chunk_grid"]["configuration"]["chunk_shape"] = [10**7, 1024]


def lost_chunk(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    shutil.rmtree(path / X / "c" / "1")


def long_shapes(path: Path) -> None:
    """Store three million rows in a few kilobytes."""
    write_slide(path, FEATURES, COORDS)
    rows = np.zeros(3_000_000, "i4")
    parquet.write_table(
        pa.table({"tile_id": rows, "geometry": rows}), path / "shapes/tiles/shapes.parquet", compression="zstd"
    )


def no_shapes(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    (path / "shapes/tiles/shapes.parquet").write_text("no")


def other_shapes(path: Path) -> None:
    write_slide(path, FEATURES, COORDS)
    parquet.write_table(pa.table({"tile_id": [1], "y": [2]}), path / "shapes/tiles/shapes.parquet")


def no_metadata(path: Path) -> None:
    path.mkdir()


def broken_metadata(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text("[" * 100_000)


def no_folder(path: Path) -> None:
    path.write_text("no")


ATTACKS = [
    (pickled_ids, "codec 'pickle'"),
    (pickled_ids_3, r"codec 'numcodecs\.pickle'"),
    (unknown_codec, "sharding_indexed"),
    (linked_chunk, "link"),
    (linked_folder, "link"),
    (linked_metadata, "link"),
    (linked_shapes, "link"),
    (bomb, "declares"),
    (chunk_bomb, "declares"),
    (lost_chunk, "1 of 3 chunks"),
    (long_shapes, "3000000 rows"),
    (no_shapes, "parquet"),
    (other_shapes, "no column geometry"),
    (no_metadata, "zarr's metadata"),
    (broken_metadata, "zarr"),
    (no_folder, "no folder"),
]


@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_malicious_folder_is_refused_in_one_line(tmp_path: Path, attack: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "a.zarr"
    attack(path)
    with pytest.raises(FeatureError, match=reason) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "touched").exists()


def test_pickled_ids_run_in_an_unsafe_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pickles, registry = map(importlib.import_module, ("numcodecs.pickles", "numcodecs.registry"))
    monkeypatch.setattr(pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    pickled_ids(tmp_path / "a.zarr")
    registry.get_codec({"id": "pickle"}).decode((tmp_path / "a.zarr/tables/uni2_tiles/obs/tile_id/0").read_bytes())
    assert (tmp_path / "touched").exists()


def test_consolidated_metadata_is_not_trusted(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    array_metadata = json.loads((path / X / "zarr.json").read_text())
    with metadata(path / "zarr.json") as document:
        above = {str(name): {"zarr_format": 3, "node_type": "group"} for name in [*Path(X).parents][:-1]}
        inline = {**above, X: {**array_metadata, "shape": [7, 6]}}
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": inline}
    assert zarr.open_group(path, mode="r")[X].shape == (7, 6)  # type: ignore[union-attr]  # it is an array
    assert read(path).header.tiles == 11


def test_link_to_the_slide_folder_itself_is_followed(tmp_path: Path) -> None:
    write_slide(tmp_path / "elsewhere.zarr", FEATURES, COORDS)
    (tmp_path / "a.zarr").symlink_to(tmp_path / "elsewhere.zarr")
    assert read(tmp_path / "a.zarr").header.tiles == 11


@pytest.mark.parametrize("lacking", ["zarr", "pyarrow"])
def test_missing_optional_dependency_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    path = write_slide(tmp_path / "a.zarr", FEATURES, COORDS)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else find_spec(name))
    with pytest.raises(FeatureError, match=rf'needs {lacking} .*pip install "mil-zoo\[zarr\]"'):
        read(path)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\\b"])
def test_invalid_array_name_is_not_followed(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(FeatureError, match="no name"),
        zarrs.opened(write_slide(tmp_path / "a.zarr", FEATURES, COORDS)) as top,
    ):
        zarrs.group(top, name)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("slides")
    return [
        write_slide(folder / "2.zarr", FEATURES, COORDS, encoding="categorical", version=2),
        write_slide(folder / "3.zarr", FEATURES, COORDS, encoding="text"),
    ]


def refusal(path: Path) -> str:
    try:
        layout, header = formats.examine(path)
        formats.read(path, layout, header)
    except FeatureError as error:
        return str(error)
    return ""


def error_after_damage(slides: list[Path], data: st.DataObject) -> str:
    path = data.draw(st.sampled_from(slides))
    file = data.draw(
        st.sampled_from(sorted(entry for entry in path.rglob("*") if entry.is_file() and entry.stat().st_size))
    )
    content = file.read_bytes()
    file.write_bytes(data.draw(mutated([content])))
    try:
        return refusal(path)
    finally:
        file.write_bytes(content)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damaged_folder_is_read_or_refused_in_one_line(slides: list[Path], data: st.DataObject) -> None:
    assert "\n" not in error_after_damage(slides, data)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(data=st.data())
def test_thousands_of_damaged_folders_are_read_or_refused(slides: list[Path], data: st.DataObject) -> None:
    assert "\n" not in error_after_damage(slides, data)
