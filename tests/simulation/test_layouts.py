"""What the writers put on the disk, read without a line of this package's readers."""

import hashlib
import importlib.util
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from numpy.typing import NDArray
from pyarrow import parquet
from torch import Tensor

from mil.cohort.clinical_table import Cohort
from mil.errors import ConfigError
from mil.features.formats import Reading
from mil.features.store import FeatureStore
from mil.simulation import simulated_cohort
from mil.simulation.layouts import LAYOUTS
from mil.simulation.simulated_cohort import Simulation, cached, write
from mil.simulation.targets.class_targets import Binary

SMALL = Simulation(Binary("msi", ("MSS", "MSI-H"), 0.3, 0.9), patients=4, tiles=20, width=8, slides=1.5)
Raw = tuple[Tensor, NDArray[np.generic] | None]
OWKINS = 448
"""Level-0 pixels a tile of 224 pixels at half a micrometre, of a slide of a quarter."""


def of_h5(path: Path) -> Raw:
    with h5py.File(path) as file:
        return torch.from_numpy(file["features"][()]), file["coords"][()]


def of_mussel(path: Path) -> Raw:
    with h5py.File(path) as file:
        attributes = file["coords"].attrs
        expected = {"mpp": 0.5, "patch_size": 512, "patch_size_to_resize_to_for_desired_mpp": 256}
        assert {name: attributes[name] for name in expected} == expected
        assert file["features"].dtype == np.dtype("V2")
        bits = file["features"][()].view(np.int16)
        return torch.from_numpy(bits).view(torch.bfloat16), file["coords"][()]


def of_stamp(path: Path) -> Raw:
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
        expected = {"unit": "um", "tile_size_um": 128, "tile_size_px": 256, "feat_type": "tile"}
        assert {name: attributes[name] for name in expected} == expected
        assert file["coords"].dtype == np.float32
        return torch.from_numpy(file["feats"][()]), file["coords"][()] / 0.25


def of_pickle(path: Path) -> Raw:
    content = torch.load(path, weights_only=False)
    return (torch.from_numpy(content) if isinstance(content, np.ndarray) else content), None


def of_slideflow(path: Path) -> Raw:
    config = json.loads(path.with_name("bags_config.json").read_text())
    assert (config["tile_px"], config["tile_um"], config["num_features"]) == (256, 128, 8)
    return torch.load(path), np.load(path.with_suffix(".index.npz"))["arr_0"] - 256


def of_baseline(path: Path) -> Raw:
    content = torch.load(path)
    return content["feats"], content["coords"].numpy()


def of_owkin(path: Path) -> Raw:
    rows = np.load(path)
    root = path.parents[4]
    coords_file = root / "coords" / "coords_224" / path.parts[-3] / path.parts[-2] / "coords.npy"
    assert np.array_equal(np.load(coords_file), rows[:, :3])
    level, tile = rows[0, 0], rows[:, 1:3]
    assert (rows[:, 0] == level).all()
    side = 2.0 ** (level + 1)  # of the deepest level, the slide itself; the next one above would be too small for it
    assert side / 2 < OWKINS * (tile.max() + 2) <= side
    return torch.from_numpy(rows[:, 3:]), OWKINS * tile


def of_numpy(path: Path) -> Raw:
    return torch.from_numpy(np.load(path)), None


def of_torchmil(path: Path) -> Raw:
    return torch.from_numpy(np.load(path)), np.load(path.parents[1] / "coords" / path.name)


def of_lazyslide(path: Path) -> Raw:
    root = zarr.open_group(path, mode="r")
    spec = root.attrs["tile_spec"]["tiles"]  # type: ignore[call-overload,index]  # JSON
    assert int(spec["width"] * spec["base_downsample"]) == 512  # type: ignore[call-overload,index,operator]  # JSON
    table = root["tables/simulated_tiles"]
    assert isinstance(table, zarr.Group)
    shapes = parquet.read_table(path / "shapes" / "tiles" / "shapes.parquet").to_pandas().set_index("tile_id")
    assert list(shapes.columns) == ["tissue_id", "geometry"]
    boxes = [np.array(struct.unpack("<10d", box[-80:])).reshape(5, 2) for box in shapes["geometry"]]
    corners = np.array([box.min(axis=0) for box in boxes])[np.asarray(table["obs/tile_id"])]
    assert all((np.ptp(box, axis=0) == 512).all() for box in boxes)
    return torch.from_numpy(np.asarray(table["X"])), corners


PLACES: dict[str, tuple[str, torch.dtype, Callable[[Path], Raw]]] = {
    "trident": ("{}.h5", torch.float16, of_h5),
    "trident_pt": ("{}.pt", torch.float16, of_pickle),
    "clam": ("h5_files/{}.h5", torch.float32, of_h5),
    "clam_pt": ("pt_files/{}.pt", torch.float32, of_pickle),
    "nnmil": ("{}.h5", torch.float32, of_h5),
    "stamp": ("{}.h5", torch.float16, of_stamp),
    "mussel": ("{}.h5", torch.bfloat16, of_mussel),
    "slideflow": ("{}.pt", torch.float32, of_slideflow),
    "mil_baseline": ("{}.pt", torch.float32, of_baseline),
    "owkin": (
        "slides_classification/features/simulated/SIMULATED/{}.svs/features.npy",
        torch.float32,
        of_owkin,
    ),
    "flamby": ("{}.tif.npy", torch.float32, of_numpy),
    "torchmil": ("features/{}.npy", torch.float32, of_torchmil),
    "lazyslide": ("{}.zarr", torch.float32, of_lazyslide),
}
"""Where a slide lies, the type it is stored in, and how its producer's software would read it."""


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cohorts")
    for layout in LAYOUTS:
        write(replace(SMALL, layout=layout), root / layout)
    return {layout: root / layout for layout in LAYOUTS}


