"""Golden predictions: a few drawn bags with the logits that the released weights gave for them, kept in the release.

They show that a checkpoint still computes what it computed when it was released: bit for bit on the same platform,
within a tolerance elsewhere, since vector units and libraries add up in another order.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from mil import files
from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.errors import CheckpointError
from mil.fitted.novelty import Novelty

GOLDEN = "golden.safetensors"
SIZES = (5, 12, 23, 40)
TOLERANCE = 1e-5
_LIMIT = 2**26
_KEY = "platform"


def write(loaded: Checkpoint, folder: Path) -> None:
    """Draws the bags, which depend on the checkpoint's widths alone, and keeps them with their logits."""
    bags = _drawn(loaded)
    tensors = {"features": bags.features, "coords": bags.coords, "covariates": bags.covariates}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    kept |= {"sizes": torch.tensor(bags.sizes), "logits": _logits(loaded, bags)}
    said = {_KEY: json.dumps(here(), sort_keys=True)}
    files.write(folder / GOLDEN, save_tensors(kept, metadata=said))


def check(loaded: Checkpoint) -> str:
    """Predicts the kept bags anew; says how near the logits came.

    Raises:
        CheckpointError: no golden file, one that is none, or other logits.
    """
    path = loaded.folder / GOLDEN
    bags, wanted = _read(path, loaded.endpoint.out_dim)
    try:
        found = _logits(loaded, bags)
    except (ValueError, RuntimeError) as error:  # of widths that are not the model's
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from None
    if torch.equal(found, wanted):
        return "bit for bit"
    away = float((found - wanted).abs().max())
    if made_here(loaded.folder):
        raise CheckpointError(f"{path}: logits differ by {away:.3g} on the platform that made them, expected none")
    if not away <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise CheckpointError(
            f"{path}: logits differ by {away:.3g}, expected at most {TOLERANCE:g} on another platform"
        )
    return f"within {away:.1g}"


def made_here(folder: Path) -> bool:
    """Whether a release was made on a platform like this one."""
    return _told(folder / GOLDEN) == here()


def here() -> dict[str, str]:
    """What decides the last bit of a sum."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Libraries choose their kernels by the processor's maker and model."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _drawn(loaded: Checkpoint) -> Bags:
    """Features about the mean of the training bags where the checkpoint knows it, else about zero."""
    rng, total = np.random.default_rng(0), sum(SIZES)
    features = rng.standard_normal((total, loaded.encoder.dim))
    known = loaded.manifest.fitted.get("novelty")
    reference = Novelty.from_state(known).features if known else None
    if reference is not None:
        space = reference.space()
        features = space.mean + features * space.scale
    extent = int(loaded.geometry.tile_px or 256)
    places = [np.stack(np.divmod(np.arange(size), 8), 1) * extent for size in SIZES]
    width = loaded.covariates.width if loaded.covariates else 0
    beside = torch.from_numpy(rng.standard_normal((len(SIZES), width)).astype(np.float32)) if width else None
    tiles = torch.from_numpy(features.astype(np.float32))  # (n, d)
    return Bags(tiles, SIZES, torch.from_numpy(np.concatenate(places)), covariates=beside)


def _logits(loaded: Checkpoint, bags: Bags) -> Tensor:
    """Bag by bag on one thread of the CPU, `(b, c)`."""
    threads, model = torch.get_num_threads(), loaded.model.to("cpu").eval()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return torch.cat([model(bag).logits for bag in bags])
    finally:
        torch.set_num_threads(threads)


def _read(path: Path, out_dim: int) -> tuple[Bags, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, expected golden predictions")
    if path.stat().st_size > _LIMIT:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes, expected at most {_LIMIT}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        sizes = tuple(map(int, tensors["sizes"].tolist()))
        bags = Bags(tensors["features"], sizes, tensors.get("coords"), covariates=tensors.get("covariates"))
        wanted = tensors["logits"]
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if wanted.shape != (len(sizes), out_dim):
        raise CheckpointError(f"{path}: logits are {tuple(wanted.shape)}, expected ({len(sizes)}, {out_dim})")
    return bags, wanted


def _told(path: Path) -> Mapping[str, str]:
    with safe_open(path, framework="pt") as file:
        told: Mapping[str, str] = json.loads((file.metadata() or {}).get(_KEY, "{}"))
    return told
