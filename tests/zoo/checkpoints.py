"""Small checkpoints for tests of what is done with released folders."""

from pathlib import Path
from typing import Any

import torch

from mil import checkpoint
from mil import manifest as manifests
from mil.endpoints.classification import Binary
from mil.fitted.state import FittedState
from mil.manifest import Manifest
from mil.models.pooling import Pooling
from mil.study.tool import Tool


def described(version: str = "1.0.0", name: str = "toy", **changes: Any) -> Manifest:
    """A manifest of a linear model of the mean tile."""
    endpoint = Binary("MSI", ["MSS", "MSI-H"])
    manifest = manifests.Manifest(
        tool=Tool(name=name, version=version, title="Toy", category="biomarker", question="Is it?"),
        model=manifests.Part(name="mil.models.pooling.Pooling", options={"in_dim": 8, "out_dim": 1, "embed_dim": 4}),
        endpoint=manifests.part(endpoint, {"column": "MSI", "classes": ["MSS", "MSI-H"]}),
        fitted=FittedState(endpoint=endpoint.state()),
        encoder=manifests.EncoderRecord(name="uni", dim=8, aliases=("UNI",), verified=True),
        data=manifests.DataRecord(simulated=True),
        training=manifests.TrainingRecord(seed=0),
    )
    return manifest.model_copy(update=changes)


def made(folder: Path, version: str = "1.0.0", name: str = "toy", seed: int = 0) -> Path:
    """The folder of such a checkpoint, with a card."""
    torch.manual_seed(seed)
    checkpoint.save(folder, Pooling(8, 1, embed_dim=4), described(version, name))
    (folder / "README.md").write_text(f"# {name} {version}\n")
    checkpoint.seal(folder, described(version, name))
    return folder


def reseal(folder: Path) -> None:
    """Counts the files anew, as a forger would."""
    manifest = manifests.parsed((folder / checkpoint.MANIFEST).read_bytes())
    checkpoint.seal(folder, manifest)