def slides(folder: Path) -> dict[str, pd.DataFrame]:
    """Each slide's tiles as the simulation's own record has them."""
    return {path.stem: pd.read_csv(path) for path in sorted((folder / "phenotypes").iterdir())}


def fingerprint(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_every_layout_has_its_producer_s_reading_here() -> None:
    assert set(PLACES) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_producer_s_software_finds_the_same_tiles_at_the_same_places(cohorts: dict[str, Path], layout: str) -> None:
    place, dtype, read = PLACES[layout]
    for slide, tiles in slides(cohorts[layout]).items():
        exact, _ = of_h5(cohorts["clam"] / "features" / "h5_files" / f"{slide}.h5")
        features, corners = read(cohorts[layout] / "features" / place.format(slide))
        assert features.dtype == dtype
        assert torch.equal(features, exact.to(dtype))
        xy = tiles[["x", "y"]].to_numpy()
        expected = xy // 512 * OWKINS if layout == "owkin" else xy
        assert corners is None or np.array_equal(corners, expected)


def test_stamp_s_tables_name_every_file_and_patient(cohorts: dict[str, Path]) -> None:
    folder = cohorts["stamp"]
    cohort = pd.read_csv(folder / "cohort.csv", dtype=str)
    clini, slides = pd.read_csv(folder / "clini.csv", dtype=str), pd.read_csv(folder / "slide.csv", dtype=str)
    assert clini["PATIENT"].is_unique
    assert (clini.set_index("PATIENT")["msi"] == cohort.groupby("patient")["msi"].first()).all()
    assert slides["PATIENT"].tolist() == cohort["patient"].tolist()
    assert all((folder / "features" / name).is_file() for name in slides["FILENAME"])  # STAMP demands the ending .h5
    table = Cohort.read(folder / "clini.csv", labels=["msi"], slides=folder / "slide.csv").require().table
    assert sorted(table["slide"]) == sorted(cohort["slide"])


def test_torchmil_s_labels_are_the_cohort_s(cohorts: dict[str, Path]) -> None:
    folder = cohorts["torchmil"]
    cohort = pd.read_csv(folder / "cohort.csv", dtype=str)
    labels = {slide: np.load(folder / "features" / "labels" / f"{slide}.npy") for slide in cohort["slide"]}
    assert {label.shape for label in labels.values()} == {(1,)}
    classes = sorted(set(cohort["msi"]))
    assert [classes[int(labels[slide][0])] for slide in cohort["slide"]] == cohort["msi"].tolist()
    assert sorted(path.stem for path in (folder / "features" / "features").iterdir()) == sorted(labels)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_our_readers_find_them_too_and_the_table_joins_with_them(cohorts: dict[str, Path], layout: str) -> None:
    store = FeatureStore(cohorts[layout] / "features", reading=Reading(slide_mpp=0.25))
    tiles = slides(cohorts[layout])
    assert store.slides == sorted(tiles)
    table = Cohort.read(cohorts[layout] / "cohort.csv", labels=["msi"]).require().table
    assert sorted(table["slide"]) == store.slides
    for slide, rows in tiles.items():
        header, content = store.header(slide), store.read(slide)
        assert len(rows) == header.tiles
        xy = torch.from_numpy(rows[["x", "y"]].to_numpy())
        if layout in ("trident_pt", "clam_pt", "flamby"):
            assert content.coords is None
        else:
            assert content.coords is not None
            assert torch.equal(content.coords, xy // 512 * OWKINS if layout == "owkin" else xy)
        assert (header.mpp or 0.5, header.extent or 512) == (0.5, OWKINS if layout == "owkin" else 512)
        assert header.encoder in (None, "simulated")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_parameters_make_the_same_bytes(cohorts: dict[str, Path], layout: str, tmp_path: Path) -> None:
    write(replace(SMALL, layout=layout), tmp_path)
    assert fingerprint(tmp_path) == fingerprint(cohorts[layout])


def test_tables_and_truth_are_the_same_in_every_layout(cohorts: dict[str, Path]) -> None:
    for name in ("cohort.csv", "truth.csv"):
        assert len({(folder / name).read_bytes() for folder in cohorts.values()}) == 1


def test_cohorts_made_before_there_were_more_layouts_are_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated_cohort, "GENERATOR", 2)
    names = {layout: cached(replace(SMALL, layout=layout), tmp_path).name for layout in ("trident", "clam")}
    assert names == {"trident": "0e334245b1ff9aeb", "clam": "20e19cc9a42150a3"}


@pytest.mark.parametrize("missing", ["zarr", "pyarrow"])
def test_a_layout_without_its_libraries_is_refused_before_anything_is_made(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else original(name))
    with pytest.raises(ConfigError, match=rf'lazyslide needs {missing}: pip install "mil-zoo\[zarr\]"'):
        write(replace(SMALL, layout="lazyslide"), tmp_path / "cohort")
    assert not (tmp_path / "cohort").exists()
    write(SMALL, tmp_path / "cohort")
