"""Simulated cohorts opened by the producers' own software, where it is installed; it is no dependency of the tests."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil.simulation.simulated_cohort import Simulation, write
from mil.simulation.targets.class_targets import Binary

COHORT = Simulation(Binary("msi", ("MSS", "MSI-H"), 0.3, 0.9), patients=4, tiles=20, width=8, slides=1.5)


def cohort(layout: str, folder: Path) -> dict[str, pd.DataFrame]:
    """Write the cohort and return its tiles by slide."""
    write(replace(COHORT, layout=layout), folder)
    return {path.stem: pd.read_csv(path) for path in sorted((folder / "phenotypes").iterdir())}


def test_spatialdata_and_wsidata_read_lazyslide_s_stores(tmp_path: Path) -> None:
    spatialdata, wsidata = pytest.importorskip("spatialdata"), pytest.importorskip("wsidata")
    for slide, tiles in cohort("lazyslide", tmp_path / "cohort").items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = spatialdata.read_zarr(tmp_path / "cohort" / "features" / f"{slide}.zarr")
        boxes = store.shapes["tiles"].bounds
        np.testing.assert_array_equal(boxes[["minx", "miny"]], tiles[["x", "y"]])
        np.testing.assert_array_equal(boxes["maxx"] - boxes["minx"], 512)
        assert store.tables["simulated_tiles"].shape == (len(tiles), 8)
        assert store.tables["simulated_tiles"].uns["spatialdata_attrs"]["region"] == "tiles"
        spec = wsidata.TileSpec(**store.attrs["tile_spec"]["tiles"])
        assert (spec.base_width, spec.base_height, spec.mpp) == (512, 512, 0.5)


def test_torchmil_reads_its_folders(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchmil.datasets")
    slides = cohort("torchmil", tmp_path / "cohort")
    folder = tmp_path / "cohort" / "features"
    paths = {f"{name}_path": str(folder / name) for name in ("features", "labels", "coords")}
    bags = datasets.ProcessedMILDataset(**paths, bag_keys=["X", "Y", "coords"])
    assert bags.bag_names == sorted(slides)
    for bag, tiles in zip(bags, slides.values(), strict=True):
        assert tuple(bag["X"].shape) == (len(tiles), 8)
        np.testing.assert_array_equal(bag["coords"], tiles[["x", "y"]])
        assert int(bag["Y"]) in (0, 1)


def test_stamp_reads_its_tables(tmp_path: Path) -> None:
    data = pytest.importorskip("stamp.modeling.data")
    slides = cohort("stamp", tmp_path / "cohort")
    table, features = tmp_path / "cohort" / "slide.csv", tmp_path / "cohort" / "features"
    patients = data.slide_to_patient_from_slide_table_(
        slide_table_path=table, feature_dir=features, patient_label="PATIENT", filename_label="FILENAME"
    )
    assert sorted(path.stem for path in patients) == sorted(slides)
    assert all(path.is_file() for path in patients)
