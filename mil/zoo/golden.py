"""Golden predictions: a few random bags, the logits that the released weights gave for them, and what follows.

They show that a checkpoint still computes what it computed when it was released: bit for bit on the same platform, and
within a tolerance elsewhere, since vector units and libraries add up numbers in another order. What follows from the
logits, with how far each score lies from every fitted cut and limit, shows the same of the fitted state.
"""

import json
import platform
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mil import files
from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.errors import CheckpointError
from mil.fitted.conformal import Sets
from mil.inference.forward import decoded, mean
from mil.tables import csv_text, without_marks

GOLDEN = "golden.safetensors"
SIZES = (5, 12, 23, 40)
TOLERANCE = 1e-5
_LIMIT = 2**26
_KEY, _RESULTS = "platform", "results"
"""Key of the file's metadata, and within it of what follows from the logits, beside what describes the platform."""


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Write random bags and their logits; the bags depend on the widths and training statistics of the checkpoint."""
    bags = _random_bags(checkpoint)
    inputs = {"features": bags.features, "coords": bags.coords, "covariates": bags.covariates}
    tensors = {name: tensor for name, tensor in inputs.items() if tensor is not None}
    logits = _logits(checkpoint, bags)
    tensors |= {"sizes": torch.tensor(bags.sizes), "logits": logits}
    results = csv_text(_results(checkpoint, bags, logits))
    described = json.dumps(here() | {_RESULTS: results}, sort_keys=True)  # one key: of several the order is random
    files.write(folder / GOLDEN, save_tensors(tensors, metadata={_KEY: described}))


def check(checkpoint: Checkpoint) -> str:
    """Predict the stored bags again and return how close the logits are: `bit for bit` or `within 3e-06`.

    Raises:
        CheckpointError: if the golden file is missing or cannot be read, or the logits or what follows differ.
    """
    path = checkpoint.folder / GOLDEN
    bags, stored = _read(path, checkpoint.endpoint.out_dim)
    try:
        logits = _logits(checkpoint, bags)
        _check_results(path, _results(checkpoint, bags, stored))
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


def _results(checkpoint: Checkpoint, bags: Bags, logits: Tensor) -> pd.DataFrame:
    """Return what follows from the logits of each bag, with the distance of each score from every cut and limit."""
    state = checkpoint.manifest.fitted
    table = state.apply(pd.DataFrame(decoded(checkpoint.endpoint, logits)))
    columns: dict[str, NDArray[Any]] = {str(name): table[name].to_numpy() for name in table}
    for decision in (*state.decisions, *state.risk_groups):
        if not decision.likeliest:
            score = decision.score(table)
            columns |= {f"{decision.name} - cut {at}": score - cut for at, cut in enumerate(decision.cuts)}
    for part in state.conformal.parts if state.conformal is not None else ():
        if isinstance(part, Sets):
            excess = part.deviations(table) - np.array([limit.reach for limit in part.limits])
            columns |= {f"set {part.name} {name}": excess[:, at] for at, name in enumerate(part.classes)}
    if (novelty := state.novelty) is not None:
        columns["tiles - min_tiles"] = np.array(bags.sizes) - novelty.min_tiles
        if (reference := novelty.features) is not None:
            means = torch.stack([mean(bag) for bag in bags]).numpy()
            columns["distance - cut"] = reference.distance(means) - reference.cut
    return pd.DataFrame(columns)


def _check_results(path: Path, results: pd.DataFrame) -> None:
    """Compare with the stored results; files that were made before there were any have none.

    Raises:
        CheckpointError: if a column differs.
    """
    text = _described(path).get(_RESULTS)
    if text is None:
        return
    stored, fresh = (
        without_marks(pd.read_csv(StringIO(csv), float_precision="round_trip", keep_default_na=False, na_values=[""]))
        for csv in (text, csv_text(results))
    )
    if list(stored) != list(fresh):
        raise CheckpointError(f"{path}: results are {', '.join(fresh.columns)}, expected {', '.join(stored.columns)}")
    for name in stored:
        if not pd.api.types.is_numeric_dtype(stored[name]):
            same = stored[name].equals(fresh[name])
        else:
            same = np.allclose(stored[name], fresh[name], rtol=TOLERANCE, atol=1e-12, equal_nan=True)
        if not same:
            raise CheckpointError(f"{path}: {name} is {fresh[name].tolist()}, expected {stored[name].tolist()}")


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
    return {key: value for key, value in _described(path).items() if key != _RESULTS}


def _described(path: Path) -> Mapping[str, str]:
    with safe_open(path, framework="pt") as file:
        described: Mapping[str, str] = json.loads((file.metadata() or {}).get(_KEY, "{}"))
    return described
