"""Small checkpoints, and ways to tamper with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mil import checkpoint, files
from mil import manifest as manifests
from mil.cohort.covariates import Covariates
from mil.endpoints.classification import Binary
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.errors import CheckpointError
from mil.fitted.state import FittedState
from mil.models.abmil import ABMIL
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import members_of
from mil.study.tool import Tool

WEIGHTS, MANIFEST = checkpoint.WEIGHTS, checkpoint.MANIFEST
Node = dict[str, Any]


def saved(folder: Path, model: MILModel, options: Node | None = None) -> Path:
    """Save a checkpoint of a binary tool with this model and return its folder."""
    endpoint = Binary("MSI", ["MSS", "MSI-H"])
    manifest = manifests.Manifest(
        tool=Tool(name="msi-crc", version="0.1.0"),
        model=manifests.part(members_of(model)[0], {"in_dim": 8, "out_dim": 1} | (options or {})),
        members=len(members_of(model)),
        endpoint=manifests.part(endpoint, {"column": "MSI", "classes": ["MSS", "MSI-H"]}),
        fitted=FittedState(endpoint=endpoint.state()),
        encoder=manifests.EncoderRecord(name="uni", dim=8, aliases=("UNI",), verified=True),
    )
    checkpoint.save(folder, model, manifest)
    (folder / "README.md").write_text("# card\n")
    checkpoint.seal(folder, manifest)
    return folder


def small(folder: Path) -> Path:
    """Save a checkpoint with an attention model and return its folder."""
    torch.manual_seed(0)
    return saved(folder, ABMIL(8, 1, embed_dim=6, attention_dim=4), {"embed_dim": 6, "attention_dim": 4})


def refusal(folder: Path, *allow: str) -> str:
    """Return the one-line message with which loading is refused."""
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(folder, allow)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


def rewrite(folder: Path, change: Callable[[Node], object]) -> None:
    """Change the manifest as an attacker would: nothing else is changed."""
    node = json.loads((folder / MANIFEST).read_text())
    change(node)
    (folder / MANIFEST).write_text(json.dumps(node))


def replace_weights(folder: Path, content: bytes) -> None:
    """Replace the weights by other bytes, with their digest in the manifest."""
    (folder / WEIGHTS).write_bytes(content)
    rewrite(folder, lambda node: node["files"].update({WEIGHTS: files.sha256(folder / WEIGHTS)}))


def replace_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, with the new digest in the manifest."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    replace_weights(folder, (folder / WEIGHTS).read_bytes())


def with_covariates(folder: Path, fusion: str = "gated") -> tuple[Path, Fused, Several]:
    """Save a checkpoint of several endpoints whose model reads covariates; return folder, model and endpoint."""
    torch.manual_seed(0)
    endpoint = Several({"msi": Binary("MSI", ["MSS", "MSI-H"]), "outcome": Cox()}, {"outcome": 0.5})
    node = {"_target_": "mil.endpoints.classification.Binary", "column": "MSI", "classes": ["MSS", "MSI-H"]}
    options = {"endpoints": {"msi": node, "outcome": {"_target_": "mil.endpoints.survival.Cox"}}}
    covariates = Covariates(["age"], {"sex": ["F", "M"]})
    covariates.load_state({"mean": [60.5], "sd": [10.25]})
    model = Fused(ABMIL(8, 2, embed_dim=6, attention_dim=4), covariates.width, 2, fusion, 6)
    torch.nn.init.normal_(model.shift.weight)
    clinical = manifests.Clinical(
        numeric=["age"],
        categorical={"sex": ["F", "M"]},
        fusion=fusion,
        embed_dim=6,
        state=covariates.state(),
    )
    manifest = manifests.Manifest(
        tool=Tool(name="several", version="0.1.0"),
        model=manifests.part(model.inner, {"in_dim": 8, "out_dim": 2, "embed_dim": 6, "attention_dim": 4}),
        endpoint=manifests.endpoint_part(endpoint, options | {"weights": {"outcome": 0.5}}),
        fitted=FittedState(endpoint=endpoint.state()),
        encoder=manifests.EncoderRecord(name="uni", dim=8, aliases=("UNI",), verified=True),
        covariates=clinical,
    )
    checkpoint.save(folder, model, manifest)
    return folder, model.eval(), endpoint
