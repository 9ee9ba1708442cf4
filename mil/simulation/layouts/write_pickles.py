"""Layouts in torch's files: TRIDENT's and CLAM's features alone, slideflow, MIL_BASELINE."""

import json
from pathlib import Path

import numpy as np
import torch

from mil.simulation.layouts.scan import SCAN, TILE, TILE_MPP, Floats, Ints, Scan


def write_trident_pt(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.pt` of features `(n, d)`, a numpy array of float16; TRIDENT stores no corners beside it."""
    torch.save(features.astype(np.float16), folder / f"{slide}.pt")


def write_clam_pt(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`pt_files/<slide>.pt` of features `(n, d)`, a tensor of float32; CLAM stores the corners elsewhere."""
    (folder / "pt_files").mkdir(exist_ok=True)
    torch.save(torch.from_numpy(features), folder / "pt_files" / f"{slide}.pt")


def write_slideflow(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.pt` of features `(n, d)`, its index of centres `(n, 2)`, and the folder's one configuration."""
    torch.save(torch.from_numpy(features), folder / f"{slide}.pt")
    np.savez(folder / f"{slide}.index.npz", scan.corners(cells) + scan.extent // 2)
    config = {
        "extractor": {"class": scan.encoder, "kwargs": {}},
        "normalizer": None,
        "num_features": features.shape[1],
        "tile_px": TILE,
        "tile_um": round(TILE * TILE_MPP),
    }
    (folder / "bags_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def write_mil_baseline(folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
    """`<slide>.pt`, a dictionary of features `(n, d)` and level-0 corners `(n, 2)`."""
    held = {"feats": torch.from_numpy(features), "coords": torch.from_numpy(scan.corners(cells))}
    torch.save(held, folder / f"{slide}.pt")
