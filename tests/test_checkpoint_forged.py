"""A forged manifest or weight file is refused in one line, runs nothing and reads no other file."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mil import checkpoint
from tests.checkpoints import (
    MANIFEST,
    WEIGHTS,
    Node,
    refusal,
    replace_tensors,
    replace_weights,
    rewrite,
    small,
    with_covariates,
)

FORGED: Node = {"name": "MSI-H", "columns": ["p_MSI-H"], "rule": {"rule": "youden"}, "cuts": [0.5], "on": "select"}
FORGED |= {"calls": ["MSS", "MSI-H"], "n": 9, "positives": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node.update(schema_version=4),
        lambda node: node.update(surprise=1),
        lambda node: node["model"].update(_target_="os.system"),
        lambda node: node.pop("encoder"),
        lambda node: node["encoder"].update(dim="wide"),
        lambda node: node["encoder"].update(colour="red"),
        lambda node: node["encoder"].update(name=None),
        lambda node: node["encoder"].update(dim=9),
        lambda node: node["model"]["options"].update(embed_dim=7),
        lambda node: node["model"]["options"].update(embed_dim=10**7),
        lambda node: node["model"]["options"].update(embed_dim=10**30),
        lambda node: node["model"]["options"].update(embed_dim=-1),
        lambda node: node["model"]["options"].update(heads="many"),
        lambda node: node["model"]["options"].update(nonsense=1),
        lambda node: node["model"]["options"].update(out_dim=3),
        lambda node: node["model"].update(name="mil.models.abmil.DSMIL"),
        lambda node: node["model"].update(name="torch.nn.Linear"),
        lambda node: node["model"].update(name="mil.models.mil_model.MILModel"),
        lambda node: node["model"].update(name="os.system"),
        lambda node: node["endpoint"].update(name="mil.models.abmil.ABMIL"),
        lambda node: node["endpoint"]["options"].update(classes=["one"]),
        lambda node: node["endpoint"].update(name="mil.endpoints.survival.Cox", options={"horizons": {"a": "b"}}),
        lambda node: node["fitted"].update(endpoint=[1, 2]),
        lambda node: node["fitted"].update(decisions=[{}]),
        lambda node: node["fitted"].update(decisions=[FORGED | {"rule": {"rule": "guess"}}]),
        lambda node: node["fitted"].update(decisions=[FORGED | {"cuts": ["low"]}]),
        lambda node: node["fitted"].update(calibration={"curves": 3}),
        lambda node: node["tool"].update(decision={"rule": "guess"}),
        lambda node: node["training"].update(data={"labels": ["high"]}),
        lambda node: node["training"].update(data={"labels": {"MSI": {"high": ["MSI-H"]}}}),
        lambda node: node.update(
            endpoint={"name": "mil.endpoints.survival.Cox", "options": {"horizons": {"y": 12}}},
            fitted={"endpoint": {"baseline_times": 3, "baseline_hazard": "x"}},
        ),
    ],
)
def test_invalid_manifest_is_refused_in_one_line(folder: Path, change: Callable[[Node], object]) -> None:
    rewrite(folder, change)
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("value", [0, -0.5, "fine", [0.5], "NaN", 1e999])
@pytest.mark.parametrize("key", ["mpp", "tile_px"])
def test_invalid_tile_size_is_refused(folder: Path, key: str, value: object) -> None:
    rewrite(folder, lambda node: node["data"].update(geometry={key: value}))
    assert "manifest.json: data.geometry" in refusal(folder)


@pytest.mark.parametrize("value", [5, [], {"batch_axis": "perhaps"}, {"slide_mpp": {}}, {"layout": 3}])
def test_invalid_reading_options_are_refused(folder: Path, value: object) -> None:
    rewrite(folder, lambda node: node["data"].update(reading=value))
    assert "manifest.json: data.reading" in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node["endpoint"]["options"]["endpoints"]["msi"].update(name="os.system"),
        lambda node: node["endpoint"]["options"]["endpoints"]["msi"].update(name="mil.models.abmil.ABMIL"),
        lambda node: node["endpoint"]["options"]["endpoints"]["msi"].update(_target_="os.system"),
        lambda node: node["endpoint"]["options"]["endpoints"].update(more={"_target_": "os.system"}),
        lambda node: node["endpoint"]["options"].update(endpoints={"msi": json.loads(json.dumps(node["endpoint"]))}),
        lambda node: node["endpoint"]["options"].update(endpoints=[1]),
        lambda node: node["endpoint"]["options"].update(endpoints=None),
        lambda node: node["endpoint"]["options"].update(weights=["msi"]),
        lambda node: node["fitted"].update(endpoint={"msi": 3}),
        lambda node: node["covariates"].update(fusion="early"),
        lambda node: node["covariates"].update(embed_dim=None),
        lambda node: node["covariates"].update(embed_dim=-1),
        lambda node: node["covariates"].update(embed_dim=10**12),
        lambda node: node["covariates"].update(embed_dim=7),
        lambda node: node["covariates"].update(numeric=["age", "age"]),
        lambda node: node["covariates"].update(numeric=[]),
        lambda node: node["covariates"].update(state={}),
        lambda node: node["covariates"].update(state={"mean": [1], "sd": ["wide"]}),
        lambda node: node["covariates"].update(surprise=1),
        lambda node: node.update(covariates=None),
        lambda node: node["model"].update(name="mil.models.fusion.Fused"),
    ],
)
def test_forged_covariates_and_nested_endpoints_are_refused(tmp_path: Path, change: Callable[[Node], object]) -> None:
    folder, _, _ = with_covariates(tmp_path / "checkpoint")
    rewrite(folder, change)
    assert str(folder) in refusal(folder)


def test_code_and_path_strings_stay_data(folder: Path) -> None:
    words = {"_target_": "os.system", "command": "touch ran", "home": "${oc.env:HOME}"}
    rewrite(folder, lambda node: (node["tool"].update(words), node["data"].update(words)))
    loaded_manifest = checkpoint.load(folder).manifest
    assert {key: loaded_manifest.tool.plain()[key] for key in words} == words
    assert (loaded_manifest.data.model_extra or {})["home"] == "${oc.env:HOME}"


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b"{", b"\xff\xfe", b'{"tool": ' + b"[" * 100_000, b'{"a":' * 5000, b" " * (2**20 + 1)],
    ids=["empty", "null", "list", "cut", "binary", "deep", "deeper", "huge"],
)
def test_manifest_that_is_not_a_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    refusal(folder)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("ran",))


def test_weights_that_are_not_safetensors_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state": Payload()}, tmp_path / "zipped")
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    contents = {
        "pickle": pickle.dumps(Payload()),
        "torch's pickle": (tmp_path / "zipped").read_bytes(),
        "empty": b"",
        "short": b"1234567",
        "huge header": struct.pack("<Q", 2**40) + b"{}",
        "long header": struct.pack("<Q", 2**20 + 1) + b" " * (2**20 + 1),
        "trailing bytes": (folder / WEIGHTS).read_bytes() + b"#!/bin/sh",
        "cut": (folder / WEIGHTS).read_bytes()[:-4],
        "other names": struct.pack("<Q", len(header)) + header + b"\0\0\0\0",
        "no json": struct.pack("<Q", 8) + b"not json",
        "odd dtype": struct.pack("<Q", len(header)) + header.replace(b"F32", b"Z99") + b"\0\0\0\0",
    }
    for name, content in contents.items():
        replace_weights(folder, content)
        assert WEIGHTS in refusal(folder), name
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors["head.bias"].fill_(float("nan")), "head.bias is not finite"),
        (lambda tensors: tensors["head.weight"].view(-1)[3].fill_(float("inf")), "head.weight is not finite"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(2)}), r"head.bias is (2,)"),
        (lambda tensors: tensors.update({"head.bias": torch.zeros(1).half()}), "torch.float16"),
        (lambda tensors: tensors.pop("head.bias"), "tensors differ from the model's: head.bias"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), "tensors differ from the model's: more"),
    ],
)
def test_mismatched_or_nonfinite_weights_are_refused(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    replace_tensors(folder, change)
    assert message in refusal(folder)
