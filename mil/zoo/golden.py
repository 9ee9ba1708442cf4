"""Golden predictions: a few random bags and the logits that the released weights gave for them.

They show that a checkpoint still computes what it computed when it was released: bit for bit on the same platform, and
within a tolerance elsewhere, since vector units and libraries add up numbers in another order.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mil import files
from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.errors import CheckpointError

GOLDEN = "golden.safetensors"
SIZES = (5, 12, 23, 40)
TOLERANCE = 1e-5
_LIMIT = 2**26
_KEY = "platform"


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Write random bags and their logits; the bags depend on the widths and training statistics of the checkpoint."""
    bags = _random_bags(checkpoint)
    inputs = {"features": bags.features, "coords": bags.coords, "covariates": bags.covariates}
    tensors = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    tensors |= {"sizes": torch.tensor(bags.sizes), "logits": _logits(checkpoint, bags)}
    files.write(folder / GOLDEN, save_tensors(tensors, metadata={_KEY: json.dumps(here(), sort_keys=True)}))


def check(checkpoint: Checkpoint) -> str:
    """Predict the stored bags again and return how close the logits are: `bit for bit` or `within 3e-06`.

    Raises:
        CheckpointError: if the golden file is missing or cannot be read, or the logits differ.
    """
    path = checkpoint.folder / GOLDEN
    bags, stored = _read(path, checkpoint.endpoint.out_dim)
    try:
        logits = _logits(checkpoint, bags)
    except (ValueError, RuntimeError) as error:  # bags whose widths do not fit the model
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from None
    if torch.equal(logits, stored):
        return "bit for bit"
    largest = float((logits - stored).abs().max())
    if made_here(checkpoint.folder):
        raise CheckpointError(f"{path}: logits differ by {largest:.3g} on the platform that made them, expected none")
    if not largest <= TOLERANCE * max(1.0, float(stored.abs().max())):
        raise CheckpointError(
            f"{path}: logits differ by {largest:.3g}, expected at most {TOLERANCE:g} on another platform"
        )
    return f"within {largest:.1g}"


def made_here(folder: Path) -> bool:
    """Return whether a release was made on a platform like this one."""
    return _platform_of(folder / GOLDEN) == here()


def here() -> dict[str, str]:
    """Describe this platform by everything that decides the last bit of a sum."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Return the processor's model, by which libraries choose their kernels."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def _random_bags(checkpoint: Checkpoint) -> Bags:
    """Draw features around the mean of the training bags if the checkpoint stores it, otherwise around zero."""
    rng, total = np.random.default_rng(0), sum(SIZES)
    features = rng.standard_normal((total, checkpoint.encoder.dim))
    novelty = checkpoint.manifest.fitted.novelty
    reference = None if novelty is None else novelty.features
    if reference is not None:
        space = reference.space()
        features = space.mean + features * space.scale
    tile_px = int(checkpoint.geometry.tile_px or 256)
    coords = [np.stack(np.divmod(np.arange(size), 8), 1) * tile_px for size in SIZES]
    width = checkpoint.covariates.width if checkpoint.covariates else 0
    covariates = torch.from_numpy(rng.standard_normal((len(SIZES), width)).astype(np.float32)) if width else None
    tiles = torch.from_numpy(features.astype(np.float32))  # (n, d)
    return Bags(tiles, SIZES, torch.from_numpy(np.concatenate(coords)), covariates=covariates)


def _logits(checkpoint: Checkpoint, bags: Bags) -> Tensor:
    """Predict bag by bag on one CPU thread; `(b, c)`."""
    threads, model = torch.get_num_threads(), checkpoint.model.to("cpu").eval()
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
        tensors = load_tensors(path.read_bytes())
        sizes = tuple(map(int, tensors["sizes"].tolist()))
        bags = Bags(tensors["features"], sizes, tensors.get("coords"), covariates=tensors.get("covariates"))
        logits = tensors["logits"]
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if logits.shape != (len(sizes), out_dim):
        raise CheckpointError(f"{path}: logits are {tuple(logits.shape)}, expected ({len(sizes)}, {out_dim})")
    return bags, logits


def _platform_of(path: Path) -> Mapping[str, str]:
    with safe_open(path, framework="pt") as file:
        described: Mapping[str, str] = json.loads((file.metadata() or {}).get(_KEY, "{}"))
    return described
