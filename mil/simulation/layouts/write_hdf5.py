"""Layouts in HDF5: TRIDENT, CLAM, nnMIL, STAMP and Mussel."""

from pathlib import Path

import h5py
import numpy as np
import torch

from mil.simulation.layouts.scan import SCAN, TILE, TILE_MPP, Floats, Ints, Scan


def write_trident(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.h5` of features `(n, d)` at the grid's cells `(n, 2)`, as TRIDENT writes them under fp16 autocast."""
    width, height = scan.size(cells)
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        dataset = file.create_dataset("features", data=features.astype(np.float16))
        # the real `savetodir` is an absolute path; a relative one keeps the bytes alike wherever the cohort lies
        dataset.attrs.update({"name": slide, "savetodir": folder.name, "encoder": scan.encoder})
        file.create_dataset("coords", data=scan.corners(cells)).attrs.update(
            {
                "patch_size": TILE,
                "patch_size_level0": scan.extent,
                "level0_magnification": scan.magnification,
                "target_magnification": 20,
                "overlap": scan.overlap,
                "name": slide,
                "savetodir": folder.name,
                "level0_width": width,
                "level0_height": height,
            }
        )


def write_clam(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`h5_files/<slide>.h5` of features `(n, d)` at the grid's cells `(n, 2)`, as CLAM writes them."""
    (folder / "h5_files").mkdir(exist_ok=True)
    width = features.shape[1]
    with h5py.File(folder / "h5_files" / f"{slide}.h5", "w") as file:
        file.create_dataset("features", data=features, chunks=(32, width), maxshape=(None, width))
        file.create_dataset("coords", data=scan.corners(cells).astype(np.int32), chunks=(32, 2), maxshape=(None, 2))


def write_nnmil(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.h5` of features `(n, d)` and level-0 corners `(n, 2)`, which is all that nnMIL asks for."""
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        file["features"], file["coords"] = features, scan.corners(cells)


def write_stamp(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.h5` of float16 features `(n, d)` and corners `(n, 2)` in micrometres, as STAMP 2.1 writes them.

    STAMP's tiles do not overlap, and their grid begins at the corner of the slide, whatever its bounds.
    """
    corners = scan.extent * (cells + 1 + np.asarray(scan.bounds) // scan.extent)
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        file["feats"] = features.astype(np.float16)
        file["coords"] = (scan.mpp * corners).astype(np.float32)
        file.attrs.update(
            {
                "stamp_version": "2.1.0",
                "extractor": f"{scan.encoder}-0a1b2c3d",
                "unit": "um",
                "tile_size_um": TILE * TILE_MPP,
                "tile_size_px": TILE,
                "code_hash": "0a1b2c3d",
                "feat_type": "tile",
            }
        )


def write_mussel(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.h5` of features `(n, d)` in bfloat16, stored as two opaque bytes, as Mussel may write them."""
    halves = torch.from_numpy(features).bfloat16().view(torch.int16).numpy().view("V2")
    packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        for name, values in (("features", halves), ("coords", scan.corners(cells))):
            width = values.shape[1]
            file.create_dataset(name, data=values, chunks=(128, width), maxshape=(None, width), **packing)
        file["coords"].attrs.update(
            {
                "patch_size": scan.extent,
                "step_size": scan.step,
                "patch_level": 0,
                "mpp": TILE_MPP,
                "native_mpp": scan.mpp,
                "patch_size_to_resize_to_for_desired_mpp": TILE,
                "overlap": scan.overlap,
                "level_dim": scan.size(cells),
                "name": slide,
            }
        )
